//! The error type of this crate.
//!
//! An error says what is wrong, where, and what was wanted and found. [`std::error::Error::source`] gives the cause. No
//! text contains that of its cause, so whoever prints an error prints the whole chain. Callers that treat kinds of
//! failure differently match on variants; [`Error::code`] is the number of the specification, if the cause has one.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::divergence::Rise;
use midspan::model::Invalid;

/// Any error of another library that is the cause of one of this crate.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A `Result` with [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something cannot be learned, frozen, fitted or measured.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An operation on tensors failed. The text is candle's, with its causes.
    Tensor(candle_core::Error),
    /// The host, its file or its tokenizer cannot be used. The text is that of the host's error.
    Host(midspan_host::Error),
    /// A codec refuses its input.
    Codec(Box<midspan::error::Error>),
    /// The networks break a rule of the model file, so they cannot be frozen.
    Model(Invalid),
    /// A file or folder cannot be read or written.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// What is in a file is wrong.
    File {
        /// The file, or the name of an input that is no file.
        path: PathBuf,
        /// The line at fault, from 1, in a file that is read by lines.
        line: Option<usize>,
        /// What is wrong.
        fault: FileFault,
    },
    /// A setting that the caller has to change.
    Setting {
        /// What is set.
        name: &'static str,
        /// Its value.
        value: String,
        /// The values that it can have.
        wanted: String,
    },
    /// A checkpoint, or the variables of a run, lack something.
    Lacks {
        /// What is incomplete.
        whole: &'static str,
        /// The tensor or text field that it lacks.
        part: String,
    },
    /// A checkpoint has a tensor that the run that should be resumed does not have.
    Foreign {
        /// The tensor's name.
        name: String,
    },
    /// A tensor of a checkpoint has another size than the architecture that was asked for.
    Size {
        /// The tensor's name.
        name: String,
        /// The number of its values, or its shape.
        found: Vec<usize>,
        /// The same in the architecture.
        wanted: Vec<usize>,
    },
    /// A text field of a checkpoint cannot be read or written.
    Field {
        /// The field's name.
        key: String,
        /// What is wrong with it.
        source: Cause,
    },
    /// A file belongs to another run: a text field differs from what was asked for.
    Differs {
        /// What was made by the other run.
        what: &'static str,
        /// The field's name.
        key: String,
        /// Its value in the file, if it has one.
        found: Option<String>,
        /// The value that was asked for, if there is one.
        wanted: Option<String>,
    },
    /// A run needs a checkpoint to begin with, and has none. The text says which kind.
    NoStart(&'static str),
    /// The text was made with another vocabulary than the host's.
    Vocabulary {
        /// Entries of the tokenizer's vocabulary.
        tokenizer: usize,
        /// Entries of the host's.
        host: usize,
    },
    /// A codec with one quality has to be given others, and one with several keeps its own.
    Qualities {
        /// Qualities of the checkpoint's codec, 0 if it has one.
        checkpoint: usize,
        /// Qualities that were asked for.
        asked: usize,
    },
    /// Another run is at work in the folder.
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The corpus is shorter than a window.
    ShortCorpus {
        /// Tokens of the corpus.
        found: usize,
        /// Tokens of a window.
        wanted: usize,
    },
    /// A step has no windows.
    EmptyBatch,
    /// Training has diverged.
    Diverged {
        /// Steps taken before.
        step: u64,
        /// How the run showed it.
        rise: Rise,
        /// Why the last good checkpoint could not become the last one, if it could not. It then stays under its own
        /// name.
        rename_error: Option<Box<Error>>,
    },
    /// The host's hidden states do not vary, or its predictions do not depend on them, so no linear map suits them.
    NoMap,
    /// One thing should depend on another and does not.
    Independent {
        /// What should depend on the input.
        output: &'static str,
        /// What it should depend on.
        input: &'static str,
    },
    /// The host's second half passes no gradient, or a wrong one.
    NoGradient {
        /// The error of its slopes, as a part of the slopes; 1 without a gradient.
        error: f64,
    },
    /// The codec does not have this quality.
    NoQuality {
        /// The quality's index.
        index: usize,
        /// Qualities of the codec.
        qualities: usize,
    },
    /// Only the proposed entropy model chooses Y by its rate, and in more than one quality.
    NearestAlone {
        /// The entropy model.
        model: &'static str,
    },
    /// A network's widths cannot be cut to these.
    Cut {
        /// Its widths.
        from: Vec<usize>,
        /// The widths that were asked for.
        to: Vec<usize>,
    },
    /// A factor between two scales of a frozen network is not one that multiplier and shift can hold.
    Factor {
        /// The factor.
        found: f64,
        /// The largest that fits.
        most: f64,
    },
    /// The steps of a quality are so fine that the frozen model would exceed a limit.
    TooFine {
        /// What there would be too many of.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// A frozen model without its encoder's part cannot be compared with the float codec.
    NoH,
    /// A thread panicked, or did not do its part.
    Panicked,
}

/// What is wrong with what a file contains.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileFault {
    /// It is no checkpoint. The text contains the library's, which contains those of its causes.
    NoCheckpoint(Cause),
    /// A tensor has a type that checkpoints do not have.
    OtherType {
        /// The tensor's name.
        name: String,
        /// Its type.
        found: candle_core::DType,
    },
    /// The tensors cannot be written as a checkpoint. The text contains the library's.
    NotSaved(safetensors::SafeTensorError),
    /// It is not UTF-8.
    NotUtf8(std::str::Utf8Error),
    /// It is empty.
    NoText,
    /// Its text has fewer than two tokens.
    LittleText,
    /// It ends within a token.
    HalfToken,
    /// A token does not fit the file's two bytes.
    LargeToken(u32),
    /// It is a cache that another host, or another tokenizer, wrote. The text names which of the two.
    OfAnother(&'static str),
    /// A line is not the JSON that it should be.
    NotJson(serde_json::Error),
    /// A passage has fewer than two words.
    OneWord,
    /// A passage has no token before its last word.
    NoContext,
    /// It holds no passages.
    NoPassages,
    /// It is no capture of hidden states, or one that cannot be used with the others. The text says why.
    NoCapture(String),
}

impl Error {
    /// A setting that has to be changed: its name, its value, and what it can be.
    pub fn setting(name: &'static str, value: impl fmt::Display, wanted: impl Into<String>) -> Self {
        Self::Setting { name, value: value.to_string(), wanted: wanted.into() }
    }

    /// What is wrong with a file's content.
    pub fn file(path: &Path, fault: FileFault) -> Self {
        Self::File { path: path.to_path_buf(), line: None, fault }
    }

    pub(crate) fn lacks(whole: &'static str, part: impl Into<String>) -> Self {
        Self::Lacks { whole, part: part.into() }
    }

    /// A text field of a checkpoint that cannot be read or written.
    pub fn field(key: &str, source: impl Into<Cause>) -> Self {
        Self::Field { key: key.to_string(), source: source.into() }
    }

    /// The codec's error that is the cause, if it is one.
    #[must_use]
    pub fn codec_error(&self) -> Option<&midspan::error::Error> {
        match self {
            Self::Codec(error) => Some(error),
            _ => None,
        }
    }

    /// The number of spec 7.3, if a codec or the rules of the model file are the cause.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Codec(error) => Some(error.code()),
            Self::Model(invalid) => Some(invalid.kind.code()),
            _ => None,
        }
    }
}

