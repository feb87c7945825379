//! Code shared by the container tests: random streams, a plain model of what a reader must report about them, and
//! drivers.
#![allow(dead_code, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::ops::Range;

use bytes::Bytes;
use midspan::error::Error;
use midspan::stream::{Binding, Chunk, Event, JoinPoint, Limits, Poll, Reader, ReaderConfig, TargetStatus, Writer};
use midspan::wire::{CheckWidth, Dtype, Identity, Mode, StreamHeader};
use proptest::prelude::*;

/// One call of a writer. Numbers are reduced modulo what is possible when they are used.
#[derive(Clone, Debug)]
pub enum Op {
    Frame(Vec<u8>),
    Batch(u32, Vec<Vec<u8>>),
    /// How far back, how many frames, lanes.
    Target(u64, u32, Vec<Vec<u8>>),
    /// How far back, elements.
    Part(u64, Range<u64>, Vec<u8>),
    Checkpoint(u32, u32),
    /// Quality and length offset, digests.
    Reset((u8, u16), (u32, u32)),
    Rewind(u64),
    /// Quality and length offset.
    Quality((u8, u16)),
    /// Fingerprint, version, quality and length offset, digests.
    ModelSwitch(u8, u32, (u8, u16), (u32, u32)),
    Exact(Vec<u8>, Vec<u8>),
    Extension(u32, Vec<u8>),
}

/// The content of an event, without offsets and bindings.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Header,
    Frames(u64, u32, u32, Vec<Vec<u8>>),
    Target(u64, u32, u32, Option<Range<u64>>, Vec<Vec<u8>>),
    Checkpoint(u64, u32, u32),
    Reset(u64, u32, (u8, u16), Vec<u8>, (u32, u32)),
    Rewind(u64),
    Quality((u8, u16)),
    ModelSwitch([u8; 32], u32, (u8, u16), (u32, u32)),
    Exact(u64, u32, Vec<u8>, Vec<u8>),
    Extension(u32, Vec<u8>),
    End(u64, u64),
}

/// A payload: any bytes that do not end in 0x00.
pub fn payload(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max).prop_map(|mut bytes| {
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        bytes
    })
}

fn lanes() -> impl Strategy<Value = (u32, Vec<Vec<u8>>)> {
    (2_u32..40, 1_usize..6)
        .prop_flat_map(|(frames, lanes)| (Just(frames), prop::collection::vec(payload(60), lanes.min(frames as usize))))
}

/// Length offsets below, among and above the lengths of the payloads here.
fn length_offset() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), 1..60_u16, 60..500_u16, Just(16_383)]
}

fn quality() -> impl Strategy<Value = (u8, u16)> {
    (any::<u8>(), length_offset())
}

pub fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => payload(40).prop_map(Op::Frame),
        1 => payload(400).prop_map(Op::Frame),
        3 => lanes().prop_map(|(frames, lanes)| Op::Batch(frames, lanes)),
        2 => (0_u64..50, payload(40)).prop_map(|(back, lane)| Op::Target(back, 1, vec![lane])),
        1 => (0_u64..50, lanes()).prop_map(|(back, (frames, lanes))| Op::Target(back, frames, lanes)),
        1 => (0_u64..50, 0_u64..1 << 56, 1_u64..300, payload(40)).prop_map(|(back, first, count, payload)| {
            Op::Part(back, first..(first + count).min(1 << 56), payload)
        }),
        2 => any::<(u32, u32)>().prop_map(|(w, y)| Op::Checkpoint(w, y)),
        1 => (quality(), any::<(u32, u32)>()).prop_map(|(quality, digests)| Op::Reset(quality, digests)),
        2 => (1_u64..30).prop_map(Op::Rewind),
        1 => quality().prop_map(Op::Quality),
        1 => (any::<(u8, u32)>(), quality(), any::<(u32, u32)>())
            .prop_map(|((f, version), q, d)| Op::ModelSwitch(f, version, q, d)),
        1 => (payload(40), any::<[u8; 8]>()).prop_map(|(frame, hidden)| Op::Exact(frame, hidden.to_vec())),
        1 => (any::<u32>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(id, data)| Op::Extension(id, data)),
    ]
}

pub fn header() -> impl Strategy<Value = StreamHeader> {
    let numbers = (0..3_u8, 20_u32..100, length_offset());
    (any::<([u8; 32], Option<[u8; 8]>)>(), any::<(u32, u8, bool, bool)>(), numbers).prop_map(
        |((fingerprint, identity), (version, quality, host, layered), (check, max_rewind, length_offset))| {
            let mut header = StreamHeader {
                mode: if layered { Mode::Layered } else { Mode::Joined },
                check: [CheckWidth::None, CheckWidth::One, CheckWidth::Two][usize::from(check)],
                model_version: version,
                quality,
                host_digest: host.then_some([9; 32]),
                max_rewind,
                target_horizon: layered.then_some(64),
                length_offset,
                identity: identity.map_or(Identity::none(), Identity::new),
                ..StreamHeader::new(fingerprint)
            };
            header.set_optional(2, &b"container tests"[..]);
            header.set_optional(40 + 62 * u32::from(quality), vec![quality; 5]);
            header
        },
    )
}

