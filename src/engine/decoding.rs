//! Decodes a chunk on the CPU, given g_y's output a slice at a time: W of all its frames first, then Y of each slice
//! (spec 6.1, 6.5).

use std::borrow::Cow;

use super::crc::frame_crcs;
use super::parameters::TargetParameters;
use super::payload::{LaneFault, PayloadCoder};
use super::side::network_input;
use super::{Codec, DecodeSpec, Decoded, Integers, Memory, quantiser};
use crate::entropy::{LaneDecoder, RunMode};
use crate::exact::Executor;
use crate::wire::Payload;

/// A chunk whose W is decoded, and for whose first frames g_y has run.
#[derive(Clone, Debug)]
pub struct PartialChunk {
    spec: DecodeSpec,
    /// W, `[T, C]`, and Y, `[T, E]`, of which the first `done` frames are decoded; no Y in a chunk of W alone.
    integers: Integers,
    /// One for each lane, at the next Y, without a reference to the lane's payload.
    coders: Vec<LaneDecoder<'static>>,
    /// The mode of each lane's last Y.
    modes: Vec<RunMode>,
    /// Frames for which g_y has run and whose Y, if the chunk holds any, is decoded.
    done: usize,
    /// `[done, E]`.
    hidden: Vec<f32>,
    /// For a chunk of W alone, g_y's output for each of the first `done` frames.
    outputs: Vec<Vec<i32>>,
    /// The frames before the chunk that prediction reads, `[n, E]` in the common unit.
    past: Vec<i16>,
}

impl Memory for PartialChunk {
    fn memory_bytes(&self) -> usize {
        let coders = self.coders.capacity().saturating_mul(size_of::<LaneDecoder<'_>>());
        let coders = coders.saturating_add(self.modes.capacity());
        let outputs = self.outputs.iter().map(Vec::capacity).fold(0, usize::saturating_add);
        let past = self.past.capacity().saturating_mul(2);
        let words = self.hidden.capacity().saturating_add(outputs).saturating_mul(4);
        let rows = self.outputs.capacity().saturating_mul(size_of::<Vec<i32>>());
        [self.integers.memory_bytes(), coders, words, rows, past].into_iter().fold(0, usize::saturating_add)
    }
}

impl PartialChunk {
    /// Decodes W of all frames of a chunk; `past` is that of the job ([`DecodeJob::past`](super::DecodeJob::past)).
    ///
    /// # Errors
    /// The first payload that is refused ([ERR-6]).
    pub fn new(
        codec: &Codec,
        spec: DecodeSpec,
        lanes: &[Payload],
        past: &[i16],
        executor: &dyn Executor,
    ) -> Result<Self, LaneFault> {
        let (width, channels) = (codec.model().hidden_width(), codec.model().hyper_prior_width());
        let (frames, values) = (spec.frames, if spec.hyper_prior { channels } else { channels.saturating_add(width) });
        let tables = PayloadCoder { model: codec.model(), quality: spec.quality, executor };
        let mut w = vec![0; frames.saturating_mul(channels)];
        let coders = tables.decode_w(PayloadCoder::coders(lanes, frames, values)?, &mut w)?;
        let modes = vec![RunMode::default(); coders.len()];
        let (mut y, mut hidden, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        let coders = if spec.hyper_prior {
            PayloadCoder::finish(coders)?;
            outputs.reserve_exact(frames);
            Vec::new()
        } else {
            y.resize(frames.saturating_mul(width), 0);
            hidden.reserve_exact(frames.saturating_mul(width));
            coders.into_iter().map(|coder| coder.with_payload(&[])).collect()
        };
        Ok(Self { spec, integers: Integers { w, y }, coders, modes, done: 0, hidden, outputs, past: past.to_vec() })
    }

    /// g_y's next input: W of the next `slice` frames, or of those that are left, and the sums of their side indices,
    /// of which `side` holds those of the whole chunk.
    #[must_use]
    pub fn next_input(&self, slice: usize, side: &[i16]) -> Cow<'_, [i16]> {
        fn rows(values: &[i16], frames: usize, done: usize, slice: usize) -> &[i16] {
            let width = values.len().checked_div(frames).unwrap_or(0);
            let from = done.saturating_mul(width).min(values.len());
            let to = from.saturating_add(slice.saturating_mul(width)).min(values.len());
            values.get(from..to).unwrap_or(&[])
        }
        let frames = self.spec.frames;
        let channels = self.integers.w.len().checked_div(frames).unwrap_or(0);
        let w = rows(&self.integers.w, frames, self.done, slice);
        network_input(w, channels, rows(side, frames, self.done, slice))
    }

