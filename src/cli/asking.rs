//! Flags and output that `announce` and `scrape` share.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::scion;
use crate::client::{Client, Options, RequestError, TrackerUrl, Trust};
use crate::config;

#[derive(Debug, clap::Args)]
pub(super) struct Asking {
    /// Tracker: udp://, http://, https:// or h3:// (HTTP/3). Over SCION: udp:// or https:// (HTTP/3)
    /// with an address as in [1-ff00:0:110,10.0.0.1]:31969, or 1-ff00:0:110,[10.0.0.1]:31969 alone.
    url: TrackerUrl,
    /// Trust only the certificate authorities in this PEM file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Do not verify the certificate.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Time to wait for the answer. Over UDP the request is repeated after 15 s (3 s over SCION), and
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
        answer?.map_err(explained)
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
            true => serde_json::to_string_pretty(json)? + "\n",
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
            true => serde_json::to_string(json)?,
            false => text(),
        };
        Ok(super::print(&(text + "\n"))?)
    }
}

/// Adds the flags that help, if there are any.
pub(super) fn explained(error: RequestError) -> anyhow::Error {
    if !error.is_of_unknown_authority() {
        return error.into();
    }
    let error = anyhow::Error::from(error);
    anyhow!(
        "{error:#} (trust another authority with --ca FILE, or any certificate with --insecure)"
    )
}

/// Columns as wide as their widest cell, two spaces between them.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded: Vec<_> = std::iter::zip(cells, widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let rows = rows
        .iter()
        .map(|row| line(row.each_ref().map(String::as_str)));
    std::iter::once(line(head)).chain(rows).collect()
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
}
