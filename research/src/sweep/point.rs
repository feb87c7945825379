//! One result of a sweep: a file of its own, so that no complete run is repeated.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::gap::Gap;
use midspan_host::gpt;
use midspan_train::codec;
use midspan_train::codec::entropy_model::Kind;
use midspan_train::runner::Metrics;

/// What was trained, how, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The command that repeats this run alone, files without their folders.
    pub command: String,
    /// Name of the recipe: what is not the model, the split, λ or the seed.
    pub recipe: String,
    /// The entropy model; none for the control, a host without a codec.
    pub entropy_model: Option<Kind>,
    /// Nats a bit.
    pub lambda: f64,
    /// Seed of fresh weights and windows.
    pub seed: u64,
    /// What else makes the run what it is, names and values; none in results from before they were kept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Steps of the run.
    pub steps: u64,
    /// Tokens of the run.
    pub tokens: u64,
    /// Seconds since the training began or last went on, with reading its text and evaluations.
    pub seconds: f64,
    /// The host.
    pub host: gpt::Config,
    /// The codec.
    pub codec: Option<codec::Config>,
    /// Squared steps a bit, when Y was chosen.
    pub rate_weight: f64,
    /// Whether h and g_y were trained in float, not as they would be frozen.
    pub float: bool,
    /// Whether training multiplied in bfloat16; measures are of f32. None in results from before they were, where both did.
    #[serde(default)]
    pub bfloat16: Option<bool>,
    /// Multiplications a frame from W to the densities of Y.
    pub decoder_multiplications: usize,
    /// Over held-out text: rates in bits a token by exact densities, perplexities, agreement.
    pub metrics: Metrics,
    /// Of the passages' last words, the share that is right through the codec and without it.
    pub last_word: Option<[f64; 2]>,
    /// Bits a token of general compressors on the same Y, by sequences of the host's context length.
    pub compressors: BTreeMap<String, f64>,
    /// Links without a codec on the same hidden states: their figures by name.
    pub without_codec: BTreeMap<String, Metrics>,
    /// The gap's measures.
    pub gap: Option<Gap>,
}

impl Point {
    /// Bits of a token.
    pub fn bits(&self) -> f64 {
        self.metrics.get("bits").copied().unwrap_or(f64::NAN)
    }

    /// Nats of a token's loss through the codec.
    pub fn loss(&self) -> f64 {
        self.metrics.get("loss").copied().unwrap_or(f64::NAN)
    }
}

/// An entropy model's name on the command line.
pub fn kind_name(kind: Kind) -> String {
    kind.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
}
