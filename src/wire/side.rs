//! Side indices CC (spec 2.8, 6.12): those of the next frames, coded by the model's tables.

use bytes::{BufMut, Bytes, BytesMut};

use super::check;
use super::frame::Payload;
use super::identity::Seed;
use super::input;
use super::kind::Kind;
use super::varint;
use crate::error::{Detail, Error, ErrorKind, Limit};
use crate::number::to_u64;

/// The body of a chunk of side indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideIndices {
    /// How many there are: of as many of the next frames.
    pub count: u32,
    /// The payload, opaque here.
    pub payload: Payload,
}

impl SideIndices {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ErrorKind::ControlCrcMismatch`], [`ErrorKind::TooManyFrames`], [`ErrorKind::ChunkLayout`], and those of a
    /// varint.
    pub fn load(body: &Bytes, max_frames: u32, seed: Seed) -> Result<SideIndices, Error> {
        let fields = check::control_fields(Kind::SideIndices, seed, body)?;
        let (count, payload) = input::whole(fields, ErrorKind::ChunkLayout, |input| {
            let (payload, less_one) = input::varint(input)?;
            // [CTRL-10] A count above max frames per chunk is error 309, at the count.
            let stated = less_one.saturating_add(1);
            match u32::try_from(stated) {
                Ok(count) if count <= max_frames => Ok((&[], (count, payload.len()))),
                _ => input::fail_with(ErrorKind::TooManyFrames, input, too_many(max_frames, stated)),
            }
        })?;
        let start = fields.len().saturating_sub(payload);
        Ok(SideIndices { count, payload: Payload::new(body, start, fields.len()) })
    }

    /// Appends a body.
    ///
    /// # Errors
    /// [`ErrorKind::TooManyFrames`] for no index or more than `max_frames`.
    pub fn encode(count: u32, payload: &[u8], max_frames: u32, seed: Seed, out: &mut BytesMut) -> Result<(), Error> {
        if count == 0 || count > max_frames {
            return Err(Error::of_call(ErrorKind::TooManyFrames).with(too_many(max_frames, count.into())));
        }
        let start = out.len();
        varint::encode(u64::from(count).saturating_sub(1), out)?;
        out.put_slice(payload);
        check::encode_control_crc(Kind::SideIndices, seed, start, out);
        Ok(())
    }
}

/// The facts of more indices than frames of a chunk. The layer above says whether it was the header's limit or its own.
fn too_many(max_frames: u32, found: u64) -> Detail {
    Detail::Limit { what: "side indices in a chunk", limit: Limit::Declared, most: max_frames.into(), found }
}

/// The error for side indices that come while earlier ones are left; `left` of them.
pub(crate) fn left(left: u32) -> Error {
    // [CTRL-10] A CC chunk that comes while indices of the one before it are left is error 319.
    let detail = Detail::Number { what: "side indices that are left", wanted: 0, found: to_u64(left as usize) };
    Error::new(ErrorKind::SideIndicesLeft, 0).with(detail)
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
    fn a_count_and_a_payload() {
        let mut out = BytesMut::new();
        SideIndices::encode(200, b"payload", 256, Seed::NONE, &mut out).unwrap();
        assert_eq!(&out[..9], b"\x80\xc7payload");
        let body = out.freeze();
        let found = SideIndices::load(&body, 256, Seed::NONE).unwrap();
        assert_eq!((found.count, &found.payload.bytes[..], found.payload.offset), (200, &b"payload"[..], 2));
        let refused = |body: &Bytes, most: u32| SideIndices::load(body, most, Seed::NONE).unwrap_err();
        assert_eq!(refused(&body, 199), Error::new(ErrorKind::TooManyFrames, 0));
        let mut flipped = body.to_vec();
        flipped[4] ^= 1;
        assert_eq!(refused(&flipped.into(), 256), Error::new(ErrorKind::ControlCrcMismatch, 9));
        assert_eq!(refused(&body.slice(..3), 256), Error::new(ErrorKind::ChunkLayout, 0));
        let mut out = BytesMut::new();
        check::encode_control_crc(Kind::SideIndices, Seed::NONE, 0, &mut out);
        assert_eq!(refused(&out.freeze(), 256), Error::new(ErrorKind::ChunkLayout, 0));
        for count in [0, 257] {
            let error = SideIndices::encode(count, &[], 256, Seed::NONE, &mut BytesMut::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooManyFrames);
        }
    }
}
