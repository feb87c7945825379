//! The `midspan` program's commands.

#![warn(unreachable_pub)]

pub mod baselines;
mod bench;
pub mod bundle;
mod calibrate;
pub mod chart;
pub mod command;
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
mod length_offset;
mod limits;
mod measure;
mod opening;
pub mod results;
mod rows;
mod selftest;
mod side;
mod tensor;
pub mod terminal;
pub mod train;
pub mod training;
mod walk;
mod warning;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use files::OutputClosed;

/// The error if a session did not keep the integers of its frames.
pub(crate) const KEEPS_INTEGERS: &str = "a session keeps integers unless it is told not to";

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
    Calibrate(calibrate::CalibrateArgs),
    Fit(Box<fit::FitArgs>),
    Freeze(freeze::FreezeArgs),
    LengthOffset(length_offset::LengthOffsetArgs),
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
        Command::Train(command) => train::run(command),
        Command::Calibrate(args) => calibrate::run(args),
        Command::Fit(args) => fit::run(args),
        Command::Freeze(args) => freeze::run(args),
        Command::LengthOffset(args) => length_offset::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Selftest(args) => selftest::run(args),
    }
}

/// Runs a program. If it fails, prints one line on standard error that says why. Returns the exit status.
pub fn program(run: impl FnOnce() -> Result<()>) -> ExitCode {
    // With a handler, a write to a file that may not grow fails, and the program says so. Without one the program ends.
    #[cfg(unix)]
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default());
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // This happens with `head` and `less`, and is not an error.
        Err(error) if error.is::<OutputClosed>() => ExitCode::SUCCESS,
        Err(error) => {
            // One line, even if a library's message has more.
            let causes: Vec<String> = error.chain().map(|cause| terminal::line(&cause.to_string())).collect();
            let causes: Vec<&str> = causes.iter().map(String::as_str).filter(|cause| !cause.is_empty()).collect();
            terminal::say(&causes.join(": "));
            ExitCode::FAILURE
        }
    }
}
