//! Byte-level BPE: lossless text to token ids and back.
//!
//! The vocabulary holds `<|endoftext|>` at id 0, the 256 bytes, and merges learned from a corpus.

use std::path::Path;

use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper};
use tokenizers::{PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl};

use super::files::read;

/// A file above this size is refused, bytes.
pub(super) const FILE_MAX: u64 = 1 << 26;

/// Any failure of the tokenizer library or of reading its file, as text.
#[derive(Debug)]
pub struct TokenizerError(String);

impl std::fmt::Display for TokenizerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tokenizer: {}", self.0)
    }
}

impl std::error::Error for TokenizerError {}

fn wrap(e: impl std::fmt::Display) -> TokenizerError {
    TokenizerError(e.to_string())
}

type Inner = TokenizerImpl<ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// A byte-level BPE tokenizer.
pub struct Tokenizer {
    inner: Inner,
}

impl Tokenizer {
    /// The one special token; its id is 0.
    pub const END: &'static str = "<|endoftext|>";
    /// The id of [`Tokenizer::END`].
    pub const END_ID: u32 = 0;

    /// Learns a vocabulary of `vocab` entries (at least 257) from `texts`.
    ///
    /// # Errors
    /// When the library refuses the corpus or the vocabulary cannot be built.
    pub fn train<'a>(texts: impl Iterator<Item = &'a str> + Send, vocab: usize) -> Result<Self, TokenizerError> {
        let mut trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(vocab)
            .min_frequency(2)
            .special_tokens(vec![AddedToken::from(Self::END, true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut inner: TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, ByteLevel, ByteLevel> =
            TokenizerImpl::new(BPE::default());
        let bytes = ByteLevel::new(false, false, true);
        inner.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
        inner.train(&mut trainer, texts).map_err(wrap)?;
        // Through JSON: the wrapped type is what a file yields too.
        let json = inner.to_string(false).map_err(wrap)?;
        Self::from_json(json.as_bytes())
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// When `json` is not a tokenizer's description.
    pub fn from_json(json: &[u8]) -> Result<Self, TokenizerError> {
        let inner: Inner = Inner::from_bytes(json).map_err(wrap)?;
        Ok(Self { inner })
    }

    /// Reads a `tokenizer.json` file.
    ///
    /// # Errors
    /// When the file cannot be read or is not a tokenizer's description.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let json = read(path, FILE_MAX).map_err(|e| wrap(format!("{}: {e}", path.display())))?;
        Self::from_json(&json)
    }

    /// The tokenizer as a `tokenizer.json`, its merges as lines "a b": the form that every version of the library reads,
    /// and the shortest.
    ///
    /// # Errors
    /// When the library cannot describe the tokenizer.
    pub fn to_json(&self) -> Result<Vec<u8>, TokenizerError> {
        let mut json = serde_json::to_value(&self.inner).map_err(wrap)?;
        let merges = json.pointer_mut("/model/merges").and_then(serde_json::Value::as_array_mut);
        for merge in merges.into_iter().flatten() {
            // No space is lost or gained: the byte-level alphabet has none.
            if let Some([first, second]) = merge.as_array().map(Vec::as_slice)
                && let (Some(first), Some(second)) = (first.as_str(), second.as_str())
            {
                *merge = format!("{first} {second}").into();
            }
        }
        serde_json::to_vec(&json).map_err(wrap)
    }

    /// Entries of the vocabulary, the special token included.
    pub fn vocab(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The ids of `text`; no special token is added.
    ///
    /// # Errors
    /// When the library fails on `text`.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let e = self.inner.encode_fast(text, false).map_err(wrap)?;
        Ok(e.get_ids().to_vec())
    }

    /// The ids of a long text, encoded in pieces that end after a newline, on two threads or more.
    ///
    /// # Errors
    /// When the library fails on a piece.
    pub fn encode_long(&self, text: &str, threads: usize) -> Result<Vec<u32>, TokenizerError> {
        let pieces = pieces(text, 1 << 16);
        let per = pieces.len().div_ceil(threads.max(1)).max(1);
        let parts: Vec<Result<Vec<u32>, TokenizerError>> = std::thread::scope(|s| {
            let handles: Vec<_> = pieces
                .chunks(per)
                .map(|part| {
                    s.spawn(move || {
                        let mut ids = Vec::new();
                        for piece in part {
                            ids.extend(self.encode(piece)?);
                        }
                        Ok(ids)
                    })
                })
                .collect();
            handles.into_iter().map(|h| h.join().unwrap_or_else(|_| Err(wrap("a thread panicked")))).collect()
        });
        let mut ids = Vec::with_capacity(text.len() / 3);
        for part in parts {
            ids.extend(part?);
        }
        Ok(ids)
    }

    /// The text of ids that come one by one.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, waiting: Vec::new() }
    }

    /// The text of `ids`. Bytes that are not UTF-8 become replacement characters.
    ///
    /// # Errors
    /// When the library fails on `ids`.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.inner.decode(ids, false).map_err(wrap)
    }
}

