//! The configuration: TOML file, environment and flags, in that order of precedence upward.
//!
//! The doc comments of these structs are the reference: `scion-tracker config print` prints them
//! with the defaults, so they speak to operators. The defaults run as they are.

mod connections;
mod load;
mod value;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use confique::Layer as _;
use ipnet::IpNet;
use scion_tracker_core::address::IsdAs;
use scion_tracker_core::place::{PlacePolicy, Places as PlaceRules};
use scion_tracker_core::registry::memory::Ceilings;
use scion_tracker_core::select::{Mode, Policy};
use scion_tracker_core::tracker::Terms;

pub use connections::Connections;
pub(crate) use load::strangers;
pub use load::{ConfigError, template};
pub(crate) use value::parse_duration;
pub use value::{Listener, ListenerError, LogFormat, LogFormatError};

/// Settings that one source (file, environment, flags) makes; the rest is left to the others.
pub type Layer = <Config as confique::Config>::Layer;

/// Configuration of scion-tracker.
///
/// A flag beats an environment variable, which beats this file. Every value may be left out. The
/// values shown are the defaults.
///
/// Durations are a number of seconds or a text such as "30m" or "1h 30m"; sizes a number of bytes
/// or a text such as "512MiB"; networks are written as 10.1.0.0/16 or 2001:db8::/32.
#[derive(Debug, Clone, PartialEq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
pub struct Config {
    /// Where the tracker keeps what has to survive a restart: today its self-signed certificate.
    ///
    /// Without it: $STATE_DIRECTORY (set by systemd), else $XDG_STATE_HOME/scion-tracker, else
    /// ~/.local/state/scion-tracker. If none of these can be written, nothing is kept.
    #[config(env = "SCION_TRACKER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Workers for each UDP, HTTP and HTTPS listener, each with a socket of its own. Without it, one
    /// a core.
    #[config(env = "SCION_TRACKER_WORKERS")]
    pub workers: Option<NonZeroUsize>,

    /// Where the tracker listens. Any number of listeners of each kind.
    ///
    /// As soon as the file, the environment or the flags name one listener, they name them all:
    /// kinds that are not named there are off.
    ///
    /// A listener is an address with a port ("[::]:6969" also serves IPv4; port 0 takes a free one),
    /// or a table, for a listener behind proxies:
    ///
    /// ```toml
    /// [[listen.http]]
    /// address = "10.0.0.1:80"
    /// # Proxies that are believed about where a request comes from (Forwarded, X-Forwarded-For,
    /// # PROXY protocol).
    /// proxies = ["10.0.0.0/24"]
    /// # Whether these proxies begin each connection with a PROXY protocol version 2 header.
    /// proxy_protocol = false
    /// ```
    #[config(nested)]
    pub listen: Listen,

    /// What announcing clients are told.
    #[config(nested)]
    pub announce: Announce,

    /// Which peers a requester gets, by place: its own AS, its own ISD, other ISDs, no place.
    #[config(nested)]
    pub selection: Selection,

    /// Where requesters over plain IP are in the SCION Internet. Requests over SCION prove it
    /// themselves.
    #[config(nested)]
    pub places: Places,

    /// What the tracker holds in memory at most, and for how long. Newcomers are refused at a
    /// ceiling; those who are in are served as ever.
    #[config(nested)]
    pub registry: Registry,

    /// What a client may use of connections, bytes and time, over TCP and QUIC.
    #[config(nested)]
    pub connections: Connections,

    /// UDP trackers.
    #[config(nested)]
    pub udp: Udp,

    /// Certificate for HTTPS and HTTP/3.
    #[config(nested)]
    pub tls: Tls,

    /// The log, on standard error.
    #[config(nested)]
    pub log: Log,
}

/// See [`Config::listen`].
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
pub struct Listen {
    /// UDP trackers (BEP 15).
    #[config(env = "SCION_TRACKER_UDP", parse_env = value::list, default = ["[::]:6969"])]
    pub udp: Vec<Listener>,

    /// HTTP/1.1 and HTTP/2 without TLS.
    #[config(env = "SCION_TRACKER_HTTP", parse_env = value::list, default = ["[::]:6969"])]
    pub http: Vec<Listener>,

    /// HTTP/1.1 and HTTP/2 over TLS.
    #[config(env = "SCION_TRACKER_HTTPS", parse_env = value::list, default = ["[::]:6443"])]
    pub https: Vec<Listener>,

    /// HTTP/3.
    #[config(env = "SCION_TRACKER_HTTP3", parse_env = value::list, default = ["[::]:6443"])]
    pub http3: Vec<Listener>,
}

/// See [`Config::announce`].
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
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
        validate(*numwant_max <= 2000, "numwant_max is at most 2000")
    )]
    pub numwant_max: u32,
}

