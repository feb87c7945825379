//! Detects whether a run diverges, from the task's loss at each step.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a run showed that it diverges. Losses are in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Rise {
    /// A step's loss is not finite.
    NotFinite {
        /// The loss.
        loss: f64,
        /// The smoothed loss before, if there were steps.
        before: Option<f64>,
    },
    /// A step's loss is far above the smoothed loss.
    Jump {
        /// The loss.
        loss: f64,
        /// The smoothed loss before.
        before: f64,
    },
    /// The smoothed loss has slowly risen far above its minimum.
    Slow {
        /// The step's loss.
        loss: f64,
        /// The smoothed loss.
        smooth: f64,
        /// Its minimum.
        lowest: f64,
    },
    /// What is minimised, the loss with the price of the bits, is not finite.
    Objective {
        /// The loss.
        loss: f64,
        /// What is minimised.
        objective: f64,
    },
    /// The norm of the gradients is not finite.
    Gradients {
        /// The loss.
        loss: f64,
        /// The norm.
        norm: f64,
    },
}

impl fmt::Display for Rise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite { loss, before: None } => write!(f, "loss {loss}"),
            Self::NotFinite { loss, before: Some(before) } | Self::Jump { loss, before } => {
                write!(f, "loss {loss}, before {before}")
            }
            Self::Slow { loss, smooth, lowest } => write!(f, "loss {loss}, {smooth} of late, at best {lowest}"),
            Self::Objective { loss, objective } => write!(f, "loss {loss}, objective {objective}"),
            Self::Gradients { loss, norm } => write!(f, "loss {loss}, gradients of norm {norm}"),
        }
    }
}

impl std::error::Error for Rise {}

/// The loss so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The loss smoothed over about 50 steps.
    pub smooth: Option<f64>,
    /// The minimum of the smoothed loss.
    lowest: Option<f64>,
}

impl Divergence {
    /// Takes a step's loss.
    ///
    /// # Errors
    /// The run has diverged, and the record stays as it was: the loss is not finite, it is more than `most` above the
    /// smoothed loss, or the smoothed loss has slowly risen to more than 2 · `most` above its minimum. The bound for a
    /// slow rise is larger because a codec that sends almost nothing leaves the host only unigrams, which are some nats
    /// worse.
    pub fn take(&mut self, loss: f64, most: f64) -> Result<(), Rise> {
        if !loss.is_finite() {
            return Err(Rise::NotFinite { loss, before: self.smooth });
        }
        let before = self.smooth.unwrap_or(loss);
        if loss > before + most {
            return Err(Rise::Jump { loss, before });
        }
        let smooth = 0.98 * before + 0.02 * loss;
        let lowest = self.lowest.map_or(smooth, |lowest| lowest.min(smooth));
        if smooth > lowest + 2.0 * most {
            return Err(Rise::Slow { loss, smooth, lowest });
        }
        *self = Self { smooth: Some(smooth), lowest: Some(lowest) };
        Ok(())
    }

    /// Whether the smoothed loss is more than `most` above its minimum. A checkpoint may then be worse than an earlier
    /// one.
    pub fn is_far(&self, most: f64) -> bool {
        self.smooth.zip(self.lowest).is_some_and(|(smooth, lowest)| smooth > lowest + most)
    }

    /// Whether the smoothed loss is at most half of `most` above its minimum. The bound is lower than in
    /// [`Self::is_far`] because the loss may rise and fall around `most` for a long time.
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
        let jump = seen.take(7.2, 3.0).unwrap_err();
        assert!(matches!(jump, Rise::Jump { loss: 7.2, before: 4.0..4.1 }), "{jump:?}");
        for loss in [f64::NAN, f64::INFINITY] {
            let error = seen.take(loss, 3.0).unwrap_err();
            assert!(matches!(error, Rise::NotFinite { before: Some(_), .. }), "{error:?}");
        }
        assert_eq!(Divergence::default().take(f64::NAN, 3.0).unwrap_err().to_string(), "loss NaN");
        assert_eq!(seen, before);
        assert!(seen.take(7.2, 12.0).is_ok());
    }

    #[test]
    fn a_slow_rise() {
        let mut seen = Divergence::default();
        let mut far = None;
        // At 0.02 nats a step the loss is at most 1 above the smoothed loss.
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
