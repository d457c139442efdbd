//! `scion-tracker announce`: announces a peer to a tracker and prints the reply.

mod repeat;

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use http::StatusCode;
use scion_tracker_core::address::{AddressError, IsdAs, ScionAddr};
use scion_tracker_core::codec::query::AnnounceQuery;
use scion_tracker_core::codec::reply::AnnounceAnswer;
use scion_tracker_core::request::{AnnounceRequest, Claim, Event, ScionClaim};
use scion_tracker_core::types::{InfoHash, PeerId};
use serde::Serialize;

use super::asking::{Asking, explained, table};
use super::serve::stop_signal;
use crate::client::{Client, RequestError, TrackerUrl, software};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Torrent: 40 hexadecimal digits, or 64 for a version 2 torrent.
    #[arg(long, value_name = "HEX", required_unless_present = "show_paths")]
    info_hash: Option<InfoHash>,
    /// Port the peer listens on.
    #[arg(long, default_value_t = NonZeroU16::MIN.saturating_add(6880))]
    port: NonZeroU16,
    /// Event to announce. `stopped` removes the peer.
    #[arg(long, value_enum, default_value_t = EventName::None)]
    event: EventName,
    /// Announce again at the tracker's interval until SIGTERM or SIGINT, and then `stopped`. Prints
    /// each reply, with --json on one line.
    #[arg(long, conflicts_with = "event")]
    repeat: bool,
    /// Number of peers to ask for. Without it, the tracker decides.
    #[arg(long, value_name = "N")]
    numwant: Option<u32>,
    /// Bytes left to download. 0 announces a seed, which gets no other seeds.
    #[arg(long, value_name = "N", default_value_t = 1)]
    left: u64,
    /// Claim to be in this ISD-AS, at the IP address the tracker sees.
    #[arg(long, value_name = "ISD-AS", value_parser = IsdAs::parse_place)]
    ia: Option<IsdAs>,
    /// Claim this SCION address, as in 1-ff00:0:110,[192.0.2.1]:6881. Or 1 to ask for SCION peers
    /// without claiming an address.
    #[arg(long, value_name = "ADDRESS|1", value_parser = parse_scion)]
    scion: Option<ScionClaim>,
    /// Peer id of 20 characters. Without it, a random one.
    #[arg(long, value_name = "ID", value_parser = parse_peer_id)]
    peer_id: Option<PeerId>,
    /// Ask for a compact list of peers over HTTP, which has no peer ids.
    #[arg(long)]
    compact: bool,
    // The last, as it ends with a heading.
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum EventName {
    None,
    Started,
    Completed,
    Stopped,
    Paused,
}

impl From<EventName> for Event {
    fn from(name: EventName) -> Self {
        match name {
            EventName::None => Self::None,
            EventName::Started => Self::Started,
            EventName::Completed => Self::Completed,
            EventName::Stopped => Self::Stopped,
            EventName::Paused => Self::Paused,
        }
    }
}

fn parse_scion(text: &str) -> Result<ScionClaim, AddressError> {
    match text {
        "1" => Ok(ScionClaim::Capable),
        address => address.parse::<ScionAddr>().map(ScionClaim::At),
    }
}

fn parse_peer_id(text: &str) -> Result<PeerId, &'static str> {
    let id = text.as_bytes().try_into();
    id.map(PeerId).map_err(|_| "a peer id has 20 characters")
}

