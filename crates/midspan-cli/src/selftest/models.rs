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
    /// Small ones without side indices.
    plain: Small,
    /// Small ones that take side indices. A stream's models agree in that.
    side: Small,
}

/// Two small codecs of other shapes: a tiny one, and one with so many elements that a frame's target may not fit a
/// datagram.
#[derive(Debug)]
struct Small {
    both: [Arc<Codec>; 2],
    /// The same shapes, with prediction from decoded frames.
    predicting: [Arc<Codec>; 2],
}

impl Small {
    fn new(tiny: SyntheticShape) -> Result<Small> {
        let codec = |model| Codec::new(model).map(Arc::new);
        let wide = SyntheticShape { hidden: 200, hyper_prior: 4, g_y: vec![10], qualities: 3, ..tiny.clone() };
        let predicting = |shape: &SyntheticShape, frames: usize, rank: usize, seed: u64| {
            let mut parts = synthetic::parts(shape, Style::Sensible, seed);
            synthetic::add_prediction(&mut parts, frames, rank, seed);
            let model = CodecModel::new(parts).map_err(|invalid| Error::of_call(invalid.kind))?;
            codec(model)
        };
        Ok(Small {
            both: [codec(synthetic::model(&tiny, 1))?, codec(synthetic::model(&wide, 2))?],
            predicting: [predicting(&tiny, 2, 3, 3)?, predicting(&wide, 4, 0, 4)?],
        })
    }
}

impl Models {
    /// Prepares a model and the small ones.
    ///
    /// # Errors
    /// As [`Codec::new`].
    pub(super) fn new(large: &CodecModel) -> Result<Models> {
        let (plain, side) = (Small::new(SyntheticShape::tiny())?, Small::new(SyntheticShape::with_side())?);
        Ok(Models { large: Codec::new(large.clone()).map(Arc::new)?, plain, side })
    }

    /// Puts models that predict in the place of small ones, now and then, where the mode allows it.
    pub(super) fn predicting(&self, models: Vec<Arc<Codec>>, mode: Mode, random: &mut Random) -> Vec<Arc<Codec>> {
        if mode == Mode::Layered {
            return models;
        }
        let replace = |model: Arc<Codec>| {
            let small =
                [&self.plain, &self.side].into_iter().flat_map(|small| small.both.iter().zip(&small.predicting));
            let other = { small }.find(|(small, _)| Arc::ptr_eq(small, &model));
            match other {
                Some((_, predicting)) if random.one_in(2) => Arc::clone(predicting),
                _ => model,
            }
        };
        models.into_iter().map(replace).collect()
    }

    /// The models of a stream: the one that it begins with, and one to switch to.
    pub(super) fn pick(&self, large: bool, random: &mut Random) -> Vec<Arc<Codec>> {
        let side = if large { self.large.model().side().is_some() } else { random.one_in(2) };
        let [tiny, wide] = if side { &self.side } else { &self.plain }.both.clone();
        match (large, random.one_in(4)) {
            (true, _) => vec![Arc::clone(&self.large), tiny],
            (_, true) => vec![wide, tiny],
            _ => vec![tiny, wide],
        }
    }
}
