//! What touches the outside: threads, text.

mod hex;
mod threads;

pub use hex::hex;
pub use threads::Threads;
