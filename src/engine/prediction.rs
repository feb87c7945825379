//! Prediction of Y from decoded frames, along the lanes of a chunk (spec 6.13).
//!
//! The frames of a lane follow each other here, in the encoder too: the tables of one depend on the Y of those before it.
//! g_y still runs on the whole chunk at once.

use super::Codec;
use super::choice::{self, Lane, Weighing};
use super::parameters::{ParameterRule, TargetParameters};
use super::payload::lane_span;
use super::quantiser::Unrounded;
use super::sparse::SparseQuantiser;
use crate::error::{Detail, Error, ErrorKind};
use crate::model::CodecModel;
use crate::model::prediction::{Past, Predictor};
use crate::number::to_u64;

/// A walk along the frames of one lane: the parameters of the next frame from the Y of those before it.
#[derive(Debug)]
pub struct LaneWalk<'a> {
    rule: &'a ParameterRule,
    predictor: &'a Predictor<'a>,
    past: Past,
    /// g_y's output for the next frame, with predicted means, `[2E]`.
    row: Vec<i32>,
    parameters: TargetParameters,
}

impl<'a> LaneWalk<'a> {
    /// A walk that begins after some frames, `[n, E]` in the common unit, the newest last.
    #[must_use]
    pub fn new(rule: &'a ParameterRule, predictor: &'a Predictor<'a>, past: &[i16]) -> LaneWalk<'a> {
        let past = predictor.past(past);
        LaneWalk { rule, predictor, past, row: Vec::new(), parameters: TargetParameters::default() }
    }

    /// The parameters of the next frame, `[E]`, given g_y's output for it, `[2E]`.
    pub fn next(&mut self, output: &[i32]) -> &TargetParameters {
        self.row.clear();
        self.row.extend_from_slice(output);
        let (means, _) = self.row.split_at_mut(output.len() / 2);
        self.predictor.add(&mut self.past, means);
        self.rule.derive(&self.row, &mut self.parameters);
        &self.parameters
    }

    /// Takes Y of the frame, `[E]`, which has the quality of the predictor.
    pub fn push(&mut self, y: &[i16]) {
        self.predictor.push(&mut self.past, y);
    }
}

/// The most bytes that a walk holds, for a model that predicts.
pub(crate) fn walk_bytes(model: &CodecModel) -> usize {
    let (width, rank) =
        (model.hidden_width(), model.prediction().map_or(0, crate::model::prediction::Prediction::rank));
    // The past, 2 bytes each, and a frame in the common unit; an output twice and a table's number and a shift, 4 each.
    let frames = model.predicted_from().saturating_add(1);
    width.saturating_mul(frames.saturating_mul(2).saturating_add(2 * 4 + 4 + 4)).saturating_add(rank.saturating_mul(2))
}

/// Appends the parameters of a chunk's frames, given g_y's output, \[T, 2E\]. If `x` (the unrounded values, `[T, E]`) is
/// given, Y, `[T, E]`, holds the nearest integers and is chosen frame by frame ([`choice`]); otherwise it stays. `past`
/// is that of the job.
#[allow(clippy::too_many_arguments)] // What a job holds.
pub(super) fn encode(
    codec: &Codec,
    predictor: &Predictor<'_>,
    Weighing { quality, weight, lanes }: Weighing,
    past: &[i16],
    output: &[i32],
    x: Option<Unrounded<'_>>,
    y: &mut [i16],
    parameters: &mut TargetParameters,
) {
    let model = codec.model();
    let width = model.hidden_width();
    let quantiser = SparseQuantiser::new(model, quality);
    let frames = y.len().checked_div(width).unwrap_or(0);
    let mut rows = (0..frames).zip(y.chunks_exact_mut(width)).zip(output.chunks_exact(width.saturating_mul(2)));
    for lane in 0..lanes {
        let mut walk = LaneWalk::new(codec.rule(), predictor, if lane == 0 { past } else { &[] });
        let mut choice = Lane::default();
        for ((frame, y), output) in rows.by_ref().take(lane_span(frames, lanes, lane).len()) {
            let own = walk.next(output);
            if let Some(x) = x {
                let (places, x) = ((&own.tables[..], &own.shifts[..]), x.frame(frame, width));
                choice::choose_next(model, quantiser.as_ref(), &mut choice, places, weight, x, y);
            }
            parameters.tables.extend_from_slice(&own.tables);
            parameters.shifts.extend_from_slice(&own.shifts);
            walk.push(y);
        }
    }
}

/// Checks the past of a job: whole frames, at most P.
///
/// # Errors
/// [`ErrorKind::WrongShape`] for another number of values.
pub fn check_past(past: &[i16], model: &CodecModel) -> Result<(), Error> {
    let most = model.predicted_from().saturating_mul(model.hidden_width());
    if past.len() <= most && past.len().is_multiple_of(model.hidden_width()) {
        return Ok(());
    }
    let (wanted, found) = (to_u64(most), to_u64(past.len()));
    let detail =
        Detail::Number { what: "values of the frames that prediction reads, at most P frames of E", wanted, found };
    Err(Error::of_call(ErrorKind::WrongShape).with(detail))
}
