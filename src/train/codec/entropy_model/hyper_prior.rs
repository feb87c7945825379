//! A hyper-prior W, and Y given W alone: the paper's proposal (3.1), and with Fourier basis densities its first baseline.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, Var};

use super::super::Config;
use super::super::density::deep::{self, Deep};
use super::super::density::fourier::{self, Fourier};
use super::super::density::{self, Density};
use super::super::network::{Network, Precision};
use super::super::quantiser::{round, round_by_rate};
use super::super::{parameters, rate};
use super::{EntropyModel, Kind, Priced, prefixed};
use crate::train::base::builder;
use crate::train::rng::Rng;

/// h, g_y and a density of W: variables `h.…`, `g_y.…` and `density.…` or `fourier.…`.
pub struct HyperPrior {
    h: Network,
    density: Box<dyn Density>,
    g_y: Network,
}

/// Fresh weights.
pub fn init(cfg: &Config, rng: &mut Rng) -> Result<BTreeMap<String, Tensor>> {
    let mut out: BTreeMap<String, Tensor> = prefixed("h", cfg.h().init(1.5, 0.0, rng)?).collect();
    match cfg.entropy_model {
        Kind::Fourier => out.extend(prefixed("fourier", fourier::init(cfg.channels, rng)?)),
        _ => out.extend(prefixed("density", deep::init(cfg.channels, rng)?)),
    }
    // Scales begin at 2, means at 0.
    out.extend(prefixed("g_y", cfg.g_y().init(0.1, 1.0, rng)?));
    Ok(out)
}

impl HyperPrior {
    /// Takes its weights from `vars`.
    pub fn new(cfg: &Config, precision: Precision, vars: &BTreeMap<String, Var>) -> Result<Self> {
        Ok(Self {
            h: Network::new(cfg.h(), precision, builder(vars, "h."))?,
            density: match cfg.entropy_model {
                Kind::Fourier => Box::new(Fourier::new(cfg.channels, builder(vars, "fourier."))?),
                _ => Box::new(Deep::new(cfg.channels, builder(vars, "density."))?),
            },
            g_y: Network::new(cfg.g_y(), precision, builder(vars, "g_y."))?,
        })
    }
}

impl EntropyModel for HyperPrior {
    fn price(&self, in_steps: &Tensor, rate_weight: f64) -> Result<Priced> {
        let nearest = round(in_steps)?;
        let w = round(&self.h.forward(&nearest)?)?;
        let (mean, scale) = parameters(&self.g_y.forward(&w)?)?;
        let y = match rate_weight {
            0.0 => nearest,
            weight => round_by_rate(in_steps, &mean, &scale, weight)?,
        };
        Ok(Priced { bits_y: rate::bits(&y, &mean, &scale)?, bits_w: density::bits(&*self.density, &w)?, y, w: Some(w) })
    }

    fn smooth_bits(&self, y: &Tensor) -> Result<Tensor> {
        let w = self.h.forward(y)?;
        let (mean, scale) = parameters(&self.g_y.forward(&w)?)?;
        rate::bits(y, &mean, &scale)? + density::bits(&*self.density, &w)?
    }
}
