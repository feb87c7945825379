//! A trained codec in float. It is the source of the frozen codec, which is also compared with it.

use std::sync::Arc;

use super::W_RANGE;
use super::tables::{Masses, ScaleGrid, with_escapes};
use crate::codec::Y_RANGE;
use crate::codec::fixed::{FixedQuantiser, SparsePair};
use crate::codec::network::{Extremes, Network};
use crate::codec::quality::{At, Quality};
use crate::codec::rate::element_bits;
use crate::codec::side;
use crate::{Error, Result};
use midspan::engine::quantiser;
use midspan::model::Map;

/// A trained codec, in float.
#[derive(Clone, Debug)]
pub struct FloatCodec {
    /// E → C: makes W.
    pub h: Network,
    /// C + D → 2E: means in steps, then log2 of the scales in steps.
    pub g_y: Network,
    /// What g_y takes of side indices after W, if anything.
    pub side: Option<FloatSide>,
    /// `[E]`: quantiser steps.
    pub step: Vec<f32>,
    /// `[E]`: quantiser offsets.
    pub offset: Vec<f32>,
    /// The maps on each side of the quantiser, if there are any.
    pub maps: Option<FloatMaps>,
    /// How W is coded: one entry for each quality that was trained, or one for all.
    pub w_coding: Vec<FloatWCoding>,
    /// Scales of the target's tables.
    pub grid: ScaleGrid,
}

/// The maps on each side of the quantiser.
#[derive(Clone, Debug, PartialEq)]
pub enum FloatMaps {
    /// `[E, E]` each: analysis and synthesis.
    Full(Vec<f32>, Vec<f32>),
    /// Sparse causal maps (spec 4.10).
    Sparse(Arc<SparsePair>),
}

impl FloatMaps {
    /// Analysis and synthesis as a model has them.
    pub(super) fn maps(&self) -> (Map, Map) {
        match self {
            FloatMaps::Full(analysis, synthesis) => (Map::Full(analysis.clone()), Map::Full(synthesis.clone())),
            FloatMaps::Sparse(maps) => (Map::Sparse(maps.analysis.clone()), Map::Sparse(maps.synthesis.clone())),
        }
    }
}

/// An embedding of side indices as it will be frozen.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatSide {
    /// A, V and D.
    pub shape: side::Shape,
    /// `[A, V, D]`, in units.
    pub embedding: Vec<i8>,
    /// `[D]`: what one unit of a sum is worth.
    pub units: Vec<f32>,
}

impl FloatSide {
    /// The sums of a sequence with these side indices, `[T, D]`.
    fn sums(&self, ids: &[u32]) -> Vec<f32> {
        let side::Shape { ages, vocabulary, width } = self.shape;
        let mut sums = vec![0.0; ids.len() * width];
        for (at, sums) in sums.chunks_exact_mut(width).enumerate() {
            for (age, id) in
                ids[..=at].iter().rev().take(ages).enumerate().filter(|(_, id)| (**id as usize) < vocabulary)
            {
                let row = &self.embedding[(age * vocabulary + *id as usize) * width..][..width];
                sums.iter_mut().zip(row).zip(&self.units).for_each(|((sum, x), unit)| *sum += f32::from(*x) * unit);
            }
        }
        sums
    }
}

/// A sequence of frames that begins with an empty context.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequence {
    /// Hidden states, `[T, E]`.
    pub hidden: Vec<f32>,
    /// The token of each frame, T in all, or none.
    pub ids: Vec<u32>,
}

impl Sequence {
    /// The tokens, if they are known.
    pub(super) fn ids(&self) -> Option<&[u32]> {
        (!self.ids.is_empty()).then_some(&self.ids[..])
    }
}

/// What a quality changes about W.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatWCoding {
    /// `[C]`: h's outputs are multiplied by it before they are rounded, g_y's inputs divided.
    pub gain: Vec<f32>,
    /// Density of each channel.
    pub masses: Vec<Masses>,
}

impl Quality {
    /// The same quality with steps that are a power of the grid's ratio, so that scales in these steps are on the grid.
    #[must_use]
    pub fn on_grid(self, grid: ScaleGrid) -> Self {
        Self { steps: (-f64::from(self.places(grid)) * grid.step()).exp2(), ..self }
    }

    /// By how many places of the grid scales rise when they are converted to this quality's steps.
    pub(super) fn places(&self, grid: ScaleGrid) -> i32 {
        (-self.steps.log2() / grid.step()).round() as i32
    }
}

impl FloatCodec {
    /// Channels of W.
    pub fn channels(&self) -> usize {
        self.h.shape.output
    }

    /// What a quality changes about W.
    pub(super) fn w_coding(&self, index: usize) -> &FloatWCoding {
        self.w_coding.get(index).unwrap_or(&self.w_coding[0])
    }

    /// Hidden states, `[T, E]`, in a quality's steps: the values to be rounded. With sparse maps they are those of which the
    /// nearest integers are taken.
    ///
    /// # Errors
    /// A hidden state is not finite.
    pub(super) fn to_steps(&self, hidden: &[f32], at: At) -> midspan::error::Result<Vec<f32>> {
        let analysis = match &self.maps {
            None => None,
            Some(FloatMaps::Full(analysis, _)) => Some(&analysis[..]),
            Some(FloatMaps::Sparse(maps)) => {
                let step = self.steps(at.quality).collect();
                return FixedQuantiser::new(maps.clone(), step, self.offset.clone()).to_steps(hidden);
            }
        };
        let reciprocal: Vec<f32> = self.steps(at.quality).map(|step| 1.0 / step).collect();
        quantiser::to_steps(hidden, &self.offset, analysis, &reciprocal)
    }

