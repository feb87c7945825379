//! Modes of frames in sessions: plain and repeated runs, and what a frame costs at most (spec 3.5, 3.6).
#![cfg(feature = "codec")]

mod entropy_support;

use std::sync::Arc;

use midspan::adapter::Threads;
use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, TargetRefusal};
use midspan::entropy::max_payload_len;
use midspan::error::{Error, ErrorKind};
use midspan::model::synthetic::{self, Random, Style, SyntheticShape};
use midspan::model::{CodecModel, Tables};
use midspan::stream::{Binding, Chunk, Poll, Reader, ReaderConfig, Writer};
use midspan::wire::lanes::lane_frames;
use midspan::wire::{CheckWidth, Dtype, Identity, Mode, StreamHeader};
use proptest::prelude::*;

/// A model without an encoder's part, with any ranges that spec 4.1 allows.
fn model(shape: &SyntheticShape, seed: u64, w_range: (i16, i16), y_range: (i16, i16)) -> Arc<Codec> {
    let mut parts = synthetic::parts(shape, Style::Sensible, seed);
    (parts.w_range, parts.y_range, parts.encoder) = (w_range, y_range, None);
    let mut random = Random::new(seed);
    let mut tables = Tables::default();
    for _ in 0..shape.qualities * shape.hyper_prior {
        // Some values around 0, and on each side an escape that is likely or nearly impossible.
        let first = i32::from(w_range.0).max(-random.within(0, 9));
        let size = i32::from(w_range.1).min(random.within(0, 9)) - first + 1;
        let mut boundary = random.within(1, 9_000);
        tables.first.push(first);
        tables.size.push(size as u16);
        for _ in 0..=size {
            tables.boundaries.push(boundary as u16);
            boundary += random.within(1, 2_600);
        }
    }
    parts.hyper_prior = tables;
    Arc::new(Codec::new(CodecModel::new(parts).unwrap()).unwrap())
}

/// Values of frames, `[frames, width]`, of every kind: near 0, anywhere, at the ends of the range, and equal to the
/// previous frame.
fn values(random: &mut Random, frames: usize, width: usize, (low, high): (i16, i16)) -> Vec<i16> {
    let mut all: Vec<i16> = Vec::new();
    for frame in 0..frames {
        match random.within(0, 5) {
            0 | 1 if frame > 0 => all.extend_from_within((frame - 1) * width..),
            2 => all.extend((0..width).map(|_| random.within(low.into(), high.into()) as i16)),
            3 => all.extend((0..width).map(|_| [low, high][random.within(0, 1) as usize])),
            _ => all.extend((0..width).map(|_| random.within(low.max(-3).into(), high.min(3).into()) as i16)),
        }
    }
    all
}

/// The payloads of a byte stream: the length of each, its number of frames, and the number of values in a frame.
fn payloads(bytes: &[u8], codec: &Codec, layered: bool) -> Vec<(usize, u64, u64)> {
    let (width, channels) = (codec.model().hidden_width() as u64, codec.model().hyper_prior_width() as u64);
    let first = if layered { channels } else { channels + width };
    let mut reader = Reader::new(ReaderConfig::default());
    reader.push(bytes).unwrap();
    reader.finish();
    let mut all = Vec::new();
    while let Poll::Event(event) = reader.poll().unwrap() {
        let (lanes, frames, values) = match event.chunk {
            Chunk::Frame { payload, .. } => (vec![payload], 1, first),
            Chunk::ExactFrame { payload, .. } => (vec![payload], 1, channels + width),
            Chunk::Batch { lanes, frames, .. } => (lanes, frames, first),
            Chunk::Target { lanes, frames, .. } => (lanes, frames, width),
            _ => continue,
        };
        let count = lanes.len() as u32;
        for (lane, payload) in (0..).zip(lanes) {
            all.push((payload.bytes.len(), lane_frames(lane, frames, count).len() as u64, values));
        }
    }
    all
}

