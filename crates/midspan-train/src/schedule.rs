//! Learning-rate schedule: warm-up, constant, linear decay to zero.

/// A learning-rate schedule; all lengths in steps.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Steps of linear warm-up, counted from `start`.
    pub warmup: u64,
    /// The step at which this run began (not 0 if it continues from another's weights).
    pub start: u64,
    /// The step to stop at.
    pub total: u64,
    /// Steps of linear decay at the end.
    pub decay: u64,
}

impl Schedule {
    /// The factor of the learning rate at `step`.
    pub fn rate(&self, step: u64) -> f32 {
        let up = (step.saturating_sub(self.start) + 1) as f32 / self.warmup.max(1) as f32;
        let left = self.total.saturating_sub(step) as f32;
        let down = if self.decay == 0 { 1.0 } else { left / self.decay as f32 };
        up.min(down).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_stays_and_falls() {
        let s = Schedule { warmup: 10, start: 100, total: 200, decay: 20 };
        let close = |step, want: f32| assert!((s.rate(step) - want).abs() < 1e-6, "{step}: {}", s.rate(step));
        close(100, 0.1);
        close(109, 1.0);
        close(180, 1.0);
        close(190, 0.5);
        close(199, 0.05);
        assert_eq!(s.rate(200), 0.0);
        assert_eq!(Schedule { decay: 0, ..s }.rate(199), 1.0);
    }
}
