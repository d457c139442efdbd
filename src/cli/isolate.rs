//! `scion-tracker isolate`: torrents that are handed out only inside some ISDs.

use http::Method;
use serde_json::{Value, json};

use super::api::{self, Page, Table, escaped, text};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    api: api::Args,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the torrents that are isolated. Those of the configuration are not among them.
    List(Page),
    /// Isolate a torrent, and remove its peers outside.
    Add {
        /// The info hash.
        #[arg(value_name = "HASH")]
        info_hash: String,
        /// ISDs in which it is handed out, separated by commas.
        #[arg(long, value_name = "ISDS", required = true, value_delimiter = ',')]
        isds: Vec<u16>,
        /// Count a place only if it is proven, by a SCION packet or by places.prefixes.
        #[arg(long)]
        proven: bool,
    },
    /// End the isolation of a torrent.
    Remove {
        /// The info hash.
        #[arg(value_name = "HASH")]
        info_hash: String,
    },
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let api = self.api.open()?;
        match self.action.unwrap_or_else(|| Action::List(Page::default())) {
            Action::List(page) => api.list("/api/v2/isolation", &page, "isolated torrents", table),
            Action::Add {
                info_hash,
                isds,
                proven,
            } => {
                let path = format!("/api/v2/isolation/{}", escaped(&info_hash));
                let body = json!({ "isds": isds, "proven": proven });
                let answer = api.send(&Method::PUT, &path, &body)?;
                api.print(&answer, |answer| {
                    format!(
                        "isolated, {} peers removed\n",
                        text(&answer["removed_peers"])
                    )
                })
            }
            Action::Remove { info_hash } => {
                api.remove(&format!("/api/v2/isolation/{}", escaped(&info_hash)))
            }
        }
    }
}

fn table(torrents: &[Value]) -> String {
    let mut table = Table::new(["torrent", "proven", "ISDs"]);
    for torrent in torrents {
        let isds = torrent["isds"].as_array().map_or(&[][..], Vec::as_slice);
        let isds: Vec<_> = isds.iter().map(text).collect();
        table.row([
            text(&torrent["info_hash"]),
            text(&torrent["proven"]),
            isds.join(" "),
        ]);
    }
    table.show()
}
