//! Training and measuring the runs of a sweep.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use sha2::{Digest, Sha256};

use super::point::{Point, kind_name};
use crate::gap::{self, Effort};
use midspan::adapter::hex;
use midspan_cli::baselines::{compressors, without_codec};
use midspan_cli::command::repeating_command;
use midspan_cli::results::{INTERRUPTED, KeepArgs};
use midspan_cli::terminal::note;
use midspan_cli::train::args::{CodecArgs, FolderArgs, RunArgs, Variant};
use midspan_cli::train::run::{Task, Trained, train};
use midspan_cli::training::Training;
use midspan_host::gpt;
use midspan_train::base::Host;
use midspan_train::codec::entropy_model::{Kind, decoder_multiplications};
use midspan_train::measure::Link;
use midspan_train::measure::last_word::{self, Passage};
use midspan_train::measure::rows::Rows;
use midspan_train::recipes;
use midspan_train::runner::Plan;
use midspan_train::{checkpoint, codec};

/// Train and measure every combination of model, split, lambda and seed that has no result yet.
#[derive(Clone, Debug, Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    codec: CodecArgs,
    #[command(flatten)]
    keep: KeepArgs,
    /// Name that the results of all these runs begin with.
    #[arg(long, default_value = "paper")]
    recipe: String,
    /// Entropy models.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "proposed")]
    entropy_model: Vec<Kind>,
    /// Blocks before the split.
    #[arg(long, value_delimiter = ',', required_unless_present = "control")]
    split: Vec<usize>,
    /// Weight of the rate in the loss, nats a bit.
    #[arg(long, value_delimiter = ',', required_unless_present = "control")]
    lambda: Vec<f64>,
    /// Seeds.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    seed: Vec<u64>,
    /// Train the host alone instead, with the same steps but without a codec.
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
    /// `None` for the control.
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

    /// Refuses a result that was made with other options, because one name would then mean two things, and a result
    /// that lacks a measure.
    fn check_made_alike(&self, point: &Point, job: Job, material: &Material) -> Result<()> {
        let asked = self.options(job, material)?;
        // Old results do not record options; only their command says which they were.
        let is_compared = |key: &&str| !point.options.is_empty() && self.run.pace.is_asked(key);
        let keys = asked.keys().map(String::as_str).filter(is_compared);
        checkpoint::check_same("the result", &point.options, &asked, keys)
            .context("give these runs a --recipe of their own")?;
        let codec = job.variant.map(|variant| self.shape(variant, &material.host)).transpose()?;
        let asked = (self.run.pace.steps, codec.is_some() && self.codec.float, codec.as_ref());
        if asked != (point.steps, codec.is_some() && point.float, point.codec.as_ref())
            || codec.is_some() && self.codec.rate_weight != point.rate_weight
        {
            bail!("other options made this result ({}); give these runs a --recipe of their own", point.command);
        }
        for (option, missing) in [
            ("--gap", self.gap && codec.is_some() && point.gap.is_none()),
            ("--passages", self.passages.is_some() && point.last_word.is_none()),
        ] {
            if missing {
                bail!("measured without {option}; without this result, the same command makes it again");
            }
        }
        if let (Some(own), Some(asked)) = (point.options.get(PASSAGES), &material.passages_sha256)
            && own != asked
        {
            bail!("measured on other --passages; without this result, the same command makes it again");
        }
        Ok(())
    }

    /// The options that determine a run, in addition to the shapes of its host and codec.
    ///
    /// # Errors
    /// One line if the optimiser's options contradict each other.
    fn options(&self, job: Job, material: &Material) -> Result<BTreeMap<String, String>> {
        let plan = self.run.pace.plan(&FolderArgs { out: PathBuf::new(), seed: job.seed }, material.host.context);
        let Plan { schedule, rows, len, seed, bfloat16, .. } = &plan;
        let factors = if job.variant.is_some() { self.codec.factors() } else { Vec::new() };
        let mut fields = vec![
            ("schedule", format!("{schedule:?}")),
            ("windows", format!("{rows} of {len}")),
            ("optimizer", format!("{:?}", self.run.pace.settings()?.factors(factors))),
            ("keep_state", self.run.keep_state.to_string()),
            ("bfloat16", bfloat16.to_string()),
            ("seed", seed.to_string()),
        ];
        if let Some(Variant { lambda, freeze_host, .. }) = job.variant {
            fields.extend([
                ("lambda", lambda.to_string()),
                ("ramp", self.codec.ramp.to_string()),
                ("rate_weight", self.codec.rate_weight.to_string()),
                ("float", self.codec.float.to_string()),
                ("freeze_host", freeze_host.to_string()),
            ]);
        }
        let fields = fields.into_iter().map(|(name, value)| (name.to_string(), value));
        Ok(fields.chain(material.files.clone()).collect())
    }

    fn shape(&self, variant: Variant, host: &gpt::Config) -> Result<codec::Config> {
        Ok(recipes::shape_for(self.codec.config(variant.entropy_model), host.width, host.context, host.vocab)?)
    }

    /// Reads the files that all runs share.
    fn material(&self) -> Result<Material> {
        let RunArgs { text, texts: held_out, from, .. } = &self.run;
        let Some(from) = from else { bail!("a sweep begins with a host: give --from") };
        let digest = |path: &Path| -> Result<String> {
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            Ok(hex(&Sha256::digest(&bytes)))
        };
        let named = [("text", text), ("valid", &held_out.valid), ("tokenizer", &held_out.tokenizer), ("from", from)];
        let digests = named.into_iter().map(|(name, path)| Ok((name.to_string(), digest(path)?)));
        let mut files = digests.collect::<Result<BTreeMap<_, _>>>()?;
        files.insert("valid_bytes".into(), held_out.valid_bytes.to_string());
        let passages = match &self.passages {
            Some(path) => last_word::load(path, &held_out.tokenizer()?).context("--passages")?,
            None => Vec::new(),
        };
        let passages_sha256 = self.passages.as_deref().map(digest).transpose()?;
        Ok(Material { files, host: recipes::host_of(&checkpoint::load(from)?.1)?, passages, passages_sha256 })
    }
}

