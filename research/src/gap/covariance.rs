//! The determinant of a covariance, from its eigenvalues above 0 (paper, D.2).
//!
//! Let the rows of X be N centred samples in D dimensions. The covariance XᵀX / N has the same eigenvalues above 0 as
//! the N × N matrix XXᵀ / N, of which all are found here. (The paper approximates them by Arnoldi's iteration.)

use candle_core::{DType, Tensor};
use nalgebra::DMatrix;

use super::Error;

/// Half the mean natural logarithm of the eigenvalues above 0 of the covariance of samples `[N, D]`.
///
/// # Errors
/// [`Error::FewSamples`] for fewer than two samples, [`Error::Constant`] if the samples do not vary, and
/// [`Error::Train`] if a computation fails.
pub(crate) fn half_log_determinant(samples: &Tensor) -> Result<f64, Error> {
    let n = samples.dim(0)?;
    if n < 2 {
        return Err(Error::FewSamples { samples: n });
    }
    let samples = samples.to_dtype(DType::F64)?;
    let centred = samples.broadcast_sub(&samples.mean_keepdim(0)?)?;
    let gram = (centred.matmul(&centred.t()?)? / n as f64)?; // [N, N]
    let gram = DMatrix::from_iterator(n, n, gram.flatten_all()?.to_vec1::<f64>()?);
    let eigenvalues = gram.symmetric_eigenvalues();
    // Centring makes the vector of ones an eigenvector of 0, which rounding may turn into a small number.
    let least = ZERO * eigenvalues.max();
    let logarithms: Vec<f64> = eigenvalues.iter().filter(|value| **value > least).map(|value| value.ln()).collect();
    if logarithms.is_empty() {
        return Err(Error::Constant);
    }
    Ok(0.5 * logarithms.iter().sum::<f64>() / logarithms.len() as f64)
}

/// Eigenvalues below this fraction of the largest count as 0.
const ZERO: f64 = 1e-10;

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use midspan_train::rng::Rng;

    fn samples(n: usize, deviations: &[f64]) -> Tensor {
        let mut rng = Rng::new(3);
        let values: Vec<f32> = (0..n)
            .flat_map(|_| deviations.iter().map(|d| (*d as f32) * rng.normal() + 5.0).collect::<Vec<_>>())
            .collect();
        Tensor::from_vec(values, (n, deviations.len()), &Device::Cpu).unwrap()
    }

    #[test]
    fn the_determinant_of_known_deviations() {
        // More samples than dimensions: the three eigenvalues above 0 are the variances, except for sampling errors.
        let deviations = [4.0, 1.0, 0.5];
        let found = half_log_determinant(&samples(2_000, &deviations)).unwrap();
        let want = deviations.iter().map(|d| f64::ln(*d)).sum::<f64>() / 3.0;
        assert!((found - want).abs() < 0.15, "{found} {want}");
        // Doubling the samples' scale adds ln 2.
        let wide = samples(50, &[1.0; 200]);
        let (a, b) = (half_log_determinant(&wide).unwrap(), half_log_determinant(&(&wide * 2.0).unwrap()).unwrap());
        assert!((b - a - 2f64.ln()).abs() < 1e-3, "{a} {b}");
        let level = half_log_determinant(&wide.zeros_like().unwrap());
        assert!(matches!(level, Err(Error::Constant)), "{level:?}");
        let one = half_log_determinant(&wide.narrow(0, 0, 1).unwrap());
        assert!(matches!(one, Err(Error::FewSamples { samples: 1 })), "{one:?}");
    }

    /// The eigenvalue 0 from centring is never counted, whatever its value after rounding.
    #[test]
    fn all_eigenvalues_but_that_of_the_mean_are_counted() {
        for seed in 0..4 {
            let (n, d) = (40, 300);
            let mut rng = Rng::new(seed);
            let values: Vec<f32> = (0..n * d).map(|_| (3.0 * rng.normal()).round() + 40.0).collect();
            let found = half_log_determinant(&Tensor::from_slice(&values, (n, d), &Device::Cpu).unwrap()).unwrap();
            let x = DMatrix::from_row_iterator(n, d, values.into_iter().map(f64::from));
            let centred = DMatrix::from_fn(n, d, |row, column| x[(row, column)] - x.column(column).mean());
            // 1 / N in every place turns the eigenvalue 0 into 1 and leaves the others alone.
            let matrix = (&centred * centred.transpose()).add_scalar(1.0) / n as f64;
            let determinant: f64 = matrix.cholesky().unwrap().l().diagonal().iter().map(|value| value.ln()).sum();
            let want = determinant / (n - 1) as f64;
            assert!((found - want).abs() < 1e-9, "{seed}: {found} {want}");
        }
    }
}
