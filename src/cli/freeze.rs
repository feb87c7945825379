//! `midspan freeze`: from a training checkpoint to a model folder.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use clap::Args;

use super::train::run::config_of;
use crate::codec::Codec;
use crate::host::bundle::{CODEC, HOST, TOKENIZER};
use crate::host::gpt::Gpt;
use crate::host::tokenizer::Tokenizer;
use crate::host::weights;
use crate::train::checkpoint;
use crate::train::codec::density::deep::Deep;
use crate::train::codec::entropy_model::Kind;
use crate::train::codec::network::Precision;
use crate::train::codec::{Config, SCALES};
use crate::train::freeze::float::FloatNetwork;
use crate::train::freeze::network::quantise_row;
use crate::train::freeze::tables::{Masses, ScaleGrid};
use crate::train::freeze::{FloatCodec, Quality, compare, freeze};

/// Freeze a training checkpoint into a model folder: host in int8, codec in integers.
#[derive(Clone, Debug, Args)]
pub struct FreezeArgs {
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
    /// Checkpoint that went on from the same start with the same host and quantiser, but in float (`train joint
    /// --float`): its rate on the same Y is printed too.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Sequences of the context's length from each text.
    #[arg(long, default_value_t = 16)]
    sequences: usize,
    /// Number of scales of the target's tables.
    #[arg(long, default_value_t = 128)]
    scales: usize,
    /// Qualities: factors of the training's quantiser steps. The first is quality 0.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    quality: Vec<f64>,
    /// Squared quantiser steps that a bit is worth to encoders, for every quality; the weight of the training without it.
    #[arg(long, value_delimiter = ',')]
    rate_weight: Vec<f32>,
    /// Model version, information only.
    #[arg(long, default_value_t = 1)]
    model_version: u32,
}

/// Runs the command.
///
/// # Errors
/// One line; nothing is written unless everything could be made.
pub fn run(args: &FreezeArgs) -> Result<()> {
    if !(2..=256).contains(&args.scales) || args.sequences == 0 {
        bail!("--scales must be 2 to 256 and --sequences at least 1");
    }
    let (tensors, meta) = checkpoint::load(&args.from)?;
    let host_config = config_of(&meta)?;
    let shape: Config = serde_json::from_str(meta.get("codec").context("the checkpoint has no codec networks")?)?;
    if shape.entropy_model != Kind::Proposed || shape.maps {
        bail!("only the proposed entropy model without linear maps can be frozen");
    }
    let tokenizer = Tokenizer::load(&args.tokenizer)?;
    let host = weights::serialize(&host_config, &checkpoint::part(&tensors, "host."))?;
    let gpt = weights::load(&host, &Device::Cpu)?;
    let float = float_codec(&tensors, &shape, args.scales, Precision::AsFrozen)?;
    let trained = meta.get("rate_weight").map_or(Ok(0.0), |weight| weight.parse()).context("rate_weight")?;
    let qualities = qualities(args, trained)?;
    let states = |path: &PathBuf| sequences(path, &tokenizer, &gpt, args.sequences);
    let model =
        freeze(&float, &qualities, &states(&args.calibrate)?, args.model_version).map_err(|line| anyhow!(line))?;
    let bytes = model.to_bytes();
    let codec = Codec::new(model)?;
    let held_out = states(&args.compare)?;
    let report = |(index, quality): (usize, &Quality)| {
        let factor = quality.factor(float.grid);
        let report = compare(&float, &codec, (index, factor), &held_out).map_err(|line| anyhow!(line))?;
        Ok((factor, quality.rate_weight, report))
    };
    let reports = qualities.iter().enumerate().map(report).collect::<Result<Vec<_>>>()?;
    let against = match &args.against {
        Some(path) => {
            let nearest = |hidden: &Vec<f32>| float.quantise(hidden, 1.0);
            let y = held_out.iter().map(nearest).collect::<Result<Vec<_>, _>>()?;
            Some(float_bits(path, &float, &y)?)
        }
        None => None,
    };
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    for (name, bytes) in [(HOST, &host), (CODEC, &bytes), (TOKENIZER, &tokenizer.to_json()?)] {
        checkpoint::write_atomically(&args.out.join(name), |file| file.write_all(bytes))?;
    }
    println!("{} bytes of host, {} bytes of codec", host.len(), bytes.len());
    for (index, (factor, rate_weight, report)) in reports.iter().enumerate() {
        println!("quality {index}: steps times {factor:.4}, rate weight {rate_weight}");
        println!("on {} held-out frames, nearest integers:", report.frames);
        println!("  W as in training       {:.2} %", 100.0 * report.w_agreement);
        println!("  scale index as there   {:.2} %", 100.0 * report.scale_agreement);
        println!("  mean, distance         {:.4} steps", report.mean_distance);
        println!(
            "  bits a frame           {:.2} frozen, {:.2} in training: {:+.2} %",
            report.frozen_bits,
            report.float_bits,
            100.0 * report.loss()
        );
        if let Some(float) = against.filter(|_| *factor == 1.0) {
            println!("  trained in float       {float:.2}: {:+.2} %", 100.0 * (report.frozen_bits / float - 1.0));
        }
    }
    Ok(())
}

