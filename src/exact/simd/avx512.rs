//! The AVX-512 VNNI arm.
//!
//! Weights stay 8 bits wide. An activation x, 16 bits, is split as x + 32,768 = 256·h + l with bytes h and l, and
//! `vpdpbusd` sums products of unsigned and signed bytes: Σ w·x = 256·Σ w·h + Σ w·l − 32,768·Σ w. Each of the byte sums
//! is below 2^24 by the row bound (\[MODEL-4\]), so nothing saturates. The combined sum may pass through values beyond
//! 32 bits, but it is computed modulo 2^32 and its result, the sum of spec 5.1, fits.

// Loops over several registers or rows in parallel read best with an index.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::super::PART;
use super::super::ring::{GROUP, Line};
use super::fast::{Buffers, Head, Kernels, Matrix};
use super::lanes::{self, Sink};
use super::packed::{EXP_PADDED, Order, Scale, Weights};
use crate::model::network::{EXP_LEN, WIDE_MAX};

/// Proof that the CPU has this arm's instructions.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// Rows of a block of weights.
const ROWS: usize = 32;
/// The most frames of a register tile.
const FRAMES: usize = 6;
/// Lines of weights that stay in the first cache: 768 inputs of a block.
const PIECE: usize = 384;
/// How many lines ahead the weights of a single frame are fetched.
const AHEAD: usize = 48;

impl Avx512 {
    pub(super) fn detect() -> Option<Avx512> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        all.then_some(Avx512(()))
    }
}

impl Kernels for Avx512 {
    const ORDER: Order = Order { rows: ROWS, inputs: 4, place: |row, input| 4 * row + input, bias: 32_768 };

    fn prepare(&self, x: &mut [i16]) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { prepare(x) }
    }

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

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn load<T>(line: &T) -> __m512i {
    const { assert!(size_of::<T>() == 64 && align_of::<T>() == 64) }
    // SAFETY: the reference is to 64 aligned bytes.
    unsafe { _mm512_load_si512(std::ptr::from_ref(line).cast()) }
}

/// Fetches a line into the cache. Any address is allowed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[allow(unused_unsafe)] // the intrinsic is safe in later versions of the standard library
fn fetch<const HINT: i32, T>(line: *const T) {
    // SAFETY: a prefetch accesses nothing.
    unsafe { _mm_prefetch::<HINT>(line.cast()) }
}

/// Turns every four values into their four low bytes and their four high bytes, each plus 32,768.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn prepare(x: &mut [i16]) {
    let order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    let sign = _mm512_set1_epi16(i16::MIN);
    let (chunks, rest) = x.as_chunks_mut::<32>();
    debug_assert!(rest.is_empty());
    for chunk in chunks {
        let to = chunk.as_mut_ptr().cast();
        // SAFETY: the chunk is 64 bytes.
        unsafe {
            let bytes = _mm512_shuffle_epi8(_mm512_xor_si512(_mm512_loadu_si512(to), sign), order);
            _mm512_storeu_si512(to, bytes);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn linear(matrix: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, mut sink: Sink<'_>) {
    let inputs = matrix.layer.inputs;
    let lines = inputs / 4 * (ROWS / 16);
    assert!(frames <= PART);
    let mut acc = [[0; ROWS]; PART];
    for (b, weights) in matrix.weights.chunks_exact(lines).enumerate() {
        let row = b * ROWS;
        let bias: &[i32; ROWS] = matrix.layer.bias[row..].first_chunk().expect("rows are padded");
        acc[..frames].fill(*bias);
        if frames == 1 {
            one(weights, &x[..inputs], &mut acc[0]);
        } else {
            // A piece of the weights stays in the first cache while all frames use it.
            for (piece, weights) in weights.chunks(PIECE).enumerate() {
                let x = &x[piece * PIECE * 2..];
                let mut frame = 0;
                while frame < frames {
                    // Tiles of nearly the same size.
                    let tiles = (frames - frame).div_ceil(FRAMES);
                    let size = (frames - frame).div_ceil(tiles);
                    let x = &x[frame * stride..];
                    let acc = &mut acc[frame..];
                    match (size, frame) {
                        (6, 0) => tile::<6, true>(weights, x, stride, acc),
                        (6, _) => tile::<6, false>(weights, x, stride, acc),
                        (5, _) => tile::<5, true>(weights, x, stride, acc),
                        (4, _) => tile::<4, true>(weights, x, stride, acc),
                        (3, _) => tile::<3, true>(weights, x, stride, acc),
                        (2, _) => tile::<2, true>(weights, x, stride, acc),
                        _ => tile::<1, true>(weights, x, stride, acc),
                    }
                    frame += size;
                }
            }
        }
        for (frame, acc) in acc[..frames].iter().enumerate() {
            sink.store(frame, row, acc, matrix.scale);
        }
    }
}

/// Adds 256·high + low, modulo 2^32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn join(low: [__m512i; 2], high: [__m512i; 2], acc: &mut [i32; ROWS]) {
    for half in 0..2 {
        let sum = _mm512_add_epi32(_mm512_slli_epi32::<8>(high[half]), low[half]);
        // SAFETY: 16 of 32 values from 0 or 16 on.
        unsafe {
            let to = acc.as_mut_ptr().add(16 * half).cast();
            _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_loadu_si512(to), sum));
        }
    }
}

