//! Converts float networks to integer parameters: the exporter of spec 4.2.
//!
//! Every integer of the frozen network represents a real number, integer · scale. The scales are chosen here:
//!
//! | integers | scale |
//! | --- | --- |
//! | residual stream, per stage | calibrated maximum · margin / 32,767 |
//! | norm output of width d | 2^−F, the largest F with √d · 2^F ≤ 32,767 |
//! | queries and keys, per head; values, per block | calibrated maximum · margin / 2,047 |
//! | scores | [`SCORE_UNIT`] nats |
//! | activation input | 1/256 (±8 is ±2,048) |
//! | activation output | 1/4,096 |
//! | means | 1/64 |

use candle_core::Tensor;

use crate::codec::network::{Extremes, Network, Precision};
use crate::codec::rounded::quantise_row;
use crate::{Error, Result};
use midspan::model::network::{
    ACTIVATION_MAX, EXP_LEN, EXP_MAX, KEY_MAX, MULTIPLIER_MAX, PRE_ACTIVATION_MAX, PRE_ACTIVATION_MIN, SHIFT_MAX,
};
use midspan::model::{Block, Linear, NetworkParameters, Outputs};

/// Nats of one unit of the exp table: entry 1,023 is below half a unit of 1/4,095.
pub const SCORE_UNIT: f64 = 1.0 / 112.0;
const RESIDUAL_MARGIN: f64 = 1.5;
const HEAD_MARGIN: f64 = 1.25;
const ACTIVATION_IN: f64 = 1.0 / 256.0;
const ACTIVATION_OUT: f64 = 1.0 / 4096.0;

/// The largest factor of an input: a multiplier of 15 bits and a shift of one hold little more.
const FACTOR_MAX: f64 = 16_000.0;

/// GELU in its tanh form, as candle's `gelu`.
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + ((2.0 / std::f32::consts::PI).sqrt() * x * (1.0 + 0.044_715 * x * x)).tanh())
}

/// The exp table: entry i is 4,095 · e^(−i · unit), rounded.
pub fn exp_table() -> Vec<u16> {
    (0..EXP_LEN as u32).map(|i| (f64::from(EXP_MAX) * (-f64::from(i) * SCORE_UNIT).exp()).round() as u16).collect()
}

/// The activation table: GELU at (i − 2,048) / 256, in units of 1/4,096.
pub fn activation_table() -> Vec<i16> {
    (PRE_ACTIVATION_MIN..=PRE_ACTIVATION_MAX)
        .map(|i| {
            let value = f64::from(gelu((i as f32) / 256.0)) / ACTIVATION_OUT;
            value.round().clamp(-f64::from(ACTIVATION_MAX), f64::from(ACTIVATION_MAX)) as i16
        })
        .collect()
}

/// A positive real factor as multiplier and shift, m · 2^−s, where m is below 2^15 and has as many bits as fit.
///
/// # Errors
/// [`Error::Factor`] if the factor is negative or no number, or too large for a shift of one.
pub fn requantisation(factor: f64) -> Result<(i32, u8)> {
    let refused = Error::Factor { found: factor, most: f64::from(MULTIPLIER_MAX) / 2.0 };
    if factor.is_nan() || factor < 0.0 {
        return Err(refused);
    }
    for shift in (1..=SHIFT_MAX).rev() {
        let multiplier = (factor * 2.0_f64.powi(i32::from(shift))).round();
        if multiplier <= f64::from(MULTIPLIER_MAX) {
            return Ok((multiplier as i32, shift));
        }
    }
    Err(refused)
}

/// What a quality changes about a network.
#[derive(Clone, Debug, PartialEq)]
pub struct QualityScales {
    /// \[inputs\]: factors of the inputs.
    pub input: Vec<f64>,
    /// \[outputs\]: factors of the outputs.
    pub output: Vec<f64>,
    /// \[outputs\]: integers that are added.
    pub offset: Vec<i32>,
}

/// What the integers of a network's output row mean: a real value is `unit` · integer + `zero`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutputScale {
    /// Real value of one unit.
    pub unit: f64,
    /// Real value of 0.
    pub zero: f32,
}

/// Float weights of a dense layer `y = W x + b`.
struct Layer {
    inputs: usize,
    outputs: usize,
    /// `[outputs, inputs]`.
    weight: Vec<f32>,
    /// `[outputs]`, or empty if there is none.
    bias: Vec<f32>,
}

impl Layer {
    /// A layer without bias, with its weights as the network computes with them.
    fn new(weight: &Tensor, precision: Precision) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        let weight = precision.weight(weight)?.flatten_all()?.to_vec1()?;
        Ok(Self { inputs, outputs, weight, bias: Vec::new() })
    }
}

