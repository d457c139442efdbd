//! Parses the URL of a tracker, in the forms that torrents use.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use scion_tracker_core::address::{AddressError, ScionAddr};

/// The protocol for talking to a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// `udp`: BEP 15.
    Udp,
    /// `http`: HTTP/1.1. Over SCION on one pair of QUIC streams, as Go programs with `shttp` of
    /// scion-apps speak it, without verifying the certificate.
    Http,
    /// `https`: HTTP/1.1 over TLS, or HTTP/3 over SCION.
    Https,
    /// `h3`: HTTP/3.
    H3,
}

impl Scheme {
    const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Https => "https",
            Self::H3 => "h3",
        }
    }

    /// BEP 15 has no default port.
    const fn default_port(self) -> Option<u16> {
        match self {
            Self::Udp => None,
            Self::Http => Some(80),
            Self::Https | Self::H3 => Some(443),
        }
    }
}

/// Why a text is not the URL of a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// The scheme is missing or unknown.
    #[error("expected a tracker URL that begins with udp://, http://, https:// or h3://")]
    Scheme,
    /// The host is missing or invalid.
    #[error("the URL has no valid host (an IPv6 address needs brackets)")]
    Host,
    /// The port is invalid, or missing in a UDP URL.
    #[error("the URL has no valid port")]
    Port,
    /// The host contains a comma, but is not a SCION address.
    #[error("the URL has no valid SCION address")]
    Scion(#[source] AddressError),
    /// The path contains a space, a control character, or a character that needs percent-encoding.
    #[error("the path of the URL may contain only printable ASCII characters")]
    Path,
}

/// The URL of a tracker.
///
/// A SCION host is written as `[1-ff00:0:110,10.0.0.1]` or `1-ff00:0:110,[10.0.0.1]`. A SCION
/// address with only a port, `1-ff00:0:110,[10.0.0.1]:31969`, is an `https://` URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrackerUrl {
    scheme: Scheme,
    /// Name or address, without brackets.
    host: String,
    /// The SCION address in the URL. `host` is its IP address.
    scion: Option<ScionAddr>,
    port: u16,
    /// Empty, or begins with a slash.
    path: String,
    /// Without the question mark.
    query: String,
}

