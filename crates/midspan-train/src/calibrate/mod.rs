//! Makes a codec for a host that does not change from captured hidden states, without learning: closed forms alone.
//!
//! Linear maps on each side of the quantiser make channels uncorrelated and put noise where the host's second half
//! notices it least ([`maps`]); above a width of 1,024 they are sparse and causal ([`sparse`]). All channels of a quality
//! have one step, which shares the bits as reverse water-filling does: a channel that varies less than the step costs
//! nearly nothing. Tables are fitted to the integers that an encoder chooses ([`tables`]). W carries nothing: h and g_y
//! have no blocks. g_y's outputs are constants, and what side indices tell of a frame if the capture has any ([`known`]).
//! To its means the codec adds what the frames before tell, where they tell enough ([`prediction`]).

pub mod capture;
pub mod causal;
pub mod expected;
pub mod known;
pub mod levels;
pub mod maps;
mod model;
pub mod prediction;
mod runs;
pub mod sparse;
pub mod tables;
pub(crate) mod weighed;

use std::borrow::Cow;
use std::f64::consts::LN_2;

use candle_core::{Device, Tensor};
use nalgebra::DMatrix;

use crate::codec::Y_RANGE;
use crate::framing::with_measured_lengths;
use crate::parallel::in_threads;
use crate::rng::Rng;
use crate::{Error, Result};
use capture::Capture;
use known::Known;
use levels::{Left, Levels};
use maps::Maps;
use midspan::model::side::VOCABULARY_MAX;
use midspan::model::{CodecModel, Map};
use model::Fitted;
use prediction::Predicting;
use tables::{Histogram, StaticTables};

/// The widest hidden state whose maps may be full matrices.
pub const FULL_MAX: usize = 1_024;
/// The widest hidden state: g_y's inputs are W, a sum for each channel and a loudness, at most 8,192 (spec 4.2).
pub const WIDTH_MAX: usize = 8_190;
/// Frames that the search for steps looks at.
const SAMPLED: usize = 4_096;
/// Frames that tables are fitted to; more change them little.
const FITTED: usize = 1 << 16;
/// Frames that levels are fitted to.
const LEVELLED: usize = 1 << 13;
/// Bits that side indices have to save for each channel.
const LEAST_SAVED: f64 = 0.01;
/// The largest hidden state may not be smaller: what divides by it would be infinite.
const SMALLEST: f32 = 1e-36;
/// How often Y is chosen anew by the tables that were fitted to the last choice.
const ROUNDS: usize = 2;
/// Squared steps of distortion that a saved bit is worth. At high rates the distortion is step² / 12, and a bit less
/// means twice the step: 2 ln 2 / 12 squared steps a bit.
pub const RATE_WEIGHT: f64 = 2.0 * LN_2 / 12.0;

/// The linear maps on each side of the quantiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[non_exhaustive]
pub enum MapKind {
    /// Matrices of E² values; up to a width of 1,024.
    Full,
    /// Sparse causal maps, of at most 200 multiplications a channel (spec 4.10).
    Sparse,
}

impl MapKind {
    /// What hidden states of this width get if nobody chooses: sparse maps above [`FULL_MAX`].
    pub(crate) fn of_width(width: usize) -> Self {
        if width > FULL_MAX { MapKind::Sparse } else { MapKind::Full }
    }

    /// Refuses hidden states that are too wide for such maps.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub(crate) fn check(self, width: usize) -> Result<()> {
        let (most, with) = match self {
            MapKind::Full => (FULL_MAX, " with full maps"),
            MapKind::Sparse => (WIDTH_MAX, ""),
        };
        if width > most {
            return Err(Error::setting("the hidden states' width", width, format!("at most {most}{with}")));
        }
        Ok(())
    }
}

/// What a calibration makes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Calibration {
    /// Of each quality, the share of the hidden states' variance that the nearest integers lose, as the second half
    /// weighs it. Encoders that choose Y by its rate lose a little more. Descending: quality 0 is the coarsest.
    pub distortions: Vec<f64>,
    /// Squared steps of distortion that a saved bit is worth when Y is chosen (spec 6.8).
    pub rate_weight: f64,
    /// Whether the codec takes the capture's token ids as side indices, if it has any. Encoder and decoder then need
    /// them for every frame.
    pub side: bool,
    /// Whether the codec predicts from the frames before, if that saves at least 0.2 bits of each channel. It then cannot
    /// be used in layered mode. Codecs with sparse maps never predict.
    pub prediction: bool,
    /// How many side indices there are, 1 to 2^20 − 1; by default one more than the largest of the capture that is below
    /// that. Larger ones say nothing.
    pub vocabulary: Option<usize>,
    /// The kind of the maps; by default full ones up to a width of [`FULL_MAX`], and sparse ones above.
    pub map: Option<MapKind>,
    /// The model's version number, information alone.
    pub version: u32,
    /// Threads.
    pub threads: usize,
}

