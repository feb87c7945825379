//! The container's writer: payloads in, bytes out, without a model.

use std::sync::Mutex;

use bytes::Bytes;
use midspan::stream::Writer;

use crate::config::midspan_dtype;
use crate::header::{midspan_header, stream_header};
use crate::memory::{self, free, handle, input, lock, out, out_handle};
use crate::output::{give_bytes, midspan_bytes, midspan_message, pop, pop_into, take, take_into};
use crate::reader::{midspan_payload, payloads};
use crate::result::{guard, midspan_result};

/// A writer of one stream's chunks, under the rules that a reader applies. Payloads are opaque to it, but none may end
/// in the byte 0. One call at a time may use it. A call that breaks a rule changes nothing.
pub struct midspan_writer(Mutex<Writer>);

handle!(midspan_writer, Writer);

/// Begins a stream: the header is the first output. `*writer` gets the handle, which `midspan_writer_free` frees, or
/// NULL.
///
/// Errors: MIDSPAN_ERROR_BAD_CONFIG for a header that is out of range; MIDSPAN_ERROR_INVALID_ARGUMENT,
/// MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_new(
    header: *const midspan_header,
    writer: *mut *mut midspan_writer,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (writer, (header, binding)) = unsafe { (out_handle(writer, "writer")?, stream_header(header)?) };
        writer.give(Writer::new(header, binding)?.into());
        Ok(())
    })
}

/// Frees a writer, with output not yet taken. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_free(writer: *mut midspan_writer) {
    // SAFETY: the header's rules on handles.
    unsafe { free(writer) }
}

/// Forks a stream: `*fork` gets a second writer that goes on from the same place, with the same output not yet taken.
/// `midspan_writer_free` frees it.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_fork(
    writer: *const midspan_writer,
    fork: *mut *mut midspan_writer,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (fork, writer) = unsafe { (out_handle(fork, "fork")?, lock(writer, "writer")?) };
        fork.give(writer.clone().into());
        Ok(())
    })
}

/// Saves a writer as bytes for `midspan_writer_restore`. `*bytes` gets them, and `midspan_bytes_free` frees them.
///
/// The bytes include output not yet taken. They do not include side indices of `midspan_writer_cover_side` that wait
/// for their chunk: give them again after the restore.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_save(
    writer: *const midspan_writer,
    bytes: *mut midspan_bytes,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { give_bytes(bytes, || Ok(Bytes::from(lock(writer, "writer")?.save()))) }
    })
}

/// Restores the writer that `midspan_writer_save` wrote. `*writer` gets the handle, or NULL.
///
/// Errors: MIDSPAN_ERROR_SAVED_SESSION, MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_restore(
    saved: *const u8,
    len: usize,
    writer: *mut *mut midspan_writer,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (writer, saved) = unsafe { (out_handle(writer, "writer")?, input(saved, len, "saved")?) };
        writer.give(Writer::restore(saved)?.into());
        Ok(())
    })
}

/// Writes a one-frame chunk with a payload of `len` bytes: a joined frame, or the hyper-prior of one frame.
///
/// Errors: MIDSPAN_ERROR_CHUNK_TOO_LONG, MIDSPAN_ERROR_SEAL_NOT_CANONICAL for a payload that ends in 0,
/// MIDSPAN_ERROR_WRONG_SIDE_INDICES in a stream with side indices that no `midspan_writer_cover_side` gave,
/// MIDSPAN_ERROR_AFTER_END, MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY,
/// MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_frame(
    writer: *mut midspan_writer,
    payload: *const u8,
    len: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut writer, payload) = unsafe { (lock(writer, "writer")?, input(payload, len, "payload")?) };
        writer.frame(payload)?;
        Ok(())
    })
}

/// Writes a batch of `frames` frames, 2 or more, with one payload for each of `lane_count` lanes (spec 2.7).
///
/// Errors: MIDSPAN_ERROR_BATCH_OF_ONE, MIDSPAN_ERROR_TOO_MANY_FRAMES, MIDSPAN_ERROR_LANE_COUNT,
/// MIDSPAN_ERROR_LANE_TABLE, and as `midspan_writer_frame`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_batch(
    writer: *mut midspan_writer,
    frames: u32,
    lanes: *const midspan_payload,
    lane_count: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut writer, lanes) = unsafe { (lock(writer, "writer")?, payloads(lanes, lane_count)?) };
        writer.batch(frames, &lanes)?;
        Ok(())
    })
}

