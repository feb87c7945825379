//! The seek index CB and the footer after it (spec 2.10).
//!
//! A reader of a file finds the footer in the last 12 bytes, the index at the offset in the footer
//! ([`SeekIndex::from_tail`]), and through the index a chunk at which to join the stream. The index is only a hint: the
//! chunk found there decides ([FILE-3]).

use byteorder::{ByteOrder, LE};
use bytes::{BufMut, BytesMut};

use super::check;
use super::header::StreamHeader;
use super::identity::Seed;
use super::input;
use super::kind::{self, Kind};
use super::varint;
use crate::error::{Detail, Error, ErrorKind};
use crate::number::to_u64;

/// The most entries of a seek index.
pub const MAX_ENTRIES: u32 = 1 << 20;
/// The bytes of the footer.
pub const FOOTER_BYTES: usize = 12;
/// The last four bytes of a file: "MSPX".
pub const FOOTER_MAGIC: [u8; 4] = [0x4d, 0x53, 0x50, 0x58];

/// A place where a reader may join: a context reset or a model switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeekEntry {
    /// The absolute index of the first frame after the chunk.
    pub frame: u64,
    /// The offset of the chunk's leading byte.
    pub offset: u64,
}

/// What the last bytes of a file hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// The seek index.
    Index(SeekIndex),
    /// Too little: the seek index and the footer are in the last `wanted` bytes.
    Short {
        /// How many bytes are needed, at most 21 more than the header's bound on a chunk's body.
        wanted: usize,
    },
}

/// The most bytes of a chunk before its body: the leading byte and a varint.
const HEAD_BYTES: u64 = 9;

const FRAMES: Detail = Detail::Text("a frame's index stays below 2^56");
const OFFSETS: Detail = Detail::Text("offsets ascend and lie before the seek index");

/// The body of a seek index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeekIndex {
    /// The entries, offsets strictly ascending, frames not descending.
    pub entries: Vec<SeekEntry>,
}

impl SeekIndex {
    /// Reads a body; `chunk_offset` is the offset of the chunk's leading byte.
    ///
    /// # Errors
    /// [`ErrorKind::ControlCrcMismatch`], [`ErrorKind::SeekIndexOrder`], [`ErrorKind::FieldOutOfRange`],
    /// [`ErrorKind::ChunkLayout`], and those of a varint.
    pub fn load(body: &[u8], chunk_offset: u64, seed: Seed) -> Result<SeekIndex, Error> {
        let fields = check::control_fields(Kind::SeekIndex, seed, body)?;
        input::whole(fields, ErrorKind::ChunkLayout, |input| {
            let (mut input, count) = input::varint_within("seek index entries", 0, MAX_ENTRIES)(input)?;
            let mut entries = Vec::new();
            let mut last = SeekEntry { frame: 0, offset: 0 };
            for _ in 0..count {
                // [FILE-2] Offsets MUST ascend strictly and lie below the CB chunk, frames MUST NOT descend (error
                // 317).
                let (at_offset, delta) = input::varint(input)?;
                let frame = last.frame.saturating_add(delta);
                if frame > varint::MAX {
                    return input::fail_with(ErrorKind::SeekIndexOrder, input, FRAMES);
                }
                let (rest, delta) = input::varint(at_offset)?;
                let offset = last.offset.saturating_add(delta);
                if delta == 0 || offset >= chunk_offset {
                    return input::fail_with(ErrorKind::SeekIndexOrder, at_offset, OFFSETS);
                }
                last = SeekEntry { frame, offset };
                entries.push(last);
                input = rest;
            }
            Ok((input, SeekIndex { entries }))
        })
    }

    /// Appends a body.
    ///
    /// # Errors
    /// [`ErrorKind::SeekIndexOrder`] for entries out of order, [`ErrorKind::FieldOutOfRange`] for too many.
    pub fn encode(&self, seed: Seed, out: &mut BytesMut) -> Result<(), Error> {
        let start = out.len();
        let count = to_u64(self.entries.len());
        if count > u64::from(MAX_ENTRIES) {
            let detail = input::range("seek index entries", 0, MAX_ENTRIES, count);
            return Err(Error::of_call(ErrorKind::FieldOutOfRange).with(detail));
        }
        varint::encode(count, out)?;
        let mut last = SeekEntry { frame: 0, offset: 0 };
        for entry in &self.entries {
            let deltas = (entry.frame.checked_sub(last.frame), entry.offset.checked_sub(last.offset));
            let (Some(frame), Some(offset @ 1..)) = deltas else {
                return Err(Error::of_call(ErrorKind::SeekIndexOrder).with_detail("entries ascend"));
            };
            varint::encode(frame, out)?;
            varint::encode(offset, out)?;
            last = *entry;
        }
        check::encode_control_crc(Kind::SeekIndex, seed, start, out);
        Ok(())
    }

