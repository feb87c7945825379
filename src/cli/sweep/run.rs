//! Training and measuring the runs of a sweep.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::super::beside::{compressors, without_codec};
use super::super::command::alone;
use super::super::results::{INTERRUPTED, KeepArgs};
use super::super::train::args::{CodecArgs, PlaceArgs, RunArgs, Variant};
use super::super::train::run::{Task, train};
use super::point::{Point, kind_name};
use crate::train::base::Host;
use crate::train::codec::entropy_model::{Kind, decoder_multiplications};
use crate::train::gap::{self, Effort};
use crate::train::measure::Link;
use crate::train::measure::last_word::{self, Passage};
use crate::train::measure::rows::Rows;
use crate::train::runner::stop_on_signals;

/// Train and measure every combination of model, split, lambda and seed that has no result yet.
#[derive(Clone, Debug, Args)]
pub struct SweepArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    codec: CodecArgs,
    #[command(flatten)]
    keep: KeepArgs,
    /// Name of what all these runs have in common, for the results' names.
    #[arg(long, default_value = "paper")]
    recipe: String,
    /// Entropy models.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "proposed")]
    entropy_model: Vec<Kind>,
    /// Blocks before the split.
    #[arg(long, value_delimiter = ',', required_unless_present = "control")]
    split: Vec<usize>,
    /// Nats a bit.
    #[arg(long, value_delimiter = ',', required_unless_present = "control")]
    lambda: Vec<f64>,
    /// Seeds.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    seed: Vec<u64>,
    /// Train the host alone instead, as the same steps leave it without a codec.
    #[arg(long)]
    control: bool,
    /// LAMBADA passages, one JSON object a line, for the last words' accuracy.
    #[arg(long)]
    passages: Option<PathBuf>,
    /// Measure the gap too, on all of the held-out text: covariance, Rademacher complexity, Lipschitz constant.
    #[arg(long)]
    gap: bool,
}

/// One run to be made.
#[derive(Clone, Copy, Debug)]
struct Job {
    /// None for the control.
    variant: Option<Variant>,
    seed: u64,
}

impl SweepArgs {
    fn jobs(&self) -> Vec<Job> {
        let mut jobs = Vec::new();
        for &seed in &self.seed {
            if self.control {
                jobs.push(Job { variant: None, seed });
                continue;
            }
            for &entropy_model in &self.entropy_model {
                for &split in &self.split {
                    let variant = |&lambda| Variant { entropy_model, lambda, split: Some(split), freeze_host: false };
                    jobs.extend(self.lambda.iter().map(|lambda| Job { variant: Some(variant(lambda)), seed }));
                }
            }
        }
        jobs
    }

    /// Refuses a result that other options made: the same name would stand for two things.
    fn check_made_alike(&self, point: &Point, job: Job) -> Result<()> {
        let shape = |variant: Variant| self.codec.shape((point.host.width, point.host.context), variant.entropy_model);
        let codec = job.variant.map(shape).transpose()?;
        let asked = (self.run.pace.steps, codec.is_some() && self.codec.float, codec.as_ref());
        if asked != (point.steps, codec.is_some() && point.float, point.codec.as_ref())
            || codec.is_some() && self.codec.rate_weight != point.rate_weight
        {
            bail!("other options made this result ({}); give these runs a --recipe of their own", point.command);
        }
        Ok(())
    }
}

impl Job {
    /// What tells this run from the others: options of the command line.
    fn options(self) -> Vec<(&'static str, String)> {
        let mut options = vec![("--seed", self.seed.to_string())];
        if let Some(Variant { entropy_model, lambda, split, .. }) = self.variant {
            options.push(("--entropy-model", kind_name(entropy_model)));
            options.push(("--lambda", lambda.to_string()));
            options.extend(split.map(|split| ("--split", split.to_string())));
        }
        options
    }

