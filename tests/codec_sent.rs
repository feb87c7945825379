//! The counts of an encoder, and when they are unlike what the model was made for (spec 4.4).
#![cfg(feature = "codec")]

mod codec_support;

use std::sync::Arc;

use codec_support::frames;
use midspan::codec::{Clipping, Codec, Encoder, EncoderConfig, Input, Push, Sent, SideDelivery, Together};
use midspan::engine::Integers;
use midspan::engine::parameters::TargetParameters;
use midspan::engine::prediction::LaneWalk;
use midspan::exact::{Serial, State};
use midspan::model::CodecModel;
use midspan::model::synthetic::{self, Style, SyntheticShape};
use midspan::stream::{Chunk, Poll, Reader, ReaderConfig};
use midspan::wire::{Dtype, Identity, Mode};

const MEMORY: usize = 64 << 20;
const E: usize = 20;
const C: usize = 6;

/// A model that expects these bits in its two qualities.
fn expecting(seed: u64, bits: [f32; 2]) -> Arc<Codec> {
    let model = synthetic::model(&SyntheticShape::tiny(), seed).with_expected_bits(bits.to_vec()).unwrap();
    Arc::new(Codec::new(model).unwrap())
}

fn config() -> EncoderConfig {
    EncoderConfig::new(Identity::none()).max_rewind(256)
}

fn encoder(codec: &Arc<Codec>, config: EncoderConfig) -> Encoder {
    Encoder::new(Arc::clone(codec), config).unwrap()
}

/// Walks g_y along frames of one lane from an empty context; `each` gets a frame's number and the tables and shifts of
/// its Y, and gives Y.
fn walk(codec: &Codec, w: &[i16], quality: usize, mut each: impl FnMut(usize, &TargetParameters) -> Vec<i16>) {
    let mut state = State::new(codec.g_y(), 0);
    let predictor = codec.model().predictor(quality);
    let mut lane = predictor.as_ref().map(|predictor| LaneWalk::new(codec.rule(), predictor, &[]));
    for (frame, w) in w.chunks(C).enumerate() {
        let (mut output, mut own) = (Vec::new(), TargetParameters::default());
        codec.g_y().run(&mut state, w, quality, &mut output, &Serial).unwrap();
        match &mut lane {
            Some(lane) => {
                let y = each(frame, lane.next(&output));
                lane.push(&y);
            }
            None => {
                codec.rule().derive(&output, &mut own);
                each(frame, &own);
            }
        }
    }
}

/// How many values of W and of Y their tables do not hold, by what the tables say that they cost.
fn outside(codec: &Codec, w: &[i16], y: &[i16], quality: usize) -> (u64, u64) {
    let model = codec.model();
    let escaped = |(mass, further): (u32, u32)| u64::from(mass > 0 && further > 0);
    let (mut of_w, mut of_y) = (0, 0);
    walk(codec, w, quality, |frame, parameters| {
        let own = w[frame * C..][..C].iter().enumerate();
        let table = |channel: usize| quality * C + channel;
        of_w += own.map(|(i, value)| escaped(model.hyper_prior().mass(table(i), 0, (*value).into()))).sum::<u64>();
        let y = &y[frame * E..][..E];
        let own = parameters.tables.iter().zip(&parameters.shifts).zip(y);
        of_y += own
            .map(|((table, shift), y)| escaped(model.target().mass(*table as usize, *shift, (*y).into())))
            .sum::<u64>();
        y.to_vec()
    });
    (of_w, of_y)
}

/// W and Y of frames in a quality that their tables hold: the middle of each. With `escapes`, so many values of each
/// frame's Y lie as far out as they may.
fn held(codec: &Codec, quality: usize, count: usize, escapes: usize) -> Integers {
    let model = codec.model();
    let tables = quality * C..(quality + 1) * C;
    let middle = |table| model.hyper_prior().first(table) as i16 + (model.hyper_prior().size(table) / 2) as i16;
    let w: Vec<i16> = tables.map(middle).collect::<Vec<_>>().repeat(count);
    let mut y = Vec::new();
    let (low, high) = model.y_range();
    walk(codec, &w, quality, |_, parameters| {
        let places = parameters.tables.iter().zip(&parameters.shifts);
        let middle = places.enumerate().map(|(i, (table, shift))| {
            let table = *table as usize;
            let value = shift + model.target().first(table) + i32::from(model.target().size(table) / 2);
            let far = if *shift > 0 { low } else { high };
            if i < escapes { far } else { value.clamp(low.into(), high.into()) as i16 }
        });
        let own: Vec<i16> = middle.collect();
        y.extend_from_slice(&own);
        own
    });
    Integers { w, y }
}

