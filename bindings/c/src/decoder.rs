//! Decoder sessions.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use midspan::adapter::Threads;
use midspan::codec::{Decoder, DecoderConfig, DecoderPoll};
use midspan::error::{Detail, Error, ErrorKind};
use midspan::stream::JoinPoint;

use crate::config::{binding, midspan_binding, midspan_limits};
use crate::event::{held_bytes, hidden_of, midspan_event};
use crate::header::{OwnedHeader, header_of};
use crate::memory::{buffer, free, handle, input, input_one, lock, out, out_handle, out_if_wanted, settings};
use crate::model::{codec, codecs, midspan_model, midspan_model_info};
use crate::output::{give_bytes, midspan_bytes};
use crate::result::{Failure, guard, midspan_result, to_u64};

/// A decoder of one stream: bytes in, integers and hidden states out. One call at a time may use it.
///
/// Call order: `midspan_decoder_new`; `midspan_decoder_push` or `midspan_decoder_push_message` as input comes, each
/// followed by polls until it needs more; `midspan_decoder_finish` at the end of input; `midspan_decoder_free`. An
/// error of the stream answers every later push and poll; everything handed out before it stays valid.
pub struct midspan_decoder(Mutex<Session>);

handle!(midspan_decoder, Session);

/// A decoder, with what C can still read of it.
pub(crate) struct Session {
    decoder: Decoder,
    /// An event that did not fit the caller's buffer: it stays the next one.
    held: Option<DecoderPoll>,
    /// The last event that was handed out, and its header: C has pointers into them.
    last: Option<DecoderPoll>,
    header: Option<OwnedHeader>,
}

impl From<Decoder> for Session {
    fn from(decoder: Decoder) -> Self {
        Self { decoder, held: None, last: None, header: None }
    }
}

impl From<Decoder> for midspan_decoder {
    fn from(decoder: Decoder) -> Self {
        Session::from(decoder).into()
    }
}

impl Session {
    /// The next outcome. What C has of the last one stays as it is.
    fn next(&mut self) -> Result<DecoderPoll, Failure> {
        match self.held.take() {
            Some(held) => Ok(held),
            None => Ok(self.decoder.poll()?),
        }
    }

    /// Keeps an outcome for C to read, in place of the last one.
    fn keep(&mut self, poll: DecoderPoll) -> midspan_event {
        self.header = None;
        midspan_event::of(self.last.insert(poll), &mut self.header)
    }
}

/// The settings of a decoder. `midspan_decoder_config_init` sets all of them; change what differs.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_decoder_config {
    /// Bytes of this struct. `midspan_decoder_config_init` sets it; another value is MIDSPAN_ERROR_INVALID_ARGUMENT.
    pub struct_size: usize,
    /// Who delimits the chunks; MIDSPAN_BINDING_BYTE_STREAM by default, which reads files too.
    pub binding: midspan_binding,
    /// The most that is accepted from a peer.
    pub limits: midspan_limits,
    /// Bytes that the session may hold, 64 MiB by default. A chunk that would exceed it is refused before anything is
    /// allocated for it (MIDSPAN_ERROR_MEMORY_LIMIT). Input not yet polled does not count.
    pub memory_limit: usize,
    /// The most frames that one poll decodes, 64 by default. A longer chunk takes several polls, each but the last with
    /// MIDSPAN_EVENT_WORKING.
    pub frames_per_poll: usize,
    /// Not 0 if `host_digest` holds one; 0 by default.
    pub has_host_digest: u32,
    /// SHA-256 that identifies the host model's weights (spec 4.7): a header that states another one, or none, is
    /// refused (MIDSPAN_ERROR_WRONG_HOST).
    pub host_digest: [u8; 32],
}

/// The library's settings for C's.
///
/// # Safety
/// As [`settings`].
unsafe fn decoder_config(config: *const midspan_decoder_config) -> Result<DecoderConfig, Failure> {
    // SAFETY: the caller's promise is the same.
    let config = unsafe { settings(config, "config") }?;
    Ok(DecoderConfig::default()
        .binding(binding(config.binding)?.0)
        .limits(config.limits.limits())
        .memory_limit(config.memory_limit)
        .frames_per_poll(config.frames_per_poll)
        .host_digest((config.has_host_digest != 0).then_some(config.host_digest)))
}

