//! The stream header (spec 2.2).

use bytes::{BufMut, Bytes, BytesMut};
use nom::bytes::streaming::tag;
use nom::number::streaming::{le_u32, u8 as streaming_byte};

use super::check::CheckWidth;
use super::identity::Identity;
use super::input::{self, Parsed, Problem, array, byte, part};
use super::target::EARLY_FRAMES;
use super::varint;
use crate::error::{Detail, Error, ErrorKind};
use crate::number::to_u64;

/// The first four bytes of a stream: "MSP", 0x9E.
pub const MAGIC: [u8; 4] = [0x4d, 0x53, 0x50, 0x9e];
/// The format version that this library writes, and the highest minimum reader version that it can read.
pub const VERSION: u8 = 1;
/// The longest body, in bytes.
pub const MAX_BODY: u32 = 4_096;
/// The shortest body that is allowed, in bytes.
pub const MIN_BODY: u32 = 40;
/// The largest *max frames per chunk*, *max rewind* and number of seek index entries.
pub const MAX_FRAMES: u32 = 1 << 20;
/// The smallest *max chunk bytes*.
pub const MIN_CHUNK_BYTES: u32 = 72;
/// The largest *length offset*: with it the medium one-frame form still reaches [`super::kind::LONG_FRAME`].
pub const MAX_LENGTH_OFFSET: u16 = 16_383;
/// The largest *max chunk bytes*.
pub const MAX_CHUNK_BYTES: u32 = 1 << 30;
/// The largest *max rewind*.
pub const MAX_REWIND: u32 = 1 << 20;
/// The largest *target horizon*: with the early bound it makes 2^15 frames, so that 16 bits name a frame (spec 6.5).
pub const MAX_HORIZON: u32 = (1 << 15) - EARLY_FRAMES;

/// How W and Y of a frame are coded: flag bits 0–1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// W and Y of a chunk share one coder.
    #[default]
    Joined,
    /// Hyper-prior chunks and target chunks, each decodable by itself.
    Layered,
}

/// Who delimits the chunks (spec 2.1).
///
/// The file binding is a byte stream whose header has [`StreamHeader::file`] set; a reader of byte streams reads both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Binding {
    /// The stream itself: byte stream and file.
    #[default]
    ByteStream,
    /// The transport, which delivers each message whole.
    Message,
}

/// An optional field of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionalField {
    /// The id. It is even: version 1 has one critical field, and that is [`StreamHeader::identity`].
    pub id: u32,
    /// The value; a reader ignores it if it does not know the id.
    pub value: Bytes,
}

impl OptionalField {
    /// The id of the producer: UTF-8 text, information only.
    pub const PRODUCER: u32 = 2;

    /// The `n`th id reserved for grease, 40 + 62·n; `None` above 2^32 − 1.
    #[must_use]
    pub const fn grease_id(n: u32) -> Option<u32> {
        match n.checked_mul(62) {
            Some(id) => id.checked_add(40),
            None => None,
        }
    }
}

/// What a stream says about itself before its first chunk (spec 2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// The format version: [`VERSION`] in what this library writes, possibly higher in what it reads.
    pub format_version: u8,
    /// The coding mode.
    pub mode: Mode,
    /// The check width of frame chunks.
    pub check: CheckWidth,
    /// The binding that the stream is written in: flag bit 6. [`crate::stream::Writer::new`] sets it.
    pub binding: Binding,
    /// File binding: a seek index follows the end chunk.
    pub file: bool,
    /// Side flag, flag bit 7: the stream's models take side indices (spec 6.12).
    pub side: bool,
    /// The fingerprint of the model (spec 4.6).
    pub fingerprint: [u8; 32],
    /// The model's version; information only.
    pub model_version: u32,
    /// The quality index at the start.
    pub quality: u8,
    /// SHA-256 that identifies the host model's weights (spec 4.7).
    pub host_digest: Option<[u8; 32]>,
    /// The most frames of a chunk: 1 … 2^20.
    pub max_frames: u32,
    /// The most bytes of a chunk's body: 72 … 2^30.
    pub max_chunk_bytes: u32,
    /// The most frames that a rewind goes back: 0 … 2^20.
    pub max_rewind: u32,
    /// The most frames that may wait for their target: 1 … 28,672; only in layered mode.
    pub target_horizon: Option<u32>,
    /// The length offset at the start, 0 … 16,383 bytes: in a byte stream the lengths from here on, 128 of them, take
    /// one byte (spec 2.3).
    pub length_offset: u16,
    /// Distinguishes the stream from others; every check, crc and digest starts from it.
    pub identity: Identity,
    /// Optional fields in strictly ascending order of id, unknown ones included. The identity is not in this list, but
    /// is written between them at its place by id.
    pub optional: Vec<OptionalField>,
}

