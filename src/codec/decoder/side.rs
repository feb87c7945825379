//! Side indices of a stream's frames: from the stream, or from the caller, for whom chunks wait (spec 6.12).

use std::collections::VecDeque;

use super::frames::payload_error;
use super::{Decoder, Next, WaitingChunk, Working};
use crate::codec::event::DecoderEvent;
use crate::codec::side;
use crate::engine::{Engine, side as side_payload};
use crate::entropy::{EntropyError, max_payload_len};
use crate::error::{Detail, Error, ErrorKind, Limit, Result};
use crate::number::to_u64;
use crate::stream::memory::settle_queue;
use crate::wire::Payload;

/// A chunk of side indices.
#[derive(Clone, Debug)]
pub(in crate::codec) struct SentSide {
    pub(super) index: u64,
    pub(super) count: usize,
    pub(super) payload: Payload,
    pub(super) offset: u64,
}

impl<E: Engine> Decoder<E> {
    /// Begins to decode a chunk, once it has the side indices of all its frames.
    pub(super) fn begin(&mut self, chunk: WaitingChunk) -> Result<Option<Next<E::Hidden>>> {
        let mut sums = Vec::new();
        if let Some(side) = self.engine.codec().model().side() {
            // [SIDE-3] Where no index is left in the stream, the decoder MUST tell its caller which frames of the chunk
            // lack one, first and count, and hold the chunk until the caller gives them; datagrams are judged meanwhile.
            let lacking = chunk.count.saturating_sub(chunk.side.len());
            if lacking > 0 {
                return self.ask_side(chunk, lacking);
            }
            // [CHECK-3] In a stream with the side flag the checks of one-frame chunks, C1 and C9 are judged by the
            // decoder, once it has the side indices of the chunk's frames.
            chunk.check.map_or(Ok(()), |check| check.judge(&chunk.side))?;
            sums = self.side_history.sums(side, &chunk.side);
        }
        self.check_lengths(&chunk)?;
        let past = self.past_frames.last(self.engine.codec().model());
        self.working = Some(Working { chunk, done: 0, sums, past, partial: None });
        Ok(Some(Next::Decode))
    }

    /// Holds a chunk of which the last `lacking` frames have no side index.
    fn ask_side(&mut self, chunk: WaitingChunk, lacking: usize) -> Result<Option<Next<E::Hidden>>> {
        let (asked, offset) = (chunk.asked, chunk.offset);
        let index = chunk.index.saturating_add(to_u64(chunk.side.len()));
        self.waiting = Some(WaitingChunk { asked: true, ..chunk });
        if !asked {
            self.tell(DecoderEvent::SideWanted { index, count: lacking });
            return Ok(None);
        }
        if let Some(event) = self.reader.poll_target(self.next_index()) {
            return self.take(event).map(|()| None);
        }
        if self.reader.finished() {
            let detail = Detail::Id { what: "give the side indices from frame", found: index };
            return Err(Error::new(ErrorKind::WrongSideIndices, offset).with(detail));
        }
        Ok(Some(Next::NeedMore))
    }

    /// The frames whose side indices a chunk waits for, which the stream does not hold: the absolute index of the first
    /// one, and how many ([`Decoder::give_side`], [SIDE-3]). `None` if no chunk waits for any.
    pub fn wanted_side(&self) -> Option<(u64, usize)> {
        let chunk = self.waiting.as_ref().filter(|chunk| chunk.asked)?;
        let lacking = chunk.count.saturating_sub(chunk.side.len());
        (lacking > 0).then(|| (chunk.index.saturating_add(to_u64(chunk.side.len())), lacking))
    }

    /// Gives the side indices that [`DecoderEvent::SideWanted`] asks for, one for each of these frames, each at most V,
    /// the model's vocabulary, which says that a frame has none. Poll again afterwards.
    ///
    /// # Errors
    /// [`ErrorKind::WrongSideIndices`] for another number of indices, for one above V, or if no chunk waits for any; nothing
    /// changes then. The sticky error, if the session has one.
    pub fn give_side(&mut self, indices: &[u32]) -> Result<()> {
        self.failed.map_or(Ok(()), Err)?;
        // [SIDE-4] A decoder MUST refuse others, and another number of indices than it asked for (error 812).
        side::check(self.engine.codec().model().side(), indices)?;
        let wanted = self.wanted_side().map_or(0, |(_, count)| count);
        match &mut self.waiting {
            Some(chunk) if wanted > 0 && indices.len() == wanted => {
                // The memory check counted no more.
                chunk.side.reserve_exact(indices.len());
                chunk.side.extend_from_slice(indices);
                Ok(())
            }
            _ => Err(side::wrong_count(wanted, indices.len())),
        }
    }

    /// Decodes side indices from the stream, or drops an early target that is in their way.
    pub(super) fn take_side(&mut self, sent: SentSide) -> Result<()> {
        if self.bytes_for_side(&sent) > self.config.memory_limit {
            // Scratch memory is freed first, then early targets, one in each step ([DEC-22]).
            self.queue = VecDeque::new();
            self.free();
            let needed = self.bytes_for_side(&sent);
            if needed > self.config.memory_limit {
                let error = self.no_room("bytes for side indices", needed, sent.offset);
                self.sent_side = Some(sent);
                return if self.drop_early()? { Ok(()) } else { Err(error) };
            }
        }
        let SentSide { index, count, payload, .. } = sent;
        let Some(side) = self.engine.codec().model().side() else { return Ok(()) };
        let indices = side_payload::decode(side, &payload.bytes, count).map_err(|fault| {
            let error = payload_error(&payload, fault);
            match fault {
                EntropyError::TooLong => {
                    let (most, found) = (max_payload_len(to_u64(count), 2), to_u64(payload.bytes.len()));
                    error.with(Detail::Limit { what: "bytes in a payload", limit: Limit::Format, most, found })
                }
                _ => error,
            }
        })?;
        self.side_queue = indices.iter().copied().collect();
        self.tell(DecoderEvent::SideIndices { index, indices });
        Ok(())
    }

    /// Bytes for side indices from the stream, in addition to what is held.
    fn bytes_for_side(&self, sent: &SentSide) -> usize {
        // Whether parts of pending frames have come must not decide whether they fit. Each index is in the queue and in
        // the event, 4 bytes each; while they are decoded both parts of each, their tables and shifts take 24.
        let parts = self.pending.bytes_for_parts(self.codec().model().hidden_width());
        let held = [parts, sent.payload.bytes.len()].into_iter().fold(self.bytes_held(), usize::saturating_add);
        held.saturating_add(sent.count.saturating_mul(4 + 4 + 24))
    }

    /// The next side indices from the stream, of a chunk of `count` frames; fewer if fewer are left.
    pub(super) fn next_side(&mut self, count: usize) -> Vec<u32> {
        let indices = self.side_queue.drain(..count.min(self.side_queue.len())).collect();
        settle_queue(&mut self.side_queue);
        indices
    }
}
