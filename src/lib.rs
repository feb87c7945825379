//! Midspan.
#[cfg(feature = "codec")]
pub mod entropy;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "train")]
pub mod train;
