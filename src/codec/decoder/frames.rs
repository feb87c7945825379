//! Frames of a stream: hyper-priors and targets, joined or separate (spec 6.1, 6.5, 6.9).

use std::borrow::Borrow;
use std::ops::Range;
use std::sync::Arc;

use super::{Decoder, Queued, WaitingChunk, Working};
use crate::codec::digest::FrameY;
use crate::codec::early::TargetChunk;
use crate::codec::encoder::engine_fault;
use crate::codec::event::{DecoderEvent, ExactFrame, Frames, HyperPrior, TargetRefusal, Targets};
use crate::codec::pending::PendingFrame;
use crate::codec::side::crc_after;
use crate::engine::parameters::TargetParameters;
use crate::engine::payload::{LaneFault, PayloadCoder, lane_span};
use crate::engine::prediction::walk_bytes;
use crate::engine::{Context, DecodeJob, DecodeSpec, Decoded, Engine, KEPT_BYTES, Memory, frame_crc, quantiser};
use crate::entropy::{EntropyError, RunMode, max_payload_len};
use crate::error::{Detail, Error, ErrorKind, Limit, Result};
use crate::number::{to_u64, to_usize};
use crate::stream::TargetStatus;
use crate::wire::{Mode, Payload};

impl<E: Engine> Decoder<E> {
    /// Checks that what a chunk needs fits the memory limit; nothing is allocated before.
    pub(in crate::codec) fn check_memory(&self, chunk: &WaitingChunk, needed: usize) -> Result<()> {
        if needed > self.config.memory_limit {
            return Err(self.no_room("bytes for a chunk's frames and the context they lead to", needed, chunk.offset));
        }
        Ok(())
    }

    /// Makes room: drops the early target that is furthest ahead, with an event. False if none is kept.
    ///
    /// [DEC-22] A decoder that has no memory for a chunk MUST drop early targets that it keeps before it refuses the
    /// chunk.
    pub(super) fn drop_early(&mut self) -> Result<bool> {
        match self.early.drop_newest() {
            Some(index) => self.refuse(Some(index), TargetRefusal::NoRoom).map(|()| true),
            None => Ok(false),
        }
    }

    /// Bytes for the context after a chunk's frames, their integers and values, and buffers of a slice, in addition to
    /// what is held.
    pub(in crate::codec) fn bytes_needed(&self, chunk: &WaitingChunk) -> usize {
        let (width, channels) = (self.codec().model().hidden_width(), self.codec().model().hyper_prior_width());
        let network = self.codec().g_y();
        let slice = self.frames_per_call(chunk.count);
        // For each element of Y: the integer, 2 bytes, and the hidden state, 4. For each element of W: the integer. For
        // each element of a slice: g_y's output, 2 · 4 bytes, a table's number, 4, and a shift, 4.
        let (frame, buffers) = if self.is_hyper_prior(chunk) {
            // A pending frame keeps its output; its target takes the rest, in a chunk of as many frames.
            (PendingFrame::bytes(network.outputs()).saturating_add(width.saturating_mul(6 + 8)), 8)
        } else {
            (width.saturating_mul(6), 8 + 8)
        };
        let frame = frame.saturating_add(channels.saturating_mul(2));
        // Of side indices: the history; of each frame its sums twice, 2 · 2 bytes each, and its index while they are
        // made, 4; and what is still to be given.
        let side = self.codec().model().side().map_or(0, |side| {
            let frame = side.width().saturating_mul(2 + 2).saturating_add(4);
            let history = self.side_history.growth(side, self.max_rewind, chunk.count, chunk.count);
            let lacking = chunk.count.saturating_sub(chunk.side.len()).saturating_mul(4);
            chunk.count.saturating_mul(frame).saturating_add(history).saturating_add(lacking)
        });
        // The frames that prediction reads, and a walk along each lane.
        let model = self.codec().model();
        let past = match model.prediction() {
            Some(_) => {
                let walks = walk_bytes(model).saturating_mul(chunk.lanes.len());
                self.past_frames.growth(model, self.max_rewind, chunk.count).saturating_add(walks)
            }
            None => 0,
        };
        let context = self.g_y.as_ref().map_or(0, |state| state.bytes_after(chunk.count));
        let twice = [
            self.g_y.as_ref().map_or(0, Memory::memory_bytes),
            self.waiting.as_ref().map_or(0, WaitingChunk::memory_bytes),
        ];
        let needed = [
            twice.into_iter().fold(self.bytes_held(), usize::saturating_sub),
            // Whether parts of pending frames have come depends on chance, and must not decide whether a chunk fits.
            self.pending.bytes_for_parts(width),
            context,
            network.buffer_bytes(slice),
            chunk.count.saturating_mul(frame),
            side,
            past,
            self.digests.growth_by(chunk.count),
            slice.saturating_mul(width).saturating_mul(buffers),
            quantiser::reconstruction_bytes(self.codec().model()),
            chunk.memory_bytes(),
        ];
        needed.into_iter().fold(0, usize::saturating_add)
    }

