//! The initial linear maps: they put noise where it affects the host's predictions least, and make channels
//! uncorrelated.
//!
//! To second order, noise e on hidden states changes the predictions by a divergence of ½ eᵀFe, where F is the
//! predictions' Fisher information in the hidden state (S. Amari, Information Geometry and Its Applications, 2016).
//! Rounding after a map A makes e = A⁻¹u, where u is white noise in every channel, and the more A stretches, the more
//! bits it costs. For a given divergence the bits are least if AᵀA is a multiple of F, whatever rotation follows.
//! Densities code each channel separately, so the best rotation is the one that makes the channels of A (hidden − mean)
//! uncorrelated (V. Goyal, Theoretical foundations of transform coding, 2001).

use std::collections::BTreeMap;

use candle_core::{D, Device, Tensor, Var};
use nalgebra::{DMatrix, DVector, SymmetricEigen};

use super::{set_gains_and_scales, spread, variable};
use crate::Error;
use crate::base::tokens;
use crate::codec::quantiser::START;
use crate::data::Batch;
use crate::rng::Rng;
use midspan_host::split::SplitHost;

/// How many next tokens are drawn for each position to estimate the Fisher information.
const DRAWS: usize = 4;
/// Added to every direction's information, as a fraction of the mean, because directions that the draws missed matter
/// too.
const FLOOR: f64 = 1e-3;

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

/// Both maps, and the standard deviation of each channel after the first map.
struct Maps {
    analysis: DMatrix<f64>,
    synthesis: DMatrix<f64>,
    spreads: DVector<f64>,
}

fn maps(information: &DMatrix<f64>, covariance: &DMatrix<f64>) -> Result<Maps, Error> {
    let width = covariance.nrows();
    let floor = FLOOR * information.trace() / width as f64;
    let eigen = SymmetricEigen::new(information + DMatrix::identity(width, width) * floor);
    let power = |exponent: f64| {
        let powers = eigen.eigenvalues.map(|value| value.max(floor).powf(exponent));
        &eigen.eigenvectors * DMatrix::from_diagonal(&powers) * eigen.eigenvectors.transpose()
    };
    let (root, inverse) = (power(0.5), power(-0.5));
    let behind = SymmetricEigen::new(&root * covariance * &root);
    let variances = &behind.eigenvalues;
    let largest = variances.max();
    if !(largest > 0.0 && largest.is_finite() && floor > 0.0) {
        return Err(Error::NoMap);
    }
    // A direction that does not vary must not make a channel infinite.
    let spreads = variances.map(|variance| variance.max(1e-12 * largest).sqrt());
    let mut live: Vec<f64> = spreads.iter().copied().filter(|spread| *spread > 1.01e-6 * largest.sqrt()).collect();
    live.sort_by(f64::total_cmp);
    // One factor for all, so that the median channel among those that vary has a spread of 1.
    let middle = live[live.len() / 2];
    Ok(Maps {
        analysis: behind.eigenvectors.transpose() * root / middle,
        synthesis: inverse * behind.eigenvectors * middle,
        spreads: spreads / middle,
    })
}

/// The mean over positions of the Fisher information that all predictions have in the hidden state at a position, `[E,
/// E]`.
fn information(host: &dyn SplitHost, batch: &Batch, rng: &mut Rng) -> Result<DMatrix<f64>, Error> {
    let width = host.width();
    let mut sum = DMatrix::zeros(width, width);
    for window in batch.split(1) {
        let hidden = Var::from_tensor(&host.head(&tokens(&window)?)?.detach())?; // [1, T, E]
        let log_p = candle_nn::ops::log_softmax(&host.tail(hidden.as_tensor(), window.len)?, D::Minus1)?; // [1, T, vocab]
        let p = log_p.detach().exp()?.get(0)?.to_vec2::<f32>()?;
        for _ in 0..DRAWS {
            let drawn: Vec<u32> = p.iter().map(|p| rng.draw(p) as u32).collect();
            let drawn = Tensor::from_vec(drawn, (1, window.len, 1), &Device::Cpu)?;
            let grads = log_p.gather(&drawn, D::Minus1)?.sum_all()?.backward()?;
            let score =
                grads.get(&hidden).ok_or(Error::Independent { output: "predictions", input: "the hidden state" })?;
            sum += gram(score)?;
        }
    }
    Ok(sum / (DRAWS * batch.rows * batch.len) as f64)
}

/// Mean and covariance of hidden states, `[E]` and `[E, E]`.
fn moments(host: &dyn SplitHost, batch: &Batch) -> Result<(Tensor, DMatrix<f64>), Error> {
    let hidden = host.head(&tokens(batch)?)?.detach().flatten(0, 1)?; // [rows * T, E]
    let mean = hidden.mean(0)?;
    let covariance = gram(&hidden.broadcast_sub(&mean)?)? / hidden.dim(0)? as f64;
    Ok((mean, covariance))
}

