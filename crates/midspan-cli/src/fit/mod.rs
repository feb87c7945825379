//! `midspan fit`: learns a codec for a host whose weights do not change.

mod plot;
mod point;
mod states;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args};
use sha2::{Digest, Sha256};

use super::command::repeating_command;
use super::files::{self, held_out, input_name, keep_inputs};
use super::measure::{Measure, Report, Tokens, sequences};
use super::results::{self, INTERRUPTED, KeepArgs};
use super::terminal::note;
use super::train::args::{CodecArgs, FolderArgs, PaceArgs, SIDE_AGES, with_option};
use super::training::Training;
use super::warning::Warning;
use midspan::adapter::hex;
use midspan::codec::{Codec, EncoderConfig};
use midspan::model::CodecModel;
use midspan::wire::{CheckWidth, Identity};
use midspan_host::llama::Llama;
use midspan_host::llama_tokenizer::LlamaTokenizer;
use midspan_host::split::SplitHost;
use midspan_train::calibrate::MapKind;
use midspan_train::codec::entropy_model::{Kind, decoder_multiplications};
use midspan_train::codec::{Config, side};
use midspan_train::data::{Corpus, HeldOut, cache_file};
use midspan_train::fit::{Learner, Start};
use midspan_train::recipes;
use midspan_train::samples::samples;
use midspan_train::{Error, FileFault, checkpoint, context};
use point::Point;

/// Learn codecs for a host that does not change: steps, linear maps, h, g_y and densities. The loss compares
/// predictions with the host's own, on text that the host itself writes; or codecs learn from captured hidden states
/// (--states).
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["states", "llama"])))]
pub(crate) struct FitArgs {
    /// The host: a llama2.c model file (legacy version).
    #[arg(long, requires_all = ["tokenizer", "valid", "split"])]
    llama: Option<PathBuf>,
    /// Its tokenizer, as llama2.c writes it.
    #[arg(long, requires = "llama", conflicts_with = "states")]
    tokenizer: Option<PathBuf>,
    /// Captured hidden states in place of a host: .safetensors files as `midspan calibrate --states` takes them. What is
    /// learned is the error as their sensitivity weighs it, and no divergence is measured. The last tenth is held out.
    #[arg(long, num_args = 1..)]
    states: Vec<PathBuf>,
    /// Held-out text; - for standard input.
    #[arg(long, requires = "llama", conflicts_with = "states")]
    valid: Option<PathBuf>,
    /// How many bytes of held-out text are measured.
    #[arg(long, default_value_t = 1 << 17, conflicts_with = "states")]
    valid_bytes: usize,
    /// How many tokens the host writes to learn from.
    #[arg(long, default_value_t = 1 << 20, conflicts_with = "states")]
    samples: usize,
    /// Keep what the host wrote in a file. Its name is this one and a suffix that identifies host, seed and number of
    /// tokens.
    #[arg(long, conflicts_with = "states")]
    cache: Option<PathBuf>,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    codec: CodecArgs,
    #[command(flatten)]
    keep: KeepArgs,
    /// What codecs begin with: new weights, or a calibration. A calibration has linear maps (--maps changes nothing then)
    /// and takes the tokens as side indices; it is kept if nothing better was learned from it.
    #[arg(long, value_enum, default_value = "calibration")]
    start: Start,
    /// The linear maps of the calibration. Default: full up to a width of 1,024, sparse above. Full maps are learned, with
    /// steps and offsets. Sparse ones and their quantiser stay as they are, and --quantiser-rate and --freeze-quantiser
    /// change nothing; a decoder needs at most 200 multiplications a channel for them.
    #[arg(long, value_enum)]
    map: Option<MapKind>,
    /// Name that the results of all these runs begin with.
    #[arg(long, default_value = "fit")]
    recipe: String,
    /// Blocks before the split.
    #[arg(long, value_name = "N,…", value_delimiter = ',', requires = "llama", conflicts_with = "states")]
    split: Vec<usize>,
    /// Weight of the rate in the loss, nats a bit.
    #[arg(long, value_name = "N,…", value_delimiter = ',', required = true)]
    lambda: Vec<f64>,
    /// Seed of weights, samples and windows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Measure the models of existing results again, without learning them again.
    #[arg(long, conflicts_with = "states")]
    measure_again: bool,
    /// Also draw how many predicted tokens change over bits a token, for all results of this host and text in the
    /// folder.
    #[arg(long, conflicts_with = "states")]
    plot: Option<PathBuf>,
}

