//! `midspan train`: trains a tokenizer, a host, or a host together with the codec networks.

pub mod args;
pub mod run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use clap::Subcommand;

use super::files::keep_inputs;
use super::terminal::note;
use super::training::Training;
use args::{CodecArgs, DialArgs, FolderArgs, HostArgs, QualityArgs, RunArgs, TextArgs, Variant};
use midspan_host::gpt::Gpt;
use midspan_host::tokenizer::{Tokenizer, pieces};
use midspan_host::weights;
use midspan_train::base::Host;
use midspan_train::checkpoint;
use midspan_train::codec::entropy_model::Kind;
use midspan_train::data::read_text;
use midspan_train::recipes::host_of;
use midspan_train::runner::Objective;
use run::{Task, train};

/// What to train.
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
        folder: FolderArgs,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Train the host and the codec networks together, from a host's checkpoint (`--from`).
    Joint {
        #[command(flatten)]
        run: RunArgs,
        #[command(flatten)]
        folder: FolderArgs,
        #[command(flatten)]
        codec: CodecArgs,
        #[command(flatten)]
        qualities: QualityArgs,
        /// The entropy model.
        #[arg(long, value_enum, default_value = "proposed")]
        entropy_model: Kind,
        /// Weight of the rate in the loss, nats a bit.
        #[arg(long, default_value_t = 0.001)]
        lambda: f64,
        /// Blocks before the split. Default: as in the host's checkpoint.
        #[arg(long)]
        split: Option<usize>,
        /// Do not train the host.
        #[arg(long)]
        freeze_host: bool,
    },
    /// Train qualities of a joint run's codec without changing its host and quantiser: networks that serve all
    /// qualities, and gains and densities of W for each.
    Dial {
        #[command(flatten)]
        run: RunArgs,
        #[command(flatten)]
        folder: FolderArgs,
        #[command(flatten)]
        dial: DialArgs,
    },
    /// Write only the weights of a checkpoint, in bfloat16, for other runs to start from.
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

fn export_host(text: &TextArgs, from: &Path, out: &Path, threads: usize) -> Result<()> {
    keep_inputs([out], [text.valid.as_path(), &text.tokenizer, from])?;
    let held_out = text.load(&text.tokenizer()?)?;
    let (tensors, meta) = checkpoint::load(from)?;
    let cfg = host_of(&meta)?;
    let weights = checkpoint::part(&tensors, "host.");
    let bytes = weights::serialize(&cfg, &weights)?;
    let build = |w: BTreeMap<String, Tensor>| -> Result<Host> {
        let vb = VarBuilder::from_tensors(w.into_iter().collect(), DType::F32, &Device::Cpu);
        Ok(Host { model: Gpt::new(cfg.clone(), vb)? })
    };
    let before = build(weights)?.evaluate(&held_out, threads)?;
    let after = build(weights::deserialize(&bytes, &Device::Cpu)?.1)?.evaluate(&held_out, threads)?;
    checkpoint::write_atomically(out, |f| f.write_all(&bytes))?;
    note(&format!("{} bytes; bits per byte {:.5} in f32, {:.5} in int8", bytes.len(), before["bpb"], after["bpb"]));
    Ok(())
}

/// Runs a command.
///
/// # Errors
/// One line. Files saved before the error are kept.
pub fn run(command: &TrainCommand) -> Result<()> {
    // A run may be resumed with other options: for longer, or with another λ.
    let none = BTreeMap::new();
    match command {
        TrainCommand::Tokenizer { text, out, vocab } => {
            keep_inputs([out], [text])?;
            let all = read_text(text)?;
            let json = Tokenizer::train(pieces(&all, 1 << 16).into_iter(), *vocab)?.to_json()?;
            Ok(checkpoint::write_atomically(out, |file| file.write_all(&json))?)
        }
        TrainCommand::Base { run, folder, host } => {
            train(run, folder, Task::Host(&|vocab| host.shape(vocab)), &none, &Training::watch()).map(|_| ())
        }
        TrainCommand::Joint { run, folder, codec, qualities, entropy_model, lambda, split, freeze_host } => {
            let (entropy_model, lambda, split, freeze_host) = (*entropy_model, *lambda, *split, *freeze_host);
            let variant = Variant { entropy_model, lambda, split, freeze_host };
            let joint = qualities.add_to(codec.joint(variant))?;
            train(run, folder, Task::Joint(joint), &none, &Training::watch()).map(|_| ())
        }
        TrainCommand::Dial { run, folder, dial } => {
            train(run, folder, Task::Dial(dial.dial()?), &none, &Training::watch()).map(|_| ())
        }
        TrainCommand::Compact { from, out } => {
            keep_inputs([out], [from])?;
            let (tensors, meta) = checkpoint::compact(&checkpoint::load(from)?)?;
            Ok(checkpoint::save(out, &tensors, &meta)?)
        }
        TrainCommand::ExportHost { text, from, out, threads } => export_host(text, from, out, *threads),
    }
}
