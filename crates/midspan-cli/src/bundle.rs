//! A host, its tokenizer and its codec, together: the default model embedded in the program, or a folder.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;

use midspan::codec::Codec;
use midspan::model;
use midspan_host::files::read;
use midspan_host::gpt::Gpt;
use midspan_host::tokenizer::{self, Tokenizer};
use midspan_host::weights;

/// File names of a model folder.
pub const TOKENIZER: &str = "tokenizer.json";
/// The host's weights.
pub const HOST: &str = "host.safetensors";
/// The frozen codec model.
pub const CODEC: &str = "codec.safetensors";
/// A model file above this size is refused, bytes.
const FILE_MAX: u64 = 1 << 30;

/// A model that can generate text through the codec.
pub struct Bundle {
    /// The split host.
    pub gpt: Gpt,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its codec.
    pub codec: Arc<Codec>,
    /// The digest of the host's weights (spec 4.7), for the stream header.
    pub host_digest: [u8; 32],
}

/// Why a bundle could not be loaded. The cause is in [`std::error::Error::source`].
#[derive(Debug)]
#[non_exhaustive]
pub enum BundleError {
    /// A file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The path is a file, such as a codec alone.
    NoFolder {
        /// The file.
        path: PathBuf,
    },
    /// The host or its tokenizer cannot be used.
    Host {
        /// The file's name in the folder.
        name: &'static str,
        /// What is wrong with it.
        source: midspan_host::Error,
    },
    /// The codec's model cannot be used, or the host's file has no digest.
    Codec {
        /// The file's name in the folder.
        name: &'static str,
        /// What is wrong with it.
        source: Box<midspan::error::Error>,
    },
    /// The codec is for another width than the host's.
    Width {
        /// Values of the codec's hidden states.
        codec: usize,
        /// Values of the host's.
        host: usize,
    },
    /// The tokenizer is that of another host.
    Vocabulary {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Tokens of the host.
        host: usize,
    },
}

impl BundleError {
    /// The codec's error that is the cause, if it is one; its number is that of spec 7.3.
    pub fn codec_error(&self) -> Option<&midspan::error::Error> {
        match self {
            Self::Codec { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, .. } => path.display().fmt(f),
            Self::NoFolder { path } => write!(
                f,
                "{}: no folder; a model folder has {TOKENIZER}, {HOST} and {CODEC}, and a codec alone goes with encode, \
                 decode, verify and bench",
                path.display()
            ),
            Self::Host { name, .. } | Self::Codec { name, .. } => f.write_str(name),
            Self::Width { codec, host } => {
                write!(f, "the codec is for hidden states of {codec} values, the host has {host}")
            }
            Self::Vocabulary { tokenizer, host } => write!(f, "the tokenizer has {tokenizer} tokens, the host {host}"),
        }
    }
}

impl std::error::Error for BundleError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Host { source, .. } => Some(source),
            Self::Codec { source, .. } => Some(&**source),
            Self::NoFolder { .. } | Self::Width { .. } | Self::Vocabulary { .. } => None,
        }
    }
}

impl Bundle {
    /// The model in `folder`, or the embedded one.
    ///
    /// # Errors
    /// A file is missing, too large or not of the expected kind, or the codec's width is not the host's.
    pub fn load(folder: Option<&Path>) -> Result<Self, BundleError> {
        let Some(folder) = folder else { return Self::embedded() };
        if folder.is_file() {
            return Err(BundleError::NoFolder { path: folder.to_path_buf() });
        }
        let read = |name: &str, most: u64| {
            let path = folder.join(name);
            read(&path, most).map_err(|source| BundleError::Read { path, source })
        };
        let tokenizer = read(TOKENIZER, tokenizer::FILE_MAX)?;
        Self::from_bytes(&tokenizer, &read(HOST, FILE_MAX)?, &read(CODEC, FILE_MAX)?)
    }

    /// The default model, which is part of the program.
    ///
    /// # Errors
    /// As [`Bundle::load`]; never in a program that was built from a complete source tree.
    pub fn embedded() -> Result<Self, BundleError> {
        Self::from_bytes(
            include_bytes!("../model/tokenizer.json"),
            include_bytes!("../model/host.safetensors"),
            include_bytes!("../model/codec.safetensors"),
        )
    }

