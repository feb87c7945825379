//! The memory that side indices take: sessions count it before they take anything up (spec 7.2).
#![cfg(feature = "codec")]

mod allocator_support;

use std::sync::Arc;

use allocator_support::{HELD, measured, smallest_limit};
use midspan::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, SideDelivery, TargetRefusal,
};
use midspan::error::{Error, ErrorKind};
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::stream::{Binding, Limits, Message, MessageClass};
use midspan::wire::{Identity, Mode};

fn codec(shape: SyntheticShape) -> Arc<Codec> {
    Arc::new(Codec::new(synthetic::model(&shape, 3)).unwrap())
}

/// A model whose networks take most of the memory.
fn wide() -> Arc<Codec> {
    codec(SyntheticShape { hidden: 48, window: 32, ..SyntheticShape::with_side() })
}

/// A model whose side indices take a large part of it.
fn narrow() -> Arc<Codec> {
    codec(SyntheticShape { hidden: 16, qualities: 1, side: [16, 4_096, 1], ..SyntheticShape::tiny() })
}

/// The same without blocks. Its networks keep nothing of earlier frames, so what grows is mostly the history of side
/// indices.
fn blockless() -> Arc<Codec> {
    codec(SyntheticShape { hidden: 16, qualities: 1, side: [16, 4_096, 1], ..SyntheticShape::blockless() })
}

fn config() -> EncoderConfig {
    EncoderConfig::new(Identity::none())
}

fn indices(first: u64, count: usize) -> Vec<u32> {
    (first..).take(count).map(|index| (index * 37 % 300) as u32).collect()
}

/// What a rewind may need of earlier side indices is counted before it grows.
#[test]
fn the_history_of_side_indices_stays_within_the_memory_limit() {
    for codec in [narrow(), blockless()] {
        let y = [0; 16];
        let config = config().max_rewind(1 << 13).checkpoint_interval(0);
        let run = |memory_limit: usize| {
            measured(|| {
                let mut encoder = Encoder::new(codec.clone(), config.clone().memory_limit(memory_limit))?;
                for _ in 0..9_000 {
                    encoder.set_side(&[1], SideDelivery::Known)?;
                    encoder.push_y(&y)?;
                    drop(encoder.take_bytes()?);
                }
                Ok::<_, Error>((encoder.memory_bytes(), encoder))
            })
        };
        let most = smallest_limit(|limit| run(limit).0.is_ok());
        let (outcome, held, peak) = run(most);
        let (told, _encoder) = outcome.unwrap();
        assert!(peak <= most && held <= told + 1_000, "{held} bytes held, {told} told, {peak} at most, limit {most}");
    }
}

