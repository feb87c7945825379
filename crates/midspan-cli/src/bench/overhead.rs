//! What real bytes cost above the tables' own −log2 p.

use std::sync::Arc;

use anyhow::Result;

use super::encoder_config;
use super::source::Source;
use midspan::codec::{Codec, Encoder};
use midspan::stream::Binding;
use midspan::wire::CheckWidth;

/// Frames between two checkpoints, as in the encoder's defaults.
const CHECKPOINT_EVERY: usize = 256;

/// Bits of a stream's chunks, without header and end, and their floor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Overhead {
    /// Frames coded.
    pub frames: usize,
    /// Chunks with frames.
    pub chunks: usize,
    /// The floor: the sum of −log2 p of all integers by the frozen tables.
    pub ideal: f64,
    /// Real bits of the chunks with frames, minus the floor.
    pub frames_above: f64,
    /// Real bits of the checkpoints.
    pub checkpoints: f64,
}

impl Overhead {
    /// Bits above the floor for each frame, checkpoints left out.
    pub(super) fn a_frame(&self) -> f64 {
        self.frames_above / self.frames.max(1) as f64
    }

    /// Bits above the floor for each chunk, checkpoints left out.
    pub(super) fn a_chunk(&self) -> f64 {
        self.frames_above / self.chunks.max(1) as f64
    }

    /// The floor of a chunk, bits.
    pub(super) fn ideal_a_chunk(&self) -> f64 {
        self.ideal / self.chunks.max(1) as f64
    }

    /// Bits of checkpoints for each frame.
    pub(super) fn checkpoints_a_frame(&self) -> f64 {
        self.checkpoints / self.frames.max(1) as f64
    }
}

/// Encodes `frames` frames, rounded up to whole chunks of `batch`, with a checkpoint at least every 256 frames.
///
/// # Errors
/// Those of the encoder.
pub(super) fn measure(
    codec: &Arc<Codec>,
    source: &Source,
    frames: usize,
    (batch, lanes): (usize, u16),
    binding: Binding,
) -> Result<Overhead> {
    let check = CheckWidth::None;
    let config = encoder_config().binding(binding).lanes(lanes).check(check).checkpoint_interval(0);
    let mut encoder = Encoder::new(codec.clone(), config)?;
    encoder.track_cost(true);
    // The stream header.
    take_bits(&mut encoder);
    let mut sum = Overhead::default();
    for _ in 0..frames.div_ceil(batch) {
        crate::side::set_none(&mut encoder, batch)?;
        encoder.push_hidden(source.frames(sum.frames, batch))?;
        let ideal = encoder.last_cost().unwrap_or_default().total();
        sum.ideal += ideal;
        sum.frames_above += take_bits(&mut encoder) - ideal;
        let before = sum.frames;
        sum.frames += batch;
        sum.chunks += 1;
        if sum.frames / CHECKPOINT_EVERY != before / CHECKPOINT_EVERY {
            encoder.checkpoint()?;
            sum.checkpoints += take_bits(&mut encoder);
        }
    }
    Ok(sum)
}

/// Takes the bytes or messages that the encoder has ready and returns their bits.
fn take_bits(encoder: &mut Encoder) -> f64 {
    let mut bytes = encoder.take_bytes().map_or(0, |bytes| bytes.len());
    while let Ok(Some(message)) = encoder.pop_message() {
        bytes += message.bytes.len();
    }
    8.0 * bytes as f64
}
