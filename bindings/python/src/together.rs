//! Many streams in one call.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, TryLockError};

use midspan::adapter::Threads;
use midspan::codec::{DecoderPoll, Input, Push};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::array::{Floats, Integers};
use crate::decoder::Decoder;
use crate::encoder::{Encoder, other_width, twice};
use crate::error::Failure;
use crate::event::event_object;
use crate::session::guard;

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
    together: Mutex<midspan::codec::Together>,
}

/// The sessions of a call, none of them twice.
fn distinct<T: pyo3::PyClass>(sessions: &[Bound<'_, T>], what: &str) -> Result<(), Failure> {
    let mut seen = HashSet::with_capacity(sessions.len());
    match sessions.iter().all(|session| seen.insert(session.as_ptr())) {
        true => Ok(()),
        false => Err(twice(what)),
    }
}

impl Together {
    fn with<R>(&self, call: impl FnOnce(&mut midspan::codec::Together) -> Result<R, Failure>) -> Result<R, Failure> {
        guard(|| match self.together.try_lock() {
            Ok(mut together) => call(&mut together),
            Err(TryLockError::WouldBlock) => Err(Failure::Busy),
            Err(TryLockError::Poisoned(_)) => Err(Failure::Poisoned),
        })
    }

    /// Pushes one input a stream, while other threads run Python.
    fn push(&self, py: Python<'_>, encoders: &[Bound<'_, Encoder>], inputs: &[Input<'_>]) -> PyResult<()> {
        let sessions: Vec<&Encoder> = encoders.iter().map(|encoder| encoder.get()).collect();
        let outcomes = py.detach(|| {
            self.with(|together| {
                let mut locked = Vec::with_capacity(sessions.len());
                for encoder in sessions {
                    locked.push(encoder.session.lock()?);
                }
                let encoders = locked.iter_mut().filter_map(|encoder| encoder.get());
                let pushes = encoders.zip(inputs).map(|(encoder, input)| Push { encoder, input: *input });
                Ok(together.push(&mut pushes.collect::<Vec<_>>()))
            })
        })?;
        let failed = outcomes.into_iter().enumerate().filter_map(|(row, outcome)| Some((row, outcome.err()?)));
        let errors = PyDict::new(py);
        let mut first = None;
        for (row, error) in failed {
            let error = Failure::from(error).exception(py)?;
            error.setattr("row", row)?;
            errors.set_item(row, &error)?;
            first.get_or_insert(error);
        }
        match first {
            Some(first) => {
                first.setattr("errors", errors)?;
                Err(PyErr::from_value(first))
            }
            None => Ok(()),
        }
    }
}

/// E of the encoders' models, which must be one.
fn width(encoders: &[Bound<'_, Encoder>]) -> Result<usize, Failure> {
    let mut all = None;
    for encoder in encoders {
        let width = encoder.get().session.call(|encoder| Ok(encoder.codec().model().hidden_width()))?;
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
        Self { together: Mutex::new(midspan::codec::Together::new(Arc::new(Threads::new(threads)))) }
    }

    /// Codes the next frames of many streams: row b of ``hidden`` goes to ``encoders[b]``.
    ///
    /// Args:
    ///     encoders: The sessions, each once.
    ///     hidden: [B, T, E], with T of 1 or more; otherwise as for :meth:`Encoder.push_hidden`. Rows of float32 are read
    ///         where they are, if the batch is contiguous.
    ///
    /// Raises:
    ///     Error: A row failed as :meth:`Encoder.push_hidden` does: the first such row's error, with its ``row``, and the
    ///         ``errors`` of all rows that failed. All other rows were coded.
    ///     TypeError, CallerError: The batch has another dtype or shape, or is on a device, or a session is closed, busy or
    ///         given twice. Nothing was coded.
    fn push_hidden(
        &self,
        py: Python<'_>,
        encoders: Vec<Bound<'_, Encoder>>,
        hidden: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        distinct(&encoders, "encoders")?;
        let hidden = Floats::new(hidden, "hidden")?;
        hidden.check_streams(encoders.len(), width(&encoders)?)?;
        let values = hidden.values()?;
        let values: Cow<'_, [f32]> = py.detach(|| values.into_f32())?;
        let inputs: Vec<Input<'_>> = split(&values, encoders.len()).map(Input::Hidden).collect();
        self.push(py, &encoders, &inputs)
    }

    /// Codes target integers of many streams: row b of ``y`` goes to ``encoders[b]``.
    ///
    /// Args:
    ///     encoders: The sessions, each once.
    ///     y: int16, [B, T, E], with T of 1 or more.
    ///
    /// Raises:
    ///     As :meth:`push_hidden`.
    fn push_y(&self, py: Python<'_>, encoders: Vec<Bound<'_, Encoder>>, y: &Bound<'_, PyAny>) -> PyResult<()> {
        distinct(&encoders, "encoders")?;
        let y = Integers::new(y, "y")?;
        y.check_streams(encoders.len(), width(&encoders)?)?;
        let values = y.values()?;
        let inputs: Vec<Input<'_>> = split(&values, encoders.len()).map(Input::Y).collect();
        self.push(py, &encoders, &inputs)
    }

    /// What happened next in each of many streams, in their order: what :meth:`Decoder.poll` gives, or, for a stream that
    /// failed, the error that it would raise, as a value, so that nothing of the others is lost.
    ///
    /// Args:
    ///     decoders: The sessions, each once.
    ///
    /// Raises:
    ///     CallerError: A session is closed, busy or given twice. Nothing was polled.
    fn poll<'py>(&self, py: Python<'py>, decoders: Vec<Bound<'py, Decoder>>) -> PyResult<Bound<'py, PyList>> {
        distinct(&decoders, "decoders")?;
        let sessions: Vec<&Decoder> = decoders.iter().map(|decoder| decoder.get()).collect();
        let outcomes: Vec<Result<DecoderPoll, _>> = py.detach(|| {
            self.with(|together| {
                let mut locked = Vec::with_capacity(sessions.len());
                for decoder in sessions {
                    locked.push(decoder.session.lock()?);
                }
                Ok(together.poll(&mut locked.iter_mut().filter_map(|decoder| decoder.get()).collect::<Vec<_>>()))
            })
        })?;
        let list = PyList::empty(py);
        for (row, outcome) in outcomes.into_iter().enumerate() {
            list.append(match outcome {
                Ok(poll) => event_object(py, poll)?,
                Err(error) => {
                    let error = Failure::from(error).exception(py)?;
                    error.setattr("row", row)?;
                    error
                }
            })?;
        }
        Ok(list)
    }

    /// Bytes of scratch memory, which grows to what the largest step needs.
    #[getter]
    fn memory_bytes(&self) -> PyResult<usize> {
        Ok(self.with(|together| Ok(together.memory_bytes()))?)
    }
}
