//! Makes a codec for a host that does not change from captured hidden states, without learning: closed forms alone.
//!
//! Linear maps on each side of the quantiser make channels uncorrelated and put noise where the host's second half
//! notices it least ([`maps`]). All channels of a quality have one step, which shares the bits as reverse water-filling
//! does: a channel that varies less than the step costs nearly nothing. Tables are fitted to the integers that an encoder
//! chooses ([`tables`]). W carries nothing: h and g_y have no blocks, and their outputs are constants.

pub mod capture;
pub mod expected;
pub mod maps;
pub mod tables;

use std::borrow::Cow;
use std::f64::consts::LN_2;

use candle_core::{Device, Tensor};
use nalgebra::DMatrix;

use crate::freeze::tables::{BankParts, Masses};
use crate::parallel::in_threads;
use crate::rng::Rng;
use crate::{Error, Result};
use capture::Capture;
use maps::Maps;
use midspan::model::{CodecModel, EncoderPart, Linear, ModelParts, NetworkParameters, Outputs};
use tables::{Histogram, StaticTables};

/// Declared range of Y.
const Y_RANGE: (i16, i16) = (-32_767, 32_767);
/// The widest hidden state whose maps are full matrices.
pub const WIDTH_MAX: usize = 1_024;
/// Frames that the search for steps looks at.
const SAMPLED: usize = 4_096;
/// Frames that tables are fitted to; more change them little.
const FITTED: usize = 1 << 16;
/// How often Y is chosen anew by the tables that were fitted to the last choice.
const ROUNDS: usize = 2;
/// Squared steps of distortion that a saved bit is worth. At high rates the distortion is step² / 12, and a bit less
/// means twice the step: 2 ln 2 / 12 squared steps a bit.
pub const RATE_WEIGHT: f64 = 2.0 * LN_2 / 12.0;

/// What a calibration makes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Calibration {
    /// Of each quality, the share of the hidden states' variance that the nearest integers lose, as the second half
    /// weighs it. Encoders that choose Y by its rate lose a little more. Descending: quality 0 is the coarsest.
    pub distortions: Vec<f64>,
    /// Squared steps of distortion that a saved bit is worth when Y is chosen (spec 6.8).
    pub rate_weight: f64,
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
    /// The eigenbasis.
    Maps,
    /// The frames in the basis.
    Mapping,
    /// The steps of the qualities.
    Steps,
    /// The tables.
    Tables,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 5] = [Stage::Moments, Stage::Maps, Stage::Mapping, Stage::Steps, Stage::Tables];

    /// What it does, for people.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Moments => "mean and covariance",
            Stage::Maps => "eigenbasis",
            Stage::Mapping => "frames in the eigenbasis",
            Stage::Steps => "steps",
            Stage::Tables => "tables",
        }
    }
}

impl Calibration {
    midspan::setters! {
        distortions: Vec<f64>,
        rate_weight: f64,
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
        if !(self.rate_weight >= 0.0 && (self.rate_weight as f32).is_finite()) {
            return Err(Error::setting("the rate weight", self.rate_weight, "0 or more"));
        }
        Ok(())
    }

