//! The portable arm: vectors of 128 bits.
//!
//! One implementation for all targets. `vectors` is the target's own file: it has the few operations that attention
//! needs, and one or more ways to sum products of weights and activations, [`Dot`], of which the CPU's best is taken.
//!
//! Sums are modulo 2^32 everywhere. The sum of spec 5.1 fits by the row bound (\[MODEL-4\]), so that it does not matter
//! whether a partial sum does.

// Loops over several registers or rows in parallel read best with an index.
#![allow(clippy::needless_range_loop)]

#[cfg_attr(target_arch = "x86_64", path = "sse.rs")]
#[cfg_attr(target_arch = "aarch64", path = "neon.rs")]
#[cfg_attr(target_arch = "wasm32", path = "simd128.rs")]
mod vectors;

pub(super) use vectors::{instructions, steps};

use super::super::ring::{GROUP, Line};
use super::fast::{Buffers, Head, Kernels, Matrix};
use super::lanes::{self, Sink};
use super::packed::{Order, Scale, Score, Weights};
use crate::model::network::WIDE_MAX;

/// How many lines ahead the weights of a single frame are fetched.
const AHEAD: usize = 48;

/// A way to sum products of weights and activations. A value of the type proves that the CPU has its instructions.
///
/// A line of weights is four vectors of 16 weights. Each is multiplied with the same activations, and has sums of its
/// own rows.
trait Dot: Copy + Send + Sync + 'static {
    /// The order of weights. A block of rows is one line wide: `rows` · `inputs` = 64, so 16 or 8 rows.
    const ORDER: Order;
    /// The most frames whose sums stay in registers: 1 … 6.
    const FRAMES: usize;
    /// Weights of one vector, as they are multiplied.
    type Weights: Copy;
    /// A line's activations of one frame, as they are multiplied.
    type Input: Copy;
    /// Sums of one vector's rows.
    type Sums: Copy;

    /// Puts activations into the order that [`Dot::input`] reads.
    fn prepare(self, x: &mut [i16]);

    /// Calls [`linear`] where the compiler may use the instructions.
    fn linear(self, layer: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, sink: Sink<'_>);

    /// Fetches a line into the cache, where the CPU does not do it by itself. Any address is allowed.
    fn fetch(self, _line: *const Weights) {}

    /// # Safety
    /// `x` is readable for `ORDER.inputs` values.
    unsafe fn input(self, x: *const i16) -> Self::Input;

    fn weights(self, weights: &[i8; 16]) -> Self::Weights;

    fn zero(self) -> Self::Sums;

    /// Adds the products.
    fn add(self, sums: Self::Sums, weights: Self::Weights, input: Self::Input) -> Self::Sums;

    /// Adds sums of the same rows.
    fn join(self, a: Self::Sums, b: Self::Sums) -> Self::Sums;

    /// The sum of each row of a block.
    fn rows(self, sums: [Self::Sums; 4]) -> [i32; 16];
}

/// The arm with a way to sum products.
#[derive(Clone, Copy)]
struct Portable<D>(D);

impl<D: Dot> Kernels for Portable<D> {
    const ORDER: Order = D::ORDER;

    fn prepare(&self, x: &mut [i16]) {
        self.0.prepare(x);
    }

    fn linear(&self, layer: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, sink: Sink<'_>) {
        self.0.linear(layer, x, stride, frames, sink);
    }

    fn scale(&self, input: &[i16], scale: &Scale, x: &mut [i16]) {
        lanes::scale(input, scale, x);
    }

    fn norm(&self, x: &[i16], numerator: i64, y: &mut [i16]) {
        lanes::norm(x, numerator, y);
    }

    fn attend(&self, head: &Head<'_>, q: &[i32], buffers: &mut Buffers, a: &mut [i16]) {
        let largest = scores(head, q, &mut buffers.z);
        let groups = head.spans[0].groups + head.spans[1].groups;
        let sum = lanes::exponentials(head.exp, &buffers.z[..groups * GROUP], largest, &mut buffers.e);
        let o = &mut buffers.o[..a.len()];
        weigh(head, &buffers.e, o);
        lanes::average(sum, o, a);
    }
}

