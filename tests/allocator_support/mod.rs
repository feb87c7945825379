//! An allocator that counts, for tests of memory.
#![allow(dead_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    pub static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Counts the bytes that the calling thread has allocated.
struct Counting;

fn count(bytes: isize) {
    HELD.set(HELD.get() + bytes);
    PEAK.set(PEAK.get().max(HELD.get()));
}

// SAFETY: every call is passed to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller guarantees it.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller guarantees it.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Counted as if the new block were separate, as it often is.
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: the caller guarantees it.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The result of `work`, how many more bytes are allocated than before, and by how much the peak was above that.
pub fn measured<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let value = work();
    (value, (HELD.get() - before).max(0) as usize, (PEAK.get() - before).max(0) as usize)
}

/// The smallest memory limit that is accepted, within 2,000 bytes; 8 MiB at most.
pub fn smallest_limit(accepts: impl Fn(usize) -> bool) -> usize {
    let (mut least, mut most) = (0, 8 << 20);
    while most - least > 2_000 {
        let middle = usize::midpoint(least, most);
        *if accepts(middle) { &mut most } else { &mut least } = middle;
    }
    most
}
