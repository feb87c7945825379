//! Prediction from decoded frames in sessions (spec 6.13): what is predicted from, over all that moves a context, and
//! where it is refused.
#![cfg(feature = "codec")]

mod allocator_support;

use std::sync::Arc;

use allocator_support::{HELD, measured, smallest_limit};
use midspan::check::StreamChecks;
use midspan::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Input, Push, SideDelivery,
    Together,
};
use midspan::error::{Error, ErrorKind, Fault};
use midspan::exact::Arm;
use midspan::model::CodecModel;
use midspan::model::prediction::Prediction;
use midspan::model::synthetic::{self, Random, Style, SyntheticShape};
use midspan::stream::{Binding, JoinPoint, Writer};
use midspan::wire::{Dtype, Identity, Mode, StreamHeader};

const MEMORY: usize = 64 << 20;

/// A model that predicts from P frames with rank R, unless P is 0.
fn model(shape: &SyntheticShape, [frames, rank]: [usize; 2], seed: u64) -> CodecModel {
    let mut parts = synthetic::parts(shape, Style::Sensible, seed);
    if frames > 0 {
        synthetic::add_prediction(&mut parts, frames, rank, seed);
    }
    CodecModel::new(parts).unwrap()
}

fn codec(predicts: [usize; 2], seed: u64) -> Arc<Codec> {
    Arc::new(Codec::new(model(&SyntheticShape::tiny(), predicts, seed)).unwrap())
}

fn config() -> EncoderConfig {
    EncoderConfig::new(Identity::none())
}

/// Smooth frames, `[T, E]`, some of them equal to the one before and some far out.
fn smooth(width: usize, count: usize, seed: u64) -> Vec<i16> {
    let mut random = Random::new(seed);
    let mut state = vec![0_i32; width];
    let mut all: Vec<i16> = Vec::new();
    for frame in 0..count {
        if frame > 0 && random.within(0, 9) == 0 {
            all.extend_from_within((frame - 1) * width..);
            continue;
        }
        let far = if random.within(0, 19) == 0 { 400 } else { 1 };
        for value in &mut state {
            *value = *value * 9 / 10 + random.within(-4, 4);
            all.push((*value * far).clamp(-2_000, 2_000) as i16);
        }
    }
    all
}

fn y(count: usize, seed: u64) -> Vec<i16> {
    smooth(SyntheticShape::tiny().hidden, count, seed)
}

fn finish(mut encoder: Encoder) -> Vec<u8> {
    encoder.end().unwrap();
    encoder.take_bytes().unwrap().to_vec()
}

/// The surviving timeline of a stream.
#[derive(Debug, Default, Clone, PartialEq)]
struct Seen {
    y: Vec<i16>,
    hidden: Vec<f32>,
    ended: bool,
}

impl Seen {
    fn take(&mut self, width: usize, poll: DecoderPoll) {
        match poll {
            DecoderPoll::Event(DecoderEvent::Frames(frames)) => {
                self.y.extend(frames.integers.unwrap().y);
                self.hidden.extend(frames.hidden);
            }
            DecoderPoll::Event(DecoderEvent::ExactFrame(exact)) => {
                self.y.extend(exact.frame.integers.unwrap().y);
                self.hidden.extend(exact.frame.hidden);
            }
            DecoderPoll::Event(DecoderEvent::Rewound { index }) => {
                self.y.truncate(index as usize * width);
                self.hidden.truncate(index as usize * width);
            }
            DecoderPoll::End => self.ended = true,
            _ => {}
        }
    }

    /// Polls until more is needed.
    fn drain(&mut self, decoder: &mut Decoder) -> Result<(), Error> {
        let width = decoder.codec().model().hidden_width();
        loop {
            let poll = decoder.poll()?;
            let done = matches!(poll, DecoderPoll::NeedMore | DecoderPoll::End);
            self.take(width, poll);
            if done {
                return Ok(());
            }
        }
    }
}

fn decoded(codecs: &[Arc<Codec>], bytes: &[u8], config: DecoderConfig) -> Result<Seen, Error> {
    let mut decoder = Decoder::new(Arc::clone(&codecs[0]), config)?;
    codecs[1..].iter().for_each(|codec| decoder.add_model(Arc::clone(codec)));
    decoder.push(bytes)?;
    decoder.finish();
    let mut seen = Seen::default();
    seen.drain(&mut decoder).map(|()| seen)
}

