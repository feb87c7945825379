//! Leading bytes, chunk kinds and lengths (spec 2.3), and their place in messages (spec 2.4).

use bytes::{BufMut, BytesMut};

use super::varint;
use crate::error::{Detail, Error, ErrorKind, Limit};
use crate::number::to_u64;

/// The shortest body of the long one-frame form, C0.
pub const LONG_FRAME: u64 = 16_512;
/// The shortest body of the medium one-frame form.
pub const MEDIUM_FRAME: u64 = 128;

/// The kind of a chunk (spec 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// One-frame chunk of any form.
    Frame = 0xc0,
    /// Batch: joined in joined mode, hyper-prior in layered mode.
    Batch = 0xc1,
    /// Target of one frame.
    Target = 0xc2,
    /// Target of several frames.
    TargetBatch = 0xc3,
    /// Checkpoint.
    Checkpoint = 0xc4,
    /// Context reset.
    Reset = 0xc5,
    /// Rewind.
    Rewind = 0xc6,
    /// Quality switch.
    Quality = 0xc7,
    /// Model switch.
    ModelSwitch = 0xc8,
    /// Exact frame.
    ExactFrame = 0xc9,
    /// End.
    End = 0xca,
    /// Seek index.
    SeekIndex = 0xcb,
    /// Side indices.
    SideIndices = 0xcc,
    /// Ignorable extension.
    Ignorable = 0xe0,
    /// Critical extension.
    Critical = 0xf0,
}

impl Kind {
    /// Every kind, in ascending order.
    pub const ALL: [Kind; 15] = [
        Kind::Frame,
        Kind::Batch,
        Kind::Target,
        Kind::TargetBatch,
        Kind::Checkpoint,
        Kind::Reset,
        Kind::Rewind,
        Kind::Quality,
        Kind::ModelSwitch,
        Kind::ExactFrame,
        Kind::End,
        Kind::SeekIndex,
        Kind::SideIndices,
        Kind::Ignorable,
        Kind::Critical,
    ];

    /// The kind byte; C0 for every one-frame form.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// The kind that a leading byte names.
    ///
    /// # Errors
    /// [`ErrorKind::ReservedKind`] at offset 0.
    pub fn of_leading_byte(byte: u8) -> Result<Kind, Error> {
        if byte < 0xc0 {
            return Ok(Kind::Frame);
        }
        // [CHUNK-1] A reserved kind MUST be refused (error 301).
        Kind::ALL.into_iter().find(|kind| kind.byte() == byte).ok_or_else(|| reserved(byte))
    }

    /// Whether the chunk is a target, which in layered mode may be lost, late or out of order.
    #[must_use]
    pub const fn is_target(self) -> bool {
        matches!(self, Kind::Target | Kind::TargetBatch)
    }
}

fn reserved(found: u8) -> Error {
    Error::new(ErrorKind::ReservedKind, 0).with(Detail::Byte { what: "kind", found })
}

/// The error for a body longer than the limit. The layer above says whether it was the header's limit or its own.
pub(crate) fn too_long(max_chunk_bytes: u32, found: u64) -> Error {
    let detail =
        Detail::Limit { what: "bytes in a chunk", limit: Limit::Declared, most: max_chunk_bytes.into(), found };
    Error::new(ErrorKind::ChunkTooLong, 0).with(detail)
}

/// How long a chunk of a byte stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// Bytes before the body: 1 to 9.
    pub head: usize,
    /// Bytes of the body.
    pub body: usize,
}

