//! The checks of frame chunks (spec 2.5) and the crc of control chunks (spec 2.8).

use byteorder::{ByteOrder, LE};
use bytes::{BufMut, BytesMut};

use super::identity::Seed;
use super::kind::Kind;
use crate::error::{Detail, Error, ErrorKind};
use crate::number::to_u64;

/// In a fuzz build with `--cfg midspan_bypass_checks` every crc and check passes, so that the fuzzer reaches the code
/// after them. False in every other build.
pub(crate) const BYPASS: bool = cfg!(midspan_bypass_checks);

/// The number of check bytes in every frame chunk except targets, which always have two: flag bits 2–3 of the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CheckWidth {
    /// No check.
    None,
    /// Eight bits.
    #[default]
    One,
    /// Sixteen bits.
    Two,
}

impl CheckWidth {
    /// 0, 1 or 2.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            CheckWidth::None => 0,
            CheckWidth::One => 1,
            CheckWidth::Two => 2,
        }
    }
}

/// What a check covers of the side indices of a chunk's frames (spec 2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SideCover {
    /// Nothing: the stream has no side indices.
    #[default]
    None,
    /// All of them, and only the decoder knows them: the check stays open ([CHECK-3]).
    Open,
    /// All of them, and they are known.
    Known(SideCrc),
}

/// The crc of side indices, each as u32le.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideCrc {
    crc: u32,
    bytes: u64,
}

impl SideCrc {
    /// That of these indices.
    #[must_use]
    pub fn new(indices: &[u32]) -> SideCrc {
        let mut hasher = crc32fast::Hasher::new();
        indices.iter().for_each(|index| hasher.update(&index.to_le_bytes()));
        SideCrc { crc: hasher.finalize(), bytes: to_u64(indices.len()).saturating_mul(4) }
    }

    /// The crc of bytes and these indices after them.
    fn after(self, mut bytes: crc32fast::Hasher) -> u32 {
        bytes.combine(&crc32fast::Hasher::new_with_initial_len(self.crc, self.bytes));
        bytes.finalize()
    }
}

/// A check that only a decoder can judge, because it covers side indices ([CHECK-3]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenCheck {
    /// The crc of all that it covers but the side indices.
    crc: u32,
    found: [u8; 2],
    width: CheckWidth,
    /// The offset of the check, counted like that of a [`Payload`](super::Payload).
    pub offset: u64,
}

impl OpenCheck {
    /// The same check, `base` bytes later.
    pub(crate) fn shifted(self, base: u64) -> OpenCheck {
        OpenCheck { offset: self.offset.saturating_add(base), ..self }
    }

    /// Judges the check by the side indices of the chunk's frames.
    ///
    /// # Errors
    /// [`ErrorKind::FrameCheckMismatch`] at the check.
    pub fn judge(&self, indices: &[u32]) -> Result<(), Error> {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.crc);
        indices.iter().for_each(|index| hasher.update(&index.to_le_bytes()));
        let found = self.found.get(..self.width.bytes()).unwrap_or(&self.found);
        compare(check_bytes(hasher.finalize()), found, self.width).map_err(|error| error.at(self.offset))
    }

    /// What a saved session keeps of it.
    #[cfg(feature = "codec")]
    pub(crate) fn fields(self) -> ((u32, [u8; 2]), (usize, u64)) {
        ((self.crc, self.found), (self.width.bytes(), self.offset))
    }

    /// The check with these [`OpenCheck::fields`]; `None` for a width that does not exist.
    #[cfg(feature = "codec")]
    pub(crate) fn of_fields(((crc, found), (width, offset)): ((u32, [u8; 2]), (usize, u64))) -> Option<OpenCheck> {
        let width = match width {
            1 => CheckWidth::One,
            2 => CheckWidth::Two,
            _ => return None,
        };
        Some(OpenCheck { crc, found, width, offset })
    }
}