/// Spec 5.1, see [`Kernels::linear`].
#[inline(always)]
fn linear<D: Dot>(dot: D, matrix: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, mut sink: Sink<'_>) {
    const { assert!(D::ORDER.rows * D::ORDER.inputs == 64 && D::ORDER.rows.is_multiple_of(8) && D::ORDER.rows <= 16) }
    let rows = D::ORDER.rows;
    let inputs = matrix.layer.inputs;
    for (b, weights) in matrix.weights.chunks_exact(inputs / D::ORDER.inputs).enumerate() {
        let bias = &matrix.layer.bias[b * rows..][..rows];
        let mut frame = 0;
        while frame < frames {
            // Tiles of nearly the same size.
            let tiles = (frames - frame).div_ceil(D::FRAMES);
            let size = (frames - frame).div_ceil(tiles);
            macro_rules! run {
                ($($n:literal)+) => { match size {
                    $($n if $n <= D::FRAMES => {
                        let mut own: [&[i16]; $n] = [&[]; $n];
                        for f in 0..$n {
                            own[f] = &x[(frame + f) * stride..][..inputs];
                        }
                        let sums = if $n == 1 { [one(dot, weights, own[0]); $n] } else { tile(dot, weights, own) };
                        for f in 0..$n {
                            store(dot.rows(sums[f]), bias, &mut sink, frame + f, b * rows, matrix.scale);
                        }
                    })+
                    _ => unreachable!("a tile has at most FRAMES frames"),
                } };
            }
            run!(1 2 3 4 5 6);
            frame += size;
        }
    }
}

/// Hands the sums of the rows from `row` on to the sink, as many as there are biases.
#[inline(always)]
fn store(sums: [i32; 16], bias: &[i32], sink: &mut Sink<'_>, frame: usize, row: usize, scale: &Scale) {
    let eights = sums.as_chunks::<8>().0.iter().zip(bias.as_chunks::<8>().0);
    for (i, (sums, bias)) in eights.enumerate() {
        let mut acc = [0; 8];
        for i in 0..8 {
            acc[i] = sums[i].wrapping_add(bias[i]);
        }
        sink.store(frame, row + 8 * i, &acc, scale);
    }
}

/// The four vectors of a line.
#[inline(always)]
fn quarters(line: &Weights) -> &[[i8; 16]; 4] {
    line.0.as_chunks().0.try_into().expect("64 weights")
}

/// The sums of a block of rows for `F` frames. Each row of `x` is as long as the block has inputs.
#[inline(always)]
fn tile<D: Dot, const F: usize>(dot: D, weights: &[Weights], x: [&[i16]; F]) -> [[D::Sums; 4]; F] {
    let mut sums = [[dot.zero(); 4]; F];
    for f in 0..F {
        assert!(x[f].len() >= D::ORDER.inputs * weights.len());
    }
    for (g, line) in weights.iter().enumerate() {
        // SAFETY: a line is for ORDER.inputs values of x, whose length was asserted.
        let input = |f: usize| unsafe { dot.input(x[f].as_ptr().add(D::ORDER.inputs * g)) };
        let mut inputs = [input(0); F];
        for f in 1..F {
            inputs[f] = input(f);
        }
        for (i, quarter) in quarters(line).iter().enumerate() {
            let weights = dot.weights(quarter);
            for f in 0..F {
                sums[f][i] = dot.add(sums[f][i], weights, inputs[f]);
            }
        }
    }
    sums
}

/// The sums of a block of rows for one frame, in two sets of sums, so that products need not wait for one another.
#[inline(always)]
fn one<D: Dot>(dot: D, weights: &[Weights], x: &[i16]) -> [D::Sums; 4] {
    let mut sums = [[dot.zero(); 4]; 2];
    // Inputs are padded to 32, so groups of 4 or 8 come in pairs.
    let (pairs, rest) = weights.as_chunks::<2>();
    assert!(rest.is_empty() && x.len() >= 2 * D::ORDER.inputs * pairs.len());
    for (g, lines) in pairs.iter().enumerate() {
        for half in 0..2 {
            dot.fetch(lines.as_ptr().wrapping_add(half + AHEAD));
            // SAFETY: two lines are for twice ORDER.inputs values of x, whose length was asserted.
            let input = unsafe { dot.input(x.as_ptr().add(D::ORDER.inputs * (2 * g + half))) };
            for (i, quarter) in quarters(&lines[half]).iter().enumerate() {
                sums[half][i] = dot.add(sums[half][i], dot.weights(quarter), input);
            }
        }
    }
    let [mut all, other] = sums;
    for i in 0..4 {
        all[i] = dot.join(all[i], other[i]);
    }
    all
}

