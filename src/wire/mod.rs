//! Values on the wire: varints, the stream header, chunk kinds and bodies, checks (spec chapters 1 and 2).
//!
//! Every file holds one value: its `load` next to its `encode`, and above each check the sentence of the specification
//! that requires it. Nothing here keeps state; what a rule needs to know about the stream so far (the index of the next
//! frame, the epoch, limits) is an argument. The layer above, [`crate::stream`], keeps that state.
//!
//! | spec | what | file |
//! | --- | --- | --- |
//! | 1.2 | varint | [`varint`] |
//! | 2.2 | stream header, identity | [`header`], [`identity`] |
//! | 2.3, 2.4 | leading byte, length, messages | [`kind`] |
//! | 2.5, 2.8 | checks and crcs | [`check`] |
//! | 2.6 | one-frame chunk, batch, target | [`frame`], [`batch`], [`target`] |
//! | 2.7 | lane table | [`lanes`] |
//! | 2.8 | control chunks | [`checkpoint`], [`reset`], [`rewind`], [`quality`], [`model_switch`], [`exact`], [`end`], [`extension`], [`side`] |
//! | 2.10 | seek index and footer | [`seek_index`] |
//!
//! # Offsets
//! An error of a `load` function counts its offset from the first byte of the slice it was given
//! ([`crate::error::Error::shifted`] makes it absolute). The offset is that of the first byte of the field at fault. If
//! a body is too short, this is the field that is cut off; if it is too long, it is the first surplus byte.

#![deny(clippy::float_arithmetic)]

pub mod batch;
pub mod check;
pub mod checkpoint;
pub mod end;
pub mod exact;
pub mod extension;
pub mod frame;
pub mod header;
pub mod identity;
mod input;
pub mod kind;
pub mod lanes;
pub mod model_switch;
pub mod quality;
pub mod reset;
pub mod rewind;
pub mod seek_index;
pub mod side;
pub mod target;
pub mod varint;

pub use batch::Batch;
pub use check::{CheckWidth, OpenCheck, Scope, SideCover, SideCrc};
pub use checkpoint::Checkpoint;
pub use end::End;
pub use exact::{Dtype, ExactFrame};
pub use extension::Extension;
pub use frame::{Frame, Payload};
pub use header::{Binding, Mode, OptionalField, StreamHeader};
pub use identity::{Identity, Seed};
pub use kind::Kind;
pub use model_switch::ModelSwitch;
pub use quality::Quality;
pub use reset::Reset;
pub use rewind::Rewind;
pub use seek_index::{SeekEntry, SeekIndex, Tail};
pub use side::SideIndices;
pub use target::Target;
