//! How an encoder session hands out its chunks and writes what comes back (spec 6.1, 6.5, 6.8).

use std::ops::Range;
use std::sync::Arc;

use super::{Clipping, Encoder, EncoderConfig, Last, NextSide, check_limit};
use crate::codec::digest::FrameY;
use crate::codec::sent::Sent;
use crate::codec::side::{self, SideDelivery};
use crate::engine::prediction::walk_bytes;
use crate::engine::{
    ChunkSpec, Codec, CodedChunk, Context, EncodeJob, Engine, Integers, Layout, Memory, PrepareJob, Source,
    TargetPiece, quantiser, side as side_payload, whole_frames,
};
use crate::entropy::max_payload_len;
use crate::error::{Detail, Error, ErrorKind, Limit, Result};
use crate::model::side::Side;
use crate::number::{to_u64, to_usize};
use crate::wire::header::MAX_CHUNK_BYTES;
use crate::wire::{Dtype, Mode};

/// What a push codes, in one chunk or several.
pub(in crate::codec) enum PushSource<'a, E: Engine> {
    Hidden(&'a E::Prepared),
    Y(&'a [i16]),
    Integers { w: &'a [i16], y: &'a [i16] },
}

impl<'a, E: Engine> PushSource<'a, E> {
    /// The frames `rows`, of E values of Y and C of W.
    fn rows(&self, rows: Range<usize>, width: usize, channels: usize) -> Source<'a, E> {
        let part = |values: &'a [i16], width: usize| {
            values.get(rows.start.saturating_mul(width)..rows.end.saturating_mul(width)).unwrap_or(&[])
        };
        match *self {
            PushSource::Hidden(prepared) => Source::Hidden(prepared, rows),
            PushSource::Y(y) => Source::Y(part(y, width)),
            PushSource::Integers { w, y } => Source::Integers { w: part(w, channels), y: part(y, width) },
        }
    }
}

impl<E: Engine> Encoder<E> {
    /// Checks hidden states as far as their values do not matter. Returns T.
    pub(in crate::codec) fn check_hidden(&self, hidden: &E::Input) -> Result<usize> {
        self.check_open()?;
        let frames = self.engine.frames(hidden)?;
        self.check_side(frames)?;
        self.check_memory(frames, 0)?;
        Ok(frames)
    }

    /// Checks that a push of this many frames has as many side indices, if the model takes any.
    fn check_side(&self, frames: usize) -> Result<()> {
        let found = self.side.indices.len();
        match self.codec().model().side() {
            Some(_) if found != frames => Err(side::wrong_count(frames, found)),
            _ => Ok(()),
        }
    }

