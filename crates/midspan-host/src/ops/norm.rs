//! RMS norm without gain, alone and followed by a linear map.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor};

use super::gemm::{Rhs, mul};
use super::matrix::Mat;
use super::{CHUNK, NORM_EPS, cpu_values, fused, linear, rows_of, values, vector};

struct Norm;

impl CustomOp1 for Norm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = rows_of(l)?;
        let x = values(s, l)?;
        let mut y = vec![0f32; x.len()];
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            vector::rms_norm(x, y);
        }
        Ok((CpuStorage::F32(y), l.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (xs, xl) = x.storage_and_layout();
        let (ys, yl) = res.storage_and_layout();
        let (gs, gl) = grad.storage_and_layout();
        let (_, width) = rows_of(xl)?;
        let (xv, y, g) = (cpu_values(&xs, xl)?, cpu_values(&ys, yl)?, cpu_values(&gs, gl)?);
        let mut dx = vec![0f32; xv.len()];
        for (i, d) in dx.chunks_exact_mut(width).enumerate() {
            let at = i * width..(i + 1) * width;
            let row = &xv[at.clone()];
            let r = 1.0 / (vector::dot(row, row) / width as f32 + NORM_EPS).sqrt();
            vector::rms_norm_grad(&y[at.clone()], r, &g[at], d);
        }
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

struct NormLinear;

impl CustomOp2 for NormLinear {
    fn name(&self) -> &'static str {
        "norm-linear"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, input, output) = linear::sizes(l1, l2)?;
        let (x, w) = (values(s1, l1)?, values(s2, l2)?);
        let w = Rhs::new(input, output, Mat::transposed(w, input));
        let mut y = vec![0f32; rows * output];
        let mut n = vec![0f32; CHUNK * input];
        for (x, y) in x.chunks(CHUNK * input).zip(y.chunks_mut(CHUNK * output)) {
            let m = x.len() / input;
            for (x, n) in x.chunks_exact(input).zip(n.chunks_exact_mut(input)) {
                vector::rms_norm(x, n);
            }
            w.mul((m, output, input), Mat::rows(&n, input), y, output, false);
        }
        let mut dims = l1.dims().to_vec();
        let last = dims.len() - 1;
        dims[last] = output;
        Ok((CpuStorage::F32(y), Shape::from(dims)))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (xs, xl) = x.storage_and_layout();
        let (ws, wl) = w.storage_and_layout();
        let (gs, gl) = grad.storage_and_layout();
        let (rows, input, output) = linear::sizes(xl, wl)?;
        let (xv, wv, g) = (cpu_values(&xs, xl)?, cpu_values(&ws, wl)?, cpu_values(&gs, gl)?);
        let mut dx = vec![0f32; rows * input];
        let mut dw = vec![0f32; output * input];
        let (mut n, mut dn) = (vec![0f32; CHUNK * input], vec![0f32; CHUNK * input]);
        let mut factors = vec![0f32; CHUNK];
        let wr = Rhs::new(output, input, Mat::rows(wv, input));
        for (i, dx) in dx.chunks_mut(CHUNK * input).enumerate() {
            let m = dx.len() / input;
            let x = &xv[i * CHUNK * input..][..m * input];
            let g = &g[i * CHUNK * output..][..m * output];
            for ((x, n), r) in x.chunks_exact(input).zip(n.chunks_exact_mut(input)).zip(&mut factors) {
                *r = vector::rms_norm(x, n);
            }
            let n = &n[..m * input];
            mul((output, input, m), Mat::transposed(g, output), Mat::rows(n, input), &mut dw, input, true);
            wr.mul((m, input, output), Mat::rows(g, output), &mut dn, input, false);
            for (j, dx) in dx.chunks_exact_mut(input).enumerate() {
                let at = j * input..(j + 1) * input;
                vector::rms_norm_grad(&n[at.clone()], factors[j], &dn[at], dx);
            }
        }
        let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
        let dw = Tensor::from_vec(dw, w.shape(), w.device())?;
        Ok((Some(dx), Some(dw)))
    }
}

/// RMS norm over the last dimension without a fused operation.
pub fn composed(x: &Tensor) -> Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean + NORM_EPS as f64)?.sqrt()?)
}

/// `x / sqrt(mean(x²) + ε)` over the last dimension; any shape `[.., width]`.
///
/// # Errors
/// When `x` is a scalar.
pub fn rms_norm(x: &Tensor) -> Result<Tensor> {
    if fused(x) { x.contiguous()?.apply_op1(Norm) } else { composed(x) }
}

/// [`rms_norm`] followed by a linear map: x `[.., inputs]`, w `[outputs, inputs]`.
///
/// # Errors
/// When the shapes do not fit.
pub fn norm_linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op2(&w.contiguous()?, NormLinear);
    }
    linear::composed(&composed(x)?, w)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{random, same};

    #[test]
    fn norms_match_composed_operations() {
        let (x, w) = (random(&[3, 200, 24], 1), random(&[40, 24], 2));
        same(&[&x], &rms_norm(&x).unwrap(), &composed(&x).unwrap(), 1e-5);
        let want = linear::composed(&composed(&x).unwrap(), &w).unwrap();
        same(&[&x, &w], &norm_linear(&x, &w).unwrap(), &want, 1e-5);
    }
}
