//! Copies the contents of the memory registry out, step by step, and puts them into another one: for snapshots.
//!
//! A step holds the lock of one shard, for about as long as a step of the sweep. An export of a registry that
//! nobody changes meanwhile is exact. Otherwise each torrent and each peer is as it was at some moment of the
//! export; a torrent or a peer can come twice, which [`Memory::restore`] accepts, and a peer of a swarm of more
//! than 32 that moves inside its swarm meanwhile can be missed.

use std::sync::atomic::Ordering;

use crate::address::{CompactAddr, IsdAs};
use crate::registry::clients::Clients;
use crate::registry::large::class_index::Cursor;
use crate::registry::memory::{Memory, SHARDS};
use crate::registry::shard::{ENTRY_BYTES, Entry, Shard};
use crate::registry::swarm::Swarm;
use crate::registry::table::record::{Flags, Record, Tick};
use crate::types::{InfoHash, PeerId, Time};

/// Torrents and peers that one step visits under one lock.
const STEP: usize = 512;

/// Bytes of [`Memory::export_clients`].
pub const CLIENTS_BYTES: usize = Clients::BYTES;

/// Most parts that one [`Memory::export_step`] shows: a swarm of up to 32 peers is never divided.
pub const MOST_PARTS: usize = STEP + 1 + 32;

/// A peer as the registry keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPeer {
    ia: IsdAs,
    addr: CompactAddr,
    id: PeerId,
    flags: Flags,
    age: u32,
}

impl StoredPeer {
    /// A peer. `state` has its bits:
    ///
    /// ```text
    /// bit 0    seed
    /// bit 1    of a leecher: it is a partial seed (BEP 21)
    ///          of a seed: it was a leecher, under this peer id
    /// bit 2    its completed download has been counted
    /// bit 3    the same client is counted already, on another network
    /// bit 4-5  reach: 0 IP, 1 SCION, 2 both
    /// bit 6    its IP address is local; 0 if only SCION reaches it
    /// bit 7    its ISD-AS was claimed, not proven
    /// ```
    ///
    /// `age` is the time since its last announce, in seconds. `None` if the registry never has such a peer:
    /// with a wildcard ISD-AS, an IPv4-mapped IPv6 address, the port 0, or a state that contradicts itself or
    /// needs an ISD-AS and has none.
    pub fn new(ia: IsdAs, addr: CompactAddr, id: PeerId, state: u8, age: u32) -> Option<Self> {
        let is_place = ia.is_none() || !ia.is_wildcard();
        let socket = addr.socket_addr();
        let is_canonical = CompactAddr::new(socket.ip(), socket.port()) == addr;
        if !is_place || !is_canonical || !addr.has_port() {
            return None;
        }
        Some(Self {
            ia,
            addr,
            id,
            flags: Flags::from_bits(state, !ia.is_none())?,
            age,
        })
    }

    /// The ISD-AS. [`IsdAs::NONE`] if it has none.
    pub const fn ia(&self) -> IsdAs {
        self.ia
    }

    /// Address and port.
    pub const fn addr(&self) -> &CompactAddr {
        &self.addr
    }

    /// The id of the peer.
    pub const fn id(&self) -> &PeerId {
        &self.id
    }

    /// The bits of its state: see [`StoredPeer::new`].
    pub const fn state(&self) -> u8 {
        self.flags.to_bits()
    }

    /// Seconds since its last announce, a multiple of [`StoredPeer::RESOLUTION`].
    pub const fn age(&self) -> u32 {
        self.age
    }

    /// The resolution of ages in seconds. They are rounded either way.
    pub const RESOLUTION: u32 = Tick::SECONDS;

    const fn head(&self, now: Tick) -> Record<()> {
        Record {
            addr: (),
            id: self.id,
            seen: now.before(self.age),
            flags: self.flags,
        }
    }
}

/// A part of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exported {
    /// A torrent that has peers. Its peers follow.
    Torrent {
        /// The torrent.
        info_hash: InfoHash,
        /// Its completed downloads.
        completed: u32,
    },
    /// A peer of the torrent that came last, in the same step.
    Peer(StoredPeer),
    /// A torrent without peers whose downloads are remembered.
    Past {
        /// The torrent.
        info_hash: InfoHash,
        /// Its completed downloads.
        completed: u32,
    },
}

