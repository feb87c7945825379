//! Many sessions in one call: their networks' weights are read once for the next frames of all (spec 5, 6.1).
//!
//! Sessions keep their contexts and can still be used one by one; each stream's bytes are those that it would have
//! alone.
//!
//! ```
//! use std::sync::Arc;
//! use midspan::codec::{Codec, Encoder, EncoderConfig, Input, Push, Together};
//! use midspan::model::synthetic::{self, SyntheticShape};
//! use midspan::wire::Identity;
//!
//! # fn main() -> Result<(), midspan::error::Error> {
//! let codec = Arc::new(Codec::new(synthetic::model(&SyntheticShape::tiny(), 1))?);
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
use super::encoder::{Encoder, Whole, no_outcome};
use crate::engine::{Codec, DecodeJob, EncodeJob, Engine, Memory};
use crate::error::Result;
use crate::exact::{Executor, Serial, map_mut};

/// The next frames of one stream, for [`Together::push`].
pub struct Push<'a, E: Engine = Codec> {
    /// The stream.
    pub encoder: &'a mut Encoder<E>,
    /// The input to code.
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

/// Steps sessions together. It holds only buffers: each call may have any sessions, of any models.
pub struct Together<E: Engine = Codec> {
    buffers: E::Buffers,
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
    whole: Whole<'a, E>,
    /// Frames of the push, and those that are coded.
    frames: usize,
    done: usize,
    outcome: &'a mut Result<(), E::Error>,
}

/// A stream that has a chunk to decode.
struct Decoding<'a, E: Engine> {
    decoder: &'a mut Decoder<E>,
    outcome: &'a mut Option<Result<DecoderPoll<E::Hidden>, E::Error>>,
}

impl<E: Engine> Together<E> {
    /// Spreads streams over the executor's threads. The bytes stay the same.
    #[must_use]
    pub fn new(executor: Arc<dyn Executor + Send + Sync>) -> Self {
        Self { buffers: E::Buffers::default(), executor }
    }

    /// Bytes of the buffers, which grow to what the largest step needs; contexts belong to the sessions.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.buffers.memory_bytes()
    }

    /// Codes the next frames of many streams. Returns each one's outcome, as [`Encoder::push_hidden`] and
    /// [`Encoder::push_y`] do. An error of one stream does not affect the others.
    ///
    /// Streams that push one frame, or up to eight, share the work on a CPU
    /// ([`Network::step`](crate::exact::Network::step)); on a device all do.
    pub fn push(&mut self, pushes: &mut [Push<'_, E>]) -> Vec<Result<(), E::Error>> {
        let mut outcomes: Vec<Result<(), E::Error>> = pushes.iter().map(|_| Ok(())).collect();
        let prepared = self.prepare(pushes, &mut outcomes);
        let mut codings = Vec::with_capacity(pushes.len());
        for ((Push { encoder, input }, outcome), prepared) in pushes.iter_mut().zip(&mut outcomes).zip(&prepared) {
            let whole = match (*input, prepared) {
                (_, None) => continue,
                (Input::Hidden(_), Some((_, Some(prepared)))) => Whole::Hidden(prepared),
                (Input::Hidden(_), Some((_, None))) => {
                    *outcome = Err(no_outcome().into());
                    continue;
                }
                (Input::Y(y), Some(_)) => Whole::Y(y),
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
            if let [(encoder, _), ..] = group {
                results.extend(encoder.engine().prepare(&jobs, &*self.executor));
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
        let mut jobs: Vec<EncodeJob<'_, E>> =
            group.iter_mut().map(|coding| coding.encoder.job(&coding.whole, coding.done, coding.frames)).collect();
        let coded = engine.encode(&mut jobs, &mut self.buffers, &*self.executor);
        drop(jobs);
        match (coded, group) {
            (Ok(coded), group) => {
                let mut coded = coded.into_iter();
                let mut commits: Vec<_> = group.iter_mut().map(|coding| (coding, coded.next())).collect();
                map_mut(&*self.executor, &mut commits, |(coding, coded)| {
                    let place = (coding.done, coding.frames);
                    let frames = coded.as_ref().map_or(0, |coded| coded.crcs.len());
                    let committed = coded.take().filter(|_| frames > 0).ok_or_else(no_outcome);
                    let committed = committed.and_then(|coded| coding.encoder.commit(coded, place));
                    *coding.outcome = committed.map_err(E::Error::from);
                    coding.done = coding.done.saturating_add(frames);
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
        let mut outcomes: Vec<Option<Result<DecoderPoll<E::Hidden>, E::Error>>> =
            decoders.iter().map(|_| None).collect();
        let mut decodings: Vec<Decoding<'_, E>> =
            decoders.iter_mut().zip(&mut outcomes).map(|(decoder, outcome)| Decoding { decoder, outcome }).collect();
        while !decodings.is_empty() {
            let next = map_mut(&*self.executor, &mut decodings, |decoding| decoding.decoder.next());
            // Only this thread uses a device.
            for (decoding, next) in decodings.iter_mut().zip(next) {
                *decoding.outcome = match next {
                    Ok(Next::Work) => None,
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
        let decoded = engine.decode(&mut jobs, &mut self.buffers, &*self.executor);
        drop(jobs);
        match (decoded, group) {
            (Ok(decoded), group) => {
                let mut decoded = decoded.into_iter();
                let mut commits: Vec<_> = group.iter_mut().map(|decoding| (decoding, decoded.next())).collect();
                map_mut(&*self.executor, &mut commits, |(decoding, decoded)| match decoded.take() {
                    Some(decoded) => {
                        decoding.decoder.commit(decoded);
                        *decoding.outcome = decoding.decoder.progress().map(|event| Ok(DecoderPoll::Event(event)));
                    }
                    None => *decoding.outcome = Some(Err(no_outcome().into())),
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
        (Arc::as_ptr(self.encoder.engine()), matches!(self.whole, Whole::Hidden(_)))
    }
}

impl<E: Engine> Decoding<'_, E> {
    /// Jobs of one kind share a call: those of one model, with or without Y.
    fn kind(&self) -> (*const E, bool) {
        (Arc::as_ptr(self.decoder.engine()), self.decoder.works_on_hyper_prior())
    }
}

fn halves<T>(items: &mut [T]) -> (&mut [T], &mut [T]) {
    items.split_at_mut(items.len().div_ceil(2))
}
