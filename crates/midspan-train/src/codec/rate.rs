//! Bits of an integer under a normal distribution integrated over its unit interval, accurate in
//! the tails.
//!
//! With u = |y − μ|, a = (u − ½)/σ and b = (u + ½)/σ the probability is Q(a) − Q(b). For a > 0 the
//! common factor exp(−a²/2) is taken out, so that neither the logarithm nor the gradients lose
//! precision. Error functions are those of the crate libm.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use midspan_host::ops::{cpu_values, fused, rows_of, values};

/// exp(x²) erfc(x) for x ≥ 0.
fn erfcx(x: f64) -> f64 {
    if x < FAR {
        (x * x).exp() * libm::erfc(x)
    } else {
        // The asymptotic series, before erfc underflows. The first term that is left out is below 1e-12.
        let s = 0.5 / (x * x);
        let series = 1.0 - s * (1.0 - 3.0 * s * (1.0 - 5.0 * s * (1.0 - 7.0 * s)));
        series / (x * std::f64::consts::PI.sqrt())
    }
}

/// From here on [`erfcx`] is a series.
const FAR: f64 = 25.0;

/// Bits, and their derivatives by y (which is minus that by μ) and by ln σ.
fn price(y: f64, mean: f64, sigma: f64) -> (f64, f64, f64) {
    use std::f64::consts::{FRAC_1_SQRT_2, LN_2, PI};
    let d = y - mean;
    let (u, inverse) = (d.abs(), 1.0 / sigma);
    let (a, b) = ((u - 0.5) * inverse, (u + 0.5) * inverse);
    let density = 1.0 / (2.0 * PI).sqrt();
    // ln p, φ(a)/p and φ(b)/p
    let (log, at_a, at_b) = if a > 0.0 {
        let ratio = (-0.5 * (b - a) * (b + a)).exp();
        let p = 0.5 * (erfcx(a * FRAC_1_SQRT_2) - ratio * erfcx(b * FRAC_1_SQRT_2));
        (p.ln() - 0.5 * a * a, density / p, density * ratio / p)
    } else {
        let p = 0.5 * (libm::erf(b * FRAC_1_SQRT_2) - libm::erf(a * FRAC_1_SQRT_2));
        let at = density / p;
        (p.ln(), at * (-0.5 * a * a).exp(), at * (-0.5 * b * b).exp())
    };
    // d ln p / du = (φ(b) − φ(a)) / (σ p), d ln p / d ln σ = (a φ(a) − b φ(b)) / p
    let by_u = (at_b - at_a) * inverse;
    let by_sigma = a * at_a - b * at_b;
    (-log / LN_2, -by_u * d.signum() / LN_2, -by_sigma / LN_2)
}

/// Bits of one integer under a normal density.
pub fn element_bits(y: f64, mean: f64, sigma: f64) -> f64 {
    price(y, mean, sigma).0
}

#[derive(Default)]
struct Rate {
    /// Derivatives by y and by log2 σ, from the forward pass.
    kept: Mutex<Option<(Vec<f32>, Vec<f32>)>>,
}