/// W and Y of a byte stream whose targets come in order.
fn decode(codec: &Arc<Codec>, bytes: &[u8]) -> Result<(Vec<i16>, Vec<i16>), Error> {
    let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default())?;
    decoder.push(bytes)?;
    decoder.finish();
    let (mut w, mut y) = (Vec::new(), Vec::new());
    loop {
        match decoder.poll()? {
            DecoderPoll::Event(DecoderEvent::Frames(frames)) => {
                let integers = frames.integers.unwrap();
                w.extend(integers.w);
                y.extend(integers.y);
            }
            DecoderPoll::Event(DecoderEvent::ExactFrame(exact)) => {
                let integers = exact.frame.integers.unwrap();
                w.extend(integers.w);
                y.extend(integers.y);
            }
            DecoderPoll::Event(DecoderEvent::HyperPrior(hyper_prior)) => w.extend(hyper_prior.w),
            DecoderPoll::Event(DecoderEvent::Targets(targets)) => y.extend(targets.y),
            DecoderPoll::Event(_) => {}
            DecoderPoll::NeedMore | DecoderPoll::End => return Ok((w, y)),
        }
    }
}

fn config(mode: Mode, lanes: u16) -> EncoderConfig {
    EncoderConfig::new(Identity::none()).mode(mode).lanes(lanes).checkpoint_interval(0)
}

fn encode(codec: &Arc<Codec>, config: EncoderConfig, w: &[i16], y: &[i16], batch: usize) -> Vec<u8> {
    let (width, channels) = (codec.model().hidden_width(), codec.model().hyper_prior_width());
    let mut encoder = Encoder::new(codec.clone(), config).unwrap();
    encoder.set_executor(Arc::new(Threads::new(2)));
    for (w, y) in w.chunks(batch * channels).zip(y.chunks(batch * width)) {
        encoder.push_integers(y, w).unwrap();
    }
    encoder.end().unwrap();
    encoder.take_bytes().unwrap().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_frame_costs_more_than_the_bound(
        seed: u64,
        w_range in prop_oneof![Just((-32_767, 32_767)), Just((0, 1)), Just((-1, 0)), (-40_i16..=0, 1_i16..3_000)],
        y_range in prop_oneof![Just((-32_767, 32_767)), Just((0, 1)), Just((-1, 0)), (-3_000_i16..=0, 1_i16..40)],
        count in 1..30_usize,
        batch in 1..30_usize,
        lanes in 1..6_u16,
        layered: bool,
    ) {
        let mut random = Random::new(seed);
        let shape = SyntheticShape::random(&mut random);
        let codec = model(&shape, seed, w_range, y_range);
        let w = values(&mut random, count, shape.hyper_prior, w_range);
        let y = values(&mut random, count, shape.hidden, y_range);
        let mode = if layered { Mode::Layered } else { Mode::Joined };
        let bytes = encode(&codec, config(mode, lanes), &w, &y, batch);
        for (length, frames, values) in payloads(&bytes, &codec, layered) {
            prop_assert!(length as u64 <= max_payload_len(frames, values), "{} bytes, {} frames", length, frames);
        }
        let decoded = decode(&codec, &bytes);
        prop_assert!(decoded == Ok((w, y)), "{:?}", decoded.err());
    }
}

/// Frames in blocks of four: one that the model never saw, and three equal to it.
fn four_alike(width: usize, range: i16) -> Vec<i16> {
    let mut random = Random::new(9);
    let blocks = (0..6).map(|_| (0..width).map(|_| random.within((-range).into(), range.into()) as i16).collect());
    blocks.flat_map(|block: Vec<i16>| [block.clone(), block.clone(), block.clone(), block].concat()).collect()
}

