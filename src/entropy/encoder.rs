//! Values to bytes.

use super::bank::Bank;
use super::escape;
use super::widen;

/// Encodes the values of one lane.
///
/// Give it the values in the order in which a [`LaneDecoder`] is to return them, each
/// with the table of a [`Bank`] that predicts it. [`finish`](Self::finish) seals the
/// lane.
///
/// # Example
///
/// ```
/// use midspan::entropy::{Bank, LaneEncoder};
///
/// # fn main() -> Result<(), midspan::entropy::BankError> {
/// let bank = Bank::new(vec![-1], &[3], vec![100, 15_100, 50_536, 65_436])?;
/// let mut encoder = LaneEncoder::new();
/// encoder.encode_row(&bank, &[0, 0, 0], &[0, 10, -10], &[0, 11, -11]);
/// assert_eq!(encoder.finish(), [0xa6]);
/// # Ok(())
/// # }
/// ```
///
/// # Reuse
///
/// An encoder keeps its buffer when it is sealed with [`finish_into`](Self::finish_into),
/// so a stream that codes one frame at a time allocates nothing once it is warm.
///
/// [`LaneDecoder`]: super::LaneDecoder
#[derive(Debug, Clone, Default)]
pub struct LaneEncoder {
    state: State,
    /// The words written out, as bytes; after them, room for more.
    bytes: Vec<u8>,
}

impl LaneEncoder {
    /// An encoder that has coded nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Codes one value.
    ///
    /// The table is read as if moved by `shift`: an entry v of the table stands for the
    /// value `shift` + v. A value outside the table is escaped.
    ///
    /// Encoding cannot fail. The caller must make sure that the value lies within 65,535
    /// of the table's nearer edge, as it does when both lie in a range of ±32,767; a
    /// value farther away would not be recoverable, and debug builds panic.
    ///
    /// # Panics
    ///
    /// If there is no table with that number.
    #[inline]
    pub fn encode(&mut self, bank: &Bank, table: usize, shift: i32, value: i32) {
        self.state = self.state.encode(&mut self.bytes, bank, table, shift, value);
    }

    /// Codes a whole row: `values[i]` with table `tables[i]`, shifted by `shifts[i]`.
    ///
    /// The three slices should have the same length; the shortest one counts.
    ///
    /// # Panics
    ///
    /// If a table number is not in the bank.
    pub fn encode_row(&mut self, bank: &Bank, tables: &[u32], shifts: &[i32], values: &[i16]) {
        debug_assert!(tables.len() == values.len() && shifts.len() == values.len());
        // A local copy lets the compiler keep the state in registers.
        let mut state = self.state;
        for ((&table, &shift), &value) in tables.iter().zip(shifts).zip(values) {
            let value = i32::from(value);
            state = state.encode(&mut self.bytes, bank, widen(table), shift, value);
        }
        self.state = state;
    }

    /// Codes a row whose tables follow one another, without shifts: `values[i]` with
    /// table `base` + i.
    ///
    /// # Panics
    ///
    /// If a table number is not in the bank.
    pub fn encode_run(&mut self, bank: &Bank, base: usize, values: &[i16]) {
        let mut state = self.state;
        for (i, &value) in values.iter().enumerate() {
            let table = base.saturating_add(i);
            state = state.encode(&mut self.bytes, bank, table, 0, i32::from(value));
        }
        self.state = state;
    }

    /// Codes a symbol by its lower boundary and its mass, which are below 2^16.
    #[inline]
    pub(super) fn symbol(&mut self, left: u32, mass: u32) {
        let narrow = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        self.state = self.state.narrow(&mut self.bytes, narrow(left), narrow(mass));
    }

    /// Codes a number of 1 to 8 bits, all numbers equally likely.
    pub(super) fn uniform(&mut self, number: u32, bits: u32) {
        let mass = (1_u32 << 16) >> bits;
        self.symbol(number.wrapping_mul(mass), mass);
    }

