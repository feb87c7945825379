//! Layered mode: targets that came before their hyper-prior (spec 6.5).

use std::collections::VecDeque;
use std::ops::Range;

use bytes::BytesMut;

use crate::number::to_usize;
use crate::stream::limits::EARLY_CHUNKS;
use crate::stream::memory::{growth, queue_bytes, settle_queue};
use crate::stream::saved::{Saved, saved_fields};
use crate::wire::Payload;
use crate::wire::lanes::max_lanes;

/// The bytes that an allocator and a payload's reference count may take in addition to a target's own bytes.
const ALLOCATIONS: usize = 64;

/// A target chunk whose check holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetChunk {
    /// Absolute index of the first frame.
    pub(crate) index: u64,
    /// The epoch that it names.
    pub(crate) epoch: u32,
    pub(crate) frames: u32,
    /// The elements that it holds, if it holds a part of one frame.
    pub(crate) elements: Option<Range<u64>>,
    /// One payload per lane.
    pub(crate) lanes: Vec<Payload>,
}

saved_fields!(TargetChunk { index, epoch, frames, elements, lanes });

impl TargetChunk {
    /// Bytes that it takes while it is kept.
    fn cost(&self) -> usize {
        let lanes = self.lanes.iter().map(|lane| size_of::<Payload>().saturating_add(lane.bytes.len()));
        lanes.fold(size_of::<Self>().saturating_add(ALLOCATIONS), usize::saturating_add)
    }

    /// The same chunk with its own copies of the payloads: the reader's share memory with the whole input.
    fn into_owned(mut self) -> Self {
        let total = self.lanes.iter().fold(0, |sum, lane| usize::saturating_add(sum, lane.bytes.len()));
        let mut all = BytesMut::with_capacity(total);
        self.lanes.iter().for_each(|lane| all.extend_from_slice(&lane.bytes));
        for lane in &mut self.lanes {
            lane.bytes = all.split_to(lane.bytes.len().min(all.len())).freeze();
        }
        self
    }
}

/// Early targets in the order in which they came, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EarlyTargets {
    targets: VecDeque<TargetChunk>,
    /// Their total cost.
    bytes: usize,
    /// How many targets, from the first on, are known to be still early at [`EarlyTargets::place`].
    judged: usize,
    /// Epoch and next index when targets were last judged, and whether the stream had ended.
    place: (u32, u64, bool),
}

impl EarlyTargets {
    /// Bytes of the targets and of free slots.
    pub(crate) fn memory_bytes(&self) -> usize {
        let places = self.targets.len().saturating_mul(size_of::<TargetChunk>());
        self.bytes.saturating_sub(places).saturating_add(queue_bytes(&self.targets))
    }

    /// Bytes by which the queue grows for one more target.
    fn growth(&self) -> usize {
        growth::<TargetChunk>(self.targets.len(), self.targets.capacity(), 1)
    }

    /// Whether loaded targets are within the limit, and each is one that a chunk can hold.
    pub(crate) fn valid(&self, limit: u32) -> bool {
        let good = |target: &TargetChunk| {
            let lanes = target.lanes.len();
            let one = target.frames == 1 && lanes == 1;
            let elements = target.elements.as_ref().is_none_or(|elements| one && elements.start < elements.end);
            elements && lanes > 0 && lanes <= to_usize(max_lanes(target.frames))
        };
        self.bytes <= to_usize(limit) && self.targets.len() <= EARLY_CHUNKS && self.targets.iter().all(good)
    }

