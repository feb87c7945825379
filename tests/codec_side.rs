//! Side indices: where the decoder has them from, what they condition, and what covers them (spec 6.12).
#![cfg(feature = "codec")]

use std::sync::Arc;

use midspan::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Input, Push, SideDelivery,
    TargetRefusal, Together,
};
use midspan::error::{Error, ErrorKind, Fault};
use midspan::model::synthetic::{self, Random, SyntheticShape};
use midspan::stream::{Binding, Chunk, JoinPoint, Message, MessageClass, Poll, Reader, ReaderConfig, Writer};
use midspan::wire::{CheckWidth, Dtype, Identity, Mode, StreamHeader};

/// E and V of the models.
const E: usize = 20;
const V: u32 = 300;

fn codec(seed: u64) -> Arc<Codec> {
    Arc::new(Codec::new(synthetic::model(&SyntheticShape::with_side(), seed)).unwrap())
}

fn plain(seed: u64) -> Arc<Codec> {
    Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), seed)).unwrap())
}

fn config() -> EncoderConfig {
    EncoderConfig::new(Identity::none())
}

fn y(frames: usize, seed: u64) -> Vec<i16> {
    let mut random = Random::new(seed);
    (0..frames * E).map(|_| random.within(-9, 9) as i16).collect()
}

/// The side index of a frame.
fn of(index: u64) -> u32 {
    (index * 37 % u64::from(V + 1)) as u32
}

fn indices(first: u64, count: usize) -> Vec<u32> {
    (first..).take(count).map(of).collect()
}

fn push(encoder: &mut Encoder, frames: usize, delivery: SideDelivery) {
    let first = encoder.next_index();
    encoder.set_side(&indices(first, frames), delivery).unwrap();
    encoder.push_y(&y(frames, first)).unwrap();
}

/// The timeline of a decoder, and what it asked for.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    y: Vec<i16>,
    asked: Vec<(u64, usize)>,
    sent: Vec<u32>,
    ended: bool,
}

impl Seen {
    /// Polls to the end, a wait or an error; answers what the decoder asks for with `give`.
    fn drain(&mut self, decoder: &mut Decoder, give: impl Fn(u64) -> u32) -> Result<(), Error> {
        loop {
            let event = match decoder.poll()? {
                DecoderPoll::Event(event) => event,
                DecoderPoll::NeedMore => return Ok(()),
                DecoderPoll::End => {
                    self.ended = true;
                    return Ok(());
                }
            };
            match event {
                DecoderEvent::SideWanted { index, count } => {
                    assert_eq!(decoder.wanted_side(), Some((index, count)));
                    self.take(event);
                    decoder.give_side(&(index..).take(count).map(&give).collect::<Vec<_>>())?;
                    assert_eq!(decoder.wanted_side(), None);
                }
                DecoderEvent::SideIndices { index, indices } => {
                    assert_eq!(index, decoder.next_index());
                    self.sent.extend(indices);
                }
                event => self.take(event),
            }
        }
    }

    fn take(&mut self, event: DecoderEvent) {
        match event {
            DecoderEvent::SideWanted { index, count } => self.asked.push((index, count)),
            DecoderEvent::SideIndices { indices, .. } => self.sent.extend(indices),
            DecoderEvent::Frames(frames) => self.y.extend(frames.integers.unwrap().y),
            DecoderEvent::ExactFrame(exact) => self.y.extend(exact.frame.integers.unwrap().y),
            DecoderEvent::Targets(targets) => self.y.extend(targets.y),
            DecoderEvent::Rewound { index } => self.y.truncate(index as usize * E),
            _ => {}
        }
    }

    fn of(codec: &Arc<Codec>, bytes: &[u8], give: impl Fn(u64) -> u32) -> Result<Seen, Error> {
        let mut decoder = Decoder::new(Arc::clone(codec), DecoderConfig::default()).unwrap();
        decoder.push(bytes).unwrap();
        decoder.finish();
        let mut seen = Seen::default();
        seen.drain(&mut decoder, give).map(|()| seen)
    }
}

fn finish(mut encoder: Encoder) -> Vec<u8> {
    encoder.end().unwrap();
    encoder.take_bytes().unwrap().to_vec()
}

#[test]
fn they_come_from_the_caller_from_the_stream_or_from_both() {
    use SideDelivery::{Known, Sent};
    for mode in [Mode::Joined, Mode::Layered] {
        let codec = codec(1);
        let mut encoder = Encoder::new(Arc::clone(&codec), config().mode(mode).lanes(3)).unwrap();
        let mut wanted = Vec::new();
        for (frames, delivery) in [(1, Known), (5, Sent), (1, Sent), (7, Known), (70, Sent), (2, Known)] {
            wanted.extend(y(frames, encoder.next_index()));
            push(&mut encoder, frames, delivery);
        }
        encoder.reset().unwrap();
        wanted.extend(y(2, encoder.next_index()));
        push(&mut encoder, 2, Known);
        let bytes = finish(encoder);
        let seen = Seen::of(&codec, &bytes, of).unwrap();
        assert_eq!((seen.y, seen.ended), (wanted, true), "{mode:?}");
        assert_eq!(seen.asked, [(0, 1), (7, 7), (84, 2), (86, 2)]);
        assert_eq!(seen.sent, [indices(1, 5), indices(6, 1), indices(14, 70)].concat());
    }
}

