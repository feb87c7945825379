//! The network on a SIMD arm: the plain arm's steps, on packed parameters and many frames at once.

use super::super::ring::{GROUP, Line, Ring};
use super::super::{ArmSteps, Context, Part};
use super::lanes::Sink;
use super::packed::{EDGE, Layer, Order, Packed, Scale, Score, Weights, pad};
use crate::model::NetworkParameters;
use crate::model::network::{ACTIVATION_MAX, KEY_MAX};

/// The steps that an arm implements with its own instructions. A value of the type proves that the CPU has them.
pub(super) trait Kernels: Sync + Send {
    /// The order of weights that this arm needs.
    const ORDER: Order;

    /// Puts activations, a multiple of 32, into the order in which [`Kernels::linear`] reads them.
    fn prepare(&self, x: &mut [i16]);

    /// Spec 5.1 for `frames` frames, whose prepared inputs are rows of `stride` values in `x`.
    fn linear(&self, layer: &Matrix<'_>, x: &[i16], stride: usize, frames: usize, sink: Sink<'_>);

    /// Spec 5.5, step 1.
    fn scale(&self, input: &[i16], scale: &Scale, x: &mut [i16]);

    /// Spec 5.2.
    fn norm(&self, x: &[i16], numerator: i64, y: &mut [i16]);

    /// Spec 5.3, steps 2 to 5, for one head of one frame. `q` holds two neighbouring elements in each entry.
    fn attend(&self, head: &Head<'_>, q: &[i32], buffers: &mut Buffers, a: &mut [i16]);
}

/// A linear layer to be computed.
pub(super) struct Matrix<'a> {
    pub weights: &'a [Weights],
    pub layer: &'a Layer,
    pub scale: &'a Scale,
}

/// What one head of one frame attends to.
pub(super) struct Head<'a> {
    /// `slots` / 16 lines for each pair of elements.
    pub k: &'a [Line],
    /// `slots` / 32 lines for each element.
    pub v: &'a [Line],
    pub slots: usize,
    pub spans: [Span; 2],
    pub score: &'a Score,
    pub exp: &'a [i32],
    /// Whether to fetch the next head's lines, which follow this one's.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // CPUs fetch what is read in order
    pub fetch: bool,
    /// Whether the window is longer than 256 frames: sums of e · v then take more than 32 bits.
    pub long: bool,
}

/// Groups of slots that hold frames of the window; the position bias excludes any other frames in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// First group.
    pub group: usize,
    pub groups: usize,
    /// The entry of the padded position biases for the first slot.
    pub position: usize,
}

/// Buffers of [`Kernels::attend`]. All but `o` have room for the groups of slots that a window may touch.
#[derive(Default)]
pub(super) struct Buffers {
    pub z: Vec<i32>,
    pub e: Vec<i16>,
    /// As long as a head.
    pub o: Vec<i64>,
}

/// Buffers of a part, with one row for each frame.
#[derive(Default)]
pub(in crate::exact) struct Scratch {
    /// The block's input, and then its output.
    x: Vec<i16>,
    /// p of spec 5.4.
    p: Vec<i16>,
    /// Prepared inputs of a layer.
    n: Vec<i16>,
    /// Prepared g of spec 5.4.
    g: Vec<i16>,
    q: Vec<i32>,
    attention: Buffers,
}

impl Scratch {
    pub(in crate::exact) fn memory_bytes(&self) -> usize {
        let Buffers { z, e, o } = &self.attention;
        let shorts: usize = [&self.x, &self.p, &self.n, &self.g, e].iter().map(|v| v.capacity() * 2).sum();
        shorts + (self.q.capacity() + z.capacity()) * 4 + o.capacity() * 8
    }
}

/// A network packed for an arm.
pub(super) struct Fast<K> {
    packed: Packed,
    /// Length of the rows of x, p and n.
    stride: usize,
    kernels: K,
}

impl<K: Kernels> Fast<K> {
    pub(super) fn new(parameters: &NetworkParameters, kernels: K) -> Fast<K> {
        let stride = pad(parameters.widths.iter().copied().max().unwrap_or(0));
        Fast { packed: Packed::new(parameters, K::ORDER), stride, kernels }
    }

