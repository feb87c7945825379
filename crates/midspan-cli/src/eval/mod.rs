//! `midspan eval`: bits and perplexity through the codec on a text, measured on real bytes.

mod plot;
mod states;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde::Serialize;

use super::bench::ArmArg;
use super::command::repeating_command;
use super::files::{self, keep_inputs, model_files, print, remove_parts_on_signals};
use super::generate::ModeArg;
use super::measure::{Measure, Report, Sequence, Tokens, sequences};
use super::warning::Warning;
use crate::bundle::Bundle;
use midspan::codec::{Codec, EncoderConfig};
use midspan::wire::{CheckWidth, Identity};
use midspan_host::split::SplitHost;
use midspan_train::data::HeldOut;
use midspan_train::measure::frozen::FrozenLink;
use midspan_train::measure::last_word;

/// Measure bits and perplexity through the codec on a text, in sequences of the host's context length.
///
/// Rates are those of streams without checks. By default a check costs 8 bits a chunk.
#[derive(Clone, Debug, Args)]
pub(crate) struct EvalArgs {
    /// The text; - for standard input.
    #[arg(long)]
    text: PathBuf,
    /// Model folder. Default: the embedded model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Frames to measure.
    #[arg(long, default_value_t = 20_480)]
    frames: usize,
    /// Frames in a chunk. Several sizes are measured one after the other, and must give the same integers.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: Vec<u32>,
    /// Lanes in a chunk.
    #[arg(long, default_value_t = 1)]
    lanes: u16,
    /// Quality index, or "all" for a list of reports; --plot then draws agreement over bits.
    #[arg(long, default_value = "0", value_parser = quality)]
    quality: Quality,
    /// Weight of one bit when Y is chosen, in squared quantiser steps of error; 0 sends the nearest integers. Default:
    /// the model's own weight.
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
    /// Keep the codec's context from one sequence to the next, so that a chunk may be longer than a sequence.
    #[arg(long)]
    one_context: bool,
    /// How the decoder gets the tokens, if the codec takes them as side indices.
    #[arg(long, value_enum, default_value = "known")]
    tokens: Tokens,
    /// Do not run the host's second half on the result: faster.
    #[arg(long)]
    rate_only: bool,
    /// LAMBADA passages, one JSON object a line: also measure the accuracy of their last words.
    #[arg(long)]
    passages: Option<PathBuf>,
    /// Measure nothing, but write the hidden states: a .safetensors file with `hidden` F32 [T, E], `starts` I64 [S] of
    /// sequences, and `ids` and `targets` I64 [T], the token of each frame and the one after it. - for standard output.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["received", "plot", "passages",
        "batch", "lanes", "quality", "rate_weight", "arm", "mode", "one_context", "tokens", "rate_only",
    ])]
    export: Option<PathBuf>,
    /// A .safetensors file with hidden states [T, E] that the second half gets in the codec's place: those of --export,
    /// after any other codec. Measures what it makes of them.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plot", "passages",
        "batch", "lanes", "quality", "rate_weight", "arm", "mode", "one_context", "tokens", "rate_only",
    ])]
    received: Option<PathBuf>,
    /// Name of their tensor.
    #[arg(long, value_name = "NAME", default_value = "hidden", requires = "received")]
    received_tensor: String,
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

fn quality(text: &str) -> Result<Quality> {
    match text {
        "all" => Ok(Quality::All),
        index => index.parse().map(Quality::One).map_err(|_| anyhow!("a quality's index, or all")),
    }
}

