//! Who a request is from when it comes through a reverse proxy.
//!
//! A proxy is believed only when the connection itself comes from one of the listener's configured
//! prefixes; the same headers from anybody else are ignored.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use proxy_header::{Error, ParseConfig, ProxyHeader};
use scion_tracker_core::request::Origin;

/// The longest PROXY protocol header that is read: the fixed part, IPv6 addresses and some
/// extensions.
pub(crate) const PROXY_HEADER_BYTES: usize = 1024;

/// The proxies of one listener.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies {
    /// Where they are.
    pub(crate) prefixes: Vec<IpNet>,
    /// Whether they begin each connection with a PROXY protocol header, version 1 or 2.
    pub(crate) proxy_protocol: bool,
}

impl Proxies {
    /// Whether this is one of them.
    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.prefixes.iter().any(|net| net.contains(&ip))
    }
}

/// What the start of a connection says in a PROXY protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proxied {
    /// Not all of it is there yet.
    Incomplete,
    /// It is no such header.
    Invalid,
    /// `length` bytes of header. `client` is `None` for a connection of the proxy's own (a health
    /// check), and for one that is not over IP.
    Header {
        length: usize,
        client: Option<SocketAddr>,
    },
}

/// Reads a PROXY protocol header
/// ([specification](https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt)).
pub(crate) fn read_proxy_header(bytes: &[u8]) -> Proxied {
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    match ProxyHeader::parse(bytes, config) {
        Ok((header, length)) => Proxied::Header {
            length,
            client: header.proxied_address().map(|proxied| proxied.source),
        },
        Err(Error::BufferTooShort) => Proxied::Incomplete,
        Err(_) => Proxied::Invalid,
    }
}

/// `Forwarded` and `X-Forwarded-For` name two different clients. One of them is what the client
/// itself sent and the proxy let through; which, is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contradiction;

/// The way a request came, as proxies noted it in its headers.
#[derive(Debug)]
pub(crate) struct Hops<'a> {
    proxies: &'a Proxies,
    forwarded: Trail,
    x_forwarded_for: Trail,
}

/// The client by one of the two headers, as far as it has been read, from left to right: the
/// right-most hop that is not a trusted proxy. Whoever sent the request wrote what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trail {
    Absent,
    /// Only trusted hops so far, and the first of them.
    Trusted(IpAddr),
    /// A hop that is not trusted: an address, or `unknown`, a made-up name, garbage.
    Client(Option<IpAddr>),
}

impl Trail {
    fn push(&mut self, hop: Option<IpAddr>, proxies: &Proxies) {
        *self = match (hop, *self) {
            (Some(ip), Self::Absent) if proxies.trusts(ip) => Self::Trusted(ip),
            (Some(ip), trail) if proxies.trusts(ip) => trail,
            _ => Self::Client(hop),
        };
    }

    fn client(self) -> Option<IpAddr> {
        match self {
            Self::Absent | Self::Client(None) => None,
            Self::Trusted(ip) | Self::Client(Some(ip)) => Some(ip),
        }
    }
}

impl<'a> Hops<'a> {
    /// For a request whose connection is from `origin`; `None` if that is not a trusted proxy.
    pub(crate) fn behind(proxies: &'a Proxies, origin: &Origin) -> Option<Self> {
        let behind = !origin.is_scion() && proxies.trusts(origin.host.ip());
        behind.then_some(Self {
            proxies,
            forwarded: Trail::Absent,
            x_forwarded_for: Trail::Absent,
        })
    }

    /// Takes note of a header, in the order in which they stand.
    pub(crate) fn header(&mut self, name: &[u8], value: &[u8]) {
        if name.eq_ignore_ascii_case(b"forwarded") {
            for element in value.split(|byte| *byte == b',') {
                self.forwarded.push(forwarded_for(element), self.proxies);
            }
        } else if name.eq_ignore_ascii_case(b"x-forwarded-for") {
            for element in value.split(|byte| *byte == b',') {
                self.x_forwarded_for.push(node(element), self.proxies);
            }
        }
    }

    /// Who the request is from, `origin` being the proxy that its connection is from.
    pub(crate) fn client(self, origin: Origin) -> Result<Origin, Contradiction> {
        match (self.forwarded, self.x_forwarded_for) {
            (trail, Trail::Absent) | (Trail::Absent, trail) => {
                Ok(trail.client().map_or(origin, Origin::ip))
            }
            (one, other) if one.client() == other.client() => {
                Ok(one.client().map_or(origin, Origin::ip))
            }
            _ => Err(Contradiction),
        }
    }
}

