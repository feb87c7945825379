//! The tokenizer that comes with a llama2.c model: pieces with scores, merged with the best score first.

use std::collections::{BinaryHeap, HashMap};
use std::path::Path;

use byteorder::{ByteOrder, LittleEndian};

use super::files::read;
use super::{Error, Result};

/// The token that begins a sequence.
pub const BEGIN: u32 = 1;
/// The first of the 256 tokens for single bytes.
const BYTES: u32 = 3;
/// Files of more than this many bytes are refused.
const FILE_MAX: u64 = 1 << 28;
/// The longest piece that is accepted, in bytes.
const PIECE_MAX: usize = 1 << 10;

/// Pieces by token, and tokens by piece.
#[derive(Clone, Debug)]
pub struct LlamaTokenizer {
    pieces: Vec<Vec<u8>>,
    scores: Vec<f32>,
    tokens: HashMap<Vec<u8>, u32>,
}

/// A pair of neighbours that may merge.
#[derive(Debug, PartialEq)]
struct Candidate {
    score: f32,
    /// Place of the left neighbour.
    left: usize,
    right: usize,
    /// The tokens of both, to check that they have not changed since.
    pair: (u32, u32),
    merged: u32,
}

impl Eq for Candidate {}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The best score comes first; for equal scores, the leftmost.
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl LlamaTokenizer {
    /// Reads a file for a vocabulary of `vocab` tokens.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be read; [`Error::In`] with the errors of [`LlamaTokenizer::from_bytes`].
    pub fn load(path: &Path, vocab: usize) -> Result<Self> {
        let bytes = read(path, FILE_MAX).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        Self::from_bytes(&bytes, vocab).map_err(|error| error.of_file(path))
    }

    /// [`LlamaTokenizer::load`] from bytes: i32 length of the longest piece, then f32 score, i32 length and bytes of
    /// each piece.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::PieceLength`], [`Error::NoByteTokens`] or [`Error::ManyPieces`] if the bytes are
    /// not such a file, or one for another vocabulary.
    pub fn from_bytes(bytes: &[u8], vocab: usize) -> Result<Self> {
        let ends = || Error::Truncated { within: "pieces" };
        let mut rest = bytes.get(4..).ok_or_else(ends)?;
        let mut out = Self { pieces: Vec::new(), scores: Vec::new(), tokens: HashMap::new() };
        for token in 0..vocab {
            let (head, behind) = rest.split_at_checked(8).ok_or_else(ends)?;
            let found = LittleEndian::read_i32(&head[4..]);
            let len = usize::try_from(found).ok().filter(|len| *len <= PIECE_MAX);
            let len = len.ok_or(Error::PieceLength { token, found, most: PIECE_MAX })?;
            let (piece, behind) = behind.split_at_checked(len).ok_or_else(ends)?;
            out.scores.push(LittleEndian::read_f32(head));
            out.tokens.entry(piece.to_vec()).or_insert(token as u32);
            out.pieces.push(piece.to_vec());
            rest = behind;
        }
        if out.pieces.len() < BYTES as usize + 256 {
            return Err(Error::NoByteTokens { vocab });
        }
        if rest.is_empty() { Ok(out) } else { Err(Error::ManyPieces { vocab }) }
    }

    fn merged(&self, left: u32, right: u32) -> Option<u32> {
        let piece = [&self.pieces[left as usize][..], &self.pieces[right as usize]].concat();
        self.tokens.get(&piece).copied()
    }

    /// Tokens of a text, with [`BEGIN`] as the first. As with all Llama tokenizers, a space is put before the text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens: Vec<u32> = Vec::with_capacity(text.len() + 1);
        let mut buffer = [0; 4];
        for c in (!text.is_empty()).then_some(' ').into_iter().chain(text.chars()) {
            let piece = c.encode_utf8(&mut buffer).as_bytes();
            match self.tokens.get(piece) {
                Some(token) => tokens.push(*token),
                None => tokens.extend(piece.iter().map(|byte| BYTES + u32::from(*byte))),
            }
        }
        // A linked list of places: each knows the previous and the next one. A merge removes the right place.
        let count = tokens.len();
        let mut next: Vec<usize> = (1..=count).collect();
        let mut before: Vec<usize> = (0..count).map(|at| at.wrapping_sub(1)).collect();
        let mut alive = vec![true; count];
        let mut heap = BinaryHeap::new();
        let offer = |heap: &mut BinaryHeap<Candidate>, tokens: &[u32], left: usize, right: usize| {
            let pair = (tokens[left], tokens[right]);
            if let Some(merged) = self.merged(pair.0, pair.1) {
                heap.push(Candidate { score: self.scores[merged as usize], left, right, pair, merged });
            }
        };
        for left in 0..count.saturating_sub(1) {
            offer(&mut heap, &tokens, left, left + 1);
        }
        while let Some(Candidate { left, right, pair, merged, .. }) = heap.pop() {
            if !alive[left] || !alive[right] || next[left] != right || pair != (tokens[left], tokens[right]) {
                continue;
            }
            tokens[left] = merged;
            alive[right] = false;
            next[left] = next[right];
            if next[left] < count {
                before[next[left]] = left;
                offer(&mut heap, &tokens, left, next[left]);
            }
            if before[left] < count {
                offer(&mut heap, &tokens, before[left], left);
            }
        }
        let kept = tokens.iter().zip(&alive).filter(|(_, alive)| **alive).map(|(token, _)| *token);
        std::iter::once(BEGIN).chain(kept).collect()
    }

    /// The text of tokens. Invalid UTF-8 and unknown tokens become replacement characters.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut out = Vec::new();
        let mut first = true;
        for &token in tokens {
            if token <= 2 {
                // The tokens unknown, begin and end. After them a new sequence begins, which drops its leading space.
                first = true;
                continue;
            }
            if (BYTES..BYTES + 256).contains(&token) {
                out.push((token - BYTES) as u8);
            } else {
                let piece = self.pieces.get(token as usize).map_or("\u{FFFD}".as_bytes(), Vec::as_slice);
                out.extend(if first { piece.strip_prefix(b" ").unwrap_or(piece) } else { piece });
            }
            first = false;
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pieces: &[(&str, f32)]) -> (Vec<u8>, usize) {
        let mut all: Vec<(String, f32)> = vec![("<unk>".into(), 0.0), ("<s>".into(), 0.0), ("</s>".into(), 0.0)];
        all.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), 0.0)));
        all.extend(pieces.iter().map(|(piece, score)| ((*piece).to_string(), *score)));
        let mut bytes = 8_i32.to_le_bytes().to_vec();
        for (piece, score) in &all {
            bytes.extend(score.to_le_bytes());
            bytes.extend((piece.len() as i32).to_le_bytes());
            bytes.extend(piece.as_bytes());
        }
        (bytes, all.len())
    }

    #[test]
    fn the_best_score_merges_first() {
        let singles = [(" ", -9.0), ("a", -9.0), ("b", -9.0), ("c", -9.0)];
        let (bytes, vocab) = file(&[&singles[..], &[("ab", -2.0), ("bc", -1.0), (" a", -3.0), ("bca", -0.5)]].concat());
        let tokenizer = LlamaTokenizer::from_bytes(&bytes, vocab).unwrap();
        let id = |piece: &str| tokenizer.tokens[piece.as_bytes()];
        // bc merges before ab, its result merges again, and the space joins the a that is left.
        assert_eq!(tokenizer.encode("abca"), [BEGIN, id(" a"), id("bca")]);
        assert_eq!(tokenizer.encode("ab"), [BEGIN, id(" "), id("ab")]);
        assert_eq!(tokenizer.encode("bé"), [BEGIN, id(" "), id("b"), 3 + 0xC3, 3 + 0xA9]);
        assert_eq!(tokenizer.encode(""), [BEGIN]);
        for text in ["abca", "bé", "aab cab bca", ""] {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text)), text);
        }
    }

    #[test]
    fn bad_files_are_refused() {
        let (bytes, vocab) = file(&[(" ", 0.0)]);
        assert!(LlamaTokenizer::from_bytes(&bytes, vocab).is_ok());
        for len in [0, 3, 11, bytes.len() - 1] {
            assert!(LlamaTokenizer::from_bytes(&bytes[..len], vocab).is_err(), "{len}");
        }
        assert!(LlamaTokenizer::from_bytes(&bytes, vocab - 1).is_err());
        let mut long = bytes;
        long[8..12].copy_from_slice(&i32::MAX.to_le_bytes());
        assert!(LlamaTokenizer::from_bytes(&long, vocab).is_err());
    }
}
