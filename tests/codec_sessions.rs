//! Encoder and decoder sessions over random models: what is decoded is what was encoded, however it is cut, batched or
//! rewound.
#![cfg(feature = "codec")]

mod codec_support;

use std::sync::Arc;

use codec_support::{Seen, codec, config, decode, decode_with, drain, encode, frames};
use midspan::adapter::Threads;
use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Verdict};
use midspan::error::{Error, ErrorKind};
use midspan::exact::Arm;
use midspan::model::Map;
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::wire::{CheckWidth, Dtype, Identity, Mode};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_decoded_is_what_was_encoded(seed in 0..1000_u64, count in 1..80_usize, batch in 1..40_usize, lanes in 1..9_u16, layered: bool, check in 0..3_u8) {
        let codec = codec(seed);
        let y = frames(count, seed);
        let mode = if layered { Mode::Layered } else { Mode::Joined };
        let check = [CheckWidth::None, CheckWidth::One, CheckWidth::Two][usize::from(check)];
        let (bytes, w) = encode(&codec, config(mode, check, lanes), &y, batch);
        let (seen, outcome) = decode(&codec, &bytes);
        prop_assert_eq!(outcome, Ok(()));
        prop_assert!(seen.w == w && seen.y == y && seen.ended);
        prop_assert!(seen.verdicts.iter().all(|verdict| *verdict == Verdict::YConfirmed));
    }

    #[test]
    fn integers_do_not_depend_on_batches_arms_or_threads(seed in 0..1000_u64, count in 2..70_usize, batch in 2..70_usize, lanes in 1..6_u16) {
        let y = frames(count, seed);
        let model = synthetic::model(&SyntheticShape::tiny(), seed);
        let reference = Arc::new(Codec::with_arm(model.clone(), Arm::Plain).unwrap());
        let (bytes, w) = encode(&reference, config(Mode::Joined, CheckWidth::None, lanes), &y, batch);
        let (_, stepwise) = encode(&reference, config(Mode::Joined, CheckWidth::None, 1), &y, 1);
        prop_assert!(w == stepwise, "W depends on the batch");
        for arm in Arm::available() {
            let codec = Arc::new(Codec::with_arm(model.clone(), arm).unwrap());
            prop_assert!(encode(&codec, config(Mode::Joined, CheckWidth::None, lanes), &y, batch).0 == bytes, "{:?}", arm);
            let mut encoder = Encoder::new(codec.clone(), config(Mode::Joined, CheckWidth::None, lanes)).unwrap();
            encoder.set_executor(Arc::new(Threads::new(2)));
            y.chunks(batch * 20).for_each(|part| encoder.push_y(part).unwrap());
            encoder.end().unwrap();
            prop_assert!(encoder.take_bytes().unwrap() == bytes, "two threads on {:?}", arm);
            let mut decoder = Decoder::new(codec, DecoderConfig::default()).unwrap();
            decoder.set_executor(Arc::new(Threads::new(2)));
            let mut seen = Seen::default();
            decoder.push(&bytes).unwrap();
            decoder.finish();
            prop_assert_eq!(drain(&mut decoder, &mut seen), Ok(true));
            prop_assert!(seen.y == y);
        }
    }

    #[test]
    fn cuts_change_nothing(seed in 0..1000_u64, cuts in prop::collection::vec(1..40_usize, 1..50), layered: bool) {
        let codec = codec(seed);
        let mode = if layered { Mode::Layered } else { Mode::Joined };
        let (bytes, _) = encode(&codec, config(mode, CheckWidth::One, 2), &frames(30, seed), 5);
        let (whole, outcome) = decode(&codec, &bytes);
        prop_assert_eq!(outcome, Ok(()));
        let mut decoder = Decoder::new(codec, DecoderConfig::default()).unwrap();
        let (mut seen, mut rest, mut cut) = (Seen::default(), &bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (part, behind) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
            decoder.push(part).unwrap();
            drain(&mut decoder, &mut seen).unwrap();
            rest = behind;
        }
        decoder.finish();
        prop_assert_eq!(drain(&mut decoder, &mut seen), Ok(true));
        prop_assert_eq!(seen, whole);
    }

    #[test]
    fn rewinds_resets_and_quality_switches(seed in 0..500_u64, moves in prop::collection::vec((0..6_u8, 1..8_usize), 1..40), layered: bool) {
        let codec = codec(seed);
        let mode = if layered { Mode::Layered } else { Mode::Joined };
        let mut encoder = Encoder::new(codec.clone(), config(mode, CheckWidth::None, 1)).unwrap();
        let (mut w, mut y) = (Vec::new(), Vec::new());
        for (step, (kind, size)) in moves.into_iter().enumerate() {
            match kind {
                0..=2 => {
                    let part = frames(size, seed + step as u64);
                    encoder.push_y(&part).unwrap();
                    w.extend_from_slice(&encoder.last_integers().unwrap().w);
                    y.extend(part);
                }
                3 => {
                    let index = encoder.next_index().saturating_sub(size as u64);
                    if encoder.rewind(index).is_ok() {
                        w.truncate(index as usize * 6);
                        y.truncate(index as usize * 20);
                    }
                }
                4 => encoder.set_quality((size % 2) as u8).unwrap(),
                _ => encoder.reset().unwrap(),
            }
        }
        encoder.end().unwrap();
        let (seen, outcome) = decode(&codec, &encoder.take_bytes().unwrap());
        prop_assert_eq!(outcome, Ok(()));
        prop_assert!(seen.w == w && seen.y == y);
    }
}

