//! `generate`: both halves on this machine, and one half against another that misbehaves.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use midspan::codec::{Encoder, EncoderConfig};
use midspan::wire::Identity;
use midspan_cli::bundle::Bundle;

use crate::peer::{self, accept, tail_message, tail_that_says, token, wait};
use crate::support::{Folder, Run, command, finish, hidden_states, midspan, run, send_tokens};

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
    // A port that was free a moment ago. The tail may take a while until it listens there.
    let address = free_address();
    let tail = spawn(&["generate", "--role", "tail", "--listen", &address]);
    let head = once_it_listens(|| command(&["generate", PROMPT, "-n", "4", "--role", "head", "--connect", &address]));
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
        // Nobody listens there, but the prompt is checked first.
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

/// The peer closes before and after the halves have recognised each other.
#[test]
fn a_peer_that_closes_at_once() {
    for role in ["tail", "head"] {
        let run = against(role, drop).refused(&["no half of this program is at", "closed the connection"]);
        assert_eq!(run.stdout, "");
    }
    with_peer("tail", &[], drop).refused(&["the head is gone: it closed the connection"]);
    let run = with_peer("head", &[], drop).refused(&["the tail is gone"]);
    assert!(run.stdout.starts_with(PROMPT), "{run:?}");
}

#[test]
fn a_peer_that_says_nothing() {
    for role in ["tail", "head"] {
        against_with(role, &["--timeout", "3"], |mut stream| wait(&mut stream)).refused(&["silent"]);
    }
    let run = with_peer("head", &["--timeout", "3"], |mut stream| wait(&mut stream)).refused(&["the tail", "silent"]);
    assert!(run.stdout.starts_with(PROMPT), "{run:?}");
    with_peer("tail", &["--timeout", "3"], |mut stream| wait(&mut stream)).refused(&["the head", "silent"]);
}

