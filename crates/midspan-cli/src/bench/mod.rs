//! `midspan bench`: measures what encoding and decoding cost on one core of this machine or on a device, and compares
//! it with the goals.

mod device;
mod overhead;
mod report;
mod sessions;
mod source;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::KEEPS_INTEGERS;
use super::compressors::{self, Compressed, Compressor};
use super::files::print;
use midspan::codec::{Codec, DecoderConfig, EncoderConfig};
use midspan::exact::Arm;
use midspan::stream::{Binding, Limits};
use midspan::wire::Identity;
use report::Report;
use sessions::{GROWTH_STEPS, Growth, Times, median};
use source::Source;

/// Frames of the batches that are timed.
const BATCHES: [usize; 3] = [64, 128, 512];
/// Limits for trusted peers, wider than the defaults: batches have 512 frames and, on a device, more.
const LIMITS: Limits = Limits::FORMAT.max_chunk_bytes(1 << 26);
/// Memory limit of a session, in bytes.
const MEMORY_LIMIT: usize = 1 << 32;
/// How many streams are stepped together.
const STREAMS: [usize; 2] = [8, 64];
/// Frames of the batches whose overhead is measured.
const OVERHEAD_BATCHES: [usize; 2] = [128, 512];
/// Goal with one frame a chunk: milliseconds a token to encode and to decode.
const STEP_GOAL: (f64, f64) = (0.45, 0.25);
/// The same in batches.
const BATCH_GOAL: (f64, f64) = (0.22, 0.13);
/// Goal for the time of a late step divided by that of an early one.
const GROWTH_GOAL: f64 = 1.1;
/// Goal for bits above the tables' floor: a one-frame chunk in a byte stream, and the same chunk as a message.
const FRAME_GOAL: (f64, f64) = (12.0, 4.0);
/// Goal for bits above the floor of a batch chunk with one lane: a constant, plus a share of the floor.
const CHUNK_GOAL: (f64, f64) = (48.0, 0.003);
/// Goal for the bits that each further lane costs.
const LANE_GOAL: f64 = 14.0;
/// Goal for the bits a frame that checkpoints cost.
const CHECKPOINT_GOAL: f64 = 1.0;
/// The factor in the paper's formula for the break-even speed of a link.
const BREAK_EVEN_FACTOR: f64 = 1.09;

/// An encoder's configuration with limits for the batches that are measured.
fn encoder_config() -> EncoderConfig {
    EncoderConfig::new(Identity::none())
        .max_frames_per_chunk(LIMITS.max_frames)
        .max_chunk_bytes(LIMITS.max_chunk_bytes)
        .memory_limit(MEMORY_LIMIT)
}

/// A decoder's configuration with these limits.
fn decoder_config() -> DecoderConfig {
    DecoderConfig::default().limits(LIMITS).memory_limit(MEMORY_LIMIT)
}

/// Implementation of the exact network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ArmArg {
    /// The fastest one that this CPU has.
    Auto,
    /// The reference, without SIMD.
    Plain,
    /// Vectors of 128 bits: x86-64, aarch64.
    Portable,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-512 VNNI.
    Avx512,
}

impl ArmArg {
    pub(super) fn arm(self) -> Arm {
        match self {
            ArmArg::Auto => Arm::best(),
            ArmArg::Plain => Arm::Plain,
            ArmArg::Portable => Arm::Portable,
            ArmArg::Avx2 => Arm::Avx2,
            ArmArg::Avx512 => Arm::Avx512Vnni,
        }
    }
}

