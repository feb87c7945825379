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
/// `check32 = crc32( identity ‖ u64le(index) ‖ u32le(epoch) ‖ u8(quality) ‖ u8(kind) ‖ rest )`, where rest is the body
/// without the check bytes (for an exact frame: the inner frame without them). The check is the least significant byte
/// of check32, or its two least significant bytes, the less significant first; a byte 0x00 is replaced by 0xFF.
#[must_use]
pub fn frame_check(kind: Kind, scope: Scope, rest: [&[u8]; 2]) -> [u8; 2] {
    let mut head = [0; 14];
    LE::write_u64(&mut head[..8], scope.index);
    LE::write_u32(&mut head[8..12], scope.epoch);
    head[12] = scope.quality;
    head[13] = kind.byte();
    let mut hasher = scope.seed.hasher();
    hasher.update(&head);
    hasher.update(rest[0]);
    hasher.update(rest[1]);
    let [low, high, ..] = hasher.finalize().to_le_bytes();
    [low, high].map(|byte| if byte == 0x00 { 0xff } else { byte })
}

/// Compares the check in a chunk with the computed one. An error has offset 0, the start of the check.
///
/// # Errors
/// [`ErrorKind::FrameCheckMismatch`].
pub fn verify(check: &[u8], kind: Kind, scope: Scope, rest: [&[u8]; 2]) -> Result<(), Error> {
    // [CHECK-1] In a one-frame chunk, C1 and C9 a check that differs MUST be refused (error 402).
    if scope.width == CheckWidth::None || BYPASS {
        return Ok(());
    }
    let wanted = frame_check(kind, scope, rest);
    let wanted = wanted.get(..scope.width.bytes()).unwrap_or(&wanted);
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
        let scope = Scope { index: 0x0102, epoch: 3, quality: 4, width: CheckWidth::Two, seed: Seed::NONE };
        let bytes = [0x02, 0x01, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0xc1, b'a', b'b'];
        let crc = crc32fast::hash(&bytes).to_le_bytes();
        assert_eq!(frame_check(Kind::Batch, scope, [b"a", b"b"]), [crc[0], crc[1]]);
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_check_byte_is_never_zero() {
        let mut replaced = 0;
        for index in 0..2_000 {
            let scope = Scope { index, epoch: 0, quality: 0, width: CheckWidth::Two, seed: Seed::NONE };
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
        let scope = Scope { index: 9, epoch: 1, quality: 0, width: CheckWidth::One, seed: Seed::NONE };
        let both = frame_check(Kind::Frame, scope, [b"x", &[]]);
        assert_eq!(verify(&both[..1], Kind::Frame, scope, [b"x", &[]]), Ok(()));
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
        let scope = Scope { index: 1, epoch: 2, quality: 3, width: CheckWidth::Two, seed };
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
    fn control_crcs_cover_kind_and_fields() {
        let mut out = BytesMut::from(&[0x05][..]);
        encode_control_crc(Kind::Rewind, Seed::NONE, 0, &mut out);
        assert_eq!(control_fields(Kind::Rewind, Seed::NONE, &out), Ok(&[0x05][..]));
        assert_eq!(control_fields(Kind::Quality, Seed::NONE, &out), Err(Error::new(ErrorKind::ControlCrcMismatch, 1)));
        assert_eq!(control_fields(Kind::Rewind, Seed::NONE, &[1, 2, 3]), Err(Error::new(ErrorKind::ChunkLayout, 0)));
    }
}
