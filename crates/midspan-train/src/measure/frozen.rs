//! A frozen codec as a link that uses real streams.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{Carried, Link};
use crate::Error;
use crate::calibrate::expected::side_indices;
use midspan::codec::{Codec, Encoder, EncoderConfig, SideDelivery};
use midspan::engine::quantiser;

/// A frozen codec between a host's halves. Each sequence is a separate stream, in two chunks of half its frames.
///
/// A frame's `bits` are its share of its chunk's bytes, framing included. The stream header, which a stream has only
/// once, is left out. If only the second half of a sequence counts, only the bytes of the second chunk count, which is
/// coded after the first.
pub struct FrozenLink {
    /// An encoder of a stream that has not begun.
    fresh: Encoder,
    quality: usize,
}

impl FrozenLink {
    /// A link with an encoder's configuration.
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub fn new(codec: Arc<Codec>, config: &EncoderConfig) -> Result<Self, midspan::error::Error> {
        Ok(Self { fresh: Encoder::new(codec, config.clone())?, quality: config.quality.into() })
    }
}

impl Link for FrozenLink {
    fn carry(&self, hidden: &Tensor, ids: &[u32]) -> Result<Carried, Error> {
        let mut encoder = self.fresh.clone();
        encoder.take_bytes()?;
        let (_, frames, width) = hidden.dims3()?;
        let values = hidden.flatten_all()?.to_vec1::<f32>()?;
        let (mut out, mut bits) = (Vec::with_capacity(values.len()), Vec::with_capacity(frames));
        let side = side_indices(encoder.codec(), Some(ids), frames);
        let (first, second) = values.split_at(frames / 2 * width);
        let (first_side, second_side) = side.split_at((frames / 2).min(side.len()));
        let chunks = [(first, first_side), (second, second_side)];
        for (chunk, side) in chunks.into_iter().filter(|(chunk, _)| !chunk.is_empty()) {
            if !side.is_empty() {
                encoder.set_side(side, SideDelivery::Known)?;
            }
            encoder.push_hidden(chunk)?;
            let (bytes, frames) = (encoder.take_bytes()?.len(), chunk.len() / width);
            bits.extend(std::iter::repeat_n(8.0 * bytes as f32 / frames as f32, frames));
            let model = encoder.codec().model();
            let (step, offset) = (model.step(self.quality), model.offset(self.quality));
            let integers = encoder.last_integers().expect("an encoder keeps them unless it is told not to");
            quantiser::reconstruct(&integers.y, step, model.synthesis(), offset, &mut out);
        }
        let bits = Tensor::from_vec(bits, (1, frames), &Device::Cpu)?;
        Ok(Carried { hidden: Tensor::from_vec(out, hidden.shape(), &Device::Cpu)?, frames: vec![("bits", bits)] })
    }
}
