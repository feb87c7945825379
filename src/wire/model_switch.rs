//! The model switch C8 (spec 2.8): another model and a new context from the next frame on.

use bytes::{BufMut, BytesMut};

use super::check;
use super::checkpoint::{digests, index};
use super::header::{encode_length_offset, length_offset};
use super::identity::Seed;
use super::input::{self, array, byte};
use super::kind::Kind;
use super::reset::{Expected, epoch};
use super::varint;
use crate::error::{Error, ErrorKind};

/// The body of a model switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSwitch {
    /// The absolute index of the next frame; a switch does not restart the count.
    pub index: u64,
    /// The epoch from here on.
    pub epoch: u32,
    /// The fingerprint of the model (spec 4.6).
    pub fingerprint: [u8; 32],
    /// The model's version; information only.
    pub model_version: u32,
    /// The quality from here on.
    pub quality: u8,
    /// The length offset from here on: 0 … 16,383 ([CHUNK-8]).
    pub length_offset: u16,
    /// The W digest of the context that ends here, judged by a decoder that has followed it (spec 6.4).
    pub digest_w: u32,
    /// Its Y digest since the last checkpoint, judged by the decoder.
    pub digest_y: u32,
}

impl ModelSwitch {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ErrorKind::ControlCrcMismatch`], [`ErrorKind::IndexMismatch`], [`ErrorKind::EpochMismatch`],
    /// [`ErrorKind::FieldOutOfRange`], [`ErrorKind::ChunkLayout`], and those of a varint.
    pub fn load(body: &[u8], expected: Expected, seed: Seed) -> Result<ModelSwitch, Error> {
        let fields = check::control_fields(Kind::ModelSwitch, seed, body)?;
        input::whole(fields, ErrorKind::ChunkLayout, |input| {
            // [CTRL-3] index MUST equal the absolute index of the next frame (error 404), epoch MUST be the current
            // epoch plus one mod 2^32 (error 406); only for a reader that has followed the stream.
            let (input, index) = index(expected.index)(input)?;
            let (input, epoch) = epoch(expected.epoch)(input)?;
            let (input, fingerprint) = array(input)?;
            let (input, model_version) = input::varint_u32("model version")(input)?;
            let (input, quality) = byte(input)?;
            let (input, length_offset) = length_offset(input)?;
            let (input, (digest_w, digest_y)) = digests(input)?;
            let switch =
                ModelSwitch { index, epoch, fingerprint, model_version, quality, length_offset, digest_w, digest_y };
            Ok((input, switch))
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
        out.put_slice(&self.fingerprint);
        varint::encode(u64::from(self.model_version), out)?;
        out.put_u8(self.quality);
        encode_length_offset(self.length_offset, out)?;
        out.put_u32_le(self.digest_w);
        out.put_u32_le(self.digest_y);
        check::encode_control_crc(Kind::ModelSwitch, seed, start, out);
        Ok(())
    }

    /// The offset of the fingerprint in the body.
    #[must_use]
    pub const fn fingerprint_offset(&self) -> usize {
        varint::len(self.index).saturating_add(varint::len(self.epoch as u64))
    }

    /// The offset of the W digest in the body; the Y digest follows four bytes later.
    #[must_use]
    pub const fn digest_offset(&self) -> usize {
        self.quality_offset().saturating_add(1).saturating_add(varint::len(self.length_offset as u64))
    }

    /// The offset of the quality in the body; the length offset is one byte later.
    #[must_use]
    pub const fn quality_offset(&self) -> usize {
        self.fingerprint_offset().saturating_add(32).saturating_add(varint::len(self.model_version as u64))
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

    const SWITCH: ModelSwitch = ModelSwitch {
        index: 300,
        epoch: 5,
        fingerprint: [7; 32],
        model_version: 300,
        quality: 1,
        length_offset: 200,
        digest_w: 0x0403_0201,
        digest_y: 0x0807_0605,
    };

    #[test]
    fn an_annotated_model_switch() {
        let mut out = BytesMut::new();
        SWITCH.encode(Seed::NONE, &mut out).unwrap();
        assert_eq!(out[..3], [0x81, 0x2c, 5]); // index, epoch
        assert_eq!(out[3..35], [7; 32]);
        assert_eq!(out[35..40], [0x81, 0x2c, 1, 0x80, 0xc8]); // version, quality, length offset
        assert_eq!(out[40..48], [1, 2, 3, 4, 5, 6, 7, 8]); // W digest, Y digest
        assert_eq!(out[48..], check::control_crc(Kind::ModelSwitch, Seed::NONE, &out[..48]).to_le_bytes());
        assert_eq!((SWITCH.fingerprint_offset(), SWITCH.quality_offset(), SWITCH.digest_offset()), (3, 37, 40));
        assert_eq!(ModelSwitch::load(&out, Expected::default(), Seed::NONE), Ok(SWITCH));
    }

    #[test]
    fn what_a_reader_knows_must_agree() {
        let mut out = BytesMut::new();
        SWITCH.encode(Seed::NONE, &mut out).unwrap();
        let load = |index, epoch| {
            ModelSwitch::load(
                &out,
                Expected { index: Some(index), epoch: Some(epoch), fingerprint_prefix: None },
                Seed::NONE,
            )
        };
        assert_eq!(load(300, 5), Ok(SWITCH));
        assert_eq!(load(301, 5), Err(Error::new(ErrorKind::IndexMismatch, 0)));
        assert_eq!(load(300, 4), Err(Error::new(ErrorKind::EpochMismatch, 2)));
    }

    #[test]
    fn the_largest_fits_the_smallest_limit() {
        let largest = ModelSwitch {
            index: varint::MAX,
            epoch: u32::MAX,
            model_version: u32::MAX,
            length_offset: super::super::header::MAX_LENGTH_OFFSET,
            ..SWITCH
        };
        let mut out = BytesMut::new();
        largest.encode(Seed::NONE, &mut out).unwrap();
        assert!(out.len() == 65 && out.len() <= crate::wire::header::MIN_CHUNK_BYTES as usize);
    }

    #[test]
    fn layout_and_range() {
        let load = |further: &[u8]| {
            let mut out = BytesMut::from(&[&[9, 1][..], &[7; 32]].concat()[..]);
            out.put_slice(further);
            check::encode_control_crc(Kind::ModelSwitch, Seed::NONE, 0, &mut out);
            ModelSwitch::load(&out, Expected::default(), Seed::NONE).unwrap_err()
        };
        assert_eq!(load(&[]), Error::new(ErrorKind::ChunkLayout, 34));
        assert_eq!(load(&[1]), Error::new(ErrorKind::ChunkLayout, 35));
        assert_eq!(load(&[1, 2]), Error::new(ErrorKind::ChunkLayout, 36)); // no length offset
        assert_eq!(load(&[1, 2, 0xc0, 0x40, 0]), Error::new(ErrorKind::FieldOutOfRange, 36)); // 16,384
        assert_eq!(load(&[1, 2, 0, 3]), Error::new(ErrorKind::ChunkLayout, 37)); // no W digest
        assert_eq!(load(&[1, 2, 0, 3, 4, 5, 6, 7]), Error::new(ErrorKind::ChunkLayout, 41)); // no Y digest
        assert_eq!(load(&[1, 2, 0, 3, 4, 5, 6, 7, 8, 9, 10, 11]), Error::new(ErrorKind::ChunkLayout, 45));
        assert_eq!(load(&[0xfa, 0, 0, 0, 0, 0, 1]), Error::new(ErrorKind::FieldOutOfRange, 34));
    }
}
