//! `encode`, `decode`, `verify` and `inspect` on whole and damaged files.

use std::process::Stdio;
use std::sync::Arc;

use midspan::codec::{Codec, Encoder, EncoderConfig, SideDelivery};
use midspan::model::CodecModel;
use midspan::wire::{Identity, Mode};

#[cfg(unix)]
use crate::support::on_a_full_disk;
use crate::support::{
    Folder, command, decoded_file, default_model, finish, hidden_states, midspan, quantised, states_file, tokens,
};

/// Encodes `frames` frames in chunks of `batch`. Returns the stream's path.
fn encode(folder: &Folder, frames: usize, batch: usize, mode: &str) -> String {
    let states = folder.file("states.safetensors", &states_file(&hidden_states(frames)));
    let stream = folder.path("stream.midspan");
    // Send the nearest integers, which `quantised` computes.
    let rate = ["--rate-weight", "0"];
    let batch = batch.to_string();
    let run = midspan(&[&["encode", &states, "-o", &stream, "--mode", mode, "--batch", &batch], &rate[..]].concat());
    let run = if frames < 128 { run } else { run.warned() }.succeeded();
    assert!(run.stdout.starts_with(&format!("{frames} frames, ")), "{run:?}");
    stream
}

fn round_trip(mode: &str, batch: usize, target_chunks: usize) {
    let folder = Folder::new();
    let stream = encode(&folder, 300, batch, mode);
    let (one, two) = (folder.path("one.safetensors"), folder.path("two.safetensors"));
    assert_eq!(midspan(&["decode", &stream, "-o", &one]).succeeded().stdout, "300 frames\n");
    midspan(&["decode", &stream, "-o", &two]).succeeded();
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    let (y, back) = quantised(&hidden_states(300));
    let (hidden, decoded_y, w) = decoded_file(&one);
    assert_eq!((hidden, decoded_y), (back, y));
    assert_eq!(w.len(), 300 * default_model().hyper_prior_width());

    let verified = midspan(&["verify", &stream, "--json"]).succeeded().json();
    assert_eq!(verified["frames"], 300);
    // After frame 256 and at the end.
    assert_eq!((&verified["confirmed"], &verified["confirmed_frames"]), (&2.into(), &300.into()));
    assert!(verified["error"].is_null());

    let shown = midspan(&["inspect", &stream, "--json"]).succeeded().json();
    assert_eq!(shown["frames"], 300);
    assert_eq!(shown["bytes"], std::fs::metadata(&stream).unwrap().len());
    let chunks = shown["chunks"].as_array().unwrap();
    let count = |kind: &str| chunks.iter().filter(|chunk| chunk["kind"] == kind).count();
    assert_eq!(chunks[0]["mode"], mode);
    assert_eq!(count("frame") + count("batch"), 300_usize.div_ceil(batch));
    assert_eq!(count("target"), target_chunks);
    assert_eq!((count("end"), count("footer")), (1, 1));
    assert_eq!(midspan(&["inspect", &stream]).succeeded().stdout.lines().count(), chunks.len() + 1);
}

