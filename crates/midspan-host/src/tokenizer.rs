//! Byte-level BPE: converts text to token ids and back without loss.
//!
//! The vocabulary holds `<|endoftext|>` at id 0, the 256 bytes, and merges learned from a corpus. Text that looks like
//! a special token is encoded by its bytes.

use std::path::Path;

use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper};
use tokenizers::{PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl};

use super::files::read;
use super::{Error, Result};

/// Files of more than this many bytes are refused.
pub const FILE_MAX: u64 = 1 << 26;

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
    /// [`Error::Tokenizer`] if the library refuses the corpus or the vocabulary cannot be built.
    pub fn train<'a>(texts: impl Iterator<Item = &'a str> + Send, vocab: usize) -> Result<Self> {
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
        let failed = "no vocabulary can be learned";
        inner.train(&mut trainer, texts).map_err(Error::of_tokenizer(failed))?;
        // Converted through JSON, so that the type is the same as for a file.
        let json = inner.to_string(false).map_err(Error::of_tokenizer(failed))?;
        Self::from_json(json.as_bytes())
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if `json` is not the description of a tokenizer, [`Error::NotByteLevel`] if it describes
    /// another kind.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let mut inner: Inner = Inner::from_bytes(json).map_err(Error::of_tokenizer("no description of one"))?;
        if !matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return Err(Error::NotByteLevel);
        }
        // "<|endoftext|>" in a text is thirteen ordinary characters, not the end of the text.
        inner.set_encode_special_tokens(true);
        Ok(Self { inner })
    }

    /// Reads a `tokenizer.json` file.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be read; [`Error::In`] with the errors of [`Tokenizer::from_json`].
    pub fn load(path: &Path) -> Result<Self> {
        let json = read(path, FILE_MAX).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        Self::from_json(&json).map_err(|error| error.of_file(path))
    }

    /// The tokenizer as a `tokenizer.json`, with merges as lines "a b". This form is the shortest, and every version of
    /// the library reads it.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the library cannot describe the tokenizer.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let failed = "it cannot be described";
        let mut json = serde_json::to_value(&self.inner).map_err(Error::of_tokenizer(failed))?;
        let merges = json.pointer_mut("/model/merges").and_then(serde_json::Value::as_array_mut);
        for merge in merges.into_iter().flatten() {
            // The byte-level alphabet has no space, so the line is unambiguous.
            if let Some([first, second]) = merge.as_array().map(Vec::as_slice)
                && let (Some(first), Some(second)) = (first.as_str(), second.as_str())
            {
                *merge = format!("{first} {second}").into();
            }
        }
        serde_json::to_vec(&json).map_err(Error::of_tokenizer(failed))
    }

    /// Entries of the vocabulary, the special token included.
    pub fn vocab(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The ids of `text`; no special token is added, and none is recognised.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the library fails on `text`.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let e = self.inner.encode_fast(text, false).map_err(Error::of_tokenizer("a text cannot be encoded"))?;
        Ok(e.get_ids().to_vec())
    }

    /// The ids of a long text, encoded on two threads or more in pieces that end after a newline.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the library fails on a piece, [`Error::Panicked`] if a thread panics.
    pub fn encode_long(&self, text: &str, threads: usize) -> Result<Vec<u32>> {
        let pieces = pieces(text, 1 << 16);
        let per = pieces.len().div_ceil(threads.max(1)).max(1);
        let parts: Vec<Result<Vec<u32>>> = std::thread::scope(|s| {
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
            handles.into_iter().map(|h| h.join().unwrap_or_else(|_| Err(Error::Panicked))).collect()
        });
        let mut ids = Vec::with_capacity(text.len() / 3);
        for part in parts {
            ids.extend(part?);
        }
        Ok(ids)
    }

    /// Returns a decoder for ids that come one by one.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, waiting: Vec::new() }
    }

    /// The text of `ids`. Bytes that are not UTF-8 become replacement characters; unknown ids are left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut stream = self.stream();
        let mut text = stream.push(ids);
        text.push_str(&stream.finish());
        text
    }

    /// Appends the bytes of a token. Appends nothing for an unknown id.
    fn append_bytes(&self, id: u32, out: &mut Vec<u8>) {
        let Some(token) = self.inner.id_to_token(id) else { return };
        match token.chars().map(byte_of).collect::<Option<Vec<u8>>>() {
            Some(bytes) => out.extend(bytes),
            // A special token may have characters that do not stand for bytes.
            None => out.extend_from_slice(token.as_bytes()),
        }
    }
}

