//! Prediction of Y from decoded frames: its tensors, and when they are refused (spec 4.9).

#![deny(clippy::float_arithmetic)]

use super::file::{read_linear, write_linear};
use super::network::{ACTIVATION_MAX, Invalid, Linear, ROW_MAX, invalid, length, linear, scaling};
use super::tensor::{File, Tensor};
use crate::error::{ErrorKind, Result};

/// The largest P.
pub const FRAMES_MAX: usize = 4;
/// The largest R.
pub const RANK_MAX: usize = 1_024;

const PREDICTION: &str = "decoder.prediction.";
const DIAGONAL: &str = "decoder.prediction.diagonal";
const REDUCE: &str = "decoder.prediction.reduce";
const EXPAND: &str = "decoder.prediction.expand";

/// How a model predicts Y (spec 6.13). It is unchecked until it is part of a [`CodecModel`](super::CodecModel).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// \[Q, E\], 0 … 32,767: from Y of a quality to the common unit.
    pub input_multiplier: Vec<i32>,
    /// \[Q, E\], 1 … 46.
    pub input_shift: Vec<u8>,
    /// \[P, E\], −32,767 … 32,767, P = 1 … 4: the weight of each channel's own past, one frame back first.
    pub diagonal: Vec<i16>,
    /// The part that mixes channels, if there is one.
    pub low_rank: Option<LowRank>,
    /// \[Q, E\], 0 … 32,767: from the sum of both parts to 1/64 step of a quality.
    pub output_multiplier: Vec<i32>,
    /// \[Q, E\], 1 … 46.
    pub output_shift: Vec<u8>,
}

/// The part of a prediction that mixes channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LowRank {
    /// P · E → R, R = 1 … 1,024. Input (d − 1) · E + c is channel c of the frame d frames back.
    pub reduce: Linear,
    /// \[E, R\], −127 … 127.
    pub expand: Vec<i8>,
}

impl Prediction {
    /// P, given E.
    #[must_use]
    pub fn frames(&self, width: usize) -> usize {
        self.diagonal.len().checked_div(width).unwrap_or(0)
    }

    /// R; 0 without a part that mixes channels.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.low_rank.as_ref().map_or(0, |low_rank| low_rank.reduce.outputs)
    }

    /// What predicts frames of a quality. A model's own is [`CodecModel::predictor`](super::CodecModel::predictor), whose
    /// tensors were checked.
    ///
    /// # Panics
    /// When it is used, if E = `width` is 0.
    #[must_use]
    pub fn predictor(&self, width: usize, quality: usize) -> Predictor<'_> {
        Predictor { prediction: self, width, quality }
    }

    /// Multiplications by weights that one frame takes.
    #[must_use]
    pub fn multiplications(&self) -> u64 {
        let low_rank =
            self.low_rank.as_ref().map_or(0, |part| part.reduce.weight.len().saturating_add(part.expand.len()));
        crate::number::to_u64(self.diagonal.len().saturating_add(low_rank))
    }

    /// Checks every rule of spec 4.9 for a model of Q = `qualities` and E = `width`.
    pub(super) fn check(&self, qualities: usize, width: usize) -> Result<(), Invalid> {
        let rows = qualities.saturating_mul(width);
        let frames = self.frames(width);
        // [MODEL-14]
        if !(1..=FRAMES_MAX).contains(&frames) {
            return Err(invalid(ErrorKind::ModelTensorShape, DIAGONAL, "P is not 1 to 4"));
        }
        length(self.diagonal.len(), frames.saturating_mul(width), DIAGONAL)?;
        if self.diagonal.contains(&i16::MIN) {
            return Err(invalid(ErrorKind::ModelValue, DIAGONAL, "a value of −32,768"));
        }
        scaling(&self.input_multiplier, &self.input_shift, rows, "decoder.prediction.input")?;
        scaling(&self.output_multiplier, &self.output_shift, rows, "decoder.prediction.output")?;
        if let Some(LowRank { reduce, expand }) = &self.low_rank {
            let rank = reduce.outputs;
            if !(1..=RANK_MAX).contains(&rank) {
                return Err(invalid(ErrorKind::ModelTensorShape, EXPAND, "R is not 1 to 1,024"));
            }
            length(expand.len(), rank.saturating_mul(width), EXPAND)?;
            if expand.contains(&i8::MIN) {
                return Err(invalid(ErrorKind::ModelValue, EXPAND, "a value of −128"));
            }
            // [MODEL-4]
            linear(reduce, frames.saturating_mul(width), rank, 1, REDUCE)?;
        }
        if (0..width).any(|channel| self.weights(channel, width) > ROW_MAX) {
            return Err(invalid(
                ErrorKind::ModelRowBound,
                DIAGONAL,
                "the magnitudes of a channel's weights sum to over 65,535",
            ));
        }
        Ok(())
    }

    /// Σ_d |diagonal[d − 1, c]| + Σ_r |expand[c, r]| of a channel c.
    fn weights(&self, channel: usize, width: usize) -> i64 {
        let own = self.diagonal.chunks_exact(width.max(1)).filter_map(|row| row.get(channel));
        let own = own.fold(0, |sum: i64, weight| sum.saturating_add(weight.unsigned_abs().into()));
        let row =
            self.low_rank.as_ref().and_then(|part| part.expand.chunks_exact(part.reduce.outputs.max(1)).nth(channel));
        row.unwrap_or(&[]).iter().fold(own, |sum, weight| sum.saturating_add(weight.unsigned_abs().into()))
    }
}

