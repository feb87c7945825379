//! The memory that sessions hold, counted by the allocator: nothing is allocated for declared numbers, `memory_bytes`
//! includes everything, and memory is released after a large chunk.
#![cfg(feature = "codec")]

mod allocator_support;

use std::sync::Arc;

use allocator_support::{HELD, measured, smallest_limit};
use bytes::BytesMut;
use midspan::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Input, Push, SideDelivery,
    Together,
};
use midspan::error::{Error, ErrorKind};
use midspan::model::CodecModel;
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::stream::{Binding, Limits, Reader, ReaderConfig};
use midspan::wire::{Dtype, Identity, Mode, Target};

/// A model of moderate size: E = 48, window 32.
fn codec() -> Arc<Codec> {
    let shape = SyntheticShape { hidden: E, window: 32, ..SyntheticShape::tiny() };
    Arc::new(Codec::new(synthetic::model(&shape, 3)).unwrap())
}

/// The same with side indices.
fn sided() -> Arc<Codec> {
    let shape = SyntheticShape { hidden: E, window: 32, ..SyntheticShape::with_side() };
    Arc::new(Codec::new(synthetic::model(&shape, 3)).unwrap())
}

const E: usize = 48;

/// The side indices of the next frames, if the model takes any: in turn known and sent.
fn set_side(encoder: &mut Encoder, frames: usize) {
    if encoder.codec().model().side().is_some() {
        let delivery = if encoder.next_index() % 2 == 0 { SideDelivery::Known } else { SideDelivery::Sent };
        let first = encoder.next_index();
        encoder.set_side(&indices(first, frames), delivery).unwrap();
    }
}

fn indices(first: u64, count: usize) -> Vec<u32> {
    (first..).take(count).map(|index| (index * 37 % 300) as u32).collect()
}

/// Answers what the decoder asks for.
fn answer(decoder: &mut Decoder, event: &DecoderEvent) {
    if let DecoderEvent::SideWanted { index, count } = *event {
        decoder.give_side(&indices(index, count)).unwrap();
    }
}

fn frames(count: usize, seed: u64) -> Vec<i16> {
    synthetic::inputs(E, count, 6, seed)
}

/// The events until more input is needed.
fn drain(decoder: &mut Decoder) -> Result<Vec<DecoderEvent>, Error> {
    let mut events = Vec::new();
    while let DecoderPoll::Event(event) = decoder.poll()? {
        answer(decoder, &event);
        events.push(event);
    }
    Ok(events)
}

fn config() -> EncoderConfig {
    EncoderConfig::new(Identity::none())
}

/// A stream that declares the largest values that the format allows.
fn far_reaching(mode: Mode) -> EncoderConfig {
    config()
        .mode(mode)
        .max_frames_per_chunk(Limits::FORMAT.max_frames)
        .max_chunk_bytes(Limits::FORMAT.max_chunk_bytes)
        .max_rewind(Limits::FORMAT.max_rewind)
        .target_horizon(1 << 14)
        .memory_limit(usize::MAX)
}

#[test]
fn a_header_alone_sets_little_aside() {
    let codec = codec();
    for mode in [Mode::Joined, Mode::Layered] {
        let (encoder, held, peak) = measured(|| Encoder::new(codec.clone(), far_reaching(mode)).unwrap());
        assert!(held < 4_000 && peak < 8_000, "an encoder holds {held} bytes at first, {peak} at most");
        let mut encoder = encoder;
        let header = encoder.take_bytes().unwrap();
        // A decoder that accepts everything that the format allows, with a small memory limit.
        let config = DecoderConfig::default().limits(Limits::FORMAT).memory_limit(1 << 20);
        let mut decoder = Decoder::new(codec.clone(), config).unwrap();
        let (events, held, peak) = measured(|| {
            decoder.push(&header).unwrap();
            drain(&mut decoder).unwrap().len()
        });
        assert_eq!(events, 1);
        assert!(held < 4_000 && peak < 8_000, "a header of {} bytes sets {held} aside, {peak} at most", header.len());
        // It decodes the stream as long as its frames fit, and then says what to do.
        for at in 0..100 {
            encoder.push_y(&frames(1, at)).unwrap();
            decoder.push(&encoder.take_bytes().unwrap()).unwrap();
            drain(&mut decoder).unwrap();
        }
        assert_eq!(decoder.next_index(), 100);
        let refused = (0..10_000).find_map(|at| {
            encoder.push_y(&frames(16, at)).unwrap();
            decoder.push(&encoder.take_bytes().unwrap()).unwrap();
            drain(&mut decoder).err()
        });
        let refused = refused.unwrap();
        assert_eq!(refused.kind(), ErrorKind::MemoryLimit);
        assert!(
            refused.offset() > header.len() as u64 && refused.to_string().contains("raise DecoderConfig::memory_limit")
        );
        assert!(decoder.memory_bytes() <= (1 << 20) + 4_096, "{}", decoder.memory_bytes());
    }
}

