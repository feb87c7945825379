//! From a trained float codec to a frozen model file, and what that costs.

pub mod float;
pub mod network;
pub mod refit;
pub mod tables;

use float::{Extremes, FloatNetwork};
use tables::{BankParts, Masses, ScaleGrid, normal_bank};

use network::QualityScales;
use refit::{Element, Line, Refit};

use crate::codec::{Codec, quantiser};
use crate::error::Error;
use crate::exact::{Network, Serial, State};
use crate::model::{CodecModel, EncoderPart, ModelParts, Outputs, Tables};
use crate::train::parallel::in_threads;

/// Declared range of W of frozen models.
const W_RANGE: (i16, i16) = (-1023, 1023);
/// Declared range of Y of frozen models.
const Y_RANGE: (i16, i16) = (-32_767, 32_767);

/// A trained codec, in float.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatCodec {
    /// Analysis network, E → C.
    pub h: FloatNetwork,
    /// Synthesis of the parameters, C → 2E: means in steps, then log2 of the scales in steps.
    pub g_y: FloatNetwork,
    /// `[E]`: quantiser steps.
    pub step: Vec<f32>,
    /// `[E]`: quantiser offsets.
    pub offset: Vec<f32>,
    /// Density of each channel of W.
    pub hyper_prior: Vec<Masses>,
    /// Scales of the target's tables.
    pub grid: ScaleGrid,
}

/// A quality of a frozen model: the trained codec's steps times a factor. The networks' inputs and outputs follow, so that
/// h sees what it was trained on and g_y's means and scales count in the new steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Factor of the steps, above 0; 1 for those of the training. A power of the scale grid's ratio is taken instead.
    pub steps: f64,
    /// Squared steps that a bit is worth to encoders (spec 6.8).
    pub rate_weight: f32,
}

impl Quality {
    /// By how many places of the grid scales rise when they count in this quality's steps.
    fn places(&self, grid: ScaleGrid) -> i32 {
        (-self.steps.log2() / grid.step()).round() as i32
    }

    /// The factor of the steps: whole places of the grid, so that scales lose nothing.
    #[must_use]
    pub fn factor(&self, grid: ScaleGrid) -> f64 {
        (-f64::from(self.places(grid)) * grid.step()).exp2()
    }
}

impl FloatCodec {
    /// The nearest integers of hidden states, `[T, E]`, with steps times `factor`.
    ///
    /// # Errors
    /// A hidden state that is not finite.
    pub fn quantise(&self, hidden: &[f32], factor: f64) -> Result<Vec<i16>, Error> {
        let mut y = Vec::new();
        let reciprocal: Vec<f32> = self.steps(factor).map(|step| 1.0 / step).collect();
        quantiser::quantise(hidden, &self.offset, &reciprocal, Y_RANGE, &mut y)?;
        Ok(y)
    }

