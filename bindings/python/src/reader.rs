//! The container's reader: chunks, without a model.

use midspan::stream::{Chunk, Event, JoinPoint, Poll, ReaderConfig};
use midspan::wire::Payload;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple, PyType};

use crate::classes::made;
use crate::codec::bytes_of;
use crate::config;
use crate::error::Failure;
use crate::header::{entry_object, header_object, header_of};
use crate::session::{Session, guard};

/// Reads the chunks of one stream (spec chapter 2). It needs no model, and says nothing about what the payloads hold.
///
/// Call order: :meth:`push` or :meth:`push_message` as input comes, each followed by :meth:`chunks`, or :meth:`poll` until
/// it needs more; :meth:`finish` at the end of input. An error of the stream is final. One call at a time may use a
/// reader, from any thread.
///
/// Args:
///     binding: ``"byte_stream"``, the default, which reads files too, as ``"file"`` does; or ``"message"``.
///     max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes: The most that is accepted from a peer; as
///         for a :class:`Decoder`.
///
/// Raises:
///     CallerError: INVALID_ARGUMENT.
#[pyclass(frozen, module = "midspan")]
pub(crate) struct Reader {
    session: Session<midspan::stream::Reader>,
}

fn reader_config(
    binding: &str,
    (max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes): (u32, u32, u32, u32, u32),
) -> Result<ReaderConfig, Failure> {
    let limits = config::limits(max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes);
    Ok(ReaderConfig::default().binding(config::binding(binding)?.0).limits(limits))
}

impl Reader {
    fn of(reader: midspan::stream::Reader) -> Self {
        Self { session: Session::new(reader) }
    }

    fn next(&self) -> Result<Poll, Failure> {
        self.session.call(|reader| Ok(reader.poll()?))
    }
}

fn payload_object<'py>(py: Python<'py>, payload: &Payload) -> PyResult<Bound<'py, PyAny>> {
    Ok(made!(py, "midspan._chunks", "Payload", PyBytes::new(py, &payload.bytes), payload.offset))
}

fn payloads<'py>(py: Python<'py>, payloads: &[Payload]) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, payloads.iter().map(|payload| payload_object(py, payload)).collect::<PyResult<Vec<_>>>()?)
}

/// A chunk as Python's.
fn chunk_object<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyAny>> {
    macro_rules! chunk {
        ($name:literal $(, $field:expr)* $(,)?) => {
            made!(py, "midspan._chunks", $name, event.offset, event.body_offset, event.bytes $(, $field)*)
        };
    }
    Ok(match &event.chunk {
        Chunk::Header(header) => chunk!("HeaderChunk", header_object(py, header)?),
        Chunk::Frame { index, epoch, payload, .. } => {
            chunk!("FrameChunk", *index, *epoch, payload_object(py, payload)?)
        }
        Chunk::Batch { index, epoch, frames, lanes, .. } => {
            chunk!("BatchChunk", *index, *epoch, *frames, payloads(py, lanes)?)
        }
        Chunk::Target { frames, elements, lanes, status } => {
            let (status, place) = config::status(*status);
            let (index, epoch) = (place.map(|(index, _)| index), place.map(|(_, epoch)| epoch));
            let elements = elements.as_ref().map(|elements| (elements.start, elements.end));
            chunk!("TargetChunk", status, index, epoch, *frames, elements, payloads(py, lanes)?)
        }
        Chunk::Checkpoint(checkpoint) => {
            chunk!("CheckpointChunk", checkpoint.index, checkpoint.digest_w, checkpoint.digest_y)
        }
        Chunk::Reset(reset) => chunk!(
            "ResetChunk",
            reset.index,
            reset.epoch,
            PyBytes::new(py, &reset.fingerprint_prefix),
            reset.quality,
            reset.length_offset,
            reset.digest_w,
            reset.digest_y,
        ),
        Chunk::Rewind(rewind) => chunk!("RewindChunk", rewind.index),
        Chunk::Quality(quality) => chunk!("QualityChunk", quality.quality, quality.length_offset),
        Chunk::ModelSwitch(switch) => chunk!(
            "ModelSwitchChunk",
            switch.index,
            switch.epoch,
            PyBytes::new(py, &switch.fingerprint),
            switch.model_version,
            switch.quality,
            switch.length_offset,
            switch.digest_w,
            switch.digest_y,
        ),
        Chunk::ExactFrame { index, epoch, dtype, payload, hidden, .. } => {
            let (dtype, data) = (config::dtype_name(*dtype), PyBytes::new(py, &hidden.bytes));
            chunk!("ExactFrameChunk", *index, *epoch, dtype, payload_object(py, payload)?, data)
        }
        Chunk::SideIndices { index, count, payload } => {
            chunk!("SideIndicesChunk", *index, *count, payload_object(py, payload)?)
        }
        Chunk::Extension(extension) => {
            chunk!("ExtensionChunk", extension.id, PyBytes::new(py, &extension.data))
        }
        Chunk::End(end) => chunk!("EndChunk", end.index, end.frames_coded, end.digest_w, end.digest_y),
        Chunk::SeekIndex(seek) => {
            let entries = seek.entries.iter().map(|entry| entry_object(py, entry)).collect::<PyResult<Vec<_>>>()?;
            chunk!("SeekIndexChunk", PyTuple::new(py, entries)?)
        }
        Chunk::Footer => chunk!("FooterChunk"),
        _ => chunk!("OtherChunk"),
    })
}

