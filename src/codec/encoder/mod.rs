//! The encoder session: hidden states or integers in, bytes out.

mod coding;

use std::borrow::Borrow;
use std::sync::Arc;

use bytes::Bytes;

use super::digest::Digests;
use super::prediction::PastFrames;
use super::sent::{Sent, Unlike};
use super::side::{self, SideDelivery, SideHistory};
use crate::engine::cost::Cost;
use crate::engine::quantiser::{self, Clipped};
use crate::engine::{Codec, Context, Engine, Integers, MIN_DATAGRAM, Memory, NetworkName, PrepareJob};
use crate::error::{Detail, Error, ErrorKind, Limit, Result};
use crate::exact::{Executor, Serial};
use crate::number::to_u64;
use crate::setters::setters;
use crate::stream::{Binding, Message, Writer};
use crate::wire::header::{MAX_CHUNK_BYTES, MAX_FRAMES, MAX_HORIZON, MAX_LENGTH_OFFSET, MAX_REWIND, MIN_CHUNK_BYTES};
use crate::wire::{CheckWidth, Dtype, Identity, Mode, OptionalField, StreamHeader};
pub(super) use coding::PushSource;
use coding::{LANES_MAX, check_range};
pub(super) use coding::{check_fits, engine_fault, only, wrong_count};

/// The settings with which an encoder session is opened: [`EncoderConfig::new`], then a setter for each that differs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EncoderConfig {
    /// Joined or layered payloads (spec 6.1, 6.5).
    pub mode: Mode,
    /// Byte stream or messages (spec 2.1).
    pub binding: Binding,
    /// The file binding: a byte stream with a seek index after its end (spec 2.10).
    pub file: bool,
    /// Check of joined and hyper-prior chunks (spec 2.5).
    pub check: CheckWidth,
    /// Quality index at the start.
    pub quality: u8,
    /// Distinguishes this stream from every other (spec 2.2): eight bytes from the caller's random number generator, or
    /// [`Identity::none`].
    pub identity: Identity,
    /// Digest of the host model's weights ([`crate::model::host_digest`], spec 4.7), if the decoder is to compare it.
    pub host_digest: Option<[u8; 32]>,
    /// Most frames of one chunk; larger batches are split. 1 … 2^20, 256 by default, which a decoder accepts by
    /// default: for more frames, raise the decoder's [`Limits::max_frames`](crate::stream::Limits::max_frames).
    pub max_frames_per_chunk: u32,
    /// Most bytes of one chunk's body; batches are split so that no payload can exceed it. At most 2^30, 4 MiB by
    /// default.
    pub max_chunk_bytes: u32,
    /// How many frames a rewind may go back; 64 by default. Keys and values of window + this many frames are kept.
    pub max_rewind: u32,
    /// Layered mode: how many frames back the oldest frame without a target may be; 1,024 by default.
    pub target_horizon: u32,
    /// Layered mode: no message that holds a target is longer than this many bytes, kind and closing 00 included, so
    /// that each fits a datagram. At least 256; None sets no limit. If a batch's target does not fit, each frame gets
    /// its own target; if that does not fit, it is split into parts, each of which takes 9 to 11 bytes and a seal in
    /// addition to its elements. In a byte stream too the limit is that of the messages.
    pub datagram_limit: Option<u32>,
    /// A checkpoint is sent whenever this many frames were coded since the last one; with 0, only
    /// [`Encoder::checkpoint`] sends one.
    pub checkpoint_interval: u32,
    /// Lanes of a batch chunk (spec 2.6); a chunk of fewer frames has fewer lanes.
    pub lanes: u16,
    /// Squared quantiser steps that the encoder gives for one bit when it chooses Y from hidden states (spec 6.8): 0
    /// sends the nearest integers; None uses the weight that the model carries.
    pub rate_weight: Option<f32>,
    /// The length offset (spec 2.3) that the header, resets and switches state, 0 … 16,383: in a byte stream the length
    /// of a one-frame body takes one byte from here to 127 bytes more, and two otherwise. None states what the model
    /// recommends for the quality in joined mode, and 0 in layered mode. It matters for one frame a chunk alone.
    pub length_offset: Option<u16>,
    /// Bytes that the session may hold, 64 MiB by default: contexts, output not yet taken, and what coding a push
    /// takes. If the contexts may take more, the stream is not opened. A push or a control call that would exceed the
    /// limit is refused before it changes anything ([`ErrorKind::MemoryLimit`]): take the output and call again.
    /// [`Encoder::end`] is never refused for it, so that a stream can always be ended; its few bytes, and a file's seek
    /// index, may exceed the limit.
    pub memory_limit: usize,
    /// What happens to hidden states outside the range of the quality ([`crate::model::CodecModel::range`]): by default
    /// they are clamped and counted.
    pub clipping: Clipping,
    /// Optional fields of the stream header.
    pub fields: Vec<OptionalField>,
}

