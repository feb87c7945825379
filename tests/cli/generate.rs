//! `generate`: both halves here, and one half against another that misbehaves.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::thread::JoinHandle;

use midspan::codec::{Encoder, EncoderConfig};
use midspan::host::bundle::Bundle;
use midspan::wire::Identity;

use crate::support::{Folder, Run, command, finish, hidden_states, midspan};

const PROMPT: &str = "It was a cold evening in November";

#[test]
fn text_and_table_in_both_modes() {
    let mut texts = Vec::new();
    for mode in ["joined", "layered"] {
        let run = midspan(&["generate", PROMPT, "-n", "12", "--mode", mode]).succeeded();
        let (text, table) = run.stdout.split_once("\n\ntokens ").unwrap();
        assert!(text.starts_with(PROMPT) && text.len() > PROMPT.len() + 12, "{run:?}");
        assert!(table.contains("12 generated") && table.contains("every decoded integer matched"), "{run:?}");
        texts.push(text.to_string());
    }
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn figures_as_json() {
    let report = midspan(&["generate", PROMPT, "-n", "6", "--json"]).succeeded().json();
    assert_eq!((&report["matched"], &report["generated_tokens"]), (&true.into(), &6.into()));
    assert_eq!(report["frames"].as_u64(), report["prompt_tokens"].as_u64().map(|tokens| tokens + 5));
    let bits = |name: &str| report[name].as_f64().unwrap();
    assert!((bits("bits") - bits("hyper_prior_bits") - bits("target_bits") - bits("overhead_bits")).abs() < 1e-6);
}

#[test]
fn two_programs_meet_over_a_link() {
    // A port that was free a moment ago; the tail may need a while until it listens there.
    let address = free_address();
    let tail = spawn(&["generate", "--role", "tail", "--listen", &address]);
    let head = loop {
        let run = midspan(&["generate", PROMPT, "-n", "4", "--role", "head", "--connect", &address]);
        if !run.stderr.contains("cannot connect") {
            break run;
        }
    };
    let head = head.succeeded();
    assert!(head.stdout.contains("every decoded integer matched"), "{head:?}");
    finish(tail).succeeded();
}

#[test]
fn a_prompt_that_does_not_fit_is_refused_before_anything_starts() {
    let long = "word ".repeat(2_000);
    for (prompt, says) in [(long.as_str(), "the model's context holds 256"), ("", "the prompt is empty")] {
        let both = midspan(&["generate", prompt, "-n", "4"]).refused(&[says]);
        assert_eq!(both.stdout, "");
        // No one listens there: the prompt is judged first.
        midspan(&["generate", prompt, "-n", "4", "--role", "head", "--connect", &free_address()]).refused(&[says]);
    }
}

#[test]
fn an_unknown_model_is_refused() {
    let folder = Folder::new();
    for model in [folder.path("none"), folder.path("")] {
        midspan(&["generate", PROMPT, "--model", &model]).refused(&[&model, "tokenizer.json"]);
    }
    folder.file("tokenizer.json", b"{}");
    folder.file("host.safetensors", b"");
    folder.file("codec.safetensors", b"");
    midspan(&["generate", PROMPT, "--model", &folder.path("")]).refused(&["tokenizer"]);
}

#[test]
fn bad_settings_are_refused() {
    for temperature in ["nan", "inf", "-1"] {
        let setting = format!("--temperature={temperature}");
        midspan(&["generate", PROMPT, &setting]).refused(&["--temperature"]);
    }
    for role in ["head", "tail"] {
        midspan(&["generate", PROMPT, "--role", role]).refused(&["--listen or --connect"]);
    }
}

#[test]
fn a_port_in_use_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for role in ["head", "tail"] {
        midspan(&["generate", PROMPT, "--role", role, "--listen", &address]).refused(&["cannot listen on", &address]);
    }
}

#[test]
fn an_address_where_no_one_listens_is_refused() {
    let address = free_address();
    for role in ["head", "tail"] {
        let run = midspan(&["generate", PROMPT, "--role", role, "--connect", &address]);
        run.refused(&["cannot connect to", &address]);
        midspan(&["generate", PROMPT, "--role", role, "--connect", "nonsense"]).refused(&["nonsense"]);
    }
}

#[test]
fn a_peer_that_closes_at_once() {
    against("tail", drop).refused(&["error 401"]);
    let run = against("head", drop).refused(&["the tail is gone"]);
    assert!(run.stdout.starts_with(PROMPT), "{run:?}");
}

