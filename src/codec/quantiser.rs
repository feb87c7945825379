//! From hidden states to Y and back: the only floats of the codec (spec 6.7, 6.8).
//!
//! Rust never contracts a product and a sum into one fused operation, so both directions give the same bits on every
//! target with IEEE 754 binary32.

use crate::error::{Error, ErrorKind};
use crate::wire::Dtype;

/// Quantises hidden states: `Y = clamp(rne((hidden − offset) · reciprocal_step), range)`, spec 6.8.
///
/// `hidden` is `[T, E]`, the three rows are `[E]`; appends `[T, E]` integers to `y`.
///
/// # Errors
/// [`ErrorKind::HiddenNotFinite`] if an element is NaN or infinite; `y` is left as it was.
pub fn quantise(
    hidden: &[f32],
    offset: &[f32],
    reciprocal_step: &[f32],
    range: (i16, i16),
    y: &mut Vec<i16>,
) -> Result<(), Error> {
    y.extend(nearest(&in_steps(hidden, offset, reciprocal_step)?, range));
    Ok(())
}

/// Hidden states in steps, `(hidden − offset) · reciprocal_step`: what is to be rounded.
///
/// Shapes as for [`quantise`]; gives `[T, E]`.
///
/// # Errors
/// [`ErrorKind::HiddenNotFinite`] if an element is NaN or infinite.
pub fn in_steps(hidden: &[f32], offset: &[f32], reciprocal_step: &[f32]) -> Result<Vec<f32>, Error> {
    if !hidden.iter().all(|value| value.is_finite()) {
        return Err(Error::new(ErrorKind::HiddenNotFinite, 0));
    }
    let mut x = Vec::with_capacity(hidden.len());
    for frame in hidden.chunks_exact(offset.len()) {
        x.extend(frame.iter().zip(offset).zip(reciprocal_step).map(|((value, offset), r)| (value - offset) * r));
    }
    Ok(x)
}

/// The integers nearest to `x`, halves to the even one, clamped to the range.
pub fn nearest(x: &[f32], range: (i16, i16)) -> impl Iterator<Item = i16> + '_ {
    let (low, high) = (f32::from(range.0), f32::from(range.1));
    // The clamp bounds the value to an i16; a product of finite numbers that overflows is an infinity, which the clamp
    // bounds too. It cannot be NaN: the reciprocal step is finite and positive.
    #[allow(clippy::cast_possible_truncation)]
    x.iter().map(move |x| x.round_ties_even().clamp(low, high) as i16)
}

/// Reconstructs hidden states: `f32(Y) · step + offset`, rounded after each of the two operations (spec 6.7).
///
/// `y` is `[T, E]`, `step` and `offset` are `[E]`; appends `[T, E]` values to `hidden`.
pub fn reconstruct(y: &[i16], step: &[f32], offset: &[f32], hidden: &mut Vec<f32>) {
    hidden.reserve(y.len());
    for frame in y.chunks_exact(step.len()) {
        hidden.extend(
            frame.iter().zip(step).zip(offset).map(|((value, step), offset)| f32::from(*value) * step + offset),
        );
    }
}

/// Reconstructs one frame from the means that g_y gives, in place of a lost target ([DEC-13]).
///
/// `means` is `[E]` in units of 1/64 step, each within ±2^20, so that its conversion and the division by 64 are exact.
pub fn reconstruct_from_means(means: &[i32], step: &[f32], offset: &[f32], hidden: &mut Vec<f32>) {
    hidden.reserve(means.len());
    hidden.extend(means.iter().zip(step).zip(offset).map(|((mean, step), offset)| {
        #[allow(clippy::cast_precision_loss)]
        let value = *mean as f32 / 64.0;
        value * step + offset
    }));
}

/// Little-endian values of a type as f32, exactly; a rest that is no whole value is left out.
pub fn to_f32(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|b| from_f16(u16::from_le_bytes(*b))).collect(),
        Dtype::Bf16 => {
            bytes.as_chunks().0.iter().map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16)).collect()
        }
    }
}

/// IEEE 754 binary16 to binary32: every value has an exact counterpart.
fn from_f16(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let fraction = f32::from(bits & 0x03FF);
    let value = match bits >> 10 & 0x1F {
        0 => fraction / 16_777_216.0, // fraction · 2^−24
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        // 2^(exponent − 15), from its bits: the biases of the two formats differ by 112.
        exponent => f32::from_bits(u32::from(exponent).wrapping_add(112) << 23) * (1.0 + fraction / 1024.0),
    };
    sign * value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_half_to_even_and_saturates() {
        let mut y = Vec::new();
        quantise(&[0.5, 1.5, -2.5, 1e30, -1e30, 0.49999997], &[0.0], &[1.0], (-7, 9), &mut y).unwrap();
        assert_eq!(y, [0, 2, -2, 9, -7, 0]);
    }

    #[test]
    fn refuses_what_is_not_finite_and_keeps_the_output() {
        let mut y = vec![3];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = quantise(&[0.0, bad], &[0.0], &[1.0], (-7, 7), &mut y).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HiddenNotFinite);
            assert_eq!(y, [3]);
        }
    }

    #[test]
    fn a_product_that_overflows_saturates() {
        let mut y = Vec::new();
        quantise(&[f32::MAX], &[f32::MIN], &[2.0], (-5, 5), &mut y).unwrap();
        assert_eq!(y, [5]);
    }

    #[test]
    fn reconstruction_rounds_twice() {
        // 3 · 0.1 rounds to 0.3 + 1.1920929e-8; fused with the offset it would give another last bit.
        let (step, offset) = (0.1_f32, -0.3_f32);
        let mut hidden = Vec::new();
        reconstruct(&[3], &[step], &[offset], &mut hidden);
        assert_eq!(hidden[0].to_bits(), ((3.0_f32 * step) + offset).to_bits());
        assert_ne!(hidden[0].to_bits(), 3.0_f32.mul_add(step, offset).to_bits());
    }

    #[test]
    fn half_precision_converts_exactly() {
        for (bits, value) in [
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x7BFF, 65_504.0),
            (0x0001, 5.960_464_5e-8),
            (0x0400, 6.103_515_6e-5),
            (0x3555, 0.333_251_95),
        ] {
            assert_eq!(to_f32(Dtype::F16, &u16::to_le_bytes(bits)), [value]);
        }
        assert!(
            to_f32(Dtype::F16, &[0x00, 0xFC])[0] == f32::NEG_INFINITY && to_f32(Dtype::F16, &[1, 0x7C])[0].is_nan()
        );
        assert_eq!(to_f32(Dtype::Bf16, &[0x80, 0x3F, 0x20, 0xC1]), [1.0, -10.0]);
        assert_eq!(to_f32(Dtype::F32, &1.5_f32.to_le_bytes()), [1.5]);
    }

    #[test]
    fn means_keep_their_fraction() {
        let mut hidden = Vec::new();
        reconstruct_from_means(&[96, -1], &[2.0, 64.0], &[1.0, 0.0], &mut hidden);
        assert_eq!(hidden, [4.0, -1.0]);
    }
}
