//! The codec that is measured, and hidden states drawn from it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::files;
use midspan::codec::Codec;
use midspan::engine::side::network_input;
use midspan::entropy::Bank;
use midspan::exact::{Arm, Serial, State};
use midspan::model::synthetic::{self, Random, Style, SyntheticShape};
use midspan::model::{CodecModel, Outputs};

/// Frames after which the hidden states repeat; every batch size divides it.
const PERIOD: usize = 4_096;
/// Frames after the period that repeat its beginning, so that every chunk is one slice.
const SPARE: usize = 512;

/// The model in `file`, a codec model or a model folder, or a random one of the paper's shape.
///
/// # Errors
/// The file is missing or is not a codec model, the model lacks the encoder's part, or this CPU lacks the arm.
pub(super) fn codec(file: Option<&Path>, arm: Arm, seed: u64) -> Result<Arc<Codec>> {
    let (name, model) = match file {
        Some(path) => (path.display().to_string(), files::codec_model(Some(path))?),
        None => ("the synthetic model".to_string(), synthetic_model(seed)?),
    };
    if !model.has_encoder() {
        bail!("{name}: the model has no encoder's part");
    }
    Ok(Arc::new(Codec::with_arm(model, arm).with_context(|| format!("--arm {}", arm.name()))?))
}

/// A model of random weights in the paper's shape. Its predictions are as narrow as a trained model's but vary little:
/// a frame costs some 600 bits, 5 % of f16. The networks take as long as trained ones.
fn synthetic_model(seed: u64) -> Result<CodecModel> {
    let mut parts = synthetic::parts(&SyntheticShape::paper(), Style::Sensible, seed);
    let elements = parts.e;
    let network = &mut parts.decoder_network;
    for (row, (multiplier, offset)) in network.output.multiplier.iter_mut().zip(&mut network.output_offset).enumerate()
    {
        if row % (2 * elements) < elements {
            *multiplier /= 64;
            *offset /= 4;
        } else {
            *multiplier /= 8;
            *offset = (*offset - 24).max(0);
        }
    }
    CodecModel::new(parts).context("the synthetic model")
}

/// Hidden states that follow a model. W is drawn from the tables of the hyper-prior, and Y from the tables that g_y
/// selects for that W. Y is then dequantised to a random point within its step. The encoder finds another W for these
/// hidden states, which with a random model is as good as any.
pub(super) struct Source {
    /// `[PERIOD + SPARE, E]`.
    hidden: Vec<f32>,
    width: usize,
}

impl Source {
    /// Draws hidden states of the first quality. Equal seeds give equal hidden states on every machine.
    ///
    /// # Errors
    /// Does not fail for a model that passed its checks.
    pub(super) fn new(codec: &Codec, seed: u64) -> Result<Self> {
        let model = codec.model();
        let (width, channels) = (model.hidden_width(), model.hyper_prior_width());
        let mut random = Random::new(seed);
        let w: Vec<i16> = (0..PERIOD * channels)
            .map(|place| draw(&mut random, model.hyper_prior(), place % channels, 0, model.w_range()))
            .collect();
        let mut output = Vec::new();
        // Of frames that have no side index, if the model takes any.
        let sums = model.side().map_or_else(Vec::new, |side| side.sums(&vec![side.vocabulary(); PERIOD], PERIOD));
        let input = network_input(&w, channels, &sums);
        codec.g_y().run(&mut State::new(codec.g_y(), 0), &input, 0, &mut output, &Serial)?;
        let bases: Vec<u32> = model.target_bases().collect();
        let (step, offset) = (model.step(0), model.offset(0));
        let mut hidden = Vec::with_capacity((PERIOD + SPARE) * width);
        for frame in output.chunks_exact(2 * width) {
            let (means, scales) = frame.split_at(width);
            for (element, (mean, scale)) in means.iter().zip(scales).enumerate() {
                // The network clamps scale indices to those of the model. The mean is rounded to the scale's grid (spec
                // 6.2).
                let scale = usize::try_from(*scale).unwrap_or(0);
                let bits = i32::from(model.fraction_bits()[scale]);
                let q = (mean + ((1 << (6 - bits)) >> 1)) >> (6 - bits);
                let table = bases[scale] as usize + (q & ((1 << bits) - 1)) as usize;
                let y = draw(&mut random, model.target(), table, q >> bits, model.y_range());
                let within = random.within(-28, 28) as f32 / 64.0;
                hidden.push((f32::from(y) + within) * step[element] + offset[element]);
            }
        }
        hidden.extend_from_within(..SPARE * width);
        Ok(Self { hidden, width })
    }

    /// `count` ≤ 512 frames from frame `first` on, `[count, E]`.
    pub(super) fn frames(&self, first: usize, count: usize) -> &[f32] {
        let start = first % PERIOD * self.width;
        &self.hidden[start..start + count * self.width]
    }
}

/// Draws a value of a table without its escapes, shifted and clamped.
fn draw(random: &mut Random, bank: &Bank, table: usize, shift: i32, (low, high): (i16, i16)) -> i16 {
    let quantile = random.within(0, 65_535);
    let boundaries = bank.boundaries(table);
    let place = boundaries.partition_point(|boundary| i32::from(*boundary) <= quantile) as i32;
    let value = bank.first(table) + place.clamp(1, i32::from(bank.size(table))) - 1 + shift;
    value.clamp(low.into(), high.into()) as i16
}

/// Whether the model has the shape that the goals for time are meant for.
pub(super) fn has_paper_shape(model: &CodecModel) -> bool {
    let shape = SyntheticShape::paper();
    let network = model.decoder_network();
    let outputs = Outputs::Distribution { elements: shape.hidden, scales: model.scales() };
    let widths = [&[shape.hyper_prior], shape.g_y.as_slice()].concat();
    network.outputs == outputs && network.widths == widths && network.window == shape.window
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_the_synthetic_model_costs_some_hundred_bits() {
        let codec = codec(None, Arm::best(), 1).unwrap();
        assert!(has_paper_shape(codec.model()));
        let source = Source::new(&codec, 2).unwrap();
        let mut encoder = midspan::codec::Encoder::new(
            codec.clone(),
            midspan::codec::EncoderConfig::new(midspan::wire::Identity::none()),
        )
        .unwrap();
        encoder.track_cost(true);
        encoder.push_hidden(source.frames(0, 64)).unwrap();
        let cost = encoder.last_cost().unwrap();
        let bits = cost.total() / 64.0;
        assert!((300.0..800.0).contains(&bits), "{bits} bits a frame");
    }

    #[test]
    fn hidden_states_repeat_after_the_period_and_with_the_seed() {
        let codec = codec(None, Arm::best(), 1).unwrap();
        let (one, same, other) =
            (Source::new(&codec, 2).unwrap(), Source::new(&codec, 2).unwrap(), Source::new(&codec, 3).unwrap());
        assert_eq!(one.frames(5, 512), same.frames(5 + PERIOD, 512));
        assert_eq!(one.frames(PERIOD - 1, 2)[768..], one.frames(0, 1)[..]);
        assert_ne!(one.frames(5, 512), other.frames(5, 512));
    }
}
