//! Compact peers: 6 and 18 bytes over IP (BEP 23, BEP 7), 14 and 26 bytes over SCION.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::address::{CompactAddr, Host, IsdAs};
use crate::request::{Carries, Family, Origin};
use crate::response::Peer;

/// Layout of a compact peer. All fields are big endian:
///
/// ```text
/// Ip4                     host 4   port 2     6 bytes
/// Ip6                     host 16  port 2    18 bytes
/// Scion4   ISD 2  AS 6    host 4   port 2    14 bytes
/// Scion6   ISD 2  AS 6    host 16  port 2    26 bytes
/// Scion46  ISD 2  AS 6    host 16  port 2    26 bytes
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// IPv4 hosts of the ordinary Internet (BEP 23).
    Ip4,
    /// IPv6 hosts of the ordinary Internet (BEP 7).
    Ip6,
    /// IPv4 hosts in an ISD-AS.
    Scion4,
    /// IPv6 hosts in an ISD-AS.
    Scion6,
    /// Hosts of both families in an ISD-AS, IPv4 as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2).
    /// Over UDP, to clients that ask for it.
    Scion46,
}

impl Layout {
    /// The layout of a UDP reply: depends on the network of the request and the address family of
    /// the requester.
    pub fn of(origin: &Origin) -> Self {
        match (origin.is_scion(), Family::of(origin.host.ip())) {
            (false, Family::V4) => Self::Ip4,
            (false, Family::V6) => Self::Ip6,
            (true, Family::V4) => Self::Scion4,
            (true, Family::V6) => Self::Scion6,
        }
    }

    /// Bytes per peer.
    pub const fn size(self) -> usize {
        match self {
            Self::Ip4 => 6,
            Self::Ip6 => 18,
            Self::Scion4 => 14,
            Self::Scion6 | Self::Scion46 => 26,
        }
    }

    /// The peers that a list of this layout can carry.
    pub const fn carries(self) -> Carries {
        match self {
            Self::Ip4 | Self::Scion4 => Carries::One(Family::V4),
            Self::Ip6 | Self::Scion6 => Carries::One(Family::V6),
            Self::Scion46 => Carries::All,
        }
    }

    /// Whether a peer from such a list can be reached. A peer with port 0 cannot. Neither can one
    /// in a wildcard ISD-AS: on the ordinary Internet its host would be another one, or none.
    pub const fn reaches(self, peer: &Endpoint) -> bool {
        let placed = match self {
            Self::Ip4 | Self::Ip6 => peer.ia.is_none(),
            Self::Scion4 | Self::Scion6 | Self::Scion46 => !peer.ia.is_wildcard(),
        };
        placed && peer.addr.port() != 0
    }

    /// Splits a list into the peers of this layout; `None` if the length is not a multiple of the
    /// size.
    pub fn unpack(self, list: &[u8]) -> Option<Unpack<'_>> {
        list.len()
            .is_multiple_of(self.size())
            .then_some(Unpack { layout: self, list })
    }
}

/// Appends a peer to a list of [`Layout::Scion4`] or [`Layout::Scion6`], depending on its family.
pub fn push_scion(peer: &Peer<'_>, list: &mut Vec<u8>) {
    list.extend_from_slice(&peer.ia.to_u64().to_be_bytes());
    list.extend_from_slice(peer.addr.as_bytes());
}

/// Address of a peer, as a client parses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The ISD-AS, [`IsdAs::NONE`] for a peer on the ordinary Internet.
    pub ia: IsdAs,
    /// Address and port.
    pub addr: SocketAddr,
}

impl Endpoint {
    /// The host, without the port.
    pub fn host(&self) -> Host {
        Host::new(self.ia, self.addr.ip())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ia.is_none() {
            return self.addr.fmt(f);
        }
        write!(f, "{},[{}]:{}", self.ia, self.addr.ip(), self.addr.port())
    }
}

/// The peers of a compact list.
#[derive(Debug, Clone, Copy)]
pub struct Unpack<'a> {
    layout: Layout,
    list: &'a [u8],
}

impl Unpack<'_> {
    /// The layout of the list.
    pub const fn layout(&self) -> Layout {
        self.layout
    }
}

impl Iterator for Unpack<'_> {
    type Item = Endpoint;

    fn next(&mut self) -> Option<Endpoint> {
        let (peer, rest) = self.list.split_at_checked(self.layout.size())?;
        self.list = rest;
        let (ia, addr) = match self.layout {
            Layout::Ip4 | Layout::Ip6 => (IsdAs::NONE, peer),
            Layout::Scion4 | Layout::Scion6 | Layout::Scion46 => {
                let (ia, addr) = peer.split_first_chunk()?;
                (IsdAs::from_u64(u64::from_be_bytes(*ia)), addr)
            }
        };
        let packed = match self.layout {
            Layout::Ip4 | Layout::Scion4 => CompactAddr::V4(addr.try_into().ok()?),
            Layout::Ip6 | Layout::Scion6 | Layout::Scion46 => {
                CompactAddr::V6(addr.try_into().ok()?)
            }
        };
        let mut addr = packed.socket_addr();
        if self.layout == Layout::Scion46 {
            addr.set_ip(addr.ip().to_canonical());
        }
        Some(Endpoint { ia, addr })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.list.len() / self.layout.size();
        (count, Some(count))
    }
}

