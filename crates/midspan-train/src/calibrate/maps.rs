//! The linear maps: they put noise where the second half notices it least, and make channels uncorrelated.
//!
//! To second order, noise e on hidden states changes the predictions by a divergence of ½ eᵀFe, where F is the
//! predictions' Fisher information in the hidden state (S. Amari, Information Geometry and Its Applications, 2016).
//! Rounding after a map A makes e = A⁻¹u, where u is white noise in every channel, and the more A stretches, the more
//! bits it costs. For a given divergence the bits are least if AᵀA is a multiple of F, whatever rotation follows.
//! Densities code each channel separately, so the best rotation is the one that makes the channels of A (hidden − mean)
//! uncorrelated (V. Goyal, Theoretical foundations of transform coding, 2001).

use candle_core::{D, Device, Tensor, Var};
use nalgebra::{DMatrix, DVector, SymmetricEigen};

use crate::base::tokens;
use crate::data::Batch;
use crate::rng::Rng;
use crate::{Error, Result};
use midspan_host::split::SplitHost;

/// How many next tokens are drawn for each position to estimate the Fisher information.
const DRAWS: usize = 4;
/// Added to every direction's information, as a fraction of the mean, because directions that the draws missed matter
/// too.
const FLOOR: f64 = 1e-3;
/// Frames that are multiplied at a time.
pub(crate) const ROWS: usize = 4_096;

/// What is added to every direction of this information, `[E, E]`.
pub(crate) fn floor(information: &DMatrix<f64>) -> f64 {
    FLOOR * information.trace() / information.nrows() as f64
}

/// Both maps, and the standard deviation of each channel after the first map.
#[derive(Clone, Debug)]
pub struct Maps {
    /// `[E, E]`, before the quantiser: rows are channels.
    pub analysis: DMatrix<f64>,
    /// `[E, E]`, its inverse.
    pub synthesis: DMatrix<f64>,
    /// `[E]`; the median of those that vary is 1.
    pub spreads: DVector<f64>,
}

/// Maps for hidden states of this covariance, `[E, E]`, where errors are weighted by `information`, `[E, E]`.
///
/// # Errors
/// [`Error::NoMap`] if hidden states do not vary, or errors have no weight.
pub fn maps(information: &DMatrix<f64>, covariance: &DMatrix<f64>) -> Result<Maps> {
    let width = covariance.nrows();
    let floor = floor(information);
    let eigen = SymmetricEigen::new(information + DMatrix::identity(width, width) * floor);
    let power = |exponent: f64| {
        let powers = eigen.eigenvalues.map(|value| value.max(floor).powf(exponent));
        &eigen.eigenvectors * DMatrix::from_diagonal(&powers) * eigen.eigenvectors.transpose()
    };
    let (root, inverse) = (power(0.5), power(-0.5));
    let weighted = SymmetricEigen::new(&root * covariance * &root);
    let variances = &weighted.eigenvalues;
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
        analysis: weighted.eigenvectors.transpose() * root / middle,
        synthesis: inverse * weighted.eigenvectors * middle,
        spreads: spreads / middle,
    })
}

/// The mean over positions of the Fisher information that all predictions have in the hidden state at a position,
/// `[E, E]`.
///
/// # Errors
/// [`Error::Independent`] if predictions do not depend on hidden states, [`Error::Tensor`] if a computation fails.
pub fn information(host: &dyn SplitHost, batch: &Batch, rng: &mut Rng) -> Result<DMatrix<f64>> {
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

/// Mean and covariance of hidden states, `[T, E]`: `[E]` and `[E, E]`.
///
/// # Errors
/// When a computation fails.
pub fn moments(hidden: &[f32], width: usize) -> Result<(Vec<f32>, DMatrix<f64>)> {
    let frames = hidden.len() / width;
    let mut mean = vec![0.0_f64; width];
    for row in hidden.chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let mean: Vec<f32> = mean.iter().map(|sum| (sum / frames as f64) as f32).collect();
    // Squares of values near 1 neither overflow nor vanish.
    let distance = |row: &[f32]| {
        row.iter().zip(&mean).fold(0.0_f64, |most, (x, mean)| most.max((f64::from(*x) - f64::from(*mean)).abs()))
    };
    let largest = hidden.chunks_exact(width).map(distance).fold(0.0, f64::max);
    let unit = if largest > 0.0 { largest } else { 1.0 };
    let mut covariance = DMatrix::zeros(width, width);
    for rows in hidden.chunks(ROWS * width) {
        let scaled = |(x, mean): (&f32, &f32)| ((f64::from(*x) - f64::from(*mean)) / unit) as f32;
        let centred: Vec<f32> = rows.chunks_exact(width).flat_map(|row| row.iter().zip(&mean).map(scaled)).collect();
        covariance += gram(&Tensor::from_vec(centred, (rows.len() / width, width), &Device::Cpu)?)?;
    }
    Ok((mean, covariance * (unit * unit / frames as f64)))
}

/// The sum of the outer products of rows `[.., N, E]` with themselves, `[E, E]`.
pub(crate) fn gram(rows: &Tensor) -> Result<DMatrix<f64>> {
    let width = rows.dim(D::Minus1)?;
    let rows = rows.reshape(((), width))?; // [.., N, E] -> [N', E]
    let product = rows.t()?.contiguous()?.matmul(&rows.contiguous()?)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(DMatrix::from_iterator(width, width, product.into_iter().map(f64::from)))
}

/// The values of a matrix, row by row.
pub fn rows(matrix: &DMatrix<f64>) -> Vec<f32> {
    // nalgebra stores columns.
    matrix.transpose().iter().map(|value| *value as f32).collect()
}

/// A matrix as a tensor.
///
/// # Errors
/// When the tensor cannot be made.
pub fn tensor(matrix: &DMatrix<f64>) -> Result<Tensor> {
    Ok(Tensor::from_vec(rows(matrix), (matrix.nrows(), matrix.ncols()), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Corpus;
    use crate::fit::divergence;
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
        let mapped = &found.analysis * &covariance * found.analysis.transpose();
        assert!(distance(&mapped, &DMatrix::from_diagonal(&found.spreads.map(|spread| spread * spread))) < 1e-9);
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
}
