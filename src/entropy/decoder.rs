//! Bytes to values.

use core::fmt;

use super::bank::Bank;
use super::escape;
use super::table::Table;
use super::widen;

/// Decodes the values of one lane.
///
/// It must be asked for the values with the same tables and shifts, in the same order, as
/// the encoder was given; then [`finish`](Self::finish) says whether the payload is the
/// one that an encoder makes of these values.
///
/// A decoder of bytes that no encoder made returns values or an error, whatever the bytes
/// are. It never panics and it never reads outside its payload; after the payload's end
/// it reads zeros.
///
/// A decoder is small, and its copies are independent, so decoding can be tried and
/// undone.
///
/// # Example
///
/// ```
/// use midspan::entropy::{Bank, EntropyError, LaneDecoder};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bank = Bank::new(vec![-1], &[3], vec![100, 15_100, 50_536, 65_436])?;
/// let mut values = [0; 3];
/// let mut decoder = LaneDecoder::new(&[0xa6]);
/// decoder.decode_row(&bank, &[0, 0, 0], &[0, 10, -10], (-127, 127), &mut values)?;
/// decoder.finish()?;
/// assert_eq!(values, [0, 11, -11]);
///
/// // Another string of bytes may hold the same values, but it is refused.
/// let mut decoder = LaneDecoder::new(&[0xa6, 0x01]);
/// decoder.decode_row(&bank, &[0, 0, 0], &[0, 10, -10], (-127, 127), &mut values)?;
/// assert_eq!(values, [0, 11, -11]);
/// assert_eq!(decoder.finish(), Err(EntropyError::SealNotCanonical));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct LaneDecoder<'a> {
    payload: &'a [u8],
    /// The number of bytes read, which may exceed the payload's length. Always even.
    read: usize,
    /// The distance of the code value from the lower end of the coder's interval.
    offset: u64,
    /// The width of the interval, at least 2^48 between symbols.
    range: u64,
}

impl<'a> LaneDecoder<'a> {
    /// A decoder at the start of a payload.
    pub fn new(payload: &'a [u8]) -> Self {
        let mut start = [0; 8];
        for (to, from) in start.iter_mut().zip(payload) {
            *to = *from;
        }
        LaneDecoder { payload, read: 8, offset: u64::from_be_bytes(start), range: u64::MAX }
    }