#[test]
fn frames_that_are_known_in_part_wait_for_the_rest() {
    // The library's encoder sends the indices of whole chunks; another one may not.
    let codec = codec(2);
    let mut encoder = Encoder::new(Arc::clone(&codec), config()).unwrap();
    push(&mut encoder, 5, SideDelivery::Known);
    let bytes = finish(encoder);
    let mut reader = Reader::new(ReaderConfig::default());
    reader.push(&bytes).unwrap();
    let Ok(Poll::Event(event)) = reader.poll() else { panic!() };
    let Chunk::Header(header) = event.chunk else { panic!() };
    assert!(header.side);
    let mut writer = Writer::new(*header, Binding::ByteStream).unwrap();
    let payload = midspan::engine::side::encode(codec.model().side().unwrap(), &indices(0, 3));
    writer.side_indices(3, &payload).unwrap();
    assert_eq!(writer.sequence().side_left(), 3);
    let error = writer.side_indices(1, &payload).unwrap_err();
    assert_eq!((error.kind(), error.fault()), (ErrorKind::SideIndicesLeft, Fault::Caller));
    let Ok(Poll::Event(event)) = reader.poll() else { panic!() };
    let Chunk::Batch { lanes, frames, .. } = event.chunk else { panic!() };
    let payloads: Vec<_> = lanes.iter().map(|lane| lane.bytes.clone()).collect();
    assert_eq!(writer.batch(frames, &payloads).unwrap_err().kind(), ErrorKind::WrongSideIndices);
    writer.cover_side(&indices(0, 5));
    writer.batch(frames, &payloads).unwrap();
    assert_eq!(writer.sequence().side_left(), 0);
    let mut decoder = Decoder::new(codec, DecoderConfig::default()).unwrap();
    decoder.push(&writer.take().unwrap()).unwrap();
    let mut seen = Seen::default();
    seen.drain(&mut decoder, of).unwrap();
    assert_eq!((seen.y, seen.asked, seen.sent), (y(5, 0), vec![(3, 2)], indices(0, 3)));
}

#[test]
fn a_decoder_waits_without_them_and_nothing_wrong_is_taken() {
    let codec = codec(3);
    let mut encoder = Encoder::new(Arc::clone(&codec), config()).unwrap();
    push(&mut encoder, 3, SideDelivery::Known);
    push(&mut encoder, 1, SideDelivery::Known);
    let bytes = finish(encoder);
    let mut decoder = Decoder::new(Arc::clone(&codec), DecoderConfig::default()).unwrap();
    assert_eq!(decoder.give_side(&[1]).unwrap_err().kind(), ErrorKind::WrongSideIndices);
    decoder.push(&bytes).unwrap();
    let asks = DecoderPoll::Event(DecoderEvent::SideWanted { index: 0, count: 3 });
    while decoder.poll().unwrap() != asks {}
    for _ in 0..3 {
        assert_eq!(decoder.poll().unwrap(), DecoderPoll::NeedMore);
    }
    for wrong in [&[][..], &[1, 2], &[1, 2, 3, 4], &[1, V + 1, 2]] {
        let error = decoder.give_side(wrong).unwrap_err();
        assert_eq!((error.kind(), error.fault()), (ErrorKind::WrongSideIndices, Fault::Caller), "{error}");
    }
    // A saved session still waits.
    let saved = decoder.save().unwrap();
    let mut restored = Decoder::restore(Arc::clone(&codec), &[], DecoderConfig::default(), &saved).unwrap();
    assert_eq!(restored.wanted_side(), Some((0, 3)));
    decoder.finish();
    let error = decoder.poll().unwrap_err();
    assert_eq!(
        (error.kind(), error.fault(), error.offset()),
        (ErrorKind::WrongSideIndices, Fault::Caller, 55),
        "{error}"
    );
    for decoder in [&mut decoder, &mut restored] {
        decoder.give_side(&indices(0, 3)).unwrap();
        let mut seen = Seen::default();
        seen.drain(decoder, of).unwrap();
        assert_eq!((seen.y, seen.ended), ([y(3, 0), y(1, 3)].concat(), true));
    }
}

