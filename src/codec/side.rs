//! Side indices of a session (spec 6.12).

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::error::{Detail, Error, ErrorKind, Result};
use crate::model::side::Side;
use crate::number::{to_u64, to_usize};
use crate::stream::memory::{growth, settle_queue};
use crate::stream::saved::Saved;

/// Where the decoder has the side indices of some frames from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SideDelivery {
    /// From its own caller ([`Decoder::give_side`](super::Decoder::give_side)): they take no bytes.
    #[default]
    Known,
    /// From the stream, ahead of their frames.
    Sent,
}

/// The side indices of the last frames of the timeline: as many as g_y may need after the longest rewind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SideHistory {
    recent: VecDeque<u32>,
}

impl SideHistory {
    /// Adds the indices of the next frames.
    pub(super) fn append(&mut self, side: &Side, max_rewind: u32, indices: &[u32]) {
        // Those of the frame itself are given with it.
        let earlier = side.ages().saturating_sub(1);
        if earlier == 0 {
            return;
        }
        self.recent.extend(indices);
        let most = earlier.saturating_add(to_usize(u64::from(max_rewind)));
        self.recent.drain(..self.recent.len().saturating_sub(most));
        settle_queue(&mut self.recent);
    }

    /// Takes away the last frames.
    pub(super) fn rewind(&mut self, frames: u64) {
        self.recent.truncate(self.recent.len().saturating_sub(to_usize(frames)));
    }

    pub(super) fn clear(&mut self) {
        self.recent = VecDeque::new();
    }

    /// The sums that g_y takes of the next frames, with these indices: `[T, D]`. A chunk's are made at once, before its
    /// first slice, as its W is: A additions for each.
    pub(super) fn sums(&self, side: &Side, indices: &[u32]) -> Vec<i16> {
        let earlier = side.ages().saturating_sub(1).min(self.recent.len());
        let skipped = self.recent.len().saturating_sub(earlier);
        let all: Vec<u32> = self.recent.iter().skip(skipped).chain(indices).copied().collect();
        side.sums(&all, indices.len())
    }

    /// The most bytes that it gains by this many more frames, in chunks of at most `chunk`, including while it grows.
    pub(super) fn growth(&self, side: &Side, max_rewind: u32, frames: usize, chunk: usize) -> usize {
        let earlier = side.ages().saturating_sub(1);
        if earlier == 0 {
            return 0;
        }
        let most = earlier.saturating_add(to_usize(u64::from(max_rewind)));
        let more = most.saturating_sub(self.recent.len()).saturating_add(chunk).min(frames);
        growth::<u32>(self.recent.len(), self.recent.capacity(), more)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.recent.capacity().saturating_mul(size_of::<u32>())
    }

    /// Whether it is the history of `position` frames of a context with this model.
    pub(super) fn valid(&self, side: Option<&Side>, max_rewind: u32, position: u64) -> bool {
        let Some(side) = side else { return self.recent.is_empty() };
        let earlier = side.ages().saturating_sub(1);
        let most = if earlier == 0 { 0 } else { earlier.saturating_add(to_usize(u64::from(max_rewind))) };
        let least = to_usize(position).min(earlier);
        (least..=most.min(to_usize(position))).contains(&self.recent.len()) && known(side, self.recent.iter())
    }
}

impl Saved for SideHistory {
    fn save(&self, out: &mut BytesMut) {
        self.recent.save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        Some(Self { recent: Saved::load(input)? })
    }
}

/// Whether the model has all these indices.
pub(super) fn known<'a>(side: &Side, mut indices: impl Iterator<Item = &'a u32>) -> bool {
    indices.all(|index| *index <= side.vocabulary())
}

/// Checks side indices that a caller gives.
///
/// # Errors
/// [SIDE-4] [`ErrorKind::WrongSideIndices`] for one above V.
pub(super) fn check(side: Option<&Side>, indices: &[u32]) -> Result<()> {
    let wrong = Error::of_call(ErrorKind::WrongSideIndices);
    let side = side.ok_or(wrong.with_detail("the model takes none"))?;
    match indices.iter().find(|index| **index > side.vocabulary()) {
        None => Ok(()),
        Some(found) => {
            let detail =
                Detail::Range { what: "side index", low: 0, high: side.vocabulary().into(), found: (*found).into() };
            Err(wrong.with(detail))
        }
    }
}

/// The error for another number of side indices than frames.
pub(super) fn wrong_count(wanted: usize, found: usize) -> Error {
    let detail = Detail::Number { what: "side indices, one a frame", wanted: to_u64(wanted), found: to_u64(found) };
    Error::of_call(ErrorKind::WrongSideIndices).with(detail)
}

/// c_W of a frame with a side index, of the crc of its W (spec 6.4).
pub(super) fn crc_after(w: u32, index: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(w);
    hasher.update(&index.to_le_bytes());
    hasher.finalize()
}