/// Decoders stay within the smallest limit with which they decode a stream.
#[test]
fn a_decoder_with_side_indices_stays_within_the_memory_limit() {
    let streams: [(&str, usize, usize); 3] = [("chunks", 1, 2_000), ("batches", 40, 50), ("frames", 2_500, 1)];
    for (model, codec) in [("wide", wide()), ("narrow", narrow()), ("without blocks", blockless())] {
        let width = codec.model().hidden_width();
        for (mode, delivery, (name, times, count)) in [Mode::Joined, Mode::Layered].into_iter().flat_map(|mode| {
            let deliveries = [SideDelivery::Known, SideDelivery::Sent];
            deliveries.into_iter().flat_map(move |delivery| streams.map(|stream| (mode, delivery, stream)))
        }) {
            let open = config().mode(mode).binding(Binding::Message).memory_limit(usize::MAX);
            let open = open.max_rewind(4_000).target_horizon(4_000).max_frames_per_chunk(2_000);
            let mut encoder = Encoder::new(codec.clone(), open).unwrap();
            for _ in 0..times {
                encoder.set_side(&indices(encoder.next_index(), count), delivery).unwrap();
                encoder.push_y(&vec![0; width * count]).unwrap();
            }
            // Without targets: one that does not fit is refused, which is no error.
            let messages: Vec<_> = std::iter::from_fn(|| encoder.pop_message().unwrap())
                .filter(|message| message.class != MessageClass::Droppable)
                .map(|message| message.bytes)
                .collect();
            let limits = Limits::default().max_rewind(4_000).target_horizon(4_000).max_frames(2_000);
            let decoder_config = DecoderConfig::default().binding(Binding::Message).limits(limits);
            // Input is the caller's.
            let input = 2 * messages.iter().map(|message| message.len()).max().unwrap() + 1_000;
            let run = |memory_limit: usize| {
                measured(|| {
                    let before = HELD.get();
                    let mut decoder = Decoder::new(codec.clone(), decoder_config.clone().memory_limit(memory_limit))?;
                    let mut untold = 0;
                    for message in &messages {
                        decoder.push_message(message)?;
                        while let DecoderPoll::Event(event) = decoder.poll()? {
                            if let DecoderEvent::SideWanted { index, count } = event {
                                decoder.give_side(&indices(index, count)).unwrap();
                            }
                            drop(event);
                            untold =
                                untold.max(((HELD.get() - before) as usize).saturating_sub(decoder.memory_bytes()));
                        }
                    }
                    Ok::<_, Error>((untold, decoder))
                })
            };
            let most = smallest_limit(|limit| run(limit).0.is_ok());
            let (outcome, _, peak) = run(most);
            let (untold, _decoder) = outcome.unwrap();
            let what = format!("{model}, {mode:?}, {delivery:?}, {name}");
            assert!(peak <= most + input, "{what}: {peak} bytes under a limit of {most}, with {input} of input");
            assert!(untold < 1_000, "{what}: {untold} bytes held and not told");
        }
    }
}

#[test]
fn early_targets_make_room_for_side_indices() {
    let codec = codec(SyntheticShape::with_side());
    let layered = config().mode(Mode::Layered).binding(Binding::Message);
    let mut encoder = Encoder::new(Arc::clone(&codec), layered).unwrap();
    for index in 0..12 {
        encoder.set_side(&indices(index, 1), SideDelivery::Known).unwrap();
        encoder.push_y(&[index as i16; 20]).unwrap();
    }
    let messages: Vec<Message> = std::iter::from_fn(|| encoder.pop_message().unwrap()).collect();
    let targets: Vec<&Message> = messages.iter().filter(|message| message.class == MessageClass::Droppable).collect();
    let payload = midspan::engine::side::encode(codec.model().side().unwrap(), &indices(0, 256));
    let mut body = bytes::BytesMut::new();
    midspan::wire::SideIndices::encode(256, &payload, 256, midspan::wire::Seed::NONE, &mut body).unwrap();
    let chunk = [&[0xcc], &body[..], &[0]].concat();
    // How many targets found no room at first, and how many made room.
    let run = |limit: usize, targets: &[&Message]| -> Result<[usize; 2], Error> {
        let mut refused = [0; 2];
        let config = DecoderConfig::default().binding(Binding::Message).memory_limit(limit);
        let mut decoder = Decoder::new(Arc::clone(&codec), config)?;
        let mut sent = 0;
        let mut drain = |decoder: &mut Decoder, refused: &mut usize| -> Result<(), Error> {
            loop {
                match decoder.poll()? {
                    DecoderPoll::Event(DecoderEvent::TargetRefused { reason: TargetRefusal::NoRoom, .. }) => {
                        *refused += 1;
                    }
                    DecoderPoll::Event(DecoderEvent::SideIndices { indices, .. }) => sent += indices.len(),
                    DecoderPoll::Event(_) => {}
                    DecoderPoll::NeedMore | DecoderPoll::End => return Ok(()),
                }
            }
        };
        decoder.push_message(&messages[0].bytes)?;
        drain(&mut decoder, &mut refused[0])?;
        for target in targets {
            decoder.push_datagram(&target.bytes)?;
            drain(&mut decoder, &mut refused[0])?;
        }
        decoder.push_message(&chunk)?;
        drain(&mut decoder, &mut refused[1])?;
        assert_eq!(sent, 256);
        Ok(refused)
    };
    let least = smallest_limit(|limit| match run(limit, &[]) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::MemoryLimit);
            false
        }
    });
    let refused = run(least, &targets[1..]).unwrap();
    assert!(refused[1] > 1, "{refused:?}");
}