    /// Refuses a chunk with a payload that is too long ([MODE-4]).
    pub(super) fn check_lengths(&self, chunk: &WaitingChunk) -> Result<()> {
        let (width, channels) = (self.codec().model().hidden_width(), self.codec().model().hyper_prior_width());
        let values = if self.is_hyper_prior(chunk) { channels } else { channels.saturating_add(width) };
        let checked = PayloadCoder::check_lengths(&chunk.lanes, chunk.count, values);
        checked.map_err(|fault| {
            let frames = lane_span(chunk.count, chunk.lanes.len(), fault.lane).len();
            let most = max_payload_len(to_u64(frames), to_u64(values));
            let found = chunk.lanes.get(fault.lane).map_or(0, |lane| to_u64(lane.bytes.len()));
            let detail = Detail::Limit { what: "bytes in a payload", limit: Limit::Format, most, found };
            lane_error(&chunk.lanes, fault).with(detail)
        })
    }

    /// Whether the chunk in progress holds only W.
    pub(in crate::codec) fn works_on_hyper_prior(&self) -> bool {
        self.working.as_ref().is_some_and(|working| self.is_hyper_prior(&working.chunk))
    }

    /// How many of a chunk's remaining frames one call decodes.
    fn frames_per_call(&self, remaining: usize) -> usize {
        let frames = self.engine.frames_per_call(remaining, self.config.frames_per_poll.max(1));
        frames.clamp(1, remaining.max(1))
    }

