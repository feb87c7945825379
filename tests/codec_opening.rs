//! How a session opens: the model, the host, joining, and switching to another model (spec 6.6, 7.4).
#![cfg(feature = "codec")]

mod codec_support;

use std::sync::Arc;

use codec_support::{Seen, codec, decode, decode_with, drain, encode, frames};
use midspan::codec::{Codec, Decoder, DecoderConfig, Encoder, EncoderConfig, Verdict};
use midspan::error::{Error, ErrorKind};
use midspan::wire::Identity;

#[test]
fn the_wrong_model_and_the_wrong_host_are_refused_before_the_first_frame() {
    let (one, other) = (codec(8), codec(9));
    let host = EncoderConfig::new(Identity::none()).host_digest(Some([1; 32]));
    let (bytes, _) = encode(&one, host, &frames(2, 1), 1);
    let (seen, outcome) = decode(&other, &bytes);
    assert_eq!((seen.events, outcome.unwrap_err().kind()), (0, ErrorKind::WrongModel));
    let config = DecoderConfig::default().host_digest(Some([2; 32]));
    let (seen, outcome) = decode_with(&one, &bytes, config);
    assert_eq!((seen.events, outcome.unwrap_err().kind()), (0, ErrorKind::WrongHost));
    assert_eq!(
        decode_with_models(&other, std::slice::from_ref(&one), &bytes).1,
        Ok(()),
        "a further model is found by its fingerprint"
    );
}

/// Decodes with further models that the stream may name.
fn decode_with_models(codec: &Arc<Codec>, models: &[Arc<Codec>], bytes: &[u8]) -> (Seen, Result<(), Error>) {
    let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default()).unwrap();
    models.iter().for_each(|model| decoder.add_model(model.clone()));
    let mut seen = Seen::default();
    decoder.push(bytes).unwrap();
    decoder.finish();
    let outcome = drain(&mut decoder, &mut seen).map(drop);
    (seen, outcome)
}

#[test]
fn a_model_switch_begins_a_new_context_with_the_other_model() {
    let (one, other) = (codec(11), codec(12));
    let mut encoder = Encoder::new(one.clone(), EncoderConfig::new(Identity::none())).unwrap();
    let y = frames(6, 3);
    encoder.push_y(&y[..60]).unwrap();
    encoder.switch_model(other.clone(), 1).unwrap();
    encoder.push_y(&y[60..]).unwrap();
    encoder.end().unwrap();
    let bytes = encoder.take_bytes().unwrap();
    assert_eq!(decode(&one, &bytes).1.unwrap_err().kind(), ErrorKind::WrongModel);
    let (seen, outcome) = decode_with_models(&one, &[other], &bytes);
    assert_eq!(outcome, Ok(()));
    assert_eq!(seen.y, y);
}

#[test]
fn a_decoder_joins_at_a_context_reset() {
    use midspan::stream::{Chunk, JoinPoint, Poll, Reader, ReaderConfig};
    let codec = codec(15);
    let y = frames(7, 6);
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap();
    encoder.push_y(&y[..60]).unwrap();
    encoder.reset().unwrap();
    encoder.push_y(&y[60..]).unwrap();
    encoder.end().unwrap();
    let bytes = encoder.take_bytes().unwrap();
    let mut reader = Reader::new(ReaderConfig::default());
    reader.push(&bytes).unwrap();
    reader.finish();
    let offset = loop {
        match reader.poll().unwrap() {
            Poll::Event(event) if matches!(event.chunk, Chunk::Reset(_)) => break event.offset,
            Poll::Event(_) => {}
            other => panic!("{other:?}"),
        }
    };
    let header = reader.header().unwrap().clone();
    let point = JoinPoint { offset, ..JoinPoint::default() };
    let mut decoder = Decoder::join(codec, DecoderConfig::default(), header, point).unwrap();
    decoder.push(&bytes[offset as usize..]).unwrap();
    decoder.finish();
    let mut seen = Seen::default();
    assert_eq!(drain(&mut decoder, &mut seen), Ok(true));
    assert_eq!(seen.y, y[60..]);
    assert_eq!(seen.verdicts, [Verdict::YConfirmed]);
}

