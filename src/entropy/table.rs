//! One probability table: from a value to its interval, and back.
//!
//! The way back is what a decoder spends its time on. By the specification it divides:
//! q = floor(offset / scale), and the symbol is the one whose boundaries enclose q. But
//! c ≤ q is the same as scale · c ≤ offset, so a symbol can be found by multiplying as
//! well. A table therefore keeps a *window*, the boundaries of its four likeliest
//! neighbours, and compares the offset with all of them at once. Only an offset outside
//! the window, rare in tables of few likely values, is divided and looked up in an index.

use core::borrow::Borrow;
use core::num::NonZeroU16;

use constriction::stream::model::{DecoderModel, EncoderModel, EntropyModel};

/// The symbols in a window.
const WINDOW: usize = 4;

/// The top bits of a quantile that select an entry of the index.
const INDEX_BITS: u32 = 6;

/// The entries of the index.
const INDEX_LEN: usize = 1 << INDEX_BITS;

/// How far to search from an entry of the index one by one.
const NEAR: usize = 16;

/// A table, together with a part of its bank's data.
///
/// In the data there are `INDEX_LEN` entries of the index, then c[0] … c[m + 2], the last
/// of which, 65,536, is kept as 0: masses are differences modulo 65,536.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub(super) struct Table {
    /// The boundaries of the window. If the table has fewer symbols, the last boundary
    /// repeats.
    window: [u32; WINDOW + 1],
    first: i32,
    /// The start of the index in the data.
    start: u32,
    size: u16,
    /// The first symbol of the window.
    window_symbol: u16,
}

/// The symbol found for an offset, and its interval multiplied by the scale.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) symbol: u16,
    pub(super) low: u64,
    pub(super) high: u64,
}

impl Table {
    /// The entries of data that a table takes in addition to its boundaries.
    pub(super) const OVERHEAD: usize = INDEX_LEN + 2;

    /// Appends a table's data. The boundaries c[1] … c[m + 1] are known to rise.
    pub(super) fn new(first: i32, size: u16, boundaries: &[u16], data: &mut Vec<u16>) -> Self {
        let start = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let mut symbol = 0u16;
        let mut above = boundaries.iter().copied().peekable();
        for entry in 0..INDEX_LEN {
            let quantile = entry << u16::BITS.saturating_sub(INDEX_BITS);
            while above.next_if(|&c| usize::from(c) <= quantile).is_some() {
                symbol = symbol.saturating_add(1);
            }
            data.push(symbol);
        }
        data.push(0);
        data.extend_from_slice(boundaries);
        data.push(0);

        let boundary = |i: usize| match i.checked_sub(1) {
            None => 0,
            Some(i) => boundaries.get(i).map_or(1 << 16, |&c| u32::from(c)),
        };
        let mass = |i: usize| boundary(i.saturating_add(WINDOW)).saturating_sub(boundary(i));
        let symbols = boundaries.len().saturating_add(1);
        let place = (0..=symbols.saturating_sub(WINDOW)).max_by_key(|&i| mass(i)).unwrap_or(0);
        Table {
            window: core::array::from_fn(|i| boundary(place.saturating_add(i))),
            first,
            start,
            size,
            window_symbol: u16::try_from(place).unwrap_or(0),
        }
    }

    pub(super) const fn first(&self) -> i32 {
        self.first
    }

    pub(super) const fn size(&self) -> u16 {
        self.size
    }

