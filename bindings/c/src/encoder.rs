//! Encoder sessions.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use midspan::adapter::Threads;
use midspan::codec::{Encoder, EncoderConfig, Sent};
use midspan::error::{Detail, Error, ErrorKind};
use midspan::wire::Identity;

use crate::config::{
    binding, binding_number, check, check_number, clipping, midspan_binding, midspan_check, midspan_clipping,
    midspan_dtype, midspan_mode, midspan_side_delivery, mode, mode_number,
};
use crate::header::{identity, midspan_field, optional_fields};
use crate::memory::{self, free, handle, input, input_rows, lock, out, out_handle, out_if_wanted, settings};
use crate::model::{codec, midspan_model, midspan_model_info};
use crate::output::{give_bytes, midspan_bytes, midspan_message, pop, pop_into, take, take_into};
use crate::result::{Failure, guard, midspan_result, to_u64};

/// An encoder of one stream: hidden states or integers in, bytes out. One call at a time may use it.
///
/// Call order: `midspan_encoder_new`; any of the pushes and control calls; `midspan_encoder_end`;
/// `midspan_encoder_free`. Output can be taken at any time. A call that fails changes nothing, unless it says so.
pub struct midspan_encoder(Mutex<Encoder>);

handle!(midspan_encoder, Encoder);

/// The settings of an encoder. `midspan_encoder_config_init` sets all of them; change what differs.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_encoder_config {
    /// Bytes of this struct. `midspan_encoder_config_init` sets it; another value is MIDSPAN_ERROR_INVALID_ARGUMENT.
    pub struct_size: usize,
    /// Joined or layered; MIDSPAN_MODE_JOINED by default.
    pub mode: midspan_mode,
    /// Who delimits the chunks; MIDSPAN_BINDING_BYTE_STREAM by default.
    pub binding: midspan_binding,
    /// The check of joined and hyper-prior chunks; MIDSPAN_CHECK_ONE by default.
    pub check: midspan_check,
    /// What happens to hidden states outside the range of the quality; MIDSPAN_CLIPPING_REPORT by default.
    pub clipping: midspan_clipping,
    /// Not 0 if `identity` holds one.
    pub has_identity: u32,
    /// Eight bytes from the caller's random number generator that no other stream has, so that bytes spliced in from
    /// another stream are detected (spec 2.2).
    pub identity: [u8; 8],
    /// Not 0 if `host_digest` holds one; 0 by default.
    pub has_host_digest: u32,
    /// SHA-256 that identifies the host model's weights (spec 4.7), if the decoder is to compare it.
    pub host_digest: [u8; 32],
    /// Quality index at the start; 0 by default.
    pub quality: u8,
    /// Lanes of a batch chunk (spec 2.6), 1 to 1,024; 1 by default.
    pub lanes: u16,
    /// The length offset (spec 2.3), 0 to 16,383, if `has_length_offset` is not 0. Otherwise the encoder takes the
    /// model's recommendation in joined mode, and 0 in layered mode.
    pub length_offset: u16,
    /// Not 0 if `length_offset` applies; 0 by default.
    pub has_length_offset: u32,
    /// Most frames of one chunk, 1 to 2^20; larger batches are split. 256 by default, which decoders accept by default.
    pub max_frames_per_chunk: u32,
    /// Most bytes of one chunk's body, 72 to 2^30; 4 MiB by default.
    pub max_chunk_bytes: u32,
    /// How many frames a rewind may go back, 0 to 2^20; 64 by default.
    pub max_rewind: u32,
    /// Layered mode: how many frames back the oldest frame without a target may be, 1 to 28,672; 1,024 by default.
    pub target_horizon: u32,
    /// Layered mode: no message that holds a target is longer than this many bytes, so that each fits a datagram. At
    /// least 256; 0, the default, sets no limit.
    pub datagram_limit: u32,
    /// A checkpoint is sent whenever this many frames were coded since the last one; 256 by default. With 0 only
    /// `midspan_encoder_checkpoint` sends one.
    pub checkpoint_interval: u32,
    /// Squared quantiser steps that the encoder gives for one bit when it chooses Y (spec 6.8), if `has_rate_weight` is
    /// not 0: finite and at least 0. A weight of 0 sends the nearest integers. Otherwise the encoder takes the model's
    /// own weight.
    pub rate_weight: f32,
    /// Not 0 if `rate_weight` applies; 0 by default.
    pub has_rate_weight: u32,
    /// Bytes that the session may hold, 64 MiB by default: contexts, output not yet taken, and what coding a push
    /// takes.
    pub memory_limit: usize,
    /// Optional fields of the stream header, in ascending order of id; NULL by default. They are copied when the
    /// encoder is made.
    pub fields: *const midspan_field,
    /// How many; 0 by default.
    pub field_count: usize,
}