/// Steps of a session, with all that moves a context.
const STEPS: usize = 14;

/// Makes one step; `sent` is the timeline.
fn step(encoder: &mut Encoder, codecs: &[Arc<Codec>; 2], step: usize, sent: &mut Vec<i16>) {
    let width = encoder.codec().model().hidden_width();
    let push = |encoder: &mut Encoder, sent: &mut Vec<i16>, count: usize| {
        let y = y(count, step as u64);
        encoder.push_y(&y).unwrap();
        sent.extend(y);
    };
    match step {
        0 | 1 | 6 => push(encoder, sent, 1),
        2 => push(encoder, sent, 3),
        3 => push(encoder, sent, 40),
        4 => encoder.set_quality(1).unwrap(),
        5 => push(encoder, sent, 9),
        7 => {
            encoder.rewind(encoder.next_index() - 5).unwrap();
            sent.truncate(sent.len() - 5 * width);
            push(encoder, sent, 2);
        }
        8 => {
            encoder.rewind(encoder.next_index() - 40).unwrap();
            sent.truncate(sent.len() - 40 * width);
            push(encoder, sent, 1);
        }
        9 => {
            let hidden: Vec<u8> = (0..width).flat_map(|i| (i as f32 / 8.0 - 1.0).to_le_bytes()).collect();
            encoder.push_exact(Dtype::F32, &hidden).unwrap();
            sent.extend(&encoder.last_integers().unwrap().y);
        }
        10 => push(encoder, sent, 1),
        11 => {
            encoder.reset().unwrap();
            push(encoder, sent, 5);
        }
        12 => {
            encoder.switch_model(Arc::clone(&codecs[1]), 1).unwrap();
            push(encoder, sent, 7);
        }
        _ => {
            encoder.set_quality(0).unwrap();
            encoder.checkpoint().unwrap();
            push(encoder, sent, 4);
        }
    }
}

/// [PRED-1], [PRED-2]
#[test]
fn frames_come_back_over_all_that_moves_a_context() {
    for (seed, predicts, other) in [(1, [1, 0], [2, 4]), (2, [2, 5], [0, 0]), (3, [4, 3], [1, 1]), (4, [3, 0], [3, 0])]
    {
        let codecs = [codec(predicts, seed), codec(other, seed + 10)];
        for lanes in [1, 3] {
            let mut encoder = Encoder::new(Arc::clone(&codecs[0]), config().lanes(lanes)).unwrap();
            let mut sent = Vec::new();
            (0..STEPS).for_each(|at| step(&mut encoder, &codecs, at, &mut sent));
            let bytes = finish(encoder);
            let whole = decoded(&codecs, &bytes, DecoderConfig::default()).unwrap();
            assert_eq!((&whole.y, whole.ended), (&sent, true), "{predicts:?}, {lanes} lanes");
            // In slices of any number of frames, which end within lanes and between them.
            for slice in [1, 2, 5, 13] {
                let sliced = decoded(&codecs, &bytes, DecoderConfig::default().frames_per_poll(slice)).unwrap();
                assert_eq!(sliced, whole, "slices of {slice}");
            }
        }
    }
}

/// A model that expects 15/16 of the frame before, and without prediction 0; deviations are about two steps.
fn decaying(predicts: bool) -> Arc<Codec> {
    let mut parts = synthetic::parts(&SyntheticShape::blockless(), Style::Sensible, 5);
    let e = parts.e;
    parts.decoder_network.output.multiplier.fill(0);
    for row in parts.decoder_network.output_offset.chunks_mut(2 * e) {
        row[..e].fill(0);
        row[e..].fill(28);
    }
    let rows = |value: i32| vec![value; parts.qualities * e];
    parts.prediction = predicts.then(|| Prediction {
        input_multiplier: rows(32),
        input_shift: vec![1; parts.qualities * e],
        diagonal: vec![15; e],
        low_rank: None,
        output_multiplier: rows(1),
        output_shift: vec![2; parts.qualities * e],
    });
    Arc::new(Codec::new(CodecModel::new(parts).unwrap()).unwrap())
}

