//! The AVX2 arm.
//!
//! Weights are stored in 8 bits and widened to 16 when they are loaded; `vpmaddwd` multiplies two of them with two
//! activations and adds the products: at most 2 · 127 · 32,767 < 2^31. All further sums are modulo 2^32. The result,
//! the sum of spec 5.1, fits by the row bound (\[MODEL-4\]), and so does every partial sum.

// Loops over several registers or rows in parallel read best with an index.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::super::ring::{GROUP, Line};
use super::fast::{Buffers, Head, Kernels, Matrix};
use super::lanes::{self, Sink};
use super::packed::{Order, Scale, Weights};
use crate::model::network::WIDE_MAX;

/// Proof that the CPU has this arm's instructions.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// Rows of a block of weights.
const ROWS: usize = 16;
/// The most frames of a register tile.
const FRAMES: usize = 5;
/// How many lines ahead the weights of a single frame are fetched.
const AHEAD: usize = 48;

impl Avx2 {
    pub(super) fn detect() -> Option<Avx2> {
        is_x86_feature_detected!("avx2").then_some(Avx2(()))
    }
}

impl Kernels for Avx2 {
    /// Two inputs of rows 0 to 7, of rows 8 to 15, and then the two other inputs of the same.
    const ORDER: Order = Order {
        rows: ROWS,
        inputs: 4,
        place: |row, input| 32 * (input / 2) + 16 * (row / 8) + 2 * (row % 8) + input % 2,
        bias: 0,
    };

    fn prepare(&self, _: &mut [i16]) {}

    fn linear(&self, layer: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, sink: Sink<'_>) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { linear(layer, x, stride, frames, sink) }
    }

    fn scale(&self, input: &[i16], scale: &Scale, x: &mut [i16]) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { self::scale(input, scale, x) }
    }

    fn norm(&self, x: &[i16], numerator: i64, y: &mut [i16]) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { norm(x, numerator, y) }
    }

    fn attend(&self, head: &Head<'_>, q: &[i32], buffers: &mut Buffers, a: &mut [i16]) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { attend(head, q, buffers, a) }
    }
}

#[target_feature(enable = "avx2")]
fn linear(matrix: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, mut sink: Sink<'_>) {
    let inputs = matrix.layer.inputs;
    let lines = inputs / 4;
    for (b, weights) in matrix.weights.chunks_exact(lines).enumerate() {
        let row = b * ROWS;
        let bias: &[i32; ROWS] = matrix.layer.bias[row..].first_chunk().expect("rows are padded");
        let input = |frame: usize| &x[frame * stride..][..inputs];
        if frames == 1 {
            sink.store(0, row, &one(weights, input(0), bias), matrix.scale);
            continue;
        }
        let mut frame = 0;
        while frame < frames {
            // Tiles of nearly the same size.
            let tiles = (frames - frame).div_ceil(FRAMES);
            let size = (frames - frame).div_ceil(tiles);
            macro_rules! run {
                ($($n:literal)+) => { match size { $($n => {
                    let sums = tile::<$n>(weights, std::array::from_fn(|f| input(frame + f)), bias);
                    for (f, acc) in sums.iter().enumerate() {
                        sink.store(frame + f, row, acc, matrix.scale);
                    }
                })+ _ => unreachable!("a tile has at most {FRAMES} frames") } };
            }
            run!(1 2 3 4 5);
            frame += size;
        }
    }
}

/// Fetches a line into the cache. Any address is allowed.
#[inline]
#[target_feature(enable = "avx2")]
#[allow(unused_unsafe)] // the intrinsic is safe in later versions of the standard library
fn fetch<T>(line: *const T) {
    // SAFETY: a prefetch accesses nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
}

/// 16 weights, widened: two inputs of 8 rows. `part` 0 … 3 is the quarter of the line.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(line: &Weights, part: usize) -> __m256i {
    let quarter = &line.0[16 * part..][..16];
    // SAFETY: the slice is 16 bytes.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(quarter.as_ptr().cast()) })
}

/// Adds the sums of 8 rows each to the biases.
#[inline]
#[target_feature(enable = "avx2")]
fn join(sums: [__m256i; 2], bias: &[i32; ROWS]) -> [i32; ROWS] {
    let mut acc = [0; ROWS];
    for half in 0..2 {
        // Reads 8 of 16 values, from 0 or 8 on.
        unsafe {
            let bias = _mm256_loadu_si256(bias.as_ptr().add(8 * half).cast());
            _mm256_storeu_si256(acc.as_mut_ptr().add(8 * half).cast(), _mm256_add_epi32(sums[half], bias));
        }
    }
    acc
}