/// What a check covers in addition to the chunk's own bytes, and how wide it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Absolute index of the chunk's first frame.
    pub index: u64,
    /// The epoch in which the chunk's frames were coded.
    pub epoch: u32,
    /// The quality in force; 0 for targets.
    pub quality: u8,
    /// The number of check bytes.
    pub width: CheckWidth,
    /// The value that the check starts from: the crc of the stream's identity.
    pub seed: Seed,
    /// The side indices of the chunk's frames.
    pub side: SideCover,
}

impl Scope {
    /// The value that the crc of an exact frame starts from: `identity ‖ u64le(index) ‖ u32le(epoch)`. No digest covers
    /// the frame's hidden state, so only the crc shows that it belongs here.
    #[must_use]
    pub fn exact_seed(&self) -> Seed {
        let mut place = [0; 12];
        LE::write_u64(&mut place[..8], self.index);
        LE::write_u32(&mut place[8..], self.epoch);
        self.seed.after(&place)
    }
}

/// Both bytes of a check; a check of one byte is the first of the two.
///
/// `check32 = crc32( identity ‖ u64le(index) ‖ u32le(epoch) ‖ u8(quality) ‖ u8(kind) ‖ rest ‖ side )`, where rest is the
/// body without the check bytes (for an exact frame: the inner frame without them), and side the side indices of the
/// chunk's frames, none unless [`Scope::side`] has them. The check is the least significant byte of check32, or its two
/// least significant bytes, the less significant first; a byte 0x00 is replaced by 0xFF.
#[must_use]
pub fn frame_check(kind: Kind, scope: Scope, rest: [&[u8]; 2]) -> [u8; 2] {
    let hasher = hasher(kind, scope, rest);
    check_bytes(match scope.side {
        SideCover::Known(side) => side.after(hasher),
        SideCover::None | SideCover::Open => hasher.finalize(),
    })
}

/// A hasher that covers all that a check does but the side indices.
fn hasher(kind: Kind, scope: Scope, rest: [&[u8]; 2]) -> crc32fast::Hasher {
    let mut head = [0; 14];
    LE::write_u64(&mut head[..8], scope.index);
    LE::write_u32(&mut head[8..12], scope.epoch);
    head[12] = scope.quality;
    head[13] = kind.byte();
    let mut hasher = scope.seed.hasher();
    hasher.update(&head);
    hasher.update(rest[0]);
    hasher.update(rest[1]);
    hasher
}

fn check_bytes(check32: u32) -> [u8; 2] {
    let [low, high, ..] = check32.to_le_bytes();
    [low, high].map(|byte| if byte == 0x00 { 0xff } else { byte })
}

/// Compares the check in a chunk with the computed one. An error has offset 0, the start of the check. If the check
/// covers side indices that only a decoder knows, it is returned instead, with offset 0.
///
/// # Errors
/// [`ErrorKind::FrameCheckMismatch`].
pub fn verify(check: &[u8], kind: Kind, scope: Scope, rest: [&[u8]; 2]) -> Result<Option<OpenCheck>, Error> {
    if scope.width == CheckWidth::None || BYPASS {
        return Ok(None);
    }
    // [CHECK-3] In a stream with the side flag the checks of one-frame chunks, C1 and C9 are judged by the decoder, once
    // it has the side indices of the chunk's frames. A reader without a model does not judge them.
    if scope.side == SideCover::Open {
        let mut found = [0; 2];
        found.iter_mut().zip(check).for_each(|(place, byte)| *place = *byte);
        let crc = hasher(kind, scope, rest).finalize();
        return Ok(Some(OpenCheck { crc, found, width: scope.width, offset: 0 }));
    }
    compare(frame_check(kind, scope, rest), check, scope.width).map(|()| None)
}

