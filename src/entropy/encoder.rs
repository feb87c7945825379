//! Values to bytes.

use core::convert::Infallible;
use core::mem;

use constriction::backends::WriteWords;
use constriction::stream::Encode;
use constriction::stream::queue::{EncoderSituation, RangeEncoder};

use super::bank::Bank;
use super::escape::{self, Bit};

/// Encodes the values of one lane.
///
/// Values go in in the order in which a [`LaneDecoder`] is to give them back, each with
/// the table of a [`Bank`] that predicts it. [`finish`](Self::finish) seals the lane.
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
/// assert_eq!(encoder.finish(), [0x8e]);
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
    coder: RangeEncoder<u16, u64, Bytes>,
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
    /// Encoding cannot fail. It is up to the caller that the value lies within 65,534 of
    /// the table's nearer edge, as it does when both lie in a range of ±32,767; a value
    /// farther away would not be recoverable, and debug builds panic.
    ///
    /// # Panics
    ///
    /// If there is no table of that number.
    #[inline]
    pub fn encode(&mut self, bank: &Bank, table: usize, shift: i32, value: i32) {
        let model = bank.model(table);
        let (symbol, distance) = model.classify(shift, value);
        // Neither error exists: every symbol has a mass, and `Bytes` takes every word.
        let _ = self.coder.encode_symbol(symbol, model);
        if let Some(distance) = distance {
            self.encode_escape(distance);
        }
    }

    /// Codes how far a value lies outside its table.
    #[cold]
    #[inline(never)]
    fn encode_escape(&mut self, distance: u32) {
        debug_assert!(
            distance <= escape::MAX_DISTANCE,
            "a value lies {distance} outside its table"
        );
        let distance = distance.min(escape::MAX_DISTANCE);
        let number = distance.saturating_add(1);
        let below = escape::bit_length(distance).saturating_sub(1);
        for _ in 0..below {
            self.encode_bit(true);
        }
        if below.saturating_add(1) < escape::MAX_BITS {
            self.encode_bit(false);
        }
        for bit in (0..below).rev() {
            self.encode_bit((number >> bit) & 1 == 1);
        }
    }

    fn encode_bit(&mut self, bit: bool) {
        let _ = self.coder.encode_symbol(bit, Bit);
    }

    /// Codes a whole row: `values[i]` with table `tables[i]`, shifted by `shifts[i]`.
    ///
    /// The three slices should be of one length; the shortest decides.
    ///
    /// # Panics
    ///
    /// If a table number is not in the bank.
    pub fn encode_row(&mut self, bank: &Bank, tables: &[u32], shifts: &[i32], values: &[i16]) {
        debug_assert!(tables.len() == values.len() && shifts.len() == values.len());
        for ((&table, &shift), &value) in tables.iter().zip(shifts).zip(values) {
            self.encode(bank, widen(table), shift, i32::from(value));
        }
    }

    /// Codes a row whose tables follow one another, without shifts: `values[i]` with
    /// table `base` + i.
    ///
    /// # Panics
    ///
    /// If a table number is not in the bank.
    pub fn encode_run(&mut self, bank: &Bank, base: usize, values: &[i16]) {
        for (i, &value) in values.iter().enumerate() {
            self.encode(bank, base.saturating_add(i), 0, i32::from(value));
        }
    }

    /// Seals the lane and returns its payload.
    ///
    /// The payload is the shortest string of bytes that decodes to the values coded, and
    /// of these the smallest. It may be empty.
    pub fn finish(mut self) -> Vec<u8> {
        self.seal().0
    }

    /// Seals the lane, appends its payload to `out`, and makes the encoder ready for a
    /// new lane.
    pub fn finish_into(&mut self, out: &mut Vec<u8>) {
        let mut buffer = self.seal();
        out.extend_from_slice(&buffer.0);
        buffer.0.clear();
        self.coder = RangeEncoder::with_write_backend(buffer);
    }

    /// Drops what has been coded, and makes the encoder ready for a new lane.
    pub fn clear(&mut self) {
        // `RangeEncoder::clear` would not do: it leaves words that wait for a carry.
        let (mut buffer, _, _) = mem::take(&mut self.coder).into_raw_parts();
        buffer.0.clear();
        self.coder = RangeEncoder::with_write_backend(buffer);
    }

    /// Takes the coder's words and completes them to the payload.
    ///
    /// The words given out, the words that wait for a carry, and `low` form the number L,
    /// and every number from L up to but not including L + range decodes to the values.
    fn seal(&mut self) -> Bytes {
        let (mut out, state, situation) = mem::take(&mut self.coder).into_raw_parts();
        let (low, range) = (state.lower(), state.range().get());
        let end = u128::from(low).saturating_add(u128::from(range));
        if end > 1 << 64 {
            // The interval holds a number that ends before `low`: the words plus one. No
            // shorter one exists but for its zeros. Words that wait become zeros too,
            // except for the first.
            if let EncoderSituation::Inverted(_, word) = situation {
                out.put(word.wrapping_add(1));
            }
        } else {
            if let EncoderSituation::Inverted(count, word) = situation {
                out.put(word);
                for _ in 1..count.get() {
                    out.put(u16::MAX);
                }
            }
            // One or two bytes of `low`, rounded up: two always suffice, as the range
            // is at least 2^48. None if `low` is 0.
            for bits in [0, 8, 16] {
                let unit = 1u128 << 64u32.saturating_sub(bits);
                let number = u128::from(low).next_multiple_of(unit);
                if number < end {
                    let bytes = number.to_be_bytes();
                    let count = usize::from(bits > 0).saturating_add(usize::from(bits > 8));
                    out.0.extend(bytes.iter().skip(8).take(count));
                    break;
                }
            }
        }
        while out.0.last() == Some(&0) {
            out.0.pop();
        }
        out
    }
}