/// The data that all runs share.
struct Material {
    /// Digests of files by the option that names them, and the amount of held-out text that is read.
    files: BTreeMap<String, String>,
    /// The shape of the host that runs begin with.
    host: gpt::Config,
    passages: Vec<Passage>,
    passages_sha256: Option<String>,
}

/// The option under which a result records the passages that it was measured on.
const PASSAGES: &str = "passages";

impl Job {
    /// The command-line options that distinguish this run from the others.
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
/// One line that names what failed, after the remaining runs are done; results are kept.
pub(super) fn run(args: &SweepArgs) -> Result<()> {
    let training = Training::watch();
    let jobs = args.jobs();
    let material = args.material()?;
    let mut failed = Vec::new();
    for (i, &job) in jobs.iter().enumerate() {
        let name = job.name(&args.recipe);
        let found = args.keep.load::<Point>(&name).and_then(|point| {
            let Some(point) = point else { return Ok(false) };
            let file = || args.keep.file(&name).display().to_string();
            args.check_made_alike(&point, job, &material).with_context(file).map(|()| true)
        });
        match found {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                note(&format!("{error:#}"));
                failed.push(format!("{error:#}"));
                continue;
            }
        }
        note(&format!("{} of {}: {name}", i + 1, jobs.len()));
        match args.keep.keep(&name, |folder| make(args, job, folder, &material, &training)) {
            Ok(Some(point)) if job.variant.is_none() => note(&format!("{name}: loss {:.4}", point.loss())),
            Ok(Some(point)) => {
                note(&format!("{name}: {:.2} bits a token, loss {:.4}", point.bits(), point.loss()));
            }
            Ok(None) => bail!(INTERRUPTED),
            Err(error) => {
                note(&format!("{name}: failed"));
                failed.push(format!("{name}: {error:#}"));
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

/// Trains and measures one run. Returns `None` if a signal ended it.
fn make(
    args: &SweepArgs,
    job: Job,
    folder: PathBuf,
    material: &Material,
    training: &Training,
) -> Result<Option<Point>> {
    let clock = Instant::now();
    let folder = FolderArgs { out: folder, seed: job.seed };
    let mut options = args.options(job, material)?;
    // Every run begins with a checkpoint, which has a shape.
    let task = match job.variant {
        None => Task::Host(&|vocab| Ok(gpt::Config::default().vocab(vocab))),
        Some(variant) => Task::Joint(args.codec.joint(variant)),
    };
    let Trained { run: trained, held_out, bfloat16 } = train(&args.run, &folder, task, &options, training)?;
    // The passages do not affect training.
    options.extend(material.passages_sha256.iter().map(|digest| (PASSAGES.to_string(), digest.clone())));
    if trained.steps < args.run.pace.steps {
        return Ok(None);
    }
    let seconds = clock.elapsed().as_secs_f64();
    let (threads, held_out) = (args.run.pace.threads, &held_out);
    let host = Host::new(&trained.host, &trained.vars)?.model;
    let shape = job.variant.map(|variant| args.shape(variant, &trained.host)).transpose()?;
    let codec = shape.as_ref().map(|shape| args.codec.codec(shape, &trained.vars)).transpose()?;
    let link = codec.as_ref().map_or(&Rows::Half as &dyn Link, |codec| codec);
    Ok(Some(Point {
        command: repeating_command(&job.options()),
        recipe: args.recipe.clone(),
        entropy_model: job.variant.map(|variant| variant.entropy_model),
        lambda: job.variant.map_or(0.0, |variant| variant.lambda),
        seed: job.seed,
        options,
        steps: trained.steps,
        tokens: trained.tokens,
        seconds,
        decoder_multiplications: shape.as_ref().map_or(0, decoder_multiplications),
        rate_weight: if codec.is_some() { args.codec.rate_weight } else { 0.0 },
        float: args.codec.float,
        bfloat16: Some(bfloat16),
        last_word: match &material.passages[..] {
            [] => None,
            passages => Some(last_word::accuracy(&host, link, passages, threads)?),
        },
        compressors: match &codec {
            Some(codec) => compressors(&host, codec, &held_out.ids, threads)?,
            None => BTreeMap::new(),
        },
        without_codec: without_codec(&host, held_out, threads)?,
        gap: match &codec {
            Some(codec) if args.gap => {
                // The whole text, of which an evaluation reads only a part.
                let text = args.run.texts.load_bytes(&args.run.texts.tokenizer()?, usize::MAX)?;
                Some(gap::measure(&host, codec, &text.ids, Effort::default(), threads)?)
            }
            _ => None,
        },
        metrics: trained.metrics,
        host: trained.host,
        codec: shape,
    }))
}