impl TrackerUrl {
    /// The protocol.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Name or IP address, IPv6 without brackets. The certificate must be for it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The SCION address in the URL. A host name may have another SCION address.
    pub const fn scion(&self) -> Option<ScionAddr> {
        self.scion
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as written in a URL.
    pub fn authority(&self) -> String {
        if let Some(scion) = self.scion {
            scion.url_authority()
        } else if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Path and query as written in a URL, empty if there are none. UDP sends this as URL data.
    pub fn path_and_query(&self) -> String {
        let separator = if self.query.is_empty() { "" } else { "?" };
        format!("{}{separator}{}", self.path, self.query)
    }

    /// The announce URL: this URL, with `/announce` added if there is no path.
    #[must_use]
    pub fn announce(&self) -> Self {
        match self.path.is_empty() {
            true => self.with_path("/announce".to_owned()),
            false => self.clone(),
        }
    }

    /// The scrape URL (BEP 48): the last part of the path that begins with `announce` then begins
    /// with `scrape`. Without such a part, adds `/scrape` if there is no path, and otherwise leaves
    /// the URL as it is.
    #[must_use]
    pub fn scrape(&self) -> Self {
        let path = self.path.trim_end_matches('/');
        if path.is_empty() {
            return self.with_path("/scrape".to_owned());
        }
        match path.rfind("/announce") {
            Some(at) => {
                let (front, back) = (&path[..at], &path[at + "/announce".len()..]);
                self.with_path(format!("{front}/scrape{back}"))
            }
            None => self.clone(),
        }
    }

    /// Path and query, with `more` added to the query.
    pub(crate) fn with_query(&self, more: &str) -> String {
        let separator = if self.query.is_empty() { "" } else { "&" };
        format!("{}?{}{separator}{more}", self.path, self.query)
    }

    /// This URL with `more` added to the query.
    #[must_use]
    pub(super) fn asking(&self, more: &str) -> Self {
        let separator = if self.query.is_empty() { "" } else { "&" };
        Self {
            query: format!("{}{separator}{more}", self.query),
            ..self.clone()
        }
    }

    /// The target of an HTTP request: path and query, `/` for an empty path.
    pub(super) fn target(&self) -> String {
        let slash = if self.path.is_empty() { "/" } else { "" };
        format!("{slash}{}", self.path_and_query())
    }

    /// Resolves the `Location` of a reply to this URL (RFC 9110, section 10.2.2; RFC 3986, section
    /// 5.2).
    pub(super) fn join(&self, location: &str) -> Result<Self, UrlError> {
        let (location, _) = location.split_once('#').unwrap_or((location, ""));
        let has_scheme = location
            .find([':', '/', '?'])
            .is_some_and(|at| location[at..].starts_with(':'));
        if has_scheme {
            return location.parse();
        }
        let scheme = self.scheme.name();
        if let Some(rest) = location.strip_prefix("//") {
            return format!("{scheme}://{rest}").parse();
        }
        let (path, query) = match location.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (location, None),
        };
        let query = match query {
            Some(query) => query,
            None if path.is_empty() => &self.query,
            None => "",
        };
        let path = match path {
            "" => self.path.clone(),
            _ if path.starts_with('/') => without_dots(path),
            _ => {
                let folder = self.path.rfind('/').map_or("/", |at| &self.path[..=at]);
                without_dots(&format!("{folder}{path}"))
            }
        };
        format!("{scheme}://{}{path}?{query}", self.authority()).parse()
    }

    fn with_path(&self, path: String) -> Self {
        Self {
            path,
            ..self.clone()
        }
    }
}

impl fmt::Display for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, authority) = (self.scheme.name(), self.authority());
        write!(f, "{scheme}://{authority}{}", self.path_and_query())
    }
}

impl FromStr for TrackerUrl {
    type Err = UrlError;

    fn from_str(s: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = match s.split_once("://") {
            Some((name, rest)) => {
                let scheme = [Scheme::Udp, Scheme::Http, Scheme::Https, Scheme::H3]
                    .into_iter()
                    .find(|scheme| name.eq_ignore_ascii_case(scheme.name()));
                (scheme.ok_or(UrlError::Scheme)?, rest)
            }
            None if s.contains(',') => (Scheme::Https, s),
            None => return Err(UrlError::Scheme),
        };
        // A fragment is not for the tracker.
        let (rest, _) = rest.split_once('#').unwrap_or((rest, ""));
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        // An address without a scheme has no default port.
        let default = scheme.default_port().filter(|_| s.contains("://"));
        let (host, scion, port) = if authority.contains(',') {
            let scion = read_scion(authority, default)?;
            (scion.host.ip().to_string(), Some(scion), scion.port)
        } else {
            let (host, port) = read_host(authority, default)?;
            (host.to_owned(), None, port)
        };
        if !target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(UrlError::Path);
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Ok(Self {
            scheme,
            host,
            scion,
            port,
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }
}

/// Removes the segments `.` and `..` of a path that begins with a slash (RFC 3986, section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept = Vec::new();
    for segment in path[1..].split('/') {
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let folder = matches!(path.rsplit('/').next(), Some("." | ".."));
    let end = if folder && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}", kept.join("/"))
}

/// Reads a SCION address in any of its forms, with or without a port.
fn read_scion(authority: &str, default: Option<u16>) -> Result<ScionAddr, UrlError> {
    let named = match authority.parse() {
        Err(error) => error,
        Ok(addr) => return Ok(addr),
    };
    let behind_host = authority.rsplit([']', ',']).next().unwrap_or_default();
    let has_port = behind_host.contains(':');
    match (named, default) {
        (AddressError::Port, Some(default)) if !has_port => format!("{authority}:{default}")
            .parse()
            .map_err(UrlError::Scion),
        (AddressError::Port, _) => Err(UrlError::Port),
        (error, _) => Err(UrlError::Scion(error)),
    }
}

/// Reads host, without brackets, and port.
fn read_host(authority: &str, default: Option<u16>) -> Result<(&str, u16), UrlError> {
    let (host, port) = split_authority(authority)?;
    let port = match port {
        Some(port) => port.parse().map_err(|_| UrlError::Port)?,
        None => default.ok_or(UrlError::Port)?,
    };
    if port == 0 {
        return Err(UrlError::Port);
    }
    Ok((host, port))
}

/// Splits into host, without brackets, and port, if there is one.
fn split_authority(authority: &str) -> Result<(&str, Option<&str>), UrlError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(UrlError::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| UrlError::Host)?;
        return match port.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if port.is_empty() => Ok((host, None)),
            None => Err(UrlError::Port),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let named = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let valid = !host.is_empty() && host.bytes().all(named);
    // An IPv6 address without brackets is refused.
    if !valid || authority.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
        return Err(UrlError::Host);
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> TrackerUrl {
        text.parse().unwrap()
    }

