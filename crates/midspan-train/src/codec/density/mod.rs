//! Densities of integers, separate for each channel. They code W, and Y in models without W.

pub mod deep;
pub mod fourier;

use candle_core::{DType, Result, Tensor};

/// A slope is measured between the points at this distance on each side.
const NEAR: f64 = 1.0 / 16.0;

/// A density for each channel.
pub trait Density: Send + Sync {
    /// −ln of the mass of the unit interval around x, `[channels, n]` both.
    ///
    /// # Errors
    /// When the shapes do not fit.
    fn nats(&self, x: &Tensor) -> Result<Tensor>;
}

/// Bits of each frame of integers `[batch, T, channels]`: `[batch, T]` (paper, equation 1).
///
/// If there are fewer integers between the smallest and the largest value than there are frames, each integer's mass is
/// computed once and looked up. The gradient of a value is then the slope between two nearby points.
///
/// # Errors
/// When the shapes do not fit.
pub fn bits(density: &dyn Density, values: &Tensor) -> Result<Tensor> {
    let (batch, time, channels) = values.dims3()?;
    let n = batch * time;
    let x = values.reshape((n, channels))?.t()?.contiguous()?; // [channels, n]
    let fixed = x.detach();
    let (low, high) = (fixed.min_all()?.to_scalar::<f32>()?, fixed.max_all()?.to_scalar::<f32>()?);
    let whole = (fixed.round()? - &fixed)?.abs()?.max_all()?.to_scalar::<f32>()? == 0.0;
    let nats = if whole && high - low < n as f32 {
        let count = (high - low) as usize + 1;
        let integers = Tensor::arange(0.0, count as f32, x.device())?.affine(1.0, f64::from(low))?;
        let integers = integers.unsqueeze(0)?.broadcast_as((channels, count))?.contiguous()?; // [channels, count]
        let table = density.nats(&integers)?;
        let slopes = (density.nats(&(&integers + NEAR)?)? - density.nats(&(&integers - NEAR)?)?)?;
        let slopes = (slopes.detach() / (2.0 * NEAR))?;
        let places = fixed.affine(1.0, -f64::from(low))?.to_dtype(DType::U32)?;
        let slope = slopes.gather(&places, 1)?;
        // [channels, count] -> [channels, n]; the added term is 0 and carries the gradient.
        (table.gather(&places, 1)? + (&x - &fixed)?.mul(&slope)?)?
    } else {
        density.nats(&x)?
    };
    (nats.sum(0)? / std::f64::consts::LN_2)?.reshape((batch, time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use candle_core::{Device, Var};
    use candle_nn::VarBuilder;
    use std::collections::HashMap;

    #[test]
    fn looked_up_masses_and_gradients_are_those_of_every_value_by_itself() {
        let vars: HashMap<String, Var> = deep::init(2, &mut Rng::new(4))
            .unwrap()
            .into_iter()
            .map(|(name, t)| (name, Var::from_tensor(&t).unwrap()))
            .collect();
        let tensors: HashMap<String, Tensor> = vars.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone())).collect();
        let density = deep::Deep::new(2, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)).unwrap();
        let mut rng = Rng::new(5);
        // Thirty frames between −9 and 9 are looked up. Five of them at a time are computed value by value.
        let values: Vec<f32> = (0..60).map(|_| rng.below(19) as f32 - 9.0).collect();
        let many = Var::from_slice(&values, (2, 15, 2), &Device::Cpu).unwrap();
        let prices = bits(&density, &many).unwrap();
        let grads = prices.sum_all().unwrap().backward().unwrap();
        let of_values = grads.get(&many).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let prices = prices.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut sums: HashMap<&str, Vec<f32>> = HashMap::new();
        for part in 0..6 {
            let few = Var::from_slice(&values[10 * part..][..10], (1, 5, 2), &Device::Cpu).unwrap();
            let price = bits(&density, &few).unwrap();
            let each = price.sum_all().unwrap().backward().unwrap();
            for (i, v) in price.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().enumerate() {
                assert!((v - prices[5 * part + i]).abs() < 1e-3, "{v} {}", prices[5 * part + i]);
            }
            for (i, g) in each.get(&few).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().enumerate() {
                assert!((g - of_values[10 * part + i]).abs() < 1e-2, "{g} {}", of_values[10 * part + i]);
            }
            for (name, var) in &vars {
                let g = each.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let sum = sums.entry(name).or_insert_with(|| vec![0.0; g.len()]);
                sum.iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
            }
        }
        for (name, sum) in sums {
            let got = grads.get(&vars[name]).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(
                got.iter().zip(&sum).all(|(a, b)| (a - b).abs() < 1e-2 + 1e-3 * b.abs()),
                "{name}: {got:?} {sum:?}"
            );
        }
    }
}