impl Default for Calibration {
    /// Six qualities that lose from a tenth to 0.03 % of the variance, and [`RATE_WEIGHT`].
    fn default() -> Self {
        Self {
            distortions: vec![0.1, 0.03, 0.01, 0.003, 0.001, 0.0003],
            rate_weight: RATE_WEIGHT,
            side: true,
            prediction: true,
            vocabulary: None,
            map: None,
            version: 1,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }
}

/// What a calibration does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Mean and covariance.
    Moments,
    /// The maps: the eigenbasis, or sparse ones.
    Maps,
    /// The frames through the first map.
    Mapping,
    /// What side indices tell.
    Known,
    /// The steps of the qualities.
    Steps,
    /// What the frames before tell.
    Prediction,
    /// The tables.
    Tables,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 7] =
        [Stage::Moments, Stage::Maps, Stage::Mapping, Stage::Known, Stage::Steps, Stage::Prediction, Stage::Tables];

    /// What it does, for people.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Moments => "mean and covariance",
            Stage::Maps => "maps",
            Stage::Mapping => "frames through the first map",
            Stage::Known => "side indices",
            Stage::Steps => "steps",
            Stage::Prediction => "prediction",
            Stage::Tables => "tables",
        }
    }
}

impl Calibration {
    midspan::setters! {
        distortions: Vec<f64>,
        rate_weight: f64,
        side: bool,
        prediction: bool,
        vocabulary: Option<usize>,
        map: Option<MapKind>,
        version: u32,
        threads: usize,
    }

    /// Refuses settings of which no codec can be made.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first that is wrong.
    pub fn check(&self) -> Result<()> {
        if self.distortions.is_empty() || self.distortions.len() > 256 {
            return Err(Error::setting("the number of qualities", self.distortions.len(), "1 to 256"));
        }
        let falls = self.distortions.windows(2).all(|pair| pair[0] > pair[1]);
        if !falls || !self.distortions.iter().all(|share| *share > 0.0 && *share < 1.0) {
            return Err(Error::setting(
                "the distortions",
                format_args!("{:?}", self.distortions),
                "descending, above 0 and below 1",
            ));
        }
        if let Some(vocabulary) = self.vocabulary.filter(|vocabulary| !(1..=VOCABULARY_MAX).contains(vocabulary)) {
            return Err(Error::setting("the vocabulary", vocabulary, format!("1 to {VOCABULARY_MAX}")));
        }
        if !(self.rate_weight >= 0.0 && (self.rate_weight as f32).is_finite()) {
            return Err(Error::setting("the rate weight", self.rate_weight, "0 or more"));
        }
        Ok(())
    }

