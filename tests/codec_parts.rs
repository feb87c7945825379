//! Targets split into parts that fit a datagram limit (spec 2.6).
#![cfg(feature = "codec")]

mod codec_support;
mod target_support;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use codec_support::{default_model, send_none};
use midspan::codec::{Codec, Decoder, DecoderEvent, DecoderPoll, Encoder, TargetRefusal, Targets};
use midspan::error::ErrorKind;
use midspan::model::synthetic::{self, Random, SyntheticShape};
use midspan::model::{CodecModel, Map};
use midspan::stream::{Binding, Message};
use target_support::{
    MEMORY, Seen, below, config, decoder_config, drain, frames, is_target, messages, narrow, open, wide,
};

#[test]
fn every_target_fits_the_datagram_limit() {
    let Some(codec) = default_model() else { return };
    let width = codec.model().hidden_width();
    let (step, offset) = (codec.model().step(5), codec.model().offset(5));
    let mut random = Random::new(9);
    // Hidden states with more spread than the default host's, so that frames are long, and some values far out.
    let mut hidden = Vec::new();
    for i in 0..64 * width {
        let spread = if below(&mut random, 400) == 0 { 3000 } else { 36 };
        hidden.push(random.within(-spread, spread) as f32 * step[i % width] + offset[i % width]);
    }
    let (mut wholes, mut batches, mut parts) = (0, 0, 0);
    for (limit, batch, lanes) in
        [(256, 1, 1), (256, 16, 1), (300, 7, 3), (1_200, 1, 1), (1_200, 5, 2), (1_200, 16, 1), (9_000, 16, 4)]
    {
        let config = config().quality(5).lanes(lanes).datagram_limit(Some(limit));
        let mut encoder = Encoder::new(codec.clone(), config).unwrap();
        let mut saved = encoder.clone();
        let mut y = Vec::new();
        for part in hidden.chunks(batch * width) {
            send_none(&mut encoder, part.len() / width);
            encoder.push_hidden(part).unwrap();
            y.extend_from_slice(&encoder.last_integers().unwrap().y);
            send_none(&mut saved, part.len() / width);
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
    // In a byte stream the same limit applies as with messages, and the bodies of all parts are the same.
    let encoded = |binding| {
        let config = config().quality(5).binding(binding).datagram_limit(Some(256));
        let mut encoder = Encoder::new(codec.clone(), config).unwrap();
        send_none(&mut encoder, 1);
        encoder.push_hidden(&hidden[..width]).unwrap();
        encoder
    };
    let stream = encoded(Binding::ByteStream).take_bytes().unwrap();
    let sent: Vec<_> = messages(&mut encoded(Binding::Message)).into_iter().filter(is_target).collect();
    assert!(sent.len() > 1, "{}", sent.len());
    let mut place = 0;
    for message in &sent {
        // Between the kind and the zero at its end.
        let body = &message.bytes[1..message.bytes.len() - 1];
        let found = stream[place..].windows(body.len()).position(|window| window == body);
        place += found.expect("the body is in the stream") + body.len();
    }
    assert_eq!(place, stream.len());
}

/// The cost of parts as spec 2.6 states it: 11 bytes for elements above 128, the mode of a plain run, the seal.
#[test]
fn a_part_costs_eleven_bytes_a_mode_and_a_seal_at_most() {
    let shape = SyntheticShape { hidden: 4096, ..SyntheticShape::tiny() };
    let codec = Arc::new(Codec::new(synthetic::model(&shape, 9)).unwrap());
    for limit in [256, 600] {
        let mut encoder = Encoder::new(codec.clone(), config().datagram_limit(Some(limit))).unwrap();
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
            let config = config().datagram_limit(Some(limit));
            let mut encoder = Encoder::new(codec.clone(), config).unwrap();
            let y: Vec<i16> = (0..2 * width).map(|i| if i % 2 == 0 { low } else { high }).collect();
            send_none(&mut encoder, 2);
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
    let with = |datagram_limit| Encoder::new(narrow(1), config().datagram_limit(datagram_limit));
    assert_eq!(with(Some(255)).unwrap_err().kind(), ErrorKind::BadConfig);
    assert!(with(Some(256)).is_ok());
}

/// Wide frames in parts: the hyper-prior messages, the part messages, and Y.
fn in_parts(codec: &Arc<Codec>, count: usize, seed: u64) -> (Vec<Message>, Vec<Message>, Vec<i16>) {
    let mut encoder = Encoder::new(codec.clone(), config().datagram_limit(Some(256))).unwrap();
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
                    decoder = Decoder::restore(codec.clone(), &[], decoder_config(), &saved).unwrap();
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
                let [DecoderEvent::TargetPart { index: told, elements }] = &events[..] else { panic!("{events:?}") };
                assert_eq!(*told, index);
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
    let mapped = Arc::new(Codec::new(CodecModel::new(parts.clone()).unwrap()).unwrap());
    synthetic::add_sparse_maps(&mut parts, 7);
    let sparse = Arc::new(Codec::new(CodecModel::new(parts).unwrap()).unwrap());
    for codec in [plain, mapped, sparse] {
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
            // [SPARSE-2] Every hidden value depends on elements before it.
            Some(Map::Sparse(_)) => {
                assert_eq!(mixed.hidden[lost.clone()], whole.hidden[lost.clone()]);
                assert!((lost.end..width).filter(|c| mixed.hidden[*c] != whole.hidden[*c]).count() > width / 4);
            }
            // Every hidden value depends on all elements.
            Some(Map::Full(_)) => {
                assert!(mixed.hidden.iter().zip(&whole.hidden).filter(|(a, b)| a != b).count() > width / 2)
            }
        }
    }
}