    /// Keeps a target, once. Returns false, and changes nothing, if the limit or the bytes that the session may still
    /// take leave no room for it.
    pub(crate) fn keep(&mut self, target: TargetChunk, limit: u32, spare: usize) -> bool {
        // The same chunk may come again at another offset.
        let alike = |kept: &TargetChunk| {
            (kept.index, kept.epoch, kept.frames, kept.lanes.len(), &kept.elements)
                == (target.index, target.epoch, target.frames, target.lanes.len(), &target.elements)
                && kept.lanes.iter().zip(&target.lanes).all(|(a, b)| a.bytes == b.bytes)
        };
        if self.targets.iter().any(alike) {
            return true;
        }
        let (cost, limit) = (target.cost(), to_usize(limit));
        let bytes = self.bytes.saturating_add(cost);
        if cost.saturating_add(self.growth()) > spare || bytes > limit || self.targets.len() >= EARLY_CHUNKS {
            return false;
        }
        self.bytes = bytes;
        self.targets.push_back(target.into_owned());
        true
    }

    /// Keeps a target before all others, if the limit allows it.
    pub(crate) fn keep_first(&mut self, target: &TargetChunk, limit: u32) -> bool {
        let bytes = self.bytes.saturating_add(target.cost());
        let fits = bytes <= to_usize(limit) && self.targets.len() < EARLY_CHUNKS;
        if fits {
            (self.bytes, self.judged) = (bytes, 0);
            self.targets.push_front(target.clone().into_owned());
        }
        fits
    }

    /// Frees slots that are no longer needed. If no target is left it frees all, so that targets kept earlier make no
    /// difference later.
    fn settle(&mut self) {
        match self.targets.is_empty() {
            true => self.targets = VecDeque::new(),
            false => settle_queue(&mut self.targets),
        }
    }

    /// Drops the target whose first frame has the largest index (if there are several, the one that came last); returns
    /// that index.
    pub(crate) fn drop_newest(&mut self) -> Option<u64> {
        let (place, _) = self.targets.iter().enumerate().max_by_key(|(_, target)| target.index)?;
        let target = self.targets.remove(place)?;
        self.bytes = self.bytes.saturating_sub(target.cost());
        self.judged = self.judged.saturating_sub(usize::from(place < self.judged));
        self.settle();
        Some(target.index)
    }

    /// Takes out the oldest target that is no longer early at this place: epoch, next index, and whether the stream has
    /// ended.
    pub(crate) fn due(&mut self, place: (u32, u64, bool), early: impl Fn(&TargetChunk) -> bool) -> Option<TargetChunk> {
        if self.place != place {
            (self.place, self.judged) = (place, 0);
        }
        while let Some(target) = self.targets.get(self.judged) {
            if !early(target) {
                let target = self.targets.remove(self.judged)?;
                self.bytes = self.bytes.saturating_sub(target.cost());
                self.settle();
                return Some(target);
            }
            self.judged = self.judged.saturating_add(1);
        }
        None
    }
}

