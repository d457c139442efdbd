//! Counts QUIC handshakes in flight, over all endpoints of a listener and by source.
//!
//! An endpoint knows the handshakes of each source whose address is validated. When there are as
//! many as allowed, the source with the most handshakes loses one to a source with fewer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quinn_proto::ConnectionHandle;
use scion_tracker_core::address::Host;

use crate::transport::connections::Source;

/// The handshakes in flight at one endpoint.
#[derive(Debug)]
pub(super) struct Handshakes {
    /// Over all endpoints of the listener.
    all: Arc<AtomicUsize>,
    table: Arc<Mutex<Table>>,
}

/// The handshakes of each source, at one endpoint. As large as the number of handshakes.
#[derive(Debug, Default)]
struct Table {
    /// In the order in which they began.
    sources: HashMap<Source, BTreeMap<u64, ConnectionHandle>>,
    /// The number of handshakes of each source.
    sizes: BTreeSet<(usize, Source)>,
    /// Handshakes so far.
    begun: u64,
}

/// A handshake in flight. Counted until it is dropped.
#[derive(Debug)]
pub(super) struct Handshake {
    all: Arc<AtomicUsize>,
    table: Arc<Mutex<Table>>,
    /// Whose handshake it is, and its number. `None` if the address is not validated: it may be
    /// forged, so it must not count against its owner.
    source: Option<(Source, u64)>,
}

impl Handshakes {
    /// `all` counts over all endpoints.
    pub(super) fn new(all: Arc<AtomicUsize>) -> Self {
        Self {
            all,
            table: Arc::default(),
        }
    }

    /// The number of handshakes in flight at all endpoints of the listener.
    pub(super) fn in_flight(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    /// Counts a handshake, against this host if its address is validated.
    pub(super) fn begin(&self, host: Option<Host>, handle: ConnectionHandle) -> Handshake {
        self.all.fetch_add(1, Ordering::Relaxed);
        let source = host.map(|host| {
            let source = Source::of(host);
            (source, self.table.lock().insert(source, handle))
        });
        Handshake {
            all: Arc::clone(&self.all),
            table: Arc::clone(&self.table),
            source,
        }
    }

    /// The handshake to give up for one more of this host: the oldest one of the source with the
    /// most handshakes. `None` if no source here has more than the host would have.
    pub(super) fn to_give_up(&self, host: Option<Host>) -> Option<ConnectionHandle> {
        let table = self.table.lock();
        let own = host.map_or(0, |host| table.size(&Source::of(host)));
        let (size, source) = table.sizes.last()?;
        if *size <= own + 1 {
            return None;
        }
        table.sources.get(source)?.values().next().copied()
    }
}

impl Table {
    fn size(&self, source: &Source) -> usize {
        self.sources.get(source).map_or(0, BTreeMap::len)
    }

    fn insert(&mut self, source: Source, handle: ConnectionHandle) -> u64 {
        let number = self.begun;
        self.begun += 1;
        let handshakes = self.sources.entry(source).or_default();
        self.sizes.remove(&(handshakes.len(), source));
        handshakes.insert(number, handle);
        self.sizes.insert((handshakes.len(), source));
        number
    }

    fn remove(&mut self, source: Source, number: u64) {
        let Some(handshakes) = self.sources.get_mut(&source) else {
            return;
        };
        self.sizes.remove(&(handshakes.len(), source));
        handshakes.remove(&number);
        if handshakes.is_empty() {
            self.sources.remove(&source);
        } else {
            self.sizes.insert((handshakes.len(), source));
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
        if let Some((source, number)) = self.source {
            self.table.lock().remove(source, number);
        }
    }
}

/// Retry tokens that have begun a handshake. Each may do so once.
///
/// QUIC itself binds a token to the address and port of the client, and lets it expire.
#[derive(Debug, Default)]
pub(super) struct UsedTokens {
    hasher: RandomState,
    used: HashMap<u64, Instant>,
    order: std::collections::VecDeque<u64>,
}

impl UsedTokens {
    /// How long quinn accepts a Retry token.
    pub(super) const LIFETIME: Duration = Duration::from_secs(15);
    /// The most tokens that are remembered. To use a token again, a client has to use so many
    /// others first, and gains nothing.
    const MOST: usize = 1 << 16;