/// Of 1,000 wrong indices a check of 16 bits lets none pass its frame, one of 8 bits at most 10; without checks all
/// pass. The next checkpoint finds those.
#[test]
fn a_wrong_index_is_found() {
    let codec = codec(4);
    let mut random = Random::new(5);
    for (check, most) in [(CheckWidth::Two, 0..=0), (CheckWidth::One, 0..=10), (CheckWidth::None, 1_000..=1_000)] {
        let mut encoder = Encoder::new(Arc::clone(&codec), config().check(check)).unwrap();
        push(&mut encoder, 1, SideDelivery::Sent);
        push(&mut encoder, 1, SideDelivery::Known);
        encoder.checkpoint().unwrap();
        let bytes = finish(encoder);
        let (mut passed, mut by_digest) = (0, 0);
        for _ in 0..1_000 {
            let wrong = (of(1) + 1 + random.within(0, V as i32 - 1) as u32) % (V + 1);
            assert_ne!(wrong, of(1));
            let mut decoder = Decoder::new(Arc::clone(&codec), DecoderConfig::default()).unwrap();
            decoder.push(&bytes).unwrap();
            decoder.finish();
            let mut seen = Seen::default();
            let error = seen.drain(&mut decoder, |_| wrong).unwrap_err();
            match error.kind() {
                ErrorKind::FrameCheckMismatch => assert_eq!(seen.y.len(), E),
                // The payload itself may be impossible, or not the canonical one.
                ErrorKind::CorruptPayload | ErrorKind::SealNotCanonical | ErrorKind::ValueOutOfRange => passed += 1,
                kind => {
                    assert_eq!(kind, ErrorKind::DigestMismatchW);
                    (passed, by_digest) = (passed + 1, by_digest + 1);
                }
            }
        }
        assert!(most.contains(&passed), "{check:?}: {passed}");
        assert!(check != CheckWidth::None || by_digest > 500, "{by_digest}");
    }
}

#[test]
fn without_checks_the_digest_refuses_every_wrong_index() {
    // In layered mode a wrong index leaves W as it is, and a target that it makes impossible is no error of the stream:
    // nothing but the digest can tell.
    let codec = codec(4);
    for (ends, frames) in [(false, 1), (false, 5), (true, 1), (true, 5)] {
        let layered = config().mode(Mode::Layered).check(CheckWidth::None).checkpoint_interval(0);
        let mut encoder = Encoder::new(Arc::clone(&codec), layered).unwrap();
        push(&mut encoder, 2, SideDelivery::Known);
        push(&mut encoder, frames, SideDelivery::Known);
        if ends {
            encoder.end().unwrap();
        } else {
            encoder.checkpoint().unwrap();
        }
        let bytes = encoder.take_bytes().unwrap();
        let decoder = || {
            let mut decoder = Decoder::new(Arc::clone(&codec), DecoderConfig::default()).unwrap();
            decoder.push(&bytes).unwrap();
            decoder
        };
        let last = 2 + frames as u64 - 1;
        for wrong in (0..=V).filter(|index| *index != of(last)) {
            let (mut decoder, mut seen) = (decoder(), Seen::default());
            let error = seen.drain(&mut decoder, |index| if index == last { wrong } else { of(index) }).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DigestMismatchW, "{wrong}");
            assert_eq!((decoder.next_index(), decoder.resume_index()), (last + 1, 0), "the frames were accepted");
        }
        let (mut decoder, mut seen) = (decoder(), Seen::default());
        seen.drain(&mut decoder, of).unwrap();
        assert_eq!((seen.y.len(), decoder.confirmed_index()), ((last as usize + 1) * E, last + 1));
    }
}

#[test]
fn they_condition_frames_after_them_over_rewinds() {
    // Frame 5 depends on the indices of frames 3 and 4 too: with other ones it has other parameters.
    let codec = codec(6);
    let mut encoder = Encoder::new(Arc::clone(&codec), config().max_rewind(8).checkpoint_interval(0)).unwrap();
    push(&mut encoder, 6, SideDelivery::Sent);
    let mut other = Encoder::new(Arc::clone(&codec), config().max_rewind(8).checkpoint_interval(0)).unwrap();
    other.set_side(&[of(0), of(1), of(2), 7, 8, of(5)], SideDelivery::Sent).unwrap();
    other.push_y(&y(6, 0)).unwrap();
    // The same history, by way of a rewind.
    let mut rewound = other.clone();
    rewound.rewind(3).unwrap();
    let mut direct = Encoder::new(Arc::clone(&codec), config().max_rewind(8).checkpoint_interval(0)).unwrap();
    push(&mut direct, 3, SideDelivery::Sent);
    for encoder in [&mut rewound, &mut direct, &mut other] {
        encoder.take_bytes().unwrap();
        encoder.track_cost(true);
        encoder.set_side(&[9, 10], SideDelivery::Known).unwrap();
        encoder.push_y(&y(2, 50)).unwrap();
    }
    let bits = |encoder: &Encoder| {
        let cost = encoder.last_cost().unwrap();
        (cost.target, cost.hyper_prior)
    };
    assert_eq!(bits(&rewound), bits(&direct));
    assert_ne!(bits(&rewound), bits(&other));
    // A decoder follows through rewind and reset.
    let mut encoder = Encoder::new(Arc::clone(&codec), config().max_rewind(8)).unwrap();
    push(&mut encoder, 9, SideDelivery::Known);
    encoder.rewind(4).unwrap();
    push(&mut encoder, 1, SideDelivery::Known);
    encoder.rewind(2).unwrap();
    push(&mut encoder, 4, SideDelivery::Sent);
    encoder.reset().unwrap();
    push(&mut encoder, 3, SideDelivery::Known);
    let seen = Seen::of(&codec, &finish(encoder), of).unwrap();
    assert_eq!(seen.y, [y(9, 0)[..2 * E].to_vec(), y(4, 2), y(3, 6)].concat());
    assert_eq!(seen.asked, [(0, 9), (4, 1), (6, 3)]);
}

