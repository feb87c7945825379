//! The reader: bytes or messages in, events out.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::Binding;
use super::body;
use super::event::{Chunk, Event, Poll, TargetStatus};
use super::limits::{EARLY_CHUNKS, Limits};
use super::memory::{self, Input, Messages};
use super::saved::{self, Saved, saved_fields};
use super::sequence::Sequence;
use crate::error::{Detail, Error, ErrorKind};
use crate::number::{to_u64, to_usize};
use crate::setters::setters;
use crate::wire::header::stated;
use crate::wire::kind::{self, Length};
use crate::wire::seek_index::{self, FOOTER_BYTES};
use crate::wire::{Kind, Mode, SeekIndex, StreamHeader};

/// How a reader is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReaderConfig {
    /// Who delimits the chunks.
    pub binding: Binding,
    /// The caller's limits; the header's apply if they are smaller.
    pub limits: Limits,
}

impl ReaderConfig {
    setters! {
        const
        binding: Binding,
        limits: Limits,
    }
}

/// The place where a reader joins a stream that it has not followed (spec 6.6).
///
/// Index and epoch are taken from the context reset or model switch at that place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinPoint {
    /// The offset of the first byte that will be pushed, from the first byte of the stream header.
    pub offset: u64,
    /// The absolute index of the next frame, if a seek index gave it; it must then be the chunk's ([FILE-3]).
    pub index: Option<u64>,
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Header,
    /// The first chunk of a reader that joins.
    Join(JoinPoint),
    Chunks,
    /// After the end chunk of a file.
    SeekIndex,
    /// After a seek index at this offset.
    Footer(u64),
    /// After the end.
    Ended,
}

/// A reader of one stream.
///
/// 1. [`Reader::push`] bytes as they come, or [`Reader::push_message`] messages.
/// 2. [`Reader::poll`] until it says [`Poll::NeedMore`] or [`Poll::End`].
/// 3. When no more input will come, call [`Reader::finish`]: from then on an unfinished stream is an error
///    ([`ErrorKind::Truncated`]) instead of a wait.
///
/// If the transport carries targets as datagrams, give them to [`Reader::push_target`], in either binding.
///
/// The reader holds what was pushed and not yet polled; it allocates nothing for lengths that the stream declares. An
/// event keeps its own chunk in memory and nothing else of the input.
#[derive(Clone, Debug)]
pub struct Reader {
    config: ReaderConfig,
    phase: Phase,
    /// The offset of the first byte that was not consumed yet.
    base: u64,
    buffer: Input,
    messages: Messages<Bytes>,
    /// The offset after the last byte that was pushed, datagrams not counted.
    pushed: u64,
    datagrams: Datagrams,
    finished: bool,
    failed: Option<Error>,
    header: Option<StreamHeader>,
    sequence: Option<Sequence>,
}

/// Datagrams that were pushed and not yet polled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Datagrams {
    waiting: VecDeque<Datagram>,
    /// Bytes of the waiting datagrams, each with its overhead.
    bytes: usize,
    /// The number of datagrams that found no room and have no event yet; it stops at 65,535.
    refused: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Datagram {
    /// The offset after the last byte that was pushed before it.
    at: u64,
    bytes: Bytes,
}

impl Datagrams {
    fn cost(datagram: &[u8]) -> usize {
        size_of::<Datagram>().saturating_add(datagram.len())
    }

    fn push(&mut self, at: u64, datagram: &[u8], limit: u32) {
        let bytes = self.bytes.saturating_add(Self::cost(datagram));
        if to_u64(bytes) > u64::from(limit) || self.waiting.len() >= EARLY_CHUNKS {
            self.refused = self.refused.saturating_add(1);
            return;
        }
        self.bytes = bytes;
        self.waiting.push_back(Datagram { at, bytes: Bytes::copy_from_slice(datagram) });
    }

    fn pop(&mut self) -> Option<Bytes> {
        let Datagram { bytes, .. } = self.waiting.pop_front()?;
        memory::settle_queue(&mut self.waiting);
        self.bytes = self.bytes.saturating_sub(Self::cost(&bytes));
        Some(bytes)
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.refused == 0
    }
}

saved_fields!(Datagram { at, bytes });
saved_fields!(JoinPoint { offset, index });

