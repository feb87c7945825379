//! Measures a split host with a link between its halves: bits, perplexity, agreement, last words.

pub mod frozen;
pub mod last_word;
pub mod rows;

use candle_core::{Device, Tensor};

use super::Error;
use super::base::figures;
use super::codec::{Codec, Coded};
use super::data::HeldOut;
use super::parallel::in_threads;
use super::runner::Metrics;
use midspan_host::ops::vector;
use midspan_host::split::SplitHost;

/// The result of a link for the hidden states of one sequence.
pub struct Carried {
    /// What the second half gets, `[1, T, width]`.
    pub hidden: Tensor,
    /// Named figures of each frame, `[1, T]`. The mean over the frames is reported.
    pub frames: Vec<(&'static str, Tensor)>,
}

/// A link between the halves.
pub trait Link: Sync {
    /// Carries the hidden states of one sequence, `[1, T, width]`, whose frames have these tokens, T. Both ends of the
    /// link know the tokens.
    ///
    /// # Errors
    /// When the shapes do not fit.
    fn carry(&self, hidden: &Tensor, ids: &[u32]) -> Result<Carried, Error>;
}

impl Link for Codec {
    fn carry(&self, hidden: &Tensor, ids: &[u32]) -> Result<Carried, Error> {
        carried(self.forward(hidden, ids)?)
    }
}

/// The hidden states that a codec transmits, its bits, and the share of zeros in Y.
///
/// # Errors
/// When a computation fails.
pub fn carried(Coded { priced, hidden }: Coded) -> Result<Carried, Error> {
    let zeros = priced.y.eq(0f32)?.to_dtype(candle_core::DType::F32)?.mean(2)?;
    let bits = (&priced.bits_y + &priced.bits_w)?;
    let frames = vec![("bits_y", priced.bits_y), ("bits_w", priced.bits_w), ("bits", bits), ("zeros", zeros)];
    Ok(Carried { hidden: hidden.detach(), frames })
}

/// The second half's predictions at some positions.
pub struct Predictions {
    logits: Vec<f32>,
    probabilities: Vec<f32>,
    /// ln Σ exp of each row's logits.
    normalisers: Vec<f32>,
    vocab: usize,
}

impl Predictions {
    /// Predictions at the last `last` positions of hidden states `[1, T, width]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn new(host: &dyn SplitHost, hidden: &Tensor, last: usize) -> Result<Self, Error> {
        let logits = host.tail(hidden, last)?.flatten_all()?.to_vec1::<f32>()?;
        let (vocab, mut probabilities) = (host.vocab(), logits.clone());
        let normalisers = probabilities.chunks_exact_mut(vocab).map(vector::softmax).collect();
        Ok(Self { logits, probabilities, normalisers, vocab })
    }

    /// −ln p of a token at each position.
    pub fn nats(&self, targets: &[u32]) -> Vec<f32> {
        let rows = self.logits.chunks_exact(self.vocab).zip(&self.normalisers).zip(targets);
        rows.map(|((row, normaliser), target)| normaliser - row[*target as usize]).collect()
    }

    /// The most likely token at each position.
    pub fn greedy(&self) -> Vec<u32> {
        let likeliest = |row: &[f32]| {
            row.iter().enumerate().fold((0, f32::MIN), |top, (i, v)| if *v > top.1 { (i, *v) } else { top }).0 as u32
        };
        self.logits.chunks_exact(self.vocab).map(likeliest).collect()
    }

    /// Kullback–Leibler divergence in nats of `other` from these predictions at each position.
    pub fn divergence(&self, other: &Predictions) -> Vec<f32> {
        let rows = self.logits.chunks_exact(self.vocab).zip(self.probabilities.chunks_exact(self.vocab));
        let rows = rows.zip(other.logits.chunks_exact(self.vocab)).zip(self.normalisers.iter().zip(&other.normalisers));
        rows.map(|(((a, p), b), (own, other))| {
            let sum: f32 = p.iter().zip(a.iter().zip(b)).map(|(p, (a, b))| p * (a - b)).sum();
            sum - own + other
        })
        .collect()
    }
}

/// The effect of a link on the predictions at some positions, as sums over them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Effect {
    /// −ln p of the targets.
    pub nats: f64,
    /// Divergence from the predictions without the link, nats.
    pub divergence: f64,
    /// Positions where the most likely token is the same with and without the link.
    pub agreed: f64,
}

impl Effect {
    /// The effect of a link, given the predictions without and through it.
    pub fn new(own: &Predictions, through: &Predictions, targets: &[u32]) -> Self {
        let sum = |values: Vec<f32>| values.iter().map(|v| f64::from(*v)).sum::<f64>();
        Self {
            nats: sum(through.nats(targets)),
            divergence: sum(own.divergence(through)),
            agreed: own.greedy().iter().zip(through.greedy()).filter(|(a, b)| **a == *b).count() as f64,
        }
    }

