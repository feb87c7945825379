//! Targets on paths that lose, repeat and reorder them: early targets, and other contents of datagrams.
#![cfg(feature = "codec")]

mod target_support;

use midspan::codec::{Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, TargetRefusal};
use midspan::error::{Error, ErrorKind};
use midspan::model::synthetic::Random;
use midspan::stream::{Binding, JoinPoint, Limits, Message};
use midspan::wire::{Dtype, Identity, StreamHeader};
use proptest::prelude::*;
use target_support::{
    Seen, below, busy_stream, config, decoder_config, drain, frames, is_target, messages, named, narrow, open,
    overtake, wide,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_target_that_overtakes_its_hyper_prior_is_used(seed in 0..10_000_u64, lead in 0..40_u64, datagrams: bool, saved: bool) {
        let codec = narrow(seed % 5);
        let width = codec.model().hidden_width();
        let (sent, y) = busy_stream(&codec, config(), seed);
        let order = overtake(&sent, lead, &mut Random::new(seed));
        let (mut decoder, mut seen) = (open(&codec), Seen::default());
        for (place, message) in order.iter().enumerate() {
            if datagrams && is_target(message) {
                decoder.push_datagram(&message.bytes).unwrap();
            } else {
                decoder.push_message(&message.bytes).unwrap();
            }
            // Events that wait to be polled, and early targets, are saved too.
            if saved && place % 3 == 0 {
                let bytes = decoder.save().unwrap();
                decoder = Decoder::restore(codec.clone(), &[], decoder_config(), &bytes).unwrap();
                prop_assert_eq!(decoder.save().unwrap(), bytes);
            }
            seen.take(width, drain(&mut decoder).unwrap());
        }
        prop_assert!(seen.ended && seen.whole() == y);
        prop_assert_eq!((seen.late, seen.damaged, seen.no_room), (0, 0, 0));
        let targets = sent.iter().filter(|message| is_target(message)).count();
        prop_assert_eq!(seen.used, targets);
        prop_assert_eq!(seen.early == 0, order == sent);
    }

    /// [MSG-7]
    #[test]
    fn nothing_in_a_datagram_ends_a_session(seed in 0..10_000_u64) {
        let codec = wide(seed % 3);
        let width = codec.model().hidden_width();
        let (sent, y) = busy_stream(&codec, config().datagram_limit(Some(256)), seed);
        let mut random = Random::new(seed + 1);
        let garbage = |random: &mut Random| -> Vec<u8> {
            let mut bytes = match below(random, 6) {
                // Random bytes; random bytes framed as a target; messages of this stream; messages of it with some
                // bytes changed.
                0 => (0..below(random, 40)).map(|_| below(random, 256) as u8).collect(),
                1 => (0..below(random, 1_000)).map(|_| below(random, 256) as u8).collect(),
                2 => {
                    let kind = 0xC2 + below(random, 2) as u8;
                    let body = (0..below(random, 30)).map(|_| below(random, 4) as u8);
                    [kind].into_iter().chain(body).chain([0]).collect()
                }
                _ => sent[below(random, sent.len() as u64) as usize].bytes.to_vec(),
            };
            if below(random, 3) > 0 && !bytes.is_empty() {
                for _ in 0..=below(random, 3) {
                    let place = below(random, bytes.len() as u64) as usize;
                    match below(random, 3) {
                        0 => bytes[place] ^= 1 << below(random, 8),
                        1 => bytes[place] = below(random, 256) as u8,
                        _ => bytes.truncate(place.max(1)),
                    }
                }
            }
            bytes
        };
        let (mut decoder, mut seen) = (open(&codec), Seen::default());
        let mut pushed = 0;
        for message in sent.iter().map(Some).chain([None, None, None]) {
            for _ in 0..below(&mut random, 4) {
                let datagram = garbage(&mut random);
                pushed += usize::from(!datagram.is_empty());
                decoder.push_datagram(&datagram).unwrap();
                if below(&mut random, 2) == 0 {
                    seen.take(width, drain(&mut decoder).unwrap());
                }
            }
            match message {
                Some(message) if is_target(message) => {
                    pushed += 1;
                    decoder.push_datagram(&message.bytes).unwrap();
                }
                Some(message) => decoder.push_message(&message.bytes).unwrap(),
                None => decoder.finish(),
            }
            seen.take(width, drain(&mut decoder).unwrap());
        }
        prop_assert_eq!(decoder.poll(), Ok(DecoderPoll::End));
        prop_assert!(seen.ended && seen.whole() == y);
        // Early targets get a second answer.
        prop_assert!(seen.answers() >= pushed && seen.answers() - seen.early <= pushed);
    }
}

