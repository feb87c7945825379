//! The codec networks in float: quantiser and entropy model.
pub mod density;
pub mod entropy_model;
pub mod fixed;
pub mod network;
pub mod quality;
pub mod quantiser;
pub mod rate;
pub mod rounded;
pub mod side;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::Error;
use super::base::builder;
use super::rng::Rng;
use entropy_model::{EntropyModel, Kind, Priced};
use fixed::SparsePair;
use midspan::model::HYPER_PRIOR_MAX;
use network::{Precision, Shape};
use quality::{At, Quality};
use quantiser::{Quantiser, Steps};

/// Declared range of Y of the models that are made here.
pub(crate) const Y_RANGE: (i16, i16) = (-32_767, 32_767);
/// Smallest and largest scale of an element of Y.
pub const SCALES: (f64, f64) = (0.1, 64.0);

/// Shape of the codec networks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Config {
    /// Widths of h from its input (the host's width) to its last block. The first alone makes h a linear map.
    #[serde(rename = "analysis")]
    pub h_widths: Vec<usize>,
    /// Channels of W.
    pub channels: usize,
    /// Widths of g_y from its input (the channels of W) to its last block.
    #[serde(rename = "synthesis")]
    pub g_y_widths: Vec<usize>,
    /// Attention heads of every block.
    pub heads: usize,
    /// Number of positions that attention sees, the current one included.
    pub window: usize,
    /// The entropy model.
    #[serde(default)]
    pub entropy_model: Kind,
    /// The quantiser's steps.
    #[serde(default)]
    pub steps: Steps,
    /// Whether there is a linear map on each side of the quantiser.
    #[serde(default)]
    pub maps: bool,
    /// What g_y takes of side indices after W, the tokens of frames; nothing if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<side::Shape>,
    /// Whether g_y's outputs have factors, as a fit that begins with a calibration needs them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub units: bool,
    /// Its qualities. If empty, there is one quality with the quantiser's own steps, and its rate weight is kept
    /// elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub qualities: Vec<Quality>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            h_widths: vec![192, 96, 48, 32, 16],
            channels: 16,
            g_y_widths: vec![16, 32, 48, 96, 192],
            heads: 4,
            window: 256,
            entropy_model: Kind::Proposed,
            steps: Steps::Channels,
            maps: false,
            side: None,
            units: false,
            qualities: Vec::new(),
        }
    }
}

impl Config {
    midspan::setters! {
        h_widths: Vec<usize>,
        channels: usize,
        g_y_widths: Vec<usize>,
        heads: usize,
        window: usize,
        entropy_model: Kind,
        steps: Steps,
        maps: bool,
        side: Option<side::Shape>,
        units: bool,
        qualities: Vec<Quality>,
    }

    /// The shape as results of fits record it. They are compared with it, so it keeps the first names of fields.
    pub(crate) fn recorded(&self) -> String {
        let Self { h_widths, channels, g_y_widths, heads, window, entropy_model, steps, maps, side, units, qualities } =
            self;
        let side = side.map_or(String::new(), |side| format!("side: {side:?}, "));
        let units = if *units { "units: true, " } else { "" };
        format!(
            "Config {{ analysis: {h_widths:?}, channels: {channels}, synthesis: {g_y_widths:?}, heads: {heads}, \
             window: {window}, entropy_model: {entropy_model:?}, steps: {steps:?}, maps: {maps}, {side}{units}\
             qualities: {qualities:?} }}"
        )
    }

    /// A small shape for tests: hidden states of 16 values, W of 4.
    #[cfg(test)]
    pub(crate) fn tiny() -> Self {
        Self {
            h_widths: vec![16, 8, 4],
            channels: 4,
            g_y_widths: vec![4, 8, 16],
            heads: 2,
            window: 16,
            ..Self::default()
        }
    }

    /// Refuses a shape that cannot be learned over hidden states of `width` values and then frozen in one quality.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first that does not fit.
    pub fn check(&self, width: usize) -> crate::Result<()> {
        if self.entropy_model != Kind::Proposed {
            let found = format_args!("{:?}", self.entropy_model);
            return Err(Error::setting("the entropy model", found, "the proposed one, which can be frozen"));
        }
        if !self.qualities.is_empty() {
            return Err(Error::setting("the number of qualities", self.qualities.len(), "0, to be frozen in one"));
        }
        check_first("h's first width", &self.h_widths, "the host's", width)?;
        check_first("g_y's first width", &self.g_y_widths, "the channels of W", self.channels)?;
        // Spec 4.1.
        if self.channels > HYPER_PRIOR_MAX {
            let most = format!("at most {HYPER_PRIOR_MAX}");
            return Err(Error::setting("the number of W's channels", self.channels, most));
        }
        if let Some(side) = self.side {
            side.check()?;
        }
        self.h().check_frozen()?;
        self.g_y().check_frozen()
    }

