//! A whole stream through a decoder: integers and hidden states in the order of their frames.

use std::io::Read;
use std::sync::Arc;

use anyhow::{Result, bail};

use crate::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, TargetRefusal, Verdict, quantiser};
use crate::error::Error;

/// Bytes of one read.
const BLOCK: usize = 1 << 16;

/// What a stream decodes to, up to its end or its first fault.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// E.
    pub width: usize,
    /// C.
    pub channels: usize,
    w: Vec<i16>,
    y: Vec<i16>,
    hidden: Vec<f32>,
    /// Whether Y of a frame came, or was concealed.
    settled: Vec<bool>,
    /// Checkpoints, resets, switches and ends whose digests held.
    pub confirmed: u64,
    /// Those whose Y digest cannot be judged.
    pub unverifiable: u64,
    /// Frames whose target never came, replaced by the prediction.
    pub concealed: u64,
    /// Frames whose target never came before a new context: Y is 0, the hidden state NaN.
    pub lost: u64,
    /// Target chunks that were damaged.
    pub damaged: u64,
    /// The first fault.
    pub fault: Option<Error>,
}

/// Decodes a stream from `input`. A fault of the stream is part of the outcome.
///
/// # Errors
/// Those of `input`, and of a decoder that cannot be opened.
pub fn decode_file(mut input: impl Read, codec: &Arc<Codec>) -> Result<Decoded> {
    let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default())?;
    let (width, channels) = (codec.model().hidden_width(), codec.model().hyper_prior_width());
    let mut decoded = Decoded { width, channels, ..Decoded::default() };
    let mut block = vec![0; BLOCK];
    loop {
        let outcome = match decoder.poll() {
            Ok(DecoderPoll::Event(DecoderEvent::TargetsOverdue { index, count })) => decoder.conceal(index, count),
            Ok(DecoderPoll::Event(event)) => {
                decoded.take(event);
                Ok(())
            }
            Ok(DecoderPoll::NeedMore) => match input.read(&mut block) {
                Ok(0) => {
                    decoder.finish();
                    Ok(())
                }
                Ok(read) => decoder.push(&block[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
                Err(error) => return Err(error.into()),
            },
            Ok(DecoderPoll::End) => match decoder.oldest_pending() {
                Some(index) => decoder.conceal(index, 1),
                None => break,
            },
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            decoded.fault = Some(error);
            break;
        }
    }
    decoded.close();
    Ok(decoded)
}

impl Decoded {
    /// T: frames that have their hidden state.
    pub fn frames(&self) -> usize {
        self.settled.len()
    }

    /// `[T, C]`.
    pub fn w(&self) -> &[i16] {
        &self.w
    }

    /// `[T, E]`.
    pub fn y(&self) -> &[i16] {
        &self.y
    }

    /// `[T, E]`.
    pub fn hidden(&self) -> &[f32] {
        &self.hidden
    }

    /// Whether every frame has its own target.
    ///
    /// # Errors
    /// One line that counts what is missing.
    pub fn check_targets(&self) -> Result<()> {
        if self.damaged + self.concealed + self.lost > 0 {
            bail!(
                "{} damaged targets; {} frames without target concealed, {} lost",
                self.damaged,
                self.concealed,
                self.lost
            );
        }
        Ok(())
    }

    fn take(&mut self, event: DecoderEvent) {
        match event {
            DecoderEvent::Frames(frames) => {
                self.w.extend_from_slice(&frames.w);
                self.place(frames.index, &frames.y, &frames.hidden);
            }
            DecoderEvent::ExactFrame(exact) => {
                self.w.extend_from_slice(&exact.frame.w);
                self.place(exact.frame.index, &exact.frame.y, &quantiser::to_f32(exact.dtype, &exact.hidden));
            }
            DecoderEvent::HyperPrior(hyper_prior) => self.w.extend_from_slice(&hyper_prior.w),
            DecoderEvent::Targets(targets) => {
                self.concealed += if targets.concealed { targets.count as u64 } else { 0 };
                self.place(targets.index, &targets.y, &targets.hidden);
            }
            DecoderEvent::TargetRefused { reason: TargetRefusal::Damaged, .. } => self.damaged += 1,
            DecoderEvent::Rewound { index } => {
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                self.w.truncate(index.saturating_mul(self.channels));
                self.truncate_targets(index);
            }
            DecoderEvent::Verdict { verdict: Verdict::YConfirmed, .. } => self.confirmed += 1,
            DecoderEvent::Verdict { verdict: Verdict::YUnverifiable, .. } => self.unverifiable += 1,
            _ => {}
        }
    }

    /// Puts Y and hidden states, `[T, E]`, where their frames stand: targets may come in any order.
    fn place(&mut self, index: u64, y: &[i16], hidden: &[f32]) {
        // The decoder has held W of these frames: the index fits.
        let first = usize::try_from(index).unwrap_or(usize::MAX);
        let frames = first.saturating_add(y.len() / self.width);
        if self.settled.len() < frames {
            self.settled.resize(frames, false);
            self.y.resize(frames * self.width, 0);
            self.hidden.resize(frames * self.width, f32::NAN);
        }
        self.settled[first..frames].fill(true);
        self.y[first * self.width..frames * self.width].copy_from_slice(y);
        self.hidden[first * self.width..frames * self.width].copy_from_slice(hidden);
    }

    fn truncate_targets(&mut self, frames: usize) {
        self.settled.truncate(frames);
        self.y.truncate(frames.saturating_mul(self.width));
        self.hidden.truncate(frames.saturating_mul(self.width));
    }

    /// Behind a fault only the frames up to the first without target are whole; at an end the others are lost.
    fn close(&mut self) {
        let mut whole = self.w.len() / self.channels.max(1);
        if self.fault.is_some() {
            whole = self.settled.iter().position(|settled| !settled).unwrap_or(self.settled.len());
        }
        self.truncate_targets(whole);
        self.settled.resize(whole, false);
        self.y.resize(whole * self.width, 0);
        self.hidden.resize(whole * self.width, f32::NAN);
        self.w.truncate(whole * self.channels);
        self.lost = self.settled.iter().filter(|settled| !**settled).count() as u64;
    }
}
