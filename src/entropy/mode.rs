//! Modes: how the values of a run are coded (spec 3.5).

use super::bank::Bank;
use super::decoder::{EntropyError, LaneDecoder};
use super::encoder::LaneEncoder;

/// How the values of a run are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunMode {
    /// Each value with its table.
    #[default]
    Coded,
    /// Each value as a plain number, with as many bits as the largest value needs.
    Plain,
    /// All values equal those of the previous run.
    Repeat,
}

impl RunMode {
    /// The boundaries c\[0\] … c\[3\] of the table for a run's mode after a run of this mode. That
    /// of [`Coded`](Self::Coded) also serves at the start.
    pub(crate) const fn boundaries(self) -> [u32; 4] {
        match self {
            Self::Coded | Self::Plain => [0, 65_504, 65_520, 65_536],
            Self::Repeat => [0, 16_384, 16_448, 65_536],
        }
    }

    /// The lower boundary and the mass that `next` has after a run of this mode.
    pub(crate) const fn interval(self, next: Self) -> (u32, u32) {
        let [start, coded, plain, end] = self.boundaries();
        match next {
            Self::Coded => (start, coded.wrapping_sub(start)),
            Self::Plain => (coded, plain.wrapping_sub(coded)),
            Self::Repeat => (plain, end.wrapping_sub(plain)),
        }
    }
}

/// Bits of a repeat that does not follow a repeat and, below, of a plain run in addition to its
/// values.
const REPEAT_BITS: u64 = 12;
pub(crate) const PLAIN_BITS: u64 = 16;

/// The bits of the width at the start of a plain run.
pub(crate) const WIDTH_BITS: u32 = 4;

/// The number of bits that hold each of these values with its sign, 1 to 16.
pub(crate) fn width(values: &[i16]) -> u32 {
    // The bits of a value without those that only repeat its sign.
    let bits = values.iter().fold(0, |bits, value| bits | (value ^ (value >> 15)));
    17_u32.saturating_sub(bits.leading_zeros())
}

/// What these values cost as a plain run, in bits.
pub(crate) fn plain_bits(values: &[i16]) -> u64 {
    (values.len() as u64).saturating_mul(width(values).into()).saturating_add(PLAIN_BITS)
}

/// The bits of a plain value's two symbols: the upper bits, of which there may be none, and at most
/// eight lower ones.
const fn split(width: u32) -> (u32, u32) {
    let lower = if width < 8 { width } else { 8 };
    (width.saturating_sub(lower), lower)
}

/// Encodes the runs of one kind, W or Y, of a payload: one for each frame.
///
/// # Example
///
/// ```
/// use midspan::entropy::{Bank, LaneDecoder, LaneEncoder, RunDecoder, RunEncoder, RunMode};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bank = Bank::new(vec![-1], &[3], vec![100, 15_100, 50_536, 65_436])?;
/// let (range, tables, shifts) = ((-32_767, 32_767), [0; 3], [0; 3]);
/// // Values in the table, values far outside it, and the latter once more.
/// let frames = [[0, 1, 0], [9_000, -9_000, 20_000], [9_000, -9_000, 20_000]];
///
/// let mut lane = LaneEncoder::new();
/// let mut runs = RunEncoder::new(&bank);
/// let mut modes = Vec::new();
/// for (i, frame) in frames.iter().enumerate() {
///     let before = i.checked_sub(1).map(|i| &frames[i][..]);
///     modes.push(runs.encode_row(&mut lane, &tables, &shifts, frame, before));
/// }
/// let payload = lane.finish();
/// assert_eq!(modes, [RunMode::Coded, RunMode::Plain, RunMode::Repeat]);
///
/// let mut lane = LaneDecoder::new(&payload);
/// let mut runs = RunDecoder::new(&bank, range);
/// let mut decoded: Vec<[i16; 3]> = Vec::new();
/// for _ in frames {
///     let mut frame = [0; 3];
///     let before = decoded.last().map(|frame| &frame[..]);
///     runs.decode_row(&mut lane, &tables, &shifts, before, &mut frame)?;
///     decoded.push(frame);
/// }
/// lane.finish()?;
/// assert_eq!(decoded, frames);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RunEncoder<'a> {
    bank: &'a Bank,
    last: RunMode,
}

