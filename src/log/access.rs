//! The access log: one line of JSON for each announce, and for each announce or scrape that the tracker
//! refused.
//!
//! A worker copies what the line says into a bounded queue. A thread formats and writes it. If the disk is
//! slow or full, lines are lost: they are counted, and the file says how many.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use scion_tracker_core::address::{CompactAddr, Host, IsdAs};
use scion_tracker_core::observe::{Announced, Change, Looked, Refused};
use scion_tracker_core::request::{AnnounceRequest, Event, Origin};
use scion_tracker_core::response::{Refusal, SwarmCounts};
use scion_tracker_core::types::{InfoHash, PeerId};
use serde::Serialize;

use super::file::LogFile;
use super::queue::{Queue, Sink};
use crate::config::AccessAddresses;

/// Lines that wait at most, about 200 bytes each.
const WAITING: usize = 8192;
/// Bits that a truncated address keeps.
const KEPT_V4: u32 = 24;
const KEPT_V6: u32 = 48;
/// Bytes of a peer id that name the client (BEP 20). The others name the peer.
const CLIENT: usize = 8;

/// Writes the access log. Clones write to the same one.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog(Queue<Entry>);

impl AccessLog {
    /// Opens the file and starts the thread that writes it.
    pub(crate) fn start(path: &Path, addresses: AccessAddresses) -> io::Result<Self> {
        let lines = Lines {
            path: path.into(),
            file: LogFile::open(path)?,
            addresses,
            line: Vec::new(),
        };
        Queue::start("access log", WAITING, lines).map(Self)
    }

    /// Notes an announce that was served.
    // Not inlined: without an access log an announce pays for no more than a branch.
    #[inline(never)]
    pub(crate) fn announced(&self, it: &Announced<'_>) {
        let outcome = Outcome::Stored {
            change: it.change,
            completed: it.completed,
            peer: (it.peer.ia, it.peer.addr),
            counts: it.counts,
        };
        self.note(it.origin, it.announce.info_hash, Some(it.announce), outcome);
    }

    /// Notes an announce that was served and stored nothing.
    #[inline(never)]
    pub(crate) fn looked(&self, it: &Looked<'_>) {
        let outcome = Outcome::Looked { counts: it.counts };
        self.note(it.origin, it.announce.info_hash, Some(it.announce), outcome);
    }

    /// Notes a refusal.
    pub(crate) fn refused(&self, it: &Refused<'_>) {
        let outcome = Outcome::Refused(it.refusal);
        self.note(it.origin, *it.info_hash, it.announce, outcome);
    }

    fn note(
        &self,
        origin: &Origin,
        info_hash: InfoHash,
        announce: Option<&AnnounceRequest>,
        outcome: Outcome,
    ) {
        let Self(queue) = self;
        queue.send(Entry {
            at: SystemTime::now(),
            client: origin.host,
            info_hash,
            announce: announce.map(|it| Sent {
                peer_id: it.peer_id,
                port: it.port,
                event: it.event,
                left: it.left,
                has_passkey: it.passkey.is_some(),
            }),
            outcome,
        });
    }

    /// Opens the file again, after it was renamed.
    pub(crate) fn reopen(&self) {
        self.0.reopen();
    }

    /// Lines that were lost since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.0.lost()
    }

    /// Waits until what was noted before is written, but not longer than this. Blocks.
    pub(crate) fn drain(&self, most: Duration) {
        self.0.drain(most);
    }
}

/// What one line says.
#[derive(Debug, Clone, Copy)]
struct Entry {
    at: SystemTime,
    client: Host,
    info_hash: InfoHash,
    /// `None` for a scrape.
    announce: Option<Sent>,
    outcome: Outcome,
}

/// What an announce sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    peer_id: PeerId,
    port: u16,
    event: Event,
    left: u64,
    /// The passkey itself never leaves the request.
    has_passkey: bool,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Stored {
        change: Change,
        completed: bool,
        peer: (IsdAs, CompactAddr),
        counts: SwarmCounts,
    },
    Looked {
        counts: SwarmCounts,
    },
    Refused(Refusal),
}

