//! Models for tests of whole streams.

use midspan::model::synthetic::{self, Style, SyntheticShape};
use midspan::model::{CodecModel, ModelParts};

/// The same shape with and without side indices and blocks.
pub(crate) fn kinds(shape: &SyntheticShape) -> [SyntheticShape; 4] {
    let blockless = SyntheticShape { g_y: Vec::new(), h: Vec::new(), ..shape.clone() };
    [
        shape.clone(),
        SyntheticShape { side: [3, 300, 5], ..shape.clone() },
        SyntheticShape { side: [1, 40, 7], ..blockless.clone() },
        blockless,
    ]
}

/// A model whose tables fit values of a few steps. With those of [`synthetic::model`] nearly every Y costs less as a plain
/// run, whose bytes do not depend on g_y's output: what is wrong with that would not show.
pub(crate) fn fitting(shape: &SyntheticShape, seed: u64) -> CodecModel {
    CodecModel::new(fitting_parts(shape, seed)).unwrap()
}

/// The same, which predicts from P frames with rank R, unless P is 0.
pub(crate) fn predicting(shape: &SyntheticShape, [frames, rank]: [usize; 2], seed: u64) -> CodecModel {
    let mut parts = fitting_parts(shape, seed);
    if frames > 0 {
        synthetic::add_prediction(&mut parts, frames, rank, seed);
    }
    CodecModel::new(parts).unwrap()
}

/// The same, which has sparse maps too.
pub(crate) fn predicting_sparse(shape: &SyntheticShape, [frames, rank]: [usize; 2], seed: u64) -> CodecModel {
    let mut parts = fitting_parts(shape, seed);
    synthetic::add_sparse_maps(&mut parts, seed);
    synthetic::add_prediction(&mut parts, frames, rank, seed);
    CodecModel::new(parts).unwrap()
}

/// That of [`fitting`] with sparse maps.
pub(crate) fn fitting_sparse(shape: &SyntheticShape, seed: u64) -> CodecModel {
    let mut parts = fitting_parts(shape, seed);
    synthetic::add_sparse_maps(&mut parts, seed);
    CodecModel::new(parts).unwrap()
}

fn fitting_parts(shape: &SyntheticShape, seed: u64) -> ModelParts {
    let shape = SyntheticShape { scales: 62, ..shape.clone() };
    let mut parts = synthetic::parts(&shape, Style::Sensible, seed);
    let (network, elements) = (&mut parts.decoder_network, shape.hidden);
    // Means of less than a step; deviations of two to six steps.
    for (row, (multiplier, offset)) in network.output.multiplier.iter_mut().zip(&mut network.output_offset).enumerate()
    {
        let is_mean = row % (2 * elements) < elements;
        *multiplier /= if is_mean { 8 } else { 4 };
        *offset = if is_mean { *offset / 8 } else { 33 };
    }
    // Sums as small as W, because larger ones drive activations to their bounds.
    if let Some(side) = &mut parts.side {
        side.embedding.iter_mut().for_each(|value| *value /= 32);
    }
    parts
}
