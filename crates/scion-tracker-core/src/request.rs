//! What is asked of the tracker, in types that cannot hold an invalid request, whatever the wire was.

mod passkey;

use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::address::{CompactAddr, Host, IsdAs, ScionAddr};
use crate::types::{InfoHash, PeerId};

pub use passkey::{Passkey, PasskeyError};

/// What the transport saw of the requester.
///
/// For SCION the packet's source, which has shown by the QUIC handshake or the UDP connection id that it
/// receives answers; for IP the socket's source, or the client that a trusted proxy named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The host; its ISD-AS is [`IsdAs::NONE`] for a request over plain IP.
    pub host: Host,
    /// How sure its ISD-AS is. Has no meaning without one.
    pub isd_as: OriginIsdAs,
}

/// How sure the ISD-AS of a request over SCION is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OriginIsdAs {
    /// The packet came from a border router of the own AS, which checks where packets come from, or from
    /// the very host inside the own AS.
    #[default]
    Proven,
    /// The packet says so. Whoever reaches the underlay port may have sent it.
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

/// Where a requester says that it is in SCION. Whether it is believed is decided by
/// [`place`](crate::place), not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Claim {
    /// `ia=ISD-AS`: "my SCION host is the IP that you see, in this ISD-AS". Never a wildcard.
    pub ia: Option<IsdAs>,
    /// `scion=1` or `scion=ISD-AS,[host]:port`.
    pub scion: ScionClaim,
}

/// The `scion` field of an announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScionClaim {
    /// Absent.
    #[default]
    Absent,
    /// `scion=1`: the requester reads `peers_scion4` and `peers_scion6`.
    Capable,
    /// `scion=ADDRESS`: it reads them, and can be reached there.
    At(ScionAddr),
}

impl Claim {
    /// Whether the requester speaks SCION at all, by its own word.
    pub fn is_scion(&self) -> bool {
        self.ia.is_some() || self.scion != ScionClaim::Absent
    }
}

/// The `event` of an announce (BEP 3, BEP 15; `paused` from BEP 21).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Event {
    /// A regular announce, and whatever event name is unknown.
    #[default]
    None,
    /// The first announce of a session.
    Started,
    /// The download has just been completed.
    Completed,
    /// The peer is leaving.
    Stopped,
    /// A partial seed: it has all that it wants but not everything (BEP 21).
    Paused,
}

/// An announce: a peer tells of itself and asks for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnounceRequest {
    /// The swarm.
    pub info_hash: InfoHash,
    /// What the peer calls itself.
    pub peer_id: PeerId,
    /// The port on which the peer listens.
    pub port: NonZeroU16,
    /// Bytes still to download; [`AnnounceRequest::LEFT_UNKNOWN`] if the client does not say. See
    /// [`AnnounceRequest::is_seeder`].
    pub left: u64,
    /// Bytes uploaded since `started`, by the peer's own word.
    pub uploaded: u64,
    /// Bytes downloaded since `started`, by the peer's own word.
    pub downloaded: u64,
    /// What has happened.
    pub event: Event,
    /// How many peers are wanted; `None` leaves it to the tracker.
    pub numwant: Option<u32>,
    /// The `key` by which a peer may prove itself. Never handed on to anybody.
    pub key: Option<u32>,
    /// Where the peer says it is in SCION.
    pub claim: Claim,
    /// `ip=`, `ipv4=`, `ipv6=`, or the address field of BEP 15: heeded from trusted prefixes only.
    pub named_ip: Option<IpAddr>,
    /// The passkey in the tracker's URL, read only by a private tracker. Clients write it as a part
    /// of the URL.
    pub passkey: Option<Passkey>,
}

impl AnnounceRequest {
    /// `left` of a client that does not know the length of its torrent, as with magnet links. Some
    /// clients send this value themselves, others leave the field out or send something unreadable.
    pub const LEFT_UNKNOWN: u64 = u64::MAX;

    /// Whether the peer has everything, by its own word: nothing is left, or it does not say what is
    /// left and has just completed.
    pub const fn is_seeder(&self) -> bool {
        match self.left {
            0 => true,
            Self::LEFT_UNKNOWN => matches!(self.event, Event::Completed),
            _ => false,
        }
    }

    /// A regular announce with nothing optional in it.
    pub const fn new(info_hash: InfoHash, peer_id: PeerId, port: NonZeroU16, left: u64) -> Self {
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

/// Which peers the form of the reply has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// Peers of either family, over IP and SCION (HTTP).
    All,
    /// One list of one family and of the requester's own network, IP or SCION (BEP 15).
    One(Family),
}
