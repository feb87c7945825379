//! Frames of a stream: hyper-priors and targets, joined or apart (spec 6.1, 6.5, 6.9).

use std::sync::Arc;

use super::{Decoder, Held};
use crate::codec::analysis::Codec;
use crate::codec::digest::{FrameY, frame_crc};
use crate::codec::event::{DecoderEvent, ExactFrame, Frames, HyperPrior, TargetRefusal, Targets};
use crate::codec::payload::{LaneFault, Tables};
use crate::codec::pending::PendingFrame;
use crate::codec::quantiser;
use crate::entropy::EntropyError;
use crate::error::{Error, ErrorKind, Result};
use crate::exact::{Executor, State};
use crate::stream::TargetStatus;
use crate::wire::{Dtype, Mode, Payload};

impl Decoder {
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
        let model = codec.model();
        quantiser::reconstruct(
            &y,
            model.step(self.quality),
            model.synthesis(),
            model.offset(self.quality),
            &mut hidden,
        );
        Ok(Frames { index, count, w, y, hidden })
    }

    /// Spec 6.9.
    pub(super) fn exact_frame(&mut self, index: u64, lanes: &[Payload], dtype: Dtype, hidden: Payload) -> Result<()> {
        let frame = self.decode_joined(index, 1, lanes)?;
        if self.pending.oldest().is_some() {
            self.pending.push(index, PendingFrame { epoch: 0, quality: self.quality, output: Vec::new() });
        }
        self.queue.push_back(DecoderEvent::ExactFrame(ExactFrame { frame, dtype, hidden: hidden.bytes }));
        Ok(())
    }

    /// The oldest pending frames, without a gap, that have to be settled before `count` more from `index` on can be
    /// taken up ([DEC-14]).
    pub(super) fn overdue(&self, index: u64, count: usize) -> (u64, usize) {
        let Some(oldest) = self.pending.oldest() else { return (index, 0) };
        let span = self.pending.span().saturating_add(count);
        (oldest, self.pending.run(span.saturating_sub(self.horizon)))
    }

    pub(super) fn hyper_prior(&mut self, held: Held) -> Result<()> {
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
