//! What g_y takes of side indices, the tokens of frames: sums of an embedding's rows (spec 4.8; 5.5, step 1).
//!
//! The embedding is used as it will be frozen. All entries of one sum share a unit, and are int8 multiples of it; the
//! gradient passes straight through.

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape as Dims, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::network::Precision;
use crate::Error;
use crate::data::{Batch, draw};
use crate::rng::Rng;
use midspan::model::side::{AGES_MAX, SIDE_WIDTH_MAX, VOCABULARY_MAX};
use midspan_host::ops::values;

/// The name of the embedding's variable.
pub const EMBEDDING: &str = "side.embedding";
/// Standard deviation of new entries.
const START: f32 = 0.3;
/// The largest magnitude of an entry in units.
const ENTRY_MAX: f32 = 127.0;

/// The shape of an embedding of side indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// A, 1 to 16: the side indices of so many frames add up to a frame's sums, its own included.
    pub ages: usize,
    /// V, 1 to 2^20 − 1: tokens from V on say nothing.
    pub vocabulary: usize,
    /// D, 1 to 8,191: sums that g_y takes after W.
    pub width: usize,
}

impl Shape {
    /// Refuses a shape that no model file can hold.
    ///
    /// # Errors
    /// [`Error::Setting`] for ages, a vocabulary or a width outside their ranges.
    pub fn check(self) -> crate::Result<()> {
        let bounds = [
            ("the ages of side indices", self.ages, AGES_MAX),
            ("the vocabulary of side indices", self.vocabulary, VOCABULARY_MAX),
            ("the sums of side indices", self.width, SIDE_WIDTH_MAX),
        ];
        match bounds.into_iter().find(|(_, found, most)| !(1..=*most).contains(found)) {
            Some((name, found, most)) => Err(Error::setting(name, found, format!("1 to {most}"))),
            None => Ok(()),
        }
    }

    /// New entries, `[A, V, D]`.
    ///
    /// # Errors
    /// When the tensor cannot be made.
    pub fn init(self, rng: &mut Rng) -> Result<Tensor> {
        let entries = (0..self.ages * self.vocabulary * self.width).map(|_| START * rng.normal());
        Tensor::from_vec(entries.collect::<Vec<f32>>(), self.dims(), &Device::Cpu)
    }

    /// `[A, V, D]`.
    pub fn dims(self) -> (usize, usize, usize) {
        (self.ages, self.vocabulary, self.width)
    }

    /// The rows of the embedding, `[A · V, D]`, that add up to the sums of each frame of sequences of `time` frames:
    /// one for each age, or [`NONE`]. The first frame of a sequence has none before it.
    fn rows(self, ids: &[u32], time: usize) -> Vec<u32> {
        let row = |age: usize, id: u32| match (id as usize) < self.vocabulary {
            true => (age * self.vocabulary) as u32 + id,
            false => NONE,
        };
        let frame = |ids: &[u32], at: usize| -> Vec<u32> {
            (0..self.ages).map(|age| at.checked_sub(age).map_or(NONE, |earlier| row(age, ids[earlier]))).collect()
        };
        ids.chunks(time.max(1)).flat_map(|ids| (0..ids.len()).flat_map(move |at| frame(ids, at))).collect()
    }
}

/// The name of the share of windows without side indices in [`Error::Setting`].
pub const DROPOUT: &str = "the dropout of side indices";

/// No row, and no token.
const NONE: u32 = u32::MAX;

/// The share of windows whose side indices are left out in training, so that a codec also learns to do without them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dropout(f64);

impl Dropout {
    /// A share from 0 to 1; 0 by default.
    ///
    /// # Errors
    /// [`Error::Setting`] for another share.
    pub fn new(share: f64) -> crate::Result<Self> {
        match (0.0..=1.0).contains(&share) {
            true => Ok(Self(share)),
            false => Err(Error::setting(DROPOUT, share, "0 to 1")),
        }
    }

    /// The share.
    pub fn share(self) -> f64 {
        self.0
    }

    /// The inputs of a batch, `rows * len`, with no token for the frames of windows that are left out. Each window is
    /// drawn by its tokens and the step.
    pub fn known(self, batch: &Batch, step: u64) -> Vec<u32> {
        // The step's highest bit is set, so that these draws are not those of qualities.
        let left_out = |window: &[u32]| {
            let drawn = (draw(window, step | 1 << 63) >> 32) as f64 / 4_294_967_296.0;
            drawn < self.0
        };
        let mut ids = batch.inputs();
        for (known, window) in ids.chunks_mut(batch.len.max(1)).zip(batch.ids.chunks(batch.len + 1)) {
            if left_out(window) {
                known.fill(NONE);
            }
        }
        ids
    }
}

