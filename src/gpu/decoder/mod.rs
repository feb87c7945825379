//! The decoder session on a device: decodes bytes to tensors of hidden states.

#[cfg(any(feature = "kernels", feature = "cuda"))]
mod kernels;
mod tensors;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use candle_core::Tensor;

use super::codec::{DeviceCodec, Engine};
use super::error::{Error, Result};
use super::state::DeviceState;
use crate::codec::decoder::{Held, Next, Waiting};
use crate::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Frames};
use crate::error::ErrorKind;
use crate::exact::each;
use crate::stream::JoinPoint;
use crate::wire::StreamHeader;

/// Decodes one stream to hidden states on a device. Events are those of a [`Decoder`], except that hidden states are
/// returned separately. For models on kernels, the integers of frames stay on the device and
/// [`crate::codec::Frames::w`] and [`crate::codec::Frames::y`] are empty, unless [`Coder::Cpu`] is set.
///
/// Input goes through the [`Decoder`] that it contains. Errors of the stream are final. An error of the device
/// ([`Error::Device`]) is not: the next poll tries the same chunk again. Cloning forks the session.
#[derive(Clone, Debug)]
pub struct DeviceDecoder {
    models: Vec<Arc<DeviceCodec>>,
    session: Decoder<DeviceState>,
    coder: Coder,
    /// Hidden states of frames that the device decoded. Their event comes next, because a session returns a chunk only
    /// if no event waits.
    decoded: Option<Tensor>,
}

/// Where the payloads of joined chunks are decoded, for models on kernels. Payloads of layered streams, and for models
/// as tensors, are always decoded on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coder {
    /// On the CPU for one frame of one stream, on the device for more.
    #[default]
    Automatic,
    /// On the CPU.
    Cpu,
    /// On the device.
    Device,
}

/// Outcome of [`DeviceDecoder::poll`].
#[derive(Clone, Debug)]
pub struct DevicePoll {
    /// What happened, without the hidden states.
    pub poll: DecoderPoll,
    /// The event's hidden states, \[T, E\] f32 on the device, if it has any.
    pub hidden: Option<Tensor>,
}

impl Deref for DeviceDecoder {
    type Target = Decoder<DeviceState>;

    fn deref(&self) -> &Self::Target {
        &self.session
    }
}

impl DerefMut for DeviceDecoder {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.session
    }
}

impl DeviceDecoder {
    /// A decoder for streams that begin with the first model and may switch to the others. All models are on one
    /// device.
    ///
    /// # Errors
    /// As [`Decoder::new`]; [`ErrorKind::BadConfig`] without a model, or if `config` names further models.
    pub fn new(models: Vec<Arc<DeviceCodec>>, config: DecoderConfig) -> Result<Self> {
        let (first, config) = configure(&models, config)?;
        Ok(Self::of(Decoder::open_session(first, config)?, models))
    }

    /// A decoder that begins in the middle of a stream, as [`Decoder::join`].
    ///
    /// # Errors
    /// As [`DeviceDecoder::new`] and [`Decoder::join`].
    pub fn join(
        models: Vec<Arc<DeviceCodec>>,
        config: DecoderConfig,
        header: StreamHeader,
        point: JoinPoint,
    ) -> Result<Self> {
        let (first, config) = configure(&models, config)?;
        Ok(Self::of(Decoder::join_session(first, config, header, point)?, models))
    }

    fn of(session: Decoder<DeviceState>, models: Vec<Arc<DeviceCodec>>) -> Self {
        Self { models, session, coder: Coder::Automatic, decoded: None }
    }

    /// Sets where payloads are decoded. The values are the same.
    pub fn set_coder(&mut self, coder: Coder) {
        self.coder = coder;
    }

    /// Returns what happened next. A chunk is decoded completely in one call:
    /// [`Limits::max_frames`](crate::stream::Limits::max_frames) bounds its work, not
    /// [`DecoderConfig::frames_per_poll`].
    ///
    /// # Errors
    /// The stream's first error, again at every later call; [`Error::Device`].
    pub fn poll(&mut self) -> Result<DevicePoll> {
        let mut outcome = DeviceDecoder::poll_together(&mut [self]);
        outcome.pop().unwrap_or_else(|| Err(Error::codec(ErrorKind::NotAvailable, "no stream")))
    }

