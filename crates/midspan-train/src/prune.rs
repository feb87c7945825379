//! Makes a network narrower. Where a width shrinks, the channels of largest weight are kept.
//!
//! The weight of a channel is the product of two norms: of the matrices that write it, and of the matrices that read
//! it. Matrices that read normalised values, and queries, are scaled so that removing channels that were 0 changes
//! nothing.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::Error;
use super::codec::network::Shape;

/// Weights of a network, named as in [`Shape::shapes`].
pub type Weights = BTreeMap<String, Tensor>;

/// Makes a network of the shape `from` as narrow as `to`.
///
/// # Errors
/// [`Error::Cut`] if the shapes differ in more than inner widths or a width would grow, [`Error::Lacks`] if a weight is
/// missing.
pub fn narrow(weights: &mut Weights, from: &Shape, to: &Shape) -> Result<(), Error> {
    let same = Shape { widths: from.widths.clone(), ..to.clone() } == *from
        && from.widths.len() == to.widths.len()
        && from.widths.first() == to.widths.first();
    let fits = |(narrow, wide): (&usize, &usize)| *narrow > 0 && narrow <= wide && narrow % to.heads == 0;
    if !same || !to.widths.iter().zip(&from.widths).all(fits) {
        return Err(Error::Cut { from: from.widths.clone(), to: to.widths.clone() });
    }
    for (at, (wide, narrow)) in from.widths.iter().zip(&to.widths).enumerate().skip(1) {
        if narrow < wide {
            Cut { weights, shape: from, at }.apply(*wide, *narrow)?;
        }
    }
    Ok(())
}

/// One width of a network, between block `at` − 1, whose MLP has this width, and block `at`, whose attention has it, or
/// the output.
struct Cut<'a> {
    weights: &'a mut Weights,
    shape: &'a Shape,
    at: usize,
}

/// Rows or columns of a matrix.
const ROWS: usize = 0;
const COLUMNS: usize = 1;

impl Cut<'_> {
    fn apply(&mut self, wide: usize, narrow: usize) -> Result<(), Error> {
        let last = self.at + 1 == self.shape.widths.len();
        let before = |name: &str| format!("blocks.{}.{name}.weight", self.at - 1);
        let behind = |name: &str| format!("blocks.{}.{name}.weight", self.at);
        let (proj, up, down) = (before("proj"), before("up"), before("down"));
        let [q, k, v, o] = ["q", "k", "v", "o"].map(behind);
        let next = behind("proj");
        let (mut writers, mut readers) = (vec![proj, down.clone()], vec![up.clone()]);
        // The matrices that read it normalised.
        let mut normalised = vec![up.clone()];
        let output = "output.weight".to_string();
        if last {
            normalised.extend(self.shape.last_norm.then(|| output.clone()));
            readers.push(output);
        } else {
            writers.push(o.clone());
            readers.extend([q.clone(), k.clone(), v.clone(), next]);
            normalised.extend([q.clone(), k.clone(), v.clone()]);
        }
        let weight = product(&self.norms(&writers, ROWS)?, &self.norms(&readers, COLUMNS)?);
        let kept = heaviest(&weight, narrow, 0);
        writers.iter().try_for_each(|name| self.keep(name, ROWS, &kept))?;
        readers.iter().try_for_each(|name| self.keep(name, COLUMNS, &kept))?;
        // The root mean square of fewer channels is larger.
        let factor = (wide as f64 / narrow as f64).sqrt();
        normalised.iter().try_for_each(|name| self.scale(name, factor))?;
        let one = std::slice::from_ref;
        let hidden = product(&self.norms(one(&up), ROWS)?, &self.norms(one(&down), COLUMNS)?);
        let hidden = heaviest(&hidden, 4 * narrow, 0);
        self.keep(&up, ROWS, &hidden)?;
        self.keep(&down, COLUMNS, &hidden)?;
        if last {
            return Ok(());
        }
        // Inside attention: keep equally many channels of every head.
        for (pair, [first, second]) in [([&q, &k], [ROWS, ROWS]), ([&v, &o], [ROWS, COLUMNS])] {
            let weight = product(&self.norms(one(pair[0]), first)?, &self.norms(one(pair[1]), second)?);
            let (size, fewer) = (wide / self.shape.heads, narrow / self.shape.heads);
            let heads = weight.chunks_exact(size).enumerate();
            let kept: Vec<u32> = heads.flat_map(|(head, weight)| heaviest(weight, fewer, head * size)).collect();
            self.keep(pair[0], first, &kept)?;
            self.keep(pair[1], second, &kept)?;
        }
        // Scores are divided by the root of the head size, which changes.
        self.scale(&q, (narrow as f64 / wide as f64).sqrt())
    }

    fn get(&self, name: &str) -> Result<&Tensor, Error> {
        self.weights.get(name).ok_or_else(|| Error::lacks("the checkpoint", name))
    }

    /// Squared norms of the rows or columns of some matrices, summed over the matrices.
    fn norms(&self, names: &[String], dim: usize) -> Result<Vec<f32>, Error> {
        let mut sums: Vec<f32> = Vec::new();
        for name in names {
            let norms: Vec<f32> = self.get(name)?.sqr()?.sum(1 - dim)?.to_vec1()?;
            sums.resize(norms.len(), 0.0);
            sums.iter_mut().zip(norms).for_each(|(sum, norm)| *sum += norm);
        }
        Ok(sums)
    }

    fn keep(&mut self, name: &str, dim: usize, kept: &[u32]) -> Result<(), Error> {
        let part = self.get(name)?.index_select(&Tensor::new(kept, &Device::Cpu)?, dim)?.contiguous()?;
        self.weights.insert(name.to_string(), part);
        Ok(())
    }

    fn scale(&mut self, name: &str, factor: f64) -> Result<(), Error> {
        let scaled = (self.get(name)? * factor)?;
        self.weights.insert(name.to_string(), scaled);
        Ok(())
    }
}

