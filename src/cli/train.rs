//! `midspan train`: learns a tokenizer, a host, or a host together with the codec networks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::gpt::{Config, Gpt};
use crate::host::ops::gemm;
use crate::host::tokenizer::{Tokenizer, pieces};
use crate::host::weights;
use crate::train::base::{Host, fresh};
use crate::train::codec::network::Precision;
use crate::train::codec::{self, Codec};
use crate::train::data::{Corpus, Held};
use crate::train::joint::{Joint, add_codec};
use crate::train::optim::Settings;
use crate::train::rng::Rng;
use crate::train::runner::{Objective, Plan, Trainer, stop_on_signals};
use crate::train::schedule::Schedule;
use crate::train::{Error, checkpoint};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use clap::{Args, Subcommand};

/// What to learn.
#[derive(Clone, Debug, Subcommand)]
pub enum TrainCommand {
    /// Learn a byte-level BPE vocabulary.
    Tokenizer {
        /// Text to learn from.
        #[arg(long)]
        text: PathBuf,
        /// Where to write the tokenizer.
        #[arg(long)]
        out: PathBuf,
        /// Entries of the vocabulary.
        #[arg(long, default_value_t = 4096)]
        vocab: usize,
    },
    /// Train the host alone (also the control of a joint run).
    Base {
        #[command(flatten)]
        run: RunArgs,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Train the host and the codec networks together, from a host's checkpoint (`--from`).
    Joint {
        #[command(flatten)]
        run: RunArgs,
        #[command(flatten)]
        codec: CodecArgs,
    },
    /// Write a checkpoint's weights alone, in bfloat16, for other runs to start from.
    Compact {
        /// Checkpoint to read.
        #[arg(long)]
        from: PathBuf,
        /// File to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Write a checkpoint's host as an int8 file, and measure what that costs.
    ExportHost {
        #[command(flatten)]
        text: TextArgs,
        /// Checkpoint to take the host from.
        #[arg(long)]
        from: PathBuf,
        /// File to write.
        #[arg(long)]
        out: PathBuf,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
}

/// The shape of a fresh host; a checkpoint brings its own.
#[derive(Clone, Debug, Args)]
pub struct HostArgs {
    /// Width of the hidden state.
    #[arg(long, default_value_t = Config::default().width)]
    width: usize,
    /// Blocks.
    #[arg(long, default_value_t = Config::default().layers)]
    layers: usize,
    /// Attention heads of a block.
    #[arg(long, default_value_t = Config::default().heads)]
    heads: usize,
    /// Blocks before the split.
    #[arg(long, default_value_t = Config::default().split)]
    split: usize,
    /// Tokens that attention looks back over.
    #[arg(long, default_value_t = Config::default().context)]
    context: usize,
}

impl HostArgs {
    fn shape(&self, vocab: usize) -> Result<Config, Error> {
        let &Self { width, layers, heads, split, context } = self;
        // Rotary positions turn pairs of a head's elements.
        if heads == 0 || !width.is_multiple_of(2 * heads) || split == 0 || split >= layers || context < 2 {
            return Err(Error::new(format!(
                "no host has width {width}, {heads} heads, a split behind {split} of {layers} blocks, context {context}"
            )));
        }
        Ok(Config { vocab, width, layers, heads, split, context })
    }
}

/// The codec's part of a joint run.
#[derive(Clone, Debug, Args)]
pub struct CodecArgs {
    /// Nats a bit.
    #[arg(long, default_value_t = 0.001)]
    lambda: f64,
    /// Squared quantiser steps that the encoder gives for a bit when it chooses Y; 0 takes the nearest integer.
    #[arg(long, default_value_t = 0.08)]
    rate_weight: f64,
    /// Steps over which lambda rises from 0.
    #[arg(long, default_value_t = 300)]
    ramp: u64,
    /// Factor of the learning rate of the codec's variables.
    #[arg(long, default_value_t = 1.0)]
    codec_rate: f32,
    /// Leave the host as it is.
    #[arg(long)]
    freeze_host: bool,
    /// Leave the quantiser's steps and offsets as they are.
    #[arg(long)]
    freeze_quantiser: bool,
    /// Compute h and g_y in float, not as they will be frozen: to measure what freezing costs against.
    #[arg(long)]
    float: bool,
    /// Widths of h, from the host's to its last block's.
    #[arg(long, value_delimiter = ',', default_values_t = codec::Config::default().analysis)]
    analysis: Vec<usize>,
    /// Widths of g_y, from the channels of W to its last block's.
    #[arg(long, value_delimiter = ',', default_values_t = codec::Config::default().synthesis)]
    synthesis: Vec<usize>,
}

impl CodecArgs {
    fn shape(&self, host: &Config) -> Result<codec::Config, Error> {
        let (analysis, synthesis) = (self.analysis.clone(), self.synthesis.clone());
        if analysis[0] != host.width {
            return Err(Error::new(format!("h begins at width {}, the host has {}", analysis[0], host.width)));
        }
        Ok(codec::Config { channels: synthesis[0], analysis, synthesis, ..codec::Config::default() })
    }
}

/// Held-out text.
#[derive(Clone, Debug, Args)]
pub struct TextArgs {
    /// Held-out text.
    #[arg(long)]
    valid: PathBuf,
    /// Bytes of held-out text that an evaluation reads.
    #[arg(long, default_value_t = 1 << 18)]
    valid_bytes: usize,
    /// Tokenizer file.
    #[arg(long)]
    tokenizer: PathBuf,
}

impl TextArgs {
    fn tokenizer(&self) -> Result<Tokenizer, Error> {
        Tokenizer::load(&self.tokenizer).map_err(|e| Error::new(e.to_string()))
    }

    fn held(&self, t: &Tokenizer) -> Result<Held, Error> {
        Held::load(&self.valid, t, self.valid_bytes)
    }
}

/// A run's data, length and rates.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Training text.
    #[arg(long)]
    text: PathBuf,
    #[command(flatten)]
    held: TextArgs,
    /// File that keeps the tokenised text.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Folder of checkpoint and log; an unfinished run there goes on.
    #[arg(long)]
    out: PathBuf,
    /// Checkpoint whose weights a fresh run begins with.
    #[arg(long)]
    from: Option<PathBuf>,
    /// Begin with that checkpoint's optimiser state too.
    #[arg(long)]
    keep_state: bool,
    /// Steps of the run.
    #[arg(long, default_value_t = 100_000)]
    steps: u64,
    /// Steps of learning-rate decay at the end.
    #[arg(long, default_value_t = 0)]
    decay: u64,
    /// Steps of learning-rate warm-up.
    #[arg(long, default_value_t = 150)]
    warmup: u64,
    /// Windows a step.
    #[arg(long, default_value_t = 32)]
    rows: usize,
    /// Windows a pass.
    #[arg(long, default_value_t = 4)]
    micro: usize,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Muon for the matrices of blocks, or AdamW for all.
    #[arg(long, default_value = "muon", value_parser = ["muon", "adamw"])]
    optimizer: String,
    /// Muon's learning rate.
    #[arg(long, default_value_t = 0.02)]
    muon_lr: f32,
    /// AdamW's learning rate.
    #[arg(long, default_value_t = 3e-3)]
    adam_lr: f32,
    /// Decoupled weight decay of matrices.
    #[arg(long, default_value_t = 0.01)]
    weight_decay: f32,
    /// Steps between evaluations.
    #[arg(long, default_value_t = 250)]
    eval_every: u64,
    /// Steps between log lines.
    #[arg(long, default_value_t = 25)]
    log_every: u64,
    /// Seconds between checkpoints.
    #[arg(long, default_value_t = 300)]
    save_seconds: u64,
    /// Seed of weights and windows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Products in f32 even where the CPU has a tile unit for bfloat16.
    #[arg(long)]
    f32: bool,
}

impl RunArgs {
    fn plan(&self, len: usize) -> Plan {
        Plan {
            out: self.out.clone(),
            schedule: Schedule { warmup: self.warmup, start: 0, total: self.steps, decay: self.decay },
            rows: self.rows,
            micro: self.micro,
            len,
            threads: self.threads,
            eval_every: self.eval_every,
            log_every: self.log_every,
            save_every: Duration::from_secs(self.save_seconds),
            seed: self.seed,
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            muon: self.optimizer == "muon",
            muon_lr: self.muon_lr,
            adam_lr: self.adam_lr,
            weight_decay: self.weight_decay,
            ..Settings::default()
        }
    }

    fn data(&self, t: &Tokenizer) -> Result<(Corpus, Held), Error> {
        let corpus = Corpus::load(&self.text, t, self.cache.as_deref())?;
        Ok((corpus, self.held.held(t)?))
    }
}

pub(super) fn config_of(meta: &BTreeMap<String, String>) -> Result<Config, Error> {
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
            var.set(t)?;
            taken += 1;
        }
    }
    Ok(taken)
}

