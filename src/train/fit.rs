//! A codec for a host that does not change: its rate, and how far its halves' predictions drift from the whole's.

use candle_core::{D, Tensor};

use super::Error;
use super::base::tokens;
use super::codec::Codec;
use super::data::{Batch, Held};
use super::measure;
use super::runner::{Metrics, Objective};
use super::trade::Trade;
use crate::host::split::SplitHost;

/// A fixed host and a codec at its split.
pub struct Fit<'a> {
    host: &'a dyn SplitHost,
    codec: Codec,
    trade: Trade,
}

impl<'a> Fit<'a> {
    /// A codec that learns beside a host.
    pub fn new(host: &'a dyn SplitHost, codec: Codec, trade: Trade) -> Self {
        Self { host, codec, trade }
    }

    /// The codec.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }
}

/// Mean Kullback–Leibler divergence in nats of predictions from those they should be, logits `[.., vocab]` both.
///
/// # Errors
/// When the shapes differ.
pub fn divergence(should: &Tensor, are: &Tensor) -> Result<Tensor, Error> {
    let (p, q) = (candle_nn::ops::log_softmax(should, D::Minus1)?, candle_nn::ops::log_softmax(are, D::Minus1)?);
    let each = (p.exp()? * (&p - q)?)?.sum(D::Minus1)?;
    Ok(each.mean_all()?)
}

impl Objective for Fit<'_> {
    fn loss(&self, batch: &Batch, step: u64) -> Result<(Tensor, Metrics), Error> {
        let hidden = self.host.head(&tokens(batch)?)?.detach();
        let should = self.host.tail(&hidden, batch.len)?.detach();
        let coded = self.codec.forward(&hidden)?;
        let task = divergence(&should, &self.host.tail(&coded.hidden, batch.len)?)?;
        self.trade.loss(task, &coded.priced, step)
    }

    fn evaluate(&self, text: &Held, threads: usize) -> Result<Metrics, Error> {
        measure::evaluate_one(self.host, &self.codec, text, threads)
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::{Config, network::Precision};
    use super::super::data::Corpus;
    use super::super::joint::statistics;
    use super::super::rng::Rng;
    use super::*;
    use crate::host::llama::{Llama, tests::file};
    use candle_core::{Device, Var};
    use std::collections::BTreeMap;

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
        let llama = Llama::from_bytes(&file(30), 1).unwrap();
        let corpus = Corpus::from_ids((0..400u32).map(|i| (i * i / 7 % 30) as u16).collect());
        let batch = corpus.batch(4, 10, &mut Rng::new(1)).unwrap();
        let cfg = Config {
            analysis: vec![16, 8, 4],
            channels: 4,
            synthesis: vec![4, 8, 16],
            heads: 2,
            window: 12,
            maps: true,
            ..Config::default()
        };
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
    }
}
