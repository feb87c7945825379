//! Rounding to integers with a learned step and offset per channel; in training the gradient passes straight through.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::fixed::{FixedQuantiser, SparsePair, constant};
use super::rate::element_bits;
use midspan_host::ops::{cpu_values, linear};

/// Standard deviation of Y at the start.
pub const START: f32 = 2.0;

/// A step and an offset for each channel.
#[derive(Clone, Debug)]
pub struct Quantiser {
    log_step: Tensor,
    offset: Tensor,
    maps: Maps,
}

/// The maps on each side of a quantiser.
#[derive(Clone, Debug)]
enum Maps {
    None,
    /// Analysis and synthesis, `[width, width]` each.
    Full(Tensor, Tensor),
    /// With them the quantiser is not learned.
    Sparse(FixedQuantiser),
}

/// How hidden states become integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Steps {
    /// A step and an offset for each channel, learned.
    #[default]
    Channels,
    /// One step for all channels and no offset, both fixed as at the start: the paper's plain rounding, for which the
    /// host learns the scale of its hidden states.
    One,
}

/// New weights from mean and standard deviation of each channel. Linear maps begin as identities.
///
/// # Errors
/// When a tensor cannot be made.
pub fn init(mean: &[f32], std: &[f32], steps: Steps, maps: bool) -> Result<BTreeMap<String, Tensor>> {
    let (step, offset): (Vec<f32>, Vec<f32>) = match steps {
        Steps::Channels => (std.to_vec(), mean.to_vec()),
        Steps::One => {
            let mean_square = std.iter().map(|s| s * s).sum::<f32>() / std.len().max(1) as f32;
            (vec![mean_square.sqrt(); std.len()], vec![0.0; mean.len()])
        }
    };
    let log_step: Vec<f32> = step.iter().map(|s| (s.max(1e-4) / START).ln()).collect();
    let mut out = BTreeMap::from([
        ("log_step".to_string(), Tensor::new(log_step, &Device::Cpu)?),
        ("offset".to_string(), Tensor::new(offset, &Device::Cpu)?),
    ]);
    if maps {
        for name in ["analysis", "synthesis"] {
            out.insert(name.to_string(), Tensor::eye(mean.len(), DType::F32, &Device::Cpu)?);
        }
    }
    Ok(out)
}

/// Rounds to integers; the gradient passes unchanged.
///
/// # Errors
/// On a device failure.
pub fn round(x: &Tensor) -> Result<Tensor> {
    let fixed = x.detach();
    x + (fixed.round()? - fixed)?.detach()
}

/// The nearest integer to `x`, or the next nearest one if that saves enough bits (spec 6.8). `saved` gets both and
/// returns the bits that the second saves.
pub fn choose(x: f32, weight: f64, saved: impl FnOnce(f32, f32) -> f64) -> f32 {
    let nearest = x.round_ties_even();
    let next = if x > nearest { nearest + 1.0 } else { nearest - 1.0 };
    // The squared distances differ by 1 − 2 · (distance to the nearest).
    let farther = f64::from(1.0 - 2.0 * (x - nearest).abs());
    if farther < weight * saved(nearest, next) { next } else { nearest }
}

/// The bits that the second of two integers saves, under a normal distribution. Moving away from the mean saves nothing.
pub(super) fn saved(mean: f32, log2_scale: f32) -> impl Fn(f32, f32) -> f64 {
    move |nearest, next| {
        let bits = |y: f32| element_bits(f64::from(y), f64::from(mean), f64::from(log2_scale).exp2());
        match (next > nearest) == (mean > nearest) {
            true => bits(nearest) - bits(next),
            false => 0.0,
        }
    }
}

