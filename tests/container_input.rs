//! Events and errors depend only on the bytes, not on cuts or on chance (spec 7.1).
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

mod container_support;

use container_support::{Op, bytes, drive, drive_bytes, header, op, poll_all, reader, write};
use midspan::error::{Error, ErrorKind};
use midspan::stream::{Binding, Event, Poll};
use midspan::wire::{CheckWidth, Mode, StreamHeader};
use proptest::prelude::*;

/// Every kind of chunk once, and short.
fn short_stream(mode: Mode, file: bool) -> (StreamHeader, Vec<Op>) {
    let header = StreamHeader {
        mode,
        file,
        check: CheckWidth::Two,
        max_rewind: 10,
        target_horizon: (mode == Mode::Layered).then_some(16),
        ..StreamHeader::new([7; 32])
    };
    let ops = vec![
        Op::Frame(b"frame".to_vec()),
        Op::Frame(vec![5; 130]),
        Op::Batch(4, vec![b"lane one".to_vec(), b"two".to_vec()]),
        Op::Target(0, 1, vec![b"target".to_vec()]),
        Op::Target(0, 4, vec![b"targets".to_vec(), b"more".to_vec()]),
        Op::Part(1, 3..300, b"part".to_vec()),
        Op::Checkpoint(3, 4),
        Op::Rewind(2),
        Op::Frame(Vec::new()),
        Op::Quality((1, 0)),
        Op::Reset((2, 40), (3, 4)),
        Op::Exact(b"exact".to_vec(), vec![1, 2, 3, 4]),
        Op::Extension(27, b"grease".to_vec()),
        Op::ModelSwitch(8, 300, (0, 3), (5, 6)),
        Op::Frame(b"last".to_vec()),
    ];
    (header, ops)
}

fn short_streams() -> Vec<Vec<u8>> {
    [(Mode::Joined, false), (Mode::Joined, true), (Mode::Layered, false), (Mode::Layered, true)]
        .map(|(mode, file)| short_stream(mode, file))
        .map(|(header, ops)| bytes(&header, &ops).to_vec())
        .to_vec()
}

fn byte_by_byte(stream: &[u8]) -> (Vec<Event>, Result<(), Error>) {
    drive(reader(Binding::ByteStream), stream.chunks(1))
}

#[test]
fn truncation_at_every_byte() {
    for stream in short_streams() {
        let (events, end) = drive_bytes(&stream);
        assert_eq!(end, Ok(()));
        for length in 0..stream.len() {
            let (got, error) = drive_bytes(&stream[..length]);
            // [CHUNK-6] A cut stream never succeeds unless it is cut at its end. All whole chunks before the cut are
            // reported.
            assert_eq!(error, Err(Error::new(ErrorKind::Truncated, length as u64)));
            let whole = events.iter().take_while(|event| event.offset + event.bytes <= length as u64).count();
            assert_eq!(got, events[..whole]);
        }
    }
}

#[test]
fn truncation_of_messages() {
    let (header, ops) = short_stream(Mode::Layered, false);
    let (messages, _) = write(&header, Binding::Message, &ops);
    for count in 0..messages.len() {
        let sent = &messages[..count];
        let (events, error) = drive(reader(Binding::Message), sent.iter().map(|message| &message[..]));
        let length: usize = sent.iter().map(|message| message.len()).sum();
        assert_eq!(error, Err(Error::new(ErrorKind::Truncated, length as u64)));
        assert_eq!(events.len(), count);
    }
}

#[test]
fn every_bit_flip_shows() {
    for stream in short_streams() {
        let (events, _) = drive_bytes(&stream);
        for bit in 0..stream.len() * 8 {
            let mut flipped = stream.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (got, end) = drive_bytes(&flipped);
            assert!(end.is_err() || got != events, "bit {bit}");
            assert_eq!(byte_by_byte(&flipped), (got, end), "bit {bit}");
        }
    }
}

