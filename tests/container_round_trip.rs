//! A reader sees what a writer wrote, in all three bindings.
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

mod container_support;

use container_support::{drive, header, op, reader, seen, write};
use midspan::stream::{Binding, Chunk, Event};
use midspan::wire::{SeekIndex, StreamHeader};
use proptest::prelude::*;

/// The events cover the stream without gaps, and its header is the writer's.
fn covers(events: &[Event], header: &StreamHeader, bytes: usize) {
    let mut offset = 0;
    for event in events {
        assert_eq!(event.offset, offset);
        assert!(event.body_offset >= offset && event.body_offset <= offset + event.bytes);
        offset += event.bytes;
    }
    assert_eq!(offset, bytes as u64);
    assert_eq!(events[0].chunk, Chunk::Header(Box::new(header.clone())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn all_bindings(header in header(), ops in prop::collection::vec(op(), 0..40)) {
        for (binding, file) in [(Binding::ByteStream, false), (Binding::ByteStream, true), (Binding::Message, false)] {
            let header = StreamHeader { file, binding, ..header.clone() };
            let (pieces, expected) = write(&header, binding, &ops);
            let (events, end) = drive(reader(binding), pieces.iter().map(|piece| &piece[..]));
            prop_assert_eq!(end, Ok(()));
            let read: Vec<_> = events.iter().filter_map(seen).collect();
            prop_assert_eq!(read, expected);
            covers(&events, &header, pieces.iter().map(|piece| piece.len()).sum());
            // Payload offsets point to the payloads.
            let whole = pieces.concat();
            for payload in events.iter().flat_map(|event| event.chunk.payloads()) {
                let start = payload.offset as usize;
                prop_assert_eq!(&whole[start..start + payload.bytes.len()], &payload.bytes[..]);
            }
        }
    }

    #[test]
    fn the_seek_index_leads_to_every_join_point(header in header(), ops in prop::collection::vec(op(), 0..40)) {
        let header = StreamHeader { file: true, ..header };
        let file = container_support::bytes(&header, &ops);
        let (events, end) = container_support::drive_bytes(&file);
        prop_assert_eq!(end, Ok(()));
        let at = SeekIndex::from_footer(&file[file.len() - 12..]).unwrap();
        let index = SeekIndex::load_chunk(&file[at as usize..], at, header.max_chunk_bytes, header.identity.seed()).unwrap();
        let offsets: Vec<u64> = index.entries.iter().map(|entry| entry.offset).collect();
        let expected: Vec<u64> = events
            .iter()
            .filter(|event| matches!(event.chunk, Chunk::Reset(_) | Chunk::ModelSwitch(_)))
            .map(|event| event.offset)
            .collect();
        prop_assert_eq!(offsets, expected);
        let read = events.iter().find_map(|event| match &event.chunk {
            Chunk::SeekIndex(index) => Some(index.clone()),
            _ => None,
        });
        prop_assert_eq!(read, Some(index));
    }

    #[test]
    fn forks_go_their_own_ways(header in header(), ops in prop::collection::vec(op(), 0..20)) {
        let stream = container_support::bytes(&header, &ops);
        let cut = stream.len() / 2;
        let mut first = reader(Binding::ByteStream);
        let mut events = Vec::new();
        first.push(&stream[..cut]).unwrap();
        container_support::poll_all(&mut first, &mut events).unwrap();
        let mut fork = first.clone();
        fork.push(&[0xff]).unwrap();
        let _ = container_support::poll_all(&mut fork, &mut Vec::new());
        let (rest, end) = drive(first, [&stream[cut..]]);
        events.extend(rest);
        prop_assert_eq!((events, end), container_support::drive_bytes(&stream));
    }
}
