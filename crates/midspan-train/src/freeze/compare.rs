//! Measures what freezing costs: compares the frozen codec with the float one on the same integers.

use serde::Serialize;

use super::codec::FloatMaps;
use super::codec::{FloatCodec, Sequence};
use crate::codec::Y_RANGE;
use crate::codec::quality::At;
use crate::codec::quantiser::choose;
use crate::codec::rate::element_bits;
use crate::framing::side_indices;
use crate::{Error, Result};
use midspan::codec::Codec;
use midspan::engine::side::network_input;
use midspan::exact::{Network, Serial, State};

/// What freezing costs on the given sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FreezeReport {
    /// Frames measured.
    pub frames: usize,
    /// Share of W that equals the float network's rounded output.
    pub w_agreement: f64,
    /// Share of scale indices that equal the float network's, given equal W.
    pub scale_agreement: f64,
    /// Mean distance of means from the float network's, in steps, given equal W.
    pub mean_distance: f64,
    /// Bits a frame of the same W and Y, by the networks as they were trained and by exact densities.
    pub float_bits: f64,
    /// The same, but Y by densities that are bounded as tables are (`with_escapes`), because exact densities charge any
    /// number of bits for a value far out in a tail.
    pub float_bits_with_escapes: f64,
    /// Bits a frame of W and Y by the frozen network and tables.
    pub frozen_bits: f64,
    /// Bits a frame of the same Y and its own W by networks that were trained in float.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_in_float_bits: Option<f64>,
    /// The same, but Y by densities that are bounded as tables are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_in_float_bits_with_escapes: Option<f64>,
}

/// Outputs of a frozen network for a sequence, from an empty context.
fn run(network: &Network, input: &[i16], quality: usize) -> Result<Vec<i32>> {
    let mut out = Vec::new();
    network.run(&mut State::new(network, 0), input, quality, &mut out, &Serial)?;
    Ok(out)
}

/// Y of one sequence, `[T, E]`: chosen as an encoder does (spec 6.8), but by the mean of two codecs' bits, so that
/// neither is favoured. `x` are the values to be rounded, `[T, E]`; `one` and `other` are means and logarithms of
/// scales, `[T, 2E]`.
fn chosen(x: &[f32], weight: f64, one: &[f32], other: &[f32], width: usize) -> Vec<i16> {
    let bits = |y: f32, frame: &[f32], e: usize| {
        element_bits(f64::from(y), f64::from(frame[e]), f64::from(frame[width + e]).exp2())
    };
    let frames = x.chunks_exact(width).zip(one.chunks_exact(2 * width).zip(other.chunks_exact(2 * width)));
    let y = frames.flat_map(|(x, (one, other))| {
        x.iter().enumerate().map(move |(e, x)| {
            let both = |y: f32| 0.5 * (bits(y, one, e) + bits(y, other, e));
            choose(*x, weight, |nearest, next| both(nearest) - both(next))
        })
    });
    y.map(|y| y.clamp(f32::from(Y_RANGE.0), f32::from(Y_RANGE.1)) as i16).collect()
}