/// The place of an argument where a reader joins.
///
/// # Safety
/// As [`input_one`], for `index` if it is not NULL.
pub(crate) unsafe fn join_point(offset: u64, index: *const u64) -> Result<JoinPoint, Failure> {
    let index = match index.is_null() {
        true => None,
        // SAFETY: the caller's promise is the same.
        false => Some(*unsafe { input_one(index, "index") }?),
    };
    Ok(JoinPoint { offset, index })
}

/// Sets a decoder's settings to their defaults, which are those for a peer that nobody trusts.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_config_init(config: *mut midspan_decoder_config) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let config = unsafe { out(config, "config") }?;
        let default = DecoderConfig::default();
        config.set(midspan_decoder_config {
            struct_size: size_of::<midspan_decoder_config>(),
            binding: crate::config::binding_number(default.binding, false),
            limits: midspan_limits::new(default.limits),
            memory_limit: default.memory_limit,
            frames_per_poll: default.frames_per_poll,
            has_host_digest: 0,
            host_digest: [0; 32],
        });
        Ok(())
    })
}

/// Makes a decoder for streams of this model. `*decoder` gets the handle, which `midspan_decoder_free` frees, or NULL.
///
/// Errors: MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_new(
    model: *const midspan_model,
    config: *const midspan_decoder_config,
    decoder: *mut *mut midspan_decoder,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (decoder, codec, config) =
            unsafe { (out_handle(decoder, "decoder")?, codec(model)?, decoder_config(config)?) };
        decoder.give(Decoder::new(codec, config)?.into());
        Ok(())
    })
}

/// Makes a decoder that begins at a context reset or model switch in the middle of a stream (spec 6.6).
///
/// `header` holds the stream's first `header_len` bytes, which must include its header; in the message binding it is
/// the first message. `offset` is the place of the first byte that will be pushed, from the first byte of the stream.
/// `index` points to the absolute index of the next frame there, which a seek index gives (`midspan_file_seek`), or is
/// NULL. The model in force there must be `model` or one that `midspan_decoder_add_model` adds.
///
/// Errors: those of a header (101 to 210, MIDSPAN_ERROR_TRUNCATED for one that is cut), MIDSPAN_ERROR_WRONG_HOST;
/// MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_join(
    model: *const midspan_model,
    config: *const midspan_decoder_config,
    header: *const u8,
    header_len: usize,
    offset: u64,
    index: *const u64,
    decoder: *mut *mut midspan_decoder,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (decoder, codec, config, header, point) = unsafe {
            let decoder = out_handle(decoder, "decoder")?;
            let (codec, config) = (codec(model)?, decoder_config(config)?);
            (decoder, codec, config, input(header, header_len, "header")?, join_point(offset, index)?)
        };
        let header = header_of(header, config.binding)?;
        decoder.give(Decoder::join(codec, config, header, point)?.into());
        Ok(())
    })
}

/// Frees a decoder. What its events point to ends too. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_free(decoder: *mut midspan_decoder) {
    // SAFETY: the header's rules on handles.
    unsafe { free(decoder) }
}

/// Forks a session: `*fork` gets a second decoder that goes on from the same place. `midspan_decoder_free` frees it.
/// What the last event points to stays with `decoder`.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_fork(
    decoder: *const midspan_decoder,
    fork: *mut *mut midspan_decoder,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (fork, session) = unsafe { (out_handle(fork, "fork")?, lock(decoder, "decoder")?) };
        let (decoder, held) = (session.decoder.clone(), session.held.clone());
        fork.give(Session { held, ..decoder.into() }.into());
        Ok(())
    })
}

/// Saves a decoder as bytes for `midspan_decoder_restore`, also in another process. `*bytes` gets them, and
/// `midspan_bytes_free` frees them. Their form belongs to this version of the library; it is not a wire format.
///
/// The bytes include input not yet polled. They do not include the number of threads, the choice of
/// `midspan_decoder_keep_integers` or the models that `midspan_decoder_add_model` added: a restored decoder has one
/// thread, keeps integers, and has the models that `midspan_decoder_restore` gets.
///
/// Errors: MIDSPAN_ERROR_NOT_AVAILABLE while there are events to be polled; the session's own error, if it failed;
/// MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_save(
    decoder: *const midspan_decoder,
    bytes: *mut midspan_bytes,
) -> midspan_result {
    guard(|| {
        let save = || {
            // SAFETY: the header's rules on arguments.
            let session = unsafe { lock(decoder, "decoder") }?;
            if session.held.is_some() {
                let error = Error::of_call(ErrorKind::NotAvailable);
                return Err(error.with_detail("there is an event that did not fit the buffer").into());
            }
            Ok(Bytes::from(session.decoder.save()?))
        };
        // SAFETY: the header's rules on arguments.
        unsafe { give_bytes(bytes, save) }
    })
}