/// Entries `[A · V, D]` as int8, and the unit of each of the D sums.
pub fn quantised(entries: &[f32], width: usize) -> (Vec<i8>, Vec<f32>) {
    let units = units(entries, width);
    let values =
        entries.chunks_exact(width).flat_map(|row| row.iter().zip(&units).map(|(x, unit)| whole(*x, *unit) as i8));
    (values.collect(), units)
}

/// The unit of each sum: its largest entry becomes ±127.
fn units(entries: &[f32], width: usize) -> Vec<f32> {
    let mut largest = vec![0.0_f32; width];
    for row in entries.chunks_exact(width) {
        largest.iter_mut().zip(row).for_each(|(largest, x)| *largest = largest.max(x.abs()));
    }
    largest.into_iter().map(|largest| (largest / ENTRY_MAX).max(1e-30)).collect()
}

/// An entry in units.
fn whole(x: f32, unit: f32) -> f32 {
    (x / unit).round().clamp(-ENTRY_MAX, ENTRY_MAX)
}

/// The embedding of side indices in float.
#[derive(Clone, Debug)]
pub struct Embedding {
    shape: Shape,
    precision: Precision,
    /// `[A, V, D]`.
    entries: Tensor,
}

impl Embedding {
    /// Takes `embedding`, `[A, V, D]`, from `vb`.
    ///
    /// # Errors
    /// Those of [`Shape::check`]; [`Error::Tensor`] if it is missing or has another shape.
    pub fn new(shape: Shape, precision: Precision, vb: VarBuilder) -> crate::Result<Self> {
        shape.check()?;
        Ok(Self { shape, precision, entries: vb.get(shape.dims(), "embedding")? })
    }

    /// The sums of `batch` sequences of `time` frames, `[batch, T, D]`, whose frames have these tokens, batch · T in all.
    /// Without tokens they are 0.
    ///
    /// # Errors
    /// [`Error::Setting`] for another number of tokens, [`Error::Tensor`] if the embedding is not f32 on the CPU.
    pub fn sums(&self, ids: &[u32], (batch, time): (usize, usize)) -> crate::Result<Tensor> {
        if ids.is_empty() {
            return Ok(Tensor::zeros((batch, time, self.shape.width), DType::F32, &Device::Cpu)?);
        }
        if ids.len() != batch * time {
            return Err(Error::setting("the number of tokens", ids.len(), format!("{}, one a frame", batch * time)));
        }
        let sums = Sums { shape: self.shape, rows: self.shape.rows(ids, time), precision: self.precision };
        Ok(self.entries.contiguous()?.apply_op1(sums)?.reshape((batch, time, self.shape.width))?)
    }
}

/// `[A, V, D]` → `[frames, D]`.
struct Sums {
    shape: Shape,
    /// A for each frame.
    rows: Vec<u32>,
    precision: Precision,
}

