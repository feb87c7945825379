//! How an encoder session codes frames: quantiser, networks, choice of Y, payloads (spec 6.1, 6.5, 6.8).

use std::sync::Arc;

use super::targets::TargetPiece;
use super::{ChunkFigures, Clipping, Coded, Encoder, EncoderConfig, check_limit};
use crate::codec::analysis::Codec;
use crate::codec::choice;
use crate::codec::context::Context;
use crate::codec::cost::{self, Cost};
use crate::codec::digest::{FrameY, frame_crc};
use crate::codec::payload::Tables;
use crate::codec::quantiser::{self, Clipped};
use crate::entropy::max_payload_len;
use crate::error::{Detail, Error, ErrorKind, Limit, Result};
#[cfg(any(feature = "kernels", feature = "cuda"))]
use crate::exact::Executor;
use crate::exact::Step;
use crate::number::{to_u64, to_usize};
use crate::wire::header::MAX_CHUNK_BYTES;
use crate::wire::{Dtype, Mode};

impl<S: Context> Encoder<S> {
    pub(super) fn in_steps(&self, hidden: &[f32]) -> Result<Vec<f32>> {
        let model = self.codec.model();
        whole_frames("hidden", model.hidden_width(), hidden.len())?;
        let Some(reciprocal_step) = model.reciprocal_step(self.quality) else {
            return Err(not_available("the model has no quantiser; give Y instead"));
        };
        quantiser::in_steps(hidden, model.offset(self.quality), model.analysis(), reciprocal_step)
    }

    /// The integers nearest to hidden states, which are checked, and the hidden states in steps: `[T, E]` each.
    pub(crate) fn nearest(&self, hidden: &[f32]) -> Result<(Vec<i16>, Vec<f32>)> {
        self.check_open()?;
        self.check_memory(whole_frames("hidden", self.codec.model().hidden_width(), hidden.len())?, 0)?;
        let x = self.in_steps(hidden)?;
        self.check_clipping(&x)?;
        Ok((quantiser::nearest(&x, self.codec.model().y_range()).collect(), x))
    }

    /// Refuses values in steps that would be clamped, if the configuration says so.
    pub(crate) fn check_clipping(&self, x: &[f32]) -> Result<()> {
        match self.refuses_clipping() {
            true => Clipped::of(x, self.codec.model().y_range()).refuse(self.codec.model().hidden_width()),
            false => Ok(()),
        }
    }

    pub(crate) fn refuses_clipping(&self) -> bool {
        self.config.clipping == Clipping::Refuse
    }

    /// Checks Y for which h is to make W.
    pub(crate) fn check_own_y(&self, y: &[i16]) -> Result<usize> {
        let frames = self.check_y(y)?;
        if self.h.is_none() {
            return Err(not_available("the model has no analysis network; give W too"));
        }
        Ok(frames)
    }

    /// Squared steps per bit, as they apply now.
    pub(crate) fn rate_weight(&self) -> f32 {
        self.config.rate_weight.unwrap_or_else(|| self.codec.model().rate_weight(self.quality))
    }

    pub(super) fn check_y(&self, y: &[i16]) -> Result<usize> {
        let width = self.codec.model().hidden_width();
        let frames = whole_frames("y", width, y.len())?;
        self.check_open()?;
        check_range(y, width, self.codec.model().y_range())?;
        self.check_memory(frames, 0)?;
        Ok(frames)
    }

    /// Checks that a push of this many frames fits the memory limit: the contexts after it, integers, buffers of a
    /// chunk and output of the largest possible length. If the push is an exact frame, its hidden state has `hidden`
    /// bytes.
    pub(crate) fn check_memory(&self, frames: usize, hidden: usize) -> Result<()> {
        let (width, channels) = (self.codec.model().hidden_width(), self.codec.model().hyper_prior_width());
        let chunk = frames.min(self.frames_per_chunk());
        let contexts = [Some(&self.g_y), self.h.as_ref()].into_iter().flatten();
        let networks = [Some(self.codec.g_y()), self.codec.h()].into_iter().flatten();
        // For each element of Y: the integer and the nearest one, 2 bytes each, and the hidden state in steps, 4. For
        // each element of W: the integer, twice. For each element of a chunk: g_y's output, 2 · 4 bytes, a table's
        // number, 4, and a shift, 4.
        let frame = width.saturating_mul(2 + 2 + 4).saturating_add(channels.saturating_mul(2 + 2));
        let (chunks, output) = self.worst_output(frames, hidden);
        let needed = [
            self.memory_bytes().saturating_sub(contexts.clone().map(S::memory_bytes).fold(0, usize::saturating_add)),
            contexts.map(|context| context.bytes_after(frames)).fold(0, usize::saturating_add),
            networks.map(|network| network.buffer_bytes(chunk)).fold(0, usize::saturating_add),
            frames.saturating_mul(frame),
            self.writer.growth(chunks, output),
            self.worst_output(chunk, hidden).1.saturating_mul(COPIES),
            self.digests.growth(frames),
            chunk.saturating_mul(width).saturating_mul(8 + 8),
        ];
        let needed = needed.into_iter().fold(0, usize::saturating_add);
        check_limit("bytes for a push of these frames and output that is to be taken", needed, self.config.memory_limit)
    }

