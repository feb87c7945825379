//! One result of a fit: a file of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::measure::{Batch, Report, Task};
use midspan_train::runner::Metrics;

/// What was learned, how, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The command that repeats this run alone, files without their folders.
    pub command: String,
    /// What the run has in common with others.
    pub recipe: String,
    /// The host's file.
    pub host: String,
    /// SHA-256 of it.
    pub host_sha256: String,
    /// The host's blocks.
    pub blocks: usize,
    /// Blocks before the split.
    pub split: usize,
    /// Nats a bit.
    pub lambda: f64,
    /// Seed of weights, samples and windows.
    pub seed: u64,
    /// What else made it: the codec's shape, the run's length and rates, texts. All of it tells it from others.
    pub options: BTreeMap<String, String>,
    /// Tokens of the run.
    pub tokens: u64,
    /// Seconds that learning took, since it last went on.
    pub seconds: f64,
    /// Multiplications a frame from W to the densities of Y.
    pub decoder_multiplications: usize,
    /// Fingerprint of the frozen codec, whose file stands beside the result.
    pub fingerprint: String,
    /// Over held-out text, as training estimates it: rates in bits a token by exact densities, divergence, agreement,
    /// perplexities, in windows that overlap by half.
    pub estimates: Metrics,
    /// The frozen codec, encoder to decoder: real bytes, what the second half makes of them, and what else could be sent, all
    /// of the same hidden states.
    pub frozen: Report,
}

/// The result in one line.
impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { recipe, split, blocks, lambda, frozen, .. } = self;
        write!(f, "{recipe}, split {split} of {blocks}, lambda {lambda}: ")?;
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
        Ok(())
    }
}
