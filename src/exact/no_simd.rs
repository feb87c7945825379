//! Replaces the SIMD arms on targets that have none.

use super::{Arm, ArmSteps};
use crate::model::NetworkParameters;

/// The buffers of no arm.
#[derive(Default)]
pub(super) struct Scratch;

impl Scratch {
    pub(super) fn memory_bytes(&self) -> usize {
        0
    }
}

pub(super) fn available() -> Vec<Arm> {
    Vec::new()
}

pub(super) fn portable_instructions() -> &'static str {
    "none"
}

pub(super) fn steps(_: &NetworkParameters, _: Arm) -> Option<Box<dyn ArmSteps + Send>> {
    None
}
