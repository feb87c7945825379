//! A hyper-prior W, and Y given only W: the paper's proposal (3.1) and, with Fourier basis densities, its first
//! baseline.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var};

use super::super::Config;
use super::super::density::deep::{self, Deep};
use super::super::density::fourier::{self, Fourier};
use super::super::density::{self, Density};
use super::super::network::{Network, Precision};
use super::super::quality::{At, prefix};
use super::super::quantiser::{round, round_by_rate};
use super::super::side::{self, Embedding};
use super::super::{parameters, rate};
use super::{EntropyModel, Kind, Priced, prefixed};
use crate::Error;
use crate::base::builder;
use crate::rng::Rng;

/// h, g_y and a density of W: variables `h.…`, `g_y.…` and `density.…` or `fourier.…`. Qualities after the first have
/// their own densities and gains of W: `qualities.{index}.density.…`, `qualities.{index}.gain`. With side
/// indices there is their embedding, `side.embedding`.
pub(super) struct HyperPrior {
    h: Network,
    /// One for each quality.
    w_coding: Vec<WCoding>,
    g_y: Network,
    side: Option<Embedding>,
}

/// What a quality changes about W.
struct WCoding {
    /// `[channels]`, base-2 logarithms of factors. h's outputs are multiplied by the factors before they are rounded,
    /// and g_y's inputs are divided by them.
    gain: Option<Tensor>,
    density: Box<dyn Density>,
}

/// New weights.
pub(super) fn init(cfg: &Config, rng: &mut Rng) -> Result<BTreeMap<String, Tensor>> {
    let mut out: BTreeMap<String, Tensor> = prefixed("h", cfg.h().init(1.5, 0.0, rng)?).collect();
    match cfg.entropy_model {
        Kind::Fourier => out.extend(prefixed("fourier", fourier::init(cfg.channels, rng)?)),
        _ => out.extend(prefixed("density", deep::init(cfg.channels, rng)?)),
    }
    // Scales begin at 2, means at 0.
    out.extend(prefixed("g_y", cfg.g_y().init(0.1, 1.0, rng)?));
    if let Some(shape) = cfg.side {
        out.insert(side::EMBEDDING.into(), shape.init(rng)?);
    }
    add_qualities(cfg, &mut out)?;
    Ok(out)
}

/// Adds the weights of the qualities after the first that `weights` lacks. They begin as copies of the first quality's.
///
/// # Errors
/// When a tensor cannot be made.
pub fn add_qualities(cfg: &Config, weights: &mut BTreeMap<String, Tensor>) -> Result<()> {
    let codes_w = |name: &str| ["density.", "fourier."].iter().any(|kind| name.starts_with(kind));
    let mut first: BTreeMap<String, Tensor> =
        weights.iter().filter(|(name, _)| codes_w(name)).map(|(name, t)| (name.clone(), t.clone())).collect();
    first.insert("gain".into(), Tensor::zeros(cfg.channels, DType::F32, &Device::Cpu)?);
    for index in 1..cfg.qualities.len() {
        for (name, t) in &first {
            weights.entry(format!("{}{name}", prefix(index))).or_insert_with(|| t.clone());
        }
    }
    Ok(())
}

impl HyperPrior {
    /// Takes its weights from `vars`.
    pub(super) fn new(cfg: &Config, precision: Precision, vars: &BTreeMap<String, Var>) -> crate::Result<Self> {
        let w_coding = |index: usize| -> Result<WCoding> {
            let own = prefix(index);
            let density = |kind: &str| builder(vars, &format!("{own}{kind}."));
            Ok(WCoding {
                gain: if index == 0 { None } else { Some(builder(vars, &own).get(cfg.channels, "gain")?) },
                density: match cfg.entropy_model {
                    Kind::Fourier => Box::new(Fourier::new(cfg.channels, density("fourier"))?),
                    _ => Box::new(Deep::new(cfg.channels, density("density"))?),
                },
            })
        };
        Ok(Self {
            h: Network::new(cfg.h(), precision, builder(vars, "h."))?,
            w_coding: (0..cfg.qualities.len().max(1)).map(w_coding).collect::<Result<_>>()?,
            g_y: Network::new(cfg.g_y(), precision, builder(vars, "g_y."))?,
            side: cfg.side.map(|shape| Embedding::new(shape, precision, builder(vars, "side."))).transpose()?,
        })
    }

    /// The output of g_y, `[batch, T, 2 * width]`, for its input of W, `[batch, T, C]`, and the frames' tokens.
    fn run_g_y(&self, w: Tensor, ids: &[u32]) -> crate::Result<Tensor> {
        let input = match &self.side {
            Some(side) => Tensor::cat(&[&w, &side.sums(ids, (w.dim(0)?, w.dim(1)?))?], 2)?, // [batch, T, C + D]
            None => w,
        };
        Ok(self.g_y.forward(&input)?)
    }

