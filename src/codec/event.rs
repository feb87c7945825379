//! What a decoder session hands out.

use std::ops::Range;

use bytes::Bytes;

use crate::wire::{Dtype, StreamHeader};

/// Decoded frames of one chunk, in joined mode.
#[derive(Clone, Debug, PartialEq)]
pub struct Frames {
    /// Absolute index of the first frame.
    pub index: u64,
    /// Number of frames, T.
    pub count: usize,
    /// Hyper-prior integers, `[T, C]`; empty where a device kept them.
    pub w: Vec<i16>,
    /// Target integers, `[T, E]`; empty where a device kept them.
    pub y: Vec<i16>,
    /// Reconstructed hidden state, `[T, E]` (spec 6.7); empty where it is a tensor beside the event.
    pub hidden: Vec<f32>,
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
pub struct Targets {
    /// Absolute index of the first frame.
    pub index: u64,
    /// Number of frames, T.
    pub count: usize,
    /// Target integers, `[T, E]`.
    pub y: Vec<i16>,
    /// Reconstructed hidden state, `[T, E]`.
    pub hidden: Vec<f32>,
    /// True if the integers are g_y's means in place of a lost target, or of those of its elements that did not come
    /// ([DEC-13]).
    pub concealed: bool,
}

/// A frame with its exact hidden state (spec 6.9).
#[derive(Clone, Debug, PartialEq)]
pub struct ExactFrame {
    /// The frame as it was coded; its `hidden` is the reconstruction.
    pub frame: Frames,
    /// Type of the exact values.
    pub dtype: Dtype,
    /// The exact hidden state, `E` little-endian values.
    pub hidden: Bytes,
}

/// Why a target chunk changed nothing (spec 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetRefusal {
    /// Its frames are not pending, or no longer: they, or elements of it, came before, were concealed, or were rewound.
    Late,
    /// Its check does not hold, or its payload is not what an encoder makes; a datagram that is no target is damaged too.
    Damaged,
    /// Decoding it would exceed [`DecoderConfig::memory_limit`](super::DecoderConfig::memory_limit). Its frames go on
    /// waiting.
    MemoryLimit,
    /// It is early, or was not yet polled, and [`crate::stream::Limits::early_bytes`] or the memory limit has no room for it; or
    /// it was kept, and a chunk needs the memory ([DEC-22]).
    NoRoom,
}

/// What the digests of a checkpoint, a context reset, a model switch or the end say of a range of frames (spec 6.4). A
/// digest that differs is no verdict but an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// W of every frame is the encoder's. Targets are pending; one of the other two verdicts on the same range follows.
    WConfirmed,
    /// W and Y of every frame are the encoder's.
    YConfirmed,
    /// W of every frame is the encoder's. A target was lost or dropped, or frames were rewound while the digest waited,
    /// so that Y can never be verified ([DEC-8], [DEC-16]).
    YUnverifiable,
}

/// An event of a decoder session.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DecoderEvent {
    /// The stream header was read, and its model is the decoder's.
    Opened(Box<StreamHeader>),
    /// Frames, in joined mode.
    Frames(Frames),
    /// Hyper-priors, in layered mode.
    HyperPrior(HyperPrior),
    /// Targets, in layered mode: of whole frames.
    Targets(Targets),
    /// A part of a frame's target, in layered mode; others are still to come ([`crate::codec::Decoder::missing_elements`]).
    /// The last one gives [`DecoderEvent::Targets`].
    TargetPart {
        /// Absolute index of the frame.
        index: u64,
        /// Its elements.
        elements: Range<usize>,
    },
    /// A target chunk, or a part, came before its hyper-prior ([DEC-22]). It is kept: what becomes of it is another event,
    /// when its frames are there or can no longer come.
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
    /// `index` on, or hand in their targets as datagrams, then poll again ([DEC-14]). Where more are overdue behind a frame
    /// that is settled, another such event follows.
    TargetsOverdue {
        /// Absolute index of the oldest pending frame.
        index: u64,
        /// How many frames have to be settled.
        count: usize,
    },
    /// A frame with its exact hidden state.
    ExactFrame(ExactFrame),
    /// A chunk has more frames than a call decodes
    /// ([`DecoderConfig::frames_per_poll`](super::DecoderConfig::frames_per_poll)): poll again, no input is needed. Its own
    /// event comes once it is whole.
    Working {
        /// Absolute index of the chunk's first frame.
        index: u64,
        /// Frames decoded.
        done: usize,
        /// Frames of the chunk.
        count: usize,
    },
    /// What a digest says of the frames `from..to`, as they stand in the timeline; what a rewind took away before is not
    /// among them.
    Verdict {
        /// Absolute index of the first frame: the context's, or the first one after the checkpoint before.
        from: u64,
        /// Absolute index after the last frame: where the digest stands.
        to: u64,
        /// What it says.
        verdict: Verdict,
    },
    /// A context reset or model switch dropped the targets of these frames, which had not come. They are late from now on,
    /// and their frames have W alone.
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
    /// Another quality holds from the next frame on.
    Quality(u8),
    /// Another model holds from the next frame on.
    Model {
        /// Its fingerprint.
        fingerprint: [u8; 32],
        /// Absolute index of the next frame.
        index: u64,
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
        /// Absolute index behind the last frame.
        index: u64,
        /// Frames coded, rewound ones included.
        frames_coded: u64,
    },
}

impl DecoderEvent {
    /// Bytes that the event holds beside itself.
    pub(super) fn memory_bytes(&self) -> usize {
        let frames = |frames: &Frames| {
            let shorts = frames.w.capacity().saturating_add(frames.y.capacity()).saturating_mul(2);
            frames.hidden.capacity().saturating_mul(4).saturating_add(shorts)
        };
        match self {
            DecoderEvent::Opened(header) => size_of::<StreamHeader>().saturating_add(header.memory_bytes()),
            DecoderEvent::Frames(event) => frames(event),
            DecoderEvent::ExactFrame(event) => frames(&event.frame).saturating_add(event.hidden.len()),
            DecoderEvent::HyperPrior(event) => event.w.capacity().saturating_mul(2),
            DecoderEvent::Targets(event) => {
                event.y.capacity().saturating_mul(2).saturating_add(event.hidden.capacity().saturating_mul(4))
            }
            DecoderEvent::Extension { data, .. } => data.len(),
            _ => 0,
        }
    }
}
