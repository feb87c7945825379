//! The end chunk CA (spec 2.8, 2.9). A reader has seen a whole stream only once it has read this chunk.

use bytes::{BufMut, BytesMut};

use super::check;
use super::checkpoint::{digests, index};
use super::identity::Seed;
use super::input;
use super::kind::Kind;
use super::varint;
use crate::error::{Detail, Error, ErrorKind};

/// The body of an end chunk: the totals of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The absolute index that the next frame would have.
    pub index: u64,
    /// The number of frames that were coded, rewound ones included.
    pub frames_coded: u64,
    /// The W digest, judged by the decoder (spec 6.4).
    pub digest_w: u32,
    /// The Y digest, judged by the decoder.
    pub digest_y: u32,
}

impl End {
    /// Reads a body. `next` is the absolute index of the next frame, `coded` the number of frames coded, or `None` if
    /// the reader joined the stream and cannot know it (spec 6.6).
    ///
    /// # Errors
    /// [`ErrorKind::ControlCrcMismatch`], [`ErrorKind::IndexMismatch`], [`ErrorKind::FrameTotalMismatch`],
    /// [`ErrorKind::ChunkLayout`], and those of a varint.
    pub fn load(body: &[u8], next: u64, coded: Option<u64>, seed: Seed) -> Result<End, Error> {
        let fields = check::control_fields(Kind::End, seed, body)?;
        input::whole(fields, ErrorKind::ChunkLayout, |input| {
            // [CTRL-2] Checkpoint and end: index MUST equal the absolute index of the next frame (error 404).
            let (at_total, index) = index(Some(next))(input)?;
            // In the end chunk, frames coded MUST equal the number of frames the stream has coded, rewound ones
            // included (error 405).
            let (input, frames_coded) = input::varint(at_total)?;
            if let Some(wanted) = coded.filter(|coded| *coded != frames_coded) {
                let detail = Detail::Number { what: "frames coded", wanted, found: frames_coded };
                return input::fail_with(ErrorKind::FrameTotalMismatch, at_total, detail);
            }
            let (input, (digest_w, digest_y)) = digests(input)?;
            Ok((input, End { index, frames_coded, digest_w, digest_y }))
        })
    }

    /// Appends a body.
    ///
    /// # Errors
    /// [`ErrorKind::FieldOutOfRange`] for numbers above 2^56 − 1.
    pub fn encode(&self, seed: Seed, out: &mut BytesMut) -> Result<(), Error> {
        let start = out.len();
        varint::encode(self.index, out)?;
        varint::encode(self.frames_coded, out)?;
        out.put_u32_le(self.digest_w);
        out.put_u32_le(self.digest_y);
        check::encode_control_crc(Kind::End, seed, start, out);
        Ok(())
    }

    /// The offset of the W digest in the body; the Y digest follows four bytes later.
    #[must_use]
    pub const fn digest_offset(&self) -> usize {
        varint::len(self.index).saturating_add(varint::len(self.frames_coded))
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
    fn an_annotated_end() {
        let end = End { index: 10, frames_coded: 300, digest_w: 0x0403_0201, digest_y: 0x0807_0605 };
        let mut out = BytesMut::new();
        end.encode(Seed::NONE, &mut out).unwrap();
        assert_eq!(out[..11], [10, 0x81, 0x2c, 1, 2, 3, 4, 5, 6, 7, 8]); // index, frames, W digest, Y digest
        assert_eq!(out[11..], check::control_crc(Kind::End, Seed::NONE, &out[..11]).to_le_bytes());
        assert_eq!(end.digest_offset(), 3);
        assert_eq!(End::load(&out, 10, Some(300), Seed::NONE), Ok(end));
        assert_eq!(End::load(&out, 10, None, Seed::NONE), Ok(end));
        assert_eq!(End::load(&out, 9, Some(300), Seed::NONE), Err(Error::new(ErrorKind::IndexMismatch, 0)));
        assert_eq!(End::load(&out, 10, Some(299), Seed::NONE), Err(Error::new(ErrorKind::FrameTotalMismatch, 1)));
    }

    #[test]
    fn layout() {
        for (fields, offset) in [(&[10, 5, 1, 2, 3, 4, 5, 6, 7][..], 6), (&[10, 5, 1, 2, 3, 4, 5, 6, 7, 8, 9], 10)] {
            let mut out = BytesMut::from(fields);
            check::encode_control_crc(Kind::End, Seed::NONE, 0, &mut out);
            assert_eq!(End::load(&out, 10, Some(5), Seed::NONE), Err(Error::new(ErrorKind::ChunkLayout, offset)));
        }
    }
}
