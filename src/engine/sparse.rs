//! The quantiser behind a sparse causal map (spec 4.10, 6.7, 6.8): channel by channel, in single operations of binary32
//! whose order is fixed, so that every engine chooses the same Y and gives the same hidden states.
//!
//! Frames do not depend on each other. Several of them pass through a row together, which reads the row once; a frame
//! gets the same bits alone.

use crate::model::{CodecModel, SparseMap};

/// The number of partial sums of a row (spec 4.10).
const SUMS: usize = 16;
/// Frames that pass through a row together.
pub(super) const FRAMES: usize = 8;

/// The row sum of spec 4.10 for F frames; `values` has those of all channels.
fn row_sum<const F: usize>((index, weight): (&[u16], &[f32]), values: &[[f32; F]]) -> [f32; F] {
    let mut sums = [[0.0_f32; F]; SUMS];
    let mut add = |index: &[u16], weight: &[f32]| {
        for ((sum, index), weight) in sums.iter_mut().zip(index).zip(weight) {
            // A checked map has no index beyond the channels.
            let Some(values) = values.get(usize::from(*index)) else { continue };
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
    };
    let ((index, index_rest), (weight, weight_rest)) = (index.as_chunks::<SUMS>(), weight.as_chunks::<SUMS>());
    index.iter().zip(weight).for_each(|(index, weight)| add(index, weight));
    add(index_rest, weight_rest);
    for half in [8, 4, 2, 1] {
        let (low, high) = sums.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(high) {
            low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
        }
    }
    let [sum, ..] = sums;
    sum
}

/// Reconstructs frames of values in steps, `[T, E]`: appends hidden states, `[T, E]` (spec 6.7). `step` and `offset` are
/// `[E]`.
pub fn reconstruct(levels: &[f32], step: &[f32], map: &SparseMap, offset: &[f32], hidden: &mut Vec<f32>) {
    let (whole, rest) = levels.split_at(many(levels.len(), step.len()));
    for frames in whole.chunks_exact(step.len().saturating_mul(FRAMES).max(1)) {
        reconstruct_together::<FRAMES>(frames, step, map, offset, hidden);
    }
    for frame in rest.chunks_exact(step.len().max(1)) {
        reconstruct_together::<1>(frame, step, map, offset, hidden);
    }
}

/// How many of the values belong to frames that go together.
fn many(values: usize, width: usize) -> usize {
    let together = width.saturating_mul(FRAMES).max(1);
    values.checked_div(together).unwrap_or(0).saturating_mul(together)
}

fn reconstruct_together<const F: usize>(
    levels: &[f32],
    step: &[f32],
    map: &SparseMap,
    offset: &[f32],
    hidden: &mut Vec<f32>,
) {
    let width = step.len();
    let mut done: Vec<[f32; F]> = Vec::with_capacity(width);
    let frames: Vec<&[f32]> = levels.chunks_exact(width).collect();
    for (channel, (row, step)) in map.rows().zip(step).enumerate() {
        let mut values = row_sum(row, &done);
        for (value, frame) in values.iter_mut().zip(&frames) {
            *value += frame.get(channel).copied().unwrap_or(0.0) * step;
        }
        done.push(values);
    }
    for frame in 0..F {
        let values = done.iter().map(|values| values.get(frame).copied().unwrap_or(0.0));
        hidden.extend(values.zip(offset).map(|(value, offset)| value + offset));
    }
}

/// The quantiser of a quality (spec 6.8).
#[derive(Clone, Copy, Debug)]
pub struct SparseQuantiser<'a> {
    /// The map after the quantiser.
    pub synthesis: &'a SparseMap,
    /// The map before it, of the same width.
    pub analysis: &'a SparseMap,
    /// \[E\].
    pub step: &'a [f32],
    /// \[E\].
    pub reciprocal_step: &'a [f32],
    /// (y_min, y_max).
    pub range: (i16, i16),
}

impl<'a> SparseQuantiser<'a> {
    /// That of a model which has sparse maps and an encoder's part.
    #[must_use]
    pub fn new(model: &'a CodecModel, quality: usize) -> Option<Self> {
        Some(Self {
            synthesis: model.synthesis()?.sparse()?,
            analysis: model.analysis()?.sparse()?,
            step: model.step(quality),
            reciprocal_step: model.reciprocal_step(quality)?,
            range: model.y_range(),
        })
    }

    /// Runs over frames of hidden states minus their offsets, `[T, E]`. `decide` gets the frame, the channel and x of
    /// each element, and says which integer it becomes. Channels come in order; the order of frames is open.
    pub fn run(&self, centred: &[f32], decide: &mut impl FnMut(usize, usize, f32) -> i16) {
        let width = self.step.len().max(1);
        let (whole, rest) = centred.split_at(many(centred.len(), width));
        let mut first = 0_usize;
        for frames in whole.chunks_exact(width.saturating_mul(FRAMES)) {
            self.run_together::<FRAMES>(frames, first, decide);
            first = first.saturating_add(FRAMES);
        }
        for frame in rest.chunks_exact(width) {
            self.run_together::<1>(frame, first, decide);
            first = first.saturating_add(1);
        }
    }

    fn run_together<const F: usize>(
        &self,
        centred: &[f32],
        first: usize,
        decide: &mut impl FnMut(usize, usize, f32) -> i16,
    ) {
        let width = self.step.len();
        // r and e of spec 6.8.
        let (mut done, mut errors): (Vec<[f32; F]>, Vec<[f32; F]>) =
            (Vec::with_capacity(width), Vec::with_capacity(width));
        let frames: Vec<&[f32]> = centred.chunks_exact(width).collect();
        let rows = self.synthesis.rows().zip(self.analysis.rows());
        let steps = self.step.iter().zip(self.reciprocal_step);
        for (channel, ((synthesis, analysis), (step, reciprocal_step))) in rows.zip(steps).enumerate() {
            let mut values = row_sum(synthesis, &done);
            let mut pushed = row_sum(analysis, &errors);
            for ((frame, own), (value, pushed)) in (first..).zip(&frames).zip(values.iter_mut().zip(pushed.iter_mut()))
            {
                let target = own.get(channel).copied().unwrap_or(0.0) + *pushed;
                let x = (target - *value) * reciprocal_step;
                let y = decide(frame, channel, x);
                *value += f32::from(y) * step;
                *pushed = if self.is_clipped(x) { 0.0 } else { *value - target };
            }
            done.push(values);
            errors.push(pushed);
        }
    }

    /// Whether an element is clipped.
    #[must_use]
    pub fn is_clipped(&self, x: f32) -> bool {
        x < f32::from(self.range.0) - 0.5 || x > f32::from(self.range.1) + 0.5
    }
}