/// Runs the command; prints a JSON object, or a list of one for each quality.
///
/// # Errors
/// One line for the user. It is an error if decoded integers differ from the encoder's or between batch sizes.
pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    remove_parts_on_signals();
    if args.quality == Quality::All && args.plot.is_some() && args.rate_only {
        bail!("--plot of all qualities shows what the second half makes of the frames: leave --rate-only out");
    }
    if args.tokens == Tokens::None && args.passages.is_some() {
        bail!("--passages are measured with the tokens known: leave --tokens none out");
    }
    let inputs = [Some(&args.text), args.passages.as_ref(), args.received.as_ref()].into_iter().flatten().cloned();
    keep_inputs(args.export.iter().chain(&args.plot), inputs.chain(model_files(args.model.as_deref())))?;
    let mut bundle = Bundle::load(args.model.as_deref())?;
    if args.tokens != Tokens::Known && bundle.codec.model().side().is_none() {
        bail!("--tokens: the codec takes no side indices");
    }
    bundle.codec = Arc::new(Codec::with_arm(bundle.codec.model().clone(), args.arm.arm())?);
    let passages = match &args.passages {
        Some(path) => last_word::load(path, &bundle.tokenizer).context("--passages")?,
        None => Vec::new(),
    };
    let sequences = sequences(&bundle.gpt, &held_out(args, &bundle)?)?;
    if let Some(path) = &args.export {
        return states::write(path, &sequences, bundle.gpt.width());
    }
    if let Some(path) = &args.received {
        let (from, host) =
            ((path.as_path(), &args.received_tensor[..]), (&bundle.gpt as &dyn SplitHost, &sequences[..]));
        let received = states::received(from, host, args.threads.into(), repeating_command(&[]))?;
        return print(format_args!("{}\n", serde_json::to_string_pretty(&received)?));
    }
    let material = Material { sequences, passages, bundle, warning: RefCell::default() };
    let reports = match args.quality {
        Quality::One(quality) => vec![material.measure(args, quality)?],
        Quality::All => {
            let qualities = u8::try_from(material.bundle.codec.model().qualities())?;
            (0..qualities).map(|quality| material.measure(args, quality)).collect::<Result<Vec<_>>>()?
        }
    };
    let results: Vec<Evaluation<'_>> =
        reports.iter().map(|report| Evaluation { command: repeating_command(&[]), report }).collect();
    let json = match (args.quality, &results[..]) {
        (Quality::One(_), [result]) => serde_json::to_string_pretty(result)?,
        _ => serde_json::to_string_pretty(&results)?,
    };
    print(format_args!("{json}\n"))?;
    match (&args.plot, args.quality, &reports[..]) {
        (Some(path), Quality::One(_), [report]) => {
            plot::bits(path, material.bundle.codec.model().hidden_width(), report)
        }
        (Some(path), ..) => plot::qualities(path, &reports),
        (None, ..) => Ok(()),
    }
}

/// A report as it is printed.
#[derive(Serialize)]
struct Evaluation<'a> {
    /// The command that repeats it, with files without their folders.
    command: String,
    #[serde(flatten)]
    report: &'a Report,
}

/// What is measured, and what it is measured with.
struct Material {
    bundle: Bundle,
    sequences: Vec<Sequence>,
    passages: Vec<last_word::Passage>,
    /// Of all qualities.
    warning: RefCell<Warning>,
}

impl Material {
    /// The report on a quality.
    fn measure(&self, args: &EvalArgs, quality: u8) -> Result<Report> {
        let Material { bundle, sequences, passages, warning } = self;
        let config = EncoderConfig::new(Identity::none())
            .mode(args.mode.into())
            .lanes(args.lanes)
            .quality(quality)
            .rate_weight(args.rate_weight)
            // Rates are reported without checks.
            .check(CheckWidth::None);
        let measure = Measure {
            host: &bundle.gpt,
            codec: bundle.codec.clone(),
            sequences,
            one_context: args.one_context,
            tokens: args.tokens,
            batches: args.batch.iter().map(|batch| *batch as usize).collect(),
            threads: args.threads.into(),
            rate_only: args.rate_only,
            warning,
        };
        warning.borrow_mut().name(&format!("quality {quality}"));
        let mut report = measure.run(&config)?;
        if !passages.is_empty() {
            let link = FrozenLink::new(bundle.codec.clone(), &config)?;
            report.last_word = Some(last_word::accuracy(&bundle.gpt, &link, passages, measure.threads)?);
        }
        Ok(report)
    }
}

/// The text's tokens: one for each frame, and the one that the last frame predicts.
fn held_out(args: &EvalArgs, bundle: &Bundle) -> Result<HeldOut> {
    let encode = |text: &str| Ok(bundle.tokenizer.encode_long(text, 2)?);
    // A token takes at most about eight bytes.
    let bytes = args.frames.saturating_mul(8);
    let mut held_out = files::held_out(&args.text, bytes, encode)?;
    held_out.ids.truncate(args.frames.saturating_add(1));
    Ok(held_out)
}
