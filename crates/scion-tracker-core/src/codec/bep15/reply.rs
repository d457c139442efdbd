//! BEP 15 replies: written by the tracker, parsed by the client.
//!
//! The writers fill a buffer of the caller and return the length used. Whole peers and whole counts
//! that do not fit are left out.

use super::{ANNOUNCE, BOTH_FAMILIES, CONNECT, ERROR, Malformed, SCRAPE};
use super::{TransactionId, u32_at, u64_at};
use crate::address::IsdAs;
use crate::codec::compact::{Layout, Unpack};
use crate::codec::connection::ConnectionId;
use crate::response::{AddrBytes, AnnounceReply, Peer, PeerSink, Reach, Rows, SwarmCounts};

/// Bytes of an announce reply before the list.
pub const ANNOUNCE_HEADER: usize = 20;

/// Number of peers of this layout that fit into an announce reply of `length` bytes.
pub const fn announce_room(length: usize, layout: Layout) -> usize {
    let list = length.saturating_sub(ANNOUNCE_HEADER);
    let opening = match layout {
        Layout::Scion46 => BOTH_FAMILIES.len(),
        Layout::Ip4 | Layout::Ip6 | Layout::Scion4 | Layout::Scion6 => 0,
    };
    list.saturating_sub(opening) / layout.size()
}

/// Writes the reply to a `connect`: 16 bytes.
///
/// # Panics
/// If the buffer is shorter than 16 bytes.
pub fn write_connect(
    buffer: &mut [u8],
    transaction: TransactionId,
    connection: ConnectionId,
) -> usize {
    write_header(buffer, CONNECT, transaction);
    buffer[8..16].copy_from_slice(&connection.0.to_be_bytes());
    16
}

/// Writes an announce reply into the buffer as peers are pushed.
///
/// ```text
///  0  action 4     4  transaction 4   8  interval 4
/// 12  leechers 4  16  seeders 4      20  peers, see Layout
/// ```
///
/// A list of [`Layout::Scion46`] opens with eight zero bytes, by which the client recognizes it: no
/// peer has the ISD-AS 0-0.
#[derive(Debug)]
pub struct AnnounceWriter<'a> {
    buffer: &'a mut [u8],
    transaction: TransactionId,
    length: usize,
    /// Whether the peers are those over SCION.
    scion: bool,
    /// The reach of peers that the requester of such a list does not reach.
    unreachable: Reach,
    takes4: bool,
    takes6: bool,
    /// Whether IPv4 hosts stand in the form of IPv6.
    takes_mapped: bool,
}

impl<'a> AnnounceWriter<'a> {
    /// A reply without peers.
    ///
    /// # Panics
    /// If the buffer is shorter than [`ANNOUNCE_HEADER`].
    pub fn new(buffer: &'a mut [u8], transaction: TransactionId, layout: Layout) -> Self {
        assert!(buffer.len() >= ANNOUNCE_HEADER, "no room for a header");
        let mut writer = Self {
            buffer,
            transaction,
            length: ANNOUNCE_HEADER,
            scion: !matches!(layout, Layout::Ip4 | Layout::Ip6),
            unreachable: match layout {
                Layout::Ip4 | Layout::Ip6 => Reach::Scion,
                Layout::Scion4 | Layout::Scion6 | Layout::Scion46 => Reach::Ip,
            },
            takes4: matches!(layout, Layout::Ip4 | Layout::Scion4),
            takes6: matches!(layout, Layout::Ip6 | Layout::Scion6 | Layout::Scion46),
            takes_mapped: layout == Layout::Scion46,
        };
        if layout == Layout::Scion46 {
            writer.append(&BOTH_FAMILIES);
        }
        writer
    }

    /// Writes the header before the peers, and returns the length of the reply.
    pub fn finish(self, reply: &AnnounceReply) -> usize {
        write_header(self.buffer, ANNOUNCE, self.transaction);
        self.buffer[8..12].copy_from_slice(&reply.interval.to_be_bytes());
        self.buffer[12..16].copy_from_slice(&reply.counts.leechers.to_be_bytes());
        self.buffer[16..20].copy_from_slice(&reply.counts.seeders.to_be_bytes());
        self.length
    }

