//! The interface of every split host, whatever its blocks are: hidden states in the middle, logits at the end.

use candle_core::{Result, Tensor};

use super::gpt::Gpt;
use super::ops::linear;

/// A causal language model in two halves.
pub trait SplitHost: Send + Sync {
    /// Values of a hidden state at the split.
    fn width(&self) -> usize;

    /// The most positions of a sequence.
    fn context(&self) -> usize;

    /// Entries of the vocabulary.
    fn vocab(&self) -> usize;

    /// Token ids `[batch, T]` -> hidden states `[batch, T, width]`, T at most the context.
    ///
    /// # Errors
    /// When an id is not in the vocabulary or T is too long.
    fn head(&self, tokens: &Tensor) -> Result<Tensor>;

    /// Hidden states `[batch, T, width]` -> logits of the last `last` positions, `[batch, last, vocab]`.
    ///
    /// # Errors
    /// When the shape does not fit.
    fn tail(&self, hidden: &Tensor, last: usize) -> Result<Tensor>;
}

impl SplitHost for Gpt {
    fn width(&self) -> usize {
        self.config().width
    }

    fn context(&self) -> usize {
        self.config().context
    }

    fn vocab(&self) -> usize {
        self.config().vocab
    }

    fn head(&self, tokens: &Tensor) -> Result<Tensor> {
        self.forward_head(tokens, None)
    }

    fn tail(&self, hidden: &Tensor, last: usize) -> Result<Tensor> {
        let x = self.forward_tail_hidden(hidden, None)?;
        linear(&x.narrow(1, x.dim(1)? - last, last)?.contiguous()?, self.embedding())
    }
}