/// The sums of a block of rows for `F` frames. Each row of `x` is as long as the block has inputs.
#[inline]
#[target_feature(enable = "avx2")]
fn tile<const F: usize>(weights: &[Weights], x: [&[i16]; F], bias: &[i32; ROWS]) -> [[i32; ROWS]; F] {
    let mut acc = [[_mm256_setzero_si256(); 2]; F];
    assert!(x.iter().all(|x| x.len() >= 4 * weights.len()));
    for (g, line) in weights.iter().enumerate() {
        for pair in 0..2 {
            let (w0, w1) = (widen(line, 2 * pair), widen(line, 2 * pair + 1));
            for f in 0..F {
                // SAFETY: a line is for 4 values of x, whose length was asserted.
                let x = unsafe { x[f].as_ptr().add(4 * g + 2 * pair).cast::<i32>().read_unaligned() };
                let x = _mm256_set1_epi32(x);
                acc[f][0] = _mm256_add_epi32(acc[f][0], _mm256_madd_epi16(w0, x));
                acc[f][1] = _mm256_add_epi32(acc[f][1], _mm256_madd_epi16(w1, x));
            }
        }
    }
    let mut sums = [[0; ROWS]; F];
    for f in 0..F {
        sums[f] = join(acc[f], bias);
    }
    sums
}

/// The sums of a block of rows for one frame. Reading the weights from memory limits its speed.
#[inline]
#[target_feature(enable = "avx2")]
fn one(weights: &[Weights], x: &[i16], bias: &[i32; ROWS]) -> [i32; ROWS] {
    let mut acc = [[_mm256_setzero_si256(); 2]; 4];
    // Inputs are padded to 32, so groups of 4 come in pairs.
    let (chunks, rest) = weights.as_chunks::<2>();
    assert!(rest.is_empty() && x.len() >= 8 * chunks.len());
    for (g, chunk) in chunks.iter().enumerate() {
        for i in 0..4 {
            if i % 2 == 0 {
                fetch(chunk.as_ptr().wrapping_add(i / 2 + AHEAD));
            }
            // SAFETY: two lines are for 8 values of x, whose length was asserted.
            let x = unsafe { x.as_ptr().add(8 * g + 2 * i).cast::<i32>().read_unaligned() };
            let x = _mm256_set1_epi32(x);
            for half in 0..2 {
                let w = widen(&chunk[i / 2], 2 * (i % 2) + half);
                acc[i][half] = _mm256_add_epi32(acc[i][half], _mm256_madd_epi16(w, x));
            }
        }
    }
    let mut sums = acc[0];
    for acc in &acc[1..] {
        sums = [_mm256_add_epi32(sums[0], acc[0]), _mm256_add_epi32(sums[1], acc[1])];
    }
    join(sums, bias)
}

#[target_feature(enable = "avx2")]
fn scale(input: &[i16], scale: &Scale, x: &mut [i16]) {
    lanes::scale(input, scale, x);
}

#[target_feature(enable = "avx2")]
fn norm(x: &[i16], numerator: i64, y: &mut [i16]) {
    lanes::norm(x, numerator, y);
}

#[target_feature(enable = "avx2")]
fn attend(head: &Head<'_>, q: &[i32], buffers: &mut Buffers, a: &mut [i16]) {
    let largest = scores(head, q, &mut buffers.z);
    let groups = head.spans[0].groups + head.spans[1].groups;
    let sum = lanes::exponentials(head.exp, &buffers.z[..groups * GROUP], largest, &mut buffers.e);
    let o = &mut buffers.o[..a.len()];
    weigh(head, &buffers.e, o);
    lanes::average(sum, o, a);
}

/// Half 0 or 1 of a line.
#[inline]
#[target_feature(enable = "avx2")]
fn load(line: &Line, half: usize) -> __m256i {
    let values = &line.0[16 * half..][..16];
    // SAFETY: the slice is 32 bytes.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// Step 2: z of all slots of both spans, one after the other; the largest of them.
#[inline]
#[target_feature(enable = "avx2")]
fn scores(head: &Head<'_>, q: &[i32], z: &mut [i32]) -> i32 {
    let mut largest = _mm256_set1_epi32(i32::MIN);
    let row = head.slots / 16;
    let mut z = z.as_chunks_mut::<8>().0.iter_mut();
    for span in head.spans {
        let mut position = head.score.position[span.position..].as_chunks::<8>().0.iter();
        for first in (2 * span.group..2 * (span.group + span.groups)).step_by(2) {
            let mut dot = [_mm256_setzero_si256(); 4];
            for (j, &q) in q.iter().enumerate() {
                let k = &head.k[j * row + first..][..2];
                if head.fetch {
                    fetch(k.as_ptr().wrapping_add(head.k.len()));
                    fetch(k.as_ptr().wrapping_add(head.k.len() + 1));
                }
                let q = _mm256_set1_epi32(q);
                for (i, dot) in dot.iter_mut().enumerate() {
                    *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(load(&k[i / 2], i % 2), q));
                }
            }
            for dot in dot {
                let (Some(z), Some(position)) = (z.next(), position.next()) else { unreachable!("z has room") };
                let score = score(dot, head.score.multiplier, head.score.shift);
                // SAFETY: both are 32 bytes.
                unsafe {
                    let score = _mm256_add_epi32(score, _mm256_loadu_si256(position.as_ptr().cast()));
                    _mm256_storeu_si256(z.as_mut_ptr().cast(), score);
                    largest = _mm256_max_epi32(largest, score);
                }
            }
        }
    }
    let mut lanes = [0i32; 8];
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), largest) };
    lanes.into_iter().max().unwrap_or(0)
}