fn compare(wanted: [u8; 2], check: &[u8], width: CheckWidth) -> Result<(), Error> {
    // [CHECK-1] In a one-frame chunk, C1 and C9 a check that differs MUST be refused (error 402).
    let wanted = wanted.get(..width.bytes()).unwrap_or(&wanted);
    if wanted == check {
        return Ok(());
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    let detail = Detail::Crc { wanted: number(wanted), found: number(check) };
    Err(Error::new(ErrorKind::FrameCheckMismatch, 0).with(detail))
}

/// Appends the check of a chunk.
pub fn encode(kind: Kind, scope: Scope, rest: [&[u8]; 2], out: &mut BytesMut) {
    if scope.width != CheckWidth::None {
        let check = frame_check(kind, scope, rest);
        out.put_slice(check.get(..scope.width.bytes()).unwrap_or(&check));
    }
}

/// `crc32(identity ‖ kind byte ‖ fields)`; for an exact frame `seed` is [`Scope::exact_seed`].
#[must_use]
pub fn control_crc(kind: Kind, seed: Seed, fields: &[u8]) -> u32 {
    let mut hasher = seed.hasher();
    hasher.update(&[kind.byte()]);
    hasher.update(fields);
    hasher.finalize()
}

/// Checks the crc of a control chunk and returns the fields before it.
///
/// # Errors
/// [`ErrorKind::ChunkLayout`] at offset 0 for a body without room for a crc, [`ErrorKind::ControlCrcMismatch`].
pub fn control_fields(kind: Kind, seed: Seed, body: &[u8]) -> Result<&[u8], Error> {
    let Some((fields, crc)) = body.split_last_chunk::<4>() else {
        return Err(Error::new(ErrorKind::ChunkLayout, 0).with_detail("no room for the crc"));
    };
    // [CTRL-1] A crc that differs MUST be refused (error 403), before any other field of the body is judged.
    let (wanted, found) = (control_crc(kind, seed, fields), u32::from_le_bytes(*crc));
    if wanted != found && !BYPASS {
        let error = Error::new(ErrorKind::ControlCrcMismatch, to_u64(fields.len()));
        return Err(error.with(Detail::Crc { wanted, found }));
    }
    Ok(fields)
}

/// Appends the crc of the fields in `out` from `start` on.
pub fn encode_control_crc(kind: Kind, seed: Seed, start: usize, out: &mut BytesMut) {
    let crc = control_crc(kind, seed, out.get(start..).unwrap_or(&[]));
    out.put_u32_le(crc);
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
    use crate::wire::Identity;

    #[test]
    fn the_check_is_the_low_end_of_a_crc_over_index_epoch_quality_kind_and_rest() {
        let scope = Scope {
            index: 0x0102,
            epoch: 3,
            quality: 4,
            width: CheckWidth::Two,
            seed: Seed::NONE,
            side: SideCover::None,
        };
        let bytes = [0x02, 0x01, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0xc1, b'a', b'b'];
        let crc = crc32fast::hash(&bytes).to_le_bytes();
        assert_eq!(frame_check(Kind::Batch, scope, [b"a", b"b"]), [crc[0], crc[1]]);
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_check_byte_is_never_zero() {
        let mut replaced = 0;
        for index in 0..2_000 {
            let scope =
                Scope { index, epoch: 0, quality: 0, width: CheckWidth::Two, seed: Seed::NONE, side: SideCover::None };
            let mut bytes = index.to_le_bytes().to_vec();
            bytes.extend([0, 0, 0, 0, 0, 0xc0]);
            let crc = crc32fast::hash(&bytes).to_le_bytes();
            let check = frame_check(Kind::Frame, scope, [&[], &[]]);
            for (byte, raw) in check.into_iter().zip(crc) {
                assert_eq!(byte, if raw == 0 { 0xff } else { raw });
                replaced += usize::from(raw == 0);
            }
        }
        assert!(replaced > 0);
    }

    #[test]
    fn a_check_of_one_byte_is_the_first_of_two() {
        let scope =
            Scope { index: 9, epoch: 1, quality: 0, width: CheckWidth::One, seed: Seed::NONE, side: SideCover::None };
        let both = frame_check(Kind::Frame, scope, [b"x", &[]]);
        assert_eq!(verify(&both[..1], Kind::Frame, scope, [b"x", &[]]), Ok(None));
        assert_eq!(
            verify(&[both[0] ^ 1], Kind::Frame, scope, [b"x", &[]]).unwrap_err().kind(),
            ErrorKind::FrameCheckMismatch
        );
        let mut out = BytesMut::new();
        encode(Kind::Frame, scope, [b"x", &[]], &mut out);
        assert_eq!(out, &both[..1]);
    }

    #[test]
    fn checks_and_crcs_start_from_the_identity() {
        let seed = Identity::new(*b"identity").seed();
        let scope = Scope { index: 1, epoch: 2, quality: 3, width: CheckWidth::Two, seed, side: SideCover::None };
        let crc = crc32fast::hash(b"identity\x01\0\0\0\0\0\0\0\x02\0\0\0\x03\xc0x").to_le_bytes();
        assert_eq!(frame_check(Kind::Frame, scope, [b"x", &[]]), [crc[0], crc[1]]);
        assert_eq!(control_crc(Kind::Rewind, seed, b"x"), crc32fast::hash(b"identity\xc6x"));
        let mut out = BytesMut::from(&b"x"[..]);
        encode_control_crc(Kind::Rewind, seed, 0, &mut out);
        assert_eq!(control_fields(Kind::Rewind, seed, &out), Ok(&b"x"[..]));
        let other = control_fields(Kind::Rewind, Seed::NONE, &out);
        assert_eq!(other, Err(Error::new(ErrorKind::ControlCrcMismatch, 1)));
    }

    #[test]
    fn a_check_covers_side_indices_and_stays_open_without_them() {
        let known = SideCover::Known(SideCrc::new(&[7, 0x0102_0304]));
        for width in [CheckWidth::One, CheckWidth::Two] {
            let scope = Scope { index: 1, epoch: 2, quality: 3, width, seed: Seed::NONE, side: known };
            let crc = crc32fast::hash(b"\x01\0\0\0\0\0\0\0\x02\0\0\0\x03\xc0xy\x07\0\0\0\x04\x03\x02\x01");
            let [low, high, ..] = crc.to_le_bytes();
            let check = frame_check(Kind::Frame, scope, [b"x", b"y"]);
            assert_eq!(check, [low, high]);
            let check = &check[..width.bytes()];
            assert_eq!(verify(check, Kind::Frame, scope, [b"x", b"y"]), Ok(None));
            let open = Scope { side: SideCover::Open, ..scope };
            let open = verify(check, Kind::Frame, open, [b"x", b"y"]).unwrap().unwrap().shifted(9);
            #[cfg(feature = "codec")]
            assert_eq!(OpenCheck::of_fields(open.fields()), Some(open));
            assert_eq!(open.judge(&[7, 0x0102_0304]), Ok(()));
            for other in [&[7, 0x0102_0305][..], &[7], &[0x0102_0304, 7]] {
                assert_eq!(open.judge(other), Err(Error::new(ErrorKind::FrameCheckMismatch, 9)), "{other:?}");
            }
            let none = Scope { width: CheckWidth::None, side: SideCover::Open, ..scope };
            assert_eq!(verify(&[], Kind::Frame, none, [b"x", b"y"]), Ok(None));
        }
    }

    #[test]
    fn control_crcs_cover_kind_and_fields() {
        let mut out = BytesMut::from(&[0x05][..]);
        encode_control_crc(Kind::Rewind, Seed::NONE, 0, &mut out);
        assert_eq!(control_fields(Kind::Rewind, Seed::NONE, &out), Ok(&[0x05][..]));
        assert_eq!(control_fields(Kind::Quality, Seed::NONE, &out), Err(Error::new(ErrorKind::ControlCrcMismatch, 1)));
        assert_eq!(control_fields(Kind::Rewind, Seed::NONE, &[1, 2, 3]), Err(Error::new(ErrorKind::ChunkLayout, 0)));
    }
}
