//! The rules of spec chapter 2, one by one, on streams made by hand.
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

mod container_support;

use bytes::{BufMut, BytesMut};
use container_support::{drive, drive_bytes, poll_all, reader};
use midspan::error::{Error, ErrorKind, Fault, Limit};
use midspan::stream::{Binding, Chunk, JoinPoint, Limits, MessageClass, Poll, Reader, ReaderConfig, Writer};
use midspan::wire::{
    CheckWidth, Checkpoint, End, Extension, Kind, Mode, Rewind, Seed, StreamHeader, check, kind, varint,
};

fn header() -> StreamHeader {
    StreamHeader { check: CheckWidth::None, max_rewind: 5, max_chunk_bytes: 1_000, ..StreamHeader::new([7; 32]) }
}

fn header_bytes(header: &StreamHeader) -> BytesMut {
    let mut out = BytesMut::new();
    header.encode(&mut out).unwrap();
    out
}

fn chunk(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    kind::encode_head(kind, body.len(), 0, &mut out).unwrap();
    out.put_slice(body);
    out.to_vec()
}

fn control(kind: Kind, fields: &[u8]) -> Vec<u8> {
    let mut body = BytesMut::from(fields);
    check::encode_control_crc(kind, Seed::NONE, 0, &mut body);
    chunk(kind, &body)
}

fn end(index: u64, frames_coded: u64) -> Vec<u8> {
    let mut body = BytesMut::new();
    End { index, frames_coded, digest_w: 0, digest_y: 0 }.encode(Seed::NONE, &mut body).unwrap();
    chunk(Kind::End, &body)
}

/// The outcome of a header and these chunks. Offsets are counted from the end of the header.
fn outcome_of(header: &StreamHeader, chunks: &[&[u8]]) -> Result<(), (ErrorKind, u64)> {
    let start = header_bytes(header);
    let stream = [&start[..], &chunks.concat()].concat();
    drive_bytes(&stream).1.map_err(|error| (error.kind(), error.offset() - start.len() as u64))
}

fn outcome(chunks: &[&[u8]]) -> Result<(), (ErrorKind, u64)> {
    outcome_of(&header(), chunks)
}

fn layered() -> StreamHeader {
    StreamHeader { mode: Mode::Layered, target_horizon: Some(4), ..header() }
}

#[test]
fn the_shortest_stream() {
    assert_eq!(outcome(&[&end(0, 0)]), Ok(()));
    assert_eq!(outcome(&[&[1, b'a'], &end(1, 1)]), Ok(()));
    assert_eq!(outcome(&[]), Err((ErrorKind::Truncated, 0)));
}

#[test]
fn chunk_1_reserved_kinds() {
    for kind in (0xcd..=0xff).filter(|kind| !matches!(kind, 0xe0 | 0xf0)) {
        assert_eq!(outcome(&[&[kind]]), Err((ErrorKind::ReservedKind, 0)));
    }
}

