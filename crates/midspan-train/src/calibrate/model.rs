//! The model of a calibration: networks without blocks, and tables.

use super::Calibration;
use super::known::{self, Known};
use super::levels::{self, Levels};
use super::prediction::Predicting;
use super::tables::StaticTables;
use crate::Result;
use crate::codec::Y_RANGE;
use crate::freeze::tables::{BankParts, Masses};
use midspan::model::network::{MULTIPLIER_MAX, SHIFT_MAX};
use midspan::model::{CodecModel, EncoderPart, Linear, Map, ModelParts, NetworkParameters, Outputs};

/// What means and scales of Y are made of.
pub(super) enum Fitted {
    /// Constants of each channel and quality.
    Static(StaticTables),
    /// What side indices and the frames before tell.
    Told(Levels),
}

impl Calibration {
    /// The model. `maps` are synthesis and analysis, and how much larger the step of each channel is than a quality's.
    pub(super) fn model(
        &self,
        mean: &[f32],
        ((synthesis, analysis), units): ((Map, Map), &[f64]),
        steps: &[f64],
        fitted: Fitted,
        known: Option<Known>,
        predicting: Option<Predicting>,
    ) -> Result<CodecModel> {
        let (width, qualities) = (mean.len(), steps.len());
        let step: Vec<f32> = steps.iter().flat_map(|step| units.iter().map(move |unit| (step * unit) as f32)).collect();
        let mut outputs = Vec::with_capacity(2 * width * qualities);
        let mut add = |means: &mut dyn Iterator<Item = i32>, scales: &mut dyn Iterator<Item = i32>| {
            outputs.extend(means);
            outputs.extend(scales);
        };
        let (fraction_bits, target) = match &fitted {
            Fitted::Static(tables) => {
                for places in tables.places.chunks_exact(width) {
                    add(
                        &mut places.iter().map(|place| 64 * place.centre),
                        &mut places.iter().map(|place| place.table as i32),
                    );
                }
                (vec![0; tables.count()], tables.bank())
            }
            Fitted::Told(levels) => {
                for (means, scales) in levels.offset.chunks_exact(width).zip(levels.base.chunks_exact(width)) {
                    add(&mut means.iter().copied(), &mut scales.iter().copied());
                }
                (levels::fraction_bits(), levels.bank())
            }
        };
        let distribution = Outputs::Distribution { elements: width, scales: fraction_bits.len() };
        let hyper_prior = Outputs::HyperPrior { channels: 1, min: 0, max: 1 };
        let mut g_y = constant_network(1, distribution, qualities, outputs);
        let side = known.map(|known| {
            take_side(&mut g_y, &known, steps);
            known.parts
        });
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
            fraction_bits,
            hyper_prior: w_bank.into(),
            target,
            step: step.clone(),
            offset: mean.repeat(qualities),
            synthesis: Some(synthesis),
            side,
            prediction: predicting.map(|predicting| predicting.parts),
            decoder_network: g_y,
            encoder: Some(EncoderPart {
                network: constant_network(width, hyper_prior, qualities, vec![0; qualities]),
                reciprocal_step: step.iter().map(|step| 1.0 / step).collect(),
                rate_weight: vec![self.rate_weight as f32; qualities],
                length_offset: vec![0; qualities],
                expected_bits: vec![0.0; qualities],
                analysis: Some(analysis),
            }),
        })?)
    }
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

/// Adds to the means of a network without blocks what side indices predict, for steps of each quality.
fn take_side(g_y: &mut NetworkParameters, known: &Known, steps: &[f64]) {
    let width = known.unit.len();
    // W, which has no weight, a sum for each channel, and the loudness.
    let inputs = 1 + width + 1;
    let (multiplier, shift) = known::INPUT_SCALE;
    g_y.widths = vec![inputs];
    g_y.input_multiplier = [&[0][..], &vec![multiplier; inputs - 1]].concat().repeat(steps.len());
    g_y.input_shift = vec![shift; inputs * steps.len()];
    g_y.output.inputs = inputs;
    g_y.output.weight = vec![0; 2 * width * inputs];
    for (row, weight) in g_y.output.weight.chunks_exact_mut(inputs).enumerate() {
        weight[if row < width { 1 + row } else { 1 + width }] = 1;
    }
    for (step, (multipliers, shifts)) in steps
        .iter()
        .zip(g_y.output.multiplier.chunks_exact_mut(2 * width).zip(g_y.output.shift.chunks_exact_mut(2 * width)))
    {
        // Means are in 1/64 of a step, scales in levels.
        let means = known.unit.iter().map(|unit| scaling(64.0 * f64::from(*unit) / step));
        let rows = means.chain(std::iter::repeat_n(known::LOUDNESS_SCALE, width));
        for ((row, multiplier), shift) in rows.zip(multipliers).zip(shifts) {
            (*multiplier, *shift) = row;
        }
    }
}

/// The multiplier and shift nearest to a factor.
pub(super) fn scaling(factor: f64) -> (i32, u8) {
    let largest = f64::from(MULTIPLIER_MAX);
    let shift = (1..=SHIFT_MAX).rev().find(|shift| factor * 2f64.powi((*shift).into()) <= largest).unwrap_or(1);
    ((factor * 2f64.powi(shift.into())).round().clamp(0.0, largest) as i32, shift)
}