/// Adds the sums of a block of rows over some inputs for `F` frames. Rows of prepared inputs are `stride` values apart.
/// With `FETCH` the weights after these, which the next call uses, are fetched.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const F: usize, const FETCH: bool>(weights: &[Weights], x: &[i16], stride: usize, acc: &mut [[i32; ROWS]]) {
    let acc: &mut [[i32; ROWS]; F] = acc.first_chunk_mut().expect("sums of every frame");
    let mut low = [[_mm512_setzero_si512(); 2]; F];
    let mut high = [[_mm512_setzero_si512(); 2]; F];
    let (pairs, _) = weights.as_chunks::<2>();
    // No stride may wrap.
    let needed = (F - 1).checked_mul(stride).and_then(|rows| rows.checked_add(4 * pairs.len()));
    assert!(needed.is_some_and(|needed| x.len() >= needed));
    for (g, [w0, w1]) in pairs.iter().enumerate() {
        if FETCH {
            fetch::<_MM_HINT_T1, _>(std::ptr::from_ref(w0).wrapping_add(weights.len()));
            fetch::<_MM_HINT_T1, _>(std::ptr::from_ref(w1).wrapping_add(weights.len()));
        }
        let (w0, w1) = (load(w0), load(w1));
        for f in 0..F {
            // SAFETY: a group is 4 values of a row of x, whose length was asserted.
            let (l, h) = unsafe {
                let at = x.as_ptr().add(f * stride + 4 * g).cast::<i32>();
                (_mm512_set1_epi32(at.read_unaligned()), _mm512_set1_epi32(at.add(1).read_unaligned()))
            };
            low[f][0] = _mm512_dpbusd_epi32(low[f][0], l, w0);
            low[f][1] = _mm512_dpbusd_epi32(low[f][1], l, w1);
            high[f][0] = _mm512_dpbusd_epi32(high[f][0], h, w0);
            high[f][1] = _mm512_dpbusd_epi32(high[f][1], h, w1);
        }
    }
    for f in 0..F {
        join(low[f], high[f], &mut acc[f]);
    }
}

