//! Layered mode over a path that loses and reorders messages. Shows what targets cost in datagrams of limited size, and
//! what happens to targets that overtake their hyper-priors or never come.
//!
//! `cargo run --release -p midspan-examples --example datagrams -- TEXT [FRAMES]`

use std::sync::Arc;

use candle_core::{Device, Tensor};
use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, SideDelivery};
use midspan::model::synthetic::Random;
use midspan::stream::{Binding, Message, MessageClass};
use midspan::wire::{Identity, Mode};
use midspan_cli::bundle::Bundle;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The finest quality of the default model.
const QUALITY: u8 = 5;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let text = std::fs::read_to_string(arguments.next().ok_or("usage: datagrams TEXT [FRAMES]")?)?;
    let frames = arguments.next().map_or(Ok(2048), |frames| frames.parse())?;
    let bundle = Bundle::embedded()?;
    let context = bundle.gpt.config().context;
    let ids = bundle.tokenizer.encode_long(&text[..text.len().min(40 * frames)], 1)?;
    // [T, width] of every sequence, and its T tokens
    let mut sequences = Vec::new();
    for ids in ids[..frames.min(ids.len())].chunks(context) {
        let tokens = Tensor::from_slice(ids, (1, ids.len()), &Device::Cpu)?;
        let hidden = bundle.gpt.forward_head(&tokens, None)?.flatten_all()?.to_vec1::<f32>()?;
        sequences.push((hidden, ids.to_vec()));
    }
    let frames: usize = sequences.iter().map(|(_, ids)| ids.len()).sum();

    println!("{frames} frames, quality {QUALITY}\nlimit  frames a push  target messages  mean  largest  bytes a frame");
    for limit in [None, Some(1200), Some(256)] {
        for batch in [1, 16] {
            let sent = encode(&bundle.codec, &sequences, batch, limit)?;
            let sizes: Vec<usize> = sent.iter().filter(|m| is_target(m)).map(|m| m.bytes.len()).collect();
            let all: usize = sizes.iter().sum();
            println!(
                "{:>5}  {batch:>13}  {:>15}  {:>4.0}  {:>7}  {:>13.1}",
                limit.map_or("none".into(), |limit| limit.to_string()),
                sizes.len(),
                all as f64 / sizes.len() as f64,
                sizes.iter().max().unwrap_or(&0),
                all as f64 / frames as f64
            );
        }
    }

    println!("\nmessages ahead  lost  targets  early  used  parts  refused  elements concealed");
    let sent = encode(&bundle.codec, &sequences, 1, Some(256))?;
    for (lead, lost) in [(0, 0), (4, 0), (64, 0), (1000, 0), (64, 5)] {
        deliver(&bundle.codec, &sent, lead, lost)?;
    }
    Ok(())
}

fn is_target(message: &Message) -> bool {
    message.class == MessageClass::Droppable
}

/// The messages of all sequences, each with its own context.
fn encode(
    codec: &Arc<Codec>,
    sequences: &[(Vec<f32>, Vec<u32>)],
    batch: usize,
    limit: Option<u32>,
) -> Outcome<Vec<Message>> {
    let mut encoder = Encoder::new(
        codec.clone(),
        EncoderConfig::new(Identity::none())
            .mode(Mode::Layered)
            .binding(Binding::Message)
            .quality(QUALITY)
            .datagram_limit(limit),
    )?;
    for (i, (hidden, ids)) in sequences.iter().enumerate() {
        if i > 0 {
            encoder.reset()?;
        }
        // This model takes the tokens. The stream carries them, ahead of their frames.
        for (hidden, ids) in hidden.chunks(batch * codec.model().hidden_width()).zip(ids.chunks(batch)) {
            encoder.set_side(ids, SideDelivery::Sent)?;
            encoder.push_hidden(hidden)?;
        }
    }
    encoder.end()?;
    let mut sent = Vec::new();
    while let Some(message) = encoder.pop_message()? {
        sent.push(message);
    }
    Ok(sent)
}

/// Passes the messages to a decoder. Targets come up to `lead` messages early, and `lost` percent of them are lost.
fn deliver(codec: &Arc<Codec>, sent: &[Message], lead: u64, lost: u64) -> Outcome<()> {
    let mut random = Random::new(1);
    let mut below = |end: u64| random.next() % end;
    let mut order: Vec<(u64, &Message)> = Vec::new();
    for (place, message) in (0..).zip(sent) {
        match is_target(message) {
            true if below(100) < lost => {}
            true => order.push((place - below(lead + 1).min(place), message)),
            false => order.push((place, message)),
        }
    }
    order.sort_by_key(|(place, _)| *place);
    let targets = order.iter().filter(|(_, message)| is_target(message)).count();

    let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default().binding(Binding::Message))?;
    let (mut early, mut used, mut parts, mut refused, mut concealed) = (0, 0, 0, 0, 0);
    for (_, message) in order {
        // The transport's reliable stream and its datagrams.
        if is_target(message) {
            decoder.push_datagram(&message.bytes)?;
        } else {
            if matches!(message.bytes[..], [0xC5 | 0xCA, .., 0]) {
                // Targets that have not come when a context ends are concealed.
                while let Some(index) = decoder.oldest_pending() {
                    let missing = decoder.missing_elements(index).unwrap_or_default();
                    concealed += missing.iter().map(|elements| elements.len()).sum::<usize>();
                    decoder.conceal(index, 1)?;
                    while let DecoderPoll::Event(_) = decoder.poll()? {}
                }
            }
            decoder.push_message(&message.bytes)?;
        }
        while let DecoderPoll::Event(event) = decoder.poll()? {
            match event {
                DecoderEvent::TargetEarly { .. } => early += 1,
                DecoderEvent::Targets(_) => used += 1,
                DecoderEvent::TargetPart { .. } => parts += 1,
                DecoderEvent::TargetRefused { .. } => refused += 1,
                _ => {}
            }
        }
    }
    println!("{lead:>14}  {lost:>3}%  {targets:>7}  {early:>5}  {used:>4}  {parts:>5}  {refused:>7}  {concealed:>18}");
    Ok(())
}
