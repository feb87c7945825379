//! Weights in training as they will be frozen: rounded to int8 by rows, while the gradient passes straight through.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use midspan_host::ops::{rows_of, values};

/// The row bound of [MODEL-4], in units of weights.
const ROW_BOUND: f64 = 65_535.0;

/// One row of weights as int8, and its scale. The largest weight becomes ±127, or less if the row bound requires it.
///
/// Freezing uses the same rule, so the weights that are trained are the weights that are frozen.
pub fn quantise_row(row: &[f32], bias: f64) -> (Vec<i8>, f64) {
    let top = row.iter().fold(0.0_f32, |top, weight| top.max(weight.abs()));
    let mut scale = f64::from(top.max(1e-12)) / 127.0;
    loop {
        let weights: Vec<i8> =
            row.iter().map(|weight| (f64::from(*weight) / scale).round().clamp(-127.0, 127.0) as i8).collect();
        let sum: f64 = weights.iter().map(|weight| f64::from(weight.unsigned_abs())).sum();
        // `bias` is in units of the input's largest integer, so that it counts like one more weight.
        let used = sum + (bias.abs() / scale).ceil();
        if used <= ROW_BOUND {
            return (weights, scale);
        }
        scale *= (used / ROW_BOUND).max(1.001);
    }
}

struct Rounded;

impl CustomOp1 for Rounded {
    fn name(&self) -> &'static str {
        "int8-rows"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = rows_of(layout)?;
        let mut out = Vec::with_capacity(layout.shape().elem_count());
        for row in values(storage, layout)?.chunks_exact(width.max(1)) {
            let (weights, scale) = quantise_row(row, 0.0);
            out.extend(weights.iter().map(|weight| (f64::from(*weight) * scale) as f32));
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.clone()))
    }
}

/// A weight `[outputs, inputs]` rounded as [`quantise_row`] rounds each row; the gradient passes unchanged. f32 on the
/// CPU only.
///
/// # Errors
/// When the weight is not f32 on the CPU.
pub fn rounded(weight: &Tensor) -> Result<Tensor> {
    weight.contiguous()?.apply_op1(Rounded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn a_row_obeys_the_bound() {
        let (weights, scale) = quantise_row(&vec![1.0; 3072], 0.5);
        let sum: i64 = weights.iter().map(|weight| i64::from(weight.unsigned_abs())).sum();
        assert!(sum <= 65_535 && sum > 60_000);
        assert!((f64::from(weights[0]) * scale - 1.0).abs() < 0.03);
        let (weights, _) = quantise_row(&[0.5, -1.0, 0.25], 0.0);
        assert_eq!(weights, [64, -127, 32]);
        assert_eq!(quantise_row(&[0.0; 4], 0.0).0, [0; 4]);
    }

    #[test]
    fn rows_round_to_what_is_frozen_and_gradients_pass() {
        let weight = Var::from_slice(&[1.27f32, 0.004, -0.5, 0.0, 0.02, -0.01], (2, 3), &Device::Cpu).unwrap();
        let out = rounded(&weight).unwrap();
        let rows = out.to_vec2::<f32>().unwrap();
        // Steps of 0.01 in the first row, of 0.02 / 127 in the second.
        for (got, want) in rows[0].iter().zip([1.27, 0.0, -0.5]) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
        assert!((rows[1][2] + 0.02 * 64.0 / 127.0).abs() < 1e-6, "{}", rows[1][2]);
        let grads = (out * 3.0).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&weight).unwrap().to_vec2::<f32>().unwrap(), [[3.0; 3]; 2]);
    }
}
