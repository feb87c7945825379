//! Text that a host writes itself. Its codec can learn from it if the host's training text is not available.

use candle_core::{Device, Tensor};

use super::Error;
use super::parallel::in_threads;
use super::rng::Rng;
use super::watch::Watch;
use midspan_host::llama::{Cache, Llama};
use midspan_host::llama_tokenizer::BEGIN;

/// How many sequences are written together.
const ROWS: usize = 32;

/// At least `count` tokens in sequences of `len`, drawn at temperature 1. Each sequence begins with the beginning
/// token. Equal seeds give equal tokens, on any number of threads. `None` if the watcher ended it.
///
/// # Errors
/// When a computation fails.
pub fn samples(
    llama: &Llama,
    (count, len): (usize, usize),
    seed: u64,
    threads: usize,
    watch: &dyn Watch,
) -> Result<Option<Vec<u32>>, Error> {
    let batches: Vec<u64> = (0..count.div_ceil(ROWS * len) as u64).collect();
    let mut tokens = Vec::with_capacity(batches.len() * ROWS * len);
    for batches in batches.chunks(threads.max(1)) {
        if watch.stops() {
            return Ok(None);
        }
        let parts = in_threads(batches, threads, |batch| {
            let mut rng = Rng::new(seed.wrapping_mul(1 << 20).wrapping_add(*batch));
            batch_of(llama, len, &mut rng)
        })?;
        tokens.extend(parts.into_iter().flatten());
        watch.written(tokens.len().min(count), count);
    }
    Ok(Some(tokens))
}

fn batch_of(llama: &Llama, len: usize, rng: &mut Rng) -> Result<Vec<u32>, Error> {
    let mut rows = vec![vec![BEGIN]; ROWS];
    let mut cache = Cache::default();
    for _ in 1..len {
        let last: Vec<u32> = rows.iter().filter_map(|row| row.last().copied()).collect();
        let logits = llama.step(&Tensor::from_vec(last, (ROWS, 1), &Device::Cpu)?, &mut cache)?;
        let p = candle_nn::ops::softmax(&logits, 1)?.to_vec2::<f32>()?;
        for (row, p) in rows.iter_mut().zip(p) {
            row.push(rng.draw(&p) as u32);
        }
    }
    Ok(rows.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use midspan_host::testing::llama_file;

    #[test]
    fn tokens_are_drawn_as_the_host_predicts_them() {
        let llama = Llama::from_bytes(&llama_file(30), 1).unwrap();
        let begin = Tensor::new(&[[BEGIN]], &Device::Cpu).unwrap();
        let logits = llama.step(&begin, &mut Cache::default()).unwrap();
        let p = candle_nn::ops::softmax(&logits, 1).unwrap().get(0).unwrap().to_vec1::<f32>().unwrap();
        let rows = samples(&llama, (2 * 16_384, 2), 3, 1, &()).unwrap().unwrap();
        let draws = rows.len() as f64 / 2.0;
        let mut seen = vec![0.0; p.len()];
        rows.chunks(2).for_each(|row| seen[row[1] as usize] += 1.0);
        for (token, (p, seen)) in p.iter().zip(&seen).enumerate() {
            let (expected, p) = (f64::from(*p) * draws, f64::from(*p));
            let deviation = (expected * (1.0 - p)).sqrt();
            assert!((seen - expected).abs() < 4.5 * deviation + 1.0, "token {token}: {seen}, expected {expected}");
        }
        // Draws with equal probabilities for all tokens would be far outside.
        let even = draws / p.len() as f64;
        assert!(seen.iter().any(|seen| (seen - even).abs() > 10.0 * even.sqrt()));
    }

    #[test]
    fn samples_are_sequences_that_repeat_with_the_seed() {
        let llama = Llama::from_bytes(&llama_file(30), 1).unwrap();
        let one = samples(&llama, (600, 12), 7, 1, &()).unwrap().unwrap();
        assert_eq!(one.len(), 2 * ROWS * 12);
        assert!(one.chunks(12).all(|row| row[0] == 1) && one.iter().all(|token| *token < 30));
        assert_eq!(samples(&llama, (600, 12), 7, 2, &()).unwrap(), Some(one.clone()));
        assert_ne!(samples(&llama, (600, 12), 8, 1, &()).unwrap(), Some(one));
    }

    /// Ends a text after the first sequences.
    #[derive(Default)]
    struct Once(std::cell::RefCell<Vec<(usize, usize)>>);

    impl Watch for Once {
        fn written(&self, tokens: usize, total: usize) {
            self.0.borrow_mut().push((tokens, total));
        }

        fn stops(&self) -> bool {
            !self.0.borrow().is_empty()
        }
    }

    #[test]
    fn a_watcher_sees_how_far_a_text_is_and_ends_it() {
        let llama = Llama::from_bytes(&llama_file(30), 1).unwrap();
        let (one, two) = (Once::default(), Once::default());
        assert_eq!(samples(&llama, (600, 12), 7, 1, &one).unwrap(), None);
        assert_eq!(*one.0.borrow(), [(384, 600)]);
        assert!(samples(&llama, (600, 12), 7, 2, &two).unwrap().is_some());
        assert_eq!(*two.0.borrow(), [(600, 600)]);
    }
}
