//! A codec for a host that does not change.

use midspan::model::synthetic::Random;

use crate::calibrate::capture;
use crate::support::{Folder, command, finish, midspan};

const VOCAB: usize = 300;

/// A llama2.c model with fresh weights: width 16, two blocks, a context of 24.
pub(crate) fn llama() -> Vec<u8> {
    let (e, f, n, head, context) = (16, 24, 2, 4, 24);
    let fields = [e, f, n, 4, 2, VOCAB, context].map(|v| i32::try_from(v).unwrap());
    let mut bytes: Vec<u8> = fields.iter().flat_map(|v| v.to_le_bytes()).collect();
    let keys = 2 * head;
    let gains = [n * e, n * e, e];
    let sizes = [VOCAB * e, gains[0], n * e * e, n * keys * e, n * keys * e, n * e * e, gains[1]];
    let sizes = sizes.into_iter().chain([n * f * e, n * f * e, n * f * e, gains[2], context * head]);
    let mut random = Random::new(7);
    for (i, count) in sizes.enumerate() {
        for _ in 0..count {
            let noise = (random.next() >> 40) as f32 / (1 << 23) as f32 - 1.0;
            let value = if [1, 6, 10].contains(&i) { 1.0 } else { 0.4 * noise };
            bytes.extend(value.to_le_bytes());
        }
    }
    bytes
}

/// Its tokenizer: bytes, letters, and nothing to merge.
pub(crate) fn tokenizer() -> Vec<u8> {
    let mut bytes = 6_i32.to_le_bytes().to_vec();
    for token in 0..VOCAB {
        let piece = match token {
            0..=2 => format!("<{token}>"),
            3..=258 => format!("<0x{:02X}>", token - 3),
            _ => char::from(u8::try_from(token - 259 + 0x40).unwrap()).to_string(),
        };
        bytes.extend(0_f32.to_le_bytes());
        bytes.extend(i32::try_from(piece.len()).unwrap().to_le_bytes());
        bytes.extend(piece.as_bytes());
    }
    bytes
}

/// A short fit from a capture, in the folder.
fn short_fit(folder: &Folder, more: &[&str]) -> Vec<String> {
    let states = folder.file("states.safetensors", &capture(400));
    let (results, work) = (folder.path("results"), folder.path("work"));
    let pace = ["--steps", "3", "--rows", "4", "--micro", "2", "--warmup", "1", "--ramp", "1", "--threads", "1"];
    let codec = ["--h-widths", "24,8,4", "--g-y-widths", "4,32,32", "--log-every", "1"];
    let place = ["--results", &results, "--work", &work, "--states", &states];
    [&["fit"], &pace[..], &codec, &place, more].concat().into_iter().map(String::from).collect()
}

/// As with `midspan fit … | head -1`: what was learned is not lost with its reader.
#[test]
fn a_fit_goes_on_when_nobody_reads_what_it_says() {
    let folder = Folder::new();
    let line = short_fit(&folder, &["--lambda", "0.01,0.02"]);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = command(&line).stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap();
    finish(child).succeeded();
    for lambda in ["0.01", "0.02"] {
        assert!(std::path::Path::new(&folder.path(&format!("results/fit-states-lambda{lambda}-seed1.json"))).exists());
    }
}

