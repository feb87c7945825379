//! Codec models.

use std::sync::Arc;

use midspan::codec::Codec;
use midspan::error::{Detail, Error, ErrorKind};

use crate::memory::{free, input, input_one, out, out_handle, shared};
use crate::result::{Failure, guard, midspan_result, to_u64};

/// A codec model, prepared for this CPU. It never changes; any number of threads may use it, and sessions share it. It
/// may be freed while sessions that were made of it go on.
pub struct midspan_model(pub(crate) Arc<Codec>);

const _: () = shared::<midspan_model>();

/// What a model says about itself.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_model_info {
    /// E, values of a hidden state.
    pub hidden_width: usize,
    /// C, values of the hyper-prior W in a frame.
    pub hyper_prior_width: usize,
    /// The number of qualities; they are counted from 0, which is the coarsest of the default model.
    pub qualities: u32,
    /// The model's version, information only.
    pub version: u32,
    /// 1 if it has an encoder's part, so that hidden states can be pushed, else 0.
    pub has_encoder: u32,
    /// 1 if it takes a side index for every frame (spec 6.12), else 0.
    pub takes_side: u32,
    /// V, if it takes side indices: they are 0 to V - 1, and V says that a frame has none. Else 0.
    pub side_vocabulary: u32,
    /// How many side indices decide about a frame, its own and those of the frames before it; 0 if it takes none.
    pub side_ages: u32,
    /// How many frames back it predicts from (spec 4.9); 0 if it does not. A model that predicts has no layered mode.
    pub predicted_from: u32,
    /// The smallest and the largest value of W.
    pub w_min: i16,
    /// See `w_min`.
    pub w_max: i16,
    /// The smallest and the largest value of Y.
    pub y_min: i16,
    /// See `y_min`.
    pub y_max: i16,
    /// SHA-256 over all that a decoder uses of it (spec 4.6). Streams name it.
    pub fingerprint: [u8; 32],
}

/// What a model says about one of its qualities.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_quality_info {
    /// A hidden state whose values lie within `range_low` and `range_high` is never clamped, in a model without maps
    /// around its quantiser; with full maps the range is that of the mapped values, and with sparse maps that of
    /// differences.
    pub range_low: f32,
    /// See `range_low`.
    pub range_high: f32,
    /// The weight with which an encoder chooses Y by its rate (spec 6.8): squared quantiser steps for one bit.
    pub rate_weight: f32,
    /// The mean bits of a frame's payloads that are expected, one frame a chunk, in joined mode; 0 if the model does
    /// not say.
    pub expected_bits: f32,
    /// The length offset that the model recommends (spec 2.3).
    pub length_offset: u16,
}

impl midspan_model_info {
    pub(crate) fn new(codec: &Codec) -> Self {
        let model = codec.model();
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let ((w_min, w_max), (y_min, y_max)) = (model.w_range(), model.y_range());
        Self {
            hidden_width: model.hidden_width(),
            hyper_prior_width: model.hyper_prior_width(),
            qualities: small(model.qualities()),
            version: model.version(),
            has_encoder: codec.encodes().into(),
            takes_side: model.side().is_some().into(),
            side_vocabulary: model.side().map_or(0, |side| side.vocabulary()),
            side_ages: model.side().map_or(0, |side| small(side.ages())),
            predicted_from: small(model.predicted_from()),
            w_min,
            w_max,
            y_min,
            y_max,
            fingerprint: *codec.fingerprint(),
        }
    }
}

/// The model in a handle.
///
/// # Safety
/// As [`input_one`].
pub(crate) unsafe fn codec(model: *const midspan_model) -> Result<Arc<Codec>, Failure> {
    // SAFETY: the caller's promise is the same.
    unsafe { input_one(model, "model") }.map(|model| Arc::clone(&model.0))
}

/// The models in an array of handles.
///
/// # Safety
/// As [`input`], for the array and for each handle in it.
pub(crate) unsafe fn codecs(models: *const *const midspan_model, count: usize) -> Result<Vec<Arc<Codec>>, Failure> {
    // SAFETY: the caller's promise is the same.
    let models = unsafe { input(models, count, "models") }?;
    // SAFETY: the caller's promise is the same.
    models.iter().map(|model| unsafe { codec(*model) }).collect()
}

/// Reads a model file (spec chapter 4) from memory and prepares it for this CPU. `file` holds `len` bytes, which are
/// not needed afterwards. `memory_limit`, in bytes, bounds the file and the memory for parsing it; 1 << 30 suits files
/// that are trusted. `*model` gets the handle, which `midspan_model_free` frees, or NULL.
///
/// Errors: 701 to 708 for a file that is no valid model, MIDSPAN_ERROR_MEMORY_LIMIT,
/// MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_model_load(
    file: *const u8,
    len: usize,
    memory_limit: usize,
    model: *mut *mut midspan_model,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (model, file) = unsafe { (out_handle(model, "model")?, input(file, len, "file")?) };
        model.give(midspan_model(Arc::new(Codec::from_bytes(file, memory_limit)?)));
        Ok(())
    })
}

/// Frees a model. Sessions that were made of it go on. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_model_free(model: *mut midspan_model) {
    // SAFETY: the header's rules on handles.
    unsafe { free(model) }
}

/// Writes what a model says about itself to `*info`.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_model_get_info(
    model: *const midspan_model,
    info: *mut midspan_model_info,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (codec, info) = unsafe { (codec(model)?, out(info, "info")?) };
        info.set(midspan_model_info::new(&codec));
        Ok(())
    })
}

/// Writes what a model says about one of its qualities to `*info`.
///
/// Errors: MIDSPAN_ERROR_UNKNOWN_QUALITY, MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_model_get_quality(
    model: *const midspan_model,
    quality: u8,
    info: *mut midspan_quality_info,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (codec, info) = unsafe { (codec(model)?, out(info, "info")?) };
        let (model, index) = (codec.model(), usize::from(quality));
        if index >= model.qualities() {
            let (what, wanted) = ("quality below", to_u64(model.qualities()));
            let detail = Detail::Number { what, wanted, found: quality.into() };
            return Err(Error::of_call(ErrorKind::UnknownQuality).with(detail).into());
        }
        let (range_low, range_high) = model.common_range(index);
        info.set(midspan_quality_info {
            range_low,
            range_high,
            rate_weight: model.rate_weight(index),
            expected_bits: model.expected_bits(index).unwrap_or(0.0),
            length_offset: model.length_offset(index),
        });
        Ok(())
    })
}
