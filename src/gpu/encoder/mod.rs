//! The encoder session on a device: encodes tensors of hidden states to bytes.

#[cfg(any(feature = "kernels", feature = "cuda"))]
mod kernels;
mod tensors;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::codec::{DeviceCodec, Engine};
use super::error::{Error, Result};
use super::state::DeviceState;
use crate::codec::{Encoder, EncoderConfig};
use crate::error::{Detail, ErrorKind, Limit};
use crate::number::to_u64;
use crate::wire::{Dtype, Mode};

/// Encodes one stream of hidden states that are on a device. The bytes are those of an [`Encoder`] given the same
/// values.
///
/// Everything except frames goes through the [`Encoder`] that it contains: checkpoints, rewinds, the end, the output. A
/// call that fails changes nothing. Cloning forks the stream.
///
/// Hidden states have to be ready for the calling thread. candle's CUDA devices have a stream for each thread, so
/// synchronise the device before you pass a tensor to another thread.
///
/// With kernels, the encoder copies only the coded bytes, the frames' digests and the number of clamped values back to
/// the host. [`Encoder::last_w`] and [`Encoder::last_y`] are then empty, and [`Encoder::last_cost`] is None.
#[derive(Clone, Debug)]
pub struct DeviceEncoder {
    codec: Arc<DeviceCodec>,
    session: Encoder<DeviceState>,
}

impl Deref for DeviceEncoder {
    type Target = Encoder<DeviceState>;

    fn deref(&self) -> &Self::Target {
        &self.session
    }
}

impl DerefMut for DeviceEncoder {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.session
    }
}

impl DeviceEncoder {
    /// Opens a stream; its header is the first output.
    ///
    /// # Errors
    /// As [`Encoder::new`]; [`ErrorKind::NotAvailable`] for a model on kernels if datagrams have a limit, because
    /// targets are split on the CPU.
    pub fn new(codec: Arc<DeviceCodec>, config: EncoderConfig) -> Result<Self> {
        check_datagrams(&codec, config.datagram_limit.filter(|_| config.mode == Mode::Layered))?;
        Ok(Self { session: Encoder::open(Arc::clone(codec.codec()), config)?, codec })
    }

