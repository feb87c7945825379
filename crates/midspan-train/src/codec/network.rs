//! The form of h and g_y: causal transformer blocks that change width between attention and MLP.
//!
//! Block: `a = x + W_o attention(norm(x))`, `p = W_p a`, `x' = p + W_down min(gelu(W_up norm(p)), 8)`. All weights are
//! used as they will be frozen, rounded to int8 by rows, and the activation saturates where its table does
//! (quantisation-aware training). The other values that freezing rounds have 12 to 16 bits and stay in float.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::super::rng::Rng;
use super::rounded::rounded;
use crate::Error;
use midspan::model::network::{BLOCKS_MAX, HEAD_MAX, WIDTH_MAX, WINDOW_MAX};
use midspan_host::ops::{attention, linear, linear_residual, norm_linear, rms_norm, saturating_mlp};

/// Shape of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Input width of each block, then the width after the last block. One width alone makes a linear map.
    pub widths: Vec<usize>,
    /// Width of the output.
    pub output: usize,
    /// Attention heads of each block.
    pub heads: usize,
    /// Positions that attention looks back over.
    pub window: usize,
    /// Whether there is a norm before the output map.
    pub last_norm: bool,
    /// Whether every output has a factor, which is set when the network is made and not learned: outputs that reach far
    /// then learn as fast as others.
    pub units: bool,
}

/// The name of the outputs' factors.
pub const UNIT: &str = "output.unit";

/// The value at which the activation saturates: nearly the table's last input, 2,047 / 256.
pub const ACTIVATION_MOST: f32 = 8.0;
/// The smallest input gain that is used.
pub const LEAST_GAIN: f64 = 1e-3;

impl Shape {
    /// Refuses a shape that no network can have.
    ///
    /// # Errors
    /// [`Error::Setting`] for no width, or one alone before a norm; one of 0; or one that the heads cannot share.
    pub fn check(&self) -> crate::Result<()> {
        let least = if self.last_norm { 2 } else { 1 };
        let inputs = self.widths.split_last().map_or(&[][..], |(_, inputs)| inputs);
        let shared = |width: &usize| self.heads > 0 && width.is_multiple_of(self.heads);
        let refused = |wanted: String| Err(Error::setting("widths", format_args!("{:?}", self.widths), wanted));
        if self.widths.len() < least {
            return Err(Error::setting("the number of widths", self.widths.len(), format!("at least {least}")));
        }
        if self.widths.contains(&0) {
            return refused("above 0".into());
        }
        if !inputs.iter().all(shared) {
            return refused(format!("multiples of the heads, {}, but for the last", self.heads));
        }
        Ok(())
    }

    /// Also refuses a shape that no model file can hold (spec 4.2).
    ///
    /// # Errors
    /// Those of [`Shape::check`]; [`Error::Setting`] for widths, heads, blocks or a window beyond the format's bounds.
    pub fn check_frozen(&self) -> crate::Result<()> {
        self.check()?;
        let inputs = &self.widths[..self.widths.len() - 1];
        let bounds = [
            ("the largest width", self.widths.iter().max().copied().unwrap_or(0), WIDTH_MAX),
            ("the largest width of a head", inputs.iter().max().map_or(0, |most| most / self.heads), HEAD_MAX),
            ("the number of blocks", inputs.len(), BLOCKS_MAX),
            ("the window", self.window, WINDOW_MAX),
        ];
        match bounds.into_iter().find(|(_, own, most)| own > most) {
            Some((name, own, most)) => Err(Error::setting(name, own, format!("at most {most} in a model file"))),
            None if self.window == 0 => Err(Error::setting("the window", 0, "at least 1 in a model file")),
            None => Ok(()),
        }
    }

