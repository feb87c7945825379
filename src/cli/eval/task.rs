//! What the second half makes of decoded hidden states, beside its own and those of links without a codec.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::measure::Sequence;
use crate::host::split::SplitHost;
use crate::train::Error;
use crate::train::base::in_threads;
use crate::train::measure::Predictions;
use crate::train::measure::rows::Rows;

/// Figures over a text's sequences, each from an empty context.
pub struct Task {
    /// Perplexity through the codec.
    pub perplexity: f64,
    /// Perplexity on the host's own hidden states.
    pub unquantised: f64,
    /// Mean divergence of what is predicted through the codec, nats.
    pub divergence: f64,
    /// Share of positions with the same likeliest token.
    pub agreement: f64,
    /// Bits a token, perplexity and agreement of links without a codec, by name.
    pub without_codec: BTreeMap<String, Value>,
}

/// Sums over positions for one way through the link.
#[derive(Clone, Copy, Default)]
struct Sums {
    nats: f64,
    divergence: f64,
    agreed: f64,
}

impl Sums {
    fn plus(self, other: Sums) -> Sums {
        Sums {
            nats: self.nats + other.nats,
            divergence: self.divergence + other.divergence,
            agreed: self.agreed + other.agreed,
        }
    }
}

const WITHOUT_CODEC: [Rows; 2] = [Rows::Integers(8), Rows::Integers(4)];

/// Figures of `decoded`, `[T, width]` over all sequences, one after the other.
///
/// # Errors
/// When a computation fails.
pub fn measure(host: &dyn SplitHost, sequences: &[Sequence], decoded: &[f32], threads: usize) -> Result<Task, Error> {
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
    // The host's own, through the codec, and without one.
    let parts = in_threads(&pairs, threads, |(sequence, received)| {
        let frames = sequence.frames();
        let states = |values: &[f32]| Tensor::from_slice(values, (1, frames, width), &Device::Cpu);
        let hidden = states(&sequence.hidden)?;
        let own = Predictions::new(host, &hidden, frames)?;
        let greedy = own.greedy();
        let sums = |hidden: &Tensor| -> Result<Sums, Error> {
            let got = Predictions::new(host, hidden, frames)?;
            let sum = |values: Vec<f32>| values.iter().map(|v| f64::from(*v)).sum::<f64>();
            let same = got.greedy().iter().zip(&greedy).filter(|(a, b)| a == b).count();
            Ok(Sums {
                nats: sum(got.nats(&sequence.targets)),
                divergence: sum(own.divergence(&got)),
                agreed: same as f64,
            })
        };
        let mut all = vec![sums(&hidden)?, sums(&states(received)?)?];
        for rows in WITHOUT_CODEC {
            all.push(sums(&rows.carry(&hidden)?)?);
        }
        Ok(all)
    })?;
    let mut totals = [Sums::default(); 2 + WITHOUT_CODEC.len()];
    for part in parts {
        totals.iter_mut().zip(part).for_each(|(total, part)| *total = total.plus(part));
    }
    let frames = sequences.iter().map(Sequence::frames).sum::<usize>() as f64;
    let perplexity = |sums: &Sums| (sums.nats / frames).exp();
    let [own, through, others @ ..] = &totals;
    let without_codec = WITHOUT_CODEC.into_iter().zip(others).map(|(rows, sums)| {
        let agreement = sums.agreed / frames;
        let figures = json!({"bits": rows.bits(width), "perplexity": perplexity(sums), "greedy_agreement": agreement});
        (rows.name(), figures)
    });
    Ok(Task {
        perplexity: perplexity(through),
        unquantised: perplexity(own),
        divergence: through.divergence / frames,
        agreement: through.agreed / frames,
        without_codec: without_codec.collect(),
    })
}