/// For `map_err`: names the file or folder of an I/O error.
pub fn context(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::Io { path: path.to_path_buf(), source }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor(error) => error.fmt(f),
            Self::Host(error) => error.fmt(f),
            Self::Codec(_) => f.write_str("the codec"),
            Self::Model(invalid) => write!(f, "the frozen model breaks the rule of error {}", invalid.kind.code()),
            Self::Io { path, .. } => path.display().fmt(f),
            Self::File { path, line, fault } => {
                path.display().fmt(f)?;
                if let Some(line) = line {
                    write!(f, ", line {line}")?;
                }
                fault.tell(f)
            }
            Self::Setting { name, value, wanted } => write!(f, "{name} must be {wanted}, not {value}"),
            Self::Lacks { whole, part } => write!(f, "{whole} lacks {part}"),
            Self::Foreign { name } => write!(f, "the checkpoint has {name}, which this run does not have"),
            Self::Size { name, found, wanted } => {
                write!(f, "{name} is {found:?} in the checkpoint, {wanted:?} in this architecture")
            }
            Self::Field { key, .. } => write!(f, "the checkpoint's {key}"),
            Self::Differs { what, key, found, wanted } => {
                let [found, wanted] = [found, wanted].map(|value| value.as_deref().unwrap_or("none"));
                let (found, wanted) = differing(found, wanted);
                write!(f, "{what} has another {key}: {found}, asked for: {wanted}")
            }
            Self::NoStart(what) => f.write_str(what),
            Self::Vocabulary { tokenizer, host } => {
                write!(f, "the tokenizer has {tokenizer} entries, the host's vocabulary {host}")
            }
            Self::Qualities { checkpoint: 0, .. } => {
                f.write_str("the checkpoint's codec has one quality, so the run needs the qualities to train")
            }
            Self::Qualities { checkpoint, asked } => {
                write!(
                    f,
                    "the checkpoint's codec has {checkpoint} qualities, so the run can be given as many or none, not {asked}"
                )
            }
            Self::InUse { folder } => {
                write!(f, "{}: another run is at work here; wait for it, or take another folder", folder.display())
            }
            Self::ShortCorpus { found, wanted } => write!(f, "the corpus has {found} tokens, a window {wanted}"),
            Self::EmptyBatch => f.write_str("an empty batch"),
            Self::Diverged { step, rise, rename_error } => {
                write!(f, "diverged at step {step}: {rise}")?;
                if rename_error.is_some() { f.write_str("; its good checkpoint stays") } else { Ok(()) }
            }
            Self::NoMap => f.write_str("no linear map suits hidden states that do not vary or do not matter"),
            Self::Independent { output, input } => write!(f, "{output} do not depend on {input}"),
            Self::NoGradient { error } => write!(
                f,
                "the host's operations pass no gradient or a wrong one: {:.0} % of it is amiss. Fused ones, such as \
                 candle_nn's layer_norm, rms_norm, softmax_last_dim and rope, have none; layer_norm_slow, \
                 rms_norm_slow, softmax and rope_slow have one",
                100.0 * error
            ),
            Self::NoQuality { index, qualities } => write!(f, "no quality {index}: the codec has {qualities}"),
            Self::NearestAlone { model } => {
                write!(f, "{model} code the nearest integers in one quality: a rate weight of 0")
            }
            Self::Cut { from, to } => write!(f, "widths {from:?} cannot be cut to {to:?}"),
            Self::Factor { found, most } => {
                write!(f, "a requantisation factor of {found}: multiplier and shift hold 0 to {most}")
            }
            Self::TooFine { what, found, most } => {
                write!(f, "steps that much finer need {found} {what}, more than {most}")
            }
            Self::NoH => f.write_str("the model has no encoder's part (no h)"),
            Self::Panicked => f.write_str("a thread panicked"),
        }
    }
}

