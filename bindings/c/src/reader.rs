//! The container's reader: chunks, without a model.

use std::ffi::{CStr, c_char};
use std::sync::Mutex;

use bytes::Bytes;
use midspan::stream::{Chunk, Event, Poll, Reader, ReaderConfig, TargetStatus};

use crate::config::{binding, dtype_number, midspan_binding, midspan_dtype, midspan_limits};
use crate::decoder::join_point;
use crate::header::{OwnedHeader, header_of, midspan_header};
use crate::memory::{free, handle, input, lock, out, out_handle, sent, settings};
use crate::output::{give_bytes, midspan_bytes};
use crate::result::{Failure, guard, midspan_result};

/// What a chunk is. Each kind says which fields of `midspan_chunk` it sets besides the places; all others are 0 or
/// NULL.
pub type midspan_chunk_kind = u32;

/// No chunk: more input is needed, or `midspan_reader_finish`. Not an error.
pub const MIDSPAN_CHUNK_NEED_MORE: midspan_chunk_kind = 0;
/// No chunk: the stream is complete. Not an error.
pub const MIDSPAN_CHUNK_NO_MORE: midspan_chunk_kind = 1;
/// The stream header: `header`.
pub const MIDSPAN_CHUNK_HEADER: midspan_chunk_kind = 2;
/// One frame, joined or its hyper-prior: `index`, `epoch`, `frames` (1), `payloads` (one).
pub const MIDSPAN_CHUNK_FRAME: midspan_chunk_kind = 3;
/// A batch: `index`, `epoch`, `frames`, `payloads` (one a lane).
pub const MIDSPAN_CHUNK_BATCH: midspan_chunk_kind = 4;
/// A target of layered mode, or a part of one: `target`, `frames` and `payloads` (none if it cannot be read), `index`
/// and `epoch` unless it is damaged or had no room, `is_part` with `first_element` and `end_element`.
pub const MIDSPAN_CHUNK_TARGET: midspan_chunk_kind = 5;
/// A checkpoint: `index`, `digest_w`, `digest_y`.
pub const MIDSPAN_CHUNK_CHECKPOINT: midspan_chunk_kind = 6;
/// A context reset: `index`, `epoch`, `quality`, `length_offset`, the first 8 bytes of `fingerprint`, both digests.
pub const MIDSPAN_CHUNK_RESET: midspan_chunk_kind = 7;
/// A rewind: `index` of the next frame.
pub const MIDSPAN_CHUNK_REWIND: midspan_chunk_kind = 8;
/// A quality switch: `quality`, `length_offset`.
pub const MIDSPAN_CHUNK_QUALITY: midspan_chunk_kind = 9;
/// A model switch: as a context reset, with the whole `fingerprint` and `model_version`.
pub const MIDSPAN_CHUNK_MODEL_SWITCH: midspan_chunk_kind = 10;
/// A frame with its exact hidden state: as a frame, and `dtype`, `data`.
pub const MIDSPAN_CHUNK_EXACT_FRAME: midspan_chunk_kind = 11;
/// Side indices of the next frames: `index`, `frames`, `payloads` (one).
pub const MIDSPAN_CHUNK_SIDE_INDICES: midspan_chunk_kind = 12;
/// An ignorable extension: `extension_id`, `data`.
pub const MIDSPAN_CHUNK_EXTENSION: midspan_chunk_kind = 13;
/// The end: `index` after the last frame, `frames_coded`, both digests.
pub const MIDSPAN_CHUNK_END: midspan_chunk_kind = 14;
/// The seek index of a file: `seek_entries`.
pub const MIDSPAN_CHUNK_SEEK_INDEX: midspan_chunk_kind = 15;
/// The footer of a file.
pub const MIDSPAN_CHUNK_FOOTER: midspan_chunk_kind = 16;
/// A chunk that this interface has no name for. Skip it.
pub const MIDSPAN_CHUNK_OTHER: midspan_chunk_kind = 255;

/// What is known of a target without a model (spec 6.5).
pub type midspan_target_status = u32;

