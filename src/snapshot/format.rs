//! The bytes of a snapshot. docs/snapshot.md has the layout.
//!
//! Both directions are here. A decoder never trusts a length: it allocates no more than a block, and never more
//! than the file is long.

use std::io::{self, Read, Write};

use scion_tracker_core::address::{CompactAddr, IsdAs};
use scion_tracker_core::registry::memory::transfer::{
    CLIENTS_BYTES, Exported, MOST_PARTS, StoredPeer,
};
use scion_tracker_core::types::{InfoHash, PeerId};

/// The first bytes of every version.
const MAGIC: [u8; 8] = *b"SCTSWARM";
/// The version that is written, and the only one that is read.
pub(crate) const VERSION: u32 = 1;
/// Bytes of the header.
const HEADER: usize = 24;
/// Bytes before the body of a block: its length and its checksum.
const PREFIX: usize = 8;
/// A block is written when its body has this many bytes.
const FULL: usize = 256 << 10;
/// Most bytes of a body. A reader refuses more.
const MOST: usize = 1 << 20;
/// Most bytes of a part.
const MOST_PART: usize = 64;
/// Peers of a torrent that are handed to the reader together.
const TOGETHER: usize = 1024;

/// The kind of an item: its first byte.
mod kind {
    pub(super) const END: u8 = 0;
    pub(super) const TORRENT: u8 = 1;
    pub(super) const PAST: u8 = 2;
    pub(super) const CLIENTS: u8 = 3;
}

/// The bits of the first byte of a peer.
mod shape {
    pub(super) const V6: u8 = 1;
    pub(super) const PLACED: u8 = 2;
}

/// How much is in a snapshot. The items at the end of the file say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Contents {
    /// Torrents with peers. One that took several steps or came twice counts more than once.
    pub(crate) torrents: u64,
    pub(crate) peers: u64,
    /// Torrents without peers whose downloads are remembered.
    pub(crate) past: u64,
}

/// Writes a snapshot, block by block.
#[derive(Debug)]
pub(crate) struct Encoder<W> {
    out: W,
    body: Vec<u8>,
    /// Number of the next block.
    number: u32,
    /// Where in the body the number of peers of the last torrent is.
    peers_at: usize,
    contents: Contents,
    bytes: u64,
}

