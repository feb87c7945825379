//! The reference arm: spec chapter 5, section by section. No SIMD, no unsafe, no float, no overflow.
//!
//! Sums and products written with `wrapping_…` never wrap: the chapter's *Width* paragraphs prove it, and debug builds
//! assert it.

#![deny(
    clippy::float_arithmetic,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless
)]

use super::ring::Ring;
use super::{ArmSteps, Context, Part};
use crate::model::network::{
    ACTIVATION_MAX, ATTENTION_SHIFT, EXP_LEN, EXP_MAX, KEY_MAX, NORM_SHIFT, PRE_ACTIVATION_MAX, PRE_ACTIVATION_MIN,
    SQUARES_SHIFT, WIDE_MAX,
};
use crate::model::{Block, Linear, NetworkParameters};
use crate::number::{to_u64, to_usize};

/// The network as the model file has it.
pub(super) struct Plain(pub NetworkParameters);

/// Buffers of the width of a block, reused from frame to frame.
#[derive(Default)]
pub(super) struct Scratch {
    n: Vec<i16>,
    a: Vec<i16>,
    y: Vec<i16>,
    p: Vec<i16>,
    g: Vec<i16>,
    z: Vec<i32>,
}

impl Scratch {
    pub(super) fn memory_bytes(&self) -> usize {
        let shorts = [&self.n, &self.a, &self.y, &self.p, &self.g];
        shorts
            .iter()
            .map(|v| v.capacity().saturating_mul(2))
            .fold(self.z.capacity().saturating_mul(4), usize::saturating_add)
    }
}

/// Spec 1.1: (x + 2^(s−1)) >> s. Below 2^47 in magnitude before the shift wherever chapter 5 uses it.
fn round_shift(x: i64, s: u8) -> i64 {
    debug_assert!((1..=46).contains(&s) && x.unsigned_abs() < 1 << 47);
    x.wrapping_add(1 << s.wrapping_sub(1)) >> s
}

/// Clamps to bounds that fit 16 bits.
fn clamp(x: i64, low: i32, high: i32) -> i16 {
    // The clamped value fits, so the conversion never fails.
    i16::try_from(x.clamp(low.into(), high.into())).unwrap_or(0)
}

/// Spec 1.1.
fn clamp16(x: i64) -> i16 {
    clamp(x, -ACTIVATION_MAX, ACTIVATION_MAX)
}

/// Spec 5.1: the exact sum of row i.
fn sum(layer: &Linear, i: usize, x: &[i16]) -> i32 {
    let row = layer.weight.chunks_exact(layer.inputs).nth(i).unwrap_or(&[]);
    let bias = layer.bias[i];
    // [NET-1], [MODEL-4]: every partial sum is below 2^31 in magnitude.
    let acc = row.iter().zip(x).fold(bias, |acc, (&w, &x)| acc.wrapping_add(i32::from(w).wrapping_mul(x.into())));
    debug_assert_eq!(
        i64::from(acc),
        row.iter().zip(x).fold(i64::from(bias), |acc, (&w, &x)| acc.wrapping_add(i64::from(w).wrapping_mul(x.into())))
    );
    acc
}

/// Spec 5.1: a linear layer, clamped to `low` … `high`.
fn linear(layer: &Linear, x: &[i16], low: i32, high: i32, y: &mut Vec<i16>) {
    y.clear();
    y.extend((0..layer.outputs).map(|i| {
        // [NET-1]: below 2^46.
        let product = i64::from(sum(layer, i, x)).wrapping_mul(layer.multiplier[i].into());
        clamp(round_shift(product, layer.shift[i]), low, high)
    }));
}

