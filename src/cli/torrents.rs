//! `scion-tracker torrents`: what the tracker holds, as a list, by place, or one torrent with its peers.

use serde_json::Value;

use super::api::{self, Api, Page, Table, escaped, text, wrapped};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show this torrent with its peers.
    #[arg(value_name = "HASH")]
    info_hash: Option<String>,
    /// Most peers to show of a torrent.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=4096))]
    peers: u32,
    /// Count all peers by ISD and AS instead.
    #[arg(long, conflicts_with = "info_hash")]
    places: bool,
    /// Sort by this number, the largest first: peers, seeders, leechers or completed. Without it, by
    /// info hash.
    #[arg(long, value_name = "BY")]
    sort: Option<Sort>,
    /// Only torrents whose info hash begins with these digits.
    #[arg(long, value_name = "DIGITS")]
    prefix: Option<String>,
    /// Only torrents with at least this many peers.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    least_peers: u32,
    #[command(flatten)]
    page: Page,
    #[command(flatten)]
    api: api::Args,
}

/// By what torrents are sorted.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Sort {
    Peers,
    Seeders,
    Leechers,
    Completed,
}

impl Sort {
    const fn name(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Seeders => "seeders",
            Self::Leechers => "leechers",
            Self::Completed => "completed",
        }
    }
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self {
            info_hash,
            peers,
            places,
            sort,
            prefix,
            least_peers,
            page,
            api,
        } = self;
        let api = api.open()?;
        if let Some(hash) = info_hash {
            return one(&api, &hash, peers);
        }
        if places {
            return api.show("/api/v2/places", by_place);
        }
        let mut path = format!("/api/v2/torrents?least_peers={least_peers}");
        if let Some(sort) = sort {
            path += &format!("&sort={}", sort.name());
        }
        if let Some(prefix) = prefix {
            path += &format!("&prefix={}", escaped(&prefix));
        }
        api.list(&path, &page, "torrents", |torrents| {
            let mut table = Table::new(["torrent", "seeders>", "leechers>", "completed>"]);
            for torrent in torrents {
                table.row([
                    text(&torrent["info_hash"]),
                    text(&torrent["seeders"]),
                    text(&torrent["leechers"]),
                    text(&torrent["completed"]),
                ]);
            }
            table.show()
        })
    }
}

fn one(api: &Api, info_hash: &str, peers: u32) -> anyhow::Result<()> {
    let path = format!("/api/v2/torrents/{}?peers={peers}", escaped(info_hash));
    api.show(&path, torrent)
}

fn torrent(torrent: &Value) -> String {
    let mut shown = String::new();
    for name in ["seeders", "leechers", "completed", "allowed", "denied"] {
        shown += &format!("{name:<11}{}\n", text(&torrent[name]));
    }
    if let Some(isds) = torrent["isolation"]["isds"].as_array() {
        let proven = match torrent["isolation"]["proven"].as_bool() {
            Some(true) => Some("(proven only)".to_owned()),
            _ => None,
        };
        let words = isds.iter().map(text).chain(proven);
        shown += &wrapped(&format!("{:<11}ISD ", "isolated"), words);
    }
    for table in [by_place(torrent), of_peers(torrent)] {
        if !table.is_empty() {
            shown += "\n";
            shown += &table;
        }
    }
    shown
}

fn by_place(answer: &Value) -> String {
    let places = answer["places"].as_array().map_or(&[][..], Vec::as_slice);
    let mut table = Table::new(["ISD-AS", "seeders>", "leechers>", "proven>"]);
    for place in places {
        table.row([
            text(&place["isd_as"]),
            text(&place["seeders"]),
            text(&place["leechers"]),
            text(&place["proven"]),
        ]);
    }
    table.show()
}

fn of_peers(torrent: &Value) -> String {
    let peers = torrent["peers"].as_array().map_or(&[][..], Vec::as_slice);
    let mut table = Table::new(["peer", "seeder", "age>", "client"]);
    for peer in peers {
        table.row([
            text(&peer["address"]),
            text(&peer["seeder"]),
            format!("{} s", text(&peer["age"])),
            text(&peer["client"]),
        ]);
    }
    table.show()
}
