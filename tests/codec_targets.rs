//! Targets on paths that lose, repeat and reorder them: early targets, parts, and other contents of datagrams.
#![cfg(feature = "codec")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use midspan::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, TargetRefusal, Targets,
};
use midspan::error::{Error, ErrorKind};
use midspan::model::CodecModel;
use midspan::model::synthetic::{self, Random, SyntheticShape};
use midspan::stream::{Binding, JoinPoint, Limits, Message, MessageClass};
use midspan::wire::{CheckWidth, Dtype, Identity, Kind, Mode, Scope, Seed, StreamHeader};
use proptest::prelude::*;

const MEMORY: usize = 1 << 30;

/// E 20: a frame's target is short.
fn narrow(seed: u64) -> Arc<Codec> {
    Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), seed)).unwrap())
}

/// E 900: no frame's target fits a datagram of 256 bytes.
fn wide(seed: u64) -> Arc<Codec> {
    let shape = SyntheticShape { hidden: 900, ..SyntheticShape::tiny() };
    Arc::new(Codec::new(synthetic::model(&shape, seed)).unwrap())
}

/// The default model; None in the packaged crate, which leaves it out.
fn default_model() -> Option<Arc<Codec>> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    let bytes = crates.exists().then(|| std::fs::read(crates.join("midspan-cli/model/codec.safetensors")).unwrap())?;
    Some(Arc::new(Codec::from_bytes(&bytes, MEMORY).unwrap()))
}

fn below(random: &mut Random, end: u64) -> u64 {
    random.next() % end
}

/// Frames of Y, `[T, E]`, mostly small, sometimes far out.
fn frames(codec: &Codec, count: usize, seed: u64) -> Vec<i16> {
    let (low, high) = codec.model().y_range();
    let mut random = Random::new(seed);
    let value = |_| {
        let small = random.within(-4, 4) as i16;
        if below(&mut random, 60) == 0 { (small * 280).clamp(low, high) } else { small }
    };
    (0..count * codec.model().hidden_width()).map(value).collect()
}

fn config() -> EncoderConfig {
    EncoderConfig {
        mode: Mode::Layered,
        binding: Binding::Message,
        check: CheckWidth::One,
        checkpoint_interval: 7,
        ..EncoderConfig::new(Identity::none())
    }
}

fn decoder_config() -> DecoderConfig {
    DecoderConfig { binding: Binding::Message, ..DecoderConfig::default() }
}

fn open(codec: &Arc<Codec>) -> Decoder {
    Decoder::new(codec.clone(), decoder_config()).unwrap()
}

fn messages(encoder: &mut Encoder) -> Vec<Message> {
    std::iter::from_fn(|| encoder.pop_message().unwrap()).collect()
}

fn is_target(message: &Message) -> bool {
    message.class == MessageClass::Droppable
}

/// Everything that can be polled now.
fn drain(decoder: &mut Decoder) -> Result<Vec<DecoderEvent>, Error> {
    let mut events = Vec::new();
    while let DecoderPoll::Event(event) = decoder.poll()? {
        events.push(event);
    }
    Ok(events)
}

/// What a decoder handed out, by absolute index, and what it reported about targets.
#[derive(Debug, Default)]
struct Seen {
    y: BTreeMap<u64, Vec<i16>>,
    used: usize,
    parts: usize,
    early: usize,
    late: usize,
    damaged: usize,
    no_room: usize,
    hyper_priors: usize,
    ended: bool,
}

impl Seen {
    fn take(&mut self, width: usize, events: Vec<DecoderEvent>) {
        for event in events {
            match event {
                DecoderEvent::Targets(targets) => {
                    self.used += usize::from(!targets.concealed);
                    self.y.extend((targets.index..).zip(targets.y.chunks_exact(width).map(<[i16]>::to_vec)));
                }
                DecoderEvent::ExactFrame(exact) => drop(self.y.insert(exact.frame.index, exact.frame.y)),
                DecoderEvent::HyperPrior(hyper_prior) => self.hyper_priors += hyper_prior.count,
                DecoderEvent::TargetPart { .. } => self.parts += 1,
                DecoderEvent::TargetEarly { .. } => self.early += 1,
                DecoderEvent::TargetRefused { reason, .. } => match reason {
                    TargetRefusal::Late => self.late += 1,
                    TargetRefusal::NoRoom => self.no_room += 1,
                    _ => self.damaged += 1,
                },
                DecoderEvent::Rewound { index } => self.y.retain(|frame, _| *frame < index),
                DecoderEvent::Ended { .. } => self.ended = true,
                _ => {}
            }
        }
    }

