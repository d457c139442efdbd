//! Lists of torrents: filtered, sorted, in pages.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::str::FromStr;

use crate::registry::memory::Memory;
use crate::registry::read::{Found, TorrentView, Walk};
use crate::types::InfoHash;

/// The last torrent that a page can reach: `offset` and `limit` together. Whoever wants more of them walks by
/// [`TorrentQuery::after`].
pub const MOST_SORTED: usize = 10_000;

/// By what torrents are sorted. Equal ones are sorted by info hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum TorrentOrder {
    /// The info hash.
    #[default]
    InfoHash,
    /// Seeders and leechers.
    Peers,
    /// Seeders.
    Seeders,
    /// Leechers.
    Leechers,
    /// Completed downloads.
    Completed,
}

impl TorrentOrder {
    fn key(self, torrent: &TorrentView) -> u32 {
        match self {
            Self::InfoHash => 0,
            Self::Peers => torrent.peers(),
            Self::Seeders => torrent.counts.seeders,
            Self::Leechers => torrent.counts.leechers,
            Self::Completed => torrent.counts.completed,
        }
    }
}

/// The beginning of an info hash: up to 40 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InfoHashPrefix {
    digits: u8,
    bytes: [u8; 20],
}

/// The text is no beginning of an info hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the beginning of an info hash is at most 40 hexadecimal digits")]
pub struct InfoHashPrefixError;

impl InfoHashPrefix {
    /// Whether an info hash begins with it.
    pub fn is_of(&self, info_hash: &InfoHash) -> bool {
        let (whole, half) = (usize::from(self.digits / 2), self.digits % 2 == 1);
        info_hash.0[..whole] == self.bytes[..whole]
            && (!half || (info_hash.0[whole] ^ self.bytes[whole]) >> 4 == 0)
    }
}

impl FromStr for InfoHashPrefix {
    type Err = InfoHashPrefixError;

    fn from_str(s: &str) -> Result<Self, InfoHashPrefixError> {
        if s.len() > 40 {
            return Err(InfoHashPrefixError);
        }
        let mut prefix = Self::default();
        for (at, digit) in s.chars().enumerate() {
            let nibble = digit.to_digit(16).ok_or(InfoHashPrefixError)? as u8;
            prefix.bytes[at / 2] |= if at % 2 == 0 { nibble << 4 } else { nibble };
            prefix.digits += 1;
        }
        Ok(prefix)
    }
}

/// Which torrents, in which order. The default is the first 100 by info hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TorrentQuery {
    /// Only those whose info hash begins so.
    pub prefix: InfoHashPrefix,
    /// Only those with so many seeders and leechers.
    pub least_peers: u32,
    /// Only those that come later in the order of info hashes: for walks through all of them, with
    /// [`TorrentOrder::InfoHash`].
    pub after: Option<InfoHash>,
    /// By what they are sorted.
    pub order: TorrentOrder,
    /// Whether the largest comes first.
    pub descending: bool,
    /// How many to leave out at the beginning.
    pub offset: usize,
    /// Most torrents of the page.
    pub limit: usize,
}

impl Default for TorrentQuery {
    fn default() -> Self {
        Self {
            prefix: InfoHashPrefix::default(),
            least_peers: 0,
            after: None,
            order: TorrentOrder::InfoHash,
            descending: false,
            offset: 0,
            limit: 100,
        }
    }
}

impl TorrentQuery {
    /// What sorts torrents that are equal otherwise.
    fn tie(&self, info_hash: InfoHash) -> InfoHash {
        match (self.order, self.descending) {
            (TorrentOrder::InfoHash, true) => InfoHash(info_hash.0.map(|byte| !byte)),
            _ => info_hash,
        }
    }

    fn matches(&self, torrent: &TorrentView) -> bool {
        self.prefix.is_of(&torrent.info_hash)
            && torrent.peers() >= self.least_peers
            && self.after.is_none_or(|after| torrent.info_hash > after)
    }
}

/// A page of torrents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TorrentPage {
    /// The torrents, sorted.
    pub torrents: Vec<TorrentView>,
    /// How many match, on all pages.
    pub matched: u64,
}

/// Sorted as the query says; the first of the page is the smallest.
#[derive(Debug)]
struct Ranked {
    rank: (Rank, InfoHash),
    torrent: TorrentView,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Up(u32),
    Down(Reverse<u32>),
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl Memory {
    /// A page of the torrents that have peers. Visits all torrents, in steps, and keeps no more of them than
    /// the page reaches: `offset` and `limit` are cut so that they end at [`MOST_SORTED`].
    pub fn list_torrents(&self, query: &TorrentQuery) -> TorrentPage {
        let offset = query.offset.min(MOST_SORTED);
        let reach = query.limit.saturating_add(offset).min(MOST_SORTED);
        let mut first = BinaryHeap::with_capacity(reach + 1);
        let mut matched = 0;
        let mut walk = Walk::default();
        loop {
            let finished = self.walk(&mut walk, false, |found| {
                let Found::Torrent(entry) = found else {
                    return;
                };
                let torrent = TorrentView::new(entry);
                if !query.matches(&torrent) {
                    return;
                }
                matched += 1;
                let key = query.order.key(&torrent);
                let rank = match query.descending {
                    false => Rank::Up(key),
                    true => Rank::Down(Reverse(key)),
                };
                let rank = (rank, query.tie(torrent.info_hash));
                first.push(Ranked { rank, torrent });
                if first.len() > reach {
                    first.pop();
                }
            });
            if finished {
                break;
            }
        }
        let sorted = first.into_sorted_vec().into_iter().skip(offset);
        TorrentPage {
            torrents: sorted.map(|ranked| ranked.torrent).collect(),
            matched,
        }
    }
}
