//! The `midspan` program.

use std::process::ExitCode;

use clap::Parser;
use midspan::cli::files::OutputClosed;
use midspan::cli::{self, Cli, terminal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        // SAFETY: no other thread runs yet. The models are small: the tensor library's threads cost more than they
        // give, and the trainer has threads of its own.
        unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
    }
    match cli::run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // As `head` and `less` do to every program.
        Err(error) if error.is::<OutputClosed>() => ExitCode::SUCCESS,
        Err(error) => {
            // One line, also where a library's message has more.
            let causes: Vec<String> = error.chain().map(|cause| terminal::line(&cause.to_string())).collect();
            let causes: Vec<&str> = causes.iter().map(String::as_str).filter(|cause| !cause.is_empty()).collect();
            terminal::say(&causes.join(": "));
            ExitCode::FAILURE
        }
    }
}
