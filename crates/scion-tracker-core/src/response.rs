//! What the tracker answers: peers, counts, refusals. Codecs turn them into bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::{CompactAddr, Host, IsdAs};
use crate::types::PeerId;

/// The network over which a peer can be reached at its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Only over the ordinary Internet.
    Ip,
    /// Only over SCION: the IP address is inside its AS and has no meaning elsewhere.
    Scion,
    /// Over both, at the same IP and port.
    Both,
}

impl Reach {
    /// Whether the peer can be reached over the ordinary Internet.
    pub const fn over_ip(self) -> bool {
        matches!(self, Self::Ip | Self::Both)
    }

    /// Whether the peer can be reached over SCION.
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
    /// The bytes as they go on the wire.
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
        match *self {
            Self::V4(&[.., high, low]) | Self::V6(&[.., high, low]) => {
                u16::from_be_bytes([high, low])
            }
        }
    }
}

/// One peer of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer<'a> {
    /// Its place, [`IsdAs::NONE`] if unknown.
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
    /// Least seconds between two announces.
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

/// Makes the enum of refusals, its list, labels and texts from one table, so that a refusal without a
/// counter label, a text for the client and a time to come back does not compile.
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

            /// What the client may read: the same text as `Display`.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// After how many minutes it makes sense to come back (BEP 31 `retry in`), where that can
            /// be said.
            pub const fn retry_in_minutes(self) -> Option<u32> {
                match self { $(Self::$name => $minutes,)* }
            }
        }
    };
}

refusals! {
    /// As many torrents as allowed, and none of them idle.
    TorrentLimit = "torrent_limit", "tracker is full: too many torrents", retry in Some(30);
    /// As many peers in this swarm as allowed.
    SwarmLimit = "swarm_limit", "swarm is full", retry in Some(60);
    /// As many peers of this host as allowed.
    SourceLimit = "source_limit", "too many peers from your address", retry in Some(60);
    /// As many peers of this host in this swarm as allowed.
    HostInSwarmLimit = "host_in_swarm_limit",
        "too many peers of this torrent from your address", retry in Some(60);
    /// All the memory allowed is in use.
    MemoryLimit = "memory_limit", "tracker is full: out of memory", retry in Some(30);
    /// The request came through a proxy of the tracker's that did not name the client.
    HiddenClient = "hidden_client",
        "the tracker's proxy does not pass on your address", retry in None;
    /// A private tracker, and no passkey in the tracker's URL.
    PasskeyMissing = "passkey_missing",
        "this tracker is private: use the announce URL with your passkey", retry in None;
    /// A private tracker, and a passkey that it does not know.
    PasskeyUnknown = "passkey_unknown", "passkey unknown or expired", retry in None;
}
