//! Sections of the configuration that hold only values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use scion_tracker_core::address::IsdAs;
use scion_tracker_core::place::PlacePolicy;
use scion_tracker_core::registry::MAX_NUMWANT;
use scion_tracker_core::select::Mode;

use super::value;
use crate::scion::daemon::DaemonAddr;

/// See [`Config::announce`](super::Config::announce).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Announce {
    /// Time that clients wait between announces. Up to a tenth is added at random, so that clients that
    /// start together do not all announce at the same time.
    #[config(
        env = "SCION_TRACKER_INTERVAL",
        default = "30m",
        deserialize_with = value::duration
    )]
    pub interval: Duration,

    /// Shortest time between announces of a client without an event.
    #[config(
        env = "SCION_TRACKER_MIN_INTERVAL",
        default = "5m",
        deserialize_with = value::duration
    )]
    pub min_interval: Duration,

    /// Peers in a reply to a client that does not ask for a number.
    #[config(env = "SCION_TRACKER_NUMWANT", default = 50)]
    pub numwant: u32,

    /// Most peers in a reply, from 1 to 500.
    #[config(
        env = "SCION_TRACKER_NUMWANT_MAX",
        default = 200,
        validate(
            (1..=MAX_NUMWANT as u32).contains(numwant_max),
            "numwant_max is from 1 to 500"
        )
    )]
    pub numwant_max: u32,
}

/// See [`Config::selection`](super::Config::selection).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Selection {
    /// "prefer": the reserves below, then the nearest first. "cap": near peers up to a quota, far peers up
    /// to the reserves. "random": regardless of place.
    #[config(
        env = "SCION_TRACKER_SELECTION_MODE",
        default = "prefer",
        deserialize_with = value::text
    )]
    pub mode: Mode,

    /// Peers of a reply that are reserved for other ASes of the client's ISD.
    #[config(env = "SCION_TRACKER_SELECTION_RESERVE_ISD", default = 4)]
    pub reserve_isd: u16,

    /// Peers of a reply that are reserved for other ISDs. In mode "prefer", half of it if the client's own
    /// ISD has a seed.
    #[config(env = "SCION_TRACKER_SELECTION_RESERVE_WORLD", default = 2)]
    pub reserve_world: u16,

    /// Peers of a reply that are reserved for peers without an ISD-AS.
    #[config(env = "SCION_TRACKER_SELECTION_RESERVE_UNPLACED", default = 2)]
    pub reserve_unplaced: u16,

    /// Mode "cap": most peers of the client's own AS, in percent of the reply.
    #[config(
        env = "SCION_TRACKER_SELECTION_CAP_PERCENT",
        default = 80,
        validate(*cap_percent <= 100, "cap_percent is at most 100")
    )]
    pub cap_percent: u16,

    /// Mode "cap": a reply with fewer peers than this is filled up, nearest first.
    #[config(env = "SCION_TRACKER_SELECTION_CAP_FLOOR", default = 15)]
    pub cap_floor: u16,
}

/// See [`Config::places`](super::Config::places).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Places {
    /// Whether to believe the ISD-AS that a client claims: "accept", "prefix-only" (only the table below
    /// gives an ISD-AS) or "ignore" (clients over plain IP have no ISD-AS).
    #[config(
        env = "SCION_TRACKER_PLACE_POLICY",
        default = "accept",
        deserialize_with = value::text
    )]
    pub policy: PlacePolicy,

    /// Networks that are trusted to announce other addresses: `ip=`, and `scion=` with another host than
    /// the source of the request.
    #[config(
        env = "SCION_TRACKER_PLACES_TRUSTED",
        parse_env = value::networks_from_env,
        deserialize_with = value::networks,
        default = []
    )]
    pub trusted: Vec<IpNet>,

    /// Local networks, whose addresses mean nothing outside. Over plain IP, a peer at such an address is
    /// handed only to clients at such addresses. Name other networks if clients inside and outside of them
    /// reach each other; with [] (in the environment "none"), every peer is handed to everybody. Peers over
    /// SCION are not concerned.
    #[config(
        env = "SCION_TRACKER_PLACES_LOCAL",
        parse_env = value::networks_or_none_from_env,
        deserialize_with = value::networks,
        default = [
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "::1/128",
            "fc00::/7",
            "fe80::/10",
        ]
    )]
    pub local: Vec<IpNet>,

    /// ISD-AS of networks. The longest prefix wins. It overrides a claim. For example:
    ///
    /// ```toml
    /// [places.prefixes]
    /// "10.1.0.0/16" = "1-ff00:0:110"
    /// ```
    #[config(
        env = "SCION_TRACKER_PLACES_PREFIXES",
        parse_env = value::prefixes_from_env,
        deserialize_with = value::prefixes,
        default = {}
    )]
    pub prefixes: BTreeMap<IpNet, IsdAs>,
}

