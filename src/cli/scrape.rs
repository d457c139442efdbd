//! `scion-tracker scrape`: asks a tracker how many seeds and leechers torrents have.

use scion_tracker_core::codec::reply::ScrapeAnswer;
use scion_tracker_core::types::InfoHash;
use serde::Serialize;

use super::asking::{Asking, table};
use crate::client::Scheme;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Torrents: 40 hexadecimal digits each, or 64 for a version 2 torrent. Repeatable.
    #[arg(long = "info-hash", value_name = "HEX", required_unless_present = "show_paths", num_args = 1..)]
    info_hashes: Vec<InfoHash>,
    // The last, as it ends with a heading.
    #[command(flatten)]
    asking: Asking,
}

/// A torrent as it is printed.
#[derive(Debug, Serialize)]
struct Shown {
    info_hash: String,
    complete: u32,
    incomplete: u32,
    /// `None` over UDP, which does not carry it.
    downloaders: Option<u32>,
    downloaded: u32,
}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        if self.asking.shows_paths()? {
            return Ok(());
        }
        let mut scheme = Scheme::Udp;
        let answer = self.asking.ask(async |client, url| {
            scheme = url.scheme();
            client.scrape(url, &self.info_hashes).await
        })?;
        let shown = show(&answer, scheme);
        self.asking.print(&shown, || to_text(&shown))
    }
}

fn show(answer: &ScrapeAnswer, scheme: Scheme) -> Vec<Shown> {
    let files = answer.files.iter();
    files
        .map(|(hash, counts)| Shown {
            info_hash: hash.to_string(),
            complete: counts.seeders,
            incomplete: counts.leechers,
            downloaders: (scheme != Scheme::Udp).then_some(counts.downloaders),
            downloaded: counts.completed,
        })
        .collect()
}

/// The column of downloaders is there if it says something new: if a torrent has partial seeds.
fn to_text(shown: &[Shown]) -> String {
    let says_more = |torrent: &Shown| torrent.downloaders.is_some_and(|n| n != torrent.incomplete);
    let row = |torrent: &Shown| {
        [
            torrent.info_hash.clone(),
            torrent.complete.to_string(),
            torrent.incomplete.to_string(),
            torrent.downloaded.to_string(),
        ]
    };
    if !shown.iter().any(says_more) {
        let rows: Vec<_> = shown.iter().map(row).collect();
        return table(["INFO HASH", "SEEDS", "LEECHERS", "DOWNLOADED"], &rows);
    }
    let rows: Vec<_> = shown
        .iter()
        .map(|torrent| {
            let [hash, seeds, leechers, downloaded] = row(torrent);
            let downloaders = torrent.downloaders.unwrap_or(torrent.incomplete);
            [hash, seeds, leechers, downloaders.to_string(), downloaded]
        })
        .collect();
    let head = ["INFO HASH", "SEEDS", "LEECHERS", "LOADING", "DOWNLOADED"];
    table(head, &rows)
}

#[cfg(test)]
mod tests {
    use scion_tracker_core::response::SwarmCounts;

    use super::*;

    #[test]
    fn text_snapshot() {
        let counts = SwarmCounts {
            seeders: 3,
            leechers: 12,
            downloaders: 10,
            completed: 1000,
        };
        let mut answer = ScrapeAnswer::default();
        answer.files = vec![(InfoHash([0x11; 20]), counts)];
        assert_eq!(
            to_text(&show(&answer, Scheme::Http)),
            "INFO HASH                                 SEEDS  LEECHERS  LOADING  DOWNLOADED\n\
             1111111111111111111111111111111111111111  3      12        10       1000\n"
        );
        assert_eq!(
            to_text(&show(&answer, Scheme::Udp)),
            "INFO HASH                                 SEEDS  LEECHERS  DOWNLOADED\n\
             1111111111111111111111111111111111111111  3      12        1000\n"
        );
    }
}
