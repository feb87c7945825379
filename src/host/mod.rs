//! A split language model and its tokenizer.
pub mod gpt;
pub mod ops;
pub mod tokenizer;
pub mod weights;
