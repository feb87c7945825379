//! What errors state: what is wrong, whose fault it is, where, and what was expected and found.
#![cfg(feature = "codec")]

use std::collections::BTreeSet;
use std::sync::Arc;

use midspan::codec::{
    Codec, Decoder, DecoderConfig, DecoderPoll, Encoder, EncoderConfig, Input, Push, SideDelivery, Together,
};
use midspan::error::{Error, ErrorKind, Fault, Limit};
use midspan::exact::{Arm, Network, Serial, State};
use midspan::model::CodecModel;
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::stream::{Binding, Chunk, JoinPoint, Limits, Poll, Reader, ReaderConfig, Writer};
use midspan::wire::{Dtype, Identity, Mode, OptionalField, StreamHeader};

/// E of the synthetic models.
const E: usize = 20;

fn codec(seed: u64) -> Arc<Codec> {
    Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), seed)).unwrap())
}

fn encoder_config() -> EncoderConfig {
    EncoderConfig::new(Identity::none())
}

fn encoder(config: EncoderConfig) -> Encoder {
    Encoder::new(codec(1), config).unwrap()
}

/// A stream of `frames` frames in chunks of `batch`.
fn stream(config: EncoderConfig, frames: usize, batch: usize) -> Vec<u8> {
    let mut encoder = encoder(config);
    let width = E;
    (0..frames / batch).for_each(|_| encoder.push_y(&vec![1; batch * width]).unwrap());
    encoder.end().unwrap();
    encoder.take_bytes().unwrap().to_vec()
}

fn first_error(mut decoder: Decoder, bytes: &[u8]) -> Option<Error> {
    decoder.push(bytes).unwrap();
    decoder.finish();
    loop {
        match decoder.poll() {
            Ok(DecoderPoll::Event(_)) => {}
            Ok(_) => return None,
            Err(error) => return Some(error),
        }
    }
}

fn refused(bytes: &[u8], config: DecoderConfig) -> Error {
    first_error(Decoder::new(codec(1), config).unwrap(), bytes).expect("the stream is refused")
}

/// A layered stream whose targets were all lost.
fn without_targets(stream: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(ReaderConfig::default());
    reader.push(stream).unwrap();
    let mut kept = Vec::new();
    while let Ok(Poll::Event(event)) = reader.poll() {
        if !matches!(event.chunk, Chunk::Target { .. }) {
            kept.extend_from_slice(&stream[event.offset as usize..][..event.bytes as usize]);
        }
    }
    kept
}

#[test]
fn fingerprints_and_host_digests_are_told_whole() {
    let (own, other) = (codec(1), codec(2));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut foreign = Encoder::new(other.clone(), encoder_config()).unwrap();
    let error = refused(&foreign.take_bytes().unwrap(), DecoderConfig::default());
    assert_eq!(error.digests(), Some((*own.fingerprint(), Some(*other.fingerprint()))));
    let (wanted, found) = (hex(&own.fingerprint()[..8]), hex(&other.fingerprint()[..8]));
    assert_eq!(
        error.to_string(),
        format!(
            "the stream was made with another model (fingerprint: {wanted}… wanted, {found}… found) at byte 9; \
             at fault: the model; error 501"
        )
    );
    let expecting = || DecoderConfig::default().host_digest(Some([0xAB; 32]));
    let stated = stream(encoder_config().host_digest(Some([0xCD; 32])), 1, 1);
    let error = refused(&stated, expecting());
    assert_eq!((error.kind(), error.digests()), (ErrorKind::WrongHost, Some(([0xAB; 32], Some([0xCD; 32])))));
    let text = error.to_string();
    assert!(text.contains("(host digest: abababababababab… wanted, cdcdcdcdcdcdcdcd… found)"), "{text}");
    let error = refused(&stream(encoder_config(), 1, 1), expecting());
    assert_eq!((error.kind(), error.digests()), (ErrorKind::WrongHost, Some(([0xAB; 32], None))));
    assert!(error.to_string().contains("(host digest: abababababababab… wanted, none found)"), "{error}");
}

