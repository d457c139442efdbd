//! The standard SCION path and the empty path: parsing, reversal, and what a path reveals.
//!
//! ```text
//! meta   C: CurrINF (2 bits) | CurrHF (6) | reserved (6) | Seg0Len (6) | Seg1Len (6) | Seg2Len (6)
//! info   flags (8): P peering 0x02, C construction direction 0x01 | reserved (8) | SegID (16)
//!        Timestamp (32)                                              one per segment, 8 bytes each
//! hop    flags (8): router alerts | ExpTime (8) | ConsIngress (16)
//!        ConsEgress (16) | MAC (48)                                       12 bytes each, up to 64
//! ```
//! [SCION header, path type SCION](https://docs.scion.org/en/latest/protocols/scion-header.html#path-type-scion)

use std::hash::Hasher;
use std::iter;

use siphasher::sip::SipHasher13;

use super::PacketError;
use crate::address::IsdAs;

const META: usize = 4;
const INFO: usize = 8;
const HOP: usize = 12;
/// CurrHF has 6 bits, so a longer path could not be followed to its end.
const MAX_HOPS: usize = 64;

/// Info field flags.
const CONS_DIR: u8 = 0x01;
const PEERING: u8 = 0x02;

/// A checked path. The empty path leads to hosts of the same AS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path<'a> {
    bytes: &'a [u8],
}

/// A segment: its info field and its hop fields in the order of travel.
#[derive(Clone, Copy)]
struct Segment<'a> {
    info: &'a [u8; INFO],
    hops: &'a [[u8; HOP]],
}

impl<'a> Path<'a> {
    /// The empty path (path type 0).
    pub const EMPTY: Path<'static> = Path { bytes: &[] };

