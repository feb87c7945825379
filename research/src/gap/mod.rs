//! Why deeper splits cost more: three measures of the target representation and of its entropy model (paper, 3.2 to
//! 4.4).
//!
//! The rate exceeds the entropy by the V-entropy gap, which the covariance's determinant bounds (theorem 2); the
//! Rademacher complexity and the Lipschitz constant bound how well it generalises (theorem 3).

pub(crate) mod covariance;
pub(crate) mod lipschitz;
pub(crate) mod rademacher;

use std::fmt;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use midspan_host::gpt::Gpt;
use midspan_train::codec::Codec;
use midspan_train::parallel::in_threads;

/// Why the measures cannot be taken.
#[derive(Debug)]
pub(crate) enum Error {
    /// The text is shorter than two sequences.
    ShortText {
        /// Its tokens.
        found: usize,
        /// Tokens of a sequence.
        context: usize,
    },
    /// A covariance needs two samples.
    FewSamples {
        /// Samples.
        samples: usize,
    },
    /// The samples do not vary.
    Constant,
    /// The host or the codec fails. The text is that of its error.
    Train(midspan_train::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortText { found, context } => {
                write!(f, "{found} tokens are fewer than two sequences of {context}")
            }
            Self::FewSamples { samples } => write!(f, "a covariance needs two samples, not {samples}"),
            Self::Constant => f.write_str("the samples do not vary"),
            Self::Train(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Train(error) => error.source(),
            _ => None,
        }
    }
}

impl From<midspan_train::Error> for Error {
    fn from(error: midspan_train::Error) -> Self {
        Self::Train(error)
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Train(error.into())
    }
}

/// The amount of work for the measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Effort {
    /// Number of sequences of the host's context length from which Y is taken (N).
    pub sequences: usize,
    /// Number of vectors of signs (M).
    pub signs: usize,
    /// Number of sequences at which the Jacobian is computed.
    pub jacobians: usize,
    /// Power iterations for each Jacobian.
    pub powers: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self { sequences: 1000, signs: 2000, jacobians: 8, powers: 30 }
    }
}

/// The measures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Gap {
    /// Half the mean logarithm of the covariance's eigenvalues above 0: ln|Σ| / 2D, with their number as D.
    pub half_log_determinant: f64,
    /// Natural logarithm of the quantiser's step, if all channels have the same one. Added to `half_log_determinant`,
    /// it gives the value for the rounded hidden states in the host's own units. The paper's step is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_step: Option<f64>,
    /// Empirical Rademacher complexity of Y (paper, equation 83).
    pub rademacher: f64,
    /// Natural logarithm of the mean Lipschitz constant of the frames' bits as a function of Y (paper, equation 84).
    pub log_lipschitz: f64,
    /// The amount of work that was actually done.
    pub effort: Effort,
}

/// Y of consecutive sequences of the host's context length, `[N, T, width]`, integers as floats.
///
/// # Errors
/// [`Error::ShortText`], or [`Error::Train`] if a computation fails.
pub(crate) fn targets(
    model: &Gpt,
    codec: &Codec,
    ids: &[u32],
    sequences: usize,
    threads: usize,
) -> Result<Tensor, Error> {
    let context = model.config().context;
    let parts: Vec<&[u32]> = ids.chunks_exact(context).take(sequences).collect();
    if parts.len() < 2 {
        return Err(Error::ShortText { found: ids.len(), context });
    }
    let parts = in_threads(&parts, threads, |ids| {
        let inputs = Tensor::from_slice(ids, (1, context), &Device::Cpu)?;
        let hidden = model.forward_head(&inputs, None)?.detach();
        Ok(codec.forward(&hidden, ids)?.priced.y.detach())
    })?;
    Ok(Tensor::cat(&parts, 0)?)
}

/// Measures Y of a host's split and the codec's entropy model there.
///
/// # Errors
/// [`Error::ShortText`], or [`Error::Train`] if a computation fails.
pub(crate) fn measure(model: &Gpt, codec: &Codec, ids: &[u32], effort: Effort, threads: usize) -> Result<Gap, Error> {
    let y = targets(model, codec, ids, effort.sequences, threads)?;
    let sequences = y.dim(0)?;
    let effort = Effort { sequences, ..effort };
    let flat = y.flatten(1, 2)?; // [N, T * width]
    Ok(Gap {
        half_log_determinant: covariance::half_log_determinant(&flat)?,
        log_step: codec.quantiser.one_log_step()?,
        rademacher: rademacher::complexity(&flat, effort.signs, 1)?,
        log_lipschitz: lipschitz::constant(&*codec.entropy_model, &y, effort.jacobians, effort.powers, threads)?.ln(),
        effort,
    })
}

/// Pearson's correlation of two series; NaN if one of them does not vary.
pub(crate) fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().min(b.len()) as f64;
    let mean = |v: &[f64]| v.iter().sum::<f64>() / n;
    let (ma, mb) = (mean(a), mean(b));
    let product =
        |a: &[f64], ma: f64, b: &[f64], mb: f64| -> f64 { a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum() };
    product(a, ma, b, mb) / (product(a, ma, a, ma) * product(b, mb, b, mb)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlations() {
        assert!((correlation(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]) - 1.0).abs() < 1e-12);
        assert!((correlation(&[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 2.0, 0.0]) + 0.4).abs() < 1e-12);
        assert!(correlation(&[1.0, 1.0], &[2.0, 3.0]).is_nan());
    }
}
