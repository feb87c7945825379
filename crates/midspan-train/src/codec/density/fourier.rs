//! The Fourier basis density of de la Fuente, Singh and Ballé (2024) per channel: the paper's first baseline (B.1).
//!
//! Let a_0 … a_{N−1} be complex coefficients. The function |Σ a_k e^{iπkz}|² is a Fourier series on (−1, 1) whose
//! coefficients are the autocorrelation c_m = Σ a_{k+m} ā_k. It is never below 0, and its integral is 2 c_0. The real
//! line is mapped to the interval by z = tanh((x − offset) / scale).

use std::collections::BTreeMap;
use std::f64::consts::PI;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::Density;
use crate::rng::Rng;

/// N: complex coefficients of a channel.
const COEFFICIENTS: usize = 60;
/// Points of the discrete transform that gives the autocorrelation: at least 2N − 1.
const POINTS: usize = 128;
/// Scale of the map at the start.
const START: f32 = 10.0;
/// The least mass, which is the smallest difference of two cumulatives that is still accurate. An integer beyond a
/// channel's support costs 39.9 bits and has no gradient.
const LEAST: f64 = 1e-12;

/// A Fourier basis density for each channel.
#[derive(Clone, Debug)]
pub struct Fourier {
    /// `[channels, 60]` each.
    real: Tensor,
    imaginary: Tensor,
    /// `[channels, 1]` each.
    offset: Tensor,
    log_scale: Tensor,
}

/// New weights: a nearly flat density on the interval.
///
/// # Errors
/// When a tensor cannot be made.
pub fn init(channels: usize, rng: &mut Rng) -> Result<BTreeMap<String, Tensor>> {
    let mut coefficients = |first: f32| {
        let values =
            (0..channels * COEFFICIENTS).map(|i| if i % COEFFICIENTS == 0 { first } else { 0.02 * rng.normal() });
        Tensor::from_vec(values.collect::<Vec<f32>>(), (channels, COEFFICIENTS), &Device::Cpu)
    };
    Ok(BTreeMap::from([
        ("real".to_string(), coefficients(1.0)?),
        ("imaginary".to_string(), coefficients(0.0)?),
        ("offset".to_string(), Tensor::zeros((channels, 1), DType::F32, &Device::Cpu)?),
        ("log_scale".to_string(), Tensor::full(START.ln(), (channels, 1), &Device::Cpu)?),
    ]))
}

/// `f(2π j k / POINTS)`, `[rows, columns]`, j and k from 0.
fn turns(rows: usize, columns: usize, f: impl Fn(f64) -> f64) -> Result<Tensor> {
    let angle = |i: usize| 2.0 * PI * ((i / columns * (i % columns)) % POINTS) as f64 / POINTS as f64;
    Tensor::from_vec((0..rows * columns).map(|i| f(angle(i))).collect::<Vec<f64>>(), (rows, columns), &Device::Cpu)
}

impl Fourier {
    /// Takes `real` and `imaginary` `[channels, 60]`, `offset` and `log_scale` `[channels, 1]`.
    ///
    /// # Errors
    /// When one is missing or has another shape.
    pub fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            real: vb.get((channels, COEFFICIENTS), "real")?,
            imaginary: vb.get((channels, COEFFICIENTS), "imaginary")?,
            offset: vb.get((channels, 1), "offset")?,
            log_scale: vb.get((channels, 1), "log_scale")?,
        })
    }

    /// c_1 … c_{N−1} over c_0: real and imaginary parts, `[channels, N − 1]` in f64.
    fn series(&self) -> Result<(Tensor, Tensor)> {
        let (a, b) = (self.real.to_dtype(DType::F64)?, self.imaginary.to_dtype(DType::F64)?);
        let (cos, sin) = (turns(COEFFICIENTS, POINTS, f64::cos)?, turns(COEFFICIENTS, POINTS, f64::sin)?);
        // The transform at angle θ is Σ a_k e^{−ikθ}; its squared magnitude, transformed back, is the autocorrelation.
        let real = (a.matmul(&cos)? + b.matmul(&sin)?)?; // [channels, POINTS]
        let imaginary = (b.matmul(&cos)? - a.matmul(&sin)?)?;
        let power = (real.sqr()? + imaginary.sqr()?)?;
        let mean = power.sum_keepdim(1)?; // POINTS · c_0, [channels, 1]
        let part = |turns: Tensor| -> Result<Tensor> {
            power.matmul(&turns.t()?)?.narrow(1, 1, COEFFICIENTS - 1)?.broadcast_div(&mean)
        };
        Ok((part(cos)?, part(sin)?))
    }
}