/// Sums over the frames that an encoder has sent, those that were rewound included.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_sent {
    /// Frames.
    pub frames: u64,
    /// Values of W.
    pub w_values: u64,
    /// Values of Y.
    pub y_values: u64,
    /// Values of Y that lay outside the range of the quality and were clamped.
    pub clipped: u64,
    /// Values of W and of Y that their tables do not hold.
    pub escaped: u64,
    /// Bits of the payloads of W and of Y. Framing, checks and side indices are not counted.
    pub payload_bits: u64,
    /// Frames of which the model says how many bits it expects.
    pub compared_frames: u64,
    /// Payload bits of these frames.
    pub compared_bits: u64,
    /// Bits that the model expects of these frames.
    pub expected_bits: u64,
}

impl midspan_sent {
    fn new(sent: Sent) -> Self {
        Self {
            frames: sent.frames,
            w_values: sent.w_values,
            y_values: sent.y_values,
            clipped: sent.clipped,
            escaped: sent.escaped,
            payload_bits: sent.payload_bits,
            compared_frames: sent.compared_frames,
            compared_bits: sent.compared_bits,
            expected_bits: sent.expected_bits(),
        }
    }
}

/// The library's settings for C's.
///
/// # Safety
/// As [`settings`], for the settings and for what they point to.
unsafe fn encoder_config(config: *const midspan_encoder_config) -> Result<EncoderConfig, Failure> {
    // SAFETY: the caller's promise is the same.
    let config = unsafe { settings(config, "config") }?;
    let (binding, file) = binding(config.binding)?;
    // SAFETY: the caller's promise is the same.
    let fields = unsafe { optional_fields(config.fields, config.field_count) }?;
    Ok(EncoderConfig::new(identity(config.has_identity, config.identity))
        .mode(mode(config.mode)?)
        .binding(binding)
        .file(file)
        .check(check(config.check)?)
        .quality(config.quality)
        .host_digest((config.has_host_digest != 0).then_some(config.host_digest))
        .max_frames_per_chunk(config.max_frames_per_chunk)
        .max_chunk_bytes(config.max_chunk_bytes)
        .max_rewind(config.max_rewind)
        .target_horizon(config.target_horizon)
        .datagram_limit((config.datagram_limit != 0).then_some(config.datagram_limit))
        .checkpoint_interval(config.checkpoint_interval)
        .lanes(config.lanes)
        .rate_weight((config.has_rate_weight != 0).then_some(config.rate_weight))
        .length_offset((config.has_length_offset != 0).then_some(config.length_offset))
        .memory_limit(config.memory_limit)
        .clipping(clipping(config.clipping)?)
        .fields(fields))
}

/// Refuses rows of another width than the model's.
pub(crate) fn check_width(what: &'static str, width: usize, wanted: usize) -> Result<(), Failure> {
    match width == wanted {
        true => Ok(()),
        false => {
            let detail = Detail::Number { what, wanted: to_u64(wanted), found: to_u64(width) };
            Err(Error::of_call(ErrorKind::WrongShape).with(detail).into())
        }
    }
}

/// What the width of hidden states and of Y is called in errors.
const E: &str = "width, values of a frame";

