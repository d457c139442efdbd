//! The answers of the tracker: peers, counts, refusals. Codecs encode them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::{CompactAddr, Host, IsdAs};
use crate::types::PeerId;

/// The network that reaches a peer at its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Only plain IP.
    Ip,
    /// Only SCION: the IP address is inside its AS and has no meaning elsewhere.
    Scion,
    /// Both, at the same IP address and port.
    Both,
}

impl Reach {
    /// Whether plain IP reaches the peer.
    pub const fn over_ip(self) -> bool {
        matches!(self, Self::Ip | Self::Both)
    }

    /// Whether SCION reaches the peer.
    pub const fn over_scion(self) -> bool {
        matches!(self, Self::Scion | Self::Both)
    }
}

/// A peer's address and port in network byte order, borrowed from the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddrBytes<'a> {
    /// 4 bytes of address, 2 of port.
    V4(&'a [u8; 6]),
    /// 16 bytes of address, 2 of port.
    V6(&'a [u8; 18]),
}

impl<'a> AddrBytes<'a> {
    /// The bytes in the order of replies.
    pub const fn as_bytes(&self) -> &'a [u8] {
        match self {
            Self::V4(bytes) => *bytes,
            Self::V6(bytes) => *bytes,
        }
    }

    /// An owned copy.
    pub const fn to_compact(&self) -> CompactAddr {
        match *self {
            Self::V4(bytes) => CompactAddr::V4(*bytes),
            Self::V6(bytes) => CompactAddr::V6(*bytes),
        }
    }

    /// Whether this equals that address and port.
    #[inline]
    pub fn is(&self, addr: &CompactAddr) -> bool {
        match (self, addr) {
            (Self::V4(bytes), CompactAddr::V4(others)) => *bytes == others,
            (Self::V6(bytes), CompactAddr::V6(others)) => *bytes == others,
            _ => false,
        }
    }

    /// The address.
    pub fn ip(&self) -> IpAddr {
        match *self {
            Self::V4(&[a, b, c, d, _, _]) => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            Self::V6(bytes) => {
                let mut octets = [0; 16];
                octets.copy_from_slice(&bytes[..16]);
                IpAddr::V6(Ipv6Addr::from(octets))
            }
        }
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        u16::from_be_bytes(self.port_bytes())
    }

    /// The port, in network byte order.
    pub(crate) const fn port_bytes(&self) -> [u8; 2] {
        match *self {
            Self::V4(&[.., high, low]) | Self::V6(&[.., high, low]) => [high, low],
        }
    }
}

/// One peer of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer<'a> {
    /// Its ISD-AS, [`IsdAs::NONE`] if unknown.
    pub ia: IsdAs,
    /// How it can be reached.
    pub reach: Reach,
    /// Its address and port.
    pub addr: AddrBytes<'a>,
    /// Its peer id.
    pub id: &'a PeerId,
}

/// Receives the peers of a reply, in the order of the reply, while the registry's lock is held:
/// copy and return. Codecs implement it by appending to the reply.
pub trait PeerSink {
    /// Adds a peer.
    fn push(&mut self, peer: Peer<'_>);

    /// Where IPv4 peers can be written without [`PeerSink::push`], if the reply lists each of them as such a row
    /// or not at all. After that, call [`PeerSink::filled`].
    fn rows(&mut self) -> Option<Rows<'_>> {
        None
    }

    /// Adds the peers that stand in this many of the first [`PeerSink::rows`].
    fn filled(&mut self, _rows: usize) {}
}

/// The free rows of a compact list.
#[derive(Debug)]
pub enum Rows<'a> {
    /// Address 4, port 2: peers that plain IP reaches (BEP 15, BEP 23).
    Ip(&'a mut [[u8; 6]]),
    /// ISD-AS 8, address 4, port 2: peers that SCION reaches (docs/bittorrent-scion-peers.md).
    Scion(&'a mut [[u8; 14]]),
}

/// Drops the peers, for announces that want none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPeers;

impl PeerSink for NoPeers {
    fn push(&mut self, _: Peer<'_>) {}
}

/// The counts of a whole swarm, as in announce and scrape replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SwarmCounts {
    /// Seeds: `complete`.
    pub seeders: u32,
    /// Leechers, including partial seeds: `incomplete`.
    pub leechers: u32,
    /// Leechers without partial seeds: `downloaders` (BEP 21).
    pub downloaders: u32,
    /// Completed downloads, counted once per peer, also of peers that have left: `downloaded`.
    pub completed: u32,
}

/// An announce reply except its peers, which went to the [`PeerSink`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnounceReply {
    /// Counts of the swarm, including the requester.
    pub counts: SwarmCounts,
    /// Seconds until the next regular announce, with jitter.
    pub interval: u32,
    /// Minimum number of seconds between two announces.
    pub min_interval: u32,
    /// Address of the requester as the tracker sees it: `external ip` (BEP 24).
    pub observed: Host,
    /// A message for the requester, although it was served.
    pub warning: Option<Warning>,
}