fn push(encoder: &mut Encoder, integers: &Integers, batch: usize) {
    for (y, w) in integers.y.chunks(batch * E).zip(integers.w.chunks(batch * C)) {
        encoder.push_integers(y, w).unwrap();
    }
}

/// The bits of all payloads of W and Y in a stream without side indices.
fn payload_bits(bytes: &[u8]) -> u64 {
    let mut reader = Reader::new(ReaderConfig::default());
    reader.push(bytes).unwrap();
    let mut bits = 0;
    while let Poll::Event(event) = reader.poll().unwrap() {
        assert!(!matches!(event.chunk, Chunk::SideIndices { .. }));
        bits += event.chunk.payload_bytes().map(|bytes| 8 * bytes.len() as u64).sum::<u64>();
    }
    bits
}

#[test]
fn escapes_are_the_values_that_their_tables_do_not_hold() {
    let mut parts = synthetic::parts(&SyntheticShape::tiny(), Style::Sensible, 4);
    synthetic::add_prediction(&mut parts, 2, 1, 4);
    let predicting = Arc::new(Codec::new(CodecModel::new(parts).unwrap()).unwrap());
    let (mut of_w, mut of_y) = (0, 0);
    for codec in [expecting(4, [0.0; 2]), predicting] {
        for quality in [0_u8, 1] {
            for batch in [1, 7] {
                // Frames far out, small ones, and equal ones, so that there are runs of all modes.
                let y = frames(40, 3);
                let mut own = encoder(&codec, config().quality(quality));
                let mut w = Vec::new();
                for y in y.chunks(batch * E) {
                    own.push_y(y).unwrap();
                    w.extend_from_slice(&own.last_integers().unwrap().w);
                }
                let (found_w, found_y) = outside(&codec, &w, &y, quality.into());
                assert_eq!(own.sent().escaped, found_w + found_y);
                // W of the caller's choice, some of it outside its tables.
                let far = |(i, _): (usize, &i16)| if i % 11 == 3 { codec.model().w_range().0 } else { w[i] };
                let other: Vec<i16> = w.iter().enumerate().map(far).collect();
                let mut given = encoder(&codec, config().quality(quality));
                push(&mut given, &Integers { w: other.clone(), y: y.clone() }, batch);
                let found = outside(&codec, &other, &y, quality.into());
                assert_eq!(given.sent().escaped, found.0 + found.1);
                (of_w, of_y) = (of_w + found.0, of_y + found.1);
            }
        }
    }
    assert!(of_w > 100 && of_y > 100, "{of_w} {of_y}");
}

/// For hidden states the encoder counts the Y that it sends, and the clamped values.
#[test]
fn a_push_of_hidden_states_counts_the_integers_that_it_sends() {
    let codec = expecting(5, [0.0; 2]);
    let mut own = encoder(&codec, config().rate_weight(Some(0.3)));
    let offset = codec.model().offset(0);
    let mut hidden = offset.repeat(9);
    (0..9).for_each(|frame| hidden[frame * E + frame] += 0.7 * frame as f32);
    (hidden[3], hidden[2 * E]) = (1e30, -1e30);
    own.push_hidden(&hidden).unwrap();
    let Integers { w, y } = own.last_integers().unwrap().clone();
    let (of_w, of_y) = outside(&codec, &w, &y, 0);
    assert_eq!((own.sent().escaped, own.sent().clipped, own.clipped()), (of_w + of_y, 2, 2));
    assert!(of_y >= 2);
}

