//! `bench`: its figures parse, repeat, and come with their goals.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{DEFAULT_MODEL, command, default_model, midspan, run};

const QUICK: [&str; 9] =
    ["bench", "--model", DEFAULT_MODEL, "--frames", "16", "--repeats", "1", "--growth-frame", "800"];

/// Figures by section and name.
fn figures(json: &Value) -> BTreeMap<String, Value> {
    let list = json["figures"].as_array().unwrap();
    let by_name: BTreeMap<String, Value> =
        list.iter().map(|figure| (format!("{} / {}", figure["section"], figure["name"]), figure.clone())).collect();
    assert_eq!(by_name.len(), list.len(), "two figures have one name");
    by_name
}

#[test]
fn figures_parse_and_all_but_the_times_repeat() {
    let arguments = [&QUICK[..], &["--json"]].concat();
    let (one, two) = (midspan(&arguments).succeeded().json(), midspan(&arguments).succeeded().json());
    assert_eq!(
        (&one["hidden_width"], &one["frames"], &one["window"]),
        (&default_model().hidden_width().into(), &16.into(), &256.into())
    );
    let (one, two) = (figures(&one), figures(&two));
    assert!(one.len() > 40, "{one:?}");
    assert!(one.keys().eq(two.keys()));
    let mut repeated = 0;
    for (name, figure) in &one {
        let value = figure["value"].as_f64().unwrap();
        assert!(value.is_finite(), "{name}");
        let unit = figure["unit"].as_str().unwrap();
        if unit.starts_with("ms") || unit == "Mbit/s" {
            assert!(value > 0.0, "{name}");
        } else if unit.starts_with("bits") {
            assert_eq!(figure["value"], two[name]["value"], "{name}");
            repeated += 1;
        }
        if let Some(goal) = figure["goal"].as_f64() {
            assert_eq!(figure["met"], value <= goal, "{name}");
        }
    }
    assert!(repeated > 10);
    // Sizes that follow from the format: a byte of length and the seal of a short frame; a message has no length.
    let value = |section: &str, name: &str| one[&format!("{section:?} / {name:?}")]["value"].as_f64().unwrap();
    let overhead = "Overhead over the tables' -log2 p";
    let stream = value(overhead, "one frame a chunk, byte stream");
    let messages = value(overhead, "one frame a chunk, messages");
    assert!((1.0..4.0).contains(&messages), "{messages}");
    // A frame of 128 bytes or more has a second byte of length.
    assert!((7.999..9.0).contains(&(stream - messages)), "{stream} {messages}");
    let growth = "Growth along the stream";
    let memory = |frame| value(growth, &format!("encoder: context and buffers, own account, frame {frame}"));
    // Constant, except for room in queues and output that was not yet taken.
    assert!((memory(800) - memory(512)).abs() <= memory(512) / 100.0, "{} {}", memory(512), memory(800));
}

#[test]
fn another_seed_gives_other_hidden_states() {
    let size = |seed: &str| {
        let json = midspan(&[&QUICK[..], &["--json", "--arm", "plain", "--seed", seed]].concat()).succeeded().json();
        assert_eq!(json["machine"], "plain arm, one core");
        let (_, figure) = figures(&json).into_iter().find(|(name, _)| name.contains("size, all chunks")).unwrap();
        figure["value"].as_f64().unwrap()
    };
    assert_ne!(size("1"), size("2"));
}

#[test]
fn the_table_has_goals_and_verdicts() {
    let run = midspan(&QUICK).succeeded();
    for part in [
        &format!("E {}", default_model().hidden_width()),
        "12.00  met",
        "break-even link",
        "Mbit/s",
        "zstd -19",
        "deflate -9",
    ] {
        assert!(run.stdout.contains(part), "{part:?} is missing: {}", run.stdout);
    }
}

#[test]
fn sessions_on_a_device_are_timed() {
    let device = ["--device", "cpu", "--tensors", "--streams", "2", "--frames", "2", "--repeats", "1", "--json"];
    let json = midspan(&[&["bench", "--model", DEFAULT_MODEL][..], &device].concat()).succeeded().json();
    assert_eq!(json["machine"], "device cpu, tensors, 1 threads beside it");
    let figures = figures(&json);
    for name in ["encode, 2 streams", "decode, 256 lanes", "overhead, 64 lanes", "zstd -3, 256 frames: size"] {
        let (_, figure) = figures.iter().find(|(key, _)| key.contains(name)).unwrap();
        assert!(figure["value"].as_f64().unwrap() > 0.0, "{figure}");
    }
    // On a device without kernels only overhead has goals.
    assert!(figures.iter().all(|(name, figure)| figure["goal"].is_null() || name.contains("overhead")));
}

#[test]
fn bad_settings_are_refused() {
    midspan(&["bench", "--device", "cpu:7"]).refused(&["--device cpu:7", "cuda:1"]);
    for arguments in [["--streams", "3"], ["--threads", "2"]] {
        let mut bench = command(&["bench"]);
        bench.args(arguments);
        let run = run(bench);
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains("--device"), "{run:?}");
    }
    midspan(&["bench", "--growth-frame", "300"]).refused(&["--growth-frame must be at least"]);
    for arguments in [["--frames", "0"], ["--repeats", "0"], ["--lanes", "1"], ["--arm", "neon"]] {
        let mut bench = command(&["bench"]);
        bench.args(arguments);
        let run = run(bench);
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains(arguments[0]), "{run:?}");
    }
}