/// Frames that decay by 1/16 a frame, in steps.
fn decay(width: usize, count: usize) -> Vec<f32> {
    let mut random = Random::new(9);
    let mut state = vec![0.0_f32; width];
    let mut all = Vec::new();
    for _ in 0..count {
        for value in &mut state {
            *value = *value * 15.0 / 16.0 + random.within(-900, 900) as f32 / 256.0;
            all.push(*value);
        }
    }
    all
}

/// A model that predicts makes other bytes, and on smooth frames fewer.
#[test]
fn smooth_frames_cost_fewer_bits() {
    let (without, with) = (decaying(false), decaying(true));
    let y: Vec<i16> = decay(20, 200).into_iter().map(|x| x.round() as i16).collect();
    let w = vec![0; 200 * without.model().hyper_prior_width()];
    let [own, predicted] = [&without, &with].map(|codec| codec.ideal_cost(&w, &y, &[], 0).target);
    assert!(predicted < 0.8 * own, "{predicted} bits against {own}");
    // Real bytes, one frame a chunk; lanes begin without a past.
    let bytes = |codec: &Arc<Codec>, frames: usize, lanes: u16| {
        let mut encoder = Encoder::new(Arc::clone(codec), config().lanes(lanes)).unwrap();
        y.chunks(20 * frames).for_each(|y| encoder.push_y(y).unwrap());
        finish(encoder).len()
    };
    let [own, one, whole, lanes] =
        [(&without, 1, 1), (&with, 1, 1), (&with, 40, 1), (&with, 40, 8)].map(|(codec, n, l)| bytes(codec, n, l));
    assert!(whole < lanes && lanes < one && one < own, "{whole} {lanes} {one} {own}");
}

/// The choice of Y by rate compares what values cost with predicted means (spec 6.8), and predicts from what is sent.
#[test]
fn the_choice_of_y_knows_the_prediction() {
    let codec = decaying(true);
    let model = codec.model();
    let width = model.hidden_width();
    let x = decay(width, 60);
    let hidden: Vec<f32> =
        x.iter().enumerate().map(|(i, x)| x * model.step(0)[i % width] + model.offset(0)[i % width]).collect();
    let sent = |weight: f32, lanes: u16, frames: usize| {
        let config = config().lanes(lanes).rate_weight(Some(weight));
        let mut encoder = Encoder::new(Arc::clone(&codec), config).unwrap();
        encoder.track_cost(true);
        let (mut y, mut cost) = (Vec::new(), 0.0);
        for hidden in hidden.chunks(frames * width) {
            encoder.push_hidden(hidden).unwrap();
            y.extend_from_slice(&encoder.last_integers().unwrap().y);
            cost += encoder.last_cost().unwrap().total();
        }
        let bytes = finish(encoder);
        assert_eq!(decoded(&[Arc::clone(&codec)], &bytes, DecoderConfig::default()).unwrap().y, y);
        (y, cost)
    };
    let (nearest, most) = sent(0.0, 1, 60);
    let (chosen, cost) = sent(0.3, 1, 60);
    assert!(cost < 0.99 * most, "{cost} of {most}");
    assert!(nearest.iter().zip(&chosen).all(|(a, b)| a.abs_diff(*b) <= 1) && nearest != chosen);
    assert_eq!(sent(0.3, 1, 1).0, chosen);
    assert_eq!(sent(0.3, 1, 7).0, chosen);
    // The second lane begins without a past, so that other values are chosen there.
    let (in_lanes, _) = sent(0.3, 2, 60);
    assert!(in_lanes[..30 * width] == chosen[..30 * width] && in_lanes != chosen);
}

