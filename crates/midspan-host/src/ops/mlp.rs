//! A block's second half: `x + W_down min(gelu(W_up norm(x)), most)`.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::gemm::{Rhs, mul};
use super::matrix::Mat;
use super::{CHUNK, cpu_values, fused, linear, norm, rows_of, values, vector};

struct Mlp {
    /// The activation saturates here; infinite if it does not saturate.
    most: f32,
}

/// (rows, width, inner width) of x, W_up and W_down.
fn sizes(x: &Layout, up: &Layout, down: &Layout) -> Result<(usize, usize, usize)> {
    let (rows, width) = rows_of(x)?;
    match (up.dims(), down.dims()) {
        (&[inner, a], &[b, c]) if a == width && b == width && c == inner => Ok((rows, width, inner)),
        (u, d) => bail!("mlp: input {:?}, up {u:?}, down {d:?}", x.dims()),
    }
}

impl CustomOp3 for Mlp {
    fn name(&self) -> &'static str {
        "mlp"
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
        let (_, width, inner) = sizes(l1, l2, l3)?;
        let (x, up, down) = (values(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        let up = Rhs::new(width, inner, Mat::transposed(up, width));
        let down = Rhs::new(inner, width, Mat::transposed(down, inner));
        let mut y = x.to_vec();
        let (mut n, mut u) = (vec![0f32; CHUNK * width], vec![0f32; CHUNK * inner]);
        for (x, y) in x.chunks(CHUNK * width).zip(y.chunks_mut(CHUNK * width)) {
            let m = x.len() / width;
            for (x, n) in x.chunks_exact(width).zip(n.chunks_exact_mut(width)) {
                vector::rms_norm(x, n);
            }
            up.mul((m, inner, width), Mat::rows(&n, width), &mut u, inner, false);
            for v in &mut u[..m * inner] {
                *v = vector::gelu(*v).min(self.most);
            }
            down.mul((m, width, inner), Mat::rows(&u, inner), y, width, true);
        }
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        up: &Tensor,
        down: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (xs, xl) = x.storage_and_layout();
        let (us, ul) = up.storage_and_layout();
        let (ds, dl) = down.storage_and_layout();
        let (gs, gl) = grad.storage_and_layout();
        let (_, width, inner) = sizes(xl, ul, dl)?;
        let (xv, uv, dv, gv) = (cpu_values(&xs, xl)?, cpu_values(&us, ul)?, cpu_values(&ds, dl)?, cpu_values(&gs, gl)?);
        let mut dx = gv.to_vec();
        let (mut d_up, mut d_down) = (vec![0f32; uv.len()], vec![0f32; dv.len()]);
        let up_in = Rhs::new(width, inner, Mat::transposed(uv, width));
        let up_back = Rhs::new(inner, width, Mat::rows(uv, width));
        let down_back = Rhs::new(width, inner, Mat::rows(dv, inner));
        let (mut n, mut dn) = (vec![0f32; CHUNK * width], vec![0f32; CHUNK * width]);
        let (mut u, mut du) = (vec![0f32; CHUNK * inner], vec![0f32; CHUNK * inner]);
        let mut factors = vec![0f32; CHUNK];
        for (i, dx) in dx.chunks_mut(CHUNK * width).enumerate() {
            let m = dx.len() / width;
            let x = &xv[i * CHUNK * width..][..m * width];
            let g = &gv[i * CHUNK * width..][..m * width];
            for ((x, n), r) in x.chunks_exact(width).zip(n.chunks_exact_mut(width)).zip(&mut factors) {
                *r = vector::rms_norm(x, n);
            }
            let n = &n[..m * width];
            up_in.mul((m, inner, width), Mat::rows(n, width), &mut u, inner, false);
            down_back.mul((m, inner, width), Mat::rows(g, width), &mut du, inner, false);
            for (u, du) in u[..m * inner].iter_mut().zip(&mut du[..m * inner]) {
                let (y, d) = vector::gelu_grad(*u);
                *u = y.min(self.most);
                *du *= if y > self.most { 0.0 } else { d };
            }
            let (u, du) = (&u[..m * inner], &du[..m * inner]);
            mul((width, inner, m), Mat::transposed(g, width), Mat::rows(u, inner), &mut d_down, inner, true);
            mul((inner, width, m), Mat::transposed(du, inner), Mat::rows(n, width), &mut d_up, width, true);
            up_back.mul((m, width, inner), Mat::rows(du, inner), &mut dn, width, false);
            for (j, dx) in dx.chunks_exact_mut(width).enumerate() {
                let at = j * width..(j + 1) * width;
                vector::rms_norm_grad(&n[at.clone()], factors[j], &dn[at], dx);
            }
        }
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), x.device())?),
            Some(Tensor::from_vec(d_up, up.shape(), up.device())?),
            Some(Tensor::from_vec(d_down, down.shape(), down.device())?),
        ))
    }
}

/// [`saturating_mlp`] from candle's operations, for other types and devices, and to compare with.
///
/// # Errors
/// When the shapes do not fit.
pub fn composed(x: &Tensor, up: &Tensor, down: &Tensor, most: f32) -> Result<Tensor> {
    let u = linear::composed(&norm::composed(x)?, up)?.gelu()?;
    let u = if most.is_finite() { u.minimum(most)? } else { u };
    linear::composed(&u, down)? + x
}

/// `x + W_down gelu(W_up norm(x))`: x `[.., width]`, up `[inner, width]`, down `[width, inner]`.
///
/// # Errors
/// When the shapes do not fit.
pub fn mlp(x: &Tensor, up: &Tensor, down: &Tensor) -> Result<Tensor> {
    saturating_mlp(x, up, down, f32::INFINITY)
}

/// [`mlp`] with an activation that saturates at `most`, as a table of limited range does.
///
/// # Errors
/// When the shapes do not fit.
pub fn saturating_mlp(x: &Tensor, up: &Tensor, down: &Tensor, most: f32) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op3(&up.contiguous()?, &down.contiguous()?, Mlp { most });
    }
    composed(x, up, down, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{random, same};

    #[test]
    fn mlp_matches_composed_operations() {
        let (x, up, down) = (random(&[2, 150, 24], 1), random(&[96, 24], 2), random(&[24, 96], 3));
        for most in [f32::INFINITY, 0.7] {
            let want = composed(&x, &up, &down, most).unwrap();
            same(&[&x, &up, &down], &saturating_mlp(&x, &up, &down, most).unwrap(), &want, 1e-4);
        }
    }
}
