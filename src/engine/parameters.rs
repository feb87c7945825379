//! Derives the table and the shift of each element of Y from g_y's output (spec 6.2).

use crate::model::CodecModel;

/// Tables and shifts of the elements of some frames, `[T, E]` each, reused by later calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetParameters {
    /// Number of the target table of each element.
    pub tables: Vec<u32>,
    /// The number that is added to a table's value to give Y.
    pub shifts: Vec<i32>,
}

impl TargetParameters {
    /// Drops all parameters and keeps the memory.
    pub fn clear(&mut self) {
        self.tables.clear();
        self.shifts.clear();
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.tables.capacity().saturating_add(self.shifts.capacity()).saturating_mul(4)
    }
}

/// The rule of spec 6.2 for one model: the fraction bits and the first table of each scale.
#[derive(Clone, Debug)]
pub struct ParameterRule {
    /// (fraction bits, number of the scale's first table) of each scale; 0 ≤ fraction bits ≤ 6 ([MODEL-7]).
    scales: Vec<(u32, u32)>,
    range: (i32, i32),
    width: usize,
}

impl ParameterRule {
    /// The rule for a model.
    #[must_use]
    pub fn new(model: &CodecModel) -> Self {
        let mut base = 0_u32;
        let scales = model
            .fraction_bits()
            .iter()
            .map(|bits| {
                let bits = u32::from(*bits);
                let scale = (bits, base);
                base = base.saturating_add(1_u32.wrapping_shl(bits));
                scale
            })
            .collect();
        let (low, high) = model.y_range();
        Self { scales, range: (i32::from(low), i32::from(high)), width: model.hidden_width() }
    }

    /// Fills `parameters` from g_y's output `[T, 2E]`: rows of E means (unit 1/64, within ±2^20), then E scale indices.
    pub fn derive(&self, output: &[i32], parameters: &mut TargetParameters) {
        parameters.clear();
        self.derive_more(output, parameters);
    }

    /// Appends the parameters of further frames.
    pub fn derive_more(&self, output: &[i32], parameters: &mut TargetParameters) {
        for frame in output.chunks_exact(self.width.saturating_mul(2)) {
            let (means, scales) = frame.split_at(self.width);
            for (mean, scale) in means.iter().zip(scales) {
                // A scale index is clamped to 0 … S − 1 by the network, so the lookup always finds one.
                let scale = usize::try_from(*scale).unwrap_or(0);
                let (bits, base) = self.scales.get(scale).copied().unwrap_or((0, 0));
                let (k, fraction) = split_mean(*mean, bits);
                parameters.tables.push(base.wrapping_add(fraction));
                parameters.shifts.push(k.clamp(self.range.0, self.range.1));
            }
        }
    }
}

/// Steps 1 and 2 of spec 6.2: rounds a mean to the scale's grid and splits it into integer and fraction.
///
/// `mean` is within ±2^20, so no step leaves 32 bits.
fn split_mean(mean: i32, bits: u32) -> (i32, u32) {
    let drop = 6_u32.saturating_sub(bits);
    let half = 1_i32.wrapping_shl(drop).wrapping_shr(1); // 2^(drop − 1), or 0 for drop = 0
    let q = mean.wrapping_add(half).wrapping_shr(drop);
    let k = q.wrapping_shr(bits);
    (k, q.wrapping_sub(k.wrapping_shl(bits)).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_split_as_the_spec_says() {
        // (mean, fraction bits) → (k, fraction), by hand.
        for (mean, bits, expected) in [
            (0, 6, (0, 0)),
            (63, 6, (0, 63)),
            (64, 6, (1, 0)),
            (-1, 6, (-1, 63)),
            (31, 0, (0, 0)),
            (32, 0, (1, 0)),
            (-32, 0, (0, 0)),
            (-33, 0, (-1, 0)),
            (47, 2, (0, 3)),
            (56, 2, (1, 0)),
            (-8, 2, (0, 0)),
            (-9, 2, (-1, 3)),
            (-1_048_576, 3, (-16_384, 0)),
            (1_048_576, 5, (16_384, 0)),
        ] {
            assert_eq!(split_mean(mean, bits), expected, "mean {mean} with {bits} bits");
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_grid_point() {
        for bits in 0..=6 {
            for mean in -1000..1000 {
                let (k, fraction) = split_mean(mean, bits);
                let back = (f64::from(k) + f64::from(fraction) / f64::from(1 << bits)) * 64.0;
                assert!((back - f64::from(mean)).abs() <= 32.0 / f64::from(1 << bits));
                assert!(fraction < 1 << bits);
            }
        }
    }
}
