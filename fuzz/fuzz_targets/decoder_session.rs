//! A decoder session with a small model: no bytes make it panic, and what it hands out stays in the declared ranges.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll};
use midspan::error::ErrorKind;
use midspan::model::CodecModel;
use midspan::model::synthetic::{self, Style, SyntheticShape};
use midspan::stream::{Binding, Limits};

static CODEC: LazyLock<Arc<Codec>> =
    LazyLock::new(|| Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), 1)).expect("a valid model")));

/// The same with side indices.
static SIDE: LazyLock<Arc<Codec>> =
    LazyLock::new(|| Arc::new(Codec::new(synthetic::model(&SyntheticShape::with_side(), 1)).expect("a valid model")));

/// Both, with prediction from decoded frames.
static PREDICTING: LazyLock<[Arc<Codec>; 2]> = LazyLock::new(|| {
    [SyntheticShape::tiny(), SyntheticShape::with_side()].map(|shape| {
        let mut parts = synthetic::parts(&shape, Style::Sensible, 1);
        synthetic::add_prediction(&mut parts, 2, 3, 1);
        Arc::new(Codec::new(CodecModel::new(parts).expect("a valid model")).expect("a valid model"))
    })
});

fuzz_target!(|data: &[u8]| {
    let Some((first, stream)) = data.split_first() else { return };
    let mut stream = stream.to_vec();
    // Messages stand behind a u32le length each, as in the conformance vectors; with its highest bit set, datagrams.
    let binding = if first % 2 == 0 { Binding::ByteStream } else { Binding::Message };
    // The header's fingerprint, at its usual place, becomes the model's, so that the fuzzer gets past it.
    let start = if binding == Binding::Message { 13 } else { 9 };
    // The side flag of the header says which model it is.
    let flags = stream.get(start - 2).copied().unwrap_or(0);
    let codec = match (first >> 7, flags >> 7) {
        (0, 0) => &*CODEC,
        (0, _) => &*SIDE,
        (_, side) => &PREDICTING[usize::from(side)],
    };
    if let Some(place) = stream.get_mut(start..start + 32) {
        place.copy_from_slice(codec.fingerprint());
    }
    let config = DecoderConfig::default().binding(binding).limits(Limits::FORMAT.max_frames(64).max_chunk_bytes(1 << 16).max_rewind(64).target_horizon(64).early_bytes(1 << 12)).memory_limit(1 << 22);
    let mut decoder = Decoder::new(codec.clone(), config).expect("a fresh decoder");
    let mut rest = &stream[..];
    while !rest.is_empty() {
        let size = match (binding, rest) {
            (Binding::Message, [a, b, c, d, behind @ ..]) => {
                rest = behind;
                u32::from_le_bytes([*a, *b, *c, *d])
            }
            _ => u32::from(first / 2).max(1),
        };
        let (part, behind) = rest.split_at((size as usize & 0x7fff_ffff).min(rest.len()));
        rest = behind;
        let pushed = match binding {
            Binding::ByteStream => decoder.push(part),
            Binding::Message if size >> 31 == 0 => decoder.push_message(part),
            Binding::Message => decoder.push_datagram(part),
        };
        if pushed.is_err() {
            return;
        }
        // One bit of each piece says whether waits for side indices stay unanswered, so that more input, datagrams and
        // the end of input may come meanwhile.
        let answers = part.iter().fold(0, |bits: u8, byte| bits ^ byte).count_ones() % 2 == 0;
        if !drain(&mut decoder, *first, answers) {
            return;
        }
    }
    decoder.finish();
    // Half of the sessions have their last answers only after the end of input.
    if first % 4 < 2 && !drain(&mut decoder, *first, false) {
        return;
    }
    drain(&mut decoder, *first, true);
});

/// Polls until the session waits, ends or fails, and checks what it hands out. False if it failed.
fn drain(decoder: &mut Decoder, first: u8, answers: bool) -> bool {
    let (low, high) = decoder.codec().model().y_range();
    let answer = |decoder: &mut Decoder| {
        let Some((index, count)) = decoder.wanted_side() else { return false };
        assert!(decoder.give_side(&vec![301; count]).is_err() && count > 0);
        assert!(decoder.give_side(&vec![0; count + 1]).is_err());
        let given: Vec<u32> = (index..).take(count).map(|index| u32::from(first) + index as u32 % 45).collect();
        decoder.give_side(&given).expect("as many as wanted, and known");
        assert_eq!(decoder.wanted_side(), None);
        true
    };
    // What was left unanswered before.
    if answers {
        answer(decoder);
    }
    loop {
        match decoder.poll() {
            Ok(DecoderPoll::Event(DecoderEvent::Frames(frames))) => {
                assert!(frames.integers.as_ref().unwrap().y.iter().all(|y| (low..=high).contains(y)));
                assert!(frames.hidden.iter().all(|value| value.is_finite()));
            }
            Ok(DecoderPoll::Event(DecoderEvent::TargetsOverdue { index, count })) => {
                decoder.conceal(index, count).expect("overdue frames are pending");
            }
            Ok(DecoderPoll::Event(DecoderEvent::SideWanted { index, count })) => {
                assert_eq!(decoder.wanted_side(), Some((index, count)));
                if answers {
                    assert!(answer(decoder));
                }
            }
            Ok(DecoderPoll::Event(_)) => {}
            Ok(DecoderPoll::NeedMore) => {
                assert!(!(answers && decoder.wanted_side().is_some()), "every wait was answered");
                return true;
            }
            Ok(DecoderPoll::End) => {
                assert_eq!(decoder.wanted_side(), None, "no end before a chunk that waits");
                return true;
            }
            // Not an end of the session: the caller can still answer.
            Err(error) if error.kind() == ErrorKind::WrongSideIndices => {
                assert!(!answers && decoder.wanted_side().is_some());
                assert_eq!(decoder.poll().err(), Some(error));
                return true;
            }
            Err(error) => {
                assert_eq!(decoder.poll().err(), Some(error), "errors are sticky");
                return false;
            }
        }
    }
}