/// An error from a limit of this end names the setting and is a resource limit. An error from a limit that the header
/// declares is the stream's fault. Number and offset are the same.
#[test]
fn a_limit_of_the_readers_own_is_told_apart() {
    let header = StreamHeader { max_frames: 8, max_chunk_bytes: 900, max_rewind: 6, ..StreamHeader::new([7; 32]) };
    // The output of a writer with larger limits, after a header that declares smaller ones.
    let made = |chunks: &dyn Fn(&mut Writer)| {
        let loose = StreamHeader { max_frames: 99, max_chunk_bytes: 9_000, max_rewind: 99, ..header.clone() };
        let mut writer = Writer::new(loose, Binding::ByteStream).unwrap();
        writer.take().unwrap();
        (0..9).for_each(|_| writer.frame(&[1]).unwrap());
        chunks(&mut writer);
        let mut start = Writer::new(header.clone(), Binding::ByteStream).unwrap();
        [&start.take().unwrap()[..], &writer.take().unwrap()].concat()
    };
    let lanes = |count: usize| vec![[1_u8]; count];
    let error = |bytes: &[u8], limits: Limits| {
        let mut reader = Reader::new(ReaderConfig::default().limits(limits));
        reader.push(bytes).unwrap();
        let error = loop {
            match reader.poll() {
                Ok(Poll::Event(_)) => {}
                Ok(poll) => panic!("{poll:?}"),
                Err(error) => break error,
            }
        };
        let again = reader.poll().unwrap_err();
        assert_eq!((error.detail(), error.fault()), (again.detail(), again.fault()), "sticky, facts and all");
        error
    };
    let most = Limits::FORMAT;
    let batch = |frames: u32| made(&move |writer| writer.batch(frames, &lanes(2)).unwrap());
    let long = |bytes: usize| made(&move |writer| writer.frame(&vec![1; bytes]).unwrap());
    let back = |index: u64| made(&move |writer| writer.rewind(index).unwrap());
    for (kind, name, own, allowed, beyond) in [
        (ErrorKind::TooManyFrames, "Limits::max_frames", most.max_frames(5), batch(8), batch(9)),
        (ErrorKind::ChunkTooLong, "Limits::max_chunk_bytes", most.max_chunk_bytes(70), long(899), long(900)),
        (ErrorKind::RewindTooFar, "Limits::max_rewind", most.max_rewind(3), back(3), back(2)),
    ] {
        let (limit, declared) = match kind {
            ErrorKind::TooManyFrames => (5, 8),
            ErrorKind::ChunkTooLong => (70, 900),
            _ => (3, 6),
        };
        // The header allows it, this end does not.
        let refused = error(&allowed, own);
        assert_eq!((refused.kind(), refused.fault()), (kind, Fault::Resource), "{refused}");
        assert_eq!(refused.limit(), Some(Limit::Own(name)));
        assert_eq!(refused.detail().and_then(|detail| detail.wanted()), Some(limit));
        assert!(refused.to_string().contains(&format!("this end allows at most {limit}: raise {name}")), "{refused}");
        // The header does not allow it, whatever this end does.
        for limits in [own, most] {
            let refused = error(&beyond, limits);
            assert_eq!((refused.kind(), refused.fault()), (kind, Fault::Stream), "{refused}");
            assert_eq!(refused.limit(), Some(Limit::Declared));
            assert_eq!(refused.detail().and_then(|detail| detail.wanted()), Some(declared));
            let text = refused.to_string();
            assert!(text.contains(&format!("the stream header declares at most {declared}")), "{text}");
        }
        assert_eq!(error(&allowed, own).offset(), error(&beyond, most).offset(), "where it stands");
    }
}