#[test]
fn the_ideal_cost_is_that_of_a_session() {
    let codec = codec(8);
    let mut encoder = Encoder::new(Arc::clone(&codec), config()).unwrap();
    encoder.track_cost(true);
    let indices: Vec<u32> = (0..12).map(of).collect();
    encoder.set_side(&indices, SideDelivery::Known).unwrap();
    encoder.push_y(&y(12, 0)).unwrap();
    let (sent, cost) = (encoder.last_integers().unwrap().clone(), encoder.last_cost().unwrap());
    assert!(cost.target > 0.0);
    assert_eq!(codec.ideal_cost(&sent.w, &sent.y, &indices, 0), cost);
}

#[test]
fn sessions_fork_are_saved_and_step_together() {
    let codec = codec(7);
    let mut encoders = vec![Encoder::new(Arc::clone(&codec), config().max_rewind(4)).unwrap(); 3];
    let mut alone = encoders[0].clone();
    let mut together = Together::default();
    for frames in [1, 2, 1] {
        let y = y(frames, alone.next_index());
        for encoder in encoders.iter_mut().chain([&mut alone]) {
            encoder.set_side(&indices(encoder.next_index(), frames), SideDelivery::Sent).unwrap();
        }
        let mut pushes: Vec<Push> = encoders.iter_mut().map(|encoder| Push { encoder, input: Input::Y(&y) }).collect();
        together.push(&mut pushes).into_iter().collect::<Result<(), Error>>().unwrap();
        alone.push_y(&y).unwrap();
        // A saved session goes on, with what was given for the next push.
        let saved = encoders[1].save();
        encoders[1] = Encoder::restore(Arc::clone(&codec), &saved, 64 << 20).unwrap();
        encoders[2] = encoders[2].clone();
    }
    alone.set_side(&[1, 2], SideDelivery::Sent).unwrap();
    let mut restored = Encoder::restore(Arc::clone(&codec), &alone.save(), 64 << 20).unwrap();
    restored.push_y(&y(2, 1)).unwrap();
    alone.push_y(&y(2, 1)).unwrap();
    assert_eq!(restored.take_bytes().unwrap(), alone.take_bytes().unwrap());
    let bytes = finish(encoders.remove(1));
    for encoder in encoders {
        assert_eq!(finish(encoder), bytes);
    }
    // Decoders stop anywhere, and go on elsewhere.
    let mut decoder = Decoder::new(Arc::clone(&codec), DecoderConfig::default()).unwrap();
    let mut seen = Seen::default();
    for byte in bytes.chunks(7) {
        decoder.push(byte).unwrap();
        seen.drain(&mut decoder, of).unwrap();
        decoder =
            Decoder::restore(Arc::clone(&codec), &[], DecoderConfig::default(), &decoder.save().unwrap()).unwrap();
    }
    assert_eq!((seen.y.len(), seen.ended), (4 * E, true));
}

#[test]
fn what_callers_get_wrong_is_told_and_changes_nothing() {
    let codec = codec(8);
    let mut encoder = Encoder::new(Arc::clone(&codec), config()).unwrap();
    let refused =
        |error: Error| assert_eq!((error.kind(), error.fault()), (ErrorKind::WrongSideIndices, Fault::Caller));
    refused(encoder.push_y(&y(1, 0)).unwrap_err());
    refused(encoder.set_side(&[V + 1], SideDelivery::Known).unwrap_err());
    encoder.set_side(&[V, 1], SideDelivery::Known).unwrap();
    refused(encoder.push_y(&y(1, 0)).unwrap_err());
    refused(encoder.push_hidden(&[0.0; E]).unwrap_err());
    refused(encoder.push_exact(Dtype::F32, &[0; 4 * E]).unwrap_err());
    encoder.push_y(&y(2, 0)).unwrap();
    refused(encoder.push_y(&y(2, 0)).unwrap_err());
    let error = encoder.switch_model(plain(1), 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongSideFlag);
    let mut without = Encoder::new(plain(1), config()).unwrap();
    refused(without.set_side(&[0], SideDelivery::Known).unwrap_err());
    without.push_y(&y(1, 0)).unwrap();
    assert_eq!(without.switch_model(Arc::clone(&codec), 0).unwrap_err().kind(), ErrorKind::WrongSideFlag);
    let mut decoder = Decoder::new(plain(1), DecoderConfig::default()).unwrap();
    refused(decoder.give_side(&[0]).unwrap_err());
}