#[test]
fn a_peer_that_says_nothing() {
    let run =
        against_with("head", &["--timeout", "1"], |mut stream| wait(&mut stream)).refused(&["the tail", "silent"]);
    assert!(run.stdout.starts_with(PROMPT), "{run:?}");
    against_with("tail", &["--timeout", "1"], |mut stream| wait(&mut stream)).refused(&["the head", "silent"]);
}

#[test]
fn a_peer_that_sends_garbage() {
    fn garbage(mut stream: TcpStream) {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n\x1b[31m").unwrap();
        wait(&mut stream);
    }
    against("tail", garbage).refused(&["error 201"]);
    against("head", garbage).refused(&["return channel"]);
}

/// The text so far is there, and nothing that another machine said reaches the terminal as it is.
#[test]
fn a_tail_that_goes_away_in_the_middle() {
    let token = [1, 77, 0, 0, 0];
    let run = against("head", move |mut stream| {
        // The header and the prompt's chunk.
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(&token).unwrap();
    });
    let run = run.refused(&["the tail is gone"]);
    assert!(run.stdout.starts_with(PROMPT) && run.stdout.len() > PROMPT.len() + 1, "{run:?}");

    let run = against("head", |mut stream| {
        let line = b"no room\x1b[2J\nsecond line";
        stream.write_all(&[3, line.len() as u8, 0, 0, 0]).unwrap();
        stream.write_all(line).unwrap();
        wait(&mut stream);
    });
    let run = run.refused(&["the tail failed: no room"]);
    assert!(!run.stderr.contains('\x1b'), "{run:?}");

    // Ids that the vocabulary lacks, a report of 4 GiB, and a report in the place of a token.
    for (bytes, says) in [
        (&[1, 0xFF, 0xFF, 0xFF, 0x7F][..], "vocabulary"),
        (&[2, 0xFF, 0xFF, 0xFF, 0xFF], "too long"),
        (&[2, 2, 0, 0, 0, b'{', b'}'], "the tail is gone"),
    ] {
        let run = against("head", move |mut stream| {
            stream.write_all(bytes).unwrap();
            wait(&mut stream);
        });
        run.refused(&[says]);
    }
}

#[test]
fn a_head_that_goes_away_in_the_middle() {
    against("tail", |mut stream| {
        let (header, frames) = stream_of(3, true);
        stream.write_all(&header).unwrap();
        stream.write_all(&frames[..frames.len() - 5]).unwrap();
    })
    .refused(&["error 401"]);
}

#[test]
fn a_head_with_another_model_or_too_much_at_once() {
    against("tail", |mut stream| {
        stream.write_all(&stream_of(1, false).0).unwrap();
        wait(&mut stream);
    })
    .refused(&["error 505"]);
    // More frames in one chunk than the host's context holds.
    let run = against("tail", |mut stream| {
        let (header, frames) = stream_of(600, true);
        stream.write_all(&header).unwrap();
        stream.write_all(&frames).unwrap();
        wait(&mut stream);
    });
    run.refused(&["600"]);
}

#[test]
fn a_closed_standard_output_ends_the_generation() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = command(&["generate", PROMPT, "-n", "100000"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    finish(child).succeeded();
}

/// A stream's header and a chunk of `frames` frames, made for the embedded host or, if not, for another.
fn stream_of(frames: usize, own_host: bool) -> (Vec<u8>, Vec<u8>) {
    let bundle = Bundle::embedded().unwrap();
    let host_digest = if own_host { bundle.host_digest } else { [7; 32] };
    let config = EncoderConfig { host_digest: Some(host_digest), ..EncoderConfig::new(Identity::none()) };
    let mut encoder = Encoder::new(bundle.codec.clone(), config).unwrap();
    let header = encoder.take_bytes().unwrap().to_vec();
    encoder.push_hidden(&hidden_states(frames)).unwrap();
    (header, encoder.take_bytes().unwrap().to_vec())
}

/// An address of this machine where no one listens.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn spawn(arguments: &[&str]) -> std::process::Child {
    command(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Reads until the other side closes.
fn wait(stream: &mut TcpStream) {
    let mut block = [0; 4096];
    while stream.read(&mut block).is_ok_and(|read| read > 0) {}
}

/// One half of the program, connected to a peer that does as `peer` says.
fn against(role: &str, peer: impl FnOnce(TcpStream) + Send + 'static) -> Run {
    against_with(role, &[], peer)
}

fn against_with(role: &str, options: &[&str], peer: impl FnOnce(TcpStream) + Send + 'static) -> Run {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread: JoinHandle<()> = std::thread::spawn(move || peer(listener.accept().unwrap().0));
    let arguments = [&["generate", PROMPT, "-n", "40", "--role", role, "--connect", &address], options].concat();
    let run = midspan(&arguments);
    thread.join().unwrap();
    run
}
