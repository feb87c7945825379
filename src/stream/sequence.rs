//! The state of a stream that both reader and writer keep, and the rules of spec 2.8 that depend on it.

use super::limits::Limits;
use bytes::BytesMut;

use super::event::TargetStatus;
use super::runs::{REACH, Runs};
use super::saved::Saved;
use crate::error::{Detail, Error, ErrorKind};
use crate::wire::header::MAX_LENGTH_OFFSET;
use crate::wire::reset::Expected;
use crate::wire::rewind::Reach;
use crate::wire::target::{EARLY_EPOCHS, EARLY_FRAMES};
use crate::wire::{CheckWidth, Mode, ModelSwitch, Quality, Reset, Scope, Seed, SideCover, StreamHeader, side, varint};

/// The position in the sequence: which frame is next, in which epoch, and how far back a rewind may go.
///
/// A [`super::Reader`] shows the state after its last event, a [`super::Writer`] the state after the last chunk
/// written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    mode: Mode,
    check: CheckWidth,
    seed: Seed,
    limits: Limits,
    next: u64,
    epoch: u32,
    /// S and H of [CTRL-4].
    start: u64,
    high: u64,
    /// `None` for a reader that joined.
    coded: Option<u64>,
    quality: u8,
    length_offset: u16,
    /// The first bytes of the current model's fingerprint.
    model: [u8; 8],
    hyper: Runs,
    /// Whether checks cover side indices.
    side: bool,
    /// The most side indices of a CC chunk: max frames per chunk, whatever the target horizon is ([CTRL-10]).
    max_side: u32,
    /// Side indices of the last CC chunk whose frames are still to come ([CTRL-10]).
    side_left: u32,
    ended: bool,
}

/// The state that neither header nor caller gives.
impl Sequence {
    /// Appends what [`Sequence::restore`] reads.
    pub(super) fn save(&self, out: &mut BytesMut) {
        (self.next, self.epoch).save(out);
        (self.start, self.high).save(out);
        (self.coded, self.quality).save(out);
        (self.model, self.hyper.clone()).save(out);
        (self.side_left, self.ended).save(out);
        self.length_offset.save(out);
    }

    /// The sequence of a stream with this header as [`Sequence::save`] wrote it; `None` if the bytes give no valid
    /// state.
    pub(super) fn restore(header: &StreamHeader, limits: Limits, input: &mut &[u8]) -> Option<Sequence> {
        let mut sequence = Sequence::new(header, limits);
        (sequence.next, sequence.epoch) = Saved::load(input)?;
        (sequence.start, sequence.high) = Saved::load(input)?;
        (sequence.coded, sequence.quality) = Saved::load(input)?;
        (sequence.model, sequence.hyper) = Saved::load(input)?;
        (sequence.side_left, sequence.ended) = Saved::load(input)?;
        sequence.length_offset = Saved::load(input)?;
        let ordered = sequence.start <= sequence.next && sequence.next <= sequence.high && sequence.high <= varint::MAX;
        let counted = sequence.coded.is_none_or(|coded| coded <= varint::MAX);
        let side = sequence.side_left == 0 || sequence.side;
        let offset = sequence.length_offset <= MAX_LENGTH_OFFSET;
        (ordered && counted && side && offset && sequence.hyper.valid(sequence.next)).then_some(sequence)
    }
}

impl Sequence {
    /// The start of a stream with this header.
    #[must_use]
    pub fn new(header: &StreamHeader, limits: Limits) -> Sequence {
        let mut limits = limits.min(Limits::declared(header));
        let max_side = limits.max_frames;
        if header.mode == Mode::Layered {
            // [BATCH-1] In layered mode a frame count above the target horizon is refused too.
            limits.max_frames = limits.max_frames.min(limits.target_horizon);
        }
        Sequence {
            mode: header.mode,
            check: header.check,
            seed: header.identity.seed(),
            limits,
            next: 0,
            epoch: 0,
            start: 0,
            high: 0,
            coded: Some(0),
            quality: header.quality,
            length_offset: header.length_offset,
            model: prefix(&header.fingerprint),
            hyper: Runs::default(),
            side: header.side,
            max_side,
            side_left: 0,
            ended: false,
        }
    }