    /// Number of targets that were answered, without those that are answered later.
    fn answers(&self) -> usize {
        self.used + self.parts + self.early + self.late + self.damaged + self.no_room
    }

    fn whole(&self) -> Vec<i16> {
        self.y.values().flatten().copied().collect()
    }
}

/// Frames with rewinds, resets, quality switches and exact frames among them: messages, and Y of the timeline.
fn busy_stream(codec: &Arc<Codec>, config: EncoderConfig, seed: u64) -> (Vec<Message>, Vec<i16>) {
    let width = codec.model().hidden_width();
    let mut encoder = Encoder::new(codec.clone(), config).unwrap();
    let mut random = Random::new(seed);
    let mut y: Vec<i16> = Vec::new();
    for step in 0..60 {
        match below(&mut random, 12) {
            0 => {
                let index = encoder.next_index().saturating_sub(below(&mut random, 5));
                if encoder.rewind(index).is_ok() {
                    y.truncate(index as usize * width);
                }
            }
            1 => encoder.reset().unwrap(),
            2 => encoder.set_quality(below(&mut random, 2) as u8).unwrap(),
            3 => {
                encoder.push_exact(Dtype::F16, &vec![0; 2 * width]).unwrap();
                y.extend(encoder.last_y());
            }
            4 => {
                let part = frames(codec, 4, seed + step);
                encoder.push_y(&part).unwrap();
                y.extend(part);
            }
            _ => {
                let part = frames(codec, 1, seed + step);
                encoder.push_y(&part).unwrap();
                y.extend(part);
            }
        }
    }
    encoder.end().unwrap();
    (messages(&mut encoder), y)
}

/// Moves targets ahead of up to `lead` other messages, at random.
fn overtake(sent: &[Message], lead: u64, random: &mut Random) -> Vec<Message> {
    let mut order: Vec<(i64, usize)> = Vec::new();
    for (place, message) in sent.iter().enumerate() {
        let ahead = if is_target(message) { below(random, lead + 1) as i64 } else { 0 };
        // The header remains first.
        order.push(((place as i64 - ahead).max(0) * 2 - i64::from(is_target(message)), place));
    }
    order[0].0 = i64::MIN;
    order.sort();
    order.into_iter().map(|(_, place)| sent[place].clone()).collect()
}

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
                decoder = Decoder::restore(codec.clone(), decoder_config(), &bytes).unwrap();
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
        let (sent, y) = busy_stream(&codec, EncoderConfig { datagram_limit: Some(256), ..config() }, seed);
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
        let mut decoder = Decoder::new(codec.clone(), DecoderConfig { binding, ..decoder_config() }).unwrap();
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
        let limits = Limits { early_bytes, ..Limits::default() };
        let mut decoder = Decoder::new(codec.clone(), DecoderConfig { limits, ..decoder_config() }).unwrap();
        first.iter().for_each(|message| decoder.push_message(&message.bytes).unwrap());
        drain(&mut decoder).unwrap();
        let before = decoder.memory_bytes();
        let config = DecoderConfig { limits, ..decoder_config() };
        let empty = Decoder::restore(codec.clone(), config.clone(), &decoder.save().unwrap()).unwrap();
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
        let restored = Decoder::restore(codec.clone(), config.clone(), &saved).unwrap();
        assert!(about(restored.memory_bytes() - empty.memory_bytes(), full - before));
        let less = DecoderConfig { limits: Limits { early_bytes: 10_000, ..limits }, ..config };
        assert_eq!(Decoder::restore(codec.clone(), less, &saved).unwrap_err().kind(), ErrorKind::SavedSession);
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
        let mut encoder = Encoder::new(codec.clone(), EncoderConfig { datagram_limit, ..config() }).unwrap();
        frames(&codec, count, 6).chunks(900).for_each(|frame| encoder.push_y(frame).unwrap());
        encoder.end().unwrap();
        let sent = messages(&mut encoder);
        let targets: Vec<&Message> = sent.iter().filter(|message| is_target(message)).collect();
        // In order, or with the targets first and some of them repeated at their place.
        let run = |memory_limit: usize, early: bool| -> Result<Seen, Error> {
            let config = DecoderConfig { memory_limit, ..decoder_config() };
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
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig { target_horizon: 3, ..config() }).unwrap();
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
        let config = EncoderConfig { target_horizon: 4, max_frames_per_chunk: 4, lanes: 1, ..config() };
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

