//! Keys and values of one block: the last frames of the context (spec 5.6).
//!
//! A ring starts without slots and grows as frames come.

use std::ops::Range;

/// The memory layout of a ring. Every layout holds the same integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// A row of the width d for each slot.
    Frames,
    /// For k: a row of slots for each pair of neighbouring elements of a head, the two next to each other. For v: a row
    /// of slots for each element. Rows begin at cache lines.
    #[allow(dead_code)] // on targets without a SIMD arm
    Slots,
}

/// 32 values of 16 bits in a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line(pub [i16; 32]);

/// Slots are counted in groups of this many, one line of v.
pub(super) const GROUP: usize = 32;

/// Keys and values of one block. Frame t of the context is in slot t mod `slots`; as slots come in whole groups, frame
/// t is the (t mod [`GROUP`])-th of its group in a ring of any size.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    layout: Layout,
    width: usize,
    heads: usize,
    slots: usize,
    k: Vec<Line>,
    v: Vec<Line>,
}

/// The number of slots, in whole groups, that holds at least `frames` frames.
pub(super) fn slots(frames: usize) -> usize {
    frames.next_multiple_of(GROUP)
}

impl Ring {
    /// A ring of `slots` slots, a multiple of [`GROUP`]; 0 is allowed.
    pub(super) fn new(layout: Layout, width: usize, heads: usize, slots: usize) -> Ring {
        let (k, v) = Ring::lines(layout, width, heads, slots);
        Ring { layout, width, heads, slots, k: vec![Line([0; 32]); k], v: vec![Line([0; 32]); v] }
    }

    /// Lines of k and of v.
    fn lines(layout: Layout, width: usize, heads: usize, slots: usize) -> (usize, usize) {
        match layout {
            Layout::Frames => {
                let lines = slots.saturating_mul(width.div_ceil(32));
                (lines, lines)
            }
            Layout::Slots => {
                let pairs = heads * (width / heads).div_ceil(2);
                (pairs.saturating_mul(slots / 16), width.saturating_mul(slots / 32))
            }
        }
    }

    /// Enlarges the ring to `slots` slots, and keeps the frames `live`, of which there are at most as many as the ring
    /// has slots.
    pub(super) fn grow(&mut self, slots: usize, live: Range<u64>) {
        let mut grown = Ring::new(self.layout, self.width, self.heads, slots);
        if !live.is_empty() {
            match self.layout {
                Layout::Frames => live.for_each(|frame| grown.take_frame(self, frame)),
                Layout::Slots => grown.take_groups(self, live),
            }
        }
        *self = grown;
    }

    /// Frees all slots.
    pub(super) fn clear(&mut self) {
        *self = Ring::new(self.layout, self.width, self.heads, 0);
    }

    /// [`Layout::Frames`]: copies a frame from another ring.
    fn take_frame(&mut self, from: &Ring, frame: u64) {
        let row = self.width.div_ceil(32);
        let (k, v) = from.frame(from.slot(frame));
        let slot = self.slot(frame);
        self.k[slot * row..][..row].copy_from_slice(k);
        self.v[slot * row..][..row].copy_from_slice(v);
    }

    /// [`Layout::Slots`]: copies frames from another ring, in whole groups. A group may include frames that are not
    /// `live`; if the other ring is full, it may be copied to two places. A frame outside the window has no weight, and
    /// is overwritten before it enters the window.
    fn take_groups(&mut self, from: &Ring, live: Range<u64>) {
        let groups = |ring: &Ring| (ring.slots / GROUP) as u64;
        let (old, new) = (groups(from), groups(self));
        let group = GROUP as u64;
        // Both remainders are below a number of groups, a usize.
        let places = (live.start / group..=(live.end - 1) / group).map(|g| ((g % old) as usize, (g % new) as usize));
        for (to, from) in self.k.chunks_exact_mut(self.slots / 16).zip(from.k.chunks_exact(from.slots / 16)) {
            for (old, new) in places.clone() {
                to[2 * new..][..2].copy_from_slice(&from[2 * old..][..2]);
            }
        }
        for (to, from) in self.v.chunks_exact_mut(self.slots / GROUP).zip(from.v.chunks_exact(from.slots / GROUP)) {
            for (old, new) in places.clone() {
                to[new] = from[old];
            }
        }
    }