    /// The result's name.
    fn name(self, recipe: &str) -> String {
        match self.variant {
            Some(Variant { entropy_model, lambda, split, .. }) => {
                let (model, split) = (kind_name(entropy_model), split.unwrap_or_default());
                format!("{recipe}-{model}-split{split}-lambda{lambda}-seed{}", self.seed)
            }
            None => format!("{recipe}-control-seed{}", self.seed),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// One line that names what failed; the runs behind it are made first, and results stay.
pub fn run(args: &SweepArgs) -> Result<()> {
    stop_on_signals();
    let jobs = args.jobs();
    let passages = match &args.passages {
        Some(path) => last_word::load(path, &args.run.held.tokenizer()?).context("--passages")?,
        None => Vec::new(),
    };
    let mut failed = Vec::new();
    for (i, &job) in jobs.iter().enumerate() {
        let name = job.name(&args.recipe);
        if let Some(point) = args.keep.load::<Point>(&name)? {
            args.check_made_alike(&point, job).with_context(|| args.keep.file(&name).display().to_string())?;
            continue;
        }
        println!("{} of {}: {name}", i + 1, jobs.len());
        match args.keep.keep(&name, |folder| make(args, job, folder, &passages)) {
            Ok(Some(point)) if job.variant.is_none() => println!("{name}: loss {:.4}", point.loss()),
            Ok(Some(point)) => println!("{name}: {:.2} bits a token, loss {:.4}", point.bits(), point.loss()),
            Ok(None) => bail!(INTERRUPTED),
            Err(error) => {
                println!("{name}: {error:#}");
                failed.push(format!("{name}: {error:#}"));
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

/// Trains and measures one run; none where a signal ended it.
fn make(args: &SweepArgs, job: Job, folder: PathBuf, passages: &[Passage]) -> Result<Option<Point>> {
    let clock = Instant::now();
    let place = PlaceArgs { out: folder, seed: job.seed };
    let trained =
        train(&args.run, &place, job.variant.map_or(Task::Host(None), |variant| Task::Joint(&args.codec, variant)))?;
    if trained.steps < args.run.pace.steps {
        return Ok(None);
    }
    let seconds = clock.elapsed().as_secs_f64();
    let (threads, held) = (args.run.pace.threads, &trained.held);
    let host = Host::new(&trained.host, &trained.vars)?.model;
    let size = (trained.host.width, trained.host.context);
    let shape = job.variant.map(|variant| args.codec.shape(size, variant.entropy_model)).transpose()?;
    let codec = shape.as_ref().map(|shape| args.codec.codec(shape, &trained.vars)).transpose()?;
    let link = codec.as_ref().map_or(&Rows::Half as &dyn Link, |codec| codec);
    let line: Vec<String> = std::env::args().collect();
    Ok(Some(Point {
        command: alone(&line, &job.options()),
        recipe: args.recipe.clone(),
        entropy_model: job.variant.map(|variant| variant.entropy_model),
        lambda: job.variant.map_or(0.0, |variant| variant.lambda),
        seed: job.seed,
        steps: trained.steps,
        tokens: trained.tokens,
        seconds,
        decoder_multiplications: shape.as_ref().map_or(0, decoder_multiplications),
        rate_weight: if codec.is_some() { args.codec.rate_weight } else { 0.0 },
        float: args.codec.float,
        bfloat16: Some(trained.bfloat16),
        last_word: match passages {
            [] => None,
            passages => Some(last_word::accuracy(&host, link, passages, threads)?),
        },
        compressors: match &codec {
            Some(codec) => compressors(&host, codec, &held.ids, threads)?,
            None => BTreeMap::new(),
        },
        without_codec: without_codec(&host, held, threads)?,
        gap: match &codec {
            Some(codec) if args.gap => {
                // All of the text: more than an evaluation reads.
                let text = args.run.held.held_bytes(&args.run.held.tokenizer()?, usize::MAX)?;
                Some(gap::measure(&host, codec, &text.ids, Effort::default(), threads)?)
            }
            _ => None,
        },
        metrics: trained.metrics,
        host: trained.host,
        codec: shape,
    }))
}