/// Measure on one core of this machine, or on a device: time, memory, overhead and the break-even link speed.
///
/// The model is random, in the paper's shape (E 768, C 24), unless one is given. Equal seeds give equal results, except
/// for the times.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArgs {
    /// Codec model file or model folder, used instead of the random model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Implementation of the exact network.
    #[arg(long, value_enum, default_value = "auto")]
    arm: ArmArg,
    /// Measure on a device instead: cpu, cuda, cuda:1, metal.
    #[arg(long, conflicts_with_all = ["arm", "lanes", "growth_frame"])]
    device: Option<String>,
    /// Run the networks as tensor operations even if the device has kernels.
    #[arg(long, requires = "device")]
    tensors: bool,
    /// Streams that step together on the device.
    #[arg(long, requires = "device", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    streams: u32,
    /// Threads for the work of each stream that is not done on the device.
    #[arg(long, requires = "device", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// One-frame chunks in a repeat, and frames in a repeat with batches, rounded up to whole chunks.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    frames: u32,
    /// How often every measurement is repeated.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    repeats: u32,
    /// Lanes of the chunks that are measured with more than one.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=64))]
    lanes: u16,
    /// The frame at which growth is measured: a step there is compared with a step at twice the window.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    growth_frame: u32,
    /// Seed of the random model and of the hidden states.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user: the file is not a model, the CPU lacks the arm, the growth frame is not late enough, or
/// decoded integers differ from the encoder's. A missed goal is not an error.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let codec = source::codec(args.model.as_deref(), args.arm.arm(), args.seed)?;
    let window = codec.g_y().window().max(codec.h().map_or(0, |network| network.window()));
    let late = args.growth_frame as usize;
    if late < 2 * window + GROWTH_STEPS {
        bail!("--growth-frame must be at least {}, {GROWTH_STEPS} after twice the window", 2 * window + GROWTH_STEPS);
    }
    let report = Report {
        model: args.model.as_ref().map_or("synthetic".into(), |path| path.display().to_string()),
        hidden_width: codec.model().hidden_width(),
        hyper_prior_width: codec.model().hyper_prior_width(),
        window,
        machine: match &args.device {
            None => format!("{} arm, one core", codec.g_y().arm().name()),
            Some(name) => name.clone(),
        },
        frames: args.frames as usize,
        repeats: args.repeats as usize,
        lanes: args.lanes,
        seed: args.seed,
        figures: Vec::new(),
    };
    let report = match &args.device {
        None => Bench::new(codec, report, late)?.run()?,
        Some(name) => device::run(&codec, report, name, args)?,
    };
    if args.json {
        print(format_args!("{}\n", serde_json::to_string_pretty(&report)?))
    } else {
        print(format_args!("{}", report.table()))
    }
}

/// Milliseconds a token in each repeat, and bits a token.
#[derive(Clone, Debug, Default)]
struct Repeats {
    encode: Vec<f64>,
    decode: Vec<f64>,
    bits: f64,
}

impl Repeats {
    fn add(&mut self, times: &Times, frames: usize) {
        self.encode.push(1e3 * median(&times.encode));
        self.decode.push(1e3 * median(&times.decode));
        self.bits = 8.0 * times.bytes as f64 / frames.max(1) as f64;
    }

    /// Bits, and seconds to encode and decode, for a token.
    fn compressed(&self) -> Compressed {
        Compressed { bits: self.bits, encode: median(&self.encode) / 1e3, decode: median(&self.decode) / 1e3 }
    }
}

struct Bench {
    codec: Arc<Codec>,
    source: Source,
    report: Report,
    late: usize,
    /// Whether the goals for time apply to this model.
    goals: bool,
    bar: ProgressBar,
}

impl Bench {
    fn new(codec: Arc<Codec>, report: Report, late: usize) -> Result<Self> {
        let passes = report.repeats * (2 + 2 * BATCHES.len() + STREAMS.len()) + 4 + 2 * OVERHEAD_BATCHES.len();
        let bar = bar(passes);
        bar.set_message("hidden states");
        let source = Source::new(&codec, report.seed)?;
        let goals = source::has_paper_shape(codec.model());
        Ok(Self { source, goals, codec, report, late, bar })
    }

