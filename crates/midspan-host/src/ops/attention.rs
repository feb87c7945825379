//! Causal attention over one sequence: rotary positions or a learned bias per head and distance.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, D, DType, Device, Layout, Result, Shape, Tensor, bail};

use super::gemm::Rhs;
use super::matrix::Mat;
use super::{cpu_values, fused, values, vector};

/// Query rows processed at a time; a multiple of 32.
const BLOCK: usize = 64;

/// Rotary positions: the rotation of each pair (i, i + half) of a head's dimensions.
#[derive(Clone, Debug)]
pub struct Rope {
    half: usize,
    /// cos and sin of position `start + t`, pair `i`, at `t * half + i`.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// The rotations for positions `start .. start + len` and heads of `width` dimensions (even).
    pub fn new(width: usize, start: usize, len: usize) -> Self {
        let half = width / 2;
        let mut rope = Self { half, cos: Vec::with_capacity(len * half), sin: Vec::with_capacity(len * half) };
        for t in start..start + len {
            for i in 0..half {
                let angle = t as f64 * 10_000f64.powf(-(i as f64) / half as f64);
                rope.cos.push(angle.cos() as f32);
                rope.sin.push(angle.sin() as f32);
            }
        }
        rope
    }

    /// Rotates rows of one head in place; `back` rotates them back.
    fn turn(&self, rows: &mut [f32], back: bool) {
        let h = self.half;
        for (t, row) in rows.chunks_exact_mut(2 * h).enumerate() {
            let (c, s) = (&self.cos[t * h..][..h], &self.sin[t * h..][..h]);
            let (a, b) = row.split_at_mut(h);
            for i in 0..h {
                let s = if back { -s[i] } else { s[i] };
                (a[i], b[i]) = (a[i] * c[i] - b[i] * s, a[i] * s + b[i] * c[i]);
            }
        }
    }

    /// Rotates x `[batch, heads, T, width]` with composed operations.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (_, _, t, _) = x.dims4()?;
        let table = |v: &[f32]| {
            let v = Tensor::from_slice(&v[..t * self.half], (t, self.half), x.device())?;
            Tensor::cat(&[&v, &v], 1)?.to_dtype(x.dtype()) // [T, width]
        };
        let a = x.narrow(D::Minus1, 0, self.half)?;
        let b = x.narrow(D::Minus1, self.half, self.half)?;
        let swapped = Tensor::cat(&[&b.neg()?, &a], D::Minus1)?;
        x.broadcast_mul(&table(&self.cos)?)? + swapped.broadcast_mul(&table(&self.sin)?)?
    }
}

/// Rotations for as many positions as were needed so far. They are not computed for a model's whole context in advance,
/// because the context is a number that an untrusted file declares.
#[derive(Debug)]
pub struct Ropes {
    width: usize,
    rope: Mutex<Arc<Rope>>,
}

impl Ropes {
    /// For heads of `width` dimensions (even).
    pub fn new(width: usize) -> Self {
        Self { width, rope: Mutex::new(Arc::new(Rope::new(width, 0, 0))) }
    }

    /// Rotations for at least the positions `0 .. len`.
    pub fn first(&self, len: usize) -> Arc<Rope> {
        let mut rope = self.rope.lock().unwrap_or_else(PoisonError::into_inner);
        if rope.cos.len() < len * rope.half {
            *rope = Arc::new(Rope::new(self.width, 0, len.next_power_of_two()));
        }
        Arc::clone(&rope)
    }
}

struct Attention {
    heads: usize,
    rope: Option<Arc<Rope>>,
    /// Whether the second argument is a bias table; otherwise it is ignored.
    bias: bool,
}

/// Sizes of one call.
#[derive(Clone, Copy)]
struct Dims {
    batch: usize,
    time: usize,
    width: usize,
    head: usize,
    window: usize,
}

/// Queries (scaled), keys and values of one head, each `[T, head]`.
struct Head {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Bias by distance, reversed, `window` entries: distance d at `window - 1 - d`.
    bias: Vec<f32>,
}