/// Sets an encoder's settings to their defaults. `identity` is eight random bytes, which are copied, or NULL for none.
/// Without an identity, bytes spliced in from another stream of the same model may go unnoticed: leave it out only if
/// the transport keeps streams apart.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER for `config`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_config_init(
    config: *mut midspan_encoder_config,
    identity: *const u8,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (config, bytes) =
            unsafe { (out(config, "config")?, input(identity, if identity.is_null() { 0 } else { 8 }, "identity")?) };
        let identity = <[u8; 8]>::try_from(bytes).ok();
        let default = EncoderConfig::new(Identity::none());
        config.set(midspan_encoder_config {
            struct_size: size_of::<midspan_encoder_config>(),
            mode: mode_number(default.mode),
            binding: binding_number(default.binding, default.file),
            check: check_number(default.check),
            clipping: crate::config::MIDSPAN_CLIPPING_REPORT,
            has_identity: identity.is_some().into(),
            identity: identity.unwrap_or_default(),
            has_host_digest: 0,
            host_digest: [0; 32],
            quality: default.quality,
            lanes: default.lanes,
            length_offset: 0,
            has_length_offset: 0,
            max_frames_per_chunk: default.max_frames_per_chunk,
            max_chunk_bytes: default.max_chunk_bytes,
            max_rewind: default.max_rewind,
            target_horizon: default.target_horizon,
            datagram_limit: default.datagram_limit.unwrap_or(0),
            checkpoint_interval: default.checkpoint_interval,
            rate_weight: 0.0,
            has_rate_weight: 0,
            memory_limit: default.memory_limit,
            fields: std::ptr::null(),
            field_count: 0,
        });
        Ok(())
    })
}

/// Opens a stream; its header is the first output. `*encoder` gets the handle, which `midspan_encoder_free` frees, or
/// NULL.
///
/// Errors: MIDSPAN_ERROR_UNKNOWN_QUALITY; MIDSPAN_ERROR_BAD_CONFIG for a setting out of its range, with its name;
/// MIDSPAN_ERROR_PREDICTION_LAYERED for layered mode with a model that predicts; MIDSPAN_ERROR_MEMORY_LIMIT if the
/// contexts may come to more than `memory_limit`; MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_new(
    model: *const midspan_model,
    config: *const midspan_encoder_config,
    encoder: *mut *mut midspan_encoder,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (encoder, codec, config) =
            unsafe { (out_handle(encoder, "encoder")?, codec(model)?, encoder_config(config)?) };
        encoder.give(Encoder::new(codec, config)?.into());
        Ok(())
    })
}

/// Frees an encoder, with output not yet taken. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_free(encoder: *mut midspan_encoder) {
    // SAFETY: the header's rules on handles.
    unsafe { free(encoder) }
}

/// Forks a stream: `*fork` gets a second encoder that goes on from the same place, with the same output not yet taken
/// and the same threads. `midspan_encoder_free` frees it.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_fork(
    encoder: *const midspan_encoder,
    fork: *mut *mut midspan_encoder,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (fork, encoder) = unsafe { (out_handle(fork, "fork")?, lock(encoder, "encoder")?) };
        fork.give(encoder.clone().into());
        Ok(())
    })
}

/// Saves an encoder as bytes for `midspan_encoder_restore`, also in another process. `*bytes` gets them, and
/// `midspan_bytes_free` frees them. Their form belongs to this version of the library; it is not a wire format.
///
/// The bytes include output not yet taken, and side indices that no push has used. They do not include the number of
/// threads, the choice of `midspan_encoder_keep_integers` or the integers of the last push: a restored encoder has one
/// thread, keeps integers, and has none yet.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_save(
    encoder: *const midspan_encoder,
    bytes: *mut midspan_bytes,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { give_bytes(bytes, || Ok(Bytes::from(lock(encoder, "encoder")?.save()))) }
    })
}

/// Restores the encoder that `midspan_encoder_save` wrote. `model` is the one that was in force; `memory_limit` is the
/// limit of the settings from then on, in bytes. `*encoder` gets the handle, or NULL.
///
/// Errors: MIDSPAN_ERROR_WRONG_MODEL, with the fingerprint of the needed model in `found_digest` of
/// `midspan_last_error`; MIDSPAN_ERROR_SAVED_SESSION for bytes that are damaged or of another version;
/// MIDSPAN_ERROR_MEMORY_LIMIT; MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_restore(
    model: *const midspan_model,
    saved: *const u8,
    len: usize,
    memory_limit: usize,
    encoder: *mut *mut midspan_encoder,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (encoder, codec, saved) =
            unsafe { (out_handle(encoder, "encoder")?, codec(model)?, input(saved, len, "saved")?) };
        encoder.give(Encoder::restore(codec, saved, memory_limit)?.into());
        Ok(())
    })
}

