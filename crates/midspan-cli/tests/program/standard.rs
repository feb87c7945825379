//! Standard input and output, accepted inputs, context resets, and interrupted writes.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use midspan::codec::{Codec, Encoder, EncoderConfig};
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::stream::{Chunk, Poll, Reader, ReaderConfig};
use midspan::wire::{Identity, Mode};
use safetensors::tensor::{Dtype, TensorView};

use crate::support::{
    Bytes, Folder, command, decoded_file, default_model, hidden_states, midspan, quantised, send_tokens, states_file,
    states_file_of, tokens,
};

const SAME: [&str; 2] = ["--identity", "0123456789abcdef"];

/// Runs the program with bytes on standard input; its standard output as bytes.
fn filter(arguments: &[&str], input: &[u8]) -> Bytes {
    Bytes::from_run(command(arguments), input.to_vec())
}

#[test]
fn streams_go_through_pipes() {
    let folder = Folder::new();
    let states = states_file(&hidden_states(70));
    let file = folder.file("states.safetensors", &states);
    let (stream, rows) = (folder.path("stream.midspan"), folder.path("rows.safetensors"));
    midspan(&[&["encode", &file, "-o", &stream], &SAME[..]].concat()).succeeded();
    midspan(&["decode", &stream, "-o", &rows]).succeeded();

    // Standard input is read once, so the tokens come from a file.
    let encoded = filter(&[&["encode", "-", "-o", "-"], &["--side", &file][..], &SAME].concat(), &states);
    assert_eq!(encoded.code, Some(0), "{encoded:?}");
    assert_eq!(encoded.stdout, std::fs::read(&stream).unwrap());
    assert!(encoded.stderr.starts_with("70 frames, "), "{encoded:?}");
    let decoded = filter(&["decode", "-", "-o", "-"], &encoded.stdout);
    assert_eq!((decoded.code, decoded.stderr.as_str()), (Some(0), "70 frames\n"));
    assert_eq!(decoded.stdout, std::fs::read(&rows).unwrap());
    // Standard output under another name.
    if cfg!(target_os = "linux") {
        let named = filter(&["decode", "-", "-o", "/dev/stdout"], &encoded.stdout);
        assert_eq!((named.stdout, named.stderr), (decoded.stdout, decoded.stderr));
    }
    for arguments in [["verify", "-"], ["inspect", "-"]] {
        let run = filter(&arguments, &encoded.stdout);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
        assert!(String::from_utf8(run.stdout).unwrap().contains("70 frames"));
    }
    let cut = filter(&["verify", "-"], &encoded.stdout[..99]);
    assert!(cut.stderr.starts_with("midspan: standard input: "), "{cut:?}");
    assert_eq!(folder.names(), ["rows.safetensors", "states.safetensors", "stream.midspan"]);
}

#[test]
fn eval_reads_standard_input() {
    let text = "It was a cold evening in November, and the old house was quiet.\n".repeat(8);
    let run = filter(&["eval", "--text", "-", "--frames", "40", "--rate-only"], text.as_bytes());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&report["frames"], &report["check_bits"]), (&40.into(), &0.into()));
}

