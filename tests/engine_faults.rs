//! Engines that give something other than they were asked for: sessions refuse it, and no other stream notices.
#![cfg(feature = "codec")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use midspan::check::StreamChecks;
use midspan::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Input, Push, Together,
};
use midspan::engine::payload::LaneFault;
use midspan::engine::quantiser::InSteps;
use midspan::engine::{
    ChunkSpec, CodedChunk, DecodeJob, DecodeResults, DecodeSpec, Decoded, EncodeJob, Engine, Integers, Layout,
    NetworkName, PrepareJob, Source, TargetPiece,
};
use midspan::error::{Error, ErrorKind, Result};
use midspan::exact::{Executor, State};
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::wire::{Identity, Mode, Payload};

type Prepared = Vec<Result<InSteps>>;
type Results = DecodeResults<Vec<f32>>;

/// What an engine does to what the CPU's engine gives.
#[derive(Clone, Copy)]
enum Change {
    Prepared(fn(&mut Prepared)),
    Coded(fn(&mut Vec<CodedChunk>)),
    Results(fn(&mut Results)),
    FramesPerCall(fn(usize) -> usize),
    /// The last sum of side indices is left out.
    Sums,
}

/// The CPU's engine with a change.
struct Changed {
    codec: Codec,
    change: Change,
    on: AtomicBool,
}

impl Changed {
    fn new(change: Change) -> Arc<Changed> {
        Changed::with(codec(), change)
    }

    fn with(codec: Codec, change: Change) -> Arc<Changed> {
        Arc::new(Changed { codec, change, on: AtomicBool::new(false) })
    }

    /// The sums of a job, or the changed ones.
    fn sums(&self, sums: &[i16]) -> Vec<i16> {
        let mut sums = sums.to_vec();
        if let (Change::Sums, true, Some(last)) = (self.change, self.is_on(), sums.last_mut()) {
            *last = 0;
        }
        sums
    }

    fn turn(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
}

impl Engine for Changed {
    type Context = State;
    type Input = [f32];
    type Hidden = Vec<f32>;
    type Prepared = InSteps;
    type Partial = <Codec as Engine>::Partial;
    type Scratch = <Codec as Engine>::Scratch;
    type CallScratch = <Codec as Engine>::CallScratch;
    type Error = Error;

    fn codec(&self) -> &Codec {
        &self.codec
    }

    fn context(&self, network: NetworkName, max_rewind: u32) -> Option<State> {
        self.codec.context(network, max_rewind)
    }

    fn context_bytes(&self, network: NetworkName, max_rewind: u32) -> usize {
        self.codec.context_bytes(network, max_rewind)
    }

    fn frames_per_call(&self, remaining: usize, limit: usize) -> usize {
        match self.change {
            Change::FramesPerCall(change) if self.is_on() => change(remaining),
            _ => remaining.min(limit),
        }
    }

    fn frames(&self, hidden: &[f32]) -> Result<usize> {
        self.codec.frames(hidden)
    }

    fn prepare(&self, jobs: &[PrepareJob<'_, Self>], executor: &dyn Executor) -> Prepared {
        let own = |job: &PrepareJob<'_, Self>| {
            let PrepareJob { hidden, quality, refuses_clipping, frames_per_chunk } = *job;
            self.codec
                .prepare(&[PrepareJob { hidden, quality, refuses_clipping, frames_per_chunk }], executor)
                .remove(0)
        };
        let mut prepared = jobs.iter().map(own).collect();
        if let (Change::Prepared(change), true) = (self.change, self.is_on()) {
            change(&mut prepared);
        }
        prepared
    }