    /// Makes a codec from a capture. `tell` hears of each stage before it begins.
    ///
    /// # Errors
    /// Those of [`Calibration::check`]; [`Error::Setting`] for a width above [`WIDTH_MAX`] or fewer than two frames;
    /// [`Error::NoMap`] if hidden states do not vary; [`Error::Model`] if no model can hold the result.
    pub fn run(&self, capture: &Capture, tell: &mut dyn FnMut(Stage)) -> Result<CodecModel> {
        self.check()?;
        let width = capture.width;
        if width > WIDTH_MAX {
            return Err(Error::setting("the hidden states' width", width, format!("at most {WIDTH_MAX}")));
        }
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
        tell(Stage::Moments);
        let (mean, covariance) = maps::moments(&capture.hidden, width)?;
        tell(Stage::Maps);
        let maps = match &capture.sensitivity {
            Some(sensitivity) => maps::maps(sensitivity, &covariance)?,
            None => maps::maps(&DMatrix::identity(width, width), &covariance)?,
        };
        tell(Stage::Mapping);
        let channels = mapped(&capture.hidden, &mean, &maps)?;
        tell(Stage::Steps);
        let steps = self.steps(&channels)?;
        tell(Stage::Tables);
        let tables = self.tables(&channels, &steps)?;
        self.model(&mean, &maps, &steps, &tables)
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
                let wanted = "more: the largest value would be clipped at such fine steps";
                return Err(Error::setting("a distortion", share, wanted));
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

    fn model(&self, mean: &[f32], maps: &Maps, steps: &[f64], tables: &StaticTables) -> Result<CodecModel> {
        let (width, qualities) = (mean.len(), steps.len());
        let step: Vec<f32> = steps.iter().flat_map(|step| vec![*step as f32; width]).collect();
        let mut outputs = Vec::with_capacity(2 * width * qualities);
        for places in tables.places.chunks_exact(width) {
            outputs.extend(places.iter().map(|place| 64 * place.centre));
            outputs.extend(places.iter().map(|place| place.table as i32));
        }
        let distribution = Outputs::Distribution { elements: width, scales: tables.count() };
        let hyper_prior = Outputs::HyperPrior { channels: 1, min: 0, max: 1 };
        let mut w_bank = BankParts::default();
        for _ in 0..qualities {
            w_bank.push(&Masses { first: 0, values: vec![1.0], below: 0.0, above: 0.0 });
        }
        Ok(CodecModel::new(ModelParts {
            version: self.version,
            e: width,
            c: 1,
            qualities,
            w_range: (0, 1),
            y_range: Y_RANGE,
            fraction_bits: vec![0; tables.count()],
            hyper_prior: w_bank.into(),
            target: tables.bank(),
            step: step.clone(),
            offset: mean.repeat(qualities),
            synthesis: Some(maps::rows(&maps.synthesis)),
            decoder_network: constant_network(1, distribution, qualities, outputs),
            encoder: Some(EncoderPart {
                network: constant_network(width, hyper_prior, qualities, vec![0; qualities]),
                reciprocal_step: step.iter().map(|step| 1.0 / step).collect(),
                rate_weight: vec![self.rate_weight as f32; qualities],
                analysis: Some(maps::rows(&maps.analysis)),
            }),
        })?)
    }
}

/// The channels in at most `most` frames: one of every run of frames, drawn at random, so that frames at regular places,
/// such as the first of sequences, have their own share.
fn sampled(channels: &[Vec<f32>], most: usize) -> Cow<'_, [Vec<f32>]> {
    let frames = channels[0].len();
    if frames <= most {
        return Cow::Borrowed(channels);
    }
    let run = frames.div_ceil(most);
    let mut rng = Rng::new(1);
    let places = (0..frames).step_by(run).map(|start| start + rng.below((frames - start).min(run)));
    let places: Vec<usize> = places.collect();
    channels.iter().map(|channel| places.iter().map(|place| channel[*place]).collect()).collect()
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
        let centred: Vec<f32> =
            rows.chunks_exact(width).flat_map(|row| row.iter().zip(mean).map(|(x, mean)| x - mean)).collect();
        let frames = rows.len() / width;
        let centred = Tensor::from_vec(centred, (frames, width), &Device::Cpu)?;
        let values = analysis.matmul(&centred.t()?)?; // [E, T]
        for (channel, values) in channels.iter_mut().zip(values.to_vec2::<f32>()?) {
            channel.extend(values);
        }
    }
    Ok(channels)
}

/// A network without blocks whose outputs are the same for all inputs: `[Q, outputs]`.
fn constant_network(inputs: usize, outputs: Outputs, qualities: usize, values: Vec<i32>) -> NetworkParameters {
    let count = outputs.len();
    NetworkParameters {
        widths: vec![inputs],
        heads: Vec::new(),
        window: 1,
        qualities,
        exp: Vec::new(),
        activation: Vec::new(),
        input_multiplier: vec![0; qualities * inputs],
        input_shift: vec![1; qualities * inputs],
        output_offset: values,
        blocks: Vec::new(),
        output_norm: None,
        output: Linear {
            inputs,
            outputs: count,
            weight: vec![0; inputs * count],
            bias: vec![0; count],
            multiplier: vec![0; qualities * count],
            shift: vec![1; qualities * count],
        },
        outputs,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::expected::{decoded, encoded, expected};
    use super::*;
    use crate::rng::Rng;
    use midspan::codec::Codec;

    /// Frames of four channels that depend on each other, about a mean. One channel is constant, the first frame far out.
    fn capture(frames: usize, seed: u64) -> Capture {
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

    #[test]
    fn errors_go_where_they_weigh_little() {
        let mut rng = Rng::new(5);
        let mut train = Capture::new((0..8_000).map(|_| rng.normal()).collect(), 2).unwrap();
        // How much more of the second element is lost than of the first.
        let ratio = |capture: &Capture| {
            let calibration = Calibration::default().distortions(vec![0.003]).rate_weight(0.0).threads(1);
            let codec = Arc::new(Codec::new(calibration.run(capture, &mut |_| ()).unwrap()).unwrap());
            let (_, stream, _) = encoded(&codec, &capture.hidden, 0, 128).unwrap();
            let hidden = decoded(&codec, &stream).unwrap();
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
        assert_eq!(setting(run(Calibration::default(), &wide)), "the hidden states' width");
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
        for unit in [1e15_f32, 1e-25] {
            let mut train = capture(500, 1);
            train.hidden.iter_mut().for_each(|x| *x *= unit);
            let model = Calibration::default().threads(1).run(&train, &mut |_| ()).unwrap();
            let found = expected(&Arc::new(Codec::new(model).unwrap()), &train, 1).unwrap()[5];
            assert!(found.distortion.unwrap() < 0.001, "{unit}: {found:?}");
        }
        let error = Calibration::default().distortions(vec![1e-12]).threads(1).run(&capture(500, 1), &mut |_| ());
        assert!(matches!(error, Err(Error::Setting { name: "a distortion", .. })), "{:?}", error.map(|_| ()));
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