/// `-SC0100-` and twelve letters and digits.
fn new_peer_id() -> anyhow::Result<PeerId> {
    let mut rng = fastrand::Rng::with_seed(getrandom::u64()?);
    let mut id = *b"-SC0100-............";
    id[8..].fill_with(|| rng.alphanumeric() as u8);
    Ok(PeerId(id))
}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        if self.asking.shows_paths()? {
            return Ok(());
        }
        let info_hash = self.info_hash.context("no --info-hash")?;
        let peer_id = match self.peer_id {
            Some(id) => id,
            None => new_peer_id()?,
        };
        let query = AnnounceQuery {
            announce: AnnounceRequest {
                event: self.event.into(),
                numwant: self.numwant,
                claim: Claim {
                    ia: self.ia,
                    scion: self.scion.unwrap_or_default(),
                },
                ..AnnounceRequest::new(info_hash, peer_id, self.port, self.left)
            },
            compact: Some(self.compact),
            no_peer_id: false,
        };
        if self.repeat {
            return self
                .asking
                .work(async |client, url| self.repeat(client, url, query).await)?;
        }
        let answer = self
            .asking
            .ask(async |client, url| announce(client, url, &query).await)?;
        let shown = Shown::from(&answer);
        self.asking.print(&shown, || shown.to_text())
    }

    async fn repeat(
        &self,
        client: &Client,
        url: &TrackerUrl,
        mut query: AnnounceQuery,
    ) -> anyhow::Result<()> {
        let stop = stop_signal()?;
        let announce = async |event| -> anyhow::Result<Duration> {
            query.announce.event = event;
            let answer = announce(client, url, &query).await.map_err(explained)?;
            if event != Event::Stopped {
                let shown = Shown::from(&answer);
                self.asking.print_next(&shown, || shown.to_text())?;
            }
            Ok(Duration::from_secs(answer.interval))
        };
        let failed = |error: &anyhow::Error, wait| {
            let wait = humantime::format_duration(wait);
            eprintln!("scion-tracker: {error:#}; next announce in {wait}");
        };
        repeat::repeat(announce, failed, stop).await;
        Ok(())
    }
}

/// Announces, and asks again for a compact list if the tracker has no other: opentracker answers 400 to
/// `compact=0`.
async fn announce(
    client: &Client,
    url: &TrackerUrl,
    query: &AnnounceQuery,
) -> Result<AnnounceAnswer, RequestError> {
    match client.announce(url, query).await {
        Err(RequestError::Status { status, .. })
            if status == StatusCode::BAD_REQUEST && query.compact == Some(false) =>
        {
            let compact = Some(true);
            client
                .announce(url, &AnnounceQuery { compact, ..*query })
                .await
        }
        other => other,
    }
}

/// A reply as it is printed.
#[derive(Debug, Serialize)]
struct Shown {
    interval: u64,
    min_interval: Option<u64>,
    complete: Option<u64>,
    incomplete: Option<u64>,
    downloaded: Option<u64>,
    external_ip: Option<IpAddr>,
    warning: Option<String>,
    peers: Vec<ShownPeer>,
    unreadable_peers: usize,
}

#[derive(Debug, Serialize)]
struct ShownPeer {
    ia: Option<String>,
    ip: IpAddr,
    port: u16,
    /// With what is not printable ASCII escaped.
    peer_id: Option<String>,
    client: Option<String>,
}

impl From<&AnnounceAnswer> for Shown {
    fn from(answer: &AnnounceAnswer) -> Self {
        let peers = answer.peers.iter().map(|peer| {
            let ia = peer.endpoint.ia;
            ShownPeer {
                ia: (!ia.is_none()).then(|| ia.to_string()),
                ip: peer.endpoint.addr.ip(),
                port: peer.endpoint.addr.port(),
                peer_id: peer.id.map(|id| id.0.escape_ascii().to_string()),
                client: peer
                    .id
                    .and_then(|id| software(&id))
                    .map(|software| software.to_string()),
            }
        });
        Self {
            interval: answer.interval,
            min_interval: answer.min_interval,
            complete: answer.complete,
            incomplete: answer.incomplete,
            downloaded: answer.downloaded,
            external_ip: answer.external_ip,
            warning: answer.warning.clone(),
            peers: peers.collect(),
            unreadable_peers: answer.unreadable,
        }
    }
}

impl Shown {
    fn to_text(&self) -> String {
        let mut counts = Vec::new();
        for (name, count) in [
            ("seeds", self.complete),
            ("leechers", self.incomplete),
            ("downloaded", self.downloaded),
        ] {
            if let Some(count) = count {
                counts.push(format!("{name}: {count}"));
            }
        }
        let mut lines = vec![counts.join("   ")];
        let seconds = |n| humantime::format_duration(Duration::from_secs(n));
        let mut next = format!("next announce: in {}", seconds(self.interval));
        if let Some(least) = self.min_interval {
            next += &format!(", not before {}", seconds(least));
        }
        lines.push(next);
        if let Some(ip) = self.external_ip {
            lines.push(format!("your address: {ip}"));
        }
        if let Some(warning) = &self.warning {
            lines.push(format!("warning: {}", warning.escape_debug()));
        }
        if self.unreadable_peers > 0 {
            lines.push(format!("unreadable peers: {}", self.unreadable_peers));
        }
        let missing = || "-".to_owned();
        let rows: Vec<_> = self
            .peers
            .iter()
            .map(|peer| {
                let address = std::net::SocketAddr::new(peer.ip, peer.port).to_string();
                let client = peer.client.as_ref().or(peer.peer_id.as_ref());
                [
                    peer.ia.clone().unwrap_or_else(missing),
                    address,
                    client.cloned().unwrap_or_else(missing),
                ]
            })
            .collect();
        lines.retain(|line| !line.is_empty());
        let head = lines.join("\n");
        if rows.is_empty() {
            return format!("{head}\nno peers\n");
        }
        format!("{head}\n\n{}", table(["PLACE", "ADDRESS", "CLIENT"], &rows))
    }
}