    #[test]
    fn urls_are_read_and_printed() {
        for (text, printed) in [
            ("udp://127.0.0.1:6969", "udp://127.0.0.1:6969"),
            ("UDP://[::1]:6969/announce", "udp://[::1]:6969/announce"),
            (
                "http://tracker.example.org",
                "http://tracker.example.org:80",
            ),
            (
                "https://a_b.example/x?y=1#z",
                "https://a_b.example:443/x?y=1",
            ),
            ("h3://[2001:db8::1]/", "h3://[2001:db8::1]:443/"),
            ("http://localhost:1?a=b", "http://localhost:1?a=b"),
        ] {
            assert_eq!(url(text).to_string(), printed);
            assert_eq!(url(printed), url(text));
        }
        assert_eq!(url("h3://[::1]:1").host(), "::1");
    }

    #[test]
    fn urls_of_scion_hosts_are_read_and_printed() {
        for (text, printed) in [
            (
                "https://[1-ff00:0:110,10.0.0.1]:31969/announce",
                "https://[1-ff00:0:110,10.0.0.1]:31969/announce",
            ),
            (
                "https://1-ff00:0:110,[10.0.0.1]:31969/announce",
                "https://[1-ff00:0:110,10.0.0.1]:31969/announce",
            ),
            (
                "1-ff00:0:110,[10.0.0.1]:31969",
                "https://[1-ff00:0:110,10.0.0.1]:31969",
            ),
            (
                "1-ff00:0:110,10.0.0.1:31969/key/announce",
                "https://[1-ff00:0:110,10.0.0.1]:31969/key/announce",
            ),
            (
                "h3://64-559,[fd00::1]/?a=b",
                "h3://[64-559,fd00::1]:443/?a=b",
            ),
            ("https://[64-559,fd00::1]", "https://[64-559,fd00::1]:443"),
            ("https://64-559,10.0.0.1", "https://[64-559,10.0.0.1]:443"),
            ("udp://[64-559,fd00::1]:6969", "udp://[64-559,fd00::1]:6969"),
            ("http://[1-1,10.0.0.1]/x", "http://[1-1,10.0.0.1]:80/x"),
        ] {
            assert_eq!(url(text).to_string(), printed);
            assert_eq!(url(printed), url(text));
        }
        let scion = url("udp://1-ff00:0:110,[fd00::1]:6969/x,y");
        assert_eq!(scion.host(), "fd00::1");
        assert_eq!(scion.port(), 6969);
        let addr = "1-ff00:0:110,[fd00::1]:6969".parse().unwrap();
        assert_eq!(scion.scion(), Some(addr));
        assert_eq!(url("http://host/x,y").scion(), None);
    }

