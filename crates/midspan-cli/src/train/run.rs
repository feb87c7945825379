//! A training run of the command line: its files, and what it shows.

use std::collections::BTreeMap;

use anyhow::Result;

use super::args::{FolderArgs, RunArgs, with_option};
use crate::files::keep_inputs;
use crate::terminal::note;
use crate::training::Training;
use midspan_host::gpt::Config;
use midspan_train::checkpoint;
use midspan_train::data::HeldOut;
use midspan_train::recipes::{self, Dial, Joint, Run};
use midspan_train::runner::{GOOD, LAST, LOG};

/// What a run learns.
pub enum Task<'a> {
    /// A host, with this shape for a vocabulary of a size if there is no checkpoint.
    Host(&'a dyn Fn(usize) -> Result<Config>),
    /// A codec, with or without training its host.
    Joint(Joint),
    /// The qualities of a codec.
    Dial(Dial),
}

/// A run that has ended.
pub struct Trained {
    /// What it learned.
    pub run: recipes::Trained,
    /// Held-out text.
    pub held_out: HeldOut,
    /// Whether it multiplied in bfloat16.
    pub bfloat16: bool,
}

/// Trains a host, alone or with a codec. Begins at the start, or resumes where an earlier call with the same `options`
/// ended.
///
/// # Errors
/// A file cannot be read or written, arguments do not fit, the checkpoint has another architecture or other options, or
/// training diverges.
pub fn train(
    args: &RunArgs,
    folder: &FolderArgs,
    task: Task<'_>,
    options: &BTreeMap<String, String>,
    watch: &Training,
) -> Result<Trained> {
    // The recipe checks it too, but only once the text has been read.
    if let Task::Joint(joint) = &task {
        joint.trade.check()?;
    }
    let outs = [LAST, GOOD, LOG].map(|name| folder.out.join(name));
    // A run may go on from its own checkpoint.
    keep_inputs(outs, [&args.text, &args.texts.valid, &args.texts.tokenizer])?;
    let settings = args.pace.settings()?;
    let bfloat16 = args.pace.bfloat16();
    note(&format!("bfloat16 products: {bfloat16}"));
    let tokenizer = args.texts.tokenizer()?;
    let (corpus, held_out) = args.data(&tokenizer)?;
    let from = args.from.as_deref().map(checkpoint::load).transpose()?;
    let vocab = tokenizer.vocab();
    let shape = match (&task, &from) {
        (Task::Host(shape), None) => Some(shape(vocab)?),
        // A checkpoint without a shape is refused by its recipe.
        (_, from) => from.as_ref().and_then(|(_, meta)| recipes::host_of(meta).ok()),
    };
    if let Some(shape) = shape {
        args.pace.check_passes(shape.context, shape.width.max(shape.vocab))?;
    }
    let run = Run {
        settings,
        from: from.as_ref(),
        keep_state: args.keep_state,
        options: options.clone(),
        ..Run::new(&corpus, &held_out, vocab, args.pace.plan(folder, 0))
    };
    let trained = match task {
        Task::Host(shape) => recipes::base(&run, &shape(vocab)?, watch),
        Task::Joint(joint) => recipes::joint(&run, &joint, watch),
        Task::Dial(dial) => recipes::dial(&run, &dial, watch),
    };
    Ok(Trained { run: trained.map_err(with_option)?, held_out, bfloat16 })
}