/// Whether a file's model predicts.
pub(super) fn predicts(file: &File<'_>) -> bool {
    file.any(|name| name.starts_with(PREDICTION))
}

/// Reads the prediction of a model that predicts; [`Prediction::check`] judges the values.
pub(super) fn read(file: &mut File<'_>, qualities: usize, width: usize) -> Result<Prediction> {
    let (shape, diagonal) = file.take_any(DIAGONAL)?;
    // [MODEL-14] P or R outside its range is error 703.
    let frames = match *shape.as_slice() {
        [frames, last] if last == width && (1..=FRAMES_MAX).contains(&frames) => frames,
        _ => {
            let wanted = shape.first().map_or(1, |frames| (*frames).clamp(1, FRAMES_MAX));
            return Err(file.misshapen(DIAGONAL, &[wanted, width], &shape));
        }
    };
    let low_rank = if file.any(|name| name == EXPAND || name.starts_with("decoder.prediction.reduce.")) {
        let (shape, expand) = file.take_any(EXPAND)?;
        let rank = match *shape.as_slice() {
            [first, rank] if first == width && (1..=RANK_MAX).contains(&rank) => rank,
            _ => {
                let wanted = shape.get(1).map_or(1, |rank| (*rank).clamp(1, RANK_MAX));
                return Err(file.misshapen(EXPAND, &[width, wanted], &shape));
            }
        };
        Some(LowRank { reduce: read_linear(file, REDUCE, frames.saturating_mul(width), rank, None)?, expand })
    } else {
        None
    };
    let rows = [qualities, width];
    Ok(Prediction {
        input_multiplier: file.take("decoder.prediction.input.multiplier", &rows)?,
        input_shift: file.take("decoder.prediction.input.shift", &rows)?,
        diagonal,
        low_rank,
        output_multiplier: file.take("decoder.prediction.output.multiplier", &rows)?,
        output_shift: file.take("decoder.prediction.output.shift", &rows)?,
    })
}

/// Adds the tensors of a prediction.
pub(super) fn write(prediction: &Prediction, qualities: usize, width: usize, tensors: &mut Vec<Tensor>) {
    let rows = [qualities, width];
    tensors.push(Tensor::new("decoder.prediction.input.multiplier", &rows, &prediction.input_multiplier));
    tensors.push(Tensor::new("decoder.prediction.input.shift", &rows, &prediction.input_shift));
    tensors.push(Tensor::new(DIAGONAL, &[prediction.frames(width), width], &prediction.diagonal));
    if let Some(LowRank { reduce, expand }) = &prediction.low_rank {
        write_linear(reduce, REDUCE, None, tensors);
        tensors.push(Tensor::new(EXPAND, &[width, reduce.outputs], expand));
    }
    tensors.push(Tensor::new("decoder.prediction.output.multiplier", &rows, &prediction.output_multiplier));
    tensors.push(Tensor::new("decoder.prediction.output.shift", &rows, &prediction.output_shift));
}

/// How prediction computes for one model and one quality (spec 6.13).
#[derive(Clone, Copy, Debug)]
pub struct Predictor<'a> {
    prediction: &'a Prediction,
    width: usize,
    quality: usize,
}

/// What a prediction reads: the frames before the next one, in the common unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// \[P, E\], the newest first; 0 where there is no frame.
    x: Vec<i16>,
    /// \[R\], for the low-rank part.
    reduced: Vec<i16>,
}

