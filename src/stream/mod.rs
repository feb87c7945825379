//! Reader and writer of the container: state machines without I/O over [`crate::wire`] (spec chapter 2).
//!
//! Payloads are opaque here. A caller gives bytes to [`Reader::push`] or [`Reader::push_message`], calls
//! [`Reader::finish`] when no more will come, and takes events from [`Reader::poll`]; a [`Writer`] turns calls into
//! bytes. Nothing blocks, nothing reads a clock, and both can be cloned to fork a stream.
//!
//! ```
//! use midspan::stream::{Binding, Chunk, Poll, Reader, ReaderConfig, Writer};
//! use midspan::wire::StreamHeader;
//!
//! # fn main() -> Result<(), midspan::error::Error> {
//! let mut writer = Writer::new(StreamHeader::new([7; 32]), Binding::ByteStream)?;
//! writer.frame(b"sealed")?;
//! writer.end(0, 0)?;
//!
//! let mut reader = Reader::new(ReaderConfig::default());
//! reader.push(&writer.take()?)?;
//! reader.finish();
//! let mut frames = 0;
//! while let Poll::Event(event) = reader.poll()? {
//!     if let Chunk::Frame { index, payload, .. } = event.chunk {
//!         assert_eq!((index, &payload.bytes[..]), (0, &b"sealed"[..]));
//!         frames += 1;
//!     }
//! }
//! assert_eq!(frames, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Outcomes
//! A poll has one of four outcomes (spec 7.1): an event, a wait for more input, a clean end, or one error, which then
//! answers every later call. The outcomes depend only on the bytes, never on how they were cut ([ERR-1]).

#![deny(clippy::float_arithmetic)]

mod body;
pub mod event;
pub mod limits;
pub(crate) mod memory;
pub mod message;
pub mod reader;
mod runs;
pub(crate) mod saved;
pub mod sequence;
pub mod writer;

pub use crate::wire::Binding;
pub use event::{Chunk, Event, Poll, TargetStatus};
pub use limits::Limits;
pub use message::{Message, MessageClass};
pub use reader::{JoinPoint, Reader, ReaderConfig};
pub use sequence::Sequence;
pub use writer::Writer;
