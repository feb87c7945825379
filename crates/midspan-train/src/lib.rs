//! Learns hosts and codec models in float, freezes them to integers, fits codecs to fixed hosts, and measures all of them.
pub mod base;
pub mod checkpoint;
pub mod codec;
pub mod data;
pub mod dial;
pub mod divergence;
pub mod fit;
pub mod freeze;
pub mod joint;
pub mod log;
pub mod loss;
pub mod measure;
pub mod optim;
pub mod parallel;
pub mod prune;
pub mod rng;
pub mod runner;
pub mod samples;
pub mod schedule;
pub mod trade;
pub mod watch;

use std::path::Path;

/// Any failure while training, as text.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    /// An error with a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        Self(e.to_string())
    }
}

/// Names the file in an I/O error.
pub fn context(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |e| Error(format!("{}: {e}", path.display()))
}
