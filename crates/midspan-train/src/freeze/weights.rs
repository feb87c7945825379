//! Makes a float codec from a training run's weights.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use super::codec::{FloatCodec, FloatMaps, FloatSide, FloatWCoding};
use super::tables::{Masses, ScaleGrid};
use crate::codec::density::deep::Deep;
use crate::codec::network::{Network, Precision, Shape};
use crate::codec::quality::prefix;
use crate::codec::{Config, SCALES, side};
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
        let network = |prefix: &str, shape: Shape| -> Result<Network, Error> {
            shape.check()?;
            for (name, wanted) in shape.shapes() {
                let name = format!("{prefix}{name}");
                let tensor = tensors.get(&name).ok_or_else(|| Error::lacks("the checkpoint", &*name))?;
                if tensor.dims() != wanted {
                    return Err(Error::Size { name, found: tensor.dims().to_vec(), wanted });
                }
            }
            let own = checkpoint::part(tensors, prefix).into_iter().collect();
            Network::new(shape, precision, VarBuilder::from_tensors(own, DType::F32, &Device::Cpu))
        };
        let take = |name: &str| -> Result<Vec<f32>, Error> {
            let tensor = tensors.get(name).ok_or_else(|| Error::lacks("the checkpoint", name))?;
            Ok(tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
        };
        let w_coding = |index: usize| -> Result<FloatWCoding, Error> {
            let own = prefix(index);
            let density = checkpoint::part(tensors, &format!("{own}density."));
            let vb = VarBuilder::from_tensors(density.into_iter().collect(), DType::F32, &Device::Cpu);
            let gain = match tensors.get(&format!("{own}gain")) {
                Some(gain) => gain.to_vec1::<f32>()?.iter().map(|gain| gain.exp2()).collect(),
                None => vec![1.0; shape.channels],
            };
            let table = Deep::new(shape.channels, vb)?.table(-SPAN, SPAN - 1)?;
            Ok(FloatWCoding { gain, masses: table.iter().map(|masses| worth(masses)).collect() })
        };
        let float_side = |shape: side::Shape| -> Result<FloatSide, Error> {
            shape.check()?;
            let entries =
                tensors.get(side::EMBEDDING).ok_or_else(|| Error::lacks("the checkpoint", side::EMBEDDING))?;
            let (a, v, d) = shape.dims();
            if entries.dims() != [a, v, d] {
                let (name, found) = (side::EMBEDDING.to_string(), entries.dims().to_vec());
                return Err(Error::Size { name, found, wanted: vec![a, v, d] });
            }
            let (embedding, units) = side::quantised(&take(side::EMBEDDING)?, d);
            Ok(FloatSide { shape, embedding, units })
        };
        Ok(FloatCodec {
            h: network("h.", shape.h())?,
            g_y: network("g_y.", shape.g_y())?,
            side: shape.side.map(float_side).transpose()?,
            step: take("quantiser.log_step")?.iter().map(|log| log.exp()).collect(),
            offset: take("quantiser.offset")?,
            maps: match shape.maps {
                true => Some(FloatMaps::Full(take("quantiser.analysis")?, take("quantiser.synthesis")?)),
                false => None,
            },
            w_coding: (0..shape.qualities.len().max(1)).map(w_coding).collect::<Result<_, Error>>()?,
            grid: ScaleGrid { low: SCALES.0.log2(), high: SCALES.1.log2(), count: scales },
        })
    }
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