#[test]
fn the_flag_has_to_be_the_models() {
    for (codec, side) in [(codec(9), false), (plain(9), true)] {
        let header = StreamHeader { side, ..StreamHeader::new(*codec.fingerprint()) };
        let bytes = Writer::new(header.clone(), Binding::ByteStream).unwrap().take().unwrap();
        let mut decoder = Decoder::new(Arc::clone(&codec), DecoderConfig::default()).unwrap();
        decoder.push(&bytes).unwrap();
        let error = decoder.poll().unwrap_err();
        let wanted = (ErrorKind::WrongSideFlag, header.flags_offset(), Fault::Model);
        assert_eq!((error.kind(), error.offset(), error.fault()), wanted, "{error}");
        // A decoder that joins finds out at the reset.
        let mut writer = Writer::new(header.clone(), Binding::ByteStream).unwrap();
        let offset = writer.position();
        writer.reset(0, 0, 0, 0).unwrap();
        let bytes = writer.take().unwrap();
        let point = JoinPoint { offset, index: None };
        let mut decoder = Decoder::join(codec, DecoderConfig::default(), header, point).unwrap();
        decoder.push(&bytes[offset as usize..]).unwrap();
        assert_eq!(decoder.poll().unwrap_err().kind(), ErrorKind::WrongSideFlag);
    }
}

