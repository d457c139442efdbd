//! The common header and the address header of SCION packets.
//!
//! ```text
//!  0  Version (4 bits) | TrafficClass (8) | FlowID (20)
//!  4  NextHdr (8) | HdrLen (8, in units of 4 bytes) | PayloadLen (16)
//!  8  PathType (8) | DT DL ST SL (2 bits each) | reserved (16)
//! 12  DstISD (16) | DstAS (48)
//! 20  SrcISD (16) | SrcAS (48)
//! 28  destination host (4 or 16 bytes) | source host (4 or 16 bytes) | path
//! ```
//! [SCION header, common header and address header](https://docs.scion.org/en/latest/protocols/scion-header.html#common-header)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::template::BuildError;
use super::{PacketError, Path};
use crate::address::{Host, IsdAs};

/// Length of the common header.
const COMMON: usize = 12;
/// Offset of the hosts: after the common header and two ISD-AS numbers.
const HOSTS: usize = COMMON + 16;
/// Offset of PayloadLen.
pub(super) const PAYLOAD_LEN: usize = 6;
/// Largest length that HdrLen can hold.
const MAX: usize = 255 * 4;

/// Type and length of a host address in the common header (DT/DL, ST/SL).
const TYPE_V4: u8 = 0b0000;
const TYPE_V6: u8 = 0b0011;

/// The header of a packet.
pub(super) struct Header<'a> {
    pub(super) next_header: u8,
    pub(super) payload_len: u16,
    pub(super) source: Host,
    pub(super) destination: Host,
    pub(super) addresses: &'a [u8],
    pub(super) path: Path<'a>,
}

/// Splits a packet into its header and the rest. The caller checks PayloadLen, because a quoted
/// packet is truncated.
#[inline]
pub(super) fn read(packet: &[u8]) -> Result<(Header<'_>, &[u8]), PacketError> {
    let common: &[u8; COMMON] = packet.first_chunk().ok_or(PacketError::Truncated)?;
    if common[0] >> 4 != 0 {
        return Err(PacketError::Version);
    }
    let (header, rest) = packet
        .split_at_checked(usize::from(common[5]) * 4)
        .ok_or(PacketError::Truncated)?;
    let destination_len = host_len(common[9] >> 4)?;
    let source_len = host_len(common[9] & 0xf)?;
    let (addresses, path) = header
        .get(COMMON..)
        .and_then(|rest| rest.split_at_checked(HOSTS - COMMON + destination_len + source_len))
        .ok_or(PacketError::HeaderLength)?;
    let (places, hosts) = addresses
        .split_first_chunk::<16>()
        .ok_or(PacketError::HeaderLength)?;
    let (destination, source) = hosts.split_at(destination_len);
    let places = u128::from_be_bytes(*places);
    let header = Header {
        next_header: common[4],
        payload_len: u16::from_be_bytes([common[PAYLOAD_LEN], common[PAYLOAD_LEN + 1]]),
        destination: host((places >> 64) as u64, destination)?,
        source: host(places as u64, source)?,
        addresses,
        path: match common[8] {
            0 if path.is_empty() => Path::EMPTY,
            0 => return Err(PacketError::HeaderLength),
            1 => Path::standard(path)?,
            _ => return Err(PacketError::PathType),
        },
    };
    Ok((header, rest))
}

const fn host_len(kind: u8) -> Result<usize, PacketError> {
    match kind {
        TYPE_V4 => Ok(4),
        TYPE_V6 => Ok(16),
        _ => Err(PacketError::AddressType),
    }
}

#[inline]
fn host(place: u64, bytes: &[u8]) -> Result<Host, PacketError> {
    let ia = IsdAs::from_u64(place);
    if ia.is_wildcard() {
        return Err(PacketError::Wildcard);
    }
    let ip = if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        IpAddr::V4(Ipv4Addr::from(octets))
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        IpAddr::V6(Ipv6Addr::from(octets))
    } else {
        return Err(PacketError::AddressType);
    };
    // Replies use the same address family, so an IPv4-mapped address must not become IPv4.
    if ip.is_multicast() || ip.is_unspecified() || ip != ip.to_canonical() {
        return Err(PacketError::Host);
    }
    Ok(Host::new(ia, ip))
}

/// Length of a header with these two hosts and a path of this length.
pub(super) const fn length(
    source: Host,
    destination: Host,
    path: usize,
) -> Result<usize, BuildError> {
    let length = HOSTS + kind(destination.ip()).1 + kind(source.ip()).1 + path;
    if length > MAX {
        return Err(BuildError::HeaderTooLong);
    }
    Ok(length)
}

/// Writes a header with PayloadLen 0, to be patched later, into a buffer of exactly its length.
/// `path` writes the path into the rest of it. Returns the offset of the path.
pub(super) fn write(
    header: &mut [u8],
    source: Host,
    destination: Host,
    next_header: u8,
    flow_id: u32,
    path: impl FnOnce(&mut [u8]),
) -> usize {
    let (source_type, source_len) = kind(source.ip());
    let (destination_type, destination_len) = kind(destination.ip());
    // The lengths of addresses and paths are multiples of 4 bytes.
    let units = (header.len() / 4) as u8;
    let (fixed, rest) = header.split_at_mut(HOSTS);
    let (hosts, room) = rest.split_at_mut(destination_len + source_len);
    fixed[..4].copy_from_slice(&(flow_id & 0xf_ffff).to_be_bytes());
    fixed[4..8].copy_from_slice(&[next_header, units, 0, 0]);
    let (path_type, types) = (!room.is_empty(), destination_type << 4 | source_type);
    fixed[8..12].copy_from_slice(&[path_type.into(), types, 0, 0]);
    fixed[12..20].copy_from_slice(&destination.ia.to_u64().to_be_bytes());
    fixed[20..28].copy_from_slice(&source.ia.to_u64().to_be_bytes());
    let (first, second) = hosts.split_at_mut(destination_len);
    for (host, bytes) in [(destination, first), (source, second)] {
        match host.ip() {
            IpAddr::V4(ip) => bytes.copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.copy_from_slice(&ip.octets()),
        }
    }
    path(room);
    HOSTS + destination_len + source_len
}

const fn kind(ip: IpAddr) -> (u8, usize) {
    match ip {
        IpAddr::V4(_) => (TYPE_V4, 4),
        IpAddr::V6(_) => (TYPE_V6, 16),
    }
}

/// The address header of a header with a path that starts at `path_at`.
pub(super) fn addresses(header: &[u8], path_at: usize) -> &[u8] {
    &header[COMMON..path_at]
}
