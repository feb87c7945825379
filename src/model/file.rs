//! The codec model file: reading next to writing (spec chapter 4).

#![deny(clippy::float_arithmetic)]

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::network::{ACTIVATION_LEN, BLOCKS_MAX, Block, EXP_LEN, Linear, NetworkParameters, Outputs};
use super::side::{AGES_MAX, EMBEDDING, SIDE, SideParts, VOCABULARY_MAX};
use super::tensor::{File, Tensor};
use super::{
    ANALYSIS, CodecModel, EXPECTED_BITS, EncoderPart, LENGTH_OFFSET, Map, ModelParts, SYNTHESIS, Tables, prediction,
};
use crate::entropy::Bank;
use crate::error::{Detail, Dims, Error, ErrorKind, Name, Result};
use crate::number::to_u64;

const DECODER: &str = "decoder.network.";
const ENCODER: &str = "encoder.network.";
const RECIPROCAL: &str = "encoder.quality.reciprocal_step";
const RATE_WEIGHT: &str = "encoder.quality.rate_weight";

/// `decoder.config` (spec 4.1).
struct Config {
    version: u32,
    e: usize,
    c: usize,
    qualities: usize,
    w_range: (i16, i16),
    y_range: (i16, i16),
    scales: usize,
    /// The kind of the maps on either side of the quantiser.
    synthesis: i32,
    /// D.
    side: usize,
}

fn read_config(file: &mut File<'_>) -> Result<Config> {
    let name = "decoder.config";
    let values: Vec<i32> = file.take(name, &[12])?;
    let start = file.offset(name);
    // [MODEL-3]
    const NAMES: [&str; 12] =
        ["model format", "model version", "E", "C", "Q", "w_min", "w_max", "y_min", "y_max", "S", "synthesis", "D"];
    let field = |element: usize, low: i32, high: i32| {
        let value = values.get(element).copied().unwrap_or(0);
        let at = start.saturating_add(u64::try_from(element).unwrap_or(0).saturating_mul(4));
        if (low..=high).contains(&value) {
            Ok(value)
        } else {
            let what = NAMES.get(element).copied().unwrap_or("decoder.config");
            let detail = Detail::Range { what, low: low.into(), high: high.into(), found: value.into() };
            Err(Error::new(ErrorKind::ModelConfig, at).with(detail))
        }
    };
    let size = |element, high| field(element, 1, high).map(|value| usize::try_from(value).unwrap_or(0));
    let range = |low: usize| {
        let (min, max) = (field(low, -32_767, 0)?, field(low.saturating_add(1), 0, 32_767)?);
        if min == max {
            let at = start.saturating_add(u64::try_from(low).unwrap_or(0).saturating_mul(4));
            return Err(Error::new(ErrorKind::ModelConfig, at).with_detail("a range of one value"));
        }
        Ok((i16::try_from(min).unwrap_or(0), i16::try_from(max).unwrap_or(0)))
    };
    field(0, 1, 1)?;
    let synthesis = field(10, 0, 2)?;
    let side = usize::try_from(field(11, 0, 8_191)?).unwrap_or(0);
    Ok(Config {
        version: field(1, 0, i32::MAX)?.unsigned_abs(),
        e: size(2, 65_536)?,
        c: size(3, 4_096)?,
        qualities: size(4, 256)?,
        w_range: range(5)?,
        y_range: range(7)?,
        scales: size(9, 256)?,
        synthesis,
        side,
    })
}

fn write_config(parts: &ModelParts, side: usize, tensors: &mut Vec<Tensor>) {
    let int = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
    let (w, y) = (parts.w_range, parts.y_range);
    let values = [
        1,
        i32::try_from(parts.version).unwrap_or(i32::MAX),
        int(parts.e),
        int(parts.c),
        int(parts.qualities),
        w.0.into(),
        w.1.into(),
        y.0.into(),
        y.1.into(),
        int(parts.fraction_bits.len()),
        Map::kind(parts.synthesis.as_ref()),
        int(side),
    ];
    tensors.push(Tensor::new("decoder.config", &[12], &values));
}

