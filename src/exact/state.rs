//! What a network remembers of the context (spec 5.6).

use std::ops::Range;
use std::sync::Mutex;

use super::ring::{self, Layout, Ring};
use super::{Network, Part, TILE, Timeline};
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"mdspkv1\n";
/// The bound of k and v (spec 5.3, step 1).
const KEY_MAX: u16 = 2_047;

/// The shape of a network, as far as its state depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub widths: Vec<usize>,
    pub heads: Vec<usize>,
    pub window: usize,
    pub layout: Layout,
}

/// The state of one network in one context: a ring of keys and values for each block, and reused buffers.
///
/// Its memory is fixed by the network and `max_rewind`; buffers grow to the largest batch tile (at most 128 frames)
/// once and stay. A clone shares nothing with its original: it is a fork of the context.
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

/// Slots of each ring: the frames before the next that a window reaches, and behind them as many as a rewind may undo
/// or a batch tile appends at once.
fn slots(window: usize, max_rewind: u32) -> usize {
    ring::slots(window - 1 + (max_rewind as usize).max(TILE))
}

impl State {
    /// An empty context, from which rewinds go back by at most `max_rewind` frames.
    ///
    /// Allocates [`State::required_bytes`] at once.
    #[must_use]
    pub fn new(network: &Network, max_rewind: u32) -> State {
        let shape = network.shape.clone();
        let slots = slots(shape.window, max_rewind);
        let blocks = shape.widths.iter().zip(&shape.heads);
        let rings = blocks.map(|(&width, &heads)| Ring::new(shape.layout, width, heads, slots)).collect();
        State { shape, timeline: Timeline::new(max_rewind), rings, parts: Vec::new() }
    }

    /// Bytes of keys and values that [`State::new`] allocates, buffers not counted: ask before where `max_rewind` or the
    /// model comes from outside. `usize::MAX` if they are past counting.
    #[must_use]
    pub fn required_bytes(network: &Network, max_rewind: u32) -> usize {
        let shape = &network.shape;
        let slots = slots(shape.window, max_rewind);
        let blocks = shape.widths.iter().zip(&shape.heads);
        blocks.map(|(&width, &heads)| Ring::bytes(shape.layout, width, heads, slots)).fold(0, usize::saturating_add)
    }

    /// Bytes that the state holds now, buffers included.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let rings: usize = self.rings.iter().map(Ring::memory_bytes).sum();
        rings + self.parts.iter().map(|part| super::lock(part).memory_bytes()).sum::<usize>()
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

    /// Takes the context back, so that `position` is the next frame again (\[NET-6\]).
    ///
    /// # Errors
    /// [`ErrorKind::RewindTarget`] if `position` lies ahead; [`ErrorKind::RewindTooFar`] if it is more than
    /// `max_rewind` below the largest position that this context reached (\[CTRL-4\]). The state is then unchanged.
    pub fn truncate(&mut self, position: u64) -> Result<()> {
        self.timeline.truncate(position).map(|_| ())
    }

    /// Moves on by frames whose keys and values are in the rings.
    pub(super) fn advance(&mut self, frames: usize) {
        self.timeline.advance(frames);
    }

    /// Empties the context.
    pub fn reset(&mut self) {
        self.timeline.reset();
    }

    /// Frames that [`State::save`] writes: what a rewind as far as allowed can still reach.
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

    /// Takes over a context that [`State::save`] wrote for the same network and max rewind, on any arm. Allocates
    /// nothing that grows with the input.
    ///
    /// Bytes that were tampered with may give another context, never anything else.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] if `network` is not the state's or the bytes do not fit it; the state is then reset.
    pub fn restore(&mut self, network: &Network, bytes: &[u8]) -> Result<()> {
        self.reset();
        let wrong = |detail| Error::new(ErrorKind::WrongShape, 0).with_detail(detail);
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
        if values.iter().any(|value| i16::from_le_bytes(*value).unsigned_abs() > KEY_MAX) {
            return Err(wrong("a value in a saved state"));
        }
        let mut values = values.iter().map(|value| i16::from_le_bytes(*value));
        for (ring, &width) in self.rings.iter_mut().zip(widths) {
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
