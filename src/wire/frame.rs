//! The one-frame chunk: `check ‖ payload` (spec 2.6).

use bytes::{BufMut, Bytes, BytesMut};

use super::check::{self, OpenCheck, Scope};
use super::input::part;
use super::kind::Kind;
use crate::error::{Error, ErrorKind};
use crate::number::to_u64;

/// The sealed bytes of one entropy coder, and their offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The bytes, shared with the input instead of copied. May be empty.
    pub bytes: Bytes,
    /// Offset of the first byte, counted from the start of the body in [`crate::wire`], from the start of the stream
    /// header in [`crate::stream`].
    pub offset: u64,
}

impl Payload {
    /// The bytes `start..end` of `body`.
    pub(crate) fn new(body: &Bytes, start: usize, end: usize) -> Payload {
        Payload { bytes: part(body, start, end), offset: to_u64(start) }
    }

    /// The same payload, `base` bytes later.
    pub(crate) fn shifted(mut self, base: u64) -> Payload {
        self.offset = self.offset.saturating_add(base);
        self
    }
}

/// The body of a one-frame chunk: a joined frame in joined mode, the hyper-prior of one frame in layered mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The payload of the one lane.
    pub payload: Payload,
    /// The check, if the decoder is to judge it.
    pub check: Option<OpenCheck>,
}

impl Frame {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ErrorKind::ChunkLayout`] and [`ErrorKind::FrameCheckMismatch`], both at the check, offset 0.
    pub fn load(body: &Bytes, scope: Scope) -> Result<Frame, Error> {
        let Some((check, rest)) = body.split_at_checked(scope.width.bytes()) else {
            return Err(Error::new(ErrorKind::ChunkLayout, 0).with_detail("no room for the check"));
        };
        let payload = Payload::new(body, check.len(), body.len());
        Ok(Frame { payload, check: check::verify(check, Kind::Frame, scope, [rest, &[]])? })
    }

    /// Appends a body.
    pub fn encode(payload: &[u8], scope: Scope, out: &mut BytesMut) {
        check::encode(Kind::Frame, scope, [payload, &[]], out);
        out.put_slice(payload);
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
    use crate::wire::{CheckWidth, Seed, SideCover};

    #[test]
    fn check_then_payload() {
        for width in [CheckWidth::None, CheckWidth::One, CheckWidth::Two] {
            let scope = Scope { index: 7, epoch: 1, quality: 2, width, seed: Seed::NONE, side: SideCover::None };
            for payload in [&b""[..], b"payload"] {
                let mut out = BytesMut::new();
                Frame::encode(payload, scope, &mut out);
                assert_eq!(out.len(), width.bytes() + payload.len());
                let frame = Frame::load(&out.freeze(), scope).unwrap();
                assert_eq!(frame.payload.bytes, payload);
                assert_eq!(frame.payload.offset, width.bytes() as u64);
            }
        }
    }

    #[test]
    fn a_wrong_index_epoch_quality_or_byte_shows() {
        let scope =
            Scope { index: 7, epoch: 1, quality: 2, width: CheckWidth::Two, seed: Seed::NONE, side: SideCover::None };
        let mut out = BytesMut::new();
        Frame::encode(b"abc", scope, &mut out);
        let body = out.freeze();
        let mismatch = Err(Error::new(ErrorKind::FrameCheckMismatch, 0));
        assert_eq!(Frame::load(&body, Scope { index: 8, ..scope }), mismatch);
        assert_eq!(Frame::load(&body, Scope { epoch: 2, ..scope }), mismatch);
        assert_eq!(Frame::load(&body, Scope { quality: 3, ..scope }), mismatch);
        let layout = Err(Error::new(ErrorKind::ChunkLayout, 0));
        assert_eq!(Frame::load(&body.slice(..1), scope), layout);
    }
}
