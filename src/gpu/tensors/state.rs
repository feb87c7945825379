//! Keys and values of a context on a device (spec 5.6).

use candle_core::Tensor;

use super::TensorNetwork;
use crate::error::{Error, ErrorKind};
use crate::gpu;

/// The state of one [`TensorNetwork`] in one context. A clone is a fork; it shares what both have in common.
#[derive(Clone, Debug)]
pub struct TensorState {
    /// Frames kept at most: what a window and a rewind reach.
    room: usize,
    max_rewind: u32,
    /// Shape of the network: width and heads of each block, and the window.
    shape: (Vec<(usize, usize)>, usize),
    /// k and v of each block, \[H, held, c\]; None before the first frame.
    blocks: Vec<Option<(Tensor, Tensor)>>,
    held: usize,
    position: u64,
    high: u64,
}

impl TensorState {
    /// An empty context, from which rewinds go back by at most `max_rewind` frames.
    #[must_use]
    pub fn new(network: &TensorNetwork, max_rewind: u32) -> TensorState {
        let shape = network.shape();
        TensorState {
            room: network.window() - 1 + max_rewind as usize,
            max_rewind,
            blocks: vec![None; shape.0.len()],
            shape,
            held: 0,
            position: 0,
            high: 0,
        }
    }

    /// Frames of the context.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the state was made for a network of this shape.
    #[must_use]
    pub fn fits(&self, network: &TensorNetwork) -> bool {
        self.shape == network.shape()
    }

    /// Earlier frames at hand.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Takes in keys and values, \[H, T, c\], of a block; gives those of the last `all` frames, \[H, all, c\].
    pub(super) fn append(
        &mut self,
        b: usize,
        k: &Tensor,
        v: &Tensor,
        all: usize,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let (k, v) = match &self.blocks[b] {
            Some((held_k, held_v)) => (Tensor::cat(&[held_k, k], 1)?, Tensor::cat(&[held_v, v], 1)?),
            None => (k.clone(), v.clone()),
        };
        let last = |x: &Tensor| x.narrow(1, x.dim(1)? - all, all)?.contiguous();
        let seen = (last(&k)?, last(&v)?);
        self.blocks[b] = Some((k, v));
        Ok(seen)
    }

    /// Moves on by frames that every block has taken in, and drops what no window can reach any more.
    pub(super) fn advance(&mut self, frames: usize) -> candle_core::Result<()> {
        self.held = (self.held + frames).min(self.room);
        for block in &mut self.blocks {
            if let Some((k, v)) = block {
                let end = k.dim(1)?;
                *block = keep(k, v, end - self.held, self.held)?;
            }
        }
        self.position += frames as u64;
        self.high = self.high.max(self.position);
        Ok(())
    }

    /// Takes the context back, so that `position` is the next frame again (\[NET-6\]).
    ///
    /// # Errors
    /// [`ErrorKind::RewindTarget`] and [`ErrorKind::RewindTooFar`] as [`crate::exact::State::truncate`] has them;
    /// [`gpu::Error::Device`]. The state is then unchanged.
    pub fn truncate(&mut self, position: u64) -> gpu::Result<()> {
        if position > self.position {
            return Err(Error::new(ErrorKind::RewindTarget, 0).into());
        }
        if self.high - position > u64::from(self.max_rewind) {
            return Err(Error::new(ErrorKind::RewindTooFar, 0).into());
        }
        // At most `max_rewind` frames go, and `room` holds as many beside a window.
        let held = self.held - (self.position - position) as usize;
        let cut = |block: &Option<(Tensor, Tensor)>| match block {
            Some((k, v)) => keep(k, v, 0, held),
            None => Ok(None),
        };
        self.blocks = self.blocks.iter().map(cut).collect::<candle_core::Result<_>>()?;
        (self.held, self.position) = (held, position);
        Ok(())
    }

    /// Empties the context.
    pub fn reset(&mut self) {
        self.blocks.fill(None);
        (self.held, self.position, self.high) = (0, 0, 0);
    }
}

/// Frames `from` … `from + len − 1` of keys and values.
fn keep(k: &Tensor, v: &Tensor, from: usize, len: usize) -> candle_core::Result<Option<(Tensor, Tensor)>> {
    let part = |x: &Tensor| x.narrow(1, from, len)?.contiguous();
    Ok(if len == 0 { None } else { Some((part(k)?, part(v)?)) })
}
