//! Who is asked, and from where.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::time::SystemTime;

use scion_tracker_core::address::{AddressError, Host, IsdAs, ScionAddr};

use crate::client::{Scheme, TrackerUrl};

/// Over what a tracker is asked.
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

/// What a tracker is asked over, for people.
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

/// The first address of the host. Over SCION that is where packets go on the underlay, too: to the
/// tracker itself and to no router.
pub(super) fn resolve(url: &TrackerUrl) -> io::Result<SocketAddr> {
    let found = (url.host(), url.port()).to_socket_addrs()?.next();
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// From where a source address talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    /// The address that its sockets are bound to.
    pub(super) ip: IpAddr,
    /// Over SCION, who it is.
    pub(super) scion: Option<Host>,
}

/// Source number `number`: an address of its own in 127.1.0.0/16 and above towards loopback over IPv4,
/// else the one that the system picks.
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

/// Whether each source number has an address of its own.
pub(super) fn has_many_sources(to: SocketAddr) -> bool {
    to.is_ipv4() && to.ip().is_loopback()
}

/// The address that packets to `to` leave from.
pub(super) fn local_ip(to: SocketAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((source_ip(to, 0), 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// The bytes of a path from `from` to `to`: none inside one AS, else one link that leads nowhere but is
/// well formed, issued now. Servers that answer where packets come from need no more.
pub(super) fn path(from: IsdAs, to: IsdAs) -> Vec<u8> {
    if from == to {
        return Vec::new();
    }
    let issued = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let interface = from.to_u64().to_be_bytes()[7] | 1;
    // Meta, and an info field in the direction of construction.
    let mut path = vec![0, 0, 0x20, 0, 1, 0, 0, 1];
    path.extend_from_slice(&(issued.as_secs() as u32).to_be_bytes());
    // Hop fields: egress of the one AS, ingress of the other, with MACs that nobody looks at.
    path.extend_from_slice(&[0, 63, 0, 0, 0, interface, 1, 2, 3, 4, 5, 6]);
    path.extend_from_slice(&[0, 63, 0, 1, 0, 0, 6, 5, 4, 3, 2, 1]);
    path
}

/// Reads `ISD-AS,[ip]`.
pub(crate) fn parse_host(text: &str) -> Result<Host, AddressError> {
    // Any port will do: each connection has its own.
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
