//! How a chunk is coded: the jobs that sessions hand out, and the trait of the engines that do them.
//!
//! A session ([`crate::codec`]) knows one stream: what comes next, the digests, what may be refused. An engine knows
//! one codec model, prepared for the place where it runs: [`Codec`] for this CPU, others for devices. The session hands
//! out a job with the contexts of its networks, the engine does it, and the session commits the result. Each job is for
//! one chunk of one stream; an engine gets the jobs of many streams in one call.
//!
//! **This module is for those who write an engine. It is not stable: any version may change it.**
//!
//! Every engine gives the same integers and the same bytes. An engine that only runs the networks elsewhere leaves the
//! rest to [`ChunkSpec::code_output`] and [`PartialChunk`]. One that does more finds the parts here: the quantiser
//! ([`quantiser`]), the rule that selects tables ([`parameters`]), the choice of Y ([`choice`]), payloads ([`payload`]).
//! With the feature `testing`, the module `midspan::check` compares an engine with this CPU's plain arm.

pub mod choice;
mod codec;
mod context;
pub mod cost;
pub(crate) mod cpu;
mod crc;
mod decoding;
mod encoding;
pub mod parameters;
pub mod payload;
pub mod prediction;
pub mod quantiser;
pub mod side;
pub mod sparse;
mod targets;

use std::borrow::Borrow;
use std::ops::Range;

pub use codec::Codec;
pub use context::{Context, Memory};
pub(crate) use cpu::whole_frames;
pub use crc::frame_crc;
pub use decoding::PartialChunk;
pub(crate) use targets::MIN_DATAGRAM;
pub use targets::TargetPiece;

use crate::error::Error;
use crate::exact::Executor;
use crate::wire::Payload;
use cost::Cost;
use payload::LaneFault;

/// Scratch memory of more bytes than this is freed once a chunk is done with it.
pub(crate) const KEPT_BYTES: usize = 1 << 20;

/// A codec model, prepared for the place where its chunks are coded.
///
/// Sessions share an engine by its `Arc`, and only sessions with the same `Arc` share a call. The jobs of a call may
/// differ in everything but what [`Engine::encode`] and [`Engine::decode`] say: frames, quality, lanes, layout, and
/// what they ask for. A session checks the number and the shape of all that it gets back, and fails if they are wrong.
pub trait Engine: Sized + Send + Sync {
    /// Keys and values of one network in one context.
    type Context: Context;
    /// Hidden states that a caller gives, `[T, E]`.
    type Input: ?Sized + Sync;
    /// Hidden states that a caller gets, `[T, E]`.
    type Hidden: Borrow<Self::Input> + Clone + Send;
    /// Hidden states that were checked and are ready to be coded, `[T, E]`.
    type Prepared: Send + Sync;
    /// What is left of a chunk that is decoded in several calls; `()` for an engine that always decodes whole chunks.
    type Partial: Memory + Clone + Send + Sync;
    /// Scratch memory of a session: it is kept for its allocations, and its contents need not survive a chunk.
    type Scratch: Memory + Default + Send + Sync;
    /// Scratch memory of a caller with many sessions ([`Together`](crate::codec::Together)). Its contents need not
    /// survive a call.
    type CallScratch: Memory + Default + Send;
    /// What can go wrong: the errors of sessions, and those of the place where the engine runs.
    type Error: From<Error> + std::error::Error + Send + Sync + 'static;

    /// The model, its tables, and its networks for this CPU.
    fn codec(&self) -> &Codec;

    /// An empty context of a network, in which rewinds go back by at most `max_rewind` frames. `None` if the model
    /// lacks the network.
    fn context(&self, network: NetworkName, max_rewind: u32) -> Option<Self::Context>;

    /// The most bytes that such a context holds, however many frames come; 0 if the model lacks the network.
    fn context_bytes(&self, network: NetworkName, max_rewind: u32) -> usize;

    /// How many frames of a chunk one call decodes, given the frames that remain and the session's limit for a call:
    /// from 1 to `remaining`. A job says this number again ([`DecodeJob::slice`]).
    fn frames_per_call(&self, remaining: usize, limit: usize) -> usize {
        remaining.min(limit)
    }

    /// T, the number of hidden states.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`](crate::error::ErrorKind::WrongShape) unless they are T ≥ 1 whole frames.
    fn frames(&self, hidden: &Self::Input) -> Result<usize, Error>;

