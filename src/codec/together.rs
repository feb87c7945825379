//! Many sessions in one call: their networks' weights are read once for the next frames of all (spec 5, 6.1).
//!
//! Sessions keep their contexts and can still be used one by one; each stream's bytes are those that it would have
//! alone.
//!
//! ```
//! use std::sync::Arc;
//! use midspan::codec::{Codec, Encoder, EncoderConfig, Input, Push, Together};
//! use midspan::wire::Identity;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = "src/example.safetensors";
//! let file = std::fs::read(path)?; // a model file
//! let codec = Arc::new(Codec::from_bytes(&file, 1 << 20)?);
//! let hidden = vec![0.25; codec.model().hidden_width()];
//! let mut streams = vec![Encoder::new(codec, EncoderConfig::new(Identity::none()))?; 3];
//!
//! let mut alone = streams[0].clone();
//! let mut together = Together::default();
//! let mut pushes: Vec<Push> =
//!     streams.iter_mut().map(|encoder| Push { encoder, input: Input::Hidden(&hidden) }).collect();
//! for outcome in together.push(&mut pushes) {
//!     outcome?;
//! }
//! alone.push_hidden(&hidden)?;
//! assert_eq!(alone.take_bytes()?, streams[0].take_bytes()?);
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;

use super::decoder::{Decoder, DecoderPoll, Next};
use super::encoder::{Encoder, PushSource, wrong_count};
use crate::engine::{ChunkSpec, Codec, DecodeJob, EncodeJob, Engine, Memory};
use crate::error::Result;
use crate::exact::{Executor, Serial, parallel_map_mut};

/// The next frames of one stream, for [`Together::push`].
pub struct Push<'a, E: Engine = Codec> {
    /// The stream.
    pub encoder: &'a mut Encoder<E>,
    /// The input of the push.
    pub input: Input<'a, E::Input>,
}

/// What an encoder codes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input<'a, I: ?Sized = [f32]> {
    /// Hidden states, `[T, E]`, as for [`Encoder::push_hidden`].
    Hidden(&'a I),
    /// Target integers, `[T, E]`, as for [`Encoder::push_y`].
    Y(&'a [i16]),
}

impl<I: ?Sized> Clone for Input<'_, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I: ?Sized> Copy for Input<'_, I> {}

/// Steps sessions together. It holds only scratch memory: each call may have any sessions. Those with the same `Arc` of
/// an engine share the work, so share one `Arc` among all sessions of a model.
pub struct Together<E: Engine = Codec> {
    scratch: E::CallScratch,
    executor: Arc<dyn Executor + Send + Sync>,
}

impl<E: Engine> Default for Together<E> {
    /// Runs on the caller's thread.
    fn default() -> Self {
        Self::new(Arc::new(Serial))
    }
}

impl<E: Engine> std::fmt::Debug for Together<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Together").field("memory_bytes", &self.memory_bytes()).finish_non_exhaustive()
    }
}

/// A stream that has frames to code.
struct Coding<'a, E: Engine> {
    encoder: &'a mut Encoder<E>,
    whole: PushSource<'a, E>,
    /// Frames of the push, and those that are coded.
    frames: usize,
    done: usize,
    outcome: &'a mut Result<(), E::Error>,
}

/// A stream that has a chunk to decode.
struct Decoding<'a, E: Engine> {
    decoder: &'a mut Decoder<E>,
    outcome: &'a mut Option<PollOutcome<E>>,
}

type PollOutcome<E> = Result<DecoderPoll<<E as Engine>::Hidden>, <E as Engine>::Error>;

impl<E: Engine> Together<E> {
    /// Spreads streams over the executor's threads, for example those of
    /// [`adapter::Threads`](crate::adapter::Threads). The bytes stay the same.
    #[must_use]
    pub fn new(executor: Arc<dyn Executor + Send + Sync>) -> Self {
        Self { scratch: E::CallScratch::default(), executor }
    }

