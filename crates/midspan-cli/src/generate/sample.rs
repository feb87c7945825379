//! Choice of the next token: greedy, or by temperature among the most likely ones.

use midspan_train::rng::Rng;

/// Chooses tokens from logits; equal seeds give equal choices.
#[derive(Clone, Debug)]
pub(super) struct Sampler {
    temperature: f32,
    top_k: usize,
    rng: Rng,
}

impl Sampler {
    /// A temperature of 0 is greedy.
    pub(super) fn new(temperature: f32, top_k: usize, seed: u64) -> Self {
        Self { temperature, top_k: top_k.max(1), rng: Rng::new(seed ^ 0x9E37_79B9_7F4A_7C15) }
    }

    /// The token for `logits`, `[vocab]`; 0 if there are none.
    pub(super) fn choose(&mut self, logits: &[f32]) -> u32 {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_unstable_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let Some(best) = order.first().copied() else { return 0 };
        if self.temperature <= 0.0 {
            return best as u32;
        }
        order.truncate(self.top_k);
        let weights: Vec<f64> =
            order.iter().map(|i| (f64::from(logits[*i] - logits[best]) / f64::from(self.temperature)).exp()).collect();
        let mut point = self.uniform() * weights.iter().sum::<f64>();
        for (i, weight) in order.iter().zip(&weights) {
            point -= weight;
            if point <= 0.0 {
                return *i as u32;
            }
        }
        best as u32
    }

    /// A number in [0, 1).
    fn uniform(&mut self) -> f64 {
        (self.rng.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_largest() {
        assert_eq!(Sampler::new(0.0, 5, 1).choose(&[0.1, 3.0, 2.0]), 1);
    }

    #[test]
    fn samples_stay_among_the_likeliest_and_repeat_with_the_seed() {
        let logits: Vec<f32> = (0..50).map(|i| i as f32 * 0.1).collect();
        let draw = |seed| {
            let mut sampler = Sampler::new(1.0, 4, seed);
            (0..100).map(|_| sampler.choose(&logits)).collect::<Vec<_>>()
        };
        assert!(draw(7).iter().all(|token| *token >= 46));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!((46..50).all(|token| draw(7).contains(&token)));
    }
}
