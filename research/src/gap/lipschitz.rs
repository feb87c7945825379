//! The Lipschitz constant of an entropy model's bits as a function of Y, by power iteration on its Jacobian (paper,
//! equation 84).
//!
//! The function maps Y to the bits of each frame. They include W, which is not rounded. Its Jacobian J is `[T, T *
//! width]`. The paper's text does not say which bits its function gives. Its authors' program uses the bits of each
//! element of Y, without those of W, with W rounded and its gradient passed straight through. If the function gave one
//! value for a sequence, no iteration would be needed. Jᵀ u comes from a backward pass, J b from a central difference.

use candle_core::{Tensor, Var};

use midspan_train::Error;
use midspan_train::codec::entropy_model::EntropyModel;
use midspan_train::parallel::in_threads;
use midspan_train::rng::Rng;

/// Distance of both points of the central difference from Y: a vector over all elements, in steps.
const NEAR: f64 = 0.5;

fn norm(t: &Tensor) -> Result<f64, Error> {
    Ok(f64::from(t.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt())
}

/// Mean over the first `jacobians` sequences of y, `[N, T, width]`, of the largest singular value of J after `powers`
/// iterations.
///
/// # Errors
/// When a computation fails.
pub(crate) fn constant(
    model: &dyn EntropyModel,
    y: &Tensor,
    jacobians: usize,
    powers: usize,
    threads: usize,
) -> Result<f64, Error> {
    let which: Vec<usize> = (0..jacobians.min(y.dim(0)?)).collect();
    let values =
        in_threads(&which, threads, |i| singular_value(&|y| model.smooth_bits(y), &y.narrow(0, *i, 1)?, powers))?;
    Ok(values.iter().sum::<f64>() / values.len().max(1) as f64)
}

/// The largest singular value of the Jacobian of f at y, `[1, T, width]`; f gives `[1, T]`.
fn singular_value(f: &dyn Fn(&Tensor) -> Result<Tensor, Error>, y: &Tensor, powers: usize) -> Result<f64, Error> {
    let mut rng = Rng::new(1);
    let b: Vec<f32> = (0..y.elem_count()).map(|_| rng.normal()).collect();
    let mut b = Tensor::from_vec(b, y.shape(), y.device())?;
    let mut value = 0.0;
    for _ in 0..powers.max(1) {
        b = (&b / norm(&b)?.max(1e-30))?;
        let step = (&b * NEAR)?;
        let along = ((f(&(y + &step)?)?.detach() - f(&(y - &step)?)?.detach())? / (2.0 * NEAR))?; // J b
        value = norm(&along)?;
        let at = Var::from_tensor(y)?;
        let grads = (f(at.as_tensor())? * along)?.sum_all()?.backward()?;
        b = grads.get(&at).ok_or(Error::Independent { output: "the bits", input: "Y" })?.detach(); // Jᵀ J b
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_largest_singular_value_of_a_linear_map() {
        // f(y) = A y over T = 2 frames of width 2; A Aᵀ = [[25, 0], [0, 4]] by its rows.
        let a = Tensor::new(&[[3.0f32, 4.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]], &Device::Cpu).unwrap();
        let f = |y: &Tensor| Ok(y.flatten_all()?.unsqueeze(0)?.matmul(&a.t()?)?);
        let y = Tensor::new(&[[[1.0f32, -2.0], [0.5, 3.0]]], &Device::Cpu).unwrap();
        let value = singular_value(&f, &y, 30).unwrap();
        assert!((value - 5.0).abs() < 1e-3, "{value}");
        let constant = singular_value(&|_| Ok(Tensor::zeros((1, 2), candle_core::DType::F32, &Device::Cpu)?), &y, 1);
        assert!(matches!(constant, Err(Error::Independent { output: "the bits", input: "Y" })), "{constant:?}");
    }
}
