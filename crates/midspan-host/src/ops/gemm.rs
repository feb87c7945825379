//! Matrix products on slices: by the `gemm` crate in f32 or, on request, by the CPU's tile unit.

use std::sync::atomic::{AtomicBool, Ordering};

use super::matrix::Mat;

static REDUCED: AtomicBool = AtomicBool::new(false);

#[cfg(target_arch = "x86_64")]
fn tiles() -> bool {
    super::amx::available()
}

#[cfg(not(target_arch = "x86_64"))]
fn tiles() -> bool {
    false
}

/// While this is held, all products of the process use bfloat16 inputs (sums stay f32). It is for training, of which
/// one run is active at a time. Otherwise products are in f32.
#[derive(Debug)]
pub struct Reduced(());

impl Reduced {
    /// Whether the CPU has a tile unit that this process may use.
    #[must_use]
    pub fn is_available() -> bool {
        tiles()
    }

    /// Begins if `asked` and if the CPU has a tile unit. Returns `None` if nothing changes.
    #[must_use]
    pub fn begin(asked: bool) -> Option<Self> {
        (asked && tiles()).then(|| {
            REDUCED.store(true, Ordering::Relaxed);
            Self(())
        })
    }
}

impl Drop for Reduced {
    fn drop(&mut self) {
        REDUCED.store(false, Ordering::Relaxed);
    }
}

/// A right operand `k × n`, prepared for several products.
pub enum Rhs<'a> {
    /// Not packed.
    Plain(Mat<'a>),
    /// Packed for the tile unit.
    #[cfg(target_arch = "x86_64")]
    Tiles(super::amx::PackedRhs),
}

impl<'a> Rhs<'a> {
    /// Prepares the `k × n` matrix `m`.
    pub fn new(k: usize, n: usize, m: Mat<'a>) -> Self {
        assert!(m.holds(k, n), "the right operand is too short");
        #[cfg(target_arch = "x86_64")]
        if REDUCED.load(Ordering::Relaxed) {
            return Self::Tiles(super::amx::PackedRhs::new(k, n, m));
        }
        Self::Plain(m)
    }

    /// `c[m, n] = a[m, k] · self`, or with `add` `c += …`; `ldc` is the distance of two rows of `c`.
    /// Fewer columns `n`, or fewer rows `k` (a multiple of 32), than prepared may be used.
    pub fn mul(&self, dims: (usize, usize, usize), a: Mat<'_>, c: &mut [f32], ldc: usize, add: bool) {
        let (m, n, k) = dims;
        if m == 0 || n == 0 {
            return;
        }
        assert!(a.holds(m, k), "the left operand is too short");
        assert!(ldc >= n && Mat { data: c, rs: ldc, cs: 1 }.holds(m, n), "the result is too short");
        if k == 0 {
            // k is 0, so that all sums are empty.
            let rows = c.chunks_mut(ldc).take(if add { 0 } else { m });
            rows.for_each(|row| row[..n].fill(0.0));
            return;
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles(t) => t.mul(dims, a, c, ldc, add),
            Self::Plain(b) => {
                assert!(b.holds(k, n), "the right operand is too short");
                let (a_rows, a_columns) = a.strides(m, k);
                let (b_rows, b_columns) = b.strides(k, n);
                let (c_rows, _) = Mat { data: c, rs: ldc, cs: 1 }.strides(m, n);
                // SAFETY: all three operands hold the addressed elements (asserted above), strides are not negative,
                // and `c` is borrowed exclusively; its rows do not overlap because they are at least `n` apart.
                unsafe {
                    gemm::gemm(
                        m,
                        n,
                        k,
                        c.as_mut_ptr(),
                        1,
                        c_rows,
                        add,
                        a.data.as_ptr(),
                        a_columns,
                        a_rows,
                        b.data.as_ptr(),
                        b_columns,
                        b_rows,
                        1.0,
                        1.0,
                        false,
                        false,
                        false,
                        gemm::Parallelism::None,
                    );
                }
            }
        }
    }
}