impl ExactSizeIterator for Unpack<'_> {}

/// The bytes of an address in the form of BEP 24: 4 or 16.
pub(crate) fn with_ip_bytes<T>(ip: IpAddr, then: impl FnOnce(&[u8]) -> T) -> T {
    match ip {
        IpAddr::V4(ip) => then(&ip.octets()),
        IpAddr::V6(ip) => then(&ip.octets()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::response::{AddrBytes, Reach};
    use crate::types::PeerId;

    fn pack(endpoint: &Endpoint) -> Vec<u8> {
        let packed = CompactAddr::new(endpoint.addr.ip(), endpoint.addr.port());
        let addr = match &packed {
            CompactAddr::V4(bytes) => AddrBytes::V4(bytes),
            CompactAddr::V6(bytes) => AddrBytes::V6(bytes),
        };
        let mut list = Vec::new();
        let peer = Peer {
            ia: endpoint.ia,
            reach: Reach::Scion,
            addr,
            id: &PeerId([0; 20]),
        };
        push_scion(&peer, &mut list);
        list
    }

    fn endpoint(ia: &str, addr: &str) -> Endpoint {
        Endpoint {
            ia: ia.parse().unwrap(),
            addr: addr.parse().unwrap(),
        }
    }

    #[test]
    fn scion_peers_snapshot() {
        assert_eq!(
            pack(&endpoint("1-ff00:0:110", "10.0.0.1:6881")),
            b"\x00\x01\xff\x00\x00\x00\x01\x10\x0a\x00\x00\x01\x1a\xe1"
        );
        assert_eq!(
            pack(&endpoint("64-559", "[2001:db8::1]:80")),
            b"\x00\x40\x00\x00\x00\x00\x02\x2f\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50"
        );
    }

    #[test]
    fn ip_peers_snapshot() {
        let list = b"\x0a\x00\x00\x01\x1a\xe1\x7f\x00\x00\x01\x00\x50";
        let peers: Vec<_> = Layout::Ip4.unpack(list).unwrap().collect();
        assert_eq!(
            peers,
            [
                endpoint("0-0", "10.0.0.1:6881"),
                endpoint("0-0", "127.0.0.1:80")
            ]
        );
    }

    #[test]
    fn every_length_is_unpacked_or_refused() {
        let bytes = [1; 120];
        for layout in [Layout::Ip4, Layout::Ip6, Layout::Scion4, Layout::Scion6] {
            for length in 0..bytes.len() {
                let peers = layout.unpack(&bytes[..length]);
                let expected = (length % layout.size() == 0).then_some(length / layout.size());
                assert_eq!(peers.map(|peers| peers.len()), expected);
                assert_eq!(peers.map(Iterator::count), expected);
            }
        }
    }

    #[test]
    fn peers_without_a_port_or_a_place_cannot_be_reached() {
        for (layout, peer, reached) in [
            (Layout::Ip4, endpoint("0-0", "192.0.2.1:1"), true),
            (Layout::Ip4, endpoint("0-0", "192.0.2.1:0"), false),
            (Layout::Scion4, endpoint("1-1", "10.0.0.1:1"), true),
            (Layout::Scion4, endpoint("1-1", "10.0.0.1:0"), false),
            (Layout::Scion4, endpoint("0-0", "10.0.0.1:1"), false),
            (Layout::Scion6, endpoint("1-0", "[::1]:1"), false),
            (Layout::Scion6, endpoint("0-ff00:0:110", "[::1]:1"), false),
        ] {
            assert_eq!(layout.reaches(&peer), reached, "{layout:?} {peer}");
        }
    }

    #[test]
    fn layout_is_by_network_and_family() {
        for (ia, ip, layout) in [
            ("0-0", "10.0.0.1", Layout::Ip4),
            ("0-0", "::ffff:10.0.0.1", Layout::Ip4),
            ("0-0", "::1", Layout::Ip6),
            ("1-1", "10.0.0.1", Layout::Scion4),
            ("1-1", "::1", Layout::Scion6),
        ] {
            let host = Host::new(ia.parse().unwrap(), ip.parse().unwrap());
            assert_eq!(Layout::of(&Origin::scion(host)), layout);
        }
    }

    proptest! {
        #[test]
        fn round_trips(ia: u64, ip: IpAddr, port: u16) {
            let endpoint = Endpoint {
                ia: IsdAs::from_u64(ia),
                addr: SocketAddr::new(ip.to_canonical(), port),
            };
            let layout = match Family::of(ip.to_canonical()) {
                Family::V4 => Layout::Scion4,
                Family::V6 => Layout::Scion6,
            };
            let bytes = pack(&endpoint);
            prop_assert_eq!(bytes.len(), layout.size());
            prop_assert_eq!(layout.unpack(&bytes).unwrap().collect::<Vec<_>>(), [endpoint]);
        }
    }
}