impl CustomOp3 for Rate {
    fn name(&self) -> &'static str {
        "normal-bits"
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
        if l1.dims() != l2.dims() || l1.dims() != l3.dims() {
            bail!(
                "normal-bits: Y is {:?}, the means {:?}, the scales {:?}: one shape wanted",
                l1.dims(),
                l2.dims(),
                l3.dims()
            );
        }
        let (rows, width) = rows_of(l1)?;
        let (y, mean, scale) = (values(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        let mut bits = Vec::with_capacity(rows);
        let (mut by_y, mut by_s) = (Vec::with_capacity(y.len()), Vec::with_capacity(y.len()));
        for ((y, mean), scale) in y.chunks_exact(width).zip(mean.chunks_exact(width)).zip(scale.chunks_exact(width)) {
            let mut sum = 0.0;
            for ((&y, &mean), &scale) in y.iter().zip(mean).zip(scale) {
                let (b, dy, ds) = price(y as f64, mean as f64, (scale as f64).exp2());
                sum += b;
                by_y.push(dy as f32);
                by_s.push((ds * std::f64::consts::LN_2) as f32);
            }
            bits.push(sum as f32);
        }
        if let Ok(mut kept) = self.kept.lock() {
            *kept = Some((by_y, by_s));
        }
        Ok((CpuStorage::F32(bits), Shape::from(&l1.dims()[..l1.dims().len() - 1])))
    }

    fn bwd(
        &self,
        y: &Tensor,
        mean: &Tensor,
        scale: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some((mut by_y, mut by_s)) = self.kept.lock().ok().and_then(|mut k| k.take()) else {
            bail!("normal-bits: the gradients were taken before");
        };
        let grad = grad.contiguous()?;
        let (gs, gl) = grad.storage_and_layout();
        let g = cpu_values(&gs, gl)?;
        let width = by_y.len() / g.len().max(1);
        let mut by_mean = vec![0f32; by_y.len()];
        for (i, &g) in g.iter().enumerate() {
            let at = i * width..(i + 1) * width;
            for (m, d) in by_mean[at.clone()].iter_mut().zip(&mut by_y[at.clone()]) {
                *d *= g;
                *m = -*d;
            }
            by_s[at].iter_mut().for_each(|v| *v *= g);
        }
        let make = |v: Vec<f32>, like: &Tensor| Tensor::from_vec(v, like.shape(), like.device()).map(Some);
        Ok((make(by_y, y)?, make(by_mean, mean)?, make(by_s, scale)?))
    }
}

/// Bits of each row of integers y `[.., width]` under normal distributions with the given means and
/// base-2 logarithms of scales (same shapes): `[..]`. f32 on the CPU only; its gradient can be taken
/// once.
///
/// # Errors
/// When the shapes differ or the tensors are not f32 on the CPU.
pub fn bits(y: &Tensor, mean: &Tensor, log2_scale: &Tensor) -> Result<Tensor> {
    if !fused(y) {
        bail!("normal-bits: only f32 on the CPU");
    }
    y.contiguous()?.apply_op3(&mean.contiguous()?, &log2_scale.contiguous()?, Rate::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn known_values() {
        // −log2 of Φ(½) − Φ(−½), Q(5.5) − Q(6.5), Q(11.5) − Q(12.5), and so on, worked out in 60 digits.
        let known = [
            (0.0, 1.384866534290989),
            (6.0, 25.6532724031308),
            (12.0, 100.25823769779798),
            (40.0, 1132.1129207658268),
            (1000.0, 720637.644073183),
        ];
        for (u, want) in known {
            let (b, _, _) = price(u + 3.0, 3.0, 1.0);
            assert!((b / want - 1.0).abs() < 1e-12, "{u}: {b} {want}");
        }
        for (x, want) in [(24.9, 0.022639987776049505), (25.0, 0.02254957243264136)] {
            assert!((erfcx(x) / want - 1.0).abs() < 1e-12, "{x}: {}", erfcx(x));
        }
        let (far, by_y, _) = price(1000.0, 0.0, 0.1);
        assert!(far.is_finite() && by_y.is_finite() && by_y > 0.0);
    }

    #[test]
    fn probabilities_add_up_to_one() {
        for (mean, sigma) in [(0.0, 0.1), (0.3, 0.5), (-0.49, 2.0), (0.5, 64.0)] {
            let total: f64 = (-1000..=1000).map(|y| (-price(y as f64, mean, sigma).0).exp2()).sum();
            assert!((total - 1.0).abs() < 1e-12, "{mean} {sigma}: {total}");
        }
    }

    #[test]
    fn gradients_match_differences_to_twelve_deviations() {
        for sigma in [0.1, 0.7, 3.0, 64.0] {
            for step in -60..=60 {
                let y = step as f64 * 0.2 * sigma;
                let (_, by_y, by_s) = price(y, 0.05, sigma);
                let e = 1e-3 * sigma;
                let diff = (price(y + e, 0.05, sigma).0 - price(y - e, 0.05, sigma).0) / (2.0 * e);
                let f = 1e-3f64;
                let ds = (price(y, 0.05, sigma * f.exp()).0 - price(y, 0.05, sigma * (-f).exp()).0) / (2.0 * f);
                let close = |a: f64, b: f64, unit: f64| (a - b).abs() < 1e-2 * b.abs() + 2e-2 * unit;
                assert!(close(by_y, diff, 1.0 / sigma), "y {y} {sigma}: {by_y} {diff}");
                assert!(close(by_s, ds, 1.0), "s {y} {sigma}: {by_s} {ds}");
            }
        }
    }

    #[test]
    fn the_operation_weights_rows_and_signs() {
        let make = |v: &[f32]| Var::from_slice(v, (2, 2), &Device::Cpu).unwrap();
        let (y, m, s) = (make(&[0.0, 3.0, -2.0, 1.0]), make(&[0.2, 1.0, 0.0, 1.5]), make(&[0.0, 1.0, -1.0, 0.5]));
        let out = bits(&y, &m, &s).unwrap();
        let weights = Tensor::new(&[1f32, -2.0], &Device::Cpu).unwrap();
        let grads = (&out * &weights).unwrap().sum_all().unwrap().backward().unwrap();
        let value = |m: f32, s: f32| price(1.0, m as f64, (s as f64).exp2()).0;
        let e = 1e-3;
        let by_mean = -2.0 * (value(1.5 + e, 0.5) - value(1.5 - e, 0.5)) / (2.0 * e as f64);
        let by_scale = -2.0 * (value(1.5, 0.5 + e) - value(1.5, 0.5 - e)) / (2.0 * e as f64);
        let get = |v: &Var| grads.get(v).unwrap().to_vec2::<f32>().unwrap()[1][1] as f64;
        assert!((get(&m) - by_mean).abs() < 1e-3 && (get(&y) + by_mean).abs() < 1e-3, "{} {by_mean}", get(&m));
        assert!((get(&s) - by_scale).abs() < 1e-3);
    }
}
