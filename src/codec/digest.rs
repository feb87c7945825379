//! The two digests over the decoded integers, and what they were as far back as a rewind may go (spec 6.4).

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::stream::saved::{Saved, saved_fields};

/// What is known of a frame's Y.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameY {
    /// Layered mode: the target has not come yet.
    Pending,
    /// `c_Y`, the crc of the frame's Y.
    Known(u32),
    /// Concealed: the Y digest cannot be verified until it starts anew.
    Lost,
}

/// A Y digest as it stands behind some frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DigestY {
    pub(crate) value: u32,
    /// A target since the digest's start was lost.
    pub(crate) lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    /// W digest behind this frame.
    digest_w: u32,
    y: FrameY,
    /// Y digest behind this frame; meaningful below `resolved`.
    digest_y: DigestY,
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

/// The crc of one frame's integers, `c_W` or `c_Y` of spec 6.4.
pub(crate) fn frame_crc(values: &[i16]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let mut bytes = [0_u8; 512];
    for part in values.chunks(256) {
        for (slot, value) in bytes.chunks_exact_mut(2).zip(part) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        hasher.update(bytes.get(..part.len().saturating_mul(2)).unwrap_or(&[]));
    }
    hasher.finalize()
}

/// `D = crc32(u32le(D) ‖ u32le(c))`, spec 6.4.
fn chain(digest: u32, crc: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&digest.to_le_bytes());
    hasher.update(&crc.to_le_bytes());
    hasher.finalize()
}

/// Digests of the timeline since the context's start.
///
/// Records reach back as far as a rewind may go and as far as targets are pending, so memory is bounded by
/// max rewind + target horizon + 1 records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digests {
    /// Absolute index of the first record.
    base: u64,
    /// Digests in front of the first record.
    base_w: u32,
    base_y: DigestY,
    records: VecDeque<Record>,
    /// Absolute index of the first frame whose Y, or an earlier one's, is pending.
    resolved: u64,
    /// Largest next index since the context began (H of [CTRL-4]).
    high_water: u64,
    max_rewind: u64,
    /// Indices of the checkpoints that still matter, ascending: the Y digest starts anew in front of these frames.
    starts: VecDeque<u64>,
    /// Checkpoints whose Y is not settled yet, in order; `true` where the digest covers no frame.
    waiting: VecDeque<(u64, bool)>,
    /// Checkpoints whose Y is settled, with the digest in front of them.
    verdicts: VecDeque<(u64, DigestY)>,
}

saved_fields!(Digests { base, base_w, base_y, records, resolved, high_water, max_rewind, starts, waiting, verdicts });

