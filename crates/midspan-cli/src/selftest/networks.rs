//! Compares every implementation of the exact networks that this machine can run with the plain
//! arm.

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::SelftestArgs;
use crate::device;
use crate::files::print;
use midspan::model::CodecModel;
use midspan_device::selftest::{Row, Suite};

/// Frames in a batch.
const BATCHES: [usize; 6] = [1, 2, 7, 64, 513, 1_024];
/// How many streams step together.
const STREAMS: [usize; 3] = [1, 33, 512];

/// Compares all implementations.
///
/// # Errors
/// The device is missing, or an integer differs.
pub(super) fn run(args: &SelftestArgs, model: &CodecModel) -> Result<()> {
    let device = device::open(&args.device)?;
    let suite = Suite::new(&device, model).networks(args.networks as usize).batches(&BATCHES).streams(&STREAMS);
    let suite = suite.seed(args.seed);
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