    /// The job that checks the values of hidden states.
    pub(in crate::codec) fn prepare_job<'a>(&self, hidden: &'a E::Input) -> PrepareJob<'a, E> {
        PrepareJob {
            hidden,
            quality: self.quality,
            refuses_clipping: self.config.clipping == Clipping::Refuse,
            frames_per_chunk: self.frames_per_chunk(),
        }
    }

    pub(super) fn prepare(&self, job: PrepareJob<'_, E>) -> Result<E::Prepared, E::Error> {
        only(self.engine.prepare(&[job], &*self.executor))?
    }

    /// Checks Y for which h is to make W.
    pub(in crate::codec) fn check_own_y(&self, y: &[i16]) -> Result<usize> {
        let frames = self.check_y(y)?;
        if self.h.is_none() {
            let missing = Error::of_call(ErrorKind::NotAvailable);
            return Err(missing.with_detail("the model has no h; give W too"));
        }
        Ok(frames)
    }

    pub(super) fn check_y(&self, y: &[i16]) -> Result<usize> {
        let width = self.codec().model().hidden_width();
        let frames = whole_frames("y", width, y.len())?;
        self.check_open()?;
        check_range(y, width, self.codec().model().y_range())?;
        self.check_side(frames)?;
        self.check_memory(frames, 0)?;
        Ok(frames)
    }

    /// Checks that a push of this many frames fits the memory limit: the contexts after it, integers, buffers of a
    /// chunk and output of the largest possible length. If the push is an exact frame, its hidden state has `hidden`
    /// bytes.
    fn check_memory(&self, frames: usize, hidden: usize) -> Result<()> {
        let (width, channels) = (self.codec().model().hidden_width(), self.codec().model().hyper_prior_width());
        let chunk = frames.min(self.frames_per_chunk());
        let contexts = [Some(&self.g_y), self.h.as_ref()].into_iter().flatten();
        let networks = [Some(self.codec().g_y()), self.codec().h()].into_iter().flatten();
        // For each element of Y: the integer and the nearest one, 2 bytes each, and the hidden state in steps, 4. For
        // each element of W: the integer, twice. For each element of a chunk: g_y's output, 2 · 4 bytes, a table's
        // number, 4, and a shift, 4. Behind sparse maps also the hidden state without its offset, 4 bytes, the integer
        // that is chosen, 2, and what a run over frames needs.
        let sparse = self.codec().model().synthesis().is_some_and(|map| map.sparse().is_some());
        let element = if sparse { 2 + 2 + 4 + 4 + 2 } else { 2 + 2 + 4 };
        let frame = width.saturating_mul(element).saturating_add(channels.saturating_mul(2 + 2));
        // Of side indices: the history; and of each frame of a chunk its sums twice, 2 · 2 bytes each, its index twice, 4
        // each, and while they are coded both parts, their tables and shifts, 24.
        let side = self.codec().model().side().map_or(0, |side| {
            let frame = side.width().saturating_mul(2 + 2).saturating_add(4 + 4 + 24);
            let history = self.side_history.growth(side, self.config.max_rewind, frames, chunk);
            history.saturating_add(chunk.saturating_mul(frame))
        });
        // The frames that prediction reads, and a walk along a lane.
        let model = self.codec().model();
        let past = match model.prediction() {
            Some(_) => self.past_frames.growth(model, self.config.max_rewind, frames).saturating_add(walk_bytes(model)),
            None => 0,
        };
        let (chunks, output) = self.worst_output(frames, hidden);
        let needed = [
            self.memory_bytes()
                .saturating_sub(contexts.clone().map(Memory::memory_bytes).fold(0, usize::saturating_add)),
            contexts.map(|context| context.bytes_after(frames)).fold(0, usize::saturating_add),
            networks.map(|network| network.buffer_bytes(chunk)).fold(0, usize::saturating_add),
            frames.saturating_mul(frame),
            self.writer.growth(chunks, output),
            self.worst_output(chunk, hidden).1.saturating_mul(COPIES),
            self.digests.growth(frames),
            chunk.saturating_mul(width.saturating_mul(8 + 8)),
            side,
            past,
            quantiser::reconstruction_bytes(self.codec().model()),
        ];
        let needed = needed.into_iter().fold(0, usize::saturating_add);
        check_limit("bytes for a push of these frames and output that is to be taken", needed, self.config.memory_limit)
    }

    /// The most chunks that a push of this many frames gives, and the most bytes in them.
    fn worst_output(&self, frames: usize, hidden: usize) -> (usize, usize) {
        let worst = to_usize(worst_frame(self.codec()));
        let chunks = frames.div_ceil(self.frames_per_chunk().max(1));
        // Frames and checkpoint; in layered mode also targets, one or several parts of each frame. W and Y of a frame
        // then have a seal each.
        let (kinds, parts, worst): (usize, usize, usize) = match (self.config.mode, self.config.datagram_limit) {
            (Mode::Joined, _) => (2, 0, worst),
            (Mode::Layered, None) => (3, 0, worst.saturating_add(SEAL)),
            (Mode::Layered, Some(limit)) => (2, worst_parts(worst, to_usize(limit)), worst.saturating_add(SEAL)),
        };
        // Side indices have a chunk of their own, of at most 12 bytes each.
        let (kinds, worst) = match (self.writer.header().side, self.side.delivery) {
            (true, SideDelivery::Sent) => (kinds.saturating_add(1), worst.saturating_add(12)),
            _ => (kinds, worst),
        };
        let fields = to_usize(u64::from(self.config.lanes).saturating_mul(LANE_FIELDS).saturating_add(CHUNK_FIELDS));
        let (chunks, parts) = (chunks.saturating_mul(kinds), frames.saturating_mul(parts));
        let fields = chunks.saturating_mul(fields).saturating_add(parts.saturating_mul(PART_FIELDS));
        let bytes = frames.saturating_mul(worst).saturating_add(fields).saturating_add(hidden);
        (chunks.saturating_add(parts), bytes)
    }

    /// Checks that a control chunk with this many bytes from the caller fits the memory limit, in addition to output
    /// not yet taken. It is the writer that refuses an ended stream.
    pub(super) fn check_room(&self, data: usize) -> Result<()> {
        self.failed.map_or(Ok(()), Err)?;
        if self.ended {
            return Ok(());
        }
        let chunk = data.saturating_add(to_usize(CHUNK_FIELDS));
        let needed = [self.memory_bytes(), self.writer.growth(1, chunk), chunk.saturating_mul(COPIES)];
        let needed = needed.into_iter().fold(0, usize::saturating_add);
        check_limit("bytes for a control chunk and output that is to be taken", needed, self.config.memory_limit)
    }

    pub(in crate::codec) fn frames_per_chunk(&self) -> usize {
        frames_per_chunk(self.codec(), &self.config)
    }

    /// Checks an exact frame as far as its values do not matter.
    pub(super) fn check_exact(&self, dtype: Dtype, hidden: &[u8]) -> Result<()> {
        self.check_open()?;
        let wanted = self.codec().model().hidden_width().saturating_mul(dtype.bytes());
        if hidden.len() != wanted {
            let (wanted, found) = (to_u64(wanted), to_u64(hidden.len()));
            let detail = Detail::Number { what: "bytes of hidden, E values of the type", wanted, found };
            return Err(Error::of_call(ErrorKind::WrongShape).with(detail));
        }
        self.check_side(1)?;
        self.check_memory(1, hidden.len())
    }

    /// Checks that an exact frame fits a chunk, before the networks run, which could not be undone.
    pub(super) fn check_exact_fits(&self, hidden_bytes: usize) -> Result<()> {
        let worst = worst_frame(self.codec()).saturating_add(CHUNK_FIELDS).saturating_add(to_u64(hidden_bytes));
        let most = u64::from(self.config.max_chunk_bytes);
        if worst > most {
            let (what, limit) = ("bytes that an exact frame may take", Limit::Own("max_chunk_bytes"));
            let detail = Detail::Limit { what, limit, most, found: worst };
            return Err(Error::of_call(ErrorKind::ChunkTooLong).with(detail));
        }
        Ok(())
    }

    /// Codes what was checked, chunk by chunk.
    pub(super) fn code(&mut self, whole: PushSource<'_, E>, frames: usize) -> Result<(), E::Error> {
        let (engine, executor) = (Arc::clone(&self.engine), Arc::clone(&self.executor));
        for first in (0..frames).step_by(self.frames_per_chunk().max(1)) {
            let spec = self.spec(first, frames);
            let mut jobs = [self.job(spec, &whole, first)];
            let coded = engine.encode(&mut jobs, &mut E::CallScratch::default(), &*executor)?;
            self.commit(only(coded), &spec, (first, frames), None)?;
        }
        Ok(())
    }

    /// Codes an exact frame: its integers, joined even in layered mode, and its hidden state.
    pub(super) fn code_exact(&mut self, prepared: &E::Prepared, exact: (Dtype, &[u8])) -> Result<(), E::Error> {
        let (engine, executor) = (Arc::clone(&self.engine), Arc::clone(&self.executor));
        let spec = ChunkSpec { layout: Layout::Joined, refuses_clipping: false, ..self.spec(0, 1) };
        let mut jobs = [self.job(spec, &PushSource::Hidden(prepared), 0)];
        let coded = engine.encode(&mut jobs, &mut E::CallScratch::default(), &*executor)?;
        Ok(self.commit(only(coded), &spec, (0, 1), Some(exact))?)
    }

    /// How the chunk is coded that begins at frame `first` of a push of `frames` frames.
    pub(in crate::codec) fn spec(&self, first: usize, frames: usize) -> ChunkSpec {
        let count = frames.saturating_sub(first).min(self.frames_per_chunk());
        let own_weight = || self.codec().model().rate_weight(self.quality);
        ChunkSpec {
            frames: count,
            quality: self.quality,
            rate_weight: self.config.rate_weight.unwrap_or_else(own_weight),
            lanes: usize::from(self.config.lanes).min(count).max(1),
            layout: match self.config.mode {
                Mode::Joined => Layout::Joined,
                Mode::Layered => Layout::Layered { datagram_limit: self.config.datagram_limit.map(to_usize) },
            },
            refuses_clipping: self.config.clipping == Clipping::Refuse,
            // Prediction of later frames reads Y.
            keep_integers: self.keeps_integers || self.codec().model().prediction().is_some(),
            track_cost: self.tracks_cost,
        }
    }

    /// The job of the chunk that begins at frame `first` of a push.
    pub(in crate::codec) fn job<'a>(
        &'a mut self,
        spec: ChunkSpec,
        whole: &PushSource<'a, E>,
        first: usize,
    ) -> EncodeJob<'a, E> {
        let model = self.engine.codec().model();
        let rows = first..first.saturating_add(spec.frames);
        let source = whole.rows(rows, model.hidden_width(), model.hyper_prior_width());
        if let Some(side) = model.side() {
            let indices = self.side.indices.get(..spec.frames).unwrap_or(&[]);
            self.side.sums = self.side_history.sums(side, indices);
        }
        self.past = self.past_frames.last(model);
        let (h, g_y, scratch) = (self.h.as_mut(), &mut self.g_y, &mut self.scratch);
        EncodeJob { spec, source, side: &self.side.sums, past: &self.past, h, g_y, scratch }
    }

    /// Writes the coded chunk that begins at frame `first` of a push of `frames` frames, with an exact frame's hidden
    /// state (spec 6.9).
    ///
    /// # Errors
    /// [`ErrorKind::EngineFault`], and those of the writer. The contexts have advanced, so every later call fails too.
    pub(in crate::codec) fn commit(
        &mut self,
        coded: Result<CodedChunk>,
        spec: &ChunkSpec,
        place: (usize, usize),
        exact: Option<(Dtype, &[u8])>,
    ) -> Result<()> {
        let written = match coded {
            Ok(coded) if self.is_chunk_of(&coded, spec) => self.write_chunk(coded, place, exact),
            Ok(_) => Err(engine_fault("a coded chunk of another shape")),
            Err(error) => Err(error),
        };
        written.inspect_err(|error| self.failed = Some(*error))
    }

    fn write_chunk(
        &mut self,
        coded: CodedChunk,
        (first, frames): (usize, usize),
        exact: Option<(Dtype, &[u8])>,
    ) -> Result<()> {
        let more = self.sums_of(&coded);
        let CodedChunk { payloads, targets, mut crcs, clipped, integers, cost, .. } = coded;
        if let Some(side) = self.engine.codec().model().side() {
            let indices: Vec<u32> = self.side.indices.drain(..crcs.len().min(self.side.indices.len())).collect();
            if self.side.delivery == SideDelivery::Sent {
                self.writer.side_indices(chunk_frames(crcs.len()), &side_payload::encode(side, &indices))?;
            }
            self.writer.cover_side(&indices);
            crcs.iter_mut().zip(&indices).for_each(|((w, _), index)| *w = side::crc_after(*w, *index));
            self.side_history.append(side, self.config.max_rewind, &indices);
            if self.side.indices.is_empty() {
                self.side = NextSide::default();
            }
        }
        self.write_payloads(crcs.len(), &payloads, &targets, exact)?;
        (self.sent, self.recent) = (self.sent.plus(more), self.recent.then_recent(more));
        for (w, y) in crcs {
            self.digests.append(self.quality, w, FrameY::Known(y));
            self.since_checkpoint = self.since_checkpoint.saturating_add(1);
        }
        if first == 0 {
            self.last = Last::default();
        }
        self.last.clipped = self.last.clipped.saturating_add(clipped);
        self.last.cost = cost.map(|cost| self.last.cost.unwrap_or_default().plus(cost));
        let model = self.engine.codec().model();
        let widths = (model.hyper_prior_width(), model.hidden_width());
        let sent = integers.as_ref().map_or(&[][..], |integers| &integers.y);
        self.past_frames.append(model, self.config.max_rewind, self.quality, sent);
        self.last.integers = integers
            .filter(|_| self.keeps_integers)
            .map(|integers| join(self.last.integers.take(), integers, frames, widths));
        self.checkpoint_if_due()
    }

    /// What a coded chunk adds to the sums. Its frames' side indices are still there.
    fn sums_of(&self, coded: &CodedChunk) -> Sent {
        let model = self.codec().model();
        let none = |side: &Side| self.side.indices.iter().take(coded.crcs.len()).any(|own| *own == side.vocabulary());
        let expected = if model.side().is_some_and(none) { 0 } else { model.expected_bits_in_256ths(self.quality) };
        Sent::of_chunk(coded, (model.hyper_prior_width(), model.hidden_width()), expected)
    }

    /// Whether a coded chunk has the shape that was asked for.
    fn is_chunk_of(&self, coded: &CodedChunk, spec: &ChunkSpec) -> bool {
        let model = self.codec().model();
        let (width, channels) = (model.hidden_width(), model.hyper_prior_width());
        let whole = spec.frames.saturating_mul(width);
        let elements = |piece: &TargetPiece| {
            let (elements, lanes) = match &piece.elements {
                Some(elements) => (elements.clone(), piece.lanes.len() == 1),
                None => (0..width, !piece.lanes.is_empty()),
            };
            let fits = lanes && piece.frames.end <= spec.frames && elements.end <= width;
            if fits { piece.frames.len().saturating_mul(elements.len()) } else { usize::MAX }
        };
        let in_targets = coded.targets.iter().map(elements).fold(0, usize::saturating_add);
        coded.crcs.len() == spec.frames
            && coded.payloads.len() == spec.lanes
            && in_targets == if spec.layout == Layout::Joined { 0 } else { whole }
            && coded.cost.is_some() == spec.track_cost
            && coded.integers.is_some() == spec.keep_integers
            && coded.integers.as_ref().is_none_or(|integers| integers.have(spec.frames, channels, width))
    }

    fn write_payloads(
        &mut self,
        frames: usize,
        payloads: &[Vec<u8>],
        targets: &[TargetPiece],
        exact: Option<(Dtype, &[u8])>,
    ) -> Result<()> {
        let index = self.next_index();
        match (exact, payloads) {
            (Some((dtype, hidden)), [payload]) => self.writer.exact_frame(dtype, payload, hidden)?,
            (_, [payload]) if frames == 1 => self.writer.frame(payload)?,
            (_, lanes) => self.writer.batch(chunk_frames(frames), lanes)?,
        }
        for TargetPiece { frames, elements, lanes } in targets {
            let index = index.saturating_add(to_u64(frames.start));
            match (elements, lanes.as_slice()) {
                (Some(elements), [payload]) => {
                    self.writer.target_part(index, to_u64(elements.start)..to_u64(elements.end), payload)?;
                }
                _ => self.writer.target(index, chunk_frames(frames.len()), lanes)?,
            }
        }
        Ok(())
    }

    fn checkpoint_if_due(&mut self) -> Result<()> {
        if self.config.checkpoint_interval > 0 && self.since_checkpoint >= self.config.checkpoint_interval {
            self.write_checkpoint()?;
        }
        Ok(())
    }
}

