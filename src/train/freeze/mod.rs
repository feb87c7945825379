//! From a trained float codec to a frozen model file, and what that costs.

pub mod float;
pub mod network;
pub mod tables;

use float::{Extremes, FloatNetwork};
use tables::{BankParts, Masses, ScaleGrid, normal_bank};

use crate::codec::{Codec, quantiser};
use crate::error::Error;
use crate::exact::{Network, Serial, State};
use crate::model::{CodecModel, EncoderPart, ModelParts, Outputs, Tables};

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
    /// Squared steps that a bit was worth to the encoder in training (spec 6.8).
    pub rate_weight: f32,
}

impl FloatCodec {
    /// The nearest integers of hidden states, `[T, E]`.
    ///
    /// # Errors
    /// A hidden state that is not finite.
    pub fn quantise(&self, hidden: &[f32]) -> Result<Vec<i16>, Error> {
        let mut y = Vec::new();
        quantiser::quantise(hidden, &self.offset, &self.reciprocal_step(), Y_RANGE, &mut y)?;
        Ok(y)
    }

    fn reciprocal_step(&self) -> Vec<f32> {
        self.step.iter().map(|step| 1.0 / step).collect()
    }

    /// Bits of one sequence of Y, `[T, E]`: W by this h, rates by exact densities.
    #[must_use]
    pub fn bits(&self, y: &[i16]) -> f64 {
        let w = round_w(&self.h.run(&to_float(y), &mut Extremes::default()));
        let real = self.g_y.run(&to_float(&w), &mut Extremes::default());
        self.bits_w(&w) + self.bits_y(y, &real)
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
            .map(|(y, (mean, log_scale))| {
                let log_scale = f64::from(*log_scale).clamp(self.grid.low, self.grid.high);
                tables::normal_bits(f64::from(*y), f64::from(*mean), log_scale.exp2())
            })
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

/// Freezes a trained codec; `calibration` holds sequences of Y, `[T, E]` each, that set the fixed-point scales.
///
/// # Errors
/// A line that says what does not fit; a model that breaks a rule of spec chapter 4.
pub fn freeze(codec: &FloatCodec, calibration: &[Vec<i16>], version: u32) -> Result<CodecModel, String> {
    let width = codec.step.len();
    let channels = codec.hyper_prior.len();
    let (mut of_h, mut of_g_y) = (Extremes::default(), Extremes::default());
    let mut largest = f32::MIN; // log2 of the largest scale seen
    for sequence in calibration {
        let w = round_w(&codec.h.run(&to_float(sequence), &mut of_h));
        let real = codec.g_y.run(&to_float(&w), &mut of_g_y);
        let scales = real.chunks_exact(2 * width).flat_map(|real| &real[width..]);
        largest = scales.fold(largest, |largest, scale| largest.max(*scale));
    }
    // One octave above what was ever seen, for text unlike the calibration's.
    let grid = codec.grid.cut(f64::from(largest) + 1.0);
    // Scale indices count from the grid's lowest scale; the bias takes the shift, so no rounding is added.
    let mut g_y = codec.g_y.clone();
    for bias in g_y.output.bias.iter_mut().skip(width) {
        *bias -= grid.low as f32;
    }
    let distribution = Outputs::Distribution { elements: width, scales: grid.count };
    let hyper_prior = Outputs::HyperPrior { channels, min: W_RANGE.0.into(), max: W_RANGE.1.into() };
    let decoder_network = network::freeze(&g_y, &of_g_y, distribution, output_scale(width, grid))?;
    let encoder_network = network::freeze(&codec.h, &of_h, hyper_prior, |_| 1.0)?;
    let mut w_bank = BankParts::default();
    for masses in &codec.hyper_prior {
        w_bank.push(masses);
    }
    CodecModel::new(ModelParts {
        version,
        e: width,
        c: channels,
        qualities: 1,
        w_range: W_RANGE,
        y_range: Y_RANGE,
        fraction_bits: (0..grid.count).map(|scale| grid.fraction_bits(scale)).collect(),
        hyper_prior: bank(w_bank),
        target: bank(normal_bank(&grid)),
        step: codec.step.clone(),
        offset: codec.offset.clone(),
        decoder_network,
        encoder: Some(EncoderPart {
            network: encoder_network,
            reciprocal_step: codec.reciprocal_step(),
            rate_weight: vec![codec.rate_weight],
        }),
    })
    .map_err(|invalid| invalid.to_string())
}

/// Outputs of a frozen network for a sequence, from an empty context.
fn run(network: &Network, input: &[i16]) -> Result<Vec<i32>, String> {
    let mut out = Vec::new();
    network.run(&mut State::new(network, 0), input, 0, &mut out, &Serial).map_err(|error| error.to_string())?;
    Ok(out)
}

/// Compares a frozen model with the float codec it came from, on sequences of Y, `[T, E]` each: the nearest integers, as a
/// choice of Y by one codec's rates favours that codec.
///
/// # Errors
/// A model that does not fit the float codec.
pub fn compare(float: &FloatCodec, frozen: &Codec, sequences: &[Vec<i16>]) -> Result<FreezeReport, String> {
    let model = frozen.model();
    let (width, channels) = (model.hidden_width(), model.hyper_prior_width());
    let h = frozen.h().ok_or("the model has no analysis network")?;
    let mut report = FreezeReport::default();
    let (mut same_w, mut same_scale, mut distance) = (0_usize, 0_usize, 0.0);
    for y in sequences {
        report.frames += y.len() / width;
        let w: Vec<i16> = run(h, y)?.iter().map(|value| *value as i16).collect();
        let float_w = round_w(&float.h.run(&to_float(y), &mut Extremes::default()));
        same_w += w.iter().zip(&float_w).filter(|(a, b)| a == b).count();
        let out = run(frozen.g_y(), &w)?;
        let real = float.g_y.run(&to_float(&w), &mut Extremes::default());
        for (integers, reals) in out.chunks_exact(2 * width).zip(real.chunks_exact(2 * width)) {
            for e in 0..width {
                let log_scale = f64::from(reals[width + e]).clamp(float.grid.low, float.grid.high);
                let index = ((log_scale - float.grid.low) / float.grid.step()).round() as i32;
                same_scale += usize::from(index == integers[width + e]);
                distance += (f64::from(integers[e]) / 64.0 - f64::from(reals[e])).abs();
            }
        }
        report.float_bits += float.bits_w(&w) + float.bits_y(y, &real);
        report.frozen_bits += frozen.ideal_cost(&w, y, 0).total();
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