/// Spec 5.2. [NET-2]
fn norm(x: &[i16], numerator: i64, y: &mut Vec<i16>) {
    // Below 2^43, times 2^8 below 2^51.
    let ss = x.iter().fold(0u64, |ss, &x| ss.wrapping_add(u64::from(x.unsigned_abs()).wrapping_pow(2)));
    let s = (ss << SQUARES_SHIFT).isqrt().max(1);
    debug_assert!(ss < 1 << 43 && s < 1 << 26);
    // At most 2^46, which fits.
    let r = i64::try_from(numerator.unsigned_abs().checked_div(s).unwrap_or(0)).unwrap_or(0);
    y.clear();
    y.extend(x.iter().map(|&x| {
        // At most 2^42: |x| · 16 ≤ s.
        let product = i64::from(x).wrapping_mul(r);
        debug_assert!(product.unsigned_abs() <= 1 << 42);
        clamp16(round_shift(product, NORM_SHIFT))
    }));
}

/// Spec 5.3, steps 2 to 5, for one frame: `t` is its number in the context, `q` its query. [NET-3]
fn attention(
    network: &NetworkParameters,
    b: usize,
    t: u64,
    q: &[i16],
    ring: &Ring,
    z: &mut Vec<i32>,
    a: &mut Vec<i16>,
) {
    let block = &network.blocks[b];
    let c = q.len().checked_div(network.heads[b]).unwrap_or(1);
    let window = to_u64(network.window);
    let first = t.saturating_sub(window.saturating_sub(1));
    a.clear();
    for (g, q) in q.chunks_exact(c).enumerate() {
        let from = g.saturating_mul(c);
        let position = block.position.chunks_exact(network.window).nth(g).unwrap_or(&[]);
        // Step 2.
        z.clear();
        z.extend((first..=t).map(|u| {
            let (k, _) = ring.frame(ring.slot(u));
            let k = (from..from.saturating_add(c)).map(|i| k[i >> 5].0[i & 31]);
            // Below 2^31: at most 512 elements of at most 2,047 each.
            let dot = q.iter().zip(k).fold(0i32, |dot, (&q, k)| dot.wrapping_add(i32::from(q).wrapping_mul(k.into())));
            let product = i64::from(dot).wrapping_mul(block.score_multiplier[g].into());
            let score = round_shift(product, block.score_shift[g]).clamp((-WIDE_MAX).into(), WIDE_MAX.into());
            let distance = to_usize(t.wrapping_sub(u));
            // At most 2^21 in magnitude.
            i32::try_from(score).unwrap_or(0).wrapping_add(position[distance])
        }));
        // Step 3: z now holds e.
        let largest = z.iter().copied().max().unwrap_or(0);
        for z in z.iter_mut() {
            let below = usize::try_from(largest.wrapping_sub(*z)).unwrap_or(0).min(EXP_LEN.saturating_sub(1));
            *z = network.exp[below].into();
        }
        // Step 4: from 4,095 to below 2^24.
        let total = z.iter().fold(0i64, |sum, &e| sum.wrapping_add(e.into()));
        debug_assert!((EXP_MAX.into()..1 << 24).contains(&total));
        let r = (1i64 << ATTENTION_SHIFT).checked_div(total).unwrap_or(0);
        // Step 5.
        a.extend((from..from.saturating_add(c)).map(|i| {
            let o = (first..=t).zip(z.iter()).fold(0i64, |o, (u, &e)| {
                let (_, v) = ring.frame(ring.slot(u));
                o.wrapping_add(i64::from(e).wrapping_mul(v[i >> 5].0[i & 31].into()))
            });
            debug_assert!(o.unsigned_abs() < 1 << 35);
            clamp(round_shift(o.wrapping_mul(r), ATTENTION_SHIFT), -KEY_MAX, KEY_MAX)
        }));
    }
}

/// x + clamp16(y), clamped: the residual sums of spec 5.4.
fn add(x: &mut [i16], y: &[i16]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x = clamp16(i64::from(*x).wrapping_add(y.into()));
    }
}

