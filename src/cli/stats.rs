//! `scion-tracker stats`: what the tracker holds and has done.

use std::time::Duration;

use serde_json::Value;

use super::api::{self, Table, text};

/// Numbers that are shown first.
const NUMBERS: [&str; 10] = [
    "torrents",
    "seeders",
    "leechers",
    "completed",
    "memory",
    "keys",
    "allowed",
    "denied",
    "bans",
    "store",
];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    api: api::Args,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        self.api.open()?.show("/api/v2/stats", show)
    }
}

fn show(stats: &Value) -> String {
    let uptime = Duration::from_secs(stats["uptime"].as_u64().unwrap_or_default());
    let mut shown = format!(
        "scion-tracker {}, up {}\n",
        text(&stats["version"]),
        humantime::format_duration(uptime)
    );
    for (key, line) in [
        ("private", "private: a passkey is needed"),
        (
            "listed",
            "listed: only torrents of the allow list are served",
        ),
        ("draining", "draining"),
    ] {
        if stats[key].as_bool() == Some(true) {
            shown += line;
            shown.push('\n');
        }
    }
    if let Some(seconds) = stats["store_outage"].as_u64() {
        shown += &format!("the store of the records cannot be used for {seconds} s\n");
    }
    shown.push('\n');
    let mut table = Table::new(["now", ">"]);
    for name in NUMBERS {
        let value = match (name, stats[name].as_u64()) {
            ("memory", Some(bytes)) => bytesize::ByteSize(bytes).to_string(),
            _ => text(&stats[name]),
        };
        table.row([name.into(), value]);
    }
    shown += &table.show();
    for (key, title) in [("events", "since the start"), ("refused", "refused")] {
        let mut table = Table::new([title, ">"]);
        let counts = stats[key].as_object().into_iter().flatten();
        for (name, count) in counts.filter(|(_, count)| count.as_u64() != Some(0)) {
            table.row([text(&name.as_str().into()), text(count)]);
        }
        let table = table.show();
        if !table.is_empty() {
            shown.push('\n');
            shown += &table;
        }
    }
    shown
}
