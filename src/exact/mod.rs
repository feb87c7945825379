//! The exact integer network, for both h and g_y (spec chapter 5).
//!
//! A [`Network`] holds the parameters packed for one [`Arm`]; a [`State`] holds what it remembers of one context.
//! [`Network::run`] takes frames in order, one or many at a time, and every arm, every split into batches and every
//! [`Executor`] gives the same integers.
//!
//! ```
//! use midspan::exact::{Arm, Network, Serial, State};
//! use midspan::model::CodecModel;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = "src/example.safetensors";
//! let model = CodecModel::from_bytes(&std::fs::read(path)?, 1 << 20)?;
//! let parameters = model.decoder_network(); // g_y
//! let inputs: Vec<i16> = (0..5 * parameters.inputs() as i16).collect(); // five frames
//!
//! let network = Network::new(parameters, Arm::best());
//! let mut state = State::new(&network, 0);
//! let mut batch = Vec::new();
//! network.run(&mut state, &inputs, 0, &mut batch, &Serial)?;
//!
//! let network = Network::new(parameters, Arm::Plain);
//! let mut state = State::new(&network, 0);
//! let mut frame = Vec::new();
//! for (input, expected) in inputs.chunks(network.inputs()).zip(batch.chunks(network.outputs())) {
//!     network.run(&mut state, input, 0, &mut frame, &Serial)?;
//!     assert_eq!(frame, expected);
//! }
//! # Ok(())
//! # }
//! ```

mod plain;
mod ring;
// The targets with a SIMD arm.
#[cfg_attr(
    not(any(
        target_arch = "x86_64",
        all(target_arch = "aarch64", target_endian = "little"),
        all(target_arch = "wasm32", target_feature = "simd128")
    )),
    path = "no_simd.rs"
)]
mod simd;
mod state;
mod timeline;
mod together;

pub use state::State;
pub use together::{Buffers, Step};

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Detail, Error, ErrorKind, Result};
use crate::model::NetworkParameters;
use crate::number::to_u64;
use ring::{Layout, Ring};
use state::Shape;
pub use timeline::Timeline;

/// Frames that pass through all blocks together, in all parts.
const TILE: usize = 128;
/// The most frames of a part.
const PART: usize = 64;
/// The fewest frames of a part, if there is more than one part.
const PART_MIN: usize = 8;

/// A way to compute the network. All give the same integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Arm {
    /// The reference: spec chapter 5 as plain loops. Runs everywhere.
    Plain,
    /// Vectors of 128 bits: x86-64 (SSE2 or SSE4.1), aarch64 (NEON, with 8-bit dot products where the CPU has them), and wasm32 if
    /// compiled with `-C target-feature=+simd128`.
    Portable,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512Vnni,
}

impl Arm {
    /// Its name, as used in command lines and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Arm::Plain => "plain",
            Arm::Portable => "portable",
            Arm::Avx2 => "avx2",
            Arm::Avx512Vnni => "avx512",
        }
    }

    /// The instructions that the arm uses on this CPU, by which the portable arm differs: "SSE2", "SSE4.1",
    /// "NEON", "NEON and DotProd", "NEON and I8MM" or "SIMD128"; "none" where this CPU has no such arm, and for the plain one.
    #[must_use]
    pub fn instructions(self) -> &'static str {
        match self {
            Arm::Portable => simd::portable_instructions(),
            Arm::Avx2 if Arm::available().contains(&self) => "AVX2",
            Arm::Avx512Vnni if Arm::available().contains(&self) => "AVX-512 VNNI",
            Arm::Plain | Arm::Avx2 | Arm::Avx512Vnni => "none",
        }
    }

    /// The arms that this CPU can run, the fastest last.
    #[must_use]
    pub fn available() -> Vec<Arm> {
        let mut arms = vec![Arm::Plain];
        arms.extend(simd::available());
        arms
    }

    /// The fastest arm that this CPU can run.
    #[must_use]
    pub fn best() -> Arm {
        Arm::available().pop().unwrap_or(Arm::Plain)
    }
}

