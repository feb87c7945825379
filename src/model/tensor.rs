//! Tensors in a safetensors file: named, typed, little-endian.

#![deny(clippy::float_arithmetic)]

use std::borrow::Cow;
use std::collections::HashSet;

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, View};

use super::network::Invalid;
use crate::error::{Detail, Dims, Error, ErrorKind, Limit, Name};
use crate::number::{to_u64, to_usize};

/// The dtypes that a model file may hold, even under names that are not used (spec 4.0).
const DTYPES: [Dtype; 15] = [
    Dtype::BOOL,
    Dtype::U8,
    Dtype::I8,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3,
    Dtype::U16,
    Dtype::I16,
    Dtype::F16,
    Dtype::BF16,
    Dtype::U32,
    Dtype::I32,
    Dtype::F32,
    Dtype::U64,
    Dtype::I64,
    Dtype::F64,
];

/// The number types of a model file.
pub(super) trait Element: Copy {
    const DTYPE: Dtype;
    /// The dtype code of the fingerprint (spec 4.6).
    const CODE: u8;
    fn read(bytes: &[u8]) -> Vec<Self>;
    fn write(values: &[Self]) -> Vec<u8>;
}

macro_rules! element {
    ($($number:ty, $dtype:ident, $code:literal;)+) => {$(
        impl Element for $number {
            const DTYPE: Dtype = Dtype::$dtype;
            const CODE: u8 = $code;

            fn read(bytes: &[u8]) -> Vec<Self> {
                let (values, _) = bytes.as_chunks();
                values.iter().map(|&bytes| <$number>::from_le_bytes(bytes)).collect()
            }

            fn write(values: &[Self]) -> Vec<u8> {
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
        }
    )+};
}

element! {
    i8, I8, 0;
    u8, U8, 1;
    i16, I16, 2;
    u16, U16, 3;
    i32, I32, 4;
    i64, I64, 5;
    f32, F32, 6;
}

/// A tensor to be written or hashed.
pub(super) struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub dtype: Dtype,
    pub code: u8,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub(super) fn new<T: Element>(name: impl Into<String>, shape: &[usize], values: &[T]) -> Tensor {
        Tensor { name: name.into(), shape: shape.to_vec(), dtype: T::DTYPE, code: T::CODE, bytes: T::write(values) }
    }
}

impl View for &Tensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// A model file being read: its tensors, and which of them have been taken.
pub(super) struct File<'a> {
    metadata: Metadata,
    data: &'a [u8],
    /// Bytes of the file before `data`.
    base: usize,
    asked: HashSet<String>,
}

impl<'a> File<'a> {
    /// Parses the header. `memory_limit` bounds the file and the memory for parsing its header.
    pub(super) fn open(bytes: &'a [u8], memory_limit: u64) -> Result<File<'a>, Error> {
        // [MODEL-1]
        let length = to_u64(bytes.len());
        let found = length.saturating_add(header_memory(bytes));
        if found > memory_limit {
            let (what, limit) = ("bytes for the model file and taking its header apart", Limit::Own("memory_limit"));
            let detail = Detail::Limit { what, limit, most: memory_limit, found };
            return Err(Error::of_call(ErrorKind::MemoryLimit).with(detail));
        }
        // [MODEL-1]
        let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| malformed(&error))?;
        let base = header.saturating_add(8);
        let data = bytes.get(base..).unwrap_or(&[]);
        let text = bytes.get(8..base).unwrap_or(&[]);
        let refuse = |detail| Err(Error::new(ErrorKind::ModelFileSyntax, 0).with_detail(detail));
        // [MODEL-1] The first byte of the header is `{`.
        if text.first() != Some(&b'{') {
            return refuse("the header does not begin with a brace");
        }
        // [MODEL-1] No key stands twice in one object, and an entry has exactly three. Readers differ in which of two
        // equal names they take, and so in the fingerprint.
        let entries = metadata.tensors().len().saturating_mul(4);
        let texts = metadata.metadata().as_ref().map_or(0, |texts| texts.len().saturating_add(1));
        if keys(text) != entries.saturating_add(texts) {
            return refuse("a key stands twice, or does not belong into an entry");
        }
        // [MODEL-1] Every dtype is one of the table.
        if !metadata.tensors().values().all(|info| DTYPES.contains(&info.dtype)) {
            return refuse("a dtype that model files do not have");
        }
        Ok(File { metadata, data, base, asked: HashSet::new() })
    }

    /// The offset in the file of a tensor's data; 0 if there is no such tensor.
    pub(super) fn offset(&self, name: &str) -> u64 {
        let at = self.metadata.info(name).map_or(0, |info| info.data_offsets.0.saturating_add(self.base));
        to_u64(at)
    }

    /// The error for a broken rule, with the offset of the tensor.
    pub(super) fn error(&self, invalid: &Invalid) -> Error {
        let detail = Detail::Tensor { name: Name::new(&invalid.tensor), problem: invalid.detail };
        Error::new(invalid.kind, self.offset(&invalid.tensor)).with(detail)
    }

    /// Whether a name satisfies `test`.
    pub(super) fn any(&self, test: impl Fn(&str) -> bool) -> bool {
        self.metadata.tensors().keys().any(|name| test(name))
    }

    /// The tensor's values; its shape must be `shape`.
    pub(super) fn take<T: Element>(&mut self, name: &str, shape: &[usize]) -> Result<Vec<T>, Error> {
        let (found, values) = self.find(name)?;
        if found != shape {
            return Err(self.misshapen(name, shape, &found));
        }
        Ok(values)
    }