/// Restores the decoder that `midspan_decoder_save` wrote. The model that was in force must be `model` or one of the
/// `model_count` further ones in `models`, which may be NULL if that is 0. The settings must allow what was declared.
/// `*decoder` gets the handle, or NULL.
///
/// Errors: MIDSPAN_ERROR_WRONG_MODEL, with the fingerprint of the needed model in `found_digest` of
/// `midspan_last_error`; MIDSPAN_ERROR_SAVED_SESSION for bytes that are damaged, of another version, or saved under
/// other limits; MIDSPAN_ERROR_MEMORY_LIMIT; MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_restore(
    model: *const midspan_model,
    models: *const *const midspan_model,
    model_count: usize,
    config: *const midspan_decoder_config,
    saved: *const u8,
    len: usize,
    decoder: *mut *mut midspan_decoder,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (decoder, codec, models, config, saved) = unsafe {
            let decoder = out_handle(decoder, "decoder")?;
            let (codec, models) = (codec(model)?, codecs(models, model_count)?);
            (decoder, codec, models, decoder_config(config)?, input(saved, len, "saved")?)
        };
        decoder.give(Decoder::restore(codec, &models, config, saved)?.into());
        Ok(())
    })
}

/// Adds a model that the stream may name, in its header or in a model switch. The decoder keeps its own share of it.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_add_model(
    decoder: *mut midspan_decoder,
    model: *const midspan_model,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut session, codec) = unsafe { (lock(decoder, "decoder")?, codec(model)?) };
        session.decoder.add_model(codec);
        Ok(())
    })
}

/// Lets batches use up to `threads` threads, the caller's included; 1 by default, and 0 means 1. The values stay the
/// same. With many threads, more `frames_per_poll` keep all of them busy.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_set_threads(decoder: *mut midspan_decoder, threads: usize) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let mut session = unsafe { lock(decoder, "decoder") }?;
        session.decoder.set_executor(Arc::new(Threads::new(threads)));
        Ok(())
    })
}

/// Sets whether events of frames bring their integers W and Y: 0 for no, any other value for yes, which is the default.
/// Events of layered mode always bring theirs.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_keep_integers(decoder: *mut midspan_decoder, keep: u32) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { lock(decoder, "decoder") }?.decoder.keep_integers(keep != 0);
        Ok(())
    })
}

/// Writes what the model in force says about itself to `*info`.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_get_model(
    decoder: *const midspan_decoder,
    info: *mut midspan_model_info,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (session, info) = unsafe { (lock(decoder, "decoder")?, out(info, "info")?) };
        info.set(midspan_model_info::new(session.decoder.codec()));
        Ok(())
    })
}

/// Hands in `len` bytes of a byte stream or file, cut anywhere. They are copied.
///
/// Errors: the stream's error, if it had one; MIDSPAN_ERROR_AFTER_END after `midspan_decoder_finish`;
/// MIDSPAN_ERROR_NOT_AVAILABLE in the message binding; MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER,
/// MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_push(
    decoder: *mut midspan_decoder,
    bytes: *const u8,
    len: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut session, bytes) = unsafe { (lock(decoder, "decoder")?, input(bytes, len, "bytes")?) };
        session.decoder.push(bytes)?;
        Ok(())
    })
}

/// Hands in one message, whole. It is copied; an empty one is skipped.
///
/// Errors: as `midspan_decoder_push`, and MIDSPAN_ERROR_NOT_AVAILABLE in a byte stream or file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_push_message(
    decoder: *mut midspan_decoder,
    message: *const u8,
    len: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut session, message) = unsafe { (lock(decoder, "decoder")?, input(message, len, "message")?) };
        session.decoder.push_message(message)?;
        Ok(())
    })
}