    /// Marks a token as used. Returns false if it was used before. A token is known by what it was
    /// issued for.
    pub(super) fn use_once(&mut self, issued_for: impl Hash, now: Instant) -> bool {
        while let Some(oldest) = self.order.front() {
            let expired = self.used.get(oldest).is_none_or(|until| *until <= now);
            if !expired && self.order.len() < Self::MOST {
                break;
            }
            self.used.remove(oldest);
            self.order.pop_front();
        }
        let token = self.hasher.hash_one(issued_for);
        if self.used.contains_key(&token) {
            return false;
        }
        // One second more, because tokens carry whole seconds.
        let until = now + Self::LIFETIME + Duration::from_secs(1);
        self.used.insert(token, until);
        self.order.push_back(token);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(ip: &str) -> Option<Host> {
        Some(Host::ip_only(ip.parse().unwrap()))
    }

    fn handshakes() -> Handshakes {
        Handshakes::new(Arc::default())
    }

    #[test]
    fn the_biggest_source_gives_up_its_oldest_handshake() {
        let handshakes = handshakes();
        let mut counted = Vec::new();
        for (number, ip) in [
            "192.0.2.1",
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8::3",
            "192.0.2.1",
        ]
        .into_iter()
        .enumerate()
        {
            counted.push(handshakes.begin(host(ip), ConnectionHandle(number)));
        }
        assert_eq!(handshakes.in_flight(), 5);
        // A /64 is one source.
        let oldest = Some(ConnectionHandle(1));
        assert_eq!(handshakes.to_give_up(host("192.0.2.9")), oldest);
        assert_eq!(handshakes.to_give_up(None), oldest);
        // With one more, the source would have as many.
        assert_eq!(handshakes.to_give_up(host("192.0.2.1")), None);
        assert_eq!(handshakes.to_give_up(host("2001:db8::9")), None);
        counted.remove(1);
        counted.remove(1);
        let oldest = Some(ConnectionHandle(0));
        assert_eq!(handshakes.to_give_up(host("192.0.2.9")), oldest);
        counted.clear();
        assert_eq!(handshakes.in_flight(), 0);
        assert_eq!(handshakes.to_give_up(None), None);
        let table = handshakes.table.lock();
        assert!(table.sources.is_empty() && table.sizes.is_empty());
    }

    #[test]
    fn addresses_that_are_not_validated_belong_to_no_source() {
        let handshakes = handshakes();
        let _counted: Vec<_> = (0..9)
            .map(|number| handshakes.begin(None, ConnectionHandle(number)))
            .collect();
        assert_eq!(handshakes.in_flight(), 9);
        assert_eq!(handshakes.to_give_up(host("192.0.2.9")), None);
    }

    #[test]
    fn a_token_is_used_once_and_forgotten_when_it_expires() {
        let mut used = UsedTokens::default();
        let now = Instant::now();
        assert!(used.use_once("one", now));
        assert!(!used.use_once("one", now));
        assert!(used.use_once("other", now + Duration::from_secs(10)));
        assert!(!used.use_once("one", now + UsedTokens::LIFETIME));
        let later = now + UsedTokens::LIFETIME + Duration::from_secs(1);
        assert!(used.use_once("third", later));
        assert_eq!(used.order.len(), 2);
        for number in 0..UsedTokens::MOST {
            assert!(used.use_once(number, later));
        }
        assert_eq!(used.order.len(), UsedTokens::MOST);
        assert_eq!(used.used.len(), UsedTokens::MOST);
    }
}
