//! One block: attention, projection, MLP (spec 5.3, 5.4).

use candle_core::{Device, Tensor};

use super::carrier::Carrier;
use super::state::TensorState;
use super::{Bounds, Layer, Scale, TensorNetwork, product};
use crate::error::Result;
use midspan::model::NetworkParameters;

/// Which frames each frame of a tile sees. The tile has T frames after `held` earlier ones, U = held + T in total.
pub(super) struct Reach {
    /// \[T · U\]: distances as indices of the position table; outside the window, the index of its last entry.
    distance: Tensor,
    /// \[T, U\]: 1 outside the window, 0 inside.
    outside: Tensor,
    frames: usize,
    all: usize,
}

impl Reach {
    /// For a tile after `held` frames of its context that the window reaches.
    pub(super) fn new(carrier: Carrier, frames: usize, held: usize, window: usize, device: &Device) -> Result<Reach> {
        let all = held + frames;
        let distance = |t: usize, u: usize| (held + t).checked_sub(u).filter(|d| *d < window);
        let pairs = || (0..frames).flat_map(|t| (0..all).map(move |u| (t, u)));
        let entries: Vec<u32> = pairs().map(|(t, u)| distance(t, u).unwrap_or(window) as u32).collect();
        let outside = pairs().map(|(t, u)| i64::from(distance(t, u).is_none()));
        Ok(Reach {
            distance: Tensor::from_vec(entries, frames * all, device)?,
            outside: carrier.tensor(outside, &[frames, all], device)?,
            frames,
            all,
        })
    }
}

/// A block's parameters.
pub(super) struct Block {
    width: usize,
    heads: usize,
    norm1: Tensor,
    norm2: Tensor,
    /// q, k and v as one layer of 3d rows.
    qkv: Layer,
    o: Layer,
    proj: Layer,
    up: Layer,
    down: Layer,
    /// \[heads, 1, 1\].
    score: Scale,
    /// \[heads, window + 1\]: the bias by distance, and 0 for outside the window.
    position: Tensor,
}

impl Block {
    pub(super) fn new(parameters: &NetworkParameters, b: usize, carrier: Carrier, device: &Device) -> Result<Block> {
        let block = &parameters.blocks[b];
        let heads = parameters.heads[b];
        let number = |value: i64| carrier.tensor(std::iter::once(value), &[1], device);
        let layer = |layers: &[&_]| Layer::new(carrier, layers, device);
        let position = block.position.chunks_exact(parameters.window);
        let position = position.flat_map(|row| row.iter().map(|p| i64::from(*p)).chain([0]));
        Ok(Block {
            width: parameters.widths[b],
            heads,
            norm1: number(block.norm1)?,
            norm2: number(block.norm2)?,
            qkv: layer(&[&block.q, &block.k, &block.v])?,
            o: layer(&[&block.o])?,
            proj: layer(&[&block.proj])?,
            up: layer(&[&block.up])?,
            down: layer(&[&block.down])?,
            score: Scale::new(carrier, &block.score_multiplier, &block.score_shift, &[heads, 1, 1], device)?,
            position: carrier.tensor(position, &[heads, parameters.window + 1], device)?,
        })
    }

    /// Width and heads.
    pub(super) fn shape(&self) -> (usize, usize) {
        (self.width, self.heads)
    }

    /// \[T, d_b\] → \[T, d_(b+1)\]; the frames' keys and values are added to the state. \[NET-4\]
    pub(super) fn run(
        &self,
        network: &TensorNetwork,
        states: &mut [TensorState],
        b: usize,
        x: &Tensor,
        reaches: &[&Reach],
    ) -> Result<Tensor> {
        let (carrier, constants) = (network.carrier, &network.constants);
        let activation = |x: &Tensor| constants.clamp(carrier, x, Bounds::Activation);
        // Step 1.
        let n = network.norm(x, &self.norm1)?;
        let qkv = constants.clamp(carrier, &self.qkv.apply(carrier, &n)?, Bounds::Key)?;
        let mut first = 0;
        let mut attended = Vec::with_capacity(states.len());
        for (state, reach) in states.iter_mut().zip(reaches).filter(|(_, reach)| reach.frames > 0) {
            attended.push(self.attention(network, state, b, &qkv.narrow(0, first, reach.frames)?, reach)?);
            first += reach.frames;
        }
        let a = Tensor::cat(&attended, 0)?;
        // Step 2.
        let x = activation(&(x + activation(&self.o.apply(carrier, &a)?)?)?)?;
        // Step 3.
        let p = activation(&self.proj.apply(carrier, &x)?)?;
        // Step 4.
        let m = network.norm(&p, &self.norm2)?;
        let u = constants.clamp(carrier, &self.up.apply(carrier, &m)?, Bounds::Table)?;
        let g = network.look_up(&network.activation, &u.broadcast_add(&constants.activation_middle)?)?;
        // Step 5.
        Ok(activation(&(&p + activation(&self.down.apply(carrier, &g)?)?)?)?)
    }

    /// Spec 5.3 for one context: q, k and v, \[T, 3d\] → \[T, d\]. \[NET-3\]
    fn attention(
        &self,
        network: &TensorNetwork,
        state: &mut TensorState,
        b: usize,
        qkv: &Tensor,
        reach: &Reach,
    ) -> Result<Tensor> {
        let (carrier, constants) = (network.carrier, &network.constants);
        let (frames, d) = (reach.frames, self.width);
        // [T, 3d] → [T, 3, H, c] → 3 × [H, T, c]
        let qkv = qkv.reshape((frames, 3, self.heads, d / self.heads))?;
        let part = |i: usize| qkv.narrow(1, i, 1)?.squeeze(1)?.transpose(0, 1)?.contiguous();
        let (k, v) = state.append(b, &part(1)?, &part(2)?, reach.all)?;
        // Step 2.
        let dot = product::scores(carrier, &part(0)?, &k)?; // [H, T, U]
        let score = constants.clamp(carrier, &self.score.apply(carrier, &dot)?, Bounds::Score)?;
        let position = self.position.index_select(&reach.distance, 1)?;
        let z = (score + position.reshape((self.heads, reach.frames, reach.all))?)?;
        // Step 3: frames outside the window neither have the largest z nor a weight.
        let z = z.broadcast_sub(&reach.outside.broadcast_mul(&constants.attention_one)?)?;
        let below = z.max_keepdim(2)?.broadcast_sub(&z)?.broadcast_minimum(&constants.exp_last)?;
        let e = network.look_up(&network.exp, &below.broadcast_add(&reach.outside)?)?;
        // Step 4.
        let r = carrier.divide(&constants.attention_one, &e.sum_keepdim(2)?)?; // [H, T, 1]
        // Step 5.
        let o = product::weighted(carrier, &e, &v)?; // [H, T, c]
        let a = carrier.round_shift(&o.broadcast_mul(&r)?, &constants.attention_power)?;
        // [H, T, c] → [T, d]
        Ok(a.transpose(0, 1)?.contiguous()?.reshape((frames, d))?)
    }
}