/// What an encoder does with values more than half a step outside the range of the quality. If it clamps them, a
/// decoder gets the nearest end of the range instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Clipping {
    /// Clamps and counts them: [`Encoder::last_clipped`], [`Encoder::clipped`].
    #[default]
    Report,
    /// Refuses the push ([`ErrorKind::HiddenClipped`]); nothing changes. An exact frame is never refused: its hidden
    /// state is sent without loss.
    Refuse,
}

impl EncoderConfig {
    /// Joined mode in a byte stream, 8-bit checks, one lane, a checkpoint every 256 frames.
    ///
    /// Without an identity ([`Identity::none`]) a splice from one stream into another of the same model may go
    /// unnoticed: use it only if the transport keeps streams apart. Checks cost one byte per chunk; without them
    /// ([`CheckWidth::None`]) damage shows only at the next checkpoint, after wrong frames were handed out. Leave them
    /// out only if the transport detects damage itself (TLS, QUIC).
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            mode: Mode::Joined,
            binding: Binding::ByteStream,
            file: false,
            check: CheckWidth::One,
            quality: 0,
            host_digest: None,
            max_frames_per_chunk: 256,
            max_chunk_bytes: 1 << 22,
            max_rewind: 64,
            target_horizon: 1_024,
            datagram_limit: None,
            checkpoint_interval: 256,
            lanes: 1,
            rate_weight: None,
            length_offset: None,
            memory_limit: 64 << 20,
            clipping: Clipping::Report,
            fields: Vec::new(),
        }
    }

    setters! {
        mode: Mode,
        binding: Binding,
        file: bool,
        check: CheckWidth,
        quality: u8,
        identity: Identity,
        host_digest: Option<[u8; 32]>,
        max_frames_per_chunk: u32,
        max_chunk_bytes: u32,
        max_rewind: u32,
        target_horizon: u32,
        datagram_limit: Option<u32>,
        checkpoint_interval: u32,
        lanes: u16,
        rate_weight: Option<f32>,
        length_offset: Option<u16>,
        memory_limit: usize,
        clipping: Clipping,
        fields: Vec<OptionalField>,
    }
}

/// Encodes one stream.
///
/// Call order: [`Encoder::new`]; any of `push_*` and the control calls; [`Encoder::end`]. Output can be taken at any
/// time with [`Encoder::take_bytes`] (byte stream and file) or [`Encoder::pop_message`].
///
/// A call that fails changes nothing, unless it says so. If an engine gives something other than it was asked for
/// ([`ErrorKind::EngineFault`]), or a chunk that does not fit the stream, every later call fails too. Cloning forks the
/// stream: both copies continue from the same context.
///
/// `E` is the engine that codes chunks: [`Codec`], on this CPU, or one of a device. The bytes are the same.
pub struct Encoder<E: Engine = Codec> {
    pub(super) engine: Arc<E>,
    pub(super) config: EncoderConfig,
    pub(super) writer: Writer,
    pub(super) quality: usize,
    pub(super) g_y: E::Context,
    /// None if the model has no encoder's part; W is then given by the caller.
    pub(super) h: Option<E::Context>,
    pub(super) digests: Digests,
    /// Absolute index of the context's first frame.
    pub(super) context_start: u64,
    pub(super) since_checkpoint: u32,
    pub(super) executor: Arc<dyn Executor + Send + Sync>,
    pub(super) keeps_integers: bool,
    pub(super) tracks_cost: bool,
    pub(super) ended: bool,
    /// Set once a chunk was coded that could not be written.
    pub(super) failed: Option<Error>,
    pub(super) last: Last,
    /// Sums since the session began, and those over recent frames of the model in force.
    pub(super) sent: Sent,
    pub(super) recent: Sent,
    /// Side indices of the next push, where the decoder has them from, and the sums of the chunk in progress.
    pub(super) side: NextSide,
    pub(super) side_history: SideHistory,
    pub(super) past_frames: PastFrames,
    /// What prediction reads for the chunk in progress.
    pub(super) past: Vec<i16>,
    pub(super) scratch: E::Scratch,
}

