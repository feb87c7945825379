//! Frames of a stream: hyper-priors and targets, joined or separate (spec 6.1, 6.5, 6.9).

use std::ops::Range;
use std::sync::Arc;

use super::{Decoder, DecoderPoll, Held, Next};
use crate::codec::context::Context;
use crate::codec::digest::{FrameY, frame_crc};
use crate::codec::early::TargetChunk;
use crate::codec::event::{DecoderEvent, ExactFrame, Frames, HyperPrior, TargetRefusal, Targets};
use crate::codec::payload::{LaneFault, Tables, lane_span};
use crate::codec::pending::PendingFrame;
use crate::codec::quantiser;
use crate::entropy::{EntropyError, LaneDecoder, RunMode, max_payload_len};
use crate::error::{Detail, Error, ErrorKind, Limit, Result};
use crate::exact::Step;
use crate::number::{to_u64, to_usize};
use crate::stream::TargetStatus;
use crate::wire::{Mode, Payload};

/// A chunk whose W is decoded, and for whose first frames g_y has run.
#[derive(Clone)]
pub(crate) struct Waiting {
    pub(crate) held: Held,
    /// `[T, C]`.
    pub(crate) w: Vec<i16>,
    /// One for each lane, just before the rest of Y, and detached from the lane's payload.
    coders: Vec<LaneDecoder<'static>>,
    /// The mode of each lane's last Y.
    modes: Vec<RunMode>,
    /// Frames for which g_y has run and whose Y, if the chunk holds any, is decoded.
    done: usize,
    /// `[T, E]`, of which the first `done` frames are decoded.
    y: Vec<i16>,
    /// `[done, E]`.
    hidden: Vec<f32>,
    /// For a hyper-prior chunk, the first `done` frames.
    pending: Vec<PendingFrame>,
}

impl Waiting {
    pub(super) fn memory_bytes(&self) -> usize {
        let shorts = self.w.capacity().saturating_add(self.y.capacity()).saturating_mul(2);
        let coders = self.coders.capacity().saturating_mul(size_of::<LaneDecoder<'_>>());
        let coders = coders.saturating_add(self.modes.capacity());
        let outputs = self.pending.iter().map(|frame| frame.output.capacity()).fold(0, usize::saturating_add);
        let pending = self.pending.capacity().saturating_mul(size_of::<PendingFrame>());
        let words = self.hidden.capacity().saturating_add(outputs).saturating_mul(4);
        [self.held.memory_bytes(), shorts, coders, pending, words].into_iter().fold(0, usize::saturating_add)
    }

    /// W of the next `frames` frames, or of those that are left.
    fn next_w(&self, frames: usize) -> &[i16] {
        let channels = self.w.len().checked_div(self.held.count).unwrap_or(0);
        let from = self.done.saturating_mul(channels).min(self.w.len());
        let to = from.saturating_add(frames.max(1).saturating_mul(channels)).min(self.w.len());
        self.w.get(from..to).unwrap_or(&[])
    }
}

impl<S: Context> Decoder<S> {
    /// Checks that what a chunk needs fits the memory limit; nothing is allocated before.
    pub(in crate::codec) fn check_memory(&self, held: &Held, needed: usize) -> Result<()> {
        if needed > self.config.memory_limit {
            return Err(self.no_room("bytes for a chunk's frames and the context they lead to", needed, held.offset));
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
    pub(in crate::codec) fn bytes_needed(&self, held: &Held) -> usize {
        let (width, channels) = (self.codec.model().hidden_width(), self.codec.model().hyper_prior_width());
        let network = self.codec.g_y();
        let slice = if S::WHOLE_CHUNKS { held.count } else { held.count.min(self.config.frames_per_poll) };
        // For each element of Y: the integer, 2 bytes, and the hidden state, 4. For each element of W: the integer. For
        // each element of a slice: g_y's output, 2 · 4 bytes, a table's number, 4, and a shift, 4.
        let (frame, buffers) = if self.is_hyper_prior(held) {
            // A pending frame keeps its output; its target takes the rest, in a chunk of as many frames.
            (PendingFrame::bytes(network.outputs()).saturating_add(width.saturating_mul(6 + 8)), 8)
        } else {
            (width.saturating_mul(6), 8 + 8)
        };
        let frame = frame.saturating_add(channels.saturating_mul(2));
        let context = self.g_y.as_ref().map_or(0, |state| state.bytes_after(held.count));
        let twice = [self.g_y.as_ref().map_or(0, S::memory_bytes), self.held.as_ref().map_or(0, Held::memory_bytes)];
        let needed = [
            twice.into_iter().fold(self.bytes_held(), usize::saturating_sub),
            // Whether parts of pending frames have come depends on chance, and must not decide whether a chunk fits.
            self.pending.bytes_for_parts(width),
            context,
            network.buffer_bytes(slice),
            held.count.saturating_mul(frame),
            slice.saturating_mul(width).saturating_mul(buffers),
            held.memory_bytes(),
        ];
        needed.into_iter().fold(0, usize::saturating_add)
    }

    /// The first step of decoding a chunk.
    pub(crate) fn decode_w(&self, held: Held) -> Result<Waiting> {
        let tables = self.tables();
        let fault = |fault: LaneFault| lane_error(&held.lanes, fault);
        let coders = self.coders(&held)?;
        let mut w = vec![0; held.count.saturating_mul(self.codec.model().hyper_prior_width())];
        let coders = tables.decode_w(coders, &mut w).map_err(fault)?;
        let modes = vec![RunMode::default(); coders.len()];
        let (mut y, mut hidden, mut pending) = (Vec::new(), Vec::new(), Vec::new());
        let coders = if self.is_hyper_prior(&held) {
            Tables::finish(coders).map_err(fault)?;
            pending.reserve_exact(held.count);
            Vec::new()
        } else {
            y.resize(held.count.saturating_mul(self.codec.model().hidden_width()), 0);
            hidden.reserve_exact(y.len());
            coders.into_iter().map(|coder| coder.onto(&[])).collect()
        };
        Ok(Waiting { held, w, coders, modes, done: 0, y, hidden, pending })
    }

    /// Coders at the start of a chunk's lanes, unless a payload is too long ([MODE-4]).
    pub(crate) fn coders<'p>(&self, held: &'p Held) -> Result<Vec<LaneDecoder<'p>>> {
        let (width, channels) = (self.codec.model().hidden_width(), self.codec.model().hyper_prior_width());
        let values = if self.is_hyper_prior(held) { channels } else { channels.saturating_add(width) };
        Tables::coders(&held.lanes, held.count, values).map_err(|fault| {
            let frames = lane_span(held.count, held.lanes.len(), fault.lane).len();
            let most = max_payload_len(frames as u64, values as u64);
            let found = held.lanes.get(fault.lane).map_or(0, |lane| to_u64(lane.bytes.len()));
            let detail = Detail::Limit { what: "bytes in a payload", limit: Limit::Format, most, found };
            lane_error(&held.lanes, fault).with(detail)
        })
    }