/// The chunk is no target.
pub const MIDSPAN_TARGET_NONE: midspan_target_status = 0;
/// Its frames had their hyper-priors in this epoch.
pub const MIDSPAN_TARGET_USABLE: midspan_target_status = 1;
/// Its frames, or their epoch, have not come yet.
pub const MIDSPAN_TARGET_EARLY: midspan_target_status = 2;
/// Its frames were rewound, dropped by a new context, or have no target.
pub const MIDSPAN_TARGET_LATE: midspan_target_status = 3;
/// Its check does not hold, or it cannot be read.
pub const MIDSPAN_TARGET_DAMAGED: midspan_target_status = 4;
/// A datagram for which the reader had no room.
pub const MIDSPAN_TARGET_NO_ROOM: midspan_target_status = 5;

/// A payload within a chunk, or what a writer makes one of.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_payload {
    /// Its bytes; NULL is allowed for none.
    pub data: *const u8,
    /// How many.
    pub len: usize,
    /// The place of the first byte, from the first byte of the stream header. A writer does not use it.
    pub offset: u64,
}

/// A place where a reader of a file may join.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_seek_entry {
    /// Absolute index of the next frame there.
    pub frame: u64,
    /// The offset of the chunk.
    pub offset: u64,
}

/// A chunk, its place and its size. The bytes of all chunks together are those of the stream. `kind` says which of the
/// other fields are set; the others are 0 or NULL. What the pointers lead to belongs to the reader and is valid until
/// its next poll that succeeds, or its `_free`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_chunk {
    /// What it is.
    pub kind: midspan_chunk_kind,
    /// Of a target: what is known of it.
    pub target: midspan_target_status,
    /// The offset of its leading byte, or of the message, from the first byte of the stream header.
    pub offset: u64,
    /// The offset of its body.
    pub body_offset: u64,
    /// How many bytes it has in the stream; 0 for a datagram.
    pub wire_len: u64,
    /// Absolute index of its first frame, or of the next one.
    pub index: u64,
    /// Frames coded, rewound ones included.
    pub frames_coded: u64,
    /// The first element of a part of a target.
    pub first_element: u64,
    /// The element after its last.
    pub end_element: u64,
    /// Its frames.
    pub frames: u32,
    /// The epoch in which its frames were coded, or that begins.
    pub epoch: u32,
    /// 1 if a target holds a part of one frame, else 0.
    pub is_part: u32,
    /// The type of the values in `data` of an exact frame.
    pub dtype: midspan_dtype,
    /// The id of an extension.
    pub extension_id: u32,
    /// The version of a model, information only.
    pub model_version: u32,
    /// The digest of W.
    pub digest_w: u32,
    /// The digest of Y.
    pub digest_y: u32,
    /// A length offset (spec 2.3).
    pub length_offset: u16,
    /// A quality index.
    pub quality: u8,
    /// A model's fingerprint, or its first eight bytes.
    pub fingerprint: [u8; 32],
    /// Its payloads, lane by lane.
    pub payloads: *const midspan_payload,
    /// How many.
    pub payload_count: usize,
    /// An extension's data, or the little-endian values of an exact frame's hidden state.
    pub data: *const u8,
    /// How many bytes.
    pub data_len: usize,
    /// A file's places to join, ascending.
    pub seek_entries: *const midspan_seek_entry,
    /// How many.
    pub seek_entry_count: usize,
    /// The stream header.
    pub header: *const midspan_header,
}

const EMPTY: midspan_chunk = midspan_chunk {
    kind: MIDSPAN_CHUNK_NEED_MORE,
    target: MIDSPAN_TARGET_NONE,
    offset: 0,
    body_offset: 0,
    wire_len: 0,
    index: 0,
    frames_coded: 0,
    first_element: 0,
    end_element: 0,
    frames: 0,
    epoch: 0,
    is_part: 0,
    dtype: 0,
    extension_id: 0,
    model_version: 0,
    digest_w: 0,
    digest_y: 0,
    length_offset: 0,
    quality: 0,
    fingerprint: [0; 32],
    payloads: std::ptr::null(),
    payload_count: 0,
    data: std::ptr::null(),
    data_len: 0,
    seek_entries: std::ptr::null(),
    seek_entry_count: 0,
    header: std::ptr::null(),
};

/// A reader of one stream's chunks. It needs no model, and says nothing about what the payloads hold. One call at a
/// time may use it.
///
/// Call order: `midspan_reader_new`; `midspan_reader_push` or `midspan_reader_push_message` as input comes, each
/// followed by polls until it needs more; `midspan_reader_finish`; `midspan_reader_free`.
pub struct midspan_reader(Mutex<Session>);

handle!(midspan_reader, Session);

