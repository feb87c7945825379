//! Files, standard input and standard output of the commands: reads models and streams, and writes complete files.
//!
//! The path `-` is standard input or standard output. Standard output carries either a stream, rows or a file, or the
//! command's messages, never both; see [`tell`].

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, StdinLock, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};

use super::terminal::shown;
use crate::bundle::{CODEC, HOST, TOKENIZER};
use midspan::model::CodecModel;
use midspan_train::data::{HeldOut, beginning};

/// Model files of more than this many bytes are refused.
const MODEL_MAX: usize = 1 << 30;

/// The codec model in a file or a model folder; without a path, the embedded one.
///
/// # Errors
/// The file is missing, too large or not a codec model; the message names it.
pub fn codec_model(path: Option<&Path>) -> Result<CodecModel> {
    let Some(path) = path else {
        let bytes = include_bytes!("../model/codec.safetensors");
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

/// Whether a path means standard input or standard output.
pub fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// Refuses standard input among files that an option names.
///
/// # Errors
/// One of them is `-`.
pub fn no_standard(option: &str, paths: &[PathBuf]) -> Result<()> {
    if paths.iter().any(|path| is_standard(path)) {
        bail!("{option}: it takes files, not - for standard input");
    }
    Ok(())
}

/// The input's name in messages.
pub fn input_name(path: &Path) -> String {
    if is_standard(path) { "standard input".into() } else { path.display().to_string() }
}

/// An input of a command.
pub enum Input {
    /// A file, a pipe or a device.
    File(File),
    /// Standard input.
    Standard(StdinLock<'static>),
}

impl Input {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// The system's error; the message names the file.
    pub fn open(path: &Path) -> Result<Self> {
        if is_standard(path) {
            return Ok(Input::Standard(io::stdin().lock()));
        }
        Ok(Input::File(File::open(path).with_context(|| path.display().to_string())?))
    }
}

impl Read for Input {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Input::File(file) => file.read(bytes),
            Input::Standard(input) => input.read(bytes),
        }
    }
}

/// The first `bytes` bytes of a text, tokenised; `-` is standard input.
///
/// # Errors
/// It cannot be read, is not UTF-8 or too short, and those of `encode`.
pub fn held_out(
    path: &Path,
    bytes: usize,
    encode: impl FnOnce(&str) -> Result<Vec<u32>, midspan_train::Error>,
) -> Result<HeldOut> {
    if !is_standard(path) {
        return Ok(HeldOut::load(path, bytes, encode)?);
    }
    let name = input_name(path);
    let text = beginning(Input::open(path)?, bytes).with_context(|| name.clone())?;
    Ok(HeldOut::from_text(&name, &text, bytes, encode)?)
}

/// Standard output was closed by its reader, which is not an error.
#[derive(Debug)]
pub struct OutputClosed;

impl std::fmt::Display for OutputClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("standard output was closed")
    }
}

impl std::error::Error for OutputClosed {}

/// Turns a closed standard output into [`OutputClosed`], and adds a context to other errors.
fn judged(outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        other => other.context("standard output"),
    }
}

/// Writes text to standard output by the rule of [`super::terminal`], and flushes it.
///
/// # Errors
/// [`OutputClosed`] if the reader has closed it; otherwise the system's error.
pub fn print(text: std::fmt::Arguments<'_>) -> Result<()> {
    print_raw(&shown(&text.to_string()))
}