/// The integers of a push of `frames` frames, of which `before` came earlier.
fn join(before: Option<Integers>, more: Integers, frames: usize, (channels, width): (usize, usize)) -> Integers {
    if more.y.len() == frames.saturating_mul(width) {
        return more;
    }
    let mut all = before.unwrap_or_else(|| Integers {
        // Exactly their length: the memory of a push was checked before.
        w: Vec::with_capacity(frames.saturating_mul(channels)),
        y: Vec::with_capacity(frames.saturating_mul(width)),
    });
    all.w.extend_from_slice(&more.w);
    all.y.extend_from_slice(&more.y);
    all
}

/// The only outcome of an engine's call with one job.
///
/// # Errors
/// [`ErrorKind::EngineFault`] if there are none or several.
pub(in crate::codec) fn only<T>(outcomes: Vec<T>) -> Result<T> {
    let [outcome] = <[T; 1]>::try_from(outcomes).map_err(|_| wrong_count())?;
    Ok(outcome)
}

/// The error for an engine that gives more or fewer outcomes than it got jobs.
pub(in crate::codec) fn wrong_count() -> Error {
    engine_fault("not one outcome for each job")
}

pub(in crate::codec) fn engine_fault(detail: &'static str) -> Error {
    Error::of_call(ErrorKind::EngineFault).with_detail(detail)
}