/// Reads the length of the chunk at the start of `input`, whose leading byte is valid; `None` if `input` ends inside
/// it.
///
/// # Errors
/// [`ErrorKind::ChunkTooLong`] above `max_chunk_bytes`, [`ErrorKind::FrameFormNotShortest`], and those of a varint.
pub fn load_length(input: &[u8], max_chunk_bytes: u32) -> Result<Option<Length>, Error> {
    let Some((&leading, rest)) = input.split_first() else {
        return Ok(None);
    };
    // The length and the offset of its first byte.
    let (length, bytes, at) = match leading {
        0x00..=0x7f => (u64::from(leading), 0, 0),
        0x80..=0xbf => match rest.first() {
            Some(low) => ((u64::from(leading & 0x3f) << 8 | u64::from(*low)).saturating_add(MEDIUM_FRAME), 1, 0),
            None => return Ok(None),
        },
        _ => match varint::load(rest).map_err(|error| error.shifted(1))? {
            Some((length, bytes)) => (length, bytes, 1),
            None => return Ok(None),
        },
    };
    // [CHUNK-2] A body length above the limit MUST be refused when the length is read, before the body is waited for
    // or memory is set aside (error 302). This holds for one-frame chunks of every form.
    if length > u64::from(max_chunk_bytes) {
        return Err(too_long(max_chunk_bytes, length).at(at));
    }
    // [CHUNK-3] A one-frame chunk MUST use the shortest of its three forms (error 303 for a kind C0 whose body is
    // shorter than 16,512 bytes).
    if leading == Kind::Frame.byte() && length < LONG_FRAME {
        let detail =
            Detail::Range { what: "bytes", low: LONG_FRAME.cast_signed(), high: 1 << 30, found: length.cast_signed() };
        return Err(Error::new(ErrorKind::FrameFormNotShortest, at).with(detail));
    }
    match usize::try_from(length) {
        Ok(body) => Ok(Some(Length { head: usize::saturating_add(bytes, 1), body })),
        Err(_) => Err(too_long(max_chunk_bytes, length).at(at)),
    }
}

/// Appends the leading byte and the length of a chunk whose body has `body` bytes.
///
/// # Errors
/// [`ErrorKind::ChunkTooLong`] for a body whose length does not fit a varint.
pub fn encode_head(kind: Kind, body: usize, out: &mut BytesMut) -> Result<(), Error> {
    let length = to_u64(body);
    match (kind, length) {
        (Kind::Frame, 0..MEDIUM_FRAME) => out.put_uint(length, 1),
        (Kind::Frame, MEDIUM_FRAME..LONG_FRAME) => out.put_uint(length.saturating_sub(MEDIUM_FRAME) | 0x8000, 2),
        _ if length > varint::MAX => {
            return Err(Error::of_call(ErrorKind::ChunkTooLong).with_detail("2^56 bytes or more"));
        }
        _ => {
            out.put_u8(kind.byte());
            varint::encode(length, out)?;
        }
    }
    Ok(())
}

/// The kind of a message after the first, and the place of its body: from `head` up to `head + body`. `None` for an
/// empty message, which a reader skips.
///
/// # Errors
/// [`ErrorKind::MessageTooShort`], [`ErrorKind::FrameFormNotShortest`], [`ErrorKind::ReservedKind`], all at offset 0.
pub fn load_message(message: &[u8]) -> Result<Option<(Kind, Length)>, Error> {
    match message {
        // [MSG-6] An empty message is no chunk: a reader MUST skip it.
        [] => Ok(None),
        // [MSG-3] Any other message is typed: its first byte is the kind (C1 … FE by the table above), then the body,
        // then one byte 0x00. A typed message shorter than two bytes is error 308.
        [0x00] => Err(Error::new(ErrorKind::MessageTooShort, 0)),
        // [MSG-2] A one-frame chunk whose body is empty is the message `C0 00`.
        [0xc0, 0x00] => Ok(Some((Kind::Frame, Length { head: 1, body: 0 }))),
        // Any other message of kind C0 is error 303;
        [0xc0, .., 0x00] => {
            Err(Error::new(ErrorKind::FrameFormNotShortest, 0).with_detail("a one-frame message has no kind"))
        }
        // a first byte below C0 is error 301.
        // [MSG-4] A second stream header is refused (error 301: its first byte is below C0).
        [kind @ 0x00..=0xbf, .., 0x00] => Err(reserved(*kind)),
        [kind, body @ .., 0x00] => Ok(Some((Kind::of_leading_byte(*kind)?, Length { head: 1, body: body.len() }))),
        // [MSG-2] A later message whose last byte is not 0x00 is a one-frame chunk: the message is the body.
        _ => Ok(Some((Kind::Frame, Length { head: 0, body: message.len() }))),
    }
}

/// Appends a chunk as one message.
pub fn encode_message(kind: Kind, body: &[u8], out: &mut BytesMut) {
    if kind == Kind::Frame && !body.is_empty() {
        out.put_slice(body);
    } else {
        out.put_u8(kind.byte());
        out.put_slice(body);
        out.put_u8(0x00);
    }
}

