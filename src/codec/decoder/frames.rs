//! Frames of a stream: hyper-priors and targets, joined or apart (spec 6.1, 6.5, 6.9).

use std::sync::Arc;

use super::{Decoder, Held};
use crate::codec::context::Context;
use crate::codec::digest::{FrameY, frame_crc};
use crate::codec::event::{DecoderEvent, ExactFrame, Frames, HyperPrior, TargetRefusal, Targets};
use crate::codec::payload::{LaneFault, Tables};
use crate::codec::pending::PendingFrame;
use crate::codec::quantiser;
use crate::entropy::{EntropyError, LaneDecoder};
use crate::error::{Error, ErrorKind, Result};
use crate::exact::Step;
use crate::stream::TargetStatus;
use crate::wire::{Mode, Payload};

/// A chunk whose W is decoded and whose Y, if it holds any, needs g_y first.
#[derive(Clone)]
pub(crate) struct Waiting {
    pub(crate) held: Held,
    /// `[T, C]`.
    pub(crate) w: Vec<i16>,
    /// One for each lane, in front of Y and away from the lane's payload.
    coders: Vec<LaneDecoder<'static>>,
}

impl<S: Context> Decoder<S> {
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

    pub(super) fn frames(
        &mut self,
        index: u64,
        count: usize,
        epoch: u32,
        lanes: Vec<Payload>,
        offset: u64,
    ) -> Result<()> {
        self.check_memory(count, offset)?;
        self.held = Some(Held { index, count, epoch, lanes, offset, reported: None, exact: None });
        Ok(())
    }

    /// The first step of decoding a chunk.
    pub(crate) fn decode_w(&self, held: Held) -> Result<Waiting> {
        let tables = self.tables();
        let fault = |fault: LaneFault| lane_error(&held.lanes, fault);
        let payloads: Vec<&[u8]> = held.lanes.iter().map(|lane| &*lane.bytes).collect();
        let mut w = vec![0; held.count.saturating_mul(self.codec.model().hyper_prior_width())];
        let coders = tables.decode_w(&payloads, &mut w).map_err(fault)?;
        let coders = if self.is_hyper_prior(&held) {
            Tables::finish(coders).map_err(fault)?;
            Vec::new()
        } else {
            coders.into_iter().map(|coder| coder.onto(&[])).collect()
        };
        Ok(Waiting { held, w, coders })
    }

    /// The third step, where g_y has run.
    pub(crate) fn decode_predicted(&mut self, waiting: Waiting) -> Result<()> {
        if self.is_hyper_prior(&waiting.held) {
            self.hyper_prior(waiting);
            return Ok(());
        }
        let Waiting { held, w, coders } = waiting;
        let frames = self.joined(&held, w, coders)?;
        self.report(held, frames);
        Ok(())
    }