/// 24 frames in one chunk and in chunks of one, joined and layered, with one lane and with three.
#[test]
fn plain_and_repeat_round_trip() {
    let codec = model(&SyntheticShape::tiny(), 3, (-64, 64), (-2_000, 2_000));
    let (width, channels) = (codec.model().hidden_width(), codec.model().hyper_prior_width());
    let (w, y) = (four_alike(channels, 64), four_alike(width, 2_000));
    for mode in [Mode::Joined, Mode::Layered] {
        let mut sizes = Vec::new();
        for (batch, lanes) in [(1, 1), (24, 1), (24, 3), (24, 6), (24, 24)] {
            let bytes = encode(&codec, config(mode, lanes), &w, &y, batch);
            assert!(decode(&codec, &bytes) == Ok((w.clone(), y.clone())), "{mode:?}, {batch} a chunk, {lanes} lanes");
            sizes.push(payloads(&bytes, &codec, mode == Mode::Layered).iter().map(|(length, _, _)| length).sum());
        }
        // A plain frame costs 12 bits a value of Y and 7 of W, less than coding with the model. In separate payloads
        // all frames are plain. In a common payload three of four frames repeat and cost almost nothing.
        let plain = (12 * width + 7 * channels) / 8;
        let (alone, together) = (24 * plain..24 * (plain + 6), 6 * plain..6 * (plain + 10));
        let [one, batch, three, six, each]: [usize; 5] = sizes.try_into().unwrap();
        assert!(alone.contains(&one) && alone.contains(&each), "{mode:?}: {one} and {each} bytes");
        for size in [batch, three, six] {
            assert!(together.contains(&size), "{mode:?}: {size} bytes");
        }
    }
}

#[test]
fn exact_frames_may_be_plain() {
    let codec = Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), 5)).unwrap());
    let width = codec.model().hidden_width();
    for mode in [Mode::Joined, Mode::Layered] {
        let mut encoder = Encoder::new(codec.clone(), config(mode, 1)).unwrap();
        let hidden: Vec<u8> = (0..width).flat_map(|i| [9e4_f32, -9e4][i % 2].to_le_bytes()).collect();
        encoder.push_exact(Dtype::F32, &hidden).unwrap();
        let (w, y) = (encoder.last_integers().unwrap().w.clone(), encoder.last_integers().unwrap().y.clone());
        encoder.end().unwrap();
        let bytes = encoder.take_bytes().unwrap();
        let [(length, 1, _)] = payloads(&bytes, &codec, false)[..] else { panic!() };
        assert!((12 * width / 8..14 * width / 8 + 10).contains(&length), "{length}");
        assert_eq!(decode(&codec, &bytes), Ok((w, y)));
    }
}

/// Payloads take as many bits as the tables say, modes included. Each is sealed to whole bytes. That adds less than a
/// byte, or saves something if the interval happens to contain a short string: here one byte of 500, and part of
/// another. Modes are chosen by the coder's state and not by the tables' logarithms, which costs at most five bits in
/// 40 frames.
#[test]
fn the_cost_counts_modes() {
    let codec = model(&SyntheticShape::tiny(), 3, (-64, 64), (-2_000, 2_000));
    let (width, channels) = (codec.model().hidden_width(), codec.model().hyper_prior_width());
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let w = values(&mut random, 40, channels, (-64, 64));
        let y = values(&mut random, 40, width, (-2_000, 2_000));
        for lanes in [1, 3] {
            let mut encoder = Encoder::new(codec.clone(), config(Mode::Joined, lanes)).unwrap();
            encoder.track_cost(true);
            encoder.push_integers(&y, &w).unwrap();
            let cost = encoder.last_cost().unwrap();
            encoder.end().unwrap();
            let payloads = payloads(&encoder.take_bytes().unwrap(), &codec, false);
            let bits = 8 * payloads.iter().map(|(length, _, _)| length).sum::<usize>();
            let (least, most) = (cost.total() - 9.0, cost.total() + 5.0 + 8.0 * f64::from(lanes));
            assert!((least..most).contains(&(bits as f64)), "{bits} bits for {}", cost.total());
            if lanes == 1 {
                assert_eq!(codec.ideal_cost(&w, &y, &[], 0), cost);
            }
        }
    }
}

fn writer(codec: &Codec, mode: Mode) -> Writer {
    let header = StreamHeader {
        mode,
        check: CheckWidth::None,
        max_frames: 16,
        max_chunk_bytes: 1 << 16,
        max_rewind: 0,
        target_horizon: (mode == Mode::Layered).then_some(16),
        ..StreamHeader::new(*codec.fingerprint())
    };
    Writer::new(header, Binding::ByteStream).unwrap()
}