/// Bare rows in and out: little-endian f32, frame by frame. They are written before the stream has ended.
#[test]
fn raw_rows_flow() {
    let folder = Folder::new();
    let hidden = hidden_states(40);
    let bytes: Vec<u8> = hidden.iter().flat_map(|value| value.to_le_bytes()).collect();
    let back: Vec<u8> = quantised(&hidden).1.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tokens = folder.file("tokens", &states_file(&hidden));
    let options = [&["--format", "raw", "--rate-weight", "0", "--batch", "8"], &["--side", &tokens][..]].concat();
    let stream = filter(&[&["encode", "-", "-o", "-"], &options[..]].concat(), &bytes);
    assert_eq!(stream.code, Some(0), "{stream:?}");
    let file = folder.path("rows.raw");
    let path = folder.file("stream.midspan", &stream.stdout);
    midspan(&["decode", &path, "-o", &file, "--format", "raw"]).succeeded();
    assert_eq!(std::fs::read(&file).unwrap(), back);

    let mut child = command(&["decode", "-", "-o", "-", "--format", "raw"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let half = stream.stdout.len() / 2;
    input.write_all(&stream.stdout[..half]).unwrap();
    let mut early = vec![0; 8 * 4 * default_model().hidden_width()];
    output.read_exact(&mut early).unwrap();
    assert_eq!(early, back[..early.len()]);
    input.write_all(&stream.stdout[half..]).unwrap();
    drop(input);
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    assert_eq!([early, rest].concat(), back);
    assert!(child.wait().unwrap().success());

    for wrong in [&bytes[..bytes.len() - 1], &[]] {
        let run = filter(&["encode", "-", "-o", &file, "--format", "raw"], wrong);
        assert_eq!(run.code, Some(1), "{run:?}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), back);
}

/// After a rewind a file has only the rows that were not rewound; a pipe cannot be rewound.
#[test]
fn rows_follow_a_rewind() {
    let folder = Folder::new();
    let (width, hidden) = (default_model().hidden_width(), hidden_states(9));
    for mode in [Mode::Joined, Mode::Layered] {
        let codec = Arc::new(Codec::new(default_model()).unwrap());
        let config = EncoderConfig::new(Identity::none()).mode(mode).rate_weight(Some(0.0));
        let mut encoder = Encoder::new(codec, config).unwrap();
        send_tokens(&mut encoder, 5);
        encoder.push_hidden(&hidden[..5 * width]).unwrap();
        encoder.rewind(2).unwrap();
        send_tokens(&mut encoder, 4);
        encoder.push_hidden(&hidden[5 * width..]).unwrap();
        encoder.rewind(5).unwrap();
        encoder.end().unwrap();
        let stream = folder.file("stream.midspan", &encoder.take_bytes().unwrap());
        let due = [&hidden[..2 * width], &hidden[5 * width..8 * width]].concat();
        let (y, back) = quantised(&due);
        let out = folder.path("out.safetensors");
        midspan(&["decode", &stream, "-o", &out]).succeeded();
        let (rows, decoded_y, w) = decoded_file(&out);
        assert_eq!((rows, decoded_y), (back.clone(), y));
        assert_eq!(w.len(), 5 * default_model().hyper_prior_width());
        midspan(&["decode", &stream, "-o", &out, "--format", "raw"]).succeeded();
        let bytes: Vec<u8> = back.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(std::fs::read(&out).unwrap(), bytes);
        let piped = filter(&["decode", &stream, "-o", "-", "--format", "raw"], b"");
        assert_eq!(piped.code, Some(1));
        assert!(piped.stderr.contains("goes back to frame 2"), "{}", piped.stderr);
        assert_eq!(midspan(&["verify", &stream, "--json"]).succeeded().json()["confirmed_frames"], 5);
        let says = ["error 408", "--limit rewind=64 allows what the stream declares, here it is 2"];
        midspan(&["verify", &stream, "--limit", "rewind=2"]).refused(&says);
    }
}

/// The value as f16, rounded towards zero.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 0xFF) as i32 - 127 + 15;
    let sign = (bits >> 16 & 0x8000) as u16;
    if exponent <= 0 { sign } else { sign | (exponent as u16) << 10 | (bits >> 13 & 0x3FF) as u16 }
}

#[test]
fn other_types_and_shapes_are_taken_where_nothing_is_lost() {
    let folder = Folder::new();
    let width = default_model().hidden_width();
    // Values that f16 and bf16 can represent.
    let hidden: Vec<f32> = (0..3 * width).map(|i| (i % 29) as f32 / 8.0 - 1.75).collect();
    let encode = |name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]| {
        let input = folder.file(name, &states_file_of(dtype, shape, bytes));
        let out = folder.path("out.midspan");
        midspan(&[&["encode", &input, "-o", &out], &SAME[..]].concat()).succeeded();
        std::fs::read(&out).unwrap()
    };
    let f32s: Vec<u8> = hidden.iter().flat_map(|value| value.to_le_bytes()).collect();
    let f16s: Vec<u8> = hidden.iter().flat_map(|value| half(*value).to_le_bytes()).collect();
    let bf16s: Vec<u8> = hidden.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect();
    let f64s: Vec<u8> = hidden.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect();
    let due = encode("f32", Dtype::F32, &[3, width], &f32s);
    assert_eq!(encode("one", Dtype::F32, &[1, 3, width], &f32s), due);
    assert_eq!(encode("f16", Dtype::F16, &[3, width], &f16s), due);
    assert_eq!(encode("bf16", Dtype::BF16, &[1, 3, width], &bf16s), due);
    assert_eq!(encode("f64", Dtype::F64, &[3, width], &f64s), due);
}

#[test]
fn what_f64_loses_is_said_and_what_f32_cannot_hold_refused() {
    let folder = Folder::new();
    let width = default_model().hidden_width();
    let bytes = |values: &[f64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let mut values = vec![0.5; 2 * width];
    (values[3], values[width + 1]) = (0.1, 1e-60);
    let input = folder.file("f64", &states_file_of(Dtype::F64, &[2, width], &bytes(&values)));
    let out = folder.path("out.midspan");
    let run = midspan(&["encode", &input, "-o", &out]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stderr.contains(&format!("2 of {} values of F64 were rounded to F32", 2 * width)), "{run:?}");
    values[width] = 1e300;
    let input = folder.file("f64", &states_file_of(Dtype::F64, &[2, width], &bytes(&values)));
    midspan(&["encode", &input, "-o", &folder.path("none")]).refused(&["beyond f32", "frame 1"]);
    assert_eq!(folder.names(), ["f64", "out.midspan"]);
}

/// With two entries of one name, some readers use the first and some the last.
#[test]
fn a_tensor_that_is_there_twice_is_refused() {
    let folder = Folder::new();
    let width = default_model().hidden_width();
    let entry = |from: usize| {
        let end = from + 4 * width;
        format!("\"hidden\":{{\"dtype\":\"F32\",\"shape\":[1,{width}],\"data_offsets\":[{from},{end}]}}")
    };
    let file = |entries: &[String], data: usize| {
        let header = format!("{{{}}}", entries.join(","));
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
    };
    let out = folder.path("out.midspan");
    let one = folder.file("one", &file(&[entry(0)], 4 * width));
    // The file has no tokens, so the program warns.
    midspan(&["encode", &one, "-o", &out]).warned().succeeded();
    let twice = folder.file("twice", &file(&[entry(0), entry(4 * width)], 8 * width));
    midspan(&["encode", &twice, "-o", &out]).refused(&["no safetensors file", "\"hidden\" is there twice"]);
    // Shorter or longer than the header says.
    for (name, data, says) in [("short", 4 * width - 1, "ends before"), ("long", 4 * width + 1, "goes on after")] {
        let input = folder.file(name, &file(&[entry(0)], data));
        midspan(&["encode", &input, "-o", &out]).warned().refused(&[&input, says]);
    }
    let hole = folder.file("hole", &file(&[entry(8)], 4 * width + 8));
    midspan(&["encode", &hole, "-o", &out]).refused(&[&hole, "no safetensors file"]);
}

#[test]
fn a_tensor_among_others_is_found() {
    let folder = Folder::new();
    let hidden = hidden_states(5);
    let width = default_model().hidden_width();
    let bytes: Vec<u8> = hidden.iter().flat_map(|value| value.to_le_bytes()).collect();
    let other = vec![7; 24];
    let ids: Vec<u8> = tokens(5).iter().flat_map(|token| token.to_le_bytes()).collect();
    let views = [
        ("a", TensorView::new(Dtype::F64, vec![3], &other).unwrap()),
        ("ids", TensorView::new(Dtype::U32, vec![5], &ids).unwrap()),
        ("states", TensorView::new(Dtype::F32, vec![5, width], &bytes).unwrap()),
        ("z", TensorView::new(Dtype::U8, vec![24], &other).unwrap()),
    ];
    let metadata = std::collections::HashMap::from([("made".to_string(), "here".to_string())]);
    let input = folder.file("many", &safetensors::serialize(views, Some(metadata)).unwrap());
    let (one, two) = (folder.path("one"), folder.path("two"));
    midspan(&[&["encode", &input, "-o", &one, "--tensor", "states"], &SAME[..]].concat()).succeeded();
    let alone = folder.file("alone", &states_file(&hidden));
    midspan(&[&["encode", &alone, "-o", &two], &SAME[..]].concat()).succeeded();
    assert_eq!(std::fs::read(one).unwrap(), std::fs::read(two).unwrap());
    midspan(&["encode", &input, "-o", &folder.path("x")]).refused(&["no tensor \"hidden\"", "\"states\""]);
}

/// A new context begins every N frames, and the seek index says where.
#[test]
fn context_resets_make_the_seek_index_of_use() {
    let folder = Folder::new();
    let states = folder.file("states.safetensors", &states_file(&hidden_states(200)));
    let stream = folder.path("stream.midspan");
    let joins = |more: &[&str]| {
        midspan(&[&["encode", &states, "-o", &stream, "--rate-weight", "0"], more].concat()).warned().succeeded();
        assert_eq!(midspan(&["verify", &stream, "--json"]).succeeded().json()["confirmed_frames"], 200);
        let mut reader = Reader::new(ReaderConfig::default());
        reader.push(&std::fs::read(&stream).unwrap()).unwrap();
        let (mut resets, mut entries) = (Vec::new(), Vec::new());
        while let Poll::Event(event) = reader.poll().unwrap() {
            match event.chunk {
                Chunk::Reset(reset) => resets.push((reset.index, event.offset)),
                Chunk::SeekIndex(index) => {
                    entries = index.entries.iter().map(|entry| (entry.frame, entry.offset)).collect();
                }
                _ => {}
            }
        }
        assert_eq!(resets, entries);
        resets.into_iter().map(|(index, _)| index).collect::<Vec<u64>>()
    };
    assert_eq!(joins(&["--reset-every", "60", "--batch", "32"]), [60, 120, 180]);
    assert_eq!(joins(&["--reset-every", "100", "--batch", "256", "--mode", "layered"]), [100]);
    assert!(joins(&[]).is_empty());
    assert!(joins(&["--reset-every", "0"]).is_empty());
    // The targets are the same.
    let out = folder.path("out.safetensors");
    joins(&["--reset-every", "7"]);
    midspan(&["decode", &stream, "-o", &out]).succeeded();
    assert_eq!(decoded_file(&out).1, quantised(&hidden_states(200)).0);
}

#[test]
fn an_identity_makes_streams_repeatable() {
    let folder = Folder::new();
    let states = folder.file("states.safetensors", &states_file(&hidden_states(3)));
    let encode = |name: &str, more: &[&str]| {
        let out = folder.path(name);
        midspan(&[&["encode", &states, "-o", &out], more].concat()).succeeded();
        std::fs::read(out).unwrap()
    };
    assert_eq!(encode("one", &SAME), encode("two", &SAME));
    assert_ne!(encode("one", &[]), encode("two", &[]));
    let shown = midspan(&["inspect", &folder.path("two"), "--json"]).succeeded().json();
    assert_eq!(shown["chunks"][0]["identity"].as_str().map(str::len), Some(16));
    assert_eq!(shown["chunks"][0]["check_bytes"], 1);
    encode("two", &[&SAME[..], &["--check", "16"]].concat());
    let shown = midspan(&["inspect", &folder.path("two"), "--json"]).succeeded().json();
    assert_eq!(shown["chunks"][0]["identity"], SAME[1]);
    assert_eq!(shown["chunks"][0]["check_bytes"], 2);
}

/// A signal in the middle of a write leaves the old file, and nothing else.
#[cfg(unix)]
#[test]
fn interrupted_writes_leave_no_parts() {
    let folder = Folder::new();
    let out = folder.file("out", b"precious");
    let row = vec![0; 4 * default_model().hidden_width()];
    let mut stream = Vec::new();
    // A program that began with SIGHUP ignored, as under nohup, goes on ignoring it.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let signals =
        if ignored.is_some_and(|ignored| ignored & 1 == 0) { &["INT", "TERM", "HUP"][..] } else { &["INT", "TERM"] };
    for signal in signals {
        for command_line in [
            vec!["encode", "-", "-o", &out, "--format", "raw", "--batch", "1"],
            vec!["decode", "-", "-o", &out],
            vec!["decode", "-", "-o", &out, "--format", "raw"],
        ] {
            let mut child = command(&command_line);
            let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(if command_line[0] == "encode" { &row } else { &stream }).unwrap();
            let started = Instant::now();
            while folder.names().len() < 2 {
                assert!(started.elapsed() < Duration::from_secs(60), "no part was begun: {command_line:?}");
                std::thread::sleep(Duration::from_millis(2));
            }
            let status = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
            assert!(status.success());
            // The signal ends the program, as it would any other.
            assert_eq!(child.wait().unwrap().code(), None, "{command_line:?}");
            drop(input);
            assert_eq!(folder.names(), ["out"], "{command_line:?}");
            assert_eq!(std::fs::read(&out).unwrap(), b"precious");
            if stream.is_empty() {
                stream = filter(&["encode", "-", "-o", "-", "--format", "raw"], &row).stdout;
                stream.truncate(stream.len() - 60);
            }
        }
    }
}

/// A file of hidden states that holds their tokens needs no `--side`; without any, frames count as having none.
#[test]
fn tokens_come_from_the_file_of_the_hidden_states() {
    let folder = Folder::new();
    let model = synthetic::model(&SyntheticShape::with_side(), 5);
    let (width, step) = (model.hidden_width(), model.step(0)[0]);
    let file = folder.file("model", &model.to_bytes());
    let bytes: Vec<u8> = (0..40 * width).flat_map(|i| ((i % 7) as f32 * step).to_le_bytes()).collect();
    let ids: Vec<u8> = (0..40_i64).flat_map(|frame| (frame * frame % 300).to_le_bytes()).collect();
    let hidden = TensorView::new(Dtype::F32, vec![40, width], &bytes).unwrap();
    let ids = TensorView::new(Dtype::I64, vec![40], &ids).unwrap();
    let with = safetensors::serialize([("hidden", hidden.clone()), ("ids", ids)], None).unwrap();
    let with = folder.file("with", &with);
    let without = folder.file("without", &safetensors::serialize([("hidden", hidden)], None).unwrap());
    let out = folder.path("out.midspan");
    let encode = |arguments: &[&str]| {
        let _ = std::fs::remove_file(&out);
        let run = midspan(&[&["encode", "--model", &file, "-o", &out], arguments, &SAME[..]].concat());
        (run, std::fs::read(&out).unwrap_or_default())
    };
    let (run, own) = encode(&[&with]);
    run.succeeded();
    assert!(!own.is_empty() && encode(&[&without, "--side", &with]).1 == own);
    let (run, none) = encode(&[&without]);
    assert!(run.stderr.starts_with(&format!("midspan: warning: {without} has no tensor \"ids\": ")), "{run:?}");
    run.warned().succeeded();
    assert!(!none.is_empty() && none != own);
    encode(&[&with, "--side-tensor", "others"]).0.refused(&["with: tensor \"others\": there is none"]);
    // Standard input is read once.
    let bytes = std::fs::read(&with).unwrap();
    let run = filter(&[&["encode", "-", "--model", &file, "-o", "-"], &SAME[..]].concat(), &bytes);
    assert_eq!(run.stdout, none, "{}", run.stderr);
    assert!(run.stderr.contains("standard input is read once, so its tensor \"ids\" is not taken"), "{}", run.stderr);
    // Nor is it a file that is called -.
    folder.file("-", &bytes);
    let mut beside = command(&[&["encode", "-", "--model", &file, "-o", "-"], &SAME[..]].concat());
    beside.current_dir(folder.path(""));
    assert_eq!(Bytes::from_run(beside, bytes).stdout, none);
    // One token too few is told before any output.
    let few: Vec<u8> = (0..39_i64).flat_map(i64::to_le_bytes).collect();
    let few = TensorView::new(Dtype::I64, vec![1, 39], &few).unwrap();
    let few = folder.file("few", &safetensors::serialize([("ids", few)], None).unwrap());
    encode(&[&with, "--side", &few]).0.refused(&["--side: 39 side indices, fewer than frames"]);
    let rows = |stream: &[u8], more: &[&str]| {
        let stream = folder.file("stream.midspan", stream);
        let rows = folder.path("rows");
        midspan(&[&["decode", &stream, "-o", &rows, "--model", &file], more].concat()).succeeded();
        std::fs::read(rows).unwrap()
    };
    let decoded = rows(&own, &[]);
    // Left out of the stream, they have to be given to the decoder.
    let (run, known) = encode(&[&with, "--side-known"]);
    run.succeeded();
    assert_eq!(rows(&known, &["--side", &with]), decoded);
    let stream = folder.path("stream.midspan");
    midspan(&["verify", &stream, "--model", &file]).refused(&["40 frames from 0 on are not in the stream", "--side"]);
    let run = midspan(&["encode", "--model", &file, &without, "-o", &out, "--side-known"]);
    run.refused(&["--side-known: there are no side indices"]);
    assert_eq!(rows(&none, &[]).len(), decoded.len());
}
