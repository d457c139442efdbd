//! Values of the configuration: how they are written in TOML and in the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use http::HeaderName;
use ipnet::IpNet;
use rustls_pki_types::ServerName;
use scion_tracker_core::address::{AddressError, IsdAs};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, de};

/// The longest duration, in seconds: a year.
pub(super) const LONGEST: u32 = 365 * 24 * 60 * 60;

/// Name of the request header in which proxies name the client, in lower case.
///
/// `forwarded` is read as defined by RFC 7239. Any other header is a list of addresses separated by commas,
/// or a single address. The default is `x-forwarded-for`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ClientHeader(HeaderName);

/// The text is not the name of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a header is a name such as x-forwarded-for, forwarded, x-real-ip or cf-connecting-ip, without colon"
)]
pub struct ClientHeaderError;

impl ClientHeader {
    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Default for ClientHeader {
    fn default() -> Self {
        Self(HeaderName::from_static("x-forwarded-for"))
    }
}

impl FromStr for ClientHeader {
    type Err = ClientHeaderError;

    fn from_str(s: &str) -> Result<Self, ClientHeaderError> {
        s.parse().map(Self).map_err(|_| ClientHeaderError)
    }
}

impl TryFrom<String> for ClientHeader {
    type Error = ClientHeaderError;

    fn try_from(text: String) -> Result<Self, ClientHeaderError> {
        text.parse()
    }
}

/// A network as it is written in the configuration: ADDRESS/LENGTH without host bits, or an address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Network(pub(super) IpNet);

/// Why a text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NetworkError {
    #[error("{0:?} is not a network, as in 10.1.0.0/16, 2001:db8::/32 or 192.0.2.1")]
    Unreadable(String),
    #[error("{found} has bits set beyond /{}: write {}, or {} for this host alone", .found.prefix_len(), .found.trunc(), .found.addr())]
    HostBits { found: IpNet },
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self(ip.into()));
        }
        match text.parse::<IpNet>() {
            Ok(found) if found.trunc() == found => Ok(Self(found)),
            Ok(found) => Err(NetworkError::HostBits { found }),
            Err(_) => Err(NetworkError::Unreadable(text.into())),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

/// A list of networks.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let networks = Vec::<Network>::deserialize(deserializer)?;
    Ok(networks.into_iter().map(|Network(net)| net).collect())
}

/// Networks separated by commas.
pub(super) fn networks_from_env(text: &str) -> Result<Vec<IpNet>, ListError> {
    let networks = list::<Network>(text)?;
    Ok(networks.into_iter().map(|Network(net)| net).collect())
}

/// The same, or `none` for an empty list, as an empty variable counts as not set.
pub(super) fn networks_or_none_from_env(text: &str) -> Result<Vec<IpNet>, ListError> {
    match text.trim() {
        "none" => Ok(Vec::new()),
        text => networks_from_env(text),
    }
}

/// Anything that is written as a text.
pub(super) fn text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    String::deserialize(deserializer)?
        .parse()
        .map_err(D::Error::custom)
}

/// A number of seconds, or a text such as "30m": more than nothing, at most a year.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(NumberOrText {
        expecting: "a duration of up to a year: \"30m\", \"1h 30m\" or a number of seconds",
        number: Duration::from_secs,
        text: |text| humantime::parse_duration(text).ok(),
        accept: |duration| {
            !duration.is_zero() && *duration <= Duration::from_secs(u64::from(LONGEST))
        },
    })
}

/// A duration as it is written on the command line.
#[cfg(any(test, fuzzing, feature = "cli"))]
pub(crate) fn parse_duration(text: &str) -> Result<Duration, de::value::Error> {
    duration(de::value::StrDeserializer::new(text))
}

/// A number of bytes, or a text such as "2GiB".
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    deserializer
        .deserialize_any(NumberOrText {
            expecting: "a size: \"512MiB\", \"2GB\" or a number of bytes",
            number: |bytes| bytes,
            text: |text| text.parse::<ByteSize>().ok().map(|size| size.as_u64()),
            accept: |bytes| usize::try_from(*bytes).is_ok(),
        })
        .map(|bytes| bytes as usize)
}