/// The bytes of a step have to arrive in time, however few come at a time.
#[test]
fn a_peer_that_trickles() {
    fn trickle(stream: &mut TcpStream, bytes: &[u8]) {
        for byte in bytes {
            std::thread::sleep(Duration::from_millis(800));
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
        wait(stream);
    }
    let started = Instant::now();
    let short = ["--timeout", "3"];
    // In the hello, in the stream's header, and in a token.
    against_with("tail", &short, |mut stream| trickle(&mut stream, &peer::hello("head"))).refused(&["too slow"]);
    with_peer("tail", &short, |mut stream| trickle(&mut stream, &stream_of(1, true).0))
        .refused(&["the head", "too slow"]);
    with_peer("head", &short, |mut stream| trickle(&mut stream, &token(77))).refused(&["the tail", "too slow"]);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn a_peer_that_sends_garbage() {
    fn garbage(mut stream: TcpStream) {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n\x1b[31m").unwrap();
        wait(&mut stream);
    }
    for role in ["tail", "head"] {
        against(role, garbage).refused(&["it is no half of this program"]);
    }
    with_peer("tail", &[], garbage).refused(&["error 201"]);
    with_peer("head", &[], garbage).refused(&["return channel"]);
}

#[test]
fn a_peer_that_does_not_fit() {
    for (place, says) in [(8, "version"), (9, "it is no head"), (26, "another codec model"), (58, "another host model")]
    {
        let run = against("tail", move |mut stream| {
            let mut hello = peer::hello("head");
            hello[place] ^= 1;
            stream.write_all(&hello).unwrap();
            wait(&mut stream);
        });
        run.refused(&[says]);
    }
}

/// None of these peers ends a waiting tail, and the head still finds it.
#[test]
fn a_tail_that_waits_turns_others_away() {
    let address = free_address();
    let tail = spawn(&["generate", "--role", "tail", "--listen", &address]);
    let started = Instant::now();
    let connect = || loop {
        match TcpStream::connect(&address) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
        assert!(started.elapsed() < Duration::from_secs(60), "no one listens");
    };
    drop(connect());
    connect().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    connect().write_all(&peer::hello("tail")).unwrap();
    // Two peers that hold their connections, one of them in the middle of its hello.
    let (mut slow, _silent) = (connect(), connect());
    slow.write_all(&peer::hello("head")[..40]).unwrap();
    // A peer that does not know the tail's random bytes.
    let mut replay = connect();
    replay.write_all(&[&peer::hello("head")[..], &[7; 32]].concat()).unwrap();
    wait(&mut replay);

    let head = midspan(&["generate", PROMPT, "-n", "4", "--role", "head", "--connect", &address]).succeeded();
    assert!(head.stdout.contains("every decoded integer matched"), "{head:?}");
    let tail = finish(tail);
    assert_eq!(tail.code, Some(0), "{tail:?}");
    for says in ["it closed the connection", "it is no half of this program", "it is no head", "MIDSPAN_SECRET"] {
        let told = |line: &str| line.contains("127.0.0.1") && line.contains("was turned away") && line.contains(says);
        assert!(tail.stderr.lines().any(told), "{says}: {tail:?}");
    }
    // The peers that hold their connections may have been rejected by then.
    assert!(tail.stderr.lines().all(|line| line.contains("was turned away")), "{tail:?}");
}

#[test]
fn nobody_is_waited_for_longer_than_the_timeout() {
    for role in ["head", "tail"] {
        let started = Instant::now();
        let run = midspan(&["generate", PROMPT, "--role", role, "--listen", &free_address(), "--timeout", "1"]);
        run.refused(&["did not connect within 1 s"]);
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

#[test]
fn halves_with_different_secrets_do_not_meet() {
    let address = free_address();
    let half = |secret: &str, arguments: &[&str]| {
        let mut half = command(&[&["generate", PROMPT, "-n", "2"], arguments].concat());
        half.env("MIDSPAN_SECRET", secret).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        half
    };
    let tail = half("one", &["--role", "tail", "--listen", &address]).spawn().unwrap();
    let head = |secret: &str| once_it_listens(|| half(secret, &["--role", "head", "--connect", &address]));
    head("two").refused(&["MIDSPAN_SECRET"]);
    head("one").succeeded();
    assert_eq!(finish(tail).code, Some(0));
}

/// If both halves run here, another process that finds the port before the tail gains nothing.
#[cfg(target_os = "linux")]
#[test]
fn the_port_of_the_two_processes_cannot_be_taken() {
    // Nobody answers if the halves have already met; then it is tried again.
    assert!((0..20).any(|_| port_is_tried()), "the halves met before anybody else, every time");
}

/// Whether another process was heard and turned away before the halves met. They meet in any case.
#[cfg(target_os = "linux")]
fn port_is_tried() -> bool {
    let child = spawn(&["generate", PROMPT, "-n", "2"]);
    let id = child.id();
    let started = Instant::now();
    // The port is known as soon as the process listens.
    let address = loop {
        assert!(started.elapsed() < Duration::from_secs(60), "no port");
        if let Some(port) = listening_port(id) {
            break format!("127.0.0.1:{port}");
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let own = peer::hello("tail");
    let answered = TcpStream::connect(address).is_ok_and(|mut stream| {
        let mut theirs = [0; peer::HELLO];
        let met = stream.write_all(&own).is_ok() && stream.read_exact(&mut theirs).is_ok();
        if met {
            // Everything is right except the secret.
            stream.write_all(&peer::seal("", &own, &theirs, own[9])).unwrap();
            wait(&mut stream);
        }
        met
    });
    let run = finish(child);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("every decoded integer matched"), "{run:?}");
    // Greeted, it may also be let go without a word, if the halves meet meanwhile.
    let turned_away = run.stderr.contains("was turned away");
    assert!(turned_away || run.stderr.is_empty(), "{run:?}");
    answered && turned_away
}

/// The port where a process listens.
#[cfg(target_os = "linux")]
fn listening_port(id: u32) -> Option<u16> {
    let entries = std::fs::read_dir(format!("/proc/{id}/fd")).ok()?;
    let links: Vec<String> =
        entries.filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.to_str()?.to_string())).collect();
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_its = fields.get(3) == Some(&"0A") && links.contains(&format!("socket:[{}]", fields.get(9)?));
        is_its.then(|| u16::from_str_radix(fields[1].split_once(':')?.1, 16).ok())?
    })
}

/// The text so far is printed, and nothing from another machine reaches the terminal unescaped.
#[test]
fn a_tail_that_goes_away_in_the_middle() {
    let run = with_peer("head", &[], move |mut stream| {
        // The header and the prompt's chunk.
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(&token(77)).unwrap();
    });
    let run = run.refused(&["the tail is gone"]);
    assert!(run.stdout.starts_with(PROMPT) && run.stdout.len() > PROMPT.len() + 1, "{run:?}");

    let run = with_peer("head", &[], |mut stream| {
        stream.write_all(&tail_message(3, b"no room\x1b[2J\nsecond line")).unwrap();
        wait(&mut stream);
    });
    let run = run.refused(&["the tail failed: no room\\u001b[2J"]);
    assert!(!run.stderr.contains('\x1b'), "{run:?}");

    // Ids that are not in the vocabulary, a report of 4 GiB, and a report instead of a token.
    for (bytes, says) in [
        (&[1, 0xFF, 0xFF, 0xFF, 0x7F][..], "vocabulary"),
        (&[2, 0xFF, 0xFF, 0xFF, 0xFF], "too long"),
        (&[2, 2, 0, 0, 0, b'{', b'}'], "the tail is gone"),
    ] {
        let run = with_peer("head", &[], move |mut stream| {
            stream.write_all(bytes).unwrap();
            wait(&mut stream);
        });
        run.refused(&[says]);
    }
}

#[test]
fn a_head_that_goes_away_in_the_middle() {
    with_peer("tail", &[], |mut stream| {
        let (header, frames) = stream_of(3, true);
        stream.write_all(&header).unwrap();
        stream.write_all(&frames[..frames.len() - 5]).unwrap();
    })
    .refused(&["the head is gone: it closed the connection"]);
}

/// Both are refused before the tail decodes a frame.
#[test]
fn a_head_with_another_model_or_too_much_at_once() {
    with_peer("tail", &[], |mut stream| {
        stream.write_all(&stream_of(1, false).0).unwrap();
        wait(&mut stream);
    })
    .refused(&["error 505"]);
    // More frames in one chunk than the host's context holds.
    let too_many = |mut stream: TcpStream| {
        let (header, frames) = stream_of(600, true);
        stream.write_all(&header).unwrap();
        stream.write_all(&frames).unwrap();
        wait(&mut stream);
    };
    with_peer("tail", &[], too_many).refused(&["error 309", "--limit frames=4096 allows what the stream declares"]);
    // Raising this limit does not raise the other one.
    with_peer("tail", &["--limit", "frames=4096"], too_many).refused(&["600 frames, the model's context holds 256"]);
}

/// The reader of the text pauses for longer than the other half's timeout.
#[test]
fn a_reader_that_pauses_does_not_end_the_session() {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    // The pipe is full, so that no text fits before it is read.
    let full = std::thread::spawn(move || {
        let before = Instant::now();
        let mut child = command(&["generate", PROMPT, "-n", "6", "--timeout", "4"]);
        let filler = writer.try_clone().unwrap();
        writer.write_all(&vec![b'.'; 1 << 16]).unwrap();
        drop(writer);
        let child = child.stdin(Stdio::null()).stdout(filler).stderr(Stdio::piped()).spawn().unwrap();
        (child, before)
    });
    let (child, before) = full.join().unwrap();
    std::thread::sleep(Duration::from_secs(10));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(before.elapsed() > Duration::from_secs(9));
    let run = finish(child).succeeded();
    assert!(text.contains(PROMPT) && text.contains("every decoded integer matched"), "{text} {run:?}");
}

#[test]
fn one_token_has_figures_or_none() {
    let run = midspan(&["generate", PROMPT, "-n", "1"]).succeeded();
    assert!(run.stdout.contains("1 generated") && !run.stdout.contains("NaN"), "{run:?}");
    let report = midspan(&["generate", PROMPT, "-n", "1", "--json"]).succeeded().json();
    for name in ["encode_ms", "decode_ms", "tokens_per_second"] {
        assert!(report[name].is_null(), "{name}: {report}");
    }
}

/// The last token ends in the middle of a character.
#[test]
fn the_last_piece_of_text_is_written() {
    let bundle = Bundle::embedded().unwrap();
    let first_byte = bundle.tokenizer.encode("\u{1f600}").unwrap()[0];
    let run = against_with("head", &["-n", "1"], move |stream| tail_that_says(stream, vec![first_byte]));
    let run = run.refused(&["the tail decoded other integers"]);
    assert!(run.stdout.starts_with(&format!("{PROMPT}\u{FFFD}\n")), "{run:?}");
}

/// Checks are on by default, and a fixed identity makes streams repeatable.
#[test]
fn checks_can_be_left_out() {
    let bits = |check: &[&str]| {
        let run = midspan(&[&["generate", PROMPT, "-n", "5", "--json"], check].concat()).succeeded().json();
        (
            run["check_bits"].as_u64().unwrap(),
            (run["bits"].as_f64().unwrap() * run["frames"].as_f64().unwrap()).round() as u64,
        )
    };
    let (none, default, two) = (bits(&["--check", "0"]), bits(&[]), bits(&["--check", "16"]));
    assert_eq!((none.0, default.0, two.0), (0, 8, 16));
    // The prompt's chunk and four more.
    assert_eq!((default.1 - none.1, two.1 - none.1), (5 * 8, 5 * 16));
}

#[test]
fn a_closed_standard_output_ends_the_generation() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = command(&["generate", PROMPT, "-n", "100000"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    finish(child).succeeded();
}

/// A stream's header and a chunk of `frames` frames, made for the embedded host if `own_host`, otherwise for another.
fn stream_of(frames: usize, own_host: bool) -> (Vec<u8>, Vec<u8>) {
    let bundle = Bundle::embedded().unwrap();
    let host_digest = if own_host { bundle.host_digest } else { [7; 32] };
    let config = EncoderConfig::new(Identity::none()).host_digest(Some(host_digest)).max_frames_per_chunk(4_096);
    let mut encoder = Encoder::new(bundle.codec.clone(), config).unwrap();
    let header = encoder.take_bytes().unwrap().to_vec();
    send_tokens(&mut encoder, frames);
    encoder.push_hidden(&hidden_states(frames)).unwrap();
    (header, encoder.take_bytes().unwrap().to_vec())
}

/// Runs one half repeatedly until the other listens.
#[track_caller]
fn once_it_listens(half: impl Fn() -> std::process::Command) -> Run {
    let started = Instant::now();
    loop {
        let run = run(half());
        if !run.stderr.contains("cannot connect") {
            break run;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "no one listens: {run:?}");
    }
}

/// An address of this machine where nobody listens.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn spawn(arguments: &[&str]) -> std::process::Child {
    command(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs one half of the program, connected to a peer that runs `peer`.
fn against(role: &str, peer: impl FnOnce(TcpStream) + Send + 'static) -> Run {
    against_with(role, &[], peer)
}

fn against_with(role: &str, options: &[&str], peer: impl FnOnce(TcpStream) + Send + 'static) -> Run {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread: JoinHandle<()> = std::thread::spawn(move || peer(listener.accept().unwrap().0));
    let count: &[&str] = if options.contains(&"-n") { &[] } else { &["-n", "40"] };
    let run = midspan(&[&["generate", PROMPT, "--role", role, "--connect", &address], count, options].concat());
    thread.join().unwrap();
    run
}

/// Runs one half of the program with a peer that is recognised and then runs `peer`.
fn with_peer(role: &str, options: &[&str], peer: impl FnOnce(TcpStream) + Send + 'static) -> Run {
    let other = if role == "head" { "tail" } else { "head" };
    against_with(role, options, move |mut stream| {
        accept(&mut stream, other);
        peer(stream);
    })
}