fn train(args: &RunArgs, shape: Option<&HostArgs>, codec: Option<&CodecArgs>) -> Result<(), Error> {
    println!("bfloat16 products: {}", gemm::allow_bf16(!args.f32));
    let tokenizer = args.held.tokenizer()?;
    let (corpus, held) = args.data(&tokenizer)?;
    let last = args.out.join("last.safetensors");
    let resumed = last.exists().then(|| checkpoint::load(&last)).transpose()?;
    let from = args.from.as_deref().map(checkpoint::load).transpose()?;
    let cfg = match (resumed.as_ref().or(from.as_ref()), shape) {
        (Some((_, meta)), _) => config_of(meta)?,
        (None, Some(shape)) => shape.shape(tokenizer.vocab())?,
        (None, None) => return Err(Error::new("a joint run begins with a host: give --from")),
    };
    let mut rng = Rng::new(args.seed);
    let mut vars = fresh(&cfg, &mut rng)?;
    if let Some((tensors, _)) = &from
        && take(&vars, tensors)? != vars.len()
    {
        return Err(Error::new("the checkpoint lacks weights of the host"));
    }
    let host = Host::new(&cfg, &vars)?;
    let mut meta = BTreeMap::from([("host".to_string(), to_json(&cfg)?)]);
    let mut settings = args.settings();
    let objective: Box<dyn Objective> = match codec {
        None => Box::new(host),
        Some(codec) => {
            let shape = match resumed.as_ref().and_then(|(_, meta)| meta.get("codec")) {
                Some(json) => serde_json::from_str(json).map_err(|e| Error::new(e.to_string()))?,
                None => codec.shape(&cfg)?,
            };
            let batch = corpus.batch(16, cfg.context, &mut Rng::new(args.seed))?;
            add_codec(&shape, &host.model, &batch, &mut rng, &mut vars)?;
            if let Some((tensors, _)) = &from {
                take(&vars, tensors)?;
            }
            meta.insert("codec".into(), to_json(&shape)?);
            meta.insert("lambda".into(), codec.lambda.to_string());
            let precision = if codec.float { Precision::Float } else { Precision::AsFrozen };
            if !(codec.rate_weight >= 0.0 && codec.rate_weight.is_finite()) {
                return Err(Error::new("--rate-weight must be 0 or more"));
            }
            meta.insert("rate_weight".into(), codec.rate_weight.to_string());
            let model = Codec::new(&shape, precision, &vars)?.with_rate_weight(codec.rate_weight);
            let host_rate = if codec.freeze_host { 0.0 } else { 1.0 };
            let quantiser_rate = if codec.freeze_quantiser { 0.0 } else { codec.codec_rate };
            settings.factors = vec![
                ("host.".into(), host_rate),
                ("quantiser.".into(), quantiser_rate),
                (String::new(), codec.codec_rate),
            ];
            Box::new(Joint::new(host, model, codec.lambda, codec.ramp, !codec.freeze_host))
        }
    };
    let mut trainer = Trainer::new(args.plan(cfg.context), vars.clone(), settings, meta);
    match (&resumed, &from) {
        (Some(own), _) => trainer.resume(own)?,
        (None, Some(from)) if args.keep_state => trainer.inherit(from)?,
        _ => {}
    }
    let count: usize = vars.values().map(|v| v.elem_count()).sum();
    println!("{} tokens, {count} parameters, from step {}", corpus.len(), trainer.progress().step);
    trainer.run(objective.as_ref(), &corpus, &held)?;
    Ok(())
}

