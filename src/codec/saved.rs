//! Encoder and decoder sessions saved as bytes, to continue in another process.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::decoder::{Decoder, DecoderConfig, WaitingChunk};
use super::digest::Digests;
use super::encoder::{
    Clipping, Encoder, EncoderConfig, Last, NextSide, check_contexts, check_fits, check_limit, check_prediction,
    valid_rate_weight,
};
use super::pending::{PendingFrame, PendingFrames};
use super::prediction::PastFrames;
use super::sent::Sent;
use super::side::{SideDelivery, SideHistory, known};
use crate::engine::{Codec, MIN_DATAGRAM};
use crate::error::{Detail, Error, ErrorKind, Result};
use crate::exact::{Network, Serial, State};
use crate::model::network::WIDE_MAX;
use crate::stream::saved::{self, Saved, damaged, saved_fields};
use crate::stream::{Reader, ReaderConfig, Sequence, Writer};
use crate::wire::header::MAX_LENGTH_OFFSET;
use crate::wire::{Dtype, Mode, OpenCheck};

saved_fields!(WaitingChunk { index, count, epoch, lanes, offset, reported, exact, check, side, asked });

impl Saved for OpenCheck {
    fn save(&self, out: &mut BytesMut) {
        self.fields().save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        OpenCheck::of_fields(Saved::load(input)?)
    }
}

impl Saved for SideDelivery {
    fn save(&self, out: &mut BytesMut) {
        (*self == SideDelivery::Sent).save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        Some(if bool::load(input)? { SideDelivery::Sent } else { SideDelivery::Known })
    }
}

impl Saved for Dtype {
    fn save(&self, out: &mut BytesMut) {
        match self {
            Dtype::F32 => 0_u8,
            Dtype::F16 => 1,
            Dtype::Bf16 => 2,
        }
        .save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        match u8::load(input)? {
            0 => Some(Dtype::F32),
            1 => Some(Dtype::F16),
            2 => Some(Dtype::Bf16),
            _ => None,
        }
    }
}

/// The error for a session saved with another model than the caller's.
fn other_model(codec: &Codec, found: [u8; 32]) -> Error {
    let detail = Detail::Digest { what: "fingerprint", wanted: *codec.fingerprint(), found: Some(found) };
    Error::of_call(ErrorKind::WrongModel).with(detail)
}

/// Restores the saved state of a network; its position must be that of the context.
fn state(network: &Network, max_rewind: u32, bytes: &[u8], position: u64) -> Option<State> {
    let mut state = State::new(network, max_rewind);
    state.restore(network, bytes).ok()?;
    (state.position() == position).then_some(state)
}