impl StreamHeader {
    /// A joined stream of the model with this fingerprint: 8-bit checks, at most 256 frames and 4 MiB per chunk, no
    /// rewind, no identity. Set other fields as needed.
    #[must_use]
    pub fn new(fingerprint: [u8; 32]) -> StreamHeader {
        StreamHeader {
            format_version: VERSION,
            mode: Mode::Joined,
            check: CheckWidth::One,
            binding: Binding::ByteStream,
            file: false,
            side: false,
            fingerprint,
            model_version: 0,
            quality: 0,
            host_digest: None,
            max_frames: 256,
            max_chunk_bytes: 1 << 22,
            max_rewind: 0,
            target_horizon: None,
            length_offset: 0,
            identity: Identity::none(),
            optional: Vec::new(),
        }
    }

    /// Bytes that the header holds in addition to its own size.
    pub(crate) fn memory_bytes(&self) -> usize {
        let places = self.optional.capacity().saturating_mul(size_of::<OptionalField>());
        self.optional.iter().map(|field| field.value.len()).fold(places, usize::saturating_add)
    }

    /// The producer's text, if there is one and it is UTF-8.
    #[must_use]
    pub fn producer(&self) -> Option<&str> {
        let field = self.optional.iter().find(|field| field.id == OptionalField::PRODUCER)?;
        std::str::from_utf8(&field.value).ok()
    }

    /// Sets an optional field. It goes to its place by id, and replaces a field with the same id.
    pub fn set_optional(&mut self, id: u32, value: impl Into<Bytes>) {
        let field = OptionalField { id, value: value.into() };
        match self.optional.binary_search_by_key(&id, |field| field.id) {
            Ok(place) => {
                if let Some(old) = self.optional.get_mut(place) {
                    *old = field;
                }
            }
            Err(place) => self.optional.insert(place, field),
        }
    }

    /// Reads the header at the start of `input`. Returns the header and its length in bytes, or `None` if it needs more
    /// input. If `binding` is given, the header must be of this binding.
    ///
    /// # Errors
    /// The numbers 101 to 210 ([`ErrorKind`]).
    pub fn load(input: &[u8], binding: Option<Binding>) -> Result<Option<(StreamHeader, usize)>, Error> {
        let (before_body, length) = match prelude(input) {
            Ok((rest, length)) => (input.len().saturating_sub(rest.len()), length),
            Err(nom::Err::Incomplete(_)) => return Ok(None),
            Err(error) => return Err(input::located(error, input, ErrorKind::BadMagic)),
        };
        let Some(end) = usize::try_from(length).ok().and_then(|length| before_body.checked_add(length)) else {
            return Ok(None);
        };
        let Some((covered, behind)) = input.split_at_checked(end) else {
            return Ok(None);
        };
        let rest = match le_u32::<_, Problem>(behind) {
            // [HDR-4] The CRC MUST be checked before any field of the body is used (error 204).
            Ok((rest, crc)) if crc == crc32fast::hash(covered) || super::check::BYPASS => rest,
            Ok((_, found)) => {
                let detail = Detail::Crc { wanted: crc32fast::hash(covered), found };
                return Err(Error::new(ErrorKind::HeaderCrcMismatch, to_u64(end)).with(detail));
            }
            Err(_) => return Ok(None),
        };
        let body = Bytes::copy_from_slice(covered.get(before_body..).unwrap_or(&[]));
        let mut header = input::whole(&body, ErrorKind::HeaderLayout, |input| fields(input, &body, binding))
            .map_err(|error| error.shifted(to_u64(before_body)))?;
        header.format_version = covered.get(4).copied().unwrap_or(VERSION);
        Ok(Some((header, input.len().saturating_sub(rest.len()))))
    }

