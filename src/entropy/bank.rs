//! The probability tables of a model.

use core::borrow::Borrow;
use core::fmt;
use core::num::NonZeroU16;

use constriction::stream::model::{DecoderModel, EncoderModel, EntropyModel};

use super::escape;

/// The top bits of a quantile that select an entry of a table's index.
const INDEX_BITS: u32 = 5;

/// The entries of a table's index.
const INDEX_LEN: usize = 1 << INDEX_BITS;

/// The boundaries that a lookup compares at once, behind the one that the index names.
const WINDOW: usize = 8;

/// The largest number of values in a table.
const MAX_SIZE: u16 = 4_096;

/// The largest distance of a table's first value from 0.
const MAX_FIRST: u32 = 1 << 16;

/// A bank of probability tables.
///
/// A table codes integers. It lists m consecutive values beginning with its *first*
/// value, each with a probability, and two *escapes* for the values below and above. In
/// all that makes m + 2 symbols: symbol 0 is the low escape, symbols 1 to m are the
/// values in order, and symbol m + 1 is the high escape. A probability is an integer mass
/// out of 65,536, at least 1, and a table is given by the sums of these masses, its
/// *boundaries* 0 = c\[0\] < c\[1\] < … < c\[m + 2\] = 65,536. Symbol i has the mass
/// c\[i + 1\] − c\[i\].
///
/// # Example
///
/// ```
/// use midspan::entropy::Bank;
///
/// # fn main() -> Result<(), midspan::entropy::BankError> {
/// // Two tables: one of the values -1, 0, 1 and one of the value 5 alone.
/// let bank = Bank::new(
///     vec![-1, 5],
///     &[3, 1],
///     vec![100, 15_100, 50_536, 65_436, 1, 65_535],
/// )?;
/// assert_eq!(bank.tables(), 2);
/// assert_eq!(bank.first(1), 5);
/// assert_eq!(bank.size(0), 3);
/// assert_eq!(bank.boundaries(1), &[1, 65_535]);
///
/// // The value 0 has 35,436 chances of 65,536 in the first table.
/// assert_eq!(bank.mass(0, 0, 0), (35_436, 0));
/// // The value 3 lies one value above the first edge that is missing: 100 chances for
/// // the escape and 3 more bits for the distance.
/// assert_eq!(bank.mass(0, 0, 3), (100, 3));
/// # Ok(())
/// # }
/// ```
///
/// # Memory
///
/// A bank keeps, beside the boundaries, 98 bytes a table for finding symbols fast.
#[derive(Debug, Clone)]
pub struct Bank {
    tables: Vec<Table>,
    /// For each table `INDEX_LEN` entries of its index, then c[0] … c[m + 2] where the
    /// last, 65,536, is kept as 0, then zeros so that a window never leaves the table.
    data: Vec<u16>,
}

/// Where a table lies, and what it codes.
#[derive(Debug, Clone, Copy)]
struct Table {
    /// The place of its index in `data`.
    start: usize,
    first: i32,
    size: u16,
}

impl Bank {
    /// Builds a bank from the three tensors of a model file.
    ///
    /// `first` and `sizes` have one entry for each table: its first value, and the number
    /// m of its values. `boundaries` holds c\[1\] to c\[m + 1\] of each table, table after
    /// table; c\[0\] = 0 and c\[m + 2\] = 65,536 are understood.
    ///
    /// # Errors
    ///
    /// The tables must have 1 to 4,096 values each, strictly rising boundaries, and a
    /// first value within ±65,536; the lengths must fit. A bank may be empty.
    pub fn new(first: Vec<i32>, sizes: &[u16], boundaries: Vec<u16>) -> Result<Self, BankError> {
        if first.len() != sizes.len() {
            return Err(BankError::Count {
                first: first.len(),
                sizes: sizes.len(),
            });
        }
        let mut expected = 0usize;
        for (table, &size) in sizes.iter().enumerate() {
            if size == 0 || size > MAX_SIZE {
                return Err(BankError::Size { table, size });
            }
            expected = expected.saturating_add(usize::from(size)).saturating_add(1);
        }
        if boundaries.len() != expected {
            return Err(BankError::Length {
                expected,
                found: boundaries.len(),
            });
        }
        let spare = INDEX_LEN.saturating_add(WINDOW).saturating_add(1);
        let mut bank = Bank {
            tables: Vec::with_capacity(sizes.len()),
            data: Vec::with_capacity(expected.saturating_add(spare.saturating_mul(sizes.len()))),
        };
        let mut rest = boundaries.as_slice();
        for (table, (&first, &size)) in first.iter().zip(sizes).enumerate() {
            if first.unsigned_abs() > MAX_FIRST {
                return Err(BankError::First { table, first });
            }
            let (own, behind) = rest.split_at(usize::from(size).saturating_add(1));
            rest = behind;
            let mut last = 0;
            for &boundary in own {
                if boundary <= last {
                    return Err(BankError::Order { table });
                }
                last = boundary;
            }
            bank.push(first, size, own);
        }
        Ok(bank)
    }

