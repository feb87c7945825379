//! Results: numbers, the last error of the thread, and the guard that runs every call.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, c_char};
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use midspan::error::{Detail, Error, ErrorKind, Fault, Limit};

/// What a call returns: 0 (`MIDSPAN_OK`), or why it failed. Positive numbers are those of the specification, chapter
/// 7.3, whose hundreds say who is at fault; negative ones are this library's own, and no specification will use them.
pub type midspan_result = i32;

/// The call did what it was asked for.
pub const MIDSPAN_OK: midspan_result = 0;
/// A pointer is NULL that may not be.
pub const MIDSPAN_ERROR_NULL_POINTER: midspan_result = -1;
/// An argument has a value that means nothing: an unknown enumeration value, a count whose bytes no memory can hold, a
/// pointer that is not aligned for its type, settings that no `_init` function of this version set.
/// `midspan_last_error_message` names the argument.
pub const MIDSPAN_ERROR_INVALID_ARGUMENT: midspan_result = -2;
/// The caller's buffer is too small. Nothing was taken and nothing is lost; the needed size is told, and the same call
/// with such a buffer succeeds.
pub const MIDSPAN_ERROR_SMALL_BUFFER: midspan_result = -3;
/// The library has a bug, which was caught (a Rust panic). The handle of this call stays unusable: every later call
/// with it, except its `_free`, gives this number again. Other handles are not affected.
pub const MIDSPAN_ERROR_PANIC: midspan_result = -4;
/// Another thread is in a call with the same handle. Nothing happened.
pub const MIDSPAN_ERROR_BUSY: midspan_result = -5;

