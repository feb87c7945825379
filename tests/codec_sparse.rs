//! Models with sparse causal maps (spec 4.10, 6.7, 6.8): sessions against a naive reading of the specification.
#![cfg(feature = "codec")]

mod codec_support;

use std::sync::Arc;

use codec_support::decode;
use midspan::check::StreamChecks;
use midspan::codec::{Clipping, Codec, Encoder, EncoderConfig};
use midspan::engine::choice::cost;
use midspan::engine::quantiser;
use midspan::error::{Detail, ErrorKind};
use midspan::exact::Arm;
use midspan::model::synthetic::{self, Random, Style, SyntheticShape};
use midspan::model::{CodecModel, Map, ModelParts, SparseMap};
use midspan::wire::{Identity, Mode};

/// The scale of all elements of [`constant`].
const SCALE: usize = 22;

/// A model whose g_y always predicts the same: means of 0, one scale.
fn constant(hidden: usize, seed: u64) -> Arc<Codec> {
    Arc::new(Codec::new(CodecModel::new(constant_parts(hidden, seed)).unwrap()).unwrap())
}

fn constant_parts(hidden: usize, seed: u64) -> ModelParts {
    let shape = SyntheticShape { scales: 40, hidden, ..SyntheticShape::tiny() };
    let mut parts = synthetic::parts(&shape, Style::Sensible, seed);
    synthetic::add_sparse_maps(&mut parts, seed);
    let network = &mut parts.decoder_network;
    let rows = network.output.multiplier.iter_mut().zip(&mut network.output_offset);
    for (row, (multiplier, offset)) in rows.enumerate() {
        (*multiplier, *offset) = (0, if row % (2 * shape.hidden) < shape.hidden { 0 } else { SCALE as i32 });
    }
    parts
}

fn random_model(seed: u64, predicts: bool) -> CodecModel {
    let shape = SyntheticShape { hidden: 37, ..SyntheticShape::tiny() };
    let mut parts = synthetic::parts(&shape, Style::Sensible, seed);
    synthetic::add_sparse_maps(&mut parts, seed);
    if predicts {
        synthetic::add_prediction(&mut parts, 2, 3, seed);
    }
    // The quality's own weight of the rate.
    parts.encoder.as_mut().unwrap().rate_weight = vec![0.1, 0.0];
    CodecModel::new(parts).unwrap()
}

/// Hidden states of some steps, of which every fourth equals the one before.
fn hidden_states(model: &CodecModel, frames: usize, seed: u64) -> Vec<f32> {
    let width = model.hidden_width();
    let mut random = Random::new(seed);
    let mut all: Vec<f32> = Vec::new();
    for frame in 0..frames {
        if frame % 4 == 3 {
            all.extend_from_within((frame - 1) * width..);
            continue;
        }
        let values = model.step(0).iter().zip(model.offset(0));
        all.extend(values.map(|(step, offset)| random.within(-900, 900) as f32 / 256.0 * step + offset));
    }
    all
}

/// The row sum of 4.10.
fn row_sum(map: &SparseMap, channel: usize, values: &[f32]) -> f32 {
    let first: usize = map.count[..channel].iter().map(|count| usize::from(*count)).sum();
    let mut sums = [0.0_f32; 16];
    for entry in 0..usize::from(map.count[channel]) {
        sums[entry % 16] += map.weight[first + entry] * values[usize::from(map.index[first + entry])];
    }
    for half in [8, 4, 2, 1] {
        for k in 0..half {
            sums[k] += sums[k + half];
        }
    }
    sums[0]
}

/// r of 6.7, of values in steps.
fn reconstructed(model: &CodecModel, levels: &[f32]) -> Vec<f32> {
    let map = model.synthesis().and_then(Map::sparse).unwrap();
    let mut r = vec![0.0; levels.len()];
    for channel in 0..levels.len() {
        r[channel] = row_sum(map, channel, &r) + levels[channel] * model.step(0)[channel];
    }
    r
}

/// Hidden states of integers, in quality 0.
fn decoded(model: &CodecModel, y: &[i16]) -> Vec<f32> {
    let frames = y.chunks_exact(model.hidden_width());
    let hidden = frames.flat_map(|y| {
        let levels: Vec<f32> = y.iter().map(|y| f32::from(*y)).collect();
        let hidden = reconstructed(model, &levels);
        hidden.into_iter().zip(model.offset(0)).map(|(r, offset)| r + offset).collect::<Vec<_>>()
    });
    hidden.collect()
}

