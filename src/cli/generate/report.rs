//! The table behind a generation.

use serde::Serialize;

use super::outcome::Outcome;
use crate::cli::compressors::{Baseline, baseline};

/// The figures of one generation; bits are per token (time frame), prompt included.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// Frames sent.
    pub frames: usize,
    /// Real bits on the wire, stream header left out.
    pub bits: f64,
    /// Of these: W by the frozen tables.
    pub hyper_prior_bits: f64,
    /// Of these: Y by the frozen tables.
    pub target_bits: f64,
    /// Of these: framing, termination and checkpoints.
    pub overhead_bits: f64,
    /// Bytes of the stream header, once per stream.
    pub header_bytes: u64,
    /// The hidden state as f16.
    pub f16_bits: f64,
    /// zstd -19 on the same integers, per sequence of the context's length.
    pub zstd_bits: f64,
    /// Deflate -9 likewise.
    pub deflate_bits: f64,
    /// Median milliseconds to encode one frame.
    pub encode_ms: f64,
    /// Median milliseconds to decode one frame.
    pub decode_ms: f64,
    /// Generated tokens a second, both halves and the loopback included.
    pub tokens_per_second: f64,
    /// Whether every decoded integer equals the encoder's.
    pub matched: bool,
    /// Checkpoints and ends whose digests held.
    pub confirmed_checkpoints: u64,
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Report {
    /// Puts an outcome into figures; `context` is the length of the sequences that the baselines compress.
    ///
    /// # Errors
    /// Those of the baseline compressors.
    pub fn new(outcome: &Outcome, width: usize, context: usize) -> anyhow::Result<Self> {
        let frames = outcome.y.len() / width;
        let per_frame = |bits: f64| bits / frames.max(1) as f64;
        let Baseline { zstd, deflate } = baseline(&outcome.y, width, context)?;
        let bits = per_frame(8.0 * (outcome.bytes - outcome.header_bytes) as f64);
        let (hyper_prior_bits, target_bits) = (per_frame(outcome.cost.hyper_prior), per_frame(outcome.cost.target));
        Ok(Self {
            prompt_tokens: outcome.prompt_tokens,
            generated_tokens: outcome.tokens,
            frames,
            bits,
            hyper_prior_bits,
            target_bits,
            overhead_bits: bits - hyper_prior_bits - target_bits,
            header_bytes: outcome.header_bytes,
            f16_bits: 16.0 * width as f64,
            zstd_bits: per_frame(zstd),
            deflate_bits: per_frame(deflate),
            encode_ms: 1e3 * median(&outcome.encode_seconds),
            decode_ms: 1e3 * median(&outcome.tail.decode_seconds),
            tokens_per_second: outcome.tokens.saturating_sub(1) as f64 / outcome.seconds.max(1e-9),
            matched: outcome.matched,
            confirmed_checkpoints: outcome.tail.confirmed,
        })
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let share = |bits: f64| 100.0 * self.bits / bits;
        let rows = [
            ("tokens", format!("{} of the prompt, {} generated", self.prompt_tokens, self.generated_tokens)),
            ("bits per token", format!("{:.1}  ({:.1} bytes)", self.bits, self.bits / 8.0)),
            ("  hyper-prior", format!("{:.1}", self.hyper_prior_bits)),
            ("  target", format!("{:.1}", self.target_bits)),
            ("  overhead", format!("{:.1}  (framing, termination, checkpoints)", self.overhead_bits)),
            ("raw f16", format!("{:.0}  (ours is {:.2} % of it)", self.f16_bits, share(self.f16_bits))),
            ("zstd -19", format!("{:.0}  (ours is {:.1} %), same integers", self.zstd_bits, share(self.zstd_bits))),
            (
                "deflate -9",
                format!("{:.0}  (ours is {:.1} %), same integers", self.deflate_bits, share(self.deflate_bits)),
            ),
            ("encode", format!("{:.3} ms a token, median", self.encode_ms)),
            ("decode", format!("{:.3} ms a token, median", self.decode_ms)),
            ("speed", format!("{:.1} tokens/s, both halves and the link", self.tokens_per_second)),
            (
                "integers",
                if self.matched {
                    format!("every decoded integer matched; {} checkpoints confirmed", self.confirmed_checkpoints)
                } else {
                    "DECODED INTEGERS DIFFER".to_string()
                },
            ),
        ];
        rows.iter().map(|(name, value)| format!("{name:<16}{value}\n")).collect()
    }
}
