//! The encoder session: hidden states or integers in, bytes out.

use std::sync::Arc;

use bytes::Bytes;

use super::analysis::Codec;
use super::choice;
use super::cost::{self, Cost};
use super::digest::{Digests, FrameY, frame_crc};
use super::parameters::TargetParameters;
use super::payload::Tables;
use super::quantiser::{self, to_f32};
use crate::entropy::max_payload_len;
use crate::error::{Error, ErrorKind, Result};
use crate::exact::{Executor, Serial, State};
use crate::stream::{Binding, Writer};
use crate::wire::{CheckWidth, Dtype, Mode, OptionalField, StreamHeader};

/// What an encoder session is opened with.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Joined or layered payloads (spec 6.1, 6.5).
    pub mode: Mode,
    /// Byte stream or messages (spec 2.1).
    pub binding: Binding,
    /// The file binding: a byte stream with a seek index behind its end (spec 2.10).
    pub file: bool,
    /// Check of joined and hyper-prior chunks (spec 2.5).
    pub check: CheckWidth,
    /// Quality index at the start.
    pub quality: u8,
    /// Digest of the host model's weights, if the decoder is to compare it.
    pub host_digest: Option<[u8; 32]>,
    /// Most frames of one chunk; larger batches are split. 1 … 2^20.
    pub max_frames_per_chunk: u32,
    /// Most bytes of one chunk's body; batches are split so that no payload can exceed it. At most 2^30.
    pub max_chunk_bytes: u32,
    /// How many frames a rewind may go back. Keys and values of window + this many frames are kept.
    pub max_rewind: u32,
    /// Layered mode: how far the oldest frame without target may lie back, in frames.
    pub target_horizon: u32,
    /// A checkpoint is sent whenever this many frames were coded since the last one; 0 for none but by hand.
    pub checkpoint_interval: u32,
    /// Lanes of a batch chunk (spec 2.6); fewer where a chunk has fewer frames.
    pub lanes: u16,
    /// Squared quantiser steps that the encoder gives for a bit when it chooses Y from hidden states (spec 6.8): 0 sends
    /// the nearest integers; None takes the weight that the model carries.
    pub rate_weight: Option<f32>,
    /// Optional fields of the stream header.
    pub fields: Vec<OptionalField>,
}

impl Default for EncoderConfig {
    /// Joined mode in a byte stream, one lane, a checkpoint every 256 frames.
    fn default() -> Self {
        Self {
            mode: Mode::Joined,
            binding: Binding::ByteStream,
            file: false,
            check: CheckWidth::None,
            quality: 0,
            host_digest: None,
            max_frames_per_chunk: 4096,
            max_chunk_bytes: 1 << 24,
            max_rewind: 64,
            target_horizon: 4096,
            checkpoint_interval: 256,
            lanes: 1,
            rate_weight: None,
            fields: Vec::new(),
        }
    }
}

/// Encodes one stream.
///
/// Call order: [`Encoder::new`]; any of `push_*` and the control calls; [`Encoder::end`]. Output is taken at any time with
/// [`Encoder::take_bytes`] (byte stream and file) or [`Encoder::pop_message`].
///
/// A call that fails changes nothing. Cloning forks the stream: both copies go on from the same context.
#[derive(Clone)]
pub struct Encoder {
    pub(super) codec: Arc<Codec>,
    pub(super) config: EncoderConfig,
    pub(super) writer: Writer,
    pub(super) quality: usize,
    pub(super) g_y: State,
    /// None where the model has no encoder's part; W is then given by the caller.
    pub(super) h: Option<State>,
    pub(super) digests: Digests,
    /// Absolute index of the context's first frame.
    pub(super) context_start: u64,
    pub(super) since_checkpoint: u32,
    pub(super) executor: Arc<dyn Executor + Send + Sync>,
    pub(super) track_cost: bool,
    pub(super) ended: bool,
    /// Integers of the last push, `[T, C]` and `[T, E]`, and what they cost by the tables.
    pub(super) last: Coded,
    pub(super) output: Vec<i32>,
    pub(super) parameters: TargetParameters,
}

