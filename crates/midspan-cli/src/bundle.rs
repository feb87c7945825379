//! A host, its tokenizer and its codec, together: the default model embedded in the program, or a folder.

use std::path::Path;
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

/// Why a bundle could not be loaded: one line that names the file.
#[derive(Debug)]
pub struct BundleError(String);

impl std::fmt::Display for BundleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BundleError {}

impl Bundle {
    /// The model in `folder`, or the embedded one.
    ///
    /// # Errors
    /// A file is missing, too large or not of the expected kind, or the codec's width is not the host's.
    pub fn load(folder: Option<&Path>) -> Result<Self, BundleError> {
        let Some(folder) = folder else { return Self::embedded() };
        let read = |name: &str, most: u64| {
            let path = folder.join(name);
            read(&path, most).map_err(|error| BundleError(format!("{}: {error}", path.display())))
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
        let tokenizer =
            Tokenizer::from_json(tokenizer).map_err(|error| BundleError(format!("{TOKENIZER}: {error}")))?;
        let gpt = weights::load(host, &Device::Cpu).map_err(|error| BundleError(format!("{HOST}: {error}")))?;
        let limit = usize::try_from(FILE_MAX).unwrap_or(usize::MAX);
        let codec = Codec::from_bytes(codec, limit).map_err(|error| BundleError(format!("{CODEC}: {error}")))?;
        if codec.model().hidden_width() != gpt.config().width {
            return Err(BundleError(format!(
                "the codec is for hidden states of {} values, the host has {}",
                codec.model().hidden_width(),
                gpt.config().width
            )));
        }
        if tokenizer.vocab() != gpt.config().vocab {
            return Err(BundleError(format!(
                "the tokenizer has {} tokens, the host {}",
                tokenizer.vocab(),
                gpt.config().vocab
            )));
        }
        let host_digest = model::host_digest_of_file(host).map_err(|error| BundleError(format!("{HOST}: {error}")))?;
        Ok(Self { gpt, tokenizer, codec: Arc::new(codec), host_digest })
    }
}
