//! Timed passes over real sessions: hidden states to bytes, and back to hidden states.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::source::Source;
use super::{decoder_config, encoder_config};
use crate::KEEPS_INTEGERS;
use crate::side::{give_none, set_none};
use midspan::codec::{Codec, Decoder, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Input, Push, Together};

/// Frames of the chunks that fill a context, at most 512.
const FILL: usize = 128;
/// How many steps around a place in the stream are timed to measure growth.
pub(super) const GROWTH_STEPS: usize = 200;
/// How many steps are timed at one place before switching to the other, so that other load on the machine affects both.
const TURN: usize = 20;

/// Seconds a frame, for each chunk.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    /// Encoding: quantiser, h, g_y, coder and container.
    pub encode: Vec<f64>,
    /// Decoding: container, g_y, coder and reconstruction.
    pub decode: Vec<f64>,
    /// Bytes of all timed chunks, checkpoints included.
    pub bytes: usize,
}

/// Both ends of a stream.
#[derive(Clone)]
struct Pair {
    encoder: Encoder,
    decoder: Decoder,
    /// Index of the next frame.
    at: usize,
}

impl Pair {
    fn new(codec: &Arc<Codec>, config: EncoderConfig) -> Result<Self> {
        Ok(Self {
            encoder: Encoder::new(codec.clone(), config)?,
            decoder: Decoder::new(codec.clone(), decoder_config())?,
            at: 0,
        })
    }

    /// Runs the stream up to frame `end`, untimed.
    fn fill(&mut self, source: &Source, end: usize) -> Result<()> {
        while self.at < end {
            let count = FILL.min(end - self.at);
            self.chunks(source, count, 1, &mut Times::default())?;
        }
        Ok(())
    }

    /// Encodes all `chunks` chunks of `batch` frames before it decodes them, so that neither end finds the other's
    /// weights in the cache. Compares the decoder's integers with the encoder's outside the timed part.
    fn chunks(&mut self, source: &Source, batch: usize, chunks: usize, times: &mut Times) -> Result<()> {
        let mut sent = Vec::with_capacity(chunks);
        for _ in 0..chunks {
            let hidden = source.frames(self.at, batch);
            let clock = Instant::now();
            set_none(&mut self.encoder, batch)?;
            self.encoder.push_hidden(hidden)?;
            let bytes = self.encoder.take_bytes()?;
            times.encode.push(clock.elapsed().as_secs_f64() / batch as f64);
            times.bytes += bytes.len();
            sent.push((bytes, self.encoder.last_integers().context(KEEPS_INTEGERS)?.y.clone()));
            self.at += batch;
        }
        for (bytes, y) in sent {
            // There is more than one only if a batch exceeds the byte limit of a chunk.
            let mut parts = Vec::with_capacity(1);
            let clock = Instant::now();
            self.decoder.push(&bytes)?;
            loop {
                match self.decoder.poll()? {
                    DecoderPoll::Event(DecoderEvent::Frames(frames)) => parts.push(frames),
                    DecoderPoll::Event(DecoderEvent::SideWanted { count, .. }) => give_none(&mut self.decoder, count)?,
                    DecoderPoll::Event(_) => {}
                    DecoderPoll::NeedMore | DecoderPoll::End => break,
                }
            }
            times.decode.push(clock.elapsed().as_secs_f64() / batch as f64);
            if parts.iter().filter_map(|frames| frames.integers.as_ref()).flat_map(|integers| &integers.y).ne(&y) {
                bail!("the decoder's integers before frame {} are not the encoder's", self.at);
            }
        }
        Ok(())
    }
}

/// Fills the context with `window` frames, then times `chunks` chunks of `batch` frames in `lanes` lanes.
///
/// # Errors
/// A session fails, or decoded integers differ from the encoder's.
pub(super) fn time(
    codec: &Arc<Codec>,
    source: &Source,
    window: usize,
    (batch, lanes): (usize, u16),
    chunks: usize,
) -> Result<Times> {
    let mut pair = Pair::new(codec, encoder_config().lanes(lanes))?;
    pair.fill(source, window)?;
    // The first chunk of a size allocates the buffers, so it is not timed.
    pair.chunks(source, batch, 1, &mut Times::default())?;
    let mut times = Times::default();
    pair.chunks(source, batch, chunks, &mut times)?;
    Ok(times)
}

