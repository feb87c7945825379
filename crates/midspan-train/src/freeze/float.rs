//! The float networks h and g_y without candle. Freezing starts from them, and calibration runs them.
//!
//! The form is that of spec chapter 5 with real numbers: norm without gain, attention with a relative-position bias, a
//! projection between attention and MLP, GELU.

use std::collections::HashMap;

use crate::codec::network::ACTIVATION_MOST;
use crate::{Error, Result};

/// A dense layer `y = W x + b`.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatLinear {
    /// Values in.
    pub inputs: usize,
    /// Values out.
    pub outputs: usize,
    /// `[outputs, inputs]`.
    pub weight: Vec<f32>,
    /// `[outputs]`, or empty if there is none.
    pub bias: Vec<f32>,
}

/// One block.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatBlock {
    /// Attention's layers, d → d.
    pub q: FloatLinear,
    /// d → d.
    pub k: FloatLinear,
    /// d → d.
    pub v: FloatLinear,
    /// d → d.
    pub o: FloatLinear,
    /// d → d′.
    pub proj: FloatLinear,
    /// d′ → 4·d′.
    pub up: FloatLinear,
    /// 4·d′ → d′.
    pub down: FloatLinear,
    /// `[heads, window]`: bias by distance, nats.
    pub position: Vec<f32>,
}

/// A float network.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatNetwork {
    /// d_0 … d_B.
    pub widths: Vec<usize>,
    /// Heads of every block.
    pub heads: usize,
    /// Frames that attention sees.
    pub window: usize,
    /// `[d_0]`: the input is multiplied by it.
    pub input_gain: Vec<f32>,
    /// The value at which the activation saturates; infinite for networks that were trained without saturation.
    pub activation_most: f32,
    /// B blocks.
    pub blocks: Vec<FloatBlock>,
    /// Whether there is a norm before the last layer (g_y).
    pub output_norm: bool,
    /// The last layer.
    pub output: FloatLinear,
}

/// Largest magnitudes seen in calibration; they set the fixed-point scales.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extremes {
    /// Per block: the residual stream at the block's input and after attention.
    pub narrow: Vec<f32>,
    /// Per block: the residual stream after the projection and after the MLP.
    pub wide: Vec<f32>,
    /// Per block and head: queries.
    pub q: Vec<Vec<f32>>,
    /// Per block and head: keys.
    pub k: Vec<Vec<f32>>,
    /// Per block: values.
    pub v: Vec<f32>,
}

impl FloatLinear {
    fn run(&self, x: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(self.inputs);
        rows.enumerate().map(|(row, weight)| dot(weight, x) + self.bias.get(row).copied().unwrap_or(0.0)).collect()
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight running sums, so that the compiler can use vector registers.
    let mut sums = [0.0_f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// RMS norm without gain, `[d]`.
fn norm(x: &[f32]) -> Vec<f32> {
    let mean_square = dot(x, x) / x.len() as f32;
    let factor = 1.0 / (mean_square + 1e-12).sqrt();
    x.iter().map(|value| value * factor).collect()
}

/// GELU in its tanh form, as candle's `gelu`.
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + ((2.0 / std::f32::consts::PI).sqrt() * x * (1.0 + 0.044_715 * x * x)).tanh())
}

fn largest(so_far: &mut f32, values: &[f32]) {
    *so_far = values.iter().fold(*so_far, |largest, value| largest.max(value.abs()));
}

impl FloatNetwork {
    /// Reads a network from tensors named as in training (`blocks.{i}.{q,k,v,o,proj,up,down}.weight`,
    /// `blocks.{i}.bias`, `input_gain`, `output.{weight,bias}`), each after `prefix`.
    ///
    /// # Errors
    /// [`Error::Lacks`] or [`Error::Size`] for a tensor that is missing or has another size.
    pub fn from_tensors(
        tensors: &HashMap<String, Vec<f32>>,
        prefix: &str,
        widths: &[usize],
        heads: usize,
        window: usize,
        outputs: usize,
        output_norm: bool,
    ) -> Result<Self> {
        let take = |name: &str, len: usize| -> Result<Vec<f32>> {
            let name = format!("{prefix}{name}");
            let values = tensors.get(&name).ok_or_else(|| Error::lacks("the checkpoint", &*name))?;
            if values.len() == len {
                Ok(values.clone())
            } else {
                Err(Error::Size { name, found: vec![values.len()], wanted: vec![len] })
            }
        };
        let linear = |name: &str, inputs: usize, outputs: usize| -> Result<FloatLinear> {
            Ok(FloatLinear {
                inputs,
                outputs,
                weight: take(&format!("{name}.weight"), inputs * outputs)?,
                bias: Vec::new(),
            })
        };
        let mut blocks = Vec::new();
        for (i, pair) in widths.windows(2).enumerate() {
            let (d, wide) = (pair[0], pair[1]);
            let layer = |part: &str, inputs, outputs| linear(&format!("blocks.{i}.{part}"), inputs, outputs);
            blocks.push(FloatBlock {
                q: layer("q", d, d)?,
                k: layer("k", d, d)?,
                v: layer("v", d, d)?,
                o: layer("o", d, d)?,
                proj: layer("proj", d, wide)?,
                up: layer("up", wide, 4 * wide)?,
                down: layer("down", 4 * wide, wide)?,
                position: take(&format!("blocks.{i}.bias"), heads * window)?,
            });
        }
        let last = *widths.last().ok_or_else(|| Error::setting("the number of widths", 0, "at least 2"))?;
        let mut output = linear("output", last, outputs)?;
        output.bias = take("output.bias", outputs)?;
        Ok(Self {
            input_gain: take("input_gain", widths[0])?,
            widths: widths.to_vec(),
            heads,
            window,
            activation_most: ACTIVATION_MOST,
            blocks,
            output_norm,
            output,
        })
    }

