//! Midspan carries the middle of a transformer across a link: the hidden state between two halves of a model. It is
//! quantised and entropy-coded with a learned model, one time frame at a time, into an append-only stream.
//!
//! | to do this | start here |
//! | --- | --- |
//! | encode or decode hidden states or integers | [`Encoder`], [`Decoder`] |
//! | step many streams in one call | [`codec::Together`] |
//! | route, inspect or index streams without a model | [`stream::Reader`], [`stream::Writer`] |
//! | load and check a frozen codec model | [`model::CodecModel`] |
//! | run the exact integer network alone | [`exact::Network`] |
//! | run sessions on a device, or write an engine that does | the package `midspan-device`, [`engine::Engine`] |
//!
//! The container (`--no-default-features`) needs only bytes, nom, byteorder and crc32fast. The default feature `codec`
//! adds constriction, safetensors and sha2. The rest are separate packages: `midspan-device` runs sessions on devices,
//! `midspan-host` runs split language models, `midspan-train` learns and freezes codec models, `midspan-cli` is the
//! program with its default model. The format's specification is in `spec/`.
#![cfg_attr(feature = "codec", doc = include_str!("example.md"))]
//! # What the letters mean
//!
//! | term | meaning |
//! | --- | --- |
//! | time frame | one position of the host's sequence: one hidden state |
//! | T | time frames in a batch or chunk |
//! | E | hidden width: values in a hidden state |
//! | Y, target | the E integers that the quantiser makes of a hidden state |
//! | W, hyper-prior | C integers per time frame, decoded before Y, from which both ends derive the probabilities of Y |
//! | C | hyper-prior width: values in W |
//! | h | the network in the encoder alone that makes W of the nearest integers |
//! | g_y | the network at both ends that takes W of this and earlier time frames and gives a mean and a scale for each element of Y |
//! | quality | an index that selects steps, gains and tables of one model: 0 is the coarsest of the default model |
//! | engine | a model prepared for the place where its chunks are coded: a CPU or a device |
//! | arm | an implementation of the exact network for a kind of CPU |
//! | lane | some frames of a batch with an entropy coder of their own, so that lanes can be coded in parallel |
//! | fingerprint | SHA-256 of all that a decoder uses of a model |
//!
//! `spec/00-terms.md` has all terms.
#![warn(missing_docs, unreachable_pub)]
// Bytes from strangers reach almost all of this crate: no number wraps or is cut unseen, and nothing panics. What does
// not hold to this says so where it is declared.
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
#![cfg_attr(not(feature = "codec"), allow(rustdoc::broken_intra_doc_links))]
// On docs.rs, items say which feature they need.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "codec")]
pub mod adapter;
// It makes the streams that it reads, so it indexes freely.
#[cfg(all(feature = "codec", any(test, feature = "testing")))]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::indexing_slicing
)]
pub mod check;
#[cfg(feature = "codec")]
pub mod codec;
#[cfg(feature = "codec")]
pub mod engine;
#[cfg(feature = "codec")]
pub mod entropy;
pub mod error;
#[cfg(feature = "codec")]
// Its bounds are those of the spec and of checked parameters; `plain.rs`, the reference, holds to more.
#[allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
pub mod exact;
#[cfg(feature = "codec")]
pub mod model;
mod number;
mod setters;
pub mod stream;
pub mod wire;

#[cfg(feature = "codec")]
pub use codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig};
pub use error::Error;
pub use wire::Identity;