#[test]
fn every_datagram_is_answered_before_the_header_and_without_one() {
    let codec = narrow(1);
    for (binding, begun) in [(Binding::Message, false), (Binding::ByteStream, false), (Binding::ByteStream, true)] {
        let mut decoder = Decoder::new(codec.clone(), decoder_config().binding(binding)).unwrap();
        if begun {
            // Joined mode has no targets.
            let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap();
            decoder.push(&encoder.take_bytes().unwrap()).unwrap();
            assert_eq!(drain(&mut decoder).unwrap().len(), 1);
        }
        for datagram in [&b"\xc2\0\0\0\0\x01\x01a\0"[..], b"a", b"\0", b"MSP\x9e", b"\xca\0"] {
            decoder.push_datagram(datagram).unwrap();
            decoder.push_datagram(b"").unwrap();
            let refused = DecoderEvent::TargetRefused { index: None, reason: TargetRefusal::Damaged };
            assert_eq!(drain(&mut decoder).unwrap(), [refused]);
        }
        decoder.finish();
        let error = decoder.poll().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Truncated);
        assert_eq!(decoder.push_datagram(b"a"), Err(error), "after the session itself failed");
    }
}

#[test]
fn early_targets_stay_within_their_bound() {
    let codec = narrow(2);
    let width = codec.model().hidden_width();
    let mut encoder = Encoder::new(codec.clone(), config()).unwrap();
    encoder.push_y(&frames(&codec, 1, 0)).unwrap();
    let first = messages(&mut encoder);
    let y: Vec<Vec<i16>> = (0..5_000).map(|seed| frames(&codec, 1, seed)).collect();
    y.iter().for_each(|y| encoder.push_y(y).unwrap());
    let sent = messages(&mut encoder);
    let (targets, others): (Vec<&Message>, Vec<&Message>) = sent.iter().partition(|message| is_target(message));

    for early_bytes in [20_000, u32::MAX] {
        let limits = Limits::default().early_bytes(early_bytes);
        let mut decoder = Decoder::new(codec.clone(), decoder_config().limits(limits)).unwrap();
        first.iter().for_each(|message| decoder.push_message(&message.bytes).unwrap());
        drain(&mut decoder).unwrap();
        let before = decoder.memory_bytes();
        let config = decoder_config().limits(limits);
        let empty = Decoder::restore(codec.clone(), &[], config.clone(), &decoder.save().unwrap()).unwrap();
        let mut seen = Seen::default();
        for target in &targets {
            decoder.push_datagram(&target.bytes).unwrap();
            seen.take(width, drain(&mut decoder).unwrap());
            let kept = decoder.memory_bytes() - before;
            // In addition to the targets themselves, queues take some memory.
            assert!(kept <= early_bytes as usize + (64 << 10), "{kept}");
        }
        // 4,095 frames ahead of the next one, which is the first of these, is as far as a target may be.
        assert_eq!(seen.answers(), 5_000);
        assert_eq!(seen.damaged, 5_000 - 4_096);
        let kept = seen.early;
        assert!(if early_bytes == u32::MAX { kept == 4_096 } else { (50..200).contains(&kept) }, "{kept}");
        assert_eq!(seen.no_room, 4_096 - kept);
        // A repeated target finds itself already kept. The session can be forked and saved.
        decoder.push_datagram(&targets[0].bytes).unwrap();
        assert!(matches!(drain(&mut decoder).unwrap()[..], [DecoderEvent::TargetEarly { index: 1, count: 1 }]));
        // Without the room in queues and buffers.
        let about = |held: usize, wanted: usize| held.abs_diff(wanted) <= 64 << 10;
        let full = decoder.memory_bytes();
        assert!(about(decoder.clone().memory_bytes() - empty.clone().memory_bytes(), full - before));
        let saved = decoder.save().unwrap();
        let restored = Decoder::restore(codec.clone(), &[], config.clone(), &saved).unwrap();
        assert!(about(restored.memory_bytes() - empty.memory_bytes(), full - before));
        let less = config.limits(limits.early_bytes(10_000));
        assert_eq!(Decoder::restore(codec.clone(), &[], less, &saved).unwrap_err().kind(), ErrorKind::SavedSession);
        // Their hyper-priors come, so the kept targets are used and make room.
        let mut used = Seen::default();
        for message in others.iter().take(40) {
            decoder.push_message(&message.bytes).unwrap();
            used.take(width, drain(&mut decoder).unwrap());
        }
        assert!(used.hyper_priors >= 30 && used.used == used.hyper_priors, "{used:?}");
        assert!(used.y.iter().all(|(index, frame)| *frame == y[*index as usize - 1]));
        let refused = &targets[kept];
        decoder.push_datagram(&refused.bytes).unwrap();
        assert!(matches!(drain(&mut decoder).unwrap()[..], [DecoderEvent::TargetEarly { .. }]));
    }
}