/// Checks that a body is not longer than the limit ([CHUNK-2]).
///
/// # Errors
/// [`ErrorKind::ChunkTooLong`] at offset 0.
pub fn limit(body: &[u8], max_chunk_bytes: u32) -> Result<(), Error> {
    let length = to_u64(body.len());
    if length > u64::from(max_chunk_bytes) { Err(too_long(max_chunk_bytes, length)) } else { Ok(()) }
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

    const MAX: u32 = 1 << 30;

    fn head(kind: Kind, body: usize) -> BytesMut {
        let mut out = BytesMut::new();
        encode_head(kind, body, &mut out).unwrap();
        out
    }

    #[test]
    fn one_frame_chunks_take_the_shortest_of_three_forms() {
        for (body, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x00]),                // 128 + 256·0 + 0
            (16_511, &[0xbf, 0xff]),             // 128 + 256·63 + 255
            (16_512, &[0xc0, 0xc0, 0x40, 0x80]), // kind C0, varint 16,512
        ] {
            assert_eq!(head(Kind::Frame, body), bytes);
            assert_eq!(load_length(bytes, MAX), Ok(Some(Length { head: bytes.len(), body })));
            for short in 0..bytes.len() {
                assert_eq!(load_length(&bytes[..short], MAX), Ok(None));
            }
        }
        // C0 with a body of 16,511 bytes.
        assert_eq!(load_length(&[0xc0, 0xc0, 0x40, 0x7f], MAX), Err(Error::new(ErrorKind::FrameFormNotShortest, 1)));
    }

    #[test]
    fn lengths_above_the_limit_are_refused_at_the_length() {
        assert_eq!(load_length(&[0x64], 99), Err(Error::new(ErrorKind::ChunkTooLong, 0)));
        assert_eq!(load_length(&[0x80, 0x00], 127), Err(Error::new(ErrorKind::ChunkTooLong, 0)));
        assert_eq!(load_length(&[0xc4, 0x64], 99), Err(Error::new(ErrorKind::ChunkTooLong, 1)));
        let largest = [0xc1, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(load_length(&largest, MAX), Err(Error::new(ErrorKind::ChunkTooLong, 1)));
        assert_eq!(load_length(&[0xc4, 0xff], 99), Err(Error::new(ErrorKind::VarintReserved, 1)));
        assert_eq!(load_length(&[0xc4, 0x63], 99), Ok(Some(Length { head: 2, body: 99 })));
    }

    #[test]
    fn all_other_kinds_are_reserved() {
        let known: Vec<u8> = (0xc0..=0xff).filter(|byte| Kind::of_leading_byte(*byte).is_ok()).collect();
        assert_eq!(known, [0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xcb, 0xcc, 0xe0, 0xf0]);
        assert_eq!(Kind::of_leading_byte(0xff), Err(Error::new(ErrorKind::ReservedKind, 0)));
        assert_eq!(Kind::of_leading_byte(0xbf), Ok(Kind::Frame));
    }

    #[test]
    fn messages() {
        let typed = |kind, head, body| Ok(Some((kind, Length { head, body })));
        assert_eq!(load_message(&[]), Ok(None));
        assert_eq!(load_message(&[0xc0, 0x00]), typed(Kind::Frame, 1, 0));
        assert_eq!(load_message(&[0xc5]), typed(Kind::Frame, 0, 1));
        assert_eq!(load_message(&[0x00, 0x01]), typed(Kind::Frame, 0, 2));
        assert_eq!(load_message(&[0xc7, 0x00]), typed(Kind::Quality, 1, 0));
        assert_eq!(load_message(&[0xe0, 0x00, 0x00]), typed(Kind::Ignorable, 1, 1));
        assert_eq!(load_message(&[0x00]).unwrap_err().kind(), ErrorKind::MessageTooShort);
        assert_eq!(load_message(&[0xc0, 0x07, 0x00]).unwrap_err().kind(), ErrorKind::FrameFormNotShortest);
        assert_eq!(load_message(&[0xc0, 0x00, 0x00]).unwrap_err().kind(), ErrorKind::FrameFormNotShortest);
        assert_eq!(load_message(&[0x4d, 0x53, 0x00]).unwrap_err().kind(), ErrorKind::ReservedKind);
        assert_eq!(load_message(&[0xff, 0x00]).unwrap_err().kind(), ErrorKind::ReservedKind);
        for (kind, body) in [(Kind::Frame, &b"a"[..]), (Kind::Frame, b""), (Kind::End, b""), (Kind::Batch, b"\0")] {
            let mut out = BytesMut::new();
            encode_message(kind, body, &mut out);
            let (read, length) = load_message(&out).unwrap().unwrap();
            assert_eq!((read, &out[length.head..length.head + length.body]), (kind, body));
        }
    }
}
