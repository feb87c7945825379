//! Tables by level: how large what is left of an element is expected to be, whichever channel it belongs to.
//!
//! Where something is known of a frame, the expected magnitude changes from frame to frame. Levels lie evenly on a
//! logarithmic scale, so that a frame is so many levels louder or quieter in all its channels. All elements of a level
//! share its tables, one for each phase of the mean where the mean's fraction matters.

use std::collections::{BTreeMap, HashMap};

use midspan::model::Tables;

use super::causal::Causal;
use super::integer;
use super::tables::{Costs, Pool};
use crate::Result;
use crate::codec::quantiser::choose;
use crate::freeze::tables::{BankParts, Masses};
use crate::parallel::in_threads;

/// The number of levels.
pub const COUNT: usize = 96;
/// The mean magnitude of level 0, in steps.
const LEAST: f64 = 0.04;
/// How much larger each level is than the one before.
const RATIO: f64 = 1.16;
/// Below this magnitude, in steps, the fraction of the mean has [`PHASES`] bits.
const FINE: f64 = 2.0;
const PHASES: u8 = 2;
/// How often Y is chosen anew by the tables that were fitted to the last choice.
const ROUNDS: usize = 2;
/// The largest offset of a mean, in 1/64 of a step (spec 4.2).
const OFFSET_MAX: f64 = 1_048_576.0;

/// The level of a magnitude in steps.
fn level(magnitude: f64) -> i32 {
    ((magnitude.max(LEAST) / LEAST).ln() / RATIO.ln()).round() as i32
}

/// How many levels larger a magnitude is that is `factor` times as large.
pub fn levels(factor: f64) -> f64 {
    factor.ln() / RATIO.ln()
}

/// Bits of the fraction of the mean in each level.
pub fn fraction_bits() -> Vec<u8> {
    (0..COUNT as i32).map(|level| if LEAST * RATIO.powi(level) < FINE { PHASES } else { 0 }).collect()
}

/// What is left of frames once side indices and the frames before have told what they can.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    /// E vectors of T values.
    pub channels: &'a [Vec<f32>],
    /// What is predicted of them, in the same shape; or the same for each quality, Q · E vectors of T values.
    pub predicted: &'a [Vec<f32>],
    /// `[T]`: how many levels louder than usual each frame is.
    pub louder: &'a [i32],
    /// The same frames before sparse maps. A value after those depends on the integers of others, and `channels` is what
    /// it would be without rounding.
    pub causal: Option<Causal<'a>>,
}

/// The tables of all levels, and the level of each channel and quality.
#[derive(Clone, Debug)]
pub struct Levels {
    /// `[Q, E]`: the level of a frame that is as loud as usual.
    pub base: Vec<i32>,
    /// `[Q, E]`: what is added to predicted means, in 1/64 of a step.
    pub offset: Vec<i32>,
    /// One for each level and phase.
    tables: Vec<Masses>,
}

/// The place of an element: where its table counts from, and which it is.
struct Place {
    /// k of spec 6.2.
    shift: i32,
    table: u32,
}

/// The first table of each level.
fn bases() -> Vec<u32> {
    let mut next = 0;
    fraction_bits()
        .iter()
        .map(|bits| {
            let base = next;
            next += 1 << bits;
            base
        })
        .collect()
}

/// The place of an element with a mean in 1/64 of a step (spec 6.2).
fn place(mean: i32, level: i32, bits: &[u8], bases: &[u32]) -> Place {
    let level = level.clamp(0, COUNT as i32 - 1) as usize;
    let fraction = bits[level];
    let q = (mean + (1 << (5 - fraction))) >> (6 - fraction);
    let shift = q >> fraction;
    Place { shift, table: bases[level] + (q - (shift << fraction)) as u32 }
}

