//! wasm32 with `simd128`. Relaxed SIMD is not used: its results differ by machine.
//!
//! Weights are widened to 16 bits when they are loaded; `i32x4.dot_i16x8_s` multiplies two of them with two activations
//! and adds the products: at most 2 · 127 · 32,767 < 2^31.

use std::arch::wasm32::*;

use super::super::super::ArmSteps;
use super::super::fast::Matrix;
use super::super::lanes::Sink;
use super::super::packed::Order;
use super::{Dot, Portable};
use crate::model::NetworkParameters;

pub(super) type V = v128;

pub(in super::super) fn instructions() -> &'static str {
    "SIMD128"
}

pub(in super::super) fn steps(parameters: &NetworkParameters) -> Box<dyn ArmSteps + Send> {
    super::super::pack(parameters, Portable(Pairs))
}

/// Two products in each lane.
#[derive(Clone, Copy)]
struct Pairs;

impl Dot for Pairs {
    /// Four rows in each vector: two inputs of each, then the two others.
    const ORDER: Order = Order {
        rows: 16,
        inputs: 4,
        place: |row, input| 16 * (row / 4) + 8 * (input / 2) + 2 * (row % 4) + input % 2,
        bias: 0,
    };
    const FRAMES: usize = 2;
    type Weights = [V; 2];
    type Input = [V; 2];
    type Sums = V;

    fn prepare(self, _: &mut [i16]) {}

    fn linear(self, layer: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, sink: Sink<'_>) {
        super::linear(self, layer, x, stride, frames, sink);
    }

    #[inline(always)]
    unsafe fn input(self, x: *const i16) -> [V; 2] {
        let x = x.cast::<u32>();
        // SAFETY: the caller says that four values are readable; wasm loads need no alignment.
        unsafe { [v128_load32_splat(x), v128_load32_splat(x.add(1))] }
    }

    #[inline(always)]
    fn weights(self, weights: &[i8; 16]) -> [V; 2] {
        let weights = weights.as_ptr();
        // SAFETY: 8 of 16 bytes each.
        unsafe { [i16x8_load_extend_i8x8(weights), i16x8_load_extend_i8x8(weights.add(8))] }
    }

    #[inline(always)]
    fn zero(self) -> V {
        splat(0)
    }

    #[inline(always)]
    fn add(self, sums: V, weights: [V; 2], input: [V; 2]) -> V {
        let first = i32x4_add(sums, i32x4_dot_i16x8(weights[0], input[0]));
        i32x4_add(first, i32x4_dot_i16x8(weights[1], input[1]))
    }

    #[inline(always)]
    fn join(self, a: V, b: V) -> V {
        i32x4_add(a, b)
    }

    #[inline(always)]
    fn rows(self, sums: [V; 4]) -> [i32; 16] {
        let mut rows = [0; 16];
        for (to, sums) in rows.as_chunks_mut().0.iter_mut().zip(sums) {
            *to = store(sums);
        }
        rows
    }
}

#[inline(always)]
pub(super) fn load(values: &[i32; 4]) -> V {
    // SAFETY: 16 bytes.
    unsafe { v128_load(values.as_ptr().cast()) }
}

#[inline(always)]
pub(super) fn store(values: V) -> [i32; 4] {
    let mut to = [0; 4];
    // SAFETY: 16 bytes.
    unsafe { v128_store(to.as_mut_ptr().cast(), values) };
    to
}

#[inline(always)]
pub(super) fn splat(value: i32) -> V {
    i32x4_splat(value)
}

#[inline(always)]
pub(super) fn add(a: V, b: V) -> V {
    i32x4_add(a, b)
}

#[inline(always)]
pub(super) fn sub(a: V, b: V) -> V {
    i32x4_sub(a, b)
}

#[inline(always)]
pub(super) fn min(a: V, b: V) -> V {
    i32x4_min(a, b)
}

#[inline(always)]
pub(super) fn max(a: V, b: V) -> V {
    i32x4_max(a, b)
}

/// The sum of four values, modulo 2^32.
#[inline(always)]
pub(super) fn sum(x: V) -> i32 {
    let x = i32x4_add(x, i32x4_shuffle::<2, 3, 0, 1>(x, x));
    let x = i32x4_add(x, i32x4_shuffle::<1, 0, 3, 2>(x, x));
    i32x4_extract_lane::<0>(x)
}

/// Adds to each of eight sums the products of a pair of `k` with the pair `q`, 16 bits each, the low half first.
#[inline(always)]
pub(super) fn add_pairs(sums: [V; 2], k: &[i16; 16], q: i32) -> [V; 2] {
    let q = splat(q);
    // SAFETY: 32 bytes.
    let k = unsafe { [v128_load(k.as_ptr().cast()), v128_load(k.as_ptr().add(8).cast())] };
    [i32x4_add(sums[0], i32x4_dot_i16x8(k[0], q)), i32x4_add(sums[1], i32x4_dot_i16x8(k[1], q))]
}

/// Adds eight products to four sums, whichever.
#[inline(always)]
pub(super) fn add_products(sums: V, a: &[i16; 8], b: &[i16; 8]) -> V {
    // SAFETY: 16 bytes each.
    let (a, b) = unsafe { (v128_load(a.as_ptr().cast()), v128_load(b.as_ptr().cast())) };
    i32x4_add(sums, i32x4_dot_i16x8(a, b))
}

/// (x · multiplier + 2^(shift − 1)) >> shift, which the caller says fits 32 bits; shifts are 1 … 46, multipliers from 0
/// to below 2^15.
#[inline(always)]
pub(super) fn scaled(x: V, multiplier: i32, shift: u8) -> V {
    // Engines emulate arithmetic shifts of 64 bits on x86-64: 2^47 makes the product positive, and is subtracted again.
    let above = i64x2_splat((1 << 47) + (1 << (shift - 1)));
    let multiplier = splat(multiplier);
    let low = u64x2_shr(i64x2_add(i64x2_extmul_low_i32x4(x, multiplier), above), shift.into());
    let high = u64x2_shr(i64x2_add(i64x2_extmul_high_i32x4(x, multiplier), above), shift.into());
    // The low halves of all four; they are enough, as results fit.
    i32x4_sub(i32x4_shuffle::<0, 2, 4, 6>(low, high), splat((1i64 << (47 - shift)) as i32))
}