#[test]
fn indices_that_are_left_are_dropped_by_a_rewind_and_a_reset() {
    let codec = codec(10);
    let side = codec.model().side().unwrap();
    let mut encoder = Encoder::new(Arc::clone(&codec), config().max_rewind(4)).unwrap();
    push(&mut encoder, 2, SideDelivery::Known);
    // A writer that goes on where the encoder is, with indices that no frame takes.
    let mut decoder = Decoder::new(Arc::clone(&codec), DecoderConfig::default()).unwrap();
    let mut seen = Seen::default();
    decoder.push(&encoder.take_bytes().unwrap()).unwrap();
    seen.drain(&mut decoder, of).unwrap();
    let stray = |seed: midspan::wire::Seed| {
        let mut body = bytes::BytesMut::new();
        let payload = midspan::engine::side::encode(side, &[1, 2, 3]);
        midspan::wire::SideIndices::encode(3, &payload, 256, seed, &mut body).unwrap();
        let mut chunk = bytes::BytesMut::new();
        midspan::wire::kind::encode_head(midspan::wire::Kind::SideIndices, body.len(), 0, &mut chunk).unwrap();
        chunk.extend_from_slice(&body);
        chunk
    };
    for rewinds in [true, false] {
        decoder.push(&stray(midspan::wire::Seed::NONE)).unwrap();
        match rewinds {
            true => encoder.rewind(1).unwrap(),
            false => encoder.reset().unwrap(),
        }
        push(&mut encoder, 1, SideDelivery::Known);
        decoder.push(&encoder.take_bytes().unwrap()).unwrap();
        seen.drain(&mut decoder, of).unwrap();
    }
    assert_eq!(seen.asked, [(0, 2), (1, 1), (2, 1)]);
    assert_eq!(seen.sent, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn sessions_that_wait_hold_up_no_others() {
    let (codec, other) = (codec(11), plain(11));
    // Of each model, in each mode: sessions that wait at every chunk, at some, and at none.
    let mut streams = Vec::new();
    for (mode, pattern) in [Mode::Joined, Mode::Layered].into_iter().flat_map(|mode| (0..4).map(move |at| (mode, at))) {
        let mut encoder = Encoder::new(Arc::clone(&codec), config().mode(mode).lanes(2)).unwrap();
        for (at, frames) in [3, 1, 70, 2, 1].into_iter().enumerate() {
            let known = [true, at % 2 == 0, at == 4, false][pattern];
            push(&mut encoder, frames, if known { SideDelivery::Known } else { SideDelivery::Sent });
        }
        streams.push((Arc::clone(&codec), finish(encoder)));
        let mut encoder = Encoder::new(Arc::clone(&other), config().mode(mode)).unwrap();
        encoder.push_y(&y(9, 1)).unwrap();
        streams.push((Arc::clone(&other), finish(encoder)));
    }
    let alone: Vec<Seen> = streams.iter().map(|(codec, bytes)| Seen::of(codec, bytes, of).unwrap()).collect();
    let mut decoders: Vec<Decoder> = Vec::new();
    for (codec, bytes) in &streams {
        let mut decoder = Decoder::new(Arc::clone(codec), DecoderConfig::default()).unwrap();
        decoder.push(bytes).unwrap();
        decoders.push(decoder);
    }
    let mut together = Together::default();
    let mut seen: Vec<Seen> = streams.iter().map(|_| Seen::default()).collect();
    let mut rounds = 0;
    loop {
        // Until every session waits or is at its end, with no answer.
        loop {
            let mut polled: Vec<&mut Decoder> = decoders.iter_mut().collect();
            let outcomes = together.poll(&mut polled);
            let mut events = 0;
            for ((outcome, seen), decoder) in outcomes.into_iter().zip(&mut seen).zip(&decoders) {
                match outcome.unwrap() {
                    DecoderPoll::Event(event) => {
                        assert!(decoder.wanted_side().is_none() || matches!(event, DecoderEvent::SideWanted { .. }));
                        seen.take(event);
                        events += 1;
                    }
                    DecoderPoll::NeedMore => assert!(decoder.wanted_side().is_some()),
                    DecoderPoll::End => seen.ended = true,
                }
            }
            if events == 0 {
                break;
            }
        }
        let waiting = decoders.iter().filter(|decoder| decoder.wanted_side().is_some()).count();
        // In the first round those that wait for nothing, or for nothing yet, are through.
        if rounds == 0 {
            let ended: Vec<bool> = seen.iter().map(|seen| seen.ended).collect();
            assert_eq!(ended, [[false, true, false, true, false, true, true, true]; 2].concat());
            assert_eq!(seen[4].y.len(), 76 * E);
        }
        for (decoder, seen) in decoders.iter_mut().zip(&mut seen) {
            if let Some((index, count)) = decoder.wanted_side() {
                assert_eq!(seen.asked.last(), Some(&(index, count)));
                decoder.give_side(&indices(index, count)).unwrap();
            }
        }
        rounds += 1;
        if waiting == 0 {
            break;
        }
    }
    assert_eq!(rounds, 6, "five answers at most");
    assert_eq!(seen, alone);
}

#[test]
fn datagrams_are_judged_and_kept_while_a_chunk_waits() {
    let codec = codec(12);
    for (limit, finishes) in [(None, false), (Some(256), false), (None, true)] {
        let layered = config().mode(Mode::Layered).binding(Binding::Message).datagram_limit(limit);
        let mut encoder = Encoder::new(Arc::clone(&codec), layered).unwrap();
        push(&mut encoder, 3, SideDelivery::Sent);
        push(&mut encoder, 4, SideDelivery::Known);
        push(&mut encoder, 2, SideDelivery::Known);
        encoder.end().unwrap();
        let messages: Vec<Message> = std::iter::from_fn(|| encoder.pop_message().unwrap()).collect();
        let (targets, others): (Vec<_>, Vec<_>) =
            messages.iter().partition(|message| message.class == MessageClass::Droppable);
        let open = || Decoder::new(Arc::clone(&codec), DecoderConfig::default().binding(Binding::Message)).unwrap();
        // The usual order.
        let mut usual = (open(), Seen::default());
        for message in &messages {
            usual.0.push_message(&message.bytes).unwrap();
            usual.1.drain(&mut usual.0, of).unwrap();
        }
        assert_eq!((usual.1.y.len(), usual.1.ended), (9 * E, true));

        let (mut decoder, mut seen) = (open(), Seen::default());
        for message in others {
            decoder.push_message(&message.bytes).unwrap();
        }
        if finishes {
            decoder.finish();
        }
        let next = |decoder: &mut Decoder| match decoder.poll() {
            Ok(DecoderPoll::Event(event)) => Some(event),
            Ok(DecoderPoll::NeedMore) => None,
            Ok(DecoderPoll::End) => panic!("a chunk waits"),
            Err(error) => {
                assert!(finishes && error.kind() == ErrorKind::WrongSideIndices, "{error}");
                None
            }
        };
        while let Some(event) = next(&mut decoder) {
            seen.take(event);
        }
        assert_eq!((decoder.wanted_side(), decoder.oldest_pending()), (Some((3, 4)), Some(0)));
        // All targets come while the first chunk waits, and something damaged: one event each.
        decoder.push_datagram(&[1, 2, 3]).unwrap();
        let damaged = DecoderEvent::TargetRefused { index: None, reason: TargetRefusal::Damaged };
        assert_eq!(next(&mut decoder), Some(damaged));
        let (mut judged, mut kept) = (0, 0);
        for target in &targets {
            decoder.push_datagram(&target.bytes).unwrap();
            match next(&mut decoder).unwrap() {
                DecoderEvent::TargetEarly { index, .. } => {
                    assert!(index >= 3);
                    kept += 1;
                }
                event @ (DecoderEvent::Targets(_) | DecoderEvent::TargetPart { .. }) => {
                    seen.take(event);
                    judged += 1;
                }
                event => panic!("{event:?}"),
            }
            assert_eq!((next(&mut decoder), decoder.wanted_side()), (None, Some((3, 4))));
        }
        assert!(judged > 0 && kept > 1 && judged + kept == targets.len(), "{judged} {kept}");
        assert_eq!((seen.y.len(), decoder.oldest_pending()), (3 * E, None));
        // A saved session keeps them too.
        let saved = decoder.save().unwrap();
        let config = DecoderConfig::default().binding(Binding::Message);
        let restored = Decoder::restore(Arc::clone(&codec), &[], config, &saved).unwrap();
        for mut decoder in [decoder, restored] {
            let mut seen = seen.clone();
            decoder.give_side(&indices(3, 4)).unwrap();
            seen.drain(&mut decoder, of).unwrap();
            assert_eq!(seen, usual.1);
            assert_eq!(decoder.confirmed_index(), 9);
        }
    }
}

#[test]
fn a_saved_session_that_waits_needs_memory_for_its_chunk() {
    let codec = codec(13);
    for (mode, deliveries) in [(Mode::Joined, 0), (Mode::Joined, 100), (Mode::Layered, 0)] {
        let mut encoder = Encoder::new(Arc::clone(&codec), config().mode(mode).target_horizon(256)).unwrap();
        push(&mut encoder, 2 + deliveries, SideDelivery::Sent);
        push(&mut encoder, 200, SideDelivery::Known);
        let bytes = finish(encoder);
        let mut decoder = Decoder::new(Arc::clone(&codec), DecoderConfig::default()).unwrap();
        decoder.push(&bytes).unwrap();
        let mut seen = Seen::default();
        while let DecoderPoll::Event(event) = decoder.poll().unwrap() {
            seen.take(event);
        }
        let first = 2 + deliveries as u64;
        assert_eq!(decoder.wanted_side(), Some((first, 200)));
        let saved = decoder.save().unwrap();
        let restore = |limit: usize| {
            Decoder::restore(Arc::clone(&codec), &[], DecoderConfig::default().memory_limit(limit), &saved)
        };
        let (mut low, mut high) = (0, 64 << 20);
        while high - low > 1 {
            let middle = (low + high) / 2;
            match restore(middle) {
                Ok(_) => high = middle,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::MemoryLimit, "{error}");
                    low = middle;
                }
            }
        }
        assert!(low > 200 * E * 6, "{mode:?}: the frames that wait are counted, {low}");
        let mut restored = restore(2 * high).unwrap();
        assert_eq!(restored.wanted_side(), Some((first, 200)));
        restored.give_side(&indices(first, 200)).unwrap();
        decoder.give_side(&indices(first, 200)).unwrap();
        let mut usual = seen.clone();
        seen.drain(&mut restored, of).unwrap();
        usual.drain(&mut decoder, of).unwrap();
        assert_eq!(seen, usual);
        assert_eq!((seen.y.len(), seen.ended), ((200 + first as usize) * E, true));
    }
}

