//! What the tests of C programs share: an installed library, compilers and the tools that programs run under.
#![allow(dead_code)]

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock};

use midspan::codec::Codec;
use midspan::model::synthetic::{self, SyntheticShape};

/// The version of the interface whose structs have the sizes below: 0.MINOR, or MAJOR from 1.0 on.
pub const INTERFACE: &str = "0.1";

/// Every public struct, with its bytes where a pointer has eight.
pub const SIZES: [(&str, usize); 17] = [
    ("midspan_bytes", 24),
    ("midspan_chunk", 192),
    ("midspan_decoder_config", 88),
    ("midspan_encoder_config", 144),
    ("midspan_error", 152),
    ("midspan_event", 208),
    ("midspan_field", 24),
    ("midspan_header", 144),
    ("midspan_limits", 20),
    ("midspan_message", 48),
    ("midspan_model_info", 88),
    ("midspan_payload", 24),
    ("midspan_quality_info", 20),
    ("midspan_range", 16),
    ("midspan_reader_config", 32),
    ("midspan_seek_entry", 16),
    ("midspan_sent", 72),
];

/// The names of the structs that the header defines, in alphabetical order.
pub fn structs() -> Vec<String> {
    let header = std::fs::read_to_string(member("include/midspan.h")).unwrap();
    let begins = header.lines().filter_map(|line| line.strip_prefix("typedef struct "));
    let mut names: Vec<_> = begins.filter_map(|line| line.strip_suffix(" {").map(str::to_string)).collect();
    names.sort();
    names
}

/// C code without its comments; no string of it may hold what begins one.
pub fn without_comments(code: &str) -> String {
    let mut rest = code;
    let mut text = String::new();
    while let Some(at) = ["/*", "//"].iter().filter_map(|begin| rest.find(begin)).min() {
        text.push_str(&rest[..at]);
        let end = if rest[at..].starts_with("/*") { "*/" } else { "\n" };
        rest = rest[at + 2..].split_once(end).unwrap().1;
        text.push_str(if end == "\n" { "\n" } else { " " });
    }
    text + rest
}

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub fn member(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Where cargo put the libraries that it built for these tests: in the folder of the tests.
pub fn libraries() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_path_buf()
}

/// Whether a test may go on without a tool. With `MIDSPAN_C_TOOLS=required` it may not.
pub fn lacks(what: &str) -> bool {
    let required = std::env::var("MIDSPAN_C_TOOLS").is_ok_and(|value| value == "required");
    assert!(!required, "{what} is not there, and MIDSPAN_C_TOOLS=required");
    eprintln!("NOT TESTED: {what} is not there");
    true
}

fn runs(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The C or C++ compiler: `CC` and `CXX`, or `cc` and `c++`.
fn compiler(source: &Path) -> (String, &'static str) {
    let (variable, usual, standard) = match source.extension().is_some_and(|extension| extension == "cpp") {
        true => ("CXX", "c++", "-std=c++17"),
        false => ("CC", "cc", "-std=c11"),
    };
    (std::env::var(variable).unwrap_or_else(|_| usual.to_string()), standard)
}

/// A folder with the library, installed as a user installs it, and the programs that are compiled against it. `None`
/// without a compiler or pkg-config. The next run of the same tests empties it.
pub fn installed() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<(PathBuf, File)>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let compilers = [compiler(Path::new("a.c")).0, compiler(Path::new("a.cpp")).0];
        for tool in compilers.iter().map(String::as_str).chain(["pkg-config"]) {
            if !runs(tool) && lacks(tool) {
                return None;
            }
        }
        // Another process with the same tests waits until this one ends.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(concat!("midspan-c-", env!("CARGO_CRATE_NAME")));
        let lock = File::create(folder.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        let install = Command::new(member("install")).arg(&folder).arg(libraries()).output().unwrap();
        assert!(install.status.success(), "{}", text(&install));
        Some((folder, lock))
    });
    folder.as_ref().map(|(folder, _)| folder.as_path())
}

/// A model of random numbers in a file. It recommends a length offset of 20.
pub fn model(prefix: &Path, name: &str, shape: &SyntheticShape, seed: u64) -> (PathBuf, Arc<Codec>) {
    let model = synthetic::model(shape, seed).with_length_offsets(vec![20; shape.qualities]).unwrap();
    let path = prefix.join(name);
    std::fs::write(&path, model.to_bytes()).unwrap();
    (path, Arc::new(Codec::new(model).unwrap()))
}

