//! The two digests over the decoded integers, with their earlier values as far back as a rewind may go (spec 6.4).

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::number::to_usize;
use crate::stream::memory::{growth, queue_bytes, settle_queue};
use crate::stream::saved::{Saved, saved_fields};
use crate::wire::Seed;

/// What is known about a frame's Y.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameY {
    /// Layered mode: the target has not come yet.
    Pending,
    /// `c_Y`, the crc of the frame's Y.
    Known(u32),
    /// Concealed: the Y digest cannot be verified until it starts anew.
    Lost,
}

/// A Y digest after some frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DigestY {
    pub(crate) value: u32,
    /// A target since the digest's start was lost.
    pub(crate) lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    /// W digest after this frame.
    digest_w: u32,
    y: FrameY,
    /// Y digest after this frame; meaningful below `resolved`.
    digest_y: DigestY,
}

/// A Y digest that the stream states: that of the frames `from..to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stated {
    /// The frame at which the digest starts: the context's first, or the first after the previous checkpoint.
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) digest_y: u32,
    /// The offset of the digest in the stream.
    pub(crate) offset: u64,
}

/// A stated Y digest that can be judged now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) stated: Stated,
    /// The digest of what was decoded; `None` if it cannot be verified because a target was lost or dropped.
    pub(crate) found: Option<u32>,
}

impl Saved for FrameY {
    fn save(&self, out: &mut BytesMut) {
        match *self {
            FrameY::Pending => (0_u8, 0_u32).save(out),
            FrameY::Known(crc) => (1_u8, crc).save(out),
            FrameY::Lost => (2_u8, 0_u32).save(out),
        }
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        match <(u8, u32)>::load(input)? {
            (0, 0) => Some(FrameY::Pending),
            (1, crc) => Some(FrameY::Known(crc)),
            (2, 0) => Some(FrameY::Lost),
            _ => None,
        }
    }
}

saved_fields!(DigestY { value, lost });
saved_fields!(Record { digest_w, y, digest_y });
saved_fields!(Stated { from, to, digest_y, offset });
saved_fields!(Judged { stated, found });

/// `D = crc32(u32le(D) ‖ u32le(c_Y))`, spec 6.4.
fn chain_y(digest: u32, crc: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&digest.to_le_bytes());
    hasher.update(&crc.to_le_bytes());
    hasher.finalize()
}

/// `D = crc32(u32le(D) ‖ u8(quality) ‖ u32le(c_W))`, spec 6.4.
fn chain_w(digest: u32, quality: usize, crc: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&digest.to_le_bytes());
    // A quality is below 256 ([MODEL-3]).
    let [quality, ..] = quality.to_le_bytes();
    hasher.update(&[quality]);
    hasher.update(&crc.to_le_bytes());
    hasher.finalize()
}

/// Whether values ascend, each at least the previous one, from `least` up to `most`.
fn ascending(mut values: impl Iterator<Item = u64>, least: u64, most: u64) -> bool {
    let mut before = least;
    values.all(|value| std::mem::replace(&mut before, value) <= value && value <= most)
}

/// Digests of the timeline since the context's start.
///
/// Records reach back as far as a rewind may go and as far as targets are pending, so memory is bounded by
/// max rewind + target horizon + 1 records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digests {
    /// The value that both digests start from.
    seed: Seed,
    /// Absolute index of the first record.
    base: u64,
    /// Digests before the first record.
    base_w: u32,
    base_y: DigestY,
    records: VecDeque<Record>,
    /// Absolute index of the first pending frame, or of the next frame if none is pending.
    resolved: u64,
    /// Largest next index since the context began (H of [CTRL-4]).
    high_water: u64,
    max_rewind: u64,
    /// The frames at which the Y digest starts anew, ascending: the context's start, then checkpoints. It holds all
    /// from the last one at or below `base` on, so it is never empty.
    starts: VecDeque<u64>,
    /// Stated digests whose frames are still pending, in order.
    waiting: VecDeque<Stated>,
    /// Stated digests that can be judged, not yet fetched.
    judged: VecDeque<Judged>,
}

impl Digests {
    /// Appends what [`Digests::restore`] reads.
    pub(crate) fn save(&self, out: &mut BytesMut) {
        (self.base, self.base_w).save(out);
        (self.base_y, self.records.clone()).save(out);
        (self.resolved, self.high_water).save(out);
        (self.starts.clone(), self.waiting.clone()).save(out);
        self.judged.save(out);
    }

