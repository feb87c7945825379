//! Decoder sessions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use midspan::adapter::Threads;
use midspan::codec::{DecoderConfig, DecoderPoll};
use midspan::error::ErrorKind;
use midspan::stream::JoinPoint;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyRange, PyTuple, PyType};

use crate::array::{Items, side_indices};
use crate::codec::{Buffer, Codec, bytes_of};
use crate::config;
use crate::error::Failure;
use crate::event::{event_object, idle_object};
use crate::header::header_of;
use crate::session::{Session, guard};

/// Decodes one stream: bytes in, hidden states and integers out (spec chapter 6).
///
/// Call order: :meth:`push` or :meth:`push_message` as input comes, each followed by :meth:`events`, or :meth:`poll`
/// until it needs more; :meth:`finish` at the end of input. An error of the stream is final: every later call raises it
/// again, and everything handed out before it stays valid. A signal during a poll, such as Ctrl-C, loses no event: the
/// next poll gives it. One call at a time may use a decoder, from any thread; polls release the interpreter's lock.
///
/// ::
///
///     decoder.push(received)
///     for event in decoder.events():
///         if isinstance(event, midspan.Frames):
///             second_half(event.hidden)
///
/// The defaults of all limits are those for a peer that nobody trusts (spec 7.2). Limits are arguments of their own, where
/// Rust and C have a struct.
///
/// Args:
///     codec: The codec model.
///     models: Further models that the stream may name, in its header or in a model switch; none by default.
///     binding: ``"byte_stream"``, the default, which reads files too, as ``"file"`` does; or ``"message"``.
///     max_frames: Most frames of a chunk, 256 by default, 2^20 at most.
///     max_chunk_bytes: Most bytes of a chunk's body, 4 MiB by default, 2^30 at most.
///     max_rewind: Most frames that a rewind goes back, 1,024 by default, 2^20 at most.
///     target_horizon: Most frames that may wait for their target, 1,024 by default, 28,672 at most.
///     early_bytes: Most bytes of early targets that are kept, and of datagrams that wait to be polled; 1 MiB by default.
///     memory_limit: Bytes that the session may hold, 64 MiB by default. A chunk that would exceed it is refused before
///         anything is set aside for it. Input that was pushed and not yet polled does not count: the caller controls it.
///     frames_per_poll: Most frames that one poll decodes, 64 by default. A longer chunk takes several polls, each but
///         the last with a :class:`Working`.
///     host_digest: SHA-256 of the host model's weights (spec 4.7), 32 bytes: a header that states another one, or none,
///         is refused. None, the default, accepts any.
///     keep_integers: Whether :class:`Frames` and :class:`ExactFrame` bring W and Y; False by default, unlike in Rust and
///         C, because copies take time and few callers want them. Events of layered mode always bring theirs.
///     threads: Threads for batches, the caller's included; 1 by default. The values stay the same.
///
/// Raises:
///     CallerError: INVALID_ARGUMENT.
#[pyclass(frozen, module = "midspan")]
pub(crate) struct Decoder {
    pub(crate) session: Session<midspan::codec::Decoder>,
    /// An event that a poll could not hand over, because a signal's handler raised at its end.
    kept: Mutex<Option<Py<PyAny>>>,
}

/// The settings that all ways to a decoder share.
struct Settings {
    config: DecoderConfig,
    models: Vec<Arc<midspan::codec::Codec>>,
    keep_integers: bool,
    threads: usize,
}

impl Settings {
    fn new(
        models: Option<Items<Bound<'_, Codec>>>,
        binding: &str,
        (max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes): (u32, u32, u32, u32, u32),
        memory_limit: usize,
        frames_per_poll: usize,
        host_digest: Option<&[u8]>,
        keep_integers: bool,
        threads: usize,
    ) -> Result<Self, Failure> {
        let limits = config::limits(max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes);
        let config = DecoderConfig::default()
            .binding(config::binding(binding)?.0)
            .limits(limits)
            .memory_limit(memory_limit)
            .frames_per_poll(frames_per_poll)
            .host_digest(config::optional_digest("host_digest", host_digest)?);
        let models = models.iter().flat_map(|models| &models.0).map(|model| model.get().share()).collect();
        Ok(Self { config, models, keep_integers, threads })
    }