    /// Appends the header.
    ///
    /// # Errors
    /// [`ErrorKind::BadConfig`] with a detail for a field that is out of range; `out` is then unchanged.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), Error> {
        self.validate()?;
        let mut body = BytesMut::with_capacity(128);
        let mode = match self.mode {
            Mode::Joined => 0,
            Mode::Layered => 1,
        };
        let check = match self.check {
            CheckWidth::None => 0,
            CheckWidth::One => 1 << 2,
            CheckWidth::Two => 2 << 2,
        };
        let digest = u8::from(self.host_digest.is_some()) << 4;
        let binding = u8::from(self.file) << 5 | u8::from(self.binding == Binding::Message) << 6;
        body.put_u8(mode | check | digest | binding | u8::from(self.side) << 7);
        body.put_u8(1);
        body.put_slice(&self.fingerprint);
        varint::encode(u64::from(self.model_version), &mut body)?;
        body.put_u8(self.quality);
        if let Some(digest) = &self.host_digest {
            body.put_slice(digest);
        }
        varint::encode(u64::from(self.max_frames), &mut body)?;
        varint::encode(u64::from(self.max_chunk_bytes), &mut body)?;
        varint::encode(u64::from(self.max_rewind), &mut body)?;
        if let Some(horizon) = self.target_horizon {
            varint::encode(u64::from(horizon), &mut body)?;
        }
        varint::encode(u64::from(self.length_offset), &mut body)?;
        for field in self.optional_fields() {
            varint::encode(u64::from(field.id), &mut body)?;
            varint::encode(to_u64(field.value.len()), &mut body)?;
            body.put_slice(&field.value);
        }
        let length = to_u64(body.len());
        if length > u64::from(MAX_BODY) {
            return Err(setting("header bytes, optional fields included,", MIN_BODY, MAX_BODY, length));
        }
        let start = out.len();
        out.put_slice(&MAGIC);
        out.put_u8(self.format_version);
        out.put_u8(VERSION);
        varint::encode(to_u64(body.len()), out)?;
        out.put_slice(&body);
        let crc = crc32fast::hash(out.get(start..).unwrap_or(&[]));
        out.put_u32_le(crc);
        Ok(())
    }

    /// The optional fields as they are written: the identity is at its place among the others, by its id.
    fn optional_fields(&self) -> impl Iterator<Item = OptionalField> {
        let before = self.optional.partition_point(|field| field.id < Identity::FIELD);
        let (first, rest) = self.optional.split_at(before);
        first.iter().cloned().chain(self.identity.encode()).chain(rest.iter().cloned())
    }

    fn validate(&self) -> Result<(), Error> {
        match (self.mode, self.target_horizon) {
            (Mode::Joined, Some(_)) => return Err(bad("target_horizon is for layered mode")),
            (Mode::Layered, None) => return Err(bad("layered mode takes a target_horizon")),
            _ => {}
        }
        for (name, low, high, value) in [
            ("format_version", 1, u32::from(u8::MAX), u32::from(self.format_version)),
            ("max_frames", 1, MAX_FRAMES, self.max_frames),
            ("max_chunk_bytes", MIN_CHUNK_BYTES, MAX_CHUNK_BYTES, self.max_chunk_bytes),
            ("max_rewind", 0, MAX_REWIND, self.max_rewind),
            ("target_horizon", 1, MAX_HORIZON, self.target_horizon.unwrap_or(1)),
            ("length_offset", 0, MAX_LENGTH_OFFSET.into(), self.length_offset.into()),
        ] {
            if !(low..=high).contains(&value) {
                return Err(setting(name, low, high, value.into()));
            }
        }
        if !self.optional.windows(2).all(|pair| matches!(pair, [a, b] if a.id < b.id)) {
            return Err(bad("the ids of optional fields ascend"));
        }
        if self.file && self.binding == Binding::Message {
            return Err(bad("a file is a byte stream"));
        }
        if self.optional.iter().any(|field| field.id & 1 == 1) {
            return Err(bad(
                "the ids of optional fields are even: the only critical one, the identity's, has a place of its own",
            ));
        }
        Ok(())
    }

    /// The offset of the fingerprint from the first byte of the header.
    #[must_use]
    pub fn fingerprint_offset(&self) -> u64 {
        let optional = self.optional_fields().fold(0_u64, |sum, field| {
            let value = to_u64(field.value.len());
            let head = varint::len(u64::from(field.id)).saturating_add(varint::len(value));
            sum.saturating_add(value).saturating_add(u64::try_from(head).unwrap_or(0))
        });
        // The body length takes a second byte from 128 on.
        let varints = [
            Some(self.max_frames),
            Some(self.max_chunk_bytes),
            Some(self.max_rewind),
            self.target_horizon,
            Some(self.length_offset.into()),
        ];
        let fixed = varints
            .into_iter()
            .flatten()
            .fold(34_u64, |sum, value| sum.saturating_add(u64::try_from(varint::len(u64::from(value))).unwrap_or(0)));
        let version = u64::try_from(varint::len(u64::from(self.model_version))).unwrap_or(0);
        let digest = if self.host_digest.is_some() { 33 } else { 1 }; // and the quality
        let body = fixed.saturating_add(optional).saturating_add(version).saturating_add(digest);
        if body < 128 { 9 } else { 10 }
    }

    /// The offset of the flags from the first byte of the header.
    #[must_use]
    pub fn flags_offset(&self) -> u64 {
        // Flags and track count come before the fingerprint.
        self.fingerprint_offset().saturating_sub(2)
    }

    /// The offset of the quality index from the first byte of the header; the host digest is one byte later.
    #[must_use]
    pub fn quality_offset(&self) -> u64 {
        let version = u64::try_from(varint::len(u64::from(self.model_version))).unwrap_or(0);
        self.fingerprint_offset().saturating_add(32).saturating_add(version)
    }
}

