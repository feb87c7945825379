//! `midspan freeze`: turns a training checkpoint into a model folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use clap::Args;
use serde::Serialize;

use super::command::repeating_command;
use super::files::{keep_inputs, print};
use super::train::args::with_option;
use crate::bundle::{CODEC, HOST, TOKENIZER};
use midspan::codec::Codec;
use midspan_host::gpt::Gpt;
use midspan_host::tokenizer::Tokenizer;
use midspan_host::weights;
use midspan_train::checkpoint;
use midspan_train::codec::Config;
use midspan_train::codec::entropy_model::Kind;
use midspan_train::codec::network::Precision;
use midspan_train::codec::quality::{self, At, Quality};
use midspan_train::data::read_text;
use midspan_train::freeze::codec::{FloatCodec, Sequence};
use midspan_train::freeze::compare::{FreezeReport, compare};
use midspan_train::freeze::freeze;
use midspan_train::recipes::{FLOAT, codec_of, host_of};

/// Freeze a training checkpoint into a model folder: host in int8, codec in integers.
#[derive(Clone, Debug, Args)]
pub(crate) struct FreezeArgs {
    /// Checkpoint of a joint run.
    #[arg(long)]
    from: PathBuf,
    /// Folder that gets tokenizer.json, host.safetensors and codec.safetensors.
    #[arg(long)]
    out: PathBuf,
    /// Tokenizer of the host.
    #[arg(long)]
    tokenizer: PathBuf,
    /// Text whose hidden states set the fixed-point scales.
    #[arg(long)]
    calibrate: PathBuf,
    /// Text on which the frozen codec is compared with the float one.
    #[arg(long)]
    compare: PathBuf,
    /// Checkpoint that was trained from the same start with the same host and quantiser, but in float (`train joint
    /// --float`). Its rate on the same Y is printed too.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Sequences of the context's length from each text.
    #[arg(long, default_value_t = 16)]
    sequences: usize,
    /// Number of scales of the target's tables.
    #[arg(long, default_value_t = 128)]
    scales: usize,
    /// Qualities, if none were trained: factors of the quantiser's steps. The first is quality 0.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    quality: Vec<f64>,
    /// Weight of one bit when encoders choose Y, in squared steps of error, for every quality. Default: the weights of
    /// the training.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    rate_weight: Vec<f64>,
    /// Model version, information only.
    #[arg(long, default_value_t = 1)]
    model_version: u32,
    /// Print what freezing costs as a JSON object.
    #[arg(long)]
    json: bool,
}

/// What was frozen, and what freezing costs.
#[derive(Serialize)]
struct Frozen {
    /// The command that repeats it, with files without their folders.
    command: String,
    host_bytes: usize,
    codec_bytes: usize,
    qualities: Vec<Cost>,
}

/// A quality, and what freezing costs at it.
#[derive(Serialize)]
struct Cost {
    #[serde(flatten)]
    quality: Quality,
    #[serde(flatten)]
    report: FreezeReport,
}

/// Runs the command.
///
/// # Errors
/// One line. Nothing is written unless everything could be made.
pub(crate) fn run(args: &FreezeArgs) -> Result<()> {
    if !(2..=256).contains(&args.scales) || args.sequences == 0 {
        bail!("--scales must be 2 to 256 and --sequences at least 1");
    }
    let files = [HOST, CODEC, TOKENIZER].map(|name| args.out.join(name));
    let inputs = [&args.from, &args.tokenizer, &args.calibrate, &args.compare];
    keep_inputs(files, inputs.into_iter().chain(&args.against))?;
    let (tensors, meta) = checkpoint::load(&args.from)?;
    let host_config = host_of(&meta)?;
    let shape = codec_of(&meta)?;
    if meta.get(FLOAT).is_some_and(|float| float == "true") {
        bail!("{}: trained with --float, not to be frozen", args.from.display());
    }
    if shape.entropy_model != Kind::Proposed {
        bail!("only the proposed entropy model can be frozen");
    }
    let tokenizer = Tokenizer::load(&args.tokenizer)?;
    let host = weights::serialize(&host_config, &checkpoint::part(&tensors, "host."))?;
    let gpt = weights::load(&host, &Device::Cpu)?;
    let float = FloatCodec::from_weights(&tensors, &shape, args.scales, Precision::AsFrozen)?;
    let trained = meta.get("rate_weight").map_or(Ok(0.0), |weight| weight.parse()).context("rate_weight")?;
    let qualities: Vec<Quality> =
        qualities(args, &shape, trained)?.into_iter().map(|quality| quality.on_grid(float.grid)).collect();
    let states = |path: &Path| sequences(path, &tokenizer, &gpt, args.sequences);
    // Streams code tokens by how often they occur in the text.
    let tokens = match shape.side {
        Some(_) => tokenizer.encode_long(&read_text(&args.calibrate)?, 2)?,
        None => Vec::new(),
    };
    let model = freeze(&float, &qualities, &states(&args.calibrate)?, &tokens, args.model_version)?;
    let bytes = model.to_bytes();
    let codec = Codec::new(model)?;
    let held_out = states(&args.compare)?;
    let against = args.against.as_ref().map(|path| against(path, &float)).transpose()?;
    let cost = |(index, quality): (usize, &Quality)| {
        let at = At { index, quality: *quality };
        let report = compare(&float, against.as_ref(), &codec, at, &held_out)?;
        Ok(Cost { quality: *quality, report })
    };
    let costs = qualities.iter().enumerate().map(cost).collect::<Result<Vec<_>>>()?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    for (name, bytes) in [(HOST, &host), (CODEC, &bytes), (TOKENIZER, &tokenizer.to_json()?)] {
        checkpoint::write_atomically(&args.out.join(name), |file| file.write_all(bytes))?;
    }
    let frozen =
        Frozen { command: repeating_command(&[]), host_bytes: host.len(), codec_bytes: bytes.len(), qualities: costs };
    if args.json { print(format_args!("{}\n", serde_json::to_string_pretty(&frozen)?)) } else { show(&frozen) }
}