    /// Checks hidden states and prepares them for coding. One outcome for each job, in their order.
    ///
    /// An engine may leave the checks to [`Engine::encode`] if it makes them before any context advances, and if the
    /// push is one chunk ([`PrepareJob::frames_per_chunk`]): everything is checked before the first chunk is coded.
    ///
    /// # Errors
    /// Those that [`Encoder::push_hidden`](crate::codec::Encoder::push_hidden) names for values.
    fn prepare(
        &self,
        jobs: &[PrepareJob<'_, Self>],
        executor: &dyn Executor,
    ) -> Vec<Result<Self::Prepared, Self::Error>>;

    /// Codes a chunk of each of some streams: runs h and g_y, chooses Y, makes payloads. One chunk for each job, in
    /// their order. The jobs of one call have sources of one variant.
    ///
    /// # Errors
    /// Those of the device, such as too little memory, or what [`Engine::prepare`] left unchecked. The contexts are
    /// then as they were. [`Together`](crate::codec::Together) splits the jobs in two and calls again, until a call has
    /// one job.
    fn encode(
        &self,
        jobs: &mut [EncodeJob<'_, Self>],
        scratch: &mut Self::CallScratch,
        executor: &dyn Executor,
    ) -> Result<Vec<CodedChunk>, Self::Error>;

    /// Decodes a slice of a chunk of each of some streams. One outcome for each job, in their order. A payload that is
    /// refused ends its stream, whose context may be left in any state. The chunks of one call all hold W alone, or all
    /// hold Y too.
    ///
    /// # Errors
    /// Those of the device, such as too little memory. The contexts are then as they were, and no slice counts as
    /// decoded. [`Together`](crate::codec::Together) splits the jobs in two and calls again, until a call has one job;
    /// a session gives the same job again when it is next polled.
    fn decode(
        &self,
        jobs: &mut [DecodeJob<'_, Self>],
        scratch: &mut Self::CallScratch,
        executor: &dyn Executor,
    ) -> Result<DecodeResults<Self::Hidden>, Self::Error>;

    /// Moves hidden states, `[T, E]`, that the session made on the CPU to where callers get them: those of targets, and
    /// an exact frame's. It may take `values`, unless it fails.
    ///
    /// # Errors
    /// Those of the device, such as too little memory.
    fn upload(&self, values: &mut Vec<f32>) -> Result<Self::Hidden, Self::Error>;

    /// Copies hidden states, `[T, E]`, to the CPU, row by row.
    ///
    /// # Errors
    /// Those of the device.
    fn download(hidden: &Self::Hidden) -> Result<Vec<f32>, Self::Error>;

    /// Bytes that hidden states hold.
    fn hidden_bytes(hidden: &Self::Hidden) -> usize;
}

/// One result for each job of [`Engine::decode`].
pub type DecodeResults<H> = Vec<Result<Decoded<H>, LaneFault>>;

/// A network of a codec model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetworkName {
    /// g_y, at both ends.
    Gy,
    /// h, in the encoder alone.
    H,
}

/// W and Y of some frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Integers {
    /// Hyper-prior integers, `[T, C]`.
    pub w: Vec<i16>,
    /// Target integers, `[T, E]`.
    pub y: Vec<i16>,
}

impl Integers {
    /// Whether they are those of this many frames, of C values of W and E of Y each.
    pub(crate) fn have(&self, frames: usize, channels: usize, width: usize) -> bool {
        self.w.len() == frames.saturating_mul(channels) && self.y.len() == frames.saturating_mul(width)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.w.capacity().saturating_add(self.y.capacity()).saturating_mul(2)
    }
}

/// Hidden states to prepare for coding.
pub struct PrepareJob<'a, E: Engine> {
    /// `[T, E]`.
    pub hidden: &'a E::Input,
    /// The quality at which they will be coded.
    pub quality: usize,
    /// Whether values outside the range of the quality are refused.
    pub refuses_clipping: bool,
    /// The most frames of a chunk.
    pub frames_per_chunk: usize,
}

/// How a chunk is coded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChunkSpec {
    /// T.
    pub frames: usize,
    /// The frames' quality.
    pub quality: usize,
    /// Squared quantiser steps of further distortion that one saved bit is worth (spec 6.8).
    pub rate_weight: f32,
    /// Lanes (spec 2.6).
    pub lanes: usize,
    /// How W and Y are spread over chunks.
    pub layout: Layout,
    /// Whether values outside the range of the quality are refused rather than clamped.
    pub refuses_clipping: bool,
    /// Whether the session wants W and Y.
    pub keep_integers: bool,
    /// Whether the session wants the cost by the tables.
    pub track_cost: bool,
}

/// How W and Y are spread over chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Each lane has one payload, of W and then Y (spec 6.1).
    Joined,
    /// W and Y have payloads of their own (spec 6.5).
    Layered {
        /// The most bytes of a message that holds a target (spec 2.6); `None` for no limit.
        datagram_limit: Option<usize>,
    },
}

