//! SCION addresses: ISD, AS number, ISD-AS, and a host or endpoint inside an ISD-AS.
//!
//! A plain Internet host is a host in ISD-AS `0-0`. Two hosts with the same IP address in two ASes
//! are two hosts, so state per source is keyed by [`Host`], never by an IP address alone.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Why a SCION address could not be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The ISD is not a decimal number from 0 to 65535.
    #[error("the ISD must be a decimal number from 0 to 65535")]
    Isd,
    /// The AS number is neither decimal below 2^32 nor three groups of hex digits, separated by
    /// colons.
    #[error(
        "the AS must be a decimal number below 2^32 or three groups of up to four hex digits, as in ff00:0:110"
    )]
    Asn,
    /// There is no `-` between ISD and AS.
    #[error("an ISD-AS is written ISD-AS, as in 1-ff00:0:110")]
    IsdAs,
    /// The ISD or the AS is zero, which means "any".
    #[error("an ISD-AS with a zero ISD or AS is a wildcard and names no host")]
    Wildcard,
    /// The host part is not an IP address.
    #[error(
        "the host must be the IP address of one host, IPv6 in brackets, as in 1-ff00:0:110,[::1]:6881"
    )]
    Host,
    /// The port is missing or not in 1..=65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
}

/// A SCION isolation domain number. Zero is the wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Isd(pub u16);

impl fmt::Display for Isd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Isd {
    type Err = AddressError;

    fn from_str(s: &str) -> Result<Self, AddressError> {
        decimal(s)
            .and_then(|n| u16::try_from(n).ok())
            .map(Self)
            .ok_or(AddressError::Isd)
    }
}

/// A SCION AS number, 48 bits. Zero is the wildcard.
///
/// Written in decimal below 2^32 (the BGP range) and as three groups of hex digits above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Asn(u64);

impl Asn {
    /// The largest AS number, 2^48 - 1.
    pub const MAX: u64 = (1 << 48) - 1;

    /// An AS number, if it fits 48 bits.
    pub const fn new(number: u64) -> Option<Self> {
        if number <= Self::MAX {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number.
    pub const fn to_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 <= u64::from(u32::MAX) {
            return self.0.fmt(f);
        }
        write!(
            f,
            "{:x}:{:x}:{:x}",
            self.0 >> 32,
            (self.0 >> 16) & 0xffff,
            self.0 & 0xffff
        )
    }
}

impl FromStr for Asn {
    type Err = AddressError;

    fn from_str(s: &str) -> Result<Self, AddressError> {
        if !s.contains(':') {
            return decimal(s)
                .filter(|n| *n <= u64::from(u32::MAX))
                .map(Self)
                .ok_or(AddressError::Asn);
        }
        let mut number = 0;
        let mut groups = 0;
        for group in s.split(':') {
            let hex =
                (1..=4).contains(&group.len()) && group.bytes().all(|b| b.is_ascii_hexdigit());
            groups += 1;
            if !hex || groups > 3 {
                return Err(AddressError::Asn);
            }
            number =
                number << 16 | u64::from_str_radix(group, 16).map_err(|_| AddressError::Asn)?;
        }
        if groups != 3 {
            return Err(AddressError::Asn);
        }
        Ok(Self(number))
    }
}

/// Parses a decimal number of at most ten digits: no sign, no space.
fn decimal(s: &str) -> Option<u64> {
    if s.is_empty() || s.len() > 10 || !s.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    s.parse().ok()
}

/// An ISD and an AS, which together name one AS. `0-0` means "not in SCION".
///
/// Packed as on the wire: 16 bits of ISD, then 48 bits of AS, big endian
/// ([SCION header, address fields](https://docs.scion.org/en/latest/protocols/scion-header.html)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct IsdAs(u64);

impl IsdAs {
    /// `0-0`: a plain Internet host, or an unknown place.
    pub const NONE: Self = Self(0);

    /// Joins an ISD and an AS.
    pub const fn new(isd: Isd, asn: Asn) -> Self {
        Self((isd.0 as u64) << 48 | asn.0)
    }