/// Writes a stream and returns what a reader must see. Calls that break a rule here are skipped.
pub fn write(header: &StreamHeader, binding: Binding, ops: &[Op]) -> (Vec<Bytes>, Vec<Seen>) {
    let mut writer = Writer::new(header.clone(), binding).unwrap();
    let mut seen = vec![Seen::Header];
    // The model: index and epoch of the next frame, S, H, the total, the model, and the epoch of each frame.
    let (mut next, mut epoch, mut start, mut high, mut total) = (0_u64, 0_u32, 0_u64, 0_u64, 0_u64);
    let mut model = header.fingerprint[..8].to_vec();
    let mut hyper: Vec<Option<u32>> = Vec::new();
    for op in ops {
        match op.clone() {
            Op::Frame(payload) => {
                writer.frame(&payload).unwrap();
                seen.push(Seen::Frames(next, epoch, 1, vec![payload]));
                hyper.push(Some(epoch));
                (next, total) = (next + 1, total + 1);
            }
            Op::Batch(frames, lanes) => {
                writer.batch(frames, &lanes).unwrap();
                seen.push(Seen::Frames(next, epoch, frames, lanes));
                hyper.extend((0..frames).map(|_| Some(epoch)));
                (next, total) = (next + u64::from(frames), total + u64::from(frames));
            }
            Op::Target(back, frames, lanes) => {
                let Some(index) = next.checked_sub(back + u64::from(frames)) else { continue };
                let held = &hyper[index as usize..index as usize + frames as usize];
                let one_epoch = held.iter().all(|epoch| epoch.is_some() && *epoch == held[0]);
                let written = writer.target(index, frames, &lanes);
                assert_eq!(written.is_ok(), header.mode == Mode::Layered && one_epoch, "{written:?}");
                if written.is_ok() {
                    seen.push(Seen::Target(index, held[0].unwrap(), frames, None, lanes));
                }
            }
            Op::Part(back, elements, payload) => {
                let Some(index) = next.checked_sub(back + 1) else { continue };
                let held = hyper[index as usize];
                let written = writer.target_part(index, elements.clone(), &payload);
                assert_eq!(written.is_ok(), header.mode == Mode::Layered && held.is_some(), "{written:?}");
                if written.is_ok() {
                    seen.push(Seen::Target(index, held.unwrap(), 1, Some(elements), vec![payload]));
                }
            }
            Op::Checkpoint(w, y) => {
                writer.checkpoint(w, y).unwrap();
                seen.push(Seen::Checkpoint(next, w, y));
            }
            Op::Reset(quality, digests) => {
                writer.reset(quality.0, quality.1, digests.0, digests.1).unwrap();
                epoch += 1;
                seen.push(Seen::Reset(next, epoch, quality, model.clone(), digests));
                (start, high) = (next, next);
                hyper.iter_mut().for_each(|epoch| *epoch = None);
            }
            Op::Rewind(back) => {
                let index = next.saturating_sub(back);
                let good = index >= start && index < next && high - index <= u64::from(header.max_rewind);
                let written = writer.rewind(index);
                assert_eq!(written.is_ok(), good, "{written:?}");
                if good {
                    (next, epoch) = (index, epoch + 1);
                    hyper.truncate(index as usize);
                    seen.push(Seen::Rewind(index));
                }
            }
            Op::Quality(quality) => {
                writer.quality(quality.0, quality.1).unwrap();
                seen.push(Seen::Quality(quality));
            }
            Op::ModelSwitch(fingerprint, version, quality, digests) => {
                let (number, offset) = quality;
                writer.model_switch([fingerprint; 32], version, number, offset, digests.0, digests.1).unwrap();
                epoch += 1;
                model = vec![fingerprint; 8];
                (start, high) = (next, next);
                hyper.iter_mut().for_each(|epoch| *epoch = None);
                seen.push(Seen::ModelSwitch([fingerprint; 32], version, quality, digests));
            }
            Op::Exact(payload, hidden) => {
                writer.exact_frame(Dtype::F16, &payload, &hidden).unwrap();
                seen.push(Seen::Exact(next, epoch, payload, hidden));
                hyper.push(None);
                (next, total) = (next + 1, total + 1);
            }
            Op::Extension(id, data) => {
                writer.extension(id, &data).unwrap();
                seen.push(Seen::Extension(id, data));
            }
        }
        high = high.max(next);
    }
    writer.end(1, 2).unwrap();
    seen.push(Seen::End(next, total));
    let pieces = match binding {
        Binding::ByteStream => vec![writer.take().unwrap()],
        Binding::Message => std::iter::from_fn(|| writer.pop_message().unwrap()).map(|message| message.bytes).collect(),
    };
    (pieces, seen)
}