/// Codes two rows into two lanes at the same time.
///
/// The result is that of [`LaneEncoder::encode_row`] on each lane. Coding one value waits
/// for the one before it; two lanes do not wait for each other, so a processor works on
/// both at once.
///
/// # Panics
///
/// If a table number is not in the bank.
pub fn encode_rows_2(
    lanes: [&mut LaneEncoder; 2],
    bank: &Bank,
    tables: [&[u32]; 2],
    shifts: [&[i32]; 2],
    values: [&[i16]; 2],
) {
    let [a, b] = lanes;
    let both = values[0].len().min(values[1].len());
    let (tables, tables_rest) = split(tables, both);
    let (shifts, shifts_rest) = split(shifts, both);
    let (values, values_rest) = split(values, both);
    let row = |i: usize| tables[i].iter().zip(shifts[i]).zip(values[i]);
    for (((&ta, &sa), &va), ((&tb, &sb), &vb)) in row(0).zip(row(1)) {
        a.encode(bank, widen(ta), sa, i32::from(va));
        b.encode(bank, widen(tb), sb, i32::from(vb));
    }
    a.encode_row(bank, tables_rest[0], shifts_rest[0], values_rest[0]);
    b.encode_row(bank, tables_rest[1], shifts_rest[1], values_rest[1]);
}

/// Splits both slices at the same place.
pub(super) fn split<T>(rows: [&[T]; 2], at: usize) -> ([&[T]; 2], [&[T]; 2]) {
    let [a, b] = rows;
    let (a, a_rest) = a.split_at_checked(at).unwrap_or((a, &[]));
    let (b, b_rest) = b.split_at_checked(at).unwrap_or((b, &[]));
    ([a, b], [a_rest, b_rest])
}

/// A table number as an index.
#[inline(always)]
pub(super) const fn widen(table: u32) -> usize {
    const { assert!(usize::BITS >= 32) };
    table as usize
}

/// A buffer that takes words as bytes, the more significant byte first.
#[derive(Debug, Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    #[inline(always)]
    fn put(&mut self, word: u16) {
        self.0.extend_from_slice(&word.to_be_bytes());
    }
}

impl WriteWords<u16> for Bytes {
    type WriteError = Infallible;

    #[inline(always)]
    fn write(&mut self, word: u16) -> Result<(), Infallible> {
        self.put(word);
        Ok(())
    }
}
