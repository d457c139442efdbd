//! Limits the connections over TCP and QUIC: their number, in all and of each source, and the memory
//! that they hold ([`memory`]).
//!
//! The memory of this table is bounded by the connections themselves: a source is known for as long as
//! it has one.

pub(crate) mod memory;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use scion_tracker_core::address::Host;

use super::Limits;
use crate::counters::Counters;
use memory::{Held, Memory};

/// Shards of the table of sources, each under a lock of its own.
const SHARDS: usize = 16;

/// What a connection runs over. Each has a limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// HTTP/1.1 and HTTP/2.
    Tcp,
    /// HTTP/3, and HTTP/1.1 over SCION.
    Quic,
}

/// There are as many connections as allowed, in all or from this source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// Counts connections and their memory. One for all listeners of a server.
#[derive(Debug)]
pub(crate) struct Connections {
    memory: Arc<Memory>,
    limits: [AtomicUsize; 2],
    per_source: AtomicU32,
    open: [AtomicUsize; 2],
    sources: [Mutex<HashMap<Source, u32>>; SHARDS],
}

/// A host, IPv6 by its /64: a household has that many addresses.
///
/// Two words, as they are hashed for every connection. IPv4 stands where IPv6 has the networks of
/// `::/32`, from which nobody comes but the host itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Source {
    ia: u64,
    network: u64,
}

impl Source {
    pub(super) fn of(host: Host) -> Self {
        let network = match host.ip() {
            IpAddr::V4(ip) => ip.to_bits().into(),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        Self {
            ia: host.ia.to_u64(),
            network,
        }
    }

    /// A source without a host, as the `number`-th of its kind.
    const fn alone(number: u64) -> Self {
        // No AS has this number.
        Self {
            ia: u64::MAX,
            network: number,
        }
    }

    /// Where it is kept. Nothing secret is needed here: whoever fills one shard has its lock contended
    /// as that of a table without shards would be.
    const fn shard(&self) -> usize {
        let mixed = (self.ia ^ self.network).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize % SHARDS
    }
}

impl Connections {
    pub(crate) fn new(limits: &Limits, counters: Arc<Counters>) -> Self {
        Self {
            memory: Arc::new(Memory::new(limits.memory, counters)),
            limits: [limits.tcp_connections, limits.quic_connections].map(AtomicUsize::new),
            per_source: limits.connections_per_source.into(),
            open: [const { AtomicUsize::new(0) }; 2],
            sources: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Changes the limits. Connections that are open stay.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        self.limits[Over::Tcp as usize].store(limits.tcp_connections, Ordering::Relaxed);
        self.limits[Over::Quic as usize].store(limits.quic_connections, Ordering::Relaxed);
        self.per_source
            .store(limits.connections_per_source, Ordering::Relaxed);
        self.memory.set_limit(limits.memory);
    }

    /// The most that may be open.
    pub(crate) fn limit(&self, over: Over) -> usize {
        self.limits[over as usize].load(Ordering::Relaxed)
    }

    /// Counts a connection in, until the returned guard is dropped. `None` for the host stands for a
    /// trusted proxy, which speaks for many.
    pub(crate) fn enter(self: &Arc<Self>, over: Over, host: Option<Host>) -> Result<Open, Full> {
        let open = &self.open[over as usize];
        if open.fetch_add(1, Ordering::Relaxed) >= self.limit(over) {
            open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full);
        }
        // From here on the guard takes the count back.
        let mut guard = Open {
            connections: Arc::clone(self),
            over,
            source: None,
        };
        let Some(source) = host.map(Source::of) else {
            return Ok(guard);
        };
        let mut shard = self.shard(&source);
        let count = shard.entry(source).or_insert(0);
        if *count >= self.per_source.load(Ordering::Relaxed) {
            if *count == 0 {
                shard.remove(&source);
            }
            return Err(Full);
        }
        *count += 1;
        drop(shard);
        guard.source = Some(source);
        Ok(guard)
    }

    /// Charges a connection with `bytes` of memory, until the returned guard is dropped. `None` for the
    /// host stands for a trusted proxy, or for an address that is not validated.
    pub(crate) fn hold(&self, host: Option<Host>, bytes: usize) -> Result<Held, Full> {
        self.memory.hold(host.map(Source::of), bytes)
    }