/// Writes text to standard output unchanged, and flushes it.
///
/// # Errors
/// As [`print()`].
pub fn print_raw(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    judged(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Which regular file a path leads to, whatever its names are. `None` if it leads to none: nothing is lost of a pipe, a
/// terminal or another device. `standard` is what `-` means.
fn regular_file(path: &Path, standard: fn() -> io::Result<File>) -> Option<FileId> {
    let found = if is_standard(path) { standard().and_then(|file| file.metadata()) } else { std::fs::metadata(path) };
    let found = found.ok().filter(std::fs::Metadata::is_file)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Some((found.dev(), found.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = found;
        std::fs::canonicalize(path).ok()
    }
}

/// What tells one file from another: device and inode, or where there are none, the path without links.
#[cfg(unix)]
type FileId = (u64, u64);
#[cfg(not(unix))]
type FileId = PathBuf;

/// Refuses outputs that would replace an input, under any of its names.
///
/// # Errors
/// An output and an input are one regular file; the message names the input.
pub fn keep_inputs(
    outs: impl IntoIterator<Item = impl AsRef<Path>>,
    inputs: impl IntoIterator<Item = impl AsRef<Path>>,
) -> Result<()> {
    let places: Vec<FileId> = outs.into_iter().filter_map(|out| regular_file(out.as_ref(), standard_output)).collect();
    for input in inputs {
        if regular_file(input.as_ref(), standard_input).is_some_and(|input| places.contains(&input)) {
            bail!("{}: the output would replace this input", input_name(input.as_ref()));
        }
    }
    Ok(())
}

/// The files that `--model` or a host's folder leads to: the file itself, or those in the model folder.
pub fn model_files(model: Option<&Path>) -> Vec<PathBuf> {
    match model {
        Some(folder) if folder.is_dir() => [TOKENIZER, HOST, CODEC].map(|name| folder.join(name)).to_vec(),
        other => other.into_iter().map(Path::to_path_buf).collect(),
    }
}

/// Writes a file as [`Output`] does.
///
/// # Errors
/// As [`Output::create`] and [`Output::commit`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut out = Output::create(path)?;
    out.write_bytes(bytes)?;
    out.commit()
}

/// Reports what a command did: on standard output, or on standard error if `standard` says that the command's own
/// output goes to standard output.
///
/// # Errors
/// As [`print()`].
pub fn tell(standard: bool, text: std::fmt::Arguments<'_>) -> Result<()> {
    if !standard {
        return print(text);
    }
    // If standard error is closed, nobody can read the message.
    let _ = io::stderr().write_all(shown(&text.to_string()).as_bytes());
    Ok(())
}

/// Standard output for many small texts, by the rule of [`super::terminal`]. The last text may be lost unless
/// [`Printer::pass_on`] is called.
pub struct Printer(BufWriter<io::StdoutLock<'static>>);

impl Printer {
    /// Locks standard output, so that nobody else can write to it.
    pub fn open() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }

    /// Writes text.
    ///
    /// # Errors
    /// As [`print()`].
    pub fn print(&mut self, text: &str) -> Result<()> {
        judged(self.0.write_all(shown(text).as_bytes()))
    }

    /// Flushes what was written so far.
    ///
    /// # Errors
    /// As [`print()`].
    pub fn pass_on(&mut self) -> Result<()> {
        judged(self.0.flush())
    }
}

/// The temporary names of files that are being written.
static PARTS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn parts() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    PARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT, SIGTERM and SIGHUP remove incomplete files before they end the program, except that SIGHUP
/// stays ignored if it is, as under nohup.
///
/// Commands that write a checkpoint after a signal have their own handlers and do not call this.
#[cfg(unix)]
pub fn remove_parts_on_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let ending = if is_ignored(SIGHUP) { &[SIGINT, SIGTERM][..] } else { &[SIGINT, SIGTERM, SIGHUP] };
        // If no handler can be installed, a signal does what it always does.
        let Ok(mut signals) = signal_hook::iterator::Signals::new(ending) else { return };
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // Locked until the end, so that no other part begins.
                let parts = parts();
                for part in parts.iter() {
                    let _ = std::fs::remove_file(part);
                }
                let _ = signal_hook::low_level::emulate_default_handler(signal);
                std::process::exit(128 + signal);
            }
        });
    });
}

/// Whether the process ignores a signal, or the system does not say.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_none_or(|ignored| ignored >> (signal - 1) & 1 == 1)
}

/// On this system signals end the program as usual, and may leave incomplete files.
#[cfg(not(unix))]
pub fn remove_parts_on_signals() {}

/// An incomplete file. It is removed on drop unless it was renamed before.
struct Part(PathBuf);

