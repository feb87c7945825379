//! Checks an engine with whole streams: it has to give the bytes of this CPU's plain arm and to count what they hold as
//! the plain arm does, and to decode those bytes to the same hidden states.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use midspan::check::StreamChecks;
//! use midspan::model::synthetic::{self, SyntheticShape};
//! use midspan::Codec;
//!
//! let model = synthetic::model(&SyntheticShape::tiny(), 1);
//! let checks = StreamChecks::new(&model, &[1, 9], 3)?;
//! let engine = Arc::new(Codec::new(model)?); // your engine here
//! let outcome = checks.run(&engine);
//! assert_eq!(outcome.fault, None);
//! # Ok(())
//! # }
//! ```

use std::borrow::Borrow;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Input, Push, Sent, SideDelivery,
    Together,
};
use crate::engine::parameters::TargetParameters;
use crate::engine::prediction::LaneWalk;
use crate::engine::side::network_input;
use crate::engine::{Engine, Integers, quantiser};
use crate::entropy::Bank;
use crate::error::Result;
use crate::exact::{Arm, Serial, State};
use crate::model::synthetic::Random;
use crate::model::{CodecModel, Map};
use crate::wire::{Dtype, Identity, Mode};

/// Frames in a stream that is checked alone.
const FRAMES: usize = 64;
/// Frames in each of the streams that are checked together.
const ROUNDS: usize = 3;
/// The most frames of a chunk in a session with rewinds and resets: above 128, so that it is coded in parts.
const LONG: usize = 300;

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Number of cases that were equal, up to the first that was not.
    pub cases: usize,
    /// Number of hidden values that were compared and equal.
    pub compared: u64,
    /// The first case that differed, and how, or how the engine failed.
    pub fault: Option<String>,
}

/// What every engine has to give for a model, computed once.
#[derive(Clone, Debug)]
pub struct StreamChecks {
    fingerprint: [u8; 32],
    cases: Vec<Case>,
}

/// Streams, and what the plain arm makes of them.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    streams: Streams,
    expected: Exchanged,
}

/// How the streams of a case are made.
#[derive(Clone, Debug)]
enum Streams {
    /// One stream of `FRAMES` hidden states, in chunks of so many frames.
    One { hidden: Vec<f32>, config: EncoderConfig, frames: usize },
    /// Many streams of `ROUNDS` hidden states each, with one frame of each in a call.
    Together { hidden: Vec<Vec<f32>>, configs: Vec<EncoderConfig> },
    /// One stream with forks, rewinds, resets, exact frames, long chunks, of `LONG` hidden states in
    /// the first quality, and as many in the last.
    Turns { hidden: [Vec<f32>; 2], config: EncoderConfig },
    /// One stream of `FRAMES` frames of integers that the model's tables hold, in chunks of so many frames.
    Likely { integers: Integers, config: EncoderConfig, frames: usize },
}

/// The bytes of streams with what was counted of them, and the hidden states decoded from the plain arm's bytes.
type Exchanged = (Vec<Made>, Vec<Vec<f32>>);

/// The bytes of a stream, and the sums of its encoder.
type Made = (Bytes, Sent);