/// Prints the report as text.
fn show(frozen: &Frozen) -> Result<()> {
    print(format_args!("{} bytes of host, {} bytes of codec\n", frozen.host_bytes, frozen.codec_bytes))?;
    for (index, Cost { quality, report }) in frozen.qualities.iter().enumerate() {
        let against = |name: &str, bits: f64| {
            let more = 100.0 * (report.frozen_bits / bits - 1.0);
            format!("  {name:<22} {bits:.2}: {more:+.2} %")
        };
        let mut lines = vec![
            format!("quality {index}: steps times {:.4}, rate weight {}", quality.steps, quality.rate_weight),
            format!("on {} held-out frames:", report.frames),
            format!("  W as in training       {:.2} %", 100.0 * report.w_agreement),
            format!("  scale index as there   {:.2} %", 100.0 * report.scale_agreement),
            format!("  mean, distance         {:.4} steps", report.mean_distance),
            format!("  bits a frame           {:.2} frozen", report.frozen_bits),
            against("in training", report.float_bits),
            against("  with escapes", report.float_bits_with_escapes),
        ];
        lines.extend(report.trained_in_float_bits.map(|bits| against("trained in float", bits)));
        lines.extend(report.trained_in_float_bits_with_escapes.map(|bits| against("  with escapes", bits)));
        print(format_args!("{}\n", lines.join("\n")))?;
    }
    Ok(())
}

/// The qualities asked for, or those that were trained.
fn qualities(args: &FreezeArgs, shape: &Config, trained: f64) -> Result<Vec<Quality>> {
    if !shape.qualities.is_empty() && !args.quality.is_empty() {
        bail!("--quality: the checkpoint has qualities of its own");
    }
    let mut qualities = match (&shape.qualities[..], &args.quality[..]) {
        ([], []) => vec![Quality { steps: 1.0, rate_weight: trained }],
        ([], steps) => steps.iter().map(|steps| Quality { steps: *steps, rate_weight: trained }).collect(),
        (own, _) => own.to_vec(),
    };
    if !args.rate_weight.is_empty() {
        if args.rate_weight.len() != qualities.len() {
            bail!("{} rate weights for {} qualities", args.rate_weight.len(), qualities.len());
        }
        qualities.iter_mut().zip(&args.rate_weight).for_each(|(quality, weight)| quality.rate_weight = *weight);
    }
    quality::check(&qualities).map_err(with_option)?;
    Ok(qualities)
}

/// The float codec of a checkpoint that was trained in float, with the quantiser of another.
fn against(path: &Path, own: &FloatCodec) -> Result<FloatCodec> {
    let (tensors, meta) = checkpoint::load(path)?;
    let shape = codec_of(&meta)?;
    if meta.get(FLOAT).is_some_and(|float| float == "false") {
        bail!("{}: trained without --float", path.display());
    }
    let float = FloatCodec::from_weights(&tensors, &shape, own.grid.count, Precision::Float)?;
    if (&float.step, &float.offset, &float.maps) != (&own.step, &own.offset, &own.maps) {
        bail!("{}: another quantiser", path.display());
    }
    if float.w_coding.len() != own.w_coding.len() {
        bail!("{}: other qualities", path.display());
    }
    Ok(float)
}

/// Sequences of the context's length, spread over a text.
pub(crate) fn sequences(path: &Path, tokenizer: &Tokenizer, gpt: &Gpt, count: usize) -> Result<Vec<Sequence>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let context = gpt.config().context;
    // A token takes at most about eight bytes, so this is enough text for every sequence, from places spread over the
    // file.
    let (span, mut found) = (context * 8, Vec::new());
    for i in 0..count {
        let mut start = text.len().saturating_sub(span) / count.max(1) * i;
        while !text.is_char_boundary(start) {
            start += 1;
        }
        let mut end = (start + span).min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut tokens = tokenizer.encode(&text[start..end])?;
        tokens.truncate(context);
        if tokens.is_empty() {
            bail!("{}: no text", path.display());
        }
        let input = Tensor::from_vec(tokens.clone(), (1, tokens.len()), &Device::Cpu)?;
        let hidden = gpt.forward_head(&input, None)?.flatten_all()?.to_vec1()?;
        found.push(Sequence { hidden, ids: tokens });
    }
    Ok(found)
}