pub(super) fn read_linear(file: &mut File<'_>, name: &str, n: usize, m: usize, rows: Option<usize>) -> Result<Linear> {
    let scale = rows.map_or(vec![m], |q| vec![q, m]);
    Ok(Linear {
        inputs: n,
        outputs: m,
        weight: file.take(&format!("{name}.weight"), &[m, n])?,
        bias: file.take(&format!("{name}.bias"), &[m])?,
        multiplier: file.take(&format!("{name}.multiplier"), &scale)?,
        shift: file.take(&format!("{name}.shift"), &scale)?,
    })
}

pub(super) fn write_linear(layer: &Linear, name: &str, rows: Option<usize>, tensors: &mut Vec<Tensor>) {
    let (n, m) = (layer.inputs, layer.outputs);
    let scale = rows.map_or(vec![m], |q| vec![q, m]);
    tensors.push(Tensor::new(format!("{name}.weight"), &[m, n], &layer.weight));
    tensors.push(Tensor::new(format!("{name}.bias"), &[m], &layer.bias));
    tensors.push(Tensor::new(format!("{name}.multiplier"), &scale, &layer.multiplier));
    tensors.push(Tensor::new(format!("{name}.shift"), &scale, &layer.shift));
}

/// A list of positive integers; one that is negative or does not fit `usize` becomes 0, which every range excludes.
fn read_sizes(file: &mut File<'_>, name: &str) -> Result<Vec<usize>> {
    let values: Vec<i32> = file.take_list(name)?;
    Ok(values.into_iter().map(|value| usize::try_from(value).unwrap_or(0)).collect())
}

fn sizes(values: &[usize]) -> Vec<i32> {
    values.iter().map(|&value| i32::try_from(value).unwrap_or(i32::MAX)).collect()
}

fn read_network(
    file: &mut File<'_>,
    prefix: &str,
    qualities: usize,
    inputs: usize,
    outputs: Outputs,
) -> Result<NetworkParameters> {
    let at = |name: &str| format!("{prefix}{name}");
    let widths = read_sizes(file, &at("widths"))?;
    // [MODEL-2]: bounds the work below.
    let Some(count) = widths.len().checked_sub(1).filter(|&count| count <= BLOCKS_MAX) else {
        let signed = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (high, found) = (signed(BLOCKS_MAX.saturating_add(1)), signed(widths.len()));
        let detail = Detail::Range { what: "widths of a network, one more than its blocks", low: 1, high, found };
        return Err(Error::new(ErrorKind::ModelTensorShape, file.offset(&at("widths"))).with(detail));
    };
    // [MODEL-5]
    if widths.first() != Some(&inputs) {
        let (wanted, found) = (to_u64(inputs), to_u64(widths.first().copied().unwrap_or(0)));
        let what = "first width of a network, which is the input's";
        let error = Error::new(ErrorKind::ModelConfig, file.offset(&at("widths")));
        return Err(error.with(Detail::Number { what, wanted, found }));
    }
    // Without blocks there is nothing that blocks share, and no norm before the last layer.
    let heads = if count > 0 { read_sizes(file, &at("heads"))? } else { Vec::new() };
    if heads.len() != count {
        let (wanted, found) = (Dims::new(&[count]), Dims::new(&[heads.len()]));
        let detail = Detail::TensorShape { name: Name::new(&at("heads")), wanted, found };
        return Err(Error::new(ErrorKind::ModelTensorShape, file.offset(&at("heads"))).with(detail));
    }
    let window: Vec<i32> = if count > 0 { file.take(&at("window"), &[1])? } else { vec![1] };
    let window = window.first().map_or(0, |&value| usize::try_from(value).unwrap_or(0));
    let mut blocks = Vec::with_capacity(count);
    for (b, (pair, &heads)) in widths.windows(2).zip(&heads).enumerate() {
        let &[d, next] = pair else { continue };
        let at = |name: &str| format!("{prefix}blocks.{b}.{name}");
        let mlp = next.saturating_mul(4);
        blocks.push(Block {
            norm1: read_one(file, &at("norm1"))?,
            norm2: read_one(file, &at("norm2"))?,
            q: read_linear(file, &at("q"), d, d, None)?,
            k: read_linear(file, &at("k"), d, d, None)?,
            v: read_linear(file, &at("v"), d, d, None)?,
            o: read_linear(file, &at("o"), d, d, None)?,
            proj: read_linear(file, &at("proj"), d, next, None)?,
            up: read_linear(file, &at("up"), next, mlp, None)?,
            down: read_linear(file, &at("down"), mlp, next, None)?,
            score_multiplier: file.take(&at("score.multiplier"), &[heads])?,
            score_shift: file.take(&at("score.shift"), &[heads])?,
            position: file.take(&at("position"), &[heads, window])?,
        });
    }
    let (exp, activation) = match count {
        0 => (Vec::new(), Vec::new()),
        _ => (file.take(&at("exp"), &[EXP_LEN])?, file.take(&at("activation"), &[ACTIVATION_LEN])?),
    };
    let output_norm = match outputs {
        Outputs::Distribution { .. } if count > 0 => Some(read_one(file, &at("output.norm"))?),
        _ => None,
    };
    let last = widths.last().copied().unwrap_or(0);
    Ok(NetworkParameters {
        exp,
        activation,
        input_multiplier: file.take(&at("input.multiplier"), &[qualities, inputs])?,
        input_shift: file.take(&at("input.shift"), &[qualities, inputs])?,
        output: read_linear(file, &at("output"), last, outputs.len(), Some(qualities))?,
        output_offset: file.take(&at("output.offset"), &[qualities, outputs.len()])?,
        widths,
        heads,
        window,
        qualities,
        blocks,
        outputs,
        output_norm,
    })
}

