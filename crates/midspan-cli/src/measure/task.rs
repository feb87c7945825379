//! The second half's predictions from decoded hidden states, compared with those from the host's own hidden states and
//! from links without a codec.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::super::baselines::WITHOUT_CODEC;
use super::Sequence;
use midspan_host::split::SplitHost;
use midspan_train::Error;
use midspan_train::measure::{Effect, Predictions};
use midspan_train::parallel::in_threads;

/// Figures over a text's sequences, each from an empty context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Task {
    /// Perplexity through the codec.
    pub perplexity_through_codec: f64,
    /// Perplexity on the host's own hidden states.
    pub perplexity_unquantised: f64,
    /// Mean divergence of the predictions through the codec, nats.
    pub divergence: f64,
    /// Share of positions with the same most likely token.
    pub greedy_agreement: f64,
    /// Links without a codec on the same hidden states, by name. Only links whose predictions are finite are included.
    pub without_codec: BTreeMap<String, WithoutCodec>,
}

/// Bits and effect of a link without a codec.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WithoutCodec {
    /// Bits a token.
    pub bits: f64,
    /// Perplexity through it.
    pub perplexity: f64,
    /// Mean divergence of the predictions through it, nats.
    pub divergence: f64,
    /// Share of positions with the same most likely token.
    pub greedy_agreement: f64,
}

/// Figures of `decoded`, `[T, width]`, which holds all sequences one after the other.
///
/// # Errors
/// When a computation fails, or the predictions are not finite.
pub(crate) fn effect(host: &dyn SplitHost, sequences: &[Sequence], decoded: &[f32], threads: usize) -> Result<Task> {
    let width = host.width();
    let mut rest = decoded;
    let pairs: Vec<(&Sequence, &[f32])> = sequences
        .iter()
        .map(|sequence| {
            let (own, behind) = rest.split_at(sequence.hidden.len());
            rest = behind;
            (sequence, own)
        })
        .collect();
    // The host's own hidden states, those through the codec, and those through links without one.
    let parts = in_threads(&pairs, threads, |(sequence, received)| {
        let frames = sequence.frames();
        let states = |values: &[f32]| Tensor::from_slice(values, (1, frames, width), &Device::Cpu);
        let hidden = states(&sequence.hidden)?;
        let own = Predictions::new(host, &hidden, frames)?;
        let through = |hidden: &Tensor| -> Result<Effect, Error> {
            Ok(Effect::new(&own, &Predictions::new(host, hidden, frames)?, &sequence.targets))
        };
        let mut all = vec![Effect::new(&own, &own, &sequence.targets), through(&states(received)?)?];
        for rows in WITHOUT_CODEC {
            all.push(through(&rows.carry(&hidden)?)?);
        }
        Ok(all)
    })?;
    let mut totals = [Effect::default(); 2 + WITHOUT_CODEC.len()];
    for part in parts {
        totals.iter_mut().zip(part).for_each(|(total, part)| total.add(part));
    }
    let frames = sequences.iter().map(Sequence::frames).sum::<usize>() as f64;
    let perplexity = |effect: &Effect| (effect.nats / frames).exp();
    let [own, through, others @ ..] = &totals;
    if [own, through].iter().any(|effect| !effect.nats.is_finite() || !effect.divergence.is_finite()) {
        bail!("the second half's predictions are not finite");
    }
    // The largest values of some hosts do not fit raw f16.
    let carried = |(_, effect): &(_, &Effect)| effect.nats.is_finite() && effect.divergence.is_finite();
    let without_codec = WITHOUT_CODEC.into_iter().zip(others).filter(carried).map(|(rows, effect)| {
        let figures = WithoutCodec {
            bits: rows.bits(width),
            perplexity: perplexity(effect),
            divergence: effect.divergence / frames,
            greedy_agreement: effect.agreed / frames,
        };
        (rows.name(), figures)
    });
    Ok(Task {
        perplexity_through_codec: perplexity(through),
        perplexity_unquantised: perplexity(own),
        divergence: through.divergence / frames,
        greedy_agreement: through.agreed / frames,
        without_codec: without_codec.collect(),
    })
}