    /// The last entry whose frame is not above `frame`.
    #[must_use]
    pub fn find(&self, frame: u64) -> Option<SeekEntry> {
        let behind = self.entries.partition_point(|entry| entry.frame <= frame);
        self.entries.get(behind.checked_sub(1)?).copied()
    }

    /// Reads the seek index in the last bytes of a file of `file_len` bytes. 12 bytes are enough to learn how many are
    /// needed. The offsets of errors count from the first byte of the stream header.
    ///
    /// # Errors
    /// [`ErrorKind::NotAvailable`] if the header announces no seek index, [`ErrorKind::WrongShape`] for a tail longer
    /// than the file, [`ErrorKind::BadFooter`], and those of [`SeekIndex::load_chunk`].
    pub fn from_tail(header: &StreamHeader, tail: &[u8], file_len: u64) -> Result<Tail, Error> {
        if !header.file {
            return Err(
                Error::of_call(ErrorKind::NotAvailable).with_detail("the stream header announces no seek index")
            );
        }
        if file_len < to_u64(tail.len()) {
            return Err(Error::of_call(ErrorKind::WrongShape).with_detail("the file is shorter than its tail"));
        }
        let footer_offset = file_len.saturating_sub(to_u64(FOOTER_BYTES));
        let (before, footer) = match tail.split_last_chunk::<FOOTER_BYTES>() {
            Some((before, footer)) => (before, &footer[..]),
            None if file_len >= to_u64(FOOTER_BYTES) => return Ok(Tail::Short { wanted: FOOTER_BYTES }),
            // The whole file is too short for a footer.
            None => (&[][..], tail),
        };
        let chunk_offset = SeekIndex::from_footer(footer).map_err(|error| error.shifted(footer_offset))?;
        // The footer is a stranger's number: the caller is not sent for more bytes than the header allows.
        let most = u64::from(header.max_chunk_bytes).saturating_add(HEAD_BYTES);
        let len = footer_offset.checked_sub(chunk_offset).filter(|len| (1..=most).contains(len));
        let len = len.and_then(|len| usize::try_from(len).ok()).ok_or_else(|| {
            Error::new(ErrorKind::BadFooter, footer_offset).with_detail("it points to no seek index before it")
        })?;
        let Some(begin) = before.len().checked_sub(len) else {
            return Ok(Tail::Short { wanted: len.saturating_add(FOOTER_BYTES) });
        };
        let chunk = before.get(begin..).unwrap_or(&[]);
        SeekIndex::load_chunk(chunk, chunk_offset, header.max_chunk_bytes, header.identity.seed()).map(Tail::Index)
    }

    /// Reads the whole chunk at `chunk_offset` of a file (as [`SeekIndex::from_footer`] gives it); `input` begins
    /// there. The offsets of errors count from the first byte of the stream header.
    ///
    /// # Errors
    /// Those of [`SeekIndex::load`], [`ErrorKind::SeekIndexMisplaced`] for another kind,
    /// [`ErrorKind::ChunkTooLong`] above `max_chunk_bytes`, [`ErrorKind::Truncated`].
    pub fn load_chunk(input: &[u8], chunk_offset: u64, max_chunk_bytes: u32, seed: Seed) -> Result<SeekIndex, Error> {
        let truncated = Error::new(ErrorKind::Truncated, to_u64(input.len()));
        let at = |error: Error| error.shifted(chunk_offset);
        match input.first() {
            None => return Err(at(truncated)),
            Some(leading) if *leading != Kind::SeekIndex.byte() => {
                return Err(Error::new(ErrorKind::SeekIndexMisplaced, chunk_offset));
            }
            Some(_) => {}
        }
        // A length offset is for one-frame chunks alone.
        let length = kind::load_length(input, 0, max_chunk_bytes).map_err(at)?.ok_or(at(truncated))?;
        let end = length.head.saturating_add(length.body);
        let body = input.get(length.head..end).ok_or(at(truncated))?;
        let head = to_u64(length.head);
        SeekIndex::load(body, chunk_offset, seed).map_err(|error| at(error.shifted(head)))
    }

