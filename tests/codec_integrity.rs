//! What digests, checks and the identity detect: nothing is confirmed that a digest does not cover (spec 6.4).
#![cfg(feature = "codec")]

use std::collections::BTreeMap;
use std::sync::Arc;

use midspan::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, TargetRefusal, Verdict,
};
use midspan::error::{Error, ErrorKind};
use midspan::model::synthetic::{self, Random, Style, SyntheticShape};
use midspan::model::{CodecModel, NetworkParameters};
use midspan::stream::{Binding, JoinPoint};
use midspan::wire::{CheckWidth, Dtype, Identity, Mode, StreamHeader};

fn codec(seed: u64) -> Arc<Codec> {
    Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), seed)).unwrap())
}

/// `count` frames of small integers.
fn frames(count: usize, seed: u64) -> Vec<i16> {
    let mut random = Random::new(seed);
    (0..count * SyntheticShape::tiny().hidden).map(|_| random.within(-4, 4) as i16).collect()
}

fn one_by_one(encoder: &mut Encoder, y: &[i16]) {
    y.chunks(SyntheticShape::tiny().hidden).for_each(|frame| encoder.push_y(frame).unwrap());
}

/// What a decoder reported, up to the end or the first error.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    /// Y of the timeline, by index.
    y: BTreeMap<u64, Vec<i16>>,
    verdicts: Vec<(u64, u64, Verdict)>,
    dropped: Vec<(u64, usize)>,
    refused: Vec<TargetRefusal>,
    /// Frames that were handed out, rewound ones included.
    handed_out: Vec<Vec<i16>>,
    ended: bool,
}

impl Heard {
    fn record(&mut self, index: u64, y: &[i16]) {
        for (index, y) in (index..).zip(y.chunks_exact(SyntheticShape::tiny().hidden)) {
            self.y.insert(index, y.to_vec());
            self.handed_out.push(y.to_vec());
        }
    }

    fn poll(&mut self, decoder: &mut Decoder) -> Result<(), Error> {
        loop {
            match decoder.poll()? {
                DecoderPoll::Event(DecoderEvent::Frames(frames)) => {
                    self.record(frames.index, &frames.integers.unwrap().y)
                }
                DecoderPoll::Event(DecoderEvent::Targets(targets)) => self.record(targets.index, &targets.y),
                DecoderPoll::Event(DecoderEvent::Verdict { from, to, verdict }) => {
                    self.verdicts.push((from, to, verdict));
                }
                DecoderPoll::Event(DecoderEvent::TargetsDropped { index, count }) => self.dropped.push((index, count)),
                DecoderPoll::Event(DecoderEvent::TargetRefused { reason, .. }) => self.refused.push(reason),
                DecoderPoll::Event(DecoderEvent::Rewound { index }) => self.y.retain(|at, _| *at < index),
                DecoderPoll::Event(DecoderEvent::Ended { .. }) => self.ended = true,
                DecoderPoll::Event(_) => {}
                DecoderPoll::NeedMore | DecoderPoll::End => return Ok(()),
            }
        }
    }
}

/// Decodes a whole byte stream. Returns what was reported, the confirmed index, and the outcome.
fn hear(codec: &Arc<Codec>, bytes: &[u8]) -> (Heard, u64, Result<(), Error>) {
    let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default()).unwrap();
    let mut heard = Heard::default();
    decoder.push(bytes).unwrap();
    decoder.finish();
    let outcome = heard.poll(&mut decoder);
    (heard, decoder.confirmed_index(), outcome)
}

