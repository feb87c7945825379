//! Entropy models of Y: which integers are sent for it, and what they cost.
//!
//! The paper's proposed model, its two baselines, and a simple lower baseline, for one host and one quantiser.

mod direct_access;
mod factorised;
mod hyper_prior;

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

pub use hyper_prior::add_qualities;

use super::Config;
use super::network::Precision;
use super::quality::At;
use crate::Error;
use crate::rng::Rng;

/// Which entropy model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A hyper-prior with deep factorized densities; Y given only W (paper, 3.1).
    #[default]
    Proposed,
    /// The same with Fourier basis densities (paper, B.1).
    Fourier,
    /// Y given W and the earlier frames of Y (paper, B.2).
    DirectAccess,
    /// The same with a path for W around attention, which the paper does not have.
    DirectAccessResidual,
    /// No W: a deep factorized density for each channel of Y.
    Factorised,
}

impl Kind {
    /// What errors call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proposed => "hyper-priors with deep factorized densities",
            Self::Fourier => "hyper-priors with Fourier basis densities",
            Self::DirectAccess | Self::DirectAccessResidual => "networks with direct access",
            Self::Factorised => "static tables",
        }
    }
}

/// The result of an entropy model for hidden states in steps, `[batch, T, width]`.
pub struct Priced {
    /// The integers Y `[batch, T, width]`, as floats.
    pub y: Tensor,
    /// The integers W `[batch, T, channels]`, as floats, if there are any.
    pub w: Option<Tensor>,
    /// Bits of each frame's Y, `[batch, T]`.
    pub bits_y: Tensor,
    /// Bits of each frame's W, `[batch, T]`.
    pub bits_w: Tensor,
    /// Means and base-2 logarithms of scales of Y, `[batch, T, width]` each, of a model that has them before Y is chosen.
    pub parameters: Option<(Tensor, Tensor)>,
}

/// An entropy model of Y.
pub trait EntropyModel: Send + Sync {
    /// Quantises and prices hidden states in a quality's steps, `[batch, T, width]`. `ids` are the tokens of the frames,
    /// batch · T in all, or none; a model that takes no side indices ignores them.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shapes do not fit, [`Error::NoQuality`] or [`Error::NearestAlone`] if the model has no
    /// such quality or cannot choose Y by its rate, [`Error::Setting`] for another number of tokens if it takes any.
    fn price(&self, in_steps: &Tensor, ids: &[u32], at: At) -> crate::Result<Priced>;

    /// Bits of each frame, `[batch, T]`, as a smooth function of Y, `[batch, T, width]`: W is not rounded. No token is
    /// known.
    ///
    /// # Errors
    /// When the shapes do not fit.
    fn smooth_bits(&self, y: &Tensor) -> crate::Result<Tensor>;
}

/// New weights of a model by name.
///
/// # Errors
/// When a tensor cannot be made.
pub fn init(cfg: &Config, rng: &mut Rng) -> Result<BTreeMap<String, Tensor>> {
    match cfg.entropy_model {
        Kind::Proposed | Kind::Fourier => hyper_prior::init(cfg, rng),
        Kind::DirectAccess | Kind::DirectAccessResidual => direct_access::init(cfg, rng),
        Kind::Factorised => factorised::init(cfg, rng),
    }
}

/// The model with a configuration and its variables.
///
/// # Errors
/// [`Error::Setting`] if a network cannot have its shape or the model takes no side indices, [`Error::Tensor`] if a
/// variable is missing or has another shape.
pub fn new(cfg: &Config, precision: Precision, vars: &BTreeMap<String, Var>) -> crate::Result<Box<dyn EntropyModel>> {
    if cfg.side.is_some() && !matches!(cfg.entropy_model, Kind::Proposed | Kind::Fourier) {
        return Err(Error::setting("side indices", "given", format!("none with {}", cfg.entropy_model.name())));
    }
    Ok(match cfg.entropy_model {
        Kind::Proposed | Kind::Fourier => Box::new(hyper_prior::HyperPrior::new(cfg, precision, vars)?),
        Kind::DirectAccess | Kind::DirectAccessResidual => {
            Box::new(direct_access::DirectAccess::new(cfg, precision, vars)?)
        }
        Kind::Factorised => Box::new(factorised::Factorised::new(cfg, vars)?),
    })
}

/// Refuses what only the proposed model can do: choosing Y by its rate, and more than one quality.
fn nearest_alone(model: &'static str, at: At) -> crate::Result<()> {
    if at == At::default() { Ok(()) } else { Err(Error::NearestAlone { model }) }
}

