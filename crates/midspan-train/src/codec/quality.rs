//! Qualities of one codec. Each has its own steps and rate weight; they share the host, h and g_y.

use serde::{Deserialize, Serialize};

use crate::Error;

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

/// The setting that an error of [`check`] names: how many qualities there are.
pub const COUNT: &str = "the number of qualities";
/// The same: the factor of a quality's steps.
pub const FACTOR: &str = "a quality's factor of the steps";
/// The same: the weight of the rate.
pub const RATE_WEIGHT: &str = "the rate weight";

/// Checks that a model can have these qualities.
///
/// # Errors
/// [`Error::Setting`] for more than 256 of them, a factor of the steps outside 0.001 to 1,000, or a rate weight that is
/// negative or not finite.
pub fn check(qualities: &[Quality]) -> Result<(), Error> {
    if qualities.len() > 256 {
        return Err(Error::setting(COUNT, qualities.len(), "at most 256"));
    }
    for Quality { steps, rate_weight } in qualities {
        if !(1e-3..=1e3).contains(steps) {
            return Err(Error::setting(FACTOR, steps, "0.001 to 1000"));
        }
        if !(*rate_weight >= 0.0 && rate_weight.is_finite()) {
            return Err(Error::setting(RATE_WEIGHT, rate_weight, "finite and at least 0"));
        }
    }
    Ok(())
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