impl Encoder {
    /// The session as bytes, including output not yet taken, for [`Encoder::restore`] in another process or on another
    /// machine.
    ///
    /// Executor, [`Encoder::track_cost`], [`Encoder::keep_integers`] and the integers of the last push are not saved.
    /// The form belongs to this version of the library; it is not a wire format.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        saved::seal(saved::ENCODER, |out| {
            self.codec().fingerprint().save(out);
            self.writer.save_to(out);
            (self.config.lanes, self.config.checkpoint_interval).save(out);
            self.config.datagram_limit.save(out);
            self.config.rate_weight.map(f32::to_bits).save(out);
            self.config.length_offset.save(out);
            (self.config.clipping == Clipping::Refuse).save(out);
            (self.sent, self.recent).save(out);
            (self.quality, self.since_checkpoint).save(out);
            self.context_start.save(out);
            self.digests.save(out);
            (self.side.indices.clone(), self.side.delivery).save(out);
            self.side_history.save(out);
            self.past_frames.save(out);
            Bytes::from(self.g_y.save()).save(out);
            self.h.as_ref().map(|h| Bytes::from(h.save())).save(out);
        })
    }

    /// Restores the session that [`Encoder::save`] wrote; `codec` is the model that was in force.
    ///
    /// # Errors
    /// [`ErrorKind::WrongModel`] for another model, [`ErrorKind::SavedSession`] for bytes that are damaged,
    /// [`ErrorKind::MemoryLimit`] if the contexts may take more than `memory_limit` bytes, before any is allocated for
    /// them. The limit applies from then on ([`EncoderConfig::memory_limit`]).
    pub fn restore(codec: Arc<Codec>, saved: &[u8], memory_limit: usize) -> Result<Self> {
        let mut input = saved::open(saved::ENCODER, saved)?;
        let contradiction = || damaged("its fields contradict each other");
        let fingerprint = <[u8; 32]>::load(&mut input).ok_or_else(contradiction)?;
        if fingerprint != *codec.fingerprint() {
            return Err(other_model(&codec, fingerprint));
        }
        // In memory the whole session takes at least as much.
        check_limit("bytes for the saved session", input.len(), memory_limit)?;
        let writer = Writer::load_from(&mut input).ok_or_else(contradiction)?;
        check_contexts(&*codec, writer.header().max_rewind, memory_limit)?;
        let encoder = Self::load_from(codec, writer, memory_limit, &mut input);
        encoder.filter(|_| input.is_empty()).ok_or_else(contradiction)
    }

    fn load_from(codec: Arc<Codec>, writer: Writer, memory_limit: usize, input: &mut &[u8]) -> Option<Self> {
        let (lanes, checkpoint_interval) = <(u16, u32)>::load(input)?;
        let datagram_limit = Option::<u32>::load(input)?;
        let rate_weight = Option::<u32>::load(input)?.map(f32::from_bits);
        let length_offset = Option::<u16>::load(input)?;
        let clipping = if bool::load(input)? { Clipping::Refuse } else { Clipping::Report };
        let (sent, recent) = <(Sent, Sent)>::load(input)?;
        let (quality, since_checkpoint) = <(usize, u32)>::load(input)?;
        let context_start = u64::load(input)?;
        let (header, sequence) = (writer.header(), writer.sequence());
        let max_rewind = header.max_rewind;
        let rewind = u64::from(max_rewind);
        let digests = Digests::restore(context_start, sequence.next_index(), rewind, sequence.seed(), input)?;
        let (indices, delivery) = <(Vec<u32>, SideDelivery)>::load(input)?;
        let side_history = SideHistory::load(input)?;
        let past_frames = PastFrames::load(input)?;
        let g_y = saved::take_bytes(input)?;
        let h = if bool::load(input)? { Some(saved::take_bytes(input)?) } else { None };
        let position = sequence.next_index().checked_sub(context_start)?;
        let fits = (1..=1024).contains(&lanes)
            && datagram_limit.is_none_or(|limit| limit >= MIN_DATAGRAM)
            && rate_weight.is_none_or(valid_rate_weight)
            && length_offset.is_none_or(|offset| offset <= MAX_LENGTH_OFFSET)
            && quality < codec.model().qualities()
            && quality == usize::from(sequence.quality())
            && codec.fingerprint().starts_with(&sequence.model_prefix())
            && context_start == sequence.context_start()
            && header.side == codec.model().side().is_some()
            // A push sends the indices of its own frames, and no more.
            && sequence.side_left() == 0
            && (indices.is_empty() || codec.model().side().is_some_and(|side| known(side, indices.iter())))
            && side_history.valid(codec.model().side(), max_rewind, position)
            && past_frames.valid(codec.model(), max_rewind, position)
            && check_prediction(&codec, header.mode).is_ok();
        if !fits {
            return None;
        }
        let h = match (codec.h(), h) {
            (Some(network), Some(bytes)) => Some(state(network, max_rewind, bytes, position)?),
            (None, None) => None,
            _ => return None,
        };
        let config = EncoderConfig {
            mode: header.mode,
            binding: writer.binding(),
            file: header.file,
            check: header.check,
            quality: header.quality,
            identity: header.identity,
            host_digest: header.host_digest,
            max_frames_per_chunk: header.max_frames,
            max_chunk_bytes: header.max_chunk_bytes,
            max_rewind,
            target_horizon: header.target_horizon.unwrap_or(EncoderConfig::new(header.identity).target_horizon),
            datagram_limit,
            checkpoint_interval,
            lanes,
            rate_weight,
            length_offset,
            memory_limit,
            clipping,
            fields: header.optional.clone(),
        };
        // No session can be opened, or switched to a model, if a chunk has no room for a frame.
        check_fits(&codec, &config).ok()?;
        Some(Encoder {
            g_y: state(codec.g_y(), max_rewind, g_y, position)?,
            h,
            ended: writer.ended(),
            engine: codec,
            config,
            writer,
            quality,
            digests,
            context_start,
            since_checkpoint,
            executor: Arc::new(Serial),
            keeps_integers: true,
            tracks_cost: false,
            failed: None,
            last: Last::default(),
            sent,
            recent,
            side: NextSide { indices, delivery, sums: Vec::new() },
            side_history,
            past_frames,
            past: Vec::new(),
            scratch: Default::default(),
        })
    }
}