    /// The absolute index of the next frame.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.next
    }

    /// The current epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The absolute index at which the context began.
    #[must_use]
    pub fn context_start(&self) -> u64 {
        self.start
    }

    /// The number of frames coded, rewound ones included; `None` for a reader that joined.
    #[must_use]
    pub fn frames_coded(&self) -> Option<u64> {
        self.coded
    }

    /// The quality in force.
    #[must_use]
    pub fn quality(&self) -> u8 {
        self.quality
    }

    /// The length offset in force: in a byte stream, one-frame bodies of this many bytes and up to 127 more take one
    /// byte of length (spec 2.3).
    #[must_use]
    pub fn length_offset(&self) -> u16 {
        self.length_offset
    }

    /// The first bytes of the fingerprint of the model in force.
    #[must_use]
    pub fn model_prefix(&self) -> [u8; 8] {
        self.model
    }

    /// The coding mode of the stream.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The limits in force: the smaller of the caller's and the header's.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Bytes that the sequence holds in addition to its own size.
    pub(super) fn memory_bytes(&self) -> usize {
        self.hyper.memory_bytes()
    }

    /// What the check of the next frame chunk covers, and its width. Side indices are not known here.
    pub(super) fn scope(&self) -> Scope {
        Scope {
            index: self.next,
            epoch: self.epoch,
            quality: self.quality,
            width: self.check,
            seed: self.seed,
            side: if self.side { SideCover::Open } else { SideCover::None },
        }
    }

    /// Whether the stream's models take side indices.
    #[must_use]
    pub fn takes_side(&self) -> bool {
        self.side
    }

    /// The most side indices of a CC chunk.
    pub(super) fn max_side(&self) -> u32 {
        self.max_side
    }

    /// How many side indices of the last CC chunk are left for frames to come ([CTRL-10]).
    #[must_use]
    pub fn side_left(&self) -> u32 {
        self.side_left
    }

    /// The value that the stream's checks, crcs and digests start from.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// How far back a rewind may go.
    #[must_use]
    pub fn reach(&self) -> Reach {
        Reach { start: self.start, next: self.next, high: self.high, max_rewind: self.limits.max_rewind }
    }

    /// What the next context reset or model switch must say ([CTRL-3]).
    #[must_use]
    pub fn expected_reset(&self) -> Expected {
        Expected {
            index: Some(self.next),
            epoch: Some(self.epoch.wrapping_add(1)),
            fingerprint_prefix: Some(self.model),
        }
    }

    /// The first frame and the epoch that a target names (spec 6.5), if both exist and are no further ahead than
    /// allowed.
    ///
    /// The index is the one nearest the next frame's with these low 16 bits, at most 2^15 before it and fewer than
    /// 4,096 after it. The epoch is the current one, one of the eight after it, or one of the 247 before it; an epoch
    /// before a wrap-around mod 2^32 is not named by any target.
    #[must_use]
    pub fn resolve_target(&self, index_low: u16, epoch_low: u8) -> Option<(u64, u32)> {
        self.resolve_target_at(self.next, index_low, epoch_low)
    }

    /// The same for a caller that has not taken the last frame chunk yet: `next` is the index of its first frame
    /// ([DEC-14]).
    pub(crate) fn resolve_target_at(&self, next: u64, index_low: u16, epoch_low: u8) -> Option<(u64, u32)> {
        let [low, high, ..] = next.to_le_bytes();
        let after = index_low.wrapping_sub(u16::from_le_bytes([low, high])).cast_signed();
        let index = next.checked_add_signed(i64::from(after))?;
        let [current_low, ..] = self.epoch.to_le_bytes();
        let ahead = epoch_low.wrapping_sub(current_low);
        let epoch = if ahead <= EARLY_EPOCHS {
            self.epoch.wrapping_add(u32::from(ahead))
        } else {
            self.epoch.checked_sub(0x100_u32.saturating_sub(u32::from(ahead)))?
        };
        let reached = index < next.saturating_add(u64::from(EARLY_FRAMES));
        reached.then_some((index, epoch))
    }

    /// The status of a target of `frames` frames from `index` on, coded in `epoch`, if its check holds (spec 6.5). An
    /// early target stays early until its epoch is current and its last frame was coded, or until its epoch is past.
    #[must_use]
    pub fn target_status(&self, index: u64, epoch: u32, frames: u32) -> TargetStatus {
        self.target_status_at(self.next, index, epoch, frames)
    }

    /// The same for a caller that has not taken the last frame chunk yet: `next` is the index of its first frame
    /// ([DEC-14]).
    pub(crate) fn target_status_at(&self, next: u64, index: u64, epoch: u32, frames: u32) -> TargetStatus {
        let ahead = epoch.wrapping_sub(self.epoch);
        let to_come = match ahead {
            0 => index.saturating_add(u64::from(frames)) > next,
            _ => ahead <= u32::from(EARLY_EPOCHS),
        };
        if to_come && !self.ended {
            TargetStatus::Early { index, epoch }
        } else if self.hyper_epoch_at(next, index, frames) == Some(epoch) {
            TargetStatus::Usable { index, epoch }
        } else {
            TargetStatus::Late { index, epoch }
        }
    }

    /// Whether the end chunk was read or written.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The epoch in which the hyper-priors of `frames` frames from `index` on were coded, if all of them are in the
    /// timeline, in this context, within the reach of a target, and were coded in one epoch.
    ///
    /// Only the decoder knows whether they still wait for their target.
    #[must_use]
    pub fn hyper_epoch(&self, index: u64, frames: u32) -> Option<u32> {
        self.hyper_epoch_at(self.next, index, frames)
    }

    fn hyper_epoch_at(&self, next: u64, index: u64, frames: u32) -> Option<u32> {
        let reached = index.checked_add(REACH).is_some_and(|end| end >= next);
        if reached { self.hyper.epoch(index, frames) } else { None }
    }

    /// Advances by a frame chunk of `frames` frames. `exact` says that it is an exact frame, which counts as one frame
    /// and is coded jointly in either mode ([CTRL-8]).
    ///
    /// # Errors
    /// [`ErrorKind::FieldOutOfRange`] if the index would leave the range of a varint. Nothing changes then.
    pub(super) fn take_frames(&mut self, frames: u32, exact: bool) -> Result<(), Error> {
        let add = |count: u64| count.checked_add(u64::from(frames)).filter(|sum| *sum <= varint::MAX);
        let found = self.coded.unwrap_or(0).max(self.next).saturating_add(frames.into());
        let (low, high, found) = (0, varint::MAX.cast_signed(), found.cast_signed());
        let detail = Detail::Range { what: "index or number of frames", low, high, found };
        let out_of_range = Error::new(ErrorKind::FieldOutOfRange, 0).with(detail);
        let next = add(self.next).ok_or(out_of_range)?;
        let coded = match self.coded {
            Some(coded) => Some(add(coded).ok_or(out_of_range)?),
            None => None,
        };
        if self.mode == Mode::Layered && !exact {
            self.hyper.push(self.next, next, self.epoch);
        }
        self.next = next;
        self.coded = coded;
        self.side_left = self.side_left.saturating_sub(frames);
        // [CTRL-4] Let H be the largest absolute index of the next frame that was reached since the last context
        // reset, model switch or stream start, and S the absolute index at that point.
        self.high = self.high.max(next);
        Ok(())
    }

    /// Takes side indices of the next frames.
    ///
    /// # Errors
    /// [`ErrorKind::SideIndicesLeft`]. Nothing changes then.
    pub(super) fn take_side(&mut self, count: u32) -> Result<(), Error> {
        if self.side_left > 0 {
            return Err(side::left(self.side_left));
        }
        self.side_left = count;
        Ok(())
    }

    /// Goes back to a frame; [`Sequence::reach`] must allow it. [CHUNK-8] A rewind leaves the length offset as it is.
    pub(super) fn take_rewind(&mut self, index: u64) {
        self.next = index;
        self.hyper.truncate(index);
        self.side_left = 0;
        self.advance_epoch();
    }

    /// Begins a new context, as a context reset says.
    pub(super) fn take_reset(&mut self, reset: &Reset) {
        self.next = reset.index;
        self.epoch = reset.epoch;
        self.quality = reset.quality;
        self.length_offset = reset.length_offset;
        self.model = reset.fingerprint_prefix;
        self.begin_context();
    }

    /// Begins a context with another model.
    pub(super) fn take_model_switch(&mut self, switch: &ModelSwitch) {
        self.next = switch.index;
        self.epoch = switch.epoch;
        self.quality = switch.quality;
        self.length_offset = switch.length_offset;
        self.model = prefix(&switch.fingerprint);
        self.begin_context();
    }

    /// Changes quality and length offset from the next frame on.
    pub(super) fn take_quality(&mut self, switch: Quality) {
        self.quality = switch.quality;
        self.length_offset = switch.length_offset;
    }

    /// Ends the stream: no further frame comes.
    pub(super) fn take_end(&mut self) {
        self.ended = true;
    }

    /// Forgets how the stream began: the next frame has this index, the epoch is this one, and the total is unknown
    /// (spec 6.6).
    pub(super) fn join(&mut self, index: u64, epoch: u32) {
        self.next = index;
        self.epoch = epoch;
        self.coded = None;
        self.begin_context();
    }

    /// [CTRL-5] Rewind, context reset and model switch each advance the epoch by one (mod 2^32).
    fn advance_epoch(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// [DEC-16] A reset or model switch drops all pending frames; their targets are late from then on.
    fn begin_context(&mut self) {
        self.start = self.next;
        self.high = self.next;
        self.hyper.clear();
        self.side_left = 0;
    }
}