/// clamp(round_shift(dot · multiplier, shift), ± 2^20) in 32 bits; products in 64.
#[inline]
#[target_feature(enable = "avx2")]
fn score(dot: __m256i, multiplier: i32, shift: u8) -> __m256i {
    // AVX2 has no arithmetic shift of 64 bits: 2^47 makes the product positive, and is subtracted again after the
    // shift. The product is below 2^46 in magnitude, half of 2^shift at most 2^45.
    let multiplier = _mm256_set1_epi32(multiplier);
    let above = _mm256_set1_epi64x((1 << 47) + (1 << (shift - 1)));
    let off = _mm256_set1_epi64x(1 << (47 - shift));
    let count = _mm_cvtsi32_si128(i32::from(shift));
    let (low, high) = (_mm256_set1_epi64x((-WIDE_MAX).into()), _mm256_set1_epi64x(WIDE_MAX.into()));
    let scaled = |dot| {
        let product = _mm256_add_epi64(_mm256_mul_epi32(dot, multiplier), above);
        let y = _mm256_sub_epi64(_mm256_srl_epi64(product, count), off);
        let y = _mm256_blendv_epi8(y, low, _mm256_cmpgt_epi64(low, y));
        _mm256_blendv_epi8(y, high, _mm256_cmpgt_epi64(y, high))
    };
    let even = scaled(dot);
    let odd = scaled(_mm256_srli_epi64::<32>(dot));
    _mm256_blend_epi32::<0xAA>(even, _mm256_slli_epi64::<32>(odd))
}

/// Step 5: Σ e · v of every element.
#[inline]
#[target_feature(enable = "avx2")]
fn weigh(head: &Head<'_>, e: &[i16], o: &mut [i64]) {
    let row = head.slots / GROUP;
    let e = e.as_chunks::<GROUP>().0;
    let (fours, ones) = o.as_chunks_mut::<4>();
    let split = 4 * fours.len();
    for (i, o) in fours.iter_mut().enumerate() {
        let v = |lane: usize| &head.v[(4 * i + lane) * row..][..row];
        *o = weigh_rows::<4>(head, e, [v(0), v(1), v(2), v(3)]);
    }
    for (i, o) in ones.iter_mut().enumerate() {
        [*o] = weigh_rows::<1>(head, e, [&head.v[(split + i) * row..][..row]]);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn weigh_rows<const N: usize>(head: &Head<'_>, e: &[[i16; GROUP]], v: [&[Line]; N]) -> [i64; N] {
    let mut total = [0i64; N];
    let mut acc = [_mm256_setzero_si256(); N];
    let mut e = e.iter();
    let mut pending = 0;
    for span in head.spans {
        for group in span.group..span.group + span.groups {
            let Some(e) = e.next() else { unreachable!("e has room") };
            if head.fetch {
                for v in v {
                    fetch(std::ptr::from_ref(&v[group]).wrapping_add(head.v.len()));
                }
            }
            for half in 0..2 {
                // SAFETY: half of 64 bytes.
                let e = unsafe { _mm256_loadu_si256(e.as_ptr().add(16 * half).cast()) };
                for lane in 0..N {
                    let products = _mm256_madd_epi16(e, load(&v[lane][group], half));
                    acc[lane] = _mm256_add_epi32(acc[lane], products);
                }
            }
            pending += 1;
            // The sum over 256 frames is at most 256 · 4,095 · 2,047 < 2^31.
            if head.long && pending == 256 / GROUP {
                for lane in 0..N {
                    total[lane] += i64::from(add_lanes(acc[lane]));
                }
                acc = [_mm256_setzero_si256(); N];
                pending = 0;
            }
        }
    }
    for lane in 0..N {
        total[lane] += i64::from(add_lanes(acc[lane]));
    }
    total
}

/// The sum of 8 values, which fits.
#[inline]
#[target_feature(enable = "avx2")]
fn add_lanes(x: __m256i) -> i32 {
    let x = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
    let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x));
    _mm_cvtsi128_si32(x)
}
