//! Which epoch each frame's hyper-prior was coded in, for the frames that a target can still name (spec 6.5).

use std::collections::VecDeque;

use super::memory;
use super::saved::saved_fields;

/// How many frames back a target's 16 bits of index can name; they can name as many ahead.
pub(super) const REACH: u64 = 1 << 15;

/// Frames `start..end` of the timeline, coded in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: u64,
    end: u64,
    epoch: u32,
}

saved_fields!(Run { start, end, epoch });

/// The runs of the last [`REACH`] frames, ascending and not empty, so there are at most as many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    runs: VecDeque<Run>,
}

saved_fields!(Runs { runs });

impl Runs {
    /// Whether the runs ascend and end at `next` at the latest.
    pub(super) fn valid(&self, next: u64) -> bool {
        let mut before = 0;
        self.runs.iter().all(|run| {
            let follows = before <= run.start && run.start < run.end;
            before = run.end;
            follows
        }) && self.runs.back().is_none_or(|run| run.end <= next)
    }

    /// The frames `start..end`, which follow all others, were coded in `epoch`.
    pub(super) fn push(&mut self, start: u64, end: u64, epoch: u32) {
        match self.runs.back_mut() {
            Some(last) if last.end == start && last.epoch == epoch => last.end = end,
            _ => self.runs.push_back(Run { start, end, epoch }),
        }
        while self.runs.front().is_some_and(|run| run.end.saturating_add(REACH) <= end) {
            self.runs.pop_front();
        }
        memory::settle_queue(&mut self.runs);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        memory::queue_bytes(&self.runs)
    }

    /// Forgets the frames from `index` on.
    pub(super) fn truncate(&mut self, index: u64) {
        while self.runs.back().is_some_and(|run| run.start >= index) {
            self.runs.pop_back();
        }
        if let Some(last) = self.runs.back_mut() {
            last.end = last.end.min(index);
        }
        memory::settle_queue(&mut self.runs);
    }

    /// Forgets all frames.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        memory::settle_queue(&mut self.runs);
    }

    /// The epoch in which all of the `frames` frames from `index` on were coded, if there is one.
    pub(super) fn epoch(&self, index: u64, frames: u32) -> Option<u32> {
        let place = self.runs.partition_point(|run| run.end <= index);
        let run = self.runs.get(place)?;
        let inside = run.start <= index && index.checked_add(u64::from(frames))? <= run.end;
        inside.then_some(run.epoch)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_break_and_shrink() {
        let mut runs = Runs::default();
        runs.push(0, 5, 0);
        runs.push(5, 9, 0);
        runs.push(10, 12, 0); // frame 9 was an exact frame
        assert_eq!(runs.runs.len(), 2);
        assert_eq!(runs.epoch(3, 6), Some(0));
        assert_eq!(runs.epoch(3, 7), None);
        assert_eq!(runs.epoch(9, 1), None);
        assert_eq!(runs.epoch(12, 1), None);
        runs.truncate(4);
        runs.push(4, 6, 1);
        assert_eq!((runs.epoch(3, 1), runs.epoch(3, 2), runs.epoch(4, 2)), (Some(0), None, Some(1)));
        runs.clear();
        assert_eq!(runs.epoch(3, 1), None);
    }

    #[test]
    fn what_no_target_can_name_is_forgotten() {
        let mut runs = Runs::default();
        for frame in 0..200_000_u64 {
            runs.push(frame, frame + 1, (frame & 0x7fff) as u32);
        }
        assert_eq!(runs.runs.len() as u64, REACH);
        assert_eq!(runs.epoch(200_000 - REACH, 1), Some(((200_000 - REACH) & 0x7fff) as u32));
        assert_eq!(runs.epoch(200_000 - REACH - 1, 1), None);
    }
}
