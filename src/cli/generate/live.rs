//! Text as it comes, and a rate meter below it where a person watches.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::outcome::Outcome;
use crate::cli::files::print;

/// Writes text to standard output; on a terminal a meter follows on the last line.
pub struct Live {
    /// Whether text has been written.
    written: bool,
    /// The line that is not complete yet, on a terminal.
    line: String,
    meter: Option<ProgressBar>,
    quiet: bool,
}

impl Live {
    /// `quiet` writes nothing.
    pub fn new(quiet: bool) -> Self {
        let meter = (!quiet && std::io::stdout().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            if let Ok(style) = ProgressStyle::with_template("{msg}\n{spinner} {prefix}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { written: false, line: String::new(), meter, quiet }
    }

    /// Shows `new`, which follows what was shown before.
    ///
    /// # Errors
    /// Standard output that was closed, or cannot be written to.
    pub fn text(&mut self, new: &str) -> Result<()> {
        if new.is_empty() || self.quiet {
            return Ok(());
        }
        self.written = true;
        let Some(meter) = &self.meter else {
            return print(format_args!("{new}"));
        };
        for part in new.split_inclusive('\n') {
            self.line.push_str(part.trim_end_matches('\n'));
            while part.ends_with('\n') || self.line.chars().count() > 96 {
                let cut = match self.line.char_indices().nth(96) {
                    Some((limit, _)) => self.line[..limit].rfind(' ').map_or(limit, |space| space + 1),
                    None => self.line.len(),
                };
                let rest = self.line.split_off(cut);
                meter.println(self.line.trim_end());
                self.line = rest;
                if self.line.chars().count() <= 96 {
                    break;
                }
            }
        }
        meter.set_message(self.line.clone());
        Ok(())
    }

    /// Updates the meter.
    pub fn rate(&mut self, so_far: &Outcome, seconds: f64) {
        if let Some(meter) = &self.meter {
            let frames = (so_far.prompt_tokens + so_far.tokens).saturating_sub(1).max(1) as f64;
            meter.set_prefix(format!(
                "{} tokens, {:.1} tokens/s, {:.1} bytes a token on the wire",
                so_far.tokens,
                so_far.tokens as f64 / seconds.max(1e-9),
                so_far.bytes as f64 / frames,
            ));
        }
    }

    /// Writes what is left and takes the meter away.
    pub fn finish(&mut self) {
        // Where standard output is closed there is no one to tell.
        if let Some(meter) = self.meter.take() {
            meter.finish_and_clear();
            let _ = print(format_args!("{}\n", self.line));
        } else if self.written {
            let _ = print(format_args!("\n"));
        }
    }
}
