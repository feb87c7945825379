//! Integers in tensors: the operations of the exact network other than matrix products.

use candle_core::{DType, Device, Result, Tensor};

/// How tensors hold integers.
///
/// Both are exact on every device whose float additions, multiplications and conversions are those of IEEE 754; no
/// operation here depends on the order of a sum, on fused operations or on the rounding of a transcendental function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Carrier {
    /// Everything in f64, which holds every intermediate value of spec chapter 5. For the CPU and CUDA.
    Double,
    /// Matrix products in f32, with factors that are split so that no sum exceeds 24 bits; everything else in i64. For
    /// devices without f64 (Metal).
    Single,
}

impl Carrier {
    /// Every carrier.
    pub const ALL: [Carrier; 2] = [Carrier::Double, Carrier::Single];

    /// The carrier for a device.
    #[must_use]
    pub fn for_device(device: &Device) -> Carrier {
        if device.is_metal() { Carrier::Single } else { Carrier::Double }
    }

    /// The type of tensors of integers.
    pub fn number(self) -> DType {
        match self {
            Carrier::Double => DType::F64,
            Carrier::Single => DType::I64,
        }
    }

    /// The type of the factors of a matrix product.
    pub fn factor(self) -> DType {
        match self {
            Carrier::Double => DType::F64,
            Carrier::Single => DType::F32,
        }
    }

    /// A tensor of integers below 2^53.
    pub fn tensor(self, values: impl Iterator<Item = i64>, shape: &[usize], device: &Device) -> Result<Tensor> {
        match self {
            Carrier::Double => Tensor::from_vec(values.map(|v| v as f64).collect(), shape, device),
            Carrier::Single => Tensor::from_vec(values.collect::<Vec<i64>>(), shape, device),
        }
    }

    fn constant(self, value: i64, device: &Device) -> Result<Tensor> {
        self.tensor(std::iter::once(value), &[1], device)
    }

    /// x / `divisor`, rounded down, for |x| < 2^47 and `divisor` a power of two up to 2^46, or its tensor.
    fn shifted(self, x: &Tensor, divisor: &Tensor) -> Result<Tensor> {
        match self {
            // The quotient has the same mantissa as x, so it is exact.
            Carrier::Double => x.broadcast_div(divisor)?.floor(),
            // Integer division drops the fraction, which rounds down for numbers ≥ 0. 2^47 is a multiple of the
            // divisor, so it can be added first.
            Carrier::Single => {
                let lift = self.constant(1 << 47, x.device())?;
                x.broadcast_add(&lift)?.broadcast_div(divisor)?.broadcast_sub(&lift.broadcast_div(divisor)?)
            }
        }
    }

    /// Spec 1.1: round_shift by shifts up to 46, given as powers of two.
    pub fn round_shift(self, x: &Tensor, power: &Power) -> Result<Tensor> {
        self.shifted(&x.broadcast_add(&power.half)?, &power.whole)
    }

    /// Limits x to both bounds.
    pub fn clamp(self, x: &Tensor, low: &Tensor, high: &Tensor) -> Result<Tensor> {
        x.broadcast_maximum(low)?.broadcast_minimum(high)
    }

    /// floor(numerator / x) for 0 ≤ numerator ≤ 2^46 and x ≥ 1: a quotient that is not an integer is at least 1 / x
    /// below the next one, and f64 rounds it by at most 2^46 / x · 2^−53.
    pub fn divide(self, numerator: &Tensor, x: &Tensor) -> Result<Tensor> {
        let quotient = numerator.broadcast_div(x)?;
        match self {
            Carrier::Double => quotient.floor(),
            Carrier::Single => Ok(quotient),
        }
    }

