//! The device kernels, compiled for the CPU: the same sources that a GPU runs, for tests on machines without one.
//!
//! `network.h` has the kernels in phases, written so that a warp is 32 lanes on a device and a loop over 32 here
//! (`warp.h`). A [`KernelNetwork`] runs them phase by phase. It is no fast way to compute on a CPU.
//!
//! ```
//! use midspan::gpu::kernels::{KernelNetwork, KernelStep};
//! use midspan::exact::{Arm, Network, Serial, State};
//! use midspan::model::synthetic::{self, Style, SyntheticShape};
//!
//! # fn main() -> Result<(), midspan::error::Error> {
//! let parameters = synthetic::h(&SyntheticShape::tiny(), Style::Sensible, 1);
//! let inputs = synthetic::inputs(parameters.inputs(), 5, 100, 2);
//!
//! let network = KernelNetwork::new(&parameters);
//! let mut pool = network.pool(1, 0, 5);
//! let output = network.step(&mut pool, &[KernelStep { context: 0, frames: 5, quality: 0 }], &inputs, 3)?;
//!
//! let plain = Network::new(&parameters, Arm::Plain);
//! let mut expected = Vec::new();
//! plain.run(&mut State::new(&plain, 0), &inputs, 0, &mut expected, &Serial)?;
//! assert_eq!(output, expected);
//! # Ok(())
//! # }
//! ```

mod entropy;
mod frames;

pub use entropy::{KernelBank, KernelTables};
pub use frames::{KernelFrames, KernelQuantiser, digests};

use super::layout::{Frame, Line, Model, frames, slots};
use crate::error::{Error, ErrorKind, Result};
use crate::model::NetworkParameters;

/// `Batch` of `network.h`.
#[repr(C)]
struct Batch {
    model: *const Line,
    pool: *mut Line,
    slots: i64,
    frames: *const Frame,
    count: i64,
    input: *const i16,
    output: *mut i32,
    x: *mut i16,
    p: *mut i16,
    q: *mut i16,
    high: *mut Line,
    low: *mut Line,
    mlp_high: *mut Line,
    mlp_low: *mut Line,
    scores: *mut i32,
}

unsafe extern "C" {
    fn midspan_kernels_network(batch: *const Batch, warps: i64, order: i64);
    #[cfg(test)]
    fn midspan_kernels_sizes(sizes: *mut i64);
}

/// A network laid out for the kernels.
pub struct KernelNetwork {
    model: Model,
    inputs: usize,
    outputs: usize,
    window: usize,
    qualities: usize,
}

impl std::fmt::Debug for KernelNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelNetwork")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

/// Contexts of one network: keys and values of each in a ring.
#[derive(Clone)]
pub struct KernelPool {
    lines: Vec<Line>,
    slots: usize,
    /// Lines of a context.
    size: usize,
    longest: usize,
    /// The next frame of each context.
    positions: Vec<u64>,
}

impl std::fmt::Debug for KernelPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelPool").field("positions", &self.positions).finish_non_exhaustive()
    }
}

impl KernelPool {
    /// Makes `position` a context's next frame again: at most as many frames back as the pool was made for.
    ///
    /// # Panics
    /// If there is no such context, or `position` lies ahead.
    pub fn truncate(&mut self, context: usize, position: u64) {
        assert!(position <= self.positions[context], "a rewind ahead");
        self.positions[context] = position;
    }
}

/// The next frames of one context.
#[derive(Clone, Copy, Debug)]
pub struct KernelStep {
    /// Its number in the pool.
    pub context: usize,
    /// T, how many of the input's rows are this context's; they come in the order of the steps.
    pub frames: usize,
    /// The frames' quality.
    pub quality: usize,
}

impl KernelNetwork {
    /// Lays a network out.
    ///
    /// # Panics
    /// If the parameters do not pass [`NetworkParameters::validate`], on which exactness and the bounds of memory rest.
    #[must_use]
    pub fn new(parameters: &NetworkParameters) -> KernelNetwork {
        if let Err(invalid) = parameters.validate() {
            panic!("parameters of a network that are not valid: {invalid}");
        }
        KernelNetwork {
            model: Model::new(parameters),
            inputs: parameters.inputs(),
            outputs: parameters.outputs.len(),
            window: parameters.window,
            qualities: parameters.qualities,
        }
    }

