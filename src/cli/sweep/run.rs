//! Training and measuring the runs of a sweep.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::super::beside::{compressors, without_codec};
use super::super::command::alone;
use super::super::results;
use super::super::train::args::{CodecArgs, PlaceArgs, RunArgs, Variant};
use super::super::train::run::{CodecRun, Trained, train};
use super::point::{Point, kind_name};
use crate::train::Error;
use crate::train::base::Host;
use crate::train::codec::entropy_model::{Kind, decoder_multiplications};
use crate::train::codec::{self, Codec};
use crate::train::data::Held;
use crate::train::gap::{self, Effort};
use crate::train::measure::last_word::{self, Passage};
use crate::train::measure::rows::Rows;
use crate::train::measure::{Link, evaluate};
use crate::train::runner::{Metrics, stop_on_signals};

/// Train and measure every combination of model, split, lambda and seed that has no result yet.
#[derive(Clone, Debug, Args)]
pub struct SweepArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    codec: CodecArgs,
    /// Folder of the results.
    #[arg(long)]
    results: PathBuf,
    /// Folder of checkpoints and logs; what was interrupted goes on from there.
    #[arg(long)]
    work: PathBuf,
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
    entropy_model: Option<Kind>,
    split: usize,
    lambda: f64,
    seed: u64,
}

impl SweepArgs {
    fn jobs(&self) -> Vec<Job> {
        let mut jobs = Vec::new();
        for &seed in &self.seed {
            if self.control {
                let split = self.split.first().copied().unwrap_or(1);
                jobs.push(Job { entropy_model: None, split, lambda: 0.0, seed });
                continue;
            }
            for &entropy_model in &self.entropy_model {
                for &split in &self.split {
                    let job = |&lambda: &f64| Job { entropy_model: Some(entropy_model), split, lambda, seed };
                    jobs.extend(self.lambda.iter().map(job));
                }
            }
        }
        jobs
    }

    fn name(&self, job: Job) -> String {
        Point::name(&self.recipe, job.entropy_model, job.split, job.lambda, job.seed)
    }

    fn command(&self, job: Job) -> String {
        let line: Vec<String> = std::env::args().collect();
        let mut values = vec![
            ("--split", job.split.to_string()),
            ("--lambda", job.lambda.to_string()),
            ("--seed", job.seed.to_string()),
        ];
        if let Some(model) = job.entropy_model {
            values.push(("--entropy-model", kind_name(model).to_string()));
        }
        alone(&line, &values)
    }
}

/// Runs the command.
///
/// # Errors
/// One line that names what failed; the runs behind it are made first, and results stay.
pub fn run(args: &SweepArgs) -> Result<()> {
    stop_on_signals();
    std::fs::create_dir_all(&args.results)?;
    let jobs = args.jobs();
    let passages = match &args.passages {
        Some(path) => last_word::load(path, &args.run.held.tokenizer()?).context("--passages")?,
        None => Vec::new(),
    };
    let mut failed = Vec::new();
    for (i, &job) in jobs.iter().enumerate() {
        let name = args.name(job);
        let file = args.results.join(format!("{name}.json"));
        if file.exists() {
            continue;
        }
        println!("{} of {}: {name}", i + 1, jobs.len());
        match make(args, job, &name, &passages) {
            Ok(Some(point)) => {
                results::save(&file, &point)?;
                // The result stands; a second one would be the same.
                let _ = std::fs::remove_file(args.work.join(&name).join("last.safetensors"));
                println!("{name}: {:.2} bits a token, loss {:.4}", point.bits(), point.loss());
            }
            Ok(None) => bail!("interrupted; the same command goes on"),
            Err(error) => {
                println!("{name}: {error:#}");
                failed.push(format!("{name}: {error:#}"));
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

/// Trains and measures one run; none where a signal ended it.
fn make(args: &SweepArgs, job: Job, name: &str, passages: &[Passage]) -> Result<Option<Point>> {
    let place = PlaceArgs { out: args.work.join(name), seed: job.seed };
    let clock = Instant::now();
    let codec = job.entropy_model.map(|entropy_model| CodecRun {
        args: &args.codec,
        variant: Variant { entropy_model, lambda: job.lambda, split: Some(job.split), freeze_host: false },
    });
    let trained = train(&args.run, &place, None, codec)?;
    if trained.steps < args.run.pace.steps {
        return Ok(None);
    }
    let seconds = clock.elapsed().as_secs_f64();
    let size = (trained.host.width, trained.host.context);
    let shape = job.entropy_model.map(|model| args.codec.shape(size, model)).transpose()?;
    let measured = measure(args, &trained, shape.as_ref(), passages)?;
    Ok(Some(Point {
        command: args.command(job),
        recipe: args.recipe.clone(),
        entropy_model: job.entropy_model,
        lambda: job.lambda,
        seed: job.seed,
        steps: trained.steps,
        tokens: trained.tokens,
        seconds,
        decoder_multiplications: shape.as_ref().map_or(0, decoder_multiplications),
        host: trained.host,
        codec: shape,
        rate_weight: if job.entropy_model.is_some() { args.codec.rate_weight } else { 0.0 },
        float: args.codec.float,
        metrics: measured.metrics,
        last_word: measured.last_word,
        compressors: measured.compressors,
        without_codec: measured.without_codec,
        gap: measured.gap,
    }))
}

struct Measured {
    metrics: Metrics,
    last_word: Option<[f64; 2]>,
    compressors: BTreeMap<String, f64>,
    without_codec: BTreeMap<String, Metrics>,
    gap: Option<gap::Gap>,
}

fn measure(
    args: &SweepArgs,
    trained: &Trained,
    shape: Option<&codec::Config>,
    passages: &[Passage],
) -> Result<Measured, Error> {
    let threads = args.run.pace.threads;
    let host = Host::new(&trained.host, &trained.vars)?;
    let codec = match shape {
        Some(shape) => {
            Some(Codec::new(shape, args.codec.precision(), &trained.vars)?.with_rate_weight(args.codec.rate_weight))
        }
        None => None,
    };
    let link: &dyn Link = match &codec {
        Some(codec) => codec,
        None => &Rows::Half,
    };
    let model = &host.model;
    Ok(Measured {
        without_codec: without_codec(model, &trained.held, threads)?,
        metrics: if codec.is_some() { trained.metrics.clone() } else { evaluate(model, link, &trained.held, threads)? },
        last_word: if passages.is_empty() { None } else { Some(last_word::accuracy(model, link, passages, threads)?) },
        compressors: match &codec {
            Some(codec) => compressors(model, codec, &trained.held.ids, threads)?,
            None => BTreeMap::new(),
        },
        gap: match &codec {
            Some(codec) if args.gap => {
                // All of the text: more than an evaluation reads.
                let text = Held::load(&args.run.held.valid, &args.run.held.tokenizer()?, usize::MAX)?;
                Some(gap::measure(model, codec, &text.ids, Effort::default(), threads)?)
            }
            _ => None,
        },
    })
}
