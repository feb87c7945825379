//! How an encoder session codes frames: quantiser, networks, choice of Y, payloads (spec 6.1, 6.5, 6.8).

use std::sync::Arc;

use super::targets::TargetPiece;
use super::{Coded, Encoder, EncoderConfig};
use crate::codec::analysis::Codec;
use crate::codec::choice;
use crate::codec::context::Context;
use crate::codec::cost::{self, Cost};
use crate::codec::digest::{FrameY, frame_crc};
use crate::codec::payload::Tables;
use crate::codec::quantiser;
use crate::entropy::max_payload_len;
use crate::error::{Error, ErrorKind, Result};
#[cfg(any(feature = "kernels", feature = "cuda"))]
use crate::exact::Executor;
use crate::exact::Step;
use crate::wire::{Dtype, Mode};

impl<S: Context> Encoder<S> {
    pub(super) fn in_steps(&self, hidden: &[f32]) -> Result<Vec<f32>> {
        let model = self.codec.model();
        if hidden.is_empty() || !hidden.len().is_multiple_of(model.hidden_width()) {
            return Err(wrong_shape("hidden states come in whole frames of E values"));
        }
        let Some(reciprocal_step) = model.reciprocal_step(self.quality) else {
            return Err(not_available("the model has no quantiser; give Y instead"));
        };
        quantiser::in_steps(hidden, model.offset(self.quality), model.analysis(), reciprocal_step)
    }

    /// The integers nearest to hidden states, checked, and the hidden states in steps: `[T, E]` each.
    pub(crate) fn nearest(&self, hidden: &[f32]) -> Result<(Vec<i16>, Vec<f32>)> {
        let x = self.in_steps(hidden)?;
        let y: Vec<i16> = quantiser::nearest(&x, self.codec.model().y_range()).collect();
        self.check_y(&y)?;
        Ok((y, x))
    }

    /// Checks Y whose W is to come from h.
    pub(crate) fn check_own_y(&self, y: &[i16]) -> Result<usize> {
        let frames = self.check_y(y)?;
        if self.h.is_none() {
            return Err(not_available("the model has no analysis network; give W too"));
        }
        Ok(frames)
    }

    /// Squared steps a bit, in force now.
    pub(crate) fn rate_weight(&self) -> f32 {
        self.config.rate_weight.unwrap_or_else(|| self.codec.model().rate_weight(self.quality))
    }

    pub(super) fn check_y(&self, y: &[i16]) -> Result<usize> {
        let width = self.codec.model().hidden_width();
        if y.is_empty() || !y.len().is_multiple_of(width) {
            return Err(wrong_shape("Y comes in whole frames of E values"));
        }
        self.check_open()?;
        check_range(y, self.codec.model().y_range())?;
        let frames = y.len().checked_div(width).unwrap_or(0);
        self.check_memory(frames)?;
        Ok(frames)
    }

    /// Whether a push of so many frames fits the memory limit: the contexts that they lead to, integers, buffers of a chunk
    /// and output, which may be as long as it can get.
    pub(crate) fn check_memory(&self, frames: usize) -> Result<()> {
        let (width, channels) = (self.codec.model().hidden_width(), self.codec.model().hyper_prior_width());
        let chunk = frames.min(self.frames_per_chunk());
        let contexts = [Some(&self.g_y), self.h.as_ref()].into_iter().flatten();
        let networks = [Some(self.codec.g_y()), self.codec.h()].into_iter().flatten();
        // Of Y's elements the integer and the one nearest, 2 bytes each, and the hidden state in steps, 4; of W's the
        // integer, twice. Of a chunk's elements g_y's output, 2 · 4 bytes, a table's number, 4, and a shift, 4.
        let frame = width.saturating_mul(2 + 2 + 4).saturating_add(channels.saturating_mul(2 + 2));
        let output = usize::try_from(worst_frame(&self.codec)).unwrap_or(usize::MAX);
        let needed = [
            self.memory_bytes().saturating_sub(contexts.clone().map(S::memory_bytes).fold(0, usize::saturating_add)),
            contexts.map(|context| context.bytes_after(frames)).fold(0, usize::saturating_add),
            networks.map(|network| network.buffer_bytes(chunk)).fold(0, usize::saturating_add),
            frames.saturating_mul(frame.saturating_add(output)),
            self.writer.spare_bytes(),
            chunk.saturating_mul(width).saturating_mul(8 + 8),
        ];
        if needed.into_iter().fold(0, usize::saturating_add) > self.config.memory_limit {
            return Err(Error::new(ErrorKind::MemoryLimit, self.writer.position())
                .with_detail("take the output, push fewer frames at once, or raise EncoderConfig::memory_limit"));
        }
        Ok(())
    }

