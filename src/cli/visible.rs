//! Makes text of strangers safe to show on a terminal.
//!
//! Trackers, peers and daemons choose messages, peer ids and error pages. Control characters in them
//! could set the title of a terminal, change colors or fake lines; characters that turn the direction
//! of text could hide parts of it. Every command shows such text through this file.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Escapes all characters that a terminal does not print as they are, as in `\u{1b}`. Line breaks
/// too: the result is one line.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c, out| out.extend(c.escape_debug()))
}

/// Like [`visible`], but keeps line breaks: for errors of several lines, which quote a file.
pub(super) fn visible_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(visible).collect();
    lines.join("\n")
}

/// Escapes the same characters in JSON text, as in `\u001b`. The text stays the same value: outside
/// strings, JSON has none of them except line breaks, which stay.
pub(super) fn visible_json(json: &str) -> String {
    let escape = |c: char, out: &mut String| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string does not fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    };
    let lines: Vec<_> = json.split('\n').map(|line| escaped(line, escape)).collect();
    lines.join("\n")
}

fn escaped(text: &str, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_hidden(c) {
            true => escape(c, &mut out),
            false => out.push(c),
        }
    }
    out.into()
}

/// Whether a terminal does not print a character as it is: control characters, characters that turn
/// the direction of text, and others that Rust does not show in debug output.
fn is_hidden(c: char) -> bool {
    c.is_control() || !c.is_ascii() && c.escape_debug().len() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_escaped_and_others_stay() {
        for (text, shown) in [
            ("", ""),
            (
                "it's \"fine\": C:\\ é 日本 🦀",
                "it's \"fine\": C:\\ é 日本 🦀",
            ),
            ("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\0"),
            ("\x7f\u{9b}31m", "\\u{7f}\\u{9b}31m"),
            (
                "\u{202e}txt\u{2066}\u{feff}",
                "\\u{202e}txt\\u{2066}\\u{feff}",
            ),
        ] {
            assert_eq!(visible(text), shown);
        }
        assert_eq!(visible_lines("a\x1b\nb\rc\n"), "a\\u{1b}\nb\\rc\n");
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({ "a": "\x1b\x7f\u{9b}\u{202e}\u{e0001}é\n\"", "b": [1] });
        for json in [
            serde_json::to_string(&value).unwrap(),
            serde_json::to_string_pretty(&value).unwrap(),
        ] {
            let shown = visible_json(&json);
            assert!(!shown.chars().any(|c| c != '\n' && is_hidden(c)), "{shown}");
            assert!(shown.contains("\\u009b"), "{shown}");
            let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(read, value);
        }
    }
}
