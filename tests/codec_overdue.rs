//! Targets that come out of order, late or never: concealment, and the target horizon (spec 6.5).
#![cfg(feature = "codec")]

mod codec_support;

use std::sync::Arc;

use codec_support::{Seen, codec, config, drain, frames};
use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, Verdict};
use midspan::error::ErrorKind;
use midspan::stream::Binding;
use midspan::wire::{CheckWidth, Checkpoint, Dtype, Mode, Seed};

/// The messages of a layered stream.
fn layered_messages(codec: &Arc<Codec>, y: &[i16]) -> Vec<Vec<u8>> {
    let config = config(Mode::Layered, CheckWidth::One, 1).binding(Binding::Message);
    let mut encoder = Encoder::new(codec.clone(), config).unwrap();
    y.chunks(20).for_each(|frame| encoder.push_y(frame).unwrap());
    encoder.end().unwrap();
    std::iter::from_fn(|| encoder.pop_message().unwrap()).map(|message| message.bytes.to_vec()).collect()
}

fn is_target(message: &[u8]) -> bool {
    message.first() == Some(&0xC2) && message.last() == Some(&0)
}

#[test]
fn reordered_targets_give_the_same_frames_and_lost_ones_are_concealed() {
    let codec = codec(13);
    let y = frames(12, 4);
    let messages = layered_messages(&codec, &y);
    let (targets, others): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| is_target(message));
    let open = || Decoder::new(codec.clone(), DecoderConfig::default().binding(Binding::Message)).unwrap();
    // All hyper-priors and the end first, then the targets backwards.
    let (mut decoder, mut seen) = (open(), Seen::default());
    for message in others.iter().chain(targets.iter().rev()) {
        decoder.push_message(message).unwrap();
        drain(&mut decoder, &mut seen).unwrap();
    }
    assert_eq!(seen.y, y);
    assert_eq!(seen.verdicts, [Verdict::WConfirmed, Verdict::YConfirmed]);
    // Target 5 is missing, is concealed, and comes late; then target 6 comes twice.
    let (mut decoder, mut seen) = (open(), Seen::default());
    for message in others.iter().chain(targets.iter().enumerate().filter(|(i, _)| *i != 5).map(|(_, m)| m)) {
        decoder.push_message(message).unwrap();
        drain(&mut decoder, &mut seen).unwrap();
    }
    assert_eq!(decoder.oldest_pending(), Some(5));
    assert_eq!(decoder.conceal(4, 1).unwrap_err().kind(), ErrorKind::FrameNotPending);
    decoder.conceal(5, 1).unwrap();
    drain(&mut decoder, &mut seen).unwrap();
    assert_eq!(seen.verdicts, [Verdict::WConfirmed, Verdict::YUnverifiable]);
    assert_eq!(seen.y[..100], y[..100]);
    assert_eq!(seen.y[120..], y[120..]);
    let concealed = seen.clone();
    for message in [&targets[5], &targets[6]] {
        decoder.push_message(message).unwrap();
        let event = decoder.poll().unwrap();
        assert!(matches!(event, DecoderPoll::Event(DecoderEvent::TargetRefused { .. })), "{event:?}");
    }
    drain(&mut decoder, &mut seen).unwrap();
    assert_eq!(seen.y, concealed.y, "a late target changes nothing");
}

/// A former bug: the error came from `conceal`, was not sticky, and its checkpoint was never judged again.
#[test]
fn a_checkpoint_that_fails_behind_a_concealed_frame_is_a_sticky_error() {
    let codec = codec(13);
    let config = config(Mode::Layered, CheckWidth::One, 1).binding(Binding::Message);
    let mut encoder = Encoder::new(codec.clone(), config).unwrap();
    let y = frames(2, 4);
    for frame in y.chunks(20) {
        encoder.push_y(frame).unwrap();
        encoder.checkpoint().unwrap();
    }
    let mut messages: Vec<Vec<u8>> =
        std::iter::from_fn(|| encoder.pop_message().unwrap()).map(|message| message.bytes.to_vec()).collect();
    // The target of frame 0 is lost; the second checkpoint's Y digest is wrong, its crc right.
    let lost = messages.iter().position(|message| is_target(message)).unwrap();
    messages.remove(lost);
    let message = messages.last_mut().unwrap();
    let mut checkpoint = Checkpoint::load(&message[1..message.len() - 1], 2, Seed::NONE).unwrap();
    checkpoint.digest_y ^= 1;
    let mut body = bytes::BytesMut::new();
    checkpoint.encode(Seed::NONE, &mut body).unwrap();
    message.splice(1..message.len() - 1, body);
    let mut decoder = Decoder::new(codec, DecoderConfig::default().binding(Binding::Message)).unwrap();
    let mut seen = Seen::default();
    for message in &messages {
        decoder.push_message(message).unwrap();
        drain(&mut decoder, &mut seen).unwrap();
    }
    assert_eq!(seen.verdicts, [Verdict::WConfirmed; 2]);
    decoder.conceal(0, 1).unwrap();
    assert_eq!(drain(&mut decoder, &mut seen).unwrap_err().kind(), ErrorKind::DigestMismatchY);
    assert_eq!(seen.verdicts[2..], [Verdict::YUnverifiable], "what came before the error is handed out");
    assert_eq!(decoder.poll().unwrap_err().kind(), ErrorKind::DigestMismatchY);
    assert_eq!(decoder.conceal(0, 1).unwrap_err().kind(), ErrorKind::DigestMismatchY);
}

