//! Empirical Rademacher complexity of the target representation (paper, equation 83; P. L. Bartlett and S. Mendelson, 2002).

use candle_core::{Device, Tensor};

use midspan_train::Error;
use midspan_train::rng::Rng;

/// Vectors of signs in one product.
const CHUNK: usize = 64;

/// Mean over `signs` random vectors a ∈ {−1, 1}^N of max over dimensions of |Σ a_k x_k| / N, for samples `[N, D]`.
///
/// # Errors
/// When a computation fails.
pub(crate) fn complexity(samples: &Tensor, signs: usize, seed: u64) -> Result<f64, Error> {
    let n = samples.dim(0)?;
    let mut rng = Rng::new(seed);
    let (mut sum, mut done) = (0.0, 0);
    while done < signs {
        let rows = CHUNK.min(signs - done);
        let a: Vec<f32> = (0..rows * n).map(|_| if rng.below(2) == 0 { -1.0 } else { 1.0 }).collect();
        let sums = Tensor::from_vec(a, (rows, n), &Device::Cpu)?.matmul(samples)?; // [rows, D]
        sum += f64::from(sums.abs()?.max(1)?.sum_all()?.to_scalar::<f32>()?);
        done += rows;
    }
    Ok(sum / (n as f64 * signs.max(1) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_complexities() {
        // One sample gives always its largest magnitude. Two equal samples give that or 0, each half of the time.
        let row = [1.0f32, -3.0, 2.0];
        let one = Tensor::new(&[row], &Device::Cpu).unwrap();
        assert!((complexity(&one, 100, 1).unwrap() - 3.0).abs() < 1e-6);
        let two = Tensor::new(&[row, row], &Device::Cpu).unwrap();
        let found = complexity(&two, 4000, 1).unwrap();
        assert!((found - 1.5).abs() < 0.1, "{found}");
        // N independent values ±1 in one dimension give about sqrt(2 / (π N)).
        let ones = Tensor::ones((400, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        let found = complexity(&ones, 3000, 2).unwrap();
        assert!((found - (2.0 / (std::f64::consts::PI * 400.0)).sqrt()).abs() < 2e-3, "{found}");
    }
}