struct NumberOrText<T> {
    expecting: &'static str,
    number: fn(u64) -> T,
    text: fn(&str) -> Option<T>,
    accept: fn(&T) -> bool,
}

impl<T> Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        Some((self.number)(number))
            .filter(self.accept)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
        }
    }

    /// The environment has texts only.
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let parsed = match text.parse() {
            Ok(number) => Some((self.number)(number)),
            Err(_) => (self.text)(text),
        };
        parsed
            .filter(self.accept)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// Why a list in the environment cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    /// confique ignores an empty variable that has an error, so that it counts as not set.
    #[error("the list is empty")]
    Empty,
    #[error("{item:?}: {message}")]
    Item { item: String, message: String },
}

/// A value that stands in a list in the environment.
pub(super) trait ListItem: FromStr<Err: fmt::Display> {
    /// Splits a list into items, which may be empty.
    fn split(text: &str) -> Vec<&str> {
        text.split([',', ' ', '\t', '\n']).collect()
    }
}

impl ListItem for Network {}
impl ListItem for String {}

/// Values separated by commas, spaces or both.
pub(super) fn list<T: ListItem>(text: &str) -> Result<Vec<T>, ListError> {
    let read = |item: &str| {
        item.parse().map_err(|error: T::Err| ListError::Item {
            item: item.into(),
            message: error.to_string(),
        })
    };
    let items = T::split(text);
    let items = items.into_iter().filter(|item| !item.is_empty());
    match items.map(read).collect::<Result<Vec<_>, _>>() {
        Ok(list) if list.is_empty() => Err(ListError::Empty),
        list => list,
    }
}

/// What a certificate can be for.
#[expect(
    clippy::ptr_arg,
    reason = "the validator of a field is called with its type"
)]
pub(super) fn host_names(names: &Vec<String>) -> Result<(), &'static str> {
    if names
        .iter()
        .all(|name| ServerName::try_from(name.as_str()).is_ok())
    {
        Ok(())
    } else {
        Err("names are host names or IP addresses")
    }
}

/// A table of networks and the ISD-AS that each is in.
pub(super) fn prefixes<'de, D>(deserializer: D) -> Result<BTreeMap<IpNet, IsdAs>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(try_from = "String")]
    struct Place(IsdAs);

    impl TryFrom<String> for Place {
        type Error = AddressError;

        fn try_from(text: String) -> Result<Self, AddressError> {
            IsdAs::parse_place(&text).map(Self)
        }
    }

    let table = BTreeMap::<Network, Place>::deserialize(deserializer)?;
    Ok(table
        .into_iter()
        .map(|(Network(net), Place(ia))| (net, ia))
        .collect())
}

/// Why the environment's form of [`prefixes`], `NETWORK=ISD-AS,NETWORK=ISD-AS`, cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrefixError {
    #[error("{0:?} is not NETWORK=ISD-AS, as in 10.1.0.0/16=1-ff00:0:110")]
    Unreadable(String),
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// Networks and their ISD-AS, separated by commas.
pub(super) fn prefixes_from_env(list: &str) -> Result<BTreeMap<IpNet, IsdAs>, PrefixError> {
    let read = |text: &str| {
        let unreadable = || PrefixError::Unreadable(text.into());
        let (net, ia) = text.split_once('=').ok_or_else(unreadable)?;
        let Network(net) = net.trim().parse()?;
        let ia = IsdAs::parse_place(ia.trim()).map_err(|_| unreadable())?;
        Ok((net, ia))
    };
    let items = list.split([',', ' ', '\t', '\n']);
    let items = items.filter(|item| !item.is_empty());
    match items.map(read).collect::<Result<BTreeMap<_, _>, _>>() {
        Ok(table) if table.is_empty() => Err(PrefixError::Unreadable(list.into())),
        table => table,
    }
}

