//! Midspan carries the middle of a transformer across a link: the hidden state between two halves of a model, quantised
//! and entropy-coded by a learned model, one time frame at a time, as a stream that only ever appends.
//!
//! | to do this | begin here |
//! | --- | --- |
//! | encode or decode hidden states or integers | `codec::Encoder`, `codec::Decoder` |
//! | route, inspect or index streams without a model | [`stream::Reader`], [`stream::Writer`] |
//! | load and check a frozen codec model | `model::CodecModel` |
//! | run the exact integer network alone | `exact::Network` |
//!
//! The container (`--no-default-features`) needs bytes, nom, byteorder and crc32fast alone. The default feature `codec`
//! adds constriction, safetensors and sha2. The rest are packages of their own: `midspan-host` runs split language models,
//! `midspan-train` learns and freezes codec models, `midspan-cli` is the program with its default model. The format's text
//! is in `spec/`.

#[cfg(feature = "codec")]
pub mod adapter;
#[cfg(feature = "codec")]
pub mod codec;
#[cfg(feature = "codec")]
pub mod entropy;
pub mod error;
#[cfg(feature = "codec")]
pub mod exact;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(feature = "codec")]
pub mod model;
mod number;
pub mod stream;
pub mod wire;
