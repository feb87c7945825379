//! What is written to a terminal.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;

use midspan::codec::{Codec, Encoder, EncoderConfig};
use midspan::wire::{Identity, OptionalField};
use midspan_cli::bundle::Bundle;
use safetensors::tensor::Dtype;

use crate::peer::tail_that_says;
use crate::support::{Folder, Run, default_model, finish, hidden_states, midspan, send_tokens, states_file_of};
use crate::warning::noise;

/// Sequences that a terminal acts on: a title, colours, a bell, and the single-byte form of an escape.
const EVIL: &str = "x\u{1b}]0;evil\u{7}\u{1b}[31m\u{9b}2J\u{7f}\u{202e}y";

#[track_caller]
fn is_harmless(run: &Run) {
    for text in [&run.stdout, &run.stderr] {
        let bad = text.chars().find(|c| c.is_control() && !"\n\t".contains(*c) || *c == '\u{202e}');
        assert_eq!(bad, None, "{text:?}");
    }
}

#[test]
fn what_a_stream_says_is_shown_and_not_done() {
    let folder = Folder::new();
    let codec = Arc::new(Codec::new(default_model()).unwrap());
    let producer = OptionalField { id: OptionalField::PRODUCER, value: EVIL.as_bytes().to_vec().into() };
    let config = EncoderConfig::new(Identity::none()).fields(vec![producer]);
    let mut encoder = Encoder::new(codec, config).unwrap();
    send_tokens(&mut encoder, 1);
    encoder.push_hidden(&hidden_states(1)).unwrap();
    encoder.extension(EVIL.len() as u32, EVIL.as_bytes()).unwrap();
    encoder.end().unwrap();
    let stream = folder.file("stream.midspan", &encoder.take_bytes().unwrap());
    for arguments in [vec!["inspect", &stream], vec!["inspect", &stream, "--json"], vec!["verify", &stream]] {
        is_harmless(&midspan(&arguments).succeeded());
    }
    let shown = midspan(&["inspect", &stream]).succeeded().stdout;
    assert!(shown.contains("x\\u001b]0;evil\\u0007\\u001b[31m\\u009b2J\\u007f\\u202ey"), "{shown}");
    // The JSON value is unchanged.
    assert_eq!(midspan(&["inspect", &stream, "--json"]).json()["chunks"][0]["producer"], EVIL);
}

#[test]
fn what_a_file_says_is_shown_and_not_done() {
    let folder = Folder::new();
    let width = default_model().hidden_width();
    let bytes = states_file_of(Dtype::F32, &[1, width], &vec![0; 4 * width]);
    let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let name = serde_json::to_string(EVIL).unwrap();
    let text = String::from_utf8(bytes[8..8 + header].to_vec()).unwrap();
    let text = text.trim_end().replace("\"hidden\"", &name);
    let file = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &bytes[8 + header..]].concat();
    let input = folder.file("states\u{1b}[31m.safetensors", &file);
    let run = midspan(&["encode", &input, "-o", &folder.path("out")]).refused(&["no tensor \"hidden\"", "evil"]);
    is_harmless(&run);
    let run = midspan(&["encode", &input, "-o", &folder.path("out"), "--tensor", EVIL]);
    is_harmless(&run.succeeded());
    // A newline in a name neither ends the message nor passes for one.
    let input = folder.file("a\nmidspan: all is well", b"garbage");
    midspan(&["verify", &input]).refused(&["/a\\nmidspan: all is well: ", "error 201"]);
}

/// Runs the head against a tail that sends tokens with control characters.
fn evil_head(run: impl FnOnce(&str) -> Run) -> Run {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tokens = Bundle::embedded().unwrap().tokenizer.encode(EVIL).unwrap();
    let count = tokens.len();
    let thread = std::thread::spawn(move || tail_that_says(listener.accept().unwrap().0, tokens));
    let run = run(&format!("generate Once -n {count} --role head --connect {address}"));
    thread.join().unwrap();
    run
}

#[test]
fn tokens_are_as_they_are_where_no_terminal_is() {
    let run = evil_head(|arguments| midspan(&arguments.split(' ').collect::<Vec<_>>()));
    assert!(run.stdout.starts_with(&format!("Once{EVIL}\n")), "{run:?}");
}

/// Runs the program on a terminal of this kind.
#[cfg(target_os = "linux")]
fn on_a_terminal(kind: Option<&str>, arguments: &str) -> Run {
    let mut script = Command::new("script");
    script.args(["-qec", &format!("'{}' {arguments}", env!("CARGO_BIN_EXE_midspan")), "/dev/null"]);
    match kind {
        Some(kind) => script.env("TERM", kind),
        None => script.env_remove("TERM"),
    };
    let run = finish(script.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    // A terminal ends lines with \r\n.
    Run { stdout: run.stdout.replace("\r\n", "\n"), ..run }
}

#[cfg(target_os = "linux")]
#[test]
fn tokens_are_shown_and_not_done_on_a_terminal() {
    for kind in [Some("dumb"), Some("xterm"), None] {
        let run = evil_head(|arguments| on_a_terminal(kind, arguments));
        assert!(
            run.stdout.contains("Oncex\\u001b]0;evil\\u0007\\u001b[31m\\u009b2J\\u007f\\u202ey"),
            "{kind:?} {run:?}"
        );
        assert!(!run.stdout.contains("\u{1b}]0;") && !run.stdout.contains(['\u{7}', '\u{9b}', '\u{202e}']), "{run:?}");
    }
}

/// The text is longer than a line above a meter.
#[cfg(target_os = "linux")]
#[test]
fn no_terminal_loses_text() {
    let piped = midspan(&["generate", "It was a cold evening", "-n", "60"]).succeeded();
    let text = piped.stdout.split("\n\ntokens ").next().unwrap().to_string();
    assert!(text.len() > 150, "{text}");
    for kind in [Some("dumb"), None] {
        let run = on_a_terminal(kind, "generate 'It was a cold evening' -n 60");
        assert!(run.stdout.starts_with(&format!("{text}\n\ntokens ")), "{kind:?} {run:?}");
    }
    // With a meter below the text, which is redrawn: complete lines, and the last line at the end.
    let run = on_a_terminal(Some("xterm"), "generate 'It was a cold evening' -n 60");
    let words = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
    let (shown, due) = (words(&run.stdout), words(&text));
    assert!(due.iter().all(|word| shown.iter().any(|shown| shown.contains(word))), "{run:?}");
    assert!(run.stdout.contains("tokens/s"), "{run:?}");
}

/// The text is written without a line's end, and the warning after it.
#[cfg(target_os = "linux")]
#[test]
fn a_warning_has_a_line_of_its_own_on_a_terminal_without_a_meter() {
    let prompt = noise(200);
    let run = on_a_terminal(Some("dumb"), &format!("generate '{prompt}' -n 2"));
    assert!(run.stdout.contains(&format!("{prompt}\nmidspan: warning: the hidden states are unlike")), "{run:?}");
}
