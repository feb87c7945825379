//! Y given W and the earlier frames of Y: the paper's second baseline (B.2, figure 2b).
//!
//! W passes through four causal blocks of its own width, which give u. A cross block takes its queries from u, and its
//! keys and values from u and Y of earlier frames only. The first frame has no earlier ones, and gets a value made from
//! its u instead of the result of attention. Three causal blocks of Y's width follow, the last of which widens to twice
//! that. So a frame's own u only selects what attention finds among earlier frames, and has no other effect.
//!
//! [`Kind::DirectAccessResidual`] also adds u after attention, through a projection, and lets every frame attend to the
//! value made from the first u. That is a g_y of Y's width from W alone, with direct access in addition.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var, bail};

use super::super::Config;
use super::super::density;
use super::super::density::deep::{self, Deep};
use super::super::network::{Network, Precision, Shape};
use super::super::quality::At;
use super::super::quantiser::round;
use super::super::{parameters, rate};
use super::{EntropyModel, Kind, Priced, nearest_alone, prefixed};
use crate::base::builder;
use crate::rng::Rng;
use midspan_host::ops::attention::{attend, position_bias};
use midspan_host::ops::{linear, norm_linear, saturating_mlp};

/// Number of blocks over W, and of blocks after the cross block.
const BLOCKS: (usize, usize) = (4, 3);

/// h, a density of W, and the networks over W and Y: variables `h.…`, `density.…`, `direct.…`.
pub(super) struct DirectAccess {
    h: Network,
    density: Deep,
    over_w: Network,
    cross: Cross,
    over_y: Network,
}

fn over_w(cfg: &Config) -> Shape {
    let widths = vec![cfg.channels; BLOCKS.0 + 1];
    Shape { widths, output: cfg.channels, heads: cfg.heads, window: cfg.window, last_norm: false, units: false }
}

fn over_y(cfg: &Config) -> Shape {
    let width = cfg.h_widths[0];
    let mut widths = vec![width; BLOCKS.1];
    widths.push(2 * width);
    Shape { widths, output: 2 * width, heads: cfg.heads, window: cfg.window, last_norm: true, units: false }
}

/// The cross block's matrices, `[outputs, inputs]` each.
fn cross_matrices(cfg: &Config) -> Vec<(&'static str, usize, usize)> {
    let (c, e) = (cfg.channels, cfg.h_widths[0]);
    let mut matrices = vec![
        ("q", c, c),
        ("k", c, e + c),
        ("v", e, e + c),
        ("first_k", c, c),
        ("first_v", e, c),
        ("o", e, e),
        ("residual", e, c),
        ("up", 4 * e, e),
        ("down", e, 4 * e),
    ];
    if !has_residual(cfg) {
        matrices.retain(|(name, ..)| !["first_k", "residual"].contains(name));
    }
    matrices
}

fn has_residual(cfg: &Config) -> bool {
    cfg.entropy_model == Kind::DirectAccessResidual
}

/// New weights.
pub(super) fn init(cfg: &Config, rng: &mut Rng) -> Result<BTreeMap<String, Tensor>> {
    let mut out: BTreeMap<String, Tensor> = prefixed("h", cfg.h().init(1.5, 0.0, rng)?).collect();
    out.extend(prefixed("density", deep::init(cfg.channels, rng)?));
    out.extend(prefixed("direct.w", over_w(cfg).init(1.0, 0.0, rng)?));
    for (name, rows, columns) in cross_matrices(cfg) {
        let gain = match name {
            "o" if !has_residual(cfg) => 1.0,
            "o" | "down" => 0.3,
            "residual" => 1.0,
            _ => 0.7,
        };
        let std = gain / (columns as f32).sqrt();
        let values: Vec<f32> = (0..rows * columns).map(|_| std * rng.normal()).collect();
        let matrix = Tensor::from_vec(values, (rows, columns), &Device::Cpu)?;
        out.insert(format!("direct.cross.blocks.0.{name}.weight"), matrix);
    }
    let gain = Tensor::full(0.5_f32, cfg.h_widths[0], &Device::Cpu)?;
    out.insert("direct.cross.gain".into(), gain);
    let bias = Tensor::zeros((cfg.heads, cfg.window), DType::F32, &Device::Cpu)?;
    out.insert("direct.cross.bias".into(), bias);
    // Scales begin at 2, means at 0.
    out.extend(prefixed("direct.y", over_y(cfg).init(0.1, 1.0, rng)?));
    Ok(out)
}

/// Multiplications a frame after W.
pub(super) fn multiplications(cfg: &Config) -> usize {
    let cross: usize = cross_matrices(cfg).iter().map(|(_, rows, columns)| rows * columns).sum();
    over_w(cfg).multiplications() + cross + over_y(cfg).multiplications()
}

struct Cross {
    matrices: BTreeMap<&'static str, Tensor>,
    gain: Tensor,
    bias: Tensor,
    heads: usize,
    residual: bool,
    precision: Precision,
}

impl Cross {
    fn new(cfg: &Config, precision: Precision, vars: &BTreeMap<String, Var>) -> Result<Self> {
        let vb = builder(vars, "direct.cross.");
        let matrices = cross_matrices(cfg)
            .into_iter()
            .map(|(name, rows, columns)| Ok((name, vb.get((rows, columns), &format!("blocks.0.{name}.weight"))?)));
        Ok(Self {
            matrices: matrices.collect::<Result<_>>()?,
            gain: vb.get(cfg.h_widths[0], "gain")?,
            bias: vb.get((cfg.heads, cfg.window), "bias")?,
            heads: cfg.heads,
            residual: has_residual(cfg),
            precision,
        })
    }

