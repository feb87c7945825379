//! Trains the qualities of one codec together, with a fixed host and quantiser. The loss is the rate alone.

use candle_core::Tensor;

use super::Error;
use super::base::{Host, tokens};
use super::codec::Codec;
use super::codec::quality::Quality;
use super::codec::side::Dropout;
use super::data::{self, Batch, HeldOut};
use super::measure::{self, Carried, Link, carried};
use super::runner::{Metrics, Objective};
use super::trade::{bits, scalar};
use midspan_host::split::SplitHost;

/// A host and a codec whose qualities are trained.
pub struct Dial {
    host: Host,
    codec: Codec,
    shares: Shares,
    dropout: Dropout,
}

/// How often each quality is drawn, relative to the sum.
pub struct Shares(Vec<u64>);

impl Shares {
    /// Shares of so many qualities: equal ones if `shares` is empty.
    ///
    /// # Errors
    /// [`Error::Setting`] if the number of shares is not that of the qualities, or no share is above 0.
    pub fn new(shares: &[u64], count: usize) -> Result<Self, Error> {
        let shares = if shares.is_empty() { vec![1; count] } else { shares.to_vec() };
        // The sum has to fit 32 bits.
        let sum = shares.iter().try_fold(0_u32, |sum, share| sum.checked_add(u32::try_from(*share).ok()?));
        if shares.len() != count || sum.is_none_or(|sum| sum == 0) {
            let wanted = format!("one for each of {count} qualities, one of them above 0 and their sum below 2^32");
            return Err(Error::setting("shares", format_args!("{shares:?}"), wanted));
        }
        Ok(Self(shares))
    }

    /// The quality of a pass. It is drawn from the pass's tokens, so that neither the order of passes nor interruptions
    /// change it. It does depend on how a step is cut into passes: by `micro`, and by threads if they get fewer windows
    /// each.
    pub fn draw(&self, batch: &Batch, step: u64) -> usize {
        let mut at = (data::draw(&batch.ids, step) >> 32) % self.0.iter().sum::<u64>();
        let inside = |share: &u64| {
            let inside = at < *share;
            at = at.saturating_sub(*share);
            inside
        };
        // The number is below the sum of all shares.
        self.0.iter().position(inside).unwrap_or_default()
    }
}

impl Dial {
    /// Host and codec with their variables, and how often each quality is drawn: equally often if `shares` is empty.
    ///
    /// # Errors
    /// [`Error::Setting`] if the number of shares is not that of the qualities, or no share is above 0.
    pub fn new(host: Host, codec: Codec, shares: &[u64]) -> Result<Self, Error> {
        let shares = Shares::new(shares, codec.qualities().len())?;
        Ok(Self { host, codec, shares, dropout: Dropout::default() })
    }

    /// Leaves the side indices of some windows out; of none by default.
    #[must_use]
    pub fn with_dropout(self, dropout: Dropout) -> Self {
        Self { dropout, ..self }
    }
}

/// About how many bits an element costs in a quality, for integers with a standard deviation of about 4 in quality 0.
pub(super) fn usual_bits(quality: Quality) -> f64 {
    (1.0 + 4.0 / quality.steps).log2()
}

/// Figures of every quality over held-out text, with its index appended to their names.
///
/// # Errors
/// When a computation fails.
pub(super) fn evaluate_each(host: &Host, codec: &Codec, text: &HeldOut, threads: usize) -> Result<Metrics, Error> {
    let links: Vec<InQuality<'_>> = (0..codec.qualities().len()).map(|index| InQuality { codec, index }).collect();
    let links: Vec<&dyn Link> = links.iter().map(|link| link as &dyn Link).collect();
    let figures = measure::evaluate(&host.model, &links, text, threads)?;
    let named = |(index, figures): (usize, Metrics)| {
        let kept = ["bits", "bits_w", "loss", "agreement"];
        let kept = figures.into_iter().filter(move |(name, _)| kept.contains(&name.as_str()));
        kept.map(move |(name, value)| (format!("{name}_{index}"), value))
    };
    Ok(figures.into_iter().enumerate().flat_map(named).collect())
}

/// A codec in one of its qualities.
pub struct InQuality<'a> {
    /// The codec.
    pub codec: &'a Codec,
    /// The quality's index.
    pub index: usize,
}

impl Link for InQuality<'_> {
    fn carry(&self, hidden: &Tensor, ids: &[u32]) -> Result<Carried, Error> {
        carried(self.codec.forward_in(hidden, ids, self.index)?)
    }
}

impl Objective for Dial {
    /// The loss is the logarithm of the bits, so that one percent counts the same in every quality.
    fn loss(&self, batch: &Batch, step: u64) -> Result<(Tensor, Metrics), Error> {
        let hidden = self.host.model.head(&tokens(batch)?)?.detach();
        let known = self.dropout.known(batch, step);
        let (priced, _) = self.codec.price_in(&hidden, &known, self.shares.draw(batch, step))?;
        let (bits, mut metrics) = bits(&priced)?;
        let loss = bits.log()?;
        metrics.insert("loss".into(), scalar(&loss)?);
        Ok((loss, metrics))
    }

    /// Figures of every quality, with its index appended to their names.
    fn evaluate(&self, text: &HeldOut, threads: usize) -> Result<Metrics, Error> {
        evaluate_each(&self.host, &self.codec, text, threads)
    }