impl Saved for Phase {
    fn save(&self, out: &mut BytesMut) {
        let (number, point): (u8, JoinPoint) = match *self {
            Phase::Header => (0, JoinPoint::default()),
            Phase::Join(point) => (1, point),
            Phase::Chunks => (2, JoinPoint::default()),
            Phase::SeekIndex => (3, JoinPoint::default()),
            Phase::Footer(offset) => (4, JoinPoint { offset, index: None }),
            Phase::Ended => (5, JoinPoint::default()),
        };
        (number, point).save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        let (number, point) = <(u8, JoinPoint)>::load(input)?;
        match number {
            0 => Some(Phase::Header),
            1 => Some(Phase::Join(point)),
            2 => Some(Phase::Chunks),
            3 => Some(Phase::SeekIndex),
            4 => Some(Phase::Footer(point.offset)),
            5 => Some(Phase::Ended),
            _ => None,
        }
    }
}

impl Reader {
    /// The reader as bytes, including input not yet polled, for [`Reader::restore`] in another process.
    ///
    /// The form belongs to this version of the library; it is not a wire format.
    ///
    /// # Errors
    /// The reader's own error, if it failed: a failed reader has nothing else to save.
    pub fn save(&self) -> Result<Vec<u8>, Error> {
        self.failed.map_or(Ok(()), Err)?;
        Ok(saved::seal(saved::READER, |out| self.save_to(out)))
    }

    /// The reader that [`Reader::save`] wrote, under the caller's limits.
    ///
    /// # Errors
    /// [`ErrorKind::SavedSession`], also for a reader of another binding.
    pub fn restore(config: ReaderConfig, saved: &[u8]) -> Result<Reader, Error> {
        saved::restore(saved::READER, saved, |input| Reader::load_from(config, input))
    }

    /// Appends what [`Reader::load_from`] reads.
    pub(crate) fn save_to(&self, out: &mut BytesMut) {
        (self.config.binding, self.phase).save(out);
        (self.base, self.finished).save(out);
        (self.buffer.clone(), self.messages.clone()).save(out);
        (self.datagrams.waiting.clone(), self.datagrams.refused).save(out);
        self.header.save(out);
        if let Some(sequence) = &self.sequence {
            sequence.save(out);
        }
    }

    /// The reader that [`Reader::save_to`] wrote, under the caller's limits; `None` if the bytes are invalid, or of another
    /// binding.
    pub(crate) fn load_from(config: ReaderConfig, input: &mut &[u8]) -> Option<Reader> {
        let (binding, phase) = <(Binding, Phase)>::load(input)?;
        let (base, finished) = Saved::load(input)?;
        let (buffer, messages) = <(Input, Messages<Bytes>)>::load(input)?;
        let (waiting, refused) = <(VecDeque<Datagram>, u16)>::load(input)?;
        let bytes =
            waiting.iter().fold(0, |sum, datagram| usize::saturating_add(sum, Datagrams::cost(&datagram.bytes)));
        let pushed = u64::saturating_add(base, to_u64(buffer.len())).saturating_add(to_u64(messages.bytes()));
        let datagrams = Datagrams { waiting, bytes, refused };
        let header: Option<StreamHeader> = Saved::load(input)?;
        let sequence = match &header {
            Some(header) => Some(Sequence::restore(header, config.limits, input)?),
            None => None,
        };
        let fits = binding == config.binding
            && header.as_ref().is_none_or(|header| header.binding == binding)
            && header.is_none() == (phase == Phase::Header);
        fits.then_some(Reader {
            config,
            phase,
            base,
            buffer,
            messages,
            pushed,
            datagrams,
            finished,
            failed: None,
            header,
            sequence,
        })
    }

    /// A reader of a stream from its first byte on.
    #[must_use]
    pub fn new(config: ReaderConfig) -> Reader {
        Reader {
            config,
            phase: Phase::Header,
            base: 0,
            buffer: Input::default(),
            messages: Messages::default(),
            pushed: 0,
            datagrams: Datagrams::default(),
            finished: false,
            failed: None,
            header: None,
            sequence: None,
        }
    }