impl Saved for EarlyTargets {
    fn save(&self, out: &mut BytesMut) {
        self.targets.save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        let targets: VecDeque<TargetChunk> = Saved::load(input)?;
        let bytes = targets.iter().map(TargetChunk::cost).fold(0, usize::saturating_add);
        Some(Self { targets, bytes, ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn target(index: u64, epoch: u32, payload: &'static [u8]) -> TargetChunk {
        let lanes = vec![Payload { bytes: Bytes::from_static(payload), offset: 9 }];
        TargetChunk { index, epoch, frames: 1, elements: None, lanes }
    }

    #[test]
    fn targets_are_kept_once_and_leave_in_the_order_in_which_they_came() {
        let mut kept = EarlyTargets::default();
        for index in [7, 5, 6, 5] {
            assert!(kept.keep(target(index, 0, b"abc"), 1000, usize::MAX));
        }
        assert!(kept.keep(TargetChunk { elements: Some(0..1), ..target(5, 0, b"abc") }, 1000, usize::MAX));
        assert_eq!(kept.bytes, 4 * target(5, 0, b"abc").cost());
        let next = |kept: &mut EarlyTargets, next| {
            kept.due((0, next, false), |target| target.index >= next).map(|target| (target.index, target.elements))
        };
        assert_eq!(next(&mut kept, 5), None);
        assert_eq!(next(&mut kept, 7), Some((5, None)));
        assert_eq!(next(&mut kept, 7), Some((6, None)));
        assert_eq!(next(&mut kept, 7), Some((5, Some(0..1))));
        assert_eq!(next(&mut kept, 7), None);
        assert_eq!(next(&mut kept, 8), Some((7, None)));
        assert_eq!(kept.bytes, 0);
    }

    #[test]
    fn the_target_furthest_ahead_is_dropped_first() {
        let mut kept = EarlyTargets::default();
        for index in [7, 9, 5, 9] {
            kept.keep(
                TargetChunk { frames: index as u32 + kept.targets.len() as u32, ..target(index, 0, b"a") },
                4000,
                4000,
            );
        }
        assert_eq!(kept.due((0, 3, false), |_| true), None);
        let frames = |kept: &EarlyTargets| kept.targets.iter().map(|target| target.frames).collect::<Vec<_>>();
        let dropped: Vec<_> = (0..2).map(|_| (kept.drop_newest(), frames(&kept), kept.judged)).collect();
        assert_eq!(dropped, [(Some(9), vec![7, 10, 7], 3), (Some(9), vec![7, 7], 2)]);
        assert_eq!((kept.drop_newest(), kept.drop_newest(), kept.drop_newest()), (Some(7), Some(5), None));
        assert_eq!((kept.bytes, kept.judged), (0, 0));
    }

    #[test]
    fn bytes_and_chunks_are_bounded() {
        let mut kept = EarlyTargets::default();
        let limit = target(0, 0, b"").cost() as u32 * 2 + 5;
        assert!(kept.keep(target(1, 0, b"abc"), limit, usize::MAX));
        assert!(!kept.keep(target(2, 0, b"def"), limit, usize::MAX));
        assert!(kept.keep(target(2, 0, b"de"), limit, usize::MAX));
        assert!(!kept.keep(target(3, 0, b""), limit, usize::MAX));
        assert!(kept.keep(target(1, 0, b"abc"), limit, 0), "it is there");
        let mut kept = EarlyTargets::default();
        let cost = target(1, 0, b"abc").cost() + kept.growth();
        assert!(!kept.keep(target(1, 0, b"abc"), limit, cost - 1) && kept.keep(target(1, 0, b"abc"), limit, cost));
        let mut kept = EarlyTargets::default();
        for index in 0..5000 {
            assert_eq!(kept.keep(target(index, 0, b""), u32::MAX, usize::MAX), index < 4096);
        }
    }

    #[test]
    fn the_queue_is_counted_and_goes_back() {
        let mut kept = EarlyTargets::default();
        let one = target(0, 0, b"abc").cost();
        let mut most = 0;
        for index in 0..3_000 {
            // The bound given before is at least the memory taken afterwards.
            let (before, growth) = (kept.memory_bytes(), kept.growth());
            assert!(kept.keep(target(index, 0, b"abc"), u32::MAX, one + growth));
            assert!(kept.memory_bytes() <= before + one + growth);
            let places = kept.targets.capacity() - kept.targets.len();
            assert_eq!(kept.memory_bytes(), kept.targets.len() * one + places * size_of::<TargetChunk>());
            most = most.max(kept.memory_bytes());
        }
        while kept.due((1, 0, false), |_| false).is_some() {}
        assert!(kept.memory_bytes() == 0, "{} of {most}", kept.memory_bytes());
    }

    #[test]
    fn saved_targets_come_back_at_their_cost() {
        let mut kept = EarlyTargets::default();
        kept.keep(TargetChunk { elements: Some(3..9), ..target(1, 2, b"abc") }, 1000, usize::MAX);
        let mut out = BytesMut::new();
        kept.save(&mut out);
        assert_eq!(EarlyTargets::load(&mut &out[..]), Some(kept));
    }
}
