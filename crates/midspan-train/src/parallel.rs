//! Processes many items in parallel.

use std::sync::OnceLock;

use super::Error;
use midspan::adapter::Threads;
use midspan::exact::Executor;

/// Runs `each` over items on several threads. The results are in the items' order.
///
/// # Errors
/// The error of the first item that fails.
pub fn in_threads<T: Sync, R: Send + Sync>(
    items: &[T],
    threads: usize,
    each: impl Fn(&T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let places: Vec<OnceLock<Result<R, Error>>> = items.iter().map(|_| OnceLock::new()).collect();
    Threads::new(threads).run(items.len(), &|i| {
        // Every place is filled once, because the executor calls with each number once.
        let _ = places[i].set(each(&items[i]));
    });
    places.into_iter().map(|place| place.into_inner().unwrap_or(Err(Error::Panicked))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_in_order_and_a_failure_is_told() {
        let items: Vec<usize> = (0..23).collect();
        for threads in [1, 3, 40] {
            assert_eq!(
                in_threads(&items, threads, |i| Ok(i * i)).unwrap(),
                items.iter().map(|i| i * i).collect::<Vec<_>>()
            );
            let failed =
                in_threads(
                    &items,
                    threads,
                    |i| if *i > 6 { Err(Error::lacks("an item", i.to_string())) } else { Ok(()) },
                );
            assert!(matches!(failed, Err(Error::Lacks { part, .. }) if part == "7"));
        }
    }
}