#[test]
fn a_horizon_and_a_memory_limit_of_the_decoders_own_are_told_apart() {
    let layered = encoder_config().mode(Mode::Layered).target_horizon(30);
    let bytes = stream(layered, 40, 20);
    let limits = |target_horizon| Limits::default().target_horizon(target_horizon);
    let error = refused(&bytes, DecoderConfig::default().limits(limits(12)));
    assert_eq!((error.kind(), error.fault()), (ErrorKind::TooManyFrames, Fault::Resource), "{error}");
    assert_eq!(error.limit(), Some(Limit::Own("Limits::target_horizon")));

    // One frame waits for its target, and checkpoints with it.
    let layered = encoder_config().mode(Mode::Layered).target_horizon(30);
    let mut encoder = encoder(layered);
    encoder.push_y(&[0; E]).unwrap();
    (0..5).for_each(|_| encoder.checkpoint().unwrap());
    let error = refused(&without_targets(&encoder.take_bytes().unwrap()), DecoderConfig::default().limits(limits(3)));
    assert_eq!((error.kind(), error.fault()), (ErrorKind::TooManyCheckpoints, Fault::Resource), "{error}");
    assert_eq!(error.limit(), Some(Limit::Own("Limits::target_horizon")));
    assert!(error.to_string().contains("5 checkpoints that wait, this end allows at most 4"), "{error}");

    for memory_limit in [900, 20_000] {
        let config = DecoderConfig::default().memory_limit(memory_limit);
        let error = refused(&stream(encoder_config(), 400, 400), config);
        assert_eq!((error.kind(), error.fault()), (ErrorKind::MemoryLimit, Fault::Resource), "{error}");
        assert_eq!(error.limit(), Some(Limit::Own("DecoderConfig::memory_limit")));
        assert_eq!(error.detail().and_then(|detail| detail.wanted()), Some(memory_limit as u64));
        assert!(error.detail().and_then(|detail| detail.found()) > Some(memory_limit as u64));
        assert!(error.to_string().contains("bytes for a chunk's frames and the context they lead to"), "{error}");
    }
    let small = |memory_limit| encoder_config().memory_limit(memory_limit);
    let error = Encoder::new(codec(1), small(900)).unwrap_err();
    assert_eq!((error.kind(), error.fault()), (ErrorKind::MemoryLimit, Fault::Resource), "{error}");
    assert_eq!(error.limit(), Some(Limit::Own("EncoderConfig::memory_limit")));
    let error = self::encoder(small(1 << 18)).push_y(&[0; 4_000 * E]).unwrap_err();
    assert_eq!(
        (error.kind(), error.limit()),
        (ErrorKind::MemoryLimit, Some(Limit::Own("EncoderConfig::memory_limit")))
    );
    assert!(error.to_string().contains("bytes for a push of these frames"), "{error}");
    let bytes = codec(1).model().to_bytes();
    let error = CodecModel::from_bytes(&bytes, 1_000).unwrap_err();
    assert_eq!((error.code(), error.limit()), (901, Some(Limit::Own("memory_limit"))));
}

