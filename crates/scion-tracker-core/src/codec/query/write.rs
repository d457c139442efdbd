//! Writes the queries of announces and scrapes, for the client.

use std::fmt::Write as _;

use super::AnnounceQuery;
use super::escape::encode;
use crate::request::{Claim, Event, ScionClaim};
use crate::types::InfoHash;

/// Appends the query of an announce, without the `?`.
pub fn write_announce(query: &AnnounceQuery, out: &mut String) {
    let announce = &query.announce;
    out.push_str("info_hash=");
    encode(&announce.info_hash.0, out);
    out.push_str("&peer_id=");
    encode(&announce.peer_id.0, out);
    field(out, "port", announce.port);
    field(out, "uploaded", announce.uploaded);
    field(out, "downloaded", announce.downloaded);
    field(out, "left", announce.left);
    if let Some(event) = event_name(announce.event) {
        field(out, "event", event);
    }
    if let Some(numwant) = announce.numwant {
        field(out, "numwant", numwant);
    }
    if let Some(key) = announce.key {
        field(out, "key", format_args!("{key:08X}"));
    }
    if let Some(compact) = query.compact {
        field(out, "compact", u8::from(compact));
    }
    if query.no_peer_id {
        field(out, "no_peer_id", 1);
    }
    if let Some(ip) = announce.named_ip {
        field(out, "ip", ip);
    }
    write_claim(&announce.claim, '&', out);
}

/// Appends the query of a scrape, without the `?`.
pub fn write_scrape(hashes: &[InfoHash], out: &mut String) {
    for (i, hash) in hashes.iter().enumerate() {
        if i > 0 {
            out.push('&');
        }
        out.push_str("info_hash=");
        encode(&hash.0, out);
    }
}

/// Appends the fields of a claim, with `separator` before the first one.
pub(crate) fn write_claim(claim: &Claim, separator: char, out: &mut String) {
    let mut separator = separator;
    if let Some(ia) = claim.ia {
        // Writing to a String cannot fail.
        let _ = write!(out, "{separator}ia={ia}");
        separator = '&';
    }
    match claim.scion {
        ScionClaim::Absent => {}
        ScionClaim::Capable => {
            let _ = write!(out, "{separator}scion=1");
        }
        ScionClaim::At(addr) => {
            // A query may not contain plain brackets (RFC 3986, section 3.4).
            let (host, port) = (addr.host, addr.port);
            let _ = write!(
                out,
                "{separator}scion={},%5B{}%5D:{port}",
                host.ia,
                host.ip()
            );
        }
    }
}

fn field(out: &mut String, name: &str, value: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = write!(out, "&{name}={value}");
}

const fn event_name(event: Event) -> Option<&'static str> {
    match event {
        Event::None => None,
        Event::Started => Some("started"),
        Event::Completed => Some("completed"),
        Event::Stopped => Some("stopped"),
        Event::Paused => Some("paused"),
    }
}
