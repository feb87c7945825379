//! The target chunks C2 and C3 of layered mode (spec 2.6).
//!
//! A target may be lost, late or out of order, so it names its frames itself, by the low bits of index and epoch.
//! Which frames these are, and whether the check holds for them, is for the layer above to judge.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::batch;
use super::check::{self, CheckWidth, Scope};
use super::frame::Payload;
use super::identity::Seed;
use super::input::{self, part};
use super::kind::Kind;
use crate::error::{Error, ErrorKind};

/// The body of a target (C2) or target batch (C3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The first frame's absolute index mod 2^16.
    pub index_low: u16,
    /// The epoch mod 2^8.
    pub epoch_low: u8,
    /// The number of frames; 1 in C2 alone.
    pub frames: u32,
    /// One payload per lane.
    pub lanes: Vec<Payload>,
    check: [u8; 2],
    /// The body before and behind the check.
    rest: [Bytes; 2],
}

impl Target {
    /// Reads a body of `kind`, [`Kind::Target`] or [`Kind::TargetBatch`].
    ///
    /// # Errors
    /// As [`batch::Batch::load`], save that a check that differs is no error: see [`Target::check_holds`].
    pub fn load(body: &Bytes, kind: Kind, max_frames: u32) -> Result<Target, Error> {
        let (low, group) = input::whole(body, ErrorKind::ChunkLayout, |body| {
            let (rest, index_low) = input::array(body)?;
            let (rest, epoch_low) = input::byte(rest)?;
            let low = (u16::from_le_bytes(index_low), epoch_low);
            if kind == Kind::TargetBatch {
                let (rest, group) = batch::group(rest, max_frames, CheckWidth::Two)?;
                Ok((rest, (low, Some(group))))
            } else {
                let (_, _check): (_, [u8; 2]) = input::array(rest)?;
                Ok((&[], (low, None)))
            }
        })?;
        let (frames, before, lanes) = match group {
            Some(group) => (group.frames, group.around_check(body).0.len(), group.payloads(body)),
            None => (1, 3, vec![Payload::of(body, 5, body.len())]),
        };
        let behind = before.saturating_add(2);
        let check = part(body, before, behind).first_chunk::<2>().copied().unwrap_or_default();
        Ok(Target {
            index_low: low.0,
            epoch_low: low.1,
            frames,
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

    /// Whether the check holds for a first frame of this absolute index, coded in this epoch of the stream with this seed
    /// ([CHECK-2]).
    #[must_use]
    pub fn check_holds(&self, index: u64, epoch: u32, seed: Seed) -> bool {
        let scope = Scope { index, epoch, width: CheckWidth::Two, seed };
        check::frame_check(self.kind(), scope, [&self.rest[0], &self.rest[1]]) == self.check
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
        let scope = Scope { index, epoch, width: CheckWidth::Two, seed };
        let [low, high, ..] = index.to_le_bytes();
        let [epoch_low, ..] = epoch.to_le_bytes();
        let head = [low, high, epoch_low];
        if frames != 1 {
            batch::encode_group(Kind::TargetBatch, frames, payloads, scope, max_frames, &head, out)?;
            return Ok(Kind::TargetBatch);
        }
        let [payload] = payloads else {
            return Err(Error::new(ErrorKind::LaneCount, 0));
        };
        out.put_slice(&head);
        check::encode(Kind::Target, scope, [&head, payload.as_ref()], out);
        out.put(payload.as_ref().chunk());
        Ok(Kind::Target)
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
    fn an_annotated_target() {
        let mut out = BytesMut::new();
        assert_eq!(Target::encode(0x1_0203, 0x105, Seed::NONE, 1, &[b"abc"], 9, &mut out), Ok(Kind::Target));
        let check = crc32fast::hash(b"\x03\x02\x01\0\0\0\0\0\x05\x01\0\0\xc2\x03\x02\x05abc").to_le_bytes();
        assert_eq!(out[..], [0x03, 0x02, 0x05, check[0], check[1], b'a', b'b', b'c']);
        let target = Target::load(&out.freeze(), Kind::Target, 9).unwrap();
        assert_eq!((target.index_low, target.epoch_low, target.frames), (0x0203, 0x05, 1));
        assert_eq!(target.lanes, [Payload { bytes: Bytes::from_static(b"abc"), offset: 5 }]);
        assert!(target.check_holds(0x1_0203, 0x105, Seed::NONE));
        assert!(!target.check_holds(0x2_0203, 0x105, Seed::NONE));
        assert!(!target.check_holds(0x1_0203, 0x005, Seed::NONE));
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
        for (bytes, offset) in [(&[][..], 0), (&[1], 0), (&[1, 2], 2), (&[1, 2, 3], 3), (&[1, 2, 3, 4], 3)] {
            assert_eq!(load(bytes, Kind::Target), Error::new(ErrorKind::ChunkLayout, offset));
        }
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