    /// The shape of h: Y to W.
    pub fn h(&self) -> Shape {
        Shape {
            widths: self.h_widths.clone(),
            output: self.channels,
            heads: self.heads,
            window: self.window,
            last_norm: false,
            units: false,
        }
    }

    /// The shape of g_y: W, and the sums of side indices if there are any, to a mean and a scale for each element of Y.
    pub fn g_y(&self) -> Shape {
        let mut widths = self.g_y_widths.clone();
        if let (Some(first), Some(side)) = (widths.first_mut(), self.side) {
            *first += side.width;
        }
        Shape {
            widths,
            output: 2 * self.h_widths[0],
            heads: self.heads,
            window: self.window,
            last_norm: true,
            units: self.units,
        }
    }

    /// New weights by name, given mean and standard deviation of each channel of the hidden state.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn init(&self, mean: &[f32], std: &[f32], rng: &mut Rng) -> Result<BTreeMap<String, Tensor>> {
        let mut out = entropy_model::init(self, rng)?;
        let quantiser = quantiser::init(mean, std, self.steps, self.maps)?;
        out.extend(quantiser.into_iter().map(|(name, t)| (format!("quantiser.{name}"), t)));
        Ok(out)
    }
}

/// Refuses widths that do not begin with the width of the network's input.
fn check_first(name: &'static str, widths: &[usize], read: &str, wanted: usize) -> crate::Result<()> {
    match widths.first() {
        Some(first) if *first == wanted => Ok(()),
        Some(first) => Err(Error::setting(name, first, format!("{read}, {wanted}"))),
        None => Err(Error::setting(name, "missing", format!("{read}, {wanted}"))),
    }
}

/// Means and base-2 logarithms of scales, both `[batch, T, width]`, from the output of a network for Y's parameters,
/// `[batch, T, 2 * width]`. The output is in the quantiser's own steps. The results are in those steps times `steps`.
///
/// # Errors
/// When the shapes do not fit.
pub fn parameters(out: &Tensor, steps: f64) -> Result<(Tensor, Tensor)> {
    let width = out.dim(2)? / 2;
    let (mean, scale) = (out.narrow(2, 0, width)?, out.narrow(2, width, width)?);
    let places = -steps.log2();
    Ok(((mean / steps)?, (scale + places)?.clamp(SCALES.0.log2(), SCALES.1.log2() + places)?))
}

/// The result of the codec for hidden states `[batch, T, width]`.
pub struct Coded {
    /// The integers and their bits.
    pub priced: Priced,
    /// The hidden states that a decoder reconstructs, `[batch, T, width]`.
    pub hidden: Tensor,
}

/// The codec in float, with variables `quantiser.…` and those of its entropy model.
pub struct Codec {
    /// The quantiser of the hidden state.
    pub quantiser: Quantiser,
    /// The entropy model.
    pub entropy_model: Box<dyn EntropyModel>,
    /// At least one.
    qualities: Vec<Quality>,
}

impl Codec {
    /// Takes its weights from `vars`.
    ///
    /// # Errors
    /// [`Error::Setting`] if no codec has this shape, [`Error::Tensor`] if a variable is missing or has another shape.
    pub fn new(cfg: &Config, precision: Precision, vars: &BTreeMap<String, Var>) -> crate::Result<Self> {
        check_first("g_y's first width", &cfg.g_y_widths, "the channels of W", cfg.channels)?;
        let Some(&width) = cfg.h_widths.first() else {
            return Err(Error::setting("the number of h's widths", 0, "at least 1"));
        };
        Ok(Self {
            quantiser: Quantiser::new(width, cfg.maps, builder(vars, "quantiser."))?,
            entropy_model: entropy_model::new(cfg, precision, vars)?,
            qualities: if cfg.qualities.is_empty() { vec![Quality::default()] } else { cfg.qualities.clone() },
        })
    }

