//! Muon for the matrices of blocks, AdamW for everything else.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, Var};

use super::Error;
use midspan_host::ops::gemm::Rhs;
use midspan_host::ops::matrix::Mat;
use midspan_host::ops::{cpu_values, vector};

/// Learning rates and constants.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Use Muon for matrices of blocks; otherwise AdamW for everything.
    pub muon: bool,
    /// Muon's learning rate.
    pub muon_lr: f32,
    /// AdamW's learning rate.
    pub adam_lr: f32,
    /// Decoupled weight decay of matrices of blocks, times the learning rate.
    pub weight_decay: f32,
    /// Largest norm of the gradients of each group of variables whose names are equal up to the first dot; infinity for
    /// no limit.
    pub clip: f32,
    /// Factors of the learning rate for names with a prefix; the first match is used.
    pub factors: Vec<(String, f32)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { muon: true, muon_lr: 0.02, adam_lr: 3e-3, weight_decay: 0.01, clip: 1.0, factors: Vec::new() }
    }
}

impl Settings {
    midspan::setters! {
        muon: bool,
        muon_lr: f32,
        adam_lr: f32,
        weight_decay: f32,
        clip: f32,
        factors: Vec<(String, f32)>,
    }
}

const MOMENTUM: f32 = 0.95;
const BETAS: (f32, f32) = (0.9, 0.95);
const ADAM_EPS: f32 = 1e-8;

/// A trained tensor and its optimiser state.
struct Slot {
    var: Var,
    /// (rows, columns) if Muon applies.
    matrix: Option<(usize, usize)>,
    decay: bool,
    factor: f32,
    first: Vec<f32>,
    second: Vec<f32>,
    /// AdamW steps taken.
    taken: u32,
}

/// The optimiser's state over named variables.
pub struct Optimizer {
    settings: Settings,
    slots: BTreeMap<String, Slot>,
}

/// A variable, its gradient and the factor that clips it.
type Work<'a> = (&'a mut Slot, &'a Vec<f32>, f32);

