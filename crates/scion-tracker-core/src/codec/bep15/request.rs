//! BEP 15 requests: parsed by the tracker, written by the client.

use std::net::{IpAddr, Ipv4Addr};

use super::url::{UrlData, push_url};
use super::{ANNOUNCE, CONNECT, MAGIC, Malformed, SCRAPE, TransactionId};
use super::{bytes_at, u32_at, u64_at};
use crate::codec::connection::ConnectionId;
use crate::codec::query::{QueryError, write_claim};
use crate::request::{AnnounceRequest, Claim, Event};
use crate::types::{InfoHash, PeerId};

/// Most hashes in one scrape (BEP 15: up to about 74). Further ones are not answered.
pub const MAX_SCRAPE: usize = 74;

/// A request as the tracker parses it.
#[derive(Debug, Clone, Copy)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all requests are announces"
)]
pub enum Request<'a> {
    /// Requests a connection id.
    Connect {
        /// Repeated in the reply.
        transaction: TransactionId,
    },
    /// Announces a peer and requests others.
    Announce {
        /// Must be checked before anything is answered.
        connection: ConnectionId,
        /// Repeated in the reply.
        transaction: TransactionId,
        /// The announce, or the reason for an error reply.
        announce: Result<AnnounceRequest, QueryError>,
        /// Whether the client reads a list of [`Layout::Scion46`](crate::codec::compact::Layout):
        /// `scion46=1` in the URL data. False if the announce has an error.
        reads_scion46: bool,
        /// Path and query of the tracker's URL, if the client sends them (BEP 41). The passkey, `ia`
        /// and `scion` are in the announce already.
        url: UrlData<'a>,
    },
    /// Requests the counts of swarms.
    Scrape {
        /// Must be checked before anything is answered.
        connection: ConnectionId,
        /// Repeated in the reply.
        transaction: TransactionId,
        /// The swarms, at least one.
        hashes: Hashes<'a>,
    },
}

/// The info hashes of a scrape, in order and with duplicates.
#[derive(Debug, Clone, Copy)]
pub struct Hashes<'a>(&'a [[u8; 20]]);

impl Iterator for Hashes<'_> {
    type Item = InfoHash;

    fn next(&mut self) -> Option<InfoHash> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(InfoHash(*first))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len(), Some(self.0.len()))
    }
}

impl ExactSizeIterator for Hashes<'_> {}

/// Parses a request. Longer requests than necessary are accepted, because BEP 15 allows extensions.
/// Reads the first `max_scrape` hashes of a scrape, and at most [`MAX_SCRAPE`].
pub fn parse(datagram: &[u8], max_scrape: usize) -> Result<Request<'_>, Malformed> {
    if let Some((packet, options)) = datagram.split_first_chunk::<98>()
        && u32_at(packet, 8) == ANNOUNCE
    {
        return Ok(read_announce(packet, options));
    }
    let (header, rest) = datagram.split_first_chunk::<16>().ok_or(Malformed)?;
    let transaction = TransactionId(u32_at(header, 12));
    match u32_at(header, 8) {
        CONNECT if u64_at(header, 0) == MAGIC => Ok(Request::Connect { transaction }),
        SCRAPE => {
            let (hashes, _) = rest.as_chunks();
            let count = hashes.len().min(max_scrape).min(MAX_SCRAPE);
            if count == 0 {
                return Err(Malformed);
            }
            Ok(Request::Scrape {
                connection: ConnectionId(u64_at(header, 0)),
                transaction,
                hashes: Hashes(&hashes[..count]),
            })
        }
        _ => Err(Malformed),
    }
}

/// Info hash and port of a datagram that looks like an announce. Nothing is checked.
pub fn peek_announce(datagram: &[u8]) -> Option<(InfoHash, u16)> {
    let (packet, _) = datagram.split_first_chunk::<98>()?;
    let port = u16::from_be_bytes(bytes_at(packet, 96));
    (u32_at(packet, 8) == ANNOUNCE).then_some((InfoHash(bytes_at(packet, 16)), port))
}

