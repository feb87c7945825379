//! A small seeded generator whose whole state is one number, so that a checkpoint can hold it.

/// SplitMix64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator from a seed, or from a state that [`Rng::state`] gave.
    pub fn new(state: u64) -> Self {
        Self { state }
    }

    /// The state to pass to [`Rng::new`] to continue from here.
    pub fn state(&self) -> u64 {
        self.state
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n` (at least 1), with a bias below 2^-32 for `n` up to 2^32.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.bits() as u128 * n as u128) >> 64) as usize
    }

    /// A number in (0, 1].
    pub fn unit(&mut self) -> f32 {
        ((self.bits() >> 40) + 1) as f32 / (1u64 << 24) as f32
    }

    /// An index, drawn by the probabilities `p`.
    pub fn draw(&mut self, p: &[f32]) -> usize {
        let mut left = self.unit();
        let drawn = p.iter().position(|p| {
            left -= p;
            left < 0.0
        });
        // The rest of 1 that rounding leaves belongs to the last index.
        drawn.unwrap_or(p.len().saturating_sub(1))
    }

    /// A sample of the standard normal distribution (Box–Muller, using one of the pair).
    pub fn normal(&mut self) -> f32 {
        let (u, v) = (self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_from_a_state_and_is_normal() {
        let mut a = Rng::new(7);
        let n = 20_000;
        let x: Vec<f64> = (0..n).map(|_| a.normal() as f64).collect();
        let mean = x.iter().sum::<f64>() / n as f64;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.05, "{mean} {var}");
        let mut b = Rng::new(a.state());
        assert_eq!((a.bits(), a.below(10)), (b.bits(), b.below(10)));
        assert!((0..1000).all(|_| a.below(3) < 3));
    }
}
