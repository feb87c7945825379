//! `midspan eval`: bits and perplexity through the codec on a text, measured on real bytes.

mod measure;
mod plot;
mod task;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::bench::{ArmArg, arm_name};
use super::compressors::baseline;
use super::files::print;
use super::generate::ModeArg;
use crate::codec::{Codec, EncoderConfig};
use crate::host::bundle::Bundle;
use crate::train::measure::frozen::FrozenLink;
use crate::train::measure::last_word;
use measure::{Run, Sequence};

/// Measure bits and perplexity through the codec on a text, in sequences of the host's context length.
#[derive(Clone, Debug, Args)]
pub struct EvalArgs {
    /// The text.
    #[arg(long)]
    text: PathBuf,
    /// Model folder; the embedded model without it.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Frames to measure.
    #[arg(long, default_value_t = 20_480)]
    frames: usize,
    /// Frames a chunk; several sizes are measured one after the other, and must give the same integers.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: Vec<u32>,
    /// Lanes a chunk.
    #[arg(long, default_value_t = 1)]
    lanes: u16,
    /// Quality index, or "all": a list of reports, and with --plot agreement over bits.
    #[arg(long, default_value = "0", value_parser = quality)]
    quality: Quality,
    /// Squared quantiser steps that a bit is worth when Y is chosen; 0 sends the nearest integers. The model's own weight
    /// without it.
    #[arg(long)]
    rate_weight: Option<f32>,
    /// Threads for the exact network and the lanes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Implementation of the exact network.
    #[arg(long, value_enum, default_value = "auto")]
    arm: ArmArg,
    /// Coding mode.
    #[arg(long, value_enum, default_value = "joined")]
    mode: ModeArg,
    /// Let the codec's context go on from sequence to sequence, so that chunks may be longer than one.
    #[arg(long)]
    one_context: bool,
    /// Leave out what the second half makes of it: faster.
    #[arg(long)]
    rate_only: bool,
    /// LAMBADA passages, one JSON object a line: the last words' accuracy too.
    #[arg(long)]
    passages: Option<PathBuf>,
    /// Also draw the bits of a token as an SVG file.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// Which qualities are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quality {
    One(u8),
    All,
}

fn quality(text: &str) -> Result<Quality, String> {
    match text {
        "all" => Ok(Quality::All),
        index => index.parse().map(Quality::One).map_err(|_| "a quality's index, or all".into()),
    }
}

/// Runs the command; prints a JSON object, or a list of one for each quality.
///
/// # Errors
/// One line for the user; integers that do not come back as they were, or differ between batch sizes, are an error.
pub fn run(args: &EvalArgs) -> Result<()> {
    let mut bundle = Bundle::load(args.model.as_deref())?;
    bundle.codec = Arc::new(Codec::with_arm(bundle.codec.model().clone(), args.arm.arm())?);
    let passages = match &args.passages {
        Some(path) => last_word::load(path, &bundle.tokenizer).context("--passages")?,
        None => Vec::new(),
    };
    let material = Material { sequences: sequences(args, &bundle)?, passages, bundle };
    let json = match args.quality {
        Quality::One(quality) => {
            let (report, runs) = material.measure(args, quality)?;
            if let Some(path) = &args.plot {
                plot::bits(path, &floor(&report, &material.bundle), &runs, material.frames())?;
            }
            report
        }
        Quality::All => {
            let qualities = u8::try_from(material.bundle.codec.model().qualities())?;
            let measure = |quality| Ok(material.measure(args, quality)?.0);
            let reports = (0..qualities).map(measure).collect::<Result<Vec<Value>>>()?;
            if let Some(path) = &args.plot {
                plot::qualities(path, &reports)?;
            }
            Value::Array(reports)
        }
    };
    print(format_args!("{}\n", serde_json::to_string_pretty(&json)?))
}

/// What is measured, and with what.
struct Material {
    bundle: Bundle,
    sequences: Vec<Sequence>,
    passages: Vec<last_word::Passage>,
}

impl Material {
    fn frames(&self) -> usize {
        self.sequences.iter().map(Sequence::frames).sum()
    }

    /// The report on a quality, and its passes.
    fn measure(&self, args: &EvalArgs, quality: u8) -> Result<(Value, Vec<Run>)> {
        let Material { bundle, sequences, passages } = self;
        let frames = self.frames();
        let config = EncoderConfig {
            mode: args.mode.into(),
            lanes: args.lanes,
            quality,
            rate_weight: args.rate_weight,
            ..EncoderConfig::default()
        };

        let bar = ProgressBar::new((frames * args.batch.len()) as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} frames, {eta} left") {
            bar.set_style(style);
        }
        let joined = args.one_context.then(|| {
            [Sequence {
                hidden: sequences.iter().flat_map(|sequence| sequence.hidden.iter().copied()).collect(),
                targets: sequences.iter().flat_map(|sequence| sequence.targets.iter().copied()).collect(),
            }]
        });
        let coded = joined.as_ref().map_or(&sequences[..], |joined| &joined[..]);
        let mut runs: Vec<Run> = Vec::new();
        for &batch in &args.batch {
            let run = measure::run(&bundle.codec, &config, coded, batch as usize, args.threads.into(), &bar)?;
            if let Some(first) = runs.first()
                && (&first.w, &first.y) != (&run.w, &run.y)
            {
                bail!("batches of {} and of {} frames give other integers", first.batch, run.batch);
            }
            runs.push(run);
        }
        bar.finish_and_clear();