pub(super) fn valid_rate_weight(weight: f32) -> bool {
    weight.is_finite() && weight >= 0.0
}

/// The integers of the last push.
#[derive(Clone, Debug, Default)]
pub(super) struct Coded {
    w: Vec<i16>,
    y: Vec<i16>,
    cost: Option<Cost>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("codec", &self.codec)
            .field("config", &self.config)
            .field("next_index", &self.next_index())
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// Opens a stream; its header is the first output.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownQuality`]; [`ErrorKind::BadConfig`] if a limit is out of the range that the spec gives it
    /// (2.2), or one frame's worst case does not fit `max_chunk_bytes`.
    pub fn new(codec: Arc<Codec>, config: EncoderConfig) -> Result<Self> {
        let quality = codec.check_quality(config.quality, 0)?;
        let bad = |detail| Err(Error::new(ErrorKind::BadConfig, 0).with_detail(detail));
        if config.lanes == 0 || config.lanes > 1024 {
            return bad("lanes must be 1 to 1,024");
        }
        if !config.rate_weight.is_none_or(valid_rate_weight) {
            return bad("the rate's weight must be finite and not below 0");
        }
        let header = StreamHeader {
            mode: config.mode,
            check: config.check,
            file: config.file,
            model_version: codec.model().version(),
            quality: config.quality,
            host_digest: config.host_digest,
            max_frames: config.max_frames_per_chunk,
            max_chunk_bytes: config.max_chunk_bytes,
            max_rewind: config.max_rewind,
            target_horizon: (config.mode == Mode::Layered).then_some(config.target_horizon),
            optional: config.fields.clone(),
            ..StreamHeader::new(*codec.fingerprint())
        };
        let writer = Writer::new(header, config.binding)?;
        let encoder = Self {
            g_y: State::new(codec.g_y(), config.max_rewind),
            h: codec.h().map(|h| State::new(h, config.max_rewind)),
            digests: Digests::new(0, u64::from(config.max_rewind)),
            context_start: 0,
            since_checkpoint: 0,
            executor: Arc::new(Serial),
            track_cost: false,
            ended: false,
            last: Coded::default(),
            output: Vec::new(),
            parameters: TargetParameters::default(),
            quality,
            writer,
            codec,
            config,
        };
        if frames_per_chunk(&encoder.codec, &encoder.config) == 0 {
            return bad("one frame's worst case does not fit max_chunk_bytes");
        }
        Ok(encoder)
    }

    /// Uses threads, or whatever the executor does, for batches. The bytes stay the same.
    pub fn set_executor(&mut self, executor: Arc<dyn Executor + Send + Sync>) {
        self.executor = executor;
    }

    /// The codec model in force.
    pub fn codec(&self) -> &Arc<Codec> {
        &self.codec
    }

    /// Absolute index of the next frame.
    pub fn next_index(&self) -> u64 {
        self.digests.next_index()
    }

    /// W of the last push, `[T, C]`.
    pub fn last_w(&self) -> &[i16] {
        &self.last.w
    }

    /// Y of the last push, `[T, E]`.
    pub fn last_y(&self) -> &[i16] {
        &self.last.y
    }

    /// Whether pushes also work out what they cost by the frozen tables. Off by default: it takes a logarithm a value.
    pub fn track_cost(&mut self, on: bool) {
        self.track_cost = on;
    }

    /// What the last push costs by the frozen tables, if [`Encoder::track_cost`] is on.
    pub fn last_cost(&self) -> Option<Cost> {
        self.last.cost
    }

    /// Bytes that the session keeps for its context: constant after the first push of each size.
    pub fn memory_bytes(&self) -> usize {
        self.g_y.memory_bytes().saturating_add(self.h.as_ref().map_or(0, State::memory_bytes))
    }

