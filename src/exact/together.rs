//! Many contexts at once: weights are read once for the next frames of all of them.

use std::sync::{Mutex, PoisonError};

use super::{Context, Executor, Network, PART, PART_MIN, Part, State, lock, parts_bytes};
use crate::error::Result;

/// The next frames of one context, for [`Network::step`].
#[derive(Debug)]
pub struct Step<'a> {
    /// The context.
    pub state: &'a mut State,
    /// The frames' quality.
    pub quality: usize,
    /// \[T, d_0\].
    pub input: &'a [i16],
    /// Becomes \[T, outputs\].
    pub output: &'a mut Vec<i32>,
}

/// Buffers of fewer bytes than this are always kept.
const KEPT: usize = 1 << 20;

/// Buffers of [`Network::step`], for any network. They grow to what a call needs; when a call has less than half as
/// many frames, and they take more than 1 MiB, they are freed.
#[derive(Default)]
pub struct Buffers {
    parts: Vec<Mutex<Part>>,
    /// The most frames of any call since they were last freed.
    frames: usize,
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffers").field("memory_bytes", &self.memory_bytes()).finish()
    }
}

impl Buffers {
    /// Bytes that the buffers hold now.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        parts_bytes(&self.parts)
    }

    /// Frees buffers that are too large for a call of this many frames, and makes room for `parts` parts.
    fn prepare(&mut self, frames: usize, parts: usize) {
        if frames.saturating_mul(2) < self.frames && self.memory_bytes() > KEPT {
            *self = Buffers::default();
        }
        self.frames = self.frames.max(frames);
        self.parts.resize_with(parts.max(self.parts.len()), Mutex::default);
    }
}

impl Network {
    /// Runs the next frames of many contexts, each as [`Network::run`] would: the integers are the same.
    ///
    /// Contexts with at most eight frames share their passes, in the order of their qualities; longer batches run
    /// alone.
    ///
    /// # Errors
    /// As [`Network::run`] for the first step that is wrong; all states and outputs are then unchanged.
    pub fn step(&self, buffers: &mut Buffers, steps: &mut [Step<'_>], executor: &dyn Executor) -> Result<()> {
        for step in steps.iter() {
            self.check(step.state, step.input, step.quality)?;
        }
        let mut together: Vec<&mut Step<'_>> = Vec::with_capacity(steps.len());
        for step in steps {
            if step.input.len() > PART_MIN * self.inputs {
                self.run(step.state, step.input, step.quality, step.output, executor)?;
            } else {
                together.push(step);
            }
        }
        together.sort_by_key(|step| step.quality);
        let frames: usize = together.iter().map(|step| step.input.len() / self.inputs).sum();
        let share = frames.div_ceil(executor.parts().max(1)).clamp(PART_MIN, PART);
        let tasks = tasks(&mut together, self.inputs, share);
        buffers.prepare(frames, tasks.len());
        let buffers = &buffers.parts;
        executor.run(tasks.len(), &|task| {
            let mut steps = tasks[task].lock().unwrap_or_else(PoisonError::into_inner);
            self.step_part(&mut lock(&buffers[task]), &mut steps);
        });
        Ok(())
    }

    /// Runs the frames of contexts of one quality on the caller's thread.
    fn step_part(&self, part: &mut Part, steps: &mut [&mut Step<'_>]) {
        let quality = steps.first().map_or(0, |step| step.quality);
        let count = |step: &Step<'_>| step.input.len() / self.inputs;
        if steps.iter().all(|step| count(step) == 0) {
            // The arms take one frame or more.
            steps.iter_mut().for_each(|step| step.output.clear());
            return;
        }
        steps.iter_mut().for_each(|step| step.state.make_room(count(step)));
        let mut input = std::mem::take(&mut part.input);
        input.clear();
        steps.iter().for_each(|step| input.extend_from_slice(step.input));
        self.steps.begin(part, &input, quality);
        part.input = input;
        self.go_on(part, 0, quality);
        for b in 0..self.shape.heads.len() {
            let mut row = 0;
            for step in steps.iter_mut() {
                let (first, frames) = (step.state.position(), count(step));
                step.state.rings[b].append(first, frames, &part.qkv[row * part.stride..], part.stride);
                row += frames;
            }
            let contexts: Vec<Context<'_>> = steps
                .iter()
                .map(|step| Context { ring: &step.state.rings[b], first: step.state.position(), frames: count(step) })
                .collect();
            self.steps.finish(part, b, &contexts);
            self.go_on(part, b + 1, quality);
        }
        let mut rows = part.out.chunks_exact(part.out_stride.max(1));
        for step in steps {
            let frames = count(step);
            step.output.clear();
            rows.by_ref().take(frames).for_each(|row| step.output.extend_from_slice(&row[..self.outputs]));
            step.state.advance(frames);
        }
    }
}

/// Some steps of one quality: a task for one thread.
type Task<'s, 't, 'a> = Mutex<&'s mut [&'t mut Step<'a>]>;

/// Cuts steps, in the order of their qualities, into tasks of `share` frames at most.
fn tasks<'s, 't, 'a>(steps: &'s mut [&'t mut Step<'a>], inputs: usize, share: usize) -> Vec<Task<'s, 't, 'a>> {
    let mut tasks = Vec::new();
    for mut rest in steps.chunk_by_mut(|a, b| a.quality == b.quality) {
        while !rest.is_empty() {
            let mut frames = 0;
            let fits = |step: &&&mut Step<'_>| {
                frames += step.input.len() / inputs;
                frames <= share
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at_mut(count);
            tasks.push(Mutex::new(now));
            rest = later;
        }
    }
    tasks
}
