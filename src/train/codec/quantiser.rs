//! Rounding to integers with a learned step and offset per channel, straight through in training.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;

/// Standard deviation of Y at the start.
const START: f32 = 2.0;

/// A step and an offset for each channel.
#[derive(Clone, Debug)]
pub struct Quantiser {
    log_step: Tensor,
    offset: Tensor,
}

/// Fresh weights from mean and standard deviation of each channel.
///
/// # Errors
/// When a tensor cannot be made.
pub fn init(mean: &[f32], std: &[f32]) -> Result<BTreeMap<String, Tensor>> {
    let log_step: Vec<f32> = std.iter().map(|s| (s.max(1e-4) / START).ln()).collect();
    Ok(BTreeMap::from([
        ("log_step".to_string(), Tensor::new(log_step, &Device::Cpu)?),
        ("offset".to_string(), Tensor::new(mean, &Device::Cpu)?),
    ]))
}

/// Rounds to integers; the gradient passes as if nothing had happened.
///
/// # Errors
/// On a device failure.
pub fn round(x: &Tensor) -> Result<Tensor> {
    let fixed = x.detach();
    x + (fixed.round()? - fixed)?.detach()
}

impl Quantiser {
    /// Takes `log_step` and `offset`, `[width]` each.
    ///
    /// # Errors
    /// When one is missing or has another shape.
    pub fn new(width: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self { log_step: vb.get(width, "log_step")?, offset: vb.get(width, "offset")? })
    }

    /// Y: hidden states `[.., width]` to integers (as floats), the same shape.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn quantise(&self, x: &Tensor) -> Result<Tensor> {
        let inverse = self.log_step.neg()?.exp()?;
        round(&x.broadcast_sub(&self.offset)?.broadcast_mul(&inverse)?)
    }

    /// Y back to hidden states, the same shape.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn reconstruct(&self, y: &Tensor) -> Result<Tensor> {
        y.broadcast_mul(&self.log_step.exp()?)?.broadcast_add(&self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Var};
    use std::collections::HashMap;

    #[test]
    fn rounds_and_passes_gradients() {
        let x = Var::new(&[[0.9f32, -3.2], [0.2, 5.9]], &Device::Cpu).unwrap();
        let parts: HashMap<String, Tensor> = init(&[0.5, 0.0], &[1.0, 4.0]).unwrap().into_iter().collect();
        let step = Var::from_tensor(&parts["log_step"]).unwrap();
        let vars = HashMap::from([
            ("log_step".to_string(), step.as_tensor().clone()),
            ("offset".to_string(), parts["offset"].clone()),
        ]);
        let q = Quantiser::new(2, VarBuilder::from_tensors(vars, DType::F32, &Device::Cpu)).unwrap();
        let y = q.quantise(&x).unwrap();
        assert_eq!(y.to_vec2::<f32>().unwrap(), [[1.0, -2.0], [-1.0, 3.0]]);
        let back = q.reconstruct(&y).unwrap();
        assert_eq!(back.to_vec2::<f32>().unwrap(), [[1.0, -4.0], [0.0, 6.0]]);
        let grads = back.sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&x).unwrap().to_vec2::<f32>().unwrap(), [[1.0, 1.0], [1.0, 1.0]]);
        // (Y - y) * step, summed over rows: 0.5 * (0.2 - 0.4), 2 * (-0.4 + 0.05)
        let g = grads.get(&step).unwrap().to_vec1::<f32>().unwrap();
        assert!((g[0] + 0.1).abs() < 1e-5 && (g[1] + 0.7).abs() < 1e-5, "{g:?}");
    }
}