/// A stream with checkpoints, rewinds, resets and a quality switch, and for each index the frames that were coded
/// there. The one that remains at the end comes last.
fn eventful(codec: &Arc<Codec>, identity: Identity, check: CheckWidth, seed: u64) -> (Vec<u8>, Vec<Vec<Vec<i16>>>) {
    let width = SyntheticShape::tiny().hidden;
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(identity).check(check)).unwrap();
    let y = frames(24, seed);
    let mut coded: Vec<Vec<Vec<i16>>> = vec![Vec::new(); 21];
    let mut push = |encoder: &mut Encoder, frames: std::ops::Range<usize>| {
        for frame in y[frames.start * width..frames.end * width].chunks(width) {
            coded[usize::try_from(encoder.next_index()).unwrap()].push(frame.to_vec());
            encoder.push_y(frame).unwrap();
        }
    };
    push(&mut encoder, 0..6);
    encoder.reset().unwrap();
    push(&mut encoder, 6..10);
    encoder.checkpoint().unwrap();
    push(&mut encoder, 10..12);
    encoder.rewind(9).unwrap();
    encoder.set_quality(1).unwrap();
    push(&mut encoder, 12..16);
    encoder.reset().unwrap();
    let first = usize::try_from(encoder.next_index()).unwrap();
    encoder.push_y(&y[16 * width..]).unwrap();
    encoder.end().unwrap();
    (first..).zip(y[16 * width..].chunks(width)).for_each(|(index, y)| coded[index].push(y.to_vec()));
    (encoder.take_bytes().unwrap().to_vec(), coded)
}

/// A former bug: no digest covered the frames before a context reset, and a flipped bit there gave other integers in a
/// stream that verified.
#[test]
fn no_flip_gives_a_wrong_frame_that_is_confirmed() {
    let codec = codec(21);
    for identity in [Identity::none(), Identity::new(*b"midspan!")] {
        let (bytes, coded) = eventful(&codec, identity, CheckWidth::None, 3);
        let (heard, confirmed, outcome) = hear(&codec, &bytes);
        assert_eq!((outcome, confirmed), (Ok(()), coded.len() as u64));
        assert!(heard.ended && heard.y.values().eq(coded.iter().map(|versions| versions.last().unwrap())));
        assert!(heard.verdicts.iter().all(|(.., verdict)| *verdict == Verdict::YConfirmed));
        assert_eq!(
            heard.verdicts.iter().map(|(from, to, _)| (*from, *to)).collect::<Vec<_>>(),
            [(0, 6), (6, 10), (6, 13), (13, 21)]
        );
        let mut wrong_frames = 0;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (heard, confirmed, outcome) = hear(&codec, &flipped);
            let wrong = heard.y.iter().filter(|(index, y)| !coded.get(**index as usize).is_some_and(|v| v.contains(y)));
            let first = wrong.map(|(index, _)| *index).min();
            wrong_frames += usize::from(first.is_some());
            assert!(first.is_none_or(|first| confirmed <= first), "bit {bit}: frame {first:?}, confirmed {confirmed}");
            assert!(first.is_none() || outcome.is_err(), "bit {bit} passes");
        }
        assert!(wrong_frames > 50, "without checks many flips give wrong frames: {wrong_frames}");
    }
}

#[test]
fn a_wrong_digest_at_a_reset_or_switch_is_an_error_there() {
    let (one, other) = (codec(22), codec(23));
    for switch in [false, true] {
        let mut encoder = Encoder::new(one.clone(), EncoderConfig::new(Identity::none())).unwrap();
        one_by_one(&mut encoder, &frames(3, 1));
        let before = encoder.take_bytes().unwrap();
        if switch {
            encoder.switch_model(other.clone(), 0).unwrap();
        } else {
            encoder.reset().unwrap();
        }
        let closing = encoder.take_bytes().unwrap();
        encoder.end().unwrap();
        let end = encoder.take_bytes().unwrap();
        // The digests are the last eight bytes before the crc.
        for (back, kind) in [(12, ErrorKind::DigestMismatchW), (8, ErrorKind::DigestMismatchY)] {
            let mut chunk = closing.to_vec();
            let at = chunk.len() - back;
            chunk[at] ^= 1;
            let crc_at = chunk.len() - 4;
            // Kind, length, body: the crc is over the kind and the body.
            let crc = crc32fast::hash(&[&chunk[..1], &chunk[2..crc_at]].concat());
            chunk[crc_at..].copy_from_slice(&crc.to_le_bytes());
            let mut decoder = Decoder::new(one.clone(), DecoderConfig::default()).unwrap();
            decoder.add_model(other.clone());
            decoder.push(&[&before[..], &chunk, &end].concat()).unwrap();
            let error = Heard::default().poll(&mut decoder).unwrap_err();
            assert_eq!(error, Error::new(kind, (before.len() + at) as u64));
            assert_eq!((decoder.confirmed_index(), decoder.next_index()), (0, 3));
        }
    }
}