/// The qualities asked for.
fn qualities(args: &FreezeArgs, trained: f32) -> Result<Vec<Quality>> {
    let weights =
        if args.rate_weight.is_empty() { vec![trained; args.quality.len()] } else { args.rate_weight.clone() };
    if weights.len() != args.quality.len() {
        bail!("{} rate weights for {} qualities", weights.len(), args.quality.len());
    }
    if args.quality.len() > 256 || args.quality.iter().any(|steps| !(1e-3..=1e3).contains(steps)) {
        bail!("--quality must be at most 256 factors from 0.001 to 1,000");
    }
    let qualities = args.quality.iter().zip(weights);
    Ok(qualities.map(|(steps, rate_weight)| Quality { steps: *steps, rate_weight }).collect())
}

/// Bits a frame of the networks of a checkpoint that was trained in float, on the same sequences of Y.
fn float_bits(path: &Path, own: &FloatCodec, sequences: &[Vec<i16>]) -> Result<f64> {
    let (tensors, meta) = checkpoint::load(path)?;
    let shape: Config = serde_json::from_str(meta.get("codec").context("the checkpoint has no codec networks")?)?;
    let float = float_codec(&tensors, &shape, own.grid.count, Precision::Float)?;
    if (&float.step, &float.offset) != (&own.step, &own.offset) {
        bail!("{}: another quantiser", path.display());
    }
    let frames = sequences.iter().map(Vec::len).sum::<usize>() / own.step.len();
    Ok(sequences.iter().map(|y| float.bits(y)).sum::<f64>() / frames as f64)
}

/// The float codec of a checkpoint, its weights as training used them.
fn float_codec(
    tensors: &BTreeMap<String, Tensor>,
    shape: &Config,
    scales: usize,
    precision: Precision,
) -> Result<FloatCodec> {
    let mut values: HashMap<String, Vec<f32>> = HashMap::new();
    for (name, tensor) in tensors {
        if ["h.", "g_y.", "quantiser."].iter().any(|prefix| name.starts_with(prefix)) {
            let mut value: Vec<f32> = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
            if precision == Precision::AsFrozen && name.ends_with(".weight") {
                let inputs = *tensor.dims().last().context("a weight has no dimensions")?;
                for row in value.chunks_exact_mut(inputs) {
                    let (weights, scale) = quantise_row(row, 0.0);
                    row.iter_mut().zip(weights).for_each(|(value, weight)| *value = (f64::from(weight) * scale) as f32);
                }
            }
            if name.ends_with("input_gain") {
                // As in training, where a gain never falls below this.
                value.iter_mut().for_each(|gain| *gain = gain.max(1e-3));
            }
            values.insert(name.clone(), value);
        }
    }
    let width = *shape.analysis.first().context("the codec's shape has no widths")?;
    let network = |prefix: &str, widths: &[usize], outputs: usize, norm: bool| -> Result<FloatNetwork> {
        let network = FloatNetwork::from_tensors(&values, prefix, widths, shape.heads, shape.window, outputs, norm);
        let mut network = network.map_err(|line| anyhow!(line))?;
        network.activation_most = precision.activation_most();
        Ok(network)
    };
    let take = |name: &str| values.get(name).cloned().with_context(|| format!("the checkpoint has no tensor {name}"));
    let density = checkpoint::part(tensors, "density.");
    let density =
        Deep::new(shape.channels, VarBuilder::from_tensors(density.into_iter().collect(), DType::F32, &Device::Cpu))?;
    Ok(FloatCodec {
        h: network("h.", &shape.analysis, shape.channels, false)?,
        g_y: network("g_y.", &shape.synthesis, 2 * width, true)?,
        step: take("quantiser.log_step")?.iter().map(|log| log.exp()).collect(),
        offset: take("quantiser.offset")?,
        hyper_prior: hyper_prior(&density.table(-512, 511)?),
        grid: ScaleGrid { low: SCALES.0.log2(), high: SCALES.1.log2(), count: scales },
    })
}

/// Cuts each channel's masses to the values that are worth a table entry; the rest is the escapes' mass.
fn hyper_prior(table: &[Vec<f64>]) -> Vec<Masses> {
    let worth = 0.25 / 65_536.0;
    table
        .iter()
        .map(|masses| {
            let first = masses.iter().position(|mass| *mass > worth).unwrap_or(512);
            let last = masses.iter().rposition(|mass| *mass > worth).unwrap_or(512);
            Masses {
                first: first as i32 - 512,
                values: masses[first..=last].to_vec(),
                below: masses[..first].iter().sum(),
                above: masses[last + 1..].iter().sum(),
            }
        })
        .collect()
}

/// Hidden states of sequences of the context's length, `[T, E]` each, spread over a text.
fn sequences(path: &PathBuf, tokenizer: &Tokenizer, gpt: &Gpt, count: usize) -> Result<Vec<Vec<f32>>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let context = gpt.config().context;
    // About eight bytes a token at most: enough text for every sequence, from places spread over the file.
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
        found.push(gpt.forward_head(&input, None)?.flatten_all()?.to_vec1()?);
    }
    Ok(found)
}