    /// Chooses Y by distance and rate in every quality, as an encoder with this weight does (spec 6.8).
    #[must_use]
    pub fn with_rate_weight(mut self, rate_weight: f64) -> Self {
        self.qualities.iter_mut().for_each(|quality| quality.rate_weight = rate_weight);
        self
    }

    /// Puts sparse maps on each side of the quantiser, which is not learned then.
    ///
    /// # Errors
    /// [`Error::Setting`] for a codec with more qualities than one or other steps than the quantiser's own,
    /// [`Error::Tensor`] if the steps cannot be read.
    pub fn with_sparse(self, maps: Arc<SparsePair>) -> crate::Result<Self> {
        if self.qualities.len() != 1 || self.qualities.iter().any(|quality| quality.steps != 1.0) {
            let found = format_args!("{:?}", self.qualities);
            return Err(Error::setting(
                "the qualities of a codec with sparse maps",
                found,
                "one, in the quantiser's steps",
            ));
        }
        Ok(Self { quantiser: self.quantiser.with_sparse(maps)?, ..self })
    }

    /// Whether no gradient passes the quantiser, so that bits alone can be learned.
    pub fn has_fixed_quantiser(&self) -> bool {
        self.quantiser.fixed().is_some()
    }

    /// Its qualities.
    pub fn qualities(&self) -> &[Quality] {
        &self.qualities
    }