/// Hands in a datagram, which should be one message of class MIDSPAN_MESSAGE_DROPPABLE. Both bindings allow it, at any
/// time, also after `midspan_decoder_finish`. It may be damaged, repeated or out of order: any bytes are allowed, each
/// datagram that is not empty gives one event, and none ends the session.
///
/// Errors: the stream's error, if it had one; MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER,
/// MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_push_datagram(
    decoder: *mut midspan_decoder,
    datagram: *const u8,
    len: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut session, datagram) = unsafe { (lock(decoder, "decoder")?, input(datagram, len, "datagram")?) };
        session.decoder.push_datagram(datagram)?;
        Ok(())
    })
}

/// Says that no more input comes: an unfinished stream is an error from then on, instead of a wait.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_finish(decoder: *mut midspan_decoder) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { lock(decoder, "decoder") }?.decoder.finish();
        Ok(())
    })
}

/// Writes what happened next to `*event`. Waiting for more input and the end are events too, not errors. What the event
/// points to is valid until the next poll of this decoder that succeeds.
///
/// Errors: the stream's first error, at every later push and poll again: 101 to 604 and MIDSPAN_ERROR_MEMORY_LIMIT.
/// MIDSPAN_ERROR_TARGET_OVERDUE and MIDSPAN_ERROR_WRONG_SIDE_INDICES are not final: conceal, or give what is wanted,
/// and poll again. MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC. `*event` is not changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_poll(
    decoder: *mut midspan_decoder,
    event: *mut midspan_event,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut session, event) = unsafe { (lock(decoder, "decoder")?, out(event, "event")?) };
        let next = session.next()?;
        event.set(session.keep(next));
        Ok(())
    })
}

/// Polls as `midspan_decoder_poll` does, and writes hidden states to `hidden`, which has room for `capacity` values.
/// `event->hidden` is then `hidden`, and not the decoder's.
///
/// If the hidden states do not fit, the result is MIDSPAN_ERROR_SMALL_BUFFER. `*event` then describes the event:
/// `hidden_len` is the needed number of values, and all pointers are NULL. The event stays the next one, for either
/// poll. The session has decoded it all the same: `midspan_decoder_next_index`, `midspan_decoder_oldest_pending` and
/// `midspan_decoder_conceal` treat its frames as handed out, and `midspan_decoder_memory_bytes` counts its bytes.
///
/// Errors: MIDSPAN_ERROR_SMALL_BUFFER, and as `midspan_decoder_poll`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_poll_into(
    decoder: *mut midspan_decoder,
    hidden: *mut f32,
    capacity: usize,
    event: *mut midspan_event,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut session, hidden, event) =
            unsafe { (lock(decoder, "decoder")?, buffer(hidden, capacity, "hidden")?, out(event, "event")?) };
        let next = session.next()?;
        let values = hidden_of(&next);
        let needed = values.len();
        if let Err(failure) = hidden.fill(values) {
            let shown = midspan_event::of(&next, &mut None);
            event.set(midspan_event {
                hidden: std::ptr::null(),
                w: std::ptr::null(),
                y: std::ptr::null(),
                data: std::ptr::null(),
                ..shown
            });
            session.held = Some(next);
            return Err(failure);
        }
        let kept = session.keep(next);
        let place = if needed > 0 { hidden.place().cast_const() } else { std::ptr::null() };
        event.set(midspan_event { hidden: place, ..kept });
        Ok(())
    })
}

/// Gives the side indices that MIDSPAN_EVENT_SIDE_WANTED asks for, one for each of its frames. An index is at most V,
/// the model's vocabulary, and V says that a frame has none. Poll again afterwards.
///
/// Errors: MIDSPAN_ERROR_WRONG_SIDE_INDICES for another number of indices, for one above V, or if no chunk waits for
/// any; nothing changes then. The stream's error, if it had one. MIDSPAN_ERROR_INVALID_ARGUMENT,
/// MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_give_side(
    decoder: *mut midspan_decoder,
    indices: *const u32,
    count: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut session, indices) = unsafe { (lock(decoder, "decoder")?, input(indices, count, "indices")?) };
        session.decoder.give_side(indices)?;
        Ok(())
    })
}

/// Says which frames a chunk needs side indices for: `*index` gets the absolute index of the first one, and `*count`
/// their number. Both get 0 if no chunk waits for side indices.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_wanted_side(
    decoder: *const midspan_decoder,
    index: *mut u64,
    count: *mut u64,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (session, index, count) =
            unsafe { (lock(decoder, "decoder")?, out(index, "index")?, out(count, "count")?) };
        let (first, wanted) = session.decoder.wanted_side().unwrap_or((0, 0));
        index.set(first);
        count.set(to_u64(wanted));
        Ok(())
    })
}

