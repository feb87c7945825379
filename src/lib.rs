//! Midspan carries the middle of a transformer across a link: the hidden state between two halves of a model. It is
//! quantised and entropy-coded with a learned model, one time frame at a time, into an append-only stream.
//!
//! | to do this | start here |
//! | --- | --- |
//! | encode or decode hidden states or integers | `codec::Encoder`, `codec::Decoder` |
//! | route, inspect or index streams without a model | [`stream::Reader`], [`stream::Writer`] |
//! | load and check a frozen codec model | `model::CodecModel` |
//! | run the exact integer network alone | `exact::Network` |
//!
//! The container (`--no-default-features`) needs only bytes, nom, byteorder and crc32fast. The default feature `codec`
//! adds constriction, safetensors and sha2. The rest are separate packages: `midspan-host` runs split language models,
//! `midspan-train` learns and freezes codec models, `midspan-cli` is the program with its default model. The format's
//! specification is in `spec/`.

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