/// Of two records of the same fields, such as `Settings { muon: true, adam_lr: 0.1 }`, the fields from the first to the
/// last that differ; of other texts, all.
fn differing<'a>(one: &'a str, other: &'a str) -> (&'a str, &'a str) {
    let ends = |c: char| matches!(c, '{' | '}' | ',');
    let shared = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    // Back to where the first field that differs begins.
    let start = one.as_bytes()[..shared].iter().rposition(|byte| ends(char::from(*byte))).map_or(0, |at| at + 1);
    let (first, second) = (&one[start..], &other[start..]);
    let shared = first.bytes().rev().zip(second.bytes().rev()).take_while(|(a, b)| a == b).count();
    let after = first.as_bytes()[first.len() - shared..].iter().position(|byte| ends(char::from(*byte)));
    // Without an end in common, the last fields differ.
    let kept = after.map_or(0, |at| shared - at);
    (first[..first.len() - kept].trim(), second[..second.len() - kept].trim())
}

impl FileFault {
    /// Writes what follows the file and the line.
    fn tell(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCheckpoint(why) => write!(f, ": no checkpoint: {why}"),
            Self::OtherType { name, found } => write!(f, ": cannot save {name}, which is {found:?}"),
            Self::NotSaved(why) => write!(f, ": cannot be saved: {why}"),
            Self::NotUtf8(_) => f.write_str(": not UTF-8"),
            Self::NoText => f.write_str(": no text"),
            Self::LittleText => f.write_str(": too little text"),
            Self::HalfToken => f.write_str(": ends within a token"),
            Self::LargeToken(token) => write!(f, ": token {token} exceeds 16 bits"),
            Self::OfAnother(maker) => write!(f, ": not what this {maker} wrote"),
            Self::NotJson(_) => Ok(()),
            Self::OneWord => f.write_str(": fewer than two words"),
            Self::NoContext => f.write_str(": no token before the last word"),
            Self::NoPassages => f.write_str(": no passages"),
            Self::NoCapture(why) => write!(f, ": {why}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Host(error) => error.source(),
            Self::Codec(source) => Some(&**source),
            Self::Model(source) => Some(source),
            Self::Io { source, .. } => Some(source),
            Self::File { fault: FileFault::NotUtf8(source), .. } => Some(source),
            Self::File { fault: FileFault::NotJson(source), .. } => Some(source),
            Self::Field { source, .. } => Some(&**source),
            Self::Diverged { rename_error: Some(source), .. } => Some(&**source),
            _ => None,
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(error)
    }
}

impl From<midspan_host::Error> for Error {
    fn from(error: midspan_host::Error) -> Self {
        Self::Host(error)
    }
}

impl From<midspan::error::Error> for Error {
    fn from(error: midspan::error::Error) -> Self {
        Self::Codec(Box::new(error))
    }
}

impl From<Invalid> for Error {
    fn from(error: Invalid) -> Self {
        Self::Model(error)
    }
}
