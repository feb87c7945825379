//! The outcome as a table and as JSON.

use anyhow::Result;
use serde_json::json;

use super::{Count, Damage, GROUP, ONE_IN, Outcome};
use crate::files;

/// The heads of the table's columns.
const HEAD: [&str; 8] =
    ["corruption", "check", "trials", "noticed", "wrong frames", "on average", "at most", "wrong confirmed"];

/// Prints the outcome.
///
/// # Errors
/// Standard output cannot be written to.
pub(crate) fn print(outcome: &Outcome, seed: u64, as_json: bool) -> Result<()> {
    if as_json {
        let report = json(outcome, seed);
        return files::print(format_args!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    files::print(format_args!("{}", table(outcome, seed)))
}

/// The rows: each kind under each check, then all kinds under each check.
fn rows(outcome: &Outcome) -> Vec<(&'static str, u8, Count)> {
    let kinds = Damage::ALL.into_iter().flat_map(|kind| [0, 8, 16].map(|check| (kind, check)));
    let own = kinds.filter_map(|(kind, check)| Some((kind.name(), check, *outcome.counts.get(&(kind, check))?)));
    own.chain([0, 8, 16].map(|check| ("all", check, outcome.total(Some(check))))).collect()
}

fn average(count: &Count) -> f64 {
    if count.wrong == 0 { 0.0 } else { count.wrong_frames as f64 / count.wrong as f64 }
}

fn table(outcome: &Outcome, seed: u64) -> String {
    let total = outcome.total(None);
    let mut text = format!(
        "{} corruptions of {} streams, {} of them of the large model; seed {seed}\n\n",
        total.trials, outcome.streams, outcome.large
    );
    let [kind, rest @ ..] = HEAD;
    text.push_str(&format!("{kind:<38}"));
    rest.iter().for_each(|name| text.push_str(&format!("{name:>17}")));
    text.push('\n');
    for (name, check, count) in rows(outcome) {
        let Count { trials, noticed, wrong, most_wrong, wrong_confirmed, .. } = count;
        let average = average(&count);
        text.push_str(&format!(
            "{name:<38}{check:>17}{trials:>17}{noticed:>17}{wrong:>17}{average:>17.1}{most_wrong:>17}{wrong_confirmed:>17}\n"
        ));
    }
    text.push_str(&format!(
        "\nended with other frames: {}; panics: {}; wrong frames under the 8-bit check: {}, at most 1 in {ONE_IN} allowed\n",
        total.other_end,
        total.panics,
        share(&outcome.total(Some(8)))
    ));
    for fault in &outcome.faults {
        text.push_str(&format!("FAULT {fault}\n"));
    }
    if outcome.more_faults > 0 {
        text.push_str(&format!("and {} more\n", outcome.more_faults));
    }
    text
}

fn share(count: &Count) -> String {
    match count.wrong {
        0 => format!("none of {}", count.trials),
        wrong => format!("1 in {}", count.trials / wrong),
    }
}

fn json(outcome: &Outcome, seed: u64) -> serde_json::Value {
    let row = |(name, check, count): (&str, u8, Count)| {
        json!({
            "corruption": name,
            "check_bits": check,
            "trials": count.trials,
            "noticed": count.noticed,
            "wrong": count.wrong,
            "wrong_frames": count.wrong_frames,
            "most_wrong_frames": count.most_wrong,
            "wrong_confirmed": count.wrong_confirmed,
            "other_end": count.other_end,
            "panics": count.panics,
        })
    };
    json!({
        "seed": seed,
        "group": GROUP,
        "corruptions": outcome.total(None).trials,
        "streams": outcome.streams,
        "large_model": outcome.large,
        "held": outcome.broken().is_none(),
        "rows": rows(outcome).into_iter().map(row).collect::<Vec<_>>(),
        "faults": outcome.faults,
        "more_faults": outcome.more_faults,
    })
}