/// One run of 6.8 over a frame: Y, and how many elements were clipped.
fn run(model: &CodecModel, hidden: &[f32], decide: impl Fn(f32, i16) -> i16) -> (Vec<i16>, usize) {
    let (synthesis, analysis) =
        (model.synthesis().and_then(Map::sparse).unwrap(), model.analysis().and_then(Map::sparse).unwrap());
    let (low, high) = model.y_range();
    let (mut r, mut e, mut y) = (vec![0.0; hidden.len()], vec![0.0; hidden.len()], Vec::new());
    let mut clipped = 0;
    for c in 0..hidden.len() {
        let t = (hidden[c] - model.offset(0)[c]) + row_sum(analysis, c, &e);
        let p = row_sum(synthesis, c, &r);
        let x = (t - p) * model.reciprocal_step(0).unwrap()[c];
        let own = decide(x, x.round_ties_even().clamp(low.into(), high.into()) as i16);
        r[c] = p + f32::from(own) * model.step(0)[c];
        let far = x < f32::from(low) - 0.5 || x > f32::from(high) + 0.5;
        e[c] = if far { 0.0 } else { r[c] - t };
        clipped += usize::from(far);
        y.push(own);
    }
    (y, clipped)
}

fn nearest(model: &CodecModel, hidden: &[f32]) -> (Vec<i16>, usize) {
    let frames = hidden.chunks_exact(model.hidden_width()).map(|frame| run(model, frame, |_, nearest| nearest));
    frames.fold((Vec::new(), 0), |(all, sum), (y, clipped)| ([all, y].concat(), sum + clipped))
}

fn encode(codec: &Arc<Codec>, config: EncoderConfig, hidden: &[f32], batch: usize) -> (Vec<i16>, Vec<u8>) {
    let mut encoder = Encoder::new(codec.clone(), config).unwrap();
    let mut y = Vec::new();
    for part in hidden.chunks(batch * codec.model().hidden_width()) {
        encoder.push_hidden(part).unwrap();
        y.extend_from_slice(&encoder.last_integers().unwrap().y);
    }
    encoder.end().unwrap();
    (y, encoder.take_bytes().unwrap().to_vec())
}

fn config() -> EncoderConfig {
    EncoderConfig::new(Identity::none()).rate_weight(Some(0.0))
}

/// [SPARSE-2]: Y and hidden states are those of the specification, to the bit, in every grouping of frames.
#[test]
fn sessions_do_what_the_specification_says() {
    for seed in 1..5 {
        let codec = constant(20, seed);
        let model = codec.model();
        let hidden = hidden_states(model, 30, seed);
        let (expected, clipped) = nearest(model, &hidden);
        assert_eq!(clipped, 0);
        assert_eq!(Encoder::new(codec.clone(), config()).unwrap().quantise(&hidden).unwrap(), expected);
        for (mode, batch) in [(Mode::Joined, 30), (Mode::Joined, 1), (Mode::Joined, 9), (Mode::Layered, 7)] {
            let (y, bytes) = encode(&codec, config().mode(mode).lanes(2), &hidden, batch);
            assert_eq!(y, expected, "{mode:?}, {batch} frames a chunk");
            let (seen, outcome) = decode(&codec, &bytes);
            assert_eq!(outcome, Ok(()));
            assert_eq!(seen.y, expected);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&seen.hidden), bits(&decoded(model, &expected)), "{mode:?}, {batch} frames a chunk");
        }
        // Errors are those of rounding, as they were pushed on: no hidden state is far.
        let far = decoded(model, &expected).iter().zip(&hidden).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 20.0, "{far}");
    }
}