/// Freezes a layer with inputs of scale `scale_in` and outputs of scale `scale_out(i)` in row i.
fn linear(layer: &Layer, scale_in: f64, scale_out: impl Fn(usize) -> f64) -> Result<Linear> {
    linear_of_qualities(layer, scale_in, |_, row| scale_out(row), 1)
}

/// Freezes a layer whose multipliers differ by quality: the outputs of row i have scale `scale_out(quality, i)`.
fn linear_of_qualities(
    layer: &Layer,
    scale_in: f64,
    scale_out: impl Fn(usize, usize) -> f64,
    qualities: usize,
) -> Result<Linear> {
    let mut scales = Vec::with_capacity(layer.outputs);
    let mut frozen = Linear {
        inputs: layer.inputs,
        outputs: layer.outputs,
        weight: Vec::with_capacity(layer.weight.len()),
        bias: Vec::with_capacity(layer.outputs),
        multiplier: Vec::with_capacity(layer.outputs),
        shift: Vec::with_capacity(layer.outputs),
    };
    for (i, row) in layer.weight.chunks_exact(layer.inputs).enumerate() {
        let bias = f64::from(layer.bias.get(i).copied().unwrap_or(0.0));
        let (weights, scale) = quantise_row(row, bias / (scale_in * f64::from(ACTIVATION_MAX)));
        frozen.weight.extend(weights);
        frozen.bias.push((bias / (scale * scale_in)).round() as i32);
        scales.push(scale * scale_in);
    }
    for quality in 0..qualities {
        for (i, scale) in scales.iter().enumerate() {
            let (multiplier, shift) = requantisation(scale / scale_out(quality, i))?;
            frozen.multiplier.push(multiplier);
            frozen.shift.push(shift);
        }
    }
    Ok(frozen)
}

/// Scale of a norm's output, and its numerator: y = x · N / (16 · √ss · 2^20) with N = 2^F · √d · 2^24.
fn norm(width: usize) -> (f64, i64) {
    let root = (width as f64).sqrt();
    let bits = (f64::from(ACTIVATION_MAX) / root).log2().floor();
    ((-bits).exp2(), ((bits + 24.0).exp2() * root).round() as i64)
}

/// Scale of a residual stream that can hold `top` with the margin.
fn residual(top: f32) -> f64 {
    f64::from(top.max(1e-6)) * RESIDUAL_MARGIN / f64::from(ACTIVATION_MAX)
}

fn head_scale(top: f32) -> f64 {
    f64::from(top.max(1e-6)) * HEAD_MARGIN / f64::from(KEY_MAX)
}

