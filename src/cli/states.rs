//! `midspan encode`, `decode` and `verify`: hidden states from and to .safetensors files.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::json;

use super::decoded::{Decoded, decode_file};
use super::files::{Output, codec_model, print};
use super::generate::ModeArg;
use crate::codec::{Codec, Encoder, EncoderConfig};
use crate::wire::Identity;

/// Encode hidden states, an F32 tensor [T, E] in a .safetensors file, into a Midspan file.
#[derive(Clone, Debug, Args)]
pub struct EncodeArgs {
    /// The .safetensors file.
    input: PathBuf,
    /// The Midspan file to write.
    #[arg(short, long)]
    out: PathBuf,
    /// Name of the tensor.
    #[arg(long, default_value = "hidden")]
    tensor: String,
    /// Codec model file, or a model folder; the embedded model without it.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Coding mode.
    #[arg(long, value_enum, default_value = "joined")]
    mode: ModeArg,
    /// Frames a chunk.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: u32,
    /// Lanes a chunk.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    lanes: u16,
    /// Quality index.
    #[arg(long, default_value_t = 0)]
    quality: u8,
    /// Squared quantiser steps that a bit is worth when Y is chosen; 0 sends the nearest integers. The model's own weight
    /// without it.
    #[arg(long)]
    rate_weight: Option<f32>,
}

/// Decode a Midspan file into a .safetensors file with `hidden` F32 [T, E], `y` I16 [T, E] and `w` I16 [T, C].
#[derive(Clone, Debug, Args)]
pub struct DecodeArgs {
    /// The Midspan file.
    input: PathBuf,
    /// The .safetensors file to write; of a damaged stream it gets what came before the fault.
    #[arg(short, long)]
    out: PathBuf,
    /// Codec model file, or a model folder; the embedded model without it.
    #[arg(long)]
    model: Option<PathBuf>,
}

/// Check a Midspan file against its model: every chunk, seal, digest and total.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// The Midspan file.
    input: PathBuf,
    /// Codec model file, or a model folder; the embedded model without it.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn load(model: Option<&Path>) -> Result<Arc<Codec>> {
    Ok(Arc::new(Codec::new(codec_model(model)?)?))
}

/// Runs `encode`.
///
/// # Errors
/// One line for the user; what stood under the output's name before is still there then.
pub fn encode(args: &EncodeArgs) -> Result<()> {
    let codec = load(args.model.as_deref())?;
    let width = codec.model().hidden_width();
    let hidden = read_hidden(&args.input, &args.tensor, width)?;
    let config = EncoderConfig {
        mode: args.mode.into(),
        file: true,
        lanes: args.lanes,
        quality: args.quality,
        max_frames_per_chunk: args.batch.max(1),
        // What is coded is the caller's own.
        memory_limit: usize::MAX,
        rate_weight: args.rate_weight,
        ..EncoderConfig::new(Identity::none())
    };
    let mut encoder = Encoder::new(codec, config)?;
    let mut out = Output::create(&args.out)?;
    let mut sum = 0;
    let mut write = |bytes: &[u8]| {
        sum += bytes.len();
        out.write_all(bytes).with_context(|| args.out.display().to_string())
    };
    for part in hidden.chunks(args.batch as usize * width) {
        encoder.push_hidden(part)?;
        write(&encoder.take_bytes()?)?;
    }
    encoder.end()?;
    write(&encoder.take_bytes()?)?;
    out.commit()?;
    let frames = hidden.len() / width;
    print(format_args!("{frames} frames, {sum} bytes, {:.1} bits a frame\n", 8.0 * sum as f64 / frames as f64))
}

/// The hidden states, `[T, E]`, of a .safetensors file.
fn read_hidden(path: &Path, tensor: &str, width: usize) -> Result<Vec<f32>> {
    let name = path.display();
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).with_context(|| name.to_string())?;
    let file = SafeTensors::deserialize(&bytes).with_context(|| format!("{name}: no safetensors file"))?;
    let found = file.tensor(tensor).with_context(|| format!("{name}: no tensor {tensor:?}"))?;
    if found.dtype() != Dtype::F32 {
        bail!("{name}: tensor {tensor:?} is {:?}, not F32", found.dtype());
    }
    if !matches!(found.shape(), [frames, columns] if *columns == width && *frames > 0) {
        bail!("{name}: tensor {tensor:?} has the shape {:?}, not [T, {width}]", found.shape());
    }
    let hidden: Vec<f32> = found.data().as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    if let Some(place) = hidden.iter().position(|value| !value.is_finite()) {
        bail!("{name}: tensor {tensor:?} has {} in frame {}", hidden[place], place / width);
    }
    Ok(hidden)
}

/// Opens a file for reading.
fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| path.display().to_string())
}

/// Runs `decode`.
///
/// # Errors
/// One line for the user: also for a damaged stream, after what came before the fault was written. Where nothing came
/// before it, nothing is written.
pub fn decode(args: &DecodeArgs) -> Result<()> {
    let codec = load(args.model.as_deref())?;
    let name = args.input.display();
    let decoded = decode_file(open(&args.input)?, &codec).with_context(|| name.to_string())?;
    let frames = decoded.frames();
    if let Some(fault) = decoded.fault.filter(|_| frames == 0) {
        bail!("{name}: {fault}; no frame came before it, nothing was written");
    }
    write_tensors(&args.out, &decoded)?;
    print(format_args!("{frames} frames\n"))?;
    match decoded.fault {
        Some(fault) => bail!("{name}: {fault}; {frames} frames before it were written"),
        None => decoded.check_targets().with_context(|| name.to_string()),
    }
}

fn write_tensors(path: &Path, decoded: &Decoded) -> Result<()> {
    let integers = |values: &[i16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let hidden: Vec<u8> = decoded.hidden().iter().flat_map(|value| value.to_le_bytes()).collect();
    let (y, w) = (integers(decoded.y()), integers(decoded.w()));
    let frames = decoded.frames();
    let (width, channels) = (decoded.width, decoded.channels);
    let views = [
        ("hidden", TensorView::new(Dtype::F32, vec![frames, width], &hidden)?),
        ("y", TensorView::new(Dtype::I16, vec![frames, width], &y)?),
        ("w", TensorView::new(Dtype::I16, vec![frames, channels], &w)?),
    ];
    let bytes = safetensors::serialize(views, None)?;
    let mut out = Output::create(path)?;
    out.write_all(&bytes).with_context(|| path.display().to_string())?;
    out.commit()
}

/// Runs `verify`.
///
/// # Errors
/// One line for the user if the stream is not whole and right.
pub fn verify(args: &VerifyArgs) -> Result<()> {
    let codec = load(args.model.as_deref())?;
    let name = args.input.display();
    let decoded = decode_file(open(&args.input)?, &codec).with_context(|| name.to_string())?;
    let frames = decoded.frames();
    let Decoded { confirmed, unverifiable, concealed, lost, damaged, .. } = decoded;
    if args.json {
        let error = decoded
            .fault
            .map(|fault| json!({"code": fault.code(), "offset": fault.offset(), "message": fault.to_string()}));
        let report = json!({
            "frames": frames, "confirmed": confirmed, "unverifiable": unverifiable, "concealed": concealed,
            "lost": lost, "damaged": damaged, "error": error,
        });
        print(format_args!("{report}\n"))?;
    } else {
        print(format_args!("{frames} frames, {confirmed} checkpoints confirmed, {unverifiable} unverifiable\n"))?;
    }
    match decoded.fault {
        Some(fault) => bail!("{name}: {fault}"),
        None => decoded.check_targets().with_context(|| name.to_string()),
    }
}
