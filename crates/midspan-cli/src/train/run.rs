//! A training run: from a start and data to a trained checkpoint.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use candle_core::{Tensor, Var};

use super::args::{CodecArgs, DialArgs, HostArgs, PlaceArgs, RunArgs, Variant};
use midspan_host::gpt::Config;
use midspan_host::ops::gemm::Reduced;
use midspan_train::base::{Host, fresh};
use midspan_train::codec::entropy_model::add_qualities;
use midspan_train::codec::network::Precision;
use midspan_train::codec::{self, Codec};
use midspan_train::data::{Corpus, Held};
use midspan_train::dial::Dial;
use midspan_train::joint::{Joint, add_codec};
use midspan_train::prune::narrow;
use midspan_train::rng::Rng;
use midspan_train::runner::{LAST, Metrics, Objective, Trainer};
use midspan_train::watch::Watch;
use midspan_train::{Error, checkpoint};

/// The host's shape in a checkpoint's text fields.
///
/// # Errors
/// The checkpoint has none.
pub fn config_of(meta: &BTreeMap<String, String>) -> Result<Config> {
    let json = meta.get("host").context("the checkpoint lacks the host's shape")?;
    Ok(serde_json::from_str(json).map_err(|error| Error::field("host", error))?)
}

/// The codec's shape in a checkpoint's text fields.
///
/// # Errors
/// The checkpoint has none.
pub fn shape_of(meta: &BTreeMap<String, String>) -> Result<codec::Config> {
    let json = meta.get("codec").context("the checkpoint has no codec networks")?;
    Ok(serde_json::from_str(json).map_err(|error| Error::field("codec", error))?)
}

fn to_json(key: &str, value: &impl serde::Serialize) -> Result<String> {
    Ok(serde_json::to_string(value).map_err(|error| Error::field(key, error))?)
}

/// Sets every variable that is also in `tensors`. Returns how many it set.
fn take(vars: &BTreeMap<String, Var>, tensors: &BTreeMap<String, Tensor>) -> Result<usize> {
    let mut taken = 0;
    for (name, var) in vars {
        if let Some(t) = tensors.get(name) {
            if t.dims() != var.dims() {
                let (found, wanted) = (t.dims().to_vec(), var.dims().to_vec());
                return Err(Error::Size { name: name.clone(), found, wanted }.into());
            }
            var.set(t)?;
            taken += 1;
        }
    }
    Ok(taken)
}

/// A run that has ended.
pub struct Trained {
    /// The host's shape.
    pub host: Config,
    /// The variables by name, as they are now.
    pub vars: BTreeMap<String, Var>,
    /// Held-out text.
    pub held: Held,
    /// The last evaluation.
    pub metrics: Metrics,
    /// Tokens predicted.
    pub tokens: u64,
    /// Steps taken: fewer than asked for if a signal ended the run.
    pub steps: u64,
    /// Whether it multiplied in bfloat16.
    pub bfloat16: bool,
}

