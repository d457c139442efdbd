//! Parses the replies of any tracker into owned types, for the client.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use crate::address::IsdAs;
use crate::codec::bencode::{BencodeError, Dict, Value};
use crate::codec::compact::{Endpoint, Layout};
use crate::response::SwarmCounts;
use crate::types::{InfoHash, PeerId};

/// Interval of a reply that has peers but no usable `interval`, in seconds: the usual one of
/// trackers.
const USUAL_INTERVAL: u64 = 1800;

/// The keys of the lists of peers, with the layout of a list that is a string. SCION peers first.
const LISTS: [(&str, Layout); 4] = [
    ("peers_scion4", Layout::Scion4),
    ("peers_scion6", Layout::Scion6),
    ("peers", Layout::Ip4),
    ("peers6", Layout::Ip6),
];

/// Why a reply has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The reply is not bencode.
    #[error("the reply is not valid bencode")]
    Bencode(#[from] BencodeError),
    /// The reply is bencode, but not a dictionary with the required keys.
    #[error("the reply has no valid `{0}`")]
    Field(&'static str),
    /// The tracker refused the request.
    #[error("{0}")]
    Failure(Failure),
}

/// A refusal of a tracker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// The tracker's message; bytes that are not UTF-8 are replaced.
    pub reason: String,
    /// When to try again (BEP 31).
    pub retry: Option<Retry>,
    /// Seconds until the next attempt, as some trackers send it.
    pub interval: Option<u64>,
}

/// `retry in` of a refusal (BEP 31).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not before this many minutes have passed.
    InMinutes(u64),
    /// Never.
    Never,
}

/// An announce reply.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AnnounceAnswer {
    /// Seconds until the next regular announce: 1800 if the reply has peers but does not say.
    pub interval: u64,
    /// Least seconds between two announces.
    pub min_interval: Option<u64>,
    /// Seeds.
    pub complete: Option<u64>,
    /// Leechers.
    pub incomplete: Option<u64>,
    /// Completed downloads.
    pub downloaded: Option<u64>,
    /// Address of the requester as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// A message for the requester.
    pub warning: Option<String>,
    /// The peers of all lists, SCION peers first.
    pub peers: Vec<AnswerPeer>,
    /// Number of list entries that are not reachable peers: a host name, port 0, or a wildcard
    /// ISD-AS.
    pub unreadable: usize,
}

/// A peer of an announce reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnswerPeer {
    /// Its address.
    pub endpoint: Endpoint,
    /// Its peer id, if the form of the reply includes it.
    pub id: Option<PeerId>,
}

impl AnswerPeer {
    /// A peer of a reply without peer ids.
    pub const fn at(endpoint: Endpoint) -> Self {
        Self { endpoint, id: None }
    }
}

/// A scrape reply.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ScrapeAnswer {
    /// Counts per torrent, in the order of the reply. Missing counts are zero; missing `downloaders`
    /// are as many as `incomplete`.
    pub files: Vec<(InfoHash, SwarmCounts)>,
    /// Least seconds between two scrapes.
    pub min_request_interval: Option<u64>,
}

/// Parses an announce reply with peers in any form. Ignores bytes behind the reply.
pub fn parse_announce_reply(reply: &[u8]) -> Result<AnnounceAnswer, ReplyError> {
    let dict = read_dict(reply)?;
    let number = |key| dict.get(key).and_then(|value| value.as_u64());
    let has_peers = LISTS.iter().any(|(key, _)| dict.get(key).is_some());
    let mut answer = AnnounceAnswer {
        interval: number("interval")
            .or_else(|| has_peers.then_some(USUAL_INTERVAL))
            .ok_or(ReplyError::Field("interval"))?,
        min_interval: number("min interval"),
        complete: number("complete"),
        incomplete: number("incomplete"),
        downloaded: number("downloaded"),
        external_ip: bytes(&dict, "external ip").and_then(read_ip_bytes),
        warning: bytes(&dict, "warning message").map(text),
        peers: Vec::new(),
        unreadable: 0,
    };
    for (key, layout) in LISTS {
        match dict.get(key) {
            Some(Value::Bytes(list)) => {
                let packed = layout.unpack(list).ok_or(ReplyError::Field(key))?;
                packed.for_each(|endpoint| {
                    let peer = AnswerPeer::at(endpoint);
                    answer.take(layout.reaches(&endpoint).then_some(peer));
                });
            }
            Some(Value::List(list)) => list.for_each(|peer| answer.take(read_peer(&peer))),
            Some(_) => return Err(ReplyError::Field(key)),
            None => {}
        }
    }
    Ok(answer)
}

