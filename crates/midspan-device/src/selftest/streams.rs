//! Checks whole streams: every implementation has to give the plain arm's bytes, and to decode them to the same values.

use std::borrow::Borrow;
use std::sync::Arc;

use bytes::Bytes;
use candle_core::Tensor;
use midspan::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Input, Push, Together,
};
use midspan::engine::Engine;
use midspan::exact::Arm;
use midspan::model::synthetic::Random;
use midspan::wire::Identity;

use super::{Entrant, Implementation, Suite, Tally, running};
use crate::error::Error;
use crate::{Result, TensorCodec};

/// Frames in a stream.
const FRAMES: usize = 64;

/// Frames in each of many streams.
const ROUNDS: usize = 3;

/// An implementation's results for streams: its bytes, and the values that it decodes from the plain arm's bytes.
pub(super) type Exchanged = (Vec<Bytes>, Vec<Vec<f32>>);

impl Suite<'_> {
    pub(super) fn sessions(&self, entrants: &mut [Entrant]) {
        let outcome = self.every_stream(entrants).and_then(|()| self.every_step(entrants));
        let outcome = outcome.and_then(|()| self.every_turn(entrants));
        if let Err(error) = outcome {
            running(entrants).for_each(|entrant| entrant.tally.fault = Some(format!("the plain arm: {error}")));
        }
    }

    /// Frames of which every eighth is far out and the next two are equal to it, which gives runs of every mode (spec
    /// 3.5).
    pub(super) fn hidden(&self, random: &mut Random, frames: usize, quality: u8) -> Vec<f32> {
        let width = self.model.hidden_width();
        let (step, offset) = (self.model.step(quality.into()), self.model.offset(quality.into()));
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
            all.extend((0..width).map(|i| far * random.within(-700, 700) as f32 / 256.0 * step[i] + offset[i]));
        }
        all
    }

    /// Checks one stream at a time, in every quality.
    fn every_stream(&self, entrants: &mut [Entrant]) -> Result<()> {
        let width = self.model.hidden_width();
        let plain = Arc::new(Codec::with_arm(self.model.clone(), Arm::Plain)?);
        let mut random = Random::new(self.seed);
        for (batch, lanes) in [(1, 1), (7, 3), (FRAMES, 2)] {
            for quality in 0..self.model.qualities() as u8 {
                let hidden = self.hidden(&mut random, FRAMES, quality);
                let config = EncoderConfig::new(Identity::none()).quality(quality).lanes(lanes).checkpoint_interval(16);
                let bytes = encode(&plain, &hidden, config.clone(), batch * width)?;
                let values = vec![decode(&plain, &bytes)?];
                let bytes = vec![bytes];
                let what = format!("quality {quality}, {batch} frames a chunk, {lanes} lanes");
                for Entrant { implementation, tally } in running(entrants) {
                    let made = self.exchange(*implementation, &hidden, config.clone(), batch * width, &bytes[0]);
                    judge(tally, made, (&bytes, &values), &what);
                }
            }
        }
        Ok(())
    }

    /// Checks many streams together, of different qualities, with one frame of each in a step.
    fn every_step(&self, entrants: &mut [Entrant]) -> Result<()> {
        let width = self.model.hidden_width();
        let plain = Arc::new(Codec::with_arm(self.model.clone(), Arm::Plain)?);
        let mut random = Random::new(self.seed ^ 1);
        for &streams in self.streams {
            let (mut hidden, mut configs, mut bytes, mut values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for stream in 0..streams {
                let quality = (stream % self.model.qualities()) as u8;
                let config = EncoderConfig::new(Identity::none()).quality(quality).checkpoint_interval(2);
                let own = self.hidden(&mut random, ROUNDS, quality);
                let sent = encode(&plain, &own, config.clone(), width)?;
                values.push(decode(&plain, &sent)?);
                bytes.push(sent);
                hidden.push(own);
                configs.push(config);
            }
            for Entrant { implementation, tally } in running(entrants) {
                let made = self.exchange_together(*implementation, &hidden, &configs, &bytes);
                judge(tally, made, (&bytes, &values), &format!("{streams} streams together"));
            }
        }
        Ok(())
    }

    /// What an implementation encodes, and what it decodes from the plain arm's bytes. `size` is the number of values
    /// in a chunk.
    fn exchange(
        &self,
        implementation: Implementation,
        hidden: &[f32],
        config: EncoderConfig,
        size: usize,
        reference: &[u8],
    ) -> Result<Exchanged> {
        struct One<'a>(&'a [f32], EncoderConfig, usize, &'a [u8]);
        impl EngineTask for One<'_> {
            fn on<E: ReadableEngine>(self, engine: &Arc<E>) -> Result<Exchanged, E::Error> {
                let One(hidden, config, size, reference) = self;
                Ok((vec![encode(engine, hidden, config, size)?], vec![decode(engine, reference)?]))
            }
        }
        self.run_task(implementation, One(hidden, config, size, reference))
    }

    /// The same with many streams, with one call for a frame of all of them.
    fn exchange_together(
        &self,
        implementation: Implementation,
        hidden: &[Vec<f32>],
        configs: &[EncoderConfig],
        reference: &[Bytes],
    ) -> Result<Exchanged> {
        struct Many<'a>(&'a [Vec<f32>], &'a [EncoderConfig], &'a [Bytes]);
        impl EngineTask for Many<'_> {
            fn on<E: ReadableEngine>(self, engine: &Arc<E>) -> Result<Exchanged, E::Error> {
                Ok((encode_together(engine, self.0, self.1)?, decode_together(engine, self.2)?))
            }
        }
        self.run_task(implementation, Many(hidden, configs, reference))
    }

    /// Runs a task on the engine of an implementation.
    pub(super) fn run_task(&self, implementation: Implementation, task: impl EngineTask) -> Result<Exchanged> {
        let plain = || Codec::with_arm(self.model.clone(), Arm::Plain).map(Arc::new);
        match implementation {
            Implementation::Arm(arm) => Ok(task.on(&Arc::new(Codec::with_arm(self.model.clone(), arm)?))?),
            Implementation::Tensors(carrier) => {
                task.on(&Arc::new(TensorCodec::with_carrier(plain()?, self.device, carrier)?))
            }
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            _ => {
                // Use the device's coder even where the CPU's would be chosen, because the CPU's is covered by other
                // rows of the table.
                let codec = crate::KernelCodec::new(plain()?, &self.machine(implementation)?)?;
                task.on(&Arc::new(codec.with_coder(crate::Coder::Device)))
            }
        }
    }
}