    /// The coder's position, for [`bits_since`](Self::bits_since) and
    /// [`rewind`](Self::rewind).
    #[inline]
    pub(super) fn mark(&self) -> Mark {
        let last = self.state.len.checked_sub(1).and_then(|last| self.bytes.get(last));
        Mark { state: self.state, last: last.copied() }
    }

    /// The bits coded since the mark: within one bit of what the symbols cost, and the
    /// same in every implementation, because the state is the same.
    #[inline]
    pub(super) fn bits_since(&self, mark: &Mark) -> u64 {
        let written = self.state.len.saturating_sub(mark.state.len) as u64;
        let (now, then) = (self.state.range.leading_zeros(), mark.state.range.leading_zeros());
        // A range keeps its upper 16 bits for the next word: bits coded but not yet
        // written are leading zeros there.
        written.saturating_mul(8).saturating_add(u64::from(now)).saturating_sub(u64::from(then))
    }

    /// Takes back what has been coded since the mark.
    ///
    /// Since the mark, at most one carry can have reached the bytes before it, because
    /// all that was coded lies below the mark's low + range, which is below 2^65. Such a
    /// carry changed the last of these bytes by one.
    pub(super) fn rewind(&mut self, mark: &Mark) {
        self.state = mark.state;
        let own = self.bytes.get_mut(..mark.state.len).unwrap_or_default();
        if own.last().copied() != mark.last {
            for byte in own.iter_mut().rev() {
                *byte = byte.wrapping_sub(1);
                if *byte != 0xFF {
                    break;
                }
            }
        }
    }

    /// Seals the lane and returns its payload.
    ///
    /// The payload is the shortest string of bytes that decodes to the values coded, and
    /// of these the smallest. It may be empty.
    pub fn finish(mut self) -> Vec<u8> {
        let len = self.seal();
        self.bytes.truncate(len);
        self.bytes
    }

    /// Seals the lane, appends its payload to `out`, and makes the encoder ready for a
    /// new lane.
    pub fn finish_into(&mut self, out: &mut Vec<u8>) {
        let len = self.seal();
        out.extend_from_slice(self.bytes.get(..len).unwrap_or_default());
        self.clear();
    }

    /// Drops what has been coded, and makes the encoder ready for a new lane.
    pub fn clear(&mut self) {
        self.state = State::default();
    }

    /// Extends the words written out to the payload, and returns its length.
    ///
    /// The words followed by `low` form the number L; every number from L up to but not
    /// including L + range decodes to the values. The payload is the first multiple of
    /// 256^−n in that interval, for the smallest n that has one. In terms of `low` it is
    /// a multiple of 2^64, which means the words alone, or of 2^56 or 2^48. As the range
    /// is at least 2^48, no finer ones are needed. Among the words, a shorter payload
    /// only means fewer zeros at the end.
    fn seal(&mut self) -> usize {
        let State { low, range, mut len } = self.state;
        let end = u128::from(low).saturating_add(u128::from(range));
        for further in 0..=2u32 {
            let bits = u64::BITS.saturating_sub(further.saturating_mul(8));
            let number = u128::from(low).next_multiple_of(1 << bits);
            if number < end {
                if number >= 1 << 64 {
                    carry(&mut self.bytes, len);
                }
                let [.., a, b, _, _, _, _, _, _] = number.to_be_bytes();
                write_word(&mut self.bytes, len, [a, b]);
                len = len.saturating_add(usize::try_from(further).unwrap_or(0));
                break;
            }
        }
        let own = self.bytes.get(..len).unwrap_or_default();
        let last = own.iter().rposition(|&byte| byte != 0);
        last.map_or(0, |last| last.saturating_add(1))
    }
}

/// A position of a coder.
#[derive(Debug)]
pub(super) struct Mark {
    state: State,
    /// The last byte written out.
    last: Option<u8>,
}

