//! A run: from a start and data to a trained checkpoint.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};

use super::args::{CodecArgs, HostArgs, PlaceArgs, RunArgs, Variant};
use crate::host::gpt::Config;
use crate::host::ops::gemm;
use crate::train::base::{Host, fresh};
use crate::train::data::{Corpus, Held};
use crate::train::joint::{Joint, add_codec};
use crate::train::rng::Rng;
use crate::train::runner::{Metrics, Objective, Trainer};
use crate::train::trade::Trade;
use crate::train::{Error, checkpoint};

/// The host's shape in a checkpoint's text fields.
///
/// # Errors
/// A checkpoint without one.
pub fn config_of(meta: &BTreeMap<String, String>) -> Result<Config, Error> {
    let json = meta.get("host").ok_or_else(|| Error::new("the checkpoint lacks the host's shape"))?;
    serde_json::from_str(json).map_err(|e| Error::new(e.to_string()))
}

fn to_json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| Error::new(e.to_string()))
}

/// Sets every variable that `tensors` names too; returns how many.
fn take(vars: &BTreeMap<String, Var>, tensors: &BTreeMap<String, Tensor>) -> Result<usize, Error> {
    let mut taken = 0;
    for (name, var) in vars {
        if let Some(t) = tensors.get(name) {
            if t.dims() != var.dims() {
                let (own, asked) = (t.dims(), var.dims());
                return Err(Error::new(format!("{name} is {own:?} in the checkpoint, {asked:?} in this architecture")));
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
    /// Steps taken: fewer than asked for where a signal ended the run.
    pub steps: u64,
}

/// The codec's part of a run.
#[derive(Clone, Copy)]
pub struct CodecRun<'a> {
    /// Its arguments.
    pub args: &'a CodecArgs,
    /// What tells it from other runs.
    pub variant: Variant,
}

/// What a run learns, over fresh variables or those of `from`, and what stands in its checkpoints.
struct Start {
    vars: BTreeMap<String, Var>,
    objective: Box<dyn Objective>,
    meta: BTreeMap<String, String>,
    factors: Vec<(String, f32)>,
}

fn start(
    host: &Config,
    seed: u64,
    from: Option<&checkpoint::Loaded>,
    codec: Option<CodecRun<'_>>,
    corpus: &Corpus,
) -> Result<Start, Error> {
    let mut rng = Rng::new(seed);
    let mut vars = fresh(host, &mut rng)?;
    if let Some((tensors, _)) = from
        && take(&vars, tensors)? != vars.len()
    {
        return Err(Error::new("the checkpoint lacks weights of the host"));
    }
    let model = Host::new(host, &vars)?;
    let mut meta = BTreeMap::from([("host".to_string(), to_json(host)?)]);
    let Some(CodecRun { args, variant }) = codec else {
        return Ok(Start { vars, objective: Box::new(model), meta, factors: Vec::new() });
    };
    let shape = args.shape((host.width, host.context), variant.entropy_model)?;
    let batch = corpus.batch(16, host.context, &mut Rng::new(seed))?;
    add_codec(&shape, &model.model, &batch, &mut rng, &mut vars)?;
    if let Some((tensors, _)) = from {
        take(&vars, tensors)?;
    }
    meta.insert("codec".into(), to_json(&shape)?);
    meta.insert("lambda".into(), variant.lambda.to_string());
    meta.insert("rate_weight".into(), args.rate_weight.to_string());
    let codec = args.codec(&shape, &vars)?;
    let factors = vec![
        ("host.".into(), if variant.freeze_host { 0.0 } else { 1.0 }),
        ("quantiser.".into(), args.quantiser_rate()),
        (String::new(), args.codec_rate),
    ];
    let objective =
        Box::new(Joint::new(model, codec, Trade { lambda: variant.lambda, ramp: args.ramp }, !variant.freeze_host));
    Ok(Start { vars, objective, meta, factors })
}

/// Refuses to go on with the checkpoint of an unfinished run whose architecture is not the one asked for.
///
/// # Errors
/// One line with both.
pub fn check_same(own: &BTreeMap<String, String>, asked: &BTreeMap<String, String>) -> Result<(), Error> {
    for key in ["host", "codec"] {
        if own.get(key) != asked.get(key) {
            let text = |meta: &BTreeMap<String, String>| meta.get(key).map_or("none", String::as_str).to_string();
            let (own, asked) = (text(own), text(asked));
            return Err(Error::new(format!("the run's checkpoint has another {key}: {own}, asked for: {asked}")));
        }
    }
    Ok(())
}

/// Trains a host, alone or with a codec, from its start or from where an earlier call was ended.
///
/// # Errors
/// Files that cannot be read or written, arguments that do not fit, a checkpoint of another architecture, divergence.
pub fn train(
    args: &RunArgs,
    place: &PlaceArgs,
    shape: Option<&HostArgs>,
    codec: Option<CodecRun<'_>>,
) -> Result<Trained, Error> {
    println!("bfloat16 products: {}", gemm::allow_bf16(!args.pace.f32));
    let tokenizer = args.held.tokenizer()?;
    let (corpus, held) = args.data(&tokenizer)?;
    let last = place.out.join("last.safetensors");
    let resumed = last.exists().then(|| checkpoint::load(&last)).transpose()?;
    let from = args.from.as_deref().map(checkpoint::load).transpose()?;
    let mut host = match (resumed.as_ref().or(from.as_ref()), shape) {
        (Some((_, meta)), _) => config_of(meta)?,
        (None, Some(shape)) => shape.shape(tokenizer.vocab())?,
        (None, None) => return Err(Error::new("a joint run begins with a host: give --from")),
    };
    if let Some(split) = codec.and_then(|codec| codec.variant.split) {
        if split == 0 || split >= host.layers {
            return Err(Error::new(format!("a host of {} blocks has no split behind {split}", host.layers)));
        }
        host.split = split;
    }
    corpus.places(host.context)?;
    let Start { vars, objective, meta, factors } = start(&host, place.seed, from.as_ref(), codec, &corpus)?;
    if let Some((_, own)) = &resumed {
        check_same(own, &meta)?;
    }
    let settings = crate::train::optim::Settings { factors, ..args.pace.settings() };
    let mut trainer = Trainer::new(args.pace.plan(place, host.context), vars.clone(), settings, meta);
    match (&resumed, &from) {
        (Some(own), _) => trainer.resume(own)?,
        (None, Some(from)) if args.keep_state => trainer.inherit(from)?,
        _ => {}
    }
    let count: usize = vars.values().map(|v| v.elem_count()).sum();
    println!("{} tokens, {count} parameters, from step {}", corpus.len(), trainer.progress().step);
    let metrics = trainer.run(objective.as_ref(), &corpus, &held)?;
    let progress = trainer.progress();
    Ok(Trained { host, vars, held, metrics, tokens: progress.tokens, steps: progress.step })
}
