//! The batch chunk C1 (spec 2.6), and what it shares with the target batch C3.

use bytes::{BufMut, Bytes, BytesMut};

use super::check::{self, CheckWidth, OpenCheck, Scope};
use super::frame::Payload;
use super::input::{self, Parsed};
use super::kind::Kind;
use super::{lanes, varint};
use crate::error::{Detail, Error, ErrorKind, Limit};
use crate::number::to_u64;

/// The body of a batch: a joined batch in joined mode, a hyper-prior batch in layered mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The number of frames T, 2 or more.
    pub frames: u32,
    /// One payload per lane, in order; lane i holds the frames that [`lanes::lane_frames`] says.
    pub lanes: Vec<Payload>,
    /// The check, if the decoder is to judge it.
    pub check: Option<OpenCheck>,
}

impl Batch {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ErrorKind::TooManyFrames`] above `max_frames`, [`ErrorKind::BatchOfOne`], [`ErrorKind::LaneCount`], those of
    /// the lane table, [`ErrorKind::FrameCheckMismatch`], [`ErrorKind::ChunkLayout`], and those of a varint.
    pub fn load(body: &Bytes, scope: Scope, max_frames: u32) -> Result<Batch, Error> {
        let group = input::whole(body, ErrorKind::ChunkLayout, |body| group(body, max_frames, scope.width))?;
        let (before, behind) = group.around_check(body);
        let at = to_u64(before.len());
        let check = check::verify(group.check, Kind::Batch, scope, [before, behind]);
        let check = check.map_err(|error| error.shifted(at))?.map(|check| check.shifted(at));
        Ok(Batch { frames: group.frames, lanes: group.payloads(body), check })
    }

    /// Appends a body of `frames` frames with one payload per lane.
    ///
    /// # Errors
    /// As [`Batch::load`], for what a writer can get wrong; `out` then holds part of a body.
    pub fn encode(
        frames: u32,
        payloads: &[impl AsRef<[u8]>],
        scope: Scope,
        max_frames: u32,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        encode_group(Kind::Batch, frames, payloads, scope, max_frames, &[], out)
    }
}

/// The fields that batch and target batch share, as read from a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group<'a> {
    pub(super) frames: u32,
    /// Bytes of all lanes but the last.
    lengths: Vec<usize>,
    pub(super) check: &'a [u8],
    /// The payloads of all lanes, to the end of the body.
    tail: &'a [u8],
}

impl<'a> Group<'a> {
    /// The body before and after the check.
    pub(super) fn around_check(&self, body: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let before = body.len().saturating_sub(self.tail.len()).saturating_sub(self.check.len());
        (body.get(..before).unwrap_or(body), self.tail)
    }

    /// The payloads, with offsets within `body`.
    pub(super) fn payloads(&self, body: &Bytes) -> Vec<Payload> {
        let mut start = body.len().saturating_sub(self.tail.len());
        let mut payloads = Vec::with_capacity(self.lengths.len().saturating_add(1));
        for length in &self.lengths {
            let end = start.saturating_add(*length);
            payloads.push(Payload::new(body, start, end));
            start = end;
        }
        payloads.push(Payload::new(body, start, body.len()));
        payloads
    }
}

/// The facts of more frames than the limit. The layer above says whether it was the header's limit or its own.
fn too_many(max_frames: u32, found: u64) -> Detail {
    Detail::Limit { what: "frames in a chunk", limit: Limit::Declared, most: max_frames.into(), found }
}

/// The facts of no lanes, or of more lanes than a chunk of this many frames may have.
fn lane_count(frames: u32, found: u64) -> Detail {
    input::range("lanes", 1, lanes::max_lanes(frames), found)
}

/// Reads frames − 1, lanes − 1, lane table, check and payloads.
pub(super) fn group(body: &[u8], max_frames: u32, width: CheckWidth) -> Parsed<'_, Group<'_>> {
    // [BATCH-1] A frame count above the limit is error 309; one frame in a batch is error 310 (the one-frame form
    // exists).
    let (rest, less_one) = input::varint(body)?;
    let stated = less_one.saturating_add(1);
    let frames = match u32::try_from(stated) {
        Ok(1) => return input::fail(ErrorKind::BatchOfOne, body),
        Ok(frames) if frames <= max_frames => frames,
        _ => return input::fail_with(ErrorKind::TooManyFrames, body, too_many(max_frames, stated)),
    };
    // [BATCH-2] A lane count above min(frames, 1,024) is error 311.
    let (table, less_one) = input::varint(rest)?;
    let stated = less_one.saturating_add(1);
    let lanes = match u32::try_from(stated) {
        Ok(lanes) if lanes <= lanes::max_lanes(frames) => lanes,
        _ => return input::fail_with(ErrorKind::LaneCount, rest, lane_count(frames, stated)),
    };
    let found = match lanes::load(table, frames, lanes, width.bytes()) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::ChunkLayout => return input::cut(table),
        Err(error) => return input::forward(error, table),
    };
    let behind = table.get(found.bytes..).unwrap_or(&[]);
    let Some((check, tail)) = behind.split_at_checked(width.bytes()) else {
        return input::cut(behind);
    };
    Ok((&[], Group { frames, lengths: found.lengths, check, tail }))
}

/// Appends `head` and the fields of [`group`], with the check over both.
pub(super) fn encode_group(
    kind: Kind,
    frames: u32,
    payloads: &[impl AsRef<[u8]>],
    scope: Scope,
    max_frames: u32,
    head: &[u8],
    out: &mut BytesMut,
) -> Result<(), Error> {
    if frames <= 1 {
        return Err(Error::of_call(ErrorKind::BatchOfOne));
    }
    if frames > max_frames {
        return Err(Error::of_call(ErrorKind::TooManyFrames).with(too_many(max_frames, frames.into())));
    }
    let count = to_u64(payloads.len());
    if count == 0 || count > u64::from(lanes::max_lanes(frames)) {
        return Err(Error::of_call(ErrorKind::LaneCount).with(lane_count(frames, count)));
    }
    let start = out.len();
    out.put_slice(head);
    varint::encode(u64::from(frames).saturating_sub(1), out)?;
    varint::encode(count.saturating_sub(1), out)?;
    let lengths: Vec<usize> = payloads.iter().map(|payload| payload.as_ref().len()).collect();
    lanes::encode(&lengths, frames, scope.width.bytes(), out)?;
    let mut tail = BytesMut::with_capacity(lengths.iter().fold(0, |sum, length| usize::saturating_add(sum, *length)));
    for payload in payloads {
        tail.put_slice(payload.as_ref());
    }
    let width = scope.width.bytes();
    let check = check::frame_check(kind, scope, [out.get(start..).unwrap_or(&[]), &tail]);
    out.put_slice(check.get(..width).unwrap_or(&check));
    out.put_slice(&tail);
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
    use crate::wire::{Seed, SideCover};

    const SCOPE: Scope =
        Scope { index: 5, epoch: 2, quality: 1, width: CheckWidth::None, seed: Seed::NONE, side: SideCover::None };

    fn load(bytes: &[u8], max_frames: u32) -> Result<Batch, Error> {
        Batch::load(&Bytes::copy_from_slice(bytes), SCOPE, max_frames)
    }

    #[test]
    fn an_annotated_batch() {
        let mut out = BytesMut::new();
        Batch::encode(4, &[&b"abcdefghi"[..], b"jklmnop"], SCOPE, 100, &mut out).unwrap();
        assert_eq!(out[..3], [3, 1, 0b0110_0001]); // frames − 1, lanes − 1, lane table
        assert_eq!(&out[3..], b"abcdefghijklmnop");
        let batch = load(&out, 100).unwrap();
        assert_eq!(batch.frames, 4);
        assert_eq!(batch.lanes[0], Payload { bytes: Bytes::from_static(b"abcdefghi"), offset: 3 });
        assert_eq!(batch.lanes[1], Payload { bytes: Bytes::from_static(b"jklmnop"), offset: 12 });
    }

    #[test]
    fn one_lane_has_no_table() {
        let mut out = BytesMut::new();
        Batch::encode(300, &[b"abc"], SCOPE, 300, &mut out).unwrap();
        assert_eq!(&out[..], b"\x81\x2b\x00abc"); // 299 in two bytes, one lane
        assert_eq!(load(&out, 300).unwrap().frames, 300);
    }

    #[test]
    fn the_check_stands_behind_the_table_and_covers_all_else() {
        let scope = Scope { width: CheckWidth::Two, ..SCOPE };
        let mut out = BytesMut::new();
        Batch::encode(4, &[&b"abcdefghi"[..], b"jklmnop"], scope, 100, &mut out).unwrap();
        let body = out.freeze();
        assert_eq!(body.len(), 3 + 2 + 16);
        assert!(Batch::load(&body, scope, 100).is_ok());
        for scope in [Scope { index: 6, ..scope }, Scope { epoch: 3, ..scope }, Scope { quality: 0, ..scope }] {
            assert_eq!(Batch::load(&body, scope, 100), Err(Error::new(ErrorKind::FrameCheckMismatch, 3)));
        }
        let mut flipped = body.to_vec();
        flipped[20] ^= 1;
        assert_eq!(Batch::load(&flipped.into(), scope, 100), Err(Error::new(ErrorKind::FrameCheckMismatch, 3)));
    }

    #[test]
    fn what_is_refused_and_where() {
        for (bytes, kind, offset) in [
            (&[][..], ErrorKind::ChunkLayout, 0),
            (&[0, 0], ErrorKind::BatchOfOne, 0),
            (&[100, 0], ErrorKind::TooManyFrames, 0),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], ErrorKind::TooManyFrames, 0),
            (&[0x80, 0x01], ErrorKind::VarintNotShortest, 0),
            (&[3], ErrorKind::ChunkLayout, 1),
            (&[3, 4], ErrorKind::LaneCount, 1),
            (&[3, 0xff], ErrorKind::VarintReserved, 1),
            (&[3, 1], ErrorKind::ChunkLayout, 2),
            (&[3, 1, 0, 0, 0, 0], ErrorKind::LaneTable, 2),
            (&[3, 1, 0b1100_0000], ErrorKind::LanePadding, 2),
        ] {
            assert_eq!(load(bytes, 100), Err(Error::new(kind, offset)), "{bytes:x?}");
        }
        assert_eq!(
            Batch::load(&Bytes::from_static(&[3, 0, 9]), Scope { width: CheckWidth::Two, ..SCOPE }, 100),
            Err(Error::new(ErrorKind::ChunkLayout, 2))
        );
        let mut out = BytesMut::new();
        for (frames, lanes, kind) in [
            (1, 1, ErrorKind::BatchOfOne),
            (101, 1, ErrorKind::TooManyFrames),
            (4, 0, ErrorKind::LaneCount),
            (4, 5, ErrorKind::LaneCount),
        ] {
            let error = Batch::encode(frames, &vec![b"a"; lanes], SCOPE, 100, &mut out).unwrap_err();
            assert_eq!(error.kind(), kind);
        }
    }
}
