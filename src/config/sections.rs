//! The sections of the configuration that are no more than their values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use scion_tracker_core::address::IsdAs;
use scion_tracker_core::place::PlacePolicy;
use scion_tracker_core::registry::MAX_NUMWANT;
use scion_tracker_core::select::Mode;

use super::value::{self, LogFormat};
use crate::client::DaemonAddr;

/// See [`Config::announce`](super::Config::announce).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Announce {
    /// How long a client waits between announces. Up to a tenth is added at random, so that clients
    /// that came together do not return together.
    #[config(
        env = "SCION_TRACKER_INTERVAL",
        default = "30m",
        deserialize_with = value::duration
    )]
    pub interval: Duration,

    /// How soon a client may announce again without an event.
    #[config(
        env = "SCION_TRACKER_MIN_INTERVAL",
        default = "5m",
        deserialize_with = value::duration
    )]
    pub min_interval: Duration,

    /// Peers for a client that does not say how many it wants.
    #[config(env = "SCION_TRACKER_NUMWANT", default = 50)]
    pub numwant: u32,

    /// Peers for any client at most.
    #[config(
        env = "SCION_TRACKER_NUMWANT_MAX",
        default = 200,
        validate(*numwant_max <= MAX_NUMWANT as u32, "numwant_max is at most 500")
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
    /// "prefer": the reserves below, then nearest first. "cap": near peers up to a quota, the
    /// reserves as the limit on far ones. "random": regardless of place.
    #[config(
        env = "SCION_TRACKER_SELECTION_MODE",
        default = "prefer",
        deserialize_with = value::text
    )]
    pub mode: Mode,

    /// Peers of a reply that are kept for the other ASes of the requester's ISD.
    #[config(env = "SCION_TRACKER_SELECTION_RESERVE_ISD", default = 4)]
    pub reserve_isd: u16,

    /// Peers of a reply that are kept for other ISDs; half of it in mode "prefer" where the requester's
    /// own ISD has a seed.
    #[config(env = "SCION_TRACKER_SELECTION_RESERVE_WORLD", default = 2)]
    pub reserve_world: u16,

    /// Peers of a reply that are kept for those without a place.
    #[config(env = "SCION_TRACKER_SELECTION_RESERVE_UNPLACED", default = 2)]
    pub reserve_unplaced: u16,

    /// Mode "cap": peers of the requester's own AS, in percent of the reply.
    #[config(
        env = "SCION_TRACKER_SELECTION_CAP_PERCENT",
        default = 80,
        validate(*cap_percent <= 100, "cap_percent is at most 100")
    )]
    pub cap_percent: u16,

    /// Mode "cap": a reply with fewer peers is filled up to this many, nearest first.
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
    /// Whether to believe the ISD-AS that clients on plain IP claim: "accept", "prefix-only" (only the
    /// table below gives places) or "ignore" (nobody on plain IP has a place).
    #[config(
        env = "SCION_TRACKER_PLACE_POLICY",
        default = "accept",
        deserialize_with = value::text
    )]
    pub policy: PlacePolicy,

    /// Networks whose hosts may name another address than their own: with `ip=`, or with another host
    /// in `scion=`.
    #[config(
        env = "SCION_TRACKER_PLACES_TRUSTED",
        parse_env = value::networks_from_env,
        deserialize_with = value::networks,
        default = []
    )]
    pub trusted: Vec<IpNet>,

    /// Networks whose ISD-AS is known. The longest prefix wins, and overrides a claim that
    /// contradicts it. For example:
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
    /// Torrents.
    #[config(env = "SCION_TRACKER_TORRENTS", default = 4_000_000)]
    pub torrents: usize,

    /// Peers of one torrent.
    #[config(env = "SCION_TRACKER_PEERS_PER_TORRENT", default = 2_000_000)]
    pub peers_per_torrent: usize,

    /// Peers of one host (IPv6: of one /64) in all torrents together. Seedboxes with 12,000 torrents
    /// are usual, some have 100,000.
    #[config(env = "SCION_TRACKER_PEERS_PER_SOURCE", default = 100_000)]
    pub peers_per_source: u32,

    /// Peers of one host (IPv6: of one /64) in one torrent, so that no host can fill replies with
    /// ports of its own. 255 or more is no limit.
    #[config(env = "SCION_TRACKER_PEERS_PER_SOURCE_IN_TORRENT", default = 32)]
    pub peers_per_source_in_torrent: u32,

    /// Memory for torrents and peers.
    #[config(env = "SCION_TRACKER_MEMORY", default = "2GiB", deserialize_with = value::size)]
    pub memory: usize,

    /// How long a peer is kept after its last announce. Without it, one and a half announce
    /// intervals; never less than an interval and the tenth that is added to it.
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
    /// The topology file of the AS, usually /etc/scion/topology.json. Replies leave by the border
    /// routers that are named in it, and the ports of listen.scion are checked against it. With it
    /// and nothing in listen.scion, the tracker listens on port 31969.
    ///
    /// Without it, replies go back to the router that the request came from.
    #[config(env = "SCION_TRACKER_SCION_TOPOLOGY")]
    pub topology: Option<PathBuf>,

    /// The SCION daemon, usually "127.0.0.1:30255". It is asked once, at the start, for what the
    /// topology file says, if there is none: the ISD-AS, the border routers and the ports. With it
    /// and nothing in listen.scion, the tracker listens on port 31969.
    ///
    /// SCION_DAEMON or SCION_DAEMON_ADDRESS in the environment, which a host may have for all its
    /// programs, names one where nothing else does. When that daemon cannot help and nothing else
    /// asks for SCION, the tracker says so and does without SCION.
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
    /// Packets that wait for a worker, also on the sockets of HTTP/3. The kernel may allow less
    /// (net.core.rmem_max).
    #[config(
        env = "SCION_TRACKER_UDP_RECEIVE_BUFFER",
        default = "4MiB",
        deserialize_with = value::size
    )]
    pub receive_buffer: usize,

    /// How long a connection id is good, from two minutes to an hour. BEP 15 says two minutes; real
    /// clients go on using theirs for longer, and are answered with silence when it has expired.
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
    /// Certificate chain, a PEM file. It is read again on SIGHUP and when it has changed.
    ///
    /// Without it, the tracker makes a self-signed certificate and keeps it in the data directory.
    #[config(env = "SCION_TRACKER_TLS_CERT")]
    pub cert: Option<PathBuf>,

    /// Private key of the certificate, a PEM file.
    #[config(env = "SCION_TRACKER_TLS_KEY")]
    pub key: Option<PathBuf>,

    /// Names and addresses for the self-signed certificate, besides localhost and the host's name.
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

/// See [`Config::log`](super::Config::log).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Log {
    /// What is logged: error, warn, info, debug or trace, also by module, as in
    /// "info,scion_tracker::tls=debug".
    #[config(env = "SCION_TRACKER_LOG", default = "info")]
    pub level: String,

    /// "text" or "json".
    #[config(
        env = "SCION_TRACKER_LOG_FORMAT",
        default = "text",
        deserialize_with = value::text
    )]
    pub format: LogFormat,
}