/// A varint is not in its shortest form (VARINT-1).
pub const MIDSPAN_ERROR_VARINT_NOT_SHORTEST: midspan_result = 101;
/// A varint begins with the reserved byte 0xFF (VARINT-2).
pub const MIDSPAN_ERROR_VARINT_RESERVED: midspan_result = 102;
/// The value of a field is out of its range (VARINT-3, HDR-3).
pub const MIDSPAN_ERROR_FIELD_OUT_OF_RANGE: midspan_result = 103;
/// The stream does not begin with the magic (HDR-1).
pub const MIDSPAN_ERROR_BAD_MAGIC: midspan_result = 201;
/// The stream asks for a later reader version (HDR-2).
pub const MIDSPAN_ERROR_READER_TOO_OLD: midspan_result = 202;
/// The versions in the header contradict themselves (HDR-2).
pub const MIDSPAN_ERROR_BAD_VERSION: midspan_result = 203;
/// The crc of the stream header differs (HDR-4).
pub const MIDSPAN_ERROR_HEADER_CRC_MISMATCH: midspan_result = 204;
/// A reserved flag of the stream header is set (HDR-5, HDR-10).
pub const MIDSPAN_ERROR_RESERVED_HEADER_BITS: midspan_result = 205;
/// The track count is not 1 (HDR-6).
pub const MIDSPAN_ERROR_TRACK_COUNT: midspan_result = 206;
/// The optional header fields are not in ascending order (HDR-7).
pub const MIDSPAN_ERROR_OPTIONAL_FIELD_ORDER: midspan_result = 207;
/// An unknown critical header field (HDR-7).
pub const MIDSPAN_ERROR_UNKNOWN_CRITICAL_FIELD: midspan_result = 208;
/// A field exceeds the body of the stream header (HDR-8).
pub const MIDSPAN_ERROR_HEADER_LAYOUT: midspan_result = 209;
/// The stream is written in the other binding: messages, or a byte stream (HDR-13).
pub const MIDSPAN_ERROR_WRONG_BINDING: midspan_result = 210;
/// A reserved chunk kind (CHUNK-1, MSG-3, MSG-4).
pub const MIDSPAN_ERROR_RESERVED_KIND: midspan_result = 301;
/// A chunk body is longer than the limit (CHUNK-2).
pub const MIDSPAN_ERROR_CHUNK_TOO_LONG: midspan_result = 302;
/// A one-frame chunk is not in its shortest form (CHUNK-3, MSG-3).
pub const MIDSPAN_ERROR_FRAME_FORM_NOT_SHORTEST: midspan_result = 303;
/// A target chunk in joined mode (CHUNK-4).
pub const MIDSPAN_ERROR_KIND_NOT_IN_MODE: midspan_result = 304;
/// A seek index where there must be none, or none where there must be one (CHUNK-4, FILE-1).
pub const MIDSPAN_ERROR_SEEK_INDEX_MISPLACED: midspan_result = 305;
/// A chunk body is too short or too long for its fields (CHUNK-5, CTRL-6).
pub const MIDSPAN_ERROR_CHUNK_LAYOUT: midspan_result = 306;
/// Data after the end of the stream (CHUNK-7, MSG-5, FILE-1).
pub const MIDSPAN_ERROR_DATA_AFTER_END: midspan_result = 307;
/// A typed message of fewer than two bytes (MSG-3).
pub const MIDSPAN_ERROR_MESSAGE_TOO_SHORT: midspan_result = 308;
/// A batch has more frames than the limit (BATCH-1).
pub const MIDSPAN_ERROR_TOO_MANY_FRAMES: midspan_result = 309;
/// A batch of one frame (BATCH-1).
pub const MIDSPAN_ERROR_BATCH_OF_ONE: midspan_result = 310;
/// A batch has too many lanes (BATCH-2).
pub const MIDSPAN_ERROR_LANE_COUNT: midspan_result = 311;
/// The lane table gives impossible lengths (LANE-1).
pub const MIDSPAN_ERROR_LANE_TABLE: midspan_result = 312;
/// The padding of the lane table is not zero (LANE-2).
pub const MIDSPAN_ERROR_LANE_PADDING: midspan_result = 313;
/// An exact frame has an unknown dtype (CTRL-6).
pub const MIDSPAN_ERROR_EXACT_DTYPE: midspan_result = 314;
/// An unknown critical extension (CTRL-7).
pub const MIDSPAN_ERROR_UNKNOWN_CRITICAL_EXTENSION: midspan_result = 315;
/// The footer of the file is wrong (FILE-1).
pub const MIDSPAN_ERROR_BAD_FOOTER: midspan_result = 316;
/// The entries of the seek index are not in order (FILE-2).
pub const MIDSPAN_ERROR_SEEK_INDEX_ORDER: midspan_result = 317;
/// More checkpoints wait for targets than there may be (DEC-18).
pub const MIDSPAN_ERROR_TOO_MANY_CHECKPOINTS: midspan_result = 318;
/// Side indices come while earlier ones are left (CTRL-10).
pub const MIDSPAN_ERROR_SIDE_INDICES_LEFT: midspan_result = 319;
/// The input ends before the stream does (CHUNK-6).
pub const MIDSPAN_ERROR_TRUNCATED: midspan_result = 401;
/// The check of a frame chunk differs (CHECK-1).
pub const MIDSPAN_ERROR_FRAME_CHECK_MISMATCH: midspan_result = 402;
/// The crc of a control chunk differs (CTRL-1).
pub const MIDSPAN_ERROR_CONTROL_CRC_MISMATCH: midspan_result = 403;
/// A control chunk states a frame index that is not the next frame's (CTRL-2, CTRL-3).
pub const MIDSPAN_ERROR_INDEX_MISMATCH: midspan_result = 404;
/// The end chunk counts another number of frames (CTRL-2).
pub const MIDSPAN_ERROR_FRAME_TOTAL_MISMATCH: midspan_result = 405;
/// A context reset names the wrong epoch (CTRL-3).
pub const MIDSPAN_ERROR_EPOCH_MISMATCH: midspan_result = 406;
/// A rewind goes before the context or not back at all (CTRL-4).
pub const MIDSPAN_ERROR_REWIND_TARGET: midspan_result = 407;
/// A rewind goes back further than the limit (CTRL-4).
pub const MIDSPAN_ERROR_REWIND_TOO_FAR: midspan_result = 408;
/// The W digest differs (DEC-8).
pub const MIDSPAN_ERROR_DIGEST_MISMATCH_W: midspan_result = 409;
/// The Y digest differs (DEC-8).
pub const MIDSPAN_ERROR_DIGEST_MISMATCH_Y: midspan_result = 410;
/// The stream was made with another model (MODEL-11, DEC-7).
pub const MIDSPAN_ERROR_WRONG_MODEL: midspan_result = 501;
/// A context reset names another model (CTRL-3).
pub const MIDSPAN_ERROR_WRONG_MODEL_AT_RESET: midspan_result = 502;
/// The hidden state of an exact frame has the wrong length (CTRL-6).
pub const MIDSPAN_ERROR_EXACT_FRAME_LENGTH: midspan_result = 503;
/// The model does not have this quality (DEC-6).
pub const MIDSPAN_ERROR_UNKNOWN_QUALITY: midspan_result = 504;
/// The stream does not say that it was made for this host model (HOST-1).
pub const MIDSPAN_ERROR_WRONG_HOST: midspan_result = 505;
/// The model takes side indices and the stream has none, or the other way round (SIDE-1).
pub const MIDSPAN_ERROR_WRONG_SIDE_FLAG: midspan_result = 506;
/// The model predicts from decoded frames, which layered mode may lose (PRED-3).
pub const MIDSPAN_ERROR_PREDICTION_LAYERED: midspan_result = 507;
/// A payload is corrupt (ENT-1).
pub const MIDSPAN_ERROR_CORRUPT_PAYLOAD: midspan_result = 601;
/// A payload is not sealed canonically (SEAL-2).
pub const MIDSPAN_ERROR_SEAL_NOT_CANONICAL: midspan_result = 602;
/// A value is out of its declared range (ENT-2).
pub const MIDSPAN_ERROR_VALUE_OUT_OF_RANGE: midspan_result = 603;
/// A payload is longer than its frames can need (MODE-4).
pub const MIDSPAN_ERROR_PAYLOAD_TOO_LONG: midspan_result = 604;
/// The model file is malformed (MODEL-1).
pub const MIDSPAN_ERROR_MODEL_FILE_SYNTAX: midspan_result = 701;
/// The model file lacks a tensor (MODEL-2, MODEL-14).
pub const MIDSPAN_ERROR_MODEL_TENSOR_MISSING: midspan_result = 702;
/// A tensor of the model file has the wrong dtype or shape (MODEL-2, MODEL-6, MODEL-13, MODEL-14).
pub const MIDSPAN_ERROR_MODEL_TENSOR_SHAPE: midspan_result = 703;
/// The model file has an unknown tensor (MODEL-2).
pub const MIDSPAN_ERROR_MODEL_TENSOR_UNKNOWN: midspan_result = 704;
/// The configuration of the model file is out of range (MODEL-3, MODEL-5, MODEL-7).
pub const MIDSPAN_ERROR_MODEL_CONFIG: midspan_result = 705;
/// A row of weights exceeds its bound (MODEL-4, MODEL-14).
pub const MIDSPAN_ERROR_MODEL_ROW_BOUND: midspan_result = 706;
/// A table of the model file is malformed (MODEL-6, MODEL-8, MODEL-9).
pub const MIDSPAN_ERROR_MODEL_TABLE: midspan_result = 707;
/// A value in the model file is out of range (MODEL-5, MODEL-10, MODEL-14).
pub const MIDSPAN_ERROR_MODEL_VALUE: midspan_result = 708;
/// A hidden state is NaN or infinite (spec 6.8).
pub const MIDSPAN_ERROR_HIDDEN_NOT_FINITE: midspan_result = 801;
/// An argument has the wrong shape.
pub const MIDSPAN_ERROR_WRONG_SHAPE: midspan_result = 802;
/// A call after the end.
pub const MIDSPAN_ERROR_AFTER_END: midspan_result = 803;
/// Not available here.
pub const MIDSPAN_ERROR_NOT_AVAILABLE: midspan_result = 804;
/// A bad configuration.
pub const MIDSPAN_ERROR_BAD_CONFIG: midspan_result = 805;
/// Too many frames wait for their target (DEC-14).
pub const MIDSPAN_ERROR_TARGET_OVERDUE: midspan_result = 806;
/// The frame does not wait for a target (DEC-13).
pub const MIDSPAN_ERROR_FRAME_NOT_PENDING: midspan_result = 807;
/// A saved session is damaged or of another version of the library.
pub const MIDSPAN_ERROR_SAVED_SESSION: midspan_result = 808;
/// Hidden states lie out of the range of the quality (spec 6.8).
pub const MIDSPAN_ERROR_HIDDEN_CLIPPED: midspan_result = 809;
/// The floating-point unit of this thread is not in its default mode (spec 6.8).
pub const MIDSPAN_ERROR_FLOAT_MODE: midspan_result = 810;
/// The engine gave something other than what it was asked for.
pub const MIDSPAN_ERROR_ENGINE_FAULT: midspan_result = 811;
/// Side indices are wrong, missing or not wanted (SIDE-4).
pub const MIDSPAN_ERROR_WRONG_SIDE_INDICES: midspan_result = 812;
/// The memory limit does not allow it (MODEL-1).
pub const MIDSPAN_ERROR_MEMORY_LIMIT: midspan_result = 901;

