//! Encoder and decoder sessions: hidden states or integers in, bytes out, and back (spec chapter 6).
//!
//! A session joins the layers below: the container ([`crate::stream`]) and an engine ([`crate::engine`]) that codes the
//! chunks of one codec model ([`crate::model`]), by default on this CPU. It does no I/O, starts no thread and reads no
//! clock: push input, poll for output, and finish explicitly.
//!
//! ```
//! use std::sync::Arc;
//! use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderPoll, DecoderEvent, Encoder, EncoderConfig};
//! use midspan::wire::Identity;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = "src/example.safetensors";
//! let file = std::fs::read(path)?; // a model file
//! let codec = Arc::new(Codec::from_bytes(&file, 1 << 20)?);
//!
//! let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none()))?;
//! encoder.push_hidden(&vec![0.25; codec.model().hidden_width()])?; // one time frame
//! encoder.end()?;
//! let bytes = encoder.take_bytes()?;
//!
//! let mut decoder = Decoder::new(codec, DecoderConfig::default())?;
//! decoder.push(&bytes)?;
//! decoder.finish();
//! loop {
//!     match decoder.poll()? {
//!         DecoderPoll::Event(DecoderEvent::Frames(frames)) => println!("{} values", frames.hidden.len()),
//!         DecoderPoll::Event(_) => {}
//!         DecoderPoll::NeedMore => unreachable!("the whole stream was pushed"),
//!         DecoderPoll::End => break,
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod decoder;
pub(crate) mod digest;
mod early;
mod encoder;
mod event;
mod pending;
mod prediction;
mod saved;
mod sent;
mod side;
mod together;

pub use crate::engine::cost::Cost;
pub use crate::engine::{Codec, Integers};
pub use decoder::{Decoder, DecoderConfig, DecoderPoll};
pub use encoder::{Clipping, Encoder, EncoderConfig};
pub use event::{DecoderEvent, ExactFrame, Frames, HyperPrior, TargetRefusal, Targets, Verdict};
pub use sent::{Sent, Unlike};
pub use side::SideDelivery;
pub use together::{Input, Push, Together};
