//! Makes integer tables from densities: the banks of spec 4.3.

use midspan::entropy::escape_cost;
use midspan::model::Tables;

/// Masses of one table before they are converted to integers.
#[derive(Clone, Debug, PartialEq)]
pub struct Masses {
    /// Value of the first mass.
    pub first: i32,
    /// Mass of each value.
    pub values: Vec<f64>,
    /// Mass below the first value.
    pub below: f64,
    /// Mass above the last value.
    pub above: f64,
}

impl Masses {
    /// Mass of one value. A value outside the table gets the whole mass of its tail.
    pub fn mass(&self, value: i32) -> f64 {
        let place = i64::from(value) - i64::from(self.first);
        match usize::try_from(place) {
            Err(_) => self.below,
            Ok(place) => self.values.get(place).copied().unwrap_or(self.above),
        }
    }
}

/// A bank in the model file's form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BankParts {
    /// First value of each table.
    pub first: Vec<i32>,
    /// Number of values of each table.
    pub sizes: Vec<u16>,
    /// `c[1] … c[m + 1]` of each table.
    pub boundaries: Vec<u16>,
}

impl From<BankParts> for Tables {
    fn from(parts: BankParts) -> Self {
        Self { first: parts.first, size: parts.sizes, boundaries: parts.boundaries }
    }
}

impl BankParts {
    /// Appends a table.
    pub fn push(&mut self, masses: &Masses) {
        let symbols: Vec<f64> =
            std::iter::once(masses.below).chain(masses.values.iter().copied()).chain([masses.above]).collect();
        let counts = integer_masses(&symbols);
        self.first.push(masses.first);
        self.sizes.push(masses.values.len() as u16);
        let mut sum = 0_u32;
        for count in &counts[..counts.len() - 1] {
            sum += count;
            self.boundaries.push(sum as u16);
        }
    }
}

/// Integers ≥ 1 that sum to 2^16 and cost the fewest bits under `masses`, whose sum is about 1.
fn integer_masses(masses: &[f64]) -> Vec<u32> {
    const TOTAL: i64 = 1 << 16;
    let sum: f64 = masses.iter().sum();
    let ideal: Vec<f64> = masses.iter().map(|mass| mass / sum * TOTAL as f64).collect();
    let mut counts: Vec<i64> = ideal.iter().map(|value| (value.round() as i64).max(1)).collect();
    let mut excess = counts.iter().sum::<i64>() - TOTAL;
    while excess != 0 {
        // Add or subtract one where it costs the least, by the change of −ideal · log2(count).
        let step = -excess.signum();
        let cost = |i: usize| {
            let (count, ideal) = (counts[i] as f64, ideal[i]);
            ideal * (count.log2() - (count + step as f64).log2())
        };
        let best = (0..counts.len())
            .filter(|i| counts[*i] + step >= 1)
            .min_by(|a, b| cost(*a).total_cmp(&cost(*b)))
            .expect("a table has fewer symbols than 2^16");
        counts[best] += step;
        excess += step;
    }
    counts.into_iter().map(|count| count as u32).collect()
}

/// Standard normal CDF, with a relative error far below a table's unit.
fn normal_cdf(x: f64) -> f64 {
    0.5 * erfc(-x / std::f64::consts::SQRT_2)
}

/// Complementary error function (Numerical Recipes' Chebyshev fit, relative error below 1.2e-7). A better one would move
/// one boundary in ten thousand by 1, and a checkpoint that is frozen again would get another fingerprint.
fn erfc(x: f64) -> f64 {
    let z = x.abs();
    let t = 1.0 / (1.0 + 0.5 * z);
    let poly = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let sum = poly.iter().rev().fold(0.0, |sum, c| sum * t + c);
    let value = t * (-z * z + sum).exp();
    if x >= 0.0 { value } else { 2.0 - value }
}

/// Geometric grid of scales.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleGrid {
    /// log2 of the smallest scale.
    pub low: f64,
    /// log2 of the largest scale.
    pub high: f64,
    /// Number of scales.
    pub count: usize,
}

impl ScaleGrid {
    /// log2 of the ratio of neighbouring scales.
    pub fn step(&self) -> f64 {
        (self.high - self.low) / (self.count - 1) as f64
    }

    /// The same grid up to the first scale that is not below 2^`high`, with at least two scales.
    #[must_use]
    pub fn cut(&self, high: f64) -> Self {
        let last = ((high - self.low) / self.step()).ceil().clamp(1.0, (self.count - 1) as f64);
        Self { high: self.low + self.step() * last, count: last as usize + 1, ..*self }
    }