/// The coder's state between symbols.
#[derive(Debug, Clone, Copy)]
struct State {
    /// The lower end of the interval, after the words written out.
    low: u64,
    /// The width of the interval, at least 2^48.
    range: u64,
    /// The number of bytes written out.
    len: usize,
}

impl Default for State {
    fn default() -> Self {
        State { low: 0, range: u64::MAX, len: 0 }
    }
}

impl State {
    /// Narrows the interval to a value of a table.
    #[inline(always)]
    #[must_use]
    fn encode(self, bytes: &mut Vec<u8>, bank: &Bank, table: usize, shift: i32, value: i32) -> Self {
        let (table, data) = bank.view(table);
        let (symbol, distance) = table.classify(shift, value);
        let (left, mass) = table.interval(data, symbol);
        let narrowed = self.narrow(bytes, left, mass);
        match distance {
            None => narrowed,
            Some(distance) => narrowed.escape(bytes, distance),
        }
    }

    /// Narrows the interval to a symbol, and writes out a word if the range got small.
    #[inline(always)]
    #[must_use]
    fn narrow(self, bytes: &mut Vec<u8>, left: u16, mass: u16) -> Self {
        // Neither product overflows: both are at most scale · 2^16, thus at most `range`.
        let scale = self.range >> 16;
        let step = scale.wrapping_mul(u64::from(left));
        let range = scale.wrapping_mul(u64::from(mass));
        let (low, overflow) = self.low.overflowing_add(step);
        if overflow {
            carry(bytes, self.len);
        }
        // The word is always written but counts only if the range is small: a branch here
        // would be mispredicted too often.
        let [a, b, ..] = low.to_be_bytes();
        write_word(bytes, self.len, [a, b]);
        let words = u32::from(range < 1 << 48);
        State {
            low: low << words.wrapping_mul(16),
            range: range << words.wrapping_mul(16),
            len: self.len.wrapping_add(if words == 1 { 2 } else { 0 }),
        }
    }

    /// Codes how far a value lies outside its table.
    #[cold]
    #[inline(never)]
    #[must_use]
    fn escape(mut self, bytes: &mut Vec<u8>, distance: u32) -> Self {
        debug_assert!(distance <= escape::MAX_DISTANCE, "a value lies {distance} too far outside its table");
        let distance = distance.min(escape::MAX_DISTANCE);
        let number = distance.saturating_add(1);
        let below = escape::bit_length(distance).saturating_sub(1);
        for _ in 0..below {
            self = self.bit(bytes, true);
        }
        if below.saturating_add(1) < escape::MAX_BITS {
            self = self.bit(bytes, false);
        }
        for bit in (0..below).rev() {
            self = self.bit(bytes, (number >> bit) & 1 == 1);
        }
        self
    }

    #[must_use]
    fn bit(self, bytes: &mut Vec<u8>, bit: bool) -> Self {
        let left = if bit { escape::HALF } else { 0 };
        self.narrow(bytes, left, escape::HALF)
    }
}

/// Writes a word after the first `len` bytes.
#[inline(always)]
fn write_word(bytes: &mut Vec<u8>, len: usize, word: [u8; 2]) {
    let room = bytes.get_mut(len..).unwrap_or_default();
    match room.first_chunk_mut::<2>() {
        Some(room) => *room = word,
        None => grow(bytes, len, word),
    }
}

#[cold]
#[inline(never)]
fn grow(bytes: &mut Vec<u8>, len: usize, word: [u8; 2]) {
    bytes.truncate(len);
    bytes.extend_from_slice(&word);
    bytes.resize(len.saturating_mul(2).saturating_add(64), 0);
}

/// Adds one to the first `len` bytes, read as one number.
///
/// It never overflows, since the interval never leaves the numbers below 1.
#[cold]
#[inline(never)]
fn carry(bytes: &mut [u8], len: usize) {
    for byte in bytes.iter_mut().take(len).rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
}