/// An engine whose hidden states the self-test can read.
pub(super) trait ReadableEngine: Engine<Error: Into<Error>> {
    fn values(hidden: &Self::Hidden) -> Result<Vec<f32>, Self::Error>;
}

impl ReadableEngine for Codec {
    fn values(hidden: &Vec<f32>) -> midspan::error::Result<Vec<f32>> {
        Ok(hidden.clone())
    }
}

impl ReadableEngine for TensorCodec {
    fn values(hidden: &Tensor) -> Result<Vec<f32>> {
        Ok(hidden.flatten_all()?.to_vec1()?)
    }
}

#[cfg(any(feature = "kernels", feature = "cuda"))]
impl ReadableEngine for crate::KernelCodec {
    fn values(hidden: &Tensor) -> Result<Vec<f32>> {
        Ok(hidden.flatten_all()?.to_vec1()?)
    }
}

/// A check that is generic over engines.
pub(super) trait EngineTask {
    fn on<E: ReadableEngine>(self, engine: &Arc<E>) -> Result<Exchanged, E::Error>;
}

pub(super) fn judge(tally: &mut Tally, made: Result<Exchanged>, (bytes, values): (&[Bytes], &[Vec<f32>]), what: &str) {
    let fault = match made {
        Err(error) => error.to_string(),
        Ok((own, _)) if own != bytes => "its bytes are not the plain arm's".into(),
        Ok((_, own)) if own != values => "it decodes the plain arm's bytes to other values".into(),
        Ok(_) => {
            tally.cases += 1;
            tally.compared += values.iter().map(|values| values.len() as u64).sum::<u64>();
            return;
        }
    };
    tally.fault = Some(format!("{what}: {fault}"));
}

