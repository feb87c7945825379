//! A matrix as a view of a slice.

/// A view of a matrix: element (i, j) stands at `data[i * rs + j * cs]`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Distance of two rows.
    pub rs: usize,
    /// Distance of two columns.
    pub cs: usize,
}

impl<'a> Mat<'a> {
    /// Rows of `cols` values, one after the other.
    pub fn rows(data: &'a [f32], cols: usize) -> Self {
        Self { data, rs: cols, cs: 1 }
    }

    /// The transpose of rows of `cols` values.
    pub fn turned(data: &'a [f32], cols: usize) -> Self {
        Self { data, rs: 1, cs: cols }
    }

    /// Whether all of its `m × n` elements stand within the slice.
    pub fn holds(&self, m: usize, n: usize) -> bool {
        if m == 0 || n == 0 {
            return true;
        }
        // Strides may be any numbers: no product or sum may wrap.
        let (row, column) = ((m - 1).checked_mul(self.rs), (n - 1).checked_mul(self.cs));
        let last = row.zip(column).and_then(|(row, column)| row.checked_add(column));
        last.is_some_and(|last| last < self.data.len())
    }

    /// The strides of an `m × n` matrix that it holds, as signed numbers. One that leads nowhere, for there is one row or
    /// column, is at most the slice's length.
    pub(super) fn strides(&self, m: usize, n: usize) -> (isize, isize) {
        // All are within the length of a slice, which an isize counts.
        let stride = |count: usize, stride: usize| if count > 1 { stride } else { stride.min(self.data.len()) };
        (stride(m, self.rs) as isize, stride(n, self.cs) as isize)
    }
}
