//! The Y that an encoder sends: the nearest integers, or near ones that cost fewer bits (spec 6.8).
//!
//! No decoder depends on the choice. It uses only integers and single operations of binary32, so encoders on all
//! devices choose the same Y.

use super::parameters::TargetParameters;
use super::payload::lane_span;
use super::quantiser::{Unrounded, nearest_one};
use super::sparse::SparseQuantiser;
use crate::entropy::plain_bits;
use crate::model::CodecModel;
use crate::number::to_usize;

/// floor(256 · log2(1 + i / 256)) by repeated squaring.
#[allow(clippy::indexing_slicing)] // By the loop's bound, and at compile time.
pub const LOG2: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0_usize;
    while i < table.len() {
        // A number in 1 … 2, times 2^32; each square gives one bit of its logarithm.
        let mut x = 256_u128.wrapping_add(i as u128) << 24;
        let (mut log, mut bit) = (0_u32, 0);
        while bit < 8_u32 {
            x = x.wrapping_mul(x) >> 32;
            log <<= 1;
            if x >> 33 != 0 {
                x >>= 1;
                log |= 1;
            }
            bit = bit.wrapping_add(1);
        }
        table[i] = log;
        i = i.wrapping_add(1);
    }
    table
};

/// The cost of a mass out of 65,536 and some further bits, in 1/256 bit (spec 6.8).
#[must_use]
pub fn cost((mass, escape_bits): (u32, u32)) -> i32 {
    let mass = mass.max(1);
    let exponent = mass.ilog2();
    // The eight bits below the leading one.
    let fraction = mass.wrapping_shl(32_u32.wrapping_sub(exponent)).wrapping_shr(24) & 0xFF;
    let fraction = if exponent == 0 { 0 } else { fraction };
    let log = exponent.wrapping_mul(256).wrapping_add(LOG2.get(fraction as usize).copied().unwrap_or(0));
    // A mass is at most 2^16 and an escape has at most 40 bits: far from an i32's ends.
    escape_bits.wrapping_add(16).wrapping_mul(256).wrapping_sub(log).cast_signed()
}

/// How Y is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weighing {
    /// The frames' quality.
    pub quality: usize,
    /// Squared steps of distortion that a saved bit is worth.
    pub weight: f32,
    /// Lanes of the chunk.
    pub lanes: usize,
}

/// Chooses Y of a chunk's frames. `y` holds the integers nearest to the unrounded values, which are in steps; both are
/// `[T, E]`, as are the parameters.
///
/// A value is replaced by the second nearest integer if the saved bits, at the weight, make up for the distance. A run
/// that will not be coded by its tables stays as it is. At weight 0 all do.
pub fn choose(
    model: &CodecModel,
    parameters: &TargetParameters,
    weighing: Weighing,
    unrounded: Unrounded<'_>,
    y: &mut [i16],
) {
    let Weighing { quality, weight, lanes } = weighing;
    if weight <= 0.0 {
        return;
    }
    let width = model.hidden_width();
    // Behind a sparse map a choice moves what later channels aim at, so that each frame is chosen in a run of its own.
    let places = (&parameters.tables[..], &parameters.shifts[..]);
    let runs = SparseQuantiser::new(model, quality)
        .map(|quantiser| choose_in_runs(model, places, weight, &quantiser, unrounded.centred));
    let frames = y.len().checked_div(width).unwrap_or(0);
    let mut starts = (0..lanes).map(|lane| lane_span(frames, lanes, lane).start).peekable();
    let mut lane = Lane::default();
    let places = parameters.tables.chunks_exact(width).zip(parameters.shifts.chunks_exact(width));
    let frames = unrounded.x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(places);
    for (frame, ((x, y), places)) in frames.enumerate() {
        if starts.next_if_eq(&frame).is_some() {
            lane = Lane::default();
        }
        lane.choose(y, |y| match &runs {
            None => choose_frame(model, places, weight, x, y),
            Some(runs) => runs.take(frame, y),
        });
    }
}