    /// Returns what happened next in each of many streams. g_y runs once for all streams that have a chunk to decode.
    /// The work that remains for each stream is spread over the first stream's executor ([`Decoder::set_executor`]).
    ///
    /// # Errors
    /// As [`DeviceDecoder::poll`], for each stream; an error of the device is returned for all streams that were
    /// decoded together.
    pub fn poll_together(streams: &mut [&mut DeviceDecoder]) -> Vec<Result<DevicePoll>> {
        let mut outcomes: Vec<Option<Result<DevicePoll>>> = streams.iter().map(|_| None).collect();
        let Some(executor) = streams.first().map(|stream| stream.session.executor()) else { return Vec::new() };
        loop {
            let open = streams.iter_mut().zip(&outcomes).enumerate().filter(|(_, (_, outcome))| outcome.is_none());
            let mut tasks: Vec<_> = open.map(|(i, (stream, _))| (i, stream, None)).collect();
            // Only this thread uses the device, so that the device's work is done in this thread's order.
            each(&*executor, &mut tasks, |(_, stream, next)| *next = Some(stream.session.next()));
            let mut waiting = Vec::new();
            for (i, stream, next) in tasks {
                match next.map(|next| stream.go_on(next)) {
                    Some(Ok(Advance::Decode(codec, held))) => waiting.push((i, codec, held)),
                    Some(Ok(Advance::Poll(poll))) => outcomes[i] = Some(Ok(poll)),
                    Some(Err(error)) => outcomes[i] = Some(Err(error)),
                    None => {}
                }
            }
            if waiting.is_empty() {
                let missing = || Err(Error::codec(ErrorKind::NotAvailable, "the executor left the stream out"));
                return outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(missing)).collect();
            }
            waiting.sort_by_key(|(_, codec, _)| Arc::as_ptr(codec));
            for group in waiting.chunk_by(|a, b| Arc::ptr_eq(&a.1, &b.1)) {
                for (i, error) in DeviceDecoder::decode(streams, group) {
                    outcomes[i] = Some(Err(error));
                }
            }
        }
    }

    /// Continues with what the session returned: an event, or a chunk.
    fn go_on(&mut self, next: crate::error::Result<Next>) -> Result<Advance> {
        match next? {
            Next::Poll(poll) => Ok(Advance::Poll(self.bring(poll)?)),
            // Here no chunk is left half decoded.
            Next::GoOn => Err(Error::codec(ErrorKind::NotAvailable, "a chunk in work")),
            Next::Predict(held) => match self.model_in_force() {
                Ok(codec) => Ok(Advance::Decode(codec, held)),
                Err(error) => {
                    self.session.held = Some(held);
                    Err(error)
                }
            },
        }
    }

    /// Decodes chunks of one model. Returns the streams for which the device failed. They keep their chunks, so that
    /// these can be tried again.
    fn decode(streams: &mut [&mut DeviceDecoder], group: &[Chunk]) -> Vec<(usize, Error)> {
        let alone = group.len() == 1;
        let (there, here): (Vec<Chunk>, Vec<Chunk>) =
            group.iter().cloned().partition(|(i, codec, held)| streams[*i].decodes_there(codec, held, alone));
        let mut failed = Vec::new();
        DeviceDecoder::attempt(streams, &there, DeviceDecoder::decode_there, &mut failed);
        DeviceDecoder::attempt(streams, &here, DeviceDecoder::decode_here, &mut failed);
        failed
    }

    /// Decodes chunks together. If the device fails, decodes them in halves, because it may have memory for fewer.
    fn attempt(
        streams: &mut [&mut DeviceDecoder],
        group: &[Chunk],
        decode: impl Fn(&mut [&mut DeviceDecoder], &[Chunk]) -> Result<()> + Copy,
        failed: &mut Vec<(usize, Error)>,
    ) {
        match (decode(streams, group), group) {
            (Ok(()), _) => {}
            (Err(error), [(i, _, held)]) => {
                // A stream whose payload was refused reports that instead.
                if !streams[*i].session.has_failed() {
                    streams[*i].session.held = Some(held.clone());
                    failed.push((*i, error));
                }
            }
            (Err(_), group) => {
                let (first, second) = group.split_at(group.len() / 2);
                DeviceDecoder::attempt(streams, first, decode, failed);
                DeviceDecoder::attempt(streams, second, decode, failed);
            }
        }
    }

    /// Whether a chunk is decoded on the device.
    fn decodes_there(&self, codec: &DeviceCodec, held: &Held, alone: bool) -> bool {
        let chosen = match self.coder {
            Coder::Automatic => !alone || held.count > 1,
            Coder::Cpu => false,
            Coder::Device => true,
        };
        chosen && codec.has_kernels() && !self.session.is_hyper_prior(held)
    }

    /// Decodes chunks of one model with the device's coder.
    fn decode_there(streams: &mut [&mut DeviceDecoder], group: &[Chunk]) -> Result<()> {
        let Some((_, codec, _)) = group.first() else { return Ok(()) };
        match codec.engine() {
            Engine::Tensors(_) => DeviceDecoder::decode_here(streams, group),
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            Engine::Kernels(codec) => kernels::decode(codec, streams, group),
        }
    }

    /// Decodes chunks of one model with the CPU's coder. g_y runs once for all.
    fn decode_here(streams: &mut [&mut DeviceDecoder], group: &[Chunk]) -> Result<()> {
        let Some((_, codec, _)) = group.first() else { return Ok(()) };
        let mut waiting = Vec::with_capacity(group.len());
        for (i, _, held) in group {
            if streams[*i].session.has_failed() {
                continue;
            }
            match streams[*i].session.decode_w(held.clone()) {
                Ok(chunk) => waiting.push((*i, chunk)),
                Err(error) => streams[*i].session.fail(error),
            }
        }
        let w: Vec<i16> = waiting.iter().flat_map(|(_, chunk)| chunk.w.iter().copied()).collect();
        let output = match codec.engine() {
            Engine::Tensors(codec) => tensors::predict(codec, streams, &waiting, &w)?,
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            Engine::Kernels(codec) => kernels::predict(codec, streams, &waiting, &w)?,
        };
        let mut rest = output.as_slice();
        for (i, chunk) in waiting {
            let session = &mut streams[i].session;
            let (own, behind) = rest.split_at(chunk.held.count * codec.codec().g_y().outputs());
            rest = behind;
            session.scratch.output = own.to_vec();
            if let Err(error) = session.decode_predicted(chunk) {
                session.fail(error);
            }
        }
        Ok(())
    }

    fn model_in_force(&self) -> Result<Arc<DeviceCodec>> {
        let in_force = |model: &&Arc<DeviceCodec>| Arc::ptr_eq(model.codec(), self.session.codec());
        let missing = || Error::codec(ErrorKind::WrongModel, "the model in force is not on the device");
        self.models.iter().find(in_force).cloned().ok_or_else(missing)
    }

    /// Uploads an event's hidden states to the device. If that fails, the next poll returns the event again.
    fn bring(&mut self, mut poll: DecoderPoll) -> Result<DevicePoll> {
        // Whether a chunk is decoded on the device depends on the other chunks of the call, but the contents of an
        // event must not ([ERR-1]).
        let keeps_integers = self.coder == Coder::Cpu || !self.models.iter().any(|model| model.has_kernels());
        let frames = |frames: &mut Frames| {
            if !keeps_integers {
                frames.w.clear();
                frames.y.clear();
            }
        };
        match &mut poll {
            DecoderPoll::Event(DecoderEvent::Frames(event)) => frames(event),
            DecoderPoll::Event(DecoderEvent::ExactFrame(event)) => frames(&mut event.frame),
            _ => {}
        }
        let hidden = match &mut poll {
            DecoderPoll::Event(DecoderEvent::Frames(frames)) => &mut frames.hidden,
            DecoderPoll::Event(DecoderEvent::ExactFrame(exact)) => &mut exact.frame.hidden,
            DecoderPoll::Event(DecoderEvent::Targets(targets)) => &mut targets.hidden,
            _ => return Ok(DevicePoll { poll, hidden: None }),
        };
        if hidden.is_empty()
            && let Some(tensor) = self.decoded.take()
        {
            return Ok(DevicePoll { poll, hidden: Some(tensor) });
        }
        let upload = || {
            let model = self.model_in_force()?;
            let width = model.codec().model().hidden_width();
            Ok(Tensor::from_slice(hidden, (hidden.len() / width, width), model.device())?)
        };
        match upload() {
            Ok(tensor) => {
                hidden.clear();
                Ok(DevicePoll { poll, hidden: Some(tensor) })
            }
            Err(error) => {
                if let DecoderPoll::Event(event) = poll {
                    self.session.put_back(event);
                }
                Err(error)
            }
        }
    }
}

/// A step of a stream.
enum Advance {
    Poll(DevicePoll),
    Decode(Arc<DeviceCodec>, Held),
}

/// A stream's number, its model, and a chunk to decode.
type Chunk = (usize, Arc<DeviceCodec>, Held);

/// The first model's tables, and a configuration with those of the others.
fn configure(models: &[Arc<DeviceCodec>], mut config: DecoderConfig) -> Result<(Arc<Codec>, DecoderConfig)> {
    let [first, others @ ..] = models else {
        return Err(Error::codec(ErrorKind::BadConfig, "a decoder needs a model"));
    };
    if !config.models.is_empty() {
        return Err(Error::codec(ErrorKind::BadConfig, "further models are given on the device"));
    }
    config.models = others.iter().map(|model| Arc::clone(model.codec())).collect();
    Ok((Arc::clone(first.codec()), config))
}