    fn append<const N: usize>(&mut self, bytes: &[u8; N]) {
        if let Some(room) = self.buffer.get_mut(self.length..self.length + N) {
            room.copy_from_slice(bytes);
            self.length += N;
        }
    }

    #[inline(always)]
    fn append_peer<const N: usize>(&mut self, ia: IsdAs, addr: &[u8; N]) {
        let size = if self.scion { 8 + N } else { N };
        if let Some(room) = self.buffer.get_mut(self.length..self.length + size) {
            if self.scion {
                room[..8].copy_from_slice(&ia.to_u64().to_be_bytes());
            }
            room[size - N..].copy_from_slice(addr);
            self.length += size;
        }
    }

    #[inline(never)]
    fn append_mapped(&mut self, ia: IsdAs, addr: &[u8; 6]) {
        self.append_peer(ia, &mapped(addr));
    }
}

impl PeerSink for AnnounceWriter<'_> {
    /// Peers of another address family or network do not fit the layout and are left out.
    // Inlined: as a function it costs 24 instructions more per peer. The family comes first, because the
    // registry's loops know it. Nothing here takes the peer by reference, which would put it into memory.
    #[inline(always)]
    fn push(&mut self, peer: Peer<'_>) {
        if peer.reach == self.unreachable {
            return;
        }
        match peer.addr {
            AddrBytes::V4(addr) if self.takes4 => self.append_peer(peer.ia, addr),
            AddrBytes::V6(addr) if self.takes6 => self.append_peer(peer.ia, addr),
            AddrBytes::V4(addr) if self.takes_mapped => self.append_mapped(peer.ia, addr),
            _ => {}
        }
    }

    #[inline]
    fn rows(&mut self) -> Option<Rows<'_>> {
        if !self.takes4 {
            return None;
        }
        let room = self.buffer.get_mut(self.length..)?;
        Some(match self.scion {
            true => Rows::Scion(room.as_chunks_mut().0),
            false => Rows::Ip(room.as_chunks_mut().0),
        })
    }

    #[inline]
    fn filled(&mut self, rows: usize) {
        let size = if self.scion { 14 } else { 6 };
        self.length += rows * size;
    }
}

/// An IPv4 address and port in the form of IPv6.
fn mapped(addr: &[u8; 6]) -> [u8; 18] {
    let mut bytes = [0; 18];
    bytes[10..12].fill(0xff);
    bytes[12..].copy_from_slice(addr);
    bytes
}

/// Writes a scrape reply, with the counts in the order of the request.
///
/// ```text
/// 0  action 4     4  transaction 4
/// 8  seeders 4   12  completed 4    16  leechers 4   and so on
/// ```
///
/// # Panics
/// If the buffer is shorter than 8 bytes.
pub fn write_scrape(
    buffer: &mut [u8],
    transaction: TransactionId,
    counts: impl IntoIterator<Item = SwarmCounts>,
) -> usize {
    write_header(buffer, SCRAPE, transaction);
    let (rooms, _) = buffer[8..].as_chunks_mut::<12>();
    let mut length = 8;
    for (room, counts) in rooms.iter_mut().zip(counts) {
        room[..4].copy_from_slice(&counts.seeders.to_be_bytes());
        room[4..8].copy_from_slice(&counts.completed.to_be_bytes());
        room[8..].copy_from_slice(&counts.leechers.to_be_bytes());
        length += 12;
    }
    length
}

/// Writes an error with a message for the client.
///
/// # Panics
/// If the buffer is shorter than 8 bytes.
pub fn write_error(buffer: &mut [u8], transaction: TransactionId, message: &str) -> usize {
    write_header(buffer, ERROR, transaction);
    let room = &mut buffer[8..];
    let length = message.len().min(room.len());
    room[..length].copy_from_slice(&message.as_bytes()[..length]);
    8 + length
}

fn write_header(buffer: &mut [u8], action: u32, transaction: TransactionId) {
    buffer[..4].copy_from_slice(&action.to_be_bytes());
    buffer[4..8].copy_from_slice(&transaction.0.to_be_bytes());
}