    /// The same decoder, with the same payload at another place in memory.
    pub(crate) fn with_payload(self, payload: &[u8]) -> LaneDecoder<'_> {
        LaneDecoder { payload, read: self.read, offset: self.offset, range: self.range }
    }

    /// Decodes one value.
    ///
    /// The table is read as if moved by `shift`: an entry v of the table stands for the
    /// value `shift` + v. `range` is the smallest and the largest value allowed.
    ///
    /// # Errors
    ///
    /// [`EntropyError::Corrupt`] if the bytes stand for no symbol, and
    /// [`EntropyError::ValueOutOfRange`] if the value lies outside `range`. After an error
    /// the decoder is of no further use.
    ///
    /// # Panics
    ///
    /// If there is no table with that number.
    #[inline(always)]
    pub fn decode(&mut self, bank: &Bank, table: usize, shift: i32, range: (i32, i32)) -> Result<i32, EntropyError> {
        let (table, data) = bank.view(table);
        let scale = self.range >> 16;
        let found = table.find(data, self.offset, scale).ok_or(EntropyError::Corrupt)?;
        self.narrow(found.low, found.high);
        // Symbol 0 becomes 65,535 here, which is not an index in any table.
        let place = found.symbol.wrapping_sub(1);
        let mut value = i32::from(place).wrapping_add(table.first());
        if place >= table.size() {
            let (decoder, escaped) = self.clone().escaped(table, found.symbol)?;
            *self = decoder;
            value = escaped;
        }
        let value = value.wrapping_add(shift);
        if value < range.0 || value > range.1 {
            return Err(EntropyError::ValueOutOfRange);
        }
        Ok(value)
    }

    /// Narrows the interval to a part that holds the offset.
    #[inline(always)]
    fn narrow(&mut self, low: u64, high: u64) {
        self.offset = self.offset.wrapping_sub(low);
        self.range = high.wrapping_sub(low);
        if self.range < 1 << 48 {
            self.range <<= 16;
            self.offset = (self.offset << 16) | u64::from(self.word());
        }
    }

    /// The next word of the payload; zeros after its end.
    #[inline(always)]
    fn word(&mut self) -> u16 {
        let rest = self.payload.get(self.read..).unwrap_or_default();
        self.read = self.read.wrapping_add(2);
        match rest.first_chunk::<2>() {
            Some(word) => u16::from_be_bytes(*word),
            None => rest.first().map_or(0, |&byte| u16::from(byte) << 8),
        }
    }

    /// Decodes one of three symbols, given the boundaries of their table.
    #[inline]
    pub(super) fn symbol(&mut self, boundaries: [u32; 4]) -> Result<u32, EntropyError> {
        let scale = self.range >> 16;
        // No product overflows: no boundary is above 2^16.
        let [_, first, second, end] = boundaries.map(|c| scale.wrapping_mul(u64::from(c)));
        if self.offset >= end {
            return Err(EntropyError::Corrupt);
        }
        let (symbol, low, high) = if self.offset < first {
            (0, 0, first)
        } else if self.offset < second {
            (1, first, second)
        } else {
            (2, second, end)
        };
        self.narrow(low, high);
        Ok(symbol)
    }

    /// Decodes a number of 1 to 8 bits, all numbers equally likely.
    pub(super) fn uniform(&mut self, bits: u32) -> Result<u32, EntropyError> {
        let mass = (1_u64 << 16) >> bits;
        // The width of each number's interval, at least 2^40.
        let width = (self.range >> 16).wrapping_mul(mass);
        let number = self.offset.checked_div(width).and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| number >> bits == 0).ok_or(EntropyError::Corrupt)?;
        let low = width.wrapping_mul(u64::from(number));
        self.narrow(low, low.wrapping_add(width));
        Ok(number)
    }

    /// Decodes what follows an escape. Returns the value before the shift.
    #[cold]
    #[inline(never)]
    fn escaped(mut self, table: &Table, symbol: u16) -> Result<(Self, i32), EntropyError> {
        let mut below = 0u32;
        while below.saturating_add(1) < escape::MAX_BITS && self.bit()? {
            below = below.saturating_add(1);
        }
        let mut number = 1i32;
        for _ in 0..below {
            number = (number << 1) | i32::from(self.bit()?);
        }
        // The number, which is the distance + 1, is below 65,536 and `first` is near 0.
        let edge = if symbol == 0 {
            table.first().wrapping_sub(number)
        } else {
            let last = table.first().wrapping_add(i32::from(table.size()));
            last.wrapping_add(number).wrapping_sub(1)
        };
        Ok((self, edge))
    }

    fn bit(&mut self) -> Result<bool, EntropyError> {
        let scale = self.range >> 16;
        let half = scale.wrapping_mul(u64::from(escape::HALF));
        let all = half.wrapping_mul(2);
        if self.offset >= all {
            return Err(EntropyError::Corrupt);
        }
        let bit = self.offset >= half;
        if bit {
            self.narrow(half, all);
        } else {
            self.narrow(0, half);
        }
        Ok(bit)
    }

    /// Decodes a whole row: `out[i]` with table `tables[i]`, shifted by `shifts[i]`.
    ///
    /// The three slices should have the same length; the shortest one counts. `range`
    /// should lie within that of `i16`; a value that does not fit is refused as outside
    /// `range`.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode). The values before the one refused are in `out`.
    ///
    /// # Panics
    ///
    /// If a table number is not in the bank.
    pub fn decode_row(
        &mut self,
        bank: &Bank,
        tables: &[u32],
        shifts: &[i32],
        range: (i32, i32),
        out: &mut [i16],
    ) -> Result<(), EntropyError> {
        debug_assert!(tables.len() == out.len() && shifts.len() == out.len());
        // A local copy lets the compiler keep the state in registers.
        let mut lane = self.clone();
        for ((&table, &shift), out) in tables.iter().zip(shifts).zip(out) {
            *out = to_i16(lane.decode(bank, widen(table), shift, range)?)?;
        }
        *self = lane;
        Ok(())
    }

    /// Decodes a row whose tables follow one another, without shifts: `out[i]` with table
    /// `base` + i.
    ///
    /// # Errors
    ///
    /// As [`decode_row`](Self::decode_row).
    ///
    /// # Panics
    ///
    /// If a table number is not in the bank.
    pub fn decode_run(
        &mut self,
        bank: &Bank,
        base: usize,
        range: (i32, i32),
        out: &mut [i16],
    ) -> Result<(), EntropyError> {
        let mut lane = self.clone();
        for (i, out) in out.iter_mut().enumerate() {
            *out = to_i16(lane.decode(bank, base.saturating_add(i), 0, range)?)?;
        }
        *self = lane;
        Ok(())
    }

    /// Checks that the payload is the canonical one for the values decoded.
    ///
    /// It looks only at the decoder's final state. The payload ends e bits before the end
    /// of what has been read, so strings of its length are 2^e apart. The string is the
    /// right one if the one below it lies below the interval (offset < 2^e), and if the
    /// next shorter one lies above it.
    ///
    /// # Errors
    ///
    /// [`EntropyError::SealNotCanonical`] if an encoder would have made other bytes for
    /// these values.
    pub fn finish(self) -> Result<(), EntropyError> {
        let Some(&last) = self.payload.last() else {
            return Ok(());
        };
        let behind = self.read.checked_sub(self.payload.len());
        let (Some(behind), 1..) = (behind, last) else {
            return Err(EntropyError::SealNotCanonical);
        };
        if behind >= 8 {
            return Ok(());
        }
        let mut unit = 1u128;
        for _ in 0..behind {
            unit <<= 8;
        }
        let to_shorter = unit.saturating_mul(256u128.saturating_sub(u128::from(last)));
        let (offset, range) = (u128::from(self.offset), u128::from(self.range));
        if offset < unit && to_shorter.saturating_add(offset) >= range {
            Ok(())
        } else {
            Err(EntropyError::SealNotCanonical)
        }
    }
}

