//! A split language model and its tokenizer.

#![warn(missing_docs, unreachable_pub)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
pub mod files;
pub mod gpt;
pub mod llama;
pub mod llama_tokenizer;
pub mod ops;
pub mod split;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tokenizer;
pub mod weights;

pub use error::{Error, Result};