fn bad(detail: &'static str) -> Error {
    Error::of_call(ErrorKind::BadConfig).with_detail(detail)
}

fn setting(name: &'static str, low: u32, high: u32, found: u64) -> Error {
    let detail = Detail::Setting { name, low: low.into(), high: high.into(), found };
    Error::of_call(ErrorKind::BadConfig).with(detail)
}

/// The facts for a reader of the other binding: the binding that the header states.
pub(crate) fn stated(binding: Binding) -> Detail {
    Detail::Text(match binding {
        Binding::ByteStream => "the header states a byte stream",
        Binding::Message => "the header states messages",
    })
}

/// Reads magic, versions and body length. Each is judged as soon as it has arrived.
fn prelude(input: &[u8]) -> Parsed<'_, u32> {
    // [HDR-1] A reader MUST refuse a stream that does not begin with the magic (error 201), as soon as the first
    // differing byte is there.
    if let Some((_, found)) = MAGIC.iter().zip(input).find(|(wanted, found)| wanted != found) {
        return input::fail_with(
            ErrorKind::BadMagic,
            input,
            Detail::Byte { what: "not a Midspan stream:", found: *found },
        );
    }
    let (input, _) = tag(&MAGIC[..])(input)?;
    // [HDR-2] A format version of 0, or a minimum reader version of 0 or above the format version, is error 203. A
    // reader MUST refuse a minimum reader version above its own (error 202). A format version above 1 with minimum
    // reader version 1 MUST be read as version 1.
    let (at_minimum, version) = streaming_byte(input)?;
    if version == 0 {
        return input::fail_with(ErrorKind::BadVersion, input, Detail::Text("a format version of 0"));
    }
    let (at_length, minimum) = streaming_byte(at_minimum)?;
    if minimum == 0 || minimum > version {
        let detail = input::range("minimum reader version", 1, version.into(), minimum.into());
        return input::fail_with(ErrorKind::BadVersion, at_minimum, detail);
    }
    if minimum > VERSION {
        let detail = Detail::Number { what: "reader version", wanted: VERSION.into(), found: minimum.into() };
        return input::fail_with(ErrorKind::ReaderTooOld, at_minimum, detail);
    }
    // [HDR-3] A body length outside its range is error 103; the reader MUST refuse it before it waits for the body.
    match varint::load(at_length) {
        Ok(None) => Err(nom::Err::Incomplete(nom::Needed::Unknown)),
        Ok(Some(_)) => input::varint_within("header body length", MIN_BODY, MAX_BODY)(at_length),
        Err(error) => input::forward(error, at_length),
    }
}

