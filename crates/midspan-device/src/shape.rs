//! What the engines have in common: the shapes of contexts, and of tensors of hidden states.

use candle_core::{DType, Device, Tensor};
use midspan::engine::Codec;
use midspan::error::{Detail, Dims, ErrorKind};

use crate::error::{Error, Result};
use crate::number::to_u64;

/// Width and heads of each block, and the window.
pub(crate) type Shape = (Vec<(usize, usize)>, usize);

/// T of hidden states, \[T, E\].
///
/// # Errors
/// [`ErrorKind::WrongShape`] for another width, or no frames.
pub(crate) fn frames(codec: &Codec, hidden: &Tensor) -> midspan::error::Result<usize> {
    let width = codec.model().hidden_width();
    match hidden.dims2() {
        Ok((frames, columns)) if frames > 0 && columns == width => Ok(frames),
        _ => {
            let detail = Detail::Frames { what: "hidden", width: to_u64(width), found: Dims::new(hidden.dims()) };
            Err(midspan::Error::of_call(ErrorKind::WrongShape).with(detail))
        }
    }
}

/// Hidden states that a model with an encoder's part can code, as f32 on the device.
///
/// # Errors
/// [`ErrorKind::NotAvailable`] without an encoder's part; [`Error::Device`].
pub(crate) fn to_f32_on(codec: &Codec, hidden: &Tensor, device: &Device) -> Result<Tensor> {
    frames(codec, hidden)?;
    if !codec.model().has_encoder() {
        return Err(Error::codec(ErrorKind::NotAvailable, "the model has no encoder's part; give Y instead"));
    }
    Ok(hidden.to_device(device)?.to_dtype(DType::F32)?)
}

/// Values, \[T, E\], as a tensor on the device.
///
/// # Errors
/// [`Error::Device`].
pub(crate) fn upload(codec: &Codec, values: &[f32], device: &Device) -> Result<Tensor> {
    let width = codec.model().hidden_width();
    Ok(Tensor::from_slice(values, (values.len() / width, width), device)?)
}

/// Bytes that a tensor's values take.
pub(crate) fn tensor_bytes(tensor: &Tensor) -> usize {
    tensor.elem_count().saturating_mul(tensor.dtype().size_in_bytes())
}
