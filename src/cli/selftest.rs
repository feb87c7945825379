//! `midspan selftest`: whether this machine computes the exact networks exactly.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::device;
use super::files::{codec_model, print};
use crate::gpu::selftest::{Row, Suite};

/// Frames of batches.
const BATCHES: [usize; 6] = [1, 2, 7, 64, 513, 1_024];
/// Streams that step together.
const STREAMS: [usize; 3] = [1, 33, 512];

/// Compare every implementation that this machine can run with the plain arm, integer by integer.
///
/// Run it before trusting a new machine or device. Exit status 1 if one integer differs.
#[derive(Clone, Debug, Args)]
pub struct SelftestArgs {
    /// Where tensors lie: cpu, cuda, cuda:1, metal.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Codec model file, or a model folder, in place of the embedded model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Random networks for each implementation.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    networks: u32,
    /// Seed of all that is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user: a device that is not there, a model that is none or lacks the encoder's part, an integer that
/// differs.
pub fn run(args: &SelftestArgs) -> Result<()> {
    let device = device::open(&args.device)?;
    let model = codec_model(args.model.as_deref())?;
    if !model.has_encoder() {
        bail!("the model has no encoder's part");
    }
    let suite = Suite {
        device: &device,
        model: &model,
        networks: args.networks as usize,
        batches: &BATCHES,
        streams: &STREAMS,
        seed: args.seed,
    };
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} checks {msg}") {
        bar.set_style(style);
    }
    let rows = suite.run(&mut |row| {
        bar.inc(1);
        bar.set_message(row.implementation.to_string());
    });
    bar.finish_and_clear();
    let faults: Vec<&Row> = rows.iter().filter(|row| row.fault.is_some()).collect();
    if args.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({
                    "implementation": row.implementation.to_string(),
                    "check": row.check,
                    "cases": row.cases,
                    "compared": row.compared,
                    "fault": row.fault,
                })
            })
            .collect();
        let report = json!({ "device": args.device, "seed": args.seed, "exact": faults.is_empty(), "rows": rows });
        print(format_args!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        print(format_args!("{}", table(&args.device, &rows)))?;
    }
    match faults.first() {
        None => Ok(()),
        Some(row) => bail!(
            "{} of {} checks failed on this machine; do not use it. The first: {}, {}",
            faults.len(),
            rows.len(),
            row.implementation,
            row.check
        ),
    }
}

fn table(device: &str, rows: &[Row]) -> String {
    let mut text =
        format!("device {device}; reference: the plain arm\n\n{:<24}{:<36}{:>8}{:>14}\n", "", "", "cases", "equal");
    for row in rows {
        let Row { implementation, check, cases, compared, fault } = row;
        let verdict = if fault.is_none() { "exact" } else { "DIFFERS" };
        text.push_str(&format!("{implementation:<24}{check:<36}{cases:>8}{compared:>14}  {verdict}\n"));
        if let Some(fault) = fault {
            text.push_str(&format!("    {fault}\n"));
        }
    }
    text
}
