//! A codec model as tensors.

use candle_core::{DType, Device, Tensor};

use super::{Carrier, TensorNetwork};
use crate::codec::quantiser;
use crate::error::ErrorKind;
use crate::gpu::error::{Error, Result};
use crate::model::CodecModel;

/// A codec model whose networks and quantiser are tensors. The tables are on the CPU, whose coder makes the bytes.
#[derive(Debug)]
pub(in crate::gpu) struct TensorCodec {
    carrier: Carrier,
    g_y: TensorNetwork,
    h: Option<TensorNetwork>,
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
    pub fn new(model: &CodecModel, device: &Device, carrier: Carrier) -> Result<Self> {
        let network = |parameters| TensorNetwork::new(parameters, carrier, device);
        Ok(Self {
            g_y: network(model.decoder_network())?,
            h: model.encoder_network().map(network).transpose()?,
            quantiser: Quantiser::new(model, device)?,
            carrier,
        })
    }

    pub fn g_y(&self) -> &TensorNetwork {
        &self.g_y
    }

    /// # Errors
    /// [`ErrorKind::NotAvailable`] without an encoder's part in the model.
    pub fn h(&self) -> Result<&TensorNetwork> {
        self.h.as_ref().ok_or_else(|| Error::codec(ErrorKind::NotAvailable, "the model has no analysis network"))
    }

    /// Hidden states in steps, \[T, E\] f32: the values to be rounded.
    ///
    /// # Errors
    /// [`ErrorKind::HiddenNotFinite`]; [`ErrorKind::FloatMode`] on the CPU; [`ErrorKind::NotAvailable`] without a quantiser.
    pub fn in_steps(&self, hidden: &Tensor, quality: usize) -> Result<Tensor> {
        self.quantiser()?.in_steps(hidden, quality)
    }

    /// The integers nearest to `x`, \[T, E\], as numbers. Halves are rounded to even, and results are limited to the
    /// range.
    pub fn nearest(&self, x: &Tensor) -> Result<Tensor> {
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
                .map(|map| Tensor::from_slice(map, (width, width), device)?.t()?.contiguous())
                .transpose()?,
            range: (Tensor::new(&[f32::from(low)], device)?, Tensor::new(&[f32::from(high)], device)?),
            whole: Tensor::new(&[12_582_912_f32], device)?,
        }))
    }

    /// As [`crate::codec::quantiser::in_steps`]. Each operation is a separate kernel, so nothing is fused.
    fn in_steps(&self, hidden: &Tensor, quality: usize) -> Result<Tensor> {
        if hidden.device().is_cpu() {
            quantiser::check_float_mode()?;
        }
        // An infinity minus itself is not finite.
        if !hidden.sub(hidden)?.sum_all()?.to_scalar::<f32>()?.is_finite() {
            // Only a refused stream has to know which value it is.
            quantiser::check_finite(&hidden.flatten_all()?.to_vec1::<f32>()?, hidden.dim(1)?)?;
            return Err(Error::codec(ErrorKind::HiddenNotFinite, "hidden states on a device"));
        }
        let apart = hidden.broadcast_sub(&self.offset[quality])?;
        let turned = match &self.analysis {
            Some(map) => apart.matmul(map)?,
            None => apart,
        };
        let x = turned.broadcast_mul(&self.reciprocal_step[quality])?;
        if self.analysis.is_some() && x.ne(&x)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()? > 0.0 {
            quantiser::check_turned(&x.flatten_all()?.to_vec1::<f32>()?)?;
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