#[test]
fn hidden_states_come_back_within_half_a_step() {
    let codec = codec(3);
    let hidden: Vec<f32> = (0..200).map(|i| (i as f32 * 0.37).sin() * 4.0).collect();
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap();
    encoder.push_hidden(&hidden).unwrap();
    encoder.end().unwrap();
    let (seen, outcome) = decode(&codec, &encoder.take_bytes().unwrap());
    outcome.unwrap();
    for (i, (a, b)) in hidden.iter().zip(&seen.hidden).enumerate() {
        assert!((a - b).abs() <= codec.model().step(0)[i % 20] / 2.0 + 1e-4, "element {i}: {a} became {b}");
    }
}

#[test]
fn bad_calls_change_nothing() {
    let codec = codec(4);
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap();
    encoder.push_y(&frames(3, 1)).unwrap();
    let before = encoder.clone();
    let kind = |result: Result<(), Error>| result.unwrap_err().kind();
    assert_eq!(kind(encoder.push_y(&[0; 19])), ErrorKind::WrongShape);
    assert_eq!(kind(encoder.push_y(&[])), ErrorKind::WrongShape);
    assert_eq!(kind(encoder.push_y(&[i16::MAX; 20])), ErrorKind::ValueOutOfRange);
    assert_eq!(kind(encoder.push_hidden(&[f32::NAN; 20])), ErrorKind::HiddenNotFinite);
    assert_eq!(kind(encoder.push_integers(&[0; 20], &[0; 5])), ErrorKind::WrongShape);
    assert_eq!(kind(encoder.push_exact(Dtype::F16, &[0; 20])), ErrorKind::WrongShape);
    assert_eq!(kind(encoder.rewind(3)), ErrorKind::RewindTarget);
    assert_eq!(kind(encoder.set_quality(2)), ErrorKind::UnknownQuality);
    let finish = |mut encoder: Encoder| {
        encoder.push_y(&frames(2, 2)).unwrap();
        encoder.end().unwrap();
        assert_eq!(kind(encoder.push_y(&frames(1, 2))), ErrorKind::AfterEnd);
        assert_eq!(kind(encoder.checkpoint()), ErrorKind::AfterEnd);
        encoder.take_bytes().unwrap()
    };
    assert_eq!(finish(encoder), finish(before));
}

/// A former bug: the networks had already advanced when the chunk was found too long.
#[test]
fn an_exact_frame_that_does_not_fit_changes_nothing() {
    let codec = codec(4);
    // The worst case of one frame fits, but not with 80 bytes of hidden state in addition.
    let config = EncoderConfig::new(Identity::none()).max_chunk_bytes(200);
    let mut encoder = Encoder::new(codec.clone(), config).unwrap();
    encoder.push_y(&frames(3, 1)).unwrap();
    let mut before = encoder.clone();
    assert_eq!(encoder.push_exact(Dtype::F32, &[0; 80]).unwrap_err().kind(), ErrorKind::ChunkTooLong);
    for encoder in [&mut encoder, &mut before] {
        encoder.push_y(&frames(2, 2)).unwrap();
        encoder.end().unwrap();
    }
    assert_eq!(encoder.take_bytes().unwrap(), before.take_bytes().unwrap());
}

