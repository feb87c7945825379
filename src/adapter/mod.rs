//! Connections to the outside: threads, files, text.

mod hex;
mod host;
mod threads;

pub use hex::hex;
pub use host::host_digest;
pub use threads::Threads;