/// A reader, with what C can still read of it.
pub(crate) struct Session {
    reader: Reader,
    last: Option<Event>,
    payloads: Vec<midspan_payload>,
    seek_entries: Vec<midspan_seek_entry>,
    header: Option<OwnedHeader>,
}

// SAFETY: the pointers in `payloads` lead into `last`, which nobody writes to. The other fields may move by themselves.
unsafe impl Send for Session {}

const _: () = {
    sent::<Reader>();
    sent::<Event>();
    sent::<Vec<midspan_seek_entry>>();
    sent::<OwnedHeader>();
};

impl From<Reader> for Session {
    fn from(reader: Reader) -> Self {
        Self { reader, last: None, payloads: Vec::new(), seek_entries: Vec::new(), header: None }
    }
}

impl From<Reader> for midspan_reader {
    fn from(reader: Reader) -> Self {
        Session::from(reader).into()
    }
}

/// The status of a target, and its index and epoch where it names them.
fn target_status(status: TargetStatus) -> (midspan_target_status, Option<(u64, u32)>) {
    match status {
        TargetStatus::Usable { index, epoch } => (MIDSPAN_TARGET_USABLE, Some((index, epoch))),
        TargetStatus::Early { index, epoch } => (MIDSPAN_TARGET_EARLY, Some((index, epoch))),
        TargetStatus::Late { index, epoch } => (MIDSPAN_TARGET_LATE, Some((index, epoch))),
        TargetStatus::Damaged => (MIDSPAN_TARGET_DAMAGED, None),
        TargetStatus::NoRoom => (MIDSPAN_TARGET_NO_ROOM, None),
    }
}

impl Session {
    /// Keeps an outcome for C to read, in place of the last one.
    fn keep(&mut self, poll: Poll) -> midspan_chunk {
        (self.last, self.header) = (None, None);
        match poll {
            Poll::Event(event) => {
                self.last = Some(event);
                self.shown()
            }
            Poll::NeedMore => EMPTY,
            Poll::End => midspan_chunk { kind: MIDSPAN_CHUNK_NO_MORE, ..EMPTY },
        }
    }

