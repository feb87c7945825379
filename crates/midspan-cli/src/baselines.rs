//! Baselines that results compare a codec with: links without a codec, and general compressors on the same integers.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::{Device, Tensor};

use super::compressors::baseline;
use midspan_host::split::SplitHost;
use midspan_train::codec::Codec;
use midspan_train::data::HeldOut;
use midspan_train::measure::rows::Rows;
use midspan_train::measure::{Link, evaluate};
use midspan_train::parallel::in_threads;
use midspan_train::runner::Metrics;

/// The links without a codec that every result is compared with.
pub const WITHOUT_CODEC: [Rows; 3] = [Rows::Half, Rows::Integers(8), Rows::Integers(4)];

/// Figures of a host whose halves are linked without a codec, by name of the link.
///
/// # Errors
/// When a computation fails.
pub fn without_codec(host: &dyn SplitHost, held_out: &HeldOut, threads: usize) -> Result<BTreeMap<String, Metrics>> {
    let links = WITHOUT_CODEC.each_ref().map(|rows| rows as &dyn Link);
    let figures = evaluate(host, &links, held_out, threads)?.into_iter().map(|mut figures| {
        figures.retain(|name, _| ["bits", "loss", "ppl", "agreement", "divergence"].contains(&name.as_str()));
        figures
    });
    Ok(WITHOUT_CODEC.map(Rows::name).into_iter().zip(figures).collect())
}

/// Bits a token of general compressors on Y of consecutive sequences of the host's context length.
///
/// # Errors
/// When a computation or a compressor fails.
pub fn compressors(host: &dyn SplitHost, codec: &Codec, ids: &[u32], threads: usize) -> Result<BTreeMap<String, f64>> {
    let parts: Vec<&[u32]> = ids.chunks(host.context()).collect();
    let parts = in_threads(&parts, threads, |ids| {
        let inputs = Tensor::from_slice(ids, (1, ids.len()), &Device::Cpu)?;
        let hidden = host.head(&inputs)?.detach();
        let y = codec.forward(&hidden, ids)?.priced.y.flatten_all()?.to_vec1::<f32>()?;
        Ok(y.into_iter().map(|value| value as i16).collect::<Vec<i16>>())
    })?;
    let found = baseline(&parts.concat(), host.width(), host.context())?;
    let a_token = |bits: f64| bits / ids.len().max(1) as f64;
    Ok(BTreeMap::from([
        ("deflate -9".to_string(), a_token(found.deflate)),
        ("zstd -19".to_string(), a_token(found.zstd)),
    ]))
}