/// A stream in one piece.
pub fn bytes(header: &StreamHeader, ops: &[Op]) -> Bytes {
    write(header, Binding::ByteStream, ops).0[0].clone()
}

fn vecs(chunk: &Chunk) -> Vec<Vec<u8>> {
    chunk.payload_bytes().map(|bytes| bytes.to_vec()).collect()
}

/// The content of an event; None for seek index and footer, which add nothing.
pub fn seen(event: &Event) -> Option<Seen> {
    Some(match &event.chunk {
        Chunk::Header(_) => Seen::Header,
        chunk @ Chunk::Frame { index, epoch, .. } => Seen::Frames(*index, *epoch, 1, vecs(chunk)),
        chunk @ Chunk::Batch { index, epoch, frames, .. } => Seen::Frames(*index, *epoch, *frames, vecs(chunk)),
        chunk @ Chunk::Target { frames, elements, status: TargetStatus::Usable { index, epoch }, .. } => {
            Seen::Target(*index, *epoch, *frames, elements.clone(), vecs(chunk))
        }
        Chunk::Checkpoint(c) => Seen::Checkpoint(c.index, c.digest_w, c.digest_y),
        Chunk::Reset(r) => {
            let digests = (r.digest_w, r.digest_y);
            Seen::Reset(r.index, r.epoch, (r.quality, r.length_offset), r.fingerprint_prefix.to_vec(), digests)
        }
        Chunk::Rewind(rewind) => Seen::Rewind(rewind.index),
        Chunk::Quality(quality) => Seen::Quality((quality.quality, quality.length_offset)),
        Chunk::ModelSwitch(m) => {
            let quality = (m.quality, m.length_offset);
            Seen::ModelSwitch(m.fingerprint, m.model_version, quality, (m.digest_w, m.digest_y))
        }
        Chunk::ExactFrame { index, epoch, payload, hidden, .. } => {
            Seen::Exact(*index, *epoch, payload.bytes.to_vec(), hidden.bytes.to_vec())
        }
        Chunk::Extension(extension) => Seen::Extension(extension.id, extension.data.to_vec()),
        Chunk::End(end) => Seen::End(end.index, end.frames_coded),
        Chunk::SeekIndex(_) | Chunk::Footer => return None,
        other => panic!("unexpected {other:?}"),
    })
}

/// A reader with the limits of the format.
pub fn reader(binding: Binding) -> Reader {
    Reader::new(ReaderConfig::default().binding(binding).limits(Limits::FORMAT))
}

/// A reader that joins.
pub fn joining(header: &StreamHeader, point: JoinPoint) -> Reader {
    Reader::join(ReaderConfig::default().binding(Binding::ByteStream).limits(Limits::FORMAT), header.clone(), point)
}

/// Polls all events that are available now, up to an error.
pub fn poll_all(reader: &mut Reader, events: &mut Vec<Event>) -> Result<Poll, Error> {
    loop {
        match reader.poll()? {
            Poll::Event(event) => events.push(event),
            other => return Ok(other),
        }
    }
}

/// Feeds pieces, polls as far as possible after each, and ends the input. Returns the events, and the clean end or the
/// error.
pub fn drive<'a>(mut reader: Reader, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Result<(), Error>) {
    let binding = if reader.clone().push_message(&[]).is_ok() { Binding::Message } else { Binding::ByteStream };
    let mut events = Vec::new();
    for piece in pieces {
        let pushed = match binding {
            Binding::ByteStream => reader.push(piece),
            Binding::Message => reader.push_message(piece),
        };
        if let Err(error) = pushed.and_then(|()| poll_all(&mut reader, &mut events).map(|_| ())) {
            assert_eq!(reader.poll(), Err(error), "errors are sticky");
            return (events, Err(error));
        }
    }
    reader.finish();
    let outcome = poll_all(&mut reader, &mut events);
    assert_ne!(outcome, Ok(Poll::NeedMore), "a finished reader does not wait");
    (events, outcome.map(|_| ()))
}

/// A byte stream in one piece.
pub fn drive_bytes(bytes: &[u8]) -> (Vec<Event>, Result<(), Error>) {
    drive(reader(Binding::ByteStream), [bytes])
}
