//! What a generation measured.

use super::channel::TailReport;
use crate::codec::cost::Cost;

/// What a generation measured, from the head's side and the tail's.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub tokens: usize,
    /// Ideal bits by the frozen tables, prompt included.
    pub cost: Cost,
    /// Bytes on the wire from head to tail: header, chunks, checkpoints, end.
    pub bytes: u64,
    /// Bytes of the stream header among them.
    pub header_bytes: u64,
    /// Y of every frame, `[T, E]`.
    pub y: Vec<i16>,
    /// Seconds of quantiser, h, g_y and coder for each one-frame chunk.
    pub encode_seconds: Vec<f64>,
    /// What the tail measured.
    pub tail: TailReport,
    /// Whether W and Y of the tail equal the head's, all of them.
    pub matched: bool,
    /// Seconds from the first token to the last.
    pub seconds: f64,
}
