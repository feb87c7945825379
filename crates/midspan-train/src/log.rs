//! A run's log: means of its steps' figures, and its evaluations, one JSON object a line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, checkpoint, context};

/// Named figures of a step or an evaluation.
pub type Metrics = BTreeMap<String, f64>;

/// The sums for the log's next line. A checkpoint contains them, so that the log of a resumed run equals that of an
/// uninterrupted one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    figures: Metrics,
    steps: u64,
}

impl Sums {
    /// Adds a step's figures.
    pub fn add(&mut self, figures: Metrics) {
        for (name, value) in figures {
            *self.figures.entry(name).or_default() += value;
        }
        self.steps += 1;
    }

    /// The means since the last call.
    pub fn take(&mut self) -> Metrics {
        let Self { figures, steps } = std::mem::take(self);
        figures.into_iter().map(|(name, sum)| (name, sum / steps.max(1) as f64)).collect()
    }
}

/// The log file.
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Continues the log at `path` after `step`. Lines newer than the checkpoint are deleted. If all lines would be
    /// deleted, the log belongs to another run, and is renamed to `path` with `.old` appended.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self, Error> {
        if path.exists() {
            let old = std::fs::read_to_string(path).map_err(context(path))?;
            let is_kept =
                |line: &&str| serde_json::from_str::<Value>(line).is_ok_and(|line| line["step"].as_u64() <= Some(step));
            let kept: String = old.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
            if kept.is_empty() && !old.is_empty() {
                let mut name = path.as_os_str().to_os_string();
                name.push(".old");
                std::fs::rename(path, name).map_err(context(path))?;
            } else if kept != old {
                checkpoint::write_atomically(path, |file| file.write_all(kept.as_bytes()))?;
            }
        }
        let file = File::options().create(true).append(true).open(path).map_err(context(path))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, kind: &str, (step, tokens): (u64, u64), figures: &Metrics) -> Result<(), Error> {
        let mut object = serde_json::Map::new();
        object.insert("kind".into(), kind.into());
        object.insert("step".into(), step.into());
        object.insert("tokens".into(), tokens.into());
        object.extend(figures.iter().map(|(name, value)| (name.clone(), (*value).into())));
        let line = format!("{}\n", Value::Object(object));
        self.file.write_all(line.as_bytes()).map_err(context(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_no_checkpoint_holds_go() {
        let folder = std::env::temp_dir().join(format!("midspan-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log.jsonl");
        let mut log = Log::open(&path, 0).unwrap();
        let figures = Metrics::from([("loss".to_string(), 1.5)]);
        for step in [5, 10, 15] {
            log.write("train", (step, 2 * step), &figures).unwrap();
        }
        log.file.write_all(b"{\"kind\":\"train\",\"step\":").unwrap();
        let lines = || std::fs::read_to_string(&path).unwrap().lines().map(String::from).collect::<Vec<_>>();
        assert_eq!(lines().len(), 4);
        let mut log = Log::open(&path, 10).unwrap();
        assert_eq!(lines().len(), 2);
        log.write("eval", (10, 20), &figures).unwrap();
        assert_eq!(lines()[2], r#"{"kind":"eval","loss":1.5,"step":10,"tokens":20}"#);
        Log::open(&path, 0).unwrap();
        assert!(lines().is_empty());
        assert_eq!(std::fs::read_to_string(folder.join("log.jsonl.old")).unwrap().lines().count(), 3);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