/// Writes the target of `frames` frames from the absolute index `index` on, in layered mode, with one payload a lane.
///
/// Errors: MIDSPAN_ERROR_KIND_NOT_IN_MODE in joined mode; MIDSPAN_ERROR_FRAME_NOT_PENDING for frames that have no
/// hyper-prior; and as `midspan_writer_batch`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_target(
    writer: *mut midspan_writer,
    index: u64,
    frames: u32,
    lanes: *const midspan_payload,
    lane_count: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut writer, lanes) = unsafe { (lock(writer, "writer")?, payloads(lanes, lane_count)?) };
        writer.target(index, frames, &lanes)?;
        Ok(())
    })
}

/// Writes a part of the target of the frame `index`: its elements from `first_element` to before `end_element`.
///
/// Errors: MIDSPAN_ERROR_FIELD_OUT_OF_RANGE for no element, or elements beyond 2^56; and as `midspan_writer_target`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_target_part(
    writer: *mut midspan_writer,
    index: u64,
    first_element: u64,
    end_element: u64,
    payload: *const u8,
    len: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut writer, payload) = unsafe { (lock(writer, "writer")?, input(payload, len, "payload")?) };
        writer.target_part(index, first_element..end_element, payload)?;
        Ok(())
    })
}

/// Gives the side indices that the check of the next frame chunk covers, one for each of its frames. In a stream with
/// side indices every frame chunk needs such a call before it.
///
/// Errors: MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_cover_side(
    writer: *mut midspan_writer,
    indices: *const u32,
    count: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut writer, indices) = unsafe { (lock(writer, "writer")?, input(indices, count, "indices")?) };
        writer.cover_side(indices);
        Ok(())
    })
}

/// Writes the side indices of the next `count` frames, as the model's tables code them.
///
/// Errors: MIDSPAN_ERROR_KIND_NOT_IN_MODE in a stream without side indices; MIDSPAN_ERROR_SIDE_INDICES_LEFT;
/// MIDSPAN_ERROR_TOO_MANY_FRAMES; and as `midspan_writer_frame`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_side_indices(
    writer: *mut midspan_writer,
    count: u32,
    payload: *const u8,
    len: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut writer, payload) = unsafe { (lock(writer, "writer")?, input(payload, len, "payload")?) };
        writer.side_indices(count, payload)?;
        Ok(())
    })
}

/// Writes a checkpoint at the next frame, with the digests of spec 6.4.
///
/// Errors: MIDSPAN_ERROR_CHUNK_TOO_LONG, MIDSPAN_ERROR_AFTER_END, MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY,
/// MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_checkpoint(
    writer: *mut midspan_writer,
    digest_w: u32,
    digest_y: u32,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { lock(writer, "writer") }?.checkpoint(digest_w, digest_y)?;
        Ok(())
    })
}

/// Writes a context reset: the next frame begins a new context. The digests are those of the context that ends.
///
/// Errors: MIDSPAN_ERROR_FIELD_OUT_OF_RANGE for a length offset above 16,383; and as `midspan_writer_checkpoint`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_reset(
    writer: *mut midspan_writer,
    quality: u8,
    length_offset: u16,
    digest_w: u32,
    digest_y: u32,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { lock(writer, "writer") }?.reset(quality, length_offset, digest_w, digest_y)?;
        Ok(())
    })
}

/// Writes a rewind: the next frame will have the absolute index `index`.
///
/// Errors: MIDSPAN_ERROR_REWIND_TARGET, MIDSPAN_ERROR_REWIND_TOO_FAR, and as `midspan_writer_checkpoint`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_rewind(writer: *mut midspan_writer, index: u64) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { lock(writer, "writer") }?.rewind(index)?;
        Ok(())
    })
}

/// Writes a quality switch, which also sets the length offset; the context goes on.
///
/// Errors: as `midspan_writer_reset`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_quality(
    writer: *mut midspan_writer,
    quality: u8,
    length_offset: u16,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { lock(writer, "writer") }?.quality(quality, length_offset)?;
        Ok(())
    })
}

/// Writes a model switch: the next frame begins a new context with the model of this fingerprint, 32 bytes. The digests
/// are those of the context that ends.
///
/// Errors: as `midspan_writer_reset`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_model_switch(
    writer: *mut midspan_writer,
    fingerprint: *const u8,
    model_version: u32,
    quality: u8,
    length_offset: u16,
    digest_w: u32,
    digest_y: u32,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut writer, bytes) = unsafe { (lock(writer, "writer")?, input(fingerprint, 32, "fingerprint")?) };
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(bytes);
        writer.model_switch(fingerprint, model_version, quality, length_offset, digest_w, digest_y)?;
        Ok(())
    })
}