/// See [`Config::selection`].
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
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
    #[config(env = "SCION_TRACKER_SELECTION_RESERVE_ISD", default = 2)]
    pub reserve_isd: u16,

    /// Peers of a reply that are kept for other ISDs.
    #[config(env = "SCION_TRACKER_SELECTION_RESERVE_WORLD", default = 2)]
    pub reserve_world: u16,

    /// Peers of a reply that are kept for those without a place.
    #[config(env = "SCION_TRACKER_SELECTION_RESERVE_UNPLACED", default = 2)]
    pub reserve_unplaced: u16,

    /// Mode "cap": peers of the requester's own AS, in percent of the reply.
    #[config(
        env = "SCION_TRACKER_SELECTION_CAP_PERCENT",
        default = 60,
        validate(*cap_percent <= 100, "cap_percent is at most 100")
    )]
    pub cap_percent: u16,

    /// Mode "cap": a reply with fewer peers is filled up to this many, nearest first.
    #[config(env = "SCION_TRACKER_SELECTION_CAP_FLOOR", default = 10)]
    pub cap_floor: u16,
}

/// See [`Config::places`].
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
pub struct Places {
    /// What becomes of a place that a client claims: "accept", "prefix-only" (only the table below
    /// gives places) or "ignore" (nobody on plain IP has a place).
    #[config(
        env = "SCION_TRACKER_PLACE_POLICY",
        default = "accept",
        deserialize_with = value::text
    )]
    pub policy: PlacePolicy,

    /// Networks whose word on addresses is taken: `ip=`, and `scion=` with another host than the one
    /// that is seen.
    #[config(env = "SCION_TRACKER_PLACES_TRUSTED", parse_env = value::list, default = [])]
    pub trusted: Vec<IpNet>,

    /// Networks whose ISD-AS is known. It overrides a claim that contradicts it. For example:
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

/// See [`Config::registry`].
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
pub struct Registry {
    /// Torrents.
    #[config(env = "SCION_TRACKER_TORRENTS", default = 4_000_000)]
    pub torrents: usize,

    /// Peers of one torrent.
    #[config(env = "SCION_TRACKER_PEERS_PER_TORRENT", default = 2_000_000)]
    pub peers_per_torrent: usize,

    /// Peers of one host (IPv6: of one /64) in all torrents together.
    #[config(env = "SCION_TRACKER_PEERS_PER_SOURCE", default = 10_000)]
    pub peers_per_source: u32,

    /// Memory for torrents and peers.
    #[config(env = "SCION_TRACKER_MEMORY", default = "2GiB", deserialize_with = value::size)]
    pub memory: usize,

    /// How long a peer is kept after its last announce. Longer than an announce interval and the
    /// tenth that is added to it.
    #[config(
        env = "SCION_TRACKER_PEER_LIFETIME",
        default = "45m",
        deserialize_with = value::duration
    )]
    pub peer_lifetime: Duration,
}

/// See [`Config::udp`].
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
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

/// See [`Config::tls`].
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
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

/// See [`Config::log`].
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
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

impl Default for Config {
    fn default() -> Self {
        #[expect(
            clippy::expect_used,
            reason = "the defaults are literals, and a test loads them"
        )]
        <Self as confique::Config>::from_layer(Layer::default_values()).expect("defaults are whole")
    }
}

impl Config {
    /// Workers of each listener.
    pub(crate) fn workers(&self) -> NonZeroUsize {
        self.workers
            .or_else(|| thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN)
    }

    /// The tracker's terms.
    pub(crate) fn terms(&self) -> Terms {
        Terms {
            interval: seconds(self.announce.interval),
            min_interval: seconds(self.announce.min_interval),
            numwant_default: self.announce.numwant,
            numwant_max: self.announce.numwant_max,
            policy: Policy {
                mode: self.selection.mode,
                reserve_isd: self.selection.reserve_isd,
                reserve_world: self.selection.reserve_world,
                reserve_unplaced: self.selection.reserve_unplaced,
                cap_percent: self.selection.cap_percent,
                cap_floor: self.selection.cap_floor,
            },
            places: PlaceRules::new(
                self.places.policy,
                self.places
                    .prefixes
                    .iter()
                    .map(|(net, ia)| (*net, *ia))
                    .collect(),
                self.places.trusted.clone(),
            ),
        }
    }

    /// What the registry may hold.
    pub(crate) fn ceilings(&self) -> Ceilings {
        Ceilings {
            torrents: self.registry.torrents,
            peers_per_torrent: self.registry.peers_per_torrent,
            peers_per_source: self.registry.peers_per_source,
            memory: self.registry.memory,
            peer_lifetime: seconds(self.registry.peer_lifetime),
        }
    }

