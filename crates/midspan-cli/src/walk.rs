//! Decodes a whole stream in constant memory: rows are written as they are decoded.

use std::collections::BTreeSet;
use std::io::{ErrorKind as IoErrorKind, Read};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::KEEPS_INTEGERS;
use super::limits::Bounds;
use super::terminal::counted;
use midspan::codec::{Codec, Decoder, DecoderEvent, DecoderPoll, TargetRefusal, Verdict};
use midspan::engine::quantiser;
use midspan::error::{Error, ErrorKind};
use midspan::wire::StreamHeader;

/// Bytes of one read.
const BLOCK: usize = 1 << 16;

/// An output for decoded rows. A row's number is the absolute index of its frame, since a whole stream starts with
/// frame 0.
pub(crate) trait Rows {
    /// Bytes that a frame takes in the output.
    fn bytes_per_frame(&self) -> u64;

    /// Takes W, `[T, C]`, of frames from `index` on, which is the next one.
    ///
    /// # Errors
    /// The output's error.
    fn w(&mut self, index: u64, w: &[i16]) -> Result<()>;

    /// Takes Y and hidden states, `[T, E]`, of frames from `index` on, whose W came before. Frames come in any order,
    /// each once.
    ///
    /// # Errors
    /// The output's error.
    fn targets(&mut self, index: u64, y: &[i16], hidden: &[f32]) -> Result<()>;

    /// Removes the frames from `index` on.
    ///
    /// # Errors
    /// The output's error, also if it cannot remove rows.
    fn rewind(&mut self, index: u64) -> Result<()>;
}

/// An output that discards all rows.
pub(crate) struct Nowhere;

impl Rows for Nowhere {
    fn bytes_per_frame(&self) -> u64 {
        0
    }

    fn w(&mut self, _: u64, _: &[i16]) -> Result<()> {
        Ok(())
    }

    fn targets(&mut self, _: u64, _: &[i16], _: &[f32]) -> Result<()> {
        Ok(())
    }

    fn rewind(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
}

/// What ended decoding before the stream's end.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// The stream's error; `None` if the rows or the early targets exceeded a limit.
    pub error: Option<Error>,
    /// What is wrong and, if it is a limit of this program, which option raises it.
    pub message: String,
}

impl Fault {
    /// The fault as it is reported in JSON.
    pub(crate) fn json(&self) -> Value {
        let (code, offset) = (self.error.map(|error| error.code()), self.error.map(|error| error.offset()));
        json!({"code": code, "offset": offset, "message": self.message})
    }
}

/// Counts for a stream, up to its end or its first fault.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Frames whose rows are complete.
    pub frames: u64,
    /// Checkpoints, resets, switches and ends whose digests matched.
    pub confirmed: u64,
    /// Those whose Y digest cannot be verified.
    pub unverifiable: u64,
    /// Frames from the first one on that W and Y digests confirmed.
    pub confirmed_frames: u64,
    /// Frames whose target never came, so that the prediction replaces it.
    pub concealed: u64,
    /// Frames whose target did not come before a new context began; Y is 0 and the hidden state NaN.
    pub lost: u64,
    /// Target chunks that were damaged.
    pub damaged: u64,
    /// The first fault.
    pub fault: Option<Fault>,
}

impl Tally {
    /// Whether every frame has its own target.
    ///
    /// # Errors
    /// One line that counts what is missing.
    pub(crate) fn check_targets(&self) -> Result<()> {
        let Tally { damaged, concealed, lost, .. } = self;
        if damaged + concealed + lost > 0 {
            let damaged = counted(*damaged, "damaged target");
            let concealed = counted(*concealed, "frame");
            bail!("{damaged}; {concealed} without target concealed, {lost} lost (hidden state NaN)");
        }
        Ok(())
    }
}

