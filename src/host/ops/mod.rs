//! Fused operations of a transformer, with hand-written gradients, for f32 tensors on the CPU.
//!
//! Off the CPU (or in another type) each falls back to composed tensor operations, which have
//! gradients of their own. RMS norms here carry no gain: fold it into the weights that follow.
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

/// Rows treated at a time, so that what stands between two products stays in the cache.
pub(crate) const CHUNK: usize = 256;

/// Added to the mean square of an RMS norm.
pub const NORM_EPS: f32 = 1e-6;

pub(crate) fn fused(t: &Tensor) -> bool {
    t.device().is_cpu() && t.dtype() == DType::F32
}

/// The values of a contiguous f32 tensor given to a custom operation.
pub(crate) fn values<'a>(s: &'a CpuStorage, l: &Layout) -> Result<&'a [f32]> {
    match l.contiguous_offsets() {
        Some((a, b)) => Ok(&s.as_slice::<f32>()?[a..b]),
        None => bail!("a fused operation was given a tensor that is not contiguous"),
    }
}

/// The values of a contiguous f32 tensor whose storage is held by the caller.
pub(crate) fn held<'a>(s: &'a Storage, l: &Layout) -> Result<&'a [f32]> {
    match s {
        Storage::Cpu(s) => values(s, l),
        _ => bail!("a fused operation was given a tensor that is not on the CPU"),
    }
}

/// The last dimension and the product of the others.
pub(crate) fn rows_of(l: &Layout) -> Result<(usize, usize)> {
    match l.dims().split_last() {
        Some((0, _)) => bail!("a fused operation was given rows of no values"),
        Some((&last, rest)) => Ok((rest.iter().product(), last)),
        None => bail!("a fused operation was given a scalar"),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use candle_core::{Device, Tensor, Var};

    /// A fixed generator of values in (-1, 1).
    pub fn generator(seed: u64) -> impl FnMut() -> f32 {
        let mut s = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        move || {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((s >> 40) as f32) / (1u64 << 23) as f32 - 1.0
        }
    }

    /// Values in (-1, 1).
    pub fn random(shape: &[usize], seed: u64) -> Var {
        let mut next = generator(seed);
        let data: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
        Var::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    /// The largest difference of two tensors, relative to the largest value of the second.
    pub fn difference(a: &Tensor, b: &Tensor) -> f32 {
        assert_eq!(a.dims(), b.dims());
        let top = |t: &Tensor| t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
        top(&(a - b).unwrap()) / top(b).max(1e-6)
    }

    /// Compares values and all gradients of two ways to compute the same thing.
    pub fn same(vars: &[&Var], a: &Tensor, b: &Tensor, tolerance: f32) {
        assert!(difference(a, b) < tolerance, "values differ by {}", difference(a, b));
        let weights = random(a.dims(), 77);
        let grads = |t: &Tensor| (t * weights.as_detached_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
        let (ga, gb) = (grads(a), grads(b));
        for (i, v) in vars.iter().enumerate() {
            let (x, y) = (ga.get(v).expect("a gradient"), gb.get(v).expect("a gradient"));
            let d = difference(x, y);
            assert!(d < tolerance, "gradient {i} differs by {d}");
        }
    }
}
