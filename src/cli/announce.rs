//! `scion-tracker announce`: announces a peer to a tracker and prints the reply.

mod peer_id;
mod port;
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

use super::asking::{Asking, table};
use super::serve::stop_signal;
use super::visible::visible;
use crate::client::{Client, RequestError, TrackerUrl, software};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Torrent: 40 hexadecimal digits, or 64 for a version 2 torrent.
    #[arg(long, value_name = "HEX", required_unless_present = "show_paths")]
    info_hash: Option<InfoHash>,
    /// Port the peer listens on [default: 6881; over SCION one that the border routers of the AS deliver
    /// to, such as 31881].
    #[arg(long)]
    port: Option<NonZeroU16>,
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
    /// Peer id of 20 characters. Without it, one that depends on this host, the port and the torrent:
    /// later announces, also `stopped`, come from the same peer.
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

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        if self.asking.shows_paths()? {
            return Ok(());
        }
        let info_hash = self.info_hash.context("no --info-hash")?;
        if self.repeat {
            return self.asking.work(async |client, url| {
                let query = self.query(client, url, info_hash).await;
                self.repeat(client, url, query).await
            })?;
        }
        let shown = self.asking.ask(async |client, url| {
            let query = self.query(client, url, info_hash).await;
            let answer = announce(client, url, &query).await?;
            Ok(Shown::new(&answer, self.place(client, url).await))
        })?;
        self.asking.print(&shown, || shown.to_text())
    }

    /// The announce. Warns of a port that others would not reach.
    async fn query(&self, client: &Client, url: &TrackerUrl, info_hash: InfoHash) -> AnnounceQuery {
        let claim = Claim {
            ia: self.ia,
            scion: self.scion.unwrap_or_default(),
        };
        let topology = client.peer_as(url, &claim).await;
        let (port, error) = match claim.scion {
            // Over IP others are given the claimed port over SCION, and this one over IP.
            ScionClaim::At(at) if !client.is_over_scion(url) => {
                let (port, _) = port::choose(self.port, None);
                (port, topology.and_then(|it| it.check_port(at.port).err()))
            }
            _ => port::choose(self.port, topology.as_ref()),
        };
        if let Some(error) = error {
            eprintln!("scion-tracker: warning: {error}");
        }
        let peer_id = self
            .peer_id
            .unwrap_or_else(|| peer_id::of_this_host(port, info_hash));
        AnnounceQuery {
            announce: AnnounceRequest {
                event: self.event.into(),
                numwant: self.numwant,
                claim,
                ..AnnounceRequest::new(info_hash, peer_id, port.get(), self.left)
            },
            compact: Some(self.compact),
            no_peer_id: false,
        }
    }

    /// Our ISD-AS: what we claim, else where our packets over SCION come from.
    async fn place(&self, client: &Client, url: &TrackerUrl) -> Option<IsdAs> {
        match (self.ia, self.scion) {
            (Some(ia), _) => Some(ia),
            (None, Some(ScionClaim::At(addr))) => Some(addr.host.ia),
            _ => client.isd_as(url).await,
        }
    }

    async fn repeat(
        &self,
        client: &Client,
        url: &TrackerUrl,
        mut query: AnnounceQuery,
    ) -> anyhow::Result<()> {
        let stop = stop_signal()?;
        let place = self.place(client, url).await;
        let announce = async |event| -> anyhow::Result<Duration> {
            query.announce.event = event;
            let answer = announce(client, url, &query)
                .await
                .map_err(|error| self.asking.explained(&error))?;
            if event != Event::Stopped {
                let shown = Shown::new(&answer, place);
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
    /// Position in the table: 0 for our own AS, 1 for our ISD, 2 for others, 3 without a place.
    #[serde(skip)]
    rank: u8,
}

/// See [`ShownPeer::rank`].
fn rank(ia: IsdAs, own: Option<IsdAs>) -> u8 {
    match own {
        _ if ia.is_none() => 3,
        Some(own) if own == ia => 0,
        Some(own) if own.isd() == ia.isd() => 1,
        _ => 2,
    }
}

impl Shown {
    /// `own` is our ISD-AS, if known.
    fn new(answer: &AnnounceAnswer, own: Option<IsdAs>) -> Self {
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
                rank: rank(ia, own),
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

    /// The peers of our own AS first, then those of our ISD.
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
            lines.push(format!("warning: {}", visible(warning)));
        }
        if self.unreadable_peers > 0 {
            lines.push(format!("unreadable peers: {}", self.unreadable_peers));
        }
        let missing = || "-".to_owned();
        let mut peers: Vec<_> = self.peers.iter().collect();
        peers.sort_by_key(|peer| peer.rank);
        let rows: Vec<_> = peers
            .into_iter()
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
        let peer = |ia: &str, addr: &str, id: Option<&[u8; 20]>| {
            let mut peer = AnswerPeer::at(Endpoint {
                ia: ia.parse().unwrap(),
                addr: addr.parse().unwrap(),
            });
            peer.id = id.map(|id| PeerId(*id));
            peer
        };
        let mut answer = AnnounceAnswer::default();
        answer.interval = 1830;
        answer.min_interval = Some(300);
        answer.complete = Some(3);
        answer.incomplete = Some(12);
        answer.external_ip = Some("192.0.2.1".parse().unwrap());
        answer.peers = vec![
            peer(
                "1-ff00:0:110",
                "10.0.0.1:6881",
                Some(b"-LT20A0-2Hk2RLxj.gRc"),
            ),
            peer("0-0", "[2001:db8::1]:80", Some(b"\x1b[31m..............\n")),
            peer("0-0", "192.0.2.2:1", None),
        ];
        answer
    }

    #[test]
    fn text_snapshot() {
        assert_eq!(
            Shown::new(&answer(), None).to_text(),
            "seeds: 3   leechers: 12\n\
             next announce: in 30m 30s, not before 5m\n\
             your address: 192.0.2.1\n\
             \n\
             PLACE         ADDRESS           CLIENT\n\
             1-ff00:0:110  10.0.0.1:6881     libtorrent 2.0.10\n\
             -             [2001:db8::1]:80  \\x1b[31m..............\\n\n\
             -             192.0.2.2:1       -\n"
        );
        let mut nobody = AnnounceAnswer::default();
        nobody.interval = 60;
        nobody.warning = Some("a\nb".to_owned());
        assert_eq!(
            Shown::new(&nobody, None).to_text(),
            "next announce: in 1m\nwarning: a\\nb\nno peers\n"
        );
    }

    #[test]
    fn the_own_as_stands_first_in_the_table() {
        let places = [
            "2-ff00:0:210",
            "0-0",
            "1-ff00:0:111",
            "1-ff00:0:110",
            "1-ff00:0:110",
        ];
        let peer = |(port, ia): (usize, &&str)| {
            AnswerPeer::at(Endpoint {
                ia: ia.parse().unwrap(),
                addr: ([10, 0, 0, 1], port as u16 + 1).into(),
            })
        };
        let mut answer = AnnounceAnswer::default();
        answer.peers = places.iter().enumerate().map(peer).collect();
        for (own, order) in [
            (Some("1-ff00:0:110"), ["4", "5", "3", "1", "2"]),
            (Some("2-ff00:0:1"), ["1", "3", "4", "5", "2"]),
            (None, ["1", "3", "4", "5", "2"]),
        ] {
            let shown = Shown::new(&answer, own.map(|own| own.parse().unwrap()));
            let text = shown.to_text();
            let ports: Vec<_> = text
                .lines()
                .filter_map(|line| line.split_whitespace().nth(1)?.strip_prefix("10.0.0.1:"))
                .collect();
            assert_eq!(ports, order, "{text}");
            // JSON keeps the order of the tracker.
            let json = serde_json::to_value(&shown).unwrap();
            assert_eq!(json["peers"][0]["port"], 1);
            assert_eq!(json["peers"][0].get("rank"), None);
        }
    }

    #[test]
    fn json_snapshot() {
        let json = serde_json::to_value(Shown::new(&answer(), None)).unwrap();
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
            announce: AnnounceRequest::new(InfoHash([1; 20]), PeerId([2; 20]), 1, 1),
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
    }
}
