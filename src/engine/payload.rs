//! Payloads of a chunk's lanes: which integers each coder codes, and in which order (spec 6.1).

use std::ops::Range;
use std::sync::Mutex;

use super::parameters::{ParameterRule, TargetParameters};
use super::prediction::LaneWalk;
use crate::entropy::{EntropyError, LaneDecoder, LaneEncoder, RunDecoder, RunEncoder, RunMode, max_payload_len};
use crate::exact::Executor;
use crate::model::CodecModel;
use crate::model::prediction::Predictor;
use crate::number::to_usize;
use crate::wire::Payload;
use crate::wire::lanes::lane_frames;

/// The frames of a lane, counted within the chunk ([BATCH-3]).
pub fn lane_span(frames: usize, lanes: usize, lane: usize) -> Range<usize> {
    // Counts of frames and lanes are bounded by 2^20 and 1,024.
    let narrow = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let span = lane_frames(narrow(lane), narrow(frames), narrow(lanes));
    to_usize(span.start)..to_usize(span.end)
}

/// Codes and decodes the payloads of one chunk.
#[derive(Clone, Copy)]
pub struct PayloadCoder<'a> {
    /// The model, which has the tables.
    pub model: &'a CodecModel,
    /// The frames' quality, which selects W's tables.
    pub quality: usize,
    /// Lanes are spread over its threads.
    pub executor: &'a dyn Executor,
}

/// A payload that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneFault {
    /// The lane's number.
    pub lane: usize,
    /// Why.
    pub error: EntropyError,
}

/// The frames of a lane that are in a span of a chunk's frames.
struct LaneTask<'c, 'p, 'v> {
    lane: usize,
    coder: &'c mut LaneDecoder<'p>,
    /// That of the previous frame.
    mode: &'c mut RunMode,
    /// Y of the lane's frames, from the first up to the end of the span.
    part: &'v mut [i16],
    /// The number of values of `part` that were decoded before.
    done: usize,
    /// The remaining ones, as places within the span.
    elements: Range<usize>,
    ends: bool,
    outcome: Result<(), EntropyError>,
}