/// The `for` of one element of `Forwarded` (RFC 7239 section 4). No comma can stand in an address, so
/// the element has been split off without looking at quotes.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    element
        .split(|byte| *byte == b';')
        .filter_map(|pair| pair.trim_ascii().split_at_checked(4))
        .find(|(name, _)| name.eq_ignore_ascii_case(b"for="))
        .and_then(|(_, value)| {
            let quoted = value
                .strip_prefix(b"\"")
                .and_then(|v| v.strip_suffix(b"\""));
            node(quoted.unwrap_or(value))
        })
}

/// An address with or without a port, IPv6 with or without brackets.
fn node(bytes: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(bytes.trim_ascii()).ok()?;
    let ip = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|addr| addr.ip()));
    match ip {
        Ok(ip) => Some(ip.to_canonical()),
        Err(_) => text.strip_prefix('[')?.strip_suffix(']')?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(headers: &[(&str, &str)]) -> Result<String, Contradiction> {
        let proxies = Proxies {
            prefixes: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            proxy_protocol: false,
        };
        let origin = Origin::ip("10.0.0.1".parse().unwrap());
        let mut hops = Hops::behind(&proxies, &origin).unwrap();
        for (name, value) in headers {
            hops.header(name.as_bytes(), value.as_bytes());
        }
        hops.client(origin).map(|origin| origin.host.to_string())
    }

    #[test]
    fn the_right_most_untrusted_hop_is_the_client() {
        for (name, value, expected) in [
            ("X-Forwarded-For", "192.0.2.1", "192.0.2.1"),
            ("x-forwarded-for", "203.0.113.9, 192.0.2.1", "192.0.2.1"),
            (
                "x-forwarded-for",
                "203.0.113.9, 192.0.2.1, 10.0.0.7",
                "192.0.2.1",
            ),
            ("x-forwarded-for", "10.9.9.9, 10.0.0.7", "10.9.9.9"),
            ("x-forwarded-for", "192.0.2.1:4711", "192.0.2.1"),
            ("x-forwarded-for", "2001:db8::1", "2001:db8::1"),
            ("x-forwarded-for", "[2001:db8::1]:80", "2001:db8::1"),
            ("x-forwarded-for", "::ffff:192.0.2.1", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.1, junk", "10.0.0.1"),
            ("x-forwarded-for", "junk, 192.0.2.1", "192.0.2.1"),
            ("x-forwarded-for", "", "10.0.0.1"),
            ("Forwarded", "for=192.0.2.1", "192.0.2.1"),
            (
                "forwarded",
                "proto=https;For=\"[2001:db8::1]:4711\";by=10.0.0.1",
                "2001:db8::1",
            ),
            ("forwarded", "for=\"[2001:db8::1]\"", "2001:db8::1"),
            (
                "forwarded",
                "for=203.0.113.9, for=192.0.2.1, for=10.2.2.2",
                "192.0.2.1",
            ),
            ("forwarded", "for=192.0.2.1, for=unknown", "10.0.0.1"),
            ("forwarded", "for=192.0.2.1, for=_hidden", "10.0.0.1"),
            ("forwarded", "for", "10.0.0.1"),
            ("other", "192.0.2.1", "10.0.0.1"),
        ] {
            assert_eq!(
                client(&[(name, value)]).unwrap(),
                expected,
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn lines_join_in_order_and_must_agree() {
        let xff = "x-forwarded-for";
        assert_eq!(
            client(&[(xff, "203.0.113.9"), (xff, "192.0.2.1")]).unwrap(),
            "192.0.2.1"
        );
        assert_eq!(
            client(&[(xff, "192.0.2.1"), ("forwarded", "for=192.0.2.1")]).unwrap(),
            "192.0.2.1"
        );
        assert!(client(&[(xff, "192.0.2.1"), ("forwarded", "for=203.0.113.9")]).is_err());
    }

    #[test]
    fn strangers_are_not_believed() {
        let proxies = Proxies::default();
        assert!(Hops::behind(&proxies, &Origin::ip("10.0.0.1".parse().unwrap())).is_none());
    }

    #[test]
    fn proxy_headers_of_both_versions() {
        let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        v2.extend([192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 0, 80]);
        let v1 = b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n";
        for header in [v2.as_slice(), v1] {
            for length in 0..header.len() {
                assert_eq!(read_proxy_header(&header[..length]), Proxied::Incomplete);
            }
            let with_request = [header, b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(
                read_proxy_header(&with_request),
                Proxied::Header {
                    length: header.len(),
                    client: Some("192.0.2.1:4711".parse().unwrap()),
                }
            );
        }
        assert_eq!(read_proxy_header(b"GET / HTTP/1.1\r\n"), Proxied::Invalid);
        let mut local = v2.clone();
        local[12] = 0x20;
        assert_eq!(
            read_proxy_header(&local),
            Proxied::Header {
                length: v2.len(),
                client: None
            }
        );
    }
}
