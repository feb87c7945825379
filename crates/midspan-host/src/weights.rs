//! A host as one small file: matrices in int8 with an f32 scale per row, the rest in f32.
//!
//! The file is safetensors. A matrix `name` is stored as `name` (I8) and `name.scale` (F32, one per row): weight = int8
//! × scale. The model's shape is in the metadata as JSON under `host`.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::gpt::{Config, Gpt};
use super::{Error, Result};
use midspan::model::header_memory;

fn check_finite(name: &str, values: &[f32]) -> Result<()> {
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(()),
        false => Err(Error::NotFinite { name: Some(name.to_string()) }),
    }
}

/// One row as int8 and its scale; the largest magnitude becomes 127.
fn quantise(row: &[f32]) -> (Vec<u8>, f32) {
    let top = row.iter().fold(0f32, |m, v| m.max(v.abs()));
    let scale = if top > 0.0 { top / 127.0 } else { 1.0 };
    (row.iter().map(|v| (v / scale).round_ties_even().clamp(-127.0, 127.0) as i8 as u8).collect(), scale)
}

/// The bytes of a host's file. `weights` are named as in [`Config::shapes`].
///
/// # Errors
/// [`Error::NoTensor`], [`Error::TensorShape`] or [`Error::NotFinite`] for a weight that is missing or wrong.
pub fn serialize(cfg: &Config, weights: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    let mut parts: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, shape) in cfg.shapes() {
        let Some(t) = weights.get(&name) else { return Err(Error::NoTensor { name }) };
        if t.dims() != shape {
            return Err(Error::TensorShape { name, found: t.dims().to_vec(), wanted: shape });
        }
        let values = t.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        check_finite(&name, &values)?;
        let floats = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        if let [rows, cols] = shape[..] {
            let (mut bytes, mut scales) = (Vec::with_capacity(values.len()), Vec::with_capacity(rows));
            for row in values.chunks_exact(cols) {
                let (b, s) = quantise(row);
                bytes.extend(b);
                scales.push(s);
            }
            parts.push((format!("{name}.scale"), Dtype::F32, vec![rows], floats(&scales)));
            parts.push((name, Dtype::I8, shape, bytes));
        } else {
            parts.push((name, Dtype::F32, shape, floats(&values)));
        }
    }
    let mut views = Vec::with_capacity(parts.len());
    for (name, dtype, shape, bytes) in &parts {
        views.push((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).map_err(Error::Safetensors)?));
    }
    let json = serde_json::to_string(cfg).map_err(Error::Shape)?;
    safetensors::serialize(views, Some(HashMap::from([("host".to_string(), json)]))).map_err(Error::Safetensors)
}

fn floats(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>> {
    if view.dtype() != Dtype::F32 {
        return Err(Error::TensorType { name: name.to_string(), wanted: "F32" });
    }
    Ok(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// Parses the file's header, if the memory that this takes is in proportion to the file.
fn open(bytes: &[u8]) -> Result<SafeTensors<'_>> {
    let most = (bytes.len() as u64).saturating_mul(4).saturating_add(1 << 20);
    if header_memory(bytes) > most {
        return Err(Error::Header);
    }
    SafeTensors::deserialize(bytes).map_err(Error::Safetensors)
}

/// Shape and weights (in f32, named as in [`Config::shapes`]) from a host's file.
///
/// The shape that the file states is checked against the bytes that it has before any memory is allocated for it.
///
/// # Errors
/// [`Error::Safetensors`], [`Error::Header`], [`Error::NoShape`] or [`Error::Shape`] if the bytes are no host's file;
/// [`Error::Setting`] if no model has the shape; [`Error::Truncated`], [`Error::NoTensor`], [`Error::TensorShape`],
/// [`Error::TensorType`] or [`Error::NotFinite`] if the weights are not those of the shape.
pub fn deserialize(bytes: &[u8], device: &Device) -> Result<(Config, BTreeMap<String, Tensor>)> {
    let file = open(bytes)?;
    let (_, meta) = SafeTensors::read_metadata(bytes).map_err(Error::Safetensors)?;
    let json = meta.metadata().as_ref().and_then(|m| m.get("host")).ok_or(Error::NoShape)?;
    let cfg: Config = serde_json::from_str(json).map_err(Error::Shape)?;
    drop(meta);
    cfg.check()?;
    // A weight takes at least a byte, and a block's nine tensors have names in the file.
    if cfg.parameters().is_none_or(|count| count > bytes.len() as u64) || cfg.layers > file.len() {
        return Err(Error::Truncated { within: "weights" });
    }
    let tensor = |name: &str| file.tensor(name).map_err(|_| Error::NoTensor { name: name.to_string() });
    let mut weights = BTreeMap::new();
    for (name, shape) in cfg.shapes() {
        let view = tensor(&name)?;
        if view.shape() != shape {
            return Err(Error::TensorShape { name, found: view.shape().to_vec(), wanted: shape });
        }
        let values: Vec<f32> = if let [rows, cols] = shape[..] {
            let of_rows = format!("{name}.scale");
            let scales = floats(&of_rows, &tensor(&of_rows)?)?;
            if view.dtype() != Dtype::I8 || scales.len() != rows {
                return Err(Error::TensorType { name, wanted: "int8 with a scale per row" });
            }
            let rows = view.data().chunks_exact(cols).zip(scales);
            rows.flat_map(|(row, s)| row.iter().map(move |&b| b as i8 as f32 * s)).collect()
        } else {
            floats(&name, &view)?
        };
        check_finite(&name, &values)?;
        weights.insert(name, Tensor::from_vec(values, shape, device)?);
    }
    Ok((cfg, weights))
}

/// The model in a host's file.
///
/// # Errors
/// As [`deserialize`].
pub fn load(bytes: &[u8], device: &Device) -> Result<Gpt> {
    let (cfg, weights) = deserialize(bytes, device)?;
    Gpt::new(cfg, VarBuilder::from_tensors(weights.into_iter().collect(), DType::F32, device))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::generator;

    #[test]
    fn rows_come_back_within_half_a_step() {
        let cfg = Config { vocab: 30, width: 8, layers: 2, heads: 2, split: 1, context: 8 };
        let weights = cfg.init(&mut generator(9)).unwrap();
        let bytes = serialize(&cfg, &weights).unwrap();
        let (back_cfg, back) = deserialize(&bytes, &Device::Cpu).unwrap();
        assert_eq!(back_cfg, cfg);
        for (name, t) in &weights {
            let (a, b) = (t.flatten_all().unwrap().to_vec1::<f32>().unwrap(), back[name].flatten_all().unwrap());
            let b = b.to_vec1::<f32>().unwrap();
            let cols = t.dims()[t.rank() - 1];
            for (x, y) in a.chunks(cols).zip(b.chunks(cols)) {
                let top = x.iter().fold(0f32, |m, v| m.max(v.abs()));
                let limit = if t.rank() == 2 { top / 127.0 * 0.501 } else { 0.0 };
                assert!(x.iter().zip(y).all(|(x, y)| (x - y).abs() <= limit), "{name}");
            }
        }
        // Rounding a second time changes nothing.
        assert_eq!(serialize(&back_cfg, &back).unwrap(), bytes);
        assert!(load(&bytes, &Device::Cpu).is_ok());
        assert!(load(&bytes[..bytes.len() - 1], &Device::Cpu).is_err());
        assert!(serialize(&Config { width: 16, ..cfg }, &weights).is_err());
    }
}
