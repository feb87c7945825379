//! One result of a sweep, kept as one file, so that no complete run is repeated.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::gap::Gap;
use midspan_host::gpt;
use midspan_train::codec;
use midspan_train::codec::entropy_model::Kind;
use midspan_train::runner::Metrics;

/// What was trained, how, and with which outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Point {
    /// The command that repeats this run alone, with files without their folders.
    pub command: String,
    /// Name of the recipe, which is everything except the model, the split, λ and the seed.
    pub recipe: String,
    /// The entropy model; `None` for the control, a host without a codec.
    pub entropy_model: Option<Kind>,
    /// Weight of the rate in the loss, nats a bit.
    pub lambda: f64,
    /// Seed of new weights and windows.
    pub seed: u64,
    /// Names and values of the other options that determine the run; empty in old results, which did not record them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Steps of the run.
    pub steps: u64,
    /// Tokens of the run.
    pub tokens: u64,
    /// Seconds since the training began or was last resumed, including reading its text and evaluations.
    pub seconds: f64,
    /// The host.
    pub host: gpt::Config,
    /// The codec.
    pub codec: Option<codec::Config>,
    /// Weight of one bit when Y was chosen, in squared steps.
    pub rate_weight: f64,
    /// Whether h and g_y were trained in float, not as they would be frozen.
    pub float: bool,
    /// Whether training multiplied in bfloat16; measures always use f32. None in old results, in which both used
    /// bfloat16.
    #[serde(default)]
    pub bfloat16: Option<bool>,
    /// Multiplications a frame from W to the densities of Y.
    pub decoder_multiplications: usize,
    /// Figures on held-out text: rates in bits a token by exact densities, perplexities, agreement.
    pub metrics: Metrics,
    /// Share of passages whose last word is predicted correctly: through the codec, and without it.
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
    pub(super) fn bits(&self) -> f64 {
        self.metrics.get("bits").copied().unwrap_or(f64::NAN)
    }

    /// Nats of a token's loss through the codec.
    pub(super) fn loss(&self) -> f64 {
        self.metrics.get("loss").copied().unwrap_or(f64::NAN)
    }
}

/// An entropy model's name on the command line.
pub(super) fn kind_name(kind: Kind) -> String {
    kind.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
}
