//! The kernels compiled for the CPU: for tests on machines without a device.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Launch, Region};
use crate::kernels::layout::{Batch, Coding, Frames, Line};

unsafe extern "C" {
    fn midspan_kernels_network(batch: *const Batch, warps: i64, order: i64);
    fn midspan_kernels_encode(coding: *const Coding, warps: i64);
    fn midspan_kernels_decode(coding: *const Coding, warps: i64);
    fn midspan_kernels_frames(frames: *const Frames, step: i64, warps: i64);
    fn midspan_kernels_digest(values: u64, rows: u64, width: u64, crcs: u64, warps: i64);
    fn midspan_kernels_pack(lanes: u64, count: u64, bytes: u64, packed: u64, warps: i64);
}

/// Runs a number of warps one after the other.
#[derive(Clone, Debug)]
pub(super) struct Cpu {
    pub warps: usize,
    pub backwards: bool,
    budget: Arc<Budget>,
}

/// The bytes that are allocated, and the most that may be.
#[derive(Debug)]
struct Budget {
    held: AtomicUsize,
    limit: AtomicUsize,
    /// How many more launches succeed.
    launches: AtomicUsize,
    /// Whether tensors can be uploaded.
    #[cfg(test)]
    uploads: std::sync::atomic::AtomicBool,
}

/// Lines that the kernels write by address.
pub(in crate::kernels) struct Memory {
    lines: *mut [Line],
    budget: Arc<Budget>,
}

// SAFETY: the memory owns its lines, like a box. Kernels access them only while a step holds the memory.
unsafe impl Send for Memory {}
// SAFETY: as above; a shared reference only reads.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes(), Ordering::Relaxed);
        // SAFETY: made by `Box::into_raw`, and dropped once.
        drop(unsafe { Box::from_raw(self.lines) });
    }
}

impl Memory {
    pub(crate) fn address(&self) -> u64 {
        self.lines.cast::<u8>().expose_provenance() as u64
    }

    pub(crate) fn bytes(&self) -> usize {
        64 * self.lines.len()
    }

    pub(crate) fn write(&mut self, lines: &[Line]) {
        // SAFETY: this memory owns the lines, and no kernel runs.
        let own = unsafe { &mut *self.lines };
        own[..lines.len()].copy_from_slice(lines);
    }

    pub(crate) fn lines(&self) -> &[Line] {
        // SAFETY: as for `write`.
        unsafe { &*self.lines }
    }

    pub(crate) fn read(&self, region: Region) -> Vec<u8> {
        bytemuck::cast_slice(self.lines())[region.offset..][..region.bytes].to_vec()
    }
}

impl Cpu {
    pub(super) fn new(warps: usize) -> Cpu {
        let budget = Budget {
            held: AtomicUsize::new(0),
            limit: AtomicUsize::new(usize::MAX),
            launches: AtomicUsize::new(usize::MAX),
            #[cfg(test)]
            uploads: true.into(),
        };
        Cpu { warps: warps.clamp(1, 1_024), backwards: false, budget: Arc::new(budget) }
    }

    #[cfg(test)]
    pub(super) fn leave_free(&self, bytes: usize) {
        let held = self.budget.held.load(Ordering::Relaxed);
        self.budget.limit.store(held.saturating_add(bytes), Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn fail_after(&self, launches: Option<usize>) {
        self.budget.launches.store(launches.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn fail_uploads(&self, fail: bool) {
        self.budget.uploads.store(!fail, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn check_upload(&self) -> candle_core::Result<()> {
        match self.budget.uploads.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(candle_core::Error::Msg("the upload failed".into())),
        }
    }

    pub(super) fn holds(&self, memory: &Memory) -> bool {
        Arc::ptr_eq(&self.budget, &memory.budget)
    }

    pub(super) fn alloc(&self, bytes: usize) -> candle_core::Result<Memory> {
        let lines = bytes.div_ceil(64);
        let held = self.budget.held.fetch_add(64 * lines, Ordering::Relaxed);
        if held.saturating_add(64 * lines) > self.budget.limit.load(Ordering::Relaxed) {
            self.budget.held.fetch_sub(64 * lines, Ordering::Relaxed);
            return Err(candle_core::Error::Msg("out of memory".into()));
        }
        // Not zeros, because they would hide reads of memory that was not written.
        let mut memory = Vec::new();
        if memory.try_reserve_exact(lines).is_err() {
            self.budget.held.fetch_sub(64 * lines, Ordering::Relaxed);
            return Err(candle_core::Error::Msg("out of memory".into()));
        }
        memory.resize(lines, Line([0xA5; 64]));
        let lines = Box::into_raw(memory.into_boxed_slice());
        Ok(Memory { lines, budget: Arc::clone(&self.budget) })
    }

    /// # Safety
    /// As for `Work::launch`.
    pub(super) unsafe fn launch(&self, launch: &Launch) -> candle_core::Result<()> {
        let left = |left: usize| left.checked_sub(usize::from(left < usize::MAX));
        if self.budget.launches.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_err() {
            return Err(candle_core::Error::Msg("the launch failed".into()));
        }
        let warps = self.warps as i64;
        // SAFETY: the structures are those of the sources (tested). The caller guarantees addresses and sizes. The
        // kernels keep no pointer and start no thread.
        unsafe {
            match launch {
                Launch::Network(batch) => {
                    midspan_kernels_network(&raw const *batch, warps, self.backwards.into());
                }
                Launch::Encode(coding) => midspan_kernels_encode(&raw const *coding, warps),
                Launch::Decode(coding) => midspan_kernels_decode(&raw const *coding, warps),
                Launch::Frames(frames, step) => midspan_kernels_frames(&raw const *frames, *step as i64, warps),
                Launch::Digest { values, rows, width, crcs } => {
                    midspan_kernels_digest(*values, *rows, *width, *crcs, warps);
                }
                Launch::Pack { lanes, count, bytes, packed } => {
                    midspan_kernels_pack(*lanes, *count, *bytes, *packed, warps);
                }
            }
        }
        Ok(())
    }
}