    /// The event that was polled last, in C's form.
    fn shown(&mut self) -> midspan_chunk {
        let Some(event) = &self.last else { return EMPTY };
        let payload = |payload: &midspan::wire::Payload| midspan_payload {
            data: payload.bytes.as_ptr(),
            len: payload.bytes.len(),
            offset: payload.offset,
        };
        self.payloads = event.chunk.payloads().iter().map(payload).collect();
        let mut chunk = midspan_chunk {
            offset: event.offset,
            body_offset: event.body_offset,
            wire_len: event.bytes,
            payloads: if self.payloads.is_empty() { std::ptr::null() } else { self.payloads.as_ptr() },
            payload_count: self.payloads.len(),
            ..EMPTY
        };
        let data = |bytes: &Bytes| if bytes.is_empty() { std::ptr::null() } else { bytes.as_ptr() };
        match &event.chunk {
            Chunk::Header(header) => {
                chunk.header = self.header.insert(OwnedHeader::new(header)).as_ptr();
                chunk.kind = MIDSPAN_CHUNK_HEADER;
            }
            Chunk::Frame { index, epoch, .. } => {
                let (kind, frames) = (MIDSPAN_CHUNK_FRAME, 1);
                chunk = midspan_chunk { kind, index: *index, epoch: *epoch, frames, ..chunk };
            }
            Chunk::Batch { index, epoch, frames, .. } => {
                let kind = MIDSPAN_CHUNK_BATCH;
                chunk = midspan_chunk { kind, index: *index, epoch: *epoch, frames: *frames, ..chunk };
            }
            Chunk::Target { frames, elements, status, .. } => {
                let (target, named) = target_status(*status);
                let (index, epoch) = named.unwrap_or((0, 0));
                let kind = MIDSPAN_CHUNK_TARGET;
                chunk = midspan_chunk { kind, target, frames: *frames, index, epoch, ..chunk };
                if let Some(elements) = elements {
                    let (first_element, end_element) = (elements.start, elements.end);
                    chunk = midspan_chunk { is_part: 1, first_element, end_element, ..chunk };
                }
            }
            Chunk::Checkpoint(checkpoint) => {
                let (digest_w, digest_y) = (checkpoint.digest_w, checkpoint.digest_y);
                let kind = MIDSPAN_CHUNK_CHECKPOINT;
                chunk = midspan_chunk { kind, index: checkpoint.index, digest_w, digest_y, ..chunk };
            }
            Chunk::Reset(reset) => {
                let mut fingerprint = [0; 32];
                fingerprint.iter_mut().zip(reset.fingerprint_prefix).for_each(|(to, from)| *to = from);
                chunk = midspan_chunk {
                    kind: MIDSPAN_CHUNK_RESET,
                    index: reset.index,
                    epoch: reset.epoch,
                    quality: reset.quality,
                    length_offset: reset.length_offset,
                    fingerprint,
                    digest_w: reset.digest_w,
                    digest_y: reset.digest_y,
                    ..chunk
                };
            }
            Chunk::Rewind(rewind) => {
                chunk = midspan_chunk { kind: MIDSPAN_CHUNK_REWIND, index: rewind.index, ..chunk };
            }
            Chunk::Quality(quality) => {
                let (kind, length_offset) = (MIDSPAN_CHUNK_QUALITY, quality.length_offset);
                chunk = midspan_chunk { kind, quality: quality.quality, length_offset, ..chunk };
            }
            Chunk::ModelSwitch(switch) => {
                chunk = midspan_chunk {
                    kind: MIDSPAN_CHUNK_MODEL_SWITCH,
                    index: switch.index,
                    epoch: switch.epoch,
                    quality: switch.quality,
                    length_offset: switch.length_offset,
                    fingerprint: switch.fingerprint,
                    model_version: switch.model_version,
                    digest_w: switch.digest_w,
                    digest_y: switch.digest_y,
                    ..chunk
                };
            }
            Chunk::ExactFrame { index, epoch, dtype, hidden, .. } => {
                chunk = midspan_chunk {
                    kind: MIDSPAN_CHUNK_EXACT_FRAME,
                    index: *index,
                    epoch: *epoch,
                    frames: 1,
                    dtype: dtype_number(*dtype),
                    data: data(&hidden.bytes),
                    data_len: hidden.bytes.len(),
                    ..chunk
                };
            }
            Chunk::SideIndices { index, count, .. } => {
                let kind = MIDSPAN_CHUNK_SIDE_INDICES;
                chunk = midspan_chunk { kind, index: *index, frames: *count, ..chunk };
            }
            Chunk::Extension(extension) => {
                chunk = midspan_chunk {
                    kind: MIDSPAN_CHUNK_EXTENSION,
                    extension_id: extension.id,
                    data: data(&extension.data),
                    data_len: extension.data.len(),
                    ..chunk
                };
            }
            Chunk::End(end) => {
                chunk = midspan_chunk {
                    kind: MIDSPAN_CHUNK_END,
                    index: end.index,
                    frames_coded: end.frames_coded,
                    digest_w: end.digest_w,
                    digest_y: end.digest_y,
                    ..chunk
                };
            }
            Chunk::SeekIndex(seek) => {
                let entry =
                    |entry: &midspan::wire::SeekEntry| midspan_seek_entry { frame: entry.frame, offset: entry.offset };
                self.seek_entries = seek.entries.iter().map(entry).collect();
                let entries = &self.seek_entries;
                chunk.kind = MIDSPAN_CHUNK_SEEK_INDEX;
                chunk.seek_entries = if entries.is_empty() { std::ptr::null() } else { entries.as_ptr() };
                chunk.seek_entry_count = entries.len();
            }
            Chunk::Footer => chunk.kind = MIDSPAN_CHUNK_FOOTER,
            _ => chunk.kind = MIDSPAN_CHUNK_OTHER,
        }
        chunk
    }
}

/// The settings of a reader. `midspan_reader_config_init` sets all of them; change what differs.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_reader_config {
    /// Bytes of this struct. `midspan_reader_config_init` sets it; another value is MIDSPAN_ERROR_INVALID_ARGUMENT.
    pub struct_size: usize,
    /// Who delimits the chunks; MIDSPAN_BINDING_BYTE_STREAM by default, which reads files too.
    pub binding: midspan_binding,
    /// The most that is accepted from a peer.
    pub limits: midspan_limits,
}

/// The library's settings for C's.
///
/// # Safety
/// As [`settings`].
unsafe fn reader_config(config: *const midspan_reader_config) -> Result<ReaderConfig, Failure> {
    // SAFETY: the caller's promise is the same.
    let config = unsafe { settings(config, "config") }?;
    Ok(ReaderConfig::default().binding(binding(config.binding)?.0).limits(config.limits.limits()))
}

