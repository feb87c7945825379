//! The codec as kernels of its own, fused: one launch for a network and 128 frames of each stream, bytes out of the device.
//!
//! The sources (`*.h`) are written so that a warp is 32 lanes on a device and a loop over 32 on the CPU (`warp.h`): the
//! feature `cuda` compiles them for NVIDIA devices, the feature `kernels` for the CPU, where everything but the device itself
//! is tested. That is no fast way to compute on a CPU.
//!
//! - `machine`: memory, copies and launches, on either;
//! - `layout`: the structures that the sources read;
//! - `network`: the exact networks, contexts in rings;
//! - `codec`, `encode`, `decode`: chunks of many streams, for [`crate::gpu::DeviceEncoder`] and
//!   [`crate::gpu::DeviceDecoder`].
//!
//! ```
//! # #[cfg(feature = "kernels")]
//! # fn main() -> Result<(), midspan::gpu::Error> {
//! use midspan::exact::{Arm, Network, Serial, State};
//! use midspan::gpu::kernels::{KernelNetwork, KernelState, KernelStep, Machine};
//! use midspan::model::synthetic::{self, Style, SyntheticShape};
//!
//! let parameters = synthetic::h(&SyntheticShape::tiny(), Style::Sensible, 1);
//! let inputs = synthetic::inputs(parameters.inputs(), 5, 100, 2);
//!
//! let network = KernelNetwork::new(&parameters, &Machine::cpu(3))?;
//! let mut state = KernelState::new(&network, 0);
//! let output = network.step(&mut [KernelStep { state: &mut state, frames: 5, quality: 0 }], &inputs)?;
//!
//! let plain = Network::new(&parameters, Arm::Plain);
//! let mut expected = Vec::new();
//! plain.run(&mut State::new(&plain, 0), &inputs, 0, &mut expected, &Serial)?;
//! assert_eq!(output, expected);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "kernels"))]
//! # fn main() {}
//! ```

mod codec;
mod decode;
mod encode;
mod layout;
mod machine;
mod network;
#[cfg(all(test, feature = "kernels"))]
mod tests;

pub use codec::KernelCodec;
pub(super) use decode::DecodeStep;
pub(super) use encode::{EncodeStep, Source};
pub use machine::Machine;
#[cfg(feature = "cuda")]
pub use machine::open;
pub use network::{KernelNetwork, KernelState, KernelStep};