/// Decodes two rows from two lanes at the same time.
///
/// The result is that of [`LaneDecoder::decode_row`] on each lane, errors included.
/// Decoding one value must wait for the one before it; two lanes do not wait for each
/// other, so a processor works on both at once.
///
/// # Panics
///
/// If a table number is not in the bank.
pub fn decode_rows_2(
    lanes: [&mut LaneDecoder<'_>; 2],
    bank: &Bank,
    tables: [&[u32]; 2],
    shifts: [&[i32]; 2],
    range: (i32, i32),
    out: [&mut [i16]; 2],
) -> [Result<(), EntropyError>; 2] {
    let [lane_a, lane_b] = lanes;
    let [tables_a, tables_b] = tables;
    let [shifts_a, shifts_b] = shifts;
    let [out_a, out_b] = out;
    let (mut a, mut b) = (lane_a.clone(), lane_b.clone());
    let mut common = || {
        let mut done = 0usize;
        let row_a = tables_a.iter().zip(shifts_a).zip(out_a.iter_mut());
        let row_b = tables_b.iter().zip(shifts_b).zip(out_b.iter_mut());
        for (((&ta, &sa), va), ((&tb, &sb), vb)) in row_a.zip(row_b) {
            *va = to_i16(a.decode(bank, widen(ta), sa, range)?)?;
            *vb = to_i16(b.decode(bank, widen(tb), sb, range)?)?;
            done = done.wrapping_add(1);
        }
        Ok::<usize, EntropyError>(done)
    };
    let done = match common() {
        Ok(done) => {
            (*lane_a, *lane_b) = (a, b);
            done
        }
        // Begin again, one lane after the other, so that each has its own answer.
        Err(_) => 0,
    };
    [
        lane_a.decode_row(
            bank,
            tables_a.get(done..).unwrap_or_default(),
            shifts_a.get(done..).unwrap_or_default(),
            range,
            out_a.get_mut(done..).unwrap_or_default(),
        ),
        lane_b.decode_row(
            bank,
            tables_b.get(done..).unwrap_or_default(),
            shifts_b.get(done..).unwrap_or_default(),
            range,
            out_b.get_mut(done..).unwrap_or_default(),
        ),
    ]
}

#[inline(always)]
fn to_i16(value: i32) -> Result<i16, EntropyError> {
    i16::try_from(value).map_err(|_| EntropyError::ValueOutOfRange)
}

/// Why a payload is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntropyError {
    /// The bytes stand for no symbol (error 601).
    Corrupt,
    /// The bytes are not the canonical ones for these values (error 602).
    SealNotCanonical,
    /// A value lies outside the declared range of its kind (error 603).
    ValueOutOfRange,
    /// The payload is longer than its frames can need (error 604).
    TooLong,
}

impl EntropyError {
    /// The number of the error in the specification.
    pub const fn code(self) -> u16 {
        match self {
            Self::Corrupt => 601,
            Self::SealNotCanonical => 602,
            Self::ValueOutOfRange => 603,
            Self::TooLong => 604,
        }
    }
}

impl fmt::Display for EntropyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrupt => "the payload is corrupt",
            Self::SealNotCanonical => "the payload is not sealed canonically",
            Self::ValueOutOfRange => "a decoded value is outside its declared range",
            Self::TooLong => "the payload is longer than its frames can need",
        })
    }
}

impl std::error::Error for EntropyError {}
