//! What a session keeps of a network's past, wherever it is kept.

use crate::error::Result;
use crate::exact::{Network, State};

/// Keys and values of one network in one context: in memory ([`State`]), or on a device.
///
/// Sessions move contexts; those who run the networks fill them.
pub trait Context: Sized {
    /// Whether frames of a chunk go through the networks all at once, not in slices.
    const WHOLE_CHUNKS: bool;

    /// An empty context for a network, from which rewinds go back by at most `max_rewind` frames. Memory comes with frames.
    fn open(network: &Network, max_rewind: u32) -> Self;

    /// Bytes that a context holds at most, however many frames come.
    fn required_bytes(network: &Network, max_rewind: u32) -> usize;

    /// A bound of the bytes that are held once `frames` more have come, and while memory grows to that.
    fn bytes_after(&self, frames: usize) -> usize;

    /// Bytes that are held now.
    fn memory_bytes(&self) -> usize;

    /// Takes the context back, so that `position` is the next frame again (\[NET-6\]).
    ///
    /// # Errors
    /// As [`State::truncate`] has them.
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