/// Lets batches use up to `threads` threads, the caller's included; 1 by default, and 0 means 1. The bytes stay the
/// same. Each push starts its threads and ends them before it returns, which takes some tens of microseconds.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_set_threads(encoder: *mut midspan_encoder, threads: usize) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let mut encoder = unsafe { lock(encoder, "encoder") }?;
        encoder.set_executor(Arc::new(Threads::new(threads)));
        Ok(())
    })
}

/// Writes what the model in force says about itself to `*info`.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_get_model(
    encoder: *const midspan_encoder,
    info: *mut midspan_model_info,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (encoder, info) = unsafe { (lock(encoder, "encoder")?, out(info, "info")?) };
        info.set(midspan_model_info::new(encoder.codec()));
        Ok(())
    })
}

/// Gives the side indices of the frames of the next push, one for each (spec 6.12). If the model takes side indices,
/// every push needs such a call before it; V, the model's vocabulary, says that a frame has none. `indices` holds
/// `count` of them, which are copied; `delivery` says where the decoder has them from.
///
/// A second call replaces what the first one gave. The indices stay until a push uses them, also through a push that is
/// refused, a rewind or a reset. A model switch drops them.
///
/// Errors: MIDSPAN_ERROR_WRONG_SIDE_INDICES for an index above V, or if the model takes none;
/// MIDSPAN_ERROR_MEMORY_LIMIT; MIDSPAN_ERROR_AFTER_END; MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER,
/// MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_set_side(
    encoder: *mut midspan_encoder,
    indices: *const u32,
    count: usize,
    delivery: midspan_side_delivery,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut encoder, indices) = unsafe { (lock(encoder, "encoder")?, input(indices, count, "indices")?) };
        encoder.set_side(indices, crate::config::delivery(delivery)?)?;
        Ok(())
    })
}

/// Codes hidden states: `frames` rows of `width` values each, one after the other, in the machine's byte order. `width`
/// must be E, the model's hidden width. One frame gives a one-frame chunk, more give batch chunks.
///
/// Values outside the range of the quality are clamped and counted, or refused if the settings say so. The thread's
/// floating-point unit must be in its default mode, which rounds to the nearest and keeps subnormal numbers.
///
/// Errors: MIDSPAN_ERROR_WRONG_SHAPE for another width or no frame; MIDSPAN_ERROR_HIDDEN_NOT_FINITE with frame and
/// element of the first value that is NaN or infinite; MIDSPAN_ERROR_HIDDEN_CLIPPED; MIDSPAN_ERROR_FLOAT_MODE;
/// MIDSPAN_ERROR_NOT_AVAILABLE without an encoder's part in the model; MIDSPAN_ERROR_WRONG_SIDE_INDICES;
/// MIDSPAN_ERROR_AFTER_END; MIDSPAN_ERROR_MEMORY_LIMIT: take the output, and push again;
/// MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_push_hidden(
    encoder: *mut midspan_encoder,
    hidden: *const f32,
    frames: usize,
    width: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let mut encoder = unsafe { lock(encoder, "encoder") }?;
        check_width(E, width, encoder.codec().model().hidden_width())?;
        // SAFETY: the same. The width is judged before: rows of another one are not there to be read.
        let hidden = unsafe { input_rows(hidden, (frames, width), "hidden") }?;
        encoder.push_hidden(hidden)?;
        Ok(())
    })
}

/// Codes target integers Y: `frames` rows of `width` values each; `width` must be E. The model's network h makes W.
///
/// Errors: as `midspan_encoder_push_hidden`, and MIDSPAN_ERROR_VALUE_OUT_OF_RANGE with the place of a value outside the
/// range that the model declares.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_push_y(
    encoder: *mut midspan_encoder,
    y: *const i16,
    frames: usize,
    width: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let mut encoder = unsafe { lock(encoder, "encoder") }?;
        check_width(E, width, encoder.codec().model().hidden_width())?;
        // SAFETY: the same, for rows of this width.
        let y = unsafe { input_rows(y, (frames, width), "y") }?;
        encoder.push_y(y)?;
        Ok(())
    })
}