/// When its epoch has passed, or at the end, an early target becomes late and is dropped with an event.
#[test]
fn an_early_target_whose_frame_never_comes_is_late() {
    let codec = narrow(3);
    let mut encoder = Encoder::new(codec.clone(), config()).unwrap();
    encoder.push_y(&frames(&codec, 3, 1)).unwrap();
    let begin = messages(&mut encoder);
    let mut ahead = encoder.clone();
    ahead.push_y(&frames(&codec, 1, 2)).unwrap();
    let lost = messages(&mut ahead).into_iter().find(is_target).unwrap();
    for end in [false, true] {
        let mut encoder = encoder.clone();
        if end {
            encoder.end().unwrap()
        } else {
            encoder.reset().unwrap()
        }
        let mut decoder = open(&codec);
        begin.iter().for_each(|message| decoder.push_message(&message.bytes).unwrap());
        drain(&mut decoder).unwrap();
        let mut other = open(&codec);
        begin.iter().for_each(|message| other.push_message(&message.bytes).unwrap());
        drain(&mut other).unwrap();
        decoder.push_datagram(&lost.bytes).unwrap();
        assert!(matches!(drain(&mut decoder).unwrap()[..], [DecoderEvent::TargetEarly { index: 3, count: 1 }]));
        assert!(decoder.memory_bytes() > other.memory_bytes());
        for message in messages(&mut encoder) {
            decoder.push_message(&message.bytes).unwrap();
            other.push_message(&message.bytes).unwrap();
        }
        drain(&mut other).unwrap();
        let late = DecoderEvent::TargetRefused { index: Some(3), reason: TargetRefusal::Late };
        assert!(drain(&mut decoder).unwrap().contains(&late));
        // Nothing of it is left except room in queues.
        assert!(decoder.memory_bytes() < other.memory_bytes() + 4_096);
    }
}

/// The chunk that waits for overdue targets takes them from datagrams, and so do its own frames' targets. A former bug:
/// early targets could use up the memory limit, and the next chunk was then refused with error 901, which ended the
/// stream. [MSG-7] does not allow a datagram to do that, and [DEC-22] says what is dropped instead.
#[test]
fn early_targets_end_no_session() {
    let codec = wide(3);
    for (datagram_limit, count) in [(None, 40), (Some(256), 12)] {
        let mut encoder = Encoder::new(codec.clone(), config().datagram_limit(datagram_limit)).unwrap();
        frames(&codec, count, 6).chunks(900).for_each(|frame| encoder.push_y(frame).unwrap());
        encoder.end().unwrap();
        let sent = messages(&mut encoder);
        let targets: Vec<&Message> = sent.iter().filter(|message| is_target(message)).collect();
        // In order, or with the targets first and some of them repeated at their place.
        let run = |memory_limit: usize, early: bool| -> Result<Seen, Error> {
            let config = decoder_config().memory_limit(memory_limit);
            let mut decoder = Decoder::new(codec.clone(), config).unwrap();
            let mut seen = Seen::default();
            let mut given = 0;
            for (place, message) in sent.iter().enumerate() {
                if is_target(message) {
                    given += 1;
                    decoder.push_datagram(&message.bytes)?;
                } else {
                    decoder.push_message(&message.bytes)?;
                }
                seen.take(900, drain(&mut decoder)?);
                for target in targets.iter().filter(|_| early && place == 0) {
                    given += 1;
                    decoder.push_datagram(&target.bytes)?;
                    seen.take(900, drain(&mut decoder)?);
                    assert!(decoder.memory_bytes() <= memory_limit);
                }
            }
            // Every datagram was answered, and every early one a second time.
            assert_eq!(seen.answers(), given + seen.early);
            Ok(seen)
        };
        let all = |seen: &Seen| seen.y.len() == count && seen.ended;
        let (mut low, mut high) = (0, 64 << 20);
        while high - low > 1 {
            let middle = (low + high) / 2;
            *if run(middle, false).is_ok_and(|seen| all(&seen)) { &mut high } else { &mut low } = middle;
        }
        for more in [0, 1_000, 10_000, 20_000, 100_000] {
            let seen =
                run(high + more, true).unwrap_or_else(|error| panic!("{datagram_limit:?}, {more} more: {error}"));
            assert!(all(&seen), "{datagram_limit:?}, {more} more: {seen:?}");
            assert!(more > 1_000 || seen.no_room > 0);
        }
    }
}

