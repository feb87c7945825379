//! Measures a frozen codec on a text's hidden states: real bytes, and the second half's predictions from the decoded
//! states.

mod stream;
mod task;

use std::cell::RefCell;
use std::sync::Arc;

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::compressors::baseline;
use super::warning::Warning;
use midspan::codec::{Codec, EncoderConfig};
use midspan_host::split::SplitHost;
use midspan_train::data::HeldOut;
use stream::Run;
pub(crate) use task::{Task, WithoutCodec, effect};

/// A sequence that begins with an empty context.
pub(crate) struct Sequence {
    /// Hidden states at the split, `[T, E]`.
    pub hidden: Vec<f32>,
    /// The token of each frame, T in all.
    pub ids: Vec<u32>,
    /// The token that follows each hidden state, T in all.
    pub targets: Vec<u32>,
}

impl Sequence {
    /// T.
    pub(crate) fn frames(&self) -> usize {
        self.targets.len()
    }
}

/// A text's hidden states at the split, in sequences of the host's context length. The text's last token is only a
/// target.
///
/// # Errors
/// When a computation fails.
pub(crate) fn sequences(host: &dyn SplitHost, text: &HeldOut) -> candle_core::Result<Vec<Sequence>> {
    let windows = text.windows(host.context(), host.context());
    let sequence = |(ids, frames): (&[u32], usize)| {
        let inputs = Tensor::from_slice(&ids[..frames], (1, frames), &Device::Cpu)?;
        let hidden = host.head(&inputs)?.flatten_all()?.to_vec1()?; // [1, T, E] -> [T, E]
        Ok(Sequence { hidden, ids: ids[..frames].to_vec(), targets: ids[1..].to_vec() })
    };
    windows.into_iter().map(sequence).collect()
}

/// How the decoder gets the frames' tokens, for codecs that take them as side indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tokens {
    /// Both ends know them, as in generation: they take no bytes.
    Known,
    /// The stream carries them ahead of their frames, as for a prompt.
    Sent,
    /// No frame has a token.
    None,
}

/// The settings of a measurement.
pub(crate) struct Measure<'a> {
    /// The host.
    pub host: &'a dyn SplitHost,
    /// The codec.
    pub codec: Arc<Codec>,
    /// The hidden states that are sent.
    pub sequences: &'a [Sequence],
    /// Keep the codec's context from one sequence to the next.
    pub one_context: bool,
    /// Chunk sizes in frames, with one pass for each.
    pub batches: Vec<usize>,
    /// How the decoder gets the tokens.
    pub tokens: Tokens,
    /// Threads for the exact network, the lanes and the host.
    pub threads: usize,
    /// Do not run the second half on the result.
    pub rate_only: bool,
    /// Whether the command has warned of hidden states that are unlike those that the codec was made for.
    pub warning: &'a RefCell<Warning>,
}

/// The result of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Frames sent.
    pub frames: usize,
    /// The host's context length.
    pub sequence_frames: usize,
    /// Whether the codec's context was kept from one sequence to the next.
    pub one_context: bool,
    /// Implementation of the exact network.
    pub arm: String,
    /// Threads.
    pub threads: usize,
    /// Lanes in a chunk.
    pub lanes: u16,
    /// Quality index.
    pub quality: u8,
    /// Weight of one bit when Y was chosen, in squared quantiser steps of error.
    pub rate_weight: f64,
    /// How the decoder got the tokens, if the codec takes any. Where the stream carries them, they count as overhead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// Bits of the check in every chunk. They are part of the measured bits; reported rates use streams without checks.
    #[serde(default)]
    pub check_bits: usize,
    /// Bits a frame of zstd -19 on the same Y, by sequences of the host's context length.
    pub zstd_bits: f64,
    /// Bits a frame of Deflate -9 on the same sequences.
    pub deflate_bits: f64,
    /// Bits of a token's id.
    pub token_id_bits: f64,
    /// Figures of the second half's predictions, if they were asked for.
    #[serde(flatten)]
    pub task: Option<Task>,
    /// Share of passages whose last word is predicted correctly: through the codec, and without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_word: Option<[f64; 2]>,
    /// SHA-256 of every W, i16le.
    pub w_sha256: String,
    /// SHA-256 of every Y, i16le.
    pub y_sha256: String,
    /// One entry for each chunk size.
    pub batches: Vec<Batch>,
}

