//! Whole streams: the plain arm's bytes from every implementation, and each decodes them to the same values.

use std::sync::Arc;

use bytes::Bytes;
use candle_core::Tensor;

use super::{Entrant, Implementation, Suite, running};
use crate::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig};
use crate::exact::Arm;
use crate::gpu::{Coder, DeviceCodec, DeviceDecoder, DeviceEncoder, Result};
use crate::model::synthetic::Random;

/// Frames of a stream.
const FRAMES: usize = 64;

impl Suite<'_> {
    pub(super) fn sessions(&self, entrants: &mut [Entrant]) {
        if let Err(error) = self.every_stream(entrants) {
            running(entrants).for_each(|entrant| entrant.tally.fault = Some(format!("the plain arm: {error}")));
        }
    }

    fn every_stream(&self, entrants: &mut [Entrant]) -> Result<()> {
        let width = self.model.hidden_width();
        let plain = Arc::new(Codec::with_arm(self.model.clone(), Arm::Plain)?);
        let mut random = Random::new(self.seed);
        for (batch, lanes) in [(1, 1), (7, 3), (FRAMES, 2)] {
            for quality in 0..self.model.qualities() as u8 {
                let (step, offset) = (self.model.step(quality.into()), self.model.offset(quality.into()));
                let hidden: Vec<f32> = (0..FRAMES * width)
                    .map(|i| random.within(-700, 700) as f32 / 256.0 * step[i % width] + offset[i % width])
                    .collect();
                let config = EncoderConfig { quality, lanes, checkpoint_interval: 16, ..EncoderConfig::default() };
                let bytes = encode(&plain, &hidden, config.clone(), batch * width)?;
                let values = decode(&plain, &bytes)?;
                for Entrant { implementation, tally } in running(entrants) {
                    let made = self.exchange(*implementation, &hidden, config.clone(), batch * width, &bytes);
                    let fault = match made {
                        Err(error) => error.to_string(),
                        Ok((own, _)) if own != bytes => "its bytes are not the plain arm's".into(),
                        Ok((_, own)) if own != values => "it decodes the plain arm's bytes to other values".into(),
                        Ok(_) => {
                            tally.cases += 1;
                            tally.compared += values.len() as u64;
                            continue;
                        }
                    };
                    let what = format!("quality {quality}, {batch} frames a chunk, {lanes} lanes");
                    tally.fault = Some(format!("{what}: {fault}"));
                }
            }
        }
        Ok(())
    }

    /// What an implementation encodes, and what it decodes from the plain arm's bytes; `size` values are a chunk.
    fn exchange(
        &self,
        implementation: Implementation,
        hidden: &[f32],
        config: EncoderConfig,
        size: usize,
        reference: &[u8],
    ) -> Result<(Bytes, Vec<f32>)> {
        match implementation {
            Implementation::Arm(arm) => {
                let codec = Arc::new(Codec::with_arm(self.model.clone(), arm)?);
                Ok((encode(&codec, hidden, config, size)?, decode(&codec, reference)?))
            }
            _ => {
                let codec = Arc::new(self.device_codec(implementation)?);
                Ok((encode_tensors(&codec, hidden, config, size)?, decode_tensors(codec, reference)?))
            }
        }
    }

    fn device_codec(&self, implementation: Implementation) -> Result<DeviceCodec> {
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

fn encode(codec: &Arc<Codec>, hidden: &[f32], config: EncoderConfig, size: usize) -> Result<Bytes> {
    let mut encoder = Encoder::new(Arc::clone(codec), config)?;
    hidden.chunks(size).try_for_each(|hidden| encoder.push_hidden(hidden))?;
    encoder.end()?;
    Ok(encoder.take_bytes())
}

fn decode(codec: &Arc<Codec>, bytes: &[u8]) -> Result<Vec<f32>> {
    let mut decoder = Decoder::new(Arc::clone(codec), DecoderConfig::default())?;
    decoder.push(bytes)?;
    decoder.finish();
    let mut values = Vec::new();
    loop {
        match decoder.poll()? {
            DecoderPoll::Event(DecoderEvent::Frames(frames)) => values.extend(frames.hidden),
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
    Ok(encoder.take_bytes())
}

fn decode_tensors(codec: Arc<DeviceCodec>, bytes: &[u8]) -> Result<Vec<f32>> {
    let mut decoder = DeviceDecoder::new(vec![codec], DecoderConfig::default())?;
    // Also where the CPU's coder would be taken, which other rows of the table are about.
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
