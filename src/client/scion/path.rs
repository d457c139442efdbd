//! The properties and the order of paths to an AS.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use scion_tracker_core::address::IsdAs;

use super::Acl;
use crate::scion::daemon::DaemonPath;
use crate::scion::socket::MIN_PAYLOAD;

/// A path that expires within this time is not used for a new request.
const EXPIRING: Duration = Duration::from_secs(10);
/// Header bytes of a packet without its path and its host addresses: common header, two ISD-ASes, UDP.
const HEADERS: usize = 12 + 16 + 8;

/// An interface of an AS where a path enters or leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathInterface {
    /// The AS.
    pub ia: IsdAs,
    /// The number of the interface in its AS.
    pub id: u16,
}

impl fmt::Display for PathInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.ia, self.id)
    }
}

/// Whether a path is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PathStatus {
    /// The path is used. Whether it works shows when it is used.
    Usable,
    /// The policy denies it.
    Denied,
    /// It has expired or is about to expire.
    Expired,
}

impl fmt::Display for PathStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Usable => "usable",
            Self::Denied => "denied",
            Self::Expired => "expired",
        })
    }
}

/// A path to a tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScionPath {
    interfaces: Vec<PathInterface>,
    mtu: Option<u16>,
    expiry: Option<SystemTime>,
    latency: Option<Duration>,
    status: PathStatus,
    raw: Box<[u8]>,
    next_hop: SocketAddr,
    /// Length of the packets that open a QUIC connection, in bytes with SCION headers.
    quic_packet: usize,
}

impl ScionPath {
    /// The path to a host of our own AS.
    pub(super) fn inside(next_hop: SocketAddr) -> Self {
        Self {
            interfaces: Vec::new(),
            mtu: None,
            expiry: None,
            latency: None,
            status: PathStatus::Usable,
            raw: Box::default(),
            next_hop,
            quic_packet: quic_packet(next_hop.ip(), next_hop.ip(), 0),
        }
    }

    fn new(path: DaemonPath, to: IpAddr, acl: &Acl, now: SystemTime) -> Self {
        let interfaces = path.interfaces.into_iter();
        let interfaces: Vec<_> = interfaces
            .map(|(ia, id)| PathInterface { ia, id })
            .collect();
        let status = if !acl.allows(&interfaces) {
            PathStatus::Denied
        } else if path.expiry < now + EXPIRING {
            PathStatus::Expired
        } else {
            PathStatus::Usable
        };
        Self {
            interfaces,
            mtu: Some(path.mtu).filter(|mtu| *mtu > 0),
            expiry: Some(path.expiry),
            latency: path.latency,
            status,
            // Our address has the IP version of the router.
            quic_packet: quic_packet(path.next_hop.ip(), to, path.raw.len()),
            raw: path.raw,
            next_hop: path.next_hop,
        }
    }

    /// The interfaces along the path: out of our AS, into the next one, and so on. Empty inside our
    /// own AS.
    pub fn interfaces(&self) -> &[PathInterface] {
        &self.interfaces
    }

    /// Longest packet in bytes, including its SCION header, if known.
    pub const fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    /// Expiry of the path. `None` inside our own AS, where paths do not expire.
    pub const fn expiry(&self) -> Option<SystemTime> {
        self.expiry
    }

    /// One-way latency, if all ASes on the path announce theirs.
    pub const fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// The border router that forwards the packets, or the host itself inside our own AS.
    pub const fn next_hop(&self) -> SocketAddr {
        self.next_hop
    }

    /// Whether the path is used.
    pub const fn status(&self) -> PathStatus {
        self.status
    }

    /// The path and the next hop for the SCION socket.
    pub(super) fn route(&self) -> (&[u8], SocketAddr) {
        (&self.raw, self.next_hop)
    }

    pub(super) fn expires_soon(&self, now: SystemTime) -> bool {
        self.expiry.is_some_and(|expiry| expiry < now + EXPIRING)
    }

    /// Whether the path goes through this interface.
    pub(super) fn crosses(&self, interface: PathInterface) -> bool {
        self.interfaces.contains(&interface)
    }

    /// Number of interfaces that are also on another path.
    pub(super) fn shared_with(&self, other: &Self) -> usize {
        let shared = self.interfaces.iter().filter(|it| other.crosses(**it));
        shared.count()
    }

    /// The MTU in bytes that QUIC needs, if that of the path is smaller. Requests over HTTP/3 then
    /// work only where routers fragment the underlay, as those of scionproto do on links of their own.
    pub fn too_small_for_quic(&self) -> Option<usize> {
        let mtu = usize::from(self.mtu?);
        (mtu < self.quic_packet).then_some(self.quic_packet)
    }
}

impl fmt::Display for ScionPath {
    /// Formats a path like SCION's own tools: `1-ff00:0:110 1>2 1-ff00:0:120 3>4 2-ff00:0:210`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, link) in self.interfaces.chunks(2).enumerate() {
            let [out, into] = link else {
                break;
            };
            if nth == 0 {
                write!(f, "{}", out.ia)?;
            }
            write!(f, " {}>{} {}", out.id, into.id, into.ia)?;
        }
        Ok(())
    }
}

