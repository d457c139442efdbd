//! `scion-tracker events`: follows what requests change, live.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use serde_json::{Value, json};

use super::api::{self, Ended, escaped, text};
use super::serve::stop_signal;
use super::visible::visible_json;

/// The tracker sends something every 15 seconds. After this time without a byte it is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// Longest line of the stream. Events have some 500 bytes.
const LINE: usize = 64 << 10;
/// The comment that the tracker sends before it stops.
const STOPS: &str = ": the tracker stops";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only events of this torrent.
    #[arg(long, value_name = "HASH")]
    torrent: Option<String>,
    /// Only these events, separated by commas.
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    kinds: Vec<Kind>,
    #[command(flatten)]
    api: api::Args,
}

/// The kind of an event.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// A peer announced and stays.
    Announced,
    /// A peer completed its download.
    Completed,
    /// A peer stopped.
    Stopped,
    /// A request was refused.
    Refused,
}

impl Args {
    /// Prints events until SIGINT or SIGTERM, or until the tracker stops.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let api = self.api.open()?;
        let mut query = Vec::new();
        query.extend(
            self.torrent
                .map(|hash| format!("info_hash={}", escaped(&hash))),
        );
        if !self.kinds.is_empty() {
            let kinds = self.kinds.iter().filter_map(Kind::to_possible_value);
            let kinds: Vec<_> = kinds.map(|kind| kind.get_name().to_owned()).collect();
            query.push(format!("kinds={}", kinds.join(",")));
        }
        let path = format!("/api/v2/events?{}", query.join("&"));
        let mut events = Events::new(api.is_json());
        let end = api.follow(&path, SILENCE, stop_signal, |bytes| events.take(bytes))?;
        match end {
            Ended::Interrupted | Ended::Enough => Ok(()),
            Ended::Stream if events.tracker_stops => {
                // Not for scripts that read the events.
                let _ = writeln!(io::stderr(), "scion-tracker: the tracker stops");
                Ok(())
            }
            Ended::Stream => {
                bail!(
                    "the tracker has ended the connection: it is gone, or this reader was too slow"
                )
            }
        }
    }
}

/// Reads the stream (<https://html.spec.whatwg.org/multipage/server-sent-events.html>) and prints events.
struct Events {
    is_json: bool,
    /// The beginning of a line.
    line: Vec<u8>,
    /// The name of the event that is being read.
    name: String,
    tracker_stops: bool,
}

impl Events {
    const fn new(is_json: bool) -> Self {
        Self {
            is_json,
            line: Vec::new(),
            name: String::new(),
            tracker_stops: false,
        }
    }

    /// Takes bytes of the stream. Returns whether somebody reads what is printed.
    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<bool> {
        let shown = self.read(bytes)?;
        if shown.is_empty() {
            return Ok(true);
        }
        let mut out = io::stdout().lock();
        match out.write_all(shown.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            other => Ok(other.map(|()| true).context("cannot write an event")?),
        }
    }

    /// Reads bytes of the stream. Returns the lines to print.
    fn read(&mut self, bytes: &[u8]) -> anyhow::Result<String> {
        let mut shown = String::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > LINE {
                bail!("the tracker does not send events: a line is longer than {LINE} bytes");
            }
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                let line = String::from_utf8_lossy(&line);
                self.line(line.trim_end(), &mut shown)?;
            }
        }
        Ok(shown)
    }

    fn line(&mut self, line: &str, shown: &mut String) -> anyhow::Result<()> {
        if line == STOPS {
            self.tracker_stops = true;
        } else if let Some(name) = line.strip_prefix("event: ") {
            self.name = name.to_owned();
        } else if let Some(data) = line.strip_prefix("data: ") {
            let data = serde_json::from_str(data).context("the tracker sends no JSON")?;
            let name = std::mem::take(&mut self.name);
            shown.push_str(&match self.is_json {
                true => as_json(&name, data)?,
                false => as_text(&name, &data),
            });
            shown.push('\n');
        }
        Ok(())
    }
}

/// The event on one line of JSON, with its name in the field `event`.
fn as_json(name: &str, data: Value) -> anyhow::Result<String> {
    let mut event = json!({ "event": name });
    match (&mut event, data) {
        (Value::Object(event), Value::Object(data)) => event.extend(data),
        _ => bail!("the tracker sends events that are no objects"),
    }
    Ok(visible_json(&serde_json::to_string(&event)?))
}

/// The event on one line: what, which torrent, and who.
fn as_text(name: &str, data: &Value) -> String {
    let name = text(&name.into());
    if name == "lost" {
        return format!(
            "lost {} events: this reader is too slow",
            text(&data["events"])
        );
    }
    // The beginning of an info hash tells torrents apart; --json has all of it.
    let hash: String = text(&data["info_hash"]).chars().take(12).collect();
    let mut line = format!("{name:<9}  {hash}");
    let rest = match name.as_str() {
        "refused" => format!("{}  {}", text(&data["host"]), text(&data["reason"])),
        _ => {
            let role = match data["seeder"].as_bool() {
                Some(true) => "seed",
                _ => "leecher",
            };
            let change = match data["change"].as_str() {
                Some("joined") => " new",
                _ => "",
            };
            format!(
                "{}  {role}{change}  {}/{}",
                text(&data["address"]),
                text(&data["seeders"]),
                text(&data["leechers"])
            )
        }
    };
    // Writing to a string does not fail.
    let _ = write!(line, "  {rest}");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": connected\n\nevent: announced\ndata: {\"info_hash\":\"0101010101010101010101010101010101010101\",\"address\":\"127.0.0.1:6881\",\"seeder\":false,\"change\":\"joined\",\"seeders\":1,\"leechers\":2}\n\n: ping\n\nevent: lost\ndata: {\"events\":7}\n\nevent: refused\ndata: {\"info_hash\":\"02\",\"host\":\"\\u001b[2J\",\"reason\":\"banned\"}\n\n: the tracker stops\n\n";

    #[test]
    fn events_are_lines_however_they_arrive() {
        for piece in [1, 7, STREAM.len()] {
            let mut events = Events::new(false);
            let shown: String = STREAM
                .as_bytes()
                .chunks(piece)
                .map(|bytes| events.read(bytes).unwrap())
                .collect();
            assert_eq!(
                shown,
                "announced  010101010101  127.0.0.1:6881  leecher new  1/2\n\
                 lost 7 events: this reader is too slow\n\
                 refused    02  \\u{1b}[2J  banned\n"
            );
            assert!(events.tracker_stops);
        }
    }

    #[test]
    fn with_json_each_line_is_an_object() {
        let mut events = Events::new(true);
        let shown = events.read(STREAM.as_bytes()).unwrap();
        let lines: Vec<Value> = shown
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["event"], "announced");
        assert_eq!(lines[1], json!({ "event": "lost", "events": 7 }));
        assert!(shown.is_ascii() && !shown.contains('\x1b'), "{shown}");
    }

    #[test]
    fn what_is_no_stream_of_events_is_an_error() {
        assert!(Events::new(false).read(b"data: {\n").is_err());
        assert!(Events::new(true).read(b"data: 3\n").is_err());
        assert!(Events::new(true).read(&[b'x'; LINE + 1]).is_err());
    }
}
