//! The target chunks C2 and C3 of layered mode (spec 2.6).
//!
//! A target may be lost, late, early or out of order, so it names its frames itself, by the low bits of index and
//! epoch. The layer above decides which frames these are, and whether the check holds for them.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::batch;
use super::check::{self, CheckWidth, Scope, SideCover};
use super::frame::Payload;
use super::identity::Seed;
use super::input::{self, Parsed, part};
use super::kind::Kind;
use super::varint;
use crate::error::{Detail, Error, ErrorKind};
use crate::number::to_u64;

/// The early bound: a target's first frame may be one of this many frames from the next one on, the next one included
/// (spec 6.5).
pub const EARLY_FRAMES: u32 = 4_096;
/// How many epochs after the current one a target may name (spec 6.5).
pub const EARLY_EPOCHS: u8 = 8;
/// The largest end of a part's elements.
const MAX_ELEMENTS: u64 = 1 << 56;

/// The body of a target (C2) or target batch (C3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The first frame's absolute index mod 2^16.
    pub index_low: u16,
    /// The epoch mod 2^8.
    pub epoch_low: u8,
    /// The number of frames; always 1 in C2.
    pub frames: u32,
    /// The elements that a C2 holds, if it holds only a part of its frame; `None` for all.
    pub elements: Option<Range<u64>>,
    /// One payload per lane.
    pub lanes: Vec<Payload>,
    check: [u8; 2],
    /// The body before and after the check.
    rest: [Bytes; 2],
}

impl Target {
    /// Reads a body of `kind`, [`Kind::Target`] or [`Kind::TargetBatch`].
    ///
    /// # Errors
    /// As [`batch::Batch::load`], except that a wrong check is no error: see [`Target::check_holds`].
    pub fn load(body: &Bytes, kind: Kind, max_frames: u32) -> Result<Target, Error> {
        let (low, content) = input::whole(body, ErrorKind::ChunkLayout, |body| {
            let (rest, index_low) = input::array(body)?;
            let (rest, epoch_low) = input::byte(rest)?;
            let low = (u16::from_le_bytes(index_low), epoch_low);
            if kind == Kind::TargetBatch {
                let (rest, group) = batch::group(rest, max_frames, CheckWidth::Two)?;
                return Ok((rest, (low, Content::Group(group))));
            }
            let (rest, elements) = elements(rest)?;
            let before = body.len().saturating_sub(rest.len());
            let (_, _check): (_, [u8; 2]) = input::array(rest)?;
            Ok((&[], (low, Content::Frame { elements, before })))
        })?;
        let (frames, elements, before, lanes) = match content {
            Content::Group(group) => (group.frames, None, group.around_check(body).0.len(), group.payloads(body)),
            Content::Frame { elements, before } => {
                (1, elements, before, vec![Payload::new(body, before.saturating_add(2), body.len())])
            }
        };
        let behind = before.saturating_add(2);
        let check = part(body, before, behind).first_chunk::<2>().copied().unwrap_or_default();
        Ok(Target {
            index_low: low.0,
            epoch_low: low.1,
            frames,
            elements,
            lanes,
            check,
            rest: [part(body, 0, before), part(body, behind, body.len())],
        })
    }

    /// The kind of chunk that holds this target.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        if self.frames > 1 { Kind::TargetBatch } else { Kind::Target }
    }

    /// Whether the check holds if the first frame has this absolute index, was coded in this epoch, and the stream has
    /// this seed ([CHECK-2]).
    #[must_use]
    pub fn check_holds(&self, index: u64, epoch: u32, seed: Seed) -> bool {
        let scope = Scope { index, epoch, quality: 0, width: CheckWidth::Two, seed, side: SideCover::None };
        check::BYPASS || check::frame_check(self.kind(), scope, [&self.rest[0], &self.rest[1]]) == self.check
    }

    /// Appends the body of a target of one frame (C2, if `frames` is 1) or of several (C3).
    ///
    /// # Errors
    /// As [`batch::Batch::encode`]; [`ErrorKind::LaneCount`] for one frame without exactly one payload.
    pub fn encode(
        index: u64,
        epoch: u32,
        seed: Seed,
        frames: u32,
        payloads: &[impl AsRef<[u8]>],
        max_frames: u32,
        out: &mut BytesMut,
    ) -> Result<Kind, Error> {
        if frames != 1 {
            let scope = Scope { index, epoch, quality: 0, width: CheckWidth::Two, seed, side: SideCover::None };
            let head = names(index, epoch);
            batch::encode_group(Kind::TargetBatch, frames, payloads, scope, max_frames, &head, out)?;
            return Ok(Kind::TargetBatch);
        }
        let [payload] = payloads else {
            let found = to_u64(payloads.len());
            return Err(Error::of_call(ErrorKind::LaneCount).with(Detail::Number { what: "lanes", wanted: 1, found }));
        };
        encode_frame((index, epoch, seed), None, payload.as_ref(), out)?;
        Ok(Kind::Target)
    }

    /// Bytes of a message that holds the target of `frames` frames with these payloads, kind and closing 00 included;
    /// the greatest number if there can be no such target.
    #[must_use]
    pub fn message_bytes(frames: usize, payloads: &[impl AsRef<[u8]>]) -> usize {
        let mut body = BytesMut::new();
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        // Index, epoch and seed have fields of a fixed width.
        match Target::encode(0, 0, Seed::NONE, frames, payloads, frames, &mut body) {
            Ok(_) => body.len().saturating_add(2),
            Err(_) => usize::MAX,
        }
    }

    /// Appends the body of a C2 that holds these elements of a frame's target.
    ///
    /// # Errors
    /// [`ErrorKind::FieldOutOfRange`] for no element, or elements beyond 2^56.
    pub fn encode_part(
        index: u64,
        epoch: u32,
        seed: Seed,
        elements: Range<u64>,
        payload: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        encode_frame((index, epoch, seed), Some(elements), payload, out)
    }
}