/// Sets a reader's settings to their defaults, which are those for a peer that nobody trusts.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_reader_config_init(config: *mut midspan_reader_config) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let config = unsafe { out(config, "config") }?;
        let default = ReaderConfig::default();
        let binding = crate::config::binding_number(default.binding, false);
        config.set(midspan_reader_config {
            struct_size: size_of::<midspan_reader_config>(),
            binding,
            limits: midspan_limits::new(default.limits),
        });
        Ok(())
    })
}

/// Makes a reader of a stream from its first byte on. `*reader` gets the handle, which `midspan_reader_free` frees, or
/// NULL.
///
/// Errors: MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_reader_new(
    config: *const midspan_reader_config,
    reader: *mut *mut midspan_reader,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (reader, config) = unsafe { (out_handle(reader, "reader")?, reader_config(config)?) };
        reader.give(Reader::new(config).into());
        Ok(())
    })
}

/// Makes a reader that joins a stream at a context reset or model switch. Its arguments mean what they mean to
/// `midspan_decoder_join`.
///
/// Errors: those of a header (101 to 210, MIDSPAN_ERROR_TRUNCATED for one that is cut); MIDSPAN_ERROR_INVALID_ARGUMENT,
/// MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_reader_join(
    config: *const midspan_reader_config,
    header: *const u8,
    header_len: usize,
    offset: u64,
    index: *const u64,
    reader: *mut *mut midspan_reader,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (reader, config, header, point) = unsafe {
            let (reader, config) = (out_handle(reader, "reader")?, reader_config(config)?);
            (reader, config, input(header, header_len, "header")?, join_point(offset, index)?)
        };
        let header = header_of(header, config.binding)?;
        reader.give(Reader::join(config, header, point).into());
        Ok(())
    })
}

/// Frees a reader. What its chunks point to ends too. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_reader_free(reader: *mut midspan_reader) {
    // SAFETY: the header's rules on handles.
    unsafe { free(reader) }
}

/// Forks a reader: `*fork` gets a second one that goes on from the same place, with the same input not yet polled.
/// `midspan_reader_free` frees it. What the last chunk points to stays with `reader`.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_reader_fork(
    reader: *const midspan_reader,
    fork: *mut *mut midspan_reader,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (fork, session) = unsafe { (out_handle(fork, "fork")?, lock(reader, "reader")?) };
        fork.give(session.reader.clone().into());
        Ok(())
    })
}

/// Saves a reader as bytes for `midspan_reader_restore`, input not yet polled included. `*bytes` gets them, and
/// `midspan_bytes_free` frees them.
///
/// Errors: the reader's own error, if it failed; MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_reader_save(
    reader: *const midspan_reader,
    bytes: *mut midspan_bytes,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { give_bytes(bytes, || Ok(Bytes::from(lock(reader, "reader")?.reader.save()?))) }
    })
}

/// Restores the reader that `midspan_reader_save` wrote. `*reader` gets the handle, or NULL.
///
/// Errors: MIDSPAN_ERROR_SAVED_SESSION, also for a reader of another binding; MIDSPAN_ERROR_INVALID_ARGUMENT,
/// MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_reader_restore(
    config: *const midspan_reader_config,
    saved: *const u8,
    len: usize,
    reader: *mut *mut midspan_reader,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (reader, config, saved) =
            unsafe { (out_handle(reader, "reader")?, reader_config(config)?, input(saved, len, "saved")?) };
        reader.give(Reader::restore(config, saved)?.into());
        Ok(())
    })
}

/// Hands in `len` bytes of a byte stream or file, cut anywhere. They are copied.
///
/// Errors: the stream's error, if it had one; MIDSPAN_ERROR_AFTER_END after `midspan_reader_finish`;
/// MIDSPAN_ERROR_NOT_AVAILABLE in the message binding; MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER,
/// MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_reader_push(
    reader: *mut midspan_reader,
    bytes: *const u8,
    len: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut session, bytes) = unsafe { (lock(reader, "reader")?, input(bytes, len, "bytes")?) };
        session.reader.push(bytes)?;
        Ok(())
    })
}

