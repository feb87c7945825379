//! The context reset C5 (spec 2.8): begins a new context, and is a point where a reader may join.

use bytes::{BufMut, BytesMut};

use super::check;
use super::checkpoint::{digests, index};
use super::header::{encode_length_offset, length_offset};
use super::identity::Seed;
use super::input::{self, array, byte};
use super::kind::Kind;
use super::varint;
use crate::error::{Detail, Error, ErrorKind};

/// The body of a context reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The absolute index of the next frame; a reset does not restart the count.
    pub index: u64,
    /// The epoch from here on.
    pub epoch: u32,
    /// The quality from here on.
    pub quality: u8,
    /// The length offset from here on: 0 … 16,383 ([CHUNK-8]).
    pub length_offset: u16,
    /// The first 8 bytes of the current model's fingerprint.
    pub fingerprint_prefix: [u8; 8],
    /// The W digest of the context that ends here, judged by a decoder that has followed it (spec 6.4).
    pub digest_w: u32,
    /// Its Y digest since the last checkpoint, judged by the decoder.
    pub digest_y: u32,
}

/// The values that a context reset or model switch must have; for `None` the reader takes over the chunk's (spec 6.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The absolute index of the next frame.
    pub index: Option<u64>,
    /// The current epoch plus one, mod 2^32.
    pub epoch: Option<u32>,
    /// The first 8 bytes of the current model's fingerprint.
    pub fingerprint_prefix: Option<[u8; 8]>,
}

/// The epoch of a context reset or model switch, which must be `expected` if that is known.
pub(super) fn epoch(expected: Option<u32>) -> impl Fn(&[u8]) -> input::Parsed<'_, u32> {
    move |at| {
        let (rest, epoch) = input::varint_u32("epoch")(at)?;
        match expected {
            Some(expected) if expected != epoch => {
                let detail = Detail::Number { what: "epoch", wanted: expected.into(), found: epoch.into() };
                input::fail_with(ErrorKind::EpochMismatch, at, detail)
            }
            _ => Ok((rest, epoch)),
        }
    }
}

