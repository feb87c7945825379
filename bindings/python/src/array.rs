//! Arrays in and out: hidden states and integers of NumPy, or of any library that has DLPack, and NumPy's for what is
//! decoded.

use std::borrow::Cow;

use half::f16;
use half::slice::HalfFloatSliceExt;
use midspan::error::{Detail, Dims, Error, ErrorKind};
use midspan::wire::Dtype;
use numpy::ndarray::Array2;
use numpy::{
    Element, PyArray1, PyArray2, PyArrayDescrMethods, PyArrayDyn, PyReadonlyArrayDyn, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::intern;
use pyo3::prelude::*;

use crate::dlpack::{Kind, Tensor, Value, reserved};
use crate::error::Failure;

/// An argument of values: NumPy's array, or a tensor.
enum Source<'py> {
    Array(Bound<'py, PyUntypedArray>),
    Tensor(Tensor<'py>),
}

impl<'py> Source<'py> {
    /// `None` for an object that is neither.
    fn find(object: &Bound<'py, PyAny>, name: &str) -> Result<Option<Self>, Failure> {
        if let Ok(array) = object.cast::<PyUntypedArray>() {
            return Ok(Some(Source::Array(behaved(array)?)));
        }
        match object.hasattr(intern!(object.py(), "__dlpack__"))? {
            true => Ok(Some(Source::Tensor(Tensor::new(object, name)?))),
            false => Ok(None),
        }
    }

    fn new(object: &Bound<'py, PyAny>, name: &str) -> Result<Self, Failure> {
        Self::find(object, name)?.ok_or_else(|| {
            let class = object.get_type().name().map_or_else(|_| String::from("?"), |name| name.to_string());
            Failure::Type(format!("{name} is a {class}, not a NumPy array or an object with __dlpack__"))
        })
    }

    fn shape(&self) -> &[usize] {
        match self {
            Source::Array(array) => array.shape(),
            Source::Tensor(tensor) => tensor.shape(),
        }
    }
}

/// An array, or a copy of it, whose values can be read as a slice: row by row and aligned.
fn behaved<'py>(array: &Bound<'py, PyUntypedArray>) -> Result<Bound<'py, PyUntypedArray>, Failure> {
    if array.is_c_contiguous() && array.is_aligned() {
        return Ok(array.clone());
    }
    let py = array.py();
    let copied = py.import(intern!(py, "numpy"))?.call_method1(intern!(py, "require"), (array, py.None(), "CA"))?;
    Ok(copied.cast_into::<PyUntypedArray>().map_err(PyErr::from)?)
}

/// The array with values of this type, if that is its dtype.
fn typed<'py, T: Element>(array: &Bound<'py, PyUntypedArray>) -> Result<Option<PyReadonlyArrayDyn<'py, T>>, Failure> {
    match array.cast::<PyArrayDyn<T>>() {
        Ok(array) => Ok(Some(array.extract::<PyReadonlyArrayDyn<'py, T>>()?)),
        Err(_) => Ok(None),
    }
}

/// The name of an array's dtype.
fn dtype_name(array: &Bound<'_, PyUntypedArray>) -> String {
    array.dtype().str().map_or_else(|_| String::from("?"), |name| name.to_string())
}

fn slice<'a, T: Element>(array: &'a PyReadonlyArrayDyn<'_, T>) -> Result<&'a [T], Failure> {
    // `behaved` saw to it.
    array.as_slice().map_err(|error| Failure::Python(error.into()))
}

/// Hidden states in an argument, of any type that the library takes.
pub(crate) struct Floats<'py> {
    values: Held<'py>,
    shape: Vec<usize>,
    name: &'static str,
}