/// A target of one frame with the check of [`Identity::none`].
fn named(index: u64, epoch: u32, payload: &[u8]) -> Vec<u8> {
    let scope = Scope { index, epoch, quality: 0, width: CheckWidth::Two, seed: Seed::NONE };
    let mut body = (index as u16).to_le_bytes().to_vec();
    body.extend([epoch as u8, 0]);
    let check = midspan::wire::check::frame_check(Kind::Target, scope, [&body, payload]);
    [&[0xc2], &body[..], &check, payload, &[0]].concat()
}

#[test]
fn every_target_fits_the_datagram_limit() {
    let Some(codec) = default_model() else { return };
    let width = codec.model().hidden_width();
    let (step, offset) = (codec.model().step(5), codec.model().offset(5));
    let mut random = Random::new(9);
    // Hidden states with about the spread of the default host's, and some far out.
    let mut hidden = Vec::new();
    for i in 0..64 * width {
        let spread = if below(&mut random, 400) == 0 { 3000 } else { 12 };
        hidden.push(random.within(-spread, spread) as f32 * step[i % width] + offset[i % width]);
    }
    let (mut wholes, mut batches, mut parts) = (0, 0, 0);
    for (limit, batch, lanes) in
        [(256, 1, 1), (256, 16, 1), (300, 7, 3), (1_200, 1, 1), (1_200, 5, 2), (1_200, 16, 1), (9_000, 16, 4)]
    {
        let config = EncoderConfig { quality: 5, lanes, datagram_limit: Some(limit), ..config() };
        let mut encoder = Encoder::new(codec.clone(), config).unwrap();
        let mut saved = encoder.clone();
        let mut y = Vec::new();
        for part in hidden.chunks(batch * width) {
            encoder.push_hidden(part).unwrap();
            y.extend_from_slice(encoder.last_y());
            saved = Encoder::restore(codec.clone(), &saved.save(), MEMORY).unwrap();
            saved.push_hidden(part).unwrap();
        }
        encoder.end().unwrap();
        saved.end().unwrap();
        let sent = messages(&mut encoder);
        assert_eq!(messages(&mut saved), sent, "the limit is saved");
        let (mut decoder, mut seen) = (open(&codec), Seen::default());
        for message in &sent {
            if is_target(message) {
                assert!(message.bytes.len() <= limit as usize, "{} of {limit}", message.bytes.len());
                match (message.bytes[0], message.bytes[4]) {
                    (0xC3, _) => batches += 1,
                    (_, 0) => wholes += 1,
                    _ => parts += 1,
                }
            }
            decoder.push_message(&message.bytes).unwrap();
            seen.take(width, drain(&mut decoder).unwrap());
        }
        assert!(seen.ended && seen.whole() == y, "limit {limit}");
    }
    assert!(wholes > 200 && batches > 5 && parts > 40, "{wholes} {batches} {parts}");
    // In a byte stream the same limit applies as with messages, and the payloads are the same.
    let bytes = |binding| {
        let config = EncoderConfig { quality: 5, binding, datagram_limit: Some(256), ..config() };
        let mut encoder = Encoder::new(codec.clone(), config).unwrap();
        encoder.push_hidden(&hidden[..width]).unwrap();
        match binding {
            Binding::ByteStream => encoder.take_bytes().unwrap().to_vec(),
            Binding::Message => messages(&mut encoder).into_iter().flat_map(|message| message.bytes).collect(),
        }
    };
    let (stream, joined) = (bytes(Binding::ByteStream), bytes(Binding::Message));
    let last = &joined[joined.len() - 200..joined.len() - 1];
    assert!(stream.ends_with(last));
}