    /// The third step, once g_y has run on the next frames: decodes their Y. Returns the chunk while it has more
    /// frames.
    pub(crate) fn decode_predicted(&mut self, mut waiting: Waiting) -> Result<Option<Waiting>> {
        if self.is_hyper_prior(&waiting.held) {
            let Held { epoch, .. } = waiting.held;
            let outputs = self.scratch.output.chunks_exact(self.codec.g_y().outputs());
            waiting.pending.extend(outputs.map(|output| PendingFrame {
                epoch,
                quality: self.quality,
                output: output.to_vec(),
                came: Vec::new(),
            }));
            waiting.done = waiting.pending.len();
        } else {
            self.decode_y(&mut waiting)?;
        }
        if waiting.done < waiting.held.count {
            return Ok(Some(waiting));
        }
        self.scratch.release();
        if self.is_hyper_prior(&waiting.held) {
            self.take_hyper_prior(waiting);
        } else {
            self.take_joined(waiting);
        }
        Ok(None)
    }

    /// Takes a chunk with Y that was decoded or refused elsewhere: the crc of each frame's W and Y. The event has
    /// neither integers nor hidden states.
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    pub(crate) fn take_decoded(&mut self, held: Held, crcs: Result<&[(u32, u32)], LaneFault>) -> Result<()> {
        for (w, y) in crcs.map_err(|fault| lane_error(&held.lanes, fault))? {
            self.digests.append(self.quality, *w, FrameY::Known(*y));
        }
        let (index, count) = (held.index, held.count);
        self.report(held, Frames { index, count, w: Vec::new(), y: Vec::new(), hidden: Vec::new() });
        Ok(())
    }