fn encode<E: ReadableEngine>(
    engine: &Arc<E>,
    hidden: &[f32],
    config: EncoderConfig,
    size: usize,
) -> Result<Bytes, E::Error> {
    let mut encoder = Encoder::new(Arc::clone(engine), config)?;
    for hidden in hidden.chunks(size) {
        encoder.push_hidden(engine.upload(&mut hidden.to_vec())?.borrow())?;
    }
    encoder.end()?;
    Ok(encoder.take_bytes()?)
}

pub(super) fn decode<E: ReadableEngine>(engine: &Arc<E>, bytes: &[u8]) -> Result<Vec<f32>, E::Error> {
    let mut decoder = Decoder::new(Arc::clone(engine), DecoderConfig::default())?;
    decoder.push(bytes)?;
    decoder.finish();
    let mut values = Vec::new();
    loop {
        match decoder.poll()? {
            DecoderPoll::Event(DecoderEvent::Frames(frames)) => values.extend(E::values(&frames.hidden)?),
            DecoderPoll::Event(DecoderEvent::Targets(targets)) => values.extend(E::values(&targets.hidden)?),
            DecoderPoll::Event(DecoderEvent::ExactFrame(exact)) => values.extend(E::values(&exact.frame.hidden)?),
            DecoderPoll::Event(_) => {}
            DecoderPoll::NeedMore | DecoderPoll::End => return Ok(values),
        }
    }
}

/// The frame that each of many streams sends in a round.
fn frames_of(hidden: &[Vec<f32>], round: usize) -> impl Iterator<Item = &[f32]> {
    hidden.iter().map(move |own| {
        let width = own.len() / ROUNDS;
        &own[round * width..][..width]
    })
}

fn encode_together<E: ReadableEngine>(
    engine: &Arc<E>,
    hidden: &[Vec<f32>],
    configs: &[EncoderConfig],
) -> Result<Vec<Bytes>, E::Error> {
    let open = |config: &EncoderConfig| Encoder::new(Arc::clone(engine), config.clone());
    let mut streams = configs.iter().map(open).collect::<midspan::error::Result<Vec<_>>>()?;
    let mut together = Together::default();
    for round in 0..ROUNDS {
        let frames = frames_of(hidden, round).map(|frame| engine.upload(&mut frame.to_vec()));
        let frames = frames.collect::<Result<Vec<_>, E::Error>>()?;
        let inputs = frames.iter().map(|frame| Input::Hidden(frame.borrow()));
        let mut pushes: Vec<Push<'_, E>> =
            streams.iter_mut().zip(inputs).map(|(encoder, input)| Push { encoder, input }).collect();
        together.push(&mut pushes).into_iter().collect::<Result<(), E::Error>>()?;
    }
    streams.iter_mut().map(|stream| Ok(stream.end().and_then(|()| stream.take_bytes())?)).collect()
}

fn decode_together<E: ReadableEngine>(engine: &Arc<E>, bytes: &[Bytes]) -> Result<Vec<Vec<f32>>, E::Error> {
    let mut streams = Vec::with_capacity(bytes.len());
    for bytes in bytes {
        let mut decoder = Decoder::new(Arc::clone(engine), DecoderConfig::default())?;
        decoder.push(bytes)?;
        decoder.finish();
        streams.push(decoder);
    }
    let (mut values, mut together) = (vec![Vec::new(); bytes.len()], Together::default());
    loop {
        let polls = together.poll(&mut streams.iter_mut().collect::<Vec<_>>());
        let mut ended = true;
        for (values, poll) in values.iter_mut().zip(polls) {
            let poll = poll?;
            ended &= !matches!(poll, DecoderPoll::Event(_));
            if let DecoderPoll::Event(DecoderEvent::Frames(frames)) = poll {
                values.extend(E::values(&frames.hidden)?);
            }
        }
        if ended {
            return Ok(values);
        }
    }
}
