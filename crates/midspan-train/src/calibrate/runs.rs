//! Calibrations with sparse maps: what is fitted to whole runs over frames.

use nalgebra::DMatrix;

use super::capture::Capture;
use super::causal::Causal;
use super::levels::{Left, Levels};
use super::model::Fitted;
use super::sparse::{self, SparseMaps};
use super::tables::{Histogram, StaticTables};
use super::weighed::{self, Weighed};
use super::{Calibration, LEVELLED, ROUNDS, Stage, at_places, centred, maps, places, too_fine};
use crate::Result;
use crate::codec::Y_RANGE;
use crate::framing::with_measured_lengths;
use crate::parallel::in_threads;
use midspan::model::CodecModel;

/// Frames that the search for steps with sparse maps looks at.
const SAMPLED_IN_RUNS: usize = 1_024;
/// Frames that tables for sparse maps are fitted to.
const FITTED_IN_RUNS: usize = 1 << 14;

impl Calibration {
    /// Makes a codec with sparse maps. Integers then depend on those of other channels, so that steps and tables are
    /// fitted to whole runs over frames.
    pub(super) fn run_sparse(
        &self,
        capture: &Capture,
        mean: &[f32],
        covariance: DMatrix<f64>,
        tell: &mut dyn FnMut(Stage),
    ) -> Result<CodecModel> {
        let weight = capture.sensitivity.as_ref();
        // Between the coarsest and the finest quality.
        let share = (self.distortions[0] * self.distortions[self.distortions.len() - 1]).sqrt();
        let maps = sparse::sparse_maps(weight, &covariance, capture.frames(), share, self.threads)?;
        let weighed = Weighed::new(weight)?;
        let variance = weighed::variance(weight, &covariance);
        drop(covariance);
        tell(Stage::Mapping);
        // Side indices alone ask for them.
        let channels = match self.side && capture.ids.is_some() {
            true => left_by_channel(&capture.hidden, mean, &maps, self.threads)?,
            false => Vec::new(),
        };
        tell(Stage::Known);
        let known = self.known(capture, &channels)?;
        tell(Stage::Steps);
        let steps = self.sparse_steps(capture, mean, &maps, (&weighed, variance))?;
        tell(Stage::Tables);
        let places = places(capture.frames(), if known.is_some() { LEVELLED } else { FITTED_IN_RUNS });
        let centred = centred_at(capture, mean, &places);
        let causal = Causal { centred: &centred, maps: &maps };
        let fitted = match &known {
            Some(known) => {
                let left = Left {
                    channels: &at_places(&channels, &places),
                    predicted: &at_places(&known.predicted, &places),
                    louder: &places.iter().map(|place| known.louder[*place]).collect::<Vec<i32>>(),
                    causal: Some(causal),
                };
                Fitted::Told(Levels::fit(left, &steps, self.rate_weight, self.threads)?)
            }
            None => Fitted::Static(self.sparse_tables(causal, &steps)?),
        };
        let units: Vec<f64> = maps.units.clone();
        let model = self.model(mean, (maps.parts(), &units), &steps, fitted, known, None)?;
        with_measured_lengths(model, capture.sequences_with_ids(), self.threads)
    }

