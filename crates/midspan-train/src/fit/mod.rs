//! Learns a codec for a host that does not change. The loss is the rate, plus the divergence of the predictions through
//! the codec from those without it.

mod learn;
mod maps;
mod start;
mod states;

pub use learn::{Compared, Fitted, Judged, Learner, Start};
pub use states::States;

use std::collections::BTreeMap;

use candle_core::{D, Device, Tensor, Var};

use crate::Error;
use crate::base::tokens;
use crate::codec::Codec;
use crate::data::{Batch, HeldOut};
use crate::measure::{self, Carried, Link};
use crate::parallel::in_threads;
use crate::runner::{Metrics, Objective};
use crate::trade::Trade;
use midspan_host::split::SplitHost;

/// A fixed host and a codec at its split.
pub struct Fit<'a> {
    host: &'a dyn SplitHost,
    codec: Codec,
    trade: Trade,
    /// The host, if it is captured hidden states.
    states: Option<&'a States>,
}

impl<'a> Fit<'a> {
    /// A codec to be trained with a fixed host.
    pub fn new(host: &'a dyn SplitHost, codec: Codec, trade: Trade) -> Self {
        Self { host, codec, trade, states: None }
    }

    /// A codec to be trained with captured hidden states.
    pub fn from_states(states: &'a States, codec: Codec, trade: Trade) -> Self {
        Self { host: states, codec, trade, states: Some(states) }
    }

    /// The codec.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// The factor for new steps with which the loss for λ is near its minimum from the start. The divergence D that
    /// rounding causes grows with the square of the steps, and halving the steps costs a bit an element. With a factor
    /// s the sum D s² − λ E log2 s is least for s² = λ E / (2 ln 2 · D).
    ///
    /// # Errors
    /// When the computation fails.
    pub fn steps_factor(&self, batch: &Batch) -> Result<f64, Error> {
        let hidden = self.host.head(&tokens(batch)?)?.detach();
        let should = self.host.tail(&hidden, batch.len)?.detach();
        let quantiser = &self.codec.quantiser;
        let rounded = quantiser.reconstruct(&quantiser.to_steps(&hidden)?.round()?)?;
        let spoilt = divergence(&should, &self.host.tail(&rounded, batch.len)?)?.to_scalar::<f32>()?;
        let elements = self.host.width() as f64;
        let square = self.trade.lambda * elements / (2.0 * std::f64::consts::LN_2 * f64::from(spoilt.max(1e-9)));
        Ok(square.sqrt().clamp(FACTORS.0, FACTORS.1))
    }
}

/// Least and largest factor of new steps.
const FACTORS: (f64, f64) = (1.0 / 256.0, 4.0);

/// Multiplies the steps of new variables. Adapts h's gains so that it sees the same values as before, and g_y's scales
/// so that they begin at the same widths.
///
/// # Errors
/// When a variable is missing or cannot be set.
pub fn scale_steps(vars: &BTreeMap<String, Var>, factor: f64) -> Result<(), Error> {
    let step = variable(vars, "quantiser.log_step")?;
    step.set(&(step.as_tensor() + factor.ln())?)?;
    spread(vars, &vec![factor.recip(); step.elem_count()])
}

/// Adapts h and g_y to Y whose channels vary by these factors more than before.
fn spread(vars: &BTreeMap<String, Var>, factors: &[f64]) -> Result<(), Error> {
    let each =
        |apply: fn(f64) -> f64| Tensor::from_iter(factors.iter().map(|factor| apply(*factor) as f32), &Device::Cpu);
    set_gains_and_scales(vars, |gains| gains / each(|factor| factor)?, |scales| scales + each(f64::log2)?)
}

