//! A quantiser between sparse causal maps (spec 4.10). Its integers depend on each other, so that neither it nor the
//! hidden state that it gives is learned: no gradient passes.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::Y_RANGE;
use super::quantiser::{choose, saved};
use midspan::engine::sparse::{self, SparseQuantiser};
use midspan::model::SparseMap;

/// Both maps of a model, for hidden states of one width.
#[derive(Clone, Debug, PartialEq)]
pub struct SparsePair {
    /// Before the quantiser.
    pub analysis: SparseMap,
    /// After it.
    pub synthesis: SparseMap,
}

/// Such a quantiser, with its steps and offsets.
#[derive(Clone, Debug)]
pub struct Causal {
    /// Its maps.
    pub maps: Arc<SparsePair>,
    /// `[E]`.
    pub step: Vec<f32>,
    /// `[E]`.
    pub offset: Vec<f32>,
}

impl Causal {
    /// The values in steps of hidden states `[T, E]`, the same shape, of which the nearest integers are taken.
    pub fn to_steps(&self, hidden: &[f32]) -> Vec<f32> {
        let mut in_steps = vec![0.0; hidden.len()];
        self.run(hidden, &mut |at, x| {
            in_steps[at] = x;
            x
        });
        in_steps
    }

    /// The integers of hidden states `[T, E]` that distance and rate choose (spec 6.8), given means and base-2 logarithms
    /// of scales: all of one shape. `weight` is in squared steps a bit.
    pub fn by_rate(&self, hidden: &[f32], mean: &[f32], log2_scale: &[f32], weight: f64) -> Vec<f32> {
        let mut y = vec![0.0; hidden.len()];
        self.run(hidden, &mut |at, x| {
            y[at] = choose(x, weight, saved(mean[at], log2_scale[at]));
            y[at]
        });
        y
    }

    /// The hidden states reconstructed from Y, `[T, E]` both.
    pub fn reconstruct(&self, y: &[f32]) -> Vec<f32> {
        let mut hidden = Vec::with_capacity(y.len());
        sparse::reconstruct(y, &self.step, &self.maps.synthesis, &self.offset, &mut hidden);
        hidden
    }

    /// Runs over frames of hidden states. `decide` gets the place of each element and its value in steps, and says which
    /// value becomes its integer.
    fn run(&self, hidden: &[f32], decide: &mut dyn FnMut(usize, f32) -> f32) {
        let width = self.step.len();
        let rows = hidden.chunks_exact(width);
        let centred: Vec<f32> =
            rows.flat_map(|row| row.iter().zip(&self.offset).map(|(x, offset)| x - offset)).collect();
        let reciprocal_step: Vec<f32> = self.step.iter().map(|step| 1.0 / step).collect();
        let quantiser = SparseQuantiser {
            synthesis: &self.maps.synthesis,
            analysis: &self.maps.analysis,
            step: &self.step,
            reciprocal_step: &reciprocal_step,
            range: Y_RANGE,
        };
        quantiser.run(&centred, &mut |frame, channel, x| {
            let value = decide(frame * width + channel, x).round_ties_even();
            value.clamp(f32::from(Y_RANGE.0), f32::from(Y_RANGE.1)) as i16
        });
    }
}

/// What a function of values `[T, E]` makes of a tensor `[.., E]`, the same shape, without a gradient.
///
/// # Errors
/// When the tensor is not f32.
pub(super) fn constant(x: &Tensor, of: impl FnOnce(&[f32]) -> Vec<f32>) -> Result<Tensor> {
    Tensor::from_vec(of(&values(x)?), x.shape(), x.device())
}

/// The values of a tensor.
pub(super) fn values(x: &Tensor) -> Result<Vec<f32>> {
    x.detach().flatten_all()?.to_vec1()
}
