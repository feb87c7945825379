//! The events of a decoder as Python's objects.

use midspan::codec::{DecoderEvent, DecoderPoll, TargetRefusal, Verdict};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::array::{list, rows};
use crate::classes::made;
use crate::config::dtype_name;
use crate::header::header_object;

macro_rules! event {
    ($py:expr, $name:literal $(, $field:expr)* $(,)?) => { made!($py, "midspan._events", $name $(, $field)*) };
}

/// What a poll gives that is no event.
pub(crate) fn idle_object<'py>(py: Python<'py>, poll: &DecoderPoll) -> PyResult<Bound<'py, PyAny>> {
    Ok(match poll {
        DecoderPoll::End => event!(py, "End"),
        _ => event!(py, "NeedMore"),
    })
}

/// An event as Python's. Hidden states and integers move into arrays.
pub(crate) fn event_object(py: Python<'_>, event: DecoderEvent) -> PyResult<Bound<'_, PyAny>> {
    Ok(match event {
        DecoderEvent::Opened(header) => event!(py, "Opened", header_object(py, &header)?),
        DecoderEvent::Frames(frames) => {
            let (w, y) = match frames.integers {
                Some(both) => (Some(rows(py, both.w, frames.count)?), Some(rows(py, both.y, frames.count)?)),
                None => (None, None),
            };
            event!(py, "Frames", frames.index, frames.count, rows(py, frames.hidden, frames.count)?, w, y)
        }
        DecoderEvent::HyperPrior(event) => {
            event!(py, "HyperPrior", event.index, event.count, rows(py, event.w, event.count)?)
        }
        DecoderEvent::Targets(event) => {
            let (hidden, y) = (rows(py, event.hidden, event.count)?, rows(py, event.y, event.count)?);
            event!(py, "Targets", event.index, event.count, hidden, y, event.concealed)
        }
        DecoderEvent::TargetPart { index, elements } => event!(py, "TargetPart", index, elements.start, elements.end),
        DecoderEvent::TargetEarly { index, count } => event!(py, "TargetEarly", index, count),
        DecoderEvent::TargetRefused { index, reason } => {
            let reason = match reason {
                TargetRefusal::Late => "late",
                TargetRefusal::Damaged => "damaged",
                TargetRefusal::MemoryLimit => "no_memory",
                TargetRefusal::NoRoom => "no_room",
                _ => "other",
            };
            event!(py, "TargetRefused", index, reason)
        }
        DecoderEvent::TargetsOverdue { index, count } => event!(py, "TargetsOverdue", index, count),
        DecoderEvent::ExactFrame(event) => {
            let frame = event.frame;
            let (w, y) = match frame.integers {
                Some(both) => (Some(rows(py, both.w, 1)?), Some(rows(py, both.y, 1)?)),
                None => (None, None),
            };
            let (hidden, data) = (rows(py, frame.hidden, 1)?, PyBytes::new(py, &event.hidden));
            event!(py, "ExactFrame", frame.index, hidden, w, y, dtype_name(event.dtype), data)
        }
        DecoderEvent::Working { index, done, count } => event!(py, "Working", index, count, done),
        DecoderEvent::Verdict { from, to, verdict } => {
            let verdict = match verdict {
                Verdict::WConfirmed => "w_confirmed",
                Verdict::YConfirmed => "y_confirmed",
                // Nothing else may be taken for a confirmation.
                _ => "y_unverifiable",
            };
            event!(py, "Verdict", from, to, verdict)
        }
        DecoderEvent::TargetsDropped { index, count } => event!(py, "TargetsDropped", index, count),
        DecoderEvent::Reset { index } => event!(py, "Reset", index),
        DecoderEvent::Rewound { index } => event!(py, "Rewound", index),
        DecoderEvent::Quality(quality) => event!(py, "Quality", quality),
        DecoderEvent::Model { fingerprint, index } => event!(py, "Model", index, PyBytes::new(py, &fingerprint)),
        DecoderEvent::SideWanted { index, count } => event!(py, "SideWanted", index, count),
        DecoderEvent::SideIndices { index, indices } => {
            event!(py, "SideIndices", index, indices.len(), list(py, indices))
        }
        DecoderEvent::Extension { id, data } => event!(py, "Extension", id, PyBytes::new(py, &data)),
        DecoderEvent::Ended { index, frames_coded } => event!(py, "Ended", index, frames_coded),
        _ => event!(py, "Other"),
    })
}
