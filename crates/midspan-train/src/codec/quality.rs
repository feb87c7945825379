//! Qualities of one codec. Each has its own steps and rate weight; they share the host, h and g_y.

use serde::{Deserialize, Serialize};

/// A quality: the quantiser's steps times a factor. The networks are adapted to it: h sees Y in the quantiser's own
/// steps, and g_y's means and scales are in those of the quality.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Factor of the steps, above 0; 1 for the quantiser's own.
    pub steps: f64,
    /// Weight of one bit when Y is chosen, in squared steps (spec 6.8); 0 for the nearest integers.
    pub rate_weight: f64,
}

impl Default for Quality {
    fn default() -> Self {
        Self { steps: 1.0, rate_weight: 0.0 }
    }
}

/// The prefix of the names of a quality's own variables; those of the first quality have none.
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
