//! Static tables: one for each channel and quality, from a bank that they share.

use std::collections::BTreeMap;
use std::f64::consts::LOG2_E;

use midspan::model::Tables;

use super::integer;
use crate::Result;
use crate::codec::quantiser::choose;
use crate::freeze::tables::{BankParts, Masses};
use crate::parallel::in_threads;

/// The most tables (spec 4.1: scales of a model).
const TABLES_MAX: usize = 256;
/// The most values of a table (spec 4.3).
const VALUES_MAX: usize = 4_096;
/// How often histograms are assigned to tables and tables fitted anew.
const ROUNDS: usize = 6;
/// How many neighbours on each side, in order of their entropy, a histogram tries.
const NEIGHBOURS: usize = 24;

/// How often each integer occurs.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// The value of the first count.
    first: i32,
    /// Counts of values in a row, at most 4,096.
    counts: Vec<u32>,
    /// How many values are below, and above.
    outside: (u32, u32),
    /// The integer nearest to the mean of the values that are counted.
    centre: i32,
}

impl Histogram {
    /// Counts values. Those furthest from the median are counted as outside if they are spread over more than 4,096.
    pub fn new(values: impl Iterator<Item = i16>) -> Self {
        let mut values: Vec<i16> = values.collect();
        values.sort_unstable();
        let median = values.get(values.len() / 2).map_or(0, |value| i32::from(*value));
        let (low, high) = (median - VALUES_MAX as i32 / 2, median + VALUES_MAX as i32 / 2 - 1);
        let start = values.partition_point(|value| i32::from(*value) < low);
        let end = values.partition_point(|value| i32::from(*value) <= high);
        let inside = &values[start..end];
        let first = inside.first().map_or(0, |value| i32::from(*value));
        let last = inside.last().map_or(0, |value| i32::from(*value));
        let mut counts = vec![0; (last - first + 1) as usize];
        let mut sum = 0_i64;
        for value in inside {
            counts[(i32::from(*value) - first) as usize] += 1;
            sum += i64::from(*value);
        }
        // An offset of g_y's means, 64 times as large, is at most 2^20.
        let centre = ((sum as f64 / inside.len().max(1) as f64).round() as i32).clamp(-16_384, 16_384);
        Self { first, counts, outside: (start as u32, (values.len() - end) as u32), centre }
    }

    /// Values counted, those outside too.
    fn total(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum::<u64>() + u64::from(self.outside.0 + self.outside.1)
    }

    /// Values with their counts.
    fn pairs(&self) -> impl Iterator<Item = (i32, u32)> + '_ {
        (self.first..).zip(self.counts.iter().copied()).filter(|(_, count)| *count > 0)
    }

    /// Bits of all values by their own frequencies.
    fn entropy(&self) -> f64 {
        let total = self.total().max(1) as f64;
        let outside = [self.outside.0, self.outside.1].into_iter();
        outside
            .chain(self.counts.iter().copied())
            .filter(|count| *count > 0)
            .map(|count| f64::from(count) * (total / f64::from(count)).log2())
            .sum()
    }
}

/// Where the table of a channel in a quality is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The table's number.
    pub table: usize,
    /// The integer that the table codes as 0.
    pub centre: i32,
}

/// The tables of all channels and qualities.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticTables {
    /// One for each histogram, in their order.
    pub places: Vec<Place>,
    tables: Vec<Masses>,
}

/// Counts of several histograms about their centres.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    counts: BTreeMap<i32, u64>,
    below: u64,
    above: u64,
}

impl Pool {
    fn add(&mut self, histogram: &Histogram) {
        for (value, count) in histogram.pairs() {
            *self.counts.entry(value - histogram.centre).or_default() += u64::from(count);
        }
        self.below += u64::from(histogram.outside.0);
        self.above += u64::from(histogram.outside.1);
    }

    /// Counts a value so many times.
    pub(super) fn count(&mut self, value: i32, count: u64) {
        *self.counts.entry(value).or_default() += count;
    }