    /// The values of a tensor of one dimension, however long.
    pub(super) fn take_list<T: Element>(&mut self, name: &str) -> Result<Vec<T>, Error> {
        let (found, values) = self.find(name)?;
        if found.len() != 1 {
            return Err(self.misshapen(name, &[values.len()], &found));
        }
        Ok(values)
    }

    /// The tensor's shape and values, whatever the shape.
    pub(super) fn take_any<T: Element>(&mut self, name: &str) -> Result<(Vec<usize>, Vec<T>), Error> {
        self.find(name)
    }

    /// [MODEL-2]: a name under `decoder.` that nothing asked for.
    pub(super) fn refuse_unknown(&self) -> Result<(), Error> {
        let tensors = self.metadata.tensors();
        let unknown = tensors.keys().filter(|name| name.starts_with("decoder.") && !self.asked.contains(*name)).min();
        match unknown {
            Some(name) => {
                let detail = Detail::Tensor { name: Name::new(name), problem: "" };
                Err(Error::new(ErrorKind::ModelTensorUnknown, self.offset(name)).with(detail))
            }
            None => Ok(()),
        }
    }

    fn find<T: Element>(&mut self, name: &str) -> Result<(Vec<usize>, Vec<T>), Error> {
        // [MODEL-2]
        let missing = || {
            let detail = Detail::Tensor { name: Name::new(name), problem: "" };
            Error::new(ErrorKind::ModelTensorMissing, 0).with(detail)
        };
        let info = self.metadata.info(name).ok_or_else(missing)?;
        self.asked.insert(name.to_owned());
        if info.dtype != T::DTYPE {
            let (wanted, found) = (dtype_name(T::DTYPE), dtype_name(info.dtype));
            let detail = Detail::TensorDtype { name: Name::new(name), wanted, found };
            return Err(Error::new(ErrorKind::ModelTensorShape, self.offset(name)).with(detail));
        }
        let (from, to) = info.data_offsets;
        let bytes = self.data.get(from..to).ok_or(Error::new(ErrorKind::ModelFileSyntax, 0))?;
        Ok((info.shape.clone(), T::read(bytes)))
    }

    /// The error for a tensor of another shape.
    pub(super) fn misshapen(&self, name: &str, wanted: &[usize], found: &[usize]) -> Error {
        let (wanted, found) = (Dims::new(wanted), Dims::new(found));
        let detail = Detail::TensorShape { name: Name::new(name), wanted, found };
        Error::new(ErrorKind::ModelTensorShape, self.offset(name)).with(detail)
    }
}

/// The error for a file that is not a safetensors file.
fn malformed(error: &SafeTensorError) -> Error {
    Error::new(ErrorKind::ModelFileSyntax, 0).with_detail(match error {
        SafeTensorError::HeaderTooSmall => "it is shorter than 8 bytes",
        SafeTensorError::HeaderTooLarge => "its header is longer than 100 MB",
        SafeTensorError::InvalidHeaderLength => "its header is longer than the file",
        SafeTensorError::InvalidHeader(_) => "its header is no UTF-8",
        SafeTensorError::InvalidHeaderDeserialization(_) | SafeTensorError::JsonError(_) => {
            "its header is not the JSON of a safetensors file"
        }
        SafeTensorError::TensorInvalidInfo | SafeTensorError::ValidationOverflow => {
            "the offsets of a tensor do not fit its dtype and shape"
        }
        SafeTensorError::InvalidOffset(_) => "a tensor overlaps another one, or leaves a gap",
        SafeTensorError::MetadataIncompleteBuffer => "the tensors do not end where the file ends",
        _ => "no safetensors file",
    })
}

/// The name of a dtype in a safetensors file.
fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::I8 => "I8",
        Dtype::U8 => "U8",
        Dtype::I16 => "I16",
        Dtype::U16 => "U16",
        Dtype::I32 => "I32",
        Dtype::U32 => "U32",
        Dtype::I64 => "I64",
        Dtype::U64 => "U64",
        Dtype::F16 => "F16",
        Dtype::BF16 => "BF16",
        Dtype::F32 => "F32",
        Dtype::F64 => "F64",
        Dtype::BOOL => "BOOL",
        _ => "another dtype",
    }
}

/// A bound on the bytes that the safetensors library allocates to parse a file's header: it first stores every value of
/// the JSON text separately, in lists that grow by doubling, and copies the names.
pub fn header_memory(bytes: &[u8]) -> u64 {
    const VALUE: u64 = 128;
    let length = bytes.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
    let text = bytes.get(8..).unwrap_or(&[]);
    let text = text.get(..to_usize(length)).unwrap_or(text);
    let values = to_u64(values_of(text));
    let length = to_u64(text.len());
    values.saturating_mul(VALUE).saturating_add(length.saturating_mul(4))
}

/// At least the number of values and keys in a JSON text: counts the pieces between its punctuation outside strings.
fn values_of(text: &[u8]) -> usize {
    let (mut values, mut in_string, mut escaped) = (1_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' | b',' | b':' if !in_string => values = values.saturating_add(1),
            _ => {}
        }
    }
    values
}

/// The number of keys in a JSON text that is known to be well-formed, those of inner objects too.
fn keys(text: &[u8]) -> usize {
    let (mut keys, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            // Outside strings a colon follows only keys.
            b':' => keys = keys.saturating_add(1),
            _ => {}
        }
    }
    keys
}
