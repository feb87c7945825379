//! The events of a decoder in C's form.

use std::ffi::{CStr, c_char};

use midspan::codec::{DecoderEvent, DecoderPoll, Frames, TargetRefusal, Verdict};

use crate::config::{dtype_number, midspan_dtype};
use crate::header::{OwnedHeader, midspan_header};
use crate::result::to_u64;

/// What a poll of a decoder gave. Each kind says which fields of `midspan_event` it sets; all others are 0 or NULL.
pub type midspan_event_kind = u32;

/// Nothing happened: more input is needed, or `midspan_decoder_finish`; or side indices, if
/// `midspan_decoder_wanted_side` says so. Not an error.
pub const MIDSPAN_EVENT_NEED_MORE: midspan_event_kind = 0;
/// The stream ended properly. Not an error.
pub const MIDSPAN_EVENT_END: midspan_event_kind = 1;
/// The stream header was read, and its model is the decoder's: `header`.
pub const MIDSPAN_EVENT_OPENED: midspan_event_kind = 2;
/// Frames, in joined mode: `index`, `count`, `hidden` and, if integers are kept, `w` and `y`.
pub const MIDSPAN_EVENT_FRAMES: midspan_event_kind = 3;
/// Hyper-priors of frames, in layered mode, whose targets are pending from now on: `index`, `count`, `w`.
pub const MIDSPAN_EVENT_HYPER_PRIOR: midspan_event_kind = 4;
/// Targets of whole frames, or concealed frames, in layered mode: `index`, `count`, `hidden`, `y`, `concealed`.
pub const MIDSPAN_EVENT_TARGETS: midspan_event_kind = 5;
/// A part of a frame's target; others are still to come: `index`, `first_element`, `end_element`.
pub const MIDSPAN_EVENT_TARGET_PART: midspan_event_kind = 6;
/// A target came before its hyper-prior and is kept: `index`, `count`.
pub const MIDSPAN_EVENT_TARGET_EARLY: midspan_event_kind = 7;
/// A target changed nothing: `refusal` says why; `index`, if `has_index` is 1.
pub const MIDSPAN_EVENT_TARGET_REFUSED: midspan_event_kind = 8;
/// A chunk waits because too many frames are pending: `index`, `count`. Conceal these frames, or give their targets as
/// datagrams, then poll again.
pub const MIDSPAN_EVENT_TARGETS_OVERDUE: midspan_event_kind = 9;
/// A frame with its exact hidden state: as MIDSPAN_EVENT_FRAMES, and `dtype` and `data`, its values as they were
/// pushed.
pub const MIDSPAN_EVENT_EXACT_FRAME: midspan_event_kind = 10;
/// A chunk has more frames than one call decodes: `index` and `count` are the chunk's, `done` of its frames are
/// decoded. Poll again; no input is needed.
pub const MIDSPAN_EVENT_WORKING: midspan_event_kind = 11;
/// What a digest says about frames: `index` to `end_index`, and `verdict`.
pub const MIDSPAN_EVENT_VERDICT: midspan_event_kind = 12;
/// A context reset or model switch dropped the targets of these frames, which had not come: `index`, `count`.
pub const MIDSPAN_EVENT_TARGETS_DROPPED: midspan_event_kind = 13;
/// The context begins anew: `index` of the next frame.
pub const MIDSPAN_EVENT_RESET: midspan_event_kind = 14;
/// The timeline goes back: frames from `index` on are gone.
pub const MIDSPAN_EVENT_REWOUND: midspan_event_kind = 15;
/// Another quality applies from the next frame on: `quality`.
pub const MIDSPAN_EVENT_QUALITY: midspan_event_kind = 16;
/// Another model applies from the next frame on: `fingerprint`, and `index` of the next frame.
pub const MIDSPAN_EVENT_MODEL: midspan_event_kind = 17;
/// A chunk waits for the side indices of these frames, which the stream does not hold: `index`, `count`. Give them with
/// `midspan_decoder_give_side`, then poll again.
pub const MIDSPAN_EVENT_SIDE_WANTED: midspan_event_kind = 18;
/// Side indices of frames to come, which the stream holds: `index`, `count`, `side`.
pub const MIDSPAN_EVENT_SIDE_INDICES: midspan_event_kind = 19;
/// An ignorable extension: `extension_id`, `data`.
pub const MIDSPAN_EVENT_EXTENSION: midspan_event_kind = 20;
/// The end chunk: `index` after the last frame, `frames_coded`, rewound ones included.
pub const MIDSPAN_EVENT_ENDED: midspan_event_kind = 21;
/// An event that this interface has no name for. Skip it.
pub const MIDSPAN_EVENT_OTHER: midspan_event_kind = 255;