fn read_one(file: &mut File<'_>, name: &str) -> Result<i64> {
    let value: Vec<i64> = file.take(name, &[1])?;
    Ok(value.first().copied().unwrap_or(0))
}

fn write_network(network: &NetworkParameters, prefix: &str, tensors: &mut Vec<Tensor>) {
    let at = |name: &str| format!("{prefix}{name}");
    let (inputs, qualities) = (network.inputs(), network.qualities);
    tensors.push(Tensor::new(at("widths"), &[network.widths.len()], &sizes(&network.widths)));
    if !network.blocks.is_empty() {
        tensors.push(Tensor::new(at("heads"), &[network.heads.len()], &sizes(&network.heads)));
        tensors.push(Tensor::new(at("window"), &[1], &sizes(&[network.window])));
        tensors.push(Tensor::new(at("exp"), &[network.exp.len()], &network.exp));
        tensors.push(Tensor::new(at("activation"), &[network.activation.len()], &network.activation));
    }
    tensors.push(Tensor::new(at("input.multiplier"), &[qualities, inputs], &network.input_multiplier));
    tensors.push(Tensor::new(at("input.shift"), &[qualities, inputs], &network.input_shift));
    for (b, (block, &heads)) in network.blocks.iter().zip(&network.heads).enumerate() {
        let at = |name: &str| format!("{prefix}blocks.{b}.{name}");
        tensors.push(Tensor::new(at("norm1"), &[1], &[block.norm1]));
        tensors.push(Tensor::new(at("norm2"), &[1], &[block.norm2]));
        let layers = [
            ("q", &block.q),
            ("k", &block.k),
            ("v", &block.v),
            ("o", &block.o),
            ("proj", &block.proj),
            ("up", &block.up),
            ("down", &block.down),
        ];
        for (name, layer) in layers {
            write_linear(layer, &at(name), None, tensors);
        }
        tensors.push(Tensor::new(at("score.multiplier"), &[heads], &block.score_multiplier));
        tensors.push(Tensor::new(at("score.shift"), &[heads], &block.score_shift));
        tensors.push(Tensor::new(at("position"), &[heads, network.window], &block.position));
    }
    if let Some(norm) = network.output_norm {
        tensors.push(Tensor::new(at("output.norm"), &[1], &[norm]));
    }
    write_linear(&network.output, &at("output"), Some(qualities), tensors);
    tensors.push(Tensor::new(at("output.offset"), &[qualities, network.outputs.len()], &network.output_offset));
}

fn read_tables(file: &mut File<'_>, prefix: &str, count: usize) -> Result<Tables> {
    let at = |name: &str| format!("{prefix}{name}");
    // [MODEL-7]
    if count > super::TABLES_MAX {
        return Err(Error::new(ErrorKind::ModelConfig, 0).with_detail("more than 65,536 tables in a bank"));
    }
    Ok(Tables {
        first: file.take(&at("first"), &[count])?,
        size: file.take(&at("size"), &[count])?,
        boundaries: file.take_list(&at("boundaries"))?,
    })
}

