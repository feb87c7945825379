//! The container's writer: payloads in, bytes out, without a model.

use midspan::error::Error;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple, PyType};

use crate::array::{Items, side_indices};
use crate::codec::{Buffer, bytes_of};
use crate::config;
use crate::encoder::{Popped, message_object};
use crate::header::header_argument;
use crate::session::{Session, guard};

/// Writes the chunks of one stream, under the rules that a reader applies (spec chapter 2), without a model. Payloads are
/// opaque to it, but none may end in the byte 0. A call that breaks a rule changes nothing. One call at a time may use a
/// writer, from any thread.
///
/// Args:
///     header: The stream's :class:`Header`, whose binding the writer follows; it is the first output.
///
/// Raises:
///     CallerError: BAD_CONFIG for a field of the header that is out of its range; INVALID_ARGUMENT.
///     TypeError, OverflowError: The header is none, or a field of it has another type, or is a number beyond its type.
#[pyclass(frozen, module = "midspan")]
pub(crate) struct Writer {
    session: Session<midspan::stream::Writer>,
    popped: Popped,
}

impl Writer {
    fn of(writer: midspan::stream::Writer) -> Self {
        Self { session: Session::new(writer), popped: Popped::default() }
    }

    fn write(&self, write: impl FnOnce(&mut midspan::stream::Writer) -> Result<(), Error>) -> PyResult<()> {
        Ok(self.session.call(|writer| Ok(write(writer)?))?)
    }
}

#[pymethods]
impl Writer {
    #[new]
    fn new(header: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (header, binding) = header_argument(header)?;
        Ok(guard(|| Ok(Self::of(midspan::stream::Writer::new(header, binding)?)))?)
    }

    /// Restores the writer that :meth:`save` wrote.
    ///
    /// Raises:
    ///     CallerError: SAVED_SESSION.
    #[classmethod]
    fn restore(_class: &Bound<'_, PyType>, saved: &Bound<'_, PyAny>) -> PyResult<Self> {
        let saved = bytes_of(saved)?;
        Ok(guard(|| Ok(Self::of(midspan::stream::Writer::restore(saved.as_bytes())?)))?)
    }