impl Density for Fourier {
    fn nats(&self, x: &Tensor) -> Result<Tensor> {
        let (channels, n) = x.dims2()?;
        let x = x.to_dtype(DType::F64)?;
        let edges = Tensor::cat(&[&(&x - 0.5)?, &(&x + 0.5)?], 1)?; // [channels, 2n]
        let (offset, scale) = (self.offset.to_dtype(DType::F64)?, self.log_scale.to_dtype(DType::F64)?.exp()?);
        let z = edges.broadcast_sub(&offset)?.broadcast_div(&scale)?.tanh()?;
        let (real, imaginary) = self.series()?;
        let order = Tensor::arange(1.0, COEFFICIENTS as f64, x.device())?.affine(PI, 0.0)?; // πm
        let over = |c: Tensor| c.broadcast_div(&order)?.unsqueeze(2); // [channels, N − 1, 1]
        let angle = z.unsqueeze(2)?.broadcast_mul(&order.reshape((1, 1, ()))?)?; // [channels, 2n, N − 1]
        // The integral of the series up to a constant, divided by c_0: z / 2 + Σ (Re c_m sin πmz + Im c_m cos πmz) /
        // πm.
        let waves = (angle.sin()?.matmul(&over(real)?)? + angle.cos()?.matmul(&over(imaginary)?)?)?;
        let integral = (waves.squeeze(2)? + (&z * 0.5)?)?;
        let mass = (integral.narrow(1, n, n)? - integral.narrow(1, 0, n)?)?;
        mass.maximum(LEAST)?.log()?.neg()?.to_dtype(DType::F32)?.reshape((channels, n))
    }
}

#[cfg(test)]
mod tests {
    use super::super::bits;
    use super::*;
    use candle_core::Var;
    use std::collections::HashMap;

    fn density(channels: usize, noise: f32) -> (HashMap<String, Var>, Fourier) {
        let mut rng = Rng::new(7);
        let vars: HashMap<String, Var> = init(channels, &mut rng)
            .unwrap()
            .into_iter()
            .map(|(name, t)| {
                let noise: Vec<f32> = (0..t.elem_count()).map(|_| noise * rng.normal()).collect();
                let noise = Tensor::from_vec(noise, t.shape(), &Device::Cpu).unwrap();
                (name, Var::from_tensor(&(t + noise).unwrap()).unwrap())
            })
            .collect();
        let tensors = vars.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone())).collect();
        (vars, Fourier::new(channels, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)).unwrap())
    }

    /// The density at z by its definition, with the integral taken numerically.
    fn by_definition(a: &[f32], b: &[f32], z: f64) -> f64 {
        let power = |z: f64| {
            let (mut re, mut im) = (0.0, 0.0);
            for (k, (a, b)) in a.iter().zip(b).enumerate() {
                let (sin, cos) = (PI * k as f64 * z).sin_cos();
                re += f64::from(*a) * cos - f64::from(*b) * sin;
                im += f64::from(*a) * sin + f64::from(*b) * cos;
            }
            re * re + im * im
        };
        // The mean over a period of a trigonometric polynomial is exact at enough equal steps.
        let mean = (0..400).map(|i| power(-1.0 + f64::from(i) / 200.0)).sum::<f64>() / 400.0;
        power(z) / (2.0 * mean)
    }

    #[test]
    fn masses_are_integrals_of_the_squared_series() {
        let (vars, d) = density(2, 0.1);
        let row = |name: &str| vars[name].to_vec2::<f32>().unwrap();
        let (a, b, offset, scale) = (row("real"), row("imaginary"), row("offset"), row("log_scale"));
        let x = Tensor::new(&[[-7.0f32, 0.0, 3.0], [1.0, 5.5, -20.0]], &Device::Cpu).unwrap();
        let nats = d.nats(&x).unwrap().to_vec2::<f32>().unwrap();
        for channel in 0..2 {
            let warp = |x: f64| ((x - f64::from(offset[channel][0])) / f64::from(scale[channel][0]).exp()).tanh();
            for (x, nats) in x.to_vec2::<f32>().unwrap()[channel].iter().zip(&nats[channel]) {
                let (low, high) = (warp(f64::from(*x) - 0.5), warp(f64::from(*x) + 0.5));
                let points = 2_000;
                let mass: f64 = (0..points)
                    .map(|i| low + (high - low) * (f64::from(i) + 0.5) / f64::from(points))
                    .map(|z| by_definition(&a[channel], &b[channel], z) * (high - low) / f64::from(points))
                    .sum();
                assert!((f64::from(*nats) + mass.ln()).abs() < 1e-4, "{x}: {nats} {}", -mass.ln());
            }
        }
    }

    #[test]
    fn sums_to_one_and_learns_everywhere() {
        let (vars, d) = density(3, 0.3);
        let all = Tensor::arange(-400f32, 401.0, &Device::Cpu).unwrap();
        let all = all.unsqueeze(0).unwrap().broadcast_as((3, 801)).unwrap().contiguous().unwrap();
        let total = d.nats(&all).unwrap().neg().unwrap().exp().unwrap().sum(1).unwrap().to_vec1::<f32>().unwrap();
        assert!(total.iter().all(|sum| (sum - 1.0).abs() < 1e-4), "{total:?}");
        let w = Var::new(&[[[1f32, -3.0, 0.0], [4.0, 0.0, 9.0]]], &Device::Cpu).unwrap();
        let grads = bits(&d, &w).unwrap().sum_all().unwrap().backward().unwrap();
        for (name, var) in vars.iter().map(|(n, v)| (n.as_str(), v)).chain([("w", &w)]) {
            let g = grads.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
            assert!(g.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.0, "{name}");
        }
    }
}