/// Where an export stands.
#[derive(Debug, Clone, Copy)]
pub struct Export {
    start: Tick,
    shard: usize,
    /// Entries below this one are still to be visited.
    entry: usize,
    /// The torrent that is not finished.
    torrent: Option<InfoHash>,
    cursor: Cursor,
    /// Download counts below this one are still to be visited.
    past: usize,
}

impl Export {
    /// Begins an export. Ages count from `now`; a peer that announces later has the age 0.
    pub const fn new(now: Time) -> Self {
        Self {
            start: Tick::at(now),
            shard: 0,
            entry: usize::MAX,
            torrent: None,
            cursor: Cursor::START,
            past: usize::MAX,
        }
    }

    fn peer(&self, ia: IsdAs, addr: CompactAddr, head: &Record<()>) -> StoredPeer {
        let age = head.seen.age(self.start);
        StoredPeer {
            ia,
            addr,
            id: head.id,
            flags: head.flags,
            // The clock of the records goes round: this one has announced since.
            age: if age > Tick::MAX_SPAN { 0 } else { age },
        }
    }
}

/// What became of peers that were to be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Those that are in the registry now.
    pub entered: u64,
    /// Those that have not announced for longer than the lifetime.
    pub expired: u64,
    /// Those for which the ceilings leave no room.
    pub left_out: u64,
}

impl std::ops::AddAssign for Restored {
    fn add_assign(&mut self, other: Self) {
        self.entered += other.entered;
        self.expired += other.expired;
        self.left_out += other.left_out;
    }
}

impl Memory {
    /// Shows the next [`MOST_PARTS`] parts at most, under one lock, which `show` must not keep for long. Each
    /// step names the torrent of its peers again. Returns whether all has been shown.
    pub fn export_step(&self, export: &mut Export, mut show: impl FnMut(Exported)) -> bool {
        let Some(shard) = self.shards.get(export.shard) else {
            return true;
        };
        let shard = shard.0.lock();
        let mut budget = STEP;
        // An entry that replaces a removed one has already been visited.
        export.entry = export.entry.min(shard.entries.len());
        while export.entry > 0 {
            if budget == 0 {
                return false;
            }
            budget -= 1;
            let Entry {
                info_hash,
                completed,
                swarm,
                ..
            } = &shard.entries[export.entry - 1];
            if export.torrent.replace(*info_hash) != Some(*info_hash) {
                export.cursor = Cursor::START;
            }
            show(Exported::Torrent {
                info_hash: *info_hash,
                completed: *completed,
            });
            let mut cursor = export.cursor;
            let finished = swarm.visit(&mut cursor, &mut budget, |ia, addr, head| {
                show(Exported::Peer(export.peer(ia, addr, &head)));
            });
            export.cursor = cursor;
            if !finished {
                return false;
            }
            export.torrent = None;
            export.entry -= 1;
        }
        let past = shard.past.as_ref();
        let counts = past.map_or(&[][..], |past| past.counts());
        export.past = export.past.min(counts.len());
        while export.past > 0 {
            if budget == 0 {
                return false;
            }
            budget -= 1;
            export.past -= 1;
            let (info_hash, completed) = counts[export.past];
            show(Exported::Past {
                info_hash,
                completed,
            });
        }
        *export = Export {
            start: export.start,
            shard: export.shard + 1,
            ..Export::new(Time::from_secs(0))
        };
        export.shard == SHARDS
    }

    /// Appends what the registry remembers of clients, [`CLIENTS_BYTES`], so that a client that announces on
    /// two networks or completes twice is recognized after a restart. It contains a secret: who knows it
    /// could make the tracker take a client for another.
    pub fn export_clients(&self, out: &mut Vec<u8>) {
        self.clients.write(out);
    }