    /// The nearest integers of hidden states, `[T, E]`, in a quality's steps.
    ///
    /// # Errors
    /// A hidden state is not finite.
    pub fn quantise(&self, hidden: &[f32], at: At) -> midspan::error::Result<Vec<i16>> {
        Ok(quantiser::nearest(&self.to_steps(hidden, at)?, Y_RANGE).collect())
    }

    /// Steps of a quality, `[E]`.
    pub(super) fn steps(&self, quality: Quality) -> impl Iterator<Item = f32> + '_ {
        self.step.iter().map(move |step| (f64::from(*step) * quality.steps) as f32)
    }

    /// W of one sequence of Y, `[T, C]`.
    ///
    /// # Errors
    /// Y is not whole frames.
    pub(super) fn w(&self, y: &[i16], at: At, extremes: Option<&mut Extremes>) -> Result<Vec<i16>> {
        let input: Vec<f32> = y.iter().map(|value| (f64::from(*value) * at.quality.steps) as f32).collect();
        let round = |value: f32| value.round_ties_even().clamp(f32::from(W_RANGE.0), f32::from(W_RANGE.1)) as i16;
        let values = self.h.run(&input, extremes)?;
        let frames = values.chunks_exact(self.channels());
        Ok(frames.flat_map(|w| w.iter().zip(&self.w_coding(at.index).gain)).map(|(w, gain)| round(w * gain)).collect())
    }

    /// The output of g_y for W and the frames' tokens, T or none, `[T, 2E]`: means and logarithms of scales in the
    /// quantiser's own steps.
    ///
    /// # Errors
    /// W is not whole frames; another number of tokens than frames.
    pub(super) fn run_g_y(&self, w: &[i16], ids: &[u32], at: At, extremes: Option<&mut Extremes>) -> Result<Vec<f32>> {
        let frames = w.len() / self.channels();
        let (width, sums) = match &self.side {
            Some(_) if !ids.is_empty() && ids.len() != frames => {
                return Err(Error::setting("the number of tokens", ids.len(), format!("{frames}, one a frame")));
            }
            Some(side) if ids.is_empty() => (side.shape.width, vec![0.0; frames * side.shape.width]),
            Some(side) => (side.shape.width, side.sums(ids)),
            None => (0, Vec::new()),
        };
        let mut input = Vec::with_capacity(w.len() + sums.len());
        for (frame, w) in w.chunks_exact(self.channels()).enumerate() {
            input.extend(w.iter().zip(&self.w_coding(at.index).gain).map(|(w, gain)| f32::from(*w) / gain));
            input.extend(&sums[frame * width..][..width]);
        }
        Ok(self.g_y.run(&input, extremes)?)
    }

    /// Means and logarithms of scales from W and the frames' tokens, `[T, 2E]`, in the quality's steps.
    ///
    /// # Errors
    /// Those of [`FloatCodec::run_g_y`].
    pub(super) fn parameters(&self, w: &[i16], ids: &[u32], at: At) -> Result<Vec<f32>> {
        let mut real = self.run_g_y(w, ids, at, None)?;
        let width = self.step.len();
        let places = -at.quality.steps.log2();
        for frame in real.chunks_exact_mut(2 * width) {
            let (means, scales) = frame.split_at_mut(width);
            means.iter_mut().for_each(|mean| *mean = (f64::from(*mean) / at.quality.steps) as f32);
            let clamped = |scale: f32| (f64::from(scale) + places).clamp(self.grid.low, self.grid.high + places);
            scales.iter_mut().for_each(|scale| *scale = clamped(*scale) as f32);
        }
        Ok(real)
    }

    /// Bits of W, `[T, C]`.
    pub(super) fn bits_w(&self, w: &[i16], at: At) -> f64 {
        w.chunks_exact(self.channels())
            .flat_map(|w| w.iter().zip(&self.w_coding(at.index).masses))
            .map(|(w, masses)| -masses.mass(i32::from(*w)).max(1e-12).log2())
            .sum()
    }

    /// Bits of Y, `[T, E]`, given means and logarithms of scales, `[T, 2E]`: by exact densities, and by densities with
    /// escapes.
    pub(super) fn bits_y(&self, y: &[i16], real: &[f32]) -> [f64; 2] {
        let width = self.step.len();
        let frames = y.chunks_exact(width).zip(real.chunks_exact(2 * width));
        let elements = frames.flat_map(|(y, real)| y.iter().zip(real.iter().zip(&real[width..])));
        elements.fold([0.0; 2], |sums, (y, (mean, scale))| {
            let (mean, scale) = (f64::from(*mean), f64::from(*scale).exp2());
            let exact = element_bits(f64::from(*y), mean, scale);
            [sums[0] + exact, sums[1] + with_escapes(exact, i32::from(*y), mean, scale)]
        })
    }
}
