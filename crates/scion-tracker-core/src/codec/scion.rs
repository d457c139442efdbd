//! SCION packets: the header codec in both directions. No cryptography and no path lookup: a packet
//! is answered over the reversal of the path on which the routers delivered it.
//!
//! Specification: [SCION header](https://docs.scion.org/en/latest/protocols/scion-header.html),
//! [extension headers](https://docs.scion.org/en/latest/protocols/extension-header.html),
//! [SCMP](https://docs.scion.org/en/latest/protocols/scmp.html).

mod header;
mod path;
mod scmp;
mod template;
mod udp;

#[cfg(test)]
mod tests;

pub use path::Path;
pub use scmp::{Echo, Quoted, Scmp, write_echo_reply, write_echo_request};
pub use template::{Answer, BuildError, Template, Unsealed};
pub use udp::Udp;

use crate::address::Host;

/// Next header: UDP.
const UDP: u8 = 17;
/// Next header: hop-by-hop options.
const HOP_BY_HOP: u8 = 200;
/// Next header: end-to-end options.
const END_TO_END: u8 = 201;
/// Next header: SCMP.
const SCMP: u8 = 202;

/// Why a datagram is not a SCION packet that can be answered. Flat and `Copy`, so that it can be
/// counted by variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// Shorter than the fixed fields, or than its length fields say.
    #[error("packet is truncated")]
    Truncated,
    /// Not version 0.
    #[error("unknown SCION version")]
    Version,
    /// HdrLen does not equal the length of addresses and path.
    #[error("header length does not fit addresses and path")]
    HeaderLength,
    /// PayloadLen does not equal the length after the header.
    #[error("payload length does not fit the packet")]
    PayloadLength,
    /// A service address, or an unassigned address type.
    #[error("host address is neither IPv4 nor IPv6")]
    AddressType,
    /// A host that cannot be answered: multicast, unspecified, or an IPv4-mapped IPv6 address.
    #[error("host address names no single host")]
    Host,
    /// The ISD or the AS is zero.
    #[error("wildcard ISD-AS in the address header")]
    Wildcard,
    /// One-hop, EPIC, COLIBRI, or an unknown path type.
    #[error("path type is neither empty nor SCION")]
    PathType,
    /// No segment, a gap between segments, or more than 64 hops.
    #[error("segment lengths of the path are invalid")]
    PathSegments,
    /// The path is shorter or longer than its segments.
    #[error("path length does not fit its segments")]
    PathLength,
    /// The current hop is outside the path or outside the current segment.
    #[error("current hop is not in the current segment")]
    PathPosition,
    /// Extension headers that are repeated or in the wrong order.
    #[error("extension headers are out of order")]
    ExtensionOrder,
    /// Neither UDP nor SCMP.
    #[error("next header is neither UDP nor SCMP")]
    NextHeader,
    /// The length in the UDP header is not the length of the datagram.
    #[error("UDP length does not fit the payload")]
    UdpLength,
}

impl PacketError {
    /// Every variant, for counters.
    pub const ALL: [Self; 14] = [
        Self::Truncated,
        Self::Version,
        Self::HeaderLength,
        Self::PayloadLength,
        Self::AddressType,
        Self::Host,
        Self::Wildcard,
        Self::PathType,
        Self::PathSegments,
        Self::PathLength,
        Self::PathPosition,
        Self::ExtensionOrder,
        Self::NextHeader,
        Self::UdpLength,
    ];

    /// A stable name for counters and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Version => "version",
            Self::HeaderLength => "header_length",
            Self::PayloadLength => "payload_length",
            Self::AddressType => "address_type",
            Self::Host => "host",
            Self::Wildcard => "wildcard",
            Self::PathType => "path_type",
            Self::PathSegments => "path_segments",
            Self::PathLength => "path_length",
            Self::PathPosition => "path_position",
            Self::ExtensionOrder => "extension_order",
            Self::NextHeader => "next_header",
            Self::UdpLength => "udp_length",
        }
    }
}

/// A received packet: a view of the datagram.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Sender according to the packet. Not authenticated.
    pub source: Host,
    /// Destination host.
    pub destination: Host,
    /// The path on which it arrived.
    pub path: Path<'a>,
    /// The message that it carries.
    pub message: Message<'a>,
    /// The address header, which is part of the checksum.
    addresses: &'a [u8],
    /// The upper-layer header and its payload.
    upper: &'a [u8],
}

/// The message in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A UDP datagram.
    Udp(Udp<'a>),
    /// An SCMP message.
    Scmp(Scmp<'a>),
}

/// Parses a packet. All lengths must agree with each other and with the datagram. Extension headers
/// are skipped. The checksum is not verified; see [`Packet::checksum_is_right`].
#[inline]
pub fn parse(datagram: &[u8]) -> Result<Packet<'_>, PacketError> {
    let (header, payload) = header::read(datagram)?;
    if payload.len() != usize::from(header.payload_len) {
        return Err(if payload.len() < usize::from(header.payload_len) {
            PacketError::Truncated
        } else {
            PacketError::PayloadLength
        });
    }
    let (protocol, upper) = skip_extensions(header.next_header, payload)?;
    let message = match protocol {
        UDP => Message::Udp(udp::read(upper)?),
        SCMP => Message::Scmp(scmp::read(upper)?),
        _ => return Err(PacketError::NextHeader),
    };
    Ok(Packet {
        source: header.source,
        destination: header.destination,
        path: header.path,
        message,
        addresses: header.addresses,
        upper,
    })
}

impl Packet<'_> {
    /// Whether the upper-layer checksum is right. Count a wrong one, but accept the packet: an SDK
    /// in use leaves the payload out of its sum. QUIC and the connection id protect the contents.
    pub fn checksum_is_right(&self) -> bool {
        let protocol = match self.message {
            Message::Udp(_) => UDP,
            Message::Scmp(_) => SCMP,
        };
        let sum = udp::pseudo_sum(self.addresses, protocol)
            + self.upper.len() as u64
            + udp::sum(self.upper);
        udp::fold(sum) == 0xffff
    }
}

/// Skips the hop-by-hop and the end-to-end options header: at most one of each, in this order.
///
/// ```text
/// NextHdr (1) | ExtLen (1) | options (4 * (ExtLen + 1) - 2)
/// ```
#[inline]
fn skip_extensions(mut next: u8, mut rest: &[u8]) -> Result<(u8, &[u8]), PacketError> {
    let mut last = 0;
    while matches!(next, HOP_BY_HOP | END_TO_END) {
        if next <= last {
            return Err(PacketError::ExtensionOrder);
        }
        last = next;
        let &[following, length] = rest.first_chunk().ok_or(PacketError::Truncated)?;
        rest = rest
            .get(4 * (usize::from(length) + 1)..)
            .ok_or(PacketError::Truncated)?;
        next = following;
    }
    Ok((next, rest))
}
