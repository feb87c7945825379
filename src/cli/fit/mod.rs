//! `midspan fit`: a codec for a host whose weights do not change.

mod frozen;
mod plot;
mod point;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use candle_core::Var;
use clap::Args;
use sha2::{Digest, Sha256};

use super::beside::{compressors, without_codec};
use super::command::alone;
use super::files::print;
use super::results::{self, INTERRUPTED, KeepArgs};
use super::train::args::{CodecArgs, PaceArgs, PlaceArgs};
use super::train::run::check_same;
use crate::adapter::hex;
use crate::host::llama::Llama;
use crate::host::llama_tokenizer::LlamaTokenizer;
use crate::host::split::SplitHost;
use crate::train::codec::entropy_model::{Kind, decoder_multiplications};
use crate::train::data::{Corpus, Held};
use crate::train::fit::{Fit, scale_steps};
use crate::train::joint::add_codec;
use crate::train::optim::Settings;
use crate::train::rng::Rng;
use crate::train::runner::{Trainer, stop_on_signals};
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
    /// Folder that gets the frozen model of every result that is made.
    #[arg(long)]
    models: Option<PathBuf>,
    /// Also draw agreement over bits a token, of all results in the folder.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// Runs the command; prints a line for each result.
///
/// # Errors
/// One line; results that stand stay.
pub fn run(args: &FitArgs) -> Result<()> {
    stop_on_signals();
    let bytes = std::fs::read(&args.llama).map_err(context(&args.llama))?;
    let load = |split| Llama::from_bytes(&bytes, split).map_err(|e| anyhow!("{}: {e}", args.llama.display()));
    let hosts = args.split.iter().map(|split| Ok((*split, load(*split)?))).collect::<Result<Vec<_>>>()?;
    let Some((_, host)) = hosts.first() else { bail!("no split") };
    let tokenizer = LlamaTokenizer::load(&args.tokenizer, host.vocab()).map_err(|line| anyhow!(line))?;
    let held = Held::load(&args.valid, args.valid_bytes, |text| Ok(tokenizer.encode(text)))?;
    let host_sha256 = hex(&Sha256::digest(&bytes));
    let mut corpus = None;
    for (split, host) in &hosts {
        for &lambda in &args.lambda {
            let name = format!("{}-split{split}-lambda{lambda}-seed{}", args.recipe, args.seed);
            let point = match args.keep.load(&name)? {
                Some(point) => point,
                None => {
                    let corpus = match &corpus {
                        Some(corpus) => corpus,
                        None => corpus.insert(written(args, host, &host_sha256, &tokenizer)?),
                    };
                    let run = Run { args, host, host_sha256: &host_sha256, split: *split, lambda, held: &held, corpus };
                    println!("{name}");
                    let made = args.keep.keep(&name, |folder| run.make(&name, folder))?;
                    made.context(INTERRUPTED)?
                }
            };
            print(format_args!("{}\n", Point::line(&point)))?;
        }
    }
    match &args.plot {
        Some(path) => plot::agreement(path, &results::load_all::<Point>(&args.keep.results)?),
        None => Ok(()),
    }
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
        if corpus.largest().is_none_or(|id| usize::from(id) >= host.vocab()) {
            return Err(Error::new(format!("{}: not what this host wrote", path.display())));
        }
        return Ok(corpus);
    }
    println!("the host writes {} tokens", args.samples);
    let ids = samples(host, args.samples, host.context(), args.seed, args.pace.threads)?;
    // A look at it tells whether model and tokenizer belong together.
    let first: Vec<u32> = ids.iter().take(40).map(|id| u32::from(*id)).collect();
    println!("{:?} …", tokenizer.decode(&first));
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
    split: usize,
    lambda: f64,
    held: &'a Held,
    corpus: &'a Corpus,
}

impl Run<'_> {
    /// Learns and measures; none where a signal ended it.
    fn make(&self, name: &str, folder: PathBuf) -> Result<Option<Point>> {
        let Self { args, host, .. } = *self;
        let clock = Instant::now();
        let shape = args.codec.shape((host.width(), host.context()), Kind::Proposed)?;
        let batch = self.corpus.batch(16, host.context(), &mut Rng::new(args.seed))?;
        let mut vars = BTreeMap::new();
        add_codec(&shape, host, &batch, &mut Rng::new(args.seed), &mut vars)?;
        let trade = Trade { lambda: self.lambda, ramp: args.codec.ramp };
        let fit = |vars: &BTreeMap<String, Var>| -> Result<Fit<'_>> {
            Ok(Fit::new(host, args.codec.codec(&shape, vars)?, trade))
        };
        scale_steps(&vars, fit(&vars)?.steps_factor(&batch)?)?;
        let fit = fit(&vars)?;
        let place = PlaceArgs { out: folder, seed: args.seed };
        let factors = vec![("quantiser.".into(), args.codec.quantiser_rate()), (String::new(), args.codec.codec_rate)];
        let settings = Settings { factors, ..args.pace.settings() };
        let meta = BTreeMap::from([("codec".to_string(), serde_json::to_string(&shape)?)]);
        let mut trainer = Trainer::new(args.pace.plan(&place, host.context()), vars.clone(), settings, meta.clone());
        let last = place.out.join("last.safetensors");
        if last.exists() {
            let resumed = checkpoint::load(&last)?;
            check_same(&resumed.1, &meta)?;
            trainer.resume(&resumed)?;
        }
        let metrics = trainer.run(&fit, self.corpus, self.held)?;
        if trainer.progress().step < args.pace.steps {
            return Ok(None);
        }
        // Networks in float have no frozen form.
        let frozen = if args.codec.float {
            None
        } else {
            let model = frozen::frozen(host, &shape, &vars, args.codec.rate_weight, &batch)?;
            if let Some(models) = &args.models {
                let bytes = model.to_bytes();
                checkpoint::write_atomically(&models.join(format!("{name}.safetensors")), |f| f.write_all(&bytes))?;
            }
            Some(frozen::measure(host, model, self.held, args.pace.threads)?)
        };
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
            steps: trainer.progress().step,
            tokens: trainer.progress().tokens,
            seconds: clock.elapsed().as_secs_f64(),
            decoder_multiplications: decoder_multiplications(&shape),
            rate_weight: args.codec.rate_weight,
            float: args.codec.float,
            bfloat16: Some(args.pace.bfloat16()),
            metrics,
            frozen,
            compressors: compressors(host, fit.codec(), &self.held.ids, args.pace.threads)?,
            without_codec: without_codec(host, self.held, args.pace.threads)?,
            codec: shape,
        }))
    }
}
