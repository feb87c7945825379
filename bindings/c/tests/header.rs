//! The committed header is what cbindgen makes of the code, and says what the library does.

mod support;

use std::path::Path;

use midspan::error::ErrorKind;
use midspan_c::config::*;
use midspan_c::decoder::*;
use midspan_c::encoder::*;
use midspan_c::error::*;
use midspan_c::event::*;
use midspan_c::header::*;
use midspan_c::model::*;
use midspan_c::output::*;
use midspan_c::reader::*;
use midspan_c::result::*;
use support::{INTERFACE, SIZES, structs, without_comments};

/// In the order of the header.
const SOURCES: [&str; 12] = [
    "result", "error", "output", "config", "header", "model", "encoder", "event", "decoder", "reader", "seek", "writer",
];

fn made() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let builder = SOURCES.iter().fold(cbindgen::Builder::new().with_config(config), |builder, source| {
        builder.with_src(root.join("src").join(source).with_extension("rs"))
    });
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn the_header_is_what_cbindgen_makes_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/midspan.h");
    let made = made();
    if std::env::var_os("MIDSPAN_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let line = made.lines().zip(found.lines()).position(|(made, found)| made != found);
    assert!(
        made == found,
        "include/midspan.h is not that of the code, from line {line:?}: MIDSPAN_WRITE_HEADER=1 writes it"
    );
}

/// `WrongModel` as C writes it: `WRONG_MODEL`.
fn constant(name: &str) -> String {
    let mut text = String::new();
    let mut before = ' ';
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        let next_is_lower = letters.peek().is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && before != ' ' && (before.is_lowercase() || next_is_lower) {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
        before = letter;
    }
    text
}

#[test]
fn every_number_of_the_specification_has_its_name() {
    let header = made();
    let defined: Vec<&str> = header.lines().filter_map(|line| line.strip_prefix("#define MIDSPAN_ERROR_")).collect();
    for kind in ErrorKind::ALL {
        let line = format!("{} {}", constant(&format!("{kind:?}")), kind.code());
        assert!(defined.contains(&line.as_str()), "{line}");
    }
    // Five are the library's own.
    assert_eq!(defined.len(), ErrorKind::ALL.len() + 5);
    let own = defined.iter().filter(|line| line.contains(" -")).count();
    assert_eq!(own, 5);
}

/// A function without a word about its errors, arguments or results is a gap in the documentation.
#[test]
fn every_function_is_documented() {
    let header = made();
    let lines: Vec<&str> = header.lines().collect();
    let mut functions = 0;
    for (at, line) in lines.iter().enumerate() {
        let begins = line.starts_with("midspan_result midspan_") || line.starts_with("void midspan_");
        if !begins && !line.starts_with("const char *midspan_") && !line.starts_with("uint32_t midspan_") {
            continue;
        }
        functions += 1;
        assert_eq!(lines[at - 1].trim(), "*/", "{line}");
        let start = lines[..at].iter().rposition(|line| line.trim().starts_with("/*")).unwrap();
        let fails = line.starts_with("midspan_result ");
        assert!(!fails || lines[start..at].iter().any(|line| line.contains("Errors: ")), "{line}");
    }
    let sources = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let code: String = sources.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    assert_eq!(functions, code.matches("#[unsafe(no_mangle)]").count());
}

/// The interface's version: 0.MINOR, or MAJOR from 1.0 on.
fn interface() -> String {
    match MIDSPAN_VERSION_MAJOR {
        0 => format!("0.{MIDSPAN_VERSION_MINOR}"),
        major => major.to_string(),
    }
}

/// The header's structs with their fields, types, numbers and functions, one a line, without the version's own numbers.
fn declarations() -> Vec<String> {
    let header = without_comments(&made());
    let mut found = Vec::new();
    let mut declaration = String::new();
    let mut only_in_cpp = false;
    for line in header.lines().map(str::trim) {
        match line.split_whitespace().next() {
            Some("#ifdef") => only_in_cpp = line == "#ifdef __cplusplus",
            Some("#endif") => only_in_cpp = false,
            Some("#define") if !line.contains(" MIDSPAN_VERSION_") && line != "#define MIDSPAN_H" => {
                found.push(line.to_string())
            }
            Some(word) if !word.starts_with('#') && !only_in_cpp => {
                declaration += line;
                declaration.push(' ');
                let in_a_struct = declaration.contains('{') && !declaration.contains('}');
                if line.ends_with(';') && !in_a_struct {
                    found.push(std::mem::take(&mut declaration).trim().to_string());
                }
            }
            _ => {}
        }
    }
    assert_eq!(declaration, "");
    found
}

/// Programs that were compiled with an earlier header of the same interface version go on working: what it declared
/// stays, to the letter. Only the version may take something away or change it, and then begins a file of its own.
#[test]
fn declarations_stay_within_an_interface_version() {
    let name = format!("tests/interface-{}.txt", interface());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&name);
    let declarations = declarations();
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    for line in kept.lines() {
        assert!(declarations.iter().any(|declaration| declaration == line), "changed or gone: {line}");
    }
    if std::env::var_os("MIDSPAN_WRITE_HEADER").is_some() {
        std::fs::write(&path, declarations.join("\n") + "\n").unwrap();
        return;
    }
    for line in &declarations {
        assert!(kept.lines().any(|kept| kept == line), "not in {name}, MIDSPAN_WRITE_HEADER=1 adds it: {line}");
    }
}

/// A struct may change with the version alone; then the sizes change here, and their version.
#[test]
#[cfg(target_pointer_width = "64")]
fn structs_keep_their_sizes_within_an_interface_version() {
    let version = interface();
    assert_eq!(version, INTERFACE, "a new version: its structs may change, and then SIZES with them");
    macro_rules! sizes {
        ($($name:ident),+) => { [$((stringify!($name), size_of::<$name>())),+] };
    }
    let found = sizes!(
        midspan_bytes,
        midspan_chunk,
        midspan_decoder_config,
        midspan_encoder_config,
        midspan_error,
        midspan_event,
        midspan_field,
        midspan_header,
        midspan_limits,
        midspan_message,
        midspan_model_info,
        midspan_payload,
        midspan_quality_info,
        midspan_range,
        midspan_reader_config,
        midspan_seek_entry,
        midspan_sent
    );
    assert_eq!(found, SIZES);
    assert_eq!(structs(), SIZES.map(|(name, _)| name));
}

#[test]
fn the_version_is_one_number() {
    assert_eq!(midspan_version_number(), MIDSPAN_VERSION_NUMBER);
    let [_, major, minor, patch] = midspan_version_number().to_be_bytes();
    assert_eq!(format!("{major}.{minor}.{patch}"), env!("CARGO_PKG_VERSION").split('-').next().unwrap());
    for (name, number) in
        [("MAJOR", MIDSPAN_VERSION_MAJOR), ("MINOR", MIDSPAN_VERSION_MINOR), ("PATCH", MIDSPAN_VERSION_PATCH)]
    {
        assert!(made().contains(&format!("#define MIDSPAN_VERSION_{name} {number}\n")));
    }
}
