//! Joining a stream (spec 6.6), and targets that are late, damaged or overtaken (spec 6.5).
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

mod container_support;

use bytes::Bytes;
use container_support::{drive, drive_bytes, joining, poll_all, reader};
use midspan::error::{Error, ErrorKind};
use midspan::stream::{Binding, Chunk, Event, JoinPoint, Limits, Poll, Reader, ReaderConfig, TargetStatus, Writer};
use midspan::wire::{CheckWidth, Mode, StreamHeader};

fn header() -> StreamHeader {
    StreamHeader { check: CheckWidth::Two, max_rewind: 100, ..StreamHeader::new([7; 32]) }
}

/// Frames, a rewind, a reset, frames, a model switch, frames, the end.
fn stream() -> (Bytes, Vec<Event>) {
    let mut writer = Writer::new(header(), Binding::ByteStream).unwrap();
    for _ in 0..5 {
        writer.frame(b"first").unwrap();
    }
    writer.rewind(3).unwrap();
    writer.reset(1, 0, 0, 0).unwrap();
    writer.batch(10, &[b"second"]).unwrap();
    writer.checkpoint(1, 2).unwrap();
    writer.model_switch([8; 32], 2, 3, 0, 0, 0).unwrap();
    writer.frame(b"third").unwrap();
    writer.reset(4, 0, 0, 0).unwrap();
    writer.frame(b"fourth").unwrap();
    writer.end(3, 4).unwrap();
    let stream = writer.take().unwrap();
    let (events, end) = drive_bytes(&stream);
    assert_eq!(end, Ok(()));
    (stream, events)
}

fn place(events: &[Event], is_it: impl Fn(&Chunk) -> bool) -> usize {
    events.iter().position(|event| is_it(&event.chunk)).unwrap()
}

#[test]
fn a_reader_joins_at_a_reset() {
    let (stream, events) = stream();
    let first = place(&events, |chunk| matches!(chunk, Chunk::Reset(_)));
    let offset = events[first].offset;
    for index in [None, Some(3)] {
        let point = JoinPoint { offset, index };
        let (joined, end) = drive(joining(&header(), point), stream[offset as usize..].chunks(7));
        assert_eq!((&joined[..], end), (&events[first..], Ok(())));
    }
    // [FILE-3] the chunk found must have the right index.
    let point = JoinPoint { offset, index: Some(4) };
    let (_, end) = drive(joining(&header(), point), [&stream[offset as usize..]]);
    assert_eq!(end, Err(Error::new(ErrorKind::IndexMismatch, offset + 2)));
}

#[test]
fn a_reader_joins_at_a_model_switch() {
    let (stream, events) = stream();
    let first = place(&events, |chunk| matches!(chunk, Chunk::ModelSwitch(_)));
    let offset = events[first].offset;
    for index in [None, Some(13)] {
        let point = JoinPoint { offset, index };
        let (joined, end) = drive(joining(&header(), point), stream[offset as usize..].chunks(7));
        assert_eq!((&joined[..], end), (&events[first..], Ok(())));
    }
    let point = JoinPoint { offset, index: Some(12) };
    let (_, end) = drive(joining(&header(), point), [&stream[offset as usize..]]);
    assert_eq!(end, Err(Error::new(ErrorKind::IndexMismatch, offset + 2)));
}

#[test]
fn a_reader_joins_nowhere_else() {
    let (stream, events) = stream();
    for event in events.iter().filter(|event| !matches!(event.chunk, Chunk::Reset(_) | Chunk::ModelSwitch(_))) {
        let point = JoinPoint { offset: event.offset, index: Some(3) };
        let (joined, end) = drive(joining(&header(), point), [&stream[event.offset as usize..]]);
        assert!(joined.is_empty());
        if event.offset > 0 {
            let error = end.unwrap_err();
            assert_eq!((error.kind(), error.offset()), (ErrorKind::IndexMismatch, event.offset));
        }
    }
}