    fn encode(
        &self,
        jobs: &mut [EncodeJob<'_, Self>],
        scratch: &mut Self::CallScratch,
        executor: &dyn Executor,
    ) -> Result<Vec<CodedChunk>> {
        let sums: Vec<Vec<i16>> = jobs.iter().map(|job| self.sums(job.side)).collect();
        let jobs = jobs.iter_mut().zip(&sums).map(|(job, side)| EncodeJob {
            spec: job.spec,
            source: match &job.source {
                Source::Hidden(prepared, rows) => Source::Hidden(*prepared, rows.clone()),
                Source::Y(y) => Source::Y(y),
                Source::Integers { w, y } => Source::Integers { w, y },
            },
            side,
            past: job.past,
            h: job.h.as_deref_mut(),
            g_y: &mut *job.g_y,
            scratch: &mut *job.scratch,
        });
        let mut coded = self.codec.encode(&mut jobs.collect::<Vec<_>>(), scratch, executor)?;
        if let (Change::Coded(change), true) = (self.change, self.is_on()) {
            change(&mut coded);
        }
        Ok(coded)
    }

    fn decode(
        &self,
        jobs: &mut [DecodeJob<'_, Self>],
        scratch: &mut Self::CallScratch,
        executor: &dyn Executor,
    ) -> Result<Results> {
        let sums: Vec<Vec<i16>> = jobs.iter().map(|job| self.sums(job.side)).collect();
        let jobs = jobs.iter_mut().zip(&sums).map(|(job, side)| DecodeJob {
            spec: job.spec,
            lanes: job.lanes,
            side,
            past: job.past,
            slice: job.slice,
            partial: &mut *job.partial,
            g_y: &mut *job.g_y,
            scratch: &mut *job.scratch,
        });
        let mut results = self.codec.decode(&mut jobs.collect::<Vec<_>>(), scratch, executor)?;
        if let (Change::Results(change), true) = (self.change, self.is_on()) {
            change(&mut results);
        }
        Ok(results)
    }

    fn download(hidden: &Vec<f32>) -> Result<Vec<f32>> {
        Codec::download(hidden)
    }

    fn upload(&self, values: &mut Vec<f32>) -> Result<Vec<f32>> {
        self.codec.upload(values)
    }

    fn hidden_bytes(hidden: &Vec<f32>) -> usize {
        Codec::hidden_bytes(hidden)
    }
}

fn codec() -> Codec {
    Codec::new(synthetic::model(&SyntheticShape::tiny(), 1)).unwrap()
}

fn hidden(frames: usize) -> Vec<f32> {
    let width = SyntheticShape::tiny().hidden;
    (0..frames * width).map(|i| (i * 37 % 101) as f32 / 9.0 - 5.0).collect()
}

fn config(mode: Mode) -> EncoderConfig {
    EncoderConfig::new(Identity::none()).mode(mode).lanes(2)
}

fn shorten<T>(values: &mut Vec<T>) {
    values.truncate(values.len() - 1);
}

fn chunk_of_three() -> ChunkSpec {
    ChunkSpec {
        frames: 3,
        quality: 0,
        rate_weight: 0.0,
        lanes: 1,
        layout: Layout::Joined,
        refuses_clipping: false,
        keep_integers: false,
        track_cost: false,
    }
}

fn integers(chunk: &mut CodedChunk) -> &mut Integers {
    chunk.integers.as_mut().unwrap()
}

/// A name, the only mode for which the change makes sense (`None` for both), and the change to what an engine gives.
type Case<T> = (&'static str, Option<Mode>, fn(&mut T));
type Call = fn(&mut Encoder<Changed>) -> Result<()>;

/// Changes of coded chunks of three frames.
const CODED: &[Case<Vec<CodedChunk>>] = &[
    ("none", None, |all| shorten(all)),
    ("one too many", None, |all| all.push(all[0].clone())),
    ("a frame too few", None, |all| shorten(&mut all[0].crcs)),
    ("a frame too many", None, |all| all[0].crcs.push((1, 2))),
    ("a lane too few", None, |all| shorten(&mut all[0].payloads)),
    ("a lane too many", None, |all| all[0].payloads.push(vec![1])),
    ("no integers", None, |all| all[0].integers = None),
    ("a W too few", None, |all| shorten(&mut integers(&mut all[0]).w)),
    ("a Y too many", None, |all| integers(&mut all[0]).y.push(1)),
    ("a cost that nobody wants", None, |all| all[0].cost = Some(Default::default())),
    ("targets in joined mode", Some(Mode::Joined), |all| all[0].targets.push(TargetPiece::whole(3, vec![vec![1]]))),
    ("no targets", Some(Mode::Layered), |all| all[0].targets.clear()),
    ("targets twice", Some(Mode::Layered), |all| all[0].targets = vec![all[0].targets[0].clone(); 2]),
    ("targets of more frames", Some(Mode::Layered), |all| all[0].targets = vec![TargetPiece::whole(4, vec![vec![1]])]),
    ("targets of other frames", Some(Mode::Layered), |all| {
        all[0].targets = vec![TargetPiece { frames: 1..4, ..TargetPiece::whole(3, vec![vec![1]]) }];
    }),
    ("targets of other elements", Some(Mode::Layered), |all| {
        let elements = Some(1..SyntheticShape::tiny().hidden + 1);
        all[0].targets = vec![TargetPiece { elements, ..TargetPiece::whole(3, vec![vec![1]]) }];
    }),
    ("a target without lanes", Some(Mode::Layered), |all| all[0].targets = vec![TargetPiece::whole(3, vec![])]),
];

#[test]
fn an_encoder_refuses_a_chunk_of_another_shape_and_everything_after_it() {
    for (name, only, change) in CODED {
        for mode in [Mode::Joined, Mode::Layered].into_iter().filter(|mode| only.is_none_or(|only| only == *mode)) {
            for together in [false, true] {
                let engine = Changed::new(Change::Coded(*change));
                let mut encoder = Encoder::new(engine.clone(), config(mode)).unwrap();
                let mut honest = Encoder::new(Arc::new(codec()), config(mode)).unwrap();
                let input = hidden(3);
                let push = |encoder: &mut Encoder<Changed>| match together {
                    false => encoder.push_hidden(&input),
                    true => Together::default().push(&mut [Push { encoder, input: Input::Hidden(&input) }]).remove(0),
                };
                push(&mut encoder).unwrap();
                honest.push_hidden(&hidden(3)).unwrap();
                engine.turn(true);
                let refused = push(&mut encoder).unwrap_err();
                assert_eq!((refused.kind(), refused.code()), (ErrorKind::EngineFault, 811), "{name}");
                engine.turn(false);
                assert_eq!(push(&mut encoder), Err(refused), "{name}");
                let calls: [Call; 5] = [
                    |encoder| encoder.checkpoint(),
                    |encoder| encoder.reset(),
                    |encoder| encoder.rewind(0),
                    |encoder| encoder.set_quality(1),
                    |encoder| encoder.end(),
                ];
                for call in calls {
                    assert_eq!(call(&mut encoder), Err(refused), "{name}");
                }
                assert_eq!(encoder.clone().take_bytes(), honest.take_bytes(), "{name}: what came before");
                assert_eq!(encoder.next_index(), 3, "{name}");
            }
        }
    }
}

/// A chunk that the writer refuses: nothing of it is sent, and nothing after it, because the contexts have advanced.
#[test]
fn an_encoder_sends_nothing_after_a_chunk_that_does_not_fit() {
    let engine = Changed::new(Change::Coded(|all| all[0].payloads[0].resize(5 << 20, 1)));
    let mut encoder = Encoder::new(engine.clone(), config(Mode::Joined)).unwrap();
    encoder.push_hidden(&hidden(3)).unwrap();
    let before = encoder.take_bytes().unwrap();
    assert!(!before.is_empty());
    engine.turn(true);
    let refused = encoder.push_hidden(&hidden(3)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ChunkTooLong);
    engine.turn(false);
    assert_eq!(encoder.push_hidden(&hidden(3)), Err(refused));
    assert_eq!(encoder.end(), Err(refused));
    assert!(encoder.take_bytes().unwrap().is_empty());
}

/// The CPU's engine, given contexts of another model: no context advances, h's neither.
#[test]
fn contexts_of_another_model_are_refused_before_any_advances() {
    let (codec, other) = (codec(), synthetic::model(&SyntheticShape { window: 3, ..SyntheticShape::tiny() }, 2));
    let other = Codec::new(other).unwrap();
    let context = |codec: &Codec, name| codec.context(name, 8).unwrap();
    let spec = chunk_of_three();
    let y = vec![1; 3 * SyntheticShape::tiny().hidden];
    let (mut h, mut foreign) = (context(&codec, NetworkName::H), context(&other, NetworkName::Gy));
    let mut scratch = Default::default();
    let source = Source::Y(&y);
    let job =
        EncodeJob { spec, source, side: &[], past: &[], h: Some(&mut h), g_y: &mut foreign, scratch: &mut scratch };
    let refused = codec.encode(&mut [job], &mut Default::default(), &midspan::exact::Serial).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WrongShape);
    assert_eq!((h.position(), foreign.position()), (0, 0));
}

/// A job of three frames with this many sums of side indices, and values of the frames before, for an encoder and for a
/// decoder: both are refused, and no context advances.
fn jobs_are_refused(codec: &Codec, sums: usize, past: usize) {
    let (sums, past) = (vec![0; sums], &vec![0; past][..]);
    let context = |name| codec.context(name, 8).unwrap();
    let (mut h, mut g_y) = (context(NetworkName::H), context(NetworkName::Gy));
    let mut scratch = Default::default();
    let y = vec![1; 3 * codec.model().hidden_width()];
    let (spec, source) = (chunk_of_three(), Source::Y(&y));
    let job = EncodeJob { spec, source, side: &sums, past, h: Some(&mut h), g_y: &mut g_y, scratch: &mut scratch };
    let refused = codec.encode(&mut [job], &mut Default::default(), &midspan::exact::Serial).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WrongShape, "{refused}");
    let spec = DecodeSpec { frames: 3, quality: 0, hyper_prior: false, keep_integers: false };
    let (lanes, mut partial) = ([Payload { bytes: bytes::Bytes::new(), offset: 0 }], None);
    let (side, slice) = (&sums[..], 3);
    let job = DecodeJob {
        spec,
        lanes: &lanes,
        side,
        past,
        slice,
        partial: &mut partial,
        g_y: &mut g_y,
        scratch: &mut scratch,
    };
    let refused = codec.decode(&mut [job], &mut Default::default(), &midspan::exact::Serial).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WrongShape, "{refused}");
    assert_eq!((h.position(), g_y.position(), partial.is_none()), (0, 0, true));
}

#[test]
fn sums_of_side_indices_of_another_number_are_refused_before_any_context_advances() {
    jobs_are_refused(&codec(), 1, 0);
    let codec = Codec::new(synthetic::model(&SyntheticShape::with_side(), 1)).unwrap();
    let wanted = 3 * codec.model().side().unwrap().width();
    [0, wanted - 1, wanted + 1].into_iter().for_each(|sums| jobs_are_refused(&codec, sums, 0));
}

#[test]
fn frames_before_a_chunk_of_another_number_are_refused_before_any_context_advances() {
    let width = SyntheticShape::tiny().hidden;
    // Without prediction there are none; with it whole ones, at most P.
    jobs_are_refused(&codec(), 0, width);
    let mut parts = synthetic::parts(&SyntheticShape::tiny(), synthetic::Style::Sensible, 1);
    synthetic::add_prediction(&mut parts, 2, 3, 1);
    let codec = Codec::new(midspan::model::CodecModel::new(parts).unwrap()).unwrap();
    [1, width - 1, 2 * width + 1, 3 * width].into_iter().for_each(|past| jobs_are_refused(&codec, 0, past));
}

fn frames(results: &mut Results) -> (&mut Vec<(u32, u32)>, &mut Option<Integers>, &mut Vec<f32>) {
    match &mut results[0] {
        Ok(Decoded::Frames { crcs, integers, hidden }) => (crcs, integers, hidden),
        other => panic!("{other:?}"),
    }
}

fn hyper_prior(results: &mut Results) -> (&mut Vec<i16>, &mut Vec<Vec<i32>>) {
    match &mut results[0] {
        Ok(Decoded::HyperPrior { w, outputs }) => (w, outputs),
        other => panic!("{other:?}"),
    }
}

/// Changes of decoded chunks of three frames.
const RESULTS: &[Case<Results>] = &[
    ("none", None, |all| shorten(all)),
    ("one too many", None, |all| all.push(all[0].clone())),
    ("no progress", None, |all| all[0] = Ok(Decoded::Part { done: 0 })),
    ("a part that is all", None, |all| all[0] = Ok(Decoded::Part { done: 3 })),
    ("a fault in a lane that is not there", None, |all| {
        all[0] = Err(LaneFault { lane: 2, error: midspan::entropy::EntropyError::TooLong });
    }),
    ("a frame too few", Some(Mode::Joined), |all| shorten(frames(all).0)),
    ("no integers", Some(Mode::Joined), |all| *frames(all).1 = None),
    ("a W too many", Some(Mode::Joined), |all| frames(all).1.as_mut().unwrap().w.push(1)),
    ("a Y too few", Some(Mode::Joined), |all| shorten(&mut frames(all).1.as_mut().unwrap().y)),
    ("a hidden state too few", Some(Mode::Joined), |all| frames(all).2.truncate(2 * SyntheticShape::tiny().hidden)),
    ("half a hidden state", Some(Mode::Joined), |all| shorten(frames(all).2)),
    ("W alone", Some(Mode::Joined), |all| {
        let w = frames(all).1.take().unwrap().w;
        all[0] = Ok(Decoded::HyperPrior { w, outputs: vec![vec![0; 2 * SyntheticShape::tiny().hidden]; 3] });
    }),
    ("Y too", Some(Mode::Layered), |all| {
        let w = std::mem::take(hyper_prior(all).0);
        let y = vec![0; 3 * SyntheticShape::tiny().hidden];
        let hidden = vec![0.0; y.len()];
        all[0] = Ok(Decoded::Frames { crcs: vec![(1, 2); 3], integers: Some(Integers { w, y }), hidden });
    }),
    ("a W too few", Some(Mode::Layered), |all| shorten(hyper_prior(all).0)),
    ("an output too few", Some(Mode::Layered), |all| shorten(hyper_prior(all).1)),
    ("half an output", Some(Mode::Layered), |all| shorten(&mut hyper_prior(all).1[1])),
];

#[test]
fn a_decoder_refuses_a_chunk_of_another_shape_and_everything_after_it() {
    for (name, only, change) in RESULTS {
        for mode in [Mode::Joined, Mode::Layered].into_iter().filter(|mode| only.is_none_or(|only| only == *mode)) {
            for together in [false, true] {
                let mut encoder = Encoder::new(Arc::new(codec()), config(mode)).unwrap();
                encoder.push_hidden(&hidden(3)).unwrap();
                encoder.end().unwrap();
                let engine = Changed::new(Change::Results(*change));
                let mut decoder = Decoder::new(engine.clone(), DecoderConfig::default()).unwrap();
                decoder.push(&encoder.take_bytes().unwrap()).unwrap();
                let mut poll = || match together {
                    false => decoder.poll(),
                    true => Together::default().poll(&mut [&mut decoder]).remove(0),
                };
                assert!(matches!(poll(), Ok(DecoderPoll::Event(DecoderEvent::Opened(_)))));
                engine.turn(true);
                let refused = poll().unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::EngineFault, "{name}");
                engine.turn(false);
                assert_eq!(poll(), Err(refused), "{name}");
                assert_eq!(decoder.next_index(), 0, "{name}");
            }
        }
    }
}