    /// Quantises and prices hidden states `[batch, T, width]` in quality 0. `ids` are the tokens of the frames, batch · T
    /// in all, or none.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, hidden: &Tensor, ids: &[u32]) -> crate::Result<Coded> {
        self.forward_in(hidden, ids, 0)
    }

    /// Quantises and prices hidden states `[batch, T, width]` in a quality. `ids` are the tokens of the frames, batch · T
    /// in all, or none.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shapes do not fit, [`Error::NoQuality`], [`Error::NearestAlone`] if the entropy model
    /// cannot choose Y by its rate, and [`Error::Setting`] for another number of tokens if it takes any.
    pub fn forward_in(&self, hidden: &Tensor, ids: &[u32], index: usize) -> crate::Result<Coded> {
        self.forward_shared(hidden, ids, index, 1.0)
    }

    /// As [`Codec::forward_in`], but the bits' gradient by hidden states and the quantiser is multiplied by `share`. That
    /// by the entropy model stays as it is.
    ///
    /// # Errors
    /// Those of [`Codec::forward_in`].
    pub fn forward_shared(&self, hidden: &Tensor, ids: &[u32], index: usize, share: f64) -> crate::Result<Coded> {
        let quality = self.quality(index)?;
        let in_steps = (self.quantiser.to_steps(hidden)? / quality.steps)?;
        let shared = match share {
            1.0 => in_steps.clone(),
            _ => {
                let part = (&in_steps * share)?;
                (in_steps.detach() + (&part - part.detach())?)?
            }
        };
        let priced = self.priced(hidden, &shared, ids, At { index, quality })?;
        // Rounding passes the whole gradient of the reconstruction.
        let y = match share {
            1.0 => priced.y.clone(),
            _ => (priced.y.detach() + (&in_steps - in_steps.detach())?)?,
        };
        Ok(Coded { hidden: self.quantiser.reconstruct(&(y * quality.steps)?)?, priced })
    }

    fn quality(&self, index: usize) -> crate::Result<Quality> {
        let qualities = self.qualities.len();
        self.qualities.get(index).copied().ok_or(Error::NoQuality { index, qualities })
    }

    /// Integers and bits of hidden states `[batch, T, width]` in a quality, and the quality. `ids` are the tokens of the
    /// frames, batch · T in all, or none.
    ///
    /// # Errors
    /// Those of [`Codec::forward_in`].
    pub fn price_in(&self, hidden: &Tensor, ids: &[u32], index: usize) -> crate::Result<(Priced, Quality)> {
        let quality = self.quality(index)?;
        let in_steps = (self.quantiser.to_steps(hidden)? / quality.steps)?;
        Ok((self.priced(hidden, &in_steps, ids, At { index, quality })?, quality))
    }

    /// Integers and bits of hidden states, given them in steps.
    fn priced(&self, hidden: &Tensor, in_steps: &Tensor, ids: &[u32], at: At) -> crate::Result<Priced> {
        let weight = at.quality.rate_weight;
        let Some(fixed) = self.quantiser.fixed().filter(|_| weight > 0.0) else {
            return self.entropy_model.price(in_steps, ids, at);
        };
        // The choice in one channel changes the values of others, so it begins anew.
        let nearest = At { quality: Quality { rate_weight: 0.0, ..at.quality }, ..at };
        let priced = self.entropy_model.price(in_steps, ids, nearest)?;
        let Some((mean, scale)) = &priced.parameters else {
            return Err(Error::NearestAlone { model: "models without parameters of Y" });
        };
        let (means, scales) = (fixed::values(mean)?, fixed::values(scale)?);
        let y = fixed::constant(hidden, |hidden| Ok(fixed.by_rate(hidden, &means, &scales, weight)))?;
        Ok(Priced { bits_y: rate::bits(&y, mean, scale)?, y, ..priced })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use midspan_host::testing::random;

    #[test]
    fn a_share_weighs_the_bits_of_hidden_states_and_no_other_gradient() {
        let half = Quality { steps: 0.5, rate_weight: 0.1 };
        let cfg = Config::tiny().qualities(vec![Quality::default(), half]).maps(true);
        let vars: BTreeMap<String, Var> = cfg
            .init(&[0.1; 16], &[1.0; 16], &mut Rng::new(2))
            .unwrap()
            .into_iter()
            .map(|(name, t)| (name, Var::from_tensor(&t).unwrap()))
            .collect();
        let codec = Codec::new(&cfg, Precision::AsFrozen, &vars).unwrap();
        let hidden = random(&[2, 9, 16], 5);
        let of = |share: f64, bits: f64, task: f64| {
            let Coded { priced, hidden: after } = codec.forward_shared(&hidden, &[], 1, share).unwrap();
            let sum = (priced.bits_y + priced.bits_w).unwrap().sum_all().unwrap();
            let loss = ((&sum * bits).unwrap() + (after.sqr().unwrap().sum_all().unwrap() * task).unwrap()).unwrap();
            let grads = loss.backward().unwrap();
            let of = |var: &Var| grads.get(var).map(|g| g.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            (
                sum.to_scalar::<f32>().unwrap(),
                after,
                of(&hidden).unwrap(),
                of(&vars["g_y.output.weight"]),
                of(&vars["quantiser.log_step"]).unwrap(),
            )
        };
        let close = |a: &[f32], b: &[f32], factor: f32| {
            let most = a.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            most > 0.0 && a.iter().zip(b).all(|(a, b)| (factor * a - b).abs() < 1e-4 * most)
        };
        let (bits, after, by_hidden, by_network, by_step) = of(1.0, 1.0, 0.0);
        let (same, shared, fewer, network, step) = of(0.25, 1.0, 0.0);
        assert_eq!(bits, same);
        assert_eq!(after.to_vec3::<f32>().unwrap(), shared.to_vec3::<f32>().unwrap());
        assert_eq!(by_network, network);
        assert!(close(&by_hidden, &fewer, 0.25) && close(&by_step, &step, 0.25));
        let ((_, _, whole, ..), (_, _, also, ..)) = (of(1.0, 0.0, 1.0), of(0.25, 0.0, 1.0));
        assert!(close(&whole, &also, 1.0));
    }

    #[test]
    fn files_hold_a_shape_under_its_old_names() {
        let shape = Config::tiny();
        let json = serde_json::to_string(&shape).unwrap();
        assert!(json.starts_with(r#"{"analysis":[16,8,4],"channels":4,"synthesis":[4,8,16],"heads":2,"#), "{json}");
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), shape);
        let recorded = "Config { analysis: [16, 8, 4], channels: 4, synthesis: [4, 8, 16], heads: 2, window: 16, \
                    entropy_model: Proposed, steps: Channels, maps: false, qualities: [] }";
        assert_eq!(shape.recorded(), recorded);
        let side = side::Shape { ages: 3, vocabulary: 40, width: 4 };
        let with = shape.side(Some(side));
        let json = serde_json::to_string(&with).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), with);
        assert!(with.recorded().contains("maps: false, side: Shape { ages: 3, vocabulary: 40, width: 4 }, qualities"));
        assert_eq!((with.g_y().widths, with.h().widths), (vec![8, 8, 16], vec![16, 8, 4]));
    }
}