#[test]
fn a_decoder_that_joins_finds_its_model() {
    use midspan::stream::{Chunk, JoinPoint, Poll, Reader, ReaderConfig};
    let (one, other) = (codec(11), codec(12));
    let y = frames(9, 6);
    let mut encoder = Encoder::new(one.clone(), EncoderConfig::new(Identity::none())).unwrap();
    encoder.push_y(&y[..60]).unwrap();
    encoder.switch_model(other.clone(), 1).unwrap();
    encoder.push_y(&y[60..120]).unwrap();
    encoder.reset().unwrap();
    encoder.push_y(&y[120..]).unwrap();
    encoder.end().unwrap();
    let bytes = encoder.take_bytes().unwrap();
    let mut reader = Reader::new(ReaderConfig::default());
    reader.push(&bytes).unwrap();
    reader.finish();
    let mut places = Vec::new();
    while let Poll::Event(event) = reader.poll().unwrap() {
        if matches!(event.chunk, Chunk::Reset(_) | Chunk::ModelSwitch(_)) {
            places.push(event.offset);
        }
    }
    let header = reader.header().unwrap().clone();
    let join = |codec: &Arc<Codec>, models: Vec<Arc<Codec>>, offset: u64| {
        let point = JoinPoint { offset, ..JoinPoint::default() };
        let mut decoder = Decoder::join(codec.clone(), DecoderConfig::default(), header.clone(), point).unwrap();
        models.into_iter().for_each(|model| decoder.add_model(model));
        decoder.push(&bytes[offset as usize..]).unwrap();
        decoder.finish();
        let mut seen = Seen::default();
        drain(&mut decoder, &mut seen).map(|_| seen.y)
    };
    // Joins at a model switch, then at a reset of the model that was switched to.
    for (place, expected) in [(places[0], &y[60..]), (places[1], &y[120..])] {
        assert_eq!(join(&other, vec![], place).unwrap(), expected);
        assert_eq!(join(&one, vec![other.clone()], place).unwrap(), expected);
    }
    assert_eq!(join(&one, vec![], places[0]).unwrap_err().kind(), ErrorKind::WrongModel);
    assert_eq!(join(&one, vec![], places[1]).unwrap_err().kind(), ErrorKind::WrongModelAtReset);
}

/// [HOST-1] Another host digest, and a missing one, in every way to open a decoder.
#[test]
fn a_host_that_is_expected_has_to_be_stated() {
    use midspan::stream::{JoinPoint, Reader, ReaderConfig};
    let codec = codec(8);
    let expecting = |host_digest| DecoderConfig::default().host_digest(host_digest);
    for stated in [None, Some([1; 32]), Some([2; 32])] {
        let config = EncoderConfig::new(Identity::none()).host_digest(stated);
        let mut encoder = Encoder::new(codec.clone(), config).unwrap();
        encoder.push_y(&frames(2, 1)).unwrap();
        let place = encoder.take_bytes().unwrap();
        encoder.reset().unwrap();
        encoder.push_y(&frames(1, 2)).unwrap();
        encoder.end().unwrap();
        let rest = encoder.take_bytes().unwrap();
        let mut reader = Reader::new(ReaderConfig::default());
        reader.push(&place).unwrap();
        reader.poll().unwrap();
        let header = reader.header().unwrap().clone();
        // The offset is that of the digest, after fingerprint, model version and quality, or that of the flags if there
        // is no digest.
        let at = if stated.is_some() { 9 + 32 + 1 + 1 } else { 7 };
        let refused = |error: Error| assert_eq!((error.kind(), error.offset()), (ErrorKind::WrongHost, at));
        for expected in [None, Some([1; 32])] {
            let good = expected.is_none() || expected == stated;
            let whole = [&place[..], &rest].concat();
            let (seen, outcome) = decode_with(&codec, &whole, expecting(expected));
            let point = JoinPoint { offset: place.len() as u64, index: Some(2) };
            let joined = Decoder::join(codec.clone(), expecting(expected), header.clone(), point);
            let mut saving = Decoder::new(codec.clone(), expecting(None)).unwrap();
            saving.push(&place).unwrap();
            drain(&mut saving, &mut Seen::default()).unwrap();
            let restored = Decoder::restore(codec.clone(), &[], expecting(expected), &saving.save().unwrap());
            if good {
                assert_eq!((seen.ended, outcome), (true, Ok(())));
                for (session, bytes) in [(joined, &rest[..]), (restored, &rest)] {
                    let mut session = session.unwrap();
                    session.push(bytes).unwrap();
                    session.finish();
                    assert_eq!(drain(&mut session, &mut Seen::default()), Ok(true));
                }
            } else {
                assert_eq!(seen.events, 0, "before the first event");
                refused(outcome.unwrap_err());
                refused(joined.unwrap_err());
                refused(restored.unwrap_err());
            }
        }
    }
}
