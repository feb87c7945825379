//! Tokenised corpora and random windows of them.

use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::rng::Rng;
use super::{Error, FileFault, context};
use midspan::adapter::hex;
use midspan_host::tokenizer::Tokenizer;

/// Token ids of a corpus in memory.
pub struct Corpus {
    ids: Vec<u32>,
}

/// The sequences of one step: `rows` windows of `len + 1` ids each, one after the other.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The ids, `rows * (len + 1)`.
    pub ids: Vec<u32>,
    /// Number of windows.
    pub rows: usize,
    /// Predicted positions in a window.
    pub len: usize,
}

impl Batch {
    /// The inputs, `rows * len`.
    pub fn inputs(&self) -> Vec<u32> {
        self.ids.chunks(self.len + 1).flat_map(|w| &w[..self.len]).copied().collect()
    }

    /// The ids to predict, `rows * len`.
    pub fn targets(&self) -> Vec<u32> {
        self.ids.chunks(self.len + 1).flat_map(|w| &w[1..]).copied().collect()
    }

    /// Cuts the batch into parts of `rows` windows (the last may have fewer).
    pub fn split(&self, rows: usize) -> Vec<Batch> {
        self.ids
            .chunks(rows.max(1) * (self.len + 1))
            .map(|ids| Batch { ids: ids.to_vec(), rows: ids.len() / (self.len + 1), len: self.len })
            .collect()
    }
}

impl Corpus {
    /// Tokenises the text at `text`, or reads the ids from `cache`'s file for that text and tokenizer if it exists.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read or written, [`Error::File`] if it holds no text, if the cache is not this
    /// tokenizer's or if an id exceeds its 16 bits, [`Error::Host`] if the tokenizer fails.
    pub fn load(text: &Path, tokenizer: &Tokenizer, cache: Option<&Path>) -> Result<Self, Error> {
        let all = read_text(text)?;
        let cache = match cache {
            Some(path) => {
                let source = Sha256::new().chain_update(tokenizer.to_json()?).chain_update(&all);
                Some(cache_file(path, &hex(&source.finalize())[..12]))
            }
            None => None,
        };
        if let Some(path) = cache.as_ref().filter(|path| path.exists()) {
            let corpus = Self::read(path)?;
            if corpus.largest().is_none_or(|id| id as usize >= tokenizer.vocab()) {
                return Err(Error::file(path, FileFault::OfAnother("tokenizer")));
            }
            return Ok(corpus);
        }
        let corpus = Self { ids: tokenizer.encode_long(&all, 2)? };
        if let Some(path) = &cache {
            corpus.write(path)?;
        }
        Ok(corpus)
    }

    /// Reads ids that [`Corpus::write`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::File`] if it ends within an id.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(context(path))?;
        if bytes.len() % 2 != 0 {
            return Err(Error::file(path, FileFault::HalfToken));
        }
        Ok(Self { ids: bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))).collect() })
    }

    /// Writes the ids, two bytes each.
    ///
    /// # Errors
    /// [`Error::File`] if an id exceeds 16 bits, [`Error::Io`] if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(2 * self.ids.len());
        for id in &self.ids {
            let short = u16::try_from(*id).map_err(|_| Error::file(path, FileFault::LargeToken(*id)))?;
            bytes.extend(short.to_le_bytes());
        }
        super::checkpoint::write_atomically(path, |f| f.write_all(&bytes))
    }

    /// The largest id; `None` for an empty corpus.
    pub fn largest(&self) -> Option<u32> {
        self.ids.iter().max().copied()
    }

    /// SHA-256 of the ids as u32le.
    pub fn digest(&self) -> [u8; 32] {
        digest(&self.ids)
    }

    /// A corpus of given ids.
    pub fn from_ids(ids: Vec<u32>) -> Self {
        Self { ids }
    }

    /// The ids.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// At how many places a window of `len + 1` ids can begin.
    ///
    /// # Errors
    /// [`Error::ShortCorpus`] if the corpus is shorter than one window.
    pub fn places(&self, len: usize) -> Result<usize, Error> {
        match self.ids.len().checked_sub(len) {
            Some(places) if places > 0 => Ok(places),
            _ => Err(Error::ShortCorpus { found: self.ids.len(), wanted: len + 1 }),
        }
    }

    /// `rows` windows of `len + 1` ids at random places.
    ///
    /// # Errors
    /// [`Error::ShortCorpus`] if the corpus is shorter than one window.
    pub fn batch(&self, rows: usize, len: usize, rng: &mut Rng) -> Result<Batch, Error> {
        let places = self.places(len)?;
        let mut ids = Vec::with_capacity(rows * (len + 1));
        for _ in 0..rows {
            let at = rng.below(places);
            ids.extend(&self.ids[at..at + len + 1]);
        }
        Ok(Batch { ids, rows, len })
    }
}

/// 64 bits drawn by ids and a step, so that neither the order of passes nor interruptions change what they decide.
pub(crate) fn draw(ids: &[u32], step: u64) -> u64 {
    let mix = |hash: u64, value: u64| (hash ^ value).wrapping_mul(0x0000_0100_0000_01b3);
    ids.iter().fold(mix(0xcbf2_9ce4_8422_2325, step), |hash, id| mix(hash, u64::from(*id)))
}

