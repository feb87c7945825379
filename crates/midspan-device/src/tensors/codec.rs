//! A codec model as tensors.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use midspan::engine::Codec;

use super::{Carrier, TensorNetwork, frames_of};
use crate::error::{Error, Result};
use midspan::engine::quantiser;
use midspan::error::ErrorKind;
use midspan::model::{CodecModel, Map};

/// A codec model whose networks and quantiser are tensors. The tables are on the CPU, whose coder makes the bytes.
///
/// It is immutable and shared by sessions (`Arc<TensorCodec>`). Hidden states are tensors, \[T, E\]; those of another
/// float type or on another device are converted. They have to be ready for the calling thread: candle's CUDA devices
/// have a stream for each thread, so synchronise the device before you pass a tensor to another thread. A call decodes a
/// whole chunk: [`Limits::max_frames`](midspan::stream::Limits::max_frames) bounds its work.
#[derive(Debug)]
pub struct TensorCodec {
    pub(super) codec: Arc<Codec>,
    pub(super) device: Device,
    carrier: Carrier,
    pub(super) g_y: TensorNetwork,
    pub(super) h: Option<TensorNetwork>,
    quantiser: Option<Quantiser>,
}

/// The encoder's quantiser (spec 6.8).
#[derive(Debug)]
struct Quantiser {
    /// \[1, E\] for each quality.
    offset: Vec<Tensor>,
    reciprocal_step: Vec<Tensor>,
    /// \[E, E\], transposed: a row for each input.
    analysis: Option<Tensor>,
    /// y_min and y_max.
    range: (Tensor, Tensor),
    /// 1.5 · 2^23: a sum with it has no fraction bits.
    whole: Tensor,
}

impl TensorCodec {
    /// Uploads a model to a device.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn new(codec: Arc<Codec>, device: &Device) -> Result<Self> {
        Self::with_carrier(codec, device, Carrier::for_device(device))
    }

    /// The same with another carrier than the device's own ([`Carrier::for_device`]). The integers are the same.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn with_carrier(codec: Arc<Codec>, device: &Device, carrier: Carrier) -> Result<Self> {
        let network = |parameters| TensorNetwork::new(parameters, carrier, device);
        let model = codec.model();
        Ok(Self {
            g_y: network(model.decoder_network())?,
            h: model.encoder_network().map(network).transpose()?,
            quantiser: Quantiser::new(model, device)?,
            device: device.clone(),
            carrier,
            codec,
        })
    }

    /// The same model on this CPU.
    #[must_use]
    pub fn codec(&self) -> &Arc<Codec> {
        &self.codec
    }

    /// The device of the tensors.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Integers as numbers, \[T, `width`\].
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] unless they are whole frames; [`Error::Device`].
    pub(super) fn integers(&self, what: &'static str, values: &[i16], width: usize) -> Result<Tensor> {
        frames_of(self.carrier, what, values, width, &self.device)
    }

    /// Whether the model has sparse maps. Their channels are quantised one after the other, for which an operation on
    /// tensors is too much: this engine then quantises on the CPU, as it makes bytes and hidden states there.
    pub(super) fn quantises_on_cpu(&self) -> bool {
        self.codec.model().analysis().is_some_and(|map| map.sparse().is_some())
    }

    /// Hidden states in steps, \[T, E\] f32: the values to be rounded.
    ///
    /// # Errors
    /// [`ErrorKind::HiddenNotFinite`]; [`ErrorKind::FloatMode`] on the CPU; [`ErrorKind::NotAvailable`] without a quantiser.
    pub(super) fn to_steps(&self, hidden: &Tensor, quality: usize) -> Result<Tensor> {
        self.quantiser()?.to_steps(hidden, quality)
    }

    /// The integers nearest to `x`, \[T, E\], as numbers. Halves are rounded to even, and results are limited to the
    /// range.
    pub(super) fn nearest(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.quantiser()?.nearest(x)?.to_dtype(self.carrier.number())?)
    }

    fn quantiser(&self) -> Result<&Quantiser> {
        let missing = || Error::codec(ErrorKind::NotAvailable, "the model has no quantiser; give Y instead");
        self.quantiser.as_ref().ok_or_else(missing)
    }
}

impl Quantiser {
    fn new(model: &CodecModel, device: &Device) -> Result<Option<Quantiser>> {
        let width = model.hidden_width();
        let row = |values: &[f32]| Tensor::from_slice(values, (1, width), device);
        let qualities = 0..model.qualities();
        let Some(steps) = qualities.clone().map(|q| model.reciprocal_step(q)).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let (low, high) = model.y_range();
        Ok(Some(Quantiser {
            offset: qualities.map(|q| row(model.offset(q))).collect::<candle_core::Result<_>>()?,
            reciprocal_step: steps.into_iter().map(row).collect::<candle_core::Result<_>>()?,
            analysis: model
                .analysis()
                .and_then(Map::full)
                .map(|map| Tensor::from_slice(map, (width, width), device)?.t()?.contiguous())
                .transpose()?,
            range: (Tensor::new(&[f32::from(low)], device)?, Tensor::new(&[f32::from(high)], device)?),
            whole: Tensor::new(&[12_582_912_f32], device)?,
        }))
    }

    /// As [`midspan::engine::quantiser::to_steps`]. Each operation is a separate kernel, so nothing is fused.
    fn to_steps(&self, hidden: &Tensor, quality: usize) -> Result<Tensor> {
        if hidden.device().is_cpu() {
            quantiser::check_float_mode()?;
        }
        // An infinity minus itself is not finite.
        if !hidden.sub(hidden)?.sum_all()?.to_scalar::<f32>()?.is_finite() {
            // Only a refused stream has to know which value it is.
            quantiser::check_finite(&hidden.flatten_all()?.to_vec1::<f32>()?, hidden.dim(1)?)?;
            return Err(Error::codec(ErrorKind::HiddenNotFinite, "hidden states on a device"));
        }
        let centred = hidden.broadcast_sub(&self.offset[quality])?;
        let mapped = match &self.analysis {
            Some(map) => centred.matmul(map)?,
            None => centred,
        };
        let x = mapped.broadcast_mul(&self.reciprocal_step[quality])?;
        if self.analysis.is_some() && x.ne(&x)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()? > 0.0 {
            quantiser::check_not_nan(&x.flatten_all()?.to_vec1::<f32>()?)?;
        }
        Ok(x)
    }

    fn nearest(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        // The range's ends are integers: clamping first gives the same.
        let x = x.broadcast_maximum(&self.range.0)?.broadcast_minimum(&self.range.1)?;
        // Between 2^23 and 2^24 f32 represents exactly the integers, and sums round halves to even.
        x.broadcast_add(&self.whole)?.broadcast_sub(&self.whole)
    }
}
