//! Sessions on tensors: Y and the output of g_y are copied to the CPU, which makes the bytes and reads them.

use candle_core::{DType, Tensor};
use midspan::engine::parameters::TargetParameters;
use midspan::engine::prediction::check_past;
use midspan::engine::quantiser::{Clipped, InSteps, Unrounded, nearest};
use midspan::engine::side::check_sums;
use midspan::engine::{
    Codec, CodedChunk, Context, DecodeJob, DecodeResults, DecodeSpec, EncodeJob, Engine, Integers, Memory, NetworkName,
    PrepareJob, Source,
};
use midspan::error::ErrorKind;
use midspan::exact::{Executor, Serial, parallel_map_mut};

use super::{TensorCodec, TensorNetwork, TensorState, TensorStep};
use crate::decode::decode_on_cpu;
use crate::error::{Error, Result};
use crate::shape::{self, tensor_bytes, to_f32_on, upload};

impl Memory for TensorState {
    fn memory_bytes(&self) -> usize {
        TensorState::memory_bytes(self)
    }
}

impl Context for TensorState {
    fn bytes_after(&self, frames: usize) -> usize {
        TensorState::bytes_after(self, frames)
    }

    fn truncate(&mut self, position: u64) -> midspan::error::Result<()> {
        TensorState::truncate(self, position)
    }

    fn reset(&mut self) {
        TensorState::reset(self);
    }
}

impl TensorCodec {
    fn network(&self, name: NetworkName) -> Option<&TensorNetwork> {
        match name {
            NetworkName::Gy => Some(&self.g_y),
            NetworkName::H => self.h.as_ref(),
        }
    }
}

impl Engine for TensorCodec {
    type Context = TensorState;
    type Input = Tensor;
    type Hidden = Tensor;
    type Prepared = Prepared;
    type Partial = ();
    type Scratch = ();
    type CallScratch = ();
    type Error = Error;

    fn codec(&self) -> &Codec {
        &self.codec
    }

    fn context(&self, network: NetworkName, max_rewind: u32) -> Option<TensorState> {
        self.network(network).map(|network| TensorState::new(network, max_rewind))
    }

    fn context_bytes(&self, network: NetworkName, max_rewind: u32) -> usize {
        self.network(network).map_or(0, |network| TensorState::required_bytes(&network.shape(), max_rewind))
    }

    /// A chunk is decoded in one call.
    fn frames_per_call(&self, remaining: usize, _limit: usize) -> usize {
        remaining
    }

    fn frames(&self, hidden: &Tensor) -> midspan::error::Result<usize> {
        shape::frames(&self.codec, hidden)
    }

    fn prepare(&self, jobs: &[PrepareJob<'_, Self>], _executor: &dyn Executor) -> Vec<Result<Prepared>> {
        let model = self.codec.model();
        let prepare = |job: &PrepareJob<'_, Self>| {
            let hidden = to_f32_on(&self.codec, job.hidden, &self.device)?;
            if self.quantises_on_cpu() {
                let in_steps = InSteps::new(model, &hidden.flatten_all()?.to_vec1::<f32>()?, job.quality)?;
                if job.refuses_clipping {
                    Clipped::find(&in_steps.x, model.y_range()).refuse(model.hidden_width())?;
                }
                return Ok(Prepared::OnCpu(in_steps));
            }
            let x = self.to_steps(&hidden, job.quality)?;
            if job.refuses_clipping {
                // This copies them to the CPU once more. Only an encoder that refuses clipped values pays for it.
                let x = x.flatten_all()?.to_vec1::<f32>()?;
                Clipped::find(&x, model.y_range()).refuse(model.hidden_width())?;
            }
            Ok(Prepared::OnDevice(x))
        };
        jobs.iter().map(prepare).collect()
    }