/// Codes target integers Y, `frames` rows of `y_width` values, with hyper-prior integers W of the caller's choice,
/// `frames` rows of `w_width` values. The widths must be E and C. The model needs no encoder's part.
///
/// Errors: as `midspan_encoder_push_y`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_push_integers(
    encoder: *mut midspan_encoder,
    y: *const i16,
    y_width: usize,
    w: *const i16,
    w_width: usize,
    frames: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let mut encoder = unsafe { lock(encoder, "encoder") }?;
        let model = encoder.codec().model();
        check_width(E, y_width, model.hidden_width())?;
        check_width("w_width, values of W in a frame", w_width, model.hyper_prior_width())?;
        // SAFETY: the same, for rows of these widths.
        let (y, w) = unsafe { (input_rows(y, (frames, y_width), "y")?, input_rows(w, (frames, w_width), "w")?) };
        encoder.push_integers(y, w)?;
        Ok(())
    })
}

/// Codes one frame as usual and adds its hidden state without loss (spec 6.9). `hidden` holds E little-endian values of
/// type `dtype`, in `len` bytes; they need no alignment. Values outside the range of the quality are counted and
/// never refused.
///
/// Errors: as `midspan_encoder_push_hidden`; MIDSPAN_ERROR_WRONG_SHAPE unless it is one frame of that type;
/// MIDSPAN_ERROR_CHUNK_TOO_LONG if it does not fit `max_chunk_bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_push_exact(
    encoder: *mut midspan_encoder,
    dtype: midspan_dtype,
    hidden: *const u8,
    len: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut encoder, hidden) = unsafe { (lock(encoder, "encoder")?, input(hidden, len, "hidden")?) };
        encoder.push_exact(crate::config::dtype(dtype)?, hidden)?;
        Ok(())
    })
}

/// Writes the integers nearest to hidden states to `y`, without coding them (spec 6.8). `hidden` holds `frames` rows of
/// `width` values; `width` must be E. `y` has room for `capacity` values; frames · width are needed.
///
/// Errors: as `midspan_encoder_push_hidden`, and MIDSPAN_ERROR_SMALL_BUFFER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_quantise(
    encoder: *const midspan_encoder,
    hidden: *const f32,
    frames: usize,
    width: usize,
    y: *mut i16,
    capacity: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (encoder, y) = unsafe { (lock(encoder, "encoder")?, memory::buffer(y, capacity, "y")?) };
        check_width(E, width, encoder.codec().model().hidden_width())?;
        // SAFETY: the same, for rows of this width.
        let hidden = unsafe { input_rows(hidden, (frames, width), "hidden") }?;
        y.holds(hidden.len())?;
        y.fill(&encoder.quantise(hidden)?)
    })
}

/// Sends a checkpoint: absolute index and both digests.
///
/// Errors: MIDSPAN_ERROR_AFTER_END, MIDSPAN_ERROR_MEMORY_LIMIT, MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY,
/// MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_checkpoint(encoder: *mut midspan_encoder) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { lock(encoder, "encoder") }?.checkpoint()?;
        Ok(())
    })
}

/// Begins a new context; a decoder may join there.
///
/// Errors: as `midspan_encoder_checkpoint`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_reset(encoder: *mut midspan_encoder) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { lock(encoder, "encoder") }?.reset()?;
        Ok(())
    })
}

/// Moves the timeline back, so that the frame with the absolute index `index` is the next one again.
///
/// Errors: MIDSPAN_ERROR_REWIND_TARGET for an index before the context or not back at all;
/// MIDSPAN_ERROR_REWIND_TOO_FAR; and as `midspan_encoder_checkpoint`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_rewind(encoder: *mut midspan_encoder, index: u64) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { lock(encoder, "encoder") }?.rewind(index)?;
        Ok(())
    })
}

/// Switches to another quality from the next frame on, in the same context.
///
/// Errors: MIDSPAN_ERROR_UNKNOWN_QUALITY, and as `midspan_encoder_checkpoint`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_set_quality(encoder: *mut midspan_encoder, quality: u8) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { lock(encoder, "encoder") }?.set_quality(quality)?;
        Ok(())
    })
}