#[test]
fn exact_frames_are_lossless_and_the_context_goes_on() {
    let codec = codec(5);
    for mode in [Mode::Joined, Mode::Layered] {
        let mut encoder = Encoder::new(codec.clone(), config(mode, CheckWidth::Two, 1)).unwrap();
        let exact: Vec<u8> = (0..20).flat_map(|i| (i as f32 * 0.123).to_le_bytes()).collect();
        encoder.push_y(&frames(2, 9)).unwrap();
        encoder.push_exact(Dtype::F32, &exact).unwrap();
        let y = encoder.last_integers().unwrap().y.clone();
        encoder.push_y(&frames(2, 10)).unwrap();
        encoder.end().unwrap();
        let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default()).unwrap();
        decoder.push(&encoder.take_bytes().unwrap()).unwrap();
        decoder.finish();
        let mut found = 0;
        loop {
            match decoder.poll().unwrap() {
                DecoderPoll::Event(DecoderEvent::ExactFrame(frame)) => {
                    found += 1;
                    assert!(frame.hidden == exact && frame.frame.integers.unwrap().y == y && frame.frame.index == 2);
                }
                DecoderPoll::End => break,
                _ => {}
            }
        }
        assert_eq!(found, 1);
    }
}

#[test]
fn truncation_at_every_byte_is_an_error_behind_the_whole_chunks() {
    let codec = codec(6);
    let (bytes, _) = encode(&codec, config(Mode::Joined, CheckWidth::None, 2), &frames(12, 6), 3);
    let mut last = 0;
    for cut in 0..bytes.len() {
        let (seen, outcome) = decode(&codec, &bytes[..cut]);
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.offset()), (ErrorKind::Truncated, cut as u64));
        assert!(seen.events >= last, "a longer prefix gives no fewer events");
        last = seen.events;
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let codec = codec(7);
    for (mode, check) in
        [(Mode::Joined, CheckWidth::None), (Mode::Joined, CheckWidth::Two), (Mode::Layered, CheckWidth::One)]
    {
        let y = frames(6, 7);
        let (bytes, w) = encode(&codec, config(mode, check, 1), &y, 2);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (seen, outcome) = decode(&codec, &flipped);
            // The header crc, a check, a seal or a digest finds it. In layered mode a damaged target is an event, and
            // its frames are missing.
            let silent = outcome.is_ok()
                && seen.w == w
                && seen.y == y
                && seen.verdicts.iter().all(|v| *v == Verdict::YConfirmed);
            assert!(!silent, "bit {bit} of {mode:?}, {check:?}");
            if let Ok(()) = outcome {
                assert!(mode == Mode::Layered && seen.y != y, "bit {bit}: wrong integers called right");
            }
        }
    }
}

