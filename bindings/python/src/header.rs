//! Stream headers and seek indices.

use midspan::error::{Error, ErrorKind};
use midspan::stream::Binding;
use midspan::wire::{SeekEntry, SeekIndex, StreamHeader, Tail};
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::array::Items;
use crate::classes::{Class, made};
use crate::codec::{Buffer, bytes_of};
use crate::config;
use crate::error::Failure;

static HEADER: Class = Class::new("midspan._values", "Header");

/// A header as Python's.
pub(crate) fn header_object<'py>(py: Python<'py>, header: &StreamHeader) -> PyResult<Bound<'py, PyAny>> {
    let fields = header.optional.iter().map(|field| (field.id, PyBytes::new(py, &field.value)));
    let fields = PyTuple::new(py, fields.collect::<Vec<_>>())?;
    let values = PyDict::new(py);
    values.set_item("fingerprint", PyBytes::new(py, &header.fingerprint))?;
    values.set_item("mode", config::mode_name(header.mode))?;
    values.set_item("binding", config::binding_name(header.binding, header.file))?;
    values.set_item("check", header.check.bytes())?;
    values.set_item("side", header.side)?;
    values.set_item("quality", header.quality)?;
    values.set_item("model_version", header.model_version)?;
    values.set_item("max_frames", header.max_frames)?;
    values.set_item("max_chunk_bytes", header.max_chunk_bytes)?;
    values.set_item("max_rewind", header.max_rewind)?;
    values.set_item("target_horizon", header.target_horizon)?;
    values.set_item("length_offset", header.length_offset)?;
    values.set_item("identity", header.identity.bytes().map(|bytes| PyBytes::new(py, bytes)))?;
    values.set_item("host_digest", header.host_digest.map(|bytes| PyBytes::new(py, &bytes)))?;
    values.set_item("fields", fields)?;
    values.set_item("format_version", header.format_version)?;
    HEADER.get(py)?.call((), Some(&values))
}

/// A field of a header of Python's.
fn field<'py, T>(header: &Bound<'py, PyAny>, name: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error: Into<PyErr>>,
{
    let py = header.py();
    header.getattr(name)?.extract().map_err(|error: T::Error| {
        let error: PyErr = error.into();
        let text = format!("header.{name}: {}", error.value(py));
        match error.is_instance_of::<PyOverflowError>(py) {
            true => PyOverflowError::new_err(text),
            false => PyTypeError::new_err(text),
        }
    })
}

/// A header of Python's, and its binding.
pub(crate) fn header_argument(header: &Bound<'_, PyAny>) -> Result<(StreamHeader, Binding), Failure> {
    if !header.is_instance(HEADER.get(header.py())?)? {
        let class = header.get_type().name()?;
        return Err(Failure::Type(format!("header is a {class}, not a midspan.Header")));
    }
    let (binding, file) = config::binding(&field::<String>(header, "binding")?)?;
    let host_digest: Option<Buffer> = field(header, "host_digest")?;
    let identity: Option<Buffer> = field(header, "identity")?;
    let fields: Items<(u32, Buffer)> = field(header, "fields")?;
    let header = StreamHeader {
        format_version: field(header, "format_version")?,
        mode: config::mode(&field::<String>(header, "mode")?)?,
        check: config::check(field(header, "check")?)?,
        binding,
        file,
        side: field(header, "side")?,
        model_version: field(header, "model_version")?,
        quality: field(header, "quality")?,
        host_digest: config::optional_digest("host_digest", host_digest.as_deref())?,
        max_frames: field(header, "max_frames")?,
        max_chunk_bytes: field(header, "max_chunk_bytes")?,
        max_rewind: field(header, "max_rewind")?,
        target_horizon: field(header, "target_horizon")?,
        length_offset: field(header, "length_offset")?,
        identity: config::identity(identity.as_deref().unwrap_or(&[]))?,
        optional: config::fields(&fields.0),
        ..StreamHeader::new(config::digest("fingerprint", &field::<Buffer>(header, "fingerprint")?)?)
    };
    Ok((header, binding))
}

/// The header at the beginning of a stream.
pub(crate) fn header_of(bytes: &[u8], binding: Option<Binding>) -> Result<(StreamHeader, usize), Failure> {
    let cut = || Error::new(ErrorKind::Truncated, u64::try_from(bytes.len()).unwrap_or(u64::MAX)).into();
    StreamHeader::load(bytes, binding)?.ok_or_else(cut)
}

/// Reads the header at the beginning of a stream, in either binding, without a model.
///
/// Args:
///     data: The stream's first bytes, or its first message.
///
/// Returns:
///     The header, and how many bytes it takes.
///
/// Raises:
///     StreamError: 101 to 210, TRUNCATED for a header that is cut.
#[pyfunction]
pub(crate) fn load_header<'py>(data: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyAny>, usize)> {
    let (header, len) = header_of(bytes_of(data)?.as_bytes(), None)?;
    Ok((header_object(data.py(), &header)?, len))
}

/// A place to join as Python's.
pub(crate) fn entry_object<'py>(py: Python<'py>, entry: &SeekEntry) -> PyResult<Bound<'py, PyAny>> {
    Ok(made!(py, "midspan._values", "SeekEntry", entry.frame, entry.offset))
}

/// Finds the place in a file at which to join, so as to read the frame with the absolute index ``frame`` (spec 2.10).
///
/// Args:
///     header: The file's first bytes, which must include the stream header.
///     tail: The file's last bytes, which must include the seek index and the footer after it.
///     file_len: The number of bytes of the file.
///     frame: The absolute index.
///
/// Returns:
///     The last place whose frame is not above ``frame``: pass its offset and its frame to :meth:`Decoder.join`, and push
///     the file's bytes from that offset on. With no such place the entry has offset 0: begin with the first byte. The
///     index is not compared with the chunks: a join fails if no context begins there. It does not know the last frame
///     either: a frame after the end gives the last place.
///
/// Raises:
///     StreamError: The header or the index is damaged or cut.
///     CallerError: NOT_AVAILABLE for a stream that is no file; INVALID_ARGUMENT for a tail that is too short, with the
///         needed number of bytes as ``wanted`` (12 are enough to learn it), or for a file shorter than its tail.
#[pyfunction]
#[pyo3(signature = (header, tail, file_len, frame))]
pub(crate) fn file_seek<'py>(
    header: &Bound<'py, PyAny>,
    tail: &Bound<'py, PyAny>,
    file_len: u64,
    frame: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let py = header.py();
    let (header, _) = header_of(bytes_of(header)?.as_bytes(), Some(Binding::ByteStream))?;
    let tail = bytes_of(tail)?;
    let (tail, found) = (tail.as_bytes(), tail.as_bytes().len());
    if usize::try_from(file_len).is_ok_and(|len| len < found) {
        return Err(Failure::Argument(format!("file_len is {file_len}, less than the {found} of tail")).into());
    }
    let index = match SeekIndex::from_tail(&header, tail, file_len).map_err(Failure::from)? {
        Tail::Index(index) => index,
        Tail::Short { wanted } => return Err(Failure::Short { what: "tail", wanted, found }.into()),
    };
    entry_object(py, &index.find(frame).unwrap_or(SeekEntry { frame: 0, offset: 0 }))
}
