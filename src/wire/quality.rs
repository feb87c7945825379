//! The quality switch C7 (spec 2.8): another quality of the same model, or another length offset, from the next frame
//! on, in the same context.

use bytes::{BufMut, BytesMut};

use super::check;
use super::header::{encode_length_offset, length_offset};
use super::identity::Seed;
use super::input::{self, byte};
use super::kind::Kind;
use crate::error::{Error, ErrorKind};

/// The body of a quality switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// The quality from the next frame on; the decoder judges whether the model has it ([DEC-6]). It is the first byte
    /// of the body.
    pub quality: u8,
    /// The length offset from the next chunk on: 0 … 16,383 ([CHUNK-8]).
    pub length_offset: u16,
}

impl Quality {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ErrorKind::ControlCrcMismatch`], [`ErrorKind::FieldOutOfRange`], [`ErrorKind::ChunkLayout`], and those of a
    /// varint.
    pub fn load(body: &[u8], seed: Seed) -> Result<Quality, Error> {
        let fields = check::control_fields(Kind::Quality, seed, body)?;
        input::whole(fields, ErrorKind::ChunkLayout, |input| {
            let (input, quality) = byte(input)?;
            let (input, length_offset) = length_offset(input)?;
            Ok((input, Quality { quality, length_offset }))
        })
    }

    /// Appends a body.
    ///
    /// # Errors
    /// [`ErrorKind::FieldOutOfRange`] for a length offset above 16,383.
    pub fn encode(&self, seed: Seed, out: &mut BytesMut) -> Result<(), Error> {
        let start = out.len();
        out.put_u8(self.quality);
        encode_length_offset(self.length_offset, out)?;
        check::encode_control_crc(Kind::Quality, seed, start, out);
        Ok(())
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
    fn an_annotated_quality_switch() {
        let switch = Quality { quality: 3, length_offset: 300 };
        let mut out = BytesMut::new();
        switch.encode(Seed::NONE, &mut out).unwrap();
        assert_eq!(out[..3], [3, 0x81, 0x2c]); // quality, length offset
        assert_eq!(out[3..], crc32fast::hash(&[0xc7, 3, 0x81, 0x2c]).to_le_bytes());
        assert_eq!(Quality::load(&out, Seed::NONE), Ok(switch));
        out[0] = 2;
        assert_eq!(Quality::load(&out, Seed::NONE), Err(Error::new(ErrorKind::ControlCrcMismatch, 3)));
    }

    #[test]
    fn layout_and_range() {
        for (fields, kind, offset) in [
            (&[][..], ErrorKind::ChunkLayout, 0),
            (&[1], ErrorKind::ChunkLayout, 1),                       // no length offset
            (&[1, 0x80], ErrorKind::ChunkLayout, 1),                 // half of one
            (&[1, 0xc0, 0x40, 0x00], ErrorKind::FieldOutOfRange, 1), // 16,384
            (&[1, 0x80, 0x7f], ErrorKind::VarintNotShortest, 1),
            (&[1, 2, 3], ErrorKind::ChunkLayout, 2),
        ] {
            let mut out = BytesMut::from(fields);
            check::encode_control_crc(Kind::Quality, Seed::NONE, 0, &mut out);
            assert_eq!(Quality::load(&out, Seed::NONE), Err(Error::new(kind, offset)), "{fields:?}");
        }
        assert_eq!(Quality::load(&[1, 2], Seed::NONE), Err(Error::new(ErrorKind::ChunkLayout, 0)));
        let error = Quality { quality: 0, length_offset: 16_384 }.encode(Seed::NONE, &mut BytesMut::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FieldOutOfRange);
    }
}