/// How many copies of a chunk's bytes may exist before they are output: payload and body, in buffers that may be twice
/// as long, and the chunk.
const COPIES: usize = 5;
/// Bytes of a payload in addition to its values (spec 3.6).
const SEAL: usize = 8;
/// More than the bytes of a target's part in addition to its elements: fields and seal.
const PART_FIELDS: usize = 40;

/// The most parts of a frame whose payload has at most `worst` bytes, in messages of at most `limit`. A part that was
/// cut back may be short, but then the next one is long: two in a row hold at least half of `limit`.
fn worst_parts(worst: usize, limit: usize) -> usize {
    worst.saturating_mul(4).checked_div(limit).unwrap_or(0).saturating_add(2)
}

/// More than the bytes of a chunk's body in addition to its payloads and to what it has for each lane.
const CHUNK_FIELDS: u64 = 64;
/// More than the bytes that a chunk's body has for each lane in addition to its payload.
const LANE_FIELDS: u64 = 8;

/// The longest payload of one frame, and the longest share of one frame in a payload of several, in bytes (spec 3.6).
fn worst_frame(codec: &Codec) -> u64 {
    let values = codec.model().hidden_width().saturating_add(codec.model().hyper_prior_width());
    max_payload_len(1, values as u64)
}

/// The most lanes of a chunk (spec 2.6).
pub(super) const LANES_MAX: u32 = 1_024;