    fn matrix<'a>(&'a self, layer: &'a Layer, scale: &'a Scale) -> Matrix<'a> {
        Matrix { weights: self.packed.weights(layer), layer, scale }
    }

    /// Norms `width` values of each frame from `x` to `n`, prepared.
    fn norms(&self, x: &[i16], numerator: i64, width: usize, frames: usize, n: &mut [i16]) {
        for (x, n) in x.chunks(self.stride).zip(n.chunks_mut(self.stride)).take(frames) {
            self.kernels.norm(&x[..width], numerator, &mut n[..width]);
            self.kernels.prepare(&mut n[..pad(width)]);
        }
    }

    /// Attention of all frames of a part into the rows of `n`.
    fn attention(&self, part: &mut Part, b: usize, contexts: &[Context<'_>]) {
        let mut row = 0;
        for context in contexts {
            self.attention_in(part, b, context, row);
            row += context.frames;
        }
    }

    /// Attention of one context's frames, which begin at row `row`.
    fn attention_in(&self, part: &mut Part, b: usize, context: &Context<'_>, row: usize) {
        let block = &self.packed.blocks[b];
        let ring = context.ring;
        let c = block.width / block.heads;
        let pairs = c.div_ceil(2);
        let Scratch { n, q, attention, .. } = &mut part.fast;
        // A window's frames may begin in the middle of one group and end in the middle of another.
        let room = self.packed.window.next_multiple_of(GROUP) + GROUP;
        grow(&mut attention.z, room);
        grow(&mut attention.e, room);
        grow(&mut attention.o, c);
        grow(q, pairs);
        for (head, score) in block.scores.iter().enumerate() {
            let (k, v) = ring.head(head);
            for (f, t) in (0..context.frames).zip(context.first..) {
                let values = &part.qkv[(row + f) * part.stride + head * c..][..c];
                for (q, pair) in q.iter_mut().zip(values.chunks(2)) {
                    let high = pair.get(1).copied().unwrap_or(0);
                    *q = i32::from(pair[0] as u16) | i32::from(high) << 16;
                }
                let head_task = Head {
                    k,
                    v,
                    slots: ring.slots(),
                    spans: spans(ring, t, self.packed.window),
                    score,
                    exp: &self.packed.exp,
                    fetch: f == 0,
                    long: self.packed.window > 256,
                };
                let a = &mut n[(row + f) * self.stride + head * c..][..c];
                self.kernels.attend(&head_task, &q[..pairs], attention, a);
            }
        }
    }
}

/// The spans of slots that frame `t` of the context attends to, the older one first; the second is often empty.
fn spans(ring: &Ring, t: u64, window: usize) -> [Span; 2] {
    // A distance is below the window.
    let reach = t.min(window as u64 - 1) as usize;
    let (from, to) = (ring.slot(t - reach as u64), ring.slot(t));
    // The position bias of distance δ is at entry EDGE + window − 1 − δ.
    let oldest = EDGE + window - 1 - reach - from % GROUP;
    let groups_to = to / GROUP + 1;
    if from <= to {
        let only = Span { group: from / GROUP, groups: groups_to - from / GROUP, position: oldest };
        [only, Span { groups: 0, ..only }]
    } else {
        let older = Span { group: from / GROUP, groups: ring.slots() / GROUP - from / GROUP, position: oldest };
        [older, Span { group: 0, groups: groups_to, position: EDGE + window - 1 - to }]
    }
}

/// Makes a buffer at least `len` long.
fn grow<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
}

impl<K: Kernels> ArmSteps for Fast<K> {
    fn begin(&self, part: &mut Part, input: &[i16], quality: usize) {
        let scaling = &self.packed.inputs[quality];
        let d = scaling.multiplier.len();
        part.frames = input.len() / d;
        let s = &mut part.fast;
        for rows in [&mut s.x, &mut s.p, &mut s.n] {
            grow(rows, part.frames * self.stride);
        }
        for (x, input) in s.x.chunks_mut(self.stride).zip(input.chunks_exact(d)) {
            self.kernels.scale(input, scaling, x);
        }
    }