impl<W: Write> Encoder<W> {
    /// Begins a snapshot of this moment, in seconds since 1970.
    pub(crate) fn new(mut out: W, written: u64) -> io::Result<Self> {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_be_bytes());
        header[12..20].copy_from_slice(&written.to_be_bytes());
        let checksum = crc32fast::hash(&header[..20]);
        header[20..].copy_from_slice(&checksum.to_be_bytes());
        out.write_all(&header)?;
        Ok(Self {
            out,
            // Never grows while a lock is held.
            body: Vec::with_capacity(FULL + MOST_PARTS * MOST_PART + PREFIX),
            number: 0,
            peers_at: 0,
            contents: Contents::default(),
            bytes: HEADER as u64,
        })
    }

    /// Adds a part of an export. Writes nothing: see [`Encoder::end_step`].
    pub(crate) fn add(&mut self, part: &Exported) {
        if self.body.is_empty() {
            self.body.extend([0; PREFIX]);
        }
        let body = &mut self.body;
        match part {
            Exported::Torrent {
                info_hash,
                completed,
            } => {
                self.contents.torrents += 1;
                body.push(kind::TORRENT);
                body.extend(info_hash.0);
                body.extend(completed.to_be_bytes());
                self.peers_at = body.len();
                body.extend([0; 2]);
            }
            Exported::Peer(peer) => {
                self.contents.peers += 1;
                push_peer(body, peer);
                // No more in a step than MOST_PARTS.
                let [high, low] = [body[self.peers_at], body[self.peers_at + 1]];
                let count = u16::from_be_bytes([high, low]) + 1;
                body[self.peers_at..self.peers_at + 2].copy_from_slice(&count.to_be_bytes());
            }
            Exported::Past {
                info_hash,
                completed,
            } => {
                self.contents.past += 1;
                body.push(kind::PAST);
                body.extend(info_hash.0);
                body.extend(completed.to_be_bytes());
            }
        }
    }

    /// Ends a step of an export. Writes a block if there is enough for one.
    pub(crate) fn end_step(&mut self) -> io::Result<()> {
        if self.body.len() < FULL {
            return Ok(());
        }
        self.write_block()
    }

    fn write_block(&mut self) -> io::Result<()> {
        let length = (self.body.len() - PREFIX) as u32;
        let checksum = checksum(self.number, &self.body[PREFIX..]);
        self.body[..4].copy_from_slice(&length.to_be_bytes());
        self.body[4..PREFIX].copy_from_slice(&checksum.to_be_bytes());
        self.out.write_all(&self.body)?;
        self.bytes += self.body.len() as u64;
        self.number += 1;
        self.body.clear();
        Ok(())
    }

    /// Adds what the registry remembers of clients, and the end. Returns the output, how much is in it, and its
    /// length in bytes.
    pub(crate) fn finish(
        mut self,
        clients: impl FnOnce(&mut Vec<u8>),
    ) -> io::Result<(W, Contents, u64)> {
        if !self.body.is_empty() {
            self.write_block()?;
        }
        self.body.extend([0; PREFIX]);
        self.body.push(kind::CLIENTS);
        clients(&mut self.body);
        self.write_block()?;
        self.body.extend([0; PREFIX]);
        self.body.push(kind::END);
        let Contents {
            torrents,
            peers,
            past,
        } = self.contents;
        for count in [torrents, peers, past] {
            self.body.extend(count.to_be_bytes());
        }
        self.write_block()?;
        Ok((self.out, self.contents, self.bytes))
    }
}

/// Covers the number of the block, so that a block that is missing or out of place is noticed.
fn checksum(number: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_be_bytes());
    hasher.update(body);
    hasher.finalize()
}

fn push_peer(body: &mut Vec<u8>, peer: &StoredPeer) {
    let (addr, ia) = (peer.addr().as_bytes(), peer.ia());
    let mut form = 0;
    if matches!(peer.addr(), CompactAddr::V6(_)) {
        form |= shape::V6;
    }
    if !ia.is_none() {
        form |= shape::PLACED;
    }
    let age = u16::try_from(peer.age() / StoredPeer::RESOLUTION).unwrap_or(u16::MAX);
    body.push(form);
    body.push(peer.state());
    body.extend(age.to_be_bytes());
    body.extend(peer.id().0);
    if !ia.is_none() {
        body.extend(ia.to_u64().to_be_bytes());
    }
    body.extend(addr);
}

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it does not begin as a snapshot does")]
    Magic,
    #[error("it has version {0}, and this program reads version {VERSION}")]
    Version(u32),
    #[error("it ends too early")]
    Truncated,
    #[error("the checksum of {0} is wrong")]
    Checksum(Place),
    #[error("{0} contains something that no tracker writes")]
    Invalid(Place),
}

/// A part of a snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    Header,
    Block(u32),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => f.write_str("the header"),
            Self::Block(number) => write!(f, "block {number}"),
        }
    }
}

/// A part of a snapshot that is being read.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    /// Up to [`TOGETHER`] peers of a torrent. A torrent can come more than once.
    Torrent {
        info_hash: InfoHash,
        completed: u32,
        peers: &'a [StoredPeer],
    },
    /// A torrent without peers.
    Past { info_hash: InfoHash, completed: u32 },
    /// What the registry remembered of clients.
    Clients(&'a [u8]),
}

/// Reads a snapshot.
#[derive(Debug)]
pub(crate) struct Decoder<R> {
    input: R,
    /// Bytes that are left of it.
    left: u64,
    /// When it was written, in seconds since 1970.
    written: u64,
}