fn export_host(text: &TextArgs, from: &Path, out: &Path, threads: usize) -> Result<(), Error> {
    let held = text.held(&text.tokenizer()?)?;
    let (tensors, meta) = checkpoint::load(from)?;
    let cfg = config_of(&meta)?;
    let weights = checkpoint::part(&tensors, "host.");
    let bytes = weights::serialize(&cfg, &weights)?;
    let build = |w: BTreeMap<String, Tensor>| -> Result<Host, Error> {
        let vb = VarBuilder::from_tensors(w.into_iter().collect(), DType::F32, &Device::Cpu);
        Ok(Host { model: Gpt::new(cfg.clone(), vb)? })
    };
    let before = build(weights)?.evaluate(&held, threads)?;
    let after = build(weights::deserialize(&bytes, &Device::Cpu)?.1)?.evaluate(&held, threads)?;
    checkpoint::write_atomically(out, |f| f.write_all(&bytes))?;
    println!("{} bytes; bits per byte {:.5} in f32, {:.5} in int8", bytes.len(), before["bpb"], after["bpb"]);
    Ok(())
}

/// Runs a command.
///
/// # Errors
/// One line; what was saved before stays.
pub fn run(command: &TrainCommand) -> Result<(), Error> {
    stop_on_signals();
    match command {
        TrainCommand::Tokenizer { text, out, vocab } => {
            let all = std::fs::read_to_string(text).map_err(|e| Error::new(format!("{}: {e}", text.display())))?;
            let t =
                Tokenizer::train(pieces(&all, 1 << 16).into_iter(), *vocab).map_err(|e| Error::new(e.to_string()))?;
            let json = t.to_json().map_err(|e| Error::new(e.to_string()))?;
            checkpoint::write_atomically(out, |file| file.write_all(&json))
        }
        TrainCommand::Base { run, host } => train(run, Some(host), None),
        TrainCommand::Joint { run, codec } => train(run, None, Some(codec)),
        TrainCommand::Compact { from, out } => {
            let (tensors, meta) = checkpoint::compact(&checkpoint::load(from)?)?;
            checkpoint::save(out, &tensors, &meta)
        }
        TrainCommand::ExportHost { text, from, out, threads } => export_host(text, from, out, *threads),
    }
}