#[test]
fn memory_grows_with_frames() {
    let codec = codec();
    let encoder_config = config().max_rewind(10_000).checkpoint_interval(0);
    let decoder_config = DecoderConfig::default().limits(Limits::default().max_rewind(10_000)).memory_limit(usize::MAX);
    let mut encoder = Encoder::new(codec.clone(), encoder_config).unwrap();
    let mut decoder = Decoder::new(codec, decoder_config).unwrap();
    let mut sizes = Vec::new();
    let mut at = 0;
    for frames_so_far in [10, 100, 1_000, 10_000, 20_000, 30_000] {
        while at < frames_so_far {
            encoder.push_y(&frames(10, at)).unwrap();
            decoder.push(&encoder.take_bytes().unwrap()).unwrap();
            drain(&mut decoder).unwrap();
            at += 10;
        }
        sizes.push((encoder.memory_bytes(), decoder.memory_bytes()));
    }
    for size in [|pair: &(usize, usize)| pair.0, |pair: &(usize, usize)| pair.1] {
        let sizes: Vec<usize> = sizes.iter().map(size).collect();
        assert!(sizes[0] * 30 < sizes[3] && sizes[1] * 10 < sizes[3] && sizes[2] * 3 < sizes[3], "{sizes:?}");
        assert_eq!(sizes[4], sizes[5], "constant once a rewind's reach is full: {sizes:?}");
    }
}

#[test]
fn scratch_goes_back_after_a_large_chunk() {
    const LARGE: usize = 20_000;
    const KEPT: usize = 2 << 20;
    let codec = codec();
    let y = frames(LARGE, 1);
    for mode in [Mode::Joined, Mode::Layered] {
        let encoder_config = far_reaching(mode).max_chunk_bytes(1 << 28);
        let mut encoder = Encoder::new(codec.clone(), encoder_config.max_rewind(0)).unwrap();
        encoder.push_y(&y[..E]).unwrap();
        let (small, _) = (encoder.take_bytes().unwrap(), encoder.memory_bytes());
        let ((), _, peak) = measured(|| encoder.push_y(&y[..10_000 * E]).unwrap());
        assert!(peak > 8_000_000, "a large chunk takes {peak} bytes for a while");
        let large = encoder.take_bytes().unwrap();
        // Only the integers of the push are left, which `last_integers` returns.
        assert!(encoder.memory_bytes() < 10_000 * (2 * E + 2 * 6) + KEPT, "{}", encoder.memory_bytes());
        let (clone, held, _) = measured(|| encoder.clone());
        assert!(held <= clone.memory_bytes() + 1_000 && held < 10_000 * (2 * E + 2 * 6) + 500_000, "{held}");
        encoder.push_y(&y[..E]).unwrap();
        drop(encoder.take_bytes().unwrap());
        assert!(encoder.memory_bytes() < KEPT, "{}", encoder.memory_bytes());

        let config =
            DecoderConfig::default().limits(Limits::FORMAT).memory_limit(usize::MAX).frames_per_poll(usize::MAX);
        let mut decoder = Decoder::new(codec.clone(), config).unwrap();
        decoder.push(&small).unwrap();
        drain(&mut decoder).unwrap();
        let before = decoder.memory_bytes();
        let (events, _, peak) = measured(|| {
            decoder.push(&large).unwrap();
            drain(&mut decoder).unwrap()
        });
        assert!(events.len() >= 2 && peak > 8_000_000, "{peak}");
        drop(events);
        let after = decoder.memory_bytes();
        assert!(after < before + KEPT, "{mode:?}: {before} bytes before the large chunk, {after} after it");
        let (clone, held, _) = measured(|| decoder.clone());
        assert!(held <= clone.memory_bytes() + 1_000, "a clone holds {held} bytes");
    }
    // Many streams at once, then few.
    let mut streams = vec![Encoder::new(codec.clone(), config()).unwrap(); 600];
    let mut together = Together::default();
    let mut step = |together: &mut Together, count: usize| {
        let mut pushes: Vec<Push<'_>> =
            streams.iter_mut().take(count).map(|encoder| Push { encoder, input: Input::Y(&y[..4 * E]) }).collect();
        together.push(&mut pushes).into_iter().for_each(|outcome| outcome.unwrap());
        drop(pushes);
        streams.iter_mut().for_each(|encoder| drop(encoder.take_bytes().unwrap()));
    };
    step(&mut together, 600);
    let many = together.memory_bytes();
    step(&mut together, 2);
    let few = together.memory_bytes();
    assert!(many > 1 << 20 && few < many / 20, "{many} bytes for 600 streams, {few} for two afterwards");
}