    fn report(&mut self, held: Held, frames: Frames) {
        let event = match held.exact {
            None => DecoderEvent::Frames(frames),
            Some((dtype, hidden)) => {
                if self.pending.oldest().is_some() {
                    let frame = PendingFrame { epoch: 0, quality: self.quality, output: Vec::new(), came: Vec::new() };
                    self.pending.push(held.index, frame);
                }
                DecoderEvent::ExactFrame(ExactFrame { frame: frames, dtype, hidden: hidden.bytes })
            }
        };
        self.queue.push_back(event);
    }

    /// Whether a chunk holds only W; exact frames hold Y in either mode (spec 6.9).
    pub(crate) fn is_hyper_prior(&self, held: &Held) -> bool {
        self.mode == Mode::Layered && held.exact.is_none()
    }

    fn tables(&self) -> Tables<'_> {
        Tables { model: self.codec.model(), quality: self.quality, executor: &*self.executor }
    }

    /// Decodes Y of a chunk's next frames, for which g_y has run.
    fn decode_y(&mut self, waiting: &mut Waiting) -> Result<()> {
        let codec = Arc::clone(&self.codec);
        let model = codec.model();
        let Waiting { held, coders, modes, done, y, hidden, .. } = waiting;
        let frames = self.scratch.output.len().checked_div(codec.g_y().outputs()).unwrap_or(0);
        let span = *done..done.saturating_add(frames).min(held.count);
        codec.rule().derive(&self.scratch.output, &mut self.scratch.parameters);
        let lanes = std::mem::take(coders).into_iter().zip(&held.lanes);
        let mut at: Vec<_> = lanes.map(|(coder, lane)| coder.onto(&lane.bytes)).collect();
        let decoded = self.tables().decode_y((&mut at, modes), held.count, span.clone(), &self.scratch.parameters, y);
        decoded.map_err(|fault| lane_error(&held.lanes, fault))?;
        *coders = at.into_iter().map(|coder| coder.onto(&[])).collect();
        *done = span.end;
        let elements = span.start.saturating_mul(model.hidden_width())..span.end.saturating_mul(model.hidden_width());
        let (step, offset) = (model.step(self.quality), model.offset(self.quality));
        quantiser::reconstruct(y.get(elements).unwrap_or(&[]), step, model.synthesis(), offset, hidden);
        Ok(())
    }

    /// Finishes a chunk whose Y is decoded.
    fn take_joined(&mut self, Waiting { held, w, y, hidden, .. }: Waiting) {
        let (width, channels) = (self.codec.model().hidden_width(), self.codec.model().hyper_prior_width());
        for (w, y) in w.chunks_exact(channels).zip(y.chunks_exact(width)) {
            self.digests.append(self.quality, frame_crc(w), FrameY::Known(frame_crc(y)));
        }
        let (index, count) = (held.index, held.count);
        self.report(held, Frames { index, count, w, y, hidden });
    }

    /// Keeps g_y's output for frames whose targets are still to come.
    fn take_hyper_prior(&mut self, Waiting { held, w, pending, .. }: Waiting) {
        let Held { index, count, .. } = held;
        let channels = self.codec.model().hyper_prior_width();
        for ((index, w), frame) in (index..).zip(w.chunks_exact(channels)).zip(pending) {
            self.digests.append(self.quality, frame_crc(w), FrameY::Pending);
            self.pending.push(index, frame);
        }
        self.queue.push_back(DecoderEvent::HyperPrior(HyperPrior { index, count, w }));
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
        let held = self.held.as_ref().map_or_else(|| self.bytes_held(), |held| self.bytes_needed(held));
        let spare = self.config.memory_limit.saturating_sub(held);
        if !self.early.keep(target, self.config.limits.early_bytes, spare) {
            return self.refuse(Some(index), TargetRefusal::NoRoom);
        }
        let count = to_usize(frames);
        self.queue.push_back(DecoderEvent::TargetEarly { index, count });
        Ok(())
    }

