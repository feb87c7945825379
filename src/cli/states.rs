//! `midspan encode`, `decode` and `verify`: hidden states from and to .safetensors files.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::json;

use super::generate::ModeArg;
use crate::codec::{
    CheckpointVerdict, Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig,
};
use crate::host::bundle::CODEC;

/// A model file above this size is refused.
const MODEL_MAX: usize = 1 << 30;
const BLOCK: usize = 1 << 16;

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
    let bytes = match model {
        None => include_bytes!("../../models/default/codec.safetensors").to_vec(),
        Some(path) => {
            let path = if path.is_dir() { path.join(CODEC) } else { path.to_path_buf() };
            std::fs::read(&path).with_context(|| path.display().to_string())?
        }
    };
    let name = model.map_or("the embedded model".into(), |path| path.display().to_string());
    Ok(Arc::new(Codec::from_bytes(&bytes, MODEL_MAX).with_context(|| name)?))
}

/// Runs `encode`.
///
/// # Errors
/// One line for the user; an output file that was begun is removed.
pub fn encode(args: &EncodeArgs) -> Result<()> {
    let codec = load(args.model.as_deref())?;
    let width = codec.model().hidden_width();
    let name = args.input.display();
    let bytes = std::fs::read(&args.input).with_context(|| name.to_string())?;
    let file = SafeTensors::deserialize(&bytes).with_context(|| format!("{name}: no safetensors file"))?;
    let tensor = file.tensor(&args.tensor).with_context(|| format!("{name}: no tensor {:?}", args.tensor))?;
    if tensor.dtype() != Dtype::F32 {
        bail!("{name}: tensor {:?} is {:?}, not F32", args.tensor, tensor.dtype());
    }
    if !matches!(tensor.shape(), [frames, columns] if *columns == width && *frames > 0) {
        bail!("{name}: tensor {:?} has the shape {:?}, not [T, {width}]", args.tensor, tensor.shape());
    }
    let hidden: Vec<f32> = tensor.data().as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    let config = EncoderConfig {
        mode: args.mode.into(),
        file: true,
        lanes: args.lanes,
        quality: args.quality,
        max_frames_per_chunk: args.batch.max(1),
        ..EncoderConfig::default()
    };
    let mut encoder = Encoder::new(codec, config)?;
    let mut out = BufWriter::new(File::create(&args.out).with_context(|| args.out.display().to_string())?);
    let mut write = || -> Result<u64> {
        let mut sum = 0;
        for part in hidden.chunks(args.batch as usize * width) {
            encoder.push_hidden(part)?;
            let bytes = encoder.take_bytes();
            sum += bytes.len() as u64;
            out.write_all(&bytes)?;
        }
        encoder.end()?;
        let bytes = encoder.take_bytes();
        out.write_all(&bytes)?;
        out.flush()?;
        Ok(sum + bytes.len() as u64)
    };
    match write() {
        Ok(bytes) => {
            let frames = hidden.len() / width;
            println!("{frames} frames, {bytes} bytes, {:.1} bits a frame", 8.0 * bytes as f64 / frames as f64);
            Ok(())
        }
        Err(error) => {
            // Half a stream is of no use to anyone who finds it under this name.
            let _ = std::fs::remove_file(&args.out);
            Err(error.context(args.out.display().to_string()))
        }
    }
}

/// What a file decodes to, up to its end or its first fault.
#[derive(Debug, Default)]
struct Decoded {
    w: Vec<i16>,
    y: Vec<i16>,
    hidden: Vec<f32>,
    confirmed: u64,
    unverifiable: u64,
    fault: Option<crate::error::Error>,
}