/// Spec 5.4, steps 1 (without the norm, q, k and v) to 5: turns the block's input `x` into its output. [NET-4]
fn block(network: &NetworkParameters, b: usize, t: u64, q: &[i16], ring: &Ring, x: &mut Vec<i16>, s: &mut Scratch) {
    let block: &Block = &network.blocks[b];
    attention(network, b, t, q, ring, &mut s.z, &mut s.a);
    // Step 2.
    linear(&block.o, &s.a, -ACTIVATION_MAX, ACTIVATION_MAX, &mut s.y);
    add(x, &s.y);
    // Step 3.
    linear(&block.proj, x, -ACTIVATION_MAX, ACTIVATION_MAX, &mut s.p);
    // Step 4.
    norm(&s.p, block.norm2, &mut s.n);
    linear(&block.up, &s.n, PRE_ACTIVATION_MIN, PRE_ACTIVATION_MAX, &mut s.g);
    for g in &mut s.g {
        let entry = usize::try_from(i32::from(*g).wrapping_sub(PRE_ACTIVATION_MIN)).unwrap_or(0);
        *g = network.activation[entry];
    }
    // Step 5.
    linear(&block.down, &s.g, -ACTIVATION_MAX, ACTIVATION_MAX, &mut s.y);
    add(&mut s.p, &s.y);
    std::mem::swap(x, &mut s.p);
}

impl ArmSteps for Plain {
    /// Spec 5.5, step 1.
    fn begin(&self, part: &mut Part, input: &[i16], quality: usize) {
        let d = self.0.inputs();
        let from = quality.saturating_mul(d);
        let multiplier = &self.0.input_multiplier[from..][..d];
        let shift = &self.0.input_shift[from..][..d];
        part.frames = input.len().checked_div(d).unwrap_or(0);
        part.plain_x.resize_with(part.frames.max(part.plain_x.len()), Vec::new);
        for (x, input) in part.plain_x.iter_mut().zip(input.chunks_exact(d)) {
            x.clear();
            // Below 2^30.
            x.extend(input.iter().zip(multiplier).zip(shift).map(|((&value, &multiplier), &shift)| {
                clamp16(round_shift(i64::from(value).wrapping_mul(multiplier.into()), shift))
            }));
        }
    }

    /// Spec 5.4, the norm of step 1, and 5.3, step 1.
    fn project(&self, part: &mut Part, b: usize) {
        let block = &self.0.blocks[b];
        let s = &mut part.plain;
        part.qkv.clear();
        part.stride = self.0.widths[b].saturating_mul(3);
        for x in part.plain_x.iter().take(part.frames) {
            norm(x, block.norm1, &mut s.n);
            for layer in [&block.q, &block.k, &block.v] {
                linear(layer, &s.n, -KEY_MAX, KEY_MAX, &mut s.y);
                part.qkv.extend_from_slice(&s.y);
            }
        }
    }

    fn finish(&self, part: &mut Part, b: usize, contexts: &[Context<'_>]) {
        let d = self.0.widths[b];
        let mut rows = part.plain_x.iter_mut().zip(part.qkv.chunks_exact(part.stride)).take(part.frames);
        for context in contexts {
            for ((x, qkv), t) in rows.by_ref().take(context.frames).zip(context.first..) {
                block(&self.0, b, t, &qkv[..d], context.ring, x, &mut part.plain);
            }
        }
    }

    /// Spec 5.5, steps 3 and 4. [NET-5]
    fn output(&self, part: &mut Part, quality: usize) {
        let network = &self.0;
        let outputs = network.outputs.len();
        let from = quality.saturating_mul(outputs);
        let multiplier = &network.output.multiplier[from..][..outputs];
        let shift = &network.output.shift[from..][..outputs];
        let offset = &network.output_offset[from..][..outputs];
        part.out.clear();
        part.out_stride = outputs;
        for x in part.plain_x.iter().take(part.frames) {
            let x = match network.output_norm {
                Some(numerator) => {
                    norm(x, numerator, &mut part.plain.n);
                    &part.plain.n
                }
                None => x,
            };
            part.out.extend((0..outputs).map(|i| {
                let product = i64::from(sum(&network.output, i, x)).wrapping_mul(multiplier[i].into());
                // Below 2^46, and at most 2^20 more.
                let value = round_shift(product, shift[i]).wrapping_add(offset[i].into());
                let (low, high) = network.outputs.bounds(i);
                i32::try_from(value.clamp(low.into(), high.into())).unwrap_or(0)
            }));
        }
    }
}
