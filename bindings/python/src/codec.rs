//! Codec models.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use midspan::error::{Detail, Error, ErrorKind, Limit};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use crate::array::Items;
use crate::classes::made;
use crate::error::Failure;
use crate::session::{Session, guard};

/// Bytes of a bytes-like object: those of `bytes` where they are, of any other object that has a buffer a copy.
pub(crate) fn bytes_of<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    match object.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.clone()),
        Err(_) => {
            let view = pyo3::types::PyMemoryView::from(object)?;
            Ok(view.call_method0(pyo3::intern!(object.py(), "tobytes"))?.cast_into::<PyBytes>()?)
        }
    }
}

/// Bytes of a bytes-like argument, as [`bytes_of`] has them.
pub(crate) struct Buffer<'py>(Bound<'py, PyBytes>);

impl<'py> FromPyObject<'_, 'py> for Buffer<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(bytes_of(&object)?))
    }
}

impl std::ops::Deref for Buffer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl<T: Send> Session<T> {
    /// Runs a call that codes, while other threads run Python.
    pub(crate) fn detached<R: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut T) -> Result<R, Failure> + Send,
    ) -> Result<R, Failure> {
        py.detach(|| self.call(call))
    }
}

/// A codec model, prepared for this CPU.
///
/// Load it once, with :meth:`load` or :meth:`from_bytes`, and share it: sessions keep no copy, any number of threads may
/// use it, and sessions that share one step together. It does not change.
#[pyclass(frozen, module = "midspan")]
pub(crate) struct Codec {
    codec: Arc<midspan::codec::Codec>,
}

impl From<Arc<midspan::codec::Codec>> for Codec {
    fn from(codec: Arc<midspan::codec::Codec>) -> Self {
        Self { codec }
    }
}

impl Codec {
    pub(crate) fn share(&self) -> Arc<midspan::codec::Codec> {
        Arc::clone(&self.codec)
    }

    fn read(py: Python<'_>, file: &[u8], memory_limit: usize) -> Result<Self, Failure> {
        let codec = py.detach(|| guard(|| Ok(midspan::codec::Codec::from_bytes(file, memory_limit)?)))?;
        Ok(Arc::new(codec).into())
    }
}

/// A file's bytes, if they are within the limit.
fn read_file(path: &PathBuf, memory_limit: usize) -> Result<Result<Vec<u8>, Error>, std::io::Error> {
    let mut bytes = Vec::new();
    let most = u64::try_from(memory_limit).unwrap_or(u64::MAX);
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if found <= most {
        return Ok(Ok(bytes));
    }
    let (what, limit) = ("bytes of the model file, or more", Limit::Own("memory_limit"));
    Ok(Err(Error::of_call(ErrorKind::MemoryLimit).with(Detail::Limit { what, limit, most, found })))
}

/// An error of a file as Python's own, with the file's name.
fn os_error(py: Python<'_>, error: &std::io::Error, path: &Path) -> PyErr {
    let file = path.as_os_str().to_os_string();
    let Some(number) = error.raw_os_error() else { return PyOSError::new_err(format!("{}: {error}", path.display())) };
    if cfg!(windows) {
        // It is no errno there: Python finds that by the last argument.
        return PyOSError::new_err((0, error.to_string(), file, number));
    }
    match py.import("os").and_then(|os| os.call_method1("strerror", (number,))) {
        Ok(text) => PyOSError::new_err((number, text.unbind(), file)),
        Err(other) => other,
    }
}

/// The digest of a host model's weights (spec 4.7), for ``host_digest`` of an :class:`Encoder` and a :class:`Decoder`. It
/// depends on neither how the weights are spread over the files, nor on the order of the files. Of files larger than
/// memory only their headers and 64 KiB at a time are read into it.
///
/// Args:
///     files: The paths of the model's safetensors files, in any order.
///
/// Returns:
///     SHA-256, 32 bytes.
///
/// Raises:
///     OSError: A file cannot be read.
///     ValueError: A file is no safetensors file, two tensors have the same name, or there are no weights.
#[pyfunction]
pub(crate) fn host_digest<'py>(py: Python<'py>, files: Items<PathBuf>) -> PyResult<Bound<'py, PyBytes>> {
    let mut open = Vec::with_capacity(files.0.len());
    for path in &files.0 {
        open.push(py.detach(|| File::open(path)).map_err(|error| os_error(py, &error, path))?);
    }
    let digest = py.detach(|| guard(|| Ok(midspan::adapter::host_digest(&mut open))))?;
    let digest = digest.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => PyValueError::new_err(error.to_string()),
        _ => PyErr::from(error),
    })?;
    Ok(PyBytes::new(py, &digest))
}

#[pymethods]
impl Codec {
    /// Reads a model file (spec chapter 4) from bytes.
    ///
    /// Args:
    ///     file: The file's bytes, not needed afterwards.
    ///     memory_limit: Bytes that the file, and the memory for parsing it, may take; 1 GiB by default, for files that
    ///         are trusted.
    ///
    /// Raises:
    ///     ModelError: 701 to 708 for a file that is no valid model.
    ///     ResourceError: MEMORY_LIMIT.
    #[classmethod]
    #[pyo3(signature = (file, *, memory_limit = 1073741824))]
    fn from_bytes(_class: &Bound<'_, PyType>, file: &Bound<'_, PyAny>, memory_limit: usize) -> PyResult<Self> {
        Ok(Self::read(file.py(), bytes_of(file)?.as_bytes(), memory_limit)?)
    }

