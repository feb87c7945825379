//! Whole training runs as single calls: from data, and perhaps a checkpoint, to a trained checkpoint.
//!
//! [`base`] trains a host alone, [`joint`] a host together with its codec, [`dial`] the qualities of a codec. A run keeps
//! its checkpoint and its log in the folder [`Plan::out`]. A call with a folder that has a checkpoint goes on where that
//! run ended.
//!
//! ```no_run
//! use midspan_host::gpt::Config;
//! use midspan_host::tokenizer::Tokenizer;
//! use midspan_train::data::{Corpus, HeldOut};
//! use midspan_train::recipes::{Joint, Run, base, joint};
//! use midspan_train::runner::{LAST, Plan};
//! use midspan_train::{Error, checkpoint};
//!
//! # fn main() -> Result<(), Error> {
//! let tokenizer = Tokenizer::load("tokenizer.json".as_ref())?;
//! let corpus = Corpus::load("train.txt".as_ref(), &tokenizer, None)?;
//! let held_out = HeldOut::load("valid.txt".as_ref(), 1 << 18, |text| Ok(tokenizer.encode_long(text, 2)?))?;
//!
//! let run = Run::new(&corpus, &held_out, tokenizer.vocab(), Plan::new("host".into(), 20_000, 0));
//! base(&run, &Config::default().vocab(tokenizer.vocab()), &())?;
//!
//! let host = checkpoint::load(&run.plan.out.join(LAST))?;
//! let run = Run { from: Some(&host), plan: Plan::new("joint".into(), 20_000, 0), ..run };
//! let trained = joint(&run, &Joint::default(), &())?;
//! println!("{} bits a token", trained.metrics["bits"]);
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};

use crate::base::{Host, fresh};
use crate::codec::entropy_model::{Kind, add_qualities};
use crate::codec::network::Precision;
use crate::codec::quality::{self, Quality};
use crate::codec::quantiser::Steps;
use crate::codec::side::{self, Dropout};
use crate::codec::{self, Codec};
use crate::data::{Corpus, HeldOut};
use crate::joint::add_codec;
use crate::optim::Settings;
use crate::prune::narrow;
use crate::rng::Rng;
use crate::runner::{LAST, Metrics, Objective, Plan, Trainer};
use crate::trade::Trade;
use crate::watch::Watch;
use crate::widen::widen_input;
use crate::{Error, checkpoint, dial as dialled, joint as joined};
use midspan::model::side::VOCABULARY_MAX;
use midspan_host::gpt::Config;
use midspan_host::ops::gemm::Reduced;

/// What every run needs.
#[derive(Clone)]
pub struct Run<'a> {
    /// Text to learn from.
    pub corpus: &'a Corpus,
    /// Held-out text.
    pub held_out: &'a HeldOut,
    /// Entries of the vocabulary of both.
    pub vocab: usize,
    /// Length, pace and place. The host's context replaces its `len`.
    pub plan: Plan,
    /// The optimiser's settings. The recipe replaces their `factors`.
    pub settings: Settings,
    /// Checkpoint whose weights a new run begins with.
    pub from: Option<&'a checkpoint::Loaded>,
    /// Whether a new run also begins with that checkpoint's optimiser state; false by default.
    pub keep_state: bool,
    /// Further text fields of the run's checkpoints. A run that goes on must have the same.
    pub options: BTreeMap<String, String>,
}

impl<'a> Run<'a> {
    /// A run from new weights, with the default optimiser and no further options.
    pub fn new(corpus: &'a Corpus, held_out: &'a HeldOut, vocab: usize, plan: Plan) -> Self {
        let (settings, options) = (Settings::default(), BTreeMap::new());
        Self { corpus, held_out, vocab, plan, settings, from: None, keep_state: false, options }
    }
}