/// The side indices of frames to come.
#[derive(Clone, Debug, Default)]
pub(super) struct NextSide {
    pub(super) indices: Vec<u32>,
    pub(super) delivery: SideDelivery,
    /// `[T, D]` of the chunk in progress.
    pub(super) sums: Vec<i16>,
}

impl NextSide {
    fn memory_bytes(&self) -> usize {
        self.indices.capacity().saturating_mul(4).saturating_add(self.sums.capacity().saturating_mul(2))
    }
}

impl<E: Engine> Clone for Encoder<E> {
    fn clone(&self) -> Self {
        Self {
            engine: Arc::clone(&self.engine),
            config: self.config.clone(),
            writer: self.writer.clone(),
            quality: self.quality,
            g_y: self.g_y.clone(),
            h: self.h.clone(),
            digests: self.digests.clone(),
            context_start: self.context_start,
            since_checkpoint: self.since_checkpoint,
            executor: Arc::clone(&self.executor),
            keeps_integers: self.keeps_integers,
            tracks_cost: self.tracks_cost,
            ended: self.ended,
            failed: self.failed,
            last: self.last.clone(),
            sent: self.sent,
            recent: self.recent,
            side: self.side.clone(),
            side_history: self.side_history.clone(),
            past_frames: self.past_frames.clone(),
            past: Vec::new(),
            scratch: E::Scratch::default(),
        }
    }
}

/// Checks the bound of a model's contexts against the memory limit.
pub(super) fn check_contexts<E: Engine>(engine: &E, max_rewind: u32, memory_limit: usize) -> Result<()> {
    let bytes = engine.context_bytes(NetworkName::Gy, max_rewind);
    let bytes = bytes.saturating_add(engine.context_bytes(NetworkName::H, max_rewind));
    check_limit("bytes for the contexts, less with a smaller max_rewind", bytes, memory_limit)
}

/// Checks bytes that are needed against the caller's memory limit.
pub(super) fn check_limit(what: &'static str, found: usize, memory_limit: usize) -> Result<()> {
    if found <= memory_limit {
        return Ok(());
    }
    let limit = Limit::Own("EncoderConfig::memory_limit");
    let (most, found) = (to_u64(memory_limit), to_u64(found));
    Err(Error::of_call(ErrorKind::MemoryLimit).with(Detail::Limit { what, limit, most, found }))
}

impl EncoderConfig {
    /// The length offset for a quality of this model ([CHUNK-8]).
    fn length_offset_of(&self, codec: &Codec, quality: usize) -> u16 {
        self.length_offset.unwrap_or_else(|| match self.mode {
            Mode::Joined => codec.model().length_offset(quality),
            // The model's is for joined bodies; a hyper-prior is far shorter.
            Mode::Layered => 0,
        })
    }

