//! The machine that runs kernels: memory, copies and launches, on a device or on the CPU.

#[cfg(feature = "kernels")]
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::{NoUninit, Pod};
use candle_core::{Device, Tensor};

use super::layout::{Batch, Coding, Frames, FramesStep, Line};
use crate::error::{Error, Result};
use midspan::error::ErrorKind;

#[cfg(feature = "cuda")]
pub use cuda::open;

/// The most bytes of working memory that a machine keeps between steps.
const KEPT: usize = 256 << 20;

/// A device that runs kernels. Clones share the working memory of steps, so one step runs at a time.
#[derive(Clone)]
pub struct Machine {
    kind: Kind,
    device: Device,
    work: Arc<Mutex<Option<Memory>>>,
}

#[derive(Clone)]
enum Kind {
    #[cfg(feature = "kernels")]
    Cpu(cpu::Cpu),
    #[cfg(feature = "cuda")]
    Cuda(cuda::Cuda),
}

/// A block of a machine's memory.
pub(super) enum Memory {
    #[cfg(feature = "kernels")]
    Cpu(cpu::Memory),
    #[cfg(feature = "cuda")]
    Cuda(cuda::Memory),
}

/// One launch of kernels.
#[derive(Clone, Copy, Debug)]
pub(super) enum Launch {
    Network(Batch),
    Encode(Coding),
    Decode(Coding),
    Frames(Frames, FramesStep),
    Digest { values: u64, rows: u64, width: u64, crcs: u64 },
    Pack { lanes: u64, count: u64, bytes: u64, packed: u64 },
}

/// Hidden states, \[T, E\] f32, that kernels can read as long as this is kept.
pub(super) struct Hidden {
    pub address: u64,
    _tensor: Tensor,
    _values: Vec<f32>,
}

/// Where kernels write hidden states.
pub(super) enum Destination {
    /// To a tensor on the device.
    #[cfg(feature = "cuda")]
    Tensor(Tensor, u64),
    /// To the step's working memory.
    #[cfg(feature = "kernels")]
    Work(Region, (usize, usize)),
}

/// The memory layout of a step: the values that it uploads, and room for the kernels' results, in one block.
#[derive(Debug, Default)]
pub(super) struct Plan {
    image: Vec<Line>,
    size: usize,
}

/// A range of a plan's bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Region {
    pub offset: usize,
    pub bytes: usize,
}

/// A running step and its memory.
pub(super) struct Work<'a> {
    machine: &'a Machine,
    memory: MutexGuard<'a, Option<Memory>>,
    base: u64,
    /// Whether launches may still be running.
    busy: Cell<bool>,
}

impl Drop for Work<'_> {
    /// If the step failed, waits for its launches. The next step may be on another thread, whose stream does not wait
    /// for them.
    fn drop(&mut self) {
        if self.busy.get() {
            // The failure was already reported.
            let _ = self.machine.device.synchronize();
        }
        if self.memory.as_ref().is_some_and(|memory| memory.bytes() > KEPT) {
            *self.memory = None;
        }
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("device", &self.device).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("bytes", &self.bytes()).finish()
    }
}

impl Region {
    /// A part of this region.
    pub(super) fn part(self, offset: usize, bytes: usize) -> Region {
        assert!(offset + bytes <= self.bytes, "a part beyond its region");
        Region { offset: self.offset + offset, bytes }
    }

    /// The range from this region's first byte to the last byte of `last`.
    pub(super) fn up_to(self, last: Region) -> Region {
        Region { offset: self.offset, bytes: last.offset + last.bytes - self.offset }
    }
}

impl Plan {
    /// All values that were appended, each in its region.
    pub(super) fn image(&self) -> &[Line] {
        &self.image
    }

    /// Appends values to upload. All have to be appended before the first room.
    pub(super) fn append<T: NoUninit>(&mut self, values: &[T]) -> Region {
        assert_eq!(64 * self.image.len(), self.size, "room before values");
        let region = Region { offset: self.size, bytes: size_of_val(values) };
        self.image.resize(self.image.len() + region.bytes.div_ceil(64), Line([0; 64]));
        let image: &mut [u8] = bytemuck::cast_slice_mut(&mut self.image);
        image[region.offset..][..region.bytes].copy_from_slice(bytemuck::cast_slice(values));
        self.size = 64 * self.image.len();
        region
    }

