//! A host that was trained elsewhere: Llama blocks in llama2.c's file format (legacy version), cut at a split.
//!
//! It has RMS norms with gain, rotary positions over neighbouring pairs, grouped queries, SwiGLU, and an output map
//! that may be the embedding. The weights are fixed, but gradients pass through. The norms' ε is that of this project's
//! hosts, 1e-6 instead of 1e-5.

use std::sync::Arc;

use byteorder::{ByteOrder, LittleEndian};
use candle_core::{Device, Result, Tensor, bail};

use super::Error;
use super::ops::attention::{Past, Ropes, split_heads};
use super::ops::{Rope, attention, linear_residual, norm_linear};
use super::split::SplitHost;

/// Integers of the file's header.
const HEADER: usize = 7;

/// Shape of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Width of the hidden state.
    pub width: usize,
    /// Inner width of the MLPs.
    pub inner: usize,
    /// Blocks.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; divides `heads`.
    pub key_heads: usize,
    /// Entries of the vocabulary.
    pub vocab: usize,
    /// The most positions of a sequence.
    pub context: usize,
    /// Whether the output map is the embedding.
    pub tied: bool,
}

impl Config {
    fn head(&self) -> usize {
        self.width / self.heads
    }

    /// Reads the header: seven little-endian i32.
    fn from_header(bytes: &[u8]) -> super::Result<Self> {
        if bytes.len() < 4 * HEADER {
            return Err(Error::Truncated { within: "llama2.c header" });
        }
        let mut fields = [0_i32; HEADER];
        LittleEndian::read_i32_into(&bytes[..4 * HEADER], &mut fields);
        let [width, inner, layers, heads, key_heads, vocab, context] = fields;
        let tied = vocab > 0;
        let size = |value: i32| usize::try_from(value).ok().filter(|value| (1..=1 << 20).contains(value));
        let sizes = [width, inner, layers, heads, key_heads, vocab.saturating_abs(), context].map(size);
        let [Some(width), Some(inner), Some(layers), Some(heads), Some(key_heads), Some(vocab), Some(context)] = sizes
        else {
            return Err(Error::LlamaHeader { fields, wanted: "sizes from 1 to 2^20" });
        };
        if width % (2 * heads) != 0 || heads % key_heads != 0 {
            let wanted = "a width in pairs for every head, and heads that share the key heads";
            return Err(Error::LlamaHeader { fields, wanted });
        }
        Ok(Self { width, inner, layers, heads, key_heads, vocab, context, tied })
    }
}

/// One block, with its weights in the form that the operations of this crate need: gains are folded into the weights
/// that follow, keys and values are repeated for every head of queries, and the pairs that positions rotate are half a
/// head apart.
#[derive(Clone, Debug)]
struct Block {
    /// `[3 * width, width]`.
    qkv: Tensor,
    o: Tensor,
    /// Gate and up, `[2 * inner, width]`.
    gate_up: Tensor,
    down: Tensor,
}

/// Keys and values of all positions so far, for each block.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    past: Vec<Past>,
    position: usize,
}

/// A Llama that is cut after `split` blocks.
#[derive(Clone, Debug)]
pub struct Llama {
    config: Config,
    split: usize,
    embed: Tensor,
    blocks: Vec<Block>,
    output: Tensor,
    ropes: Arc<Ropes>,
}

/// Takes tensors one after the other from a file's values.
struct Values<'a> {
    bytes: &'a [u8],
}

impl Values<'_> {
    fn take(&mut self, shape: &[usize]) -> super::Result<Tensor> {
        // The header's sizes are untrusted, so their product may overflow.
        let count = shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
        let bytes = count.and_then(|count| count.checked_mul(4));
        let (Some(count), Some((front, rest))) = (count, bytes.and_then(|bytes| self.bytes.split_at_checked(bytes)))
        else {
            return Err(Error::Truncated { within: "weights" });
        };
        let mut values = vec![0_f32; count];
        LittleEndian::read_f32_into(front, &mut values);
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite { name: None });
        }
        self.bytes = rest;
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// One tensor for each block; in the file they follow each other.
    fn stack(&mut self, layers: usize, shape: &[usize]) -> super::Result<Vec<Tensor>> {
        (0..layers).map(|_| self.take(shape)).collect()
    }
}

/// Moves the rows of a head's pairs (0, 1), (2, 3), … to the order 0, 2, …, 1, 3, …, so that pairs are half a head
/// apart.
fn deinterleave(rows: &Tensor, heads: usize) -> Result<Tensor> {
    let (all, inputs) = rows.dims2()?;
    let half = all / heads / 2;
    // [heads, half, 2, inputs] -> [heads, 2, half, inputs]
    rows.reshape((heads, half, 2, inputs))?.transpose(1, 2)?.contiguous()?.reshape((all, inputs))
}

