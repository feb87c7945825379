//! Outputs that lie where an input does, or where no regular file is.

use crate::calibrate::capture;
use crate::fit::{llama, tokenizer};
use crate::support::{DEFAULT_MODEL, Folder, Run, hidden_states, midspan, states_file, text};

/// Asserts that a command is refused, and that none of the folder's files changes.
#[track_caller]
fn keeps(folder: &Folder, name: &str, arguments: &[&str]) {
    let files = || -> Vec<(String, Vec<u8>)> {
        let names = folder.names().into_iter().filter(|name| std::path::Path::new(&folder.path(name)).is_file());
        names.map(|name| (name.clone(), std::fs::read(folder.path(&name)).unwrap())).collect()
    };
    let before = files();
    midspan(arguments).refused(&[name, "the output would replace this input"]);
    assert!(files() == before, "{arguments:?}");
}

/// A model folder in the folder of a test.
fn model_folder(folder: &Folder) {
    for file in ["host.safetensors", "tokenizer.json", "codec.safetensors"] {
        std::fs::copy(format!("{DEFAULT_MODEL}/{file}"), folder.path(file)).unwrap();
    }
}

#[test]
fn no_command_replaces_what_it_reads() {
    let folder = Folder::new();
    model_folder(&folder);
    let (bundle, codec, tokens) = (folder.path(""), folder.path("codec.safetensors"), folder.path("tokenizer.json"));
    let states = folder.file("states", &states_file(&hidden_states(3)));
    let text = folder.file("text", text(60).as_bytes());
    let stream = folder.path("stream");
    midspan(&["encode", &states, "-o", &stream]).succeeded();
    for model in [&codec, &bundle] {
        keeps(&folder, "codec.safetensors", &["encode", &states, "-o", &codec, "--model", model]);
        keeps(&folder, "codec.safetensors", &["decode", &stream, "-o", &codec, "--model", model]);
    }
    // Another name of the same file.
    std::fs::hard_link(&states, folder.path("other-name")).unwrap();
    keeps(&folder, "states", &["encode", &states, "-o", &folder.path("other-name")]);
    keeps(&folder, "text", &["eval", "--text", &text, "--export", &text]);
    keeps(&folder, "text", &["eval", "--text", &text, "--frames", "64", "--rate-only", "--plot", &text]);
    keeps(&folder, "codec.safetensors", &["eval", "--model", &bundle, "--text", &text, "--export", &codec]);
    keeps(&folder, "tokenizer.json", &["calibrate", "--host", &bundle, "--text", &text, "--out", &tokens]);
    keeps(&folder, "codec.safetensors", &["length-offset", "--model", &bundle, "--text", &text, "--out", &codec]);
    keeps(&folder, "text", &["train", "tokenizer", "--text", &text, "--out", &text]);
    keeps(&folder, "states", &["train", "compact", "--from", &states, "--out", &states]);
    let texts = ["--calibrate", &text, "--compare", &text];
    let freeze = ["freeze", "--from", &states, "--tokenizer", &tokens, "--out", &bundle];
    keeps(&folder, "tokenizer.json", &[&freeze[..], &texts].concat());
    let (llama, tokens) = (folder.file("llama", &llama()), folder.file("tokens", &tokenizer()));
    let host = ["--llama", &llama, "--tokenizer", &tokens, "--split", "1"];
    for out in [&llama, &tokens] {
        let name = out.rsplit('/').next().unwrap();
        keeps(&folder, name, &[&["calibrate", "--text", &text, "--out", out], &host[..]].concat());
    }
    let place = ["--lambda", "1", "--results", &bundle, "--work", &folder.path("work")];
    keeps(&folder, "text", &[&["fit", "--valid", &text, "--plot", &text], &host[..], &place].concat());
    let captured = folder.file("fit-states-lambda1-seed1.safetensors", &capture(40));
    keeps(&folder, "fit-states", &[&["fit", "--states", &captured], &place[..]].concat());
}

/// What a FIFO's reader gets of a command that writes to it.
#[cfg(unix)]
fn through_fifo(folder: &Folder, run: impl FnOnce(&str) -> Run) -> Vec<u8> {
    use std::os::unix::fs::FileTypeExt;
    let fifo = folder.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Opened for writing too, so that a command that never opens it leaves no reader waiting.
    let mut reader = std::fs::File::options().read(true).write(true).open(&fifo).unwrap();
    run(&fifo).succeeded();
    assert!(std::fs::metadata(&fifo).unwrap().file_type().is_fifo(), "the FIFO is gone");
    std::fs::remove_file(&fifo).unwrap();
    let mut bytes = vec![0; 1 << 16];
    let count = std::io::Read::read(&mut reader, &mut bytes).unwrap();
    bytes.truncate(count);
    bytes
}

#[cfg(unix)]
#[test]
fn a_fifo_is_written_through_and_stays() {
    let folder = Folder::new();
    let states = folder.file("states", &capture(300));
    let codec = folder.path("codec");
    let calibrate = |out: &str| midspan(&["calibrate", "--states", &states, "--distortion", "0.01", "--out", out]);
    calibrate(&codec).succeeded();
    assert!(through_fifo(&folder, calibrate) == std::fs::read(&codec).unwrap());
    let text = folder.file("text", text(60).as_bytes());
    let tokenizer = folder.path("tokenizer");
    let learn = |out: &str| midspan(&["train", "tokenizer", "--text", &text, "--vocab", "300", "--out", out]);
    learn(&tokenizer).succeeded();
    assert!(through_fifo(&folder, learn) == std::fs::read(&tokenizer).unwrap());
    // A link leads to the file that is replaced.
    let link = folder.path("link");
    std::os::unix::fs::symlink(&codec, &link).unwrap();
    learn(&link).succeeded();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(std::fs::read(&codec).unwrap() == std::fs::read(&tokenizer).unwrap());
}