#[test]
fn every_bit_flip_in_messages_shows() {
    let (header, ops) = short_stream(Mode::Layered, false);
    let (messages, _) = write(&header, Binding::Message, &ops);
    let read = |messages: &[Vec<u8>]| drive(reader(Binding::Message), messages.iter().map(|message| &message[..]));
    let messages: Vec<Vec<u8>> = messages.iter().map(|message| message.to_vec()).collect();
    let (events, end) = read(&messages);
    assert_eq!(end, Ok(()));
    for place in 0..messages.len() {
        for bit in 0..messages[place].len() * 8 {
            let mut flipped = messages.clone();
            flipped[place][bit / 8] ^= 1 << (bit % 8);
            let (got, end) = read(&flipped);
            assert!(end.is_err() || got != events, "message {place}, bit {bit}");
        }
    }
}

/// Cuts `stream` at these places, in permille.
fn cut<'a>(stream: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place * stream.len() / 1_000).collect();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

#[derive(Clone, Debug)]
enum Mutation {
    Set(u8),
    Insert(Vec<u8>),
    Remove(usize),
    Repeat(usize),
}

fn mutation() -> impl Strategy<Value = (usize, Mutation)> {
    let mutation = prop_oneof![
        any::<u8>().prop_map(Mutation::Set),
        prop::collection::vec(any::<u8>(), 1..9).prop_map(Mutation::Insert),
        (1_usize..20).prop_map(Mutation::Remove),
        (1_usize..60).prop_map(Mutation::Repeat),
    ];
    (0_usize..1_000, mutation)
}

fn mutate(stream: &mut Vec<u8>, mutations: &[(usize, Mutation)]) {
    for (place, mutation) in mutations {
        let at = place * stream.len() / 1_000;
        let end = |bytes: &usize| (at + bytes).min(stream.len());
        match mutation {
            Mutation::Set(value) => stream[at] = *value,
            Mutation::Insert(bytes) => drop(stream.splice(at..at, bytes.iter().copied())),
            Mutation::Remove(bytes) => drop(stream.drain(at..end(bytes))),
            Mutation::Repeat(bytes) => {
                let again = stream[at..end(bytes)].to_vec();
                drop(stream.splice(at..at, again));
            }
        }
        if stream.is_empty() {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn cuts_do_not_matter(
        header in header(),
        file in any::<bool>(),
        ops in prop::collection::vec(op(), 0..20),
        places in prop::collection::vec(0_usize..1_000, 0..12),
        mutations in prop::collection::vec(mutation(), 0..3),
    ) {
        let mut stream = bytes(&StreamHeader { file, ..header }, &ops).to_vec();
        mutate(&mut stream, &mutations);
        let whole = drive_bytes(&stream);
        prop_assert_eq!(&drive(reader(Binding::ByteStream), cut(&stream, &places)), &whole);
        prop_assert_eq!(&byte_by_byte(&stream), &whole);
        if mutations.is_empty() {
            prop_assert_eq!(whole.1, Ok(()));
        }
        if let Err(error) = whole.1 {
            prop_assert!(error.offset() <= stream.len() as u64);
        }
    }

    #[test]
    fn any_bytes_have_an_outcome(
        header in header(),
        garbage in prop::collection::vec(any::<u8>(), 0..200),
        with_header in any::<bool>(),
    ) {
        let begin = |binding| {
            let mut out = bytes::BytesMut::new();
            StreamHeader { binding, ..header.clone() }.encode(&mut out).unwrap();
            if with_header { out.to_vec() } else { Vec::new() }
        };
        let stream = [begin(Binding::ByteStream), garbage.clone()].concat();
        prop_assert_eq!(byte_by_byte(&stream), drive_bytes(&stream));
        let first = [begin(Binding::Message), vec![0]].concat();
        let _ = drive(reader(Binding::Message), [&first[..], &garbage, &garbage[garbage.len() / 2..], &[]]);
        // As a datagram, before or after the header, it is a damaged target or not a target.
        let mut reader = reader(Binding::ByteStream);
        for piece in [&[][..], &stream[..stream.len() - garbage.len()]] {
            reader.push(piece).unwrap();
            reader.push_target(&garbage).unwrap();
            let mut events = Vec::new();
            prop_assert_eq!(poll_all(&mut reader, &mut events), Ok(Poll::NeedMore));
            let header = usize::from(!piece.is_empty());
            prop_assert_eq!(events.len(), header + usize::from(!garbage.is_empty()));
        }
    }
}