/// With maps on each side of the quantiser, hidden states are reconstructed as without them, frame by frame and in
/// batches.
#[test]
fn maps_turn_hidden_states_and_turn_them_back() {
    let shape = SyntheticShape::tiny();
    let mut parts = synthetic::parts(&shape, synthetic::Style::Sensible, 21);
    synthetic::add_maps(&mut parts);
    let codec = Arc::new(Codec::new(midspan::model::CodecModel::new(parts).unwrap()).unwrap());
    let model = codec.model();
    let width = model.hidden_width();
    // The decoder's output is the reconstruction from the integers, and quantises to the same integers.
    let start = frames(30, 5);
    let encode = |mode, batch: usize, hidden: &[f32]| {
        let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none()).mode(mode)).unwrap();
        let mut y = Vec::new();
        for part in hidden.chunks(batch * width) {
            encoder.push_hidden(part).unwrap();
            y.extend_from_slice(&encoder.last_integers().unwrap().y);
        }
        encoder.end().unwrap();
        let (seen, outcome) = decode(&codec, &encoder.take_bytes().unwrap());
        assert_eq!(outcome, Ok(()));
        assert_eq!(seen.y, y);
        (seen.y, seen.hidden)
    };
    let (step, offset, map) = (model.step(0), model.offset(0), model.synthesis().and_then(Map::full).unwrap());
    let back = |y: &[i16]| -> Vec<f32> {
        let x: Vec<f32> = y.iter().zip(step).map(|(y, step)| f32::from(*y) * step).collect();
        let row = |c: usize| map[c * width..][..width].iter().zip(&x).map(|(s, x)| s * x).sum::<f32>() + offset[c];
        (0..width).map(row).collect()
    };
    let hidden: Vec<f32> = start.chunks_exact(width).flat_map(back).collect();
    let (y, same) = encode(Mode::Joined, 30, &hidden);
    assert_eq!(y, start.iter().map(|y| (*y).clamp(-2000, 2000)).collect::<Vec<_>>());
    assert_eq!(same, hidden);
    for (mode, batch) in [(Mode::Joined, 1), (Mode::Joined, 7), (Mode::Layered, 4)] {
        assert!(encode(mode, batch, &hidden) == (y.clone(), hidden.clone()), "{mode:?}, {batch} frames a chunk");
    }
    // The map is used: without it the hidden states would differ.
    let plain: Vec<f32> =
        y.iter().zip(step.iter().cycle().zip(offset.iter().cycle())).map(|(y, (s, o))| f32::from(*y) * s + o).collect();
    assert_ne!(plain, hidden);
}

#[test]
fn chunks_beyond_the_memory_limit_are_refused_and_declared_sizes_are_not() {
    let codec = codec(10);
    for (mode, element) in [(Mode::Joined, 6 + 16), (Mode::Layered, 8 + 8 + 14)] {
        let (bytes, _) = encode(&codec, config(mode, CheckWidth::None, 1), &frames(40, 1), 40);
        let decode = |memory_limit| {
            let config = DecoderConfig::default().memory_limit(memory_limit);
            let (seen, outcome) = decode_with(&codec, &bytes, config);
            (seen.events, outcome.map_err(|error| (error.kind(), error.offset())))
        };
        // The smallest limit that is enough for the stream includes the context and the forty frames.
        let served = |limit: &usize| decode(*limit).1.is_ok();
        let (mut low, mut high) = (100, 1 << 20);
        assert!(served(&high));
        while high - low > 1 {
            let middle = (low + high) / 2;
            *if served(&middle) { &mut high } else { &mut low } = middle;
        }
        assert!(high > 40 * element * codec.model().hidden_width(), "{mode:?}: {high}");
        let (events, refused) = decode(low);
        let (kind, offset) = refused.unwrap_err();
        assert_eq!((events, kind), (1, ErrorKind::MemoryLimit), "{mode:?}: the header, but not the chunk");
        assert!(offset > 0);
    }
}

#[test]
fn memory_stays_constant() {
    let codec = codec(16);
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap();
    let mut decoder = Decoder::new(codec, DecoderConfig::default()).unwrap();
    let mut sizes = Vec::new();
    for step in 0..3000_u64 {
        encoder.push_y(&frames(1, step)).unwrap();
        decoder.push(&encoder.take_bytes().unwrap()).unwrap();
        drain(&mut decoder, &mut Seen::default()).unwrap();
        if step % 1000 == 999 {
            sizes.push((encoder.memory_bytes(), decoder.memory_bytes()));
        }
    }
    assert!(sizes.windows(2).all(|pair| pair[0] == pair[1]), "{sizes:?}");
}

#[test]
fn forks_go_their_own_ways() {
    let codec = codec(17);
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap();
    encoder.push_y(&frames(4, 1)).unwrap();
    let mut fork = encoder.clone();
    encoder.push_y(&frames(2, 2)).unwrap();
    fork.push_y(&frames(2, 3)).unwrap();
    for (mut encoder, tail) in [(encoder, 2), (fork, 3)] {
        encoder.end().unwrap();
        let (seen, outcome) = decode(&codec, &encoder.take_bytes().unwrap());
        assert_eq!(outcome, Ok(()));
        assert_eq!(seen.y, [frames(4, 1), frames(2, tail)].concat());
    }
}
