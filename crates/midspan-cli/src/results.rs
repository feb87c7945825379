//! Results as files of one JSON object each, so that a complete run is never repeated.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::files::Output;
use midspan_train::runner::{GOOD, LAST, LOG};

/// The folders where runs keep their results and their intermediate files.
#[derive(Clone, Debug, Args)]
pub struct KeepArgs {
    /// Folder of the results.
    #[arg(long)]
    pub results: PathBuf,
    /// Folder of checkpoints and logs, from which an interrupted run resumes.
    #[arg(long)]
    pub work: PathBuf,
}

impl KeepArgs {
    /// The path of a run's result.
    pub fn file(&self, name: &str) -> PathBuf {
        self.results.join(format!("{name}.json"))
    }

    /// The files that a run writes.
    pub fn outputs(&self, name: &str) -> Vec<PathBuf> {
        let (results, work) = (["json", "safetensors"], [LAST, GOOD, LOG]);
        let results = results.map(|kind| self.results.join(format!("{name}.{kind}")));
        results.into_iter().chain(work.map(|file| self.work.join(name).join(file))).collect()
    }

    /// Makes a result and keeps it. `make` gets the run's folder, and returns `None` if a signal ended the run.
    ///
    /// # Errors
    /// Those of `make`, or a file that cannot be written.
    pub fn keep<T: Serialize>(&self, name: &str, make: impl FnOnce(PathBuf) -> Result<Option<T>>) -> Result<Option<T>> {
        std::fs::create_dir_all(&self.results).with_context(|| self.results.display().to_string())?;
        let work = self.work.join(name);
        let result = make(work.clone())?;
        if let Some(result) = &result {
            save(&self.file(name), result)?;
            // The result is saved, so the checkpoint is no longer needed. A good checkpoint exists only if the run
            // diverged at the end.
            let _ = std::fs::remove_file(work.join(LAST));
        }
        Ok(result)
    }

    /// A run's result, if it exists.
    ///
    /// # Errors
    /// The file cannot be read or is not such a result.
    pub fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let file = self.file(name);
        if file.exists() { Ok(Some(load(&file)?)) } else { Ok(None) }
    }
}

/// The message of a command that was ended by a signal.
pub const INTERRUPTED: &str = "interrupted; the same command goes on";

/// Writes a text. An existing file is replaced only once the new one is complete.
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
/// The file cannot be read or is not such a result.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{}: no result of this command", path.display()))
}

/// Reads every result of a folder, by name.
///
/// # Errors
/// The folder cannot be read, or a file is not such a result.
pub fn load_all<T: DeserializeOwned>(folder: &Path) -> Result<Vec<T>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths.iter().map(|path| load(path)).collect()
}