impl Digests {
    /// Whether loaded digests hang together: as many records as rewind and pending frames can have left, in front of
    /// `next`, in a context that began at `start`.
    pub(crate) fn valid(&self, start: u64, next: u64, max_rewind: u64) -> bool {
        let ascending = |mut values: std::collections::vec_deque::Iter<'_, u64>, end: u64| {
            let mut before = None;
            values.all(|value| {
                let follows = before.is_none_or(|before| before < *value) && *value <= end;
                before = Some(*value);
                follows
            })
        };
        let pending = |index: u64| self.record(index).is_some_and(|record| record.y == FrameY::Pending);
        start <= self.base
            && self.next_index() == next
            && (self.base..=next).contains(&self.resolved)
            && (self.resolved == next || pending(self.resolved))
            && !(self.base..self.resolved).any(pending)
            && self.high_water >= next
            && self.high_water.saturating_sub(next) <= max_rewind
            && self.max_rewind == max_rewind
            && ascending(self.starts.iter(), next)
            && self.waiting.iter().all(|(index, _)| *index <= next)
    }

    /// Digests of an empty context that begins at absolute index `start`.
    pub(crate) fn new(start: u64, max_rewind: u64) -> Self {
        Self {
            base: start,
            base_w: 0,
            base_y: DigestY::default(),
            records: VecDeque::new(),
            resolved: start,
            high_water: start,
            max_rewind,
            starts: VecDeque::new(),
            waiting: VecDeque::new(),
            verdicts: VecDeque::new(),
        }
    }

    /// Absolute index of the next frame.
    pub(crate) fn next_index(&self) -> u64 {
        self.base.saturating_add(self.records.len() as u64)
    }

    /// Appends a frame to the timeline.
    pub(crate) fn append(&mut self, crc_w: u32, y: FrameY) {
        let digest_w = chain(self.digest_w(), crc_w);
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

    /// The W digest in front of the next frame.
    pub(crate) fn digest_w(&self) -> u32 {
        self.records.back().map_or(self.base_w, |record| record.digest_w)
    }

    /// A checkpoint stands at the next index: the Y digest so far becomes a verdict as soon as no frame before it is
    /// pending, and starts anew behind it ([DEC-8], [DEC-10]).
    pub(crate) fn checkpoint(&mut self) {
        let next = self.next_index();
        let empty = self.starts.back() == Some(&next);
        self.waiting.push_back((next, empty));
        if !empty {
            self.starts.push_back(next);
        }
        self.advance();
    }

    /// The next checkpoint whose Y is settled: its index and the Y digest in front of it, in the checkpoints' order.
    pub(crate) fn next_verdict(&mut self) -> Option<(u64, DigestY)> {
        self.verdicts.pop_front()
    }

    /// A new context begins at `start`. What still waits can no longer be verified ([DEC-16]); verdicts stay to be
    /// fetched.
    pub(crate) fn begin(&mut self, start: u64, max_rewind: u64) {
        // Checkpoints behind every frame so far wait for targets that will not come.
        for (index, _) in std::mem::take(&mut self.waiting) {
            self.verdicts.push_back((index, DigestY { value: 0, lost: true }));
        }
        let verdicts = std::mem::take(&mut self.verdicts);
        *self = Self { verdicts, ..Self::new(start, max_rewind) };
    }

    /// Takes the timeline back to `index`; the caller has checked [CTRL-4]. [DEC-9]
    pub(crate) fn rewind(&mut self, index: u64) {
        while self.next_index() > index && self.records.pop_back().is_some() {}
        while self.starts.back().is_some_and(|start| *start > index) {
            self.starts.pop_back();
        }
        self.resolved = self.resolved.min(index);
        self.abandon_above(index);
    }

    fn abandon_above(&mut self, index: u64) {
        let kept = self.waiting.partition_point(|(checkpoint, _)| *checkpoint <= index);
        for (checkpoint, _) in self.waiting.drain(kept..) {
            self.verdicts.push_back((checkpoint, DigestY { value: 0, lost: true }));
        }
    }

    /// The Y digest behind the frame before `index`, a restart in front of `index` left aside.
    fn digest_y_behind(&self, index: u64) -> DigestY {
        match index.checked_sub(1).and_then(|previous| self.record(previous)) {
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

    /// Chains the Y digest over frames that are no longer pending, then lets go of records that no rewind reaches.
    fn advance(&mut self) {
        loop {
            while let Some((index, empty)) = self.waiting.front().copied().filter(|(index, _)| *index <= self.resolved)
            {
                self.waiting.pop_front();
                let digest = if empty { DigestY::default() } else { self.digest_y_behind(index) };
                self.verdicts.push_back((index, digest));
            }
            let Some(record) = self.record(self.resolved) else { break };
            let before = if self.starts.binary_search(&self.resolved).is_ok() {
                DigestY::default()
            } else {
                self.digest_y_behind(self.resolved)
            };
            let behind = match record.y {
                FrameY::Pending => break,
                FrameY::Known(crc) => DigestY { value: chain(before.value, crc), lost: before.lost },
                FrameY::Lost => DigestY { value: before.value, lost: true },
            };
            let index = self.resolved;
            if let Some(record) = self.record_mut(index) {
                record.digest_y = behind;
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
        while self.starts.front().is_some_and(|start| *start < self.base) {
            self.starts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(index: u32) -> FrameY {
        FrameY::Known(index.wrapping_mul(0x9E37_79B9))
    }

    /// A checkpoint's Y digest, settled at once and with nothing lost.
    fn verdict(digests: &mut Digests) -> u32 {
        digests.checkpoint();
        let (index, digest) = digests.next_verdict().unwrap();
        assert!(index == digests.next_index() && !digest.lost);
        digest.value
    }

    /// The definition of spec 6.4, over a whole list.
    fn by_definition(crcs: &[u32]) -> u32 {
        crcs.iter().fold(0, |digest, crc| crc32fast::hash(&[digest.to_le_bytes(), crc.to_le_bytes()].concat()))
    }

    #[test]
    fn frame_crc_is_over_little_endian_values() {
        assert_eq!(frame_crc(&[0x3231, 0x3433, 0x3635, 0x3837]), crc32fast::hash(b"12345678"));
        let long: Vec<i16> = (0..1000).map(|value| value * 31 - 9000).collect();
        let bytes: Vec<u8> = long.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(frame_crc(&long), crc32fast::hash(&bytes));
    }

    #[test]
    fn digests_follow_the_definition_through_rewinds_and_checkpoints() {
        let mut digests = Digests::new(5, 4);
        for index in 5..12 {
            digests.append(index, known(index));
        }
        let y = |range: std::ops::Range<u32>| -> Vec<u32> { range.map(|i| i.wrapping_mul(0x9E37_79B9)).collect() };
        assert_eq!(digests.digest_w(), by_definition(&(5..12).collect::<Vec<_>>()));
        assert_eq!(verdict(&mut digests), by_definition(&y(5..12)));
        assert_eq!(verdict(&mut digests), 0, "nothing lies between two checkpoints at one index");
        digests.append(12, known(12));
        assert_eq!(verdict(&mut digests.clone()), by_definition(&y(12..13)));
        // Back to the checkpoint's very index: the Y digest is that behind the checkpoint.
        digests.rewind(12);
        assert_eq!(verdict(&mut digests.clone()), 0);
        // Behind it: as if the checkpoint had not been.
        digests.rewind(10);
        assert_eq!(verdict(&mut digests.clone()), by_definition(&y(5..10)));
        assert_eq!(digests.digest_w(), by_definition(&(5..10).collect::<Vec<_>>()));
        digests.append(77, known(10));
        assert_eq!(verdict(&mut digests), by_definition(&y(5..11)));
    }

    #[test]
    fn a_lost_target_marks_the_digest_until_the_next_checkpoint() {
        let mut digests = Digests::new(0, 2);
        for _ in 0..3 {
            digests.append(1, FrameY::Pending);
        }
        assert!(digests.settle(2, known(2)));
        digests.checkpoint();
        assert_eq!(digests.next_verdict(), None, "frames 0 and 1 are pending");
        digests.append(1, known(3));
        assert!(digests.settle(1, FrameY::Lost));
        assert!(!digests.settle(1, known(1)), "a late target changes nothing");
        assert!(digests.settle(0, known(0)));
        assert_eq!(digests.next_verdict().map(|(index, y)| (index, y.lost)), Some((3, true)));
        assert_eq!(verdict(&mut digests), by_definition(&[3_u32.wrapping_mul(0x9E37_79B9)]));
    }

    #[test]
    fn a_checkpoint_whose_pending_frames_are_rewound_is_unverifiable() {
        let mut digests = Digests::new(0, 4);
        digests.append(1, FrameY::Pending);
        digests.append(1, FrameY::Pending);
        digests.checkpoint();
        digests.rewind(1);
        assert_eq!(digests.next_verdict().map(|(index, y)| (index, y.lost)), Some((2, true)));
        digests.append(1, known(1));
        digests.settle(0, known(0));
        assert_eq!(verdict(&mut digests), by_definition(&[0, 0x9E37_79B9]));
    }

    #[test]
    fn memory_is_bounded_by_the_rewind() {
        let mut digests = Digests::new(0, 8);
        for index in 0..100_000 {
            if index % 64 == 0 {
                digests.checkpoint();
                assert!(digests.next_verdict().is_some());
            }
            digests.append(index, known(index));
        }
        assert!(digests.records.len() <= 9 && digests.starts.len() <= 2);
    }
}
