//! Layered mode: frames whose target has not come yet (spec 6.5).

use std::collections::VecDeque;
use std::ops::Range;

use bytes::BytesMut;

use crate::number::to_usize;
use crate::stream::memory::{queue_bytes, settle_queue};
use crate::stream::saved::{Saved, saved_fields};

/// A frame whose hyper-prior was decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingFrame {
    /// Epoch in which its hyper-prior was coded.
    pub(crate) epoch: u32,
    /// Quality in force at that time.
    pub(crate) quality: usize,
    /// g_y's output, `[2E]`: means and scale indices. Empty once the target came or was concealed.
    pub(crate) output: Vec<i32>,
    /// Y of the elements that came in parts, `[E]`; empty if none came.
    pub(crate) came: Vec<Option<i16>>,
}

saved_fields!(PendingFrame { epoch, quality, output, came });

impl Saved for PendingFrames {
    fn save(&self, out: &mut BytesMut) {
        self.base.save(out);
        self.frames.save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        let (base, frames) = <(u64, VecDeque<PendingFrame>)>::load(input)?;
        let bytes = frames.iter().map(PendingFrame::memory_bytes).fold(0, usize::saturating_add);
        let parts = frames.iter().map(PendingFrame::parts_bytes).fold(0, usize::saturating_add);
        Some(Self { base, frames, bytes, parts })
    }
}

impl PendingFrame {
    /// Bytes for each of the E elements of a frame of which parts came.
    pub(crate) const PART_ELEMENT: usize = size_of::<Option<i16>>();

    /// Bytes of a frame with this many output values.
    pub(crate) fn bytes(outputs: usize) -> usize {
        size_of::<Self>().saturating_add(outputs.saturating_mul(size_of::<i32>()))
    }

    /// Bytes that the frame holds in addition to its own size. Its buffers have exactly their length, as those of a
    /// clone do.
    fn memory_bytes(&self) -> usize {
        self.output.len().saturating_mul(size_of::<i32>()).saturating_add(self.parts_bytes())
    }

    /// How many of these bytes are for parts.
    fn parts_bytes(&self) -> usize {
        self.came.len().saturating_mul(PendingFrame::PART_ELEMENT)
    }

    fn settled(&self) -> bool {
        self.output.is_empty()
    }

    /// Whether loaded parts are some of the `width` elements, but not all, with Y in its range.
    pub(crate) fn valid_parts(&self, width: usize, (low, high): (i16, i16)) -> bool {
        let whole = self.came.len() == width && self.came.iter().any(Option::is_none);
        (self.came.is_empty() || whole) && self.came.iter().flatten().all(|y| (low..=high).contains(y))
    }

    /// Whether one of these elements came.
    pub(crate) fn has_any(&self, elements: Range<usize>) -> bool {
        self.came.iter().take(elements.end).skip(elements.start).any(Option::is_some)
    }

    /// The elements, of `width`, that have not come, ascending.
    pub(crate) fn missing(&self, width: usize) -> Vec<Range<usize>> {
        let mut missing: Vec<Range<usize>> = Vec::new();
        for element in (0..width).filter(|element| !matches!(self.came.get(*element), Some(Some(_)))) {
            match missing.last_mut() {
                Some(last) if last.end == element => last.end = element.saturating_add(1),
                _ => missing.push(element..element.saturating_add(1)),
            }
        }
        missing
    }

    /// Stores Y of the elements from `first` on, of `width`. Returns the whole of Y, `[E]`, if no element is missing
    /// any more.
    pub(crate) fn store_part(&mut self, first: usize, y: &[i16], width: usize) -> Option<Vec<i16>> {
        self.came.reserve_exact(width.saturating_sub(self.came.len()));
        self.came.resize(width, None);
        for (place, y) in self.came.iter_mut().skip(first).zip(y) {
            *place = Some(*y);
        }
        self.came.iter().copied().collect()
    }
}

/// The frames from the oldest pending one to the newest, without gaps. Bounded by the target horizon ([DEC-14]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PendingFrames {
    /// Absolute index of the first element.
    base: u64,
    frames: VecDeque<PendingFrame>,
    /// Bytes that the frames hold in addition to their own size. Every chunk needs the sum, so it is kept.
    bytes: usize,
    /// How many of these bytes are for parts.
    parts: usize,
}