#[test]
fn a_joined_reader_is_bound_by_all_but_the_total() {
    let (stream, events) = stream();
    let offset = events[place(&events, |chunk| matches!(chunk, Chunk::Reset(_)))].offset;
    let end_at = events[place(&events, |chunk| matches!(chunk, Chunk::End(_)))].body_offset;
    let point = JoinPoint { offset, ..JoinPoint::default() };
    let mut other = stream[offset as usize..].to_vec();
    let body = (end_at - offset) as usize;
    // Another total, with a crc that fits.
    other[body + 1] ^= 1;
    let crc =
        midspan::wire::check::control_crc(midspan::wire::Kind::End, midspan::wire::Seed::NONE, &other[body..body + 10]);
    other[body + 10..body + 14].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(drive(joining(&header(), point), [&other[..]]).1, Ok(()));
    // Another index.
    other[body] ^= 1;
    let crc =
        midspan::wire::check::control_crc(midspan::wire::Kind::End, midspan::wire::Seed::NONE, &other[body..body + 10]);
    other[body + 10..body + 14].copy_from_slice(&crc.to_le_bytes());
    let error = Error::new(ErrorKind::IndexMismatch, end_at);
    assert_eq!(drive(joining(&header(), point), [&other[..]]).1, Err(error));
}

fn layered_writer() -> Writer {
    let header = StreamHeader { mode: Mode::Layered, target_horizon: Some(64), ..header() };
    Writer::new(header, Binding::Message).unwrap()
}

#[test]
fn a_target_that_overtakes_a_rewind_or_reset_is_early() {
    let mut writer = layered_writer();
    writer.batch(5, &[b"w"]).unwrap();
    let before = messages(&mut writer);
    writer.rewind(2).unwrap();
    writer.reset(0, 0, 0, 0).unwrap();
    writer.frame(b"w2").unwrap();
    let after = messages(&mut writer);
    writer.target(2, 1, &[b"y2"]).unwrap();
    let target = messages(&mut writer);
    writer.end(0, 0).unwrap();
    let end = messages(&mut writer);
    let early = TargetStatus::Early { index: 2, epoch: 2 };
    for place in 0..after.len() {
        let all = [&before[..], &after[..place], &target, &after[place..], &end].concat();
        assert_eq!(statuses(&all), [early], "after {place} messages");
    }
    let all = [&before[..], &after, &target, &end].concat();
    assert_eq!(statuses(&all), [TargetStatus::Usable { index: 2, epoch: 2 }]);
}

#[test]
fn a_target_reaches_eight_epochs_and_4095_frames_ahead() {
    let frames = |count: u64| {
        let mut writer = layered_writer();
        (0..count).for_each(|_| writer.frame(b"").unwrap());
        writer
    };
    let mut writer = frames(4_100);
    messages(&mut writer);
    let mut target = |index| {
        writer.target(index, 1, &[b"y"]).unwrap();
        messages(&mut writer).remove(0)
    };
    let mut reader = reader(Binding::Message);
    for message in messages(&mut frames(3)) {
        reader.push_message(&message).unwrap();
    }
    for index in [3, 4_098, 4_099] {
        reader.push_message(&target(index)).unwrap();
    }
    let mut events = Vec::new();
    poll_all(&mut reader, &mut events).unwrap();
    let early = |index, epoch| TargetStatus::Early { index, epoch };
    let status = |event: &Event| match event.chunk {
        Chunk::Target { status, .. } => Some(status),
        _ => None,
    };
    let said: Vec<_> = events.drain(..).filter_map(|event| status(&event)).collect();
    assert_eq!(said, [early(3, 0), early(4_098, 0), TargetStatus::Damaged]);
    let mut writer = frames(3);
    for _ in 0..9 {
        writer.rewind(2).unwrap();
        writer.frame(b"").unwrap();
        messages(&mut writer);
        writer.target(2, 1, &[b"y"]).unwrap();
        reader.push_message(&messages(&mut writer)[0]).unwrap();
    }
    poll_all(&mut reader, &mut events).unwrap();
    let said: Vec<_> = events.iter().filter_map(status).collect();
    assert_eq!(said[..8], (1..9).map(|epoch| early(2, epoch)).collect::<Vec<_>>());
    assert_eq!(said[8..], [TargetStatus::Damaged]);
}

