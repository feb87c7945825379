//! Sparse causal maps (spec 4.10), for hidden states too wide for full matrices.
//!
//! Each channel is predicted from a few channels that are decoded before it, and the encoder makes up for rounding errors
//! in a few later channels, as the second half weighs them. Both are regressions on some of the other channels: of hidden
//! states and rounding noise on the channels before, and of the weight of errors on the channels after. Where a regression
//! had all of them, the products of what is left would be the determinants of both matrices, and the bits those of the
//! eigenbasis; so a channel's regression is worth ½ log2 of the factor by which it lowers what is left. Predictors are
//! chosen greedily by that (a Cholesky factorisation with pivots), and one threshold on the bits that a multiplication
//! saves says how many each channel gets.

use std::borrow::Cow;

use nalgebra::{Cholesky, DMatrix, DVector};

use super::maps::floor;
use crate::parallel::in_threads;
use crate::{Error, Result};
use midspan::model::{Map, SparseMap};

/// Multiplications a channel of an encoder's run over a frame: entries of both maps. A decoder needs those of the
/// synthesis. With a weight of the rate an encoder makes two runs.
pub const MULTIPLICATIONS: usize = 200;
/// The most entries of a row, in means.
const LONGEST: f64 = 2.5;
/// Channels that a channel's predictors are chosen from, those with the largest correlations.
const CANDIDATES: usize = 1_024;
/// Frames that a predictor takes at least.
const FRAMES_EACH: usize = 16;
/// Variance below this share of a channel's own is taken for rounding.
const LEAST: f32 = 1e-6;

/// Both maps, and how large the steps of channels are.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseMaps {
    /// After the quantiser.
    pub synthesis: SparseMap,
    /// Before it.
    pub analysis: SparseMap,
    /// `[E]`: the step of each channel over the step of a quality. An error of one step of a quality costs the same in all
    /// channels.
    pub units: Vec<f64>,
}

/// A symmetric matrix in single precision, row by row.
struct Symmetric {
    width: usize,
    values: Vec<f32>,
}

impl Symmetric {
    fn new(matrix: &DMatrix<f64>) -> Self {
        // Columns are rows.
        Self { width: matrix.nrows(), values: matrix.iter().map(|value| *value as f32).collect() }
    }

    fn row(&self, at: usize) -> &[f32] {
        &self.values[at * self.width..][..self.width]
    }
}

/// Channels in the order in which a regression of a channel takes them, and the bits that each saves.
struct Chosen {
    channels: Vec<usize>,
    bits: Vec<f64>,
}