    /// Codes hidden states, `[T, E]` f32: one frame gives a one-frame chunk, more give batch chunks.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] unless `hidden` holds T ≥ 1 whole frames; [`ErrorKind::HiddenNotFinite`];
    /// [`ErrorKind::NotAvailable`] without an encoder's part in the model; [`ErrorKind::AfterEnd`].
    pub fn push_hidden(&mut self, hidden: &[f32]) -> Result<()> {
        let x = self.in_steps(hidden)?;
        let nearest: Vec<i16> = quantiser::nearest(&x, self.codec.model().y_range()).collect();
        self.check_y(&nearest)?;
        self.code(nearest, None, Some(&x))
    }

    /// Codes target integers, `[T, E]`; W comes from h.
    ///
    /// # Errors
    /// As [`Encoder::push_hidden`], and [`ErrorKind::ValueOutOfRange`] for a value outside the model's declared range.
    pub fn push_y(&mut self, y: &[i16]) -> Result<()> {
        self.check_y(y)?;
        if self.h.is_none() {
            return Err(not_available("the model has no analysis network; give W too"));
        }
        self.code(y.to_vec(), None, None)
    }

    /// Codes target integers, `[T, E]`, with hyper-prior integers of the caller's choice, `[T, C]`.
    ///
    /// # Errors
    /// As [`Encoder::push_y`], but the model needs no encoder's part.
    pub fn push_integers(&mut self, y: &[i16], w: &[i16]) -> Result<()> {
        let frames = self.check_y(y)?;
        if w.len() != frames.saturating_mul(self.codec.model().hyper_prior_width()) {
            return Err(wrong_shape("W does not hold as many frames as Y"));
        }
        check_range(w, self.codec.model().w_range())?;
        self.code(y.to_vec(), Some(w), None)
    }

    /// Codes one frame as usual and adds its hidden state, lossless (spec 6.9).
    ///
    /// `hidden` holds E little-endian values of the given type.
    ///
    /// # Errors
    /// As [`Encoder::push_hidden`]; [`ErrorKind::WrongShape`] unless `hidden` is one frame of that type;
    /// [`ErrorKind::ChunkTooLong`] if the frame's worst case and its hidden state do not fit `max_chunk_bytes`.
    pub fn push_exact(&mut self, dtype: Dtype, hidden: &[u8]) -> Result<()> {
        if hidden.len() != self.codec.model().hidden_width().saturating_mul(dtype.bytes()) {
            return Err(wrong_shape("an exact frame holds E values of its type"));
        }
        let x = self.in_steps(&to_f32(dtype, hidden))?;
        let mut y: Vec<i16> = quantiser::nearest(&x, self.codec.model().y_range()).collect();
        self.check_y(&y)?;
        // Judged before the networks go on, which nothing could take back.
        let worst = worst_frame(&self.codec).saturating_add(CHUNK_FIELDS).saturating_add(hidden.len() as u64);
        if worst > u64::from(self.config.max_chunk_bytes) {
            return Err(Error::new(ErrorKind::ChunkTooLong, self.writer.position())
                .with_detail("an exact frame's worst case does not fit max_chunk_bytes"));
        }
        let w = self.predict(&y, None)?;
        choice::choose(self.codec.model(), &self.parameters, self.rate_weight(), &x, &mut y);
        let payload = self.tables().encode_joined(1, &w, &y, &self.parameters).pop().unwrap_or_default();
        self.writer.exact_frame(dtype, &payload, hidden)?;
        self.account(&w, &y);
        let cost = self.track_cost.then(|| self.cost(&w, &y));
        self.last = Coded { w, y, cost };
        self.checkpoint_if_due()
    }

    /// Sends a checkpoint: absolute index and both digests.
    ///
    /// # Errors
    /// [`ErrorKind::AfterEnd`].
    pub fn checkpoint(&mut self) -> Result<()> {
        self.open()?;
        let (w, y) = self.settle_digests();
        self.writer.checkpoint(w, y)?;
        self.since_checkpoint = 0;
        Ok(())
    }