/// See [`Config::registry`](super::Config::registry).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Registry {
    /// Most torrents.
    #[config(
        env = "SCION_TRACKER_TORRENTS",
        default = 4_000_000,
        validate(*torrents > 0, "torrents is at least 1")
    )]
    pub torrents: usize,

    /// Most peers of one torrent.
    #[config(
        env = "SCION_TRACKER_PEERS_PER_TORRENT",
        default = 2_000_000,
        validate(*peers_per_torrent > 0, "peers_per_torrent is at least 1")
    )]
    pub peers_per_torrent: usize,

    /// Most peers of one host (IPv6: of one /64) in all torrents together. Seedboxes with 12,000
    /// torrents are usual, some have 100,000.
    #[config(
        env = "SCION_TRACKER_PEERS_PER_SOURCE",
        default = 100_000,
        validate(*peers_per_source > 0, "peers_per_source is at least 1")
    )]
    pub peers_per_source: u32,

    /// Most peers of one host (IPv6: of one /64) in one torrent, so that no host can fill replies with
    /// ports of its own. 255 or more is no limit.
    #[config(
        env = "SCION_TRACKER_PEERS_PER_SOURCE_IN_TORRENT",
        default = 32,
        validate(
            *peers_per_source_in_torrent > 0,
            "peers_per_source_in_torrent is at least 1"
        )
    )]
    pub peers_per_source_in_torrent: u32,

    /// The part of `memory` that torrents and peers may use. Without it, half of `memory`.
    #[config(
        env = "SCION_TRACKER_REGISTRY_MEMORY",
        deserialize_with = value::size,
        validate(*memory >= 1 << 20, "memory is at least 1MiB")
    )]
    pub memory: Option<usize>,

    /// How long a peer is kept after its last announce. It must be at least 1.1 announce intervals and 8
    /// seconds.
    /// Without it, one and a half announce intervals.
    #[config(env = "SCION_TRACKER_PEER_LIFETIME", deserialize_with = value::duration)]
    pub peer_lifetime: Option<Duration>,
}

/// See [`Config::scion`](super::Config::scion).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Scion {
    /// Topology file of the AS, usually /etc/scion/topology.json. Replies leave through the border
    /// routers that it names, and the ports of listen.scion are checked against it. Without
    /// listen.scion, the tracker then listens on SCION port 31969.
    ///
    /// Without it, replies go back to the router that the request came from.
    #[config(env = "SCION_TRACKER_SCION_TOPOLOGY", parse_env = value::path)]
    pub topology: Option<PathBuf>,

    /// Networks of the border routers inside the AS, as in "10.0.0.254/32". For hosts without a topology
    /// file and a daemon, which name the routers otherwise. Packets from other ASes are then accepted from
    /// these addresses only.
    ///
    /// Without any of the three, packets are accepted from every address, and the ISD-AS of a client over
    /// SCION is a claim and never proven.
    #[config(
        env = "SCION_TRACKER_SCION_ROUTERS",
        parse_env = value::networks_from_env,
        deserialize_with = value::networks,
        default = []
    )]
    pub routers: Vec<IpNet>,

    /// Whether to also receive on UDP port 30041 of the address in listen.scion: true or false. There,
    /// border routers deliver SCMP echo requests ("scion ping"), and some programs (those of scion-apps)
    /// send what is for other hosts of their own AS. One program of a host can have the port, which is
    /// not shared: the first listener on the address takes it. A dispatcher of the host needs it; start
    /// the dispatcher first, or set this to false.
    ///
    /// Without it, the tracker takes the port if it is free. With true, it does not start without it.
    #[config(env = "SCION_TRACKER_SCION_ENDHOST_PORT")]
    pub endhost_port: Option<bool>,

    /// SCION daemon, usually "127.0.0.1:30255". Without a topology file, it is asked once at the start
    /// for the ISD-AS, the border routers and the ports. Without listen.scion, the tracker then listens
    /// on SCION port 31969.
    ///
    /// Without it, SCION_DAEMON or SCION_DAEMON_ADDRESS in the environment, which a host may set for all
    /// its programs. If that daemon cannot be used and nothing else asks for SCION, the tracker logs a
    /// warning and runs without SCION.
    #[config(env = "SCION_TRACKER_SCION_DAEMON", deserialize_with = value::text)]
    pub daemon: Option<DaemonAddr>,
}

/// See [`Config::udp`](super::Config::udp).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Udp {
    /// Receive buffer of each UDP socket, also those of HTTP/3 and SCION. The kernel may allow less
    /// (net.core.rmem_max); the start says so.
    #[config(
        env = "SCION_TRACKER_UDP_RECEIVE_BUFFER",
        default = "4MiB",
        deserialize_with = value::size,
        validate(
            (1..=1 << 30).contains(receive_buffer),
            "receive_buffer is from 1 byte to 1 GiB"
        )
    )]
    pub receive_buffer: usize,

    /// How long a connection id is valid, from 2m to 60m. BEP 15 says two minutes, but clients use
    /// theirs for longer. Packets with an expired id get no answer.
    #[config(
        env = "SCION_TRACKER_UDP_CONNECTION_VALIDITY",
        default = "10m",
        deserialize_with = value::duration,
        validate(
            (120..=3600).contains(&connection_validity.as_secs()),
            "connection_validity is from 2m to 60m"
        )
    )]
    pub connection_validity: Duration,
}

/// See [`Config::tls`](super::Config::tls).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Tls {
    /// Certificate chain, a PEM file. It is read again on SIGHUP and when it changes.
    ///
    /// Without it, the tracker makes a self-signed certificate and keeps it in the data directory.
    #[config(env = "SCION_TRACKER_TLS_CERT", parse_env = value::path)]
    pub cert: Option<PathBuf>,

    /// Private key of the certificate, a PEM file.
    #[config(env = "SCION_TRACKER_TLS_KEY", parse_env = value::path)]
    pub key: Option<PathBuf>,

    /// Names and addresses in the self-signed certificate, in addition to localhost and the name of the
    /// host.
    #[config(
        env = "SCION_TRACKER_TLS_NAMES",
        parse_env = value::list,
        default = [],
        validate = value::host_names
    )]
    pub names: Vec<String>,
}

impl Tls {
    /// A certificate chain and its key in PEM files.
    pub fn files(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            cert: Some(cert.into()),
            key: Some(key.into()),
            names: Vec::new(),
        }
    }
}