/// The error is that of the length and not 601, which decoding the FF bytes would give.
#[test]
fn a_payload_above_the_bound_is_refused_before_it_is_decoded() {
    let codec = model(&SyntheticShape::tiny(), 3, (-64, 64), (-2_000, 2_000));
    let (width, channels) = (codec.model().hidden_width(), codec.model().hyper_prior_width());
    let joined = 2 * (width + channels) + 8;
    let hyper_prior = 2 * channels + 8;
    let error = |writer: &mut Writer| decode(&codec, &writer.take().unwrap()).unwrap_err();

    for (mode, most) in [(Mode::Joined, joined), (Mode::Layered, hyper_prior)] {
        for (length, kind) in [(most, ErrorKind::CorruptPayload), (most + 1, ErrorKind::PayloadTooLong)] {
            let mut writer = writer(&codec, mode);
            writer.frame(&vec![0xFF; length]).unwrap();
            let at = writer.position() - length as u64;
            assert_eq!(error(&mut writer), Error::new(kind, at), "{mode:?}, {length} bytes");
            // Three frames in lanes of two and one: each lane has its own bound, and all bounds are checked before any
            // lane is decoded.
            let mut writer = self::writer(&codec, mode);
            writer.batch(3, &[vec![0xFF; most], vec![0xFF; most + length]]).unwrap();
            let at = writer.position() - if length == most { 2 * most + length } else { most + length } as u64;
            assert_eq!(error(&mut writer), Error::new(kind, at), "{mode:?}, lane of {length} bytes");
        }
    }
    // In an exact frame, in both modes.
    for mode in [Mode::Joined, Mode::Layered] {
        let mut writer = writer(&codec, mode);
        writer.exact_frame(Dtype::F16, &vec![0xFF; joined + 1], &vec![0; 2 * width]).unwrap();
        assert_eq!(error(&mut writer).kind(), ErrorKind::PayloadTooLong);
    }
}

/// A model with one table for Y, whose escapes cost at least 16 bits, and whose shifts are the rounded means.
fn one_table() -> Arc<Codec> {
    let shape = SyntheticShape { scales: 1, ..SyntheticShape::tiny() };
    let mut parts = synthetic::parts(&shape, Style::Sensible, 3);
    (parts.w_range, parts.y_range, parts.encoder) = ((-64, 64), (-2_000, 2_000), None);
    parts.fraction_bits = vec![0];
    parts.target = Tables { first: vec![-1], size: vec![3], boundaries: vec![1, 20_000, 45_000, 65_535] };
    Arc::new(Codec::new(CodecModel::new(parts).unwrap()).unwrap())
}

/// The payload of a coded run: the first `far` elements are `distance` outside the table, and the last of these is
/// `last` outside.
fn escapes(codec: &Codec, shifts: &[i16], far: usize, distance: i16, last: i16) -> (Vec<i16>, Vec<u8>) {
    let mut coder = entropy_support::Naive::default();
    coder.symbol(&[0, 65_504, 65_520, 65_536], 0);
    let mut y = shifts.to_vec();
    for (element, (y, shift)) in y.iter_mut().zip(shifts).enumerate() {
        let distance = if element + 1 < far { distance } else { last };
        if element < far {
            *y += if *shift > 0 { -distance } else { distance };
        }
        coder.encode(codec.model().target(), 0, (*shift).into(), (*y).into());
    }
    (y, coder.seal())
}