    /// Codes the frames of one chunk, where g_y has run; gives what they cost, if that is wanted. An exact frame's hidden
    /// state goes with it (spec 6.9).
    fn code_chunk(
        &mut self,
        w: &[i16],
        y: &mut [i16],
        x: Option<&[f32]>,
        exact: Option<(Dtype, &[u8])>,
    ) -> Result<Option<Cost>> {
        self.codec.rule().derive(&self.scratch.output, &mut self.scratch.parameters);
        if let Some(x) = x {
            choice::choose(self.codec.model(), &self.scratch.parameters, self.rate_weight(), x, y);
        }
        let frames = y.len().checked_div(self.codec.model().hidden_width()).unwrap_or(0);
        let (payloads, target) = self.payloads(frames, w, y, exact.is_some());
        self.write_payloads(frames, &payloads, &target, exact)?;
        self.account(w, y);
        let cost = self.track_cost.then(|| self.cost(frames, w, y));
        self.scratch.release();
        self.checkpoint_if_due()?;
        Ok(cost)
    }

    pub(crate) fn frames_per_chunk(&self) -> usize {
        frames_per_chunk(&self.codec, &self.config)
    }

    /// W, `[T, C]`, where h has run.
    pub(crate) fn analysed(&self) -> Vec<i16> {
        // h clamps W to its declared range, which fits an i16.
        self.scratch.output.iter().map(|value| i16::try_from(*value).unwrap_or(0)).collect()
    }

    /// Codes one chunk's frames, where g_y has run: a push's first, or one behind others of the same push.
    pub(crate) fn code_predicted(&mut self, w: &[i16], mut y: Vec<i16>, x: Option<&[f32]>, first: bool) -> Result<()> {
        let cost = self.code_chunk(w, &mut y, x, None)?;
        if first {
            self.last = Coded::default();
        }
        self.last.append(w, &y, cost);
        Ok(())
    }

    /// The integers nearest to an exact frame's hidden state, and the hidden state in steps; all that can be refused is.
    pub(crate) fn exact_in_steps(&self, dtype: Dtype, hidden: &[u8]) -> Result<(Vec<i16>, Vec<f32>)> {
        if hidden.len() != self.codec.model().hidden_width().saturating_mul(dtype.bytes()) {
            return Err(wrong_shape("an exact frame holds E values of its type"));
        }
        let nearest = self.nearest(&quantiser::to_f32(dtype, hidden))?;
        // Judged before the networks go on, which nothing could take back.
        let worst = worst_frame(&self.codec).saturating_add(CHUNK_FIELDS).saturating_add(hidden.len() as u64);
        if worst > u64::from(self.config.max_chunk_bytes) {
            return Err(Error::new(ErrorKind::ChunkTooLong, self.writer.position())
                .with_detail("an exact frame's worst case does not fit max_chunk_bytes"));
        }
        Ok(nearest)
    }

    /// Codes an exact frame, where g_y has run.
    pub(crate) fn code_exact(&mut self, exact: (Dtype, &[u8]), w: Vec<i16>, mut y: Vec<i16>, x: &[f32]) -> Result<()> {
        let cost = self.code_chunk(&w, &mut y, Some(x), Some(exact))?;
        self.last = Coded { w, y, cost };
        Ok(())
    }

    /// Lanes of a chunk of so many frames.
    pub(crate) fn lanes(&self, frames: usize) -> usize {
        usize::from(self.config.lanes).min(frames).max(1)
    }

    /// Where batches are spread.
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    pub(crate) fn executor(&self) -> Arc<dyn Executor + Send + Sync> {
        Arc::clone(&self.executor)
    }

    /// Whether W and Y have chunks of their own.
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    pub(crate) fn is_layered(&self) -> bool {
        self.config.mode == Mode::Layered
    }

    /// Writes a chunk that was coded elsewhere: its payloads, in layered mode Y's too, and the crc of each frame's W and Y.
    /// An exact frame's hidden state goes with it (spec 6.9).
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    pub(crate) fn write_coded(
        &mut self,
        payloads: &[impl AsRef<[u8]>],
        target: &[impl AsRef<[u8]>],
        crcs: &[(u32, u32)],
        exact: Option<(Dtype, &[u8])>,
    ) -> Result<()> {
        let lanes: Vec<Vec<u8>> = target.iter().map(|lane| lane.as_ref().to_vec()).collect();
        let target = if lanes.is_empty() { Vec::new() } else { vec![TargetPiece::whole(crcs.len(), lanes)] };
        self.write_payloads(crcs.len(), payloads, &target, exact)?;
        crcs.iter().for_each(|(w, y)| self.append(*w, *y));
        self.last = Coded::default();
        self.checkpoint_if_due()
    }