/// A reply as the client parses it.
#[derive(Debug, Clone, Copy)]
pub enum Reply<'a> {
    /// Reply to a `connect`.
    Connect {
        /// The transaction id of the request.
        transaction: TransactionId,
        /// The id to send with further requests.
        connection: ConnectionId,
    },
    /// Reply to an announce.
    Announce {
        /// The transaction id of the request.
        transaction: TransactionId,
        /// Seconds until the next regular announce.
        interval: u32,
        /// Peers that do not have the complete torrent.
        leechers: u32,
        /// Peers that have the complete torrent.
        seeders: u32,
        /// The peers.
        peers: Unpack<'a>,
    },
    /// Reply to a scrape.
    Scrape {
        /// The transaction id of the request.
        transaction: TransactionId,
        /// The counts, in the order of the request.
        counts: ScrapeCounts<'a>,
    },
    /// An error.
    Error {
        /// The transaction id of the request.
        transaction: TransactionId,
        /// The tracker's message, in any encoding.
        message: &'a [u8],
    },
}

impl Reply<'_> {
    /// The transaction id of the request that this answers.
    pub const fn transaction(&self) -> TransactionId {
        match self {
            Self::Connect { transaction, .. }
            | Self::Announce { transaction, .. }
            | Self::Scrape { transaction, .. }
            | Self::Error { transaction, .. } => *transaction,
        }
    }
}

/// The counts of a scrape reply. BEP 15 has no `downloaders`, so they are 0.
#[derive(Debug, Clone, Copy)]
pub struct ScrapeCounts<'a>(&'a [[u8; 12]]);

impl Iterator for ScrapeCounts<'_> {
    type Item = SwarmCounts;

    fn next(&mut self) -> Option<SwarmCounts> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(SwarmCounts {
            seeders: u32_at(first, 0),
            completed: u32_at(first, 4),
            leechers: u32_at(first, 8),
            downloaders: 0,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len(), Some(self.0.len()))
    }
}

impl ExactSizeIterator for ScrapeCounts<'_> {}

/// Parses a reply. `layout` is that of the socket over which the request was sent. Over SCION a list
/// of [`Layout::Scion46`] is recognized by itself.
pub fn parse_reply(datagram: &[u8], layout: Layout) -> Result<Reply<'_>, Malformed> {
    let (header, rest) = datagram.split_first_chunk::<8>().ok_or(Malformed)?;
    let transaction = TransactionId(u32_at(header, 4));
    match u32_at(header, 0) {
        CONNECT => Ok(Reply::Connect {
            transaction,
            connection: ConnectionId(u64_at(rest.first_chunk::<8>().ok_or(Malformed)?, 0)),
        }),
        ANNOUNCE => {
            let (counts, list) = rest.split_first_chunk::<12>().ok_or(Malformed)?;
            Ok(Reply::Announce {
                transaction,
                interval: u32_at(counts, 0),
                leechers: u32_at(counts, 4),
                seeders: u32_at(counts, 8),
                peers: {
                    let (layout, peers) = peer_list(list, layout);
                    layout.unpack(peers).ok_or(Malformed)?
                },
            })
        }
        SCRAPE => match rest.as_chunks() {
            (counts, []) => Ok(Reply::Scrape {
                transaction,
                counts: ScrapeCounts(counts),
            }),
            _ => Err(Malformed),
        },
        ERROR => Ok(Reply::Error {
            transaction,
            message: rest,
        }),
        _ => Err(Malformed),
    }
}

/// The peers of the list in an announce reply, and their layout. `layout` is that of the socket.
pub fn peer_list(list: &[u8], layout: Layout) -> (Layout, &[u8]) {
    match layout {
        Layout::Ip4 | Layout::Ip6 => (layout, list),
        Layout::Scion4 | Layout::Scion6 | Layout::Scion46 => {
            match list.strip_prefix(&BOTH_FAMILIES) {
                Some(peers) => (Layout::Scion46, peers),
                None => (layout, list),
            }
        }
    }
}