    fn run(mut self) -> Result<Report> {
        let (lanes, repeats, window) = (self.report.lanes, self.report.repeats, self.report.window);
        let shapes: Vec<(usize, u16)> =
            std::iter::once((1, 1)).chain(BATCHES.iter().flat_map(|batch| [(*batch, 1), (*batch, lanes)])).collect();
        self.pass("fill up to the late frame");
        let growth = Growth::new(&self.codec, &self.source, 2 * window, self.late)?;
        let mut times = vec![Repeats::default(); shapes.len()];
        let mut together = vec![Repeats::default(); STREAMS.len()];
        let mut ratios = Repeats::default();
        // Every repeat measures every shape, so that a slow moment of the machine does not affect one shape alone.
        for _ in 0..repeats {
            for (shape, times) in shapes.iter().zip(&mut times) {
                self.pass(&format!("{} frames a chunk, {} lanes", shape.0, shape.1));
                let chunks = self.report.frames.div_ceil(shape.0);
                let pass = sessions::time(&self.codec, &self.source, window, *shape, chunks)?;
                times.add(&pass, chunks * shape.0);
            }
            for (streams, times) in STREAMS.iter().zip(&mut together) {
                self.pass(&format!("{streams} streams together"));
                let rounds = self.report.frames.div_ceil(*streams).min(32);
                let pass = sessions::time_together(&self.codec, &self.source, window, *streams, rounds)?;
                times.add(&pass, rounds * streams);
            }
            self.pass("growth");
            let [early, late] = growth.time(&self.source)?;
            ratios.encode.push(median(&late.encode) / median(&early.encode));
            ratios.decode.push(median(&late.decode) / median(&early.decode));
        }
        for (shape, times) in shapes.iter().zip(&times) {
            self.add_times(*shape, times);
        }
        for (streams, times) in STREAMS.iter().zip(&together) {
            let section = "One frame of each stream in one call, windows full";
            self.report.add_times(section, format!("encode, {streams} streams"), &times.encode, None);
            self.report.add_times(section, format!("decode, {streams} streams"), &times.decode, None);
        }
        self.add_growth(&ratios, &growth);
        self.add_overhead()?;
        self.add_compressors(&shapes, &times)?;
        self.bar.finish_and_clear();
        Ok(self.report)
    }

    fn pass(&self, what: &str) {
        self.bar.inc(1);
        self.bar.set_message(what.to_string());
    }

    fn add_times(&mut self, (batch, lanes): (usize, u16), times: &Repeats) {
        let (section, goals) = match batch {
            1 => ("One frame a chunk, window full", STEP_GOAL),
            _ => ("Batches, window full", BATCH_GOAL),
        };
        let goal = |goal: f64| self.goals.then_some(goal);
        let (encode, decode) = (goal(goals.0), goal(goals.1));
        let suffix = match (batch, lanes) {
            (1, _) => String::new(),
            (_, 1) => format!(", {batch} frames, 1 lane"),
            _ => format!(", {batch} frames, {lanes} lanes"),
        };
        self.report.add_times(section, format!("encode{suffix}"), &times.encode, encode);
        self.report.add_times(section, format!("decode{suffix}"), &times.decode, decode);
        if batch == 1 {
            self.report.add(section, "size, all chunks", times.bits, "bits a token");
        }
    }

    fn add_growth(&mut self, ratios: &Repeats, growth: &Growth) {
        let section = "Growth along the stream";
        let (early, late) = (2 * self.report.window, self.late);
        for (name, ratios) in [("encode", &ratios.encode), ("decode", &ratios.decode)] {
            let name = format!("{name}: step at frame {late} over step at {early}");
            self.report.add_with_goal(section, name, median(ratios), "", GROWTH_GOAL);
        }
        for (name, held) in [("encoder", growth.memory.encoder), ("decoder", growth.memory.decoder)] {
            for (bytes, frame) in held.into_iter().zip([early, late]) {
                let name = format!("{name}: context and buffers, own account, frame {frame}");
                self.report.add(section, name, bytes as f64 / 1024.0, "KiB");
            }
        }
        if let Some(bytes) = growth.memory.resident_growth {
            let name = format!("both: growth of resident memory, frame {} to {late}", early.midpoint(late));
            self.report.add(section, name, bytes as f64 / 1024.0, "KiB");
        }
    }