/// What the digests of the stream say about a range of frames. A digest that differs is an error instead.
pub type midspan_verdict = u32;

/// The event is no verdict.
pub const MIDSPAN_VERDICT_NONE: midspan_verdict = 0;
/// W of every frame equals the encoder's; targets are pending, and another verdict on the range follows.
pub const MIDSPAN_VERDICT_W_CONFIRMED: midspan_verdict = 1;
/// W and Y of every frame equal the encoder's.
pub const MIDSPAN_VERDICT_Y_CONFIRMED: midspan_verdict = 2;
/// W of every frame equals the encoder's. Y can never be verified, because a target was lost.
pub const MIDSPAN_VERDICT_Y_UNVERIFIABLE: midspan_verdict = 3;

/// Why a target changed nothing (spec 6.5).
pub type midspan_refusal = u32;

/// The event is no refusal.
pub const MIDSPAN_REFUSAL_NONE: midspan_refusal = 0;
/// Its frames are not pending: they came before, were concealed, or were rewound.
pub const MIDSPAN_REFUSAL_LATE: midspan_refusal = 1;
/// It is damaged, or no target.
pub const MIDSPAN_REFUSAL_DAMAGED: midspan_refusal = 2;
/// Decoding it would exceed the memory limit. Its frames still wait.
pub const MIDSPAN_REFUSAL_MEMORY_LIMIT: midspan_refusal = 3;
/// It is early, and there is no room to keep it.
pub const MIDSPAN_REFUSAL_NO_ROOM: midspan_refusal = 4;
/// Another reason.
pub const MIDSPAN_REFUSAL_OTHER: midspan_refusal = 255;

/// What a poll of a decoder gave. `kind` says which fields are set; the others are 0 or NULL.
///
/// What the pointers lead to belongs to the decoder and is valid until its next poll that succeeds, or its `_free`. No
/// other call changes it. `midspan_decoder_poll_into` writes hidden states to the caller's own buffer instead.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_event {
    /// What happened.
    pub kind: midspan_event_kind,
    /// With MIDSPAN_EVENT_VERDICT: what the digests say.
    pub verdict: midspan_verdict,
    /// With MIDSPAN_EVENT_TARGET_REFUSED: why.
    pub refusal: midspan_refusal,
    /// With MIDSPAN_EVENT_TARGETS: 1 if some or all integers are the network's means, because the target, or some of
    /// its elements, did not come.
    pub concealed: u32,
    /// With MIDSPAN_EVENT_EXACT_FRAME: the type of the values in `data`.
    pub dtype: midspan_dtype,
    /// With MIDSPAN_EVENT_EXTENSION: its id.
    pub extension_id: u32,
    /// With MIDSPAN_EVENT_QUALITY: the quality index.
    pub quality: u8,
    /// 1 if `index` is set.
    pub has_index: u32,
    /// Absolute index of the first frame, or of the next one.
    pub index: u64,
    /// Absolute index after the last frame of which the event is; `index` where it is about no frames.
    pub end_index: u64,
    /// Number of frames, T.
    pub count: u64,
    /// With MIDSPAN_EVENT_WORKING: frames decoded so far.
    pub done: u64,
    /// With MIDSPAN_EVENT_ENDED: frames coded, rewound ones included.
    pub frames_coded: u64,
    /// With MIDSPAN_EVENT_TARGET_PART: the first element.
    pub first_element: u64,
    /// With MIDSPAN_EVENT_TARGET_PART: the element after the last.
    pub end_element: u64,
    /// Reconstructed hidden states, [T, E], row by row.
    pub hidden: *const f32,
    /// How many values: T * E.
    pub hidden_len: usize,
    /// Hyper-prior integers W, [T, C].
    pub w: *const i16,
    /// How many values: T * C.
    pub w_len: usize,
    /// Target integers Y, [T, E].
    pub y: *const i16,
    /// How many values: T * E.
    pub y_len: usize,
    /// With MIDSPAN_EVENT_SIDE_INDICES: one a frame.
    pub side: *const u32,
    /// How many.
    pub side_len: usize,
    /// With MIDSPAN_EVENT_EXTENSION its data; with MIDSPAN_EVENT_EXACT_FRAME the exact hidden state, E little-endian
    /// values, not aligned.
    pub data: *const u8,
    /// How many bytes.
    pub data_len: usize,
    /// With MIDSPAN_EVENT_OPENED: the stream header.
    pub header: *const midspan_header,
    /// With MIDSPAN_EVENT_MODEL: the model's fingerprint.
    pub fingerprint: [u8; 32],
}

