//! Decodes chunks on the CPU, a slice at a time.

use std::borrow::Cow;

use super::{Scratch, run};
use crate::engine::payload::LaneFault;
use crate::engine::prediction::check_past;
use crate::engine::side::check_sums;
use crate::engine::{Codec, DecodeJob, DecodeResults, Decoded, PartialChunk};
use crate::error::Result;
use crate::exact::{Buffers, Executor, Serial, Step, parallel_map_mut};

/// A job, and the first fault of its payloads.
struct Decoding<'j, 'a> {
    job: &'j mut DecodeJob<'a, Codec>,
    fault: Option<LaneFault>,
    /// g_y's input, unless that is W.
    input: Vec<i16>,
}

impl Codec {
    pub(super) fn decode_slices(
        &self,
        jobs: &mut [DecodeJob<'_, Codec>],
        buffers: &mut Buffers,
        executor: &dyn Executor,
    ) -> Result<DecodeResults<Vec<f32>>> {
        // The executor's threads share the jobs, or the lanes and frames of a single one.
        let own: &dyn Executor = if jobs.len() == 1 { executor } else { &Serial };
        jobs.iter().try_for_each(|job| check_sums(job.side, job.spec.frames, self.model().side_width()))?;
        jobs.iter().try_for_each(|job| check_past(job.past, self.model()))?;
        let mut decodings: Vec<Decoding<'_, '_>> =
            jobs.iter_mut().map(|job| Decoding { job, fault: None, input: Vec::new() }).collect();
        parallel_map_mut(executor, &mut decodings, |decoding| decoding.start(self, own));
        let mut steps: Vec<Step<'_>> = decodings.iter_mut().filter_map(Decoding::step_of_g_y).collect();
        run(self.g_y(), buffers, &mut steps, executor)?;
        Ok(parallel_map_mut(executor, &mut decodings, |decoding| decoding.decode(self, own)))
    }
}

impl Decoding<'_, '_> {
    /// The first step of a chunk: decodes W of all its frames.
    fn start(&mut self, codec: &Codec, executor: &dyn Executor) {
        if self.job.partial.is_none() {
            match PartialChunk::new(codec, self.job.spec, self.job.lanes, self.job.past, executor) {
                Ok(partial) => *self.job.partial = Some(partial),
                Err(fault) => self.fault = Some(fault),
            }
        }
    }

    /// The second step: that of g_y on W of the slice and the sums of side indices.
    fn step_of_g_y(&mut self) -> Option<Step<'_>> {
        let DecodeJob { spec, slice, side, partial, g_y, scratch, .. } = &mut *self.job;
        let input = match partial.as_ref()?.next_input(*slice, side) {
            Cow::Borrowed(w) => w,
            Cow::Owned(input) => {
                self.input = input;
                &self.input
            }
        };
        Some(Step { state: g_y, quality: spec.quality, input, output: &mut scratch.output })
    }

    /// The third step, once g_y has run on the slice.
    fn decode(&mut self, codec: &Codec, executor: &dyn Executor) -> Result<Decoded<Vec<f32>>, LaneFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let DecodeJob { lanes, partial, scratch, .. } = &mut *self.job;
        let Scratch { output, parameters } = &mut **scratch;
        let decoded = match partial.take() {
            Some(chunk) => chunk.advance(codec, lanes, output, parameters, executor),
            None => Ok((Decoded::Part { done: 0 }, None)),
        };
        let decoded = decoded.map(|(decoded, rest)| {
            **partial = rest;
            decoded
        });
        if partial.is_none() {
            scratch.release();
        }
        decoded
    }
}
