//! Makes a coded chunk of its integers (spec 6.1, 6.5, 6.8).

use super::choice::Weighing;
use super::cost::{self, Cost};
use super::parameters::TargetParameters;
use super::payload::PayloadCoder;
use super::quantiser::{Clipped, Unrounded};
use super::{ChunkSpec, Codec, CodedChunk, Integers, Layout, choice, crc, prediction, targets};
use crate::exact::Executor;
use crate::model::CodecModel;
use crate::number::{to_u64, to_usize};

impl ChunkSpec {
    /// Codes a chunk once g_y has run: `output` is \[T, 2E\], `integers` are W, `[T, C]`, and Y, `[T, E]`. If `x` (the
    /// unrounded values, `[T, E]`) is given, Y holds the integers nearest to it and may be changed by the
    /// rate–distortion choice; otherwise Y is sent as it is. `past` is that of the job. `parameters` are overwritten.
    #[must_use]
    #[allow(clippy::too_many_arguments)] // What a job holds, which differs in type from engine to engine.
    pub fn code_output(
        &self,
        codec: &Codec,
        executor: &dyn Executor,
        output: &[i32],
        past: &[i16],
        parameters: &mut TargetParameters,
        x: Option<Unrounded<'_>>,
        mut integers: Integers,
    ) -> CodedChunk {
        let model = codec.model();
        let weighing = Weighing { quality: self.quality, weight: self.rate_weight, lanes: self.lanes };
        match model.predictor(self.quality) {
            Some(predictor) => {
                parameters.clear();
                prediction::encode(codec, &predictor, weighing, past, output, x, &mut integers.y, parameters);
            }
            None => {
                codec.rule().derive(output, parameters);
                if let Some(x) = x {
                    choice::choose(model, parameters, weighing, x, &mut integers.y);
                }
            }
        }
        let clipped = x.map_or(0, |x| Clipped::find(x.x, model.y_range()).count);
        self.code(codec, executor, parameters, integers, clipped)
    }

    /// Codes a chunk whose parameters and integers are known: W, `[T, C]`, and the Y to be sent, `[T, E]`, of which
    /// `clipped` values were clamped.
    #[must_use]
    pub fn code(
        &self,
        codec: &Codec,
        executor: &dyn Executor,
        parameters: &TargetParameters,
        integers: Integers,
        clipped: u64,
    ) -> CodedChunk {
        let model = codec.model();
        let tables = PayloadCoder { model, quality: self.quality, executor };
        let Integers { w, y } = &integers;
        let (payloads, targets) = match self.layout {
            Layout::Joined => (tables.encode_joined(self.lanes, w, y, parameters), Vec::new()),
            Layout::Layered { datagram_limit } => {
                let targets = targets::pieces(&tables, parameters, y, self.lanes, datagram_limit);
                (tables.encode_hyper_prior(self.lanes, w), targets)
            }
        };
        let cost = || Cost {
            hyper_prior: cost::hyper_prior_bits(codec, self.quality, w, self.lanes),
            target: cost::target_bits(codec, &parameters.tables, &parameters.shifts, y, self.lanes),
        };
        let escaped = escaped(model, self.quality, parameters, &integers);
        CodedChunk {
            payloads,
            targets,
            crcs: crc::frame_crcs(w, model.hyper_prior_width(), y, model.hidden_width()),
            clipped,
            escaped,
            cost: self.track_cost.then(cost),
            integers: self.keep_integers.then_some(integers),
        }
    }
}

/// How many values of a chunk's W, `[T, C]`, and Y, `[T, E]`, their tables do not hold.
///
/// A pass of its own, because runs that are taken back or repeated are not coded value by value. It takes a subtraction
/// and a comparison a value.
fn escaped(model: &CodecModel, quality: usize, parameters: &TargetParameters, Integers { w, y }: &Integers) -> u64 {
    let channels = model.hyper_prior_width();
    let base = quality.saturating_mul(channels);
    let of_w = w.chunks_exact(channels).flat_map(|frame| (base..).zip(frame));
    let of_w = of_w.filter(|(table, value)| model.hyper_prior().is_escaped(*table, 0, i32::from(**value)));
    let of_y = parameters.tables.iter().zip(&parameters.shifts).zip(y);
    let of_y = of_y
        .filter(|((table, shift), value)| model.target().is_escaped(to_usize(**table), **shift, i32::from(**value)));
    to_u64(of_w.count()).saturating_add(to_u64(of_y.count()))
}