#[test]
fn what_was_not_asked_for_is_refused() {
    let engine = Changed::new(Change::Coded(|all| all[0].integers = Some(Integers::default())));
    let mut encoder = Encoder::new(engine.clone(), config(Mode::Joined)).unwrap();
    encoder.keep_integers(false);
    encoder.push_hidden(&hidden(3)).unwrap();
    encoder.track_cost(true);
    encoder.push_hidden(&hidden(3)).unwrap();
    engine.turn(true);
    assert_eq!(encoder.push_hidden(&hidden(3)).unwrap_err().kind(), ErrorKind::EngineFault);

    let engine = Changed::new(Change::Coded(|all| all[0].cost = None));
    let mut encoder = Encoder::new(engine.clone(), config(Mode::Joined)).unwrap();
    encoder.track_cost(true);
    engine.turn(true);
    assert_eq!(encoder.push_hidden(&hidden(3)).unwrap_err().kind(), ErrorKind::EngineFault);
}

/// A call for hidden states of two engines, of which the first one leaves an outcome out.
#[test]
fn a_prepared_push_too_few_reaches_no_other_stream() {
    for change in [(|all| shorten(all)) as fn(&mut Prepared), |all| all.push(all[0].clone())] {
        let engines = [Changed::new(Change::Prepared(change)), Changed::new(Change::Prepared(|_| ()))];
        let new = |engine: &Arc<Changed>| Encoder::new(engine.clone(), config(Mode::Joined)).unwrap();
        let mut encoders: Vec<Encoder<Changed>> = (0..6).map(|i| new(&engines[i % 2])).collect();
        let inputs: Vec<Vec<f32>> = (0..6).map(|i| hidden(1 + i % 3)).collect();
        engines.iter().for_each(|engine| engine.turn(true));
        let pushes = encoders.iter_mut().zip(&inputs);
        let mut pushes: Vec<Push<'_, Changed>> =
            pushes.map(|(encoder, input)| Push { encoder, input: Input::Hidden(input) }).collect();
        let outcomes = Together::default().push(&mut pushes);
        for (i, (outcome, input)) in outcomes.iter().zip(&inputs).enumerate() {
            let mut alone = Encoder::new(Arc::new(codec()), config(Mode::Joined)).unwrap();
            if i % 2 == 0 {
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::EngineFault);
                // Nothing was coded, so the stream goes on.
                engines[0].turn(false);
                encoders[i].push_hidden(input).unwrap();
                engines[0].turn(true);
            }
            alone.push_hidden(input).unwrap();
            assert_eq!(encoders[i].take_bytes(), alone.take_bytes(), "stream {i}");
        }
        let refused = encoders[0].push_hidden(&inputs[0]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::EngineFault);
    }
}