impl<'a> RunEncoder<'a> {
    /// An encoder for all runs of a payload, from the first on.
    pub const fn new(bank: &'a Bank) -> Self {
        RunEncoder { bank, last: RunMode::Coded }
    }

    /// Codes a run in the mode that costs least: `values[i]` with table `tables[i]`, shifted by
    /// `shifts[i]`. `before` is the previous run in the same payload, if there is one.
    ///
    /// The three slices should have the same length; the shortest one counts.
    ///
    /// # Panics
    ///
    /// If a table number is not in the bank.
    pub fn encode_row(
        &mut self,
        lane: &mut LaneEncoder,
        tables: &[u32],
        shifts: &[i32],
        values: &[i16],
        before: Option<&[i16]>,
    ) -> RunMode {
        let bank = self.bank;
        self.encode(lane, values, before, |lane| lane.encode_row(bank, tables, shifts, values))
    }

    /// Codes a run whose tables follow one another, without shifts: `values[i]` with table
    /// `base` + i.
    ///
    /// # Panics
    ///
    /// If a table number is not in the bank.
    pub fn encode_run(
        &mut self,
        lane: &mut LaneEncoder,
        base: usize,
        values: &[i16],
        before: Option<&[i16]>,
    ) -> RunMode {
        let bank = self.bank;
        self.encode(lane, values, before, |lane| lane.encode_run(bank, base, values))
    }

    /// Codes a run, and takes it back if a repeat or a plain run costs less. The coder's state
    /// gives the run's cost, so all encoders agree and no cost has to be looked up.
    #[inline(always)]
    fn encode(
        &mut self,
        lane: &mut LaneEncoder,
        values: &[i16],
        before: Option<&[i16]>,
        code: impl FnOnce(&mut LaneEncoder),
    ) -> RunMode {
        let repeats = before == Some(values);
        // After a repeat another repeat costs half a bit, a coded run at least two bits.
        let mode = if repeats && self.last == RunMode::Repeat {
            RunMode::Repeat
        } else {
            let start = lane.mark();
            self.write_mode(lane, RunMode::Coded);
            code(lane);
            let bits = lane.bits_since(&start);
            let count = values.len() as u64;
            if repeats && bits >= REPEAT_BITS {
                lane.rewind(&start);
                RunMode::Repeat
            } else if bits > count.saturating_add(PLAIN_BITS) && bits > plain_bits(values) {
                lane.rewind(&start);
                RunMode::Plain
            } else {
                RunMode::Coded
            }
        };
        match mode {
            RunMode::Coded => {}
            RunMode::Plain => {
                self.write_mode(lane, mode);
                Self::write_plain(lane, values);
            }
            RunMode::Repeat => self.write_mode(lane, mode),
        }
        self.last = mode;
        mode
    }

    fn write_mode(&self, lane: &mut LaneEncoder, mode: RunMode) {
        let (left, mass) = self.last.interval(mode);
        lane.symbol(left, mass);
    }

    #[cold]
    #[inline(never)]
    fn write_plain(lane: &mut LaneEncoder, values: &[i16]) {
        let width = width(values);
        lane.uniform(width.saturating_sub(1), WIDTH_BITS);
        let (upper, lower) = split(width);
        for value in values {
            let number = u32::from(value.cast_unsigned()) & (1_u32 << width).wrapping_sub(1);
            if upper > 0 {
                lane.uniform(number >> lower, upper);
            }
            lane.uniform(number & (1_u32 << lower).wrapping_sub(1), lower);
        }
    }
}

/// Decodes the runs of one kind, W or Y, of a payload.
#[derive(Debug, Clone)]
pub struct RunDecoder<'a> {
    bank: &'a Bank,
    range: (i32, i32),
    last: RunMode,
}