    /// The masses of a table: the counts, and a two-sided geometric distribution of the same spread. It weighs as much as
    /// two values and a thousandth of all, so that values that did not occur have a share.
    pub(super) fn masses(&self) -> Masses {
        let inside: u64 = self.counts.values().sum();
        let total = inside + self.below + self.above;
        let spread: f64 = self.counts.iter().map(|(value, count)| f64::from(value.abs()) * *count as f64).sum();
        let spread = (spread / inside.max(1) as f64).max(0.02);
        // Of P(v) = (1 − r) / (1 + r) · r^|v| the mean magnitude is 2 r / (1 − r²).
        let ratio = ((1.0 + spread * spread).sqrt() - 1.0) / spread;
        let weight = 2.0 + 1e-3 * total as f64;
        let tail = |value: i32| ratio.powi(value) / (1.0 + ratio); // P(v ≥ value), value > 0
        let mass = |value: i32| weight * (1.0 - ratio) / (1.0 + ratio) * ratio.powi(value.abs());
        // Values from which on all together are worth less than a table entry.
        let worth = (total as f64 + weight) / 65_536.0;
        let mut reach = 1;
        while weight * tail(reach) > worth && reach < VALUES_MAX as i32 / 2 {
            reach += 1;
        }
        let (mut first, mut last) = (-reach, reach);
        // A table goes on to a value if the values on the way are worth their entries: an entry is one in 65,536 of all
        // values' mass, and an escape costs about twice as many bits as its distance has.
        let pays = |values: f64, entries: i32| {
            2.0 * f64::from(entries.max(2)).log2() * values > LOG2_E * f64::from(entries) * worth
        };
        let (mut above, mut below) = (0.0, 0.0);
        for (value, count) in self.counts.range(reach + 1..) {
            above += *count as f64;
            if pays(above, value - last) {
                (last, above) = (*value, 0.0);
            }
        }
        for (value, count) in self.counts.range(..-reach).rev() {
            below += *count as f64;
            if pays(below, first - value) {
                (first, below) = (*value, 0.0);
            }
        }
        let bound = VALUES_MAX as i32 / 2 - 1;
        let (first, last) = (first.max(-bound), last.min(bound));
        let counted = |from: i32, to: i32| self.counts.range(from..=to).map(|(_, count)| *count as f64).sum::<f64>();
        let values =
            (first..=last).map(|value| self.counts.get(&value).map_or(0.0, |count| *count as f64) + mass(value));
        Masses {
            first,
            values: values.collect(),
            below: self.below as f64 + counted(i32::MIN, first - 1) + weight * tail(1 - first),
            above: self.above as f64 + counted(last + 1, i32::MAX) + weight * tail(last + 1),
        }
    }
}

/// Costs of a channel's values by its table.
pub struct Costs {
    centre: i32,
    first: i32,
    /// Bits of each value of the table.
    bits: Vec<f32>,
    below: f32,
    above: f32,
}

impl Costs {
    pub(super) fn new(masses: &Masses, centre: i32) -> Self {
        let total = masses.values.iter().sum::<f64>() + masses.below + masses.above;
        let bits = |mass: &f64| (total / mass.max(total / 65_536.0)).log2() as f32;
        Self {
            centre,
            first: masses.first,
            bits: masses.values.iter().map(bits).collect(),
            below: bits(&masses.below),
            above: bits(&masses.above),
        }
    }

    /// Bits of a value.
    pub fn bits(&self, value: i32) -> f32 {
        let place = i64::from(value) - i64::from(self.centre) - i64::from(self.first);
        let escape = |beyond: i64| midspan::entropy::escape_cost(beyond.min(1 << 17) as u32) as f32;
        match usize::try_from(place) {
            Err(_) => self.below + escape(-place - 1),
            Ok(at) => match self.bits.get(at) {
                Some(bits) => *bits,
                None => self.above + escape((at - self.bits.len()) as i64),
            },
        }
    }

    /// Y of a value in steps, at `weight` squared steps a bit.
    pub fn choose(&self, x: f32, weight: f64) -> i16 {
        let bits = |y: f32| self.bits(integer(y).into());
        integer(choose(x, weight, |nearest, second| f64::from(bits(nearest) - bits(second))))
    }
}

impl StaticTables {
    /// Fits at most 256 tables to histograms, and assigns each to the table that codes it in the fewest bits.
    ///
    /// # Errors
    /// When a thread panics.
    pub fn fit(histograms: &[Histogram], threads: usize) -> Result<Self> {
        let mut order: Vec<usize> = (0..histograms.len()).collect();
        let entropy: Vec<f64> =
            histograms.iter().map(|histogram| histogram.entropy() / histogram.total().max(1) as f64).collect();
        order.sort_by(|a, b| entropy[*a].total_cmp(&entropy[*b]));
        let count = histograms.len().min(TABLES_MAX);
        let mut assigned = vec![0; histograms.len()];
        for (place, histogram) in order.iter().enumerate() {
            assigned[*histogram] = place * count / histograms.len();
        }
        let mut tables = pooled(histograms, &assigned, count);
        for _ in 0..ROUNDS {
            let costs: Vec<Costs> = tables.iter().map(|masses| Costs::new(masses, 0)).collect();
            let places: Vec<usize> = (0..histograms.len()).collect();
            assigned = in_threads(&places, threads, |place| {
                let histogram = &histograms[*place];
                let bits = |table: usize| -> f64 {
                    let pairs = histogram.pairs();
                    pairs
                        .map(|(value, count)| f64::from(count) * f64::from(costs[table].bits(value - histogram.centre)))
                        .sum()
                };
                let near = assigned[*place];
                let tried = near.saturating_sub(NEIGHBOURS)..(near + NEIGHBOURS + 1).min(tables.len());
                let best = tried.map(|table| (bits(table), table)).min_by(|a, b| a.0.total_cmp(&b.0));
                Ok(best.map_or(near, |(_, table)| table))
            })?;
            tables = pooled(histograms, &assigned, count);
        }
        // Tables that nobody uses go.
        let mut used = vec![None; tables.len()];
        let mut kept = Vec::new();
        for table in &assigned {
            if used[*table].is_none() {
                used[*table] = Some(kept.len());
                kept.push(tables[*table].clone());
            }
        }
        let places = assigned
            .iter()
            .zip(histograms)
            .map(|(table, histogram)| Place { table: used[*table].unwrap_or_default(), centre: histogram.centre });
        Ok(Self { places: places.collect(), tables: kept })
    }

