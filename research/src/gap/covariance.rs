//! The determinant of a covariance, from the eigenvalues that Arnoldi's iteration finds (paper, D.2).
//!
//! Let the rows of X be N centred samples in D dimensions. The covariance XᵀX / N has the same eigenvalues above 0 as
//! the N × N matrix XXᵀ / N, on which the iteration runs here. The iteration builds an orthonormal basis of the Krylov
//! space of a start vector, and the Hessenberg matrix of the map in it (W. E. Arnoldi, 1951; G. W. Stewart, 2002). The
//! eigenvalues of that matrix approximate those of the map, the outermost ones first; after N − 1 iterations all are
//! found. Centring makes the vector of ones an eigenvector of 0. It is kept out of the space, so that rounding cannot
//! turn it into a false eigenvalue.

use candle_core::{DType, Tensor};
use nalgebra::{DMatrix, DVector, SymmetricEigen};

use super::Error;
use midspan_train::rng::Rng;

/// Half the mean natural logarithm of the eigenvalues that `iterations` iterations find for the covariance of samples
/// `[N, D]`.
///
/// # Errors
/// [`Error::FewSamples`] for fewer than two samples or no iteration, [`Error::Constant`] if the samples do not vary, and
/// [`Error::Train`] if a computation fails.
pub(crate) fn half_log_determinant(samples: &Tensor, iterations: usize) -> Result<f64, Error> {
    let n = samples.dim(0)?;
    if n < 2 || iterations == 0 {
        return Err(Error::FewSamples { samples: n, iterations });
    }
    let samples = samples.to_dtype(DType::F64)?;
    let centred = samples.broadcast_sub(&samples.mean_keepdim(0)?)?;
    let gram = (centred.matmul(&centred.t()?)? / n as f64)?; // [N, N]
    let gram = DMatrix::from_iterator(n, n, gram.flatten_all()?.to_vec1::<f64>()?);
    let eigenvalues = arnoldi(&gram, iterations.min(n - 1), |vector| vector.add_scalar_mut(-vector.mean()));
    let least = ZERO * eigenvalues.iter().copied().fold(0.0, f64::max);
    let logarithms: Vec<f64> = eigenvalues.iter().filter(|value| **value > least).map(|value| value.ln()).collect();
    if logarithms.is_empty() {
        return Err(Error::Constant);
    }
    Ok(0.5 * logarithms.iter().sum::<f64>() / logarithms.len() as f64)
}

/// Eigenvalues below this fraction of the largest count as 0.
const ZERO: f64 = 1e-10;