impl Attention {
    fn dims(&self, qkv: &Layout, bias: &Layout) -> Result<Dims> {
        let (batch, time, wide) = qkv.shape().dims3()?;
        let width = wide / 3;
        if self.heads == 0 || self.heads > width || wide % (3 * self.heads) != 0 {
            bail!("attention: {wide} values a row for {} heads", self.heads);
        }
        let window = if self.bias { bias.shape().dims2()?.1 } else { time };
        if time > window || (self.bias && bias.dims()[0] != self.heads) {
            bail!("attention: bias {:?} for {} heads and {time} rows", bias.dims(), self.heads);
        }
        Ok(Dims { batch, time, width, head: width / self.heads, window })
    }

    fn head(&self, d: Dims, qkv: &[f32], bias: &[f32], b: usize, h: usize) -> Head {
        let part = |p: usize| {
            let mut out = Vec::with_capacity(d.time * d.head);
            for t in 0..d.time {
                let at = (b * d.time + t) * 3 * d.width + p * d.width + h * d.head;
                out.extend_from_slice(&qkv[at..at + d.head]);
            }
            out
        };
        let (mut q, mut k, v) = (part(0), part(1), part(2));
        if let Some(rope) = &self.rope {
            rope.turn(&mut q, false);
            rope.turn(&mut k, false);
        }
        let scale = 1.0 / (d.head as f32).sqrt();
        q.iter_mut().for_each(|x| *x *= scale);
        let bias =
            if self.bias { bias[h * d.window..(h + 1) * d.window].iter().rev().copied().collect() } else { Vec::new() };
        Head { q, k, v, bias }
    }

    /// Writes the probabilities of query rows `at .. at + rows` to `s` (rows of `d.time`).
    fn probabilities(d: Dims, head: &Head, keys: &Rhs<'_>, at: usize, rows: usize, s: &mut [f32]) {
        let limit = at + rows;
        keys.mul((rows, limit, d.head), Mat::rows(&head.q[at * d.head..], d.head), s, d.time, false);
        for (r, row) in s.chunks_mut(d.time).take(rows).enumerate() {
            let i = at + r;
            if !head.bias.is_empty() {
                let bias = &head.bias[d.window - 1 - i..];
                for (x, &b) in row[..=i].iter_mut().zip(bias) {
                    *x += b;
                }
            }
            vector::softmax(&mut row[..=i]);
            row[i + 1..limit].fill(0.0);
        }
    }
}