/// Rounds to the nearest integer or, if that saves enough bits, to the next one towards the mean (spec 6.8). The
/// gradient passes unchanged. All shapes are the same; `weight` is in squared steps a bit.
///
/// # Errors
/// When the tensors are not f32 on the CPU.
pub fn round_by_rate(x: &Tensor, mean: &Tensor, log2_scale: &Tensor, weight: f64) -> Result<Tensor> {
    let (x_, mean, scale) = (x.detach().contiguous()?, mean.detach().contiguous()?, log2_scale.detach().contiguous()?);
    let rounded = {
        let ((xs, xl), (ms, ml), (ss, sl)) =
            (x_.storage_and_layout(), mean.storage_and_layout(), scale.storage_and_layout());
        let (x, mean, scale) = (cpu_values(&xs, xl)?, cpu_values(&ms, ml)?, cpu_values(&ss, sl)?);
        let choose = |((x, mean), scale): ((&f32, &f32), &f32)| choose(*x, weight, saved(*mean, *scale)) - x;
        x.iter().zip(mean).zip(scale).map(choose).collect::<Vec<f32>>()
    };
    x + Tensor::from_vec(rounded, x_.shape(), x_.device())?
}

impl Quantiser {
    /// The natural logarithm of the step, if all channels have the same one and there is no map before it.
    ///
    /// # Errors
    /// When the steps cannot be read.
    pub fn one_log_step(&self) -> Result<Option<f64>> {
        let steps = self.log_step.to_vec1::<f32>()?;
        let one =
            steps.first().filter(|first| matches!(self.maps, Maps::None) && steps.iter().all(|step| step == *first));
        Ok(one.map(|step| f64::from(*step)))
    }

    /// Takes `log_step` and `offset`, `[width]` each, and with maps `analysis` and `synthesis`, `[width, width]`.
    ///
    /// # Errors
    /// When one is missing or has another shape.
    pub fn new(width: usize, maps: bool, vb: VarBuilder) -> Result<Self> {
        let map = |name: &str| vb.get((width, width), name);
        Ok(Self {
            log_step: vb.get(width, "log_step")?,
            offset: vb.get(width, "offset")?,
            maps: if maps { Maps::Full(map("analysis")?, map("synthesis")?) } else { Maps::None },
        })
    }

    /// The same steps and offsets between these sparse maps. They are not learned then.
    ///
    /// # Errors
    /// When the steps cannot be read.
    pub fn with_sparse(self, maps: Arc<SparsePair>) -> Result<Self> {
        let (step, offset) = (self.log_step.exp()?.to_vec1()?, self.offset.to_vec1()?);
        Ok(Self { maps: Maps::Sparse(FixedQuantiser::new(maps, step, offset)), ..self })
    }

    /// The quantiser if it has sparse maps, so that no gradient passes it.
    pub(super) fn fixed(&self) -> Option<&FixedQuantiser> {
        match &self.maps {
            Maps::Sparse(fixed) => Some(fixed),
            _ => None,
        }
    }