    /// Applies what a decoder does not take when it is made.
    fn finish(&self, mut decoder: midspan::codec::Decoder) -> Decoder {
        decoder.keep_integers(self.keep_integers);
        decoder.set_executor(Arc::new(Threads::new(self.threads)));
        Decoder { session: Session::new(decoder), kept: Mutex::default() }
    }
}

impl Decoder {
    fn read<R>(&self, read: impl FnOnce(&midspan::codec::Decoder) -> R) -> PyResult<R> {
        Ok(self.session.call(|decoder| Ok(read(decoder)))?)
    }

    /// The event that is kept. Another thread may not take it in the middle of a call of its own.
    pub(crate) fn kept<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.kept.lock().ok().and_then(|mut kept| kept.take()).map(|event| event.into_bound(py))
    }

    /// Keeps an event for the next poll.
    pub(crate) fn keep(&self, event: &Bound<'_, PyAny>) {
        if let Ok(mut kept) = self.kept.lock() {
            *kept = Some(event.clone().unbind());
        }
    }

    fn is_kept(&self) -> bool {
        self.kept.lock().is_ok_and(|kept| kept.is_some())
    }

    /// The next event, or `None` and what there is instead of one.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<(Option<Bound<'py, PyAny>>, DecoderPoll)> {
        let kept = match self.is_kept() {
            // A closed session, and one in a call, have no events.
            true => self.session.call(|_| Ok(self.kept(py)))?,
            false => None,
        };
        let event = match kept {
            Some(event) => event,
            None => match self.session.detached(py, |decoder| Ok(decoder.poll()?))? {
                DecoderPoll::Event(event) => event_object(py, event)?,
                other => return Ok((None, other)),
            },
        };
        // Python would run the handlers right after the call, and drop what it gave.
        py.check_signals().inspect_err(|_| self.keep(&event))?;
        Ok((Some(event), DecoderPoll::NeedMore))
    }
}

