//! Training on files that are not text, with caches, and with errors during a run.

#[cfg(unix)]
use crate::support::on_a_full_disk;
use crate::support::{Bench, midspan, text};

#[test]
fn training_on_what_is_no_text_is_refused() {
    let bench = Bench::new(midspan);
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
    let bench = Bench::new(midspan);
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

    // A cached file is read: one that was cut, or that belongs to other data, is refused.
    bench.folder.file(&file, &[7; 41]);
    base("e", &bench.train, &bench.tokenizer).refused(&["kept.u16.", "ends within a token"]);
    bench.folder.file(&file, &[0xFF; 400]);
    base("e", &bench.train, &bench.tokenizer).refused(&["kept.u16.", "not what this tokenizer wrote"]);
}

#[cfg(unix)]
#[test]
fn a_full_disk_costs_no_checkpoint() {
    let bench = Bench::new(midspan);
    let steps = |steps: &'static str| {
        let told = ["--from", &bench.host, "--h-widths", "32,16,8", "--g-y-widths", "8,16,32", "--steps", steps];
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
}

#[test]
fn a_run_that_diverges_or_meets_another_architecture_keeps_its_checkpoint() {
    let bench = Bench::new(midspan);
    bench.joint("joint", &["--steps", "6"]).succeeded();
    let checkpoint = format!("{}/last.safetensors", bench.folder.path("joint"));
    let saved = std::fs::read(&checkpoint).unwrap();
    bench.joint("joint", &["--steps", "9", "--entropy-model", "fourier"]).refused(&["another codec"]);
    bench.joint("joint", &["--steps", "9", "--g-y-widths", "8,24,32"]).refused(&["another codec"]);
    bench.joint("joint", &["--steps", "9", "--split", "2"]).refused(&["another host"]);
    bench.joint("joint", &["--steps", "9", "--lambda", "1e38", "--ramp", "1"]).refused(&["diverged at step 6"]);
    assert_eq!(std::fs::read(&checkpoint).unwrap(), saved);
    bench.joint("joint", &["--steps", "8"]).succeeded();
    // A file of weights alone can start a run but cannot resume one.
    let weights = bench.folder.path("weights.safetensors");
    midspan(&["train", "compact", "--from", &checkpoint, "--out", &weights]).succeeded();
    std::fs::copy(&weights, &checkpoint).unwrap();
    bench.joint("joint", &["--steps", "9"]).refused(&["lacks the optimiser's state"]);
    let foreign = ["--from", &checkpoint, "--steps", "3", "--g-y-widths", "8,24,32"];
    let new = bench.folder.path("new");
    let more = [&["train", "joint", "--out", &new], &bench.data()[..], &foreign].concat();
    midspan(&[&more[..], &["--h-widths", "32,16,8"]].concat()).refused(&["in this architecture"]);
    assert!(!std::path::Path::new(&new).exists());
    let garbage = bench.folder.file("garbage.safetensors", b"none");
    midspan(&["train", "compact", "--from", &garbage, "--out", &bench.folder.path("x")])
        .refused(&["garbage.safetensors", "no checkpoint"]);
}

#[test]
fn host_and_codec_are_trained_in_several_qualities_with_tokens() {
    let bench = Bench::new(midspan);
    let several = ["--side-ages", "2", "--side-width", "8", "--quality", "1,0.25", "--share", "2,1"];
    let line = [&["--steps", "8", "--rate-weight", "0.1"], &several[..]].concat();
    bench
        .joint("joint", &[&line[..], &["--quality-weight", "0.1"]].concat())
        .refused(&["--quality-weight: 1 values for 2"]);
    bench.joint("joint", &[&line[..], &["--quality-weight", "0.1,0"]].concat()).succeeded();
    bench.joint("joint", &["--steps", "9"]).refused(&["another codec"]);
    let (from, model) = (format!("{}/last.safetensors", bench.folder.path("joint")), bench.folder.path("model"));
    let texts = ["--tokenizer", &bench.tokenizer, "--calibrate", &bench.train, "--compare", &bench.valid];
    let frozen = midspan(&[&["freeze", "--from", &from, "--out", &model, "--json"], &texts[..]].concat());
    let qualities = frozen.succeeded().json()["qualities"].clone();
    let of = |index: usize, name: &str| qualities[index][name].as_f64().unwrap_or_else(|| panic!("{qualities}"));
    assert!(of(1, "frozen_bits") > of(0, "frozen_bits") && (of(1, "steps") - 0.25).abs() < 0.01, "{qualities}");
    for index in 0..2 {
        assert!(of(index, "w_agreement") > 0.98 && of(index, "scale_agreement") > 0.95, "{qualities}");
        // Runs that cost less as plain numbers are sent so, which exact densities do not know.
        let ratio = of(index, "frozen_bits") / of(index, "float_bits_with_escapes");
        assert!((0.93..1.01).contains(&ratio), "{qualities}");
    }
    let bytes = std::fs::read(format!("{model}/codec.safetensors")).unwrap();
    let codec = midspan::model::CodecModel::from_bytes(&bytes, 1 << 24).unwrap();
    assert_eq!(codec.side().map(|side| (side.ages(), side.vocabulary(), side.width())), Some((2, 300, 8)));
    assert_eq!((codec.rate_weight(0), codec.rate_weight(1)), (0.1, 0.0));
    // The text's tokens are in the streams that it measures.
    let eval = ["--frames", "64", "--batch", "16", "--quality", "all"];
    let all = midspan(&[&["eval", "--model", &model, "--text", &bench.valid], &eval[..]].concat()).succeeded().json();
    assert_eq!(all.as_array().unwrap().len(), 2);
}