impl Part {
    /// Creates a file in the folder of `target`.
    fn create(target: &Path, file_name: &std::ffi::OsStr) -> io::Result<(File, Part)> {
        let mut parts = parts();
        let mut number = 0;
        loop {
            let mut name = file_name.to_os_string();
            match number {
                0 => name.push(format!(".{}.part", std::process::id())),
                _ => name.push(format!(".{}-{number}.part", std::process::id())),
            }
            let path = target.with_file_name(name);
            match File::options().read(true).write(true).create_new(true).open(&path) {
                // A process with the same id was killed and left this file.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => number += 1,
                Err(error) => return Err(error),
                Ok(file) => {
                    parts.insert(path.clone());
                    return Ok((file, Part(path)));
                }
            }
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut parts = parts();
        if parts.remove(&self.0) {
            // An incomplete file is of no use to anyone.
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// How an output is written.
enum Destination {
    /// Directly: a pipe or a device.
    Direct,
    /// To a temporary file that is renamed to `target` when it is complete.
    Name { target: PathBuf, part: Part },
    /// Copied to this file when it is complete.
    Copy(File),
}

/// An output of a command. A regular file gets its name only when it is complete; until then an older file of that name
/// is kept. Standard output, a pipe or a device is written to directly.
pub struct Output {
    /// Its name in messages.
    name: String,
    standard: bool,
    to: Destination,
    file: BufWriter<File>,
}

/// Standard output as a file, without a line buffer.
fn standard_output() -> io::Result<File> {
    #[cfg(unix)]
    let owned = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned();
    #[cfg(windows)]
    let owned = std::os::windows::io::AsHandle::as_handle(&io::stdout()).try_clone_to_owned();
    owned.map(File::from)
}

/// Standard input as a file.
fn standard_input() -> io::Result<File> {
    #[cfg(unix)]
    let owned = std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned();
    #[cfg(windows)]
    let owned = std::os::windows::io::AsHandle::as_handle(&io::stdin()).try_clone_to_owned();
    owned.map(File::from)
}

/// Whether a path names the same file as standard output, as /dev/stdout does.
fn leads_to_standard_output(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let place = |found: std::fs::Metadata| (found.dev(), found.ino());
        let own = standard_output().and_then(|file| file.metadata()).map(place);
        let named = std::fs::metadata(path).map(place);
        // /dev/null is excepted: many programs write to it, and nothing gets lost.
        matches!((own, named), (Ok(own), Ok(named)) if own == named) && path != Path::new("/dev/null")
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

impl Output {
    /// Begins a temporary file in the folder of `path`, or opens `path` if it is not a regular file; `-` is standard
    /// output.
    ///
    /// # Errors
    /// The folder does not exist or cannot be written to, or the path is a folder.
    pub fn create(path: &Path) -> Result<Self> {
        if is_standard(path) || leads_to_standard_output(path) {
            let file = standard_output().context("standard output")?;
            let name = "standard output".to_string();
            return Ok(Self { name, standard: true, to: Destination::Direct, file: BufWriter::new(file) });
        }
        let name = path.display().to_string();
        let found = std::fs::metadata(path);
        if found.as_ref().is_ok_and(std::fs::Metadata::is_dir) {
            bail!("{name}: is a folder");
        }
        if found.as_ref().is_ok_and(|found| !found.is_file()) {
            let file = File::options().write(true).open(path).with_context(|| name.clone())?;
            return Ok(Self { name, standard: false, to: Destination::Direct, file: BufWriter::new(file) });
        }
        let target = if found.is_ok() { path.canonicalize().context(name.clone())? } else { path.to_path_buf() };
        let Some(file_name) = target.file_name() else { bail!("{name}: names no file") };
        let (file, part) = Part::create(&target, file_name).with_context(|| name.clone())?;
        Ok(Self { name, standard: false, to: Destination::Name { target, part }, file: BufWriter::new(file) })
    }

    /// As [`Output::create`], but what is written can be read and changed until [`Output::commit`]. Output that is not
    /// for a regular file is kept in an unnamed temporary file until then.
    ///
    /// # Errors
    /// As [`Output::create`].
    pub fn create_seekable(path: &Path) -> Result<Self> {
        let mut output = Self::create(path)?;
        if matches!(output.to, Destination::Direct) {
            let file = tempfile::tempfile().context("a temporary file")?;
            let direct = std::mem::replace(&mut output.file, BufWriter::new(file));
            output.to = Destination::Copy(direct.into_inner().context("a temporary file")?);
        }
        Ok(output)
    }

    /// An unnamed temporary file in the folder of this output.
    ///
    /// # Errors
    /// The system's error.
    pub fn temporary_file(&self) -> Result<File> {
        let file = match &self.to {
            Destination::Name { target, .. } => {
                let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
                tempfile::tempfile_in(folder.unwrap_or(Path::new(".")))
            }
            Destination::Direct | Destination::Copy(_) => tempfile::tempfile(),
        };
        file.with_context(|| self.name.clone())
    }

    /// Whether it goes to standard output.
    pub fn is_standard(&self) -> bool {
        self.standard
    }

    /// Whether it is a pipe or a device, which is written to directly.
    pub fn is_direct(&self) -> bool {
        matches!(self.to, Destination::Direct)
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another handle of the file, which shares its position with this one.
    ///
    /// # Errors
    /// The system's error.
    pub fn handle(&mut self) -> Result<File> {
        let name = self.name.clone();
        self.file.flush().and_then(|()| self.file.get_ref().try_clone()).context(name)
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// [`OutputClosed`] if the reader has closed standard output; otherwise the system's error, with the output's name.
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let outcome = self.file.write_all(bytes);
        self.judged(outcome)
    }

    fn judged(&self, outcome: io::Result<()>) -> Result<()> {
        if self.standard { judged(outcome) } else { outcome.with_context(|| self.name.clone()) }
    }

    /// Flushes what was written so far, if the output is written directly.
    ///
    /// # Errors
    /// As [`Output::write_bytes`].
    pub fn pass_on(&mut self) -> Result<()> {
        if !self.is_direct() {
            return Ok(());
        }
        let outcome = self.file.flush();
        self.judged(outcome)
    }

    /// Renames the complete file, or copies it to its destination.
    ///
    /// # Errors
    /// The system's error; the temporary file is then removed.
    pub fn commit(mut self) -> Result<()> {
        let outcome = self.finish();
        self.judged(outcome)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.file.flush()?;
        match &mut self.to {
            Destination::Direct => Ok(()),
            Destination::Name { target, part } => {
                self.file.get_ref().sync_all()?;
                let mut parts = parts();
                std::fs::rename(&part.0, target)?;
                parts.remove(&part.0);
                Ok(())
            }
            Destination::Copy(out) => {
                let mut file = self.file.get_ref();
                file.seek(SeekFrom::Start(0))?;
                io::copy(&mut file, out)?;
                out.flush()
            }
        }
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
        // A file left by a program that was killed.
        let left = folder.join(format!("out.{}.part", std::process::id()));
        std::fs::write(&left, "old").unwrap();
        Output::create(&path).unwrap().commit().unwrap();
        assert_eq!(std::fs::read(&left).unwrap(), b"old");
        assert!(parts().iter().all(|part| !part.starts_with(&folder)));
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
