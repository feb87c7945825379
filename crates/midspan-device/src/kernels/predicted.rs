//! Chunks of models that predict (spec 6.13), encoded: only the networks run on the machine.
//!
//! The tables of a frame depend on the Y of the frame before it in its lane, so that quantiser, choice and coder follow
//! each other frame by frame. That is the CPU's part, the same as for tensors; to decode such chunks is too.

use midspan::engine::parameters::TargetParameters;
use midspan::engine::prediction::check_past;
use midspan::engine::quantiser::{self, Clipped, InSteps};
use midspan::engine::side::{check_sums, network_input};
use midspan::engine::{CodedChunk, EncodeJob, Integers, Source};
use midspan::error::ErrorKind;
use midspan::exact::{Executor, Serial, parallel_map_mut};

use super::engine::KernelCodec;
use super::network::KernelStep;
use crate::error::{Error, Result};

/// Hidden states in steps, if there are any, and integers as far as they are known.
type Coding = (Option<InSteps>, Integers);

impl KernelCodec {
    pub(super) fn encode_predicted(
        &self,
        jobs: &mut [EncodeJob<'_, Self>],
        executor: &dyn Executor,
    ) -> Result<Vec<CodedChunk>> {
        let model = self.codec().model();
        let (width, channels) = (model.hidden_width(), model.hyper_prior_width());
        jobs.iter().try_for_each(|job| check_sums(job.side, job.spec.frames, model.side_width()))?;
        jobs.iter().try_for_each(|job| check_past(job.past, model))?;
        let mut codings = jobs.iter().map(|job| self.quantised(job)).collect::<Result<Vec<Coding>>>()?;
        // A step of g_y that fails takes back that of h.
        let before: Vec<_> =
            jobs.iter().map(|job| job.h.as_deref().map(|state| state.before(job.spec.frames))).collect();
        if let Some(h) = self.h() {
            let y: Vec<i16> = codings.iter().flat_map(|(_, integers)| integers.y.iter().copied()).collect();
            let mut steps = Vec::with_capacity(jobs.len());
            for job in jobs.iter_mut() {
                let (frames, quality) = (job.spec.frames, job.spec.quality);
                steps.push(KernelStep { state: job.h.as_deref_mut().ok_or_else(no_h)?, frames, quality });
            }
            let w = h.step(&mut steps, &y)?;
            let mut rows = w.chunks_exact(channels);
            for ((_, integers), job) in codings.iter_mut().zip(&*jobs) {
                let own = rows.by_ref().take(job.spec.frames).flatten();
                if integers.w.is_empty() {
                    // h clamps W to its declared range, which fits an i16.
                    integers.w.extend(own.map(|value| *value as i16));
                } else {
                    own.for_each(drop);
                }
            }
        }
        if codings.iter().any(|(_, integers)| integers.w.is_empty()) {
            return Err(no_h());
        }
        let mut input = Vec::new();
        for ((_, integers), job) in codings.iter().zip(&*jobs) {
            input.extend_from_slice(&network_input(&integers.w, channels, job.side));
        }
        let steps = jobs.iter_mut().map(|job| {
            let (frames, quality) = (job.spec.frames, job.spec.quality);
            KernelStep { state: &mut *job.g_y, frames, quality }
        });
        let output = self.g_y().step(&mut steps.collect::<Vec<_>>(), &input);
        if output.is_err() {
            for (job, before) in jobs.iter_mut().zip(before) {
                if let (Some(state), Some(before)) = (job.h.as_deref_mut(), before) {
                    state.restore(before);
                }
            }
        }
        let output = output?;
        let mut row = 0;
        let mut chunks = Vec::with_capacity(jobs.len());
        for (job, (x, integers)) in jobs.iter().zip(codings) {
            let rows = row..row + job.spec.frames;
            row = rows.end;
            chunks.push((job.spec, job.past, x, integers, &output[2 * width * rows.start..2 * width * rows.end]));
        }
        let own: &dyn Executor = if chunks.len() == 1 { executor } else { &Serial };
        Ok(parallel_map_mut(executor, &mut chunks, |(spec, past, x, integers, output)| {
            let (integers, mut parameters) = (std::mem::take(integers), TargetParameters::default());
            let x = x.as_ref().map(|x| x.rows(&(0..spec.frames), width));
            spec.code_output(self.codec(), own, output, past, &mut parameters, x, integers)
        }))
    }

    /// Checks what a job codes and quantises it, before any context moves on.
    fn quantised(&self, job: &EncodeJob<'_, Self>) -> Result<Coding> {
        let model = self.codec().model();
        Ok(match &job.source {
            Source::Hidden(tensor, rows) => {
                let hidden = tensor.narrow(0, rows.start, rows.len())?.flatten_all()?.to_vec1::<f32>()?;
                let in_steps = InSteps::new(model, &hidden, job.spec.quality)?;
                if job.spec.refuses_clipping {
                    Clipped::find(&in_steps.x, model.y_range()).refuse(model.hidden_width())?;
                }
                let y = quantiser::nearest(&in_steps.x, model.y_range()).collect();
                (Some(in_steps), Integers { w: Vec::new(), y })
            }
            Source::Y(y) => (None, Integers { w: Vec::new(), y: y.to_vec() }),
            Source::Integers { w, y } => (None, Integers { w: w.to_vec(), y: y.to_vec() }),
        })
    }
}

fn no_h() -> Error {
    Error::codec(ErrorKind::NotAvailable, "the model has no h; give W too")
}