/// What chunks of one size cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Batch {
    /// Frames in a chunk.
    pub batch: usize,
    /// Bits a frame, counted from real bytes: chunks, checkpoints and the resets between sequences.
    pub bits: f64,
    /// W by the tables, bits a frame.
    pub hyper_prior_bits: f64,
    /// Y by the tables, bits a frame.
    pub target_bits: f64,
    /// All other bits a frame.
    pub overhead_bits: f64,
    /// Bits for each value of Y.
    pub bits_per_element: f64,
    /// The bits divided by those of zstd.
    pub share_of_zstd: f64,
    /// The bits divided by those of Deflate.
    pub share_of_deflate: f64,
    /// The bits divided by those of the hidden states at 16 bits a value.
    pub share_of_f16: f64,
    /// Bits a frame of the payloads of W and Y.
    #[serde(default)]
    pub payload_bits: f64,
    /// Bits a frame that the codec expects of them in chunks of one frame, if it says so.
    #[serde(default)]
    pub expected_bits: Option<f64>,
    /// The most times the expected bits that recent frames took, of which a session judges whether they are unlike those
    /// that the codec was made for. `None` without expected bits, or with fewer than 128 frames.
    #[serde(default)]
    pub most_of_expected: Option<f64>,
    /// Values of W and Y that their tables do not hold.
    #[serde(default)]
    pub escaped: u64,
    /// Values of Y outside the range of the quality, which were clamped.
    #[serde(default)]
    pub clipped: u64,
    /// Whether the session found its hidden states unlike those that the codec was made for.
    #[serde(default)]
    pub unlike: bool,
    /// Milliseconds a frame in the encoder.
    pub encode_ms: f64,
    /// Milliseconds a frame in the decoder.
    pub decode_ms: f64,
    /// SHA-256 of the bytes.
    pub stream_sha256: String,
}

impl Measure<'_> {
    /// Sends all sequences once for each size of chunks.
    ///
    /// # Errors
    /// Decoded integers differ from the encoder's; W differs between chunk sizes, or Y does although the rate has no
    /// weight; or a session fails.
    pub(crate) fn run(&self, config: &EncoderConfig) -> Result<Report> {
        let Self { host, codec, sequences, .. } = self;
        let frames: usize = sequences.iter().map(Sequence::frames).sum();
        let bar = ProgressBar::new((frames * self.batches.len()) as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} frames, {eta} left") {
            bar.set_style(style);
        }
        let joined = self.one_context.then(|| {
            [Sequence {
                hidden: sequences.iter().flat_map(|sequence| sequence.hidden.iter().copied()).collect(),
                ids: sequences.iter().flat_map(|sequence| sequence.ids.iter().copied()).collect(),
                targets: sequences.iter().flat_map(|sequence| sequence.targets.iter().copied()).collect(),
            }]
        });
        let coded = joined.as_ref().map_or(*sequences, |joined| &joined[..]);
        let rate_weight = config.rate_weight.unwrap_or_else(|| codec.model().rate_weight(config.quality.into()));
        let mut runs: Vec<Run> = Vec::new();
        for &batch in &self.batches {
            let run = stream::run(self, config, coded, batch, (&bar, &mut self.warning.borrow_mut()))?;
            // Equal frames share a choice of Y if they are in the same chunk (spec 6.8).
            if let Some(first) = runs.first()
                && (first.w != run.w || rate_weight == 0.0 && first.y != run.y)
            {
                bail!("batches of {} and of {} frames give other integers", first.batch, run.batch);
            }
            runs.push(run);
        }
        bar.finish_and_clear();

        let Some(first) = runs.first() else { bail!("no batch size") };
        let task = match self.rate_only {
            true => None,
            false => Some(effect(*host, sequences, &first.hidden, self.threads)?),
        };
        let width = codec.model().hidden_width();
        let baseline = baseline(&first.y, width, host.context())?;
        let per_frame = |bits: f64| bits / frames as f64;
        let (deflate, zstd) = (per_frame(baseline.deflate), per_frame(baseline.zstd));
        let batch = |run: &Run| {
            let bits = per_frame(8.0 * run.bytes as f64);
            Batch {
                batch: run.batch,
                bits,
                hyper_prior_bits: per_frame(run.cost.hyper_prior),
                target_bits: per_frame(run.cost.target),
                overhead_bits: bits - per_frame(run.cost.total()),
                bits_per_element: bits / width as f64,
                share_of_zstd: bits / zstd,
                share_of_deflate: bits / deflate,
                share_of_f16: bits / (16.0 * width as f64),
                payload_bits: per_frame(run.sent.payload_bits as f64),
                expected_bits: (run.sent.compared_frames > 0).then(|| per_frame(run.sent.expected_bits() as f64)),
                most_of_expected: run.most_of_expected,
                escaped: run.sent.escaped,
                clipped: run.sent.clipped,
                unlike: run.unlike,
                encode_ms: 1e3 * per_frame(run.encode_seconds),
                decode_ms: 1e3 * per_frame(run.decode_seconds),
                stream_sha256: run.stream_digest.clone(),
            }
        };
        Ok(Report {
            frames,
            sequence_frames: host.context(),
            one_context: self.one_context,
            arm: codec.g_y().arm().name().into(),
            threads: self.threads,
            lanes: config.lanes,
            quality: config.quality,
            // The f32 as it is printed, not the f64 nearest to it.
            rate_weight: rate_weight.to_string().parse()?,
            tokens: codec.model().side().map(|_| self.tokens),
            check_bits: 8 * config.check.bytes(),
            zstd_bits: zstd,
            deflate_bits: deflate,
            token_id_bits: (host.vocab() as f64).log2(),
            task,
            last_word: None,
            w_sha256: stream::digest(&first.w),
            y_sha256: stream::digest(&first.y),
            batches: runs.iter().map(batch).collect(),
        })
    }
}
