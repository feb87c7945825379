//! The choice of Y by distance and rate (spec 6.8): what it saves, and where it must not act.
#![cfg(feature = "codec")]

mod codec_support;

use std::sync::Arc;

use codec_support::{codec, decode, default_model, send_none};
use midspan::adapter::Threads;
use midspan::codec::{Codec, Encoder, EncoderConfig, Input, Push, Together};
use midspan::error::ErrorKind;
use midspan::model::CodecModel;
use midspan::model::synthetic::{self, Random, Style, SyntheticShape};
use midspan::wire::{Dtype, Identity, Mode};

/// A model whose g_y always predicts the same: means near 0, deviations of a step. Its tables code runs of small values.
fn wide_tables(seed: u64) -> Arc<Codec> {
    let shape = SyntheticShape { scales: 40, ..SyntheticShape::tiny() };
    let mut parts = synthetic::parts(&shape, Style::Sensible, seed);
    let network = &mut parts.decoder_network;
    let rows = network.output.multiplier.iter_mut().zip(&mut network.output_offset);
    for (row, (multiplier, offset)) in rows.enumerate() {
        (*multiplier, *offset) = (0, if row % (2 * shape.hidden) < shape.hidden { 0 } else { 22 });
    }
    Arc::new(Codec::new(CodecModel::new(parts).unwrap()).unwrap())
}

/// With a rate weight, Y is near the hidden states but cheaper and the same for all chunkings, and W is unchanged.
#[test]
fn a_weight_of_the_rate_saves_bits_and_changes_y_alone() {
    let codec = wide_tables(14);
    let model = codec.model();
    let width = model.hidden_width();
    let (step, offset) = (model.step(0), model.offset(0));
    let hidden: Vec<f32> =
        (0..60 * width).map(|i| (i as f32 * 0.37).sin().powi(3) * 3.0 * step[i % width] + offset[i % width]).collect();
    let encode = |rate_weight, mode, batch: usize| {
        let config = EncoderConfig::new(Identity::none()).mode(mode).rate_weight(rate_weight);
        let mut encoder = Encoder::new(codec.clone(), config).unwrap();
        encoder.track_cost(true);
        let (mut w, mut y, mut bits) = (Vec::new(), Vec::new(), 0.0);
        for part in hidden.chunks(batch * width) {
            encoder.push_hidden(part).unwrap();
            w.extend_from_slice(&encoder.last_integers().unwrap().w);
            y.extend_from_slice(&encoder.last_integers().unwrap().y);
            bits += encoder.last_cost().unwrap().target;
        }
        encoder.end().unwrap();
        let (seen, outcome) = decode(&codec, &encoder.take_bytes().unwrap());
        assert_eq!(outcome, Ok(()));
        assert!(seen.w == w && seen.y == y);
        (w, y, bits)
    };
    let (nearest_w, nearest_y, nearest_bits) = encode(None, Mode::Joined, 60);
    assert_eq!(
        nearest_y,
        Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap().quantise(&hidden).unwrap()
    );
    let (w, y, bits) = encode(Some(0.05), Mode::Joined, 60);
    assert_eq!(w, nearest_w);
    assert!(y.iter().zip(&nearest_y).all(|(y, nearest)| (y - nearest).abs() <= 1));
    let plain = |y: &[i16]| {
        16.0 + (width as u32 * (17 - y.iter().map(|y| (y ^ (y >> 15)).leading_zeros()).min().unwrap())) as f64
    };
    let plain_bits: f64 = nearest_y.chunks(width).map(plain).sum();
    assert!(nearest_bits < 0.95 * plain_bits, "runs are to be coded: {nearest_bits} bits, plain {plain_bits}");
    assert!(y != nearest_y && bits < 0.99 * nearest_bits, "{bits} of {nearest_bits}");
    for (mode, batch) in [(Mode::Joined, 1), (Mode::Joined, 7), (Mode::Layered, 13)] {
        let (again_w, again_y, _) = encode(Some(0.05), mode, batch);
        assert!(again_w == w && again_y == y, "{mode:?}, {batch} frames a chunk");
    }
    assert!(encode(Some(0.2), Mode::Joined, 60).2 < bits);
    for wrong in [-0.1, f32::NAN, f32::INFINITY] {
        let config = EncoderConfig::new(Identity::none()).rate_weight(Some(wrong));
        assert_eq!(Encoder::new(codec.clone(), config).unwrap_err().kind(), ErrorKind::BadConfig);
    }
    // The weight is kept in a saved session, and an exact frame chooses Y as other frames do.
    let config = EncoderConfig::new(Identity::none()).rate_weight(Some(0.05));
    let mut encoder = Encoder::new(codec.clone(), config).unwrap();
    encoder.push_hidden(&hidden[..7 * width]).unwrap();
    let mut restored = Encoder::restore(codec.clone(), &encoder.save(), 1 << 24).unwrap();
    for frame in hidden[7 * width..].chunks(width).take(6) {
        encoder.push_hidden(frame).unwrap();
        let bytes: Vec<u8> = frame.iter().flat_map(|value| value.to_le_bytes()).collect();
        restored.push_exact(Dtype::F32, &bytes).unwrap();
        assert_eq!(&restored.last_integers().unwrap().y, &encoder.last_integers().unwrap().y);
    }
    assert_eq!(&encoder.last_integers().unwrap().y, &y[12 * width..13 * width]);
}

/// Values within ±`reach`.
fn noise(count: usize, reach: f32, random: &mut Random) -> Vec<f32> {
    (0..count).map(|_| random.within(-1_000_000, 1_000_000) as f32 * reach / 1e6).collect()
}