/// Changes new gains of h and logarithms of g_y's scales, `[width]` each, by the given functions.
fn set_gains_and_scales(
    vars: &BTreeMap<String, Var>,
    gains: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
    scales: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
) -> Result<(), Error> {
    let (gain, bias) = (variable(vars, "h.input_gain")?, variable(vars, "g_y.output.bias")?);
    gain.set(&gains(gain.as_tensor())?)?;
    let width = gain.elem_count();
    let means = bias.narrow(0, 0, width)?; // [2 width]: means, then scales
    Ok(bias.set(&Tensor::cat(&[&means, &scales(&bias.narrow(0, width, width)?)?], 0)?)?)
}

fn variable<'a>(vars: &'a BTreeMap<String, Var>, name: &str) -> Result<&'a Var, Error> {
    vars.get(name).ok_or_else(|| Error::lacks("the codec", name))
}

/// Mean Kullback–Leibler divergence in nats of the predictions `are` from the reference `should`, logits `[.., vocab]`
/// both.
///
/// # Errors
/// When the shapes differ.
pub fn divergence(should: &Tensor, are: &Tensor) -> Result<Tensor, Error> {
    let (p, q) = (candle_nn::ops::log_softmax(should, D::Minus1)?, candle_nn::ops::log_softmax(are, D::Minus1)?);
    let each = (p.exp()? * (&p - q)?)?.sum(D::Minus1)?;
    Ok(each.mean_all()?)
}

/// Figures of links on captured frames, in windows that advance by half their length: the links' own mean figures a frame,
/// and half the weighted squared error (`error`).
///
/// # Errors
/// When a computation fails.
fn evaluate_states(
    states: &States,
    links: &[&dyn Link],
    frames: &HeldOut,
    threads: usize,
) -> Result<Vec<Metrics>, Error> {
    let windows = frames.windows(states.context(), (states.context() / 2).max(1));
    let parts = in_threads(&windows, threads, |(numbers, counted)| {
        let n = numbers.len() - 1;
        let hidden = states.head(&Tensor::from_slice(&numbers[..n], (1, n), &Device::Cpu)?)?;
        let of = |link: &&dyn Link| -> Result<Metrics, Error> {
            let Carried { hidden: after, mut frames } = link.carry(&hidden, &states.ids(&numbers[..n]))?;
            frames.push(("error", states.error(&hidden, &after)?));
            let sum = |t: &Tensor| -> Result<f64, Error> {
                Ok(t.narrow(1, n - counted, *counted)?.sum_all()?.to_scalar::<f32>()?.into())
            };
            frames.iter().map(|(name, t)| Ok((name.to_string(), sum(t)?))).collect()
        };
        links.iter().map(of).collect::<Result<Vec<Metrics>, Error>>()
    })?;
    let counted = frames.ids.len().saturating_sub(1).max(1) as f64;
    let mut means = vec![Metrics::new(); links.len()];
    for (mean, part) in parts.into_iter().flat_map(|part| part.into_iter().enumerate()) {
        for (name, sum) in part {
            *means[mean].entry(name).or_default() += sum / counted;
        }
    }
    Ok(means)
}

