//! The events of a decoder as JavaScript's objects.

use js_sys::{Float32Array, Int16Array, Uint32Array};
use midspan::codec::{DecoderEvent, DecoderPoll, TargetRefusal, Verdict};
use midspan::engine::Integers;
use wasm_bindgen::JsValue;

use crate::array::{byte_array, number};
use crate::config::dtype_name;
use crate::error::Failure;
use crate::header::header_object;
use crate::number::{count, exact};
use crate::objects;

/// W and Y, where they were kept.
fn both(integers: Option<&Integers>) -> (Option<Int16Array>, Option<Int16Array>) {
    let values = |values: &[i16]| Int16Array::from(values);
    (integers.map(|both| values(&both.w)), integers.map(|both| values(&both.y)))
}

/// What a poll gave, as JavaScript's.
pub(crate) fn poll_object(poll: DecoderPoll) -> Result<JsValue, Failure> {
    match poll {
        DecoderPoll::Event(event) => event_object(event),
        DecoderPoll::End => Ok(objects::bare("endOfStream")),
        DecoderPoll::NeedMore => Ok(objects::bare("needMore")),
    }
}

fn event_object(event: DecoderEvent) -> Result<JsValue, Failure> {
    Ok(match event {
        DecoderEvent::Opened(header) => objects::opened(header_object(&header)),
        DecoderEvent::Frames(frames) => {
            let (w, y) = both(frames.integers.as_ref());
            let hidden = Float32Array::from(&frames.hidden[..]);
            objects::frames(number(frames.index)?, count(frames.count), hidden, w, y)
        }
        DecoderEvent::HyperPrior(event) => {
            objects::hyper_prior(number(event.index)?, count(event.count), Int16Array::from(&event.w[..]))
        }
        DecoderEvent::Targets(event) => objects::targets(
            number(event.index)?,
            count(event.count),
            Float32Array::from(&event.hidden[..]),
            Int16Array::from(&event.y[..]),
            event.concealed,
        ),
        DecoderEvent::TargetPart { index, elements } => {
            objects::target_part(number(index)?, count(elements.start), count(elements.end))
        }
        DecoderEvent::TargetEarly { index, count: frames } => {
            objects::counted("targetEarly", number(index)?, count(frames))
        }
        DecoderEvent::TargetRefused { index, reason } => {
            let reason = match reason {
                TargetRefusal::Late => "late",
                TargetRefusal::Damaged => "damaged",
                TargetRefusal::MemoryLimit => "noMemory",
                TargetRefusal::NoRoom => "noRoom",
                _ => "other",
            };
            objects::target_refused(index.and_then(exact), reason)
        }
        DecoderEvent::TargetsOverdue { index, count: frames } => {
            objects::counted("targetsOverdue", number(index)?, count(frames))
        }
        DecoderEvent::ExactFrame(event) => {
            let frame = event.frame;
            let (w, y) = both(frame.integers.as_ref());
            let hidden = Float32Array::from(&frame.hidden[..]);
            let (dtype, data) = (dtype_name(event.dtype), byte_array(&event.hidden));
            objects::exact_frame(number(frame.index)?, hidden, w, y, dtype, data)
        }
        DecoderEvent::Working { index, done, count: frames } => {
            objects::working(number(index)?, count(frames), count(done))
        }
        DecoderEvent::Verdict { from, to, verdict } => {
            let verdict = match verdict {
                Verdict::WConfirmed => "wConfirmed",
                Verdict::YConfirmed => "yConfirmed",
                // Nothing else may be taken for a confirmation.
                _ => "yUnverifiable",
            };
            objects::verdict(number(from)?, number(to)?, verdict)
        }
        DecoderEvent::TargetsDropped { index, count: frames } => {
            objects::counted("targetsDropped", number(index)?, count(frames))
        }
        DecoderEvent::Reset { index } => objects::placed("reset", number(index)?),
        DecoderEvent::Rewound { index } => objects::placed("rewound", number(index)?),
        DecoderEvent::Quality(quality) => objects::quality(quality),
        DecoderEvent::Model { fingerprint, index } => objects::model(number(index)?, byte_array(&fingerprint)),
        DecoderEvent::SideWanted { index, count: frames } => {
            objects::counted("sideWanted", number(index)?, count(frames))
        }
        DecoderEvent::SideIndices { index, indices } => {
            objects::side_indices(number(index)?, count(indices.len()), Uint32Array::from(&indices[..]))
        }
        DecoderEvent::Extension { id, data } => objects::extension(id, byte_array(&data)),
        DecoderEvent::Ended { index, frames_coded } => objects::ended(number(index)?, number(frames_coded)?),
        _ => objects::bare("other"),
    })
}