impl PendingFrames {
    /// Whether loaded frames end at `next`, begin with a pending one, and each is settled or `good`.
    pub(crate) fn valid(&self, next: u64, good: impl Fn(&PendingFrame) -> bool) -> bool {
        let end = u64::try_from(self.frames.len()).ok().and_then(|count| self.base.checked_add(count));
        (self.frames.is_empty() || end == Some(next))
            && self.frames.front().is_none_or(|frame| !frame.settled())
            && self.frames.iter().all(|frame| frame.settled() || good(frame))
    }

    /// Bytes that the frames take.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.saturating_add(queue_bytes(&self.frames))
    }

    /// Bytes that parts still to come may take, if frames have this many elements.
    pub(crate) fn bytes_for_parts(&self, width: usize) -> usize {
        let all = self.frames.len().saturating_mul(width).saturating_mul(PendingFrame::PART_ELEMENT);
        all.saturating_sub(self.parts)
    }

    /// Absolute index of the oldest pending frame.
    pub(crate) fn oldest(&self) -> Option<u64> {
        (!self.frames.is_empty()).then_some(self.base)
    }

    /// The number of pending frames, among the first `most`, before the first that is not.
    pub(crate) fn run(&self, most: usize) -> usize {
        self.frames.iter().take(most).take_while(|frame| !frame.settled()).count()
    }

    /// The pending frames in runs without a gap: first index and count.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u64, usize)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let settled = |at: usize| self.frames.get(at).map(PendingFrame::settled);
            while settled(at) == Some(true) {
                at = at.saturating_add(1);
            }
            let first = at;
            while settled(at) == Some(false) {
                at = at.saturating_add(1);
            }
            let count = at.saturating_sub(first);
            (count > 0).then(|| (self.base.saturating_add(first as u64), count))
        })
    }

    /// Frames from the oldest pending one to the newest.
    pub(crate) fn span(&self) -> usize {
        self.frames.len()
    }

    /// Appends the frame of absolute index `index`, which follows the newest one.
    pub(crate) fn push(&mut self, index: u64, frame: PendingFrame) {
        if self.frames.is_empty() {
            self.base = index;
        }
        self.bytes = self.bytes.saturating_add(frame.memory_bytes());
        self.parts = self.parts.saturating_add(frame.parts_bytes());
        self.frames.push_back(frame);
    }

    /// The pending frames `index … index + count − 1`, or None unless all of them are pending.
    pub(crate) fn get(&self, index: u64, count: usize) -> Option<impl Iterator<Item = &PendingFrame>> {
        let first = usize::try_from(index.checked_sub(self.base)?).ok()?;
        let end = first.checked_add(count)?;
        if end > self.frames.len() {
            return None;
        }
        let frames = self.frames.range(first..end);
        frames.clone().all(|frame| !frame.settled()).then_some(frames)
    }

    /// [`PendingFrame::store_part`] for the frame of this index, if it is pending.
    pub(crate) fn store_part(&mut self, index: u64, first: usize, y: &[i16], width: usize) -> Option<Vec<i16>> {
        let place = usize::try_from(index.checked_sub(self.base)?).ok()?;
        let frame = self.frames.get_mut(place).filter(|frame| !frame.settled())?;
        let before = frame.parts_bytes();
        let whole = frame.store_part(first, y, width);
        let after = frame.parts_bytes();
        self.bytes = self.bytes.saturating_sub(before).saturating_add(after);
        self.parts = self.parts.saturating_sub(before).saturating_add(after);
        whole
    }

    /// Marks frames as settled; the caller got them from [`PendingFrames::get`].
    pub(crate) fn settle(&mut self, index: u64, count: usize) {
        if let Some(first) = index.checked_sub(self.base).and_then(|first| usize::try_from(first).ok()) {
            for frame in self.frames.iter_mut().skip(first).take(count) {
                self.bytes = self.bytes.saturating_sub(frame.memory_bytes());
                self.parts = self.parts.saturating_sub(frame.parts_bytes());
                (frame.output, frame.came) = (Vec::new(), Vec::new());
            }
        }
        while self.frames.front().is_some_and(PendingFrame::settled) {
            self.frames.pop_front();
            self.base = self.base.saturating_add(1);
        }
        settle_queue(&mut self.frames);
    }

    /// Drops frames from `index` on ([DEC-16]).
    pub(crate) fn truncate(&mut self, index: u64) {
        let keep = to_usize(index.saturating_sub(self.base));
        for frame in self.frames.iter().skip(keep) {
            self.bytes = self.bytes.saturating_sub(frame.memory_bytes());
            self.parts = self.parts.saturating_sub(frame.parts_bytes());
        }
        self.frames.truncate(keep);
        settle_queue(&mut self.frames);
    }

    /// Drops all frames ([DEC-16]).
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        (self.bytes, self.parts) = (0, 0);
        settle_queue(&mut self.frames);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(epoch: u32) -> PendingFrame {
        PendingFrame { epoch, quality: 0, output: vec![1, 2], came: Vec::new() }
    }

    #[test]
    fn bytes_are_counted_as_frames_come_and_go() {
        let mut pending = PendingFrames::default();
        let counted = |pending: &PendingFrames| {
            pending.frames.iter().map(PendingFrame::memory_bytes).sum::<usize>() + queue_bytes(&pending.frames)
        };
        for index in 0..100 {
            pending.push(index, frame(0));
            assert_eq!(pending.memory_bytes(), counted(&pending));
        }
        assert_eq!(pending.store_part(50, 1, &[7], 30), None);
        assert!(pending.memory_bytes() == counted(&pending) && pending.bytes > 100 * 8 + 100);
        assert_eq!(pending.bytes_for_parts(30), 99 * 30 * PendingFrame::PART_ELEMENT);
        let mut saved = BytesMut::new();
        pending.save(&mut saved);
        let loaded = PendingFrames::load(&mut &saved[..]).unwrap();
        assert_eq!(loaded.memory_bytes(), counted(&loaded));
        for (index, count) in [(0, 3), (40, 20), (99, 1), (3, 37)] {
            pending.settle(index, count);
            assert_eq!(pending.memory_bytes(), counted(&pending));
        }
        pending.truncate(70);
        assert_eq!((pending.bytes, pending.memory_bytes()), (10 * 8, counted(&pending)));
        pending.clear();
        assert_eq!((pending.bytes, pending.parts, pending.memory_bytes()), (0, 0, counted(&pending)));
    }

    #[test]
    fn a_frame_is_whole_when_all_its_elements_came() {
        let mut frame = frame(0);
        assert_eq!(frame.missing(5), vec![Range { start: 0, end: 5 }]);
        assert!(!frame.has_any(0..5));
        assert_eq!(frame.store_part(3, &[4], 5), None);
        assert_eq!(frame.store_part(1, &[2], 5), None);
        assert_eq!(frame.missing(5), [0..1, 2..3, 4..5]);
        assert!(frame.has_any(1..2) && frame.has_any(0..5) && !frame.has_any(2..3) && !frame.has_any(4..5));
        assert_eq!(frame.store_part(0, &[1], 5), None);
        assert_eq!(frame.store_part(4, &[5], 5), None);
        assert_eq!(frame.store_part(2, &[3], 5), Some(vec![1, 2, 3, 4, 5]));
        assert!(frame.missing(5).is_empty());
    }

    #[test]
    fn frames_settle_in_any_order_and_leave_from_the_front() {
        let mut pending = PendingFrames::default();
        assert_eq!(pending.oldest(), None);
        for index in 7..11 {
            pending.push(index, frame(0));
        }
        assert!(pending.get(6, 1).is_none() && pending.get(10, 2).is_none());
        pending.settle(8, 2);
        assert_eq!((pending.oldest(), pending.span()), (Some(7), 4));
        assert!(pending.get(8, 1).is_none(), "settled before: a second target is late");
        assert!(pending.get(7, 2).is_none());
        assert_eq!(pending.runs().collect::<Vec<_>>(), [(7, 1), (10, 1)]);
        assert_eq!((pending.run(0), pending.run(9)), (0, 1), "up to the gap");
        pending.settle(7, 1);
        assert_eq!((pending.oldest(), pending.span()), (Some(10), 1));
        pending.settle(10, 1);
        assert_eq!(pending.oldest(), None);
        pending.push(11, frame(0));
        assert_eq!(pending.oldest(), Some(11));
    }

    #[test]
    fn a_rewind_drops_the_newest() {
        let mut pending = PendingFrames::default();
        for index in 0..4 {
            pending.push(index, frame(0));
        }
        pending.truncate(2);
        assert_eq!(pending.span(), 2);
        pending.push(2, frame(1));
        assert_eq!(pending.get(2, 1).unwrap().next().unwrap().epoch, 1);
        pending.truncate(0);
        assert_eq!(pending.oldest(), None);
    }
}
