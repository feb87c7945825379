//! What decoded frames tell of the next one: the predictor of spec 6.13 by regularised least squares.
//!
//! Frames are taken as a decoder has them, in the codec's channels and rounded to its steps, each in units of its own
//! deviation. Two frames back tell nearly all. A channel's own past has two weights; what the other channels tell goes
//! through a bottleneck of the directions that explain most of what is left (reduced-rank regression: A. Izenman,
//! Reduced-rank regression for the multivariate linear model, 1975). All of it follows from second moments. The last
//! tenth of the frames, which the weights have not seen, decides whether it pays; the weights are then fitted to all.

use candle_core::{Device, Tensor};
use nalgebra::{Cholesky, DMatrix, SymmetricEigen};

use super::integer;
use super::maps::ROWS;
use super::model::scaling;
use crate::Result;
use crate::parallel::in_threads;
use midspan::model::Linear;
use midspan::model::prediction::{LowRank, Prediction};

/// The widest hidden state with a low-rank part.
const LOW_RANK_WIDTH: usize = 512;
/// R, if there is a low-rank part.
const RANK: usize = 64;
/// Frames that moments are taken of.
const FITTED: usize = 1 << 15;
/// Frames that gains are fitted to, for each quality.
const GAINED: usize = 1 << 12;
/// How often the diagonals and the low-rank part are fitted in turn.
const ROUNDS: usize = 3;
/// Bits that prediction has to save for each channel: it takes layered mode away, which a few percent are not worth.
const LEAST_SAVED: f64 = 0.2;
/// Bits that a larger predictor has to save for each channel beside a smaller one.
const LEAST_GAINED: f64 = 0.01;
/// A frame as many times as loud as the median one, or one after such a frame, does not count: first frames of sequences
/// would outweigh all others.
const LOUDEST: f32 = 9.0;
/// Added to the variance of every input, as a share of it.
const RIDGE: f64 = 1e-3;
/// A channel's deviation in the common unit.
const COMMON: f64 = 1_000.0;
/// The deviation of the low-rank part's values.
const REDUCED: f64 = 2_000.0;
/// The largest sum of a channel's, or a row's, weights: some less than \[MODEL-14\] and \[MODEL-4\] allow.
const WEIGHTS_MAX: f64 = 60_000.0;

/// The predictor of a model, and what it saves.
#[derive(Clone, Debug)]
pub struct Predicting {
    /// The tensors of the model file.
    pub parts: Prediction,
    /// Bits that it saves of each channel in the mean, on frames that it has not seen.
    pub saved: f64,
}

/// Inputs and targets of a fit. A frame's inputs are its past, one frame back first, `[P · E]`; all in units of the
/// channels' deviations.
struct Moments {
    /// `[P · E, P · E]`.
    inputs: DMatrix<f64>,
    /// `[P · E, E]`.
    cross: DMatrix<f64>,
    /// `[E]`.
    targets: Vec<f64>,
    frames: f64,
}

impl Moments {
    fn add(&mut self, other: &Self) {
        self.inputs += &other.inputs;
        self.cross += &other.cross;
        self.targets.iter_mut().zip(&other.targets).for_each(|(sum, more)| *sum += more);
        self.frames += other.frames;
    }

    /// Mean squares of what weights leave of each channel.
    fn left(&self, weights: &Weights) -> Vec<f64> {
        let (cross, square) = (weights.dot(&self.cross), weights.dot(&weights.times(&self.inputs)));
        let all = self.targets.iter().zip(cross).zip(square);
        all.map(|((target, cross), square)| (target - 2.0 * cross + square).max(1e-9 * target) / self.frames.max(1.0))
            .collect()
    }

    /// The moments of the first `frames` frames of the past.
    fn of_frames(&self, frames: usize) -> Self {
        let inputs = frames * self.targets.len();
        Self {
            inputs: self.inputs.view((0, 0), (inputs, inputs)).into_owned(),
            cross: self.cross.rows(0, inputs).into_owned(),
            targets: self.targets.clone(),
            frames: self.frames,
        }
    }
}