    /// Bytes that [`Ring::new`] allocates.
    pub(super) fn bytes(layout: Layout, width: usize, heads: usize, slots: usize) -> usize {
        let (k, v) = Ring::lines(layout, width, heads, slots);
        k.saturating_add(v).saturating_mul(size_of::<Line>())
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn memory_bytes(&self) -> usize {
        (self.k.capacity() + self.v.capacity()) * size_of::<Line>()
    }

    /// The slot of a frame of the context. The ring must have slots.
    pub(super) fn slot(&self, frame: u64) -> usize {
        // The remainder is below `slots`, a usize.
        (frame % self.slots as u64) as usize
    }

    /// Appends `frames` frames from `first` on, for which the ring has slots. Row f of `rows`, `stride` values long,
    /// holds q, k and v one after the other, each of the width d.
    pub(super) fn append(&mut self, first: u64, frames: usize, rows: &[i16], stride: usize) {
        if frames == 0 {
            return;
        }
        match self.layout {
            Layout::Frames => {
                for (f, row) in rows.chunks(stride).take(frames).enumerate() {
                    let slot = self.slot(first + f as u64);
                    self.write(slot, &row[self.width..2 * self.width], &row[2 * self.width..3 * self.width]);
                }
            }
            Layout::Slots => self.append_slots(first, frames, rows, stride),
        }
    }

    fn append_slots(&mut self, first: u64, frames: usize, rows: &[i16], stride: usize) {
        let c = self.width / self.heads;
        let pairs = c.div_ceil(2);
        let start = self.slot(first);
        let place = |f: usize| if start + f < self.slots { start + f } else { start + f - self.slots };
        for row in 0..self.heads * pairs {
            let (head, pair) = (row / pairs, row % pairs);
            let at = self.width + head * c + 2 * pair;
            let odd = 2 * pair + 1 < c;
            let lines = &mut self.k[row * self.slots / 16..][..self.slots / 16];
            for f in 0..frames {
                let slot = place(f);
                let values = &rows[f * stride + at..];
                let line = &mut lines[slot / 16].0;
                line[2 * (slot % 16)] = values[0];
                line[2 * (slot % 16) + 1] = if odd { values[1] } else { 0 };
            }
        }
        for element in 0..self.width {
            let lines = &mut self.v[element * self.slots / 32..][..self.slots / 32];
            for f in 0..frames {
                let slot = place(f);
                lines[slot / 32].0[slot % 32] = rows[f * stride + 2 * self.width + element];
            }
        }
    }

    /// Writes k and v of the width d into a slot.
    pub(super) fn write(&mut self, slot: usize, k: &[i16], v: &[i16]) {
        match self.layout {
            Layout::Frames => {
                let row = self.width.div_ceil(32);
                for (element, (&k, &v)) in k.iter().zip(v).enumerate() {
                    self.k[slot * row + element / 32].0[element % 32] = k;
                    self.v[slot * row + element / 32].0[element % 32] = v;
                }
            }
            Layout::Slots => {
                let row = [&[0; 0], k, k, v].concat();
                self.append_slots(slot as u64, 1, &row, row.len());
            }
        }
    }

    /// Reads k and v of a slot, element by element.
    pub(super) fn read(&self, slot: usize, k: &mut [i16], v: &mut [i16]) {
        let c = self.width / self.heads;
        for element in 0..self.width {
            (k[element], v[element]) = match self.layout {
                Layout::Frames => {
                    let line = slot * self.width.div_ceil(32) + element / 32;
                    (self.k[line].0[element % 32], self.v[line].0[element % 32])
                }
                Layout::Slots => {
                    let row = element / c * c.div_ceil(2) + element % c / 2;
                    let k = self.k[row * self.slots / 16 + slot / 16].0[2 * (slot % 16) + element % c % 2];
                    (k, self.v[element * self.slots / 32 + slot / 32].0[slot % 32])
                }
            };
        }
    }

    /// [`Layout::Frames`]: the lines of k and of v of a slot.
    pub(super) fn frame(&self, slot: usize) -> (&[Line], &[Line]) {
        let row = self.width.div_ceil(32);
        (&self.k[slot * row..][..row], &self.v[slot * row..][..row])
    }

    /// [`Layout::Slots`]: the lines of a head: of k, `slots` / 16 for each pair of elements, and of v, `slots` / 32 for
    /// each element.
    #[allow(dead_code)] // on targets without a SIMD arm
    pub(super) fn head(&self, head: usize) -> (&[Line], &[Line]) {
        let c = self.width / self.heads;
        let k = c.div_ceil(2) * self.slots / 16;
        let v = c * self.slots / 32;
        (&self.k[head * k..][..k], &self.v[head * v..][..v])
    }
}