    /// Name and shape of every weight.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let mut out = vec![("input_gain".to_string(), vec![self.widths[0]])];
        for (i, w) in self.widths.windows(2).enumerate() {
            let (a, b) = (w[0], w[1]);
            let mut add = |n: &str, s: Vec<usize>| out.push((format!("blocks.{i}.{n}"), s));
            for n in ["q.weight", "k.weight", "v.weight", "o.weight"] {
                add(n, vec![a, a]);
            }
            add("bias", vec![self.heads, self.window]);
            add("proj.weight", vec![b, a]);
            add("up.weight", vec![4 * b, b]);
            add("down.weight", vec![b, 4 * b]);
        }
        let last = self.widths[self.widths.len() - 1];
        out.push(("output.weight".to_string(), vec![self.output, last]));
        out.push(("output.bias".to_string(), vec![self.output]));
        if self.units {
            out.push((UNIT.to_string(), vec![self.output]));
        }
        out
    }

    /// Multiplications a frame, without the products of two activations in attention.
    pub fn multiplications(&self) -> usize {
        let matrices = self.shapes().into_iter().filter(|(name, _)| name.ends_with(".weight"));
        matrices.map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// New weights. The output map has standard deviation `gain / sqrt(inputs)`. The second half of its bias is `bias`,
    /// the first half 0. Biases by distance fall linearly with slopes from 1/4 to 1/256.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn init(&self, gain: f32, bias: f32, rng: &mut Rng) -> Result<BTreeMap<String, Tensor>> {
        let mut out = BTreeMap::new();
        for (name, shape) in self.shapes() {
            let n: usize = shape.iter().product();
            let fan_in = shape[shape.len() - 1] as f32;
            let mut normal = |std: f32| (0..n).map(|_| std * rng.normal()).collect::<Vec<f32>>();
            let data = match name.rsplit('.').nth(1).unwrap_or("") {
                _ if name == "input_gain" => vec![0.5; n],
                _ if name == UNIT => vec![1.0; n],
                _ if name == "output.bias" => (0..n).map(|i| if 2 * i >= n { bias } else { 0.0 }).collect(),
                _ if name.ends_with(".bias") => (0..n)
                    .map(|i| {
                        let (head, distance) = (i / self.window, i % self.window);
                        -(distance as f32) * 2f32.powf(-8.0 * (head + 1) as f32 / self.heads as f32)
                    })
                    .collect(),
                "output" => normal(gain / fan_in.sqrt()),
                "o" | "down" => normal(0.3 / fan_in.sqrt()),
                "proj" => normal(1.0 / fan_in.sqrt()),
                _ => normal(0.7 / fan_in.sqrt()),
            };
            out.insert(name, Tensor::from_vec(data, shape, &Device::Cpu)?);
        }
        Ok(out)
    }
}

/// Runs a network in float with these weights.
#[cfg(test)]
pub(crate) fn run(shape: &Shape, weights: &BTreeMap<String, Tensor>, x: &Tensor) -> Tensor {
    let vb = VarBuilder::from_tensors(weights.clone().into_iter().collect(), candle_core::DType::F32, &Device::Cpu);
    Network::new(shape.clone(), Precision::Float, vb).unwrap().forward(x).unwrap()
}

/// Largest magnitudes in a network's runs. Freezing chooses fixed-point scales by them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extremes {
    /// Per block: the residual stream at the block's input and after attention. Without blocks: the output map's input.
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

impl Extremes {
    /// Takes in what block `index` computed, all `[batch, T, …]`: `narrow`, its input and the stream after attention;
    /// queries, keys and values; `wide`, the stream after the projection and the block's output.
    fn raise(
        &mut self,
        index: usize,
        heads: usize,
        narrow: [&Tensor; 2],
        qkv: &Tensor,
        wide: [&Tensor; 2],
    ) -> Result<()> {
        let blocks = (index + 1).max(self.v.len());
        for stream in [&mut self.narrow, &mut self.wide, &mut self.v] {
            stream.resize(blocks, 0.0);
        }
        for vectors in [&mut self.q, &mut self.k] {
            vectors.resize(blocks, vec![0.0; heads]);
        }
        let width = narrow[0].dim(2)?;
        for (stream, tensors) in [(&mut self.narrow, narrow), (&mut self.wide, wide)] {
            for tensor in tensors {
                raise_to(&mut stream[index], &tensor.flatten_all()?.to_vec1()?);
            }
        }
        for frame in qkv.flatten_all()?.to_vec1::<f32>()?.chunks_exact(3 * width) {
            let (q, rest) = frame.split_at(width);
            let (k, v) = rest.split_at(width);
            for (largest, values) in [(&mut self.q[index], q), (&mut self.k[index], k)] {
                for (largest, values) in largest.iter_mut().zip(values.chunks_exact(width / heads)) {
                    raise_to(largest, values);
                }
            }
            raise_to(&mut self.v[index], v);
        }
        Ok(())
    }
}