impl Reset {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ErrorKind::ControlCrcMismatch`], [`ErrorKind::IndexMismatch`], [`ErrorKind::EpochMismatch`],
    /// [`ErrorKind::WrongModelAtReset`], [`ErrorKind::FieldOutOfRange`], [`ErrorKind::ChunkLayout`], and those of a
    /// varint.
    pub fn load(body: &[u8], expected: Expected, seed: Seed) -> Result<Reset, Error> {
        let fields = check::control_fields(Kind::Reset, seed, body)?;
        input::whole(fields, ErrorKind::ChunkLayout, |input| {
            // [CTRL-3] Context reset and model switch: index MUST equal the absolute index of the next frame (error
            // 404), epoch MUST be the current epoch plus one mod 2^32 (error 406), and a reset's prefix MUST match the
            // current model (error 502); all three only for a reader that has followed the stream.
            let (input, index) = index(expected.index)(input)?;
            let (input, epoch) = epoch(expected.epoch)(input)?;
            let (input, quality) = byte(input)?;
            let (at_prefix, length_offset) = length_offset(input)?;
            let (at_digests, fingerprint_prefix) = array(at_prefix)?;
            if let Some(wanted) = expected.fingerprint_prefix.filter(|expected| *expected != fingerprint_prefix) {
                let detail = Detail::Prefix { wanted, found: fingerprint_prefix };
                return input::fail_with(ErrorKind::WrongModelAtReset, at_prefix, detail);
            }
            let (input, (digest_w, digest_y)) = digests(at_digests)?;
            Ok((input, Reset { index, epoch, quality, length_offset, fingerprint_prefix, digest_w, digest_y }))
        })
    }

    /// Appends a body.
    ///
    /// # Errors
    /// [`ErrorKind::FieldOutOfRange`] for an index above 2^56 − 1 or a length offset above 16,383.
    pub fn encode(&self, seed: Seed, out: &mut BytesMut) -> Result<(), Error> {
        let start = out.len();
        varint::encode(self.index, out)?;
        varint::encode(u64::from(self.epoch), out)?;
        out.put_u8(self.quality);
        encode_length_offset(self.length_offset, out)?;
        out.put_slice(&self.fingerprint_prefix);
        out.put_u32_le(self.digest_w);
        out.put_u32_le(self.digest_y);
        check::encode_control_crc(Kind::Reset, seed, start, out);
        Ok(())
    }

    /// The offset of the W digest in the body; the Y digest follows four bytes later.
    #[must_use]
    pub const fn digest_offset(&self) -> usize {
        self.prefix_offset().saturating_add(8)
    }

    /// The offset of the fingerprint prefix in the body.
    #[must_use]
    pub const fn prefix_offset(&self) -> usize {
        self.quality_offset().saturating_add(1).saturating_add(varint::len(self.length_offset as u64))
    }

    /// The offset of the quality in the body; the length offset is one byte later.
    #[must_use]
    pub const fn quality_offset(&self) -> usize {
        varint::len(self.index).saturating_add(varint::len(self.epoch as u64))
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

    const RESET: Reset = Reset {
        index: 300,
        epoch: 128,
        quality: 2,
        length_offset: 200,
        fingerprint_prefix: *b"fingerpr",
        digest_w: 0x0403_0201,
        digest_y: 0x0807_0605,
    };

    #[test]
    fn an_annotated_reset() {
        let mut out = BytesMut::new();
        RESET.encode(Seed::NONE, &mut out).unwrap();
        assert_eq!(out[..7], *b"\x81\x2c\x80\x80\x02\x80\xc8"); // index, epoch, quality, length offset
        assert_eq!(out[7..15], *b"fingerpr");
        assert_eq!(out[15..23], [1, 2, 3, 4, 5, 6, 7, 8]); // W digest, Y digest
        assert_eq!(out[23..], crc32fast::hash(&[&[0xc5], &out[..23]].concat()).to_le_bytes());
        assert_eq!((RESET.quality_offset(), RESET.prefix_offset(), RESET.digest_offset()), (4, 7, 15));
        assert_eq!(Reset::load(&out, Expected::default(), Seed::NONE), Ok(RESET));
    }

    #[test]
    fn what_a_reader_knows_must_agree() {
        let mut out = BytesMut::new();
        RESET.encode(Seed::NONE, &mut out).unwrap();
        let known = Expected { index: Some(300), epoch: Some(128), fingerprint_prefix: Some(*b"fingerpr") };
        assert_eq!(Reset::load(&out, known, Seed::NONE), Ok(RESET));
        for (expected, kind, offset) in [
            (Expected { index: Some(299), ..known }, ErrorKind::IndexMismatch, 0),
            (Expected { epoch: Some(127), ..known }, ErrorKind::EpochMismatch, 2),
            (Expected { fingerprint_prefix: Some(*b"another "), ..known }, ErrorKind::WrongModelAtReset, 7),
        ] {
            assert_eq!(Reset::load(&out, expected, Seed::NONE), Err(Error::new(kind, offset)));
        }
    }

    #[test]
    fn layout_and_range() {
        let load = |fields: &[u8]| {
            let mut out = BytesMut::from(fields);
            check::encode_control_crc(Kind::Reset, Seed::NONE, 0, &mut out);
            Reset::load(&out, Expected::default(), Seed::NONE).unwrap_err()
        };
        assert_eq!(load(&[5, 0xf8, 1, 0, 0, 0, 0]), Error::new(ErrorKind::VarintNotShortest, 1));
        assert_eq!(load(&[5, 0xf0, 0x10, 0, 0, 0]), Error::new(ErrorKind::ChunkLayout, 6)); // no quality
        assert_eq!(load(&[5, 0xf1, 0, 0, 0, 0]), Error::new(ErrorKind::FieldOutOfRange, 1));
        assert_eq!(load(b"\x05\x01\x02"), Error::new(ErrorKind::ChunkLayout, 3)); // no length offset
        assert_eq!(load(b"\x05\x01\x02\xc0\x40\x00fingerpr12345678"), Error::new(ErrorKind::FieldOutOfRange, 3));
        assert_eq!(load(b"\x05\x01\x02\x00fingerp"), Error::new(ErrorKind::ChunkLayout, 4));
        assert_eq!(load(b"\x05\x01\x02\x00fingerpri"), Error::new(ErrorKind::ChunkLayout, 12)); // no W digest
        assert_eq!(load(b"\x05\x01\x02\x00fingerpr1234567"), Error::new(ErrorKind::ChunkLayout, 16)); // no Y digest
        assert_eq!(load(b"\x05\x01\x02\x00fingerpr123456789"), Error::new(ErrorKind::ChunkLayout, 20));
    }
}