/// The cost of parts as spec 2.6 states it: 11 bytes for elements above 128, the mode of a plain run, the seal.
#[test]
fn a_part_costs_eleven_bytes_a_mode_and_a_seal_at_most() {
    let shape = SyntheticShape { hidden: 4096, ..SyntheticShape::tiny() };
    let codec = Arc::new(Codec::new(synthetic::model(&shape, 9)).unwrap());
    for limit in [256, 600] {
        let mut encoder =
            Encoder::new(codec.clone(), EncoderConfig { datagram_limit: Some(limit), ..config() }).unwrap();
        encoder.track_cost(true);
        let (mut bits, mut bytes, mut parts) = (0.0, 0, 0);
        for seed in 0..4 {
            let y: Vec<i16> = (0..4096_u32).map(|element| ((element * 7 + seed) % 3) as i16 - 1).collect();
            encoder.push_y(&y).unwrap();
            bits += encoder.last_cost().unwrap().target;
            for message in messages(&mut encoder).iter().filter(|message| is_target(message)) {
                (bytes, parts) = (bytes + message.bytes.len(), parts + 1);
            }
        }
        let overhead = (bytes as f64 - bits / 8.0) / f64::from(parts);
        assert!(parts >= 8 && (9.0..14.0).contains(&overhead), "{overhead} bytes for each of {parts} parts");
    }
}

#[test]
fn the_worst_frame_fits_any_datagram_limit() {
    for codec in [wide(5)].into_iter().chain(default_model()) {
        let width = codec.model().hidden_width();
        let (low, high) = codec.model().y_range();
        for limit in [256, 257, 1_472] {
            let config = EncoderConfig { datagram_limit: Some(limit), ..config() };
            let mut encoder = Encoder::new(codec.clone(), config).unwrap();
            let y: Vec<i16> = (0..2 * width).map(|i| if i % 2 == 0 { low } else { high }).collect();
            encoder.push_y(&y).unwrap();
            encoder.end().unwrap();
            let (mut decoder, mut seen) = (open(&codec), Seen::default());
            for message in messages(&mut encoder) {
                assert!(!is_target(&message) || message.bytes.len() <= limit as usize);
                decoder.push_message(&message.bytes).unwrap();
                seen.take(width, drain(&mut decoder).unwrap());
            }
            assert!(seen.ended && seen.whole() == y);
        }
    }
}

#[test]
fn a_datagram_limit_below_256_is_refused() {
    let with = |datagram_limit| Encoder::new(narrow(1), EncoderConfig { datagram_limit, ..config() });
    assert_eq!(with(Some(255)).unwrap_err().kind(), ErrorKind::BadConfig);
    assert!(with(Some(256)).is_ok());
}

/// Wide frames in parts: the hyper-prior messages, the part messages, and Y.
fn in_parts(codec: &Arc<Codec>, count: usize, seed: u64) -> (Vec<Message>, Vec<Message>, Vec<i16>) {
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig { datagram_limit: Some(256), ..config() }).unwrap();
    let y = frames(codec, count, seed);
    y.chunks(codec.model().hidden_width()).for_each(|frame| encoder.push_y(frame).unwrap());
    encoder.end().unwrap();
    let (parts, others) = messages(&mut encoder).into_iter().partition(is_target);
    (others, parts, y)
}

#[test]
fn a_frame_in_parts_is_whole_when_all_came() {
    let codec = wide(6);
    let width = codec.model().hidden_width();
    let mut random = Random::new(6);
    for seed in 0..20 {
        let (others, mut parts, y) = in_parts(&codec, 3, seed);
        assert!(parts.len() >= 6, "{}", parts.len());
        // In any order, and also with a fork or a restored session.
        for i in (1..parts.len()).rev() {
            parts.swap(i, below(&mut random, i as u64 + 1) as usize);
        }
        let mut decoder = open(&codec);
        others.iter().for_each(|message| decoder.push_message(&message.bytes).unwrap());
        drain(&mut decoder).unwrap();
        let mut seen = Seen::default();
        let mut left: BTreeMap<u64, usize> = BTreeMap::new();
        parts.iter().for_each(|part| *left.entry(part.frames.start).or_default() += 1);
        for part in &parts {
            let index = part.frames.start;
            decoder.push_datagram(&part.bytes).unwrap();
            match seed % 3 {
                0 => decoder = decoder.clone(),
                1 => {
                    let saved = decoder.save().unwrap();
                    decoder = Decoder::restore(codec.clone(), decoder_config(), &saved).unwrap();
                }
                _ => {}
            }
            let events = drain(&mut decoder).unwrap();
            let left = left.get_mut(&index).unwrap();
            *left -= 1;
            let missing = decoder.missing_elements(index);
            if *left == 0 {
                assert!(
                    events.iter().any(|e| matches!(e, DecoderEvent::Targets(t) if t.index == index && !t.concealed))
                );
                assert_eq!(missing, None);
            } else {
                let [DecoderEvent::TargetPart { index: of, elements }] = &events[..] else { panic!("{events:?}") };
                assert_eq!(*of, index);
                let missing: Vec<Range<usize>> = missing.unwrap();
                assert!(
                    !missing.is_empty() && missing.iter().all(|m| m.end <= elements.start || m.start >= elements.end)
                );
            }
            seen.take(width, events);
            // A part that came before is late and changes nothing.
            decoder.push_datagram(&part.bytes).unwrap();
            assert!(matches!(
                drain(&mut decoder).unwrap()[..],
                [DecoderEvent::TargetRefused { reason: TargetRefusal::Late, .. }]
            ));
        }
        assert!(seen.whole() == y && seen.used == 3);
        assert_eq!(decoder.poll(), Ok(DecoderPoll::End));
    }
}

