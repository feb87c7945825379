//! Encodes chunks on the CPU: quantiser, networks, choice of Y, payloads (spec 6.1, 6.8).

use super::{Scratch, run};
use crate::engine::prediction::check_past;
use crate::engine::side::{check_sums, network_input};
use crate::engine::{Codec, CodedChunk, EncodeJob, Integers, Source, quantiser};
use crate::error::{Error, ErrorKind, Result};
use crate::exact::{Buffers, Executor, Serial, Step, parallel_map_mut};

/// A job, and its integers as far as they are known.
struct Coding<'j, 'a> {
    job: &'j mut EncodeJob<'a, Codec>,
    integers: Integers,
    /// g_y's input, unless that is W.
    input: Option<Vec<i16>>,
}

impl Codec {
    pub(super) fn encode_chunks(
        &self,
        jobs: &mut [EncodeJob<'_, Codec>],
        buffers: &mut Buffers,
        executor: &dyn Executor,
    ) -> Result<Vec<CodedChunk>> {
        // The executor's threads share the jobs, or the lanes and frames of a single one.
        let own: &dyn Executor = if jobs.len() == 1 { executor } else { &Serial };
        let mut codings: Vec<Coding<'_, '_>> =
            jobs.iter_mut().map(|job| Coding { job, integers: Integers::default(), input: None }).collect();
        let nearest = parallel_map_mut(executor, &mut codings, |coding| coding.nearest(self));
        nearest.into_iter().collect::<Result<()>>()?;
        // Checked before h runs: no context advances if one of them does not fit.
        codings
            .iter()
            .try_for_each(|Coding { job, .. }| check_sums(job.side, job.spec.frames, self.model().side_width()))?;
        codings.iter().try_for_each(|Coding { job, .. }| check_past(job.past, self.model()))?;
        codings.iter().try_for_each(|Coding { job, .. }| self.g_y().check(job.g_y, &[], job.spec.quality))?;
        if let Some(h) = self.h() {
            let mut steps: Vec<Step<'_>> = codings.iter_mut().filter_map(Coding::step_of_h).collect();
            run(h, buffers, &mut steps, executor)?;
        }
        codings.iter_mut().for_each(|coding| coding.take_w(self.model().hyper_prior_width()));
        let mut steps: Vec<Step<'_>> = codings.iter_mut().map(Coding::step_of_g_y).collect();
        run(self.g_y(), buffers, &mut steps, executor)?;
        Ok(parallel_map_mut(executor, &mut codings, |coding| coding.code(self, own)))
    }
}

impl Coding<'_, '_> {
    /// Sets Y: the nearest integers to hidden states, or the caller's.
    fn nearest(&mut self, codec: &Codec) -> Result<()> {
        let has_w = matches!(self.job.source, Source::Integers { .. });
        if !has_w && self.job.h.is_none() {
            let missing = Error::of_call(ErrorKind::NotAvailable);
            return Err(missing.with_detail("the model has no h; give W too"));
        }
        let model = codec.model();
        self.integers.y = match &self.job.source {
            Source::Hidden(x, rows) => {
                quantiser::nearest(x.rows(rows, model.hidden_width()).x, model.y_range()).collect()
            }
            Source::Y(y) | Source::Integers { y, .. } => y.to_vec(),
        };
        Ok(())
    }

    /// The step of h on Y, which gives W.
    fn step_of_h(&mut self) -> Option<Step<'_>> {
        let EncodeJob { spec, h, scratch, .. } = &mut *self.job;
        let state = h.as_deref_mut()?;
        Some(Step { state, quality: spec.quality, input: &self.integers.y, output: &mut scratch.output })
    }

    /// Sets W, C = `channels` values a frame: h's output, or the caller's. Sets g_y's input too.
    fn take_w(&mut self, channels: usize) {
        self.integers.w = match self.job.source {
            Source::Integers { w, .. } => w.to_vec(),
            // h clamps W to its declared range, which fits an i16.
            _ => self.job.scratch.output.iter().map(|value| i16::try_from(*value).unwrap_or(0)).collect(),
        };
        if !self.job.side.is_empty() {
            self.input = Some(network_input(&self.integers.w, channels, self.job.side).into_owned());
        }
    }

    /// The step of g_y on W and the sums of side indices.
    fn step_of_g_y(&mut self) -> Step<'_> {
        let EncodeJob { spec, g_y, scratch, .. } = &mut *self.job;
        let input = self.input.as_ref().unwrap_or(&self.integers.w);
        Step { state: g_y, quality: spec.quality, input, output: &mut scratch.output }
    }

    /// Codes the chunk, once g_y has run.
    fn code(&mut self, codec: &Codec, executor: &dyn Executor) -> CodedChunk {
        let integers = std::mem::take(&mut self.integers);
        let EncodeJob { spec, source, past, scratch, .. } = &mut *self.job;
        let x = match source {
            Source::Hidden(x, rows) => Some(x.rows(rows, codec.model().hidden_width())),
            _ => None,
        };
        let Scratch { output, parameters } = &mut **scratch;
        let coded = spec.code_output(codec, executor, output, past, parameters, x, integers);
        scratch.release();
        coded
    }
}
