//! Helpers for the tests of several members of the workspace.

#[path = "../../../tests/allocator_support/mod.rs"]
pub mod allocator;
pub mod errors;
pub mod program;
