//! Matrix products on the tile unit (AMX, bfloat16 inputs, 32-bit float sums) of x86-64 CPUs.
//!
//! Both operands are packed into tiles of 1 KiB: the left one as 16 rows of 32 values, the right one
//! as 16 pairs of rows by 16 columns. Padding is zero.

use std::arch::asm;
use std::sync::OnceLock;

use super::matrix::Mat;

/// Values in one packed tile.
const TILE: usize = 512;

/// Whether this process may use the tile unit. The first call asks the kernel for permission.
pub(super) fn available() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(probe)
}

#[cfg(target_os = "linux")]
fn probe() -> bool {
    // Packing also needs AVX-512F, which every CPU with a tile unit has.
    if std::arch::x86_64::__cpuid(0).eax < 7 || !std::is_x86_feature_detected!("avx512f") {
        return false;
    }
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    let (bf16, tile) = (leaf.edx >> 22 & 1, leaf.edx >> 24 & 1);
    if bf16 == 0 || tile == 0 {
        return false;
    }
    let answer: i64;
    // SAFETY: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) changes only this process's
    // permission to hold tile state; the clobbers of `syscall` are declared.
    unsafe {
        asm!("syscall", inlateout("rax") 158i64 => answer, in("rdi") 0x1023u64, in("rsi") 18u64,
             out("rcx") _, out("r11") _, options(nostack));
    }
    answer == 0
}

#[cfg(not(target_os = "linux"))]
fn probe() -> bool {
    false
}

/// f32 to bfloat16, rounded to nearest (ties away); a NaN may turn into an infinity.
#[inline(always)]
fn bf16(x: f32) -> u32 {
    x.to_bits().wrapping_add(0x8000) >> 16
}

#[inline(always)]
fn pair(lo: f32, hi: f32) -> u32 {
    bf16(lo) | bf16(hi) << 16
}

/// Transposes 16 × 16 values.
fn transpose(src: &[u32; 256], dst: &mut [u32]) {
    assert!(dst.len() >= 256);
    // SAFETY: operands are packed only if `available` has found AVX-512F (asserted by both callers); `dst` is long
    // enough.
    unsafe { transpose_512(src, dst) }
}

#[target_feature(enable = "avx512f")]
unsafe fn transpose_512(src: &[u32; 256], dst: &mut [u32]) {
    use std::arch::x86_64::*;
    // SAFETY: loads and stores are unaligned and inside 256 values.
    unsafe {
        let mut a = [_mm512_setzero_si512(); 16];
        let mut b = a;
        for (i, r) in a.iter_mut().enumerate() {
            *r = _mm512_loadu_si512(src.as_ptr().add(16 * i).cast());
        }
        // Transpose 2 × 2 within pairs of rows, 4 × 4 within groups of four, then whole lanes of four.
        for i in 0..8 {
            b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
            b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
        }
        for i in 0..4 {
            a[4 * i] = _mm512_unpacklo_epi64(b[4 * i], b[4 * i + 2]);
            a[4 * i + 1] = _mm512_unpackhi_epi64(b[4 * i], b[4 * i + 2]);
            a[4 * i + 2] = _mm512_unpacklo_epi64(b[4 * i + 1], b[4 * i + 3]);
            a[4 * i + 3] = _mm512_unpackhi_epi64(b[4 * i + 1], b[4 * i + 3]);
        }
        for i in 0..4 {
            b[i] = _mm512_shuffle_i32x4(a[i], a[4 + i], 0x88);
            b[4 + i] = _mm512_shuffle_i32x4(a[i], a[4 + i], 0xdd);
            b[8 + i] = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0x88);
            b[12 + i] = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0xdd);
        }
        for i in 0..4 {
            a[i] = _mm512_shuffle_i32x4(b[i], b[8 + i], 0x88);
            a[8 + i] = _mm512_shuffle_i32x4(b[i], b[8 + i], 0xdd);
            a[4 + i] = _mm512_shuffle_i32x4(b[4 + i], b[12 + i], 0x88);
            a[12 + i] = _mm512_shuffle_i32x4(b[4 + i], b[12 + i], 0xdd);
        }
        for (i, r) in a.iter().enumerate() {
            _mm512_storeu_si512(dst.as_mut_ptr().add(16 * i).cast(), *r);
        }
    }
}

