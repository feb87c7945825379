//! x86-64: SSE2, which every such CPU has, and SSE4.1, which widens weights faster.
//!
//! Weights are widened to 16 bits; `pmaddwd` multiplies two of them with two activations and adds the products: at most
//! 2 · 127 · 32,767 < 2^31.

use std::arch::x86_64::*;

use super::super::super::ArmSteps;
use super::super::fast::Matrix;
use super::super::lanes::Sink;
use super::super::packed::{Order, Weights};
use super::{Dot, Portable};
use crate::model::NetworkParameters;

pub(super) type V = __m128i;

pub(in super::super) fn instructions() -> &'static str {
    if Sse41::detect().is_some() { "SSE4.1" } else { "SSE2" }
}

pub(in super::super) fn steps(parameters: &NetworkParameters) -> Box<dyn ArmSteps + Send> {
    match Sse41::detect() {
        Some(dot) => super::super::pack(parameters, Portable(dot)),
        None => super::super::pack(parameters, Portable(Sse2)),
    }
}

/// Two products in each lane.
#[derive(Clone, Copy)]
struct Sse2;

impl Dot for Sse2 {
    /// Four rows in each vector, each with its inputs 0, 2, 1 and 3: the even bytes are the first pair of inputs, the
    /// odd ones the second.
    const ORDER: Order =
        Order { rows: 16, inputs: 4, place: |row, input| 4 * row + 2 * (input % 2) + input / 2, bias: 0 };
    const FRAMES: usize = 2;
    type Weights = [V; 2];
    type Input = [V; 2];
    type Sums = V;

    fn prepare(self, _: &mut [i16]) {}

    fn linear(self, layer: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, sink: Sink<'_>) {
        super::linear(self, layer, x, stride, frames, sink);
    }

    #[inline(always)]
    fn fetch(self, line: *const Weights) {
        fetch(line);
    }

    #[inline(always)]
    unsafe fn input(self, x: *const i16) -> [V; 2] {
        // SAFETY: the caller says that four values are readable.
        unsafe { pairs(x) }
    }

    #[inline(always)]
    fn weights(self, weights: &[i8; 16]) -> [V; 2] {
        // SAFETY: 16 bytes. SSE2 is always there.
        unsafe {
            let weights = _mm_loadu_si128(weights.as_ptr().cast());
            [_mm_srai_epi16::<8>(_mm_slli_epi16::<8>(weights)), _mm_srai_epi16::<8>(weights)]
        }
    }

    #[inline(always)]
    fn zero(self) -> V {
        splat(0)
    }

    #[inline(always)]
    fn add(self, sums: V, weights: [V; 2], input: [V; 2]) -> V {
        add_products_of_pairs(sums, weights, input)
    }

    #[inline(always)]
    fn join(self, a: V, b: V) -> V {
        add(a, b)
    }

    #[inline(always)]
    fn rows(self, sums: [V; 4]) -> [i32; 16] {
        fours(sums)
    }
}

/// The same with instructions that widen. A value proves that the CPU has SSE4.1.
#[derive(Clone, Copy)]
struct Sse41(());

impl Sse41 {
    fn detect() -> Option<Sse41> {
        is_x86_feature_detected!("sse4.1").then_some(Sse41(()))
    }
}

#[target_feature(enable = "sse4.1")]
fn linear_sse41(dot: Sse41, layer: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, sink: Sink<'_>) {
    super::linear(dot, layer, x, stride, frames, sink);
}

impl Dot for Sse41 {
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
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { linear_sse41(self, layer, x, stride, frames, sink) }
    }

    #[inline(always)]
    fn fetch(self, line: *const Weights) {
        fetch(line);
    }

    #[inline(always)]
    unsafe fn input(self, x: *const i16) -> [V; 2] {
        // SAFETY: the caller says that four values are readable.
        unsafe { pairs(x) }
    }

    #[inline(always)]
    fn weights(self, weights: &[i8; 16]) -> [V; 2] {
        let weights = weights.as_ptr();
        // SAFETY: 8 of 16 bytes each. `self` proves that the CPU has the instruction.
        unsafe {
            let (first, second) = (_mm_loadl_epi64(weights.cast()), _mm_loadl_epi64(weights.add(8).cast()));
            [_mm_cvtepi8_epi16(first), _mm_cvtepi8_epi16(second)]
        }
    }

    #[inline(always)]
    fn zero(self) -> V {
        splat(0)
    }

    #[inline(always)]
    fn add(self, sums: V, weights: [V; 2], input: [V; 2]) -> V {
        add_products_of_pairs(sums, weights, input)
    }

    #[inline(always)]
    fn join(self, a: V, b: V) -> V {
        add(a, b)
    }

    #[inline(always)]
    fn rows(self, sums: [V; 4]) -> [i32; 16] {
        fours(sums)
    }
}

/// Two pairs of activations, each in all lanes.
///
/// # Safety
/// `x` is readable for four values.
#[inline(always)]
unsafe fn pairs(x: *const i16) -> [V; 2] {
    let x = x.cast::<i32>();
    // SAFETY: the caller says that four values are readable. SSE2 is always there.
    unsafe { [_mm_set1_epi32(x.read_unaligned()), _mm_set1_epi32(x.add(1).read_unaligned())] }
}

#[inline(always)]
#[allow(unused_unsafe)] // the intrinsic is safe in later versions of the standard library
fn fetch(line: *const Weights) {
    // SAFETY: a prefetch accesses nothing. SSE is always there.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
}

