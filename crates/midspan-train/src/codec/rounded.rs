//! Weights as they will be frozen, in training: int8 by rows, straight through for the gradient.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::super::freeze::network::quantise_row;
use midspan_host::ops::{rows_of, values};

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

/// A weight `[outputs, inputs]` rounded as [`quantise_row`] rounds each row; the gradient passes as if nothing had
/// happened. f32 on the CPU only.
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
