//! `midspan selftest`: checks whether this machine computes the exact networks exactly, and runs test campaigns against
//! the sessions.

mod author;
mod calls;
mod corrupt;
mod draw;
mod models;
mod networks;
mod sessions;
mod typical;
mod workers;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::files::codec_model;

/// Compare every implementation that this machine can run with the plain arm, integer by integer.
///
/// Run it before trusting a new machine or device. The exit status is 1 if any integer differs. With --corrupt or
/// --sessions it tests the encoder and decoder sessions instead, and the exit status is 1 if a bound is broken.
#[derive(Clone, Debug, Args)]
pub(crate) struct SelftestArgs {
    /// The device of the tensors: cpu, cuda, cuda:1, metal.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Codec model file or model folder. Default: the embedded model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Number of random networks for each implementation.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    networks: u32,
    /// Decode N random corruptions of random streams. No wrong frame may be confirmed, and under the 8-bit check at
    /// most 1 corruption in 200 may hand out a wrong frame before it is noticed. One corruption in 40 uses the model,
    /// the others a small synthetic one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    corrupt: Option<u64>,
    /// Run N random sessions over a link that loses, delays and damages targets, and compare each decoder with a plain
    /// model of the timeline.
    #[arg(long, value_name = "N", conflicts_with = "corrupt", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    sessions: Option<u64>,
    /// Threads of --corrupt and --sessions. Default: as many as the machine runs at a time. The outcome does not depend
    /// on it.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Seed of everything that is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user: the device is missing, the file is not a model or lacks the encoder's part, an integer
/// differs, or a bound is broken.
pub(crate) fn run(args: &SelftestArgs) -> Result<()> {
    let model = codec_model(args.model.as_deref())?;
    if !model.has_encoder() {
        bail!("the model has no encoder's part");
    }
    let threads = args.threads.or(thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    if let Some(corruptions) = args.corrupt {
        let bar = progress(corruptions, "corruptions")?;
        let outcome = corrupt::run(&model, args.seed, corruptions, threads, &|done| bar.inc(done))?;
        bar.finish_and_clear();
        corrupt::print(&outcome, args.seed, args.json)?;
        return outcome.broken().map_or(Ok(()), |broken| bail!("{broken}"));
    }
    if let Some(sessions) = args.sessions {
        let bar = progress(sessions, "sessions")?;
        let outcome = sessions::run(&model, args.seed, sessions, threads, &|done| bar.inc(done))?;
        bar.finish_and_clear();
        sessions::print(&outcome, args.seed, args.json)?;
        return outcome.broken().map_or(Ok(()), |broken| bail!("{broken}"));
    }
    networks::run(args, &model)
}

fn progress(cases: u64, what: &str) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template(&format!("{{wide_bar}} {{pos}}/{{len}} {what}, {{eta}} left"))?;
    Ok(ProgressBar::new(cases).with_style(style))
}
