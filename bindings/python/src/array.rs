//! Arrays in and out: hidden states and integers of NumPy, or of any library that has DLPack, and NumPy's for what is
//! decoded.

use std::borrow::Cow;

use half::f16;
use half::slice::HalfFloatSliceExt;
use midspan::error::{Detail, Dims, Error, ErrorKind};
use midspan::wire::Dtype;
use numpy::ndarray::Array2;
use numpy::{Element, PyArray1, PyArray2, PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyMemoryView, PySequence, PyString};

use crate::dlpack::{Kind, Tensor, row_by_row};
use crate::error::Failure;

/// What values of this dtype are.
fn kind_of(dtype: &Bound<'_, PyArrayDescr>) -> Kind {
    let py = dtype.py();
    let is = |other: Bound<'_, PyArrayDescr>| dtype.is_equiv_to(&other);
    if is(numpy::dtype::<f32>(py)) {
        Kind::F32
    } else if is(numpy::dtype::<f16>(py)) {
        Kind::F16
    } else if is(numpy::dtype::<i16>(py)) {
        Kind::I16
    } else {
        // bfloat16 is a dtype of other packages, so it is known by its name.
        match dtype.str().map_or_else(|_| String::from("?"), |name| name.to_string()) {
            name if name == "bfloat16" && dtype.itemsize() == 2 => Kind::Bf16,
            name => Kind::Other(name),
        }
    }
}

/// A type in which values are read. Any bits are a value of it.
pub(crate) trait Value: Copy {
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! value {
    ($($type:ty)+) => {
        $(impl Value for $type {
            fn read(bytes: &[u8]) -> Self {
                bytes.first_chunk().map_or_else(Self::default, |bytes| Self::from_ne_bytes(*bytes))
            }
        })+
    };
}

// The bits of bfloat16 are a `u16`.
value! { f32 f16 i16 u16 }

/// Values of an argument, in its own memory.
enum Values<'a, T> {
    /// Row by row.
    Rows(&'a [T]),
    /// At other strides, or unaligned: all bytes from the lowest value to the highest, where the first value is in them,
    /// and the strides in bytes.
    Apart { bytes: &'a [u8], first: usize, strides: &'a [isize] },
}

impl<'a, T: Value> Values<'a, T> {
    /// The values row by row: where they are, or copied together.
    fn rows(&self, shape: &[usize]) -> Result<Cow<'a, [T]>, Failure> {
        match *self {
            Values::Rows(values) => Ok(Cow::Borrowed(values)),
            Values::Apart { bytes, first, strides } => {
                let mut rows = reserved(shape.iter().fold(1, |count: usize, size| count.saturating_mul(*size)))?;
                gather(bytes, first, shape, strides, &mut rows);
                Ok(Cow::Owned(rows))
            }
        }
    }
}

/// An empty vector with room for so many values. An array that repeats its values may stand for more than memory holds.
fn reserved<T>(count: usize) -> Result<Vec<T>, Failure> {
    let mut values = Vec::new();
    let no_memory = |_| Failure::Memory(count.saturating_mul(size_of::<T>()));
    values.try_reserve_exact(count).map_err(no_memory)?;
    Ok(values)
}

/// Appends the values of all dimensions that are left, row by row.
fn gather<T: Value>(bytes: &[u8], first: usize, shape: &[usize], strides: &[isize], rows: &mut Vec<T>) {
    match (shape, strides) {
        ([size, shape @ ..], [stride, strides @ ..]) => {
            let mut place = first;
            for _ in 0..*size {
                gather(bytes, place, shape, strides, rows);
                // All places are within the bytes; the one after the last is not used.
                place = place.wrapping_add_signed(*stride);
            }
        }
        _ => rows.extend(bytes.get(first..).map(T::read)),
    }
}

/// What keeps the memory of an argument.
enum Memory<'py> {
    Array { _array: Bound<'py, PyUntypedArray> },
    Tensor { _tensor: Tensor },
}

/// Hidden states or integers in an argument: an array of NumPy's, or a tensor. All that describes them is read once,
/// because an array's dtype, shape and strides may change at any time.
pub(crate) struct Given<'py> {
    _memory: Memory<'py>,
    kind: Kind,
    shape: Vec<usize>,
    /// In bytes.
    strides: Vec<isize>,
    /// Where the value at index 0 of all dimensions is.
    data: *const u8,
    name: &'static str,
}