/// Two runs at once would write over each other's checkpoint and log.
#[cfg(unix)]
#[test]
fn a_second_run_in_the_same_folder_is_refused() {
    let folder = Folder::new();
    let line = short_fit(&folder, &["--lambda", "0.01"]);
    let short: Vec<&str> = line.iter().map(String::as_str).collect();
    let long: Vec<&str> = short.iter().map(|word| if *word == "3" { "1000000" } else { word }).collect();
    let log = folder.path("work/fit-states-lambda0.01-seed1/log.jsonl");
    let null = std::process::Stdio::null;
    let mut first = Killed(command(&long).stdout(null()).stderr(null()).spawn().unwrap());
    while std::fs::read_to_string(&log).map_or(true, |log| log.is_empty()) {
        assert!(first.0.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    midspan(&short).refused(&["work/fit-states-lambda0.01-seed1: another run is at work here"]);
    drop(first);
    // Nothing is locked any more.
    midspan(&short).succeeded();
}

/// A program that ends with its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn windows_that_memory_does_not_hold_are_refused() {
    let folder = Folder::new();
    for many in [["--rows", "1000000"], ["--micro", "1000000"]] {
        let line = short_fit(&folder, &["--lambda", "0.01"]);
        let places = line.iter().position(|word| word == many[0]).unwrap();
        let line = line.iter().enumerate().map(|(at, word)| if at == places + 1 { many[1] } else { word.as_str() });
        let run = midspan(&line.collect::<Vec<_>>());
        assert!(run.code == Some(2) && run.stderr.contains("not a number from 1 to "), "{run:?}");
    }
    assert!(!std::path::Path::new(&folder.path("work")).exists());
}

#[test]
fn codecs_are_fitted_to_a_host_of_others() {
    let folder = Folder::new();
    let (model, tokens) = (folder.file("model.bin", &llama()), folder.file("tokens.bin", &tokenizer()));
    let text = folder.file("text.txt", "Lily saw a cat by the old house. ".repeat(8).as_bytes());
    let (results, work, plot) = (folder.path("results"), folder.path("work"), folder.path("fit.svg"));
    let fit = |model: &str, tokens: &str, text: &str, more: &[&str]| {
        let host = ["--llama", model, "--tokenizer", tokens, "--valid", text];
        let samples: &[&str] = if more.contains(&"--samples") { &[] } else { &["--samples", "2000"] };
        let pace = ["--steps", "8", "--rows", "4", "--micro", "2", "--warmup", "2", "--ramp", "1"];
        let start: &[&str] = if more.contains(&"--start") { &[] } else { &["--start", "new"] };
        let codec = [&["--h-widths", "16,8,4", "--g-y-widths", "4,8,16"], start].concat();
        let place = ["--results", &results, "--work", &work, "--plot", &plot];
        midspan(&[&["fit"], &host[..], samples, &pace, &codec, &place, more].concat())
    };
    let grid = ["--split", "1", "--lambda", "0.0001,0.05", "--maps", "--recipe", "maps"];
    let found = fit(&model, &tokens, &text, &grid).succeeded();
    assert!(found.stdout.contains("maps, split 1 of 2, lambda 0.05, on 2"), "{}", found.stdout);
    let read = |recipe: &str, lambda: &str| -> serde_json::Value {
        let path = format!("{results}/{recipe}-split1-lambda{lambda}-seed1.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let (low, high) = (read("maps", "0.05"), read("maps", "0.0001"));
    let bits = |point: &serde_json::Value| point["frozen"]["batches"][1]["bits"].as_f64().unwrap();
    assert!(bits(&low) < bits(&high), "{} {}", bits(&low), bits(&high));
    assert!(low["command"].as_str().unwrap().contains("--llama model.bin"), "{low}");
    let drawn = std::fs::read_to_string(&plot).unwrap();
    assert!(["split 1, maps", "zstd -19", "int4 rows", "chunks of 24 frames"].iter().all(|t| drawn.contains(t)));

    // The frozen codec does what was learned. One frame at a time costs more than the same frames in one chunk, and
    // both measurements cover the whole text.
    let figure =
        |figures: &serde_json::Value, name: &str| figures[name].as_f64().unwrap_or_else(|| panic!("{name}: {figures}"));
    for point in [&low, &high] {
        let (frozen, estimates) = (&point["frozen"], &point["estimates"]);
        assert!((0.7..1.5).contains(&(bits(point) / figure(estimates, "bits"))), "{point}");
        let alike = figure(frozen, "divergence") / figure(estimates, "divergence");
        assert!((alike - 1.0).abs() < 0.3, "{point}");
        assert_eq!(frozen["batches"][0]["batch"], 1);
        assert!(figure(&frozen["batches"][0], "bits") > bits(point));
        assert!(figure(&frozen["without_codec"]["int8 rows"], "divergence") < figure(frozen, "divergence"));
        assert_eq!(frozen["sequence_frames"], 24);
        assert!(figure(frozen, "zstd_bits") > 0.0 && figure(frozen, "frames") > 200.0);
    }

    // Its model is in the result's folder, and says which host it belongs to.
    let name = "maps-split1-lambda0.05-seed1.safetensors";
    let bytes = std::fs::read(format!("{results}/{name}")).unwrap();
    let codec = midspan::model::CodecModel::from_bytes(&bytes, 1 << 24).unwrap();
    assert_eq!((codec.hidden_width(), codec.hyper_prior_width()), (16, 4));
    let hex: String = codec.fingerprint().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(low["fingerprint"], hex);
    assert_ne!(codec.to_bytes(), bytes);
    let head = String::from_utf8_lossy(&bytes[..1000]).into_owned();
    assert!(
        head.contains(low["host_sha256"].as_str().unwrap()) && head.contains("split behind 1 of 2 blocks"),
        "{head}"
    );

    // Existing results are not made again, and not taken for results of other options.
    assert!(!fit(&model, &tokens, &text, &grid).succeeded().stdout.contains("writes"));
    let other = |more: &[&str]| fit(&model, &tokens, &text, &[&["--split", "1", "--recipe", "maps"], more].concat());
    for (options, what) in [
        (&[][..], "codec"),
        (&["--maps", "--rate-weight", "0"], "rate_weight"),
        (&["--maps", "--valid-bytes", "99"], "held_out"),
        (&["--maps", "--samples", "1999"], "samples"),
        (&["--maps", "--freeze-quantiser"], "optimizer"),
        (&["--maps", "--decay", "3"], "schedule"),
    ] {
        let line = format!("the result has another {what}");
        other(&[&["--lambda", "0.05"], options].concat()).refused(&["maps-split1-lambda0.05-seed1", &line, "--recipe"]);
    }
    // Results of CPUs with and without bfloat16 may be mixed; if f32 is asked for, results with bfloat16 are not
    // accepted.
    let (file, again) = (format!("{results}/maps-split1-lambda0.05-seed1.json"), ["--lambda", "0.05", "--maps"]);
    let in_f32 = [&again[..], &["--f32"]].concat();
    let made_in_bfloat16 = |on: &str| {
        let mut point = low.clone();
        point["options"]["bfloat16"] = on.into();
        std::fs::write(&file, point.to_string()).unwrap();
    };
    made_in_bfloat16("false");
    for line in [&again[..], &in_f32] {
        other(line).succeeded();
    }
    made_in_bfloat16("true");
    other(&again).succeeded();
    other(&in_f32).refused(&["maps-split1-lambda0.05-seed1", "another bfloat16", "--recipe"]);
    // Its model can be measured again, with the same result.
    let again = [&again[..], &["--measure-again"]].concat();
    let mut stale = low.clone();
    stale["frozen"]["zstd_bits"] = 1.0.into();
    std::fs::write(&file, stale.to_string()).unwrap();
    other(&again[..3]).succeeded();
    assert_eq!(read("maps", "0.05")["frozen"]["zstd_bits"], 1.0);
    other(&again).succeeded();
    let timeless = |mut point: serde_json::Value| {
        for batch in point["frozen"]["batches"].as_array_mut().unwrap() {
            batch.as_object_mut().unwrap().retain(|name, _| !name.ends_with("_ms"));
        }
        point
    };
    assert_eq!(timeless(read("maps", "0.05")), timeless(low.clone()));
    let (path, alike) = (format!("{results}/{name}"), ["--lambda", "0.05", "--maps"]);
    std::fs::copy(format!("{results}/maps-split1-lambda0.0001-seed1.safetensors"), &path).unwrap();
    other(&alike).refused(&["not the model of the result beside it", name]);
    std::fs::write(&path, &bytes[..700]).unwrap();
    other(&alike).refused(&[name]);
    std::fs::remove_file(&path).unwrap();
    assert!(other(&alike).succeeded().stdout.contains(&format!("{name}: gone")));
    other(&again).refused(&[name, "cannot be measured"]);

    // A run that fails does not affect the others or the plot.
    std::fs::remove_file(&plot).unwrap();
    let foreign = folder.file("results/plain-split1-lambda0.3-seed1.json", b"{}");
    let plain = ["--split", "1", "--lambda", "1e40,0.3,0.0001", "--recipe", "plain"];
    fit(&model, &tokens, &text, &plain).refused(&["plain-split1-lambda1", "diverged"]);
    assert!(bits(&read("plain", "0.0001")) > 0.0);
    fit(&model, &tokens, &text, &plain).refused(&["lambda0.3-seed1.json", "no result of this command"]);
    std::fs::remove_file(&foreign).unwrap();
    let gone = ["--split", "1", "--lambda", "1e40,0.0001", "--recipe", "plain"];
    fit(&model, &tokens, &text, &gone).refused(&["diverged"]);
    assert!(std::fs::exists(&plot).unwrap());

    // What the host wrote is kept.
    let cache = folder.path("written.u16");
    let kept = |lambda: &str| {
        fit(&model, &tokens, &text, &["--split", "1", "--lambda", lambda, "--cache", &cache, "--recipe", "kept"])
    };
    assert!(kept("0.0001").succeeded().stdout.contains("writes"));
    assert!(!kept("0.001").succeeded().stdout.contains("writes"));
    assert_eq!(read("kept", "0.0001")["estimates"], read("plain", "0.0001")["estimates"]);
    // Another seed gives another text.
    let other = ["--split", "1", "--lambda", "0.0001", "--cache", &cache, "--recipe", "other", "--seed", "2"];
    assert!(fit(&model, &tokens, &text, &other).succeeded().stdout.contains("writes"));
    for entry in std::fs::read_dir(folder.path("")).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_name().to_string_lossy().starts_with("written.u16.") {
            std::fs::write(entry.path(), [0xFF, 0xFF]).unwrap();
        }
    }
    kept("0.01").refused(&["written.u16", "not what this host wrote"]);

    // A fit begins with a calibration unless it is told otherwise, and keeps the better of both.
    let begun = ["--split", "1", "--lambda", "0.00001", "--start", "calibration", "--recipe", "begun"];
    let said = fit(&model, &tokens, &text, &begun).succeeded().stdout;
    let point = read("begun", "0.00001");
    let (calibrated, learned) = (&point["compared"]["calibrated"], &point["compared"]["learned"]);
    let is_learned = figure(learned, "loss") < figure(calibrated, "loss");
    assert!(said.contains(if is_learned {
        "what was learned is kept: loss "
    } else {
        "the calibration is kept: loss "
    }));
    let codec = std::fs::read(format!("{results}/begun-split1-lambda0.00001-seed1.safetensors")).unwrap();
    let codec = midspan::model::CodecModel::from_bytes(&codec, 1 << 24).unwrap();
    assert_eq!(codec.hyper_prior_width(), if is_learned { 4 } else { 1 });
    assert_eq!(codec.side().map(|side| (side.ages(), side.vocabulary())), Some((3, 300)));
    let kept = if is_learned { learned } else { calibrated };
    assert!((figure(&point["frozen"], "divergence") / figure(kept, "divergence") - 1.0).abs() < 0.3, "{point}");
    fit(&model, &tokens, &text, &[&begun[..5], &["new", "--recipe", "begun"]].concat()).refused(&["another codec"]);

    let more = ["--split", "1", "--lambda", "7"];
    let early = |options: &[&str], line: &str| {
        let ended = fit(&model, &tokens, &text, &[&["--split", "1", "--recipe", "early"], options].concat());
        assert!(!ended.stdout.contains("writes"), "{}", ended.stdout);
        ended.refused(&[line]);
    };
    early(&["--start", "calibration", "--optimizer", "muon", "--lambda", "1"], "--start new takes muon");
    early(&["--start", "calibration", "--muon-lr", "0.01", "--lambda", "1"], "--muon-lr: a fit that begins");
    early(
        &["--start", "new", "--optimizer", "adamw", "--muon-lr", "0.01", "--lambda", "1"],
        "--muon-lr: --optimizer adamw",
    );
    early(&["--start", "new", "--map", "sparse", "--lambda", "1"], "--map: a fit that begins with new weights");
    early(&["--lambda", "NaN"], "lambda must be 0 or more, not NaN");
    early(&["--lambda", "1", "--rate-weight=-1"], "rate weight");
    early(&["--lambda", "1", "--float"], "--float");
    fit(&model, &tokens, &text, &["--split", "2", "--lambda", "7"]).refused(&["model.bin", "cannot be split after 2"]);
    fit(&folder.path("none"), &tokens, &text, &more).refused(&["none"]);
    let cut = folder.file("cut.bin", &llama()[..900]);
    fit(&cut, &tokens, &text, &more).refused(&["cut.bin", "ends within"]);
    fit(&model, &cut, &text, &more).refused(&["cut.bin"]);
    let empty = folder.file("empty.txt", b"");
    fit(&model, &tokens, &empty, &more).refused(&["empty.txt", "too little text"]);
    let little = folder.file("little.txt", b"Lily saw a cat");
    fit(&model, &tokens, &little, &more).refused(&["little.txt", " tokens: at least 20 are needed"]);
    let long = folder.file("long.bin", &[&llama()[..], &[0; 4]].concat());
    let found = llama().len() + 4;
    fit(&long, &tokens, &text, &more).refused(&[&format!("long.bin: the file has {found} bytes, {} by", found - 4)]);
}