/// Maps for hidden states of this covariance, `[E, E]`, of so many frames, where errors are weighted by `information`,
/// `[E, E]`, if it is known. They are best where `share` of the weighted variance is lost.
///
/// # Errors
/// [`Error::NoMap`] if hidden states do not vary, or errors have no weight.
pub fn sparse_maps(
    information: Option<&DMatrix<f64>>,
    covariance: &DMatrix<f64>,
    frames: usize,
    share: f64,
    threads: usize,
) -> Result<SparseMaps> {
    let width = covariance.nrows();
    let (weight, sizes) = weighted(information, width)?;
    // In units in which an error in any one channel costs the same.
    let mut covariance = scaled(covariance, |at| sizes[at]);
    let trace = covariance.trace();
    if !(trace > 0.0 && trace.is_finite()) {
        return Err(Error::NoMap);
    }
    shrink(&mut covariance, frames);
    let damage = match &weight {
        Some(weight) => share * weight.component_mul(&covariance).sum(),
        None => share * trace,
    };
    // The variance of rounding in each of its own directions.
    let noise = (damage / width as f64).max(1e-12 * trace / width as f64);
    let most = (LONGEST * MULTIPLICATIONS as f64 / 2.0) as usize;
    // Without weights the synthesis has all entries: its mean row is twice as long, and the longest has two means.
    let most = if weight.is_some() { most } else { 2 * MULTIPLICATIONS };
    // So few frames say little about many channels at once.
    let predictors = most.min(frames / FRAMES_EACH);

    let mut with_noise = covariance.clone();
    // At high rates a step² / 12 of noise is worth a variance of step² / 2πe.
    let floor = 12.0 * noise / (2.0 * std::f64::consts::PI * std::f64::consts::E);
    for at in 0..width {
        with_noise[(at, at)] += floor;
    }
    let all: Vec<usize> = (0..width).collect();
    let matrix = Symmetric::new(&with_noise);
    let before = in_threads(&all, threads, |at| Ok(choose(&matrix, *at, 0..*at, predictors)))?;
    let after = match &weight {
        Some(weight) => {
            let matrix = Symmetric::new(weight);
            in_threads(&all, threads, |at| Ok(choose(&matrix, *at, at + 1..width, most)))?
        }
        None => Vec::new(),
    };
    let worth = threshold(before.iter().chain(&after), MULTIPLICATIONS * width);
    // Which channels make up for the errors of each, by how much, and what an error then costs.
    let pushes = match &weight {
        Some(weight) => in_threads(&all, threads, |at| {
            let mut channels = after[*at].channels[..after[*at].count(worth)].to_vec();
            channels.sort_unstable();
            let (weights, left) = regression(weight, *at, &channels);
            Ok((channels, weights, left.max(1e-6)))
        })?,
        None => vec![(Vec::new(), Vec::new(), 1.0); width],
    };
    // What a decoder predicts from holds this noise, which was pushed on.
    let mut decoded = covariance;
    for (at, (channels, weights, left)) in pushes.iter().enumerate() {
        let column: Vec<(usize, f64)> =
            std::iter::once((at, 1.0)).chain(channels.iter().copied().zip(weights.iter().map(|w| -w))).collect();
        for (row, a) in &column {
            for (other, b) in &column {
                decoded[(*row, *other)] += a * b * noise / left;
            }
        }
    }
    let matrix = Symmetric::new(&decoded);
    let rows = in_threads(&all, threads, |at| {
        let mut channels = choose(&matrix, *at, 0..*at, before[*at].count(worth)).channels;
        channels.sort_unstable();
        let (weights, _) = regression(&decoded, *at, &channels);
        Ok((channels, weights))
    })?;
    let mut maps = SparseMaps {
        synthesis: SparseMap::default(),
        analysis: SparseMap::default(),
        units: pushes.iter().zip(&sizes).map(|((.., left), size)| 1.0 / (left.sqrt() * size)).collect(),
    };
    let mut received: Vec<Vec<(usize, f64)>> = vec![Vec::new(); width];
    for (at, (channels, weights, _)) in pushes.iter().enumerate() {
        for (channel, weight) in channels.iter().zip(weights) {
            received[*channel].push((at, -weight * sizes[at] / sizes[*channel]));
        }
    }
    for (at, (channels, weights)) in rows.iter().enumerate() {
        let entries =
            channels.iter().zip(weights).map(|(channel, weight)| (*channel, weight * sizes[*channel] / sizes[at]));
        append(&mut maps.synthesis, entries);
        append(&mut maps.analysis, received[at].iter().copied());
    }
    Ok(maps)
}

/// The weight of errors in units in which its diagonal is 1, if it has anything else, and how large these units are in
/// each channel: `[E]`.
fn weighted(information: Option<&DMatrix<f64>>, width: usize) -> Result<(Option<DMatrix<f64>>, Vec<f64>)> {
    let Some(information) = information else { return Ok((None, vec![1.0; width])) };
    let floor = floor(information);
    if !(floor > 0.0 && floor.is_finite()) {
        return Err(Error::NoMap);
    }
    let sizes: Vec<f64> = information.diagonal().iter().map(|value| (value.max(0.0) + floor).sqrt()).collect();
    let mut weight = scaled(information, |at| 1.0 / sizes[at]);
    weight.fill_diagonal(1.0);
    let diagonal = weight.iter().filter(|value| **value != 0.0).count() == width;
    Ok(((!diagonal).then_some(weight), sizes))
}

/// A matrix whose rows and columns are multiplied by factors.
fn scaled(matrix: &DMatrix<f64>, factor: impl Fn(usize) -> f64) -> DMatrix<f64> {
    DMatrix::from_fn(matrix.nrows(), matrix.ncols(), |row, column| matrix[(row, column)] * factor(row) * factor(column))
}