    /// Begins a new context; a decoder may join there.
    ///
    /// # Errors
    /// [`ErrorKind::AfterEnd`].
    pub fn reset(&mut self) -> Result<()> {
        self.writer.reset(self.writer.sequence().quality())?;
        self.begin_context();
        Ok(())
    }

    /// Takes the timeline back, so that `index` is the next frame again.
    ///
    /// # Errors
    /// [`ErrorKind::RewindTarget`] or [`ErrorKind::RewindTooFar`] by [CTRL-4]; [`ErrorKind::AfterEnd`].
    pub fn rewind(&mut self, index: u64) -> Result<()> {
        self.writer.rewind(index)?;
        let position = index.saturating_sub(self.context_start);
        self.g_y.truncate(position)?;
        if let Some(h) = &mut self.h {
            h.truncate(position)?;
        }
        self.digests.rewind(index);
        Ok(())
    }

    /// Another quality from the next frame on; the context goes on.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownQuality`]; [`ErrorKind::AfterEnd`].
    pub fn set_quality(&mut self, quality: u8) -> Result<()> {
        let index = self.codec.check_quality(quality, 0)?;
        self.writer.quality(quality)?;
        self.quality = index;
        Ok(())
    }

    /// Another model from the next frame on; the context begins anew.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownQuality`]; [`ErrorKind::BadConfig`] as in [`Encoder::new`]; [`ErrorKind::AfterEnd`].
    pub fn switch_model(&mut self, codec: Arc<Codec>, quality: u8) -> Result<()> {
        let index = codec.check_quality(quality, 0)?;
        if frames_per_chunk(&codec, &self.config) == 0 {
            return Err(
                Error::new(ErrorKind::BadConfig, 0).with_detail("one frame's worst case does not fit max_chunk_bytes")
            );
        }
        self.writer.model_switch(*codec.fingerprint(), codec.model().version(), quality)?;
        self.quality = index;
        self.g_y = State::new(codec.g_y(), self.config.max_rewind);
        self.h = codec.h().map(|h| State::new(h, self.config.max_rewind));
        self.codec = codec;
        self.begin_context();
        Ok(())
    }

    /// Sends an ignorable extension (spec 2.8).
    ///
    /// # Errors
    /// [`ErrorKind::ChunkTooLong`] if `data` does not fit a chunk; [`ErrorKind::AfterEnd`].
    pub fn extension(&mut self, id: u32, data: &[u8]) -> Result<()> {
        self.writer.extension(id, data)
    }

    /// Ends the stream. What is output is still to be taken.
    ///
    /// # Errors
    /// [`ErrorKind::AfterEnd`] if it has ended.
    pub fn end(&mut self) -> Result<()> {
        self.open()?;
        let (w, y) = self.settle_digests();
        self.writer.end(w, y)?;
        self.ended = true;
        Ok(())
    }

    /// Takes the bytes written so far, in the byte stream and file bindings.
    pub fn take_bytes(&mut self) -> Bytes {
        self.writer.take()
    }

    /// Takes the next message, in the message binding.
    pub fn pop_message(&mut self) -> Option<Bytes> {
        self.writer.pop_message()
    }

    /// The integers nearest to hidden states, `[T, E]`, without coding them (spec 6.8). Where rate has a weight,
    /// [`Encoder::push_hidden`] may send others.
    ///
    /// # Errors
    /// As [`Encoder::push_hidden`].
    pub fn quantise(&self, hidden: &[f32]) -> Result<Vec<i16>> {
        Ok(quantiser::nearest(&self.in_steps(hidden)?, self.codec.model().y_range()).collect())
    }

    fn in_steps(&self, hidden: &[f32]) -> Result<Vec<f32>> {
        let model = self.codec.model();
        if hidden.is_empty() || !hidden.len().is_multiple_of(model.hidden_width()) {
            return Err(wrong_shape("hidden states come in whole frames of E values"));
        }
        let Some(reciprocal_step) = model.reciprocal_step(self.quality) else {
            return Err(not_available("the model has no quantiser; give Y instead"));
        };
        quantiser::in_steps(hidden, model.offset(self.quality), model.analysis(), reciprocal_step)
    }

