//! The tail: decodes bytes to hidden states, runs the model's second half, and sends the next token back.

use std::io::Read;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};

use super::channel::{TailMessage, TailReport};
use super::link::Link;
use super::outcome::Times;
use super::sample::Sampler;
use crate::KEEPS_INTEGERS;
use crate::bundle::Bundle;
use crate::limits::Bounds;
use midspan::adapter::hex;
use midspan::codec::{Decoder, DecoderEvent, DecoderPoll, Verdict};
use midspan::error::{Error, ErrorKind};
use midspan::wire::StreamHeader;
use midspan_host::gpt::Cache;

/// Serves one stream: decodes frames, runs the second half, sends tokens back, and at the end a report.
///
/// # Errors
/// Those of the connection, the stream and the model. The error is also sent to the head if the connection still works.
pub(super) fn serve(bundle: &Bundle, mut link: Link, sampler: Sampler, bounds: Bounds) -> Result<()> {
    let outcome = Tail::new(bundle, sampler, bounds)?.run(&mut link);
    if let Err(error) = &outcome {
        // The head may have disconnected already. The error is reported here in either case.
        link.step();
        let _ = TailMessage::Failure(format!("{error:#}")).write(&mut link);
    }
    outcome
}

struct Tail<'a> {
    bundle: &'a Bundle,
    decoder: Decoder,
    bounds: Bounds,
    header: Option<Box<StreamHeader>>,
    cache: Cache,
    sampler: Sampler,
    /// The token that was sent to the head last.
    chosen: Option<u32>,
    report: TailReport,
    w: Sha256,
    y: Sha256,
    /// Absolute index of the frame that is due.
    expected: u64,
    /// Seconds spent in the decoder since the last token.
    spent: f64,
    times: Times,
}

impl<'a> Tail<'a> {
    fn new(bundle: &'a Bundle, sampler: Sampler, bounds: Bounds) -> Result<Self> {
        let config = bounds.decoder().host_digest(Some(bundle.host_digest));
        Ok(Self {
            decoder: Decoder::new(bundle.codec.clone(), config)?,
            bounds,
            header: None,
            bundle,
            cache: Cache::new(),
            sampler,
            chosen: None,
            report: TailReport::default(),
            w: Sha256::new(),
            y: Sha256::new(),
            expected: 0,
            spent: 0.0,
            times: Times::default(),
        })
    }

    fn run(mut self, link: &mut Link) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut closed = false;
        loop {
            // The decoder's own time, without the model's second half and without waiting for the network.
            let started = Instant::now();
            let poll = self.decoder.poll();
            self.spent += started.elapsed().as_secs_f64();
            // A head that ends early is gone; its stream may have been right so far.
            if closed && poll.as_ref().is_err_and(|error| error.kind() == ErrorKind::Truncated) {
                bail!("the head is gone: it closed the connection");
            }
            match poll.map_err(|error| self.plainly(error))? {
                DecoderPoll::Event(event) => self.take(event, link)?,
                DecoderPoll::NeedMore => {
                    // The next frames or the end are due within the timeout, whatever other chunks come before them.
                    let read = link.read(&mut buffer).context("the head is gone")?;
                    closed = read == 0;
                    if closed {
                        self.decoder.finish();
                    } else {
                        self.decoder.push(&buffer[..read])?;
                    }
                }
                DecoderPoll::End => break,
            }
        }
        self.report.w_sha256 = hex(&self.w.finalize());
        self.report.y_sha256 = hex(&self.y.finalize());
        self.report.decode_seconds = self.times.median();
        link.step();
        TailMessage::Report(self.report).write(link).context("the head is gone")
    }

    fn plainly(&self, error: Error) -> anyhow::Error {
        match self.bounds.remedy(&error, self.header.as_deref()) {
            remedy if remedy.is_empty() => error.into(),
            remedy => anyhow!("{error}{remedy}"),
        }
    }

    fn take(&mut self, event: DecoderEvent, link: &mut Link) -> Result<()> {
        match event {
            DecoderEvent::Opened(header) => {
                self.header = Some(header);
                Ok(())
            }
            DecoderEvent::Frames(frames) => {
                let integers = frames.integers.context(KEEPS_INTEGERS)?;
                self.w.update(little_endian(&integers.w));
                self.answer(frames.index, frames.count, &integers.y, frames.hidden, link)
            }
            DecoderEvent::HyperPrior(hyper_prior) => {
                self.w.update(little_endian(&hyper_prior.w));
                Ok(())
            }
            DecoderEvent::Targets(targets) => {
                self.answer(targets.index, targets.count, &targets.y, targets.hidden, link)
            }
            // The stream holds the prompt's; every later frame is that of the token that was chosen last.
            DecoderEvent::SideWanted { index, count } => match (self.chosen, self.decoder.codec().model().side()) {
                (Some(token), Some(side)) if count == 1 => {
                    Ok(self.decoder.give_side(&[side.index_of(token.into())])?)
                }
                _ => bail!("the head sends no side indices for {count} frames from {index} on"),
            },
            DecoderEvent::TargetRefused { index, reason } => bail!("target of frame {index:?} refused: {reason:?}"),
            DecoderEvent::Verdict { verdict: Verdict::YConfirmed, .. } => {
                self.report.confirmed += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn answer(&mut self, index: u64, count: usize, y: &[i16], hidden: Vec<f32>, link: &mut Link) -> Result<()> {
        if index != self.expected {
            bail!("frame {index} came where frame {} was due", self.expected);
        }
        // A head of this program never sends more, and attention over a chunk takes memory proportional to the square
        // of its frames.
        let context = self.bundle.gpt.config().context;
        if count > context {
            bail!("a chunk of {count} frames, the model's context holds {context}");
        }
        self.expected += count as u64;
        self.report.frames += count as u64;
        self.y.update(little_endian(y));
        let spent = std::mem::take(&mut self.spent);
        if count == 1 {
            self.times.add(spent);
        }
        let width = self.bundle.codec.model().hidden_width();
        // [T · E] → [1, T, E]
        let hidden = Tensor::from_vec(hidden, (1, count, width), &Device::Cpu)?;
        let logits = self.bundle.gpt.forward_tail_last(&hidden, Some(&mut self.cache))?;
        let logits: Vec<f32> = logits.flatten_all()?.to_vec1()?;
        let token = self.sampler.choose(&logits);
        self.chosen = Some(token);
        link.step();
        TailMessage::Token(token).write(link).context("the head is gone")
    }
}

pub(super) fn little_endian(values: &[i16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
