//! Fused operations of a transformer, with hand-written gradients, for f32 tensors on the CPU.
//!
//! On other devices and for other types each falls back to composed tensor operations, which have
//! their own gradients. RMS norms here have no gain: fold it into the weights that follow.
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod gemm;
pub mod linear;
pub mod matrix;
pub mod mlp;
pub mod norm;
pub mod vector;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};

pub use attention::{Rope, attention};
pub use linear::{linear, linear_residual};
pub use mlp::{mlp, saturating_mlp};
pub use norm::{norm_linear, rms_norm};

/// Rows processed at a time, so that values between two products stay in the cache.
pub const CHUNK: usize = 256;

/// Added to the mean square of an RMS norm.
pub const NORM_EPS: f32 = 1e-6;

/// Whether the fused operations take this tensor: f32 on the CPU. Others are composed of candle's operations.
pub fn fused(t: &Tensor) -> bool {
    t.device().is_cpu() && t.dtype() == DType::F32
}

/// The values of a contiguous f32 tensor that was given to a custom operation.
pub fn values<'a>(s: &'a CpuStorage, l: &Layout) -> Result<&'a [f32]> {
    match l.contiguous_offsets() {
        Some((a, b)) => Ok(&s.as_slice::<f32>()?[a..b]),
        None => bail!("a fused operation was given a tensor that is not contiguous"),
    }
}

/// The values of a contiguous f32 tensor whose storage is held by the caller.
pub fn cpu_values<'a>(s: &'a Storage, l: &Layout) -> Result<&'a [f32]> {
    match s {
        Storage::Cpu(s) => values(s, l),
        _ => bail!("a fused operation was given a tensor that is not on the CPU"),
    }
}

/// The last dimension and the product of the others.
pub fn rows_of(l: &Layout) -> Result<(usize, usize)> {
    match l.dims().split_last() {
        Some((0, _)) => bail!("a fused operation was given rows of no values"),
        Some((&last, rest)) => Ok((rest.iter().product(), last)),
        None => bail!("a fused operation was given a scalar"),
    }
}