/// Draws correlations towards 0 by what so few frames make of them by chance (J. Schäfer, K. Strimmer, A shrinkage
/// approach to large-scale covariance matrix estimation, 2005).
fn shrink(covariance: &mut DMatrix<f64>, frames: usize) {
    let width = covariance.nrows();
    let diagonal: Vec<f64> = covariance.diagonal().iter().copied().collect();
    let (mut chance, mut squares) = (0.0, 0.0);
    for column in 0..width {
        for row in 0..column {
            let scale = diagonal[row] * diagonal[column];
            if scale > 0.0 {
                let square = (covariance[(row, column)].powi(2) / scale).min(1.0);
                chance += (1.0 - square).powi(2) / frames.max(2) as f64;
                squares += square;
            }
        }
    }
    let kept = if squares > 0.0 { 1.0 - (chance / squares).min(1.0) } else { 1.0 };
    *covariance *= kept;
    covariance.set_diagonal(&DVector::from_vec(diagonal));
}

impl Chosen {
    /// How many save more than `worth` bits, or stand before one that does.
    fn count(&self, worth: f64) -> usize {
        self.bits.iter().rposition(|bits| *bits > worth).map_or(0, |last| last + 1)
    }
}

/// The bits that an entry has to save so that there are at most `total` of them.
fn threshold<'a>(chosen: impl Iterator<Item = &'a Chosen>, total: usize) -> f64 {
    let mut worths: Vec<f64> = Vec::new();
    for Chosen { bits, .. } in chosen {
        // An entry may be worth it for one after it.
        let mut most = 0.0_f64;
        worths.extend(bits.iter().rev().map(|bits| {
            most = most.max(*bits);
            most
        }));
    }
    worths.sort_unstable_by(|a, b| b.total_cmp(a));
    worths.get(total).copied().unwrap_or(0.0)
}

/// The channels, at most `most` of these candidates, of which a regression of channel `at` leaves least.
fn choose(matrix: &Symmetric, at: usize, candidates: std::ops::Range<usize>, most: usize) -> Chosen {
    let row = matrix.row(at);
    let own: Vec<usize> = candidates.collect();
    let own: Cow<'_, [usize]> = if own.len() > CANDIDATES {
        let correlation = |channel: usize| row[channel] * row[channel] / matrix.row(channel)[channel];
        let mut near = own;
        near.select_nth_unstable_by(CANDIDATES, |a, b| correlation(*b).total_cmp(&correlation(*a)));
        near.truncate(CANDIDATES);
        near.sort_unstable();
        near.into()
    } else {
        own.into()
    };
    let most = most.min(own.len());
    let diagonal: Vec<f32> = own.iter().map(|channel| matrix.row(*channel)[*channel]).collect();
    // What is left of each candidate, and its covariance with what is left of the channel.
    let (mut left, mut shared) = (diagonal.clone(), own.iter().map(|channel| row[*channel]).collect::<Vec<f32>>());
    let mut rest = f64::from(row[at]);
    let least = 1e-9 * rest;
    let mut factor: Vec<f32> = Vec::with_capacity(most * own.len());
    let mut used = vec![false; own.len()];
    let mut chosen = Chosen { channels: Vec::with_capacity(most), bits: Vec::with_capacity(most) };
    for _ in 0..most {
        let gain = |place: usize| shared[place] * shared[place] / left[place].max(LEAST * diagonal[place]);
        let Some(best) = (0..own.len()).filter(|place| !used[*place]).max_by(|a, b| gain(*a).total_cmp(&gain(*b)))
        else {
            break;
        };
        used[best] = true;
        let size = left[best].max(LEAST * diagonal[best]).max(f32::MIN_POSITIVE).sqrt();
        let source = matrix.row(own[best]);
        let mut next: Vec<f32> = own.iter().map(|channel| source[*channel]).collect();
        subtract(&mut next, &factor, best);
        next.iter_mut().for_each(|value| *value /= size);
        let step = shared[best] / size;
        let after = (rest - f64::from(step) * f64::from(step)).max(least);
        chosen.bits.push(0.5 * (rest / after).log2());
        chosen.channels.push(own[best]);
        rest = after;
        for ((shared, left), value) in shared.iter_mut().zip(&mut left).zip(&next) {
            *shared -= step * value;
            *left -= value * value;
        }
        factor.extend_from_slice(&next);
    }
    chosen
}

