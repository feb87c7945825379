//! Checks whole streams: every implementation has to give the plain arm's bytes, and to decode them to the same values.

use std::sync::Arc;

use bytes::Bytes;
use candle_core::Tensor;

use super::{Entrant, Implementation, Suite, Tally, running};
use crate::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Input, Push, Together,
};
use crate::exact::Arm;
use crate::gpu::{Coder, DeviceCodec, DeviceDecoder, DeviceEncoder, Result};
use crate::model::synthetic::Random;
use crate::wire::Identity;

/// Frames in a stream.
const FRAMES: usize = 64;

/// Frames in each of many streams.
const ROUNDS: usize = 3;

/// An implementation's results for streams: its bytes, and the values that it decodes from the plain arm's bytes.
type Exchanged = (Vec<Bytes>, Vec<Vec<f32>>);

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
                let config =
                    EncoderConfig { quality, lanes, checkpoint_interval: 16, ..EncoderConfig::new(Identity::none()) };
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
                let config = EncoderConfig { quality, checkpoint_interval: 2, ..EncoderConfig::new(Identity::none()) };
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
        let (bytes, values) = match implementation {
            Implementation::Arm(arm) => {
                let codec = Arc::new(Codec::with_arm(self.model.clone(), arm)?);
                (encode(&codec, hidden, config, size)?, decode(&codec, reference)?)
            }
            _ => {
                let codec = Arc::new(self.device_codec(implementation)?);
                (encode_tensors(&codec, hidden, config, size)?, decode_tensors(codec, reference)?)
            }
        };
        Ok((vec![bytes], vec![values]))
    }

    /// The same with many streams, with one call for a frame of all of them.
    fn exchange_together(
        &self,
        implementation: Implementation,
        hidden: &[Vec<f32>],
        configs: &[EncoderConfig],
        reference: &[Bytes],
    ) -> Result<Exchanged> {
        match implementation {
            Implementation::Arm(arm) => {
                let codec = Arc::new(Codec::with_arm(self.model.clone(), arm)?);
                Ok((encode_together(&codec, hidden, configs)?, decode_together(&codec, reference)?))
            }
            _ => {
                let codec = Arc::new(self.device_codec(implementation)?);
                Ok((encode_tensors_together(&codec, hidden, configs)?, decode_tensors_together(&codec, reference)?))
            }
        }
    }

    pub(super) fn device_codec(&self, implementation: Implementation) -> Result<DeviceCodec> {
        let codec = Arc::new(Codec::with_arm(self.model.clone(), Arm::Plain)?);
        match implementation {
            Implementation::Tensors(carrier) => DeviceCodec::with_carrier(codec, self.device, carrier),
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            _ => DeviceCodec::with_kernels(codec, &self.machine(implementation)?),
            #[cfg(not(any(feature = "kernels", feature = "cuda")))]
            _ => DeviceCodec::new(codec, self.device),
        }
    }
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

fn encode(codec: &Arc<Codec>, hidden: &[f32], config: EncoderConfig, size: usize) -> Result<Bytes> {
    let mut encoder = Encoder::new(Arc::clone(codec), config)?;
    hidden.chunks(size).try_for_each(|hidden| encoder.push_hidden(hidden))?;
    encoder.end()?;
    Ok(encoder.take_bytes()?)
}

pub(super) fn decode(codec: &Arc<Codec>, bytes: &[u8]) -> Result<Vec<f32>> {
    let mut decoder = Decoder::new(Arc::clone(codec), DecoderConfig::default())?;
    decoder.push(bytes)?;
    decoder.finish();
    let mut values = Vec::new();
    loop {
        match decoder.poll()? {
            DecoderPoll::Event(DecoderEvent::Frames(frames)) => values.extend(frames.hidden),
            DecoderPoll::Event(DecoderEvent::Targets(targets)) => values.extend(targets.hidden),
            DecoderPoll::Event(DecoderEvent::ExactFrame(exact)) => values.extend(exact.frame.hidden),
            DecoderPoll::Event(_) => {}
            DecoderPoll::NeedMore | DecoderPoll::End => return Ok(values),
        }
    }
}