/// Switches to another model, in this quality, from the next frame on, in a new context. The decoder must have the
/// model. Side indices that `midspan_encoder_set_side` gave and no push has used are dropped.
///
/// Errors: MIDSPAN_ERROR_UNKNOWN_QUALITY; MIDSPAN_ERROR_WRONG_SIDE_FLAG if one model takes side indices and the other
/// does not; MIDSPAN_ERROR_PREDICTION_LAYERED; MIDSPAN_ERROR_BAD_CONFIG; and as `midspan_encoder_checkpoint`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_switch_model(
    encoder: *mut midspan_encoder,
    model: *const midspan_model,
    quality: u8,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut encoder, codec) = unsafe { (lock(encoder, "encoder")?, codec(model)?) };
        encoder.switch_model(codec, quality)?;
        Ok(())
    })
}

/// Sends an ignorable extension (spec 2.8) of this id, with `len` bytes of data.
///
/// Errors: MIDSPAN_ERROR_CHUNK_TOO_LONG, and as `midspan_encoder_checkpoint`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_extension(
    encoder: *mut midspan_encoder,
    id: u32,
    data: *const u8,
    len: usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut encoder, data) = unsafe { (lock(encoder, "encoder")?, input(data, len, "data")?) };
        encoder.extension(id, data)?;
        Ok(())
    })
}

/// Ends the stream. Take the output afterwards. No memory limit refuses this call.
///
/// Errors: MIDSPAN_ERROR_AFTER_END if it has ended; MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY,
/// MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_end(encoder: *mut midspan_encoder) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { lock(encoder, "encoder") }?.end()?;
        Ok(())
    })
}

/// Takes the bytes written so far, in a byte stream or file, without a copy. `*bytes` gets them, and
/// `midspan_bytes_free` frees them. There may be none. What `*bytes` held before is not freed.
///
/// Errors: MIDSPAN_ERROR_NOT_AVAILABLE in the message binding; MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY,
/// MIDSPAN_ERROR_PANIC. `*bytes` is not changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_take_bytes(
    encoder: *mut midspan_encoder,
    bytes: *mut midspan_bytes,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut encoder, bytes) = unsafe { (lock(encoder, "encoder")?, out(bytes, "bytes")?) };
        take(&mut *encoder, &bytes)
    })
}

/// Takes the bytes written so far, in a byte stream or file, and copies them to `buffer`, which has room for `capacity`
/// bytes. `*len` gets their number. If they do not fit, the result is MIDSPAN_ERROR_SMALL_BUFFER, `*len` gets the
/// needed number, and the bytes stay in the encoder. A capacity of 0 asks for the number alone.
///
/// Errors: MIDSPAN_ERROR_SMALL_BUFFER, and as `midspan_encoder_take_bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_take_bytes_into(
    encoder: *mut midspan_encoder,
    buffer: *mut u8,
    capacity: usize,
    len: *mut usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut encoder, buffer, len) =
            unsafe { (lock(encoder, "encoder")?, memory::buffer(buffer, capacity, "buffer")?, out(len, "len")?) };
        take_into(&mut *encoder, &buffer, &len)
    })
}

/// Takes the next message, in the message binding, without a copy. `*message` gets it, and `midspan_bytes_free` frees
/// its bytes. If all messages were taken, `message_class` is MIDSPAN_MESSAGE_NONE. What `*message` held before is not
/// freed.
///
/// Errors: MIDSPAN_ERROR_NOT_AVAILABLE in a byte stream or file; MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY,
/// MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_pop_message(
    encoder: *mut midspan_encoder,
    message: *mut midspan_message,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut encoder, message) = unsafe { (lock(encoder, "encoder")?, out(message, "message")?) };
        pop(&mut *encoder, &message)
    })
}

/// Takes the next message, in the message binding, and copies it to `buffer`, which has room for `capacity` bytes.
/// `message->bytes` is then the buffer, and needs no freeing. If the message does not fit, the result is
/// MIDSPAN_ERROR_SMALL_BUFFER, `*message` describes the message with the needed number in `bytes.len` and no data, and
/// the message stays the next one.
///
/// Errors: MIDSPAN_ERROR_SMALL_BUFFER, and as `midspan_encoder_pop_message`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_pop_message_into(
    encoder: *mut midspan_encoder,
    buffer: *mut u8,
    capacity: usize,
    message: *mut midspan_message,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (mut encoder, buffer, message) = unsafe {
            (lock(encoder, "encoder")?, memory::buffer(buffer, capacity, "buffer")?, out(message, "message")?)
        };
        pop_into(&mut *encoder, &buffer, &message)
    })
}