    /// Steps times a factor, `[E]`.
    fn steps(&self, factor: f64) -> impl Iterator<Item = f32> + '_ {
        self.step.iter().map(move |step| (f64::from(*step) * factor) as f32)
    }

    /// W of one sequence of Y in steps times `factor`, `[T, C]`.
    fn w(&self, y: &[i16], factor: f64, extremes: &mut Extremes) -> Vec<i16> {
        let input: Vec<f32> = y.iter().map(|value| (f64::from(*value) * factor) as f32).collect();
        round_w(&self.h.run(&input, extremes))
    }

    /// Means and logarithms of scales from W, `[T, 2E]`, in steps times `factor`.
    fn parameters(&self, w: &[i16], factor: f64) -> Vec<f32> {
        let mut real = self.g_y.run(&to_float(w), &mut Extremes::default());
        let width = self.step.len();
        for frame in real.chunks_exact_mut(2 * width) {
            let (means, scales) = frame.split_at_mut(width);
            means.iter_mut().for_each(|mean| *mean = (f64::from(*mean) / factor) as f32);
            let clamped = |scale: f32| f64::from(scale).clamp(self.grid.low, self.grid.high) - factor.log2();
            scales.iter_mut().for_each(|scale| *scale = clamped(*scale) as f32);
        }
        real
    }

    /// Bits of one sequence of Y, `[T, E]`: W by this h, rates by exact densities.
    #[must_use]
    pub fn bits(&self, y: &[i16]) -> f64 {
        let w = self.w(y, 1.0, &mut Extremes::default());
        self.bits_w(&w) + self.bits_y(y, &self.parameters(&w, 1.0))
    }

    /// Bits of W, `[T, C]`.
    fn bits_w(&self, w: &[i16]) -> f64 {
        w.chunks_exact(self.hyper_prior.len())
            .flat_map(|w| w.iter().zip(&self.hyper_prior))
            .map(|(w, masses)| -masses.of(i32::from(*w)).max(1e-12).log2())
            .sum()
    }

    /// Bits of Y, `[T, E]`, given what g_y says, `[T, 2E]`.
    fn bits_y(&self, y: &[i16], real: &[f32]) -> f64 {
        let width = self.step.len();
        let frames = y.chunks_exact(width).zip(real.chunks_exact(2 * width));
        frames
            .flat_map(|(y, real)| y.iter().zip(real.iter().zip(&real[width..])))
            .map(|(y, (mean, scale))| tables::normal_bits(f64::from(*y), f64::from(*mean), f64::from(*scale).exp2()))
            .sum()
    }
}

/// What freezing costs, on the given sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FreezeReport {
    /// Frames measured.
    pub frames: usize,
    /// Share of W that equals the float network's rounded output.
    pub w_agreement: f64,
    /// Share of scale indices that equal the float network's, given equal W.
    pub scale_agreement: f64,
    /// Mean distance of means from the float network's, in steps, given equal W.
    pub mean_distance: f64,
    /// Bits of W and Y by the float networks and exact densities on the same W and Y, a frame.
    pub float_bits: f64,
    /// Bits of W and Y by the frozen network and tables, a frame.
    pub frozen_bits: f64,
}

impl FreezeReport {
    /// Extra bits of the frozen model against the float one on the same integers, as a ratio minus one.
    pub fn loss(&self) -> f64 {
        self.frozen_bits / self.float_bits - 1.0
    }
}

fn bank(parts: BankParts) -> Tables {
    Tables { first: parts.first, size: parts.sizes, boundaries: parts.boundaries }
}

/// Real value of one unit of g_y's output rows: 1/64 step for means, one grid step for scale indices.
fn output_scale(width: usize, grid: ScaleGrid) -> impl Fn(usize) -> f64 {
    move |row| if row < width { 1.0 / 64.0 } else { grid.step() }
}