    /// The digests that [`Digests::save`] wrote, of a context that began at `start` and whose next frame is `next`;
    /// `None` if they are not consistent: there must be as many records as rewind and pending frames can have left.
    pub(crate) fn restore(start: u64, next: u64, max_rewind: u64, seed: Seed, input: &mut &[u8]) -> Option<Self> {
        let mut digests = Self::new(start, max_rewind, seed);
        (digests.base, digests.base_w) = Saved::load(input)?;
        (digests.base_y, digests.records) = Saved::load(input)?;
        (digests.resolved, digests.high_water) = Saved::load(input)?;
        (digests.starts, digests.waiting) = Saved::load(input)?;
        digests.judged = Saved::load(input)?;
        digests.valid(start, next).then_some(digests)
    }

    fn valid(&self, start: u64, next: u64) -> bool {
        let pending = |index: u64| self.record(index).is_some_and(|record| record.y == FrameY::Pending);
        let kept = self.resolved.min(self.high_water.saturating_sub(self.max_rewind));
        start <= self.base
            && self.base >= kept
            && self.next_index() == next
            && (self.base..=next).contains(&self.resolved)
            && (self.resolved == next || pending(self.resolved))
            && !(self.base..self.resolved).any(pending)
            && self.high_water >= next
            && self.high_water.saturating_sub(next) <= self.max_rewind
            && self.starts.front().is_some_and(|first| *first <= self.base)
            && self.starts.iter().zip(self.starts.iter().skip(1)).all(|(a, b)| a < b)
            && ascending(self.starts.iter().copied(), start, next)
            && ascending(self.waiting.iter().map(|stated| stated.to), start, next)
            && self.waiting.iter().all(|stated| (start..=stated.to).contains(&stated.from) && stated.to > self.resolved)
    }

    /// Digests of an empty context that begins at absolute index `start`, in a stream with this seed.
    pub(crate) fn new(start: u64, max_rewind: u64, seed: Seed) -> Self {
        Self {
            seed,
            base: start,
            base_w: seed.value(),
            base_y: DigestY { value: seed.value(), lost: false },
            records: VecDeque::new(),
            resolved: start,
            high_water: start,
            max_rewind,
            starts: VecDeque::from([start]),
            waiting: VecDeque::new(),
            judged: VecDeque::new(),
        }
    }

    /// Bytes that the digests hold in addition to their own size.
    pub(crate) fn memory_bytes(&self) -> usize {
        [queue_bytes(&self.records), queue_bytes(&self.starts), queue_bytes(&self.waiting), queue_bytes(&self.judged)]
            .into_iter()
            .fold(0, usize::saturating_add)
    }

    /// The most bytes that they gain by this many frames of an encoder, which keeps only what a rewind reaches.
    pub(crate) fn growth(&self, frames: usize) -> usize {
        let reach = to_usize(self.max_rewind).saturating_add(1);
        let more = reach.saturating_sub(self.records.len()).min(frames);
        self.growth_by(more)
    }

    /// The most bytes that they gain by this many more frames, whatever is kept.
    pub(crate) fn growth_by(&self, frames: usize) -> usize {
        growth::<Record>(self.records.len(), self.records.capacity(), frames)
    }

    /// Absolute index of the next frame.
    pub(crate) fn next_index(&self) -> u64 {
        self.base.saturating_add(self.records.len() as u64)
    }

    /// Appends a frame, whose W was coded in this quality, to the timeline.
    pub(crate) fn append(&mut self, quality: usize, crc_w: u32, y: FrameY) {
        let digest_w = chain_w(self.digest_w(), quality, crc_w);
        self.records.push_back(Record { digest_w, y, digest_y: DigestY::default() });
        self.high_water = self.high_water.max(self.next_index());
        self.advance();
    }

    /// Settles the Y of a pending frame. Returns false if the frame is not pending.
    pub(crate) fn settle(&mut self, index: u64, y: FrameY) -> bool {
        let Some(record) = self.record_mut(index) else { return false };
        if record.y != FrameY::Pending {
            return false;
        }
        record.y = y;
        self.advance();
        true
    }

    /// The W digest before the next frame.
    pub(crate) fn digest_w(&self) -> u32 {
        self.records.back().map_or(self.base_w, |record| record.digest_w)
    }