/// Chooses Y of the next frame of a lane, as [`choose`] does, where the tables of one frame depend on the Y of those
/// before it: tables and shifts, unrounded values and Y are `[E]` each, and so is what the quantiser runs over.
pub(super) fn choose_next(
    model: &CodecModel,
    quantiser: Option<&SparseQuantiser<'_>>,
    lane: &mut Lane,
    places: (&[u32], &[i32]),
    weight: f32,
    unrounded: Unrounded<'_>,
    y: &mut [i16],
) {
    if weight <= 0.0 {
        return;
    }
    lane.choose(y, |y| match quantiser {
        None => choose_frame(model, places, weight, unrounded.x, y),
        Some(quantiser) => choose_in_runs(model, places, weight, quantiser, unrounded.centred).take(0, y),
    });
}

/// What the choice needs of the previous frame in the lane: its nearest integers and the chosen ones; none at the lane's
/// start.
#[derive(Debug, Default)]
pub(super) struct Lane {
    nearest: Vec<i16>,
    chosen: Vec<i16>,
}

impl Lane {
    /// Chooses Y of the lane's next frame, `[E]`, by the rules about runs. `pick` changes the nearest integers to those
    /// that the tables favour, and gives their cost in 1/256 bit.
    fn choose(&mut self, y: &mut [i16], pick: impl FnOnce(&mut [i16]) -> u64) {
        let Lane { nearest, chosen } = self;
        if nearest == y {
            // The run stays a repeat if nothing is changed.
            y.copy_from_slice(chosen);
            return;
        }
        nearest.clear();
        nearest.extend_from_slice(y);
        if pick(y) >= plain_bits(nearest).saturating_mul(256) {
            // The run would be plain, and then every value costs the same.
            y.copy_from_slice(nearest);
        }
        chosen.clear();
        chosen.extend_from_slice(y);
    }
}

/// Frames that were chosen in runs.
struct Runs {
    /// `[T, E]`.
    y: Vec<i16>,
    /// `[T]`: what they cost, in 1/256 bit; the largest number where a value would be clipped.
    bits: Vec<u64>,
}

impl Runs {
    /// Copies a frame's choice. Returns its cost.
    fn take(&self, frame: usize, y: &mut [i16]) -> u64 {
        let start = frame.saturating_mul(y.len());
        match (self.y.get(start..start.saturating_add(y.len())), self.bits.get(frame)) {
            (Some(own), Some(bits)) => {
                y.copy_from_slice(own);
                *bits
            }
            _ => u64::MAX,
        }
    }
}

/// The choice for all frames behind a sparse map (spec 6.8). Tables and shifts are `[T, E]`.
fn choose_in_runs(
    model: &CodecModel,
    (tables, shifts): (&[u32], &[i32]),
    weight: f32,
    quantiser: &SparseQuantiser<'_>,
    centred: &[f32],
) -> Runs {
    let (width, range) = (model.hidden_width(), model.y_range());
    let frames = centred.len().checked_div(width).unwrap_or(0);
    let mut runs = Runs { y: vec![0; centred.len()], bits: vec![0; frames] };
    quantiser.run(centred, &mut |frame, channel, x| {
        let at = frame.saturating_mul(width).saturating_add(channel);
        let nearest = nearest_one(x, range);
        let (Some(table), Some(shift)) = (tables.get(at), shifts.get(at)) else {
            return nearest;
        };
        let place = Place { model, table: to_usize(*table), shift: *shift };
        let (chosen, cost) = place.choose(weight / 256.0, x, nearest);
        if let (Some(y), Some(bits)) = (runs.y.get_mut(at), runs.bits.get_mut(frame)) {
            *y = chosen;
            let cost = if quantiser.is_clipped(x) || !x.is_finite() { u64::MAX } else { cost.unsigned_abs().into() };
            *bits = bits.saturating_add(cost);
        }
        chosen
    });
    runs
}

/// Where an element's table is, and from which value it counts.
struct Place<'a> {
    model: &'a CodecModel,
    table: usize,
    shift: i32,
}

