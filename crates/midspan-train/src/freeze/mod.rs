//! Makes a frozen model file from a trained float codec, and measures what that costs.

pub mod codec;
pub mod compare;
pub mod network;
pub mod refit;
pub mod tables;
pub mod weights;

use codec::{FloatCodec, FloatMaps, FloatSide, Sequence};
use network::{OutputScale, QualityScales};
use refit::{Element, Line, Refit};
use tables::{BankParts, ScaleGrid, normal_bank};

use crate::codec::Y_RANGE;
use crate::codec::network::Extremes;
use crate::codec::quality::{At, Quality};
use crate::codec::side;
use crate::framing::with_measured_lengths;
use crate::parallel::in_threads;
use crate::{Error, Result};
use midspan::model::side::SideParts;
use midspan::model::{CodecModel, EncoderPart, ModelParts, Outputs};

/// Declared range of W of frozen models.
const W_RANGE: (i16, i16) = (-1023, 1023);

/// The most scales of a model file (spec 4.1).
const SCALES_MAX: usize = 256;
/// The most values of a table of frozen models.
const TABLE_MAX: usize = 4_096;

/// What the integers of g_y's output rows mean: means in 1/64 step, and indices of scales on the grid.
fn output_scale(width: usize, grid: ScaleGrid) -> impl Fn(usize) -> OutputScale {
    move |row| match row < width {
        true => OutputScale { unit: 1.0 / 64.0, zero: 0.0 },
        false => OutputScale { unit: grid.step(), zero: grid.low as f32 },
    }
}

/// Freezes a trained codec in some qualities, whose steps are on its grid ([`Quality::on_grid`]). The sequences of
/// `calibration` determine the fixed-point scales, the parameters of qualities that were not trained, the length offsets
/// and the expected bits. How often tokens occur in `tokens` determines how streams code side indices, if the codec takes
/// any.
///
/// # Errors
/// [`Error::TooFine`] or [`Error::Factor`] if steps or scales do not fit, [`Error::Codec`] if a hidden state is not
/// finite, [`Error::Model`] if the model breaks a rule of spec chapter 4, [`Error::Setting`] if a sequence has another
/// number of tokens than frames.
pub fn freeze(
    codec: &FloatCodec,
    qualities: &[Quality],
    calibration: &[Sequence],
    tokens: &[u32],
    version: u32,
) -> Result<CodecModel> {
    let width = codec.step.len();
    let channels = codec.channels();
    let ats: Vec<At> = qualities.iter().enumerate().map(|(index, quality)| At { index, quality: *quality }).collect();
    let (mut of_h, mut of_g_y) = (Extremes::default(), Extremes::default());
    let mut largest = f32::MIN; // log2 of the largest scale seen
    let trained = &ats[..ats.len().min(codec.w_coding.len())];
    for (sequence, at) in calibration.iter().flat_map(|sequence| trained.iter().map(move |at| (sequence, *at))) {
        let y = codec.quantise(&sequence.hidden, at)?;
        let w = codec.w(&y, at, Some(&mut of_h))?;
        let real = codec.run_g_y(&w, &sequence.ids, at, Some(&mut of_g_y))?;
        let scales = real.chunks_exact(2 * width).flat_map(|real| &real[width..]);
        largest = scales.fold(largest, |largest, scale| largest.max(*scale));
    }
    // One octave above the largest scale, for text unlike the calibration's, plus what finer steps add.
    let places = |quality: &Quality| quality.places(codec.grid);
    let finest = qualities.iter().map(places).max().unwrap_or(0).max(0);
    let grid = codec.grid.cut(f64::from(largest) + 1.0).longer(finest as usize);
    if grid.count > SCALES_MAX {
        return Err(Error::TooFine { what: "scales", found: grid.count, most: SCALES_MAX });
    }
    let widest = grid.scale(grid.count - 1) * 2.0 * tables::REACH + 3.0;
    if widest > TABLE_MAX as f64 {
        return Err(Error::TooFine { what: "values in a table", found: widest.round() as usize, most: TABLE_MAX });
    }
    let gains = |index: usize| codec.w_coding(index).gain.iter().map(|gain| f64::from(*gain));
    let of_h_qualities = ats.iter().map(|at| QualityScales {
        input: vec![at.quality.steps; width],
        output: gains(at.index).collect(),
        offset: vec![0; channels],
    });
    let of_h_qualities: Vec<_> = of_h_qualities.collect();
    let of_g_y_qualities = ats.iter().map(|at| {
        let (output, offset) = outputs_of(codec, *at, grid, calibration)?;
        let mut input: Vec<f64> = gains(at.index).map(|gain| 1.0 / gain).collect();
        input.extend(codec.side.iter().flat_map(|side| &side.units).map(|unit| f64::from(*unit)));
        Ok(QualityScales { input, output, offset })
    });
    let of_g_y_qualities = of_g_y_qualities.collect::<Result<Vec<_>>>()?;
    let distribution = Outputs::Distribution { elements: width, scales: grid.count };
    let hyper_prior = Outputs::HyperPrior { channels, min: W_RANGE.0.into(), max: W_RANGE.1.into() };
    let decoder_network =
        network::freeze(&codec.g_y, &of_g_y, distribution, output_scale(width, grid), &of_g_y_qualities)?;
    let encoder_network =
        network::freeze(&codec.h, &of_h, hyper_prior, |_| OutputScale { unit: 1.0, zero: 0.0 }, &of_h_qualities)?;
    let mut w_bank = BankParts::default();
    for masses in ats.iter().flat_map(|at| &codec.w_coding(at.index).masses) {
        w_bank.push(masses);
    }
    let (analysis, synthesis) = codec.maps.as_ref().map(FloatMaps::maps).unzip();
    let step: Vec<f32> = qualities.iter().flat_map(|quality| codec.steps(*quality)).collect();
    let model = CodecModel::new(ModelParts {
        side: codec.side.as_ref().map(|side| side_parts(side, tokens)),
        prediction: None,
        version,
        e: width,
        c: channels,
        qualities: qualities.len(),
        w_range: W_RANGE,
        y_range: Y_RANGE,
        fraction_bits: (0..grid.count).map(|scale| grid.fraction_bits(scale)).collect(),
        hyper_prior: w_bank.into(),
        target: normal_bank(&grid).into(),
        step: step.clone(),
        offset: codec.offset.repeat(qualities.len()),
        synthesis,
        decoder_network,
        encoder: Some(EncoderPart {
            network: encoder_network,
            reciprocal_step: step.iter().map(|step| 1.0 / step).collect(),
            rate_weight: qualities.iter().map(|quality| quality.rate_weight as f32).collect(),
            // What the frames need is measured with the frozen model.
            length_offset: vec![0; qualities.len()],
            expected_bits: vec![0.0; qualities.len()],
            analysis,
        }),
    })?;
    with_measured_lengths(model, calibration.iter().map(|sequence| (&sequence.hidden[..], sequence.ids())), 1)
}