    /// c[1] … c[m + 1].
    pub(super) fn boundaries<'a>(&self, data: &'a [u16]) -> &'a [u16] {
        self.boundaries_from(data, 1).get(..usize::from(self.size).saturating_add(1)).unwrap_or_default()
    }

    /// The data from c[i] on.
    #[inline(always)]
    fn boundaries_from<'a>(&self, data: &'a [u16], i: u16) -> &'a [u16] {
        // No overflow: this is the index of an existing entry.
        let place = (self.start as usize).wrapping_add(INDEX_LEN);
        data.get(place.wrapping_add(usize::from(i))..).unwrap_or_default()
    }

    /// The symbol of a value, and its distance from the table's edge if it is escaped.
    #[inline(always)]
    pub(super) fn classify(&self, shift: i32, value: i32) -> (u16, Option<u32>) {
        let place = value.wrapping_sub(shift).wrapping_sub(self.first);
        match u16::try_from(place) {
            Ok(place) if place < self.size => (place.wrapping_add(1), None),
            _ if place < 0 => (0, Some(place.wrapping_add(1).unsigned_abs())),
            _ => (self.size.wrapping_add(1), Some(place.wrapping_sub(i32::from(self.size)).unsigned_abs())),
        }
    }

    /// The lower boundary and the mass of a symbol.
    #[inline(always)]
    pub(super) fn interval(&self, data: &[u16], symbol: u16) -> (u16, u16) {
        match self.boundaries_from(data, symbol).first_chunk::<2>() {
            Some(&[left, right]) => (left, right.wrapping_sub(left)),
            // There is no such symbol.
            None => (0, 1),
        }
    }

    /// The symbol whose interval, multiplied by `scale`, holds `offset`; none if the
    /// offset is scale · 65,536 or more. The scale must be below 2^48 and not 0.
    #[inline(always)]
    #[allow(clippy::indexing_slicing)] // i ≤ WINDOW
    pub(super) fn find(&self, data: &[u16], offset: u64, scale: u64) -> Option<Found> {
        // No product overflows: the scale is below 2^48 and no boundary above 2^16.
        let place = |i: usize| scale.wrapping_mul(u64::from(self.window[i]));
        let (start, end) = (place(0), place(WINDOW));
        if offset < start || offset >= end {
            return self.find_far(data, offset, scale);
        }
        let (mut symbol, mut low, mut high) = (self.window_symbol, start, place(1));
        // All are compared, and the last that is true decides.
        for i in 1..WINDOW {
            let (own, next) = (place(i), place(i.wrapping_add(1)));
            let passed = offset >= own;
            symbol = symbol.wrapping_add(u16::from(passed));
            low = if passed { own } else { low };
            high = if passed { next } else { high };
        }
        Some(Found { symbol, low, high })
    }

    /// [`find`](Self::find) by division and index.
    #[inline(always)]
    fn find_far(&self, data: &[u16], offset: u64, scale: u64) -> Option<Found> {
        let quantile = u16::try_from(offset.checked_div(scale)?).ok()?;
        let symbol = self.symbol(data, quantile);
        let (left, mass) = self.interval(data, symbol);
        let low = scale.wrapping_mul(u64::from(left));
        let high = low.wrapping_add(scale.wrapping_mul(u64::from(mass)));
        Some(Found { symbol, low, high })
    }

    /// The symbol whose interval holds `quantile`.
    #[inline(always)]
    fn symbol(&self, data: &[u16], quantile: u16) -> u16 {
        let entry = quantile >> u16::BITS.wrapping_sub(INDEX_BITS);
        let place = (self.start as usize).wrapping_add(usize::from(entry));
        let from = data.get(place).copied().unwrap_or(0);
        // c[from + 1] … c[m + 1]
        let behind = self.boundaries_from(data, from.wrapping_add(1));
        let len = usize::from(self.size.wrapping_add(1).wrapping_sub(from));
        let behind = behind.get(..len).unwrap_or_default();
        let mut passed = 0usize;
        for &c in behind.iter().take(NEAR) {
            if c > quantile {
                break;
            }
            passed = passed.wrapping_add(1);
        }
        if passed == NEAR {
            passed = behind.partition_point(|&c| c <= quantile);
        }
        from.wrapping_add(u16::try_from(passed).unwrap_or(0))
    }
}

/// A table of a [`Bank`] as an entropy model of the crate `constriction`.
///
/// # Example
///
/// ```
/// use constriction::stream::queue::RangeDecoder;
/// use constriction::stream::Decode;
/// use midspan::entropy::{Bank, LaneEncoder};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bank = Bank::new(vec![-1], &[3], vec![100, 15_100, 50_536, 65_436])?;
/// let mut encoder = LaneEncoder::new();
/// for value in [0, 1, 0, -1, 1, 1] {
///     encoder.encode(&bank, 0, 0, value);
/// }
///
/// // A payload is what constriction's range coder reads, with words of 16 bits and a
/// // state of 64. The value v is the table's symbol v + 2.
/// let mut payload = encoder.finish();
/// payload.resize(payload.len().next_multiple_of(2), 0);
/// let words: Vec<u16> = payload
///     .chunks_exact(2)
///     .map(|word| u16::from_be_bytes([word[0], word[1]]))
///     .collect();
/// let mut decoder = RangeDecoder::<u16, u64, _>::from_compressed(words)?;
/// for value in [0, 1, 0, -1, 1, 1] {
///     assert_eq!(decoder.decode_symbol(bank.model(0))?, (value + 2) as u16);
/// }
/// # Ok(())
/// # }
/// ```
///
/// [`Bank`]: super::Bank
#[derive(Debug, Clone, Copy)]
pub struct TableModel<'a> {
    table: &'a Table,
    data: &'a [u16],
}

impl<'a> TableModel<'a> {
    pub(super) const fn new(table: &'a Table, data: &'a [u16]) -> Self {
        TableModel { table, data }
    }

    /// A table has at least three symbols and rising boundaries: no mass is 0.
    fn interval(&self, symbol: u16) -> (u16, NonZeroU16) {
        let (left, mass) = self.table.interval(self.data, symbol);
        (left, NonZeroU16::new(mass).unwrap_or(NonZeroU16::MIN))
    }
}

impl EntropyModel<16> for TableModel<'_> {
    type Symbol = u16;
    type Probability = u16;
}

impl EncoderModel<16> for TableModel<'_> {
    fn left_cumulative_and_probability(&self, symbol: impl Borrow<u16>) -> Option<(u16, NonZeroU16)> {
        let symbol = *symbol.borrow();
        (symbol <= self.table.size.saturating_add(1)).then(|| self.interval(symbol))
    }
}

impl DecoderModel<16> for TableModel<'_> {
    fn quantile_function(&self, quantile: u16) -> (u16, u16, NonZeroU16) {
        let symbol = self.table.symbol(self.data, quantile);
        let (left, mass) = self.interval(symbol);
        (symbol, left, mass)
    }
}