    /// The step of each quality with sparse maps.
    fn sparse_steps(
        &self,
        capture: &Capture,
        mean: &[f32],
        maps: &SparseMaps,
        (weighed, variance): (&Weighed, f64),
    ) -> Result<Vec<f64>> {
        let sampled = centred_at(capture, mean, &places(capture.frames(), SAMPLED_IN_RUNS));
        let causal = Causal { centred: &sampled, maps };
        let frames = causal.frames() as f64;
        let mut steps = Vec::with_capacity(self.distortions.len());
        for share in &self.distortions {
            // By how much more is lost than the errors of rounding say: they are pushed on to some channels alone, and at
            // low rates they are no noise.
            let (mut factor, mut step) = (1.0_f64, 1.0_f64);
            for _ in 0..3 {
                let wanted = share * variance / factor;
                let lost = |log2: f64| -> Result<f64> {
                    let step = log2.exp2();
                    Ok(causal.rounding(step, self.threads)?.squares * step * step / frames)
                };
                // log2 of a step that loses too little, and of one that loses too much: at high rates every channel loses
                // step² / 12.
                let guess = (12.0 * wanted / maps.units.len() as f64).sqrt().log2();
                let (mut low, mut high) = (guess - 0.05, guess + 0.05);
                while lost(low)? >= wanted && guess - low < 40.0 {
                    low -= 1.0;
                }
                while lost(high)? < wanted && high - guess < 40.0 {
                    high += 1.0;
                }
                while high - low > 2e-3 {
                    let middle = 0.5 * (low + high);
                    if lost(middle)? < wanted { low = middle } else { high = middle }
                }
                let middle = 0.5 * (low + high);
                step = middle.exp2();
                let real = weighed.squares(&causal.hidden_errors(step, self.threads)?)? / frames;
                factor = real / lost(middle)?;
                if !factor.is_finite() || (real / (share * variance) - 1.0).abs() < 0.01 {
                    break;
                }
            }
            steps.push(step);
        }
        // Finer steps would clip. Every frame counts, because the first ones of sequences are far out.
        if let Some((finest, share)) = steps.last().zip(self.distortions.last()) {
            let most = f32::from(Y_RANGE.1);
            for rows in capture.hidden.chunks(maps::ROWS * capture.width) {
                let centred = centred(rows, mean);
                let causal = Causal { centred: &centred, maps };
                if causal.rounding(*finest, self.threads)?.largest > most {
                    return Err(too_fine(*share, None));
                }
            }
        }
        Ok(steps)
    }

    /// Tables for Y of every quality and channel with sparse maps, as an encoder with the rate weight chooses it.
    fn sparse_tables(&self, causal: Causal<'_>, steps: &[f64]) -> Result<StaticTables> {
        let width = causal.maps.units.len();
        let histograms = |decide: &(dyn Fn(usize, usize, f32) -> f32 + Sync)| -> Result<Vec<Histogram>> {
            let mut all = Vec::with_capacity(width * steps.len());
            for (quality, step) in steps.iter().enumerate() {
                let run = causal.run(*step, self.threads, &|channel, _, x| decide(quality, channel, x))?;
                all.extend(in_threads(&run.y, self.threads, |y| Ok(Histogram::new(y.iter().copied())))?);
            }
            Ok(all)
        };
        let mut tables = StaticTables::fit(&histograms(&|_, _, x| x.round_ties_even())?, self.threads)?;
        if self.rate_weight == 0.0 {
            return Ok(tables);
        }
        for _ in 0..ROUNDS {
            let costs: Vec<_> = (0..steps.len() * width).map(|place| tables.costs(place)).collect();
            let decide = |quality: usize, channel: usize, x: f32| {
                f32::from(costs[quality * width + channel].choose(x, self.rate_weight))
            };
            tables = StaticTables::fit(&histograms(&decide)?, self.threads)?;
        }
        Ok(tables)
    }
}

/// Some frames of a capture minus their mean, `[T, E]`.
fn centred_at(capture: &Capture, mean: &[f32], places: &[usize]) -> Vec<f32> {
    let row = |place: &usize| &capture.hidden[place * mean.len()..][..mean.len()];
    places.iter().flat_map(|place| row(place).iter().zip(mean).map(|(x, mean)| x - mean)).collect()
}