/// Multiplications a frame that a decoder needs to compute the densities of Y from W and earlier frames. Products of
/// two activations in attention are not counted.
pub fn decoder_multiplications(cfg: &Config) -> usize {
    match cfg.entropy_model {
        Kind::Proposed | Kind::Fourier => cfg.g_y().multiplications(),
        Kind::DirectAccess | Kind::DirectAccessResidual => direct_access::multiplications(cfg),
        Kind::Factorised => 0,
    }
}

/// Names with a prefix.
fn prefixed(prefix: &str, part: BTreeMap<String, Tensor>) -> impl Iterator<Item = (String, Tensor)> {
    part.into_iter().map(move |(name, t)| (format!("{prefix}.{name}"), t))
}

#[cfg(test)]
mod tests {
    use super::super::quality::Quality;
    use super::super::side;
    use super::*;
    use midspan_host::testing::{difference, random};

    /// A model whose weights of the given name are 0.
    fn model_without(kind: Kind, off: &str) -> (BTreeMap<String, Var>, Box<dyn EntropyModel>) {
        model_of(&Config { entropy_model: kind, ..Config::tiny() }, off)
    }

    fn model_of(cfg: &Config, off: &str) -> (BTreeMap<String, Var>, Box<dyn EntropyModel>) {
        let fresh = init(cfg, &mut Rng::new(2)).unwrap().into_iter();
        let fresh = fresh.map(|(n, t)| if n == off { (n, t.zeros_like().unwrap()) } else { (n, t) });
        let vars: BTreeMap<String, Var> = fresh.map(|(n, t)| (n, Var::from_tensor(&t).unwrap())).collect();
        let model = new(cfg, Precision::AsFrozen, &vars).unwrap();
        (vars, model)
    }

    fn side() -> Option<side::Shape> {
        Some(side::Shape { ages: 2, vocabulary: 5, width: 4 })
    }

    fn model(kind: Kind) -> (BTreeMap<String, Var>, Box<dyn EntropyModel>) {
        model_without(kind, "")
    }

    fn states(shape: &[usize], seed: u64) -> Tensor {
        (random(shape, seed).as_tensor() * 6.0).unwrap()
    }

    const ALL: [Kind; 5] =
        [Kind::Proposed, Kind::Fourier, Kind::DirectAccess, Kind::DirectAccessResidual, Kind::Factorised];

    #[test]
    fn every_model_learns_everywhere() {
        for kind in ALL {
            let (vars, model) = model(kind);
            let x = states(&[2, 10, 16], 4);
            let x = Var::from_tensor(&x).unwrap();
            let priced = model.price(&x, &[], At::default()).unwrap();
            assert_eq!((priced.bits_y.dims(), priced.bits_w.dims()), (&[2, 10][..], &[2, 10][..]));
            assert!(difference(&priced.y, &x.round().unwrap()) == 0.0);
            assert_eq!(priced.w.is_none(), kind == Kind::Factorised);
            let grads = (priced.bits_y + priced.bits_w).unwrap().sum_all().unwrap().backward().unwrap();
            for (name, var) in vars.iter().chain([(&"x".to_string(), &x)]) {
                let g = grads.get(var).unwrap_or_else(|| panic!("{kind:?}: {name} has no gradient"));
                assert!(g.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.0, "{kind:?}: {name}");
            }
        }
    }