impl Predictor<'_> {
    /// P.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.prediction.frames(self.width)
    }

    /// The past after some frames, `[n, E]` in the common unit, the newest last; of more than P the last P count.
    #[must_use]
    pub fn past(&self, frames: &[i16]) -> Past {
        let mut past = Past { x: vec![0; self.prediction.diagonal.len()], reduced: vec![0; self.prediction.rank()] };
        let newest_first = frames.rchunks_exact(self.width);
        past.x.chunks_exact_mut(self.width).zip(newest_first).for_each(|(x, frame)| x.copy_from_slice(frame));
        past
    }

    /// Step 1 of spec 6.13: Y of a frame of this quality, `[E]`, in the common unit. Appends E values.
    pub fn to_common_unit(&self, y: &[i16], x: &mut Vec<i16>) {
        let multipliers = row(&self.prediction.input_multiplier, self.quality, self.width);
        let shifts = row(&self.prediction.input_shift, self.quality, self.width);
        x.extend(
            y.iter()
                .zip(multipliers)
                .zip(shifts)
                .map(|((y, multiplier), shift)| clamp16(scaled(i32::from(*y), *multiplier, *shift))),
        );
    }

    /// Takes Y, `[E]`, of the next frame, which is of this quality, into the past.
    pub fn push(&self, past: &mut Past, y: &[i16]) {
        // All but the oldest frame move on; of P ≥ 1 frames there is always one to replace.
        let kept = past.x.len().saturating_sub(self.width);
        past.x.copy_within(..kept, self.width);
        let mut x = Vec::with_capacity(self.width);
        self.to_common_unit(y, &mut x);
        past.x.iter_mut().zip(x).for_each(|(to, x)| *to = x);
    }

    /// Adds the prediction of the next frame to g_y's means, `[E]`, steps 2 to 5 of spec 6.13.
    pub fn add(&self, past: &mut Past, means: &mut [i32]) {
        let Past { x, reduced } = past;
        let Prediction { diagonal, low_rank, output_multiplier, output_shift, .. } = self.prediction;
        if let Some(LowRank { reduce, .. }) = low_rank {
            let rows = reduce.weight.chunks_exact(reduce.inputs.max(1));
            let rows = rows.zip(&reduce.bias).zip(reduce.multiplier.iter().zip(&reduce.shift));
            for (to, ((weights, bias), (multiplier, shift))) in reduced.iter_mut().zip(rows) {
                *to = clamp16(scaled(dot(weights, x).wrapping_add(*bias), *multiplier, *shift));
            }
        }
        let rank = reduced.len();
        let multipliers = row(output_multiplier, self.quality, self.width);
        let shifts = row(output_shift, self.quality, self.width);
        for (channel, ((mean, multiplier), shift)) in means.iter_mut().zip(multipliers).zip(shifts).enumerate() {
            // No partial sum exceeds the row's bound, and so none wraps.
            let own = |values: &[i16]| values.get(channel).copied().map_or(0, i32::from);
            let mut sum = 0_i32;
            for (weights, x) in diagonal.chunks_exact(self.width).zip(x.chunks_exact(self.width)) {
                sum = sum.wrapping_add(own(weights).wrapping_mul(own(x)));
            }
            if let Some(LowRank { expand, .. }) = low_rank {
                let from = channel.saturating_mul(rank);
                sum = sum.wrapping_add(dot(expand.get(from..from.saturating_add(rank)).unwrap_or(&[]), reduced));
            }
            // Below 2^47 and 2^20 in magnitude.
            let predicted = i64::from(*mean).wrapping_add(scaled(sum, *multiplier, *shift));
            let bound = i64::from(super::network::WIDE_MAX);
            *mean = i32::try_from(predicted.clamp(bound.wrapping_neg(), bound)).unwrap_or(0);
        }
    }
}

impl Past {
    /// Bytes held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.x.capacity().saturating_add(self.reduced.capacity()).saturating_mul(2)
    }
}

/// Row `quality` of \[Q, `width`\].
fn row<T>(values: &[T], quality: usize, width: usize) -> &[T] {
    let from = quality.saturating_mul(width);
    values.get(from..from.saturating_add(width)).unwrap_or(&[])
}

/// Σ weights · x, which the row bound keeps below 2^31 in any order.
fn dot(weights: &[i8], x: &[i16]) -> i32 {
    weights
        .iter()
        .zip(x)
        .fold(0, |sum: i32, (weight, x)| sum.wrapping_add(i32::from(*weight).wrapping_mul(i32::from(*x))))
}

/// round_shift(value · multiplier, shift): below 2^46 before rounding adds at most 2^45.
fn scaled(value: i32, multiplier: i32, shift: u8) -> i64 {
    let half = 1_i64.wrapping_shl(u32::from(shift).wrapping_sub(1));
    i64::from(value).wrapping_mul(multiplier.into()).wrapping_add(half).wrapping_shr(shift.into())
}