    /// The most chunks that a push of this many frames gives, and the most bytes in them.
    fn worst_output(&self, frames: usize, hidden: usize) -> (usize, usize) {
        let worst = to_usize(worst_frame(&self.codec));
        let chunks = frames.div_ceil(self.frames_per_chunk().max(1));
        // Frames and checkpoint; in layered mode also targets, one or several parts of each frame. W and Y of a frame
        // then have a seal each.
        let (kinds, parts, worst) = match (self.config.mode, self.config.datagram_limit) {
            (Mode::Joined, _) => (2, 0, worst),
            (Mode::Layered, None) => (3, 0, worst.saturating_add(SEAL)),
            (Mode::Layered, Some(limit)) => (2, worst_parts(worst, to_usize(limit)), worst.saturating_add(SEAL)),
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
        if self.ended {
            return Ok(());
        }
        let chunk = data.saturating_add(to_usize(CHUNK_FIELDS));
        let needed = [self.memory_bytes(), self.writer.growth(1, chunk), chunk.saturating_mul(COPIES)];
        let needed = needed.into_iter().fold(0, usize::saturating_add);
        check_limit("bytes for a control chunk and output that is to be taken", needed, self.config.memory_limit)
    }

    /// Codes the frames of one chunk, once g_y has run. Returns their cost, if that is wanted, and how many values were
    /// clamped. An exact frame's hidden state is written with it (spec 6.9).
    fn code_chunk(
        &mut self,
        w: &[i16],
        y: &mut [i16],
        x: Option<&[f32]>,
        exact: Option<(Dtype, &[u8])>,
    ) -> Result<ChunkFigures> {
        self.codec.rule().derive(&self.scratch.output, &mut self.scratch.parameters);
        let frames = y.len().checked_div(self.codec.model().hidden_width()).unwrap_or(0);
        if let Some(x) = x {
            let (weight, lanes) = (self.rate_weight(), self.lanes(frames));
            choice::choose(self.codec.model(), &self.scratch.parameters, weight, lanes, x, y);
        }
        let (payloads, target) = self.payloads(frames, w, y, exact.is_some());
        self.write_payloads(frames, &payloads, &target, exact)?;
        self.account(w, y);
        let cost = self.track_cost.then(|| self.cost(frames, w, y));
        self.scratch.release();
        let clipped = x.map_or(0, |x| Clipped::of(x, self.codec.model().y_range()).count);
        self.clipped = self.clipped.saturating_add(clipped);
        self.checkpoint_if_due()?;
        Ok(ChunkFigures { cost, clipped })
    }

    pub(crate) fn frames_per_chunk(&self) -> usize {
        frames_per_chunk(&self.codec, &self.config)
    }

    /// W, `[T, C]`, once h has run.
    pub(crate) fn analysed(&self) -> Vec<i16> {
        // h clamps W to its declared range, which fits an i16.
        self.scratch.output.iter().map(|value| i16::try_from(*value).unwrap_or(0)).collect()
    }

    /// Codes one chunk's frames, once g_y has run: the first chunk of a push, or a later one of the same push.
    pub(crate) fn code_predicted(&mut self, w: &[i16], mut y: Vec<i16>, x: Option<&[f32]>, first: bool) -> Result<()> {
        let figures = self.code_chunk(w, &mut y, x, None)?;
        if first {
            self.last = Coded::default();
        }
        self.last.append(w, &y, figures);
        Ok(())
    }

    /// The integers nearest to an exact frame's hidden state, and the hidden state in steps, after every check that can
    /// fail.
    pub(crate) fn exact_in_steps(&self, dtype: Dtype, hidden: &[u8]) -> Result<(Vec<i16>, Vec<f32>)> {
        self.check_open()?;
        let wanted = self.codec.model().hidden_width().saturating_mul(dtype.bytes());
        if hidden.len() != wanted {
            let (wanted, found) = (to_u64(wanted), to_u64(hidden.len()));
            let detail = Detail::Number { what: "bytes of hidden, E values of the type", wanted, found };
            return Err(Error::of_call(ErrorKind::WrongShape).with(detail));
        }
        self.check_memory(1, hidden.len())?;
        let x = self.in_steps(&quantiser::to_f32(dtype, hidden))?;
        let y = quantiser::nearest(&x, self.codec.model().y_range()).collect();
        // Checked before the networks run, which could not be undone.
        let worst = worst_frame(&self.codec).saturating_add(CHUNK_FIELDS).saturating_add(hidden.len() as u64);
        let most = u64::from(self.config.max_chunk_bytes);
        if worst > most {
            let (what, limit) = ("bytes that an exact frame may take", Limit::Own("max_chunk_bytes"));
            let detail = Detail::Limit { what, limit, most, found: worst };
            return Err(Error::of_call(ErrorKind::ChunkTooLong).with(detail));
        }
        Ok((y, x))
    }

    /// Codes an exact frame, once g_y has run.
    pub(crate) fn code_exact(&mut self, exact: (Dtype, &[u8]), w: Vec<i16>, mut y: Vec<i16>, x: &[f32]) -> Result<()> {
        let ChunkFigures { cost, clipped } = self.code_chunk(&w, &mut y, Some(x), Some(exact))?;
        self.last = Coded { w, y, cost, clipped };
        Ok(())
    }

    /// Lanes of a chunk of this many frames.
    pub(crate) fn lanes(&self, frames: usize) -> usize {
        usize::from(self.config.lanes).min(frames).max(1)
    }

    /// The executor over which batches are spread.
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    pub(crate) fn executor(&self) -> Arc<dyn Executor + Send + Sync> {
        Arc::clone(&self.executor)
    }

    /// Whether W and Y have separate chunks.
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    pub(crate) fn is_layered(&self) -> bool {
        self.config.mode == Mode::Layered
    }

    /// Writes a chunk that was coded elsewhere: its payloads, in layered mode also those of Y, and the crc of each
    /// frame's W and Y. An exact frame's hidden state is written with it (spec 6.9). `clipped` of its values were
    /// clamped; it is the first chunk of its push, or a later one.
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    pub(crate) fn write_coded(
        &mut self,
        payloads: &[impl AsRef<[u8]>],
        target: &[impl AsRef<[u8]>],
        crcs: &[(u32, u32)],
        exact: Option<(Dtype, &[u8])>,
        (clipped, first): (u64, bool),
    ) -> Result<()> {
        let lanes: Vec<Vec<u8>> = target.iter().map(|lane| lane.as_ref().to_vec()).collect();
        let target = if lanes.is_empty() { Vec::new() } else { vec![TargetPiece::whole(crcs.len(), lanes)] };
        self.write_payloads(crcs.len(), payloads, &target, exact)?;
        crcs.iter().for_each(|(w, y)| self.append(*w, *y));
        let before = if first { 0 } else { self.last.clipped };
        self.last = Coded { clipped: before.saturating_add(clipped), ..Coded::default() };
        self.clipped = self.clipped.saturating_add(clipped);
        self.checkpoint_if_due()
    }

    /// A chunk's payloads, and those of Y if it has separate chunks, which an exact frame never has.
    fn payloads(&self, frames: usize, w: &[i16], y: &[i16], exact: bool) -> (Vec<Vec<u8>>, Vec<TargetPiece>) {
        let (tables, lanes) = (self.tables(), self.lanes(frames));
        match self.config.mode {
            Mode::Layered if !exact => (tables.encode_hyper_prior(lanes, w), self.target_pieces(y)),
            _ => (tables.encode_joined(lanes, w, y, &self.scratch.parameters), Vec::new()),
        }
    }

    fn write_payloads(
        &mut self,
        frames: usize,
        payloads: &[impl AsRef<[u8]>],
        target: &[TargetPiece],
        exact: Option<(Dtype, &[u8])>,
    ) -> Result<()> {
        let index = self.next_index();
        match (exact, payloads) {
            (Some((dtype, hidden)), [payload]) => self.writer.exact_frame(dtype, payload.as_ref(), hidden)?,
            (_, [payload]) if frames == 1 => self.writer.frame(payload.as_ref())?,
            (_, lanes) => self.writer.batch(chunk_frames(frames), lanes)?,
        }
        self.write_targets(index, target)
    }

    pub(super) fn tables(&self) -> Tables<'_> {
        Tables { model: self.codec.model(), quality: self.quality, executor: &*self.executor }
    }