impl<R: Read> Decoder<R> {
    /// Reads the header of a snapshot of this length in bytes.
    pub(crate) fn new(mut input: R, length: u64) -> Result<Self, DecodeError> {
        let mut header = [0; HEADER];
        let there = length.min(HEADER as u64) as usize;
        read_exact(&mut input, &mut header[..there])?;
        // The rule of versions: these bytes are at the same place in all of them.
        if header[..8] != MAGIC {
            return Err(DecodeError::Magic);
        }
        let version = be(&header[8..12]) as u32;
        if there >= 12 && version != VERSION {
            return Err(DecodeError::Version(version));
        }
        if there < HEADER {
            return Err(DecodeError::Truncated);
        }
        if be(&header[20..]) as u32 != crc32fast::hash(&header[..20]) {
            return Err(DecodeError::Checksum(Place::Header));
        }
        Ok(Self {
            input,
            left: length - HEADER as u64,
            written: be(&header[12..20]),
        })
    }

    /// When the snapshot was written, in seconds since 1970.
    pub(crate) const fn written(&self) -> u64 {
        self.written
    }

    /// Shows what is in the snapshot. `older` is the time in seconds to add to the ages of peers. After an error,
    /// what was shown has to be thrown away.
    pub(crate) fn read(
        mut self,
        older: u32,
        mut show: impl FnMut(Item<'_>),
    ) -> Result<Contents, DecodeError> {
        let mut contents = Contents::default();
        let (mut body, mut peers) = (Vec::new(), Vec::new());
        for number in 0.. {
            let invalid = || DecodeError::Invalid(Place::Block(number));
            let mut prefix = [0; PREFIX];
            self.fill(&mut prefix)?;
            let (length, expected) = (be(&prefix[..4]) as usize, be(&prefix[4..]) as u32);
            if length as u64 > self.left {
                return Err(DecodeError::Truncated);
            }
            if length == 0 || length > MOST {
                return Err(invalid());
            }
            body.resize(length, 0);
            self.fill(&mut body)?;
            if checksum(number, &body) != expected {
                return Err(DecodeError::Checksum(Place::Block(number)));
            }
            let mut items = Bytes(&body);
            while let Some([kind]) = items.take() {
                let shown = match kind {
                    kind::TORRENT => items.torrent(older, &mut peers, &mut contents, &mut show),
                    kind::PAST => items.past().map(|(info_hash, completed)| {
                        contents.past += 1;
                        show(Item::Past {
                            info_hash,
                            completed,
                        });
                    }),
                    kind::CLIENTS => items.slice(CLIENTS_BYTES).map(|it| show(Item::Clients(it))),
                    kind::END => {
                        let is_whole = items.end() == Some(contents);
                        let is_last = items.0.is_empty() && self.left == 0;
                        return (is_whole && is_last)
                            .then_some(contents)
                            .ok_or_else(invalid);
                    }
                    _ => None,
                };
                shown.ok_or_else(invalid)?;
            }
        }
        Err(DecodeError::Truncated)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), DecodeError> {
        self.left = self
            .left
            .checked_sub(buffer.len() as u64)
            .ok_or(DecodeError::Truncated)?;
        read_exact(&mut self.input, buffer)
    }
}

/// A file can be shorter than it was a moment ago.
fn read_exact(input: &mut impl Read, buffer: &mut [u8]) -> Result<(), DecodeError> {
    input
        .read_exact(buffer)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => DecodeError::Truncated,
            _ => DecodeError::Io(error),
        })
}