/// Calls that are refused, each with the facts that the error's text must contain.
fn calls() -> Vec<(&'static str, Error, ErrorKind, Vec<String>)> {
    let mut calls = Vec::new();
    let mut call = |name, outcome: Result<(), Error>, kind, told: &[&str]| {
        let told = told.iter().map(|part| (*part).to_string()).collect();
        calls.push((name, outcome.expect_err(name), kind, told));
    };
    let (width, channels) = (E, SyntheticShape::tiny().hyper_prior);
    let codec = codec(1);
    assert_eq!(codec.model().hidden_width(), E);
    let (y_low, y_high) = codec.model().y_range();
    let config = encoder_config();
    let open = |config: EncoderConfig| Encoder::new(codec.clone(), config).map(drop);
    let new = || Encoder::new(codec.clone(), encoder_config()).unwrap();

    // Configuration: the caller's fields, with range and value.
    use ErrorKind::*;
    call("quality", open(config.clone().quality(9)), UnknownQuality, &["quality: 0", "9 found"]);
    call("lanes 0", open(config.clone().lanes(0)), BadConfig, &["lanes is 0, not 1 to 1024"]);
    call("lanes", open(config.clone().lanes(1025)), BadConfig, &["lanes is 1025, not 1 to 1024"]);
    for weight in [f32::NAN, -1.0] {
        let told = format!("rate_weight is {weight}, not finite and at least 0");
        call("weight", open(config.clone().rate_weight(Some(weight))), BadConfig, &[&told]);
    }
    let told = "max_frames_per_chunk is 0, not 1 to 1048576";
    call("frames", open(config.clone().max_frames_per_chunk(0)), BadConfig, &[told]);
    let told = "max_chunk_bytes is 71, not 72 to 1073741824";
    call("bytes", open(config.clone().max_chunk_bytes(71)), BadConfig, &[told]);
    let small = config.clone().max_chunk_bytes(72);
    call("one frame", open(small), BadConfig, &["max_chunk_bytes is 72, not ", " to 1073741824"]);
    let told = "length_offset is 16384, not 0 to 16383";
    call("length offset", open(config.clone().length_offset(Some(16_384))), BadConfig, &[told]);
    let told = "max_rewind is 1048577, not 0 to 1048576";
    call("rewind", open(config.clone().max_rewind((1 << 20) + 1)), BadConfig, &[told]);
    let horizon = config.clone().mode(Mode::Layered).target_horizon(0);
    call("horizon", open(horizon), BadConfig, &["target_horizon is 0, not 1 to 28672"]);
    let file = config.clone().file(true).binding(Binding::Message);
    call("file of messages", open(file), ReservedHeaderBits, &["file"]);
    let fields = |ids: &[u32]| {
        config.clone().fields(ids.iter().map(|id| OptionalField { id: *id, value: Default::default() }).collect())
    };
    call("fields that fall", open(fields(&[4, 2])), BadConfig, &["optional fields ascend"]);
    call("critical fields", open(fields(&[3])), BadConfig, &["even"]);
    let long = vec![OptionalField { id: 2, value: vec![0; 5_000].into() }];
    call("long fields", open(config.clone().fields(long)), BadConfig, &["40 to 4096"]);
    let wide = Encoder::new(codec.clone(), config.clone().max_chunk_bytes(140));
    let big = Codec::new(synthetic::model(&SyntheticShape { hidden: 300, ..SyntheticShape::tiny() }, 1)).unwrap();
    call(
        "switch to a wide model",
        wide.unwrap().switch_model(Arc::new(big), 0),
        BadConfig,
        &["max_chunk_bytes is 140"],
    );
    call("switch to a quality", new().switch_model(codec.clone(), 200), UnknownQuality, &["200 found"]);
    call("set a quality", new().set_quality(200), UnknownQuality, &["200 found"]);

    // Pushes: lengths and E, places and values.
    let e = width.to_string();
    let shape = |what: &str, found: usize| format!("{what} has {found} values, which are no whole frames of {width}");
    call("hidden", new().push_hidden(&vec![0.0; width + 1]), WrongShape, &[&shape("hidden", width + 1)]);
    call("no hidden", new().push_hidden(&[]), WrongShape, &["hidden is empty, a frame has ", &e]);
    call("y", new().push_y(&vec![0; 2 * width - 1]), WrongShape, &[&shape("y", 2 * width - 1)]);
    let told = format!("{} wanted, 1 found", 2 * channels);
    call("w", new().push_integers(&vec![0; 2 * width], &[0]), WrongShape, &["values of W", &told]);
    let told = format!("{} wanted, 3 found", 4 * width);
    call("exact", new().push_exact(Dtype::F32, &[0; 3]), WrongShape, &["bytes of hidden", &told]);
    let mut hidden = vec![0.0; 3 * width];
    (hidden[2 * width + 4], hidden[2 * width + 5]) = (f32::NEG_INFINITY, f32::NAN);
    call("infinite", new().push_hidden(&hidden), HiddenNotFinite, &["-inf in frame 2, element 4"]);
    call("quantise", new().quantise(&hidden).map(drop), HiddenNotFinite, &["-inf in frame 2, element 4"]);
    let mut y = vec![0; 3 * width];
    y[width + 3] = y_high + 1;
    let told = format!("{} in frame 1, element 3: {y_low} to {y_high} wanted", y_high + 1);
    call("y beyond", new().push_y(&y), ValueOutOfRange, &[&told]);
    let mut w = vec![0; channels];
    w[1] = i16::MIN;
    call("w beyond", new().push_integers(&vec![0; width], &w), ValueOutOfRange, &["-32768 in frame 0, element 1"]);
    let tight = config.clone().max_chunk_bytes(140);
    let exact = Encoder::new(codec.clone(), tight.clone()).unwrap().push_exact(Dtype::F32, &vec![0; 4 * width]);
    call("a long exact frame", exact, ChunkTooLong, &["this end allows at most 140: raise max_chunk_bytes"]);
    let extension = Encoder::new(codec.clone(), tight).unwrap().extension(27, &[0; 230]);
    call("a long extension", extension, ChunkTooLong, &["235 bytes in a chunk", "raise max_chunk_bytes"]);
    let bare = Arc::new(Codec::new(codec.model().clone().without_encoder()).unwrap());
    let mut without = Encoder::new(bare, config.clone()).unwrap();
    call("hidden without an encoder's part", without.push_hidden(&vec![0.0; width]), NotAvailable, &["give Y instead"]);
    call("y without an encoder's part", without.push_y(&vec![0; width]), NotAvailable, &["give W too"]);
    let mut pushed = new();
    (0..3).for_each(|_| pushed.push_y(&vec![0; width]).unwrap());
    call("rewind ahead", pushed.rewind(3), RewindTarget, &["index to go back to: 0 to 2 wanted, 3 found"]);
    (0..90).for_each(|_| pushed.push_y(&vec![0; width]).unwrap());
    call("rewind too far", pushed.rewind(3), RewindTooFar, &["90 frames back", "at most 64: raise max_rewind"]);
    pushed.end().unwrap();
    call("after the end", pushed.push_y(&vec![0; width]), AfterEnd, &["the stream has ended"]);
    call("hidden after the end", pushed.push_hidden(&vec![0.0; width]), AfterEnd, &[]);
    call("exact after the end", pushed.push_exact(Dtype::F32, &vec![0; 4 * width]), AfterEnd, &[]);
    call("reset after the end", pushed.reset(), AfterEnd, &[]);
    call("checkpoint after the end", pushed.checkpoint(), AfterEnd, &[]);
    call("quality after the end", pushed.set_quality(0), AfterEnd, &[]);
    call("switch after the end", pushed.switch_model(codec.clone(), 0), AfterEnd, &[]);
    call("rewind after the end", pushed.rewind(90), AfterEnd, &[]);
    call("extension after the end", pushed.extension(27, &[]), AfterEnd, &[]);
    call("end after the end", pushed.end(), AfterEnd, &[]);
    let mut stepped = new();
    let input = Input::Hidden(&hidden[..]);
    let outcome = Together::default().push(&mut [Push { encoder: &mut stepped, input }])[0];
    call("together", outcome, HiddenNotFinite, &["-inf in frame 2, element 4"]);

    // Writers.
    let header = StreamHeader { max_frames: 4, max_chunk_bytes: 100, max_rewind: 2, ..StreamHeader::new([7; 32]) };
    let writer = || Writer::new(header.clone(), Binding::ByteStream).unwrap();
    let wrong = StreamHeader { max_frames: 0, ..header.clone() };
    call(
        "header",
        Writer::new(wrong, Binding::ByteStream).map(drop),
        BadConfig,
        &["max_frames is 0, not 1 to 1048576"],
    );
    let wrong = StreamHeader { target_horizon: Some(3), ..header.clone() };
    call(
        "horizon",
        Writer::new(wrong, Binding::ByteStream).map(drop),
        BadConfig,
        &["target_horizon is for layered mode"],
    );
    call("batch of one", writer().batch(1, &[[1]]), BatchOfOne, &[]);
    call("batch", writer().batch(5, &[[1]]), TooManyFrames, &["5 frames in a chunk", "at most 4: raise max_frames"]);
    call("lanes", writer().batch(2, &[[1]; 3]), LaneCount, &["lanes: 1 to 2 wanted, 3 found"]);
    call("no lanes", writer().batch(2, &[[1]; 0]), LaneCount, &["lanes: 1 to 2 wanted, 0 found"]);
    call("long frame", writer().frame(&[1; 101]), ChunkTooLong, &["102 bytes in a chunk", "raise max_chunk_bytes"]);
    call("payload", writer().frame(&[1, 0]), SealNotCanonical, &["a payload that ends in 0x00"]);
    call("target in joined mode", writer().target(0, 1, &[[1]]), KindNotInMode, &[]);
    let told = "length offset: 0 to 16383 wanted, 16384 found";
    call("reset's length offset", writer().reset(0, 16_384, 0, 0), FieldOutOfRange, &[told]);
    call("quality's length offset", writer().quality(0, 16_384), FieldOutOfRange, &[told]);
    call("switch's length offset", writer().model_switch([7; 32], 0, 0, 16_384, 0, 0), FieldOutOfRange, &[told]);
    call("rewind", writer().rewind(0), RewindTarget, &["where there is no frame yet"]);
    call(
        "exact",
        writer().exact_frame(Dtype::F32, &[1], &[0; 3]),
        WrongShape,
        &["3 values, which are no whole frames of 4"],
    );
    let layered = StreamHeader { mode: Mode::Layered, target_horizon: Some(3), ..header.clone() };
    let mut layered = Writer::new(layered, Binding::ByteStream).unwrap();
    call("target ahead", layered.target(0, 1, &[[1]]), FrameNotPending, &["no target can name these frames"]);
    layered.frame(&[1]).unwrap();
    call("target of two lanes", layered.target(0, 1, &[[1], [1]]), LaneCount, &["lanes: 1 wanted, 2 found"]);
    layered.end(0, 0).unwrap();
    call("writer after the end", layered.frame(&[1]), AfterEnd, &[]);

    // Decoders and readers: what their callers do.
    let decoder = |config| Decoder::new(codec.clone(), config).unwrap();
    let messages = || DecoderConfig::default().binding(Binding::Message);
    call("bytes", decoder(messages()).push(&[1]), NotAvailable, &["bytes, where the binding is messages"]);
    let message = decoder(DecoderConfig::default()).push_message(&[1]);
    call("a message", message, NotAvailable, &["a message, where the binding is a byte stream"]);
    let mut finished = decoder(DecoderConfig::default());
    finished.finish();
    call("input after finish", finished.push(&[1]), AfterEnd, &["input after finish"]);
    call("conceal", decoder(DecoderConfig::default()).conceal(7, 1), FrameNotPending, &["frame 7"]);
    let (saved, restore) =
        (new().save(), |bytes: &[u8], limit| Encoder::restore(codec.clone(), bytes, limit).map(drop));
    call("a damaged session", restore(&saved[1..], 1 << 24), SavedSession, &["the crc differs"]);
    call("a short session", restore(&[1], 1 << 24), SavedSession, &["too short"]);
    let other = crate::codec(2);
    let (wanted, found) = (other.fingerprint()[0], codec.fingerprint()[0]);
    let told = [format!("fingerprint: {wanted:02x}"), format!(" wanted, {found:02x}")];
    let restored = Encoder::restore(other, &saved, 1 << 24).map(drop);
    call("a session of another model", restored, WrongModel, &[&told[0], &told[1]]);

    // Side indices.
    let mut encoder = new();
    let given = encoder.set_side(&[1], SideDelivery::Known);
    call("side indices for a model without", given, WrongSideIndices, &["the model takes none"]);
    let side = Arc::new(Codec::new(synthetic::model(&SyntheticShape::with_side(), 1)).unwrap());
    let mut encoder = Encoder::new(Arc::clone(&side), EncoderConfig::new(Identity::none())).unwrap();
    let given = encoder.set_side(&[1, 301], SideDelivery::Known);
    call("a side index above V", given, WrongSideIndices, &["side index: 0 to 300 wanted, 301 found"]);
    let pushed = encoder.push_y(&vec![0; side.model().hidden_width()]);
    call("no side index", pushed, WrongSideIndices, &["side indices, one a frame: 1 wanted, 0 found"]);
    let given = Decoder::new(side, DecoderConfig::default()).unwrap().give_side(&[1]);
    call("a side index that is not wanted", given, WrongSideIndices, &["0 wanted, 1 found"]);

    // The exact network and the model.
    let network = Network::new(codec.model().decoder_network(), Arm::Plain);
    let mut state = State::new(&network, 2);
    let mut run = |input: &[i16], quality| network.run(&mut state, input, quality, &mut Vec::new(), &Serial);
    call("network input", run(&[0; 3], 0), WrongShape, &["input has 3 values, which are no whole frames of 6"]);
    call("network quality", run(&[0; 6], 7), UnknownQuality, &["quality: 0", "7 found"]);
    run(&[0; 30], 0).unwrap();
    call("state ahead", state.truncate(6), RewindTarget, &["position to go back to: 0 to 5 wanted, 6 found"]);
    call("state too far", state.truncate(1), RewindTooFar, &["4 frames back", "at most 2: raise max_rewind"]);
    calls
}