    /// Handles the oldest early target whose frames have come or can no longer come; false if there is none.
    pub(super) fn take_due(&mut self) -> Result<bool> {
        let Some(sequence) = self.reader.sequence() else { return Ok(false) };
        let next = self.next_index();
        // Frames of a held chunk are still to come, although the reader has seen them.
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
        let (index, width) = (target.index, self.codec.model().hidden_width());
        let count = to_usize(target.frames);
        let elements = match &target.elements {
            None => 0..width,
            Some(elements) => to_usize(elements.start)..to_usize(elements.end),
        };
        let codec = Arc::clone(&self.codec);
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
                if self.early.put_first(&target, self.config.limits.early_bytes) {
                    return Ok(());
                }
            }
            return self.refuse(Some(index), TargetRefusal::MemoryLimit);
        }
        let mut qualities = Vec::with_capacity(count);
        self.scratch.parameters.clear();
        for frame in self.pending.get(index, count).into_iter().flatten() {
            codec.rule().derive_more(&frame.output, &mut self.scratch.parameters);
            qualities.push(frame.quality);
        }
        let mut y = vec![0; count.saturating_mul(elements.len())];
        // [DEC-12] A payload that is too long, corrupt, not canonical or out of range makes the target damaged.
        let parameters = &self.scratch.parameters;
        let decoded = match &target.elements {
            Some(_) => self.tables().decode_part(&target.lanes, parameters, elements.clone(), &mut y),
            None => Tables::coders(&target.lanes, count, width).and_then(|mut coders| {
                let mut modes = vec![RunMode::default(); coders.len()];
                self.tables().decode_y((&mut coders, &mut modes), count, 0..count, parameters, &mut y)
            }),
        };
        self.scratch.release();
        if decoded.is_err() {
            return self.refuse(Some(index), TargetRefusal::Damaged);
        }
        if target.elements.is_some() {
            let whole = self.pending.put(index, elements.start, &y, width);
            let Some(whole) = whole else {
                self.queue.push_back(DecoderEvent::TargetPart { index, elements });
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
        self.queue.push_back(DecoderEvent::Targets(Targets { index, count, y, hidden, concealed: false }));
        self.judge()
    }

    fn refuse(&mut self, index: Option<u64>, reason: TargetRefusal) -> Result<()> {
        self.queue.push_back(DecoderEvent::TargetRefused { index, reason });
        Ok(())
    }
}

impl Decoder {
    /// Continues to the next event, or until a chunk is in progress.
    pub(in crate::codec) fn next_work(&mut self) -> Result<Option<DecoderPoll>> {
        loop {
            match self.next()? {
                Next::Poll(poll) => return Ok(Some(poll)),
                Next::GoOn => return Ok(None),
                Next::Predict(held) => match self.decode_w(held) {
                    Ok(waiting) => self.working = Some(waiting),
                    Err(error) => self.fail(error),
                },
            }
        }
    }

    /// Decodes the next slice of the chunk in progress: g_y, then Y if the chunk holds it ([DEC-2]).
    pub(super) fn predict(&mut self) -> Result<()> {
        let codec = Arc::clone(&self.codec);
        let executor = Arc::clone(&self.executor);
        if let Some(Step { state, quality, input, output }) = self.synthesis_step() {
            codec.g_y().run(state, input, quality, output, &*executor)?;
        }
        self.decode_slice()
    }

    /// The second step: g_y's step for the next slice of the chunk in progress.
    pub(in crate::codec) fn synthesis_step(&mut self) -> Option<Step<'_>> {
        let (state, waiting) = (self.g_y.as_mut()?, self.working.as_ref()?);
        let input = waiting.next_w(self.config.frames_per_poll);
        Some(Step { state, quality: self.quality, input, output: &mut self.scratch.output })
    }

    /// The third step: decodes the slice that g_y has run for.
    pub(in crate::codec) fn decode_slice(&mut self) -> Result<()> {
        if let Some(waiting) = self.working.take() {
            self.working = self.decode_predicted(waiting)?;
        }
        Ok(())
    }

    /// The progress of the chunk in progress, if there is no other event.
    pub(in crate::codec) fn progress(&self) -> Option<DecoderEvent> {
        let waiting = self.working.as_ref().filter(|_| self.queue.is_empty())?;
        Some(DecoderEvent::Working { index: waiting.held.index, done: waiting.done, count: waiting.held.count })
    }
}

/// An error in a payload has the offset of the lane's first byte (spec 6.1).
fn lane_error(lanes: &[Payload], fault: LaneFault) -> Error {
    let kind = match fault.error {
        EntropyError::SealNotCanonical => ErrorKind::SealNotCanonical,
        EntropyError::ValueOutOfRange => ErrorKind::ValueOutOfRange,
        EntropyError::TooLong => ErrorKind::PayloadTooLong,
        _ => ErrorKind::CorruptPayload,
    };
    let error = Error::new(kind, lanes.get(fault.lane).map_or(0, |lane| lane.offset));
    match lanes {
        [_] => error,
        _ => error.with(Detail::Id { what: "lane", found: to_u64(fault.lane) }),
    }
}