fn encode_tensors(codec: &Arc<DeviceCodec>, hidden: &[f32], config: EncoderConfig, size: usize) -> Result<Bytes> {
    let mut encoder = DeviceEncoder::new(Arc::clone(codec), config)?;
    let width = codec.codec().model().hidden_width();
    for hidden in hidden.chunks(size) {
        encoder.push(&Tensor::from_slice(hidden, (hidden.len() / width, width), codec.device())?)?;
    }
    encoder.end()?;
    Ok(encoder.take_bytes()?)
}

pub(super) fn decode_tensors(codec: Arc<DeviceCodec>, bytes: &[u8]) -> Result<Vec<f32>> {
    let mut decoder = DeviceDecoder::new(vec![codec], DecoderConfig::default())?;
    // Use the device's coder even where the CPU's would be chosen, because the CPU's is covered by other rows of the
    // table.
    decoder.set_coder(Coder::Device);
    decoder.push(bytes)?;
    decoder.finish();
    let mut values = Vec::new();
    loop {
        let poll = decoder.poll()?;
        if let Some(hidden) = poll.hidden {
            values.extend(hidden.flatten_all()?.to_vec1::<f32>()?);
        }
        if !matches!(poll.poll, DecoderPoll::Event(_)) {
            return Ok(values);
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

fn encode_together(codec: &Arc<Codec>, hidden: &[Vec<f32>], configs: &[EncoderConfig]) -> Result<Vec<Bytes>> {
    let open = |config: &EncoderConfig| Encoder::new(Arc::clone(codec), config.clone());
    let mut streams = configs.iter().map(open).collect::<crate::error::Result<Vec<_>>>()?;
    let mut together = Together::default();
    for round in 0..ROUNDS {
        let inputs = frames_of(hidden, round).map(Input::Hidden);
        let mut pushes: Vec<Push<'_>> =
            streams.iter_mut().zip(inputs).map(|(encoder, input)| Push { encoder, input }).collect();
        together.push(&mut pushes).into_iter().collect::<crate::error::Result<()>>()?;
    }
    streams.iter_mut().map(|stream| Ok(stream.end().and_then(|()| stream.take_bytes())?)).collect()
}

fn decode_together(codec: &Arc<Codec>, bytes: &[Bytes]) -> Result<Vec<Vec<f32>>> {
    let mut streams = Vec::with_capacity(bytes.len());
    for bytes in bytes {
        let mut decoder = Decoder::new(Arc::clone(codec), DecoderConfig::default())?;
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
                values.extend(frames.hidden);
            }
        }
        if ended {
            return Ok(values);
        }
    }
}

fn encode_tensors_together(
    codec: &Arc<DeviceCodec>,
    hidden: &[Vec<f32>],
    configs: &[EncoderConfig],
) -> Result<Vec<Bytes>> {
    let open = |config: &EncoderConfig| DeviceEncoder::new(Arc::clone(codec), config.clone());
    let mut streams = configs.iter().map(open).collect::<Result<Vec<_>>>()?;
    for round in 0..ROUNDS {
        let tensor = |frame: &[f32]| Tensor::from_slice(frame, (1, frame.len()), codec.device());
        let tensors = frames_of(hidden, round).map(tensor).collect::<candle_core::Result<Vec<_>>>()?;
        DeviceEncoder::step(&mut streams.iter_mut().collect::<Vec<_>>(), &tensors)?;
    }
    streams.iter_mut().map(|stream| Ok(stream.end().and_then(|()| stream.take_bytes())?)).collect()
}

fn decode_tensors_together(codec: &Arc<DeviceCodec>, bytes: &[Bytes]) -> Result<Vec<Vec<f32>>> {
    let mut streams = Vec::with_capacity(bytes.len());
    for bytes in bytes {
        let mut decoder = DeviceDecoder::new(vec![Arc::clone(codec)], DecoderConfig::default())?;
        decoder.push(bytes)?;
        decoder.finish();
        streams.push(decoder);
    }
    let mut values = vec![Vec::new(); bytes.len()];
    loop {
        let polls = DeviceDecoder::poll_together(&mut streams.iter_mut().collect::<Vec<_>>());
        let mut ended = true;
        for (values, poll) in values.iter_mut().zip(polls) {
            let poll = poll?;
            ended &= !matches!(poll.poll, DecoderPoll::Event(_));
            if let Some(hidden) = poll.hidden {
                values.extend(hidden.flatten_all()?.to_vec1::<f32>()?);
            }
        }
        if ended {
            return Ok(values);
        }
    }
}