/// What follows the epoch.
enum Content<'a> {
    Group(batch::Group<'a>),
    Frame {
        elements: Option<Range<u64>>,
        /// Bytes of the body before the check.
        before: usize,
    },
}

/// Reads the fields count and first of a C2.
fn elements(at_count: &[u8]) -> Parsed<'_, Option<Range<u64>>> {
    let (rest, count) = input::varint(at_count)?;
    if count == 0 {
        return Ok((rest, None));
    }
    // [PART-1] first + count MUST NOT exceed 2^56.
    let (after, first) = input::varint(rest)?;
    match first.checked_add(count) {
        Some(end) if end <= MAX_ELEMENTS => Ok((after, Some(first..end))),
        _ => input::fail(ErrorKind::FieldOutOfRange, rest),
    }
}

/// The low bits of index and epoch, as they are written.
fn names(index: u64, epoch: u32) -> [u8; 3] {
    let [low, high, ..] = index.to_le_bytes();
    let [epoch_low, ..] = epoch.to_le_bytes();
    [low, high, epoch_low]
}

fn encode_frame(
    (index, epoch, seed): (u64, u32, Seed),
    elements: Option<Range<u64>>,
    payload: &[u8],
    out: &mut BytesMut,
) -> Result<(), Error> {
    let mut head = BytesMut::from(&names(index, epoch)[..]);
    match elements {
        None => varint::encode(0, &mut head)?,
        Some(elements) => {
            let count = elements.end.checked_sub(elements.start).filter(|count| *count > 0);
            let Some(count) = count.filter(|_| elements.end <= MAX_ELEMENTS) else {
                return Err(Error::new(ErrorKind::FieldOutOfRange, 0).with_detail("the elements of a part"));
            };
            varint::encode(count, &mut head)?;
            varint::encode(elements.start, &mut head)?;
        }
    }
    let scope = Scope { index, epoch, quality: 0, width: CheckWidth::Two, seed, side: SideCover::None };
    out.put_slice(&head);
    check::encode(Kind::Target, scope, [&head, payload], out);
    out.put_slice(payload);
    Ok(())
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
    fn an_annotated_target() {
        let mut out = BytesMut::new();
        assert_eq!(Target::encode(0x1_0203, 0x105, Seed::NONE, 1, &[b"abc"], 9, &mut out), Ok(Kind::Target));
        let check = crc32fast::hash(b"\x03\x02\x01\0\0\0\0\0\x05\x01\0\0\0\xc2\x03\x02\x05\0abc").to_le_bytes();
        assert_eq!(out[..], [0x03, 0x02, 0x05, 0x00, check[0], check[1], b'a', b'b', b'c']);
        let target = Target::load(&out.freeze(), Kind::Target, 9).unwrap();
        assert_eq!((target.index_low, target.epoch_low, target.frames), (0x0203, 0x05, 1));
        assert_eq!(target.elements, None);
        assert_eq!(target.lanes, [Payload { bytes: Bytes::from_static(b"abc"), offset: 6 }]);
        assert!(target.check_holds(0x1_0203, 0x105, Seed::NONE));
        assert!(!target.check_holds(0x2_0203, 0x105, Seed::NONE));
        assert!(!target.check_holds(0x1_0203, 0x005, Seed::NONE));
    }

    #[test]
    fn an_annotated_part() {
        let mut out = BytesMut::new();
        Target::encode_part(0x1_0203, 0x105, Seed::NONE, 300..428, b"abc", &mut out).unwrap();
        let head = b"\x03\x02\x05\x80\x80\x81\x2c"; // 128 elements from 300 on
        let check = crc32fast::hash(&[b"\x03\x02\x01\0\0\0\0\0\x05\x01\0\0\0\xc2", &head[..], b"abc"].concat());
        assert_eq!(out[..], [&head[..], &check.to_le_bytes()[..2], b"abc"].concat());
        let target = Target::load(&out.freeze(), Kind::Target, 9).unwrap();
        assert_eq!((target.frames, target.elements.clone()), (1, Some(300..428)));
        assert_eq!(target.lanes, [Payload { bytes: Bytes::from_static(b"abc"), offset: 9 }]);
        assert!(target.check_holds(0x1_0203, 0x105, Seed::NONE));
    }

    #[test]
    fn part_1_elements_end_at_2_to_the_56() {
        let mut out = BytesMut::new();
        let last = varint::MAX;
        Target::encode_part(0, 0, Seed::NONE, last..last + 1, b"", &mut out).unwrap();
        let mut body = out.clone().freeze();
        assert_eq!(Target::load(&body, Kind::Target, 9).unwrap().elements, Some(last..last + 1));
        for elements in [5..5, last..last + 2, last + 1..last + 2] {
            let error = Target::encode_part(0, 0, Seed::NONE, elements, b"", &mut out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FieldOutOfRange);
        }
        // Two elements from the last one on.
        body = [&out[..3], &[2], &out[4..]].concat().into();
        assert_eq!(Target::load(&body, Kind::Target, 9), Err(Error::new(ErrorKind::FieldOutOfRange, 4)));
    }

    #[test]
    fn a_target_batch() {
        let mut out = BytesMut::new();
        let lanes = [&b"abcdefghi"[..], b"jklmnop"];
        assert_eq!(Target::encode(7, 0, Seed::NONE, 4, &lanes, 9, &mut out), Ok(Kind::TargetBatch));
        let body = out.freeze();
        assert_eq!(body[..6], [7, 0, 0, 3, 1, 0b1000_0001]); // B = 19, p = 9, k = 0, u = 0
        let target = Target::load(&body, Kind::TargetBatch, 9).unwrap();
        assert_eq!(target.frames, 4);
        assert_eq!(target.lanes[1], Payload { bytes: Bytes::from_static(b"jklmnop"), offset: 8 + 9 });
        assert!(target.check_holds(7, 0, Seed::NONE));
        assert!(!target.check_holds(7, 1, Seed::NONE));
    }

    #[test]
    fn what_is_refused_and_where() {
        let load = |bytes: &[u8], kind| Target::load(&Bytes::copy_from_slice(bytes), kind, 9).unwrap_err();
        for (bytes, offset) in [
            (&[][..], 0),
            (&[1], 0),
            (&[1, 2], 2),
            (&[1, 2, 3], 3),
            (&[1, 2, 3, 0], 4),
            (&[1, 2, 3, 0, 4], 4),
            (&[1, 2, 3, 9], 4),
            (&[1, 2, 3, 9, 0x80], 4),
            (&[1, 2, 3, 9, 0, 4], 5),
        ] {
            assert_eq!(load(bytes, Kind::Target), Error::new(ErrorKind::ChunkLayout, offset));
        }
        assert_eq!(load(&[1, 2, 3, 0x80, 9], Kind::Target), Error::new(ErrorKind::VarintNotShortest, 3));
        assert_eq!(load(&[1, 2, 3, 9, 0xff], Kind::Target), Error::new(ErrorKind::VarintReserved, 4));
        let batch = |bytes: &[u8]| load(&[&[1, 2, 3], bytes].concat(), Kind::TargetBatch);
        assert_eq!(batch(&[]), Error::new(ErrorKind::ChunkLayout, 3));
        assert_eq!(batch(&[0, 0, 9, 9]), Error::new(ErrorKind::BatchOfOne, 3));
        assert_eq!(batch(&[9, 0, 9, 9]), Error::new(ErrorKind::TooManyFrames, 3));
        assert_eq!(batch(&[8, 9, 9, 9]), Error::new(ErrorKind::LaneCount, 4));
        assert_eq!(batch(&[8, 0, 9]), Error::new(ErrorKind::ChunkLayout, 5));
        let mut out = BytesMut::new();
        assert_eq!(
            Target::encode(7, 0, Seed::NONE, 1, &[b"a", b"b"], 9, &mut out),
            Err(Error::new(ErrorKind::LaneCount, 0))
        );
    }
}