    /// From the 64 bits of the wire form.
    pub const fn from_u64(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits of the wire form.
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// The ISD.
    pub const fn isd(self) -> Isd {
        Isd((self.0 >> 48) as u16)
    }

    /// The AS.
    pub const fn asn(self) -> Asn {
        Asn(self.0 & Asn::MAX)
    }

    /// Whether this is `0-0`.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether ISD or AS is zero. Such an ISD-AS names a set, not a place.
    pub const fn is_wildcard(self) -> bool {
        self.isd().0 == 0 || self.asn().0 == 0
    }

    /// Parses an ISD-AS that names one AS. As [`FromStr`], but refuses wildcards.
    pub fn parse_place(s: &str) -> Result<Self, AddressError> {
        let ia: Self = s.parse()?;
        if ia.is_wildcard() {
            Err(AddressError::Wildcard)
        } else {
            Ok(ia)
        }
    }
}

impl fmt::Display for IsdAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.isd(), self.asn())
    }
}

impl fmt::Debug for IsdAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for IsdAs {
    type Err = AddressError;

    fn from_str(s: &str) -> Result<Self, AddressError> {
        let (isd, asn) = s.split_once('-').ok_or(AddressError::IsdAs)?;
        Ok(Self::new(isd.parse()?, asn.parse()?))
    }
}

/// A host: an IP address inside an ISD-AS. The key for all counts per source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host {
    /// The ISD-AS of the host; [`IsdAs::NONE`] for a plain Internet host.
    pub ia: IsdAs,
    ip: IpAddr,
}

impl Host {
    /// A host. Converts an IPv4-mapped IPv6 address (from a dual-stack socket) to IPv4.
    pub fn new(ia: IsdAs, ip: IpAddr) -> Self {
        Self {
            ia,
            ip: ip.to_canonical(),
        }
    }

    /// A plain Internet host, in ISD-AS `0-0`.
    pub fn ip_only(ip: IpAddr) -> Self {
        Self::new(IsdAs::NONE, ip)
    }

    /// The address inside the AS. Never an IPv4-mapped IPv6 address.
    pub const fn ip(&self) -> IpAddr {
        self.ip
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ia.is_none() {
            return self.ip.fmt(f);
        }
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{},{ip}", self.ia),
            IpAddr::V6(ip) => write!(f, "{},[{ip}]", self.ia),
        }
    }
}

/// A SCION endpoint: host and port in an ISD-AS that names one AS.
///
/// Reads `1-ff00:0:110,[10.0.0.1]:6881`, `1-ff00:0:110,10.0.0.1:6881`, `1-ff00:0:110,[::1]:6881` and
/// the URL form `[1-ff00:0:110,10.0.0.1]:6881`, `[1-ff00:0:110,::1]:6881`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScionAddr {
    /// The host; its ISD-AS is never a wildcard.
    pub host: Host,
    /// The port, never zero.
    pub port: u16,
}

impl ScionAddr {
    /// An endpoint, unless the ISD-AS is a wildcard, the port is zero, or the address does not name
    /// a single host.
    pub fn new(ia: IsdAs, ip: IpAddr, port: u16) -> Result<Self, AddressError> {
        if ia.is_wildcard() {
            return Err(AddressError::Wildcard);
        }
        if port == 0 {
            return Err(AddressError::Port);
        }
        let ip = ip.to_canonical();
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(AddressError::Host);
        }
        Ok(Self {
            host: Host::new(ia, ip),
            port,
        })
    }

    /// The URL form, `[ISD-AS,ip]:port`.
    pub fn url_authority(&self) -> String {
        format!("[{},{}]:{}", self.host.ia, self.host.ip, self.port)
    }
}

impl fmt::Display for ScionAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},[{}]:{}", self.host.ia, self.host.ip, self.port)
    }
}

impl FromStr for ScionAddr {
    type Err = AddressError;

