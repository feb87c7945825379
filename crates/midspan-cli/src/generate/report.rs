//! The table printed after a generation.

use serde::Serialize;

use super::outcome::Outcome;
use crate::terminal::counted;

/// The figures of one generation; bits are per token (time frame), prompt included.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// Frames sent.
    pub frames: usize,
    /// Real bits on the wire, stream header left out.
    pub bits: f64,
    /// Bits among these for W, by the frozen tables.
    pub hyper_prior_bits: f64,
    /// Bits among these for Y, by the frozen tables.
    pub target_bits: f64,
    /// Bits among these for framing, checks, termination and checkpoints.
    pub overhead_bits: f64,
    /// Bits of the check in each chunk.
    pub check_bits: usize,
    /// Values outside the range of the quality, which were clamped.
    pub clipped: u64,
    /// Values of W and Y that their tables do not hold.
    pub escaped: u64,
    /// Bits of the payloads of W and Y.
    pub payload_bits: f64,
    /// Bits that the codec expects of them in single frames; `None` if it does not say.
    pub expected_bits: Option<f64>,
    /// Bytes of the stream header, once per stream.
    pub header_bytes: u64,
    /// Bits of the hidden state as f16.
    pub f16_bits: f64,
    /// Bits of zstd -19 on the same integers, per sequence of the context's length.
    pub zstd_bits: f64,
    /// Bits of Deflate -9 likewise.
    pub deflate_bits: f64,
    /// Median milliseconds to encode a chunk of one frame; `None` if there was no such chunk.
    pub encode_ms: Option<f64>,
    /// Median milliseconds to decode it.
    pub decode_ms: Option<f64>,
    /// Generated tokens a second after the first one, with the time of both halves and the connection. `None` if only
    /// one was generated.
    pub tokens_per_second: Option<f64>,
    /// Whether every decoded integer equals the encoder's.
    pub matched: bool,
    /// Checkpoints and ends whose digests held.
    pub confirmed_checkpoints: u64,
}

impl Report {
    /// The figures of an outcome, for hidden states of `width` values.
    pub(super) fn new(outcome: &Outcome, width: usize) -> Self {
        let frames = outcome.frames;
        let per_frame = |bits: f64| bits / frames.max(1) as f64;
        let bits = per_frame(8.0 * (outcome.bytes - outcome.header_bytes) as f64);
        let (hyper_prior_bits, target_bits) = (per_frame(outcome.cost.hyper_prior), per_frame(outcome.cost.target));
        let milliseconds = |seconds: f64| 1e3 * seconds;
        let behind_first = outcome.tokens.saturating_sub(1);
        Self {
            prompt_tokens: outcome.prompt_tokens,
            generated_tokens: outcome.tokens,
            frames,
            bits,
            hyper_prior_bits,
            target_bits,
            overhead_bits: bits - hyper_prior_bits - target_bits,
            check_bits: outcome.check_bits,
            clipped: outcome.sent.clipped,
            escaped: outcome.sent.escaped,
            payload_bits: per_frame(outcome.sent.payload_bits as f64),
            expected_bits: (outcome.sent.compared_frames > 0).then(|| per_frame(outcome.sent.expected_bits() as f64)),
            header_bytes: outcome.header_bytes,
            f16_bits: 16.0 * width as f64,
            zstd_bits: per_frame(outcome.baseline.zstd),
            deflate_bits: per_frame(outcome.baseline.deflate),
            encode_ms: outcome.encode.median().map(milliseconds),
            // The value comes from another machine and may not be a finite number.
            decode_ms: outcome.tail.decode_seconds.filter(|seconds| seconds.is_finite()).map(milliseconds),
            tokens_per_second: (behind_first > 0).then(|| behind_first as f64 / outcome.seconds.max(1e-9)),
            matched: outcome.matched,
            confirmed_checkpoints: outcome.tail.confirmed,
        }
    }

    /// The table as text.
    pub(super) fn table(&self) -> String {
        let share = |bits: f64| 100.0 * self.bits / bits;
        let time = |milliseconds: Option<f64>| {
            milliseconds.map_or("no chunk of one frame".to_string(), |value| format!("{value:.3} ms a token, median"))
        };
        let speed = |speed: f64| format!("{speed:.1} tokens/s, both halves and the link");
        let parts = match self.check_bits {
            0 => "framing, termination, checkpoints".to_string(),
            bits => format!("framing, termination, checkpoints, a check of {bits} bits a chunk"),
        };
        let rows = [
            ("tokens", format!("{} of the prompt, {} generated", self.prompt_tokens, self.generated_tokens)),
            ("bits per token", format!("{:.1}  ({:.1} bytes)", self.bits, self.bits / 8.0)),
            ("  hyper-prior", format!("{:.1}", self.hyper_prior_bits)),
            ("  target", format!("{:.1}", self.target_bits)),
            ("  overhead", format!("{:.1}  ({parts})", self.overhead_bits)),
            ("raw f16", format!("{:.0}  (ours is {:.2} % of it)", self.f16_bits, share(self.f16_bits))),
            ("zstd -19", format!("{:.0}  (ours is {:.1} %), same integers", self.zstd_bits, share(self.zstd_bits))),
            (
                "deflate -9",
                format!("{:.0}  (ours is {:.1} %), same integers", self.deflate_bits, share(self.deflate_bits)),
            ),
            ("encode", time(self.encode_ms)),
            ("decode", time(self.decode_ms)),
            ("speed", self.tokens_per_second.map_or("one token only".to_string(), speed)),
            (
                "integers",
                if self.matched {
                    format!(
                        "every decoded integer matched; {} confirmed",
                        counted(self.confirmed_checkpoints, "checkpoint")
                    )
                } else {
                    "DECODED INTEGERS DIFFER".to_string()
                },
            ),
        ];
        let clipped = match self.clipped {
            0 => None,
            count => Some(("clamped", format!("{count} values outside the range of the quality"))),
        };
        rows.iter().chain(&clipped).map(|(name, value)| format!("{name:<16}{value}\n")).collect()
    }
}
