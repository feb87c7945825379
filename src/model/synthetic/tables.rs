//! Plausible tables: discretised normal distributions, made only of integers.

use super::Random;
use crate::model::Tables;

/// floor(2^32 · exp(−2^k)) for k = −8 … 4.
const EXP_POWERS: [u64; 13] = [
    4_278_222_805,
    4_261_543_595,
    4_228_379_999,
    4_162_825_044,
    4_034_748_382,
    3_790_295_335,
    3_344_923_893,
    2_605_029_347,
    1_580_030_168,
    581_260_615,
    78_665_070,
    1_440_801,
    483,
];

/// About 2^32 · exp(−x / 256).
pub(super) fn exp_neg(x: u64) -> u64 {
    if x >> EXP_POWERS.len() != 0 {
        return 0;
    }
    EXP_POWERS
        .iter()
        .enumerate()
        .filter(|(bit, _)| x >> bit & 1 == 1)
        .fold(1 << 32, |product, (_, &power)| (product * power) >> 32)
}

/// A normal distribution with the mean `mean`/64 and the standard deviation `sigma`/64 over `low` … `high`, appended
/// as one table.
fn push_normal(tables: &mut Tables, mean: i64, sigma: i64, low: i32, high: i32) {
    let weights: Vec<u64> = (low..=high)
        .map(|value| {
            let distance = i64::from(value) * 64 - mean;
            exp_neg((128 * distance * distance / (sigma * sigma)) as u64)
        })
        .collect();
    let total: u64 = weights.iter().sum::<u64>().max(1);
    // Every value and both escapes get 1. The rest is shared by weight; what rounding leaves goes to the likeliest
    // value.
    let spare = 65_536 - (weights.len() as u64 + 2);
    let mut masses: Vec<u64> = weights.iter().map(|&weight| 1 + weight * spare / total).collect();
    let given: u64 = masses.iter().sum::<u64>() + 2;
    let likeliest = (0..masses.len()).max_by_key(|&at| weights[at]).unwrap_or(0);
    masses[likeliest] += 65_536 - given;
    tables.first.push(low);
    tables.size.push(masses.len() as u16);
    let mut boundary = 1;
    tables.boundaries.push(boundary as u16);
    for mass in masses {
        boundary += mass;
        tables.boundaries.push(boundary as u16);
    }
}

/// `count` tables of W with deviations from 1 to 12 around means near 0.
pub(super) fn hyper_prior(count: usize, range: (i16, i16), random: &mut Random) -> Tables {
    let mut tables = Tables::default();
    for _ in 0..count {
        let mean = random.within(-128, 128);
        let sigma = random.within(64, 768);
        // Some tables reach as far as W, some leave the rest to escapes.
        let reach = random.within(2, 40);
        let (low, high) = (i32::from(range.0).max(-reach), i32::from(range.1).min(reach));
        push_normal(&mut tables, mean.into(), sigma.into(), low, high);
    }
    tables
}

/// The tables of side indices: low parts of either kind are likely, and lower parts above 40 are escapes.
pub(super) fn side(vocabulary: usize) -> Tables {
    let mut tables = Tables::default();
    let upper = (vocabulary / 256) as i32;
    push_normal(&mut tables, 0, 64, 0, upper.min(4_000));
    for _ in 0..=upper {
        push_normal(&mut tables, 64, 8 * 64, 0, 40);
    }
    tables
}

/// Deviations of the scales in 1/64: from 7/64 up by a factor of 9/8 or so, to about 200.
fn sigma(scale: usize) -> i64 {
    (0..scale).fold(7i64, |sigma, _| sigma + (sigma / 8).max(1)).min(200 * 64)
}

/// Bits of the mean's fraction: many if the scale is small.
pub(super) fn fraction_bits(scales: usize) -> Vec<u8> {
    (0..scales)
        .map(|scale| match sigma(scale) {
            ..32 => 5,
            32..64 => 4,
            64..128 => 3,
            128..512 => 2,
            512..2_048 => 1,
            _ => 0,
        })
        .collect()
}

/// The tables of Y, each with the fraction of the mean in it.
pub(super) fn target(fraction_bits: &[u8]) -> Tables {
    let mut tables = Tables::default();
    for (scale, &bits) in fraction_bits.iter().enumerate() {
        let sigma = sigma(scale);
        let reach = i32::try_from(4 * sigma / 64 + 2).unwrap_or(2).min(1_000);
        for fraction in 0..1i64 << bits {
            push_normal(&mut tables, (fraction * 64) >> bits, sigma, -reach, reach);
        }
    }
    tables
}
