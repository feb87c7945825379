//! The `midspan` program.

use std::process::ExitCode;

use clap::Parser;
use midspan_cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        // SAFETY: no other thread runs yet. The models are small, so the tensor library's threads cost more time than
        // they save, and the trainer has its own threads.
        unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
    }
    midspan_cli::program(|| midspan_cli::run(&Cli::parse()))
}
