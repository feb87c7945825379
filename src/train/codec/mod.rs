//! The codec networks in float: quantiser, h, the density of W, g_y and the rate of Y.
pub mod density;
pub mod network;
pub mod quantiser;
pub mod rate;
pub mod rounded;

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::Error;
use super::base::builder;
use super::rng::Rng;
use density::Density;
use network::{Network, Precision, Shape};
use quantiser::{Quantiser, round, round_by_rate};

/// Smallest and largest scale of an element of Y.
pub const SCALES: (f64, f64) = (0.1, 64.0);

/// Shape of the codec networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Widths of h from its input (the host's width) to its last block.
    pub analysis: Vec<usize>,
    /// Channels of W.
    pub channels: usize,
    /// Widths of g_y from its input (the channels of W) to its last block.
    pub synthesis: Vec<usize>,
    /// Attention heads of every block.
    pub heads: usize,
    /// Positions that attention looks back over, its own included.
    pub window: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            analysis: vec![192, 96, 48, 32, 16],
            channels: 16,
            synthesis: vec![16, 32, 48, 96, 192],
            heads: 4,
            window: 256,
        }
    }
}

impl Config {
    /// The shape of h: Y to W.
    pub fn h(&self) -> Shape {
        Shape {
            widths: self.analysis.clone(),
            output: self.channels,
            heads: self.heads,
            window: self.window,
            last_norm: false,
        }
    }

    /// The shape of g_y: W to a mean and a scale for each element of Y.
    pub fn g_y(&self) -> Shape {
        Shape {
            widths: self.synthesis.clone(),
            output: 2 * self.analysis[0],
            heads: self.heads,
            window: self.window,
            last_norm: true,
        }
    }

    /// Fresh weights by name, given mean and standard deviation of each channel of the hidden state.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn init(&self, mean: &[f32], std: &[f32], rng: &mut Rng) -> Result<BTreeMap<String, Tensor>> {
        let mut out = BTreeMap::new();
        let mut add = |prefix: &str, part: BTreeMap<String, Tensor>| {
            out.extend(part.into_iter().map(|(n, t)| (format!("{prefix}.{n}"), t)));
        };
        add("quantiser", quantiser::init(mean, std)?);
        add("h", self.h().init(1.5, 0.0, rng)?);
        add("density", density::init(self.channels, rng)?);
        // Scales begin at 2, means at 0.
        add("g_y", self.g_y().init(0.1, 1.0, rng)?);
        Ok(out)
    }
}

/// What the codec makes of hidden states `[batch, T, width]`.
pub struct Coded {
    /// The integers Y `[batch, T, width]`, as floats.
    pub y: Tensor,
    /// The integers W `[batch, T, channels]`, as floats.
    pub w: Tensor,
    /// The hidden states that a decoder reconstructs, `[batch, T, width]`.
    pub hidden: Tensor,
    /// Bits of each frame's Y, `[batch, T]`.
    pub bits_y: Tensor,
    /// Bits of each frame's W, `[batch, T]`.
    pub bits_w: Tensor,
}

/// The codec in float, over variables `quantiser.…`, `h.…`, `density.…`, `g_y.…`.
pub struct Codec {
    /// The quantiser of the hidden state.
    pub quantiser: Quantiser,
    h: Network,
    density: Density,
    g_y: Network,
    width: usize,
    /// Squared steps that a bit is worth when Y is chosen; 0 for the nearest integer.
    rate_weight: f64,
}

impl Codec {
    /// Takes its weights from `vars`.
    ///
    /// # Errors
    /// When a variable is missing or has another shape.
    pub fn new(cfg: &Config, precision: Precision, vars: &BTreeMap<String, Var>) -> std::result::Result<Self, Error> {
        if cfg.synthesis.first() != Some(&cfg.channels) || cfg.analysis.is_empty() {
            return Err(Error::new("g_y's first width must be the channels of W"));
        }
        Ok(Self {
            quantiser: Quantiser::new(cfg.analysis[0], builder(vars, "quantiser."))?,
            h: Network::new(cfg.h(), precision, builder(vars, "h."))?,
            density: Density::new(cfg.channels, builder(vars, "density."))?,
            g_y: Network::new(cfg.g_y(), precision, builder(vars, "g_y."))?,
            width: cfg.analysis[0],
            rate_weight: 0.0,
        })
    }

    /// Chooses Y by distance and rate, as an encoder with this weight does (spec 6.8).
    #[must_use]
    pub fn with_rate_weight(self, rate_weight: f64) -> Self {
        Self { rate_weight, ..self }
    }

    /// Mean (in units of Y) and base-2 logarithm of the scale for each element of Y, from W
    /// `[batch, T, channels]`; both `[batch, T, width]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn parameters(&self, w: &Tensor) -> Result<(Tensor, Tensor)> {
        let out = self.g_y.forward(w)?; // [batch, T, 2 * width]
        let mean = out.narrow(2, 0, self.width)?;
        let scale = out.narrow(2, self.width, self.width)?.clamp(SCALES.0.log2(), SCALES.1.log2())?;
        Ok((mean, scale))
    }

    /// Quantises and prices hidden states `[batch, T, width]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, hidden: &Tensor) -> Result<Coded> {
        let in_steps = self.quantiser.in_steps(hidden)?;
        let nearest = round(&in_steps)?;
        let w = round(&self.h.forward(&nearest)?)?;
        let (mean, scale) = self.parameters(&w)?;
        let y = match self.rate_weight {
            0.0 => nearest,
            weight => round_by_rate(&in_steps, &mean, &scale, weight)?,
        };
        Ok(Coded {
            bits_y: rate::bits(&y, &mean, &scale)?,
            bits_w: self.density.bits(&w)?,
            hidden: self.quantiser.reconstruct(&y)?,
            y,
            w,
        })
    }
}
