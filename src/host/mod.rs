//! A split language model and its tokenizer.
pub mod bundle;
mod files;
pub mod gpt;
pub mod llama;
pub mod llama_tokenizer;
pub mod ops;
pub mod split;
pub mod tokenizer;
pub mod weights;
