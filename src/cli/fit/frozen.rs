//! The frozen form of what was learned, and what it does on held-out text.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use candle_core::Var;

use crate::codec::{Codec, EncoderConfig};
use crate::host::split::SplitHost;
use crate::model::CodecModel;
use crate::train::base::tokens;
use crate::train::codec::Config;
use crate::train::codec::network::Precision;
use crate::train::codec::quality::Quality;
use crate::train::data::{Batch, Held};
use crate::train::freeze::codec::FloatCodec;
use crate::train::freeze::freeze;
use crate::train::measure::evaluate_one;
use crate::train::measure::frozen::FrozenLink;
use crate::train::runner::Metrics;

/// Scales of the target's tables.
const SCALES: usize = 96;

/// The frozen model of trained variables; `batch` sets its fixed-point scales.
///
/// # Errors
/// A network that the model file cannot hold.
pub fn frozen(
    host: &dyn SplitHost,
    shape: &Config,
    vars: &BTreeMap<String, Var>,
    rate_weight: f64,
    batch: &Batch,
) -> Result<CodecModel> {
    let tensors = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let float = FloatCodec::from_weights(&tensors, shape, SCALES, Precision::AsFrozen)?;
    let hidden = host.head(&tokens(batch)?)?.detach(); // [rows, T, width]
    let rows = (0..hidden.dim(0)?).map(|row| hidden.get(row)?.flatten_all()?.to_vec1::<f32>());
    let rows = rows.collect::<candle_core::Result<Vec<_>>>()?;
    freeze(&float, &[Quality { steps: 1.0, rate_weight }], &rows, 1).map_err(|line| anyhow!(line))
}

/// What a frozen codec does on the windows of [`evaluate_one`]: bits a token in real bytes, one chunk for each half of a
/// window, and the effect on the host's predictions.
///
/// # Errors
/// When a computation fails.
pub fn measure(host: &dyn SplitHost, model: CodecModel, held: &Held, threads: usize) -> Result<Metrics> {
    let config = EncoderConfig::default();
    let link = FrozenLink::new(Arc::new(Codec::new(model)?), &config)?;
    let mut figures = evaluate_one(host, &link, held, threads)?;
    figures.retain(|name, _| ["bits", "loss", "ppl", "agreement", "divergence"].contains(&name.as_str()));
    Ok(figures)
}