/// Freezes a trained codec in some qualities; `calibration` holds sequences of hidden states, `[T, E]` each, that set the
/// fixed-point scales and what qualities of other steps than the training's change.
///
/// # Errors
/// A line that says what does not fit; a model that breaks a rule of spec chapter 4.
pub fn freeze(
    codec: &FloatCodec,
    qualities: &[Quality],
    calibration: &[Vec<f32>],
    version: u32,
) -> Result<CodecModel, String> {
    let width = codec.step.len();
    let channels = codec.hyper_prior.len();
    let (mut of_h, mut of_g_y) = (Extremes::default(), Extremes::default());
    let mut largest = f32::MIN; // log2 of the largest scale seen
    for sequence in calibration {
        let y = codec.quantise(sequence, 1.0).map_err(|error| error.to_string())?;
        let w = codec.w(&y, 1.0, &mut of_h);
        let real = codec.g_y.run(&to_float(&w), &mut of_g_y);
        let scales = real.chunks_exact(2 * width).flat_map(|real| &real[width..]);
        largest = scales.fold(largest, |largest, scale| largest.max(*scale));
    }
    // One octave above what was ever seen, for text unlike the calibration's, and what finer steps add to it.
    let places = |quality: &Quality| quality.places(codec.grid);
    let finest = qualities.iter().map(places).max().unwrap_or(0).max(0);
    let grid = codec.grid.cut(f64::from(largest) + 1.0).longer(finest as usize);
    if grid.count > 256 {
        return Err(format!("steps that much finer need {} scales, more than 256", grid.count));
    }
    let widest = grid.scale(grid.count - 1) * 2.0 * tables::REACH + 3.0;
    if widest > 4_096.0 {
        return Err(format!("steps that much finer need tables of {widest:.0} values, more than 4,096"));
    }
    let of_h_qualities = qualities.iter().map(|quality| QualityScales {
        input: quality.factor(codec.grid),
        output: vec![1.0; channels],
        offset: vec![0; channels],
    });
    let of_h_qualities: Vec<_> = of_h_qualities.collect();
    let of_g_y_qualities = qualities.iter().map(|quality| outputs_of(codec, *quality, grid, calibration));
    let of_g_y_qualities = of_g_y_qualities.collect::<Result<Vec<_>, _>>()?;
    // Scale indices count from the grid's lowest scale; the bias takes the shift, so no rounding is added.
    let mut g_y = codec.g_y.clone();
    for bias in g_y.output.bias.iter_mut().skip(width) {
        *bias -= grid.low as f32;
    }
    let distribution = Outputs::Distribution { elements: width, scales: grid.count };
    let hyper_prior = Outputs::HyperPrior { channels, min: W_RANGE.0.into(), max: W_RANGE.1.into() };
    let decoder_network = network::freeze(&g_y, &of_g_y, distribution, output_scale(width, grid), &of_g_y_qualities)?;
    let encoder_network = network::freeze(&codec.h, &of_h, hyper_prior, |_| 1.0, &of_h_qualities)?;
    let mut w_bank = BankParts::default();
    for masses in qualities.iter().flat_map(|_| &codec.hyper_prior) {
        w_bank.push(masses);
    }
    let step: Vec<f32> = qualities.iter().flat_map(|quality| codec.steps(quality.factor(codec.grid))).collect();
    CodecModel::new(ModelParts {
        version,
        e: width,
        c: channels,
        qualities: qualities.len(),
        w_range: W_RANGE,
        y_range: Y_RANGE,
        fraction_bits: (0..grid.count).map(|scale| grid.fraction_bits(scale)).collect(),
        hyper_prior: bank(w_bank),
        target: bank(normal_bank(&grid)),
        step: step.clone(),
        offset: codec.offset.repeat(qualities.len()),
        decoder_network,
        encoder: Some(EncoderPart {
            network: encoder_network,
            reciprocal_step: step.iter().map(|step| 1.0 / step).collect(),
            rate_weight: qualities.iter().map(|quality| quality.rate_weight).collect(),
        }),
    })
    .map_err(|invalid| invalid.to_string())
}

/// What a quality changes about g_y's outputs: means and scales count in its steps and, where these are not the
/// training's, follow the lines that suit the calibration.
fn outputs_of(
    codec: &FloatCodec,
    quality: Quality,
    grid: ScaleGrid,
    calibration: &[Vec<f32>],
) -> Result<QualityScales, String> {
    let (width, places, factor) = (codec.step.len(), quality.places(codec.grid), quality.factor(codec.grid));
    let mut scales = QualityScales { input: 1.0, output: vec![1.0; 2 * width], offset: vec![0; 2 * width] };
    for e in 0..width {
        scales.output[e] = 1.0 / factor;
        scales.offset[width + e] = places;
    }
    if places == 0 {
        return Ok(scales);
    }
    // By element: Y, means and indices over all frames.
    let mut elements = vec![(Vec::new(), Vec::new(), Vec::new()); width];
    for hidden in calibration {
        let y = codec.quantise(hidden, factor).map_err(|error| error.to_string())?;
        let w = codec.w(&y, factor, &mut Extremes::default());
        let real = codec.g_y.run(&to_float(&w), &mut Extremes::default());
        for (y, real) in y.chunks_exact(width).zip(real.chunks_exact(2 * width)) {
            for (e, (ys, means, indices)) in elements.iter_mut().enumerate() {
                ys.push(f64::from(y[e]));
                means.push(f64::from(real[e]) / factor);
                indices.push((f64::from(real[width + e]) - grid.low) / grid.step());
            }
        }
    }
    let start = Refit { mean: Line { factor: 1.0, added: 0.0 }, index: Line { factor: 1.0, added: f64::from(places) } };
    let places: Vec<usize> = (0..width).collect();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let refits = in_threads(&places, threads, |e| {
        let (y, mean, index) = &elements[*e];
        Ok(Element { y, mean, index }.refit(start, grid))
    });
    for (e, refit) in refits.map_err(|error| error.to_string())?.into_iter().enumerate() {
        scales.output[e] = refit.mean.factor / factor;
        scales.offset[e] = (64.0 * refit.mean.added).round().clamp(-1_048_576.0, 1_048_576.0) as i32;
        scales.output[width + e] = refit.index.factor;
        scales.offset[width + e] = refit.index.added as i32;
    }
    Ok(scales)
}

