//! Whether a host's second half passes gradients: without them, or with wrong ones, nothing can be learned from it.

use candle_core::{D, Device, Tensor, Var};

use crate::base::tokens;
use crate::data::Batch;
use crate::rng::Rng;
use crate::{Error, Result};
use midspan_host::split::SplitHost;

/// Directions along which a gradient is compared with a difference.
const DIRECTIONS: usize = 8;
/// A step along a direction, as a part of each value of the hidden states. Ten times as much, and kinks such as those of
/// ReLU make errors of 0.04 in right gradients; a third as much, and the rounding of f32 makes 0.014.
const STEP: f32 = 3e-4;
/// The largest error of slopes along all directions, as a part of the slopes. Right gradients were within 0.0043
/// (stories260K, the embedded host) and 0.0098 (a host with ReLU); one without a branch of the host was 0.18 off.
const ERROR: f64 = 0.05;

/// Compares the gradient of a host's predictions in the hidden states of a batch's first window with differences, along
/// random directions.
///
/// # Errors
/// [`Error::NoGradient`] if they differ: the host uses operations that pass no gradient, as fused ones often do.
/// [`Error::Independent`] if no prediction changes; [`Error::EmptyBatch`]; [`Error::Tensor`] if a computation fails.
pub fn check(host: &dyn SplitHost, batch: &Batch, rng: &mut Rng) -> Result<()> {
    let window = batch.split(1).into_iter().next().filter(|window| window.rows == 1).ok_or(Error::EmptyBatch)?;
    let targets = Tensor::from_vec(window.targets(), (1, window.len, 1), &Device::Cpu)?;
    // ln p of the tokens that follow, [1, T, 1].
    let told = |hidden: &Tensor| -> Result<Tensor> {
        let log_p = candle_nn::ops::log_softmax(&host.tail(hidden, window.len)?, D::Minus1)?; // [1, T, vocab]
        Ok(log_p.gather(&targets, D::Minus1)?)
    };
    let sum = |x: &Tensor| -> Result<f64> { Ok(x.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).sum()) };
    let hidden = Var::from_tensor(&host.head(&tokens(&window)?)?.detach())?; // [1, T, E]
    let grads = told(hidden.as_tensor())?.sum_all()?.backward()?;
    let gradient = grads.get(&hidden);
    let magnitude = (hidden.as_tensor().detach().abs()? * f64::from(STEP))?;
    let (mut error, mut all) = (0.0_f64, 0.0_f64);
    for _ in 0..DIRECTIONS {
        let signs = (0..hidden.elem_count()).map(|_| if rng.below(2) == 0 { -1.0_f32 } else { 1.0 });
        let step = (&magnitude * Tensor::from_iter(signs, &Device::Cpu)?.reshape(hidden.shape())?)?;
        let (ahead, back) = (told(&(hidden.as_tensor() + &step)?)?, told(&(hidden.as_tensor() - &step)?)?);
        let found = sum(&(ahead - back)?)? / 2.0;
        let stated = gradient.map_or(Ok(0.0), |gradient| sum(&(gradient * &step)?))?;
        error += (stated - found).powi(2);
        all += found * found;
    }
    if all == 0.0 {
        return Err(Error::Independent { output: "predictions", input: "the hidden state" });
    }
    let error = (error / all).sqrt();
    if error.is_finite() && error <= ERROR { Ok(()) } else { Err(Error::NoGradient { error }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Corpus;
    use midspan_host::llama::Llama;
    use midspan_host::testing::llama_file;

    /// A host whose second half begins with a step of its own.
    struct Changed(Llama, fn(&Tensor) -> candle_core::Result<Tensor>);

    impl SplitHost for Changed {
        fn width(&self) -> usize {
            self.0.width()
        }

        fn context(&self) -> usize {
            self.0.context()
        }

        fn vocab(&self) -> usize {
            self.0.vocab()
        }

        fn head(&self, tokens: &Tensor) -> candle_core::Result<Tensor> {
            self.0.head(tokens)
        }

        fn tail(&self, hidden: &Tensor, last: usize) -> candle_core::Result<Tensor> {
            self.0.tail(&(self.1)(hidden)?, last)
        }
    }

    #[test]
    fn only_hosts_that_pass_their_gradients_are_taken() {
        let checked = |change| {
            let host = Changed(Llama::from_bytes(&llama_file(30), 1).unwrap(), change);
            let corpus = Corpus::from_ids((0..900u32).map(|i| i * i / 7 % 30).collect());
            check(&host, &corpus.batch(2, 12, &mut Rng::new(1)).unwrap(), &mut Rng::new(2))
        };
        checked(|hidden| Ok(hidden.clone())).unwrap();
        checked(|hidden| hidden + hidden.sqr()?.affine(0.1, 0.0)?).unwrap();
        // Kinks.
        checked(|hidden| hidden + (hidden.relu()? + hidden.abs()?)?).unwrap();
        let error = |change| match checked(change) {
            Err(Error::NoGradient { error }) => error,
            other => panic!("{other:?}"),
        };
        // No gradient at all; and a branch of two without one, as a fused operation leaves it.
        assert_eq!(error(|hidden| Ok(hidden.detach())), 1.0);
        let found = error(|hidden| hidden + candle_nn::ops::sigmoid(hidden)?.detach());
        assert!((0.1..1.0).contains(&found), "{found}");
        let found = error(|hidden| {
            let width = hidden.dim(D::Minus1)?;
            let ones = Tensor::ones(width, hidden.dtype(), hidden.device())?;
            hidden + candle_nn::ops::rms_norm(hidden, &ones, 1e-5)?.affine(0.3, 0.0)?
        });
        assert!((0.1..1.0).contains(&found), "{found}");
        assert!(matches!(checked(|hidden| hidden.zeros_like()), Err(Error::Independent { .. })));
        let host = Llama::from_bytes(&llama_file(30), 1).unwrap();
        let empty = Batch { ids: Vec::new(), rows: 0, len: 12 };
        assert!(matches!(check(&host, &empty, &mut Rng::new(1)), Err(Error::EmptyBatch)));
    }
}