/// Parses a scrape reply. Ignores bytes behind the reply.
pub fn parse_scrape_reply(reply: &[u8]) -> Result<ScrapeAnswer, ReplyError> {
    let dict = read_dict(reply)?;
    let files = dict
        .get("files")
        .and_then(|value| value.as_dict())
        .ok_or(ReplyError::Field("files"))?;
    let files = files
        .map(|(hash, counts)| {
            let hash = InfoHash::from_slice(hash).ok_or(ReplyError::Field("files"))?;
            let counts = counts.as_dict().ok_or(ReplyError::Field("files"))?;
            Ok((hash, read_counts(&counts)))
        })
        .collect::<Result<_, ReplyError>>()?;
    let min_request_interval = dict
        .get("flags")
        .and_then(|flags| flags.as_dict()?.get("min_request_interval")?.as_u64());
    Ok(ScrapeAnswer {
        files,
        min_request_interval,
    })
}

impl AnnounceAnswer {
    fn take(&mut self, peer: Option<AnswerPeer>) {
        match peer {
            Some(peer) => self.peers.push(peer),
            None => self.unreadable += 1,
        }
    }
}

/// The dictionary of a reply that is not a refusal.
fn read_dict(reply: &[u8]) -> Result<Dict<'_>, ReplyError> {
    let dict = Value::read_first(reply)?
        .as_dict()
        .ok_or(ReplyError::Field("dictionary"))?;
    let Some(reason) = bytes(&dict, "failure reason") else {
        return Ok(dict);
    };
    Err(ReplyError::Failure(Failure {
        reason: text(reason),
        retry: dict.get("retry in").and_then(|value| read_retry(&value)),
        interval: dict.get("interval").and_then(|value| value.as_u64()),
    }))
}

/// An integer, as BEP 31 says in its text, or digits, as in its example.
fn read_retry(value: &Value<'_>) -> Option<Retry> {
    if let Some(minutes) = value.as_u64() {
        return Some(Retry::InMinutes(minutes));
    }
    match value.as_bytes()? {
        b"never" => Some(Retry::Never),
        digits => std::str::from_utf8(digits)
            .ok()?
            .parse()
            .ok()
            .map(Retry::InMinutes),
    }
}

/// Parses a peer dictionary with or without `ia`. `0-0` means plain IP; other wildcards are
/// invalid.
fn read_peer(peer: &Value<'_>) -> Option<AnswerPeer> {
    let peer = peer.as_dict()?;
    let str = |key| std::str::from_utf8(bytes(&peer, key)?).ok();
    let ip: IpAddr = str("ip")?.parse().ok()?;
    let port = u16::try_from(peer.get("port")?.as_u64()?).ok()?;
    let port = NonZeroU16::new(port)?;
    let ia: IsdAs = match peer.get("ia") {
        Some(_) => str("ia")?.parse().ok()?,
        None => IsdAs::NONE,
    };
    if ia.is_wildcard() && !ia.is_none() {
        return None;
    }
    let id = bytes(&peer, "peer id").or_else(|| bytes(&peer, "id"));
    Some(AnswerPeer {
        endpoint: Endpoint {
            ia,
            addr: SocketAddr::new(ip, port.get()),
        },
        id: id.and_then(|id| id.try_into().ok()).map(PeerId),
    })
}

fn read_counts(counts: &Dict<'_>) -> SwarmCounts {
    let given = |key| {
        let n = counts.get(key).and_then(|value| value.as_u64());
        n.map(|n| u32::try_from(n).unwrap_or(u32::MAX))
    };
    let number = |key| given(key).unwrap_or(0);
    let leechers = number("incomplete");
    SwarmCounts {
        seeders: number("complete"),
        leechers,
        downloaders: given("downloaders").unwrap_or(leechers),
        completed: number("downloaded"),
    }
}

fn read_ip_bytes(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn bytes<'a>(dict: &Dict<'a>, key: &str) -> Option<&'a [u8]> {
    dict.get(key)?.as_bytes()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
