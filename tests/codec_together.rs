//! Sessions that are stepped together: each stream has the same bytes and events as alone.
#![cfg(feature = "codec")]

use std::sync::Arc;

use midspan::adapter::Threads;
use midspan::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Input, Push, Together,
};
use midspan::error::{Error, ErrorKind};
use midspan::exact::Arm;
use midspan::model::synthetic::{self, Random, SyntheticShape};
use midspan::stream::Limits;
use midspan::wire::{Dtype, Identity, Mode};

/// A number below `bound`.
fn below(random: &mut Random, bound: usize) -> usize {
    random.within(0, bound as i32 - 1) as usize
}

/// Frames of which some are far out, and some equal the previous one.
fn hidden(random: &mut Random, frames: usize, width: usize) -> Vec<f32> {
    let mut all: Vec<f32> = Vec::new();
    for frame in 0..frames {
        let far = match below(random, 6) {
            0 | 1 if frame > 0 => {
                all.extend_from_within((frame - 1) * width..);
                continue;
            }
            2 => 100.0,
            _ => 1.0,
        };
        all.extend((0..width).map(|_| far * (below(random, 4_001) as f32 - 2_000.0) / 500.0));
    }
    all
}

fn codecs() -> Vec<Arc<Codec>> {
    let shape = SyntheticShape::tiny();
    vec![
        Arc::new(Codec::new(synthetic::model(&shape, 1)).unwrap()),
        Arc::new(
            Codec::with_arm(synthetic::model(&SyntheticShape { window: 3, hidden: 9, ..shape }, 2), Arm::Plain)
                .unwrap(),
        ),
    ]
}

/// One stream twice: stepped with others, and alone.
struct Stream {
    together: Encoder,
    alone: Encoder,
    decoder: Decoder,
    decoder_alone: Decoder,
}

impl Stream {
    fn new(codec: &Arc<Codec>, draw: &mut Random) -> Stream {
        let mode = if below(draw, 2) == 0 { Mode::Joined } else { Mode::Layered };
        let config = EncoderConfig::new(Identity::none())
            .mode(mode)
            .checkpoint_interval(5)
            .lanes(1 + below(draw, 3) as u16)
            .max_frames_per_chunk([4, 4096][below(draw, 2)]);
        let encoder = Encoder::new(codec.clone(), config).unwrap();
        let decoder = Decoder::new(codec.clone(), DecoderConfig::default()).unwrap();
        Stream { together: encoder.clone(), alone: encoder, decoder: decoder.clone(), decoder_alone: decoder }
    }

    /// Makes the same call on both encoders.
    fn both(&mut self, call: impl Fn(&mut Encoder) -> Result<(), Error>) {
        let outcome = call(&mut self.together);
        assert_eq!(call(&mut self.alone), outcome);
    }
}

/// Polls all decoders together until all need more. Returns the outcomes of each.
fn poll_all(together: &mut Together, streams: &mut [Stream]) -> Vec<Vec<Result<DecoderPoll, Error>>> {
    let mut seen = vec![Vec::new(); streams.len()];
    loop {
        let mut decoders: Vec<&mut Decoder> = streams.iter_mut().map(|stream| &mut stream.decoder).collect();
        let outcomes = together.poll(&mut decoders);
        let busy = outcomes.iter().any(|outcome| matches!(outcome, Ok(DecoderPoll::Event(_))));
        seen.iter_mut().zip(outcomes).for_each(|(seen, outcome)| seen.push(outcome));
        if !busy {
            return seen;
        }
    }
}

/// Polls a decoder as often as the others.
fn poll_alone(decoder: &mut Decoder, times: usize) -> Vec<Result<DecoderPoll, Error>> {
    (0..times).map(|_| decoder.poll()).collect()
}