/// What prediction leaves of all frames that nothing rounded: E vectors of T values.
fn left_by_channel(hidden: &[f32], mean: &[f32], maps: &SparseMaps, threads: usize) -> Result<Vec<Vec<f32>>> {
    let width = mean.len();
    let mut channels = vec![Vec::with_capacity(hidden.len() / width); width];
    // A few frames at a time, whose values are then spread over the channels.
    for rows in hidden.chunks(maps::ROWS * width) {
        let pieces: Vec<&[f32]> = rows.chunks(64 * width).collect();
        let left = in_threads(&pieces, threads, |rows| Ok(maps.left(&centred(rows, mean))))?;
        for (channel, own) in channels.iter_mut().enumerate() {
            for values in &left {
                own.extend(values.iter().skip(channel).step_by(width));
            }
        }
    }
    Ok(channels)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::MapKind;
    use super::super::expected::expected;
    use super::super::tests::{capture, told};
    use super::*;
    use crate::rng::Rng;
    use midspan::codec::Codec;

    /// A sparse map of few channels has every predictor: it takes the bits of the eigenbasis.
    #[test]
    fn sparse_maps_do_what_full_ones_do_where_they_may() {
        let mut train = capture(4_000, 1);
        let turned =
            |a: f64, b: f64| DMatrix::from_fn(4, 4, |i, j| if i == j { a } else { b / (1.0 + i.abs_diff(j) as f64) });
        for sensitivity in [None, Some(turned(2.0, 1.5))] {
            train.sensitivity = sensitivity;
            let held_out = Capture { sensitivity: train.sensitivity.clone(), ..capture(1_000, 2) };
            let at = |kind: MapKind| {
                let calibration = Calibration::default().distortions(vec![0.01, 0.001]).map(Some(kind)).threads(2);
                let model = calibration.run(&train, &mut |_| ()).unwrap();
                assert_eq!(model.synthesis().unwrap().sparse().is_some(), kind == MapKind::Sparse);
                let model = CodecModel::from_bytes(&model.to_bytes(), 1 << 24).unwrap();
                expected(&Arc::new(Codec::new(model).unwrap()), &held_out, 2).unwrap()
            };
            for (full, sparse) in at(MapKind::Full).iter().zip(at(MapKind::Sparse)) {
                assert!(
                    (sparse.distortion.unwrap() / full.distortion.unwrap() - 1.0).abs() < 0.15,
                    "{full:?} {sparse:?}"
                );
                assert!((sparse.bits_in_batches / full.bits_in_batches - 1.0).abs() < 0.05, "{full:?} {sparse:?}");
                assert_eq!(sparse.clipped, 0);
            }
        }
    }

    #[test]
    fn tokens_tell_as_much_with_sparse_maps() {
        let (train, held_out) = (told(20_000, 1), told(2_000, 2));
        let at = |kind: MapKind| {
            let calibration = Calibration::default().distortions(vec![0.001]).map(Some(kind)).threads(2);
            let codec = Arc::new(Codec::new(calibration.run(&train, &mut |_| ()).unwrap()).unwrap());
            assert!(codec.model().side().is_some());
            expected(&codec, &held_out, 2).unwrap()[0]
        };
        let (full, sparse) = (at(MapKind::Full), at(MapKind::Sparse));
        assert!((sparse.distortion.unwrap() / full.distortion.unwrap() - 1.0).abs() < 0.15, "{full:?} {sparse:?}");
        assert!(sparse.bits_in_batches < 1.05 * full.bits_in_batches, "{full:?} {sparse:?}");
    }

    /// More channels than full maps may have, and than there are frames; some are constant, some 200 times as large.
    #[test]
    fn wide_hidden_states_get_sparse_maps() {
        let (width, mut rng) = (1_100, Rng::new(4));
        let mut frames = |count: usize| {
            let frame = |_| {
                let common: Vec<f32> = (0..10).map(|_| rng.normal()).collect();
                let value = |channel: usize| match channel % 100 {
                    7 => 3.0,
                    size => (common[channel % 10] + 0.3 * rng.normal()) * if size == 9 { 200.0 } else { 1.0 },
                };
                (0..width).map(value).collect::<Vec<f32>>()
            };
            Capture::new((0..count).flat_map(frame).collect(), width).unwrap()
        };
        let (train, held_out) = (frames(300), frames(40));
        let model = Calibration::default().distortions(vec![0.03, 0.0003]).rate_weight(0.0).threads(2);
        let model = model.run(&train, &mut |_| ()).unwrap();
        let map = model.synthesis().unwrap().sparse().unwrap();
        // So few frames allow a channel 300 / 16 predictors.
        assert!(!map.index.is_empty() && map.count.iter().all(|count| *count <= 18));
        for found in expected(&Arc::new(Codec::new(model).unwrap()), &held_out, 2).unwrap() {
            let asked = [0.03, 0.0003][found.quality];
            assert!((found.distortion.unwrap() / asked - 1.0).abs() < 0.3 && found.clipped == 0, "{found:?}");
        }
    }
}
