//! The frames that prediction may read, kept by a session (spec 6.13).

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::model::CodecModel;
use crate::number::to_usize;
use crate::stream::memory::{growth, settle_queue};
use crate::stream::saved::Saved;

/// The last frames of the timeline in the common unit, `[n, E]`: as many as prediction may need after the longest rewind.
/// Empty if the model does not predict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PastFrames {
    recent: VecDeque<i16>,
}

/// The most values that are kept.
fn most(model: &CodecModel, max_rewind: u32) -> usize {
    match model.predicted_from() {
        0 => 0,
        frames => frames.saturating_add(to_usize(u64::from(max_rewind))).saturating_mul(model.hidden_width()),
    }
}

impl PastFrames {
    /// Adds the next frames: Y, `[T, E]`, of a quality.
    pub(super) fn append(&mut self, model: &CodecModel, max_rewind: u32, quality: usize, y: &[i16]) {
        let Some(predictor) = model.predictor(quality) else { return };
        let (width, most) = (model.hidden_width(), most(model, max_rewind));
        // Frames before these would be dropped again.
        let kept = y.get(y.len().saturating_sub(most)..).unwrap_or(y);
        let mut x = Vec::with_capacity(width);
        for frame in kept.chunks_exact(width) {
            x.clear();
            predictor.to_common_unit(frame, &mut x);
            self.recent.extend(&x);
            self.recent.drain(..self.recent.len().saturating_sub(most));
        }
        settle_queue(&mut self.recent);
    }

    /// Takes away the last frames, of E = `width` values each.
    pub(super) fn rewind(&mut self, frames: u64, width: usize) {
        let values = to_usize(frames).saturating_mul(width);
        self.recent.truncate(self.recent.len().saturating_sub(values));
    }

    pub(super) fn clear(&mut self) {
        self.recent = VecDeque::new();
    }

    /// What prediction of the next frame reads: up to P frames, the newest last.
    pub(super) fn last(&self, model: &CodecModel) -> Vec<i16> {
        let values = model.predicted_from().saturating_mul(model.hidden_width());
        self.recent.range(self.recent.len().saturating_sub(values)..).copied().collect()
    }

    /// The most bytes that it gains by this many more frames, including while it grows, and those of a job's past.
    pub(super) fn growth(&self, model: &CodecModel, max_rewind: u32, frames: usize) -> usize {
        let width = model.hidden_width();
        let most = most(model, max_rewind);
        if most == 0 {
            return 0;
        }
        let more = most.saturating_sub(self.recent.len()).saturating_add(width).min(frames.saturating_mul(width));
        // A past twice, in the job and in a partial chunk, and a frame in the common unit.
        let past = model.predicted_from().saturating_mul(2).saturating_add(1).saturating_mul(width).saturating_mul(2);
        growth::<i16>(self.recent.len(), self.recent.capacity(), more).saturating_add(past)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.recent.capacity().saturating_mul(size_of::<i16>())
    }

    /// Whether it is what a session keeps after `position` frames of a context with this model.
    pub(super) fn valid(&self, model: &CodecModel, max_rewind: u32, position: u64) -> bool {
        let width = model.hidden_width();
        let position = to_usize(position).saturating_mul(width);
        let least = model.predicted_from().saturating_mul(width).min(position);
        (least..=most(model, max_rewind).min(position)).contains(&self.recent.len())
            && self.recent.len().is_multiple_of(width)
            && !self.recent.contains(&i16::MIN)
    }
}

impl Saved for PastFrames {
    fn save(&self, out: &mut BytesMut) {
        self.recent.save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        Some(Self { recent: Saved::load(input)? })
    }
}
