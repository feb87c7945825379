//! The writer: calls in, bytes or messages out.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::Binding;
use super::limits::Limits;
#[cfg(feature = "codec")]
use super::memory;
use super::memory::Messages;
use super::message::{Message, MessageClass};
use super::saved::{self, Saved};
use super::sequence::Sequence;
use crate::error::{Detail, Error, ErrorKind, Limit};
use crate::number::to_u64;
use crate::wire::seek_index::MAX_ENTRIES;
use crate::wire::{
    Batch, Checkpoint, Dtype, End, ExactFrame, Extension, Frame, Kind, Mode, ModelSwitch, Quality, Reset, Rewind,
    Scope, SeekEntry, SeekIndex, SideCover, SideCrc, SideIndices, StreamHeader, Target, kind,
};

/// A writer of one stream.
///
/// Each call writes one chunk, under the rules that a reader applies. A call that breaks a rule changes nothing, and
/// the writer can go on; the offset of its error is that of the chunk it would have written. Drain the output with
/// [`Writer::take`] or, in the message binding, [`Writer::pop_message`]; each returns an error in the other binding.
///
/// Payloads are opaque, but none may end in 0x00: no sealed payload does (spec 3.3), and the message binding relies on
/// it ([`ErrorKind::SealNotCanonical`]).
#[derive(Clone, Debug)]
pub struct Writer {
    header: StreamHeader,
    binding: Binding,
    sequence: Sequence,
    ended: bool,
    /// The offset of the next chunk.
    position: u64,
    out: BytesMut,
    messages: Messages<Message>,
    /// Where a reader of the file may join.
    joins: Vec<SeekEntry>,
    /// How many side indices the check of the next frame chunk covers, and their crc.
    covered: Option<(usize, SideCrc)>,
}

