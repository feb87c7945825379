//! Encoder sessions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use midspan::adapter::Threads;
use midspan::codec::EncoderConfig;
use midspan::engine::Integers as Both;
use midspan::error::{Error, ErrorKind};
use midspan::stream::Message;
use numpy::PyArray2;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple, PyType};

use crate::array::{Given, Items, rows, side_indices};
use crate::classes::made;
use crate::codec::{Buffer, Codec, bytes_of};
use crate::config;
use crate::error::Failure;
use crate::session::{Session, guard};

/// Encodes one stream: hidden states or integers in, bytes out (spec chapter 6).
///
/// Call order: any of the pushes and control calls, then :meth:`end`. Output can be taken at any time, with
/// :meth:`take_bytes` or, in the message binding, :meth:`pop_message` and :meth:`take_messages`. A call that fails
/// changes nothing, unless it says so. One call at a time may use an encoder, from any thread; calls that code release
/// the interpreter's lock. A signal, such as Ctrl-C, is handled after the call: cut large inputs into pushes.
///
/// Hidden states are float32, float16 or bfloat16, as a NumPy array or as any object with ``__dlpack__`` whose memory is
/// the CPU's, such as a ``torch.Tensor``: [T, E], [E] for one frame, or [1, T, E]. Values of float32 are read where they
/// are if they are contiguous, row by row. The other types are converted once, without loss. Do not write to them in
/// another thread during the call.
///
/// Args:
///     codec: The codec model.
///     identity: Eight bytes that no other stream has, so that bytes spliced in from another stream are found (spec
///         2.2). None, the default, takes them from ``os.urandom``. ``b""`` means no identity: only for transports that
///         keep streams apart, and where equal input must give equal bytes.
///     mode: ``"joined"``, the default, or ``"layered"`` (spec 6.1, 6.5).
///     binding: ``"byte_stream"``, the default; ``"message"``; or ``"file"``, a byte stream with a seek index.
///     check: Bytes of the check of each chunk of frames: 1 by default, 0 or 2. 0 only for transports that find damage
///         themselves, as TLS and QUIC do.
///     quality: Quality index at the start, 0 by default.
///     host_digest: SHA-256 of the host model's weights (spec 4.7), 32 bytes, if the decoder is to compare it.
///     max_frames_per_chunk: Most frames of a chunk, 1 to 2^20, 256 by default; larger batches are split.
///     max_chunk_bytes: Most bytes of a chunk's body, 72 to 2^30, 4 MiB by default.
///     max_rewind: How many frames a rewind may go back, 0 to 2^20, 64 by default.
///     target_horizon: Layered mode: how many frames back the oldest frame without a target may be, 1 to 28,672, 1,024 by
///         default.
///     datagram_limit: Layered mode: no message that holds a target is longer than this many bytes, at least 256. None,
///         the default, sets no limit.
///     checkpoint_interval: A checkpoint is sent whenever this many frames were coded since the last one, 256 by default.
///         With 0 only :meth:`checkpoint` sends one.
///     lanes: Lanes of a batch chunk (spec 2.6), 1 to 1,024, 1 by default.
///     rate_weight: Squared quantiser steps given for one bit when Y is chosen (spec 6.8); 0 sends the nearest integers.
///         None, the default, takes the model's own weight.
///     length_offset: The length offset (spec 2.3), 0 to 16,383. None, the default, takes the model's.
///     memory_limit: Bytes that the session may hold, 64 MiB by default: contexts, output not yet taken, and what coding
///         a push takes.
///     clipping: What happens to hidden states more than half a step outside the range of the quality: ``"report"``, the
///         default, clamps and counts them; ``"refuse"`` refuses the push.
///     fields: Optional fields of the stream header: pairs of an even id and bytes, in ascending order of id. None by
///         default.
///     keep_integers: Whether pushes keep W and Y for :attr:`last_integers`; False by default, unlike in Rust and C,
///         because copies take time and few callers want them.
///     track_cost: Whether pushes compute their ideal bits for :attr:`last_cost`; False by default.
///     threads: Threads for batches, the caller's included; 1 by default. The bytes stay the same.
///
/// Raises:
///     CallerError: BAD_CONFIG for a setting out of its range; UNKNOWN_QUALITY; INVALID_ARGUMENT; PREDICTION_LAYERED for
///         layered mode with a model that predicts.
///     ResourceError: MEMORY_LIMIT if the contexts may come to more than ``memory_limit``.
#[pyclass(frozen, module = "midspan")]
pub(crate) struct Encoder {
    pub(crate) session: Session<midspan::codec::Encoder>,
    /// Of the last model switch: E before it, and how many frames were sent before it.
    switched: Mutex<Option<(usize, u64)>>,
    popped: Popped,
}

