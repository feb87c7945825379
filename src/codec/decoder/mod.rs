//! The decoder session: bytes in, integers and hidden states out.

mod control;
mod frames;
mod side;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::digest::{Digests, FrameY};
use super::early::EarlyTargets;
use super::encoder::only;
use super::event::{DecoderEvent, Targets};
use super::pending::PendingFrames;
use super::prediction::PastFrames;
use super::side::SideHistory;
use crate::engine::parameters::TargetParameters;
use crate::engine::{Codec, Engine, Memory, quantiser};
use crate::error::{Detail, Error, ErrorKind, Limit, Result};
use crate::exact::{Executor, Serial};
use crate::number::{to_u64, to_usize};
use crate::setters::setters;
use crate::stream::memory::{queue_bytes, settle_queue};
use crate::stream::{Binding, Chunk, Event, JoinPoint, Limits, Poll, Reader, ReaderConfig};
use crate::wire::{Dtype, Mode, OpenCheck, Payload, Seed, StreamHeader};
use side::SentSide;

/// The settings with which a decoder session is opened: the default, then a setter for each that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecoderConfig {
    /// Byte stream (files too) or messages.
    pub binding: Binding,
    /// The caller's limits; the smaller of these and the header's apply.
    pub limits: Limits,
    /// Bytes that the session may hold, 64 MiB by default: its context, which grows with the frames that come, pending
    /// frames, digests, and what decoding the next chunk takes, in memory or on a device, where a step may exceed
    /// the limit by a fifth. A chunk that would exceed the limit is refused before anything is allocated for it
    /// ([`ErrorKind::MemoryLimit`]). Input that was pushed and not yet polled does not count: the caller controls it.
    pub memory_limit: usize,
    /// The most frames for which one call of [`Decoder::poll`] runs g_y and decodes Y, 64 by default; in
    /// [`Together::poll`](super::Together::poll) the most frames of each stream. A longer chunk is decoded in several
    /// calls, each except the last with a [`DecoderEvent::Working`]. The first of them decodes W of the whole chunk,
    /// which needs no network; only [`Limits::max_frames`] bounds that. The frames are the same. With an executor of
    /// many threads, more frames per call keep all threads busy. An engine of a device may decode a whole chunk at a
    /// time; only [`Limits::max_frames`] bounds its calls then.
    pub frames_per_poll: usize,
    /// Digest of the host model's weights ([`crate::model::host_digest`], spec 4.7): a header that states another one,
    /// or none, is refused ([`ErrorKind::WrongHost`]). With None any header is accepted.
    pub host_digest: Option<[u8; 32]>,
}

impl Default for DecoderConfig {
    /// Byte stream; default limits, 64 MiB and 64 frames per call, for an untrusted peer; any host.
    fn default() -> Self {
        Self {
            binding: Binding::ByteStream,
            limits: Limits::default(),
            memory_limit: 64 << 20,
            frames_per_poll: 64,
            host_digest: None,
        }
    }
}

impl DecoderConfig {
    setters! {
        binding: Binding,
        limits: Limits,
        memory_limit: usize,
        frames_per_poll: usize,
        host_digest: Option<[u8; 32]>,
    }
}

/// Outcome of [`Decoder::poll`].
#[derive(Clone, Debug, PartialEq)]
pub enum DecoderPoll<H = Vec<f32>> {
    /// Something happened.
    Event(DecoderEvent<H>),
    /// More input is needed, or [`Decoder::finish`]; or side indices, if [`Decoder::wanted_side`] says so.
    NeedMore,
    /// The stream ended properly.
    End,
}

impl<H> DecoderPoll<H> {
    /// The same with hidden states, if it has any, converted by `map`.
    ///
    /// # Errors
    /// Those of `map`.
    pub fn try_map_hidden<T, E>(self, map: impl FnOnce(H) -> Result<T, E>) -> Result<DecoderPoll<T>, E> {
        Ok(match self {
            DecoderPoll::Event(event) => DecoderPoll::Event(event.try_map_hidden(map)?),
            DecoderPoll::NeedMore => DecoderPoll::NeedMore,
            DecoderPoll::End => DecoderPoll::End,
        })
    }
}

