//! Results as files: one JSON object each, so that no complete run is ever repeated.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::files::Output;

/// Writes a text; a file that is there stays until the new one is whole.
///
/// # Errors
/// A file that cannot be written.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = Output::create(path)?;
    file.write_all(text.as_bytes()).with_context(|| path.display().to_string())?;
    file.commit()
}

/// Writes a result.
///
/// # Errors
/// A file that cannot be written.
pub fn save(path: &Path, result: &impl Serialize) -> Result<()> {
    write(path, &format!("{}\n", serde_json::to_string_pretty(result)?))
}

/// Reads a result.
///
/// # Errors
/// A file that cannot be read or is no such result.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{}: no result of this command", path.display()))
}

/// Reads every result of a folder, by name.
///
/// # Errors
/// A folder that cannot be read, or a file that is no such result.
pub fn load_all<T: DeserializeOwned>(folder: &Path) -> Result<Vec<T>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths.iter().map(|path| load(path)).collect()
}