/// Integers, [T, C] or [T, E].
type Rows<'py> = Bound<'py, PyArray2<i16>>;

impl Encoder {
    fn of(encoder: midspan::codec::Encoder) -> Self {
        Self { session: Session::new(encoder), switched: Mutex::default(), popped: Popped::default() }
    }

    fn read<R>(&self, read: impl FnOnce(&midspan::codec::Encoder) -> R) -> PyResult<R> {
        Ok(self.session.call(|encoder| Ok(read(encoder)))?)
    }

    fn switched(&self) -> Option<(usize, u64)> {
        self.switched.lock().ok().and_then(|switched| *switched)
    }

    fn control(&self, call: impl FnOnce(&mut midspan::codec::Encoder) -> Result<(), Error>) -> PyResult<()> {
        Ok(self.session.call(|encoder| Ok(call(encoder)?))?)
    }
}

/// What a message says, as Python's.
pub(crate) fn message_object<'py>(py: Python<'py>, message: &Message) -> PyResult<Bound<'py, PyAny>> {
    let (data, class) = (PyBytes::new(py, &message.bytes), config::class_name(message.class));
    Ok(made!(py, "midspan._values", "Message", data, class, message.frames.start, message.frames.end))
}

/// Messages that were popped and could not be handed over, because a signal's handler raised at the end of the call.
#[derive(Default)]
pub(crate) struct Popped(Mutex<VecDeque<Message>>);

impl Popped {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Message>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fork(&self) -> Self {
        Self(Mutex::new(self.lock().clone()))
    }

    /// Refuses to save a session of which messages are kept here.
    pub(crate) fn check_empty(&self) -> Result<(), Failure> {
        match self.lock().is_empty() {
            true => Ok(()),
            false => Err(Failure::Caller(ErrorKind::NotAvailable, String::from("messages have to be taken first"))),
        }
    }

    /// The next message: one that is kept, or else what `pop` gives.
    pub(crate) fn pop(&self, pop: impl FnOnce() -> Result<Option<Message>, Error>) -> Result<Option<Message>, Failure> {
        match self.lock().pop_front() {
            Some(message) => Ok(Some(message)),
            None => Ok(pop()?),
        }
    }

    pub(crate) fn first(&self) -> Option<Message> {
        self.lock().front().cloned()
    }

    /// All messages, those that are kept first.
    pub(crate) fn all(&self, mut pop: impl FnMut() -> Result<Option<Message>, Error>) -> Result<Vec<Message>, Failure> {
        let mut messages = Vec::new();
        while let Some(message) = self.pop(&mut pop)? {
            messages.push(message);
        }
        Ok(messages)
    }

    /// Messages as a list of Python's. If there is none, because of memory or a signal, they are kept.
    pub(crate) fn list<'py>(&self, py: Python<'py>, messages: Vec<Message>) -> PyResult<Bound<'py, PyList>> {
        let objects = messages.iter().map(|message| message_object(py, message)).collect::<PyResult<Vec<_>>>();
        let list = objects.and_then(|objects| PyList::new(py, objects));
        // Python would run the handlers right after the call, and drop what it gave.
        let list = list.and_then(|list| py.check_signals().map(|()| list));
        list.inspect_err(|_| self.lock().extend(messages))
    }
}

