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
        m == 0 || n == 0 || (m - 1) * self.rs + (n - 1) * self.cs < self.data.len()
    }
}
