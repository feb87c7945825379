//! Decodes chunks with kernels, and runs g_y on kernels for chunks whose W is already decoded.

use super::{Chunk, DeviceDecoder, Waiting};
use crate::error::ErrorKind;
use crate::gpu::error::{Error, Result};
use crate::gpu::kernels::{DecodeStep, KernelCodec, KernelStep};
use crate::gpu::state::DeviceState;

/// Takes the streams' contexts out of their sessions while `work` uses them.
fn with_contexts<T>(
    streams: &mut [&mut DeviceDecoder],
    of: &[usize],
    work: impl FnOnce(&mut [DeviceState], &[&mut DeviceDecoder]) -> Result<T>,
) -> Result<T> {
    if of.iter().any(|i| streams[*i].session.g_y.is_none()) {
        return Err(Error::codec(ErrorKind::NotAvailable, "no context"));
    }
    let mut states: Vec<_> = of.iter().filter_map(|i| streams[*i].session.g_y.take()).collect();
    let outcome = work(&mut states, streams);
    for (i, state) in of.iter().zip(states) {
        streams[*i].session.g_y = Some(state);
    }
    outcome
}

/// Runs g_y for chunks of several streams, whose W follow each other in `w`, and returns all outputs. If it fails, no
/// stream advances.
pub(super) fn predict(
    codec: &KernelCodec,
    streams: &mut [&mut DeviceDecoder],
    waiting: &[(usize, Waiting)],
    w: &[i16],
) -> Result<Vec<i32>> {
    let of: Vec<usize> = waiting.iter().map(|(i, _)| *i).collect();
    with_contexts(streams, &of, |states, streams| {
        let mut steps = Vec::with_capacity(waiting.len());
        for (state, (i, chunk)) in states.iter_mut().zip(waiting) {
            let quality = streams[*i].session.quality;
            steps.push(KernelStep { state: state.kernels()?, frames: chunk.held.count, quality });
        }
        codec.g_y().step(&mut steps, w)
    })
}

/// Decodes chunks. Their hidden states stay on the device.
pub(super) fn decode(codec: &KernelCodec, streams: &mut [&mut DeviceDecoder], group: &[Chunk]) -> Result<()> {
    let mut decodable = Vec::with_capacity(group.len());
    for chunk @ (i, _, held) in group {
        let session = &mut streams[*i].session;
        if session.has_failed() {
            continue;
        }
        // [MODE-4] This is checked before anything is decoded.
        match session.coders(held).map(drop) {
            Ok(()) => decodable.push(chunk),
            Err(error) => session.fail(error),
        }
    }
    let group = decodable;
    if group.is_empty() {
        return Ok(());
    }
    let of: Vec<usize> = group.iter().map(|(i, _, _)| *i).collect();
    let outcomes = with_contexts(streams, &of, |states, streams| {
        let mut steps = Vec::with_capacity(group.len());
        for (state, (i, _, held)) in states.iter_mut().zip(&group) {
            steps.push(DecodeStep {
                g_y: state.kernels()?,
                quality: streams[*i].session.quality,
                frames: held.count,
                payloads: held.lanes.iter().map(|lane| &*lane.bytes).collect(),
            });
        }
        codec.decode(&mut steps)
    })?;
    for ((i, _, held), outcome) in group.into_iter().zip(outcomes) {
        let stream = &mut streams[*i];
        let crcs = outcome.map(|decoded| {
            stream.decoded = Some(decoded.hidden);
            decoded.crcs
        });
        let crcs = crcs.as_deref().map_err(|fault| *fault);
        if let Err(error) = stream.session.take_decoded(held.clone(), crcs) {
            stream.session.fail(error);
        }
    }
    Ok(())
}
