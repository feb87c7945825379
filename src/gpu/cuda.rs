//! The exact network's kernels on NVIDIA devices.
//!
//! Contexts lie on the device. All phases of a network run in one cooperative launch (`kernels/device.cu`).

use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg, sys::CUdevice_attribute,
};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{Device, Result as DeviceResult};

use super::error::{Error, Result};
use super::layout::{Frame, Line, Model, frames, slots};
use crate::codec::Context;
use crate::error::{Error as CodecError, ErrorKind};
use crate::exact::Network;
use crate::model::NetworkParameters;

/// The kernels, compiled for a virtual architecture; the driver does the rest.
const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/device.ptx"));
/// Threads of a block.
const THREADS: u32 = 256;
/// Frames of one context that pass through all phases together.
const TILE: usize = 128;

/// Opens a device.
///
/// # Errors
/// [`ErrorKind::NotAvailable`] without a driver; [`Error::Device`] if there is no such device.
pub fn open(ordinal: usize) -> Result<Device> {
    // SAFETY: the driver's library runs no code of its own when it is loaded, but to find devices.
    if unsafe { libloading::Library::new("libcuda.so.1") }.is_err() {
        return Err(Error::codec(ErrorKind::NotAvailable, "no CUDA driver (libcuda.so.1) on this machine"));
    }
    Ok(Device::new_cuda(ordinal)?)
}

// SAFETY: four words, as the kernel has them.
unsafe impl DeviceRepr for Frame {}

/// `Batch` of `network.h`: fifteen words, addresses of the device among them.
#[repr(C)]
struct Batch([u64; 15]);

// SAFETY: words, as the kernel has them.
unsafe impl DeviceRepr for Batch {}

// SAFETY: bytes.
unsafe impl DeviceRepr for Line {}

/// A network on a device. Any number of states may run on it, one step at a time.
pub struct CudaNetwork {
    device: CudaDevice,
    kernel: CudaFunction,
    model: CudaSlice<Line>,
    widest: usize,
    mlp: usize,
    slot_bytes: usize,
    /// Width and heads of each block, and the window.
    shape: (Vec<(usize, usize)>, usize),
    inputs: usize,
    outputs: usize,
    qualities: usize,
    blocks: u32,
    work: Mutex<Option<CudaSlice<Line>>>,
}

impl std::fmt::Debug for CudaNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaNetwork")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

/// The state of one [`CudaNetwork`] in one context. Its keys and values are allocated by its first step.
#[derive(Debug)]
pub struct CudaState {
    shape: (Vec<(usize, usize)>, usize),
    max_rewind: u32,
    ring: Option<CudaSlice<Line>>,
    position: u64,
    high: u64,
}

/// The next frames of one context.
#[derive(Debug)]
pub struct CudaStep<'a> {
    /// The context.
    pub state: &'a mut CudaState,
    /// T, at most 128: how many of the input's rows are this context's; they come in the order of the steps.
    pub frames: usize,
    /// The frames' quality.
    pub quality: usize,
}

impl CudaState {
    /// An empty context.
    #[must_use]
    pub fn new(network: &CudaNetwork, max_rewind: u32) -> CudaState {
        CudaState::of_shape(network.shape.clone(), max_rewind)
    }

    fn of_shape(shape: (Vec<(usize, usize)>, usize), max_rewind: u32) -> CudaState {
        CudaState { shape, max_rewind, ring: None, position: 0, high: 0 }
    }

    fn slots(&self) -> usize {
        slots(self.shape.1, self.max_rewind as usize, TILE)
    }
}

impl Context for CudaState {
    fn open(network: &Network, max_rewind: u32) -> Self {
        CudaState::of_shape(network.shape(), max_rewind)
    }

    fn required_bytes(network: &Network, max_rewind: u32) -> usize {
        let (blocks, window) = network.shape();
        let slot = |(width, heads): &(usize, usize)| 4 * heads * (width / heads).div_ceil(2) + 2 * width;
        blocks.iter().map(slot).sum::<usize>().saturating_mul(slots(window, max_rewind as usize, TILE))
    }

    fn memory_bytes(&self) -> usize {
        self.ring.as_ref().map_or(0, CudaSlice::num_bytes)
    }

    fn truncate(&mut self, position: u64) -> crate::error::Result<()> {
        if position > self.position {
            return Err(CodecError::new(ErrorKind::RewindTarget, 0));
        }
        if self.high - position > u64::from(self.max_rewind) {
            return Err(CodecError::new(ErrorKind::RewindTooFar, 0));
        }
        self.position = position;
        Ok(())
    }

    fn reset(&mut self) {
        (self.position, self.high) = (0, 0);
    }
}

impl CudaNetwork {
    /// Brings a network to a device.
    ///
    /// # Errors
    /// [`ErrorKind::NotAvailable`] for a device that is none of CUDA's, or cannot launch cooperatively; [`Error::Device`].
    ///
    /// # Panics
    /// If the parameters do not pass [`NetworkParameters::validate`].
    pub fn new(parameters: &NetworkParameters, device: &Device) -> Result<CudaNetwork> {
        if let Err(invalid) = parameters.validate() {
            panic!("parameters of a network that are not valid: {invalid}");
        }
        let Device::Cuda(device) = device else {
            return Err(Error::codec(ErrorKind::NotAvailable, "the kernels need a CUDA device"));
        };
        let stream = device.cuda_stream();
        let attribute = |which| -> DeviceResult<i32> { stream.context().attribute(which).w() };
        if attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? == 0 {
            return Err(Error::codec(ErrorKind::NotAvailable, "the device cannot launch cooperatively"));
        }
        let processors = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let kernel = device.get_or_load_custom_func("midspan_network", "midspan", KERNELS)?;
        let kernel = kernel.into_cuda_function();
        let resident = kernel.occupancy_max_active_blocks_per_multiprocessor(THREADS, 0, None).w()?;
        let model = Model::new(parameters);
        Ok(CudaNetwork {
            model: device.clone_htod(&model.lines)?,
            widest: model.widest,
            mlp: model.mlp,
            slot_bytes: model.slot_bytes,
            shape: (
                parameters.widths.iter().copied().zip(parameters.heads.iter().copied()).collect(),
                parameters.window,
            ),
            inputs: parameters.inputs(),
            outputs: parameters.outputs.len(),
            qualities: parameters.qualities,
            blocks: processors.unsigned_abs() * resident.clamp(1, 2),
            work: Mutex::new(None),
            device: device.clone(),
            kernel,
        })
    }