/// Who has to change something for an error to go away.
pub type midspan_fault = u32;

/// There was no error.
pub const MIDSPAN_FAULT_NONE: midspan_fault = 0;
/// The stream's bytes.
pub const MIDSPAN_FAULT_STREAM: midspan_fault = 1;
/// The model file, or its pairing with this stream.
pub const MIDSPAN_FAULT_MODEL: midspan_fault = 2;
/// The caller of this library.
pub const MIDSPAN_FAULT_CALLER: midspan_fault = 3;
/// A limit that the caller set and can raise: the message names the setting.
pub const MIDSPAN_FAULT_RESOURCE: midspan_fault = 4;
/// This library: a panic.
pub const MIDSPAN_FAULT_LIBRARY: midspan_fault = 5;

/// Who set a limit that was exceeded.
pub type midspan_limit_owner = u32;

/// The error is not about a limit.
pub const MIDSPAN_LIMIT_NONE: midspan_limit_owner = 0;
/// The stream header declares it, and the stream broke its own declaration.
pub const MIDSPAN_LIMIT_DECLARED: midspan_limit_owner = 1;
/// This end set it. A larger value lets the input pass.
pub const MIDSPAN_LIMIT_OWN: midspan_limit_owner = 2;
/// The format fixes it.
pub const MIDSPAN_LIMIT_FORMAT: midspan_limit_owner = 3;