    /// Adds the sums of other positions.
    pub fn add(&mut self, other: Effect) {
        self.nats += other.nats;
        self.divergence += other.divergence;
        self.agreed += other.agreed;
    }
}

/// Figures of a host with each of some links over held-out text, in windows of its context that advance by half of it:
/// loss, perplexity and bits a byte through the link, the same without it (`unquantised_…`), the divergence of the
/// predictions through it (`divergence`, nats), the share of positions where the most likely token is the same
/// (`agreement`), and the link's own mean figures a token.
///
/// # Errors
/// When a computation fails.
pub fn evaluate(
    host: &dyn SplitHost,
    links: &[&dyn Link],
    text: &HeldOut,
    threads: usize,
) -> Result<Vec<Metrics>, Error> {
    let windows = text.windows(host.context(), (host.context() / 2).max(1));
    let parts = in_threads(&windows, threads, |(ids, counted)| {
        let n = ids.len() - 1;
        let inputs = Tensor::from_slice(&ids[..n], (1, n), &Device::Cpu)?;
        let hidden = host.head(&inputs)?.detach();
        let own = Predictions::new(host, &hidden, *counted)?;
        let targets = &ids[ids.len() - counted..];
        let unquantised: f64 = own.nats(targets).iter().map(|v| f64::from(*v)).sum();
        let through = |link: &&dyn Link| -> Result<Metrics, Error> {
            let carried = link.carry(&hidden, &ids[..n])?;
            let effect = Effect::new(&own, &Predictions::new(host, &carried.hidden, *counted)?, targets);
            let mut sums = Metrics::from([
                ("through".to_string(), effect.nats),
                ("unquantised".to_string(), unquantised),
                ("divergence".to_string(), effect.divergence),
                ("agreement".to_string(), effect.agreed),
            ]);
            for (name, frames) in &carried.frames {
                let sum = frames.narrow(1, n - counted, *counted)?.sum_all()?.to_scalar::<f32>()?;
                sums.insert((*name).to_string(), f64::from(sum));
            }
            Ok(sums)
        };
        links.iter().map(through).collect::<Result<Vec<_>, _>>()
    })?;
    let mut totals = vec![Metrics::new(); links.len()];
    for (total, part) in parts.into_iter().flat_map(|part| part.into_iter().enumerate()) {
        for (name, value) in part {
            *totals[total].entry(name).or_default() += value;
        }
    }
    let tokens = text.ids.len().saturating_sub(1).max(1) as f64;
    let means = totals.into_iter().map(|mut sums| {
        let mut out = Metrics::new();
        figures("", sums.remove("through").unwrap_or_default(), text, &mut out);
        figures("unquantised_", sums.remove("unquantised").unwrap_or_default(), text, &mut out);
        out.extend(sums.into_iter().map(|(name, sum)| (name, sum / tokens)));
        out
    });
    Ok(means.collect())
}

/// [`evaluate`] for one link.
///
/// # Errors
/// When a computation fails.
pub fn evaluate_one(host: &dyn SplitHost, link: &dyn Link, text: &HeldOut, threads: usize) -> Result<Metrics, Error> {
    Ok(evaluate(host, &[link], text, threads)?.pop().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_of_known_logits() {
        let rows = |logits: &[f32]| {
            let mut probabilities = logits.to_vec();
            let normalisers = probabilities.chunks_exact_mut(2).map(vector::softmax).collect();
            Predictions { logits: logits.to_vec(), probabilities, normalisers, vocab: 2 }
        };
        // p = (3/4, 1/4) and (1/2, 1/2) against q = (1/4, 3/4) and (1/2, 1/2).
        let ln3 = 3f32.ln();
        let (p, q) = (rows(&[ln3, 0.0, 7.0, 7.0]), rows(&[0.0, ln3, -1.0, -1.0]));
        let close = |a: &[f32], b: [f32; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&p.divergence(&q), [0.5 * ln3, 0.0]), "{:?}", p.divergence(&q));
        assert!(close(&p.nats(&[1, 0]), [4f32.ln(), 2f32.ln()]));
        assert_eq!((p.greedy(), q.greedy()), (vec![0, 0], vec![1, 0]));
        let effect = Effect::new(&p, &q, &[0, 1]);
        assert!((effect.nats - f64::from(8f32.ln())).abs() < 1e-5 && effect.agreed == 1.0, "{effect:?}");
        assert!((effect.divergence - f64::from(0.5 * ln3)).abs() < 1e-5, "{effect:?}");
    }
}