/// What pkg-config says about the installed library.
pub fn pkg_config(prefix: &Path, arguments: &[&str]) -> Vec<String> {
    let output = Command::new("pkg-config")
        .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"))
        .args(arguments)
        .arg("midspan")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_string).collect()
}

/// How a program is compiled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Build {
    /// Against the shared library.
    Shared,
    /// Against the static library.
    Static,
    /// Against static libraries alone, the system's included.
    WhollyStatic,
    /// Against the shared library, with AddressSanitizer and UndefinedBehaviorSanitizer.
    Sanitized,
}

fn try_compile(prefix: &Path, source: &Path, build: Build, arguments: &[&str]) -> Result<PathBuf, Output> {
    let (compiler, standard) = compiler(source);
    let name = source.file_name().unwrap().to_str().unwrap().replace('.', "-");
    let program = prefix.join(format!("{name}-{build:?}"));
    // Two tests may need one program: the first compiles it.
    static COMPILED: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let mut compiled = COMPILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let compiled = compiled.get_or_insert_default();
    if compiled.contains(&program) {
        return Ok(program);
    }
    let mut command = Command::new(compiler);
    command.args([standard, "-O1", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]).args(arguments);
    command.args(pkg_config(prefix, &["--cflags"])).arg(source).arg("-o").arg(&program);
    if build == Build::Sanitized {
        command.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    }
    match build {
        Build::Static => {
            let flags = pkg_config(prefix, &["--static", "--libs-only-l"]);
            command.arg(prefix.join("lib/libmidspan.a")).args(flags.iter().filter(|flag| *flag != "-lmidspan"));
        }
        Build::WhollyStatic => {
            command.arg("-static").args(pkg_config(prefix, &["--static", "--libs"]));
        }
        _ => {
            command.args(pkg_config(prefix, &["--libs"])).arg(format!("-Wl,-rpath,{}/lib", prefix.display()));
        }
    }
    let output = command.args(["-pthread", "-lm"]).output().unwrap();
    if !output.status.success() {
        return Err(output);
    }
    compiled.insert(program.clone());
    Ok(program)
}

/// Compiles a program without a warning.
pub fn compile(prefix: &Path, source: &Path, build: Build) -> PathBuf {
    try_compile(prefix, source, build, &[]).unwrap_or_else(|output| panic!("{}: {}", source.display(), text(&output)))
}

/// Whether the compiler has the sanitizers, and their programs run here.
fn sanitizes(prefix: &Path) -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let source = prefix.join("probe.c");
        std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
        let program = try_compile(prefix, &source, Build::Sanitized, &[]);
        program.is_ok_and(|program| Command::new(program).status().is_ok_and(|status| status.success()))
            || !lacks("AddressSanitizer")
    })
}

/// Whether the compiler finds the system's static libraries.
pub fn links_statically() -> bool {
    let output = Command::new(compiler(Path::new("a.c")).0).arg("-print-file-name=libc.a").output().unwrap();
    Path::new(text(&output).trim()).is_absolute() || !lacks("the static libc")
}

/// A program, or an argument in front of it that a tool needs.
pub struct Runs {
    pub name: &'static str,
    pub command: Vec<String>,
}

/// The ways to run a program: as it is, linked statically, under valgrind, with sanitizers.
pub fn ways(prefix: &Path, source: &Path) -> Vec<Runs> {
    let program = |build| compile(prefix, source, build).to_str().unwrap().to_string();
    let mut ways = vec![
        Runs { name: "shared", command: vec![program(Build::Shared)] },
        Runs { name: "static", command: vec![program(Build::Static)] },
    ];
    if runs("valgrind") || !lacks("valgrind") {
        let suppressions = format!("--suppressions={}", member("tests/valgrind.supp").display());
        let valgrind = ["valgrind", "-q", "--error-exitcode=99", "--leak-check=full", &suppressions];
        let command = valgrind.iter().map(|part| part.to_string()).chain([program(Build::Shared)]).collect();
        ways.push(Runs { name: "valgrind", command });
    }
    if sanitizes(prefix) {
        ways.push(Runs { name: "sanitizers", command: vec![program(Build::Sanitized)] });
    }
    ways
}

impl Runs {
    /// Runs it. Returns what it wrote to standard output.
    pub fn run(&self, arguments: &[&Path]) -> String {
        let output = Command::new(&self.command[0]).args(&self.command[1..]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}: {:?} {}", self.name, output.status.code(), text(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

pub fn text(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    let tail = |text: &str| text[text.floor_char_boundary(text.len().saturating_sub(4_000))..].to_string();
    format!("{}\n{}", tail(&out), tail(&error))
}