    fn cost(&self, frames: usize, w: &[i16], y: &[i16]) -> Cost {
        let lanes = self.lanes(frames);
        Cost {
            hyper_prior: cost::hyper_prior_bits(&self.codec, self.quality, w, lanes),
            target: cost::target_bits(
                &self.codec,
                &self.scratch.parameters.tables,
                &self.scratch.parameters.shifts,
                y,
                lanes,
            ),
        }
    }

    /// Adds coded frames to the digests.
    fn account(&mut self, w: &[i16], y: &[i16]) {
        let (width, channels) = (self.codec.model().hidden_width(), self.codec.model().hyper_prior_width());
        for (w, y) in w.chunks_exact(channels).zip(y.chunks_exact(width)) {
            self.append(frame_crc(w), frame_crc(y));
        }
    }

    fn append(&mut self, w: u32, y: u32) {
        self.digests.append(self.quality, w, FrameY::Known(y));
        self.since_checkpoint = self.since_checkpoint.saturating_add(1);
    }

    fn checkpoint_if_due(&mut self) -> Result<()> {
        if self.config.checkpoint_interval > 0 && self.since_checkpoint >= self.config.checkpoint_interval {
            self.write_checkpoint()?;
        }
        Ok(())
    }
}

impl Encoder {
    /// Codes checked integers, chunk by chunk. If `x` (the unrounded values) is given, `y` holds the integers nearest
    /// to it and the rate–distortion choice may change it; otherwise `y` is sent as it is.
    pub(crate) fn code(&mut self, mut y: Vec<i16>, w: Option<&[i16]>, x: Option<&[f32]>) -> Result<()> {
        let (width, channels) = (self.codec.model().hidden_width(), self.codec.model().hyper_prior_width());
        let frames = self.frames_per_chunk();
        // Exactly its length: the memory of a push was checked before.
        let count = y.len().checked_div(width).unwrap_or(0);
        let mut all = Coded { w: Vec::with_capacity(count.saturating_mul(channels)), ..Coded::default() };
        for (part, y) in y.chunks_mut(frames.saturating_mul(width)).enumerate() {
            let given = w.and_then(|w| w.chunks(frames.saturating_mul(channels)).nth(part));
            let w = self.predict(y, given)?;
            let x = x.and_then(|x| x.chunks(frames.saturating_mul(width)).nth(part));
            let figures = self.code_chunk(&w, y, x, None)?;
            all.append(&w, &[], figures);
        }
        self.last = Coded { y, ..all };
        Ok(())
    }