impl Objective for Fit<'_> {
    fn loss(&self, batch: &Batch, step: u64) -> Result<(Tensor, Metrics), Error> {
        let hidden = self.host.head(&tokens(batch)?)?.detach();
        if self.codec.has_fixed_quantiser() {
            let ids = self.states.map_or_else(|| batch.inputs(), |states| states.ids(&batch.inputs()));
            // What the quantiser loses cannot be learned; `evaluate` measures it.
            let nothing = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu)?;
            return self.trade.loss(nothing, &self.codec.price_in(&hidden, &ids, 0)?.0, step);
        }
        if let Some(states) = self.states {
            let coded = self.codec.forward(&hidden, &states.ids(&batch.inputs()))?;
            let task = states.error(&hidden, &coded.hidden)?.mean_all()?;
            return self.trade.loss(task, &coded.priced, step);
        }
        let should = self.host.tail(&hidden, batch.len)?.detach();
        let coded = self.codec.forward(&hidden, &batch.inputs())?;
        let task = divergence(&should, &self.host.tail(&coded.hidden, batch.len)?)?;
        self.trade.loss(task, &coded.priced, step)
    }

    /// From captured hidden states, the codec's bits and the weighted error (`error`).
    fn evaluate(&self, text: &HeldOut, threads: usize) -> Result<Metrics, Error> {
        if let Some(states) = self.states {
            return Ok(evaluate_states(states, &[&self.codec], text, threads)?.pop().unwrap_or_default());
        }
        measure::evaluate_one(self.host, &self.codec, text, threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Config, network::Precision};
    use crate::data::Corpus;
    use crate::joint::statistics;
    use crate::rng::Rng;
    use candle_core::Device;
    use midspan_host::llama::Llama;
    use midspan_host::testing::llama_file;

    #[test]
    fn divergences_of_known_logits() {
        let ln3 = 3f32.ln();
        let p = Tensor::new(&[[[ln3, 0.0], [5.0, 5.0]]], &Device::Cpu).unwrap();
        let q = Tensor::new(&[[[0.0, ln3], [1.0, 1.0]]], &Device::Cpu).unwrap();
        let found = divergence(&p, &q).unwrap().to_scalar::<f32>().unwrap();
        assert!((found - 0.25 * ln3).abs() < 1e-6, "{found}");
    }

    #[test]
    fn every_variable_of_the_codec_learns_through_a_fixed_host() {
        let llama = Llama::from_bytes(&llama_file(30), 1).unwrap();
        let corpus = Corpus::from_ids((0..400u32).map(|i| i * i / 7 % 30).collect());
        let batch = corpus.batch(4, 10, &mut Rng::new(1)).unwrap();
        let cfg = Config { maps: true, ..Config::tiny() };
        let (mean, std) = statistics(&llama, &batch).unwrap();
        let vars: BTreeMap<String, Var> = cfg
            .init(&mean, &std, &mut Rng::new(2))
            .unwrap()
            .into_iter()
            .map(|(name, t)| (name, Var::from_tensor(&t).unwrap()))
            .collect();
        let fit =
            Fit::new(&llama, Codec::new(&cfg, Precision::AsFrozen, &vars).unwrap(), Trade { lambda: 0.01, ramp: 1 });
        let (loss, metrics) = fit.loss(&batch, 0).unwrap();
        assert!(metrics["loss"] > 0.0 && metrics["bits_y"] > 0.0, "{metrics:?}");
        let grads = loss.backward().unwrap();
        for (name, var) in &vars {
            let g = grads.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
            assert!(g.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.0, "{name}");
        }
        // The factor is proportional to the root of λ, and a fit that begins with its steps computes a factor of about
        // 1.
        let at = |lambda: f64| {
            let codec = Codec::new(&cfg, Precision::AsFrozen, &vars).unwrap();
            Fit::new(&llama, codec, Trade { lambda, ramp: 1 }).steps_factor(&batch).unwrap()
        };
        let factor = at(1e-5);
        assert!((at(4e-5) / factor - 2.0).abs() < 1e-3 && factor < 1.0, "{factor}");
        assert_eq!((at(0.0), at(1e9)), (FACTORS.0, FACTORS.1));
        scale_steps(&vars, factor).unwrap();
        assert!((0.5..2.0).contains(&at(1e-5)), "{} after {factor}", at(1e-5));
        let fit =
            Fit::new(&llama, Codec::new(&cfg, Precision::AsFrozen, &vars).unwrap(), Trade { lambda: 1e-5, ramp: 1 });
        let finer = fit.loss(&batch, 0).unwrap().1;
        // Each octave of finer steps costs about one more bit an element.
        let more = (finer["bits_y"] - metrics["bits_y"]) / 16.0;
        assert!((more + factor.log2()).abs() < 0.5, "{more} {factor}");
        assert!(finer["loss"] < metrics["loss"], "{finer:?} {metrics:?}");
    }
}
