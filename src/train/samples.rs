//! Text that a host writes itself: what its codec can learn from where its own training text is not at hand.

use candle_core::{Device, Tensor};

use super::Error;
use super::parallel::in_threads;
use super::rng::Rng;
use crate::host::llama::{Cache, Llama};
use crate::host::llama_tokenizer::BEGIN;

/// Sequences that are written together.
const ROWS: usize = 32;

/// At least `count` tokens in sequences of `len`, each from the beginning token on, drawn at temperature 1. Equal seeds give
/// equal tokens, on any number of threads.
///
/// # Errors
/// When a computation fails.
pub fn samples(llama: &Llama, count: usize, len: usize, seed: u64, threads: usize) -> Result<Vec<u16>, Error> {
    let batches: Vec<u64> = (0..count.div_ceil(ROWS * len) as u64).collect();
    let parts = in_threads(&batches, threads, |batch| {
        let mut rng = Rng::new(seed.wrapping_mul(1 << 20).wrapping_add(*batch));
        batch_of(llama, len, &mut rng)
    })?;
    Ok(parts.concat())
}

fn batch_of(llama: &Llama, len: usize, rng: &mut Rng) -> Result<Vec<u16>, Error> {
    let mut rows = vec![vec![BEGIN]; ROWS];
    let mut cache = Cache::default();
    for _ in 1..len {
        let last: Vec<u32> = rows.iter().filter_map(|row| row.last().copied()).collect();
        let logits = llama.step(&Tensor::from_vec(last, (ROWS, 1), &Device::Cpu)?, &mut cache)?;
        let p = candle_nn::ops::softmax(&logits, 1)?.to_vec2::<f32>()?;
        for (row, p) in rows.iter_mut().zip(p) {
            let mut left = rng.unit();
            let drawn = p.iter().position(|p| {
                left -= p;
                left < 0.0
            });
            row.push(drawn.unwrap_or(p.len() - 1) as u32);
        }
    }
    let narrow = |token: u32| u16::try_from(token).map_err(|_| Error::new("a token id exceeds 16 bits"));
    rows.concat().into_iter().map(narrow).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::llama::tests::file;

    #[test]
    fn samples_are_sequences_that_repeat_with_the_seed() {
        let llama = Llama::from_bytes(&file(30), 1).unwrap();
        let one = samples(&llama, 600, 12, 7, 1).unwrap();
        assert_eq!(one.len(), 2 * ROWS * 12);
        assert!(one.chunks(12).all(|row| row[0] == 1) && one.iter().all(|token| *token < 30));
        assert_eq!(samples(&llama, 600, 12, 7, 2).unwrap(), one);
        assert_ne!(samples(&llama, 600, 12, 8, 1).unwrap(), one);
    }
}