/// Freezes a float network. `qualities` holds what each quality changes.
///
/// `output_scale(row)` is what the integers of output `row` mean.
///
/// # Errors
/// [`Error::Factor`] if multiplier and shift cannot hold a factor, [`Error::Model`] if the result breaks a rule of spec
/// 4.2, [`Error::Tensor`] if weights are not f32 on the CPU.
pub fn freeze(
    float: &Network,
    extremes: &Extremes,
    outputs: Outputs,
    output_scale: impl Fn(usize) -> OutputScale,
    qualities: &[QualityScales],
) -> Result<NetworkParameters> {
    let shape = &float.shape;
    let layer = |weight: &Tensor| Layer::new(weight, float.precision);
    let input_gain = float.input_gain()?.to_vec1::<f32>()?;
    let gains = qualities
        .iter()
        .flat_map(|quality| input_gain.iter().zip(&quality.input).map(|(gain, input)| f64::from(*gain) * input));
    let gains: Vec<f64> = gains.collect();
    let mut blocks = Vec::new();
    // The stage's scale holds both the input of the first block and what follows it, and inputs have no larger factors
    // than a multiplier can hold.
    let least = gains.iter().fold(0.0, |most: f64, gain| most.max(*gain)) / FACTOR_MAX;
    let mut scale_x = residual(extremes.narrow[0]).max(least);
    let input_scale = scale_x;
    for (b, block) in float.blocks.iter().enumerate() {
        let next_narrow = extremes.narrow.get(b + 1).copied().unwrap_or(0.0);
        let scale_p = residual(extremes.wide[b].max(next_narrow));
        let size = shape.widths[b] / shape.heads;
        let (scale_n1, norm1) = norm(shape.widths[b]);
        let (scale_n2, norm2) = norm(shape.widths[b + 1]);
        let scale_q: Vec<f64> = extremes.q[b].iter().map(|top| head_scale(*top)).collect();
        let scale_k: Vec<f64> = extremes.k[b].iter().map(|top| head_scale(*top)).collect();
        let scale_v = head_scale(extremes.v[b]);
        let score = |head: usize| scale_q[head] * scale_k[head] / (size as f64).sqrt() / SCORE_UNIT;
        let scores = (0..shape.heads).map(|head| requantisation(score(head))).collect::<Result<Vec<_>, _>>()?;
        blocks.push(Block {
            norm1,
            norm2,
            q: linear(&layer(&block.q)?, scale_n1, |row| scale_q[row / size])?,
            k: linear(&layer(&block.k)?, scale_n1, |row| scale_k[row / size])?,
            v: linear(&layer(&block.v)?, scale_n1, |_| scale_v)?,
            o: linear(&layer(&block.o)?, scale_v, |_| scale_x)?,
            proj: linear(&layer(&block.proj)?, scale_x, |_| scale_p)?,
            up: linear(&layer(&block.up)?, scale_n2, |_| ACTIVATION_IN)?,
            down: linear(&layer(&block.down)?, ACTIVATION_OUT, |_| scale_p)?,
            score_multiplier: scores.iter().map(|(multiplier, _)| *multiplier).collect(),
            score_shift: scores.iter().map(|(_, shift)| *shift).collect(),
            position: block
                .bias
                .flatten_all()?
                .to_vec1::<f32>()?
                .iter()
                .map(|bias| (f64::from(*bias) / SCORE_UNIT).round().clamp(-1_048_576.0, 1_048_576.0) as i32)
                .collect(),
        });
        scale_x = scale_p;
    }
    let (output_in, output_norm) = if shape.last_norm {
        let last = shape.widths.last().ok_or_else(|| Error::setting("the number of widths", 0, "at least 2"))?;
        let (scale, numerator) = norm(*last);
        (scale, Some(numerator))
    } else {
        (scale_x, None)
    };
    let inputs = gains.iter().map(|gain| requantisation(gain / input_scale)).collect::<Result<Vec<_>, _>>()?;
    let unit = |quality: usize, row: usize| output_scale(row).unit / qualities[quality].output[row];
    // The zero is part of the bias, so it adds no rounding.
    let units = float.unit.as_ref().map(Tensor::to_vec1::<f32>).transpose()?;
    let unit_of = |row: usize| units.as_ref().map_or(1.0, |units| units[row]);
    let bias = float.bias.to_vec1::<f32>()?.into_iter().enumerate();
    let bias = bias.map(|(row, bias)| bias * unit_of(row) - output_scale(row).zero);
    let mut output = Layer { bias: bias.collect(), ..layer(&float.weight)? };
    for (row, weights) in output.weight.chunks_exact_mut(output.inputs).enumerate() {
        weights.iter_mut().for_each(|weight| *weight *= unit_of(row));
    }
    let output = linear_of_qualities(&output, output_in, unit, qualities.len())?;
    // Without blocks there is no attention and no activation (spec 4.2).
    let (window, exp, activation) = match float.blocks.is_empty() {
        true => (1, Vec::new(), Vec::new()),
        false => (shape.window, exp_table(), activation_table()),
    };
    let frozen = NetworkParameters {
        widths: shape.widths.clone(),
        heads: vec![shape.heads; float.blocks.len()],
        window,
        qualities: qualities.len(),
        exp,
        activation,
        input_multiplier: inputs.iter().map(|(multiplier, _)| *multiplier).collect(),
        input_shift: inputs.iter().map(|(_, shift)| *shift).collect(),
        output_offset: qualities.iter().flat_map(|quality| quality.offset.iter().copied()).collect(),
        blocks,
        outputs,
        output_norm,
        output,
    };
    frozen.validate()?;
    Ok(frozen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_keep_fifteen_bits() {
        for factor in [1e-9, 3.7e-5, 0.02, 0.99, 1.0, 77.7, 16_000.0] {
            let (multiplier, shift) = requantisation(factor).unwrap();
            let back = f64::from(multiplier) / 2.0_f64.powi(i32::from(shift));
            assert!((back / factor - 1.0).abs() < 1.0 / 16_000.0, "{factor} became {back}");
        }
        for wrong in [20_000.0, -0.5, f64::NAN] {
            let error = requantisation(wrong).unwrap_err();
            assert!(matches!(error, Error::Factor { most: 16_383.5, .. }), "{error:?}");
        }
        assert!(requantisation(16_383.5).is_ok());
    }

    #[test]
    fn tables_obey_the_spec() {
        let exp = exp_table();
        assert_eq!((exp[0], exp[1023]), (4095, 0));
        let activation = activation_table();
        assert_eq!((activation[2048], activation[0]), (0, 0));
        assert_eq!(activation[4095], 32_752);
    }
}
