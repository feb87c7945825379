//! Makes a float codec from a training run's weights.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use super::codec::{FloatCodec, OfW};
use super::float::FloatNetwork;
use super::tables::{Masses, ScaleGrid};
use crate::codec::density::deep::Deep;
use crate::codec::network::{LEAST_GAIN, Precision};
use crate::codec::quality::prefix;
use crate::codec::rounded::quantise_row;
use crate::codec::{Config, SCALES};
use crate::{Error, checkpoint};

impl FloatCodec {
    /// The codec with the weights in `tensors`, as training used them, and with `scales` scales.
    ///
    /// # Errors
    /// [`Error::Lacks`] if a weight is missing, [`Error::Size`] or [`Error::Tensor`] if it has another shape.
    pub fn from_weights(
        tensors: &BTreeMap<String, Tensor>,
        shape: &Config,
        scales: usize,
        precision: Precision,
    ) -> Result<Self, Error> {
        let mut values: HashMap<String, Vec<f32>> = HashMap::new();
        for (name, tensor) in tensors {
            if ["h.", "g_y.", "quantiser."].iter().any(|prefix| name.starts_with(prefix)) {
                values.insert(name.clone(), as_used(name, tensor, precision)?);
            }
        }
        let network = |prefix: &str, widths: &[usize], outputs: usize, norm: bool| -> Result<FloatNetwork, Error> {
            let network = FloatNetwork::from_tensors(&values, prefix, widths, shape.heads, shape.window, outputs, norm);
            let mut network = network?;
            network.activation_most = precision.activation_most();
            Ok(network)
        };
        let take = |name: &str| values.get(name).cloned().ok_or_else(|| Error::lacks("the checkpoint", name));
        let of_w = |index: usize| -> Result<OfW, Error> {
            let own = prefix(index);
            let density = checkpoint::part(tensors, &format!("{own}density."));
            let vb = VarBuilder::from_tensors(density.into_iter().collect(), DType::F32, &Device::Cpu);
            let gain = match tensors.get(&format!("{own}gain")) {
                Some(gain) => gain.to_vec1::<f32>()?.iter().map(|gain| gain.exp2()).collect(),
                None => vec![1.0; shape.channels],
            };
            let table = Deep::new(shape.channels, vb)?.table(-SPAN, SPAN - 1)?;
            Ok(OfW { gain, masses: table.iter().map(|masses| worth(masses)).collect() })
        };
        let width = shape.analysis.first().copied().unwrap_or_default();
        Ok(FloatCodec {
            h: network("h.", &shape.analysis, shape.channels, false)?,
            g_y: network("g_y.", &shape.synthesis, 2 * width, true)?,
            step: take("quantiser.log_step")?.iter().map(|log| log.exp()).collect(),
            offset: take("quantiser.offset")?,
            maps: match shape.maps {
                true => Some((take("quantiser.analysis")?, take("quantiser.synthesis")?)),
                false => None,
            },
            of_w: (0..shape.qualities.len().max(1)).map(of_w).collect::<Result<_, Error>>()?,
            grid: ScaleGrid { low: SCALES.0.log2(), high: SCALES.1.log2(), count: scales },
        })
    }
}

/// A weight's values as training computes with them.
fn as_used(name: &str, tensor: &Tensor, precision: Precision) -> Result<Vec<f32>, Error> {
    let mut values: Vec<f32> = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
    if precision == Precision::AsFrozen && name.ends_with(".weight") {
        for row in values.chunks_exact_mut(tensor.dims().last().copied().unwrap_or(1).max(1)) {
            let (weights, scale) = quantise_row(row, 0.0);
            row.iter_mut().zip(weights).for_each(|(value, weight)| *value = (f64::from(weight) * scale) as f32);
        }
    }
    if name.ends_with("input_gain") {
        values.iter_mut().for_each(|gain| *gain = gain.max(LEAST_GAIN as f32));
    }
    Ok(values)
}

/// W between −SPAN and SPAN − 1 can have table entries.
const SPAN: i32 = 512;

/// Cuts a channel's masses to the values that are worth a table entry; the rest becomes the escapes' mass.
fn worth(masses: &[f64]) -> Masses {
    let worth = 0.25 / 65_536.0;
    let middle = SPAN as usize;
    let first = masses.iter().position(|mass| *mass > worth).unwrap_or(middle);
    let last = masses.iter().rposition(|mass| *mass > worth).unwrap_or(middle);
    Masses {
        first: first as i32 - SPAN,
        values: masses[first..=last].to_vec(),
        below: masses[..first].iter().sum(),
        above: masses[last + 1..].iter().sum(),
    }
}
