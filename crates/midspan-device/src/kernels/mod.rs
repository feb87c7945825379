//! The codec as fused kernels: one launch runs a network for 128 frames of each stream, and the device makes the coded
//! bytes.
//!
//! The sources (`*.h`) are written so that a warp is 32 threads on a device and a loop over 32 on the CPU (`warp.h`).
//! The feature `cuda` compiles them for NVIDIA devices. The feature `kernels` compiles them for the CPU, where
//! everything except the device itself is tested. This is not a fast way to compute on a CPU.
//!
//! - `machine`: memory, copies and launches, on a device or the CPU;
//! - `layout`: the structures that the sources read;
//! - `network`: the exact networks, contexts in rings;
//! - `codec`, `encode`, `decode`: chunks of many streams;
//! - `engine`: sessions on kernels.
//!
//! ```
//! # #[cfg(feature = "kernels")]
//! # fn main() -> Result<(), midspan_device::Error> {
//! use midspan::exact::{Arm, Network, Serial, State};
//! use midspan_device::kernels::{KernelNetwork, KernelState, KernelStep, Machine};
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
mod engine;
mod layout;
mod machine;
mod network;
mod predicted;
#[cfg(all(test, feature = "kernels"))]
mod tests;

pub use engine::{Coder, KernelCodec};
pub use machine::Machine;
#[cfg(feature = "cuda")]
pub use machine::open;
pub use network::{KernelNetwork, KernelState, KernelStep};