    /// Bytes of scratch memory, which grows to what the largest step needs; contexts belong to the sessions.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.scratch.memory_bytes()
    }

    /// Codes the next frames of many streams. Returns each one's outcome, as [`Encoder::push_hidden`] and
    /// [`Encoder::push_y`] do. An error of one stream does not affect the others.
    ///
    /// On a CPU, streams that push at most eight frames share the work
    /// ([`Network::step`](crate::exact::Network::step)); on a device all do.
    pub fn push(&mut self, pushes: &mut [Push<'_, E>]) -> Vec<Result<(), E::Error>> {
        let mut outcomes: Vec<Result<(), E::Error>> = pushes.iter().map(|_| Ok(())).collect();
        let prepared = self.prepare(pushes, &mut outcomes);
        let mut codings = Vec::with_capacity(pushes.len());
        for ((Push { encoder, input }, outcome), prepared) in pushes.iter_mut().zip(&mut outcomes).zip(&prepared) {
            let whole = match (*input, prepared) {
                (_, None) => continue,
                (Input::Hidden(_), Some((_, Some(prepared)))) => PushSource::Hidden(prepared),
                (Input::Hidden(_), Some((_, None))) => {
                    *outcome = Err(wrong_count().into());
                    continue;
                }
                (Input::Y(y), Some(_)) => PushSource::Y(y),
            };
            let frames = prepared.as_ref().map_or(0, |(frames, _)| *frames);
            codings.push(Coding { encoder, whole, frames, done: 0, outcome });
        }
        codings.sort_by_key(Coding::kind);
        // Each round codes the next chunk of every stream.
        while !codings.is_empty() {
            for group in codings.chunk_by_mut(|a, b| a.kind() == b.kind()) {
                self.encode(group);
            }
            codings.retain(|coding| coding.outcome.is_ok() && coding.done < coding.frames);
        }
        outcomes
    }

    /// Checks every input. For each stream that is not refused, T and its prepared hidden states, if its input has any.
    fn prepare(
        &self,
        pushes: &[Push<'_, E>],
        outcomes: &mut [Result<(), E::Error>],
    ) -> Vec<Option<(usize, Option<E::Prepared>)>> {
        let checked = pushes.iter().zip(&mut *outcomes).map(|(Push { encoder, input }, outcome)| {
            let frames = match *input {
                Input::Hidden(hidden) => encoder.check_hidden(hidden),
                Input::Y(y) => encoder.check_own_y(y),
            };
            frames.map_err(|error| *outcome = Err(error.into())).ok().map(|frames| (frames, None))
        });
        let mut prepared: Vec<Option<(usize, Option<E::Prepared>)>> = checked.collect();
        let mut places: Vec<usize> = (0..pushes.len()).collect();
        let hidden = |place: &usize| match (pushes.get(*place), prepared.get(*place)) {
            (Some(Push { encoder, input: Input::Hidden(hidden) }), Some(Some(_))) => Some((&**encoder, *hidden)),
            _ => None,
        };
        places.retain(|place| hidden(place).is_some());
        places.sort_by_key(|place| pushes.get(*place).map(|push| Arc::as_ptr(push.encoder.engine())));
        let mut results = Vec::with_capacity(places.len());
        let inputs: Vec<(&Encoder<E>, &E::Input)> = places.iter().filter_map(hidden).collect();
        for group in inputs.chunk_by(|a, b| Arc::ptr_eq(a.0.engine(), b.0.engine())) {
            let jobs: Vec<_> = group.iter().map(|(encoder, hidden)| encoder.prepare_job(hidden)).collect();
            let Some((encoder, _)) = group.first() else { continue };
            let prepared = encoder.engine().prepare(&jobs, &*self.executor);
            // One outcome too few or too many would give a stream another's hidden states.
            match prepared.len() == jobs.len() {
                true => results.extend(prepared),
                false => results.extend(jobs.iter().map(|_| Err(wrong_count().into()))),
            }
        }
        for (place, result) in places.into_iter().zip(results) {
            let (Some(slot), Some(outcome)) = (prepared.get_mut(place), outcomes.get_mut(place)) else { continue };
            match result {
                Ok(hidden) => *slot = slot.take().map(|(frames, _)| (frames, Some(hidden))),
                Err(error) => (*slot, *outcome) = (None, Err(error)),
            }
        }
        prepared
    }

    /// Codes the next chunk of streams of one model. If that fails, codes them in halves: the fault may be that of one
    /// stream, or a device may have memory for fewer.
    fn encode(&mut self, group: &mut [Coding<'_, E>]) {
        let Some(engine) = group.first().map(|coding| Arc::clone(coding.encoder.engine())) else { return };
        let specs: Vec<ChunkSpec> =
            group.iter().map(|coding| coding.encoder.spec(coding.done, coding.frames)).collect();
        let jobs = group.iter_mut().zip(&specs);
        let mut jobs: Vec<EncodeJob<'_, E>> =
            jobs.map(|(coding, spec)| coding.encoder.job(*spec, &coding.whole, coding.done)).collect();
        let coded = engine.encode(&mut jobs, &mut self.scratch, &*self.executor);
        drop(jobs);
        match (coded, group) {
            (Ok(coded), group) => {
                let coded = outcome_of_each(coded, group.len());
                let mut commits: Vec<_> = group.iter_mut().zip(&specs).zip(coded).collect();
                parallel_map_mut(&*self.executor, &mut commits, |((coding, spec), coded)| {
                    let coded = std::mem::replace(coded, Err(wrong_count()));
                    let committed = coding.encoder.commit(coded, spec, (coding.done, coding.frames), None);
                    *coding.outcome = committed.map_err(E::Error::from);
                    coding.done = coding.done.saturating_add(spec.frames);
                });
            }
            (Err(error), [coding]) => *coding.outcome = Err(error),
            (Err(_), group) => {
                let (first, second) = halves(group);
                self.encode(first);
                self.encode(second);
            }
        }
    }

    /// What happened next in each of many streams, as [`Decoder::poll`] gives it. A call decodes at most
    /// [`DecoderConfig::frames_per_poll`](super::DecoderConfig::frames_per_poll) frames of a stream with a long chunk
    /// (and W of the whole chunk in the first call), so that this stream does not hold up the others.
    pub fn poll(&mut self, decoders: &mut [&mut Decoder<E>]) -> Vec<Result<DecoderPoll<E::Hidden>, E::Error>> {
        let mut outcomes: Vec<Option<PollOutcome<E>>> = decoders.iter().map(|_| None).collect();
        let mut decodings: Vec<Decoding<'_, E>> =
            decoders.iter_mut().zip(&mut outcomes).map(|(decoder, outcome)| Decoding { decoder, outcome }).collect();
        while !decodings.is_empty() {
            let next = parallel_map_mut(&*self.executor, &mut decodings, |decoding| decoding.decoder.next());
            // Handing out may use a device, which only this thread does.
            for (decoding, next) in decodings.iter_mut().zip(next) {
                *decoding.outcome = match next {
                    Ok(Next::Decode) => None,
                    Ok(Next::Event(event)) => Some(decoding.decoder.hand_out(event)),
                    Ok(Next::NeedMore) => Some(Ok(DecoderPoll::NeedMore)),
                    Ok(Next::End) => Some(Ok(DecoderPoll::End)),
                    Err(error) => Some(Err(error.into())),
                };
            }
            decodings.retain(|decoding| decoding.outcome.is_none());
            decodings.sort_by_key(Decoding::kind);
            for group in decodings.chunk_by_mut(|a, b| a.kind() == b.kind()) {
                self.decode(group);
            }
            decodings.retain(|decoding| decoding.outcome.is_none());
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Ok(DecoderPoll::NeedMore))).collect()
    }

    /// Decodes the next slice of a chunk of streams of one model; if that fails, in halves.
    fn decode(&mut self, group: &mut [Decoding<'_, E>]) {
        let Some(engine) = group.first().map(|decoding| Arc::clone(decoding.decoder.engine())) else { return };
        // Each has a job, because each has a chunk.
        let mut jobs: Vec<DecodeJob<'_, E>> = group.iter_mut().filter_map(|decoding| decoding.decoder.job()).collect();
        let decoded = engine.decode(&mut jobs, &mut self.scratch, &*self.executor);
        drop(jobs);
        match (decoded, group) {
            (Ok(decoded), group) => {
                let decoded = outcome_of_each(decoded, group.len());
                let mut commits: Vec<_> = group.iter_mut().zip(decoded).collect();
                parallel_map_mut(&*self.executor, &mut commits, |(decoding, decoded)| {
                    decoding.decoder.commit(std::mem::replace(decoded, Err(wrong_count())));
                    *decoding.outcome = decoding.decoder.progress().map(|event| Ok(DecoderPoll::Event(event)));
                });
            }
            (Err(error), [decoding]) => *decoding.outcome = Some(Err(error)),
            (Err(_), group) => {
                let (first, second) = halves(group);
                self.decode(first);
                self.decode(second);
            }
        }
    }
}

impl<E: Engine> Coding<'_, E> {
    /// Jobs of one kind share a call: those of one model, with sources of one kind.
    fn kind(&self) -> (*const E, bool) {
        (Arc::as_ptr(self.encoder.engine()), matches!(self.whole, PushSource::Hidden(_)))
    }
}

impl<E: Engine> Decoding<'_, E> {
    /// Jobs of one kind share a call: those of one model, with or without Y.
    fn kind(&self) -> (*const E, bool) {
        (Arc::as_ptr(self.decoder.engine()), self.decoder.works_on_hyper_prior())
    }
}

/// The outcome of each of `jobs` jobs: an error for all of them if an engine gave more or fewer.
fn outcome_of_each<T>(outcomes: Vec<T>, jobs: usize) -> Vec<Result<T>> {
    match outcomes.len() == jobs {
        true => outcomes.into_iter().map(Ok).collect(),
        false => (0..jobs).map(|_| Err(wrong_count())).collect(),
    }
}

fn halves<T>(items: &mut [T]) -> (&mut [T], &mut [T]) {
    items.split_at_mut(items.len().div_ceil(2))
}