    /// Appends a table whose boundaries are known to rise.
    fn push(&mut self, first: i32, size: u16, boundaries: &[u16]) {
        self.tables.push(Table {
            start: self.data.len(),
            first,
            size,
        });
        let mut symbol = 0u16;
        let mut above = boundaries.iter().copied().peekable();
        for entry in 0..INDEX_LEN {
            let quantile = entry << (u16::BITS.saturating_sub(INDEX_BITS));
            while above.next_if(|&c| usize::from(c) <= quantile).is_some() {
                symbol = symbol.saturating_add(1);
            }
            self.data.push(symbol);
        }
        self.data.push(0);
        self.data.extend_from_slice(boundaries);
        self.data.extend_from_slice(&[0; WINDOW]);
    }

    /// The number of tables.
    pub fn tables(&self) -> usize {
        self.tables.len()
    }

    /// The first value of a table.
    ///
    /// # Panics
    ///
    /// Like every method that takes a table, if there is no table of that number.
    pub fn first(&self, table: usize) -> i32 {
        self.table(table).first
    }

    /// The number of values of a table, escapes not counted.
    ///
    /// # Panics
    ///
    /// If there is no table of that number.
    pub fn size(&self, table: usize) -> u16 {
        self.table(table).size
    }

    /// The boundaries c\[1\] to c\[m + 1\] of a table of m values.
    ///
    /// # Panics
    ///
    /// If there is no table of that number.
    #[allow(clippy::indexing_slicing)] // `push` lays the table out so
    pub fn boundaries(&self, table: usize) -> &[u16] {
        let table = self.table(table);
        let from = table.start.saturating_add(INDEX_LEN).saturating_add(1);
        let len = usize::from(table.size).saturating_add(1);
        &self.data[from..from.saturating_add(len)]
    }

    /// What it costs to code `value`: a mass out of 65,536, and a number of further bits.
    ///
    /// The table is read as shifted by `shift`, as [`LaneEncoder::encode`] reads it. The
    /// ideal cost in bits is 16 − log2(mass), plus the bits of the escape code, which are
    /// 0 for a value that the table holds.
    ///
    /// [`LaneEncoder::encode`]: super::LaneEncoder::encode
    ///
    /// # Panics
    ///
    /// If there is no table of that number.
    pub fn mass(&self, table: usize, shift: i32, value: i32) -> (u32, u32) {
        let model = self.model(table);
        let (symbol, distance) = model.classify(shift, value);
        let (_, mass) = model.interval(symbol);
        (u32::from(mass.get()), distance.map_or(0, escape::bits))
    }

    #[inline(always)]
    #[allow(clippy::indexing_slicing)] // documented to panic
    fn table(&self, table: usize) -> &Table {
        &self.tables[table]
    }

    /// The table as a model of the range coder.
    #[inline(always)]
    #[allow(clippy::indexing_slicing)] // `push` lays the table out so
    pub(super) fn model(&self, table: usize) -> Model<'_> {
        let table = self.table(table);
        let spare = INDEX_LEN.wrapping_add(WINDOW).wrapping_add(2);
        let len = usize::from(table.size).wrapping_add(spare);
        Model {
            data: &self.data[table.start..][..len],
            first: table.first,
            size: table.size,
        }
    }
}

/// One table, as the range coder sees it: symbols 0 to m + 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model<'a> {
    /// The index, then the boundaries from c[0] on.
    data: &'a [u16],
    pub(super) first: i32,
    pub(super) size: u16,
}