/// Asserts that a session reports the memory that it holds, within 3 % and 1.5 KB of what the allocator counted since
/// `before`.
fn assert_counted(what: &str, before: isize, told: usize) {
    let held = (HELD.get() - before) as usize;
    let off = held.abs_diff(told);
    assert!(off * 100 < 3 * held + 150_000, "{what}: {told} bytes told, {held} held");
}

#[test]
fn memory_bytes_counts_everything() {
    let modes = [
        (Mode::Joined, Binding::ByteStream),
        (Mode::Joined, Binding::Message),
        (Mode::Layered, Binding::ByteStream),
        (Mode::Layered, Binding::Message),
    ];
    let codecs = [("without side indices", codec()), ("with side indices", sided())];
    for ((name, codec), (mode, binding)) in codecs.iter().flat_map(|codec| modes.map(|mode| (codec, mode))) {
        let what = |holder: &str| format!("{name}, {mode:?} {binding:?}: {holder}");
        let encoder_config = config().mode(mode).binding(binding).max_rewind(500).target_horizon(700);
        let before = HELD.get();
        let mut encoder = Encoder::new(codec.clone(), encoder_config).unwrap();
        assert_counted(&what("a new encoder"), before, encoder.memory_bytes());
        for at in 0..40 {
            let y = frames(if at % 3 == 0 { 20 } else { 21 }, at);
            set_side(&mut encoder, y.len() / E);
            assert_counted(&what("before a push"), before, encoder.memory_bytes() + y.capacity() * 2);
            encoder.push_y(&y).unwrap();
            drop(y);
            assert_counted(&what("output not taken"), before, encoder.memory_bytes());
        }
        let y = frames(256, 50);
        set_side(&mut encoder, 5_000);
        assert_counted(&what("side indices"), before, encoder.memory_bytes() + y.capacity() * 2);
        set_side(&mut encoder, 256);
        encoder.push_y(&y).unwrap();
        drop(y);
        assert_counted(&what("a large chunk"), before, encoder.memory_bytes());
        let clone = encoder.clone();
        drop(encoder);
        assert_counted(&what("a clone"), before, clone.memory_bytes());
        let mut encoder = clone;
        encoder.end().unwrap();
        let mut output: Vec<Vec<u8>> = Vec::new();
        match binding {
            Binding::ByteStream => output.extend(encoder.take_bytes().unwrap().chunks(1_000).map(<[u8]>::to_vec)),
            Binding::Message => output.extend(
                std::iter::from_fn(|| encoder.pop_message().unwrap()).map(|message| message.bytes).map(|m| m.to_vec()),
            ),
        }
        drop(encoder);

        let before = HELD.get();
        let decoder_config =
            DecoderConfig::default().binding(binding).limits(Limits::default().target_horizon(500)).frames_per_poll(10);
        let mut decoder = Decoder::new(codec.clone(), decoder_config).unwrap();
        assert_counted(&what("a new decoder"), before, decoder.memory_bytes());
        for piece in &output {
            match binding {
                Binding::ByteStream => decoder.push(piece).unwrap(),
                Binding::Message => decoder.push_message(piece).unwrap(),
            }
        }
        assert_counted(&what("input not polled"), before, decoder.memory_bytes());
        let mut working = 0;
        loop {
            match decoder.poll().unwrap() {
                DecoderPoll::Event(event) => {
                    answer(&mut decoder, &event);
                    working += usize::from(matches!(event, DecoderEvent::Working { .. }));
                }
                DecoderPoll::NeedMore | DecoderPoll::End => break,
            }
            assert_counted(&what("decoding"), before, decoder.memory_bytes());
        }
        assert!(working > 40, "{working}");
        assert_counted(&what("after the end"), before, decoder.memory_bytes());
        let clone = decoder.clone();
        drop(decoder);
        assert_counted(&what("a clone"), before, clone.memory_bytes());
    }
}

#[test]
fn chunks_that_wait_and_events_are_counted() {
    // Hyper-priors whose targets do not come: pending frames, then a chunk that waits.
    let codec = codec();
    let binding = Binding::Message;
    let mut encoder =
        Encoder::new(codec.clone(), config().mode(Mode::Layered).binding(binding).target_horizon(300)).unwrap();
    for at in 0..3 {
        encoder.push_y(&frames(200, at)).unwrap();
    }
    let messages: Vec<_> = std::iter::from_fn(|| encoder.pop_message().unwrap()).map(|message| message.bytes).collect();
    let is_target = |message: &[u8]| message.last() == Some(&0) && matches!(message[0], 0xc2 | 0xc3);
    let before = HELD.get();
    let mut decoder = Decoder::new(codec, DecoderConfig::default().binding(binding)).unwrap();
    let mut waited = 0;
    for message in messages.iter().filter(|message| !is_target(message)) {
        decoder.push_message(message).unwrap();
        while let DecoderPoll::Event(event) = decoder.poll().unwrap() {
            if let DecoderEvent::TargetsOverdue { index, count } = event {
                assert_counted("a chunk that waits", before, decoder.memory_bytes());
                assert!(decoder.memory_bytes() > 200 * 8 * E, "its frames' outputs are kept");
                decoder.conceal(index, count).unwrap();
                assert_counted("an event not polled", before, decoder.memory_bytes());
                waited += 1;
            }
        }
        assert_counted("pending frames", before, decoder.memory_bytes());
    }
    assert!(waited > 0);
}

