//! Shows text as it is generated and, on a terminal, a rate meter below it.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::outcome::Outcome;
use crate::files::{print, print_raw};
use crate::terminal::say;

/// Columns of a line above the meter.
const COLUMNS: usize = 96;

/// Writes text to standard output from a separate thread, so that a reader that pauses does not block the generation.
pub(super) struct Live {
    shared: Arc<Shared>,
    /// `None` if nothing is to be written.
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// What is to be written.
#[derive(Default)]
struct Waiting {
    text: String,
    /// The meter's line, if it has changed.
    rate: Option<String>,
    /// A line for standard error.
    warning: Option<String>,
    done: bool,
    /// Why writing has failed, if it has.
    failed: Option<anyhow::Error>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// If `quiet`, nothing is written.
    pub(super) fn new(quiet: bool) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = (!quiet).then(|| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || write(&shared))
        });
        Self { shared, thread }
    }

    /// Shows `new`, which follows what was shown before.
    ///
    /// # Errors
    /// Standard output was closed or cannot be written to.
    pub(super) fn text(&mut self, new: &str) -> Result<()> {
        if new.is_empty() || self.thread.is_none() {
            return Ok(());
        }
        let mut waiting = self.shared.lock();
        if let Some(error) = waiting.failed.take() {
            return Err(error);
        }
        waiting.text.push_str(new);
        drop(waiting);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Updates the meter.
    pub(super) fn rate(&mut self, so_far: &Outcome, seconds: f64) {
        let frames = (so_far.prompt_tokens + so_far.tokens).saturating_sub(1).max(1) as f64;
        let wire = format!("{:.1} bytes a token on the wire", so_far.bytes as f64 / frames);
        // The time is counted from the first token.
        let speed = match so_far.tokens {
            0 | 1 => String::new(),
            tokens => format!("{:.1} tokens/s, ", (tokens - 1) as f64 / seconds.max(1e-9)),
        };
        self.shared.lock().rate = Some(format!("{} tokens, {speed}{wire}", so_far.tokens));
        self.shared.changed.notify_one();
    }

    /// Says a line on standard error, even if nothing else is written.
    pub(super) fn warn(&mut self, line: String) {
        if self.thread.is_none() {
            return say(&line);
        }
        self.shared.lock().warning = Some(line);
        self.shared.changed.notify_one();
    }

    /// Writes the rest and removes the meter. Waits for the reader.
    ///
    /// # Errors
    /// As [`Live::text`].
    pub(super) fn finish(self) -> Result<()> {
        self.shared.lock().done = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread {
            // The thread does not panic.
            let _ = thread.join();
        }
        self.shared.lock().failed.take().map_or(Ok(()), Err)
    }
}

/// Writes the waiting text until no more will come.
fn write(shared: &Shared) {
    let mut page = Page::new();
    loop {
        let mut waiting = shared.lock();
        while waiting.text.is_empty() && waiting.rate.is_none() && waiting.warning.is_none() && !waiting.done {
            waiting = shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let (text, rate, done) = (std::mem::take(&mut waiting.text), waiting.rate.take(), waiting.done);
        let warning = waiting.warning.take();
        drop(waiting);
        let mut outcome = page.text(&text);
        if let Some(warning) = warning {
            page.warn(&warning);
        }
        if let (Some(rate), Some(meter)) = (rate, &page.meter) {
            meter.set_prefix(rate);
        }
        if done {
            outcome = outcome.and_then(|()| page.finish());
        }
        if let Err(error) = outcome {
            shared.lock().failed = Some(error);
            return;
        }
        if done {
            return;
        }
    }
}

/// The text so far, on standard output.
struct Page {
    /// Whether text has been written.
    written: bool,
    /// Whether it ends within a line.
    within_line: bool,
    /// The incomplete line, if there is a meter below it.
    line: String,
    /// The meter, if the terminal can show one.
    meter: Option<ProgressBar>,
    is_terminal: bool,
}

impl Page {
    fn new() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let meter = is_terminal.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            if let Ok(style) = ProgressStyle::with_template("{msg}\n{spinner} {prefix}") {
                bar.set_style(style);
            }
            bar
        });
        // A dumb terminal shows neither a meter nor text printed above it.
        let meter = meter.filter(|bar| !bar.is_hidden());
        if let Some(bar) = &meter {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { written: false, within_line: false, line: String::new(), meter, is_terminal }
    }

    fn text(&mut self, new: &str) -> Result<()> {
        if new.is_empty() {
            return Ok(());
        }
        self.written = true;
        self.within_line = !new.ends_with('\n');
        let Some(meter) = &self.meter else {
            return if self.is_terminal { print(format_args!("{new}")) } else { print_raw(new) };
        };
        for part in crate::terminal::shown(new).split_inclusive('\n') {
            self.line.push_str(part.trim_end_matches('\n'));
            let mut complete = part.ends_with('\n');
            while complete || self.line.chars().count() > COLUMNS {
                let cut = match self.line.char_indices().nth(COLUMNS) {
                    Some((limit, _)) => self.line[..limit].rfind(' ').map_or(limit, |space| space + 1),
                    None => {
                        complete = false;
                        self.line.len()
                    }
                };
                let rest = self.line.split_off(cut);
                meter.println(self.line.trim_end());
                self.line = rest;
            }
        }
        meter.set_message(self.line.clone());
        Ok(())
    }

    /// Says a line on standard error, above the meter if there is one.
    fn warn(&self, line: &str) {
        match &self.meter {
            Some(meter) => meter.suspend(|| say(line)),
            None => {
                if self.is_terminal && self.within_line && std::io::stderr().is_terminal() {
                    // A line of its own. Where nobody can read it, writing may fail.
                    let _ = std::io::stderr().write_all(b"\n");
                }
                say(line);
            }
        }
    }

    /// Writes the rest and removes the meter.
    fn finish(&mut self) -> Result<()> {
        match self.meter.take() {
            Some(meter) => {
                meter.finish_and_clear();
                print(format_args!("{}\n", self.line))
            }
            None if self.written => print(format_args!("\n")),
            None => Ok(()),
        }
    }
}