/// Repeats the rows of each head for all the heads of queries that share it.
fn repeated(rows: &Tensor, heads: usize, times: usize) -> Result<Tensor> {
    let (all, inputs) = rows.dims2()?;
    let rows = rows.reshape((heads, 1, all / heads, inputs))?.repeat((1, times, 1, 1))?;
    rows.reshape((all * times, inputs))
}

impl Block {
    fn rest(&self, x: &Tensor, attended: &Tensor) -> Result<Tensor> {
        let x = linear_residual(attended, &self.o, x)?;
        let both = norm_linear(&x, &self.gate_up)?; // [batch, T, 2 * inner]
        let inner = both.dim(2)? / 2;
        let (gate, up) = (both.narrow(2, 0, inner)?, both.narrow(2, inner, inner)?);
        // x · σ(x), by operations that have gradients
        let hidden = ((&gate * candle_nn::ops::sigmoid(&gate)?)? * up)?;
        linear_residual(&hidden, &self.down, &x)
    }

    /// Whole sequences x `[batch, T, width]`.
    fn forward(&self, x: &Tensor, heads: usize, rope: &Arc<Rope>) -> Result<Tensor> {
        self.rest(x, &attention(&norm_linear(x, &self.qkv)?, heads, Some(rope), None)?)
    }

    /// The next positions x `[batch, T, width]` after those in `past`.
    fn step(&self, x: &Tensor, heads: usize, rope: &Rope, past: &mut Past) -> Result<Tensor> {
        let [q, k, v] = split_heads(&norm_linear(x, &self.qkv)?, heads)?;
        self.rest(x, &past.attend([&rope.apply(&q)?, &rope.apply(&k)?, &v])?)
    }
}

impl Llama {
    /// Reads a file's bytes and cuts the model after `split` blocks. Each half has to have at least one block.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::TooLong`], [`Error::LlamaHeader`] or [`Error::NotFinite`] if the bytes are no such
    /// file,
    /// [`Error::Split`] if a half would have no block.
    pub fn from_bytes(bytes: &[u8], split: usize) -> super::Result<Self> {
        let config = Config::from_header(bytes)?;
        if split == 0 || split >= config.layers {
            return Err(Error::Split { split, blocks: config.layers });
        }
        let (e, f, n) = (config.width, config.inner, config.layers);
        let keys = config.key_heads * config.head();
        // Check the total number of weights first, so that no count in the header allocates more than the file has.
        let [wide, inner, keys_wide] = [e, f, keys].map(|size| size as u64);
        let per_block = 2 * wide + 2 * wide * wide + 2 * keys_wide * wide + 3 * wide * inner;
        let floats = (bytes.len() - 4 * HEADER) as u64 / 4;
        if (n as u64).checked_mul(per_block).is_none_or(|count| count > floats) {
            return Err(Error::Truncated { within: "weights" });
        }
        let mut values = Values { bytes: &bytes[4 * HEADER..] };
        let embed = values.take(&[config.vocab, e])?;
        let attention_gain = values.stack(n, &[e])?;
        let q = values.stack(n, &[e, e])?;
        let k = values.stack(n, &[keys, e])?;
        let v = values.stack(n, &[keys, e])?;
        let o = values.stack(n, &[e, e])?;
        let mlp_gain = values.stack(n, &[e])?;
        let gate = values.stack(n, &[f, e])?;
        let down = values.stack(n, &[e, f])?;
        let up = values.stack(n, &[f, e])?;
        let gain = values.take(&[e])?;
        // Skip the tables of angles, which are the same for all models.
        values.take(&[config.context * config.head()])?;
        let output = if config.tied { embed.clone() } else { values.take(&[config.vocab, e])? };
        if !values.bytes.is_empty() {
            return Err(Error::TooLong { wanted: bytes.len() - values.bytes.len(), found: bytes.len() });
        }
        let shared = config.heads / config.key_heads;
        let blocks = (0..n).map(|i| {
            let q = deinterleave(&q[i], config.heads)?;
            let k = repeated(&deinterleave(&k[i], config.key_heads)?, config.key_heads, shared)?;
            let v = repeated(&v[i], config.key_heads, shared)?;
            Ok(Block {
                qkv: Tensor::cat(&[q, k, v], 0)?.broadcast_mul(&attention_gain[i])?,
                o: o[i].clone(),
                gate_up: Tensor::cat(&[&gate[i], &up[i]], 0)?.broadcast_mul(&mlp_gain[i])?,
                down: down[i].clone(),
            })
        });
        let ropes = Arc::new(Ropes::new(config.head()));
        // The last gain is folded into the output map.
        let output = output.broadcast_mul(&gain)?;
        Ok(Self { blocks: blocks.collect::<Result<_>>()?, config, split, embed, output, ropes })
    }