    /// The same grid with `count` more scales.
    #[must_use]
    pub fn longer(&self, count: usize) -> Self {
        Self { high: self.high + self.step() * count as f64, count: self.count + count, ..*self }
    }

    /// Scale `index`.
    pub fn scale(&self, index: usize) -> f64 {
        (self.low + self.step() * index as f64).exp2()
    }

    /// Fraction bits of the mean at scale `index`, for a grid of about σ/8 and not finer than 1/64.
    pub fn fraction_bits(&self, index: usize) -> u8 {
        (8.0 / self.scale(index)).log2().round().clamp(0.0, 6.0) as u8
    }
}

/// Mass that a normal density has within half a unit of `value`.
pub fn normal_mass(value: i32, mean: f64, scale: f64) -> f64 {
    // Computed below the mean by symmetry, as a difference of small tails, so that small masses keep their precision.
    let distance = (f64::from(value) - mean).abs();
    normal_cdf((0.5 - distance) / scale) - normal_cdf((-0.5 - distance) / scale)
}

/// How many standard deviations a table of Y reaches on each side: Φ(−4.18) is just below 1/65,536.
pub const REACH: f64 = 4.18;

/// First and last value of the table of a normal density. Each tail outside the table holds less than one unit of mass,
/// which its escape has anyway. The table always contains both integers around the mean, however narrow the density is
/// ([MODEL-9]).
fn edges(mean: f64, scale: f64) -> (i32, i32) {
    let (first, last) = ((mean + 0.5 - REACH * scale).floor(), (mean - 0.5 + REACH * scale).ceil());
    let below = mean.floor() as i32;
    ((first as i32).min(below), (last as i32).max(below.saturating_add(1)))
}

/// Bits of a value by a table with exactly this mean and scale. `exact` are the bits by the density itself. The result
/// is at most 16 bits or, for a value outside the table, the cost of its escape. It is NaN if the density gives NaN.
/// The mass that this takes from other values is not charged, so on average over the density no table of this mean and
/// scale costs less.
pub fn with_escapes(exact: f64, value: i32, mean: f64, scale: f64) -> f64 {
    let (first, last) = edges(mean, scale);
    match first.saturating_sub(value).max(value.saturating_sub(last)) {
        _ if exact.is_nan() => exact,
        beyond @ 1.. => 16.0 + f64::from(escape_cost(beyond as u32 - 1)),
        _ => exact.min(16.0),
    }
}

/// The bank of Y for a normal density at every scale of the grid and every fraction of the mean (spec 6.2).
pub fn normal_bank(grid: &ScaleGrid) -> BankParts {
    let mut bank = BankParts::default();
    for index in 0..grid.count {
        let scale = grid.scale(index);
        let fractions = 1_i32 << grid.fraction_bits(index);
        for fraction in 0..fractions {
            let mean = f64::from(fraction) / f64::from(fractions);
            let (first, last) = edges(mean, scale);
            bank.push(&Masses {
                first,
                values: (first..=last).map(|value| normal_mass(value, mean, scale)).collect(),
                below: normal_cdf((f64::from(first) - 0.5 - mean) / scale),
                above: normal_cdf((mean - f64::from(last) - 0.5) / scale),
            });
        }
    }
    bank
}