/// Writes an exact frame: a joined payload, and the hidden state as little-endian values of type `dtype`.
///
/// Errors: MIDSPAN_ERROR_WRONG_SHAPE if `hidden` is not a whole number of values; and as `midspan_writer_frame`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_exact_frame(
    writer: *mut midspan_writer,
    dtype: midspan_dtype,
    payload: *const u8,
    payload_len: usize,
    hidden: *const u8,
    hidden_len: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut writer, payload, hidden) = unsafe {
            (lock(writer, "writer")?, input(payload, payload_len, "payload")?, input(hidden, hidden_len, "hidden")?)
        };
        writer.exact_frame(crate::config::dtype(dtype)?, payload, hidden)?;
        Ok(())
    })
}

/// Writes an ignorable extension of this id.
///
/// Errors: MIDSPAN_ERROR_INVALID_ARGUMENT, and as `midspan_writer_checkpoint`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_extension(
    writer: *mut midspan_writer,
    id: u32,
    data: *const u8,
    len: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut writer, data) = unsafe { (lock(writer, "writer")?, input(data, len, "data")?) };
        writer.extension(id, data)?;
        Ok(())
    })
}

/// Writes the end chunk and, in a file, seek index and footer.
///
/// Errors: as `midspan_writer_checkpoint`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_end(
    writer: *mut midspan_writer,
    digest_w: u32,
    digest_y: u32,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { lock(writer, "writer") }?.end(digest_w, digest_y)?;
        Ok(())
    })
}

/// Takes the bytes written so far, as `midspan_encoder_take_bytes` does.
///
/// Errors: as `midspan_encoder_take_bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_take_bytes(
    writer: *mut midspan_writer,
    bytes: *mut midspan_bytes,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut writer, bytes) = unsafe { (lock(writer, "writer")?, out(bytes, "bytes")?) };
        take(&mut *writer, &bytes)
    })
}

/// Takes the bytes written so far and copies them to `buffer`, as `midspan_encoder_take_bytes_into` does.
///
/// Errors: as `midspan_encoder_take_bytes_into`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_take_bytes_into(
    writer: *mut midspan_writer,
    buffer: *mut u8,
    capacity: usize,
    len: *mut usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut writer, buffer, len) =
            unsafe { (lock(writer, "writer")?, memory::buffer(buffer, capacity, "buffer")?, out(len, "len")?) };
        take_into(&mut *writer, &buffer, &len)
    })
}

/// Takes the next message, as `midspan_encoder_pop_message` does.
///
/// Errors: as `midspan_encoder_pop_message`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_pop_message(
    writer: *mut midspan_writer,
    message: *mut midspan_message,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut writer, message) = unsafe { (lock(writer, "writer")?, out(message, "message")?) };
        pop(&mut *writer, &message)
    })
}

/// Takes the next message and copies it to `buffer`, as `midspan_encoder_pop_message_into` does.
///
/// Errors: as `midspan_encoder_pop_message_into`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_pop_message_into(
    writer: *mut midspan_writer,
    buffer: *mut u8,
    capacity: usize,
    message: *mut midspan_message,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut writer, buffer, message) =
            unsafe { (lock(writer, "writer")?, memory::buffer(buffer, capacity, "buffer")?, out(message, "message")?) };
        pop_into(&mut *writer, &buffer, &message)
    })
}

/// Writes the absolute index of the next frame to `*index` and the offset of the next chunk to `*offset`. The offset is
/// the number of bytes written so far.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_position(
    writer: *const midspan_writer,
    index: *mut u64,
    offset: *mut u64,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (writer, index, offset) =
            unsafe { (lock(writer, "writer")?, out(index, "index")?, out(offset, "offset")?) };
        index.set(writer.sequence().next_index());
        offset.set(writer.position());
        Ok(())
    })
}

/// Writes 1 to `*ended` if the end chunk was written, else 0.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_ended(writer: *const midspan_writer, ended: *mut u32) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (writer, ended) = unsafe { (lock(writer, "writer")?, out(ended, "ended")?) };
        ended.set(writer.ended().into());
        Ok(())
    })
}

/// Writes the bytes that the writer holds to `*bytes`, output not yet taken included.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_writer_memory_bytes(
    writer: *const midspan_writer,
    bytes: *mut usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (writer, bytes) = unsafe { (lock(writer, "writer")?, out(bytes, "bytes")?) };
        bytes.set(writer.memory_bytes());
        Ok(())
    })
}