#[test]
fn restore_checks_memory_first() {
    let codec = codec();
    let limits = Limits::default().max_rewind(2_000);
    // A session with a large context, and one with a chunk that waits.
    let mut encoder = Encoder::new(codec.clone(), config().max_rewind(2_000)).unwrap();
    for at in 0..20 {
        encoder.push_y(&frames(100, at)).unwrap();
    }
    let saved_encoder = encoder.save();
    let config = DecoderConfig::default().limits(limits);
    let mut large = Decoder::new(codec.clone(), config.clone()).unwrap();
    large.push(&encoder.take_bytes().unwrap()).unwrap();
    drain(&mut large).unwrap();

    let layered = self::config().mode(Mode::Layered).binding(Binding::Message).target_horizon(300);
    let mut encoder = Encoder::new(codec.clone(), layered).unwrap();
    encoder.push_y(&frames(200, 1)).unwrap();
    encoder.push_y(&frames(200, 2)).unwrap();
    let waiting_config = DecoderConfig::default().binding(Binding::Message);
    let mut waiting = Decoder::new(codec.clone(), waiting_config.clone()).unwrap();
    for message in std::iter::from_fn(|| encoder.pop_message().unwrap())
        .map(|message| message.bytes)
        .filter(|message| !matches!(message[0], 0xc2 | 0xc3))
    {
        waiting.push_message(&message).unwrap();
    }
    let events = drain(&mut waiting).map_err(|error| error.kind());
    assert!(matches!(events, Err(ErrorKind::TargetOverdue)), "{events:?}");

    // One that waits for side indices.
    let sided = sided();
    let mut encoder = Encoder::new(sided.clone(), self::config()).unwrap();
    encoder.set_side(&indices(0, 200), SideDelivery::Known).unwrap();
    encoder.push_y(&frames(200, 1)).unwrap();
    let mut asking = Decoder::new(sided.clone(), DecoderConfig::default()).unwrap();
    asking.push(&encoder.take_bytes().unwrap()).unwrap();
    while let DecoderPoll::Event(_) = asking.poll().unwrap() {}
    assert_eq!(asking.wanted_side(), Some((0, 200)));

    for (name, codec, session, config) in [
        ("large", &codec, &large, config),
        ("waiting", &codec, &waiting, waiting_config),
        ("asking", &sided, &asking, DecoderConfig::default()),
    ] {
        let saved = session.save().unwrap();
        let restore = |memory_limit: usize| {
            let config = config.clone().memory_limit(memory_limit);
            let (outcome, _, peak) = measured(|| Decoder::restore(codec.clone(), &[], config, &saved).map(drop));
            (outcome.map_err(|error| error.kind()), peak)
        };
        assert_eq!(restore(64 << 20).0, Ok(()), "{name}");
        let (refused, peak) = restore(1_000);
        assert_eq!(refused, Err(ErrorKind::MemoryLimit), "{name}");
        assert!(peak < 4_000, "{name}: {peak} bytes set aside before a refusal, of {} saved", saved.len());
        // A limit that is just too small: the saved bytes fit, but not the session that they restore.
        let (mut low, mut high) = (1_000, 64 << 20);
        while high - low > 1 {
            let middle = (low + high) / 2;
            *if restore(middle).0.is_ok() { &mut high } else { &mut low } = middle;
        }
        let (refused, peak) = restore(low);
        assert_eq!(refused, Err(ErrorKind::MemoryLimit), "{name}");
        assert!(peak < high + saved.len(), "{name}: {peak} bytes under a limit of {low}");
        // If it fits, it is decoded within the limit, including a waiting chunk.
        let ((), _, peak) = measured(|| {
            let config = config.clone().memory_limit(high);
            let mut restored = Decoder::restore(codec.clone(), &[], config, &saved).unwrap();
            if let Some(oldest) = restored.oldest_pending() {
                restored.conceal(oldest, 100).unwrap();
            }
            if let Some((index, count)) = restored.wanted_side() {
                restored.give_side(&indices(index, count)).unwrap();
            }
            drain(&mut restored).unwrap();
            assert_eq!(restored.next_index(), session.next_index() + if name == "large" { 0 } else { 200 });
        });
        assert!(peak < high + 20_000, "{name}: {peak} bytes under a limit of {high}");
        // The restored rings are as long as necessary; those of the session are up to twice as long.
        assert!(2 * high >= session.memory_bytes(), "{name}: {high} for {}", session.memory_bytes());
    }
    let (refused, _, peak) = measured(|| Encoder::restore(codec.clone(), &saved_encoder, 10_000).map(drop));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::MemoryLimit);
    assert!(peak < 4_000, "{peak}");
    assert!(Encoder::restore(codec, &saved_encoder, 64 << 20).is_ok());
}

