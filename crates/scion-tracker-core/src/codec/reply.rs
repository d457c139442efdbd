//! Bencoded HTTP replies (BEP 3, 7, 21, 23, 24, 31, 48): the tracker's writer here, the client's
//! parser in `reply/read.rs`.

mod dictionary;
mod read;

use crate::address::IsdAs;
use crate::codec::bencode::Writer;
use crate::codec::compact::{push_scion, with_ip_bytes};
use crate::codec::query::AnnounceQuery;
use crate::request::{Origin, ScionClaim};
use crate::response::{AddrBytes, AnnounceReply, Peer, PeerSink, SwarmCounts};
use crate::types::InfoHash;

use dictionary::push_dictionary;
pub use read::{
    AnnounceAnswer, AnswerPeer, Failure, ReplyError, Retry, ScrapeAnswer, parse_announce_reply,
    parse_scrape_reply,
};

/// How an announce reply lists its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `peers` and `peers6` as compact lists (BEP 23, BEP 7).
    Compact,
    /// `peers` as dictionaries of `ip`, `peer id`, `port` (BEP 3).
    Dictionaries {
        /// Whether they contain `peer id`.
        peer_ids: bool,
    },
    /// `peers` as dictionaries of `ia`, `id`, `ip`, `peer id`, `port`, for clients of the first
    /// SCION tracker. `ia` is `0-0` for a peer that is not reachable over SCION.
    ScionDictionaries {
        /// Whether they contain `id` and `peer id`, which are equal.
        peer_ids: bool,
    },
    /// `peers` and `peers6` as in [`Form::Compact`], and the compact lists `peers_scion4` and
    /// `peers_scion6`. A peer that is reachable both ways is only in the SCION list.
    ScionCompact,
}

impl Form {
    /// The form that a requester reads.
    pub fn of(origin: &Origin, query: &AnnounceQuery) -> Self {
        let claim = &query.announce.claim;
        let peer_ids = !query.no_peer_id;
        let compact = query.compact;
        if claim.scion != ScionClaim::Absent && compact == Some(true) {
            Self::ScionCompact
        } else if origin.is_scion() || claim.is_scion() {
            Self::ScionDictionaries { peer_ids }
        } else if compact == Some(false) {
            Self::Dictionaries { peer_ids }
        } else {
            Self::Compact
        }
    }
}

/// Collects the peers of a reply in their final form, then writes the reply. Create one per worker
/// or connection and reset it for each reply, so that nothing is allocated.
#[derive(Debug)]
pub struct Peers {
    form: Form,
    /// Compact peers, or the dictionaries of the list.
    peers: Vec<u8>,
    peers6: Vec<u8>,
    scion4: Vec<u8>,
    scion6: Vec<u8>,
}

impl Peers {
    /// A body without peers.
    pub const fn new(form: Form) -> Self {
        Self {
            form,
            peers: Vec::new(),
            peers6: Vec::new(),
            scion4: Vec::new(),
            scion6: Vec::new(),
        }
    }

    /// Removes the peers, keeps the buffers.
    pub fn reset(&mut self, form: Form) {
        self.form = form;
        self.peers.clear();
        self.peers6.clear();
        self.scion4.clear();
        self.scion6.clear();
    }

    /// Appends the whole reply with the collected peers.
    pub fn write(&self, reply: &AnnounceReply, out: &mut Vec<u8>) {
        let lists = self.peers.len() + self.peers6.len() + self.scion4.len() + self.scion6.len();
        // The other fields take 130 to 250 bytes.
        out.reserve(lists + 256);
        let mut writer = Writer::new(out);
        writer.dict();
        writer.bytes(b"complete");
        writer.int(reply.counts.seeders);
        writer.bytes(b"downloaded");
        writer.int(reply.counts.completed);
        // BEP 24: the raw address, 4 or 16 bytes.
        writer.bytes(b"external ip");
        with_ip_bytes(reply.observed.ip(), |ip| writer.bytes(ip));
        writer.bytes(b"incomplete");
        writer.int(reply.counts.leechers);
        writer.bytes(b"interval");
        writer.int(reply.interval);
        writer.bytes(b"min interval");
        writer.int(reply.min_interval);
        writer.bytes(b"peers");
        match self.form {
            Form::Compact | Form::ScionCompact => writer.bytes(&self.peers),
            Form::Dictionaries { .. } | Form::ScionDictionaries { .. } => {
                writer.list();
                writer.raw(&self.peers);
                writer.end();
            }
        }
        if !self.peers6.is_empty() {
            writer.bytes(b"peers6");
            writer.bytes(&self.peers6);
        }
        if self.form == Form::ScionCompact {
            // Present even when empty, so that the client sees that the tracker supports them.
            writer.bytes(b"peers_scion4");
            writer.bytes(&self.scion4);
            writer.bytes(b"peers_scion6");
            writer.bytes(&self.scion6);
        }
        if let Some(warning) = reply.warning {
            writer.bytes(b"warning message");
            writer.bytes(warning.message().as_bytes());
        }
        writer.end();
    }
}

