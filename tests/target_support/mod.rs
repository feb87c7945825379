//! Code shared by the tests of targets: models, busy layered streams, and what a decoder made of them.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, TargetRefusal};
use midspan::error::Error;
use midspan::model::synthetic::{self, Random, SyntheticShape};
use midspan::stream::{Binding, Message, MessageClass};
use midspan::wire::{CheckWidth, Dtype, Identity, Kind, Mode, Scope, Seed};

pub const MEMORY: usize = 1 << 30;

/// E 20: a frame's target is short.
pub fn narrow(seed: u64) -> Arc<Codec> {
    Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), seed)).unwrap())
}

/// E 900: no frame's target fits a datagram of 256 bytes.
pub fn wide(seed: u64) -> Arc<Codec> {
    let shape = SyntheticShape { hidden: 900, ..SyntheticShape::tiny() };
    Arc::new(Codec::new(synthetic::model(&shape, seed)).unwrap())
}

pub fn below(random: &mut Random, end: u64) -> u64 {
    random.next() % end
}

/// Frames of Y, `[T, E]`, mostly small, sometimes far out.
pub fn frames(codec: &Codec, count: usize, seed: u64) -> Vec<i16> {
    let (low, high) = codec.model().y_range();
    let mut random = Random::new(seed);
    let value = |_| {
        let small = random.within(-4, 4) as i16;
        if below(&mut random, 60) == 0 { (small * 280).clamp(low, high) } else { small }
    };
    (0..count * codec.model().hidden_width()).map(value).collect()
}

pub fn config() -> EncoderConfig {
    EncoderConfig::new(Identity::none())
        .mode(Mode::Layered)
        .binding(Binding::Message)
        .check(CheckWidth::One)
        .checkpoint_interval(7)
}

pub fn decoder_config() -> DecoderConfig {
    DecoderConfig::default().binding(Binding::Message)
}

pub fn open(codec: &Arc<Codec>) -> Decoder {
    Decoder::new(codec.clone(), decoder_config()).unwrap()
}

pub fn messages(encoder: &mut Encoder) -> Vec<Message> {
    std::iter::from_fn(|| encoder.pop_message().unwrap()).collect()
}

pub fn is_target(message: &Message) -> bool {
    message.class == MessageClass::Droppable
}

/// Everything that can be polled now.
pub fn drain(decoder: &mut Decoder) -> Result<Vec<DecoderEvent>, Error> {
    let mut events = Vec::new();
    while let DecoderPoll::Event(event) = decoder.poll()? {
        events.push(event);
    }
    Ok(events)
}

/// What a decoder handed out, by absolute index, and what it reported about targets.
#[derive(Debug, Default)]
pub struct Seen {
    pub y: BTreeMap<u64, Vec<i16>>,
    pub used: usize,
    pub parts: usize,
    pub early: usize,
    pub late: usize,
    pub damaged: usize,
    pub no_room: usize,
    pub hyper_priors: usize,
    pub ended: bool,
}

impl Seen {
    pub fn take(&mut self, width: usize, events: Vec<DecoderEvent>) {
        for event in events {
            match event {
                DecoderEvent::Targets(targets) => {
                    self.used += usize::from(!targets.concealed);
                    self.y.extend((targets.index..).zip(targets.y.chunks_exact(width).map(<[i16]>::to_vec)));
                }
                DecoderEvent::ExactFrame(exact) => {
                    drop(self.y.insert(exact.frame.index, exact.frame.integers.unwrap().y))
                }
                DecoderEvent::HyperPrior(hyper_prior) => self.hyper_priors += hyper_prior.count,
                DecoderEvent::TargetPart { .. } => self.parts += 1,
                DecoderEvent::TargetEarly { .. } => self.early += 1,
                DecoderEvent::TargetRefused { reason, .. } => match reason {
                    TargetRefusal::Late => self.late += 1,
                    TargetRefusal::NoRoom => self.no_room += 1,
                    _ => self.damaged += 1,
                },
                DecoderEvent::Rewound { index } => self.y.retain(|frame, _| *frame < index),
                DecoderEvent::Ended { .. } => self.ended = true,
                _ => {}
            }
        }
    }

    /// Number of targets that were answered, without those that are answered later.
    pub fn answers(&self) -> usize {
        self.used + self.parts + self.early + self.late + self.damaged + self.no_room
    }

    pub fn whole(&self) -> Vec<i16> {
        self.y.values().flatten().copied().collect()
    }
}

/// Frames with rewinds, resets, quality switches and exact frames among them: messages, and Y of the timeline.
pub fn busy_stream(codec: &Arc<Codec>, config: EncoderConfig, seed: u64) -> (Vec<Message>, Vec<i16>) {
    let width = codec.model().hidden_width();
    let mut encoder = Encoder::new(codec.clone(), config).unwrap();
    let mut random = Random::new(seed);
    let mut y: Vec<i16> = Vec::new();
    for step in 0..60 {
        match below(&mut random, 12) {
            0 => {
                let index = encoder.next_index().saturating_sub(below(&mut random, 5));
                if encoder.rewind(index).is_ok() {
                    y.truncate(index as usize * width);
                }
            }
            1 => encoder.reset().unwrap(),
            2 => encoder.set_quality(below(&mut random, 2) as u8).unwrap(),
            3 => {
                encoder.push_exact(Dtype::F16, &vec![0; 2 * width]).unwrap();
                y.extend(&encoder.last_integers().unwrap().y);
            }
            4 => {
                let part = frames(codec, 4, seed + step);
                encoder.push_y(&part).unwrap();
                y.extend(part);
            }
            _ => {
                let part = frames(codec, 1, seed + step);
                encoder.push_y(&part).unwrap();
                y.extend(part);
            }
        }
    }
    encoder.end().unwrap();
    (messages(&mut encoder), y)
}

/// Moves targets ahead of up to `lead` other messages, at random.
pub fn overtake(sent: &[Message], lead: u64, random: &mut Random) -> Vec<Message> {
    let mut order: Vec<(i64, usize)> = Vec::new();
    for (place, message) in sent.iter().enumerate() {
        let ahead = if is_target(message) { below(random, lead + 1) as i64 } else { 0 };
        // The header remains first.
        order.push(((place as i64 - ahead).max(0) * 2 - i64::from(is_target(message)), place));
    }
    order[0].0 = i64::MIN;
    order.sort();
    order.into_iter().map(|(_, place)| sent[place].clone()).collect()
}

/// A target of one frame with the check of [`Identity::none`].
pub fn named(index: u64, epoch: u32, payload: &[u8]) -> Vec<u8> {
    let scope = Scope {
        index,
        epoch,
        quality: 0,
        width: CheckWidth::Two,
        seed: Seed::NONE,
        side: midspan::wire::SideCover::None,
    };
    let mut body = (index as u16).to_le_bytes().to_vec();
    body.extend([epoch as u8, 0]);
    let check = midspan::wire::check::frame_check(Kind::Target, scope, [&body, payload]);
    [&[0xc2], &body[..], &check, payload, &[0]].concat()
}