    /// The Y digest before the next frame if no frame is pending, as in an encoder.
    pub(crate) fn digest_y(&self) -> u32 {
        self.digest_y_to(self.next_index()).value
    }

    /// The number of stated digests that wait for targets.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The frame at which the Y digest before the next frame starts.
    fn start(&self) -> u64 {
        self.starts.back().copied().unwrap_or(self.base)
    }

    /// Takes the Y digest that the stream states before the next frame. It can be judged as soon as no frame before it
    /// is pending ([DEC-10]). Returns the range of frames that it covers.
    pub(crate) fn state(&mut self, digest_y: u32, offset: u64) -> (u64, u64) {
        let (from, to) = (self.start(), self.next_index());
        self.waiting.push_back(Stated { from, to, digest_y, offset });
        self.advance();
        (from, to)
    }

    /// A checkpoint comes before the next frame: the Y digest starts anew (spec 6.4).
    pub(crate) fn restart(&mut self) {
        let next = self.next_index();
        if self.start() != next {
            self.starts.push_back(next);
        }
        self.advance();
    }

    /// The next stated digest that can be judged, in the order in which they became so.
    pub(crate) fn next_judged(&mut self) -> Option<Judged> {
        let judged = self.judged.pop_front()?;
        settle_queue(&mut self.judged);
        Some(judged)
    }

    /// The context ends: targets that have not come are dropped, which counts as lost, so that every stated digest can
    /// be judged ([DEC-16]).
    pub(crate) fn end_context(&mut self) {
        let next = self.next_index();
        for index in self.resolved..next {
            self.settle(index, FrameY::Lost);
        }
    }

    /// A new context begins at `start`. Digests that can be judged are still to be fetched.
    pub(crate) fn begin(&mut self, start: u64, max_rewind: u64, seed: Seed) {
        let judged = std::mem::take(&mut self.judged);
        *self = Self { judged, ..Self::new(start, max_rewind, seed) };
    }

    /// Moves the timeline back to `index`; the caller has checked [CTRL-4]. [DEC-9]
    pub(crate) fn rewind(&mut self, index: u64) {
        while self.next_index() > index && self.records.pop_back().is_some() {}
        while self.starts.len() > 1 && self.starts.back().is_some_and(|start| *start > index) {
            self.starts.pop_back();
        }
        self.resolved = self.resolved.min(index);
        // [DEC-16] A digest that waits and whose index is above the rewind's becomes unverifiable.
        let kept = self.waiting.partition_point(|stated| stated.to <= index);
        self.judged.extend(self.waiting.drain(kept..).map(|stated| Judged { stated, found: None }));
    }

    /// The Y digest of the frames up to `to`, none of which is pending, since its last start.
    fn digest_y_to(&self, to: u64) -> DigestY {
        if self.starts.binary_search(&to).is_ok() {
            return DigestY { value: self.seed.value(), lost: false };
        }
        match to.checked_sub(1).and_then(|last| self.record(last)) {
            Some(record) => record.digest_y,
            None => self.base_y,
        }
    }