    /// Squared steps a bit, in force now.
    fn rate_weight(&self) -> f32 {
        self.config.rate_weight.unwrap_or_else(|| self.codec.model().rate_weight(self.quality))
    }

    fn check_y(&self, y: &[i16]) -> Result<usize> {
        let width = self.codec.model().hidden_width();
        if y.is_empty() || !y.len().is_multiple_of(width) {
            return Err(wrong_shape("Y comes in whole frames of E values"));
        }
        self.open()?;
        check_range(y, self.codec.model().y_range())?;
        Ok(y.len().checked_div(width).unwrap_or(0))
    }

    /// Codes checked integers, chunk by chunk: `y` itself or, where `x` says of what it is the nearest, a choice near it.
    fn code(&mut self, mut y: Vec<i16>, w: Option<&[i16]>, x: Option<&[f32]>) -> Result<()> {
        let (width, channels) = (self.codec.model().hidden_width(), self.codec.model().hyper_prior_width());
        let frames = frames_per_chunk(&self.codec, &self.config);
        let mut all_w = Vec::new();
        let mut cost = Cost::default();
        for (part, y) in y.chunks_mut(frames.saturating_mul(width)).enumerate() {
            let given = w.and_then(|w| w.chunks(frames.saturating_mul(channels)).nth(part));
            let w = self.predict(y, given)?;
            if let Some(x) = x.and_then(|x| x.chunks(frames.saturating_mul(width)).nth(part)) {
                choice::choose(self.codec.model(), &self.parameters, self.rate_weight(), x, y);
            }
            self.write_chunk(y, &w)?;
            self.account(&w, y);
            if self.track_cost {
                cost = cost.plus(self.cost(&w, y));
            }
            all_w.extend_from_slice(&w);
            self.checkpoint_if_due()?;
        }
        self.last = Coded { w: all_w, y, cost: self.track_cost.then_some(cost) };
        Ok(())
    }

    /// Runs h on Y, unless W is given, and g_y on W; leaves the tables and shifts of Y in `parameters`.
    fn predict(&mut self, y: &[i16], given: Option<&[i16]>) -> Result<Vec<i16>> {
        let codec = Arc::clone(&self.codec);
        let mut w = Vec::new();
        if let (Some(network), Some(state)) = (codec.h(), &mut self.h) {
            // Also where W is given: h's context has to go on.
            network.run(state, y, self.quality, &mut self.output, &*self.executor)?;
            // h clamps W to its declared range, which fits an i16.
            w.extend(self.output.iter().map(|value| i16::try_from(*value).unwrap_or(0)));
        }
        if let Some(given) = given {
            w.clear();
            w.extend_from_slice(given);
        }
        codec.g_y().run(&mut self.g_y, &w, self.quality, &mut self.output, &*self.executor)?;
        codec.rule().derive(&self.output, &mut self.parameters);
        Ok(w)
    }

    fn write_chunk(&mut self, y: &[i16], w: &[i16]) -> Result<()> {
        let frames = y.len().checked_div(self.codec.model().hidden_width()).unwrap_or(0);
        let lanes = usize::from(self.config.lanes).min(frames).max(1);
        let tables = self.tables();
        match self.config.mode {
            Mode::Joined => {
                let payloads = tables.encode_joined(lanes, w, y, &self.parameters);
                self.write_frames(frames, &payloads)
            }
            Mode::Layered => {
                let hyper_prior = tables.encode_hyper_prior(lanes, w);
                let target = tables.encode_target(lanes, y, &self.parameters);
                let index = self.next_index();
                self.write_frames(frames, &hyper_prior)?;
                self.writer.target(index, chunk_frames(frames), &target)
            }
        }
    }

    fn write_frames(&mut self, frames: usize, payloads: &[Vec<u8>]) -> Result<()> {
        match payloads {
            [payload] if frames == 1 => self.writer.frame(payload),
            lanes => self.writer.batch(chunk_frames(frames), lanes),
        }
    }

