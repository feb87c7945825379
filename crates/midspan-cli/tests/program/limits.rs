//! Untrusted streams: limits, and memory that does not grow with the stream.

use std::sync::Arc;

use midspan::codec::{Codec, Encoder, EncoderConfig, SideDelivery};
use midspan::wire::{Identity, Mode};

#[cfg(target_os = "linux")]
use crate::support::command;
use crate::support::{Folder, default_model, hidden_states, midspan, states_file, tokens};

#[test]
fn a_chunk_of_many_frames_is_refused_unless_it_is_asked_for() {
    let folder = Folder::new();
    let states = folder.file("states.safetensors", &states_file(&hidden_states(300)));
    let stream = folder.path("stream.midspan");
    midspan(&["encode", &states, "-o", &stream, "--batch", "300"]).warned().succeeded();
    let out = folder.path("out.safetensors");
    let says = ["error 309", "--limit frames=300 allows what the stream declares, here it is 256"];
    midspan(&["decode", &stream, "-o", &out]).refused(&says);
    midspan(&["verify", &stream]).refused(&says);
    midspan(&["inspect", &stream, "--limit", "frames=256"]).refused(&says);
    assert_eq!(folder.names(), ["states.safetensors", "stream.midspan"]);
    // `inspect` decodes nothing, so the limits do not matter.
    midspan(&["inspect", &stream]).succeeded();
    midspan(&["verify", &stream, "--limit", "frames=300"]).succeeded();
    midspan(&["decode", &stream, "-o", &out, "--limit", "frames=300,memory=1G"]).succeeded();
}

#[test]
fn every_limit_says_how_to_raise_it() {
    let folder = Folder::new();
    let states = folder.file("states.safetensors", &states_file(&hidden_states(200)));
    let stream = folder.path("stream.midspan");
    midspan(&["encode", &states, "-o", &stream, "--batch", "50", "--mode", "layered"]).warned().succeeded();
    let out = folder.path("out.safetensors");
    for (limit, says) in [
        ("frames=40", "--limit frames="),
        ("bytes=100", "--limit bytes="),
        ("horizon=10", "--limit horizon="),
        ("memory=1K", "--limit memory="),
        ("output=100K", "--limit output="),
    ] {
        let run = midspan(&["decode", &stream, "-o", &out, "--limit", limit]);
        run.refused(&[&stream, says]);
    }
    // The frames before the output limit are written, in whole chunks.
    let run = midspan(&["decode", &stream, "-o", &out, "--limit", "output=100K"]).refused(&["frames before it"]);
    assert_eq!(run.stdout, "50 frames\n");
    for wrong in ["frames", "depth=3", "frames=many"] {
        let run = midspan(&["verify", &stream, "--limit", wrong]);
        assert_eq!(run.code, Some(2), "{run:?}");
    }
}

/// What a few frames need is read, and a batch beyond the format's bound is split.
#[cfg(target_os = "linux")]
#[test]
fn a_text_without_end_is_read_as_far_as_frames_ask() {
    for mode in ["joined", "layered"] {
        let options = ["--frames", "10", "--rate-only", "--batch", "30000", "--mode", mode];
        midspan(&[&["eval", "--text", "/dev/zero"][..], &options].concat()).succeeded();
    }
    midspan(&["eval", "--text", "/dev/zero", "--frames", "10", "--passages", "/dev/zero"])
        .refused(&["--passages", "larger than 67108864 bytes"]);
}

/// The tail that `generate` starts itself gets the limits too.
#[test]
fn limits_hold_where_both_halves_run_here() {
    midspan(&["generate", "It was", "-n", "2", "--limit", "memory=1K"]).refused(&["--limit memory=N"]);
    midspan(&["generate", "It was", "-n", "2", "--limit", "memory=64M,frames=300"]).succeeded();
}

/// Targets that come before their hyper-priors are kept, up to a limit.
#[test]
fn early_targets_are_kept_within_a_limit() {
    let folder = Folder::new();
    let codec = Arc::new(Codec::new(default_model()).unwrap());
    let config = EncoderConfig::new(Identity::none()).mode(Mode::Layered);
    let mut encoder = Encoder::new(codec, config).unwrap();
    let header = encoder.take_bytes().unwrap();
    encoder.set_side(&tokens(1), SideDelivery::Known).unwrap();
    encoder.push_hidden(&hidden_states(1)).unwrap();
    let frame = encoder.take_bytes().unwrap();
    assert!(frame[0] < 0x80);
    let (hyper_prior, target) = frame.split_at(usize::from(frame[0]) + 1);
    encoder.end().unwrap();
    let end = encoder.take_bytes().unwrap();
    let stream = folder.file("stream.midspan", &[&header[..], target, hyper_prior, &end].concat());
    let side = folder.file("tokens", &states_file(&hidden_states(1)));
    let verify = |more: &[&str]| midspan(&[&["verify", &stream], &["--side", &side][..], more].concat());
    let verified = verify(&["--json"]).succeeded().json();
    assert_eq!((&verified["frames"], &verified["confirmed_frames"]), (&1.into(), &1.into()));
    verify(&["--limit", "early=0"]).refused(&[&stream, "--limit early=N"]);
}

/// The peak memory of a command that reads a stream, in KiB: after a tenth of the stream, and after nearly all of it.
#[cfg(target_os = "linux")]
fn peaks(arguments: &[&str], stream: &[u8]) -> [u64; 2] {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = command(arguments);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let peak = |id: u32| {
        // By then the command has read what is in the pipe.
        std::thread::sleep(std::time::Duration::from_millis(500));
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    input.write_all(&stream[..stream.len() / 10]).unwrap();
    let early = peak(child.id());
    input.write_all(&stream[stream.len() / 10..stream.len() - 10]).unwrap();
    let late = peak(child.id());
    drop(input);
    child.wait().unwrap();
    [early, late]
}

/// 20,000 frames, each of 1,600 bytes when decoded.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_stream() {
    let folder = Folder::new();
    let hidden = vec![0.0; default_model().hidden_width()].repeat(20_000);
    let states = folder.file("states.safetensors", &states_file(&hidden));
    let (stream, out) = (folder.path("stream.midspan"), folder.path("out"));
    for mode in ["joined", "layered"] {
        midspan(&["encode", &states, "-o", &stream, "--batch", "16", "--mode", mode]).warned().succeeded();
        let bytes = std::fs::read(&stream).unwrap();
        for arguments in [
            &["verify", "-"][..],
            &["inspect", "-", "--json"],
            &["decode", "-", "-o", &out],
            &["decode", "-", "-o", &out, "--format", "raw"],
            &["decode", "-", "-o", "-", "--format", "raw"],
        ] {
            let [early, late] = peaks(arguments, &bytes);
            assert!(late < early + 4_096, "{mode} {arguments:?}: {early} KiB, then {late}");
        }
    }
}