        let Some(first) = runs.first() else { bail!("no batch size") };
        let threads = args.threads.into();
        let task =
            if args.rate_only { None } else { Some(task::measure(&bundle.gpt, sequences, &first.hidden, threads)?) };
        let last_word = match passages.as_slice() {
            [] => None,
            passages => {
                let link = FrozenLink::new(bundle.codec.clone(), &config)?;
                Some(last_word::accuracy(&bundle.gpt, &link, passages, threads)?)
            }
        };
        let rate_weight = args.rate_weight.unwrap_or_else(|| bundle.codec.model().rate_weight(config.quality.into()));
        let width = bundle.codec.model().hidden_width();
        let baseline = baseline(&first.y, width, bundle.gpt.config().context)?;
        let per_frame = |bits: f64| bits / frames as f64;
        let (deflate, zstd) = (per_frame(baseline.deflate as f64), per_frame(baseline.zstd as f64));
        let batches: Vec<Value> = runs
            .iter()
            .map(|run| {
                let bits = per_frame(8.0 * run.bytes as f64);
                json!({
                    "batch": run.batch,
                    "bits": bits,
                    "hyper_prior_bits": per_frame(run.cost.hyper_prior),
                    "target_bits": per_frame(run.cost.target),
                    "overhead_bits": bits - per_frame(run.cost.total()),
                    "bits_per_element": bits / width as f64,
                    "share_of_zstd": bits / zstd,
                    "share_of_deflate": bits / deflate,
                    "share_of_f16": bits / (16.0 * width as f64),
                    "encode_ms": 1e3 * run.encode_seconds / frames as f64,
                    "decode_ms": 1e3 * run.decode_seconds / frames as f64,
                    "stream_sha256": run.stream_digest,
                })
            })
            .collect();
        let report = json!({
            "frames": frames,
            "sequence_frames": bundle.gpt.config().context,
            "one_context": args.one_context,
            "arm": arm_name(bundle.codec.g_y().arm()),
            "threads": args.threads,
            "lanes": args.lanes,
            "quality": quality,
            "rate_weight": rate_weight.to_string().parse::<f64>()?,
            "zstd_bits": zstd,
            "deflate_bits": deflate,
            "token_id_bits": f64::from(u32::try_from(bundle.gpt.config().vocab)?).log2(),
            "perplexity_through_codec": task.as_ref().map(|task| task.perplexity),
            "perplexity_unquantised": task.as_ref().map(|task| task.unquantised),
            "divergence": task.as_ref().map(|task| task.divergence),
            "greedy_agreement": task.as_ref().map(|task| task.agreement),
            "without_codec": task.as_ref().map(|task| &task.without_codec),
            "last_word": last_word,
            "w_sha256": measure::digest(&first.w),
            "y_sha256": measure::digest(&first.y),
            "batches": batches,
        });
        Ok((report, runs))
    }
}

/// Bits of a token without the codec, of a report.
fn floor(report: &Value, bundle: &Bundle) -> [(&'static str, f64); 3] {
    let figure = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
    [
        ("raw f16", 16.0 * bundle.codec.model().hidden_width() as f64),
        ("deflate -9", figure("deflate_bits")),
        ("zstd -19", figure("zstd_bits")),
    ]
}

/// The text's hidden states at the split, in sequences of the context's length.
fn sequences(args: &EvalArgs, bundle: &Bundle) -> Result<Vec<Sequence>> {
    let name = args.text.display();
    let text = String::from_utf8(std::fs::read(&args.text).with_context(|| name.to_string())?)
        .with_context(|| format!("{name}: not UTF-8"))?;
    let context = bundle.gpt.config().context;
    // About eight bytes a token at most; a token more than frames, for the last prediction.
    let mut end = text.len().min(args.frames.saturating_mul(8));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut tokens = bundle.tokenizer.encode_long(&text[..end], 2)?;
    tokens.truncate(args.frames.saturating_add(1));
    if tokens.len() < 2 {
        bail!("{name}: too little text");
    }
    (0..(tokens.len() - 1).div_ceil(context))
        .map(|part| {
            let targets: Vec<u32> = tokens[part * context + 1..].iter().take(context).copied().collect();
            let inputs: Vec<u32> = tokens[part * context..].iter().take(targets.len()).copied().collect();
            // [1, T] → [1, T, E]
            let inputs = Tensor::from_vec(inputs, (1, targets.len()), &Device::Cpu)?;
            let hidden = bundle.gpt.forward_head(&inputs, None)?.flatten_all()?.to_vec1()?;
            Ok(Sequence { hidden, targets })
        })
        .collect()
}