    /// Empty contexts that may go back by `max_rewind` frames and take `longest` in one step.
    #[must_use]
    pub fn pool(&self, contexts: usize, max_rewind: usize, longest: usize) -> KernelPool {
        let slots = slots(self.window, max_rewind, longest);
        let size = (slots * self.model.slot_bytes).div_ceil(64);
        KernelPool { lines: vec![Line([0; 64]); contexts * size], slots, size, longest, positions: vec![0; contexts] }
    }

    /// Runs the next frames of contexts, whose rows stand one after the other in `input`, \[ΣT, d_0\], with so many warps;
    /// gives \[ΣT, outputs\].
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] for rows that are not those of the steps, a context that is not in the pool or twice in a
    /// step, or more frames than it was made for; [`ErrorKind::UnknownQuality`]. Nothing has changed then.
    pub fn step(&self, pool: &mut KernelPool, steps: &[KernelStep], input: &[i16], warps: usize) -> Result<Vec<i32>> {
        self.step_in_order(pool, steps, input, warps, false)
    }

    /// As [`KernelNetwork::step`], with each phase's warps from the last to the first if `backwards`.
    fn step_in_order(
        &self,
        pool: &mut KernelPool,
        steps: &[KernelStep],
        input: &[i16],
        warps: usize,
        backwards: bool,
    ) -> Result<Vec<i32>> {
        let wrong = |detail| Err(Error::new(ErrorKind::WrongShape, 0).with_detail(detail));
        let count: usize = steps.iter().map(|step| step.frames).sum();
        if input.len() != count * self.inputs || warps == 0 {
            return wrong("the input is not the steps' rows");
        }
        if pool.size != (pool.slots * self.model.slot_bytes).div_ceil(64) {
            return wrong("the pool of another network");
        }
        let mut seen = vec![false; pool.positions.len()];
        for step in steps {
            match seen.get_mut(step.context) {
                Some(seen) if !*seen && step.frames <= pool.longest => *seen = true,
                _ => return wrong("a context that is not there, twice in a step, or with too many frames"),
            }
            if step.quality >= self.qualities {
                return Err(Error::new(ErrorKind::UnknownQuality, 0));
            }
        }
        let frames: Vec<Frame> = steps
            .iter()
            .flat_map(|step| {
                let (ring, first) = ((step.context * pool.size * 64) as u64, pool.positions[step.context]);
                frames(ring, pool.slots, first..first + step.frames as u64, step.quality)
            })
            .collect();
        let (widest, mlp) = (self.model.widest, self.model.mlp);
        let rows = || vec![0_i16; count * widest];
        let planes = |width: usize| vec![Line([0; 64]); count * width / 64];
        let (mut x, mut p, mut q) = (rows(), rows(), rows());
        let (mut high, mut low) = (planes(widest), planes(widest));
        let (mut mlp_high, mut mlp_low) = (planes(mlp), planes(mlp));
        let mut scores = vec![0; warps * self.window];
        let mut output = vec![0; count * self.outputs];
        let batch = Batch {
            model: self.model.lines.as_ptr(),
            pool: pool.lines.as_mut_ptr(),
            slots: pool.slots as i64,
            frames: frames.as_ptr(),
            count: count as i64,
            input: input.as_ptr(),
            output: output.as_mut_ptr(),
            x: x.as_mut_ptr(),
            p: p.as_mut_ptr(),
            q: q.as_mut_ptr(),
            high: high.as_mut_ptr(),
            low: low.as_mut_ptr(),
            mlp_high: mlp_high.as_mut_ptr(),
            mlp_low: mlp_low.as_mut_ptr(),
            scores: scores.as_mut_ptr(),
        };
        // SAFETY: the structures are those of `network.h` (tested). The model was validated and laid out for it; every
        // buffer has the size that `network.h` states for `count` frames and `warps` warps; frames lie in rings of the
        // pool, whose slots hold a window and a step; all outlive the call, which keeps no pointer and starts no thread.
        unsafe { midspan_kernels_network(&raw const batch, warps as i64, i64::from(backwards)) };
        for step in steps {
            pool.positions[step.context] += step.frames as u64;
        }
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exact::{Arm, Network, Serial, State};
    use crate::model::synthetic::{self, Style, SyntheticShape};

    #[test]
    fn structures_are_those_of_the_sources() {
        let mut sizes = [0; 10];
        // SAFETY: ten sizes are written.
        unsafe { midspan_kernels_sizes(sizes.as_mut_ptr()) };
        let words = [crate::gpu::layout::LAYER_WORDS, crate::gpu::layout::BLOCK_WORDS, crate::gpu::layout::NET_WORDS]
            .map(|words| 8 * words as i64);
        assert_eq!(sizes[..3], words);
        let others = [16, size_of::<Frame>(), size_of::<Batch>()];
        let coder = [size_of::<entropy::Table>(), size_of::<entropy::Lane>(), size_of::<entropy::Coding>()];
        let frames = [size_of::<frames::Frames>()];
        assert_eq!(
            sizes[3..],
            [&others[..], &coder, &frames].concat().iter().map(|size| *size as i64).collect::<Vec<_>>()
        );
    }

    fn expected(parameters: &NetworkParameters, inputs: &[i16], quality: usize) -> Vec<i32> {
        let network = Network::new(parameters, Arm::best());
        let mut output = Vec::new();
        network.run(&mut State::new(&network, 0), inputs, quality, &mut output, &Serial).unwrap();
        output
    }

    /// Compares batches of the given sizes over and over with the reference.
    fn check(parameters: &NetworkParameters, inputs: &[i16], batches: &[usize], quality: usize) {
        let expected = expected(parameters, inputs, quality);
        let network = KernelNetwork::new(parameters);
        let longest = *batches.iter().max().unwrap();
        for (warps, backwards) in [(1, false), (7, true)] {
            let mut pool = network.pool(1, 0, longest);
            let (mut found, mut rest) = (Vec::new(), inputs);
            for &frames in batches.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let frames = frames.min(rest.len() / parameters.inputs());
                let (now, later) = rest.split_at(frames * parameters.inputs());
                let step = KernelStep { context: 0, frames, quality };
                found.extend(network.step_in_order(&mut pool, &[step], now, warps, backwards).unwrap());
                rest = later;
            }
            let at = (0..found.len()).find(|&at| found[at] != expected[at]);
            let outputs = parameters.outputs.len();
            let place = at.map(|at| (at / outputs, at % outputs));
            assert!(at.is_none(), "batches {batches:?}, {warps} warps: frame, output {place:?}");
            assert_eq!(found.len(), expected.len());
        }
    }

    #[test]
    fn kernels_agree_with_the_arms() {
        for seed in 0..80_u64 {
            let mut random = synthetic::Random::new(seed);
            let shape = SyntheticShape::random(&mut random);
            let mut within = |low: i32, high: i32| random.within(low, high) as usize;
            let (frames, batch, quality) = (within(1, 50), within(1, 40), within(0, 1));
            let reach = [0, 3, 60, 2_000, i16::MAX][within(0, 4)];
            let style = Style::ALL[seed as usize % Style::ALL.len()];
            let parameters =
                if seed % 2 == 0 { synthetic::g_y(&shape, style, seed) } else { synthetic::h(&shape, style, seed) };
            let inputs = synthetic::inputs(parameters.inputs(), frames, reach, seed);
            check(&parameters, &inputs, &[batch, 1, 9], quality);
        }
    }

    #[test]
    fn every_style_at_extreme_inputs() {
        let shape = SyntheticShape { window: 5, ..SyntheticShape::tiny() };
        for style in Style::ALL {
            let parameters = synthetic::g_y(&shape, style, 11);
            for value in [0, 1, -1, i16::MAX, -i16::MAX, i16::MIN] {
                check(&parameters, &vec![value; parameters.inputs() * 36], &[5, 17], 0);
            }
        }
    }

    /// Windows longer than a step and than what 32 bits hold of weighted sums, rings that wrap, wide heads.
    #[test]
    fn long_windows_and_wide_heads() {
        for (window, frames, batches) in [(1, 9, &[4][..]), (129, 400, &[150, 7]), (700, 1_700, &[64, 1, 333])] {
            let parameters = synthetic::largest_sums(window);
            check(&parameters, &synthetic::inputs(parameters.inputs(), frames, 60, 6), batches, 1);
        }
        for style in [Style::Bounds, Style::Anything, Style::SmallestShift] {
            let parameters = synthetic::g_y(&SyntheticShape::wide(), style, 9);
            check(&parameters, &synthetic::inputs(512, 9, i16::MAX, 3), &[9], 0);
            check(&parameters, &vec![i16::MAX; 512 * 24], &[2, 20], 0);
        }
    }

    #[test]
    fn contexts_together_are_as_alone_and_rewind() {
        let parameters = synthetic::g_y(&SyntheticShape { qualities: 3, ..SyntheticShape::tiny() }, Style::Sensible, 3);
        let network = KernelNetwork::new(&parameters);
        let reference = Network::new(&parameters, Arm::Plain);
        let mut pool = network.pool(7, 4, 30);
        let mut alone: Vec<State> = (0..7).map(|_| State::new(&reference, 4)).collect();
        for round in 0..20_usize {
            let mut steps: Vec<KernelStep> = (0..7)
                .filter(|context| (context + round) % 5 > 0)
                .map(|context| KernelStep {
                    context,
                    frames: [1, 1, 3, 30, 0][(context * 3 + round) % 5],
                    quality: (context + round) % 3,
                })
                .collect();
            steps.reverse();
            if round % 4 == 0 {
                steps.truncate(2);
            }
            let rows: usize = steps.iter().map(|step| step.frames).sum();
            let inputs = synthetic::inputs(parameters.inputs(), rows, 90, round as u64);
            let output = network.step_in_order(&mut pool, &steps, &inputs, 1 + round, round % 2 == 0).unwrap();
            let (mut expected, mut part, mut rest) = (Vec::new(), Vec::new(), inputs.as_slice());
            for step in &steps {
                let (now, later) = rest.split_at(step.frames * parameters.inputs());
                reference.run(&mut alone[step.context], now, step.quality, &mut part, &Serial).unwrap();
                expected.extend_from_slice(&part);
                rest = later;
            }
            assert!(output == expected, "round {round}");
            for (context, alone) in alone.iter_mut().enumerate().take(round % 7) {
                let to = alone.position().saturating_sub(2);
                if alone.truncate(to).is_ok() {
                    pool.truncate(context, to);
                }
            }
        }
    }

    #[test]
    fn wrong_steps_are_refused() {
        let parameters = synthetic::g_y(&SyntheticShape::tiny(), Style::Sensible, 3);
        let network = KernelNetwork::new(&parameters);
        let other = KernelNetwork::new(&synthetic::h(&SyntheticShape::tiny(), Style::Sensible, 3));
        let mut pool = network.pool(2, 0, 3);
        let one = KernelStep { context: 0, frames: 1, quality: 0 };
        let input = vec![1; parameters.inputs()];
        let mut kind = |steps: &[KernelStep], rows: usize, warps| {
            let input = input.repeat(rows);
            network.step(&mut pool, steps, &input, warps).map_err(|error| error.kind()).err()
        };
        let wrong = Some(ErrorKind::WrongShape);
        assert_eq!(kind(&[one], 2, 1), wrong);
        assert_eq!(kind(&[one], 1, 0), wrong);
        assert_eq!(kind(&[one, one], 2, 1), wrong);
        assert_eq!(kind(&[KernelStep { context: 2, ..one }], 1, 1), wrong);
        assert_eq!(kind(&[KernelStep { frames: 4, ..one }], 4, 1), wrong);
        assert_eq!(kind(&[KernelStep { quality: 2, ..one }], 1, 1), Some(ErrorKind::UnknownQuality));
        assert_eq!(kind(&[], 0, 1), None);
        assert_eq!(pool.positions, [0, 0]);
        let input = vec![1; other.inputs];
        assert_eq!(other.step(&mut pool, &[one], &input, 1).unwrap_err().kind(), ErrorKind::WrongShape);
    }
}