fn prefix(fingerprint: &[u8; 32]) -> [u8; 8] {
    fingerprint.first_chunk().copied().unwrap_or_default()
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

    fn layered() -> Sequence {
        let header = StreamHeader {
            mode: Mode::Layered,
            target_horizon: Some(9),
            max_rewind: 100,
            ..StreamHeader::new([7; 32])
        };
        Sequence::new(&header, Limits::FORMAT)
    }

    #[test]
    fn high_water_mark_and_start() {
        let mut sequence = layered();
        sequence.take_frames(10, false).unwrap();
        sequence.take_rewind(4);
        assert_eq!(sequence.reach(), Reach { start: 0, next: 4, high: 10, max_rewind: 100 });
        sequence.take_frames(2, false).unwrap();
        assert_eq!(sequence.reach().high, 10);
        assert_eq!((sequence.frames_coded(), sequence.epoch()), (Some(12), 1));
        let switch = ModelSwitch {
            index: 6,
            epoch: 2,
            fingerprint: [8; 32],
            model_version: 0,
            quality: 3,
            length_offset: 99,
            digest_w: 0,
            digest_y: 0,
        };
        sequence.take_model_switch(&switch);
        assert_eq!(sequence.reach(), Reach { start: 6, next: 6, high: 6, max_rewind: 100 });
        assert_eq!((sequence.quality(), sequence.length_offset(), sequence.epoch()), (3, 99, 2));
        let expected = Expected { index: Some(6), epoch: Some(3), fingerprint_prefix: Some([8; 8]) };
        assert_eq!(sequence.expected_reset(), expected);
    }

    #[test]
    fn targets_name_frames_by_their_low_bits() {
        let mut sequence = layered();
        assert_eq!(sequence.resolve_target(0, 0), Some((0, 0))); // the next frame
        sequence.take_frames(10, false).unwrap();
        assert_eq!(sequence.resolve_target(9, 0), Some((9, 0)));
        assert_eq!(sequence.resolve_target(4_105, 0), Some((4_105, 0))); // 10 + 4,095: early
        assert_eq!(sequence.resolve_target(4_106, 0), None);
        assert_eq!(sequence.resolve_target(0xffff, 0), None); // none below 0
        assert_eq!(sequence.resolve_target(9, 8), Some((9, 8)));
        assert_eq!(sequence.resolve_target(9, 9), None); // 247 epochs before 0
        sequence.join(0x2_0005, 0x103);
        assert_eq!(sequence.resolve_target(4, 3), Some((0x2_0004, 0x103)));
        assert_eq!(sequence.resolve_target(0x8005, 3), Some((0x1_8005, 0x103))); // 2^15 before
        assert_eq!(sequence.resolve_target(0x8004, 3), None); // 2^15 − 1 after
        assert_eq!(sequence.resolve_target(5, 0x0b), Some((0x2_0005, 0x10b)));
        assert_eq!(sequence.resolve_target(5, 0x0c), Some((0x2_0005, 0x00c)));
        assert_eq!(sequence.hyper_epoch(0x2_0004, 1), None); // before the join
        sequence.join(5, u32::MAX - 1);
        assert_eq!(sequence.resolve_target(5, 6), Some((5, 6))); // eight epochs on, after the wrap-around
    }

    #[test]
    fn early_targets_become_usable_or_late() {
        let mut sequence = layered();
        sequence.take_frames(10, false).unwrap();
        let early = |index, epoch| TargetStatus::Early { index, epoch };
        let late = |index, epoch| TargetStatus::Late { index, epoch };
        let usable = |index, epoch| TargetStatus::Usable { index, epoch };
        assert_eq!(sequence.target_status(8, 0, 2), usable(8, 0));
        assert_eq!(sequence.target_status(8, 0, 3), early(8, 0)); // its last frame is the next one
        assert_eq!(sequence.target_status(2, 1, 1), early(2, 1)); // a rewind may come
        assert_eq!(sequence.target_status(2, 9, 1), late(2, 9)); // further ahead than is named
        sequence.take_rewind(2);
        assert_eq!(sequence.target_status(8, 0, 3), late(8, 0));
        assert_eq!(sequence.target_status(2, 1, 1), early(2, 1));
        sequence.take_frames(1, false).unwrap();
        assert_eq!(sequence.target_status(2, 1, 1), usable(2, 1));
        assert_eq!(sequence.target_status(3, 1, 1), early(3, 1));
        sequence.take_end();
        assert_eq!(sequence.target_status(3, 1, 1), late(3, 1));
        assert_eq!(sequence.target_status(2, 1, 1), usable(2, 1));
    }

    #[test]
    fn hyper_priors_keep_their_epoch() {
        let mut sequence = layered();
        sequence.take_frames(10, false).unwrap();
        sequence.take_rewind(4);
        sequence.take_frames(3, false).unwrap();
        sequence.take_frames(1, true).unwrap();
        assert_eq!(sequence.hyper_epoch(3, 1), Some(0));
        assert_eq!(sequence.hyper_epoch(4, 3), Some(1));
        assert_eq!(sequence.hyper_epoch(3, 2), None);
        assert_eq!(sequence.hyper_epoch(7, 1), None); // an exact frame has no target
        let reset = Reset {
            index: 8,
            epoch: 2,
            quality: 0,
            length_offset: 0,
            fingerprint_prefix: [7; 8],
            digest_w: 0,
            digest_y: 0,
        };
        sequence.take_reset(&reset);
        assert_eq!(sequence.hyper_epoch(4, 3), None);
    }

    #[test]
    fn epochs_wrap_and_indices_do_not() {
        let mut sequence = layered();
        sequence.join(varint::MAX - 1, u32::MAX);
        assert_eq!(sequence.take_frames(2, false).unwrap_err().kind(), ErrorKind::FieldOutOfRange);
        sequence.take_frames(1, false).unwrap();
        sequence.take_rewind(varint::MAX - 1);
        assert_eq!((sequence.epoch(), sequence.next_index()), (0, varint::MAX - 1));
    }
}
