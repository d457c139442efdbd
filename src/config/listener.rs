//! The section `listen`: lists of listeners by kind, generated from the table of listeners
//! ([`crate::server::listener`]), and the settings of one listener of each kind.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use scion_tracker_core::address::{AddressError, Host, ScionAddr};
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, de};

use super::value::{self, ClientHeader, ListItem};
use crate::server::listener::listeners;

macro_rules! generate {
    ($({
        $(#[doc = $doc:tt])+
        $name:ident: $kind:ident = $listener:ty,
        settings: $settings:ident,
        env: $env:tt,
        default: $default:tt,
        flag: $flag:tt, $value:tt,
        besides: $besides:tt,
    })+) => {
        /// See [`Config::listen`](super::Config::listen).
        #[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
        #[config(
            layer_attr(derive(Debug, Clone)),
            layer_attr(serde(deny_unknown_fields))
        )]
        #[non_exhaustive]
        pub struct Listen {
            $(
                $(#[doc = $doc])+
                #[config(env = $env, parse_env = value::list, default = $default)]
                pub $name: Vec<$settings>,
            )+
        }

        impl Listen {
            /// No listeners: for a program that names its own.
            pub const fn none() -> Self {
                Self { $( $name: Vec::new(), )+ }
            }

            /// Whether there is a listener that is not besides the others.
            pub(super) const fn is_none(&self) -> bool {
                true $( && ($besides || self.$name.is_empty()) )+
            }

            /// Names a listener of this kind for a socket that a service manager has bound, unless there is
            /// one at its address. Whether the kind can use such a socket.
            #[cfg(feature = "cli")]
            pub(crate) fn adopt(&mut self, kind: &str, address: SocketAddr) -> bool {
                match kind {
                    $( stringify!($name) => Settings::adopt(&mut self.$name, address), )+
                    _ => false,
                }
            }

            /// The addresses that listeners take, in the order of the table.
            pub(super) fn addresses(&self) -> Vec<Taken> {
                let mut taken = Vec::new();
                $(
                    for (protocol, address) in self.$name.iter().filter_map(Settings::takes) {
                        taken.push(Taken {
                            key: concat!("listen.", stringify!($name)),
                            is_set: |layer| layer.listen.$name.is_some(),
                            protocol,
                            address,
                        });
                    }
                )+
                taken
            }

            /// Finds listeners whose settings contradict each other.
            pub(super) fn check(&self) -> Result<(), String> {
                $(
                    for listener in &self.$name {
                        let checked = Settings::check(listener);
                        checked.map_err(|error| format!("listen.{}: {error}", stringify!($name)))?;
                    }
                )+
                Ok(())
            }
        }

        /// A source that names one listener names them all, except those besides the others.
        pub(super) fn complete(mut layer: super::Layer) -> super::Layer {
            let listen = &mut layer.listen;
            if $( (!$besides && listen.$name.is_some()) )||+ {
                $(
                    if !$besides {
                        listen.$name.get_or_insert_default();
                    }
                )+
            }
            layer
        }
    };
}
listeners!(generate);

/// An address that a listener takes.
pub(super) struct Taken {
    /// The key that names the listener.
    pub(super) key: &'static str,
    /// Whether a source of the configuration sets that key.
    pub(super) is_set: fn(&super::Layer) -> bool,
    pub(super) protocol: Protocol,
    pub(super) address: SocketAddr,
}

/// The protocol of a port. Two listeners can have the same port of different protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Udp,
    Tcp,
}

/// One listener of a kind.
trait Settings: Sized {
    /// The address that it takes. `None` if the server also starts without it.
    fn takes(&self) -> Option<(Protocol, SocketAddr)>;

    /// Adds a listener at an address that a service manager has bound, unless there is one. Whether the
    /// kind can use such a socket.
    #[cfg_attr(
        not(feature = "cli"),
        expect(dead_code, reason = "only the program has a service manager")
    )]
    fn adopt(_: &mut Vec<Self>, _: SocketAddr) -> bool {
        false
    }

    /// Finds settings that contradict each other.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A listener without settings of its own: an address with a port, or a port alone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UdpListener {
    /// Address and port. `[::]` also serves IPv4; port 0 takes a free one.
    pub address: SocketAddr,
}

/// A listener for HTTP/1.1 and HTTP/2, plain or over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listener {
    /// Address and port. `[::]` also serves IPv4; port 0 takes a free one.
    pub address: SocketAddr,
    /// Proxies that are trusted to name the client of a request.
    pub proxies: Vec<IpNet>,
    /// Header in which the proxies name the client.
    pub header: ClientHeader,
    /// Whether these proxies begin each connection with a PROXY protocol header, version 1 or 2.
    pub proxy_protocol: bool,
}

