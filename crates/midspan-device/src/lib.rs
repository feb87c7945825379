//! The codec on devices: engines ([`midspan::engine::Engine`]) for sessions whose hidden states are candle tensors.
//!
//! | engine | where | what runs there |
//! | --- | --- | --- |
//! | [`TensorCodec`] | any candle device | quantiser and networks, as tensors; entropy coding runs on the CPU |
#![cfg_attr(
    any(feature = "kernels", feature = "cuda"),
    doc = "| [`KernelCodec`] | an NVIDIA device, or the CPU to test it | everything |"
)]
#![cfg_attr(
    not(any(feature = "kernels", feature = "cuda")),
    doc = "| `KernelCodec`, with the feature `cuda` | an NVIDIA device | everything |"
)]
//!
//! You choose by the type you construct. Every integer and every byte equals that of the CPU's arms; [`tensors`] says how tensors of
//! floats hold integers exactly, and the module `selftest` (feature `testing`) checks it on the device at hand.
//!
//! ```
//! use std::sync::Arc;
//! use candle_core::{Device, Tensor};
//! use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig};
//! use midspan::model::synthetic::{self, SyntheticShape};
//! use midspan::wire::Identity;
//! use midspan_device::TensorCodec;
//!
//! # fn main() -> Result<(), midspan_device::Error> {
//! let codec = Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), 1))?);
//! let device = Device::Cpu;
//! let engine = Arc::new(TensorCodec::new(codec, &device)?);
//!
//! let mut encoder = Encoder::new(engine.clone(), EncoderConfig::new(Identity::none()))?;
//! encoder.push_hidden(&Tensor::zeros((1, 20), candle_core::DType::F32, &device)?)?; // [T, E]
//! let bytes = encoder.take_bytes()?;
//!
//! let mut decoder = Decoder::new(engine, DecoderConfig::default())?;
//! decoder.push(&bytes)?;
//! while let DecoderPoll::Event(event) = decoder.poll()? {
//!     if let DecoderEvent::Frames(frames) = event {
//!         assert_eq!(frames.hidden.dims(), [1, 20]); // a tensor on the device
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Many streams go in one call, on each engine: [`Together`](midspan::codec::Together) takes what a device gets in one
//! launch. They share the work if they share the `Arc` of their engine.
//!
//! ```
//! # use std::sync::Arc;
//! # use candle_core::{DType, Device, Tensor};
//! # use midspan::codec::{Codec, Encoder, EncoderConfig, Input, Push, Together};
//! # use midspan::model::synthetic::{self, SyntheticShape};
//! # use midspan::wire::Identity;
//! # use midspan_device::TensorCodec;
//! # fn main() -> Result<(), midspan_device::Error> {
//! # let codec = Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), 1))?);
//! # let device = Device::Cpu;
//! # let engine = Arc::new(TensorCodec::new(codec, &device)?);
//! // On an NVIDIA device, with the feature `cuda`: let device = midspan_device::open(0)?; and
//! // let engine = Arc::new(KernelCodec::new(codec, &Machine::cuda(&device)?)?);
//! let mut encoders = vec![Encoder::new(engine, EncoderConfig::new(Identity::none()))?; 100];
//! let frame = Tensor::zeros((1, 20), DType::F32, &device)?; // [T, E]
//! let mut together = Together::default();
//! let pushes = encoders.iter_mut().map(|encoder| Push { encoder, input: Input::Hidden(&frame) });
//! for outcome in together.push(&mut pushes.collect::<Vec<_>>()) {
//!     outcome?;
//! }
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs, unreachable_pub)]
// On docs.rs, items say which feature they need.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod decode;
mod error;
#[cfg(any(feature = "kernels", feature = "cuda"))]
pub mod kernels;
mod number;
#[cfg(any(test, feature = "testing"))]
pub mod selftest;
mod shape;
pub mod tensors;
#[cfg(test)]
mod test_models;

pub use error::{Error, Result};
#[cfg(feature = "cuda")]
pub use kernels::open;
#[cfg(any(feature = "kernels", feature = "cuda"))]
pub use kernels::{Coder, KernelCodec, Machine};
pub use tensors::{Carrier, TensorCodec};