    fn project(&self, part: &mut Part, b: usize) {
        let block = &self.packed.blocks[b];
        let Scratch { x, n, .. } = &mut part.fast;
        self.norms(x, block.norm1, block.width, part.frames, n);
        part.stride = block.qkv.layer.rows;
        grow(&mut part.qkv, part.frames * part.stride);
        let layer = self.matrix(&block.qkv.layer, &block.qkv.scale);
        let sink = Sink::Clamp { low: -KEY_MAX, high: KEY_MAX, to: &mut part.qkv, stride: part.stride };
        self.kernels.linear(&layer, n, self.stride, part.frames, sink);
    }

    fn finish(&self, part: &mut Part, b: usize, contexts: &[Context<'_>]) {
        let block = &self.packed.blocks[b];
        let (stride, frames) = (self.stride, part.frames);
        self.attention(part, b, contexts);
        let Scratch { x, p, n, g, .. } = &mut part.fast;
        for n in n.chunks_mut(stride).take(frames) {
            self.kernels.prepare(&mut n[..pad(block.width)]);
        }
        let layer = self.matrix(&block.o.layer, &block.o.scale);
        self.kernels.linear(&layer, n, stride, frames, Sink::Add { to: x, stride });
        for (n, x) in n.chunks_mut(stride).zip(x.chunks(stride)).take(frames) {
            n[..pad(block.width)].copy_from_slice(&x[..pad(block.width)]);
            self.kernels.prepare(&mut n[..pad(block.width)]);
        }
        let layer = self.matrix(&block.proj.layer, &block.proj.scale);
        let sink = Sink::Clamp { low: -ACTIVATION_MAX, high: ACTIVATION_MAX, to: p, stride };
        self.kernels.linear(&layer, n, stride, frames, sink);
        self.norms(p, block.norm2, block.next, frames, n);
        let wide = block.up.layer.rows;
        grow(g, frames * wide);
        let layer = self.matrix(&block.up.layer, &block.up.scale);
        let sink = Sink::Activate { table: &self.packed.activation, to: g, stride: wide };
        self.kernels.linear(&layer, n, stride, frames, sink);
        self.kernels.prepare(&mut g[..frames * wide]);
        let layer = self.matrix(&block.down.layer, &block.down.scale);
        self.kernels.linear(&layer, g, wide, frames, Sink::Add { to: p, stride });
        std::mem::swap(x, p);
    }

    fn output(&self, part: &mut Part, quality: usize) {
        let packed = &self.packed;
        let Scratch { x, n, g, .. } = &mut part.fast;
        match packed.output_norm {
            Some(numerator) => self.norms(x, numerator, packed.last, part.frames, n),
            None if packed.output.iter().all(|rows| rows.groups.is_some()) => {}
            None => {
                n[..part.frames * self.stride].copy_from_slice(&x[..part.frames * self.stride]);
                self.kernels.prepare(&mut n[..part.frames * self.stride]);
            }
        }
        part.out_stride = packed.output_rows;
        grow(&mut part.out, part.frames * part.out_stride);
        for rows in &packed.output {
            let parameters = &rows.outputs[quality];
            let layer = self.matrix(&rows.layer, &parameters.scale);
            let sink = Sink::Output {
                offset: &parameters.offset,
                low: &rows.low,
                high: &rows.high,
                to: &mut part.out[rows.first..],
                stride: part.out_stride,
            };
            match &rows.groups {
                None => self.kernels.linear(&layer, n, self.stride, part.frames, sink),
                Some(groups) => {
                    // Only networks without blocks have such rows, and these have no norm.
                    let width = rows.layer.inputs;
                    grow(g, part.frames * width);
                    for (g, x) in g.chunks_mut(width).zip(x.chunks(self.stride)).take(part.frames) {
                        g.fill(0);
                        for (g, group) in g.chunks_exact_mut(4).zip(groups) {
                            g.copy_from_slice(&x[4 * group..][..4]);
                        }
                    }
                    self.kernels.prepare(&mut g[..part.frames * width]);
                    self.kernels.linear(&layer, g, width, part.frames, sink);
                }
            }
        }
    }
}