#[test]
fn every_push_is_in_the_sums_whatever_its_chunks_are() {
    let codec = expecting(1, [100.5, 0.0]);
    let (y, w) = (frames(60, 1), vec![1_i16; 60 * C]);
    let hidden: Vec<f32> = y.iter().map(|y| f32::from(*y) / 64.0).collect();
    let exact: Vec<u8> = hidden[..E].iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut seen = Vec::new();
    for (config, expected) in [
        (config(), 18_291),
        (config().lanes(3).max_frames_per_chunk(16), 18_291),
        // A frame alone has two payloads.
        (config().mode(Mode::Layered), 18_299),
        (config().mode(Mode::Layered).lanes(2), 18_299),
        // Batches go as single targets, some of them in parts.
        (config().mode(Mode::Layered).datagram_limit(Some(256)), 18_323),
    ] {
        let mut encoder = encoder(&codec, config);
        encoder.push_y(&y).unwrap();
        encoder.push_y(&y[..E]).unwrap();
        encoder.push_integers(&y, &w).unwrap();
        encoder.push_hidden(&hidden).unwrap();
        encoder.push_exact(Dtype::F32, &exact).unwrap();
        encoder.end().unwrap();
        let sent = encoder.sent();
        assert_eq!((sent.frames, sent.w_values, sent.y_values), (182, 182 * C as u64, 182 * E as u64));
        assert_eq!((sent.compared_frames, sent.expected_bits()), (182, expected));
        assert_eq!(sent.payload_bits, payload_bits(&encoder.take_bytes().unwrap()));
        assert_eq!(sent.compared_bits, sent.payload_bits);
        // With fewer than 512 frames, nothing has been halved.
        assert_eq!(encoder.recently_sent(), sent);
        seen.push((sent.escaped, sent.clipped));
    }
    assert!(seen[0].0 > 0 && seen.iter().all(|counts| *counts == seen[0]), "{seen:?}");
}

#[test]
fn rewound_frames_stay_in_the_sums_and_refused_ones_do_not_come_in() {
    let codec = expecting(1, [90.0, 70.0]);
    let mut encoder = encoder(&codec, config().clipping(Clipping::Refuse));
    encoder.push_y(&frames(10, 1)).unwrap();
    let before = encoder.sent();
    encoder.rewind(4).unwrap();
    assert_eq!(encoder.sent(), before);
    encoder.push_hidden(&[1e30; E]).unwrap_err();
    encoder.push_y(&[i16::MAX; E]).unwrap_err();
    assert_eq!((encoder.sent(), encoder.recently_sent()), (before, before));
    encoder.push_y(&frames(2, 2)).unwrap();
    encoder.reset().unwrap();
    encoder.push_y(&frames(3, 2)).unwrap();
    assert_eq!((encoder.sent().frames, encoder.sent().expected_bits()), (15, 15 * 90));
}

#[test]
fn a_quality_or_a_model_of_which_nothing_is_known_is_not_compared() {
    let (one, other) = (expecting(1, [90.25, 0.0]), expecting(2, [0.0, 40.0]));
    let mut encoder = encoder(&one, config());
    let push = |encoder: &mut Encoder, count: usize| {
        let before = encoder.sent();
        encoder.push_y(&frames(count, 1)).unwrap();
        let sent = encoder.sent();
        let bits = sent.payload_bits - before.payload_bits;
        let compared = sent.compared_bits - before.compared_bits;
        assert_eq!(compared, if sent.compared_frames > before.compared_frames { bits } else { 0 });
        (sent.frames, sent.compared_frames, sent.expected_bits())
    };
    assert_eq!(push(&mut encoder, 4), (4, 4, 361));
    encoder.set_quality(1).unwrap();
    assert_eq!(push(&mut encoder, 3), (7, 4, 361));
    encoder.set_quality(0).unwrap();
    assert_eq!(push(&mut encoder, 4), (11, 8, 722));
    encoder.switch_model(Arc::clone(&other), 0).unwrap();
    assert_eq!(encoder.recently_sent(), Sent::default());
    assert_eq!(push(&mut encoder, 2), (13, 8, 722));
    encoder.set_quality(1).unwrap();
    assert_eq!(push(&mut encoder, 1), (14, 9, 762));
    let recent = encoder.recently_sent();
    assert_eq!((recent.frames, recent.compared_frames, recent.expected_bits()), (3, 1, 40));
}

