//! What a split host does when something stands between its halves: bits, perplexity, agreement, last words.

pub mod last_word;
pub mod rows;

use candle_core::{Device, Tensor};

use super::Error;
use super::base::{figures, over_windows};
use super::codec::Codec;
use super::data::Held;
use super::runner::Metrics;
use crate::host::gpt::Gpt;
use crate::host::ops::{linear, vector};

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

/// What the second half makes of some positions: for each the nats of the token that follows, and the likeliest token.
pub struct Scores {
    /// −ln p of the targets.
    pub nats: Vec<f32>,
    /// The likeliest tokens.
    pub greedy: Vec<u32>,
}

/// Scores of the last positions of hidden states `[1, T, width]`, one for each target.
///
/// # Errors
/// When the shapes do not fit.
pub fn scores(model: &Gpt, hidden: &Tensor, targets: &[u32]) -> Result<Scores, Error> {
    let last = model.forward_tail_hidden(hidden, None)?;
    let last = last.narrow(1, last.dim(1)? - targets.len(), targets.len())?;
    let mut logits = linear(&last.contiguous()?, model.embedding())?.flatten_all()?.to_vec1::<f32>()?;
    let mut out = Scores { nats: Vec::new(), greedy: Vec::new() };
    for (row, target) in logits.chunks_exact_mut(model.config().vocab).zip(targets) {
        let likeliest =
            row.iter().enumerate().fold((0, f32::MIN), |top, (i, v)| if *v > top.1 { (i, *v) } else { top });
        out.greedy.push(likeliest.0 as u32);
        let target = row[*target as usize];
        out.nats.push(vector::softmax(row) - target);
    }
    Ok(out)
}

/// Figures of a host with a link over held-out text, in windows of its context that advance by half of it: loss,
/// perplexity and bits a byte through the link, the same without it (`unquantised_…`), the share of positions where both
/// hold the same token for the likeliest (`agreement`), and the link's own means a token.
///
/// # Errors
/// When a computation fails.
pub fn evaluate(model: &Gpt, link: &dyn Link, text: &Held, threads: usize) -> Result<Metrics, Error> {
    let mut sums = over_windows(text, model.config().context, threads, |ids, counted| {
        let n = ids.len() - 1;
        let inputs = Tensor::from_slice(&ids[..n], (1, n), &Device::Cpu)?;
        let hidden = model.forward_head(&inputs, None)?.detach();
        let carried = link.carry(&hidden)?;
        let targets = &ids[ids.len() - counted..];
        let (through, plain) = (scores(model, &carried.hidden, targets)?, scores(model, &hidden, targets)?);
        let nats = |scores: &Scores| scores.nats.iter().map(|v| f64::from(*v)).sum::<f64>();
        let same = through.greedy.iter().zip(&plain.greedy).filter(|(a, b)| a == b).count();
        let mut sums = Metrics::from([
            ("through".to_string(), nats(&through)),
            ("plain".to_string(), nats(&plain)),
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
