//! Entropy coding: integers to bytes and back, given tables of probabilities.
//!
//! A codec model predicts, for every value it is about to code, how likely each outcome
//! is. This module turns such predictions into bytes: a value of probability *p* costs
//! close to −log2 *p* bits, and a whole lane wastes about a third of a byte at its end.
//! It implements chapter 3 of the specification.
//!
//! # The parts
//!
//! - A [`Bank`] holds the frozen probability tables of a model file. All probabilities
//!   are integers with 16 bits, so an encoder and a decoder on different machines never
//!   disagree about a rounding.
//! - A [`LaneEncoder`] takes values and yields one *payload*, the sealed bytes of a lane.
//! - A [`LaneDecoder`] takes a payload and yields the values back, in the same order.
//!
//! The coder is a range coder with words of 16 bits and a state of 64. Range coding is a
//! queue: what went in first comes out first, which suits a model that predicts each
//! frame from the ones before it. It reads and writes the same numbers as the range coder
//! of the crate `constriction`, and a [`TableModel`] lets that crate's coders use a bank;
//! what differs is the seal, and that a decoder here finds most symbols without dividing.
//!
//! # Example
//!
//! ```
//! use midspan::entropy::{Bank, LaneDecoder, LaneEncoder};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // One table for the values -1, 0 and 1. The masses are 100 for the low escape, 15,000,
//! // 35,436 and 14,900 for the three values, and 100 for the high escape.
//! let bank = Bank::new(vec![-1], &[3], vec![100, 15_100, 50_536, 65_436])?;
//!
//! let mut encoder = LaneEncoder::new();
//! for value in [0, 1, 0, -1, 0, 7] {
//!     encoder.encode(&bank, 0, 0, value); // 7 is not in the table: it is escaped
//! }
//! let payload = encoder.finish();
//!
//! let mut decoder = LaneDecoder::new(&payload);
//! for value in [0, 1, 0, -1, 0, 7] {
//!     assert_eq!(decoder.decode(&bank, 0, 0, (-127, 127))?, value);
//! }
//! decoder.finish()?; // the payload was the canonical one
//! # Ok(())
//! # }
//! ```
//!
//! # One payload for one sequence
//!
//! Many byte strings would decode to the same values. The specification picks one of
//! them, the shortest and among these the smallest, and [`LaneDecoder::finish`] refuses
//! every other. A decoder therefore notices bytes appended to a payload, and two encoders
//! that agree about the values agree about the bytes.
//!
//! A payload does not say where it ends or how many values it holds: hand a decoder the
//! whole payload and ask it for as many values as were coded. After the end of its
//! payload a decoder reads zeros, as the specification demands.

#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

mod bank;
mod decoder;
mod encoder;
mod escape;
mod mode;
mod table;

pub use bank::{Bank, BankError};
pub use decoder::{EntropyError, LaneDecoder, decode_rows_2};
pub use encoder::LaneEncoder;
pub use escape::cost as escape_cost;
pub(crate) use mode::{PLAIN_BITS, WIDTH_BITS, plain_bits, width};
pub use mode::{RunDecoder, RunEncoder, RunMode};
pub use table::TableModel;

/// The largest length in bytes of a payload for `frames` frames with `values` values each
/// (W and Y together, if it holds both).
///
/// A run of n values costs less than 16·n + 17 bits with its mode, and the seal at most two
/// bytes; a decoder refuses a longer payload before it decodes it (spec 3.6). The result
/// saturates.
///
/// ```
/// assert_eq!(midspan::entropy::max_payload_len(1, 792), 1_592);
/// assert_eq!(midspan::entropy::max_payload_len(128, 272), 70_656);
/// ```
pub const fn max_payload_len(frames: u64, values: u64) -> u64 {
    frames.saturating_mul(values.saturating_mul(2).saturating_add(8))
}

/// A table number as an index.
#[inline(always)]
const fn widen(table: u32) -> usize {
    const { assert!(usize::BITS >= u32::BITS) };
    table as usize
}