    /// Puts back what [`Memory::export_clients`] gave. False if these are not [`CLIENTS_BYTES`].
    pub fn restore_clients(&mut self, bytes: &[u8]) -> bool {
        let clients = Clients::read(bytes);
        let is_read = clients.is_some();
        if let Some(clients) = clients {
            self.clients = clients;
        }
        is_read
    }

    /// Enters peers of a torrent as they were, without those that have expired or have no room. A peer that
    /// is here already stays as it announced last. The torrent keeps the larger count of completed downloads,
    /// also without peers.
    pub fn restore(
        &self,
        info_hash: InfoHash,
        completed: u32,
        peers: &[StoredPeer],
        now: Time,
    ) -> Restored {
        let (ceilings, now) = (self.ceilings(), Tick::at(now));
        let is_live = |peer: &&StoredPeer| peer.age <= ceilings.peer_lifetime;
        let live = peers.iter().filter(is_live);
        let count = live.clone().count() as u64;
        let youngest = live.clone().map(|peer| peer.age).min();
        let mut restored = Restored {
            expired: peers.len() as u64 - count,
            ..Restored::default()
        };
        let hash = self.keys.hash_one(info_hash);
        let mut guard = self.shard(hash);
        let shard = &mut *guard;
        if let Some(youngest) = youngest {
            let touched = now.before(youngest);
            if let Some(at) = self.restore_torrent(shard, hash, info_hash, touched, now) {
                let entered = live.filter(|peer| self.restore_peer(shard, at, peer, now));
                restored.entered = entered.count() as u64;
                if shard.entries[at].swarm.len() == 0 {
                    self.drop_entry(shard, at);
                }
            }
            restored.left_out = count - restored.entered;
        }
        drop(guard);
        self.raise_completed(&info_hash, completed);
        restored
    }

    /// The position of a torrent whose youngest peer has announced at `touched`. `None` if it is not here and
    /// has no room.
    fn restore_torrent(
        &self,
        shard: &mut Shard,
        hash: u64,
        info_hash: InfoHash,
        touched: Tick,
        now: Tick,
    ) -> Option<usize> {
        if let Some(at) = shard.find(hash, &info_hash) {
            let entry = &mut shard.entries[at];
            if touched.age(now) < entry.touched.age(now) {
                entry.touched = touched;
            }
            return Some(at);
        }
        let ceilings = self.ceilings();
        if self.torrents() >= ceilings.torrents || self.bytes() >= ceilings.memory {
            return None;
        }
        self.torrents.fetch_add(1, Ordering::Relaxed);
        self.account(0, ENTRY_BYTES);
        let completed = self.take_past(shard, hash, &info_hash);
        let entry = Entry {
            info_hash,
            completed,
            touched,
            swarm: Swarm::new(),
        };
        Some(shard.insert(entry, &self.keys))
    }

    /// Enters a peer into the torrent at a position. Returns whether it is there now.
    fn restore_peer(&self, shard: &mut Shard, at: usize, peer: &StoredPeer, now: Tick) -> bool {
        let StoredPeer { ia, addr, .. } = peer;
        let head = peer.head(now);
        let source = |flags: Flags| flags.class().source(*ia, addr);
        let swarm = &mut shard.entries[at].swarm;
        let bytes = swarm.heap_bytes();
        let position = swarm.find_at(*ia, addr, &self.keys);
        let before = position.and_then(|position| swarm.known(position));
        let before = before.map(|known| (known.seen, known.flags));
        match position.zip(before) {
            // It has come twice, or has announced already.
            Some((_, (seen, _))) if seen.age(now) <= peer.age => return true,
            Some((position, (_, flags))) => {
                swarm.update(position, *ia, addr, head, &self.keys);
                self.sources.remove(source(flags));
                shard.leave(flags.seed());
            }
            None if self.admit(source(head.flags), Some(swarm)).is_err() => return false,
            None => {
                swarm.insert(*ia, addr, head, &self.keys);
            }
        }
        self.account(bytes, shard.entries[at].swarm.heap_bytes());
        self.sources.add(source(head.flags));
        shard.enter(head.flags.seed());
        true
    }
}

#[cfg(test)]
mod tests;