    fn tables(&self) -> Tables<'_> {
        Tables { model: self.codec.model(), quality: self.quality, executor: &*self.executor }
    }

    fn cost(&self, w: &[i16], y: &[i16]) -> Cost {
        Cost {
            hyper_prior: cost::hyper_prior_bits(&self.codec, self.quality, w),
            target: cost::target_bits(&self.codec, &self.parameters.tables, &self.parameters.shifts, y),
        }
    }

    /// Takes coded frames into the digests.
    fn account(&mut self, w: &[i16], y: &[i16]) {
        let (width, channels) = (self.codec.model().hidden_width(), self.codec.model().hyper_prior_width());
        for (w, y) in w.chunks_exact(channels).zip(y.chunks_exact(width)) {
            self.digests.append(frame_crc(w), FrameY::Known(frame_crc(y)));
            self.since_checkpoint = self.since_checkpoint.saturating_add(1);
        }
    }

    fn checkpoint_if_due(&mut self) -> Result<()> {
        if self.config.checkpoint_interval > 0 && self.since_checkpoint >= self.config.checkpoint_interval {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// W and Y digest in front of the next frame, where a checkpoint or the end is about to stand. An encoder's frames
    /// are never pending, so the verdict is there at once.
    fn settle_digests(&mut self) -> (u32, u32) {
        self.digests.checkpoint();
        let y = self.digests.next_verdict().map_or(0, |(_, digest)| digest.value);
        (self.digests.digest_w(), y)
    }

    fn open(&self) -> Result<()> {
        if self.ended { Err(Error::new(ErrorKind::AfterEnd, self.writer.position())) } else { Ok(()) }
    }

    fn begin_context(&mut self) {
        self.g_y.reset();
        if let Some(h) = &mut self.h {
            h.reset();
        }
        self.context_start = self.next_index();
        self.digests = Digests::new(self.context_start, u64::from(self.config.max_rewind));
        self.since_checkpoint = 0;
    }
}

/// More bytes than a chunk's body has beside payloads and what stands for each lane.
const CHUNK_FIELDS: u64 = 64;
/// More bytes than a chunk's body has for each lane beside its payload.
const LANE_FIELDS: u64 = 8;

/// Bytes that no payload of one frame, nor a frame's part of a longer one, exceeds (spec 3.5).
fn worst_frame(codec: &Codec) -> u64 {
    let symbols = codec.model().hidden_width().saturating_add(codec.model().hyper_prior_width());
    max_payload_len(symbols as u64).max(1)
}

/// How many frames a chunk may have, so that no payload can exceed the limit on chunk bytes (spec 3.5).
fn frames_per_chunk(codec: &Codec, config: &EncoderConfig) -> usize {
    let fields = CHUNK_FIELDS.saturating_add(u64::from(config.lanes).saturating_mul(LANE_FIELDS));
    let fits = u64::from(config.max_chunk_bytes).saturating_sub(fields).checked_div(worst_frame(codec)).unwrap_or(0);
    let horizon = match config.mode {
        Mode::Joined => u32::MAX,
        Mode::Layered => config.target_horizon,
    };
    let most = u64::from(config.max_frames_per_chunk.min(horizon));
    usize::try_from(fits.min(most)).unwrap_or(usize::MAX)
}

/// A chunk's frames are bounded by `max_frames_per_chunk`, a u32.
fn chunk_frames(frames: usize) -> u32 {
    u32::try_from(frames).unwrap_or(u32::MAX)
}

fn check_range(values: &[i16], (low, high): (i16, i16)) -> Result<()> {
    if values.iter().all(|value| (low..=high).contains(value)) {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::ValueOutOfRange, 0)
            .with_detail("a value to encode is outside the model's declared range"))
    }
}

fn wrong_shape(detail: &'static str) -> Error {
    Error::new(ErrorKind::WrongShape, 0).with_detail(detail)
}

fn not_available(detail: &'static str) -> Error {
    Error::new(ErrorKind::NotAvailable, 0).with_detail(detail)
}