    /// Takes g_y's output for the next frames, \[T, 2E\], and decodes their Y, if the chunk holds any. Also returns what
    /// is left of the chunk, if anything is. `parameters` are overwritten.
    ///
    /// # Errors
    /// The first payload that is refused ([ERR-6]).
    pub fn advance(
        mut self,
        codec: &Codec,
        lanes: &[Payload],
        output: &[i32],
        parameters: &mut TargetParameters,
        executor: &dyn Executor,
    ) -> Result<(Decoded<Vec<f32>>, Option<Self>), LaneFault> {
        if self.spec.hyper_prior {
            let rows = output.chunks_exact(codec.g_y().outputs()).take(self.spec.frames.saturating_sub(self.done));
            self.outputs.extend(rows.map(<[i32]>::to_vec));
            self.done = self.outputs.len();
        } else {
            self.decode_y(codec, lanes, output, parameters, executor)?;
        }
        if self.done < self.spec.frames {
            return Ok((Decoded::Part { done: self.done }, Some(self)));
        }
        let PartialChunk { spec, integers, hidden, outputs, .. } = self;
        if spec.hyper_prior {
            return Ok((Decoded::HyperPrior { w: integers.w, outputs }, None));
        }
        let (width, channels) = (codec.model().hidden_width(), codec.model().hyper_prior_width());
        let crcs = frame_crcs(&integers.w, channels, &integers.y, width);
        Ok((Decoded::Frames { crcs, integers: spec.keep_integers.then_some(integers), hidden }, None))
    }

    fn decode_y(
        &mut self,
        codec: &Codec,
        lanes: &[Payload],
        output: &[i32],
        parameters: &mut TargetParameters,
        executor: &dyn Executor,
    ) -> Result<(), LaneFault> {
        let model = codec.model();
        let DecodeSpec { frames, quality, .. } = self.spec;
        let PartialChunk { integers: Integers { y, .. }, coders, modes, done, hidden, past, .. } = self;
        let count = output.len().checked_div(codec.g_y().outputs()).unwrap_or(0);
        let span = *done..done.saturating_add(count).min(frames);
        let own = std::mem::take(coders).into_iter().zip(lanes);
        let mut at: Vec<_> = own.map(|(coder, lane)| coder.with_payload(&lane.bytes)).collect();
        let tables = PayloadCoder { model, quality, executor };
        match model.predictor(quality) {
            Some(predictor) => {
                let (rule, given) = ((codec.rule(), &predictor), (output, past.as_slice()));
                tables.decode_predicted_y((&mut at, modes), frames, span.clone(), rule, given, y)?;
            }
            None => {
                codec.rule().derive(output, parameters);
                tables.decode_y((&mut at, modes), frames, span.clone(), parameters, y)?;
            }
        }
        *coders = at.into_iter().map(|coder| coder.with_payload(&[])).collect();
        *done = span.end;
        let elements = span.start.saturating_mul(model.hidden_width())..span.end.saturating_mul(model.hidden_width());
        let (step, offset) = (model.step(quality), model.offset(quality));
        quantiser::reconstruct(y.get(elements).unwrap_or(&[]), step, model.synthesis(), offset, hidden);
        Ok(())
    }
}