#[cfg(test)]
mod tests {
    use scion_tracker_core::codec::compact::Endpoint;
    use scion_tracker_core::codec::reply::AnswerPeer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::client::Options;

    fn answer() -> AnnounceAnswer {
        let peer = |ia: &str, addr: &str, id: Option<&[u8; 20]>| AnswerPeer {
            endpoint: Endpoint {
                ia: ia.parse().unwrap(),
                addr: addr.parse().unwrap(),
            },
            id: id.map(|id| PeerId(*id)),
        };
        AnnounceAnswer {
            interval: 1830,
            min_interval: Some(300),
            complete: Some(3),
            incomplete: Some(12),
            external_ip: Some("192.0.2.1".parse().unwrap()),
            peers: vec![
                peer(
                    "1-ff00:0:110",
                    "10.0.0.1:6881",
                    Some(b"-LT20A0-2Hk2RLxj.gRc"),
                ),
                peer("0-0", "[2001:db8::1]:80", Some(b"\x1b[31m..............\n")),
                peer("0-0", "192.0.2.2:1", None),
            ],
            ..AnnounceAnswer::default()
        }
    }

    #[test]
    fn text_snapshot() {
        assert_eq!(
            Shown::from(&answer()).to_text(),
            "seeds: 3   leechers: 12\n\
             next announce: in 30m 30s, not before 5m\n\
             your address: 192.0.2.1\n\
             \n\
             PLACE         ADDRESS           CLIENT\n\
             1-ff00:0:110  10.0.0.1:6881     libtorrent 2.0.10\n\
             -             [2001:db8::1]:80  \\x1b[31m..............\\n\n\
             -             192.0.2.2:1       -\n"
        );
        let nobody = AnnounceAnswer {
            interval: 60,
            warning: Some("a\nb".to_owned()),
            ..AnnounceAnswer::default()
        };
        assert_eq!(
            Shown::from(&nobody).to_text(),
            "next announce: in 1m\nwarning: a\\nb\nno peers\n"
        );
    }

    #[test]
    fn json_snapshot() {
        let json = serde_json::to_value(Shown::from(&answer())).unwrap();
        assert_eq!(
            json["peers"][0],
            serde_json::json!({
                "ia": "1-ff00:0:110",
                "ip": "10.0.0.1",
                "port": 6881,
                "peer_id": "-LT20A0-2Hk2RLxj.gRc",
                "client": "libtorrent 2.0.10",
            })
        );
        assert_eq!(json["complete"], 3);
        assert_eq!(json["downloaded"], serde_json::Value::Null);
    }

    #[tokio::test]
    async fn trackers_that_have_compact_lists_only() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tracker = tokio::spawn(async move {
            for (field, status) in [("&compact=0", "400 Bad Request"), ("&compact=1", "200 OK")] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                assert!(String::from_utf8_lossy(&head[..length]).contains(field));
                let body = "d8:intervali60ee";
                let reply = format!("HTTP/1.1 {status}\r\ncontent-length: 16\r\n\r\n{body}");
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        let query = AnnounceQuery {
            announce: AnnounceRequest::new(InfoHash([1; 20]), PeerId([2; 20]), NonZeroU16::MIN, 1),
            compact: Some(false),
            no_peer_id: false,
        };
        let client = Client::new(&Options::default()).unwrap();
        let answer = announce(&client, &url.parse().unwrap(), &query).await;
        assert_eq!(answer.unwrap().interval, 60);
        tracker.await.unwrap();
    }

    #[test]
    fn peer_ids() {
        assert!(parse_peer_id("-SC0100-aaaaaaaaaaaa").is_ok());
        assert!(parse_peer_id("short").is_err());
        let id = new_peer_id().unwrap();
        assert_eq!(software(&id).unwrap().to_string(), "scion-tracker 0.1");
    }
}
