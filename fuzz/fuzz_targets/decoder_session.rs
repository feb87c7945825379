//! A decoder session with a small model: no bytes make it panic, and what it hands out stays in the declared ranges.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll};
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::stream::{Binding, Limits};

static CODEC: LazyLock<Arc<Codec>> =
    LazyLock::new(|| Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), 1)).expect("a valid model")));

fuzz_target!(|data: &[u8]| {
    let Some((first, stream)) = data.split_first() else { return };
    let mut stream = stream.to_vec();
    // Messages stand behind a u32le length each, as in the conformance vectors; with its highest bit set, datagrams.
    let binding = if first % 2 == 0 { Binding::ByteStream } else { Binding::Message };
    // The header's fingerprint, at its usual place, becomes the model's, so that the fuzzer gets past it.
    let start = if binding == Binding::Message { 13 } else { 9 };
    if let Some(place) = stream.get_mut(start..start + 32) {
        place.copy_from_slice(CODEC.fingerprint());
    }
    let config = DecoderConfig::default().binding(binding).limits(Limits::FORMAT.max_frames(64).max_chunk_bytes(1 << 16).max_rewind(64).target_horizon(64).early_bytes(1 << 12)).memory_limit(1 << 22);
    let mut decoder = Decoder::new(CODEC.clone(), config).expect("a fresh decoder");
    let (low, high) = CODEC.model().y_range();
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
        loop {
            match decoder.poll() {
                Ok(DecoderPoll::Event(DecoderEvent::Frames(frames))) => {
                    assert!(frames.integers.as_ref().unwrap().y.iter().all(|y| (low..=high).contains(y)));
                    assert!(frames.hidden.iter().all(|value| value.is_finite()));
                }
                Ok(DecoderPoll::Event(DecoderEvent::TargetsOverdue { index, count })) => {
                    decoder.conceal(index, count).expect("overdue frames are pending");
                }
                Ok(DecoderPoll::Event(_)) => {}
                Ok(DecoderPoll::NeedMore | DecoderPoll::End) => break,
                Err(error) => {
                    assert_eq!(decoder.poll().err(), Some(error), "errors are sticky");
                    return;
                }
            }
        }
    }
    decoder.finish();
    while let Ok(DecoderPoll::Event(_)) = decoder.poll() {}
});