impl Decoder {
    /// The session as bytes, including input not yet polled, for [`Decoder::restore`] in another process or on another
    /// machine.
    ///
    /// The executor and [`Decoder::keep_integers`] are not saved. The form belongs to this version of the library; it is
    /// not a wire format.
    ///
    /// # Errors
    /// [`ErrorKind::NotAvailable`] while there are events to be polled, including that of a chunk in progress
    /// ([`DecoderEvent::Working`](super::DecoderEvent::Working)); the session's own error if it failed: a failed
    /// session has nothing else to save.
    pub fn save(&self) -> Result<Vec<u8>> {
        self.failed.map_or(Ok(()), Err)?;
        if !self.queue.is_empty() || self.working.is_some() || self.sent_side.is_some() {
            return Err(Error::of_call(ErrorKind::NotAvailable).with_detail("there are events to be polled"));
        }
        Ok(saved::seal(saved::DECODER, |out| {
            self.codec().fingerprint().save(out);
            self.reader.save_to(out);
            self.waiting.save(out);
            if let Some(g_y) = &self.g_y {
                (self.quality, self.context_start).save(out);
                self.digests.save(out);
                self.pending.save(out);
                self.early.save(out);
                (self.joining, (self.confirmed, self.resume)).save(out);
                self.side_queue.save(out);
                self.side_history.save(out);
                self.past_frames.save(out);
                Bytes::from(g_y.save()).save(out);
            }
        }))
    }

    /// Restores the session that [`Decoder::save`] wrote. The model that was in force must be `codec` or one of `models`,
    /// the further ones that the stream may name. The limits must allow what was declared, as in the saved session.
    ///
    /// # Errors
    /// [`ErrorKind::WrongModel`] for another model, [`ErrorKind::SavedSession`] for bytes that are damaged or were
    /// saved under other limits, [`ErrorKind::MemoryLimit`] if what was saved, or a chunk that waits in it, does not
    /// fit [`DecoderConfig::memory_limit`]; nothing is allocated for it then.
    pub fn restore(codec: Arc<Codec>, models: &[Arc<Codec>], config: DecoderConfig, saved: &[u8]) -> Result<Self> {
        let mut input = saved::open(saved::DECODER, saved)?;
        let contradiction = || damaged("its fields contradict each other");
        let mut decoder = Decoder::new(codec, config)?;
        decoder.models.extend_from_slice(models);
        let fingerprint = <[u8; 32]>::load(&mut input).ok_or_else(contradiction)?;
        let known = decoder.models.iter().find(|codec| *codec.fingerprint() == fingerprint);
        decoder.engine = known.cloned().ok_or_else(|| other_model(decoder.codec(), fingerprint))?;
        let config = ReaderConfig { binding: decoder.config.binding, limits: decoder.config.limits };
        decoder.reader = Reader::load_from(config, &mut input).ok_or_else(contradiction)?;
        if let Some(header) = decoder.reader.header().cloned() {
            // Sets what depends on header and limits, and judges the host once more.
            decoder.open(&header, 0, false)?;
        }
        // In memory the whole session takes at least as much.
        decoder.check_restored(input.len())?;
        let g_y = decoder.load_from(&mut input).filter(|_| input.is_empty()).ok_or_else(contradiction)?;
        if let (Some(state), Some(g_y)) = (&decoder.g_y, g_y) {
            decoder.check_restored(decoder.bytes_held().saturating_add(state.restored_bytes(g_y)))?;
            decoder.load_context(g_y).ok_or_else(contradiction)?;
        }
        if let Some(chunk) = &decoder.waiting {
            // Early targets make room for it if needed.
            decoder.check_memory(chunk, decoder.bytes_needed(chunk).saturating_sub(decoder.early.memory_bytes()))?;
        }
        Ok(decoder)
    }

