//! Hostile files: models, saved sessions and hosts.

use anyhow::anyhow;
use midspan::codec::{Codec, Decoder, DecoderConfig};
use midspan::model::CodecModel;

use crate::streams::Kit;
use crate::{Case, Input};

/// The memory limit that loaders are given.
const LIMIT: usize = 64 << 20;

const DEFAULT: &[u8] = include_bytes!("../../model/codec.safetensors");

/// A safetensors file with any header and data.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn model(bytes: Vec<u8>) -> Input {
    let load = |bytes: &[u8], limit: usize| {
        CodecModel::from_bytes(bytes, limit).map(drop).map_err(|error| anyhow!("error {}", error.code()))
    };
    Input::File { bytes, limit: LIMIT, honest: DEFAULT.to_vec(), load }
}

/// The default model's file after a change of its header.
fn with_header(change: impl FnOnce(String) -> String) -> Vec<u8> {
    let length = u64::from_le_bytes(*DEFAULT.first_chunk().expect("a length")) as usize;
    let (header, data) = DEFAULT[8..].split_at(length);
    safetensors(&change(String::from_utf8(header.to_vec()).expect("text")), data)
}

fn saved(change: impl FnOnce(&mut Vec<u8>), kit: &Kit) -> Input {
    let fresh = Decoder::new(kit.codec.clone(), DecoderConfig::default()).and_then(|mut decoder| {
        decoder.push(&kit.honest(3).units[0])?;
        crate::drain(&mut decoder, &mut 0)?;
        decoder.save()
    });
    let honest = fresh.expect("a saved decoder");
    let mut bytes = honest.clone();
    bytes.truncate(bytes.len() - 4);
    change(&mut bytes);
    let crc = crate::streams::crc32(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let load = |bytes: &[u8], limit: usize| {
        let codec = Codec::from_bytes(DEFAULT, 1 << 30)?;
        let config = DecoderConfig::default().memory_limit(limit);
        Decoder::restore(codec.into(), &[], config, bytes).map(drop).map_err(|error| anyhow!("error {}", error.code()))
    };
    Input::File { bytes, limit: LIMIT, honest, load }
}

/// Every hostile file.
pub const CASES: &[Case] = &[
    ("model file: a header of 2^63 bytes", |_| model([&(1_u64 << 63).to_le_bytes()[..], b"{}"].concat())),
    ("model file: a header of 2 MB of open brackets", |_| model(safetensors(&"[".repeat(2 << 20), &[]))),
    ("model file: 20,000 empty tensors", |_| {
        let tensor = |n: usize| format!("\"t{n}\":{{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[0,0]}}");
        model(safetensors(&format!("{{{}}}", (0..20_000).map(tensor).collect::<Vec<_>>().join(",")), &[]))
    }),
    ("model file: a shape of 1,000,000 ones", |_| {
        let shape = vec!["1"; 1_000_000].join(",");
        model(safetensors(&format!("{{\"t\":{{\"dtype\":\"I8\",\"shape\":[{shape}],\"data_offsets\":[0,1]}}}}"), &[0]))
    }),
    ("model file: a tensor of 2^62 values", |_| {
        let tensor = "{\"t\":{\"dtype\":\"I8\",\"shape\":[2147483648,2147483648],\"data_offsets\":[0,1]}}";
        model(safetensors(tensor, &[0]))
    }),
    ("model file: cut in the middle", |_| model(DEFAULT[..DEFAULT.len() / 2].to_vec())),
    ("model file: a window of 2^31", |_| model(config_value(b"window"))),
    ("model file: 64 MB of spaces in the header", |_| model(with_header(|header| header + &" ".repeat(64 << 20)))),
    ("saved decoder: lengths of 2^64 - 1", |kit| {
        saved(|bytes| bytes.iter_mut().skip(60).take(200).for_each(|byte| *byte = 0xff), kit)
    }),
    ("saved decoder: 64 MB behind it", |kit| saved(|bytes| bytes.extend(std::iter::repeat_n(0, 64 << 20)), kit)),
    ("host file: ten billion layers", |_| host("\"layers\":", 10_000_000_000)),
    ("host file: a context of 2^40", |_| host("\"context\":", 1 << 40)),
    ("host file: a context of 2^64 - 1", |_| host("\"context\":", u64::MAX)),
    ("host file: a vocabulary of 2^40", |_| host("\"vocab\":", 1 << 40)),
    ("host file: 2^63 heads", |_| host("\"heads\":", 1 << 63)),
];

/// The default model with a huge value in one of the network's integers.
fn config_value(part: &[u8]) -> Vec<u8> {
    let mut bytes = DEFAULT.to_vec();
    let length = u64::from_le_bytes(*DEFAULT.first_chunk().expect("a length")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&DEFAULT[8..8 + length]).expect("json");
    let name = format!("decoder.network.{}", String::from_utf8_lossy(part));
    let start = header[&name]["data_offsets"][0].as_u64().expect("an offset") as usize;
    bytes[8 + length + start..][..4].copy_from_slice(&i32::MAX.to_le_bytes());
    bytes
}

/// The default host with another value of one of its shape's fields.
fn host(field: &str, value: u64) -> Input {
    const HOST: &[u8] = include_bytes!("../../model/host.safetensors");
    let length = u64::from_le_bytes(*HOST.first_chunk().expect("a length")) as usize;
    let (header, data) = HOST[8..].split_at(length);
    let header = String::from_utf8(header.to_vec()).expect("text");
    // The shape is JSON within JSON.
    let field = field.replace('"', "\\\"");
    let at = header.find(&field).expect("the field") + field.len();
    let digits = header[at..].bytes().take_while(u8::is_ascii_digit).count();
    let changed = format!("{}{value}{}", &header[..at], &header[at + digits..]);
    let load =
        |bytes: &[u8], _limit: usize| Ok(midspan_host::weights::load(bytes, &candle_core::Device::Cpu).map(drop)?);
    Input::File { bytes: safetensors(&changed, data), limit: LIMIT, honest: HOST.to_vec(), load }
}
