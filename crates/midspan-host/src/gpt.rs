//! A small pre-norm GPT in two halves: RMS norms with gain, rotary positions, GELU, tied embedding.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{D, Device, Result, Tensor, bail};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::Error;
use super::ops::attention::{Ropes, attend, position_bias, split_heads};
use super::ops::{Rope, attention, linear, linear_residual, mlp, norm_linear, rms_norm};

/// The largest value of any size of a model.
const SIZE_MAX: usize = 1 << 24;

/// Shape of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Config {
    /// Entries of the vocabulary.
    pub vocab: usize,
    /// Width of the hidden state.
    pub width: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Attention heads in a block; the head width must be even.
    pub heads: usize,
    /// Blocks before the split.
    pub split: usize,
    /// Number of positions that attention sees, the current one included.
    pub context: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { vocab: 4096, width: 192, layers: 6, heads: 6, split: 3, context: 256 }
    }
}

impl Config {
    midspan::setters! {
        vocab: usize,
        width: usize,
        layers: usize,
        heads: usize,
        split: usize,
        context: usize,
    }

    /// Inner width of the MLPs.
    pub fn inner(&self) -> usize {
        4 * self.width
    }

    /// Checks that a model can have this shape: sizes from 1 to 2^24, no more heads than half the width, a context of
    /// at least 2.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first that is wrong.
    pub fn check(&self) -> super::Result<()> {
        let &Self { vocab, width, layers, heads, split, context } = self;
        let refused = |name, value, wanted| Err(Error::Setting { name, value, wanted });
        let sizes = [
            ("the vocabulary", vocab, 1),
            ("the width", width, 1),
            ("the number of blocks", layers, 1),
            ("the number of heads", heads, 1),
            ("the context", context, 2),
        ];
        if let Some((name, value, least)) = sizes.into_iter().find(|size| !(size.2..=SIZE_MAX).contains(&size.1)) {
            return refused(name, value, format!("{least} to {SIZE_MAX}"));
        }
        if !width.is_multiple_of(2 * heads) {
            return refused("the width", width, format!("a multiple of twice the heads, {}", 2 * heads));
        }
        if split > layers {
            return refused("the split", split, format!("at most the number of blocks, {layers}"));
        }
        Ok(())
    }

    /// How many weights the model has; `None` if the number overflows.
    pub(crate) fn parameters(&self) -> Option<u64> {
        let [vocab, e, layers] = [self.vocab, self.width, self.layers].map(|size| size as u64);
        // A block has four square matrices, two with four times as many rows or columns, and two gains.
        let block = e.checked_mul(e)?.checked_mul(4 + 2 * 4)?.checked_add(e.checked_mul(2)?)?;
        layers.checked_mul(block)?.checked_add(vocab.checked_mul(e)?)?.checked_add(e)
    }

    /// Name and shape of every weight.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (e, f) = (self.width, self.inner());
        let mut out = vec![("embed.weight".to_string(), vec![self.vocab, e])];
        for i in 0..self.layers {
            let mut add = |n: &str, s: Vec<usize>| out.push((format!("blocks.{i}.{n}"), s));
            add("attn_norm.gain", vec![e]);
            for n in ["q.weight", "k.weight", "v.weight", "o.weight"] {
                add(n, vec![e, e]);
            }
            add("mlp_norm.gain", vec![e]);
            add("up.weight", vec![f, e]);
            add("down.weight", vec![e, f]);
        }
        out.push(("final_norm.gain".to_string(), vec![e]));
        out
    }

    /// New weights by name. `normal` yields samples of the standard normal distribution.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn init(&self, normal: &mut dyn FnMut() -> f32) -> Result<BTreeMap<String, Tensor>> {
        let mut out = BTreeMap::new();
        for (name, shape) in self.shapes() {
            let fan_in = shape[shape.len() - 1] as f32;
            let std = match name.as_str() {
                n if n.ends_with("gain") => 0.0,
                "embed.weight" => 0.02,
                n if n.ends_with("o.weight") || n.ends_with("down.weight") => {
                    0.5 / (fan_in * 2.0 * self.layers as f32).sqrt()
                }
                _ => 0.7 / fan_in.sqrt(),
            };
            let base = if name.ends_with("gain") { 1.0 } else { 0.0 };
            let data: Vec<f32> = (0..shape.iter().product()).map(|_| base + std * normal()).collect();
            out.insert(name, Tensor::from_vec(data, shape, &Device::Cpu)?);
        }
        Ok(out)
    }
}