    /// Reserves room for `count` values with undefined contents.
    pub(super) fn room<T>(&mut self, count: usize) -> Region {
        let offset = self.size.next_multiple_of(64);
        let bytes = count.checked_mul(size_of::<T>()).expect("a step's memory is counted in usize");
        self.size = offset + bytes;
        Region { offset, bytes }
    }
}

impl Memory {
    /// The address of its first byte.
    pub(super) fn address(&self) -> u64 {
        match self {
            #[cfg(feature = "kernels")]
            Memory::Cpu(memory) => memory.address(),
            #[cfg(feature = "cuda")]
            Memory::Cuda(memory) => memory.address(),
        }
    }

    /// Its size.
    pub(super) fn bytes(&self) -> usize {
        match self {
            #[cfg(feature = "kernels")]
            Memory::Cpu(memory) => memory.bytes(),
            #[cfg(feature = "cuda")]
            Memory::Cuda(memory) => memory.bytes(),
        }
    }
}

impl Machine {
    fn with_kind(kind: Kind, device: Device) -> Machine {
        Machine { kind, device, work: Arc::default() }
    }

    /// The CPU, with candle's CPU tensors. `warps` warps, 1 to 1,024, run one after the other.
    #[cfg(feature = "kernels")]
    #[must_use]
    pub fn cpu(warps: usize) -> Machine {
        Machine::with_kind(Kind::Cpu(cpu::Cpu::new(warps)), Device::Cpu)
    }

    /// A CUDA device, as returned by [`open`].
    ///
    /// # Errors
    /// [`midspan::error::ErrorKind::NotAvailable`] for another device, or one that cannot launch cooperatively;
    /// [`crate::Error::Device`].
    #[cfg(feature = "cuda")]
    pub fn cuda(device: &Device) -> Result<Machine> {
        Ok(Machine::with_kind(Kind::Cuda(cuda::Cuda::new(device)?), device.clone()))
    }

    /// Makes the warps of every phase run from the last to the first, which must not change the results.
    #[cfg(all(test, feature = "kernels"))]
    pub(crate) fn backwards(mut self) -> Machine {
        #[allow(irrefutable_let_patterns)]
        if let Kind::Cpu(cpu) = &mut self.kind {
            cpu.backwards = true;
        }
        self
    }

    /// Limits the memory, contexts and models included, to what is allocated now plus `bytes` bytes.
    #[cfg(all(test, feature = "kernels"))]
    pub(crate) fn leave_free(&self, bytes: usize) {
        #[allow(irrefutable_let_patterns)]
        if let Kind::Cpu(cpu) = &self.kind {
            cpu.leave_free(bytes);
        }
    }

    /// Makes every launch after the first `launches` fail; `None` resets.
    #[cfg(all(test, feature = "kernels"))]
    pub(crate) fn fail_after(&self, launches: Option<usize>) {
        #[allow(irrefutable_let_patterns)]
        if let Kind::Cpu(cpu) = &self.kind {
            cpu.fail_after(launches);
        }
    }

    /// Makes every upload of tensors fail.
    #[cfg(all(test, feature = "kernels"))]
    pub(crate) fn fail_uploads(&self, fail: bool) {
        #[allow(irrefutable_let_patterns)]
        if let Kind::Cpu(cpu) = &self.kind {
            cpu.fail_uploads(fail);
        }
    }

    /// # Errors
    /// [`Error::Device`] while uploads fail.
    #[cfg(all(test, feature = "kernels"))]
    pub(crate) fn check_upload(&self) -> Result<()> {
        match &self.kind {
            Kind::Cpu(cpu) => Ok(cpu.check_upload()?),
            #[allow(unreachable_patterns)]
            _ => Ok(()),
        }
    }

    /// The device of the tensors.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The number of warps of a network's launch.
    pub(super) fn warps(&self) -> usize {
        match &self.kind {
            #[cfg(feature = "kernels")]
            Kind::Cpu(cpu) => cpu.warps,
            #[cfg(feature = "cuda")]
            Kind::Cuda(cuda) => cuda.warps(),
        }
    }