#[test]
fn overdue_targets_may_come_as_datagrams() {
    let codec = narrow(4);
    let width = codec.model().hidden_width();
    let mut encoder = Encoder::new(codec.clone(), config().target_horizon(3)).unwrap();
    let y = frames(&codec, 6, 3);
    y.chunks(3 * width).for_each(|part| encoder.push_y(part).unwrap());
    encoder.end().unwrap();
    let sent = messages(&mut encoder);
    let targets: Vec<&Message> = sent.iter().filter(|message| is_target(message)).collect();
    let mut decoder = open(&codec);
    sent.iter().filter(|message| !is_target(message)).for_each(|m| decoder.push_message(&m.bytes).unwrap());
    let mut events = Vec::new();
    let error = loop {
        match decoder.poll() {
            Ok(DecoderPoll::Event(event)) => events.push(event),
            other => break other.unwrap_err(),
        }
    };
    assert_eq!(error.kind(), ErrorKind::TargetOverdue);
    assert_eq!(events.pop(), Some(DecoderEvent::TargetsOverdue { index: 0, count: 3 }));
    // The later target comes first. The container has seen its frames, but they still wait.
    let mut seen = Seen::default();
    decoder.push_datagram(&targets[1].bytes).unwrap();
    assert_eq!(decoder.poll(), Ok(DecoderPoll::Event(DecoderEvent::TargetEarly { index: 3, count: 3 })));
    assert_eq!(decoder.poll().unwrap_err().kind(), ErrorKind::TargetOverdue);
    decoder.push_datagram(&targets[0].bytes).unwrap();
    seen.take(width, drain(&mut decoder).unwrap());
    assert!(seen.ended && seen.whole() == y && seen.used == 2, "{seen:?}");
}

/// A former bug: while a chunk waited, datagrams were judged as if it were already decoded. [DEC-14] says that its
/// frames are still to come.
#[test]
fn datagrams_are_judged_in_front_of_a_chunk_that_waits() {
    let codec = narrow(41);
    for exact in [false, true] {
        let config = config().target_horizon(4).max_frames_per_chunk(4).lanes(1);
        let mut encoder = Encoder::new(codec.clone(), config).unwrap();
        let y = frames(&codec, 7, 8);
        y[..80].chunks(20).for_each(|frame| encoder.push_y(frame).unwrap());
        if exact {
            encoder.push_exact(Dtype::F32, &[0; 80]).unwrap();
        } else {
            encoder.push_y(&y[80..140]).unwrap();
        }
        let sent = messages(&mut encoder);
        let mut decoder = open(&codec);
        let targets: Vec<&Message> = sent.iter().filter(|message| is_target(message)).collect();
        for message in sent.iter().filter(|message| !is_target(message)) {
            decoder.push_message(&message.bytes).unwrap();
        }
        let waits = std::iter::from_fn(|| match decoder.poll().unwrap() {
            DecoderPoll::Event(event) => Some(event),
            _ => None,
        })
        .find(|event| matches!(event, DecoderEvent::TargetsOverdue { .. }));
        assert_eq!((waits.is_some(), decoder.next_index()), (true, 4));
        let mut answer = |index: u64, frames: usize, bytes: &[u8]| {
            decoder.push_datagram(bytes).unwrap();
            match decoder.poll().unwrap() {
                DecoderPoll::Event(DecoderEvent::TargetEarly { index: at, count }) => (at, count) == (index, frames),
                DecoderPoll::Event(DecoderEvent::TargetRefused { reason: TargetRefusal::Damaged, .. }) => false,
                other => panic!("{other:?}"),
            }
        };
        // Frame 4 belongs to the waiting chunk. A target may name at most frame 4 + 4,095 and not 4 + 4,096, whatever
        // the chunk contains.
        let target = |index: u64| named(index, 0, &[0xff; 8]);
        assert!(answer(4, 1, &target(4)), "exact: {exact}");
        assert!(answer(4_099, 1, &target(4_099)) && !answer(4_100, 1, &target(4_100)), "exact: {exact}");
        // After the overdue targets the chunk is decoded. Only then is the early target judged.
        for message in &targets[..4] {
            decoder.push_datagram(&message.bytes).unwrap();
        }
        let events = drain(&mut decoder).unwrap();
        let refused = events.iter().find_map(|event| match event {
            DecoderEvent::TargetRefused { index, reason } => Some((*index, *reason)),
            _ => None,
        });
        let reason = if exact { TargetRefusal::Late } else { TargetRefusal::Damaged };
        assert_eq!(refused, Some((Some(4), reason)), "{events:?}");
        assert_eq!(decoder.next_index(), if exact { 5 } else { 7 });
    }
}