/// The name up to its first dot.
fn group(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Whether `name` is a weight matrix of a transformer block.
fn is_matrix(name: &str, shape: &[usize]) -> bool {
    name.contains("blocks.") && name.ends_with(".weight") && shape.len() == 2
}

impl Optimizer {
    /// An optimiser for `vars` with an empty state.
    pub fn new(vars: &BTreeMap<String, Var>, settings: Settings) -> Self {
        let slots = vars
            .iter()
            .map(|(name, var)| {
                let dims = var.dims();
                let block = is_matrix(name, dims);
                let matrix = (block && settings.muon).then(|| (dims[0], dims[1]));
                let n = var.elem_count();
                let factor = settings.factors.iter().find(|(p, _)| name.starts_with(p.as_str()));
                let slot = Slot {
                    var: var.clone(),
                    matrix,
                    decay: block,
                    factor: factor.map_or(1.0, |f| f.1),
                    first: vec![0.0; n],
                    second: if matrix.is_some() { Vec::new() } else { vec![0.0; n] },
                    taken: 0,
                };
                (name.clone(), slot)
            })
            .collect();
        Self { settings, slots }
    }

    /// The state by name, for a checkpoint.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut out = BTreeMap::new();
        let device = candle_core::Device::Cpu;
        for (name, slot) in &self.slots {
            out.insert(format!("{name}.first"), Tensor::from_slice(&slot.first, slot.var.shape(), &device)?);
            if !slot.second.is_empty() {
                out.insert(format!("{name}.second"), Tensor::from_slice(&slot.second, slot.var.shape(), &device)?);
            }
            out.insert(format!("{name}.taken"), Tensor::new(&[slot.taken], &device)?);
        }
        Ok(out)
    }

    /// A variable whose state is missing from `state` or has another size there, if there is one.
    pub fn lacks(&self, state: &BTreeMap<String, Tensor>) -> Option<&str> {
        let len = |name: &str, part: &str| state.get(&format!("{name}.{part}")).map_or(0, Tensor::elem_count);
        let is_whole = |(name, slot): &(&String, &Slot)| {
            len(name, "first") == slot.first.len()
                && len(name, "second") == slot.second.len()
                && len(name, "taken") == 1
        };
        self.slots.iter().find(|slot| !is_whole(slot)).map(|(name, _)| name.as_str())
    }

    /// Restores a state from [`Optimizer::state`]. Parts that are missing or of another size are left unchanged.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, slot) in &mut self.slots {
            let read = |part: &str, len: usize| -> Result<Option<Vec<f32>>> {
                match state.get(&format!("{name}.{part}")) {
                    Some(t) if t.elem_count() == len => Ok(Some(t.flatten_all()?.to_vec1()?)),
                    _ => Ok(None),
                }
            };
            if let Some(v) = read("first", slot.first.len())? {
                slot.first = v;
            }
            if let Some(v) = read("second", slot.second.len())? {
                slot.second = v;
            }
            if let Some(t) = state.get(&format!("{name}.taken")) {
                slot.taken = t.to_vec1::<u32>()?.first().copied().unwrap_or(0);
            }
        }
        Ok(())
    }

    /// One step with learning rates times `rate`, on `threads` threads. Variables without a gradient do not change; no
    /// variable changes if the gradients' norm is not finite. Returns the norm of all gradients together, before
    /// clipping.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor cannot be made, [`Error::Panicked`] if a thread panics.
    pub fn step(
        &mut self,
        grads: &BTreeMap<String, Vec<f32>>,
        rate: f32,
        threads: usize,
    ) -> std::result::Result<f64, Error> {
        let settings = &self.settings;
        let mut squares: BTreeMap<&str, f64> = BTreeMap::new();
        for (name, g) in grads {
            *squares.entry(group(name)).or_default() += vector::dot(g, g) as f64;
        }
        let norm = squares.values().sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Ok(norm);
        }
        let factor = |name: &str| {
            let norm = squares.get(group(name)).copied().unwrap_or(0.0).sqrt();
            if norm > settings.clip as f64 { (settings.clip as f64 / norm) as f32 } else { 1.0 }
        };
        let mut work: Vec<Work<'_>> =
            self.slots.iter_mut().filter_map(|(n, s)| grads.get(n).map(|g| (s, g, factor(n)))).collect();
        // The most expensive first, dealt to the threads in turn.
        work.sort_by_key(|(s, ..)| std::cmp::Reverse(if s.matrix.is_some() { 100 } else { 1 } * s.first.len()));
        let mut hands: Vec<Vec<Work<'_>>> = (0..threads.max(1)).map(|_| Vec::new()).collect();
        let count = hands.len();
        for (i, w) in work.into_iter().enumerate() {
            hands[i % count].push(w);
        }
        std::thread::scope(|s| {
            let mut joins = Vec::new();
            for hand in hands {
                joins.push(s.spawn(move || -> Result<()> {
                    for (slot, grad, clip) in hand {
                        slot.step(grad, clip, rate, settings)?;
                    }
                    Ok(())
                }));
            }
            for j in joins {
                j.join().map_err(|_| Error::Panicked)??;
            }
            Ok::<(), Error>(())
        })?;
        Ok(norm)
    }
}

impl Slot {
    fn step(&mut self, grad: &[f32], clip: f32, rate: f32, s: &Settings) -> Result<()> {
        let rate = rate * self.factor;
        let mut w: Vec<f32> = {
            let (guard, layout) = self.var.storage_and_layout();
            cpu_values(&guard, layout)?.to_vec()
        };
        if let Some((rows, cols)) = self.matrix {
            let mut update = vec![0f32; grad.len()];
            for ((m, u), &g) in self.first.iter_mut().zip(&mut update).zip(grad) {
                *m = MOMENTUM * *m + (1.0 - MOMENTUM) * g * clip;
                *u = MOMENTUM * *m + (1.0 - MOMENTUM) * g * clip;
            }
            let update = orthogonal(update, rows, cols);
            let lr = s.muon_lr * rate;
            let scale = lr * (rows as f32 / cols as f32).max(1.0).sqrt();
            let keep = 1.0 - lr * s.weight_decay;
            for (w, u) in w.iter_mut().zip(update) {
                *w = *w * keep - scale * u;
            }
        } else {
            self.taken += 1;
            let lr = s.adam_lr * rate;
            let keep = if self.decay { 1.0 - lr * s.weight_decay } else { 1.0 };
            let fix = |beta: f32| 1.0 / (1.0 - beta.powi(self.taken as i32));
            let (f1, f2) = (fix(BETAS.0), fix(BETAS.1));
            for (((w, m), v), &g) in w.iter_mut().zip(&mut self.first).zip(&mut self.second).zip(grad) {
                let g = g * clip;
                *m = BETAS.0 * *m + (1.0 - BETAS.0) * g;
                *v = BETAS.1 * *v + (1.0 - BETAS.1) * g * g;
                *w = *w * keep - lr * (*m * f1) / ((*v * f2).sqrt() + ADAM_EPS);
            }
        }
        self.var.set(&Tensor::from_vec(w, self.var.shape(), self.var.device())?)
    }
}

