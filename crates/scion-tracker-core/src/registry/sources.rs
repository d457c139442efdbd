//! Counts the peers of each host over all swarms, in constant memory.
//!
//! Uses a count-min sketch (Cormode and Muthukrishnan, 2005) of two rows. It never counts too few,
//! and too many by about the number of peers divided by the width of a row. A map would take as
//! much memory as the peers themselves, and a flood of sources would fill it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use ahash::RandomState;

use crate::address::Host;

/// Cells per row: 2 MiB for both rows.
const WIDTH: usize = 1 << 18;

/// The identity of a host: its ISD-AS and its address, or for IPv6 its /64, which is one
/// subscriber.
pub(crate) fn identity(host: Host) -> (u64, u64) {
    let ip = match host.ip() {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64 | 1 << 63,
    };
    (host.ia.to_u64(), ip)
}

/// The hash of the identity of a host.
pub(super) fn hash_host(keys: &RandomState, host: Host) -> u64 {
    keys.hash_one(identity(host))
}

#[derive(Debug)]
pub(super) struct Sources {
    cells: Box<[AtomicU32]>,
    keys: RandomState,
}

impl Sources {
    pub(super) fn new(keys: RandomState) -> Self {
        Self {
            cells: (0..2 * WIDTH).map(|_| AtomicU32::new(0)).collect(),
            keys,
        }
    }

    /// Returns at least the number of peers of the host.
    pub(super) fn count(&self, host: Host) -> u32 {
        let [first, second] = self.row_cells(host);
        first
            .load(Ordering::Relaxed)
            .min(second.load(Ordering::Relaxed))
    }

    pub(super) fn add(&self, host: Host) {
        for cell in self.row_cells(host) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn remove(&self, host: Host) {
        for cell in self.row_cells(host) {
            cell.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn row_cells(&self, host: Host) -> [&AtomicU32; 2] {
        let hash = hash_host(&self.keys, host);
        let first = hash as usize % WIDTH;
        let second = (hash >> 32) as usize % WIDTH;
        [&self.cells[first], &self.cells[WIDTH + second]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_isd_as_and_host() {
        let sources = Sources::new(RandomState::with_seeds(1, 2, 3, 4));
        let ip = "10.0.0.1".parse().unwrap();
        let [here, there] =
            ["1-ff00:0:110", "1-ff00:0:111"].map(|ia| Host::new(ia.parse().unwrap(), ip));
        sources.add(here);
        sources.add(here);
        sources.add(there);
        assert_eq!(sources.count(here), 2);
        sources.remove(here);
        assert_eq!(sources.count(here), 1);
        assert_eq!(sources.count(there), 1);
        assert_eq!(sources.count(Host::ip_only(ip)), 0);
    }

    #[test]
    fn an_ipv6_subscriber_is_one_source() {
        let sources = Sources::new(RandomState::with_seeds(1, 2, 3, 4));
        sources.add(Host::ip_only("2001:db8::1".parse().unwrap()));
        assert_eq!(
            sources.count(Host::ip_only("2001:db8::2".parse().unwrap())),
            1
        );
        assert_eq!(
            sources.count(Host::ip_only("2001:db8:0:1::1".parse().unwrap())),
            0
        );
    }
}