/// Reads the body. [HDR-8] A body that ends inside a field, or a field that exceeds the body, is error 209.
fn fields<'a>(at_flags: &'a [u8], body: &Bytes, expected: Option<Binding>) -> Parsed<'a, StreamHeader> {
    // [HDR-5] Reserved flag bits and reserved values of a flag field MUST be refused (error 205).
    // [HDR-10] Flag bits 5 and 6 together are error 205.
    let (at_tracks, flags) = byte(at_flags)?;
    let reserved = Detail::Byte { what: "flags", found: flags };
    let mode = match flags & 0b11 {
        0 => Mode::Joined,
        1 => Mode::Layered,
        _ => return input::fail_with(ErrorKind::ReservedHeaderBits, at_flags, reserved),
    };
    let check = match flags >> 2 & 0b11 {
        0 => CheckWidth::None,
        1 => CheckWidth::One,
        2 => CheckWidth::Two,
        _ => return input::fail_with(ErrorKind::ReservedHeaderBits, at_flags, reserved),
    };
    let file = flags & 1 << 5 != 0;
    let binding = if flags & 1 << 6 != 0 { Binding::Message } else { Binding::ByteStream };
    let side = flags & 1 << 7 != 0;
    if file && binding == Binding::Message {
        let detail = Detail::Text("the file binding in messages");
        return input::fail_with(ErrorKind::ReservedHeaderBits, at_flags, detail);
    }
    // [HDR-13] Flag bit 6 MUST be set in the message binding and clear in the others. A reader MUST refuse a stream of
    // the other binding (error 210).
    if expected.is_some_and(|expected| expected != binding) {
        return input::fail_with(ErrorKind::WrongBinding, at_flags, stated(binding));
    }
    // [HDR-6] A track count other than 1 MUST be refused (error 206).
    let (input, tracks) = byte(at_tracks)?;
    if tracks != 1 {
        let detail = Detail::Number { what: "tracks", wanted: 1, found: tracks.into() };
        return input::fail_with(ErrorKind::TrackCount, at_tracks, detail);
    }
    let (input, fingerprint) = array(input)?;
    let (input, model_version) = input::varint_u32("model version")(input)?;
    let (input, quality) = byte(input)?;
    let (input, host_digest) = if flags & 1 << 4 != 0 {
        let (input, digest) = array(input)?;
        (input, Some(digest))
    } else {
        (input, None)
    };
    // [HDR-9] A limit that exceeds the reader's own configured limit is not an error in itself.
    let (input, max_frames) = input::varint_within("max frames per chunk", 1, MAX_FRAMES)(input)?;
    let (input, max_chunk_bytes) = input::varint_within("max chunk bytes", MIN_CHUNK_BYTES, MAX_CHUNK_BYTES)(input)?;
    let (input, max_rewind) = input::varint_within("max rewind", 0, MAX_REWIND)(input)?;
    let (input, target_horizon) = match mode {
        Mode::Joined => (input, None),
        Mode::Layered => {
            let (input, horizon) = input::varint_within("target horizon", 1, MAX_HORIZON)(input)?;
            (input, Some(horizon))
        }
    };
    let (input, length_offset) = length_offset(input)?;
    let (input, (identity, optional)) = optional_fields(input, body)?;
    let header = StreamHeader {
        format_version: VERSION,
        mode,
        check,
        binding,
        file,
        side,
        fingerprint,
        model_version,
        quality,
        host_digest,
        max_frames,
        max_chunk_bytes,
        max_rewind,
        target_horizon,
        length_offset,
        identity,
        optional,
    };
    Ok((input, header))
}