/// Weights in floats.
#[derive(Clone, Debug)]
struct Weights {
    /// `[P, E]`.
    diagonal: Vec<Vec<f64>>,
    /// `[P · E, R]` and `[R, E]`.
    low_rank: Option<(DMatrix<f64>, DMatrix<f64>)>,
}

impl Weights {
    /// All of them as one matrix, `[P · E, E]`.
    fn matrix(&self) -> DMatrix<f64> {
        let width = self.diagonal[0].len();
        let mut all = match &self.low_rank {
            Some((reduce, expand)) => reduce * expand,
            None => DMatrix::zeros(self.diagonal.len() * width, width),
        };
        for (back, row) in self.diagonal.iter().enumerate() {
            row.iter().enumerate().for_each(|(channel, weight)| all[(back * width + channel, channel)] += weight);
        }
        all
    }

    /// The product of inputs' moments, `[P · E, P · E]`, and all weights.
    fn times(&self, inputs: &DMatrix<f64>) -> DMatrix<f64> {
        let width = self.diagonal[0].len();
        let mut product = match &self.low_rank {
            Some((reduce, expand)) => (inputs * reduce) * expand,
            None => DMatrix::zeros(inputs.nrows(), width),
        };
        for (back, row) in self.diagonal.iter().enumerate() {
            for (channel, weight) in row.iter().enumerate() {
                product.column_mut(channel).axpy(*weight, &inputs.column(back * width + channel), 1.0);
            }
        }
        product
    }

    /// For each channel the product of its weights and its column of a matrix, `[P · E, E]`.
    fn dot(&self, matrix: &DMatrix<f64>) -> Vec<f64> {
        let width = self.diagonal[0].len();
        let reduced = self.low_rank.as_ref().map(|(reduce, expand)| (reduce.tr_mul(matrix), expand));
        let of_channel = |channel: usize| {
            let own = self.diagonal.iter().enumerate();
            let own: f64 = own.map(|(back, row)| row[channel] * matrix[(back * width + channel, channel)]).sum();
            own + reduced.as_ref().map_or(0.0, |(reduced, expand)| reduced.column(channel).dot(&expand.column(channel)))
        };
        (0..width).map(of_channel).collect()
    }

    /// Fits diagonals, and a part of this rank, to moments.
    fn fit(moments: &Moments, frames: usize, rank: usize) -> Self {
        let width = moments.targets.len();
        let mut weights = Self { diagonal: vec![vec![0.0; width]; frames], low_rank: None };
        weights.diagonal = diagonals(moments, None);
        if rank == 0 {
            return weights;
        }
        let mut inputs = moments.inputs.clone();
        for at in 0..inputs.nrows() {
            inputs[(at, at)] += RIDGE * inputs[(at, at)] + 1e-6 * moments.frames;
        }
        let Some(factor) = Cholesky::new(inputs) else { return weights };
        for _ in 0..ROUNDS {
            let own = Self { low_rank: None, ..weights.clone() };
            // What the diagonals leave, each channel in units of its own deviation there, as bits see it.
            let deviations: Vec<f64> = moments.left(&weights).iter().map(|left| left.sqrt().max(1e-6)).collect();
            let mut cross = &moments.cross - own.times(&moments.inputs);
            for (channel, deviation) in deviations.iter().enumerate() {
                cross.column_mut(channel).scale_mut(1.0 / deviation);
            }
            let full = factor.solve(&cross); // [P · E, E]
            let explained = SymmetricEigen::new(full.transpose() * &cross);
            let mut order: Vec<usize> = (0..width).collect();
            order.sort_by(|a, b| explained.eigenvalues[*b].total_cmp(&explained.eigenvalues[*a]));
            let directions =
                DMatrix::from_fn(width, rank.min(width), |row, at| explained.eigenvectors[(row, order[at])]);
            let mut expand = directions.transpose(); // [R, E]
            for (channel, deviation) in deviations.iter().enumerate() {
                expand.column_mut(channel).scale_mut(*deviation);
            }
            let reduce = full * directions;
            weights.diagonal = diagonals(moments, Some(&((&moments.inputs * &reduce) * &expand)));
            weights.low_rank = Some((reduce, expand));
        }
        weights
    }
}

