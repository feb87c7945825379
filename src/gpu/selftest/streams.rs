//! Whole streams: the plain arm's bytes from every implementation, and each decodes them to the same values.

use std::sync::Arc;

use bytes::Bytes;
use candle_core::Tensor;

use super::{Implementation, Suite, Tally};
use crate::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig};
use crate::exact::Arm;
use crate::gpu::{DeviceCodec, DeviceDecoder, DeviceEncoder, Result};
use crate::model::synthetic::Random;

/// Frames of a stream.
const FRAMES: usize = 64;

impl Suite<'_> {
    pub(super) fn sessions(&self, implementation: Implementation, tally: &mut Tally) {
        let width = self.model.hidden_width();
        let mut random = Random::new(self.seed);
        for (batch, lanes) in [(1, 1), (7, 3), (FRAMES, 2)] {
            for quality in 0..self.model.qualities() as u8 {
                let (step, offset) = (self.model.step(quality.into()), self.model.offset(quality.into()));
                let hidden: Vec<f32> = (0..FRAMES * width)
                    .map(|i| random.within(-700, 700) as f32 / 256.0 * step[i % width] + offset[i % width])
                    .collect();
                let config = EncoderConfig { quality, lanes, checkpoint_interval: 16, ..EncoderConfig::default() };
                tally.fault = match self.exchange(implementation, &hidden, config, batch * width) {
                    Ok(None) => None,
                    Ok(Some(fault)) => Some(fault.to_string()),
                    Err(error) => Some(error.to_string()),
                };
                if let Some(fault) = &mut tally.fault {
                    fault.insert_str(0, &format!("quality {quality}, {batch} frames a chunk, {lanes} lanes: "));
                    return;
                }
                tally.cases += 1;
                tally.compared += hidden.len() as u64;
            }
        }
    }

    /// What differs between an implementation's stream and the plain arm's; `size` values are a chunk.
    fn exchange(
        &self,
        implementation: Implementation,
        hidden: &[f32],
        config: EncoderConfig,
        size: usize,
    ) -> Result<Option<&'static str>> {
        let plain = Arc::new(Codec::with_arm(self.model.clone(), Arm::Plain)?);
        let reference = encode(&plain, hidden, config.clone(), size)?;
        let expected = decode(&plain, &reference)?;
        let (bytes, values) = match implementation {
            Implementation::Arm(arm) => {
                let codec = Arc::new(Codec::with_arm(self.model.clone(), arm)?);
                (encode(&codec, hidden, config, size)?, decode(&codec, &reference)?)
            }
            Implementation::Tensors(carrier) => {
                let codec = Arc::new(DeviceCodec::with_carrier(Arc::clone(&plain), self.device, carrier)?);
                (encode_tensors(&codec, hidden, config, size)?, decode_tensors(codec, &reference)?)
            }
            #[cfg(feature = "kernels")]
            Implementation::Kernels => return Ok(None),
            #[cfg(feature = "cuda")]
            Implementation::Cuda => return Ok(None),
        };
        Ok(match () {
            () if bytes != reference => Some("its bytes are not the plain arm's"),
            () if values != expected => Some("it decodes the plain arm's bytes to other values"),
            () if decode(&plain, &bytes)? != expected => Some("the plain arm decodes its bytes to other values"),
            () => None,
        })
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
