//! The codec on a candle device: the exact networks, the quantiser and the choice of tables as tensors (spec 5, 6).
//!
//! Hidden states are candle tensors and stay on the device. Every integer equals that of the CPU's arms; see
//! [`tensors`] for how tensors of floats hold integers exactly.

mod codec;
mod decoder;
mod encoder;
mod error;
#[cfg(any(feature = "kernels", feature = "cuda"))]
pub mod kernels;
pub mod selftest;
mod shape;
mod state;
pub mod tensors;

pub use codec::DeviceCodec;
pub use decoder::{Coder, DeviceDecoder, DevicePoll};
pub use encoder::DeviceEncoder;
pub use error::{Error, Result};
pub use state::DeviceState;