/// Side indices and prediction in one model.
#[test]
fn prediction_goes_with_side_indices() {
    let codec = Arc::new(Codec::new(model(&SyntheticShape::with_side(), [2, 2], 8)).unwrap());
    let mut encoder = Encoder::new(Arc::clone(&codec), config().lanes(2)).unwrap();
    let mut sent = Vec::new();
    for (seed, count) in [(1, 1), (2, 9), (3, 1), (4, 30)] {
        let indices: Vec<u32> = (0..count).map(|i| (seed * 41 + i) % 301).collect();
        encoder.set_side(&indices, SideDelivery::Sent).unwrap();
        let y = y(count as usize, seed.into());
        encoder.push_y(&y).unwrap();
        sent.extend(y);
    }
    let seen = decoded(&[codec], &finish(encoder), DecoderConfig::default().frames_per_poll(4)).unwrap();
    assert_eq!((seen.y, seen.ended), (sent, true));
}

/// Sessions saved and restored before every step, and forks, go on alike.
#[test]
fn saved_sessions_and_forks_keep_the_past() {
    let codecs = [codec([3, 2], 11), codec([2, 0], 12)];
    let by_fingerprint = |encoder: &Encoder| {
        Arc::clone(codecs.iter().find(|codec| codec.fingerprint() == encoder.codec().fingerprint()).unwrap())
    };
    let mut encoder = Encoder::new(Arc::clone(&codecs[0]), config().lanes(2)).unwrap();
    let mut decoder = Decoder::new(Arc::clone(&codecs[0]), DecoderConfig::default().frames_per_poll(3)).unwrap();
    decoder.add_model(Arc::clone(&codecs[1]));
    let (mut sent, mut seen) = (Vec::new(), Seen::default());
    for at in 0..STEPS {
        let saved = encoder.save();
        let mut restored = Encoder::restore(by_fingerprint(&encoder), &saved, MEMORY).unwrap();
        assert_eq!(restored.save(), saved);
        let (mut fork, mut copy, mut fourth) = (encoder.clone(), sent.clone(), sent.clone());
        step(&mut fork, &codecs, (at + 1) % 4, &mut copy);
        step(&mut restored, &codecs, at, &mut fourth);
        step(&mut encoder, &codecs, at, &mut sent);
        assert_eq!(restored.save(), encoder.save());
        let bytes = encoder.take_bytes().unwrap();
        let saved = decoder.save().unwrap();
        let config = DecoderConfig::default().frames_per_poll(3);
        let mut again = Decoder::restore(Arc::clone(&codecs[0]), &codecs[1..], config, &saved).unwrap();
        let mut forked = decoder.clone();
        let (mut seen_again, mut seen_forked) = (seen.clone(), seen.clone());
        for (decoder, seen) in
            [(&mut decoder, &mut seen), (&mut again, &mut seen_again), (&mut forked, &mut seen_forked)]
        {
            decoder.push(&bytes).unwrap();
            seen.drain(decoder).unwrap();
        }
        assert_eq!((&seen_again, &seen_forked), (&seen, &seen));
        assert_eq!(seen.y, sent, "step {at}");
        assert_eq!(decoder.save().unwrap(), again.save().unwrap());
    }
}

/// Saved bytes are untrusted: a past of another length is refused.
#[test]
fn saved_bytes_of_a_model_that_does_not_predict_fit_no_other() {
    let (with, without) = (codec([2, 0], 13), codec([0, 0], 13));
    let mut encoder = Encoder::new(Arc::clone(&without), config()).unwrap();
    encoder.push_y(&y(4, 1)).unwrap();
    let mut saved = encoder.save();
    // The other model's fingerprint in the session's and the header's place, and a crc that holds.
    let (old, new) = (without.fingerprint(), with.fingerprint());
    for at in 0..saved.len() - 32 {
        if saved[at..at + 32] == old[..] {
            saved[at..at + 32].copy_from_slice(new);
        }
    }
    let end = saved.len() - 4;
    let crc = crc32fast::hash(&saved[..end]).to_le_bytes();
    saved[end..].copy_from_slice(&crc);
    let error = Encoder::restore(Arc::clone(&with), &saved, MEMORY).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SavedSession);
}

