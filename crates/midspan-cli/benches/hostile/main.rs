//! Hostile inputs. Compares their peak memory with the stated limits, and their time with that of as many honest frames
//! or bytes.
//!
//! `cargo bench -p midspan-cli --bench hostile [-- PART-OF-A-NAME …]`. Each input runs in a separate process with a
//! counting allocator. The exit status is 1 if a bound is broken.
//!
//! Memory: at most 64 MB above the sum of the session's memory limit and the input that was pushed but not yet
//! consumed. Events are dropped here, since what a caller does with them does not count.
//!
//! Time of a stream: at most 3 times what honest one-frame chunks of the default model take, for as many frames or as
//! many bytes, whichever takes longer, plus the opening of a session. Time of a file: at most 3 times what an honest
//! file takes, for as many bytes or for one file, plus 100 ns a byte, since a hostile file is all header.

mod files;
mod streams;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use midspan::codec::{Decoder, DecoderConfig, DecoderEvent, DecoderPoll};
use midspan::error::{Error, ErrorKind};
use midspan::stream::Binding;
use streams::{Kit, Stream};

/// How many bytes of memory may be used above the stated limits.
const ABOVE_LIMITS: usize = 64 << 20;
/// An input may take at most this many times the time of an honest stream.
const TIMES: f64 = 3.0;
/// Seconds that a byte of an honest file's JSON header may take.
const JSON_BYTE: f64 = 33e-9;
/// An input that takes longer counts as hanging.
const PATIENCE: Duration = Duration::from_secs(120);
/// No input may allocate more bytes than this: the allocator refuses, and the process ends as if memory had run out.
const CEILING: usize = 1_500 << 20;

/// The system's allocator, with a count of the allocated bytes.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grow(bytes: usize) -> bool {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    if live > CEILING {
        LIVE.fetch_sub(bytes, Ordering::Relaxed);
        return false;
    }
    PEAK.fetch_max(live, Ordering::Relaxed);
    true
}

// SAFETY: every call is passed to the system's allocator unchanged, or returns null, which means out of memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !grow(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !grow(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Something hostile.
pub enum Input {
    Stream(Stream),
    /// A file and the function that loads it.
    File {
        bytes: Vec<u8>,
        limit: usize,
        honest: Vec<u8>,
        load: fn(&[u8], usize) -> Result<()>,
    },
}

/// An input's name and the function that makes it.
pub type Case = (&'static str, fn(&Kit) -> Input);

fn cases() -> Vec<Case> {
    let streams = streams::CASES.iter().copied();
    streams.chain(files::CASES.iter().copied()).collect()
}

/// What was measured on one input.
struct Measured {
    bytes: usize,
    frames: usize,
    peak: usize,
    /// The bytes that the limits allow.
    stated: usize,
    seconds: f64,
    /// The time of honest input, in seconds.
    honest: f64,
    outcome: String,
}

/// CPU time of this thread in seconds, so that other processes do not count.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse::<u64>().ok());
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    nanoseconds.map_or(elapsed.as_secs_f64(), |nanoseconds| nanoseconds as f64 / 1e9)
}

/// Repeats the work until the clock's resolution no longer matters. Returns its result, the peak memory above what was
/// allocated before, and the time of one run.
fn measure<T>(mut work: impl FnMut() -> T) -> (T, usize, f64) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let (started, wall) = (cpu_seconds(), Instant::now());
    let mut runs = 0;
    loop {
        let outcome = work();
        runs += 1;
        let seconds = cpu_seconds() - started;
        if seconds > 0.1 || wall.elapsed().as_secs_f64() > 1.0 {
            let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
            return (outcome, peak, seconds / f64::from(runs));
        }
    }
}

/// Decodes a stream to its end or first error. Returns the number of frames that it gave.
fn decode(kit: &Kit, stream: &Stream) -> (usize, Result<(), Error>) {
    let mut frames = 0;
    let config = DecoderConfig::default().binding(stream.binding).memory_limit(stream.memory_limit);
    let outcome = Decoder::new(kit.codec.clone(), config).and_then(|mut decoder| {
        decoder.add_model(kit.other.clone());
        for unit in &stream.units {
            for piece in unit.chunks(if stream.trickle { 1 } else { unit.len().max(1) }) {
                match stream.binding {
                    Binding::ByteStream => decoder.push(piece)?,
                    Binding::Message => decoder.push_message(unit)?,
                }
                drain(&mut decoder, &mut frames)?;
                if stream.binding == Binding::Message {
                    break;
                }
            }
            if unit.is_empty() && stream.binding == Binding::Message {
                decoder.push_message(unit)?;
                drain(&mut decoder, &mut frames)?;
            }
        }
        decoder.finish();
        drain(&mut decoder, &mut frames)
    });
    (frames, outcome)
}

fn drain(decoder: &mut Decoder, frames: &mut usize) -> Result<(), Error> {
    loop {
        match decoder.poll() {
            Ok(DecoderPoll::Event(DecoderEvent::Frames(given))) => *frames += given.count,
            Ok(DecoderPoll::Event(DecoderEvent::HyperPrior(given))) => *frames += given.count,
            Ok(DecoderPoll::Event(DecoderEvent::Targets(given))) => *frames += given.count,
            Ok(DecoderPoll::Event(DecoderEvent::ExactFrame(_))) => *frames += 1,
            Ok(DecoderPoll::Event(DecoderEvent::SideWanted { count, .. })) => {
                let vocabulary = decoder.codec().model().side().map_or(0, |side| side.vocabulary());
                decoder.give_side(&vec![vocabulary; count])?;
            }
            Ok(DecoderPoll::Event(DecoderEvent::TargetsOverdue { index, count })) => decoder.conceal(index, count)?,
            Ok(DecoderPoll::Event(_)) => {}
            Ok(DecoderPoll::NeedMore | DecoderPoll::End) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::TargetOverdue => {}
            Err(error) => return Err(error),
        }
    }
}