#[test]
fn frames_without_side_indices_are_not_compared() {
    let model = synthetic::model(&SyntheticShape::with_side(), 3).with_expected_bits(vec![80.0; 2]).unwrap();
    let codec = Arc::new(Codec::new(model).unwrap());
    let none = codec.model().side().unwrap().vocabulary();
    let mut encoder = encoder(&codec, config().max_frames_per_chunk(4));
    let mut push = |indices: &[u32]| {
        encoder.set_side(indices, SideDelivery::Known).unwrap();
        encoder.push_y(&frames(indices.len(), 1)).unwrap();
        (encoder.sent().frames, encoder.sent().compared_frames, encoder.sent().expected_bits())
    };
    assert_eq!(push(&[0, 1, 2]), (3, 3, 240));
    assert_eq!(push(&[none]), (4, 3, 240));
    // The first chunk has four of these frames.
    assert_eq!(push(&[0, 1, 2, 3, 0, none]), (10, 7, 560));
}

#[test]
fn forks_and_restored_sessions_keep_counting() {
    let codec = expecting(1, [90.0, 70.0]);
    for mode in [Mode::Joined, Mode::Layered] {
        let mut encoder = encoder(&codec, config().mode(mode));
        encoder.push_y(&frames(600, 1)).unwrap();
        assert!(encoder.recently_sent().frames < 512 && encoder.sent().frames == 600);
        let mut fork = encoder.clone();
        let mut restored = Encoder::restore(Arc::clone(&codec), &encoder.save(), MEMORY).unwrap();
        for session in [&mut encoder, &mut fork, &mut restored] {
            session.push_y(&frames(5, 2)).unwrap();
        }
        assert_eq!(encoder.sent().frames, 605);
        assert!(encoder.sent().escaped > 0);
        for session in [&fork, &restored] {
            assert_eq!((session.sent(), session.recently_sent()), (encoder.sent(), encoder.recently_sent()));
            assert!(session.unlike().is_some() && session.unlike() == encoder.unlike());
        }
    }
}

#[test]
fn streams_that_step_together_count_as_each_would_alone() {
    let codec = expecting(1, [90.0, 70.0]);
    let inputs: Vec<Vec<i16>> = (0..3).map(|stream| frames(5 + stream, stream as u64)).collect();
    let mut alone: Vec<Encoder> = (0..3).map(|i| encoder(&codec, config().quality(i % 2))).collect();
    let mut streams = alone.clone();
    let mut pushes: Vec<Push> =
        streams.iter_mut().zip(&inputs).map(|(encoder, y)| Push { encoder, input: Input::Y(y) }).collect();
    for outcome in Together::default().push(&mut pushes) {
        outcome.unwrap();
    }
    for ((alone, stream), y) in alone.iter_mut().zip(&streams).zip(&inputs) {
        alone.push_y(y).unwrap();
        assert_eq!(stream.sent(), alone.sent());
    }
    assert_eq!([0, 1, 2].map(|i| streams[i].sent().expected_bits()), [450, 420, 630]);
}

/// A codec that expects `share` of the bits that the middles of its tables take at one frame a chunk.
fn expecting_share(share: f32) -> (Arc<Codec>, Integers) {
    let plain = expecting(3, [0.0; 2]);
    let integers = held(&plain, 0, 640, 0);
    let mut encoder = encoder(&plain, config());
    push(&mut encoder, &integers, 1);
    let sent = encoder.sent();
    assert_eq!((sent.escaped, sent.clipped, sent.compared_frames), (0, 0, 0));
    let bits = share * sent.payload_bits as f32 / 640.0;
    (expecting(3, [bits, bits]), integers)
}

#[test]
fn payloads_far_longer_than_expected_are_found_from_128_frames_on() {
    for (share, found) in [(1.0, false), (0.64, false), (0.61, true)] {
        let (codec, integers) = expecting_share(share);
        let mut encoder = encoder(&codec, config());
        let mut first = None;
        for (frame, (y, w)) in integers.y.chunks(E).zip(integers.w.chunks(C)).enumerate() {
            encoder.push_integers(y, w).unwrap();
            if encoder.unlike().is_some() && first.is_none() {
                first = Some(frame + 1);
            }
        }
        // At 0.64 the first frames may lie above the mean.
        assert_eq!(first.is_some(), found, "{share}: {first:?}");
        assert!(first.is_none_or(|first| first >= 128), "{first:?}");
        if share == 0.61 {
            let told = encoder.unlike().unwrap().to_string();
            assert!(told.starts_with("the hidden states are unlike those that the codec was made for: "), "{told}");
            assert!(told.ends_with("are expected, 0.0 % of the values outside their tables, 0.0 % clamped"), "{told}");
        }
    }
    // Without expected bits, nothing is known of lengths.
    let (_, integers) = expecting_share(1.0);
    let mut encoder = encoder(&expecting(3, [0.0; 2]), config());
    push(&mut encoder, &integers, 1);
    assert_eq!(encoder.unlike(), None);
}