/// How a host and a codec are trained together.
#[derive(Clone, Debug, PartialEq)]
pub struct Joint {
    /// The codec's shape. The host's context replaces its window, the host's vocabulary that of its side indices. With
    /// qualities, host and codec are trained in all of them.
    pub codec: codec::Config,
    /// How often each quality is drawn, relative to the sum of all shares; empty, the default, for equally often.
    pub shares: Vec<u64>,
    /// λ, nats a bit, and its ramp; 0.001 over 300 steps by default.
    pub trade: Trade,
    /// Weight of one bit when the encoder chooses Y, in squared quantiser steps (spec 6.8); 0.08 by default. Qualities
    /// have weights of their own.
    pub rate_weight: f64,
    /// Whether h and g_y compute in float, not as they will be frozen; false by default.
    pub float: bool,
    /// Blocks before the split; `None`, the default, for those of the host's checkpoint.
    pub split: Option<usize>,
    /// Whether the host stays as it is; false by default.
    pub freeze_host: bool,
    /// Factors of the learning rates of the codec's variables, by prefix of their names; the first that fits counts.
    pub factors: Vec<(String, f32)>,
}

impl Default for Joint {
    fn default() -> Self {
        Self {
            codec: codec::Config { steps: Steps::Channels, ..codec::Config::default() },
            shares: Vec::new(),
            trade: Trade { lambda: 0.001, ramp: 300 },
            rate_weight: 0.08,
            float: false,
            split: None,
            freeze_host: false,
            factors: Vec::new(),
        }
    }
}

/// The qualities to train for a codec. Its host and its quantiser stay as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dial {
    /// The qualities. A codec that has qualities keeps its own if this is empty, the default; otherwise it gets the steps
    /// and rate weights of so many here.
    pub qualities: Vec<Quality>,
    /// How often each quality is drawn, relative to the sum of all shares; empty for equally often.
    pub shares: Vec<u64>,
    /// Widths of g_y if they are to be narrower: the channels with the largest weights are kept.
    pub g_y_widths: Option<Vec<usize>>,
    /// What g_y shall take of side indices, for a codec that takes none; the host's vocabulary replaces this one. `None`,
    /// the default, leaves that as it is.
    pub side: Option<side::Shape>,
    /// The share of windows whose side indices are left out; 0 by default.
    pub dropout: Dropout,
    /// Whether h and g_y compute in float, not as they will be frozen.
    pub float: bool,
}

/// A run that has ended.
pub struct Trained {
    /// The host's shape.
    pub host: Config,
    /// The variables by name, as they are now.
    pub vars: BTreeMap<String, Var>,
    /// The last evaluation.
    pub metrics: Metrics,
    /// Tokens predicted.
    pub tokens: u64,
    /// Steps taken: fewer than asked for if the watch ended the run.
    pub steps: u64,
}

/// The text field of a checkpoint that says whether its codec computes in float, not as it will be frozen.
pub const FLOAT: &str = "float";

/// The host's shape in a checkpoint's text fields.
///
/// # Errors
/// [`Error::Lacks`], [`Error::Field`].
pub fn host_of(meta: &BTreeMap<String, String>) -> Result<Config, Error> {
    let json = meta.get("host").ok_or_else(|| Error::lacks("the checkpoint", "the host's shape"))?;
    serde_json::from_str(json).map_err(|error| Error::field("host", error))
}

/// The codec's shape in a checkpoint's text fields.
///
/// # Errors
/// [`Error::Lacks`], [`Error::Field`].
pub fn codec_of(meta: &BTreeMap<String, String>) -> Result<codec::Config, Error> {
    let json = meta.get("codec").ok_or_else(|| Error::lacks("the checkpoint", "codec networks"))?;
    serde_json::from_str(json).map_err(|error| Error::field("codec", error))
}

/// The codec with this shape and these variables, and this rate weight if the shape has no qualities of its own.
///
/// # Errors
/// [`Error::Setting`] for a rate weight that is negative or not finite, [`Error::Lacks`] for a variable that is missing.
pub fn codec(
    shape: &codec::Config,
    vars: &BTreeMap<String, Var>,
    float: bool,
    rate_weight: f64,
) -> Result<Codec, Error> {
    quality::check(&[Quality { rate_weight, ..Quality::default() }])?;
    let codec = Codec::new(shape, precision(float), vars)?;
    Ok(if shape.qualities.is_empty() { codec.with_rate_weight(rate_weight) } else { codec })
}