#[test]
fn what_was_given_waits_for_a_push_that_succeeds() {
    let codec = codec(14);
    let open = || Encoder::new(Arc::clone(&codec), config().max_rewind(8).memory_limit(1 << 20)).unwrap();
    let hidden = vec![0.25; 2 * E];
    let (mut encoder, mut other) = (open(), open());
    for encoder in [&mut encoder, &mut other] {
        push(encoder, 3, SideDelivery::Known);
        encoder.set_side(&[5, V], SideDelivery::Sent).unwrap();
    }
    // Pushes that fail.
    let mut nan = hidden.clone();
    nan[E] = f32::NAN;
    let kinds = [
        encoder.push_hidden(&hidden[1..]).unwrap_err().kind(),
        encoder.push_hidden(&nan).unwrap_err().kind(),
        encoder.push_hidden(&hidden[E..]).unwrap_err().kind(),
        encoder.push_y(&[0; E + 1]).unwrap_err().kind(),
        encoder.push_y(&[i16::MAX; 2 * E]).unwrap_err().kind(),
        encoder.push_integers(&[0; 2 * E], &[0]).unwrap_err().kind(),
        encoder.push_exact(Dtype::F32, &[0; 4 * E]).unwrap_err().kind(),
        encoder.switch_model(plain(1), 0).unwrap_err().kind(),
        encoder.rewind(9).unwrap_err().kind(),
    ];
    use ErrorKind::{HiddenNotFinite, RewindTarget, ValueOutOfRange, WrongShape, WrongSideFlag, WrongSideIndices};
    let wanted = [
        WrongShape,
        HiddenNotFinite,
        WrongSideIndices,
        WrongShape,
        ValueOutOfRange,
        WrongShape,
        WrongSideIndices,
        WrongSideFlag,
        RewindTarget,
    ];
    assert_eq!(kinds, wanted);
    let mut pushes = [Push { encoder: &mut encoder, input: Input::Hidden(&nan) }];
    assert_eq!(Together::default().push(&mut pushes)[0].as_ref().unwrap_err().kind(), HiddenNotFinite);
    // A call that is refused itself leaves them too.
    assert_eq!(encoder.set_side(&[V + 1], SideDelivery::Known).unwrap_err().kind(), WrongSideIndices);
    for encoder in [&mut encoder, &mut other] {
        encoder.push_hidden(&hidden).unwrap();
        assert_eq!(encoder.push_hidden(&hidden).unwrap_err().kind(), WrongSideIndices, "they are used once");
    }
    assert_eq!(finish(encoder), finish(other));
}

