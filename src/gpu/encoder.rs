//! The encoder session on a device: tensors of hidden states in, bytes out.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::codec::DeviceCodec;
use super::error::{Error, Result};
use super::tensors::{TensorState, TensorStep};
use crate::codec::{Encoder, EncoderConfig};
use crate::error::ErrorKind;
use crate::wire::Dtype;

/// Encodes one stream of hidden states that lie on a device. The bytes are those of an [`Encoder`] given the same values.
///
/// Everything but the frames goes through the [`Encoder`] that it holds: checkpoints, rewinds, the end, the output. A call
/// that fails changes nothing. Cloning forks the stream.
#[derive(Clone, Debug)]
pub struct DeviceEncoder {
    codec: Arc<DeviceCodec>,
    session: Encoder<TensorState>,
}

impl Deref for DeviceEncoder {
    type Target = Encoder<TensorState>;

    fn deref(&self) -> &Self::Target {
        &self.session
    }
}

impl DerefMut for DeviceEncoder {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.session
    }
}

/// One stream's share of a step.
struct Share {
    frames: usize,
    x: Vec<f32>,
    h: TensorState,
    g_y: TensorState,
}

impl DeviceEncoder {
    /// Opens a stream; its header is the first output.
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub fn new(codec: Arc<DeviceCodec>, config: EncoderConfig) -> Result<Self> {
        Ok(Self { session: Encoder::open(Arc::clone(codec.codec()), config)?, codec })
    }

    /// Codes hidden states, \[T, E\]: one frame gives a one-frame chunk, more give batch chunks. Values of another float
    /// type become f32 first.
    ///
    /// # Errors
    /// As [`Encoder::push_hidden`]; [`Error::Device`], before which chunks of a batch longer than one may have been coded.
    pub fn push(&mut self, hidden: &Tensor) -> Result<()> {
        // All that can be refused is before anything is coded.
        let x = self.in_steps(hidden)?;
        let mut only = [self];
        for (i, part) in parts(&x, only[0].session.frames_per_chunk())?.into_iter().enumerate() {
            DeviceEncoder::code(&mut only, &[part], i == 0)?;
        }
        Ok(())
    }

    /// Hidden states in steps, \[T, E\], if they can be coded.
    fn in_steps(&self, hidden: &Tensor) -> Result<Tensor> {
        self.check_model()?;
        let x = self.codec.in_steps(hidden, self.session.quality)?;
        self.codec.h()?;
        self.session.check_open()?;
        Ok(x)
    }

    /// Codes target integers, `[T, E]`; W comes from h.
    ///
    /// # Errors
    /// As [`Encoder::push_y`]; [`Error::Device`].
    pub fn push_y(&mut self, y: &[i16]) -> Result<()> {
        self.check_model()?;
        self.session.check_own_y(y)?;
        let chunk = self.session.frames_per_chunk() * self.codec.codec().model().hidden_width();
        for (i, y) in y.chunks(chunk).enumerate() {
            let input = self.codec.h()?.input(y)?;
            let mut only = [&mut *self];
            let (shares, w, output) = DeviceEncoder::predict(&mut only, vec![(input, Vec::new())])?;
            DeviceEncoder::commit(&mut only, shares, (&w, y), &output, i == 0)?;
        }
        Ok(())
    }

    /// Codes one frame as usual and adds its hidden state, lossless (spec 6.9); `hidden` holds E little-endian values.
    ///
    /// # Errors
    /// As [`Encoder::push_exact`]; [`Error::Device`].
    pub fn push_exact(&mut self, dtype: Dtype, hidden: &[u8]) -> Result<()> {
        self.check_model()?;
        let (y, x) = self.session.exact_in_steps(dtype, hidden)?;
        let input = self.codec.h()?.input(&y)?;
        let (mut shares, w, output) = DeviceEncoder::predict(&mut [&mut *self], vec![(input, Vec::new())])?;
        if let Some(share) = shares.pop() {
            self.adopt(share.h, share.g_y, output);
        }
        Ok(self.session.code_exact((dtype, hidden), w, y, &x)?)
    }

    /// Another model from the next frame on; the context begins anew.
    ///
    /// # Errors
    /// As [`Encoder::switch_model`].
    pub fn switch_model(&mut self, codec: Arc<DeviceCodec>, quality: u8) -> Result<()> {
        self.session.switch_model(Arc::clone(codec.codec()), quality)?;
        self.codec = codec;
        Ok(())
    }

    /// Codes the next frames of many streams of one model: the networks run once for all. `hidden` has one tensor for each
    /// stream, \[T, E\], of at most a chunk's frames.
    ///
    /// # Errors
    /// As [`DeviceEncoder::push`] of the first stream that is refused; [`ErrorKind::WrongModel`] for streams of different
    /// models. No stream is then changed.
    pub fn step(streams: &mut [&mut DeviceEncoder], hidden: &[Tensor]) -> Result<()> {
        let Some(codec) = streams.first().map(|stream| Arc::clone(&stream.codec)) else { return Ok(()) };
        if streams.len() != hidden.len() {
            return Err(Error::codec(ErrorKind::WrongShape, "as many tensors as streams"));
        }
        let mut steps = Vec::with_capacity(streams.len());
        for (stream, hidden) in streams.iter().zip(hidden) {
            if !Arc::ptr_eq(&stream.codec, &codec) {
                return Err(Error::codec(ErrorKind::WrongModel, "streams of different models in one step"));
            }
            let x = stream.in_steps(hidden)?;
            if x.dim(0)? > stream.session.frames_per_chunk() {
                return Err(Error::codec(ErrorKind::WrongShape, "more frames than a chunk holds"));
            }
            steps.push(x);
        }
        DeviceEncoder::code(streams, &steps, true)
    }

