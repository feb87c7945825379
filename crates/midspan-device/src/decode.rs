//! Decodes chunks whose payloads are decoded on the CPU, while g_y runs on a device.

use candle_core::Tensor;
use midspan::engine::parameters::TargetParameters;
use midspan::engine::prediction::check_past;
use midspan::engine::side::check_sums;
use midspan::engine::{DecodeJob, DecodeResults, Decoded, Engine, PartialChunk};
use midspan::exact::{Executor, Serial, parallel_map_mut};

use crate::error::{Error, Result};

/// Decodes whole chunks, one for each job.
///
/// `run_g_y` runs g_y for the jobs for which its second argument is true, those whose W was not refused. Its third
/// argument is their W with the sums of their side indices, `[ΣT, C + D]`, and it returns \[ΣT, 2E\].
///
/// # Errors
/// [`ErrorKind::WrongShape`](midspan::error::ErrorKind::WrongShape) for sums that are not `[T, D]`. Those of `run_g_y`,
/// and of the upload of hidden states, after which g_y's contexts may have advanced.
pub(crate) fn decode_on_cpu<'a, E>(
    engine: &E,
    jobs: &mut [DecodeJob<'a, E>],
    executor: &dyn Executor,
    run_g_y: impl FnOnce(&mut [DecodeJob<'a, E>], &[bool], &[i16]) -> Result<Vec<i32>>,
) -> Result<DecodeResults<Tensor>>
where
    E: Engine<Hidden = Tensor, Error = Error>,
{
    let codec = engine.codec();
    jobs.iter().try_for_each(|job| check_sums(job.side, job.spec.frames, codec.model().side_width()))?;
    jobs.iter().try_for_each(|job| check_past(job.past, codec.model()))?;
    // The executor's threads share the jobs, or the lanes and frames of a single one.
    let own: &dyn Executor = if jobs.len() == 1 { executor } else { &Serial };
    let chunks = parallel_map_mut(executor, jobs, |job| PartialChunk::new(codec, job.spec, job.lanes, job.past, own));
    let good: Vec<bool> = chunks.iter().map(Result::is_ok).collect();
    let mut input = Vec::new();
    for (chunk, job) in chunks.iter().zip(&*jobs) {
        if let Ok(chunk) = chunk {
            input.extend_from_slice(&chunk.next_input(usize::MAX, job.side));
        }
    }
    let output = if good.contains(&true) { run_g_y(jobs, &good, &input)? } else { Vec::new() };
    let mut rest = output.as_slice();
    let mut work = Vec::with_capacity(jobs.len());
    for (chunk, job) in chunks.into_iter().zip(&*jobs) {
        let count = if chunk.is_ok() { job.spec.frames * codec.g_y().outputs() } else { 0 };
        let (output, after) = rest.split_at(count);
        rest = after;
        work.push((Some(chunk), job.lanes, output));
    }
    let decoded = parallel_map_mut(executor, &mut work, |(chunk, lanes, output)| match chunk.take() {
        Some(Ok(chunk)) => {
            let mut parameters = TargetParameters::default();
            chunk.advance(codec, lanes, output, &mut parameters, own).map(|(decoded, _)| decoded)
        }
        Some(Err(fault)) => Err(fault),
        // Each chunk comes once.
        None => Ok(Decoded::Part { done: 0 }),
    });
    let uploaded = decoded.into_iter().map(|outcome| match outcome {
        Ok(decoded) => Ok(Ok(decoded.try_map(|mut values| engine.upload(&mut values))?)),
        Err(fault) => Ok(Err(fault)),
    });
    uploaded.collect()
}