#[test]
fn an_encoder_has_a_memory_limit() {
    let codec = codec();
    let open = |config: EncoderConfig| Encoder::new(codec.clone(), config).map_err(|error| error.kind());
    let small = config().memory_limit(300_000);
    assert_eq!(open(small.clone().max_rewind(1 << 20)).err(), Some(ErrorKind::MemoryLimit));
    let mut encoder = open(small).unwrap();
    encoder.push_y(&frames(1, 1)).unwrap();
    // A push that is too large is refused completely, and changes nothing.
    let y = frames(5_000, 2);
    let mut other = encoder.clone();
    let (refused, _, peak) = measured(|| encoder.push_y(&y).unwrap_err());
    assert_eq!(refused.kind(), ErrorKind::MemoryLimit);
    assert!(peak < 1_000, "{peak}");
    // If nobody takes the output, calls are refused at some point; they succeed again after the output was taken.
    let refused = (0..10_000).find_map(|_| encoder.push_y(&y[..E]).err()).unwrap();
    assert_eq!(refused.kind(), ErrorKind::MemoryLimit);
    assert!(encoder.memory_bytes() < 300_000);
    let mut bytes = encoder.take_bytes().unwrap().to_vec();
    encoder.push_y(&y[..E]).unwrap();
    bytes.extend(encoder.take_bytes().unwrap());
    let mut all = Vec::new();
    while all.len() < bytes.len() {
        if !all.is_empty() {
            other.push_y(&y[..E]).unwrap();
        }
        all.extend(other.take_bytes().unwrap());
    }
    assert_eq!(all, bytes);
}

/// The same limit for hidden states from an application, and for a model switch.
#[test]
fn hidden_states_and_models_are_judged_before_anything_is_set_aside() {
    let codec = codec();
    let mut encoder = Encoder::new(codec.clone(), config().memory_limit(300_000)).unwrap();
    let hidden = vec![0.0; 5_000 * E];
    let (refused, _, peak) = measured(|| encoder.push_hidden(&hidden).unwrap_err());
    assert_eq!(refused.kind(), ErrorKind::MemoryLimit);
    assert!(peak < 1_000, "{peak}");
    // A model whose contexts may need more memory.
    let shape = SyntheticShape { hidden: 10 * E, window: 256, ..SyntheticShape::tiny() };
    let wide = Arc::new(Codec::new(synthetic::model(&shape, 3)).unwrap());
    let mut other = encoder.clone();
    let (refused, _, peak) = measured(|| encoder.switch_model(wide, 0).unwrap_err());
    assert_eq!(refused.kind(), ErrorKind::MemoryLimit);
    assert!(refused.to_string().contains("contexts") && peak < 1_000, "{refused} {peak}");
    for encoder in [&mut encoder, &mut other] {
        encoder.push_y(&frames(1, 1)).unwrap();
    }
    assert_eq!(encoder.take_bytes(), other.take_bytes());
}

/// A model without an encoder's part, whose integers may have any value. Its hyper-prior is wider than the hidden
/// state, so that output takes more memory than the integers of Y.
fn wide() -> Arc<Codec> {
    let shape = SyntheticShape { hidden: 16, hyper_prior: 64, qualities: 1, ..SyntheticShape::tiny() };
    let mut parts = synthetic::parts(&shape, synthetic::Style::Sensible, 3);
    (parts.w_range, parts.y_range, parts.encoder) = ((-32_767, 32_767), (-32_767, 32_767), None);
    Arc::new(Codec::new(CodecModel::new(parts).unwrap()).unwrap())
}

/// A narrow model with side indices, which take a large part of its memory.
fn narrow() -> Arc<Codec> {
    let shape = SyntheticShape { hidden: 16, qualities: 1, side: [16, 4_096, 1], ..SyntheticShape::tiny() };
    Arc::new(Codec::new(synthetic::model(&shape, 3)).unwrap())
}