/// Raises a largest magnitude to that of `values`.
fn raise_to(largest: &mut f32, values: &[f32]) {
    *largest = values.iter().fold(*largest, |largest, value| largest.max(value.abs()));
}

#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
    pub(crate) o: Tensor,
    /// `[heads, window]`: by distance, nats.
    pub(crate) bias: Tensor,
    pub(crate) proj: Tensor,
    pub(crate) up: Tensor,
    pub(crate) down: Tensor,
}

impl Block {
    fn new(a: usize, b: usize, shape: &Shape, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            q: vb.get((a, a), "q.weight")?,
            k: vb.get((a, a), "k.weight")?,
            v: vb.get((a, a), "v.weight")?,
            o: vb.get((a, a), "o.weight")?,
            bias: vb.get((shape.heads, shape.window), "bias")?,
            proj: vb.get((b, a), "proj.weight")?,
            up: vb.get((4 * b, b), "up.weight")?,
            down: vb.get((b, 4 * b), "down.weight")?,
        })
    }

    /// x `[batch, T, a]` -> `[batch, T, b]`. Raises `extremes` of block `index`.
    fn forward(
        &self,
        x: &Tensor,
        heads: usize,
        precision: Precision,
        extremes: Option<(&mut Extremes, usize)>,
    ) -> Result<Tensor> {
        let rounded = |weight: &Tensor| precision.weight(weight);
        let qkv = rounded(&Tensor::cat(&[&self.q, &self.k, &self.v], 0)?)?;
        let qkv = norm_linear(x, &qkv)?; // [batch, T, 3 * a]
        let attended = attention(&qkv, heads, None, Some(&self.bias))?;
        let a = linear_residual(&attended, &rounded(&self.o)?, x)?;
        let p = linear(&a, &rounded(&self.proj)?)?; // [batch, T, b]
        let out = saturating_mlp(&p, &rounded(&self.up)?, &rounded(&self.down)?, precision.activation_most())?;
        if let Some((extremes, index)) = extremes {
            extremes.raise(index, heads, [x, &a], &qkv, [&p, &out])?;
        }
        Ok(out)
    }
}

/// Whether a network computes as it will be frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Weights are rounded to int8, and the activation saturates.
    AsFrozen,
    /// Neither, as a reference to measure the cost of freezing.
    Float,
}

impl Precision {
    /// A weight as a network computes with it.
    ///
    /// # Errors
    /// When the weight is not f32 on the CPU.
    pub fn weight(self, weight: &Tensor) -> Result<Tensor> {
        match self {
            Precision::AsFrozen => rounded(weight),
            Precision::Float => Ok(weight.clone()),
        }
    }

    /// The value at which the activation saturates.
    pub fn activation_most(self) -> f32 {
        match self {
            Precision::AsFrozen => ACTIVATION_MOST,
            Precision::Float => f32::INFINITY,
        }
    }
}

/// h or g_y.
#[derive(Clone, Debug)]
pub struct Network {
    pub(crate) shape: Shape,
    pub(crate) precision: Precision,
    gain: Tensor,
    pub(crate) blocks: Vec<Block>,
    /// Of the output map.
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    /// `[output]`: factors of the outputs, if they have any.
    pub(crate) unit: Option<Tensor>,
}

