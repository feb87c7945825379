//! The decoder session: bytes in, integers and hidden states out.

use std::collections::VecDeque;
use std::sync::Arc;

use super::analysis::Codec;
use super::digest::{Digests, FrameY, frame_crc};
use super::event::{CheckpointVerdict, DecoderEvent, ExactFrame, Frames, HyperPrior, TargetRefusal, Targets};
use super::parameters::TargetParameters;
use super::payload::{LaneFault, Tables};
use super::pending::{PendingFrame, PendingFrames};
use super::quantiser;
use crate::entropy::EntropyError;
use crate::error::{Error, ErrorKind, Result};
use crate::exact::{Executor, Serial, State};
use crate::stream::{Binding, Chunk, Event, JoinPoint, Limits, Poll, Reader, ReaderConfig, TargetStatus};
use crate::wire::{Dtype, Mode, ModelSwitch, Payload, Reset, StreamHeader};

/// What a decoder session is opened with.
#[derive(Clone, Debug)]
pub struct DecoderConfig {
    /// Byte stream (files too) or messages.
    pub binding: Binding,
    /// The caller's limits; the smaller of these and the header's hold.
    pub limits: Limits,
    /// Bytes that the context and one chunk's integers may take.
    pub memory_limit: usize,
    /// Digest of the host model's weights: a header that states another one is refused.
    pub host_digest: Option<[u8; 32]>,
    /// Further models that a model switch may name.
    pub models: Vec<Arc<Codec>>,
}

impl Default for DecoderConfig {
    /// Byte stream, default limits, 512 MiB, any host, no further models.
    fn default() -> Self {
        Self {
            binding: Binding::ByteStream,
            limits: Limits::default(),
            memory_limit: 512 << 20,
            host_digest: None,
            models: Vec::new(),
        }
    }
}

/// Outcome of [`Decoder::poll`].
#[derive(Clone, Debug, PartialEq)]
pub enum DecoderPoll {
    /// Something happened.
    Event(DecoderEvent),
    /// More input is needed, or [`Decoder::finish`].
    NeedMore,
    /// The stream ended properly.
    End,
}

/// A checkpoint or end whose Y is not settled yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) index: u64,
    pub(super) digest_y: u32,
    /// Where the digest stands in the stream.
    pub(super) offset: u64,
}

/// A hyper-prior chunk or exact frame that waits for overdue targets ([DEC-14]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) index: u64,
    pub(super) count: usize,
    pub(super) epoch: u32,
    pub(super) lanes: Vec<Payload>,
    pub(super) offset: u64,
    /// The oldest overdue frame that the caller was told of.
    pub(super) reported: Option<u64>,
    /// The type and values of the hidden state, where the chunk is an exact frame.
    pub(super) exact: Option<(Dtype, Payload)>,
}

/// Decodes one stream.
///
/// Call order: [`Decoder::new`]; [`Decoder::push`] or [`Decoder::push_message`] as input comes, each followed by
/// [`Decoder::poll`] until it needs more; [`Decoder::finish`] at the end of input. Errors are sticky: what was handed out
/// before one stays valid. Cloning forks the session.
#[derive(Clone)]
pub struct Decoder {
    pub(super) config: DecoderConfig,
    pub(super) codec: Arc<Codec>,
    pub(super) reader: Reader,
    pub(super) executor: Arc<dyn Executor + Send + Sync>,
    pub(super) queue: VecDeque<DecoderEvent>,
    pub(super) failed: Option<Error>,
    /// Everything below exists once the header was read.
    pub(super) mode: Mode,
    pub(super) quality: usize,
    pub(super) max_rewind: u32,
    pub(super) horizon: usize,
    pub(super) g_y: Option<State>,
    pub(super) context_start: u64,
    pub(super) digests: Digests,
    pub(super) expected: VecDeque<Expected>,
    /// Absolute index behind the last frame whose checkpoint held.
    pub(super) confirmed: u64,
    pub(super) pending: PendingFrames,
    pub(super) held: Option<Held>,
    pub(super) output: Vec<i32>,
    pub(super) parameters: TargetParameters,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("codec", &self.codec)
            .field("next_index", &self.next_index())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder for streams of this model.
    ///
    /// # Errors
    /// None at present; a stream that the limits do not allow is refused when its header is read.
    pub fn new(codec: Arc<Codec>, config: DecoderConfig) -> Result<Self> {
        let reader = Reader::new(ReaderConfig { binding: config.binding, limits: config.limits });
        let mut config = config;
        // A model switch may come back to the first model.
        config.models.push(Arc::clone(&codec));
        Ok(Self {
            config,
            codec,
            reader,
            executor: Arc::new(Serial),
            queue: VecDeque::new(),
            failed: None,
            mode: Mode::Joined,
            quality: 0,
            max_rewind: 0,
            horizon: 0,
            g_y: None,
            context_start: 0,
            digests: Digests::new(0, 0),
            expected: VecDeque::new(),
            confirmed: 0,
            pending: PendingFrames::default(),
            held: None,
            output: Vec::new(),
            parameters: TargetParameters::default(),
        })
    }