/// Bytes of a message, NUL included. The longest of the library's own are below 300; a panic's is cut.
const MESSAGE: usize = 512;

/// The last error of a thread. It allocates nothing and has no destructor, so it can be read at any time.
struct Last {
    facts: Facts,
    message: [u8; MESSAGE],
    length: usize,
}

/// What is known of an error besides its message.
#[derive(Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) code: midspan_result,
    pub(crate) fault: midspan_fault,
    pub(crate) offset: Option<u64>,
    pub(crate) wanted: Option<u64>,
    pub(crate) found: Option<u64>,
    pub(crate) element: Option<(u64, u64)>,
    pub(crate) limit: midspan_limit_owner,
    /// The digest that was wanted, and the one that was found.
    pub(crate) digests: Option<([u8; 32], Option<[u8; 32]>)>,
}

impl Facts {
    const fn new(code: midspan_result, fault: midspan_fault) -> Self {
        let limit = MIDSPAN_LIMIT_NONE;
        Self { code, fault, offset: None, wanted: None, found: None, element: None, limit, digests: None }
    }
}

thread_local! {
    static LAST: RefCell<Last> = const {
        RefCell::new(Last { facts: Facts::new(MIDSPAN_OK, MIDSPAN_FAULT_NONE), message: [0; MESSAGE], length: 0 })
    };
}

