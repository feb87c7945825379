//! What a reader hands out: one event per whole chunk.

use std::ops::Range;

use bytes::Bytes;

use crate::number::to_u64;
use crate::wire::{
    Checkpoint, Dtype, End, Extension, ModelSwitch, OpenCheck, Payload, Quality, Reset, Rewind, SeekIndex, StreamHeader,
};

/// The outcome of a poll that is not an error (spec 7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poll {
    /// A whole chunk.
    Event(Event),
    /// More input is needed.
    NeedMore,
    /// The stream is complete and every event was handed out. Input that still comes is judged: in layered mode a
    /// message transport may still deliver targets ([MSG-5]); everything else is an error.
    End,
}

/// One chunk, its offset and its size. The bytes of all events together are those of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The offset of the chunk's leading byte, or of the message, from the first byte of the stream header.
    pub offset: u64,
    /// The offset of the body.
    pub body_offset: u64,
    /// The chunk's bytes on the wire: leading byte, length and body; for a message also the closing 0x00. 0 for a
    /// datagram.
    pub bytes: u64,
    /// What the chunk says.
    pub chunk: Chunk,
}

impl Event {
    /// The offset of a field that is `within` bytes after the start of the body. The bodies' `*_offset` methods give
    /// `within`.
    #[must_use]
    pub fn field_offset(&self, within: usize) -> u64 {
        self.body_offset.saturating_add(to_u64(within))
    }
}

/// What a chunk says (spec 2.2 to 2.10). Offsets of payloads count from the first byte of the stream header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Chunk {
    /// The stream header.
    Header(Box<StreamHeader>),
    /// A one-frame chunk: a joined frame in joined mode, the hyper-prior of one frame in layered mode.
    Frame {
        /// The frame's absolute index.
        index: u64,
        /// The epoch in which it was coded.
        epoch: u32,
        /// The payload.
        payload: Payload,
        /// The check, if it covers side indices, which only a decoder knows ([CHECK-3]).
        check: Option<OpenCheck>,
    },
    /// A batch: joined in joined mode, hyper-priors in layered mode.
    Batch {
        /// The first frame's absolute index.
        index: u64,
        /// The epoch in which the frames were coded.
        epoch: u32,
        /// The number of frames, 2 or more.
        frames: u32,
        /// One payload per lane; [`crate::wire::lanes::lane_frames`] says which frames it holds.
        lanes: Vec<Payload>,
        /// As in [`Chunk::Frame`].
        check: Option<OpenCheck>,
    },
    /// A target or target batch of layered mode.
    Target {
        /// The number of frames; 0 if the body cannot be read.
        frames: u32,
        /// The elements that it holds, if it holds a part of one frame; `None` for all.
        elements: Option<Range<u64>>,
        /// One payload per lane; none if the body cannot be read.
        lanes: Vec<Payload>,
        /// Which frames it holds, and whether it can be used.
        status: TargetStatus,
    },
    /// A checkpoint.
    Checkpoint(Checkpoint),
    /// A context reset.
    Reset(Reset),
    /// A rewind.
    Rewind(Rewind),
    /// A quality switch.
    Quality(Quality),
    /// A model switch.
    ModelSwitch(ModelSwitch),
    /// An exact frame.
    ExactFrame {
        /// The frame's absolute index.
        index: u64,
        /// The epoch in which it was coded.
        epoch: u32,
        /// The type of the hidden values.
        dtype: Dtype,
        /// The joined payload.
        payload: Payload,
        /// The hidden state, little-endian values.
        hidden: Payload,
        /// As in [`Chunk::Frame`].
        check: Option<OpenCheck>,
    },
    /// Side indices of the next frames ([CTRL-10]).
    SideIndices {
        /// The absolute index of the first of them.
        index: u64,
        /// How many.
        count: u32,
        /// The payload, which needs a model.
        payload: Payload,
    },
    /// An ignorable extension.
    Extension(Extension),
    /// The end chunk.
    End(End),
    /// The seek index of a file.
    SeekIndex(SeekIndex),
    /// The footer of a file.
    Footer,
}

/// The state of a target (spec 6.5). The container knows which frames had a hyper-prior in which epoch; only the
/// decoder knows whether they still wait for a target, and it also keeps early ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetStatus {
    /// The check holds and the frames had their hyper-priors coded in this epoch.
    Usable {
        /// The first frame's absolute index.
        index: u64,
        /// The epoch.
        epoch: u32,
    },
    /// The check holds, but the frames, or their epoch, have not come yet: [`super::Sequence::target_status`] says when
    /// they have.
    Early {
        /// The first frame's absolute index.
        index: u64,
        /// The epoch.
        epoch: u32,
    },
    /// The check holds, but the frames were rewound, dropped by a new context, or have no target.
    Late {
        /// The first frame's absolute index.
        index: u64,
        /// The epoch.
        epoch: u32,
    },
    /// The check does not hold for any frames that the chunk can mean, or the body cannot be read ([CHECK-2]). A
    /// datagram that is not a target is damaged too ([MSG-7]).
    Damaged,
    /// A datagram for which the reader had no room: more waited to be polled than [`super::Limits::early_bytes`]
    /// allows.
    NoRoom,
}

impl TargetStatus {
    /// Whether the target can be decoded, if its frames still wait for it.
    #[must_use]
    pub const fn is_usable(self) -> bool {
        matches!(self, TargetStatus::Usable { .. })
    }
}

impl Chunk {
    /// The payloads of a frame, batch, target or chunk of side indices, lane by lane; none for other chunks.
    #[must_use]
    pub fn payloads(&self) -> &[Payload] {
        match self {
            Chunk::Frame { payload, .. } | Chunk::ExactFrame { payload, .. } | Chunk::SideIndices { payload, .. } => {
                std::slice::from_ref(payload)
            }
            Chunk::Batch { lanes, .. } | Chunk::Target { lanes, .. } => lanes,
            _ => &[],
        }
    }

    /// The bytes of [`Chunk::payloads`].
    pub fn payload_bytes(&self) -> impl Iterator<Item = &Bytes> {
        self.payloads().iter().map(|payload| &payload.bytes)
    }
}
