//! `selftest`: a table or JSON of checks, and refusals; short campaigns against the sessions.

use std::collections::{BTreeMap, BTreeSet};

use midspan::exact::Arm;
use midspan::model::synthetic::{self, SyntheticShape};

use crate::support::{Folder, midspan};

#[test]
fn every_check_is_in_the_report() {
    let folder = Folder::new();
    let model = folder.file("tiny.safetensors", &synthetic::model(&SyntheticShape::tiny(), 1).to_bytes());
    let arguments = ["selftest", "--model", &model, "--networks", "5"];
    let json = midspan(&[&arguments[..], &["--json"]].concat()).succeeded().json();
    assert_eq!((&json["exact"], &json["device"]), (&true.into(), &"cpu".into()));
    let rows = json["rows"].as_array().unwrap();
    let mut checks: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in rows {
        assert!(row["fault"].is_null() && row["compared"].as_u64().unwrap() > 100, "{row}");
        checks.entry(row["check"].as_str().unwrap()).or_default().push(row["implementation"].as_str().unwrap());
    }
    // Every SIMD arm of this CPU, then tensors of both kinds, in each check.
    let arms = Arm::available().len() - 1;
    assert_eq!(checks.len(), 5, "{checks:?}");
    for (check, found) in &checks {
        assert_eq!(found.len(), arms + 2, "{check}: {found:?}");
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "{check}: {found:?}");
        assert_eq!(found[0] == "portable arm", arms > 0, "{check}: {found:?}");
        assert_eq!(found[arms..], ["tensors, f64", "tensors, f32 and i64"], "{check}: {found:?}");
    }
    let table = midspan(&arguments).succeeded().stdout;
    assert_eq!(table.lines().filter(|line| line.ends_with("  exact")).count(), rows.len(), "{table}");
}

#[test]
fn devices_that_are_not_there_are_refused() {
    let folder = Folder::new();
    let model = synthetic::model(&SyntheticShape::tiny(), 1);
    let decoder_only = folder.file("decoder.safetensors", &model.without_encoder().to_bytes());
    midspan(&["selftest", "--device", "tpu"]).refused(&["--device tpu", "cpu, cuda, cuda:1 or metal"]);
    midspan(&["selftest", "--device", "cuda:x"]).refused(&["--device cuda:x"]);
    midspan(&["selftest", "--device", "cuda:99"]).refused(&["--device cuda:99"]);
    midspan(&["selftest", "--device", "metal"]).refused(&["--device metal"]);
    midspan(&["selftest", "--model", &decoder_only]).refused(&["no encoder's part"]);
}

/// A short campaign with both models and every kind of corruption under every check; all bounds hold.
#[test]
fn no_corruption_gets_a_wrong_frame_confirmed() {
    let arguments = ["selftest", "--corrupt", "4100", "--seed", "1", "--threads", "2"];
    let json = midspan(&[&arguments[..], &["--json"]].concat()).succeeded().json();
    assert_eq!((&json["held"], &json["corruptions"], &json["seed"]), (&true.into(), &4_100.into(), &1.into()));
    assert!(json["large_model"].as_u64().unwrap() >= 100 && json["faults"].as_array().unwrap().is_empty(), "{json}");
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 13 * 3 + 3);
    for row in rows {
        assert!(row["trials"].as_u64().unwrap() >= 20, "{row}");
        for bound in ["wrong_confirmed", "other_end", "panics"] {
            assert_eq!(row[bound], 0, "{row}");
        }
    }
    // Without checks wrong frames are handed out before a digest shows them, so the campaign has something to find.
    let all = |check: u64| rows.iter().find(|row| row["corruption"] == "all" && row["check_bits"] == check).unwrap();
    let share = |row: &serde_json::Value| row["wrong"].as_f64().unwrap() / row["trials"].as_f64().unwrap();
    assert!(share(all(0)) > 0.1 && share(all(8)) < 0.01, "{} {}", all(0), all(8));
    let table = midspan(&arguments).succeeded().stdout;
    assert_eq!(table.lines().filter(|line| line.ends_with("  0")).count(), rows.len(), "{table}");
}

#[test]
fn decoders_agree_with_a_plain_model_of_the_timeline() {
    let arguments = ["selftest", "--sessions", "300", "--seed", "1", "--threads", "2"];
    let json = midspan(&[&arguments[..], &["--json"]].concat()).succeeded().json();
    assert_eq!((&json["failed"], &json["seed"]), (&0.into(), &1.into()));
    for (name, count) in json["counts"].as_object().unwrap() {
        assert!(count.as_u64().unwrap() > 0, "nothing of this happens: {name}");
    }
    let table = midspan(&arguments).succeeded().stdout;
    let last = table.lines().last().unwrap();
    assert!(last.starts_with("sessions that differ") && last.ends_with(" 0"), "{table}");
}