/// A big endian number of up to 8 bytes.
fn be(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The rest of a body.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }

    fn past(&mut self) -> Option<(InfoHash, u32)> {
        Some((InfoHash(self.take()?), u32::from_be_bytes(self.take()?)))
    }

    fn torrent(
        &mut self,
        older: u32,
        peers: &mut Vec<StoredPeer>,
        contents: &mut Contents,
        show: &mut impl FnMut(Item<'_>),
    ) -> Option<()> {
        let (info_hash, completed) = self.past()?;
        let mut left = usize::from(u16::from_be_bytes(self.take()?));
        contents.torrents += 1;
        loop {
            peers.clear();
            for _ in 0..left.min(TOGETHER) {
                peers.push(self.peer(older)?);
            }
            left -= peers.len();
            contents.peers += peers.len() as u64;
            show(Item::Torrent {
                info_hash,
                completed,
                peers,
            });
            if left == 0 {
                return Some(());
            }
        }
    }

    fn peer(&mut self, older: u32) -> Option<StoredPeer> {
        let [form, state] = self.take()?;
        let age = u32::from(u16::from_be_bytes(self.take()?)) * StoredPeer::RESOLUTION;
        let id = PeerId(self.take()?);
        let ia = match form & shape::PLACED {
            0 => IsdAs::NONE,
            _ => Some(IsdAs::from_u64(u64::from_be_bytes(self.take()?)))
                .filter(|it| !it.is_none())?,
        };
        let addr = match form & shape::V6 {
            0 => CompactAddr::V4(self.take()?),
            _ => CompactAddr::V6(self.take()?),
        };
        if form & !(shape::V6 | shape::PLACED) != 0 {
            return None;
        }
        StoredPeer::new(ia, addr, id, state, age.saturating_add(older))
    }

    fn end(&mut self) -> Option<Contents> {
        let [torrents, peers, past] =
            [self.take()?, self.take()?, self.take()?].map(u64::from_be_bytes);
        Some(Contents {
            torrents,
            peers,
            past,
        })
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz {
    //! Properties of the decoder that hold for any input.

    use super::*;

    /// Reads any bytes as a snapshot. What it accepts comes out of the encoder again as it is, and a block
    /// never takes more memory than there are bytes.
    pub fn snapshot(bytes: &[u8]) {
        let read = |bytes: &[u8]| -> Option<(u64, Vec<Exported>, Vec<u8>)> {
            let decoder = Decoder::new(bytes, bytes.len() as u64).ok()?;
            let (written, mut parts, mut clients) = (decoder.written(), Vec::new(), Vec::new());
            let contents = decoder.read(0, |item| match item {
                Item::Torrent {
                    info_hash,
                    completed,
                    peers,
                } => {
                    parts.push(Exported::Torrent {
                        info_hash,
                        completed,
                    });
                    parts.extend(peers.iter().copied().map(Exported::Peer));
                }
                Item::Past {
                    info_hash,
                    completed,
                } => parts.push(Exported::Past {
                    info_hash,
                    completed,
                }),
                Item::Clients(bytes) => clients = bytes.to_vec(),
            });
            contents.ok().map(|_| (written, parts, clients))
        };
        let Some((written, parts, clients)) = read(bytes) else {
            // The checksums hide the rest from random bytes.
            let mut items = Bytes(bytes);
            let (mut peers, mut contents) = (Vec::new(), Contents::default());
            while items
                .torrent(8, &mut peers, &mut contents, &mut |_| {})
                .is_some()
            {
                assert!(peers.len() <= TOGETHER);
            }
            assert!(contents.peers * 30 <= bytes.len() as u64);
            return;
        };
        let mut encoder = Encoder::new(Vec::new(), written).expect("memory takes it");
        for part in &parts {
            if !matches!(part, Exported::Peer(_)) {
                encoder.end_step().expect("memory takes it");
            }
            encoder.add(part);
        }
        let encoded = encoder.finish(|body| body.extend(&clients));
        let (encoded, ..) = encoded.expect("memory takes it");
        if clients.len() == CLIENTS_BYTES {
            assert_eq!(read(&encoded), Some((written, parts, clients)));
        }
    }
}

#[cfg(test)]
mod tests;
