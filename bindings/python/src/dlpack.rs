//! Tensors of other libraries, through DLPack: their memory is read where it is.

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi::PyCapsule_SetName;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyCapsule, PyCapsuleMethods};

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
struct Described {
    data: *mut c_void,
    device: Device,
    ndim: i32,
    dtype: DataType,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

/// `DLManagedTensor` of dlpack.h.
#[repr(C)]
struct Managed {
    tensor: Described,
    manager: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}

/// `DLManagedTensorVersioned` of dlpack.h.
#[repr(C)]
struct Versioned {
    major: u32,
    minor: u32,
    manager: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: Described,
}

/// The name of a capsule that holds a tensor, and the name that says that its tensor was taken out.
struct Names {
    fresh: &'static CStr,
    used: &'static CStr,
}

const MANAGED: Names = Names { fresh: c"dltensor", used: c"used_dltensor" };
const VERSIONED: Names = Names { fresh: c"dltensor_versioned", used: c"used_dltensor_versioned" };
/// The version of dlpack.h that is read here. Another minor version has the same layout.
const MAJOR: u32 = 1;
/// The devices whose memory a CPU can read: kDLCPU, kDLCUDAHost, kDLROCMHost.
const READABLE: [i32; 3] = [1, 3, 11];

/// What values are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    F32,
    F16,
    Bf16,
    I16,
    /// Another kind, by its name: no argument takes it.
    Other(String),
}

impl Kind {
    /// What Python calls it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Kind::F32 => "float32",
            Kind::F16 => "float16",
            Kind::Bf16 => "bfloat16",
            Kind::I16 => "int16",
            Kind::Other(name) => name,
        }
    }
}

/// A tensor that was taken out of its capsule. Whoever holds the capsule cannot take it again, so the memory is there
/// until this is dropped. It stays on threads that are attached to Python, as its deleter may need.
enum Taken {
    Managed(NonNull<Managed>),
    Versioned(NonNull<Versioned>),
}

