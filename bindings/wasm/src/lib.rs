//! The WebAssembly module of the npm package `midspan`. The package's JavaScript (`js/`) checks the types of arguments,
//! closes sessions and makes errors, events and chunks; what it calls is here, one file for each of its classes. The
//! documentation is in `js/index.d.ts`.
//!
//! The target aborts where Rust panics, which is a trap: the JavaScript around each call then starts a new instance of
//! the module (`js/runtime.js`).
#![warn(missing_docs)]
// As in the library: numbers come from strangers.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]
// Arguments of JavaScript's functions are these functions' arguments.
#![allow(clippy::too_many_arguments)]

mod array;
mod codec;
mod config;
mod decoder;
mod encoder;
mod error;
mod event;
mod header;
mod number;
mod objects;
mod reader;
mod writer;

use wasm_bindgen::prelude::wasm_bindgen;

/// Runs once for each instance of the module: a panic's text goes to JavaScript before the trap.
#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|panic| objects::panicked(&panic.to_string())));
}

/// Bytes of the instance's memory. It grows and never shrinks.
#[wasm_bindgen(js_name = moduleMemoryBytes)]
#[must_use]
pub fn module_memory_bytes() -> f64 {
    #[cfg(target_arch = "wasm32")]
    let pages = u32::try_from(core::arch::wasm32::memory_size::<0>()).unwrap_or(u32::MAX);
    #[cfg(not(target_arch = "wasm32"))]
    let pages = 0_u32;
    f64::from(pages) * 65536.0
}