    /// The number of tables.
    pub fn count(&self) -> usize {
        self.tables.len()
    }

    /// The bank in a model file's form.
    pub fn bank(&self) -> Tables {
        let mut bank = BankParts::default();
        for masses in &self.tables {
            bank.push(masses);
        }
        bank.into()
    }

    /// Costs of the values of a histogram's channel.
    pub fn costs(&self, place: usize) -> Costs {
        let Place { table, centre } = self.places[place];
        Costs::new(&self.tables[table], centre)
    }
}

/// One table for each number up to `count`, from the histograms that are assigned to it.
fn pooled(histograms: &[Histogram], assigned: &[usize], count: usize) -> Vec<Masses> {
    let mut pools = vec![Pool::default(); count];
    for (histogram, table) in histograms.iter().zip(assigned) {
        pools[*table].add(histogram);
    }
    pools.iter().map(Pool::masses).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Integers of a normal distribution.
    fn normal(rng: &mut Rng, mean: f32, scale: f32) -> Histogram {
        Histogram::new((0..4_000).map(|_| (mean + scale * rng.normal()).round() as i16))
    }

    /// Bits a value of a histogram by its table.
    fn bits(tables: &StaticTables, place: usize, histogram: &Histogram) -> f64 {
        let costs = tables.costs(place);
        let sum: f64 = histogram.pairs().map(|(value, count)| f64::from(count) * f64::from(costs.bits(value))).sum();
        sum / histogram.total() as f64
    }

    #[test]
    fn tables_cost_what_the_values_own_frequencies_do() {
        let mut rng = Rng::new(1);
        let scales = [0.05, 0.2, 0.5, 1.0, 3.0, 20.0, 300.0];
        let mut shapes: Vec<(f32, f32)> = Vec::new();
        for place in 0..420 {
            shapes.push((40.0 * rng.normal(), scales[place % scales.len()] * (1.0 + 0.1 * rng.normal().abs())));
        }
        let seen: Vec<Histogram> = shapes.iter().map(|(mean, scale)| normal(&mut rng, *mean, *scale)).collect();
        let fresh: Vec<Histogram> = shapes.iter().map(|(mean, scale)| normal(&mut rng, *mean, *scale)).collect();
        let tables = StaticTables::fit(&seen, 2).unwrap();
        assert!(tables.count() <= 256 && tables.places.len() == 420, "{}", tables.count());
        let (mut sum, mut entropy) = (0.0, 0.0);
        for (place, histogram) in fresh.iter().enumerate() {
            sum += bits(&tables, place, histogram);
            entropy += histogram.entropy() / histogram.total() as f64;
        }
        // Their own frequencies, of 4,000 values spread over up to 2,500 integers, promise too little.
        assert!(sum < 1.04 * entropy && sum > entropy, "{sum} {entropy}");
    }

    #[test]
    fn far_values_are_escapes() {
        let values = (0..1_000).map(|i| if i % 100 == 0 { 30_000 } else { (i % 3) as i16 });
        let histogram = Histogram::new(values);
        assert_eq!((histogram.first, histogram.counts.len(), histogram.outside, histogram.centre), (0, 3, (0, 10), 1));
        let tables = StaticTables::fit(&[histogram], 1).unwrap();
        let costs = tables.costs(0);
        // One in a hundred: 6.6 bits and the escape's own, about 2 · 15.
        assert!((34.0..40.0).contains(&costs.bits(30_000)), "{}", costs.bits(30_000));
        assert!(costs.bits(1) < 2.0 && costs.bits(-30_000) > 40.0);
        let bank = tables.bank();
        let (first, last) = (bank.first[0], bank.first[0] + i32::from(bank.size[0]) - 1);
        assert!(first <= 0 && (0..100).contains(&last), "{first} {last}");
    }

    #[test]
    fn a_bit_saved_is_worth_some_distance() {
        let masses = Masses { first: -1, values: vec![1.0, 62.0, 1.0], below: 1.0, above: 1.0 };
        let costs = Costs::new(&masses, 0);
        // 1 costs log2 62 = 5.95 bits more than 0.
        assert_eq!((costs.choose(0.6, 0.0), costs.choose(0.6, 0.03), costs.choose(0.6, 0.04)), (1, 1, 0));
        assert_eq!((costs.choose(0.4, 4.0), costs.choose(-0.55, 0.1), costs.choose(-0.95, 0.1)), (0, 0, -1));
    }
}
