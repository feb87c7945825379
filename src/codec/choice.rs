//! Which Y an encoder sends: the nearest integers, or near ones that cost fewer bits (spec 6.8).
//!
//! No decoder depends on the choice. Integers and single operations of binary32 make it, so that encoders on all devices
//! choose alike.

use super::parameters::TargetParameters;
use crate::model::CodecModel;

/// floor(256 · log2(1 + i / 256)) by repeated squaring.
#[allow(clippy::indexing_slicing)] // By the loop's bound, and at compile time.
pub(crate) const LOG2: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0_usize;
    while i < table.len() {
        // A number of 1 … 2, times 2^32; each square gives one bit of its logarithm.
        let mut x = 256_u128.wrapping_add(i as u128) << 24;
        let (mut log, mut bit) = (0_u32, 0);
        while bit < 8_u32 {
            x = x.wrapping_mul(x) >> 32;
            log <<= 1;
            if x >> 33 != 0 {
                x >>= 1;
                log |= 1;
            }
            bit = bit.wrapping_add(1);
        }
        table[i] = log;
        i = i.wrapping_add(1);
    }
    table
};

/// What a mass of 65,536 and some further bits cost, in 1/256 bit (spec 6.8).
pub(crate) fn cost((mass, escape_bits): (u32, u32)) -> i32 {
    let mass = mass.max(1);
    let exponent = mass.ilog2();
    // The eight bits below the leading one.
    let fraction = mass.wrapping_shl(32_u32.wrapping_sub(exponent)).wrapping_shr(24) & 0xFF;
    let fraction = if exponent == 0 { 0 } else { fraction };
    let log = exponent.wrapping_mul(256).wrapping_add(LOG2.get(fraction as usize).copied().unwrap_or(0));
    // A mass is at most 2^16 and an escape has at most 40 bits: far from an i32's ends.
    escape_bits.wrapping_add(16).wrapping_mul(256).wrapping_sub(log).cast_signed()
}

/// Replaces values of `y`, the integers nearest to `x`, by the second nearest where `weight` squared steps a bit make up
/// for the distance; at weight 0 none. `x`, in steps, and `y` are `[T, E]`, as are the parameters.
pub(crate) fn choose(model: &CodecModel, parameters: &TargetParameters, weight: f32, x: &[f32], y: &mut [i16]) {
    if weight <= 0.0 {
        return;
    }
    let (low, high) = model.y_range();
    let unit = weight / 256.0;
    let places = parameters.tables.iter().zip(&parameters.shifts);
    for ((x, y), (table, shift)) in x.iter().zip(y).zip(places) {
        let distance = x - f32::from(*y);
        let second = if distance > 0.0 { y.saturating_add(1) } else { y.saturating_sub(1) };
        // A value that was clamped to the range stays; so does one without a neighbour in it.
        if distance.abs() > 0.5 || second < low || second > high {
            continue;
        }
        let table = usize::try_from(*table).unwrap_or(usize::MAX);
        let cost = |value: i16| cost(model.target().mass(table, *shift, i32::from(value)));
        let saved = cost(*y).saturating_sub(cost(second));
        // The squared distances differ by (1 − |d|)² − |d|² = 1 − 2 |d|.
        #[allow(clippy::cast_precision_loss)]
        if 1.0 - 2.0 * distance.abs() < saved as f32 * unit {
            *y = second;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::synthetic::{self, SyntheticShape};

    #[test]
    fn costs_are_logarithms() {
        for (i, log) in LOG2.iter().enumerate() {
            assert_eq!(*log, (256.0 * (1.0 + i as f64 / 256.0).log2()).floor() as u32, "{i}");
        }
        for (mass, bits) in [(1, 16.0), (2, 15.0), (3, 14.415), (32_768, 1.0), (49_152, 0.415), (65_535, 0.0)] {
            let cost = f64::from(cost((mass, 0))) / 256.0;
            assert!((cost - bits).abs() < 0.01, "{mass}: {cost}");
        }
        assert_eq!(cost((32_768, 7)), 8 * 256);
        let exact = |mass: u32| 256.0 * (16.0 - f64::from(mass).log2());
        assert!((1..65_536).all(|mass| (f64::from(cost((mass, 0))) - exact(mass)).abs() < 2.5));
    }

    #[test]
    fn a_bit_is_worth_some_distance() {
        let model = synthetic::model(&SyntheticShape::tiny(), 3);
        let (low, high) = model.y_range();
        let bits = |table: usize, value: i16| {
            let (mass, more) = model.target().mass(table, 0, i32::from(value));
            16.0 - f64::from(mass).log2() + f64::from(more)
        };
        for table in 0..model.target().tables().min(50) {
            for tenth in -30_i16..=30 {
                let x = f32::from(tenth) / 10.0;
                let nearest = x.round_ties_even() as i16;
                let second = if x > f32::from(nearest) { nearest + 1 } else { nearest - 1 };
                let parameters = TargetParameters { tables: vec![table as u32], shifts: vec![0] };
                let chosen = |weight: f32| {
                    let mut y = [nearest];
                    choose(&model, &parameters, weight, &[x], &mut y);
                    y[0]
                };
                assert_eq!(chosen(0.0), nearest);
                // The weight at which both are as good, by floats.
                let saved = bits(table, nearest) - bits(table, second);
                let even = f64::from(1.0 - 2.0 * (x - f32::from(nearest)).abs()) / saved;
                if saved > 0.1 && (low..=high).contains(&second) {
                    assert_eq!(chosen(even as f32 * 1.2 + 0.01), second, "{x} in table {table}");
                    assert_eq!(chosen(even as f32 * 0.8 - 1e-6), nearest, "{x} in table {table}");
                } else if saved < -0.1 {
                    assert_eq!(chosen(10.0), nearest);
                }
            }
        }
        // A value clamped to the range stays there.
        let parameters = TargetParameters { tables: vec![0], shifts: vec![0] };
        let mut y = [high];
        choose(&model, &parameters, 1e6, &[f32::from(high) + 9.0], &mut y);
        assert_eq!(y, [high]);
    }
}