    fn weight(&self, name: &str) -> Result<Tensor> {
        match self.matrices.get(name) {
            Some(matrix) => self.precision.weight(matrix),
            None => bail!("no matrix {name}"),
        }
    }

    /// Queries `[batch, T, C]`, keys `[batch, T, C]`, values `[batch, T, E]` -> `[batch, T, E]`, causal.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let (batch, time, _) = q.dims3()?;
        // [batch, T, heads * head] -> [batch, heads, T, head]
        let heads = |x: &Tensor| x.reshape((batch, time, self.heads, ()))?.transpose(1, 2)?.contiguous();
        let shape = (time, time, self.bias.dim(1)?);
        let bias = position_bias(Some(&self.bias), self.heads, shape, DType::F32, q.device())?;
        attend(&heads(q)?, &heads(k)?, &heads(v)?, &bias)
    }

    /// u `[batch, T, C]` and Y `[batch, T, E]` -> `[batch, T, E]`; frame t sees Y before t.
    fn forward(&self, u: &Tensor, y: &Tensor) -> Result<Tensor> {
        let time = u.dim(1)?;
        let both = Tensor::cat(&[&y.broadcast_mul(&self.gain)?, u], 2)?; // [batch, T, E + C]
        let project = |name: &str, x: &Tensor| linear(x, &self.weight(name)?);
        let first_u = u.narrow(1, 0, 1)?.contiguous()?; // [batch, 1, C]
        let (q, first) = (norm_linear(u, &self.weight("q")?)?, project("first_v", &first_u)?);
        // Key position s holds the frame before the one at query position s.
        let (k, v) = (project("k", &both)?.narrow(1, 0, time - 1)?, project("v", &both)?.narrow(1, 0, time - 1)?);
        let x = if self.residual {
            let (k, v) = (Tensor::cat(&[&project("first_k", &first_u)?, &k], 1)?, Tensor::cat(&[&first, &v], 1)?);
            (project("o", &self.attend(&q, &k, &v)?)? + project("residual", u)?)?
        } else {
            let behind = if time > 1 { Some(self.attend(&q.narrow(1, 1, time - 1)?, &k, &v)?) } else { None };
            let all: Vec<Tensor> = [first].into_iter().chain(behind).collect();
            project("o", &Tensor::cat(&all, 1)?)?
        };
        saturating_mlp(&x, &self.weight("up")?, &self.weight("down")?, self.precision.activation_most())
    }
}

impl DirectAccess {
    /// Takes its weights from `vars`.
    pub(super) fn new(cfg: &Config, precision: Precision, vars: &BTreeMap<String, Var>) -> crate::Result<Self> {
        Ok(Self {
            h: Network::new(cfg.h(), precision, builder(vars, "h."))?,
            density: Deep::new(cfg.channels, builder(vars, "density."))?,
            over_w: Network::new(over_w(cfg), precision, builder(vars, "direct.w."))?,
            cross: Cross::new(cfg, precision, vars)?,
            over_y: Network::new(over_y(cfg), precision, builder(vars, "direct.y."))?,
        })
    }

    fn bits_y(&self, y: &Tensor, w: &Tensor) -> Result<Tensor> {
        let x = self.cross.forward(&self.over_w.forward(w)?, y)?;
        let (mean, scale) = parameters(&self.over_y.forward(&x)?, 1.0)?;
        rate::bits(y, &mean, &scale)
    }
}

impl EntropyModel for DirectAccess {
    fn price(&self, in_steps: &Tensor, _: &[u32], at: At) -> crate::Result<Priced> {
        nearest_alone("networks with direct access", at)?;
        let y = round(in_steps)?;
        let w = round(&self.h.forward(&y)?)?;
        let (bits_y, bits_w) = (self.bits_y(&y, &w)?, density::bits(&self.density, &w)?);
        Ok(Priced { y, w: Some(w), bits_y, bits_w, parameters: None })
    }

    fn smooth_bits(&self, y: &Tensor) -> crate::Result<Tensor> {
        let w = self.h.forward(y)?;
        Ok((self.bits_y(y, &w)? + density::bits(&self.density, &w)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use midspan_host::testing::random;

    /// A frame's parameters depend only on Y of earlier frames.
    #[test]
    fn the_cross_block_sees_earlier_frames_alone() {
        [Kind::DirectAccess, Kind::DirectAccessResidual].into_iter().for_each(sees_earlier_frames_alone);
    }

    fn sees_earlier_frames_alone(kind: Kind) {
        let cfg = Config { entropy_model: kind, ..Config::tiny() };
        let vars = init(&cfg, &mut Rng::new(2)).unwrap().into_iter();
        let vars: BTreeMap<String, Var> = vars.map(|(n, t)| (n, Var::from_tensor(&t).unwrap())).collect();
        let cross = Cross::new(&cfg, Precision::AsFrozen, &vars).unwrap();
        let (frames, width) = (8, cfg.h_widths[0]);
        let u = random(&[1, frames, cfg.channels], 1).as_tensor().clone();
        let y = random(&[1, frames, width], 2).as_tensor().clone();
        let before = cross.forward(&u, &y).unwrap().to_vec3::<f32>().unwrap();
        for changed in 0..frames {
            let mut other = y.to_vec3::<f32>().unwrap();
            other[0][changed].iter_mut().for_each(|value| *value += 1.0);
            let after = cross.forward(&u, &Tensor::new(other, y.device()).unwrap()).unwrap().to_vec3::<f32>().unwrap();
            for frame in 0..frames {
                assert_eq!(
                    before[0][frame] == after[0][frame],
                    frame <= changed,
                    "{kind:?}: frame {frame}, changed {changed}"
                );
            }
        }
    }
}
