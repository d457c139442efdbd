//! The requests to the tracker, in types that cannot be invalid, for all transports.

mod passkey;

use std::net::IpAddr;

use crate::address::{CompactAddr, Host, IsdAs, ScionAddr};
use crate::types::{InfoHash, PeerId};

pub use passkey::{Passkey, PasskeyError};

/// The requester, as the transport sees it.
///
/// Over SCION it is the source of the packet. The QUIC handshake or the UDP connection id has
/// proven that it receives answers. Over IP it is the source of the socket, or the client that a
/// trusted proxy named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The host. Its ISD-AS is [`IsdAs::NONE`] for a request over plain IP.
    pub host: Host,
    /// Whether its ISD-AS is proven. Has no meaning without one.
    pub isd_as: OriginIsdAs,
}

/// Whether the ISD-AS of a request over SCION is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OriginIsdAs {
    /// The packet came from a border router of our AS, which checks the source AS of packets, or
    /// from the host itself inside our AS.
    #[default]
    Proven,
    /// Only the packet states it. Anyone who reaches the underlay port may have sent it.
    Claimed,
}

impl Origin {
    /// A request over plain IP.
    pub fn ip(ip: IpAddr) -> Self {
        Self {
            host: Host::ip_only(ip),
            isd_as: OriginIsdAs::Proven,
        }
    }

    /// A request over SCION whose ISD-AS is proven.
    pub const fn scion(host: Host) -> Self {
        Self {
            host,
            isd_as: OriginIsdAs::Proven,
        }
    }

    /// Whether the request came over SCION.
    pub const fn is_scion(&self) -> bool {
        !self.host.ia.is_none()
    }
}

/// The SCION address that a requester claims. [`place`](crate::place) decides whether to believe
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Claim {
    /// `ia=ISD-AS`: "my SCION host is the IP address that you see, in this ISD-AS". Never a
    /// wildcard.
    pub ia: Option<IsdAs>,
    /// `scion=1` or `scion=ISD-AS,[host]:port`.
    pub scion: ScionClaim,
}

/// The `scion` field of an announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScionClaim {
    /// The field is missing.
    #[default]
    Absent,
    /// `scion=1`: the requester reads `peers_scion4` and `peers_scion6`.
    Capable,
    /// `scion=ADDRESS`: the requester reads these lists, and other peers reach it at this address.
    At(ScionAddr),
}

impl Claim {
    /// Whether the requester claims to use SCION.
    pub fn is_scion(&self) -> bool {
        self.ia.is_some() || self.scion != ScionClaim::Absent
    }
}

/// The `event` of an announce (BEP 3, BEP 15; `paused` from BEP 21).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Event {
    /// A regular announce, or an unknown event.
    #[default]
    None,
    /// The first announce of a session.
    Started,
    /// The download is complete.
    Completed,
    /// The peer leaves the swarm.
    Stopped,
    /// A partial seed: has all the pieces it wants, but not the whole torrent (BEP 21).
    Paused,
}

/// An announce: a peer reports its state and asks for other peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnounceRequest {
    /// The swarm.
    pub info_hash: InfoHash,
    /// The id of the peer.
    pub peer_id: PeerId,
    /// Port the peer listens on. Zero if it accepts no connections: it is given peers, but it is not
    /// stored (see [`Tracker::announce`](crate::Tracker::announce)).
    pub port: u16,
    /// Bytes left to download, or [`AnnounceRequest::LEFT_UNKNOWN`]. See
    /// [`AnnounceRequest::is_seeder`].
    pub left: u64,
    /// Bytes uploaded since `started`, as reported by the peer.
    pub uploaded: u64,
    /// Bytes downloaded since `started`, as reported by the peer.
    pub downloaded: u64,
    /// What happened.
    pub event: Event,
    /// Number of peers wanted. `None` leaves it to the tracker.
    pub numwant: Option<u32>,
    /// The `key` that identifies a client across addresses. Never handed out.
    pub key: Option<u32>,
    /// The SCION address that the peer claims.
    pub claim: Claim,
    /// `ip=`, `ipv4=`, `ipv6=`, or the address field of BEP 15. Used from trusted prefixes only.
    pub named_ip: Option<IpAddr>,
    /// The passkey in the URL, used only by a private tracker. Clients send it as a part of the
    /// URL.
    pub passkey: Option<Passkey>,
}

impl AnnounceRequest {
    /// `left` of a client that does not know the length of its torrent, as with magnet links. Some
    /// clients send this value. Others leave the field out or send an invalid one.
    pub const LEFT_UNKNOWN: u64 = u64::MAX;

    /// Whether the peer reports that it has everything: nothing is left, or `left` is unknown and
    /// it has just completed.
    pub const fn is_seeder(&self) -> bool {
        match self.left {
            0 => true,
            Self::LEFT_UNKNOWN => matches!(self.event, Event::Completed),
            _ => false,
        }
    }

    /// A regular announce without optional fields.
    pub const fn new(info_hash: InfoHash, peer_id: PeerId, port: u16, left: u64) -> Self {
        Self {
            info_hash,
            peer_id,
            port,
            left,
            uploaded: 0,
            downloaded: 0,
            event: Event::None,
            numwant: None,
            key: None,
            claim: Claim {
                ia: None,
                scion: ScionClaim::Absent,
            },
            named_ip: None,
            passkey: None,
        }
    }
}

/// What a peer is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerKey {
    /// The swarm.
    pub info_hash: InfoHash,
    /// The place, [`IsdAs::NONE`] if it has none.
    pub ia: IsdAs,
    /// Address and port.
    pub addr: CompactAddr,
}

/// An IP address family, by which compact peer lists are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4 hosts.
    V4,
    /// IPv6 hosts.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The peer lists that a reply can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// Peers of either family, over IP and SCION (HTTP; BEP 15 over SCION with `scion46=1`).
    All,
    /// One list of one family, on the network of the requester: IP or SCION (BEP 15).
    One(Family),
}
