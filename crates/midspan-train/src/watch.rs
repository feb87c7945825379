//! How a caller follows a long run, and can end it.

use super::log::Metrics;

/// Receives reports of a run's progress. `()` ignores them and never ends a run.
pub trait Watch {
    /// The run is open: `tokens` to learn from, `parameters` to learn, `step` steps taken before.
    fn opened(&self, tokens: usize, parameters: usize, step: u64) {
        let _ = (tokens, parameters, step);
    }

    /// So many of `total` tokens of text were written that a run will learn from.
    fn written(&self, tokens: usize, total: usize) {
        let _ = (tokens, total);
    }

    /// The run begins. At its end it will have taken `total` steps.
    fn begin(&self, total: u64) {
        let _ = total;
    }

    /// Figures were logged after `step` steps. `kind` is "train" for means since the last line, or "eval" for an
    /// evaluation.
    fn figures(&self, kind: &str, step: u64, figures: &Metrics) {
        let _ = (kind, step, figures);
    }

    /// Whether the run should end now, with a checkpoint from which it can be resumed. Called before every step, and now
    /// and then while a text is written for it, of which nothing is kept.
    fn stops(&self) -> bool {
        false
    }
}

impl Watch for () {}
