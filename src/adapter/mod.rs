//! What touches the outside: threads, text.

pub mod hex;
mod threads;

pub use threads::Threads;