impl CustomOp2 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let d = self.dims(l1, l2)?;
        let (qkv, bias) = (values(s1, l1)?, values(s2, l2)?);
        let mut out = vec![0f32; d.batch * d.time * d.width];
        let mut s = vec![0f32; BLOCK * d.time];
        for b in 0..d.batch {
            for h in 0..self.heads {
                let head = self.head(d, qkv, bias, b, h);
                let keys = Rhs::new(d.head, d.time, Mat::transposed(&head.k, d.head));
                let vals = Rhs::new(d.time, d.head, Mat::rows(&head.v, d.head));
                for at in (0..d.time).step_by(BLOCK) {
                    let rows = BLOCK.min(d.time - at);
                    Self::probabilities(d, &head, &keys, at, rows, &mut s);
                    let to = (b * d.time + at) * d.width + h * d.head;
                    vals.mul((rows, d.head, at + rows), Mat::rows(&s, d.time), &mut out[to..], d.width, false);
                }
            }
        }
        Ok((CpuStorage::F32(out), Shape::from((d.batch, d.time, d.width))))
    }

    fn bwd(&self, qkv: &Tensor, bias: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (xs, xl) = qkv.storage_and_layout();
        let (bs, bl) = bias.storage_and_layout();
        let (gs, gl) = grad.storage_and_layout();
        let d = self.dims(xl, bl)?;
        let (x, table, g) = (cpu_values(&xs, xl)?, cpu_values(&bs, bl)?, cpu_values(&gs, gl)?);
        let mut dx = vec![0f32; x.len()];
        let mut d_table = vec![0f32; if self.bias { table.len() } else { 0 }];
        let mut d_bias = vec![0f32; d.window];
        let (mut s, mut ds) = (vec![0f32; BLOCK * d.time], vec![0f32; BLOCK * d.time]);
        let mut go = vec![0f32; d.time * d.head];
        let scale = 1.0 / (d.head as f32).sqrt();
        for b in 0..d.batch {
            for h in 0..self.heads {
                let head = self.head(d, x, table, b, h);
                for (t, row) in go.chunks_exact_mut(d.head).enumerate() {
                    row.copy_from_slice(&g[(b * d.time + t) * d.width + h * d.head..][..d.head]);
                }
                let keys = Rhs::new(d.head, d.time, Mat::transposed(&head.k, d.head));
                let keys_back = Rhs::new(d.time, d.head, Mat::rows(&head.k, d.head));
                let vals_back = Rhs::new(d.head, d.time, Mat::transposed(&head.v, d.head));
                let mut dq = vec![0f32; d.time * d.head];
                let (mut dk, mut dv) = (dq.clone(), dq.clone());
                d_bias.fill(0.0);
                for at in (0..d.time).step_by(BLOCK) {
                    let rows = BLOCK.min(d.time - at);
                    let limit = at + rows;
                    let span = at * d.head..limit * d.head;
                    Self::probabilities(d, &head, &keys, at, rows, &mut s);
                    let g_rows = Mat::rows(&go[span.clone()], d.head);
                    vals_back.mul((rows, limit, d.head), g_rows, &mut ds, d.time, false);
                    let transposed = Mat { data: &s, rs: 1, cs: d.time };
                    Rhs::new(rows, d.head, g_rows).mul((limit, d.head, rows), transposed, &mut dv, d.head, true);
                    for (r, (p, dp)) in s.chunks(d.time).zip(ds.chunks_mut(d.time)).take(rows).enumerate() {
                        let (p, dp) = (&p[..limit], &mut dp[..limit]);
                        let mean = vector::dot(p, dp);
                        for (d, &p) in dp.iter_mut().zip(p) {
                            *d = p * (*d - mean);
                        }
                        if self.bias {
                            let i = at + r;
                            for (to, &v) in d_bias[d.window - 1 - i..].iter_mut().zip(&dp[..=i]) {
                                *to += v;
                            }
                        }
                    }
                    let from = Mat::rows(&ds, d.time);
                    keys_back.mul((rows, d.head, limit), from, &mut dq[span.clone()], d.head, false);
                    let transposed = Mat { data: &ds, rs: 1, cs: d.time };
                    let q_rows = Mat::rows(&head.q[span], d.head);
                    Rhs::new(rows, d.head, q_rows).mul((limit, d.head, rows), transposed, &mut dk, d.head, true);
                }
                dq.iter_mut().for_each(|x| *x *= scale);
                if let Some(rope) = &self.rope {
                    rope.turn(&mut dq, true);
                    rope.turn(&mut dk, true);
                }
                for (p, part) in [dq, dk, dv].iter().enumerate() {
                    for (t, row) in part.chunks_exact(d.head).enumerate() {
                        let to = (b * d.time + t) * 3 * d.width + p * d.width + h * d.head;
                        dx[to..to + d.head].copy_from_slice(row);
                    }
                }
                if self.bias {
                    let to = &mut d_table[h * d.window..(h + 1) * d.window];
                    for (to, &v) in to.iter_mut().zip(d_bias.iter().rev()) {
                        *to += v;
                    }
                }
            }
        }
        let dx = Tensor::from_vec(dx, qkv.shape(), qkv.device())?;
        let d_bias = if self.bias { Some(Tensor::from_vec(d_table, bias.shape(), bias.device())?) } else { None };
        Ok((Some(dx), d_bias))
    }
}