fn clamp16(value: i64) -> i16 {
    let bound = i64::from(ACTIVATION_MAX);
    i16::try_from(value.clamp(bound.wrapping_neg(), bound)).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// Two frames back, two channels, rank one, two qualities.
    fn prediction() -> Prediction {
        Prediction {
            input_multiplier: vec![16, 16, 8, 8],
            input_shift: vec![1; 4],
            diagonal: vec![100, -50, 10, 0],
            low_rank: Some(LowRank {
                reduce: Linear {
                    inputs: 4,
                    outputs: 1,
                    weight: vec![1, 2, 3, 4],
                    bias: vec![5],
                    multiplier: vec![4],
                    shift: vec![2],
                },
                expand: vec![7, -3],
            }),
            output_multiplier: vec![1, 3, 2, 6],
            output_shift: vec![3, 1, 3, 1],
        }
    }

    #[test]
    fn means_are_predicted_as_the_spec_says() {
        let prediction = prediction();
        prediction.check(2, 2).unwrap();
        let [fine, coarse] = [0, 1].map(|quality| prediction.predictor(2, quality));
        let mut past = fine.past(&[]);
        let mut means = [640, -64];
        // No frame before: only the bias of the low-rank part, 7 · 5 and −3 · 5.
        fine.add(&mut past, &mut means);
        assert_eq!(means, [640 + ((35 + 4) >> 3), -64 + ((-45 + 1) >> 1)]);
        fine.push(&mut past, &[10, -20]); // 80, −160
        coarse.push(&mut past, &[5, 40_i16]); // 20, 160
        let reduced = 20 + 2 * 160 + 3 * 80 + 4 * -160 + 5;
        let sums = [100 * 20 + 10 * 80 + 7 * reduced, -50 * 160 - 3 * reduced];
        let mut means = [0, 0];
        coarse.add(&mut past, &mut means);
        assert_eq!(means, [(sums[0] * 2 + 4) >> 3, (sums[1] * 6 + 1) >> 1]);
        // The same from the common unit.
        let mut again = fine.past(&[7, 7, 80, -160, 20, 160]);
        let mut other = [0, 0];
        coarse.add(&mut again, &mut other);
        assert_eq!((other, again), (means, past));
    }

    #[test]
    fn values_are_clamped() {
        let mut prediction = prediction();
        prediction.input_multiplier = vec![32_767; 4];
        prediction.output_multiplier = vec![32_767; 4];
        prediction.output_shift = vec![1; 4];
        let predictor = prediction.predictor(2, 0);
        let mut past = predictor.past(&[]);
        predictor.push(&mut past, &[30_000, -30_000]);
        assert_eq!(past.x[..2], [32_767, -32_767]);
        let mut means = [0, 0];
        predictor.add(&mut past, &mut means);
        assert_eq!(means, [1 << 20, 1 << 20]);
    }

    #[test]
    fn weights_have_a_bound() {
        let mut good = prediction();
        good.diagonal = vec![32_767, 0, 32_761, 0];
        good.check(2, 2).unwrap();
        let mut bad = good.clone();
        bad.diagonal[2] += 1;
        assert_eq!(bad.check(2, 2).unwrap_err().kind, ErrorKind::ModelRowBound);
        let refused = |change: fn(&mut Prediction)| {
            let mut bad = prediction();
            change(&mut bad);
            bad.check(2, 2).unwrap_err().kind
        };
        assert_eq!(refused(|p| p.diagonal[1] = i16::MIN), ErrorKind::ModelValue);
        assert_eq!(refused(|p| p.diagonal = vec![0; 10]), ErrorKind::ModelTensorShape);
        assert_eq!(refused(|p| p.diagonal.clear()), ErrorKind::ModelTensorShape);
        assert_eq!(refused(|p| p.diagonal.push(0)), ErrorKind::ModelTensorShape);
        assert_eq!(refused(|p| p.input_shift[0] = 0), ErrorKind::ModelValue);
        assert_eq!(refused(|p| p.output_multiplier[3] = -1), ErrorKind::ModelValue);
        assert_eq!(refused(|p| p.low_rank.as_mut().unwrap().expand[0] = i8::MIN), ErrorKind::ModelValue);
        assert_eq!(refused(|p| p.low_rank.as_mut().unwrap().expand.push(0)), ErrorKind::ModelTensorShape);
        assert_eq!(refused(|p| p.low_rank.as_mut().unwrap().reduce.inputs = 2), ErrorKind::ModelTensorShape);
        assert_eq!(refused(|p| p.low_rank.as_mut().unwrap().reduce.bias[0] = i32::MAX), ErrorKind::ModelRowBound);
    }
}