/// An engine that wants to decode no frame, or more than there are, in a call.
#[test]
fn a_slice_is_of_one_frame_at_least_and_of_all_at_most() {
    let mut encoder = Encoder::new(Arc::new(codec()), config(Mode::Joined)).unwrap();
    encoder.push_hidden(&hidden(5)).unwrap();
    encoder.end().unwrap();
    let bytes = encoder.take_bytes().unwrap();
    for (change, steps) in [((|_| 0) as fn(usize) -> usize, 4), (|remaining| remaining + 7, 0)] {
        let engine = Changed::new(Change::FramesPerCall(change));
        engine.turn(true);
        let mut decoder = Decoder::new(engine, DecoderConfig::default()).unwrap();
        decoder.push(&bytes).unwrap();
        decoder.finish();
        let (mut working, mut count) = (0, 0);
        loop {
            match decoder.poll().unwrap() {
                DecoderPoll::Event(DecoderEvent::Working { .. }) => working += 1,
                DecoderPoll::Event(DecoderEvent::Frames(frames)) => count += frames.count,
                DecoderPoll::Event(_) => {}
                _ => break,
            }
        }
        assert_eq!((working, count), (steps, 5));
    }
}

/// What the public check of an engine finds.
fn checked(change: Change, on: bool) -> midspan::check::Outcome {
    let engine = Changed::new(change);
    engine.turn(on);
    StreamChecks::new(engine.codec.model(), &[1, 3], 5).unwrap().run(&engine)
}