/// Calls stay within the smallest limit that accepts them, with output of maximum length, queue places of messages,
/// parts of targets, and the hidden state of an exact frame.
#[test]
fn what_fits_the_memory_limit_stays_within_it() {
    let (codec, wide) = (codec(), wide());
    // No value that a model predicts, and no frame equal to the previous one.
    let worst = |count: usize| -> Vec<i16> {
        (0..count).map(|i| if (i * i / 7 + i) % 3 == 0 { 32_767 - (i % 9) as i16 } else { -32_767 }).collect()
    };
    let (w, y, zeros) = (worst(2_100 * 64), worst(2_100 * 16), vec![0; 2_000 * E]);
    let exact: Vec<u8> = [0x41; 4 * E].to_vec();
    let layered = || config().mode(Mode::Layered);
    let short = || config().max_frames_per_chunk(16);
    let parts = || layered().datagram_limit(Some(256));
    type Call<'a> = Box<dyn Fn(&mut Encoder) -> Result<(), Error> + 'a>;
    let push = |times: usize, frames: usize| -> Call<'_> {
        let (y, w) = (&y[..16 * frames], &w[..64 * frames]);
        Box::new(move |encoder| (0..times).try_for_each(|_| encoder.push_integers(y, w)))
    };
    let small = |times: usize| -> Call<'_> {
        let y = &zeros[..E];
        Box::new(move |encoder| (0..times).try_for_each(|_| encoder.push_y(y)))
    };
    let each = config().max_frames_per_chunk(1).checkpoint_interval(1);
    let mut calls: Vec<(String, EncoderConfig, Arc<Codec>, Call<'_>)> = vec![
        ("chunks of one frame".into(), each, codec.clone(), Box::new(|encoder| encoder.push_y(&zeros))),
        ("single frames".into(), layered(), codec.clone(), small(2_000)),
        ("an exact frame".into(), config(), codec.clone(), Box::new(|encoder| encoder.push_exact(Dtype::F32, &exact))),
        ("an extension".into(), config(), codec.clone(), Box::new(|encoder| encoder.extension(2, &[7; 100_000]))),
        ("extensions".into(), config(), codec.clone(), Box::new(|e| (0..2_000).try_for_each(|_| e.extension(2, b"x")))),
    ];
    for (name, config) in [("joined", config()), ("layered", layered()), ("parts", parts()), ("short", short())] {
        for (times, frames) in [(1, 700), (1, 2_100), (40, 50), (300, 1)] {
            let name = format!("{name}, {times} times {frames} frames");
            calls.push((name, config.clone(), wide.clone(), push(times, frames)));
        }
    }
    let narrow = narrow();
    for (name, config) in [("joined", config()), ("layered", layered()), ("parts", parts()), ("short", short())] {
        for (delivery, times, frames) in [
            (SideDelivery::Known, 1, 2_100),
            (SideDelivery::Sent, 1, 2_100),
            (SideDelivery::Sent, 40, 50),
            (SideDelivery::Sent, 300, 1),
        ] {
            let name = format!("{name}, {delivery:?} side indices, {times} times {frames} frames");
            let zeros = &zeros;
            let call: Call<'_> = Box::new(move |encoder| {
                (0..times).try_for_each(|at| {
                    // Those of a wide range take the most bytes.
                    let side: Vec<u32> = (0..frames).map(|i| (i * 1_021 + at * 37) as u32 % 4_097).collect();
                    encoder.set_side(&side, delivery)?;
                    encoder.push_y(&zeros[..16 * frames])
                })
            });
            calls.push((name, config.clone(), narrow.clone(), call));
        }
    }
    for binding in [Binding::ByteStream, Binding::Message] {
        for (name, config, codec, call) in &calls {
            let run = |memory_limit: usize| {
                let config = config.clone().binding(binding).memory_limit(memory_limit).max_rewind(0);
                measured(|| {
                    let mut encoder = Encoder::new(codec.clone(), config)?;
                    call(&mut encoder).map(|()| (encoder.memory_bytes(), encoder))
                })
            };
            let most = smallest_limit(|limit| run(limit).0.is_ok());
            let (outcome, held, peak) = run(most);
            let told = outcome.unwrap().0;
            assert!(peak <= most, "{name}, {binding:?}: {peak} bytes under a limit of {most}");
            assert!(held <= told + 1_000, "{name}, {binding:?}: {held} bytes held, {told} told");
        }
    }
}

