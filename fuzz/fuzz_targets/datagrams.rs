//! Datagrams beside a good stream: whatever they hold, they are answered with events, and the stream goes on to its end.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig};
use midspan::error::ErrorKind;
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::stream::{Binding, Limits, Message, MessageClass};
use midspan::wire::{Identity, Mode};

static CODEC: LazyLock<Arc<Codec>> =
    LazyLock::new(|| Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), 1)).expect("a valid model")));

/// Frames, a batch, a rewind, a reset, a checkpoint and the end: what needs a reliable path, and the targets.
static SENT: LazyLock<[Vec<Message>; 2]> = LazyLock::new(|| {
    let config = EncoderConfig::new(Identity::none()).mode(Mode::Layered).binding(Binding::Message).target_horizon(16).max_rewind(4);
    let mut encoder = Encoder::new(CODEC.clone(), config).expect("a fresh encoder");
    for round in 0..3 {
        encoder.push_y(&[round; 20]).expect("a frame");
        encoder.push_y(&[round + 1; 60]).expect("three frames");
        encoder.push_y(&[round + 2; 20]).expect("a frame");
        encoder.rewind(encoder.next_index() - 2).expect("within the limit");
        encoder.push_y(&[-round; 20]).expect("a frame");
        encoder.checkpoint().expect("an open stream");
        encoder.reset().expect("an open stream");
    }
    encoder.end().expect("an open stream");
    let all = std::iter::from_fn(|| encoder.pop_message().expect("messages"));
    let (targets, others) = all.partition(|message| message.class == MessageClass::Droppable);
    [others, targets]
});

/// Polls all there is. A target that passes its check and is wrong all the same shows in a digest alone.
fn drain(decoder: &mut Decoder) -> bool {
    loop {
        match decoder.poll() {
            Ok(DecoderPoll::Event(DecoderEvent::TargetsOverdue { index, count })) => {
                decoder.conceal(index, count).expect("overdue frames are pending");
            }
            Ok(DecoderPoll::Event(_)) => {}
            Ok(_) => return true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::DigestMismatchY, "a datagram ended the session");
                return false;
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let limits =
        Limits::FORMAT.max_frames(64).max_chunk_bytes(1 << 16).max_rewind(64).target_horizon(64).early_bytes(1 << 10);
    let config = DecoderConfig::default().binding(Binding::Message).limits(limits).memory_limit(1 << 22);
    let mut decoder = Decoder::new(CODEC.clone(), config).expect("a fresh decoder");
    let [others, targets] = &*SENT;
    let mut others = others.iter();
    // Steps of two bytes: what to push, and how many bytes of the rest it takes, or which target.
    let mut rest = data;
    while let [step, size, behind @ ..] = rest {
        let (bytes, behind) = behind.split_at(usize::from(*size).min(behind.len()));
        let target = &targets[usize::from(*size) % targets.len()].bytes;
        rest = behind;
        match step % 4 {
            0 => decoder.push_datagram(bytes).expect("no error yet"),
            1 => decoder.push_datagram(target).expect("no error yet"),
            // A target with some bytes written over.
            2 => {
                let mut changed = target.to_vec();
                for change in bytes.chunks_exact(2) {
                    let place = usize::from(change[0]) % changed.len();
                    changed[place] = change[1];
                }
                decoder.push_datagram(&changed).expect("no error yet");
            }
            _ => {
                if let Some(message) = others.next() {
                    decoder.push_message(&message.bytes).expect("no error yet");
                }
            }
        }
        if step & 4 == 0 && !drain(&mut decoder) {
            return;
        }
        assert!(decoder.memory_bytes() < 1 << 20);
    }
    others.for_each(|message| decoder.push_message(&message.bytes).expect("no error yet"));
    decoder.finish();
    drain(&mut decoder);
});