/// Sums as Python's.
fn sent_object(py: Python<'_>, sent: midspan::codec::Sent) -> PyResult<Bound<'_, PyAny>> {
    Ok(made!(
        py,
        "midspan._values",
        "Sent",
        sent.frames,
        sent.w_values,
        sent.y_values,
        sent.clipped,
        sent.escaped,
        sent.payload_bits,
        sent.compared_frames,
        sent.compared_bits,
        sent.expected_bits(),
    ))
}

/// Eight bytes from the operating system.
fn random(py: Python<'_>) -> PyResult<Buffer<'_>> {
    py.import("os")?.call_method1("urandom", (8,))?.extract()
}

#[pymethods]
impl Encoder {
    #[new]
    #[pyo3(signature = (
        codec, *, identity = None, mode = "joined", binding = "byte_stream", check = 1, quality = 0, host_digest = None,
        max_frames_per_chunk = 256, max_chunk_bytes = 4194304, max_rewind = 64, target_horizon = 1024,
        datagram_limit = None, checkpoint_interval = 256, lanes = 1, rate_weight = None, length_offset = None,
        memory_limit = 67108864, clipping = "report", fields = None, keep_integers = false, track_cost = false,
        threads = 1
    ))]
    fn new(
        codec: &Bound<'_, Codec>,
        identity: Option<Buffer<'_>>,
        mode: &str,
        binding: &str,
        check: u32,
        quality: u8,
        host_digest: Option<Buffer<'_>>,
        max_frames_per_chunk: u32,
        max_chunk_bytes: u32,
        max_rewind: u32,
        target_horizon: u32,
        datagram_limit: Option<u32>,
        checkpoint_interval: u32,
        lanes: u16,
        rate_weight: Option<f32>,
        length_offset: Option<u16>,
        memory_limit: usize,
        clipping: &str,
        fields: Option<Items<(u32, Buffer<'_>)>>,
        keep_integers: bool,
        track_cost: bool,
        threads: usize,
    ) -> PyResult<Self> {
        let identity = match identity {
            Some(identity) => identity,
            None => random(codec.py())?,
        };
        let (binding, file) = config::binding(binding)?;
        let config = EncoderConfig::new(config::identity(&identity)?)
            .mode(config::mode(mode)?)
            .binding(binding)
            .file(file)
            .check(config::check(check)?)
            .quality(quality)
            .host_digest(config::optional_digest("host_digest", host_digest.as_deref())?)
            .max_frames_per_chunk(max_frames_per_chunk)
            .max_chunk_bytes(max_chunk_bytes)
            .max_rewind(max_rewind)
            .target_horizon(target_horizon)
            .datagram_limit(datagram_limit)
            .checkpoint_interval(checkpoint_interval)
            .lanes(lanes)
            .rate_weight(rate_weight)
            .length_offset(length_offset)
            .memory_limit(memory_limit)
            .clipping(config::clipping(clipping)?)
            .fields(config::fields(&fields.map_or_else(Vec::new, |fields| fields.0)));
        let codec = codec.get().share();
        let encoder = guard(|| {
            let mut encoder = midspan::codec::Encoder::new(codec, config)?;
            encoder.keep_integers(keep_integers);
            encoder.track_cost(track_cost);
            encoder.set_executor(Arc::new(Threads::new(threads)));
            Ok(encoder)
        })?;
        Ok(Self::of(encoder))
    }

    /// Restores the encoder that :meth:`save` wrote, in this process or another.
    ///
    /// Args:
    ///     codec: The codec model that was in force.
    ///     saved: What :meth:`save` gave.
    ///     memory_limit, keep_integers, track_cost, threads: As for a new encoder; they are not saved.
    ///
    /// Raises:
    ///     CallerError: WRONG_MODEL with the fingerprint of the right one as ``found``; SAVED_SESSION for bytes that are
    ///         damaged or of another version.
    ///     ResourceError: MEMORY_LIMIT.
    #[classmethod]
    #[pyo3(signature = (
        codec, saved, *, memory_limit = 67108864, keep_integers = false, track_cost = false, threads = 1
    ))]
    fn restore(
        _class: &Bound<'_, PyType>,
        codec: &Bound<'_, Codec>,
        saved: &Bound<'_, PyAny>,
        memory_limit: usize,
        keep_integers: bool,
        track_cost: bool,
        threads: usize,
    ) -> PyResult<Self> {
        let (codec, saved) = (codec.get().share(), bytes_of(saved)?);
        let encoder = guard(|| {
            let mut encoder = midspan::codec::Encoder::restore(codec, saved.as_bytes(), memory_limit)?;
            encoder.keep_integers(keep_integers);
            encoder.track_cost(track_cost);
            encoder.set_executor(Arc::new(Threads::new(threads)));
            Ok(encoder)
        })?;
        Ok(Self::of(encoder))
    }

    /// The session as bytes, output not yet taken included, for :meth:`restore`. Their form belongs to this version of
    /// the library.
    fn save<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let saved = self.session.detached(py, |encoder| {
            self.popped.check_empty()?;
            Ok(encoder.save())
        })?;
        Ok(PyBytes::new(py, &saved))
    }

    /// A second encoder that goes on from the same place, with the same output not yet taken. ``copy.copy`` does the
    /// same.
    fn fork(&self, py: Python<'_>) -> PyResult<Self> {
        let fork = Self::of(self.session.detached(py, |encoder| Ok(encoder.clone()))?);
        Ok(Self { switched: Mutex::new(self.switched()), popped: self.popped.fork(), ..fork })
    }

    fn __copy__(&self, py: Python<'_>) -> PyResult<Self> {
        self.fork(py)
    }

    /// Frees the session, with output not yet taken. Every later call raises AFTER_END; a second ``close`` does nothing.
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

    /// Gives the side indices of the frames of the next push, one for each (spec 6.12). If the model takes side indices,
    /// every push needs such a call before it. A second call replaces what the first one gave. They stay until a push
    /// uses them, even if one is refused, and through resets and rewinds; a model switch drops them.
    ///
    /// Args:
    ///     indices: Integers of any size, [T]: an array, a tensor or a sequence. V, the model's ``side_vocabulary``, says
    ///         that a frame has none; of a token that the model does not know, give ``min(token, V)``.
    ///     delivery: Where the decoder has them from: ``"known"``, its own caller, so that they take no bytes; or
    ///         ``"sent"``, the stream, ahead of their frames.
    ///
    /// Raises:
    ///     CallerError: WRONG_SIDE_INDICES for an index above V or below 0, or if the model takes none; AFTER_END.
    ///     ResourceError: MEMORY_LIMIT.
    fn set_side(&self, indices: &Bound<'_, PyAny>, delivery: &str) -> PyResult<()> {
        let (indices, delivery) = (side_indices(indices)?, config::delivery(delivery)?);
        self.control(|encoder| encoder.set_side(&indices, delivery))
    }

    /// Codes hidden states: one frame gives a one-frame chunk, more give batch chunks.
    ///
    /// Values more than half a step outside the range of the quality are clamped and counted (:attr:`last_clipped`), or
    /// refused if ``clipping`` says so.
    ///
    /// Args:
    ///     hidden: [T, E], [E] or [1, T, E], with T of 1 or more; see the class.
    ///
    /// Raises:
    ///     TypeError: It is no array or tensor, or has another dtype.
    ///     CallerError: WRONG_SHAPE; HIDDEN_NOT_FINITE with the ``element`` of the first value that is NaN or infinite;
    ///         HIDDEN_CLIPPED; FLOAT_MODE if the thread's floating-point unit does not round to nearest or flushes
    ///         subnormal numbers, as after ``torch.set_flush_denormal(True)``; NOT_AVAILABLE without an encoder's part in
    ///         the model; WRONG_SIDE_INDICES if :meth:`set_side` gave another number of indices; AFTER_END;
    ///         INVALID_ARGUMENT for a tensor on a device.
    ///     MemoryError: There is none for the conversion.
    ///     BufferError: What the tensor's own library does not give out, such as a tensor that needs gradients: detach it.
    ///     ResourceError: MEMORY_LIMIT: take the output, and call again.
    fn push_hidden(&self, py: Python<'_>, hidden: &Bound<'_, PyAny>) -> PyResult<()> {
        let hidden = Given::hidden(hidden, "hidden")?;
        let view = hidden.view()?;
        Ok(self.session.detached(py, |encoder| {
            view.check_stream(encoder.codec().model().hidden_width())?;
            Ok(encoder.push_hidden(&view.to_f32()?)?)
        })?)
    }

    /// Codes target integers Y; W comes from the network h.
    ///
    /// Args:
    ///     y: int16, [T, E], [E] or [1, T, E].
    ///
    /// Raises:
    ///     As :meth:`push_hidden`, and CallerError VALUE_OUT_OF_RANGE with the ``element`` of a value out of the model's
    ///     range.
    fn push_y(&self, py: Python<'_>, y: &Bound<'_, PyAny>) -> PyResult<()> {
        let y = Given::integers(y, "y")?;
        let view = y.view()?;
        Ok(self.session.detached(py, |encoder| {
            view.check_stream(encoder.codec().model().hidden_width())?;
            Ok(encoder.push_y(&view.to_i16()?)?)
        })?)
    }

    /// Codes target integers Y, with hyper-prior integers W of the caller's choice. The model needs no encoder's part.
    ///
    /// Args:
    ///     y: int16, [T, E], [E] or [1, T, E].
    ///     w: int16, [T, C], [C] or [1, T, C].
    ///
    /// Raises:
    ///     As :meth:`push_y`.
    fn push_integers(&self, py: Python<'_>, y: &Bound<'_, PyAny>, w: &Bound<'_, PyAny>) -> PyResult<()> {
        let (y, w) = (Given::integers(y, "y")?, Given::integers(w, "w")?);
        let (y, w) = (y.view()?, w.view()?);
        Ok(self.session.detached(py, |encoder| {
            y.check_stream(encoder.codec().model().hidden_width())?;
            w.check_stream(encoder.codec().model().hyper_prior_width())?;
            Ok(encoder.push_integers(&y.to_i16()?, &w.to_i16()?)?)
        })?)
    }

    /// Codes one frame as usual and adds its hidden state without loss, in its own type (spec 6.9). Values outside the
    /// range of the quality are counted and never refused.
    ///
    /// Args:
    ///     hidden: [E], [1, E] or [1, 1, E]; see the class.
    ///
    /// Raises:
    ///     As :meth:`push_hidden`, and CallerError CHUNK_TOO_LONG if it does not fit ``max_chunk_bytes``.
    fn push_exact(&self, py: Python<'_>, hidden: &Bound<'_, PyAny>) -> PyResult<()> {
        let hidden = Given::hidden(hidden, "hidden")?;
        let view = hidden.view()?;
        Ok(self.session.detached(py, |encoder| {
            view.check_frame(encoder.codec().model().hidden_width())?;
            let (dtype, bytes) = view.to_le_bytes()?;
            Ok(encoder.push_exact(dtype, &bytes)?)
        })?)
    }

    /// The integers nearest to hidden states, int16 [T, E], without coding them (spec 6.8). Values outside the range are
    /// clamped or refused, as ``clipping`` says. If the rate weight is above 0, :meth:`push_hidden` may send others.
    ///
    /// Raises:
    ///     As :meth:`push_hidden`.
    fn quantise<'py>(&self, py: Python<'py>, hidden: &Bound<'py, PyAny>) -> PyResult<Rows<'py>> {
        let hidden = Given::hidden(hidden, "hidden")?;
        let view = hidden.view()?;
        let (y, width) = self.session.detached(py, |encoder| {
            let width = encoder.codec().model().hidden_width();
            view.check_stream(width)?;
            Ok((encoder.quantise(&view.to_f32()?)?, width))
        })?;
        let frames = y.len().checked_div(width).unwrap_or(0);
        Ok(rows(py, y, frames)?)
    }

    /// Sends a checkpoint: absolute index and both digests.
    ///
    /// Raises:
    ///     CallerError: AFTER_END.
    ///     ResourceError: MEMORY_LIMIT: take the output, and call again.
    fn checkpoint(&self) -> PyResult<()> {
        self.control(midspan::codec::Encoder::checkpoint)
    }

    /// Begins a new context; a decoder may join there.
    ///
    /// Raises:
    ///     As :meth:`checkpoint`.
    fn reset(&self) -> PyResult<()> {
        self.control(midspan::codec::Encoder::reset)
    }

    /// Moves the timeline back, so that the frame with the absolute index ``index`` is the next one again.
    ///
    /// Raises:
    ///     CallerError: REWIND_TARGET for an index before the context or not back at all; REWIND_TOO_FAR; AFTER_END.
    ///     ResourceError: MEMORY_LIMIT.
    fn rewind(&self, index: u64) -> PyResult<()> {
        self.control(|encoder| encoder.rewind(index))
    }

    /// Switches to another quality from the next frame on, in the same context.
    ///
    /// Raises:
    ///     CallerError: UNKNOWN_QUALITY; AFTER_END.
    ///     ResourceError: MEMORY_LIMIT.
    fn set_quality(&self, quality: u8) -> PyResult<()> {
        self.control(|encoder| encoder.set_quality(quality))
    }

    /// Switches to another model, in this quality, from the next frame on, in a new context. The decoder must have it.
    ///
    /// Raises:
    ///     CallerError: UNKNOWN_QUALITY; WRONG_SIDE_FLAG if one model takes side indices and the other does not;
    ///         PREDICTION_LAYERED; BAD_CONFIG; AFTER_END.
    ///     ResourceError: MEMORY_LIMIT.
    fn switch_model(&self, codec: &Bound<'_, Codec>, quality: u8) -> PyResult<()> {
        let codec = codec.get().share();
        self.control(|encoder| {
            let width = encoder.codec().model().hidden_width();
            encoder.switch_model(codec, quality)?;
            let frames = encoder.sent().frames;
            if let Ok(mut switched) = self.switched.lock() {
                // Of two switches without a push between them, the first one counts.
                *switched = switched.filter(|(_, sent)| *sent == frames).or(Some((width, frames)));
            }
            Ok(())
        })
    }

    /// Sends an ignorable extension (spec 2.8).
    ///
    /// Raises:
    ///     CallerError: CHUNK_TOO_LONG; AFTER_END.
    ///     ResourceError: MEMORY_LIMIT.
    fn extension(&self, id: u32, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = bytes_of(data)?;
        self.control(|encoder| encoder.extension(id, data.as_bytes()))
    }

    /// Ends the stream. Take the output afterwards. No memory limit refuses this call.
    ///
    /// Raises:
    ///     CallerError: AFTER_END if it has ended.
    fn end(&self) -> PyResult<()> {
        self.control(midspan::codec::Encoder::end)
    }

    /// Takes the bytes written since the last call, in a byte stream or file. There may be none.
    ///
    /// Raises:
    ///     CallerError: NOT_AVAILABLE in the message binding.
    fn take_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.session.call(|encoder| Ok(encoder.take_bytes()?))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Takes the next message, in the message binding; None if all were taken.
    ///
    /// Raises:
    ///     CallerError: NOT_AVAILABLE in a byte stream or file.
    fn pop_message<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let message = self.session.call(|encoder| self.popped.pop(|| encoder.pop_message()))?;
        message.map(|message| message_object(py, &message)).transpose()
    }

    /// Takes all messages that were written, in order; none if there is none.
    ///
    /// Raises:
    ///     As :meth:`pop_message`.
    fn take_messages<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let messages = self.session.call(|encoder| self.popped.all(|| encoder.pop_message()))?;
        self.popped.list(py, messages)
    }

    /// How many bytes :meth:`take_bytes` would give; 0 in the message binding.
    #[getter]
    fn untaken_bytes(&self) -> PyResult<usize> {
        Ok(self.session.call(|encoder| Ok(encoder.untaken_bytes()))?)
    }

    /// The message that :meth:`pop_message` would give, which stays; None if all were taken, or in a byte stream or file.
    #[getter]
    fn next_message<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let message =
            self.session.call(|encoder| Ok(self.popped.first().or_else(|| encoder.next_message().cloned())))?;
        message.map(|message| message_object(py, &message)).transpose()
    }

    /// The codec model in force.
    #[getter]
    fn codec(&self) -> PyResult<Codec> {
        self.read(|encoder| Arc::clone(encoder.engine()).into())
    }

    /// Absolute index of the next frame.
    #[getter]
    fn next_index(&self) -> PyResult<u64> {
        self.read(midspan::codec::Encoder::next_index)
    }

    /// W, int16 [T, C], and Y, int16 [T, E], of the last push, as copies; None unless the encoder keeps integers.
    #[getter]
    fn last_integers<'py>(&self, py: Python<'py>) -> PyResult<Option<(Rows<'py>, Rows<'py>)>> {
        let (both, width): (Option<Both>, usize) = self.read(|encoder| {
            let frames = encoder.sent().frames;
            // A push before a model switch has the width of the model before it.
            let before = self.switched().filter(|(_, sent)| *sent == frames);
            let width = before.map_or_else(|| encoder.codec().model().hidden_width(), |(width, _)| width);
            (encoder.last_integers().cloned(), width)
        })?;
        let Some(both) = both else { return Ok(None) };
        let frames = both.y.len().checked_div(width).unwrap_or(0);
        Ok(Some((rows(py, both.w, frames)?, rows(py, both.y, frames)?)))
    }

    /// Bits of the last push by the frozen tables; None unless the encoder tracks cost.
    #[getter]
    fn last_cost<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.read(midspan::codec::Encoder::last_cost)? {
            Some(cost) => Ok(Some(made!(py, "midspan._values", "Cost", cost.hyper_prior, cost.target))),
            None => Ok(None),
        }
    }

    /// How many values of the last push were more than half a step outside the range of the quality and were clamped.
    #[getter]
    fn last_clipped(&self) -> PyResult<u64> {
        self.read(midspan::codec::Encoder::last_clipped)
    }

    /// Sums over all frames since the session began. Forks and restored sessions keep counting.
    #[getter]
    fn sent<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        sent_object(py, self.read(midspan::codec::Encoder::sent)?)
    }

    /// The same sums over recent frames of the model in force, on which :attr:`unlike` judges.
    #[getter]
    fn recently_sent<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        sent_object(py, self.read(midspan::codec::Encoder::recently_sent)?)
    }

    /// How what the session sends is unlike what the model in force was made for, by the last few hundred frames: one
    /// sentence. None if it is not, and with fewer than 128 frames.
    #[getter]
    fn unlike(&self) -> PyResult<Option<String>> {
        self.read(|encoder| encoder.unlike().map(|unlike| unlike.to_string()))
    }

    /// Bytes that the session holds in addition to its model.
    #[getter]
    fn memory_bytes(&self) -> PyResult<usize> {
        self.read(midspan::codec::Encoder::memory_bytes)
    }

    fn __repr__(&self) -> String {
        match self.session.call(|encoder| Ok(encoder.next_index())) {
            Ok(index) => format!("<midspan.Encoder: next frame {index}>"),
            Err(failure) => format!("<midspan.Encoder: {failure}>"),
        }
    }
}

/// The error for a session that is given twice.
pub(crate) fn twice(what: &str) -> Failure {
    Failure::Argument(format!("{what} holds the same session twice"))
}

/// The error for another model than that of the other rows.
pub(crate) fn other_width() -> Failure {
    Error::of_call(ErrorKind::WrongShape).with_detail("the sessions' models have different hidden widths").into()
}
