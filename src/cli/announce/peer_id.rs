//! Derives the peer id of `announce` from the host, the port and the torrent, so that a later
//! announce, for example `stopped`, comes from the same peer.

use std::fs;
use std::num::NonZeroU16;

use ring::digest::{Context, SHA256};
use scion_tracker_core::types::{InfoHash, PeerId};

/// Files that tell hosts and containers apart. Containers often have no machine id, and a host name
/// of their own.
const HOST: [&str; 3] = [
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
    "/proc/sys/kernel/hostname",
];

/// The peer id of this host for a port and a torrent.
pub(super) fn of_this_host(port: NonZeroU16, torrent: InfoHash) -> PeerId {
    let host = HOST.map(|file| fs::read(file).unwrap_or_default());
    derive(&host.concat(), port, torrent)
}

/// `-SC0100-` and twelve letters and digits from a digest. The machine id must stay secret, so a
/// digest that cannot be reversed hides it (machine-id(5)).
fn derive(host: &[u8], port: NonZeroU16, torrent: InfoHash) -> PeerId {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut context = Context::new(&SHA256);
    context.update(b"scion-tracker announce\0");
    context.update(&port.get().to_be_bytes());
    context.update(&torrent.0);
    context.update(host);
    let mut id = *b"-SC0100-............";
    for (byte, digest) in id[8..].iter_mut().zip(context.finish().as_ref()) {
        *byte = ALPHABET[usize::from(*digest) % ALPHABET.len()];
    }
    PeerId(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::software;

    #[test]
    fn an_id_lasts_and_differs_by_host_port_and_torrent() {
        let port = |port| NonZeroU16::new(port).unwrap();
        let (one, other) = (InfoHash([1; 20]), InfoHash([2; 20]));
        let id = derive(b"host", port(1), one);
        assert_eq!(id, derive(b"host", port(1), one));
        for different in [
            derive(b"other", port(1), one),
            derive(b"host", port(2), one),
            derive(b"host", port(1), other),
        ] {
            assert_ne!(id, different);
        }
        assert_eq!(software(&id).unwrap().to_string(), "scion-tracker 0.1");
        assert!(id.0[8..].iter().all(u8::is_ascii_alphanumeric));
        assert_eq!(of_this_host(port(1), one), of_this_host(port(1), one));
    }
}