/// ```text
///  0  connection 8    8  action 4      12  transaction 4
/// 16  info hash 20   36  peer id 20
/// 56  downloaded 8   64  left 8        72  uploaded 8
/// 80  event 4        84  IP address 4  88  key 4
/// 92  num_want 4     96  port 2        98  options (BEP 41)
/// ```
#[inline]
fn read_announce<'a>(packet: &[u8; 98], options: &'a [u8]) -> Request<'a> {
    let url = UrlData::new(options);
    let event = read_event(u32_at(packet, 80));
    let left = u64_at(packet, 64);
    let numwant = match read_numwant(u32_at(packet, 92)) {
        // anacrolix/torrent sends 0 and means the default. A leecher has use for peers.
        Some(0) if left != 0 && event != Event::Stopped => None,
        numwant => numwant,
    };
    let announce = AnnounceRequest {
        info_hash: InfoHash(bytes_at(packet, 16)),
        peer_id: PeerId(bytes_at(packet, 36)),
        port: u16::from_be_bytes(bytes_at(packet, 96)),
        left,
        uploaded: u64_at(packet, 72),
        downloaded: u64_at(packet, 56),
        event,
        numwant,
        key: Some(u32_at(packet, 88)).filter(|key| *key != 0),
        claim: Claim::default(),
        named_ip: read_ip(u32_at(packet, 84)),
        passkey: None,
    };
    let mut request = Request::Announce {
        connection: ConnectionId(u64_at(packet, 0)),
        transaction: TransactionId(u32_at(packet, 12)),
        announce: Ok(announce),
        reads_scion46: false,
        url,
    };
    // Afterwards and in place, so that announces without fields in the URL are not copied.
    if !url.is_plain() {
        read_url(&mut request);
    }
    request
}

/// Adds the fields of the URL to an announce.
#[cold]
fn read_url(request: &mut Request<'_>) {
    let Request::Announce {
        announce: result,
        reads_scion46,
        url,
        ..
    } = request
    else {
        return;
    };
    match url.fields() {
        Ok(fields) => {
            if let Ok(announce) = result {
                announce.claim = fields.claim;
                announce.passkey = fields.passkey;
                *reads_scion46 = fields.reads_scion46;
            }
        }
        Err(error) => *result = Err(error),
    }
}

/// No BEP defines 4; libtorrent sends it for BEP 21's `paused`.
const fn read_event(number: u32) -> Event {
    match number {
        1 => Event::Completed,
        2 => Event::Started,
        3 => Event::Stopped,
        4 => Event::Paused,
        _ => Event::None,
    }
}

const fn event_number(event: Event) -> u32 {
    match event {
        Event::None => 0,
        Event::Completed => 1,
        Event::Started => 2,
        Event::Stopped => 3,
        Event::Paused => 4,
    }
}

/// -1 means the default, and so does any other negative number.
const fn read_numwant(bits: u32) -> Option<u32> {
    if bits > i32::MAX as u32 {
        None
    } else {
        Some(bits)
    }
}

const fn read_ip(bits: u32) -> Option<IpAddr> {
    match bits {
        0 => None,
        bits => Some(IpAddr::V4(Ipv4Addr::from_bits(bits))),
    }
}

/// Appends a `connect`.
pub fn write_connect_request(transaction: TransactionId, out: &mut Vec<u8>) {
    write_header(MAGIC, CONNECT, transaction, out);
}

/// Appends an announce. `path` is path and query of the tracker's URL. It goes into URL data (BEP
/// 41), together with the claim of the announce, if there is one.
///
/// What BEP 15 cannot hold is left out: an IPv6 `named_ip`, and a `numwant` of 2^31 or more.
pub fn write_announce_request(
    connection: ConnectionId,
    transaction: TransactionId,
    announce: &AnnounceRequest,
    path: &str,
    out: &mut Vec<u8>,
) {
    write_header(connection.0, ANNOUNCE, transaction, out);
    out.extend_from_slice(&announce.info_hash.0);
    out.extend_from_slice(&announce.peer_id.0);
    out.extend_from_slice(&announce.downloaded.to_be_bytes());
    out.extend_from_slice(&announce.left.to_be_bytes());
    out.extend_from_slice(&announce.uploaded.to_be_bytes());
    out.extend_from_slice(&event_number(announce.event).to_be_bytes());
    let ip = match announce.named_ip {
        Some(IpAddr::V4(ip)) => ip.to_bits(),
        _ => 0,
    };
    out.extend_from_slice(&ip.to_be_bytes());
    out.extend_from_slice(&announce.key.unwrap_or(0).to_be_bytes());
    let numwant = announce.numwant.and_then(|n| i32::try_from(n).ok());
    out.extend_from_slice(&numwant.unwrap_or(-1).to_be_bytes());
    out.extend_from_slice(&announce.port.to_be_bytes());
    let mut url = path.to_owned();
    let separator = if path.contains('?') { '&' } else { '?' };
    write_claim(&announce.claim, separator, &mut url);
    push_url(&url, out);
}

/// Appends a scrape.
pub fn write_scrape_request(
    connection: ConnectionId,
    transaction: TransactionId,
    hashes: &[InfoHash],
    out: &mut Vec<u8>,
) {
    write_header(connection.0, SCRAPE, transaction, out);
    for hash in hashes {
        out.extend_from_slice(&hash.0);
    }
}

fn write_header(connection: u64, action: u32, transaction: TransactionId, out: &mut Vec<u8>) {
    out.extend_from_slice(&connection.to_be_bytes());
    out.extend_from_slice(&action.to_be_bytes());
    out.extend_from_slice(&transaction.0.to_be_bytes());
}