/// Takes from a row what the rows of a factor say of it; `place` is that of the row's own channel.
fn subtract(row: &mut [f32], factor: &[f32], place: usize) {
    let width = row.len();
    let mut rows = factor.chunks_exact(4 * width);
    for four in &mut rows {
        let (a, b) = four.split_at(2 * width);
        let ((a, b), (c, d)) = (a.split_at(width), b.split_at(width));
        let (fa, fb, fc, fd) = (a[place], b[place], c[place], d[place]);
        for ((((row, a), b), c), d) in row.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *row -= fa * a + fb * b + fc * c + fd * d;
        }
    }
    for one in rows.remainder().chunks_exact(width) {
        let factor = one[place];
        row.iter_mut().zip(one).for_each(|(row, value)| *row -= factor * value);
    }
}

/// The weights of a regression of channel `at` on others, and the variance that it leaves.
fn regression(matrix: &DMatrix<f64>, at: usize, channels: &[usize]) -> (Vec<f64>, f64) {
    let among = DMatrix::from_fn(channels.len(), channels.len(), |a, b| matrix[(channels[a], channels[b])]);
    let with = DVector::from_fn(channels.len(), |a, _| matrix[(channels[a], at)]);
    // Rounding may leave a matrix that is hardly positive.
    for nudge in [0.0, 1e-9, 1e-6, 1e-3] {
        let mut among = among.clone();
        for place in 0..channels.len() {
            among[(place, place)] *= 1.0 + nudge;
        }
        if let Some(factor) = Cholesky::new(among) {
            let weights = factor.solve(&with);
            if weights.iter().all(|weight| weight.is_finite()) {
                let left = matrix[(at, at)] - weights.dot(&with);
                return (weights.iter().copied().collect(), left);
            }
        }
    }
    (vec![0.0; channels.len()], matrix[(at, at)])
}

/// Appends a row; entries that are nothing in single precision are left out.
fn append(map: &mut SparseMap, entries: impl Iterator<Item = (usize, f64)>) {
    let before = map.index.len();
    for (channel, weight) in entries {
        let weight = weight as f32;
        if weight != 0.0 && weight.is_finite() {
            map.index.push(channel as u16);
            map.weight.push(weight);
        }
    }
    map.count.push((map.index.len() - before) as u16);
}

impl SparseMaps {
    /// Both maps in the form of model parts: synthesis and analysis.
    pub fn parts(self) -> (Map, Map) {
        (Map::Sparse(self.synthesis), Map::Sparse(self.analysis))
    }