impl Place<'_> {
    /// The integer that an element with the value `x` becomes, in place of the nearest one, and its cost in 1/256 bit.
    /// `unit` is the worth of 1/256 bit in squared steps.
    fn choose(&self, unit: f32, x: f32, nearest: i16) -> (i16, i32) {
        let (low, high) = self.model.y_range();
        let cost = |value: i16| cost(self.model.target().mass(self.table, self.shift, i32::from(value)));
        let own = cost(nearest);
        let distance = x - f32::from(nearest);
        let second = if distance > 0.0 { nearest.saturating_add(1) } else { nearest.saturating_sub(1) };
        // A value that was clamped to the range stays, as does one without a neighbour in the range.
        if distance.abs() <= 0.5 && second >= low && second <= high {
            let other = cost(second);
            // The squared distances differ by (1 − |d|)² − |d|² = 1 − 2 |d|.
            #[allow(clippy::cast_precision_loss)]
            if 1.0 - 2.0 * distance.abs() < own.saturating_sub(other) as f32 * unit {
                return (second, other);
            }
        }
        (nearest, own)
    }
}

/// The choice for one frame, only by its tables and shifts. Returns the cost of the chosen values, in 1/256 bit.
fn choose_frame(model: &CodecModel, (tables, shifts): (&[u32], &[i32]), weight: f32, x: &[f32], y: &mut [i16]) -> u64 {
    let unit = weight / 256.0;
    let mut bits = 0_u64;
    for ((x, y), (table, shift)) in x.iter().zip(y).zip(tables.iter().zip(shifts)) {
        let (chosen, cost) = Place { model, table: to_usize(*table), shift: *shift }.choose(unit, *x, *y);
        *y = chosen;
        bits = bits.saturating_add(cost.unsigned_abs().into());
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::synthetic::{self, Random, SyntheticShape};

    #[test]
    fn costs_are_logarithms() {
        for (i, log) in LOG2.iter().enumerate() {
            assert_eq!(*log, (256.0 * (1.0 + i as f64 / 256.0).log2()).floor() as u32, "{i}");
        }
        for (mass, bits) in [(1, 16.0), (2, 15.0), (3, 14.415), (32_768, 1.0), (49_152, 0.415), (65_535, 0.0)] {
            let cost = f64::from(cost((mass, 0))) / 256.0;
            assert!((cost - bits).abs() < 0.01, "{mass}: {cost}");
        }
        assert_eq!(cost((32_768, 7)), 8 * 256);
        let exact = |mass: u32| 256.0 * (16.0 - f64::from(mass).log2());
        assert!((1..65_536).all(|mass| (f64::from(cost((mass, 0))) - exact(mass)).abs() < 2.5));
    }

    #[test]
    fn a_bit_is_worth_some_distance() {
        let model = synthetic::model(&SyntheticShape::tiny(), 3);
        let (low, high) = model.y_range();
        let bits = |table: usize, value: i16| {
            let (mass, more) = model.target().mass(table, 0, i32::from(value));
            16.0 - f64::from(mass).log2() + f64::from(more)
        };
        for table in 0..model.target().tables().min(50) {
            for tenth in -30_i16..=30 {
                let x = f32::from(tenth) / 10.0;
                let nearest = x.round_ties_even() as i16;
                let second = if x > f32::from(nearest) { nearest + 1 } else { nearest - 1 };
                let chosen = |weight: f32| {
                    let mut y = [nearest];
                    let cost_of_y = choose_frame(&model, (&[table as u32], &[0]), weight, &[x], &mut y);
                    let (mass, more) = model.target().mass(table, 0, y[0].into());
                    assert_eq!(cost_of_y, u64::from(cost((mass, more)).unsigned_abs()));
                    y[0]
                };
                assert_eq!(chosen(0.0), nearest);
                // The weight at which both are equally good, computed in floats.
                let saved = bits(table, nearest) - bits(table, second);
                let even = f64::from(1.0 - 2.0 * (x - f32::from(nearest)).abs()) / saved;
                if saved > 0.1 && (low..=high).contains(&second) {
                    assert_eq!(chosen(even as f32 * 1.2 + 0.01), second, "{x} in table {table}");
                    assert_eq!(chosen(even as f32 * 0.8 - 1e-6), nearest, "{x} in table {table}");
                } else if saved < -0.1 {
                    assert_eq!(chosen(10.0), nearest);
                }
            }
        }
        // A value clamped to the range stays there.
        let mut y = [high];
        choose_frame(&model, (&[0], &[0]), 1e6, &[f32::from(high) + 9.0], &mut y);
        assert_eq!(y, [high]);
    }

    /// The two rules on whole frames, in the spec's words; frames near their tables, far from them, near the edge
    /// between coded and plain, and equal ones.
    #[test]
    fn frames_that_are_alike_or_plain_are_not_chosen_anew() {
        let model = synthetic::model(&SyntheticShape::tiny(), 3);
        let width = model.hidden_width();
        let mut random = Random::new(8);
        let (mut alike, mut plain, mut coded, mut edge) = (0, 0, 0, i64::MAX);
        for round in 0..400 {
            let (frames, lanes) = (1 + round % 9, 1 + round % 3_usize.min(1 + round % 9));
            let mut x: Vec<f32> = Vec::new();
            let mut parameters = TargetParameters::default();
            for frame in 0..frames {
                let spread = [0.6, 3.0, 9.0][random.within(0, 2) as usize];
                let again = frame > 0 && random.within(0, 2) == 0;
                for i in 0..width {
                    let (table, shift) = (random.within(0, model.target().tables() as i32 - 1), random.within(-3, 3));
                    let value = shift as f32 + random.within(-1000, 1000) as f32 * spread / 1000.0;
                    // Equal frames have the same nearest integers.
                    let before = if again { x[(frame - 1) * width + i].round_ties_even() } else { 0.0 };
                    x.push(if again { before + random.within(-400, 400) as f32 / 1000.0 } else { value });
                    parameters.tables.push(table as u32);
                    parameters.shifts.push(shift);
                }
            }
            let nearest: Vec<i16> = x.iter().map(|x| x.round_ties_even() as i16).collect();
            let starts: Vec<usize> = (0..lanes).map(|lane| lane_span(frames, lanes, lane).start).collect();
            let mut expected: Vec<Vec<i16>> = Vec::new();
            for frame in 0..frames {
                let own = frame * width..(frame + 1) * width;
                if !starts.contains(&frame) && nearest[own.clone()] == nearest[own.start - width..own.start] {
                    expected.push(expected[frame - 1].clone());
                    alike += 1;
                    continue;
                }
                let mut y = nearest[own.clone()].to_vec();
                let (tables, shifts) = (&parameters.tables[own.clone()], &parameters.shifts[own.clone()]);
                choose_frame(&model, (tables, shifts), 0.3, &x[own.clone()], &mut y);
                let sum: i64 = (y.iter().zip(tables).zip(shifts))
                    .map(|((y, t), s)| i64::from(cost(model.target().mass(*t as usize, *s, (*y).into()))))
                    .sum();
                let holds = |bits: &i64| {
                    nearest[own.clone()].iter().all(|n| (-(1 << (bits - 1))..1 << (bits - 1)).contains(&i64::from(*n)))
                };
                let most = 256 * (16 + width as i64 * (1..=16).find(holds).unwrap());
                edge = edge.min((sum - most).abs());
                let keeps = sum >= most;
                *(if keeps { &mut plain } else { &mut coded }) += usize::from(y != nearest[own.clone()]);
                expected.push(if keeps { nearest[own].to_vec() } else { y });
            }
            let mut y = nearest.clone();
            let unrounded = Unrounded { x: &x, centred: &[] };
            choose(&model, &parameters, Weighing { quality: 0, weight: 0.3, lanes }, unrounded, &mut y);
            assert_eq!(y, expected.concat(), "{frames} frames in {lanes} lanes");
            let mut y = nearest.clone();
            choose(&model, &parameters, Weighing { quality: 0, weight: 0.0, lanes }, unrounded, &mut y);
            assert_eq!(y, nearest);
        }
        assert!(alike > 100 && plain > 100 && coded > 100 && edge < 64, "{alike} {plain} {coded} {edge}");
    }
}
