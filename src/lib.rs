//! Midspan.
pub mod error;
pub mod stream;
pub mod wire;
#[cfg(feature = "codec")]
pub mod entropy;
#[cfg(feature = "codec")]
pub mod adapter;
#[cfg(feature = "codec")]
pub mod exact;
#[cfg(feature = "codec")]
pub mod codec;
#[cfg(feature = "codec")]
pub mod model;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "train")]
pub mod train;