fn run(mut together: Together, count: usize, seed: u64) {
    let codecs = codecs();
    let mut draw = Random::new(seed);
    let mut streams: Vec<Stream> = Vec::new();
    let (mut refused, mut failed, mut ended) = (0, 0, 0);
    for round in 0..25 {
        while streams.len() < count {
            let codec = &codecs[below(&mut draw, 2)];
            streams.push(Stream::new(codec, &mut draw));
        }
        let mut inputs = Vec::new();
        for stream in &mut streams {
            let next = stream.together.next_index();
            match below(&mut draw, 12) {
                0 => stream.both(|encoder| encoder.rewind(next.saturating_sub(2))),
                1 => stream.both(|encoder| encoder.set_quality((round % 2) as u8)),
                2 => stream.both(Encoder::reset),
                3 => stream.both(|encoder| {
                    let zeros = vec![0; encoder.codec().model().hidden_width() * 4];
                    encoder.push_exact(Dtype::F32, &zeros)
                }),
                4 => stream.both(Encoder::end),
                5 => stream.both(Encoder::checkpoint),
                _ => (),
            }
            let width = stream.together.codec().model().hidden_width();
            let frames = [1, 1, 1, 1, 1, 2, 8, 13][below(&mut draw, 8)];
            let mut hidden = hidden(&mut draw, frames, width);
            match below(&mut draw, 15) {
                0 => hidden[0] = f32::NAN,
                1 => drop(hidden.pop()),
                _ => (),
            }
            inputs.push(hidden);
        }
        let integers: Vec<Option<Vec<i16>>> = streams
            .iter()
            .zip(&inputs)
            .map(|(stream, hidden)| (below(&mut draw, 3) == 0).then(|| stream.together.quantise(hidden).ok()).flatten())
            .collect();
        let mut pushes: Vec<Push<'_>> = streams
            .iter_mut()
            .zip(&inputs)
            .zip(&integers)
            .map(|((stream, hidden), y)| Push {
                encoder: &mut stream.together,
                input: y.as_ref().map_or(Input::Hidden(hidden), |y| Input::Y(y)),
            })
            .collect();
        let outcomes = together.push(&mut pushes);
        for (((stream, hidden), y), outcome) in streams.iter_mut().zip(&inputs).zip(&integers).zip(outcomes) {
            let alone = match y {
                Some(y) => stream.alone.push_y(y),
                None => stream.alone.push_hidden(hidden),
            };
            assert_eq!(outcome, alone);
            if outcome.is_err() {
                refused += 1;
            } else {
                assert_eq!(
                    (&stream.together.last_integers().unwrap().y, &stream.together.last_integers().unwrap().w),
                    (&stream.alone.last_integers().unwrap().y, &stream.alone.last_integers().unwrap().w)
                );
            }
            let bytes = stream.together.take_bytes().unwrap();
            assert_eq!(bytes, stream.alone.take_bytes().unwrap());
            let mut bytes = bytes.to_vec();
            if below(&mut draw, 40) == 0
                && let Some(byte) = bytes.last_mut()
            {
                *byte ^= 0x10;
            }
            assert_eq!(stream.decoder.push(&bytes), stream.decoder_alone.push(&bytes));
        }
        let polled = poll_all(&mut together, &mut streams);
        for (stream, seen) in streams.iter_mut().zip(polled) {
            let alone = poll_alone(&mut stream.decoder_alone, seen.len());
            assert!(seen == alone, "{seen:?} instead of {alone:?}");
            let ends =
                |poll: &Result<DecoderPoll, Error>| matches!(poll, Ok(DecoderPoll::Event(DecoderEvent::Ended { .. })));
            failed += usize::from(seen.iter().any(Result::is_err));
            ended += usize::from(seen.iter().any(ends));
        }
        streams.retain(|stream| below(&mut draw, 9) > 0 && stream.together.clone().checkpoint().is_ok());
    }
    assert!(refused > 0 && failed > 0 && ended > 0, "{refused} {failed} {ended}");
}

#[test]
fn streams_together_are_as_alone() {
    run(Together::default(), 40, 1);
    run(Together::new(Arc::new(Threads::new(3))), 40, 2);
}

#[test]
fn a_model_without_an_encoders_part_is_refused() {
    let model = synthetic::model(&SyntheticShape::tiny(), 1).without_encoder();
    let codec = Arc::new(Codec::new(model).unwrap());
    let mut encoder = Encoder::new(codec, EncoderConfig::new(Identity::none())).unwrap();
    let (hidden, y) = (vec![0.0; SyntheticShape::tiny().hidden], vec![0; SyntheticShape::tiny().hidden]);
    for input in [Input::Hidden(&hidden[..]), Input::Y(&y)] {
        let outcomes = Together::default().push(&mut [Push { encoder: &mut encoder, input }]);
        assert_eq!(outcomes[0].unwrap_err().kind(), ErrorKind::NotAvailable);
    }
    assert_eq!(encoder.next_index(), 0);
}

