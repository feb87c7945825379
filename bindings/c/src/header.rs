//! The stream header in C's form.

use bytes::Bytes;
use midspan::error::{Error, ErrorKind};
use midspan::stream::Binding;
use midspan::wire::{Identity, OptionalField, StreamHeader};

use crate::config::{
    binding, binding_number, check, check_number, midspan_binding, midspan_check, midspan_mode, mode, mode_number,
};
use crate::memory::{input, out, sent, settings};
use crate::result::{Failure, guard, midspan_result};

/// An optional field of a stream header.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_field {
    /// Its id: even, and in ascending order among the fields. 2 is the producer's name, UTF-8.
    pub id: u32,
    /// Its value.
    pub data: *const u8,
    /// How many bytes that has.
    pub len: usize,
}

/// What a stream says about itself before its first chunk (spec 2.2).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_header {
    /// Bytes of this struct. `midspan_header_init` sets it; another value is MIDSPAN_ERROR_INVALID_ARGUMENT.
    pub struct_size: usize,
    /// The format version: 1 in what this library writes, possibly higher in what it reads.
    pub format_version: u8,
    /// The quality index at the start.
    pub quality: u8,
    /// The length offset at the start, 0 to 16,383 bytes (spec 2.3).
    pub length_offset: u16,
    /// The coding mode.
    pub mode: midspan_mode,
    /// The binding in which the stream is written.
    pub binding: midspan_binding,
    /// The check of frame chunks.
    pub check: midspan_check,
    /// 1 if the stream's models take side indices (spec 6.12), else 0.
    pub side: u32,
    /// The model's version; information only.
    pub model_version: u32,
    /// The most frames of a chunk: 1 to 2^20.
    pub max_frames: u32,
    /// The most bytes of a chunk's body: 72 to 2^30.
    pub max_chunk_bytes: u32,
    /// The most frames that a rewind goes back: 0 to 2^20.
    pub max_rewind: u32,
    /// The most frames that may wait for their target, in layered mode: 1 to 28,672. Not used in joined mode.
    pub target_horizon: u32,
    /// The fingerprint of the model (spec 4.6).
    pub fingerprint: [u8; 32],
    /// 1 if `identity` holds one, else 0.
    pub has_identity: u32,
    /// 1 if `host_digest` holds one, else 0.
    pub has_host_digest: u32,
    /// Distinguishes the stream from others (spec 2.2).
    pub identity: [u8; 8],
    /// SHA-256 that identifies the host model's weights (spec 4.7).
    pub host_digest: [u8; 32],
    /// The optional fields, the identity left out; NULL if there is none.
    pub fields: *const midspan_field,
    /// How many.
    pub field_count: usize,
}

/// A header that C can read, with what it points to.
pub(crate) struct OwnedHeader {
    header: Box<midspan_header>,
    // Both are pointed to by the header.
    _fields: Vec<midspan_field>,
    _values: Vec<Bytes>,
}

// SAFETY: the pointers lead to memory that the struct itself owns and nobody writes to.
unsafe impl Send for OwnedHeader {}

const _: () = sent::<Vec<Bytes>>();

impl OwnedHeader {
    pub(crate) fn new(header: &StreamHeader) -> Self {
        let values: Vec<Bytes> = header.optional.iter().map(|field| field.value.clone()).collect();
        let ids = header.optional.iter().map(|field| field.id);
        let fields: Vec<_> =
            ids.zip(&values).map(|(id, value)| midspan_field { id, data: value.as_ptr(), len: value.len() }).collect();
        let header = Box::new(midspan_header {
            struct_size: size_of::<midspan_header>(),
            format_version: header.format_version,
            quality: header.quality,
            length_offset: header.length_offset,
            mode: mode_number(header.mode),
            binding: binding_number(header.binding, header.file),
            check: check_number(header.check),
            side: header.side.into(),
            model_version: header.model_version,
            max_frames: header.max_frames,
            max_chunk_bytes: header.max_chunk_bytes,
            max_rewind: header.max_rewind,
            target_horizon: header.target_horizon.unwrap_or(0),
            fingerprint: header.fingerprint,
            has_identity: header.identity.bytes().is_some().into(),
            has_host_digest: header.host_digest.is_some().into(),
            identity: header.identity.bytes().copied().unwrap_or_default(),
            host_digest: header.host_digest.unwrap_or_default(),
            fields: if fields.is_empty() { std::ptr::null() } else { fields.as_ptr() },
            field_count: fields.len(),
        });
        Self { header, _fields: fields, _values: values }
    }

