//! Links without a codec: raw 16-bit floats, or integers with a scale for each row, as runtimes without a learned codec
//! send them.

use candle_core::{DType, Tensor};

use super::{Carried, Link};
use crate::Error;

/// How a frame is sent without a codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// f16.
    Half,
    /// Signed integers of this many bits (2 … 8), and one f16 scale a frame.
    Integers(u32),
}

impl Rows {
    /// Bits of a frame of `width` values.
    pub fn bits(self, width: usize) -> f64 {
        match self {
            Rows::Half => 16.0 * width as f64,
            Rows::Integers(bits) => f64::from(bits) * width as f64 + 16.0,
        }
    }

    /// Name for tables.
    pub fn name(self) -> String {
        match self {
            Rows::Half => "raw f16".into(),
            Rows::Integers(bits) => format!("int{bits} rows"),
        }
    }

    /// Hidden states `[.., width]` after the link.
    ///
    /// # Errors
    /// On a device failure.
    pub fn carry(self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        let Rows::Integers(bits) = self else {
            return hidden.to_dtype(DType::F16)?.to_dtype(DType::F32);
        };
        let most = f64::from((1_i32 << (bits - 1)) - 1);
        let scale = (hidden.abs()?.max_keepdim(candle_core::D::Minus1)? / most)?;
        let scale = scale.to_dtype(DType::F16)?.to_dtype(DType::F32)?.maximum(1e-7)?;
        hidden.broadcast_div(&scale)?.round()?.clamp(-most, most)?.broadcast_mul(&scale)
    }
}

impl Link for Rows {
    fn carry(&self, hidden: &Tensor, _: &[u32]) -> Result<Carried, Error> {
        let (_, time, width) = hidden.dims3()?;
        let bits = Tensor::full(self.bits(width) as f32, (1, time), hidden.device())?;
        Ok(Carried { hidden: Rows::carry(*self, hidden)?, frames: vec![("bits", bits)] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn rows_have_their_own_scales() {
        let x = Tensor::new(&[[[7.0f32, -3.4, 0.4], [0.07, 0.034, 0.0]]], &Device::Cpu).unwrap();
        let out = Rows::Integers(4).carry(&x).unwrap().to_vec3::<f32>().unwrap();
        for (row, want) in out[0].iter().zip([[7.0, -3.0, 0.0], [0.07, 0.03, 0.0]]) {
            assert!(row.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-3 * b.abs() + 1e-6), "{row:?}");
        }
        let eight = Rows::Integers(8).carry(&x).unwrap();
        let distance = (&eight - &x).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(distance < 0.51 * 7.0 / 127.0, "{distance}");
        assert_eq!((Rows::Integers(8).bits(256), Rows::Half.bits(3)), (2064.0, 48.0));
        let half = Link::carry(&Rows::Half, &x, &[]).unwrap();
        assert_eq!(half.frames[0].1.to_vec2::<f32>().unwrap(), [[48.0; 2]]);
    }
}
