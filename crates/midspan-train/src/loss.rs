//! Cross-entropy of a tied output map, fused so that the logits are never all in memory.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use midspan_host::ops::gemm::Rhs;
use midspan_host::ops::matrix::Mat;
use midspan_host::ops::{cpu_values, rows_of, values, vector};

const CHUNK: usize = 128;

/// Gradients of the mean loss, kept from the forward pass.
type Kept = Mutex<Option<(Vec<f32>, Vec<f32>)>>;

struct Loss {
    targets: Vec<u32>,
    kept: Kept,
}

/// For each row of `x` the loss of its target in nats. With `grads`, also computes the gradients of their mean.
fn run(x: &[f32], w: &[f32], width: usize, targets: &[u32], mut grads: Option<(&mut [f32], &mut [f32])>) -> Vec<f32> {
    let vocab = w.len() / width;
    let scale = 1.0 / targets.len() as f32;
    let out = Rhs::new(width, vocab, Mat::transposed(w, width));
    let back = grads.is_some().then(|| Rhs::new(vocab, width, Mat::rows(w, width)));
    let mut logits = vec![0f32; CHUNK * vocab];
    let mut losses = Vec::with_capacity(targets.len());
    for (c, targets) in targets.chunks(CHUNK).enumerate() {
        let m = targets.len();
        let x = &x[c * CHUNK * width..][..m * width];
        out.mul((m, vocab, width), Mat::rows(x, width), &mut logits, vocab, false);
        for (row, &t) in logits.chunks_exact_mut(vocab).zip(targets) {
            let target = row[t as usize];
            losses.push(vector::softmax(row) - target);
            if grads.is_some() {
                row[t as usize] -= 1.0;
                row.iter_mut().for_each(|v| *v *= scale);
            }
        }
        if let (Some((dx, dw)), Some(back)) = (&mut grads, &back) {
            let dx = &mut dx[c * CHUNK * width..];
            back.mul((m, width, vocab), Mat::rows(&logits, vocab), dx, width, false);
            let left = Mat::transposed(&logits, vocab);
            Rhs::new(m, width, Mat::rows(x, width)).mul((vocab, width, m), left, dw, width, true);
        }
    }
    losses
}

impl CustomOp2 for Loss {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = rows_of(l1)?;
        let (vocab, other) = rows_of(l2)?;
        if rows != self.targets.len() || other != width || rows == 0 {
            bail!(
                "cross-entropy: an input {:?}, a weight {:?} and {} targets: [N, width], [vocabulary, width] and N wanted",
                l1.dims(),
                l2.dims(),
                self.targets.len()
            );
        }
        if let Some(target) = self.targets.iter().find(|&&t| t as usize >= vocab) {
            bail!("cross-entropy: target {target} is not in the vocabulary of {vocab}");
        }
        let (x, w) = (values(s1, l1)?, values(s2, l2)?);
        let (mut dx, mut dw) = (vec![0f32; x.len()], vec![0f32; w.len()]);
        let losses = run(x, w, width, &self.targets, Some((&mut dx, &mut dw)));
        let mean = losses.iter().map(|&v| v as f64).sum::<f64>() / rows as f64;
        if let Ok(mut kept) = self.kept.lock() {
            *kept = Some((dx, dw));
        }
        Ok((CpuStorage::F32(vec![mean as f32]), Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let scale = grad.to_scalar::<f32>()?;
        let Some((mut dx, mut dw)) = self.kept.lock().ok().and_then(|mut k| k.take()) else {
            bail!("cross-entropy: the gradients were taken before");
        };
        dx.iter_mut().for_each(|v| *v *= scale);
        dw.iter_mut().for_each(|v| *v *= scale);
        let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
        Ok((Some(dx), Some(Tensor::from_vec(dw, w.shape(), w.device())?)))
    }
}

/// Mean cross-entropy in nats: x `[.., width]` hidden rows, w `[vocab, width]`, one target per row; result a scalar. On
/// the CPU in f32; otherwise by composed operations. Its gradient can be taken once.
///
/// # Errors
/// When the shapes do not fit or a target is not in the vocabulary.
pub fn cross_entropy(x: &Tensor, w: &Tensor, targets: Vec<u32>) -> Result<Tensor> {
    if midspan_host::ops::fused(x) {
        let op = Loss { targets, kept: Mutex::new(None) };
        return x.contiguous()?.apply_op2(&w.contiguous()?, op);
    }
    composed(x, w, targets)
}

fn composed(x: &Tensor, w: &Tensor, targets: Vec<u32>) -> Result<Tensor> {
    let logits = x.flatten(0, x.rank() - 2)?.matmul(&w.t()?)?;
    let n = targets.len();
    candle_nn::loss::cross_entropy(&logits, &Tensor::from_vec(targets, n, x.device())?)
}

/// The loss of each target in nats: x `[.., width]` on the CPU in f32, w `[vocab, width]`.
///
/// # Errors
/// When the tensors are not f32 on the CPU or the shapes do not fit.
pub fn losses(x: &Tensor, w: &Tensor, targets: &[u32]) -> Result<Vec<f32>> {
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    let (xs, xl) = x.storage_and_layout();
    let (ws, wl) = w.storage_and_layout();
    let ((rows, width), (vocab, other)) = (rows_of(xl)?, rows_of(wl)?);
    if rows != targets.len() || width != other {
        bail!(
            "losses: an input {:?}, a weight {:?} and {} targets: [N, width], [vocabulary, width] and N wanted",
            xl.dims(),
            wl.dims(),
            targets.len()
        );
    }
    if let Some(target) = targets.iter().find(|&&t| t as usize >= vocab) {
        bail!("losses: target {target} is not in the vocabulary of {vocab}");
    }
    Ok(run(cpu_values(&xs, xl)?, cpu_values(&ws, wl)?, width, targets, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use midspan_host::testing::{random, same};

    #[test]
    fn cross_entropy_matches_composed_operations() {
        let (x, w) = (random(&[3, 70, 24], 1), random(&[50, 24], 2));
        let targets: Vec<u32> = (0..210).map(|i| (i * 13 % 50) as u32).collect();
        let want = composed(&x, &w, targets.clone()).unwrap();
        same(&[&x, &w], &cross_entropy(&x, &w, targets.clone()).unwrap(), &want, 1e-5);
        let each = losses(&x, &w, &targets).unwrap();
        let mean = each.iter().sum::<f32>() / 210.0;
        assert!((mean - want.to_scalar::<f32>().unwrap()).abs() < 1e-5);
        assert!(cross_entropy(&x, &w, vec![50; 210]).is_err());
    }
}