/// The fewest tokens of held-out text, as many as a calibration takes in all.
const LEAST: usize = 20;
/// The most sums of side indices that such a fit has if nobody says how many.
const SUMS_MAX: usize = 96;

impl FitArgs {
    /// The name of a run's result. Runs from captured files have no split.
    fn name(&self, split: Option<usize>, lambda: f64) -> String {
        let from = split.map_or("states".into(), |split| format!("split{split}"));
        format!("{}-{from}-lambda{lambda}-seed{}", self.recipe, self.seed)
    }

    /// The names of all results.
    fn names(&self) -> Vec<String> {
        let splits = if self.llama.is_some() { self.split.iter().copied().map(Some).collect() } else { vec![None] };
        let of =
            |split: &Option<usize>| self.lambda.iter().map(|lambda| self.name(*split, *lambda)).collect::<Vec<_>>();
        splits.iter().flat_map(of).collect()
    }

    /// The codec's shape for hidden states of `width` values.
    fn shape(&self, width: usize) -> Config {
        let config = self.codec.config(Kind::Proposed);
        let ages = self.codec.side_ages.unwrap_or(SIDE_AGES);
        if self.start == Start::New || ages == 0 {
            return config;
        }
        // Two more than hidden states have values, and what heads need to share the width.
        let heads = config.heads.max(1);
        let least = config.channels + (width + 2).min(SUMS_MAX);
        let sums = self.codec.side_width.unwrap_or(least.next_multiple_of(heads) - config.channels);
        config.side(Some(side::Shape { ages, vocabulary: 1, width: sums }))
    }
}