/// `c[m, n] = a[m, k] · b[k, n]`, or with `add` `c += …`.
pub fn mul(dims: (usize, usize, usize), a: Mat<'_>, b: Mat<'_>, c: &mut [f32], ldc: usize, add: bool) {
    Rhs::new(dims.2, dims.1, b).mul(dims, a, c, ldc, add);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::generator;

    fn values(n: usize, seed: u64) -> Vec<f32> {
        let mut next = generator(seed);
        (0..n).map(|_| next()).collect()
    }

    fn check(tolerance: f32, make: impl for<'b> Fn(usize, usize, Mat<'b>) -> Rhs<'b>) {
        for (m, n, k) in [(1, 1, 1), (32, 32, 32), (33, 17, 40), (64, 96, 192), (5, 48, 31), (100, 16, 16)] {
            let (a, b) = (values(m * k, 1), values(k * n, 2));
            for turn in 0..4 {
                let am = if turn & 1 == 0 { Mat::rows(&a, k) } else { Mat::transposed(&a, m) };
                let bm = if turn & 2 == 0 { Mat::rows(&b, n) } else { Mat::transposed(&b, k) };
                let mut c = values(m * (n + 3), 3);
                let before = c.clone();
                make(k, n, bm).mul((m, n, k), am, &mut c, n + 3, turn == 3);
                for i in 0..m {
                    for j in 0..n + 3 {
                        let old = before.get(i * (n + 3) + j).copied().unwrap_or(0.0);
                        let mut want = if j >= n || turn == 3 { old } else { 0.0 };
                        if j < n {
                            want += (0..k)
                                .map(|x| am.data[i * am.rs + x * am.cs] * bm.data[x * bm.rs + j * bm.cs])
                                .sum::<f32>();
                        }
                        let got = c[i * (n + 3) + j];
                        assert!((got - want).abs() < tolerance, "{m} {n} {k} {turn}: {got} {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn strides_that_wrap_are_refused() {
        let (a, b) = (values(12, 1), values(12, 2));
        let good = Mat::rows(&a, 3);
        let far = |rs: usize, cs: usize| Mat { data: &a, rs, cs };
        // Strides whose products or sums would wrap around to small numbers.
        let top = usize::MAX;
        let wrapping =
            [far(top, 1), far(1, top), far(top / 2 + 1, 1), far(top - 1, top / 2 + 2), far(1, 1 << 62), far(top, top)];
        let refused = |work: &mut dyn FnMut()| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
                .expect_err("refused")
                .downcast_ref::<&str>()
                .is_some_and(|line| line.ends_with("is too short"))
        };
        for odd in wrapping {
            for (m, n, k) in [(3, 3, 3), (2, 3, 2), (3, 2, 3), (5, 3, 3)] {
                assert!(!odd.holds(m, k) && !odd.holds(k, n));
                let mut c = [0.0; 25];
                assert!(refused(&mut || mul((m, n, k), odd, good, &mut c, n, false)));
                assert!(refused(&mut || mul((m, n, k), good, odd, &mut c, n, false)));
                assert!(refused(&mut || Rhs::Plain(odd).mul((m, n, k), good, &mut c, n, false)));
                assert_eq!(c, [0.0; 25]);
            }
        }
        let mut c = [0.0; 25];
        for ldc in [top, top / 2 + 1, (top - 2) / 2 + 2, 2, 12] {
            assert!(refused(&mut || mul((3, 3, 3), good, Mat::rows(&b, 3), &mut c, ldc, false)), "{ldc}");
        }
        assert_eq!(c, [0.0; 25]);
        // A stride that is never used may have any value.
        let one = |m: Mat<'_>, n: Mat<'_>, ldc: usize| {
            let mut c = [0.0; 3];
            mul((1, 3, 1), m, n, &mut c, ldc, false);
            c
        };
        let expected = one(Mat::rows(&a, 1), Mat::rows(&b, 3), 3);
        assert_eq!(one(far(top, top), Mat { data: &b, rs: top, cs: 1 }, top), expected);
        // Empty sums are zeros.
        let mut c = [1.0; 6];
        mul((2, 2, 0), Mat::rows(&[], 0), Mat::rows(&[], 2), &mut c, 3, false);
        assert_eq!(c, [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        mul((2, 2, 0), Mat::rows(&[], 0), Mat::rows(&[], 2), &mut c, 3, true);
        assert_eq!(c, [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn plain_products_agree_with_loops() {
        check(1e-4, |_, _, m| Rhs::Plain(m));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn tile_products_agree_with_loops() {
        if super::super::amx::available() {
            check(0.15, |k, n, m| Rhs::Tiles(super::super::amx::PackedRhs::new(k, n, m)));
        }
    }
}