    /// Whether a further connection of this host would be one too many.
    pub(crate) fn is_full(&self, over: Over, host: Host) -> bool {
        if self.open(over) >= self.limit(over) {
            return true;
        }
        let source = Source::of(host);
        let count = self.shard(&source).get(&source).copied().unwrap_or(0);
        count >= self.per_source.load(Ordering::Relaxed)
    }

    /// How many are open.
    pub(crate) fn open(&self, over: Over) -> usize {
        self.open[over as usize].load(Ordering::Relaxed)
    }

    /// Bytes that they hold, and the most that they may.
    #[cfg_attr(
        not(feature = "admin"),
        expect(dead_code, reason = "only the metrics read it")
    )]
    pub(crate) fn memory(&self) -> (usize, usize) {
        (self.memory.held(), self.memory.limit())
    }

    fn shard(&self, source: &Source) -> MutexGuard<'_, HashMap<Source, u32>> {
        // Nothing panics under the lock, and a count is whole at any moment.
        self.sources[source.shard()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open connection, counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct Open {
    connections: Arc<Connections>,
    over: Over,
    source: Option<Source>,
}

impl Open {
    /// Charges the connection with `bytes` of memory, until the returned guard is dropped.
    pub(crate) fn hold(&self, bytes: usize) -> Result<Held, Full> {
        self.connections.memory.hold(self.source, bytes)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.open[self.over as usize].fetch_sub(1, Ordering::Relaxed);
        let Some(source) = self.source else { return };
        if let Entry::Occupied(mut count) = self.connections.shard(&source).entry(source) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scion_tracker_core::address::IsdAs;

    fn host(ip: &str) -> Option<Host> {
        Some(Host::ip_only(ip.parse().unwrap()))
    }

    fn connections(tcp: usize, per_source: u32) -> Arc<Connections> {
        let limits = Limits {
            tcp_connections: tcp,
            connections_per_source: per_source,
            ..Limits::default()
        };
        Arc::new(Connections::new(&limits, Arc::default()))
    }

    #[test]
    fn a_source_has_its_share_and_gets_it_back() {
        let connections = connections(100, 2);
        let first = connections.enter(Over::Tcp, host("192.0.2.1")).unwrap();
        let _quic = connections.enter(Over::Quic, host("192.0.2.1")).unwrap();
        assert!(connections.enter(Over::Tcp, host("192.0.2.1")).is_err());
        assert!(connections.is_full(Over::Tcp, host("192.0.2.1").unwrap()));
        assert_eq!(connections.open(Over::Tcp), 1);
        let _other = connections.enter(Over::Tcp, host("192.0.2.2")).unwrap();
        drop(first);
        let _again = connections.enter(Over::Tcp, host("192.0.2.1")).unwrap();
    }

    #[test]
    fn ipv6_counts_by_network_and_scion_by_as() {
        let connections = connections(100, 1);
        let _one = connections.enter(Over::Tcp, host("2001:db8::1")).unwrap();
        assert!(connections.enter(Over::Tcp, host("2001:db8::2")).is_err());
        let _two = connections
            .enter(Over::Tcp, host("2001:db8:0:1::1"))
            .unwrap();
        let ip = "10.0.0.1".parse().unwrap();
        for ia in ["1-ff00:0:110", "1-ff00:0:111"] {
            let ia: IsdAs = ia.parse().unwrap();
            std::mem::forget(
                connections
                    .enter(Over::Quic, Some(Host::new(ia, ip)))
                    .unwrap(),
            );
        }
    }

    #[test]
    fn all_together_have_a_limit_and_proxies_no_share() {
        let connections = connections(3, 1);
        let open: Vec<_> = (0..3)
            .map(|_| connections.enter(Over::Tcp, None).unwrap())
            .collect();
        assert_eq!(connections.enter(Over::Tcp, None).unwrap_err(), Full);
        drop(open);
        assert_eq!(connections.open(Over::Tcp), 0);
        assert!(
            connections
                .sources
                .iter()
                .all(|shard| shard.lock().unwrap().is_empty())
        );
    }
}