#[test]
fn nothing_to_do_is_fine() {
    let mut together = Together::default();
    assert!(together.push(&mut []).is_empty() && together.poll(&mut []).is_empty());
    let mut decoder = Decoder::new(codecs()[0].clone(), DecoderConfig::default()).unwrap();
    assert_eq!(together.poll(&mut [&mut decoder]), [Ok(DecoderPoll::NeedMore)]);
}

/// A stream of two batches, one as long as limits allow.
fn long_stream(codec: &Arc<Codec>, mode: Mode, lanes: u16, frames: usize) -> (Vec<u8>, Vec<i16>) {
    let config = EncoderConfig::new(Identity::none())
        .mode(mode)
        .lanes(lanes)
        .max_frames_per_chunk(1 << 20)
        .max_chunk_bytes(1 << 28)
        .target_horizon(4_096)
        .memory_limit(usize::MAX);
    let mut encoder = Encoder::new(codec.clone(), config).unwrap();
    let width = codec.model().hidden_width();
    let mut y = synthetic::inputs(width, frames + 3, 6, 7);
    // Of eight frames two are plain, because the model never saw such values, and four repeat the previous frame. At
    // every edge between slices there is a run whose mode is not the first mode.
    let (low, high) = codec.model().y_range();
    for frame in 1..frames + 3 {
        let start = frame * width;
        match frame % 8 {
            1 | 2 => (start..start + width).for_each(|at| y[at] = if (at + frame) % 3 == 0 { low } else { high }),
            3..=6 => y.copy_within(start - width..start, start),
            _ => {}
        }
    }
    encoder.push_y(&y[..3 * codec.model().hidden_width()]).unwrap();
    encoder.push_y(&y[3 * codec.model().hidden_width()..]).unwrap();
    encoder.end().unwrap();
    (encoder.take_bytes().unwrap().to_vec(), y)
}

fn trusting(frames_per_poll: usize) -> DecoderConfig {
    DecoderConfig::default().limits(Limits::FORMAT).memory_limit(usize::MAX).frames_per_poll(frames_per_poll)
}