/// Two streams of one model are spliced at the beginnings of chunks, at equal index and epoch. No checkpoint passes
/// after the splice.
#[test]
fn a_splice_of_two_streams_passes_no_checkpoint() {
    let codec = codec(24);
    let streams = |identities: [Identity; 2], check: CheckWidth| {
        identities.map(|identity| {
            let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(identity).check(check)).unwrap();
            let mut pieces = vec![encoder.take_bytes().unwrap().to_vec()];
            // Each stream has different frames.
            let seed = u64::from(identity.bytes().is_some_and(|bytes| bytes[0] == 2)) + 5;
            for (number, frame) in frames(30, seed).chunks(SyntheticShape::tiny().hidden).enumerate() {
                encoder.push_y(frame).unwrap();
                match number % 6 {
                    2 => encoder.checkpoint().unwrap(),
                    5 => {
                        pieces.push(encoder.take_bytes().unwrap().to_vec());
                        encoder.reset().unwrap();
                    }
                    _ => {}
                }
                pieces.push(encoder.take_bytes().unwrap().to_vec());
            }
            encoder.end().unwrap();
            pieces.push(encoder.take_bytes().unwrap().to_vec());
            pieces
        })
    };
    for check in [CheckWidth::None, CheckWidth::One, CheckWidth::Two] {
        let [one, two] = streams([Identity::new([1; 8]), Identity::new([2; 8])], check);
        assert_eq!(one.len(), two.len());
        for cut in 1..one.len() {
            let bytes = [one[..cut].concat(), two[cut..].concat()].concat();
            let mut own = Decoder::new(codec.clone(), DecoderConfig::default()).unwrap();
            own.push(&one[..cut].concat()).unwrap();
            Heard::default().poll(&mut own).unwrap();
            let (heard, confirmed, outcome) = hear(&codec, &bytes);
            assert!(outcome.is_err() && !heard.ended, "cut {cut}");
            assert_eq!(confirmed, own.confirmed_index(), "cut {cut}: nothing of the other stream is confirmed");
        }
    }
}

/// Two qualities that differ only in their steps: the same integers, other hidden states.
fn codec_of_steps(seed: u64) -> Arc<Codec> {
    let shape = SyntheticShape { qualities: 1, ..SyntheticShape::tiny() };
    let mut parts = synthetic::parts(&shape, Style::Sensible, seed);
    fn twice<T: Clone>(values: &mut Vec<T>) {
        values.extend_from_within(..);
    }
    let network = |network: &mut NetworkParameters| {
        network.qualities = 2;
        twice(&mut network.input_multiplier);
        twice(&mut network.input_shift);
        twice(&mut network.output.multiplier);
        twice(&mut network.output.shift);
        twice(&mut network.output_offset);
    };
    parts.qualities = 2;
    twice(&mut parts.hyper_prior.first);
    twice(&mut parts.hyper_prior.size);
    twice(&mut parts.hyper_prior.boundaries);
    twice(&mut parts.offset);
    parts.step = [parts.step.clone(), parts.step.iter().map(|step| step * 2.0).collect()].concat();
    network(&mut parts.decoder_network);
    parts.encoder = None;
    Arc::new(Codec::new(CodecModel::new(parts).unwrap()).unwrap())
}

