//! One result of a fit: a file of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::train::codec;
use crate::train::runner::Metrics;

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
    /// Steps of the run.
    pub steps: u64,
    /// Tokens of the run.
    pub tokens: u64,
    /// Seconds that learning took.
    pub seconds: f64,
    /// Multiplications a frame from W to the densities of Y.
    pub decoder_multiplications: usize,
    /// Squared steps a bit, when Y was chosen.
    pub rate_weight: f64,
    /// Whether h and g_y were trained in float, not as they would be frozen.
    pub float: bool,
    /// Whether training multiplied in bfloat16; measures are of f32. None in results from before they were, where both did.
    #[serde(default)]
    pub bfloat16: Option<bool>,
    /// The codec.
    pub codec: codec::Config,
    /// Over held-out text: rates in bits a token by exact densities, divergence, agreement, perplexities.
    pub metrics: Metrics,
    /// The frozen codec over the same windows, where it has such a form: bits a token in real bytes, one chunk for each half
    /// of a window; divergence, agreement, perplexity.
    #[serde(default)]
    pub frozen: Option<Metrics>,
    /// Bits a token of general compressors on the same Y, by sequences of the host's context length.
    pub compressors: BTreeMap<String, f64>,
    /// Links without a codec on the same hidden states: their figures by name.
    pub without_codec: BTreeMap<String, Metrics>,
}

impl Point {
    /// A figure over held-out text; NaN where there is none.
    pub fn figure(&self, name: &str) -> f64 {
        self.metrics.get(name).copied().unwrap_or(f64::NAN)
    }

    /// The result in one line.
    pub fn line(&self) -> String {
        let mut out = format!(
            "{}, split {} of {}, lambda {}: {:.1} bits a token ({:.1} W), agreement {:.2} %, divergence {:.4} nats",
            self.recipe,
            self.split,
            self.blocks,
            self.lambda,
            self.figure("bits"),
            self.figure("bits_w"),
            100.0 * self.figure("agreement"),
            self.figure("divergence"),
        );
        if let Some(frozen) = &self.frozen {
            let figure = |name: &str| frozen.get(name).copied().unwrap_or(f64::NAN);
            out += &format!("; frozen {:.1} at {:.2} %", figure("bits"), 100.0 * figure("agreement"));
        }
        for (name, bits) in &self.compressors {
            out += &format!("; {name} {bits:.1}");
        }
        for (name, figures) in &self.without_codec {
            let figure = |name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
            out += &format!("; {name} {:.0} at {:.2} %", figure("bits"), 100.0 * figure("agreement"));
        }
        out
    }
}
