//! Checks HTTP replies: reads the bencode of a body in place.

use scion_tracker_core::codec::bencode::{Dict, Value};
use scion_tracker_core::codec::compact::Layout;

use super::mix::Kind;
use super::report::Failure;

/// Checks a body. Returns the number of peers in all its lists.
pub(super) fn check(kind: Kind, numwant: Option<u32>, body: &[u8]) -> Result<u32, Failure> {
    // aquatic_http ends bodies with a line break.
    let body = body.strip_suffix(b"\r\n").unwrap_or(body);
    let Ok(Value::Dict(dict)) = Value::read(body) else {
        return Err(Failure::MALFORMED);
    };
    if let Some(Value::Bytes(reason)) = dict.get("failure reason") {
        return Err(Failure::refused(reason));
    }
    if kind == Kind::Scrape {
        return match dict.get("files") {
            Some(Value::Dict(_)) => Ok(0),
            _ => Err(Failure::UNEXPECTED),
        };
    }
    if dict.get("interval").is_none() {
        return Err(Failure::UNEXPECTED);
    }
    let ip = list(&dict, "peers", Layout::Ip4)? + list(&dict, "peers6", Layout::Ip6)?;
    let scion =
        list(&dict, "peers_scion4", Layout::Scion4)? + list(&dict, "peers_scion6", Layout::Scion6)?;
    // A peer on both networks may be in both lists.
    if numwant.is_some_and(|numwant| ip.max(scion) > numwant) {
        return Err(Failure::TOO_MANY);
    }
    Ok(ip + scion)
}

/// Returns the number of peers in a list, compact or not.
fn list(dict: &Dict<'_>, name: &str, layout: Layout) -> Result<u32, Failure> {
    match dict.get(name) {
        None => Ok(0),
        Some(Value::Bytes(packed)) => match layout.unpack(packed) {
            Some(peers) => Ok(peers.len() as u32),
            None => Err(Failure::MALFORMED),
        },
        Some(Value::List(peers)) => Ok(peers.count() as u32),
        Some(_) => Err(Failure::MALFORMED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_checked() {
        let announce = Kind::Announce;
        for (kind, body, expected) in [
            (
                announce,
                &b"d8:completei1e8:intervali9e5:peers12:aaaabbaaaabbe"[..],
                Ok(2),
            ),
            (announce, b"d8:intervali9e5:peersld2:ip1:aeee", Ok(1)),
            (
                announce,
                b"d8:intervali9e5:peers12:aaaabbaaaabb12:peers_scion414:aaaaaaaaaaaabbe",
                Ok(3),
            ),
            (
                announce,
                b"d8:intervali9e5:peers5:aaaabe",
                Err(Failure::MALFORMED),
            ),
            (
                announce,
                b"d8:intervali9e5:peers18:aaaabbaaaabbaaaabbe",
                Err(Failure::TOO_MANY),
            ),
            // Trackers that do not count the requester.
            (
                announce,
                b"d8:completei0e10:incompletei0e8:intervali9e5:peers0:e\r\n",
                Ok(0),
            ),
            (
                announce,
                b"d14:failure reason2:noe",
                Err(Failure::refused(b"no")),
            ),
            (announce, b"d5:filesdee", Err(Failure::UNEXPECTED)),
            (announce, b"hello", Err(Failure::MALFORMED)),
            (Kind::Scrape, b"d5:filesdee", Ok(0)),
            (Kind::Scrape, b"d8:intervali9ee", Err(Failure::UNEXPECTED)),
        ] {
            assert_eq!(
                check(kind, Some(2), body),
                expected,
                "{}",
                body.escape_ascii()
            );
        }
    }
}