/// The diagonals, `[P, E]`, for what other weights leave, whose product with the inputs' moments is `explained`.
fn diagonals(moments: &Moments, explained: Option<&DMatrix<f64>>) -> Vec<Vec<f64>> {
    let width = moments.targets.len();
    let frames = moments.inputs.nrows() / width;
    let mut rows = vec![vec![0.0; width]; frames];
    for channel in 0..width {
        let at = |back: usize| back * width + channel;
        let mut own = DMatrix::from_fn(frames, frames, |a, b| moments.inputs[(at(a), at(b))]);
        for back in 0..frames {
            own[(back, back)] += RIDGE * own[(back, back)] + 1e-6 * moments.frames.max(1.0);
        }
        let wanted = nalgebra::DVector::from_fn(frames, |back, _| {
            moments.cross[(at(back), channel)] - explained.map_or(0.0, |explained| explained[(at(back), channel)])
        });
        if let Some(factor) = Cholesky::new(own) {
            let found = factor.solve(&wanted);
            rows.iter_mut().enumerate().for_each(|(back, row)| row[channel] = found[back]);
        }
    }
    rows
}

/// The channels as a predictor sees them.
struct Frames<'a> {
    /// E vectors of T values.
    channels: &'a [Vec<f32>],
    /// What side indices predict, in the same shape, if they are known.
    known: Option<&'a [Vec<f32>]>,
    /// `[E]`: deviations; at least a tiny number.
    deviations: Vec<f32>,
    /// `[T]`: frames of the same sequence before each one.
    before: Vec<usize>,
}

