//! The error type of this crate. It says what is wrong, and where: in which file, tensor or piece.
//!
//! [`std::error::Error::source`] gives the cause. No text contains that of its cause, so whoever prints an error prints
//! the whole chain. The operations on tensors, and [`SplitHost`](crate::split::SplitHost), give candle's errors.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a host, its file or its tokenizer cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An operation on tensors failed. The text is candle's, with its causes.
    Tensor(candle_core::Error),
    /// A file cannot be read, or is too large.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file was read, but what it holds is wrong.
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// No model can have this shape. The caller or the file that states it is at fault.
    Setting {
        /// What is set.
        name: &'static str,
        /// Its value.
        value: usize,
        /// The values that it can have.
        wanted: String,
    },
    /// A model cannot be split after this block: each half needs at least one block.
    Split {
        /// Blocks before the split.
        split: usize,
        /// Blocks of the model.
        blocks: usize,
    },
    /// The bytes are no safetensors file. The text contains the library's, which contains those of its causes.
    Safetensors(safetensors::SafeTensorError),
    /// Parsing the header of a host's file would take more memory than its size justifies.
    Header,
    /// A host's file does not state the model's shape.
    NoShape,
    /// The shape that a host's file states cannot be read.
    Shape(serde_json::Error),
    /// The file ends too early.
    Truncated {
        /// What it ends within.
        within: &'static str,
    },
    /// The file is longer than its header says, so that one of both is wrong.
    TooLong {
        /// The length that the header's sizes give, in bytes.
        wanted: usize,
        /// The file's length, in bytes.
        found: usize,
    },
    /// A weight is missing.
    NoTensor {
        /// Its name.
        name: String,
    },
    /// A weight has another shape than the model.
    TensorShape {
        /// Its name.
        name: String,
        /// The shape that it has.
        found: Vec<usize>,
        /// The shape that the model has there.
        wanted: Vec<usize>,
    },
    /// A weight has another type than the format.
    TensorType {
        /// Its name.
        name: String,
        /// The type that the format has there.
        wanted: &'static str,
    },
    /// A weight is NaN or infinite.
    NotFinite {
        /// The tensor's name, or none in a file whose tensors have no names.
        name: Option<String>,
    },
    /// The first 28 bytes are no header of a llama2.c model.
    LlamaHeader {
        /// Its seven integers.
        fields: [i32; 7],
        /// What they should be.
        wanted: &'static str,
    },
    /// A piece of a llama2.c tokenizer has a length that no piece has.
    PieceLength {
        /// The piece's token.
        token: usize,
        /// The length that the file states, in bytes.
        found: i32,
        /// The largest length, in bytes.
        most: usize,
    },
    /// The vocabulary is too small to have a token for every byte.
    NoByteTokens {
        /// Its tokens.
        vocab: usize,
    },
    /// A llama2.c tokenizer's file has more pieces than the model has tokens.
    ManyPieces {
        /// The model's tokens.
        vocab: usize,
    },
    /// The library of tokenizers failed.
    Tokenizer {
        /// What cannot be done.
        what: &'static str,
        /// What the library says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tokenizer does not decode bytes, so it is none that this crate can use.
    NotByteLevel,
    /// A thread panicked.
    Panicked,
}

/// A `Result` with [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The same error, in a file.
    pub(crate) fn of_file(self, path: &Path) -> Self {
        Self::In { path: path.to_path_buf(), source: Box::new(self) }
    }

    /// For `map_err`: an error of the tokenizers' library, which says what cannot be done.
    pub(crate) fn of_tokenizer<E>(what: &'static str) -> impl Fn(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self::Tokenizer { what, source: source.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor(error) => error.fmt(f),
            Self::Read { path, .. } | Self::In { path, .. } => path.display().fmt(f),
            Self::Setting { name, value, wanted } => write!(f, "{name} must be {wanted}, not {value}"),
            Self::Split { split, blocks } => write!(f, "a model of {blocks} blocks cannot be split after {split}"),
            Self::Safetensors(error) => write!(f, "host file: {error}"),
            Self::Header => f.write_str("host file: its header is out of proportion"),
            Self::NoShape => f.write_str("host file: it has no shape"),
            Self::Shape(_) => f.write_str("host file: its shape cannot be read"),
            Self::TooLong { wanted, found } => {
                write!(f, "the file has {found} bytes, {wanted} by the sizes in its header")
            }
            Self::Truncated { within } => write!(f, "the file ends within its {within}"),
            Self::NoTensor { name } => write!(f, "{name} is missing"),
            Self::TensorShape { name, found, wanted } => write!(f, "{name} is {found:?}, not {wanted:?}"),
            Self::TensorType { name, wanted } => write!(f, "{name} is not {wanted}"),
            Self::NotFinite { name: Some(name) } => write!(f, "{name} holds a value that is not finite"),
            Self::NotFinite { name: None } => f.write_str("a weight is not finite"),
            Self::LlamaHeader { fields, wanted } => write!(f, "no llama2.c header: {fields:?}, wanted {wanted}"),
            Self::PieceLength { token, found, most } => {
                write!(f, "piece {token} has a length of {found}, not of 0 to {most}")
            }
            Self::NoByteTokens { vocab } => write!(f, "a vocabulary of {vocab} has no tokens for all bytes"),
            Self::ManyPieces { vocab } => write!(f, "the file has more than {vocab} pieces"),
            Self::Tokenizer { what, .. } => write!(f, "tokenizer: {what}"),
            Self::NotByteLevel => f.write_str("tokenizer: its decoder is not byte-level"),
            Self::Panicked => f.write_str("a thread panicked"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::In { source, .. } => Some(source),
            Self::Shape(source) => Some(source),
            Self::Tokenizer { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(error)
    }
}