impl StreamChecks {
    /// Checks for `model`, which needs its encoder's part: single streams in every quality, of hidden states and of
    /// integers that the model finds likely, streams that step together (each number in `together`), and sessions with
    /// forks, rewinds, resets, exact frames and long chunks. `seed` determines the hidden states.
    ///
    /// # Errors
    /// [`ErrorKind::NotAvailable`](crate::error::ErrorKind::NotAvailable) if the model has no encoder's part.
    pub fn new(model: &CodecModel, together: &[usize], seed: u64) -> Result<StreamChecks> {
        let plain = Arc::new(Codec::with_arm(model.clone(), Arm::Plain)?);
        let mut cases = Vec::new();
        let mut add = |name: String, streams: Streams| -> Result<()> {
            let expected = streams.alone(&plain)?;
            cases.push(Case { name, streams, expected });
            Ok(())
        };
        let config = EncoderConfig::new(Identity::none());
        let mut random = Random::new(seed);
        for (frames, lanes) in [(1, 1), (7, 3), (FRAMES, 2)] {
            for quality in (0..model.qualities()).map(|quality| quality as u8) {
                let hidden = hidden_states(model, &mut random, FRAMES, quality);
                let config = config.clone().quality(quality).lanes(lanes).checkpoint_interval(16);
                let name = format!("quality {quality}, {frames} frames a chunk, {lanes} lanes");
                add(name, Streams::One { hidden, config, frames })?;
            }
        }
        // [PRED-3] A model that predicts has no layered mode.
        let modes = |mode: Mode| mode == Mode::Joined || model.prediction().is_none();
        let mut random = Random::new(seed ^ 3);
        for (frames, lanes, mode) in [(1, 1, Mode::Joined), (9, 2, Mode::Joined), (1, 1, Mode::Layered)] {
            if !modes(mode) {
                continue;
            }
            for quality in (0..model.qualities()).map(|quality| quality as u8) {
                let integers = likely_integers(&plain, &mut random, quality.into())?;
                let config = config.clone().quality(quality).lanes(lanes).mode(mode);
                let name = format!("quality {quality}, {frames} likely frames a chunk, {mode:?} mode");
                add(name, Streams::Likely { integers, config, frames })?;
            }
        }
        let mut random = Random::new(seed ^ 1);
        for &streams in together {
            let qualities = (0..streams).map(|stream| (stream % model.qualities()) as u8);
            let (hidden, configs) = qualities
                .map(|quality| {
                    let config = config.clone().quality(quality).checkpoint_interval(2);
                    (hidden_states(model, &mut random, ROUNDS, quality), config)
                })
                .unzip();
            add(format!("{streams} streams together"), Streams::Together { hidden, configs })?;
        }
        let mut random = Random::new(seed ^ 2);
        for mode in [Mode::Joined, Mode::Layered].into_iter().filter(|mode| modes(*mode)) {
            let last = (model.qualities() - 1) as u8;
            let hidden = [0, last].map(|quality| hidden_states(model, &mut random, LONG, quality));
            let config = config.clone().mode(mode).lanes(2).checkpoint_interval(50);
            let name = format!("{mode:?} mode: forks, rewinds, resets, exact frames, long chunks");
            add(name, Streams::Turns { hidden, config })?;
        }
        Ok(StreamChecks { fingerprint: model.fingerprint(), cases })
    }

    /// Runs the checks on an engine, up to the first fault.
    pub fn run<E: Engine>(&self, engine: &Arc<E>) -> Outcome {
        let mut outcome = Outcome::default();
        if *engine.codec().fingerprint() != self.fingerprint {
            outcome.fault = Some("the engine has another model".into());
            return outcome;
        }
        for Case { name, streams, expected: (expected, values) } in &self.cases {
            let made = streams.encode(engine).and_then(|made| Ok((made, streams.decode(engine, expected)?)));
            let same_bytes =
                |made: &[Made]| made.iter().map(|(bytes, _)| bytes).eq(expected.iter().map(|(bytes, _)| bytes));
            let fault = match made {
                Err(error) => error.to_string(),
                Ok((made, _)) if !same_bytes(&made) => "its bytes are not the plain arm's".into(),
                Ok((made, _)) if made != *expected => "it counts other values than the plain arm".into(),
                Ok((_, decoded)) if decoded != *values => "it decodes the plain arm's bytes to other values".into(),
                Ok(_) => {
                    outcome.cases += 1;
                    outcome.compared += values.iter().map(|values| values.len() as u64).sum::<u64>();
                    continue;
                }
            };
            outcome.fault = Some(format!("{name}: {fault}"));
            break;
        }
        outcome
    }
}