/// Adds the sums of a block of rows for one frame. Reading the weights from memory limits its speed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn one(weights: &[Weights], x: &[i16], acc: &mut [i32; ROWS]) {
    let zero = _mm512_setzero_si512();
    let mut low = [[zero; 2]; 4];
    let mut high = [[zero; 2]; 4];
    // Inputs are padded to 32, so groups of 4 come in fours.
    let (chunks, rest) = weights.as_chunks::<8>();
    assert!(rest.is_empty() && x.len() >= 16 * chunks.len());
    for (g, chunk) in chunks.iter().enumerate() {
        for i in 0..4 {
            fetch::<_MM_HINT_T0, _>(chunk.as_ptr().wrapping_add(2 * i + AHEAD));
            fetch::<_MM_HINT_T0, _>(chunk.as_ptr().wrapping_add(2 * i + 1 + AHEAD));
            // SAFETY: a group is 4 values of x, whose length was asserted.
            let (l, h) = unsafe {
                let at = x.as_ptr().add(16 * g + 4 * i).cast::<i32>();
                (_mm512_set1_epi32(at.read_unaligned()), _mm512_set1_epi32(at.add(1).read_unaligned()))
            };
            for half in 0..2 {
                let w = load(&chunk[2 * i + half]);
                low[i][half] = _mm512_dpbusd_epi32(low[i][half], l, w);
                high[i][half] = _mm512_dpbusd_epi32(high[i][half], h, w);
            }
        }
    }
    for i in 0..4 {
        join(low[i], high[i], acc);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn scale(input: &[i16], scale: &Scale, x: &mut [i16]) {
    lanes::scale(input, scale, x);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn norm(x: &[i16], numerator: i64, y: &mut [i16]) {
    lanes::norm(x, numerator, y);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn attend(head: &Head<'_>, q: &[i32], buffers: &mut Buffers, a: &mut [i16]) {
    let largest = scores(head, q, &mut buffers.z);
    let groups = head.spans[0].groups + head.spans[1].groups;
    let sum = exponentials(head.exp, &buffers.z[..groups * GROUP], largest, &mut buffers.e);
    let o = &mut buffers.o[..a.len()];
    weigh(head, &buffers.e, o);
    lanes::average(sum, o, a);
}

/// Step 2: z of all slots of both spans, one after the other; the largest of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn scores(head: &Head<'_>, q: &[i32], z: &mut [i32]) -> i32 {
    let mut largest = _mm512_set1_epi32(i32::MIN);
    let row = head.slots / 16;
    let mut z = z.as_chunks_mut::<16>().0.iter_mut();
    for span in head.spans {
        let mut position = head.score.position[span.position..].as_chunks::<16>().0.iter();
        let lines = 2 * span.group..2 * (span.group + span.groups);
        for first in lines.step_by(2) {
            let mut dot = [_mm512_setzero_si512(); 2];
            for (j, &q) in q.iter().enumerate() {
                let k = &head.k[j * row + first..][..2];
                if head.fetch {
                    fetch::<_MM_HINT_T0, _>(k.as_ptr().wrapping_add(head.k.len()));
                    fetch::<_MM_HINT_T0, _>(k.as_ptr().wrapping_add(head.k.len() + 1));
                }
                let q = _mm512_set1_epi32(q);
                dot[0] = _mm512_dpwssd_epi32(dot[0], load(&k[0]), q);
                dot[1] = _mm512_dpwssd_epi32(dot[1], load(&k[1]), q);
            }
            for dot in dot {
                let (Some(z), Some(position)) = (z.next(), position.next()) else { unreachable!("z has room") };
                let score = score(dot, head.score.multiplier, head.score.shift);
                // SAFETY: both are 64 bytes.
                unsafe {
                    let score = _mm512_add_epi32(score, _mm512_loadu_si512(position.as_ptr().cast()));
                    _mm512_storeu_si512(z.as_mut_ptr().cast(), score);
                    largest = _mm512_max_epi32(largest, score);
                }
            }
        }
    }
    _mm512_reduce_max_epi32(largest)
}

/// clamp(round_shift(dot · multiplier, shift), ± 2^20) in 32 bits; products in 64.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn score(dot: __m512i, multiplier: i32, shift: u8) -> __m512i {
    let multiplier = _mm512_set1_epi32(multiplier);
    let half = _mm512_set1_epi64(1 << (shift - 1));
    let count = _mm_cvtsi32_si128(i32::from(shift));
    let (low, high) = (_mm512_set1_epi64((-WIDE_MAX).into()), _mm512_set1_epi64(WIDE_MAX.into()));
    let scaled = |dot| {
        let product = _mm512_add_epi64(_mm512_mul_epi32(dot, multiplier), half);
        _mm512_min_epi64(_mm512_max_epi64(_mm512_sra_epi64(product, count), low), high)
    };
    let even = scaled(dot);
    let odd = scaled(_mm512_srli_epi64::<32>(dot));
    _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64::<32>(odd))
}