#[inline(always)]
fn add_products_of_pairs(sums: V, weights: [V; 2], input: [V; 2]) -> V {
    // SAFETY: SSE2 is always there.
    unsafe {
        let first = _mm_add_epi32(sums, _mm_madd_epi16(weights[0], input[0]));
        _mm_add_epi32(first, _mm_madd_epi16(weights[1], input[1]))
    }
}

#[inline(always)]
fn fours(sums: [V; 4]) -> [i32; 16] {
    let mut rows = [0; 16];
    for (to, sums) in rows.as_chunks_mut().0.iter_mut().zip(sums) {
        *to = store(sums);
    }
    rows
}

#[inline(always)]
pub(super) fn load(values: &[i32; 4]) -> V {
    // SAFETY: 16 bytes. SSE2 is always there.
    unsafe { _mm_loadu_si128(values.as_ptr().cast()) }
}

#[inline(always)]
pub(super) fn store(values: V) -> [i32; 4] {
    let mut to = [0; 4];
    // SAFETY: 16 bytes. SSE2 is always there.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), values) };
    to
}

#[inline(always)]
pub(super) fn splat(value: i32) -> V {
    // SAFETY: SSE2 is always there.
    unsafe { _mm_set1_epi32(value) }
}

#[inline(always)]
pub(super) fn add(a: V, b: V) -> V {
    // SAFETY: SSE2 is always there.
    unsafe { _mm_add_epi32(a, b) }
}

#[inline(always)]
pub(super) fn sub(a: V, b: V) -> V {
    // SAFETY: SSE2 is always there.
    unsafe { _mm_sub_epi32(a, b) }
}

/// `a` in the lanes where `mask` is −1, `b` where it is 0.
#[inline(always)]
fn select(mask: V, a: V, b: V) -> V {
    // SAFETY: SSE2 is always there.
    unsafe { _mm_or_si128(_mm_and_si128(mask, a), _mm_andnot_si128(mask, b)) }
}

#[inline(always)]
pub(super) fn min(a: V, b: V) -> V {
    // SAFETY: SSE2 is always there.
    unsafe { select(_mm_cmplt_epi32(a, b), a, b) }
}

#[inline(always)]
pub(super) fn max(a: V, b: V) -> V {
    // SAFETY: SSE2 is always there.
    unsafe { select(_mm_cmpgt_epi32(a, b), a, b) }
}

/// The sum of four values, modulo 2^32.
#[inline(always)]
pub(super) fn sum(x: V) -> i32 {
    // SAFETY: SSE2 is always there.
    unsafe {
        let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
        let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x));
        _mm_cvtsi128_si32(x)
    }
}

/// Adds to each of eight sums the products of a pair of `k` with the pair `q`, 16 bits each, the low half first.
#[inline(always)]
pub(super) fn add_pairs(sums: [V; 2], k: &[i16; 16], q: i32) -> [V; 2] {
    let q = splat(q);
    // SAFETY: 32 bytes. SSE2 is always there.
    unsafe {
        let k = [_mm_loadu_si128(k.as_ptr().cast()), _mm_loadu_si128(k.as_ptr().add(8).cast())];
        [_mm_add_epi32(sums[0], _mm_madd_epi16(k[0], q)), _mm_add_epi32(sums[1], _mm_madd_epi16(k[1], q))]
    }
}

/// Adds eight products to four sums, whichever.
#[inline(always)]
pub(super) fn add_products(sums: V, a: &[i16; 8], b: &[i16; 8]) -> V {
    // SAFETY: 16 bytes each. SSE2 is always there.
    unsafe {
        let (a, b) = (_mm_loadu_si128(a.as_ptr().cast()), _mm_loadu_si128(b.as_ptr().cast()));
        _mm_add_epi32(sums, _mm_madd_epi16(a, b))
    }
}

/// (x · multiplier + 2^(shift − 1)) >> shift, which the caller says fits 32 bits; shifts are 1 … 46, multipliers from 0
/// to below 2^15.
#[inline(always)]
pub(super) fn scaled(x: V, multiplier: i32, shift: u8) -> V {
    // SSE2 multiplies without signs and has no arithmetic shift of 64 bits. 2^31 makes x positive, and 2^47 the
    // product; both are subtracted again.
    // SAFETY: SSE2 is always there.
    unsafe {
        let multiplier = i64::from(multiplier);
        let unsigned = _mm_xor_si128(x, splat(i32::MIN));
        let above = _mm_set1_epi64x((1 << 47) + (1 << (shift - 1)) - (multiplier << 31));
        let multiplier = _mm_set1_epi64x(multiplier);
        let count = _mm_cvtsi32_si128(i32::from(shift));
        let even = _mm_srl_epi64(_mm_add_epi64(_mm_mul_epu32(unsigned, multiplier), above), count);
        let odd = _mm_mul_epu32(_mm_srli_epi64::<32>(unsigned), multiplier);
        let odd = _mm_srl_epi64(_mm_add_epi64(odd, above), count);
        // The low halves of all four; they are enough, as results fit.
        let even = _mm_shuffle_epi32::<0b00_00_10_00>(even);
        let odd = _mm_shuffle_epi32::<0b00_00_10_00>(odd);
        _mm_sub_epi32(_mm_unpacklo_epi32(even, odd), splat((1i64 << (47 - shift)) as i32))
    }
}
