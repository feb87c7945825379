//! The length offset that encoders state, and what becomes of it ([CHUNK-8], spec 2.3).
#![cfg(feature = "codec")]

mod codec_support;

use std::sync::Arc;

use codec_support::{Seen, decode, drain, frames};
use midspan::codec::{Codec, Decoder, DecoderConfig, Encoder, EncoderConfig};
use midspan::error::{ErrorKind, Result};
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::stream::{Binding, Chunk, JoinPoint, Poll, Reader, ReaderConfig};
use midspan::wire::{Identity, Mode};

const MEMORY: usize = 64 << 20;

/// A model whose qualities have these length offsets.
fn with_offsets(seed: u64, offsets: [u16; 2]) -> Arc<Codec> {
    let model = synthetic::model(&SyntheticShape::tiny(), seed).with_length_offsets(offsets.to_vec()).unwrap();
    Arc::new(Codec::new(model).unwrap())
}

fn config() -> EncoderConfig {
    EncoderConfig::new(Identity::none()).checkpoint_interval(0)
}

/// One frame a chunk.
fn push(encoder: &mut Encoder, count: usize, seed: u64) {
    for frame in frames(count, seed).chunks(SyntheticShape::tiny().hidden) {
        encoder.push_y(frame).unwrap();
    }
}

/// A stream with every chunk that states a length offset, and a rewind across one of them.
fn stream(encoder: &mut Encoder, other: &Arc<Codec>) -> Result<()> {
    push(encoder, 3, 1);
    encoder.set_quality(1)?;
    push(encoder, 3, 2);
    encoder.rewind(1)?;
    push(encoder, 2, 3);
    encoder.reset()?;
    push(encoder, 2, 4);
    encoder.switch_model(Arc::clone(other), 0)?;
    push(encoder, 3, 5);
    encoder.set_quality(1)?;
    encoder.reset()?;
    push(encoder, 1, 6);
    encoder.end()
}

/// What a reader of a byte stream finds: the length offsets stated, and of each one-frame chunk how many bytes its length
/// takes, how long its body is and which length offset is in force.
fn read(bytes: &[u8]) -> (Vec<u16>, Vec<(u64, u64, u16)>) {
    let mut reader = Reader::new(ReaderConfig::default());
    reader.push(bytes).unwrap();
    let (mut stated, mut bodies) = (Vec::new(), Vec::new());
    while let Poll::Event(event) = reader.poll().unwrap() {
        match &event.chunk {
            Chunk::Header(header) => stated.push(header.length_offset),
            Chunk::Reset(reset) => stated.push(reset.length_offset),
            Chunk::Quality(quality) => stated.push(quality.length_offset),
            Chunk::ModelSwitch(switch) => stated.push(switch.length_offset),
            Chunk::Frame { .. } => {
                let head = event.body_offset - event.offset;
                bodies.push((head, event.bytes - head, reader.sequence().unwrap().length_offset()));
            }
            _ => {}
        }
    }
    (stated, bodies)
}

#[test]
fn an_encoder_states_what_its_model_recommends_for_each_quality() {
    let (one, other) = (with_offsets(1, [3, 200]), with_offsets(2, [0, 1]));
    let mut encoder = Encoder::new(Arc::clone(&one), config()).unwrap();
    stream(&mut encoder, &other).unwrap();
    let bytes = encoder.take_bytes().unwrap();
    let (stated, bodies) = read(&bytes);
    // Header; quality 1; reset; the other model; its quality 1; reset.
    assert_eq!(stated, [3, 200, 200, 0, 1, 1]);
    // [CHUNK-8] A rewind leaves the length offset as it is: frames 6 and 7 were coded after one.
    let in_force: Vec<u16> = bodies.iter().map(|(.., offset)| *offset).collect();
    assert_eq!(in_force, [[3; 3].as_slice(), &[200; 7], &[0; 3], &[1]].concat());
    for (head, body, offset) in &bodies {
        let short = (u64::from(*offset)..u64::from(*offset) + 128).contains(body);
        assert_eq!(*head, if short { 1 } else { 2 }, "a body of {body} bytes, length offset {offset}");
    }
    assert!(bodies.iter().any(|(head, ..)| *head == 1) && bodies.iter().any(|(head, ..)| *head == 2));
    let mut decoder = Decoder::new(one, DecoderConfig::default()).unwrap();
    decoder.add_model(other);
    decoder.push(&bytes).unwrap();
    decoder.finish();
    let mut seen = Seen::default();
    assert_eq!(drain(&mut decoder, &mut seen), Ok(true));
}

#[test]
fn the_caller_may_state_another() {
    let (one, other) = (with_offsets(1, [3, 200]), with_offsets(2, [0, 1]));
    let streams: Vec<Vec<u8>> = [None, Some(0), Some(7), Some(16_383)]
        .into_iter()
        .map(|length_offset| {
            let mut encoder = Encoder::new(Arc::clone(&one), config().length_offset(length_offset)).unwrap();
            stream(&mut encoder, &other).unwrap();
            let bytes = encoder.take_bytes().unwrap();
            let (stated, bodies) = read(&bytes);
            let wanted = length_offset.map_or(vec![3, 200, 200, 0, 1, 1], |offset| vec![offset; 6]);
            assert_eq!(stated, wanted);
            // Bodies are the same whatever it is.
            bodies.into_iter().flat_map(|(_, body, _)| body.to_le_bytes()).collect()
        })
        .collect();
    assert!(streams.windows(2).all(|pair| pair[0] == pair[1]));
    let error = Encoder::new(one, config().length_offset(Some(16_384))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadConfig);
    assert!(error.to_string().contains("length_offset is 16384, not 0 to 16383"), "{error}");
}

