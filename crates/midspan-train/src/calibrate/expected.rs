//! What a codec costs and loses on captured hidden states, in real streams.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::capture::Capture;
use super::weighed::Weighed;
use crate::Result;
pub use crate::framing::side_indices;
use crate::parallel::in_threads;
use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, SideDelivery};
use midspan::engine::quantiser;
use midspan::model::Map;
use midspan::wire::{CheckWidth, Identity};

/// Figures of one quality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Expected {
    /// The quality.
    #[serde(default)]
    pub quality: usize,
    /// Frames measured.
    pub frames: usize,
    /// Bits a frame with one frame a chunk, framing included, without the stream's header and end.
    pub bits: f64,
    /// Bits a frame with 128 frames a chunk.
    pub bits_in_batches: f64,
    /// The share of the variance about the codec's offset that is lost, in the channels of the codec's map (of the hidden
    /// states if it has none). With sparse maps, as the capture's sensitivity weighs it, if it has any. `None` if the
    /// frames do not vary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distortion: Option<f64>,
    /// Mean cosine of the hidden states after and before.
    pub cosine: f64,
    /// Elements that were clipped.
    #[serde(default)]
    pub clipped: u64,
}

/// Measures every quality of a codec. Each sequence is a stream of its own.
///
/// # Errors
/// [`crate::Error::Codec`] if the codec cannot encode the capture.
pub fn expected(codec: &Arc<Codec>, capture: &Capture, threads: usize) -> Result<Vec<Expected>> {
    let sequences: Vec<(&[f32], Option<&[u32]>)> = capture.sequences_with_ids().collect();
    let sparse = codec.model().analysis().is_some_and(|map| map.sparse().is_some());
    let weighed = sparse.then(|| Weighed::new(capture.sensitivity.as_ref())).transpose()?;
    (0..codec.model().qualities())
        .map(|quality| {
            let mean = codec.model().offset(quality);
            let sums =
                in_threads(&sequences, threads, |own| Sums::new(codec, *own, (mean, weighed.as_ref()), quality))?;
            let sum = sums.into_iter().fold(Sums::default(), Sums::add);
            let frames = capture.frames().max(1) as f64;
            Ok(Expected {
                quality,
                frames: capture.frames(),
                bits: sum.bits / frames,
                bits_in_batches: sum.bits_in_batches / frames,
                distortion: (sum.variance > 0.0).then(|| sum.error / sum.variance),
                cosine: sum.cosine / frames,
                clipped: sum.clipped,
            })
        })
        .collect()
}

#[derive(Default)]
struct Sums {
    bits: f64,
    bits_in_batches: f64,
    error: f64,
    variance: f64,
    cosine: f64,
    clipped: u64,
}

impl Sums {
    fn new(
        codec: &Arc<Codec>,
        (hidden, ids): (&[f32], Option<&[u32]>),
        (mean, weighed): (&[f32], Option<&Weighed>),
        quality: usize,
    ) -> Result<Self> {
        let width = mean.len();
        let side = side_indices(codec, ids, hidden.len() / width);
        let (bits, stream, clipped) = encoded(codec, hidden, &side, quality, 1)?;
        let (bits_in_batches, ..) = encoded(codec, hidden, &side, quality, 128)?;
        let decoded = decoded(codec, &stream, &side)?;
        let mut sums = Self { bits, bits_in_batches, clipped, ..Self::default() };
        let ones = vec![1.0; width];
        let map = codec.model().analysis().and_then(Map::full);
        let mapped = |hidden: &[f32]| quantiser::to_steps(hidden, mean, map, &ones);
        let squares = |values: Vec<f32>| match weighed {
            Some(weighed) => weighed.squares(&values),
            None => Ok(values.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>()),
        };
        let (before, after) = (mapped(hidden)?, mapped(&decoded)?); // [T, E] each
        sums.error = squares(before.iter().zip(&after).map(|(before, after)| before - after).collect())?;
        sums.variance = squares(before)?;
        for (before, after) in hidden.chunks_exact(width).zip(decoded.chunks_exact(width)) {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            sums.cosine += dot(before, after) / (dot(before, before) * dot(after, after)).sqrt().max(f64::MIN_POSITIVE);
        }
        Ok(sums)
    }

    fn add(self, other: Self) -> Self {
        Self {
            bits: self.bits + other.bits,
            bits_in_batches: self.bits_in_batches + other.bits_in_batches,
            error: self.error + other.error,
            variance: self.variance + other.variance,
            cosine: self.cosine + other.cosine,
            clipped: self.clipped + other.clipped,
        }
    }
}

/// A stream of hidden states in chunks of so many frames: the bits of its chunks, its bytes, and the elements that were
/// clipped. The decoder's caller knows the side indices, one a frame if the codec takes any.
pub(super) fn encoded(
    codec: &Arc<Codec>,
    hidden: &[f32],
    side: &[u32],
    quality: usize,
    frames: usize,
) -> midspan::error::Result<(f64, Vec<u8>, u64)> {
    let config = EncoderConfig::new(Identity::none()).quality(quality as u8).check(CheckWidth::None);
    let mut encoder = Encoder::new(codec.clone(), config)?;
    let mut stream = encoder.take_bytes()?.to_vec();
    let mut bytes = 0;
    let mut side = side.chunks(frames);
    for chunk in hidden.chunks(frames * codec.model().hidden_width()) {
        if let Some(indices) = side.next() {
            encoder.set_side(indices, SideDelivery::Known)?;
        }
        encoder.push_hidden(chunk)?;
        let new = encoder.take_bytes()?;
        bytes += new.len();
        stream.extend_from_slice(&new);
    }
    encoder.end()?;
    stream.extend_from_slice(&encoder.take_bytes()?);
    Ok((8.0 * bytes as f64, stream, encoder.clipped()))
}

/// The hidden states of a stream whose side indices are known.
pub(super) fn decoded(codec: &Arc<Codec>, stream: &[u8], side: &[u32]) -> midspan::error::Result<Vec<f32>> {
    let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default())?;
    decoder.push(stream)?;
    decoder.finish();
    let mut hidden = Vec::new();
    loop {
        match decoder.poll()? {
            DecoderPoll::Event(DecoderEvent::Frames(frames)) => hidden.extend(frames.hidden),
            DecoderPoll::Event(DecoderEvent::SideWanted { index, count }) => {
                let first = index as usize;
                decoder.give_side(side.get(first..first + count).unwrap_or(&[]))?;
            }
            DecoderPoll::Event(_) => {}
            DecoderPoll::NeedMore | DecoderPoll::End => return Ok(hidden),
        }
    }
}