/// The first `bytes` bytes of a text, and what is left of the character there. No more is read.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub fn beginning(text: impl Read, bytes: usize) -> std::io::Result<String> {
    // The longest character has four bytes.
    let most = bytes.saturating_add(3);
    let mut all = Vec::new();
    text.take(most as u64).read_to_end(&mut all)?;
    if all.len() == most
        && let Err(error) = std::str::from_utf8(&all)
        && error.error_len().is_none()
    {
        all.truncate(error.valid_up_to());
    }
    utf8(all)
}

/// Bytes as a text.
fn utf8(bytes: Vec<u8>) -> std::io::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        std::io::Error::new(std::io::ErrorKind::InvalidData, format!("not valid UTF-8 at byte {at}"))
    })
}

/// The text of a file.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read or is not UTF-8, [`Error::File`] if it is empty.
pub fn read_text(path: &Path) -> Result<String, Error> {
    let text = std::fs::read(path).and_then(utf8).map_err(context(path))?;
    if text.is_empty() { Err(Error::file(path, FileFault::NoText)) } else { Ok(text) }
}

/// The file for cached tokens of one source: `path` with a suffix that distinguishes sources.
pub fn cache_file(path: &Path, source: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(format!(".{source}"));
    name.into()
}

/// SHA-256 of ids as u32le.
fn digest(ids: &[u32]) -> [u8; 32] {
    let mut digest = Sha256::new();
    ids.iter().for_each(|id| digest.update(id.to_le_bytes()));
    digest.finalize().into()
}

/// Held-out text: the ids of its first bytes, and the number of those bytes.
pub struct HeldOut {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Bytes of text that the ids encode.
    pub bytes: usize,
}

impl HeldOut {
    /// The first `bytes` bytes (cut back to a character boundary) of the text at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read or is not UTF-8, [`Error::File`] if it holds too little, and those of
    /// `encode`.
    pub fn load(
        path: &Path,
        bytes: usize,
        encode: impl FnOnce(&str) -> Result<Vec<u32>, Error>,
    ) -> Result<Self, Error> {
        let file = std::fs::File::open(path).map_err(context(path))?;
        let all = beginning(file, bytes).map_err(context(path))?;
        Self::from_text(&path.display().to_string(), &all, bytes, encode)
    }

    /// As [`HeldOut::load`], for a text that is called `name` in messages.
    ///
    /// # Errors
    /// [`Error::File`] if it is too short, and those of `encode`.
    pub fn from_text(
        name: &str,
        all: &str,
        bytes: usize,
        encode: impl FnOnce(&str) -> Result<Vec<u32>, Error>,
    ) -> Result<Self, Error> {
        let mut end = bytes.min(all.len());
        while !all.is_char_boundary(end) {
            end -= 1;
        }
        let ids = encode(&all[..end])?;
        if ids.len() < 2 {
            return Err(Error::file(Path::new(name), FileFault::LittleText));
        }
        Ok(Self { ids, bytes: end })
    }

    /// SHA-256 of the ids as u32le.
    pub fn digest(&self) -> [u8; 32] {
        digest(&self.ids)
    }

    /// Windows of at most `len + 1` ids that advance by `stride` positions. Each has the number of its last predictions
    /// that count. Every id except the first is counted exactly once, and all except the first `len` have at least `len
    /// - stride` ids before them in the window.
    pub fn windows(&self, len: usize, stride: usize) -> Vec<(&[u32], usize)> {
        let mut out = Vec::new();
        let (mut start, mut done) = (0, 0);
        while done + 1 < self.ids.len() {
            let end = (start + len).min(self.ids.len() - 1);
            out.push((&self.ids[start..=end], end - done));
            done = end;
            start += stride;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_count_every_prediction_once() {
        for n in [2usize, 5, 9, 10, 30, 33] {
            let held_out = HeldOut { ids: (0..n as u32).collect(), bytes: n };
            let mut seen = Vec::new();
            for (w, counted) in held_out.windows(8, 4) {
                assert!(w.len() <= 9 && counted < w.len());
                seen.extend_from_slice(&w[w.len() - counted..]);
            }
            assert_eq!(seen, (1..n as u32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn batches_are_windows_and_reproducible() {
        let c = Corpus::from_ids((0..100).collect());
        let mut rng = Rng::new(1);
        let b = c.batch(64, 9, &mut rng).unwrap();
        let again = c.batch(64, 9, &mut Rng::new(1)).unwrap();
        assert_eq!(b.ids, again.ids);
        for (x, y) in b.inputs().iter().zip(b.targets()) {
            assert_eq!(x + 1, y);
        }
        let parts = b.split(30);
        assert_eq!(parts.iter().map(|p| p.rows).collect::<Vec<_>>(), [30, 30, 4]);
        assert!(c.batch(1, 100, &mut rng).is_err());
        assert!(c.batch(1, 99, &mut rng).is_ok());
    }
}