#[test]
fn a_chunk_in_slices_is_the_chunk() {
    let codec = &codecs()[0];
    for (mode, lanes) in [(Mode::Joined, 1), (Mode::Joined, 7), (Mode::Joined, 1024), (Mode::Layered, 3)] {
        let (bytes, y) = long_stream(codec, mode, lanes, 500);
        let decode = |frames_per_poll: usize, together: bool| {
            let mut decoder = Decoder::new(codec.clone(), trusting(frames_per_poll)).unwrap();
            decoder.push(&bytes).unwrap();
            let (mut events, mut working) = (Vec::new(), Vec::new());
            let mut all = Together::default();
            loop {
                let poll = match together {
                    true => all.poll(&mut [&mut decoder]).pop().unwrap().unwrap(),
                    false => decoder.poll().unwrap(),
                };
                match poll {
                    DecoderPoll::Event(DecoderEvent::Working { index, done, count }) => {
                        assert!(decoder.save().is_err(), "a chunk in work cannot be saved");
                        assert_eq!((index, decoder.next_index()), (if count == 500 { 3 } else { 0 }, index));
                        working.extend((count == 500).then_some(done));
                        // A fork continues from the middle of the chunk as well.
                        decoder = decoder.clone();
                    }
                    DecoderPoll::Event(event) => events.push(event),
                    DecoderPoll::NeedMore | DecoderPoll::End => break,
                }
            }
            (events, working)
        };
        let (expected, working) = decode(usize::MAX, false);
        assert!(working.is_empty());
        let decoded: Vec<i16> = expected
            .iter()
            .flat_map(|event| match event {
                DecoderEvent::Frames(frames) => frames.integers.as_ref().unwrap().y.clone(),
                DecoderEvent::Targets(targets) => targets.y.clone(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(decoded, y);
        for frames_per_poll in [1, 64, 71, 499, 500] {
            for together in [false, true] {
                let (events, working) = decode(frames_per_poll, together);
                assert!(events == expected, "{mode:?} {lanes} {frames_per_poll} {together}");
                let slices: Vec<usize> = (1..).map(|n| n * frames_per_poll).take_while(|done| *done < 500).collect();
                assert_eq!(working, slices, "{mode:?} {lanes} {frames_per_poll} {together}");
            }
        }
    }
}

#[test]
fn damage_in_a_later_slice_is_found_as_in_one() {
    let codec = &codecs()[0];
    let (bytes, _) = long_stream(codec, Mode::Joined, 5, 300);
    let outcome = |bytes: &[u8], frames_per_poll: usize| {
        let mut decoder = Decoder::new(codec.clone(), trusting(frames_per_poll)).unwrap();
        decoder.push(bytes).unwrap();
        decoder.finish();
        let mut events = 0;
        loop {
            match decoder.poll() {
                Ok(DecoderPoll::Event(DecoderEvent::Working { .. })) => (),
                Ok(DecoderPoll::Event(_)) => events += 1,
                other => break (events, other.map_err(|error| (error.kind(), error.offset()))),
            }
        }
    };
    let mut kinds = std::collections::HashSet::new();
    for at in (70..bytes.len() - 20).step_by(11) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let expected = outcome(&damaged, usize::MAX);
        assert_eq!(outcome(&damaged, 37), expected, "byte {at}");
        kinds.insert(format!("{expected:?}"));
    }
    assert!(kinds.len() > 3, "{kinds:?}");
}

#[test]
fn one_hostile_stream_does_not_hold_the_others() {
    let codec = &codecs()[0];
    let width = codec.model().hidden_width();
    // One stream with a chunk of 20,000 frames, and fifty streams with one frame at a time.
    let (bytes, _) = long_stream(codec, Mode::Joined, 1, 20_000);
    let config = trusting(0).frames_per_poll(DecoderConfig::default().frames_per_poll);
    let mut hostile = Decoder::new(codec.clone(), config).unwrap();
    hostile.push(&bytes).unwrap();
    let mut encoders = vec![Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap(); 50];
    let mut honest = vec![Decoder::new(codec.clone(), DecoderConfig::default()).unwrap(); 50];
    let y = synthetic::inputs(width, 1, 6, 8);
    let mut together = Together::default();
    let mut done = 0;
    for round in 0.. {
        for (encoder, decoder) in encoders.iter_mut().zip(&mut honest) {
            encoder.push_y(&y).unwrap();
            decoder.push(&encoder.take_bytes().unwrap()).unwrap();
        }
        // Each honest stream's frame comes within two calls, and the hostile one advances by a slice in each call.
        let mut frames = vec![0; honest.len()];
        for _ in 0..2 {
            let mut all: Vec<&mut Decoder> = honest.iter_mut().collect();
            all.push(&mut hostile);
            let mut outcomes = together.poll(&mut all);
            match outcomes.pop() {
                Some(Ok(DecoderPoll::Event(DecoderEvent::Working { done: now, count, .. }))) => {
                    assert!(now > done && now - done <= 64 && count == 20_000, "{done} {now}");
                    done = now;
                }
                Some(Ok(DecoderPoll::Event(DecoderEvent::Frames(frames)))) => {
                    assert!(
                        frames.count == 3 || (frames.count == 20_000 && 20_000 - done <= 64),
                        "{} {done}",
                        frames.count
                    );
                    done = if frames.count > 3 { frames.count } else { done };
                }
                Some(Ok(_)) => (),
                other => panic!("{other:?}"),
            }
            for (frames, outcome) in frames.iter_mut().zip(outcomes) {
                match outcome.unwrap() {
                    DecoderPoll::Event(DecoderEvent::Frames(event)) => *frames += event.count,
                    DecoderPoll::Event(DecoderEvent::Working { .. }) => panic!("one frame is no work"),
                    _ => (),
                }
            }
        }
        assert!(round == 0 || frames.iter().all(|frames| *frames == 1), "{round}: {frames:?}");
        if done == 20_000 {
            assert!((100..200).contains(&round), "{round}");
            return;
        }
    }
}