impl Model<'_> {
    /// The symbol of a value, and its distance from the table's edge if it is escaped.
    #[inline(always)]
    pub(super) fn classify(&self, shift: i32, value: i32) -> (u16, Option<u32>) {
        let place = value.wrapping_sub(shift).wrapping_sub(self.first);
        match u16::try_from(place) {
            Ok(place) if place < self.size => (place.wrapping_add(1), None),
            _ if place < 0 => (0, Some(place.wrapping_add(1).unsigned_abs())),
            _ => (
                self.size.wrapping_add(1),
                Some(place.wrapping_sub(i32::from(self.size)).unsigned_abs()),
            ),
        }
    }

    /// The lower boundary and the mass of a symbol, which must be at most m + 1.
    #[inline(always)]
    #[allow(clippy::indexing_slicing)] // a symbol's two boundaries are always there
    pub(super) fn interval(&self, symbol: u16) -> (u16, NonZeroU16) {
        let at = usize::from(symbol).wrapping_add(INDEX_LEN);
        let left = self.data[at];
        // 65,536 stands as 0, so the difference is taken modulo 65,536. It is never 0,
        // since a table has at least three symbols and boundaries rise.
        let mass = self.data[at.wrapping_add(1)].wrapping_sub(left);
        (left, NonZeroU16::new(mass).unwrap_or(NonZeroU16::MIN))
    }

    /// The symbol whose interval holds `quantile`.
    #[inline(always)]
    #[allow(clippy::indexing_slicing)] // a window behind any symbol lies in the table
    fn find(&self, quantile: u16) -> u16 {
        let entry = quantile >> (u16::BITS.wrapping_sub(INDEX_BITS));
        let from = self.data[usize::from(entry)];
        let at = usize::from(from).wrapping_add(INDEX_LEN + 1);
        // A boundary c ≤ quantile lies behind the symbol; 65,536, kept as 0, never does.
        let passed: u16 = self.data[at..][..WINDOW]
            .iter()
            .map(|c| u16::from(c.wrapping_sub(1) < quantile))
            .fold(0, u16::wrapping_add);
        if usize::from(passed) < WINDOW {
            from.wrapping_add(passed)
        } else {
            self.find_far(from.wrapping_add(passed), quantile)
        }
    }

    /// Goes on behind the window, where many symbols share an entry of the index.
    #[cold]
    fn find_far(&self, from: u16, quantile: u16) -> u16 {
        let at = usize::from(from).wrapping_add(INDEX_LEN + 1);
        let end = usize::from(self.size).wrapping_add(INDEX_LEN + 2);
        let behind = self.data.get(at..end).unwrap_or_default();
        let passed = behind.partition_point(|&c| c <= quantile);
        from.wrapping_add(u16::try_from(passed).unwrap_or(0))
    }
}

impl EntropyModel<16> for Model<'_> {
    type Symbol = u16;
    type Probability = u16;
}

impl EncoderModel<16> for Model<'_> {
    #[inline(always)]
    fn left_cumulative_and_probability(
        &self,
        symbol: impl Borrow<u16>,
    ) -> Option<(u16, NonZeroU16)> {
        Some(self.interval(*symbol.borrow()))
    }
}

impl DecoderModel<16> for Model<'_> {
    #[inline(always)]
    fn quantile_function(&self, quantile: u16) -> (u16, u16, NonZeroU16) {
        let symbol = self.find(quantile);
        let (left, mass) = self.interval(symbol);
        (symbol, left, mass)
    }
}

/// Why a [`Bank`] cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BankError {
    /// There are not as many first values as sizes.
    Count {
        /// The number of first values.
        first: usize,
        /// The number of sizes.
        sizes: usize,
    },
    /// A size is not in 1 … 4,096.
    Size {
        /// The table.
        table: usize,
        /// Its size.
        size: u16,
    },
    /// There are not Σ(m + 1) boundaries.
    Length {
        /// The number that the sizes demand.
        expected: usize,
        /// The number given.
        found: usize,
    },
    /// A first value is too far from 0 for any declared range to meet its table.
    First {
        /// The table.
        table: usize,
        /// Its first value.
        first: i32,
    },
    /// The boundaries of a table do not rise strictly from above 0.
    Order {
        /// The table.
        table: usize,
    },
}

impl fmt::Display for BankError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { first, sizes } => {
                write!(f, "{first} first values for {sizes} table sizes")
            }
            Self::Size { table, size } => {
                write!(f, "table {table} has {size} values, not 1 to {MAX_SIZE}")
            }
            Self::Length { expected, found } => {
                write!(f, "{found} boundaries where the sizes demand {expected}")
            }
            Self::First { table, first } => {
                write!(
                    f,
                    "table {table} begins at {first}, not within ±{MAX_FIRST}"
                )
            }
            Self::Order { table } => {
                write!(f, "the boundaries of table {table} do not rise strictly")
            }
        }
    }
}

impl std::error::Error for BankError {}
