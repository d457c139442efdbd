//! `scion-tracker drain`: sends clients away before the tracker stops.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::api;
use crate::config;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Stop the tracker after this time, as in 1m. Without it, it drains until it is stopped.
    #[arg(long, value_name = "TIME", value_parser = config::parse_duration)]
    stop_after: Option<Duration>,
    /// End draining: the tracker goes on.
    #[arg(long, conflicts_with = "stop_after")]
    end: bool,
    #[command(flatten)]
    api: api::Args,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let api = self.api.open()?;
        let path = "/api/v2/drain";
        let answer = match self.end {
            true => api.change(&Method::DELETE, path)?,
            false => {
                let seconds = self.stop_after.map(|time| time.as_secs());
                api.send(&Method::POST, path, &json!({ "seconds": seconds }))?
            }
        };
        api.print(&answer, show)
    }
}

fn show(state: &Value) -> String {
    match (state["draining"].as_bool(), state["seconds_left"].as_u64()) {
        (Some(true), Some(seconds)) => format!("draining, stops in {seconds} s\n"),
        (Some(true), None) => "draining until it is stopped\n".into(),
        _ => "not draining\n".into(),
    }
}