/// What a thread reads without Python: the shape of an argument, and its values.
pub(crate) struct View<'a> {
    name: &'static str,
    shape: &'a [usize],
    values: AnyValues<'a>,
}

enum AnyValues<'a> {
    F32(Values<'a, f32>),
    F16(Values<'a, f16>),
    /// Bits.
    Bf16(Values<'a, u16>),
    I16(Values<'a, i16>),
}

/// Whether an object is an array of NumPy's with a mask. Its memory holds values that do not count.
fn is_masked(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = object.py();
    if object.is_exact_instance_of::<PyUntypedArray>() {
        return Ok(false);
    }
    object.is_instance(&py.import(intern!(py, "numpy.ma"))?.getattr(intern!(py, "MaskedArray"))?)
}

fn masked(name: &str) -> Failure {
    Failure::Type(format!("{name} is a masked array: its masked values would be coded too; fill them first"))
}

impl<'py> Given<'py> {
    fn new(object: &Bound<'py, PyAny>, name: &'static str, kinds: &[Kind], wanted: &str) -> Result<Self, Failure> {
        let given = if let Ok(array) = object.cast::<PyUntypedArray>() {
            if is_masked(object)? {
                return Err(masked(name));
            }
            // SAFETY: it is an array of NumPy's, which has this field.
            let data = unsafe { (*array.as_array_ptr()).fields.data };
            let (dtype, shape, strides) = (array.dtype(), array.shape().to_vec(), array.strides().to_vec());
            let (kind, memory) = (kind_of(&dtype), Memory::Array { _array: array.clone() });
            Self { kind, shape, strides, data: data.cast::<u8>().cast_const(), name, _memory: memory }
        } else if object.hasattr(intern!(object.py(), "__dlpack__"))? {
            let tensor = Tensor::new(object, name)?;
            let (kind, shape, strides) = (tensor.kind.clone(), tensor.shape.clone(), tensor.strides.clone());
            Self { kind, shape, strides, data: tensor.data(), name, _memory: Memory::Tensor { _tensor: tensor } }
        } else {
            let class = object.get_type().name().map_or_else(|_| String::from("?"), |name| name.to_string());
            let text = format!("{name} is a {class}, not a NumPy array or an object with __dlpack__");
            return Err(Failure::Type(text));
        };
        if !kinds.contains(&given.kind) {
            let kind = given.kind.name();
            return Err(Failure::Type(format!("{name} has dtype {kind}, not {wanted} in native byte order")));
        }
        Ok(given)
    }

    /// Hidden states in an argument of this name.
    pub(crate) fn hidden(object: &Bound<'py, PyAny>, name: &'static str) -> Result<Self, Failure> {
        Self::new(object, name, &[Kind::F32, Kind::F16, Kind::Bf16], "float32, float16 or bfloat16")
    }

    /// Integers W or Y in an argument of this name.
    pub(crate) fn integers(object: &Bound<'py, PyAny>, name: &'static str) -> Result<Self, Failure> {
        Self::new(object, name, &[Kind::I16], "int16")
    }

    pub(crate) fn view(&self) -> Result<View<'_>, Failure> {
        let values = match self.kind {
            Kind::F16 => AnyValues::F16(self.values()?),
            Kind::Bf16 => AnyValues::Bf16(self.values()?),
            Kind::I16 => AnyValues::I16(self.values()?),
            _ => AnyValues::F32(self.values()?),
        };
        Ok(View { name: self.name, shape: &self.shape, values })
    }

    /// The values, which must be of the type that `kind` says.
    fn values<T: Value>(&self) -> Result<Values<'_, T>, Failure> {
        let Self { data, shape, strides, .. } = self;
        if shape.contains(&0) {
            return Ok(Values::Rows(&[]));
        }
        let refused = |text: &str| Failure::Argument(format!("{} is an array with {text}", self.name));
        if data.is_null() {
            return Err(refused("no data"));
        }
        // How far the values reach before and after the first one, in bytes.
        let (mut before, mut after, mut together) = (0_usize, size_of::<T>(), data.cast::<T>().is_aligned());
        let own = isize::try_from(size_of::<T>()).unwrap_or(isize::MAX);
        for ((size, stride), usual) in shape.iter().zip(strides).zip(row_by_row(shape, own)) {
            if *size == 1 {
                continue;
            }
            together &= *stride == usual;
            let reach = size.saturating_sub(1).saturating_mul(stride.unsigned_abs());
            let side = if *stride < 0 { &mut before } else { &mut after };
            *side = side.saturating_add(reach);
        }
        let all = before.saturating_add(after);
        if isize::try_from(all).is_err() {
            return Err(refused("strides beyond memory"));
        }
        // SAFETY: whoever made the array says that its memory holds the values at these strides, where the CPU reads
        // them: `all` bytes from the lowest value on. They live as long as what `_memory` keeps, which outlives the
        // slice. Whoever writes to them in another thread during a call gets unspecified values.
        let bytes = unsafe { std::slice::from_raw_parts(data.wrapping_sub(before), all) };
        if !together {
            return Ok(Values::Apart { bytes, first: before, strides });
        }
        // SAFETY: any bits are a value of `T`.
        let (_, values, _) = unsafe { bytes.align_to::<T>() };
        Ok(Values::Rows(values))
    }
}

fn wrong_shape(what: &'static str, shape: &[usize], width: usize) -> Failure {
    let width = u64::try_from(width).unwrap_or(u64::MAX);
    let detail = Detail::Frames { what, width, found: Dims::new(shape) };
    Error::of_call(ErrorKind::WrongShape).with(detail).into()
}

impl<'a> View<'a> {
    /// Checks that these are the frames of one stream: [E], [T, E] or [1, T, E].
    pub(crate) fn check_stream(&self, width: usize) -> Result<(), Failure> {
        match *self.shape {
            [found] if found == width => Ok(()),
            [frames, found] | [1, frames, found] if found == width && frames > 0 => Ok(()),
            _ => Err(wrong_shape(self.name, self.shape, width)),
        }
    }

    /// Checks that this is one frame: [E], [1, E] or [1, 1, E].
    pub(crate) fn check_frame(&self, width: usize) -> Result<(), Failure> {
        self.check_stream(width)?;
        match *self.shape {
            [_] | [1, _] | [1, 1, _] => Ok(()),
            _ => {
                let text = format!("{} is {:?}, not one frame of {width} values", self.name, self.shape);
                Err(Failure::Caller(ErrorKind::WrongShape, text))
            }
        }
    }

    /// Checks that these are the frames of as many streams: [B, T, E].
    pub(crate) fn check_streams(&self, streams: usize, width: usize) -> Result<(), Failure> {
        match *self.shape {
            [0, _, _] if streams == 0 => Ok(()),
            [rows, frames, found] if rows == streams && found == width && frames > 0 => Ok(()),
            _ => {
                let (what, shape) = (self.name, self.shape);
                let text =
                    format!("{what} is {shape:?}, not [{streams}, T, {width}] with T of 1 or more, one stream a row");
                Err(Failure::Caller(ErrorKind::WrongShape, text))
            }
        }
    }

    /// Integers, row by row; none of hidden states.
    pub(crate) fn to_i16(&self) -> Result<Cow<'a, [i16]>, Failure> {
        match &self.values {
            AnyValues::I16(values) => values.rows(self.shape),
            _ => Ok(Cow::Borrowed(&[])),
        }
    }

    /// Hidden states as f32, row by row: the values themselves, or converted, which is exact. None of integers.
    pub(crate) fn to_f32(&self) -> Result<Cow<'a, [f32]>, Failure> {
        match &self.values {
            AnyValues::F32(values) => values.rows(self.shape),
            AnyValues::F16(values) => {
                let values = values.rows(self.shape)?;
                let mut converted = reserved(values.len())?;
                converted.resize(values.len(), 0.0);
                values.convert_to_f32_slice(&mut converted);
                Ok(Cow::Owned(converted))
            }
            AnyValues::Bf16(bits) => {
                let bits = bits.rows(self.shape)?;
                let mut converted = reserved(bits.len())?;
                converted.extend(bits.iter().map(|bits| f32::from_bits(u32::from(*bits) << 16)));
                Ok(Cow::Owned(converted))
            }
            AnyValues::I16(_) => Ok(Cow::Borrowed(&[])),
        }
    }

    /// The type of hidden states and their little-endian bytes.
    pub(crate) fn to_le_bytes(&self) -> Result<(Dtype, Vec<u8>), Failure> {
        Ok(match &self.values {
            AnyValues::F16(values) => {
                (Dtype::F16, values.rows(self.shape)?.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            AnyValues::Bf16(bits) => {
                (Dtype::Bf16, bits.rows(self.shape)?.iter().flat_map(|bits| bits.to_le_bytes()).collect())
            }
            _ => (Dtype::F32, self.to_f32()?.iter().flat_map(|value| value.to_le_bytes()).collect()),
        })
    }
}

/// A side index that no model can have.
fn wrong_index(found: i128) -> Failure {
    let found = i64::try_from(found).unwrap_or(if found < 0 { i64::MIN } else { i64::MAX });
    let detail = Detail::Range { what: "side index", low: 0, high: u32::MAX.into(), found };
    Error::of_call(ErrorKind::WrongSideIndices).with(detail).into()
}

/// Side indices: any integers of an array or a tensor, [T] or [1, T], or a sequence of Python's.
pub(crate) fn side_indices(object: &Bound<'_, PyAny>) -> Result<Vec<u32>, Failure> {
    let (py, name) = (object.py(), "indices");
    if is_masked(object)? {
        return Err(masked(name));
    }
    if object.is_instance_of::<PyMemoryView>() {
        return Err(no_indices(name));
    }
    // NumPy's arrays and most libraries' tensors have `tolist`, whatever their device is.
    let list = intern!(py, "tolist");
    let array = match object.hasattr(list)? {
        false if object.hasattr(intern!(py, "__dlpack__"))? => {
            py.import(intern!(py, "numpy"))?.call_method1(intern!(py, "from_dlpack"), (object,))?
        }
        _ => object.clone(),
    };
    let mut numbers = match array.hasattr(list)? {
        true => array.call_method0(list)?,
        false => array.clone(),
    };
    if let Some(shape) = array.getattr_opt(intern!(py, "shape"))? {
        match shape.extract::<Vec<usize>>()?[..] {
            [_] => {}
            [1, _] => numbers = numbers.get_item(0)?,
            ref shape => {
                return Err(Failure::Caller(ErrorKind::WrongShape, format!("{name} is {shape:?}, not [T]")));
            }
        }
    }
    let index = |number: &Bound<'_, PyAny>| {
        let negative = || number.lt(0).unwrap_or(false);
        match number.extract::<i128>() {
            Ok(_) if number.is_instance_of::<PyBool>() => Err(no_indices(name)),
            Ok(number) => u32::try_from(number).map_err(|_| wrong_index(number)),
            Err(error) if error.is_instance_of::<PyTypeError>(py) => Err(no_indices(name)),
            Err(error) if error.is_instance_of::<PyOverflowError>(py) => {
                Err(wrong_index(if negative() { i128::MIN } else { i128::MAX }))
            }
            Err(error) => Err(error.into()),
        }
    };
    if numbers.is_instance_of::<PyByteArray>() || numbers.is_instance_of::<PyBytes>() {
        return Err(no_indices(name));
    }
    let length = items_of(&numbers).map_err(|_| no_indices(name))?;
    let mut indices = reserved(length)?;
    for number in numbers.try_iter()?.take(length) {
        indices.push(index(&number?)?);
    }
    Ok(indices)
}

