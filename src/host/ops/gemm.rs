//! Matrix products on slices: the `gemm` crate in f32, or, when asked for, the CPU's tile unit.

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

/// While this is held, products of the whole process take bfloat16 inputs (sums stay f32), where it was asked for and the
/// CPU has a tile unit: for training, of which one runs at a time. All else is of f32.
#[derive(Debug)]
pub struct Reduced(());

impl Reduced {
    /// Whether the CPU can.
    #[must_use]
    pub fn is_available() -> bool {
        tiles()
    }

    /// Begins, if it is asked for; none where nothing changes.
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
    /// As it is.
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
        assert!(c.len() >= (m - 1) * ldc + n && ldc >= n, "the result is too short");
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles(t) => t.mul(dims, a, c, ldc, add),
            Self::Plain(b) => {
                assert!(b.holds(k, n), "the right operand is too short");
                // SAFETY: all three operands hold the addressed elements (asserted above), and `c`
                // is borrowed exclusively.
                unsafe {
                    gemm::gemm(
                        m,
                        n,
                        k,
                        c.as_mut_ptr(),
                        1,
                        ldc as isize,
                        add,
                        a.data.as_ptr(),
                        a.cs as isize,
                        a.rs as isize,
                        b.data.as_ptr(),
                        b.cs as isize,
                        b.rs as isize,
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

    fn values(n: usize, seed: u64) -> Vec<f32> {
        let mut s = seed;
        (0..n)
            .map(|_| {
                s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((s >> 40) as f32) / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn check(tolerance: f32, make: impl for<'b> Fn(usize, usize, Mat<'b>) -> Rhs<'b>) {
        for (m, n, k) in [(1, 1, 1), (32, 32, 32), (33, 17, 40), (64, 96, 192), (5, 48, 31), (100, 16, 16)] {
            let (a, b) = (values(m * k, 1), values(k * n, 2));
            for turn in 0..4 {
                let am = if turn & 1 == 0 { Mat::rows(&a, k) } else { Mat::turned(&a, m) };
                let bm = if turn & 2 == 0 { Mat::rows(&b, n) } else { Mat::turned(&b, k) };
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