impl Frames<'_> {
    /// Inputs, `[n, P · E]`, for frames, in steps of this size, and targets, `[n, E]`, both in deviations.
    fn rows(&self, places: &[usize], frames: usize, step: f32) -> (Vec<f32>, Vec<f32>) {
        let width = self.channels.len();
        let mut inputs = vec![0.0; places.len() * frames * width];
        let mut targets = vec![0.0; places.len() * width];
        for (channel, values) in self.channels.iter().enumerate() {
            let deviation = self.deviations[channel];
            for (row, place) in places.iter().enumerate() {
                let known = self.known.map_or(0.0, |known| known[channel][*place]);
                targets[row * width + channel] = (values[*place] - known) / deviation;
                for back in 1..=frames.min(self.before[*place]) {
                    let y = (values[place - back] / step).round_ties_even() * step;
                    inputs[(row * frames + back - 1) * width + channel] = y / deviation;
                }
            }
        }
        (inputs, targets)
    }

    fn moments(&self, places: &[usize], frames: usize, step: f32) -> Result<Moments> {
        let width = self.channels.len();
        let mut sum = Moments {
            inputs: DMatrix::zeros(frames * width, frames * width),
            cross: DMatrix::zeros(frames * width, width),
            targets: vec![0.0; width],
            frames: 0.0,
        };
        for places in places.chunks(ROWS) {
            let (inputs, targets) = self.rows(places, frames, step);
            let squares = targets.chunks_exact(width).fold(vec![0.0; width], |mut sums, row| {
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*x));
                sums
            });
            let inputs = Tensor::from_vec(inputs, (places.len(), frames * width), &Device::Cpu)?;
            let targets = Tensor::from_vec(targets, (places.len(), width), &Device::Cpu)?;
            let transposed = inputs.t()?.contiguous()?;
            let read = |tensor: Tensor, rows: usize, columns: usize| -> Result<DMatrix<f64>> {
                let values = tensor.flatten_all()?.to_vec1::<f32>()?;
                Ok(DMatrix::from_row_iterator(rows, columns, values.into_iter().map(f64::from)))
            };
            let own = Moments {
                inputs: read(transposed.matmul(&inputs)?, frames * width, frames * width)?,
                cross: read(transposed.matmul(&targets)?, frames * width, width)?,
                targets: squares,
                frames: places.len() as f64,
            };
            sum.add(&own);
        }
        Ok(sum)
    }

    /// Frames that have a past, neither of which is far louder than usual.
    fn usual(&self) -> Vec<usize> {
        let mut loudness = vec![0.0_f32; self.before.len()];
        for (values, deviation) in self.channels.iter().zip(&self.deviations) {
            loudness.iter_mut().zip(values).for_each(|(sum, x)| *sum += (x / deviation).powi(2));
        }
        let mut sorted = loudness.clone();
        sorted.sort_by(f32::total_cmp);
        let most = LOUDEST * sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        let usual = |place: &usize| {
            let past = place - self.before[*place].min(2)..=*place;
            self.before[*place] > 0 && loudness[past].iter().all(|loudness| *loudness <= most)
        };
        (0..self.before.len()).filter(usual).collect()
    }

    /// By how much predictions of each quality and channel, `[Q, E]`, are to be multiplied: coarse steps leave less of the
    /// past.
    fn gains(&self, places: &[usize], back: usize, weights: &DMatrix<f64>, steps: &[f64]) -> Result<Vec<f64>> {
        let width = self.channels.len();
        let weights: Vec<f32> = weights.transpose().iter().map(|weight| *weight as f32).collect();
        let weights = Tensor::from_vec(weights, (back * width, width), &Device::Cpu)?;
        let mut gains = Vec::with_capacity(steps.len() * width);
        for step in steps {
            let (inputs, targets) = self.rows(places, back, *step as f32);
            let inputs = Tensor::from_vec(inputs, (places.len(), back * width), &Device::Cpu)?;
            let predicted = inputs.matmul(&weights)?.flatten_all()?.to_vec1::<f32>()?; // [n, E]
            let mut sums = vec![(0.0_f64, 0.0_f64); width];
            for (predicted, targets) in predicted.chunks_exact(width).zip(targets.chunks_exact(width)) {
                for ((sums, p), t) in sums.iter_mut().zip(predicted).zip(targets) {
                    *sums = (sums.0 + f64::from(p * t), sums.1 + f64::from(p * p));
                }
            }
            gains.extend(sums.iter().map(|(cross, own)| (cross / own.max(1e-12)).clamp(0.0, 1.5)));
        }
        Ok(gains)
    }
}