/// The tables that code side indices by how often they occur.
pub fn side_bank(indices: &[u32], vocabulary: usize) -> BankParts {
    let uppers = vocabulary / 256 + 1;
    let mut counts = vec![[0.0_f64; 256]; uppers];
    for index in indices.iter().map(|index| (*index as usize).min(vocabulary)) {
        counts[index / 256][index % 256] += 1.0;
    }
    // Parts that did not occur weigh as much as a quarter of one that occurred once, all others that escapes reach less.
    let masses = |values: Vec<f64>| Masses {
        first: 0,
        values: values.iter().map(|count| count + 0.25).collect(),
        below: 0.0,
        above: 0.0,
    };
    let mut bank = BankParts::default();
    bank.push(&masses(counts.iter().map(|lower| lower.iter().sum()).collect()));
    counts.iter().for_each(|lower| bank.push(&masses(lower.to_vec())));
    bank
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::rate::element_bits;

    #[test]
    fn integer_masses_sum_and_none_is_zero() {
        for masses in [vec![0.5, 0.5], vec![1.0, 0.0, 0.0], vec![1e-9; 300], vec![0.1, 0.2, 0.3, 0.4]] {
            let counts = integer_masses(&masses);
            assert_eq!(counts.iter().sum::<u32>(), 65_536);
            assert!(counts.iter().all(|count| *count >= 1));
        }
    }

    #[test]
    fn the_normal_bank_costs_what_the_normal_costs() {
        let grid = ScaleGrid { low: 0.1_f64.log2(), high: 64.0_f64.log2(), count: 128 };
        let bank = normal_bank(&grid);
        assert_eq!(bank.first.len(), (0..128).map(|i| 1_usize << grid.fraction_bits(i)).sum::<usize>());
        // Entropy of the discretised normal at σ = 1, mean 0.25, against its table's cost.
        let index =
            (0..128).min_by(|a, b| (grid.scale(*a) - 1.0).abs().total_cmp(&(grid.scale(*b) - 1.0).abs())).unwrap();
        let base: usize = (0..index).map(|i| 1_usize << grid.fraction_bits(i)).sum();
        let fractions = 1_usize << grid.fraction_bits(index);
        let table = base + fractions / 4;
        let start: usize = bank.sizes[..table].iter().map(|m| usize::from(*m) + 1).sum();
        let m = usize::from(bank.sizes[table]);
        let boundaries = &bank.boundaries[start..=start + m];
        let (mut entropy, mut cost) = (0.0, 0.0);
        for i in 0..m {
            let value = f64::from(bank.first[table] + i as i32);
            let scale = grid.scale(index);
            let p = normal_cdf((value + 0.5 - 0.25) / scale) - normal_cdf((value - 0.5 - 0.25) / scale);
            if p > 1e-12 {
                entropy -= p * p.log2();
                cost -= p * (f64::from(boundaries[i + 1] - boundaries[i]) / 65_536.0).log2();
            }
        }
        assert!(cost - entropy < 0.002 && cost >= entropy - 1e-3, "{cost} against {entropy}");
    }

    #[test]
    fn escapes_bound_the_bits_of_tails() {
        for (mean, scale) in [(0.0, 0.1), (0.3, 0.5), (-0.49, 2.0), (0.5, 64.0)] {
            let bits = |value: i32| with_escapes(element_bits(f64::from(value), mean, scale), value, mean, scale);
            // More than 1 because two escapes, and values with less than one unit of mass, are not charged.
            let total: f64 = (-60_000..=60_000).map(|value| (-bits(value)).exp2()).sum();
            assert!((1.0..1.002).contains(&total), "{mean} {scale}: {total}");
        }
        // Values 0 and 1 are in the table. An escape costs 16 bits; after it 2 and −1 cost 1 more, and 5 and −4 cost 5
        // more.
        let bits = |value: i32| with_escapes(element_bits(f64::from(value), 0.0, 0.1), value, 0.0, 0.1);
        let near = element_bits(0.0, 0.0, 0.1);
        assert_eq!([0, 1, 2, -1, 5, -4].map(bits), [near, 16.0, 17.0, 17.0, 21.0, 21.0]);
        assert!(element_bits(2.0, 0.0, 0.1) > 100.0);
        // For means and scales that no network should give.
        assert!(with_escapes(f64::NAN, 3, f64::NAN, 1.0).is_nan());
        for mean in [-1e12, 1e12] {
            assert!(with_escapes(f64::INFINITY, 3, mean, 1.0) > 16.0);
        }
    }

    #[test]
    fn a_cut_grid_keeps_the_scales_below_the_cut() {
        let grid = ScaleGrid { low: -3.0, high: 6.0, count: 91 };
        let cut = grid.cut(1.05);
        assert_eq!(cut.count, 42, "from −3 to 1.1 in steps of 0.1");
        assert!((cut.high - 1.1).abs() < 1e-12 && (cut.step() - grid.step()).abs() < 1e-12);
        assert!((0..42).all(|index| (cut.scale(index) / grid.scale(index) - 1.0).abs() < 1e-12));
        assert_eq!(grid.cut(9.0), grid);
        assert_eq!(grid.cut(-9.0).count, 2);
    }

    #[test]
    fn erfc_is_accurate() {
        assert!((erfc(0.0) - 1.0).abs() < 2e-7);
        assert!((erfc(1.0) - 0.157_299_207_05).abs() < 1e-7);
        assert!((erfc(3.0) / 2.209_049_7e-5 - 1.0).abs() < 1e-6);
    }
}