/// The first of some values and their number.
fn part<T>(values: &[T]) -> (*const T, usize) {
    if values.is_empty() { (std::ptr::null(), 0) } else { (values.as_ptr(), values.len()) }
}

impl midspan_event {
    fn new(kind: midspan_event_kind) -> Self {
        Self {
            kind,
            verdict: MIDSPAN_VERDICT_NONE,
            refusal: MIDSPAN_REFUSAL_NONE,
            concealed: 0,
            dtype: 0,
            extension_id: 0,
            quality: 0,
            has_index: 0,
            index: 0,
            end_index: 0,
            count: 0,
            done: 0,
            frames_coded: 0,
            first_element: 0,
            end_element: 0,
            hidden: std::ptr::null(),
            hidden_len: 0,
            w: std::ptr::null(),
            w_len: 0,
            y: std::ptr::null(),
            y_len: 0,
            side: std::ptr::null(),
            side_len: 0,
            data: std::ptr::null(),
            data_len: 0,
            header: std::ptr::null(),
            fingerprint: [0; 32],
        }
    }

    /// An event about `count` frames from `index` on.
    fn of_frames(kind: midspan_event_kind, index: u64, count: usize) -> Self {
        let count = to_u64(count);
        Self { has_index: 1, index, end_index: index.saturating_add(count), count, ..Self::new(kind) }
    }

    /// An event at the frame `index`.
    fn at(kind: midspan_event_kind, index: u64) -> Self {
        Self::of_frames(kind, index, 0)
    }

    fn with_hidden(self, hidden: &[f32]) -> Self {
        let (hidden, hidden_len) = part(hidden);
        Self { hidden, hidden_len, ..self }
    }

    fn with_w(self, w: &[i16]) -> Self {
        let (w, w_len) = part(w);
        Self { w, w_len, ..self }
    }

    fn with_y(self, y: &[i16]) -> Self {
        let (y, y_len) = part(y);
        Self { y, y_len, ..self }
    }

    fn with_data(self, data: &[u8]) -> Self {
        let (data, data_len) = part(data);
        Self { data, data_len, ..self }
    }

    fn with_frames(self, frames: &Frames) -> Self {
        let event = self.with_hidden(&frames.hidden);
        match &frames.integers {
            Some(integers) => event.with_w(&integers.w).with_y(&integers.y),
            None => event,
        }
    }

