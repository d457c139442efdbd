//! `scion-tracker keys`: the passkeys of a private tracker.

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
    /// List the passkeys. Those in the file access.passkeys are not among them.
    List(Page),
    /// Add a passkey, or change what is said of it. Prints it.
    Add(Add),
    /// Remove passkeys.
    Remove {
        /// The passkeys.
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Add {
    /// The passkey. Without it, the tracker makes one of 32 characters.
    key: Option<String>,
    /// Time until it expires, as in 30d. Without it, never.
    #[arg(long, value_name = "TIME", value_parser = config::parse_duration)]
    valid: Option<Duration>,
    /// Note for operators.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Whose it is.
    #[arg(long, value_name = "TEXT")]
    owner: Option<String>,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let api = self.api.open()?;
        match self.action.unwrap_or_else(|| Action::List(Page::default())) {
            Action::List(page) => api.list("/api/v2/keys", &page, "passkeys", table),
            Action::Add(Add {
                key,
                valid,
                note,
                owner,
            }) => {
                let body = json!({
                    "key": key,
                    "seconds_valid": valid.map(|valid| valid.as_secs()),
                    "note": note,
                    "owner": owner,
                });
                let answer = api.send(&Method::POST, "/api/v2/keys", &body)?;
                api.print(&answer, |key| format!("{}\n", text(&key["key"])))
            }
            Action::Remove { keys } => {
                for key in keys {
                    api.remove(&format!("/api/v2/keys/{}", escaped(&key)))?;
                }
                Ok(())
            }
        }
    }
}

fn table(keys: &[Value]) -> String {
    let mut table = Table::new(["passkey", "expires", "owner", "note"]);
    for key in keys {
        table.row([
            text(&key["key"]),
            time(&key["valid_until"]),
            text(&key["owner"]),
            text(&key["note"]),
        ]);
    }
    table.show()
}
