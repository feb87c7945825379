//! What may reach a terminal.
//!
//! **The rule.** Whatever the program shows to a person — reports, tables, errors, progress — goes through [`shown`]:
//! control characters other than newline and tab, and characters that turn the direction of text, are written as `\u001b`
//! is, whoever they come from: a peer's tokens, a producer's name, a tensor's name, an error's text, a file's name. JSON
//! goes through it too, where `\u001b` means the same character. There are two exceptions. Streams, rows and other bytes
//! that are no text are written as they are. The text of tokens is written as it is where standard output is no terminal,
//! so that a file holds what the model said.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a terminal would act on the character in place of showing it.
fn acts(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // Marks, embeddings, overrides and isolates of direction.
        '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => true,
        // Separators of lines and paragraphs.
        '\u{2028}' | '\u{2029}' => true,
        c => c.is_control(),
    }
}

/// The text with characters that a terminal would act on made visible, as `\u001b`.
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            // A String takes every character.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out.into()
}

/// The first line of a text, as [`shown`], tabs too: for messages, which are one line.
pub fn line(text: &str) -> String {
    shown(text.lines().next().unwrap_or("")).replace('\t', "\\t")
}

/// Says something on standard error, one line.
pub fn say(text: &str) {
    // Where standard error is closed there is no one to tell.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("midspan: {}\n", line(text)).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_made_visible() {
        assert!(matches!(shown("naïve — \u{1f600}\n\t\\u001b"), Cow::Borrowed(_)));
        assert_eq!(shown("a\u{1b}[2Jb\r\u{7f}\u{9b}\u{202e}\0"), "a\\u001b[2Jb\\u000d\\u007f\\u009b\\u202e\\u0000");
        assert_eq!(line("no\u{7}t\tnow\nnever"), "no\\u0007t\\tnow");
        assert_eq!(line(""), "");
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