    /// Steps draw qualities, so bits may rise from those of the coarsest to those of the finest quality.
    fn most_rise(&self) -> f64 {
        let bits = self.codec.qualities().iter().map(|quality| usual_bits(*quality));
        let (least, most) =
            bits.fold((f64::INFINITY, 0.0_f64), |(least, most), bits| (least.min(bits), most.max(bits)));
        3.0 + (most / least).ln()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use candle_core::Var;

    use super::super::base::fresh;
    use super::super::codec::Config;
    use super::super::codec::network::Precision;
    use super::super::codec::side;
    use super::super::data::Corpus;
    use super::super::joint::add_codec;
    use super::super::rng::Rng;
    use super::*;
    use midspan_host::gpt;

    #[test]
    fn every_quality_is_drawn_learns_and_is_measured() {
        let shape = gpt::Config::default().vocab(40).width(16).layers(2).heads(2).split(1).context(16);
        let quality = |steps: f64, rate_weight: f64| Quality { steps, rate_weight };
        let qualities = vec![quality(1.0, 0.1), quality(0.5, 0.0), quality(0.125, 0.0)];
        let cfg = Config { qualities, ..Config::tiny() };
        let mut rng = Rng::new(5);
        let mut vars = fresh(&shape, &mut rng).unwrap();
        let host = Host::new(&shape, &vars).unwrap();
        let corpus = Corpus::from_ids((0..4000u32).map(|i| (i * i / 7 + i) % 40).collect());
        let batch = corpus.batch(8, 16, &mut Rng::new(1)).unwrap();
        add_codec(&cfg, &host.model, &batch, &mut rng, &mut vars).unwrap();
        let codec = || Codec::new(&cfg, Precision::AsFrozen, &vars).unwrap();
        for shares in [&[1, 2][..], &[0, 0, 0], &[u64::MAX, 1, 1]] {
            assert!(Dial::new(Host::new(&shape, &vars).unwrap(), codec(), shares).is_err());
        }
        let dial = Dial::new(host, codec(), &[2, 1, 1]).unwrap();
        // Integers cost 2.32 bits in the coarsest and 5.04 bits in the finest quality.
        assert!((dial.most_rise() - 3.776).abs() < 0.001);
        let mut drawn = BTreeMap::new();
        for step in 0..60 {
            *drawn.entry(dial.shares.draw(&batch, step)).or_insert(0) += 1;
        }
        assert_eq!(drawn.len(), 3);
        assert!(drawn.values().all(|times| *times > 8) && drawn[&0] > 20, "{drawn:?}");
        let step = (0..60).find(|step| dial.shares.draw(&batch, *step) == 2).unwrap();
        let (loss, metrics) = dial.loss(&batch, step).unwrap();
        let bits = metrics["bits_y"] + metrics["bits_w"];
        assert!((f64::from(loss.to_scalar::<f32>().unwrap()) - bits.ln()).abs() < 1e-4);
        let grads = loss.backward().unwrap();
        let moves = |var: &Var| {
            grads.get(var).is_some_and(|g| g.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.0)
        };
        for (name, var) in &vars {
            let own = name.starts_with("qualities.2.") || name.starts_with("h.") || name.starts_with("g_y.");
            assert!(moves(var) == own || name.starts_with("quantiser."), "{name}");
        }
        let held_out = HeldOut { ids: (0..80).map(|i| i % 40).collect(), bytes: 300 };
        let figures = dial.evaluate(&held_out, 2).unwrap();
        assert!(figures["bits_2"] > figures["bits_1"] && figures["bits_1"] > figures["bits_0"], "{figures:?}");
        assert!(figures["agreement_2"] >= figures["agreement_0"], "{figures:?}");
    }

    #[test]
    fn a_pass_without_side_indices_teaches_their_embedding_nothing() {
        let shape = gpt::Config::default().vocab(40).width(16).layers(2).heads(2).split(1).context(16);
        let cfg = Config::tiny().side(Some(side::Shape { ages: 2, vocabulary: 40, width: 4 }));
        let mut rng = Rng::new(5);
        let mut vars = fresh(&shape, &mut rng).unwrap();
        let corpus = Corpus::from_ids((0..4000u32).map(|i| (i * i / 7 + i) % 40).collect());
        let batch = corpus.batch(4, 16, &mut Rng::new(1)).unwrap();
        let host = Host::new(&shape, &vars).unwrap();
        add_codec(&cfg, &host.model, &batch, &mut rng, &mut vars).unwrap();
        let learns = |share: f64| {
            let codec = Codec::new(&cfg, Precision::AsFrozen, &vars).unwrap();
            let host = Host::new(&shape, &vars).unwrap();
            let dial = Dial::new(host, codec, &[]).unwrap().with_dropout(Dropout::new(share).unwrap());
            let (loss, metrics) = dial.loss(&batch, 3).unwrap();
            let grads = loss.backward().unwrap();
            let by_entries = grads.get(&vars[side::EMBEDDING]).unwrap().abs().unwrap().sum_all().unwrap();
            (by_entries.to_scalar::<f32>().unwrap() > 0.0, metrics["bits_y"])
        };
        let ((with, bits), (without, other)) = (learns(0.0), learns(1.0));
        assert!(with && !without && bits != other, "{bits} {other}");
    }
}
