//! The models of the campaigns.

use std::sync::Arc;

use super::draw::Draw;
use midspan::codec::Codec;
use midspan::error::{Error, Result};
use midspan::model::CodecModel;
use midspan::model::synthetic::{self, Random, Style, SyntheticShape};
use midspan::wire::Mode;

/// Codecs that are ready to run.
#[derive(Debug)]
pub(super) struct Models {
    large: Arc<Codec>,
    small: [Arc<Codec>; 2],
    /// The small ones, with prediction from decoded frames.
    predicting: [Arc<Codec>; 2],
}

impl Models {
    /// Prepares a model and two small ones of other shapes: a tiny one, and one with so many elements that a frame's
    /// target may not fit a datagram.
    ///
    /// # Errors
    /// As [`Codec::new`].
    pub(super) fn new(large: &CodecModel) -> Result<Models> {
        let codec = |model| Codec::new(model).map(Arc::new);
        let other =
            SyntheticShape { hidden: 200, hyper_prior: 4, g_y: vec![10], qualities: 3, ..SyntheticShape::tiny() };
        let small = [synthetic::model(&SyntheticShape::tiny(), 1), synthetic::model(&other, 2)];
        let [first, second] = small;
        let predicting = |shape: &SyntheticShape, frames: usize, rank: usize, seed: u64| {
            let mut parts = synthetic::parts(shape, Style::Sensible, seed);
            synthetic::add_prediction(&mut parts, frames, rank, seed);
            let model = CodecModel::new(parts).map_err(|invalid| Error::of_call(invalid.kind))?;
            codec(model)
        };
        let predicting = [predicting(&SyntheticShape::tiny(), 2, 3, 3)?, predicting(&other, 4, 0, 4)?];
        Ok(Models { large: codec(large.clone())?, small: [codec(first)?, codec(second)?], predicting })
    }

    /// Puts models that predict in the place of small ones, now and then, where the mode allows it.
    pub(super) fn predicting(&self, models: Vec<Arc<Codec>>, mode: Mode, random: &mut Random) -> Vec<Arc<Codec>> {
        if mode == Mode::Layered {
            return models;
        }
        let replace = |model: Arc<Codec>| {
            let other = self.small.iter().zip(&self.predicting).find(|(small, _)| Arc::ptr_eq(small, &model));
            match other {
                Some((_, predicting)) if random.one_in(2) => Arc::clone(predicting),
                _ => model,
            }
        };
        models.into_iter().map(replace).collect()
    }

    /// The models of a stream: the one that it begins with, and one to switch to.
    pub(super) fn pick(&self, large: bool, random: &mut Random) -> Vec<Arc<Codec>> {
        let [tiny, wide] = self.small.clone();
        match (large, random.one_in(4)) {
            (true, _) => vec![Arc::clone(&self.large), tiny],
            (_, true) => vec![wide, tiny],
            _ => vec![tiny, wide],
        }
    }
}