fn write_tables(bank: &Bank, prefix: &str, tensors: &mut Vec<Tensor>) {
    let at = |name: &str| format!("{prefix}{name}");
    let all = 0..bank.tables();
    let first: Vec<i32> = all.clone().map(|table| bank.first(table)).collect();
    let size: Vec<u16> = all.clone().map(|table| bank.size(table)).collect();
    let boundaries: Vec<u16> = all.flat_map(|table| bank.boundaries(table).iter().copied()).collect();
    tensors.push(Tensor::new(at("first"), &[first.len()], &first));
    tensors.push(Tensor::new(at("size"), &[size.len()], &size));
    tensors.push(Tensor::new(at("boundaries"), &[boundaries.len()], &boundaries));
}

/// Reads what a model whose config states D = `width` knows of side indices.
fn read_side(file: &mut File<'_>, width: usize) -> Result<SideParts> {
    let (shape, embedding) = file.take_any(EMBEDDING)?;
    // [MODEL-13] A, V or a dimension outside its range is error 703.
    let [ages, vocabulary] = match *shape.as_slice() {
        [ages, vocabulary, last] if last == width => [ages, vocabulary],
        _ => [0, 0],
    };
    if !(1..=AGES_MAX).contains(&ages) || !(1..=VOCABULARY_MAX).contains(&vocabulary) {
        let wanted = [ages.clamp(1, AGES_MAX), vocabulary.clamp(1, VOCABULARY_MAX), width];
        return Err(file.misshapen(EMBEDDING, &wanted, &shape));
    }
    let tables = read_tables(file, SIDE, SideParts::table_count(vocabulary))?;
    Ok(SideParts { width, vocabulary, embedding, tables })
}

/// Reads a file into parts, every tensor with its dtype and shape; [`ModelParts::check`] judges the values.
pub(super) fn read<'a>(bytes: &'a [u8], memory_limit: u64) -> Result<(File<'a>, ModelParts)> {
    let mut file = File::open(bytes, memory_limit)?;
    let config = read_config(&mut file)?;
    let Config { e, c, qualities, scales, side, .. } = config;
    let outputs = Outputs::Distribution { elements: e, scales };
    let decoder_network = read_network(&mut file, DECODER, qualities, c.saturating_add(side), outputs)?;
    let side = if side > 0 { Some(read_side(&mut file, side)?) } else { None };
    let hyper_prior = read_tables(&mut file, "decoder.hyper_prior.", qualities.saturating_mul(c))?;
    let fraction_bits: Vec<u8> = file.take("decoder.target.fraction_bits", &[scales])?;
    // Without this check a base could overflow its type; [MODEL-5].
    if fraction_bits.iter().any(|&bits| bits > 6) {
        let at = file.offset("decoder.target.fraction_bits");
        let (name, problem) = (Name::new("decoder.target.fraction_bits"), "a value above 6");
        return Err(Error::new(ErrorKind::ModelValue, at).with(Detail::Tensor { name, problem }));
    }
    let target = read_tables(&mut file, "decoder.target.", super::target_tables(&fraction_bits))?;
    let step = file.take("decoder.quality.step", &[qualities, e])?;
    let offset = file.take("decoder.quality.offset", &[qualities, e])?;
    let synthesis = Map::read(&mut file, config.synthesis, e, SYNTHESIS)?;
    let prediction = if prediction::predicts(&file) { Some(prediction::read(&mut file, qualities, e)?) } else { None };
    let has_encoder = file.any(|name| name.starts_with(ENCODER) || name == RECIPROCAL);
    let encoder = if has_encoder {
        let (min, max) = (config.w_range.0.into(), config.w_range.1.into());
        let outputs = Outputs::HyperPrior { channels: c, min, max };
        Some(EncoderPart {
            network: read_network(&mut file, ENCODER, qualities, e, outputs)?,
            reciprocal_step: file.take(RECIPROCAL, &[qualities, e])?,
            // Absent in models whose encoders send the nearest integers.
            rate_weight: if file.any(|name| name == RATE_WEIGHT) {
                file.take(RATE_WEIGHT, &[qualities])?
            } else {
                vec![0.0; qualities]
            },
            // Absent in models whose one-frame bodies are short.
            length_offset: if file.any(|name| name == LENGTH_OFFSET) {
                file.take(LENGTH_OFFSET, &[qualities])?
            } else {
                vec![0; qualities]
            },
            // Absent in models for which they were not measured.
            expected_bits: if file.any(|name| name == EXPECTED_BITS) {
                file.take(EXPECTED_BITS, &[qualities])?
            } else {
                vec![0.0; qualities]
            },
            analysis: Map::read(&mut file, config.synthesis, e, ANALYSIS)?,
        })
    } else {
        None
    };
    file.refuse_unknown()?;
    let parts = ModelParts {
        version: config.version,
        e,
        c,
        qualities,
        w_range: config.w_range,
        y_range: config.y_range,
        fraction_bits,
        hyper_prior,
        target,
        step,
        offset,
        synthesis,
        side,
        prediction,
        decoder_network,
        encoder,
    };
    Ok((file, parts))
}

