//! No hyper-prior: a deep factorized density for each channel of Y, the same for every frame. A hyper-prior has to do
//! better.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, Var};

use super::super::Config;
use super::super::density;
use super::super::density::deep::{self, Deep};
use super::super::quality::At;
use super::super::quantiser::round;
use super::{EntropyModel, Priced, nearest_alone, prefixed};
use crate::base::builder;
use crate::rng::Rng;

/// Densities of Y: variables `static.…`.
pub(super) struct Factorised {
    density: Deep,
}

/// New weights.
pub(super) fn init(cfg: &Config, rng: &mut Rng) -> Result<BTreeMap<String, Tensor>> {
    Ok(prefixed("static", deep::init(cfg.h_widths[0], rng)?).collect())
}

impl Factorised {
    /// Takes its weights from `vars`.
    pub(super) fn new(cfg: &Config, vars: &BTreeMap<String, Var>) -> Result<Self> {
        Ok(Self { density: Deep::new(cfg.h_widths[0], builder(vars, "static."))? })
    }
}

impl EntropyModel for Factorised {
    fn price(&self, in_steps: &Tensor, _: &[u32], at: At) -> crate::Result<Priced> {
        nearest_alone("static tables", at)?;
        let y = round(in_steps)?;
        let bits_y = density::bits(&self.density, &y)?;
        Ok(Priced { bits_w: bits_y.zeros_like()?, bits_y, y, w: None, parameters: None })
    }

    fn smooth_bits(&self, y: &Tensor) -> crate::Result<Tensor> {
        Ok(density::bits(&self.density, y)?)
    }
}
