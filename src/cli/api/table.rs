//! Tables for terminals, and texts of answers that are safe there.

use serde_json::Value;

use crate::cli::visible::visible;

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Spaces between two columns, and before the second line of a row.
const GAP: &str = "  ";
/// Room that a last column has at least, unless its texts are shorter.
const LAST: usize = 20;

/// A text, number or truth value of an answer, with what a terminal must not see escaped. "-" for null.
pub(in crate::cli) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => visible(text).into_owned(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        other => visible(&other.to_string()).into_owned(),
    }
}

/// A table: a line of names, then the rows. The last column is cut where the terminal ends. If the others leave
/// too little room for it, each row takes two lines: the first cell, then the others.
#[derive(Debug)]
pub(in crate::cli) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
    /// Columns of numbers, which end at the same place.
    numbers: [bool; N],
}

impl<const N: usize> Table<N> {
    /// A table with these columns. A name that ends with ">" is that of a column of numbers.
    pub(in crate::cli) fn new(columns: [&str; N]) -> Self {
        let names = columns.map(|name| name.trim_end_matches('>').to_owned());
        Self {
            rows: vec![names],
            numbers: columns.map(|name| name.ends_with('>')),
        }
    }

    /// Adds a row.
    pub(in crate::cli) fn row(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// The lines. None if there are no rows.
    pub(in crate::cli) fn show(&self) -> String {
        if self.rows.len() == 1 {
            return String::new();
        }
        let width = |at: usize| self.rows.iter().map(|row| columns(&row[at])).max();
        let widths: [usize; N] = std::array::from_fn(|at| width(at).unwrap_or_default());
        let (last, others) = widths.split_last().unwrap_or((&0, &[]));
        let others: usize = others.iter().map(|width| width + GAP.len()).sum();
        let takes_two_lines = N > 2 && others + last.min(&LAST) > WIDTH;
        let mut lines = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                if at == 1 && takes_two_lines {
                    lines += &cut(line.trim_end());
                    lines.push('\n');
                    line.clear();
                }
                if at > 0 {
                    line += GAP;
                }
                let pad = " ".repeat(widths[at] - columns(cell));
                match self.numbers[at] {
                    true => line.extend([pad.as_str(), cell.as_str()]),
                    false => line.extend([cell.as_str(), pad.as_str()]),
                }
            }
            lines += &cut(line.trim_end());
            lines.push('\n');
        }
        lines
    }
}

/// Words on as many lines of a terminal as they need. The first line has this name before it, the others have
/// as much space.
pub(in crate::cli) fn wrapped(name: &str, words: impl Iterator<Item = String>) -> String {
    let mut lines = String::new();
    let mut line = name.to_owned();
    let indent = columns(name);
    for word in words {
        if columns(&line) > indent && columns(&line) + 1 + columns(&word) > WIDTH {
            lines += &line;
            lines.push('\n');
            line = " ".repeat(indent);
        }
        if columns(&line) > indent {
            line.push(' ');
        }
        line += &word;
    }
    lines + &line + "\n"
}

/// A line that fits a terminal.
fn cut(line: &str) -> String {
    if columns(line) <= WIDTH {
        return line.into();
    }
    let mut used = 0;
    let fits = |c: &char| {
        used += width(*c);
        used < WIDTH
    };
    line.chars().take_while(fits).chain(['…']).collect()
}

/// Columns that a text takes on a terminal.
fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

/// Columns that a character takes: two for the blocks whose characters are wide (Unicode Standard Annex 11,
/// East Asian Width). Characters that take none have been escaped.
const fn width(c: char) -> usize {
    match c {
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{303e}'
        | '\u{3041}'..='\u{a4cf}'
        | '\u{a960}'..='\u{a97f}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff01}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1f64f}'
        | '\u{1f680}'..='\u{1f6ff}'
        | '\u{1f900}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_the_last_one_is_cut() {
        let mut table = Table::new(["name", "peers>", "note"]);
        assert_eq!(table.show(), "");
        table.row(["a".into(), "1".into(), "short".into()]);
        table.row(["longer".into(), "1000000".into(), "x".repeat(100)]);
        let shown = table.show();
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[0], "name      peers  note");
        assert_eq!(lines[1], "a             1  short");
        assert!(lines[2].starts_with("longer  1000000  xxx"), "{shown}");
        assert!(lines[2].ends_with("x…"), "{shown}");
        assert_eq!(lines[2].chars().count(), 80);
    }

    #[test]
    fn rows_that_are_too_long_take_two_lines() {
        let mut table = Table::new(["passkey", "expires", "uses>", "note"]);
        table.row(["k".repeat(64), "never".into(), "1".into(), "x".repeat(100)]);
        table.row(["short".into(), "2026".into(), "100".into(), "-".into()]);
        let shown = table.show();
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[..2], ["passkey", "  expires  uses  note"], "{shown}");
        assert_eq!(lines[2], "k".repeat(64));
        assert!(lines[3].starts_with("  never       1  xxx"), "{shown}");
        assert_eq!(columns(lines[3]), WIDTH);
        assert_eq!(lines[4..], ["short", "  2026      100  -"], "{shown}");
        // There is room for a short last column.
        let mut table = Table::new(["torrent", "proven", "ISDs"]);
        table.row(["h".repeat(64), "no".into(), "64 65".into()]);
        assert_eq!(table.show().lines().count(), 2);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Table::new(["owner", "note"]);
        table.row(["日本".into(), "日本🦀".repeat(20)]);
        table.row(["Zoë".into(), "x".into()]);
        let shown = table.show();
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[0], "owner  note");
        assert!(lines[1].starts_with("日本   日本🦀"), "{shown}");
        assert!(lines[1].ends_with('…'), "{shown}");
        assert!((79..=80).contains(&columns(lines[1])), "{shown}");
        assert_eq!(lines[2], "Zoë    x");
    }

    #[test]
    fn words_are_wrapped_under_each_other() {
        let words = |count| (1..=count).map(|it: u32| it.to_string());
        assert_eq!(wrapped("ISD  ", words(3)), "ISD  1 2 3\n");
        let shown = wrapped("ISD  ", words(60));
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines.iter().all(|line| columns(line) <= WIDTH), "{shown}");
        assert!(lines[1].starts_with("     2"), "{shown}");
        assert_eq!(shown.split_whitespace().count(), 61);
    }

    #[test]
    fn texts_of_strangers_are_escaped() {
        assert_eq!(text(&json!("a\x1b[2J\n")), "a\\u{1b}[2J\\n");
        assert_eq!(text(&json!(null)), "-");
        assert_eq!(text(&json!(true)), "yes");
        assert_eq!(text(&json!(3)), "3");
        assert_eq!(text(&json!(["\u{202e}"])), "[\"\\u{202e}\"]");
    }
}
