//! Runs the cases of a campaign on threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

/// Runs `case` for the numbers below `cases` on `threads` threads, and passes each result to `take` as it is ready.
pub(super) fn each<T: Send>(cases: u64, threads: usize, case: impl Fn(u64) -> T + Sync, take: &mut dyn FnMut(T)) {
    let next = AtomicU64::new(0);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (sender, next, case) = (sender.clone(), &next, &case);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= cases || sender.send(case(number)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        receiver.into_iter().for_each(take);
    });
}