/// The sum of the outer products of rows `[.., N, E]` with themselves, `[E, E]`.
fn gram(rows: &Tensor) -> Result<DMatrix<f64>, Error> {
    let width = rows.dim(D::Minus1)?;
    let rows = rows.reshape(((), width))?; // [.., N, E] -> [N', E]
    let product = rows.t()?.contiguous()?.matmul(&rows.contiguous()?)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(DMatrix::from_iterator(width, width, product.into_iter().map(f64::from)))
}

fn tensor(matrix: &DMatrix<f64>) -> Result<Tensor, Error> {
    // nalgebra stores columns, candle stores rows.
    let values: Vec<f32> = matrix.transpose().iter().map(|value| *value as f32).collect();
    Ok(Tensor::from_vec(values, (matrix.nrows(), matrix.ncols()), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::network::Precision;
    use crate::codec::{Codec, Config};
    use crate::data::Corpus;
    use crate::fit::divergence;
    use crate::joint::add_codec;
    use midspan_host::llama::Llama;
    use midspan_host::testing::llama_file;

    fn batch() -> Batch {
        let corpus = Corpus::from_ids((0..900u32).map(|i| i * i / 7 % 30).collect());
        corpus.batch(16, 10, &mut Rng::new(1)).unwrap()
    }

    #[test]
    fn noise_follows_the_information_and_channels_are_uncorrelated() {
        let mut rng = Rng::new(3);
        let mut random = || DMatrix::from_fn(6, 6, |_, _| f64::from(rng.normal()));
        let (a, b) = (random(), random());
        let (information, covariance) = (&a * a.transpose(), &b * b.transpose() * 9.0);
        let found = maps(&information, &covariance).unwrap();
        let distance = |one: &DMatrix<f64>, other: &DMatrix<f64>| (one - other).abs().max() / other.abs().max();
        assert!(distance(&(&found.analysis * &found.synthesis), &DMatrix::identity(6, 6)) < 1e-9);
        let stretched = found.analysis.transpose() * &found.analysis;
        assert!(distance(&(&stretched / stretched.trace()), &(&information / information.trace())) < 0.01);
        let behind = &found.analysis * &covariance * found.analysis.transpose();
        assert!(distance(&behind, &DMatrix::from_diagonal(&found.spreads.map(|spread| spread * spread))) < 1e-9);
        let count =
            |found: &Maps, counts: fn(f64) -> bool| found.spreads.iter().filter(|spread| counts(**spread)).count();
        assert_eq!((count(&found, |spread| spread < 1.0 - 1e-9), count(&found, |spread| spread > 1.0 + 1e-9)), (3, 2));
        // A direction that never varies makes no map infinite.
        let flat = DMatrix::from_diagonal(&DVector::from_vec(vec![1.0, 1.0, 1.0, 1.0, 0.0, 0.0]));
        let found = maps(&information, &(&flat * &covariance * &flat)).unwrap();
        assert_eq!((count(&found, |spread| spread < 1e-4), count(&found, |spread| spread < 1.0 - 1e-9)), (2, 4));
        assert!(distance(&(&found.analysis * &found.synthesis), &DMatrix::identity(6, 6)) < 1e-9);
        let still = DMatrix::zeros(6, 6);
        assert!(maps(&information, &still).is_err() && maps(&still, &covariance).is_err());
    }

    #[test]
    fn the_information_tells_the_divergence_of_small_noise() {
        let host = Llama::from_bytes(&llama_file(30), 1).unwrap();
        let batch = batch();
        let information = information(&host, &batch, &mut Rng::new(1)).unwrap();
        let hidden = host.head(&tokens(&batch).unwrap()).unwrap();
        let should = host.tail(&hidden, batch.len).unwrap();
        let mut rng = Rng::new(2);
        let directions = SymmetricEigen::new(information.clone()).eigenvectors;
        let (size, width) = (1e-2, host.width());
        // Along the direction that matters least, along the one that matters most, and along all.
        let order = |at: usize| (directions.column(at).transpose() * &information * directions.column(at))[0];
        let (mut least, mut most) = (0, 0);
        for at in 0..width {
            least = if order(at) < order(least) { at } else { least };
            most = if order(at) > order(most) { at } else { most };
        }
        for (along, expected) in [(Some(least), order(least)), (Some(most), order(most)), (None, information.trace())] {
            let mut noise = |_: usize| -> Vec<f32> {
                let random = DVector::from_fn(width, |_, _| f64::from(rng.normal()));
                let kept = along.map_or(random.clone(), |at| directions.column(at) * random[0]);
                kept.iter().map(|value| (size * value) as f32).collect()
            };
            let noise: Vec<f32> = (0..batch.rows * batch.len).flat_map(&mut noise).collect();
            let noise = Tensor::from_vec(noise, hidden.shape(), &Device::Cpu).unwrap();
            let are = host.tail(&(&hidden + noise).unwrap(), batch.len).unwrap();
            let found = f64::from(divergence(&should, &are).unwrap().to_scalar::<f32>().unwrap());
            let ratio = found / (0.5 * size * size * expected);
            assert!((0.6..1.6).contains(&ratio), "{along:?}: {ratio}");
        }
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