    /// Checks the bytes of a path in the form that daemons use: no bytes for the empty path.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        if bytes.is_empty() {
            return Ok(Self { bytes });
        }
        Self::standard(bytes)
    }

    /// Checks a path of type 1.
    #[inline]
    pub(super) fn standard(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let meta = bytes.first_chunk().ok_or(PacketError::PathLength)?;
        let lens = segment_lens(*meta);
        let segments = lens.iter().take_while(|len| **len > 0).count();
        let hops: usize = lens.iter().sum();
        let gap = lens[segments..].iter().any(|len| *len > 0);
        if segments == 0 || gap || hops > MAX_HOPS {
            return Err(PacketError::PathSegments);
        }
        if bytes.len() != META + segments * INFO + hops * HOP {
            return Err(PacketError::PathLength);
        }
        let (current_info, current_hop) = position(*meta);
        let before: usize = lens[..current_info].iter().sum();
        if current_info >= segments || !(before..before + lens[current_info]).contains(&current_hop)
        {
            return Err(PacketError::PathPosition);
        }
        Ok(Self { bytes })
    }

    /// A path from bytes that are already checked, or come from a checked path.
    pub(super) const fn trusted(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes of the path in the header.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether this is the empty path.
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends the path of the reply: segments and hops in reverse order, construction direction
    /// flipped, the current position counted from the other end. SegIDs keep the values that the
    /// routers left, with which the way back begins. The peering flag and router alerts are kept.
    pub fn reverse_into(self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.bytes.len(), 0);
        self.reverse_to(&mut out[start..]);
    }

    /// As [`Path::reverse_into`], into a buffer of exactly the length of the path.
    pub(super) fn reverse_to(self, out: &mut [u8]) {
        let (Some(&meta), Some((out_meta, out))) =
            (self.bytes.first_chunk(), out.split_first_chunk_mut())
        else {
            return;
        };
        let lens = segment_lens(meta);
        let segments = lens.iter().take_while(|len| **len > 0).count();
        let hops: usize = lens.iter().sum();
        let (info, hop) = position(meta);
        let [first, second, third] = match segments {
            1 => lens,
            2 => [lens[1], lens[0], 0],
            _ => [lens[2], lens[1], lens[0]],
        };
        let reserved = u32::from_be_bytes(meta) & 0x00fc_0000;
        let meta = ((segments - 1 - info) << 30 | (hops - 1 - hop) << 24) as u32
            | reserved
            | (first << 12 | second << 6 | third) as u32;
        *out_meta = meta.to_be_bytes();
        let (infos, hops) = self.bytes[META..].split_at(segments * INFO);
        let (out_infos, out_hops) = out.split_at_mut(infos.len());
        let reversed = infos.as_chunks::<INFO>().0.iter().rev();
        for (out, info) in iter::zip(out_infos.as_chunks_mut::<INFO>().0, reversed) {
            *out = *info;
            out[0] ^= CONS_DIR;
        }
        let reversed = hops.as_chunks::<HOP>().0.iter().rev();
        for (out, hop) in iter::zip(out_hops.as_chunks_mut::<HOP>().0, reversed) {
            *out = *hop;
        }
    }

    /// When the first of its hop fields expires, in Unix seconds. `None` for the empty path, which
    /// does not expire. A hop field lives for `(1 + ExpTime) * 24 h / 256` from the timestamp of
    /// its segment.
    pub fn expiry(self) -> Option<u32> {
        self.segments()
            .filter_map(|segment| {
                let timestamp = u32::from_be_bytes(*segment.info.last_chunk()?);
                let shortest = segment.hops.iter().map(|hop| hop[1]).min()?;
                // 24 h / 256 is 337.5 s.
                Some(timestamp.saturating_add((u32::from(shortest) + 1) * 675 / 2))
            })
            .min()
    }

    /// Number of hop fields. An AS in which the path changes segments has two.
    pub fn hop_fields(self) -> usize {
        self.segments().map(|segment| segment.hops.len()).sum()
    }

    /// Number of links between ASes that the path crosses.
    pub fn links(self) -> usize {
        self.interfaces().count() / 2
    }

    /// The interfaces in the order of travel: out of the first AS, into the second, out of the
    /// second, and so on. Where the path changes segments, the hop fields also name interfaces that
    /// are not crossed (a shortcut leaves the segment below its core AS). These are left out. On a
    /// peering link both hop fields at the change name the link itself.
    pub fn interfaces(self) -> impl Iterator<Item = u16> {
        let count = self.segments().count();
        self.segments()
            .enumerate()
            .flat_map(move |(nth, segment)| {
                let peering = segment.info[0] & PEERING != 0;
                let last = segment.hops.len() - 1;
                segment.hops.iter().enumerate().flat_map(move |(at, hop)| {
                    let (enters, leaves) = segment.travel(hop);
                    let enters_here = at > 0 || (peering && nth > 0);
                    let leaves_here = at < last || (peering && nth + 1 < count);
                    [enters_here.then_some(enters), leaves_here.then_some(leaves)]
                })
            })
            .flatten()
    }

    /// The interface through which a packet on this path leaves the first AS. It determines the
    /// border router that is the next hop.
    pub fn first_egress(self) -> Option<u16> {
        self.interfaces().next()
    }

    /// The interface through which a packet on this path enters its last AS: it says which border router
    /// delivers the packet there.
    pub fn last_ingress(self) -> Option<u16> {
        self.interfaces().last()
    }

    /// Whether both are the same path, issued at the same time. Ignores the position and the
    /// SegIDs, which routers change in transit. Use it to compare with the packet that an SCMP
    /// error quotes.
    pub fn is_same_way(self, other: Path<'_>) -> bool {
        let lens = |path: Path<'_>| path.bytes.first_chunk().map(|meta| segment_lens(*meta));
        lens(self) == lens(other)
            && self.segments().zip(other.segments()).all(|(one, two)| {
                one.info[0] == two.info[0] && one.info[4..] == two.info[4..] && one.hops == two.hops
            })
    }

    /// An identifier for the path from `source` to `destination` over these interfaces, for any
    /// time of issue. It is a label for people and tables, not a proof: two paths can be made to
    /// share one.
    pub fn fingerprint(self, source: IsdAs, destination: IsdAs) -> u64 {
        let mut hasher = SipHasher13::new();
        hasher.write_u64(source.to_u64());
        hasher.write_u64(destination.to_u64());
        for interface in self.interfaces() {
            hasher.write_u16(interface);
        }
        hasher.finish()
    }

    fn segments(self) -> impl Iterator<Item = Segment<'a>> {
        let (lens, rest) = match self.bytes.split_first_chunk() {
            Some((meta, rest)) => (segment_lens(*meta), rest),
            None => ([0; 3], [].as_slice()),
        };
        let count = lens.iter().take_while(|len| **len > 0).count();
        let (infos, hops) = rest.split_at(count * INFO);
        let mut hops = hops.as_chunks::<HOP>().0;
        iter::zip(infos.as_chunks::<INFO>().0, lens).map(move |(info, len)| {
            let (own, others) = hops.split_at(len);
            hops = others;
            Segment { info, hops: own }
        })
    }
}

impl Segment<'_> {
    /// The interfaces of a hop in the order of travel.
    const fn travel(&self, hop: &[u8; HOP]) -> (u16, u16) {
        let ingress = u16::from_be_bytes([hop[2], hop[3]]);
        let egress = u16::from_be_bytes([hop[4], hop[5]]);
        if self.info[0] & CONS_DIR != 0 {
            (ingress, egress)
        } else {
            (egress, ingress)
        }
    }
}

const fn segment_lens(meta: [u8; META]) -> [usize; 3] {
    let meta = u32::from_be_bytes(meta) as usize;
    [meta >> 12 & 0x3f, meta >> 6 & 0x3f, meta & 0x3f]
}

/// CurrINF and CurrHF.
const fn position(meta: [u8; META]) -> (usize, usize) {
    ((meta[0] >> 6) as usize, (meta[0] & 0x3f) as usize)
}