/// Writes the absolute index of the next frame to `*index`.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_next_index(
    encoder: *const midspan_encoder,
    index: *mut u64,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (encoder, index) = unsafe { (lock(encoder, "encoder")?, out(index, "index")?) };
        index.set(encoder.next_index());
        Ok(())
    })
}

/// Sets whether pushes keep the integers that they send, for `midspan_encoder_last_integers`: 0 for no, any other value
/// for yes, which is the default.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_keep_integers(encoder: *mut midspan_encoder, keep: u32) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        unsafe { lock(encoder, "encoder") }?.keep_integers(keep != 0);
        Ok(())
    })
}

/// Gives the integers of the last push, row by row. `*w` and `*y` get pointers to W, [T, C], and to Y, [T, E]; `*w_len`
/// and `*y_len` get their numbers of values. If no integers were kept, the pointers are NULL and the numbers 0. What
/// the pointers lead to belongs to the encoder and is valid until its next push, or its `_free`.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_last_integers(
    encoder: *const midspan_encoder,
    w: *mut *const i16,
    w_len: *mut usize,
    y: *mut *const i16,
    y_len: *mut usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (encoder, w, w_len, y, y_len) = unsafe {
            (lock(encoder, "encoder")?, out(w, "w")?, out(w_len, "w_len")?, out(y, "y")?, out(y_len, "y_len")?)
        };
        let part = |values: Option<&Vec<i16>>| {
            values.filter(|values| !values.is_empty()).map_or((std::ptr::null(), 0), |all| (all.as_ptr(), all.len()))
        };
        let integers = encoder.last_integers();
        let (all_w, all_y) = (part(integers.map(|both| &both.w)), part(integers.map(|both| &both.y)));
        w.set(all_w.0);
        w_len.set(all_w.1);
        y.set(all_y.0);
        y_len.set(all_y.1);
        Ok(())
    })
}

/// Writes to `*clipped` how many values of the last push were outside the range of the quality and were clamped.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_last_clipped(
    encoder: *const midspan_encoder,
    clipped: *mut u64,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (encoder, clipped) = unsafe { (lock(encoder, "encoder")?, out(clipped, "clipped")?) };
        clipped.set(encoder.last_clipped());
        Ok(())
    })
}

/// Writes the sums over all frames since the session began to `*sent`. Forks and restored sessions keep counting.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_sent(
    encoder: *const midspan_encoder,
    sent: *mut midspan_sent,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (encoder, sent) = unsafe { (lock(encoder, "encoder")?, out(sent, "sent")?) };
        sent.set(midspan_sent::new(encoder.sent()));
        Ok(())
    })
}

/// Judges whether the model in force was made for what the session sends. `*unlike` gets 1 if it was not, else 0.
///
/// It gets 1 if the last few hundred frames took more than 8/5 of the bits that the model expects, if the tables lack
/// more than 1 % of the values, or if more than 0.1 % of the values were clamped. With fewer than 128 frames it gets 0.
/// If `recent` is not NULL, `*recent` gets the sums on which this is judged.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_unlike(
    encoder: *const midspan_encoder,
    unlike: *mut u32,
    recent: *mut midspan_sent,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (encoder, unlike, recent) =
            unsafe { (lock(encoder, "encoder")?, out(unlike, "unlike")?, out_if_wanted(recent, "recent")?) };
        unlike.set(encoder.unlike().is_some().into());
        if let Some(recent) = recent {
            recent.set(midspan_sent::new(encoder.recently_sent()));
        }
        Ok(())
    })
}

/// Writes the bytes that the session holds to `*bytes`, without its model.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_encoder_memory_bytes(
    encoder: *const midspan_encoder,
    bytes: *mut usize,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (encoder, bytes) = unsafe { (lock(encoder, "encoder")?, out(bytes, "bytes")?) };
        bytes.set(encoder.memory_bytes());
        Ok(())
    })
}