/// A former bug: a quality switch that was lost or moved gave other hidden states for the same integers, which checks
/// and digests accepted.
#[test]
fn a_quality_switch_that_is_lost_or_moved_is_found() {
    let codec = codec_of_steps(31);
    let (y, w) = (frames(6, 1), [3; 6]);
    for (check, kinds) in [
        (CheckWidth::None, [ErrorKind::DigestMismatchW; 2]),
        (CheckWidth::One, [ErrorKind::FrameCheckMismatch; 2]),
        (CheckWidth::Two, [ErrorKind::FrameCheckMismatch; 2]),
    ] {
        let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::new([8; 8])).check(check)).unwrap();
        let mut pieces = vec![encoder.take_bytes().unwrap()];
        for (number, frame) in y.chunks(20).enumerate() {
            if number == 3 {
                encoder.set_quality(1).unwrap();
                pieces.push(encoder.take_bytes().unwrap());
            }
            encoder.push_integers(frame, &w).unwrap();
            pieces.push(encoder.take_bytes().unwrap());
        }
        encoder.end().unwrap();
        pieces.push(encoder.take_bytes().unwrap());
        assert_eq!((pieces[4][0], hear(&codec, &pieces.concat()).2), (0xc7, Ok(())));
        let mut lost = pieces.clone();
        lost.remove(4);
        let mut moved = pieces.clone();
        moved.swap(4, 5);
        for (pieces, kind) in [lost, moved].into_iter().zip(kinds) {
            let (heard, confirmed, outcome) = hear(&codec, &pieces.concat());
            assert_eq!((outcome.unwrap_err().kind(), confirmed, heard.ended), (kind, 0, false));
            let given = if check == CheckWidth::None { 6 } else { 3 };
            assert_eq!(heard.handed_out.len(), given, "{check:?}: with a check no wrong frame is given out");
        }
    }
}

/// With the default check one flipped bit gives no wrong frame; without checks it gives some before it is found.
#[test]
fn the_default_check_finds_a_flipped_bit_before_a_wrong_frame() {
    let codec = codec(25);
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::new([7; 8]))).unwrap();
    assert_eq!(EncoderConfig::new(Identity::none()).check, CheckWidth::One);
    let y = frames(20, 9);
    one_by_one(&mut encoder, &y);
    encoder.end().unwrap();
    let bytes = encoder.take_bytes().unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (heard, _, outcome) = hear(&codec, &flipped);
        assert!(outcome.is_err());
        assert!(heard.handed_out.concat() == y[..heard.handed_out.concat().len()], "bit {bit}");
    }
}

/// Makes the messages of a layered stream one by one.
struct Sender {
    encoder: Encoder,
}

impl Sender {
    fn new(codec: &Arc<Codec>) -> Sender {
        let config =
            EncoderConfig::new(Identity::new([3; 8])).mode(Mode::Layered).binding(Binding::Message).max_rewind(8);
        Sender { encoder: Encoder::new(codec.clone(), config).unwrap() }
    }

    fn take(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.encoder.pop_message().unwrap())
            .map(|message| message.bytes)
            .map(|message| message.to_vec())
            .collect()
    }

    /// The hyper-prior and the target of one frame.
    fn frame(&mut self, y: &[i16]) -> (Vec<u8>, Vec<u8>) {
        self.encoder.push_y(y).unwrap();
        let [hyper_prior, target] = self.take().try_into().unwrap();
        (hyper_prior, target)
    }

    fn control(&mut self, call: impl FnOnce(&mut Encoder) -> Result<(), Error>) -> Vec<u8> {
        call(&mut self.encoder).unwrap();
        self.take().remove(0)
    }
}

fn layered_decoder(codec: &Arc<Codec>) -> Decoder {
    Decoder::new(codec.clone(), DecoderConfig::default().binding(Binding::Message)).unwrap()
}

