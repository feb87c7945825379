//! The deep factorized density of Ballé et al. (2018) per channel, with filters 3, 3, 3.
//!
//! The cumulative's logit is a chain of maps with positive matrices and `x + tanh(a) tanh(x)`.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::Density;
use crate::rng::Rng;

/// Inner widths from the input to the output.
const FILTERS: [usize; 5] = [1, 3, 3, 3, 1];

/// Width of the distribution at the start.
const START: f32 = 10.0;

/// A deep factorized density for each channel.
#[derive(Clone, Debug)]
pub struct Deep {
    matrices: Vec<Tensor>,
    biases: Vec<Tensor>,
    factors: Vec<Tensor>,
}

/// New weights.
///
/// # Errors
/// When a tensor cannot be made.
pub fn init(channels: usize, rng: &mut Rng) -> Result<BTreeMap<String, Tensor>> {
    init_as_wide(channels, START, rng)
}

/// New weights of distributions of this width.
///
/// # Errors
/// When a tensor cannot be made.
pub fn init_as_wide(channels: usize, width: f32, rng: &mut Rng) -> Result<BTreeMap<String, Tensor>> {
    let mut out = BTreeMap::new();
    let layers = FILTERS.len() - 1;
    let scale = width.powf(1.0 / layers as f32);
    for i in 0..layers {
        let (a, b) = (FILTERS[i], FILTERS[i + 1]);
        let start = (1.0 / scale / b as f32).exp_m1().ln();
        out.insert(format!("matrix{i}"), Tensor::full(start, (channels, b, a), &Device::Cpu)?);
        let bias: Vec<f32> = (0..channels * b).map(|_| rng.unit() - 0.5).collect();
        out.insert(format!("bias{i}"), Tensor::from_vec(bias, (channels, b, 1), &Device::Cpu)?);
        if i + 1 < layers {
            out.insert(format!("factor{i}"), Tensor::zeros((channels, b, 1), candle_core::DType::F32, &Device::Cpu)?);
        }
    }
    Ok(out)
}

/// ln(1 + e^x).
fn softplus(x: &Tensor) -> Result<Tensor> {
    x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?
}

impl Deep {
    /// Takes `matrix{i}` `[channels, out, in]`, `bias{i}` and `factor{i}` `[channels, out, 1]`.
    ///
    /// # Errors
    /// When one is missing or has another shape.
    pub fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        let mut new = Self { matrices: Vec::new(), biases: Vec::new(), factors: Vec::new() };
        for i in 0..FILTERS.len() - 1 {
            let (a, b) = (FILTERS[i], FILTERS[i + 1]);
            new.matrices.push(vb.get((channels, b, a), &format!("matrix{i}"))?);
            new.biases.push(vb.get((channels, b, 1), &format!("bias{i}"))?);
            if i + 2 < FILTERS.len() {
                new.factors.push(vb.get((channels, b, 1), &format!("factor{i}"))?);
            }
        }
        Ok(new)
    }

    /// The cumulative's logit at x `[channels, n]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.unsqueeze(1)?; // [channels, 1, n]
        for (i, (m, b)) in self.matrices.iter().zip(&self.biases).enumerate() {
            x = softplus(m)?.matmul(&x)?.broadcast_add(b)?; // [channels, out, n]
            if let Some(f) = self.factors.get(i) {
                x = (&x + x.tanh()?.broadcast_mul(&f.tanh()?)?)?;
            }
        }
        x.squeeze(1)
    }

    /// Probability of each integer `low..=high` of each channel, `[channels][integer]`, in f64 from
    /// f32 logits.
    ///
    /// # Errors
    /// On a device failure.
    pub fn table(&self, low: i32, high: i32) -> Result<Vec<Vec<f64>>> {
        let channels = self.matrices[0].dim(0)?;
        let edges: Vec<f32> = (low..=high + 1).map(|i| i as f32 - 0.5).collect();
        let n = edges.len();
        let x = Tensor::from_vec(edges, (1, n), &Device::Cpu)?.broadcast_as((channels, n))?.contiguous()?;
        let logits = self.logits(&x)?.to_vec2::<f32>()?;
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let pair = |l: f64, h: f64| sigmoid(h) * sigmoid(-l) * -(l - h).exp_m1();
        Ok(logits.iter().map(|row| row.windows(2).map(|p| pair(p[0] as f64, p[1] as f64)).collect()).collect())
    }
}

impl Density for Deep {
    fn nats(&self, x: &Tensor) -> Result<Tensor> {
        let n = x.dim(1)?;
        let both = Tensor::cat(&[&(x - 0.5)?, &(x + 0.5)?], 1)?;
        let logits = self.logits(&both)?;
        let (low, high) = (logits.narrow(1, 0, n)?, logits.narrow(1, n, n)?);
        // σ(high) − σ(low) = σ(high) σ(−low) (1 − e^(low − high)): exact in both tails
        let gap = (&high - &low)?.maximum(1e-6)?;
        let inside = (gap.neg()?.exp()?.affine(-1.0, 1.0)?).log()?;
        softplus(&high.neg()?)? + softplus(&low)? - inside
    }
}

#[cfg(test)]
mod tests {
    use super::super::bits;
    use super::*;
    use candle_core::{DType, Var};
    use std::collections::HashMap;

    fn density(channels: usize) -> (HashMap<String, Var>, Deep) {
        let mut rng = Rng::new(2);
        let vars: HashMap<String, Var> = init(channels, &mut rng)
            .unwrap()
            .into_iter()
            .map(|(n, t)| {
                let noise: Vec<f32> = (0..t.elem_count()).map(|_| 0.3 * rng.normal()).collect();
                let noise = Tensor::from_vec(noise, t.shape(), &Device::Cpu).unwrap();
                (n, Var::from_tensor(&(t + noise).unwrap()).unwrap())
            })
            .collect();
        let tensors = vars.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone())).collect();
        (vars, Deep::new(channels, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)).unwrap())
    }

    #[test]
    fn sums_to_one_and_agrees_with_its_table() {
        let (_, d) = density(3);
        let table = d.table(-400, 400).unwrap();
        for row in &table {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-3);
        }
        for w in [-40i32, -3, 0, 1, 25] {
            let x = Tensor::full(w as f32, (1, 1, 3), &Device::Cpu).unwrap();
            let bits = bits(&d, &x).unwrap().to_vec2::<f32>().unwrap()[0][0] as f64;
            let want: f64 = table.iter().map(|r| -r[(w + 400) as usize].log2()).sum();
            assert!((bits - want).abs() < 1e-2, "{w}: {bits} {want}");
        }
    }

    #[test]
    fn gradients_match_differences_far_into_the_tails() {
        let (vars, d) = density(2);
        let price = |v: f32| {
            let w = Var::new(&[[[v, 1.0f32]]], &Device::Cpu).unwrap();
            let b = bits(&d, &w).unwrap();
            let grads = b.sum_all().unwrap().backward().unwrap();
            for (name, var) in &vars {
                assert!(grads.get(var).is_some(), "{name} has no gradient");
            }
            let g = grads.get(&w).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
            (b.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0], g)
        };
        for v in [-300.0f32, -30.0, -2.0, 0.0, 5.0, 300.0] {
            let (b, g) = price(v);
            let e = 0.05;
            let want = (price(v + e).0 - price(v - e).0) / (2.0 * e);
            assert!(b.is_finite() && (g - want).abs() < 0.02 + 0.02 * want.abs(), "{v}: {b} {g} {want}");
        }
    }
}
