//! Leading bytes, chunk kinds and lengths (spec 2.3), and their place in messages (spec 2.4).

use bytes::{BufMut, BytesMut};

use super::header::MAX_LENGTH_OFFSET;
use super::varint;
use crate::error::{Detail, Error, ErrorKind, Limit};
use crate::number::{to_u64, to_usize};

/// The shortest body of the long one-frame form, C0.
pub const LONG_FRAME: u64 = 16_512;
/// How many lengths the short one-frame form has, from the length offset on.
pub const SHORT_LENGTHS: u64 = 128;

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

/// Reads the length of the chunk at the start of `input`, whose leading byte is valid, with the length offset in force;
/// `None` if `input` ends inside it.
///
/// # Errors
/// [`ErrorKind::ChunkTooLong`] above `max_chunk_bytes`, [`ErrorKind::FrameFormNotShortest`], and those of a varint.
pub fn load_length(input: &[u8], length_offset: u16, max_chunk_bytes: u32) -> Result<Option<Length>, Error> {
    let Some((&leading, rest)) = input.split_first() else {
        return Ok(None);
    };
    // The length and the offset of its first byte.
    let (length, bytes, at) = match leading {
        0x00..=0x7f => (u64::from(length_offset).saturating_add(leading.into()), 0, 0),
        0x80..=0xbf => match rest.first() {
            // The lengths of the short form are left out, so that each length has one form.
            Some(low) => match u64::from(leading & 0x3f) << 8 | u64::from(*low) {
                below if below < u64::from(length_offset) => (below, 1, 0),
                above => (above.saturating_add(SHORT_LENGTHS), 1, 0),
            },
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

/// Appends the leading byte and the length of a chunk whose body has `body` bytes, with the length offset in force.
///
/// # Errors
/// [`ErrorKind::ChunkTooLong`] for a body whose length does not fit a varint.
pub fn encode_head(kind: Kind, body: usize, length_offset: u16, out: &mut BytesMut) -> Result<(), Error> {
    let length = to_u64(body);
    let short = length.checked_sub(length_offset.into()).filter(|short| *short < SHORT_LENGTHS);
    match (kind, short) {
        (Kind::Frame, Some(short)) => out.put_uint(short, 1),
        (Kind::Frame, None) if length < LONG_FRAME => {
            let below = length < u64::from(length_offset);
            out.put_uint(if below { length } else { length.saturating_sub(SHORT_LENGTHS) } | 0x8000, 2);
        }
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

/// The length offset (spec 2.3) with which one-frame bodies of these lengths take the fewest bytes in front of them. It
/// is 0 where no other one is better; of several others that are equally good it is the middle one.
pub fn best_length_offset(bodies: impl IntoIterator<Item = usize>) -> u16 {
    let mut counts = vec![0_u64; to_usize(LONG_FRAME)];
    for body in bodies {
        // The long form is the same with every length offset.
        if let Some(count) = counts.get_mut(body) {
            *count = count.saturating_add(1);
        }
    }
    let window = to_usize(SHORT_LENGTHS);
    let offsets = to_usize(MAX_LENGTH_OFFSET).saturating_add(1);
    let shorts: Vec<u64> = counts.windows(window).take(offsets).map(|window| window.iter().sum()).collect();
    let most = shorts.iter().copied().max().unwrap_or(0);
    let best: Vec<usize> = (0..shorts.len()).filter(|offset| shorts.get(*offset) == Some(&most)).collect();
    let offset = if best.first() == Some(&0) { 0 } else { best.get(best.len() / 2).copied().unwrap_or(0) };
    u16::try_from(offset).unwrap_or(0)
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

    fn head(kind: Kind, body: usize, length_offset: u16) -> BytesMut {
        let mut out = BytesMut::new();
        encode_head(kind, body, length_offset, &mut out).unwrap();
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
            assert_eq!(head(Kind::Frame, body, 0), bytes);
            assert_eq!(load_length(bytes, 0, MAX), Ok(Some(Length { head: bytes.len(), body })));
            for short in 0..bytes.len() {
                assert_eq!(load_length(&bytes[..short], 0, MAX), Ok(None));
            }
        }
        // C0 with a body of 16,511 bytes.
        assert_eq!(load_length(&[0xc0, 0xc0, 0x40, 0x7f], 0, MAX), Err(Error::new(ErrorKind::FrameFormNotShortest, 1)));
    }

    #[test]
    fn the_window_of_the_short_form_begins_at_the_length_offset() {
        for (length_offset, body, bytes) in [
            (100, 0, &[0x80, 0x00][..]),
            (100, 99, &[0x80, 0x63]),
            (100, 100, &[0x00]),
            (100, 227, &[0x7f]),
            (100, 228, &[0x80, 0x64]),
            (100, 16_511, &[0xbf, 0xff]),
            (100, 16_512, &[0xc0, 0xc0, 0x40, 0x80]),
            (16_383, 16_382, &[0xbf, 0xfe]),
            (16_383, 16_383, &[0x00]),
            (16_383, 16_510, &[0x7f]),
            (16_383, 16_511, &[0xbf, 0xff]),
        ] {
            assert_eq!(head(Kind::Frame, body, length_offset), bytes, "{body} bytes, length offset {length_offset}");
            let length = Length { head: bytes.len(), body };
            assert_eq!(load_length(bytes, length_offset, MAX), Ok(Some(length)));
            for short in 0..bytes.len() {
                assert_eq!(load_length(&bytes[..short], length_offset, MAX), Ok(None));
            }
        }
        // C0 with a body that the other forms hold, in the window and beside it.
        for length in [0x63, 0x64, 0x7f] {
            let error = Error::new(ErrorKind::FrameFormNotShortest, 1);
            assert_eq!(load_length(&[0xc0, length], 100, MAX), Err(error));
        }
    }

    /// Every head of one and two bytes is the only one of its length, and the one that is written.
    #[test]
    fn every_length_has_one_form() {
        for length_offset in [0, 1, 127, 128, 200, 8_000, 16_255, 16_256, 16_382, 16_383] {
            let mut seen = vec![false; LONG_FRAME as usize];
            let short = (0x00..0x80_u8).map(|byte| vec![byte]);
            let medium = (0x8000..0xc000_u16).map(|bytes| bytes.to_be_bytes().to_vec());
            for bytes in short.chain(medium) {
                let Length { head: count, body } = load_length(&bytes, length_offset, MAX).unwrap().unwrap();
                assert!(count == bytes.len() && !std::mem::replace(&mut seen[body], true));
                assert_eq!(head(Kind::Frame, body, length_offset), bytes);
            }
            assert!(seen.into_iter().all(|seen| seen));
        }
    }

    #[test]
    fn the_best_length_offset_makes_most_lengths_short() {
        let best = |bodies: &[usize]| best_length_offset(bodies.iter().copied());
        assert_eq!((best(&[]), best(&[0, 127]), best(&[20, 127, 127, 128, 128])), (0, 0, 11)); // of 1 … 20
        assert_eq!(best(&[150]), 87); // the middle of 23 … 150
        assert_eq!((best(&[10, 200, 200, 327]), best(&[10, 10, 10, 200, 327])), (200, 0));
        assert_eq!((best(&[16_511]), best(&[16_512, 20_000]), best(&[16_510])), (0, 0, 16_383));
        // No other one takes fewer bytes.
        let bodies: Vec<usize> = (0..300).map(|i| 60 + i * i % 397).collect();
        let bytes = |offset| bodies.iter().map(|body| head(Kind::Frame, *body, offset).len()).sum::<usize>();
        let least = (0..=MAX_LENGTH_OFFSET).map(bytes).min();
        assert_eq!(Some(bytes(best(&bodies))), least);
    }

    #[test]
    fn lengths_above_the_limit_are_refused_at_the_length() {
        assert_eq!(load_length(&[0x64], 0, 99), Err(Error::new(ErrorKind::ChunkTooLong, 0)));
        assert_eq!(load_length(&[0x80, 0x00], 0, 127), Err(Error::new(ErrorKind::ChunkTooLong, 0)));
        assert_eq!(load_length(&[0xc4, 0x64], 0, 99), Err(Error::new(ErrorKind::ChunkTooLong, 1)));
        // A length offset above the limit leaves the medium form alone.
        assert_eq!(load_length(&[0x00], 100, 99), Err(Error::new(ErrorKind::ChunkTooLong, 0)));
        assert_eq!(load_length(&[0x80, 0x64], 101, 99), Err(Error::new(ErrorKind::ChunkTooLong, 0)));
        assert_eq!(load_length(&[0x80, 0x63], 101, 99), Ok(Some(Length { head: 2, body: 99 })));
        let largest = [0xc1, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(load_length(&largest, 0, MAX), Err(Error::new(ErrorKind::ChunkTooLong, 1)));
        assert_eq!(load_length(&[0xc4, 0xff], 0, 99), Err(Error::new(ErrorKind::VarintReserved, 1)));
        assert_eq!(load_length(&[0xc4, 0x63], 0, 99), Ok(Some(Length { head: 2, body: 99 })));
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