    fn check_restored(&self, bytes: usize) -> Result<()> {
        match bytes > self.config.memory_limit {
            true => Err(self.no_room("bytes for the saved session", bytes, 0).of_caller()),
            false => Ok(()),
        }
    }

    /// The next frame for g_y.
    fn next_predicted(&self) -> Option<u64> {
        match &self.waiting {
            Some(chunk) => Some(chunk.index),
            None => self.reader.sequence().map(Sequence::next_index),
        }
    }

    fn load_context(&mut self, saved: &[u8]) -> Option<()> {
        let position = self.next_predicted()?.checked_sub(self.context_start)?;
        let state = self.g_y.as_mut()?;
        state.restore(self.engine.g_y(), saved).ok()?;
        (state.position() == position).then_some(())
    }

    /// Reads what follows the reader's part. Returns the context, if there is one, which is then still to be loaded.
    fn load_from<'a>(&mut self, input: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
        self.waiting = Saved::load(input)?;
        let Some(sequence) = self.reader.sequence().cloned() else {
            return self.waiting.is_none().then_some(None);
        };
        (self.quality, self.context_start) = Saved::load(input)?;
        let engine = Arc::clone(&self.engine);
        let side = engine.model().side();
        // The frames of a waiting chunk are already in the sequence, but not yet in the digests.
        let next = match &self.waiting {
            Some(chunk) => {
                let lanes = chunk.lanes.len();
                let fits = chunk.count > 0
                    && chunk.count <= usize::try_from(sequence.limits().max_frames).ok()?
                    && (1..=chunk.count.min(1024)).contains(&lanes)
                    && (self.mode == Mode::Layered || side.is_some())
                    && chunk.side.len() <= chunk.count
                    && (chunk.side.is_empty() || side.is_some_and(|side| known(side, chunk.side.iter())))
                    && (chunk.check.is_none() || side.is_some())
                    && chunk.exact.as_ref().is_none_or(|(dtype, hidden)| {
                        let width = self.codec().model().hidden_width();
                        chunk.count == 1 && hidden.bytes.len() == width.saturating_mul(dtype.bytes())
                    })
                    && chunk.index.checked_add(u64::try_from(chunk.count).ok()?)? == sequence.next_index();
                fits.then_some(chunk.index)?
            }
            None => sequence.next_index(),
        };
        let rewind = u64::from(self.max_rewind);
        self.digests = Digests::restore(self.context_start, next, rewind, sequence.seed(), input)?;
        self.pending = PendingFrames::load(input)?;
        self.early = Saved::load(input)?;
        (self.joining, (self.confirmed, self.resume)) = Saved::load(input)?;
        self.side_queue = Saved::load(input)?;
        self.side_history = SideHistory::load(input)?;
        self.past_frames = PastFrames::load(input)?;
        let g_y = saved::take_bytes(input)?;
        let model = self.codec().model();
        let scales = i32::try_from(model.scales()).ok()?;
        let good = |frame: &PendingFrame| {
            let (means, indices) = frame.output.split_at(model.hidden_width().min(frame.output.len()));
            frame.quality < model.qualities()
                && frame.output.len() == self.codec().g_y().outputs()
                && frame.valid_parts(model.hidden_width(), model.y_range())
                && means.iter().all(|mean| (-WIDE_MAX..=WIDE_MAX).contains(mean))
                && indices.iter().all(|index| (0..scales).contains(index))
        };
        let left = usize::try_from(sequence.side_left()).ok()?;
        let sided = self.joining
            || self.side_queue.len() == left
                && side.map_or(self.side_queue.is_empty(), |side| known(side, self.side_queue.iter()))
                && self.side_history.valid(side, self.max_rewind, next.checked_sub(self.context_start)?);
        let fits = self.quality < model.qualities()
            && sided
            && (self.joining || self.past_frames.valid(model, self.max_rewind, next.checked_sub(self.context_start)?))
            && (self.mode == Mode::Joined || model.prediction().is_none())
            && self.context_start == sequence.context_start()
            && self.pending.span() <= self.horizon
            && self.pending.valid(next, good)
            && self.early.valid(self.config.limits.early_bytes)
            && self.digests.waiting() <= self.horizon.saturating_add(2)
            && self.confirmed <= next
            && self.resume <= next;
        fits.then_some(Some(g_y))
    }
}