/// A step of a decoder.
pub(super) enum Next<H> {
    Event(Queued<H>),
    NeedMore,
    End,
    /// The chunk in [`Decoder::working`] is to be decoded.
    Decode,
}

/// An event that waits to be polled.
#[derive(Clone)]
pub(super) enum Queued<H> {
    Event(DecoderEvent<H>),
    /// The session decodes targets itself: their hidden states are still on the CPU.
    Targets(Targets),
}

/// A chunk that is being decoded.
#[derive(Clone)]
pub(super) struct Working<S> {
    pub(super) chunk: WaitingChunk,
    /// Its frames that are decoded.
    done: usize,
    /// The sums of its frames' side indices, `[T, D]`.
    sums: Vec<i16>,
    /// What prediction reads for the chunk.
    past: Vec<i16>,
    partial: Option<S>,
}

/// A chunk to decode, now or once overdue targets have come ([DEC-14]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WaitingChunk {
    pub(super) index: u64,
    pub(super) count: usize,
    pub(super) epoch: u32,
    pub(super) lanes: Vec<Payload>,
    pub(super) offset: u64,
    /// The oldest overdue frame that was reported to the caller.
    pub(super) reported: Option<u64>,
    /// The type and values of the hidden state, if the chunk is an exact frame.
    pub(super) exact: Option<(Dtype, Payload)>,
    /// The check, if it covers side indices.
    pub(super) check: Option<OpenCheck>,
    /// The side indices of its first frames, as far as they are known.
    pub(super) side: Vec<u32>,
    /// Whether the caller was asked for those of the others.
    pub(super) asked: bool,
}

/// A chunk about which the caller was told nothing.
const FRESH: WaitingChunk = WaitingChunk {
    index: 0,
    count: 0,
    epoch: 0,
    lanes: Vec::new(),
    offset: 0,
    reported: None,
    exact: None,
    check: None,
    side: Vec::new(),
    asked: false,
};

impl WaitingChunk {
    fn memory_bytes(&self) -> usize {
        let payloads = self.lanes.iter().map(|lane| lane.bytes.len()).fold(0, usize::saturating_add);
        let lanes = self.lanes.capacity().saturating_mul(size_of::<Payload>());
        let exact = self.exact.as_ref().map_or(0, |(_, hidden)| hidden.bytes.len());
        let side = self.side.capacity().saturating_mul(4);
        payloads.saturating_add(lanes).saturating_add(exact).saturating_add(side)
    }
}

impl<S: Memory> Working<S> {
    fn memory_bytes(&self) -> usize {
        let sums = self.sums.capacity().saturating_add(self.past.capacity()).saturating_mul(2);
        let partial = self.partial.as_ref().map_or(0, S::memory_bytes);
        self.chunk.memory_bytes().saturating_add(sums).saturating_add(partial)
    }
}

/// Decodes one stream.
///
/// Call order: [`Decoder::new`]; [`Decoder::push`] or [`Decoder::push_message`] as input comes, each followed by
/// [`Decoder::poll`] until it needs more; [`Decoder::finish`] at the end of input. Errors are sticky; everything handed
/// out before an error stays valid. Cloning forks the session.
///
/// `E` is the engine that decodes chunks: [`Codec`], on this CPU, or one of a device. The values are the same. An error
/// of a device is not sticky: the next poll tries the same chunk again.
pub struct Decoder<E: Engine = Codec> {
    pub(super) config: DecoderConfig,
    pub(super) engine: Arc<E>,
    /// All that a stream may name.
    pub(super) models: Vec<Arc<E>>,
    pub(super) reader: Reader,
    pub(super) executor: Arc<dyn Executor + Send + Sync>,
    pub(super) keeps_integers: bool,
    pub(super) queue: VecDeque<Queued<E::Hidden>>,
    pub(super) failed: Option<Error>,
    /// Everything below is set once the header was read.
    pub(super) mode: Mode,
    pub(super) quality: usize,
    pub(super) max_rewind: u32,
    pub(super) horizon: usize,
    pub(super) g_y: Option<E::Context>,
    pub(super) context_start: u64,
    pub(super) digests: Digests,
    /// The session joins at a context reset or model switch that has not come yet (spec 6.6).
    pub(super) joining: bool,
    /// See [`Decoder::confirmed_index`].
    pub(super) confirmed: u64,
    /// See [`Decoder::resume_index`].
    pub(super) resume: u64,
    pub(super) pending: PendingFrames,
    pub(super) early: EarlyTargets,
    pub(super) waiting: Option<WaitingChunk>,
    /// Side indices from the stream that are still to be decoded.
    pub(super) sent_side: Option<SentSide>,
    pub(super) working: Option<Working<E::Partial>>,
    /// Side indices from the stream, of frames to come.
    pub(super) side_queue: VecDeque<u32>,
    pub(super) side_history: SideHistory,
    pub(super) past_frames: PastFrames,
    /// Those of the last target, for the buffers.
    parameters: TargetParameters,
    scratch: E::Scratch,
}