/// Compares a quality of a frozen model with the float codec that it came from, and with one that was trained in float,
/// on some sequences. Y is chosen by the bits of the frozen codec and of the one trained in float.
///
/// # Errors
/// [`Error::NoH`] if the model has no encoder's part, [`Error::Codec`] if it does not fit the float codec or a
/// hidden state is not finite, [`Error::Setting`] if it has sparse maps, where the choice of one channel changes others.
pub fn compare(
    float: &FloatCodec,
    in_float: Option<&FloatCodec>,
    frozen: &Codec,
    at: At,
    sequences: &[Sequence],
) -> Result<FreezeReport> {
    let model = frozen.model();
    let (width, channels) = (model.hidden_width(), model.hyper_prior_width());
    let h = frozen.h().ok_or(Error::NoH)?;
    if matches!(float.maps, Some(FloatMaps::Sparse(_))) {
        return Err(Error::setting("the maps of a codec to compare", "sparse", "full, or none"));
    }
    let mut report = FreezeReport::default();
    let mut trained_in_float = [0.0; 2];
    let (mut same_w, mut same_scale, mut distance) = (0_usize, 0_usize, 0.0);
    for sequence in sequences {
        let Sequence { hidden, ids } = sequence;
        let nearest = &float.quantise(hidden, at)?;
        report.frames += nearest.len() / width;
        let w: Vec<i16> = run(h, nearest, at.index)?.iter().map(|value| *value as i16).collect();
        let float_w = float.w(nearest, at, None)?;
        same_w += w.iter().zip(&float_w).filter(|(a, b)| a == b).count();
        let frames = w.len() / channels;
        let side = side_indices(frozen, sequence.ids(), frames);
        let sums = model.side().map_or(Vec::new(), |model| model.sums(&side, frames));
        let mut real = run(frozen.g_y(), &network_input(&w, channels, &sums), at.index)?
            .iter()
            .map(|value| *value as f32)
            .collect::<Vec<_>>();
        let trained = float.parameters(&w, ids, at)?;
        for (real, trained) in real.chunks_exact_mut(2 * width).zip(trained.chunks_exact(2 * width)) {
            for e in 0..width {
                let index = ((f64::from(trained[width + e]) - float.grid.low) / float.grid.step()).round() as f32;
                same_scale += usize::from(index == real[width + e]);
                real[e] /= 64.0;
                distance += f64::from((real[e] - trained[e]).abs());
                real[width + e] = (float.grid.low + f64::from(real[width + e]) * float.grid.step()) as f32;
            }
        }
        let other = in_float.map(|in_float| {
            let w = in_float.w(nearest, at, None)?;
            Ok::<_, Error>((in_float, in_float.parameters(&w, ids, at)?, w))
        });
        let other = other.transpose()?;
        let x = float.to_steps(hidden, at)?;
        let second = other.as_ref().map_or(&trained, |(_, real, _)| real);
        let y = &chosen(&x, at.quality.rate_weight, &real, second, width);
        let (bits_w, bits_y) = (float.bits_w(&w, at), float.bits_y(y, &trained));
        report.float_bits += bits_w + bits_y[0];
        report.float_bits_with_escapes += bits_w + bits_y[1];
        report.frozen_bits += frozen.ideal_cost(&w, y, &side, at.index).total();
        if let Some((in_float, real, w)) = &other {
            let (bits_w, bits_y) = (in_float.bits_w(w, at), in_float.bits_y(y, real));
            trained_in_float.iter_mut().zip(bits_y).for_each(|(sum, bits)| *sum += bits_w + bits);
        }
    }
    let frames = report.frames.max(1) as f64;
    report.w_agreement = same_w as f64 / (frames * channels as f64);
    report.scale_agreement = same_scale as f64 / (frames * width as f64);
    report.mean_distance = distance / (frames * width as f64);
    report.float_bits /= frames;
    report.frozen_bits /= frames;
    report.float_bits_with_escapes /= frames;
    let [exact, with_escapes] = trained_in_float.map(|bits| in_float.map(|_| bits / frames));
    (report.trained_in_float_bits, report.trained_in_float_bits_with_escapes) = (exact, with_escapes);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::network::{LEAST_GAIN, Precision};
    use crate::codec::quality::Quality;
    use crate::codec::{Config, side};
    use crate::freeze::freeze;
    use crate::rng::Rng;
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn a_frozen_codec_computes_what_the_float_one_does() {
        frozen_equals_float(&Config::tiny());
    }

    #[test]
    fn a_frozen_codec_takes_the_side_indices_that_the_float_one_does() {
        let side = side::Shape { ages: 2, vocabulary: 30, width: 4 };
        frozen_equals_float(&Config::tiny().side(Some(side)));
    }

    #[test]
    fn a_frozen_codec_has_the_factors_of_the_float_ones_outputs() {
        frozen_equals_float(&Config::tiny().units(true));
    }

    /// The largest of such inputs is 2, and a multiplier cannot hold a gain of 2 in units that reach just that.
    #[test]
    fn gains_that_are_large_for_small_inputs_are_frozen() {
        let shape = Config::tiny();
        let mut rng = Rng::new(3);
        let mut weights = shape.init(&[0.0; 16], &[1.0; 16], &mut rng).unwrap();
        weights.insert("h.input_gain".into(), Tensor::full(2.0_f32, 16, &Device::Cpu).unwrap());
        let float = FloatCodec::from_weights(&weights, &shape, 96, Precision::AsFrozen).unwrap();
        let hidden: Vec<f32> = (0..40 * 16).map(|_| (0.3 * rng.normal()).clamp(-0.7, 0.7)).collect();
        let sequence = [Sequence { hidden, ids: Vec::new() }];
        let at = At::default();
        let frozen = Codec::new(freeze(&float, &[at.quality], &sequence, &[], 1).unwrap()).unwrap();
        let report = compare(&float, None, &frozen, at, &sequence).unwrap();
        assert!(report.w_agreement > 0.97, "{report:?}");
    }

    fn frozen_equals_float(shape: &Config) {
        let mut rng = Rng::new(3);
        let mut weights = shape.init(&[0.1; 16], &[1.0; 16], &mut rng).unwrap();
        // A gain that training would use at its floor.
        let gain = (0..16).map(|channel| if channel == 5 { 0.01 * LEAST_GAIN as f32 } else { 0.5 });
        weights.insert("h.input_gain".into(), Tensor::from_iter(gain, &Device::Cpu).unwrap());
        // Outputs of g_y that vary, about means and scales that tables have.
        let spread = |weight: &Tensor| (weight * 6.0).unwrap().to_dtype(DType::F32).unwrap();
        weights.insert("g_y.output.weight".into(), spread(&weights["g_y.output.weight"]));
        if shape.units {
            let units = (0..32).map(|row| if row < 16 { 1.0 + row as f32 / 8.0 } else { 1.0 });
            weights.insert("g_y.output.unit".into(), Tensor::from_iter(units, &Device::Cpu).unwrap());
        }
        let float = FloatCodec::from_weights(&weights, shape, 96, Precision::AsFrozen).unwrap();
        let mut sequence = || Sequence {
            hidden: (0..40 * 16).map(|_| rng.normal()).collect(),
            ids: (0..40).map(|_| rng.below(31) as u32).collect(),
        };
        let (calibration, measured) = ([sequence(), sequence()], [sequence(), sequence(), sequence()]);
        let quality = Quality { steps: 1.0, rate_weight: 0.1 };
        let frozen = Codec::new(freeze(&float, &[quality], &calibration, &[3, 4], 1).unwrap()).unwrap();
        let at = At { index: 0, quality };
        let report = compare(&float, None, &frozen, at, &measured).unwrap();
        assert_eq!(report.frames, 120);
        assert!(report.w_agreement > 0.98 && report.scale_agreement > 0.95, "{report:?}");
        assert!(report.mean_distance < 0.02, "{report:?}");
        assert!((report.frozen_bits / report.float_bits_with_escapes - 1.0).abs() < 0.01, "{report:?}");
        // Tokens matter, in the frozen codec as in the float one.
        let strange = measured.clone().map(|sequence| Sequence { ids: vec![30; 40], ..sequence });
        let unknown = compare(&float, None, &frozen, at, &strange).unwrap();
        assert_eq!(unknown.frozen_bits != report.frozen_bits, shape.side.is_some());
        assert!((unknown.frozen_bits / unknown.float_bits_with_escapes - 1.0).abs() < 0.01, "{unknown:?}");
        let none = measured.clone().map(|sequence| Sequence { ids: Vec::new(), ..sequence });
        assert_eq!(compare(&float, None, &frozen, at, &none).unwrap(), unknown);
        // Against the weights that were not rounded it disagrees: the measures tell.
        let unrounded = FloatCodec::from_weights(&weights, shape, 96, Precision::Float).unwrap();
        let other = compare(&unrounded, None, &frozen, at, &measured).unwrap();
        assert!(other.w_agreement < report.w_agreement && other.mean_distance > report.mean_distance, "{other:?}");
    }

    #[test]
    fn y_is_chosen_by_the_mean_of_both() {
        // At σ = 1/2 and mean 0 the integers 1 and 0 cost 2.67 and 0.55 bits, at σ = 4 nearly the same. 0.6 is 0.2
        // squared steps nearer to 1.
        let (sharp, flat) = ([0.0, -1.0], [0.0, 2.0]);
        let y = |weight: f64, one: &[f32], other: &[f32]| chosen(&[0.6], weight, one, other, 1)[0];
        assert_eq!((y(0.1, &sharp, &sharp), y(0.09, &sharp, &sharp)), (0, 1));
        assert_eq!((y(0.1, &sharp, &flat), y(0.2, &sharp, &flat), y(0.2, &flat, &sharp)), (1, 0, 0));
        assert_eq!((y(0.0, &sharp, &sharp), y(4.0, &flat, &flat)), (1, 1));
    }
}