/// Packs the `outer × k` matrix `m` so that 16 values of `outer` and 32 of `k` form a tile.
///
/// `pairs_first`: the tile is 16 pairs of k by 16 of `outer` (right operand), else 16 of `outer` by
/// 16 pairs of k (left operand). `outer` is padded to 32. Layout: [outer/16][k/32] tiles.
fn pack(outer: usize, k: usize, m: Mat<'_>, pairs_first: bool, out: &mut Vec<u32>) {
    let kt = k.div_ceil(32);
    let ot = outer.div_ceil(32) * 2;
    if !outer.is_multiple_of(32) || !k.is_multiple_of(32) {
        out.clear();
    }
    out.resize(ot * kt * (TILE / 2), 0);
    let mut buf = [0u32; 256];
    for o in 0..outer.div_ceil(16) {
        let rows = (outer - o * 16).min(16);
        for t in 0..kt {
            let cols = (k - t * 32).min(32);
            let dst = &mut out[(o * kt + t) * (TILE / 2)..][..TILE / 2];
            if m.cs == 1 {
                // k is contiguous: a line of the tile belongs to one value of `outer`.
                let line: &mut [u32] = if pairs_first { &mut buf } else { &mut *dst };
                if pairs_first && (rows < 16 || cols < 32) {
                    line.fill(0);
                }
                for r in 0..rows {
                    let src = &m.data[(o * 16 + r) * m.rs + t * 32..][..cols];
                    let to = &mut line[r * 16..r * 16 + 16];
                    for (d, s) in to.iter_mut().zip(src.chunks_exact(2)) {
                        *d = pair(s[0], s[1]);
                    }
                    if cols % 2 == 1 {
                        to[cols / 2] = pair(src[cols - 1], 0.0);
                    }
                }
                if pairs_first {
                    transpose(&buf, dst);
                }
            } else {
                // `outer` is contiguous (rs = 1): a line belongs to one pair of k.
                let line: &mut [u32] = if pairs_first { &mut *dst } else { &mut buf };
                if !pairs_first && (rows < 16 || cols < 32) {
                    line.fill(0);
                }
                for p in 0..cols.div_ceil(2) {
                    let at = (t * 32 + 2 * p) * m.cs + o * 16 * m.rs;
                    let to = &mut line[p * 16..p * 16 + 16];
                    if m.rs == 1 && 2 * p + 1 < cols {
                        let lo = &m.data[at..][..rows];
                        let hi = &m.data[at + m.cs..][..rows];
                        for ((d, &a), &b) in to.iter_mut().zip(lo).zip(hi) {
                            *d = pair(a, b);
                        }
                    } else {
                        for (r, d) in to[..rows].iter_mut().enumerate() {
                            let lo = m.data[at + r * m.rs];
                            let second = 2 * p + 1 < cols;
                            let hi = if second { m.data[at + m.cs + r * m.rs] } else { 0.0 };
                            *d = pair(lo, hi);
                        }
                    }
                }
                if !pairs_first {
                    transpose(&buf, dst);
                }
            }
        }
    }
}

/// A right operand in packed form.
pub struct PackedRhs {
    tiles: Vec<u32>,
    kt: usize,
}

impl PackedRhs {
    /// Packs the `k × n` matrix `m`.
    pub fn new(k: usize, n: usize, m: Mat<'_>) -> Self {
        assert!(available(), "no tile unit");
        let mut tiles = Vec::new();
        let transposed = Mat { data: m.data, rs: m.cs, cs: m.rs };
        pack(n, k, transposed, true, &mut tiles);
        Self { tiles, kt: k.div_ceil(32) }
    }