#[test]
fn thousands_of_small_messages_are_counted() {
    let limit = 4 << 20;
    let codec = Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), 14)).unwrap());
    let y = vec![0; codec.model().hidden_width()];
    let before = HELD.get();
    let held = || (HELD.get() - before) as usize;
    let layered = config().mode(Mode::Layered).binding(Binding::Message).memory_limit(limit);
    let mut encoder = Encoder::new(codec, layered).unwrap();
    let (pushes, _, peak) = measured(|| (0..1_000_000).take_while(|_| encoder.push_y(&y).is_ok()).count());
    assert!(pushes > 5_000, "{pushes}");
    let told = encoder.memory_bytes();
    assert!(held() <= told + 1_000 && told <= limit && told * 2 < held() * 3, "{} bytes held, {told} told", held());
    assert!(peak <= limit, "{peak}");
    // A clone shares the messages, which takes a little more memory.
    let clone = encoder.clone();
    drop(encoder);
    assert!(held() <= clone.memory_bytes() + 1_000, "{} bytes held, {} told", held(), clone.memory_bytes());
    drop(clone);
    // A reader's messages.
    let mut reader = Reader::new(ReaderConfig::default().binding(Binding::Message));
    (0..20_000).for_each(|_| reader.push_message(&[1, 2, 3]).unwrap());
    let clone = reader.clone();
    drop(reader);
    assert!(held() <= clone.memory_bytes() + 1_000, "{} bytes held, {} told", held(), clone.memory_bytes());
}

#[test]
fn early_targets_give_their_places_back() {
    let codec = Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), 14)).unwrap());
    let y = vec![0; codec.model().hidden_width()];
    let layered = config().mode(Mode::Layered).binding(Binding::Message);
    let mut encoder = Encoder::new(codec.clone(), layered).unwrap();
    encoder.push_y(&y).unwrap();
    (0..3).for_each(|_| encoder.reset().unwrap());
    let messages: Vec<_> = std::iter::from_fn(|| encoder.pop_message().unwrap()).collect();
    let (resets, first): (Vec<_>, Vec<_>) = messages.iter().partition(|message| message.bytes[0] == 0xC5);
    assert_eq!((first.len(), resets.len()), (3, 3));

    let before = HELD.get();
    let config = DecoderConfig::default().binding(Binding::Message);
    let mut decoder = Decoder::new(codec, config).unwrap();
    for message in first {
        decoder.push_message(&message.bytes).unwrap();
    }
    drop(drain(&mut decoder).unwrap());
    let small = decoder.memory_bytes();
    for element in 0..4_096 {
        let mut body = BytesMut::new();
        let seed = Identity::none().seed();
        Target::encode_part(100, 1, seed, element..element + 1, &[7], &mut body).unwrap();
        decoder.push_datagram(&[&[0xC2], &body[..], &[0]].concat()).unwrap();
        drop((drain(&mut decoder).unwrap(), body));
        if element % 500 == 0 {
            let held = (HELD.get() - before) as usize;
            assert!(held <= decoder.memory_bytes() + 1_000, "{held} held, {} told", decoder.memory_bytes());
        }
    }
    let early = decoder.memory_bytes() - small;
    assert!(early > 4_096 * 100, "{early}");
    // All of them are late, and their places are released.
    for message in resets {
        decoder.push_message(&message.bytes).unwrap();
    }
    let late = drain(&mut decoder).unwrap().len();
    assert!(late > 4_096, "{late}");
    let held = (HELD.get() - before) as usize;
    assert!(held <= decoder.memory_bytes() + 1_000, "{held} held, {} told", decoder.memory_bytes());
    assert!(decoder.memory_bytes() < small + 40_000, "{} bytes told, {small} at first", decoder.memory_bytes());
}

#[test]
fn control_calls_keep_the_memory_limit() {
    const LIMIT: usize = 300_000;
    let codec = codec();
    type Call = fn(&mut Encoder) -> Result<(), Error>;
    let calls: [(&str, Call); 6] = [
        ("extension", |encoder| encoder.extension(2, &[])),
        ("checkpoint", Encoder::checkpoint),
        ("reset", Encoder::reset),
        ("rewind", |encoder| encoder.rewind(1)),
        ("set_quality", |encoder| encoder.set_quality(0)),
        ("switch_model", |encoder| encoder.switch_model(Arc::clone(encoder.engine()), 0)),
    ];
    for (binding, file) in [(Binding::ByteStream, false), (Binding::ByteStream, true), (Binding::Message, false)] {
        let output = |encoder: &mut Encoder| match binding {
            Binding::ByteStream => encoder.take_bytes().unwrap().to_vec(),
            Binding::Message => std::iter::from_fn(|| encoder.pop_message().unwrap())
                .flat_map(|message| message.bytes.to_vec())
                .collect(),
        };
        let config = config().binding(binding).file(file).memory_limit(LIMIT);
        let (full, _, peak) = measured(|| {
            let mut encoder = Encoder::new(codec.clone(), config).unwrap();
            encoder.push_y(&frames(2, 1)).unwrap();
            let refused = encoder.extension(2, &[7; LIMIT / 6]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::MemoryLimit, "each byte is held more than once for a while");
            let refused = (0..200_000).find_map(|_| encoder.extension(2, &[]).err()).unwrap();
            assert_eq!(refused.kind(), ErrorKind::MemoryLimit);
            encoder
        });
        assert!(peak <= LIMIT + 1_000 && full.memory_bytes() <= LIMIT, "{binding:?}: {peak}");
        for (name, call) in calls {
            // A refused call changes nothing. It succeeds after the output was taken.
            let (mut encoder, mut other) = (full.clone(), full.clone());
            assert_eq!(call(&mut encoder).map_err(|error| error.kind()), Err(ErrorKind::MemoryLimit), "{name}");
            assert_eq!(output(&mut encoder), output(&mut other), "{name}");
            for encoder in [&mut encoder, &mut other] {
                call(encoder).unwrap();
                encoder.push_y(&frames(1, 2)).unwrap();
            }
            assert_eq!(output(&mut encoder), output(&mut other), "{name}");
        }
        // The end is written even if the limit is reached.
        let mut ended = full;
        ended.end().unwrap();
        for (name, call) in calls {
            assert_eq!(call(&mut ended).map_err(|error| error.kind()), Err(ErrorKind::AfterEnd), "{name}");
        }
        if binding == Binding::ByteStream {
            let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default()).unwrap();
            decoder.push(&output(&mut ended)).unwrap();
            while !matches!(decoder.poll().unwrap(), DecoderPoll::End) {}
        }
    }
}

