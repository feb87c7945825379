//! Many training runs, their results and what the report makes of them.

use midspan_testkit::program::{self, Bench, Run, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_midspan-research");

fn midspan(arguments: &[&str]) -> Run {
    run(program::command(PROGRAM, arguments))
}

#[test]
fn a_sweep_makes_what_is_missing_and_reports_it() {
    let bench = Bench::new(midspan);
    let (results, work, out) = (bench.folder.path("results"), bench.folder.path("work"), bench.folder.path("out"));
    let passages = bench.folder.file("passages.jsonl", b"{\"text\": \"It the old house by a river\"}\n");
    let sweep_with = |passages: &str, more: &[&str]| {
        let codec = ["--from", &bench.host, "--h-widths", "32,16,8", "--g-y-widths", "8,16,32", "--rate-weight", "0"];
        let place = ["--results", &results, "--work", &work, "--passages", passages, "--steps", "12"];
        midspan(&[&["sweep", "run"], &bench.data()[..], &codec, &place, more].concat())
    };
    let sweep = |more: &[&str]| sweep_with(&passages, more);
    let grid = ["--entropy-model", "proposed,factorised", "--split", "1,2", "--lambda", "0.0001,0.02", "--gap"];
    sweep(&grid).succeeded();
    let files = || {
        let mut names: Vec<_> =
            std::fs::read_dir(&results).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(files().len(), 8, "{:?}", files());
    let one = format!("{results}/paper-factorised-split2-lambda0.02-seed1.json");
    let point: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&one).unwrap()).unwrap();
    assert_eq!((&point["host"]["split"], &point["steps"]), (&2.into(), &12.into()));
    assert_eq!(point["metrics"]["bits_w"], 0.0);
    assert!(point["gap"]["half_log_determinant"].is_number() && point["last_word"][0].is_number(), "{point}");
    let command = point["command"].as_str().unwrap();
    assert!(command.contains("--split 2 --lambda 0.02 --gap") && command.contains("--text train.txt"), "{command}");
    // Measured in f32, whatever training multiplied in: a host's own hidden states in 16 bits change nothing.
    assert!(point["bfloat16"].is_boolean() && point["without_codec"]["raw f16"]["divergence"].as_f64() < Some(1e-5));
    assert!(point["metrics"]["bits"].as_f64() < point["without_codec"]["int8 rows"]["bits"].as_f64(), "{point}");

    // Only what is missing is made again, and comes out the same.
    let before = std::fs::read_to_string(&one).unwrap();
    std::fs::remove_file(&one).unwrap();
    let again = sweep(&grid).succeeded();
    assert_eq!(again.stdout.matches(" of 8: ").count(), 1, "{}", again.stdout);
    let after: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&one).unwrap()).unwrap();
    assert_eq!((&after["metrics"], &after["gap"]), (&point["metrics"], &point["gap"]));
    assert!(before.contains("\"zstd -19\""));

    // A result that other options made is not taken for this run's, nor one that was measured less.
    for (options, what) in [
        (&["--float"][..], "float"),
        (&["--codec-rate", "2"], "optimizer"),
        (&["--decay", "3"], "schedule"),
        (&["--ramp", "9"], "ramp"),
        (&["--valid-bytes", "999"], "valid_bytes"),
        (&["--keep-state"], "keep_state"),
        (&["--codec-heads", "2"], "--recipe"),
    ] {
        let other = sweep(&[&["--split", "1", "--lambda", "0.0001"], options].concat());
        other.refused(&["paper-proposed-split1-lambda0.0001-seed1.json", what, "--recipe"]);
    }
    // Results of CPUs with bfloat16 and without stand together; where f32 is asked for, others are not taken.
    let alike = ["--entropy-model", "factorised", "--split", "2", "--lambda", "0.02"];
    let whole = std::fs::read_to_string(&one).unwrap();
    let in_f32 = [&alike[..], &["--f32"]].concat();
    let made_in_bfloat16 = |on: &str| {
        let mut point: serde_json::Value = serde_json::from_str(&whole).unwrap();
        point["options"]["bfloat16"] = on.into();
        std::fs::write(&one, point.to_string()).unwrap();
    };
    made_in_bfloat16("false");
    for line in [&alike[..], &in_f32] {
        assert_eq!(sweep(line).succeeded().stdout, "");
    }
    made_in_bfloat16("true");
    assert_eq!(sweep(&alike).succeeded().stdout, "");
    sweep(&in_f32).refused(&["split2-lambda0.02-seed1.json", "another bfloat16", "--recipe"]);
    std::fs::write(&one, whole).unwrap();
    let codec = ["--from", &bench.host, "--h-widths", "32,16,8", "--g-y-widths", "8,16,32", "--rate-weight", "0"];
    let place = ["--results", &results, "--work", &work, "--steps", "12", "--split", "1", "--lambda", "0.001"];
    let bare = |more: &[&str]| midspan(&[&["sweep", "run"], &bench.data()[..], &codec, &place, more].concat());
    bare(&[]).succeeded();
    bare(&["--gap"]).refused(&["lambda0.001-seed1.json", "measured without --gap"]);
    bare(&["--passages", &passages]).refused(&["lambda0.001-seed1.json", "measured without --passages"]);
    std::fs::remove_file(format!("{results}/paper-proposed-split1-lambda0.001-seed1.json")).unwrap();

    let others = bench.folder.file("others.jsonl", b"{\"text\": \"It the old river by a house\"}\n");
    let mixed = sweep_with(&others, &["--split", "1", "--lambda", "0.0001,0.003"]);
    let made = format!("{results}/paper-proposed-split1-lambda0.003-seed1.json");
    assert!(std::fs::exists(&made).unwrap(), "what is odd leaves the others: {mixed:?}");
    mixed.refused(&["lambda0.0001-seed1.json", "measured on other --passages"]);
    std::fs::remove_file(made).unwrap();

    // Nor does a run go on from what another one left.
    let left = format!("{work}/paper-proposed-split1-lambda0.5-seed1");
    let ended = format!("{left}/last.safetensors");
    let told = ["--split", "1", "--lambda", "0.5", "--steps", "6", "--rate-weight", "0"];
    bench.joint("other", &told).succeeded();
    std::fs::create_dir_all(&left).unwrap();
    std::fs::copy(bench.folder.path("other/last.safetensors"), &ended).unwrap();
    sweep(&["--split", "1", "--lambda", "0.5"]).refused(&["lambda0.5-seed1", "the run's checkpoint has another"]);

    sweep(&["--control"]).succeeded();
    let report = midspan(&["sweep", "report", "--results", &results, "--out", &out]).succeeded();
    assert!(report.stdout.contains("paper, factorised, split 1 against paper, proposed, split 1"), "{}", report.stdout);
    let csv = std::fs::read_to_string(format!("{out}/sweep.csv")).unwrap();
    assert_eq!(csv.lines().count(), 10);
    let svg = std::fs::read_to_string(format!("{out}/models-paper-split1.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("factorised"));

    sweep(&["--split", "3", "--lambda", "1"]).refused(&["cannot be split after 3"]);
    sweep(&["--split", "1", "--lambda=-1"]).refused(&["lambda must be 0 or more, not -1"]);
    sweep(&["--split", "1", "--lambda", "NaN"]).refused(&["lambda must be 0 or more, not NaN"]);
    let bad = bench.folder.file("bad.jsonl", b"{\"text\": \"one\"}\n");
    sweep_with(&bad, &["--split", "1", "--lambda", "7"]).refused(&["--passages", "bad.jsonl, line 1"]);
    midspan(&["sweep", "report", "--results", &bench.folder.path("none"), "--out", &out]).refused(&["none"]);
    bench.folder.file("results/paper-x.json", b"{}");
    midspan(&["sweep", "report", "--results", &results, "--out", &out]).refused(&["paper-x.json"]);
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_half_result() {
    let bench = Bench::new(midspan);
    let (results, work) = (bench.folder.path("results"), bench.folder.path("work"));
    let codec = ["--from", &bench.host, "--h-widths", "32,16,8", "--g-y-widths", "8,16,32", "--steps", "3"];
    let place = ["--results", &results, "--work", &work, "--split", "1", "--lambda", "0.001,0.01"];
    let line = [&["sweep", "run"], &bench.data()[..], &codec, &place].concat();
    program::on_a_full_disk(PROGRAM, 8, &line).refused(&["lambda0.001-seed1: ", "lambda0.01-seed1: ", "too large"]);
    assert_eq!(std::fs::read_dir(&results).unwrap().count(), 0);
    midspan(&line).succeeded();
    assert_eq!(std::fs::read_dir(&results).unwrap().count(), 2);
}