impl fmt::Write for Last {
    /// Appends a text, without NULs, as far as it fits.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars().map(|character| if character == '\0' { ' ' } else { character }) {
            let end = self.length.saturating_add(character.len_utf8());
            // The last byte stays NUL.
            if end >= MESSAGE {
                return Err(fmt::Error);
            }
            if let Some(place) = self.message.get_mut(self.length..end) {
                character.encode_utf8(place);
            }
            self.length = end;
        }
        Ok(())
    }
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library's own error.
    Library(Error),
    /// The argument of this name is NULL.
    Null(&'static str),
    /// The argument of this name has a value that means nothing.
    Argument(&'static str, Reason),
    /// A buffer for this is too small.
    SmallBuffer { what: &'static str, needed: usize, capacity: usize },
    /// An earlier call with the handle panicked.
    Poisoned,
    /// Another thread uses the handle.
    Busy,
}

/// What is wrong with an argument.
#[derive(Debug)]
pub(crate) enum Reason {
    /// Not one of the values of its type.
    Unknown(u32),
    /// So many values that their bytes cannot be counted.
    TooMany(usize),
    /// A struct of settings with another size than this library's.
    Size { found: usize, wanted: usize },
    /// Less than another argument.
    Below { found: u64, least: u64 },
    /// The pointer is not aligned for its type.
    NotAligned,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Library(error)
    }
}

impl From<ErrorKind> for Failure {
    fn from(kind: ErrorKind) -> Self {
        Failure::Library(Error::of_call(kind))
    }
}

/// The same error, with a setting named as the field of C's struct: `max_frames` for `Limits::max_frames`.
fn in_c(error: Error) -> Error {
    match error.detail() {
        Some(Detail::Limit { what, limit: Limit::Own(setting), most, found }) => {
            let limit = Limit::Own(setting.rsplit("::").next().unwrap_or(setting));
            error.with(Detail::Limit { what, limit, most, found })
        }
        _ => error,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, what, code): (_, &str, _) = match self {
            Failure::Library(error) => return in_c(*error).fmt(f),
            Failure::Null(what) => ("a pointer is NULL", what, MIDSPAN_ERROR_NULL_POINTER),
            Failure::Argument(what, reason) => {
                write!(f, "an argument is invalid ({what}")?;
                match reason {
                    Reason::Unknown(found) => write!(f, " is {found}, which is none of its values")?,
                    Reason::TooMany(found) => write!(f, ": {found}, which is more than memory can hold")?,
                    Reason::Size { found, wanted } => write!(
                        f,
                        " has a struct_size of {found}, not {wanted}: its _init function did not set it, or the \
                         program was compiled with the header of another version"
                    )?,
                    Reason::Below { found, least } => write!(f, " is {found}, at least {least} wanted")?,
                    Reason::NotAligned => f.write_str(" is not aligned for its type")?,
                }
                return write!(f, "); at fault: the caller; error {MIDSPAN_ERROR_INVALID_ARGUMENT}");
            }
            Failure::SmallBuffer { what, needed, capacity } => {
                return write!(
                    f,
                    "a buffer is too small ({what}: {needed} wanted, {capacity} found); at fault: the caller; error \
                     {MIDSPAN_ERROR_SMALL_BUFFER}"
                );
            }
            Failure::Poisoned => {
                return write!(
                    f,
                    "an earlier call with this handle panicked, so it cannot be used; at fault: the library; error \
                     {MIDSPAN_ERROR_PANIC}"
                );
            }
            Failure::Busy => ("another thread is in a call", "with this handle", MIDSPAN_ERROR_BUSY),
        };
        write!(f, "{text} ({what}); at fault: the caller; error {code}")
    }
}