/// Decodes a stream from `input` into `rows`, with the side indices of all frames where the stream does not hold them. A
/// fault of the stream is part of the result; rows after the last complete
/// frame are then removed.
///
/// # Errors
/// Those of `input` and `rows`, or the decoder cannot be opened.
pub(crate) fn walk(
    mut input: impl Read,
    codec: &Arc<Codec>,
    bounds: &Bounds,
    side: Option<&[u32]>,
    rows: &mut dyn Rows,
) -> Result<Tally> {
    let mut decoder = Decoder::new(codec.clone(), bounds.decoder())?;
    let mut walk = Walk {
        rows,
        most: 0,
        channels: codec.model().hyper_prior_width(),
        width: codec.model().hidden_width(),
        next: 0,
        pending: BTreeSet::new(),
        header: None,
        tally: Tally::default(),
    };
    walk.most = bounds.output.checked_div(walk.rows.bytes_per_frame()).unwrap_or(u64::MAX);
    let mut block = vec![0; BLOCK];
    // Whether a frame has a side index from `side`.
    let mut gave = false;
    let error = loop {
        let outcome = match decoder.poll() {
            Ok(DecoderPoll::Event(DecoderEvent::TargetsOverdue { index, count })) => {
                let horizon = walk.header.as_ref().and_then(|header| header.target_horizon).unwrap_or(0);
                match bounds.limits.target_horizon < horizon {
                    // The target may still come, and a decoder with a higher limit would wait for it.
                    true => Err(Error::of_call(ErrorKind::TargetOverdue)),
                    false => decoder.conceal(index, count),
                }
            }
            Ok(DecoderPoll::Event(DecoderEvent::SideWanted { index, count })) => {
                let first = usize::try_from(index).unwrap_or(usize::MAX);
                match side.unwrap_or(&[]).get(first..first.saturating_add(count)) {
                    Some(indices) => {
                        gave = true;
                        decoder.give_side(indices)
                    }
                    None => {
                        let found = side.map_or(0, <[u32]>::len);
                        let message = format!(
                            "the side indices of {count} frames from {index} on are not in the stream, and --side gives \
                             {found}"
                        );
                        walk.tally.fault = Some(Fault { error: None, message });
                        break None;
                    }
                }
            }
            Ok(DecoderPoll::Event(DecoderEvent::SideIndices { index, indices })) if side.is_some() => {
                match differs(side.unwrap_or(&[]), index, &indices) {
                    None => Ok(()),
                    Some(message) => {
                        walk.tally.fault = Some(Fault { error: None, message });
                        break None;
                    }
                }
            }
            // A decoder with a higher limit would have accepted it.
            Ok(DecoderPoll::Event(DecoderEvent::TargetRefused { reason: TargetRefusal::MemoryLimit, .. })) => {
                Err(Error::of_call(ErrorKind::MemoryLimit))
            }
            Ok(DecoderPoll::Event(DecoderEvent::TargetRefused { reason: TargetRefusal::NoRoom, .. })) => {
                let message = format!(
                    "too many targets came before their frames, or more than {} bytes of them, or than {} bytes of memory leave \
                     room for; --limit early=N and memory=N raise that",
                    bounds.limits.early_bytes, bounds.memory
                );
                walk.tally.fault = Some(Fault { error: None, message });
                break None;
            }
            Ok(DecoderPoll::Event(event)) => {
                if let Some(frames) = walk.more(&event).filter(|frames| *frames > walk.most) {
                    let message = format!(
                        "{frames} frames are more than {} bytes of rows; --limit output=N raises it",
                        bounds.output
                    );
                    walk.tally.fault = Some(Fault { error: None, message });
                    break None;
                }
                walk.take(event)?;
                Ok(())
            }
            Ok(DecoderPoll::NeedMore) => match input.read(&mut block) {
                Ok(0) => {
                    decoder.finish();
                    Ok(())
                }
                Ok(read) => decoder.push(&block[..read]),
                Err(error) if error.kind() == IoErrorKind::Interrupted => Ok(()),
                Err(error) => return Err(error.into()),
            },
            Ok(DecoderPoll::End) => match decoder.oldest_pending() {
                Some(index) => decoder.conceal(index, 1),
                None => break None,
            },
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            break Some(error);
        }
    };
    if let Some(error) = error {
        // A wrong side index shows as what it spoils: a check, a payload or a digest.
        let kinds = [ErrorKind::FrameCheckMismatch, ErrorKind::DigestMismatchW];
        let doubted = gave && (kinds.contains(&error.kind()) || error.code() / 100 == 6);
        let doubt = if doubted { "; or --side does not give what the encoder was given" } else { "" };
        let message = format!("{error}{}{doubt}", bounds.remedy(&error, walk.header.as_deref()));
        walk.tally.fault = Some(Fault { error: Some(error), message });
    }
    walk.tally.confirmed_frames = decoder.confirmed_index();
    walk.close()
}

