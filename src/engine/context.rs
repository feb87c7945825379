//! The state that an engine keeps for a network, in memory or on a device.

use crate::error::Result;
use crate::exact::State;

/// Keys and values of one network in one context. A clone is a fork.
///
/// Sessions move contexts; the engine that made them fills them.
pub trait Context: Memory + Clone + Send + Sync {
    /// A bound on the bytes held once `frames` more have come, and while memory grows to that size.
    fn bytes_after(&self, frames: usize) -> usize;

    /// Moves the context back, so that `position` is the next frame again (\[NET-6\]).
    ///
    /// # Errors
    /// As for [`State::truncate`].
    fn truncate(&mut self, position: u64) -> Result<()>;

    /// Empties the context.
    fn reset(&mut self);
}

/// Lets a session count the bytes that an engine's values hold.
pub trait Memory {
    /// Bytes held now, in memory or on a device, in addition to the value's own size.
    fn memory_bytes(&self) -> usize;
}

impl Memory for () {
    fn memory_bytes(&self) -> usize {
        0
    }
}

impl Memory for State {
    fn memory_bytes(&self) -> usize {
        State::memory_bytes(self)
    }
}

impl Context for State {
    fn bytes_after(&self, frames: usize) -> usize {
        State::bytes_after(self, frames)
    }

    fn truncate(&mut self, position: u64) -> Result<()> {
        State::truncate(self, position)
    }

    fn reset(&mut self) {
        State::reset(self);
    }
}