    /// The writer as bytes, output not yet taken included, for :meth:`restore`.
    fn save<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let saved = self.session.call(|writer| {
            self.popped.check_empty()?;
            Ok(writer.save())
        })?;
        Ok(PyBytes::new(py, &saved))
    }

    /// A second writer that goes on from the same place. ``copy.copy`` does the same.
    fn fork(&self) -> PyResult<Self> {
        let fork = Self::of(self.session.call(|writer| Ok(writer.clone()))?);
        Ok(Self { popped: self.popped.fork(), ..fork })
    }

    fn __copy__(&self) -> PyResult<Self> {
        self.fork()
    }

    /// Frees the writer, with output not yet taken. Every later call raises AFTER_END; a second ``close`` does nothing.
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

    /// Writes a one-frame chunk: a joined frame, or the hyper-prior of one frame.
    ///
    /// Raises:
    ///     CallerError: CHUNK_TOO_LONG; SEAL_NOT_CANONICAL for a payload that ends in 0; WRONG_SIDE_INDICES in a stream
    ///         with side indices that no :meth:`cover_side` gave; AFTER_END.
    fn frame(&self, payload: &Bound<'_, PyAny>) -> PyResult<()> {
        let payload = bytes_of(payload)?;
        self.write(|writer| writer.frame(payload.as_bytes()))
    }

    /// Writes a batch of ``frames`` frames, 2 or more, with one payload for each lane (spec 2.7).
    ///
    /// Raises:
    ///     CallerError: BATCH_OF_ONE, TOO_MANY_FRAMES, LANE_COUNT, LANE_TABLE, and as :meth:`frame`.
    fn batch(&self, frames: u32, lanes: Items<Buffer<'_>>) -> PyResult<()> {
        let lanes: Vec<&[u8]> = lanes.0.iter().map(|lane| &**lane).collect();
        self.write(|writer| writer.batch(frames, &lanes))
    }

    /// Writes the target of ``frames`` frames from the absolute index ``index`` on, in layered mode, with one payload for
    /// each lane.
    ///
    /// Raises:
    ///     CallerError: KIND_NOT_IN_MODE in joined mode; FRAME_NOT_PENDING for frames that have no hyper-prior; and as
    ///         :meth:`batch`.
    fn target(&self, index: u64, frames: u32, lanes: Items<Buffer<'_>>) -> PyResult<()> {
        let lanes: Vec<&[u8]> = lanes.0.iter().map(|lane| &**lane).collect();
        self.write(|writer| writer.target(index, frames, &lanes))
    }

    /// Writes a part of the target of the frame ``index``: its elements from ``first_element`` to before
    /// ``end_element``.
    ///
    /// Raises:
    ///     CallerError: FIELD_OUT_OF_RANGE for no element, or elements beyond 2^56; and as :meth:`target`.
    fn target_part(
        &self,
        index: u64,
        first_element: u64,
        end_element: u64,
        payload: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let payload = bytes_of(payload)?;
        self.write(|writer| writer.target_part(index, first_element..end_element, payload.as_bytes()))
    }

    /// Gives the side indices that the check of the next frame chunk covers, one for each of its frames. In a stream with
    /// side indices every frame chunk needs such a call before it.
    fn cover_side(&self, indices: &Bound<'_, PyAny>) -> PyResult<()> {
        let indices = side_indices(indices)?;
        self.write(|writer| {
            writer.cover_side(&indices);
            Ok(())
        })
    }

    /// Writes the side indices of the next ``count`` frames, as the model's tables code them.
    ///
    /// Raises:
    ///     CallerError: KIND_NOT_IN_MODE in a stream without side indices; SIDE_INDICES_LEFT; TOO_MANY_FRAMES; and as
    ///         :meth:`frame`.
    fn side_indices(&self, count: u32, payload: &Bound<'_, PyAny>) -> PyResult<()> {
        let payload = bytes_of(payload)?;
        self.write(|writer| writer.side_indices(count, payload.as_bytes()))
    }

    /// Writes a checkpoint at the next frame, with the digests of spec 6.4.
    ///
    /// Raises:
    ///     CallerError: AFTER_END.
    fn checkpoint(&self, digest_w: u32, digest_y: u32) -> PyResult<()> {
        self.write(|writer| writer.checkpoint(digest_w, digest_y))
    }

    /// Writes a context reset: the next frame begins a new context. The digests are those of the context that ends.
    ///
    /// Raises:
    ///     CallerError: FIELD_OUT_OF_RANGE for a length offset above 16,383; AFTER_END.
    fn reset(&self, quality: u8, length_offset: u16, digest_w: u32, digest_y: u32) -> PyResult<()> {
        self.write(|writer| writer.reset(quality, length_offset, digest_w, digest_y))
    }

    /// Writes a rewind: the next frame will have the absolute index ``index``.
    ///
    /// Raises:
    ///     CallerError: REWIND_TARGET, REWIND_TOO_FAR, AFTER_END.
    fn rewind(&self, index: u64) -> PyResult<()> {
        self.write(|writer| writer.rewind(index))
    }

    /// Writes a quality switch, which also sets the length offset; the context goes on.
    ///
    /// Raises:
    ///     As :meth:`reset`.
    fn quality(&self, quality: u8, length_offset: u16) -> PyResult<()> {
        self.write(|writer| writer.quality(quality, length_offset))
    }

    /// Writes a model switch: the next frame begins a new context with the model of this fingerprint, 32 bytes. The
    /// digests are those of the context that ends.
    ///
    /// Raises:
    ///     As :meth:`reset`.
    fn model_switch(
        &self,
        fingerprint: Buffer<'_>,
        model_version: u32,
        quality: u8,
        length_offset: u16,
        digest_w: u32,
        digest_y: u32,
    ) -> PyResult<()> {
        let fingerprint = config::digest("fingerprint", &fingerprint)?;
        self.write(|writer| writer.model_switch(fingerprint, model_version, quality, length_offset, digest_w, digest_y))
    }

    /// Writes an exact frame: a joined payload, and the hidden state as little-endian values of type ``dtype``, which is
    /// ``"f32"``, ``"f16"`` or ``"bf16"``.
    ///
    /// Raises:
    ///     CallerError: WRONG_SHAPE if ``hidden`` is not a whole number of values; and as :meth:`frame`.
    fn exact_frame(&self, dtype: &str, payload: &Bound<'_, PyAny>, hidden: &Bound<'_, PyAny>) -> PyResult<()> {
        let (dtype, payload, hidden) = (config::dtype(dtype)?, bytes_of(payload)?, bytes_of(hidden)?);
        self.write(|writer| writer.exact_frame(dtype, payload.as_bytes(), hidden.as_bytes()))
    }

    /// Writes an ignorable extension of this id.
    ///
    /// Raises:
    ///     As :meth:`checkpoint`, and CallerError CHUNK_TOO_LONG.
    fn extension(&self, id: u32, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = bytes_of(data)?;
        self.write(|writer| writer.extension(id, data.as_bytes()))
    }

    /// Writes the end chunk and, in a file, seek index and footer.
    ///
    /// Raises:
    ///     As :meth:`checkpoint`.
    fn end(&self, digest_w: u32, digest_y: u32) -> PyResult<()> {
        self.write(|writer| writer.end(digest_w, digest_y))
    }

    /// Takes the bytes written since the last call, in a byte stream or file. There may be none.
    ///
    /// Raises:
    ///     CallerError: NOT_AVAILABLE in the message binding.
    fn take_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.session.call(|writer| Ok(writer.take()?))?))
    }

    /// Takes the next message, in the message binding; None if all were taken.
    ///
    /// Raises:
    ///     CallerError: NOT_AVAILABLE in a byte stream or file.
    fn pop_message<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let message = self.session.call(|writer| self.popped.pop(|| writer.pop_message()))?;
        message.map(|message| message_object(py, &message)).transpose()
    }

    /// Takes all messages that were written, in order; none if there is none.
    ///
    /// Raises:
    ///     As :meth:`pop_message`.
    fn take_messages<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let messages = self.session.call(|writer| self.popped.all(|| writer.pop_message()))?;
        self.popped.list(py, messages)
    }

    /// How many bytes :meth:`take_bytes` would give; 0 in the message binding.
    #[getter]
    fn untaken_bytes(&self) -> PyResult<usize> {
        Ok(self.session.call(|writer| Ok(writer.untaken_bytes()))?)
    }

    /// The message that :meth:`pop_message` would give, which stays; None if all were taken, or in a byte stream or file.
    #[getter]
    fn next_message<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let message = self.session.call(|writer| Ok(self.popped.first().or_else(|| writer.next_message().cloned())))?;
        message.map(|message| message_object(py, &message)).transpose()
    }

    /// Absolute index of the next frame.
    #[getter]
    fn next_index(&self) -> PyResult<u64> {
        Ok(self.session.call(|writer| Ok(writer.sequence().next_index()))?)
    }

    /// The offset of the next chunk, which is the number of bytes written so far.
    #[getter]
    fn offset(&self) -> PyResult<u64> {
        Ok(self.session.call(|writer| Ok(writer.position()))?)
    }

    /// Whether the end chunk was written.
    #[getter]
    fn ended(&self) -> PyResult<bool> {
        Ok(self.session.call(|writer| Ok(writer.ended()))?)
    }

    /// Bytes that the writer holds, output not yet taken included.
    #[getter]
    fn memory_bytes(&self) -> PyResult<usize> {
        Ok(self.session.call(|writer| Ok(writer.memory_bytes()))?)
    }

    fn __repr__(&self) -> String {
        match self.session.call(|writer| Ok((writer.sequence().next_index(), writer.position()))) {
            Ok((index, offset)) => format!("<midspan.Writer: next frame {index} at byte {offset}>"),
            Err(failure) => format!("<midspan.Writer: {failure}>"),
        }
    }
}