fn product(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a * b).collect()
}

/// Indices of the `count` largest weights in ascending order, counted from `first`.
fn heaviest(weight: &[f32], count: usize, first: usize) -> Vec<u32> {
    let mut places: Vec<usize> = (0..weight.len()).collect();
    places.sort_by(|a, b| weight[*b].total_cmp(&weight[*a]));
    places.truncate(count);
    places.sort_unstable();
    places.into_iter().map(|place| (first + place) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::super::codec::network::run;
    use super::super::rng::Rng;
    use super::*;
    use midspan_host::testing::{difference, random};

    /// Sets the rows or columns of a matrix that are not in `kept` to 0.
    fn clear(weights: &mut Weights, name: &str, dim: usize, kept: &[usize]) {
        let rows = weights[name].to_vec2::<f32>().unwrap();
        let cleared: Vec<Vec<f32>> = rows
            .into_iter()
            .enumerate()
            .map(|(r, row)| {
                let at = |c: usize| if dim == ROWS { r } else { c };
                row.into_iter().enumerate().map(|(c, v)| if kept.contains(&at(c)) { v } else { 0.0 }).collect()
            })
            .collect();
        weights.insert(name.into(), Tensor::new(cleared, &Device::Cpu).unwrap());
    }

    #[test]
    fn channels_that_were_0_are_not_missed() {
        for last_norm in [false, true] {
            let from = Shape { widths: vec![4, 12, 8], output: 6, heads: 2, window: 20, last_norm, units: false };
            let to = Shape { widths: vec![4, 8, 4], ..from.clone() };
            let mut weights = from.init(1.0, 0.5, &mut Rng::new(3)).unwrap();
            // Eight of the stream's 12 channels are used, four of the six in each head, 32 of the 48 units, and so on.
            let stream = [0, 1, 3, 4, 6, 8, 10, 11];
            let heads = [0, 2, 3, 5, 6, 7, 9, 11];
            for (name, dim) in [("0.proj", ROWS), ("0.down", ROWS), ("1.o", ROWS)] {
                clear(&mut weights, &format!("blocks.{name}.weight"), dim, &stream);
            }
            for (name, dim) in [("q", ROWS), ("k", ROWS), ("v", ROWS), ("o", COLUMNS)] {
                clear(&mut weights, &format!("blocks.1.{name}.weight"), dim, &heads);
            }
            let units: Vec<usize> = (0..48).filter(|unit| unit % 3 != 1).collect();
            clear(&mut weights, "blocks.0.up.weight", ROWS, &units);
            for name in ["1.proj", "1.down"] {
                clear(&mut weights, &format!("blocks.{name}.weight"), ROWS, &[1, 2, 5, 6]);
            }
            let units: Vec<usize> = (0..32).filter(|unit| unit % 2 == 1).collect();
            clear(&mut weights, "blocks.1.up.weight", ROWS, &units);
            let x = random(&[2, 10, 4], 5);
            let before = run(&from, &weights, &x);
            narrow(&mut weights, &from, &to).unwrap();
            for (name, dims) in to.shapes() {
                assert_eq!(weights[&name].dims(), dims, "{name}");
            }
            let distance = difference(&before, &run(&to, &weights, &x));
            // The ε in a norm has a slightly different effect.
            assert!(distance < 1e-3, "{distance}");
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let from = Shape { widths: vec![4, 12, 8], output: 6, heads: 2, window: 20, last_norm: true, units: false };
        let weights = from.init(1.0, 0.5, &mut Rng::new(3)).unwrap();
        let refused = |to: Shape| match narrow(&mut weights.clone(), &from, &to) {
            Err(Error::Cut { from: own, to: asked }) => own == from.widths && asked == to.widths,
            other => other.is_err(),
        };
        for widths in [vec![4, 14, 8], vec![4, 12], vec![2, 12, 8], vec![4, 11, 8], vec![4, 0, 8]] {
            assert!(refused(Shape { widths: widths.clone(), ..from.clone() }), "{widths:?}");
        }
        assert!(refused(Shape { output: 4, ..from.clone() }) && !refused(from.clone()));
    }
}