    fn from_bytes(tokenizer: &[u8], host: &[u8], codec: &[u8]) -> Result<Self, BundleError> {
        let of_host = |name| move |source| BundleError::Host { name, source };
        let of_codec = |name| move |source| BundleError::Codec { name, source: Box::new(source) };
        let tokenizer = Tokenizer::from_json(tokenizer).map_err(of_host(TOKENIZER))?;
        let gpt = weights::load(host, &Device::Cpu).map_err(of_host(HOST))?;
        let limit = usize::try_from(FILE_MAX).unwrap_or(usize::MAX);
        let codec = Codec::from_bytes(codec, limit).map_err(of_codec(CODEC))?;
        let widths = (codec.model().hidden_width(), gpt.config().width);
        if widths.0 != widths.1 {
            return Err(BundleError::Width { codec: widths.0, host: widths.1 });
        }
        let tokens = (tokenizer.vocab(), gpt.config().vocab);
        if tokens.0 != tokens.1 {
            return Err(BundleError::Vocabulary { tokenizer: tokens.0, host: tokens.1 });
        }
        let host_digest = model::host_digest_of_file(host).map_err(of_codec(HOST))?;
        Ok(Self { gpt, tokenizer, codec: Arc::new(codec), host_digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use midspan::model::synthetic::{self, SyntheticShape};
    use std::error::Error;
    use std::fs;
    use tempfile::tempdir;

    fn told(outcome: Result<Bundle, BundleError>) -> (BundleError, String) {
        let error = outcome.map(|_| ()).expect_err("refused");
        let causes = std::iter::successors(error.source(), |&cause| cause.source());
        let line = causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"));
        (error, line)
    }

    /// The error of a folder with the embedded model's files but for one, and the line that the user reads.
    fn refused(name: &str, bytes: &[u8]) -> (BundleError, String) {
        let folder = tempdir().unwrap();
        let embedded = [
            (TOKENIZER, &include_bytes!("../model/tokenizer.json")[..]),
            (HOST, include_bytes!("../model/host.safetensors")),
            (CODEC, include_bytes!("../model/codec.safetensors")),
        ];
        for (name, bytes) in embedded.into_iter().chain([(name, bytes)]) {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        told(Bundle::load(Some(folder.path())))
    }

    #[test]
    fn each_file_is_named_with_what_is_wrong() {
        let (error, line) = refused(TOKENIZER, b"{}");
        assert!(matches!(error, BundleError::Host { name: TOKENIZER, .. }), "{error:?}");
        assert!(line.starts_with("tokenizer.json: tokenizer: "), "{line}");
        let (error, line) = refused(HOST, b"none");
        assert!(matches!(error, BundleError::Host { name: HOST, .. }), "{error:?}");
        assert!(line.starts_with("host.safetensors: host file: "), "{line}");
        let (error, line) = refused(CODEC, b"none");
        assert_eq!(error.codec_error().map(midspan::error::Error::code), Some(701));
        assert!(line.starts_with("codec.safetensors: ") && line.ends_with("error 701"), "{line}");
        let (error, line) = refused(CODEC, &synthetic::model(&SyntheticShape::tiny(), 5).to_bytes());
        assert!(matches!(error, BundleError::Width { host: 256, .. }) && error.codec_error().is_none(), "{line}");
        let other = Tokenizer::train(std::iter::once("some text"), 280).unwrap().to_json().unwrap();
        let (error, line) = refused(TOKENIZER, &other);
        assert!(matches!(error, BundleError::Vocabulary { host: 4096, .. }), "{line}");
    }

    #[test]
    fn a_codec_alone_is_no_model_folder() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("codec");
        fs::write(&path, b"codec").unwrap();
        let (error, line) = told(Bundle::load(Some(&path)));
        assert!(matches!(error, BundleError::NoFolder { .. }) && line.contains("goes with encode"), "{line}");
    }

    #[test]
    fn a_missing_file_is_named_once() {
        let (error, line) = told(Bundle::load(Some(tempdir().unwrap().path())));
        let BundleError::Read { path, source } = &error else { panic!("{error:?}") };
        assert!(path.ends_with(TOKENIZER) && source.kind() == std::io::ErrorKind::NotFound, "{error:?}");
        assert_eq!(line.matches(TOKENIZER).count(), 1);
    }
}
