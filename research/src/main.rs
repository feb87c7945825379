//! The study: compares codecs on one host, and measures why deeper splits cost more.

#![warn(missing_docs, unreachable_pub)]

mod bd_rate;
mod gap;
mod sweep;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The study of Midspan's codecs.
#[derive(Debug, Parser)]
#[command(name = "midspan-research", version, about, arg_required_else_help = true)]
struct Research {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Train and measure codecs that each differ in one setting.
    #[command(subcommand)]
    Sweep(sweep::SweepCommand),
    /// Learn a tokenizer, a host, or a host together with its codec, as `midspan train` does.
    #[command(subcommand)]
    Train(Box<midspan_cli::train::TrainCommand>),
}

fn main() -> ExitCode {
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        // SAFETY: no other thread runs yet. The models are small, so the tensor library's threads cost more time than
        // they save, and the trainer has its own threads.
        unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
    }
    midspan_cli::program(|| match Research::parse().command {
        Command::Sweep(command) => sweep::run(&command),
        Command::Train(command) => midspan_cli::train::run(&command),
    })
}
