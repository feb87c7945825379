//! Encodes frames with kernels. Only the coded bytes and the frames' digests are copied back to the
//! host.

use candle_core::Tensor;

use super::{DeviceEncoder, parts};
use crate::codec::quantiser::{self, Clipped};
use crate::error::{Error as CodecError, ErrorKind};
use crate::exact::each;
use crate::gpu::error::{Error, Result};
use crate::gpu::kernels::{EncodeStep, KernelCodec, Source};
use crate::wire::Dtype;

pub(super) fn push(codec: &KernelCodec, stream: &mut DeviceEncoder, hidden: &Tensor) -> Result<()> {
    let chunk = stream.session.frames_per_chunk();
    let parts = parts(hidden, chunk)?;
    if parts.len() > 1 {
        // Everything that can be refused is checked before anything is coded.
        let width = stream.codec.codec().model().hidden_width();
        let mut all = Clipped::default();
        for (i, part) in parts.iter().enumerate() {
            let own = codec.check(part, stream.session.quality)?;
            all.count += own.count;
            all.first = all.first.or(own.first.map(|first| i * chunk * width + first));
        }
        if stream.session.refuses_clipping() {
            all.refuse(width)?;
        }
    }
    let mut parts = parts.iter().enumerate();
    parts.try_for_each(|(i, part)| code(codec, &mut [&mut *stream], Source::Hidden(&[part]), None, i == 0))
}

pub(super) fn step(codec: &KernelCodec, streams: &mut [&mut DeviceEncoder], hidden: &[Tensor]) -> Result<()> {
    code(codec, streams, Source::Hidden(&hidden.iter().collect::<Vec<_>>()), None, true)
}

pub(super) fn push_y(codec: &KernelCodec, stream: &mut DeviceEncoder, y: &[i16]) -> Result<()> {
    code(codec, &mut [stream], Source::Y(y), None, true)
}

pub(super) fn push_exact(codec: &KernelCodec, stream: &mut DeviceEncoder, exact: (Dtype, &[u8])) -> Result<()> {
    let values = quantiser::to_f32(exact.0, exact.1);
    let hidden = Tensor::from_slice(&values, (1, values.len()), stream.codec.device())?;
    code(codec, &mut [stream], Source::Hidden(&[&hidden]), Some(exact), true)
}

/// Codes a chunk of each stream: the first chunk of its push, or a later one.
fn code(
    codec: &KernelCodec,
    streams: &mut [&mut DeviceEncoder],
    source: Source<'_>,
    exact: Option<(Dtype, &[u8])>,
    first: bool,
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
            refuses: session.refuses_clipping() && exact.is_none(),
            h: session.h.as_mut().ok_or_else(missing)?.kernels()?,
            g_y: session.g_y.kernels()?,
        });
    }
    let coded = codec.encode(&mut steps, source)?;
    let Some(executor) = streams.first().map(|stream| stream.session.executor()) else { return Ok(()) };
    let missing = CodecError::of_call(ErrorKind::NotAvailable).with_detail("the executor left the stream out");
    let mut tasks: Vec<_> = streams.iter_mut().enumerate().map(|(i, stream)| (i, stream, Err(missing))).collect();
    each(&*executor, &mut tasks, |(i, stream, outcome)| {
        let chunk = coded.chunk(*i);
        let figures = (chunk.clipped, first);
        *outcome = stream.session.write_coded(&chunk.payloads, &chunk.target, &chunk.crcs, exact, figures);
    });
    Ok(tasks.into_iter().try_for_each(|(_, _, outcome)| outcome)?)
}