/// Runs the command. Prints a line for each result; the result's frozen model is in the same folder.
///
/// # Errors
/// One line that names what failed, after the remaining runs are done; results are kept.
pub(crate) fn run(args: &FitArgs) -> Result<()> {
    if args.recipe.contains(std::path::is_separator) {
        bail!("--recipe: {:?} leads out of the folder", args.recipe);
    }
    files::no_standard("--states", &args.states)?;
    if args.codec.float {
        bail!("--float: what is fitted is frozen, and networks in float have no frozen form");
    }
    let asks_for_muon =
        [("--optimizer", args.pace.optimizer.as_deref() == Some("muon")), ("--muon-lr", args.pace.muon_lr.is_some())];
    if args.start == Start::Calibration
        && let Some((option, _)) = asks_for_muon.iter().find(|(_, asked)| *asked)
    {
        bail!("{option}: a fit that begins with a calibration takes adamw; --start new takes muon too");
    }
    if args.start == Start::New && args.map.is_some() {
        bail!("--map: a fit that begins with new weights has full maps (--maps) or none");
    }
    args.pace.settings()?;
    let inputs = args.states.iter().chain(&args.llama).chain(&args.tokenizer).chain(&args.valid);
    let outs = args.names().into_iter().flat_map(|name| args.keep.outputs(&name)).chain(args.plot.clone());
    keep_inputs(outs, inputs)?;
    let (Some(llama), Some(tokenizer), Some(valid)) = (&args.llama, &args.tokenizer, &args.valid) else {
        return states::run(args);
    };
    let training = Training::watch();
    let bytes = std::fs::read(llama).map_err(context(llama))?;
    let load = |split| Llama::from_bytes(&bytes, split).with_context(|| llama.display().to_string());
    let hosts = args.split.iter().map(|split| Ok((*split, load(*split)?))).collect::<Result<Vec<_>>>()?;
    let Some((_, host)) = hosts.first() else { bail!("no split") };
    let tokenizer = LlamaTokenizer::load(tokenizer, host.vocab())?;
    let held_out = held_out(valid, args.valid_bytes, |text| Ok(tokenizer.encode(text)))?;
    let tokens = held_out.ids.len();
    if tokens < LEAST {
        bail!("{}: {tokens} tokens: at least {LEAST} are needed", input_name(valid));
    }
    let host_sha256 = &hex(&Sha256::digest(&bytes))[..];
    let mut runs = Vec::new();
    for (split, host) in &hosts {
        for &lambda in &args.lambda {
            let run = Run { args, host, host_sha256, split: *split, lambda, held_out: &held_out };
            args.pace.check_passes(host.context(), host.width().max(host.vocab()))?;
            // Settings that cannot be learned are refused before the host writes.
            run.learner(PathBuf::new())?.check()?;
            runs.push(run);
        }
    }
    if args.cache.is_some() && host.vocab() > CACHED_MAX {
        bail!("--cache: it has two bytes a token, this host a vocabulary of {}", host.vocab());
    }
    let (mut corpus, mut failed) = (None, Vec::new());
    for run in &runs {
        let name = run.name();
        let point = match args.keep.load::<Point>(&name) {
            Err(error) => Err(error),
            Ok(Some(point)) => {
                if !args.measure_again {
                    note(&format!("{}: the result is there, nothing is learned", args.keep.file(&name).display()));
                }
                run.check_made_alike(&point).and_then(|model| run.measured_again(point, model))
            }
            Ok(None) => {
                let corpus = match &corpus {
                    Some(corpus) => corpus,
                    None => {
                        let written = written((args, &training), host, host_sha256, &tokenizer)?;
                        corpus.insert(written.context("interrupted; the same command begins to write again")?)
                    }
                };
                note(&name);
                match args.keep.keep(&name, |folder| run.make(corpus, folder, &training)) {
                    Ok(made) => Ok(made.context(INTERRUPTED)?),
                    Err(error) => Err(error),
                }
            }
        };
        match point {
            Ok(point) => note(&point.to_string()),
            Err(error) => {
                if runs.len() > 1 {
                    note(&format!("{name}: failed"));
                }
                failed.push(format!("{name}: {error:#}"));
            }
        }
    }
    if let Some(path) = &args.plot
        && let Err(error) = draw(args, path, runs.first())
    {
        failed.push(format!("{error:#}"));
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

/// The largest vocabulary whose ids take two bytes.
const CACHED_MAX: usize = 1 << 16;

/// Draws the results for the host and text of a run.
fn draw(args: &FitArgs, path: &Path, run: Option<&Run<'_>>) -> Result<()> {
    let Some(run) = run else { return Ok(()) };
    let held_out = hex(&run.held_out.digest());
    let mut points = results::load_all::<Point>(&args.keep.results)?;
    points.retain(|point| point.host_sha256 == run.host_sha256 && point.options.get(HELD_OUT) == Some(&held_out));
    if points.is_empty() { bail!("{}: no result to draw", path.display()) } else { plot::changed(path, &points) }
}

/// The text that the host writes to learn from. `None` if a signal ended it.
fn written(
    (args, training): (&FitArgs, &Training),
    host: &Llama,
    sha256: &str,
    tokenizer: &LlamaTokenizer,
) -> Result<Option<Corpus>, Error> {
    let source = format!("{}-{}-seed{}", &sha256[..12], args.samples, args.seed);
    let cache = args.cache.as_ref().map(|cache| cache_file(cache, &source));
    if let Some(path) = cache.as_ref().filter(|path| path.exists()) {
        let corpus = Corpus::read(path)?;
        if corpus.len() < args.samples || corpus.largest().is_none_or(|id| id as usize >= host.vocab()) {
            return Err(Error::file(path, FileFault::OfAnother("host")));
        }
        return Ok(Some(corpus));
    }
    note(&format!("the host writes {} tokens", args.samples));
    let size = (args.samples, host.context());
    let Some(ids) = samples(host, size, args.seed, args.pace.threads, training)? else { return Ok(None) };
    // The user can see from a sample whether model and tokenizer belong together.
    note(&format!("{:?} …", tokenizer.decode(&ids[..ids.len().min(40)])));
    let corpus = Corpus::from_ids(ids);
    if let Some(path) = &cache {
        corpus.write(path)?;
    }
    Ok(Some(corpus))
}

/// The option under which a result records the held-out text.
const HELD_OUT: &str = "held_out";

/// One codec to be learned.
struct Run<'a> {
    args: &'a FitArgs,
    host: &'a Llama,
    host_sha256: &'a str,
    split: usize,
    lambda: f64,
    held_out: &'a HeldOut,
}

impl<'a> Run<'a> {
    /// The result's name.
    fn name(&self) -> String {
        self.args.name(Some(self.split), self.lambda)
    }

    /// The path of its frozen model.
    fn model(&self) -> PathBuf {
        self.args.keep.results.join(format!("{}.safetensors", self.name()))
    }

    /// Which codec it is; the model file contains this too.
    fn identity(&self) -> String {
        format!("sha256 {}, split behind {} of {} blocks", self.host_sha256, self.split, self.host.config().layers)
    }

    /// The learner of this run, which works in `folder`.
    fn learner(&self, folder: PathBuf) -> Result<Learner<'a>> {
        let Self { args, host, .. } = *self;
        let run_folder = FolderArgs { out: folder, seed: args.seed };
        Ok(Learner {
            host,
            identity: self.identity(),
            shape: recipes::shape_for(args.shape(host.width()), host.width(), host.context(), host.vocab())?,
            start: args.start,
            map: args.map,
            rate_weight: args.codec.rate_weight,
            trade: args.codec.trade(self.lambda),
            settings: args.pace.settings()?.factors(args.codec.factors()),
            plan: args.pace.plan(&run_folder, host.context()),
        })
    }

    /// All options that determine the result.
    fn options(&self, learner: &Learner<'_>) -> BTreeMap<String, String> {
        let mut options = learner.options();
        options.insert("samples".into(), self.args.samples.to_string());
        options.insert(HELD_OUT.into(), hex(&self.held_out.digest()));
        options
    }

    /// Refuses a result that was made with other options, because one name would then mean two things, and a result
    /// whose model belongs to another result. Returns the model if there is one.
    fn check_made_alike(&self, point: &Point) -> Result<Option<CodecModel>> {
        let asked = self.options(&self.learner(PathBuf::new())?);
        let keys = asked.keys().map(String::as_str).filter(|key| self.args.pace.is_asked(key));
        checkpoint::check_same("the result", &point.options, &asked, keys)
            .map_err(with_option)
            .context("give these runs a --recipe of their own")?;
        let path = self.model();
        if !path.exists() {
            note(&format!("{}: gone; without the result, the same command learns it again", path.display()));
            return Ok(None);
        }
        let model = CodecModel::from_bytes(&std::fs::read(&path).map_err(context(&path))?, 1 << 30);
        let model = model.with_context(|| path.display().to_string())?;
        if hex(&model.fingerprint()) != point.fingerprint {
            bail!("{}: not the model of the result beside it", path.display());
        }
        Ok(Some(model))
    }

    /// The result as it is, or, if the user asks for it, with its model measured again.
    fn measured_again(&self, mut point: Point, model: Option<CodecModel>) -> Result<Point> {
        if self.args.measure_again {
            let Some(model) = model else { bail!("{}: gone, and cannot be measured", self.model().display()) };
            point.frozen = self.measure(model)?;
            results::save(&self.args.keep.file(&self.name()), &point)?;
        }
        Ok(point)
    }

    /// Measures the frozen codec from encoder to decoder: one frame at a time, and with each of the host's sequences as
    /// one chunk.
    fn measure(&self, model: CodecModel) -> Result<Report> {
        let measure = Measure {
            host: self.host,
            codec: Arc::new(Codec::new(model)?),
            sequences: &sequences(self.host, self.held_out)?,
            one_context: false,
            tokens: Tokens::Known,
            batches: vec![1, self.host.context()],
            threads: self.args.pace.threads,
            rate_only: false,
            warning: &RefCell::new(Warning::of(&self.name())),
        };
        // Rates are reported without checks.
        measure.run(&EncoderConfig::new(Identity::none()).check(CheckWidth::None))
    }

    /// Learns and measures. Returns `None` if a signal ended it.
    fn make(&self, corpus: &Corpus, folder: PathBuf, training: &Training) -> Result<Option<Point>> {
        let Self { args, host, .. } = *self;
        let clock = Instant::now();
        let learner = self.learner(folder)?;
        let Some(fitted) = learner.learn(corpus, self.held_out, training).map_err(with_option)? else {
            return Ok(None);
        };
        let seconds = clock.elapsed().as_secs_f64();
        let fingerprint = hex(&fitted.model.fingerprint());
        let options = self.options(&learner);
        let bytes = fitted.model.to_bytes_for(&self.identity());
        checkpoint::write_atomically(&self.model(), |f| f.write_all(&bytes))?;
        let frozen = self.measure(fitted.model)?;
        let values = [("--split", self.split.to_string()), ("--lambda", self.lambda.to_string())];
        Ok(Some(Point {
            command: repeating_command(&values),
            recipe: args.recipe.clone(),
            host: args.llama.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy()).collect(),
            host_sha256: self.host_sha256.to_string(),
            blocks: host.config().layers,
            split: self.split,
            lambda: self.lambda,
            seed: args.seed,
            options,
            tokens: fitted.tokens,
            seconds,
            decoder_multiplications: decoder_multiplications(&learner.shape),
            fingerprint,
            compared: fitted.compared,
            estimates: fitted.metrics,
            frozen,
        }))
    }
}