    /// The outcome of a poll; its pointers lead into it and into `header`, which is made for the event that has one.
    pub(crate) fn of(poll: &DecoderPoll, header: &mut Option<OwnedHeader>) -> Self {
        let event = match poll {
            DecoderPoll::Event(event) => event,
            DecoderPoll::NeedMore => return Self::new(MIDSPAN_EVENT_NEED_MORE),
            DecoderPoll::End => return Self::new(MIDSPAN_EVENT_END),
        };
        match event {
            DecoderEvent::Opened(opened) => {
                let owned = header.insert(OwnedHeader::new(opened));
                Self { header: owned.as_ptr(), ..Self::new(MIDSPAN_EVENT_OPENED) }
            }
            DecoderEvent::Frames(frames) => {
                Self::of_frames(MIDSPAN_EVENT_FRAMES, frames.index, frames.count).with_frames(frames)
            }
            DecoderEvent::HyperPrior(hyper_prior) => {
                Self::of_frames(MIDSPAN_EVENT_HYPER_PRIOR, hyper_prior.index, hyper_prior.count).with_w(&hyper_prior.w)
            }
            DecoderEvent::Targets(targets) => {
                let event = Self::of_frames(MIDSPAN_EVENT_TARGETS, targets.index, targets.count);
                let event = event.with_hidden(&targets.hidden).with_y(&targets.y);
                Self { concealed: targets.concealed.into(), ..event }
            }
            DecoderEvent::TargetPart { index, elements } => {
                let (first_element, end_element) = (to_u64(elements.start), to_u64(elements.end));
                Self { first_element, end_element, ..Self::of_frames(MIDSPAN_EVENT_TARGET_PART, *index, 1) }
            }
            DecoderEvent::TargetEarly { index, count } => Self::of_frames(MIDSPAN_EVENT_TARGET_EARLY, *index, *count),
            DecoderEvent::TargetRefused { index, reason } => {
                let refusal = match reason {
                    TargetRefusal::Late => MIDSPAN_REFUSAL_LATE,
                    TargetRefusal::Damaged => MIDSPAN_REFUSAL_DAMAGED,
                    TargetRefusal::MemoryLimit => MIDSPAN_REFUSAL_MEMORY_LIMIT,
                    TargetRefusal::NoRoom => MIDSPAN_REFUSAL_NO_ROOM,
                    _ => MIDSPAN_REFUSAL_OTHER,
                };
                let kind = MIDSPAN_EVENT_TARGET_REFUSED;
                let event = index.map_or(Self::new(kind), |index| Self::at(kind, index));
                Self { refusal, ..event }
            }
            DecoderEvent::TargetsOverdue { index, count } => {
                Self::of_frames(MIDSPAN_EVENT_TARGETS_OVERDUE, *index, *count)
            }
            DecoderEvent::ExactFrame(exact) => {
                let event = Self::of_frames(MIDSPAN_EVENT_EXACT_FRAME, exact.frame.index, exact.frame.count);
                let event = event.with_frames(&exact.frame).with_data(&exact.hidden);
                Self { dtype: dtype_number(exact.dtype), ..event }
            }
            DecoderEvent::Working { index, done, count } => {
                Self { done: to_u64(*done), ..Self::of_frames(MIDSPAN_EVENT_WORKING, *index, *count) }
            }
            DecoderEvent::Verdict { from, to, verdict } => {
                let verdict = match verdict {
                    Verdict::WConfirmed => MIDSPAN_VERDICT_W_CONFIRMED,
                    Verdict::YConfirmed => MIDSPAN_VERDICT_Y_CONFIRMED,
                    // Nothing else may be taken for a confirmation.
                    _ => MIDSPAN_VERDICT_Y_UNVERIFIABLE,
                };
                let count = to.saturating_sub(*from);
                Self { verdict, end_index: *to, count, ..Self::at(MIDSPAN_EVENT_VERDICT, *from) }
            }
            DecoderEvent::TargetsDropped { index, count } => {
                Self::of_frames(MIDSPAN_EVENT_TARGETS_DROPPED, *index, *count)
            }
            DecoderEvent::Reset { index } => Self::at(MIDSPAN_EVENT_RESET, *index),
            DecoderEvent::Rewound { index } => Self::at(MIDSPAN_EVENT_REWOUND, *index),
            DecoderEvent::Quality(quality) => Self { quality: *quality, ..Self::new(MIDSPAN_EVENT_QUALITY) },
            DecoderEvent::Model { fingerprint, index } => {
                Self { fingerprint: *fingerprint, ..Self::at(MIDSPAN_EVENT_MODEL, *index) }
            }
            DecoderEvent::SideWanted { index, count } => Self::of_frames(MIDSPAN_EVENT_SIDE_WANTED, *index, *count),
            DecoderEvent::SideIndices { index, indices } => {
                let (side, side_len) = part(indices);
                Self { side, side_len, ..Self::of_frames(MIDSPAN_EVENT_SIDE_INDICES, *index, indices.len()) }
            }
            DecoderEvent::Extension { id, data } => {
                Self { extension_id: *id, ..Self::new(MIDSPAN_EVENT_EXTENSION).with_data(data) }
            }
            DecoderEvent::Ended { index, frames_coded } => {
                Self { frames_coded: *frames_coded, ..Self::at(MIDSPAN_EVENT_ENDED, *index) }
            }
            _ => Self::new(MIDSPAN_EVENT_OTHER),
        }
    }
}

