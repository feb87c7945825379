//! The events of a decoder session.

use std::ops::Range;

use bytes::Bytes;

use crate::engine::Integers;
use crate::wire::{Dtype, StreamHeader};

/// Decoded frames of one chunk, in joined mode. `H` holds hidden states: `Vec<f32>` on the CPU, with E values for each
/// frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frames<H = Vec<f32>> {
    /// Absolute index of the first frame.
    pub index: u64,
    /// Number of frames, T.
    pub count: usize,
    /// W, `[T, C]`, and Y, `[T, E]`; `None` if [`Decoder::keep_integers`](super::Decoder::keep_integers) is off.
    pub integers: Option<Integers>,
    /// Reconstructed hidden states, `[T, E]` (spec 6.7).
    pub hidden: H,
}

/// Hyper-priors of one chunk, in layered mode: their frames are now pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HyperPrior {
    /// Absolute index of the first frame.
    pub index: u64,
    /// Number of frames, T.
    pub count: usize,
    /// Hyper-prior integers, `[T, C]`.
    pub w: Vec<i16>,
}

/// Targets of one chunk, or concealed frames, in layered mode.
#[derive(Clone, Debug, PartialEq)]
pub struct Targets<H = Vec<f32>> {
    /// Absolute index of the first frame.
    pub index: u64,
    /// Number of frames, T.
    pub count: usize,
    /// Target integers, `[T, E]`.
    pub y: Vec<i16>,
    /// Reconstructed hidden states, `[T, E]`.
    pub hidden: H,
    /// True if some or all integers are g_y's means, because the target or some of its elements did not come
    /// ([DEC-13]).
    pub concealed: bool,
}

/// A frame with its exact hidden state (spec 6.9).
#[derive(Clone, Debug, PartialEq)]
pub struct ExactFrame<H = Vec<f32>> {
    /// The frame as it was coded; its `hidden` is the reconstruction.
    pub frame: Frames<H>,
    /// Type of the exact values.
    pub dtype: Dtype,
    /// The exact hidden state, `E` little-endian values.
    pub hidden: Bytes,
}

/// Why a target chunk changed nothing (spec 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetRefusal {
    /// Its frames are not pending: they, or elements of the part, came before, were concealed, or were rewound.
    Late,
    /// Its check does not hold, or its payload is not what an encoder makes; a datagram that is not a target is damaged
    /// too.
    Damaged,
    /// Decoding it would exceed [`DecoderConfig::memory_limit`](super::DecoderConfig::memory_limit). Its frames still
    /// wait.
    MemoryLimit,
    /// It is early, or was not yet polled, and [`crate::stream::Limits::early_bytes`] or the memory limit has no room
    /// for it; or it was kept, and a chunk needs the memory ([DEC-22]).
    NoRoom,
}

/// What the digests of a checkpoint, a context reset, a model switch or the end say about a range of frames (spec 6.4).
/// A digest that differs is not a verdict but an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// W of every frame equals the encoder's. Targets are pending; one of the other two verdicts on the same range
    /// follows.
    WConfirmed,
    /// W and Y of every frame equal the encoder's.
    YConfirmed,
    /// W of every frame equals the encoder's. A target was lost or dropped, or frames were rewound while the digest
    /// waited, so Y can never be verified ([DEC-8], [DEC-16]).
    YUnverifiable,
}