    /// A chunk's payloads, and Y's where they have chunks of their own, which no exact frame's have.
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

    /// Takes coded frames into the digests.
    fn account(&mut self, w: &[i16], y: &[i16]) {
        let (width, channels) = (self.codec.model().hidden_width(), self.codec.model().hyper_prior_width());
        for (w, y) in w.chunks_exact(channels).zip(y.chunks_exact(width)) {
            self.append(frame_crc(w), frame_crc(y));
        }
    }

    fn append(&mut self, w: u32, y: u32) {
        self.digests.append(w, FrameY::Known(y));
        self.since_checkpoint = self.since_checkpoint.saturating_add(1);
    }

    fn checkpoint_if_due(&mut self) -> Result<()> {
        if self.config.checkpoint_interval > 0 && self.since_checkpoint >= self.config.checkpoint_interval {
            self.checkpoint()?;
        }
        Ok(())
    }
}

impl Encoder {
    /// Codes checked integers, chunk by chunk: `y` itself or, where `x` says of what it is the nearest, a choice near it.
    pub(crate) fn code(&mut self, mut y: Vec<i16>, w: Option<&[i16]>, x: Option<&[f32]>) -> Result<()> {
        let (width, channels) = (self.codec.model().hidden_width(), self.codec.model().hyper_prior_width());
        let frames = self.frames_per_chunk();
        let mut all = Coded::default();
        for (part, y) in y.chunks_mut(frames.saturating_mul(width)).enumerate() {
            let given = w.and_then(|w| w.chunks(frames.saturating_mul(channels)).nth(part));
            let w = self.predict(y, given)?;
            let x = x.and_then(|x| x.chunks(frames.saturating_mul(width)).nth(part));
            let cost = self.code_chunk(&w, y, x, None)?;
            all.append(&w, &[], cost);
        }
        self.last = Coded { y, ..all };
        Ok(())
    }

    /// Runs h on Y, unless W is given, and g_y on W; leaves what g_y gave in `output`.
    pub(super) fn predict(&mut self, y: &[i16], given: Option<&[i16]>) -> Result<Vec<i16>> {
        let codec = Arc::clone(&self.codec);
        let mut w = Vec::new();
        if let (Some(network), Some(state)) = (codec.h(), &mut self.h) {
            // Also where W is given: h's context has to go on.
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

    /// What h is to do with Y, `[T, E]`, whose W is to come from it.
    pub(crate) fn analysis_step<'a>(&'a mut self, y: &'a [i16]) -> Option<Step<'a>> {
        let state = self.h.as_mut()?;
        Some(Step { state, quality: self.quality, input: y, output: &mut self.scratch.output })
    }

    /// What g_y is to do with W, `[T, C]`.
    pub(crate) fn synthesis_step<'a>(&'a mut self, w: &'a [i16]) -> Step<'a> {
        Step { state: &mut self.g_y, quality: self.quality, input: w, output: &mut self.scratch.output }
    }
}

/// More bytes than a chunk's body has beside payloads and what stands for each lane.
const CHUNK_FIELDS: u64 = 64;
/// More bytes than a chunk's body has for each lane beside its payload.
const LANE_FIELDS: u64 = 8;

/// Bytes that no payload of one frame, nor a frame's part of a longer one, exceeds (spec 3.6).
fn worst_frame(codec: &Codec) -> u64 {
    let values = codec.model().hidden_width().saturating_add(codec.model().hyper_prior_width());
    max_payload_len(1, values as u64)
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
    usize::try_from(fits.min(most)).unwrap_or(usize::MAX)
}

/// A chunk's frames are bounded by `max_frames_per_chunk`, a u32.
pub(super) fn chunk_frames(frames: usize) -> u32 {
    u32::try_from(frames).unwrap_or(u32::MAX)
}

pub(super) fn check_range(values: &[i16], (low, high): (i16, i16)) -> Result<()> {
    if values.iter().all(|value| (low..=high).contains(value)) {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::ValueOutOfRange, 0)
            .with_detail("a value to encode is outside the model's declared range"))
    }
}

pub(super) fn wrong_shape(detail: &'static str) -> Error {
    Error::new(ErrorKind::WrongShape, 0).with_detail(detail)
}

fn not_available(detail: &'static str) -> Error {
    Error::new(ErrorKind::NotAvailable, 0).with_detail(detail)
}
