//! The committed header is what cbindgen makes of the code, and says what the library does.

use std::path::Path;

use midspan::error::ErrorKind;

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
        if !begins && !line.starts_with("const char *midspan_") {
            continue;
        }
        functions += 1;
        assert_eq!(lines[at - 1].trim(), "*/", "{line}");
        let start = lines[..at].iter().rposition(|line| line.trim().starts_with("/*")).unwrap();
        let fails = line.starts_with("midspan_result ");
        assert!(!fails || lines[start..at].iter().any(|line| line.contains("Errors: ")), "{line}");
    }
    assert_eq!(functions, header.matches("(").count().min(functions));
    assert!(functions > 90, "{functions}");
}