/// The most bytes of a chunk of one frame.
fn worst_chunk(codec: &Codec, config: &EncoderConfig) -> u64 {
    let lanes = u64::from(config.lanes).saturating_mul(LANE_FIELDS);
    worst_frame(codec).saturating_add(CHUNK_FIELDS).saturating_add(lanes)
}

/// Checks that a chunk has room for at least one frame.
pub(in crate::codec) fn check_fits(codec: &Codec, config: &EncoderConfig) -> Result<()> {
    let (low, found) = (worst_chunk(codec, config), u64::from(config.max_chunk_bytes));
    if low <= found {
        return Ok(());
    }
    let detail = Detail::Setting { name: "max_chunk_bytes", low, high: MAX_CHUNK_BYTES.into(), found };
    Err(Error::of_call(ErrorKind::BadConfig).with(detail))
}

/// How many frames a chunk may have, so that no payload can exceed the limit on chunk bytes (spec 3.6).
pub(super) fn frames_per_chunk(codec: &Codec, config: &EncoderConfig) -> usize {
    let fields = CHUNK_FIELDS.saturating_add(u64::from(config.lanes).saturating_mul(LANE_FIELDS));
    let fits = u64::from(config.max_chunk_bytes).saturating_sub(fields).checked_div(worst_frame(codec)).unwrap_or(0);
    let horizon = match config.mode {
        Mode::Joined => u32::MAX,
        Mode::Layered => config.target_horizon,
    };
    let most = u64::from(config.max_frames_per_chunk.min(horizon));
    to_usize(fits.min(most))
}

/// A chunk's frames are bounded by `max_frames_per_chunk`, a u32.
pub(super) fn chunk_frames(frames: usize) -> u32 {
    u32::try_from(frames).unwrap_or(u32::MAX)
}

/// Checks that integers to encode, frames of `width`, are in the range that the model declares.
pub(super) fn check_range(values: &[i16], width: usize, (low, high): (i16, i16)) -> Result<()> {
    let Some((position, found)) = values.iter().enumerate().find(|(_, value)| !(low..=high).contains(*value)) else {
        return Ok(());
    };
    let (frame, element) = quantiser::place(position, width);
    let detail = Detail::Value { frame, element, low, high, found: *found };
    Err(Error::of_call(ErrorKind::ValueOutOfRange).with(detail))
}
