//! Events and errors do not depend on how the input is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use midspan::error::Error;
use midspan::stream::{Event, Poll, Reader, ReaderConfig};

fn drain(reader: &mut Reader, events: &mut Vec<Event>) -> Result<(), Error> {
    loop {
        match reader.poll()? {
            Poll::Event(event) => events.push(event),
            Poll::NeedMore | Poll::End => return Ok(()),
        }
    }
}

fn run<'a>(parts: impl Iterator<Item = &'a [u8]>) -> (Vec<Event>, Option<Error>) {
    let mut reader = Reader::new(ReaderConfig::default());
    let mut events = Vec::new();
    for part in parts {
        if let Err(error) = reader.push(part).and_then(|()| drain(&mut reader, &mut events)) {
            return (events, Some(error));
        }
    }
    reader.finish();
    let error = drain(&mut reader, &mut events).err();
    (events, error)
}

fuzz_target!(|data: &[u8]| {
    let Some((first, stream)) = data.split_first() else { return };
    let whole = run(std::iter::once(stream));
    assert_eq!(run(stream.chunks(1)), whole);
    assert_eq!(run(stream.chunks(usize::from(*first).max(1))), whole);
});