    /// max(1, isqrt(x)) for 0 ≤ x < 2^51.
    pub fn square_root(self, x: &Tensor) -> Result<Tensor> {
        let one = self.constant(1, x.device())?;
        match self {
            // For n below 2^26 the root of n² − 1 differs from n by more than a unit of f64's last place.
            Carrier::Double => x.sqrt()?.floor()?.broadcast_maximum(&one),
            // A Newton step in integers never gives less than the root, and at most 1 more if the estimate r is off by
            // less than √(2r). In f32 the estimate is off by some 2^−23 of r < 2^26, or little more if the square root
            // is inexact.
            Carrier::Single => {
                let x = &x.broadcast_maximum(&one)?;
                let rough = x.to_dtype(DType::F32)?.sqrt()?.to_dtype(DType::I64)?.broadcast_maximum(&one)?;
                let two = self.constant(2, x.device())?;
                let root = (&rough + x.div(&rough)?)?.broadcast_div(&two)?;
                let too_large = root.mul(&root)?.gt(x)?;
                too_large.where_cond(&root.broadcast_sub(&one)?, &root)
            }
        }
    }
}

/// 2^s and 2^(s − 1) for shifts s ≥ 1.
#[derive(Clone, Debug)]
pub struct Power {
    whole: Tensor,
    half: Tensor,
}

impl Power {
    /// For shifts, as a tensor of this shape.
    pub fn new(carrier: Carrier, shifts: &[u8], shape: &[usize], device: &Device) -> Result<Power> {
        let power = |less: u8| carrier.tensor(shifts.iter().map(|s| 1i64 << (s - less)), shape, device);
        Ok(Power { whole: power(0)?, half: power(1)? })
    }

    /// Some of the rows.
    pub fn rows(&self, rows: &Tensor) -> Result<Power> {
        Ok(Power { whole: self.whole.index_select(rows, 0)?, half: self.half.index_select(rows, 0)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(carrier: Carrier, values: &[i64]) -> Tensor {
        carrier.tensor(values.iter().copied(), &[values.len()], &Device::Cpu).unwrap()
    }

    fn read(x: &Tensor) -> Vec<i64> {
        match x.dtype() {
            DType::I64 => x.to_vec1().unwrap(),
            _ => x.to_vec1::<f64>().unwrap().iter().map(|x| *x as i64).collect(),
        }
    }

    #[test]
    fn shifts_round_as_the_spec_says() {
        let edges = [0, 1, -1, 5, -5, 6, -6, 7, (1 << 46) - 1, 1 - (1 << 46), 123_456_789_012, -123_456_789_012];
        for carrier in Carrier::ALL {
            for shift in [1u8, 2, 20, 31, 45, 46] {
                let power = Power::new(carrier, &[shift], &[1], &Device::Cpu).unwrap();
                let found = carrier.round_shift(&numbers(carrier, &edges), &power).unwrap();
                let expected: Vec<i64> = edges.iter().map(|x| (x + (1 << (shift - 1))) >> shift).collect();
                assert_eq!(read(&found), expected, "{carrier:?} {shift}");
            }
        }
    }

    #[test]
    fn roots_and_quotients_are_rounded_down() {
        let mut values: Vec<i64> = (0..2_000).collect();
        for root in [100_i64, 4_095, 65_535, 1 << 20, 11_863_283, 47_453_132, (1 << 25) + 1] {
            values.extend([root * root - 1, root * root, root * root + 1, root * root + 2 * root]);
        }
        values.retain(|x| *x < 1 << 51);
        let expected: Vec<i64> = values.iter().map(|x| x.isqrt().max(1)).collect();
        for carrier in Carrier::ALL {
            assert_eq!(read(&carrier.square_root(&numbers(carrier, &values)).unwrap()), expected, "{carrier:?}");
            for numerator in [1_i64, 3, 1 << 36, (1 << 46) - 1, 1 << 46] {
                let divisors: Vec<i64> = (1..3_000).chain([4_095 * 4_096, (1 << 26) - 1]).collect();
                let found = carrier.divide(&numbers(carrier, &[numerator]), &numbers(carrier, &divisors)).unwrap();
                let expected: Vec<i64> = divisors.iter().map(|d| numerator / d).collect();
                assert_eq!(read(&found), expected, "{carrier:?} {numerator}");
            }
        }
    }
}
