//! Last-word accuracy on LAMBADA (D. Paperno et al., 2016): passages whose last word can be guessed only from the whole
//! passage.

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::Deserialize;

use super::{Link, Predictions};
use crate::parallel::in_threads;
use crate::{Error, FileFault, context};
use midspan_host::files::read;
use midspan_host::split::SplitHost;
use midspan_host::tokenizer::Tokenizer;

/// A passage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Tokens of the passage, including those of the last word.
    ids: Vec<u32>,
    /// How many of these are the last word's.
    last: usize,
}

#[derive(Deserialize)]
struct Line {
    text: String,
}

/// A file of passages above this size is refused, bytes.
const FILE_MAX: u64 = 1 << 26;

/// Reads passages, one JSON object with a `text` a line.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::File`] with the line if it is not such an object or its text has
/// fewer than two words, [`Error::Host`] if the tokenizer fails.
pub fn load(path: &Path, tokenizer: &Tokenizer) -> Result<Vec<Passage>, Error> {
    let bytes = read(path, FILE_MAX).map_err(context(path))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| Error::file(path, FileFault::NotUtf8(error)))?;
    let at = |line: usize, fault| Error::File { path: path.to_path_buf(), line: Some(line + 1), fault };
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).map_err(|error| at(number, FileFault::NotJson(error)))?;
        let text = line.text.trim_end();
        let Some((before, _)) = text.rsplit_once(' ') else { return Err(at(number, FileFault::OneWord)) };
        let mut ids = tokenizer.encode(before)?;
        let word = tokenizer.encode(&text[before.len()..])?;
        ids.extend(&word);
        if ids.len() <= word.len() || word.is_empty() {
            return Err(at(number, FileFault::NoContext));
        }
        out.push(Passage { ids, last: word.len() });
    }
    if out.is_empty() { Err(Error::file(path, FileFault::NoPassages)) } else { Ok(out) }
}

/// The share of passages in which every token of the last word is the most likely one: through the link, and without
/// it. Passages are cut to their last tokens that fit the host's context.
///
/// # Errors
/// When a computation fails.
pub fn accuracy(
    host: &dyn SplitHost,
    link: &dyn Link,
    passages: &[Passage],
    threads: usize,
) -> Result<[f64; 2], Error> {
    let right = in_threads(passages, threads, |passage| {
        let ids = &passage.ids[passage.ids.len().saturating_sub(host.context() + 1)..];
        let (inputs, word) = (&ids[..ids.len() - 1], &ids[ids.len() - passage.last..]);
        let tensor = Tensor::from_slice(inputs, (1, inputs.len()), &Device::Cpu)?;
        let hidden = host.head(&tensor)?.detach();
        let right = |hidden: &Tensor| Ok::<bool, Error>(Predictions::new(host, hidden, word.len())?.greedy() == word);
        Ok([right(&link.carry(&hidden, inputs)?.hidden)?, right(&hidden)?])
    })?;
    let share = |which: usize| right.iter().filter(|right| right[which]).count() as f64 / right.len().max(1) as f64;
    Ok([share(0), share(1)])
}
