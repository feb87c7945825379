//! `midspan fit`: a codec for a host whose weights do not change.

mod plot;
mod point;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use sha2::{Digest, Sha256};

use super::command::alone;
use super::files::print;
use super::measure::{Measure, sequences};
use super::results::{self, INTERRUPTED, KeepArgs};
use super::train::args::{CodecArgs, PaceArgs, PlaceArgs};
use crate::adapter::hex;
use crate::codec::{Codec, EncoderConfig};
use crate::host::llama::Llama;
use crate::host::llama_tokenizer::LlamaTokenizer;
use crate::host::split::SplitHost;
use crate::train::codec::entropy_model::{Kind, decoder_multiplications};
use crate::train::data::{Corpus, Held};
use crate::train::fit::Learner;
use crate::train::optim::Settings;
use crate::train::runner::stop_on_signals;
use crate::train::samples::samples;
use crate::train::trade::Trade;
use crate::train::{Error, checkpoint, context};
use point::Point;

/// Learn codecs for a host that does not change: steps, linear maps, h, g_y and densities, against the host's own
/// predictions. The host writes the text it is learned on itself.
#[derive(Clone, Debug, Args)]
pub struct FitArgs {
    /// The host: a llama2.c model file (legacy version).
    #[arg(long)]
    llama: PathBuf,
    /// Its tokenizer, as llama2.c writes it.
    #[arg(long)]
    tokenizer: PathBuf,
    /// Held-out text.
    #[arg(long)]
    valid: PathBuf,
    /// Bytes of held-out text that are measured.
    #[arg(long, default_value_t = 1 << 17)]
    valid_bytes: usize,
    /// Tokens that the host writes to learn from.
    #[arg(long, default_value_t = 1 << 20)]
    samples: usize,
    /// Keeps what the host wrote, in a file of this name and what tells one host, seed and number of tokens from others.
    #[arg(long)]
    cache: Option<PathBuf>,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    codec: CodecArgs,
    #[command(flatten)]
    keep: KeepArgs,
    /// Name of what all these runs have in common, for the results' names.
    #[arg(long, default_value = "fit")]
    recipe: String,
    /// Blocks before the split.
    #[arg(long, value_delimiter = ',', required = true)]
    split: Vec<usize>,
    /// Nats a bit.
    #[arg(long, value_delimiter = ',', required = true)]
    lambda: Vec<f64>,
    /// Seed of weights, samples and windows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder of the frozen models, one for each result and of its name; that of the results without it.
    #[arg(long)]
    models: Option<PathBuf>,
    /// Also draw how many tokens change over bits a token, of all results in the folder.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// Runs the command; prints a line for each result.
///
/// # Errors
/// One line that names what failed; the runs behind it are made first, and results stay.
pub fn run(args: &FitArgs) -> Result<()> {
    stop_on_signals();
    if args.codec.float {
        bail!("--float: what is fitted is frozen, and networks in float have no frozen form");
    }
    let bytes = std::fs::read(&args.llama).map_err(context(&args.llama))?;
    let load = |split| Llama::from_bytes(&bytes, split).map_err(|e| anyhow!("{}: {e}", args.llama.display()));
    let hosts = args.split.iter().map(|split| Ok((*split, load(*split)?))).collect::<Result<Vec<_>>>()?;
    let Some((_, host)) = hosts.first() else { bail!("no split") };
    let tokenizer = LlamaTokenizer::load(&args.tokenizer, host.vocab()).map_err(|line| anyhow!(line))?;
    let held = Held::load(&args.valid, args.valid_bytes, |text| Ok(tokenizer.encode(text)))?;
    let (host_sha256, held_sha256) = (hex(&Sha256::digest(&bytes)), digest(&held.ids));
    let mut runs = Vec::new();
    for (split, host) in &hosts {
        for &lambda in &args.lambda {
            let (host_sha256, held_sha256) = (&host_sha256[..], &held_sha256[..]);
            let run = Run { args, host, host_sha256, held_sha256, split: *split, lambda, held: &held };
            // What cannot be learned is refused before the host writes.
            run.learner(PathBuf::new())?.check()?;
            runs.push(run);
        }
    }
    let (mut corpus, mut failed) = (None, Vec::new());
    for run in &runs {
        let name = run.name();
        let point = match args.keep.load::<Point>(&name)? {
            Some(point) => run.check_made_alike(&point).map(|()| point),
            None => {
                let corpus = match &corpus {
                    Some(corpus) => corpus,
                    None => corpus.insert(written(args, host, &host_sha256, &tokenizer)?),
                };
                println!("{name}");
                match args.keep.keep(&name, |folder| run.make(corpus, folder)) {
                    Ok(made) => Ok(made.context(INTERRUPTED)?),
                    Err(error) => Err(error),
                }
            }
        };
        match point {
            Ok(point) => print(format_args!("{point}\n"))?,
            Err(error) => {
                println!("{name}: {error:#}");
                failed.push(format!("{name}: {error:#}"));
            }
        }
    }
    if let Some(path) = &args.plot {
        plot::changed(path, &results::load_all::<Point>(&args.keep.results)?)?;
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

/// SHA-256 of token ids as u32le.
fn digest(ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    hex(&Sha256::digest(&bytes))
}

/// What the host writes to learn from.
fn written(args: &FitArgs, host: &Llama, sha256: &str, tokenizer: &LlamaTokenizer) -> Result<Corpus, Error> {
    let name = |cache: &PathBuf| {
        let mut name = cache.clone().into_os_string();
        name.push(format!(".{}-{}-seed{}", &sha256[..12], args.samples, args.seed));
        PathBuf::from(name)
    };
    let cache = args.cache.as_ref().map(name);
    if let Some(path) = cache.as_ref().filter(|path| path.exists()) {
        let corpus = Corpus::read(path)?;
        if corpus.largest().is_none_or(|id| id as usize >= host.vocab()) {
            return Err(Error::new(format!("{}: not what this host wrote", path.display())));
        }
        return Ok(corpus);
    }
    println!("the host writes {} tokens", args.samples);
    let ids = samples(host, args.samples, host.context(), args.seed, args.pace.threads)?;
    // A look at it tells whether model and tokenizer belong together.
    println!("{:?} …", tokenizer.decode(&ids[..ids.len().min(40)]));
    let corpus = Corpus::from_ids(ids);
    if let Some(path) = &cache {
        corpus.write(path)?;
    }
    Ok(corpus)
}

/// One codec to be learned.
struct Run<'a> {
    args: &'a FitArgs,
    host: &'a Llama,
    host_sha256: &'a str,
    held_sha256: &'a str,
    split: usize,
    lambda: f64,
    held: &'a Held,
}

impl<'a> Run<'a> {
    /// The result's name.
    fn name(&self) -> String {
        format!("{}-split{}-lambda{}-seed{}", self.args.recipe, self.split, self.lambda, self.args.seed)
    }

    /// Where its frozen model stands.
    fn model(&self) -> PathBuf {
        let folder = self.args.models.as_ref().unwrap_or(&self.args.keep.results);
        folder.join(format!("{}.safetensors", self.name()))
    }

    /// Whose codec it is: the model file says so too.
    fn identity(&self) -> String {
        format!("sha256 {}, split behind {} of {} blocks", self.host_sha256, self.split, self.host.config().layers)
    }

    /// What learns it in a folder.
    fn learner(&self, folder: PathBuf) -> Result<Learner<'a>, Error> {
        let Self { args, host, .. } = *self;
        let place = PlaceArgs { out: folder, seed: args.seed };
        Ok(Learner {
            host,
            identity: self.identity(),
            shape: args.codec.shape((host.width(), host.context()), Kind::Proposed)?,
            rate_weight: args.codec.rate_weight,
            trade: Trade { lambda: self.lambda, ramp: args.codec.ramp },
            settings: Settings { factors: args.codec.factors(), ..args.pace.settings() },
            plan: args.pace.plan(&place, host.context()),
        })
    }

    /// Refuses a result that other options made, as the same name would stand for two things, or whose model is gone.
    fn check_made_alike(&self, point: &Point) -> Result<()> {
        let Self { args, .. } = *self;
        let own = (point.steps, point.samples, point.rate_weight, point.bfloat16, &point.codec);
        let codec = self.learner(PathBuf::new())?.shape;
        let asked = (args.pace.steps, args.samples, args.codec.rate_weight, args.pace.bfloat16(), &codec);
        if own != asked || (&point.host_sha256[..], &point.held_sha256[..]) != (self.host_sha256, self.held_sha256) {
            bail!("other options made this result ({}); give these runs a --recipe of their own", point.command);
        }
        if args.models.is_some() && !self.model().exists() {
            bail!(
                "the result stands, its model does not ({}): remove the result to learn it again",
                self.model().display()
            );
        }
        Ok(())
    }

    /// Learns and measures; none where a signal ended it.
    fn make(&self, corpus: &Corpus, folder: PathBuf) -> Result<Option<Point>> {
        let Self { args, host, .. } = *self;
        let clock = Instant::now();
        let learner = self.learner(folder)?;
        let Some(fitted) = learner.learn(corpus, self.held)? else { return Ok(None) };
        let seconds = clock.elapsed().as_secs_f64();
        let bytes = fitted.model.to_bytes_for(&self.identity());
        checkpoint::write_atomically(&self.model(), |f| f.write_all(&bytes))?;
        // One frame at a time, and each of the host's sequences as one chunk.
        let measure = Measure {
            host,
            codec: Arc::new(Codec::new(fitted.model)?),
            sequences: &sequences(host, &self.held.ids)?,
            one_context: false,
            batches: vec![1, host.context()],
            threads: args.pace.threads,
            rate_only: false,
        };
        let frozen = measure.run(&EncoderConfig::default())?;
        let line: Vec<String> = std::env::args().collect();
        let values = [("--split", self.split.to_string()), ("--lambda", self.lambda.to_string())];
        Ok(Some(Point {
            command: alone(&line, &values),
            recipe: args.recipe.clone(),
            host: args.llama.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            host_sha256: self.host_sha256.to_string(),
            blocks: host.config().layers,
            split: self.split,
            lambda: self.lambda,
            seed: args.seed,
            samples: args.samples,
            steps: args.pace.steps,
            tokens: fitted.tokens,
            seconds,
            decoder_multiplications: decoder_multiplications(&learner.shape),
            rate_weight: args.codec.rate_weight,
            bfloat16: args.pace.bfloat16(),
            held_sha256: self.held_sha256.to_string(),
            estimates: fitted.metrics,
            frozen,
            codec: learner.shape,
        }))
    }
}