/// Fits a predictor to channels, E vectors of T values, whose sequences begin at `starts`, for steps of each quality, if it
/// pays. `known` is what side indices predict of the channels, in the same shape.
///
/// # Errors
/// [`crate::Error::Tensor`] if a computation fails.
pub fn fit(
    channels: &[Vec<f32>],
    known: Option<&[Vec<f32>]>,
    starts: &[usize],
    steps: &[f64],
    threads: usize,
) -> Result<Option<Predicting>> {
    let (width, total) = (channels.len(), channels.first().map_or(0, Vec::len));
    let deviations = in_threads(channels, threads, |channel| {
        let square: f64 = channel.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        Ok(((square / total.max(1) as f64).sqrt() as f32).max(1e-30))
    })?;
    let mut begins = starts.iter().copied().peekable();
    let mut before: Vec<usize> = Vec::with_capacity(total);
    for frame in 0..total {
        let first = begins.next_if(|start| *start == frame).is_some() || frame == 0;
        before.push(if first { 0 } else { before[frame - 1] + 1 });
    }
    let frames = Frames { channels, known, deviations, before };
    let places = frames.usual();
    // Places are in order, so the last tenth is of other sequences, or of the end of the only one.
    let cut = places.len() - places.len() / 10;
    let (seen, unseen) = places.split_at(cut);
    if unseen.len() < 2 || seen.len() < 2 * width {
        return Ok(None);
    }
    let middle = steps[steps.len() / 2];
    let most = 2;
    let (seen, unseen) = (
        frames.moments(&thinned(seen, FITTED), most, middle as f32)?,
        frames.moments(&thinned(unseen, FITTED), most, middle as f32)?,
    );
    let mut shapes = vec![(1, 0), (2, 0)];
    if width <= LOW_RANK_WIDTH {
        shapes.push((2, RANK.min(width / 2)));
    }
    let noise: Vec<f64> =
        frames.deviations.iter().map(|deviation| (middle / f64::from(*deviation)).powi(2) / 12.0).collect();
    let mut best: Option<((usize, usize), f64)> = None;
    for (back, rank) in shapes {
        let weights = Weights::fit(&seen.of_frames(back), back, rank);
        let left = unseen.of_frames(back).left(&weights);
        let usual = unseen.targets.iter().map(|square| square / unseen.frames);
        let saved: f64 = (usual.zip(left).zip(&noise))
            .map(|((usual, left), noise)| 0.5 * ((usual + noise) / (left + noise)).log2())
            .sum();
        let saved = saved / width as f64;
        if best.is_none_or(|(_, least)| saved > least + LEAST_GAINED) {
            best = Some(((back, rank), saved));
        }
    }
    let Some(((back, rank), saved)) = best.filter(|(_, saved)| *saved > LEAST_SAVED) else { return Ok(None) };
    let mut all = seen;
    all.add(&unseen);
    let weights = Weights::fit(&all.of_frames(back), back, rank);
    let gains = frames.gains(&thinned(&places, GAINED), back, &weights.matrix(), steps)?;
    let parts = quantised(&weights, &all, &frames.deviations, steps, &gains);
    Ok(Some(Predicting { parts, saved }))
}

/// At most this many of some places, at even distances.
fn thinned(places: &[usize], most: usize) -> Vec<usize> {
    places.iter().copied().step_by(places.len().div_ceil(most).max(1)).collect()
}

