//! Sessions on a device: tensors of hidden states to bytes, and back to tensors.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use indicatif::ProgressBar;

use super::report::Report;
use super::sessions::{Times, median};
use super::source::{self, Source};
use super::{BenchArgs, Repeats, bar, break_even, decoder_config, encoder_config, overhead};
use crate::KEEPS_INTEGERS;
use crate::compressors::{self, Compressed, Compressor};
use crate::side::{give_none, set_none};
use midspan::adapter::Threads;
use midspan::codec::{Codec, Decoder, DecoderEvent, DecoderPoll, Encoder, Input, Push, Together, Verdict};
use midspan::engine::Engine;
use midspan::stream::Binding;
#[cfg(feature = "cuda")]
use midspan_device::{Coder, KernelCodec, Machine};
use midspan_device::{Error, TensorCodec};

/// Frames in a batch.
const BATCH: usize = 512;
/// Lanes in a batch.
const LANES: [u16; 4] = [1, 16, 64, 256];
/// Frames of the chunks that fill a context.
const FILL: usize = 128;
/// Goal for a step: milliseconds to encode, and to decode.
const STEP_GOAL: f64 = 0.15;
/// Goal for batches: milliseconds a token to encode and decode, and percent of overhead.
const BATCH_GOAL: (f64, f64) = (0.010, 1.5);
/// Goal for streams together: milliseconds a token to encode and decode, that is 500,000 tokens a second.
const TOGETHER_GOAL: f64 = 0.002;
/// Goal for the break-even link: at least this many Mbit/s.
const BREAK_EVEN_GOAL: f64 = 1_000.0;

/// What is timed: the engine, and the number of streams, of frames a chunk and of lanes.
struct Shape<E> {
    engine: Arc<E>,
    streams: usize,
    batch: usize,
    lanes: u16,
}

/// The engines of a run, which give the same bytes.
struct Engines<E> {
    name: &'static str,
    device: Device,
    /// For chunks of one frame of one stream: payloads are decoded on the CPU.
    alone: Arc<E>,
    /// The same, with payloads decoded on the device, if the device can.
    on_device: Option<Arc<E>>,
    /// For everything else: the engine decides where payloads are decoded.
    many: Arc<E>,
}

/// Runs everything on a device.
///
/// # Errors
/// The device is missing, a session fails, or a decoder does not confirm what was sent.
pub(super) fn run(codec: &Arc<Codec>, mut report: Report, name: &str, args: &BenchArgs) -> Result<Report> {
    let device = crate::device::open(name)?;
    report.machine = format!("device {name}");
    #[cfg(feature = "cuda")]
    if device.is_cuda() && !args.tensors {
        let machine = Machine::cuda(&device)
            .with_context(|| format!("--device {name} has no kernels; --tensors measures tensor operations there"))?;
        let kernels = KernelCodec::new(Arc::clone(codec), &machine)?;
        let engines = Engines {
            name: "kernels",
            device,
            alone: Arc::new(kernels.clone().with_coder(Coder::Cpu)),
            on_device: Some(Arc::new(kernels.clone().with_coder(Coder::Device))),
            many: Arc::new(kernels),
        };
        return measure(codec, report, engines, args);
    }
    let tensors = Arc::new(TensorCodec::new(Arc::clone(codec), &device)?);
    let engines = Engines { name: "tensors", device, alone: Arc::clone(&tensors), on_device: None, many: tensors };
    measure(codec, report, engines, args)
}