/// Hands in one message, whole. It is copied; an empty one is skipped.
///
/// Errors: as `midspan_reader_push`, and MIDSPAN_ERROR_NOT_AVAILABLE in a byte stream or file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_reader_push_message(
    reader: *mut midspan_reader,
    message: *const u8,
    len: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut session, message) = unsafe { (lock(reader, "reader")?, input(message, len, "message")?) };
        session.reader.push_message(message)?;
        Ok(())
    })
}

/// Hands in a datagram from a path that may lose, repeat or reorder. Any bytes are allowed; each datagram that is not
/// empty gives one target chunk, and none ends the stream.
///
/// Errors: the stream's error, if it had one; MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER,
/// MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_reader_push_datagram(
    reader: *mut midspan_reader,
    datagram: *const u8,
    len: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut session, datagram) = unsafe { (lock(reader, "reader")?, input(datagram, len, "datagram")?) };
        session.reader.push_target(datagram)?;
        Ok(())
    })
}

/// Says that no more input comes: an unfinished stream is an error from then on, instead of a wait.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_reader_finish(reader: *mut midspan_reader) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { lock(reader, "reader") }?.reader.finish();
        Ok(())
    })
}

/// Writes the next chunk to `*chunk`. Waiting for more input and the end are kinds too, not errors. What the chunk
/// points to is valid until the next poll of this reader that succeeds.
///
/// Errors: the stream's first error, at every later push and poll again: 101 to 408 and 502.
/// MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC. `*chunk` is not changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_reader_poll(reader: *mut midspan_reader, chunk: *mut midspan_chunk) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut session, chunk) = unsafe { (lock(reader, "reader")?, out(chunk, "chunk")?) };
        let poll = session.reader.poll()?;
        chunk.set(session.keep(poll));
        Ok(())
    })
}

/// Writes the offset of the first byte that no chunk covers yet to `*offset`.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_reader_offset(reader: *const midspan_reader, offset: *mut u64) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (session, offset) = unsafe { (lock(reader, "reader")?, out(offset, "offset")?) };
        offset.set(session.reader.offset());
        Ok(())
    })
}

/// Writes the bytes that the reader holds to `*bytes`, without the chunk that was polled last.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_reader_memory_bytes(
    reader: *const midspan_reader,
    bytes: *mut usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (session, bytes) = unsafe { (lock(reader, "reader")?, out(bytes, "bytes")?) };
        bytes.set(session.reader.memory_bytes());
        Ok(())
    })
}

/// The name of a kind of chunk, NUL-terminated, static: "frame", "need_more". It is "other" for a number that is no
/// kind.
#[unsafe(no_mangle)]
pub extern "C" fn midspan_chunk_name(kind: midspan_chunk_kind) -> *const c_char {
    let name: &CStr = match kind {
        MIDSPAN_CHUNK_NEED_MORE => c"need_more",
        MIDSPAN_CHUNK_NO_MORE => c"no_more",
        MIDSPAN_CHUNK_HEADER => c"header",
        MIDSPAN_CHUNK_FRAME => c"frame",
        MIDSPAN_CHUNK_BATCH => c"batch",
        MIDSPAN_CHUNK_TARGET => c"target",
        MIDSPAN_CHUNK_CHECKPOINT => c"checkpoint",
        MIDSPAN_CHUNK_RESET => c"reset",
        MIDSPAN_CHUNK_REWIND => c"rewind",
        MIDSPAN_CHUNK_QUALITY => c"quality",
        MIDSPAN_CHUNK_MODEL_SWITCH => c"model",
        MIDSPAN_CHUNK_EXACT_FRAME => c"exact",
        MIDSPAN_CHUNK_SIDE_INDICES => c"side_indices",
        MIDSPAN_CHUNK_EXTENSION => c"extension",
        MIDSPAN_CHUNK_END => c"end",
        MIDSPAN_CHUNK_SEEK_INDEX => c"seek_index",
        MIDSPAN_CHUNK_FOOTER => c"footer",
        _ => c"other",
    };
    name.as_ptr()
}

/// The bytes of the payloads of an argument.
///
/// # Safety
/// As [`input`], for the payloads and for their bytes.
pub(crate) unsafe fn payloads<'a>(payloads: *const midspan_payload, count: usize) -> Result<Vec<&'a [u8]>, Failure> {
    // SAFETY: the caller's promise is the same.
    let payloads = unsafe { input(payloads, count, "payloads") }?;
    // SAFETY: the caller's promise is the same.
    payloads.iter().map(|payload| unsafe { input(payload.data, payload.len, "data of a payload") }).collect()
}