#[derive(Clone, Debug)]
struct Block {
    attn_gain: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    mlp_gain: Tensor,
    up: Tensor,
    down: Tensor,
}

/// Keys and values of one block, `[batch, heads, rows, head]` each, already rotated by their positions.
type Rows = Option<(Tensor, Tensor)>;

/// The state of stepwise inference: keys and values of the last `context - 1` positions of each block.
///
/// Positions are absolute and unbounded; positions that leave the window are dropped. A cache belongs to one half of a
/// model.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    position: usize,
    rows: Vec<Rows>,
}

impl Cache {
    /// An empty cache, at position 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of positions so far.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl Block {
    fn new(cfg: &Config, vb: VarBuilder) -> Result<Self> {
        let (e, f) = (cfg.width, cfg.inner());
        Ok(Self {
            attn_gain: vb.get(e, "attn_norm.gain")?,
            q: vb.get((e, e), "q.weight")?,
            k: vb.get((e, e), "k.weight")?,
            v: vb.get((e, e), "v.weight")?,
            o: vb.get((e, e), "o.weight")?,
            mlp_gain: vb.get(e, "mlp_norm.gain")?,
            up: vb.get((f, e), "up.weight")?,
            down: vb.get((e, f), "down.weight")?,
        })
    }

    /// x `[batch, T, width]` -> queries, keys and values `[batch, T, 3 * width]`.
    fn qkv(&self, x: &Tensor) -> Result<Tensor> {
        let w = Tensor::cat(&[&self.q, &self.k, &self.v], 0)?;
        norm_linear(x, &w.broadcast_mul(&self.attn_gain)?)
    }

    fn rest(&self, x: &Tensor, attended: &Tensor) -> Result<Tensor> {
        let x = linear_residual(attended, &self.o, x)?;
        mlp(&x, &self.up.broadcast_mul(&self.mlp_gain)?, &self.down)
    }

    /// Whole sequences x `[batch, T, width]`, T at most the context.
    fn forward(&self, x: &Tensor, heads: usize, rope: &Arc<Rope>) -> Result<Tensor> {
        self.rest(x, &attention(&self.qkv(x)?, heads, Some(rope), None)?)
    }

    /// The next positions x `[batch, T, width]` after those in `rows`.
    fn step(&self, x: &Tensor, cfg: &Config, rope: &Rope, rows: &mut Rows) -> Result<Tensor> {
        let [q, k, v] = split_heads(&self.qkv(x)?, cfg.heads)?;
        let (q, mut k, mut v) = (rope.apply(&q)?, rope.apply(&k)?, v);
        if let Some((old_k, old_v)) = rows {
            k = Tensor::cat(&[&*old_k, &k], 2)?;
            v = Tensor::cat(&[&*old_v, &v], 2)?;
        }
        let dims = (q.dim(2)?, k.dim(2)?, cfg.context);
        let bias = position_bias(None, cfg.heads, dims, x.dtype(), x.device())?;
        let out = self.rest(x, &attend(&q, &k, &v, &bias)?)?;
        let keep = dims.1.min(cfg.context - 1);
        let last = |t: &Tensor| t.narrow(2, dims.1 - keep, keep)?.contiguous();
        *rows = Some((last(&k)?, last(&v)?));
        Ok(out)
    }
}

