//! Memory of readers and writers: waiting input, queues, and how both give memory back.

use std::collections::VecDeque;
use std::ops::Deref;

use bytes::{Bytes, BytesMut};

use super::saved::Saved;

/// A buffer or queue keeps up to this many bytes for later use.
const KEPT: usize = 1 << 14;

/// Input that was pushed and not yet consumed.
///
/// Consumed input is copied out: no event keeps more than its own chunk in memory, and the buffer shrinks with what is
/// left in it.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// Bytes consumed, at most half of all.
    start: usize,
}

impl Clone for Input {
    fn clone(&self) -> Self {
        Self { bytes: self.to_vec(), start: 0 }
    }
}

impl Deref for Input {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or(&[])
    }
}

impl Input {
    pub(super) fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the first bytes out.
    pub(super) fn split_to(&mut self, count: usize) -> Bytes {
        let taken = Bytes::copy_from_slice(self.get(..count).unwrap_or(self));
        self.advance(count);
        taken
    }

    /// Drops the first bytes.
    pub(super) fn advance(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.bytes.len());
        // Once half of it is consumed the rest moves to the front: each byte moves once on average.
        if self.start >= self.bytes.len().saturating_sub(self.start) {
            self.bytes.drain(..self.start);
            self.start = 0;
            if self.bytes.capacity() > KEPT {
                self.bytes.shrink_to(self.bytes.len().max(KEPT));
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Saved for Input {
    fn save(&self, out: &mut BytesMut) {
        self.len().save(out);
        out.extend_from_slice(self);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        Bytes::load(input).map(|bytes| Self { bytes: bytes.to_vec(), start: 0 })
    }
}

/// Bytes of a queue's slots, without what their values hold elsewhere.
pub(crate) fn queue_bytes<T>(queue: &VecDeque<T>) -> usize {
    queue.capacity().saturating_mul(size_of::<T>())
}

/// The most bytes that a buffer or queue with this many slots gains in taking `more` values, including while it grows:
/// it grows to at most twice what it then holds, and keeps its old slots until the values have moved.
#[cfg(feature = "codec")]
pub(crate) fn growth<T>(len: usize, capacity: usize, more: usize) -> usize {
    /// Slots of the smallest one.
    const FEWEST: usize = 8;
    let after = len.saturating_add(more);
    match after <= capacity {
        true => 0,
        false => after.max(FEWEST).saturating_mul(3).saturating_sub(capacity).saturating_mul(size_of::<T>()),
    }
}

/// Gives back most of the memory that a queue no longer needs.
pub(crate) fn settle_queue<T>(queue: &mut VecDeque<T>) {
    if queue_bytes(queue) > KEPT && queue.len() < queue.capacity() / 4 {
        queue.shrink_to(queue.len().saturating_mul(2));
    }
}

/// Bytes of a message's reference count, allocated when the message is first cloned.
const SHARED: usize = 3 * size_of::<usize>();

/// Waiting messages and the sum of their bytes, which is needed at every chunk. Each buffer has exactly its message's
/// length.
#[derive(Clone, Debug)]
pub(super) struct Messages<M> {
    queue: VecDeque<M>,
    bytes: usize,
}

impl<M> Default for Messages<M> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), bytes: 0 }
    }
}

impl<M: AsRef<[u8]>> Messages<M> {
    pub(super) fn push_back(&mut self, message: M) {
        self.bytes = self.bytes.saturating_add(message.as_ref().len());
        self.queue.push_back(message);
    }

    pub(super) fn front(&self) -> Option<&M> {
        self.queue.front()
    }

    pub(super) fn pop_front(&mut self) -> Option<M> {
        let message = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(message.as_ref().len());
        settle_queue(&mut self.queue);
        Some(message)
    }

    /// The sum of the messages' bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let shared = self.queue.len().saturating_mul(SHARED);
        queue_bytes(&self.queue).saturating_add(self.bytes).saturating_add(shared)
    }

    /// The most bytes that the queue gains by this many more messages with this many bytes in all, including while it
    /// grows.
    #[cfg(feature = "codec")]
    pub(super) fn growth(&self, more: usize, bytes: usize) -> usize {
        let places = growth::<M>(self.queue.len(), self.queue.capacity(), more);
        more.saturating_mul(SHARED).saturating_add(bytes).saturating_add(places)
    }
}

impl<M: AsRef<[u8]> + Saved> Saved for Messages<M> {
    fn save(&self, out: &mut BytesMut) {
        self.queue.save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        let queue = VecDeque::<M>::load(input)?;
        let bytes = queue.iter().map(|message| message.as_ref().len()).fold(0, usize::saturating_add);
        Some(Self { queue, bytes })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn input_comes_out_as_it_went_in_and_gives_its_memory_back() {
        let mut input = Input::default();
        let all: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
        let (mut pushed, mut taken) = (0, 0);
        for (push, take) in [(1_000_000, 10), (0, 400_000), (0, 200_000), (0, 380_000), (0, 9_000), (0, 990)] {
            input.extend_from_slice(&all[pushed..pushed + push]);
            pushed += push;
            assert_eq!(&input.split_to(take)[..], &all[taken..taken + take]);
            taken += take;
            assert_eq!(input[..], all[taken..pushed]);
            assert_eq!(input.clone()[..], all[taken..pushed]);
            assert!(
                input.memory_bytes() <= (2 * input.len()).max(KEPT),
                "{} for {}",
                input.memory_bytes(),
                input.len()
            );
        }
        // More than the input has.
        input.advance(10_001);
        input.extend_from_slice(b"ab");
        assert_eq!(&input.split_to(9)[..], b"ab");
        input.advance(9);
        assert!(input.is_empty());
    }

    #[test]
    fn messages_know_their_bytes() {
        let mut messages = Messages::default();
        (0..1_000).for_each(|length| messages.push_back(Bytes::from(vec![7; length])));
        assert_eq!(messages.bytes(), 999 * 500);
        let mut saved = BytesMut::new();
        messages.save(&mut saved);
        assert_eq!(Messages::<Bytes>::load(&mut &saved[..]).unwrap().bytes(), 999 * 500);
        (0..990).for_each(|length| assert_eq!(messages.pop_front().unwrap().len(), length));
        assert_eq!(messages.bytes(), (990..1_000).sum::<usize>());
        while messages.pop_front().is_some() {}
        assert_eq!(messages.bytes(), 0);
        // The memory that the messages take: slots, bytes and reference counts. Slots are given back.
        let one = size_of::<Bytes>() + SHARED + 5;
        let mut messages = Messages::default();
        for count in 1..=10_000 {
            #[cfg(feature = "codec")]
            let most = messages.memory_bytes() + messages.growth(1, 5);
            messages.push_back(Bytes::from_static(b"bytes"));
            assert!(messages.memory_bytes() >= count * one, "{count}: {}", messages.memory_bytes());
            #[cfg(feature = "codec")]
            assert!(messages.memory_bytes() <= most, "{count}: {}", messages.memory_bytes());
            assert_eq!(messages.memory_bytes(), count * (SHARED + 5) + queue_bytes(&messages.queue));
        }
        (0..9_990).for_each(|_| drop(messages.pop_front()));
        assert!(messages.memory_bytes() < 10 * one + KEPT, "{}", messages.memory_bytes());
    }

    #[test]
    fn queues_shrink() {
        let mut queue: VecDeque<u64> = (0..100_000).collect();
        while queue.len() > 10 {
            queue.pop_front();
            settle_queue(&mut queue);
        }
        assert!(queue_bytes(&queue) <= KEPT && queue.iter().copied().eq(99_990..100_000));
    }
}