    /// Codes a chunk of each stream of a model, hidden states in steps: its push's first or a later one.
    fn code(streams: &mut [&mut DeviceEncoder], steps: &[Tensor], first: bool) -> Result<()> {
        let Some(codec) = streams.first().map(|stream| Arc::clone(&stream.codec)) else { return Ok(()) };
        let mut inputs = Vec::with_capacity(steps.len());
        for x in steps {
            inputs.push((codec.nearest(x)?, x.flatten_all()?.to_vec1::<f32>()?));
        }
        let y = inputs.iter().map(|(y, _)| y).collect::<Vec<_>>();
        let y = read(&Tensor::cat(&y, 0)?)?;
        let (shares, w, output) = DeviceEncoder::predict(streams, inputs)?;
        DeviceEncoder::commit(streams, shares, (&w, &y), &output, first)
    }

    /// Runs h and g_y on copies of the streams' contexts: W and g_y's output of all, one stream after the other.
    fn predict(
        streams: &mut [&mut DeviceEncoder],
        inputs: Vec<(Tensor, Vec<f32>)>,
    ) -> Result<(Vec<Share>, Vec<i16>, Vec<i32>)> {
        let codec = match streams.first() {
            Some(stream) => Arc::clone(&stream.codec),
            None => return Ok((Vec::new(), Vec::new(), Vec::new())),
        };
        let missing = || Error::codec(ErrorKind::NotAvailable, "the model has no analysis network");
        let y = Tensor::cat(&inputs.iter().map(|(y, _)| y).collect::<Vec<_>>(), 0)?;
        let mut shares = Vec::with_capacity(streams.len());
        for (stream, (y, x)) in streams.iter().zip(inputs) {
            let (h, g_y) = (stream.session.h.clone().ok_or_else(missing)?, stream.session.g_y.clone());
            shares.push(Share { frames: y.dim(0)?, x, h, g_y });
        }
        let qualities: Vec<usize> = streams.iter().map(|stream| stream.session.quality).collect();
        let mut of_streams = steps(&mut shares, &qualities, |share| &mut share.h);
        let w = codec.h()?.step(&mut of_streams, &y)?;
        let mut of_streams = steps(&mut shares, &qualities, |share| &mut share.g_y);
        let output = codec.g_y().step(&mut of_streams, &w)?;
        Ok((shares, read(&w)?, codec.g_y().read(&output)?))
    }

    /// Takes over the contexts and codes each stream's chunk.
    fn commit(
        streams: &mut [&mut DeviceEncoder],
        shares: Vec<Share>,
        (w, y): (&[i16], &[i16]),
        output: &[i32],
        first: bool,
    ) -> Result<()> {
        let (mut row, mut outcome) = (0, Ok(()));
        for (stream, share) in streams.iter_mut().zip(shares) {
            let rows = row..row + share.frames;
            row = rows.end;
            let model = stream.codec.codec().model();
            let (width, channels) = (model.hidden_width(), model.hyper_prior_width());
            let of = |size: usize| rows.start * size..rows.end * size;
            let (w, y) = (&w[of(channels)], y[of(width)].to_vec());
            stream.adopt(share.h, share.g_y, output[of(2 * width)].to_vec());
            let coded = stream.session.code_predicted(w, y, (!share.x.is_empty()).then_some(&share.x), first);
            outcome = outcome.and(coded);
        }
        Ok(outcome?)
    }

    fn adopt(&mut self, h: TensorState, g_y: TensorState, output: Vec<i32>) {
        self.session.h = Some(h);
        self.session.g_y = g_y;
        self.session.output = output;
    }

    /// The model in force is the one on the device: a switch through the session alone would part them.
    fn check_model(&self) -> Result<()> {
        if Arc::ptr_eq(self.session.codec(), self.codec.codec()) {
            Ok(())
        } else {
            Err(Error::codec(ErrorKind::WrongModel, "the model in force is not the one on the device"))
        }
    }
}

/// What one of the networks is to do for each stream.
fn steps<'a>(
    shares: &'a mut [Share],
    qualities: &[usize],
    state: impl Fn(&mut Share) -> &mut TensorState,
) -> Vec<TensorStep<'a>> {
    let step = |(share, quality): (&'a mut Share, &usize)| {
        let frames = share.frames;
        TensorStep { state: state(share), frames, quality: *quality }
    };
    shares.iter_mut().zip(qualities).map(step).collect()
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

/// Numbers within 16 bits.
fn read(numbers: &Tensor) -> Result<Vec<i16>> {
    let values = numbers.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    Ok(values.into_iter().map(|value| value as i16).collect())
}