#[test]
fn streams_together_predict_as_alone() {
    let codec = codec([2, 4], 14);
    let open = || Encoder::new(Arc::clone(&codec), config().lanes(2)).unwrap();
    let (mut alone, mut together): (Vec<Encoder>, Vec<Encoder>) = (0..7).map(|_| (open(), open())).unzip();
    let mut stepper = Together::default();
    for round in 0..6 {
        let frames: Vec<Vec<i16>> = (0..7).map(|i| y(1 + (round * i) % 12, (round * 7 + i) as u64)).collect();
        let mut pushes: Vec<Push> =
            (together.iter_mut().zip(&frames)).map(|(encoder, y)| Push { encoder, input: Input::Y(y) }).collect();
        stepper.push(&mut pushes).into_iter().for_each(|outcome| outcome.unwrap());
        alone.iter_mut().zip(&frames).for_each(|(encoder, y)| encoder.push_y(y).unwrap());
    }
    let streams: Vec<Vec<u8>> = alone.into_iter().map(finish).collect();
    assert_eq!(together.into_iter().map(finish).collect::<Vec<_>>(), streams);
    let mut decoders: Vec<Decoder> = (streams.iter())
        .map(|bytes| {
            let config = DecoderConfig::default().frames_per_poll(3);
            let mut decoder = Decoder::new(Arc::clone(&codec), config).unwrap();
            decoder.push(bytes).unwrap();
            decoder.finish();
            decoder
        })
        .collect();
    let mut seen = vec![Seen::default(); 7];
    let width = codec.model().hidden_width();
    while seen.iter().any(|seen| !seen.ended) {
        let polls = stepper.poll(&mut decoders.iter_mut().collect::<Vec<_>>());
        seen.iter_mut().zip(polls).for_each(|(seen, poll)| seen.take(width, poll.unwrap()));
    }
    for (seen, bytes) in seen.iter().zip(&streams) {
        assert_eq!(*seen, decoded(&[Arc::clone(&codec)], bytes, DecoderConfig::default()).unwrap());
    }
}

/// A session that keeps no integers still predicts from them.
#[test]
fn prediction_needs_no_integers_to_be_kept() {
    let codec = codec([2, 1], 15);
    let mut encoder = Encoder::new(Arc::clone(&codec), config()).unwrap();
    encoder.keep_integers(false);
    for seed in 0..5 {
        encoder.push_y(&y(1 + seed as usize, seed)).unwrap();
        assert_eq!(encoder.last_integers(), None);
    }
    let bytes = finish(encoder);
    let whole = decoded(&[Arc::clone(&codec)], &bytes, DecoderConfig::default()).unwrap();
    let mut decoder = Decoder::new(codec, DecoderConfig::default()).unwrap();
    decoder.keep_integers(false);
    decoder.push(&bytes).unwrap();
    decoder.finish();
    let mut hidden = Vec::new();
    loop {
        match decoder.poll().unwrap() {
            DecoderPoll::Event(DecoderEvent::Frames(frames)) => {
                assert_eq!(frames.integers, None);
                hidden.extend(frames.hidden);
            }
            DecoderPoll::Event(_) => {}
            DecoderPoll::NeedMore | DecoderPoll::End => break,
        }
    }
    assert_eq!(hidden, whole.hidden);
}

/// [PRED-3]
#[test]
fn layered_mode_is_refused() {
    let (with, without) = (codec([1, 0], 16), codec([0, 0], 17));
    let layered = || config().mode(Mode::Layered);
    let error = Encoder::new(Arc::clone(&with), layered()).unwrap_err();
    assert_eq!((error.kind(), error.fault()), (ErrorKind::PredictionLayered, Fault::Caller));
    let mut encoder = Encoder::new(Arc::clone(&without), layered()).unwrap();
    let before = encoder.save();
    let error = encoder.switch_model(Arc::clone(&with), 0).unwrap_err();
    assert_eq!((error.kind(), error.fault()), (ErrorKind::PredictionLayered, Fault::Caller));
    assert_eq!(encoder.save(), before);

    // Streams that another encoder may have written. A decoder that joins finds out at the reset.
    let header =
        StreamHeader { mode: Mode::Layered, target_horizon: Some(4), ..StreamHeader::new(*with.fingerprint()) };
    let mut writer = Writer::new(header.clone(), Binding::ByteStream).unwrap();
    let offset = writer.position();
    writer.reset(0, 0, 0, 0).unwrap();
    let bytes = writer.take().unwrap();
    let error = decoded(&[Arc::clone(&with)], &bytes, DecoderConfig::default()).unwrap_err();
    let wanted = (ErrorKind::PredictionLayered, header.flags_offset(), Fault::Model);
    assert_eq!((error.kind(), error.offset(), error.fault()), wanted, "{error}");
    let point = JoinPoint { offset, index: None };
    let mut decoder = Decoder::join(with, DecoderConfig::default(), header, point).unwrap();
    decoder.push(&bytes[offset as usize..]).unwrap();
    let error = decoder.poll().unwrap_err();
    assert_eq!((error.kind(), error.fault()), (ErrorKind::PredictionLayered, Fault::Model));
}