    /// Shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn embedded(&self, tokens: &Tensor) -> Result<Tensor> {
        let (batch, time) = tokens.dims2()?;
        if time > self.config.context {
            bail!("llama: {time} positions, the context is {}", self.config.context);
        }
        // [batch * T] -> [batch, T, width]
        self.embed.index_select(&tokens.flatten_all()?, 0)?.reshape((batch, time, self.config.width))
    }

    fn run(&self, mut x: Tensor, blocks: std::ops::Range<usize>) -> Result<Tensor> {
        let rope = self.ropes.first(x.dim(1)?);
        for block in &self.blocks[blocks] {
            x = block.forward(&x, self.config.heads, &rope)?;
        }
        Ok(x)
    }

    /// Logits `[batch, vocab]` of the whole model after the next tokens, `[batch, T]`.
    ///
    /// # Errors
    /// When an id is not in the vocabulary or the context is full.
    pub fn step(&self, tokens: &Tensor, cache: &mut Cache) -> Result<Tensor> {
        let mut x = self.embedded(tokens)?;
        let time = x.dim(1)?;
        if cache.position + time > self.config.context {
            bail!("llama: the context of {} positions is full", self.config.context);
        }
        cache.past.resize(self.blocks.len(), Past::default());
        let rope = Rope::new(self.config.head(), cache.position, time);
        for (block, past) in self.blocks.iter().zip(&mut cache.past) {
            x = block.step(&x, self.config.heads, &rope, past)?;
        }
        cache.position += time;
        norm_linear(&x.narrow(1, time - 1, 1)?.contiguous()?, &self.output)?.squeeze(1)
    }
}

impl SplitHost for Llama {
    fn width(&self) -> usize {
        self.config.width
    }

    fn context(&self) -> usize {
        self.config.context
    }

    fn vocab(&self) -> usize {
        self.config.vocab
    }

    fn head(&self, tokens: &Tensor) -> Result<Tensor> {
        self.run(self.embedded(tokens)?, 0..self.split)
    }

