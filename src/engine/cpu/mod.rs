//! The engine that runs on this CPU's SIMD arms: [`Codec`].

mod decode;
mod encode;

use super::parameters::TargetParameters;
use super::quantiser::{Clipped, InSteps};
use super::{
    Codec, CodedChunk, DecodeJob, DecodeResults, EncodeJob, Engine, KEPT_BYTES, Memory, NetworkName, PartialChunk,
    PrepareJob,
};
use crate::error::{Detail, Error, ErrorKind, Result};
use crate::exact::{Buffers, Executor, Network, State, Step, parallel_map};
use crate::number::to_u64;

/// Buffers that a session's chunks use in turn.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The last output of a network.
    output: Vec<i32>,
    /// The parameters derived from it.
    parameters: TargetParameters,
}

impl Memory for Scratch {
    fn memory_bytes(&self) -> usize {
        self.output.capacity().saturating_mul(4).saturating_add(self.parameters.memory_bytes())
    }
}

impl Scratch {
    /// Frees what a large chunk took.
    fn release(&mut self) {
        if self.memory_bytes() > KEPT_BYTES {
            *self = Self::default();
        }
    }
}

impl Memory for Buffers {
    fn memory_bytes(&self) -> usize {
        Buffers::memory_bytes(self)
    }
}

impl Codec {
    fn network(&self, name: NetworkName) -> Option<&Network> {
        match name {
            NetworkName::Gy => Some(self.g_y()),
            NetworkName::H => self.h(),
        }
    }
}

/// Runs a network for one context or for many.
fn run(network: &Network, buffers: &mut Buffers, steps: &mut [Step<'_>], executor: &dyn Executor) -> Result<()> {
    match steps {
        [Step { state, quality, input, output }] => network.run(state, input, *quality, output, executor),
        steps => network.step(buffers, steps, executor),
    }
}

impl Engine for Codec {
    type Context = State;
    type Input = [f32];
    type Hidden = Vec<f32>;
    type Prepared = InSteps;
    type Partial = PartialChunk;
    type Scratch = Scratch;
    type CallScratch = Buffers;
    type Error = Error;

    fn codec(&self) -> &Codec {
        self
    }

    fn context(&self, network: NetworkName, max_rewind: u32) -> Option<State> {
        self.network(network).map(|network| State::new(network, max_rewind))
    }

    fn context_bytes(&self, network: NetworkName, max_rewind: u32) -> usize {
        self.network(network).map_or(0, |network| State::required_bytes(network, max_rewind))
    }

    fn frames(&self, hidden: &[f32]) -> Result<usize> {
        whole_frames("hidden", self.model().hidden_width(), hidden.len())
    }

    fn prepare(&self, jobs: &[PrepareJob<'_, Self>], executor: &dyn Executor) -> Vec<Result<InSteps>> {
        parallel_map(executor, jobs, |job| {
            let x = self.to_steps(job.hidden, job.quality)?;
            if job.refuses_clipping {
                Clipped::find(&x.x, self.model().y_range()).refuse(self.model().hidden_width())?;
            }
            Ok(x)
        })
    }

    fn encode(
        &self,
        jobs: &mut [EncodeJob<'_, Self>],
        buffers: &mut Buffers,
        executor: &dyn Executor,
    ) -> Result<Vec<CodedChunk>> {
        self.encode_chunks(jobs, buffers, executor)
    }

    fn decode(
        &self,
        jobs: &mut [DecodeJob<'_, Self>],
        buffers: &mut Buffers,
        executor: &dyn Executor,
    ) -> Result<DecodeResults<Vec<f32>>> {
        self.decode_slices(jobs, buffers, executor)
    }

    fn download(hidden: &Vec<f32>) -> Result<Vec<f32>> {
        Ok(hidden.clone())
    }

    fn upload(&self, values: &mut Vec<f32>) -> Result<Vec<f32>> {
        Ok(std::mem::take(values))
    }

    fn hidden_bytes(hidden: &Vec<f32>) -> usize {
        hidden.capacity().saturating_mul(4)
    }
}

impl Codec {
    /// Hidden states, `[T, E]`, in steps of a quality.
    ///
    /// # Errors
    /// As [`Encoder::push_hidden`](crate::codec::Encoder::push_hidden) for values, clipping aside.
    pub(crate) fn to_steps(&self, hidden: &[f32], quality: usize) -> Result<InSteps> {
        let model = self.model();
        whole_frames("hidden", model.hidden_width(), hidden.len())?;
        InSteps::new(model, hidden, quality)
    }
}

/// How many frames an argument has; they must be whole, and at least one.
pub(crate) fn whole_frames(what: &'static str, width: usize, found: usize) -> Result<usize> {
    match found.checked_div(width) {
        Some(frames) if frames > 0 && found.is_multiple_of(width) => Ok(frames),
        _ => {
            let detail = Detail::Shape { what, width: to_u64(width), found: to_u64(found) };
            Err(Error::of_call(ErrorKind::WrongShape).with(detail))
        }
    }
}
