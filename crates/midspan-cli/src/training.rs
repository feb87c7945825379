//! How the program follows a training run: it shows a bar on a terminal or prints lines elsewhere, and ends the run on
//! a signal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use crate::terminal::note;
use midspan_train::runner::Metrics;
use midspan_train::watch::Watch;

/// Shows a run's progress. SIGINT and SIGTERM end the run after the current step, with a checkpoint. While a host still
/// writes the run's text, they end that, without one. A second signal ends the program at once.
pub struct Training {
    /// `None` if standard error is not a terminal; then every line is printed.
    bar: Option<ProgressBar>,
    stop: Arc<AtomicBool>,
}

impl Training {
    /// Watches for signals from now on. If no handler can be installed, signals have their default effect.
    pub fn watch() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        #[cfg(unix)]
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let _ = signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop));
            let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
        }
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, stop }
    }
}

impl Watch for Training {
    fn opened(&self, tokens: usize, parameters: usize, step: u64) {
        note(&format!("{tokens} tokens, {parameters} parameters, from step {step}"));
    }

    fn written(&self, tokens: usize, total: usize) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(total as u64);
                bar.set_position(tokens as u64);
                bar.set_message("tokens written");
            }
            None => note(&format!("{tokens} of {total} tokens written")),
        }
    }

    fn begin(&self, total: u64) {
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_message("");
            bar.set_length(total);
        }
    }

    fn figures(&self, kind: &str, step: u64, figures: &Metrics) {
        let figures: Vec<String> = figures.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        let line = format!("{kind} step {step} {}", figures.join(" "));
        match &self.bar {
            Some(bar) if kind == "train" => {
                bar.set_position(step);
                bar.set_message(line);
            }
            Some(bar) => bar.println(line),
            None => note(&line),
        }
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