/// Outputs of a frozen network for a sequence, from an empty context.
fn run(network: &Network, input: &[i16], quality: usize) -> Result<Vec<i32>, String> {
    let mut out = Vec::new();
    network.run(&mut State::new(network, 0), input, quality, &mut out, &Serial).map_err(|error| error.to_string())?;
    Ok(out)
}

/// Compares a quality of a frozen model with the float codec it came from, on sequences of hidden states, `[T, E]` each:
/// on the nearest integers, as a choice of Y by one codec's rates favours that codec. `factor` is that of the quality's
/// steps.
///
/// # Errors
/// A model that does not fit the float codec.
pub fn compare(
    float: &FloatCodec,
    frozen: &Codec,
    (quality, factor): (usize, f64),
    sequences: &[Vec<f32>],
) -> Result<FreezeReport, String> {
    let model = frozen.model();
    let (width, channels) = (model.hidden_width(), model.hyper_prior_width());
    let h = frozen.h().ok_or("the model has no analysis network")?;
    let mut report = FreezeReport::default();
    let (mut same_w, mut same_scale, mut distance) = (0_usize, 0_usize, 0.0);
    for hidden in sequences {
        let y = &float.quantise(hidden, factor).map_err(|error| error.to_string())?;
        report.frames += y.len() / width;
        let w: Vec<i16> = run(h, y, quality)?.iter().map(|value| *value as i16).collect();
        let float_w = float.w(y, factor, &mut Extremes::default());
        same_w += w.iter().zip(&float_w).filter(|(a, b)| a == b).count();
        let out = run(frozen.g_y(), &w, quality)?;
        let real = float.parameters(&w, factor);
        for (integers, reals) in out.chunks_exact(2 * width).zip(real.chunks_exact(2 * width)) {
            for e in 0..width {
                let index = ((f64::from(reals[width + e]) - float.grid.low) / float.grid.step()).round() as i32;
                same_scale += usize::from(index == integers[width + e]);
                distance += (f64::from(integers[e]) / 64.0 - f64::from(reals[e])).abs();
            }
        }
        report.float_bits += float.bits_w(&w) + float.bits_y(y, &real);
        report.frozen_bits += frozen.ideal_cost(&w, y, quality).total();
    }
    let frames = report.frames.max(1) as f64;
    report.w_agreement = same_w as f64 / (frames * channels as f64);
    report.scale_agreement = same_scale as f64 / (frames * width as f64);
    report.mean_distance = distance / (frames * width as f64);
    report.float_bits /= frames;
    report.frozen_bits /= frames;
    Ok(report)
}

fn to_float(values: &[i16]) -> Vec<f32> {
    values.iter().map(|value| f32::from(*value)).collect()
}

fn round_w(values: &[f32]) -> Vec<i16> {
    values
        .iter()
        .map(|value| value.round_ties_even().clamp(f32::from(W_RANGE.0), f32::from(W_RANGE.1)) as i16)
        .collect()
}