impl Network {
    /// Takes the weights named as in [`Shape::shapes`] from `vb`.
    ///
    /// # Errors
    /// Those of [`Shape::check`]; [`Error::Tensor`] if a weight is missing or has another shape.
    pub fn new(shape: Shape, precision: Precision, vb: VarBuilder) -> crate::Result<Self> {
        shape.check()?;
        let last = shape.widths[shape.widths.len() - 1];
        let blocks = shape
            .widths
            .windows(2)
            .enumerate()
            .map(|(i, w)| Block::new(w[0], w[1], &shape, vb.pp(format!("blocks.{i}"))))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            gain: vb.get(shape.widths[0], "input_gain")?,
            blocks,
            weight: vb.get((shape.output, last), "output.weight")?,
            bias: vb.get(shape.output, "output.bias")?,
            unit: if shape.units { Some(vb.get(shape.output, UNIT)?) } else { None },
            shape,
            precision,
        })
    }

    /// x `[batch, T, first width]` -> `[batch, T, output]`, causal.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_watched(x, None)
    }

    /// Runs one sequence, `[T, first width]`, from an empty context. Returns `[T, output]`, and raises `extremes` if they
    /// are given.
    ///
    /// # Errors
    /// When the values are not whole frames.
    pub fn run(&self, input: &[f32], extremes: Option<&mut Extremes>) -> Result<Vec<f32>> {
        let width = self.shape.widths[0];
        let x = Tensor::from_slice(input, (1, input.len() / width, width), &Device::Cpu)?;
        self.forward_watched(&x, extremes)?.flatten_all()?.to_vec1()
    }

    /// The factors of the inputs, `[first width]`.
    ///
    /// # Errors
    /// When the tensor cannot be computed.
    pub(crate) fn input_gain(&self) -> Result<Tensor> {
        self.gain.maximum(LEAST_GAIN)
    }

    fn forward_watched(&self, x: &Tensor, mut extremes: Option<&mut Extremes>) -> Result<Tensor> {
        let mut x = x.broadcast_mul(&self.input_gain()?)?;
        for (i, b) in self.blocks.iter().enumerate() {
            let extremes = extremes.as_deref_mut().map(|extremes| (extremes, i));
            x = b.forward(&x, self.shape.heads, self.precision, extremes)?;
        }
        if let Some(extremes) = extremes.filter(|_| self.blocks.is_empty()) {
            extremes.narrow.resize(1, 0.0);
            raise_to(&mut extremes.narrow[0], &x.flatten_all()?.to_vec1()?);
        }
        if self.shape.last_norm {
            x = rms_norm(&x)?;
        }
        let out = linear(&x, &self.precision.weight(&self.weight)?)?.broadcast_add(&self.bias)?;
        match &self.unit {
            Some(unit) => out.broadcast_mul(&unit.detach()),
            None => Ok(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Var};
    use midspan_host::testing::{difference, random};
    use std::collections::HashMap;

    /// The largest magnitude of some values.
    fn largest<'a>(values: impl IntoIterator<Item = &'a f32>) -> f32 {
        values.into_iter().fold(0.0, |largest, value| largest.max(value.abs()))
    }

    /// W x for each row x of `[T, inputs]`, computed plainly.
    fn rows(weight: &Tensor, x: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let weight = weight.to_vec2::<f32>().unwrap();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        x.iter().map(|x| weight.iter().map(|row| dot(row, x)).collect()).collect()
    }

    fn normed(x: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let norm = |x: &Vec<f32>| {
            let root = (x.iter().map(|value| value * value).sum::<f32>() / x.len() as f32).sqrt();
            x.iter().map(|value| value / root).collect()
        };
        x.iter().map(norm).collect()
    }

    #[test]
    fn a_run_sees_the_largest_values_of_every_stage() {
        let shape = Shape { widths: vec![4, 6], output: 3, heads: 2, window: 5, last_norm: false, units: false };
        let tensors: HashMap<String, Tensor> = shape.init(1.0, 0.0, &mut Rng::new(1)).unwrap().into_iter().collect();
        let vb = VarBuilder::from_tensors(tensors.clone(), DType::F32, &Device::Cpu);
        let net = Network::new(shape, Precision::Float, vb).unwrap();
        // With one frame attention gives v itself.
        let x = [vec![0.8_f32, -0.3, 0.2, 1.4]];
        let mut seen = Extremes::default();
        let out = net.run(&x[0], Some(&mut seen)).unwrap();
        assert_eq!(out, net.run(&x[0], None).unwrap());
        let sum =
            |a: &[Vec<f32>], b: &[Vec<f32>]| vec![a[0].iter().zip(&b[0]).map(|(a, b)| a + b).collect::<Vec<f32>>()];
        let weight = |name: &str| &tensors[&format!("blocks.0.{name}.weight")];
        let input = vec![x[0].iter().map(|value| 0.5 * value).collect::<Vec<f32>>()];
        let [q, k, v] = ["q", "k", "v"].map(|name| rows(weight(name), &normed(&input)));
        let attended = sum(&input, &rows(weight("o"), &v));
        let projected = rows(weight("proj"), &attended);
        let up = rows(weight("up"), &normed(&projected));
        let gelu = |x: &f32| {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        };
        let output = sum(&projected, &rows(weight("down"), &[up[0].iter().map(gelu).collect()]));
        let near = |found: f32, expected: f32, what: &str| {
            assert!((found - expected).abs() < 1e-4 * expected, "{what}: {found} instead of {expected}");
        };
        near(seen.narrow[0], largest(input[0].iter().chain(&attended[0])), "narrow");
        near(seen.wide[0], largest(projected[0].iter().chain(&output[0])), "wide");
        near(seen.v[0], largest(&v[0]), "values");
        for head in 0..2 {
            near(seen.q[0][head], largest(&q[0][2 * head..][..2]), "queries");
            near(seen.k[0][head], largest(&k[0][2 * head..][..2]), "keys");
        }
        assert!(seen.q[0][0] != seen.q[0][1] && seen.q != seen.k && seen.narrow != seen.wide, "{seen:?}");
        // Other frames raise extremes and lower none, in sequences longer than the window too.
        let before = seen.clone();
        net.run(&x[0].repeat(9).iter().map(|value| 0.1 * value).collect::<Vec<f32>>(), Some(&mut seen)).unwrap();
        assert!(seen.narrow == before.narrow && seen.wide == before.wide, "{seen:?}");
        net.run(&x[0].iter().map(|value| 3.0 * value).collect::<Vec<f32>>(), Some(&mut seen)).unwrap();
        assert!(seen.narrow[0] > 2.0 * before.narrow[0] && seen.wide[0] > before.wide[0], "{seen:?}");
    }

    #[test]
    fn changes_width_is_causal_and_learns_everywhere() {
        let shape = Shape { widths: vec![12, 8, 4], output: 6, heads: 2, window: 20, last_norm: true, units: false };
        let vars: HashMap<String, Var> = shape
            .init(1.0, 0.5, &mut Rng::new(1))
            .unwrap()
            .into_iter()
            .map(|(n, t)| (n, Var::from_tensor(&t).unwrap()))
            .collect();
        assert_eq!(vars.len(), shape.shapes().len());
        assert_eq!(vars["output.bias"].to_vec1::<f32>().unwrap(), [0.0, 0.0, 0.0, 0.5, 0.5, 0.5]);
        let slope = vars["blocks.1.bias"].to_vec2::<f32>().unwrap();
        assert!((slope[0][3] + 3.0 / 16.0).abs() < 1e-6 && (slope[1][2] + 2.0 / 256.0).abs() < 1e-6);
        let tensors = vars.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone())).collect();
        let net = Network::new(shape, Precision::AsFrozen, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
            .unwrap();
        let x = random(&[2, 18, 12], 3);
        let out = net.forward(&x).unwrap();
        assert_eq!(out.dims(), [2, 18, 6]);
        let part = net.forward(&x.narrow(1, 0, 9).unwrap()).unwrap();
        assert!(difference(&out.narrow(1, 0, 9).unwrap(), &part) < 1e-4);
        let grads = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        for (name, v) in &vars {
            let g = grads.get(v).unwrap_or_else(|| panic!("{name} has no gradient"));
            assert!(g.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.0, "{name}");
        }
    }
}
