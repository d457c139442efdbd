//! Recognizes clients in constant memory, so that neither repeated announces nor a second address
//! family count twice.
//!
//! A client is identified by its peer id and `key` in a swarm. Both tables are lossy: a slot holds
//! the last client that used it, so a client is forgotten after about as many others as a table has
//! slots. The hash is keyed, so nobody can aim at the slot of another client.

use std::sync::atomic::{AtomicU32, Ordering};

use ahash::RandomState;

use crate::registry::PeerEntry;
use crate::request::Family;

/// Slots of recent clients: 256 KiB.
const SEEN: usize = 1 << 16;
/// Slots of counted downloads: 512 KiB.
const COUNTED: usize = 1 << 17;

#[derive(Debug)]
pub(super) struct Clients {
    /// A slot has a fingerprint of the client, and in the lowest bits the network it used first.
    seen: Box<[AtomicU32]>,
    counted: Box<[AtomicU32]>,
    keys: RandomState,
    seeds: [u64; 4],
}

impl Clients {
    /// The bytes that [`Clients::write`] writes.
    pub(super) const BYTES: usize = size_of::<[u64; 4]>() + (SEEN + COUNTED) * size_of::<u32>();

    /// `seeds` are those of the hash function.
    pub(super) fn new(seeds: [u64; 4]) -> Self {
        let [a, b, c, d] = seeds;
        let keys = RandomState::with_seeds(a, b, c, d);
        let table = |slots| (0..slots).map(|_| AtomicU32::new(0)).collect();
        Self {
            seen: table(SEEN),
            counted: table(COUNTED),
            keys,
            seeds,
        }
    }

    /// Appends both tables and the seeds of their hash function, which are secret:
    ///
    /// ```text
    /// 32       the seeds, 8 bytes each, big endian as all that follows
    /// 4 each   `seen`
    /// 4 each   `counted`
    /// ```
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.seeds.iter().flat_map(|seed| seed.to_be_bytes()));
        let slots = self.seen.iter().chain(&self.counted);
        out.extend(slots.flat_map(|slot| slot.load(Ordering::Relaxed).to_be_bytes()));
    }

    /// Reads what [`Clients::write`] has written. `None` if these are not [`Clients::BYTES`]. Any other bytes are
    /// tables; if they are of a program with another hash function, they recognize nobody.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::BYTES {
            return None;
        }
        let (seeds, slots) = bytes.split_first_chunk::<32>()?;
        let mut words = seeds.chunks_exact(8).map(|word| {
            word.iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte))
        });
        let clients = Self::new([(); 4].map(|()| words.next().unwrap_or_default()));
        let slots = slots.chunks_exact(4).map(|word| {
            word.iter()
                .fold(0, |word, byte| word << 8 | u32::from(*byte))
        });
        for (slot, word) in clients.seen.iter().chain(&clients.counted).zip(slots) {
            slot.store(word, Ordering::Relaxed);
        }
        Some(clients)
    }

    /// Adds a peer that is new in its swarm. Returns whether the same client is already in the
    /// swarm on another network: the other address family, or SCION instead of IP (BEP 7: clients
    /// announce on each with the same `key`).
    pub(super) fn enters(&self, peer: &PeerEntry) -> bool {
        let Some((slot, client)) = self.find(peer) else {
            return false;
        };
        let known = slot.load(Ordering::Relaxed);
        if (known ^ client) & !NETWORK == 0 && known != client {
            return true;
        }
        slot.store(client, Ordering::Relaxed);
        false
    }

    /// Removes a peer that has left.
    pub(super) fn leaves(&self, peer: &PeerEntry) {
        if let Some((slot, client)) = self.find(peer)
            && slot.load(Ordering::Relaxed) == client
        {
            slot.store(0, Ordering::Relaxed);
        }
    }

    /// Records that a client has completed the download. Returns false if that was already
    /// recorded.
    pub(super) fn completes(&self, peer: &PeerEntry) -> bool {
        let hash = self.hash(peer);
        let client = (hash >> 32) as u32 | 1;
        let slot = &self.counted[hash as usize % COUNTED];
        slot.swap(client, Ordering::Relaxed) != client
    }

    /// Returns the slot and the value of a client. Without a `key` two clients may have the same
    /// id.
    fn find(&self, peer: &PeerEntry) -> Option<(&AtomicU32, u32)> {
        peer.key?;
        let hash = self.hash(peer);
        let family = match Family::of(peer.addr.socket_addr().ip()) {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        let network = if peer.reach.over_ip() {
            family
        } else {
            family | 4
        };
        let client = (hash >> 32) as u32 & !NETWORK | network;
        Some((&self.seen[hash as usize % SEEN], client))
    }

    fn hash(&self, peer: &PeerEntry) -> u64 {
        self.keys.hash_one((peer.info_hash, peer.id, peer.key))
    }
}

/// The bits of a slot for the network of the client. They are never all zero.
const NETWORK: u32 = 7;
