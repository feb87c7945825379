//! Values, comparisons and a small host for tests.

use candle_core::{Device, Tensor, Var};
use midspan::model::synthetic::Random;

/// A generator of values in [-1, 1) that depend only on the seed.
pub fn generator(seed: u64) -> impl FnMut() -> f32 {
    let mut random = Random::new(seed);
    move || (random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// Values in [-1, 1).
pub fn random(shape: &[usize], seed: u64) -> Var {
    let mut next = generator(seed);
    let data: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Var::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// The largest difference between two tensors, relative to the largest value of the second.
pub fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let top = |t: &Tensor| t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    top(&(a - b).unwrap()) / top(b).max(1e-6)
}

/// Compares values and all gradients of two ways to compute the same thing.
pub fn same(vars: &[&Var], a: &Tensor, b: &Tensor, tolerance: f32) {
    assert!(difference(a, b) < tolerance, "values differ by {}", difference(a, b));
    let weights = random(a.dims(), 77);
    let grads = |t: &Tensor| (t * weights.as_detached_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
    let (ga, gb) = (grads(a), grads(b));
    for (i, v) in vars.iter().enumerate() {
        let (x, y) = (ga.get(v).expect("a gradient"), gb.get(v).expect("a gradient"));
        let d = difference(x, y);
        assert!(d < tolerance, "gradient {i} differs by {d}");
    }
}

/// The bytes of a small llama2.c model with new weights.
pub fn llama_file(vocab: i32) -> Vec<u8> {
    let fields = [16_i32, 24, 3, 4, 2, vocab, 12];
    let mut bytes: Vec<u8> = fields.iter().flat_map(|v| v.to_le_bytes()).collect();
    let (e, f, n, keys, head) = (16, 24, 3, 8, 4);
    let rows = vocab.unsigned_abs() as usize;
    let mut sizes = vec![(rows * e, 0.5), (n * e, 0.0)];
    sizes.extend([(n * e * e, 0.3), (n * keys * e, 0.3), (n * keys * e, 0.3), (n * e * e, 0.3), (n * e, 0.0)]);
    sizes.extend([(n * f * e, 0.3), (n * f * e, 0.3), (n * f * e, 0.3), (e, 0.0), (12 * head, 0.0)]);
    if vocab < 0 {
        sizes.push((rows * e, 0.5));
    }
    let mut rng = generator(5);
    for (count, deviation) in sizes {
        // Gains are around 1.
        let (start, deviation) = if deviation == 0.0 { (1.0, 0.3) } else { (0.0, deviation) };
        bytes.extend((0..count).flat_map(|_| (start + deviation * rng()).to_le_bytes()));
    }
    bytes
}
