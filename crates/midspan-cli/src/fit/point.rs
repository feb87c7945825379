//! One result of a fit, kept as one file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::measure::{Batch, Report, Task};
use midspan_train::fit::Compared;
use midspan_train::runner::Metrics;

/// What was learned, how, and with which outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Point {
    /// The command that repeats this run alone, with files without their folders.
    pub command: String,
    /// The name that the run shares with others.
    pub recipe: String,
    /// The host's file.
    pub host: String,
    /// SHA-256 of it.
    pub host_sha256: String,
    /// The host's blocks.
    pub blocks: usize,
    /// Blocks before the split.
    pub split: usize,
    /// Weight of the rate in the loss, nats a bit.
    pub lambda: f64,
    /// Seed of weights, samples and windows.
    pub seed: u64,
    /// The other options: the codec's shape, the run's length and rates, the texts. Results are distinguished by all of
    /// them.
    pub options: BTreeMap<String, String>,
    /// Tokens of the run.
    pub tokens: u64,
    /// Seconds that learning took since it was started or last resumed.
    pub seconds: f64,
    /// Multiplications a frame from W to the densities of Y.
    pub decoder_multiplications: usize,
    /// Fingerprint of the frozen codec, whose file is in the same folder as the result.
    pub fingerprint: String,
    /// The calibration that the run began with, and what was learned from it, on held-out text. The better one is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
    /// Figures on held-out text as training estimates them, in windows that overlap by half: rates in bits a token by
    /// exact densities, divergence, agreement and perplexities.
    pub estimates: Metrics,
    /// Figures of the frozen codec from encoder to decoder: real bytes, what the second half predicts from them, and
    /// what other links would send, all for the same hidden states.
    pub frozen: Report,
}

/// The result in one line.
impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { recipe, split, blocks, lambda, frozen, .. } = self;
        write!(f, "{recipe}, split {split} of {blocks}, lambda {lambda}, on {} held-out frames: ", frozen.frames)?;
        for (i, Batch { batch, bits, .. }) in frozen.batches.iter().enumerate() {
            write!(f, "{}{bits:.1} bits a token in chunks of {batch}", if i > 0 { ", " } else { "" })?;
        }
        if let Some(Task { greedy_agreement, divergence, .. }) = &frozen.task {
            write!(f, ", agreement {:.2} %, divergence {divergence:.4} nats", 100.0 * greedy_agreement)?;
        }
        write!(f, "; deflate -9 {:.1}, zstd -19 {:.1}", frozen.deflate_bits, frozen.zstd_bits)?;
        for (name, link) in frozen.task.iter().flat_map(|task| &task.without_codec) {
            write!(f, "; {name} {:.0} at {:.2} %", link.bits, 100.0 * link.greedy_agreement)?;
        }
        if let Some(compared) = &self.compared {
            let Compared { calibrated, learned } = compared;
            let kept = if compared.is_learned() { "what was learned" } else { "the calibration" };
            write!(f, "; {kept} is kept: loss {:.5} learned, {:.5} calibrated", learned.loss, calibrated.loss)?;
        }
        Ok(())
    }
}