/// A former bug: a rewind dropped a newer checkpoint, and its verdict was then applied to an older one that waited.
/// When the late target came, error 410 ended a valid stream.
#[test]
fn a_late_target_after_a_rewind_across_a_checkpoint_is_judged_rightly() {
    let codec = codec(26);
    let y = frames(3, 2);
    let mut sender = Sender::new(&codec);
    let header = sender.take().remove(0);
    let (w0, t0) = sender.frame(&y[..20]);
    let first = sender.control(Encoder::checkpoint);
    let (w1, t1) = sender.frame(&y[20..40]);
    let second = sender.control(Encoder::checkpoint);
    let rewind = sender.control(|encoder| encoder.rewind(1));
    let mut decoder = layered_decoder(&codec);
    let mut heard = Heard::default();
    for message in [&header, &w0, &first, &w1, &t1, &second, &rewind, &t0] {
        decoder.push_message(message).unwrap();
        heard.poll(&mut decoder).unwrap();
    }
    let expected = [
        (0, 1, Verdict::WConfirmed),
        (1, 2, Verdict::WConfirmed),
        (1, 2, Verdict::YUnverifiable),
        (0, 1, Verdict::YConfirmed),
    ];
    assert_eq!(heard.verdicts, expected);
    assert_eq!((decoder.confirmed_index(), decoder.resume_index()), (1, 1));
}

#[test]
fn targets_that_a_reset_drops_are_reported_and_later_late() {
    let codec = codec(27);
    let y = frames(6, 2);
    let mut sender = Sender::new(&codec);
    let mut decoder = layered_decoder(&codec);
    let mut heard = Heard::default();
    let mut push = |heard: &mut Heard, messages: &[&Vec<u8>]| {
        for message in messages {
            decoder.push_message(message).unwrap();
            heard.poll(&mut decoder).unwrap();
        }
        (decoder.confirmed_index(), decoder.resume_index())
    };
    let header = sender.take().remove(0);
    let made: Vec<_> = y.chunks(20).take(5).map(|y| sender.frame(y)).collect();
    let hyper_priors: Vec<&Vec<u8>> = made.iter().map(|(w, _)| w).collect();
    push(&mut heard, &[&header]);
    push(&mut heard, &hyper_priors);
    push(&mut heard, &[&made[1].1, &made[4].1]);
    let reset = sender.control(Encoder::reset);
    assert_eq!(push(&mut heard, &[&reset]), (0, 5), "W is confirmed up to the reset, Y is not");
    assert_eq!(heard.dropped, [(0, 1), (2, 2)]);
    assert_eq!(heard.verdicts, [(0, 5, Verdict::YUnverifiable)]);
    push(&mut heard, &[&made[2].1]);
    assert_eq!(heard.refused, [TargetRefusal::Late]);
    // The new context is confirmed by itself, but the gap before it stays.
    let (w5, t5) = sender.frame(&y[100..]);
    let end = sender.control(Encoder::end);
    assert_eq!(push(&mut heard, &[&w5, &t5, &end]), (0, 6));
    assert_eq!(heard.verdicts[1..], [(5, 6, Verdict::YConfirmed)]);
}

/// Rewound frames are not confirmed. The remaining ones are, together with the frames that follow them.
#[test]
fn a_rewind_takes_the_confirmed_index_back() {
    let codec = codec(28);
    let y = frames(8, 2);
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap();
    let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default()).unwrap();
    let mut heard = Heard::default();
    let mut follow = |encoder: &mut Encoder, heard: &mut Heard| {
        decoder.push(&encoder.take_bytes().unwrap()).unwrap();
        heard.poll(&mut decoder).unwrap();
        (decoder.confirmed_index(), decoder.resume_index())
    };
    one_by_one(&mut encoder, &y[..80]);
    encoder.checkpoint().unwrap();
    one_by_one(&mut encoder, &y[80..120]);
    encoder.checkpoint().unwrap();
    assert_eq!(follow(&mut encoder, &mut heard), (6, 6));
    encoder.rewind(5).unwrap();
    assert_eq!(follow(&mut encoder, &mut heard), (5, 5));
    one_by_one(&mut encoder, &y[120..]);
    assert_eq!(follow(&mut encoder, &mut heard), (5, 5), "not before a digest covers them");
    encoder.reset().unwrap();
    assert_eq!(follow(&mut encoder, &mut heard), (7, 7));
    assert_eq!(heard.verdicts, [(0, 4, Verdict::YConfirmed), (4, 6, Verdict::YConfirmed), (4, 7, Verdict::YConfirmed)]);
}

