//! `scion-tracker allow` and `scion-tracker deny`: the lists of torrents.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::Value;

use super::api::{self, Page, escaped, text};

/// Which list.
#[derive(Debug, Clone, Copy)]
pub(super) enum List {
    Allow,
    Deny,
}

/// Most bytes that the tracker takes at once.
const PIECE: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    api: api::Args,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the torrents. Those in files of the configuration are not among them.
    List(Page),
    /// Add torrents.
    Add(Torrents),
    /// Remove torrents.
    Remove(Torrents),
}

#[derive(Debug, clap::Args)]
#[group(id = "torrents", required = true, multiple = true)]
struct Torrents {
    /// Info hashes: 40 hexadecimal digits, or 64 for version 2.
    #[arg(value_name = "HASH")]
    hashes: Vec<String>,
    /// File of info hashes, one per line. "-" reads standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Torrents {
    /// All info hashes, one per line.
    fn read(self) -> anyhow::Result<String> {
        let mut text: String = self.hashes.iter().flat_map(|it| [it, "\n"]).collect();
        if let Some(path) = self.file {
            let read = match path.as_os_str() == "-" {
                true => std::io::stdin().read_to_string(&mut text),
                false => File::open(&path).and_then(|mut file| file.read_to_string(&mut text)),
            };
            read.with_context(|| format!("cannot read {}", path.display()))?;
        }
        Ok(text)
    }
}

/// Splits a text at line breaks into pieces that the tracker takes.
fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let end = match text.len() <= PIECE {
            true => text.len(),
            // A line of more than a piece is no info hash: the tracker says so.
            false => text.as_bytes()[..PIECE]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .or_else(|| text.find('\n'))
                .map_or(text.len(), |at| at + 1),
        };
        let (piece, rest) = text.split_at(end);
        text = rest;
        Some(piece)
    })
}

impl Args {
    pub(super) fn run(self, list: List) -> anyhow::Result<()> {
        let api = self.api.open()?;
        let path = match list {
            List::Allow => "/api/v2/allow",
            List::Deny => "/api/v2/deny",
        };
        match self.action.unwrap_or_else(|| Action::List(Page::default())) {
            Action::List(page) => api.list(path, &page, "torrents", |hashes| {
                hashes.iter().map(|it| text(it) + "\n").collect()
            }),
            Action::Add(torrents) => {
                for piece in pieces(&torrents.read()?) {
                    let answer = api.send_text(path, piece.into())?;
                    api.print(&answer, added)?;
                }
                Ok(())
            }
            Action::Remove(torrents) => {
                for line in torrents.read()?.lines() {
                    let line = line.trim();
                    if line.is_empty() || line.starts_with('#') {
                        continue;
                    }
                    let hash = line.split_whitespace().next().unwrap_or_default();
                    let path = format!("{path}/{}", escaped(hash));
                    let removed = api.remove(&path);
                    removed.with_context(|| format!("cannot remove {hash}"))?;
                }
                Ok(())
            }
        }
    }
}

fn added(answer: &Value) -> String {
    let (new, known) = (text(&answer["new"]), text(&answer["known"]));
    let removed = answer["removed_peers"].as_u64().unwrap_or_default();
    let removed = match removed {
        0 => String::new(),
        peers => format!(", {peers} peers removed"),
    };
    format!("{new} added, {known} known{removed}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_sent_in_pieces() {
        assert_eq!(pieces("").count(), 0);
        assert_eq!(pieces("a\nb").collect::<Vec<_>>(), ["a\nb"]);
        let line = format!("{}\n", "a".repeat(40));
        let text = line.repeat(60_000);
        let parts: Vec<_> = pieces(&text).collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts.concat(), text);
        assert!(
            parts
                .iter()
                .all(|part| part.len() <= PIECE && part.ends_with('\n'))
        );
        let long = "é".repeat(PIECE);
        assert_eq!(pieces(&long).collect::<Vec<_>>(), [long.as_str()]);
    }
}
