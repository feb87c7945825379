//! `midspan-research sweep`: makes many runs that each differ in one setting, keeps their results as files, and reports
//! on all of them.

mod curves;
mod plot;
mod point;
mod report;
mod run;

use anyhow::Result;
use clap::Subcommand;

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum SweepCommand {
    /// Train and measure every combination that has no result yet.
    Run(Box<run::SweepArgs>),
    /// Write tables and pictures of the results: rates, distortions, BD-rates, depth.
    Report(report::ReportArgs),
}

/// Runs a command.
///
/// # Errors
/// One line. Existing results are kept.
pub(crate) fn run(command: &SweepCommand) -> Result<()> {
    match command {
        SweepCommand::Run(args) => run::run(args),
        SweepCommand::Report(args) => report::run(args),
    }
}
