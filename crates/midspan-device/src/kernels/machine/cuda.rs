//! The kernels on NVIDIA devices: all phases of a network run in one cooperative launch (`device.cu`).

use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg, sys::CUdevice_attribute,
};
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
use candle_core::{DType, Device, Result as DeviceResult, Storage, Tensor};

use super::{Launch, Region};
use crate::error::{Error, Result};
use crate::kernels::layout::{Batch, Coding, Frames, Line};
use midspan::error::ErrorKind;

/// The kernels, compiled for a virtual architecture. The driver compiles them for the device.
const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/device.ptx"));
/// Threads in a block.
const THREADS: u32 = 256;
/// Threads in a block of the coder: one warp, so that lanes are spread over the processors.
const CODER_THREADS: u32 = 32;

/// Opens a device.
///
/// # Errors
/// [`ErrorKind::NotAvailable`] without a driver; [`Error::Device`] if there is no such device.
pub fn open(ordinal: usize) -> Result<Device> {
    // SAFETY: when it is loaded, the driver's library only looks for devices.
    if unsafe { libloading::Library::new("libcuda.so.1") }.is_err() {
        return Err(Error::codec(ErrorKind::NotAvailable, "no CUDA driver (libcuda.so.1) on this machine"));
    }
    Ok(Device::new_cuda(ordinal)?)
}

// SAFETY: the type consists of words in the kernels' layout.
unsafe impl DeviceRepr for Batch {}
// SAFETY: as above.
unsafe impl DeviceRepr for Coding {}
// SAFETY: as above.
unsafe impl DeviceRepr for Frames {}
// SAFETY: the type consists of bytes.
unsafe impl DeviceRepr for Line {}

/// A device and its kernels. All work uses the stream of candle's device, of which each thread has its own. Every step
/// waits for its results, so that contexts and working memory may pass from thread to thread.
#[derive(Clone)]
pub(super) struct Cuda {
    device: CudaDevice,
    blocks: u32,
    network: CudaFunction,
    encode: CudaFunction,
    decode: CudaFunction,
    frames: CudaFunction,
    digest: CudaFunction,
    pack: CudaFunction,
}

/// Lines on the device.
pub(in crate::kernels) struct Memory {
    lines: CudaSlice<Line>,
    address: u64,
    device: DeviceId,
}

impl Memory {
    pub fn address(&self) -> u64 {
        self.address
    }

    pub fn bytes(&self) -> usize {
        self.lines.num_bytes()
    }
}

impl Cuda {
    pub fn new(device: &Device) -> Result<Cuda> {
        let Device::Cuda(device) = device else {
            return Err(Error::codec(ErrorKind::NotAvailable, "the kernels need a CUDA device"));
        };
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().w()?;
        let attribute = |which| -> DeviceResult<i32> { stream.context().attribute(which).w() };
        if attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? == 0 {
            return Err(Error::codec(ErrorKind::NotAvailable, "the device cannot launch cooperatively"));
        }
        if attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? < 8 {
            return Err(Error::codec(ErrorKind::NotAvailable, "the kernels need compute capability 8.0"));
        }
        let processors = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let kernel = |name| -> DeviceResult<CudaFunction> {
            let loaded = device.get_or_load_custom_func(name, "midspan", KERNELS);
            let loaded = loaded.map_err(|error| {
                let hint = "is the driver older than the CUDA that built them?";
                candle_core::Error::Msg(format!("the kernels do not load; {hint} ({error})"))
            });
            Ok(loaded?.into_cuda_function())
        };
        let network = kernel("midspan_network")?;
        let resident = network.occupancy_max_active_blocks_per_multiprocessor(THREADS, 0, None).w()?;
        Ok(Cuda {
            blocks: processors.unsigned_abs() * resident.clamp(1, 2),
            network,
            encode: kernel("midspan_encode")?,
            decode: kernel("midspan_decode")?,
            frames: kernel("midspan_frames")?,
            digest: kernel("midspan_digest")?,
            pack: kernel("midspan_pack")?,
            device: device.clone(),
        })
    }

    pub fn warps(&self) -> usize {
        (self.blocks * THREADS / 32) as usize
    }

    pub fn holds(&self, memory: &Memory) -> bool {
        self.device.id() == memory.device
    }

