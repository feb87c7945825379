//! The SIMD arms: what they share, and which of them this CPU has.
//!
//! The module exists where the target has vectors of 128 bits: x86-64 and aarch64 always, wasm32 if it is compiled
//! with `simd128`. Elsewhere `no_simd.rs` replaces it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod fast;
mod lanes;
mod packed;
mod portable;

pub(super) use fast::Scratch;

use super::{Arm, ArmSteps};
use crate::model::NetworkParameters;
use fast::{Fast, Kernels};

/// The SIMD arms that this CPU can run, the fastest last.
pub(super) fn available() -> Vec<Arm> {
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
    let mut arms = vec![Arm::Portable];
    #[cfg(target_arch = "x86_64")]
    {
        if avx2::Avx2::detect().is_some() {
            arms.push(Arm::Avx2);
        }
        if avx512::Avx512::detect().is_some() {
            arms.push(Arm::Avx512Vnni);
        }
    }
    arms
}

/// The instructions that the portable arm uses on this CPU.
pub(super) fn portable_instructions() -> &'static str {
    portable::instructions()
}

/// The network on a SIMD arm, if this CPU has the arm.
pub(super) fn steps(parameters: &NetworkParameters, arm: Arm) -> Option<Box<dyn ArmSteps + Send>> {
    match arm {
        Arm::Plain => None,
        Arm::Portable => Some(portable::steps(parameters)),
        #[cfg(target_arch = "x86_64")]
        Arm::Avx2 => avx2::Avx2::detect().map(|kernels| pack(parameters, kernels)),
        #[cfg(target_arch = "x86_64")]
        Arm::Avx512Vnni => avx512::Avx512::detect().map(|kernels| pack(parameters, kernels)),
        #[cfg(not(target_arch = "x86_64"))]
        Arm::Avx2 | Arm::Avx512Vnni => None,
    }
}

fn pack<K: Kernels + 'static>(parameters: &NetworkParameters, kernels: K) -> Box<dyn ArmSteps + Send> {
    Box::new(Fast::new(parameters, kernels))
}
