//! Many training runs, their results, and training on what is no text.

use crate::learn::text;
use crate::support::{Folder, midspan};

/// A folder with texts, a tokenizer and a host.
struct Bench {
    folder: Folder,
    train: String,
    valid: String,
    tokenizer: String,
    host: String,
}

impl Bench {
    fn new() -> Self {
        let folder = Folder::new();
        let train = folder.file("train.txt", text(2_000).as_bytes());
        let valid = folder.file("valid.txt", text(300).as_bytes());
        let tokenizer = folder.path("tokenizer.json");
        midspan(&["train", "tokenizer", "--text", &train, "--out", &tokenizer, "--vocab", "300"]).succeeded();
        let host = format!("{}/last.safetensors", folder.path("base"));
        let bench = Self { folder, train, valid, tokenizer, host };
        let shape = ["--width", "32", "--layers", "3", "--split", "1", "--heads", "2", "--context", "32"];
        let out = bench.folder.path("base");
        midspan(&[&["train", "base", "--out", &out, "--steps", "5"], &bench.data()[..], &shape].concat()).succeeded();
        bench
    }

    fn data(&self) -> [&str; 12] {
        let [text, valid, tokenizer] = ["--text", "--valid", "--tokenizer"];
        let [rows, micro, warmup] = ["--rows", "--micro", "--warmup"];
        [text, &self.train, valid, &self.valid, tokenizer, &self.tokenizer, rows, "4", micro, "2", warmup, "2"]
    }

    fn joint(&self, out: &str, more: &[&str]) -> crate::support::Run {
        let out = self.folder.path(out);
        let codec = ["--from", &self.host, "--analysis", "32,16,8", "--synthesis", "8,16,32"];
        midspan(&[&["train", "joint", "--out", &out], &self.data()[..], &codec, more].concat())
    }
}

#[test]
fn a_sweep_makes_what_is_missing_and_reports_it() {
    let bench = Bench::new();
    let (results, work, out) = (bench.folder.path("results"), bench.folder.path("work"), bench.folder.path("out"));
    let passages = bench.folder.file("passages.jsonl", b"{\"text\": \"It the old house by a river\"}\n");
    let sweep_with = |passages: &str, more: &[&str]| {
        let codec = ["--from", &bench.host, "--analysis", "32,16,8", "--synthesis", "8,16,32", "--rate-weight", "0"];
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

    // A result that other options made is not taken for this run's.
    let other = sweep(&["--split", "1", "--lambda", "0.0001", "--float"]);
    other.refused(&["paper-proposed-split1-lambda0.0001-seed1.json", "other options made this result", "--recipe"]);

    sweep(&["--control"]).succeeded();
    let report = midspan(&["sweep", "report", "--results", &results, "--out", &out]).succeeded();
    assert!(report.stdout.contains("paper, factorised, split 1 against paper, proposed, split 1"), "{}", report.stdout);
    let csv = std::fs::read_to_string(format!("{out}/sweep.csv")).unwrap();
    assert_eq!(csv.lines().count(), 10);
    let svg = std::fs::read_to_string(format!("{out}/models-paper-split1.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("factorised"));

    sweep(&["--split", "3", "--lambda", "1"]).refused(&["split behind 3"]);
    let bad = bench.folder.file("bad.jsonl", b"{\"text\": \"one\"}\n");
    sweep_with(&bad, &["--split", "1", "--lambda", "7"]).refused(&["--passages", "bad.jsonl, line 1"]);
    midspan(&["sweep", "report", "--results", &bench.folder.path("none"), "--out", &out]).refused(&["none"]);
    bench.folder.file("results/paper-x.json", b"{}");
    midspan(&["sweep", "report", "--results", &results, "--out", &out]).refused(&["paper-x.json"]);
}

#[test]
fn training_on_what_is_no_text_is_refused() {
    let bench = Bench::new();
    let empty = bench.folder.file("empty.txt", b"");
    let binary = bench.folder.file("binary.txt", &[b'a', 0xFF, 0xFE, b'b']);
    let short = bench.folder.file("short.txt", b"It was.");
    let out = bench.folder.path("new");
    let on = |text: &str, valid: &str| {
        let shape = ["--width", "32", "--layers", "2", "--split", "1", "--heads", "2", "--context", "32"];
        let data = ["--text", text, "--valid", valid, "--tokenizer", &bench.tokenizer, "--steps", "3"];
        midspan(&[&["train", "base", "--out", &out], &data[..], &shape].concat())
    };
    on(&empty, &bench.valid).refused(&["empty.txt", "no text"]);
    on(&binary, &bench.valid).refused(&["binary.txt", "UTF-8"]);
    on(&short, &bench.valid).refused(&["tokens", "window"]);
    on(&bench.train, &empty).refused(&["empty.txt"]);
    on(&bench.train, &binary).refused(&["binary.txt", "UTF-8"]);
    assert!(!std::path::Path::new(&out).exists(), "nothing is left of a run that never began");
}

#[test]
fn a_run_that_diverges_or_meets_another_architecture_keeps_its_checkpoint() {
    let bench = Bench::new();
    bench.joint("joint", &["--steps", "6"]).succeeded();
    let checkpoint = format!("{}/last.safetensors", bench.folder.path("joint"));
    let saved = std::fs::read(&checkpoint).unwrap();
    bench.joint("joint", &["--steps", "9", "--entropy-model", "fourier"]).refused(&["another codec"]);
    bench.joint("joint", &["--steps", "9", "--synthesis", "8,24,32"]).refused(&["another codec"]);
    bench.joint("joint", &["--steps", "9", "--split", "2"]).refused(&["another host"]);
    bench.joint("joint", &["--steps", "9", "--lambda", "1e38", "--ramp", "1"]).refused(&["diverged at step 6"]);
    assert_eq!(std::fs::read(&checkpoint).unwrap(), saved);
    bench.joint("joint", &["--steps", "8"]).succeeded();
    let garbage = bench.folder.file("garbage.safetensors", b"none");
    midspan(&["train", "compact", "--from", &garbage, "--out", &bench.folder.path("x")])
        .refused(&["garbage.safetensors", "no checkpoint"]);
}
