//! The `midspan` program's commands.

mod bench;
mod beside;
mod chart;
mod command;
mod compressors;
mod decode;
mod device;
mod encode;
mod eval;
pub mod files;
mod fit;
mod freeze;
mod generate;
mod inspect;
mod limits;
mod measure;
mod opening;
mod results;
mod rows;
mod selftest;
mod sweep;
mod tensor;
pub mod terminal;
mod train;
mod walk;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// A streaming codec for the hidden states between two halves of a transformer.
#[derive(Debug, Parser)]
#[command(name = "midspan", version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(generate::GenerateArgs),
    Encode(encode::EncodeArgs),
    Decode(decode::DecodeArgs),
    Inspect(inspect::InspectArgs),
    Verify(decode::VerifyArgs),
    /// Learn a tokenizer, a host, or a host together with its codec.
    #[command(subcommand)]
    Train(Box<train::TrainCommand>),
    /// Train and measure codecs that differ in one thing each.
    #[command(subcommand)]
    Sweep(sweep::SweepCommand),
    Fit(Box<fit::FitArgs>),
    Freeze(freeze::FreezeArgs),
    Eval(eval::EvalArgs),
    Bench(bench::BenchArgs),
    Selftest(selftest::SelftestArgs),
}

/// Runs the program with parsed arguments.
///
/// # Errors
/// One line for the user.
pub fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Generate(args) => generate::run(args),
        Command::Encode(args) => encode::run(args),
        Command::Decode(args) => decode::decode(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Verify(args) => decode::verify(args),
        Command::Train(command) => Ok(train::run(command)?),
        Command::Sweep(command) => sweep::run(command),
        Command::Fit(args) => fit::run(args),
        Command::Freeze(args) => freeze::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Selftest(args) => selftest::run(args),
    }
}
