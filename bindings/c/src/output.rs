//! Bytes that the library hands out without a copy.

use std::ffi::c_void;

use bytes::Bytes;
use midspan::stream::{Message, MessageClass};

use crate::memory::{Buffer, Out, out, sent};
use crate::result::{Failure, guard};

/// Bytes that the library made. They are the library's own memory, not a copy, and stay valid until
/// `midspan_bytes_free`, also if the handle that gave them is freed before.
///
/// The struct owns the bytes. A copy of the struct is no second owner: free one of the two, and use neither afterwards.
/// A function that writes the struct does not free what it held before.
#[repr(C)]
pub struct midspan_bytes {
    /// The first byte; NULL if there is none.
    pub data: *const u8,
    /// How many.
    pub len: usize,
    /// For the library.
    pub owner: *mut c_void,
}

// Another thread may free them.
const _: () = sent::<Bytes>();

impl midspan_bytes {
    pub(crate) const EMPTY: midspan_bytes =
        midspan_bytes { data: std::ptr::null(), len: 0, owner: std::ptr::null_mut() };

    pub(crate) fn new(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return Self::EMPTY;
        }
        // The bytes lie elsewhere, and do not move with their owner.
        let owner = Box::new(bytes);
        Self { data: owner.as_ptr(), len: owner.len(), owner: Box::into_raw(owner).cast() }
    }
}

/// Frees bytes that the library made, and sets the struct to no bytes, so that a second call with it does nothing. NULL
/// is ignored, and so are bytes without an owner.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_bytes_free(bytes: *mut midspan_bytes) {
    guard(|| {
        if bytes.is_null() {
            return Ok(());
        }
        // SAFETY: not NULL, so the caller promises that it is a struct of bytes.
        let owner = unsafe { bytes.replace(midspan_bytes::EMPTY) }.owner;
        if !owner.is_null() {
            // SAFETY: `midspan_bytes::new` made it of this type, and the struct that held it no longer does.
            drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
        }
        Ok(())
    });
}

/// How a transport must carry a message (spec 2.4).
pub type midspan_message_class = u32;

/// There is no message.
pub const MIDSPAN_MESSAGE_NONE: midspan_message_class = 0;
/// The stream header: before all others, and without loss.
pub const MIDSPAN_MESSAGE_HEADER: midspan_message_class = 1;
/// Any chunk but a target: without loss, and in order.
pub const MIDSPAN_MESSAGE_RELIABLE: midspan_message_class = 2;
/// A target: it may be lost, repeated, late, early or out of order, so a datagram is good enough. The receiver takes it
/// with `midspan_decoder_push_datagram`.
pub const MIDSPAN_MESSAGE_DROPPABLE: midspan_message_class = 3;

/// A message of the message binding.
#[repr(C)]
pub struct midspan_message {
    /// The whole message; free it. It has no bytes if there is no message: a message is never empty.
    pub bytes: midspan_bytes,
    /// How it must be carried; MIDSPAN_MESSAGE_NONE if there is no message.
    pub message_class: midspan_message_class,
    /// Absolute index of the first frame that it holds, whole or in part.
    pub first_frame: u64,
    /// Absolute index after the last frame that it holds; `first_frame` if it holds none.
    pub end_frame: u64,
}

impl midspan_message {
    const NONE: midspan_message = midspan_message {
        bytes: midspan_bytes::EMPTY,
        message_class: MIDSPAN_MESSAGE_NONE,
        first_frame: 0,
        end_frame: 0,
    };

    /// What is said about a message, with these bytes.
    fn about(message: &Message, bytes: midspan_bytes) -> Self {
        let message_class = match message.class {
            MessageClass::Header => MIDSPAN_MESSAGE_HEADER,
            MessageClass::Reliable => MIDSPAN_MESSAGE_RELIABLE,
            MessageClass::Droppable => MIDSPAN_MESSAGE_DROPPABLE,
        };
        Self { bytes, message_class, first_frame: message.frames.start, end_frame: message.frames.end }
    }
}

/// A session or writer whose output can be taken.
pub(crate) trait Output {
    fn take(&mut self) -> midspan::error::Result<Bytes>;
    fn untaken(&self) -> usize;
    fn pop(&mut self) -> midspan::error::Result<Option<Message>>;
    fn next(&self) -> Option<&Message>;
}

macro_rules! output {
    ($session:ty, $take:ident) => {
        impl Output for $session {
            fn take(&mut self) -> midspan::error::Result<Bytes> {
                self.$take()
            }

            fn untaken(&self) -> usize {
                self.untaken_bytes()
            }

            fn pop(&mut self) -> midspan::error::Result<Option<Message>> {
                self.pop_message()
            }

            fn next(&self) -> Option<&Message> {
                self.next_message()
            }
        }
    };
}

output!(midspan::codec::Encoder, take_bytes);
output!(midspan::stream::Writer, take);

pub(crate) fn take(session: &mut impl Output, bytes: &Out<midspan_bytes>) -> Result<(), Failure> {
    bytes.set(midspan_bytes::new(session.take()?));
    Ok(())
}

/// Output copied to the caller's buffer. If it does not fit, nothing is taken, and `len` says how much there is.
pub(crate) fn take_into(session: &mut impl Output, buffer: &Buffer<u8>, len: &Out<usize>) -> Result<(), Failure> {
    let needed = session.untaken();
    buffer.holds(needed).inspect_err(|_| len.set(needed))?;
    let taken = session.take()?;
    buffer.fill(&taken)?;
    len.set(taken.len());
    Ok(())
}

pub(crate) fn pop(session: &mut impl Output, message: &Out<midspan_message>) -> Result<(), Failure> {
    message.set(match session.pop()? {
        Some(popped) => midspan_message::about(&popped, midspan_bytes::new(popped.bytes.clone())),
        None => midspan_message::NONE,
    });
    Ok(())
}

/// A message copied to the caller's buffer. If it does not fit, it stays the next one, and `message` describes it.
pub(crate) fn pop_into(
    session: &mut impl Output,
    buffer: &Buffer<u8>,
    message: &Out<midspan_message>,
) -> Result<(), Failure> {
    if let Some(next) = session.next() {
        let bytes = midspan_bytes { len: next.bytes.len(), ..midspan_bytes::EMPTY };
        buffer.holds(next.bytes.len()).inspect_err(|_| message.set(midspan_message::about(next, bytes)))?;
    }
    message.set(match session.pop()? {
        Some(popped) => {
            buffer.fill(&popped.bytes)?;
            let bytes = midspan_bytes { data: buffer.place(), len: popped.bytes.len(), owner: std::ptr::null_mut() };
            midspan_message::about(&popped, bytes)
        }
        None => midspan_message::NONE,
    });
    Ok(())
}

/// Bytes handed to C, given a place for them.
///
/// # Safety
/// As [`out`].
pub(crate) unsafe fn give_bytes(
    place: *mut midspan_bytes,
    make: impl FnOnce() -> Result<Bytes, Failure>,
) -> Result<(), Failure> {
    // SAFETY: the caller's promise is the same.
    let place = unsafe { out(place, "bytes") }?;
    place.set(midspan_bytes::new(make()?));
    Ok(())
}