impl Levels {
    /// Fits levels to frames, in steps of each quality, as an encoder with this rate weight chooses Y.
    ///
    /// # Errors
    /// When a thread panics.
    pub fn fit(left: Left<'_>, steps: &[f64], rate_weight: f64, threads: usize) -> Result<Self> {
        let Left { channels, predicted, louder, causal } = left;
        let (bits, bases) = (fraction_bits(), bases());
        let of_place = |quality: usize, channel: usize| {
            &predicted[if predicted.len() > channels.len() { quality * channels.len() + channel } else { channel }]
        };
        let all: Vec<usize> = (0..channels.len()).collect();
        let (mut base, mut offset) = (Vec::new(), Vec::new());
        for (quality, step) in steps.iter().enumerate() {
            let run = causal.map(|causal| causal.run(*step, threads, &|_, _, x| x.round_ties_even())).transpose()?;
            let placed = in_threads(&all, threads, |channel| {
                let frames = louder.len().max(1) as f64;
                let own = of_place(quality, *channel);
                let rest = |frame: usize| {
                    let p = own[frame];
                    match &run {
                        None => f64::from(channels[*channel][frame] - p) / step,
                        Some(run) => f64::from(run.x[*channel][frame]) - f64::from(p) / step,
                    }
                };
                let rest = || (0..louder.len()).map(rest);
                let mean = rest().sum::<f64>() / frames;
                // As loud as a usual frame.
                let sum: f64 = rest().zip(louder).map(|(x, louder)| (x - mean).abs() / RATIO.powi(*louder)).sum();
                Ok((level(sum / frames), (64.0 * mean).clamp(-OFFSET_MAX, OFFSET_MAX).round() as i32))
            })?;
            let placed: (Vec<i32>, Vec<i32>) = placed.into_iter().unzip();
            base.extend(placed.0);
            offset.extend(placed.1);
        }
        let mut tables: Option<Vec<Costs>> = None;
        let mut masses = Vec::new();
        for _ in 0..=if rate_weight > 0.0 { ROUNDS } else { 0 } {
            let mut pools: BTreeMap<u32, Pool> = BTreeMap::new();
            for (quality, exact) in steps.iter().enumerate() {
                let step = *exact as f32;
                let first = quality * channels.len();
                let place_of = |channel: usize, frame: usize| {
                    let at = first + channel;
                    let mean = (64.0 * of_place(quality, channel)[frame] / step).round() as i32 + offset[at];
                    place(mean, base[at] + louder[frame], &bits, &bases)
                };
                let decide = |x: f32, Place { shift, table }: &Place| match &tables {
                    None => x.round_ties_even(),
                    Some(tables) => {
                        let bits = |y: f32| tables[*table as usize].bits(i32::from(integer(y)) - shift);
                        choose(x, rate_weight, |nearest, second| f64::from(bits(nearest) - bits(second)))
                    }
                };
                let decide_at = |channel: usize, frame: usize, x: f32| decide(x, &place_of(channel, frame));
                let run = causal.map(|causal| causal.run(*exact, threads, &decide_at)).transpose()?;
                let counted = in_threads(&all, threads, |channel| {
                    let mut counts: HashMap<(u32, i32), u32> = HashMap::new();
                    for (frame, value) in channels[*channel].iter().enumerate() {
                        let place = place_of(*channel, frame);
                        let y = match &run {
                            None => integer(decide(value / step, &place)),
                            Some(run) => run.y[*channel][frame],
                        };
                        *counts.entry((place.table, i32::from(y) - place.shift)).or_default() += 1;
                    }
                    Ok(counts)
                })?;
                for ((table, value), count) in counted.into_iter().flatten() {
                    pools.entry(table).or_default().count(value, count.into());
                }
            }
            masses = all_tables(&pools, &bits);
            tables = Some(masses.iter().map(|masses| Costs::new(masses, 0)).collect());
        }
        Ok(Self { base, offset, tables: masses })
    }

    /// The bank in a model file's form.
    pub fn bank(&self) -> Tables {
        let mut bank = BankParts::default();
        for masses in &self.tables {
            bank.push(masses);
        }
        bank.into()
    }
}

/// A table for each level and phase. One that no element uses is that of the nearest level, and phase, that some do.
fn all_tables(pools: &BTreeMap<u32, Pool>, bits: &[u8]) -> Vec<Masses> {
    let fitted: BTreeMap<u32, Masses> = pools.iter().map(|(table, pool)| (*table, pool.masses())).collect();
    let count: u32 = bits.iter().map(|bits| 1 << bits).sum();
    let nearest = |table: u32| {
        let (below, above) = (fitted.range(..=table).next_back(), fitted.range(table..).next());
        let near = [below, above].into_iter().flatten().min_by_key(|(other, _)| other.abs_diff(table));
        near.map_or_else(|| Pool::default().masses(), |(_, masses)| masses.clone())
    };
    (0..count).map(nearest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_lie_evenly_and_means_have_phases() {
        assert_eq!((level(0.0), level(LEAST * RATIO.powi(30))), (0, 30));
        assert!((levels(RATIO * RATIO) - 2.0).abs() < 1e-9);
        let (bits, bases) = (fraction_bits(), bases());
        assert_eq!((bits.len(), bits[0], bits[COUNT - 1]), (COUNT, PHASES, 0));
        // 1.25 steps in a fine level, and −0.4 in a coarse one.
        let fine = place(80, 3, &bits, &bases);
        assert_eq!((fine.shift, fine.table), (1, bases[3] + 1));
        let coarse = place(-26, 400, &bits, &bases);
        assert_eq!((coarse.shift, coarse.table), (0, bases[COUNT - 1]));
    }

    #[test]
    fn a_table_that_nobody_uses_is_its_neighbours() {
        let mut pool = Pool::default();
        pool.count(5, 1_000);
        let bits = fraction_bits();
        let tables = all_tables(&BTreeMap::from([(7, pool)]), &bits);
        assert_eq!(tables.len() as u32, bases()[COUNT - 1] + 1);
        assert!(tables.iter().all(|masses| *masses == tables[7]));
    }
}