impl Failure {
    fn facts(&self) -> Facts {
        let caller = |code| Facts::new(code, MIDSPAN_FAULT_CALLER);
        match self {
            Failure::Library(error) => {
                let fault = match error.fault() {
                    Fault::Stream => MIDSPAN_FAULT_STREAM,
                    Fault::Model => MIDSPAN_FAULT_MODEL,
                    Fault::Resource => MIDSPAN_FAULT_RESOURCE,
                    _ => MIDSPAN_FAULT_CALLER,
                };
                let limit = match error.limit() {
                    Some(Limit::Declared) => MIDSPAN_LIMIT_DECLARED,
                    Some(Limit::Own(_)) => MIDSPAN_LIMIT_OWN,
                    Some(Limit::Format) => MIDSPAN_LIMIT_FORMAT,
                    _ => MIDSPAN_LIMIT_NONE,
                };
                let detail = error.detail();
                Facts {
                    offset: error.has_offset().then(|| error.offset()),
                    digests: error.digests(),
                    wanted: detail.and_then(|detail| detail.wanted()),
                    found: detail.and_then(|detail| detail.found()),
                    element: detail.and_then(|detail| detail.element()),
                    limit,
                    ..Facts::new(error.code().into(), fault)
                }
            }
            Failure::Null(_) => caller(MIDSPAN_ERROR_NULL_POINTER),
            Failure::Argument(_, reason) => {
                let (wanted, found) = match *reason {
                    Reason::Unknown(found) => (None, Some(found.into())),
                    Reason::TooMany(found) => (None, Some(to_u64(found))),
                    Reason::Size { found, wanted } => (Some(to_u64(wanted)), Some(to_u64(found))),
                    Reason::Below { found, least } => (Some(least), Some(found)),
                    Reason::NotAligned => (None, None),
                };
                Facts { wanted, found, ..caller(MIDSPAN_ERROR_INVALID_ARGUMENT) }
            }
            Failure::SmallBuffer { needed, capacity, .. } => Facts {
                wanted: Some(to_u64(*needed)),
                found: Some(to_u64(*capacity)),
                ..caller(MIDSPAN_ERROR_SMALL_BUFFER)
            },
            Failure::Poisoned => Facts::new(MIDSPAN_ERROR_PANIC, MIDSPAN_FAULT_LIBRARY),
            Failure::Busy => caller(MIDSPAN_ERROR_BUSY),
        }
    }
}

/// A count as 64 bits; no machine has more.
pub(crate) fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The facts of the thread's last error.
pub(crate) fn last() -> Facts {
    LAST.with(|last| last.borrow().facts)
}

/// Makes an error the thread's last one. Returns its number.
fn record(facts: Facts, text: impl fmt::Display) -> midspan_result {
    LAST.with(|last| {
        let mut last = last.borrow_mut();
        *last = Last { facts, message: [0; MESSAGE], length: 0 };
        // A text that does not fit is cut.
        let _ = write!(last, "{text}");
    });
    facts.code
}

/// Runs a call of the interface.
pub(crate) fn guard(call: impl FnOnce() -> Result<(), Failure>) -> midspan_result {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => MIDSPAN_OK,
        Ok(Err(failure)) => record(failure.facts(), &failure),
        Err(payload) => {
            let text = text_of(&*payload);
            let facts = Facts::new(MIDSPAN_ERROR_PANIC, MIDSPAN_FAULT_LIBRARY);
            let code = record(
                facts,
                format_args!("the library panicked ({text}); at fault: the library; error {MIDSPAN_ERROR_PANIC}"),
            );
            // What was panicked with is not dropped: its destructor may be anything.
            std::mem::forget(payload);
            code
        }
    }
}

/// The text of a panic. It is cut, so that what follows it in the message fits.
fn text_of(payload: &(dyn Any + Send)) -> &str {
    const MOST: usize = 300;
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no text");
    text.get(..text.floor_char_boundary(MOST)).unwrap_or("")
}

