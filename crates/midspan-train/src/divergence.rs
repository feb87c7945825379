//! Whether a run goes astray, told by the task's loss at each step.

use serde::{Deserialize, Serialize};

/// The loss so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Smoothed over about 50 steps.
    pub smooth: Option<f64>,
    /// The least that the smoothed loss was.
    lowest: Option<f64>,
}

impl Divergence {
    /// Takes a step's loss, or tells why the run has diverged: the loss is not finite, lies `most` above the smoothed one,
    /// or this has risen to twice as much above its least, step by step. A codec that sends next to nothing leaves a host
    /// its unigrams, which are some nats worse than it was; so it takes more to call a slow rise divergence.
    pub fn take(&mut self, loss: f64, most: f64) -> Result<(), String> {
        if !loss.is_finite() {
            return Err(format!("loss {loss}, before {:?}", self.smooth));
        }
        let smooth = self.smooth.unwrap_or(loss);
        if loss > smooth + most {
            return Err(format!("loss {loss}, before {smooth}"));
        }
        let smooth = 0.98 * smooth + 0.02 * loss;
        let lowest = self.lowest.map_or(smooth, |lowest| lowest.min(smooth));
        if smooth > lowest + 2.0 * most {
            return Err(format!("loss {loss}, {smooth} of late, at best {lowest}"));
        }
        *self = Self { smooth: Some(smooth), lowest: Some(lowest) };
        Ok(())
    }

    /// Whether the smoothed loss lies more than `most` above its least: a checkpoint may then be worth less than one before.
    pub fn is_far(&self, most: f64) -> bool {
        self.smooth.zip(self.lowest).is_some_and(|(smooth, lowest)| smooth > lowest + most)
    }

    /// Whether it lies less than half of that above its least: what was far can rise and fall about `most` for long.
    pub fn has_come_back(&self, most: f64) -> bool {
        !self.is_far(0.5 * most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_and_what_is_not_finite() {
        let mut seen = Divergence::default();
        (0..100).for_each(|_| seen.take(4.0, 3.0).unwrap());
        assert!(seen.take(6.9, 3.0).is_ok());
        let before = seen;
        for loss in [7.2, f64::NAN, f64::INFINITY] {
            assert!(seen.take(loss, 3.0).is_err());
        }
        assert_eq!(seen, before);
        assert!(seen.take(7.2, 12.0).is_ok());
    }

    #[test]
    fn a_slow_rise() {
        let mut seen = Divergence::default();
        let mut far = None;
        // 0.02 nats a step lie at most 1 above the smoothed loss.
        let end = (0..1000).find(|step| {
            let ok = seen.take(4.0 + 0.02 * f64::from(*step), 3.0).is_ok();
            if far.is_none() && seen.is_far(3.0) {
                far = Some(*step);
            }
            !ok
        });
        assert!(matches!((far, end), (Some(150..250), Some(300..400))), "{far:?} {end:?}");
    }

    #[test]
    fn a_loss_that_falls_is_never_far() {
        let mut seen = Divergence::default();
        for step in 0..1000 {
            seen.take(9.0 - 0.005 * f64::from(step), 3.0).unwrap();
            assert!(!seen.is_far(3.0));
        }
    }
}
