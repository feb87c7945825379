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
    // The header's fingerprint, at its usual place, becomes the model's, so that the fuzzer gets past it.
    if let Some(place) = stream.get_mut(9..41) {
        place.copy_from_slice(CODEC.fingerprint());
    }
    let config = DecoderConfig {
        binding: Binding::ByteStream,
        limits: Limits { max_frames: 64, max_chunk_bytes: 1 << 16, max_rewind: 64, target_horizon: 64 },
        memory_limit: 1 << 22,
        ..DecoderConfig::default()
    };
    let mut decoder = Decoder::new(CODEC.clone(), config).expect("a fresh decoder");
    let (low, high) = CODEC.model().y_range();
    for part in stream.chunks(usize::from(*first).max(1)) {
        if decoder.push(part).is_err() {
            return;
        }
        loop {
            match decoder.poll() {
                Ok(DecoderPoll::Event(DecoderEvent::Frames(frames))) => {
                    assert!(frames.y.iter().all(|y| (low..=high).contains(y)));
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