/// The byte that a character of the byte-level alphabet represents. Printable bytes of Latin-1 represent themselves;
/// the other 68 are represented by the characters from U+0100 on, in ascending order.
fn byte_of(c: char) -> Option<u8> {
    let byte = match u32::from(c) {
        own @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => own,
        low @ 0x100..=0x120 => low - 0x100,
        middle @ 0x121..=0x142 => middle - 0x121 + 0x7F,
        0x143 => 0xAD,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// Turns ids into text as soon as its characters are complete.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The first bytes of an incomplete character, 3 at most.
    waiting: Vec<u8>,
}

impl TextStream<'_> {
    /// Takes any number of ids and returns the text that they add. An incomplete character is kept until its other
    /// bytes come. Invalid bytes become replacement characters at once, without affecting the characters around them.
    pub fn push(&mut self, ids: &[u32]) -> String {
        for id in ids {
            self.tokenizer.append_bytes(*id, &mut self.waiting);
        }
        let mut text = String::new();
        let mut rest = &self.waiting[..];
        while !rest.is_empty() {
            let (valid, behind, bad) = match std::str::from_utf8(rest) {
                Ok(all) => (all, rest.len(), None),
                Err(error) => {
                    let behind = error.valid_up_to();
                    // These bytes are valid, so nothing is lost.
                    (std::str::from_utf8(&rest[..behind]).unwrap_or(""), behind, Some(error.error_len()))
                }
            };
            text.push_str(valid);
            rest = &rest[behind..];
            match bad {
                None => {}
                Some(Some(bytes)) => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[bytes..];
                }
                // The character is incomplete.
                Some(None) => break,
            }
        }
        self.waiting = rest.to_vec();
        text
    }

    /// Ends the text. Returns a replacement character if a character is incomplete.
    #[must_use]
    pub fn finish(self) -> String {
        if self.waiting.is_empty() { String::new() } else { char::REPLACEMENT_CHARACTER.into() }
    }
}

/// Cuts `text` into pieces of at least `size` bytes, each ending after a newline (except the last).
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
            assert_eq!(t.decode(&ids), text);
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
        let parts: Vec<String> = ids.iter().map(|id| stream.push(&[*id])).collect();
        assert_eq!(parts.concat(), text);
        assert!(parts.iter().any(String::is_empty) && parts.iter().all(|part| !part.contains('\u{FFFD}')));
        assert_eq!(stream.finish(), "");
    }

    /// A tokenizer with merges of "plain text alone", and its tokens for single bytes.
    fn bytewise() -> (Tokenizer, impl Fn(&[u8]) -> Vec<u32>) {
        let t = Tokenizer::train(std::iter::repeat_n("plain text alone", 4), 300).unwrap();
        let ids: Vec<u32> = (0..=255_u8)
            .map(|byte| {
                let mut bytes = Vec::new();
                let is_byte = |id: &u32| {
                    bytes.clear();
                    t.append_bytes(*id, &mut bytes);
                    bytes == [byte]
                };
                (0..t.vocab() as u32).find(is_byte).unwrap()
            })
            .collect();
        (t, move |bytes| bytes.iter().map(|byte| ids[usize::from(*byte)]).collect())
    }

    #[test]
    fn the_alphabet_is_the_librarys() {
        let (t, ids) = bytewise();
        assert_eq!(ByteLevel::alphabet().into_iter().filter_map(byte_of).count(), 256);
        for bytes in [(0..=255).collect::<Vec<u8>>(), "naïve…".as_bytes().to_vec()] {
            assert_eq!(t.decode(&ids(&bytes)), t.inner.decode(&ids(&bytes), false).unwrap());
        }
        assert_eq!(t.decode(&[Tokenizer::END_ID, 1_000_000]), Tokenizer::END);
    }

    #[test]
    fn several_ids_at_once_lose_no_character() {
        let (t, ids) = bytewise();
        let text = "naïve \u{1f600}";
        for cut in 0..text.len() {
            let mut stream = t.stream();
            let bytes = text.as_bytes();
            let parts = [stream.push(&ids(&bytes[..cut])), stream.push(&ids(&bytes[cut..])), stream.finish()];
            assert_eq!(parts.concat(), text, "cut at {cut}");
        }
    }

    #[test]
    fn a_stray_byte_leaves_the_next_character_whole() {
        let (t, ids) = bytewise();
        for stray in [&[0x9F][..], &[0xF0, 0x9F], &[0xFF, 0xC3]] {
            let mut stream = t.stream();
            let bytes = [stray, "—\u{1f600}".as_bytes()].concat();
            let text: String = ids(&bytes).iter().map(|id| stream.push(&[*id])).collect();
            assert_eq!(text, String::from_utf8_lossy(&bytes));
            assert!(text.ends_with("—\u{1f600}"), "{text:?}");
        }
    }

    #[test]
    fn invalid_bytes_that_never_end_are_given_out() {
        let (t, ids) = bytewise();
        let mut stream = t.stream();
        // The first byte of a character of four bytes. The next byte shows that it is invalid.
        let parts: Vec<String> = ids(&[0xF0; 5]).iter().map(|id| stream.push(&[*id])).collect();
        assert_eq!(parts, ["", "\u{FFFD}", "\u{FFFD}", "\u{FFFD}", "\u{FFFD}"]);
        assert_eq!(stream.finish(), "\u{FFFD}");
        let mut stream = t.stream();
        assert_eq!(stream.push(&ids(&[0x80; 1_000])).chars().count(), 1_000);
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn text_that_looks_like_a_special_token_is_text() {
        let (t, _) = bytewise();
        let text = "so <|endoftext|> it said";
        let ids = t.encode(text).unwrap();
        assert!(!ids.contains(&Tokenizer::END_ID), "{ids:?}");
        assert_eq!(t.decode(&ids), text);
        assert_eq!(t.encode_long(text, 2).unwrap(), ids);
    }

    #[test]
    fn another_decoder_is_refused() {
        let json = Tokenizer::train(std::iter::once(TEXT), 280).unwrap().to_json().unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        json["decoder"] = serde_json::Value::Null;
        assert!(Tokenizer::from_json(json.to_string().as_bytes()).is_err());
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
        assert_eq!(t.decode(&ids), text);
    }
}
