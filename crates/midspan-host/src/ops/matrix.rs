//! A matrix as a view of a slice.

/// A view of a matrix: element (i, j) is `data[i * rs + j * cs]`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Distance between two rows.
    pub rs: usize,
    /// Distance between two columns.
    pub cs: usize,
}

impl<'a> Mat<'a> {
    /// A matrix whose rows of `cols` values follow each other.
    pub fn rows(data: &'a [f32], cols: usize) -> Self {
        Self { data, rs: cols, cs: 1 }
    }

    /// The transpose of a matrix whose rows of `cols` values follow each other.
    pub fn transposed(data: &'a [f32], cols: usize) -> Self {
        Self { data, rs: 1, cs: cols }
    }

    /// Whether all of its `m × n` elements are within the slice.
    pub fn holds(&self, m: usize, n: usize) -> bool {
        if m == 0 || n == 0 {
            return true;
        }
        // Strides may be any numbers, so products and sums are checked.
        let (row, column) = ((m - 1).checked_mul(self.rs), (n - 1).checked_mul(self.cs));
        let last = row.zip(column).and_then(|(row, column)| row.checked_add(column));
        last.is_some_and(|last| last < self.data.len())
    }

    /// The strides of an `m × n` matrix within the slice, as signed numbers. A stride that is never used, because there
    /// is only one row or column, is cut to the slice's length.
    pub(super) fn strides(&self, m: usize, n: usize) -> (isize, isize) {
        // All are at most the length of a slice, which fits an isize.
        let stride = |count: usize, stride: usize| if count > 1 { stride } else { stride.min(self.data.len()) };
        (stride(m, self.rs) as isize, stride(n, self.cs) as isize)
    }
}