/// Length of the packets that open a QUIC connection between these hosts over a path of this length.
fn quic_packet(from: IpAddr, to: IpAddr, path: usize) -> usize {
    let length = |ip: IpAddr| if ip.is_ipv4() { 4 } else { 16 };
    HEADERS + length(from) + length(to) + path + usize::from(MIN_PAYLOAD)
}

/// Sorts paths to this host: those that carry QUIC packets first, then the shortest, then the fastest. The order
/// of the same paths is always the same.
pub(super) fn in_order(
    paths: Vec<DaemonPath>,
    to: IpAddr,
    acl: &Acl,
    now: SystemTime,
) -> Vec<ScionPath> {
    let paths = paths.into_iter();
    let mut paths: Vec<_> = paths
        .map(|path| ScionPath::new(path, to, acl, now))
        .collect();
    paths.sort_by(|one, two| {
        let key = |path: &ScionPath| {
            let slow = path.latency.unwrap_or(Duration::MAX);
            (
                path.too_small_for_quic().is_some(),
                path.interfaces.len(),
                slow,
            )
        };
        key(one)
            .cmp(&key(two))
            .then_with(|| one.interfaces.cmp(&two.interfaces))
    });
    paths
}

#[cfg(test)]
pub(in crate::client::scion) mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// A host in the other AS.
    pub(in crate::client::scion) const TO: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    pub(in crate::client::scion) fn interface(text: &str) -> PathInterface {
        let (ia, id) = text.split_once('#').unwrap();
        PathInterface {
            ia: ia.parse().unwrap(),
            id: id.parse().unwrap(),
        }
    }

    pub(in crate::client::scion) fn path(
        mtu: u16,
        latency: Option<u64>,
        interfaces: &[&str],
    ) -> DaemonPath {
        let interfaces = interfaces.iter().map(|text| interface(text));
        DaemonPath {
            raw: vec![0; 36].into(),
            next_hop: "127.0.0.1:1".parse().unwrap(),
            interfaces: interfaces.map(|it| (it.ia, it.id)).collect(),
            mtu,
            expiry: SystemTime::UNIX_EPOCH + Duration::from_secs(1000),
            latency: latency.map(Duration::from_millis),
        }
    }

    #[test]
    fn the_shortest_and_fastest_path_is_the_first() {
        let long = ["1-1#1", "1-2#2", "1-2#3", "2-2#4"];
        let paths = vec![
            path(1279, Some(1), &["1-1#9", "2-2#9"]),
            path(1472, Some(1), &long),
            path(1472, None, &["1-1#3", "2-2#3"]),
            path(0, Some(20), &["1-1#4", "2-2#4"]),
            path(1472, Some(10), &["1-1#5", "2-2#5"]),
            path(1472, Some(20), &["1-1#2", "2-2#2"]),
        ];
        let now = SystemTime::UNIX_EPOCH;
        let shown: Vec<_> = in_order(paths, TO, &Acl::default(), now)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            shown,
            [
                "1-1 5>5 2-2",
                "1-1 2>2 2-2",
                "1-1 4>4 2-2",
                "1-1 3>3 2-2",
                "1-1 1>2 1-2 3>4 2-2",
                "1-1 9>9 2-2",
            ]
        );
    }

    #[test]
    fn a_path_may_be_too_small_for_quic() {
        // 12 + 16 + 8 + 8 bytes of headers, and a path of 36.
        for (mtu, to, needed) in [
            (0, TO, None),
            (1280, TO, None),
            (1279, TO, Some(1280)),
            (1280, Ipv6Addr::LOCALHOST.into(), Some(1292)),
        ] {
            let path = path(mtu, None, &["1-1#1", "2-2#1"]);
            let now = SystemTime::UNIX_EPOCH;
            let found = in_order(vec![path], to, &Acl::default(), now);
            assert_eq!(found[0].too_small_for_quic(), needed, "{mtu}, {to}");
        }
        let near = ScionPath::inside("127.0.0.1:1".parse().unwrap());
        assert_eq!(near.too_small_for_quic(), None);
    }

    #[test]
    fn a_path_may_be_denied_or_expired() {
        let acl: Acl = "- 1-1#2, +".parse().unwrap();
        let paths = || {
            vec![
                path(1472, None, &["1-1#1", "2-2#1"]),
                path(1472, None, &["1-1#2", "2-2#1"]),
            ]
        };
        let status = |secs| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
            in_order(paths(), TO, &acl, now)
                .iter()
                .map(ScionPath::status)
                .collect::<Vec<_>>()
        };
        assert_eq!(status(990), [PathStatus::Usable, PathStatus::Denied]);
        assert_eq!(status(991), [PathStatus::Expired, PathStatus::Denied]);
    }
}