/// A former bug of the format: no digest covers the hidden state of an exact frame, and nothing tied it to its place.
/// Two exact frames with equal W and Y could be swapped and were still confirmed.
#[test]
fn exact_frames_swapped_across_a_reset_are_refused() {
    let codec = codec(30);
    let raw = |value: f32| value.to_le_bytes().repeat(SyntheticShape::tiny().hidden);
    for check in [CheckWidth::None, CheckWidth::One, CheckWidth::Two] {
        for replayed in [false, true] {
            let config = EncoderConfig::new(Identity::new(*b"midspan!")).check(check);
            let mut encoder = Encoder::new(codec.clone(), config).unwrap();
            let mut parts = vec![encoder.take_bytes().unwrap()];
            let mut push = |act: &mut dyn FnMut(&mut Encoder) -> Result<(), Error>| {
                act(&mut encoder).unwrap();
                parts.push(encoder.take_bytes().unwrap());
            };
            push(&mut |encoder| encoder.push_exact(Dtype::F32, &raw(1e9)));
            push(&mut |encoder| if replayed { encoder.rewind(0) } else { encoder.reset() });
            push(&mut |encoder| encoder.push_exact(Dtype::F32, &raw(2e9)));
            push(&mut Encoder::end);
            let frames = if replayed { 1 } else { 2 };
            assert_eq!(hear(&codec, &parts.concat()).1, frames, "as it was sent");
            let at = if replayed { 3 } else { 1 };
            if replayed {
                parts[3] = parts[1].clone();
            } else {
                parts.swap(1, 3);
            }
            let crc = parts[..=at].iter().map(|part| part.len() as u64).sum::<u64>() - 4;
            let (_, confirmed, outcome) = hear(&codec, &parts.concat());
            let error = outcome.unwrap_err();
            assert_eq!((error.kind(), error.offset(), confirmed), (ErrorKind::ControlCrcMismatch, crc, 0), "{check:?}");
        }
    }
}

/// A decoder that joins cannot verify frames that it did not decode, and confirms nothing before them.
#[test]
fn who_joins_at_a_reset_ignores_its_digests() {
    let codec = codec(29);
    let y = frames(6, 2);
    let config = EncoderConfig::new(Identity::new([5; 8]));
    let mut encoder = Encoder::new(codec.clone(), config).unwrap();
    let head = encoder.take_bytes().unwrap();
    let header = StreamHeader::load(&head, Some(Binding::ByteStream)).unwrap().unwrap().0;
    one_by_one(&mut encoder, &y[..60]);
    let before = encoder.take_bytes().unwrap();
    encoder.reset().unwrap();
    one_by_one(&mut encoder, &y[60..]);
    encoder.checkpoint().unwrap();
    encoder.reset().unwrap();
    encoder.end().unwrap();
    let point = JoinPoint { offset: (head.len() + before.len()) as u64, index: None };
    let mut decoder = Decoder::join(codec.clone(), DecoderConfig::default(), header, point).unwrap();
    // Saved and restored before it has joined.
    let mut decoder = match decoder.poll() {
        Ok(DecoderPoll::NeedMore) => {
            Decoder::restore(codec, &[], DecoderConfig::default(), &decoder.save().unwrap()).unwrap()
        }
        other => panic!("{other:?}"),
    };
    decoder.push(&encoder.take_bytes().unwrap()).unwrap();
    let mut heard = Heard::default();
    heard.poll(&mut decoder).unwrap();
    assert_eq!(heard.verdicts, [(3, 6, Verdict::YConfirmed), (6, 6, Verdict::YConfirmed), (6, 6, Verdict::YConfirmed)]);
    assert_eq!((decoder.confirmed_index(), decoder.resume_index()), (6, 6));
}