impl<E: Engine> Clone for Decoder<E> {
    fn clone(&self) -> Self {
        Self {
            config: self.config.clone(),
            engine: Arc::clone(&self.engine),
            models: self.models.clone(),
            reader: self.reader.clone(),
            executor: Arc::clone(&self.executor),
            keeps_integers: self.keeps_integers,
            queue: self.queue.clone(),
            failed: self.failed,
            mode: self.mode,
            quality: self.quality,
            max_rewind: self.max_rewind,
            horizon: self.horizon,
            g_y: self.g_y.clone(),
            context_start: self.context_start,
            digests: self.digests.clone(),
            joining: self.joining,
            confirmed: self.confirmed,
            resume: self.resume,
            pending: self.pending.clone(),
            early: self.early.clone(),
            waiting: self.waiting.clone(),
            sent_side: self.sent_side.clone(),
            working: self.working.clone(),
            side_queue: self.side_queue.clone(),
            side_history: self.side_history.clone(),
            past_frames: self.past_frames.clone(),
            parameters: TargetParameters::default(),
            scratch: E::Scratch::default(),
        }
    }
}

impl<E: Engine> std::fmt::Debug for Decoder<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("codec", &self.codec())
            .field("next_index", &self.next_index())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl<E: Engine> Decoder<E> {
    /// A decoder for streams of this model. `engine` is the codec model, prepared for where it runs: an `Arc<Codec>` for
    /// this CPU.
    ///
    /// # Errors
    /// None at present; a stream that the limits do not allow is refused when its header is read.
    pub fn new(engine: Arc<E>, config: DecoderConfig) -> Result<Self> {
        let reader = Reader::new(ReaderConfig { binding: config.binding, limits: config.limits });
        Ok(Self {
            config,
            models: vec![Arc::clone(&engine)],
            engine,
            reader,
            executor: Arc::new(Serial),
            keeps_integers: true,
            queue: VecDeque::new(),
            failed: None,
            mode: Mode::Joined,
            quality: 0,
            max_rewind: 0,
            horizon: 0,
            g_y: None,
            context_start: 0,
            digests: Digests::new(0, 0, Seed::NONE),
            joining: false,
            confirmed: 0,
            resume: 0,
            pending: PendingFrames::default(),
            early: EarlyTargets::default(),
            waiting: None,
            sent_side: None,
            working: None,
            side_queue: VecDeque::new(),
            side_history: SideHistory::default(),
            past_frames: PastFrames::default(),
            parameters: TargetParameters::default(),
            scratch: E::Scratch::default(),
        })
    }

    /// A decoder that begins at a context reset or model switch in the middle of a stream (spec 6.6), with the stream
    /// header known from elsewhere; there is no event for the header.
    ///
    /// The model in force at that place must be `engine` or one that [`Decoder::add_model`] adds.
    ///
    /// # Errors
    /// Those of the header: [`ErrorKind::WrongBinding`], [`ErrorKind::WrongHost`].
    pub fn join(engine: Arc<E>, config: DecoderConfig, header: StreamHeader, point: JoinPoint) -> Result<Self> {
        let mut decoder = Self::new(engine, config)?;
        let reader = ReaderConfig { binding: decoder.config.binding, limits: decoder.config.limits };
        decoder.reader = Reader::join(reader, header.clone(), point);
        // The binding is judged before the host (spec 7.4).
        decoder.reader.failure().map_or(Ok(()), Err)?;
        decoder.joining = true;
        decoder.open(&header, 0, false)?;
        Ok(decoder)
    }

    /// Adds a model that the stream may name: in its header, or in a model switch.
    pub fn add_model(&mut self, engine: Arc<E>) {
        self.models.push(engine);
    }

    /// What happened next. Work is bounded: a call runs g_y and decodes Y for at most
    /// [`DecoderConfig::frames_per_poll`] frames, and returns [`DecoderEvent::Working`] if that left a chunk
    /// unfinished. The first call for a chunk decodes W of all its frames.
    ///
    /// # Errors
    /// The stream's first error, again at every later call. An error of a device: the next call tries the same chunk again.
    pub fn poll(&mut self) -> Result<DecoderPoll<E::Hidden>, E::Error> {
        loop {
            match self.next()? {
                Next::Event(event) => return self.hand_out(event),
                Next::NeedMore => return Ok(DecoderPoll::NeedMore),
                Next::End => return Ok(DecoderPoll::End),
                Next::Decode => {
                    let (engine, executor) = (Arc::clone(&self.engine), Arc::clone(&self.executor));
                    let Some(job) = self.job() else { continue };
                    let outcome = engine.decode(&mut [job], &mut E::CallScratch::default(), &*executor)?;
                    self.commit(only(outcome));
                    if let Some(event) = self.progress() {
                        return Ok(DecoderPoll::Event(event));
                    }
                }
            }
        }
    }

    /// Hands out an event. If a device has no room for its hidden states, the event stays the next one.
    pub(super) fn hand_out(&mut self, event: Queued<E::Hidden>) -> Result<DecoderPoll<E::Hidden>, E::Error> {
        let mut targets = match event {
            Queued::Event(event) => return Ok(DecoderPoll::Event(event)),
            Queued::Targets(targets) => targets,
        };
        match self.engine.upload(&mut targets.hidden) {
            Ok(hidden) => {
                let Targets { index, count, y, concealed, .. } = targets;
                Ok(DecoderPoll::Event(DecoderEvent::Targets(Targets { index, count, y, hidden, concealed })))
            }
            Err(error) => {
                self.queue.push_front(Queued::Targets(targets));
                Err(error)
            }
        }
    }

    pub(super) fn tell(&mut self, event: DecoderEvent<E::Hidden>) {
        self.queue.push_back(Queued::Event(event));
    }

    /// Spreads batches over the executor's threads. The integers stay the same.
    pub fn set_executor(&mut self, executor: Arc<dyn Executor + Send + Sync>) {
        self.executor = executor;
    }

    /// Whether events of frames bring their integers ([`Frames::integers`](super::Frames::integers)). On by default, also
    /// after [`Decoder::restore`]. An engine whose integers are on a device then copies them to the CPU. Events of
    /// hyper-priors and targets always bring theirs.
    pub fn keep_integers(&mut self, on: bool) {
        self.keeps_integers = on;
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

    /// Absolute index up to which digests confirmed W and Y of every frame in the timeline, from the stream's first
    /// frame on, or from the frame where it was joined. It never passes a frame whose Y is unverifiable, and a rewind
    /// moves it back ([DEC-11]).
    pub fn confirmed_index(&self) -> u64 {
        self.confirmed
    }

    /// Absolute index of the last checkpoint, context reset, model switch or end whose W digest was right, or of a
    /// rewind to before it: W of every earlier frame, since the stream's start or the place where it was joined, equals
    /// the encoder's.
    pub fn resume_index(&self) -> u64 {
        self.resume
    }

    /// Absolute index of the oldest frame whose target is pending, in layered mode.
    pub fn oldest_pending(&self) -> Option<u64> {
        self.pending.oldest()
    }

    /// The elements of a pending frame that have not come, ascending: all of them, `0..E`, if no part came. `None` if
    /// the frame is not pending.
    pub fn missing_elements(&self, index: u64) -> Option<Vec<Range<usize>>> {
        let mut frame = self.pending.get(index, 1)?;
        frame.next().map(|frame| frame.missing(self.codec().model().hidden_width()))
    }

    /// Bytes that the session holds in addition to its own size and its models: context, buffers, digests, pending
    /// frames, a chunk that waits or is in progress, and events and input not yet polled.
    pub fn memory_bytes(&self) -> usize {
        self.bytes_held().saturating_add(self.reader.input_bytes())
    }

    /// The same without input, which only the caller bounds.
    pub(in crate::codec) fn bytes_held(&self) -> usize {
        let events = self.queue.iter().map(|event| match event {
            Queued::Event(event) => event.memory_bytes(E::hidden_bytes),
            Queued::Targets(targets) => targets.memory_bytes(|hidden| hidden.capacity().saturating_mul(4)),
        });
        [
            self.reader.memory_bytes().saturating_sub(self.reader.input_bytes()),
            queue_bytes(&self.queue),
            events.fold(0, usize::saturating_add),
            self.g_y.as_ref().map_or(0, Memory::memory_bytes),
            self.digests.memory_bytes(),
            self.pending.memory_bytes(),
            self.early.memory_bytes(),
            self.waiting.as_ref().map_or(0, WaitingChunk::memory_bytes),
            self.sent_side.as_ref().map_or(0, |sent| sent.payload.bytes.len()),
            self.working.as_ref().map_or(0, Working::memory_bytes),
            queue_bytes(&self.side_queue),
            self.side_history.memory_bytes(),
            self.past_frames.memory_bytes(),
            self.parameters.memory_bytes(),
            self.scratch.memory_bytes(),
            self.models.capacity().saturating_mul(size_of::<Arc<E>>()),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }

    /// Hands in bytes, cut anywhere.
    ///
    /// # Errors
    /// The sticky error, if the session has one; [`ErrorKind::AfterEnd`] after [`Decoder::finish`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.failed.map_or(Ok(()), Err)?;
        self.reader.push(bytes)
    }

    /// Hands in one message.
    ///
    /// # Errors
    /// As [`Decoder::push`].
    pub fn push_message(&mut self, message: &[u8]) -> Result<()> {
        self.failed.map_or(Ok(()), Err)?;
        self.reader.push_message(message)
    }

    /// Hands in a datagram, which should be one message of class [`crate::stream::MessageClass::Droppable`]. Both
    /// bindings allow it, at any time, also after [`Decoder::finish`]. It may be damaged, repeated or out of order.
    ///
    /// Any bytes are allowed. Each datagram that is not empty gives one event ([`DecoderEvent::Targets`],
    /// [`DecoderEvent::TargetPart`], [`DecoderEvent::TargetEarly`] or [`DecoderEvent::TargetRefused`]), and none ends
    /// the session ([MSG-7]). A datagram is judged after everything pushed before it, unless a chunk waits for overdue
    /// targets. At most [`crate::stream::limits::EARLY_CHUNKS`] datagrams and [`Limits::early_bytes`] wait to be
    /// polled.
    ///
    /// # Errors
    /// The sticky error, if the session has one.
    pub fn push_datagram(&mut self, datagram: &[u8]) -> Result<()> {
        self.failed.map_or(Ok(()), Err)?;
        self.reader.push_target(datagram)
    }

    /// Says that no more input comes.
    pub fn finish(&mut self) {
        self.reader.finish();
    }

    /// Ends the session with an error; only events from before the error are still handed out.
    pub(super) fn fail(&mut self, error: Error) {
        self.failed = Some(error);
        self.working = None;
        self.free();
    }

    /// Frees scratch memory.
    fn free(&mut self) {
        (self.parameters, self.scratch) = (TargetParameters::default(), E::Scratch::default());
    }

    /// What happened next, or the chunk that must be decoded before that is known.
    pub(super) fn next(&mut self) -> Result<Next<E::Hidden>> {
        loop {
            // Events that came before an error are handed out first.
            if let Some(event) = self.queue.pop_front() {
                settle_queue(&mut self.queue);
                return Ok(Next::Event(event));
            }
            self.failed.map_or(Ok(()), Err)?;
            if self.working.is_some() {
                return Ok(Next::Decode);
            }
            match self.advance() {
                Ok(None) => {}
                Ok(Some(next)) => return Ok(next),
                // The caller can still give what a chunk waits for.
                Err(error) if matches!(error.kind(), ErrorKind::TargetOverdue | ErrorKind::WrongSideIndices) => {
                    return Err(error);
                }
                Err(error) => self.fail(error),
            }
        }
    }

    /// Conceals pending frames with g_y's means ([DEC-13]): one event with `count` frames follows. Elements that came
    /// in parts keep their Y.
    ///
    /// # Errors
    /// [`ErrorKind::FrameNotPending`] unless all of them are pending; nothing changes then.
    pub fn conceal(&mut self, index: u64, count: usize) -> Result<()> {
        self.failed.map_or(Ok(()), Err)?;
        let frames = self.pending.get(index, count).filter(|_| count > 0);
        let missing = Error::of_call(ErrorKind::FrameNotPending).with(Detail::Id { what: "frame", found: index });
        let frames = frames.ok_or(missing)?;
        let model = self.codec().model();
        let (low, high) = (i32::from(model.y_range().0), i32::from(model.y_range().1));
        let (mut y, mut hidden) = (Vec::new(), Vec::new());
        for frame in frames {
            let means = frame.output.get(..model.hidden_width()).unwrap_or(&[]);
            let came = frame.came.iter().copied().chain(std::iter::repeat(None));
            // Means are within ±2^20, and the range is within an i16: neither the sum nor the conversion can fail.
            y.extend(means.iter().zip(came).map(|(mean, came)| {
                let rounded = mean.saturating_add(32).wrapping_shr(6).clamp(low, high);
                came.unwrap_or(i16::try_from(rounded).unwrap_or(0))
            }));
            let quality = frame.quality;
            let (step, offset) = (model.step(quality), model.offset(quality));
            quantiser::reconstruct_from_means(means, &frame.came, step, model.synthesis(), offset, &mut hidden);
        }
        self.pending.settle(index, count);
        for index in index..index.saturating_add(count as u64) {
            self.digests.settle(index, FrameY::Lost);
        }
        self.queue.push_back(Queued::Targets(Targets { index, count, y, hidden, concealed: true }));
        // A later checkpoint that is judged only now may fail. That is the stream's fault, and poll reports it after
        // this event.
        if let Err(error) = self.judge() {
            self.fail(error);
        }
        Ok(())
    }

    /// One step: the waiting chunk, or the reader's next event.
    fn advance(&mut self) -> Result<Option<Next<E::Hidden>>> {
        if self.take_due()? {
            return Ok(None);
        }
        if let Some(sent) = self.sent_side.take() {
            return self.take_side(sent).map(|()| None);
        }
        if let Some(chunk) = self.waiting.take() {
            if self.check_memory(&chunk, self.bytes_needed(&chunk)).is_err() {
                // Scratch memory is freed first, then early targets, one in each step.
                self.queue = VecDeque::new();
                self.free();
                if let Err(error) = self.check_memory(&chunk, self.bytes_needed(&chunk)) {
                    self.waiting = Some(chunk);
                    return if self.drop_early()? { Ok(None) } else { Err(error) };
                }
            }
            let (index, count) = self.overdue(chunk.index, chunk.count);
            if count == 0 {
                return self.begin(chunk);
            }
            // A datagram may contain what the chunk waits for.
            if let Some(event) = self.reader.poll_target(self.next_index()) {
                self.waiting = Some(chunk);
                return self.take(event).map(|()| None);
            }
            let (reported, offset) = (chunk.reported, chunk.offset);
            self.waiting = Some(WaitingChunk { reported: Some(index), ..chunk });
            if reported == Some(index) {
                let detail = Detail::Id { what: "conceal from frame", found: index };
                return Err(Error::new(ErrorKind::TargetOverdue, offset).with(detail));
            }
            self.tell(DecoderEvent::TargetsOverdue { index, count });
            return Ok(None);
        }
        match self.reader.poll()? {
            Poll::Event(event) => self.take(event).map(|()| None),
            Poll::NeedMore => Ok(Some(Next::NeedMore)),
            Poll::End => Ok(Some(Next::End)),
        }
    }

    fn take(&mut self, event: Event) -> Result<()> {
        let Event { offset, body_offset, chunk, .. } = event;
        let field = |within: usize| body_offset.saturating_add(within as u64);
        match chunk {
            Chunk::Header(header) => {
                self.open(&header, offset, true)?;
                self.tell(DecoderEvent::Opened(header));
            }
            Chunk::Frame { index, epoch, payload, check } => {
                let (lanes, side) = (vec![payload], self.next_side(1));
                let (count, exact) = (1, None);
                self.waiting = Some(WaitingChunk { index, count, epoch, lanes, offset, exact, check, side, ..FRESH });
            }
            Chunk::Batch { index, epoch, frames, lanes, check } => {
                let count = to_usize(frames);
                let side = self.next_side(count);
                let exact = None;
                self.waiting = Some(WaitingChunk { index, count, epoch, lanes, offset, exact, check, side, ..FRESH });
            }
            Chunk::SideIndices { index, count, payload } => {
                self.sent_side = Some(SentSide { index, count: to_usize(u64::from(count)), payload, offset });
            }
            Chunk::Target { frames, elements, lanes, status } => self.target(frames, elements, lanes, status)?,
            Chunk::ExactFrame { index, epoch, dtype, payload, hidden, check } => {
                // [CTRL-6] The length of hidden MUST be E times the size of the dtype.
                let wanted = self.codec().model().hidden_width().saturating_mul(dtype.bytes());
                if hidden.bytes.len() != wanted {
                    let (wanted, found) = (to_u64(wanted), to_u64(hidden.bytes.len()));
                    let detail = Detail::Number { what: "bytes of the hidden state", wanted, found };
                    return Err(Error::new(ErrorKind::ExactFrameLength, hidden.offset).with(detail));
                }
                let (count, lanes, exact, side) = (1, vec![payload], Some((dtype, hidden)), self.next_side(1));
                self.waiting = Some(WaitingChunk { index, count, epoch, lanes, offset, exact, check, side, ..FRESH });
            }
            Chunk::Checkpoint(checkpoint) => {
                // [DEC-18] When more checkpoints wait than the target horizon has frames, plus one, the decoder MUST
                // refuse (error 318, at the checkpoint's index).
                if self.digests.waiting() > self.horizon {
                    let (what, limit) = ("checkpoints that wait", Limit::Declared);
                    let found = to_u64(self.digests.waiting()).saturating_add(1);
                    let most = to_u64(self.horizon).saturating_add(1);
                    let detail = Detail::Limit { what, limit, most, found };
                    let error = Error::new(ErrorKind::TooManyCheckpoints, field(0)).with(detail);
                    let header = self.reader.header();
                    return Err(header.map_or(error, |header| self.config.limits.attribute_limit(header, error)));
                }
                self.judge_digests(checkpoint.digest_w, checkpoint.digest_y, field(checkpoint.digest_offset()))?;
                self.digests.restart();
            }
            Chunk::Reset(reset) => self.reset(&reset, body_offset)?,
            Chunk::Rewind(rewind) => self.rewind(rewind.index)?,
            Chunk::Quality(quality) => {
                self.quality = self.codec().check_quality(quality.quality, field(0))?;
                self.tell(DecoderEvent::Quality(quality.quality));
            }
            Chunk::ModelSwitch(switch) => {
                self.switch_model(&switch, body_offset)?;
            }
            Chunk::Extension(extension) => {
                self.tell(DecoderEvent::Extension { id: extension.id, data: extension.data });
            }
            Chunk::End(end) => {
                self.judge_digests(end.digest_w, end.digest_y, field(end.digest_offset()))?;
                self.tell(DecoderEvent::Ended { index: end.index, frames_coded: end.frames_coded });
            }
            // Hints for readers that seek; they say nothing about the frames.
            Chunk::SeekIndex(_) | Chunk::Footer => {}
        }
        Ok(())
    }
}