/// A codec's shape for a host with this width, context and vocabulary.
///
/// # Errors
/// [`Error::Setting`] if h does not begin at the host's width.
pub fn shape_for(codec: codec::Config, width: usize, context: usize, vocab: usize) -> Result<codec::Config, Error> {
    match codec.h_widths.first() {
        Some(first) if *first == width => {
            let side = codec.side.map(|side| side::Shape { vocabulary: vocab.min(VOCABULARY_MAX), ..side });
            Ok(codec::Config { window: context, side, ..codec })
        }
        first => {
            let found = first.map_or("none".to_string(), usize::to_string);
            Err(Error::setting("the first width of h", found, format!("the host's, {width}")))
        }
    }
}

/// Trains a host alone. `shape` is that of a new one; a checkpoint has its own.
///
/// # Errors
/// A file cannot be read or written, the checkpoint has another architecture or other options, or training diverges.
pub fn base(run: &Run<'_>, shape: &Config, watch: &dyn Watch) -> Result<Trained, Error> {
    train(run, Task::Host(shape), watch)
}

/// Trains a host and a codec together, from a host's checkpoint ([`Run::from`]).
///
/// # Errors
/// As [`base`]; [`Error::NoStart`] without a checkpoint to begin with; [`Error::Setting`] for a shape or a trade that
/// cannot be.
pub fn joint(run: &Run<'_>, joint: &Joint, watch: &dyn Watch) -> Result<Trained, Error> {
    joint.trade.check()?;
    train(run, Task::Joint(joint), watch)
}

/// Trains qualities of a codec, from the checkpoint of a joint run ([`Run::from`]): networks that serve all of them, and
/// gains and densities of W for each.
///
/// # Errors
/// As [`base`]; [`Error::NoStart`] without a checkpoint to begin with; [`Error::Setting`] for qualities that cannot be;
/// [`Error::Qualities`] if they are not those to train.
pub fn dial(run: &Run<'_>, dial: &Dial, watch: &dyn Watch) -> Result<Trained, Error> {
    train(run, Task::Dial(dial), watch)
}

