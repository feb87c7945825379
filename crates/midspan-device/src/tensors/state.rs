//! Keys and values of a context on a device (spec 5.6).

use candle_core::Tensor;

use super::TensorNetwork;
use crate::shape::Shape;
use midspan::error::Result;
use midspan::exact::Timeline;

/// The state of one [`TensorNetwork`] in one context. A clone is a fork, which shares the frames that both have in
/// common.
#[derive(Clone, Debug)]
pub struct TensorState {
    timeline: Timeline,
    shape: Shape,
    /// k and v of each block, \[H, at least `held`, c\]; None before the first frame.
    blocks: Vec<Option<(Tensor, Tensor)>>,
    /// Number of earlier frames that are kept; they are the first ones in the tensors.
    held: usize,
}

impl TensorState {
    /// An empty context, from which rewinds go back by at most `max_rewind` frames.
    #[must_use]
    pub fn new(network: &TensorNetwork, max_rewind: u32) -> TensorState {
        TensorState::of_shape(network.shape(), max_rewind)
    }

    pub(crate) fn of_shape(shape: Shape, max_rewind: u32) -> TensorState {
        TensorState { timeline: Timeline::new(max_rewind), blocks: vec![None; shape.0.len()], shape, held: 0 }
    }

    /// Number of frames in the context.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.timeline.position()
    }

    /// Whether the state was made for a network of this shape.
    #[must_use]
    pub fn fits(&self, network: &TensorNetwork) -> bool {
        self.shape == network.shape()
    }

    /// Number of earlier frames that are kept.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Appends keys and values, \[H, T, c\], of a block. Returns those of the last `all` frames, \[H, all, c\].
    pub(super) fn append(
        &mut self,
        b: usize,
        k: &Tensor,
        v: &Tensor,
        all: usize,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let held = |x: &Tensor| x.narrow(1, 0, self.held);
        let (k, v) = match &self.blocks[b] {
            Some((old_k, old_v)) if self.held > 0 => {
                (Tensor::cat(&[&held(old_k)?, k], 1)?, Tensor::cat(&[&held(old_v)?, v], 1)?)
            }
            _ => (k.clone(), v.clone()),
        };
        let last = |x: &Tensor| x.narrow(1, x.dim(1)? - all, all)?.contiguous();
        let seen = (last(&k)?, last(&v)?);
        self.blocks[b] = Some((k, v));
        Ok(seen)
    }

    /// Advances by frames that every block has appended, and drops frames that neither a window nor a rewind can reach.
    pub(super) fn advance(&mut self, frames: usize) -> candle_core::Result<()> {
        if frames == 0 {
            return Ok(());
        }
        let all = self.held + frames;
        let held = all.min(self.shape.1 - 1 + self.timeline.max_rewind() as usize);
        let last = |x: &Tensor| x.narrow(1, all - held, held)?.contiguous();
        for block in &mut self.blocks {
            if let Some((k, v)) = block {
                *block = if held > 0 { Some((last(k)?, last(v)?)) } else { None };
            }
        }
        self.held = held;
        self.timeline.advance(frames);
        Ok(())
    }

    /// Rewinds the context, so that `position` is the next frame again (\[NET-6\]).
    ///
    /// # Errors
    /// As [`midspan::exact::State::truncate`]; the state is then unchanged.
    pub fn truncate(&mut self, position: u64) -> Result<()> {
        // At most `max_rewind` frames are removed, and as many are kept in addition to a window.
        self.held -= self.timeline.truncate(position)? as usize;
        Ok(())
    }

    /// Empties the context.
    pub fn reset(&mut self) {
        self.blocks.fill(None);
        self.held = 0;
        self.timeline.reset();
    }

    /// Bytes of keys and values, at 8 bytes a value.
    pub(crate) fn required_bytes((blocks, window): &Shape, max_rewind: u32) -> usize {
        let values = blocks.iter().map(|(width, _)| 2 * width).sum::<usize>();
        values.saturating_mul(8).saturating_mul((window - 1).saturating_add(max_rewind as usize))
    }

    /// Peak bytes of appending `frames` frames: briefly the old and new frames together, then a copy of the last of
    /// them.
    pub(crate) fn bytes_after(&self, frames: usize) -> usize {
        let (blocks, _) = &self.shape;
        let values = blocks.iter().map(|(width, _)| 2 * width).sum::<usize>();
        values.saturating_mul(8).saturating_mul(self.held.saturating_add(frames)).saturating_mul(2)
    }

    /// Bytes that are held now.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let bytes = |x: &Tensor| x.elem_count() * x.dtype().size_in_bytes();
        self.blocks.iter().flatten().map(|(k, v)| bytes(k) + bytes(v)).sum()
    }
}
