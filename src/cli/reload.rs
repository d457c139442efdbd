//! `scion-tracker reload`: reads configuration, lists, tokens and certificate again, as SIGHUP does.

use http::Method;
use serde_json::Value;

use super::api::{self, text};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    api: api::Args,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let api = self.api.open()?;
        let answer = api.change(&Method::POST, "/api/v2/reload")?;
        api.print(&answer, show)
    }
}

fn show(answer: &Value) -> String {
    let list = |key: &str| {
        let keys = answer[key].as_array().map_or(&[][..], Vec::as_slice);
        let keys: Vec<_> = keys.iter().map(text).collect();
        keys.join(", ")
    };
    let (changed, need_restart) = (list("changed"), list("need_restart"));
    let mut shown = match changed.is_empty() {
        true => "reloaded, no setting has changed\n".to_owned(),
        false => format!("reloaded, changed: {changed}\n"),
    };
    if !need_restart.is_empty() {
        shown += &format!("changed and need a restart: {need_restart}\n");
    }
    shown
}
