//! g_y as tensors, for chunks whose W is already decoded.

use super::{DeviceDecoder, Waiting};
use crate::error::ErrorKind;
use crate::gpu::error::{Error, Result};
use crate::gpu::tensors::{TensorCodec, TensorStep};

/// Runs g_y for chunks of several streams, whose W follow each other in `w`, and returns all outputs. If it fails, no
/// stream advances.
pub(super) fn predict(
    codec: &TensorCodec,
    streams: &mut [&mut DeviceDecoder],
    waiting: &[(usize, Waiting)],
    w: &[i16],
) -> Result<Vec<i32>> {
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    let missing = || Error::codec(ErrorKind::NotAvailable, "no context");
    let mut states = Vec::with_capacity(waiting.len());
    for (i, _) in waiting {
        states.push(streams[*i].session.g_y.clone().ok_or_else(missing)?);
    }
    let mut steps = Vec::with_capacity(waiting.len());
    for (state, (i, chunk)) in states.iter_mut().zip(waiting) {
        let quality = streams[*i].session.quality;
        steps.push(TensorStep { state: state.tensors()?, frames: chunk.held.count, quality });
    }
    let output = codec.g_y().step(&mut steps, &codec.g_y().input(w)?)?;
    let output = codec.g_y().read(&output)?;
    for (state, (i, _)) in states.into_iter().zip(waiting) {
        streams[*i].session.g_y = Some(state);
    }
    Ok(output)
}