/// A chunk to encode.
pub struct EncodeJob<'a, E: Engine> {
    /// How it is coded.
    pub spec: ChunkSpec,
    /// What it is made of.
    pub source: Source<'a, E>,
    /// The sums of side indices that g_y takes after W, `[T, D]`; none if the model takes no side indices
    /// ([`side::network_input`]).
    pub side: &'a [i16],
    /// The frames before the chunk that prediction reads, `[n, E]` in the common unit (spec 6.13), the newest last: P of
    /// them, or as many as the context has; none if the model does not predict. Then the session also wants W and Y.
    pub past: &'a [i16],
    /// h's context; `None` if the model has no h.
    pub h: Option<&'a mut E::Context>,
    /// g_y's context.
    pub g_y: &'a mut E::Context,
    /// The session's working memory.
    pub scratch: &'a mut E::Scratch,
}

/// What a chunk is made of.
pub enum Source<'a, E: Engine> {
    /// These rows of prepared hidden states: Y is chosen, and W comes from h.
    Hidden(&'a E::Prepared, Range<usize>),
    /// Y, `[T, E]`, in its range; W comes from h.
    Y(&'a [i16]),
    /// W and Y in their ranges. h, if the model has it, runs too, because its context has to move on.
    Integers {
        /// `[T, C]`.
        w: &'a [i16],
        /// `[T, E]`.
        y: &'a [i16],
    },
}

/// A coded chunk, for the session to write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CodedChunk {
    /// One payload per lane: of W and Y, or of W alone in layered mode.
    pub payloads: Vec<Vec<u8>>,
    /// The targets, in layered mode.
    pub targets: Vec<TargetPiece>,
    /// [`frame_crc`] of the W and of the Y of each frame.
    pub crcs: Vec<(u32, u32)>,
    /// How many values were clamped.
    pub clipped: u64,
    /// How many values of W and of Y their tables do not hold, whatever the mode of their run
    /// ([`Bank::is_escaped`](crate::entropy::Bank::is_escaped)).
    pub escaped: u64,
    /// W and Y as they were sent, if [`ChunkSpec::keep_integers`] asks for them.
    pub integers: Option<Integers>,
    /// What they cost by the tables, if [`ChunkSpec::track_cost`] asks for it.
    pub cost: Option<Cost>,
}

/// How a chunk is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeSpec {
    /// T of the whole chunk.
    pub frames: usize,
    /// The frames' quality.
    pub quality: usize,
    /// Whether the chunk holds only W (spec 6.5).
    pub hyper_prior: bool,
    /// Whether the session wants W and Y.
    pub keep_integers: bool,
}

/// A chunk, or the rest of it, to decode.
pub struct DecodeJob<'a, E: Engine> {
    /// How it was coded, and what the session wants.
    pub spec: DecodeSpec,
    /// One payload per lane, none longer than its values can be (\[MODE-4\]).
    pub lanes: &'a [Payload],
    /// The sums of side indices that g_y takes after W, `[T, D]` of the whole chunk; none if the model takes no side
    /// indices.
    pub side: &'a [i16],
    /// The frames before the chunk that prediction reads, as in [`EncodeJob::past`].
    pub past: &'a [i16],
    /// The number of frames to decode now, as [`Engine::frames_per_call`] gave it.
    pub slice: usize,
    /// What the previous slice left; `None` for the first one, and after the last.
    pub partial: &'a mut Option<E::Partial>,
    /// g_y's context.
    pub g_y: &'a mut E::Context,
    /// The session's working memory.
    pub scratch: &'a mut E::Scratch,
}

/// The result of a decode job.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded<H> {
    /// Some frames of the chunk are left.
    Part {
        /// The number of frames that are decoded.
        done: usize,
    },
    /// A chunk of W and Y is decoded.
    Frames {
        /// [`frame_crc`] of the W and of the Y of each frame.
        crcs: Vec<(u32, u32)>,
        /// W and Y, if [`DecodeSpec::keep_integers`] asks for them.
        integers: Option<Integers>,
        /// `[T, E]` (spec 6.7).
        hidden: H,
    },
    /// A chunk of W alone is decoded.
    HyperPrior {
        /// `[T, C]`.
        w: Vec<i16>,
        /// g_y's output for each frame, `[2E]`: means, then scale indices.
        outputs: Vec<Vec<i32>>,
    },
}

impl<H> Decoded<H> {
    /// The same with hidden states converted by `convert`.
    ///
    /// # Errors
    /// Those of `convert`.
    pub fn try_map<T, E>(self, convert: impl FnOnce(H) -> Result<T, E>) -> Result<Decoded<T>, E> {
        Ok(match self {
            Decoded::Part { done } => Decoded::Part { done },
            Decoded::Frames { crcs, integers, hidden } => Decoded::Frames { crcs, integers, hidden: convert(hidden)? },
            Decoded::HyperPrior { w, outputs } => Decoded::HyperPrior { w, outputs },
        })
    }
}