impl PeerSink for Peers {
    fn push(&mut self, peer: Peer<'_>) {
        match self.form {
            Form::ScionCompact if peer.reach.over_scion() => match peer.addr {
                AddrBytes::V4(_) => push_scion(&peer, &mut self.scion4),
                AddrBytes::V6(_) => push_scion(&peer, &mut self.scion6),
            },
            Form::ScionDictionaries { peer_ids } => {
                let ia = match peer.reach.over_scion() {
                    true => peer.ia,
                    false => IsdAs::NONE,
                };
                push_dictionary(&peer, Some(ia), peer_ids, &mut self.peers);
            }
            // An address that is only valid inside its AS never goes into a plain list.
            _ if !peer.reach.over_ip() => {}
            Form::Compact | Form::ScionCompact => match peer.addr {
                AddrBytes::V4(bytes) => self.peers.extend_from_slice(bytes),
                AddrBytes::V6(bytes) => self.peers6.extend_from_slice(bytes),
            },
            Form::Dictionaries { peer_ids } => {
                push_dictionary(&peer, None, peer_ids, &mut self.peers);
            }
        }
    }
}

/// Appends a refusal. `retry_in` (BEP 31) is in minutes; without it the reply does not say when to
/// come back. `interval`, in seconds, is for clients that read only that.
pub fn write_failure(
    message: &str,
    retry_in: Option<u32>,
    interval: Option<u32>,
    out: &mut Vec<u8>,
) {
    let mut writer = Writer::new(out);
    writer.dict();
    writer.bytes(b"failure reason");
    writer.bytes(message.as_bytes());
    if let Some(interval) = interval {
        writer.bytes(b"interval");
        writer.int(interval);
    }
    if let Some(minutes) = retry_in {
        // BEP 31 requires a positive integer.
        writer.bytes(b"retry in");
        writer.int(minutes.max(1));
    }
    writer.end();
}

/// Appends a scrape reply (BEP 48). Sorts the entries. A hash that was asked for twice is answered
/// once.
pub fn write_scrape(
    entries: &mut [(InfoHash, SwarmCounts)],
    min_request_interval: u32,
    out: &mut Vec<u8>,
) {
    entries.sort_unstable_by_key(|(hash, _)| *hash);
    out.reserve(64 + entries.len() * 100);
    let mut writer = Writer::new(out);
    writer.dict();
    writer.bytes(b"files");
    writer.dict();
    let mut previous = None;
    for (hash, counts) in entries {
        if previous == Some(*hash) {
            continue;
        }
        previous = Some(*hash);
        writer.bytes(&hash.0);
        writer.dict();
        writer.bytes(b"complete");
        writer.int(counts.seeders);
        writer.bytes(b"downloaded");
        writer.int(counts.completed);
        // BEP 21. Without partial seeds it says nothing new.
        if counts.downloaders != counts.leechers {
            writer.bytes(b"downloaders");
            writer.int(counts.downloaders);
        }
        writer.bytes(b"incomplete");
        writer.int(counts.leechers);
        writer.end();
    }
    writer.end();
    writer.bytes(b"flags");
    writer.dict();
    writer.bytes(b"min_request_interval");
    writer.int(min_request_interval);
    writer.end();
    writer.end();
}

#[cfg(test)]
mod tests;