    /// Runs h on Y, unless W is given, and g_y on W; leaves g_y's output in `output`.
    pub(super) fn predict(&mut self, y: &[i16], given: Option<&[i16]>) -> Result<Vec<i16>> {
        let codec = Arc::clone(&self.codec);
        let mut w = Vec::new();
        if let (Some(network), Some(state)) = (codec.h(), &mut self.h) {
            // h runs even if W is given, because its context has to move on.
            network.run(state, y, self.quality, &mut self.scratch.output, &*self.executor)?;
            w = self.analysed();
        }
        if let Some(given) = given {
            w.clear();
            w.extend_from_slice(given);
        }
        codec.g_y().run(&mut self.g_y, &w, self.quality, &mut self.scratch.output, &*self.executor)?;
        Ok(w)
    }

    /// The step of h on Y, `[T, E]`, which gives Y's W.
    pub(crate) fn analysis_step<'a>(&'a mut self, y: &'a [i16]) -> Option<Step<'a>> {
        let state = self.h.as_mut()?;
        Some(Step { state, quality: self.quality, input: y, output: &mut self.scratch.output })
    }

    /// The step of g_y on W, `[T, C]`.
    pub(crate) fn synthesis_step<'a>(&'a mut self, w: &'a [i16]) -> Step<'a> {
        Step { state: &mut self.g_y, quality: self.quality, input: w, output: &mut self.scratch.output }
    }
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

/// How many frames an argument has; they must be whole, and at least one.
fn whole_frames(what: &'static str, width: usize, found: usize) -> Result<usize> {
    match found.checked_div(width) {
        Some(frames) if frames > 0 && found.is_multiple_of(width) => Ok(frames),
        _ => {
            let detail = Detail::Shape { what, width: to_u64(width), found: to_u64(found) };
            Err(Error::of_call(ErrorKind::WrongShape).with(detail))
        }
    }
}

fn not_available(detail: &'static str) -> Error {
    Error::of_call(ErrorKind::NotAvailable).with_detail(detail)
}