    /// Reads a model file (spec chapter 4) by its path. No more than ``memory_limit`` bytes of it are read.
    ///
    /// Args:
    ///     path: The file's path.
    ///     memory_limit: As in :meth:`from_bytes`.
    ///
    /// Raises:
    ///     OSError: The file cannot be read.
    ///     ModelError, ResourceError: As in :meth:`from_bytes`.
    #[classmethod]
    #[pyo3(signature = (path, *, memory_limit = 1073741824))]
    fn load(class: &Bound<'_, PyType>, path: PathBuf, memory_limit: usize) -> PyResult<Self> {
        let py = class.py();
        let file = py.detach(|| read_file(&path, memory_limit)).map_err(|error| os_error(py, &error, &path))?;
        Ok(Self::read(py, &file.map_err(Failure::from)?, memory_limit)?)
    }

    /// SHA-256 over all that a decoder uses (spec 4.6), 32 bytes. A stream names the model that it needs by it.
    #[getter]
    fn fingerprint<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.codec.fingerprint())
    }

    /// The model's version; information only.
    #[getter]
    fn version(&self) -> u32 {
        self.codec.model().version()
    }

    /// E, values of a hidden state.
    #[getter]
    fn hidden_width(&self) -> usize {
        self.codec.model().hidden_width()
    }

    /// C, values of W in a frame.
    #[getter]
    fn hyper_prior_width(&self) -> usize {
        self.codec.model().hyper_prior_width()
    }

    /// Q, how many qualities it has: 0 is the coarsest of the default model.
    #[getter]
    fn qualities(&self) -> usize {
        self.codec.model().qualities()
    }

    /// Whether the model holds what an encoder needs (spec 4.5).
    #[getter]
    fn has_encoder(&self) -> bool {
        self.codec.encodes()
    }

    /// Whether it takes a side index for every frame (spec 6.12).
    #[getter]
    fn takes_side(&self) -> bool {
        self.codec.model().side().is_some()
    }

    /// V: side indices are 0 to V - 1, and V says that a frame has none. 0 if the model takes none.
    #[getter]
    fn side_vocabulary(&self) -> u32 {
        self.codec.model().side().map_or(0, |side| side.vocabulary())
    }

    /// A: how many side indices say something of a frame, its own and those of frames before it. 0 if the model takes
    /// none.
    #[getter]
    fn side_ages(&self) -> usize {
        self.codec.model().side().map_or(0, |side| side.ages())
    }

    /// P, how many frames back Y is predicted from (spec 4.9); 0 if the model does not predict. If it does, it cannot be
    /// used in layered mode.
    #[getter]
    fn predicted_from(&self) -> usize {
        self.codec.model().predicted_from()
    }

    /// The smallest and the largest value of W.
    #[getter]
    fn w_range(&self) -> (i16, i16) {
        self.codec.model().w_range()
    }

    /// The smallest and the largest value of Y.
    #[getter]
    fn y_range(&self) -> (i16, i16) {
        self.codec.model().y_range()
    }

    /// What the model says about one of its qualities.
    ///
    /// Raises:
    ///     CallerError: UNKNOWN_QUALITY.
    fn quality<'py>(&self, py: Python<'py>, quality: u8) -> PyResult<Bound<'py, PyAny>> {
        let (model, index) = (self.codec.model(), usize::from(quality));
        if index >= model.qualities() {
            let wanted = u64::try_from(model.qualities()).unwrap_or(u64::MAX);
            let detail = Detail::Number { what: "quality below", wanted, found: quality.into() };
            return Err(Failure::from(Error::of_call(ErrorKind::UnknownQuality).with(detail)).into());
        }
        let (low, high) = model.common_range(index);
        let (weight, bits, offset) = (model.rate_weight(index), model.expected_bits(index), model.length_offset(index));
        Ok(made!(py, "midspan._values", "QualityInfo", low, high, weight, bits, offset))
    }

    /// Of the same fingerprint, and an encoder's part in both or in none: one may stand for the other.
    fn __eq__(&self, other: &Bound<'_, Codec>) -> bool {
        let other = &other.get().codec;
        other.fingerprint() == self.codec.fingerprint() && other.encodes() == self.codec.encodes()
    }

    fn __hash__(&self) -> u64 {
        self.codec.fingerprint().first_chunk().copied().map_or(0, u64::from_le_bytes)
    }

    fn __repr__(&self) -> String {
        let model = self.codec.model();
        let prefix: String = self.codec.fingerprint().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let side = match model.side() {
            Some(side) => format!(", {} side indices", side.vocabulary()),
            None => String::new(),
        };
        format!(
            "<midspan.Codec {prefix}…: hidden width {}, {} channels of W, {} qualities{side}>",
            model.hidden_width(),
            model.hyper_prior_width(),
            model.qualities(),
        )
    }
}