#[test]
fn what_was_given_outlasts_a_rewind_and_a_reset_but_no_model_switch() {
    let codec = codec(15);
    type Call = fn(&mut Encoder);
    let calls: [Call; 5] = [
        |encoder| encoder.rewind(1).unwrap(),
        |encoder| encoder.reset().unwrap(),
        |encoder| encoder.checkpoint().unwrap(),
        |encoder| encoder.set_quality(0).unwrap(),
        |encoder| encoder.extension(2, b"x").unwrap(),
    ];
    for (call, delivery) in calls.iter().flat_map(|call| [(call, SideDelivery::Known), (call, SideDelivery::Sent)]) {
        let mut before = Encoder::new(Arc::clone(&codec), config().max_rewind(8)).unwrap();
        push(&mut before, 3, SideDelivery::Known);
        let mut after = before.clone();
        before.set_side(&[7, 8], delivery).unwrap();
        call(&mut before);
        call(&mut after);
        after.set_side(&[7, 8], delivery).unwrap();
        before.push_y(&y(2, 1)).unwrap();
        after.push_y(&y(2, 1)).unwrap();
        assert_eq!(finish(before), finish(after));
    }
    // Another model may have another vocabulary.
    let mut encoder = Encoder::new(Arc::clone(&codec), config()).unwrap();
    push(&mut encoder, 3, SideDelivery::Known);
    encoder.set_side(&[7, 8], SideDelivery::Sent).unwrap();
    encoder.switch_model(self::codec(16), 0).unwrap();
    assert_eq!(encoder.push_y(&y(2, 1)).unwrap_err().kind(), ErrorKind::WrongSideIndices);
    push(&mut encoder, 2, SideDelivery::Known);
    let bytes = finish(encoder);
    let mut decoder = Decoder::new(codec, DecoderConfig::default()).unwrap();
    decoder.add_model(self::codec(16));
    decoder.push(&bytes).unwrap();
    let mut seen = Seen::default();
    seen.drain(&mut decoder, of).unwrap();
    assert_eq!((seen.y.len(), seen.asked, seen.sent, seen.ended), (5 * E, vec![(0, 3), (3, 2)], vec![], true));
}

/// An encoder whose stream was said to hold indices of frames to come sent others, failed, and saved what it then was.
#[test]
fn a_forged_encoder_is_refused_or_goes_on() {
    let codec = codec(14);
    let mut encoder = Encoder::new(Arc::clone(&codec), config().max_rewind(4)).unwrap();
    (0..3).for_each(|at| push(&mut encoder, 1, if at == 1 { SideDelivery::Known } else { SideDelivery::Sent }));
    let saved = encoder.save();
    let body = &saved[..saved.len() - 4];
    let (mut taken, mut refused) = (0, 0);
    for (place, value) in (0..body.len()).flat_map(|place| [0, 1, 0xff].map(|value| (place, value))) {
        let mut forged = body.to_vec();
        forged[place] = value;
        forged.extend(crc32fast::hash(&forged).to_le_bytes());
        let Ok(mut encoder) = Encoder::restore(Arc::clone(&codec), &forged, 1 << 22) else {
            refused += 1;
            continue;
        };
        taken += 1;
        // Limits may be forged too, so that no frame fits.
        let _ = encoder.set_side(&[3], SideDelivery::Sent);
        let _ = encoder.push_y(&y(1, 9));
        assert!(Encoder::restore(Arc::clone(&codec), &encoder.save(), 1 << 22).is_ok(), "{place}: {value}");
    }
    assert!(taken > 100 && refused > 100, "{taken} {refused}");
}
