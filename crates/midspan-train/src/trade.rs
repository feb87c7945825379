//! The loss that training minimises: the task's loss plus λ times the bits of Y and W (paper,
//! equation 5).

use candle_core::Tensor;

use super::Error;
use super::codec::entropy_model::Priced;
use super::runner::Metrics;

/// The price of a bit in the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trade {
    /// λ, nats a bit.
    pub lambda: f64,
    /// Steps over which λ rises from 0.
    pub ramp: u64,
}

/// A scalar's value.
///
/// # Errors
/// When the tensor is not a scalar of f32.
pub fn scalar(t: &Tensor) -> Result<f64, Error> {
    Ok(f64::from(t.to_scalar::<f32>()?))
}

/// Mean bits of a frame (a scalar), and the figures of a batch: bits and spread of Y and W.
///
/// # Errors
/// When the computation fails.
pub fn bits(priced: &Priced) -> Result<(Tensor, Metrics), Error> {
    let (bits_y, bits_w) = (priced.bits_y.mean_all()?, priced.bits_w.mean_all()?);
    let spread = |t: &Tensor| -> Result<f64, Error> { Ok(scalar(&t.detach().sqr()?.mean_all()?)?.sqrt()) };
    let mut metrics = Metrics::from([
        ("bits_y".to_string(), scalar(&bits_y)?),
        ("bits_w".to_string(), scalar(&bits_w)?),
        ("rms_y".to_string(), spread(&priced.y)?),
    ]);
    if let Some(w) = &priced.w {
        metrics.insert("rms_w".into(), spread(w)?);
    }
    Ok(((bits_y + bits_w)?, metrics))
}

impl Trade {
    /// Refuses an invalid λ.
    ///
    /// # Errors
    /// [`Error::Setting`] if it is negative or not finite.
    pub fn check(self) -> Result<(), Error> {
        if self.lambda >= 0.0 && self.lambda.is_finite() {
            return Ok(());
        }
        Err(Error::setting("lambda", self.lambda, "0 or more"))
    }

    /// The same with λ times a factor.
    #[must_use]
    pub fn weighted(self, factor: f64) -> Self {
        Self { lambda: self.lambda * factor, ..self }
    }

    fn lambda_at(self, step: u64) -> f64 {
        self.lambda * ((step + 1) as f64 / self.ramp.max(1) as f64).min(1.0)
    }

    /// The loss of a batch, given the task's (a scalar in nats), and its figures.
    ///
    /// # Errors
    /// When the computation fails.
    pub fn loss(self, task: Tensor, priced: &Priced, step: u64) -> Result<(Tensor, Metrics), Error> {
        let (bits, mut metrics) = bits(priced)?;
        metrics.insert("loss".into(), scalar(&task)?);
        Ok(((task + (bits * self.lambda_at(step))?)?, metrics))
    }
}