/// Step 2: z of all slots of both spans, one after the other; the largest of them.
#[inline(always)]
fn scores(head: &Head<'_>, q: &[i32], z: &mut [i32]) -> i32 {
    let Score { multiplier, shift, .. } = *head.score;
    let reach = vectors::splat(reach(multiplier, shift));
    let back = vectors::sub(vectors::splat(0), reach);
    let (high, low) = (vectors::splat(WIDE_MAX), vectors::splat(-WIDE_MAX));
    let mut largest = vectors::splat(i32::MIN);
    let row = head.slots / 16;
    let mut z = z.as_chunks_mut::<4>().0.iter_mut();
    for span in head.spans {
        let mut position = head.score.position[span.position..].as_chunks::<4>().0.iter();
        for line in 2 * span.group..2 * (span.group + span.groups) {
            let mut dot = [vectors::splat(0); 4];
            for (j, &q) in q.iter().enumerate() {
                let (k, _) = head.k[j * row + line].0.as_chunks::<16>();
                for half in 0..2 {
                    let sums = vectors::add_pairs([dot[2 * half], dot[2 * half + 1]], &k[half], q);
                    [dot[2 * half], dot[2 * half + 1]] = sums;
                }
            }
            for dot in dot {
                let (Some(z), Some(position)) = (z.next(), position.next()) else { unreachable!("z has room") };
                let dot = vectors::min(vectors::max(dot, back), reach);
                let score = vectors::scaled(dot, multiplier, shift);
                let score = vectors::min(vectors::max(score, low), high);
                let score = vectors::add(score, vectors::load(position));
                *z = vectors::store(score);
                largest = vectors::max(largest, score);
            }
        }
    }
    vectors::store(largest).into_iter().max().unwrap_or(0)
}

/// The least sum of products from which a score is clamped in any case: sums are clamped to it before they are scaled,
/// so that scaled ones fit 32 bits.
///
/// With d · m ≥ 2^(20 + s), the score (d · m + 2^(s − 1)) >> s is at least 2^20, and with −d it is at most −2^20. For
/// the least such d it is within 2^20 + m + 1. Products are below 2^46 in magnitude, so from shifts of 42 on any limit
/// above will do.
fn reach(multiplier: i32, shift: u8) -> i32 {
    let limit = 1i64 << (20 + shift).min(62);
    let multiplier = i64::from(multiplier.max(1));
    ((limit + multiplier - 1) / multiplier).min(i32::MAX.into()) as i32
}

/// Step 5: Σ e · v of every element.
#[inline(always)]
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

#[inline(always)]
fn weigh_rows<const N: usize>(head: &Head<'_>, e: &[[i16; GROUP]], v: [&[Line]; N]) -> [i64; N] {
    let mut total = [0i64; N];
    let mut acc = [vectors::splat(0); N];
    let mut e = e.iter();
    let mut pending = 0;
    for span in head.spans {
        for group in span.group..span.group + span.groups {
            let Some(e) = e.next() else { unreachable!("e has room") };
            let (e, _) = e.as_chunks::<8>();
            for lane in 0..N {
                let (v, _) = v[lane][group].0.as_chunks::<8>();
                for part in 0..GROUP / 8 {
                    acc[lane] = vectors::add_products(acc[lane], &e[part], &v[part]);
                }
            }
            pending += 1;
            // The sum over 256 frames is at most 256 · 4,095 · 2,047 < 2^31.
            if head.long && pending == 256 / GROUP {
                for lane in 0..N {
                    total[lane] += i64::from(vectors::sum(acc[lane]));
                }
                acc = [vectors::splat(0); N];
                pending = 0;
            }
        }
    }
    for lane in 0..N {
        total[lane] += i64::from(vectors::sum(acc[lane]));
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores near the bound where they are clamped, which differences of scores alone do not show.
    #[test]
    fn scores_are_those_of_64_bits() {
        let wide = i64::from(WIDE_MAX);
        let mut beyond = 0;
        for shift in 1..=46u8 {
            for multiplier in [0, 1, 2, 3, 1_000, 16_384, 32_766, 32_767] {
                let reach = reach(multiplier, shift);
                let near = [-1, 0, 1].map(|by: i32| reach.saturating_add(by));
                // The largest sum of products of spec 5.3 is 512 · 2,047².
                let all = [0, 1, 77_777, 1 << 20, 512 * 2_047 * 2_047].into_iter().chain(near).chain([reach / 2]);
                for dot in all.flat_map(|dot| [dot, -dot]) {
                    let exact = (i64::from(dot) * i64::from(multiplier) + (1 << (shift - 1))) >> shift;
                    beyond += usize::from(exact.abs() > wide);
                    let score = vectors::scaled(vectors::splat(dot.clamp(-reach, reach)), multiplier, shift);
                    let score = vectors::store(score).map(|score| i64::from(score).clamp(-wide, wide));
                    assert_eq!(score, [exact.clamp(-wide, wide); 4], "{dot} · {multiplier} >> {shift}");
                }
            }
        }
        assert!(beyond > 100);
    }
}
