//! Gives a network more inputs. At first they change nothing but the root mean square that the first block divides by.

use candle_core::{DType, Device, Tensor};

use super::Error;
use super::codec::network::Shape;
use super::prune::Weights;
use super::rng::Rng;

/// Gives a network of the shape `from` the inputs of `to`, which come after its own.
///
/// The new inputs have weight 0 where the network's stream reads them. The first block's heads grow with its inputs: their
/// new queries are 0, their new values are drawn from `rng` and read with weight 0.
///
/// # Errors
/// [`Error::Setting`] if the shapes differ in more than the number of inputs or it would fall, [`Error::Lacks`] if a weight
/// is missing.
pub fn widen_input(weights: &mut Weights, from: &Shape, to: &Shape, rng: &mut Rng) -> Result<(), Error> {
    let (Some(&own), Some(&wide)) = (from.widths.first(), to.widths.first()) else {
        return Err(Error::setting("the number of widths", 0, "at least 2"));
    };
    let widths = [&to.widths[..1], &from.widths[1..]].concat();
    if wide < own || wide % to.heads != 0 || *to != (Shape { widths, ..from.clone() }) {
        let wanted = format!("those of {:?} with more inputs, a multiple of {} heads", from.widths, from.heads);
        return Err(Error::setting("the widths of g_y", format_args!("{:?}", to.widths), wanted));
    }
    let new = to.init(1.0, 0.0, rng)?;
    // Places of the first block's own channels inside heads.
    let (size, larger) = (own / from.heads, wide / from.heads);
    let in_heads: Vec<usize> = (0..own).map(|at| at / size * larger + at % size).collect();
    let first: Vec<usize> = (0..own).collect();
    // Normalised inputs are larger where inputs that are 0 share the mean. For queries this makes up for scores, which are
    // divided by the root of the larger head size.
    let fewer = (own as f64 / wide as f64).sqrt();
    let zeros = |name: &str| Tensor::zeros(new[name].shape(), DType::F32, &Device::Cpu);
    for (name, rows, columns, factor) in [
        ("q", &in_heads, &first, 1.0),
        ("k", &in_heads, &first, fewer),
        ("v", &in_heads, &first, fewer),
        ("o", &first, &in_heads, 1.0),
        ("proj", &(0..to.widths[1]).collect(), &first, 1.0),
    ] {
        let name = format!("blocks.0.{name}.weight");
        let old = weights.get(&name).ok_or_else(|| Error::lacks("the checkpoint", name.as_str()))?;
        let mut grown = match name.contains(".v.") || name.contains(".k.") {
            true => new[&name].clone(),
            false => zeros(&name)?,
        }
        .to_vec2::<f32>()?;
        for (row, old) in rows.iter().zip((old * factor)?.to_vec2::<f32>()?) {
            grown[*row].fill(0.0);
            columns.iter().zip(old).for_each(|(column, value)| grown[*row][*column] = value);
        }
        weights.insert(name, Tensor::new(grown, &Device::Cpu)?);
    }
    let old = weights.get("input_gain").ok_or_else(|| Error::lacks("the checkpoint", "input_gain"))?;
    let rest = new["input_gain"].narrow(0, own, wide - own)?;
    weights.insert("input_gain".into(), Tensor::cat(&[old, &rest], 0)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::codec::network::run;
    use super::*;
    use midspan_host::testing::{difference, random};

    #[test]
    fn new_inputs_change_nothing_at_first() {
        let from = Shape { widths: vec![4, 12, 8], output: 6, heads: 2, window: 20, last_norm: true, units: false };
        let to = Shape { widths: vec![10, 12, 8], ..from.clone() };
        let mut weights = from.init(1.0, 0.5, &mut Rng::new(3)).unwrap();
        let x = random(&[2, 10, 4], 5);
        let before = run(&from, &weights, &x);
        widen_input(&mut weights, &from, &to, &mut Rng::new(4)).unwrap();
        for (name, dims) in to.shapes() {
            assert_eq!(weights[&name].dims(), dims, "{name}");
        }
        let with = |rest: &Tensor| run(&to, &weights, &Tensor::cat(&[&x, rest], 2).unwrap());
        let zeros = Tensor::zeros((2, 10, 6), DType::F32, &Device::Cpu).unwrap();
        // The ε in a norm has a slightly different effect.
        let distance = difference(&before, &with(&zeros));
        assert!(distance < 1e-3, "{distance}");
        // Further inputs only change what the attention of the first block divides by.
        let small = (random(&[2, 10, 6], 6).as_tensor() * 1e-3).unwrap();
        assert!(difference(&before, &with(&small)) < 1e-2);
    }

    #[test]
    fn other_shapes_are_refused() {
        let from = Shape { widths: vec![4, 12, 8], output: 6, heads: 2, window: 20, last_norm: true, units: false };
        let weights = from.init(1.0, 0.5, &mut Rng::new(3)).unwrap();
        for widths in [vec![2, 12, 8], vec![9, 12, 8], vec![10, 12, 4], vec![10, 12], vec![]] {
            let to = Shape { widths: widths.clone(), ..from.clone() };
            assert!(widen_input(&mut weights.clone(), &from, &to, &mut Rng::new(4)).is_err(), "{widths:?}");
        }
        let to = Shape { widths: vec![10, 12, 8], ..from.clone() };
        assert!(widen_input(&mut Weights::new(), &from, &to, &mut Rng::new(4)).is_err());
    }
}