    /// Reads the offset of the seek index from the last 12 bytes of a file.
    ///
    /// # Errors
    /// [`ErrorKind::BadFooter`] if `footer` is not 12 bytes long or does not end in "MSPX". The offset counts within
    /// `footer`.
    pub fn from_footer(footer: &[u8]) -> Result<u64, Error> {
        match footer.split_first_chunk::<8>() {
            Some((offset, magic)) if *magic == FOOTER_MAGIC => Ok(LE::read_u64(offset)),
            Some(_) => Err(Error::new(ErrorKind::BadFooter, 8).with_detail("it does not end in MSPX")),
            None => Err(Error::new(ErrorKind::BadFooter, 0).with_detail("it is shorter than 12 bytes")),
        }
    }

    /// Appends the footer of a file whose seek index is at `chunk_offset`.
    pub fn encode_footer(chunk_offset: u64, out: &mut BytesMut) {
        out.put_u64_le(chunk_offset);
        out.put_slice(&FOOTER_MAGIC);
    }
}

/// Checks the footer after a seek index at `chunk_offset`.
///
/// # Errors
/// [`ErrorKind::BadFooter`]: at offset 0 for a wrong offset of the seek index, at 8 for a wrong magic.
pub fn verify_footer(footer: &[u8; FOOTER_BYTES], chunk_offset: u64) -> Result<(), Error> {
    // [FILE-1] A stream with flag bit 5 MUST go on with a CB chunk right behind the end chunk and then the footer; any
    // other byte there is error 305, a wrong footer error 316.
    let found = LE::read_u64(footer);
    if found != chunk_offset {
        let detail = Detail::Number { what: "offset of the seek index", wanted: chunk_offset, found };
        return Err(Error::new(ErrorKind::BadFooter, 0).with(detail));
    }
    SeekIndex::from_footer(footer).map(|_| ())
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

    fn index(entries: &[(u64, u64)]) -> SeekIndex {
        SeekIndex { entries: entries.iter().map(|&(frame, offset)| SeekEntry { frame, offset }).collect() }
    }

    #[test]
    fn an_annotated_seek_index() {
        let index = index(&[(0, 50), (300, 51), (300, 1_000)]);
        let mut out = BytesMut::new();
        index.encode(Seed::NONE, &mut out).unwrap();
        // count; 0, 50; 300, 1; 0, 949 = 0x3b5
        assert_eq!(out[..9], [3, 0, 50, 0x81, 0x2c, 1, 0, 0x83, 0xb5]);
        assert_eq!(out[9..], check::control_crc(Kind::SeekIndex, Seed::NONE, &out[..9]).to_le_bytes());
        assert_eq!(SeekIndex::load(&out, 1_001, Seed::NONE), Ok(index.clone()));
        assert_eq!(SeekIndex::load(&out, 1_000, Seed::NONE), Err(Error::new(ErrorKind::SeekIndexOrder, 7)));
        assert_eq!(index.find(299), Some(SeekEntry { frame: 0, offset: 50 }));
        assert_eq!(index.find(300), Some(SeekEntry { frame: 300, offset: 1_000 }));
        assert_eq!(SeekIndex::default().find(300), None);
    }

    #[test]
    fn the_tail_of_a_file_gives_the_index() {
        let header = StreamHeader { file: true, ..StreamHeader::new([0; 32]) };
        let (seed, index) = (header.identity.seed(), index(&[(0, 50), (300, 60)]));
        let (mut body, mut file) = (BytesMut::new(), BytesMut::from(&[0; 100][..]));
        index.encode(seed, &mut body).unwrap();
        kind::encode_head(Kind::SeekIndex, body.len(), 0, &mut file).unwrap();
        file.extend_from_slice(&body);
        SeekIndex::encode_footer(100, &mut file);
        let len = file.len();
        let tail = |from: usize| SeekIndex::from_tail(&header, &file[from..], len as u64);
        for from in [0, 1, 100] {
            assert_eq!(tail(from), Ok(Tail::Index(index.clone())), "{from}");
        }
        assert_eq!(tail(101), Ok(Tail::Short { wanted: len - 100 }));
        assert_eq!(tail(len - 12), Ok(Tail::Short { wanted: len - 100 }));
        assert_eq!(tail(len - 11), Ok(Tail::Short { wanted: 12 }));

        let refused = |header: &StreamHeader, file: &[u8], len| SeekIndex::from_tail(header, file, len).unwrap_err();
        let none = StreamHeader::new([0; 32]);
        assert_eq!(refused(&none, &file, len as u64).kind(), ErrorKind::NotAvailable);
        assert_eq!(refused(&header, &file, len as u64 - 1).kind(), ErrorKind::WrongShape);
        assert_eq!(refused(&header, b"MSPX", 4), Error::new(ErrorKind::BadFooter, 0));
        // Places that the footer may not name: the footer itself, after it, and further back than a chunk may be long.
        let at = |place: u64| {
            let mut footer = BytesMut::new();
            SeekIndex::encode_footer(place, &mut footer);
            footer
        };
        for (place, file_len) in [(88, 100), (89, 100), (u64::MAX, 100), (0, 1 << 40), (0, u64::MAX)] {
            let error = Error::new(ErrorKind::BadFooter, file_len - 12);
            assert_eq!(refused(&header, &at(place), file_len), error, "{place}");
        }
        let most = u64::from(header.max_chunk_bytes) + HEAD_BYTES;
        let wanted = most as usize + FOOTER_BYTES;
        assert_eq!(SeekIndex::from_tail(&header, &at(0), most + 12), Ok(Tail::Short { wanted }));
        assert_eq!(refused(&header, &at(0), most + 13).kind(), ErrorKind::BadFooter);
    }

    #[test]
    fn what_is_refused_and_where() {
        let load = |fields: &[u8]| {
            let mut out = BytesMut::from(fields);
            check::encode_control_crc(Kind::SeekIndex, Seed::NONE, 0, &mut out);
            SeekIndex::load(&out, 1_000, Seed::NONE).unwrap_err()
        };
        assert_eq!(load(&[]), Error::new(ErrorKind::ChunkLayout, 0));
        assert_eq!(load(&[1]), Error::new(ErrorKind::ChunkLayout, 1));
        assert_eq!(load(&[1, 0, 0]), Error::new(ErrorKind::SeekIndexOrder, 2));
        assert_eq!(load(&[1, 0, 1, 9]), Error::new(ErrorKind::ChunkLayout, 3));
        assert_eq!(load(&[0xe0, 0x10, 0x00, 0x01]), Error::new(ErrorKind::VarintNotShortest, 0));
        assert_eq!(load(&[0xd0, 0x00, 0x00]), Error::new(ErrorKind::ChunkLayout, 3)); // 2^20
        assert_eq!(load(&[0xd0, 0x00, 0x01]), Error::new(ErrorKind::FieldOutOfRange, 0));
        assert_eq!(load(&[0xe0, 0x20, 0x00, 0x00]), Error::new(ErrorKind::FieldOutOfRange, 0)); // 2^21
        let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(load(&[&[2][..], &huge, &[1], &huge, &[1]].concat()), Error::new(ErrorKind::SeekIndexOrder, 10));
        let mut out = BytesMut::new();
        assert!(index(&[(5, 50), (4, 60)]).encode(Seed::NONE, &mut out).is_err());
        assert!(index(&[(5, 50), (5, 50)]).encode(Seed::NONE, &mut out).is_err());
    }

    #[test]
    fn footer_and_chunk() {
        let mut file = BytesMut::from(&b"stream"[..]);
        let mut body = BytesMut::new();
        index(&[(7, 3)]).encode(Seed::NONE, &mut body).unwrap();
        kind::encode_head(Kind::SeekIndex, body.len(), 0, &mut file).unwrap();
        file.put_slice(&body);
        SeekIndex::encode_footer(6, &mut file);
        let footer = file.last_chunk::<12>().unwrap();
        assert_eq!(footer, b"\x06\0\0\0\0\0\0\0MSPX");
        assert_eq!(SeekIndex::from_footer(footer), Ok(6));
        assert_eq!(verify_footer(footer, 6), Ok(()));
        assert_eq!(verify_footer(footer, 7), Err(Error::new(ErrorKind::BadFooter, 0)));
        assert_eq!(verify_footer(b"\x06\0\0\0\0\0\0\0MSPY", 6), Err(Error::new(ErrorKind::BadFooter, 8)));
        assert_eq!(SeekIndex::load_chunk(&file[6..], 6, 99, Seed::NONE), Ok(index(&[(7, 3)])));
        assert_eq!(SeekIndex::load_chunk(&file[6..9], 6, 99, Seed::NONE), Err(Error::new(ErrorKind::Truncated, 9)));
        assert_eq!(
            SeekIndex::load_chunk(&file[5..], 5, 99, Seed::NONE),
            Err(Error::new(ErrorKind::SeekIndexMisplaced, 5))
        );
        assert_eq!(SeekIndex::load_chunk(&file[6..], 6, 3, Seed::NONE), Err(Error::new(ErrorKind::ChunkTooLong, 7)));
    }
}
