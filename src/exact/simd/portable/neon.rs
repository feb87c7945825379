//! aarch64: NEON, which every such CPU has, and the 8-bit dot products of those that have them.
//!
//! NEON alone multiplies weights, widened to 16 bits, with activations.
//!
//! With dot products, weights stay 8 bits wide. An activation x, 16 bits, is split as x − 128 = 256·h + l with signed
//! bytes h and l, and the sums are joined: Σ w·x = 256·Σ w·h + Σ w·l + 128·Σ w, modulo 2^32. `sdot` (DotProd) adds four
//! products to each lane; `smmla` (I8MM) multiplies eight weights of two rows with the high and the low bytes of eight
//! activations. Both add without saturation.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::super::super::ArmSteps;
use super::super::fast::Matrix;
use super::super::lanes::Sink;
use super::super::packed::Order;
use super::{Dot, Portable};
use crate::model::NetworkParameters;

pub(super) type V = int32x4_t;

pub(in super::super) fn instructions() -> &'static str {
    if I8mm::detect().is_some() {
        "NEON and I8MM"
    } else if DotProd::detect().is_some() {
        "NEON and DotProd"
    } else {
        "NEON"
    }
}

pub(in super::super) fn steps(parameters: &NetworkParameters) -> Box<dyn ArmSteps + Send> {
    if let Some(dot) = I8mm::detect() {
        super::super::pack(parameters, Portable(dot))
    } else if let Some(dot) = DotProd::detect() {
        super::super::pack(parameters, Portable(dot))
    } else {
        super::super::pack(parameters, Portable(Neon))
    }
}

/// One product in each lane.
#[derive(Clone, Copy)]
struct Neon;

impl Dot for Neon {
    /// Four rows in each vector: the first input of each, then the second.
    const ORDER: Order =
        Order { rows: 16, inputs: 4, place: |row, input| 16 * (row / 4) + 4 * input + row % 4, bias: 0 };
    const FRAMES: usize = 5;
    type Weights = [int16x8_t; 2];
    type Input = int16x4_t;
    type Sums = V;

    fn prepare(self, _: &mut [i16]) {}

    fn linear(self, layer: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, sink: Sink<'_>) {
        super::linear(self, layer, x, stride, frames, sink);
    }

    #[inline(always)]
    unsafe fn input(self, x: *const i16) -> int16x4_t {
        // SAFETY: the caller says that four values are readable. NEON is always there.
        unsafe { vld1_s16(x) }
    }

    #[inline(always)]
    fn weights(self, weights: &[i8; 16]) -> [int16x8_t; 2] {
        // SAFETY: 16 bytes. NEON is always there.
        unsafe {
            let weights = vld1q_s8(weights.as_ptr());
            [vmovl_s8(vget_low_s8(weights)), vmovl_high_s8(weights)]
        }
    }

    #[inline(always)]
    fn zero(self) -> V {
        splat(0)
    }