impl CustomOp1 for Sums {
    fn name(&self) -> &'static str {
        "side-sums"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Dims)> {
        let Shape { ages, width, .. } = self.shape;
        let entries = values(storage, layout)?;
        let units = match self.precision {
            Precision::AsFrozen => units(entries, width),
            Precision::Float => vec![1.0; width],
        };
        let frames = self.rows.len() / ages;
        let mut sums = vec![0.0_f32; frames * width];
        for (rows, sums) in self.rows.chunks_exact(ages).zip(sums.chunks_exact_mut(width)) {
            for row in rows.iter().filter(|row| **row != NONE) {
                let row = &entries[*row as usize * width..][..width];
                for ((sum, x), unit) in sums.iter_mut().zip(row).zip(&units) {
                    *sum += if self.precision == Precision::AsFrozen { whole(*x, *unit) } else { *x };
                }
            }
            sums.iter_mut().zip(&units).for_each(|(sum, unit)| *sum *= unit);
        }
        Ok((CpuStorage::F32(sums), Dims::from((frames, width))))
    }

    fn bwd(&self, entries: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let Shape { ages, width, .. } = self.shape;
        let mut of_entries = vec![0.0_f32; entries.elem_count()];
        let grad = grad.flatten_all()?.to_vec1::<f32>()?; // [frames · D]
        for (rows, grad) in self.rows.chunks_exact(ages).zip(grad.chunks_exact(width)) {
            for row in rows.iter().filter(|row| **row != NONE) {
                let row = &mut of_entries[*row as usize * width..][..width];
                row.iter_mut().zip(grad).for_each(|(sum, grad)| *sum += grad);
            }
        }
        Tensor::from_vec(of_entries, entries.shape(), entries.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;
    use std::collections::HashMap;

    const SHAPE: Shape = Shape { ages: 2, vocabulary: 3, width: 2 };

    fn embedding(precision: Precision) -> (Var, Embedding) {
        // Ages 0 and 1 of three tokens, two sums. The largest entries are 1.27 and 63.5.
        let entries = [0.5_f32, 10.0, 0.302, -20.0, 1.27, 0.0, 0.1, 30.2, -0.2, 63.5, 0.0, 0.3];
        let var = Var::from_slice(&entries, SHAPE.dims(), &Device::Cpu).unwrap();
        let tensors = HashMap::from([("embedding".to_string(), var.as_tensor().clone())]);
        let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        (var, Embedding::new(SHAPE, precision, vb).unwrap())
    }

    #[test]
    fn sums_are_those_of_the_last_tokens_and_every_row_learns() {
        let (var, side) = embedding(Precision::AsFrozen);
        // Two sequences; 3 is no token.
        let sums = side.sums(&[1, 0, 3, 2], (2, 2)).unwrap();
        let expected = [[[0.30_f32, -20.0], [0.5 - 0.2, 10.0 + 63.5]], [[0.0, 0.0], [1.27, 0.0]]];
        let difference = |found: &Tensor, expected: &[[[f32; 2]; 2]; 2]| {
            let expected = Tensor::new(expected, &Device::Cpu).unwrap();
            (found - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
        };
        assert!(difference(&sums, &expected) < 1e-5, "{sums}");
        // In float nothing is rounded.
        let float = embedding(Precision::Float).1.sums(&[1, 0, 3, 2], (2, 2)).unwrap();
        assert!((difference(&float, &expected) - 0.002).abs() < 1e-5, "{float}");
        let weights = Tensor::new(&[[[1f32, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]], &Device::Cpu).unwrap();
        let grads = (sums * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let grads = grads.get(&var).unwrap().to_vec3::<f32>().unwrap();
        let none = [0.0, 0.0];
        assert_eq!(grads, [[[3.0, 4.0], [1.0, 2.0], [7.0, 8.0]], [none, [3.0, 4.0], none]]);
        // Nothing is known of frames without tokens.
        let unknown = side.sums(&[], (1, 3)).unwrap();
        assert_eq!(unknown.to_vec3::<f32>().unwrap(), [[[0.0; 2]; 3]]);
        let error = side.sums(&[1], (1, 3)).unwrap_err().to_string();
        assert_eq!(error, "the number of tokens must be 3, one a frame, not 1");
    }

    #[test]
    fn sums_are_those_of_the_frozen_embedding() {
        let shape = Shape { ages: 3, vocabulary: 20, width: 5 };
        let entries = shape.init(&mut Rng::new(4)).unwrap();
        let (values, units) = quantised(&entries.flatten_all().unwrap().to_vec1().unwrap(), 5);
        assert!(units.iter().enumerate().all(|(at, _)| values.iter().skip(at).step_by(5).any(|x| x.abs() == 127)));
        let tensors = HashMap::from([("embedding".to_string(), entries)]);
        let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let ids: Vec<u32> = (0..12).map(|i| i * i % 21).collect();
        let sums = Embedding::new(shape, Precision::AsFrozen, vb).unwrap().sums(&ids, (1, 12)).unwrap();
        let sums = sums.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (at, sum) in sums.iter().enumerate() {
            let (frame, column) = (at / 5, at % 5);
            let ages = (0..=frame.min(2)).filter(|age| ids[frame - age] < 20);
            let whole: i32 =
                ages.map(|age| i32::from(values[(20 * age + ids[frame - age] as usize) * 5 + column])).sum();
            assert!((sum - whole as f32 * units[column]).abs() < 1e-5, "{at}");
        }
    }

    #[test]
    fn shapes_that_no_model_holds_are_refused() {
        let refused = |shape: Shape| shape.check().unwrap_err().to_string();
        assert_eq!(refused(Shape { ages: 17, ..SHAPE }), "the ages of side indices must be 1 to 16, not 17");
        assert_eq!(refused(Shape { width: 0, ..SHAPE }), "the sums of side indices must be 1 to 8191, not 0");
        let line = refused(Shape { vocabulary: 1 << 20, ..SHAPE });
        assert_eq!(line, "the vocabulary of side indices must be 1 to 1048575, not 1048576");
        SHAPE.check().unwrap();
    }

    #[test]
    fn dropout_leaves_out_whole_windows_about_as_often_as_asked() {
        let batch = Batch { ids: (0..4 * 2000).collect(), rows: 2000, len: 3 };
        let all = |share: f64, step: u64| Dropout::new(share).unwrap().known(&batch, step);
        assert_eq!(all(0.0, 5), batch.inputs());
        assert!(all(1.0, 5).iter().all(|id| *id == NONE));
        let some = all(0.125, 5);
        let inputs = batch.inputs();
        let mut left_out = 0;
        for (known, inputs) in some.chunks(3).zip(inputs.chunks(3)) {
            let none = known.iter().all(|id| *id == NONE);
            left_out += usize::from(none);
            assert!(none || known == inputs);
        }
        assert!((200..300).contains(&left_out), "{left_out}");
        assert_ne!(some, all(0.125, 6));
        assert_eq!(some, all(0.125, 5));
        for share in [-0.1, 1.5, f64::NAN] {
            assert!(Dropout::new(share).is_err(), "{share}");
        }
    }
}
