//! What the specification requires of an encoder besides correct bytes.
#![cfg(feature = "codec")]

use std::sync::Arc;

use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig};
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::wire::Identity;

/// [DEC-11] An encoder SHOULD send a checkpoint at least every 1,024 frames: this one does by default, with batches and
/// with single frames.
#[test]
fn a_checkpoint_at_least_every_1024_frames() {
    let codec = Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), 7)).unwrap());
    let width = SyntheticShape::tiny().hidden;
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap();
    encoder.push_y(&vec![0; width * 200]).unwrap();
    for _ in 0..900 {
        encoder.push_y(&vec![1; width]).unwrap();
    }
    for _ in 0..7 {
        encoder.push_y(&vec![0; width * 150]).unwrap();
    }
    encoder.end().unwrap();
    let mut decoder = Decoder::new(codec, DecoderConfig::default()).unwrap();
    decoder.push(&encoder.take_bytes().unwrap()).unwrap();
    decoder.finish();
    let mut verdicts = Vec::new();
    while let DecoderPoll::Event(event) = decoder.poll().unwrap() {
        if let DecoderEvent::Verdict { from, to, .. } = event {
            verdicts.push((from, to));
        }
    }
    assert!(verdicts.len() > 2 && verdicts.iter().all(|(from, to)| to - from <= 1_024), "{verdicts:?}");
    assert_eq!((verdicts[0].0, verdicts.last().unwrap().1), (0, 200 + 900 + 7 * 150));
    assert_eq!(decoder.confirmed_index(), 200 + 900 + 7 * 150);
}
