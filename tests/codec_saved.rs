//! Sessions that are saved and restored continue unchanged, and saved bytes are treated as untrusted.
#![cfg(feature = "codec")]

use std::sync::Arc;

use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig};
use midspan::error::{Error, ErrorKind};
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::stream::{Binding, Reader, ReaderConfig, Writer};
use midspan::wire::{CheckWidth, Dtype, Identity, Mode, StreamHeader};
use proptest::prelude::*;

const MEMORY: usize = 1 << 30;

fn codec(seed: u64) -> Arc<Codec> {
    Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), seed)).unwrap())
}

fn frames(count: usize, seed: u64) -> Vec<i16> {
    let width = SyntheticShape::tiny().hidden;
    (0..count * width).map(|i| ((i as u64 * 7 + seed * 13) % 9) as i16 - 4).collect()
}

/// An operation on a pair of sessions.
#[derive(Clone, Debug)]
enum Op {
    Push(usize),
    Checkpoint,
    Rewind(u64),
    Reset,
    Quality(u8),
    Switch(bool),
    Exact,
    Extension,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1usize..6).prop_map(Op::Push),
        1 => Just(Op::Checkpoint),
        2 => (1u64..5).prop_map(Op::Rewind),
        1 => Just(Op::Reset),
        1 => (0u8..2).prop_map(Op::Quality),
        1 => any::<bool>().prop_map(Op::Switch),
        1 => Just(Op::Exact),
        1 => Just(Op::Extension),
    ]
}

/// Applies an operation; one that the session refuses changes nothing.
fn apply(encoder: &mut Encoder, op: &Op, seed: u64, codecs: &[Arc<Codec>; 2]) -> Result<(), Error> {
    match op {
        Op::Push(count) => encoder.push_y(&frames(*count, seed)),
        Op::Checkpoint => encoder.checkpoint(),
        Op::Rewind(back) => encoder.rewind(encoder.next_index().saturating_sub(*back)),
        Op::Reset => encoder.reset(),
        Op::Quality(quality) => encoder.set_quality(*quality),
        Op::Switch(second) => encoder.switch_model(codecs[usize::from(*second)].clone(), 0),
        Op::Exact => {
            let hidden: Vec<u8> =
                (0..SyntheticShape::tiny().hidden).flat_map(|i| (i as f32 - seed as f32).to_le_bytes()).collect();
            encoder.push_exact(Dtype::F32, &hidden)
        }
        Op::Extension => encoder.extension(27, b"x"),
    }
}

fn saved_encoder(encoder: &Encoder, codecs: &[Arc<Codec>; 2]) -> Encoder {
    let saved = encoder.save();
    let codec = codecs.iter().find(|codec| codec.fingerprint() == encoder.codec().fingerprint()).unwrap();
    let restored = Encoder::restore(codec.clone(), &saved, MEMORY).unwrap();
    assert_eq!(restored.save(), saved);
    restored
}

fn decoder_config(binding: Binding) -> DecoderConfig {
    DecoderConfig::default().binding(binding)
}

fn new_decoder(binding: Binding, codecs: &[Arc<Codec>; 2]) -> Decoder {
    let mut decoder = Decoder::new(codecs[0].clone(), decoder_config(binding)).unwrap();
    decoder.add_model(codecs[1].clone());
    decoder
}

fn saved_decoder(decoder: &Decoder, binding: Binding, codecs: &[Arc<Codec>; 2]) -> Decoder {
    let saved = decoder.save().unwrap();
    let restored = Decoder::restore(codecs[0].clone(), &codecs[1..], decoder_config(binding), &saved).unwrap();
    assert_eq!(restored.save().unwrap(), saved);
    restored
}

/// Polls everything. If `conceal`, conceals overdue targets.
fn drain(decoder: &mut Decoder, conceal: bool) -> Result<Vec<DecoderEvent>, Error> {
    let mut events = Vec::new();
    while let DecoderPoll::Event(event) = decoder.poll()? {
        if let DecoderEvent::TargetsOverdue { index, count } = &event
            && conceal
        {
            decoder.conceal(*index, *count)?;
        }
        events.push(event);
    }
    Ok(events)
}

