//! The `midspan` program.

use std::process::ExitCode;

use clap::Parser;
use midspan_cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        // SAFETY: no other thread runs yet. The models are small: the tensor library's threads cost more than they
        // give, and the trainer has threads of its own.
        unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
    }
    midspan_cli::program(|| midspan_cli::run(&Cli::parse()))
}
