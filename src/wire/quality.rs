//! The quality switch C7 (spec 2.8): another quality of the same model from the next frame on, in the same context.

use bytes::{BufMut, BytesMut};

use super::check;
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
}

impl Quality {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ErrorKind::ControlCrcMismatch`], [`ErrorKind::ChunkLayout`].
    pub fn load(body: &[u8], seed: Seed) -> Result<Quality, Error> {
        let fields = check::control_fields(Kind::Quality, seed, body)?;
        input::whole(fields, ErrorKind::ChunkLayout, |input| {
            let (input, quality) = byte(input)?;
            Ok((input, Quality { quality }))
        })
    }

    /// Appends a body.
    pub fn encode(&self, seed: Seed, out: &mut BytesMut) {
        let start = out.len();
        out.put_u8(self.quality);
        check::encode_control_crc(Kind::Quality, seed, start, out);
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
        let mut out = BytesMut::new();
        Quality { quality: 3 }.encode(Seed::NONE, &mut out);
        assert_eq!(out[..1], [3]);
        assert_eq!(out[1..], crc32fast::hash(&[0xc7, 3]).to_le_bytes());
        assert_eq!(Quality::load(&out, Seed::NONE), Ok(Quality { quality: 3 }));
        out[0] = 2;
        assert_eq!(Quality::load(&out, Seed::NONE), Err(Error::new(ErrorKind::ControlCrcMismatch, 1)));
    }

    #[test]
    fn layout() {
        for (fields, offset) in [(&[][..], 0), (&[1, 2], 1)] {
            let mut out = BytesMut::from(fields);
            check::encode_control_crc(Kind::Quality, Seed::NONE, 0, &mut out);
            assert_eq!(Quality::load(&out, Seed::NONE), Err(Error::new(ErrorKind::ChunkLayout, offset)));
        }
        assert_eq!(Quality::load(&[1, 2], Seed::NONE), Err(Error::new(ErrorKind::ChunkLayout, 0)));
    }
}
