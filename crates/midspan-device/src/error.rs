//! Errors of the device layer: those of the CPU's sessions, and those of the device.

use std::fmt;

use midspan::error::{Detail, ErrorKind};

/// An error of the device layer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An error that the CPU's sessions have too.
    Codec(midspan::error::Error),
    /// The device failed, ran out of memory or is missing.
    Device(candle_core::Error),
}

/// A result of the device layer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a call, with a text.
    pub(crate) fn codec(kind: ErrorKind, detail: &'static str) -> Error {
        Error::call(kind, Detail::Text(detail))
    }

    /// An error of a call, with details.
    pub(crate) fn call(kind: ErrorKind, detail: Detail) -> Error {
        Error::Codec(midspan::error::Error::of_call(kind).with(detail))
    }

    /// The error as the CPU's sessions have it, if it is not the device's.
    #[must_use]
    pub fn codec_error(&self) -> Option<midspan::error::Error> {
        match self {
            Error::Codec(error) => Some(*error),
            Error::Device(_) => None,
        }
    }

    /// The kind, if the error is not the device's.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Error::Codec(error) => Some(error.kind()),
            Error::Device(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Codec(error) => error.fmt(f),
            Error::Device(error) => write!(f, "the device failed: {error}"),
        }
    }
}

impl std::error::Error for Error {
    /// The cause of the error that is shown.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Codec(error) => error.source(),
            Error::Device(error) => error.source(),
        }
    }
}

impl From<midspan::error::Error> for Error {
    fn from(error: midspan::error::Error) -> Error {
        Error::Codec(error)
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Error {
        Error::Device(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_shown_once() {
        for error in [Error::codec(ErrorKind::WrongModel, "why"), candle_core::Error::Msg("why".into()).into()] {
            let mut shown = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                shown.push_str(&error.to_string());
                cause = error.source();
            }
            assert_eq!(shown.matches("why").count(), 1, "{shown}");
        }
    }
}
