//! Saved sessions: no bytes behind a right crc make a restored session panic.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, SideDelivery};
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::stream::{Binding, Limits, Reader, ReaderConfig, Writer};
use midspan::wire::{Identity, Mode, StreamHeader};

static CODEC: LazyLock<Arc<Codec>> =
    LazyLock::new(|| Arc::new(Codec::new(synthetic::model(&SyntheticShape::with_side(), 1)).expect("a valid model")));

const LIMITS: Limits =
    Limits::FORMAT.max_frames(64).max_chunk_bytes(1 << 16).max_rewind(64).target_horizon(64).early_bytes(1 << 12);

/// A saved encoder and decoder in the middle of a layered stream, with an early target, a datagram that waits, side
/// indices of frames to come, and a chunk that waits for its own.
static SAVED: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let config = EncoderConfig::new(Identity::none()).mode(Mode::Layered).target_horizon(16).max_rewind(4);
    let mut encoder = Encoder::new(CODEC.clone(), config).expect("a fresh encoder");
    for value in 0..5 {
        let delivery = if value % 2 == 1 { SideDelivery::Sent } else { SideDelivery::Known };
        encoder.set_side(&[7], delivery).expect("a known index");
        encoder.push_y(&[value; 20]).expect("a frame");
    }
    let mut decoder = Decoder::new(CODEC.clone(), decoder_config()).expect("a fresh decoder");
    let bytes = encoder.take_bytes().expect("a byte stream");
    decoder.push(&bytes[..bytes.len() - 3]).expect("bytes");
    decoder.push_datagram(&early_target()).expect("a datagram");
    while let Ok(DecoderPoll::Event(event)) = decoder.poll() {
        if let DecoderEvent::SideWanted { index: ..4, .. } = event {
            decoder.give_side(&[7]).expect("it is wanted");
        }
    }
    encoder.set_side(&[8], SideDelivery::Sent).expect("a known index");
    decoder.push_datagram(b"\xc2 any bytes \0").expect("a datagram");
    [encoder.save(), decoder.save().expect("a session without events")]
});

/// The target of frame 9, as a message.
fn early_target() -> Vec<u8> {
    let header = StreamHeader { mode: Mode::Layered, target_horizon: Some(16), ..StreamHeader::new([0; 32]) };
    let mut writer = Writer::new(header, Binding::Message).expect("a good header");
    writer.batch(10, &[b"w"]).expect("ten frames");
    writer.target_part(9, 3..7, b"part").expect("a frame of the stream");
    let last = std::iter::from_fn(|| writer.pop_message().expect("messages")).last();
    last.map(|message| message.bytes.to_vec()).unwrap_or_default()
}

fn decoder_config() -> DecoderConfig {
    DecoderConfig::default().limits(LIMITS).memory_limit(1 << 22)
}

/// Bytes with a right crc: the input itself, or a saved session with the input's pairs (place, value) written over it.
fn forged(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut body = match SAVED.get(usize::from(kind >> 1)) {
        Some(saved) => saved[..saved.len() - 4].to_vec(),
        // The magic of today's saved sessions.
        None => return [&SAVED[0][..8], data].concat(),
    };
    for change in data.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % body.len();
        body[place] = change[2];
    }
    body
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let mut bytes = forged(*kind % 6, rest);
    bytes.extend(crc32(&bytes).to_le_bytes());
    if let Ok(mut encoder) = Encoder::restore(CODEC.clone(), &bytes, 1 << 22) {
        let _ = encoder.set_side(&[3, 300], SideDelivery::Known);
        let _ = encoder.push_y(&[1; 40]);
        let _ = encoder.rewind(encoder.next_index().saturating_sub(2));
        let _ = encoder.set_side(&[3], SideDelivery::Sent);
        let _ = encoder.push_y(&[1; 20]);
        let _ = encoder.end();
        Encoder::restore(CODEC.clone(), &encoder.save(), 1 << 22).expect("what an encoder saved");
    }
    if let Ok(mut decoder) = Decoder::restore(CODEC.clone(), &[], decoder_config(), &bytes) {
        let _ = decoder.push(rest);
        let _ = decoder.push_datagram(rest);
        decoder.finish();
        while let Ok(DecoderPoll::Event(event)) = decoder.poll() {
            match event {
                DecoderEvent::TargetsOverdue { index, count } => {
                    decoder.conceal(index, count).expect("overdue frames are pending");
                }
                DecoderEvent::SideWanted { count, .. } => {
                    decoder.give_side(&vec![300; count]).expect("as many as wanted, and known");
                }
                _ => {}
            }
        }
    }
    for binding in [Binding::ByteStream, Binding::Message] {
        if let Ok(mut reader) = Reader::restore(ReaderConfig::default().binding(binding).limits(LIMITS), &bytes) {
            reader.finish();
            while let Ok(midspan::stream::Poll::Event(_)) = reader.poll() {}
        }
    }
    if let Ok(mut writer) = Writer::restore(&bytes) {
        let _ = writer.frame(b"a");
        let _ = writer.end(1, 2);
    }
});

/// CRC-32 of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}