impl Writer {
    /// The writer as bytes, including output not yet taken, for [`Writer::restore`] in another process.
    ///
    /// The form belongs to this version of the library; it is not a wire format.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        saved::seal(saved::WRITER, |out| self.save_to(out))
    }

    /// The writer that [`Writer::save`] wrote.
    ///
    /// # Errors
    /// [`ErrorKind::SavedSession`].
    pub fn restore(saved: &[u8]) -> Result<Writer, Error> {
        saved::restore(saved::WRITER, saved, Writer::load_from)
    }

    /// Appends what [`Writer::load_from`] reads.
    pub(crate) fn save_to(&self, out: &mut BytesMut) {
        (self.header.clone(), self.binding).save(out);
        self.sequence.save(out);
        (self.ended, self.position).save(out);
        (self.out.clone(), self.messages.clone()).save(out);
        self.joins.save(out);
    }

    /// The writer that [`Writer::save_to`] wrote; `None` if the bytes are invalid.
    pub(crate) fn load_from(input: &mut &[u8]) -> Option<Writer> {
        let (header, binding) = <(StreamHeader, Binding)>::load(input)?;
        let sequence = Sequence::restore(&header, Limits::FORMAT, input)?;
        let (ended, position) = Saved::load(input)?;
        let (out, messages) = Saved::load(input)?;
        let joins: Vec<SeekEntry> = Saved::load(input)?;
        // The seek index is written as differences.
        let ascending = joins.windows(2).all(|pair| match pair {
            [a, b] => a.frame <= b.frame && a.offset < b.offset,
            _ => true,
        });
        let fits = ascending && header.binding == binding && (!header.file || binding == Binding::ByteStream);
        fits.then_some(Writer { header, binding, sequence, ended, position, out, messages, joins, covered: None })
    }

    /// Begins a stream: the header is the first output, and states the binding.
    ///
    /// # Errors
    /// [`ErrorKind::BadConfig`] for a header that is out of range; [`ErrorKind::ReservedHeaderBits`] for the file
    /// binding in messages ([HDR-10]).
    pub fn new(header: StreamHeader, binding: Binding) -> Result<Writer, Error> {
        // [HDR-10] Flag bits 5 and 6 together are error 205.
        if header.file && binding == Binding::Message {
            let error = Error::of_call(ErrorKind::ReservedHeaderBits);
            return Err(error.with_detail("file: the file binding is no binding of messages"));
        }
        let header = StreamHeader { binding, ..header };
        let mut out = BytesMut::new();
        header.encode(&mut out)?;
        let mut writer = Writer {
            sequence: Sequence::new(&header, Limits::FORMAT),
            header,
            binding,
            ended: false,
            position: 0,
            out: BytesMut::new(),
            messages: Messages::default(),
            joins: Vec::new(),
            covered: None,
        };
        if binding == Binding::Message {
            // [MSG-1] The first message is the stream header followed by one byte 0x00.
            out.extend_from_slice(&[0x00]);
        }
        writer.write_out(out, MessageClass::Header, 0..0);
        Ok(writer)
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &StreamHeader {
        &self.header
    }

    /// Who delimits the chunks.
    #[must_use]
    pub fn binding(&self) -> Binding {
        self.binding
    }

    /// Whether the end chunk was written.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The state after the last chunk: the index of the next frame, the epoch, and so on.
    #[must_use]
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// The number of bytes written so far, drained or not: the offset of the next chunk.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// All output since the last call, in a byte stream or file.
    ///
    /// # Errors
    /// [`ErrorKind::NotAvailable`] in the message binding.
    pub fn take(&mut self) -> Result<Bytes, Error> {
        match self.binding {
            Binding::ByteStream => Ok(std::mem::take(&mut self.out).freeze()),
            Binding::Message => Err(self.error(ErrorKind::NotAvailable).with_detail("the writer's output is messages")),
        }
    }

    /// The oldest message that was not yet handed out, in the message binding.
    ///
    /// # Errors
    /// [`ErrorKind::NotAvailable`] in a byte stream or file.
    pub fn pop_message(&mut self) -> Result<Option<Message>, Error> {
        match self.binding {
            Binding::ByteStream => {
                Err(self.error(ErrorKind::NotAvailable).with_detail("the writer's output is a byte stream"))
            }
            Binding::Message => Ok(self.messages.pop_front()),
        }
    }

    /// How many bytes [`Writer::take`] would hand out; 0 in the message binding.
    #[must_use]
    pub fn untaken_bytes(&self) -> usize {
        self.out.len()
    }

    /// The message that [`Writer::pop_message`] would hand out; `None` in a byte stream or file.
    #[must_use]
    pub fn next_message(&self) -> Option<&Message> {
        self.messages.front()
    }

    /// The most bytes that the writer gains by this many chunks with this many bytes in all, including while it grows.
    #[cfg(feature = "codec")]
    pub(crate) fn growth(&self, chunks: usize, bytes: usize) -> usize {
        let output = match self.binding {
            Binding::ByteStream => memory::growth::<u8>(self.out.len(), self.out.capacity(), bytes),
            Binding::Message => self.messages.growth(chunks, bytes),
        };
        let joins = usize::from(self.header.file);
        output.saturating_add(memory::growth::<SeekEntry>(self.joins.len(), self.joins.capacity(), joins))
    }

    /// Bytes that the writer holds in addition to its own size: output not yet taken, the header's fields, the entries
    /// of a file's seek index.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let joins = self.joins.capacity().saturating_mul(size_of::<SeekEntry>());
        [self.header.memory_bytes(), self.sequence.memory_bytes(), self.out.capacity(), joins]
            .into_iter()
            .fold(self.messages.memory_bytes(), usize::saturating_add)
    }

    /// Writes a one-frame chunk (spec 2.6): a joined frame in joined mode, the hyper-prior of one frame in layered
    /// mode.
    ///
    /// # Errors
    /// [`ErrorKind::ChunkTooLong`], [`ErrorKind::SealNotCanonical`], [`ErrorKind::AfterEnd`].
    pub fn frame(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.open()?;
        self.judge_payload(payload)?;
        let mut body = BytesMut::with_capacity(payload.len().saturating_add(2));
        Frame::encode(payload, self.scope(1)?, &mut body);
        self.emit_frames(Kind::Frame, &body, 1, false)
    }

    /// Gives the side indices that the check of the next frame chunk covers (spec 2.5), one for each of its frames. In
    /// a stream with the side flag every frame chunk needs a call of its own before it.
    pub fn cover_side(&mut self, indices: &[u32]) {
        self.covered = Some((indices.len(), SideCrc::new(indices)));
    }

    /// Writes the side indices of the next `count` frames, as the model's tables code them (spec 6.12).
    ///
    /// # Errors
    /// [`ErrorKind::KindNotInMode`] in a stream without the side flag; [`ErrorKind::SideIndicesLeft`];
    /// [`ErrorKind::TooManyFrames`], and those of [`Writer::frame`].
    pub fn side_indices(&mut self, count: u32, payload: &[u8]) -> Result<(), Error> {
        self.open()?;
        if !self.header.side {
            return Err(self.error(ErrorKind::KindNotInMode).with_detail("the header does not announce side indices"));
        }
        self.judge_payload(payload)?;
        let mut body = BytesMut::new();
        let (seed, max_frames) = (self.sequence.seed(), self.sequence.max_side());
        SideIndices::encode(count, payload, max_frames, seed, &mut body).map_err(|error| self.at_chunk(error))?;
        kind::limit(&body, self.sequence.limits().max_chunk_bytes).map_err(|error| self.at_chunk(error))?;
        self.sequence.take_side(count).map_err(|error| self.at_chunk(error))?;
        self.emit(Kind::SideIndices, &body, 0..0)
    }

    /// What the check of the next frame chunk, of `frames` frames, covers.
    fn scope(&self, frames: u32) -> Result<Scope, Error> {
        let scope = self.sequence.scope();
        match (self.header.side, self.covered) {
            (false, _) => Ok(scope),
            (true, Some((count, side))) if to_u64(count) == u64::from(frames) => {
                Ok(Scope { side: SideCover::Known(side), ..scope })
            }
            (true, covered) => {
                let found = to_u64(covered.map_or(0, |(count, _)| count));
                let detail =
                    Detail::Number { what: "side indices of the frames of a chunk", wanted: frames.into(), found };
                Err(self.error(ErrorKind::WrongSideIndices).with(detail))
            }
        }
    }

    /// Writes a batch (spec 2.6) of `frames` frames, 2 or more, with one payload per lane; which frames a lane holds
    /// is fixed by [`crate::wire::lanes::lane_frames`].
    ///
    /// # Errors
    /// [`ErrorKind::BatchOfOne`], [`ErrorKind::TooManyFrames`], [`ErrorKind::LaneCount`], [`ErrorKind::LaneTable`] for
    /// lanes of absurdly different lengths, and those of [`Writer::frame`].
    pub fn batch(&mut self, frames: u32, lanes: &[impl AsRef<[u8]>]) -> Result<(), Error> {
        self.open()?;
        self.judge_payloads(lanes)?;
        let mut body = BytesMut::new();
        let (scope, max_frames) = (self.scope(frames)?, self.sequence.limits().max_frames);
        Batch::encode(frames, lanes, scope, max_frames, &mut body).map_err(|error| self.at_chunk(error))?;
        self.emit_frames(Kind::Batch, &body, frames, false)
    }

    /// Writes the target of `frames` frames from the absolute index `index` on (spec 2.6), in layered mode. All must be
    /// in the timeline, with hyper-priors written in one epoch.
    ///
    /// # Errors
    /// [`ErrorKind::KindNotInMode`] in joined mode; [`ErrorKind::FrameNotPending`] for other frames, or if targets can
    /// no longer name them; and those of [`Writer::batch`]. In the message binding a target may still be written after
    /// the end ([MSG-5]).
    pub fn target(&mut self, index: u64, frames: u32, lanes: &[impl AsRef<[u8]>]) -> Result<(), Error> {
        let epoch = self.target_epoch(index, frames)?;
        self.judge_payloads(lanes)?;
        let mut body = BytesMut::new();
        let max_frames = self.sequence.limits().max_frames;
        let kind = Target::encode(index, epoch, self.sequence.seed(), frames, lanes, max_frames, &mut body);
        self.emit(kind.map_err(|error| self.at_chunk(error))?, &body, frames_from(index, frames))
    }

    /// Writes a part of the target of the frame with this absolute index: the given elements (spec 2.6). A decoder has
    /// the whole target once parts with all elements have come, each element once.
    ///
    /// # Errors
    /// As [`Writer::target`]; [`ErrorKind::FieldOutOfRange`] for no element, or elements beyond 2^56.
    pub fn target_part(&mut self, index: u64, elements: Range<u64>, payload: &[u8]) -> Result<(), Error> {
        let epoch = self.target_epoch(index, 1)?;
        self.judge_payload(payload)?;
        let mut body = BytesMut::new();
        Target::encode_part(index, epoch, self.sequence.seed(), elements, payload, &mut body)
            .map_err(|error| self.at_chunk(error))?;
        self.emit(Kind::Target, &body, frames_from(index, 1))
    }

    /// The epoch in which these frames had their hyper-priors written, if a target may still name them.
    fn target_epoch(&self, index: u64, frames: u32) -> Result<u32, Error> {
        if self.sequence.mode() == Mode::Joined {
            return Err(self.error(ErrorKind::KindNotInMode).with_detail("a target is for layered mode"));
        }
        if self.binding == Binding::ByteStream {
            self.open()?;
        }
        let [low, high, ..] = index.to_le_bytes();
        let epoch = self.sequence.hyper_epoch(index, frames).filter(|epoch| {
            // The low bits must lead a reader back to these frames.
            let [epoch_low, ..] = epoch.to_le_bytes();
            self.sequence.resolve_target(u16::from_le_bytes([low, high]), epoch_low) == Some((index, *epoch))
        });
        epoch.ok_or_else(|| {
            let detail = Detail::Text("no target can name these frames, or not all of them have their hyper-prior");
            self.error(ErrorKind::FrameNotPending).with(detail)
        })
    }

    /// Writes a checkpoint at the next frame, with the digests of spec 6.4.
    ///
    /// # Errors
    /// [`ErrorKind::ChunkTooLong`], [`ErrorKind::AfterEnd`].
    pub fn checkpoint(&mut self, digest_w: u32, digest_y: u32) -> Result<(), Error> {
        self.open()?;
        let mut body = BytesMut::new();
        let checkpoint = Checkpoint { index: self.sequence.next_index(), digest_w, digest_y };
        checkpoint.encode(self.sequence.seed(), &mut body).map_err(|error| self.at_chunk(error))?;
        self.emit(Kind::Checkpoint, &body, 0..0)
    }

    /// Writes a context reset: the next frame begins a new context, with this quality and this length offset (spec
    /// 2.3). The digests (spec 6.4) are those of the context that ends.
    ///
    /// # Errors
    /// [`ErrorKind::FieldOutOfRange`] for a length offset above 16,383; [`ErrorKind::ChunkTooLong`],
    /// [`ErrorKind::AfterEnd`].
    pub fn reset(&mut self, quality: u8, length_offset: u16, digest_w: u32, digest_y: u32) -> Result<(), Error> {
        self.open()?;
        let expected = self.sequence.expected_reset();
        let reset = Reset {
            index: self.sequence.next_index(),
            epoch: expected.epoch.unwrap_or_default(),
            quality,
            length_offset,
            fingerprint_prefix: expected.fingerprint_prefix.unwrap_or_default(),
            digest_w,
            digest_y,
        };
        let mut body = BytesMut::new();
        reset.encode(self.sequence.seed(), &mut body).map_err(|error| self.at_chunk(error))?;
        let offset = self.position;
        self.emit(Kind::Reset, &body, 0..0)?;
        self.sequence.take_reset(&reset);
        self.note_join(offset);
        Ok(())
    }

    /// Writes a rewind: the next frame will have the absolute index `index`.
    ///
    /// # Errors
    /// [`ErrorKind::RewindTarget`], [`ErrorKind::RewindTooFar`], [`ErrorKind::ChunkTooLong`],
    /// [`ErrorKind::AfterEnd`].
    pub fn rewind(&mut self, index: u64) -> Result<(), Error> {
        self.open()?;
        self.sequence.reach().judge(index).map_err(|error| self.at_chunk(error))?;
        let mut body = BytesMut::new();
        Rewind { index }.encode(self.sequence.seed(), &mut body).map_err(|error| self.at_chunk(error))?;
        self.emit(Kind::Rewind, &body, 0..0)?;
        self.sequence.take_rewind(index);
        Ok(())
    }

    /// Writes a quality switch, which also sets the length offset (spec 2.3); the context continues.
    ///
    /// # Errors
    /// [`ErrorKind::FieldOutOfRange`] for a length offset above 16,383; [`ErrorKind::AfterEnd`].
    pub fn quality(&mut self, quality: u8, length_offset: u16) -> Result<(), Error> {
        self.open()?;
        let mut body = BytesMut::new();
        let switch = Quality { quality, length_offset };
        switch.encode(self.sequence.seed(), &mut body).map_err(|error| self.at_chunk(error))?;
        self.emit(Kind::Quality, &body, 0..0)?;
        self.sequence.take_quality(switch);
        Ok(())
    }

    /// Writes a model switch: the next frame begins a new context with this model, and with this length offset (spec
    /// 2.3). The digests (spec 6.4) are those of the context that ends.
    ///
    /// # Errors
    /// [`ErrorKind::FieldOutOfRange`] for a length offset above 16,383; [`ErrorKind::ChunkTooLong`],
    /// [`ErrorKind::AfterEnd`].
    pub fn model_switch(
        &mut self,
        fingerprint: [u8; 32],
        model_version: u32,
        quality: u8,
        length_offset: u16,
        digest_w: u32,
        digest_y: u32,
    ) -> Result<(), Error> {
        self.open()?;
        let (index, expected) = (self.sequence.next_index(), self.sequence.expected_reset());
        let epoch = expected.epoch.unwrap_or_default();
        let switch =
            ModelSwitch { index, epoch, fingerprint, model_version, quality, length_offset, digest_w, digest_y };
        let mut body = BytesMut::new();
        switch.encode(self.sequence.seed(), &mut body).map_err(|error| self.at_chunk(error))?;
        let offset = self.position;
        self.emit(Kind::ModelSwitch, &body, 0..0)?;
        self.sequence.take_model_switch(&switch);
        self.note_join(offset);
        Ok(())
    }

    /// Writes an exact frame (spec 6.9): a joined payload, and the hidden state as little-endian values of `dtype`.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] if `hidden` is not a whole number of values, and those of [`Writer::frame`].
    pub fn exact_frame(&mut self, dtype: Dtype, payload: &[u8], hidden: &[u8]) -> Result<(), Error> {
        self.open()?;
        self.judge_payload(payload)?;
        if hidden.len().checked_rem(dtype.bytes()) != Some(0) {
            let (width, found) = (to_u64(dtype.bytes()), to_u64(hidden.len()));
            let detail = Detail::Shape { what: "hidden, in bytes,", width, found };
            return Err(self.error(ErrorKind::WrongShape).with(detail));
        }
        let mut body = BytesMut::new();
        ExactFrame::encode(dtype, payload, hidden, self.scope(1)?, &mut body).map_err(|error| self.at_chunk(error))?;
        self.emit_frames(Kind::ExactFrame, &body, 1, true)
    }

    /// Writes an ignorable extension. Emit one with a [`Extension::grease_id`] now and then.
    ///
    /// # Errors
    /// [`ErrorKind::ChunkTooLong`], [`ErrorKind::AfterEnd`].
    pub fn extension(&mut self, id: u32, data: &[u8]) -> Result<(), Error> {
        self.open()?;
        let mut body = BytesMut::new();
        Extension::encode(Kind::Ignorable, self.sequence.seed(), id, data, &mut body)
            .map_err(|error| self.at_chunk(error))?;
        self.emit(Kind::Ignorable, &body, 0..0)
    }

    /// Writes the end chunk and, in a file, seek index and footer.
    ///
    /// # Errors
    /// [`ErrorKind::ChunkTooLong`], [`ErrorKind::AfterEnd`].
    pub fn end(&mut self, digest_w: u32, digest_y: u32) -> Result<(), Error> {
        self.open()?;
        let end = End {
            index: self.sequence.next_index(),
            frames_coded: self.sequence.frames_coded().unwrap_or_default(),
            digest_w,
            digest_y,
        };
        let mut body = BytesMut::new();
        end.encode(self.sequence.seed(), &mut body).map_err(|error| self.at_chunk(error))?;
        self.emit(Kind::End, &body, 0..0)?;
        self.ended = true;
        self.sequence.take_end();
        if self.header.file { self.seek_index() } else { Ok(()) }
    }

    /// Seek index and footer (spec 2.10).
    fn seek_index(&mut self) -> Result<(), Error> {
        let offset = self.position;
        let mut index = SeekIndex { entries: std::mem::take(&mut self.joins) };
        let mut body = BytesMut::new();
        loop {
            body.clear();
            index.encode(self.sequence.seed(), &mut body).map_err(|error| self.at_chunk(error))?;
            if kind::limit(&body, self.sequence.limits().max_chunk_bytes).is_ok() {
                break;
            }
            // The index is only a hint: if it is too long, entries are left out.
            thin(&mut index.entries);
        }
        self.emit(Kind::SeekIndex, &body, 0..0)?;
        let mut footer = BytesMut::new();
        SeekIndex::encode_footer(offset, &mut footer);
        self.write_out(footer, MessageClass::Reliable, 0..0);
        Ok(())
    }

    /// Notes that a reader may join at `offset`.
    fn note_join(&mut self, offset: u64) {
        if self.header.file {
            if u32::try_from(self.joins.len()).is_ok_and(|joins| joins >= MAX_ENTRIES) {
                thin(&mut self.joins);
            }
            self.joins.push(SeekEntry { frame: self.sequence.next_index(), offset });
        }
    }

    /// An error with the caller at fault, who asked for a chunk that no stream may hold.
    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, self.position).by_caller()
    }

    /// The same error at the offset of the chunk being written, whose fields have no offset yet. Limits that the header
    /// declares are the caller's own settings.
    fn at_chunk(&self, error: Error) -> Error {
        let detail = error.detail().map(|detail| match (error.kind(), detail) {
            (ErrorKind::ChunkTooLong, detail) => detail.with_limit(Limit::Own("max_chunk_bytes")),
            (ErrorKind::TooManyFrames, detail) => detail.with_limit(Limit::Own("max_frames")),
            (ErrorKind::RewindTooFar, detail) => detail.with_limit(Limit::Own("max_rewind")),
            (_, detail) => detail,
        });
        self.error(error.kind()).with_facts(detail)
    }

    fn open(&self) -> Result<(), Error> {
        if self.ended { Err(self.error(ErrorKind::AfterEnd)) } else { Ok(()) }
    }

    fn judge_payload(&self, payload: &[u8]) -> Result<(), Error> {
        if payload.last() == Some(&0x00) {
            return Err(self.error(ErrorKind::SealNotCanonical).with_detail("a payload that ends in 0x00"));
        }
        Ok(())
    }

    fn judge_payloads(&self, payloads: &[impl AsRef<[u8]>]) -> Result<(), Error> {
        payloads.iter().try_for_each(|payload| self.judge_payload(payload.as_ref()))
    }

    fn emit_frames(&mut self, kind: Kind, body: &[u8], frames: u32, exact: bool) -> Result<(), Error> {
        kind::limit(body, self.sequence.limits().max_chunk_bytes).map_err(|error| self.at_chunk(error))?;
        let index = self.sequence.next_index();
        self.sequence.take_frames(frames, exact).map_err(|error| self.at_chunk(error))?;
        self.covered = None;
        self.emit(kind, body, frames_from(index, frames))
    }

    fn emit(&mut self, kind: Kind, body: &[u8], frames: Range<u64>) -> Result<(), Error> {
        kind::limit(body, self.sequence.limits().max_chunk_bytes).map_err(|error| self.at_chunk(error))?;
        let mut chunk = BytesMut::with_capacity(body.len().saturating_add(9));
        match self.binding {
            Binding::ByteStream => {
                kind::encode_head(kind, body.len(), self.sequence.length_offset(), &mut chunk)
                    .map_err(|error| self.at_chunk(error))?;
                chunk.extend_from_slice(body);
            }
            Binding::Message => kind::encode_message(kind, body, &mut chunk),
        }
        let class = if kind.is_target() { MessageClass::Droppable } else { MessageClass::Reliable };
        self.write_out(chunk, class, frames);
        Ok(())
    }

    fn write_out(&mut self, bytes: BytesMut, class: MessageClass, frames: Range<u64>) {
        self.position = self.position.saturating_add(to_u64(bytes.len()));
        match self.binding {
            Binding::ByteStream if self.out.is_empty() => self.out = bytes,
            Binding::ByteStream => self.out.extend_from_slice(&bytes),
            Binding::Message => {
                // Exactly its length: spare capacity would be held, but counted nowhere.
                let bytes = Bytes::copy_from_slice(&bytes);
                self.messages.push_back(Message { bytes, class, frames });
            }
        }
    }
}

/// The indices of `frames` frames from `index` on.
fn frames_from(index: u64, frames: u32) -> Range<u64> {
    index..index.saturating_add(u64::from(frames))
}

/// Drops every other entry.
fn thin(entries: &mut Vec<SeekEntry>) {
    let keep = if entries.len() <= 1 { 0 } else { entries.len() };
    *entries = entries.iter().take(keep).step_by(2).copied().collect();
}