#[test]
fn a_datagram_is_judged_where_it_came_and_counts_in_no_offset() {
    let header = StreamHeader { mode: Mode::Layered, target_horizon: Some(64), ..header() };
    let mut writer = Writer::new(header.clone(), Binding::ByteStream).unwrap();
    let mut other = layered_writer();
    for writer in [&mut writer, &mut other] {
        writer.frame(b"w0").unwrap();
        writer.frame(b"w1").unwrap();
    }
    messages(&mut other);
    other.target(1, 1, &[b"y1"]).unwrap();
    let target = messages(&mut other).remove(0);
    writer.end(0, 0).unwrap();
    let stream = writer.take().unwrap();
    let (plain, _) = drive(reader(Binding::ByteStream), [&stream[..]]);
    let early = TargetStatus::Early { index: 1, epoch: 0 };
    let usable = TargetStatus::Usable { index: 1, epoch: 0 };
    let places: Vec<u64> = plain.iter().map(|event| event.offset + event.bytes).collect();
    for place in 0..=stream.len() as u64 {
        // Everything is pushed before the first poll, or the reader is polled after each piece.
        for polled in [false, true] {
            let mut reader = reader(Binding::ByteStream);
            let mut events = Vec::new();
            reader.push(&stream[..place as usize]).unwrap();
            if polled {
                poll_all(&mut reader, &mut events).unwrap();
            }
            reader.push_target(&target).unwrap();
            reader.push_target(b"").unwrap();
            if polled {
                poll_all(&mut reader, &mut events).unwrap();
            }
            reader.push(&stream[place as usize..]).unwrap();
            reader.finish();
            reader.push_target(b"garbage").unwrap();
            assert_eq!(poll_all(&mut reader, &mut events), Ok(Poll::End));
            assert_eq!(reader.offset(), stream.len() as u64);
            let at = places.iter().filter(|end| **end <= place).count();
            let status = match at {
                0 => TargetStatus::Damaged,
                1 | 2 => early,
                _ => usable,
            };
            let answer = events.remove(at);
            assert!(
                matches!(answer.chunk, Chunk::Target { status: said, .. } if said == status),
                "{place}: {answer:?}"
            );
            assert_eq!((answer.bytes, answer.offset), (0, if at == 0 { 0 } else { places[at - 1] }));
            let last = events.pop().unwrap();
            assert!(matches!(last.chunk, Chunk::Target { status: TargetStatus::Damaged, .. }), "{last:?}");
            assert_eq!(events, plain);
        }
    }
}

#[test]
fn datagrams_that_wait_are_bounded_and_each_is_answered() {
    let limits = Limits::FORMAT.early_bytes(10_000);
    for (limits, size, room) in [(limits, 1_000, 9), (Limits::FORMAT, 1, 4_096)] {
        let mut reader = Reader::new(ReaderConfig::default().binding(Binding::ByteStream).limits(limits));
        let datagram = vec![7; size];
        for _ in 0..5_000 {
            reader.push_target(&datagram).unwrap();
        }
        let mut events = Vec::new();
        assert_eq!(poll_all(&mut reader, &mut events), Ok(Poll::NeedMore));
        let refused = |event: &&Event| matches!(event.chunk, Chunk::Target { status: TargetStatus::NoRoom, .. });
        assert_eq!((events.len(), events.iter().filter(refused).count()), (5_000, 5_000 - room));
        reader.push_target(&datagram).unwrap();
        assert!(matches!(reader.poll(), Ok(Poll::Event(event)) if !refused(&&event)), "there is room again");
        reader.finish();
        reader.push_target(&datagram).unwrap();
        assert!(matches!(reader.poll(), Ok(Poll::Event(_))), "answered before the stream is found cut");
        let error = reader.poll().unwrap_err();
        assert_eq!((error.kind(), reader.push_target(&datagram)), (ErrorKind::Truncated, Err(error)));
    }
}

fn messages(writer: &mut Writer) -> Vec<Bytes> {
    std::iter::from_fn(|| writer.pop_message().unwrap()).map(|message| message.bytes).collect()
}

fn statuses(messages: &[Bytes]) -> Vec<TargetStatus> {
    let (events, end) = drive(reader(Binding::Message), messages.iter().map(|message| &message[..]));
    assert_eq!(end, Ok(()));
    events
        .iter()
        .filter_map(|event| match event.chunk {
            Chunk::Target { status, .. } => Some(status),
            _ => None,
        })
        .collect()
}

