//! Many training runs, their results, and training on what is no text.

use crate::learn::text;
#[cfg(unix)]
use crate::support::on_a_full_disk;
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
    let codec = ["--from", &bench.host, "--analysis", "32,16,8", "--synthesis", "8,16,32", "--rate-weight", "0"];
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

    sweep(&["--split", "3", "--lambda", "1"]).refused(&["split behind 3"]);
    sweep(&["--split", "1", "--lambda=-1"]).refused(&["lambda must be 0 or more, not -1"]);
    sweep(&["--split", "1", "--lambda", "NaN"]).refused(&["lambda must be 0 or more, not NaN"]);
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
    let learn =
        |text: &str| midspan(&["train", "tokenizer", "--text", text, "--out", &format!("{out}/tokenizer.json")]);
    learn(&empty).refused(&["empty.txt", "no text"]);
    learn(&binary).refused(&["binary.txt", "UTF-8"]);
    assert!(!std::path::Path::new(&out).exists(), "nothing is left of a run that never began");
}

#[test]
fn tokens_of_another_text_or_tokenizer_are_not_taken() {
    let bench = Bench::new();
    let cache = bench.folder.path("kept.u16");
    let other = bench.folder.file("other.txt", text(900).as_bytes());
    let base = |out: &str, text: &str, tokenizer: &str| {
        let shape = ["--width", "32", "--layers", "2", "--split", "1", "--heads", "2", "--context", "32"];
        let data = ["--text", text, "--valid", &bench.valid, "--tokenizer", tokenizer, "--steps", "1", "--rows", "2"];
        let out = bench.folder.path(out);
        midspan(&[&["train", "base", "--out", &out, "--cache", &cache], &data[..], &shape].concat())
    };
    let tokens = |run: &crate::support::Run| -> String {
        let line = run.stdout.lines().find(|line| line.contains(" tokens, ")).unwrap();
        line.split(' ').next().unwrap().into()
    };
    let kept = || -> Vec<String> {
        let mut names = bench.folder.names();
        names.retain(|name| name.starts_with("kept.u16."));
        names
    };
    let first = tokens(&base("a", &bench.train, &bench.tokenizer).succeeded());
    let file = kept().remove(0);
    assert_eq!(tokens(&base("b", &bench.train, &bench.tokenizer).succeeded()), first);
    assert_eq!(kept().len(), 1);
    assert_ne!(tokens(&base("c", &other, &bench.tokenizer).succeeded()), first);
    let larger = bench.folder.path("larger.json");
    midspan(&["train", "tokenizer", "--text", &bench.train, "--out", &larger, "--vocab", "302"]).succeeded();
    assert_ne!(tokens(&base("d", &bench.train, &larger).succeeded()), first);
    assert_eq!(kept().len(), 3);
    base("a", &bench.train, &larger).refused(&["the tokenizer has 302 entries, the host's vocabulary 300"]);

    // What is kept is read: a file that was cut or is another's is refused.
    bench.folder.file(&file, &[7; 41]);
    base("e", &bench.train, &bench.tokenizer).refused(&["kept.u16.", "ends within a token"]);
    bench.folder.file(&file, &[0xFF; 400]);
    base("e", &bench.train, &bench.tokenizer).refused(&["kept.u16.", "not what this tokenizer wrote"]);
}

#[cfg(unix)]
#[test]
fn a_full_disk_costs_no_checkpoint() {
    let bench = Bench::new();
    let steps = |steps: &'static str| {
        let told = ["--from", &bench.host, "--analysis", "32,16,8", "--synthesis", "8,16,32", "--steps", steps];
        let out = bench.folder.path("joint");
        let all = [&["train", "joint", "--out", &out], &bench.data()[..], &told].concat();
        all.into_iter().map(String::from).collect::<Vec<String>>()
    };
    let told = |line: &[String]| midspan(&line.iter().map(String::as_str).collect::<Vec<_>>());
    let full = |line: &[String], blocks| on_a_full_disk(blocks, &line.iter().map(String::as_str).collect::<Vec<_>>());
    let checkpoint = format!("{}/last.safetensors", bench.folder.path("joint"));
    let names = || {
        let entries = std::fs::read_dir(bench.folder.path("joint")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    told(&steps("4")).succeeded();
    let saved = std::fs::read(&checkpoint).unwrap();
    // Neither a checkpoint nor a log line fits.
    for (blocks, more, what) in [(8, &[][..], "last.safetensors"), (0, &["--log-every", "1"], "log.jsonl")] {
        let line = [&steps("6")[..], &more.iter().map(|word| word.to_string()).collect::<Vec<_>>()].concat();
        full(&line, blocks).refused(&[what, "too large"]);
        assert_eq!(
            (std::fs::read(&checkpoint).unwrap() == saved, names()),
            (true, vec!["last.safetensors".into(), "log.jsonl".into()])
        );
    }
    told(&steps("6")).succeeded();

    // Many runs: each says that it failed, and none leaves half a result.
    let (results, work) = (bench.folder.path("results"), bench.folder.path("work"));
    let codec = ["--from", &bench.host, "--analysis", "32,16,8", "--synthesis", "8,16,32", "--steps", "3"];
    let place = ["--results", &results, "--work", &work, "--split", "1", "--lambda", "0.001,0.01"];
    let line = [&["sweep", "run"], &bench.data()[..], &codec, &place].concat();
    on_a_full_disk(8, &line).refused(&["lambda0.001-seed1: ", "lambda0.01-seed1: ", "too large"]);
    assert_eq!(std::fs::read_dir(&results).unwrap().count(), 0);
    midspan(&line).succeeded();
    assert_eq!(std::fs::read_dir(&results).unwrap().count(), 2);
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
    // Weights alone are to start from, not to go on from.
    let weights = bench.folder.path("weights.safetensors");
    midspan(&["train", "compact", "--from", &checkpoint, "--out", &weights]).succeeded();
    std::fs::copy(&weights, &checkpoint).unwrap();
    bench.joint("joint", &["--steps", "9"]).refused(&["lacks the optimiser's state"]);
    let foreign = ["--from", &checkpoint, "--steps", "3", "--synthesis", "8,24,32"];
    let new = bench.folder.path("new");
    let more = [&["train", "joint", "--out", &new], &bench.data()[..], &foreign].concat();
    midspan(&[&more[..], &["--analysis", "32,16,8"]].concat()).refused(&["in this architecture"]);
    assert!(!std::path::Path::new(&new).exists());
    let garbage = bench.folder.file("garbage.safetensors", b"none");
    midspan(&["train", "compact", "--from", &garbage, "--out", &bench.folder.path("x")])
        .refused(&["garbage.safetensors", "no checkpoint"]);
}