    /// A decoder that begins at a context reset or model switch in the middle of a stream (spec 6.6), with the stream
    /// header known from elsewhere. The first event is that of the header.
    ///
    /// `codec` or one of the configuration's further models must be the one in force there.
    ///
    /// # Errors
    /// As the header's own: [`ErrorKind::WrongHost`], [`ErrorKind::MemoryLimit`].
    pub fn join(codec: Arc<Codec>, config: DecoderConfig, header: StreamHeader, point: JoinPoint) -> Result<Self> {
        let mut decoder = Self::new(codec, config)?;
        let reader = ReaderConfig { binding: decoder.config.binding, limits: decoder.config.limits };
        decoder.reader = Reader::join(reader, header.clone(), point);
        decoder.open(&header, 0, false)?;
        Ok(decoder)
    }

    /// Uses threads, or whatever the executor does, for batches. The integers stay the same.
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

    /// Absolute index behind the last frame whose checkpoint held; later frames are not yet confirmed ([DEC-11]).
    pub fn confirmed_index(&self) -> u64 {
        self.confirmed
    }

    /// Absolute index of the oldest frame whose target is pending, in layered mode.
    pub fn oldest_pending(&self) -> Option<u64> {
        self.pending.oldest()
    }

    /// Bytes that the session keeps for its context.
    pub fn memory_bytes(&self) -> usize {
        self.g_y.as_ref().map_or(0, State::memory_bytes)
    }

    /// Hands in bytes, cut anywhere.
    ///
    /// # Errors
    /// The sticky error, if the session has one; [`ErrorKind::AfterEnd`] behind [`Decoder::finish`].
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

    /// Says that no more input comes.
    pub fn finish(&mut self) {
        self.reader.finish();
    }

