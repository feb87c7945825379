//! How long one-frame chunks are: the length offsets that suit them (spec 2.3), and the bits that are expected of a frame
//! (spec 4.4).

use std::sync::Arc;

use crate::Result;
use crate::parallel::in_threads;
use midspan::codec::{Codec, Encoder, EncoderConfig, SideDelivery};
use midspan::model::CodecModel;
use midspan::stream::Binding;
use midspan::wire::Identity;
use midspan::wire::kind::best_length_offset;

/// At least so many frames of each quality are measured, where there are as many; of one sequence at most so many.
const FRAMES: usize = 2_048;

/// A sequence of hidden states, `[T, E]`, and its tokens, if they are known.
pub type Sequence<'a> = (&'a [f32], Option<&'a [u32]>);

/// The same model with the length offsets and the expected bits of these hidden states. With each length offset,
/// one-frame chunks take the fewest bytes in front of their bodies; expected bits are the mean of their payloads. Of many
/// sequences some are measured, spread over all of them. The fingerprint stays the same.
///
/// # Errors
/// [`crate::Error::Codec`] if the model cannot encode the hidden states, [`crate::Error::Model`] never for a model that
/// was checked.
pub fn with_measured_lengths<'a>(
    model: CodecModel,
    sequences: impl IntoIterator<Item = Sequence<'a>>,
    threads: usize,
) -> Result<CodecModel> {
    let sequences: Vec<Sequence<'_>> = sequences.into_iter().collect();
    let codec = Arc::new(Codec::new(model)?);
    let width = codec.model().hidden_width();
    let frames: usize = sequences.iter().map(|(hidden, _)| hidden.len() / width).sum();
    let every = (frames / FRAMES).max(1);
    let qualities: Vec<usize> = (0..codec.model().qualities()).collect();
    let measured = in_threads(&qualities, threads, |quality| {
        let mut all = Lengths::default();
        for first in 0..every.min(sequences.len()) {
            for (hidden, ids) in sequences.iter().skip(first).step_by(every) {
                let own = lengths(&codec, hidden, *ids, *quality, FRAMES)?;
                all.bodies.extend(own.bodies);
                all.payload_bits += own.payload_bits;
            }
            if all.bodies.len() >= FRAMES {
                break;
            }
        }
        let expected = all.payload_bits as f64 / all.bodies.len().max(1) as f64;
        Ok((best_length_offset(all.bodies), expected as f32))
    })?;
    let (offsets, bits) = measured.into_iter().unzip();
    Ok(codec.model().clone().with_length_offsets(offsets)?.with_expected_bits(bits)?)
}

/// How long some one-frame chunks are.
#[derive(Default)]
struct Lengths {
    /// Bytes of each body, check included.
    bodies: Vec<usize>,
    /// Bits of all payloads.
    payload_bits: u64,
}

/// The lengths of the one-frame chunks of at most `most` frames of a sequence.
fn lengths(
    codec: &Arc<Codec>,
    hidden: &[f32],
    ids: Option<&[u32]>,
    quality: usize,
    most: usize,
) -> midspan::error::Result<Lengths> {
    let width = codec.model().hidden_width();
    let side = side_indices(codec, ids, hidden.len() / width);
    let config = EncoderConfig::new(Identity::none())
        .binding(Binding::Message)
        .quality(quality as u8)
        .checkpoint_interval(0)
        .max_rewind(0)
        .memory_limit(usize::MAX);
    let mut encoder = Encoder::new(Arc::clone(codec), config)?;
    encoder.keep_integers(false);
    encoder.pop_message()?; // the header
    let mut bodies = Vec::new();
    for (place, frame) in hidden.chunks_exact(width).take(most).enumerate() {
        if let Some(index) = side.get(place) {
            encoder.set_side(&[*index], SideDelivery::Known)?;
        }
        encoder.push_hidden(frame)?;
        // The message of a one-frame chunk is its body, which the check keeps from being empty.
        bodies.extend(encoder.pop_message()?.map(|message| message.bytes.len()));
    }
    Ok(Lengths { bodies, payload_bits: encoder.sent().payload_bits })
}

/// The side indices of frames with these tokens, for a codec that takes any: those that it does not have, and all if the
/// tokens are not known, are V.
pub fn side_indices(codec: &Codec, ids: Option<&[u32]>, frames: usize) -> Vec<u32> {
    let Some(side) = codec.model().side() else { return Vec::new() };
    match ids {
        Some(ids) => ids.iter().map(|id| side.index_of((*id).into())).collect(),
        None => vec![side.vocabulary(); frames],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use midspan::model::synthetic::{SyntheticShape, model};

    /// Hidden states whose integers are spread so far that frames take more than 128 bytes.
    fn far(codec: &CodecModel, frames: usize) -> Vec<f32> {
        let mut rng = Rng::new(7);
        let step = codec.step(0).to_vec();
        (0..frames).flat_map(|_| step.iter().map(|step| 6_000.0 * step * rng.normal()).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn the_offsets_take_the_fewest_bytes() {
        let model = model(&SyntheticShape { hidden: 96, ..SyntheticShape::tiny() }, 3);
        let hidden = far(&model, 60);
        let fitted = with_measured_lengths(model.clone(), [(&hidden[..], None)], 2).unwrap();
        assert_eq!(fitted.fingerprint(), model.fingerprint());
        let codec = Arc::new(Codec::new(fitted).unwrap());
        let Lengths { bodies, payload_bits } = lengths(&codec, &hidden, None, 0, 60).unwrap();
        // A body is a payload and a check of one byte.
        assert_eq!(payload_bits, bodies.iter().map(|body| 8 * (*body as u64 - 1)).sum::<u64>());
        assert_eq!(codec.model().expected_bits(0), Some(payload_bits as f32 / 60.0));
        assert!(bodies.len() == 60 && bodies.iter().all(|body| *body > 128), "{bodies:?}");
        let offset = codec.model().length_offset(0);
        assert!(offset > 0);
        let bytes = |offset: Option<u16>| {
            let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none()).length_offset(offset));
            let encoder = encoder.as_mut().unwrap();
            for frame in hidden.chunks_exact(96) {
                encoder.push_hidden(frame).unwrap();
            }
            encoder.take_bytes().unwrap().len()
        };
        let least = (0..500).map(|offset| bytes(Some(offset))).min();
        // A length offset above 127 takes a second byte in the header.
        assert!(bytes(None) <= least.unwrap() + 1);
        assert!(bytes(None) < bytes(Some(0)));
    }

    /// Where sequences differ in length, those that are skipped may hold nearly all frames.
    #[test]
    fn one_short_sequence_does_not_decide() {
        let model = model(&SyntheticShape { hidden: 96, ..SyntheticShape::tiny() }, 3);
        let (short, long) = (vec![0.0; 96], far(&model, 2 * FRAMES));
        let fitted = with_measured_lengths(model, [(&short[..], None), (&long[..], None)], 2).unwrap();
        assert!(fitted.length_offset(0) > 0);
    }

    #[test]
    fn short_frames_take_an_offset_of_0() {
        let model = model(&SyntheticShape::tiny(), 3);
        let hidden = vec![0.0; 20 * model.hidden_width()];
        let fitted = with_measured_lengths(model.clone(), [(&hidden[..], None)], 2).unwrap();
        let bits = [0, 1].map(|quality| fitted.expected_bits(quality).unwrap()).to_vec();
        assert_eq!(fitted.to_bytes(), model.with_expected_bits(bits).unwrap().to_bytes());
    }
}
