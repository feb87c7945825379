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

use super::decoder::{Decoder, DecoderPoll};
use super::encoder::Encoder;
use crate::error::{Error, ErrorKind, Result};
use crate::exact::{Buffers, Executor, Network, Serial, Step, each};

/// The next frames of one stream, for [`Together::push`].
#[derive(Debug)]
pub struct Push<'a> {
    /// The stream.
    pub encoder: &'a mut Encoder,
    /// The input to code.
    pub input: Input<'a>,
}

/// What an encoder codes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// Hidden states, `[T, E]`, as for [`Encoder::push_hidden`].
    Hidden(&'a [f32]),
    /// Target integers, `[T, E]`, as for [`Encoder::push_y`].
    Y(&'a [i16]),
}

/// Steps sessions together. It holds only buffers: each call may have any sessions, of any models.
pub struct Together {
    buffers: Buffers,
    executor: Arc<dyn Executor + Send + Sync>,
}

impl Default for Together {
    /// Runs on the caller's thread.
    fn default() -> Self {
        Self::new(Arc::new(Serial))
    }
}

impl std::fmt::Debug for Together {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Together").field("buffers", &self.buffers).finish_non_exhaustive()
    }
}

/// A stream that takes part in a step.
struct Coding<'a> {
    encoder: &'a mut Encoder,
    input: Input<'a>,
    y: Vec<i16>,
    x: Option<Vec<f32>>,
    w: Vec<i16>,
    outcome: &'a mut Result<()>,
}

/// A stream whose next event is wanted.
struct Polling<'a> {
    decoder: &'a mut Decoder,
    outcome: &'a mut Option<Result<DecoderPoll>>,
}

impl Together {
    /// Spreads streams over the executor's threads. The bytes stay the same.
    #[must_use]
    pub fn new(executor: Arc<dyn Executor + Send + Sync>) -> Self {
        Self { buffers: Buffers::default(), executor }
    }