/// The scores' additive bias and mask `[heads, queries, keys]`: `bias[h][distance]`, and -∞ for the future and for
/// distances of the window or more. Query `i` is at key position `keys - queries + i`.
///
/// # Errors
/// On a device failure.
pub fn position_bias(
    bias: Option<&Tensor>,
    heads: usize,
    (queries, keys, window): (usize, usize, usize),
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let mut index = Vec::with_capacity(queries * keys);
    let mut mask = Vec::with_capacity(queries * keys);
    for i in 0..queries {
        for j in 0..keys {
            let (at, ok) = (keys - queries + i, keys - queries + i >= j);
            let distance = if ok { at - j } else { 0 };
            let ok = ok && distance < window;
            index.push(if ok { distance as u32 } else { 0 });
            mask.push(if ok { 0f32 } else { f32::NEG_INFINITY });
        }
    }
    let mask = Tensor::from_vec(mask, (1, queries, keys), device)?.to_dtype(dtype)?;
    match bias {
        None => mask.repeat((heads, 1, 1)),
        Some(bias) => {
            let index = Tensor::from_vec(index, queries * keys, device)?;
            let picked = bias.index_select(&index, 1)?.reshape((heads, queries, keys))?;
            picked.broadcast_add(&mask)
        }
    }
}

/// Attention with composed operations: q `[batch, heads, queries, head]`, k and v
/// `[batch, heads, keys, head]`, bias `[heads, queries, keys]`; result `[batch, queries, heads * head]`, by v's heads.
///
/// # Errors
/// When the shapes do not fit.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (batch, heads, queries, head) = q.dims4()?;
    let scores = (q.contiguous()?.matmul(&k.t()?.contiguous()?)? / (head as f64).sqrt())?;
    let p = candle_nn::ops::softmax(&scores.broadcast_add(bias)?, D::Minus1)?;
    // [batch, heads, queries, head] -> [batch, queries, heads * head]
    p.matmul(&v.contiguous()?)?.transpose(1, 2)?.reshape((batch, queries, heads * v.dim(3)?))
}

/// Keys and values of the positions so far, for every sequence and head.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Batch, heads and a head's width, once there are positions.
    shape: Option<(usize, usize, usize)>,
    /// `[batch * heads]` times keys and values, `[positions, head]` each.
    rows: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Past {
    /// Causal attention of further positions over those before and themselves, as [`attend`] computes it without a bias:
    /// q, k and v `[batch, heads, T, head]`; result `[batch, T, heads * head]`. For values on the CPU, without gradients.
    ///
    /// # Errors
    /// When the shapes do not fit, or those of the positions before, or the tensors are not f32.
    pub fn attend(&mut self, [q, k, v]: [&Tensor; 3]) -> Result<Tensor> {
        let (batch, heads, time, head) = q.dims4()?;
        if k.dims() != q.dims() || v.dims() != q.dims() {
            bail!("attention: queries {:?}, keys {:?}, values {:?}", q.dims(), k.dims(), v.dims());
        }
        let shape = (batch, heads, head);
        if let Some(before) = self.shape.filter(|before| *before != shape) {
            bail!("attention: (batch, heads, width) {shape:?} after {before:?}");
        }
        self.shape = Some(shape);
        self.rows.resize(batch * heads, (Vec::new(), Vec::new()));
        let flat = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        let (q, k, v) = (flat(q)?, flat(k)?, flat(v)?);
        let scale = 1.0 / (head as f32).sqrt();
        let (mut out, mut p) = (vec![0.0_f32; q.len()], Vec::new());
        let width = heads * head;
        for (row, (keys, vals)) in self.rows.iter_mut().enumerate() {
            let own = row * time * head..(row + 1) * time * head;
            keys.extend_from_slice(&k[own.clone()]);
            vals.extend_from_slice(&v[own.clone()]);
            for (at, q) in q[own].chunks_exact(head).enumerate() {
                let seen = keys.len() / head - time + at + 1;
                p.clear();
                p.extend(keys.chunks_exact(head).take(seen).map(|key| scale * vector::dot(q, key)));
                vector::softmax(&mut p);
                // [batch, heads, T, head] -> [batch, T, heads * head]
                let to = (row / heads * time + at) * width + row % heads * head;
                for (p, value) in p.iter().zip(vals.chunks_exact(head)) {
                    out[to..to + head].iter_mut().zip(value).for_each(|(out, value)| *out += p * value);
                }
            }
        }
        Tensor::from_vec(out, (batch, time, width), &Device::Cpu)
    }
}

