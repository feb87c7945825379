//! Stream headers and seek indices.

use js_sys::{Array, Uint8Array};
use midspan::error::{Error, ErrorKind};
use midspan::stream::Binding;
use midspan::wire::{SeekEntry, SeekIndex, StreamHeader, Tail};
use wasm_bindgen::prelude::*;

use crate::array::{byte_array, byte_arrays, bytes, number, or_null};
use crate::config;
use crate::error::Failure;
use crate::number::{count, whole};
use crate::objects;

/// A header as JavaScript's.
pub(crate) fn header_object(header: &StreamHeader) -> JsValue {
    let values = Array::new();
    for field in &header.optional {
        values.push(&byte_array(&field.value));
    }
    objects::header(
        byte_array(&header.fingerprint),
        config::mode_name(header.mode),
        config::binding_name(header.binding, header.file),
        count(header.check.bytes()),
        header.side,
        header.quality,
        header.model_version,
        header.max_frames,
        header.max_chunk_bytes,
        header.max_rewind,
        header.target_horizon,
        header.length_offset,
        or_null(header.identity.bytes().map(|bytes| byte_array(bytes))),
        or_null(header.host_digest.map(|bytes| byte_array(&bytes))),
        header.optional.iter().map(|field| field.id).collect(),
        values,
        header.format_version,
    )
}

/// The values of a header of JavaScript's.
#[wasm_bindgen]
pub struct Header {
    pub(crate) header: StreamHeader,
    pub(crate) binding: Binding,
}

#[wasm_bindgen]
impl Header {
    /// A header of these values.
    #[wasm_bindgen(constructor)]
    pub fn new(
        fingerprint: &Uint8Array,
        mode: &str,
        binding: &str,
        check: u32,
        side: bool,
        quality: u8,
        model_version: u32,
        max_frames: u32,
        max_chunk_bytes: u32,
        max_rewind: u32,
        target_horizon: Option<u32>,
        length_offset: u16,
        identity: &Uint8Array,
        host_digest: Option<Uint8Array>,
        field_ids: Vec<u32>,
        field_values: &Array,
        format_version: u8,
    ) -> Result<Header, JsValue> {
        let (binding, file) = config::binding(binding)?;
        let host_digest = host_digest.as_ref().map(bytes).transpose()?;
        let header = StreamHeader {
            format_version,
            mode: config::mode(mode)?,
            check: config::check(check)?,
            binding,
            file,
            side,
            model_version,
            quality,
            host_digest: config::optional_digest("hostDigest", host_digest.as_deref())?,
            max_frames,
            max_chunk_bytes,
            max_rewind,
            target_horizon,
            length_offset,
            identity: config::identity(&bytes(identity)?)?,
            optional: config::fields(&field_ids, byte_arrays(field_values)?),
            ..StreamHeader::new(config::digest("fingerprint", &bytes(fingerprint)?)?)
        };
        Ok(Header { header, binding })
    }
}

/// The header at the beginning of a stream.
pub(crate) fn header_of(bytes: &[u8], binding: Option<Binding>) -> Result<(StreamHeader, usize), Failure> {
    let cut = || Error::new(ErrorKind::Truncated, u64::from(count(bytes.len()))).into();
    StreamHeader::load(bytes, binding)?.ok_or_else(cut)
}

/// The header at the beginning of a stream, and how many bytes it takes.
#[wasm_bindgen(js_name = loadHeader)]
pub fn load_header(data: &Uint8Array) -> Result<JsValue, JsValue> {
    let (header, length) = header_of(&bytes(data)?, None)?;
    Ok(objects::loaded_header(header_object(&header), count(length)))
}

/// A place to join as JavaScript's.
pub(crate) fn entry_object(entry: &SeekEntry) -> Result<JsValue, Failure> {
    Ok(objects::seek_entry(number(entry.frame)?, number(entry.offset)?))
}

/// The place in a file at which to join, so as to read a frame (spec 2.10).
#[wasm_bindgen(js_name = fileSeek)]
pub fn file_seek(header: &Uint8Array, tail: &Uint8Array, file_len: f64, frame: f64) -> Result<JsValue, JsValue> {
    let (header, _) = header_of(&bytes(header)?, Some(Binding::ByteStream))?;
    let (tail, file_len) = (bytes(tail)?, whole(file_len));
    let found = tail.len();
    if usize::try_from(file_len).is_ok_and(|len| len < found) {
        return Err(Failure::Argument(format!("fileLen is {file_len}, less than the {found} of tail")).into());
    }
    let index = match SeekIndex::from_tail(&header, &tail, file_len).map_err(Failure::from)? {
        Tail::Index(index) => index,
        Tail::Short { wanted } => return Err(Failure::Short { what: "tail", wanted, found }.into()),
    };
    Ok(entry_object(&index.find(whole(frame)).unwrap_or(SeekEntry { frame: 0, offset: 0 }))?)
}

/// The text of an error's number, if it is one of the specification's.
#[wasm_bindgen(js_name = errorText)]
#[must_use]
pub fn error_text(number: u16) -> Option<String> {
    ErrorKind::from_code(number).map(|kind| kind.message().to_string())
}
