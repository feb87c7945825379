//! Both ends of a link in one program: hidden states are encoded, sent as bytes in pieces of any size, and decoded.
//!
//! `cargo run --release -p midspan-examples --example two_ends`

use std::sync::Arc;

use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, SideDelivery};
use midspan::wire::Identity;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Both ends have the same model file; the stream's header names it by its fingerprint.
    let codec = Arc::new(Codec::from_bytes(include_bytes!("../crates/midspan-cli/model/codec.safetensors"), 1 << 30)?);
    let width = codec.model().hidden_width();
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::new(*b"example1")))?;
    let mut decoder = Decoder::new(codec, DecoderConfig::default())?;

    let mut received = 0;
    // A prompt of 20 frames in one chunk, then one frame at a time, as in generation.
    for frames in std::iter::once(20).chain([1; 12]) {
        // A stand-in for the output of the model's first blocks, [frames, width].
        let hidden: Vec<f32> = (0..frames * width).map(|i| (i as f32 * 0.7).sin()).collect();
        // This model takes the token of each frame. The stream carries those of the prompt; the far half chose the others.
        let tokens: Vec<u32> = (received..received + frames).map(|i| i as u32).collect();
        encoder.set_side(&tokens, if frames > 1 { SideDelivery::Sent } else { SideDelivery::Known })?;
        encoder.push_hidden(&hidden)?;
        let bytes = encoder.take_bytes()?; // only what is new
        println!("{frames} frames: {} bytes", bytes.len());
        // A transport may cut the bytes anywhere.
        for piece in bytes.chunks(7) {
            decoder.push(piece)?;
            while let DecoderPoll::Event(event) = decoder.poll()? {
                match event {
                    DecoderEvent::SideWanted { .. } => decoder.give_side(&tokens)?,
                    DecoderEvent::Frames(frames) => {
                        received += frames.hidden.len() / width; // [T, width], for the model's other blocks
                    }
                    _ => {}
                }
            }
        }
    }
    encoder.end()?;
    decoder.push(&encoder.take_bytes()?)?;
    while let DecoderPoll::Event(_) = decoder.poll()? {}
    assert_eq!(received, 32);
    println!("{received} frames arrived");
    Ok(())
}