/// [MSG-7] The one exception: a wrong target whose check matches is found by the Y digest that waits for it ([DEC-8]).
#[test]
fn a_wrong_datagram_whose_check_holds_shows_in_the_digest() {
    let codec = narrow(42);
    let mut encoder = Encoder::new(codec.clone(), config()).unwrap();
    encoder.push_y(&frames(&codec, 1, 9)).unwrap();
    encoder.checkpoint().unwrap();
    let mut decoder = open(&codec);
    for message in messages(&mut encoder).iter().filter(|message| !is_target(message)) {
        decoder.push_message(&message.bytes).unwrap();
        drain(&mut decoder).unwrap();
    }
    // Some of these bytes are valid payloads of the frame.
    let errors = (1..=u16::MAX).filter(|bytes| bytes.to_be_bytes()[1] != 0).filter_map(|bytes| {
        let mut decoder = decoder.clone();
        decoder.push_datagram(&named(0, 0, &[&bytes.to_be_bytes()[..], &[7]].concat())).unwrap();
        match decoder.poll().unwrap() {
            DecoderPoll::Event(DecoderEvent::Targets(_)) => Some(decoder.poll().unwrap_err().kind()),
            DecoderPoll::Event(DecoderEvent::TargetRefused { reason: TargetRefusal::Damaged, .. }) => None,
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(errors.take(3).collect::<Vec<_>>(), [ErrorKind::DigestMismatchY; 3]);
}

#[test]
fn output_can_be_measured_before_it_is_taken() {
    let codec = narrow(8);
    let open = |binding| {
        let mut encoder = Encoder::new(codec.clone(), config().binding(binding)).unwrap();
        encoder.push_y(&frames(&codec, 2, 1)).unwrap();
        encoder
    };
    let mut stream = open(Binding::ByteStream);
    let waiting = stream.untaken_bytes();
    assert!(waiting > 60);
    assert_eq!(stream.next_message(), None);
    assert_eq!(stream.take_bytes().unwrap().len(), waiting);
    assert_eq!(stream.untaken_bytes(), 0);
    let mut sent = open(Binding::Message);
    assert_eq!(sent.untaken_bytes(), 0);
    let mut count = 0;
    while let Some(message) = sent.next_message().cloned() {
        assert_eq!(sent.pop_message().unwrap(), Some(message));
        count += 1;
    }
    assert!(count >= 3);
    assert_eq!(sent.pop_message().unwrap(), None);
}

#[test]
fn the_wrong_binding_is_refused_both_ways() {
    let codec = narrow(8);
    let encode = |binding| {
        let mut encoder = Encoder::new(codec.clone(), config().binding(binding)).unwrap();
        encoder.push_y(&frames(&codec, 2, 1)).unwrap();
        encoder.end().unwrap();
        encoder
    };
    let mut sent = encode(Binding::Message);
    assert_eq!(sent.take_bytes().unwrap_err().kind(), ErrorKind::NotAvailable);
    let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default()).unwrap();
    let bytes: Vec<u8> = messages(&mut sent).into_iter().flat_map(|message| message.bytes).collect();
    decoder.push(&bytes).unwrap();
    let error = decoder.poll().unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::WrongBinding, 7));
    let mut stream = encode(Binding::ByteStream);
    assert_eq!(stream.pop_message().unwrap_err().kind(), ErrorKind::NotAvailable);
    let mut decoder = open(&codec);
    decoder.push_message(&stream.take_bytes().unwrap()).unwrap();
    assert_eq!(decoder.poll().unwrap_err().kind(), ErrorKind::WrongBinding);
    assert_eq!(open(&codec).push(b"a").unwrap_err().kind(), ErrorKind::NotAvailable);
    // A former bug: a decoder that joins reported the host error first, but spec 7.4 checks the host after the binding.
    let bytes = encode(Binding::ByteStream).take_bytes().unwrap();
    let (header, _) = StreamHeader::load(&bytes, None).unwrap().unwrap();
    let join = |config: DecoderConfig| Decoder::join(codec.clone(), config, header.clone(), JoinPoint::default());
    let config = decoder_config().host_digest(Some([1; 32]));
    let error = join(config.clone()).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::WrongBinding, 7));
    let error = join(config.binding(Binding::ByteStream)).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::WrongHost, 7));
}
