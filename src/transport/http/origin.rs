//! Finds the client of a request that came through a reverse proxy.
//!
//! A proxy is trusted only if the connection comes from one of the listener's configured prefixes.
//! From any other host its headers are ignored. A request through a trusted proxy that does not name
//! its client has no known client: the address of the proxy is never used in its place.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;
use proxy_header::{Error, ParseConfig, ProxyHeader};
use scion_tracker_core::prefix::PrefixSet;
use scion_tracker_core::request::Origin;

/// Longest PROXY protocol header that is read, in bytes: the fixed part, IPv6 addresses and some
/// extensions.
pub(crate) const PROXY_HEADER_BYTES: usize = 1024;

/// Longest line of PROXY protocol version 1, in bytes with its CRLF (specification section 2.1).
const PROXY_V1_BYTES: usize = 107;

/// The header of RFC 7239. All others are lists of addresses.
const FORWARDED: &str = "forwarded";

/// The trusted proxies of one listener.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies {
    prefixes: PrefixSet,
    /// Whether they begin each connection with a PROXY protocol header, version 1 or 2.
    pub(crate) proxy_protocol: bool,
    /// Name of the header that names the client, in lower case.
    header: Box<str>,
    /// The listener, as the log names it.
    listener: Box<str>,
    /// Whether a hidden client was logged.
    warned: Arc<AtomicBool>,
}

impl Proxies {
    /// `header` is the name of the request header that names the client. Others are ignored.
    pub(crate) fn new(
        prefixes: impl IntoIterator<Item = IpNet>,
        proxy_protocol: bool,
        header: &str,
    ) -> Self {
        Self {
            prefixes: prefixes.into_iter().collect(),
            proxy_protocol,
            header: header.to_ascii_lowercase().into(),
            listener: Box::default(),
            warned: Arc::default(),
        }
    }

    /// These proxies, as those of a listener that the log names like this.
    pub(crate) fn of_listener(self, listener: impl fmt::Display) -> Self {
        Self {
            listener: listener.to_string().into(),
            ..self
        }
    }

    /// Whether a connection from this host comes from a trusted proxy.
    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        self.prefixes.contains(ip)
    }

    /// Logs that a proxy does not name the clients of announces, once for the listener: each further
    /// announce would be one more line.
    pub(crate) fn warn_of_hidden_client(&self) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                listener = %self.listener,
                header = %self.header,
                "refusing announces from a trusted proxy: the header has no address of the client; \
                 check the proxy, and `header` of this listener"
            );
        }
    }
}

/// Who sent a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Client<'a> {
    /// The host of the connection, or the client that a trusted proxy named.
    Known(Origin),
    /// The request came through one of these trusted proxies, which did not name the client.
    Hidden(&'a Proxies),
}

impl fmt::Display for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(origin) => origin.host.fmt(f),
            Self::Hidden(_) => f.write_str("unknown (behind a proxy)"),
        }
    }
}

/// A PROXY protocol header at the start of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proxied {
    /// More bytes are needed.
    Incomplete,
    /// The bytes are not a PROXY protocol header.
    Invalid,
    /// A header of `length` bytes. `client` is `None` for a connection of the proxy itself (a health
    /// check), and for a client that is not on IP.
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
    // The parser limits a line only while its end is missing. Version 2 begins with CR.
    let bytes = match bytes.first() {
        Some(b'P') => &bytes[..bytes.len().min(PROXY_V1_BYTES)],
        _ => bytes,
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

/// Reads the hops of a request from the header that the listener's proxies use.
#[derive(Debug)]
pub(crate) struct Hops<'a> {
    proxies: &'a Proxies,
    trail: Trail,
}

/// The client as far as the header has been read, from left to right: the right-most hop that is not a
/// trusted proxy. Whoever sent the request wrote the hops left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trail {
    /// No hops so far.
    Empty,
    /// Only trusted hops so far. This is the first of them.
    Trusted(IpAddr),
    /// A hop that is not trusted: an address, or `unknown`, an obfuscated name, garbage.
    Client(Option<IpAddr>),
}

impl<'a> Hops<'a> {
    /// For a request on a connection from `origin`. `None` if that is not a trusted proxy.
    pub(crate) fn behind(proxies: &'a Proxies, origin: &Origin) -> Option<Self> {
        let behind = !origin.is_scion() && proxies.trusts(origin.host.ip());
        behind.then_some(Self {
            proxies,
            trail: Trail::Empty,
        })
    }

    /// Reads one header line. Call it for every line, in order.
    pub(crate) fn header(&mut self, name: &[u8], value: &[u8]) {
        if !name.eq_ignore_ascii_case(self.proxies.header.as_bytes()) {
            return;
        }
        // RFC 9110 section 5.6.1.2: empty elements do not count.
        for element in value.split(|byte| *byte == b',') {
            let element = element.trim_ascii();
            if element.is_empty() {
                continue;
            }
            let hop = match *self.proxies.header == *FORWARDED {
                true => forwarded_for(element),
                false => node(element),
            };
            self.push(hop);
        }
    }

