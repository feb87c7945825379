//! Files and standard output of the commands: models in, whole files out.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::terminal::shown;
use crate::host::bundle::CODEC;
use crate::model::CodecModel;

/// A model file above this size is refused, bytes.
const MODEL_MAX: usize = 1 << 30;

/// The codec model in a file or a model folder; the embedded one without a path.
///
/// # Errors
/// A file that is missing, too large or no codec model; the line names it.
pub fn codec_model(path: Option<&Path>) -> Result<CodecModel> {
    let Some(path) = path else {
        let bytes = include_bytes!("../../models/default/codec.safetensors");
        return CodecModel::from_bytes(bytes, MODEL_MAX).context("the embedded model");
    };
    let path = if path.is_dir() { path.join(CODEC) } else { path.to_path_buf() };
    let name = || path.display().to_string();
    let mut bytes = Vec::new();
    let file = File::open(&path).with_context(name)?;
    file.take(MODEL_MAX as u64 + 1).read_to_end(&mut bytes).with_context(name)?;
    if bytes.len() > MODEL_MAX {
        bail!("{}: larger than any model", name());
    }
    CodecModel::from_bytes(&bytes, MODEL_MAX).with_context(name)
}

/// Standard output was closed by its reader: no fault of anyone's.
#[derive(Debug)]
pub struct OutputClosed;

impl std::fmt::Display for OutputClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("standard output was closed")
    }
}

impl std::error::Error for OutputClosed {}

/// Writes text to standard output, through to its reader, by the rule of [`super::terminal`].
///
/// # Errors
/// [`OutputClosed`] where the reader has gone; what the system says otherwise.
pub fn print(text: std::fmt::Arguments<'_>) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(shown(&text.to_string()).as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        other => other.context("standard output"),
    }
}

/// An output file that takes its name only when it is whole: until then the name keeps what stood there before.
///
/// What is no regular file, a pipe or a device, is written to directly.
pub struct Output {
    /// Where the file is to stand, links followed.
    target: PathBuf,
    /// Where it is written until then; none for what is no regular file.
    part: Option<PathBuf>,
    file: BufWriter<File>,
}

impl Output {
    /// Begins a file beside `path`.
    ///
    /// # Errors
    /// A folder that does not exist or cannot be written to; a path that is a folder.
    pub fn create(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        let found = std::fs::metadata(path);
        if found.as_ref().is_ok_and(std::fs::Metadata::is_dir) {
            bail!("{}: is a folder", name());
        }
        if found.as_ref().is_ok_and(|found| !found.is_file()) {
            let file = File::options().write(true).open(path).with_context(name)?;
            return Ok(Self { target: path.to_path_buf(), part: None, file: BufWriter::new(file) });
        }
        let target = if found.is_ok() { path.canonicalize().with_context(name)? } else { path.to_path_buf() };
        let Some(file_name) = target.file_name() else { bail!("{}: names no file", name()) };
        let mut part = file_name.to_os_string();
        part.push(format!(".{}.part", std::process::id()));
        let part = target.with_file_name(part);
        let file = File::create_new(&part).with_context(name)?;
        Ok(Self { target, part: Some(part), file: BufWriter::new(file) })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// What the system says; the part is removed then.
    pub fn commit(mut self) -> Result<()> {
        let name = || self.target.display().to_string();
        self.file.flush().with_context(name)?;
        if let Some(part) = &self.part {
            self.file.get_ref().sync_all().with_context(name)?;
            std::fs::rename(part, &self.target).with_context(name)?;
            self.part = None;
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            // Half a file is of no use to anyone who finds it.
            let _ = std::fs::remove_file(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_its_name_when_it_is_whole() {
        let folder = std::env::temp_dir().join(format!("midspan-output-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("out");
        std::fs::write(&path, "old").unwrap();
        let mut output = Output::create(&path).unwrap();
        output.write_all(b"half").unwrap();
        output.flush().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        drop(output);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let mut output = Output::create(&path).unwrap();
        output.write_all(b"new").unwrap();
        output.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        assert!(Output::create(&folder).is_err());
        assert!(Output::create(&folder.join("none").join("out")).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_device_stays_a_device() {
        let mut output = Output::create(Path::new("/dev/null")).unwrap();
        output.write_all(b"gone").unwrap();
        output.commit().unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }
}
