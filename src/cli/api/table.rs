//! Tables for terminals, and texts of answers that are safe there.

use serde_json::Value;

use crate::cli::visible::visible;

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Spaces between two columns.
const GAP: &str = "  ";

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

/// A table: a line of names, then the rows. The last column is cut where the terminal ends.
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
        let width = |at: usize| self.rows.iter().map(|row| row[at].chars().count()).max();
        let widths: [usize; N] = std::array::from_fn(|at| width(at).unwrap_or_default());
        let mut lines = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                if at > 0 {
                    line += GAP;
                }
                let pad = " ".repeat(widths[at] - cell.chars().count());
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

/// A line that fits a terminal.
fn cut(line: &str) -> String {
    match line.chars().count() > WIDTH {
        false => line.into(),
        true => line.chars().take(WIDTH - 1).chain(['…']).collect(),
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
    fn texts_of_strangers_are_escaped() {
        assert_eq!(text(&json!("a\x1b[2J\n")), "a\\u{1b}[2J\\n");
        assert_eq!(text(&json!(null)), "-");
        assert_eq!(text(&json!(true)), "yes");
        assert_eq!(text(&json!(3)), "3");
        assert_eq!(text(&json!(["\u{202e}"])), "[\"\\u{202e}\"]");
    }
}