/// The line. Fields that say nothing are left out.
#[derive(Debug, Serialize)]
struct Line {
    time: String,
    request: &'static str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    client: IpAddr,
    /// ISD-AS of a client over SCION.
    #[serde(skip_serializing_if = "Option::is_none")]
    isd_as: Option<String>,
    info_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passkey: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<bool>,
    /// What other peers are given, if it is not the client's own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<IpAddr>,
    /// The ISD-AS that the peer is stored with.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_isd_as: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seeds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leechers: Option<u32>,
}

impl Line {
    fn of(entry: &Entry, addresses: AccessAddresses) -> Self {
        let place = |ia: IsdAs| (!ia.is_none()).then(|| ia.to_string());
        let Entry {
            at,
            client,
            info_hash,
            announce,
            outcome,
        } = entry;
        let mut line = Self {
            time: humantime::format_rfc3339_micros(*at).to_string(),
            request: "scrape",
            outcome: "served",
            reason: None,
            client: shown(addresses, client.ip()),
            isd_as: place(client.ia),
            info_hash: info_hash.to_string(),
            peer_id: None,
            port: None,
            event: None,
            left: None,
            passkey: None,
            change: None,
            completed: None,
            peer: None,
            peer_isd_as: None,
            seeds: None,
            leechers: None,
        };
        if let Some(sent) = announce {
            line.request = "announce";
            line.peer_id = Some(shown_id(addresses, &sent.peer_id));
            line.port = matches!(addresses, AccessAddresses::Whole).then_some(sent.port);
            line.event = event(sent.event);
            line.left = Some(sent.left).filter(|left| *left != AnnounceRequest::LEFT_UNKNOWN);
            line.passkey = sent.has_passkey.then_some("*");
        }
        let counts = match outcome {
            Outcome::Stored {
                change: of_peer,
                completed,
                peer: (ia, addr),
                counts,
            } => {
                line.change = Some(change(*of_peer));
                line.completed = Some(*completed);
                let ip = addr.socket_addr().ip();
                line.peer = (ip != client.ip()).then(|| shown(addresses, ip));
                line.peer_isd_as = place(*ia);
                Some(counts)
            }
            Outcome::Looked { counts } => Some(counts),
            Outcome::Refused(refusal) => {
                line.outcome = "refused";
                line.reason = Some(refusal.label());
                None
            }
        };
        if let Some(counts) = counts {
            line.seeds = Some(counts.seeders);
            line.leechers = Some(counts.leechers);
        }
        line
    }
}

/// An address as the log shows it.
fn shown(addresses: AccessAddresses, ip: IpAddr) -> IpAddr {
    match (addresses, ip) {
        (AccessAddresses::Whole, ip) => ip,
        (AccessAddresses::Truncated, IpAddr::V4(ip)) => {
            Ipv4Addr::from_bits(ip.to_bits() & !(u32::MAX >> KEPT_V4)).into()
        }
        (AccessAddresses::Truncated, IpAddr::V6(ip)) => {
            Ipv6Addr::from_bits(ip.to_bits() & !(u128::MAX >> KEPT_V6)).into()
        }
    }
}

/// A peer id in hexadecimal digits: it is any bytes.
fn shown_id(addresses: AccessAddresses, PeerId(bytes): &PeerId) -> String {
    let shown = match addresses {
        AccessAddresses::Whole => &bytes[..],
        AccessAddresses::Truncated => &bytes[..CLIENT],
    };
    shown.iter().map(|byte| format!("{byte:02x}")).collect()
}

const fn event(event: Event) -> Option<&'static str> {
    match event {
        Event::None => None,
        Event::Started => Some("started"),
        Event::Completed => Some("completed"),
        Event::Stopped => Some("stopped"),
        Event::Paused => Some("paused"),
    }
}

const fn change(change: Change) -> &'static str {
    match change {
        Change::Joined => "joined",
        Change::Refreshed => "refreshed",
        Change::Left => "left",
        // The core may get more.
        _ => "unknown",
    }
}

/// The file, on the thread that writes it.
struct Lines {
    path: PathBuf,
    file: LogFile,
    addresses: AccessAddresses,
    /// Kept for its memory.
    line: Vec<u8>,
}

impl Lines {
    fn push(&mut self, line: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        self.file.push(&self.line)
    }
}