/// Measures engines.
fn measure<E>(codec: &Arc<Codec>, mut report: Report, engines: Engines<E>, args: &BenchArgs) -> Result<Report>
where
    E: Engine<Input = Tensor, Hidden = Tensor, Error = Error>,
{
    let (streams, threads) = (args.streams as usize, usize::from(args.threads));
    report.machine = format!("{}, {}, {threads} threads beside it", report.machine, engines.name);
    let goals = source::has_paper_shape(codec.model()) && engines.on_device.is_some();
    let goal = |value: f64| goals.then_some(value);
    let source = Source::new(codec, report.seed)?;
    let bench = Bench {
        codec,
        device: engines.device,
        source,
        window: report.window,
        threads: Arc::new(Threads::new(threads)),
    };

    let one = |engine: &Arc<E>| Shape { engine: Arc::clone(engine), streams: 1, batch: 1, lanes: 1 };
    let mut shapes = vec![one(&engines.alone), Shape { streams, ..one(&engines.many) }];
    shapes.extend(LANES.map(|lanes| Shape { batch: BATCH, lanes, ..one(&engines.many) }));
    shapes.extend(engines.on_device.as_ref().map(one));
    let bar = bar(report.repeats * shapes.len() + LANES.len() + 1);
    let mut times = vec![Repeats::default(); shapes.len()];
    for _ in 0..report.repeats {
        for (shape, times) in shapes.iter().zip(&mut times) {
            pass(&bar, &format!("{} streams, {} frames a chunk, {} lanes", shape.streams, shape.batch, shape.lanes));
            let rounds = report.frames.div_ceil(shape.batch * shape.streams).max(2);
            times.add(&bench.time(shape, rounds)?, rounds * shape.batch * shape.streams);
        }
    }

    let section = "One frame of one stream a chunk, window full";
    let (alone, others) = times.split_at(2);
    let (on_cpu, together) = (&alone[0], &alone[1]);
    let (batches, on_device) = others.split_at(LANES.len());
    report.add_times(section, "encode", &on_cpu.encode, goal(STEP_GOAL));
    report.add_times(section, "decode, payload on the CPU", &on_cpu.decode, goal(STEP_GOAL));
    for times in on_device {
        report.add_times(section, "decode, payload on the device", &times.decode, goal(STEP_GOAL));
    }

    let section = "One frame of each stream in one call, windows full";
    report.add_times(section, format!("encode, {streams} streams"), &together.encode, None);
    report.add_times(section, format!("decode, {streams} streams"), &together.decode, None);
    let both = both(together);
    report.add_times(section, "both", &both, goal(TOGETHER_GOAL));
    report.add(section, "both, tokens a second", 1e3 / median(&both), "tokens/s");

    let section = "Batches of 512 frames, window full";
    let mut best: Option<(u16, Compressed)> = None;
    for (shape, times) in shapes[2..].iter().zip(batches) {
        pass(&bar, "overhead");
        let lanes = shape.lanes;
        let sum = self::both(times);
        report.add_times(section, format!("encode, {lanes} lanes"), &times.encode, None);
        report.add_times(section, format!("decode, {lanes} lanes"), &times.decode, None);
        report.add_times(section, format!("both, {lanes} lanes"), &sum, goal(BATCH_GOAL.0));
        let measured = overhead::measure(codec, &bench.source, 2 * BATCH, (BATCH, lanes), Binding::ByteStream)?;
        let percent = 100.0 * measured.a_chunk() / measured.ideal_a_chunk();
        report.add_with_goal(section, format!("overhead, {lanes} lanes"), percent, "%", BATCH_GOAL.1);
        let compressed = times.compressed();
        let seconds = |c: &Compressed| c.encode + c.decode;
        if percent <= BATCH_GOAL.1 && best.as_ref().is_none_or(|(_, best)| seconds(&compressed) < seconds(best)) {
            best = Some((lanes, compressed));
        }
    }

    pass(&bar, "general compressors");
    bench.add_compressors(&mut report, best, goals)?;
    bar.finish_and_clear();
    Ok(report)
}

fn pass(bar: &ProgressBar, what: &str) {
    bar.inc(1);
    bar.set_message(what.to_string());
}

/// The sum of encoding and decoding times, for each repeat.
fn both(times: &Repeats) -> Vec<f64> {
    times.encode.iter().zip(&times.decode).map(|(encode, decode)| encode + decode).collect()
}

struct Bench<'a> {
    codec: &'a Arc<Codec>,
    device: Device,
    source: Source,
    window: usize,
    threads: Arc<Threads>,
}

