//! The probability tables of a model.

use core::fmt;

use super::escape;
use super::table::{Table, TableModel};

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
/// // The value 3 is not in it: 100 chances for the high escape, and 3 more bits for
/// // lying one value farther out than the nearest such value, 2.
/// assert_eq!(bank.mass(0, 0, 3), (100, 3));
/// # Ok(())
/// # }
/// ```
///
/// # Memory
///
/// A table of m values takes 2·m + 166 bytes, most of it an index for finding symbols.
#[derive(Debug, Clone)]
pub struct Bank {
    tables: Vec<Table>,
    /// The data of all tables.
    data: Vec<u16>,
}

impl Bank {
    /// Builds a bank from the three tensors of a model file.
    ///
    /// `first` and `sizes` have one entry for each table: its first value, and the number
    /// m of its values. `boundaries` holds c\[1\] to c\[m + 1\] of each table, table
    /// after table; c\[0\] = 0 and c\[m + 2\] = 65,536 are implied.
    ///
    /// # Errors
    ///
    /// The tables must have 1 to 4,096 values each, strictly rising boundaries, and a
    /// first value within ±65,536; the lengths must fit. A bank may be empty.
    pub fn new(first: Vec<i32>, sizes: &[u16], boundaries: Vec<u16>) -> Result<Self, BankError> {
        if first.len() != sizes.len() {
            return Err(BankError::Count { first: first.len(), sizes: sizes.len() });
        }
        let mut expected = 0usize;
        for (table, &size) in sizes.iter().enumerate() {
            if size == 0 || size > MAX_SIZE {
                return Err(BankError::Size { table, size });
            }
            expected = expected.saturating_add(usize::from(size)).saturating_add(1);
        }
        if boundaries.len() != expected {
            return Err(BankError::Length { expected, found: boundaries.len() });
        }
        let overhead = Table::OVERHEAD.saturating_mul(sizes.len());
        let mut bank = Bank {
            tables: Vec::with_capacity(sizes.len()),
            data: Vec::with_capacity(expected.saturating_add(overhead)),
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
            bank.tables.push(Table::new(first, size, own, &mut bank.data));
        }
        Ok(bank)
    }

    /// The number of tables.
    pub fn tables(&self) -> usize {
        self.tables.len()
    }

    /// The first value of a table.
    ///
    /// # Panics
    ///
    /// Like every method that takes a table, if there is no table with that number.
    pub fn first(&self, table: usize) -> i32 {
        self.view(table).0.first()
    }

    /// The number of values of a table, escapes not counted.
    ///
    /// # Panics
    ///
    /// If there is no table with that number.
    pub fn size(&self, table: usize) -> u16 {
        self.view(table).0.size()
    }

    /// The boundaries c\[1\] to c\[m + 1\] of a table of m values.
    ///
    /// # Panics
    ///
    /// If there is no table with that number.
    pub fn boundaries(&self, table: usize) -> &[u16] {
        let (table, data) = self.view(table);
        table.boundaries(data)
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
    /// If there is no table with that number.
    pub fn mass(&self, table: usize, shift: i32, value: i32) -> (u32, u32) {
        let (table, data) = self.view(table);
        let (symbol, distance) = table.classify(shift, value);
        let (_, mass) = table.interval(data, symbol);
        (u32::from(mass), distance.map_or(0, escape::cost))
    }

    /// Whether the table does not hold `value`, so that an escape codes it. The table is read as shifted by `shift`.
    ///
    /// # Panics
    ///
    /// If there is no table with that number.
    #[inline]
    pub fn is_escaped(&self, table: usize, shift: i32, value: i32) -> bool {
        self.view(table).0.classify(shift, value).1.is_some()
    }

    /// A table as an entropy model of the crate `constriction`.
    ///
    /// Its symbols are those of the table, 0 to m + 1, so escapes are left to the caller.
    /// The lanes of this module do not need it; it lets all of `constriction`'s coders
    /// work with a codec model's tables.
    ///
    /// # Panics
    ///
    /// If there is no table with that number.
    pub fn model(&self, table: usize) -> TableModel<'_> {
        let (table, data) = self.view(table);
        TableModel::new(table, data)
    }

    /// A table and its data.
    #[inline(always)]
    #[allow(clippy::indexing_slicing)] // documented to panic
    pub(super) fn view(&self, table: usize) -> (&Table, &[u16]) {
        (&self.tables[table], &self.data)
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
                write!(f, "table {table} begins at {first}, not within ±{MAX_FIRST}")
            }
            Self::Order { table } => {
                write!(f, "the boundaries of table {table} do not rise strictly")
            }
        }
    }
}

impl std::error::Error for BankError {}