/// The queries, keys and values `[batch, heads, T, head]` of a packed row `[batch, T, 3 * width]`.
///
/// # Errors
/// When the shape does not fit.
pub fn split_heads(qkv: &Tensor, heads: usize) -> Result<[Tensor; 3]> {
    let (batch, time, wide) = qkv.dims3()?;
    if heads == 0 {
        bail!("attention: no heads");
    }
    let head = wide / 3 / heads;
    let part = |p: usize| {
        // [batch, T, heads * head] -> [batch, heads, T, head]
        qkv.narrow(2, p * wide / 3, wide / 3)?.reshape((batch, time, heads, head))?.transpose(1, 2)
    };
    Ok([part(0)?, part(1)?, part(2)?])
}

fn composed(qkv: &Tensor, heads: usize, rope: Option<&Rope>, bias: Option<&Tensor>, window: usize) -> Result<Tensor> {
    let time = qkv.dim(1)?;
    let [mut q, mut k, v] = split_heads(qkv, heads)?;
    if let Some(rope) = rope {
        (q, k) = (rope.apply(&q)?, rope.apply(&k)?);
    }
    let bias = position_bias(bias, heads, (time, time, window), qkv.dtype(), qkv.device())?;
    attend(&q, &k, &v, &bias)
}

/// Causal attention of whole sequences: qkv `[batch, T, 3 * width]` (queries, keys, values, each with its heads next to
/// each other), bias `[heads, window]` by distance; result `[batch, T, width]`. Scores are q·k / sqrt(width / heads) +
/// bias; `rope` rotates queries and keys first.
///
/// # Errors
/// When the shapes do not fit.
pub fn attention(qkv: &Tensor, heads: usize, rope: Option<&Arc<Rope>>, bias: Option<&Tensor>) -> Result<Tensor> {
    let window = match bias {
        Some(b) => b.dim(1)?,
        None => qkv.dim(1)?,
    };
    if !fused(qkv) || qkv.dim(1)? > window {
        return composed(qkv, heads, rope.map(|r| r.as_ref()), bias, window);
    }
    let op = Attention { heads, rope: rope.cloned(), bias: bias.is_some() };
    let table = match bias {
        Some(b) => b.contiguous()?,
        None => Tensor::zeros((1, 1), DType::F32, qkv.device())?,
    };
    qkv.contiguous()?.apply_op2(&table, op)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{difference, random, same};

    #[test]
    fn fused_attention_matches_composed_operations() {
        for time in [1, 31, 64, 150] {
            let (x, bias) = (random(&[2, time, 72], 1), random(&[3, 160], 2));
            let rope = Arc::new(Rope::new(8, 0, time));
            let want = composed(&x, 3, Some(&rope), None, time).unwrap();
            same(&[&x], &attention(&x, 3, Some(&rope), None).unwrap(), &want, 1e-4);
            let want = composed(&x, 3, None, Some(&bias), 160).unwrap();
            same(&[&x, &bias], &attention(&x, 3, None, Some(&bias)).unwrap(), &want, 1e-4);
        }
    }

    #[test]
    fn a_row_does_not_see_its_future() {
        let x = random(&[1, 70, 24], 1);
        let bias = random(&[1, 80], 2);
        let all = attention(&x, 1, None, Some(&bias)).unwrap();
        let some = attention(&x.narrow(1, 0, 40).unwrap(), 1, None, Some(&bias)).unwrap();
        assert!(difference(&all.narrow(1, 0, 40).unwrap(), &some) < 1e-5);
    }

    #[test]
    fn beyond_the_window_is_masked() {
        let x = random(&[1, 12, 6], 1);
        let bias = random(&[1, 4], 2);
        let long = attention(&x, 1, None, Some(&bias)).unwrap().narrow(1, 11, 1).unwrap();
        let end = attention(&x.narrow(1, 8, 4).unwrap(), 1, None, Some(&bias)).unwrap().narrow(1, 3, 1).unwrap();
        assert!(difference(&long, &end) < 1e-5);
    }
}
