//! Exact products of integer matrices.

use candle_core::{Device, Result, Tensor};

use super::carrier::Carrier;
use midspan::model::Linear;

/// A factor whose elements are split into two limbs, because the carrier cannot hold sums of whole
/// products.
struct Limbs {
    /// The value of one unit of the high limb.
    unit: i64,
    /// Values of 0 … unit − 1.
    low: Tensor,
    high: Tensor,
}

/// Splits integers below 2^47 into x = high · unit + low, as factors.
fn limbs(x: &Tensor, unit: i64) -> Result<Limbs> {
    // In i64 division rounds towards 0, so the numbers are made positive first.
    let carrier = Carrier::Single;
    let number = |value| carrier.tensor(std::iter::once(value), &[1], x.device());
    let (lift, unit_tensor) = (number(1 << 47)?, number(unit)?);
    let high = x.broadcast_add(&lift)?.broadcast_div(&unit_tensor)?.broadcast_sub(&number((1 << 47) / unit)?)?;
    let low = (x - high.broadcast_mul(&unit_tensor)?)?;
    Ok(Limbs { unit, low: low.to_dtype(carrier.factor())?, high: high.to_dtype(carrier.factor())? })
}

impl Limbs {
    /// The combined products of both limbs, as numbers.
    fn combine(&self, product: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let carrier = Carrier::Single;
        let unit = carrier.tensor(std::iter::once(self.unit), &[1], self.low.device())?;
        let whole = |factor: &Tensor| product(factor)?.to_dtype(carrier.number());
        whole(&self.low)? + whole(&self.high)?.broadcast_mul(&unit)?
    }
}

/// A linear layer's weights and biases (spec 5.1).
#[derive(Clone, Debug)]
pub(super) struct Weights {
    /// \[n, m\], factors.
    weight: Tensor,
    /// \[m\], numbers.
    bias: Tensor,
}

impl Weights {
    /// Stacks layers with the same inputs.
    pub(super) fn new(carrier: Carrier, layers: &[&Linear], device: &Device) -> Result<Weights> {
        let inputs = layers.first().map_or(0, |layer| layer.inputs);
        let rows = layers.iter().map(|layer| layer.outputs).sum();
        let weights: Vec<f32> = layers.iter().flat_map(|layer| layer.weight.iter().map(|w| f32::from(*w))).collect();
        // [m, n] → [n, m]
        let weight =
            Tensor::from_vec(weights, (rows, inputs), device)?.t()?.contiguous()?.to_dtype(carrier.factor())?;
        let bias = layers.iter().flat_map(|layer| layer.bias.iter().map(|b| i64::from(*b)));
        Ok(Weights { weight, bias: carrier.tensor(bias, &[rows], device)? })
    }

    /// The exact sums of \[T, n\] activations: \[T, m\]. \[NET-1\]
    pub(super) fn sums(&self, carrier: Carrier, x: &Tensor) -> Result<Tensor> {
        let products = match carrier {
            Carrier::Double => x.matmul(&self.weight)?,
            // Spec 5.1, Width: Σ|w| · 255 < 2^24 in each half.
            Carrier::Single => limbs(x, 256)?.combine(|half| half.matmul(&self.weight))?,
        };
        products.broadcast_add(&self.bias)
    }
}

/// How many terms of 63 · 2,047 can be added with a sum below 2^24.
const TERMS: usize = 128;

/// \[H, T, c\] × \[H, U, c\] → \[H, T, U\]: products of queries and keys, both within ± 2,047.
pub(super) fn scores(carrier: Carrier, q: &Tensor, k: &Tensor) -> Result<Tensor> {
    let length = q.dim(2)?;
    match carrier {
        Carrier::Double => q.matmul(&k.t()?.contiguous()?),
        Carrier::Single => in_parts(length, |from, len| {
            let k = k.narrow(2, from, len)?.to_dtype(carrier.factor())?.t()?.contiguous()?;
            limbs(&q.narrow(2, from, len)?.contiguous()?, 64)?.combine(|half| half.matmul(&k))
        }),
    }
}