#[derive(Clone, Copy)]
enum Task<'a> {
    Host(&'a Config),
    Joint(&'a Joint),
    Dial(&'a Dial),
}

/// The variables of a run, new or from a checkpoint, what it learns with them, and the text fields of its checkpoints.
struct Start {
    vars: BTreeMap<String, Var>,
    objective: Box<dyn Objective>,
    meta: BTreeMap<String, String>,
    factors: Vec<(String, f32)>,
}

fn precision(float: bool) -> Precision {
    if float { Precision::Float } else { Precision::AsFrozen }
}

fn to_json(key: &str, value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::field(key, error))
}

/// Sets every variable that is also in `tensors`. Returns how many it set.
fn set_vars(vars: &BTreeMap<String, Var>, tensors: &BTreeMap<String, Tensor>) -> Result<usize, Error> {
    let mut count = 0;
    for (name, var) in vars {
        if let Some(t) = tensors.get(name) {
            if t.dims() != var.dims() {
                let (found, wanted) = (t.dims().to_vec(), var.dims().to_vec());
                return Err(Error::Size { name: name.clone(), found, wanted });
            }
            var.set(t)?;
            count += 1;
        }
    }
    Ok(count)
}

fn start(host: &Config, run: &Run<'_>, task: Task<'_>) -> Result<Start, Error> {
    let seed = run.plan.seed;
    let mut rng = Rng::new(seed);
    let mut vars = fresh(host, &mut rng)?;
    if let Some((tensors, _)) = run.from
        && set_vars(&vars, tensors)? != vars.len()
    {
        return Err(Error::lacks("the checkpoint", "weights of the host"));
    }
    let model = Host::new(host, &vars)?;
    let mut meta = BTreeMap::from([("host".to_string(), to_json("host", host)?)]);
    let joint = match task {
        Task::Host(_) => return Ok(Start { vars, objective: Box::new(model), meta, factors: Vec::new() }),
        Task::Dial(dial) => return start_dial(model, dial, run.from, (vars, meta), &mut rng),
        Task::Joint(joint) => joint,
    };
    let shape = shape_for(joint.codec.clone(), host.width, host.context, host.vocab)?;
    quality::check(&shape.qualities)?;
    let batch = run.corpus.batch(16, host.context, &mut Rng::new(seed))?;
    add_codec(&shape, &model.model, &batch, &mut rng, &mut vars)?;
    if let Some((tensors, _)) = run.from {
        let mut tensors = tensors.clone();
        // Qualities that the checkpoint lacks begin as copies of its first one.
        if tensors.keys().any(|name| name.starts_with("h.")) {
            add_qualities(&shape, &mut tensors)?;
        }
        set_vars(&vars, &tensors)?;
    }
    meta.insert("codec".into(), to_json("codec", &shape)?);
    meta.insert("lambda".into(), joint.trade.lambda.to_string());
    meta.insert("rate_weight".into(), joint.rate_weight.to_string());
    meta.insert(FLOAT.into(), joint.float.to_string());
    let codec = codec(&shape, &vars, joint.float, joint.rate_weight)?;
    let mut factors = vec![("host.".into(), if joint.freeze_host { 0.0 } else { 1.0 })];
    factors.extend(joint.factors.iter().cloned());
    let objective = Box::new(joined::Joint::new(model, codec, joint.trade, !joint.freeze_host, &joint.shares)?);
    Ok(Start { vars, objective, meta, factors })
}

/// The shape of a dialled codec, given that of the checkpoint.
fn dialled_shape(dial: &Dial, own: &codec::Config, vocab: usize) -> Result<codec::Config, Error> {
    if own.entropy_model != Kind::Proposed {
        return Err(Error::NearestAlone { model: own.entropy_model.name() });
    }
    let side = match (own.side, dial.side) {
        (None, Some(side)) => Some(side::Shape { vocabulary: vocab.min(VOCABULARY_MAX), ..side }),
        (own, None) => own,
        (Some(_), Some(side)) => {
            return Err(Error::setting(
                "the ages of side indices",
                side.ages,
                "left out: the codec takes some already",
            ));
        }
    };
    side.map_or(Ok(()), side::Shape::check)?;
    if side.is_none() && dial.dropout != Dropout::default() {
        return Err(Error::setting(side::DROPOUT, dial.dropout.share(), "0: the codec takes none"));
    }
    quality::check(&dial.qualities)?;
    let qualities = match (own.qualities.len(), dial.qualities.len()) {
        (0, 1..) => dial.qualities.clone(),
        (1.., 0) => own.qualities.clone(),
        (own, asked) if own == asked && own > 0 => dial.qualities.clone(),
        _ => return Err(Error::Qualities { checkpoint: own.qualities.len(), asked: dial.qualities.len() }),
    };
    let g_y_widths = dial.g_y_widths.as_ref().unwrap_or(&own.g_y_widths).clone();
    Ok(codec::Config { qualities, g_y_widths, side, ..own.clone() })
}

/// Starts from the codec of a checkpoint, and adds the variables of its qualities.
fn start_dial(
    model: Host,
    dial: &Dial,
    from: Option<&checkpoint::Loaded>,
    (mut vars, mut meta): (BTreeMap<String, Var>, BTreeMap<String, String>),
    rng: &mut Rng,
) -> Result<Start, Error> {
    let (tensors, own) = from.ok_or(Error::NoStart("qualities begin with a joint run's checkpoint"))?;
    let own = codec_of(own)?;
    let shape = dialled_shape(dial, &own, model.model.config().vocab)?;
    let parts = ["h.", "g_y.", "side.", "density.", "quantiser.", "qualities."];
    let of_codec = |name: &String| parts.iter().any(|part| name.starts_with(part));
    let mut weights: BTreeMap<String, Tensor> =
        tensors.iter().filter(|(name, _)| of_codec(name)).map(|(name, t)| (name.clone(), t.clone())).collect();
    let mut g_y = checkpoint::part(&weights, "g_y.");
    let informed = codec::Config { side: shape.side, ..own.clone() };
    if let (None, Some(side)) = (own.side, shape.side) {
        widen_input(&mut g_y, &own.g_y(), &informed.g_y(), rng)?;
        weights.insert(side::EMBEDDING.into(), side.init(rng)?);
    }
    narrow(&mut g_y, &informed.g_y(), &shape.g_y())?;
    weights.extend(g_y.into_iter().map(|(name, t)| (format!("g_y.{name}"), t)));
    add_qualities(&shape, &mut weights)?;
    for (name, t) in weights {
        vars.insert(name, Var::from_tensor(&t)?);
    }
    meta.insert("codec".into(), to_json("codec", &shape)?);
    meta.insert(FLOAT.into(), dial.float.to_string());
    let codec = Codec::new(&shape, precision(dial.float), &vars)?;
    let factors = vec![("host.".into(), 0.0), ("quantiser.".into(), 0.0)];
    Ok(Start {
        vars,
        objective: Box::new(dialled::Dial::new(model, codec, &dial.shares)?.with_dropout(dial.dropout)),
        meta,
        factors,
    })
}

fn train(run: &Run<'_>, task: Task<'_>, watch: &dyn Watch) -> Result<Trained, Error> {
    let last = run.plan.out.join(LAST);
    let resumed = last.exists().then(|| checkpoint::load(&last)).transpose()?;
    let mut host = match (resumed.as_ref().or(run.from), task) {
        (Some((_, meta)), _) => host_of(meta)?,
        (None, Task::Host(shape)) => shape.clone(),
        (None, _) => return Err(Error::NoStart("a run with a codec begins with a host's checkpoint")),
    };
    if run.vocab != host.vocab {
        return Err(Error::Vocabulary { tokenizer: run.vocab, host: host.vocab });
    }
    if let Task::Joint(Joint { split: Some(split), .. }) = task {
        if *split == 0 || *split >= host.layers {
            return Err(midspan_host::Error::Split { split: *split, blocks: host.layers }.into());
        }
        host.split = *split;
    }
    run.corpus.places(host.context)?;
    // The quantiser's initial steps are measured here. They are measured in the same arithmetic as in the runs that
    // made the existing results, so that those can be repeated.
    let reduced = Reduced::begin(run.plan.bfloat16);
    let Start { vars, objective, mut meta, factors } = start(&host, run, task)?;
    drop(reduced);
    meta.extend(run.options.clone());
    if let Some((_, own)) = &resumed {
        let keys = ["host", "codec", FLOAT].into_iter().chain(run.options.keys().map(String::as_str));
        checkpoint::check_same("the run's checkpoint", own, &meta, keys)?;
    }
    let settings = Settings { factors, ..run.settings.clone() };
    let plan = Plan { len: host.context, ..run.plan.clone() };
    let mut trainer = Trainer::new(plan, vars.clone(), settings, meta);
    match (&resumed, run.from) {
        (Some(own), _) => trainer.resume(own)?,
        (None, Some(from)) if run.keep_state => trainer.inherit(from)?,
        _ => {}
    }
    let parameters = vars.values().map(|v| v.elem_count()).sum();
    watch.opened(run.corpus.len(), parameters, trainer.progress().step);
    let metrics = trainer.run(objective.as_ref(), run.corpus, run.held_out, watch)?;
    let progress = trainer.progress();
    Ok(Trained { host, vars, metrics, tokens: progress.tokens, steps: progress.step })
}
