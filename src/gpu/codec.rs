//! A codec model on a device.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::error::{Error, Result};
#[cfg(any(feature = "kernels", feature = "cuda"))]
use super::kernels::{KernelCodec, Machine};
use super::tensors::{Carrier, TensorCodec};
use crate::codec::Codec;
use crate::error::{Detail, Dims, ErrorKind};
use crate::number::to_u64;

/// A codec model whose networks and quantiser are on a device. It is immutable and shared by sessions
/// (`Arc<DeviceCodec>`).
#[derive(Debug)]
pub struct DeviceCodec {
    codec: Arc<Codec>,
    device: Device,
    engine: Engine,
}

/// How frames are coded.
#[derive(Debug)]
pub(super) enum Engine {
    /// Networks and quantiser are tensors, and entropy coding runs on the CPU.
    Tensors(Box<TensorCodec>),
    /// Kernels do everything.
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    Kernels(Box<KernelCodec>),
}

impl DeviceCodec {
    /// Uploads a model to a device. Kernels are used if the feature `cuda` is on and the device is a CUDA device of
    /// compute capability 8.0 or more; otherwise tensors are used. The bytes are the same.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn new(codec: Arc<Codec>, device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if device.is_cuda() {
            match Machine::cuda(device) {
                Ok(machine) => return Self::with_kernels(codec, &machine),
                Err(error) if error.kind() == Some(ErrorKind::NotAvailable) => {}
                Err(error) => return Err(error),
            }
        }
        Self::with_carrier(codec, device, Carrier::of(device))
    }

    /// Uploads a model to a device as tensors that hold integers in the given way. The integers are the same for every
    /// carrier.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn with_carrier(codec: Arc<Codec>, device: &Device, carrier: Carrier) -> Result<Self> {
        let engine = Engine::Tensors(Box::new(TensorCodec::new(codec.model(), device, carrier)?));
        Ok(Self { codec, device: device.clone(), engine })
    }

    /// Uploads a model to a machine that runs kernels.
    ///
    /// # Errors
    /// [`Error::Device`].
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    pub fn with_kernels(codec: Arc<Codec>, machine: &Machine) -> Result<Self> {
        let engine = Engine::Kernels(Box::new(KernelCodec::new(codec.model(), machine)?));
        Ok(Self { codec, device: machine.device().clone(), engine })
    }

    /// The codec model with its tables.
    #[must_use]
    pub fn codec(&self) -> &Arc<Codec> {
        &self.codec
    }

    /// The device of the tensors of hidden states.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether frames are coded by kernels. The integers of frames then stay on the device.
    #[must_use]
    pub fn has_kernels(&self) -> bool {
        match self.engine {
            Engine::Tensors(_) => false,
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            Engine::Kernels(_) => true,
        }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Checks hidden states and converts them for coding: \[T, E\] f32 on the device.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`].
    pub(super) fn take_in(&self, hidden: &Tensor) -> Result<Tensor> {
        let width = self.codec.model().hidden_width();
        if hidden.dims2().ok().is_none_or(|(frames, columns)| frames == 0 || columns != width) {
            let detail = Detail::Frames { what: "hidden", width: to_u64(width), found: Dims::new(hidden.dims()) };
            return Err(Error::call(ErrorKind::WrongShape, detail));
        }
        Ok(hidden.to_device(&self.device)?.to_dtype(DType::F32)?)
    }
}
