//! Helpers of tests that several members of the workspace share.

#[path = "../../../tests/allocator_support/mod.rs"]
pub mod allocator;
pub mod program;