impl PayloadCoder<'_> {
    fn w_range(&self) -> (i32, i32) {
        let (low, high) = self.model.w_range();
        (i32::from(low), i32::from(high))
    }

    fn y_range(&self) -> (i32, i32) {
        let (low, high) = self.model.y_range();
        (i32::from(low), i32::from(high))
    }

    /// [DEC-1] W of channel c is coded with hyper-prior table quality · C + c.
    fn encode_w(&self, coder: &mut LaneEncoder, w: &[i16]) {
        let channels = self.model.hyper_prior_width();
        let base = self.quality.saturating_mul(channels);
        let mut runs = RunEncoder::new(self.model.hyper_prior());
        let mut before = None;
        for frame in w.chunks_exact(channels) {
            runs.encode_run(coder, base, frame, before);
            before = Some(frame);
        }
    }

    fn encode_y(&self, coder: &mut LaneEncoder, y: &[i16], parameters: &TargetParameters, elements: Range<usize>) {
        let (Some(y), Some(tables), Some(shifts)) =
            (y.get(elements.clone()), parameters.tables.get(elements.clone()), parameters.shifts.get(elements))
        else {
            return;
        };
        let width = self.model.hidden_width();
        let mut runs = RunEncoder::new(self.model.target());
        let mut before = None;
        let frames = y.chunks_exact(width).zip(tables.chunks_exact(width)).zip(shifts.chunks_exact(width));
        for ((frame, tables), shifts) in frames {
            runs.encode_row(coder, tables, shifts, frame, before);
            before = Some(frame);
        }
    }

    /// Encodes a joined chunk: per lane all W, then all Y, in one coder.
    ///
    /// `w` is `[frames, C]`, `y` is `[frames, E]`; one payload per lane.
    pub fn encode_joined(&self, lanes: usize, w: &[i16], y: &[i16], parameters: &TargetParameters) -> Vec<Vec<u8>> {
        self.encode_lanes(lanes, self.frames_of(w), |coder, span| {
            self.encode_w(coder, self.w_of(w, &span));
            self.encode_y(coder, y, parameters, self.y_elements(&span));
        })
    }

    /// Encodes a hyper-prior chunk: only W.
    pub fn encode_hyper_prior(&self, lanes: usize, w: &[i16]) -> Vec<Vec<u8>> {
        self.encode_lanes(lanes, self.frames_of(w), |coder, span| self.encode_w(coder, self.w_of(w, &span)))
    }

    /// Encodes a target chunk: only Y.
    pub fn encode_target(&self, lanes: usize, y: &[i16], parameters: &TargetParameters) -> Vec<Vec<u8>> {
        let frames = y.len().checked_div(self.model.hidden_width()).unwrap_or(0);
        self.encode_lanes(lanes, frames, |coder, span| {
            self.encode_y(coder, y, parameters, self.y_elements(&span));
        })
    }

    /// Encodes Y of only some elements of one frame, the target of a part (spec 2.6): `y` and `parameters` are `[E]`.
    pub fn encode_part(&self, y: &[i16], parameters: &TargetParameters, elements: Range<usize>) -> Vec<u8> {
        let mut coder = LaneEncoder::new();
        if let (Some(y), Some(tables), Some(shifts)) =
            (y.get(elements.clone()), parameters.tables.get(elements.clone()), parameters.shifts.get(elements))
        {
            RunEncoder::new(self.model.target()).encode_row(&mut coder, tables, shifts, y, None);
        }
        coder.finish()
    }

    /// Decodes what [`PayloadCoder::encode_part`] made and checks the seal; `y` has as many values as elements.
    pub fn decode_part(
        &self,
        payloads: &[Payload],
        parameters: &TargetParameters,
        elements: Range<usize>,
        y: &mut [i16],
    ) -> Result<(), LaneFault> {
        let fault = |error| LaneFault { lane: 0, error };
        let mut coders = Self::coders(payloads, 1, elements.len())?;
        let (Some(tables), Some(shifts), Some(coder)) =
            (parameters.tables.get(elements.clone()), parameters.shifts.get(elements), coders.first_mut())
        else {
            return Err(fault(EntropyError::Corrupt));
        };
        let mut runs = RunDecoder::new(self.model.target(), self.y_range());
        runs.decode_row(coder, tables, shifts, None, y).map_err(fault)?;
        coders.into_iter().try_for_each(|coder| coder.finish().map_err(fault))
    }

    fn encode_lanes(
        &self,
        lanes: usize,
        frames: usize,
        encode: impl Fn(&mut LaneEncoder, Range<usize>) + Sync,
    ) -> Vec<Vec<u8>> {
        let payloads: Vec<Mutex<Vec<u8>>> = (0..lanes).map(|_| Mutex::default()).collect();
        self.executor.run(lanes, &|lane| {
            let mut coder = LaneEncoder::new();
            encode(&mut coder, lane_span(frames, lanes, lane));
            if let Some(mut slot) = payloads.get(lane).and_then(|slot| slot.lock().ok()) {
                *slot = coder.finish();
            }
        });
        payloads.into_iter().map(|slot| slot.into_inner().unwrap_or_default()).collect()
    }

    /// Coders at the start of every lane's payload, with `values` values of each of a chunk's frames.
    ///
    /// [MODE-4] A payload longer than T · (2 · `values` + 8) bytes MUST be refused before it is decoded (error 604).
    pub fn coders<'p>(
        payloads: &'p [Payload],
        frames: usize,
        values: usize,
    ) -> Result<Vec<LaneDecoder<'p>>, LaneFault> {
        Self::check_lengths(payloads, frames, values)?;
        Ok(payloads.iter().map(|payload| LaneDecoder::new(&payload.bytes)).collect())
    }

    /// The check of [`PayloadCoder::coders`] alone.
    ///
    /// # Errors
    /// [`EntropyError::TooLong`] for the first lane whose payload is too long.
    pub fn check_lengths(payloads: &[Payload], frames: usize, values: usize) -> Result<(), LaneFault> {
        payloads.iter().enumerate().try_for_each(|(lane, payload)| {
            let most = max_payload_len(lane_span(frames, payloads.len(), lane).len() as u64, values as u64);
            let fits = payload.bytes.len() as u64 <= most;
            if fits { Ok(()) } else { Err(LaneFault { lane, error: EntropyError::TooLong }) }
        })
    }

    /// Decodes W of every lane. Returns the coders, which for joined chunks continue with Y.
    ///
    /// `w` is `[frames, C]`.
    pub fn decode_w<'p>(&self, coders: Vec<LaneDecoder<'p>>, w: &mut [i16]) -> Result<Vec<LaneDecoder<'p>>, LaneFault> {
        let channels = self.model.hyper_prior_width();
        let base = self.quality.saturating_mul(channels);
        self.decode_lanes(coders, w, channels, |coder, part| {
            let mut runs = RunDecoder::new(self.model.hyper_prior(), self.w_range());
            let mut before: Option<&[i16]> = None;
            for frame in part.chunks_exact_mut(channels) {
                runs.decode_run(coder, base, before, frame)?;
                before = Some(frame);
            }
            Ok(())
        })
    }

    /// Decodes Y of the frames `span` of a chunk of `frames` frames, with the coders of all lanes just before these
    /// frames; checks the seals of lanes that end there ([DEC-3]). With the coders come the modes of the previous
    /// frames, one per lane.
    ///
    /// `y` is the chunk's, `[frames, E]`, decoded up to `span`; `parameters` are those of `span`. The first lane's
    /// fault counts ([ERR-6]).
    pub fn decode_y(
        &self,
        (coders, modes): (&mut [LaneDecoder<'_>], &mut [RunMode]),
        frames: usize,
        span: Range<usize>,
        parameters: &TargetParameters,
        y: &mut [i16],
    ) -> Result<(), LaneFault> {
        self.decode_span((coders, modes), frames, span, y, |task| self.decode_frames(task, parameters))
    }

    /// [`PayloadCoder::decode_y`] for a model that predicts, with g_y's output for the frames `span`, \[T, 2E\], and the
    /// frames before the chunk, in the common unit ([`DecodeJob::past`](super::DecodeJob::past)). The frames of a lane are
    /// decoded one after the other (spec 6.13).
    pub fn decode_predicted_y(
        &self,
        (coders, modes): (&mut [LaneDecoder<'_>], &mut [RunMode]),
        frames: usize,
        span: Range<usize>,
        (rule, predictor): (&ParameterRule, &Predictor<'_>),
        (output, past): (&[i32], &[i16]),
        y: &mut [i16],
    ) -> Result<(), LaneFault> {
        let width = self.model.hidden_width();
        self.decode_span((coders, modes), frames, span, y, |task| {
            // Two outputs for each element.
            let rows = task.elements.start.saturating_mul(2)..task.elements.end.saturating_mul(2);
            let rows = output.get(rows).ok_or(EntropyError::Corrupt)?;
            let (before, y) = task.part.split_at_mut_checked(task.done).ok_or(EntropyError::Corrupt)?;
            let mut walk = LaneWalk::new(rule, predictor, if task.lane == 0 { past } else { &[] });
            let known = before.chunks_exact(width);
            let skipped = known.len().saturating_sub(predictor.frames());
            known.skip(skipped).for_each(|frame| walk.push(frame));
            let mut runs = RunDecoder::resume(self.model.target(), self.y_range(), *task.mode);
            let mut before = before.rchunks_exact(width).next();
            for (frame, row) in y.chunks_exact_mut(width).zip(rows.chunks_exact(width.saturating_mul(2))) {
                let TargetParameters { tables, shifts } = walk.next(row);
                *task.mode = runs.decode_row(task.coder, tables, shifts, before, frame)?;
                walk.push(frame);
                before = Some(frame);
            }
            Ok(())
        })
    }

    /// Decodes Y of the frames `span` with `decode` for each lane's share of it, and checks the seals of lanes that end
    /// there.
    fn decode_span(
        &self,
        (coders, modes): (&mut [LaneDecoder<'_>], &mut [RunMode]),
        frames: usize,
        span: Range<usize>,
        y: &mut [i16],
        decode: impl Fn(&mut LaneTask<'_, '_, '_>) -> Result<(), EntropyError> + Sync,
    ) -> Result<(), LaneFault> {
        let (width, lanes) = (self.model.hidden_width(), coders.len());
        let mut rest = y;
        let mut tasks = Vec::new();
        for (lane, (coder, mode)) in coders.iter_mut().zip(modes).enumerate() {
            let own = lane_span(frames, lanes, lane);
            let split = own.len().saturating_mul(width);
            let (part, after) = std::mem::take(&mut rest).split_at_mut_checked(split).unwrap_or((&mut [], &mut []));
            rest = after;
            let (from, to) = (own.start.max(span.start), own.end.min(span.end));
            if from >= to {
                continue;
            }
            let values = |from: usize, to: usize| to.saturating_sub(from).saturating_mul(width);
            tasks.push(Mutex::new(LaneTask {
                lane,
                coder,
                mode,
                part: part.get_mut(..values(own.start, to)).unwrap_or(&mut []),
                done: values(own.start, from),
                elements: values(span.start, from)..values(span.start, to),
                ends: to == own.end,
                outcome: Ok(()),
            }));
        }
        self.executor.run(tasks.len(), &|task| {
            let Some(mut task) = tasks.get(task).and_then(|task| task.lock().ok()) else { return };
            task.outcome = decode(&mut task);
            if task.ends && task.outcome.is_ok() {
                task.outcome = task.coder.clone().finish();
            }
        });
        tasks.into_iter().try_for_each(|task| {
            let task = task.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            task.outcome.map_err(|error| LaneFault { lane: task.lane, error })
        })
    }

    /// Decodes Y of a lane's share of a span whose parameters are known.
    fn decode_frames(
        &self,
        task: &mut LaneTask<'_, '_, '_>,
        parameters: &TargetParameters,
    ) -> Result<(), EntropyError> {
        let LaneTask { coder, mode, part: y, done, elements, .. } = task;
        let (width, elements, done) = (self.model.hidden_width(), elements.clone(), *done);
        let (Some(tables), Some(shifts), Some((before, y))) =
            (parameters.tables.get(elements.clone()), parameters.shifts.get(elements), y.split_at_mut_checked(done))
        else {
            return Err(EntropyError::Corrupt);
        };
        let mut runs = RunDecoder::resume(self.model.target(), self.y_range(), **mode);
        let mut before = before.rchunks_exact(width).next();
        let tables = tables.chunks_exact(width).zip(shifts.chunks_exact(width));
        for (frame, (tables, shifts)) in y.chunks_exact_mut(width).zip(tables) {
            **mode = runs.decode_row(coder, tables, shifts, before, frame)?;
            before = Some(frame);
        }
        Ok(())
    }

    /// Checks the seals of coders after their last symbol, for hyper-prior chunks.
    pub fn finish(coders: Vec<LaneDecoder<'_>>) -> Result<(), LaneFault> {
        coders
            .into_iter()
            .enumerate()
            .try_for_each(|(lane, coder)| coder.finish().map_err(|error| LaneFault { lane, error }))
    }

    /// Runs `decode` for every lane on its part of `values`, `[frames, width]`; the first lane's fault counts
    /// ([ERR-6]).
    fn decode_lanes<'p>(
        &self,
        coders: Vec<LaneDecoder<'p>>,
        values: &mut [i16],
        width: usize,
        decode: impl Fn(&mut LaneDecoder<'p>, &mut [i16]) -> Result<(), EntropyError> + Sync,
    ) -> Result<Vec<LaneDecoder<'p>>, LaneFault> {
        struct Task<'p, 'v> {
            coder: LaneDecoder<'p>,
            part: &'v mut [i16],
            outcome: Result<(), EntropyError>,
        }
        let lanes = coders.len();
        let frames = values.len().checked_div(width).unwrap_or(0);
        let mut rest = values;
        let mut tasks = Vec::with_capacity(lanes);
        for (lane, coder) in coders.into_iter().enumerate() {
            let values = lane_span(frames, lanes, lane).len().saturating_mul(width);
            let (part, after) = std::mem::take(&mut rest).split_at_mut_checked(values).unwrap_or((&mut [], &mut []));
            rest = after;
            tasks.push(Mutex::new(Task { coder, part, outcome: Ok(()) }));
        }
        self.executor.run(lanes, &|lane| {
            if let Some(mut task) = tasks.get(lane).and_then(|task| task.lock().ok()) {
                let Task { coder, part, outcome } = &mut *task;
                *outcome = decode(coder, part);
            }
        });
        tasks
            .into_iter()
            .enumerate()
            .map(|(lane, task)| {
                let task = task.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
                task.outcome.map(|()| task.coder).map_err(|error| LaneFault { lane, error })
            })
            .collect()
    }

    fn frames_of(&self, w: &[i16]) -> usize {
        w.len().checked_div(self.model.hyper_prior_width()).unwrap_or(0)
    }

    fn w_of<'w>(&self, w: &'w [i16], span: &Range<usize>) -> &'w [i16] {
        let channels = self.model.hyper_prior_width();
        w.get(span.start.saturating_mul(channels)..span.end.saturating_mul(channels)).unwrap_or(&[])
    }

    fn y_elements(&self, span: &Range<usize>) -> Range<usize> {
        let width = self.model.hidden_width();
        span.start.saturating_mul(width)..span.end.saturating_mul(width)
    }
}
