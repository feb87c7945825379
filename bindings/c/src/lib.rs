//! The C interface of Midspan. `include/midspan.h`, which cbindgen makes of this crate, is its documentation; the rules
//! that hold for every function are at its top (`cbindgen.toml`). They are also what every `unsafe` block here relies
//! on.
//!
//! Every function that is exported runs in [`result::guard`]: a panic becomes a number, and the handle in whose call it
//! happened stays unusable, because its mutex is poisoned. Nothing unwinds into C.
#![warn(missing_docs, unreachable_pub)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
// As in the library: numbers come from strangers.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]
// The names are C's. What a caller of an unsafe function has to keep to is said once for all, at the header's top.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

#[cfg(panic = "abort")]
compile_error!("midspan-c turns panics into error numbers, so it has to be built with panic = \"unwind\"");

pub mod config;
pub mod decoder;
pub mod encoder;
pub mod error;
pub mod event;
pub mod header;
mod memory;
pub mod model;
pub mod output;
pub mod reader;
pub mod result;
pub mod seek;
pub mod writer;

// Where `memory::settings` reads the size.
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(encoder::midspan_encoder_config, struct_size) == 0);
    assert!(offset_of!(decoder::midspan_decoder_config, struct_size) == 0);
    assert!(offset_of!(reader::midspan_reader_config, struct_size) == 0);
    assert!(offset_of!(header::midspan_header, struct_size) == 0);
};
