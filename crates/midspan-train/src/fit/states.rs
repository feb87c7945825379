//! Fits from captured hidden states, where the second half of the host is not at hand.
//!
//! The loss is half the squared error as the capture's sensitivity weighs it, plus λ times the bits. With the Fisher
//! information as sensitivity that is the divergence of the predictions to second order, in nats; without one it is half
//! the hidden state's width times the share of the variance that is lost.

use candle_core::{Device, Tensor, bail};
use sha2::{Digest, Sha256};

use crate::calibrate::capture::Capture;
use crate::calibrate::maps;
use crate::data::{Corpus, HeldOut};
use crate::{Error, Result};
use midspan::adapter::hex;
use midspan_host::ops::linear;
use midspan_host::split::SplitHost;

/// The most frames of a window.
const CONTEXT: usize = 512;

/// Captured hidden states in place of a host. Its tokens are the frames' numbers, those held out after the others.
/// Windows are runs of frame numbers, as long as the longest sequence and at most 512 frames: where sequences differ in
/// length, some windows begin in one and end in the next.
pub struct States {
    /// `[frames, E]`.
    hidden: Tensor,
    /// The token of each frame, or none.
    ids: Vec<u32>,
    /// The captured frames that are learned from.
    capture: Capture,
    held_out: usize,
    context: usize,
    /// `[E, E]`.
    weight: Tensor,
    /// SHA-256 of all that a fit learns from, in hexadecimal.
    digest: String,
}

impl States {
    /// Frames to learn from, and frames held out.
    ///
    /// # Errors
    /// [`Error::Setting`] if they do not belong together or are fewer than two each, [`Error::NoMap`] if hidden states do
    /// not vary.
    pub fn new(capture: Capture, held_out: &Capture) -> Result<Self> {
        let (width, frames) = (capture.width, capture.frames());
        if held_out.width != width {
            return Err(Error::setting("the held-out states' width", held_out.width, width.to_string()));
        }
        for (name, frames) in [("captured frames", frames), ("held-out frames", held_out.frames())] {
            if frames < 2 {
                return Err(Error::setting(name, frames, "at least 2"));
            }
        }
        let ids = match (&capture.ids, &held_out.ids) {
            (Some(ids), Some(others)) => [&ids[..], others].concat(),
            _ => Vec::new(),
        };
        let weight = match &capture.sensitivity {
            Some(sensitivity) => maps::tensor(sensitivity)?,
            None => {
                let (_, covariance) = maps::moments(&capture.hidden, width)?;
                let variance = covariance.trace();
                if !(variance > 0.0 && variance.is_finite()) {
                    return Err(Error::NoMap);
                }
                (Tensor::eye(width, candle_core::DType::F32, &Device::Cpu)? * (width as f64 / variance))?
            }
        };
        let hidden = [&capture.hidden[..], &held_out.hidden].concat();
        let mut digest = Sha256::new();
        hidden.iter().for_each(|x| digest.update(x.to_le_bytes()));
        ids.iter().for_each(|id| digest.update(id.to_le_bytes()));
        let places = capture.starts.iter().chain([&frames]).chain(&held_out.starts);
        places.for_each(|place| digest.update((*place as u64).to_le_bytes()));
        capture.sensitivity.iter().flatten().for_each(|x| digest.update(x.to_le_bytes()));
        let ends = capture.starts.iter().skip(1).copied().chain([frames]);
        let longest = capture.starts.iter().zip(ends).map(|(start, end)| end - start).max().unwrap_or(frames);
        Ok(Self {
            hidden: Tensor::from_vec(hidden, (frames + held_out.frames(), width), &Device::Cpu)?,
            ids,
            held_out: held_out.frames(),
            // A window is one frame shorter than what is drawn, and both parts have to hold one.
            context: longest.min(CONTEXT).min(frames - 1).min(held_out.frames() - 1),
            weight,
            digest: hex(&digest.finalize()),
            capture,
        })
    }

    /// The frames that are learned from, by number.
    pub fn corpus(&self) -> Corpus {
        Corpus::from_ids((0..self.capture.frames() as u32).collect())
    }

    /// The frames held out, by number.
    pub fn held_out(&self) -> HeldOut {
        let first = self.capture.frames() as u32;
        HeldOut { ids: (first..first + self.held_out as u32).collect(), bytes: self.held_out }
    }

    /// SHA-256 of hidden states, tokens, starts of sequences and sensitivity, and of where the held-out frames begin, in
    /// hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Whether errors are weighed by a sensitivity.
    pub fn has_sensitivity(&self) -> bool {
        self.capture.sensitivity.is_some()
    }

    /// The captured frames that are learned from.
    pub(super) fn capture(&self) -> &Capture {
        &self.capture
    }

    /// The tokens of frames.
    pub(super) fn ids(&self, frames: &[u32]) -> Vec<u32> {
        if self.ids.is_empty() { Vec::new() } else { frames.iter().map(|frame| self.ids[*frame as usize]).collect() }
    }

    /// Half the weighted squared error of each frame: hidden states `[batch, T, E]` before and after -> `[batch, T]`.
    pub(super) fn error(&self, before: &Tensor, after: &Tensor) -> Result<Tensor> {
        let error = (after - before)?;
        Ok(((linear(&error, &self.weight)? * &error)?.sum(2)? * 0.5)?)
    }
}

impl SplitHost for States {
    fn width(&self) -> usize {
        self.capture.width
    }

    fn context(&self) -> usize {
        self.context
    }

    /// Frames.
    fn vocab(&self) -> usize {
        self.capture.frames() + self.held_out
    }

    fn head(&self, frames: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, time) = frames.dims2()?;
        self.hidden.index_select(&frames.flatten_all()?, 0)?.reshape((batch, time, self.capture.width))
    }

    fn tail(&self, _: &Tensor, _: usize) -> candle_core::Result<Tensor> {
        bail!("captured hidden states have no second half")
    }
}

#[cfg(test)]
mod tests {
    use nalgebra::DMatrix;

    use super::*;

    /// Results and checkpoints of a fit are told apart by the digest: whatever changes the loss has to change it.
    #[test]
    fn all_that_a_fit_learns_from_is_in_the_digest() {
        let capture = |seed: u64| {
            let mut rng = crate::rng::Rng::new(seed);
            Capture::new((0..120).map(|_| rng.normal()).collect(), 3).unwrap()
        };
        let digest = |capture: Capture, held_out: Capture| States::new(capture, &held_out).unwrap().digest;
        let weighed = |weight: f64| Some(DMatrix::identity(3, 3) * weight);
        let digests = [
            digest(capture(1), capture(2)),
            digest(capture(1), capture(3)),
            digest(Capture { sensitivity: weighed(1.0), ..capture(1) }, capture(2)),
            digest(Capture { sensitivity: weighed(2.0), ..capture(1) }, capture(2)),
            digest(Capture { starts: vec![0, 20], ..capture(1) }, capture(2)),
            digest(capture(1), Capture { starts: vec![0, 20], ..capture(2) }),
            digest(Capture { ids: Some(vec![1; 40]), ..capture(1) }, Capture { ids: Some(vec![1; 40]), ..capture(2) }),
        ];
        for (place, own) in digests.iter().enumerate() {
            assert!(!digests[..place].contains(own), "{place}");
        }
        assert_eq!(digests[0], digest(capture(1), capture(2)));
    }
}