    /// What no single value shows to be wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self {
            announce,
            registry,
            tls,
            listen,
            ..
        } = self;
        if announce.min_interval > announce.interval {
            return Err("announce.min_interval is longer than announce.interval".into());
        }
        if announce.numwant > announce.numwant_max {
            return Err("announce.numwant is more than announce.numwant_max".into());
        }
        if registry.peer_lifetime <= announce.interval.mul_f32(1.1) {
            return Err(
                "registry.peer_lifetime is not longer than announce.interval and a tenth: peers would be forgotten before they return"
                    .into(),
            );
        }
        if tls.cert.is_some() != tls.key.is_some() {
            return Err("tls.cert and tls.key go together".into());
        }
        let Listen {
            udp,
            http,
            https,
            http3,
        } = listen;
        if [udp, http, https, http3].iter().all(|list| list.is_empty()) {
            return Err("no listener is named in listen".into());
        }
        let framed = udp
            .iter()
            .chain(http3)
            .find(|listener| listener.proxy_protocol);
        if let Some(Listener { address, .. }) = framed {
            return Err(format!(
                "the PROXY protocol is for listen.http and listen.https, not for the datagrams of {address}"
            ));
        }
        if let Some(Listener { address, .. }) = udp.iter().find(|it| !it.proxies.is_empty()) {
            return Err(format!(
                "listen.udp: nothing in a packet to {address} speaks for a proxy"
            ));
        }
        if let Some(Listener { address, .. }) = http
            .iter()
            .chain(https)
            .find(|it| it.proxy_protocol && it.proxies.is_empty())
        {
            return Err(format!(
                "the listener {address} has proxy_protocol without proxies"
            ));
        }
        Ok(())
    }
}

/// Whole seconds, at least one: the core counts in them.
fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs())
        .unwrap_or(u32::MAX)
        .clamp(1, value::LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The template with every setting that has a default taken out of its comment.
    fn all_defaults() -> String {
        template()
            .lines()
            .filter_map(|line| match line.strip_prefix('#') {
                Some(setting) if !setting.starts_with(' ') => {
                    Some(setting).filter(|setting| !setting.ends_with('='))
                }
                _ => Some(line),
            })
            .map(|line| format!("{line}\n"))
            .collect()
    }

    fn from_toml(text: &str) -> Result<Config, ConfigError> {
        load::from_toml("test.toml".as_ref(), text).and_then(|layer| Config::from_layers([layer]))
    }

    #[test]
    fn the_template_says_the_defaults() {
        assert_eq!(from_toml(&template()).unwrap(), Config::default());
        let settings = all_defaults();
        assert!(settings.contains("\ninterval = \"30m\"\n"), "{settings}");
        assert_eq!(from_toml(&settings).unwrap(), Config::default());
    }

    #[test]
    fn the_defaults_are_those_of_the_core() {
        let config = Config::default();
        config.check().unwrap();
        assert_eq!(
            format!("{:?}", config.terms()),
            format!("{:?}", Terms::default())
        );
        assert_eq!(config.ceilings(), Ceilings::default());
    }

    #[test]
    fn a_source_that_names_a_listener_names_them_all() {
        let layer = |text| load::from_toml("test.toml".as_ref(), text).unwrap();
        let file = layer("listen.udp = ['[::]:1', { address = '[::]:2' }]");
        let config = Config::from_layers([Layer::empty(), file.clone()]).unwrap();
        assert_eq!(config.listen.udp.len(), 2);
        assert!(config.listen.http.is_empty());
        let flags = layer("listen.http = ['[::]:3']");
        let config = Config::from_layers([flags, file]).unwrap();
        assert!(config.listen.udp.is_empty());
        assert_eq!(config.listen.http.len(), 1);
    }

    fn check_wrong(text: &str, expected: &str) {
        let error = from_toml(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, expected) in [
            ("nonsense = 1", "test.toml:1:1: unknown field `nonsense`"),
            (
                "\n\n[announce]\n intervall = 1",
                ":4:2: unknown field `intervall`",
            ),
            ("[announce]\nintervall = 1", "did you mean `interval`?"),
            (
                "[announce]\ninterval = 0",
                ":2:12: invalid value: integer `0`, expected a duration",
            ),
            ("[places]\npolicy = 'no'", ":2:10: a place policy is"),
            (
                "[places.prefixes]\n'10.0.0.0/8' = '1-0'",
                ":2:16: an ISD-AS with a zero",
            ),
            ("[places.prefixes]\n'10.0.0.0/33' = '1-1'", ":2:1: "),
            (
                "[[listen.http]]\naddress = '1'\nproxy = []",
                ":3:1: unknown field `proxy`",
            ),
            ("[selection]\ncap_percent = 101", ":2:15: "),
            (
                "[registry]\nmemory = 'much'",
                ":2:10: invalid value: string \"much\"",
            ),
            (
                "announce.interval = '2h'",
                "registry.peer_lifetime is not longer",
            ),
            ("announce.numwant = 201", "announce.numwant is more than"),
            ("tls.cert = 'cert.pem'", "tls.cert and tls.key go together"),
            ("[listen]\nudp = []", "no listener"),
            ("a = ", ":1:5: "),
        ] {
            check_wrong(text, expected);
        }
    }
}