    #[inline(always)]
    fn add(self, sums: V, weights: [int16x8_t; 2], input: int16x4_t) -> V {
        // SAFETY: NEON is always there.
        unsafe {
            let sums = vmlal_lane_s16::<0>(sums, vget_low_s16(weights[0]), input);
            let sums = vmlal_high_lane_s16::<1>(sums, weights[0], input);
            let sums = vmlal_lane_s16::<2>(sums, vget_low_s16(weights[1]), input);
            vmlal_high_lane_s16::<3>(sums, weights[1], input)
        }
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

/// Four products in each lane. A value proves that the CPU has DotProd.
#[derive(Clone, Copy)]
struct DotProd(());

impl DotProd {
    fn detect() -> Option<DotProd> {
        is_aarch64_feature_detected!("dotprod").then_some(DotProd(()))
    }
}

#[target_feature(enable = "neon,dotprod")]
fn linear_dotprod(dot: DotProd, layer: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, sink: Sink<'_>) {
    super::linear(dot, layer, x, stride, frames, sink);
}

impl Dot for DotProd {
    const ORDER: Order = Order { rows: 16, inputs: 4, place: |row, input| 4 * row + input, bias: -128 };
    const FRAMES: usize = 3;
    type Weights = int8x16_t;
    /// Four low bytes and four high ones.
    type Input = int8x8_t;
    /// Sums of low and of high bytes.
    type Sums = [V; 2];

    fn prepare(self, x: &mut [i16]) {
        for x in x.as_chunks_mut::<16>().0 {
            let [low, high] = limbs(x);
            // SAFETY: 32 bytes. NEON is always there.
            unsafe {
                let (low, high) = (vreinterpretq_s32_u8(low), vreinterpretq_s32_u8(high));
                vst1q_s16(x.as_mut_ptr(), vreinterpretq_s16_s32(vzip1q_s32(low, high)));
                vst1q_s16(x.as_mut_ptr().add(8), vreinterpretq_s16_s32(vzip2q_s32(low, high)));
            }
        }
    }

    fn linear(self, layer: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, sink: Sink<'_>) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { linear_dotprod(self, layer, x, stride, frames, sink) }
    }

    #[inline(always)]
    unsafe fn input(self, x: *const i16) -> int8x8_t {
        // SAFETY: the caller says that four values are readable. NEON is always there.
        unsafe { vld1_s8(x.cast()) }
    }

    #[inline(always)]
    fn weights(self, weights: &[i8; 16]) -> int8x16_t {
        // SAFETY: 16 bytes. NEON is always there.
        unsafe { vld1q_s8(weights.as_ptr()) }
    }

    #[inline(always)]
    fn zero(self) -> [V; 2] {
        [splat(0); 2]
    }

    #[inline(always)]
    fn add(self, [mut low, mut high]: [V; 2], weights: int8x16_t, input: int8x8_t) -> [V; 2] {
        // The compiler's intrinsics are unstable.
        // SAFETY: `self` proves that the CPU has the instructions, which only change the sums.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {low:v}.4s, {weights:v}.16b, {input:v}.4b[0]",
                "sdot {high:v}.4s, {weights:v}.16b, {input:v}.4b[1]",
                low = inout(vreg) low,
                high = inout(vreg) high,
                weights = in(vreg) weights,
                input = in(vreg) input,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        [low, high]
    }

    #[inline(always)]
    fn join(self, a: [V; 2], b: [V; 2]) -> [V; 2] {
        [add(a[0], b[0]), add(a[1], b[1])]
    }

    #[inline(always)]
    fn rows(self, sums: [[V; 2]; 4]) -> [i32; 16] {
        fours(sums.map(|[low, high]| joined(low, high)))
    }
}

/// Eight products in each lane, of two rows with two vectors. A value proves that the CPU has I8MM.
#[derive(Clone, Copy)]
struct I8mm(());

impl I8mm {
    fn detect() -> Option<I8mm> {
        is_aarch64_feature_detected!("i8mm").then_some(I8mm(()))
    }
}

#[target_feature(enable = "neon,i8mm")]
fn linear_i8mm(dot: I8mm, layer: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, sink: Sink<'_>) {
    super::linear(dot, layer, x, stride, frames, sink);
}

impl Dot for I8mm {
    const ORDER: Order = Order { rows: 8, inputs: 8, place: |row, input| 8 * row + input, bias: -128 };
    const FRAMES: usize = 6;
    type Weights = int8x16_t;
    /// Eight low bytes and eight high ones.
    type Input = int8x16_t;
    /// The sums of low and of high bytes of a row, and the same of the next row.
    type Sums = V;

    fn prepare(self, x: &mut [i16]) {
        for x in x.as_chunks_mut::<16>().0 {
            let [low, high] = limbs(x);
            // SAFETY: 32 bytes. NEON is always there.
            unsafe {
                let (low, high) = (vreinterpretq_s64_u8(low), vreinterpretq_s64_u8(high));
                vst1q_s16(x.as_mut_ptr(), vreinterpretq_s16_s64(vzip1q_s64(low, high)));
                vst1q_s16(x.as_mut_ptr().add(8), vreinterpretq_s16_s64(vzip2q_s64(low, high)));
            }
        }
    }

    fn linear(self, layer: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, sink: Sink<'_>) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { linear_i8mm(self, layer, x, stride, frames, sink) }
    }

    #[inline(always)]
    unsafe fn input(self, x: *const i16) -> int8x16_t {
        // SAFETY: the caller says that eight values are readable. NEON is always there.
        unsafe { vld1q_s8(x.cast()) }
    }

    #[inline(always)]
    fn weights(self, weights: &[i8; 16]) -> int8x16_t {
        // SAFETY: 16 bytes. NEON is always there.
        unsafe { vld1q_s8(weights.as_ptr()) }
    }

    #[inline(always)]
    fn zero(self) -> V {
        splat(0)
    }

    #[inline(always)]
    fn add(self, mut sums: V, weights: int8x16_t, input: int8x16_t) -> V {
        // The compiler's intrinsics are unstable.
        // SAFETY: `self` proves that the CPU has the instruction, which only changes the sums.
        unsafe {
            asm!(
                ".arch_extension i8mm",
                "smmla {sums:v}.4s, {weights:v}.16b, {input:v}.16b",
                sums = inout(vreg) sums,
                weights = in(vreg) weights,
                input = in(vreg) input,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }

    #[inline(always)]
    fn join(self, a: V, b: V) -> V {
        add(a, b)
    }

    #[inline(always)]
    fn rows(self, [a, b, c, d]: [V; 4]) -> [i32; 16] {
        // SAFETY: NEON is always there.
        unsafe {
            let first = joined(vuzp1q_s32(a, b), vuzp2q_s32(a, b));
            let second = joined(vuzp1q_s32(c, d), vuzp2q_s32(c, d));
            fours([first, second, splat(0), splat(0)])
        }
    }
}

/// The low bytes of x − 128 and the high ones, both signed.
#[inline(always)]
fn limbs(x: &[i16; 16]) -> [uint8x16_t; 2] {
    // SAFETY: 32 bytes. NEON is always there.
    unsafe {
        // x − 128 = 256 · h + l with 0 ≤ l + 128 < 256: h is the high byte of x, l + 128 its low byte.
        let uint8x16x2_t(low, high) = vld2q_u8(x.as_ptr().cast());
        [veorq_u8(low, vdupq_n_u8(0x80)), high]
    }
}

/// 256 · high + low, modulo 2^32.
#[inline(always)]
fn joined(low: V, high: V) -> V {
    // SAFETY: NEON is always there.
    unsafe { vaddq_s32(vshlq_n_s32::<8>(high), low) }
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
    // SAFETY: 16 bytes. NEON is always there.
    unsafe { vld1q_s32(values.as_ptr()) }
}

#[inline(always)]
pub(super) fn store(values: V) -> [i32; 4] {
    let mut to = [0; 4];
    // SAFETY: 16 bytes. NEON is always there.
    unsafe { vst1q_s32(to.as_mut_ptr(), values) };
    to
}

#[inline(always)]
pub(super) fn splat(value: i32) -> V {
    // SAFETY: NEON is always there.
    unsafe { vdupq_n_s32(value) }
}

#[inline(always)]
pub(super) fn add(a: V, b: V) -> V {
    // SAFETY: NEON is always there.
    unsafe { vaddq_s32(a, b) }
}

#[inline(always)]
pub(super) fn sub(a: V, b: V) -> V {
    // SAFETY: NEON is always there.
    unsafe { vsubq_s32(a, b) }
}

#[inline(always)]
pub(super) fn min(a: V, b: V) -> V {
    // SAFETY: NEON is always there.
    unsafe { vminq_s32(a, b) }
}

#[inline(always)]
pub(super) fn max(a: V, b: V) -> V {
    // SAFETY: NEON is always there.
    unsafe { vmaxq_s32(a, b) }
}

/// The sum of four values, modulo 2^32.
#[inline(always)]
pub(super) fn sum(x: V) -> i32 {
    // SAFETY: NEON is always there.
    unsafe { vaddvq_s32(x) }
}

/// Adds to each of eight sums the products of a pair of `k` with the pair `q`, 16 bits each, the low half first.
#[inline(always)]
pub(super) fn add_pairs(sums: [V; 2], k: &[i16; 16], q: i32) -> [V; 2] {
    // SAFETY: 32 bytes. NEON is always there.
    unsafe {
        let int16x8x2_t(first, second) = vld2q_s16(k.as_ptr());
        let q = vreinterpret_s16_s32(vdup_n_s32(q));
        let low = vmlal_lane_s16::<0>(sums[0], vget_low_s16(first), q);
        let high = vmlal_high_lane_s16::<0>(sums[1], first, q);
        [vmlal_lane_s16::<1>(low, vget_low_s16(second), q), vmlal_high_lane_s16::<1>(high, second, q)]
    }
}

/// Adds eight products to four sums, whichever.
#[inline(always)]
pub(super) fn add_products(sums: V, a: &[i16; 8], b: &[i16; 8]) -> V {
    // SAFETY: 16 bytes each. NEON is always there.
    unsafe {
        let (a, b) = (vld1q_s16(a.as_ptr()), vld1q_s16(b.as_ptr()));
        vmlal_high_s16(vmlal_s16(sums, vget_low_s16(a), vget_low_s16(b)), a, b)
    }
}

/// (x · multiplier + 2^(shift − 1)) >> shift, which the caller says fits 32 bits; shifts are 1 … 46, multipliers from 0
/// to below 2^15.
#[inline(always)]
pub(super) fn scaled(x: V, multiplier: i32, shift: u8) -> V {
    // SAFETY: NEON is always there. A rounding shift to the left by a negative number is one to the right.
    unsafe {
        let shift = vdupq_n_s64(-i64::from(shift));
        let low = vrshlq_s64(vmull_n_s32(vget_low_s32(x), multiplier), shift);
        let high = vrshlq_s64(vmull_high_n_s32(x, multiplier), shift);
        vmovn_high_s64(vmovn_s64(low), high)
    }
}
