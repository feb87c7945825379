//! A frozen codec as a link: real streams.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{Carried, Link};
use crate::codec::{Codec, Encoder, EncoderConfig, quantiser};
use crate::train::Error;

/// A frozen codec between a host's halves: each sequence as a stream of its own.
pub struct FrozenLink {
    /// A stream that has not begun.
    fresh: Encoder,
    quality: usize,
}

impl FrozenLink {
    /// A link with an encoder's configuration.
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub fn new(codec: Arc<Codec>, config: &EncoderConfig) -> Result<Self, crate::error::Error> {
        Ok(Self { fresh: Encoder::new(codec, config.clone())?, quality: config.quality.into() })
    }

    /// An encoder behind its header and hidden states of one sequence, `[1, T, width]`.
    fn encoded(&self, hidden: &Tensor) -> Result<(Encoder, usize), Error> {
        let mut encoder = self.fresh.clone();
        encoder.take_bytes();
        let values = hidden.flatten_all()?.to_vec1::<f32>()?;
        encoder.push_hidden(&values).map_err(|error| Error::new(error.to_string()))?;
        let bytes = encoder.take_bytes().len();
        Ok((encoder, bytes))
    }

    /// Bytes of one sequence in one chunk, `[1, T, width]`; a stream's header, which stands once for many, is left out.
    ///
    /// # Errors
    /// A hidden state that is not finite.
    pub fn bytes(&self, hidden: &Tensor) -> Result<usize, Error> {
        Ok(self.encoded(hidden)?.1)
    }
}

impl Link for FrozenLink {
    fn carry(&self, hidden: &Tensor) -> Result<Carried, Error> {
        let (encoder, _) = self.encoded(hidden)?;
        let model = encoder.codec().model();
        let mut out = Vec::with_capacity(hidden.elem_count());
        let (step, offset) = (model.step(self.quality), model.offset(self.quality));
        quantiser::reconstruct(encoder.last_y(), step, model.synthesis(), offset, &mut out);
        Ok(Carried { hidden: Tensor::from_vec(out, hidden.shape(), &Device::Cpu)?, frames: Vec::new() })
    }
}
