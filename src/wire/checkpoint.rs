//! The checkpoint C4 (spec 2.8): the writer's position, and the digests of what it coded.

use bytes::{BufMut, BytesMut};

use super::check;
use super::identity::Seed;
use super::input::{self, array};
use super::kind::Kind;
use super::varint;
use crate::error::{Detail, Error, ErrorKind};

/// The body of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The absolute index of the next frame.
    pub index: u64,
    /// The W digest, judged by the decoder (spec 6.4).
    pub digest_w: u32,
    /// The Y digest, judged by the decoder.
    pub digest_y: u32,
}

/// Reads an index; it must be the next frame's, if that is known.
pub(super) fn index(next: Option<u64>) -> impl Fn(&[u8]) -> input::Parsed<'_, u64> {
    move |input| {
        let (rest, index) = input::varint(input)?;
        match next {
            Some(next) if next != index => {
                let detail = Detail::Number { what: "index of the next frame", wanted: next, found: index };
                input::fail_with(ErrorKind::IndexMismatch, input, detail)
            }
            _ => Ok((rest, index)),
        }
    }
}

/// Reads a W digest and a Y digest.
pub(super) fn digests(input: &[u8]) -> input::Parsed<'_, (u32, u32)> {
    let (input, digest_w) = array(input)?;
    let (input, digest_y) = array(input)?;
    Ok((input, (u32::from_le_bytes(digest_w), u32::from_le_bytes(digest_y))))
}

impl Checkpoint {
    /// Reads a body; `next` is the absolute index of the next frame.
    ///
    /// # Errors
    /// [`ErrorKind::ControlCrcMismatch`], [`ErrorKind::IndexMismatch`], [`ErrorKind::ChunkLayout`], and those of a
    /// varint.
    pub fn load(body: &[u8], next: u64, seed: Seed) -> Result<Checkpoint, Error> {
        let fields = check::control_fields(Kind::Checkpoint, seed, body)?;
        input::whole(fields, ErrorKind::ChunkLayout, |input| {
            // [CTRL-2] Checkpoint and end: index MUST equal the absolute index of the next frame (error 404).
            let (input, index) = index(Some(next))(input)?;
            let (input, (digest_w, digest_y)) = digests(input)?;
            Ok((input, Checkpoint { index, digest_w, digest_y }))
        })
    }

    /// Appends a body.
    ///
    /// # Errors
    /// [`ErrorKind::FieldOutOfRange`] for an index above 2^56 − 1.
    pub fn encode(&self, seed: Seed, out: &mut BytesMut) -> Result<(), Error> {
        let start = out.len();
        varint::encode(self.index, out)?;
        out.put_u32_le(self.digest_w);
        out.put_u32_le(self.digest_y);
        check::encode_control_crc(Kind::Checkpoint, seed, start, out);
        Ok(())
    }

    /// The offset of the W digest in the body; the Y digest follows four bytes later.
    #[must_use]
    pub const fn digest_offset(&self) -> usize {
        varint::len(self.index)
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
    fn an_annotated_checkpoint() {
        let checkpoint = Checkpoint { index: 300, digest_w: 0x0403_0201, digest_y: 0x0807_0605 };
        let mut out = BytesMut::new();
        checkpoint.encode(Seed::NONE, &mut out).unwrap();
        let crc = crc32fast::hash(b"\xc4\x81\x2c\x01\x02\x03\x04\x05\x06\x07\x08").to_le_bytes();
        assert_eq!(out[..10], [0x81, 0x2c, 1, 2, 3, 4, 5, 6, 7, 8]); // index, W digest, Y digest
        assert_eq!(out[10..], crc);
        assert_eq!(Checkpoint::load(&out, 300, Seed::NONE), Ok(checkpoint));
        assert_eq!(checkpoint.digest_offset(), 2);
        assert_eq!(Checkpoint::load(&out, 301, Seed::NONE), Err(Error::new(ErrorKind::IndexMismatch, 0)));
    }

    #[test]
    fn the_crc_is_judged_first_and_then_the_fields_in_order() {
        let with_crc = |fields: &[u8]| {
            let mut out = BytesMut::from(fields);
            check::encode_control_crc(Kind::Checkpoint, Seed::NONE, 0, &mut out);
            out
        };
        let load = |fields: &[u8]| Checkpoint::load(&with_crc(fields), 5, Seed::NONE).unwrap_err();
        assert_eq!(load(&[5, 1, 2, 3, 4, 5, 6, 7]), Error::new(ErrorKind::ChunkLayout, 5));
        assert_eq!(load(&[5, 1, 2, 3, 4, 5, 6, 7, 8, 9]), Error::new(ErrorKind::ChunkLayout, 9));
        assert_eq!(load(&[6, 1, 2]), Error::new(ErrorKind::IndexMismatch, 0));
        assert_eq!(load(&[]), Error::new(ErrorKind::ChunkLayout, 0));
        assert_eq!(load(&[0xff]), Error::new(ErrorKind::VarintReserved, 0));
        let mut wrong = with_crc(&[6]);
        wrong.put_u8(0);
        assert_eq!(Checkpoint::load(&wrong, 5, Seed::NONE), Err(Error::new(ErrorKind::ControlCrcMismatch, 2)));
    }
}