#[test]
fn missing_elements_alone_are_concealed() {
    let mut parts =
        synthetic::parts(&SyntheticShape { hidden: 700, ..SyntheticShape::tiny() }, synthetic::Style::Sensible, 7);
    let plain = Arc::new(Codec::new(CodecModel::new(parts.clone()).unwrap()).unwrap());
    synthetic::add_maps(&mut parts);
    let mapped = Arc::new(Codec::new(CodecModel::new(parts).unwrap()).unwrap());
    for codec in [plain, mapped] {
        let width = codec.model().hidden_width();
        let (others, parts, y) = in_parts(&codec, 1, 5);
        assert!(parts.len() >= 2);
        let mut decoder = open(&codec);
        others.iter().for_each(|message| decoder.push_message(&message.bytes).unwrap());
        drain(&mut decoder).unwrap();
        assert_eq!(decoder.missing_elements(0), Some(vec![std::ops::Range { start: 0, end: width }]));
        assert_eq!(decoder.missing_elements(1), None);
        let conceal = |mut decoder: Decoder| -> Targets {
            decoder.conceal(0, 1).unwrap();
            let events = drain(&mut decoder).unwrap();
            let targets = events.into_iter().find_map(|event| match event {
                DecoderEvent::Targets(targets) => Some(targets),
                _ => None,
            });
            assert_eq!(decoder.missing_elements(0), None);
            targets.unwrap()
        };
        let whole = conceal(decoder.clone());
        assert!(whole.concealed && whole.y != y);
        // All parts except the first came.
        for part in &parts[1..] {
            decoder.push_datagram(&part.bytes).unwrap();
        }
        drain(&mut decoder).unwrap();
        let missing = decoder.missing_elements(0).unwrap();
        let [lost] = &missing[..] else { panic!("{missing:?}") };
        assert!(lost.start == 0 && lost.end < width);
        let mixed = conceal(decoder);
        assert!(mixed.concealed);
        assert_eq!(mixed.y[lost.clone()], whole.y[lost.clone()]);
        assert_eq!(mixed.y[lost.end..], y[lost.end..]);
        let (step, offset) = (codec.model().step(0), codec.model().offset(0));
        match codec.model().synthesis() {
            None => {
                assert_eq!(mixed.hidden[lost.clone()], whole.hidden[lost.clone()]);
                let right = |c: usize| f32::from(y[c]) * step[c] + offset[c];
                assert!((lost.end..width).all(|c| mixed.hidden[c] == right(c)));
            }
            // Every hidden value depends on all elements.
            Some(_) => assert!(mixed.hidden.iter().zip(&whole.hidden).filter(|(a, b)| a != b).count() > width / 2),
        }
    }
}

#[test]
fn the_wrong_binding_is_refused_both_ways() {
    let codec = narrow(8);
    let encode = |binding| {
        let mut encoder = Encoder::new(codec.clone(), EncoderConfig { binding, ..config() }).unwrap();
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
    let config = DecoderConfig { host_digest: Some([1; 32]), ..decoder_config() };
    let error = join(config.clone()).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::WrongBinding, 7));
    let error = join(DecoderConfig { binding: Binding::ByteStream, ..config }).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::WrongHost, 7));
}