    fn tail(&self, hidden: &Tensor, last: usize) -> Result<Tensor> {
        let x = self.run(hidden.clone(), self.split..self.config.layers)?;
        norm_linear(&x.narrow(1, x.dim(1)? - last, last)?.contiguous()?, &self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::difference;
    use crate::testing::llama_file;

    #[test]
    fn halves_and_steps_give_the_same_logits() {
        for vocab in [30, -30] {
            let llama = Llama::from_bytes(&llama_file(vocab), 1).unwrap();
            assert_eq!(llama.config().tied, vocab > 0);
            let ids: Vec<u32> = (0..20).map(|i| i * i * 7 % 30).collect();
            let tokens = Tensor::from_vec(ids, (2, 10), &Device::Cpu).unwrap();
            let whole = llama.tail(&llama.head(&tokens).unwrap(), 10).unwrap();
            let part = llama.tail(&llama.head(&tokens).unwrap(), 3).unwrap();
            assert!(difference(&whole.narrow(1, 7, 3).unwrap(), &part) < 1e-5);
            let mut cache = Cache::default();
            let mut at = 0;
            for count in [1, 4, 1, 4] {
                // A copy goes its own way.
                llama.step(&tokens.narrow(1, 0, 1).unwrap(), &mut cache.clone()).unwrap();
                let logits = llama.step(&tokens.narrow(1, at, count).unwrap(), &mut cache).unwrap();
                at += count;
                let want = whole.narrow(1, at - 1, 1).unwrap().squeeze(1).unwrap();
                assert!(difference(&logits, &want) < 1e-4, "{at}");
            }
            assert!(llama.step(&tokens.narrow(1, 0, 3).unwrap(), &mut cache).is_err(), "the context is full");
            let one = llama.step(&tokens.narrow(0, 0, 1).unwrap().narrow(1, 0, 1).unwrap(), &mut cache.clone());
            assert!(one.unwrap_err().to_string().contains("(1, 4, 4) after (2, 4, 4)"));
        }
    }

    /// Logits of the last token, computed by plain loops over the file's values in f64.
    fn by_loops(bytes: &[u8], ids: &[usize]) -> Vec<f64> {
        let (e, f, n, heads, key_heads, vocab) = (16, 24, 3, 4, 2, 30);
        let head = e / heads;
        let keys = key_heads * head;
        let values: Vec<f64> =
            bytes[28..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect();
        let mut at = 0;
        let mut take = |count: usize| {
            at += count;
            values[at - count..at].to_vec()
        };
        let embed = take(vocab * e);
        let sizes = [e, e * e, keys * e, keys * e, e * e, e, f * e, e * f, f * e];
        let stacks: Vec<Vec<f64>> = sizes.iter().map(|size| take(n * size)).collect();
        let gain = take(e);
        let weights = |which: usize, block: usize| &stacks[which][block * sizes[which]..][..sizes[which]];
        let mul = |w: &[f64], x: &[f64]| -> Vec<f64> {
            w.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
        };
        let norm = |x: &[f64], gain: &[f64]| -> Vec<f64> {
            let r = (x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64 + 1e-6).sqrt();
            x.iter().zip(gain).map(|(x, g)| x / r * g).collect()
        };
        let turn = |row: &mut [f64], t: usize| {
            for (i, pair) in row.chunks_exact_mut(2).enumerate() {
                let within = 2 * i % head;
                let (sin, cos) = (t as f64 / 10_000f64.powf(within as f64 / head as f64)).sin_cos();
                (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
            }
        };
        let mut x: Vec<Vec<f64>> = ids.iter().map(|id| embed[id * e..][..e].to_vec()).collect();
        for b in 0..n {
            let (mut qs, mut ks, mut vs) = (Vec::new(), Vec::new(), Vec::new());
            for (t, x) in x.iter().enumerate() {
                let y = norm(x, weights(0, b));
                let (mut q, mut k) = (mul(weights(1, b), &y), mul(weights(2, b), &y));
                turn(&mut q, t);
                turn(&mut k, t);
                qs.push(q);
                ks.push(k);
                vs.push(mul(weights(3, b), &y));
            }
            for t in 0..x.len() {
                let mut mixed = vec![0.0; e];
                for h in 0..heads {
                    let own = h / (heads / key_heads) * head;
                    let dot = |u: usize| (0..head).map(|i| qs[t][h * head + i] * ks[u][own + i]).sum::<f64>();
                    let exp: Vec<f64> = (0..=t).map(|u| (dot(u) / (head as f64).sqrt()).exp()).collect();
                    let sum: f64 = exp.iter().sum();
                    for (u, p) in exp.iter().enumerate() {
                        (0..head).for_each(|i| mixed[h * head + i] += p / sum * vs[u][own + i]);
                    }
                }
                x[t].iter_mut().zip(mul(weights(4, b), &mixed)).for_each(|(x, o)| *x += o);
                let y = norm(&x[t], weights(5, b));
                let gate = mul(weights(6, b), &y).into_iter().map(|g| g / (1.0 + (-g).exp()));
                let hidden: Vec<f64> = gate.zip(mul(weights(8, b), &y)).map(|(g, u)| g * u).collect();
                x[t].iter_mut().zip(mul(weights(7, b), &hidden)).for_each(|(x, d)| *x += d);
            }
        }
        mul(&embed, &norm(&x[x.len() - 1], &gain))
    }

    #[test]
    fn logits_are_those_of_plain_loops() {
        let bytes = llama_file(30);
        let llama = Llama::from_bytes(&bytes, 2).unwrap();
        let ids = [1_u32, 17, 4, 4, 29, 0, 11];
        let tokens = Tensor::new(&[ids], &Device::Cpu).unwrap();
        let got =
            llama.tail(&llama.head(&tokens).unwrap(), 1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let want = by_loops(&bytes, &ids.map(|id| id as usize));
        let top = want.iter().fold(0.0_f64, |top, v| top.max(v.abs()));
        for (got, want) in got.iter().zip(&want) {
            assert!((f64::from(*got) - want).abs() < 1e-4 * top, "{got} {want}");
        }
    }

    #[test]
    fn bad_files_are_refused() {
        let good = llama_file(30);
        for len in [0, 27, 28, 100, good.len() - 1] {
            assert!(Llama::from_bytes(&good[..len], 1).is_err(), "{len}");
        }
        for (field, value) in [(0, 0), (1, -3), (2, i32::MAX), (3, 5), (4, 3), (5, i32::MIN), (6, 0)] {
            let mut bytes = good.clone();
            bytes[4 * field..][..4].copy_from_slice(&i32::to_le_bytes(value));
            assert!(Llama::from_bytes(&bytes, 1).is_err(), "field {field}");
        }
        let mut bytes = good.clone();
        bytes[100..104].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(Llama::from_bytes(&bytes, 1).is_err());
        assert!(Llama::from_bytes(&good, 0).is_err() && Llama::from_bytes(&good, 3).is_err());
        assert!(Llama::from_bytes(&good, 2).is_ok());
        // One block fewer than there are, and bytes after the end.
        let mut fewer = good.clone();
        fewer[8..12].copy_from_slice(&2_i32.to_le_bytes());
        let block = 4 * (2 * 16 + 2 * 16 * 16 + 2 * 8 * 16 + 3 * 24 * 16);
        for (bytes, over) in [(fewer, block), ([&good[..], &[0; 4]].concat(), 4)] {
            let error = Llama::from_bytes(&bytes, 1).unwrap_err();
            let Error::TooLong { wanted, found } = error else { panic!("{error:?}") };
            assert_eq!((wanted, found), (bytes.len() - over, bytes.len()));
        }
    }
}
