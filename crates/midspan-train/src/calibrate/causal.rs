//! Frames that pass sparse causal maps: their integers, channel after channel.

use super::integer;
use super::sparse::SparseMaps;
use crate::Result;
use crate::codec::Y_RANGE;
use crate::parallel::in_threads;
use midspan::engine::sparse::{self, SparseQuantiser};

/// Frames that a thread takes at a time.
const PIECE: usize = 64;

/// Gets channel, frame and the value in steps of an element, and says which integer it becomes.
pub type Decide<'a> = dyn Fn(usize, usize, f32) -> f32 + Sync + 'a;
/// Gets a piece's first frame, and its values in steps and integers, `[.., E]` each.
type Take<'a> = dyn FnMut(usize, &[f32], &[i16]) + 'a;

/// Frames, and the maps that they pass.
#[derive(Clone, Copy, Debug)]
pub struct Causal<'a> {
    /// Hidden states minus their mean, `[T, E]`.
    pub centred: &'a [f32],
    /// Both maps.
    pub maps: &'a SparseMaps,
}

/// The values of a run over all frames, each E vectors of T values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// In steps, before they were rounded.
    pub x: Vec<Vec<f32>>,
    /// The integers.
    pub y: Vec<Vec<i16>>,
}

impl Causal<'_> {
    /// T.
    pub fn frames(&self) -> usize {
        self.centred.len() / self.maps.units.len()
    }

    /// The step of each channel in a quality, as a model holds it: `[E]`.
    pub fn steps(maps: &SparseMaps, step: f64) -> Vec<f32> {
        maps.units.iter().map(|unit| (step * unit) as f32).collect()
    }

    /// Runs over all frames in a quality of this step. `decide` gets channel, frame and x of each element, and says which
    /// integer it becomes.
    ///
    /// # Errors
    /// When a thread panics.
    pub fn run(&self, step: f64, threads: usize, decide: &Decide<'_>) -> Result<Run> {
        let width = self.maps.units.len();
        let mut run = Run { x: vec![vec![0.0; self.frames()]; width], y: vec![vec![0; self.frames()]; width] };
        self.pieces(step, threads, decide, &mut |first, x, y| {
            for (channel, (own_x, own_y)) in run.x.iter_mut().zip(&mut run.y).enumerate() {
                let places = (channel..x.len()).step_by(width);
                for (frame, at) in (first..).zip(places) {
                    (own_x[frame], own_y[frame]) = (x[at], y[at]);
                }
            }
        })?;
        Ok(run)
    }

    /// What rounding to the nearest integers does to the values of all elements and frames.
    ///
    /// # Errors
    /// When a thread panics.
    pub fn rounding(&self, step: f64, threads: usize) -> Result<Rounding> {
        let mut rounding = Rounding { squares: 0.0, largest: 0.0 };
        self.pieces(step, threads, &nearest, &mut |_, x, y| {
            for (x, y) in x.iter().zip(y) {
                rounding.squares += f64::from(x - f32::from(*y)).powi(2);
                rounding.largest = rounding.largest.max(x.abs());
            }
        })?;
        Ok(rounding)
    }

    /// The errors of hidden states in a run with the nearest integers, `[T, E]`.
    ///
    /// # Errors
    /// When a thread panics.
    pub fn hidden_errors(&self, step: f64, threads: usize) -> Result<Vec<f32>> {
        let steps = Self::steps(self.maps, step);
        let zeros = vec![0.0; steps.len()];
        let mut hidden = Vec::with_capacity(self.centred.len());
        self.pieces(step, threads, &nearest, &mut |_, _, y| {
            let levels: Vec<f32> = y.iter().map(|y| f32::from(*y)).collect();
            sparse::reconstruct(&levels, &steps, &self.maps.synthesis, &zeros, &mut hidden);
        })?;
        hidden.iter_mut().zip(self.centred).for_each(|(after, before)| *after -= before);
        Ok(hidden)
    }

    /// Gives x and Y of runs of frames in order, `[.., E]` each, with the first frame.
    fn pieces(&self, step: f64, threads: usize, decide: &Decide<'_>, take: &mut Take<'_>) -> Result<()> {
        let width = self.maps.units.len();
        let steps = Self::steps(self.maps, step);
        let reciprocals: Vec<f32> = steps.iter().map(|step| 1.0 / step).collect();
        let quantiser = SparseQuantiser {
            synthesis: &self.maps.synthesis,
            analysis: &self.maps.analysis,
            step: &steps,
            reciprocal_step: &reciprocals,
            range: Y_RANGE,
        };
        let firsts: Vec<usize> = (0..self.frames()).step_by(PIECE).collect();
        // Several pieces for each thread at a time, whose values are then taken.
        for firsts in firsts.chunks(8 * threads.max(1)) {
            let pieces = in_threads(firsts, threads, |first| {
                let centred = &self.centred[first * width..(first + PIECE).min(self.frames()) * width];
                let (mut x, mut y) = (vec![0.0; centred.len()], vec![0; centred.len()]);
                quantiser.run(centred, &mut |frame, channel, value| {
                    let at = frame * width + channel;
                    x[at] = value;
                    y[at] = integer(decide(channel, first + frame, value));
                    y[at]
                });
                Ok((x, y))
            })?;
            for (first, (x, y)) in firsts.iter().zip(&pieces) {
                take(*first, x, y);
            }
        }
        Ok(())
    }
}

/// What a run with the nearest integers does, in steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rounding {
    /// The sum of the squared errors of rounding.
    pub squares: f64,
    /// The largest magnitude of a value.
    pub largest: f32,
}

/// The nearest integer, for every channel and frame.
fn nearest(_: usize, _: usize, x: f32) -> f32 {
    x.round_ties_even()
}