/// An embedding, and the tables that code side indices as often as they occur in `tokens`.
fn side_parts(side: &FloatSide, tokens: &[u32]) -> SideParts {
    let side::Shape { vocabulary, width, .. } = side.shape;
    SideParts {
        width,
        vocabulary,
        embedding: side.embedding.clone(),
        tables: tables::side_bank(tokens, vocabulary).into(),
    }
}

/// What a quality changes about g_y's outputs: factors and offsets. They convert means and scales to the quality's
/// steps and, if the quality was not trained, apply the lines that fit the calibration.
fn outputs_of(codec: &FloatCodec, at: At, grid: ScaleGrid, calibration: &[Sequence]) -> Result<(Vec<f64>, Vec<i32>)> {
    let (width, steps, places) = (codec.step.len(), at.quality.steps, at.quality.places(codec.grid));
    let mut factors = vec![1.0; 2 * width];
    let mut added = vec![0; 2 * width];
    factors[..width].fill(1.0 / steps);
    added[width..].fill(places);
    if at.index < codec.w_coding.len() || places == 0 {
        return Ok((factors, added));
    }
    // For each element: Y, means and indices over all frames.
    let mut elements = vec![(Vec::new(), Vec::new(), Vec::new()); width];
    for Sequence { hidden, ids } in calibration {
        let y = codec.quantise(hidden, at)?;
        let w = codec.w(&y, at, None)?;
        let real = codec.run_g_y(&w, ids, at, None)?;
        for (y, real) in y.chunks_exact(width).zip(real.chunks_exact(2 * width)) {
            for (e, (ys, means, indices)) in elements.iter_mut().enumerate() {
                ys.push(f64::from(y[e]));
                means.push(f64::from(real[e]) / steps);
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
    for (e, refit) in refits?.into_iter().enumerate() {
        factors[e] = refit.mean.factor / steps;
        added[e] = (64.0 * refit.mean.added).round().clamp(-1_048_576.0, 1_048_576.0) as i32;
        factors[width + e] = refit.index.factor;
        added[width + e] = refit.index.added as i32;
    }
    Ok((factors, added))
}
