//! The cost of integers by the frozen tables: −log2 p of every symbol, modes included. No payload can be shorter.
//!
//! For reports only; nothing here reaches the wire, so floats are allowed.

use super::Codec;
use super::choice::Weighing;
use super::parameters::TargetParameters;
use super::payload::lane_span;
use super::prediction;
use super::side::network_input;
use crate::entropy::{self, RunMode};
use crate::error::Error;
use crate::exact::{Serial, State};

/// Ideal bits of some frames by their tables, escapes and modes included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Bits of W.
    pub hyper_prior: f64,
    /// Bits of Y given W.
    pub target: f64,
}

impl Cost {
    /// Bits of W and Y together.
    pub fn total(&self) -> f64 {
        self.hyper_prior + self.target
    }

    /// The sum of two costs.
    #[must_use]
    pub fn plus(self, other: Cost) -> Cost {
        Cost { hyper_prior: self.hyper_prior + other.hyper_prior, target: self.target + other.target }
    }
}

/// Bits of a symbol with `mass` out of 65,536, and of the `further` bits after it.
fn bits((mass, further): (u32, u32)) -> f64 {
    16.0 - f64::from(mass.max(1)).log2() + f64::from(further)
}

/// Ideal bits of the runs of one kind in one payload, each in the mode that costs least (spec 3.5).
///
/// `values` are runs of `width` values. `mass(i, v)` gives the mass of value `v` in the table of index `i`, and the bits
/// after an escape.
fn run_bits(width: usize, values: &[i16], mass: impl Fn(usize, i16) -> (u32, u32)) -> f64 {
    let (mut total, mut last, mut before) = (0.0, RunMode::Coded, None);
    for (run, first) in values.chunks_exact(width).zip((0..).step_by(width)) {
        let coded = run.iter().zip(first..).map(|(value, place)| bits(mass(place, *value))).sum();
        let plain = f64::from(entropy::WIDTH_BITS) + width as f64 * f64::from(entropy::width(run));
        let repeat = if before == Some(run) { 0.0 } else { f64::INFINITY };
        let (least, mode) = [(coded, RunMode::Coded), (plain, RunMode::Plain), (repeat, RunMode::Repeat)]
            .map(|(of_values, mode)| (of_values + bits((last.interval(mode).1, 0)), mode))
            .into_iter()
            .fold((f64::INFINITY, RunMode::Coded), |least, next| if next.0 < least.0 { next } else { least });
        total += least;
        (last, before) = (mode, Some(run));
    }
    total
}

impl Codec {
    /// The cost of a sequence's integers in one payload by the frozen tables, from an empty context: `w` is `[T, C]`,
    /// `y` is `[T, E]`, `side` the side index of each frame, T, or none if the model takes no side indices.
    ///
    /// For reports; a session's own costs come from [`Encoder::last_cost`](crate::codec::Encoder::last_cost).
    pub fn ideal_cost(&self, w: &[i16], y: &[i16], side: &[u32], quality: usize) -> Cost {
        // Whole frames of W at a quality of the model cannot be refused; anything else costs nothing.
        let Ok(parameters) = self.target_parameters(w, y, side, quality) else { return Cost::default() };
        Cost {
            hyper_prior: hyper_prior_bits(self, quality, w, 1),
            target: target_bits(self, &parameters.tables, &parameters.shifts, y, 1),
        }
    }

    /// Tables and shifts of a sequence's elements, from an empty context: `w` is `[T, C]`, `y` is `[T, E]`, `side` the
    /// side index of each frame, if the model takes any.
    fn target_parameters(&self, w: &[i16], y: &[i16], side: &[u32], quality: usize) -> Result<TargetParameters, Error> {
        let mut output = Vec::new();
        let sums = self.model().side().map_or(Vec::new(), |model| model.sums(side, side.len()));
        let input = network_input(w, self.model().hyper_prior_width(), &sums);
        self.g_y().run(&mut State::new(self.g_y(), 0), &input, quality, &mut output, &Serial)?;
        let mut parameters = TargetParameters::default();
        match self.model().predictor(quality) {
            Some(predictor) => {
                let sent = &mut y.to_vec();
                let weighing = Weighing { quality, weight: 0.0, lanes: 1 };
                prediction::encode(self, &predictor, weighing, &[], &output, None, sent, &mut parameters);
            }
            None => self.rule().derive(&output, &mut parameters),
        }
        Ok(parameters)
    }
}

/// Ideal bits of `w`, `[T, C]`, at a quality, in a chunk of this many lanes.
pub(crate) fn hyper_prior_bits(codec: &Codec, quality: usize, w: &[i16], lanes: usize) -> f64 {
    let model = codec.model();
    let channels = model.hyper_prior_width();
    let base = quality.saturating_mul(channels);
    lanes_of(w, channels, lanes)
        .map(|(_, w)| {
            run_bits(channels, w, |place, value| {
                let table = base.saturating_add(place.checked_rem(channels).unwrap_or(0));
                model.hyper_prior().mass(table, 0, i32::from(value))
            })
        })
        .sum()
}

/// Ideal bits of `y`, `[T, E]`, with the tables and shifts of its elements, in a chunk of this many lanes.
pub(crate) fn target_bits(codec: &Codec, tables: &[u32], shifts: &[i32], y: &[i16], lanes: usize) -> f64 {
    let model = codec.model();
    lanes_of(y, model.hidden_width(), lanes)
        .map(|(first, y)| {
            run_bits(model.hidden_width(), y, |place, value| {
                let place = first.saturating_add(place);
                let table = tables.get(place).and_then(|table| usize::try_from(*table).ok()).unwrap_or(usize::MAX);
                model.target().mass(table, shifts.get(place).copied().unwrap_or(0), i32::from(value))
            })
        })
        .sum()
}

/// The values of each lane's frames, and the index of the first value.
fn lanes_of(values: &[i16], width: usize, lanes: usize) -> impl Iterator<Item = (usize, &[i16])> {
    let frames = values.len().checked_div(width).unwrap_or(0);
    (0..lanes).map(move |lane| {
        let span = lane_span(frames, lanes, lane);
        let first = span.start.saturating_mul(width);
        (first, values.get(first..span.end.saturating_mul(width)).unwrap_or(&[]))
    })
}