#[test]
fn chunk_2_huge_lengths_are_refused_before_the_body() {
    let start = header_bytes(&header());
    for (head, at) in [
        (&[0x83, 0x69][..], 0),                                       // one frame of 1,001 bytes
        (&[0xc0, 0xc0, 0x40, 0x80], 1),                               // of 16,512
        (&[0xc1, 0x83, 0xe9], 1),                                     // batch of 1,001
        (&[0xe0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 1), // extension of 2^56 − 1
        (&[0xc4, 0xf0, 0x40, 0x00, 0x00, 0x00], 1),                   // checkpoint of 2^30
    ] {
        let mut reader = reader(Binding::ByteStream);
        reader.push(&start).unwrap();
        reader.push(head).unwrap();
        let offset = start.len() as u64 + at;
        assert_eq!(
            poll_all(&mut reader, &mut Vec::new()),
            Err(Error::new(ErrorKind::ChunkTooLong, offset)),
            "{head:x?}"
        );
    }
    // For a length within the limit the reader waits for more bytes.
    let mut reader = reader(Binding::ByteStream);
    reader.push(&start).unwrap();
    reader.push(&[0xc1, 0x83, 0xe8]).unwrap();
    assert_eq!(poll_all(&mut reader, &mut Vec::new()), Ok(Poll::NeedMore));
}

#[test]
fn hdr_9_the_smaller_limit_holds() {
    let limits = Limits::FORMAT.max_frames(3).max_chunk_bytes(20).max_rewind(1);
    let run = |chunks: &[&[u8]]| {
        let start = header_bytes(&header());
        let reader = Reader::new(ReaderConfig::default().binding(Binding::ByteStream).limits(limits));
        let (_, end) = drive(reader, [&start[..], &chunks.concat()]);
        end.map_err(|error| (error.kind(), error.offset() - start.len() as u64))
    };
    let rewind = |index| {
        let mut body = BytesMut::new();
        Rewind { index }.encode(Seed::NONE, &mut body).unwrap();
        chunk(Kind::Rewind, &body)
    };
    assert_eq!(run(&[&chunk(Kind::Frame, &[1; 20]), &end(1, 1)]), Ok(()));
    assert_eq!(run(&[&chunk(Kind::Frame, &[1; 21])]), Err((ErrorKind::ChunkTooLong, 0)));
    assert_eq!(run(&[&chunk(Kind::Batch, &[2, 0, 9]), &end(3, 3)]), Ok(()));
    assert_eq!(run(&[&chunk(Kind::Batch, &[3, 0, 9])]), Err((ErrorKind::TooManyFrames, 2)));
    assert_eq!(run(&[&[0, 0], &rewind(1), &end(1, 2)]), Ok(()));
    assert_eq!(run(&[&[0, 0], &rewind(0)]), Err((ErrorKind::RewindTooFar, 2 + 2)));
}

#[test]
fn a_limit_of_the_callers_own_is_named() {
    let declared = StreamHeader { max_frames: 300, max_chunk_bytes: 1 << 23, max_rewind: 2_000, ..header() };
    let layered = StreamHeader { mode: Mode::Layered, target_horizon: Some(5_000), ..declared.clone() };
    let under = |limits: Limits, header: &StreamHeader, chunks: &[&[u8]]| {
        let reader = Reader::new(ReaderConfig::default().limits(limits));
        let error = drive(reader, [&header_bytes(header)[..], &chunks.concat()]).1.unwrap_err();
        let own = match error.limit() {
            Some(Limit::Own(name)) => Some(name),
            _ => None,
        };
        assert_eq!(own.is_some(), error.fault() == Fault::Resource, "{error}");
        (error.kind(), own)
    };
    let refused = |header: &StreamHeader, chunks: &[&[u8]]| under(Limits::default(), header, chunks);
    // Batches of 257 frames and of 301: one exceeds only the caller's limit, the other also the header's.
    let many = |frames: u64| {
        let mut body = BytesMut::new();
        varint::encode(frames - 1, &mut body).unwrap();
        body.put_slice(&[0, 9]);
        chunk(Kind::Batch, &body)
    };
    for (header, name) in [(&declared, "Limits::max_frames"), (&layered, "Limits::max_frames")] {
        assert_eq!(refused(header, &[&many(257)]), (ErrorKind::TooManyFrames, Some(name)));
        assert_eq!(refused(header, &[&many(301)]), (ErrorKind::TooManyFrames, None));
    }
    let near = Limits::default().target_horizon(10);
    let horizon = "Limits::target_horizon";
    assert_eq!(under(near, &layered, &[&many(11)]), (ErrorKind::TooManyFrames, Some(horizon)));
    let long = |bytes: u64| {
        let mut head = BytesMut::from(&[0xe0][..]);
        varint::encode(bytes, &mut head).unwrap();
        head
    };
    assert_eq!(refused(&declared, &[&long((1 << 22) + 1)]), (ErrorKind::ChunkTooLong, Some("Limits::max_chunk_bytes")));
    assert_eq!(refused(&declared, &[&long((1 << 23) + 1)]), (ErrorKind::ChunkTooLong, None));
    let frames = [many(256), many(256), many(256), many(256), many(256)].concat();
    let rewind = |index| {
        let mut body = BytesMut::new();
        Rewind { index }.encode(Seed::NONE, &mut body).unwrap();
        chunk(Kind::Rewind, &body)
    };
    assert_eq!(refused(&declared, &[&frames, &rewind(255)]), (ErrorKind::RewindTooFar, Some("Limits::max_rewind")));
    assert_eq!(refused(&declared, &[&frames, &frames, &rewind(255)]), (ErrorKind::RewindTooFar, None));
}

#[test]
fn chunk_3_and_4() {
    let wide = StreamHeader { max_chunk_bytes: 1 << 20, ..header() };
    assert_eq!(outcome_of(&wide, &[&[0xc0, 0x05]]), Err((ErrorKind::FrameFormNotShortest, 1)));
    assert_eq!(outcome(&[&[0xc2]]), Err((ErrorKind::KindNotInMode, 0)));
    assert_eq!(outcome(&[&[0xc3]]), Err((ErrorKind::KindNotInMode, 0)));
    assert_eq!(outcome(&[&[0xcb]]), Err((ErrorKind::SeekIndexMisplaced, 0)));
    let file = StreamHeader { file: true, ..header() };
    assert_eq!(outcome_of(&file, &[&[0xcb]]), Err((ErrorKind::SeekIndexMisplaced, 0)));
    assert_eq!(outcome(&[&end(0, 0), &[0xcb]]), Err((ErrorKind::DataAfterEnd, end(0, 0).len() as u64)));
}

#[test]
fn ctrl_2_totals() {
    let checkpoint = |index| {
        let mut body = BytesMut::new();
        Checkpoint { index, digest_w: 0, digest_y: 0 }.encode(Seed::NONE, &mut body).unwrap();
        chunk(Kind::Checkpoint, &body)
    };
    assert_eq!(outcome(&[&[0], &checkpoint(1), &end(1, 1)]), Ok(()));
    assert_eq!(outcome(&[&[0], &checkpoint(0)]), Err((ErrorKind::IndexMismatch, 3)));
    assert_eq!(outcome(&[&[0], &end(0, 1)]), Err((ErrorKind::IndexMismatch, 3)));
    assert_eq!(outcome(&[&[0], &end(1, 2)]), Err((ErrorKind::FrameTotalMismatch, 4)));
}

#[test]
fn ctrl_7_extensions() {
    let grease = Extension::grease_id(3).unwrap() as u8;
    assert_eq!(outcome(&[&control(Kind::Ignorable, &[grease, 1, 2]), &end(0, 0)]), Ok(()));
    assert_eq!(outcome(&[&control(Kind::Ignorable, &[0x05]), &end(0, 0)]), Ok(()));
    assert_eq!(outcome(&[&control(Kind::Critical, &[0x05])]), Err((ErrorKind::UnknownCriticalExtension, 2)));
    let mut damaged = control(Kind::Critical, &[0x05]);
    damaged[2] ^= 1;
    assert_eq!(outcome(&[&damaged]), Err((ErrorKind::ControlCrcMismatch, 3)));
}

#[test]
fn err_6_the_fault_met_first_is_reported() {
    // A checkpoint with a wrong index and bytes after its fields: the index comes first.
    assert_eq!(outcome(&[&control(Kind::Checkpoint, &[9; 10])]), Err((ErrorKind::IndexMismatch, 2)));
    // A reset with a wrong epoch that ends inside its prefix.
    assert_eq!(outcome(&[&control(Kind::Reset, &[0, 9, 0, 0, 7])]), Err((ErrorKind::EpochMismatch, 3)));
    assert_eq!(outcome(&[&control(Kind::Reset, &[0, 1, 0, 0, 7])]), Err((ErrorKind::ChunkLayout, 6)));
    assert_eq!(
        outcome(&[&control(Kind::Reset, &[0, 1, 0, 0, 7, 7, 7, 7, 7, 7, 7, 8])]),
        Err((ErrorKind::WrongModelAtReset, 6))
    );
    // A target in joined mode whose length exceeds the limit: the kind comes first.
    assert_eq!(outcome(&[&[0xc2, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]]), Err((ErrorKind::KindNotInMode, 0)));
}

#[test]
fn file_rules() {
    let file = StreamHeader { file: true, ..header() };
    let start = header_bytes(&file).len() as u64;
    let last = end(0, 0);
    let at = last.len() as u64;
    let index = control(Kind::SeekIndex, &[0]);
    let footer = |offset: u64| [&offset.to_le_bytes()[..], b"MSPX"].concat();
    let good = footer(start + at);
    let behind = at + index.len() as u64;
    let run = |chunks: &[&[u8]]| outcome_of(&file, &[&[&last[..]], chunks].concat());
    assert_eq!(run(&[&index, &good]), Ok(()));
    assert_eq!(run(&[]), Err((ErrorKind::Truncated, at)));
    assert_eq!(run(&[&[0xc4]]), Err((ErrorKind::SeekIndexMisplaced, at)));
    assert_eq!(run(&[&[0xff]]), Err((ErrorKind::SeekIndexMisplaced, at)));
    assert_eq!(run(&[&index]), Err((ErrorKind::Truncated, behind)));
    assert_eq!(run(&[&index, &good[..11]]), Err((ErrorKind::Truncated, behind + 11)));
    assert_eq!(run(&[&index, &footer(start)]), Err((ErrorKind::BadFooter, behind)));
    assert_eq!(run(&[&index, &[&good[..11], b"Y"].concat()]), Err((ErrorKind::BadFooter, behind + 8)));
    assert_eq!(run(&[&index, &good, &[0]]), Err((ErrorKind::DataAfterEnd, behind + 12)));
    assert_eq!(run(&[&control(Kind::SeekIndex, &[1, 0, 0])]), Err((ErrorKind::SeekIndexOrder, at + 4)));
    let beyond = u8::try_from(start + at).unwrap();
    assert!(beyond < 0x80);
    assert_eq!(run(&[&control(Kind::SeekIndex, &[1, 0, beyond])]), Err((ErrorKind::SeekIndexOrder, at + 4)));
}

#[test]
fn message_rules() {
    let mut first = header_bytes(&StreamHeader { binding: Binding::Message, ..layered() });
    first.put_u8(0);
    let start = first.len() as u64;
    let run = |messages: &[&[u8]]| {
        let messages = [&[&first[..]], messages].concat();
        let (events, end) = drive(reader(Binding::Message), messages);
        (events.len() - 1, end.map_err(|error| (error.kind(), error.offset().wrapping_sub(start))))
    };
    let as_message = |kind, fields: &[u8]| {
        let mut body = BytesMut::from(fields);
        check::encode_control_crc(kind, Seed::NONE, 0, &mut body);
        [&[kind.byte()], &body[..], &[0]].concat()
    };
    let last = |index| as_message(Kind::End, &[index, index, 0, 0, 0, 0, 0, 0, 0, 0]);
    // [MSG-2] A message that does not end in 0x00 is a frame, and so is `C0 00`, whose body is empty.
    assert_eq!(run(&[&[0xc0, 0], &[0xc4], &[0, 0, 1], &last(3)]), (4, Ok(())));
    // [MSG-3]
    assert_eq!(run(&[&[0]]), (0, Err((ErrorKind::MessageTooShort, 0))));
    assert_eq!(run(&[&[1], &[0xc0, 0, 0]]), (1, Err((ErrorKind::FrameFormNotShortest, 1))));
    assert_eq!(run(&[&[1], &[0xc0, 7, 0]]), (1, Err((ErrorKind::FrameFormNotShortest, 1))));
    assert_eq!(run(&[&[0x10, 0]]), (0, Err((ErrorKind::ReservedKind, 0))));
    assert_eq!(run(&[&[0xd0, 0]]), (0, Err((ErrorKind::ReservedKind, 0))));
    assert_eq!(run(&[&[0xcb, 0]]), (0, Err((ErrorKind::SeekIndexMisplaced, 0))));
    assert_eq!(run(&[&[0xc4, 0]]), (0, Err((ErrorKind::ChunkLayout, 1))));
    assert_eq!(run(&[&[1; 1_001]]), (0, Err((ErrorKind::ChunkTooLong, 0))));
    // [MSG-4]
    assert_eq!(run(&[&first]), (0, Err((ErrorKind::ReservedKind, 0))));
    // [MSG-5] targets may come after the end, nothing else.
    let behind = last(1).len() as u64 + 1;
    let target = [0xc2, 0, 0, 0, 1, 1, b'a', 0];
    assert_eq!(run(&[&[1], &last(1), &target]), (3, Ok(())));
    assert_eq!(run(&[&[1], &last(1), &[1]]), (2, Err((ErrorKind::DataAfterEnd, behind))));
    assert_eq!(run(&[&[1], &last(1), &[0]]), (2, Err((ErrorKind::DataAfterEnd, behind))));
    assert_eq!(run(&[&[1], &last(1), &last(1)]), (2, Err((ErrorKind::DataAfterEnd, behind))));
}

#[test]
fn an_empty_message_is_no_frame() {
    let mut writer = Writer::new(header(), Binding::Message).unwrap();
    writer.frame(b"a").unwrap();
    writer.frame(b"").unwrap();
    writer.end(0, 0).unwrap();
    let messages: Vec<_> = std::iter::from_fn(|| writer.pop_message().unwrap()).map(|message| message.bytes).collect();
    assert_eq!(messages[2][..], [0xc0, 0x00]);
    // [MSG-6] at any place: before the header, among the chunks, after the end.
    let mut with_empty = vec![&b""[..]];
    messages.iter().for_each(|message| with_empty.extend([&message[..], b"", b""]));
    let plain = drive(reader(Binding::Message), messages.iter().map(|message| &message[..]));
    assert_eq!((plain.0.len(), plain.1), (4, Ok(())));
    assert_eq!(drive(reader(Binding::Message), with_empty), plain);
    assert_eq!(drive(reader(Binding::Message), [&b""[..], b""]).1, Err(Error::new(ErrorKind::Truncated, 0)));
}

#[test]
fn the_wrong_binding_is_refused_both_ways() {
    let write = |binding| {
        let mut writer = Writer::new(header(), binding).unwrap();
        writer.frame(b"a").unwrap();
        writer.end(0, 0).unwrap();
        writer
    };
    // A stream that was written for one binding is refused by a reader of the other.
    let mut messages = write(Binding::Message);
    let bytes: Vec<u8> =
        std::iter::from_fn(|| messages.pop_message().unwrap()).flat_map(|message| message.bytes).collect();
    let refused = (vec![], Err(Error::new(ErrorKind::WrongBinding, 7)));
    assert_eq!(drive_bytes(&bytes), refused);
    let mut stream = write(Binding::ByteStream);
    let whole = stream.take().unwrap();
    assert_eq!(drive(reader(Binding::Message), [&whole[..]]), refused);
    let start = header_bytes(&header());
    assert_eq!(drive(reader(Binding::Message), [&[&start[..], &[0]].concat()[..]]), refused);
    // Writers and readers refuse the other binding's calls.
    let kind = |error: Error| error.kind();
    assert_eq!(messages.take().map_err(kind), Err(ErrorKind::NotAvailable));
    assert_eq!(stream.pop_message().map_err(kind), Err(ErrorKind::NotAvailable));
    assert_eq!(reader(Binding::Message).push(&whole).map_err(kind), Err(ErrorKind::NotAvailable));
    assert_eq!(reader(Binding::ByteStream).push_message(&whole).map_err(kind), Err(ErrorKind::NotAvailable));
    // A reader that joins gets the header separately.
    let config = ReaderConfig::default().binding(Binding::Message).limits(Limits::FORMAT);
    let mut joined = Reader::join(config, header(), JoinPoint::default());
    assert_eq!(joined.push_message(b"a").map_err(kind), Err(ErrorKind::WrongBinding));
    assert_eq!(joined.poll().map_err(kind), Err(ErrorKind::WrongBinding));
}

#[test]
fn messages_say_how_they_travel() {
    let mut writer = Writer::new(layered(), Binding::Message).unwrap();
    writer.batch(3, &[b"w"]).unwrap();
    writer.target(0, 2, &[b"y"]).unwrap();
    writer.target_part(2, 5..9, b"part").unwrap();
    writer.frame(b"w").unwrap();
    writer.checkpoint(0, 0).unwrap();
    writer.rewind(2).unwrap();
    writer.exact_frame(midspan::wire::Dtype::F16, b"wy", &[0, 0]).unwrap();
    writer.end(0, 0).unwrap();
    let said: Vec<_> = std::iter::from_fn(|| writer.pop_message().unwrap()).map(|m| (m.class, m.frames)).collect();
    let (reliable, droppable) = (MessageClass::Reliable, MessageClass::Droppable);
    let expected = [
        (MessageClass::Header, 0..0),
        (reliable, 0..3),
        (droppable, 0..2),
        (droppable, 2..3),
        (reliable, 3..4),
        (reliable, 0..0),
        (reliable, 0..0),
        (reliable, 2..3),
        (reliable, 0..0),
    ];
    assert_eq!(said, expected);
}

#[test]
fn msg_5_joined_mode_has_no_targets_behind_the_end() {
    let mut writer = Writer::new(header(), Binding::Message).unwrap();
    writer.end(0, 0).unwrap();
    let position = writer.position();
    let mut messages: Vec<_> =
        std::iter::from_fn(|| writer.pop_message().unwrap()).map(|message| message.bytes).collect();
    messages.push(vec![0xc2, 0, 0, 0, 1, 1, b'a', 0].into());
    let (events, end) = drive(reader(Binding::Message), messages.iter().map(|message| &message[..]));
    assert_eq!((events.len(), end), (2, Err(Error::new(ErrorKind::DataAfterEnd, position))));
}

#[test]
fn msg_1_the_first_message() {
    let header = header_bytes(&StreamHeader { binding: Binding::Message, ..header() });
    let length = header.len() as u64;
    let first = |message: &[u8]| drive(reader(Binding::Message), [message]).1.unwrap_err();
    assert_eq!(first(&header[..20]), Error::new(ErrorKind::Truncated, 20));
    assert_eq!(first(&header), Error::new(ErrorKind::Truncated, length));
    assert_eq!(first(&[&header[..], &[1]].concat()), Error::new(ErrorKind::HeaderLayout, length));
    assert_eq!(first(&[&header[..], &[0, 0]].concat()), Error::new(ErrorKind::HeaderLayout, length + 1));
    let file = header_bytes(&StreamHeader { file: true, ..self::header() });
    assert_eq!(first(&file), Error::new(ErrorKind::WrongBinding, 7));
}

#[test]
fn errors_of_the_caller_are_not_the_streams() {
    let mut reader = reader(Binding::ByteStream);
    assert_eq!(reader.push_message(&[]).unwrap_err().kind(), ErrorKind::NotAvailable);
    reader.push(&header_bytes(&header())).unwrap();
    assert!(matches!(reader.poll(), Ok(Poll::Event(_))));
    assert_eq!(reader.poll(), Ok(Poll::NeedMore));
    reader.finish();
    assert_eq!(reader.push(&[0]).unwrap_err().kind(), ErrorKind::AfterEnd);
    let truncated = reader.poll().unwrap_err();
    assert_eq!(truncated.kind(), ErrorKind::Truncated);
    assert_eq!(reader.push(&[0]), Err(truncated));
    assert_eq!(reader.poll(), Err(truncated));
}

#[test]
fn a_writer_keeps_the_rules_and_goes_on() {
    let mut writer = Writer::new(header(), Binding::ByteStream).unwrap();
    let none: [&[u8]; 0] = [];
    let refusals = |writer: &mut Writer| {
        [
            writer.frame(&[1; 1_001]),
            writer.frame(&[1, 0]),
            writer.batch(1, &[b"a"]),
            writer.batch(5_000, &[b"a"]),
            writer.batch(2, &none),
            writer.batch(2, &[b"a", b"b", b"c"]),
            writer.rewind(0),
            writer.target(0, 1, &[b"a"]),
            writer.exact_frame(midspan::wire::Dtype::F32, b"a", &[0; 6]),
        ]
        .map(|outcome| outcome.unwrap_err())
    };
    let position = writer.position();
    let errors = refusals(&mut writer);
    assert_eq!(
        errors.map(|error| error.kind()),
        [
            ErrorKind::ChunkTooLong,
            ErrorKind::SealNotCanonical,
            ErrorKind::BatchOfOne,
            ErrorKind::TooManyFrames,
            ErrorKind::LaneCount,
            ErrorKind::LaneCount,
            ErrorKind::RewindTarget,
            ErrorKind::KindNotInMode,
            ErrorKind::WrongShape,
        ]
    );
    assert!(errors.iter().all(|error| error.offset() == position));
    assert_eq!(writer.position(), position);
    for _ in 0..7 {
        writer.frame(b"a").unwrap();
    }
    assert_eq!(writer.rewind(1).unwrap_err().kind(), ErrorKind::RewindTooFar);
    writer.rewind(2).unwrap();
    writer.end(0, 0).unwrap();
    assert_eq!(writer.frame(b"a").unwrap_err().kind(), ErrorKind::AfterEnd);
    assert_eq!(writer.end(0, 0).unwrap_err().kind(), ErrorKind::AfterEnd);
    let (events, end) = drive_bytes(&writer.take().unwrap());
    assert_eq!((events.len(), end), (1 + 7 + 2, Ok(())));
    let file = StreamHeader { file: true, ..header() };
    assert_eq!(Writer::new(file, Binding::Message).unwrap_err().kind(), ErrorKind::ReservedHeaderBits);
}

#[test]
fn a_seek_index_that_does_not_fit_has_fewer_entries() {
    let file = StreamHeader { file: true, max_chunk_bytes: 72, ..header() };
    let mut writer = Writer::new(file, Binding::ByteStream).unwrap();
    for _ in 0..100 {
        writer.frame(b"a").unwrap();
        writer.reset(0, 0, 0, 0).unwrap();
    }
    writer.end(0, 0).unwrap();
    let (events, end) = drive_bytes(&writer.take().unwrap());
    assert_eq!(end, Ok(()));
    let entries = events.iter().find_map(|event| match &event.chunk {
        Chunk::SeekIndex(index) => Some(index.entries.len()),
        _ => None,
    });
    assert!(entries.is_some_and(|entries| (10..100).contains(&entries)), "{entries:?}");
}
