//! Bytes to values.

use core::convert::Infallible;
use core::fmt;

use constriction::backends::ReadWords;
use constriction::stream::Decode;
use constriction::stream::model::DecoderModel;
use constriction::stream::queue::RangeDecoder;
use constriction::{Queue, UnwrapInfallible};

use super::bank::{Bank, Model};
use super::encoder::{split, widen};
use super::escape::{self, Bit};

/// Decodes the values of one lane.
///
/// It must be asked for the values with the same tables and shifts, in the same order, as
/// the encoder was given; then [`finish`](Self::finish) says whether the payload is the
/// one that an encoder makes of these values.
///
/// A decoder of bytes that no encoder made returns values or an error, whatever the bytes
/// are. It never panics and it never reads outside its payload; behind the payload's end
/// it reads zeros.
///
/// # Example
///
/// ```
/// use midspan::entropy::{Bank, EntropyError, LaneDecoder};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bank = Bank::new(vec![-1], &[3], vec![100, 15_100, 50_536, 65_436])?;
/// let mut values = [0; 3];
/// let mut decoder = LaneDecoder::new(&[0x8e]);
/// decoder.decode_row(&bank, &[0, 0, 0], &[0, 10, -10], (-127, 127), &mut values)?;
/// decoder.finish()?;
/// assert_eq!(values, [0, 11, -11]);
///
/// // Another string of bytes may hold the same values, but it is refused.
/// let mut decoder = LaneDecoder::new(&[0x8e, 0x01]);
/// decoder.decode_row(&bank, &[0, 0, 0], &[0, 10, -10], (-127, 127), &mut values)?;
/// assert_eq!(values, [0, 11, -11]);
/// assert_eq!(decoder.finish(), Err(EntropyError::SealNotCanonical));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct LaneDecoder<'a> {
    coder: RangeDecoder<u16, u64, Words<'a>>,
    /// The payload's length.
    len: usize,
    /// The payload's last byte, 0 if it is empty.
    last: u8,
}

impl<'a> LaneDecoder<'a> {
    /// A decoder at the start of a payload.
    pub fn new(payload: &'a [u8]) -> Self {
        let words = Words {
            rest: payload,
            read: 0,
        };
        LaneDecoder {
            coder: RangeDecoder::with_backend(words).unwrap_infallible(),
            len: payload.len(),
            last: payload.last().copied().unwrap_or(0),
        }
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
    /// If there is no table of that number.
    #[inline]
    pub fn decode(
        &mut self,
        bank: &Bank,
        table: usize,
        shift: i32,
        range: (i32, i32),
    ) -> Result<i32, EntropyError> {
        let model = bank.model(table);
        let symbol = self.symbol(model)?;
        // Symbol 0 becomes 65,535 here, which is no place in any table.
        let place = symbol.wrapping_sub(1);
        let value = if place < model.size {
            i32::from(place)
                .wrapping_add(model.first)
                .wrapping_add(shift)
        } else {
            self.escaped(model, symbol)?.wrapping_add(shift)
        };
        if value < range.0 || value > range.1 {
            return Err(EntropyError::ValueOutOfRange);
        }
        Ok(value)
    }

    #[inline(always)]
    fn symbol<M>(&mut self, model: M) -> Result<M::Symbol, EntropyError>
    where
        M: DecoderModel<16, Probability = u16>,
    {
        // The words cannot fail; what remains is a quantile of 65,536 or more.
        self.coder
            .decode_symbol(model)
            .map_err(|_| EntropyError::Corrupt)
    }

    /// Decodes the distance behind an escape; the value, before the shift.
    #[cold]
    #[inline(never)]
    fn escaped(&mut self, model: Model<'_>, symbol: u16) -> Result<i32, EntropyError> {
        let mut below = 0u32;
        while below.saturating_add(1) < escape::MAX_BITS && self.symbol(Bit)? {
            below = below.saturating_add(1);
        }
        let mut number = 1i32;
        for _ in 0..below {
            number = (number << 1) | i32::from(self.symbol(Bit)?);
        }
        // The number, distance + 1, is below 65,536 and `first` is near 0: no overflow.
        Ok(if symbol == 0 {
            model.first.wrapping_sub(number)
        } else {
            model
                .first
                .wrapping_add(i32::from(model.size))
                .wrapping_add(number)
                .wrapping_sub(1)
        })
    }

    /// Decodes a whole row: `out[i]` with table `tables[i]`, shifted by `shifts[i]`.
    ///
    /// The three slices should be of one length; the shortest decides. `range` should lie
    /// within that of `i16`; a value that does not fit is refused as outside `range`.
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
        for ((&table, &shift), out) in tables.iter().zip(shifts).zip(out) {
            *out = narrow(self.decode(bank, widen(table), shift, range)?)?;
        }
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
        for (i, out) in out.iter_mut().enumerate() {
            *out = narrow(self.decode(bank, base.saturating_add(i), 0, range)?)?;
        }
        Ok(())
    }