    #[test]
    fn bad_urls_are_refused() {
        for (text, error) in [
            ("", UrlError::Scheme),
            ("tracker.example.org:80", UrlError::Scheme),
            ("ftp://tracker.example.org", UrlError::Scheme),
            ("http://", UrlError::Host),
            ("http:///announce", UrlError::Host),
            ("http://user@host/", UrlError::Host),
            ("http://::1/announce", UrlError::Host),
            ("http://[::1", UrlError::Host),
            ("http://[1.2.3.4]:80", UrlError::Host),
            ("http://[::1]80", UrlError::Port),
            ("http://host:", UrlError::Port),
            ("http://host:0", UrlError::Port),
            ("http://host:65536", UrlError::Port),
            ("udp://host", UrlError::Port),
            ("http://host/a b", UrlError::Path),
            ("http://host/é", UrlError::Path),
            ("1-ff00:0:110,[10.0.0.1]", UrlError::Port),
            ("udp://[1-1,10.0.0.1]", UrlError::Port),
            ("https://[1-1,10.0.0.1]:0", UrlError::Port),
            ("https://1-1,10.0.0.1:", UrlError::Port),
            (
                "https://[1-1,10.0.0.1]x",
                UrlError::Scion(AddressError::Port),
            ),
            ("https://[1-1,host]:1", UrlError::Scion(AddressError::Host)),
            (
                "https://0-0,[10.0.0.1]:1",
                UrlError::Scion(AddressError::Wildcard),
            ),
            ("a,b", UrlError::Scion(AddressError::IsdAs)),
        ] {
            assert_eq!(text.parse::<TrackerUrl>(), Err(error), "{text}");
        }
    }

    #[test]
    fn announce_and_scrape_paths() {
        for (path, announce, scrape) in [
            ("", "/announce", "/scrape"),
            ("/", "/", "/scrape"),
            ("/announce", "/announce", "/scrape"),
            ("/announce?key=1", "/announce?key=1", "/scrape?key=1"),
            ("/announce/key", "/announce/key", "/scrape/key"),
            ("/key/announce.php", "/key/announce.php", "/key/scrape.php"),
            ("/scrape", "/scrape", "/scrape"),
            ("/tracker", "/tracker", "/tracker"),
        ] {
            let url = url(&format!("http://host{path}"));
            assert_eq!(url.announce().path_and_query(), announce);
            assert_eq!(url.scrape().path_and_query(), scrape);
        }
        for (text, target) in [
            ("http://host/a", "/a?b=1"),
            ("http://host/a?c=2", "/a?c=2&b=1"),
            ("http://host", "/?b=1"),
        ] {
            assert_eq!(url(text).asking("b=1").target(), target);
        }
        assert_eq!(url("http://host/a?c=2").with_query("b=1"), "/a?c=2&b=1");
        assert_eq!(url("http://host").target(), "/");
    }

    #[test]
    fn locations_are_resolved() {
        let base = url("https://host:1/a/b/announce?c=2");
        for (location, expected) in [
            ("http://other/x?y", "http://other:80/x?y"),
            ("HTTPS://other", "https://other:443"),
            ("//other/x", "https://other:443/x"),
            ("/x?y#z", "https://host:1/x?y"),
            ("x", "https://host:1/a/b/x"),
            ("../x?y=../z", "https://host:1/a/x?y=../z"),
            ("../../../x/.", "https://host:1/x/"),
            ("..", "https://host:1/a/"),
            ("/..", "https://host:1/"),
            ("./x:y", "https://host:1/a/b/x:y"),
            ("?d=3", "https://host:1/a/b/announce?d=3"),
            ("", "https://host:1/a/b/announce?c=2"),
            ("//[1-1,10.0.0.1]:2/x", "https://[1-1,10.0.0.1]:2/x"),
        ] {
            let joined = base.join(location).map(|url| url.to_string());
            assert_eq!(joined.as_deref(), Ok(expected), "{location}");
        }
        let bare = url("http://[::1]:1");
        assert_eq!(bare.join("x").unwrap().to_string(), "http://[::1]:1/x");
        for (location, error) in [
            ("mailto:a@b", UrlError::Scheme),
            ("host:80/x", UrlError::Scheme),
            ("//", UrlError::Host),
            ("/a b", UrlError::Path),
            ("/\u{1b}[31m", UrlError::Path),
        ] {
            assert_eq!(base.join(location), Err(error), "{location}");
        }
    }
}