/// An event of a decoder session.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DecoderEvent<H = Vec<f32>> {
    /// The stream header was read, and its model is the decoder's.
    Opened(Box<StreamHeader>),
    /// Frames, in joined mode.
    Frames(Frames<H>),
    /// Hyper-priors, in layered mode.
    HyperPrior(HyperPrior),
    /// Targets of whole frames, in layered mode.
    Targets(Targets<H>),
    /// A part of a frame's target, in layered mode; others are still to come
    /// ([`crate::codec::Decoder::missing_elements`]). The last one gives [`DecoderEvent::Targets`].
    TargetPart {
        /// Absolute index of the frame.
        index: u64,
        /// Its elements.
        elements: Range<usize>,
    },
    /// A target chunk, or a part, came before its hyper-prior ([DEC-22]). It is kept. Another event follows when its
    /// frames have come or can no longer come.
    TargetEarly {
        /// Absolute index of its first frame.
        index: u64,
        /// Number of frames.
        count: usize,
    },
    /// A target chunk that changed nothing.
    TargetRefused {
        /// Absolute index of its first frame, if it names one.
        index: Option<u64>,
        /// Why.
        reason: TargetRefusal,
    },
    /// A hyper-prior chunk or exact frame waits because too many frames are pending: conceal these `count` frames from
    /// `index` on, or give their targets as datagrams, then poll again ([DEC-14]). If more frames are overdue after one
    /// that is already settled, another such event follows.
    TargetsOverdue {
        /// Absolute index of the oldest pending frame.
        index: u64,
        /// How many frames have to be settled.
        count: usize,
    },
    /// A frame with its exact hidden state.
    ExactFrame(ExactFrame<H>),
    /// A chunk has more frames than one call decodes
    /// ([`DecoderConfig::frames_per_poll`](super::DecoderConfig::frames_per_poll)): poll again, no input is needed. The
    /// chunk's own event comes once it is decoded completely.
    Working {
        /// Absolute index of the chunk's first frame.
        index: u64,
        /// Frames decoded.
        done: usize,
        /// Frames of the chunk.
        count: usize,
    },
    /// What a digest says about the frames `from..to` that are in the timeline; frames that were rewound earlier are
    /// not among them.
    Verdict {
        /// Absolute index of the first frame: the context's first, or the first after the previous checkpoint.
        from: u64,
        /// Absolute index after the last frame: the place of the digest.
        to: u64,
        /// What it says.
        verdict: Verdict,
    },
    /// A context reset or model switch dropped the targets of these frames, which had not come. They are late from now
    /// on, and their frames have only W.
    TargetsDropped {
        /// Absolute index of the first frame.
        index: u64,
        /// Number of frames.
        count: usize,
    },
    /// The context begins anew.
    Reset {
        /// Absolute index of the next frame.
        index: u64,
    },
    /// The timeline goes back: frames from `index` on are gone.
    Rewound {
        /// Absolute index of the next frame.
        index: u64,
    },
    /// Another quality applies from the next frame on.
    Quality(u8),
    /// Another model applies from the next frame on.
    Model {
        /// Its fingerprint.
        fingerprint: [u8; 32],
        /// Absolute index of the next frame.
        index: u64,
    },
    /// A chunk waits for the side indices of these frames, which the stream does not hold: give them
    /// ([`Decoder::give_side`](super::Decoder::give_side)), then poll again ([SIDE-3]). Until then polls give
    /// [`DecoderPoll::NeedMore`](super::DecoderPoll::NeedMore), and after
    /// [`Decoder::finish`](super::Decoder::finish) the error [`ErrorKind::WrongSideIndices`](crate::error::ErrorKind), which
    /// is not final. Datagrams are still taken up.
    SideWanted {
        /// Absolute index of the first frame.
        index: u64,
        /// Number of frames.
        count: usize,
    },
    /// Side indices of frames to come, which the stream holds (spec 6.12).
    SideIndices {
        /// Absolute index of the first of these frames.
        index: u64,
        /// One for each of them.
        indices: Vec<u32>,
    },
    /// An ignorable extension.
    Extension {
        /// Extension id.
        id: u32,
        /// Its data.
        data: Bytes,
    },
    /// The end chunk; verdicts on the frames before it came before this event, or follow while targets are pending
    /// ([DEC-17]).
    Ended {
        /// Absolute index after the last frame.
        index: u64,
        /// Frames coded, rewound ones included.
        frames_coded: u64,
    },
}

impl<H> DecoderEvent<H> {
    /// Bytes that the event holds in addition to its own size; `hidden` counts those of hidden states.
    pub(super) fn memory_bytes(&self, hidden: impl Fn(&H) -> usize) -> usize {
        let frames = |frames: &Frames<H>| {
            frames.integers.as_ref().map_or(0, Integers::memory_bytes).saturating_add(hidden(&frames.hidden))
        };
        match self {
            DecoderEvent::Opened(header) => size_of::<StreamHeader>().saturating_add(header.memory_bytes()),
            DecoderEvent::Frames(event) => frames(event),
            DecoderEvent::ExactFrame(event) => frames(&event.frame).saturating_add(event.hidden.len()),
            DecoderEvent::HyperPrior(event) => event.w.capacity().saturating_mul(2),
            DecoderEvent::Targets(event) => event.memory_bytes(hidden),
            DecoderEvent::Extension { data, .. } => data.len(),
            DecoderEvent::SideIndices { indices, .. } => indices.capacity().saturating_mul(4),
            _ => 0,
        }
    }
}

