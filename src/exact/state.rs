//! What a network remembers about the context (spec 5.6).

use std::ops::Range;
use std::sync::Mutex;

use super::ring::{self, Layout, Ring};
use super::{Network, Part, TILE, Timeline};
use crate::error::{Error, ErrorKind, Result};
use crate::model::network::KEY_MAX;
use crate::number::to_usize;

const MAGIC: &[u8; 8] = b"mdspkv1\n";

/// The shape of a network, as far as its state depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub widths: Vec<usize>,
    pub heads: Vec<usize>,
    pub window: usize,
    pub layout: Layout,
}

impl Shape {
    /// Width and heads of each block.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> {
        self.widths.iter().copied().zip(self.heads.iter().copied())
    }

    /// Bytes of the rings of all blocks, with this many slots each.
    fn ring_bytes(&self, slots: usize) -> usize {
        self.blocks().map(|(width, heads)| Ring::bytes(self.layout, width, heads, slots)).fold(0, usize::saturating_add)
    }
}

/// Buffers of more bytes than this are freed after a run.
const BUFFERS_KEPT: usize = 2 << 20;

/// The state of one network in one context: a ring of keys and values for each block, and reused buffers.
///
/// Memory grows with the frames that come, at least doubling each time, up to [`State::required_bytes`], which depends
/// only on the network and `max_rewind`: a step's time and memory do not depend on how long the context is. Buffers
/// grow to the largest batch tile (at most 128 frames); those of more than 2 MiB are freed after each run. A clone is a
/// fork of the context: it shares nothing with its original, and starts without buffers.
pub struct State {
    shape: Shape,
    timeline: Timeline,
    pub(super) rings: Vec<Ring>,
    pub(super) parts: Vec<Mutex<Part>>,
}

impl Clone for State {
    fn clone(&self) -> State {
        State { shape: self.shape.clone(), timeline: self.timeline, rings: self.rings.clone(), parts: Vec::new() }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("timeline", &self.timeline).finish_non_exhaustive()
    }
}

/// The most frames that a ring holds: those before the next one that a window reaches, and in addition as many as a
/// rewind may undo or a batch tile appends at once.
fn most_frames(window: usize, max_rewind: u32) -> usize {
    (window - 1).saturating_add((max_rewind as usize).max(TILE))
}

impl State {
    /// An empty context, from which rewinds go back by at most `max_rewind` frames.
    ///
    /// Allocates nothing for frames: memory grows as they come.
    #[must_use]
    pub fn new(network: &Network, max_rewind: u32) -> State {
        let shape = network.shape.clone();
        let rings = shape.blocks().map(|(width, heads)| Ring::new(shape.layout, width, heads, 0)).collect();
        State { shape, timeline: Timeline::new(max_rewind), rings, parts: Vec::new() }
    }

    /// The most bytes of keys and values that a state holds, without buffers. `usize::MAX` if the number overflows.
    #[must_use]
    pub fn required_bytes(network: &Network, max_rewind: u32) -> usize {
        let shape = &network.shape;
        shape.ring_bytes(ring::slots(most_frames(shape.window, max_rewind)))
    }

    /// A bound on the bytes of keys and values that the state holds once `frames` more have come, in any number of
    /// runs, and while it grows to that size. Buffers are not counted.
    #[must_use]
    pub fn bytes_after(&self, frames: usize) -> usize {
        let held = self.slots();
        let needed = self.slots_after(frames);
        if needed <= held {
            return self.shape.ring_bytes(held);
        }
        // Growth doubles the slots, so it ends below twice the need.
        let most = ring::slots(most_frames(self.shape.window, self.timeline.max_rewind()));
        let moved = self.rings.iter().map(Ring::memory_bytes).max().unwrap_or(0);
        self.shape.ring_bytes(needed.saturating_mul(2).min(most)).saturating_add(moved)
    }