/// A listener for HTTP/3. There is no PROXY protocol over QUIC.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Http3Listener {
    /// Address and port. `[::]` also serves IPv4; port 0 takes a free one.
    pub address: SocketAddr,
    /// Proxies that are trusted to name the client of a request.
    pub proxies: Vec<IpNet>,
    /// Header in which the proxies name the client.
    pub header: ClientHeader,
}

/// A listener for the admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdminListener {
    /// Address and port. Port 0 takes a free one.
    pub address: SocketAddr,
    /// Whether the server starts without it, with a warning, if the address cannot be listened on.
    pub optional: bool,
}

/// A listener over SCION.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScionListener {
    /// Host and ISD-AS.
    pub host: Host,
    /// The port. 0 picks a free one, for tests: border routers may not deliver to it.
    pub port: u16,
    /// What is served there.
    pub transports: ScionTransports,
}

/// What a SCION listener serves on its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ScionTransports {
    /// UDP trackers (BEP 15), and HTTP/3, which needs a certificate.
    #[default]
    UdpAndQuic,
    /// UDP trackers (BEP 15) alone.
    Udp,
}

/// The text is not an address with a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an address with a port, as in [::]:6969 or 192.0.2.1:6969, or a port alone")]
pub struct ListenerError;

/// Reads an address with a port, or a port alone, for all addresses.
fn address(text: &str) -> Result<SocketAddr, ListenerError> {
    let text = text.trim();
    text.parse()
        .or_else(|_| {
            text.parse()
                .map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        })
        .map_err(|_| ListenerError)
}

/// A table's `address`.
fn address_in_table<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    address(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// The kinds that listen on IP: made of an address, read from a text like [`address`].
macro_rules! on_ip {
    ($($type:ident { $($field:ident),* })+) => {
        $(
            impl From<SocketAddr> for $type {
                fn from(address: SocketAddr) -> Self {
                    Self { address, $( $field: Default::default() ),* }
                }
            }

            impl FromStr for $type {
                type Err = ListenerError;

                fn from_str(text: &str) -> Result<Self, ListenerError> {
                    address(text).map(Self::from)
                }
            }

            impl ListItem for $type {}
        )+
    };
}
on_ip! {
    UdpListener {}
    Listener { proxies, header, proxy_protocol }
    Http3Listener { proxies, header }
}

/// Adds a listener with the default settings, unless there is one at the address.
macro_rules! adopt {
    () => {
        fn adopt(listeners: &mut Vec<Self>, address: SocketAddr) -> bool {
            if !listeners.iter().any(|it| it.address == address) {
                listeners.push(address.into());
            }
            true
        }
    };
}

impl Settings for UdpListener {
    fn takes(&self) -> Option<(Protocol, SocketAddr)> {
        Some((Protocol::Udp, self.address))
    }

    adopt!();
}

impl<'de> Deserialize<'de> for UdpListener {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            #[serde(deserialize_with = "address_in_table")]
            address: SocketAddr,
        }
        text_or_table(deserializer, |Table { address }| Self { address })
    }
}

impl Settings for Listener {
    fn takes(&self) -> Option<(Protocol, SocketAddr)> {
        Some((Protocol::Tcp, self.address))
    }

    adopt!();

    fn check(&self) -> Result<(), String> {
        if self.proxy_protocol && self.proxies.is_empty() {
            return Err(format!(
                "the listener {} has proxy_protocol = true and no proxies",
                self.address
            ));
        }
        check_header(self.address, &self.proxies, &self.header)
    }
}

/// A header that no proxy may set means nothing: most likely `proxies` was forgotten.
fn check_header(
    address: SocketAddr,
    proxies: &[IpNet],
    header: &ClientHeader,
) -> Result<(), String> {
    match proxies.is_empty() && *header != ClientHeader::default() {
        true => Err(format!(
            "the listener {address} has header = {:?} and no proxies: name the proxies that set it",
            header.as_str()
        )),
        false => Ok(()),
    }
}

impl<'de> Deserialize<'de> for Listener {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            #[serde(deserialize_with = "address_in_table")]
            address: SocketAddr,
            #[serde(default, deserialize_with = "value::networks")]
            proxies: Vec<IpNet>,
            #[serde(default)]
            header: ClientHeader,
            #[serde(default)]
            proxy_protocol: bool,
        }
        text_or_table(deserializer, |table: Table| Self {
            address: table.address,
            proxies: table.proxies,
            header: table.header,
            proxy_protocol: table.proxy_protocol,
        })
    }
}

impl Settings for AdminListener {
    fn takes(&self) -> Option<(Protocol, SocketAddr)> {
        (!self.optional).then_some((Protocol::Tcp, self.address))
    }
}