/// Takes messages, or parts of `cut` bytes.
fn parts(encoder: &mut Encoder, binding: Binding, cut: usize) -> Vec<Vec<u8>> {
    match binding {
        Binding::ByteStream => encoder.take_bytes().unwrap().chunks(cut).map(<[u8]>::to_vec).collect(),
        Binding::Message => {
            std::iter::from_fn(|| encoder.pop_message().unwrap()).map(|message| message.bytes.to_vec()).collect()
        }
    }
}

fn is_target(message: &[u8]) -> bool {
    matches!(message, [0xC2 | 0xC3, .., 0])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn saved_sessions_go_on_as_if_nothing_had_happened(
        ops in prop::collection::vec((op(), any::<bool>()), 1..24),
        layered in any::<bool>(),
        messages in any::<bool>(),
        file in any::<bool>(),
        cut in 1usize..40,
        lost in prop::collection::vec(any::<bool>(), 32),
    ) {
        let codecs = [codec(1), codec(2)];
        let binding = if messages { Binding::Message } else { Binding::ByteStream };
        let config = EncoderConfig::new(Identity::none()).mode(if layered { Mode::Layered } else { Mode::Joined }).binding(binding).file(file && !messages).check(CheckWidth::One).max_rewind(6).target_horizon(12).checkpoint_interval(9).lanes(2);
        let mut plain = Encoder::new(codecs[0].clone(), config).unwrap();
        let mut saved = plain.clone();
        for (seed, (op, save)) in ops.iter().enumerate() {
            let outcome = apply(&mut plain, op, seed as u64, &codecs);
            prop_assert_eq!(apply(&mut saved, op, seed as u64, &codecs), outcome);
            if *save {
                saved = saved_encoder(&saved, &codecs);
            }
        }
        plain.end().unwrap();
        saved.end().unwrap();
        saved = saved_encoder(&saved, &codecs);
        let sent = parts(&mut plain, binding, cut);
        prop_assert_eq!(&sent, &parts(&mut saved, binding, cut));

        // Some targets are lost if messages may get lost.
        let kept = |(i, part): &(usize, &Vec<u8>)| !(layered && messages && is_target(part) && lost[i % lost.len()]);
        let mut plain = new_decoder(binding, &codecs);
        let mut saved = plain.clone();
        for (i, part) in sent.iter().enumerate().filter(kept) {
            for decoder in [&mut plain, &mut saved] {
                if messages { decoder.push_message(part).unwrap() } else { decoder.push(part).unwrap() }
            }
            if i % 3 == 0 {
                // With input that was not polled.
                saved = saved_decoder(&saved, binding, &codecs);
            }
            prop_assert_eq!(drain(&mut plain, true), drain(&mut saved, true));
            if i % 2 == 0 {
                saved = saved_decoder(&saved, binding, &codecs);
            }
            prop_assert_eq!(plain.confirmed_index(), saved.confirmed_index());
        }
        plain.finish();
        saved.finish();
        saved = saved_decoder(&saved, binding, &codecs);
        prop_assert_eq!(drain(&mut plain, true), drain(&mut saved, true));
        prop_assert_eq!(plain.poll(), Ok(DecoderPoll::End));
        prop_assert_eq!(saved.poll(), Ok(DecoderPoll::End));
    }
}

/// Sessions in the middle of a layered stream, with pending and early targets and a waiting checkpoint.
fn midway() -> (Encoder, Decoder, [Arc<Codec>; 2]) {
    let codecs = [codec(3), codec(4)];
    let config = EncoderConfig::new(Identity::none())
        .mode(Mode::Layered)
        .binding(Binding::Message)
        .target_horizon(8)
        .max_rewind(3);
    let mut encoder = Encoder::new(codecs[0].clone(), config).unwrap();
    for seed in 0..5 {
        encoder.push_y(&frames(1, seed)).unwrap();
    }
    encoder.checkpoint().unwrap();
    let mut decoder = new_decoder(Binding::Message, &codecs);
    for (i, message) in parts(&mut encoder, Binding::Message, 0).iter().enumerate() {
        if !is_target(message) || i % 4 == 0 {
            decoder.push_message(message).unwrap();
        }
    }
    // An early target, and a datagram that was not polled.
    let mut ahead = encoder.clone();
    ahead.push_y(&frames(1, 8)).unwrap();
    let early = parts(&mut ahead, Binding::Message, 0).into_iter().find(|message| is_target(message)).unwrap();
    decoder.push_datagram(&early).unwrap();
    drain(&mut decoder, false).unwrap();
    decoder.push_datagram(&early).unwrap();
    encoder.push_y(&frames(1, 9)).unwrap();
    (encoder, decoder, codecs)
}