impl Taken {
    fn described(&self) -> &Described {
        match self {
            // SAFETY: a capsule of its name holds this type (DLPack, "Python specification"), and only `drop` deletes it.
            Taken::Managed(managed) => unsafe { &managed.as_ref().tensor },
            // SAFETY: as above.
            Taken::Versioned(versioned) => unsafe { &versioned.as_ref().tensor },
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        match self {
            // SAFETY: who takes a tensor out of its capsule calls its deleter, once, and does not use it afterwards.
            Taken::Managed(managed) => unsafe {
                if let Some(deleter) = managed.as_ref().deleter {
                    deleter(managed.as_ptr());
                }
            },
            // SAFETY: as above.
            Taken::Versioned(versioned) => unsafe {
                if let Some(deleter) = versioned.as_ref().deleter {
                    deleter(versioned.as_ptr());
                }
            },
        }
    }
}

/// A tensor of another library, in memory that the CPU can read.
pub(crate) struct Tensor {
    taken: Taken,
    pub(crate) kind: Kind,
    pub(crate) shape: Vec<usize>,
    /// In bytes.
    pub(crate) strides: Vec<isize>,
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

/// An error for a tensor that its own library describes wrongly, or that has no meaning in memory.
fn refused(name: &str, text: &str) -> Failure {
    Failure::Argument(format!("{name} is a tensor with {text}"))
}

/// What `__dlpack__` gives. Without a `max_version`, libraries give the struct that has no version and refuse memory that
/// must not be written to; libraries that do not know the argument give that struct in any case.
fn capsule_of<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    let method = object.getattr(pyo3::intern!(py, "__dlpack__"))?;
    let version = [(pyo3::intern!(py, "max_version"), (MAJOR, 0_u32))].into_py_dict(py)?;
    match method.call((), Some(&version)) {
        Err(error) if error.is_instance_of::<PyTypeError>(py) => method.call0(),
        given => given,
    }
}

/// Takes the tensor out of a capsule.
fn take(capsule: &Bound<'_, PyCapsule>, name: &str) -> Result<Taken, Failure> {
    let (taken, names) = if capsule.is_valid_checked(Some(VERSIONED.fresh)) {
        (Taken::Versioned(capsule.pointer_checked(Some(VERSIONED.fresh))?.cast()), VERSIONED)
    } else if capsule.is_valid_checked(Some(MANAGED.fresh)) {
        (Taken::Managed(capsule.pointer_checked(Some(MANAGED.fresh))?.cast()), MANAGED)
    } else {
        return Err(refused(name, "a capsule that was used before, or is not DLPack's"));
    };
    // SAFETY: it is a capsule, and the name is there for ever. Nothing else runs Python between the check and this, so
    // nobody else takes the tensor.
    match unsafe { PyCapsule_SetName(capsule.as_ptr(), names.used.as_ptr()) } {
        0 => Ok(taken),
        _ => {
            // The capsule still deletes it.
            std::mem::forget(taken);
            Err(PyErr::fetch(capsule.py()).into())
        }
    }
}

impl Tensor {
    /// The tensor in an argument of this name that has `__dlpack__`. The capsule says where its memory is, so
    /// `__dlpack_device__`, which costs PyTorch as much time as `__dlpack__`, is not asked.
    pub(crate) fn new(object: &Bound<'_, PyAny>, name: &str) -> Result<Self, Failure> {
        let py = object.py();
        let capsule = capsule_of(object)?.cast_into::<PyCapsule>();
        let capsule = capsule.map_err(|_| Failure::Type(format!("{name}.__dlpack__() gives no capsule")))?;
        let taken = take(&capsule, name)?;
        // PyTorch gives out the memory of such a tensor without saying that its values are to be negated.
        if let Some(is_neg) = object.getattr_opt(pyo3::intern!(py, "is_neg"))?
            && is_neg.call0()?.is_truthy()?
        {
            return Err(refused(name, "PyTorch's negative bit: call resolve_neg() first"));
        }
        if let Taken::Versioned(versioned) = &taken {
            // SAFETY: as in `described`; the version is first in every version.
            let major = unsafe { versioned.as_ref().major };
            if major != MAJOR {
                return Err(refused(name, &format!("version {major} of DLPack, not {MAJOR}")));
            }
        }
        let tensor = taken.described();
        if !READABLE.contains(&tensor.device.kind) {
            return Err(elsewhere(name, tensor.device.kind));
        }
        let DataType { code, bits, lanes } = tensor.dtype;
        let kind = match (code, bits, lanes) {
            (2, 32, 1) => Kind::F32,
            (2, 16, 1) => Kind::F16,
            (4, 16, 1) => Kind::Bf16,
            (0, 16, 1) => Kind::I16,
            _ => Kind::Other(match (code, lanes) {
                (0, 1) => format!("int{bits}"),
                (1, 1) => format!("uint{bits}"),
                (2, 1) => format!("float{bits}"),
                (5, 1) => format!("complex{bits}"),
                (6, 1) => String::from("bool"),
                _ => format!("DLPack type {code} with {bits} bits in {lanes} lanes"),
            }),
        };
        let ndim = usize::try_from(tensor.ndim).map_err(|_| refused(name, "a negative number of dimensions"))?;
        if ndim > 0 && tensor.shape.is_null() {
            return Err(refused(name, "no shape"));
        }
        let numbers = |numbers: *const i64| match ndim {
            0 => &[][..],
            // SAFETY: not NULL where this is called, and `ndim` numbers are there as long as the tensor.
            _ => unsafe { std::slice::from_raw_parts(numbers, ndim) },
        };
        let size = |size: &i64| usize::try_from(*size).map_err(|_| refused(name, "a negative size"));
        let shape = numbers(tensor.shape).iter().map(size).collect::<Result<Vec<_>, _>>()?;
        let bytes = isize::from(bits / 8);
        let strides = match tensor.strides.is_null() {
            true => row_by_row(&shape, bytes),
            false => {
                // An exporter may give any stride to a dimension of one.
                let in_bytes = |(size, stride): (&usize, &i64)| match *size {
                    0 | 1 => Some(0),
                    _ => isize::try_from(*stride).ok()?.checked_mul(bytes),
                };
                let strides = shape.iter().zip(numbers(tensor.strides)).map(in_bytes).collect::<Option<Vec<_>>>();
                strides.ok_or_else(|| refused(name, "strides beyond memory"))?
            }
        };
        Ok(Self { kind, shape, strides, taken })
    }

    /// Where the value at index 0 of all dimensions is; NULL for a tensor that says no place.
    pub(crate) fn data(&self) -> *const u8 {
        let tensor = self.taken.described();
        let offset = usize::try_from(tensor.byte_offset).unwrap_or(0);
        match tensor.data.is_null() {
            true => std::ptr::null(),
            false => tensor.data.cast::<u8>().cast_const().wrapping_add(offset),
        }
    }
}

/// The strides of values row by row, in bytes, for values of so many bytes.
pub(crate) fn row_by_row(shape: &[usize], bytes: isize) -> Vec<isize> {
    let mut next = bytes;
    let stride = |size: &usize| {
        let stride = next;
        next = next.saturating_mul(isize::try_from(*size).unwrap_or(isize::MAX));
        stride
    };
    let mut strides: Vec<isize> = shape.iter().rev().map(stride).collect();
    strides.reverse();
    strides
}