/// Runs the parts of a task, in any order and on any threads. This layer starts no thread itself.
pub trait Executor: Sync {
    /// Calls `task` once with each of 0 … `parts` − 1 and returns when all calls have returned.
    fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync));

    /// The number of parts that run at the same time.
    fn parts(&self) -> usize;
}

/// Runs one part after the other on the caller's thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Executor for Serial {
    fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..parts).for_each(task);
    }

    fn parts(&self) -> usize {
        1
    }
}

/// An item, and its result once there is one.
type Slot<'a, T, R> = (&'a mut T, Option<R>);

/// The results of `work` on each item, in their order, spread over the executor's threads.
pub fn parallel_map_mut<T: Send, R: Send>(
    executor: &dyn Executor,
    items: &mut [T],
    work: impl Fn(&mut T) -> R + Sync,
) -> Vec<R> {
    let threads = executor.parts().min(items.len());
    if threads <= 1 {
        return items.iter_mut().map(work).collect();
    }
    let mut slots: Vec<Slot<'_, T, R>> = items.iter_mut().map(|item| (item, None)).collect();
    let share = slots.len().div_ceil(threads);
    let parts: Vec<Mutex<&mut [Slot<'_, T, R>]>> = slots.chunks_mut(share).map(Mutex::new).collect();
    executor.run(parts.len(), &|part| {
        if let Some(part) = parts.get(part) {
            for (item, result) in part.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
                *result = Some(work(item));
            }
        }
    });
    drop(parts);
    // If the executor left parts out, the caller's thread does them.
    slots.into_iter().map(|(item, result)| result.unwrap_or_else(|| work(item))).collect()
}

/// The same for items that are only read.
pub fn parallel_map<T: Sync, R: Send>(executor: &dyn Executor, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let mut items: Vec<&T> = items.iter().collect();
    parallel_map_mut(executor, &mut items, |item| work(item))
}

/// The frames of a batch tile that one part of an executor works on, with its buffers.
#[derive(Default)]
struct Part {
    /// Frames being worked on.
    frames: usize,
    /// The inputs of several contexts, one after the other.
    input: Vec<i16>,
    /// q, k and v of the frames, one after the other in rows of `stride`.
    qkv: Vec<i16>,
    stride: usize,
    /// Outputs of the frames, in rows of `out_stride`.
    out: Vec<i32>,
    out_stride: usize,
    /// The plain arm's activations, frame by frame, and its buffers.
    plain_x: Vec<Vec<i16>>,
    plain: plain::Scratch,
    fast: simd::Scratch,
}

impl Part {
    fn memory_bytes(&self) -> usize {
        let plain = self.plain_x.iter().map(|x| x.capacity() * 2).sum::<usize>()
            + self.plain_x.capacity() * size_of::<Vec<i16>>();
        (self.input.capacity() + self.qkv.capacity()) * 2
            + self.out.capacity() * 4
            + plain
            + self.plain.memory_bytes()
            + self.fast.memory_bytes()
    }
}

/// Frames of one context in a part: `frames` from number `first` of the context on, whose keys and values are in the
/// ring.
#[derive(Clone, Copy)]
struct Context<'a> {
    ring: &'a Ring,
    first: u64,
    frames: usize,
}

