//! Decodes chunks on the CPU, a slice at a time.

use super::{Work, run};
use crate::engine::payload::LaneFault;
use crate::engine::{Codec, DecodeJob, Decoded, Started};
use crate::error::Result;
use crate::exact::{Buffers, Executor, Serial, Step, map_mut};

/// A job, and the first fault of its payloads.
struct Decoding<'j, 'a> {
    job: &'j mut DecodeJob<'a, Codec>,
    fault: Option<LaneFault>,
}

impl Codec {
    pub(super) fn decode_slices(
        &self,
        jobs: &mut [DecodeJob<'_, Codec>],
        buffers: &mut Buffers,
        executor: &dyn Executor,
    ) -> Result<Vec<Result<Decoded<Vec<f32>>, LaneFault>>> {
        // The executor's threads share the jobs, or the lanes and frames of a single one.
        let own: &dyn Executor = if jobs.len() == 1 { executor } else { &Serial };
        let mut decodings: Vec<Decoding<'_, '_>> = jobs.iter_mut().map(|job| Decoding { job, fault: None }).collect();
        map_mut(executor, &mut decodings, |decoding| decoding.start(self, own));
        let mut steps: Vec<Step<'_>> = decodings.iter_mut().filter_map(Decoding::synthesis).collect();
        run(self.g_y(), buffers, &mut steps, executor)?;
        Ok(map_mut(executor, &mut decodings, |decoding| decoding.decode(self, own)))
    }
}

impl Decoding<'_, '_> {
    /// The first step of a chunk: decodes W of all its frames.
    fn start(&mut self, codec: &Codec, executor: &dyn Executor) {
        if self.job.started.is_none() {
            match Started::new(codec, self.job.spec, self.job.lanes, executor) {
                Ok(started) => *self.job.started = Some(started),
                Err(fault) => self.fault = Some(fault),
            }
        }
    }

    /// The second step: that of g_y on W of the slice.
    fn synthesis(&mut self) -> Option<Step<'_>> {
        let DecodeJob { spec, slice, started, g_y, work, .. } = &mut *self.job;
        let input = started.as_ref()?.next_w(*slice);
        Some(Step { state: g_y, quality: spec.quality, input, output: &mut work.output })
    }

    /// The third step, once g_y has run on the slice.
    fn decode(&mut self, codec: &Codec, executor: &dyn Executor) -> Result<Decoded<Vec<f32>>, LaneFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let DecodeJob { lanes, started, work, .. } = &mut *self.job;
        let Work { output, parameters } = &mut **work;
        let decoded = Started::advance(started, codec, lanes, output, parameters, executor);
        if started.is_none() {
            work.release();
        }
        decoded
    }
}