/// Ids in, text out, as soon as its characters are complete.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Ids whose text ends within a character.
    waiting: Vec<u32>,
}

impl TextStream<'_> {
    /// The text that `ids` add. An unfinished character waits; bytes that no character has become replacement
    /// characters.
    ///
    /// # Errors
    /// When the library fails on `ids`.
    pub fn push(&mut self, ids: &[u32]) -> Result<String, TokenizerError> {
        // A character has four bytes at most, and a token one at least.
        const UNFINISHED_MOST: usize = 3;
        self.waiting.extend_from_slice(ids);
        let text = self.tokenizer.decode(&self.waiting)?;
        if text.ends_with('\u{FFFD}') && self.waiting.len() <= UNFINISHED_MOST.max(ids.len()) {
            return Ok(String::new());
        }
        self.waiting.clear();
        Ok(text)
    }
}

/// Cuts `text` into pieces of at least `size` bytes, each ending after a newline (but the last).
pub fn pieces(text: &str, size: usize) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = text;
    while rest.len() > size {
        let cut = rest.as_bytes()[size..].iter().position(|&b| b == b'\n').map_or(rest.len(), |p| size + p + 1);
        let (head, tail) = rest.split_at(cut);
        out.push(head);
        rest = tail;
    }
    if !rest.is_empty() {
        out.push(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "It was the best of times,\n\n it was  the worst of times.\r\n\tSo — naïve…\n";

    #[test]
    fn round_trip_is_lossless() {
        let t = Tokenizer::train(std::iter::repeat_n(TEXT, 4), 300).unwrap();
        assert!((270..=300).contains(&t.vocab()));
        let json = t.to_json().unwrap();
        let read = Tokenizer::from_json(&json).unwrap();
        assert_eq!(read.to_json().unwrap(), json);
        assert!(String::from_utf8(json).unwrap().contains("\"Ġ t\""), "merges are lines");
        for text in [TEXT, "", "\n", "   x\n\n\n", "\u{1f600} unseen \u{0}\u{7f}"] {
            let ids = t.encode(text).unwrap();
            assert!(ids.iter().all(|&i| i != Tokenizer::END_ID));
            assert_eq!(t.decode(&ids).unwrap(), text);
            assert_eq!(read.encode(text).unwrap(), ids);
        }
        assert!(t.encode(TEXT).unwrap().len() < TEXT.len() / 2);
    }

    #[test]
    fn text_comes_when_its_characters_are_complete() {
        let t = Tokenizer::train(std::iter::repeat_n("plain text alone", 4), 300).unwrap();
        let text = "plain \u{1f600} — naïve";
        let ids = t.encode(text).unwrap();
        let mut stream = t.stream();
        let parts: Vec<String> = ids.iter().map(|id| stream.push(&[*id]).unwrap()).collect();
        assert_eq!(parts.concat(), text);
        assert!(parts.iter().any(String::is_empty) && parts.iter().all(|part| !part.contains('\u{FFFD}')));
        // Four bytes of which none begins a character that the next continues.
        let first_byte = t.encode("\u{1f600}").unwrap()[0];
        let parts: Vec<String> = (0..5).map(|_| stream.push(&[first_byte]).unwrap()).collect();
        assert_eq!(parts, ["", "", "", "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}", ""]);
    }

    #[test]
    fn pieces_join_to_the_text() {
        let text = TEXT.repeat(20);
        let p = pieces(&text, 100);
        assert!(p.len() > 5);
        assert_eq!(p.concat(), text);
        assert!(p[..p.len() - 1].iter().all(|s| s.ends_with('\n')));
        let t = Tokenizer::train(std::iter::once(TEXT), 280).unwrap();
        let ids = t.encode_long(&text, 2).unwrap();
        assert_eq!(t.decode(&ids).unwrap(), text);
    }
}
