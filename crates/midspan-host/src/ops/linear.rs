//! `y = x Wᵀ`, with or without a residual added.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::gemm::{Rhs, mul};
use super::matrix::Mat;
use super::{cpu_values, fused, rows_of, values};

struct Linear;

fn shape_of(l: &Layout, out: usize) -> Shape {
    let mut dims = l.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = out;
    }
    Shape::from(dims)
}

/// (rows, inputs, outputs) of x and W.
pub fn sizes(x: &Layout, w: &Layout) -> Result<(usize, usize, usize)> {
    let (rows, input) = rows_of(x)?;
    match *w.dims() {
        [output, i] if i == input => Ok((rows, input, output)),
        _ => bail!("linear: input {:?}, weight {:?}", x.dims(), w.dims()),
    }
}

/// The gradients of x and W.
fn gradients(x: &Tensor, w: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
    let grad = grad.contiguous()?;
    let (xs, xl) = x.storage_and_layout();
    let (ws, wl) = w.storage_and_layout();
    let (gs, gl) = grad.storage_and_layout();
    let (rows, input, output) = sizes(xl, wl)?;
    let (xv, wv, g) = (cpu_values(&xs, xl)?, cpu_values(&ws, wl)?, cpu_values(&gs, gl)?);
    let mut dx = vec![0f32; rows * input];
    mul((rows, input, output), Mat::rows(g, output), Mat::rows(wv, input), &mut dx, input, false);
    let mut dw = vec![0f32; output * input];
    mul((output, input, rows), Mat::transposed(g, output), Mat::rows(xv, input), &mut dw, input, false);
    Ok((Tensor::from_vec(dx, x.shape(), x.device())?, Tensor::from_vec(dw, w.shape(), w.device())?))
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, input, output) = sizes(l1, l2)?;
        let (x, w) = (values(s1, l1)?, values(s2, l2)?);
        let mut y = vec![0f32; rows * output];
        let w = Rhs::new(input, output, Mat::transposed(w, input));
        w.mul((rows, output, input), Mat::rows(x, input), &mut y, output, false);
        Ok((CpuStorage::F32(y), shape_of(l1, output)))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = gradients(x, w, grad)?;
        Ok((Some(dx), Some(dw)))
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear-residual"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, input, output) = sizes(l1, l2)?;
        if rows_of(l3)? != (rows, output) {
            bail!("linear: residual {:?}, output {rows} x {output}", l3.dims());
        }
        let (x, w) = (values(s1, l1)?, values(s2, l2)?);
        let mut y = values(s3, l3)?.to_vec();
        let w = Rhs::new(input, output, Mat::transposed(w, input));
        w.mul((rows, output, input), Mat::rows(x, input), &mut y, output, true);
        Ok((CpuStorage::F32(y), l3.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = gradients(x, w, grad)?;
        Ok((Some(dx), Some(dw), Some(grad.clone())))
    }
}

/// `x Wᵀ` without a fused operation.
pub fn composed(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (rows, last) = rows_of(x.layout())?;
    let y = x.reshape((rows, last))?.matmul(&w.t()?)?;
    y.reshape(shape_of(x.layout(), w.dim(0)?))
}

/// `x Wᵀ`: x `[.., inputs]`, w `[outputs, inputs]`, result `[.., outputs]`.
///
/// # Errors
/// When the shapes do not fit.
pub fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op2(&w.contiguous()?, Linear);
    }
    composed(x, w)
}

/// `residual + x Wᵀ`: x `[.., inputs]`, w `[outputs, inputs]`, residual and result `[.., outputs]`.
///
/// # Errors
/// When the shapes do not fit.
pub fn linear_residual(x: &Tensor, w: &Tensor, residual: &Tensor) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op3(&w.contiguous()?, &residual.contiguous()?, Linear);
    }
    composed(x, w)? + residual
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{random, same};

    #[test]
    fn linear_matches_composed_operations() {
        let (x, w, r) = (random(&[2, 5, 24], 1), random(&[40, 24], 2), random(&[2, 5, 40], 3));
        let want = composed(&x, &w).unwrap();
        same(&[&x, &w], &linear(&x, &w).unwrap(), &want, 1e-5);
        let got = linear_residual(&x, &w, &r).unwrap();
        same(&[&x, &w, &r], &got, &(want + r.as_tensor()).unwrap(), 1e-5);
        assert!(linear(&x, &random(&[40, 23], 2)).is_err());
    }
}
