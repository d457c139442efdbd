//! The URL of a tracker, as torrents carry it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Over what a tracker is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `udp`: BEP 15.
    Udp,
    /// `http`: HTTP/1.1.
    Http,
    /// `https`: HTTP/1.1 over TLS.
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

    /// BEP 15 has no default.
    const fn default_port(self) -> Option<u16> {
        match self {
            Self::Udp => None,
            Self::Http => Some(80),
            Self::Https | Self::H3 => Some(443),
        }
    }
}

/// Why a text is no tracker's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("a tracker's URL begins with udp://, http://, https:// or h3://")]
    Scheme,
    /// No host, or one that cannot be.
    #[error("the URL has no valid host; an IPv6 address stands in brackets")]
    Host,
    /// A port that is none, or UDP without one.
    #[error("the URL has no valid port")]
    Port,
    /// A space or a control character, or a character that has to be percent-encoded.
    #[error("the URL's path may hold only printable ASCII characters")]
    Path,
}

/// The URL of a tracker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrackerUrl {
    scheme: Scheme,
    /// A name or an address, without brackets.
    host: String,
    port: u16,
    /// Empty, or with the slash at its front.
    path: String,
    /// Without the question mark.
    query: String,
}

impl TrackerUrl {
    /// Over what the tracker is asked.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// A name or an address, the IPv6 one without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as they stand in a URL.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Path and query as they stand, empty if there is neither: what UDP sends as URL data.
    pub fn path_and_query(&self) -> String {
        let separator = if self.query.is_empty() { "" } else { "?" };
        format!("{}{separator}{}", self.path, self.query)
    }

    /// Where to announce: as it is, and `/announce` if there is no path at all.
    #[must_use]
    pub fn announce(&self) -> Self {
        match self.path.is_empty() {
            true => self.with_path("/announce".to_owned()),
            false => self.clone(),
        }
    }

    /// Where to scrape (BEP 48): the last part of the path that begins with `announce` begins with
    /// `scrape` instead. Without such a part, `/scrape` if there is no path, else as it is.
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

    /// Path and query with more of a query behind them.
    pub(super) fn with_query(&self, more: &str) -> String {
        let separator = if self.query.is_empty() { "" } else { "&" };
        format!("{}?{}{separator}{more}", self.path, self.query)
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
        let (name, rest) = s.split_once("://").ok_or(UrlError::Scheme)?;
        let scheme = [Scheme::Udp, Scheme::Http, Scheme::Https, Scheme::H3]
            .into_iter()
            .find(|scheme| name.eq_ignore_ascii_case(scheme.name()))
            .ok_or(UrlError::Scheme)?;
        // A fragment is for the reader of the URL alone.
        let (rest, _) = rest.split_once('#').unwrap_or((rest, ""));
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (host, port) = split_authority(authority)?;
        let port = match port {
            Some(port) => port.parse().map_err(|_| UrlError::Port)?,
            None => scheme.default_port().ok_or(UrlError::Port)?,
        };
        if port == 0 {
            return Err(UrlError::Port);
        }
        if !target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(UrlError::Path);
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }
}

/// The host, without brackets, and the port, if there is one.
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
    // What looks like an IPv6 address without brackets.
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
        assert_eq!(url("http://host/a").with_query("b=1"), "/a?b=1");
        assert_eq!(url("http://host/a?c=2").with_query("b=1"), "/a?c=2&b=1");
    }
}
