//! `scion-tracker ban`: banned hosts and networks, and the hosts that announce most.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::api::{self, Page, Table, escaped, text, time};
use crate::config;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    api: api::Args,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the bans.
    List(Page),
    /// Ban a host or a network, or change a ban. Its peers expire.
    Add {
        /// An address, a network, or a SCION host as in 1-ff00:0:110,10.0.0.1. Of an IPv6 address the
        /// whole /64 is banned.
        target: String,
        /// Time until the ban ends, as in 12h. Without it, never.
        #[arg(long = "for", value_name = "TIME", value_parser = config::parse_duration)]
        time: Option<Duration>,
        /// Why, for operators.
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        reason: String,
    },
    /// End bans.
    Remove {
        /// The hosts or networks, as `list` shows them.
        #[arg(required = true, value_name = "TARGET")]
        targets: Vec<String>,
    },
    /// List the hosts that announce most: estimates of the last minute or two.
    Hosts {
        /// Most hosts.
        #[arg(long, value_name = "NUMBER", default_value_t = 20)]
        limit: u8,
    },
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let api = self.api.open()?;
        match self.action.unwrap_or_else(|| Action::List(Page::default())) {
            Action::List(page) => api.list("/api/v2/bans", &page, "bans", bans),
            Action::Add {
                target,
                time,
                reason,
            } => {
                let body = json!({
                    "target": target,
                    "seconds": time.map(|time| time.as_secs()),
                    "reason": reason,
                });
                let answer = api.send(&Method::POST, "/api/v2/bans", &body)?;
                api.print(&answer, |ban| format!("{}\n", text(&ban["target"])))
            }
            Action::Remove { targets } => {
                for target in targets {
                    api.remove(&format!("/api/v2/bans?target={}", escaped(&target)))?;
                }
                Ok(())
            }
            Action::Hosts { limit } => api.show(&format!("/api/v2/hosts?limit={limit}"), hosts),
        }
    }
}

fn bans(bans: &[Value]) -> String {
    let mut table = Table::new(["target", "ends", "reason"]);
    for ban in bans {
        table.row([
            text(&ban["target"]),
            time(&ban["until"]),
            text(&ban["reason"]),
        ]);
    }
    table.show()
}

fn hosts(answer: &Value) -> String {
    let hosts = answer.as_array().map_or(&[][..], Vec::as_slice);
    if hosts.is_empty() {
        return "no host announces much\n".into();
    }
    let mut table = Table::new(["host", "announces>", "refused>"]);
    for host in hosts {
        table.row([
            text(&host["host"]),
            text(&host["announces"]),
            text(&host["refused"]),
        ]);
    }
    table.show()
}