    fn add_overhead(&mut self) -> Result<()> {
        let section = "Overhead over the tables' -log2 p";
        let (lanes, frames) = (self.report.lanes, self.report.frames.max(512));
        let goals = [
            (Binding::ByteStream, "one frame a chunk, byte stream", FRAME_GOAL.0),
            (Binding::Message, "one frame a chunk, messages", FRAME_GOAL.1),
        ];
        for (binding, name, goal) in goals {
            self.pass(name);
            let measured = overhead::measure(&self.codec, &self.source, frames, (1, 1), binding)?;
            self.report.add_with_goal(section, name, measured.a_frame(), "bits a frame", goal);
            let name = format!("  checkpoint every 256 frames{}", name.trim_start_matches("one frame a chunk"));
            self.report.add_with_goal(section, name, measured.checkpoints_a_frame(), "bits a frame", CHECKPOINT_GOAL);
        }
        for batch in OVERHEAD_BATCHES {
            self.pass("overhead of batches");
            // More frames than with one-frame chunks, because a chunk is rounded up to whole bytes only once.
            let measure =
                |lanes| overhead::measure(&self.codec, &self.source, 4 * frames, (batch, lanes), Binding::ByteStream);
            let (one, more) = (measure(1)?, measure(lanes)?);
            self.pass("overhead of batches");
            let report = &mut self.report;
            for (measured, lanes) in [(one, "1 lane".to_string()), (more, format!("{lanes} lanes"))] {
                let name = format!("{batch} frames a chunk, {lanes}");
                report.add(section, name, measured.a_frame(), "bits a frame");
            }
            let goal = CHUNK_GOAL.0 + CHUNK_GOAL.1 * one.ideal_a_chunk();
            let name = format!("  chunk of {batch} frames, 1 lane");
            report.add_with_goal(section, name, one.a_chunk(), "bits a chunk", goal);
            let lane = (more.a_chunk() - one.a_chunk()) / f64::from(lanes - 1);
            let name = format!("  chunk of {batch} frames, each further lane");
            report.add_with_goal(section, name, lane, "bits", LANE_GOAL);
        }
        Ok(())
    }

    fn add_compressors(&mut self, shapes: &[(usize, u16)], times: &[Repeats]) -> Result<()> {
        let section = "Beside general compressors, same integers (sizes mean little where the model is random)";
        self.pass("general compressors");
        let width = self.report.hidden_width;
        let context = self.report.window;
        let mut y = Vec::new();
        let mut encoder = midspan::codec::Encoder::new(
            self.codec.clone(),
            midspan::codec::EncoderConfig::new(midspan::wire::Identity::none()),
        )?;
        for frame in 0..self.report.frames {
            crate::side::set_none(&mut encoder, 1)?;
            encoder.push_hidden(self.source.frames(frame, 1))?;
            y.extend_from_slice(&encoder.last_integers().context(KEEPS_INTEGERS)?.y);
        }
        let sequences = compressors::sequences(&y, width, context);
        let mut rows = Vec::new();
        for (shape, times) in shapes.iter().zip(times).filter(|(shape, _)| [1, 128].contains(&shape.0) && shape.1 == 1)
        {
            let name = if shape.0 == 1 { "Midspan, one frame" } else { "Midspan, 128 frames" };
            rows.push((name.to_string(), times.compressed()));
        }
        for compressor in Compressor::ALL {
            let name = format!("{}, {context} frames", compressor.name());
            rows.push((name, compressor.measure(&sequences, self.report.frames)?));
        }
        for (name, measured) in rows {
            self.report.add(section, format!("{name}: size"), measured.bits, "bits a token");
            self.report.add(section, format!("{name}: encode"), 1e3 * measured.encode, "ms a token");
            self.report.add(section, format!("{name}: decode"), 1e3 * measured.decode, "ms a token");
            self.report.add(section, format!("{name}: break-even link"), break_even(width, &measured), "Mbit/s");
        }
        Ok(())
    }
}

/// A progress bar over the passes on standard error, shown only if that is a terminal.
fn bar(passes: usize) -> ProgressBar {
    let bar = ProgressBar::new(passes as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// The speed of a link, Mbit/s, below which coding a token takes less time than it saves against raw f16.
fn break_even(width: usize, measured: &Compressed) -> f64 {
    (16.0 * width as f64 - measured.bits) * BREAK_EVEN_FACTOR / (measured.encode + measured.decode) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_break_even_speed_is_the_papers_formula() {
        let measured = Compressed { bits: 2_288.0, encode: 0.0004, decode: 0.0001 };
        assert!((break_even(768, &measured) - 21.8).abs() < 1e-9);
    }
}