    /// Takes over a chunk with Y that was decoded elsewhere, or refused: the crc of each frame's W and Y. The event has
    /// neither integers nor hidden states.
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    pub(crate) fn take_decoded(&mut self, held: Held, crcs: Result<&[(u32, u32)], LaneFault>) -> Result<()> {
        for (w, y) in crcs.map_err(|fault| lane_error(&held.lanes, fault))? {
            self.digests.append(*w, FrameY::Known(*y));
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
                    let frame = PendingFrame { epoch: 0, quality: self.quality, output: Vec::new() };
                    self.pending.push(held.index, frame);
                }
                DecoderEvent::ExactFrame(ExactFrame { frame: frames, dtype, hidden: hidden.bytes })
            }
        };
        self.queue.push_back(event);
    }

    /// Whether a chunk holds W alone; exact frames hold Y in either mode (spec 6.9).
    pub(crate) fn is_hyper_prior(&self, held: &Held) -> bool {
        self.mode == Mode::Layered && held.exact.is_none()
    }

    fn tables(&self) -> Tables<'_> {
        Tables { model: self.codec.model(), quality: self.quality, executor: &*self.executor }
    }

    /// Decodes Y of a chunk with coders that stand in front of it.
    fn joined(&mut self, held: &Held, w: Vec<i16>, coders: Vec<LaneDecoder<'_>>) -> Result<Frames> {
        let codec = Arc::clone(&self.codec);
        let (width, channels) = (codec.model().hidden_width(), codec.model().hyper_prior_width());
        let coders = coders.into_iter().zip(&held.lanes).map(|(coder, lane)| coder.onto(&lane.bytes)).collect();
        codec.rule().derive(&self.output, &mut self.parameters);
        let mut y = vec![0; held.count.saturating_mul(width)];
        let decoded = self.tables().decode_y(coders, &self.parameters, &mut y);
        decoded.map_err(|fault| lane_error(&held.lanes, fault))?;
        for (w, y) in w.chunks_exact(channels).zip(y.chunks_exact(width)) {
            self.digests.append(frame_crc(w), FrameY::Known(frame_crc(y)));
        }
        let mut hidden = Vec::new();
        let model = codec.model();
        let (step, offset) = (model.step(self.quality), model.offset(self.quality));
        quantiser::reconstruct(&y, step, model.synthesis(), offset, &mut hidden);
        Ok(Frames { index: held.index, count: held.count, w, y, hidden })
    }

    /// Keeps what g_y gives for frames whose targets are to come.
    fn hyper_prior(&mut self, Waiting { held, w, .. }: Waiting) {
        let Held { index, count, epoch, .. } = held;
        let channels = self.codec.model().hyper_prior_width();
        let outputs = self.output.chunks_exact(self.codec.g_y().outputs());
        for ((index, w), output) in (index..).zip(w.chunks_exact(channels)).zip(outputs) {
            self.digests.append(frame_crc(w), FrameY::Pending);
            self.pending.push(index, PendingFrame { epoch, quality: self.quality, output: output.to_vec() });
        }
        self.queue.push_back(DecoderEvent::HyperPrior(HyperPrior { index, count, w }));
    }

    /// The oldest pending frames, without a gap, that have to be settled before `count` more from `index` on can be
    /// taken up ([DEC-14]).
    pub(super) fn overdue(&self, index: u64, count: usize) -> (u64, usize) {
        let Some(oldest) = self.pending.oldest() else { return (index, 0) };
        let span = self.pending.span().saturating_add(count);
        (oldest, self.pending.run(span.saturating_sub(self.horizon)))
    }

    /// A target chunk: decoded if its frames wait for it, an event and no change otherwise (spec 6.5).
    pub(super) fn target(&mut self, count: usize, lanes: &[Payload], status: TargetStatus) -> Result<()> {
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
        codec.rule().derive(&output, &mut self.parameters);
        let mut y = vec![0; count.saturating_mul(codec.model().hidden_width())];
        let coders = lanes.iter().map(|lane| LaneDecoder::new(&lane.bytes)).collect();
        // [DEC-12] A payload that is corrupt, not canonical or out of range makes the target damaged.
        if self.tables().decode_y(coders, &self.parameters, &mut y).is_err() {
            return self.refuse(Some(index), TargetRefusal::Damaged);
        }
        let mut hidden = Vec::new();
        for ((index, y), quality) in (index..).zip(y.chunks_exact(codec.model().hidden_width())).zip(qualities) {
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
    /// Decodes a chunk: W of every lane, g_y, then Y of every lane where it is there ([DEC-2]).
    pub(super) fn decode(&mut self, held: Held) -> Result<()> {
        let waiting = self.decode_w(held)?;
        let codec = Arc::clone(&self.codec);
        // The reader hands out no frame before the header, which makes the state.
        let state = self.g_y.as_mut().ok_or_else(|| Error::new(ErrorKind::NotAvailable, 0))?;
        codec.g_y().run(state, &waiting.w, self.quality, &mut self.output, &*self.executor)?;
        self.decode_predicted(waiting)
    }

    /// The second step: what g_y is to do.
    pub(crate) fn synthesis_step<'a>(&'a mut self, waiting: &'a Waiting) -> Option<Step<'a>> {
        let state = self.g_y.as_mut()?;
        Some(Step { state, quality: self.quality, input: &waiting.w, output: &mut self.output })
    }
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
