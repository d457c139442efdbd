//! Names of BitTorrent clients, by the two letters in their peer ids (BEP 20).

use std::collections::BTreeMap;

use scion_tracker_core::registry::read::{Census, ClientName};

/// Clients that are named.
const NAMES: &[(&str, &str)] = &[
    ("7T", "aTorrent"),
    ("A2", "aria2"),
    ("AZ", "Vuze"),
    ("BC", "BitComet"),
    ("BI", "BiglyBT"),
    ("BT", "BitTorrent"),
    ("BW", "BitTorrent Web"),
    ("DE", "Deluge"),
    ("FD", "Free Download Manager"),
    ("FW", "FrostWire"),
    ("GT", "anacrolix/torrent"),
    ("HL", "Halite"),
    ("KT", "KTorrent"),
    ("LT", "libtorrent"),
    ("PI", "PicoTorrent"),
    ("RN", "rain"),
    ("SD", "Xunlei"),
    ("TL", "Tribler"),
    ("TR", "Transmission"),
    ("TX", "Tixati"),
    ("UM", "µTorrent Mac"),
    ("UT", "µTorrent"),
    ("UW", "µTorrent Web"),
    ("WD", "WebTorrent Desktop"),
    ("WW", "WebTorrent"),
    ("XL", "Xunlei"),
    ("lt", "rTorrent"),
    ("qB", "qBittorrent"),
];

/// The name of a client, `None` for one that is not known.
pub(super) fn name(client: &ClientName) -> Option<&'static str> {
    let known = NAMES
        .iter()
        .find(|(letters, _)| *letters == client.client());
    known.map(|(_, name)| *name)
}

/// The version of a client, a number per character: `4.6.5.0`.
pub(super) fn version(client: &ClientName) -> String {
    let digits = client.version().chars();
    // Hexadecimal in some clients: 1.10 is "1A".
    let parts = digits.map(|digit| match digit.to_digit(16) {
        Some(number) => number.to_string(),
        None => digit.to_string(),
    });
    parts.collect::<Vec<_>>().join(".")
}

/// Peers by the name of their client, most first, and those of all other clients.
pub(super) fn by_name(census: &Census) -> (Vec<(&'static str, u64)>, u64) {
    let mut named: BTreeMap<&str, u64> = BTreeMap::new();
    let mut others = census.other_clients;
    for it in &census.clients {
        match name(&it.client) {
            Some(name) => *named.entry(name).or_default() += it.peers,
            None => others += it.peers,
        }
    }
    let mut named: Vec<_> = named.into_iter().collect();
    named.sort_by_key(|(name, peers)| (std::cmp::Reverse(*peers), *name));
    (named, others)
}

#[cfg(test)]
mod tests {
    use scion_tracker_core::types::PeerId;

    use super::*;

    #[test]
    fn a_client_has_a_name_and_a_version() {
        let client = |id: &[u8; 20]| ClientName::of(&PeerId(*id)).unwrap();
        let known = client(b"-qB4650-000000000000");
        assert_eq!(
            (name(&known), version(&known)),
            (Some("qBittorrent"), "4.6.5.0".into())
        );
        let other = client(b"-zz1Az0-000000000000");
        assert_eq!((name(&other), version(&other)), (None, "1.10.z.0".into()));
    }

    #[test]
    fn letters_are_unique_and_sorted() {
        assert!(NAMES.is_sorted_by(|(a, _), (b, _)| a < b));
    }
}