#[test]
fn targets_may_come_late_or_damaged() {
    let mut writer = layered_writer();
    writer.frame(b"w0").unwrap();
    writer.frame(b"w1").unwrap();
    let before = messages(&mut writer);
    writer.target(0, 1, &[b"y0"]).unwrap();
    writer.target(1, 1, &[b"y1"]).unwrap();
    writer.target(0, 2, &[b"both"]).unwrap();
    let targets = messages(&mut writer);
    writer.rewind(1).unwrap();
    writer.frame(b"w1 again").unwrap();
    let rewound = messages(&mut writer);
    writer.reset(0, 0, 0, 0).unwrap();
    let reset = messages(&mut writer);
    writer.end(0, 0).unwrap();
    let end = messages(&mut writer);

    let usable = |index| TargetStatus::Usable { index, epoch: 0 };
    let late = |index| TargetStatus::Late { index, epoch: 0 };
    let order = |parts: &[&[Bytes]]| parts.concat();
    assert_eq!(statuses(&order(&[&before, &targets, &rewound, &reset, &end])), [usable(0), usable(1), usable(0)]);
    // After the rewind, frame 1 is another frame; after the reset, no frame is pending; after the end, targets are
    // still read.
    assert_eq!(statuses(&order(&[&before, &rewound, &targets, &reset, &end])), [usable(0), late(1), late(0)]);
    assert_eq!(statuses(&order(&[&before, &rewound, &reset, &end, &targets])), [late(0), late(1), late(0)]);
    // Before its frame has come, a target is early, and so is a target of two frames of which one has come.
    let early = |index| TargetStatus::Early { index, epoch: 0 };
    let all = order(&[&before[..1], &targets, &before[1..], &rewound, &reset, &end]);
    assert_eq!(statuses(&all), [early(0), early(1), early(0)]);
    let all = order(&[&before[..2], &targets, &before[2..], &rewound, &reset, &end]);
    assert_eq!(statuses(&all), [usable(0), early(1), early(0)]);
    // A flipped bit or a cut anywhere in a target or target batch is damage and not an error.
    for target in [&targets[0], &targets[2]] {
        for byte in 1..target.len() - 1 {
            let mut damaged = target.to_vec();
            damaged[byte] ^= 0x20;
            let all = order(&[&before, &[damaged.into()], &rewound, &reset, &end]);
            assert_eq!(statuses(&all), [TargetStatus::Damaged], "byte {byte}");
            let cut = [&target[..byte], &[0]].concat();
            let all = order(&[&before, &[cut.into()], &rewound, &reset, &end]);
            assert_eq!(statuses(&all), [TargetStatus::Damaged], "cut at {byte}");
        }
    }
}

#[test]
fn a_reader_waits_for_no_target_behind_the_end() {
    let mut writer = layered_writer();
    writer.frame(b"w0").unwrap();
    writer.end(0, 0).unwrap();
    writer.target(0, 1, &[b"y0"]).unwrap();
    let mut reader = reader(Binding::Message);
    let sent = messages(&mut writer);
    let mut events = Vec::new();
    for message in &sent[..3] {
        reader.push_message(message).unwrap();
    }
    assert_eq!(poll_all(&mut reader, &mut events), Ok(Poll::End));
    reader.push_message(&sent[3]).unwrap();
    assert_eq!(poll_all(&mut reader, &mut events), Ok(Poll::End));
    assert_eq!(events.len(), 4);
}

#[test]
fn a_writer_names_only_frames_that_a_reader_can_find() {
    let mut writer = layered_writer();
    for frame in 0..70_000_u32 {
        writer.frame(b"").unwrap();
        if frame == 69_000 {
            messages(&mut writer);
        }
    }
    let missing = |outcome: Result<(), Error>| outcome.unwrap_err().kind();
    assert_eq!(missing(writer.target(70_000, 1, &[b"y"])), ErrorKind::FrameNotPending);
    assert_eq!(missing(writer.target(70_000 - 32_769, 1, &[b"y"])), ErrorKind::FrameNotPending);
    writer.target(70_000 - 32_768, 1, &[b"y"]).unwrap();
    // 248 epochs later the low bits refer to a future epoch.
    for _ in 0..247 {
        writer.rewind(69_990).unwrap();
        writer.batch(10, &[b"w"]).unwrap();
    }
    writer.target(69_980, 1, &[b"y"]).unwrap();
    writer.rewind(69_990).unwrap();
    assert_eq!(missing(writer.target(69_980, 1, &[b"y"])), ErrorKind::FrameNotPending);
    writer.frame(b"").unwrap();
    writer.exact_frame(midspan::wire::Dtype::F32, b"exact", &[]).unwrap();
    assert_eq!(missing(writer.target(69_991, 1, &[b"y"])), ErrorKind::FrameNotPending);
}
