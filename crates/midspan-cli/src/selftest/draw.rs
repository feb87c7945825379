//! Random choices from the deterministic generator.

use midspan::model::synthetic::Random;

/// The choices that campaigns draw from a generator.
pub(super) trait Draw {
    /// A number below `count`, which is at least 1.
    fn below(&mut self, count: usize) -> usize;

    /// True once in `count` draws.
    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// One of some values. There has to be at least one.
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A byte.
    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }
}

impl Draw for Random {
    fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }
}
