//! Qualities: steps and a weight of the rate each, under one host, one h and one g_y.

use serde::{Deserialize, Serialize};

/// A quality: the quantiser's steps times a factor. What the networks read and say follows: h sees Y in the quantiser's own
/// steps, g_y's means and scales count in those of the quality.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Factor of the steps, above 0; 1 for the quantiser's own.
    pub steps: f64,
    /// Squared steps that a bit is worth when Y is chosen (spec 6.8); 0 for the nearest integers.
    pub rate_weight: f64,
}

impl Default for Quality {
    fn default() -> Self {
        Self { steps: 1.0, rate_weight: 0.0 }
    }
}

/// What the names of a quality's own variables begin with; those of the first have no prefix.
pub fn prefix(index: usize) -> String {
    if index == 0 { String::new() } else { format!("qualities.{index}.") }
}

/// A quality as an entropy model sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct At {
    /// Which of the codec's qualities: it selects densities and gains of W.
    pub index: usize,
    /// Its steps and weight.
    pub quality: Quality,
}