#[pymethods]
impl Reader {
    #[new]
    #[pyo3(signature = (
        *, binding = "byte_stream", max_frames = 256, max_chunk_bytes = 4194304, max_rewind = 1024,
        target_horizon = 1024, early_bytes = 1048576
    ))]
    fn new(
        binding: &str,
        max_frames: u32,
        max_chunk_bytes: u32,
        max_rewind: u32,
        target_horizon: u32,
        early_bytes: u32,
    ) -> PyResult<Self> {
        let limits = (max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes);
        Ok(Self::of(midspan::stream::Reader::new(reader_config(binding, limits)?)))
    }

    /// A reader that joins a stream at a context reset or model switch; the arguments are those of :meth:`Decoder.join`.
    ///
    /// Raises:
    ///     StreamError: 101 to 210, TRUNCATED for a header that is cut.
    #[classmethod]
    #[pyo3(signature = (
        header, offset, index = None, *, binding = "byte_stream", max_frames = 256, max_chunk_bytes = 4194304,
        max_rewind = 1024, target_horizon = 1024, early_bytes = 1048576
    ))]
    fn join(
        _class: &Bound<'_, PyType>,
        header: &Bound<'_, PyAny>,
        offset: u64,
        index: Option<u64>,
        binding: &str,
        max_frames: u32,
        max_chunk_bytes: u32,
        max_rewind: u32,
        target_horizon: u32,
        early_bytes: u32,
    ) -> PyResult<Self> {
        let limits = (max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes);
        let (config, header) = (reader_config(binding, limits)?, bytes_of(header)?);
        Ok(guard(|| {
            let (header, _) = header_of(header.as_bytes(), Some(config.binding))?;
            Ok(Self::of(midspan::stream::Reader::join(config, header, JoinPoint { offset, index })))
        })?)
    }

    /// Restores the reader that :meth:`save` wrote; the arguments are those of a new one.
    ///
    /// Raises:
    ///     CallerError: SAVED_SESSION, also for a reader of another binding.
    #[classmethod]
    #[pyo3(signature = (
        saved, *, binding = "byte_stream", max_frames = 256, max_chunk_bytes = 4194304, max_rewind = 1024,
        target_horizon = 1024, early_bytes = 1048576
    ))]
    fn restore(
        _class: &Bound<'_, PyType>,
        saved: &Bound<'_, PyAny>,
        binding: &str,
        max_frames: u32,
        max_chunk_bytes: u32,
        max_rewind: u32,
        target_horizon: u32,
        early_bytes: u32,
    ) -> PyResult<Self> {
        let limits = (max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes);
        let (config, saved) = (reader_config(binding, limits)?, bytes_of(saved)?);
        Ok(guard(|| Ok(Self::of(midspan::stream::Reader::restore(config, saved.as_bytes())?)))?)
    }

    /// The reader as bytes, input not yet polled included, for :meth:`restore`.
    ///
    /// Raises:
    ///     StreamError: The reader's own error, if it failed.
    fn save<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.session.call(|reader| Ok(reader.save()?))?))
    }

    /// A second reader that goes on from the same place. ``copy.copy`` does the same.
    fn fork(&self) -> PyResult<Self> {
        Ok(Self::of(self.session.call(|reader| Ok(reader.clone()))?))
    }

    fn __copy__(&self) -> PyResult<Self> {
        self.fork()
    }

    /// Frees the reader. Every later call raises AFTER_END; a second ``close`` does nothing.
    fn close(&self) -> PyResult<()> {
        Ok(self.session.close()?)
    }

    fn __enter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close()
    }

    /// Hands in bytes of a byte stream or file, cut anywhere. They are copied.
    ///
    /// Raises:
    ///     StreamError, ResourceError: The stream's error, if it had one.
    ///     CallerError: AFTER_END after :meth:`finish`; NOT_AVAILABLE in the message binding.
    fn push(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = bytes_of(data)?;
        Ok(self.session.call(|reader| Ok(reader.push(data.as_bytes())?))?)
    }

    /// Hands in one message, whole; an empty one is skipped.
    ///
    /// Raises:
    ///     As :meth:`push`, and CallerError NOT_AVAILABLE in a byte stream.
    fn push_message(&self, message: &Bound<'_, PyAny>) -> PyResult<()> {
        let message = bytes_of(message)?;
        Ok(self.session.call(|reader| Ok(reader.push_message(message.as_bytes())?))?)
    }

    /// Hands in a datagram. Any bytes are allowed: each datagram that is not empty gives one target chunk, and none ends
    /// the stream.
    ///
    /// Raises:
    ///     StreamError, ResourceError: The stream's error, if it had one.
    fn push_datagram(&self, datagram: &Bound<'_, PyAny>) -> PyResult<()> {
        let datagram = bytes_of(datagram)?;
        Ok(self.session.call(|reader| Ok(reader.push_target(datagram.as_bytes())?))?)
    }

    /// Says that no more input comes: an unfinished stream is an error from then on, instead of a wait.
    fn finish(&self) -> PyResult<()> {
        Ok(self.session.call(|reader| {
            reader.finish();
            Ok(())
        })?)
    }

    /// The next chunk, :class:`NeedMore` or :class:`End`.
    ///
    /// Raises:
    ///     StreamError, ModelError, ResourceError: The stream's first error, at every later call again: 101 to 408 and
    ///         502.
    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.next()? {
            Poll::Event(event) => chunk_object(py, &event),
            Poll::NeedMore => Ok(made!(py, "midspan._events", "NeedMore")),
            Poll::End => Ok(made!(py, "midspan._events", "End")),
        }
    }

    /// An iterator of the chunks up to the place where more input is needed, or to the end. Each step is a poll, and
    /// raises what that raises. Handle each chunk in the loop: a list of them is lost if a later step raises.
    fn chunks(this: Bound<'_, Self>) -> Chunks {
        Chunks { reader: this.unbind() }
    }

    fn __iter__(this: Bound<'_, Self>) -> Chunks {
        Self::chunks(this)
    }

    /// The stream header, once it was read; None before.
    #[getter]
    fn header<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let header = self.session.call(|reader| Ok(reader.header().cloned()))?;
        header.map(|header| header_object(py, &header)).transpose()
    }

    /// The offset of the first byte that no chunk covers yet.
    #[getter]
    fn offset(&self) -> PyResult<u64> {
        Ok(self.session.call(|reader| Ok(reader.offset()))?)
    }

    /// Bytes that the reader holds.
    #[getter]
    fn memory_bytes(&self) -> PyResult<usize> {
        Ok(self.session.call(|reader| Ok(reader.memory_bytes()))?)
    }

    fn __repr__(&self) -> String {
        match self.session.call(|reader| Ok(reader.offset())) {
            Ok(offset) => format!("<midspan.Reader: at byte {offset}>"),
            Err(failure) => format!("<midspan.Reader: {failure}>"),
        }
    }
}

/// The chunks of a reader up to the place where more input is needed.
#[pyclass(frozen, module = "midspan")]
pub(crate) struct Chunks {
    reader: Py<Reader>,
}

#[pymethods]
impl Chunks {
    fn __iter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.reader.get().next()? {
            Poll::Event(event) => chunk_object(py, &event).map(Some),
            Poll::NeedMore | Poll::End => Ok(None),
        }
    }
}