    pub(crate) fn as_ptr(&self) -> *const midspan_header {
        &raw const *self.header
    }
}

/// The optional fields of an argument.
///
/// # Safety
/// As [`input`], for the fields and for their values.
pub(crate) unsafe fn optional_fields(
    fields: *const midspan_field,
    count: usize,
) -> Result<Vec<OptionalField>, Failure> {
    // SAFETY: the caller's promise is the same.
    let fields = unsafe { input(fields, count, "fields") }?;
    let field = |field: &midspan_field| {
        // SAFETY: the caller's promise is the same.
        let value = unsafe { input(field.data, field.len, "data of a field") }?;
        Ok(OptionalField { id: field.id, value: Bytes::copy_from_slice(value) })
    };
    fields.iter().map(field).collect()
}

/// A header of the caller's, and its binding.
///
/// # Safety
/// As [`settings`], for the header and for what it points to.
pub(crate) unsafe fn stream_header(header: *const midspan_header) -> Result<(StreamHeader, Binding), Failure> {
    // SAFETY: the caller's promise is the same.
    let header = unsafe { settings(header, "header") }?;
    let (binding, file) = binding(header.binding)?;
    let mode = mode(header.mode)?;
    let layered = mode == midspan::wire::Mode::Layered;
    Ok((
        StreamHeader {
            format_version: header.format_version,
            mode,
            check: check(header.check)?,
            binding,
            file,
            side: header.side != 0,
            model_version: header.model_version,
            quality: header.quality,
            host_digest: (header.has_host_digest != 0).then_some(header.host_digest),
            max_frames: header.max_frames,
            max_chunk_bytes: header.max_chunk_bytes,
            max_rewind: header.max_rewind,
            target_horizon: layered.then_some(header.target_horizon),
            length_offset: header.length_offset,
            identity: identity(header.has_identity, header.identity),
            // SAFETY: the caller's promise is the same.
            optional: unsafe { optional_fields(header.fields, header.field_count) }?,
            ..StreamHeader::new(header.fingerprint)
        },
        binding,
    ))
}

pub(crate) fn identity(has: u32, bytes: [u8; 8]) -> Identity {
    if has != 0 { Identity::new(bytes) } else { Identity::none() }
}

/// The header at the beginning of a stream, for a reader that joins later.
pub(crate) fn header_of(bytes: &[u8], binding: Binding) -> Result<StreamHeader, Failure> {
    match StreamHeader::load(bytes, Some(binding))? {
        Some((header, _)) => Ok(header),
        None => Err(Error::new(ErrorKind::Truncated, crate::result::to_u64(bytes.len())).into()),
    }
}

/// Sets a header to its defaults, for `midspan_writer_new`: joined mode, a byte stream, 8-bit checks, quality 0, at
/// most 256 frames and 4 MiB a chunk, no rewind, a target horizon of 1,024 frames, no identity, no optional fields.
/// `fingerprint` is that of the model, 32 bytes, which are copied.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_header_init(header: *mut midspan_header, fingerprint: *const u8) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (header, fingerprint) = unsafe { (out(header, "header")?, input(fingerprint, 32, "fingerprint")?) };
        let mut digest = [0; 32];
        digest.copy_from_slice(fingerprint);
        let owned = OwnedHeader::new(&StreamHeader::new(digest));
        header.set(midspan_header { target_horizon: 1_024, ..*owned.header });
        Ok(())
    })
}
