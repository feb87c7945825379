//! Runs a program of the workspace as a user does, and makes folders for its files.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use midspan::model::synthetic::Random;
use tempfile::TempDir;

/// A run that takes longer counts as hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// The result of a run.
#[derive(Debug)]
pub struct Run {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Run {
    /// The run without the warning with which its standard error begins, as where hidden states are random: they are
    /// unlike those that a codec was made for.
    #[track_caller]
    pub fn warned(mut self) -> Self {
        let warned = self.stderr.strip_prefix("midspan: warning: ").and_then(|warned| warned.split_once('\n'));
        let (_, after) = warned.unwrap_or_else(|| panic!("no warning: {self:?}"));
        self.stderr = after.to_string();
        self
    }

    /// Asserts exit status 0 and nothing on standard error.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self
    }

    /// Asserts a non-zero exit status and one line on standard error that contains each of `parts`.
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

    /// Standard output as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The program with arguments and with its output captured. Backtraces are enabled, because none may be printed.
pub fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env("RUST_BACKTRACE", "1");
    command
}

/// Runs the program with a limit on file sizes, `blocks` blocks of 512 bytes, which has the effect of a full disk.
#[cfg(unix)]
pub fn on_a_full_disk(program: &str, blocks: usize, arguments: &[&str]) -> Run {
    let mut shell = Command::new("sh");
    let script = format!("ulimit -f {blocks}; exec \"$@\"");
    shell.args(["-c", &script, "sh", program]).args(arguments);
    run(shell)
}

/// Runs a command to its end without input.
pub fn run(mut command: Command) -> Run {
    finish(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// The result of a run whose standard output is not text.
#[derive(Debug)]
pub struct Bytes {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Bytes {
    /// Runs a command with bytes on standard input.
    pub fn from_run(mut command: Command, input: Vec<u8>) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Writing may fail, because a program that refuses its input does not read all of it.
        let feed = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        let _ = feed.join().unwrap();
        Self { code: output.status.code(), stdout: output.stdout, stderr: String::from_utf8(output.stderr).unwrap() }
    }
}

/// Waits for a child whose output is captured.
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

/// A temporary folder for a test, which is removed on drop.
pub struct Folder(TempDir);

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Folder {
    /// An empty folder.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_string()
    }

    /// Writes a file. Returns its path.
    pub fn file(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
        self.path(name)
    }

    /// The names of its files, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Text of simple sentences.
pub fn text(sentences: usize) -> String {
    let words = ["the", "old", "house", "by", "a", "river", "was", "cold", "and", "dark", "in", "November", "evening"];
    let mut random = Random::new(9);
    let mut word = || words[random.within(0, words.len() as i32 - 1) as usize];
    (0..sentences).map(|_| format!("It {} {} {} {}.\n", word(), word(), word(), word())).collect()
}

/// A folder with texts, a tokenizer and a host.
pub struct Bench {
    /// The folder.
    pub folder: Folder,
    /// The path of the text to learn from.
    pub train: String,
    /// That of the held-out text.
    pub valid: String,
    /// That of the tokenizer.
    pub tokenizer: String,
    /// That of a host after five steps.
    pub host: String,
    /// Runs the program, which has the command `train`.
    program: fn(&[&str]) -> Run,
}

impl Bench {
    /// Learns a tokenizer and a host with the program.
    pub fn new(program: fn(&[&str]) -> Run) -> Self {
        let folder = Folder::new();
        let train = folder.file("train.txt", text(2_000).as_bytes());
        let valid = folder.file("valid.txt", text(300).as_bytes());
        let tokenizer = folder.path("tokenizer.json");
        program(&["train", "tokenizer", "--text", &train, "--out", &tokenizer, "--vocab", "300"]).succeeded();
        let host = format!("{}/last.safetensors", folder.path("base"));
        let bench = Self { folder, train, valid, tokenizer, host, program };
        let shape = ["--width", "32", "--layers", "3", "--split", "1", "--heads", "2", "--context", "32"];
        let out = bench.folder.path("base");
        program(&[&["train", "base", "--out", &out, "--steps", "5"], &bench.data()[..], &shape].concat()).succeeded();
        bench
    }

    /// Arguments for the texts, the tokenizer and short steps.
    pub fn data(&self) -> [&str; 12] {
        let [text, valid, tokenizer] = ["--text", "--valid", "--tokenizer"];
        let [rows, micro, warmup] = ["--rows", "--micro", "--warmup"];
        [text, &self.train, valid, &self.valid, tokenizer, &self.tokenizer, rows, "4", micro, "2", warmup, "2"]
    }

    /// Learns a codec with the host.
    pub fn joint(&self, out: &str, more: &[&str]) -> Run {
        let out = self.folder.path(out);
        let codec = ["--from", &self.host, "--h-widths", "32,16,8", "--g-y-widths", "8,16,32"];
        (self.program)(&[&["train", "joint", "--out", &out], &self.data()[..], &codec, more].concat())
    }
}
