//! A quantiser between sparse causal maps (spec 4.10). An integer changes the values of later channels, so no gradient
//! passes it, and neither it nor the hidden state that it gives is learned.

use std::sync::Arc;

use candle_core::{Error, Result, Tensor};

use super::Y_RANGE;
use super::quantiser::{choose, saved};
use midspan::engine::quantiser::InSteps;
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
pub struct FixedQuantiser {
    maps: Arc<SparsePair>,
    /// `[E]`.
    step: Vec<f32>,
    /// `[E]`.
    reciprocal_step: Vec<f32>,
    /// `[E]`.
    offset: Vec<f32>,
}

impl FixedQuantiser {
    /// With these steps and offsets, `[E]` each.
    pub fn new(maps: Arc<SparsePair>, step: Vec<f32>, offset: Vec<f32>) -> Self {
        let reciprocal_step = step.iter().map(|step| 1.0 / step).collect();
        Self { maps, step, reciprocal_step, offset }
    }

    fn sparse(&self) -> SparseQuantiser<'_> {
        let SparsePair { analysis, synthesis } = &*self.maps;
        let Self { step, reciprocal_step, .. } = self;
        SparseQuantiser { synthesis, analysis, step, reciprocal_step, range: Y_RANGE }
    }

    /// The values in steps of hidden states `[T, E]`, the same shape, of which the nearest integers are taken.
    ///
    /// # Errors
    /// Those of [`InSteps::sparse`].
    pub fn to_steps(&self, hidden: &[f32]) -> midspan::error::Result<Vec<f32>> {
        Ok(InSteps::sparse(&self.sparse(), hidden, &self.offset)?.x)
    }

    /// The integers of hidden states `[T, E]` that distance and rate choose (spec 6.8), given means and base-2 logarithms
    /// of scales: all of one shape. `weight` is in squared steps a bit.
    pub fn by_rate(&self, hidden: &[f32], mean: &[f32], log2_scale: &[f32], weight: f64) -> Vec<f32> {
        let width = self.step.len();
        let rows = hidden.chunks_exact(width);
        let centred: Vec<f32> =
            rows.flat_map(|row| row.iter().zip(&self.offset).map(|(x, offset)| x - offset)).collect();
        let mut y = vec![0.0; hidden.len()];
        self.sparse().run(&centred, &mut |frame, channel, x| {
            let at = frame * width + channel;
            let chosen = choose(x, weight, saved(mean[at], log2_scale[at]));
            y[at] = chosen.clamp(f32::from(Y_RANGE.0), f32::from(Y_RANGE.1));
            y[at] as i16
        });
        y
    }

    /// The hidden states reconstructed from Y, `[T, E]` both.
    pub fn reconstruct(&self, y: &[f32]) -> Vec<f32> {
        let mut hidden = Vec::with_capacity(y.len());
        sparse::reconstruct(y, &self.step, &self.maps.synthesis, &self.offset, &mut hidden);
        hidden
    }
}

/// What a function of values `[T, E]` makes of a tensor `[.., E]`, the same shape, without a gradient.
///
/// # Errors
/// When the tensor is not f32, or the function's.
pub(super) fn constant(x: &Tensor, of: impl FnOnce(&[f32]) -> midspan::error::Result<Vec<f32>>) -> Result<Tensor> {
    Tensor::from_vec(of(&values(x)?).map_err(Error::wrap)?, x.shape(), x.device())
}

/// The values of a tensor.
pub(super) fn values(x: &Tensor) -> Result<Vec<f32>> {
    x.detach().flatten_all()?.to_vec1()
}