#[test]
fn a_model_file_takes_no_more_than_its_bound() {
    let file = |json: &str, data: usize| {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    };
    let many = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join(",");
    let shape = many(100_000, &|_| "1".into());
    let tensor = |name: usize| format!(r#""{name}":{{"dtype":"U8","shape":[],"data_offsets":[0,0]}}"#);
    let headers = [
        // Shapes of a hundred thousand dimensions.
        file(&format!(r#"{{"a":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,1]}}}}"#), 1),
        file(&format!(r#"{{"a":{{"dtype":"U8","shape":[{shape}],"shape":[{shape}],"data_offsets":[0,1]}}}}"#), 1),
        // Many tensors, many lines of metadata, many empty names, nested values.
        file(&format!("{{{}}}", many(5_000, &tensor)), 0),
        file(&format!(r#"{{"__metadata__":{{{}}}}}"#, many(20_000, &|i| format!(r#""{i}":"""#))), 0),
        file(&format!("{{{}}}", many(50_000, &|i| format!(r#""{i}":0"#))), 0),
        file(&format!(r#"{{"a":[{}]}}"#, many(50_000, &|_| "[]".into())), 0),
        file(&format!(r#"{{"a":[{}]}}"#, many(50_000, &|_| "{}".into())), 0),
        // Just above a length at which a list doubles.
        file(&format!(r#"{{"a":[{}]}}"#, many((1 << 15) + 1, &|_| "0".into())), 0),
        file(&format!(r#"{{"a":[{}]}}"#, many((1 << 15) + 1, &|_| "[0]".into())), 0),
        file(&format!(r#"{{"a":[{}]}}"#, many((1 << 15) + 1, &|_| r#"{"":0}"#.into())), 0),
        file(&format!("{{{}}}", many((1 << 13) + 1, &|i| format!(r#""{i}":[0]"#))), 0),
        file(&format!("{{{}}}", many((1 << 12) + 1, &tensor)), 0),
        file(&format!(r#"{{"__metadata__":{{{}}}}}"#, many((1 << 14) + 1, &|i| format!(r#""{i}":"""#))), 0),
        file(&format!(r#"{{"a":{}{}}}"#, "[".repeat(100), "]".repeat(100)), 0),
        file(&format!(r#"{{"a":"{}"}}"#, "x".repeat(200_000)), 0),
        file(&format!(r#"{{"a":"{}"}}"#, r"\u0041".repeat(30_000)), 0),
        synthetic::model(&SyntheticShape::tiny(), 3).to_bytes()[..8].to_vec(),
    ];
    for (i, bytes) in headers.iter().enumerate() {
        // The smallest limit that does not refuse the file for its size.
        let read = |limit: usize| measured(|| CodecModel::from_bytes(bytes, limit).map(drop));
        let refused = |limit: usize| {
            read(limit).0 == Err(Error::new(ErrorKind::MemoryLimit, 0).with_detail("the model file is too large"))
        };
        let (mut low, mut high) = (0, 1 << 30);
        while high - low > 1 {
            let middle = (low + high) / 2;
            *if refused(middle) { &mut low } else { &mut high } = middle;
        }
        let (outcome, _, peak) = read(high);
        assert!(outcome.is_err(), "no model");
        assert!(bytes.len() + peak <= high, "{i}: {} bytes, {peak} beside them, {high} in all", bytes.len());
        assert!(read(low).2 < 100, "{i}: nothing is set aside for what is refused");
    }
    // Sixteen times the header would not be enough.
    let peak = measured(|| CodecModel::from_bytes(&headers[0], 1 << 30).map(drop)).2;
    assert!(peak > 16 * headers[0].len(), "{peak}");
}