/// Every arm gives the plain arm's bytes and hidden states, in whole streams.
#[test]
fn every_arm_predicts_alike() {
    let shapes = [SyntheticShape::tiny(), SyntheticShape::blockless(), SyntheticShape::with_side()];
    for (seed, (shape, predicts)) in shapes.iter().zip([[1, 0], [4, 2], [2, 7]]).enumerate() {
        let model = model(shape, predicts, 20 + seed as u64);
        let checks = StreamChecks::new(&model, &[1, 9], 3).unwrap();
        for arm in Arm::available() {
            let outcome = checks.run(&Arc::new(Codec::with_arm(model.clone(), arm).unwrap()));
            assert_eq!(outcome.fault, None, "{arm:?}");
            assert!(outcome.cases > 8);
        }
    }
}

/// What prediction keeps and takes is counted before it is allocated (spec 7.2).
#[test]
fn the_past_stays_within_the_memory_limit() {
    // Hardly anything but the past grows.
    let shape = SyntheticShape { hidden: 300, hyper_prior: 1, qualities: 1, ..SyntheticShape::blockless() };
    for (max_rewind, predicts) in [(1 << 10, [1, 0]), (0, [4, 8])] {
        let codec = Arc::new(Codec::new(model(&shape, predicts, 30)).unwrap());
        let config = config().max_rewind(max_rewind).lanes(4);
        let pushes: Vec<Vec<i16>> = (0..60).map(|i| smooth(300, 1 + i % 30, i as u64)).collect();
        let encode = |memory_limit: usize| {
            measured(|| {
                let mut encoder = Encoder::new(codec.clone(), config.clone().memory_limit(memory_limit))?;
                for y in &pushes {
                    encoder.push_y(y)?;
                    drop(encoder.take_bytes()?);
                }
                Ok::<_, Error>((encoder.memory_bytes(), encoder))
            })
        };
        let most = smallest_limit(|limit| encode(limit).0.is_ok());
        let (outcome, held, peak) = encode(most);
        let (told, _encoder) = outcome.unwrap();
        assert!(peak <= most && held <= told + 1_000, "{held} bytes held, {told} told, {peak} at most, limit {most}");

        let mut encoder = Encoder::new(codec.clone(), config.clone()).unwrap();
        let mut chunks = vec![encoder.take_bytes().unwrap()];
        for y in &pushes {
            encoder.push_y(y).unwrap();
            chunks.push(encoder.take_bytes().unwrap());
        }
        let input = 2 * chunks.iter().map(|chunk| chunk.len()).max().unwrap() + 1_000;
        let decode = |memory_limit: usize| {
            measured(|| {
                let before = HELD.get();
                let mut decoder = Decoder::new(
                    codec.clone(),
                    DecoderConfig::default().memory_limit(memory_limit).frames_per_poll(7),
                )?;
                let mut untold = 0;
                for chunk in &chunks {
                    decoder.push(chunk)?;
                    while let DecoderPoll::Event(event) = decoder.poll()? {
                        drop(event);
                        untold = untold.max(((HELD.get() - before) as usize).saturating_sub(decoder.memory_bytes()));
                    }
                }
                Ok::<_, Error>((untold, decoder))
            })
        };
        let most = smallest_limit(|limit| decode(limit).0.is_ok());
        let (outcome, _, peak) = decode(most);
        let (untold, _decoder) = outcome.unwrap();
        assert!(peak <= most + input, "{peak} bytes under a limit of {most}, with {input} of input");
        assert!(untold < 1_000, "{untold} bytes held and not told");
    }
}