/// Weights in whole numbers.
fn quantised(weights: &Weights, moments: &Moments, deviations: &[f32], steps: &[f64], gains: &[f64]) -> Prediction {
    let (width, back) = (deviations.len(), weights.diagonal.len());
    // A channel's common unit: a thousandth of its deviation, or more where steps would be too many units.
    let largest = steps.iter().fold(0.0_f64, |most, step| most.max(*step));
    let units: Vec<f64> =
        deviations.iter().map(|deviation| (f64::from(*deviation) / COMMON).max(largest / 8_000.0)).collect();
    // A deviation in the common unit.
    let scale = |channel: usize| f64::from(deviations[channel]) / units[channel];
    let (mut reduce, mut reduced) = (None, Vec::new());
    if let Some((matrix, _)) = &weights.low_rank {
        let rank = matrix.ncols();
        let (mut weight, mut multiplier, mut shift) = (Vec::new(), Vec::new(), Vec::new());
        let past = moments.of_frames(back).inputs;
        for row in 0..rank {
            let column = matrix.column(row);
            let of_units: Vec<f64> = column.iter().enumerate().map(|(at, w)| w / scale(at % width)).collect();
            let most = of_units.iter().fold(0.0_f64, |most, w| most.max(w.abs()));
            let sum: f64 = of_units.iter().map(|w| w.abs()).sum();
            let unit = (most / 127.0).max(sum / WEIGHTS_MAX).max(1e-30);
            weight.extend(of_units.iter().map(|w| (w / unit).round() as i8));
            // Its deviation becomes a fixed number.
            let variance = column.dot(&(&past * column)) / moments.frames.max(1.0);
            let deviation = variance.max(1e-18).sqrt();
            let (factor, by) = scaling(unit * REDUCED / deviation);
            multiplier.push(factor);
            shift.push(by);
            reduced.push(deviation / REDUCED);
        }
        let (inputs, outputs) = (back * width, rank);
        reduce = Some(Linear { inputs, outputs, weight, bias: vec![0; rank], multiplier, shift });
    }
    let (mut diagonal, mut expand, mut row_units) = (vec![0_i16; back * width], Vec::new(), Vec::new());
    for channel in 0..width {
        // In deviations for one common unit, or for one unit of a reduced value.
        let own: Vec<f64> = weights.diagonal.iter().map(|row| row[channel] / scale(channel)).collect();
        let others: Vec<f64> = match &weights.low_rank {
            Some((_, matrix)) => matrix.column(channel).iter().zip(&reduced).map(|(w, unit)| w * unit).collect(),
            None => Vec::new(),
        };
        let most = |values: &[f64]| values.iter().fold(0.0_f64, |most, w| most.max(w.abs()));
        let sum: f64 = own.iter().chain(&others).map(|w| w.abs()).sum();
        let unit = (most(&others) / 127.0).max(most(&own) / 16_384.0).max(sum / WEIGHTS_MAX).max(1e-30);
        own.iter().enumerate().for_each(|(back, w)| diagonal[back * width + channel] = (w / unit).round() as i16);
        expand.extend(others.iter().map(|w| (w / unit).round() as i8));
        row_units.push(unit);
    }
    let rows = || steps.iter().flat_map(|step| (0..width).map(move |channel| (*step, channel)));
    let (input_multiplier, input_shift) = rows().map(|(step, channel)| scaling(step / units[channel])).unzip();
    let (output_multiplier, output_shift) = rows()
        .zip(gains)
        .map(|((step, channel), gain)| {
            scaling(gain * row_units[channel] * f64::from(deviations[channel]) * 64.0 / step)
        })
        .unzip();
    let low_rank = reduce.map(|reduce| LowRank { reduce, expand });
    Prediction { input_multiplier, input_shift, diagonal, low_rank, output_multiplier, output_shift }
}