/// If a writer, an encoder or a session refuses a call, the caller is at fault, never the stream. The error has no
/// offset, or that of the chunk that would have been written.
#[test]
fn every_error_of_a_call_blames_the_caller() {
    let mut kinds = BTreeSet::new();
    for (name, error, kind, told) in calls() {
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert_eq!(error.fault(), Fault::Caller, "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains("at fault: the caller"), "{name}: {text}");
        for part in told {
            assert!(text.contains(&part), "{name}: {part:?} is not in {text:?}");
        }
        kinds.insert(error.code());
    }
    // All of the 800s except 806, which a decoder reports to its caller, and 809 to 811, which have their own tests.
    let eights: BTreeSet<u16> = ErrorKind::ALL.iter().map(|kind| kind.code()).filter(|code| code / 100 == 8).collect();
    let missing: Vec<u16> = eights.difference(&kinds).copied().collect();
    assert_eq!(missing, [806, 809, 810, 811]);
    assert!(kinds.iter().any(|code| *code < 800), "numbers of the stream's rules too");
}

#[test]
fn a_call_that_is_refused_changes_nothing() {
    let width = E;
    let (mut tried, mut spared) = (encoder(encoder_config()), encoder(encoder_config()));
    let mut far = vec![0; 2 * width];
    far[width] = i16::MAX;
    for _ in 0..3 {
        assert!(tried.push_hidden(&[f32::NAN; E]).is_err());
        assert!(tried.push_y(&far).is_err() && tried.rewind(9).is_err() && tried.set_quality(9).is_err());
        assert!(tried.extension(27, &vec![0; 1 << 25]).is_err());
        tried.push_y(&vec![1; width]).unwrap();
        spared.push_y(&vec![1; width]).unwrap();
    }
    assert_eq!(tried.take_bytes().unwrap(), spared.take_bytes().unwrap());
}

#[test]
fn overdue_targets_and_joining_points_say_where() {
    let layered = encoder_config().mode(Mode::Layered).target_horizon(2).max_frames_per_chunk(1);
    let mut writer = encoder(layered);
    (0..4).for_each(|_| writer.push_y(&[0; E]).unwrap());
    let all = writer.take_bytes().unwrap();
    let error = refused(&without_targets(&all), DecoderConfig::default());
    assert_eq!((error.kind(), error.fault()), (ErrorKind::TargetOverdue, Fault::Caller));
    assert!(error.to_string().contains("conceal from frame 0"), "{error}");

    let header = StreamHeader::new(*codec(1).fingerprint());
    let mut joining = Reader::join(ReaderConfig::default(), header, JoinPoint { offset: 80, index: None });
    joining.push(&[1, b'a']).unwrap();
    let error = joining.poll().unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::IndexMismatch, 80));
    assert!(error.to_string().contains("neither a context reset nor a model switch"), "{error}");
}
