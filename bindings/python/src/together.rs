//! Many streams in one call.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use midspan::adapter::Threads;
use midspan::codec::{DecoderPoll, Input, Push};
use midspan::error::Error;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::array::{Given, Items, View};
use crate::decoder::Decoder;
use crate::encoder::{Encoder, other_width, twice};
use crate::error::Failure;
use crate::event::{event_object, idle_object};
use crate::session::{Locked, Session};

/// Steps many streams in one call: their networks' weights are read once for the next frames of all. Each stream's bytes
/// and values are those that it would have alone. Large networks gain from this.
///
/// It holds scratch memory alone: each call may have any sessions, which can still be used one by one. Those of one
/// :class:`Codec` share the work.
///
/// Args:
///     threads: Threads over which streams are spread, the caller's included; 1 by default.
#[pyclass(frozen, module = "midspan")]
pub(crate) struct Together {
    together: Session<midspan::codec::Together>,
}

/// The sessions of a call, none of them twice.
fn distinct<T: pyo3::PyClass>(sessions: &[Bound<'_, T>], what: &str) -> Result<(), Failure> {
    let mut seen = HashSet::with_capacity(sessions.len());
    match sessions.iter().all(|session| seen.insert(session.as_ptr())) {
        true => Ok(()),
        false => Err(twice(what)),
    }
}

/// What a batch of frames is.
#[derive(Clone, Copy)]
enum Batch {
    Hidden,
    Y,
}

impl Together {
    /// Pushes one row a stream, while other threads run Python.
    fn push(&self, py: Python<'_>, encoders: &[Bound<'_, Encoder>], batch: Batch, view: &View<'_>) -> PyResult<()> {
        let sessions: Vec<&Encoder> = encoders.iter().map(|encoder| encoder.get()).collect();
        let outcomes = self.together.detached(py, |together| {
            let mut locked = sessions.iter().map(|encoder| encoder.session.lock()).collect::<Result<Vec<_>, _>>()?;
            view.check_streams(locked.len(), width(&mut locked)?)?;
            let (hidden, y) = match batch {
                Batch::Hidden => (view.to_f32()?, Cow::Borrowed(&[][..])),
                Batch::Y => (Cow::Borrowed(&[][..]), view.to_i16()?),
            };
            let inputs: Vec<Input<'_>> = match batch {
                Batch::Hidden => split(&hidden, locked.len()).map(Input::Hidden).collect(),
                Batch::Y => split(&y, locked.len()).map(Input::Y).collect(),
            };
            let encoders = locked.iter_mut().filter_map(|encoder| encoder.get());
            let pushes = encoders.zip(inputs).map(|(encoder, input)| Push { encoder, input });
            Ok(together.push(&mut pushes.collect::<Vec<_>>()))
        })?;
        let failed = outcomes.into_iter().enumerate().filter_map(|(row, outcome)| Some((row, outcome.err()?)));
        let errors = PyDict::new(py);
        let mut first = None;
        for (row, error) in failed {
            errors.set_item(row, exception(py, row, error)?)?;
            first.get_or_insert((row, error));
        }
        match first {
            // An exception of its own: one that holds itself would keep the traceback, and the batch with it, until
            // Python looks for circles.
            Some((row, error)) => {
                let first = exception(py, row, error)?;
                first.setattr("errors", errors)?;
                Err(PyErr::from_value(first))
            }
            None => Ok(()),
        }
    }
}

