//! Frames of streams that kernels code: bytes leave the device, and the digests of frames.

use candle_core::Tensor;

use super::{DeviceEncoder, parts};
use crate::codec::quantiser;
use crate::error::{Error as CodecError, ErrorKind};
use crate::exact::each;
use crate::gpu::error::{Error, Result};
use crate::gpu::kernels::{EncodeStep, KernelCodec, Source};
use crate::wire::Dtype;

pub(super) fn push(codec: &KernelCodec, stream: &mut DeviceEncoder, hidden: &Tensor) -> Result<()> {
    let parts = parts(hidden, stream.session.frames_per_chunk())?;
    if parts.len() > 1 {
        // All that can be refused is before anything is coded.
        parts.iter().try_for_each(|part| codec.check(part, stream.session.quality))?;
    }
    parts.iter().try_for_each(|part| code(codec, &mut [&mut *stream], Source::Hidden(&[part]), None))
}

pub(super) fn step(codec: &KernelCodec, streams: &mut [&mut DeviceEncoder], hidden: &[Tensor]) -> Result<()> {
    code(codec, streams, Source::Hidden(&hidden.iter().collect::<Vec<_>>()), None)
}

pub(super) fn push_y(codec: &KernelCodec, stream: &mut DeviceEncoder, y: &[i16]) -> Result<()> {
    code(codec, &mut [stream], Source::Y(y), None)
}

pub(super) fn push_exact(codec: &KernelCodec, stream: &mut DeviceEncoder, exact: (Dtype, &[u8])) -> Result<()> {
    let values = quantiser::to_f32(exact.0, exact.1);
    let hidden = Tensor::from_slice(&values, (1, values.len()), stream.codec.device())?;
    code(codec, &mut [stream], Source::Hidden(&[&hidden]), Some(exact))
}

/// Codes a chunk of each stream.
fn code(
    codec: &KernelCodec,
    streams: &mut [&mut DeviceEncoder],
    source: Source<'_>,
    exact: Option<(Dtype, &[u8])>,
) -> Result<()> {
    let missing = || Error::codec(ErrorKind::NotAvailable, "the model has no analysis network");
    let mut steps = Vec::with_capacity(streams.len());
    for (i, stream) in streams.iter_mut().enumerate() {
        let width = stream.codec.codec().model().hidden_width();
        let frames = match source {
            Source::Hidden(tensors) => tensors[i].dim(0)?,
            Source::Y(y) => y.len() / width,
        };
        let session = &mut stream.session;
        steps.push(EncodeStep {
            quality: session.quality,
            weight: session.rate_weight(),
            frames,
            lanes: session.lanes(frames),
            layered: session.is_layered() && exact.is_none(),
            h: session.h.as_mut().ok_or_else(missing)?.kernels()?,
            g_y: session.g_y.kernels()?,
        });
    }
    let coded = codec.encode(&mut steps, source)?;
    let Some(executor) = streams.first().map(|stream| stream.session.executor()) else { return Ok(()) };
    let missing = CodecError::new(ErrorKind::NotAvailable, 0).with_detail("the executor left the stream out");
    let mut tasks: Vec<_> = streams.iter_mut().enumerate().map(|(i, stream)| (i, stream, Err(missing))).collect();
    each(&*executor, &mut tasks, |(i, stream, outcome)| {
        let chunk = coded.chunk(*i);
        *outcome = stream.session.write_coded(&chunk.payloads, &chunk.target, &chunk.crcs, exact);
    });
    Ok(tasks.into_iter().try_for_each(|(_, _, outcome)| outcome)?)
}