    /// Checks that the payload is the canonical one for the values decoded.
    ///
    /// It looks at the decoder's final state only. The payload ends e bits before the end
    /// of what has been read, so strings of its length are 2^e apart. The string is the
    /// right one if the one below it lies below the interval (offset < 2^e), and if the
    /// next one that is shorter lies above it.
    ///
    /// # Errors
    ///
    /// [`EntropyError::SealNotCanonical`] if an encoder would have made other bytes.
    pub fn finish(self) -> Result<(), EntropyError> {
        if self.len == 0 {
            return Ok(());
        }
        let (words, state, point) = self.coder.into_raw_parts();
        let offset = point.wrapping_sub(state.lower());
        let bytes_read = words.read.saturating_mul(2);
        let (Some(behind), 1..) = (bytes_read.checked_sub(self.len), self.last) else {
            return Err(EntropyError::SealNotCanonical);
        };
        if behind >= 8 {
            return Ok(());
        }
        let unit = u128::from(1u64.rotate_left(u32::try_from(behind).unwrap_or(0).wrapping_mul(8)));
        let to_shorter = unit.saturating_mul(u128::from(0u8.wrapping_sub(self.last)));
        // An offset beyond the range has no symbol; it is refused here if none was asked.
        let to_end = u128::from(state.range().get()).checked_sub(u128::from(offset));
        match to_end {
            Some(to_end) if u128::from(offset) < unit && to_shorter >= to_end => Ok(()),
            _ => Err(EntropyError::SealNotCanonical),
        }
    }
}

/// Decodes two rows from two lanes at the same time.
///
/// The result is that of [`LaneDecoder::decode_row`] on each lane, errors included.
/// Decoding one value waits for the one before it; two lanes do not wait for each other,
/// so a processor works on both at once.
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
    let [a, b] = lanes;
    let [out_a, out_b] = out;
    let start = [a.clone(), b.clone()];
    let mut both = || {
        let common = out_a.len().min(out_b.len());
        let (tables, tables_rest) = split(tables, common);
        let (shifts, shifts_rest) = split(shifts, common);
        let (fill_a, rest_a) = out_a.split_at_mut(common);
        let (fill_b, rest_b) = out_b.split_at_mut(common);
        let row_a = tables[0].iter().zip(shifts[0]).zip(fill_a);
        let row_b = tables[1].iter().zip(shifts[1]).zip(fill_b);
        for (((&ta, &sa), va), ((&tb, &sb), vb)) in row_a.zip(row_b) {
            *va = narrow(a.decode(bank, widen(ta), sa, range)?)?;
            *vb = narrow(b.decode(bank, widen(tb), sb, range)?)?;
        }
        a.decode_row(bank, tables_rest[0], shifts_rest[0], range, rest_a)?;
        b.decode_row(bank, tables_rest[1], shifts_rest[1], range, rest_b)
    };
    if both().is_ok() {
        return [Ok(()), Ok(())];
    }
    // Begin again one by one, so that each lane has its own answer.
    let [start_a, start_b] = start;
    (*a, *b) = (start_a, start_b);
    [
        a.decode_row(bank, tables[0], shifts[0], range, out_a),
        b.decode_row(bank, tables[1], shifts[1], range, out_b),
    ]
}

#[inline(always)]
fn narrow(value: i32) -> Result<i16, EntropyError> {
    i16::try_from(value).map_err(|_| EntropyError::ValueOutOfRange)
}

/// The words of a payload, and zeros for ever behind its end.
#[derive(Debug, Clone)]
struct Words<'a> {
    rest: &'a [u8],
    /// The number of words given out.
    read: usize,
}

impl ReadWords<u16, Queue> for Words<'_> {
    type ReadError = Infallible;

    #[inline(always)]
    fn read(&mut self) -> Result<Option<u16>, Infallible> {
        self.read = self.read.wrapping_add(1);
        if let Some((word, rest)) = self.rest.split_first_chunk::<2>() {
            self.rest = rest;
            return Ok(Some(u16::from_be_bytes(*word)));
        }
        let word = self.rest.first().map_or(0, |&byte| u16::from(byte) << 8);
        self.rest = &[];
        Ok(Some(word))
    }
}

/// Why a payload is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntropyError {
    /// The bytes stand for no symbol (error 601).
    Corrupt,
    /// Other bytes than the canonical ones for these values (error 602).
    SealNotCanonical,
    /// A value lies outside the declared range of its kind (error 603).
    ValueOutOfRange,
}

impl EntropyError {
    /// The number of the error in the specification.
    pub const fn code(self) -> u16 {
        match self {
            Self::Corrupt => 601,
            Self::SealNotCanonical => 602,
            Self::ValueOutOfRange => 603,
        }
    }
}

impl fmt::Display for EntropyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrupt => "the payload is corrupt",
            Self::SealNotCanonical => "the payload is not sealed canonically",
            Self::ValueOutOfRange => "a decoded value is outside its declared range",
        })
    }
}

impl std::error::Error for EntropyError {}
