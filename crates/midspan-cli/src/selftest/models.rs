//! The models of the campaigns.

use std::sync::Arc;

use super::draw::Draw;
use midspan::codec::Codec;
use midspan::error::Result;
use midspan::model::CodecModel;
use midspan::model::synthetic::{self, Random, SyntheticShape};

/// Codecs that are ready to run.
#[derive(Debug)]
pub(super) struct Models {
    large: Arc<Codec>,
    small: [Arc<Codec>; 2],
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
        Ok(Models { large: codec(large.clone())?, small: [codec(first)?, codec(second)?] })
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