/// The steps of an arm for the frames of a part. Between `project` and `finish` of a block, the keys and values of all
/// parts are put into the block's ring.
trait ArmSteps: Sync {
    /// Takes the inputs, \[frames, d_0\] (spec 5.5, step 1).
    fn begin(&self, part: &mut Part, input: &[i16], quality: usize);
    /// Computes q, k and v of block `b` (spec 5.4, step 1; 5.3, step 1).
    fn project(&self, part: &mut Part, b: usize);
    /// Computes the rest of block `b`. The part's frames are those of the contexts, one context after the other.
    fn finish(&self, part: &mut Part, b: usize, contexts: &[Context<'_>]);
    /// Computes the outputs (spec 5.5, steps 3 and 4).
    fn output(&self, part: &mut Part, quality: usize);
}

/// A network packed for an arm. Immutable; any number of states may run on it at the same time.
pub struct Network {
    arm: Arm,
    shape: Shape,
    inputs: usize,
    outputs: usize,
    qualities: usize,
    steps: Box<dyn ArmSteps + Send>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("arm", &self.arm)
            .field("widths", &self.shape.widths)
            .field("window", &self.shape.window)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl Network {
    /// Packs the parameters for an arm, or for [`Arm::Plain`] if this CPU lacks the arm.
    ///
    /// # Panics
    /// If the parameters do not pass [`NetworkParameters::validate`]; without it no arm would be exact. Those of a
    /// [`CodecModel`](crate::model::CodecModel) always pass.
    #[must_use]
    pub fn new(parameters: &NetworkParameters, arm: Arm) -> Network {
        if let Err(invalid) = parameters.validate() {
            panic!("parameters of a network that are not valid: {invalid}");
        }
        let (arm, steps, layout) = Network::steps_of(parameters, arm);
        let shape = Shape {
            widths: parameters.widths.clone(),
            heads: parameters.heads.clone(),
            window: parameters.window,
            layout,
        };
        Network {
            arm,
            shape,
            inputs: parameters.inputs(),
            outputs: parameters.outputs.len(),
            qualities: parameters.qualities,
            steps,
        }
    }

    fn steps_of(parameters: &NetworkParameters, arm: Arm) -> (Arm, Box<dyn ArmSteps + Send>, Layout) {
        if let Some(steps) = simd::steps(parameters, arm) {
            return (arm, steps, Layout::Slots);
        }
        (Arm::Plain, Box::new(plain::Plain(parameters.clone())), Layout::Frames)
    }

    /// The arm in use.
    #[must_use]
    pub fn arm(&self) -> Arm {
        self.arm
    }

    /// d_0, values of a frame's input.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Values of a frame's output: 2E for g_y, C for h.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Q.
    #[must_use]
    pub fn qualities(&self) -> usize {
        self.qualities
    }

    /// An estimate of the bytes of buffers that a run of this many frames takes; enough for every arm.
    #[must_use]
    pub fn buffer_bytes(&self, frames: usize) -> usize {
        // Values of 16 bits: inputs, activations before and after a block's middle, the prepared row, q, k and v, and
        // the MLP's row, which is four times as wide. Values of 32 bits: outputs. SIMD arms pad rows to 32 values, and
        // hold the scores of a window.
        let widest = self.shape.widths.iter().copied().max().unwrap_or(0).saturating_add(31);
        let frame = widest.saturating_mul(2 * 11).saturating_add(self.outputs.saturating_add(31).saturating_mul(4));
        let window = self.shape.window.saturating_mul(8);
        frames.min(TILE).saturating_mul(frame.saturating_add(64)).saturating_add(window).saturating_add(1 << 12)
    }

    /// Frames that attention can see.
    #[must_use]
    pub fn window(&self) -> usize {
        self.shape.window
    }

    /// Runs the next T frames of a context: `input` is \[T, d_0\], and `output` becomes \[T, outputs\] (g_y: E means in
    /// 1/64 of a step, then E scale indices; h: W). The context moves on by T frames.
    ///
    /// Frames pass through in tiles of at most 128, so buffers do not grow with T; the state's memory does, up to its
    /// bound ([`State`]).
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] if `input` is not a whole number of frames or `state` belongs to another network,
    /// [`ErrorKind::UnknownQuality`]; state and output are then unchanged.
    pub fn run(
        &self,
        state: &mut State,
        input: &[i16],
        quality: usize,
        output: &mut Vec<i32>,
        executor: &dyn Executor,
    ) -> Result<()> {
        self.check(state, input, quality)?;
        output.clear();
        let frames = input.len() / self.inputs;
        output.reserve(frames * self.outputs);
        state.make_room(frames);
        let threads = executor.parts().clamp(1, TILE / PART_MIN);
        for tile in input.chunks(self.inputs * (PART * threads).min(TILE)) {
            self.run_tile(state, tile, quality, output, executor, threads);
        }
        state.release();
        Ok(())
    }

    pub(crate) fn check(&self, state: &State, input: &[i16], quality: usize) -> Result<()> {
        if !state.fits(self) {
            return Err(Error::of_call(ErrorKind::WrongShape).with_detail("the state of another network"));
        }
        if !input.len().is_multiple_of(self.inputs) {
            let (width, found) = (to_u64(self.inputs), to_u64(input.len()));
            let detail = Detail::Shape { what: "input", width, found };
            return Err(Error::of_call(ErrorKind::WrongShape).with(detail));
        }
        if quality >= self.qualities {
            let signed = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
            let (high, found) = (signed(self.qualities) - 1, signed(quality));
            let detail = Detail::Range { what: "quality", low: 0, high, found };
            return Err(Error::of_call(ErrorKind::UnknownQuality).with(detail));
        }
        Ok(())
    }

    /// Runs the frames of one tile.
    fn run_tile(
        &self,
        state: &mut State,
        input: &[i16],
        quality: usize,
        output: &mut Vec<i32>,
        executor: &dyn Executor,
        threads: usize,
    ) {
        let frames = input.len() / self.inputs;
        // Frames of each part; the last may have fewer.
        let share = frames.div_ceil(threads.min(frames.div_ceil(PART_MIN)));
        // Shares are rounded up, so that fewer parts than threads may hold all frames. No part is empty.
        let parts = frames.div_ceil(share);
        state.parts.resize_with(parts.max(state.parts.len()), Mutex::default);
        let position = state.position();
        let State { rings, parts: buffers, .. } = state;
        let start = |part: usize| (part * share).min(frames);
        let first = |part: usize| position + start(part) as u64;
        let arm = &*self.steps;

        executor.run(parts, &|p| {
            let part = &mut *lock(&buffers[p]);
            arm.begin(part, &input[start(p) * self.inputs..start(p + 1) * self.inputs], quality);
            self.go_on(part, 0, quality);
        });
        for (b, ring) in rings.iter_mut().enumerate() {
            for (p, part) in buffers.iter().enumerate().take(parts) {
                let part = lock(part);
                ring.append(first(p), part.frames, &part.qkv, part.stride);
            }
            let ring = &*ring;
            executor.run(parts, &|p| {
                let part = &mut *lock(&buffers[p]);
                let context = Context { ring, first: first(p), frames: part.frames };
                arm.finish(part, b, &[context]);
                self.go_on(part, b + 1, quality);
            });
        }
        for part in buffers.iter().take(parts) {
            let part = lock(part);
            for row in part.out.chunks_exact(part.out_stride.max(1)).take(part.frames) {
                output.extend_from_slice(&row[..self.outputs]);
            }
        }
        state.advance(frames);
    }

    /// Begins block `b`, or computes the outputs after the last one.
    fn go_on(&self, part: &mut Part, b: usize, quality: usize) {
        if b < self.shape.heads.len() {
            self.steps.project(part, b);
        } else {
            self.steps.output(part, quality);
        }
    }
}

/// Bytes that the buffers and their list hold.
fn parts_bytes(parts: &Vec<Mutex<Part>>) -> usize {
    parts.iter().map(|part| lock(part).memory_bytes()).sum::<usize>() + parts.capacity() * size_of::<Mutex<Part>>()
}

/// Locks buffers that one part uses at a time. Buffers are overwritten before they are read, so those that a panic left
/// half written do no harm.
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
