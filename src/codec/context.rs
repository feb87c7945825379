//! What a session keeps of a network's past, in memory or on a device.

use crate::error::Result;
use crate::exact::{Network, State};

/// Keys and values of one network in one context: in memory ([`State`]), or on a device.
///
/// Sessions move contexts; the code that runs the networks fills them.
pub trait Context: Sized {
    /// Whether frames of a chunk go through the networks all at once, not in slices.
    const WHOLE_CHUNKS: bool;

    /// An empty context for a network, in which rewinds go back by at most `max_rewind` frames. Memory grows with the
    /// frames.
    fn open(network: &Network, max_rewind: u32) -> Self;

    /// The most bytes that a context holds, however many frames come.
    fn required_bytes(network: &Network, max_rewind: u32) -> usize;

    /// A bound on the bytes held once `frames` more have come, and while memory grows to that size.
    fn bytes_after(&self, frames: usize) -> usize;

    /// Bytes held now.
    fn memory_bytes(&self) -> usize;

    /// Moves the context back, so that `position` is the next frame again (\[NET-6\]).
    ///
    /// # Errors
    /// As for [`State::truncate`].
    fn truncate(&mut self, position: u64) -> Result<()>;

    /// Empties the context.
    fn reset(&mut self);
}

impl Context for State {
    const WHOLE_CHUNKS: bool = false;

    fn open(network: &Network, max_rewind: u32) -> Self {
        State::new(network, max_rewind)
    }

    fn required_bytes(network: &Network, max_rewind: u32) -> usize {
        State::required_bytes(network, max_rewind)
    }

    fn bytes_after(&self, frames: usize) -> usize {
        State::bytes_after(self, frames)
    }

    fn memory_bytes(&self) -> usize {
        State::memory_bytes(self)
    }

    fn truncate(&mut self, position: u64) -> Result<()> {
        State::truncate(self, position)
    }

    fn reset(&mut self) {
        State::reset(self);
    }
}