/// A message in an otherwise complete reply: `warning message`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Warning {
    /// A claimed place was not believed, because the policy ignores claims or the operator's table
    /// differs.
    ClaimIgnored,
    /// A `scion` address with a host other than the observed one was not believed.
    ScionHostUntrusted,
}

impl Warning {
    /// The text for the client.
    pub const fn message(self) -> &'static str {
        match self {
            Self::ClaimIgnored => "claimed ISD-AS ignored by this tracker's place policy",
            Self::ScionHostUntrusted => {
                "claimed SCION address ignored: its host is not the one this tracker sees"
            }
        }
    }
}

/// Defines the refusals, their list, labels and texts in one table, so that a refusal without a
/// counter label, a text for the client and a time to try again does not compile.
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $text:literal, retry in $minutes:expr;)*) => {
        /// Why a well-formed request is not served. Flat and `Copy`, and counted by variant.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
        #[non_exhaustive]
        pub enum Refusal { $($(#[$doc])* #[error($text)] $name,)* }

        impl Refusal {
            /// Every variant, in the order of [`Refusal::index`].
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The position in [`Refusal::ALL`], for arrays of counters.
            pub const fn index(self) -> usize {
                self as usize
            }

            /// A stable name for counters and logs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// The text for the client, same as `Display`.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The time after which it makes sense to try again, in minutes (BEP 31 `retry in`).
            /// `None` if it is unknown.
            pub const fn retry_in_minutes(self) -> Option<u32> {
                match self { $(Self::$name => $minutes,)* }
            }
        }
    };
}

refusals! {
    /// The limit of torrents is reached, and none of them is idle.
    TorrentLimit = "torrent_limit", "tracker is full: too many torrents", retry in Some(30);
    /// The limit of peers in this swarm is reached.
    SwarmLimit = "swarm_limit", "swarm is full", retry in Some(60);
    /// The limit of peers of this host is reached.
    SourceLimit = "source_limit", "too many peers from your address", retry in Some(60);
    /// The limit of peers of this host in this swarm is reached.
    HostInSwarmLimit = "host_in_swarm_limit",
        "too many peers of this torrent from your address", retry in Some(60);
    /// The limit of memory is reached.
    MemoryLimit = "memory_limit", "tracker is full: out of memory", retry in Some(30);
    /// The request came through a trusted proxy that did not name the client.
    HiddenClient = "hidden_client",
        "the tracker's proxy does not pass on your address", retry in None;
    /// The tracker is private, and the URL has no passkey.
    PasskeyMissing = "passkey_missing",
        "this tracker is private: use the announce URL with your passkey", retry in None;
    /// The tracker is private and does not know the passkey.
    PasskeyUnknown = "passkey_unknown",
        "passkey unknown or expired: get a new announce URL where you got this one", retry in None;
    /// The tracker serves listed torrents only, and this one is not listed.
    TorrentUnlisted = "torrent_unlisted",
        "this tracker serves only listed torrents, and this one is not listed", retry in None;
    /// The torrent is on the deny list.
    TorrentDenied = "torrent_denied", "this tracker does not serve this torrent", retry in None;
    /// The torrent is isolated, and the requester is not inside its ISDs.
    TorrentIsolated = "torrent_isolated",
        "this torrent is handed out only inside certain ISDs: announce over SCION from one of them",
        retry in None;
    /// The torrent is isolated, and the requester only claims a place inside its ISDs.
    PlaceUnproven = "place_unproven",
        "this torrent is handed out only to proven members of certain ISDs: announce over SCION",
        retry in None;
    /// Rules of the tracker or the torrent deny the network of the requester.
    NetworkDenied = "network_denied", "not served to your network", retry in None;
    /// Rules of the tracker or the torrent deny the client.
    ClientDenied = "client_denied",
        "not served to this BitTorrent client: use another one", retry in None;
    /// Rules of the tracker or the torrent deny the ISD-AS of the requester.
    PlaceDenied = "place_denied",
        "not served to your ISD-AS, or to clients without one", retry in None;
    /// The host or its network is banned.
    HostBanned = "host_banned", "your address is banned from this tracker", retry in None;
    /// The host has sent too many announces.
    RateLimit = "rate_limit",
        "too many announces from your address: try again in a minute", retry in Some(1);
}