    /// Runs a whole sequence `[T, d_0]` from an empty context. Returns `[T, outputs]` and updates `extremes`.
    pub fn run(&self, input: &[f32], extremes: &mut Extremes) -> Vec<f32> {
        extremes.narrow.resize(self.blocks.len(), 0.0);
        extremes.wide.resize(self.blocks.len(), 0.0);
        extremes.v.resize(self.blocks.len(), 0.0);
        extremes.q.resize(self.blocks.len(), vec![0.0; self.heads]);
        extremes.k.resize(self.blocks.len(), vec![0.0; self.heads]);
        let mut frames: Vec<Vec<f32>> = input
            .chunks_exact(self.widths[0])
            .map(|frame| frame.iter().zip(&self.input_gain).map(|(value, gain)| value * gain).collect())
            .collect();
        for (b, block) in self.blocks.iter().enumerate() {
            let attended = self.attention(b, block, &frames, extremes);
            for (x, attended) in frames.iter_mut().zip(attended) {
                largest(&mut extremes.narrow[b], x);
                for (x, o) in x.iter_mut().zip(block.o.run(&attended)) {
                    *x += o;
                }
                largest(&mut extremes.narrow[b], x);
                let mut wide = block.proj.run(x);
                largest(&mut extremes.wide[b], &wide);
                // The activation saturates as its table does.
                let hidden: Vec<f32> =
                    block.up.run(&norm(&wide)).iter().map(|u| gelu(*u).min(self.activation_most)).collect();
                for (x, d) in wide.iter_mut().zip(block.down.run(&hidden)) {
                    *x += d;
                }
                largest(&mut extremes.wide[b], &wide);
                *x = wide;
            }
        }
        frames
            .iter()
            .flat_map(|x| if self.output_norm { self.output.run(&norm(x)) } else { self.output.run(x) })
            .collect()
    }

    /// Attention of one block over all frames. Returns the mix before layer `o`.
    fn attention(&self, b: usize, block: &FloatBlock, frames: &[Vec<f32>], extremes: &mut Extremes) -> Vec<Vec<f32>> {
        let width = self.widths[b];
        let size = width / self.heads;
        let mut qkv = Vec::with_capacity(frames.len());
        for x in frames {
            let n = norm(x);
            let (q, k, v) = (block.q.run(&n), block.k.run(&n), block.v.run(&n));
            for head in 0..self.heads {
                largest(&mut extremes.q[b][head], &q[head * size..][..size]);
                largest(&mut extremes.k[b][head], &k[head * size..][..size]);
            }
            largest(&mut extremes.v[b], &v);
            qkv.push((q, k, v));
        }
        let scale = 1.0 / (size as f32).sqrt();
        (0..frames.len())
            .map(|t| {
                let mut mix = vec![0.0; width];
                let first = (t + 1).saturating_sub(self.window);
                for head in 0..self.heads {
                    let part = head * size..(head + 1) * size;
                    let position = &block.position[head * self.window..][..self.window];
                    let scores: Vec<f32> = (first..=t)
                        .map(|u| dot(&qkv[t].0[part.clone()], &qkv[u].1[part.clone()]) * scale + position[t - u])
                        .collect();
                    let top = scores.iter().copied().fold(f32::MIN, f32::max);
                    let exp: Vec<f32> = scores.iter().map(|score| (score - top).exp()).collect();
                    let sum: f32 = exp.iter().sum();
                    for (u, e) in (first..=t).zip(&exp) {
                        for (mix, v) in mix[part.clone()].iter_mut().zip(&qkv[u].2[part.clone()]) {
                            *mix += e / sum * v;
                        }
                    }
                }
                mix
            })
            .collect()
    }
}
