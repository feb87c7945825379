//! Encodes frames with networks as tensors. Y and the output of g_y are copied to the CPU, which makes the bytes.

use candle_core::{DType, Tensor};

use super::{DeviceEncoder, parts};
use crate::error::ErrorKind;
use crate::gpu::error::{Error, Result};
use crate::gpu::state::DeviceState;
use crate::gpu::tensors::{TensorCodec, TensorStep};
use crate::wire::Dtype;

/// One stream's share of a step.
struct Share {
    frames: usize,
    x: Vec<f32>,
    h: DeviceState,
    g_y: DeviceState,
}

/// The networks' results: W and g_y's output for all streams, one stream after the other.
struct Predicted {
    shares: Vec<Share>,
    w: Vec<i16>,
    output: Vec<i32>,
}

pub(super) fn push(codec: &TensorCodec, stream: &mut DeviceEncoder, hidden: &Tensor) -> Result<()> {
    // Everything that can be refused is checked before anything is coded.
    let x = in_steps(codec, stream, hidden)?;
    let chunk = stream.session.frames_per_chunk();
    for (i, part) in parts(&x, chunk)?.into_iter().enumerate() {
        code(codec, &mut [&mut *stream], &[part], i == 0)?;
    }
    Ok(())
}

pub(super) fn step(codec: &TensorCodec, streams: &mut [&mut DeviceEncoder], hidden: &[Tensor]) -> Result<()> {
    let in_steps = |(stream, hidden): (&&mut DeviceEncoder, _)| in_steps(codec, stream, hidden);
    let steps = streams.iter().zip(hidden).map(in_steps).collect::<Result<Vec<_>>>()?;
    code(codec, streams, &steps, true)
}

/// Hidden states in steps, \[T, E\], after checking that none is refused.
fn in_steps(codec: &TensorCodec, stream: &DeviceEncoder, hidden: &Tensor) -> Result<Tensor> {
    let x = codec.in_steps(hidden, stream.session.quality)?;
    if stream.session.refuses_clipping() {
        // This copies them to the CPU once more. Only an encoder that refuses clipped values pays for it.
        stream.session.check_clipping(&x.flatten_all()?.to_vec1::<f32>()?)?;
    }
    Ok(x)
}

pub(super) fn push_y(codec: &TensorCodec, stream: &mut DeviceEncoder, y: &[i16], first: bool) -> Result<()> {
    let input = codec.h()?.input(y)?;
    let mut only = [stream];
    let predicted = predict(codec, &mut only, vec![(input, Vec::new())])?;
    commit(&mut only, predicted, y, first)
}

pub(super) fn push_exact(
    codec: &TensorCodec,
    stream: &mut DeviceEncoder,
    exact: (Dtype, &[u8]),
    y: Vec<i16>,
    x: &[f32],
) -> Result<()> {
    let input = codec.h()?.input(&y)?;
    let mut predicted = predict(codec, &mut [&mut *stream], vec![(input, Vec::new())])?;
    if let Some(share) = predicted.shares.pop() {
        adopt(stream, share.h, share.g_y, predicted.output);
    }
    Ok(stream.session.code_exact(exact, predicted.w, y, x)?)
}

/// Codes a chunk of each stream, given hidden states in steps: the first chunk of its push, or a later one.
fn code(codec: &TensorCodec, streams: &mut [&mut DeviceEncoder], steps: &[Tensor], first: bool) -> Result<()> {
    let mut inputs = Vec::with_capacity(steps.len());
    for x in steps {
        inputs.push((codec.nearest(x)?, x.flatten_all()?.to_vec1::<f32>()?));
    }
    let y = inputs.iter().map(|(y, _)| y).collect::<Vec<_>>();
    let y = read(&Tensor::cat(&y, 0)?)?;
    let predicted = predict(codec, streams, inputs)?;
    commit(streams, predicted, &y, first)
}

/// Runs h and g_y on copies of the streams' contexts.
fn predict(
    codec: &TensorCodec,
    streams: &mut [&mut DeviceEncoder],
    inputs: Vec<(Tensor, Vec<f32>)>,
) -> Result<Predicted> {
    let missing = || Error::codec(ErrorKind::NotAvailable, "the model has no analysis network");
    let y = Tensor::cat(&inputs.iter().map(|(y, _)| y).collect::<Vec<_>>(), 0)?;
    let mut shares = Vec::with_capacity(streams.len());
    for (stream, (y, x)) in streams.iter().zip(inputs) {
        let (h, g_y) = (stream.session.h.clone().ok_or_else(missing)?, stream.session.g_y.clone());
        shares.push(Share { frames: y.dim(0)?, x, h, g_y });
    }
    let qualities: Vec<usize> = streams.iter().map(|stream| stream.session.quality).collect();
    let mut of_streams = steps(&mut shares, &qualities, |share| &mut share.h)?;
    let w = codec.h()?.step(&mut of_streams, &y)?;
    let mut of_streams = steps(&mut shares, &qualities, |share| &mut share.g_y)?;
    let output = codec.g_y().step(&mut of_streams, &w)?;
    Ok(Predicted { shares, w: read(&w)?, output: codec.g_y().read(&output)? })
}

/// The step of one of the networks for each stream.
fn steps<'a>(
    shares: &'a mut [Share],
    qualities: &[usize],
    state: impl Fn(&mut Share) -> &mut DeviceState,
) -> Result<Vec<TensorStep<'a>>> {
    let step = |(share, quality): (&'a mut Share, &usize)| {
        let frames = share.frames;
        Ok(TensorStep { state: state(share).tensors()?, frames, quality: *quality })
    };
    shares.iter_mut().zip(qualities).map(step).collect()
}

/// Replaces the streams' contexts by the new ones and codes each stream's chunk.
fn commit(
    streams: &mut [&mut DeviceEncoder],
    Predicted { shares, w, output }: Predicted,
    y: &[i16],
    first: bool,
) -> Result<()> {
    let (mut row, mut outcome) = (0, Ok(()));
    for (stream, share) in streams.iter_mut().zip(shares) {
        let rows = row..row + share.frames;
        row = rows.end;
        let model = stream.codec.codec().model();
        let (width, channels) = (model.hidden_width(), model.hyper_prior_width());
        let of = |size: usize| rows.start * size..rows.end * size;
        let (w, y) = (&w[of(channels)], y[of(width)].to_vec());
        adopt(stream, share.h, share.g_y, output[of(2 * width)].to_vec());
        let coded = stream.session.code_predicted(w, y, (!share.x.is_empty()).then_some(&share.x), first);
        outcome = outcome.and(coded);
    }
    Ok(outcome?)
}

fn adopt(stream: &mut DeviceEncoder, h: DeviceState, g_y: DeviceState, output: Vec<i32>) {
    stream.session.h = Some(h);
    stream.session.g_y = g_y;
    stream.session.scratch.output = output;
}

/// Reads a tensor of numbers that fit 16 bits.
fn read(numbers: &Tensor) -> Result<Vec<i16>> {
    let values = numbers.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    Ok(values.into_iter().map(|value| value as i16).collect())
}
