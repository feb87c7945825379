//! The maps and steps that a fit begins with: those of a calibration ([`crate::calibrate::maps`]).

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use nalgebra::DMatrix;

use super::{set_gains_and_scales, spread, variable};
use crate::Error;
use crate::base::tokens;
use crate::calibrate::maps::{gram, information, maps, tensor};
use crate::codec::quantiser::START;
use crate::data::Batch;
use crate::rng::Rng;
use midspan_host::split::SplitHost;

/// Raised whenever the initial maps change, so that runs with other initial maps are not resumed and their results
/// count as different.
pub(super) const BEGINNING: &str = "2";
/// The largest gain of a new h. A channel whose Y is nearly always 0 needs no more, and a frozen network cannot hold a
/// gain that is far larger than the others.
const GAIN: f32 = 2.0;
/// The lowest base-2 logarithm of a new scale in steps, below the tables' lowest.
const SCALE: f32 = -4.0;

/// Sets the initial maps and steps in the codec's variables. h's gains are adapted so that it sees the same values as
/// before, and g_y's scales begin where they fit.
///
/// # Errors
/// [`Error::Tensor`] if a computation fails, [`Error::Lacks`] if a variable is missing, [`Error::NoMap`] if hidden states
/// do not vary, [`Error::Independent`] if predictions do not depend on them.
pub(super) fn begin(host: &dyn SplitHost, batch: &Batch, seed: u64, vars: &BTreeMap<String, Var>) -> Result<(), Error> {
    let (mean, covariance) = moments(host, batch)?;
    let maps = maps(&information(host, batch, &mut Rng::new(seed))?, &covariance)?;
    let set = |name: &str, t: Tensor| -> Result<(), Error> { Ok(variable(vars, name)?.set(&t)?) };
    set("quantiser.analysis", tensor(&maps.analysis)?)?;
    set("quantiser.synthesis", tensor(&maps.synthesis)?)?;
    // All channels have the same step, which gives a spread of 1 the same standard deviation of Y as new steps give.
    set("quantiser.log_step", Tensor::full(-START.ln(), maps.spreads.len(), &Device::Cpu)?)?;
    set("quantiser.offset", mean)?;
    spread(vars, maps.spreads.as_slice())
}

/// Bounds h's gains and g_y's scales for channels that hardly vary. To be called once the initial steps are set.
///
/// # Errors
/// When a variable is missing or cannot be set.
pub(super) fn bound(vars: &BTreeMap<String, Var>) -> Result<(), Error> {
    set_gains_and_scales(vars, |gains| gains.minimum(GAIN), |scales| scales.maximum(SCALE))
}

/// Mean and covariance of the hidden states of a batch, `[E]` and `[E, E]`. Results record [`BEGINNING`], so they keep
/// the bits of this computation in f32.
fn moments(host: &dyn SplitHost, batch: &Batch) -> Result<(Tensor, DMatrix<f64>), Error> {
    let hidden = host.head(&tokens(batch)?)?.detach().flatten(0, 1)?; // [rows * T, E]
    let mean = hidden.mean(0)?;
    let covariance = gram(&hidden.broadcast_sub(&mean)?)? / hidden.dim(0)? as f64;
    Ok((mean, covariance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::network::Precision;
    use crate::codec::{Codec, Config};
    use crate::data::Corpus;
    use crate::joint::add_codec;
    use midspan_host::llama::Llama;
    use midspan_host::testing::llama_file;

    fn batch() -> Batch {
        let corpus = Corpus::from_ids((0..900u32).map(|i| i * i / 7 % 30).collect());
        corpus.batch(16, 10, &mut Rng::new(1)).unwrap()
    }

    fn spread_by(vars: &BTreeMap<String, Var>, factor: f64) {
        spread(vars, &vec![factor; vars["h.input_gain"].elem_count()]).unwrap();
    }

    #[test]
    fn a_codec_begins_as_its_maps_leave_its_channels() {
        let host = Llama::from_bytes(&llama_file(30), 1).unwrap();
        let (batch, cfg) = (batch(), Config { maps: true, ..Config::tiny() });
        let mut vars = BTreeMap::new();
        add_codec(&cfg, &host, &batch, &mut Rng::new(2), &mut vars).unwrap();
        let scales = |vars: &BTreeMap<String, Var>| {
            let bias = vars["g_y.output.bias"].to_vec1::<f32>().unwrap();
            bias[bias.len() / 2..].to_vec()
        };
        let before = scales(&vars);
        begin(&host, &batch, 5, &vars).unwrap();
        let codec = Codec::new(&cfg, Precision::AsFrozen, &vars).unwrap();
        let hidden = host.head(&tokens(&batch).unwrap()).unwrap();
        let x = codec.quantiser.to_steps(&hidden).unwrap();
        let spreads = |x: &Tensor| -> Vec<f32> {
            let x = x.flatten(0, 1).unwrap();
            let centred = x.broadcast_sub(&x.mean_keepdim(0).unwrap()).unwrap();
            centred.sqr().unwrap().mean(0).unwrap().sqrt().unwrap().to_vec1().unwrap()
        };
        let spread = spreads(&x);
        assert!(spread.iter().any(|spread| *spread > 2.0 * START) && spread.iter().any(|spread| *spread < 0.5 * START));
        // h sees the same values as before from channels with a spread of START, and g_y's scales are wider
        // accordingly.
        let seen = x.broadcast_mul(vars["h.input_gain"].as_tensor()).unwrap();
        assert!(spreads(&seen).iter().all(|seen| (seen - 0.5 * START).abs() < 0.02), "{:?}", spreads(&seen));
        for ((scale, before), spread) in scales(&vars).iter().zip(before).zip(spread) {
            assert!((scale - before - (spread / START).log2()).abs() < 0.02);
        }
        // Gains of channels that hardly vary are bounded; the others are unchanged.
        let gains = |vars: &BTreeMap<String, Var>| vars["h.input_gain"].to_vec1::<f32>().unwrap();
        let (wide, narrow) = (gains(&vars), scales(&vars));
        bound(&vars).unwrap();
        assert_eq!(gains(&vars), wide.iter().map(|gain| gain.min(GAIN)).collect::<Vec<_>>());
        assert_eq!(scales(&vars), narrow);
        spread_by(&vars, 1e-6);
        bound(&vars).unwrap();
        assert!(gains(&vars).iter().all(|gain| *gain == GAIN) && scales(&vars).iter().all(|scale| *scale == SCALE));
        let back = codec.quantiser.reconstruct(&x).unwrap();
        let distance = (back - hidden).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(distance.to_scalar::<f32>().unwrap() < 1e-3);
    }
}