    /// Whether memory belongs to this machine.
    pub(super) fn holds(&self, memory: &Memory) -> bool {
        match (&self.kind, memory) {
            #[cfg(feature = "kernels")]
            (Kind::Cpu(cpu), Memory::Cpu(memory)) => cpu.holds(memory),
            #[cfg(feature = "cuda")]
            (Kind::Cuda(cuda), Memory::Cuda(memory)) => cuda.holds(memory),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// Allocates memory with undefined contents, aligned to a line of 64 bytes.
    pub(super) fn alloc(&self, bytes: usize) -> Result<Memory> {
        Ok(match &self.kind {
            #[cfg(feature = "kernels")]
            Kind::Cpu(cpu) => Memory::Cpu(cpu.alloc(bytes)?),
            #[cfg(feature = "cuda")]
            Kind::Cuda(cuda) => Memory::Cuda(cuda.alloc(bytes)?),
        })
    }

    /// Writes lines to the beginning of memory.
    pub(super) fn upload(&self, to: &mut Memory, lines: &[Line]) -> Result<()> {
        match (&self.kind, to) {
            #[cfg(feature = "kernels")]
            (Kind::Cpu(_), Memory::Cpu(to)) => to.write(lines),
            #[cfg(feature = "cuda")]
            (Kind::Cuda(cuda), Memory::Cuda(to)) => cuda.upload(to, lines)?,
            #[allow(unreachable_patterns)]
            _ => unreachable!("memory of another machine"),
        }
        Ok(())
    }

    /// Reads bytes, after all launches so far.
    fn download(&self, from: &Memory, region: Region) -> Result<Vec<u8>> {
        Ok(match (&self.kind, from) {
            #[cfg(feature = "kernels")]
            (Kind::Cpu(_), Memory::Cpu(from)) => from.read(region),
            #[cfg(feature = "cuda")]
            (Kind::Cuda(cuda), Memory::Cuda(from)) => cuda.download(from, region)?,
            #[allow(unreachable_patterns)]
            _ => unreachable!("memory of another machine"),
        })
    }

    /// Copies memory.
    pub(super) fn duplicate(&self, from: &Memory) -> Result<Memory> {
        let mut to = self.alloc(from.bytes())?;
        match (&self.kind, from, &mut to) {
            #[cfg(feature = "kernels")]
            (Kind::Cpu(_), Memory::Cpu(from), Memory::Cpu(to)) => {
                to.write(from.lines());
            }
            #[cfg(feature = "cuda")]
            (Kind::Cuda(cuda), Memory::Cuda(from), Memory::Cuda(to)) => cuda.copy(from, to)?,
            #[allow(unreachable_patterns)]
            _ => unreachable!("memory of another machine"),
        }
        Ok(to)
    }

    /// Allocates memory with these contents, for use by any thread.
    pub(super) fn holding(&self, lines: &[Line]) -> Result<Memory> {
        let mut memory = self.alloc(size_of_val(lines))?;
        self.upload(&mut memory, lines)?;
        // Each thread has its own stream on a device.
        self.device.synchronize()?;
        Ok(memory)
    }

    /// Makes hidden states, \[T, E\] f32, readable for kernels.
    ///
    /// # Errors
    /// [`ErrorKind::NotAvailable`] if they are on another device; [`Error::Device`].
    pub(super) fn hidden(&self, hidden: &Tensor) -> Result<Hidden> {
        // Kernels cannot read the memory of another device, or of the CPU.
        if !hidden.device().same_device(&self.device) {
            return Err(Error::codec(ErrorKind::NotAvailable, "hidden states on another device than the engine's"));
        }
        let tensor = hidden.contiguous()?;
        match &self.kind {
            #[cfg(feature = "kernels")]
            Kind::Cpu(_) => {
                let values = tensor.flatten_all()?.to_vec1::<f32>()?;
                Ok(Hidden { address: values.as_ptr().expose_provenance() as u64, _tensor: tensor, _values: values })
            }
            #[cfg(feature = "cuda")]
            Kind::Cuda(cuda) => Ok(Hidden { address: cuda.address_of(&tensor)?, _tensor: tensor, _values: Vec::new() }),
        }
    }

    /// Reserves room for hidden states, \[T, E\].
    pub(super) fn result(&self, plan: &mut Plan, shape: (usize, usize)) -> Result<Destination> {
        #[cfg(not(feature = "kernels"))]
        let _ = plan;
        match &self.kind {
            #[cfg(feature = "kernels")]
            Kind::Cpu(_) => Ok(Destination::Work(plan.room::<f32>(shape.0 * shape.1), shape)),
            #[cfg(feature = "cuda")]
            Kind::Cuda(cuda) => {
                let (tensor, address) = cuda.tensor(&self.device, shape)?;
                Ok(Destination::Tensor(tensor, address))
            }
        }
    }

    /// Uploads a plan to the device.
    pub(super) fn begin(&self, plan: &Plan) -> Result<Work<'_>> {
        let mut memory = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.as_ref().is_none_or(|memory| memory.bytes() < plan.size) {
            // Free the old memory first, because both may not fit.
            *memory = None;
            *memory = Some(self.alloc(plan.size)?);
        }
        let mut base = 0;
        if let Some(memory) = memory.as_mut() {
            self.upload(memory, &plan.image)?;
            base = memory.address();
        }
        Ok(Work { machine: self, memory, base, busy: Cell::new(false) })
    }
}

impl Work<'_> {
    /// The address of a region for kernels.
    pub(super) fn at(&self, region: Region) -> u64 {
        self.base + region.offset as u64
    }