    /// Hidden states `[.., width]` in steps, the same shape: the values to be rounded. With sparse maps they are those of
    /// which the nearest integers are taken.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn to_steps(&self, x: &Tensor) -> Result<Tensor> {
        let centred = |x: &Tensor| x.broadcast_sub(&self.offset);
        let mapped = match &self.maps {
            Maps::Sparse(fixed) => return constant(x, |x| fixed.to_steps(x)),
            Maps::Full(analysis, _) => linear(&centred(x)?, analysis)?,
            Maps::None => centred(x)?,
        };
        mapped.broadcast_mul(&self.log_step.neg()?.exp()?)
    }

    /// The hidden states reconstructed from Y, the same shape.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn reconstruct(&self, y: &Tensor) -> Result<Tensor> {
        let levels = |y: &Tensor| y.broadcast_mul(&self.log_step.exp()?);
        let mapped = match &self.maps {
            Maps::Sparse(fixed) => return constant(y, |y| Ok(fixed.reconstruct(y))),
            Maps::Full(_, synthesis) => linear(&levels(y)?, synthesis)?,
            Maps::None => levels(y)?,
        };
        mapped.broadcast_add(&self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;
    use std::collections::HashMap;

    #[test]
    fn a_bit_is_worth_some_distance_towards_the_mean_and_none_away_from_it() {
        let row = |values: &[f32]| Var::from_tensor(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap();
        // At σ = 1/2 and mean 0 the integers 1 and 0 cost 2.67 and 0.55 bits; 0.6 is 0.2 squared steps nearer to 1.
        let x = row(&[0.6, 0.6, -1.4, 0.45, 0.6]);
        let mean = row(&[0.0, 0.0, 0.0, 5.0, 0.7]);
        let scale = row(&[-1.0, 2.0, -1.0, -9.0, -1.0]);
        for (weight, expected) in
            [(0.0, [1., 1., -1., 0., 1.]), (0.09, [1., 1., -1., 1., 1.]), (0.1, [0., 1., -1., 1., 1.])]
        {
            let y = round_by_rate(&x, &mean, &scale, weight).unwrap();
            assert_eq!(y.to_vec1::<f32>().unwrap(), expected, "weight {weight}");
            let grads = y.sum_all().unwrap().backward().unwrap();
            assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>().unwrap(), [1.0; 5]);
            assert!(grads.get(&mean).is_none() && grads.get(&scale).is_none());
        }
    }

    #[test]
    fn maps_stand_on_either_side_of_the_steps() {
        let mut vars: HashMap<String, Tensor> =
            init(&[1.0, 0.0], &[2.0, 2.0], Steps::Channels, true).unwrap().into_iter().collect();
        let x = Tensor::new(&[[2.0f32, 5.0]], &Device::Cpu).unwrap();
        let quantiser = |vars: &HashMap<String, Tensor>| {
            Quantiser::new(2, true, VarBuilder::from_tensors(vars.clone(), DType::F32, &Device::Cpu)).unwrap()
        };
        assert_eq!(quantiser(&vars).to_steps(&x).unwrap().to_vec2::<f32>().unwrap(), [[1.0, 5.0]]);
        // A rotation by a right angle, and its inverse.
        vars.insert("analysis".into(), Tensor::new(&[[0.0f32, 1.0], [-1.0, 0.0]], &Device::Cpu).unwrap());
        vars.insert("synthesis".into(), Tensor::new(&[[0.0f32, -1.0], [1.0, 0.0]], &Device::Cpu).unwrap());
        let y = quantiser(&vars).to_steps(&x).unwrap();
        assert_eq!(y.to_vec2::<f32>().unwrap(), [[5.0, -1.0]]);
        assert_eq!(quantiser(&vars).reconstruct(&y).unwrap().to_vec2::<f32>().unwrap(), [[2.0, 5.0]]);
    }

    #[test]
    fn one_step_is_half_the_deviation_of_all_channels() {
        let parts = init(&[0.5, -3.0], &[1.0, 7.0], Steps::One, false).unwrap();
        assert_eq!(parts["log_step"].to_vec1::<f32>().unwrap(), [2.5_f32.ln(); 2]);
        assert_eq!(parts["offset"].to_vec1::<f32>().unwrap(), [0.0; 2]);
    }

    #[test]
    fn rounds_and_passes_gradients() {
        let x = Var::new(&[[0.9f32, -3.2], [0.2, 5.9]], &Device::Cpu).unwrap();
        let parts: HashMap<String, Tensor> =
            init(&[0.5, 0.0], &[1.0, 4.0], Steps::Channels, false).unwrap().into_iter().collect();
        let step = Var::from_tensor(&parts["log_step"]).unwrap();
        let vars = HashMap::from([
            ("log_step".to_string(), step.as_tensor().clone()),
            ("offset".to_string(), parts["offset"].clone()),
        ]);
        let q = Quantiser::new(2, false, VarBuilder::from_tensors(vars, DType::F32, &Device::Cpu)).unwrap();
        let y = round(&q.to_steps(&x).unwrap()).unwrap();
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