impl Sink<Entry> for Lines {
    fn write(&mut self, entry: Entry) -> io::Result<()> {
        self.push(&Line::of(&entry, self.addresses))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn reopen(&mut self) {
        if let Err(error) = self.file.reopen() {
            let path = self.path.display();
            tracing::error!(%path, %error, "cannot open the access log again: the old file stays in use");
        }
    }

    fn report_lost(&mut self, lost: u64) {
        let path = self.path.display();
        tracing::warn!(%path, lost, "lines of the access log were lost: the disk is slow or full");
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        // It is in the log of the program, too.
        let _ = self.push(&LostLines { time, lost });
    }
}

/// Stands where lines are missing.
#[derive(Debug, Serialize)]
struct LostLines {
    time: String,
    lost: u64,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::UNIX_EPOCH;

    use serde_json::{Value, json};

    use super::*;

    fn entry(client: &str, announce: Option<Sent>, outcome: Outcome) -> Entry {
        Entry {
            at: UNIX_EPOCH + Duration::from_micros(1_796_000_000_123_456),
            client: Host::ip_only(client.parse().unwrap()),
            info_hash: InfoHash([0xab; 20]),
            announce,
            outcome,
        }
    }

    fn sent() -> Sent {
        Sent {
            peer_id: PeerId(*b"-TR4050-\x00\"\nsecretid!"),
            port: 6881,
            event: Event::Started,
            left: 7,
            has_passkey: true,
        }
    }

    fn stored() -> Outcome {
        Outcome::Stored {
            change: Change::Joined,
            completed: false,
            peer: (
                "1-ff00:0:110".parse().unwrap(),
                CompactAddr::new("192.0.2.9".parse().unwrap(), 6881),
            ),
            counts: SwarmCounts {
                seeders: 3,
                leechers: 4,
                downloaders: 4,
                completed: 5,
            },
        }
    }

    fn json_of(entry: &Entry, addresses: AccessAddresses) -> Value {
        serde_json::to_value(Line::of(entry, addresses)).unwrap()
    }

    #[test]
    fn a_line_says_who_announced_what_and_what_became_of_it() {
        let line = json_of(
            &entry("192.0.2.7", Some(sent()), stored()),
            AccessAddresses::Whole,
        );
        let expected = json!({
            "time": "2026-11-30T00:53:20.123456Z",
            "request": "announce",
            "outcome": "served",
            "client": "192.0.2.7",
            "info_hash": "abababababababababababababababababababab",
            "peer_id": "2d5452343035302d00220a736563726574696421",
            "port": 6881,
            "event": "started",
            "left": 7,
            "passkey": "*",
            "change": "joined",
            "completed": false,
            "peer": "192.0.2.9",
            "peer_isd_as": "1-ff00:0:110",
            "seeds": 3,
            "leechers": 4,
        });
        assert_eq!(line, expected);
        let refused = Outcome::Refused(Refusal::RateLimit);
        let line = json_of(&entry("2001:db8::1", None, refused), AccessAddresses::Whole);
        assert_eq!(line["request"], "scrape");
        assert_eq!(line["outcome"], "refused");
        assert_eq!(line["reason"], "rate_limit");
        assert_eq!(line["client"], "2001:db8::1");
        assert!(line.get("peer_id").is_none() && line.get("passkey").is_none());
    }

    #[test]
    fn truncated_addresses_name_a_network_and_a_program() {
        let line = json_of(
            &entry("192.0.2.7", Some(sent()), stored()),
            AccessAddresses::Truncated,
        );
        assert_eq!(line["client"], "192.0.2.0");
        assert_eq!(line["peer"], "192.0.2.0");
        assert_eq!(line["peer_id"], "2d5452343035302d");
        assert!(line.get("port").is_none());
        let line = json_of(
            &entry("2001:db8:1:2::3", None, stored()),
            AccessAddresses::Truncated,
        );
        assert_eq!(line["client"], "2001:db8:1::");
    }

    #[test]
    fn lines_are_written_in_order_and_the_file_says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.json");
        let log = AccessLog::start(&path, AccessAddresses::Whole).unwrap();
        for port in 1..=3 {
            let sent = Sent { port, ..sent() };
            log.0.send(entry("192.0.2.7", Some(sent), stored()));
        }
        log.drain(Duration::from_secs(20));
        let text = fs::read_to_string(&path).unwrap();
        let ports: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["port"].clone())
            .collect();
        assert_eq!(ports, [1, 2, 3]);
        assert_eq!(log.lost(), 0);
    }
}