    fn push(&mut self, hop: Option<IpAddr>) {
        self.trail = match (hop, self.trail) {
            (Some(ip), Trail::Empty) if self.proxies.trusts(ip) => Trail::Trusted(ip),
            (Some(ip), trail) if self.proxies.trusts(ip) => trail,
            _ => Trail::Client(hop),
        };
    }

    /// Returns the client, after all headers have been read.
    pub(crate) fn client(self) -> Client<'a> {
        match self.trail {
            Trail::Trusted(ip) | Trail::Client(Some(ip)) => Client::Known(Origin::ip(ip)),
            Trail::Empty | Trail::Client(None) => Client::Hidden(self.proxies),
        }
    }
}

/// Reads the `for` of one element of `Forwarded` (RFC 7239 section 4). Addresses have no commas, so the
/// header is split into elements without looking at quotes.
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

/// Reads an address with or without a port, IPv6 with or without brackets.
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

    /// The client by these headers, or `hidden`, behind proxies that use the header `used`.
    fn client(used: &str, headers: &[(&str, &str)]) -> String {
        let prefixes = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap());
        let proxies = Proxies::new(prefixes, false, used);
        let origin = Origin::ip("10.0.0.1".parse().unwrap());
        let mut hops = Hops::behind(&proxies, &origin).unwrap();
        for (name, value) in headers {
            hops.header(name.as_bytes(), value.as_bytes());
        }
        match hops.client() {
            Client::Known(origin) => origin.host.to_string(),
            Client::Hidden(_) => "hidden".into(),
        }
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
            ("x-forwarded-for", " 192.0.2.1 , ", "192.0.2.1"),
            ("x-forwarded-for", "junk, 192.0.2.1", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.1, junk", "hidden"),
            ("x-forwarded-for", "unknown", "hidden"),
            ("x-forwarded-for", "", "hidden"),
            ("x-forwarded-for", ", ,", "hidden"),
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
            ("forwarded", "for=192.0.2.1, for=unknown", "hidden"),
            ("forwarded", "for=192.0.2.1, for=_hidden", "hidden"),
            ("forwarded", "for", "hidden"),
            ("forwarded", "192.0.2.1", "hidden"),
            ("X-Real-IP", "192.0.2.1", "192.0.2.1"),
            ("cf-connecting-ip", "2001:db8::1", "2001:db8::1"),
            ("x-real-ip", "for=192.0.2.1", "hidden"),
        ] {
            assert_eq!(client(name, &[(name, value)]), expected, "{name}: {value}");
        }
    }

    #[test]
    fn lines_join_in_order_and_other_headers_are_ignored() {
        let xff = "x-forwarded-for";
        let lines = [(xff, "203.0.113.9"), (xff, "192.0.2.1")];
        assert_eq!(client(xff, &lines), "192.0.2.1");
        let both = [("forwarded", "for=203.0.113.9"), (xff, "192.0.2.1")];
        assert_eq!(client(xff, &both), "192.0.2.1");
        assert_eq!(client("forwarded", &both), "203.0.113.9");
        assert_eq!(client("x-real-ip", &both), "hidden");
        assert_eq!(client(xff, &[]), "hidden");
    }

    #[test]
    fn other_hosts_are_not_trusted() {
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
        let unknown = b"PROXY UNKNOWN\r\n";
        let client = None;
        let length = unknown.len();
        assert_eq!(
            read_proxy_header(unknown),
            Proxied::Header { length, client }
        );
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

    #[test]
    fn long_lines_of_version_1_are_refused_however_they_are_cut() {
        for length in [PROXY_V1_BYTES, PROXY_V1_BYTES + 1, 300] {
            let line = format!("{:x<1$}\r\n", "PROXY UNKNOWN ", length - 2);
            let fits = length <= PROXY_V1_BYTES;
            for cut in 0..length {
                let expected = match cut < PROXY_V1_BYTES {
                    true => Proxied::Incomplete,
                    false => Proxied::Invalid,
                };
                assert_eq!(
                    read_proxy_header(&line.as_bytes()[..cut]),
                    expected,
                    "{cut}"
                );
            }
            for rest in ["", "GET / HTTP/1.1\r\n"] {
                let expected = match fits {
                    true => Proxied::Header {
                        length,
                        client: None,
                    },
                    false => Proxied::Invalid,
                };
                let bytes = format!("{line}{rest}");
                assert_eq!(read_proxy_header(bytes.as_bytes()), expected, "{length}");
            }
        }
    }
}
