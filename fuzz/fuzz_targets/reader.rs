//! The container reader: any bytes give events, a wait, an end or one sticky error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use midspan::stream::{Binding, Limits, Poll, Reader, ReaderConfig};

const LIMITS: Limits =
    Limits::FORMAT.max_frames(4096).max_chunk_bytes(1 << 20).max_rewind(4096).target_horizon(4096).early_bytes(1 << 12);

fuzz_target!(|data: &[u8]| {
    let Some((first, stream)) = data.split_first() else { return };
    let binding = if first % 2 == 0 { Binding::ByteStream } else { Binding::Message };
    let mut reader = Reader::new(ReaderConfig::default().binding(binding).limits(LIMITS));
    if binding == Binding::ByteStream {
        reader.push(stream).expect("a fresh reader takes bytes");
    } else {
        // Messages behind a u32le length each, as in the conformance vectors; with its highest bit set, datagrams.
        let mut rest = stream;
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length);
            let (message, behind) = behind.split_at((length as usize & 0x7fff_ffff).min(behind.len()));
            let pushed = if length >> 31 == 0 { reader.push_message(message) } else { reader.push_target(message) };
            pushed.expect("no poll yet, no error");
            rest = behind;
        }
    }
    reader.finish();
    let mut covered = 0;
    loop {
        match reader.poll() {
            Ok(Poll::Event(event)) => {
                assert_eq!(event.offset, covered, "events cover the input without a gap");
                covered += event.bytes;
            }
            Ok(Poll::NeedMore) => panic!("the input was finished"),
            Ok(Poll::End) => break,
            Err(error) => {
                assert_eq!(reader.poll(), Err(error), "errors are sticky");
                break;
            }
        }
    }
});