/// The error of a row.
fn exception(py: Python<'_>, row: usize, error: Error) -> PyResult<Bound<'_, PyAny>> {
    let exception = Failure::from(error).exception(py)?;
    exception.setattr("row", row)?;
    Ok(exception)
}

/// E of the encoders' models, which must be one.
fn width(encoders: &mut [Locked<'_, midspan::codec::Encoder>]) -> Result<usize, Failure> {
    let mut all = None;
    for encoder in encoders.iter_mut().filter_map(|encoder| encoder.get()) {
        let width = encoder.codec().model().hidden_width();
        if *all.get_or_insert(width) != width {
            return Err(other_width());
        }
    }
    Ok(all.unwrap_or(0))
}

/// The values of each of `streams` rows.
fn split<T>(values: &[T], streams: usize) -> impl Iterator<Item = &[T]> {
    values.chunks(values.len().checked_div(streams).unwrap_or(0).max(1))
}

#[pymethods]
impl Together {
    #[new]
    #[pyo3(signature = (*, threads = 1))]
    fn new(threads: usize) -> Self {
        Self { together: Session::new(midspan::codec::Together::new(Arc::new(Threads::new(threads)))) }
    }

    /// Codes the next frames of many streams: row b of ``hidden`` goes to ``encoders[b]``.
    ///
    /// Args:
    ///     encoders: The sessions, each once.
    ///     hidden: [B, T, E], with T of 1 or more and the same for all; otherwise as for :meth:`Encoder.push_hidden`. Rows
    ///         of float32 are read where they are, if the batch is contiguous.
    ///
    /// Raises:
    ///     Error: A row failed as :meth:`Encoder.push_hidden` does: the first such row's error, with its ``row``, and the
    ///         ``errors`` of all rows that failed. All other rows were coded.
    ///     MemoryError, BufferError: As in :meth:`Encoder.push_hidden`. Nothing was coded.
    ///     TypeError, CallerError: The batch has another dtype or shape, or is on a device, or a session is closed, busy or
    ///         given twice. Nothing was coded.
    fn push_hidden(
        &self,
        py: Python<'_>,
        encoders: Items<Bound<'_, Encoder>>,
        hidden: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let encoders = encoders.0;
        distinct(&encoders, "encoders")?;
        let hidden = Given::hidden(hidden, "hidden")?;
        self.push(py, &encoders, Batch::Hidden, &hidden.view()?)
    }

    /// Codes target integers of many streams: row b of ``y`` goes to ``encoders[b]``.
    ///
    /// Args:
    ///     encoders: The sessions, each once.
    ///     y: int16, [B, T, E], with T of 1 or more.
    ///
    /// Raises:
    ///     As :meth:`push_hidden`.
    fn push_y(&self, py: Python<'_>, encoders: Items<Bound<'_, Encoder>>, y: &Bound<'_, PyAny>) -> PyResult<()> {
        let encoders = encoders.0;
        distinct(&encoders, "encoders")?;
        let y = Given::integers(y, "y")?;
        self.push(py, &encoders, Batch::Y, &y.view()?)
    }

    /// What happened next in each of many streams, in their order: what :meth:`Decoder.poll` gives, or, for a stream that
    /// failed, the error that it would raise, as a value, so that nothing of the others is lost.
    ///
    /// Args:
    ///     decoders: The sessions, each once.
    ///
    /// Raises:
    ///     CallerError: A session is closed, busy or given twice. Nothing was polled.
    fn poll<'py>(&self, py: Python<'py>, decoders: Items<Bound<'py, Decoder>>) -> PyResult<Bound<'py, PyList>> {
        let decoders = decoders.0;
        distinct(&decoders, "decoders")?;
        let sessions: Vec<&Decoder> = decoders.iter().map(|decoder| decoder.get()).collect();
        let kept: Vec<_> = decoders.iter().map(|decoder| decoder.get().kept(py)).collect();
        let keep = |rows: &[Option<Bound<'py, PyAny>>]| {
            for (event, decoder) in rows.iter().zip(&decoders) {
                event.iter().for_each(|event| decoder.get().keep(event));
            }
        };
        let fresh: Vec<bool> = kept.iter().map(Option::is_none).collect();
        let polled = self.together.detached(py, |together| {
            let mut locked = sessions.iter().map(|decoder| decoder.session.lock()).collect::<Result<Vec<_>, _>>()?;
            let rows = locked.iter_mut().zip(&fresh).filter_map(|(row, fresh)| row.get().filter(|_| *fresh));
            Ok(together.poll(&mut rows.collect::<Vec<_>>()))
        });
        let mut polled = polled.inspect_err(|_| keep(&kept))?.into_iter();
        // Nothing of the events is lost if a handler raises, here or while an exception is made, which runs Python.
        let (mut events, mut outcomes, mut raised) = (Vec::new(), Vec::new(), Ok(()));
        for (row, kept) in kept.into_iter().enumerate() {
            let event = match kept {
                Some(event) => Ok((event, true)),
                None => match polled.next() {
                    Some(Ok(DecoderPoll::Event(event))) => event_object(py, event).map(|event| (event, true)),
                    Some(Err(error)) => exception(py, row, error).map(|error| (error, false)),
                    Some(Ok(other)) => idle_object(py, &other).map(|idle| (idle, false)),
                    None => idle_object(py, &DecoderPoll::NeedMore).map(|idle| (idle, false)),
                },
            };
            match event {
                Ok((object, is_event)) => {
                    events.push(is_event.then(|| object.clone()));
                    outcomes.push(object);
                }
                Err(error) => {
                    events.push(None);
                    raised = Err(error);
                }
            }
        }
        raised.and_then(|()| py.check_signals()).inspect_err(|_| keep(&events))?;
        PyList::new(py, outcomes)
    }

    /// Bytes of scratch memory, which grows to what the largest step needs.
    #[getter]
    fn memory_bytes(&self) -> PyResult<usize> {
        Ok(self.together.call(|together| Ok(together.memory_bytes()))?)
    }
}
