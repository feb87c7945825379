//! The exact frame C9 (spec 2.8, 6.9): an ordinary joined frame together with the lossless hidden state.

use bytes::{BufMut, Bytes, BytesMut};

use super::check::{self, OpenCheck, Scope};
use super::frame::Payload;
use super::input;
use super::kind::Kind;
use super::varint;
use crate::error::{Detail, Error, ErrorKind};
use crate::number::to_u64;

/// The type of the values of a hidden state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Dtype {
    /// IEEE 754 binary32, four bytes.
    F32 = 0,
    /// IEEE 754 binary16, two bytes.
    F16 = 1,
    /// bfloat16, two bytes.
    Bf16 = 2,
}

impl Dtype {
    /// Bytes of one value.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }
}

/// The body of an exact frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactFrame {
    /// The type of the values in `hidden`.
    pub dtype: Dtype,
    /// The joined payload.
    pub payload: Payload,
    /// The hidden state as little-endian values; the decoder judges its length ([CTRL-6]).
    pub hidden: Payload,
    /// The check of the frame inside, if the decoder is to judge it.
    pub check: Option<OpenCheck>,
}

impl ExactFrame {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ErrorKind::ControlCrcMismatch`], [`ErrorKind::ExactDtype`], [`ErrorKind::ChunkLayout`],
    /// [`ErrorKind::FrameCheckMismatch`], and those of a varint.
    pub fn load(body: &Bytes, scope: Scope) -> Result<ExactFrame, Error> {
        let fields = check::control_fields(Kind::ExactFrame, scope.exact_seed(), body)?;
        let (dtype, check, payload, hidden) = input::whole(fields, ErrorKind::ChunkLayout, |input| {
            // [CTRL-6] A dtype above 2 is error 314.
            let (at_length, dtype) = input::byte(input)?;
            let dtype = match dtype {
                0 => Dtype::F32,
                1 => Dtype::F16,
                2 => Dtype::Bf16,
                found => {
                    return input::fail_with(ErrorKind::ExactDtype, input, Detail::Byte { what: "dtype", found });
                }
            };
            // A frame length above what the body holds is error 306.
            let (rest, length) = input::varint(at_length)?;
            let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
            let Some((frame, hidden)) = split else {
                return input::cut(at_length);
            };
            // A frame too short for its check ends inside it.
            let Some((check, payload)) = frame.split_at_checked(scope.width.bytes()) else {
                return input::cut(rest);
            };
            match check::verify(check, Kind::ExactFrame, scope, [payload, &[]]) {
                Ok(open) => Ok((&[], (dtype, open, payload.len(), hidden.len()))),
                Err(error) => input::forward(error, rest),
            }
        })?;
        let end = fields.len();
        let at_hidden = end.saturating_sub(hidden);
        let at_payload = at_hidden.saturating_sub(payload);
        let at_check = to_u64(at_payload.saturating_sub(scope.width.bytes()));
        Ok(ExactFrame {
            dtype,
            check: check.map(|check| check.shifted(at_check)),
            payload: Payload::new(body, at_payload, at_hidden),
            hidden: Payload::new(body, at_hidden, end),
        })
    }

    /// Appends a body.
    ///
    /// # Errors
    /// [`ErrorKind::FieldOutOfRange`] for a payload whose length does not fit a varint.
    pub fn encode(dtype: Dtype, payload: &[u8], hidden: &[u8], scope: Scope, out: &mut BytesMut) -> Result<(), Error> {
        let start = out.len();
        out.put_u8(dtype as u8);
        varint::encode(to_u64(payload.len()).saturating_add(scope.width.bytes() as u64), out)?;
        check::encode(Kind::ExactFrame, scope, [payload, &[]], out);
        out.put_slice(payload);
        out.put_slice(hidden);
        check::encode_control_crc(Kind::ExactFrame, scope.exact_seed(), start, out);
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
    use crate::wire::Seed;
    use crate::wire::{CheckWidth, SideCover};

    const SCOPE: Scope =
        Scope { index: 5, epoch: 0, quality: 2, width: CheckWidth::One, seed: Seed::NONE, side: SideCover::None };

    #[test]
    fn an_annotated_exact_frame() {
        let mut out = BytesMut::new();
        ExactFrame::encode(Dtype::Bf16, b"abc", &[1, 2, 3, 4], SCOPE, &mut out).unwrap();
        let check = crc32fast::hash(b"\x05\0\0\0\0\0\0\0\0\0\0\0\x02\xc9abc").to_le_bytes()[0];
        assert_eq!(out[..10], [2, 4, check, b'a', b'b', b'c', 1, 2, 3, 4]); // dtype, frame length, frame, hidden
        let exact = ExactFrame::load(&out.clone().freeze(), SCOPE).unwrap();
        assert_eq!(exact.dtype, Dtype::Bf16);
        assert_eq!(exact.payload, Payload { bytes: Bytes::from_static(b"abc"), offset: 3 });
        assert_eq!(exact.hidden, Payload { bytes: Bytes::from_static(&[1, 2, 3, 4]), offset: 6 });
        // The crc covers identity, index and epoch, and comes before the check.
        let covered = [b"\x05\0\0\0\0\0\0\0\0\0\0\0\xc9", &out[..10]].concat();
        assert_eq!(out[10..], crc32fast::hash(&covered).to_le_bytes());
        for other in [Scope { index: 6, ..SCOPE }, Scope { epoch: 1, ..SCOPE }] {
            let error = ExactFrame::load(&out.clone().freeze(), other).unwrap_err();
            assert_eq!((error.kind(), error.offset()), (ErrorKind::ControlCrcMismatch, 10));
        }
        let other = ExactFrame::load(&out.freeze(), Scope { quality: 3, ..SCOPE });
        assert_eq!(other, Err(Error::new(ErrorKind::FrameCheckMismatch, 2)));
    }

    #[test]
    fn what_is_refused_and_where() {
        let load = |fields: &[u8]| {
            let mut out = BytesMut::from(fields);
            check::encode_control_crc(Kind::ExactFrame, SCOPE.exact_seed(), 0, &mut out);
            ExactFrame::load(&out.freeze(), SCOPE).unwrap_err()
        };
        assert_eq!(load(&[]), Error::new(ErrorKind::ChunkLayout, 0));
        assert_eq!(load(&[3, 0]), Error::new(ErrorKind::ExactDtype, 0));
        assert_eq!(load(&[0]), Error::new(ErrorKind::ChunkLayout, 1));
        assert_eq!(load(&[0, 3, 1, 2]), Error::new(ErrorKind::ChunkLayout, 1));
        assert_eq!(load(&[0, 0, 1, 2]), Error::new(ErrorKind::ChunkLayout, 2));
    }
}
