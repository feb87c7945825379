//! What errors cost the second half.

use candle_core::{Device, Tensor};
use nalgebra::DMatrix;

use super::maps;
use crate::Result;

/// What errors cost the second half.
pub(crate) struct Weighed {
    /// `[E, E]`; `None` if all errors weigh alike.
    weight: Option<Tensor>,
}

impl Weighed {
    /// By a sensitivity, `[E, E]`, if there is one; directions that it lacks have a small weight too.
    ///
    /// # Errors
    /// When the tensor cannot be made.
    pub(crate) fn new(sensitivity: Option<&DMatrix<f64>>) -> Result<Self> {
        let Some(sensitivity) = sensitivity else { return Ok(Self { weight: None }) };
        let mut matrix = sensitivity.clone();
        let floor = maps::floor(sensitivity);
        for at in 0..matrix.nrows() {
            matrix[(at, at)] += floor;
        }
        Ok(Self { weight: Some(maps::tensor(&matrix)?) })
    }

    /// The sum of the weighted squares of errors, `[T, E]`.
    ///
    /// # Errors
    /// When a computation fails.
    pub(crate) fn squares(&self, errors: &[f32]) -> Result<f64> {
        let square = |(a, b): (&f32, &f32)| f64::from(*a) * f64::from(*b);
        let Some(weight) = &self.weight else { return Ok(errors.iter().zip(errors).map(square).sum()) };
        let width = weight.dim(0)?;
        let mut sum = 0.0;
        for rows in errors.chunks(maps::ROWS * width) {
            let tensor = Tensor::from_slice(rows, (rows.len() / width, width), &Device::Cpu)?;
            let weighed = tensor.matmul(weight)?.flatten_all()?.to_vec1::<f32>()?; // [T, E]
            sum += rows.iter().zip(&weighed).map(square).sum::<f64>();
        }
        Ok(sum)
    }
}

/// The weighted variance of a covariance, `[E, E]`, by the same weights.
pub(super) fn variance(sensitivity: Option<&DMatrix<f64>>, covariance: &DMatrix<f64>) -> f64 {
    sensitivity.map_or_else(
        || covariance.trace(),
        |sensitivity| sensitivity.dot(covariance) + maps::floor(sensitivity) * covariance.trace(),
    )
}