/// Hidden states, `[T, E]`. Every eighth is far out and the next two are equal to it, which gives runs of every mode
/// (spec 3.5). With a full map before the quantiser they lie near integers: engines sum a map in any order, and may then
/// round values to either side where they lie half-way between two (spec 6.8).
fn hidden_states(model: &CodecModel, random: &mut Random, frames: usize, quality: u8) -> Vec<f32> {
    let width = model.hidden_width();
    let (step, offset) = (model.step(quality.into()), model.offset(quality.into()));
    let mut all: Vec<f32> = Vec::with_capacity(frames * width);
    for frame in 0..frames {
        let far = match frame % 8 {
            1 => 4_096.0,
            2 | 3 => {
                all.extend_from_within((frame - 1) * width..);
                continue;
            }
            _ => 1.0,
        };
        let mut steps = || far * random.within(-700, 700) as f32 / 256.0;
        match model.analysis() {
            None | Some(Map::Sparse(_)) => all.extend((0..width).map(|i| steps() * step[i] + offset[i])),
            Some(Map::Full(_)) => {
                let y: Vec<i16> = (0..width).map(|_| steps().round() as i16).collect();
                quantiser::reconstruct(&y, step, model.synthesis(), offset, &mut all);
            }
        }
    }
    all
}

/// W and Y of `FRAMES` frames that the model's tables hold. Integers of random hidden states are often sent as plain
/// numbers, and then nothing that g_y makes shows in the bytes.
fn likely_integers(plain: &Codec, random: &mut Random, quality: usize) -> Result<Integers> {
    let model = plain.model();
    let (channels, (low, high)) = (model.hyper_prior_width(), model.y_range());
    // A value in the middle half of a table.
    let mut middle = |bank: &Bank, table: usize| {
        let size = i32::from(bank.size(table));
        bank.first(table) + random.within(size / 4, (3 * size / 4).min(size - 1))
    };
    let mut integers = Integers::default();
    for _ in 0..FRAMES {
        let tables = quality * channels..(quality + 1) * channels;
        integers.w.extend(tables.map(|table| middle(model.hyper_prior(), table) as i16));
    }
    let indices: Vec<u32> = (0..FRAMES as u64).map(|index| side_of(model, index)).collect();
    let sums = model.side().map(|side| side.sums(&indices, FRAMES)).unwrap_or_default();
    let (mut state, mut output) = (State::new(plain.g_y(), 0), Vec::new());
    plain.g_y().run(&mut state, &network_input(&integers.w, channels, &sums), quality, &mut output, &Serial)?;
    let mut likely = |parameters: &TargetParameters| -> Vec<i16> {
        let places = parameters.tables.iter().zip(&parameters.shifts);
        let values = places.map(|(table, shift)| shift + middle(model.target(), *table as usize));
        values.map(|value| value.clamp(low.into(), high.into()) as i16).collect()
    };
    match model.predictor(quality) {
        Some(predictor) => {
            let mut walk = LaneWalk::new(plain.rule(), &predictor, &[]);
            for output in output.chunks_exact(2 * model.hidden_width()) {
                let y = likely(walk.next(output));
                walk.push(&y);
                integers.y.extend(y);
            }
        }
        None => {
            let mut parameters = TargetParameters::default();
            plain.rule().derive(&output, &mut parameters);
            integers.y = likely(&parameters);
        }
    }
    Ok(integers)
}

impl Streams {
    /// What the plain arm makes of the streams, each of them alone.
    fn alone(&self, plain: &Arc<Codec>) -> Result<Exchanged> {
        let bytes = match self {
            Streams::Together { hidden, configs } => {
                let alone = |(hidden, config): (&Vec<f32>, &EncoderConfig)| {
                    Streams::One { hidden: hidden.clone(), config: config.clone(), frames: 1 }.encode(plain)
                };
                hidden.iter().zip(configs).map(alone).collect::<Result<Vec<_>>>()?.concat()
            }
            Streams::One { .. } | Streams::Turns { .. } | Streams::Likely { .. } => self.encode(plain)?,
        };
        let values = bytes.iter().map(|(bytes, _)| decode(plain, bytes)).collect::<Result<_>>()?;
        Ok((bytes, values))
    }

