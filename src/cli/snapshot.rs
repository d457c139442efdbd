//! `scion-tracker snapshot`: writes a snapshot of the swarms, or says how the snapshots are.

use http::Method;
use serde_json::Value;

use super::api::{self, text, time};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write nothing: say where the snapshots are, and how the last one went.
    #[arg(long)]
    show: bool,
    #[command(flatten)]
    api: api::Args,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let api = self.api.open()?;
        let path = "/api/v2/snapshot";
        if self.show {
            return api.show(path, state);
        }
        let answer = api.change(&Method::POST, path)?;
        api.print(&answer, |written| {
            format!("{} in {}\n", contents(written), seconds(written))
        })
    }
}

fn contents(written: &Value) -> String {
    let size = bytesize::ByteSize(written["bytes"].as_u64().unwrap_or_default());
    let (peers, torrents) = (text(&written["peers"]), text(&written["torrents"]));
    format!("{peers} peers of {torrents} torrents, {size}")
}

fn seconds(written: &Value) -> String {
    let seconds = written["seconds"].as_f64().unwrap_or_default();
    format!("{seconds:.3} s")
}

fn state(state: &Value) -> String {
    let line = |name: &str, value: String| format!("{name:<10}{value}\n");
    let mut shown = match &state["file"] {
        Value::Null => {
            let why = match &state["off_because"] {
                Value::Null => "off".into(),
                why => format!("off: {}", text(why)),
            };
            line("snapshots", why)
        }
        file => line("file", text(file)),
    };
    match &state["last"] {
        Value::Null => shown += &line("last", "none since the start".into()),
        last => {
            shown += &line(
                "last",
                format!("{}, took {}", time(&last["at"]), seconds(last)),
            );
            shown += &line("contents", contents(last));
        }
    }
    if !state["last_error"].is_null() {
        shown += &line("error", text(&state["last_error"]));
    }
    if state["failures"]
        .as_u64()
        .is_some_and(|failures| failures > 0)
    {
        shown += &line("failures", text(&state["failures"]));
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states() {
        let off = json!({ "file": null, "off_because": "no folder", "last": null, "last_error": null, "failures": 0 });
        assert_eq!(
            state(&off),
            "snapshots off: no folder\nlast      none since the start\n"
        );
        let failed = json!({
            "file": "/a/swarms.snapshot",
            "off_because": null,
            "last": { "at": 60, "seconds": 0.0125, "bytes": 2048, "torrents": 1, "peers": 3 },
            "last_error": "no\u{1b} space",
            "failures": 2,
        });
        assert_eq!(
            state(&failed),
            "file      /a/swarms.snapshot\n\
             last      1970-01-01T00:01:00Z, took 0.013 s\n\
             contents  3 peers of 1 torrents, 2.0 KiB\n\
             error     no\\u{1b} space\n\
             failures  2\n"
        );
    }
}