    /// The device that tensors of hidden states have to be on.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.codec.device()
    }

    /// Codes hidden states, \[T, E\]. One frame gives a one-frame chunk, more frames give batch chunks. Values of
    /// another float type are converted to f32 first.
    ///
    /// # Errors
    /// As [`Encoder::push_hidden`]; [`Error::Device`]. If a batch needs several chunks, the first ones may have been
    /// coded before the error.
    pub fn push(&mut self, hidden: &Tensor) -> Result<()> {
        let hidden = self.take_in(hidden)?;
        let codec = Arc::clone(&self.codec);
        match codec.engine() {
            Engine::Tensors(codec) => tensors::push(codec, self, &hidden),
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            Engine::Kernels(codec) => kernels::push(codec, self, &hidden),
        }
    }

    /// Codes target integers, `[T, E]`; W comes from h.
    ///
    /// # Errors
    /// As [`Encoder::push_y`]; [`Error::Device`]. If a batch needs several chunks, the first ones may have been coded
    /// before the error.
    pub fn push_y(&mut self, y: &[i16]) -> Result<()> {
        self.check_model()?;
        self.session.check_own_y(y)?;
        let codec = Arc::clone(&self.codec);
        let chunk = self.session.frames_per_chunk() * codec.codec().model().hidden_width();
        for (i, y) in y.chunks(chunk).enumerate() {
            match codec.engine() {
                Engine::Tensors(codec) => tensors::push_y(codec, self, y, i == 0)?,
                #[cfg(any(feature = "kernels", feature = "cuda"))]
                Engine::Kernels(codec) => kernels::push_y(codec, self, y)?,
            }
        }
        Ok(())
    }

    /// Codes one frame as usual and adds its lossless hidden state (spec 6.9). `hidden` holds E little-endian values.
    ///
    /// # Errors
    /// As [`Encoder::push_exact`]; [`Error::Device`].
    pub fn push_exact(&mut self, dtype: Dtype, hidden: &[u8]) -> Result<()> {
        self.check_model()?;
        let (y, x) = self.session.exact_in_steps(dtype, hidden)?;
        let codec = Arc::clone(&self.codec);
        match codec.engine() {
            Engine::Tensors(codec) => tensors::push_exact(codec, self, (dtype, hidden), y, &x),
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            Engine::Kernels(codec) => kernels::push_exact(codec, self, (dtype, hidden)),
        }
    }

    /// Switches to another model from the next frame on. A new context begins.
    ///
    /// # Errors
    /// As [`Encoder::switch_model`] and [`DeviceEncoder::new`].
    pub fn switch_model(&mut self, codec: Arc<DeviceCodec>, quality: u8) -> Result<()> {
        check_datagrams(&codec, self.session.datagram_limit())?;
        self.session.switch_model(Arc::clone(codec.codec()), quality)?;
        self.codec = codec;
        Ok(())
    }

    /// Codes the next frames of many streams of one model. The networks run once for all. `hidden` has one tensor for
    /// each stream, \[T, E\], of at most a chunk's frames. With kernels, the work that remains for each stream is
    /// spread over the first stream's executor ([`Encoder::set_executor`]).
    ///
    /// # Errors
    /// As [`DeviceEncoder::push`] of the first stream that is refused; [`ErrorKind::WrongModel`] for streams of different
    /// models. No stream is then changed.
    pub fn step(streams: &mut [&mut DeviceEncoder], hidden: &[Tensor]) -> Result<()> {
        let Some(codec) = streams.first().map(|stream| Arc::clone(&stream.codec)) else { return Ok(()) };
        if streams.len() != hidden.len() {
            let (wanted, found) = (to_u64(streams.len()), to_u64(hidden.len()));
            let what = "tensors, one for each stream";
            return Err(Error::call(ErrorKind::WrongShape, Detail::Number { what, wanted, found }));
        }
        let mut all = Vec::with_capacity(streams.len());
        for (stream, hidden) in streams.iter().zip(hidden) {
            if !Arc::ptr_eq(&stream.codec, &codec) {
                return Err(Error::codec(ErrorKind::WrongModel, "streams of different models in one step"));
            }
            let hidden = stream.take_in(hidden)?;
            let (most, found) = (stream.session.frames_per_chunk(), hidden.dim(0)?);
            if found > most {
                let (what, limit) = ("frames in a step", Limit::Own("max_frames_per_chunk or max_chunk_bytes"));
                let (most, found) = (to_u64(most), to_u64(found));
                return Err(Error::call(ErrorKind::WrongShape, Detail::Limit { what, limit, most, found }));
            }
            all.push(hidden);
        }
        match codec.engine() {
            Engine::Tensors(codec) => tensors::step(codec, streams, &all),
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            Engine::Kernels(codec) => kernels::step(codec, streams, &all),
        }
    }

    /// Checks hidden states and converts them for coding.
    fn take_in(&self, hidden: &Tensor) -> Result<Tensor> {
        self.check_model()?;
        let hidden = self.codec.take_in(hidden)?;
        if !self.codec.codec().model().has_encoder() {
            return Err(Error::codec(ErrorKind::NotAvailable, "the model has no encoder's part; give Y instead"));
        }
        self.session.check_open()?;
        self.session.check_memory(hidden.dim(0)?, 0)?;
        Ok(hidden)
    }

    /// Checks that the model in force is the one on the device. A switch through the session alone would make them
    /// differ.
    fn check_model(&self) -> Result<()> {
        if Arc::ptr_eq(self.session.codec(), self.codec.codec()) {
            Ok(())
        } else {
            Err(Error::codec(ErrorKind::WrongModel, "the model in force is not the one on the device"))
        }
    }
}

/// Kernels cannot split a chunk's targets, so datagrams may have no limit.
fn check_datagrams(codec: &DeviceCodec, limit: Option<u32>) -> Result<()> {
    if limit.is_some() && codec.has_kernels() {
        return Err(Error::codec(ErrorKind::NotAvailable, "datagram_limit with a model on kernels"));
    }
    Ok(())
}

/// Rows in parts of at most `frames`.
fn parts(rows: &Tensor, frames: usize) -> Result<Vec<Tensor>> {
    let all = rows.dims().first().copied().unwrap_or(0);
    if all <= frames {
        return Ok(vec![rows.clone()]);
    }
    let part = |first| rows.narrow(0, first, frames.min(all - first));
    Ok((0..all).step_by(frames).map(part).collect::<candle_core::Result<_>>()?)
}