    fn record(&self, index: u64) -> Option<&Record> {
        self.records.get(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    fn record_mut(&mut self, index: u64) -> Option<&mut Record> {
        self.records.get_mut(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    /// Chains the Y digest over frames that are no longer pending, then drops records that no rewind reaches.
    fn advance(&mut self) {
        loop {
            while let Some(stated) = self.waiting.front().copied().filter(|stated| stated.to <= self.resolved) {
                self.waiting.pop_front();
                // If a range ends where another starts, its digest is that of its last frame, not the new start.
                let digest = if stated.from == stated.to {
                    DigestY { value: self.seed.value(), lost: false }
                } else {
                    self.digest_y_after(stated.to)
                };
                self.judged.push_back(Judged { stated, found: (!digest.lost).then_some(digest.value) });
            }
            let Some(record) = self.record(self.resolved) else { break };
            let before = self.digest_y_to(self.resolved);
            let after = match record.y {
                FrameY::Pending => break,
                FrameY::Known(crc) => DigestY { value: chain_y(before.value, crc), lost: before.lost },
                FrameY::Lost => DigestY { value: before.value, lost: true },
            };
            let index = self.resolved;
            if let Some(record) = self.record_mut(index) {
                record.digest_y = after;
            }
            self.resolved = self.resolved.saturating_add(1);
        }
        let keep = self.resolved.min(self.high_water.saturating_sub(self.max_rewind));
        while self.base < keep {
            let Some(record) = self.records.pop_front() else { break };
            self.base = self.base.saturating_add(1);
            self.base_w = record.digest_w;
            self.base_y = record.digest_y;
        }
        while self.starts.get(1).is_some_and(|start| *start <= self.base) {
            self.starts.pop_front();
        }
        settle_queue(&mut self.records);
        settle_queue(&mut self.starts);
        settle_queue(&mut self.waiting);
    }

    /// The Y digest after the frame before `index`, ignoring a restart at `index`.
    fn digest_y_after(&self, index: u64) -> DigestY {
        match index.checked_sub(1).and_then(|previous| self.record(previous)) {
            Some(record) => record.digest_y,
            None => self.base_y,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Identity;

    fn known(index: u32) -> FrameY {
        FrameY::Known(index.wrapping_mul(0x9E37_79B9))
    }

    /// A checkpoint's Y digest, settled at once and with nothing lost.
    fn verdict(digests: &mut Digests) -> u32 {
        let (_, to) = digests.state(0, 0);
        digests.restart();
        let judged = digests.next_judged().unwrap();
        assert_eq!((judged.stated.to, digests.next_judged()), (to, None));
        judged.found.unwrap()
    }

    /// What has been judged so far: ranges, and whether Y could be verified.
    fn judged(digests: &mut Digests) -> Vec<(u64, u64, bool)> {
        std::iter::from_fn(|| digests.next_judged())
            .map(|judged| (judged.stated.from, judged.stated.to, judged.found.is_some()))
            .collect()
    }

    /// A checkpoint at the current place.
    fn checkpoint(digests: &mut Digests) {
        digests.state(0, 0);
        digests.restart();
    }

    /// The definition of spec 6.4, over a whole list.
    fn by_definition(crcs: &[u32]) -> u32 {
        crcs.iter().fold(0, |digest, crc| crc32fast::hash(&[digest.to_le_bytes(), crc.to_le_bytes()].concat()))
    }

    /// The same for W, of frames whose quality is their number modulo 3.
    fn by_definition_w(crcs: std::ops::Range<u32>) -> u32 {
        crcs.fold(0, |digest, crc| {
            crc32fast::hash(&[&digest.to_le_bytes()[..], &[(crc % 3) as u8], &crc.to_le_bytes()].concat())
        })
    }

    #[test]
    fn digests_follow_the_definition_through_rewinds_and_checkpoints() {
        let mut digests = Digests::new(5, 4, Seed::NONE);
        for index in 5..12 {
            digests.append(index as usize % 3, index, known(index));
        }
        let y = |range: std::ops::Range<u32>| -> Vec<u32> { range.map(|i| i.wrapping_mul(0x9E37_79B9)).collect() };
        assert_eq!(digests.digest_w(), by_definition_w(5..12));
        assert_eq!(digests.digest_y(), by_definition(&y(5..12)));
        assert_eq!(verdict(&mut digests), by_definition(&y(5..12)));
        assert_eq!(verdict(&mut digests), 0, "nothing lies between two checkpoints at one index");
        digests.append(0, 12, known(12));
        assert_eq!(verdict(&mut digests.clone()), by_definition(&y(12..13)));
        // Back to the checkpoint's index: the Y digest is the one after the checkpoint.
        digests.rewind(12);
        assert_eq!((verdict(&mut digests.clone()), digests.digest_y()), (0, 0));
        // Back to before the checkpoint: as if there had been none.
        digests.rewind(10);
        assert_eq!(verdict(&mut digests.clone()), by_definition(&y(5..10)));
        assert_eq!(digests.digest_w(), by_definition_w(5..10));
        digests.append(0, 77, known(10));
        assert_eq!(digests.digest_y(), by_definition(&y(5..11)));
        assert_eq!(verdict(&mut digests), by_definition(&y(5..11)));
    }

    #[test]
    fn digests_start_from_the_identity() {
        let seed = Identity::new(*b"identity").seed();
        let mut digests = Digests::new(5, 0, seed);
        assert_eq!((digests.digest_w(), digests.digest_y()), (crc32fast::hash(b"identity"), seed.value()));
        assert_eq!(verdict(&mut digests), seed.value());
        digests.append(0, 1, FrameY::Known(2));
        assert_eq!(
            (digests.digest_w(), verdict(&mut digests)),
            (chain_w(seed.value(), 0, 1), chain_y(seed.value(), 2))
        );
        assert_eq!(verdict(&mut digests), seed.value());
        digests.append(0, 3, FrameY::Known(4));
        assert_eq!(verdict(&mut digests), chain_y(seed.value(), 4));
        digests.begin(6, 0, seed);
        assert_eq!((digests.digest_w(), digests.digest_y()), (seed.value(), seed.value()));
    }

    #[test]
    fn a_lost_target_marks_the_digest_until_the_next_checkpoint() {
        let mut digests = Digests::new(0, 2, Seed::NONE);
        for _ in 0..3 {
            digests.append(0, 1, FrameY::Pending);
        }
        assert!(digests.settle(2, known(2)));
        checkpoint(&mut digests);
        assert_eq!(judged(&mut digests), [], "frames 0 and 1 are pending");
        digests.append(0, 1, known(3));
        assert!(digests.settle(1, FrameY::Lost));
        assert!(!digests.settle(1, known(1)), "a late target changes nothing");
        assert!(digests.settle(0, known(0)));
        assert_eq!(judged(&mut digests), [(0, 3, false)]);
        assert_eq!(verdict(&mut digests), by_definition(&[3_u32.wrapping_mul(0x9E37_79B9)]));
    }

    #[test]
    fn a_checkpoint_whose_pending_frames_are_rewound_is_unverifiable() {
        let mut digests = Digests::new(0, 4, Seed::NONE);
        digests.append(0, 1, FrameY::Pending);
        digests.append(0, 1, FrameY::Pending);
        checkpoint(&mut digests);
        digests.rewind(1);
        assert_eq!(judged(&mut digests), [(0, 2, false)]);
        digests.append(0, 1, known(1));
        digests.settle(0, known(0));
        assert_eq!(verdict(&mut digests), by_definition(&[0, 0x9E37_79B9]));
    }

    /// A rewind drops a newer checkpoint while an older one waits: the older one still gets its own verdict.
    #[test]
    fn a_dropped_checkpoint_leaves_the_older_one_its_verdict() {
        let mut digests = Digests::new(0, 4, Seed::NONE);
        digests.append(0, 1, FrameY::Pending);
        digests.append(0, 2, known(1));
        checkpoint(&mut digests);
        digests.append(0, 3, known(2));
        checkpoint(&mut digests);
        digests.rewind(2);
        assert_eq!(judged(&mut digests), [(2, 3, false)]);
        digests.settle(0, known(0));
        assert_eq!(judged(&mut digests), [(0, 2, true)]);
    }

    /// Targets that the end of a context drops count as lost; ranges without a dropped target are judged.
    #[test]
    fn a_contexts_end_judges_what_it_can() {
        let mut digests = Digests::new(0, 4, Seed::NONE);
        digests.append(0, 1, FrameY::Pending);
        checkpoint(&mut digests);
        digests.append(0, 2, known(1));
        checkpoint(&mut digests);
        digests.append(0, 3, known(2));
        digests.append(0, 4, FrameY::Pending);
        digests.end_context();
        digests.state(0, 0);
        assert_eq!(judged(&mut digests), [(0, 1, false), (1, 2, true), (2, 4, false)]);
    }

    #[test]
    fn memory_is_bounded_by_the_rewind() {
        let mut digests = Digests::new(0, 8, Seed::NONE);
        for index in 0..100_000 {
            if index % 64 == 0 {
                verdict(&mut digests);
            }
            digests.append(0, index, known(index));
        }
        assert!(digests.records.len() <= 9 && digests.starts.len() <= 2);
    }

    #[test]
    fn saved_digests_come_back() {
        let mut digests = Digests::new(3, 4, Seed::NONE);
        for index in 0..9 {
            digests.append(0, index, if index == 5 { FrameY::Pending } else { known(index) });
            if index % 3 == 2 {
                checkpoint(&mut digests);
            }
        }
        let mut out = BytesMut::new();
        digests.save(&mut out);
        let restore = |start, next, bytes: &[u8]| Digests::restore(start, next, 4, Seed::NONE, &mut &*bytes);
        assert_eq!(restore(3, 12, &out), Some(digests));
        assert_eq!((restore(3, 13, &out), restore(9, 12, &out), restore(3, 12, &out[1..])), (None, None, None));
    }
}
