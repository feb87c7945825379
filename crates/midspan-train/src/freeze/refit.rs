//! How g_y's outputs are changed for a quality whose steps are not the training's: by a straight line for each output.
//!
//! From elements that were nearly always 0 in the training's steps g_y learned little about means and scales, which
//! matter in finer steps. Each element's mean is corrected by the least-squares line to the quality's Y on calibration
//! text, and its scale index by the line that costs the fewest bits there. Both are applied only if they save bits.

use super::tables::ScaleGrid;
use crate::codec::rate::element_bits;

/// A line: a factor and an offset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// At least 0.
    pub factor: f64,
    /// Added to the product.
    pub added: f64,
}

/// Lines for an element's mean, in steps, and its scale index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refit {
    /// For the mean.
    pub mean: Line,
    /// For the index; its offset is a whole number.
    pub index: Line,
}

/// Factors tried for an index.
const INDEX_FACTORS: [f64; 4] = [1.0, 0.67, 0.33, 0.0];
/// The largest factor for a mean.
const MEAN_FACTOR_MAX: f64 = 2.0;

/// One element on calibration text.
pub struct Element<'a> {
    /// Y in the quality's steps.
    pub y: &'a [f64],
    /// Means that g_y gives, in the quality's steps.
    pub mean: &'a [f64],
    /// Scale indices that g_y gives for the training's steps, not limited to the grid.
    pub index: &'a [f64],
}

impl Element<'_> {
    /// Bits with these lines, with indices limited to the grid.
    fn bits(&self, refit: Refit, grid: ScaleGrid) -> f64 {
        let values = self.y.iter().zip(self.mean.iter().zip(self.index));
        values
            .map(|(y, (mean, index))| {
                let index = (refit.index.factor * index + refit.index.added).round();
                let scale = grid.scale(index.clamp(0.0, (grid.count - 1) as f64) as usize);
                element_bits(*y, refit.mean.factor * mean + refit.mean.added, scale)
            })
            .sum()
    }

    /// The least-squares line from the means to Y.
    fn least_squares(&self) -> Line {
        let n = self.y.len().max(1) as f64;
        let (y, mean) = (self.y.iter().sum::<f64>() / n, self.mean.iter().sum::<f64>() / n);
        let pairs = || self.y.iter().zip(self.mean);
        let both: f64 = pairs().map(|(a, b)| (a - y) * (b - mean)).sum();
        let own: f64 = self.mean.iter().map(|b| (b - mean) * (b - mean)).sum();
        let factor = if own > 1e-9 { (both / own).clamp(0.0, MEAN_FACTOR_MAX) } else { 0.0 };
        Line { factor, added: y - factor * mean }
    }

    /// The lines with the fewest bits among those tried. `start` are the lines without refitting.
    pub fn refit(&self, start: Refit, grid: ScaleGrid) -> Refit {
        let mut best = (self.bits(start, grid), start);
        for mean in [start.mean, self.least_squares()] {
            for factor in INDEX_FACTORS {
                let at = |added: i64| Refit { mean, index: Line { factor, added: added as f64 } };
                // Bits fall up to the best place and rise after it.
                let (mut low, mut high) = (-(grid.count as i64), grid.count as i64);
                while high - low > 2 {
                    let (a, b) = (low + (high - low) / 3, high - (high - low) / 3);
                    if self.bits(at(a), grid) <= self.bits(at(b), grid) { high = b } else { low = a }
                }
                for added in low..=high {
                    let bits = self.bits(at(added), grid);
                    if bits < best.0 {
                        best = (bits, at(added));
                    }
                }
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const GRID: ScaleGrid = ScaleGrid { low: -3.0, high: 5.0, count: 81 };

    #[test]
    fn lines_find_what_the_values_follow() {
        let mut rng = Rng::new(2);
        // Y = mean / 2 + 3 + noise of scale 4, that is index 50; g_y gives index 20 plus noise.
        let mean: Vec<f64> = (0..3000).map(|_| 20.0 * f64::from(rng.normal())).collect();
        let y: Vec<f64> = mean.iter().map(|m| (m / 2.0 + 3.0 + 4.0 * f64::from(rng.normal())).round()).collect();
        let index: Vec<f64> = (0..3000).map(|_| 20.0 + 6.0 * f64::from(rng.normal())).collect();
        let element = Element { y: &y, mean: &mean, index: &index };
        let none = Line { factor: 1.0, added: 0.0 };
        let start = Refit { mean: none, index: none };
        let found = element.refit(start, GRID);
        assert!((found.mean.factor - 0.5).abs() < 0.02 && (found.mean.added - 3.0).abs() < 0.4, "{found:?}");
        assert!(found.index.factor == 0.0 && (found.index.added - 50.0).abs() < 1.5, "{found:?}");
        assert!(element.bits(found, GRID) < 0.5 * element.bits(start, GRID));
        // Correct values are not changed.
        let index = vec![50.0; 3000];
        let mean: Vec<f64> = mean.iter().map(|m| m / 2.0 + 3.0).collect();
        let right = Element { y: &y, mean: &mean, index: &index };
        assert!(right.bits(right.refit(start, GRID), GRID) > 0.995 * right.bits(start, GRID));
    }
}