/// A target of escapes decodes if it is within the bound for its elements, and is damaged if it is a byte longer. This
/// holds for a whole frame and for a part of one.
#[test]
fn a_target_above_the_bound_is_damaged() {
    let codec = one_table();
    let (width, channels) = (codec.model().hidden_width(), codec.model().hyper_prior_width());
    let bytes = encode(&codec, config(Mode::Layered, 1), &vec![0; channels], &vec![0; width], 1);
    let mut reader = Reader::new(ReaderConfig::default());
    reader.push(&bytes).unwrap();
    let mut hyper_prior = Vec::new();
    while let Poll::Event(event) = reader.poll().unwrap() {
        if let Chunk::Frame { payload, .. } = event.chunk {
            hyper_prior = payload.bytes.to_vec();
        }
    }
    // A decoder with one pending frame.
    let pending = || {
        let mut writer = writer(&codec, Mode::Layered);
        writer.frame(&hyper_prior).unwrap();
        let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default()).unwrap();
        decoder.push(&writer.take().unwrap()).unwrap();
        while let DecoderPoll::Event(_) = decoder.poll().unwrap() {}
        (writer, decoder)
    };
    // Concealment replaces each element by its mean.
    let (_, mut decoder) = pending();
    decoder.conceal(0, 1).unwrap();
    let DecoderPoll::Event(DecoderEvent::Targets(concealed)) = decoder.poll().unwrap() else { panic!() };
    let shifts = concealed.y;

    for elements in [0..width, 0..7, 9..width] {
        let (count, whole) = (elements.len(), elements == (0..width));
        let most = max_payload_len(1, count as u64) as usize;
        let payload = |length: usize| {
            let mut all = (0..=count).flat_map(|far| (0..100).map(move |at| (far, 1 << (at / 10), 1 << (at % 10))));
            let found = all.find_map(|(far, distance, last)| {
                let (y, payload) = escapes(&codec, &shifts[elements.clone()], far, distance, last);
                (payload.len() == length).then_some((y, payload))
            });
            found.unwrap()
        };
        for length in [most, most + 1, most + 2] {
            let (y, payload) = payload(length);
            let (mut writer, mut decoder) = pending();
            match whole {
                true => writer.target(0, 1, &[payload]).unwrap(),
                false => {
                    writer.target_part(0, elements.start as u64..elements.end as u64, &payload).unwrap();
                }
            }
            decoder.push(&writer.take().unwrap()).unwrap();
            let DecoderPoll::Event(event) = decoder.poll().unwrap() else { panic!() };
            let what = format!("{length} bytes for {elements:?}: {event:?}");
            match event {
                DecoderEvent::Targets(targets) => assert!(whole && length == most && targets.y == y, "{what}"),
                DecoderEvent::TargetPart { .. } => assert!(!whole && length == most, "{what}"),
                DecoderEvent::TargetRefused { reason: TargetRefusal::Damaged, .. } => {
                    assert!(length > most, "{what}");
                    assert_eq!(decoder.oldest_pending(), Some(0), "it changes nothing");
                }
                _ => panic!("{what}"),
            }
        }
    }
    // A repeat at the start: its symbol is above 65,520 of 65,536.
    let (mut writer, mut decoder) = pending();
    writer.target(0, 1, &[[0xFF, 0xF8]]).unwrap();
    decoder.push(&writer.take().unwrap()).unwrap();
    let event = decoder.poll().unwrap();
    let damaged = |reason: &TargetRefusal| *reason == TargetRefusal::Damaged;
    assert!(
        matches!(&event, DecoderPoll::Event(DecoderEvent::TargetRefused { reason, .. }) if damaged(reason)),
        "{event:?}"
    );
    assert_eq!(decoder.oldest_pending(), Some(0));
}

#[test]
fn a_repeat_at_a_payloads_start_is_refused() {
    let codec = model(&SyntheticShape::tiny(), 3, (-64, 64), (-2_000, 2_000));
    // Two bytes in the upper 16 of 65,536 parts: this would be a repeat if there were a run before it.
    for lanes in [vec![vec![0xFF, 0xF8]], vec![vec![], vec![0xFF, 0xF8]]] {
        let mut writer = writer(&codec, Mode::Joined);
        match &lanes[..] {
            [payload] => writer.frame(payload).unwrap(),
            lanes => writer.batch(4, lanes).unwrap(),
        }
        let at = writer.position() - 2;
        assert_eq!(decode(&codec, &writer.take().unwrap()), Err(Error::new(ErrorKind::CorruptPayload, at)));
    }
}