/// What a predictor of a quality, given as a model's, predicts of each channel at some frames: E vectors, in the channels'
/// units. Frames before count as an encoder rounds them.
pub(super) fn predictions(
    channels: &[Vec<f32>],
    starts: &[usize],
    places: &[usize],
    predictor: &midspan::model::prediction::Predictor<'_>,
    step: f64,
    threads: usize,
) -> Result<Vec<Vec<f32>>> {
    let width = channels.len();
    let rows = in_threads(places, threads, |place| {
        let first = starts.partition_point(|start| start <= place).checked_sub(1).map_or(0, |at| starts[at]);
        let mut past = predictor.past(&[]);
        for frame in first.max(place.saturating_sub(predictor.frames()))..*place {
            let y: Vec<i16> =
                channels.iter().map(|channel| integer((channel[frame] / step as f32).round_ties_even())).collect();
            predictor.push(&mut past, &y);
        }
        let mut means = vec![0; width];
        predictor.add(&mut past, &mut means);
        Ok(means)
    })?;
    let unit = step as f32 / 64.0;
    Ok((0..width).map(|channel| rows.iter().map(|row| row[channel] as f32 * unit).collect()).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::calibrate::Calibration;
    use crate::calibrate::capture::Capture;
    use crate::calibrate::expected::expected;
    use crate::rng::Rng;
    use midspan::codec::Codec;
    use midspan::model::CodecModel;

    /// Frames of six channels in sequences of 100. Each channel keeps a part of its value, and the last follows the first
    /// one's of two frames before. First frames are five times as loud, and say nothing of the next ones.
    fn smooth(frames: usize, keeps: f32, seed: u64) -> Capture {
        let mut rng = Rng::new(seed);
        let units = [1.0, 10.0, 0.1, 1.0, 3.0, 2.0];
        let mut hidden = Vec::with_capacity(6 * frames);
        let (mut state, mut before) = ([0.0_f32; 6], [0.0_f32; 2]);
        for frame in 0..frames {
            let first = frame % 100 == 0;
            for (channel, (value, unit)) in state.iter_mut().zip(units).enumerate() {
                let kept = if first { 0.0 } else { keeps };
                *value = kept * *value + (1.0 - kept * kept).sqrt() * rng.normal();
                let followed = if channel == 5 { kept * before[0] } else { 0.0 };
                let loud = if first { 5.0 * rng.normal() } else { *value + followed };
                hidden.push(unit * loud);
            }
            before = [before[1], state[0]];
        }
        Capture { starts: (0..frames).step_by(100).collect(), ..Capture::new(hidden, 6).unwrap() }
    }

    #[test]
    fn what_the_frames_before_tell_is_not_sent() {
        let (train, held_out) = (smooth(20_000, 0.95, 1), smooth(2_000, 0.95, 2));
        let calibration = Calibration::default().distortions(vec![0.1, 0.01, 0.001]).rate_weight(0.0).threads(2);
        let at = |calibration: Calibration| {
            let model = calibration.run(&train, &mut |_| ()).unwrap();
            // A model file holds it.
            let model = CodecModel::from_bytes(&model.to_bytes(), 1 << 24).unwrap();
            let codec = Arc::new(Codec::new(model).unwrap());
            (expected(&codec, &held_out, 2).unwrap(), codec)
        };
        let (with, codec) = at(calibration.clone());
        let (without, plain) = at(calibration.prediction(false));
        assert!(codec.model().prediction().is_some() && plain.model().prediction().is_none());
        for (with, without) in with.iter().zip(&without).skip(1) {
            // log2 of 1 / √(1 − 0.95²): at most 1.68 bits for each channel, and less where steps are coarse.
            assert!(with.bits_in_batches < without.bits_in_batches - 4.5, "{with:?} {without:?}");
            assert!(
                (with.distortion.unwrap() / without.distortion.unwrap() - 1.0).abs() < 0.01,
                "{with:?} {without:?}"
            );
        }
    }

    #[test]
    fn frames_that_tell_nothing_are_not_predicted_from() {
        let model = Calibration::default().threads(1).run(&smooth(3_000, 0.0, 3), &mut |_| ()).unwrap();
        assert!(model.prediction().is_none());
        // Each frame a sequence of its own: there is nothing before it.
        let alone = Capture { starts: (0..3_000).collect(), ..smooth(3_000, 0.95, 4) };
        assert!(Calibration::default().threads(1).run(&alone, &mut |_| ()).unwrap().prediction().is_none());
    }

    /// Whole numbers predict what the weights they are made of do.
    #[test]
    fn whole_numbers_predict_as_the_weights_do() {
        let capture = smooth(4_000, 0.9, 5);
        let channels: Vec<Vec<f32>> =
            (0..6).map(|channel| capture.hidden.iter().skip(channel).step_by(6).copied().collect()).collect();
        let steps = [0.5, 0.05];
        let fitted = fit(&channels, None, &capture.starts, &steps, 1).unwrap().unwrap();
        assert!(fitted.saved > 0.5, "{}", fitted.saved);
        let places: Vec<usize> = (0..4_000).filter(|frame| frame % 100 > 10).collect();
        let own = fitted.parts.predictor(6, 1);
        let predicted = predictions(&channels, &capture.starts, &places, &own, steps[1], 1).unwrap();
        for (channel, predicted) in channels.iter().zip(&predicted) {
            let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x * x)).sum::<f64>();
            let all = square(&mut places.iter().map(|place| channel[*place]));
            let left = square(&mut places.iter().zip(predicted).map(|(place, p)| channel[*place] - p));
            // A channel keeps 0.81 of its variance.
            assert!(left < 0.25 * all, "{left} of {all}");
        }
    }
}
