//! What a split host does when something stands between its halves: bits, perplexity, agreement, last words.

pub mod last_word;
pub mod rows;

use candle_core::{Device, Tensor};

use super::Error;
use super::base::{figures, over_windows};
use super::codec::Codec;
use super::data::Held;
use super::runner::Metrics;
use crate::host::ops::vector;
use crate::host::split::SplitHost;

/// What a link makes of the hidden states of one sequence.
pub struct Carried {
    /// What the second half gets, `[1, T, width]`.
    pub hidden: Tensor,
    /// Named figures of each frame, `[1, T]`; a name ends up with its mean over the frames.
    pub frames: Vec<(&'static str, Tensor)>,
}

/// What stands between the halves.
pub trait Link: Sync {
    /// Carries the hidden states of one sequence, `[1, T, width]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    fn carry(&self, hidden: &Tensor) -> Result<Carried, Error>;
}

impl Link for Codec {
    fn carry(&self, hidden: &Tensor) -> Result<Carried, Error> {
        let coded = self.forward(hidden)?;
        let priced = coded.priced;
        let zeros = priced.y.eq(0f32)?.to_dtype(candle_core::DType::F32)?.mean(2)?;
        let bits = (&priced.bits_y + &priced.bits_w)?;
        let frames = vec![("bits_y", priced.bits_y), ("bits_w", priced.bits_w), ("bits", bits), ("zeros", zeros)];
        Ok(Carried { hidden: coded.hidden.detach(), frames })
    }
}

/// What the second half says of some positions.
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

    /// The likeliest token at each position.
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

/// Figures of a host with a link over held-out text, in windows of its context that advance by half of it: loss,
/// perplexity and bits a byte through the link, the same without it (`unquantised_…`), the divergence of what is predicted
/// through it (`divergence`, nats), the share of positions where both hold the same token for the likeliest (`agreement`),
/// and the link's own means a token.
///
/// # Errors
/// When a computation fails.
pub fn evaluate(host: &dyn SplitHost, link: &dyn Link, text: &Held, threads: usize) -> Result<Metrics, Error> {
    let mut sums = over_windows(text, host.context(), threads, |ids, counted| {
        let n = ids.len() - 1;
        let inputs = Tensor::from_slice(&ids[..n], (1, n), &Device::Cpu)?;
        let hidden = host.head(&inputs)?.detach();
        let carried = link.carry(&hidden)?;
        let targets = &ids[ids.len() - counted..];
        let through = Predictions::new(host, &carried.hidden, counted)?;
        let plain = Predictions::new(host, &hidden, counted)?;
        let sum = |values: Vec<f32>| values.iter().map(|v| f64::from(*v)).sum::<f64>();
        let same = through.greedy().iter().zip(plain.greedy()).filter(|(a, b)| **a == *b).count();
        let mut sums = Metrics::from([
            ("through".to_string(), sum(through.nats(targets))),
            ("plain".to_string(), sum(plain.nats(targets))),
            ("divergence".to_string(), sum(plain.divergence(&through))),
            ("agreement".to_string(), same as f64),
        ]);
        for (name, frames) in &carried.frames {
            let sum = frames.narrow(1, n - counted, counted)?.sum_all()?.to_scalar::<f32>()?;
            sums.insert((*name).to_string(), f64::from(sum));
        }
        Ok(sums)
    })?;
    let mut out = Metrics::new();
    figures("", sums.remove("through").unwrap_or_default(), text, &mut out);
    figures("unquantised_", sums.remove("plain").unwrap_or_default(), text, &mut out);
    let tokens = text.ids.len().saturating_sub(1).max(1) as f64;
    out.extend(sums.into_iter().map(|(name, sum)| (name, sum / tokens)));
    Ok(out)
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
    }
}
