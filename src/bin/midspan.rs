//! The `midspan` program.

use std::process::ExitCode;

use clap::Parser;
use midspan::cli::files::OutputClosed;
use midspan::cli::{self, Cli};

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
            // One line, also where a library's message has more or another machine's has control characters.
            let causes: Vec<String> = error
                .chain()
                .filter_map(|cause| Some(cause.to_string().lines().next()?.replace(char::is_control, "?")))
                .collect();
            eprintln!("midspan: {}", causes.join(": "));
            ExitCode::FAILURE
        }
    }
}
