//! The tracker under load, and the addresses that the load comes from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::time::SystemTime;

use scion_tracker_core::address::{AddressError, Host, IsdAs, ScionAddr};

use crate::client::{Scheme, TrackerUrl};

/// The protocol to a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Udp,
    Http,
    Https,
    Http3,
}

impl Over {
    pub(crate) const fn of(url: &TrackerUrl) -> Self {
        match (url.scheme(), url.scion()) {
            (Scheme::Udp, _) => Self::Udp,
            (Scheme::Http, _) => Self::Http,
            (Scheme::Https, None) => Self::Https,
            (Scheme::Https | Scheme::H3, _) => Self::Http3,
        }
    }
}

/// The name of the protocol for people.
pub(super) const fn transport(url: &TrackerUrl) -> &'static str {
    match (Over::of(url), url.scion()) {
        (Over::Udp, None) => "UDP",
        (Over::Udp, Some(_)) => "UDP over SCION",
        (Over::Http, _) => "HTTP/1.1",
        (Over::Https, _) => "HTTP/1.1 with TLS",
        (Over::Http3, None) => "HTTP/3",
        (Over::Http3, Some(_)) => "HTTP/3 over SCION",
    }
}

/// Resolves the first address of the host. Over SCION this is also the underlay address for
/// packets: they go to the tracker directly, not to a router.
pub(super) fn resolve(url: &TrackerUrl) -> io::Result<SocketAddr> {
    let found = (url.host(), url.port()).to_socket_addrs()?.next();
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// A source of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    /// The address that its sockets are bound to.
    pub(super) ip: IpAddr,
    /// Its SCION host, over SCION.
    pub(super) scion: Option<Host>,
}

/// Returns the address of source number `number`: each has its own in 127.1.0.0/16 and above
/// towards loopback over IPv4. Otherwise it is the one that the system chooses.
pub(super) fn source_ip(to: SocketAddr, number: u32) -> IpAddr {
    match to {
        SocketAddr::V4(to) if to.ip().is_loopback() => {
            Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number).into()
        }
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(to) if to.ip().is_loopback() => Ipv6Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Whether each source has its own address.
pub(super) fn has_many_sources(to: SocketAddr) -> bool {
    to.is_ipv4() && to.ip().is_loopback()
}

/// The address that packets to `to` leave from.
pub(super) fn local_ip(to: SocketAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((source_ip(to, 0), 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// Makes the bytes of a path from `from` to `to`. They are empty inside one AS. Otherwise the path
/// has one link, is well-formed, leads nowhere and was issued now. That suffices for servers that
/// answer to the underlay source of packets.
pub(super) fn path(from: IsdAs, to: IsdAs) -> Vec<u8> {
    if from == to {
        return Vec::new();
    }
    let issued = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let interface = from.to_u64().to_be_bytes()[7] | 1;
    // Meta header, and an info field in the direction of construction.
    let mut path = vec![0, 0, 0x20, 0, 1, 0, 0, 1];
    path.extend_from_slice(&(issued.as_secs() as u32).to_be_bytes());
    // Hop fields: egress of one AS, ingress of the other. Nothing checks their MACs.
    path.extend_from_slice(&[0, 63, 0, 0, 0, interface, 1, 2, 3, 4, 5, 6]);
    path.extend_from_slice(&[0, 63, 0, 1, 0, 0, 6, 5, 4, 3, 2, 1]);
    path
}

/// Reads `ISD-AS,[ip]`.
pub(crate) fn parse_host(text: &str) -> Result<Host, AddressError> {
    // The port does not matter: each connection has its own.
    let addr: ScionAddr = format!("{text}:1").parse()?;
    Ok(addr.host)
}

#[cfg(test)]
mod tests {
    use scion_tracker_core::codec::scion::Path;

    use super::*;

    #[test]
    fn sources_are_distinct_on_loopback() {
        let source = |to: &str, number| source_ip(to.parse().unwrap(), number).to_string();
        assert_eq!(source("127.0.0.1:1", 0), "127.1.0.1");
        assert_eq!(source("127.0.0.1:1", 300), "127.1.1.45");
        assert_eq!(source("[::1]:1", 3), "::1");
        assert_eq!(source("192.0.2.1:1", 3), "0.0.0.0");
    }

    #[test]
    fn paths_are_well_formed() {
        let ia = |text: &str| text.parse::<IsdAs>().unwrap();
        let (here, there) = (ia("1-ff00:0:110"), ia("2-ff00:0:210"));
        assert!(path(here, here).is_empty());
        assert_eq!(Path::parse(&path(here, there)).unwrap().links(), 1);
    }

    #[test]
    fn the_url_says_transport_and_underlay() {
        for (text, over, underlay) in [
            ("udp://127.0.0.1:6969/announce", "UDP", "127.0.0.1:6969"),
            (
                "https://127.0.0.1:6443",
                "HTTP/1.1 with TLS",
                "127.0.0.1:6443",
            ),
            ("h3://[::1]:6443/x", "HTTP/3", "[::1]:6443"),
            (
                "udp://[1-ff00:0:110,127.0.0.1]:31969/announce",
                "UDP over SCION",
                "127.0.0.1:31969",
            ),
            (
                "https://[1-ff00:0:110,::1]:31969",
                "HTTP/3 over SCION",
                "[::1]:31969",
            ),
        ] {
            let url: TrackerUrl = text.parse().unwrap();
            assert_eq!(transport(&url), over);
            assert_eq!(resolve(&url).unwrap().to_string(), underlay);
        }
    }

    #[test]
    fn hosts_have_no_port() {
        assert_eq!(
            parse_host("1-ff00:0:110,[10.0.0.1]").unwrap().to_string(),
            "1-ff00:0:110,10.0.0.1"
        );
        assert!(parse_host("1-ff00:0:110").is_err());
    }
}
