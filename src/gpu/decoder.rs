//! The decoder session on a device: bytes in, tensors of hidden states out.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use candle_core::Tensor;

use super::codec::DeviceCodec;
use super::error::{Error, Result};
use super::tensors::{TensorState, TensorStep};
use crate::codec::decoder::{Next, Waiting};
use crate::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll};
use crate::error::ErrorKind;
use crate::stream::JoinPoint;
use crate::wire::StreamHeader;

/// Decodes one stream to hidden states on a device. Events are those of a [`Decoder`].
///
/// Input goes through the [`Decoder`] that it holds. Errors of the stream are sticky; one of the device
/// ([`Error::Device`]) is not: the same chunk is tried again at the next poll. Cloning forks the session.
#[derive(Clone, Debug)]
pub struct DeviceDecoder {
    models: Vec<Arc<DeviceCodec>>,
    session: Decoder<TensorState>,
}

/// Outcome of [`DeviceDecoder::poll`].
#[derive(Clone, Debug)]
pub struct DevicePoll {
    /// What happened. Hidden states are not in it.
    pub poll: DecoderPoll,
    /// The event's hidden states, \[T, E\] f32 on the device, where it has any.
    pub hidden: Option<Tensor>,
}

impl Deref for DeviceDecoder {
    type Target = Decoder<TensorState>;

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
    /// A decoder for streams of the first of some models, which may switch to the others; all lie on one device.
    ///
    /// # Errors
    /// As [`Decoder::new`]; [`ErrorKind::BadConfig`] without a model, or if `config` names further ones.
    pub fn new(models: Vec<Arc<DeviceCodec>>, config: DecoderConfig) -> Result<Self> {
        let (first, config) = configure(&models, config)?;
        Ok(Self { session: Decoder::open_session(first, config)?, models })
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
        Ok(Self { session: Decoder::join_session(first, config, header, point)?, models })
    }

    /// What happened next.
    ///
    /// # Errors
    /// The stream's first error, again at every later call; [`Error::Device`].
    pub fn poll(&mut self) -> Result<DevicePoll> {
        let mut outcome = DeviceDecoder::poll_together(&mut [self]);
        outcome.pop().unwrap_or_else(|| Err(Error::codec(ErrorKind::NotAvailable, "no stream")))
    }

    /// What happened next in each of many streams: g_y runs once for all that have a chunk to decode.
    ///
    /// # Errors
    /// As [`DeviceDecoder::poll`], for each stream; an error of the device reaches all streams that waited for it.
    pub fn poll_together(streams: &mut [&mut DeviceDecoder]) -> Vec<Result<DevicePoll>> {
        let mut outcomes: Vec<Option<Result<DevicePoll>>> = streams.iter().map(|_| None).collect();
        loop {
            let mut waiting = Vec::new();
            for (i, (stream, outcome)) in streams.iter_mut().zip(&mut outcomes).enumerate() {
                if outcome.is_none() {
                    match stream.next() {
                        Ok(Advance::Poll(poll)) => *outcome = Some(Ok(poll)),
                        Ok(Advance::Predict(codec, chunk)) => waiting.push((i, codec, chunk)),
                        Err(error) => *outcome = Some(Err(error)),
                    }
                }
            }
            if waiting.is_empty() {
                return outcomes.into_iter().flatten().collect();
            }
            waiting.sort_by_key(|(_, codec, _)| Arc::as_ptr(codec));
            for group in waiting.chunk_by(|a, b| Arc::ptr_eq(&a.1, &b.1)) {
                let predicted = DeviceDecoder::predict(streams, group);
                if let Err(error) = &predicted {
                    let text = error.to_string();
                    for (i, _, _) in group {
                        outcomes[*i] = Some(Err(candle_core::Error::Msg(text.clone()).into()));
                    }
                }
                for ((i, _, chunk), output) in group.iter().zip(predicted.unwrap_or_default()) {
                    streams[*i].finish_chunk(chunk, output);
                }
            }
            // What the device failed for is held, to be tried again.
            for (i, _, chunk) in waiting {
                if outcomes[i].is_some() {
                    streams[i].session.held = Some(chunk.held);
                }
            }
        }
    }

    /// Goes on to the next event, or to a chunk whose W it decodes.
    fn next(&mut self) -> Result<Advance> {
        loop {
            match self.session.next()? {
                Next::Poll(poll) => return Ok(Advance::Poll(self.bring(poll)?)),
                Next::Predict(held) => match self.session.decode_w(held) {
                    Ok(chunk) => return Ok(Advance::Predict(self.model_in_force()?, chunk)),
                    Err(error) => self.session.fail(error),
                },
            }
        }
    }

    /// Runs g_y for chunks of one model; each stream's output.
    fn predict(
        streams: &mut [&mut DeviceDecoder],
        group: &[(usize, Arc<DeviceCodec>, Waiting)],
    ) -> Result<Vec<(TensorState, Vec<i32>)>> {
        let Some((_, codec, _)) = group.first() else { return Ok(Vec::new()) };
        let missing = || Error::codec(ErrorKind::NotAvailable, "no context");
        let mut states = Vec::with_capacity(group.len());
        for (i, _, _) in group {
            states.push(streams[*i].session.g_y.clone().ok_or_else(missing)?);
        }
        let w: Vec<i16> = group.iter().flat_map(|(_, _, chunk)| chunk.w.iter().copied()).collect();
        let mut steps: Vec<TensorStep<'_>> = states
            .iter_mut()
            .zip(group)
            .map(|(state, (i, _, chunk))| TensorStep {
                state,
                frames: chunk.held.count,
                quality: streams[*i].session.quality,
            })
            .collect();
        let output = codec.g_y().step(&mut steps, &codec.g_y().input(&w)?)?;
        let output = codec.g_y().read(&output)?;
        let mut rest = output.as_slice();
        let mut outputs = Vec::with_capacity(group.len());
        for (state, (_, _, chunk)) in states.into_iter().zip(group) {
            let (own, behind) = rest.split_at(chunk.held.count * codec.codec().g_y().outputs());
            outputs.push((state, own.to_vec()));
            rest = behind;
        }
        Ok(outputs)
    }

    fn finish_chunk(&mut self, chunk: &Waiting, (state, output): (TensorState, Vec<i32>)) {
        self.session.g_y = Some(state);
        self.session.output = output;
        if let Err(error) = self.session.decode_predicted(chunk.clone()) {
            self.session.fail(error);
        }
    }

    fn model_in_force(&self) -> Result<Arc<DeviceCodec>> {
        let in_force = |model: &&Arc<DeviceCodec>| Arc::ptr_eq(model.codec(), self.session.codec());
        let missing = || Error::codec(ErrorKind::WrongModel, "the model in force is not on the device");
        self.models.iter().find(in_force).cloned().ok_or_else(missing)
    }

    /// Takes an event's hidden states to the device; where that fails, the event comes again.
    fn bring(&mut self, mut poll: DecoderPoll) -> Result<DevicePoll> {
        let hidden = match &mut poll {
            DecoderPoll::Event(DecoderEvent::Frames(frames)) => &mut frames.hidden,
            DecoderPoll::Event(DecoderEvent::ExactFrame(exact)) => &mut exact.frame.hidden,
            DecoderPoll::Event(DecoderEvent::Targets(targets)) => &mut targets.hidden,
            _ => return Ok(DevicePoll { poll, hidden: None }),
        };
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
    Predict(Arc<DeviceCodec>, Waiting),
}

/// The first model's tables, and a configuration that knows the others'.
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