    fn w_coding(&self, index: usize) -> crate::Result<&WCoding> {
        self.w_coding.get(index).ok_or(Error::NoQuality { index, qualities: self.w_coding.len() })
    }
}

impl EntropyModel for HyperPrior {
    fn price(&self, in_steps: &Tensor, ids: &[u32], At { index, quality }: At) -> crate::Result<Priced> {
        let WCoding { gain, density } = self.w_coding(index)?;
        let gain = gain.as_ref().map(|gain| gain * std::f64::consts::LN_2).transpose()?;
        let nearest = round(in_steps)?;
        let mut w = self.h.forward(&(&nearest * quality.steps)?)?;
        if let Some(gain) = &gain {
            w = w.broadcast_mul(&gain.exp()?)?;
        }
        let w = round(&w)?;
        let input = match &gain {
            Some(gain) => w.broadcast_mul(&gain.neg()?.exp()?)?,
            None => w.clone(),
        };
        let (mean, scale) = parameters(&self.run_g_y(input, ids)?, quality.steps)?;
        let y = match quality.rate_weight {
            0.0 => nearest,
            weight => round_by_rate(in_steps, &mean, &scale, weight)?,
        };
        let (bits_y, bits_w) = (rate::bits(&y, &mean, &scale)?, density::bits(&**density, &w)?);
        Ok(Priced { y, w: Some(w), bits_y, bits_w, parameters: Some((mean, scale)) })
    }

    fn smooth_bits(&self, y: &Tensor) -> crate::Result<Tensor> {
        let w = self.h.forward(y)?;
        let (mean, scale) = parameters(&self.run_g_y(w.clone(), &[])?, 1.0)?;
        Ok((rate::bits(y, &mean, &scale)? + density::bits(&*self.w_coding(0)?.density, &w)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::quality::Quality;
    use super::*;
    use midspan_host::testing::{difference, random};

    fn config(second: Quality) -> Config {
        Config { qualities: vec![Quality::default(), second], ..Config::tiny() }
    }

    fn model(cfg: &Config, change: impl Fn(&str, &Tensor) -> Tensor) -> (BTreeMap<String, Var>, HyperPrior) {
        let fresh = init(cfg, &mut Rng::new(2)).unwrap();
        let vars: BTreeMap<String, Var> =
            fresh.iter().map(|(n, t)| (n.clone(), Var::from_tensor(&change(n, t)).unwrap())).collect();
        let model = HyperPrior::new(cfg, Precision::Float, &vars).unwrap();
        (vars, model)
    }

    #[test]
    fn a_quality_is_the_same_model_in_its_own_steps() {
        let half = Quality { steps: 0.5, rate_weight: 0.0 };
        let cfg = config(half);
        let (_, same) = model(&cfg, |_, t| t.clone());
        // Y is whole in both steps, so h sees the same and W is the same and costs the same.
        let y = (random(&[1, 9, 16], 4).as_tensor() * 6.0).unwrap().round().unwrap();
        let at = At { index: 1, quality: half };
        let (one, two) =
            (same.price(&y, &[], At::default()).unwrap(), same.price(&(&y * 2.0).unwrap(), &[], at).unwrap());
        assert!(difference(&one.bits_w, &two.bits_w) < 1e-3);
        // Twice the mean and twice the scale cost about one more bit an element, since the scales are 2 and 4.
        let more = ((two.bits_y - one.bits_y).unwrap() / 16.0).unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((more - 1.0).abs() < 0.05, "{more}");
        // With twice the gain W doubles, and g_y reads the same as before except for the rounding.
        let (_, gained) =
            model(&cfg, |name, t| if name == "qualities.1.gain" { (t + 1.0).unwrap() } else { t.clone() });
        let finer = gained.price(&(&y * 2.0).unwrap(), &[], at).unwrap();
        let (w, twice) = (two.w.unwrap(), finer.w.unwrap());
        assert!(
            difference(&(w * 2.0).unwrap(), &twice) <= 1.0
                && twice.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() > 0.0
        );
        let third = same.price(&y, &[], At { index: 2, quality: half }).map(|_| ());
        assert!(matches!(third, Err(Error::NoQuality { index: 2, qualities: 2 })), "{third:?}");
    }

    #[test]
    fn every_quality_learns_its_own_part_and_the_networks() {
        let finer = Quality { steps: 0.25, rate_weight: 0.1 };
        let cfg = config(finer);
        let (vars, model) = model(&cfg, |_, t| t.clone());
        let x = (random(&[2, 9, 16], 4).as_tensor() * 20.0).unwrap();
        let priced = model.price(&x, &[], At { index: 1, quality: finer }).unwrap();
        let grads = (priced.bits_y + priced.bits_w).unwrap().sum_all().unwrap().backward().unwrap();
        for (name, var) in &vars {
            let moved =
                grads.get(var).is_some_and(|g| g.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.0);
            assert_eq!(moved, !name.starts_with("density."), "{name}");
        }
    }
}
