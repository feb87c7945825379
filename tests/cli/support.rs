//! Runs of the program, folders for their files, and files of hidden states.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use midspan::codec::quantiser;
use midspan::model::CodecModel;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// A run that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a run left behind.
#[derive(Debug)]
pub struct Run {
    /// None where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Exit status 0 and nothing on standard error.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self
    }

    /// A non-zero exit status and one line on standard error, which says each of `parts`.
    #[track_caller]
    pub fn refused(self, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(self.stderr.starts_with("midspan: ") && self.stderr.ends_with('\n'), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is missing: {self:?}");
        }
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The program with arguments, its output caught, and backtraces asked for: none may be seen.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_midspan"));
    command.args(arguments).env("RUST_BACKTRACE", "1");
    command
}

pub fn midspan(arguments: &[&str]) -> Run {
    run(command(arguments))
}

/// The program where no file may grow beyond so many blocks of 512 bytes: what a full disk looks like to it.
#[cfg(unix)]
pub fn on_a_full_disk(blocks: usize, arguments: &[&str]) -> Run {
    let mut shell = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    shell.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_midspan")]).args(arguments);
    run(shell)
}

pub fn run(mut command: Command) -> Run {
    finish(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// What a run left behind whose standard output is no text.
#[derive(Debug)]
pub struct Bytes {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Bytes {
    /// Runs a command with bytes on standard input.
    pub fn of(mut command: Command, input: Vec<u8>) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A program that refuses its input does not read all of it.
        let feed = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        let _ = feed.join().unwrap();
        Self { code: output.status.code(), stdout: output.stdout, stderr: String::from_utf8(output.stderr).unwrap() }
    }
}

/// Waits for a child whose output is caught.
pub fn finish(mut child: Child) -> Run {
    fn read(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                stream.read_to_end(&mut bytes).unwrap();
            }
            String::from_utf8(bytes).unwrap()
        })
    }
    let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the program hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Run { code: status.code(), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// A folder of a test's own, which goes with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }

    /// Writes a file; gives its path.
    pub fn file(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.0.join(name), bytes).unwrap();
        self.path(name)
    }

    /// The names of its files, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The folder of the embedded model.
pub const DEFAULT_MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/default");

/// The embedded codec model.
pub fn default_model() -> CodecModel {
    let bytes = std::fs::read(format!("{DEFAULT_MODEL}/codec.safetensors")).unwrap();
    CodecModel::from_bytes(&bytes, 1 << 30).unwrap()
}

/// Hidden states for the embedded model, `[frames, E]`: a few steps around the offset, within the step too.
pub fn hidden_states(frames: usize) -> Vec<f32> {
    let model = default_model();
    let mut state = 1_u64;
    (0..frames)
        .flat_map(|_| model.step(0).iter().zip(model.offset(0)))
        .map(|(step, offset)| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let steps = (state >> 40) as f32 / (1 << 24) as f32 * 5.0 - 2.5;
            steps * step + offset
        })
        .collect()
}

/// Y of hidden states and what it is reconstructed to, both `[T, E]`.
pub fn quantised(hidden: &[f32]) -> (Vec<i16>, Vec<f32>) {
    let model = default_model();
    let (mut y, mut back) = (Vec::new(), Vec::new());
    let reciprocal = model.reciprocal_step(0).unwrap();
    quantiser::quantise(hidden, model.offset(0), model.analysis(), reciprocal, model.y_range(), &mut y).unwrap();
    quantiser::reconstruct(&y, model.step(0), model.synthesis(), model.offset(0), &mut back);
    (y, back)
}

/// A .safetensors file with one tensor, "hidden".
pub fn tensor_file(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let view = TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    safetensors::serialize([("hidden", view)], None).unwrap()
}

/// A .safetensors file with hidden states, `[T, E]`.
pub fn states_file(hidden: &[f32]) -> Vec<u8> {
    let width = default_model().hidden_width();
    let bytes: Vec<u8> = hidden.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor_file(Dtype::F32, &[hidden.len() / width, width], &bytes)
}

/// What `decode` wrote: hidden states and Y, `[T, E]`, W, `[T, C]`.
pub fn decoded_file(path: &str) -> (Vec<f32>, Vec<i16>, Vec<i16>) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let model = default_model();
    let tensor = |name: &str, dtype: Dtype, columns: usize| {
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), dtype, "{name}");
        assert_eq!(tensor.shape()[1..], [columns], "{name}");
        tensor.data().to_vec()
    };
    let integers =
        |bytes: Vec<u8>| bytes.as_chunks().0.iter().map(|value| i16::from_le_bytes(*value)).collect::<Vec<_>>();
    let hidden = tensor("hidden", Dtype::F32, model.hidden_width());
    (
        hidden.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
        integers(tensor("y", Dtype::I16, model.hidden_width())),
        integers(tensor("w", Dtype::I16, model.hyper_prior_width())),
    )
}