#[pymethods]
impl Decoder {
    #[new]
    #[pyo3(signature = (
        codec, *, models = None, binding = "byte_stream", max_frames = 256, max_chunk_bytes = 4194304,
        max_rewind = 1024, target_horizon = 1024, early_bytes = 1048576, memory_limit = 67108864, frames_per_poll = 64,
        host_digest = None, keep_integers = false, threads = 1
    ))]
    fn new(
        codec: &Bound<'_, Codec>,
        models: Option<Items<Bound<'_, Codec>>>,
        binding: &str,
        max_frames: u32,
        max_chunk_bytes: u32,
        max_rewind: u32,
        target_horizon: u32,
        early_bytes: u32,
        memory_limit: usize,
        frames_per_poll: usize,
        host_digest: Option<Buffer<'_>>,
        keep_integers: bool,
        threads: usize,
    ) -> PyResult<Self> {
        let limits = (max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes);
        let digest = host_digest.as_deref();
        let settings =
            Settings::new(models, binding, limits, memory_limit, frames_per_poll, digest, keep_integers, threads)?;
        let codec = codec.get().share();
        Ok(guard(|| {
            let mut decoder = midspan::codec::Decoder::new(codec, settings.config.clone())?;
            settings.models.iter().for_each(|model| decoder.add_model(Arc::clone(model)));
            Ok(settings.finish(decoder))
        })?)
    }

    /// A decoder that begins at a context reset or model switch in the middle of a stream (spec 6.6). There is no event
    /// for the header.
    ///
    /// Args:
    ///     codec: The codec model; the one in force at that place must be this or one of ``models``.
    ///     header: The stream's first bytes, which must include the stream header; in the message binding its first
    ///         message.
    ///     offset: The place of the first byte that will be pushed, from the first byte of the stream.
    ///     index: The absolute index of the next frame there, if a seek index gave it; None by default.
    ///     The others: As for a new decoder.
    ///
    /// Raises:
    ///     StreamError: 101 to 210, TRUNCATED for a header that is cut.
    ///     ModelError: WRONG_HOST.
    #[classmethod]
    #[pyo3(signature = (
        codec, header, offset, index = None, *, models = None, binding = "byte_stream", max_frames = 256,
        max_chunk_bytes = 4194304, max_rewind = 1024, target_horizon = 1024, early_bytes = 1048576,
        memory_limit = 67108864, frames_per_poll = 64, host_digest = None, keep_integers = false, threads = 1
    ))]
    fn join(
        _class: &Bound<'_, PyType>,
        codec: &Bound<'_, Codec>,
        header: &Bound<'_, PyAny>,
        offset: u64,
        index: Option<u64>,
        models: Option<Items<Bound<'_, Codec>>>,
        binding: &str,
        max_frames: u32,
        max_chunk_bytes: u32,
        max_rewind: u32,
        target_horizon: u32,
        early_bytes: u32,
        memory_limit: usize,
        frames_per_poll: usize,
        host_digest: Option<Buffer<'_>>,
        keep_integers: bool,
        threads: usize,
    ) -> PyResult<Self> {
        let limits = (max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes);
        let digest = host_digest.as_deref();
        let settings =
            Settings::new(models, binding, limits, memory_limit, frames_per_poll, digest, keep_integers, threads)?;
        let (codec, header, point) = (codec.get().share(), bytes_of(header)?, JoinPoint { offset, index });
        Ok(guard(|| {
            let (header, _) = header_of(header.as_bytes(), Some(settings.config.binding))?;
            let mut decoder = midspan::codec::Decoder::join(codec, settings.config.clone(), header, point)?;
            settings.models.iter().for_each(|model| decoder.add_model(Arc::clone(model)));
            Ok(settings.finish(decoder))
        })?)
    }

    /// Restores the decoder that :meth:`save` wrote, in this process or another. The limits must allow what the stream
    /// declared.
    ///
    /// Args:
    ///     codec: The codec model; the one that was in force must be this or one of ``models``.
    ///     saved: What :meth:`save` gave.
    ///     The others: As for a new decoder; they are not saved.
    ///
    /// Raises:
    ///     CallerError: WRONG_MODEL with the fingerprint of the right one as ``found``; SAVED_SESSION for bytes that are
    ///         damaged, of another version, or saved under other limits.
    ///     ResourceError: MEMORY_LIMIT.
    #[classmethod]
    #[pyo3(signature = (
        codec, saved, *, models = None, binding = "byte_stream", max_frames = 256, max_chunk_bytes = 4194304,
        max_rewind = 1024, target_horizon = 1024, early_bytes = 1048576, memory_limit = 67108864, frames_per_poll = 64,
        host_digest = None, keep_integers = false, threads = 1
    ))]
    fn restore(
        _class: &Bound<'_, PyType>,
        codec: &Bound<'_, Codec>,
        saved: &Bound<'_, PyAny>,
        models: Option<Items<Bound<'_, Codec>>>,
        binding: &str,
        max_frames: u32,
        max_chunk_bytes: u32,
        max_rewind: u32,
        target_horizon: u32,
        early_bytes: u32,
        memory_limit: usize,
        frames_per_poll: usize,
        host_digest: Option<Buffer<'_>>,
        keep_integers: bool,
        threads: usize,
    ) -> PyResult<Self> {
        let limits = (max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes);
        let digest = host_digest.as_deref();
        let settings =
            Settings::new(models, binding, limits, memory_limit, frames_per_poll, digest, keep_integers, threads)?;
        let (codec, saved) = (codec.get().share(), bytes_of(saved)?);
        Ok(guard(|| {
            let (models, config) = (&settings.models, settings.config.clone());
            let decoder = midspan::codec::Decoder::restore(codec, models, config, saved.as_bytes())?;
            Ok(settings.finish(decoder))
        })?)
    }

    /// The session as bytes, input not yet polled included, for :meth:`restore`. Their form belongs to this version of
    /// the library.
    ///
    /// Raises:
    ///     CallerError: NOT_AVAILABLE while there are events to be polled.
    ///     Error: The stream's, if it had one.
    fn save<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let saved = self.session.detached(py, |decoder| match self.is_kept() {
            true => Err(Failure::Caller(ErrorKind::NotAvailable, String::from("an event has to be polled first"))),
            false => Ok(decoder.save()?),
        })?;
        Ok(PyBytes::new(py, &saved))
    }

    /// A second decoder that goes on from the same place. ``copy.copy`` does the same.
    fn fork(&self, py: Python<'_>) -> PyResult<Self> {
        let session = Session::new(self.session.detached(py, |decoder| Ok(decoder.clone()))?);
        let kept = self.kept.lock().ok().and_then(|kept| kept.as_ref().map(|event| event.clone_ref(py)));
        Ok(Self { session, kept: Mutex::new(kept) })
    }

    fn __copy__(&self, py: Python<'_>) -> PyResult<Self> {
        self.fork(py)
    }

    /// Frees the session. Every later call raises AFTER_END; a second ``close`` does nothing.
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

    /// Adds a model that the stream may name, in its header or in a model switch.
    fn add_model(&self, codec: &Bound<'_, Codec>) -> PyResult<()> {
        let codec = codec.get().share();
        Ok(self.session.call(|decoder| {
            decoder.add_model(codec);
            Ok(())
        })?)
    }

    /// Hands in bytes of a byte stream or file, cut anywhere. They are copied, and no limit holds for them: poll before
    /// more is pushed.
    ///
    /// Args:
    ///     data: ``bytes``, or any object with a buffer.
    ///
    /// Raises:
    ///     Error: The stream's, if it had one.
    ///     CallerError: AFTER_END after :meth:`finish`; NOT_AVAILABLE in the message binding.
    fn push(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = bytes_of(data)?;
        Ok(self.session.call(|decoder| Ok(decoder.push(data.as_bytes())?))?)
    }

    /// Hands in one message, whole; an empty one is skipped.
    ///
    /// Raises:
    ///     As :meth:`push`, and CallerError NOT_AVAILABLE in a byte stream.
    fn push_message(&self, message: &Bound<'_, PyAny>) -> PyResult<()> {
        let message = bytes_of(message)?;
        Ok(self.session.call(|decoder| Ok(decoder.push_message(message.as_bytes())?))?)
    }

    /// Hands in a datagram, which should be one message of class ``"droppable"``: in both bindings, at any time, also
    /// after :meth:`finish`. Any bytes are allowed: each datagram that is not empty gives one event, and none ends the
    /// session.
    ///
    /// Raises:
    ///     Error: The stream's, if it had one.
    fn push_datagram(&self, datagram: &Bound<'_, PyAny>) -> PyResult<()> {
        let datagram = bytes_of(datagram)?;
        Ok(self.session.call(|decoder| Ok(decoder.push_datagram(datagram.as_bytes())?))?)
    }

    /// Says that no more input comes: an unfinished stream is an error from then on, instead of a wait.
    fn finish(&self) -> PyResult<()> {
        Ok(self.session.call(|decoder| {
            decoder.finish();
            Ok(())
        })?)
    }

    /// What happened next: one of the events, :class:`NeedMore` or :class:`End`.
    ///
    /// Raises:
    ///     StreamError, ModelError, ResourceError: The stream's first error, at every later call again.
    ///     CallerError: TARGET_OVERDUE, WRONG_SIDE_INDICES: these are not final. Conceal, or give what is wanted, and
    ///         poll again.
    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.next(py)? {
            (Some(event), _) => Ok(event),
            (None, other) => idle_object(py, &other),
        }
    }

    /// An iterator of the events up to the place where more input is needed, or to the end; or up to a
    /// :class:`SideWanted` or :class:`TargetsOverdue` that nobody answered before the next step. Each step is a poll, and
    /// raises what that raises otherwise. Handle each event in the loop: a list of them is lost if a later step raises.
    /// Calls of the decoder between two steps are allowed.
    fn events(this: Bound<'_, Self>) -> Events {
        Events { decoder: this.unbind(), asked: AtomicBool::new(false) }
    }

    fn __iter__(this: Bound<'_, Self>) -> Events {
        Self::events(this)
    }

    /// Gives the side indices that :class:`SideWanted` asks for, one for each of its frames. Poll again afterwards.
    ///
    /// Args:
    ///     indices: Integers of any size, [T]: an array, a tensor or a sequence. V, the model's ``side_vocabulary``, says
    ///         that a frame has none; of a token that the model does not know, give ``min(token, V)``.
    ///
    /// Raises:
    ///     CallerError: WRONG_SIDE_INDICES for another number of indices, for one above V or below 0, or if no chunk
    ///         waits for any. Nothing changes then.
    ///     Error: The stream's, if it had one.
    fn give_side(&self, indices: &Bound<'_, PyAny>) -> PyResult<()> {
        let indices = side_indices(indices)?;
        Ok(self.session.call(|decoder| Ok(decoder.give_side(&indices)?))?)
    }

    /// The frames whose side indices a chunk waits for: the absolute index of the first one, and how many. None if no
    /// chunk waits for any.
    #[getter]
    fn wanted_side(&self) -> PyResult<Option<(u64, usize)>> {
        self.read(midspan::codec::Decoder::wanted_side)
    }

    /// Conceals pending frames with the network's means: one :class:`Targets` with them follows. Elements that came in
    /// parts keep their values.
    ///
    /// Args:
    ///     index: Absolute index of the first frame.
    ///     count: How many; 1 by default.
    ///
    /// Raises:
    ///     CallerError: FRAME_NOT_PENDING unless all of them are pending. Nothing changes then.
    ///     Error: The stream's, if it had one.
    #[pyo3(signature = (index, count = 1))]
    fn conceal(&self, py: Python<'_>, index: u64, count: u64) -> PyResult<()> {
        // More frames than memory can hold are not pending.
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Ok(self.session.detached(py, |decoder| Ok(decoder.conceal(index, count)?))?)
    }

    /// The elements of a pending frame that have not come, as ranges in ascending order: one of all elements if no part
    /// came. None if the frame is not pending.
    fn missing_elements<'py>(&self, py: Python<'py>, index: u64) -> PyResult<Option<Vec<Bound<'py, PyRange>>>> {
        let Some(missing) = self.read(|decoder| decoder.missing_elements(index))? else { return Ok(None) };
        let place = |place: usize| isize::try_from(place).unwrap_or(isize::MAX);
        let range = |range: &std::ops::Range<usize>| PyRange::new(py, place(range.start), place(range.end));
        missing.iter().map(range).collect::<PyResult<_>>().map(Some)
    }

    /// Absolute index of the oldest frame whose target is pending, in layered mode; None if there is none.
    #[getter]
    fn oldest_pending(&self) -> PyResult<Option<u64>> {
        self.read(midspan::codec::Decoder::oldest_pending)
    }

    /// The codec model in force.
    #[getter]
    fn codec(&self) -> PyResult<Codec> {
        self.read(|decoder| Arc::clone(decoder.engine()).into())
    }

    /// Absolute index of the next frame.
    #[getter]
    fn next_index(&self) -> PyResult<u64> {
        self.read(midspan::codec::Decoder::next_index)
    }

    /// Absolute index before which digests confirmed W and Y of every frame.
    #[getter]
    fn confirmed_index(&self) -> PyResult<u64> {
        self.read(midspan::codec::Decoder::confirmed_index)
    }

    /// Absolute index before which digests confirmed W of every frame: from there the encoder can go on.
    #[getter]
    fn resume_index(&self) -> PyResult<u64> {
        self.read(midspan::codec::Decoder::resume_index)
    }

    /// Bytes that the session holds in addition to its models.
    #[getter]
    fn memory_bytes(&self) -> PyResult<usize> {
        self.read(midspan::codec::Decoder::memory_bytes)
    }

    fn __repr__(&self) -> String {
        match self.session.call(|decoder| Ok((decoder.next_index(), decoder.confirmed_index()))) {
            Ok((next, confirmed)) => format!("<midspan.Decoder: next frame {next}, confirmed before {confirmed}>"),
            Err(failure) => format!("<midspan.Decoder: {failure}>"),
        }
    }
}

/// The events of a decoder up to the place where more input is needed, or an answer.
#[pyclass(frozen, module = "midspan")]
pub(crate) struct Events {
    decoder: Py<Decoder>,
    /// Whether the last event asked for something.
    asked: AtomicBool,
}

/// Whether an error says that a request was not answered.
fn is_unanswered(error: &PyErr, py: Python<'_>) -> bool {
    let number = error.value(py).getattr("number").and_then(|number| number.extract::<u16>());
    let kinds = [ErrorKind::TargetOverdue.code(), ErrorKind::WrongSideIndices.code()];
    number.is_ok_and(|number| kinds.contains(&number))
}

#[pymethods]
impl Events {
    fn __iter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let asked = self.asked.swap(false, Ordering::Relaxed);
        match self.decoder.get().next(py) {
            Ok((Some(event), _)) => {
                let name = event.get_type().name()?;
                self.asked.store(name == "SideWanted" || name == "TargetsOverdue", Ordering::Relaxed);
                Ok(Some(event))
            }
            Ok((None, _)) => Ok(None),
            // Nobody answered: that is no error of the stream, and would take a list of the events with it.
            Err(error) if asked && is_unanswered(&error, py) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