    /// Makes a codec from a capture. `tell` hears of each stage before it begins.
    ///
    /// # Errors
    /// Those of [`Calibration::check`]; [`Error::Setting`] for a width above [`WIDTH_MAX`], or above [`FULL_MAX`] with full
    /// maps, or fewer than two frames; [`Error::NoMap`] if hidden states do not vary; [`Error::Model`] if no model can hold
    /// the result.
    pub fn run(&self, capture: &Capture, tell: &mut dyn FnMut(Stage)) -> Result<CodecModel> {
        self.check()?;
        let width = capture.width;
        let kind = self.map.unwrap_or_else(|| MapKind::of_width(width));
        kind.check(width)?;
        if capture.frames() < 2 {
            return Err(Error::setting("the number of captured frames", capture.frames(), "at least 2"));
        }
        let shape = |matrix: &DMatrix<f64>| (matrix.nrows(), matrix.ncols());
        if let Some(found) = capture.sensitivity.as_ref().map(shape).filter(|found| *found != (width, width)) {
            return Err(Error::setting(
                "the sensitivity's shape",
                format_args!("{found:?}"),
                format!("({width}, {width})"),
            ));
        }
        let largest = capture.hidden.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        if largest > 0.0 && largest < SMALLEST {
            let found = format_args!("{largest:e}");
            return Err(Error::setting("the largest hidden state", found, format!("at least {SMALLEST:e}")));
        }
        tell(Stage::Moments);
        let (mean, covariance) = maps::moments(&capture.hidden, width)?;
        tell(Stage::Maps);
        if kind == MapKind::Sparse {
            return self.run_sparse(capture, &mean, covariance, tell);
        }
        let maps = match &capture.sensitivity {
            Some(sensitivity) => maps::maps(sensitivity, &covariance)?,
            None => maps::maps(&DMatrix::identity(width, width), &covariance)?,
        };
        tell(Stage::Mapping);
        let channels = mapped(&capture.hidden, &mean, &maps)?;
        tell(Stage::Known);
        let known = self.known(capture, &channels)?;
        tell(Stage::Steps);
        let steps = self.steps(&channels)?;
        tell(Stage::Prediction);
        let predicted = known.as_ref().map(|known| &known.predicted[..]);
        let predicting = match self.prediction {
            true => prediction::fit(&channels, predicted, &capture.starts, &steps, self.threads)?,
            false => None,
        };
        tell(Stage::Tables);
        let fitted = match (&known, &predicting) {
            (None, None) => Fitted::Static(self.tables(&channels, &steps)?),
            _ => {
                let told = Told { starts: &capture.starts, known: known.as_ref(), predicting: predicting.as_ref() };
                Fitted::Told(self.levels(&channels, told, &steps)?)
            }
        };
        let Maps { analysis, synthesis, .. } = &maps;
        let maps = (Map::Full(maps::rows(synthesis)), Map::Full(maps::rows(analysis)));
        let model = self.model(&mean, (maps, &vec![1.0; width]), &steps, fitted, known, predicting)?;
        with_measured_lengths(model, capture.sequences_with_ids(), self.threads)
    }

    /// What side indices tell of channels, if the capture has any and the codec is to take them.
    fn known(&self, capture: &Capture, channels: &[Vec<f32>]) -> Result<Option<Known>> {
        let Some(ids) = capture.ids.as_ref().filter(|_| self.side) else { return Ok(None) };
        let vocabulary = self.vocabulary.unwrap_or_else(|| capture.vocabulary());
        let known = Known::fit(channels, ids, &capture.starts, vocabulary, self.threads)?;
        // What tells next to nothing is not worth that both ends have to give it.
        Ok(Some(known).filter(|known| known.saved > LEAST_SAVED))
    }

    /// The step of each quality. Its distortion falls with it.
    fn steps(&self, channels: &[Vec<f32>]) -> Result<Vec<f64>> {
        let sampled = sampled(channels, SAMPLED);
        let sum = |each: &(dyn Fn(f32) -> f64 + Sync)| -> Result<f64> {
            let sums = in_threads(&sampled, self.threads, |channel| Ok(channel.iter().map(|x| each(*x)).sum::<f64>()))?;
            Ok(sums.iter().sum())
        };
        let variance = sum(&|x| f64::from(x) * f64::from(x))?;
        // Finer steps would clip.
        let largest = channels.iter().flatten().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let least = f64::from(largest) / f64::from(Y_RANGE.1);
        let step = |share: &f64| -> Result<f64> {
            // log2 of a step that loses too little, and of one that loses too much.
            let (mut low, mut high) = (-40.0_f64, 40.0_f64);
            while high - low > 1e-3 {
                let middle = 0.5 * (low + high);
                let step = middle.exp2() as f32;
                let lost = sum(&|x| {
                    let error = x - step * (x / step).round_ties_even();
                    f64::from(error) * f64::from(error)
                })?;
                if lost < share * variance { low = middle } else { high = middle }
            }
            let step = (0.5 * (low + high)).exp2();
            if step < least {
                let lost = sum(&|x| {
                    let error = f64::from(x) - least * (f64::from(x) / least).round_ties_even();
                    error * error
                })?;
                return Err(too_fine(*share, Some(lost / variance)));
            }
            Ok(step)
        };
        self.distortions.iter().map(step).collect()
    }

