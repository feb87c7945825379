//! An executor that uses the standard library's threads.

use std::num::NonZeroUsize;
use std::thread;

use crate::exact::Executor;

/// Runs parts on up to a given number of threads, including the caller's.
///
/// Threads are started in each call and end before it returns, which takes some tens of microseconds: use this for
/// batches, and [`Serial`](crate::exact::Serial) for single frames. If a thread cannot be started, the caller's thread
/// does the work.
#[derive(Clone, Copy, Debug)]
pub struct Threads(NonZeroUsize);

impl Threads {
    /// `count` threads; 0 means 1.
    #[must_use]
    pub fn new(count: usize) -> Threads {
        Threads(NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN))
    }

    /// As many threads as the machine can run at the same time.
    #[must_use]
    pub fn available() -> Threads {
        Threads(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }
}

impl Executor for Threads {
    fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        let threads = self.0.get().min(parts);
        // Thread i of n takes parts i, i + n, i + 2n, …
        let work = move |thread: usize| (thread..parts).step_by(threads.max(1)).for_each(task);
        thread::scope(|scope| {
            let mut left = Vec::new();
            for i in 1..threads {
                if thread::Builder::new().spawn_scoped(scope, move || work(i)).is_err() {
                    left.push(i);
                }
            }
            if parts > 0 {
                work(0);
            }
            left.into_iter().for_each(work);
        });
    }

    fn parts(&self) -> usize {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_part_runs_once() {
        for threads in 0..5 {
            for parts in 0..12 {
                let calls: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                Threads::new(threads).run(parts, &|part| {
                    calls[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(calls.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }
}