/// A GPT that can be cut at its split.
#[derive(Clone, Debug)]
pub struct Gpt {
    cfg: Config,
    embed: Tensor,
    blocks: Vec<Block>,
    gain: Tensor,
    ropes: Arc<Ropes>,
}

impl Gpt {
    /// Takes the weights named as in [`Config::shapes`] from `vb`.
    ///
    /// # Errors
    /// [`Error::Setting`] if no model can have the shape, [`Error::Tensor`] if a weight is missing or has another shape.
    pub fn new(cfg: Config, vb: VarBuilder) -> super::Result<Self> {
        cfg.check()?;
        let blocks =
            (0..cfg.layers).map(|i| Block::new(&cfg, vb.pp(format!("blocks.{i}")))).collect::<Result<Vec<_>>>()?;
        let ropes = Arc::new(Ropes::new(cfg.width / cfg.heads));
        Ok(Self {
            embed: vb.get((cfg.vocab, cfg.width), "embed.weight")?,
            gain: vb.get(cfg.width, "final_norm.gain")?,
            blocks,
            ropes,
            cfg,
        })
    }

    /// Shape of the model.
    pub fn config(&self) -> &Config {
        &self.cfg
    }

    /// The embedding `[vocab, width]`, which is also the output map.
    pub fn embedding(&self) -> &Tensor {
        &self.embed
    }

    fn run(&self, mut x: Tensor, blocks: std::ops::Range<usize>, cache: Option<&mut Cache>) -> Result<Tensor> {
        let (_, time, _) = x.dims3()?;
        let Some(cache) = cache else {
            if time > self.cfg.context {
                bail!("gpt: {time} positions, the context is {}", self.cfg.context);
            }
            let rope = self.ropes.first(time);
            for b in &self.blocks[blocks] {
                x = b.forward(&x, self.cfg.heads, &rope)?;
            }
            return Ok(x);
        };
        let rope = Rope::new(self.cfg.width / self.cfg.heads, cache.position, time);
        cache.rows.resize(blocks.len(), None);
        for (b, rows) in self.blocks[blocks].iter().zip(&mut cache.rows) {
            x = b.step(&x, &self.cfg, &rope, rows)?;
        }
        cache.position += time;
        Ok(x)
    }

    /// The first half: token ids `[batch, T]` -> hidden states `[batch, T, width]`.
    ///
    /// Without a cache the sequences start at position 0 and T is at most the context. With a cache they continue it,
    /// without a limit.
    ///
    /// # Errors
    /// When an id is not in the vocabulary or T is too long.
    pub fn forward_head(&self, tokens: &Tensor, cache: Option<&mut Cache>) -> Result<Tensor> {
        let (batch, time) = tokens.dims2()?;
        // [batch * T] -> [batch, T, width]
        let x = self.embed.index_select(&tokens.flatten_all()?, 0)?;
        self.run(x.reshape((batch, time, self.cfg.width))?, 0..self.cfg.split, cache)
    }

    /// The second half including its last norm: hidden states `[batch, T, width]` -> the same shape.
    ///
    /// # Errors
    /// When the shape does not fit or T is too long.
    pub fn forward_tail_hidden(&self, hidden: &Tensor, cache: Option<&mut Cache>) -> Result<Tensor> {
        let x = self.run(hidden.clone(), self.cfg.split..self.cfg.layers, cache)?;
        rms_norm(&x)?.broadcast_mul(&self.gain)
    }

    /// The second half: hidden states `[batch, T, width]` -> logits `[batch, T, vocab]`.
    ///
    /// # Errors
    /// When the shape does not fit or T is too long.
    pub fn forward_tail(&self, hidden: &Tensor, cache: Option<&mut Cache>) -> Result<Tensor> {
        linear(&self.forward_tail_hidden(hidden, cache)?, &self.embed)
    }