    /// A reader that joins a stream at a context reset or model switch. `header` is known from elsewhere; the first
    /// bytes or the first message pushed are those of that chunk.
    ///
    /// Another chunk there is [`ErrorKind::IndexMismatch`]. A header of the other binding is
    /// [`ErrorKind::WrongBinding`], at the first call.
    #[must_use]
    pub fn join(config: ReaderConfig, header: StreamHeader, point: JoinPoint) -> Reader {
        let wrong = Error::new(ErrorKind::WrongBinding, header.flags_offset()).with(stated(header.binding));
        Reader {
            phase: Phase::Join(point),
            base: point.offset,
            pushed: point.offset,
            failed: (header.binding != config.binding).then_some(wrong),
            sequence: Some(Sequence::new(&header, config.limits)),
            header: Some(header),
            ..Reader::new(config)
        }
    }

    /// The stream header, once it was read.
    #[must_use]
    pub fn header(&self) -> Option<&StreamHeader> {
        self.header.as_ref()
    }

    /// Whether no more input comes.
    #[cfg(feature = "codec")]
    pub(crate) fn finished(&self) -> bool {
        self.finished
    }

    /// The error that ended the reader, if one did.
    #[cfg(feature = "codec")]
    pub(crate) fn failure(&self) -> Option<Error> {
        self.failed
    }

    /// The state after the last event, once the header was read.
    #[must_use]
    pub fn sequence(&self) -> Option<&Sequence> {
        self.sequence.as_ref()
    }

