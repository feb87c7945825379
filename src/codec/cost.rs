//! What integers cost by the frozen tables: −log2 p, the floor under every payload.
//!
//! For reports only; nothing here reaches the wire. Floats are therefore allowed.

use super::analysis::Codec;
use super::parameters::TargetParameters;
use crate::error::Error;
use crate::exact::{Serial, State};

/// Ideal bits of some frames by their tables, escapes included.
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

fn bits((mass, escape_bits): (u32, u32)) -> f64 {
    16.0 - f64::from(mass.max(1)).log2() + f64::from(escape_bits)
}

impl Codec {
    /// What integers of a sequence cost by the frozen tables, from an empty context: `w` is `[T, C]`, `y` is `[T, E]`.
    ///
    /// For reports; a session's own costs come from [`super::Encoder::last_cost`].
    pub fn ideal_cost(&self, w: &[i16], y: &[i16], quality: usize) -> Cost {
        // Whole frames of W and a quality of the model cannot be refused; anything else costs nothing.
        let Ok(parameters) = self.target_parameters(w, quality) else { return Cost::default() };
        Cost {
            hyper_prior: hyper_prior_bits(self, quality, w),
            target: target_bits(self, &parameters.tables, &parameters.shifts, y),
        }
    }

    /// Tables and shifts of a sequence's elements, from an empty context: `w` is `[T, C]`.
    pub(crate) fn target_parameters(&self, w: &[i16], quality: usize) -> Result<TargetParameters, Error> {
        let mut output = Vec::new();
        self.g_y().run(&mut State::new(self.g_y(), 0), w, quality, &mut output, &Serial)?;
        let mut parameters = TargetParameters::default();
        self.rule().derive(&output, &mut parameters);
        Ok(parameters)
    }
}

/// Ideal bits of `w`, `[T, C]`, at a quality.
pub(crate) fn hyper_prior_bits(codec: &Codec, quality: usize, w: &[i16]) -> f64 {
    let channels = codec.model().hyper_prior_width();
    let base = quality.saturating_mul(channels);
    w.chunks_exact(channels)
        .flat_map(|frame| frame.iter().enumerate())
        .map(|(channel, value)| {
            bits(codec.model().hyper_prior().mass(base.saturating_add(channel), 0, i32::from(*value)))
        })
        .sum()
}

/// Ideal bits of `y`, `[T, E]`, with the tables and shifts of its elements.
pub(crate) fn target_bits(codec: &Codec, tables: &[u32], shifts: &[i32], y: &[i16]) -> f64 {
    y.iter()
        .zip(tables.iter().zip(shifts))
        .map(|(value, (table, shift))| {
            let table = usize::try_from(*table).unwrap_or(usize::MAX);
            bits(codec.model().target().mass(table, *shift, i32::from(*value)))
        })
        .sum()
}