/// Eigenvalues of the Hessenberg matrix of a symmetric map after at most `iterations` iterations. `keep` projects
/// vectors back to the space of the iteration.
fn arnoldi(map: &DMatrix<f64>, iterations: usize, keep: impl Fn(&mut DVector<f64>)) -> Vec<f64> {
    let n = map.nrows();
    let mut rng = Rng::new(1);
    // The start vector is in the map's range, so that no iteration is spent on eigenvalues of 0.
    let mut start = map * DVector::from_fn(n, |_, _| f64::from(rng.normal()));
    keep(&mut start);
    let mut basis = vec![start.normalize()];
    let mut hessenberg = DMatrix::zeros(iterations, iterations);
    let mut taken = 0;
    let largest = map.diagonal().max();
    while taken < iterations {
        let mut next = map * &basis[taken];
        // Done twice, because rounding errors remain after the first time.
        for _ in 0..2 {
            keep(&mut next);
            for (row, vector) in basis.iter().enumerate() {
                let along = vector.dot(&next);
                hessenberg[(row, taken)] += along;
                next.axpy(-along, vector, 1.0);
            }
        }
        taken += 1;
        let rest = next.norm();
        // The space is exhausted.
        if taken == iterations || rest <= 1e-9 * largest {
            break;
        }
        hessenberg[(taken, taken - 1)] = rest;
        basis.push(next / rest);
    }
    let found = hessenberg.view((0, 0), (taken, taken)).into_owned();
    // For a symmetric map the matrix is symmetric except for rounding.
    SymmetricEigen::new((&found + found.transpose()) * 0.5).eigenvalues.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn samples(n: usize, deviations: &[f64]) -> Tensor {
        let mut rng = Rng::new(3);
        let values: Vec<f32> = (0..n)
            .flat_map(|_| deviations.iter().map(|d| (*d as f32) * rng.normal() + 5.0).collect::<Vec<_>>())
            .collect();
        Tensor::from_vec(values, (n, deviations.len()), &Device::Cpu).unwrap()
    }

    #[test]
    fn all_eigenvalues_are_found_and_the_largest_first() {
        let map = DMatrix::from_diagonal(&DVector::from_fn(40, |i, _| (i + 1) as f64));
        let mut all = arnoldi(&map, 40, |_| ());
        all.sort_by(f64::total_cmp);
        assert!(all.iter().enumerate().all(|(i, value)| (value - (i + 1) as f64).abs() < 1e-8), "{all:?}");
        let some = arnoldi(&map, 25, |_| ());
        let top = some.iter().copied().fold(0.0, f64::max);
        assert!(some.len() == 25 && (top - 40.0).abs() < 1e-3, "{top}");
        // A map of rank 1 has one eigenvalue, and the Krylov space has one dimension.
        let ones = DMatrix::from_element(10, 10, 1.0);
        assert!(arnoldi(&ones, 10, |_| ()).iter().any(|value| (value - 10.0).abs() < 1e-9));
    }

    #[test]
    fn the_determinant_of_known_deviations() {
        // More samples than dimensions: the three eigenvalues above 0 are the variances, except for sampling errors.
        let deviations = [4.0, 1.0, 0.5];
        let found = half_log_determinant(&samples(2_000, &deviations), 3).unwrap();
        let want = deviations.iter().map(|d| f64::ln(*d)).sum::<f64>() / 3.0;
        assert!((found - want).abs() < 0.15, "{found} {want}");
        // Doubling the samples' scale adds ln 2.
        let wide = samples(50, &[1.0; 200]);
        let (a, b) =
            (half_log_determinant(&wide, 49).unwrap(), half_log_determinant(&(&wide * 2.0).unwrap(), 49).unwrap());
        assert!((b - a - 2f64.ln()).abs() < 1e-3, "{a} {b}");
        let level = half_log_determinant(&wide.zeros_like().unwrap(), 49);
        assert!(matches!(level, Err(Error::Constant)), "{level:?}");
        let one = half_log_determinant(&wide.narrow(0, 0, 1).unwrap(), 49);
        assert!(matches!(one, Err(Error::FewSamples { samples: 1, iterations: 49 })), "{one:?}");
    }

    /// The eigenvalue 0 from centring is never counted, whatever its value after rounding.
    #[test]
    fn all_eigenvalues_but_that_of_the_mean_are_counted() {
        for seed in 0..4 {
            let (n, d) = (40, 300);
            let mut rng = Rng::new(seed);
            let values: Vec<f32> = (0..n * d).map(|_| (3.0 * rng.normal()).round() + 40.0).collect();
            let found =
                half_log_determinant(&Tensor::from_slice(&values, (n, d), &Device::Cpu).unwrap(), n - 1).unwrap();
            let x = DMatrix::from_row_iterator(n, d, values.into_iter().map(f64::from));
            let centred = DMatrix::from_fn(n, d, |row, column| x[(row, column)] - x.column(column).mean());
            let mut all: Vec<f64> =
                SymmetricEigen::new(&centred * centred.transpose() / n as f64).eigenvalues.iter().copied().collect();
            all.sort_by(f64::total_cmp);
            let want = 0.5 * all[1..].iter().map(|value| value.ln()).sum::<f64>() / (n - 1) as f64;
            assert!(all[0].abs() < 1e-9 && (found - want).abs() < 1e-9, "{seed}: {found} {want}");
        }
    }
}