    /// Adds a launch after the previous ones.
    ///
    /// # Safety
    /// Addresses in it belong to regions of the plan, with the room that `network.h`, `entropy.h` and `frames.h`
    /// require, or to memory that is kept until the step ends. Indices and offsets that kernels follow stay within
    /// these.
    pub(super) unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        self.busy.set(true);
        // SAFETY: the caller guarantees it.
        unsafe {
            match &self.machine.kind {
                #[cfg(feature = "kernels")]
                Kind::Cpu(cpu) => cpu.launch(launch)?,
                #[cfg(feature = "cuda")]
                Kind::Cuda(cuda) => cuda.launch(launch)?,
            }
        }
        Ok(())
    }

    /// Reads the kernels' results, after all launches so far.
    pub(super) fn read(&self, region: Region) -> Result<Vec<u8>> {
        let Some(memory) = self.memory.as_ref() else { return Ok(Vec::new()) };
        let bytes = self.machine.download(memory, region)?;
        self.busy.set(false);
        Ok(bytes)
    }

    /// The same, converted to values.
    pub(super) fn read_values<T: Pod>(&self, region: Region) -> Result<Vec<T>> {
        Ok(bytemuck::pod_collect_to_vec(&self.read(region)?))
    }

    /// The address that hidden states are written to.
    pub(super) fn at_result(&self, result: &Destination) -> u64 {
        match result {
            #[cfg(feature = "cuda")]
            Destination::Tensor(_, address) => *address,
            #[cfg(feature = "kernels")]
            Destination::Work(region, _) => self.at(*region),
        }
    }

    /// Returns the hidden states that were written, \[T, E\].
    pub(super) fn finish(&self, result: Destination) -> Result<Tensor> {
        match result {
            #[cfg(feature = "cuda")]
            Destination::Tensor(tensor, _) => Ok(tensor),
            #[cfg(feature = "kernels")]
            Destination::Work(region, shape) => {
                Ok(Tensor::from_vec(self.read_values::<f32>(region)?, shape, &Device::Cpu)?)
            }
        }
    }
}

#[cfg(all(test, feature = "kernels"))]
mod tests {
    use super::*;

    #[test]
    fn memory_is_kept_between_steps_up_to_a_bound() {
        let machine = Machine::cpu(1);
        let held_after = |bytes: usize| {
            let mut plan = Plan::default();
            plan.room::<u8>(bytes);
            drop(machine.begin(&plan).unwrap());
            machine.work.lock().unwrap().as_ref().map(Memory::bytes)
        };
        assert_eq!(held_after(1_000), Some(1_024));
        assert_eq!(held_after(100), Some(1_024), "a smaller step works in what is there");
        assert_eq!(held_after(KEPT + 1), None);
    }
}
