//! A split language model and its tokenizer.
pub mod bundle;
pub mod gpt;
pub mod ops;
pub mod tokenizer;
pub mod weights;