/// A value that may not be empty is empty.
#[derive(Debug, thiserror::Error)]
#[error("the value is empty")]
pub(super) struct Empty;

/// A path in the environment. An empty one is an error, so that it counts as not set.
pub(super) fn path(text: &str) -> Result<PathBuf, Empty> {
    non_empty(text).map(PathBuf::from)
}

/// A text in the environment, with the same rule.
pub(super) fn non_empty(text: &str) -> Result<String, Empty> {
    match text.is_empty() {
        true => Err(Empty),
        false => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("30m", 1800),
            ("1h 30m", 5400),
            ("1800", 1800),
            ("1y", 31_557_600),
        ] {
            let expected = Some(Duration::from_secs(seconds)).filter(|_| seconds < LONGEST.into());
            assert_eq!(parse_duration(text).ok(), expected, "{text}");
        }
        for bad in [
            "",
            "0",
            "0s",
            "-1",
            "5 parsecs",
            "400d",
            "18446744073709551616",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        let parse = |text| {
            size::<de::value::StrDeserializer<'_, de::value::Error>>(
                de::value::StrDeserializer::new(text),
            )
        };
        assert_eq!(parse("2GiB"), Ok(2 << 30));
        assert_eq!(parse("1.5 MB"), Ok(1_500_000));
        assert_eq!(parse("4096"), Ok(4096));
        assert!(parse("many").unwrap_err().to_string().contains("a size"));
    }

    #[test]
    fn an_empty_list_in_the_environment_is_none() {
        for (text, count) in [("none", 0), (" none ", 0), ("10.0.0.0/8", 1)] {
            assert_eq!(networks_or_none_from_env(text).unwrap().len(), count);
        }
        for text in ["none,10.0.0.0/8", "None"] {
            assert!(networks_or_none_from_env(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_have_no_host_bits() {
        let network = |text: &str| text.parse().map(|Network(net)| net.to_string());
        for (text, net) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.1/32", "192.0.2.1/32"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::ffff:10.0.0.0/104", "::ffff:10.0.0.0/104"),
        ] {
            assert_eq!(network(text).as_deref(), Ok(net), "{text}");
        }
        for (bad, hint) in [
            ("10.1.0.1/16", "write 10.1.0.0/16, or 10.1.0.1 for"),
            ("2001:db8::1/32", "write 2001:db8::/32, or 2001:db8::1 for"),
            ("", "not a network"),
            ("10.0.0.0/33", "not a network"),
            ("localhost", "not a network"),
        ] {
            let error = network(bad).unwrap_err().to_string();
            assert!(error.contains(hint), "{error}");
            let error = prefixes_from_env(&format!("{bad}=1-1")).unwrap_err();
            assert!(error.to_string().contains(hint), "{error}");
        }
    }

    #[test]
    fn client_headers() {
        let header = |text: &str| text.parse().map(|it: ClientHeader| it.as_str().to_owned());
        assert_eq!(header("X-Real-IP").as_deref(), Ok("x-real-ip"));
        for bad in ["", "x-real-ip:", "x real ip", "x-réal"] {
            assert_eq!(header(bad), Err(ClientHeaderError), "{bad}");
        }
        assert_eq!(ClientHeader::default().as_str(), "x-forwarded-for");
    }

    #[test]
    fn prefixes_of_the_environment() {
        for text in [
            "10.1.0.0/16=1-ff00:0:110, 2001:db8::/32=64-559",
            "10.1.0.0/16=1-ff00:0:110 2001:db8::/32=64-559",
        ] {
            assert_eq!(prefixes_from_env(text).unwrap().len(), 2, "{text}");
        }
        for bad in ["", "10.1.0.0/16", "10.1.0.0/16=1-0", "10.1.0.0/33=1-1"] {
            assert!(prefixes_from_env(bad).is_err(), "{bad}");
        }
    }
}