/// Y is chosen by its rate in a second run, as 6.8 says; both rules about runs hold.
#[test]
fn a_weight_of_the_rate_begins_a_run_of_its_own() {
    let codec = constant(45, 7);
    let model = codec.model();
    let width = model.hidden_width();
    let weight = 0.1_f32;
    let table = model.target_bases().nth(SCALE).unwrap() as usize;
    let (low, high) = model.y_range();
    let costs = |value: i16| cost(model.target().mass(table, 0, value.into()));
    let choose = |x: f32, nearest: i16| {
        let distance = x - f32::from(nearest);
        let second = if distance > 0.0 { nearest + 1 } else { nearest - 1 };
        let saved = costs(nearest) - costs(second);
        let changes = distance.abs() <= 0.5 && (low..=high).contains(&second);
        if changes && 1.0 - 2.0 * distance.abs() < saved as f32 * (weight / 256.0) { second } else { nearest }
    };
    let (mut hidden, mut moved, mut plain, mut fell_back) = (Vec::new(), 0, 0, 0);
    let mut expected: Vec<i16> = Vec::new();
    let mut before: Vec<i16> = Vec::new();
    for frame in 0..120 {
        // Some frames cost more than plain numbers, and some are clipped.
        let size = [1.0, 1.0, 6.0, 1.0][frame % 4];
        let own = hidden_states(model, 1, frame as u64);
        let mut own: Vec<f32> = if frame % 7 == 6 {
            hidden[hidden.len() - width..].to_vec()
        } else {
            own.iter().zip(model.offset(0)).map(|(h, offset)| (h - offset) * size + offset).collect()
        };
        if frame % 5 == 4 {
            own[1] += 1e4;
        }
        let n = run(model, &own, |_, nearest| nearest).0;
        let (chosen, clipped) = run(model, &own, choose);
        let bits: i64 = chosen.iter().map(|y| i64::from(costs(*y))).sum();
        let width_of = |n: &i16| (1..=16).find(|bits| (-(1 << (bits - 1))..1 << (bits - 1)).contains(&i64::from(*n)));
        let most = 256 * (16 + width as i64 * n.iter().filter_map(width_of).max().unwrap());
        let y = if n == before {
            expected[expected.len() - width..].to_vec()
        } else if clipped > 0 || bits >= most {
            *(if clipped > 0 { &mut fell_back } else { &mut plain }) += usize::from(chosen != n);
            n.clone()
        } else {
            // A choice moves what later channels aim at: more changes than values that a look at the first run alone
            // would change.
            moved += usize::from(chosen.iter().zip(&n).any(|(y, n)| (y - n).abs() > 1));
            chosen
        };
        expected.extend(y);
        before = n;
        hidden.extend(own);
    }
    assert!(moved > 5 && plain > 5 && fell_back > 5, "{moved} {plain} {fell_back}");
    let config = || EncoderConfig::new(Identity::none()).rate_weight(Some(weight));
    // Repeats are those of a chunk.
    let (y, bytes) = encode(&codec, config(), &hidden, 120);
    assert_eq!(y, expected);
    let (seen, outcome) = decode(&codec, &bytes);
    assert_eq!((outcome, &seen.y), (Ok(()), &expected));
    assert_eq!(seen.hidden, decoded(model, &expected));
    let nearest_w = decode(&codec, &encode(&codec, config().rate_weight(Some(0.0)), &hidden, 120).1).0.w;
    assert_eq!(seen.w, nearest_w, "W comes from the nearest integers");
}

#[test]
fn every_arm_gives_the_same_streams() {
    for (seed, predicts) in [(1, false), (2, false), (6, true)] {
        let model = random_model(seed, predicts);
        let checks = StreamChecks::new(&model, &[1, 9], seed).unwrap();
        for arm in Arm::available() {
            let outcome = checks.run(&Arc::new(Codec::with_arm(model.clone(), arm).unwrap()));
            assert_eq!(outcome.fault, None, "{arm:?}");
            assert!(outcome.cases > 10);
        }
    }
}

/// The tables of a frame that is predicted are known once the frames before it are chosen; the choice is the same.
#[test]
fn a_prediction_of_nothing_changes_nothing() {
    let mut parts = constant_parts(37, 5);
    let without = Arc::new(Codec::new(CodecModel::new(parts.clone()).unwrap()).unwrap());
    synthetic::add_prediction(&mut parts, 2, 3, 5);
    parts.prediction.as_mut().unwrap().output_multiplier.fill(0);
    let with = Arc::new(Codec::new(CodecModel::new(parts).unwrap()).unwrap());
    let hidden = hidden_states(without.model(), 40, 8);
    let mut changed = 0;
    for (lanes, batch) in [(1, 1), (1, 17), (3, 17), (4, 40)] {
        let config = |weight| EncoderConfig::new(Identity::none()).lanes(lanes).rate_weight(Some(weight));
        let expected = encode(&without, config(0.2), &hidden, batch).0;
        assert_eq!(encode(&with, config(0.2), &hidden, batch).0, expected, "{lanes} lanes, {batch} frames");
        changed += usize::from(expected != encode(&without, config(0.0), &hidden, batch).0);
    }
    assert_eq!(changed, 4, "Y is chosen by its rate");
}