#[test]
fn values_outside_their_tables_are_found_without_expected_bits() {
    let codec = expecting(3, [0.0; 2]);
    // A frame has 26 values. One escape a frame in every third is more than 1 %, in every fifth less.
    for (every, found) in [(3, true), (5, false)] {
        let (like, far) = (held(&codec, 0, 500, 0), held(&codec, 0, 500, 1));
        let mut encoder = encoder(&codec, config());
        for frame in 0..500 {
            let from = if frame % every == 0 { &far } else { &like };
            encoder.push_integers(&from.y[frame * E..][..E], &from.w[frame * C..][..C]).unwrap();
            assert!(frame >= 127 || encoder.unlike().is_none());
        }
        assert_eq!(encoder.sent().escaped, 500_u64.div_ceil(every as u64));
        assert_eq!(encoder.unlike().is_some(), found);
        if let Some(unlike) = encoder.unlike() {
            let told = "the hidden states are unlike those that the codec was made for: 1.3 % of the values outside \
                        their tables, 0.0 % clamped";
            assert_eq!(unlike.to_string(), told);
        }
    }
}

#[test]
fn clamped_values_are_found_whatever_they_cost() {
    let codec = expecting(3, [0.0; 2]);
    let mut like = encoder(&codec, config());
    push(&mut like, &held(&codec, 0, 200, 0), 1);
    let mut far = like.clone();
    for place in 0..3 {
        let mut hidden = codec.model().offset(0).to_vec();
        like.push_hidden(&hidden).unwrap();
        (hidden[place], hidden[place + 7]) = (1e30, -1e30);
        far.push_hidden(&hidden).unwrap();
    }
    // 6 of 4,060 values. Frames that h makes W for have escapes, but few.
    assert_eq!((like.sent().clipped, far.sent().clipped), (0, 6));
    assert!(far.sent().escaped < 52);
    assert_eq!(like.unlike(), None);
    let told = far.unlike().unwrap().to_string();
    assert!(told.ends_with(" of the values outside their tables, 0.1 % clamped"), "{told}");
}

/// Old frames count for less and less, and those of another model not at all.
#[test]
fn what_is_found_passes_with_frames_that_are_like_before() {
    let codec = expecting(3, [0.0; 2]);
    let (like, far) = (held(&codec, 0, 2_000, 0), held(&codec, 0, 300, E));
    let mut encoder = encoder(&codec, config());
    push(&mut encoder, &far, 20);
    assert!(encoder.unlike().is_some());
    let mut switched = encoder.clone();
    let mut passed = None;
    encoder.reset().unwrap();
    for (frame, (y, w)) in like.y.chunks(E).zip(like.w.chunks(C)).enumerate() {
        encoder.push_integers(y, w).unwrap();
        if encoder.unlike().is_none() && passed.is_none() {
            passed = Some(frame);
        }
    }
    assert!(passed.is_some_and(|frame| (512..2_000).contains(&frame)), "{passed:?}");
    assert_eq!(encoder.sent().frames, 2_300);
    switched.switch_model(expecting(3, [0.0; 2]), 0).unwrap();
    assert_eq!((switched.unlike(), switched.sent().frames), (None, 300));
}

/// One long chunk is judged by its mean, as many short ones are.
#[test]
fn a_chunk_longer_than_the_recent_sums_is_halved_more_than_once() {
    let codec = expecting(3, [0.0; 2]);
    let far = held(&codec, 0, 4_000, E);
    let config = config().max_frames_per_chunk(4_000);
    let mut encoder = encoder(&codec, config);
    encoder.push_integers(&far.y, &far.w).unwrap();
    let recent = encoder.recently_sent();
    assert_eq!((recent.frames, recent.y_values, recent.escaped), (500, 10_000, 10_000));
    assert_eq!(encoder.sent().escaped, 80_000);
}
