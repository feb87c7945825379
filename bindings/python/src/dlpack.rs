//! Tensors of other libraries, through DLPack: their memory is read where it is.

use std::borrow::Cow;
use std::ffi::{CStr, c_void};

use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyCapsuleMethods};

use crate::error::Failure;

/// A kind of device, and which one of them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Device {
    kind: i32,
    id: i32,
}

/// A kind of number, its bits, and how many are in an element.
#[repr(C)]
#[derive(Clone, Copy, PartialEq)]
struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

/// `DLTensor` of dlpack.h.
#[repr(C)]
struct Borrowed {
    data: *mut c_void,
    device: Device,
    ndim: i32,
    dtype: DataType,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

/// `DLManagedTensor` of dlpack.h, as far as it is read here.
#[repr(C)]
struct Managed {
    tensor: Borrowed,
    manager: *mut c_void,
    deleter: *mut c_void,
}

const NAME: &CStr = c"dltensor";
/// The devices whose memory a CPU can read: kDLCPU, kDLCUDAHost, kDLROCMHost.
const READABLE: [i32; 3] = [1, 3, 11];

/// What the values of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    F32,
    F16,
    Bf16,
    I16,
    I32,
    I64,
    U16,
    U32,
    U64,
}

impl Kind {
    /// What Python calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::F32 => "float32",
            Kind::F16 => "float16",
            Kind::Bf16 => "bfloat16",
            Kind::I16 => "int16",
            Kind::I32 => "int32",
            Kind::I64 => "int64",
            Kind::U16 => "uint16",
            Kind::U32 => "uint32",
            Kind::U64 => "uint64",
        }
    }
}

/// A tensor of another library. Its capsule is not consumed: as long as it lives, so does the memory, and the capsule
/// gives it back itself.
pub(crate) struct Tensor<'py> {
    capsule: Bound<'py, PyCapsule>,
    kind: Kind,
    shape: Vec<usize>,
    /// In elements.
    strides: Vec<usize>,
}

/// The name of a kind of device, for people.
fn device_name(kind: i32) -> String {
    let name = match kind {
        2 => "CUDA",
        4 => "OpenCL",
        7 => "Vulkan",
        8 => "Metal",
        10 => "ROCm",
        13 => "CUDA managed memory",
        14 => "oneAPI",
        15 => "WebGPU",
        _ => return format!("DLPack's kind {kind}"),
    };
    name.to_string()
}

fn elsewhere(name: &str, device: i32) -> Failure {
    Failure::Argument(format!("{name} is on a device ({}): bring it to the CPU first", device_name(device)))
}

fn not_held(name: &str, text: &str) -> Failure {
    Failure::Argument(format!("{name} is a tensor that DLPack cannot describe ({text})"))
}

