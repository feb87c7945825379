//! The position in a context, and how far back it can go (\[NET-6\], \[CTRL-4\]).

use crate::error::{Detail, Error, ErrorKind, Limit, Result};

/// Frames of a context, counted from its start.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    position: u64,
    /// The largest position since the context began.
    high: u64,
    max_rewind: u32,
}

impl Timeline {
    /// The start of a context, in which rewinds go back by at most `max_rewind` frames.
    #[must_use]
    pub fn new(max_rewind: u32) -> Timeline {
        Timeline { position: 0, high: 0, max_rewind }
    }

    /// The number of the next frame.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The largest position since the context began.
    #[must_use]
    pub fn high(&self) -> u64 {
        self.high
    }

    /// Frames that a rewind may undo.
    #[must_use]
    pub fn max_rewind(&self) -> u32 {
        self.max_rewind
    }

    /// Moves on by `frames` frames.
    pub fn advance(&mut self, frames: usize) {
        self.position = self.position.saturating_add(frames as u64);
        self.high = self.high.max(self.position);
    }

    /// Goes back, so that `position` is the next frame again; returns how many frames that undoes.
    ///
    /// # Errors
    /// [`ErrorKind::RewindTarget`] if `position` lies ahead; [`ErrorKind::RewindTooFar`] if it is more than
    /// `max_rewind` below the largest position that this context reached. The timeline is then unchanged.
    pub fn truncate(&mut self, position: u64) -> Result<u64> {
        let Some(undone) = self.position.checked_sub(position) else {
            let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            let (high, found) = (signed(self.position), signed(position));
            let detail = Detail::Range { what: "position to go back to", low: 0, high, found };
            return Err(Error::of_call(ErrorKind::RewindTarget).with(detail));
        };
        if !self.reaches(position) {
            let (most, found) = (self.max_rewind.into(), self.high.saturating_sub(position));
            let detail = Detail::Limit { what: "frames back", limit: Limit::Own("max_rewind"), most, found };
            return Err(Error::of_call(ErrorKind::RewindTooFar).with(detail));
        }
        self.position = position;
        Ok(undone)
    }

    /// The timeline of a context that was saved; None if no context can have it.
    pub fn restored(self, position: u64, high: u64) -> Option<Timeline> {
        let restored = Timeline { position, high, ..self };
        (position <= high && restored.reaches(position) && high < 1 << 63).then_some(restored)
    }

    /// Goes back to the start.
    pub fn reset(&mut self) {
        (self.position, self.high) = (0, 0);
    }

    fn reaches(&self, position: u64) -> bool {
        self.high.saturating_sub(position) <= u64::from(self.max_rewind)
    }
}