    /// The offset of the first byte that no event covers yet.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.base
    }

    /// Bytes that the reader holds in addition to its own size: input not yet polled, the header's fields, and what it
    /// knows about the frames that targets may name.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let sequence = self.sequence.as_ref().map_or(0, Sequence::memory_bytes);
        let header = self.header.as_ref().map_or(0, StreamHeader::memory_bytes);
        self.input_bytes().saturating_add(sequence).saturating_add(header)
    }

    /// Bytes of input not yet polled, with its buffers.
    pub(crate) fn input_bytes(&self) -> usize {
        let datagrams = memory::queue_bytes(&self.datagrams.waiting).saturating_add(self.datagrams.bytes);
        [self.buffer.memory_bytes(), self.messages.memory_bytes()].into_iter().fold(datagrams, usize::saturating_add)
    }

    /// Hands over the next bytes of a byte stream or file, cut anywhere.
    ///
    /// # Errors
    /// The error of an earlier poll; [`ErrorKind::AfterEnd`] after [`Reader::finish`]; [`ErrorKind::NotAvailable`] in
    /// the message binding.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.accept(Binding::ByteStream)?;
        self.buffer.extend_from_slice(bytes);
        self.pushed = self.pushed.saturating_add(to_u64(bytes.len()));
        Ok(())
    }

    /// Hands over the next message, whole. An empty one is skipped ([MSG-6]).
    ///
    /// # Errors
    /// The error of an earlier poll; [`ErrorKind::AfterEnd`] after [`Reader::finish`]; [`ErrorKind::NotAvailable`] in
    /// the byte stream binding.
    pub fn push_message(&mut self, message: &[u8]) -> Result<(), Error> {
        self.accept(Binding::Message)?;
        // [MSG-6] An empty message is no chunk: a reader MUST skip it wherever it comes.
        if !message.is_empty() {
            self.messages.push_back(Bytes::copy_from_slice(message));
            self.pushed = self.pushed.saturating_add(to_u64(message.len()));
        }
        Ok(())
    }

    /// Hands over a datagram from a path that may lose, repeat or reorder. It should be one message of class
    /// [`super::MessageClass::Droppable`]. Both bindings allow it, at any time, also after [`Reader::finish`].
    ///
    /// Any bytes are allowed. Each datagram that is not empty gives one [`Chunk::Target`] event, after the events of
    /// all whole chunks that were pushed before it. No datagram ends the stream ([MSG-7]), and none counts in offsets.
    ///
    /// At most [`EARLY_CHUNKS`] datagrams and [`Limits::early_bytes`] wait to be polled; beyond that the event is
    /// [`TargetStatus::NoRoom`], or there is none if 65,535 such events wait already.
    ///
    /// # Errors
    /// The error of an earlier poll.
    pub fn push_target(&mut self, datagram: &[u8]) -> Result<(), Error> {
        self.failed.map_or(Ok(()), Err)?;
        if !datagram.is_empty() {
            self.datagrams.push(self.pushed, datagram, self.config.limits.early_bytes);
        }
        Ok(())
    }

    /// The answer to the oldest waiting datagram, ahead of what was pushed before it. A caller uses this while it holds
    /// the last event back until a target comes ([DEC-14]). `next` is the index of the next frame for that caller: the
    /// first frame of the chunk that it holds back. `None` without a datagram, or after an error.
    pub fn poll_target(&mut self, next: u64) -> Option<Event> {
        if self.failed.is_some() {
            return None;
        }
        let chunk = match self.datagrams.pop() {
            Some(datagram) => self.judge_datagram(&datagram, next),
            None => {
                self.datagrams.refused = self.datagrams.refused.checked_sub(1)?;
                body::no_target(TargetStatus::NoRoom)
            }
        };
        Some(Event { offset: self.base, body_offset: self.base, bytes: 0, chunk })
    }

    /// [MSG-7] In layered mode, once the stream has begun, bytes that are no message of kind C2 or C3 within the limit
    /// are a damaged target.
    fn judge_datagram(&self, datagram: &Bytes, next: u64) -> Chunk {
        let begun = !matches!(self.phase, Phase::Header | Phase::Join(_));
        match (&self.sequence, kind::load_message(datagram)) {
            (Some(sequence), Ok(Some((kind, length))))
                if begun
                    && sequence.mode() == Mode::Layered
                    && kind.is_target()
                    && to_u64(length.body) <= u64::from(sequence.limits().max_chunk_bytes) =>
            {
                let end = length.head.saturating_add(length.body).min(datagram.len());
                body::absolute(
                    body::target(sequence, next, kind, &datagram.slice(length.head.min(end)..end)),
                    self.base,
                )
            }
            _ => body::no_target(TargetStatus::Damaged),
        }
    }

    /// Says that no more input will come.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The next event, a wait, the end, or the one error that ends the reader ([ERR-2]).
    ///
    /// # Errors
    /// Any of the numbers 101 to 408 and 502 ([`ErrorKind`]), the same at every later call.
    pub fn poll(&mut self) -> Result<Poll, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let outcome = match self.config.binding {
            Binding::ByteStream => self.poll_bytes(),
            Binding::Message => self.poll_message(),
        };
        match outcome {
            Err(error) => {
                let error = self.attribute_limit(error);
                self.failed = Some(error);
                self.buffer = Input::default();
                self.messages = Messages::default();
                self.datagrams = Datagrams::default();
                Err(error)
            }
            // All that was pushed before the next datagram is consumed.
            Ok(waiting @ (Poll::NeedMore | Poll::End)) => {
                let next = self.sequence.as_ref().map_or(0, Sequence::next_index);
                Ok(self.poll_target(next).map_or(waiting, Poll::Event))
            }
            Ok(event) => Ok(event),
        }
    }

    /// The bytes that may be read now: those that were pushed before the next datagram.
    fn visible(&self) -> &[u8] {
        let until = self.datagrams.waiting.front().map_or(self.pushed, |datagram| datagram.at);
        let bytes = to_usize(until.saturating_sub(self.base));
        self.buffer.get(..bytes).unwrap_or(&self.buffer)
    }

    /// The same error. If it is about a limit, it now says whether the header declares it or the caller has set it.
    fn attribute_limit(&self, error: Error) -> Error {
        match &self.header {
            Some(header) => self.config.limits.attribute_limit(header, error),
            None => error,
        }
    }

    fn accept(&self, binding: Binding) -> Result<(), Error> {
        match self.failed {
            Some(error) => Err(error),
            None if self.config.binding != binding => {
                let other = match binding {
                    Binding::ByteStream => "bytes, where the binding is messages",
                    Binding::Message => "a message, where the binding is a byte stream",
                };
                Err(Error::of_call(ErrorKind::NotAvailable).with_detail(other))
            }
            None if self.finished => Err(Error::of_call(ErrorKind::AfterEnd).with_detail("input after finish")),
            None => Ok(()),
        }
    }

    /// Waits, or fails if no more will come.
    fn more(&self) -> Result<Poll, Error> {
        // [CHUNK-6] Input that ends inside the header or a chunk, or before the end chunk, is truncated (error 401):
        // never a success.
        // [END-1] A stream ends with the end chunk.
        if self.finished && self.datagrams.is_empty() {
            return Err(Error::new(ErrorKind::Truncated, self.base.saturating_add(to_u64(self.buffer.len()))));
        }
        Ok(Poll::NeedMore)
    }

    fn poll_bytes(&mut self) -> Result<Poll, Error> {
        match self.phase {
            Phase::Header => match StreamHeader::load(self.visible(), Some(Binding::ByteStream))? {
                Some((header, bytes)) => {
                    self.buffer.advance(bytes);
                    Ok(self.take_header(header, bytes))
                }
                None => self.more(),
            },
            Phase::Footer(index_at) => match self.visible().first_chunk::<FOOTER_BYTES>() {
                Some(footer) => {
                    let offset = self.base;
                    seek_index::verify_footer(footer, index_at).map_err(|error| error.shifted(offset))?;
                    self.buffer.advance(FOOTER_BYTES);
                    self.base = offset.saturating_add(to_u64(FOOTER_BYTES));
                    self.phase = Phase::Ended;
                    let bytes = to_u64(FOOTER_BYTES);
                    Ok(Poll::Event(Event { offset, body_offset: offset, bytes, chunk: Chunk::Footer }))
                }
                None => self.more(),
            },
            // [CHUNK-7] In the byte stream binding, bytes behind the end chunk are error 307; [FILE-1] so are they
            // behind the footer.
            Phase::Ended if self.visible().is_empty() => Ok(Poll::End),
            Phase::Ended => Err(Error::new(ErrorKind::DataAfterEnd, self.base)),
            Phase::Join(_) | Phase::Chunks | Phase::SeekIndex => self.poll_chunk(),
        }
    }

    /// Reads one chunk of a byte stream: kind, length, and the body once it is whole.
    fn poll_chunk(&mut self) -> Result<Poll, Error> {
        let offset = self.base;
        let at = |error: Error| error.shifted(offset);
        let visible = self.visible();
        let (Some(leading), Some(sequence)) = (visible.first(), &self.sequence) else {
            return self.more();
        };
        // [FILE-1] A stream with flag bit 5 MUST go on with a CB chunk right behind the end chunk; any other byte
        // there is error 305.
        if self.phase == Phase::SeekIndex && *leading != Kind::SeekIndex.byte() {
            let detail = Detail::Byte { what: "no seek index after the end of a file, but", found: *leading };
            return Err(Error::new(ErrorKind::SeekIndexMisplaced, offset).with(detail));
        }
        let kind = Kind::of_leading_byte(*leading).map_err(at)?;
        self.judge(kind)?;
        let length = kind::load_length(visible, sequence.length_offset(), sequence.limits().max_chunk_bytes);
        let Some(length) = length.map_err(at)? else {
            return self.more();
        };
        let bytes = length.head.saturating_add(length.body);
        if visible.len() < bytes {
            return self.more();
        }
        let chunk = self.buffer.split_to(bytes);
        self.take_chunk(kind, &chunk, length)
    }

    fn poll_message(&mut self) -> Result<Poll, Error> {
        let overtaken = self.datagrams.waiting.front().is_some_and(|datagram| datagram.at <= self.base);
        let message = if overtaken { None } else { self.messages.pop_front() };
        let Some(message) = message else {
            return if self.phase == Phase::Ended { Ok(Poll::End) } else { self.more() };
        };
        let offset = self.base;
        let at = |error: Error| error.shifted(offset);
        if self.phase == Phase::Header {
            let end = offset.saturating_add(to_u64(message.len()));
            let truncated = Error::new(ErrorKind::Truncated, end);
            let (header, bytes) = StreamHeader::load(&message, Some(Binding::Message))?.ok_or(truncated)?;
            // [MSG-1] The first message is the stream header followed by one byte 0x00.
            return match message.get(bytes..) {
                None | Some([]) => Err(truncated),
                Some([0x00]) => Ok(self.take_header(header, message.len())),
                Some([0x00, ..]) => Err(Error::new(ErrorKind::HeaderLayout, to_u64(bytes).saturating_add(1))),
                Some(_) => Err(Error::new(ErrorKind::HeaderLayout, to_u64(bytes))),
            };
        }
        let read = kind::load_message(&message);
        // [MSG-5] A message after the end chunk is error 307, save for targets (C2, C3) in layered mode, which may
        // have been overtaken: they are taken up as before.
        let layered = self.sequence.as_ref().is_some_and(|sequence| sequence.mode() == Mode::Layered);
        let overtaken = layered && matches!(read, Ok(Some((kind, _))) if kind.is_target());
        if self.phase == Phase::Ended && !overtaken {
            return Err(Error::new(ErrorKind::DataAfterEnd, offset));
        }
        // No empty message is ever queued.
        let Some((kind, length)) = read.map_err(at)? else { return self.more() };
        self.judge(kind)?;
        let limit = self.sequence.as_ref().map_or(0, |sequence| sequence.limits().max_chunk_bytes);
        if to_u64(length.body) > u64::from(limit) {
            return Err(kind::too_long(limit, to_u64(length.body)).at(offset));
        }
        self.take_chunk(kind, &message, length)
    }

    fn take_header(&mut self, header: StreamHeader, bytes: usize) -> Poll {
        let offset = self.base;
        self.base = offset.saturating_add(to_u64(bytes));
        self.phase = Phase::Chunks;
        self.sequence = Some(Sequence::new(&header, self.config.limits));
        self.header = Some(header.clone());
        let chunk = Chunk::Header(Box::new(header));
        Poll::Event(Event { offset, body_offset: offset, bytes: to_u64(bytes), chunk })
    }

    /// Checks that a chunk of this kind may come here.
    fn judge(&self, kind: Kind) -> Result<(), Error> {
        let refuse = |kind| Err(Error::new(kind, self.base));
        // A reader joins at a context reset or a model switch (spec 6.6).
        if matches!(self.phase, Phase::Join(_)) && !matches!(kind, Kind::Reset | Kind::ModelSwitch) {
            return Err(Error::new(ErrorKind::IndexMismatch, self.base)
                .with_detail("neither a context reset nor a model switch where the stream is joined"));
        }
        // [CHUNK-4] Kinds C2 and C3 in joined mode are error 304. Kind CB before the end, or without flag bit 5, is
        // error 305. Kind CC in a stream without the side flag is error 304.
        let side = self.sequence.as_ref().is_some_and(Sequence::takes_side);
        let joined = self.sequence.as_ref().is_some_and(|sequence| sequence.mode() == Mode::Joined);
        match kind {
            Kind::Target | Kind::TargetBatch if joined => refuse(ErrorKind::KindNotInMode),
            Kind::SideIndices if !side => refuse(ErrorKind::KindNotInMode),
            Kind::SeekIndex if self.phase != Phase::SeekIndex => refuse(ErrorKind::SeekIndexMisplaced),
            _ => Ok(()),
        }
    }

    /// Reads a whole chunk, or a whole message, whose kind and length are valid.
    fn take_chunk(&mut self, kind: Kind, whole: &Bytes, length: Length) -> Result<Poll, Error> {
        let offset = self.base;
        let body_offset = offset.saturating_add(to_u64(length.head));
        let end = length.head.saturating_add(length.body).min(whole.len());
        let bytes = whole.slice(length.head.min(end)..end);
        let Some(sequence) = &mut self.sequence else {
            return self.more();
        };
        let chunk = match (kind, self.phase) {
            (_, Phase::Join(point)) => body::join(sequence, kind, &bytes, point.index),
            (Kind::SeekIndex, _) => SeekIndex::load(&bytes, offset, sequence.seed()).map(Chunk::SeekIndex),
            (kind, _) => body::take(sequence, kind, &bytes),
        };
        let chunk = chunk.map_err(|error| match error.kind() {
            ErrorKind::SideIndicesLeft => error.at(offset),
            _ => error.shifted(body_offset),
        })?;
        let file = self.header.as_ref().is_some_and(|header| header.file);
        self.phase = match (self.phase, &chunk) {
            (_, Chunk::End(_)) if file => Phase::SeekIndex,
            (_, Chunk::End(_)) => Phase::Ended,
            (_, Chunk::SeekIndex(_)) => Phase::Footer(offset),
            (Phase::Join(_), _) => Phase::Chunks,
            (phase, _) => phase,
        };
        let bytes = to_u64(whole.len());
        self.base = offset.saturating_add(bytes);
        Ok(Poll::Event(Event { offset, body_offset, bytes, chunk: body::absolute(chunk, body_offset) }))
    }
}
