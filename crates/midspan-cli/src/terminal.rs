//! What may be written to a terminal.
//!
//! **The rule.** Whatever the program shows to a person — reports, tables, errors, progress — goes through [`shown`]:
//! control characters other than newline and tab, and characters that change the direction of text, are written as
//! escapes like `\u001b`. This holds for every source: a peer's tokens, a producer's name, a tensor's name, an error's
//! text, a file's name. It holds for JSON too, in which `\u001b` means the same character. There are two exceptions.
//! Streams, rows and other bytes that are not text are written unchanged. The text of tokens is written unchanged if
//! standard output is not a terminal, so that a file holds exactly what the model generated.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a terminal would act on the character instead of showing it.
fn acts(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // Marks, embeddings, overrides and isolates of direction.
        '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => true,
        // Line and paragraph separators.
        '\u{2028}' | '\u{2029}' => true,
        c => c.is_control(),
    }
}

/// The text with every character that a terminal would act on replaced by an escape like `\u001b`.
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            // Writing to a String does not fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out.into()
}

/// A text as [`shown`] returns it, with newlines and tabs escaped too and without a library's backtrace. For messages,
/// which are one line.
pub fn line(text: &str) -> String {
    shown(without_backtrace(text).trim_end()).replace('\n', "\\n").replace('\t', "\\t")
}

/// The text before a backtrace, the first line of which is `   0: name`.
fn without_backtrace(text: &str) -> &str {
    let begins = |line: &str| line.starts_with(' ') && line.trim_start().starts_with("0: ");
    let mut before = 0;
    for line in text.split_inclusive('\n') {
        if begins(line) {
            return &text[..before];
        }
        before += line.len();
    }
    text
}

/// A count and what is counted, in the plural unless it is one.
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Writes a line of progress to standard output, by the rule of this module. What it tells of goes on if standard output
/// is closed.
pub fn note(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to read it.
    let _ = std::io::Write::write_all(&mut out, format!("{}\n", shown(text)).as_bytes());
}

/// Writes a message of one line to standard error.
pub fn say(text: &str) {
    // If standard error is closed, nobody can read the message.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("midspan: {}\n", line(text)).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_made_visible() {
        assert!(matches!(shown("naïve — \u{1f600}\n\t\\u001b"), Cow::Borrowed(_)));
        assert_eq!(shown("a\u{1b}[2Jb\r\u{7f}\u{9b}\u{202e}\0"), "a\\u001b[2Jb\\u000d\\u007f\\u009b\\u202e\\u0000");
        assert_eq!(line("no\u{7}t\tnow\nnor then\n"), "no\\u0007t\\tnow\\nnor then");
        assert_eq!(line("shapes differ\n   0: candle_core::error\n   1: main\n"), "shapes differ");
        assert_eq!(line(""), "");
        assert_eq!([0, 1, 2].map(|count| counted(count, "frame")), ["0 frames", "1 frame", "2 frames"]);
    }

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({"producer": "x\u{1b}[31m\u{9b}\u{7f}\u{2028}\n"});
        for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let safe = shown(&json);
            assert!(!safe.contains(acts));
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
        }
    }
}
