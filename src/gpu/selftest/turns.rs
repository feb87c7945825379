//! Checks what streams do in addition to coding frames: forks, rewinds, resets, exact frames, chunks longer than a
//! launch.

use std::sync::Arc;

use bytes::Bytes;
use candle_core::Tensor;

use super::streams::{decode, decode_tensors, judge};
use super::{Entrant, Implementation, Suite, running};
use crate::codec::{Codec, Encoder, EncoderConfig};
use crate::exact::Arm;
use crate::gpu::{DeviceCodec, DeviceEncoder, Result};
use crate::model::synthetic::Random;
use crate::wire::{Dtype, Identity, Mode};

/// Turns use at most this many frames from the beginning of the hidden states.
const FRAMES: usize = 300;

/// An encoder on the CPU or on a device.
trait Sender: Clone {
    fn push(&mut self, hidden: &[f32], width: usize) -> Result<()>;
    fn push_exact(&mut self, hidden: &[u8]) -> Result<()>;
    fn rewind_by(&mut self, frames: u64) -> Result<()>;
    fn quality(&mut self, quality: u8) -> Result<()>;
    fn begin_anew(&mut self) -> Result<()>;
    fn finish(self) -> Result<Bytes>;
}

macro_rules! control_calls {
    () => {
        fn rewind_by(&mut self, frames: u64) -> Result<()> {
            let to = self.next_index().saturating_sub(frames);
            Ok(self.rewind(to)?)
        }

        fn quality(&mut self, quality: u8) -> Result<()> {
            Ok(self.set_quality(quality)?)
        }

        fn begin_anew(&mut self) -> Result<()> {
            Ok(self.reset()?)
        }

        fn finish(mut self) -> Result<Bytes> {
            self.end()?;
            Ok(self.take_bytes()?)
        }
    };
}

impl Sender for Encoder {
    fn push(&mut self, hidden: &[f32], _width: usize) -> Result<()> {
        Ok(self.push_hidden(hidden)?)
    }

    fn push_exact(&mut self, hidden: &[u8]) -> Result<()> {
        Ok(Encoder::push_exact(self, Dtype::F32, hidden)?)
    }

    control_calls!();
}

impl Sender for DeviceEncoder {
    fn push(&mut self, hidden: &[f32], width: usize) -> Result<()> {
        let device = self.device().clone();
        DeviceEncoder::push(self, &Tensor::from_slice(hidden, (hidden.len() / width, width), &device)?)
    }

    fn push_exact(&mut self, hidden: &[u8]) -> Result<()> {
        DeviceEncoder::push_exact(self, Dtype::F32, hidden)
    }

    control_calls!();
}

/// Sends a stream with every kind of turn. Returns its bytes, and those of a fork that ended early.
fn send<S: Sender>(mut sender: S, hidden: &[f32], width: usize, qualities: usize) -> Result<Vec<Bytes>> {
    let frames = |count: usize| &hidden[..count * width];
    for _ in 0..3 {
        sender.push(frames(1), width)?;
    }
    sender.push(frames(200), width)?;
    let mut fork = sender.clone();
    fork.push(frames(2), width)?;
    sender.quality((qualities - 1) as u8)?;
    sender.push(frames(5), width)?;
    fork.push(frames(1), width)?;
    sender.rewind_by(60)?;
    sender.push(frames(FRAMES), width)?;
    sender.rewind_by(4)?;
    sender.push(frames(1), width)?;
    sender.push_exact(&frames(1).iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
    sender.begin_anew()?;
    sender.push(frames(2), width)?;
    Ok(vec![sender.finish()?, fork.finish()?])
}

impl Suite<'_> {
    /// Checks every turn in both modes.
    pub(super) fn every_turn(&self, entrants: &mut [Entrant]) -> Result<()> {
        let (width, qualities) = (self.model.hidden_width(), self.model.qualities());
        let plain = Arc::new(Codec::with_arm(self.model.clone(), Arm::Plain)?);
        let mut random = Random::new(self.seed ^ 2);
        for mode in [Mode::Joined, Mode::Layered] {
            let hidden = self.hidden(&mut random, FRAMES, 0);
            let config =
                EncoderConfig { mode, lanes: 2, checkpoint_interval: 50, ..EncoderConfig::new(Identity::none()) };
            let bytes = send(Encoder::new(Arc::clone(&plain), config.clone())?, &hidden, width, qualities)?;
            let values = bytes.iter().map(|bytes| decode(&plain, bytes)).collect::<Result<Vec<_>>>()?;
            let what = format!("{mode:?} mode: forks, rewinds, resets, exact frames, long chunks");
            for Entrant { implementation, tally } in running(entrants) {
                let made = match *implementation {
                    Implementation::Arm(arm) => self.turns_of_arm(arm, &hidden, config.clone(), &bytes),
                    other => self.turns_of_device(other, &hidden, config.clone(), &bytes),
                };
                judge(tally, made, (&bytes, &values), &what);
            }
        }
        Ok(())
    }

    fn turns_of_arm(
        &self,
        arm: Arm,
        hidden: &[f32],
        config: EncoderConfig,
        reference: &[Bytes],
    ) -> Result<(Vec<Bytes>, Vec<Vec<f32>>)> {
        let codec = Arc::new(Codec::with_arm(self.model.clone(), arm)?);
        let encoder = Encoder::new(Arc::clone(&codec), config)?;
        let bytes = send(encoder, hidden, self.model.hidden_width(), self.model.qualities())?;
        Ok((bytes, reference.iter().map(|bytes| decode(&codec, bytes)).collect::<Result<_>>()?))
    }

    fn turns_of_device(
        &self,
        implementation: Implementation,
        hidden: &[f32],
        config: EncoderConfig,
        reference: &[Bytes],
    ) -> Result<(Vec<Bytes>, Vec<Vec<f32>>)> {
        let codec: Arc<DeviceCodec> = Arc::new(self.device_codec(implementation)?);
        let encoder = DeviceEncoder::new(Arc::clone(&codec), config)?;
        let bytes = send(encoder, hidden, self.model.hidden_width(), self.model.qualities())?;
        let values = reference.iter().map(|bytes| decode_tensors(Arc::clone(&codec), bytes));
        Ok((bytes, values.collect::<Result<_>>()?))
    }
}