fn run(input: &Path, codec: &Arc<Codec>) -> Result<Decoded> {
    let mut file = BufReader::new(File::open(input).with_context(|| input.display().to_string())?);
    let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default())?;
    let mut decoded = Decoded::default();
    let (width, channels) = (codec.model().hidden_width(), codec.model().hyper_prior_width());
    let mut block = vec![0; BLOCK];
    loop {
        match decoder.poll() {
            Ok(DecoderPoll::Event(event)) => match event {
                DecoderEvent::Frames(frames) => decoded.take(&frames.w, &frames.y, &frames.hidden),
                DecoderEvent::ExactFrame(exact) => {
                    let values = crate::codec::quantiser::to_f32(exact.dtype, &exact.hidden);
                    decoded.take(&exact.frame.w, &exact.frame.y, &values);
                }
                DecoderEvent::HyperPrior(hyper_prior) => decoded.take(&hyper_prior.w, &[], &[]),
                DecoderEvent::Targets(targets) => decoded.take(&[], &targets.y, &targets.hidden),
                DecoderEvent::Rewound { index } => {
                    let index = usize::try_from(index).unwrap_or(usize::MAX);
                    decoded.w.truncate(index.saturating_mul(channels));
                    decoded.y.truncate(index.saturating_mul(width));
                    decoded.hidden.truncate(index.saturating_mul(width));
                }
                DecoderEvent::Checkpoint { verdict, .. } | DecoderEvent::Ended { verdict: Some(verdict), .. } => {
                    match verdict {
                        CheckpointVerdict::Confirmed => decoded.confirmed += 1,
                        CheckpointVerdict::Unverifiable => decoded.unverifiable += 1,
                    }
                }
                DecoderEvent::TargetsOverdue { index, count } => decoder.conceal(index, count)?,
                _ => {}
            },
            Ok(DecoderPoll::NeedMore) => {
                let read = file.read(&mut block).with_context(|| input.display().to_string())?;
                if read == 0 {
                    decoder.finish();
                } else {
                    decoder.push(&block[..read])?;
                }
            }
            Ok(DecoderPoll::End) => return Ok(decoded),
            Err(error) => {
                decoded.fault = Some(error);
                return Ok(decoded);
            }
        }
    }
}

impl Decoded {
    fn take(&mut self, w: &[i16], y: &[i16], hidden: &[f32]) {
        self.w.extend_from_slice(w);
        self.y.extend_from_slice(y);
        self.hidden.extend_from_slice(hidden);
    }
}

/// Runs `decode`.
///
/// # Errors
/// One line for the user: also for a damaged stream, after what came before the fault was written.
pub fn decode(args: &DecodeArgs) -> Result<()> {
    let codec = load(args.model.as_deref())?;
    let decoded = run(&args.input, &codec)?;
    let (width, channels) = (codec.model().hidden_width(), codec.model().hyper_prior_width());
    let frames = decoded.y.len() / width;
    let integers = |values: &[i16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let hidden: Vec<u8> = decoded.hidden.iter().flat_map(|value| value.to_le_bytes()).collect();
    let (y, w) = (integers(&decoded.y), integers(&decoded.w));
    let views = [
        ("hidden", TensorView::new(Dtype::F32, vec![frames, width], &hidden)?),
        ("y", TensorView::new(Dtype::I16, vec![frames, width], &y)?),
        ("w", TensorView::new(Dtype::I16, vec![decoded.w.len() / channels, channels], &w)?),
    ];
    let bytes = safetensors::serialize(views, None)?;
    std::fs::write(&args.out, bytes).with_context(|| args.out.display().to_string())?;
    println!("{frames} frames");
    match decoded.fault {
        Some(fault) => bail!("{}: {fault}; {frames} frames before it were written", args.input.display()),
        None => Ok(()),
    }
}

/// Runs `verify`.
///
/// # Errors
/// One line for the user if the stream is not whole and right.
pub fn verify(args: &VerifyArgs) -> Result<()> {
    let codec = load(args.model.as_deref())?;
    let decoded = run(&args.input, &codec)?;
    let frames = decoded.y.len() / codec.model().hidden_width();
    if args.json {
        let fault = decoded
            .fault
            .map(|fault| json!({"code": fault.code(), "offset": fault.offset(), "message": fault.to_string()}));
        println!(
            "{}",
            json!({"frames": frames, "confirmed": decoded.confirmed, "unverifiable": decoded.unverifiable, "error": fault})
        );
    } else {
        println!("{frames} frames, {} checkpoints confirmed, {} unverifiable", decoded.confirmed, decoded.unverifiable);
    }
    match decoded.fault {
        Some(fault) => bail!("{}: {fault}", args.input.display()),
        None => Ok(()),
    }
}