    /// `c[m, n] (+)= a[m, k] · self`, where only the first `n` columns and `k` rows of `self` are used.
    ///
    /// Callers guarantee that `k` is either the packed k or a multiple of 32 below it.
    pub fn mul(&self, dims: (usize, usize, usize), a: Mat<'_>, c: &mut [f32], ldc: usize, add: bool) {
        thread_local! {
            static LHS: std::cell::RefCell<Vec<u32>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        let (m, n, k) = dims;
        if m == 0 || n == 0 || k == 0 {
            return;
        }
        let wanted = n.div_ceil(32).checked_mul(self.kt).and_then(|pairs| pairs.checked_mul(TILE));
        assert!(k.div_ceil(32) <= self.kt && wanted.is_some_and(|wanted| wanted <= self.tiles.len()));
        assert!(ldc >= n && Mat { data: c, rs: ldc, cs: 1 }.holds(m, n));
        assert!(available());
        LHS.with(|lhs| {
            let mut lhs = lhs.borrow_mut();
            pack(m, k, a, false, &mut lhs);
            assert!(lhs.len() / TILE >= m.div_ceil(32) * k.div_ceil(32));
            self.blocks(m, n, k.div_ceil(32), &lhs, c, ldc, add);
        });
    }

    #[allow(clippy::too_many_arguments)]
    fn blocks(&self, m: usize, n: usize, kt: usize, lhs: &[u32], c: &mut [f32], ldc: usize, add: bool) {
        let mut config = [0u8; 64];
        config[0] = 1;
        for t in 0..8 {
            config[16 + 2 * t] = 64;
            config[48 + t] = 16;
        }
        let mut spare = [0f32; 1024];
        // SAFETY: the unit is available (asserted by the caller); `config` is a valid palette-1
        // configuration of eight tiles of 16 × 64 bytes. Every tile read lies inside `lhs` and
        // `self.tiles` (padded to pairs of 16 in `pack`), every write inside `spare` or, for full
        // 32 × 32 blocks, inside `c` (asserted by the caller). Tile state is released at the end.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) config.as_ptr(), options(nostack, readonly));
            for bm in 0..m.div_ceil(32) {
                let a0 = lhs.as_ptr().add(bm * 2 * kt * (TILE / 2));
                for bn in 0..n.div_ceil(32) {
                    let b0 = self.tiles.as_ptr().add(bn * 2 * self.kt * (TILE / 2));
                    let (rows, cols) = ((m - bm * 32).min(32), (n - bn * 32).min(32));
                    let full = rows == 32 && cols == 32;
                    let (dst, ld) = if full {
                        (c.as_mut_ptr().add(bm * 32 * ldc + bn * 32), ldc)
                    } else {
                        if add {
                            for r in 0..rows {
                                let from = (bm * 32 + r) * ldc + bn * 32;
                                spare[r * 32..r * 32 + cols].copy_from_slice(&c[from..from + cols]);
                            }
                        }
                        (spare.as_mut_ptr(), 32)
                    };
                    let low = dst.add(16 * ld);
                    if add {
                        asm!(
                            "tileloadd tmm0, [{d}+{s}*1]", "tileloadd tmm1, [{d}+{s}*1+64]",
                            "tileloadd tmm2, [{l}+{s}*1]", "tileloadd tmm3, [{l}+{s}*1+64]",
                            d = in(reg) dst, l = in(reg) low, s = in(reg) ld * 4, options(nostack, readonly));
                    } else {
                        asm!(
                            "tilezero tmm0",
                            "tilezero tmm1",
                            "tilezero tmm2",
                            "tilezero tmm3",
                            options(nostack, nomem)
                        );
                    }
                    asm!(
                        "2:",
                        "tileloadd tmm4, [{a0}+{s}*1]", "tileloadd tmm6, [{b0}+{s}*1]",
                        "tileloadd tmm5, [{a1}+{s}*1]", "tileloadd tmm7, [{b1}+{s}*1]",
                        "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
                        "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
                        "add {a0}, 1024", "add {a1}, 1024", "add {b0}, 1024", "add {b1}, 1024",
                        "dec {k}", "jnz 2b",
                        a0 = inout(reg) a0 => _, a1 = inout(reg) a0.add(kt * (TILE / 2)) => _,
                        b0 = inout(reg) b0 => _, b1 = inout(reg) b0.add(self.kt * (TILE / 2)) => _,
                        k = inout(reg) kt => _, s = in(reg) 64usize, options(nostack, readonly));
                    asm!(
                        "tilestored [{d}+{s}*1], tmm0", "tilestored [{d}+{s}*1+64], tmm1",
                        "tilestored [{l}+{s}*1], tmm2", "tilestored [{l}+{s}*1+64], tmm3",
                        d = in(reg) dst, l = in(reg) low, s = in(reg) ld * 4, options(nostack));
                    if !full {
                        for r in 0..rows {
                            let to = (bm * 32 + r) * ldc + bn * 32;
                            c[to..to + cols].copy_from_slice(&spare[r * 32..r * 32 + cols]);
                        }
                    }
                }
            }
            asm!("tilerelease", options(nostack, nomem));
        }
    }
}
