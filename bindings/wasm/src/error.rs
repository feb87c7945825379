//! Why a call failed, and what JavaScript throws then.

use js_sys::Uint8Array;
use midspan::error::{Detail, Error, Fault, Limit};
use wasm_bindgen::JsValue;

use crate::number::{count, exact, rounded};
use crate::objects;

/// This package's own number, which is the C library's.
const INVALID_ARGUMENT: i32 = -2;

/// Why a call failed.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The library's own error.
    Library(Error),
    /// An argument has a value that means nothing.
    Argument(String),
    /// An argument has too few bytes.
    Short { what: &'static str, wanted: usize, found: usize },
    /// There is no memory for so many bytes.
    Memory(usize),
    /// An index or a place that JavaScript's numbers do not hold.
    Beyond(u64),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Library(error)
    }
}

/// A setting's name as JavaScript's option: `maxFrames` for `Limits::max_frames`.
fn option(setting: &'static str) -> &'static str {
    match setting.rsplit("::").next() {
        Some("datagram_limit") => "datagramLimit",
        Some("early_bytes") => "earlyBytes",
        Some("format_version") => "formatVersion",
        Some("length_offset") => "lengthOffset",
        Some("max_chunk_bytes") => "maxChunkBytes",
        Some("max_frames") => "maxFrames",
        Some("max_frames_per_chunk") => "maxFramesPerChunk",
        Some("max_rewind") => "maxRewind",
        Some("memory_limit") => "memoryLimit",
        Some("rate_weight") => "rateWeight",
        Some("target_horizon") => "targetHorizon",
        _ => setting,
    }
}

/// The same error, with settings named as JavaScript's options.
fn in_javascript(error: Error) -> Error {
    match error.detail() {
        Some(Detail::Limit { what, limit: Limit::Own(setting), most, found }) => {
            error.with(Detail::Limit { what, limit: Limit::Own(option(setting)), most, found })
        }
        Some(Detail::Setting { name, low, high, found }) => {
            error.with(Detail::Setting { name: option(name), low, high, found })
        }
        Some(Detail::Float { name, wanted, bits }) => error.with(Detail::Float { name: option(name), wanted, bits }),
        _ => error,
    }
}

/// A number of an error, also one beyond JavaScript's numbers.
fn fact(value: i128) -> JsValue {
    match i32::try_from(value) {
        Ok(value) => value.into(),
        Err(_) => match u64::try_from(value).ok().and_then(exact) {
            Some(value) => value.into(),
            None => value.into(),
        },
    }
}

fn digest(digest: &[u8; 32]) -> JsValue {
    Uint8Array::from(&digest[..]).into()
}

/// What was wanted and what was found, as JavaScript's numbers or digests.
fn facts(error: &Error) -> (JsValue, JsValue) {
    if let Some((wanted, found)) = error.digests() {
        return (digest(&wanted), found.map_or(JsValue::NULL, |found| digest(&found)));
    }
    let Some(detail) = error.detail() else { return (JsValue::NULL, JsValue::NULL) };
    // The library's own functions leave negative numbers out, which JavaScript has.
    let (wanted, found) = match detail {
        Detail::Range { high, found, .. } => (Some(high.into()), Some(found.into())),
        Detail::Value { high, found, .. } => (Some(high.into()), Some(found.into())),
        detail => (detail.wanted().map(i128::from), detail.found().map(i128::from)),
    };
    (wanted.map_or(JsValue::NULL, fact), found.map_or(JsValue::NULL, fact))
}

fn library(error: Error) -> JsValue {
    let error = in_javascript(error);
    let fault = match error.fault() {
        Fault::Stream => "stream",
        Fault::Model => "model",
        Fault::Resource => "resource",
        _ => "caller",
    };
    let offset = error.has_offset().then(|| exact(error.offset())).flatten();
    let (wanted, found) = facts(&error);
    let (limit, setting) = match error.limit() {
        Some(Limit::Declared) => ("declared", ""),
        Some(Limit::Own(setting)) => ("own", setting),
        Some(Limit::Format) => ("format", ""),
        _ => ("", ""),
    };
    let element = error.detail().and_then(|detail| detail.element());
    let (frame, element) = match element {
        Some((frame, element)) => (Some(rounded(frame)), Some(rounded(element))),
        None => (None, None),
    };
    objects::error(
        &error.to_string(),
        i32::from(error.code()),
        fault,
        offset,
        wanted,
        found,
        frame,
        element,
        limit,
        setting,
    )
}

fn argument(text: &str, wanted: JsValue, found: JsValue) -> JsValue {
    let text = format!("{text}; at fault: the caller; error {INVALID_ARGUMENT}");
    objects::error(&text, INVALID_ARGUMENT, "caller", None, wanted, found, None, None, "", "")
}

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> JsValue {
        match failure {
            Failure::Library(error) => library(error),
            Failure::Argument(text) => argument(&text, JsValue::NULL, JsValue::NULL),
            Failure::Short { what, wanted, found } => {
                let text = format!("{what} is too short: {wanted} bytes wanted, {found} found");
                argument(&text, count(wanted).into(), count(found).into())
            }
            Failure::Memory(bytes) => objects::no_memory(count(bytes)),
            Failure::Beyond(value) => objects::beyond(&value.to_string()),
        }
    }
}