    /// Tables for Y of every quality and channel, as an encoder with the rate weight chooses it.
    fn tables(&self, channels: &[Vec<f32>], steps: &[f64]) -> Result<StaticTables> {
        let channels = sampled(channels, FITTED);
        let pairs: Vec<(f32, &[f32])> =
            steps.iter().flat_map(|step| channels.iter().map(|channel| (*step as f32, &channel[..]))).collect();
        let nearest = in_threads(&pairs, self.threads, |(step, channel)| {
            Ok(Histogram::new(channel.iter().map(|x| integer((x / step).round_ties_even()))))
        })?;
        let mut tables = StaticTables::fit(&nearest, self.threads)?;
        if self.rate_weight == 0.0 {
            return Ok(tables);
        }
        for _ in 0..ROUNDS {
            let places: Vec<usize> = (0..pairs.len()).collect();
            let chosen = in_threads(&places, self.threads, |place| {
                let (step, channel) = pairs[*place];
                let costs = tables.costs(*place);
                Ok(Histogram::new(channel.iter().map(|x| costs.choose(x / step, self.rate_weight))))
            })?;
            tables = StaticTables::fit(&chosen, self.threads)?;
        }
        Ok(tables)
    }

    /// Levels and their tables for what side indices and the frames before leave.
    fn levels(&self, channels: &[Vec<f32>], told: Told<'_>, steps: &[f64]) -> Result<Levels> {
        let Told { starts, known, predicting } = told;
        let places = places(channels[0].len(), LEVELLED);
        let at = at_places(channels, &places);
        let mut predicted = match known {
            Some(known) => at_places(&known.predicted, &places),
            None => vec![vec![0.0; places.len()]; channels.len()],
        };
        if let Some(Predicting { parts, .. }) = predicting {
            let by_side = std::mem::take(&mut predicted);
            for (quality, step) in steps.iter().enumerate() {
                let predictor = parts.predictor(channels.len(), quality);
                let own = prediction::predictions(channels, starts, &places, &predictor, *step, self.threads)?;
                predicted.extend(own.into_iter().zip(&by_side).map(|(mut own, side)| {
                    own.iter_mut().zip(side).for_each(|(own, side)| *own += side);
                    own
                }));
            }
        }
        let louder = |place: &usize| known.map_or(0, |known| known.louder[*place]);
        let louder: Vec<i32> = places.iter().map(louder).collect();
        let left = Left { channels: &at, predicted: &predicted, louder: &louder, causal: None };
        Levels::fit(left, steps, self.rate_weight, self.threads)
    }
}

/// What the far end knows of frames.
#[derive(Clone, Copy)]
struct Told<'a> {
    /// First frames of sequences.
    starts: &'a [usize],
    known: Option<&'a Known>,
    predicting: Option<&'a Predicting>,
}

/// The channels in at most `most` frames: one of every run of frames, drawn at random, so that frames at regular places,
/// such as the first of sequences, have their own share.
fn sampled(channels: &[Vec<f32>], most: usize) -> Cow<'_, [Vec<f32>]> {
    let frames = channels[0].len();
    if frames <= most {
        return Cow::Borrowed(channels);
    }
    Cow::Owned(at_places(channels, &places(frames, most)))
}

/// The channels at some frames.
fn at_places(channels: &[Vec<f32>], places: &[usize]) -> Vec<Vec<f32>> {
    channels.iter().map(|channel| places.iter().map(|place| channel[*place]).collect()).collect()
}

/// The places of at most `most` frames.
fn places(frames: usize, most: usize) -> Vec<usize> {
    let run = frames.div_ceil(most).max(1);
    let mut rng = Rng::new(1);
    (0..frames).step_by(run).map(|start| start + rng.below((frames - start).min(run))).collect()
}

/// That values are clipped where so small a share of the variance may be lost. `least` is the smallest at which none is,
/// if it is known.
fn too_fine(share: f64, least: Option<f64>) -> Error {
    let least = least.map_or("larger".into(), |least| format!("at least about {least:.0e}"));
    let why = "at finer steps the largest value would be clipped";
    Error::setting("a distortion", format_args!("{share:e}"), format!("{least} ({why})"))
}

/// Y of a value in steps.
fn integer(value: f32) -> i16 {
    value.clamp(f32::from(Y_RANGE.0), f32::from(Y_RANGE.1)) as i16
}