/// The hidden states of an outcome; none if it has none.
pub(crate) fn hidden_of(poll: &DecoderPoll) -> &[f32] {
    match poll {
        DecoderPoll::Event(DecoderEvent::Frames(frames)) => &frames.hidden,
        DecoderPoll::Event(DecoderEvent::Targets(targets)) => &targets.hidden,
        DecoderPoll::Event(DecoderEvent::ExactFrame(exact)) => &exact.frame.hidden,
        _ => &[],
    }
}

/// The bytes that an outcome with hidden states holds.
pub(crate) fn held_bytes(poll: &DecoderPoll) -> usize {
    let (integers, data) = match poll {
        DecoderPoll::Event(DecoderEvent::Frames(frames)) => (integer_count(frames), 0),
        DecoderPoll::Event(DecoderEvent::Targets(targets)) => (targets.y.len(), 0),
        DecoderPoll::Event(DecoderEvent::ExactFrame(exact)) => (integer_count(&exact.frame), exact.hidden.len()),
        _ => (0, 0),
    };
    let hidden = hidden_of(poll).len().saturating_mul(size_of::<f32>());
    integers.saturating_mul(size_of::<i16>()).saturating_add(hidden).saturating_add(data)
}

fn integer_count(frames: &Frames) -> usize {
    frames.integers.as_ref().map_or(0, |both| both.w.len().saturating_add(both.y.len()))
}

/// The name of an event, NUL-terminated, static: "frames", "need_more". It is "concealed" for MIDSPAN_EVENT_TARGETS
/// with `concealed`, and "other" for NULL and for a kind that has no name. The call reads `kind` and `concealed` alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_event_name(event: *const midspan_event) -> *const c_char {
    if event.is_null() || !event.is_aligned() {
        return c"other".as_ptr();
    }
    // SAFETY: not NULL and aligned; the caller promises the rest.
    let (kind, concealed) = unsafe { ((*event).kind, (*event).concealed) };
    let name: &CStr = match kind {
        MIDSPAN_EVENT_TARGETS if concealed != 0 => c"concealed",
        MIDSPAN_EVENT_NEED_MORE => c"need_more",
        MIDSPAN_EVENT_END => c"end",
        MIDSPAN_EVENT_OPENED => c"opened",
        MIDSPAN_EVENT_FRAMES => c"frames",
        MIDSPAN_EVENT_HYPER_PRIOR => c"hyper_prior",
        MIDSPAN_EVENT_TARGETS => c"targets",
        MIDSPAN_EVENT_TARGET_PART => c"part",
        MIDSPAN_EVENT_TARGET_EARLY => c"early",
        MIDSPAN_EVENT_TARGET_REFUSED => c"refused",
        MIDSPAN_EVENT_TARGETS_OVERDUE => c"overdue",
        MIDSPAN_EVENT_EXACT_FRAME => c"exact_frame",
        MIDSPAN_EVENT_WORKING => c"working",
        MIDSPAN_EVENT_VERDICT => c"verdict",
        MIDSPAN_EVENT_TARGETS_DROPPED => c"dropped",
        MIDSPAN_EVENT_RESET => c"reset",
        MIDSPAN_EVENT_REWOUND => c"rewound",
        MIDSPAN_EVENT_QUALITY => c"quality",
        MIDSPAN_EVENT_MODEL => c"model",
        MIDSPAN_EVENT_SIDE_WANTED => c"side_wanted",
        MIDSPAN_EVENT_SIDE_INDICES => c"side_indices",
        MIDSPAN_EVENT_EXTENSION => c"extension",
        MIDSPAN_EVENT_ENDED => c"ended",
        _ => c"other",
    };
    name.as_ptr()
}
