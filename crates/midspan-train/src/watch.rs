//! How a caller follows a run that takes long, and ends it.

use super::log::Metrics;

/// Hears of a run's progress. `()` hears nothing and never ends a run.
pub trait Watch {
    /// The run begins: it will have taken `total` steps at its end.
    fn begin(&self, total: u64) {
        let _ = total;
    }

    /// Figures were logged after `step` steps: `kind` is "train" for means since the last line, or "eval".
    fn figures(&self, kind: &str, step: u64, figures: &Metrics) {
        let _ = (kind, step, figures);
    }

    /// Whether the run is to end now, with a checkpoint from which it can go on. Asked before every step.
    fn stops(&self) -> bool {
        false
    }
}

impl Watch for () {}