    #[test]
    fn tokens_and_their_embedding_change_what_y_costs_and_w_does_not() {
        let (vars, model) = model_of(&Config::tiny().side(side()), "");
        let x = states(&[2, 6, 16], 4);
        let ids = [0, 1, 2, 3, 4, 0, 4, 3, 2, 1, 0, 7];
        let price = |ids: &[u32]| model.price(&x, ids, At::default()).unwrap();
        let rows = |t: &Tensor| t.to_vec2::<f32>().unwrap();
        let (with, none) = (price(&ids), price(&[]));
        assert_eq!(rows(&with.bits_w), rows(&none.bits_w));
        let grads = with.bits_y.sum_all().unwrap().backward().unwrap();
        let grad = grads.get(&vars[side::EMBEDDING]).unwrap().abs().unwrap().sum(2).unwrap();
        assert!(rows(&grad).concat().iter().all(|g| *g > 0.0), "{grad}");
        // A frame's token changes its bits and later ones, not earlier ones and not those of the other sequence.
        let mut other = ids;
        other[3] = 0;
        let (before, after) = (rows(&with.bits_y), rows(&price(&other).bits_y));
        assert_eq!((&before[0][..3], &before[1]), (&after[0][..3], &after[1]));
        assert!(before[0][3..].iter().zip(&after[0][3..]).all(|(before, after)| before != after), "{after:?}");
        // Tokens beyond the vocabulary say nothing.
        assert_eq!(rows(&price(&[9; 12]).bits_y), rows(&none.bits_y));
        let error = model.price(&x, &ids[..6], At::default()).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, "the number of tokens must be 12, one a frame, not 6");
        let plain = model_of(&Config::tiny(), "").1;
        assert_eq!(rows(&plain.price(&x, &ids, At::default()).unwrap().bits_y).len(), 2);
    }

    #[test]
    fn models_without_a_hyper_prior_take_no_tokens() {
        for kind in [Kind::DirectAccess, Kind::DirectAccessResidual, Kind::Factorised] {
            let cfg = Config { entropy_model: kind, ..Config::tiny() };
            let (vars, _) = model_of(&cfg, "");
            let error = new(&cfg.side(side()), Precision::AsFrozen, &vars).map(|_| ()).unwrap_err();
            assert!(error.to_string().starts_with("side indices must be none with "), "{error}");
        }
    }

    /// The bits of a frame may depend only on what a decoder knows when it decodes Y of that frame.
    #[test]
    fn bits_of_a_frame_depend_on_what_was_sent_before_it() {
        for kind in ALL {
            let (_, model) = model(kind);
            let x = states(&[1, 10, 16], 5);
            // The frames from the sixth on are different.
            let other = states(&[1, 10, 16], 9);
            let mixed = Tensor::cat(&[&x.narrow(1, 0, 6).unwrap(), &other.narrow(1, 6, 4).unwrap()], 1).unwrap();
            let (a, b) =
                (model.price(&x, &[], At::default()).unwrap(), model.price(&mixed, &[], At::default()).unwrap());
            for (a, b) in [(&a.bits_y, &b.bits_y), (&a.bits_w, &b.bits_w)] {
                let (a, b) = (a.to_vec2::<f32>().unwrap(), b.to_vec2::<f32>().unwrap());
                let same = |t: usize| (a[0][t] - b[0][t]).abs() < 1e-3;
                assert!((0..6).all(same), "{kind:?}: later frames change earlier bits");
            }
        }
    }

    #[test]
    fn direct_access_looks_back_and_not_at_the_frame_itself() {
        // With W fixed at 0, a decoder knows only the earlier frames of Y.
        let (_, model) = model_without(Kind::DirectAccess, "h.output.weight");
        let y = Var::from_tensor(&states(&[1, 8, 16], 3).round().unwrap()).unwrap();
        let bits = model.price(&y, &[], At::default()).unwrap().bits_y;
        // ∂ bits of frame 4 / ∂ Y: at frame 4 it is that of the density alone, before frame 4 it comes through the
        // network, after frame 4 it is 0.
        let grads = bits.narrow(1, 4, 1).unwrap().sum_all().unwrap().backward().unwrap();
        let by_frame = grads.get(&y).unwrap().abs().unwrap().sum(2).unwrap().to_vec2::<f32>().unwrap();
        assert!(by_frame[0][..4].iter().all(|g| *g > 0.0), "{by_frame:?}");
        assert!(by_frame[0][5..].iter().all(|g| *g == 0.0), "{by_frame:?}");
        let mut other = y.to_vec3::<f32>().unwrap();
        other[0][4].iter_mut().for_each(|v| *v += 1.0);
        let changed = model.price(&Tensor::new(other, y.device()).unwrap(), &[], At::default()).unwrap().bits_y;
        let (a, b) = (bits.to_vec2::<f32>().unwrap(), changed.to_vec2::<f32>().unwrap());
        assert!((a[0][5] - b[0][5]).abs() > 1e-4 && (a[0][3] - b[0][3]).abs() < 1e-4);
    }

    #[test]
    fn a_choice_by_rate_is_refused_where_it_cannot_be() {
        let x = random(&[1, 3, 16], 1);
        let by_rate = At { index: 0, quality: Quality { steps: 1.0, rate_weight: 0.1 } };
        for kind in [Kind::DirectAccess, Kind::DirectAccessResidual, Kind::Factorised] {
            assert!(model(kind).1.price(&x, &[], by_rate).is_err());
        }
        assert!(model(Kind::Fourier).1.price(&x, &[], by_rate).is_ok());
    }

    #[test]
    fn smooth_bits_are_the_bits_where_w_is_whole() {
        for kind in ALL {
            // W is 0, rounded or not.
            let (_, model) = model_without(kind, "h.output.weight");
            let y = states(&[1, 6, 16], 6).round().unwrap();
            let priced = model.price(&y, &[], At::default()).unwrap();
            let sum = (priced.bits_y + priced.bits_w).unwrap();
            let distance = difference(&model.smooth_bits(&y).unwrap(), &sum);
            assert!(distance < 1e-4, "{kind:?}: {distance}");
        }
    }
}