    /// What an engine makes of the streams.
    fn encode<E: Engine>(&self, engine: &Arc<E>) -> Result<Vec<Made>, E::Error> {
        match self {
            Streams::One { hidden, config, frames } => {
                let mut encoder = Encoder::new(Arc::clone(engine), config.clone())?;
                let width = engine.codec().model().hidden_width();
                for hidden in hidden.chunks(frames * width) {
                    set_side(&mut encoder, hidden.len() / width)?;
                    encoder.push_hidden(engine.upload(&mut hidden.to_vec())?.borrow())?;
                }
                Ok(vec![finish(encoder)?])
            }
            Streams::Likely { integers: Integers { w, y }, config, frames } => {
                let mut encoder = Encoder::new(Arc::clone(engine), config.clone())?;
                let model = engine.codec().model();
                let (width, channels) = (model.hidden_width(), model.hyper_prior_width());
                for (y, w) in y.chunks(frames * width).zip(w.chunks(frames * channels)) {
                    set_side(&mut encoder, y.len() / width)?;
                    encoder.push_integers(y, w)?;
                }
                Ok(vec![finish(encoder)?])
            }
            Streams::Together { hidden, configs } => encode_together(engine, hidden, configs),
            Streams::Turns { hidden, config } => encode_turns(engine, hidden, config.clone()),
        }
    }

    /// The hidden states that an engine decodes from bytes.
    fn decode<E: Engine>(&self, engine: &Arc<E>, bytes: &[Made]) -> Result<Vec<Vec<f32>>, E::Error> {
        match self {
            Streams::Together { .. } => decode_together(engine, bytes),
            Streams::One { .. } | Streams::Turns { .. } | Streams::Likely { .. } => {
                bytes.iter().map(|(bytes, _)| decode(engine, bytes)).collect()
            }
        }
    }
}

/// The side index of a frame.
fn side_of(model: &CodecModel, index: u64) -> u32 {
    let most = model.side().map_or(0, |side| u64::from(side.vocabulary()));
    (index.wrapping_mul(7_919).wrapping_add(index / 3) % (most + 1)) as u32
}

/// Gives the side indices of the next frames, if the model takes any: from the stream or not, as their place says.
fn set_side<E: Engine>(encoder: &mut Encoder<E>, count: usize) -> Result<()> {
    let first = encoder.next_index();
    let model = encoder.codec().model();
    if model.side().is_none() {
        return Ok(());
    }
    let indices: Vec<u32> = (first..).take(count).map(|index| side_of(model, index)).collect();
    let delivery = if first.is_multiple_of(2) { SideDelivery::Sent } else { SideDelivery::Known };
    encoder.set_side(&indices, delivery)
}

/// Gives the side indices that a decoder asks for.
fn give_side<E: Engine>(decoder: &mut Decoder<E>, index: u64, count: usize) -> Result<()> {
    let model = decoder.codec().model();
    let indices: Vec<u32> = (index..).take(count).map(|index| side_of(model, index)).collect();
    decoder.give_side(&indices)
}

fn finish<E: Engine>(mut encoder: Encoder<E>) -> Result<Made, E::Error> {
    let bytes = encoder.end().and_then(|()| encoder.take_bytes())?;
    Ok((bytes, encoder.sent()))
}

/// Sends a stream with every kind of turn. Returns its bytes, and those of a fork that ended early.
fn encode_turns<E: Engine>(
    engine: &Arc<E>,
    [hidden, last]: &[Vec<f32>; 2],
    config: EncoderConfig,
) -> Result<Vec<Made>, E::Error> {
    let model = engine.codec().model();
    let (width, qualities) = (model.hidden_width(), model.qualities());
    let push_of = |encoder: &mut Encoder<E>, hidden: &[f32], count: usize| {
        set_side(encoder, count)?;
        encoder.push_hidden(engine.upload(&mut hidden[..count * width].to_vec())?.borrow())
    };
    let push = |encoder: &mut Encoder<E>, count: usize| push_of(encoder, hidden, count);
    let push_last = |encoder: &mut Encoder<E>, count: usize| push_of(encoder, last, count);
    let rewind = |encoder: &mut Encoder<E>, count: u64| encoder.rewind(encoder.next_index().saturating_sub(count));
    let mut encoder = Encoder::new(Arc::clone(engine), config)?;
    for _ in 0..3 {
        push(&mut encoder, 1)?;
    }
    push(&mut encoder, 200)?;
    let mut fork = encoder.clone();
    push(&mut fork, 2)?;
    encoder.set_quality((qualities - 1) as u8)?;
    push_last(&mut encoder, 5)?;
    push(&mut fork, 1)?;
    rewind(&mut encoder, 60)?;
    push_last(&mut encoder, LONG)?;
    rewind(&mut encoder, 4)?;
    push_last(&mut encoder, 1)?;
    let values: Vec<u8> = last[..width].iter().flat_map(|value| value.to_le_bytes()).collect();
    set_side(&mut encoder, 1)?;
    encoder.push_exact(Dtype::F32, &values)?;
    encoder.reset()?;
    push_last(&mut encoder, 2)?;
    Ok(vec![finish(encoder)?, finish(fork)?])
}