    /// The job of the next slice of the chunk in progress.
    pub(in crate::codec) fn job(&mut self) -> Option<DecodeJob<'_, E>> {
        let hyper_prior = self.works_on_hyper_prior();
        let wants_integers = self.wants_integers();
        let left = self.working.as_ref().map_or(0, |working| working.chunk.count.saturating_sub(working.done));
        let slice = self.frames_per_call(left);
        let (Working { chunk, sums, past, partial, .. }, g_y) = (self.working.as_mut()?, self.g_y.as_mut()?);
        let (frames, quality, keep_integers) = (chunk.count, self.quality, wants_integers);
        Some(DecodeJob {
            spec: DecodeSpec { frames, quality, hyper_prior, keep_integers },
            lanes: &chunk.lanes,
            side: sums,
            past,
            slice,
            partial,
            g_y,
            scratch: &mut self.scratch,
        })
    }

    /// Takes the result of the job. One of another shape than was asked for ends the session.
    pub(in crate::codec) fn commit(&mut self, outcome: Result<Result<Decoded<E::Hidden>, LaneFault>>) {
        let Some(Working { chunk, done, sums, past, partial }) = self.working.take() else { return };
        let outcome = match outcome {
            Ok(outcome) if self.is_result_of(&outcome, &chunk, done) => outcome,
            Ok(_) => return self.fail(engine_fault("a decoded chunk of another shape")),
            Err(error) => return self.fail(error),
        };
        match outcome {
            Err(fault) => self.fail(lane_error(&chunk.lanes, fault)),
            Ok(Decoded::Part { done }) => self.working = Some(Working { chunk, done, sums, past, partial }),
            Ok(Decoded::Frames { crcs, integers, hidden }) => {
                for (at, (w, y)) in crcs.into_iter().enumerate() {
                    let w = chunk.side.get(at).map_or(w, |index| crc_after(w, *index));
                    self.digests.append(self.quality, w, FrameY::Known(y));
                }
                self.remember_side(&chunk);
                let y = integers.as_ref().map_or(&[][..], |integers| &integers.y);
                self.past_frames.append(self.engine.codec().model(), self.max_rewind, self.quality, y);
                let integers = integers.filter(|_| self.keeps_integers);
                let (index, count) = (chunk.index, chunk.count);
                self.report(chunk, Frames { index, count, integers, hidden });
            }
            Ok(Decoded::HyperPrior { w, outputs }) => self.take_hyper_prior(&chunk, w, outputs),
        }
    }

    /// Whether an engine is to bring integers: for the caller, or because prediction of later frames reads Y.
    fn wants_integers(&self) -> bool {
        self.keeps_integers || self.codec().model().prediction().is_some()
    }

    /// Keeps the side indices of a chunk's frames for later ones.
    fn remember_side(&mut self, chunk: &WaitingChunk) {
        if let Some(side) = self.engine.codec().model().side() {
            self.side_history.append(side, self.max_rewind, &chunk.side);
        }
    }

    /// Whether the result of a job has the shape that was asked for; `before` frames of the chunk were decoded already.
    fn is_result_of(
        &self,
        outcome: &Result<Decoded<E::Hidden>, LaneFault>,
        chunk: &WaitingChunk,
        before: usize,
    ) -> bool {
        let model = self.codec().model();
        let (width, channels) = (model.hidden_width(), model.hyper_prior_width());
        let hyper_prior = self.is_hyper_prior(chunk);
        match outcome {
            Err(fault) => fault.lane < chunk.lanes.len(),
            Ok(Decoded::Part { done }) => before < *done && *done < chunk.count,
            Ok(Decoded::Frames { crcs, integers, hidden }) => {
                !hyper_prior
                    && crcs.len() == chunk.count
                    && integers.is_some() == self.wants_integers()
                    && integers.as_ref().is_none_or(|integers| integers.have(chunk.count, channels, width))
                    && self.engine.frames(hidden.borrow()) == Ok(chunk.count)
            }
            Ok(Decoded::HyperPrior { w, outputs }) => {
                hyper_prior
                    && w.len() == chunk.count.saturating_mul(channels)
                    && outputs.len() == chunk.count
                    && outputs.iter().all(|output| output.len() == width.saturating_mul(2))
            }
        }
    }

    /// The progress of the chunk in progress, if there is no other event.
    pub(in crate::codec) fn progress(&self) -> Option<DecoderEvent<E::Hidden>> {
        let Working { chunk, done, .. } = self.working.as_ref().filter(|_| self.queue.is_empty())?;
        Some(DecoderEvent::Working { index: chunk.index, done: *done, count: chunk.count })
    }

    fn report(&mut self, chunk: WaitingChunk, frames: Frames<E::Hidden>) {
        let event = match chunk.exact {
            None => DecoderEvent::Frames(frames),
            Some((dtype, hidden)) => {
                if self.pending.oldest().is_some() {
                    let frame = PendingFrame { epoch: 0, quality: self.quality, output: Vec::new(), came: Vec::new() };
                    self.pending.push(chunk.index, frame);
                }
                DecoderEvent::ExactFrame(ExactFrame { frame: frames, dtype, hidden: hidden.bytes })
            }
        };
        self.tell(event);
    }

    /// Whether a chunk holds only W; exact frames hold Y in either mode (spec 6.9).
    fn is_hyper_prior(&self, chunk: &WaitingChunk) -> bool {
        self.mode == Mode::Layered && chunk.exact.is_none()
    }

    /// Keeps g_y's output for frames whose targets are still to come.
    fn take_hyper_prior(&mut self, chunk: &WaitingChunk, w: Vec<i16>, outputs: Vec<Vec<i32>>) {
        let WaitingChunk { index, count, epoch, .. } = *chunk;
        let channels = self.codec().model().hyper_prior_width();
        let rows = w.chunks_exact(channels).zip(outputs).enumerate();
        for ((at, (w, output)), index) in rows.zip(index..) {
            let crc = chunk.side.get(at).map_or(frame_crc(w), |side| crc_after(frame_crc(w), *side));
            self.digests.append(self.quality, crc, FrameY::Pending);
            self.pending.push(index, PendingFrame { epoch, quality: self.quality, output, came: Vec::new() });
        }
        self.remember_side(chunk);
        self.tell(DecoderEvent::HyperPrior(HyperPrior { index, count, w }));
    }

    /// The oldest pending frames, without a gap, that must be settled before `count` more from `index` on can be
    /// accepted ([DEC-14]).
    pub(super) fn overdue(&self, index: u64, count: usize) -> (u64, usize) {
        let Some(oldest) = self.pending.oldest() else { return (index, 0) };
        let span = self.pending.span().saturating_add(count);
        (oldest, self.pending.run(span.saturating_sub(self.horizon)))
    }

    /// Handles a target chunk from the reader: decodes it if its frames wait for it, keeps it if they are still to
    /// come; otherwise there is an event and no change (spec 6.5).
    pub(super) fn target(
        &mut self,
        frames: u32,
        elements: Option<Range<u64>>,
        lanes: Vec<Payload>,
        status: TargetStatus,
    ) -> Result<()> {
        let (index, epoch) = match status {
            TargetStatus::Usable { index, epoch } | TargetStatus::Early { index, epoch } => (index, epoch),
            TargetStatus::Late { index, .. } => return self.refuse(Some(index), TargetRefusal::Late),
            TargetStatus::Damaged => return self.refuse(None, TargetRefusal::Damaged),
            TargetStatus::NoRoom => return self.refuse(None, TargetRefusal::NoRoom),
        };
        let target = TargetChunk { index, epoch, frames, elements, lanes };
        if !status.is_usable() {
            return self.keep(target);
        }
        self.take_target(target)
    }

    /// [DEC-22] An early target is kept, once, until its frames are there.
    fn keep(&mut self, target: TargetChunk) -> Result<()> {
        let (index, frames) = (target.index, target.frames);
        // Memory that a waiting chunk needs stays reserved for it.
        let reserved = self.waiting.as_ref().map_or_else(|| self.bytes_held(), |chunk| self.bytes_needed(chunk));
        let spare = self.config.memory_limit.saturating_sub(reserved);
        if !self.early.keep(target, self.config.limits.early_bytes, spare) {
            return self.refuse(Some(index), TargetRefusal::NoRoom);
        }
        let count = to_usize(frames);
        self.tell(DecoderEvent::TargetEarly { index, count });
        Ok(())
    }

    /// Handles the oldest early target whose frames have come or can no longer come; false if there is none.
    pub(super) fn take_due(&mut self) -> Result<bool> {
        let Some(sequence) = self.reader.sequence() else { return Ok(false) };
        let next = self.next_index();
        // Frames of a waiting chunk are still to come, although the reader has seen them.
        let status = |target: &TargetChunk| sequence.target_status_at(next, target.index, target.epoch, target.frames);
        let early = |target: &TargetChunk| matches!(status(target), TargetStatus::Early { .. });
        let Some(target) = self.early.due((sequence.epoch(), next, sequence.ended()), early) else { return Ok(false) };
        if status(&target).is_usable() {
            self.take_target(target)?;
        } else {
            self.refuse(Some(target.index), TargetRefusal::Late)?;
        }
        Ok(true)
    }

    /// Decodes a target if its frames are pending.
    fn take_target(&mut self, target: TargetChunk) -> Result<()> {
        let (index, width) = (target.index, self.codec().model().hidden_width());
        let count = to_usize(target.frames);
        let elements = match &target.elements {
            None => 0..width,
            Some(elements) => to_usize(elements.start)..to_usize(elements.end),
        };
        let engine = Arc::clone(&self.engine);
        let codec = engine.codec();
        let (mut waits, mut came) = (false, false);
        if let Some(mut frames) = self.pending.get(index, count) {
            waits = frames.all(|frame| {
                came |= frame.has_any(elements.clone());
                frame.epoch == target.epoch
            });
        }
        if !waits {
            return self.refuse(Some(index), TargetRefusal::Late);
        }
        // [DEC-23] A part whose elements exceed E is damaged; one with an element that came before is late.
        if elements.end > width {
            return self.refuse(Some(index), TargetRefusal::Damaged);
        }
        if came {
            return self.refuse(Some(index), TargetRefusal::Late);
        }
        // For each element: the integer, 2 bytes, the hidden state, 4, a table's number, 4, and a shift, 4; for one
        // that comes in a part also the stored value, 4.
        let needed = width.saturating_mul(18).saturating_mul(count);
        if self.bytes_held().saturating_add(needed) > self.config.memory_limit {
            // Early targets are dropped, one in each step; this one meanwhile waits as the first of them.
            while self.drop_early()? {
                if self.early.keep_first(&target, self.config.limits.early_bytes) {
                    return Ok(());
                }
            }
            return self.refuse(Some(index), TargetRefusal::MemoryLimit);
        }
        let mut qualities = Vec::with_capacity(count);
        self.parameters.clear();
        for frame in self.pending.get(index, count).into_iter().flatten() {
            codec.rule().derive_more(&frame.output, &mut self.parameters);
            qualities.push(frame.quality);
        }
        let mut y = vec![0; count.saturating_mul(elements.len())];
        // [DEC-12] A payload that is too long, corrupt, not canonical or out of range makes the target damaged.
        let parameters = &self.parameters;
        let tables = PayloadCoder { model: codec.model(), quality: self.quality, executor: &*self.executor };
        let decoded = match &target.elements {
            Some(_) => tables.decode_part(&target.lanes, parameters, elements.clone(), &mut y),
            None => PayloadCoder::coders(&target.lanes, count, width).and_then(|mut coders| {
                let mut modes = vec![RunMode::default(); coders.len()];
                tables.decode_y((&mut coders, &mut modes), count, 0..count, parameters, &mut y)
            }),
        };
        if self.parameters.memory_bytes() > KEPT_BYTES {
            self.parameters = TargetParameters::default();
        }
        if decoded.is_err() {
            return self.refuse(Some(index), TargetRefusal::Damaged);
        }
        if target.elements.is_some() {
            let whole = self.pending.store_part(index, elements.start, &y, width);
            let Some(whole) = whole else {
                self.tell(DecoderEvent::TargetPart { index, elements });
                return Ok(());
            };
            y = whole;
        }
        let mut hidden = Vec::new();
        for ((index, y), quality) in (index..).zip(y.chunks_exact(width)).zip(qualities) {
            self.digests.settle(index, FrameY::Known(frame_crc(y)));
            let model = codec.model();
            quantiser::reconstruct(y, model.step(quality), model.synthesis(), model.offset(quality), &mut hidden);
        }
        self.pending.settle(index, count);
        self.queue.push_back(Queued::Targets(Targets { index, count, y, hidden, concealed: false }));
        self.judge()
    }

    fn refuse(&mut self, index: Option<u64>, reason: TargetRefusal) -> Result<()> {
        self.tell(DecoderEvent::TargetRefused { index, reason });
        Ok(())
    }
}

/// An error in a payload has the offset of its first byte (spec 6.1).
pub(super) fn payload_error(payload: &Payload, error: EntropyError) -> Error {
    let kind = match error {
        EntropyError::SealNotCanonical => ErrorKind::SealNotCanonical,
        EntropyError::ValueOutOfRange => ErrorKind::ValueOutOfRange,
        EntropyError::TooLong => ErrorKind::PayloadTooLong,
        _ => ErrorKind::CorruptPayload,
    };
    Error::new(kind, payload.offset)
}

fn lane_error(lanes: &[Payload], fault: LaneFault) -> Error {
    let Some(lane) = lanes.get(fault.lane) else { return Error::new(ErrorKind::CorruptPayload, 0) };
    let error = payload_error(lane, fault.error);
    match lanes {
        [_] => error,
        _ => error.with(Detail::Id { what: "lane", found: to_u64(fault.lane) }),
    }
}