fn no_indices(name: &str) -> Failure {
    Failure::Type(format!("{name} is no array of integers, and no list or other sequence of them"))
}

/// How many items a sequence says that it has.
fn items_of(object: &Bound<'_, PyAny>) -> PyResult<usize> {
    match object.is_instance_of::<PyString>() {
        true => Err(PyTypeError::new_err("it is a str")),
        false => object.cast::<PySequence>()?.len(),
    }
}

/// The items of a sequence. PyO3 aborts if there is no memory for as many as the sequence says that it has.
pub(crate) struct Items<T>(pub(crate) Vec<T>);

impl<'py, T> FromPyObject<'_, 'py> for Items<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error: Into<PyErr>>,
{
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let length = items_of(&object)?;
        let mut items = reserved(length)?;
        for item in object.try_iter()?.take(length) {
            items.push(item?.extract().map_err(Into::into)?);
        }
        Ok(Self(items))
    }
}

/// Rows as an array of NumPy's, [T, width], without a copy: the array owns the vector.
pub(crate) fn rows<T: Element>(
    py: Python<'_>,
    values: Vec<T>,
    frames: usize,
) -> Result<Bound<'_, PyArray2<T>>, Failure> {
    let width = values.len().checked_div(frames).unwrap_or(0);
    let rows = Array2::from_shape_vec((frames, width), values);
    let rows = rows.map_err(|_| Failure::Panic(String::from("values that are no whole frames")))?;
    Ok(PyArray2::from_owned_array(py, rows))
}

/// Values as an array of NumPy's, without a copy.
pub(crate) fn list<T: Element>(py: Python<'_>, values: Vec<T>) -> Bound<'_, PyArray1<T>> {
    PyArray1::from_vec(py, values)
}