/// Fills the contexts with `window` frames, then times `rounds` one-frame steps of `streams` streams, each step in one
/// call.
///
/// # Errors
/// A session fails, or decoded integers differ from the encoder's.
pub(super) fn time_together(
    codec: &Arc<Codec>,
    source: &Source,
    window: usize,
    streams: usize,
    rounds: usize,
) -> Result<Times> {
    let mut filled = Pair::new(codec, encoder_config())?;
    filled.fill(source, window)?;
    let mut pairs = vec![filled; streams];
    let mut together = Together::default();
    let mut times = Times::default();
    for round in 0..=rounds {
        let clock = Instant::now();
        // From here on every stream gets different frames.
        let hidden = |stream: usize| Input::Hidden(source.frames(window + round + 7 * stream, 1));
        for pair in &mut pairs {
            set_none(&mut pair.encoder, 1)?;
        }
        let mut pushes: Vec<Push<'_>> = pairs
            .iter_mut()
            .enumerate()
            .map(|(stream, pair)| Push { encoder: &mut pair.encoder, input: hidden(stream) })
            .collect();
        together.push(&mut pushes).into_iter().collect::<midspan::error::Result<()>>()?;
        let sent = pairs.iter_mut().map(|pair| pair.encoder.take_bytes());
        let sent = sent.collect::<midspan::error::Result<Vec<_>>>()?;
        let encode = clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        for (pair, bytes) in pairs.iter_mut().zip(&sent) {
            pair.decoder.push(bytes)?;
        }
        let mut parts = vec![Vec::new(); streams];
        let mut waiting: Vec<(&mut Decoder, &mut Vec<i16>)> =
            pairs.iter_mut().map(|pair| &mut pair.decoder).zip(&mut parts).collect();
        while !waiting.is_empty() {
            let mut decoders: Vec<&mut Decoder> = waiting.iter_mut().map(|(decoder, _)| &mut **decoder).collect();
            let polls = together.poll(&mut decoders);
            for ((decoder, part), poll) in waiting.iter_mut().zip(polls) {
                match poll? {
                    DecoderPoll::Event(DecoderEvent::Frames(frames)) => {
                        **part = frames.integers.context(KEEPS_INTEGERS)?.y;
                    }
                    DecoderPoll::Event(DecoderEvent::SideWanted { count, .. }) => give_none(decoder, count)?,
                    _ => {}
                }
            }
            waiting.retain(|(_, part)| part.is_empty());
        }
        let decode = clock.elapsed().as_secs_f64();
        if !pairs.iter().zip(&parts).all(|(pair, y)| pair.encoder.last_integers().is_some_and(|sent| sent.y == *y)) {
            bail!("a decoder's integers are not its encoder's");
        }
        // The first round allocates the buffers, so it is not timed.
        if round > 0 {
            times.encode.push(encode / streams as f64);
            times.decode.push(decode / streams as f64);
            times.bytes += sent.iter().map(|bytes| bytes.len()).sum::<usize>();
        }
    }
    Ok(times)
}

/// Bytes that sessions report for their context, at two places in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Encoder, early and late.
    pub encoder: [usize; 2],
    /// Decoder, early and late.
    pub decoder: [usize; 2],
    /// By how many bytes the process's resident memory grew from halfway between the two places to the late one; `None`
    /// if the system does not report it.
    pub resident_growth: Option<i64>,
}

/// Sessions at two places of one stream.
pub(super) struct Growth {
    early: Pair,
    late: Pair,
    /// The memory that the sessions held at both places.
    pub memory: Memory,
}

impl Growth {
    /// Runs one stream up to half the timed steps before frame `early`, and another up to half of them before frame
    /// `late`.
    ///
    /// # Errors
    /// Those of the sessions.
    pub(super) fn new(codec: &Arc<Codec>, source: &Source, early: usize, late: usize) -> Result<Self> {
        let mut late_pair = Pair::new(codec, encoder_config())?;
        late_pair.fill(source, early.saturating_sub(GROWTH_STEPS / 2))?;
        let early_pair = late_pair.clone();
        let held = |pair: &Pair| (pair.encoder.memory_bytes(), pair.decoder.memory_bytes());
        let before = held(&late_pair);
        // By halfway the allocator has released the memory that was in use before the sessions.
        late_pair.fill(source, early.midpoint(late))?;
        let resident = resident_bytes();
        late_pair.fill(source, late.saturating_sub(GROWTH_STEPS / 2))?;
        let after = held(&late_pair);
        let resident_growth = resident_bytes().zip(resident).map(|(after, before)| after - before);
        Ok(Self {
            early: early_pair,
            late: late_pair,
            memory: Memory { encoder: [before.0, after.0], decoder: [before.1, after.1], resident_growth },
        })
    }

    /// Times one-frame chunks around both places, on forks of the sessions. Returns early, then late.
    ///
    /// # Errors
    /// Those of the sessions.
    pub(super) fn time(&self, source: &Source) -> Result<[Times; 2]> {
        let (mut early, mut late) = (self.early.clone(), self.late.clone());
        let mut times = [Times::default(), Times::default()];
        // A fork allocates its buffers in its first step, so it is not timed.
        early.chunks(source, 1, 1, &mut Times::default())?;
        late.chunks(source, 1, 1, &mut Times::default())?;
        for _ in 0..GROWTH_STEPS / TURN {
            early.chunks(source, 1, TURN, &mut times[0])?;
            late.chunks(source, 1, TURN, &mut times[1])?;
        }
        Ok(times)
    }
}

/// Resident memory of this process, in bytes.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<i64>().ok()?.checked_mul(1024)
}

/// The median; NaN if there are no values.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