/// \[H, T, U\] × \[H, U, c\] → \[H, T, c\]: sums of values within ± 2,047, weighted by 0 … 4,095.
pub(super) fn weighted(carrier: Carrier, e: &Tensor, v: &Tensor) -> Result<Tensor> {
    let length = e.dim(2)?;
    match carrier {
        Carrier::Double => e.matmul(&v.contiguous()?),
        Carrier::Single => in_parts(length, |from, len| {
            let v = v.narrow(1, from, len)?.contiguous()?.to_dtype(carrier.factor())?;
            limbs(&e.narrow(2, from, len)?.contiguous()?, 64)?.combine(|half| half.matmul(&v))
        }),
    }
}

/// The sum over parts of at most [`TERMS`] terms.
fn in_parts(length: usize, part: impl Fn(usize, usize) -> Result<Tensor>) -> Result<Tensor> {
    let mut sum = part(0, TERMS.min(length))?;
    for from in (TERMS..length).step_by(TERMS) {
        sum = (sum + part(from, TERMS.min(length - from))?)?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Varying values, including the largest.
    fn values(len: usize, low: i64, high: i64, seed: i64) -> Vec<i64> {
        (0..len as i64).map(|i| if i % 3 == 0 { high } else { low + (i * 7_919 + seed) % (high - low + 1) }).collect()
    }

    fn read(x: &Tensor) -> Vec<i64> {
        x.flatten_all().unwrap().to_dtype(candle_core::DType::I64).unwrap().to_vec1().unwrap()
    }

    /// \[H, A, n\] × \[H, B, n\] → \[H, A, B\].
    fn reference(a: &[i64], b: &[i64], (h, rows, columns, n): (usize, usize, usize, usize)) -> Vec<i64> {
        let at = |h: usize, i: usize, j: usize| -> i64 {
            (0..n).map(|x| a[(h * rows + i) * n + x] * b[(h * columns + j) * n + x]).sum()
        };
        (0..h).flat_map(|h| (0..rows).flat_map(move |i| (0..columns).map(move |j| at(h, i, j)))).collect()
    }

    #[test]
    fn sums_are_exact_where_f32_is_not() {
        let (h, rows, columns, n) = (2, 3, 5, 512);
        for (low, high) in [(-2_047, 2_047), (2_045, 2_047), (-2_047, -2_045)] {
            let (q, k) = (values(h * rows * n, low, high, 5), values(h * columns * n, -2_047, 2_047, 11));
            let e = values(h * rows * n, 0, 4_095, 3);
            for carrier in Carrier::ALL {
                let tensor = |values: &[i64], shape: &[usize]| {
                    carrier.tensor(values.iter().copied(), shape, &Device::Cpu).unwrap()
                };
                let keys = tensor(&k, &[h, columns, n]);
                let found = scores(carrier, &tensor(&q, &[h, rows, n]), &keys).unwrap();
                assert_eq!(read(&found), reference(&q, &k, (h, rows, columns, n)), "{carrier:?}");
                // [H, B, n] → [H, n, B]
                let found = weighted(carrier, &tensor(&e, &[h, rows, n]), &keys.transpose(1, 2).unwrap()).unwrap();
                assert_eq!(read(&found), reference(&e, &k, (h, rows, columns, n)), "{carrier:?}");
            }
        }
    }

    #[test]
    fn rows_at_their_bound_are_exact() {
        // 516 weights of 127 and a bias: Σ|w| is at its bound.
        let n = 516;
        let weight: Vec<i8> = (0..n).map(|i| if i % 5 == 0 { -127 } else { 127 }).collect();
        let layer = Linear {
            inputs: n,
            outputs: 1,
            weight: weight.clone(),
            bias: vec![-98_301],
            multiplier: vec![1],
            shift: vec![1],
        };
        for x in [values(n, -32_767, 32_767, 1), values(n, 32_765, 32_767, 2), vec![-32_767; n]] {
            let expected = weight.iter().zip(&x).map(|(w, x)| i64::from(*w) * x).sum::<i64>() - 98_301;
            for carrier in Carrier::ALL {
                let weights = Weights::new(carrier, &[&layer], &Device::Cpu).unwrap();
                let x = carrier.tensor(x.iter().copied(), &[1, n], &Device::Cpu).unwrap();
                assert_eq!(read(&weights.sums(carrier, &x).unwrap()), [expected], "{carrier:?}");
            }
        }
    }
}