/// The same bytes with a corrected crc.
fn resealed(mut saved: Vec<u8>) -> Vec<u8> {
    let body = saved.len() - 4;
    let crc = crc32(&saved[..body]);
    saved[body..].copy_from_slice(&crc.to_le_bytes());
    saved
}

/// CRC-32 of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[test]
fn damaged_bytes_are_refused() {
    let (encoder, decoder, codecs) = midway();
    let kinds = |saved: &[u8]| {
        let config = decoder_config(Binding::Message);
        let decoder = Decoder::restore(codecs[0].clone(), &codecs[1..], config, saved).err().map(|error| error.kind());
        (Encoder::restore(codecs[0].clone(), saved, MEMORY).err().map(|error| error.kind()), decoder)
    };
    let refused = Some(ErrorKind::SavedSession);
    for saved in [encoder.save(), decoder.save().unwrap()] {
        for end in (0..saved.len()).step_by(7) {
            assert_eq!(kinds(&saved[..end]), (refused, refused));
            assert_eq!(kinds(&resealed(saved[..end.max(4)].to_vec())), (refused, refused), "resealed at {end}");
        }
        for bit in (0..saved.len() * 8).step_by(11) {
            let mut other = saved.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(kinds(&other), (refused, refused));
        }
    }
}

#[test]
fn forged_bytes_give_an_error_or_a_session_that_runs() {
    let (encoder, decoder, codecs) = midway();
    let (encoder, decoder) = (encoder.save(), decoder.save().unwrap());
    // Everything except the keys and values, which may have any value in a state.
    let (mut refused, mut ran) = (0, 0);
    for byte in 8..encoder.len().min(700) {
        for flip in [0x01, 0x80, 0xff] {
            let mut forged = encoder.clone();
            forged[byte] ^= flip;
            match Encoder::restore(codecs[0].clone(), &resealed(forged), MEMORY) {
                Ok(mut encoder) => {
                    ran += 1;
                    let _ = encoder.push_y(&frames(3, 1));
                    let _ = encoder.rewind(encoder.next_index().saturating_sub(2));
                    let _ = encoder.checkpoint();
                    let _ = encoder.end();
                }
                Err(_) => refused += 1,
            }
        }
    }
    for byte in 8..decoder.len().min(1500) {
        for flip in [0x01, 0x80, 0xff] {
            let mut forged = decoder.clone();
            forged[byte] ^= flip;
            let config = decoder_config(Binding::Message);
            match Decoder::restore(codecs[0].clone(), &codecs[1..], config, &resealed(forged)) {
                Ok(mut decoder) => {
                    ran += 1;
                    let _ = decoder.push_message(&[0xC2, 1, 0, 0, 9, 9, 7, 0]);
                    let _ = decoder.push_message(b"a frame");
                    let _ = drain(&mut decoder, true);
                    if let Some(index) = decoder.oldest_pending() {
                        let _ = decoder.conceal(index, 1);
                    }
                    decoder.finish();
                    let _ = drain(&mut decoder, true);
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 500 && ran > 500, "{refused} {ran}");
}

/// Fields that no encoder accepts: a chunk has no room for one frame.
#[test]
fn an_encoder_without_room_for_a_frame_is_refused() {
    let codec = codec(3);
    let interval = 0x1234_5678_u32;
    let config = |max_chunk_bytes| {
        EncoderConfig::new(Identity::none()).max_chunk_bytes(max_chunk_bytes).checkpoint_interval(interval)
    };
    let least = (64..1_000).find(|bytes| Encoder::new(codec.clone(), config(*bytes)).is_ok()).unwrap();
    let mut saved = Encoder::new(codec.clone(), config(least)).unwrap().save();
    let mut wanted = vec![1, 0];
    wanted.extend(interval.to_le_bytes());
    let at = saved.windows(wanted.len()).position(|bytes| bytes == wanted).unwrap();
    Encoder::restore(codec.clone(), &saved, MEMORY).unwrap().push_y(&frames(1, 1)).unwrap();
    for lanes in [2_u16, 1024] {
        saved[at..at + 2].copy_from_slice(&lanes.to_le_bytes());
        let refused = Encoder::restore(codec.clone(), &resealed(saved.clone()), MEMORY).err().map(|error| error.kind());
        assert_eq!(refused, Some(ErrorKind::SavedSession), "{lanes} lanes");
    }
}

#[test]
fn another_model_other_limits_and_a_session_with_events_are_refused() {
    let (encoder, decoder, codecs) = midway();
    let kind = |result: Result<Encoder, Error>| result.unwrap_err().kind();
    assert_eq!(kind(Encoder::restore(codecs[1].clone(), &encoder.save(), MEMORY)), ErrorKind::WrongModel);
    assert_eq!(kind(Encoder::restore(codecs[0].clone(), &encoder.save(), 100)), ErrorKind::MemoryLimit);
    let saved = decoder.save().unwrap();
    let restore_with = |models: &[Arc<Codec>], config| {
        Decoder::restore(codecs[1].clone(), models, config, &saved).map(|_| ()).map_err(|error| error.kind())
    };
    let restore = |config| restore_with(&codecs[..1], config);
    let config = decoder_config(Binding::Message);
    assert_eq!(restore(config.clone()), Ok(()));
    assert_eq!(restore_with(&[], config.clone()), Err(ErrorKind::WrongModel));
    assert_eq!(restore(config.clone().memory_limit(100)), Err(ErrorKind::MemoryLimit));
    assert_eq!(restore(config.binding(Binding::ByteStream)), Err(ErrorKind::SavedSession));

    let mut decoder = Decoder::new(codecs[0].clone(), DecoderConfig::default()).unwrap();
    let mut encoder = Encoder::new(codecs[0].clone(), EncoderConfig::new(Identity::none())).unwrap();
    encoder.push_y(&frames(2, 1)).unwrap();
    encoder.push_y(&frames(1, 1)).unwrap();
    encoder.checkpoint().unwrap();
    decoder.push(&encoder.take_bytes().unwrap()).unwrap();
    decoder.push(b"\xd0").unwrap();
    // The checkpoint's verdict waits only until the last frame is polled; a failure is permanent.
    while decoder.poll().is_ok() {}
    assert_eq!(decoder.save().unwrap_err().kind(), ErrorKind::ReservedKind);
}

#[test]
fn container_sessions_are_saved_too() {
    let mut writer = Writer::new(StreamHeader::new([7; 32]), Binding::ByteStream).unwrap();
    writer.frame(b"a").unwrap();
    let mut writer = Writer::restore(&writer.save()).unwrap();
    writer.frame(b"b").unwrap();
    writer.end(1, 2).unwrap();
    let bytes = writer.take().unwrap();
    let mut plain = Reader::new(ReaderConfig::default());
    let mut saved = plain.clone();
    for byte in bytes {
        plain.push(&[byte]).unwrap();
        saved.push(&[byte]).unwrap();
        saved = Reader::restore(ReaderConfig::default(), &saved.save().unwrap()).unwrap();
        assert_eq!(plain.poll(), saved.poll());
    }
    // A former bug: nothing compared the saved binding with the saved header's.
    let config = |binding| ReaderConfig::default().binding(binding);
    let [stream, message] = [Binding::ByteStream, Binding::Message].map(|b| Reader::new(config(b)).save().unwrap());
    let place = stream.iter().zip(&message).position(|(a, b)| a != b).unwrap();
    let mut forged = plain.save().unwrap();
    forged[place] = message[place];
    let refused = Reader::restore(config(Binding::Message), &resealed(forged)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SavedSession);
    plain.push(b"more").unwrap();
    assert!(plain.poll().is_err() && plain.save().is_err());
    assert_eq!(Writer::restore(b"").unwrap_err().kind(), ErrorKind::SavedSession);
    // A peer's header may have fields before and after the identity.
    let mut header = StreamHeader { identity: Identity::new([9; 8]), ..StreamHeader::new([7; 32]) };
    header.set_optional(0, vec![1, 2]);
    header.set_optional(2, vec![3]);
    let mut writer = Writer::new(header.clone(), Binding::ByteStream).unwrap();
    let mut reader = Reader::new(ReaderConfig::default());
    reader.push(&writer.take().unwrap()).unwrap();
    reader.poll().unwrap();
    for restored in [
        Reader::restore(ReaderConfig::default(), &reader.save().unwrap()).unwrap().header().cloned(),
        Some(Writer::restore(&writer.save()).unwrap().header().clone()),
    ] {
        assert_eq!(restored.as_ref(), Some(&header));
    }
}