    /// Runs the next frames of many contexts, whose rows stand one after the other in `input`, \[ΣT, d_0\]; gives
    /// \[ΣT, outputs\].
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`], [`ErrorKind::UnknownQuality`]; [`Error::Device`]. No state has then moved on.
    pub fn step(&self, steps: &mut [CudaStep<'_>], input: &[i16]) -> Result<Vec<i32>> {
        let count: usize = steps.iter().map(|step| step.frames).sum();
        if input.len() != count * self.inputs || steps.iter().any(|step| step.frames > TILE) {
            return Err(Error::codec(ErrorKind::WrongShape, "the input is not the steps' rows, 128 a context at most"));
        }
        if steps.iter().any(|step| step.state.shape != self.shape) {
            return Err(Error::codec(ErrorKind::WrongShape, "the state of another network"));
        }
        let slots = steps.first().map_or(0, |step| step.state.slots());
        if steps.iter().any(|step| step.state.slots() != slots) {
            return Err(Error::codec(ErrorKind::WrongShape, "contexts of different rewinds in one step"));
        }
        if steps.iter().any(|step| step.quality >= self.qualities) {
            return Err(Error::codec(ErrorKind::UnknownQuality, "a quality that the model lacks"));
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        let output = self.launch(steps, slots, count, input)?;
        for step in steps {
            step.state.position += step.frames as u64;
            step.state.high = step.state.high.max(step.state.position);
        }
        Ok(output)
    }

    fn launch(&self, steps: &mut [CudaStep<'_>], slots: usize, count: usize, input: &[i16]) -> Result<Vec<i32>> {
        let stream = self.device.cuda_stream();
        let lines = (slots * self.slot_bytes).div_ceil(64);
        let mut rows: Vec<Frame> = Vec::with_capacity(count);
        for step in steps.iter_mut() {
            if step.state.ring.is_none() {
                // SAFETY: what a ring holds beyond its context's frames is never read.
                step.state.ring = Some(unsafe { stream.alloc::<Line>(lines) }.w()?);
            }
            let Some(ring) = &step.state.ring else { continue };
            let (ring, _guard) = ring.device_ptr(&stream);
            let first = step.state.position;
            rows.extend(frames(ring, slots, first..first + step.frames as u64, step.quality));
        }
        let warps = (self.blocks * THREADS / 32) as usize;
        // Lines of each buffer: x, p, q, the planes, scores, output.
        let sizes = [
            count * self.widest * 2,
            count * self.widest * 2,
            count * self.widest * 2,
            count * self.widest,
            count * self.widest,
            count * self.mlp,
            count * self.mlp,
            warps * self.shape.1 * 4,
        ]
        .map(|bytes| bytes.div_ceil(64));
        let needed: usize = sizes.iter().sum();
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if work.as_ref().is_none_or(|work| work.len() < needed) {
            *work = None;
            // SAFETY: phases write what later ones read.
            *work = Some(unsafe { stream.alloc::<Line>(needed) }.w()?);
        }
        let Some(work) = work.as_ref() else {
            return Err(Error::codec(ErrorKind::MemoryLimit, "room to work in on the device"));
        };
        let frames = self.device.clone_htod(&rows)?;
        let input = self.device.clone_htod(input)?;
        let output = self.device.alloc_zeros::<i32>(count * self.outputs)?;
        let arrived = self.device.alloc_zeros::<u32>(1)?;
        let (model, _model) = self.model.device_ptr(&stream);
        let (at_work, _work) = work.device_ptr(&stream);
        let (at_frames, _frames) = frames.device_ptr(&stream);
        let (at_input, _input) = input.device_ptr(&stream);
        let (at_output, _output) = output.device_ptr(&stream);
        let mut place = at_work;
        let [x, p, q, high, low, mlp_high, mlp_low, scores] = sizes.map(|lines| {
            let own = place;
            place += 64 * lines as u64;
            own
        });
        // Rings are given by their addresses: the pool begins at 0.
        let batch = Batch([
            model,
            0,
            slots as u64,
            at_frames,
            count as u64,
            at_input,
            at_output,
            x,
            p,
            q,
            high,
            low,
            mlp_high,
            mlp_low,
            scores,
        ]);
        let mut launch = stream.launch_builder(&self.kernel);
        launch.arg(&batch).arg(&arrived);
        let grid = LaunchConfig { grid_dim: (self.blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the arguments are the kernel's; every buffer has the size that `network.h` states for `count` frames and
        // the grid's warps, on the same stream, and is kept until the output was copied, which waits for the kernel. All
        // blocks of the grid are resident at once: the occupancy was asked for.
        unsafe { launch.launch_cooperative(grid) }.w()?;
        Ok(self.device.clone_dtoh(&output)?)
    }
}