    /// Bytes that the state holds now, buffers included.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let rings: usize = self.rings.iter().map(Ring::memory_bytes).sum();
        let lists = (self.shape.widths.capacity() + self.shape.heads.capacity()) * size_of::<usize>()
            + self.rings.capacity() * size_of::<Ring>();
        rings + lists + super::parts_bytes(&self.parts)
    }

    /// Slots of each ring.
    fn slots(&self) -> usize {
        self.rings.first().map_or(0, Ring::slots)
    }

    /// Slots that the rings need once `frames` more have come: from the first frame on that a window or a rewind then
    /// reaches.
    fn slots_after(&self, frames: usize) -> usize {
        let (position, window) = (self.timeline.position(), self.shape.window);
        let end = position.saturating_add(frames as u64);
        let rewound = self.timeline.high().max(end).saturating_sub(self.timeline.max_rewind().into());
        let first = rewound.min(position).saturating_sub(window as u64 - 1);
        let count = to_usize(end - first);
        ring::slots(count.min(most_frames(window, self.timeline.max_rewind())))
    }

    /// Makes the rings large enough for the next `frames` frames. Every growth at least doubles them, so all growth
    /// together copies each frame about twice.
    pub(super) fn make_room(&mut self, frames: usize) {
        let (held, needed) = (self.slots(), self.slots_after(frames));
        if needed <= held {
            return;
        }
        let most = ring::slots(most_frames(self.shape.window, self.timeline.max_rewind()));
        let slots = needed.max(held.saturating_mul(2)).min(most);
        let live = self.frames(&self.timeline);
        self.rings.iter_mut().for_each(|ring| ring.grow(slots, live.clone()));
    }

    /// Frees large buffers.
    pub(super) fn release(&mut self) {
        if super::parts_bytes(&self.parts) > BUFFERS_KEPT {
            self.parts = Vec::new();
        }
    }

    /// Frames of the context: the number of the next frame, counted from the context's start.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.timeline.position()
    }

    /// Whether the state was made for a network of this shape and arm.
    #[must_use]
    pub fn fits(&self, network: &Network) -> bool {
        self.shape == network.shape
    }

    /// Moves the context back, so that `position` is the next frame again (\[NET-6\]).
    ///
    /// # Errors
    /// [`ErrorKind::RewindTarget`] if `position` lies ahead; [`ErrorKind::RewindTooFar`] if it is more than
    /// `max_rewind` below the largest position that this context reached (\[CTRL-4\]). The state is then unchanged.
    pub fn truncate(&mut self, position: u64) -> Result<()> {
        self.timeline.truncate(position).map(|_| ())
    }

    /// Moves on by frames whose keys and values are already in the rings.
    pub(super) fn advance(&mut self, frames: usize) {
        self.timeline.advance(frames);
    }

    /// Empties the context, and frees memory beyond that of a window and a batch tile.
    pub fn reset(&mut self) {
        self.timeline.reset();
        if self.slots() > ring::slots(most_frames(self.shape.window, 0)) {
            self.rings.iter_mut().for_each(Ring::clear);
        }
    }

    /// Frames that [`State::save`] writes: all that the longest allowed rewind can still reach.
    fn frames(&self, timeline: &Timeline) -> Range<u64> {
        let reach = u64::from(timeline.max_rewind()) + self.shape.window as u64 - 1;
        timeline.high().saturating_sub(reach).min(timeline.position())..timeline.position()
    }

    /// The context as bytes, the same whatever the arm: 8 bytes of magic; as u64le the max rewind, position, largest
    /// position, window and the number B of blocks; B widths and B head counts as u32le; then for each block and frame
    /// k and v as i16le.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut bytes = self.header(&self.timeline);
        for (ring, &width) in self.rings.iter().zip(&self.shape.widths) {
            let (mut k, mut v) = (vec![0; width], vec![0; width]);
            for frame in self.frames(&self.timeline) {
                ring.read(ring.slot(frame), &mut k, &mut v);
                bytes.extend(k.iter().chain(&v).flat_map(|value| value.to_le_bytes()));
            }
        }
        bytes
    }

    fn header(&self, timeline: &Timeline) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let blocks = self.shape.heads.len();
        let window = self.shape.window as u64;
        let (position, high) = (timeline.position(), timeline.high());
        for number in [u64::from(timeline.max_rewind()), position, high, window, blocks as u64] {
            bytes.extend(number.to_le_bytes());
        }
        for &size in self.shape.widths.iter().take(blocks).chain(&self.shape.heads) {
            bytes.extend((size as u32).to_le_bytes());
        }
        bytes
    }

    /// Bytes of keys and values that the state holds after [`State::restore`], judged by the length of `saved`.
    #[must_use]
    pub fn restored_bytes(&self, saved: &[u8]) -> usize {
        let frame = self.shape.blocks().map(|(width, _)| width.saturating_mul(4)).sum::<usize>();
        let frames = saved.len().checked_div(frame).unwrap_or(0);
        let most = most_frames(self.shape.window, self.timeline.max_rewind());
        self.shape.ring_bytes(ring::slots(frames.min(most)))
    }

    /// Loads a context that [`State::save`] wrote for the same network and max rewind, on any arm. Allocates
    /// [`State::restored_bytes`] at most.
    ///
    /// Bytes that were tampered with may give another context, but do no other harm.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] if `network` is not the state's or the bytes do not fit it; the state is then reset.
    pub fn restore(&mut self, network: &Network, bytes: &[u8]) -> Result<()> {
        self.reset();
        let wrong = |detail| Error::of_call(ErrorKind::WrongShape).with_detail(detail);
        if !self.fits(network) {
            return Err(wrong("the state of another network"));
        }
        let number = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|n| u64::from_le_bytes(*n));
        let (Some(position), Some(high)) = (number(16), number(24)) else {
            return Err(wrong("a saved state that is too short"));
        };
        let timeline = self.timeline.restored(position, high).ok_or(wrong("the position in a saved state"))?;
        let (header, frames) = (self.header(&timeline), self.frames(&timeline));
        let values = bytes.strip_prefix(header.as_slice()).ok_or(wrong("a saved state of another shape"))?;
        let (values, odd) = values.as_chunks();
        let widths = self.shape.widths.iter().take(self.rings.len());
        let count: u128 = widths.clone().map(|&d| 2 * d as u128).sum::<u128>() * u128::from(frames.end - frames.start);
        if !odd.is_empty() || values.len() as u128 != count {
            return Err(wrong("the length of a saved state"));
        }
        if values.iter().any(|value| i32::from(i16::from_le_bytes(*value)).abs() > KEY_MAX) {
            return Err(wrong("a value in a saved state"));
        }
        let mut values = values.iter().map(|value| i16::from_le_bytes(*value));
        // The bytes hold the values of these frames, so there are not many; at most what `max_rewind` allows.
        let slots = ring::slots(to_usize(frames.end - frames.start));
        for (ring, &width) in self.rings.iter_mut().zip(widths) {
            if ring.slots() < slots {
                ring.grow(slots, 0..0);
            }
            for frame in frames.clone() {
                let k: Vec<i16> = values.by_ref().take(width).collect();
                let v: Vec<i16> = values.by_ref().take(width).collect();
                ring.write(ring.slot(frame), &k, &v);
            }
        }
        self.timeline = timeline;
        Ok(())
    }
}