fn measure_case((_, make): Case) -> Measured {
    let kit = Kit::new();
    match make(&kit) {
        Input::Stream(stream) => {
            let opening = kit.honest(0);
            let (_, _, opening) = measure(|| decode(&kit, &opening));
            let honest = kit.honest(400);
            let ((frames, outcome), _, seconds) = measure(|| decode(&kit, &honest));
            assert_eq!((frames, outcome), (400, Ok(())), "the honest stream");
            let (frame, byte) = (seconds / 400.0, seconds / honest.bytes() as f64);
            let ((frames, outcome), peak, seconds) = measure(|| decode(&kit, &stream));
            // An empty message counts as a byte: a transport does more work than that to deliver it.
            let bytes: usize = stream.units.iter().map(|unit| unit.len().max(1)).sum();
            let allowed = opening + (frame * frames as f64).max(byte * bytes as f64);
            let outcome = outcome.map_or_else(|error| format!("error {}", error.code()), |()| "taken".into());
            // The largest unit, which a decoder holds until it is polled.
            let held = stream.units.iter().map(|unit| unit.len()).max().unwrap_or(0);
            let stated = stream.memory_limit + held;
            Measured { bytes: stream.bytes(), frames, peak, stated, seconds, honest: allowed, outcome }
        }
        Input::File { bytes, limit, honest, load } => {
            let (outcome, _, seconds) = measure(|| load(&honest, limit.max(1 << 30)));
            outcome.expect("an honest file loads");
            let allowed =
                seconds * (bytes.len() as f64 / honest.len() as f64).max(1.0) + JSON_BYTE * bytes.len() as f64;
            let (outcome, peak, seconds) = measure(|| load(&bytes, limit));
            let outcome = outcome.err().map_or("taken".into(), |error| error.to_string().chars().take(40).collect());
            Measured { bytes: bytes.len(), frames: 0, peak, stated: limit, seconds, honest: allowed, outcome }
        }
    }
}

/// Runs in the child process: measures one input and prints one line for the parent.
fn run_one(name: &str) {
    let Some(case) = cases().into_iter().find(|(own, _)| *own == name) else { return };
    let Measured { bytes, frames, peak, stated, seconds, honest, outcome } = measure_case(case);
    println!("{bytes}\t{frames}\t{peak}\t{stated}\t{seconds}\t{honest}\t{}", outcome.replace(char::is_control, " "));
}

/// Runs one input in a separate process.
fn measured(name: &str) -> Result<Measured> {
    let own = std::env::current_exe()?;
    let mut command = Command::new(own);
    command.args(["--one", name]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let started = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if started.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("hangs: no end in {} s", PATIENCE.as_secs());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let read = |stream: Option<&mut dyn Read>| {
        let mut text = String::new();
        stream.map(|stream| stream.read_to_string(&mut text));
        text
    };
    let line = read(child.stdout.as_mut().map(|out| out as &mut dyn Read));
    let error = read(child.stderr.as_mut().map(|error| error as &mut dyn Read));
    let fields: Vec<&str> = line.trim_end().split('\t').collect();
    let whole = || Some((fields.first()?.parse().ok()?, fields.get(1)?.parse().ok()?, fields.get(2)?.parse().ok()?));
    let rest = || Some((fields.get(3)?.parse().ok()?, fields.get(4)?.parse().ok()?, fields.get(5)?.parse().ok()?));
    match (whole(), rest(), fields.get(6)) {
        (Some((bytes, frames, peak)), Some((stated, seconds, honest)), Some(outcome)) => {
            Ok(Measured { bytes, frames, peak, stated, seconds, honest, outcome: (*outcome).to_string() })
        }
        _ => {
            let line = error.lines().find(|line| line.contains("panicked") || line.contains("memory allocation"));
            bail!("ends with {status}: {}", line.unwrap_or(error.lines().next().unwrap_or("nothing said")))
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [first, name] = arguments.as_slice()
        && first == "--one"
    {
        run_one(name);
        return ExitCode::SUCCESS;
    }
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| name.contains(argument.as_str()));
    println!(
        "{:<58}{:>10}{:>9}{:>9}{:>9}{:>11}{:>10}{:>8}  outcome",
        "input", "bytes", "frames", "peak MB", "limit MB", "ms", "ns/byte", "honest"
    );
    let (mut run, mut broken) = (0, 0);
    for (name, _) in cases().into_iter().filter(|(name, _)| wanted(name)) {
        run += 1;
        let line = match measured(name) {
            Err(fault) => {
                broken += 1;
                format!("BROKEN: {fault}")
            }
            Ok(found) => {
                let times = found.seconds / found.honest;
                let memory = found.peak > found.stated + ABOVE_LIMITS;
                broken += u32::from(memory || times > TIMES);
                let mark = match (memory, times > TIMES) {
                    (true, _) => "BROKEN (memory): ",
                    (_, true) => "BROKEN (time): ",
                    _ => "",
                };
                let mb = |bytes: usize| bytes as f64 / 1e6;
                format!(
                    "{:>10}{:>9}{:>9.1}{:>9.0}{:>11.2}{:>10.0}{:>7.1}x  {mark}{}",
                    found.bytes,
                    found.frames,
                    mb(found.peak),
                    mb(found.stated),
                    found.seconds * 1e3,
                    found.seconds * 1e9 / found.bytes.max(1) as f64,
                    times,
                    found.outcome
                )
            }
        };
        println!("{name:<58}{line}");
    }
    println!("\n{run} inputs; {broken} break a bound");
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