/// Five Newton–Schulz steps towards the nearest matrix with orthonormal rows or columns; singular
/// values end between about 0.7 and 1.2.
pub fn orthogonal(x: Vec<f32>, rows: usize, cols: usize) -> Vec<f32> {
    const A: f32 = 3.4445;
    const B: f32 = -4.775;
    const C: f32 = 2.0315;
    let turn = |x: &[f32], r: usize, c: usize| -> Vec<f32> { (0..r * c).map(|i| x[(i % r) * c + i / r]).collect() };
    let (mut x, r, c) = if rows > cols { (turn(&x, rows, cols), cols, rows) } else { (x, rows, cols) };
    let norm = vector::dot(&x, &x).sqrt() + 1e-7;
    x.iter_mut().for_each(|v| *v /= norm);
    let (mut a, mut poly) = (vec![0f32; r * r], vec![0f32; r * r]);
    let mut next = vec![0f32; r * c];
    for _ in 0..5 {
        Rhs::new(c, r, Mat::transposed(&x, c)).mul((r, r, c), Mat::rows(&x, c), &mut a, r, false);
        Rhs::new(r, r, Mat::rows(&a, r)).mul((r, r, r), Mat::rows(&a, r), &mut poly, r, false);
        for (p, &a) in poly.iter_mut().zip(&a) {
            *p = B * a + C * *p;
        }
        Rhs::new(r, c, Mat::rows(&x, c)).mul((r, c, r), Mat::rows(&poly, r), &mut next, c, false);
        for (x, &n) in x.iter_mut().zip(&next) {
            *x = A * *x + n;
        }
    }
    if rows > cols { turn(&x, r, c) } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn newton_schulz_makes_rows_nearly_orthonormal() {
        let mut rng = super::super::rng::Rng::new(3);
        for (rows, cols) in [(8, 24), (24, 8)] {
            let x: Vec<f32> = (0..rows * cols).map(|_| rng.normal()).collect();
            let y = orthogonal(x.clone(), rows, cols);
            assert!(vector::dot(&x, &y) > 0.0);
            let size = vector::dot(&y, &y) / 8.0;
            assert!((0.5..1.5).contains(&size), "{size}");
            let line = |i: usize| -> Vec<f32> {
                if rows == 8 {
                    y[i * cols..(i + 1) * cols].to_vec()
                } else {
                    (0..24).map(|r| y[r * cols + i]).collect()
                }
            };
            for i in 0..8 {
                for j in 0..i {
                    assert!(vector::dot(&line(i), &line(j)).abs() < 0.35);
                }
            }
        }
    }

    #[test]
    fn both_optimisers_reach_a_target_and_resume_alike() {
        for muon in [true, false] {
            let target: Vec<f32> = (0..12).map(|i| (i as f32 * 0.7).sin()).collect();
            let var = Var::zeros((3, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
            let vars = BTreeMap::from([("blocks.0.q.weight".to_string(), var.clone())]);
            let settings = Settings { muon, muon_lr: 0.05, adam_lr: 0.02, weight_decay: 0.0, ..Settings::default() };
            let mut opt = Optimizer::new(&vars, settings.clone());
            let read = || var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let grad = || {
                let g = read().iter().zip(&target).map(|(w, t)| w - t).collect();
                BTreeMap::from([("blocks.0.q.weight".to_string(), g)])
            };
            for i in 0..200 {
                opt.step(&grad(), 1.0 - i as f32 / 200.0, 2).unwrap();
            }
            let miss: f32 = read().iter().zip(&target).map(|(w, t)| (w - t).abs()).fold(0.0, f32::max);
            assert!(miss < 0.05, "{muon}: {miss}");
            let (saved, at) = (opt.state().unwrap(), var.copy().unwrap());
            opt.step(&grad(), 1.0, 1).unwrap();
            let want = read();
            var.set(&at).unwrap();
            let mut other = Optimizer::new(&vars, settings);
            other.restore(&saved).unwrap();
            other.step(&grad(), 1.0, 1).unwrap();
            assert_eq!(read(), want);
            // Gradients that are not finite, or whose norm overflows, change nothing.
            for value in [1e30, f32::INFINITY, f32::NAN] {
                let grads = BTreeMap::from([("blocks.0.q.weight".to_string(), vec![value; 12])]);
                assert!(!other.step(&grads, 1.0, 1).unwrap().is_finite());
                assert_eq!(read(), want);
            }
        }
    }
}
