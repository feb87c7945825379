//! What a decoder session hands out.

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
    /// True if the integers are g_y's means in place of a lost target ([DEC-13]).
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
    /// Its frames are not pending: they came before, were concealed, or were rewound.
    Late,
    /// Its check does not hold, or its payload is not what an encoder makes.
    Damaged,
}

/// What a checkpoint or end says about the frames before it. W always equals the encoder's; otherwise there is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointVerdict {
    /// Y equals the encoder's too.
    Confirmed,
    /// A target was lost since the digest's start: Y cannot be verified ([DEC-8]).
    Unverifiable,
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
    /// Targets, in layered mode.
    Targets(Targets),
    /// A target chunk that changed nothing.
    TargetRefused {
        /// Absolute index of its first frame, if it names one.
        index: Option<u64>,
        /// Why.
        reason: TargetRefusal,
    },
    /// A hyper-prior chunk or exact frame waits because too many frames are pending: conceal these `count` frames from
    /// `index` on, or hand in their targets, then poll again ([DEC-14]). Where more are overdue behind a frame that is
    /// settled, another such event follows.
    TargetsOverdue {
        /// Absolute index of the oldest pending frame.
        index: u64,
        /// How many frames have to be settled.
        count: usize,
    },
    /// A frame with its exact hidden state.
    ExactFrame(ExactFrame),
    /// A checkpoint's W was verified, and its Y settled as far as it can be.
    Checkpoint {
        /// Absolute index of the frame behind the checkpoint.
        index: u64,
        /// What it says of Y.
        verdict: CheckpointVerdict,
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
    /// The end chunk; `verdict` is None while targets are pending ([DEC-17]).
    Ended {
        /// Absolute index behind the last frame.
        index: u64,
        /// Frames coded, rewound ones included.
        frames_coded: u64,
        /// What the end says of the frames since the last checkpoint.
        verdict: Option<CheckpointVerdict>,
    },
}
