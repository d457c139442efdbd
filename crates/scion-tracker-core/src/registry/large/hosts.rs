//! Counts the peers of each host in a large swarm, in about half a byte per peer.
//!
//! Uses a count-min sketch of two rows, as in [`sources`](crate::registry::sources), that grows
//! with the swarm. It never counts too few, and too many by four to eight on average. A map of
//! hosts would take as much memory as the addresses of the peers.

use ahash::RandomState;

use crate::address::Host;
use crate::registry::sources::hash_host;

/// Cells per row of the smallest sketch.
const LEAST: usize = 16;
/// Peers per cell of a row, above which the sketch grows.
const LOAD: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// Two rows of equal length, a power of two. A cell that has reached 255 stays there.
    cells: Box<[u8]>,
}

impl Hosts {
    /// Makes an empty sketch for this many peers.
    pub(super) fn for_peers(peers: usize) -> Self {
        let width = (peers / LOAD + 1).next_power_of_two().max(LEAST);
        Self {
            cells: vec![0; 2 * width].into_boxed_slice(),
        }
    }

    /// Whether this many peers need another sketch: a larger one, or a much smaller one.
    pub(super) const fn fits(&self, peers: usize) -> bool {
        let width = self.cells.len() / 2;
        width > 0 && peers <= LOAD * width && (width <= LEAST || peers >= width)
    }

    /// Returns at least the number of peers of the host. 255 means 255 or more.
    pub(super) fn count(&self, host: Host, keys: &RandomState) -> u8 {
        let [first, second] = self.positions(host, keys);
        match (self.cells.get(first), self.cells.get(second)) {
            (Some(first), Some(second)) => *first.min(second),
            _ => 0,
        }
    }

    pub(super) fn add(&mut self, host: Host, keys: &RandomState) {
        for at in self.positions(host, keys) {
            if let Some(cell) = self.cells.get_mut(at) {
                *cell = cell.saturating_add(1);
            }
        }
    }

    pub(super) fn remove(&mut self, host: Host, keys: &RandomState) {
        for at in self.positions(host, keys) {
            if let Some(cell) = self.cells.get_mut(at).filter(|cell| **cell < u8::MAX) {
                *cell = cell.saturating_sub(1);
            }
        }
    }

    pub(super) const fn heap_bytes(&self) -> usize {
        self.cells.len()
    }

    /// Out of bounds if there are no cells yet.
    fn positions(&self, host: Host, keys: &RandomState) -> [usize; 2] {
        let width = self.cells.len() / 2;
        let mask = width.wrapping_sub(1);
        let hash = hash_host(keys, host);
        [
            hash as usize & mask,
            width.wrapping_add((hash >> 32) as usize & mask),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    /// A host of one peer is practically never taken for one of many.
    #[test]
    fn counts_few_too_many() {
        let keys = RandomState::with_seeds(1, 2, 3, 4);
        let host = |number: u32| Host::ip_only(IpAddr::from(number.to_be_bytes()));
        const PEERS: u32 = 65_535;
        let mut hosts = Hosts::for_peers(PEERS as usize);
        assert!(hosts.fits(PEERS as usize) && hosts.heap_bytes() <= PEERS as usize / 2);
        for number in 0..PEERS {
            hosts.add(host(number), &keys);
        }
        let counts = (0..PEERS).map(|number| hosts.count(host(number), &keys));
        assert!(counts.clone().all(|count| count >= 1));
        assert_eq!(counts.filter(|count| *count > 24).count(), 0);
        for number in 0..PEERS {
            hosts.remove(host(number), &keys);
        }
        assert!(hosts.cells.iter().all(|cell| *cell == 0));
    }
}