/// Reads the length offset, 0 … 16,383, of the header, a context reset, a quality switch or a model switch ([CHUNK-8]).
pub(super) fn length_offset(input: &[u8]) -> Parsed<'_, u16> {
    let (rest, offset) = input::varint_within("length offset", 0, MAX_LENGTH_OFFSET.into())(input)?;
    // The range was checked.
    Ok((rest, u16::try_from(offset).unwrap_or(MAX_LENGTH_OFFSET)))
}

/// Appends a length offset.
///
/// # Errors
/// [`ErrorKind::FieldOutOfRange`] above 16,383.
pub(super) fn encode_length_offset(length_offset: u16, out: &mut BytesMut) -> Result<(), Error> {
    if length_offset > MAX_LENGTH_OFFSET {
        let detail = input::range("length offset", 0, MAX_LENGTH_OFFSET.into(), length_offset.into());
        return Err(Error::of_call(ErrorKind::FieldOutOfRange).with(detail));
    }
    varint::encode(u64::from(length_offset), out)
}

fn optional_fields<'a>(mut input: &'a [u8], body: &Bytes) -> Parsed<'a, (Identity, Vec<OptionalField>)> {
    let mut optional: Vec<OptionalField> = Vec::new();
    let mut identity = Identity::none();
    let mut last = None;
    while !input.is_empty() {
        // [HDR-7] Optional fields MUST stand in strictly ascending order of id (error 207). An unknown id with the
        // critical bit MUST be refused (error 208); one without it MUST be ignored.
        let (at_length, id) = input::varint_u32("id of an optional field")(input)?;
        if let Some(last) = last.filter(|last: &u32| *last >= id) {
            let detail = input::range("id of an optional field", last.saturating_add(1), u32::MAX, id.into());
            return input::fail_with(ErrorKind::OptionalFieldOrder, input, detail);
        }
        last = Some(id);
        if id & 1 == 1 && id != Identity::FIELD {
            let detail = Detail::Id { what: "field", found: id.into() };
            return input::fail_with(ErrorKind::UnknownCriticalField, input, detail);
        }
        let (at_value, length) = input::varint(at_length)?;
        let split = usize::try_from(length).ok().and_then(|length| at_value.split_at_checked(length));
        let Some((value, rest)) = split else {
            return input::cut(at_length);
        };
        input = rest;
        if id == Identity::FIELD {
            // [HDR-11] The identity has eight bytes; another length is error 209 at the length.
            match Identity::load(value) {
                Some(found) => identity = found,
                None => {
                    let detail = Detail::Number { what: "bytes of the identity", wanted: 8, found: length };
                    return input::fail_with(ErrorKind::HeaderLayout, at_length, detail);
                }
            }
            continue;
        }
        let start = body.len().saturating_sub(at_value.len());
        optional.push(OptionalField { id, value: part(body, start, start.saturating_add(value.len())) });
    }
    Ok((input, (identity, optional)))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]
mod tests;