impl From<SocketAddr> for AdminListener {
    /// A listener that the server does not start without.
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            optional: false,
        }
    }
}

impl FromStr for AdminListener {
    type Err = ListenerError;

    /// A port alone is one of 127.0.0.1.
    fn from_str(text: &str) -> Result<Self, ListenerError> {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let port = text.trim().parse().map(loopback);
        port.or_else(|_| address(text)).map(Self::from)
    }
}

impl ListItem for AdminListener {}

impl<'de> Deserialize<'de> for AdminListener {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            #[serde(deserialize_with = "value::text")]
            address: AdminListener,
            #[serde(default)]
            if_taken: IfTaken,
        }
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "lowercase")]
        enum IfTaken {
            #[default]
            Fail,
            Warn,
        }
        text_or_table(deserializer, |table: Table| Self {
            optional: matches!(table.if_taken, IfTaken::Warn),
            ..table.address
        })
    }
}

impl Settings for Http3Listener {
    fn takes(&self) -> Option<(Protocol, SocketAddr)> {
        Some((Protocol::Udp, self.address))
    }

    adopt!();

    fn check(&self) -> Result<(), String> {
        check_header(self.address, &self.proxies, &self.header)
    }
}

impl<'de> Deserialize<'de> for Http3Listener {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            #[serde(deserialize_with = "address_in_table")]
            address: SocketAddr,
            #[serde(default, deserialize_with = "value::networks")]
            proxies: Vec<IpNet>,
            #[serde(default)]
            header: ClientHeader,
        }
        text_or_table(deserializer, |table: Table| Self {
            address: table.address,
            proxies: table.proxies,
            header: table.header,
        })
    }
}

impl ScionListener {
    /// Serves UDP trackers and HTTP/3 on this port.
    pub const fn new(host: Host, port: u16) -> Self {
        Self {
            host,
            port,
            transports: ScionTransports::UdpAndQuic,
        }
    }
}

impl FromStr for ScionListener {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        // Port 0 is not part of the usual form of a SCION address.
        let any_port = text.strip_suffix(":0").map(|rest| format!("{rest}:1"));
        let address: ScionAddr = any_port.as_deref().unwrap_or(text).parse()?;
        let port = if any_port.is_some() { 0 } else { address.port };
        Ok(Self::new(address.host, port))
    }
}

impl ListItem for ScionListener {
    /// At spaces, and at commas outside of an address, where a bracket follows the comma.
    fn split(text: &str) -> Vec<&str> {
        let mut items = Vec::new();
        for part in text.split_whitespace() {
            let mut start = 0;
            for (comma, _) in part.match_indices(',') {
                if !part[comma + 1..].starts_with('[') {
                    items.push(&part[start..comma]);
                    start = comma + 1;
                }
            }
            items.push(&part[start..]);
        }
        items
    }
}

impl Settings for ScionListener {
    fn takes(&self) -> Option<(Protocol, SocketAddr)> {
        Some((Protocol::Udp, SocketAddr::new(self.host.ip(), self.port)))
    }
}

impl<'de> Deserialize<'de> for ScionListener {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            #[serde(deserialize_with = "value::text")]
            address: ScionListener,
            #[serde(default)]
            transports: ScionTransports,
        }
        text_or_table(deserializer, |table: Table| Self {
            transports: table.transports,
            ..table.address
        })
    }
}

impl<'de> Deserialize<'de> for ScionTransports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Transport {
            Udp,
            Quic,
        }
        let list = Vec::<Transport>::deserialize(deserializer)?;
        match list.as_slice() {
            [Transport::Udp] => Ok(Self::Udp),
            [Transport::Udp, Transport::Quic] | [Transport::Quic, Transport::Udp] => {
                Ok(Self::UdpAndQuic)
            }
            _ => Err(D::Error::custom(
                "expected [\"udp\"] or [\"udp\", \"quic\"]: a SCION listener always serves UDP",
            )),
        }
    }
}

/// Reads a listener that is written as a text, or as a table.
fn text_or_table<'de, D, L, T>(deserializer: D, from_table: fn(T) -> L) -> Result<L, D::Error>
where
    D: Deserializer<'de>,
    L: FromStr<Err: fmt::Display>,
    T: Deserialize<'de>,
{
    struct TextOrTable<L, T>(fn(T) -> L);

    impl<'de, L, T> Visitor<'de> for TextOrTable<L, T>
    where
        L: FromStr<Err: fmt::Display>,
        T: Deserialize<'de>,
    {
        type Value = L;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an address with a port, or a table with such an `address`")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<L, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<L, A::Error> {
            T::deserialize(de::value::MapAccessDeserializer::new(map)).map(self.0)
        }
    }

    deserializer.deserialize_any(TextOrTable(from_table))
}

#[cfg(test)]
mod tests;