impl<'py> Tensor<'py> {
    /// The tensor in an argument of this name that has `__dlpack__`. The capsule says where its memory is, so
    /// `__dlpack_device__`, which takes PyTorch as long again, is not asked.
    pub(crate) fn new(object: &Bound<'py, PyAny>, name: &str) -> Result<Self, Failure> {
        let py = object.py();
        let capsule = object.call_method0(pyo3::intern!(py, "__dlpack__"))?.cast_into::<PyCapsule>();
        let capsule = capsule.map_err(|_| Failure::Type(format!("{name}.__dlpack__() gives no capsule")))?;
        let pointer = capsule.pointer_checked(Some(NAME))?.cast::<Managed>();
        // SAFETY: a capsule of this name holds a `DLManagedTensor` (DLPack, "Python specification"), which lives as long
        // as the capsule is not consumed.
        let tensor = unsafe { &pointer.as_ref().tensor };
        if !READABLE.contains(&tensor.device.kind) {
            return Err(elsewhere(name, tensor.device.kind));
        }
        let ndim = usize::try_from(tensor.ndim).map_err(|_| not_held(name, "a negative number of dimensions"))?;
        let sizes = |sizes: *const i64| -> Result<Vec<usize>, Failure> {
            if ndim == 0 {
                return Ok(Vec::new());
            }
            // SAFETY: not NULL where this is called, and `ndim` numbers are there.
            let sizes = unsafe { std::slice::from_raw_parts(sizes, ndim) };
            let size = |size: &i64| usize::try_from(*size).map_err(|_| not_held(name, "a negative size or stride"));
            sizes.iter().map(size).collect()
        };
        if ndim > 0 && tensor.shape.is_null() {
            return Err(not_held(name, "no shape"));
        }
        let shape = sizes(tensor.shape)?;
        let strides = match tensor.strides.is_null() {
            true => row_by_row(&shape),
            false => sizes(tensor.strides)?,
        };
        // An exporter may give any stride to a dimension of one.
        let strides = shape.iter().zip(&strides).zip(row_by_row(&shape));
        let strides = strides.map(|((size, stride), usual)| if *size == 1 { usual } else { *stride }).collect();
        let kind = match (tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes) {
            (2, 32, 1) => Kind::F32,
            (2, 16, 1) => Kind::F16,
            (4, 16, 1) => Kind::Bf16,
            (0, 16, 1) => Kind::I16,
            (0, 32, 1) => Kind::I32,
            (0, 64, 1) => Kind::I64,
            (1, 16, 1) => Kind::U16,
            (1, 32, 1) => Kind::U32,
            (1, 64, 1) => Kind::U64,
            (code, bits, _) => {
                let kind = match code {
                    0 => "int",
                    1 => "uint",
                    2 => "float",
                    5 => "complex",
                    6 => "bool",
                    _ => "a type of DLPack's code ",
                };
                let code = if kind.ends_with(' ') { code.to_string() } else { String::new() };
                return Err(Failure::Type(format!("{name} has a dtype that does not fit: {kind}{code}, {bits} bits")));
            }
        };
        Ok(Self { kind, shape, strides, capsule })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values row by row, which must be of the type that `kind` says: where they are if they are contiguous, and
    /// otherwise copied together.
    pub(crate) fn values<T: Value>(&self, name: &str) -> Result<Cow<'_, [T]>, Failure> {
        if !T::KINDS.contains(&self.kind) {
            return Err(Failure::Type(format!("{name} has another dtype: {}", self.kind.name())));
        }
        let count = self.shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
        let too_many = || not_held(name, "more values than memory can hold");
        let count = count.ok_or_else(too_many)?;
        if count == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        let last = |(size, stride): (&usize, &usize)| size.checked_sub(1)?.checked_mul(*stride);
        let ends = self.shape.iter().zip(&self.strides).map(last);
        let span = ends.chain([Some(1)]).try_fold(0_usize, |sum, end| sum.checked_add(end?));
        let fits = |count: usize| count.checked_mul(size_of::<T>()).is_some_and(|bytes| isize::try_from(bytes).is_ok());
        let span = span.filter(|span| fits(*span) && fits(count)).ok_or_else(too_many)?;
        let pointer = self.capsule.pointer_checked(Some(NAME))?.cast::<Managed>();
        // SAFETY: as in `new`.
        let tensor = unsafe { &pointer.as_ref().tensor };
        let offset = usize::try_from(tensor.byte_offset).unwrap_or(usize::MAX);
        let data = tensor.data.cast::<u8>().wrapping_add(offset).cast::<T>().cast_const();
        if tensor.data.is_null() || !data.is_aligned() {
            return Err(not_held(name, "no data, or data that are not aligned"));
        }
        // SAFETY: the exporter says that its memory holds the values at these strides, of this type and on a device that
        // the CPU can read; the last of them is `span` values from the first. Any bits are a value of `T`. They live as
        // long as the capsule, which outlives the slice. As with NumPy's arrays, whoever writes to the tensor in another
        // thread during a call gets unspecified values.
        let values = unsafe { std::slice::from_raw_parts(data, span) };
        match self.strides == row_by_row(&self.shape) {
            true => Ok(Cow::Borrowed(values)),
            false => {
                let mut gathered = reserved(count)?;
                gather(values, &self.shape, &self.strides, &mut gathered);
                Ok(Cow::Owned(gathered))
            }
        }
    }
}

/// An empty vector with room for so many values. A tensor that repeats its values may stand for more than memory holds.
pub(crate) fn reserved<T>(count: usize) -> Result<Vec<T>, Failure> {
    let mut values = Vec::new();
    let no_memory = |_| Failure::Memory(count.saturating_mul(size_of::<T>()));
    values.try_reserve_exact(count).map_err(no_memory)?;
    Ok(values)
}

/// The strides of values row by row, in elements. They do not matter for a dimension of one.
fn row_by_row(shape: &[usize]) -> Vec<usize> {
    let mut next = 1_usize;
    let mut strides: Vec<usize> = shape
        .iter()
        .rev()
        .map(|size| {
            let stride = next;
            next = next.saturating_mul(*size);
            stride
        })
        .collect();
    strides.reverse();
    strides
}

/// Appends the values of all dimensions that are left, row by row.
fn gather<T: Copy>(values: &[T], shape: &[usize], strides: &[usize], gathered: &mut Vec<T>) {
    match (shape, strides) {
        ([size, shape @ ..], [stride, strides @ ..]) => {
            for step in 0..*size {
                // All places are within the span, which fits a `usize`.
                let rest = values.get(step.wrapping_mul(*stride)..).unwrap_or(&[]);
                gather(rest, shape, strides, gathered);
            }
        }
        _ => gathered.extend(values.first()),
    }
}

/// A type in which a tensor's values can be read. Any bits are a value of it.
pub(crate) trait Value: Copy + Send + Sync {
    const KINDS: &'static [Kind];
}

macro_rules! value {
    ($($type:ty: $($kind:ident)+;)+) => {
        $(impl Value for $type { const KINDS: &'static [Kind] = &[$(Kind::$kind),+]; })+
    };
}

value! {
    f32: F32;
    half::f16: F16;
    u16: Bf16 U16;
    i16: I16;
    i32: I32;
    i64: I64;
    u32: U32;
    u64: U64;
}