#[test]
fn layered_streams_state_0_and_messages_state_what_byte_streams_do() {
    let (one, other) = (with_offsets(1, [3, 200]), with_offsets(2, [0, 1]));
    let mut encoder = Encoder::new(Arc::clone(&one), config().mode(Mode::Layered)).unwrap();
    stream(&mut encoder, &other).unwrap();
    assert_eq!(read(&encoder.take_bytes().unwrap()).0, [0; 6]);
    let mut bodies = Vec::new();
    for length_offset in [None, Some(0)] {
        let config = config().binding(Binding::Message).length_offset(length_offset);
        let mut encoder = Encoder::new(Arc::clone(&one), config).unwrap();
        stream(&mut encoder, &other).unwrap();
        let mut reader = Reader::new(ReaderConfig::default().binding(Binding::Message));
        let (mut stated, mut frames) = (Vec::new(), Vec::new());
        while let Some(message) = encoder.pop_message().unwrap() {
            reader.push_message(&message.bytes).unwrap();
            while let Poll::Event(event) = reader.poll().unwrap() {
                stated.push(reader.sequence().unwrap().length_offset());
                if matches!(event.chunk, Chunk::Frame { .. }) {
                    frames.push(message.bytes.clone());
                }
            }
        }
        stated.dedup();
        assert_eq!(stated, if length_offset.is_none() { vec![3, 200, 0, 1] } else { vec![0] });
        bodies.push(frames);
    }
    assert_eq!(bodies[0], bodies[1]);
}

/// [CHUNK-8] Every chunk that states a length offset is whole or waited for, and a reader that joins has it from there.
#[test]
fn streams_cut_anywhere_and_joined_anywhere_read_alike() {
    let (one, other) = (with_offsets(1, [3, 200]), with_offsets(2, [130, 1]));
    let mut encoder = Encoder::new(Arc::clone(&one), config()).unwrap();
    stream(&mut encoder, &other).unwrap();
    let bytes = encoder.take_bytes().unwrap();
    let all = |mut reader: Reader, pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut events = Vec::new();
        for piece in pieces {
            reader.push(piece).unwrap();
            while let Poll::Event(event) = reader.poll().unwrap() {
                events.push(event);
            }
        }
        events
    };
    let whole = all(Reader::new(ReaderConfig::default()), &mut [&bytes[..]].into_iter());
    assert_eq!(all(Reader::new(ReaderConfig::default()), &mut bytes.chunks(1)), whole);
    for cut in 0..bytes.len() {
        let mut reader = Reader::new(ReaderConfig::default());
        reader.push(&bytes[..cut]).unwrap();
        reader.finish();
        let error = loop {
            match reader.poll() {
                Ok(Poll::Event(_)) => {}
                other => break other.unwrap_err(),
            }
        };
        assert_eq!((error.kind(), error.offset()), (ErrorKind::Truncated, cut as u64));
    }
    let Chunk::Header(header) = &whole[0].chunk else { panic!("no header") };
    let mut joins = 0;
    for (place, event) in whole.iter().enumerate() {
        if matches!(event.chunk, Chunk::Reset(_) | Chunk::ModelSwitch(_)) {
            let point = JoinPoint { offset: event.offset, index: None };
            let reader = Reader::join(ReaderConfig::default(), (**header).clone(), point);
            assert_eq!(all(reader, &mut bytes[event.offset as usize..].chunks(5)), whole[place..]);
            joins += 1;
        }
    }
    assert_eq!(joins, 3);
}

/// Sessions that are saved, restored and forked where another length offset than the header's is in force.
#[test]
fn saved_sessions_and_forks_keep_it() {
    for setting in [None, Some(1)] {
        let one = with_offsets(1, [3, 200]);
        let begin = || {
            let mut encoder = Encoder::new(Arc::clone(&one), config().length_offset(setting)).unwrap();
            push(&mut encoder, 2, 1);
            encoder.set_quality(1).unwrap();
            push(&mut encoder, 2, 2);
            encoder
        };
        let go_on = |encoder: &mut Encoder| {
            push(encoder, 2, 3);
            encoder.set_quality(0).unwrap();
            push(encoder, 2, 4);
            encoder.end().unwrap();
        };
        let mut straight = begin();
        let fork = straight.clone();
        let saved = Encoder::restore(Arc::clone(&one), &straight.save(), MEMORY).unwrap();
        go_on(&mut straight);
        let bytes = straight.take_bytes().unwrap();
        for mut encoder in [fork, saved] {
            go_on(&mut encoder);
            assert_eq!(encoder.take_bytes().unwrap(), bytes);
        }
        // Reader and decoder, saved after each byte.
        let (seen, outcome) = decode(&one, &bytes);
        assert_eq!(outcome, Ok(()));
        let mut decoder = Decoder::new(Arc::clone(&one), DecoderConfig::default()).unwrap();
        let mut reader = Reader::new(ReaderConfig::default());
        let mut again = Seen::default();
        for byte in bytes.chunks(1) {
            decoder.push(byte).unwrap();
            drain(&mut decoder, &mut again).unwrap();
            let saved = decoder.save().unwrap();
            decoder = Decoder::restore(Arc::clone(&one), &[], DecoderConfig::default(), &saved).unwrap();
            reader.push(byte).unwrap();
            while let Poll::Event(_) = reader.poll().unwrap() {}
            let before = reader.sequence().map(midspan::stream::Sequence::length_offset);
            reader = Reader::restore(ReaderConfig::default(), &reader.save().unwrap()).unwrap();
            assert_eq!(reader.sequence().map(midspan::stream::Sequence::length_offset), before);
        }
        decoder.finish();
        drain(&mut decoder, &mut again).unwrap();
        assert_eq!((again.w, again.y), (seen.w, seen.y));
    }
}