    /// Bytes of the buffers, which grow to what the largest step needs; contexts belong to the sessions.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.buffers.memory_bytes()
    }

    /// Codes the next frames of many streams. Returns each one's outcome, as [`Encoder::push_hidden`] and
    /// [`Encoder::push_y`] do. An error of one stream does not affect the others.
    ///
    /// Streams that push one frame, or up to eight, share the work ([`Network::step`]).
    pub fn push(&mut self, pushes: &mut [Push<'_>]) -> Vec<Result<()>> {
        let mut outcomes = vec![Ok(()); pushes.len()];
        let mut codings: Vec<Coding<'_>> = pushes
            .iter_mut()
            .zip(&mut outcomes)
            .map(|(Push { encoder, input }, outcome)| Coding {
                encoder,
                input: *input,
                y: Vec::new(),
                x: None,
                w: Vec::new(),
                outcome,
            })
            .collect();
        each(&*self.executor, &mut codings, |coding| *coding.outcome = coding.take_in());
        codings.retain(|coding| coding.outcome.is_ok() && !coding.y.is_empty());
        codings.sort_by_key(|coding| Arc::as_ptr(coding.encoder.codec()));
        for group in codings.chunk_by_mut(|a, b| Arc::ptr_eq(a.encoder.codec(), b.encoder.codec())) {
            if let Err(error) = self.predict(group) {
                group.iter_mut().for_each(|coding| *coding.outcome = Err(error));
            }
        }
        codings.retain(|coding| coding.outcome.is_ok());
        each(&*self.executor, &mut codings, |coding| {
            let y = std::mem::take(&mut coding.y);
            *coding.outcome = coding.encoder.code_predicted(&coding.w, y, coding.x.as_deref(), true);
        });
        drop(codings);
        outcomes
    }

    /// Runs h and g_y for streams of one model.
    fn predict(&mut self, group: &mut [Coding<'_>]) -> Result<()> {
        let Some(codec) = group.first().map(|coding| Arc::clone(coding.encoder.codec())) else { return Ok(()) };
        let missing = Error::of_call(ErrorKind::NotAvailable).with_detail("the model has no analysis network");
        let h = codec.h().ok_or(missing)?;
        let mut steps = group.iter_mut().filter_map(|coding| coding.encoder.analysis_step(&coding.y)).collect();
        self.step(h, &mut steps)?;
        group.iter_mut().for_each(|coding| coding.w = coding.encoder.analysed());
        let mut steps = group.iter_mut().map(|coding| coding.encoder.synthesis_step(&coding.w)).collect();
        self.step(codec.g_y(), &mut steps)
    }

    fn step(&mut self, network: &Network, steps: &mut Vec<Step<'_>>) -> Result<()> {
        network.step(&mut self.buffers, steps, &*self.executor)
    }

    /// What happened next in each of many streams, as [`Decoder::poll`] gives it. A call decodes at most
    /// [`DecoderConfig::frames_per_poll`](super::DecoderConfig::frames_per_poll) frames of a stream with a long chunk
    /// (and W of the whole chunk in the first call), so that this stream does not hold up the others.
    pub fn poll(&mut self, decoders: &mut [&mut Decoder]) -> Vec<Result<DecoderPoll>> {
        let mut outcomes: Vec<Option<Result<DecoderPoll>>> = vec![None; decoders.len()];
        let mut pollings: Vec<Polling<'_>> =
            decoders.iter_mut().zip(&mut outcomes).map(|(decoder, outcome)| Polling { decoder, outcome }).collect();
        loop {
            each(&*self.executor, &mut pollings, Polling::next);
            pollings.retain(|polling| polling.outcome.is_none());
            if pollings.is_empty() {
                break;
            }
            pollings.sort_by_key(|polling| Arc::as_ptr(polling.decoder.codec()));
            for group in pollings.chunk_by_mut(|a, b| Arc::ptr_eq(a.decoder.codec(), b.decoder.codec())) {
                if let Err(error) = self.synthesise(group) {
                    group.iter_mut().for_each(|polling| polling.fail(error));
                }
            }
            each(&*self.executor, &mut pollings, Polling::decode);
            pollings.retain(|polling| polling.outcome.is_none());
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Ok(DecoderPoll::NeedMore))).collect()
    }

    /// Runs g_y for streams of one model.
    fn synthesise(&mut self, group: &mut [Polling<'_>]) -> Result<()> {
        let Some(codec) = group.first().map(|polling| Arc::clone(polling.decoder.codec())) else { return Ok(()) };
        let mut steps = group.iter_mut().filter_map(|polling| polling.decoder.synthesis_step()).collect();
        self.step(codec.g_y(), &mut steps)
    }
}

impl Coding<'_> {
    /// Checks and quantises the input. More frames than a chunk holds are coded at once, alone; `y` then stays empty.
    fn take_in(&mut self) -> Result<()> {
        let (y, x) = match self.input {
            Input::Hidden(hidden) => {
                let (y, x) = self.encoder.nearest(hidden)?;
                (y, Some(x))
            }
            Input::Y(y) => {
                self.encoder.check_own_y(y)?;
                (y.to_vec(), None)
            }
        };
        let frames = y.len().checked_div(self.encoder.codec().model().hidden_width()).unwrap_or(0);
        if frames > self.encoder.frames_per_chunk() {
            return self.encoder.code(y, None, x.as_deref());
        }
        (self.y, self.x) = (y, x);
        Ok(())
    }
}

impl Polling<'_> {
    /// Goes on to the next event, or to a chunk whose W it decodes.
    fn next(&mut self) {
        *self.outcome = self.decoder.next_work().transpose();
    }

    /// Decodes what waited for g_y: a chunk's frames, or a slice of them. The stream gets no more in this call.
    fn decode(&mut self) {
        if let Err(error) = self.decoder.decode_slice() {
            self.decoder.fail(error);
        }
        *self.outcome = self.decoder.progress().map(|event| Ok(DecoderPoll::Event(event)));
    }

    fn fail(&mut self, error: Error) {
        self.decoder.fail(error);
    }
}