    fn from_str(s: &str) -> Result<Self, AddressError> {
        if let Some(rest) = s.strip_prefix('[') {
            let (inner, port) = rest.rsplit_once("]:").ok_or(AddressError::Port)?;
            let (ia, ip) = inner.split_once(',').ok_or(AddressError::IsdAs)?;
            return Self::new(
                ia.parse()?,
                ip.parse().map_err(|_| AddressError::Host)?,
                parse_port(port)?,
            );
        }
        let (ia, socket) = s.split_once(',').ok_or(AddressError::IsdAs)?;
        let ia = ia.parse()?;
        let (ip, port) = match socket.strip_prefix('[') {
            Some(rest) => {
                let (ip, port) = rest.rsplit_once("]:").ok_or(AddressError::Port)?;
                (ip.parse::<IpAddr>().map_err(|_| AddressError::Host)?, port)
            }
            None => {
                let (ip, port) = socket.rsplit_once(':').ok_or(AddressError::Port)?;
                (
                    IpAddr::V4(ip.parse().map_err(|_| AddressError::Host)?),
                    port,
                )
            }
        };
        Self::new(ia, ip, parse_port(port)?)
    }
}

fn parse_port(s: &str) -> Result<u16, AddressError> {
    decimal(s)
        .and_then(|n| u16::try_from(n).ok())
        .filter(|port| *port != 0)
        .ok_or(AddressError::Port)
}

/// Host and port in network byte order: 6 bytes for IPv4, 18 for IPv6 (BEP 23, BEP 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CompactAddr {
    /// 4 bytes of address, 2 of port.
    V4([u8; 6]),
    /// 16 bytes of address, 2 of port.
    V6([u8; 18]),
}