    /// What prediction leaves of centred frames, `[T, E]`, that nothing rounded, in steps of a quality whose step is 1:
    /// `[E]` of a frame after the other.
    pub fn left(&self, centred: &[f32]) -> Vec<f32> {
        let width = self.units.len();
        let mut all = Vec::with_capacity(centred.len());
        for frame in centred.chunks_exact(width) {
            for ((channel, (index, weight)), unit) in self.synthesis.rows().enumerate().zip(&self.units) {
                let told: f32 =
                    index.iter().zip(weight).map(|(index, weight)| weight * frame[usize::from(*index)]).sum();
                all.push((frame[channel] - told) / *unit as f32);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// A random symmetric positive matrix.
    fn positive(width: usize, seed: u64) -> DMatrix<f64> {
        let mut rng = Rng::new(seed);
        let mut half = DMatrix::from_fn(width, width, |_, _| f64::from(rng.normal()));
        half.column_iter_mut().enumerate().for_each(|(at, mut column)| column *= 0.9_f64.powi(at as i32));
        &half * half.transpose() + DMatrix::identity(width, width) * 0.05
    }

    /// log2 of the determinant, halved.
    fn half_log2(matrix: &DMatrix<f64>) -> f64 {
        Cholesky::new(matrix.clone()).unwrap().l().diagonal().iter().map(|value| value.log2()).sum()
    }

    /// What is left of each channel, in its own steps: half of log2 of the variances, in sum.
    fn left(maps: &SparseMaps, covariance: &DMatrix<f64>) -> f64 {
        let rows = maps.synthesis.rows().enumerate().zip(&maps.units);
        rows.map(|((at, (index, weight)), unit)| {
            let mut row = DVector::zeros(covariance.nrows());
            row[at] = 1.0;
            index.iter().zip(weight).for_each(|(index, weight)| row[usize::from(*index)] -= f64::from(*weight));
            0.5 * (row.dot(&(covariance * &row)) / (unit * unit)).log2()
        })
        .sum()
    }

    #[test]
    fn with_all_predictors_bits_are_those_of_the_eigenbasis() {
        let (width, frames) = (40, 1 << 40);
        let (covariance, information) = (positive(width, 1) * 9.0, positive(width, 2));
        let maps = sparse_maps(Some(&information), &covariance, frames, 1e-7, 2).unwrap();
        let floor = floor(&information);
        let weight = &information + DMatrix::identity(width, width) * floor;
        let bound = half_log2(&covariance) + half_log2(&weight);
        let found = left(&maps, &covariance);
        assert!((found - bound).abs() < 0.01 * width as f64, "{found} {bound}");
        // Without a map they are more.
        let diagonal = covariance.diagonal().component_mul(&weight.diagonal()).map(f64::log2).sum() * 0.5;
        assert!(diagonal > bound + 10.0, "{diagonal} {bound}");
        // Where all errors weigh alike none is pushed on.
        let maps = sparse_maps(None, &covariance, frames, 1e-7, 1).unwrap();
        assert!(maps.analysis.index.is_empty() && maps.units.iter().all(|unit| *unit == 1.0));
        assert!((left(&maps, &covariance) - half_log2(&covariance)).abs() < 0.01 * width as f64);
        let weights = DMatrix::from_diagonal(&DVector::from_fn(width, |at, _| 1.0 + at as f64));
        let maps = sparse_maps(Some(&weights), &covariance, frames, 1e-7, 1).unwrap();
        assert!(maps.analysis.index.is_empty() && maps.units[0] > 4.0 * maps.units[width - 1]);
    }

    /// An encoder that makes up for its errors loses less of what counts.
    #[test]
    fn errors_are_pushed_to_where_they_cost_least() {
        let width = 30;
        let information = positive(width, 2);
        let maps = sparse_maps(Some(&information), &positive(width, 1), 1 << 40, 1e-4, 1).unwrap();
        // The error of hidden states that an error of one step in each channel becomes, alone.
        let mut costs = Vec::new();
        for at in 0..width {
            let mut error = DVector::zeros(width);
            error[at] = maps.units[at];
            let rows: Vec<(Vec<u16>, Vec<f32>)> =
                maps.analysis.rows().map(|(index, weight)| (index.to_vec(), weight.to_vec())).collect();
            for (channel, (index, weight)) in rows.iter().enumerate().skip(at + 1) {
                let place = index.iter().position(|index| usize::from(*index) == at);
                error[channel] = place.map_or(0.0, |place| f64::from(weight[place]) * maps.units[at]);
            }
            costs.push(error.dot(&(&information * &error)));
        }
        // All cost the same, and less than an error that stays.
        let mean = costs.iter().sum::<f64>() / width as f64;
        assert!(costs.iter().all(|cost| (cost / mean - 1.0).abs() < 0.05), "{costs:?}");
        let alone = (0..width).map(|at| information[(at, at)] * maps.units[at].powi(2)).sum::<f64>() / width as f64;
        assert!(alone > 1.5 * mean, "{alone} {mean}");
    }

    #[test]
    fn entries_are_where_they_save_bits_and_within_their_number() {
        let width = 300;
        let (covariance, information) = (positive(width, 1), positive(width, 2));
        let maps = sparse_maps(Some(&information), &covariance, 1 << 40, 1e-3, 2).unwrap();
        let entries = maps.synthesis.index.len() + maps.analysis.index.len();
        // The rows of 300 channels cannot be longer than 150 in the mean.
        assert!((1..=MULTIPLICATIONS * width).contains(&entries));
        let maps = sparse_maps(None, &DMatrix::from_diagonal(&covariance.diagonal()), 1 << 40, 1e-3, 2).unwrap();
        assert!(maps.synthesis.weight.iter().all(|weight| *weight == 0.0), "nothing to predict");
        // Few frames allow few predictors.
        let maps = sparse_maps(None, &covariance, 64, 1e-3, 2).unwrap();
        assert!(maps.synthesis.count.iter().all(|count| *count <= 4) && !maps.synthesis.index.is_empty());
        let still = DMatrix::zeros(4, 4);
        assert!(matches!(sparse_maps(None, &still, 9, 1e-3, 1), Err(Error::NoMap)));
        assert!(matches!(sparse_maps(Some(&still), &DMatrix::identity(4, 4), 9, 1e-3, 1), Err(Error::NoMap)));
    }
}