impl<H> DecoderEvent<H> {
    /// The event's name, as the reports of the conformance vectors write it: `"frames"`, `"hyper_prior"`, and for
    /// concealed targets `"concealed"`. Two events of this library alone are `"working"` and `"side_wanted"`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            DecoderEvent::Opened(_) => "opened",
            DecoderEvent::Frames(_) => "frames",
            DecoderEvent::HyperPrior(_) => "hyper_prior",
            DecoderEvent::Targets(Targets { concealed: true, .. }) => "concealed",
            DecoderEvent::Targets(_) => "targets",
            DecoderEvent::TargetPart { .. } => "part",
            DecoderEvent::TargetEarly { .. } => "early",
            DecoderEvent::TargetRefused { .. } => "refused",
            DecoderEvent::TargetsOverdue { .. } => "overdue",
            DecoderEvent::ExactFrame(_) => "exact_frame",
            DecoderEvent::Working { .. } => "working",
            DecoderEvent::Verdict { .. } => "verdict",
            DecoderEvent::TargetsDropped { .. } => "dropped",
            DecoderEvent::Reset { .. } => "reset",
            DecoderEvent::Rewound { .. } => "rewound",
            DecoderEvent::Quality(_) => "quality",
            DecoderEvent::Model { .. } => "model",
            DecoderEvent::SideWanted { .. } => "side_wanted",
            DecoderEvent::SideIndices { .. } => "side_indices",
            DecoderEvent::Extension { .. } => "extension",
            DecoderEvent::Ended { .. } => "ended",
        }
    }

    /// The same event with its hidden states, if it has any, in another form or place.
    ///
    /// # Errors
    /// Those of `map`.
    pub fn try_map_hidden<T, E>(self, map: impl FnOnce(H) -> Result<T, E>) -> Result<DecoderEvent<T>, E> {
        Ok(match self {
            DecoderEvent::Frames(frames) => DecoderEvent::Frames(frames.try_map_hidden(map)?),
            DecoderEvent::Targets(Targets { index, count, y, hidden, concealed }) => {
                DecoderEvent::Targets(Targets { index, count, y, hidden: map(hidden)?, concealed })
            }
            DecoderEvent::ExactFrame(ExactFrame { frame, dtype, hidden }) => {
                DecoderEvent::ExactFrame(ExactFrame { frame: frame.try_map_hidden(map)?, dtype, hidden })
            }
            DecoderEvent::Opened(header) => DecoderEvent::Opened(header),
            DecoderEvent::HyperPrior(hyper_prior) => DecoderEvent::HyperPrior(hyper_prior),
            DecoderEvent::TargetPart { index, elements } => DecoderEvent::TargetPart { index, elements },
            DecoderEvent::TargetEarly { index, count } => DecoderEvent::TargetEarly { index, count },
            DecoderEvent::TargetRefused { index, reason } => DecoderEvent::TargetRefused { index, reason },
            DecoderEvent::TargetsOverdue { index, count } => DecoderEvent::TargetsOverdue { index, count },
            DecoderEvent::Working { index, done, count } => DecoderEvent::Working { index, done, count },
            DecoderEvent::Verdict { from, to, verdict } => DecoderEvent::Verdict { from, to, verdict },
            DecoderEvent::TargetsDropped { index, count } => DecoderEvent::TargetsDropped { index, count },
            DecoderEvent::Reset { index } => DecoderEvent::Reset { index },
            DecoderEvent::Rewound { index } => DecoderEvent::Rewound { index },
            DecoderEvent::Quality(quality) => DecoderEvent::Quality(quality),
            DecoderEvent::Model { fingerprint, index } => DecoderEvent::Model { fingerprint, index },
            DecoderEvent::SideWanted { index, count } => DecoderEvent::SideWanted { index, count },
            DecoderEvent::SideIndices { index, indices } => DecoderEvent::SideIndices { index, indices },
            DecoderEvent::Extension { id, data } => DecoderEvent::Extension { id, data },
            DecoderEvent::Ended { index, frames_coded } => DecoderEvent::Ended { index, frames_coded },
        })
    }
}

impl<H> Frames<H> {
    fn try_map_hidden<T, E>(self, map: impl FnOnce(H) -> Result<T, E>) -> Result<Frames<T>, E> {
        let Frames { index, count, integers, hidden } = self;
        Ok(Frames { index, count, integers, hidden: map(hidden)? })
    }
}

impl<H> Targets<H> {
    /// As [`DecoderEvent::memory_bytes`].
    pub(super) fn memory_bytes(&self, hidden: impl Fn(&H) -> usize) -> usize {
        self.y.capacity().saturating_mul(2).saturating_add(hidden(&self.hidden))
    }
}