    /// What happened next.
    ///
    /// # Errors
    /// The stream's first error, again at every later call.
    pub fn poll(&mut self) -> Result<DecoderPoll> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(DecoderPoll::Event(event));
            }
            self.failed.map_or(Ok(()), Err)?;
            match self.advance() {
                Ok(None) => {}
                Ok(Some(poll)) => return Ok(poll),
                // Events that came before the error are still in the queue and are handed out first.
                Err(error) if error.kind() == ErrorKind::TargetOverdue => return Err(error),
                Err(error) => self.failed = Some(error),
            }
        }
    }

    /// Conceals pending frames by the mean that g_y gives ([DEC-13]): one event with `count` frames follows.
    ///
    /// # Errors
    /// [`ErrorKind::FrameNotPending`] unless all of them are pending; nothing changes then.
    pub fn conceal(&mut self, index: u64, count: usize) -> Result<()> {
        self.failed.map_or(Ok(()), Err)?;
        let frames = self.pending.get(index, count).filter(|_| count > 0);
        let frames = frames.ok_or_else(|| Error::new(ErrorKind::FrameNotPending, 0))?;
        let model = self.codec.model();
        let (low, high) = (i32::from(model.y_range().0), i32::from(model.y_range().1));
        let (mut y, mut hidden) = (Vec::new(), Vec::new());
        for frame in frames {
            let means = frame.output.get(..model.hidden_width()).unwrap_or(&[]);
            // Means are within ±2^20, the range within an i16: neither the sum nor the conversion can fail.
            y.extend(means.iter().map(|mean| {
                let rounded = mean.saturating_add(32).wrapping_shr(6).clamp(low, high);
                i16::try_from(rounded).unwrap_or(0)
            }));
            let quality = frame.quality;
            quantiser::reconstruct_from_means(means, model.step(quality), model.offset(quality), &mut hidden);
        }
        self.pending.settle(index, count);
        for index in index..index.saturating_add(count as u64) {
            self.digests.settle(index, FrameY::Lost);
        }
        self.queue.push_back(DecoderEvent::Targets(Targets { index, count, y, hidden, concealed: true }));
        // A later checkpoint that is judged only now may fail: the stream's fault, which poll tells behind this event.
        self.failed = self.judge().err();
        Ok(())
    }

    /// One step: the held chunk, or the reader's next event.
    fn advance(&mut self) -> Result<Option<DecoderPoll>> {
        if let Some(held) = self.held.take() {
            let (index, count) = self.overdue(held.index, held.count);
            if count == 0 {
                match held.exact {
                    Some((dtype, hidden)) => self.exact_frame(held.index, &held.lanes, dtype, hidden)?,
                    None => self.hyper_prior(held)?,
                }
                return Ok(None);
            }
            let (reported, offset) = (held.reported, held.offset);
            self.held = Some(Held { reported: Some(index), ..held });
            if reported == Some(index) {
                return Err(Error::new(ErrorKind::TargetOverdue, offset));
            }
            self.queue.push_back(DecoderEvent::TargetsOverdue { index, count });
            return Ok(None);
        }
        match self.reader.poll()? {
            Poll::Event(event) => self.take(event).map(|()| None),
            Poll::NeedMore => Ok(Some(DecoderPoll::NeedMore)),
            Poll::End => Ok(Some(DecoderPoll::End)),
        }
    }

    fn take(&mut self, event: Event) -> Result<()> {
        let Event { offset, body_offset, chunk, .. } = event;
        let field = |within: usize| body_offset.saturating_add(within as u64);
        match chunk {
            Chunk::Header(header) => {
                self.open(&header, offset, true)?;
                self.queue.push_back(DecoderEvent::Opened(header));
            }
            Chunk::Frame { index, epoch, payload } => self.frames(index, 1, epoch, vec![payload], offset)?,
            Chunk::Batch { index, epoch, frames, lanes } => {
                self.frames(index, usize::try_from(frames).unwrap_or(usize::MAX), epoch, lanes, offset)?;
            }
            Chunk::Target { frames, lanes, status, .. } => {
                self.target(usize::try_from(frames).unwrap_or(usize::MAX), &lanes, status)?;
            }
            Chunk::ExactFrame { index, epoch, dtype, payload, hidden } => {
                // [CTRL-6] The length of hidden MUST be E times the size of the dtype.
                if hidden.bytes.len() != self.codec.model().hidden_width().saturating_mul(dtype.bytes()) {
                    return Err(Error::new(ErrorKind::ExactFrameLength, hidden.offset));
                }
                match self.mode {
                    Mode::Joined => self.exact_frame(index, &[payload], dtype, hidden)?,
                    Mode::Layered => {
                        let (lanes, exact) = (vec![payload], Some((dtype, hidden)));
                        self.held = Some(Held { index, count: 1, epoch, lanes, offset, reported: None, exact });
                    }
                }
            }
            Chunk::Checkpoint(checkpoint) => {
                // [DEC-18] When more checkpoints wait than the target horizon has frames, plus one, the decoder MUST
                // refuse (error 318, at the checkpoint's index).
                if self.expected.len() > self.horizon {
                    return Err(Error::new(ErrorKind::TooManyCheckpoints, field(0)));
                }
                let at = field(checkpoint.digest_offset());
                self.checkpoint(checkpoint.index, checkpoint.digest_w, checkpoint.digest_y, at)?;
                self.judge()?;
            }
            Chunk::Reset(reset) => self.reset(&reset, field(reset.quality_offset()))?,
            Chunk::Rewind(rewind) => self.rewind(rewind.index)?,
            Chunk::Quality(quality) => {
                self.quality = self.codec.check_quality(quality.quality, field(0))?;
                self.queue.push_back(DecoderEvent::Quality(quality.quality));
            }
            Chunk::ModelSwitch(switch) => {
                let (fingerprint, quality) = (switch.fingerprint_offset(), switch.quality_offset());
                self.switch_model(&switch, field(fingerprint), field(quality))?;
            }
            Chunk::Extension(extension) => {
                self.queue.push_back(DecoderEvent::Extension { id: extension.id, data: extension.data });
            }
            Chunk::End(end) => {
                let at = field(end.digest_offset());
                self.checkpoint(end.index, end.digest_w, end.digest_y, at)?;
                let settled = self.pending.oldest().is_none();
                let ended = |verdict| DecoderEvent::Ended { index: end.index, frames_coded: end.frames_coded, verdict };
                if settled {
                    let verdict = self.next_verdict()?;
                    self.queue.push_back(ended(verdict));
                } else {
                    self.queue.push_back(ended(None));
                }
            }
            // Hints for readers that jump; they say nothing of the frames.
            Chunk::SeekIndex(_) | Chunk::Footer => {}
        }
        Ok(())
    }

    /// [MODEL-11] The fingerprint is compared before the first frame; the host digest and the memory limit too.
    pub(super) fn open(&mut self, header: &StreamHeader, offset: u64, own_model: bool) -> Result<()> {
        if own_model && header.fingerprint != *self.codec.fingerprint() {
            let known = self.config.models.iter().find(|codec| *codec.fingerprint() == header.fingerprint);
            match known {
                Some(codec) => self.codec = Arc::clone(codec),
                None => {
                    return Err(Error::new(ErrorKind::WrongModel, offset.saturating_add(header.fingerprint_offset())));
                }
            }
        }
        let quality_offset = offset.saturating_add(header.quality_offset());
        if let (Some(stated), Some(own)) = (header.host_digest, self.config.host_digest)
            && stated != own
        {
            return Err(Error::new(ErrorKind::WrongHost, quality_offset.saturating_add(1)));
        }
        self.mode = header.mode;
        if own_model {
            self.quality = self.codec.check_quality(header.quality, quality_offset)?;
        }
        let limits = self.config.limits.min(Limits::declared(header));
        self.max_rewind = limits.max_rewind;
        self.horizon = usize::try_from(limits.target_horizon).unwrap_or(usize::MAX);
        self.g_y = Some(self.new_state(offset)?);
        self.begin_context(0);
        Ok(())
    }

    /// Bytes that the context of the model in force may take: the network's state, and outputs of pending frames.
    fn context_bytes(&self) -> usize {
        let pending = self.codec.g_y().outputs().saturating_mul(4).saturating_mul(self.horizon);
        State::required_bytes(self.codec.g_y(), self.max_rewind).saturating_add(pending)
    }

    /// A context for the model in force, if the memory limit allows it.
    fn new_state(&self, offset: u64) -> Result<State> {
        if self.context_bytes() > self.config.memory_limit {
            return Err(Error::new(ErrorKind::MemoryLimit, offset).with_detail("the declared rewind or horizon"));
        }
        Ok(State::new(self.codec.g_y(), self.max_rewind))
    }

    /// A batch's integers, parameters and values have to fit beside the context before any of them is set aside.
    fn check_memory(&self, count: usize, offset: u64) -> Result<()> {
        let (width, channels) = (self.codec.model().hidden_width(), self.codec.model().hyper_prior_width());
        // Per element: Y 2, output 2 · 4, table 4, shift 4, hidden 4 bytes; per channel: W 2 bytes. A pending frame keeps
        // its output, which a target chunk collects once more.
        let element = if self.mode == Mode::Layered { 22 + 2 * 8 } else { 22 };
        let pending = if self.mode == Mode::Layered { size_of::<PendingFrame>() } else { 0 };
        let frame = width.saturating_mul(element).saturating_add(channels.saturating_mul(2)).saturating_add(pending);
        if frame.saturating_mul(count).saturating_add(self.context_bytes()) > self.config.memory_limit {
            return Err(Error::new(ErrorKind::MemoryLimit, offset).with_detail("the frames of one chunk"));
        }
        Ok(())
    }

    fn frames(&mut self, index: u64, count: usize, epoch: u32, lanes: Vec<Payload>, offset: u64) -> Result<()> {
        self.check_memory(count, offset)?;
        match self.mode {
            Mode::Joined => {
                let frames = self.decode_joined(index, count, &lanes)?;
                self.queue.push_back(DecoderEvent::Frames(frames));
            }
            // Whether it has to wait is seen at the next step.
            Mode::Layered => {
                self.held = Some(Held { index, count, epoch, lanes, offset, reported: None, exact: None });
            }
        }
        Ok(())
    }

    /// Decodes a joined chunk: W of every lane, g_y, then Y of every lane ([DEC-2]).
    fn decode_joined(&mut self, index: u64, count: usize, lanes: &[Payload]) -> Result<Frames> {
        let codec = Arc::clone(&self.codec);
        let tables = Tables { model: codec.model(), quality: self.quality, executor: &*self.executor };
        let (width, channels) = (codec.model().hidden_width(), codec.model().hyper_prior_width());
        let fault = |fault: LaneFault| lane_error(lanes, fault);
        let payloads: Vec<&[u8]> = lanes.iter().map(|lane| &*lane.bytes).collect();
        let mut w = vec![0; count.saturating_mul(channels)];
        let coders = tables.decode_w(&payloads, &mut w).map_err(fault)?;
        predict(&codec, &mut self.g_y, &w, self.quality, &mut self.output, &*self.executor)?;
        codec.rule().derive(&self.output, &mut self.parameters);
        let mut y = vec![0; count.saturating_mul(width)];
        tables.decode_y(coders, &self.parameters, &mut y).map_err(fault)?;
        for (w, y) in w.chunks_exact(channels).zip(y.chunks_exact(width)) {
            self.digests.append(frame_crc(w), FrameY::Known(frame_crc(y)));
        }
        let mut hidden = Vec::new();
        quantiser::reconstruct(&y, codec.model().step(self.quality), codec.model().offset(self.quality), &mut hidden);
        Ok(Frames { index, count, w, y, hidden })
    }

    /// Spec 6.9.
    fn exact_frame(&mut self, index: u64, lanes: &[Payload], dtype: Dtype, hidden: Payload) -> Result<()> {
        let frame = self.decode_joined(index, 1, lanes)?;
        if self.pending.oldest().is_some() {
            self.pending.push(index, PendingFrame { epoch: 0, quality: self.quality, output: Vec::new() });
        }
        self.queue.push_back(DecoderEvent::ExactFrame(ExactFrame { frame, dtype, hidden: hidden.bytes }));
        Ok(())
    }

    /// The oldest pending frames, without a gap, that have to be settled before `count` more from `index` on can be
    /// taken up ([DEC-14]).
    fn overdue(&self, index: u64, count: usize) -> (u64, usize) {
        let Some(oldest) = self.pending.oldest() else { return (index, 0) };
        let span = self.pending.span().saturating_add(count);
        (oldest, self.pending.run(span.saturating_sub(self.horizon)))
    }

    fn hyper_prior(&mut self, held: Held) -> Result<()> {
        let Held { index, count, epoch, lanes, .. } = held;
        let codec = Arc::clone(&self.codec);
        let tables = Tables { model: codec.model(), quality: self.quality, executor: &*self.executor };
        let channels = codec.model().hyper_prior_width();
        let fault = |fault: LaneFault| lane_error(&lanes, fault);
        let payloads: Vec<&[u8]> = lanes.iter().map(|lane| &*lane.bytes).collect();
        let mut w = vec![0; count.saturating_mul(channels)];
        let coders = tables.decode_w(&payloads, &mut w).map_err(fault)?;
        Tables::finish(coders).map_err(fault)?;
        predict(&codec, &mut self.g_y, &w, self.quality, &mut self.output, &*self.executor)?;
        let outputs = self.output.chunks_exact(codec.g_y().outputs());
        for ((index, w), output) in (index..).zip(w.chunks_exact(channels)).zip(outputs) {
            self.digests.append(frame_crc(w), FrameY::Pending);
            self.pending.push(index, PendingFrame { epoch, quality: self.quality, output: output.to_vec() });
        }
        self.queue.push_back(DecoderEvent::HyperPrior(HyperPrior { index, count, w }));
        Ok(())
    }

    /// A target chunk: decoded if its frames wait for it, an event and no change otherwise (spec 6.5).
    fn target(&mut self, count: usize, lanes: &[Payload], status: TargetStatus) -> Result<()> {
        let (index, epoch) = match status {
            TargetStatus::Usable { index, epoch } => (index, epoch),
            TargetStatus::Late { index, .. } => return self.refuse(Some(index), TargetRefusal::Late),
            TargetStatus::Damaged => return self.refuse(None, TargetRefusal::Damaged),
        };
        let mut output = Vec::new();
        let mut qualities = Vec::with_capacity(count.min(self.horizon));
        let mut waits = false;
        if let Some(frames) = self.pending.get(index, count) {
            waits = true;
            for frame in frames {
                waits &= frame.epoch == epoch;
                output.extend_from_slice(&frame.output);
                qualities.push(frame.quality);
            }
        }
        if !waits {
            return self.refuse(Some(index), TargetRefusal::Late);
        }
        let codec = Arc::clone(&self.codec);
        let tables = Tables { model: codec.model(), quality: self.quality, executor: &*self.executor };
        codec.rule().derive(&output, &mut self.parameters);
        let mut y = vec![0; count.saturating_mul(codec.model().hidden_width())];
        let coders = lanes.iter().map(|lane| crate::entropy::LaneDecoder::new(&lane.bytes)).collect();
        // [DEC-12] A payload that is corrupt, not canonical or out of range makes the target damaged.
        if tables.decode_y(coders, &self.parameters, &mut y).is_err() {
            return self.refuse(Some(index), TargetRefusal::Damaged);
        }
        let mut hidden = Vec::new();
        for ((index, y), quality) in (index..).zip(y.chunks_exact(codec.model().hidden_width())).zip(qualities) {
            self.digests.settle(index, FrameY::Known(frame_crc(y)));
            quantiser::reconstruct(y, codec.model().step(quality), codec.model().offset(quality), &mut hidden);
        }
        self.pending.settle(index, count);
        self.queue.push_back(DecoderEvent::Targets(Targets { index, count, y, hidden, concealed: false }));
        self.judge()
    }

    fn refuse(&mut self, index: Option<u64>, reason: TargetRefusal) -> Result<()> {
        self.queue.push_back(DecoderEvent::TargetRefused { index, reason });
        Ok(())
    }

    /// [DEC-8] W is judged at once; Y when no target before the checkpoint is pending ([DEC-10]).
    fn checkpoint(&mut self, index: u64, digest_w: u32, digest_y: u32, offset: u64) -> Result<()> {
        if digest_w != self.digests.digest_w() {
            return Err(Error::new(ErrorKind::DigestMismatchW, offset));
        }
        self.expected.push_back(Expected { index, digest_y, offset: offset.saturating_add(4) });
        self.digests.checkpoint();
        Ok(())
    }

    /// The verdict on the oldest checkpoint that waits, if its Y is settled.
    fn next_verdict(&mut self) -> Result<Option<CheckpointVerdict>> {
        let Some((index, digest)) = self.digests.next_verdict() else { return Ok(None) };
        let expected = self.expected.pop_front().unwrap_or(Expected { index, digest_y: digest.value, offset: 0 });
        if digest.lost {
            return Ok(Some(CheckpointVerdict::Unverifiable));
        }
        if digest.value != expected.digest_y {
            return Err(Error::new(ErrorKind::DigestMismatchY, expected.offset));
        }
        self.confirmed = index;
        Ok(Some(CheckpointVerdict::Confirmed))
    }

    /// Hands out the verdicts on checkpoints whose Y is settled by now.
    fn judge(&mut self) -> Result<()> {
        while let Some(index) = self.expected.front().map(|expected| expected.index) {
            let Some(verdict) = self.next_verdict()? else { break };
            self.queue.push_back(DecoderEvent::Checkpoint { index, verdict });
        }
        Ok(())
    }

    fn reset(&mut self, reset: &Reset, quality_offset: u64) -> Result<()> {
        let prefix = reset.fingerprint_prefix;
        if !self.codec.fingerprint().starts_with(&prefix) {
            // A decoder that joins here finds out which of its models is in force; for others the container has judged
            // the prefix.
            let known = self.config.models.iter().find(|codec| codec.fingerprint().starts_with(&prefix));
            let wrong = Error::new(ErrorKind::WrongModelAtReset, quality_offset.saturating_add(1));
            self.codec = known.cloned().ok_or(wrong)?;
            self.g_y = Some(self.new_state(quality_offset)?);
        }
        self.quality = self.codec.check_quality(reset.quality, quality_offset)?;
        self.begin_context(reset.index);
        self.judge()?;
        self.queue.push_back(DecoderEvent::Reset { index: reset.index });
        Ok(())
    }

    /// [DEC-7] A model that this decoder does not have is refused.
    fn switch_model(&mut self, switch: &ModelSwitch, offset: u64, quality_offset: u64) -> Result<()> {
        let codec = self.config.models.iter().find(|codec| *codec.fingerprint() == switch.fingerprint);
        let codec = codec.cloned().ok_or_else(|| Error::new(ErrorKind::WrongModel, offset))?;
        self.quality = codec.check_quality(switch.quality, quality_offset)?;
        self.codec = codec;
        self.g_y = Some(self.new_state(offset)?);
        self.begin_context(switch.index);
        self.judge()?;
        self.queue.push_back(DecoderEvent::Model { fingerprint: switch.fingerprint, index: switch.index });
        Ok(())
    }

    /// [DEC-5], [DEC-16]
    fn rewind(&mut self, index: u64) -> Result<()> {
        if let Some(state) = &mut self.g_y {
            state.truncate(index.saturating_sub(self.context_start))?;
        }
        self.digests.rewind(index);
        self.pending.truncate(index);
        self.confirmed = self.confirmed.min(index);
        self.judge()?;
        self.queue.push_back(DecoderEvent::Rewound { index });
        Ok(())
    }

    /// An empty context whose first frame is `index`. Verdicts on checkpoints before it are still to be fetched.
    fn begin_context(&mut self, index: u64) {
        if let Some(state) = &mut self.g_y {
            state.reset();
        }
        self.digests.begin(index, u64::from(self.max_rewind));
        self.pending.clear();
        self.context_start = index;
        self.confirmed = self.confirmed.min(index);
    }
}

/// Runs g_y on W, `[T, C]`; leaves `[T, 2E]` in `output`.
fn predict(
    codec: &Codec,
    state: &mut Option<State>,
    w: &[i16],
    quality: usize,
    output: &mut Vec<i32>,
    executor: &dyn Executor,
) -> Result<()> {
    // The reader hands out no frame before the header, which makes the state.
    let state = state.as_mut().ok_or_else(|| Error::new(ErrorKind::NotAvailable, 0))?;
    codec.g_y().run(state, w, quality, output, executor)
}

/// Errors in a payload stand at the offset of the lane's first byte (spec 6.1).
fn lane_error(lanes: &[Payload], fault: LaneFault) -> Error {
    let kind = match fault.error {
        EntropyError::SealNotCanonical => ErrorKind::SealNotCanonical,
        EntropyError::ValueOutOfRange => ErrorKind::ValueOutOfRange,
        _ => ErrorKind::CorruptPayload,
    };
    Error::new(kind, lanes.get(fault.lane).map_or(0, |lane| lane.offset))
}
