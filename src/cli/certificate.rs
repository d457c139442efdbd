//! `scion-tracker certificate`: the certificate that the tracker uses.

use super::api::{self, text, time};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    api: api::Args,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let api = self.api.open()?;
        let answer = api.get("/api/v2/certificate")?;
        api.print(&answer, |certificate| {
            let made = match certificate["self_signed"].as_bool() {
                Some(true) => "self-signed",
                _ => "from files",
            };
            format!(
                "SHA-256 {}\n{made}, expires {}\n",
                text(&certificate["sha256"]),
                time(&certificate["expires"])
            )
        })
    }
}