impl CompactAddr {
    /// Packs a host and a port. Converts an IPv4-mapped IPv6 address to IPv4.
    pub fn new(ip: IpAddr, port: u16) -> Self {
        let [high, low] = port.to_be_bytes();
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                Self::V4([a, b, c, d, high, low])
            }
            IpAddr::V6(ip) => {
                let mut bytes = [0; 18];
                bytes[..16].copy_from_slice(&ip.octets());
                bytes[16] = high;
                bytes[17] = low;
                Self::V6(bytes)
            }
        }
    }

    /// The bytes as they go on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::V4(bytes) => bytes,
            Self::V6(bytes) => bytes,
        }
    }

    /// Whether the port is not zero, so that the peer can accept connections.
    #[inline]
    pub const fn has_port(&self) -> bool {
        match self {
            Self::V4([.., high, low]) | Self::V6([.., high, low]) => *high | *low != 0,
        }
    }

    /// The port, in network byte order.
    pub(crate) const fn port_bytes(&self) -> [u8; 2] {
        match *self {
            Self::V4([.., high, low]) | Self::V6([.., high, low]) => [high, low],
        }
    }

    /// The address and the port.
    pub fn socket_addr(&self) -> SocketAddr {
        match *self {
            Self::V4([a, b, c, d, high, low]) => SocketAddr::new(
                IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
                u16::from_be_bytes([high, low]),
            ),
            Self::V6(bytes) => {
                let mut ip = [0; 16];
                ip.copy_from_slice(&bytes[..16]);
                SocketAddr::new(
                    IpAddr::V6(Ipv6Addr::from(ip)),
                    u16::from_be_bytes([bytes[16], bytes[17]]),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isd_as_prints_as_scion_writes_it() {
        for text in [
            "1-ff00:0:110",
            "19-ffaa:1:c3f",
            "64-559",
            "0-0",
            "65535-ffff:ffff:ffff",
            "1-4294967295",
            "1-1:0:0",
        ] {
            assert_eq!(text.parse::<IsdAs>().unwrap().to_string(), text);
        }
        assert_eq!("1-0:0:1".parse::<IsdAs>().unwrap().to_string(), "1-1");
        assert_eq!(
            "1-FF00:0:110".parse::<IsdAs>().unwrap().to_string(),
            "1-ff00:0:110"
        );
    }

    #[test]
    fn bad_isd_as_is_refused() {
        for (text, error) in [
            ("", AddressError::IsdAs),
            ("1", AddressError::IsdAs),
            ("1-", AddressError::Asn),
            ("-1", AddressError::Isd),
            ("65536-1", AddressError::Isd),
            ("+1-1", AddressError::Isd),
            (" 1-1", AddressError::Isd),
            ("1-4294967296", AddressError::Asn),
            ("1-ff00:0", AddressError::Asn),
            ("1-ff00:0:110:1", AddressError::Asn),
            ("1-ff00::110", AddressError::Asn),
            ("1-ff000:0:110", AddressError::Asn),
            ("1-fg00:0:110", AddressError::Asn),
            ("1-1-1", AddressError::Asn),
        ] {
            assert_eq!(text.parse::<IsdAs>(), Err(error), "{text}");
        }
        for text in ["0-0", "0-ff00:0:110", "1-0"] {
            assert_eq!(
                IsdAs::parse_place(text),
                Err(AddressError::Wildcard),
                "{text}"
            );
        }
    }

    #[test]
    fn scion_address_reads_every_form() {
        for (text, printed) in [
            (
                "1-ff00:0:110,[10.0.0.1]:6881",
                "1-ff00:0:110,[10.0.0.1]:6881",
            ),
            ("1-ff00:0:110,10.0.0.1:6881", "1-ff00:0:110,[10.0.0.1]:6881"),
            (
                "[1-ff00:0:110,10.0.0.1]:6881",
                "1-ff00:0:110,[10.0.0.1]:6881",
            ),
            ("64-559,[2001:db8::1]:1", "64-559,[2001:db8::1]:1"),
            ("[64-559,2001:db8::1]:1", "64-559,[2001:db8::1]:1"),
            ("64-559,[::ffff:10.0.0.1]:1", "64-559,[10.0.0.1]:1"),
        ] {
            let addr: ScionAddr = text.parse().unwrap();
            assert_eq!(addr.to_string(), printed, "{text}");
            assert_eq!(addr.url_authority().parse::<ScionAddr>().unwrap(), addr);
        }
    }

    #[test]
    fn bad_scion_address_is_refused() {
        for (text, error) in [
            ("10.0.0.1:80", AddressError::IsdAs),
            ("1-ff00:0:110,10.0.0.1", AddressError::Port),
            ("1-ff00:0:110,10.0.0.1:0", AddressError::Port),
            ("1-ff00:0:110,10.0.0.1:65536", AddressError::Port),
            ("1-ff00:0:110,::1:80", AddressError::Host),
            ("1-ff00:0:110,[::1]", AddressError::Port),
            ("1-ff00:0:110,[host]:80", AddressError::Host),
            ("0-0,[10.0.0.1]:80", AddressError::Wildcard),
            ("1-1,[0.0.0.0]:80", AddressError::Host),
            ("1-1,[ff02::1]:80", AddressError::Host),
            ("[1-ff00:0:110,10.0.0.1]", AddressError::Port),
        ] {
            assert_eq!(text.parse::<ScionAddr>(), Err(error), "{text}");
        }
    }

    #[test]
    fn hosts_in_two_ases_are_two_hosts() {
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        let one = Host::new("1-ff00:0:110".parse().unwrap(), ip);
        assert_ne!(one, Host::new("1-ff00:0:111".parse().unwrap(), ip));
        assert_eq!(
            Host::ip_only("::ffff:10.0.0.1".parse().unwrap()),
            Host::ip_only(ip)
        );
        assert_eq!(one.to_string(), "1-ff00:0:110,10.0.0.1");
    }

    proptest::proptest! {
        #[test]
        fn isd_as_round_trips(bits: u64) {
            let ia = IsdAs::from_u64(bits);
            proptest::prop_assert_eq!(ia.to_string().parse::<IsdAs>().unwrap(), ia);
        }

        #[test]
        fn compact_round_trips(ip: IpAddr, port: u16) {
            let packed = CompactAddr::new(ip, port);
            proptest::prop_assert_eq!(packed.socket_addr(), SocketAddr::new(ip.to_canonical(), port));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            let _ = text.parse::<ScionAddr>();
            let _ = text.parse::<IsdAs>();
        }
    }
}