/// The tensors of a model.
pub(super) fn tensors(model: &CodecModel, with_encoder: bool) -> Vec<Tensor> {
    let CodecModel { parts, hyper_prior, target, side, .. } = model;
    let rows = [parts.qualities, parts.e];
    let mut tensors = Vec::new();
    write_config(parts, side.as_ref().map_or(0, |side| side.width()), &mut tensors);
    if let Some(side) = side {
        let SideParts { width, vocabulary, embedding, .. } = side.parts();
        tensors.push(Tensor::new(EMBEDDING, &[side.ages(), *vocabulary, *width], embedding));
        write_tables(side.tables(), SIDE, &mut tensors);
    }
    if let Some(prediction) = &parts.prediction {
        prediction::write(prediction, parts.qualities, parts.e, &mut tensors);
    }
    write_network(&parts.decoder_network, DECODER, &mut tensors);
    write_tables(hyper_prior, "decoder.hyper_prior.", &mut tensors);
    let bits = &parts.fraction_bits;
    tensors.push(Tensor::new("decoder.target.fraction_bits", &[bits.len()], bits));
    write_tables(target, "decoder.target.", &mut tensors);
    tensors.push(Tensor::new("decoder.quality.step", &rows, &parts.step));
    tensors.push(Tensor::new("decoder.quality.offset", &rows, &parts.offset));
    if let Some(map) = &parts.synthesis {
        map.write(parts.e, SYNTHESIS, &mut tensors);
    }
    if let (true, Some(encoder)) = (with_encoder, &parts.encoder) {
        write_network(&encoder.network, ENCODER, &mut tensors);
        tensors.push(Tensor::new(RECIPROCAL, &rows, &encoder.reciprocal_step));
        if encoder.rate_weight.iter().any(|weight| *weight != 0.0) {
            tensors.push(Tensor::new(RATE_WEIGHT, &[parts.qualities], &encoder.rate_weight));
        }
        if encoder.length_offset.iter().any(|offset| *offset != 0) {
            tensors.push(Tensor::new(LENGTH_OFFSET, &[parts.qualities], &encoder.length_offset));
        }
        if encoder.expected_bits.iter().any(|bits| *bits != 0.0) {
            tensors.push(Tensor::new(EXPECTED_BITS, &[parts.qualities], &encoder.expected_bits));
        }
        if let Some(map) = &encoder.analysis {
            map.write(parts.e, ANALYSIS, &mut tensors);
        }
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    tensors
}

/// The file's bytes. Tensors are in safetensors' own order, by the dtype's alignment and then by name. The metadata has
/// at most one entry, `host`: several would be in no fixed order.
pub(super) fn write(tensors: &[Tensor], host: Option<&str>) -> Vec<u8> {
    let metadata = host.map(|host| HashMap::from([("host".to_string(), host.to_string())]));
    // Serialising fails for tensors whose length does not fit their shape, which checked parts do not have.
    safetensors::serialize(tensors.iter().map(|tensor| (&tensor.name, tensor)), metadata).unwrap_or_default()
}

/// The fingerprint (spec 4.6) of tensors in ascending order of their names.
pub(super) fn fingerprint(tensors: &[Tensor]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"midspan-model-1\n");
    for tensor in tensors.iter().filter(|tensor| tensor.name.starts_with("decoder.")) {
        // A name or a shape is short: its length fits 32 bits.
        let short = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        hash.update(short(tensor.name.len()));
        hash.update(tensor.name.as_bytes());
        hash.update([tensor.code]);
        hash.update(short(tensor.shape.len()));
        for &dimension in &tensor.shape {
            hash.update(to_u64(dimension).to_le_bytes());
        }
        hash.update(&tensor.bytes);
    }
    hash.finalize().into()
}
