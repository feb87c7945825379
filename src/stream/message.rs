//! Messages as a writer hands them out: bytes, and what a transport must know about them (spec 2.4).

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::saved::{Saved, saved_fields};

/// How a transport must carry a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageClass {
    /// The stream header: before all others, and without loss.
    Header,
    /// Any chunk but a target: without loss, and in order.
    Reliable,
    /// A target (C2, C3): it may be lost, duplicated, late, early or out of order, so a datagram is good enough. The
    /// receiver takes it with [`crate::stream::Reader::push_target`].
    Droppable,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The message, whole. Never empty.
    pub bytes: Bytes,
    /// How it must be carried.
    pub class: MessageClass,
    /// Absolute indices of the frames that it holds, whole or in part; empty for the header and control chunks.
    pub frames: Range<u64>,
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Saved for MessageClass {
    fn save(&self, out: &mut BytesMut) {
        match self {
            MessageClass::Header => 0_u8,
            MessageClass::Reliable => 1,
            MessageClass::Droppable => 2,
        }
        .save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        match u8::load(input)? {
            0 => Some(MessageClass::Header),
            1 => Some(MessageClass::Reliable),
            2 => Some(MessageClass::Droppable),
            _ => None,
        }
    }
}

saved_fields!(Message { bytes, class, frames });
