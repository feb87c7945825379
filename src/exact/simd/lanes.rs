//! Element-wise steps of the SIMD arms, as loops that the compiler turns into vector code.
//!
//! Every function here is inlined into one that enables the arm's instructions.

use super::packed::{EXP_PADDED, Scale};
use crate::model::network::{
    ACTIVATION_MAX, ATTENTION_SHIFT, EXP_LEN, NORM_SHIFT, PRE_ACTIVATION_MAX, PRE_ACTIVATION_MIN, SQUARES_SHIFT,
};

/// What becomes of a linear layer's sums (spec 5.4, 5.5). Rows of `to` are `stride` values long, one for each frame.
pub(super) enum Sink<'a> {
    /// Clamped to `low` … `high`.
    Clamp { low: i32, high: i32, to: &'a mut [i16], stride: usize },
    /// Clamped to 16 bits, added to the value in `to`, and clamped again.
    Add { to: &'a mut [i16], stride: usize },
    /// Clamped to the inputs of the activation table and looked up.
    Activate { table: &'a [i16], to: &'a mut [i16], stride: usize },
    /// With an offset, clamped by row.
    Output { offset: &'a [i32], low: &'a [i32], high: &'a [i32], to: &'a mut [i32], stride: usize },
}

/// round_shift(acc · multiplier, shift), spec 5.1: below 2^47 in magnitude before the shift.
#[inline(always)]
fn scaled(acc: i32, multiplier: i32, shift: i64) -> i64 {
    (i64::from(acc) * i64::from(multiplier) + (1 << (shift - 1))) >> shift
}

/// Sums of rows, scaled and clamped. The slices are as long as the array.
#[inline(always)]
fn bounded<const R: usize>(acc: &[i32; R], multiplier: &[i32], shift: &[i64], low: i32, high: i32) -> [i32; R] {
    let (multiplier, shift) = (&multiplier[..R], &shift[..R]);
    let mut y = [0i32; R];
    for i in 0..R {
        y[i] = scaled(acc[i], multiplier[i], shift[i]).clamp(low.into(), high.into()) as i32;
    }
    y
}

#[inline(always)]
fn clamp16(x: i32) -> i32 {
    x.clamp(-ACTIVATION_MAX, ACTIVATION_MAX)
}

impl Sink<'_> {
    /// Takes the sums of `R` rows from `row` on, for a frame.
    #[inline(always)]
    pub(super) fn store<const R: usize>(&mut self, frame: usize, row: usize, acc: &[i32; R], scale: &Scale) {
        let multiplier = &scale.multiplier[row..][..R];
        let shift = &scale.shift[row..][..R];
        match self {
            Sink::Clamp { low, high, to, stride } => {
                let y = bounded(acc, multiplier, shift, *low, *high);
                let to = &mut to[frame * *stride + row..][..R];
                for i in 0..R {
                    to[i] = y[i] as i16;
                }
            }
            Sink::Add { to, stride } => {
                let y = bounded(acc, multiplier, shift, -ACTIVATION_MAX, ACTIVATION_MAX);
                let to = &mut to[frame * *stride + row..][..R];
                for i in 0..R {
                    to[i] = clamp16(i32::from(to[i]) + y[i]) as i16;
                }
            }
            Sink::Activate { table, to, stride } => {
                let y = bounded(acc, multiplier, shift, PRE_ACTIVATION_MIN, PRE_ACTIVATION_MAX);
                let to = &mut to[frame * *stride + row..][..R];
                for i in 0..R {
                    to[i] = table[(y[i] - PRE_ACTIVATION_MIN) as usize];
                }
            }
            Sink::Output { offset, low, high, to, stride } => {
                let (offset, low, high) = (&offset[row..][..R], &low[row..][..R], &high[row..][..R]);
                let to = &mut to[frame * *stride + row..][..R];
                for i in 0..R {
                    let y = scaled(acc[i], multiplier[i], shift[i]) + i64::from(offset[i]);
                    to[i] = y.clamp(low[i].into(), high[i].into()) as i32;
                }
            }
        }
    }
}

/// Spec 5.5, step 1: below 2^30 before the shift, and 2^46 with what rounding adds.
#[inline(always)]
pub(super) fn scale(input: &[i16], scale: &Scale, x: &mut [i16]) {
    for (((x, &value), &multiplier), &shift) in x.iter_mut().zip(input).zip(&scale.multiplier).zip(&scale.shift) {
        *x = scaled(value.into(), multiplier, shift).clamp((-ACTIVATION_MAX).into(), ACTIVATION_MAX.into()) as i16;
    }
}

/// Spec 5.2.
#[inline(always)]
pub(super) fn norm(x: &[i16], numerator: i64, y: &mut [i16]) {
    let mut ss = 0u64;
    for x in x.chunks(512) {
        // The sum of two squares fits 31 bits and that of 512 fits 64.
        ss += x.iter().map(|&x| i64::from(i32::from(x) * i32::from(x))).sum::<i64>() as u64;
    }
    let s = (ss << SQUARES_SHIFT).isqrt().max(1);
    let r = numerator / s as i64;
    for (y, &x) in y.iter_mut().zip(x) {
        *y = ((i64::from(x) * r + (1 << (NORM_SHIFT - 1))) >> NORM_SHIFT)
            .clamp((-ACTIVATION_MAX).into(), ACTIVATION_MAX.into()) as i16;
    }
}

/// Spec 5.3, step 3: e of all slots, 0 for those outside the window; their sum, below 2^24.
#[inline(always)]
pub(super) fn exponentials(exp: &[i32], z: &[i32], largest: i32, e: &mut [i16]) -> i32 {
    let exp: &[i32; EXP_PADDED] = exp.try_into().expect("the padded table");
    let mut sum = 0;
    for (z, e) in z.as_chunks::<16>().0.iter().zip(e.as_chunks_mut::<16>().0) {
        let mut index = [0i32; 16];
        for i in 0..16 {
            let below = largest - z[i];
            index[i] = below.min(EXP_LEN as i32 - 1).max(below >> 20);
        }
        for i in 0..16 {
            let value = exp[index[i] as usize];
            sum += value;
            e[i] = value as i16;
        }
    }
    sum
}

/// Spec 5.3, steps 4 and 5, from the sums of e and of e · v.
#[inline(always)]
pub(super) fn average(sum: i32, o: &[i64], a: &mut [i16]) {
    let r = (1i64 << ATTENTION_SHIFT) / i64::from(sum.max(1));
    for (a, &o) in a.iter_mut().zip(o) {
        *a = ((o * r + (1 << (ATTENTION_SHIFT - 1))) >> ATTENTION_SHIFT) as i16;
    }
}