#[test]
fn the_check_of_an_engine_passes_the_cpus_and_finds_a_changed_one() {
    let wrong_bytes = Change::Coded(|coded| {
        if let Some(byte) = coded[0].payloads[0].last_mut() {
            *byte ^= 1;
        }
    });
    let good = checked(wrong_bytes, false);
    // 3 forms of hidden states and 3 of integers in 2 qualities, 2 numbers of streams, 2 modes.
    assert_eq!((good.cases, good.fault), (16, None));
    assert!(good.compared > 20 * 64 * 6, "{}", good.compared);
    let found = checked(wrong_bytes, true);
    let fault = "quality 0, 1 frames a chunk, 1 lanes: its bytes are not the plain arm's";
    assert_eq!((found.cases, found.fault.as_deref()), (0, Some(fault)));
    // Only the second stream of a call is wrong.
    let swapped = Change::Coded(|coded| {
        if let Some(byte) = coded.get_mut(1).and_then(|coded| coded.payloads[0].last_mut()) {
            *byte ^= 1;
        }
    });
    let found = checked(swapped, true);
    assert_eq!(
        (found.cases, found.fault.as_deref()),
        (13, Some("3 streams together: its bytes are not the plain arm's"))
    );
    // Only chunks of more than 128 frames are wrong.
    let long = Change::Coded(|coded| {
        if coded[0].crcs.len() > 128 {
            coded[0].crcs[128].1 ^= 1;
        }
    });
    let found = checked(long, true);
    let fault = "Joined mode: forks, rewinds, resets, exact frames, long chunks: its bytes are not the plain arm's";
    assert_eq!((found.cases, found.fault.as_deref()), (14, Some(fault)));
    // Bytes and crcs are right, and a count is wrong.
    let miscounted = Change::Coded(|coded| coded[0].escaped += 1);
    let fault = "quality 0, 1 frames a chunk, 1 lanes: it counts other values than the plain arm";
    assert_eq!(checked(miscounted, true).fault.as_deref(), Some(fault));
    let wrong_values = Change::Results(|results| {
        if let Ok(Decoded::Frames { hidden, .. }) = &mut results[0] {
            hidden[0] += 1.0;
        }
    });
    let fault = "quality 0, 1 frames a chunk, 1 lanes: it decodes the plain arm's bytes to other values";
    assert_eq!(checked(wrong_values, true).fault.as_deref(), Some(fault));
    let failed = checked(Change::Prepared(|prepared| prepared.clear()), true).fault.unwrap();
    assert!(failed.starts_with("quality 0, 1 frames a chunk, 1 lanes: ") && failed.ends_with("error 811"), "{failed}");
}

