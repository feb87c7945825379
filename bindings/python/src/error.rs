//! Why a call failed, and the exception that says so.

use std::fmt;

use midspan::error::{Detail, Error, ErrorKind, Fault, Limit};
use pyo3::exceptions::{PyMemoryError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use crate::classes::Class;

/// This package's own numbers, which are the C library's.
const INVALID_ARGUMENT: i32 = -2;
const PANIC: i32 = -4;
const BUSY: i32 = -5;

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library's own error.
    Library(Error),
    /// An argument has a value that means nothing.
    Argument(String),
    /// An argument has the wrong type or dtype.
    Type(String),
    /// The caller's error of this kind, with what is said in brackets.
    Caller(ErrorKind, String),
    /// An argument has too few bytes.
    Short { what: &'static str, wanted: usize, found: usize },
    /// There is no memory for so many bytes.
    Memory(usize),
    /// The library panicked, with this text.
    Panic(String),
    /// An earlier call of the session panicked.
    Poisoned,
    /// Another thread is in a call of the session.
    Busy,
    /// An exception of Python's.
    Python(PyErr),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Library(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Failure::Python(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Library(error) => in_python(*error).fmt(f),
            Failure::Argument(text) => write!(f, "{text}; at fault: the caller; error {INVALID_ARGUMENT}"),
            Failure::Type(text) => f.write_str(text),
            Failure::Caller(kind, text) => {
                write!(f, "{} ({text}); at fault: the caller; error {}", kind.message(), kind.code())
            }
            Failure::Short { what, wanted, found } => write!(
                f,
                "{what} is too short: {wanted} bytes wanted, {found} found; at fault: the caller; error \
                 {INVALID_ARGUMENT}"
            ),
            Failure::Memory(bytes) => write!(f, "no memory for {bytes} bytes"),
            Failure::Panic(text) => {
                write!(f, "the library panicked ({text}); at fault: the library; error {PANIC}")
            }
            Failure::Poisoned => write!(
                f,
                "an earlier call of this session panicked, so it cannot be used; at fault: the library; error {PANIC}"
            ),
            Failure::Busy => {
                write!(f, "another thread is in a call of this session; at fault: the caller; error {BUSY}")
            }
            Failure::Python(error) => error.fmt(f),
        }
    }
}

/// The same error, with a setting named as Python's argument: `max_frames` for `Limits::max_frames`.
fn in_python(error: Error) -> Error {
    match error.detail() {
        Some(Detail::Limit { what, limit: Limit::Own(setting), most, found }) => {
            let limit = Limit::Own(argument(setting));
            error.with(Detail::Limit { what, limit, most, found })
        }
        _ => error,
    }
}

/// The argument that a setting is in Python.
fn argument(setting: &'static str) -> &'static str {
    setting.rsplit("::").next().unwrap_or(setting)
}

/// The class of an exception, the name of who is at fault, and the number.
fn kind_of(failure: &Failure) -> (&'static Class, &'static str, i32) {
    static STREAM: Class = Class::new("midspan._errors", "StreamError");
    static MODEL: Class = Class::new("midspan._errors", "ModelError");
    static CALLER: Class = Class::new("midspan._errors", "CallerError");
    static RESOURCE: Class = Class::new("midspan._errors", "ResourceError");
    static LIBRARY: Class = Class::new("midspan._errors", "LibraryError");
    match failure {
        Failure::Library(error) => {
            let number = error.code().into();
            match error.fault() {
                Fault::Stream => (&STREAM, "stream", number),
                Fault::Model => (&MODEL, "model", number),
                Fault::Resource => (&RESOURCE, "resource", number),
                _ => (&CALLER, "caller", number),
            }
        }
        Failure::Panic(_) | Failure::Poisoned => (&LIBRARY, "library", PANIC),
        Failure::Busy => (&CALLER, "caller", BUSY),
        Failure::Caller(kind, _) => (&CALLER, "caller", kind.code().into()),
        _ => (&CALLER, "caller", INVALID_ARGUMENT),
    }
}

impl Failure {
    /// The exception, as a value.
    pub(crate) fn exception<'py>(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let text = self.to_string();
        let (class, fault, number) = kind_of(&self);
        let error = match self {
            Failure::Python(error) => return Ok(error.into_value(py).into_bound(py).into_any()),
            Failure::Type(text) => return Ok(PyTypeError::new_err(text).into_value(py).into_bound(py).into_any()),
            Failure::Memory(_) => return Ok(PyMemoryError::new_err(text).into_value(py).into_bound(py).into_any()),
            Failure::Library(error) => error,
            Failure::Short { wanted, found, .. } => {
                return class.get(py)?.call1((text, number, fault, py.None(), wanted, found));
            }
            _ => return class.get(py)?.call1((text, number, fault)),
        };
        let class: &Bound<'py, PyType> = class.get(py)?;
        let offset = error.has_offset().then(|| error.offset());
        let (wanted, found) = facts(py, &error)?;
        let (limit, setting) = match error.limit() {
            Some(Limit::Declared) => (Some("declared"), None),
            Some(Limit::Own(setting)) => (Some("own"), Some(argument(setting))),
            Some(Limit::Format) => (Some("format"), None),
            _ => (None, None),
        };
        let element = error.detail().and_then(|detail| detail.element());
        class.call1((text, number, fault, offset, wanted, found, element, limit, setting))
    }
}

type Fact<'py> = Option<Bound<'py, PyAny>>;

/// What was wanted and what was found, as Python's numbers or digests.
fn facts<'py>(py: Python<'py>, error: &Error) -> PyResult<(Fact<'py>, Fact<'py>)> {
    if let Some((wanted, found)) = error.digests() {
        let digest = |digest: &[u8; 32]| PyBytes::new(py, digest).into_any();
        return Ok((Some(digest(&wanted)), found.as_ref().map(digest)));
    }
    let number = |number: i128| number.into_pyobject(py).map(Bound::into_any);
    let Some(detail) = error.detail() else { return Ok((None, None)) };
    // The library's own functions leave negative numbers out, which Python has.
    let (wanted, found) = match detail {
        Detail::Range { high, found, .. } => (Some(high.into()), Some(found.into())),
        Detail::Value { high, found, .. } => (Some(high.into()), Some(found.into())),
        detail => (detail.wanted().map(i128::from), detail.found().map(i128::from)),
    };
    Ok((wanted.map(number).transpose()?, found.map(number).transpose()?))
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> PyErr {
        // The thread is attached already, so this does not wait.
        Python::attach(|py| failure.exception(py).map_or_else(|error| error, PyErr::from_value))
    }
}

/// What the number of an error means: one sentence in lower case without a full stop, or None for a number that has no
/// meaning. The text of an error that happened says more.
#[pyfunction]
#[pyo3(signature = (number, /))]
pub(crate) fn error_text(number: i64) -> Option<&'static str> {
    match number {
        -2 => Some("an argument is invalid"),
        -4 => Some("the library panicked, now or in an earlier call of this session"),
        -5 => Some("another thread is in a call of this session"),
        number => u16::try_from(number).ok().and_then(ErrorKind::from_code).map(ErrorKind::message),
    }
}