/// The finest quality of the embedded model has frames of more than 127 bytes; its length offset makes most of them short.
#[test]
fn length_offsets_are_stated_shown_and_set() {
    let folder = Folder::new();
    let states = folder.file("states.safetensors", &states_file(&hidden_states(20)));
    let encode = |more: &[&str]| {
        let stream = folder.path("stream.msp");
        let finest = ["--quality", "5", "--batch", "1", "--reset-every", "15"];
        let command = [&["encode", states.as_str(), "-o", stream.as_str()], &finest[..], more].concat();
        midspan(&command).succeeded();
        let shown = midspan(&["inspect", &stream, "--json"]).succeeded().json();
        let chunks = shown["chunks"].as_array().unwrap().clone();
        let stated = |kind: &str| chunks.iter().find(|chunk| chunk["kind"] == kind).map(|c| c["length_offset"].clone());
        let decoded = folder.path("decoded.safetensors");
        midspan(&["decode", &stream, "-o", &decoded]).succeeded();
        (stated("header").unwrap(), stated("reset").unwrap(), std::fs::read(decoded).unwrap())
    };
    let own = default_model().length_offset(5);
    assert!(own > 0 && default_model().length_offset(0) == 0);
    let (header, reset, decoded) = encode(&[]);
    assert_eq!((&header, &reset), (&own.into(), &own.into()));
    assert_eq!(encode(&["--length-offset", "200"]), (200.into(), 200.into(), decoded.clone()));
    let layered = encode(&["--length-offset", "3", "--mode", "layered"]);
    assert_eq!((&layered.0, &layered.1), (&3.into(), &3.into()));
    assert_eq!(encode(&["--mode", "layered"]).0, 0);
    let stream = folder.path("refused.msp");
    let refused = midspan(&["encode", &states, "-o", &stream, "--length-offset", "16384"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("0..=16383"), "{refused:?}");
}

#[test]
fn length_offsets_and_expected_bits_are_fitted_to_a_text() {
    let folder = Folder::new();
    let text = folder
        .file("text.txt", "It was a cold evening in November, and the old house was dark. ".repeat(60).as_bytes());
    let out = folder.path("codec.safetensors");
    let run = ["length-offset", "--text", &text, "--sequences", "1", "--out", &out];
    let told = midspan(&run).succeeded().stdout;
    let fitted = CodecModel::from_bytes(&std::fs::read(&out).unwrap(), 1 << 30).unwrap();
    let bits = |model: &CodecModel, quality| {
        model.expected_bits(quality).map_or("unknown".to_string(), |bits| format!("{bits:.1}"))
    };
    let line = |quality| {
        let offsets = (fitted.length_offset(quality), default_model().length_offset(quality));
        let bits = (bits(&fitted, quality), bits(&default_model(), quality));
        let offsets = format!("length offset {}, {} before", offsets.0, offsets.1);
        format!("quality {quality}: {offsets}; expected bits {}, {} before\n", bits.0, bits.1)
    };
    assert_eq!(told, (0..default_model().qualities()).map(line).collect::<String>());
    assert_eq!(fitted.fingerprint(), default_model().fingerprint());
    assert!((0..6).all(|quality| fitted.expected_bits(quality) != default_model().expected_bits(quality)));
    let again = fitted.with_length_offsets((0..6).map(|quality| default_model().length_offset(quality)).collect());
    let bits = (0..6).map(|quality| default_model().expected_bits(quality).unwrap_or(0.0)).collect();
    assert_eq!(
        again.unwrap().with_expected_bits(bits).unwrap().to_bytes(),
        default_model().to_bytes(),
        "nothing else changes"
    );
    midspan(&["length-offset", "--text", &text, "--sequences", "0", "--out", &out]).refused(&["at least 1"]);
    midspan(&["length-offset", "--text", &text, "--out", &text]).refused(&["text.txt"]);
}

#[test]
fn joined_streams_come_back() {
    round_trip("joined", 64, 0);
}

#[test]
fn layered_streams_come_back() {
    round_trip("layered", 64, 5);
}

#[test]
fn one_frame_a_chunk_comes_back() {
    round_trip("joined", 1, 0);
}

/// The batch is longer than the default target horizon. A setting that the user did not give may not cause an error.
#[test]
fn the_largest_batch_comes_back() {
    for mode in ["joined", "layered"] {
        let folder = Folder::new();
        for batch in [28_672, 28_673, 65_536] {
            let stream = encode(&folder, 30, batch, mode);
            let limits = ["--limit", "frames=65536", "--limit", "horizon=28672"];
            let verified = midspan(&[&["verify", &stream, "--json"], &limits[..]].concat()).succeeded().json();
            assert_eq!((&verified["frames"], &verified["confirmed_frames"]), (&30.into(), &30.into()));
        }
    }
}

#[test]
fn an_output_is_replaced_when_it_is_whole() {
    let folder = Folder::new();
    let stream = encode(&folder, 8, 8, "joined");
    let out = folder.file("out.safetensors", b"something older");
    midspan(&["decode", &stream, "-o", &out]).succeeded();
    assert_eq!(decoded_file(&out).0.len(), 8 * default_model().hidden_width());
    assert_eq!(folder.names(), ["out.safetensors", "states.safetensors", "stream.midspan"]);
}

/// If the disk is full (here: a limit on file sizes), the old file is kept.
#[cfg(unix)]
#[test]
fn an_output_that_cannot_be_finished_leaves_the_old_one() {
    let folder = Folder::new();
    let stream = encode(&folder, 400, 128, "joined");
    let states = folder.path("states.safetensors");
    let out = folder.file("out", b"precious");
    for arguments in [["encode", &states, "-o", &out], ["decode", &stream, "-o", &out]] {
        let run = on_a_full_disk(2, &arguments);
        if arguments[0] == "encode" { run.warned() } else { run }.refused(&[&out, "too large"]);
        assert_eq!(std::fs::read(&out).unwrap(), b"precious");
        assert_eq!(folder.names(), ["out", "states.safetensors", "stream.midspan"]);
    }
}

/// A truncated stream gives its complete chunks and an error.
fn truncated(mode: &str, frames: usize) {
    let folder = Folder::new();
    let stream = encode(&folder, 96, 32, mode);
    let bytes = std::fs::read(&stream).unwrap();
    let shown = midspan(&["inspect", &stream, "--json"]).json();
    // Cut within the last chunk that has frames.
    let chunks = shown["chunks"].as_array().unwrap();
    let last = chunks.iter().rfind(|chunk| chunk["kind"] == "batch" || chunk["kind"] == "target").unwrap();
    let cut = last["offset"].as_u64().unwrap() + last["bytes"].as_u64().unwrap() - 1;
    let stream = folder.file("cut.midspan", &bytes[..cut as usize]);

    let out = folder.path("out.safetensors");
    let run = midspan(&["decode", &stream, "-o", &out]).refused(&[&stream, "error 401", "64 frames before it"]);
    assert_eq!(run.stdout, "64 frames\n");
    let (y, back) = quantised(&hidden_states(64));
    let (hidden, decoded_y, w) = decoded_file(&out);
    assert_eq!((hidden, decoded_y), (back, y));
    assert_eq!(w.len(), 64 * default_model().hyper_prior_width());
    let verified = midspan(&["verify", &stream, "--json"]).refused(&[&stream, "error 401"]).json();
    assert_eq!((verified["frames"].as_u64(), verified["error"]["code"].as_u64()), (Some(64), Some(401)));
    let shown = midspan(&["inspect", &stream, "--json"]).refused(&[&stream, "error 401"]).json();
    assert_eq!((shown["frames"].as_u64(), shown["error"]["code"].as_u64()), (Some(frames as u64), Some(401)));
}

#[test]
fn a_truncated_joined_stream_gives_its_whole_chunks() {
    truncated("joined", 64);
}

#[test]
fn a_truncated_layered_stream_gives_the_frames_with_targets() {
    // The hyper-priors of the last 32 frames are there.
    truncated("layered", 96);
}

/// Bits that flip in a payload never give wrong frames without an error.
#[test]
fn a_damaged_stream_does_not_verify() {
    let folder = Folder::new();
    let stream = encode(&folder, 64, 32, "joined");
    let mut bytes = std::fs::read(&stream).unwrap();
    let shown = midspan(&["inspect", &stream, "--json"]).json();
    let batch = shown["chunks"].as_array().unwrap().iter().rfind(|chunk| chunk["kind"] == "batch").unwrap().clone();
    bytes[(batch["offset"].as_u64().unwrap() + batch["bytes"].as_u64().unwrap() / 2) as usize] ^= 0x10;
    let stream = folder.file("damaged.midspan", &bytes);
    midspan(&["verify", &stream]).refused(&[&stream, "at fault: the stream"]);
    let out = folder.path("out.safetensors");
    midspan(&["decode", &stream, "-o", &out]).refused(&[&stream, "at fault: the stream"]);
    assert_eq!(decoded_file(&out).1[..32 * default_model().hidden_width()], quantised(&hidden_states(32)).0);
}

/// Targets that are left out or come in another order: frames are written to their places, and missing ones are
/// reported.
#[test]
fn targets_out_of_order_or_missing_leave_frames_in_place() {
    let folder = Folder::new();
    let (width, hidden) = (default_model().hidden_width(), hidden_states(3));
    let codec = Arc::new(Codec::new(default_model()).unwrap());
    let config = EncoderConfig::new(Identity::none()).mode(Mode::Layered).rate_weight(Some(0.0));
    let mut encoder = Encoder::new(codec, config).unwrap();
    let header = encoder.take_bytes().unwrap().to_vec();
    // Hyper-prior and target of each frame: a one-frame chunk with its length in one byte, and the rest.
    let chunks: Vec<(Vec<u8>, Vec<u8>)> = hidden
        .chunks(width)
        .zip(tokens(3))
        .map(|(frame, token)| {
            encoder.set_side(&[token], SideDelivery::Known).unwrap();
            encoder.push_hidden(frame).unwrap();
            let bytes = encoder.take_bytes().unwrap();
            assert!(bytes[0] < 0x80);
            let (hyper_prior, target) = bytes.split_at(usize::from(bytes[0]) + 1);
            (hyper_prior.to_vec(), target.to_vec())
        })
        .collect();
    encoder.end().unwrap();
    let end = encoder.take_bytes().unwrap().to_vec();
    let hyper_priors = chunks.iter().flat_map(|chunk| chunk.0.clone());
    let (y, back) = quantised(&hidden);
    let out = folder.path("out.safetensors");

    let targets = [1, 2, 0].into_iter().flat_map(|frame| chunks[frame].1.clone());
    let bytes: Vec<u8> = header.iter().copied().chain(hyper_priors.clone()).chain(targets).chain(end.clone()).collect();
    let stream = folder.file("order.midspan", &bytes);
    let side = folder.file("tokens", &states_file(&hidden));
    let verify = |stream: &str| midspan(&[&["verify", stream], &["--side", &side][..]].concat());
    let decode = |stream: &str| midspan(&[&["decode", stream, "-o", &out], &["--side", &side][..]].concat());
    verify(&stream).succeeded();
    decode(&stream).succeeded();
    let decoded = decoded_file(&out);
    assert_eq!((&decoded.0, &decoded.1), (&back, &y));

    let targets = [0, 2].into_iter().flat_map(|frame| chunks[frame].1.clone());
    let bytes: Vec<u8> = header.iter().copied().chain(hyper_priors).chain(targets).chain(end).collect();
    let stream = folder.file("missing.midspan", &bytes);
    verify(&stream).refused(&[&stream, "1 frame without target concealed"]);
    decode(&stream).refused(&[&stream, "1 frame without target concealed"]);
    let decoded = decoded_file(&out);
    assert_eq!(decoded.0.len(), 3 * width);
    assert_eq!((&decoded.0[..width], &decoded.0[2 * width..]), (&back[..width], &back[2 * width..]));
    assert!(decoded.0[width..2 * width].iter().all(|value| value.is_finite()));
}

/// As with `midspan inspect … | head`.
#[test]
fn a_closed_standard_output_is_no_fault() {
    let folder = Folder::new();
    let stream = encode(&folder, 64, 1, "joined");
    let states = folder.path("states.safetensors");
    for arguments in [
        vec!["inspect", &stream],
        vec!["inspect", &stream, "--json"],
        vec!["verify", &stream],
        vec!["decode", &stream, "-o", "-"],
        vec!["decode", &stream, "-o", "-", "--format", "raw"],
        vec!["encode", &states, "-o", "-"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = command(&arguments).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        finish(child).succeeded();
    }
}