#[test]
fn a_saved_encoder_goes_on_alike() {
    let codec = Arc::new(Codec::new(random_model(3, false)).unwrap());
    let hidden = hidden_states(codec.model(), 12, 3);
    let half = hidden.len() / 2;
    let mut whole = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap();
    whole.push_hidden(&hidden[..half]).unwrap();
    let first = whole.take_bytes().unwrap();
    let saved = whole.save();
    let mut again = Encoder::restore(codec.clone(), &saved, usize::MAX).unwrap();
    for encoder in [&mut whole, &mut again] {
        encoder.push_hidden(&hidden[half..]).unwrap();
        encoder.end().unwrap();
    }
    let rest = whole.take_bytes().unwrap();
    assert_eq!(rest, again.take_bytes().unwrap());
    assert_eq!(decode(&codec, &[first, rest].concat()).1, Ok(()));
}

/// Elements that are out of reach are counted or refused, and other channels do not follow them.
#[test]
fn clipped_elements_stay_alone() {
    let codec = constant(45, 9);
    let model = codec.model();
    let (width, frames) = (model.hidden_width(), 12);
    let mut hidden = hidden_states(model, frames, 9);
    hidden[3 * width + 2] = 1e6;
    hidden[8 * width + 40] = -3e7;
    let (expected, clipped) = nearest(model, &hidden);
    assert!(clipped >= 2);
    for batch in [1, frames] {
        let mut encoder = Encoder::new(codec.clone(), config()).unwrap();
        for part in hidden.chunks(batch * width) {
            encoder.push_hidden(part).unwrap();
        }
        assert_eq!(encoder.clipped(), clipped as u64);
        encoder.end().unwrap();
        let (seen, outcome) = decode(&codec, &encoder.take_bytes().unwrap());
        assert_eq!((outcome, seen.y), (Ok(()), expected.clone()));
    }
    let mut encoder = Encoder::new(codec.clone(), config().clipping(Clipping::Refuse)).unwrap();
    let error = encoder.push_hidden(&hidden).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HiddenClipped);
    let Some(Detail::Clipped { count, frame: 3, element: 2 }) = error.detail() else { panic!("{error:?}") };
    assert_eq!(count, clipped as u64);
    // Nothing happened: the stream goes on.
    encoder.push_hidden(&hidden[..width]).unwrap();
    // Sums that overflow are refused, whatever the setting.
    let mut encoder = Encoder::new(codec.clone(), config()).unwrap();
    let error = encoder.push_hidden(&vec![f32::MAX; width]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HiddenNotFinite);
    assert!(error.to_string().contains("sparse maps"), "{error}");
    encoder.push_hidden(&hidden[..width]).unwrap();
}

#[test]
fn a_row_is_summed_in_the_order_of_the_specification() {
    let codec = constant(45, 13);
    let model = codec.model();
    let map = model.synthesis().unwrap();
    let rows = map.sparse().unwrap();
    assert!(rows.count.iter().any(|count| *count > 32) && rows.count.contains(&0));
    // Values of very different sizes, whose sums depend on their order.
    let mut random = Random::new(1);
    let y: Vec<i16> = (0..9 * model.hidden_width()).map(|_| random.within(-2_000, 2_000) as i16).collect();
    let mut hidden = Vec::new();
    quantiser::reconstruct(&y, model.step(0), Some(map), model.offset(0), &mut hidden);
    assert_eq!(hidden, decoded(model, &y));
    // Summed plainly, most differ.
    let plain = |c: usize, r: &[f32]| {
        let first: usize = rows.count[..c].iter().map(|count| usize::from(*count)).sum();
        let entries = first..first + usize::from(rows.count[c]);
        entries.map(|entry| rows.weight[entry] * r[usize::from(rows.index[entry])]).sum::<f32>()
    };
    let levels: Vec<f32> = y[..model.hidden_width()].iter().map(|y| f32::from(*y)).collect();
    let r = reconstructed(model, &levels);
    let differ = (0..r.len()).filter(|c| plain(*c, &r) != row_sum(rows, *c, &r)).count();
    assert!(differ > 10, "{differ}");
}