/// Hidden states that are `x` steps from the offset.
fn steps_to_hidden(codec: &Codec, quality: u8, x: &[f32]) -> Vec<f32> {
    let (step, offset) = (codec.model().step(quality.into()), codec.model().offset(quality.into()));
    let rows = step.iter().zip(offset).cycle();
    x.iter().zip(rows).map(|(x, (step, offset))| x * step + offset).collect()
}

/// Frames whose nearest integers are equal are coded as repeats, whatever their tables say, as they are without a rate
/// weight.
#[test]
fn frames_that_are_alike_cost_next_to_nothing_at_any_weight() {
    let mut random = Random::new(1);
    let default = default_model().into_iter();
    let default = default.flat_map(|codec| [0, 3].map(|quality| (codec.clone(), quality, [None, Some(1.0)])));
    let tiny = [(codec(14), 0, [Some(0.05), Some(2.0)]), (wide_tables(14), 0, [Some(0.2), Some(2.0)])];
    // Near zero, and near other integers, for which runs are coded; hidden states are never equal.
    for ((codec, quality, weights), reach) in default.chain(tiny).flat_map(|case| [(case.clone(), 0.0), (case, 3.0)]) {
        let width = codec.model().hidden_width();
        let other = noise(5 * width, 3.0, &mut random);
        let other = steps_to_hidden(&codec, quality, &other);
        let level = noise(width, reach, &mut random);
        let near = noise(60 * width, 0.4, &mut random);
        let near: Vec<f32> = near.iter().zip(level.iter().cycle()).map(|(near, level)| level.round() + near).collect();
        let silence = steps_to_hidden(&codec, quality, &near);
        let between = [&silence[..30 * width], &other, &silence[30 * width..]].concat();
        for (mode, lanes) in [(Mode::Joined, 1), (Mode::Joined, 3), (Mode::Layered, 1), (Mode::Layered, 2)] {
            let encode = |rate_weight, hidden: &[f32]| {
                let config = EncoderConfig::new(Identity::none())
                    .mode(mode)
                    .lanes(lanes)
                    .quality(quality)
                    .rate_weight(rate_weight);
                let mut encoder = Encoder::new(codec.clone(), config).unwrap();
                send_none(&mut encoder, other.len() / width);
                encoder.push_hidden(&other).unwrap();
                encoder.take_bytes().unwrap();
                send_none(&mut encoder, hidden.len() / width);
                let mut other = encoder.clone();
                encoder.push_hidden(hidden).unwrap();
                let bytes = encoder.take_bytes().unwrap();
                other.set_executor(Arc::new(Threads::new(2)));
                let pushed =
                    Together::default().push(&mut [Push { encoder: &mut other, input: Input::Hidden(hidden) }]);
                assert_eq!((pushed, other.take_bytes()), (vec![Ok(())], Ok(bytes.clone())));
                (bytes.len(), encoder.last_integers().unwrap().y.clone())
            };
            for weight in weights {
                let (least, _) = encode(Some(0.0), &silence);
                let (found, y) = encode(weight, &silence);
                assert!(found <= least, "{found} of {least} bytes, {mode:?}, {lanes} lanes, weight {weight:?}");
                for lane in 0..usize::from(lanes) {
                    let own = 60 * lane / usize::from(lanes) * width..60 * (lane + 1) / usize::from(lanes) * width;
                    assert!(y[own.clone()].chunks(width).all(|frame| *frame == y[own.start..own.start + width]));
                }
                let (least, _) = encode(Some(0.0), &between);
                let (found, _) = encode(weight, &between);
                assert!(found <= least, "{found} of {least} bytes, {mode:?}, {lanes} lanes, weight {weight:?}");
            }
        }
        // Of sixty frames, each after the first costs half a bit, and the first repeat costs 12 bits once.
        let first = 16.0 + width as f64 * if reach == 0.0 { 1.0 } else { 3.0 };
        let config = EncoderConfig::new(Identity::none()).quality(quality).rate_weight(weights[0]);
        let mut encoder = Encoder::new(codec.clone(), config).unwrap();
        encoder.track_cost(true);
        send_none(&mut encoder, 60);
        encoder.push_hidden(&silence).unwrap();
        assert!(encoder.last_cost().unwrap().target < first + 12.0 + 59.0 * 0.42 + 1.0);
    }
}

/// A plain run costs the same whatever its values are, so no accuracy is given up for it.
#[test]
fn values_far_from_their_tables_are_sent_as_the_nearest_integers() {
    let mut random = Random::new(2);
    let default = default_model().into_iter().flat_map(|codec| [0, 1].map(|quality| (codec.clone(), quality, None)));
    for (codec, quality, weight) in default.chain([(codec(14), 0, Some(0.3))]) {
        let width = codec.model().hidden_width();
        let hidden = noise(20 * width, 100.0, &mut random);
        for (mode, lanes, frames) in
            [(Mode::Joined, 1, 20), (Mode::Joined, 4, 20), (Mode::Layered, 1, 20), (Mode::Joined, 1, 1)]
        {
            let config =
                EncoderConfig::new(Identity::none()).mode(mode).lanes(lanes).quality(quality).rate_weight(weight);
            let mut encoder = Encoder::new(codec.clone(), config).unwrap();
            let nearest = encoder.quantise(&hidden).unwrap();
            let mut y = Vec::new();
            for part in hidden.chunks(frames * width) {
                send_none(&mut encoder, frames);
                encoder.push_hidden(part).unwrap();
                y.extend_from_slice(&encoder.last_integers().unwrap().y);
            }
            assert!(y == nearest, "quality {quality}, {mode:?}, {lanes} lanes, {frames} frames a chunk");
        }
    }
}