    pub fn alloc(&self, bytes: usize) -> DeviceResult<Memory> {
        let stream = self.device.cuda_stream();
        // SAFETY: plans read only what they or kernels have written; rings are read only within their contexts.
        let lines = unsafe { stream.alloc::<Line>(bytes.div_ceil(64).max(1)) }.w()?;
        let address = lines.device_ptr(&stream).0;
        Ok(Memory { lines, address, device: self.device.id() })
    }

    pub fn upload(&self, to: &mut Memory, lines: &[Line]) -> DeviceResult<()> {
        if lines.is_empty() {
            return Ok(());
        }
        self.device.memcpy_htod(lines, &mut to.lines.slice_mut(..lines.len()))
    }

    pub fn download(&self, from: &Memory, region: Region) -> DeviceResult<Vec<u8>> {
        let (first, end) = (region.offset / 64, (region.offset + region.bytes).div_ceil(64));
        if region.bytes == 0 {
            return Ok(Vec::new());
        }
        let lines = self.device.clone_dtoh(&from.lines.slice(first..end))?;
        // The copy waits for earlier kernels. This call waits for the copy.
        self.device.cuda_stream().synchronize().w()?;
        Ok(bytemuck::cast_slice(&lines)[region.offset - 64 * first..][..region.bytes].to_vec())
    }

    pub fn copy(&self, from: &Memory, to: &mut Memory) -> DeviceResult<()> {
        self.device.memcpy_dtod(&from.lines, &mut to.lines)
    }

    /// The address of a contiguous tensor of f32.
    pub fn address_of(&self, tensor: &Tensor) -> DeviceResult<u64> {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            return Err(candle_core::Error::Msg("a tensor that is not on the device".into()));
        };
        let first = storage.as_cuda_slice::<f32>()?.device_ptr(&self.device.cuda_stream()).0;
        Ok(first + 4 * layout.start_offset() as u64)
    }

    /// A tensor of f32 for kernels to write, and its address.
    pub fn tensor(&self, device: &Device, shape: (usize, usize)) -> DeviceResult<(Tensor, u64)> {
        // SAFETY: nobody reads the tensor before the kernels have written all of it.
        let tensor = unsafe { Tensor::empty(shape, DType::F32, device) }?;
        let address = self.address_of(&tensor)?;
        Ok((tensor, address))
    }

    /// # Safety
    /// As for `Work::launch`.
    pub unsafe fn launch(&self, launch: &Launch) -> DeviceResult<()> {
        let stream = self.device.cuda_stream();
        let config = |blocks: u32, threads: u32| LaunchConfig {
            grid_dim: (blocks, 1, 1),
            block_dim: (threads, 1, 1),
            shared_mem_bytes: 0,
        };
        // Blocks for `warps` warps of work, but at most as many as can run at once.
        let wide =
            |warps: u64| config(u32::try_from(warps.div_ceil(8)).unwrap_or(u32::MAX).clamp(1, self.blocks), THREADS);
        let coder =
            |lanes: u64| config(u32::try_from(lanes).unwrap_or(u32::MAX).clamp(1, 8 * self.blocks), CODER_THREADS);
        // SAFETY: the arguments are those of the kernels. The caller guarantees addresses and sizes. All blocks of a
        // cooperative launch are resident at once, because their number comes from the queried occupancy.
        unsafe {
            match launch {
                Launch::Network(batch) => {
                    stream.launch_builder(&self.network).arg(batch).launch_cooperative(config(self.blocks, THREADS))
                }
                Launch::Encode(coding) => stream.launch_builder(&self.encode).arg(coding).launch(coder(coding.count)),
                Launch::Decode(coding) => stream.launch_builder(&self.decode).arg(coding).launch(coder(coding.count)),
                Launch::Frames(frames, step) => {
                    let warps = (frames.count * frames.width).div_ceil(32);
                    stream.launch_builder(&self.frames).arg(frames).arg(&(*step as i64)).launch(wide(warps))
                }
                Launch::Digest { values, rows, width, crcs } => {
                    stream.launch_builder(&self.digest).arg(values).arg(rows).arg(width).arg(crcs).launch(wide(*rows))
                }
                Launch::Pack { lanes, count, bytes, packed } => {
                    stream.launch_builder(&self.pack).arg(lanes).arg(count).arg(bytes).arg(packed).launch(wide(*count))
                }
            }
        }
        .w()?;
        Ok(())
    }
}