#[test]
fn overdue_targets_stop_the_decoder_until_they_are_concealed() {
    let codec = codec(14);
    let y = frames(6, 5);
    let config = config(Mode::Layered, CheckWidth::None, 1).binding(Binding::Message).target_horizon(3);
    let mut encoder = Encoder::new(codec.clone(), config).unwrap();
    y.chunks(20).for_each(|frame| encoder.push_y(frame).unwrap());
    encoder.end().unwrap();
    let mut decoder = Decoder::new(codec, DecoderConfig::default().binding(Binding::Message)).unwrap();
    let mut overdue = 0;
    while let Some(message) = encoder.pop_message().unwrap() {
        if is_target(&message.bytes) {
            continue;
        }
        decoder.push_message(&message.bytes).unwrap();
        loop {
            match decoder.poll().unwrap() {
                DecoderPoll::Event(DecoderEvent::TargetsOverdue { index, count }) => {
                    overdue += count;
                    assert_eq!(decoder.poll().unwrap_err().kind(), ErrorKind::TargetOverdue);
                    decoder.conceal(index, count).unwrap();
                }
                DecoderPoll::Event(_) => {}
                _ => break,
            }
        }
    }
    assert_eq!(overdue, 3);
}

/// A former bug: the range of overdue frames included settled ones, which cannot be concealed.
#[test]
fn overdue_frames_are_told_up_to_a_gap() {
    let codec = codec(14);
    let config = config(Mode::Layered, CheckWidth::None, 1).target_horizon(3);
    let mut encoder = Encoder::new(codec.clone(), config.binding(Binding::Message)).unwrap();
    let y = frames(6, 5);
    y[..60].chunks(20).for_each(|frame| encoder.push_y(frame).unwrap());
    encoder.push_y(&y[60..]).unwrap();
    let config = DecoderConfig::default().binding(Binding::Message);
    let mut decoder = Decoder::new(codec, config).unwrap();
    let mut targets = 0;
    while let Some(message) = encoder.pop_message().unwrap() {
        // Only the target of frame 1 arrives.
        targets += usize::from(is_target(&message.bytes));
        if !is_target(&message.bytes) || targets == 2 {
            decoder.push_message(&message.bytes).unwrap();
        }
    }
    let (mut overdue, mut taken) = (Vec::new(), 0);
    while let DecoderPoll::Event(event) = decoder.poll().unwrap() {
        match event {
            DecoderEvent::TargetsOverdue { index, count } => {
                overdue.push((index, count));
                decoder.conceal(index, count).unwrap();
            }
            DecoderEvent::HyperPrior(hyper_prior) => taken += hyper_prior.count,
            _ => {}
        }
    }
    assert_eq!((overdue, taken), (vec![(0, 1), (2, 1)], 6));
}

/// A former bug: exact frames ignored the horizon, so that a stream of them could take any amount of memory.
#[test]
fn an_exact_frame_waits_for_overdue_targets() {
    let codec = codec(14);
    let config = config(Mode::Layered, CheckWidth::None, 1).target_horizon(2);
    let mut encoder = Encoder::new(codec.clone(), config.binding(Binding::Message)).unwrap();
    encoder.push_y(&frames(1, 5)).unwrap();
    for _ in 0..2 {
        encoder.push_exact(Dtype::F16, &[0; 40]).unwrap();
    }
    let config = DecoderConfig::default().binding(Binding::Message);
    let mut decoder = Decoder::new(codec, config).unwrap();
    while let Some(message) = encoder.pop_message().unwrap() {
        if !is_target(&message.bytes) {
            decoder.push_message(&message.bytes).unwrap();
        }
    }
    let mut seen = Vec::new();
    let error = loop {
        match decoder.poll() {
            Ok(DecoderPoll::Event(event)) => seen.push(event),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::TargetOverdue);
    assert_eq!(seen.last(), Some(&DecoderEvent::TargetsOverdue { index: 0, count: 1 }));
    assert_eq!(seen.iter().filter(|event| matches!(event, DecoderEvent::ExactFrame(_))).count(), 1);
    decoder.conceal(0, 1).unwrap();
    while let Ok(DecoderPoll::Event(event)) = decoder.poll() {
        seen.push(event);
    }
    assert_eq!(seen.iter().filter(|event| matches!(event, DecoderEvent::ExactFrame(_))).count(), 2);
}