enum Held<'py> {
    F32(PyReadonlyArrayDyn<'py, f32>),
    F16(PyReadonlyArrayDyn<'py, f16>),
    /// The bits of bfloat16, which is no dtype of NumPy's own.
    Bf16(PyReadonlyArrayDyn<'py, u16>),
    Tensor(Tensor<'py>),
}

/// The values of hidden states, which another thread can read without Python.
pub(crate) enum Values<'a> {
    F32(Cow<'a, [f32]>),
    F16(Cow<'a, [f16]>),
    /// Bits.
    Bf16(Cow<'a, [u16]>),
}

impl<'py> Floats<'py> {
    /// Hidden states in an argument of this name.
    pub(crate) fn new(object: &Bound<'py, PyAny>, name: &'static str) -> Result<Self, Failure> {
        let source = Source::new(object, name)?;
        let shape = source.shape().to_vec();
        let wrong = |dtype: String| {
            Failure::Type(format!("{name} has dtype {dtype}, not float32, float16 or bfloat16 in native byte order"))
        };
        let values = match source {
            Source::Array(array) => {
                if let Some(array) = typed::<f32>(&array)? {
                    Held::F32(array)
                } else if let Some(array) = typed::<f16>(&array)? {
                    Held::F16(array)
                } else if array.dtype().itemsize() == 2 && dtype_name(&array) == "bfloat16" {
                    let py = array.py();
                    let bits = array.call_method1(intern!(py, "view"), (intern!(py, "uint16"),))?;
                    Held::Bf16(bits.extract()?)
                } else {
                    return Err(wrong(dtype_name(&array)));
                }
            }
            Source::Tensor(tensor) => match tensor.kind() {
                Kind::F32 | Kind::F16 | Kind::Bf16 => Held::Tensor(tensor),
                kind => return Err(wrong(kind.name().to_string())),
            },
        };
        Ok(Self { values, shape, name })
    }

    pub(crate) fn values(&self) -> Result<Values<'_>, Failure> {
        Ok(match &self.values {
            Held::F32(array) => Values::F32(Cow::Borrowed(slice(array)?)),
            Held::F16(array) => Values::F16(Cow::Borrowed(slice(array)?)),
            Held::Bf16(array) => Values::Bf16(Cow::Borrowed(slice(array)?)),
            Held::Tensor(tensor) => match tensor.kind() {
                Kind::F16 => Values::F16(tensor.values(self.name)?),
                Kind::Bf16 => Values::Bf16(tensor.values(self.name)?),
                _ => Values::F32(tensor.values(self.name)?),
            },
        })
    }

    /// Checks that these are the frames of one stream: [E], [T, E] or [1, T, E].
    pub(crate) fn check_stream(&self, width: usize) -> Result<(), Failure> {
        check_stream(self.name, &self.shape, width)
    }

    /// Checks that these are the frames of as many streams: [B, T, E].
    pub(crate) fn check_streams(&self, streams: usize, width: usize) -> Result<(), Failure> {
        check_streams(self.name, &self.shape, streams, width)
    }
}

fn wrong_shape(what: &'static str, shape: &[usize], width: usize) -> Failure {
    let width = u64::try_from(width).unwrap_or(u64::MAX);
    let detail = Detail::Frames { what, width, found: Dims::new(shape) };
    Error::of_call(ErrorKind::WrongShape).with(detail).into()
}

fn check_stream(what: &'static str, shape: &[usize], width: usize) -> Result<(), Failure> {
    match *shape {
        [found] if found == width => Ok(()),
        [frames, found] | [1, frames, found] if found == width && frames > 0 => Ok(()),
        _ => Err(wrong_shape(what, shape, width)),
    }
}

fn check_streams(what: &str, shape: &[usize], streams: usize, width: usize) -> Result<(), Failure> {
    match *shape {
        [0, _, _] if streams == 0 => Ok(()),
        [rows, frames, found] if rows == streams && found == width && frames > 0 => Ok(()),
        _ => {
            let code = ErrorKind::WrongShape;
            let text =
                format!("{what} is {shape:?}, not [{streams}, T, {width}] with T of 1 or more, one stream a row");
            Err(Failure::Shape(format!("{} ({text}); at fault: the caller; error {}", code.message(), code.code())))
        }
    }
}

impl<'a> Values<'a> {
    /// As f32: the values themselves, or converted, which is exact.
    pub(crate) fn into_f32(self) -> Result<Cow<'a, [f32]>, Failure> {
        match self {
            Values::F32(values) => Ok(values),
            Values::F16(values) => {
                let (mut converted, mut part) = (reserved(values.len())?, [0.0; 1024]);
                for values in values.chunks(part.len()) {
                    let part = part.get_mut(..values.len()).unwrap_or(&mut []);
                    values.convert_to_f32_slice(part);
                    converted.extend_from_slice(part);
                }
                Ok(Cow::Owned(converted))
            }
            Values::Bf16(bits) => {
                let mut converted = reserved(bits.len())?;
                converted.extend(bits.iter().map(|bits| f32::from_bits(u32::from(*bits) << 16)));
                Ok(Cow::Owned(converted))
            }
        }
    }

    /// Their type and their little-endian bytes.
    pub(crate) fn to_le_bytes(&self) -> (Dtype, Vec<u8>) {
        match self {
            Values::F32(values) => (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Values::F16(values) => (Dtype::F16, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Values::Bf16(bits) => (Dtype::Bf16, bits.iter().flat_map(|bits| bits.to_le_bytes()).collect()),
        }
    }
}

/// Integers W or Y in an argument.
pub(crate) struct Integers<'py> {
    values: HeldIntegers<'py>,
    shape: Vec<usize>,
    name: &'static str,
}

enum HeldIntegers<'py> {
    Array(PyReadonlyArrayDyn<'py, i16>),
    Tensor(Tensor<'py>),
}

impl<'py> Integers<'py> {
    /// Integers in an argument of this name.
    pub(crate) fn new(object: &Bound<'py, PyAny>, name: &'static str) -> Result<Self, Failure> {
        let source = Source::new(object, name)?;
        let shape = source.shape().to_vec();
        let wrong = |dtype: String| Failure::Type(format!("{name} has dtype {dtype}, not int16 in native byte order"));
        let values = match source {
            Source::Array(array) => match typed::<i16>(&array)? {
                Some(array) => HeldIntegers::Array(array),
                None => return Err(wrong(dtype_name(&array))),
            },
            Source::Tensor(tensor) if tensor.kind() == Kind::I16 => HeldIntegers::Tensor(tensor),
            Source::Tensor(tensor) => return Err(wrong(tensor.kind().name().to_string())),
        };
        Ok(Self { values, shape, name })
    }

    pub(crate) fn values(&self) -> Result<Cow<'_, [i16]>, Failure> {
        match &self.values {
            HeldIntegers::Array(array) => Ok(Cow::Borrowed(slice(array)?)),
            HeldIntegers::Tensor(tensor) => tensor.values(self.name),
        }
    }

    /// Checks that these are the frames of one stream, with this many values each.
    pub(crate) fn check_stream(&self, width: usize) -> Result<(), Failure> {
        check_stream(self.name, &self.shape, width)
    }

    /// Checks that these are the frames of as many streams: [B, T, E].
    pub(crate) fn check_streams(&self, streams: usize, width: usize) -> Result<(), Failure> {
        check_streams(self.name, &self.shape, streams, width)
    }
}

/// A side index that no model can have.
fn wrong_index(found: i128) -> Failure {
    let found = i64::try_from(found).unwrap_or(if found < 0 { i64::MIN } else { i64::MAX });
    let detail = Detail::Range { what: "side index", low: 0, high: u32::MAX.into(), found };
    Error::of_call(ErrorKind::WrongSideIndices).with(detail).into()
}

fn indices_of<T: Copy + Into<i128>>(values: &[T]) -> Result<Vec<u32>, Failure> {
    values.iter().map(|value| u32::try_from((*value).into()).map_err(|_| wrong_index((*value).into()))).collect()
}

fn indices_in<T: Element + Copy + Into<i128>>(array: &Bound<'_, PyUntypedArray>) -> Result<Option<Vec<u32>>, Failure> {
    typed::<T>(array)?.map(|array| indices_of(slice(&array)?)).transpose()
}

fn indices_at<T: Value + Into<i128>>(tensor: &Tensor<'_>, name: &str) -> Result<Vec<u32>, Failure> {
    indices_of(&tensor.values::<T>(name)?)
}

/// Side indices: any integers of NumPy or of a tensor, [T] or [1, T], or a sequence of Python's.
pub(crate) fn side_indices(object: &Bound<'_, PyAny>) -> Result<Vec<u32>, Failure> {
    let name = "indices";
    let Some(source) = Source::find(object, name)? else {
        let numbers: Vec<i128> = object
            .extract()
            .map_err(|_| Failure::Type(format!("{name} is no array or sequence of integers that fit 128 bits")))?;
        return indices_of(&numbers);
    };
    if !matches!(source.shape(), [_] | [1, _]) {
        let (shape, code) = (source.shape(), ErrorKind::WrongShape);
        let text = format!("{} ({name} is {shape:?}, not [T])", code.message());
        return Err(Failure::Shape(format!("{text}; at fault: the caller; error {}", code.code())));
    }
    let wrong =
        |dtype: String| Failure::Type(format!("{name} has dtype {dtype}, not one of 16-, 32- or 64-bit integers"));
    match source {
        Source::Array(array) => {
            let mut found = indices_in::<i64>(&array)?;
            for read in [indices_in::<i32>, indices_in::<u32>, indices_in::<u64>, indices_in::<u16>, indices_in::<i16>]
            {
                if found.is_none() {
                    found = read(&array)?;
                }
            }
            found.ok_or_else(|| wrong(dtype_name(&array)))
        }
        Source::Tensor(tensor) => match tensor.kind() {
            Kind::I64 => indices_at::<i64>(&tensor, name),
            Kind::I32 => indices_at::<i32>(&tensor, name),
            Kind::U32 => indices_at::<u32>(&tensor, name),
            Kind::U64 => indices_at::<u64>(&tensor, name),
            Kind::U16 => indices_at::<u16>(&tensor, name),
            Kind::I16 => indices_at::<i16>(&tensor, name),
            kind => Err(wrong(kind.name().to_string())),
        },
    }
}

/// Rows as an array of NumPy's, [T, width], without a copy: the array owns the vector.
pub(crate) fn rows<T: Element>(
    py: Python<'_>,
    values: Vec<T>,
    frames: usize,
) -> Result<Bound<'_, PyArray2<T>>, Failure> {
    let width = values.len().checked_div(frames).unwrap_or(0);
    let rows = Array2::from_shape_vec((frames, width), values).map_err(|_| {
        Failure::Library(Error::of_call(ErrorKind::EngineFault).with_detail("values that are no whole frames"))
    })?;
    Ok(PyArray2::from_owned_array(py, rows))
}

/// Values as an array of NumPy's, without a copy.
pub(crate) fn list<T: Element>(py: Python<'_>, values: Vec<T>) -> Bound<'_, PyArray1<T>> {
    PyArray1::from_vec(py, values)
}