impl Bench<'_> {
    fn tensor(&self, first: usize, frames: usize) -> Result<Tensor> {
        let width = self.codec.model().hidden_width();
        Ok(Tensor::from_slice(self.source.frames(first, frames), (frames, width), &self.device)?)
    }

    /// Fills the contexts with `window` frames, then times `rounds` rounds. In each round every stream sends one chunk.
    fn time<E>(&self, shape: &Shape<E>, rounds: usize) -> Result<Times>
    where
        E: Engine<Input = Tensor, Hidden = Tensor, Error = Error>,
    {
        let config = encoder_config().lanes(shape.lanes);
        let mut encoder = Encoder::new(Arc::clone(&shape.engine), config)?;
        let mut decoder = Decoder::new(Arc::clone(&shape.engine), decoder_config())?;
        encoder.keep_integers(false);
        decoder.keep_integers(false);
        let mut together = match shape.streams {
            1 => Together::default(),
            _ => Together::new(self.threads.clone()),
        };
        for first in (0..self.window).step_by(FILL) {
            set_none(&mut encoder, FILL.min(self.window - first))?;
            encoder.push_hidden(&self.tensor(first, FILL.min(self.window - first))?)?;
            decoder.push(&encoder.take_bytes()?)?;
            poll(&mut together, &mut [&mut decoder])?;
        }
        let mut encoders = vec![encoder; shape.streams];
        let mut decoders = vec![decoder; shape.streams];
        let mut times = Times::default();
        for round in 0..=rounds {
            // From here on every stream gets different frames.
            let hidden = |stream: usize| self.tensor(self.window + round * shape.batch + 7 * stream, shape.batch);
            let hidden = (0..shape.streams).map(hidden).collect::<Result<Vec<_>>>()?;
            self.device.synchronize()?;
            let frames = (shape.streams * shape.batch) as f64;
            let clock = Instant::now();
            for encoder in &mut encoders {
                set_none(encoder, shape.batch)?;
            }
            let pushes = encoders.iter_mut().zip(&hidden);
            let mut pushes: Vec<Push<'_, E>> =
                pushes.map(|(encoder, hidden)| Push { encoder, input: Input::Hidden(hidden) }).collect();
            together.push(&mut pushes).into_iter().collect::<Result<(), Error>>()?;
            let sent = encoders.iter_mut().map(|encoder| encoder.take_bytes());
            let sent = sent.collect::<midspan::error::Result<Vec<_>>>()?;
            let encode = clock.elapsed().as_secs_f64() / frames;
            let clock = Instant::now();
            for (decoder, bytes) in decoders.iter_mut().zip(&sent) {
                decoder.push(bytes)?;
            }
            poll(&mut together, &mut decoders.iter_mut().collect::<Vec<_>>())?;
            self.device.synchronize()?;
            let decode = clock.elapsed().as_secs_f64() / frames;
            // The first round allocates contexts and buffers, so it is not timed.
            if round > 0 {
                times.encode.push(encode);
                times.decode.push(decode);
                times.bytes += sent.iter().map(|bytes| bytes.len()).sum::<usize>();
            }
        }
        for (encoder, decoder) in encoders.iter_mut().zip(&mut decoders) {
            encoder.checkpoint()?;
            decoder.push(&encoder.take_bytes()?)?;
            if poll(&mut together, &mut [decoder])? == 0 {
                bail!("a decoder does not confirm what its encoder sent");
            }
        }
        Ok(times)
    }

    fn add_compressors(&self, report: &mut Report, best: Option<(u16, Compressed)>, goals: bool) -> Result<()> {
        let section = "Beside zstd -3, same integers, on one core (sizes mean little where the model is random)";
        let width = self.codec.model().hidden_width();
        let mut encoder = Encoder::new(Arc::clone(self.codec), encoder_config())?;
        let mut y = Vec::new();
        for first in (0..2 * BATCH).step_by(BATCH) {
            set_none(&mut encoder, BATCH)?;
            encoder.push_hidden(self.source.frames(first, BATCH))?;
            y.extend_from_slice(&encoder.last_integers().context(KEEPS_INTEGERS)?.y);
        }
        let sequences = compressors::sequences(&y, width, self.window);
        let zstd = Compressor::Zstd(3).measure(&sequences, 2 * BATCH)?;
        let best = best.map(|(lanes, measured)| (format!("Midspan, 512 frames, {lanes} lanes"), measured));
        let rows = best.into_iter().chain([(format!("zstd -3, {} frames", self.window), zstd)]);
        for (name, measured) in rows {
            report.add(section, format!("{name}: size"), measured.bits, "bits a token");
            report.add(section, format!("{name}: both ways"), 1e3 * (measured.encode + measured.decode), "ms a token");
            let link = break_even(width, &measured);
            let note = if goals && name.starts_with("Midspan") {
                format!(" (goal: {BREAK_EVEN_GOAL})")
            } else {
                String::new()
            };
            report.add(section, format!("{name}: break-even link{note}"), link, "Mbit/s");
        }
        Ok(())
    }
}

/// Polls until all decoders need more input. Returns how many checkpoints were confirmed.
fn poll<E: Engine<Error = Error>>(together: &mut Together<E>, decoders: &mut [&mut Decoder<E>]) -> Result<usize> {
    let mut waiting: Vec<&mut Decoder<E>> = decoders.iter_mut().map(|decoder| &mut **decoder).collect();
    let mut confirmed = 0;
    while !waiting.is_empty() {
        let polls = together.poll(&mut waiting);
        let mut busy = Vec::with_capacity(polls.len());
        for (decoder, poll) in waiting.iter_mut().zip(polls) {
            let poll = poll?;
            if let DecoderPoll::Event(DecoderEvent::SideWanted { count, .. }) = &poll {
                give_none(decoder, *count)?;
            }
            if let DecoderPoll::Event(DecoderEvent::Verdict { verdict, .. }) = &poll {
                confirmed += usize::from(*verdict == Verdict::YConfirmed);
            }
            busy.push(matches!(poll, DecoderPoll::Event(_)));
        }
        let mut busy = busy.into_iter();
        waiting.retain(|_| busy.next().unwrap_or(false));
    }
    Ok(confirmed)
}
