//! One pass over a text's hidden states: encoder, bytes and decoder, and what each costs.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

use super::{Measure, Sequence, Tokens};
use crate::KEEPS_INTEGERS;
use crate::terminal::say;
use crate::warning::Warning;
use midspan::adapter::{Threads, hex};
use midspan::codec::{Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Sent, SideDelivery};
use midspan::engine::cost::Cost;
use midspan::stream::Limits;
use midspan_train::calibrate::expected::side_indices;

/// The result of a pass.
pub(super) struct Run {
    /// Frames in a chunk.
    pub batch: usize,
    /// Bytes of all sequences after the stream header: chunks, checkpoints and the resets between sequences.
    pub bytes: usize,
    /// The cost of the integers by the tables.
    pub cost: Cost,
    /// What the encoder counted.
    pub sent: Sent,
    /// The most times the expected bits that recent frames took.
    pub most_of_expected: Option<f64>,
    /// Whether the encoder found its hidden states unlike those that the codec was made for.
    pub unlike: bool,
    /// Seconds spent in the encoder.
    pub encode_seconds: f64,
    /// Seconds spent in the decoder.
    pub decode_seconds: f64,
    /// W of every frame.
    pub w: Vec<i16>,
    /// Y of every frame.
    pub y: Vec<i16>,
    /// Decoded hidden states of every frame.
    pub hidden: Vec<f32>,
    /// SHA-256 of the bytes.
    pub stream_digest: String,
}

/// Sends every sequence through the codec in chunks of `batch` frames.
///
/// # Errors
/// Decoded integers differ from the encoder's.
pub(super) fn run(
    measure: &Measure<'_>,
    config: &EncoderConfig,
    sequences: &[Sequence],
    batch: usize,
    (bar, warning): (&ProgressBar, &mut Warning),
) -> Result<Run> {
    let Measure { codec, threads, tokens, .. } = measure;
    let width = codec.model().hidden_width();
    // Both ends are trusted, so batches may be as long as the user wants, and lanes as many.
    let limits = Limits::FORMAT.max_chunk_bytes(1 << 26);
    let most = u32::try_from(batch).unwrap_or(u32::MAX).clamp(1, limits.max_frames);
    let config = config
        .clone()
        .max_frames_per_chunk(most)
        .max_chunk_bytes(limits.max_chunk_bytes)
        .target_horizon(config.target_horizon.max(most).min(limits.target_horizon))
        .memory_limit(usize::MAX);
    let mut encoder = Encoder::new(codec.clone(), config)?;
    encoder.track_cost(true);
    let config = DecoderConfig::default().limits(limits).memory_limit(usize::MAX).frames_per_poll(usize::MAX);
    let mut decoder = Decoder::new(codec.clone(), config)?;
    if *threads > 1 {
        encoder.set_executor(Arc::new(Threads::new(*threads)));
        decoder.set_executor(Arc::new(Threads::new(*threads)));
    }
    decoder.push(&encoder.take_bytes()?)?;
    let mut run = Run {
        batch,
        bytes: 0,
        cost: Cost::default(),
        sent: Sent::default(),
        most_of_expected: None,
        unlike: false,
        encode_seconds: 0.0,
        decode_seconds: 0.0,
        w: Vec::new(),
        y: Vec::new(),
        hidden: Vec::new(),
        stream_digest: String::new(),
    };
    let delivery = if *tokens == Tokens::Sent { SideDelivery::Sent } else { SideDelivery::Known };
    let mut stream = Sha256::new();
    for (i, sequence) in sequences.iter().enumerate() {
        if i > 0 {
            encoder.reset()?;
        }
        let (before_w, before_y) = (run.w.len(), run.y.len());
        let ids = (*tokens != Tokens::None).then_some(&sequence.ids[..]);
        let side = side_indices(codec, ids, sequence.frames());
        // Frames of the sequences before this one.
        let first = run.w.len() / codec.model().hyper_prior_width();
        let mut indices = side.chunks(batch);
        for chunk in sequence.hidden.chunks(batch * width) {
            if let Some(indices) = indices.next() {
                encoder.set_side(indices, delivery)?;
            }
            let clock = Instant::now();
            encoder.push_hidden(chunk)?;
            run.encode_seconds += clock.elapsed().as_secs_f64();
            let recent = encoder.recently_sent();
            if recent.compared_frames >= Sent::JUDGED_FROM {
                let ratio = recent.compared_bits as f64 / recent.expected_bits() as f64;
                run.most_of_expected = Some(run.most_of_expected.map_or(ratio, |most| most.max(ratio)));
            }
            let unlike = encoder.unlike();
            run.unlike |= unlike.is_some();
            if let Some(warning) = warning.line(unlike) {
                bar.suspend(|| say(&warning));
            }
            run.cost = run.cost.plus(encoder.last_cost().unwrap_or_default());
            let sent = encoder.last_integers().context(KEEPS_INTEGERS)?;
            run.w.extend_from_slice(&sent.w);
            run.y.extend_from_slice(&sent.y);
        }
        let sent = encoder.take_bytes()?;
        run.bytes += sent.len();
        stream.update(&sent);
        let clock = Instant::now();
        decoder.push(&sent)?;
        let (mut w, mut y) = (Vec::new(), Vec::new());
        loop {
            match decoder.poll()? {
                DecoderPoll::Event(DecoderEvent::Frames(frames)) => {
                    let integers = frames.integers.context(KEEPS_INTEGERS)?;
                    w.extend(integers.w);
                    y.extend(integers.y);
                    run.hidden.extend(frames.hidden);
                }
                DecoderPoll::Event(DecoderEvent::HyperPrior(hyper_prior)) => w.extend(hyper_prior.w),
                DecoderPoll::Event(DecoderEvent::Targets(targets)) => {
                    y.extend(targets.y);
                    run.hidden.extend(targets.hidden);
                }
                DecoderPoll::Event(DecoderEvent::SideWanted { index, count }) => {
                    let place = usize::try_from(index).unwrap_or(usize::MAX).saturating_sub(first);
                    decoder.give_side(side.get(place..place.saturating_add(count)).unwrap_or(&[]))?;
                }
                DecoderPoll::Event(_) => {}
                _ => break,
            }
        }
        run.decode_seconds += clock.elapsed().as_secs_f64();
        if w != run.w[before_w..] || y != run.y[before_y..] {
            bail!("sequence {i}: the decoder's integers are not the encoder's");
        }
        bar.inc(sequence.frames() as u64);
    }
    run.sent = encoder.sent();
    run.stream_digest = hex(&stream.finalize());
    Ok(run)
}

/// SHA-256 of integers as i16le.
pub(super) fn digest(values: &[i16]) -> String {
    let mut digest = Sha256::new();
    for value in values {
        digest.update(value.to_le_bytes());
    }
    hex(&digest.finalize())
}