/// Step 3: e of all slots, 0 for those outside the window; their sum, below 2^24.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn exponentials(exp: &[i32], z: &[i32], largest: i32, e: &mut [i16]) -> i32 {
    assert!(exp.len() >= EXP_PADDED);
    let largest = _mm512_set1_epi32(largest);
    let last = _mm512_set1_epi32(EXP_LEN as i32 - 1);
    let end = _mm512_set1_epi32(EXP_PADDED as i32 - 1);
    let mut sum = _mm512_setzero_si512();
    for (z, e) in z.as_chunks::<16>().0.iter().zip(e.as_chunks_mut::<16>().0) {
        // SAFETY: z is 64 bytes and e 32. For scores, an index is from 0 to EXP_PADDED − 1 (see NOWHERE); for any other
        // values the last minimum makes it so.
        unsafe {
            let below = _mm512_sub_epi32(largest, _mm512_loadu_si512(z.as_ptr().cast()));
            let index = _mm512_max_epi32(_mm512_min_epi32(below, last), _mm512_srai_epi32::<20>(below));
            let index = _mm512_min_epu32(index, end);
            let value = _mm512_i32gather_epi32::<4>(index, exp.as_ptr());
            sum = _mm512_add_epi32(sum, value);
            _mm256_storeu_si256(e.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(value));
        }
    }
    _mm512_reduce_add_epi32(sum)
}

/// Step 5: Σ e · v of every element.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn weigh_rows<const N: usize>(head: &Head<'_>, e: &[[i16; GROUP]], v: [&[Line]; N]) -> [i64; N] {
    let mut total = [0i64; N];
    let mut acc = [_mm512_setzero_si512(); N];
    let mut e = e.iter();
    let mut pending = 0;
    for span in head.spans {
        for group in span.group..span.group + span.groups {
            let Some(e) = e.next() else { unreachable!("e has room") };
            // SAFETY: e is 64 bytes.
            let e = unsafe { _mm512_loadu_si512(e.as_ptr().cast()) };
            for lane in 0..N {
                if head.fetch {
                    fetch::<_MM_HINT_T0, _>(std::ptr::from_ref(&v[lane][group]).wrapping_add(head.v.len()));
                }
                acc[lane] = _mm512_dpwssd_epi32(acc[lane], e, load(&v[lane][group]));
            }
            pending += 1;
            // The sum over 256 frames is at most 256 · 4,095 · 2,047 < 2^31.
            if head.long && pending == 256 / GROUP {
                add_lanes(acc, &mut total);
                acc = [_mm512_setzero_si512(); N];
                pending = 0;
            }
        }
    }
    add_lanes(acc, &mut total);
    total
}

/// Adds to each total the sum of its vector's 16 values, which fits 32 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn add_lanes<const N: usize>(acc: [__m512i; N], total: &mut [i64; N]) {
    if let (Some([a, b, c, d]), Some(total)) = (acc.first_chunk::<4>(), total.first_chunk_mut::<4>()) {
        // Halves the number of vectors twice; lane i of each quarter then belongs to vector i.
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(*a, *b), _mm512_unpackhi_epi32(*a, *b));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(*c, *d), _mm512_unpackhi_epi32(*c, *d));
        let all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        let half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
        let sums = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
        let mut four = [0i32; 4];
        // SAFETY: 16 bytes.
        unsafe { _mm_storeu_si128(four.as_mut_ptr().cast(), sums) };
        for (total, sum) in total.iter_mut().zip(four) {
            *total += i64::from(sum);
        }
    } else {
        for (total, acc) in total.iter_mut().zip(acc) {
            *total += i64::from(_mm512_reduce_add_epi32(acc));
        }
    }
}