/// Conceals `count` pending frames from `index` on with the network's means. One MIDSPAN_EVENT_TARGETS follows with all
/// of them. Elements that came in parts keep their values.
///
/// Errors: MIDSPAN_ERROR_FRAME_NOT_PENDING unless all of them are pending; nothing changes then. The stream's error, if
/// it had one. MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_conceal(
    decoder: *mut midspan_decoder,
    index: u64,
    count: u64,
) -> midspan_result {
    guard(|| {
        // More frames than memory can hold are not pending.
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        // SAFETY: the header's rules on arguments.
        unsafe { lock(decoder, "decoder") }?.decoder.conceal(index, count)?;
        Ok(())
    })
}

/// A range of elements of a frame.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_range {
    /// The first one.
    pub first: u64,
    /// The one after the last.
    pub end: u64,
}

/// Writes the elements of a pending frame that have not come to `ranges`, as ranges in ascending order. If no part
/// came, there is one range of all elements. `ranges` has room for `capacity` ranges; `*count` gets their number. If
/// they do not fit, the result is MIDSPAN_ERROR_SMALL_BUFFER, and `*count` gets the needed number.
///
/// Errors: MIDSPAN_ERROR_FRAME_NOT_PENDING, MIDSPAN_ERROR_SMALL_BUFFER, MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY,
/// MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_missing_elements(
    decoder: *const midspan_decoder,
    index: u64,
    ranges: *mut midspan_range,
    capacity: usize,
    count: *mut usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (session, ranges, count) =
            unsafe { (lock(decoder, "decoder")?, buffer(ranges, capacity, "ranges")?, out(count, "count")?) };
        let missing = session.decoder.missing_elements(index).ok_or_else(|| {
            Error::of_call(ErrorKind::FrameNotPending).with(Detail::Id { what: "frame", found: index })
        })?;
        let missing: Vec<_> = missing
            .into_iter()
            .map(|range| midspan_range { first: to_u64(range.start), end: to_u64(range.end) })
            .collect();
        count.set(missing.len());
        ranges.fill(&missing)
    })
}

/// Writes the absolute index of the next frame to `*index`.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_next_index(
    decoder: *const midspan_decoder,
    index: *mut u64,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (session, index) = unsafe { (lock(decoder, "decoder")?, out(index, "index")?) };
        index.set(session.decoder.next_index());
        Ok(())
    })
}

/// Writes an absolute index to `*index`: digests confirmed W and Y of every frame before it.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_confirmed_index(
    decoder: *const midspan_decoder,
    index: *mut u64,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (session, index) = unsafe { (lock(decoder, "decoder")?, out(index, "index")?) };
        index.set(session.decoder.confirmed_index());
        Ok(())
    })
}

/// Writes an absolute index to `*index`: digests confirmed W of every frame before it, so that the encoder can go on
/// from there.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_resume_index(
    decoder: *const midspan_decoder,
    index: *mut u64,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (session, index) = unsafe { (lock(decoder, "decoder")?, out(index, "index")?) };
        index.set(session.decoder.resume_index());
        Ok(())
    })
}

/// Says whether a frame waits for its target, in layered mode: `*pending` gets 1 or 0. If `index` is not NULL, `*index`
/// gets the absolute index of the oldest such frame, or 0.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_oldest_pending(
    decoder: *const midspan_decoder,
    pending: *mut u32,
    index: *mut u64,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (session, pending, index) =
            unsafe { (lock(decoder, "decoder")?, out(pending, "pending")?, out_if_wanted(index, "index")?) };
        let oldest = session.decoder.oldest_pending();
        pending.set(oldest.is_some().into());
        if let Some(index) = index {
            index.set(oldest.unwrap_or(0));
        }
        Ok(())
    })
}

/// Writes the bytes that the session holds to `*bytes`, without its models and without the event that was polled last.
/// An event that did not fit the buffer of `midspan_decoder_poll_into` counts.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_decoder_memory_bytes(
    decoder: *const midspan_decoder,
    bytes: *mut usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (session, bytes) = unsafe { (lock(decoder, "decoder")?, out(bytes, "bytes")?) };
        let held = session.held.as_ref().map_or(0, held_bytes);
        bytes.set(session.decoder.memory_bytes().saturating_add(held));
        Ok(())
    })
}
