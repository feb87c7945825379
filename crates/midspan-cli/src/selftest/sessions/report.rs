//! The outcome as a table and as JSON.

use anyhow::Result;
use serde_json::json;

use super::Outcome;
use crate::files;

/// Prints the outcome.
///
/// # Errors
/// Standard output cannot be written to.
pub(crate) fn print(outcome: &Outcome, seed: u64, as_json: bool) -> Result<()> {
    if as_json {
        let counts: serde_json::Map<_, _> =
            outcome.tally.fields().into_iter().map(|(name, count)| (name.replace(' ', "_"), count.into())).collect();
        let report = json!({
            "seed": seed,
            "failed": outcome.failed,
            "counts": counts,
            "differences": outcome
                .differences
                .iter()
                .map(|(seed, what)| json!({ "seed": seed, "difference": what }))
                .collect::<Vec<_>>(),
        });
        return files::print(format_args!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    let mut text = format!("seeds from {seed} on, each decoder beside a plain model of the timeline\n\n");
    for (name, count) in outcome.tally.fields() {
        text.push_str(&format!("{name:<46}{count:>12}\n"));
    }
    text.push_str(&format!("{:<46}{:>12}\n", "sessions that differ", outcome.failed));
    for (seed, difference) in &outcome.differences {
        text.push_str(&format!("DIFFERS --seed {seed} --sessions 1: {difference}\n"));
    }
    files::print(format_args!("{text}"))
}
