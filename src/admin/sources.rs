//! Counts the open connections of each source, so that one host cannot take all places.
//!
//! A source is an IPv4 address or an IPv6 /64. Loopback has no limit of its own: everybody behind a reverse
//! proxy on this host comes from there.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Connections of one source.
pub(super) const MOST: usize = 16;

/// The first address of an IPv6 /64, or the IPv4 address.
pub(super) fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX)).into(),
        ip => ip,
    }
}

/// Open connections by source.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection that is counted until it is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    sources: Sources,
    source: Option<IpAddr>,
}

impl Sources {
    /// Counts a connection. `None` if its source has [`MOST`].
    pub(super) fn count(&self, client: Option<IpAddr>) -> Option<Counted> {
        let source = client
            .filter(|ip| !ip.to_canonical().is_loopback())
            .map(source);
        if let Some(source) = source {
            let mut open = self.0.lock();
            let open = open.entry(source).or_default();
            if *open >= MOST {
                return None;
            }
            *open += 1;
        }
        Some(Counted {
            sources: self.clone(),
            source,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some(source) = self.source else {
            return;
        };
        let mut open = self.sources.0.lock();
        if let Some(count) = open.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_limit_and_loopback_has_none() {
        let sources = Sources::default();
        let count = |ip: &str| sources.count(Some(ip.parse().unwrap()));
        let mut open: Vec<_> = (0..MOST).map(|_| count("2001:db8::1").unwrap()).collect();
        assert!(count("2001:db8::2").is_none());
        assert!(count("2001:db8:0:1::1").is_some());
        open.pop();
        assert!(count("2001:db8::2").is_some());
        for client in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let client = client.parse().unwrap();
            let open: Vec<_> = (0..=MOST).map(|_| sources.count(Some(client))).collect();
            assert!(open.iter().all(Option::is_some), "{client}");
        }
        assert!((0..=MOST).all(|_| sources.count(None).is_some()));
        drop(open);
        assert!(sources.0.lock().is_empty());
    }
}
