//! Code shared by the tests of sessions: random models and frames, and a decoder driven to its end.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;

use midspan::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, SideDelivery, Verdict,
};
use midspan::error::Error;
use midspan::model::synthetic::{self, Random, SyntheticShape};
use midspan::wire::{CheckWidth, Identity, Mode};

pub fn codec(seed: u64) -> Arc<Codec> {
    Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), seed)).unwrap())
}

/// Frames of Y, `[T, E]`, mostly small, sometimes far out; some frames are far out, and some equal the previous one.
pub fn frames(count: usize, seed: u64) -> Vec<i16> {
    let width = SyntheticShape::tiny().hidden;
    let mut random = Random::new(seed);
    let mut next = || random.next() >> 33;
    let mut all: Vec<i16> = Vec::new();
    for frame in 0..count {
        let kind = next() % 8;
        if kind < 2 && frame > 0 {
            all.extend_from_within((frame - 1) * width..);
            continue;
        }
        all.extend((0..width).map(|_| {
            let number = next();
            let small = number as i16 % 7;
            if number >> 25 == 0 || kind == 2 { small * 280 } else { small }
        }));
    }
    all
}

#[derive(Debug, Default, Clone, PartialEq)]
pub struct Seen {
    pub w: Vec<i16>,
    pub y: Vec<i16>,
    pub hidden: Vec<f32>,
    pub verdicts: Vec<Verdict>,
    pub events: usize,
    pub ended: bool,
}

/// Polls until more is needed; keeps the surviving timeline.
pub fn drain(decoder: &mut Decoder, seen: &mut Seen) -> Result<bool, Error> {
    let (width, channels) = (SyntheticShape::tiny().hidden, SyntheticShape::tiny().hyper_prior);
    loop {
        match decoder.poll()? {
            DecoderPoll::Event(event) => {
                seen.events += 1;
                match event {
                    DecoderEvent::Frames(frames) => {
                        let integers = frames.integers.unwrap();
                        seen.w.extend(integers.w);
                        seen.y.extend(integers.y);
                        seen.hidden.extend(frames.hidden);
                    }
                    DecoderEvent::ExactFrame(exact) => {
                        let integers = exact.frame.integers.unwrap();
                        seen.w.extend(integers.w);
                        seen.y.extend(integers.y);
                        seen.hidden.extend(exact.frame.hidden);
                    }
                    DecoderEvent::HyperPrior(hyper_prior) => seen.w.extend(hyper_prior.w),
                    DecoderEvent::Targets(targets) => {
                        let end = (targets.index as usize + targets.count) * width;
                        if seen.y.len() < end {
                            seen.y.resize(end, i16::MIN);
                            seen.hidden.resize(end, f32::NAN);
                        }
                        let start = targets.index as usize * width;
                        seen.y[start..end].copy_from_slice(&targets.y);
                        seen.hidden[start..end].copy_from_slice(&targets.hidden);
                    }
                    DecoderEvent::Rewound { index } => {
                        seen.w.truncate(index as usize * channels);
                        seen.y.truncate(index as usize * width);
                        seen.hidden.truncate(index as usize * width);
                    }
                    DecoderEvent::Verdict { verdict, .. } => seen.verdicts.push(verdict),
                    _ => {}
                }
            }
            DecoderPoll::NeedMore => return Ok(false),
            DecoderPoll::End => {
                seen.ended = true;
                return Ok(true);
            }
        }
    }
}

pub fn decode(codec: &Arc<Codec>, bytes: &[u8]) -> (Seen, Result<(), Error>) {
    decode_with(codec, bytes, DecoderConfig::default())
}

pub fn decode_with(codec: &Arc<Codec>, bytes: &[u8], config: DecoderConfig) -> (Seen, Result<(), Error>) {
    let mut decoder = Decoder::new(codec.clone(), config).unwrap();
    let mut seen = Seen::default();
    decoder.push(bytes).unwrap();
    decoder.finish();
    let outcome = drain(&mut decoder, &mut seen).map(drop);
    (seen, outcome)
}

pub fn config(mode: Mode, check: CheckWidth, lanes: u16) -> EncoderConfig {
    EncoderConfig::new(Identity::none()).mode(mode).check(check).lanes(lanes).checkpoint_interval(16)
}

/// Encodes `y` in batches of `batch` frames and ends the stream; W comes back too.
pub fn encode(codec: &Arc<Codec>, config: EncoderConfig, y: &[i16], batch: usize) -> (Vec<u8>, Vec<i16>) {
    let mut encoder = Encoder::new(codec.clone(), config).unwrap();
    let mut w = Vec::new();
    for part in y.chunks(batch * codec.model().hidden_width()) {
        encoder.push_y(part).unwrap();
        w.extend_from_slice(&encoder.last_integers().unwrap().w);
    }
    encoder.end().unwrap();
    (encoder.take_bytes().unwrap().to_vec(), w)
}

/// Says that the next frames have no side indices, where the model takes any. The stream carries that.
pub fn send_none(encoder: &mut Encoder, frames: usize) {
    if let Some(side) = encoder.codec().model().side() {
        let none = vec![side.vocabulary(); frames];
        encoder.set_side(&none, SideDelivery::Sent).unwrap();
    }
}

/// The default model; None in the packaged crate, which leaves it out.
pub fn default_model() -> Option<Arc<Codec>> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    let bytes = crates.exists().then(|| std::fs::read(crates.join("midspan-cli/model/codec.safetensors")).unwrap())?;
    Some(Arc::new(Codec::from_bytes(&bytes, 1 << 30).unwrap()))
}