/// The first number of this header's version, MAJOR.MINOR.PATCH.
pub const MIDSPAN_VERSION_MAJOR: u32 = 0;
/// The second number of this header's version.
pub const MIDSPAN_VERSION_MINOR: u32 = 1;
/// The third number of this header's version.
pub const MIDSPAN_VERSION_PATCH: u32 = 0;
/// The version of this header as one number: 65,536 times major, plus 256 times minor, plus patch.
pub const MIDSPAN_VERSION_NUMBER: u32 =
    (MIDSPAN_VERSION_MAJOR << 16) | (MIDSPAN_VERSION_MINOR << 8) | MIDSPAN_VERSION_PATCH;

const _: () = {
    assert!(matches!(u32::from_str_radix(env!("CARGO_PKG_VERSION_MAJOR"), 10), Ok(MIDSPAN_VERSION_MAJOR)));
    assert!(matches!(u32::from_str_radix(env!("CARGO_PKG_VERSION_MINOR"), 10), Ok(MIDSPAN_VERSION_MINOR)));
    assert!(matches!(u32::from_str_radix(env!("CARGO_PKG_VERSION_PATCH"), 10), Ok(MIDSPAN_VERSION_PATCH)));
    // A larger one would run into the number before it.
    assert!(MIDSPAN_VERSION_MINOR < 256 && MIDSPAN_VERSION_PATCH < 256);
};

/// The version of the library as one number. A program that compares it with MIDSPAN_VERSION_NUMBER learns whether it
/// was compiled with the header of another version.
#[unsafe(no_mangle)]
pub extern "C" fn midspan_version_number() -> u32 {
    MIDSPAN_VERSION_NUMBER
}

/// The version of the library, NUL-terminated, static: "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn midspan_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// What a result's number means: one sentence in lower case without a full stop, NUL-terminated, static. A number
/// without a meaning has a sentence that says so. `midspan_last_error_message` says more about an error that happened.
#[unsafe(no_mangle)]
pub extern "C" fn midspan_result_text(result: midspan_result) -> *const c_char {
    let text: &CStr = match result {
        MIDSPAN_OK => c"no error",
        MIDSPAN_ERROR_NULL_POINTER => c"a pointer is NULL",
        MIDSPAN_ERROR_INVALID_ARGUMENT => c"an argument is invalid",
        MIDSPAN_ERROR_SMALL_BUFFER => c"a buffer is too small",
        MIDSPAN_ERROR_PANIC => c"the library panicked, now or in an earlier call with this handle",
        MIDSPAN_ERROR_BUSY => c"another thread is in a call with this handle",
        code => match u16::try_from(code).ok().and_then(ErrorKind::from_code) {
            Some(kind) => kind.c_message(),
            None => c"not a number of this library",
        },
    };
    text.as_ptr()
}

