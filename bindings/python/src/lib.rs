//! The extension module `midspan._midspan` of the Python package. The package's own files (`python/midspan/`) hold what
//! needs no Rust: exceptions, events, chunks and headers are their dataclasses.
//!
//! A call of a session locks it, runs with the interpreter released if it codes, and turns what goes wrong into an
//! exception ([`session`]). A panic becomes one too, and the session stays unusable.
#![warn(missing_docs, unreachable_pub)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
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
// Arguments of Python's functions are these functions' arguments.
#![allow(clippy::too_many_arguments)]

#[cfg(panic = "abort")]
compile_error!("midspan-python turns panics into exceptions, so it has to be built with panic = \"unwind\"");

mod array;
mod classes;
mod codec;
mod config;
mod decoder;
mod dlpack;
mod encoder;
mod error;
mod event;
mod header;
mod reader;
mod session;
mod together;
mod writer;

/// The extension module. It has not been tested without the interpreter's lock, and asks for it.
#[pyo3::pymodule(gil_used = true)]
mod _midspan {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::codec::{Codec, host_digest};
    #[pymodule_export]
    use crate::decoder::{Decoder, Events};
    #[pymodule_export]
    use crate::encoder::Encoder;
    #[pymodule_export]
    use crate::error::error_text;
    #[pymodule_export]
    use crate::header::{file_seek, load_header};
    #[pymodule_export]
    use crate::reader::{Chunks, Reader};
    #[pymodule_export]
    use crate::together::Together;
    #[pymodule_export]
    use crate::writer::Writer;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