fn decode<E: Engine>(engine: &Arc<E>, bytes: &[u8]) -> Result<Vec<f32>, E::Error> {
    let mut decoder = Decoder::new(Arc::clone(engine), DecoderConfig::default())?;
    decoder.push(bytes)?;
    decoder.finish();
    let mut values = Vec::new();
    loop {
        match decoder.poll()? {
            DecoderPoll::Event(DecoderEvent::SideWanted { index, count }) => give_side(&mut decoder, index, count)?,
            DecoderPoll::Event(event) => {
                if let Some(hidden) = hidden_of(&event) {
                    values.extend(E::download(hidden)?);
                }
            }
            DecoderPoll::NeedMore | DecoderPoll::End => return Ok(values),
        }
    }
}

/// The hidden states of an event, if it has any.
fn hidden_of<H>(event: &DecoderEvent<H>) -> Option<&H> {
    match event {
        DecoderEvent::Frames(frames) => Some(&frames.hidden),
        DecoderEvent::Targets(targets) => Some(&targets.hidden),
        DecoderEvent::ExactFrame(exact) => Some(&exact.frame.hidden),
        _ => None,
    }
}

/// The frame that each of many streams sends in a round.
fn frames_of(hidden: &[Vec<f32>], round: usize) -> impl Iterator<Item = &[f32]> {
    hidden.iter().map(move |own| {
        let width = own.len() / ROUNDS;
        &own[round * width..][..width]
    })
}

fn encode_together<E: Engine>(
    engine: &Arc<E>,
    hidden: &[Vec<f32>],
    configs: &[EncoderConfig],
) -> Result<Vec<Made>, E::Error> {
    let open = |config: &EncoderConfig| Encoder::new(Arc::clone(engine), config.clone());
    let mut streams = configs.iter().map(open).collect::<Result<Vec<_>>>()?;
    let mut together = Together::default();
    for round in 0..ROUNDS {
        let frames = frames_of(hidden, round).map(|frame| engine.upload(&mut frame.to_vec()));
        let frames = frames.collect::<Result<Vec<_>, E::Error>>()?;
        let inputs = frames.iter().map(|frame| Input::Hidden(frame.borrow()));
        for stream in &mut streams {
            set_side(stream, 1)?;
        }
        let mut pushes: Vec<Push<'_, E>> =
            streams.iter_mut().zip(inputs).map(|(encoder, input)| Push { encoder, input }).collect();
        together.push(&mut pushes).into_iter().collect::<Result<(), E::Error>>()?;
    }
    streams.into_iter().map(finish).collect()
}

fn decode_together<E: Engine>(engine: &Arc<E>, bytes: &[Made]) -> Result<Vec<Vec<f32>>, E::Error> {
    let mut streams = Vec::with_capacity(bytes.len());
    for (bytes, _) in bytes {
        let mut decoder = Decoder::new(Arc::clone(engine), DecoderConfig::default())?;
        decoder.push(bytes)?;
        decoder.finish();
        streams.push(decoder);
    }
    let (mut values, mut together) = (vec![Vec::new(); bytes.len()], Together::default());
    loop {
        let polls = together.poll(&mut streams.iter_mut().collect::<Vec<_>>());
        let mut ended = true;
        for ((values, stream), poll) in values.iter_mut().zip(&mut streams).zip(polls) {
            match poll? {
                DecoderPoll::Event(DecoderEvent::SideWanted { index, count }) => {
                    ended = false;
                    give_side(stream, index, count)?;
                }
                DecoderPoll::Event(event) => {
                    ended = false;
                    if let Some(hidden) = hidden_of(&event) {
                        values.extend(E::download(hidden)?);
                    }
                }
                DecoderPoll::NeedMore | DecoderPoll::End => {}
            }
        }
        if ended {
            return Ok(values);
        }
    }
}