#[test]
fn the_check_of_an_engine_refuses_another_model() {
    let checks = StreamChecks::new(&synthetic::model(&SyntheticShape::tiny(), 99), &[], 5).unwrap();
    let outcome = checks.run(&Arc::new(codec()));
    assert_eq!((outcome.cases, outcome.fault.as_deref()), (0, Some("the engine has another model")));
}

/// What g_y makes of its input shows in the bytes only where Y is coded by its tables, not as plain numbers, and
/// everywhere in the count of values that their tables do not hold.
#[test]
fn the_check_of_an_engine_finds_a_sum_that_is_left_out() {
    let shapes = [SyntheticShape::with_side(), SyntheticShape { side: [1, 40, 3], ..SyntheticShape::blockless() }];
    for shape in shapes {
        let model = synthetic::model(&shape, 4);
        let checks = StreamChecks::new(&model, &[2], 5).unwrap();
        let engine = Changed::with(Codec::new(model).unwrap(), Change::Sums);
        let (good, bad) = (checks.run(&engine), {
            engine.turn(true);
            checks.run(&engine)
        });
        assert_eq!((good.cases, good.fault), (15, None));
        let fault = "quality 0, 1 frames a chunk, 1 lanes: it counts other values than the plain arm";
        assert_eq!((bad.cases, bad.fault.as_deref()), (0, Some(fault)));
    }
}
