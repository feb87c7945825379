//! The tail: bytes in, hidden states out of the decoder, the model's second half, and the next token back.

use std::io::{BufWriter, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};

use super::channel::{Back, TailReport, plainly};
use super::sample::Sampler;
use crate::adapter::hex;
use crate::codec::{Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Verdict};
use crate::host::bundle::Bundle;
use crate::host::gpt::Cache;

/// Serves one stream: decodes frames, runs the second half, sends tokens back, and at the end a report.
///
/// # Errors
/// Those of the connection, the stream and the model; the head is told too, as far as the connection lasts.
pub fn serve(bundle: &Bundle, stream: TcpStream, sampler: Sampler) -> Result<()> {
    let mut back = BufWriter::new(stream.try_clone().context("cannot set up the connection")?);
    let outcome = Tail::new(bundle, sampler)?.run(stream, &mut back);
    if let Err(error) = &outcome {
        // The head may be gone already; the error itself is reported here either way.
        let _ = Back::Failure(format!("{error:#}")).write(&mut back).and_then(|()| back.flush());
    }
    outcome
}

struct Tail<'a> {
    bundle: &'a Bundle,
    decoder: Decoder,
    cache: Cache,
    sampler: Sampler,
    report: TailReport,
    w: Sha256,
    y: Sha256,
    /// Absolute index of the frame that is due.
    expected: u64,
    /// Seconds that the decoder took since the last token.
    spent: f64,
}

impl<'a> Tail<'a> {
    fn new(bundle: &'a Bundle, sampler: Sampler) -> Result<Self> {
        let config = DecoderConfig { host_digest: Some(bundle.host_digest), ..DecoderConfig::default() };
        Ok(Self {
            decoder: Decoder::new(bundle.codec.clone(), config)?,
            bundle,
            cache: Cache::new(),
            sampler,
            report: TailReport::default(),
            w: Sha256::new(),
            y: Sha256::new(),
            expected: 0,
            spent: 0.0,
        })
    }

    fn run(mut self, mut stream: TcpStream, back: &mut impl Write) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            // The decoder's own time, without the model's second half and without waiting for the network.
            let started = Instant::now();
            let poll = self.decoder.poll()?;
            self.spent += started.elapsed().as_secs_f64();
            match poll {
                DecoderPoll::Event(event) => self.take(event, back)?,
                DecoderPoll::NeedMore => {
                    let read = stream.read(&mut buffer).map_err(plainly).context("the head is gone")?;
                    if read == 0 {
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
        Back::Report(self.report).write(back).and_then(|()| back.flush()).context("the head is gone")
    }

    fn take(&mut self, event: DecoderEvent, back: &mut impl Write) -> Result<()> {
        match event {
            DecoderEvent::Frames(frames) => {
                self.w.update(little_endian(&frames.w));
                self.answer(frames.index, frames.count, &frames.y, frames.hidden, back)
            }
            DecoderEvent::HyperPrior(hyper_prior) => {
                self.w.update(little_endian(&hyper_prior.w));
                Ok(())
            }
            DecoderEvent::Targets(targets) => {
                self.answer(targets.index, targets.count, &targets.y, targets.hidden, back)
            }
            DecoderEvent::TargetRefused { index, reason } => bail!("target of frame {index:?} refused: {reason:?}"),
            DecoderEvent::Verdict { verdict: Verdict::YConfirmed, .. } => {
                self.report.confirmed += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn answer(&mut self, index: u64, count: usize, y: &[i16], hidden: Vec<f32>, back: &mut impl Write) -> Result<()> {
        if index != self.expected {
            bail!("frame {index} came where frame {} was due", self.expected);
        }
        // A head of this program never sends more; attention over a chunk takes memory by its square.
        let context = self.bundle.gpt.config().context;
        if count > context {
            bail!("a chunk of {count} frames, the model's context holds {context}");
        }
        self.expected += count as u64;
        self.report.frames += count as u64;
        self.y.update(little_endian(y));
        let spent = std::mem::take(&mut self.spent);
        if count > 1 {
            self.report.prompt_decode_seconds += spent;
        } else {
            self.report.decode_seconds.push(spent);
        }
        let width = self.bundle.codec.model().hidden_width();
        // [T · E] → [1, T, E]
        let hidden = Tensor::from_vec(hidden, (1, count, width), &Device::Cpu)?;
        let logits = self.bundle.gpt.forward_tail_last(&hidden, Some(&mut self.cache))?;
        let logits: Vec<f32> = logits.flatten_all()?.to_vec1()?;
        let token = self.sampler.choose(&logits);
        Back::Token(token).write(back).and_then(|()| back.flush()).context("the head is gone")
    }
}

pub(super) fn little_endian(values: &[i16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
