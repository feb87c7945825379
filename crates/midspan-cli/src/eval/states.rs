//! Hidden states of `midspan eval` as files: those that it measures, and others that the second half gets instead.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;

use crate::files::{Output, input_name, tell};
use crate::measure::{Sequence, WithoutCodec, effect};
use crate::rows::FormatArg;
use crate::tensor::States;
use midspan_host::split::SplitHost;
use midspan_train::calibrate::capture;

/// Writes hidden states as a capture that `calibrate --states` reads: `hidden` F32 `[T, E]`, `starts` I64 `[S]`, the
/// first frames of sequences, and `ids` I64 `[T]`, the token of each frame. `targets` I64 `[T]` are the tokens that
/// follow.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(path: &Path, sequences: &[Sequence], width: usize) -> Result<()> {
    let mut starts = Vec::with_capacity(sequences.len());
    let mut frames = 0;
    for sequence in sequences {
        starts.push(frames as u64);
        frames += sequence.frames();
    }
    let hidden: Vec<u8> =
        sequences.iter().flat_map(|sequence| &sequence.hidden).flat_map(|value| value.to_le_bytes()).collect();
    let integers = |values: &mut dyn Iterator<Item = u64>| values.flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
    let starts = integers(&mut starts.into_iter());
    let ids = integers(&mut sequences.iter().flat_map(|sequence| &sequence.ids).map(|id| u64::from(*id)));
    let targets = integers(&mut sequences.iter().flat_map(|sequence| &sequence.targets).map(|id| u64::from(*id)));
    let tensors = [
        ("hidden", TensorView::new(Dtype::F32, vec![frames, width], &hidden)?),
        ("ids", TensorView::new(Dtype::I64, vec![frames], &ids)?),
        ("starts", TensorView::new(Dtype::I64, vec![starts.len() / 8], &starts)?),
        ("targets", TensorView::new(Dtype::I64, vec![frames], &targets)?),
    ];
    let mut output = Output::create(path)?;
    output.write_bytes(&safetensors::serialize(tensors, None)?)?;
    let standard = output.is_standard();
    output.commit()?;
    tell(standard, format_args!("{frames} frames\n"))
}

/// What the second half makes of hidden states that it gets in place of its own.
#[derive(Serialize)]
pub(super) struct Received {
    /// The command that repeats it, with files without their folders.
    pub command: String,
    /// Frames.
    frames: usize,
    /// The host's context length.
    sequence_frames: usize,
    /// Squared error over the variance of the host's own hidden states around their mean.
    distortion: f64,
    /// Perplexity on them.
    perplexity: f64,
    /// Perplexity on the host's own hidden states.
    perplexity_unquantised: f64,
    /// Mean divergence of the predictions, nats.
    divergence: f64,
    /// Share of positions with the same most likely token.
    greedy_agreement: f64,
    /// Links without a codec on the host's own hidden states, by name.
    without_codec: BTreeMap<String, WithoutCodec>,
}

/// Figures of the hidden states in a file, `[T, E]`, all sequences one after the other.
///
/// # Errors
/// The file has no such tensor, or another number of frames than the sequences; or the predictions are not finite.
pub(super) fn received(
    (path, tensor): (&Path, &str),
    (host, sequences): (&dyn SplitHost, &[Sequence]),
    threads: usize,
    command: String,
) -> Result<Received> {
    let (frames, width) = (sequences.iter().map(Sequence::frames).sum::<usize>(), host.width());
    let mut states = States::open(path, FormatArg::Safetensors, tensor, width)?;
    let mut hidden = Vec::new();
    let found = states.read(frames, &mut hidden)?;
    if found != frames || states.read(1, &mut Vec::new())? > 0 {
        let relation = if found == frames { "more" } else { "fewer" };
        bail!("{}: {relation} than {frames} frames, which the text has with --frames as it is", input_name(path));
    }
    states.finish()?;
    // Other codecs may drop the tokens.
    let own = sequences.iter().flat_map(|sequence| &sequence.targets).map(|id| u64::from(*id));
    if capture::load_integers(path, "targets").is_ok_and(|targets| !own.eq(targets)) {
        bail!("{}: its \"targets\" are not the tokens of the text", input_name(path));
    }
    let own: Vec<f32> = sequences.iter().flat_map(|sequence| sequence.hidden.iter().copied()).collect();
    let task = effect(host, sequences, &hidden, threads)?;
    Ok(Received {
        command,
        frames,
        sequence_frames: host.context(),
        distortion: distortion(&own, &hidden, width),
        perplexity: task.perplexity_through_codec,
        perplexity_unquantised: task.perplexity_unquantised,
        divergence: task.divergence,
        greedy_agreement: task.greedy_agreement,
        without_codec: task.without_codec,
    })
}

/// The squared error of `[T, E]` values over their variance around each element's mean.
fn distortion(own: &[f32], received: &[f32], width: usize) -> f64 {
    let frames = (own.len() / width).max(1) as f64;
    let mut means = vec![0.0_f64; width];
    for row in own.chunks_exact(width) {
        means.iter_mut().zip(row).for_each(|(mean, value)| *mean += f64::from(*value) / frames);
    }
    let variance =
        |row: &[f32]| row.iter().zip(&means).map(|(value, mean)| (f64::from(*value) - mean).powi(2)).sum::<f64>();
    let error = own.iter().zip(received).map(|(own, received)| (f64::from(*own) - f64::from(*received)).powi(2));
    error.sum::<f64>() / own.chunks_exact(width).map(variance).sum::<f64>().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distortion_of_one_loses_all_that_varies() {
        let own = [1.0, 10.0, 3.0, 14.0];
        assert_eq!(distortion(&own, &own, 2), 0.0);
        assert_eq!(distortion(&own, &[2.0, 12.0, 2.0, 12.0], 2), 1.0);
        assert_eq!(distortion(&own, &[1.0, 10.0, 3.0, 13.0], 2), 0.1);
    }
}
