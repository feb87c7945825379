//! Helpers for the tests of several members of the workspace.

#![warn(missing_docs, unreachable_pub)]

// The file belongs to the tests of the root package.
#[allow(missing_docs)]
#[path = "../../../tests/allocator_support/mod.rs"]
pub mod allocator;
pub mod errors;
pub mod program;
