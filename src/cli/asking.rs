//! Flags and output that `announce` and `scrape` share.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::advice::advice;
use super::scion;
use super::visible::{visible, visible_json};
use crate::client::{Client, Options, RequestError, TrackerUrl, Trust};
use crate::config;

#[derive(Debug, clap::Args)]
pub(super) struct Asking {
    /// Tracker: udp://, http://, https:// or h3:// (HTTP/3). Over SCION: udp://, https:// (HTTP/3) or
    /// http:// (as Go programs with shttp speak it) with a name, or with an address as in
    /// [1-ff00:0:110,10.0.0.1]:31969, or 1-ff00:0:110,[10.0.0.1]:31969 alone.
    url: TrackerUrl,
    /// Trust only the certificate authorities in this PEM file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Do not verify the certificate.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Time to wait for the answer. Over UDP the request is repeated after 15 s (1 s over SCION), and
    /// then each time after twice as long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = config::parse_duration)]
    timeout: Duration,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    scion: scion::Args,
}

impl Asking {
    /// Asks, and shows a spinner on a terminal meanwhile.
    pub(super) fn ask<T>(
        &self,
        ask: impl AsyncFnOnce(&Client, &TrackerUrl) -> Result<T, RequestError>,
    ) -> anyhow::Result<T> {
        // Drawn on standard error, and only if that is a terminal.
        let spinner = ProgressBar::new_spinner()
            .with_style(ProgressStyle::default_spinner())
            .with_message(format!("asking {}", self.url));
        spinner.enable_steady_tick(Duration::from_millis(100));
        let answer = self.work(ask);
        spinner.finish_and_clear();
        answer?.map_err(|error| self.explained(&error))
    }

    /// Runs work that needs a client and the tracker's URL.
    pub(super) fn work<T>(
        &self,
        work: impl AsyncFnOnce(&Client, &TrackerUrl) -> T,
    ) -> anyhow::Result<T> {
        let options = Options {
            timeout: self.timeout,
            trust: match &self.ca {
                Some(file) => Trust::File(file.clone()),
                None if self.insecure => Trust::Anyone,
                None => Trust::System,
            },
            scion: self.scion.options()?,
        };
        let client = Client::new(&options)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let done = runtime.block_on(work(&client, &self.url));
        // Does not wait for a name lookup that still runs.
        runtime.shutdown_background();
        Ok(done)
    }

    /// The error on one line, with its causes and what helps. What strangers say in it is escaped.
    pub(super) fn explained(&self, error: &RequestError) -> anyhow::Error {
        let advice = advice(error, &self.url);
        let mut text = String::new();
        let mut cause: Option<&dyn Error> = Some(error);
        while let Some(error) = cause {
            let separator = if text.is_empty() { "" } else { ": " };
            text += &format!("{separator}{error}");
            cause = error.source();
        }
        let text = visible(&text);
        match advice {
            Some(advice) => anyhow::anyhow!("{text} ({advice})"),
            None => anyhow::anyhow!("{text}"),
        }
    }

    /// Prints the paths to the tracker if --show-paths asks for it. Returns whether it does.
    pub(super) fn shows_paths(&self) -> anyhow::Result<bool> {
        if self.scion.show_paths() {
            let paths = self.ask(async |client, url| client.paths(url).await)?;
            let shown = scion::Shown::from(&paths);
            self.print(&shown, || shown.to_text())?;
        }
        Ok(self.scion.show_paths())
    }

    pub(super) fn print(
        &self,
        json: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let text = match self.json {
            true => visible_json(&serde_json::to_string_pretty(json)?) + "\n",
            false => text(),
        };
        Ok(super::print(&text)?)
    }

    /// Prints one of several results: JSON on one line, text with an empty line after it.
    pub(super) fn print_next(
        &self,
        json: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let text = match self.json {
            true => visible_json(&serde_json::to_string(json)?),
            false => text(),
        };
        Ok(super::print(&(text + "\n"))?)
    }
}

/// Width of a terminal that tables fit.
const WIDTH: usize = 80;
/// Least width of the last column, however wide the others are.
const LEAST: usize = 8;

/// Columns as wide as their widest cell, two spaces between them. The last column gets the rest of
/// 80 characters, and a longer cell continues on the next lines.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let indent = widths[..N - 1].iter().map(|width| width + 2).sum();
    let last = WIDTH.saturating_sub(indent).max(LEAST);
    let mut out = String::new();
    let mut push = |cells: [&str; N]| {
        for (cell, width) in cells[..N - 1].iter().zip(widths) {
            out += &format!("{cell:width$}  ");
        }
        for (number, line) in wrapped(cells[N - 1], last).iter().enumerate() {
            if number > 0 {
                out += &" ".repeat(indent);
            }
            out += line;
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
    };
    push(head);
    for row in rows {
        push(row.each_ref().map(String::as_str));
    }
    out
}

/// Cuts text into lines of at most this many characters, between words where possible. At least one
/// line.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        if used > 0 {
            if used + 1 + word.chars().count() <= width {
                line.push(' ');
                used += 1;
            } else {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
        }
        for c in word.chars() {
            if used == width {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push(c);
            used += 1;
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["longer".to_owned(), String::new()],
        ];
        assert_eq!(
            table(["X", "COUNT"], &rows),
            "X       COUNT\na       1\nlonger\n"
        );
    }

    #[test]
    fn a_table_fits_80_columns() {
        let first = "x".repeat(30);
        let rows = [
            [first.clone(), "one two ".repeat(10).trim_end().to_owned()],
            [first, "y".repeat(100)],
        ];
        let text = table(["A", "B"], &rows);
        let lengths: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(lengths, [33, 79, 63, 80, 80, 36], "{text}");
        let words: Vec<_> = text.split_whitespace().collect();
        assert_eq!(words.iter().filter(|it| **it == "one").count(), 10);
        let wide = table(["A", "B"], &[["x".repeat(90), "y".repeat(10)]]);
        assert_eq!(wide.lines().count(), 3, "{wide}");
    }
}
