//! The properties and the order of paths to an AS.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use scion_tracker_core::address::IsdAs;

use super::Acl;
use crate::scion::daemon::DaemonPath;
use crate::scion::socket::MIN_PAYLOAD;

/// A path that expires within this time is not used for a new request.
const EXPIRING: Duration = Duration::from_secs(10);
/// Most header bytes of a packet without its path: common header, addresses of two IPv6 hosts, UDP.
const HEADERS: usize = 12 + 16 + 32 + 8;

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
        }
    }

    fn new(path: DaemonPath, acl: &Acl, now: SystemTime) -> Self {
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

    /// Whether the smallest packets of a QUIC handshake fit.
    fn takes_quic(&self) -> bool {
        let longest = HEADERS + self.raw.len() + usize::from(MIN_PAYLOAD);
        self.mtu.is_none_or(|mtu| longest <= mtu.into())
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

/// Sorts paths: those that carry QUIC packets first, then the shortest, then the fastest. The order
/// of the same paths is always the same.
pub(super) fn in_order(paths: Vec<DaemonPath>, acl: &Acl, now: SystemTime) -> Vec<ScionPath> {
    let paths = paths.into_iter();
    let mut paths: Vec<_> = paths.map(|path| ScionPath::new(path, acl, now)).collect();
    paths.sort_by(|one, two| {
        let key = |path: &ScionPath| {
            let slow = path.latency.unwrap_or(Duration::MAX);
            (!path.takes_quic(), path.interfaces.len(), slow)
        };
        key(one)
            .cmp(&key(two))
            .then_with(|| one.interfaces.cmp(&two.interfaces))
    });
    paths
}

#[cfg(test)]
pub(in crate::client::scion) mod tests {
    use super::*;

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
            path(1300, Some(1), &["1-1#9", "2-2#9"]),
            path(1472, Some(1), &long),
            path(1472, None, &["1-1#3", "2-2#3"]),
            path(0, Some(20), &["1-1#4", "2-2#4"]),
            path(1472, Some(10), &["1-1#5", "2-2#5"]),
            path(1472, Some(20), &["1-1#2", "2-2#2"]),
        ];
        let now = SystemTime::UNIX_EPOCH;
        let shown: Vec<_> = in_order(paths, &Acl::default(), now)
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
            in_order(paths(), &acl, now)
                .iter()
                .map(ScionPath::status)
                .collect::<Vec<_>>()
        };
        assert_eq!(status(990), [PathStatus::Usable, PathStatus::Denied]);
        assert_eq!(status(991), [PathStatus::Expired, PathStatus::Denied]);
    }
}