/// What a run learns.
#[derive(Clone, Copy)]
pub enum Task<'a> {
    /// A host, with this shape if there is no checkpoint.
    Host(Option<&'a HostArgs>),
    /// A codec, with or without training its host.
    Joint(&'a CodecArgs, Variant),
    /// The qualities of a codec.
    Dial(&'a DialArgs),
}

/// The variables of a run, new or from a checkpoint, what it learns with them, and the text fields of its checkpoints.
struct Start {
    vars: BTreeMap<String, Var>,
    objective: Box<dyn Objective>,
    meta: BTreeMap<String, String>,
    factors: Vec<(String, f32)>,
}

/// The checkpoint field that says whether its codec computes in float, not as it will be frozen.
pub const FLOAT: &str = "float";

fn start(
    host: &Config,
    seed: u64,
    from: Option<&checkpoint::Loaded>,
    task: Task<'_>,
    corpus: &Corpus,
) -> Result<Start> {
    let mut rng = Rng::new(seed);
    let mut vars = fresh(host, &mut rng)?;
    if let Some((tensors, _)) = from
        && take(&vars, tensors)? != vars.len()
    {
        bail!("the checkpoint lacks weights of the host");
    }
    let model = Host::new(host, &vars)?;
    let mut meta = BTreeMap::from([("host".to_string(), to_json("host", host)?)]);
    let (args, variant) = match task {
        Task::Host(_) => return Ok(Start { vars, objective: Box::new(model), meta, factors: Vec::new() }),
        Task::Dial(args) => return start_dial(model, args, from, (vars, meta)),
        Task::Joint(args, variant) => (args, variant),
    };
    let shape = args.shape((host.width, host.context), variant.entropy_model)?;
    let batch = corpus.batch(16, host.context, &mut Rng::new(seed))?;
    add_codec(&shape, &model.model, &batch, &mut rng, &mut vars)?;
    if let Some((tensors, _)) = from {
        take(&vars, tensors)?;
    }
    meta.insert("codec".into(), to_json("codec", &shape)?);
    meta.insert("lambda".into(), variant.lambda.to_string());
    meta.insert("rate_weight".into(), args.rate_weight.to_string());
    meta.insert(FLOAT.into(), args.float.to_string());
    let codec = args.codec(&shape, &vars)?;
    let mut factors = vec![("host.".into(), if variant.freeze_host { 0.0 } else { 1.0 })];
    factors.extend(args.factors());
    let objective = Box::new(Joint::new(model, codec, args.trade(variant.lambda), !variant.freeze_host));
    Ok(Start { vars, objective, meta, factors })
}

/// Starts from the codec of a checkpoint, and adds the variables of its qualities.
fn start_dial(
    model: Host,
    args: &DialArgs,
    from: Option<&checkpoint::Loaded>,
    (mut vars, mut meta): (BTreeMap<String, Var>, BTreeMap<String, String>),
) -> Result<Start> {
    let Some((tensors, own)) = from else { bail!("qualities begin with a joint run: give --from") };
    let own = shape_of(own)?;
    let shape = args.shape(&own)?;
    let parts = ["h.", "g_y.", "density.", "quantiser.", "qualities."];
    let of_codec = |name: &String| parts.iter().any(|part| name.starts_with(part));
    let mut weights: BTreeMap<String, Tensor> =
        tensors.iter().filter(|(name, _)| of_codec(name)).map(|(name, t)| (name.clone(), t.clone())).collect();
    let mut g_y = checkpoint::part(&weights, "g_y.");
    narrow(&mut g_y, &own.g_y(), &shape.g_y())?;
    weights.extend(g_y.into_iter().map(|(name, t)| (format!("g_y.{name}"), t)));
    add_qualities(&shape, &mut weights)?;
    for (name, t) in weights {
        vars.insert(name, Var::from_tensor(&t)?);
    }
    meta.insert("codec".into(), to_json("codec", &shape)?);
    meta.insert(FLOAT.into(), args.float.to_string());
    let precision = if args.float { Precision::Float } else { Precision::AsFrozen };
    let codec = Codec::new(&shape, precision, &vars)?;
    let factors = vec![("host.".into(), 0.0), ("quantiser.".into(), 0.0)];
    Ok(Start { vars, objective: Box::new(Dial::new(model, codec, &args.share)?), meta, factors })
}

/// Trains a host, alone or with a codec. Begins at the start, or resumes where an earlier call with the same `options`
/// ended.
///
/// # Errors
/// A file cannot be read or written, arguments do not fit, the checkpoint has another architecture or other options, or
/// training diverges.
pub fn train(
    args: &RunArgs,
    place: &PlaceArgs,
    task: Task<'_>,
    options: &BTreeMap<String, String>,
    watch: &dyn Watch,
) -> Result<Trained> {
    if let Task::Joint(codec, variant) = task {
        codec.trade(variant.lambda).check()?;
    }
    let bfloat16 = args.pace.bfloat16();
    println!("bfloat16 products: {bfloat16}");
    let tokenizer = args.held.tokenizer()?;
    let (corpus, held) = args.data(&tokenizer)?;
    let last = place.out.join(LAST);
    let resumed = last.exists().then(|| checkpoint::load(&last)).transpose()?;
    let from = args.from.as_deref().map(checkpoint::load).transpose()?;
    let mut host = match (resumed.as_ref().or(from.as_ref()), task) {
        (Some((_, meta)), _) => config_of(meta)?,
        (None, Task::Host(Some(shape))) => shape.shape(tokenizer.vocab())?,
        (None, _) => bail!("a run with a codec begins with a host: give --from"),
    };
    if tokenizer.vocab() != host.vocab {
        let (own, other) = (tokenizer.vocab(), host.vocab);
        bail!("the tokenizer has {own} entries, the host's vocabulary {other}");
    }
    if let Task::Joint(_, Variant { split: Some(split), .. }) = task {
        if split == 0 || split >= host.layers {
            return Err(midspan_host::Error::Split { split, blocks: host.layers }.into());
        }
        host.split = split;
    }
    corpus.places(host.context)?;
    // The quantiser's initial steps are measured here. They are measured in the same arithmetic as in the runs that
    // made the existing results, so that those can be repeated.
    let reduced = Reduced::begin(bfloat16);
    let Start { vars, objective, mut meta, factors } = start(&host, place.seed, from.as_ref(), task, &corpus)?;
    drop(reduced);
    meta.extend(options.clone());
    if let Some((_, own)) = &resumed {
        let keys = ["host", "codec", FLOAT].into_iter().chain(options.keys().map(String::as_str));
        checkpoint::check_same("the run's checkpoint", own, &meta, keys)?;
    }
    let settings = midspan_train::optim::Settings { factors, ..args.pace.settings() };
    let mut trainer = Trainer::new(args.pace.plan(place, host.context), vars.clone(), settings, meta);
    match (&resumed, &from) {
        (Some(own), _) => trainer.resume(own)?,
        (None, Some(from)) if args.keep_state => trainer.inherit(from)?,
        _ => {}
    }
    let count: usize = vars.values().map(|v| v.elem_count()).sum();
    println!("{} tokens, {count} parameters, from step {}", corpus.len(), trainer.progress().step);
    let metrics = trainer.run(objective.as_ref(), &corpus, &held, watch)?;
    let progress = trainer.progress();
    Ok(Trained { host, vars, held, metrics, tokens: progress.tokens, steps: progress.step, bfloat16 })
}