    /// Checks that every setting is in its range.
    fn check_ranges(&self) -> Result<()> {
        let horizon = if self.mode == Mode::Layered { self.target_horizon } else { 1 };
        for (name, low, high, found) in [
            ("max_frames_per_chunk", 1, MAX_FRAMES, self.max_frames_per_chunk),
            ("max_chunk_bytes", MIN_CHUNK_BYTES, MAX_CHUNK_BYTES, self.max_chunk_bytes),
            ("max_rewind", 0, MAX_REWIND, self.max_rewind),
            ("target_horizon", 1, MAX_HORIZON, horizon),
            ("lanes", 1, LANES_MAX, self.lanes.into()),
            ("datagram_limit", MIN_DATAGRAM, u32::MAX, self.datagram_limit.unwrap_or(MIN_DATAGRAM)),
            ("length_offset", 0, MAX_LENGTH_OFFSET.into(), self.length_offset.unwrap_or(0).into()),
        ] {
            if !(low..=high).contains(&found) {
                let detail = Detail::Setting { name, low: low.into(), high: high.into(), found: found.into() };
                return Err(Error::of_call(ErrorKind::BadConfig).with(detail));
            }
        }
        match self.rate_weight {
            Some(weight) if !valid_rate_weight(weight) => {
                let (name, wanted) = ("rate_weight", "finite and at least 0");
                let detail = Detail::Float { name, wanted, bits: weight.to_bits() };
                Err(Error::of_call(ErrorKind::BadConfig).with(detail))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn valid_rate_weight(weight: f32) -> bool {
    weight.is_finite() && weight >= 0.0
}

/// What is kept of the last push.
#[derive(Clone, Debug, Default)]
pub(super) struct Last {
    integers: Option<Integers>,
    cost: Option<Cost>,
    clipped: u64,
}

impl<E: Engine> std::fmt::Debug for Encoder<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("codec", &self.codec())
            .field("config", &self.config)
            .field("next_index", &self.next_index())
            .finish_non_exhaustive()
    }
}

impl<E: Engine> Encoder<E> {
    /// Opens a stream; its header is the first output. `engine` is the codec model, prepared for where it runs: an
    /// `Arc<Codec>` for this CPU.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownQuality`]; [`ErrorKind::BadConfig`] with the setting, its range and its value
    /// ([`Detail::Setting`]) if a limit is out of the range that the spec gives it (2.2), or one frame's worst case
    /// does not fit `max_chunk_bytes`; [`ErrorKind::PredictionLayered`] for layered mode with a model that predicts;
    /// [`ErrorKind::ReservedHeaderBits`] for a file of messages;
    /// [`ErrorKind::MemoryLimit`] if the contexts may come to more than `memory_limit`.
    pub fn new(engine: Arc<E>, config: EncoderConfig) -> Result<Self> {
        let codec = engine.codec();
        check_prediction(codec, config.mode)?;
        let quality = codec.own_quality(config.quality)?;
        config.check_ranges()?;
        check_fits(codec, &config)?;
        check_contexts(&*engine, config.max_rewind, config.memory_limit)?;
        let header = StreamHeader {
            mode: config.mode,
            check: config.check,
            file: config.file,
            side: codec.model().side().is_some(),
            model_version: codec.model().version(),
            quality: config.quality,
            identity: config.identity,
            host_digest: config.host_digest,
            max_frames: config.max_frames_per_chunk,
            max_chunk_bytes: config.max_chunk_bytes,
            max_rewind: config.max_rewind,
            target_horizon: (config.mode == Mode::Layered).then_some(config.target_horizon),
            length_offset: config.length_offset_of(codec, quality),
            optional: config.fields.clone(),
            ..StreamHeader::new(*codec.fingerprint())
        };
        let writer = Writer::new(header, config.binding)?;
        Ok(Self {
            g_y: g_y_context(&*engine, config.max_rewind)?,
            h: engine.context(NetworkName::H, config.max_rewind),
            digests: Digests::new(0, u64::from(config.max_rewind), config.identity.seed()),
            context_start: 0,
            since_checkpoint: 0,
            executor: Arc::new(Serial),
            keeps_integers: true,
            tracks_cost: false,
            ended: false,
            failed: None,
            last: Last::default(),
            sent: Sent::default(),
            recent: Sent::default(),
            side: NextSide::default(),
            side_history: SideHistory::default(),
            past_frames: PastFrames::default(),
            past: Vec::new(),
            scratch: E::Scratch::default(),
            quality,
            writer,
            engine,
            config,
        })
    }

    /// Gives the side indices of the frames of the next push, one for each (spec 6.12). If the codec model takes side
    /// indices, every push needs such a call before it; V, the model's vocabulary
    /// ([`Side::vocabulary`](crate::model::side::Side::vocabulary)), says that a frame has none. `delivery` says where
    /// the decoder has them from. A second call replaces what the first one gave. They stay until a push uses them, even if
    /// one is refused, and through rewinds and context resets; a model switch drops them.
    ///
    /// # Errors
    /// [`ErrorKind::WrongSideIndices`] for an index above V, or if the model takes none; [`ErrorKind::MemoryLimit`];
    /// [`ErrorKind::AfterEnd`].
    pub fn set_side(&mut self, indices: &[u32], delivery: SideDelivery) -> Result<()> {
        self.check_open()?;
        side::check(self.codec().model().side(), indices)?;
        let held = self.memory_bytes().saturating_sub(self.side.memory_bytes());
        let needed = held.saturating_add(size_of_val(indices));
        check_limit("bytes for side indices", needed, self.config.memory_limit)?;
        self.side = NextSide { indices: indices.to_vec(), delivery, sums: Vec::new() };
        Ok(())
    }

    /// Codes hidden states, `[T, E]` f32: one frame gives a one-frame chunk, more give batch chunks.
    ///
    /// Values outside the range of the quality are clamped and counted ([`Encoder::last_clipped`]), or refused if
    /// [`EncoderConfig::clipping`] says so. On a CPU the thread's floating-point unit must be in its default mode, which
    /// rounds to the nearest and keeps subnormal numbers: another mode would give another Y (a decoder's integers depend
    /// on no mode).
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] unless `hidden` holds T ≥ 1 whole frames; [`ErrorKind::HiddenNotFinite`] with frame
    /// and element of the first value that is NaN or infinite; [`ErrorKind::HiddenClipped`]; [`ErrorKind::FloatMode`];
    /// [`ErrorKind::NotAvailable`] without an encoder's part in the model; [`ErrorKind::WrongSideIndices`] if
    /// [`Encoder::set_side`] gave another number of indices than frames; [`ErrorKind::AfterEnd`];
    /// [`ErrorKind::MemoryLimit`]. If a device fails at a push of several chunks, the first ones may have been coded.
    pub fn push_hidden(&mut self, hidden: &E::Input) -> Result<(), E::Error> {
        let frames = self.check_hidden(hidden)?;
        let prepared = self.prepare(self.prepare_job(hidden))?;
        self.code(PushSource::Hidden(&prepared), frames)
    }

    /// Codes target integers, `[T, E]`; W comes from h.
    ///
    /// # Errors
    /// As [`Encoder::push_hidden`], and [`ErrorKind::ValueOutOfRange`] with the place of a value outside the model's
    /// declared range.
    pub fn push_y(&mut self, y: &[i16]) -> Result<(), E::Error> {
        let frames = self.check_own_y(y)?;
        self.code(PushSource::Y(y), frames)
    }

    /// Codes target integers, `[T, E]`, with hyper-prior integers of the caller's choice, `[T, C]`.
    ///
    /// # Errors
    /// As [`Encoder::push_y`], but the model needs no encoder's part.
    pub fn push_integers(&mut self, y: &[i16], w: &[i16]) -> Result<(), E::Error> {
        let frames = self.check_y(y)?;
        let channels = self.codec().model().hyper_prior_width();
        let wanted = frames.saturating_mul(channels);
        if w.len() != wanted {
            let (wanted, found) = (to_u64(wanted), to_u64(w.len()));
            let detail = Detail::Number { what: "values of W, C for each frame of Y", wanted, found };
            return Err(Error::of_call(ErrorKind::WrongShape).with(detail).into());
        }
        check_range(w, channels, self.codec().model().w_range())?;
        self.code(PushSource::Integers { w, y }, frames)
    }

    /// Codes one frame as usual and adds its hidden state, lossless (spec 6.9).
    ///
    /// `hidden` holds E little-endian values of the given type. Values outside the range of the quality are counted,
    /// and never refused: a decoder hands out these exact values.
    ///
    /// # Errors
    /// As [`Encoder::push_hidden`]; [`ErrorKind::WrongShape`] unless `hidden` is one frame of that type;
    /// [`ErrorKind::ChunkTooLong`] if the frame's worst case and its hidden state do not fit `max_chunk_bytes`.
    pub fn push_exact(&mut self, dtype: Dtype, hidden: &[u8]) -> Result<(), E::Error> {
        self.check_exact(dtype, hidden)?;
        let values = self.engine.upload(&mut quantiser::to_f32(dtype, hidden))?;
        let prepared = self.prepare(PrepareJob { refuses_clipping: false, ..self.prepare_job(values.borrow()) })?;
        self.check_exact_fits(hidden.len())?;
        self.code_exact(&prepared, (dtype, hidden))
    }

    /// Spreads batches over the executor's threads. The bytes stay the same.
    pub fn set_executor(&mut self, executor: Arc<dyn Executor + Send + Sync>) {
        self.executor = executor;
    }

    /// The codec model in force.
    pub fn codec(&self) -> &Codec {
        self.engine.codec()
    }

    /// The engine in use.
    pub fn engine(&self) -> &Arc<E> {
        &self.engine
    }

    /// Absolute index of the next frame.
    pub fn next_index(&self) -> u64 {
        self.digests.next_index()
    }

    /// Whether pushes keep the integers that they send, for [`Encoder::last_integers`]. On by default, also after
    /// [`Encoder::restore`]. An engine whose integers are on a device then copies them to the CPU.
    pub fn keep_integers(&mut self, on: bool) {
        self.keeps_integers = on;
    }

    /// W, `[T, C]`, and Y, `[T, E]`, of the last push, if [`Encoder::keep_integers`] was on.
    pub fn last_integers(&self) -> Option<&Integers> {
        self.last.integers.as_ref()
    }

    /// Whether pushes also compute what they cost by the frozen tables. Off by default: it takes a logarithm per value.
    pub fn track_cost(&mut self, on: bool) {
        self.tracks_cost = on;
    }

    /// What the last push costs by the frozen tables, if [`Encoder::track_cost`] is on.
    pub fn last_cost(&self) -> Option<Cost> {
        self.last.cost
    }

    /// How many values of the last push were outside the range of the quality and were clamped; 0 for a push of
    /// integers.
    pub fn last_clipped(&self) -> u64 {
        self.last.clipped
    }

    /// How many values were clamped since the session began, including those of frames that were rewound. Forks and
    /// restored sessions keep counting.
    pub fn clipped(&self) -> u64 {
        self.sent.clipped
    }

    /// Sums over all frames since the session began: bits and those that the model expects, values that were clamped,
    /// and values that their tables do not hold. Frames that were rewound are among them. Forks and restored sessions
    /// keep counting.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// The same sums over recent frames of the model in force, on which [`Encoder::unlike`] judges. They are halved once
    /// they hold 512 frames, so that older frames count for less and less.
    pub fn recently_sent(&self) -> Sent {
        self.recent
    }

    /// Whether what the session sends is unlike what the model in force was made for, by the last few hundred frames. It
    /// then takes more bits than it would with a model that was made for it, or exceeds the range of the quality.
    ///
    /// That is so if payloads take more than 8/5 of the bits that the model expects, in qualities for which it says so
    /// ([`CodecModel::expected_bits`](crate::model::CodecModel::expected_bits)), if tables do not hold more than 1 % of
    /// the values, or if more than 0.1 % were clamped. With fewer than 128 frames nothing is judged. A model switch begins
    /// anew; quality switches, resets and rewinds do not. Expected bits are for the model's own rate weight: with a much
    /// lower one a session finds the model's own text unlike. Frames that lack a side index which the model takes are
    /// not compared with what it expects.
    pub fn unlike(&self) -> Option<Unlike> {
        self.recent.unlike()
    }

    /// Bytes that the session holds in addition to its own size and its model: contexts, buffers, digests, the integers
    /// of the last push and output not yet taken.
    pub fn memory_bytes(&self) -> usize {
        let fields = self.config.fields.iter().map(|field| field.value.len()).fold(0, usize::saturating_add);
        [
            self.g_y.memory_bytes(),
            self.h.as_ref().map_or(0, Memory::memory_bytes),
            self.writer.memory_bytes(),
            self.digests.memory_bytes(),
            self.scratch.memory_bytes(),
            self.side.memory_bytes(),
            self.side_history.memory_bytes(),
            self.past_frames.memory_bytes(),
            self.past.capacity().saturating_mul(2),
            self.last.integers.as_ref().map_or(0, Integers::memory_bytes),
            self.config.fields.capacity().saturating_mul(size_of::<OptionalField>()).saturating_add(fields),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }

    /// Sends a checkpoint: absolute index and both digests.
    ///
    /// # Errors
    /// [`ErrorKind::AfterEnd`]; [`ErrorKind::MemoryLimit`].
    pub fn checkpoint(&mut self) -> Result<()> {
        self.check_open()?;
        self.check_room(0)?;
        self.write_checkpoint()
    }

    /// Writes a checkpoint; the caller has checked that there is room.
    fn write_checkpoint(&mut self) -> Result<()> {
        self.writer.checkpoint(self.digests.digest_w(), self.digests.digest_y())?;
        self.digests.restart();
        self.since_checkpoint = 0;
        Ok(())
    }

    /// Begins a new context; a decoder may join there.
    ///
    /// # Errors
    /// [`ErrorKind::AfterEnd`]; [`ErrorKind::MemoryLimit`].
    pub fn reset(&mut self) -> Result<()> {
        self.check_room(0)?;
        let quality = self.writer.sequence().quality();
        let length_offset = self.config.length_offset_of(self.codec(), self.quality);
        self.writer.reset(quality, length_offset, self.digests.digest_w(), self.digests.digest_y())?;
        self.begin_context();
        Ok(())
    }

    /// Moves the timeline back, so that `index` is the next frame again.
    ///
    /// # Errors
    /// [`ErrorKind::RewindTarget`] or [`ErrorKind::RewindTooFar`] by [CTRL-4]; [`ErrorKind::AfterEnd`];
    /// [`ErrorKind::MemoryLimit`].
    pub fn rewind(&mut self, index: u64) -> Result<()> {
        self.check_room(0)?;
        self.writer.rewind(index)?;
        let position = index.saturating_sub(self.context_start);
        self.g_y.truncate(position)?;
        if let Some(h) = &mut self.h {
            h.truncate(position)?;
        }
        let undone = self.digests.next_index().saturating_sub(index);
        self.side_history.rewind(undone);
        self.past_frames.rewind(undone, self.engine.codec().model().hidden_width());
        self.digests.rewind(index);
        Ok(())
    }

    /// Switches to another quality from the next frame on, in the same context.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownQuality`]; [`ErrorKind::AfterEnd`]; [`ErrorKind::MemoryLimit`].
    pub fn set_quality(&mut self, quality: u8) -> Result<()> {
        let index = self.codec().own_quality(quality)?;
        self.check_room(0)?;
        self.writer.quality(quality, self.config.length_offset_of(self.codec(), index))?;
        self.quality = index;
        Ok(())
    }

    /// Switches to another model from the next frame on, in a new context.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownQuality`]; [`ErrorKind::WrongSideFlag`] if one model takes side indices and the other does
    /// not; [`ErrorKind::PredictionLayered`] and [`ErrorKind::BadConfig`] as in [`Encoder::new`];
    /// [`ErrorKind::MemoryLimit`] for its contexts, as in [`Encoder::new`], and for output not yet taken;
    /// [`ErrorKind::AfterEnd`].
    pub fn switch_model(&mut self, engine: Arc<E>, quality: u8) -> Result<()> {
        let codec = engine.codec();
        let index = codec.own_quality(quality)?;
        // [SIDE-1] Every model that the stream switches to MUST agree with the side flag.
        if codec.model().side().is_some() != self.writer.header().side {
            return Err(Error::of_call(ErrorKind::WrongSideFlag));
        }
        check_prediction(codec, self.config.mode)?;
        check_fits(codec, &self.config)?;
        check_contexts(&*engine, self.config.max_rewind, self.config.memory_limit)?;
        self.check_room(0)?;
        let g_y = g_y_context(&*engine, self.config.max_rewind)?;
        let (w, y) = (self.digests.digest_w(), self.digests.digest_y());
        let length_offset = self.config.length_offset_of(codec, index);
        self.writer.model_switch(*codec.fingerprint(), codec.model().version(), quality, length_offset, w, y)?;
        self.quality = index;
        self.g_y = g_y;
        self.h = engine.context(NetworkName::H, self.config.max_rewind);
        self.engine = engine;
        self.side = NextSide::default();
        self.recent = Sent::default();
        self.begin_context();
        Ok(())
    }

    /// Sends an ignorable extension (spec 2.8).
    ///
    /// # Errors
    /// [`ErrorKind::ChunkTooLong`] if `data` does not fit a chunk; [`ErrorKind::AfterEnd`]; [`ErrorKind::MemoryLimit`].
    pub fn extension(&mut self, id: u32, data: &[u8]) -> Result<()> {
        self.check_room(data.len())?;
        self.writer.extension(id, data)
    }

    /// Ends the stream. Take the output afterwards. No memory limit refuses this call.
    ///
    /// # Errors
    /// [`ErrorKind::AfterEnd`] if it has ended.
    pub fn end(&mut self) -> Result<()> {
        self.check_open()?;
        self.writer.end(self.digests.digest_w(), self.digests.digest_y())?;
        self.ended = true;
        Ok(())
    }

    /// Takes the bytes written so far, in the byte stream and file bindings.
    ///
    /// # Errors
    /// [`ErrorKind::NotAvailable`] in the message binding.
    pub fn take_bytes(&mut self) -> Result<Bytes> {
        self.writer.take()
    }

    /// Takes the next message, in the message binding; None if all were taken.
    ///
    /// # Errors
    /// [`ErrorKind::NotAvailable`] in a byte stream or file.
    pub fn pop_message(&mut self) -> Result<Option<Message>> {
        self.writer.pop_message()
    }

    /// How many bytes [`Encoder::take_bytes`] would hand out, to set a buffer aside before; 0 in the message binding.
    pub fn untaken_bytes(&self) -> usize {
        self.writer.untaken_bytes()
    }

    /// The message that [`Encoder::pop_message`] would hand out; `None` in a byte stream or file.
    pub fn next_message(&self) -> Option<&Message> {
        self.writer.next_message()
    }

    /// The integers nearest to hidden states, `[T, E]`, without coding them (spec 6.8). If the rate weight is above 0,
    /// [`Encoder::push_hidden`] may send others. Values outside the range of the quality are clamped or refused, and
    /// the mode of the floating-point unit is checked, as in [`Encoder::push_hidden`].
    ///
    /// # Errors
    /// As [`Encoder::push_hidden`].
    pub fn quantise(&self, hidden: &[f32]) -> Result<Vec<i16>> {
        let model = self.codec().model();
        let x = self.codec().to_steps(hidden, self.quality)?.x;
        if self.config.clipping == Clipping::Refuse {
            Clipped::find(&x, model.y_range()).refuse(model.hidden_width())?;
        }
        Ok(quantiser::nearest(&x, model.y_range()).collect())
    }

    fn check_open(&self) -> Result<()> {
        self.failed.map_or(Ok(()), Err)?;
        if self.ended { Err(Error::of_call(ErrorKind::AfterEnd).with_detail("the stream has ended")) } else { Ok(()) }
    }

    fn begin_context(&mut self) {
        self.g_y.reset();
        if let Some(h) = &mut self.h {
            h.reset();
        }
        self.context_start = self.next_index();
        self.side_history.clear();
        self.past_frames.clear();
        self.digests.begin(self.context_start, u64::from(self.config.max_rewind), self.config.identity.seed());
        self.since_checkpoint = 0;
    }
}

/// Refuses a model that predicts in a layered stream.
///
/// [PRED-3] An encoder refuses to open such a stream, and to switch to such a model.
pub(super) fn check_prediction(codec: &Codec, mode: Mode) -> Result<()> {
    match mode == Mode::Layered && codec.model().prediction().is_some() {
        true => {
            let error = Error::of_call(ErrorKind::PredictionLayered);
            Err(error.with_detail("frames of joined mode alone can be predicted from"))
        }
        false => Ok(()),
    }
}

/// An empty context of g_y, which every model has.
pub(super) fn g_y_context<E: Engine>(engine: &E, max_rewind: u32) -> Result<E::Context> {
    let missing = Error::of_call(ErrorKind::NotAvailable).with_detail("the engine has no g_y");
    engine.context(NetworkName::Gy, max_rewind).ok_or(missing)
}