    /// Logits `[batch, vocab]` of the last position only, after the same work as [`Gpt::forward_tail`].
    ///
    /// # Errors
    /// When the shape does not fit or T is too long.
    pub fn forward_tail_last(&self, hidden: &Tensor, cache: Option<&mut Cache>) -> Result<Tensor> {
        let x = self.forward_tail_hidden(hidden, cache)?;
        let last = x.narrow(1, x.dim(1)? - 1, 1)?.squeeze(1)?;
        linear(&last, &self.embed)
    }
}

/// The id of the largest logit of each row: `[.., vocab]` -> `[..]`.
///
/// # Errors
/// On a device failure.
pub fn greedy(logits: &Tensor) -> Result<Tensor> {
    logits.argmax(D::Minus1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{difference, generator};
    use candle_core::DType;
    use std::collections::HashMap;

    fn tiny() -> (Config, Gpt) {
        let cfg = Config { vocab: 50, width: 16, layers: 4, heads: 2, split: 2, context: 12 };
        let mut next = generator(1);
        let w: HashMap<String, Tensor> = cfg.init(&mut || next() * 1.7).unwrap().into_iter().collect();
        let vb = VarBuilder::from_tensors(w, DType::F32, &Device::Cpu);
        (cfg.clone(), Gpt::new(cfg, vb).unwrap())
    }

    #[test]
    fn steps_equal_the_whole_and_slide() {
        let (cfg, gpt) = tiny();
        let ids: Vec<u32> = (0..30).map(|i| (i * 7 % 50) as u32).collect();
        let tokens = Tensor::from_vec(ids.clone(), (1, 30), &Device::Cpu).unwrap();
        let whole = tokens.narrow(1, 0, 12).unwrap();
        let want = gpt.forward_tail(&gpt.forward_head(&whole, None).unwrap(), None).unwrap();
        let (mut head, mut tail) = (Cache::new(), Cache::new());
        let mut start = 0;
        for n in [1, 3, 1, 7] {
            let part = tokens.narrow(1, start, n).unwrap();
            let hidden = gpt.forward_head(&part, Some(&mut head)).unwrap();
            let got = gpt.forward_tail(&hidden, Some(&mut tail)).unwrap();
            assert!(difference(&got, &want.narrow(1, start, n).unwrap()) < 1e-4);
            start += n;
        }
        // Beyond the context: a single block sees exactly the context.
        assert!(gpt.forward_head(&tokens, None).is_err());
        for t in 12..30 {
            let part = tokens.narrow(1, t, 1).unwrap();
            let hidden = gpt.forward_head(&part, Some(&mut head)).unwrap();
            assert!(head.rows.iter().flatten().all(|(k, _)| k.dims4().unwrap().2 == cfg.context - 1));
            let last = gpt.forward_tail_last(&hidden, Some(&mut tail)).unwrap();
            assert_eq!(last.dims(), [1, 50]);
        }
        assert_eq!(head.position(), 30);
        let mut fresh = Cache::new();
        let at_once = gpt.forward_head(&tokens, Some(&mut fresh)).unwrap();
        let mut other = Cache::new();
        let mut rows = Vec::new();
        for t in 0..30 {
            rows.push(gpt.forward_head(&tokens.narrow(1, t, 1).unwrap(), Some(&mut other)).unwrap());
        }
        assert!(difference(&at_once, &Tensor::cat(&rows, 1).unwrap()) < 1e-4);
    }

    #[test]
    fn bad_configurations_are_refused() {
        let (cfg, _) = tiny();
        let vb = || VarBuilder::zeros(DType::F32, &Device::Cpu);
        assert!(Gpt::new(Config { heads: 3, ..cfg.clone() }, vb()).is_err());
        assert!(Gpt::new(Config { split: 5, ..cfg.clone() }, vb()).is_err());
        assert!(Gpt::new(cfg, vb()).is_ok());
    }
}