/// The message of the last call that failed in this thread: one sentence, NUL-terminated, UTF-8, at most 511 bytes. It
/// is empty if none has failed. A call that succeeds leaves it; the next that fails overwrites it, and it ends with its
/// thread. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn midspan_last_error_message() -> *const c_char {
    LAST.with(|last| last.try_borrow().map_or(c"".as_ptr(), |last| last.message.as_ptr().cast()))
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;
    use crate::encoder::*;
    use crate::error::midspan_last_error;
    use crate::memory::lock;
    use crate::model::*;

    fn message() -> String {
        // SAFETY: the message is NUL-terminated and lives until this thread's next failure.
        unsafe { CStr::from_ptr(midspan_last_error_message()) }.to_str().unwrap().to_string()
    }

    /// An encoder of the example model, as C has it.
    fn encoder() -> *mut midspan_encoder {
        let file = include_bytes!("../../../src/example.safetensors");
        let (mut model, mut encoder) = (ptr::null_mut(), ptr::null_mut());
        let mut config = std::mem::MaybeUninit::uninit();
        // SAFETY: all pointers are valid, and `_init` sets the whole struct.
        unsafe {
            assert_eq!(midspan_model_load(file.as_ptr(), file.len(), 1 << 24, &mut model), MIDSPAN_OK);
            assert_eq!(midspan_encoder_config_init(config.as_mut_ptr(), ptr::null()), MIDSPAN_OK);
            assert_eq!(midspan_encoder_new(model, config.as_ptr(), &mut encoder), MIDSPAN_OK);
            midspan_model_free(model);
        }
        encoder
    }

    #[test]
    fn a_panic_is_a_number_and_its_handle_stays_unusable() {
        let (broken, other) = (encoder(), encoder());
        let result = guard(|| {
            // SAFETY: the handle lives.
            let _session = unsafe { lock(broken, "encoder") }?;
            panic!("a bug in {}", "the library");
        });
        assert_eq!(result, MIDSPAN_ERROR_PANIC);
        assert_eq!(message(), "the library panicked (a bug in the library); at fault: the library; error -4");
        // SAFETY: the handles live, and a model's width of floats is there.
        unsafe {
            for _ in 0..2 {
                assert_eq!(midspan_encoder_checkpoint(broken), MIDSPAN_ERROR_PANIC);
                assert!(message().starts_with("an earlier call with this handle panicked"), "{}", message());
            }
            let mut facts = std::mem::MaybeUninit::uninit();
            assert_eq!(midspan_last_error(facts.as_mut_ptr()), MIDSPAN_OK);
            assert_eq!(facts.assume_init().fault, MIDSPAN_FAULT_LIBRARY);
            assert_eq!(midspan_encoder_checkpoint(other), MIDSPAN_OK);
            midspan_encoder_free(broken);
            midspan_encoder_free(other);
        }
    }

    #[test]
    fn a_panic_of_any_kind_has_a_message_that_fits() {
        assert_eq!(guard(|| std::panic::panic_any(7)), MIDSPAN_ERROR_PANIC);
        assert!(message().contains("(no text)"));
        assert_eq!(guard(|| panic!("{}\0{}", "é".repeat(100), "x".repeat(1_000))), MIDSPAN_ERROR_PANIC);
        let text = message();
        assert!(text.contains("é x") && text.ends_with("at fault: the library; error -4"), "{text}");
        // A longer message than fits is cut between two characters.
        record(Facts::new(MIDSPAN_ERROR_PANIC, MIDSPAN_FAULT_LIBRARY), "é".repeat(MESSAGE));
        assert_eq!(message().len(), MESSAGE - 2);
    }

    #[test]
    fn a_second_call_at_the_same_time_is_refused() {
        let encoder = encoder();
        // SAFETY: the handle lives.
        unsafe {
            let session = lock(encoder, "encoder").unwrap();
            assert_eq!(midspan_encoder_end(encoder), MIDSPAN_ERROR_BUSY);
            assert_eq!(message(), "another thread is in a call (with this handle); at fault: the caller; error -5");
            drop(session);
            assert_eq!(midspan_encoder_end(encoder), MIDSPAN_OK);
            midspan_encoder_free(encoder);
        }
    }

    #[test]
    fn every_number_has_a_text() {
        let own = [MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_SMALL_BUFFER];
        let own = own.into_iter().chain([MIDSPAN_ERROR_PANIC, MIDSPAN_ERROR_BUSY, MIDSPAN_OK]);
        let of_spec = ErrorKind::ALL.iter().map(|kind| midspan_result::from(kind.code()));
        let mut texts = std::collections::BTreeSet::new();
        for number in own.chain(of_spec) {
            // SAFETY: every text is NUL-terminated and static.
            let text = unsafe { CStr::from_ptr(midspan_result_text(number)) }.to_str().unwrap();
            assert!(text.len() > 5 && text != "not a number of this library", "{number}");
            texts.insert(text);
        }
        // 409 and 410 differ in a letter, and no two texts are the same.
        assert_eq!(texts.len(), ErrorKind::ALL.len() + 6);
    }
}