impl<'a> RunDecoder<'a> {
    /// A decoder for all runs of a payload, from the first on. `range` is the smallest and the
    /// largest value allowed, within that of `i16`.
    pub const fn new(bank: &'a Bank, range: (i32, i32)) -> Self {
        RunDecoder { bank, range, last: RunMode::Coded }
    }

    /// A decoder that continues in the middle of a payload, after a run of mode `last`.
    pub const fn resume(bank: &'a Bank, range: (i32, i32), last: RunMode) -> Self {
        RunDecoder { bank, range, last }
    }

    /// Decodes a run and returns its mode. If it is coded, `out[i]` has the table `tables[i]`,
    /// shifted by `shifts[i]`. `before` is the previous run in the same payload, if there is one.
    ///
    /// The slices should have the same length.
    ///
    /// # Errors
    ///
    /// As [`LaneDecoder::decode_row`]; also [`EntropyError::Corrupt`] if a repeat has no run before
    /// it.
    ///
    /// # Panics
    ///
    /// If a table number is not in the bank.
    pub fn decode_row(
        &mut self,
        lane: &mut LaneDecoder<'_>,
        tables: &[u32],
        shifts: &[i32],
        before: Option<&[i16]>,
        out: &mut [i16],
    ) -> Result<RunMode, EntropyError> {
        let mode = self.mode(lane)?;
        match mode {
            RunMode::Coded => lane.decode_row(self.bank, tables, shifts, self.range, out)?,
            other => self.other(lane, other, before, out)?,
        }
        Ok(mode)
    }

    /// Decodes a run whose tables follow one another, without shifts: `out[i]` with table
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
        lane: &mut LaneDecoder<'_>,
        base: usize,
        before: Option<&[i16]>,
        out: &mut [i16],
    ) -> Result<RunMode, EntropyError> {
        let mode = self.mode(lane)?;
        match mode {
            RunMode::Coded => lane.decode_run(self.bank, base, self.range, out)?,
            other => self.other(lane, other, before, out)?,
        }
        Ok(mode)
    }

    /// [MODE-1] A run's mode is symbol 0 (coded), 1 (plain) or 2 (repeat) of the table M1 after a
    /// run that repeats, else of M0.
    fn mode(&mut self, lane: &mut LaneDecoder<'_>) -> Result<RunMode, EntropyError> {
        self.last = match lane.symbol(self.last.boundaries())? {
            0 => RunMode::Coded,
            1 => RunMode::Plain,
            _ => RunMode::Repeat,
        };
        Ok(self.last)
    }

    /// Decodes a run that is not coded.
    #[cold]
    #[inline(never)]
    fn other(
        &self,
        lane: &mut LaneDecoder<'_>,
        mode: RunMode,
        before: Option<&[i16]>,
        out: &mut [i16],
    ) -> Result<(), EntropyError> {
        if mode == RunMode::Repeat {
            // [MODE-3] Where there is no run before, the payload is corrupt (error 601).
            let before = before.filter(|before| before.len() == out.len()).ok_or(EntropyError::Corrupt)?;
            out.copy_from_slice(before);
            return Ok(());
        }
        // [MODE-2] First the width, then each value's two's complement of that many bits.
        let width = lane.uniform(WIDTH_BITS)?.saturating_add(1);
        let (upper, lower) = split(width);
        let unused = u32::BITS.saturating_sub(width);
        for out in out {
            let above = if upper > 0 { lane.uniform(upper)? } else { 0 };
            let number = (above << lower) | lane.uniform(lower)?;
            let value = (number << unused).cast_signed() >> unused;
            // [ENT-2] A value outside the declared range MUST be refused (error 603).
            if value < self.range.0 || value > self.range.1 {
                return Err(EntropyError::ValueOutOfRange);
            }
            *out = i16::try_from(value).map_err(|_| EntropyError::ValueOutOfRange)?;
        }
        Ok(())
    }
}