    fn encode(
        &self,
        jobs: &mut [EncodeJob<'_, Self>],
        _scratch: &mut (),
        executor: &dyn Executor,
    ) -> Result<Vec<CodedChunk>> {
        let model = self.codec.model();
        let (width, channels, sums_width) = (model.hidden_width(), model.hyper_prior_width(), model.side_width());
        jobs.iter().try_for_each(|job| check_sums(job.side, job.spec.frames, sums_width))?;
        jobs.iter().try_for_each(|job| check_past(job.past, model))?;
        let sums = jobs.iter().flat_map(|job| job.side.iter().copied()).collect::<Vec<i16>>();
        let inputs = jobs.iter().map(|job| self.input(job)).collect::<Result<Vec<Coding>>>()?;
        let y = Tensor::cat(&inputs.iter().map(|input| &input.y).collect::<Vec<_>>(), 0)?;
        let given = inputs.iter().flat_map(|input| input.w.iter().copied()).collect::<Vec<i16>>();
        // The networks run on copies of the contexts, which share the tensors.
        let mut contexts: Vec<(Option<TensorState>, TensorState)> =
            jobs.iter().map(|job| (job.h.as_deref().cloned(), job.g_y.clone())).collect();
        let qualities: Vec<(usize, usize)> = jobs.iter().map(|job| (job.spec.frames, job.spec.quality)).collect();
        let own_w = match &self.h {
            Some(h) => {
                let mut steps = Vec::with_capacity(jobs.len());
                for ((state, _), (frames, quality)) in contexts.iter_mut().zip(&qualities) {
                    let state = state.as_mut().ok_or_else(no_h)?;
                    steps.push(TensorStep { state, frames: *frames, quality: *quality });
                }
                Some(h.step(&mut steps, &y)?)
            }
            None => None,
        };
        let w = match given.is_empty() {
            true => own_w.ok_or_else(no_h)?,
            false => self.integers("W", &given, channels)?,
        };
        // Of W only a handle is copied; the sums are all that is uploaded.
        let g_y_input = match sums.is_empty() {
            true => w.clone(),
            false => Tensor::cat(&[&w, &self.integers("sums of side indices", &sums, sums_width)?], 1)?,
        };
        let steps = contexts.iter_mut().zip(&qualities);
        let steps =
            steps.map(|((_, state), (frames, quality))| TensorStep { state, frames: *frames, quality: *quality });
        let output = self.g_y.step(&mut steps.collect::<Vec<_>>(), &g_y_input)?;
        let output = self.g_y.read(&output)?;
        let (w, y) = (read(&w)?, read(&y)?);

        let mut row = 0;
        let mut chunks = Vec::with_capacity(jobs.len());
        for ((job, input), (h, g_y)) in jobs.iter_mut().zip(inputs).zip(contexts) {
            let rows = row..row + job.spec.frames;
            row = rows.end;
            let values = |size: usize| rows.start * size..rows.end * size;
            let integers = Integers { w: w[values(channels)].to_vec(), y: y[values(width)].to_vec() };
            chunks.push((job.spec, job.past, input.x, integers, &output[values(2 * width)]));
            if let (Some(state), Some(next)) = (job.h.as_deref_mut(), h) {
                *state = next;
            }
            *job.g_y = g_y;
        }
        let own: &dyn Executor = if chunks.len() == 1 { executor } else { &Serial };
        Ok(parallel_map_mut(executor, &mut chunks, |(spec, past, x, integers, output)| {
            let (integers, mut parameters) = (std::mem::take(integers), TargetParameters::default());
            let x = x.as_ref().map(|x| x.rows(&(0..spec.frames), width));
            spec.code_output(&self.codec, own, output, past, &mut parameters, x, integers)
        }))
    }

    fn decode(
        &self,
        jobs: &mut [DecodeJob<'_, Self>],
        _scratch: &mut (),
        executor: &dyn Executor,
    ) -> Result<DecodeResults<Tensor>> {
        // g_y runs on copies of the contexts, which share the tensors.
        let mut contexts: Vec<TensorState> = jobs.iter().map(|job| job.g_y.clone()).collect();
        let decoded = decode_on_cpu(self, jobs, executor, |jobs, good, input| {
            let steps = contexts.iter_mut().zip(jobs).zip(good).filter(|(_, good)| **good);
            let steps = steps.map(|((state, job), _)| {
                let DecodeSpec { frames, quality, .. } = job.spec;
                TensorStep { state, frames, quality }
            });
            self.g_y.read(&self.g_y.step(&mut steps.collect::<Vec<_>>(), &self.g_y.input(input)?)?)
        })?;
        jobs.iter_mut().zip(contexts).for_each(|(job, context)| *job.g_y = context);
        Ok(decoded)
    }

    fn download(hidden: &Tensor) -> Result<Vec<f32>> {
        Ok(hidden.flatten_all()?.to_vec1()?)
    }

    fn upload(&self, values: &mut Vec<f32>) -> Result<Tensor> {
        upload(&self.codec, values, &self.device)
    }

    fn hidden_bytes(hidden: &Tensor) -> usize {
        tensor_bytes(hidden)
    }
}

/// Hidden states that were checked.
#[derive(Debug)]
pub enum Prepared {
    /// In steps, \[T, E\] f32.
    OnDevice(Tensor),
    /// The same of a model with sparse maps.
    OnCpu(InSteps),
}

/// What a job codes.
struct Coding {
    /// The nearest integers, or the caller's, as numbers, \[T, E\].
    y: Tensor,
    /// Hidden states in steps, `[T, E]`, if there are any.
    x: Option<InSteps>,
    /// The caller's W, `[T, C]`; empty if h makes it.
    w: Vec<i16>,
}

impl TensorCodec {
    fn input(&self, job: &EncodeJob<'_, Self>) -> Result<Coding> {
        let numbers = |y: &[i16]| self.integers("Y", y, self.codec.model().hidden_width());
        Ok(match &job.source {
            Source::Hidden(Prepared::OnDevice(x), rows) => {
                let x = x.narrow(0, rows.start, rows.len())?;
                let values = InSteps { x: x.flatten_all()?.to_vec1::<f32>()?, centred: Vec::new() };
                Coding { y: self.nearest(&x)?, x: Some(values), w: Vec::new() }
            }
            Source::Hidden(Prepared::OnCpu(in_steps), rows) => {
                let model = self.codec.model();
                let Unrounded { x, centred } = in_steps.rows(rows, model.hidden_width());
                let y: Vec<i16> = nearest(x, model.y_range()).collect();
                let values = InSteps { x: x.to_vec(), centred: centred.to_vec() };
                Coding { y: numbers(&y)?, x: Some(values), w: Vec::new() }
            }
            Source::Y(y) => Coding { y: numbers(y)?, x: None, w: Vec::new() },
            Source::Integers { w, y } => Coding { y: numbers(y)?, x: None, w: w.to_vec() },
        })
    }
}

fn no_h() -> Error {
    Error::codec(ErrorKind::NotAvailable, "the model has no h; give W too")
}

/// Reads a tensor of numbers that fit 16 bits.
fn read(numbers: &Tensor) -> Result<Vec<i16>> {
    let values = numbers.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    Ok(values.into_iter().map(|value| value as i16).collect())
}