/// The frames after the first map, by channel: E vectors of T values.
fn mapped(hidden: &[f32], mean: &[f32], maps: &Maps) -> Result<Vec<Vec<f32>>> {
    let width = mean.len();
    let analysis = maps::tensor(&maps.analysis)?; // [E, E]
    let mut channels = vec![Vec::with_capacity(hidden.len() / width); width];
    for rows in hidden.chunks(maps::ROWS * width) {
        let centred = Tensor::from_vec(centred(rows, mean), (rows.len() / width, width), &Device::Cpu)?;
        let values = analysis.matmul(&centred.t()?)?; // [E, T]
        for (channel, values) in channels.iter_mut().zip(values.to_vec2::<f32>()?) {
            channel.extend(values);
        }
    }
    Ok(channels)
}

/// Frames minus their mean, `[T, E]`.
fn centred(hidden: &[f32], mean: &[f32]) -> Vec<f32> {
    hidden.chunks_exact(mean.len()).flat_map(|row| row.iter().zip(mean).map(|(x, mean)| x - mean)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::expected::{decoded, encoded, expected};
    use super::*;
    use crate::rng::Rng;
    use midspan::codec::Codec;

    /// Frames of four channels that depend on each other, about a mean. One channel is constant, the first frame far out.
    pub(super) fn capture(frames: usize, seed: u64) -> Capture {
        let mut rng = Rng::new(seed);
        let mut hidden = Vec::with_capacity(4 * frames);
        for frame in 0..frames {
            let (a, b) = (rng.normal(), rng.normal());
            let far = if frame == 0 { 200.0 } else { 1.0 };
            hidden.extend([5.0 + far * (a + 0.1 * b), 100.0 * far * (a - 0.3 * b), 0.25, 0.01 * rng.normal()]);
        }
        Capture::new(hidden, 4).unwrap()
    }

    #[test]
    fn a_calibrated_codec_loses_what_was_asked_for() {
        let calibration = Calibration::default().distortions(vec![0.1, 0.01, 0.001]).rate_weight(0.0).threads(2);
        let mut stages = Vec::new();
        let (train, held_out) = (capture(4_000, 1), capture(1_000, 2));
        let model = calibration.run(&train, &mut |stage| stages.push(stage)).unwrap();
        assert_eq!(stages, Stage::ALL);
        assert_eq!((model.qualities(), model.hidden_width(), model.hyper_prior_width()), (3, 4, 1));
        // A model file holds it.
        let model = CodecModel::from_bytes(&model.to_bytes(), 1 << 24).unwrap();
        let codec = Arc::new(Codec::new(model).unwrap());
        let found = expected(&codec, &train, 2).unwrap();
        for (found, asked) in found.iter().zip([0.1, 0.01, 0.001]) {
            assert!((found.distortion.unwrap() / asked - 1.0).abs() < 0.1 && found.clipped == 0, "{found:?}");
        }
        // About 1.66 bits for each of the channels that vary, for a tenth of the distortion, once all of them count.
        assert!(found[2].bits_in_batches - found[1].bits_in_batches > 1.5, "{found:?}");
        let other = expected(&codec, &held_out, 2).unwrap();
        for (seen, fresh) in found.iter().zip(other) {
            assert!((fresh.bits_in_batches / seen.bits_in_batches - 1.0).abs() < 0.1, "{seen:?} {fresh:?}");
        }
    }

    #[test]
    fn a_rate_weight_pays() {
        let (train, held_out) = (capture(4_000, 1), capture(1_000, 2));
        let at = |weight: f64, share: f64| {
            let model = Calibration::default().distortions(vec![share]).rate_weight(weight).threads(1);
            let model = model.run(&train, &mut |_| ()).unwrap();
            expected(&Arc::new(Codec::new(model).unwrap()), &held_out, 1).unwrap()[0]
        };
        // Less is lost, in fewer bits.
        let (plain, chosen) = (at(0.0, 0.03), at(RATE_WEIGHT, 0.0285));
        assert!(
            chosen.distortion < plain.distortion && chosen.bits_in_batches < plain.bits_in_batches,
            "{plain:?} {chosen:?}"
        );
    }

    /// Frames of four channels, of which the token tells most.
    pub(super) fn told(frames: usize, seed: u64) -> Capture {
        let mut rng = Rng::new(9);
        let table: Vec<f32> = (0..4 * 300).map(|_| 20.0 * rng.normal()).collect();
        let mut rng = Rng::new(seed);
        let ids: Vec<u32> = (0..frames).map(|_| rng.below(300) as u32).collect();
        let hidden = ids.iter().flat_map(|id| table[4 * *id as usize..][..4].to_vec());
        let hidden = hidden.map(|x| x + rng.normal()).collect();
        let starts = (0..frames).step_by(64).collect();
        Capture { ids: Some(ids), starts, ..Capture::new(hidden, 4).unwrap() }
    }

    #[test]
    fn what_the_token_tells_is_not_sent() {
        let (train, held_out) = (told(20_000, 1), told(2_000, 2));
        let calibration = Calibration::default().distortions(vec![0.1, 0.001, 0.0001]).threads(2);
        let at = |calibration: Calibration| {
            let model = calibration.run(&train, &mut |_| ()).unwrap();
            // A model file holds it.
            let codec = Arc::new(Codec::new(CodecModel::from_bytes(&model.to_bytes(), 1 << 24).unwrap()).unwrap());
            (expected(&codec, &held_out, 2).unwrap(), codec)
        };
        let (with, codec) = at(calibration.clone().vocabulary(Some(320)));
        let (without, plain) = at(calibration.side(false));
        assert!(plain.model().side().is_none());
        assert_eq!(codec.model().side().map(|side| (side.vocabulary(), side.width(), side.ages())), Some((320, 5, 3)));
        for (with, without) in with.iter().zip(&without).skip(1) {
            // The deviation falls from 20 to 1: more than four bits for each channel that a step resolves.
            assert!(with.bits_in_batches < without.bits_in_batches - 14.0, "{with:?} {without:?}");
            assert!(
                (with.distortion.unwrap() / without.distortion.unwrap() - 1.0).abs() < 0.25,
                "{with:?} {without:?}"
            );
        }
        // Unknown tokens cost bits, and no more.
        let mut strange = told(500, 3);
        strange.ids.as_mut().unwrap().iter_mut().for_each(|id| *id += 1_000);
        let strange = expected(&codec, &strange, 1).unwrap();
        assert!(strange[1].bits_in_batches > with[1].bits_in_batches + 10.0, "{strange:?}");
        assert!((strange[1].distortion.unwrap() / with[1].distortion.unwrap() - 1.0).abs() < 0.5, "{strange:?}");
    }

    #[test]
    fn errors_go_where_they_weigh_little() {
        let mut rng = Rng::new(5);
        let mut train = Capture::new((0..8_000).map(|_| rng.normal()).collect(), 2).unwrap();
        // How much more of the second element is lost than of the first.
        let ratio = |capture: &Capture| {
            let calibration = Calibration::default().distortions(vec![0.003]).rate_weight(0.0).threads(1);
            let codec = Arc::new(Codec::new(calibration.run(capture, &mut |_| ()).unwrap()).unwrap());
            let (_, stream, _) = encoded(&codec, &capture.hidden, &[], 0, 128).unwrap();
            let hidden = decoded(&codec, &stream, &[]).unwrap();
            let lost = |at: usize| -> f64 {
                let pairs = capture.hidden.iter().zip(&hidden).skip(at).step_by(2);
                pairs.map(|(before, after)| f64::from(before - after).powi(2)).sum()
            };
            lost(1) / lost(0)
        };
        assert!((ratio(&train) - 1.0).abs() < 0.1);
        train.sensitivity = Some(DMatrix::from_diagonal(&nalgebra::DVector::from_vec(vec![100.0, 1.0])));
        let found = ratio(&train);
        assert!((found / 100.0 - 1.0).abs() < 0.2, "{found}");
    }

    #[test]
    fn what_cannot_be_calibrated_is_told() {
        let run = |calibration: Calibration, capture: &Capture| calibration.run(capture, &mut |_| ()).unwrap_err();
        let setting = |error: Error| {
            let Error::Setting { name, .. } = error else { panic!("{error:?}") };
            name
        };
        let good = capture(20, 1);
        for wrong in [vec![0.1, 0.1], vec![0.01, 0.1], vec![1.0], vec![0.0], vec![f64::NAN]] {
            assert_eq!(setting(run(Calibration::default().distortions(wrong), &good)), "the distortions");
        }
        assert_eq!(setting(run(Calibration::default().distortions(Vec::new()), &good)), "the number of qualities");
        assert_eq!(setting(run(Calibration::default().rate_weight(-1.0), &good)), "the rate weight");
        let one = Capture::new(vec![1.0, 2.0], 2).unwrap();
        assert_eq!(setting(run(Calibration::default(), &one)), "the number of captured frames");
        let still = Capture::new(vec![1.0; 40], 2).unwrap();
        assert!(matches!(run(Calibration::default(), &still), Error::NoMap));
        let wide = Capture::new(vec![0.0; 2 * 1_025], 1_025).unwrap();
        assert_eq!(setting(run(Calibration::default().map(Some(MapKind::Full)), &wide)), "the hidden states' width");
        assert!(matches!(run(Calibration::default(), &wide), Error::NoMap));
        let too_wide = Capture::new(vec![0.0; 2 * 8_191], 8_191).unwrap();
        assert_eq!(setting(run(Calibration::default(), &too_wide)), "the hidden states' width");
        assert!(matches!(run(Calibration::default().map(Some(MapKind::Sparse)), &still), Error::NoMap));
        assert!(matches!(Capture::new(vec![1.0; 3], 2), Err(Error::Setting { .. })));
        assert!(matches!(Capture::new(vec![1.0, f32::INFINITY], 2), Err(Error::Setting { .. })));
    }

    #[test]
    fn first_frames_of_sequences_do_not_set_the_steps() {
        let mut rng = Rng::new(7);
        // Every 512th frame is far out, as first frames of transformers are.
        let values = (0..4 * 16_384).map(|at| if at / 4 % 512 == 0 { 60.0 } else { 1.0 } * rng.normal());
        let train = Capture::new(values.collect(), 4).unwrap();
        let model = Calibration::default().distortions(vec![0.01]).rate_weight(0.0).threads(2);
        let model = model.run(&train, &mut |_| ()).unwrap();
        let found = expected(&Arc::new(Codec::new(model).unwrap()), &train, 2).unwrap()[0];
        assert!((found.distortion.unwrap() / 0.01 - 1.0).abs() < 0.5, "{found:?}");
    }

    #[test]
    fn values_may_be_huge_or_tiny_and_steps_too_fine() {
        for (unit, kind) in
            [(1e15_f32, MapKind::Full), (1e-25, MapKind::Full), (1e15, MapKind::Sparse), (1e-25, MapKind::Sparse)]
        {
            let mut train = capture(500, 1);
            train.hidden.iter_mut().for_each(|x| *x *= unit);
            let model = Calibration::default().map(Some(kind)).threads(1).run(&train, &mut |_| ()).unwrap();
            let found = expected(&Arc::new(Codec::new(model).unwrap()), &train, 1).unwrap()[5];
            assert!(found.distortion.unwrap() < 0.001, "{unit}: {found:?}");
        }
        for kind in [MapKind::Full, MapKind::Sparse] {
            let calibration = Calibration::default().map(Some(kind)).distortions(vec![1e-12]).threads(1);
            let error = calibration.run(&capture(500, 1), &mut |_| ()).map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::Setting { name: "a distortion", .. }), "{error:?}");
            // What full maps can do at the finest is told, and can be asked for.
            let line = error.to_string();
            if let Some((_, rest)) = line.split_once("at least about ") {
                let least: f64 = rest.split(' ').next().unwrap().parse().unwrap();
                calibration.distortions(vec![2.0 * least]).run(&capture(500, 1), &mut |_| ()).unwrap();
            } else {
                assert!(kind == MapKind::Sparse && line.contains("must be larger (at finer steps"), "{line}");
            }
        }
        // Numbers so small that a map's values would be infinite.
        for kind in [MapKind::Full, MapKind::Sparse] {
            let mut train = capture(500, 1);
            train.hidden.iter_mut().for_each(|x| *x *= 1e-41);
            let error = Calibration::default().map(Some(kind)).threads(1).run(&train, &mut |_| ()).map(|_| ());
            assert!(matches!(error, Err(Error::Setting { name: "the largest hidden state", .. })), "{error:?}");
        }
    }

    #[test]
    fn few_frames_make_a_codec_too() {
        let model = Calibration::default().threads(1).run(&capture(3, 1), &mut |_| ()).unwrap();
        let codec = Arc::new(Codec::new(model).unwrap());
        let fresh = expected(&codec, &capture(50, 3), 1).unwrap();
        assert!(
            fresh.iter().all(|fresh| fresh.bits < 400.0 && fresh.distortion.is_some_and(f64::is_finite)),
            "{fresh:?}"
        );
    }
}