/// What is wrong where a stream has other side indices, from frame `index` on, than `given` says of all frames.
fn differs(given: &[u32], index: u64, indices: &[u32]) -> Option<String> {
    let first = usize::try_from(index).unwrap_or(usize::MAX);
    let own = given.get(first.min(given.len())..).unwrap_or(&[]);
    let at = (0..indices.len()).find(|at| own.get(*at) != indices.get(*at))?;
    let frame = index.saturating_add(at as u64);
    let (found, wanted) = (indices.get(at)?, own.get(at));
    Some(match wanted {
        Some(wanted) => format!("frame {frame} has side index {found} in the stream, and --side gives {wanted}"),
        None => format!("frame {frame} has a side index in the stream, and --side gives {} in all", given.len()),
    })
}

struct Walk<'a> {
    rows: &'a mut dyn Rows,
    /// The most frames that may be written.
    most: u64,
    width: usize,
    channels: usize,
    /// Frames that have W.
    next: u64,
    /// Frames that have W and wait for their target. The decoder allows at most as many as the target horizon.
    pending: BTreeSet<u64>,
    header: Option<Box<StreamHeader>>,
    tally: Tally,
}

impl Walk<'_> {
    /// The number of frames including those of an event; `None` if the event has no new frames.
    fn more(&self, event: &DecoderEvent) -> Option<u64> {
        let (index, count) = match event {
            DecoderEvent::Frames(frames) => (frames.index, frames.count),
            DecoderEvent::ExactFrame(exact) => (exact.frame.index, exact.frame.count),
            DecoderEvent::HyperPrior(hyper_prior) => (hyper_prior.index, hyper_prior.count),
            _ => return None,
        };
        Some(index.saturating_add(count as u64))
    }

    fn take(&mut self, event: DecoderEvent) -> Result<()> {
        match event {
            DecoderEvent::Opened(header) => self.header = Some(header),
            DecoderEvent::Frames(frames) => {
                let integers = frames.integers.context(KEEPS_INTEGERS)?;
                self.append(frames.index, &integers.w)?;
                self.rows.targets(frames.index, &integers.y, &frames.hidden)?;
            }
            DecoderEvent::ExactFrame(exact) => {
                let integers = exact.frame.integers.context(KEEPS_INTEGERS)?;
                self.append(exact.frame.index, &integers.w)?;
                let hidden = quantiser::to_f32(exact.dtype, &exact.hidden);
                self.rows.targets(exact.frame.index, &integers.y, &hidden)?;
            }
            DecoderEvent::HyperPrior(hyper_prior) => {
                self.append(hyper_prior.index, &hyper_prior.w)?;
                self.pending.extend(hyper_prior.index..self.next);
            }
            DecoderEvent::Targets(targets) => {
                self.tally.concealed += if targets.concealed { targets.count as u64 } else { 0 };
                for index in targets.index..targets.index.saturating_add(targets.count as u64) {
                    self.pending.remove(&index);
                }
                self.rows.targets(targets.index, &targets.y, &targets.hidden)?;
            }
            DecoderEvent::TargetRefused { reason: TargetRefusal::Damaged, .. } => self.tally.damaged += 1,
            DecoderEvent::TargetsDropped { index, count } => {
                self.lose(index..index.saturating_add(count as u64))?;
            }
            DecoderEvent::Rewound { index } => self.rewind(index)?,
            DecoderEvent::Verdict { verdict: Verdict::YConfirmed, .. } => self.tally.confirmed += 1,
            DecoderEvent::Verdict { verdict: Verdict::YUnverifiable, .. } => self.tally.unverifiable += 1,
            _ => {}
        }
        Ok(())
    }

    fn append(&mut self, index: u64, w: &[i16]) -> Result<()> {
        self.next = index.saturating_add((w.len() / self.channels.max(1)) as u64);
        self.rows.w(index, w)
    }

    /// Writes rows for frames whose targets will not come.
    fn lose(&mut self, frames: std::ops::Range<u64>) -> Result<()> {
        let (y, hidden) = (vec![0; self.width], vec![f32::NAN; self.width]);
        for index in frames {
            if self.pending.remove(&index) {
                self.tally.lost += 1;
                self.rows.targets(index, &y, &hidden)?;
            }
        }
        Ok(())
    }

    fn rewind(&mut self, index: u64) -> Result<()> {
        self.pending.split_off(&index);
        self.next = index;
        self.rows.rewind(index)
    }

    /// After a fault only the frames before the first one that waits for its target are complete.
    fn close(mut self) -> Result<Tally> {
        // Without a fault no frame waits, because all were concealed.
        if let Some(index) = self.pending.first().copied() {
            self.rewind(index)?;
        }
        Ok(Tally { frames: self.next, ..self.tally })
    }
}
