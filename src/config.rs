//! The configuration: from a TOML file, the environment and flags. Flags override the environment, which
//! overrides the file.
//!
//! The doc comments of these structs are the reference for operators: `scion-tracker config print` prints
//! them with the defaults. The defaults run as they are.

mod access;
mod admin;
mod changes;
mod check;
mod connections;
mod effective;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[expect(
    unnameable_types,
    unreachable_pub,
    reason = "confique derives a layer, which the lints accept except inside a macro"
)]
mod listener;
mod load;
mod log;
mod page;
mod public_url;
mod records;
mod sections;
mod snapshot;
mod value;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use confique::Layer as _;
use scion_tracker_core::place::Places as PlaceRules;
use scion_tracker_core::registry::memory::Ceilings;
use scion_tracker_core::select::Policy;
use scion_tracker_core::tracker::Terms;

use crate::budget::{self, Budget};
use crate::transport::Limits;
pub(crate) use access::rules;
pub use access::{Access, TorrentAccess};
pub use admin::{Admin, Token, TokenError};
pub use changes::Changes;
use check::Sources;
pub use connections::Connections;
pub use listener::{
    AdminListener, Http3Listener, Listen, Listener, ListenerError, ScionListener, ScionTransports,
    UdpListener,
};
pub use load::{ConfigError, template, unknown_variables};
pub use log::{
    AccessAddresses, AccessAddressesError, Facility, FacilityError, Log, LogFormat, LogFormatError,
    LogTarget, LogTargetError,
};
pub use page::Page;
pub use public_url::PublicUrl;
pub use records::{Database, DatabaseError, Records};
pub use sections::{Announce, Places, Registry, Scion, Selection, Tls, Udp};
pub use snapshot::Snapshot;
#[cfg(feature = "cli")]
pub(crate) use value::parse_duration;
pub use value::{ClientHeader, ClientHeaderError};

/// Settings of one source (file, environment, flags). Those it does not set are left to the others.
pub type Layer = <Config as confique::Config>::Layer;

/// Configuration of scion-tracker.
///
/// A flag overrides an environment variable, which overrides this file. An empty variable counts as not
/// set. Every value may be left out. The values shown are the defaults.
///
/// Durations are a number of seconds or a text such as "30m" or "1h 30m"; sizes a number of bytes
/// or a text such as "512MiB"; networks are written as 10.1.0.0/16 or 2001:db8::/32.
#[derive(Debug, Clone, PartialEq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Config {
    /// Directory for what must survive a restart: the records, the snapshot of the swarms, the self-signed
    /// certificate, and the secrets of UDP connection ids (readable only by the owner).
    ///
    /// Without it: $STATE_DIRECTORY (set by systemd), else $XDG_STATE_HOME/scion-tracker, else
    /// ~/.local/state/scion-tracker. If none of these can be written, nothing is kept.
    #[config(env = "SCION_TRACKER_DATA_DIR", parse_env = value::path)]
    pub data_dir: Option<PathBuf>,

    /// Most memory of the whole tracker. Half of it is for torrents and peers (`registry.memory`), a
    /// quarter for connections (`connections.memory`). The last quarter is for the program itself and
    /// for what the memory allocator and the kernel use besides.
    ///
    /// Without it: three quarters of the limit of the control group (container, systemd unit) or half
    /// of the memory of the host, whichever is less, and at most 4GiB; or more if registry.memory or
    /// connections.memory needs it. A program that embeds the tracker and does not load the
    /// configuration gets 4GiB.
    #[config(
        env = "SCION_TRACKER_MEMORY",
        deserialize_with = value::size,
        validate(*memory >= 64 << 20, "memory is at least 64MiB")
    )]
    pub memory: Option<usize>,

    /// Workers per UDP, HTTP, HTTPS and HTTP/3 listener, each with its own socket. Without it, one per
    /// core. A SCION listener has one: border routers send the packets of all clients from one
    /// address, so the kernel could not divide them.
    #[config(env = "SCION_TRACKER_WORKERS")]
    pub workers: Option<NonZeroUsize>,

    /// URLs that clients announce to, as the outside sees them: "udp://tracker.example:6969/announce". The
    /// start prints them, and the page and the API show them. The self-signed certificate also names their
    /// hosts. Without them: the addresses that the tracker listens on.
    #[config(
        env = "SCION_TRACKER_PUBLIC_URLS",
        parse_env = value::list,
        default = []
    )]
    pub public_urls: Vec<PublicUrl>,

    /// Where the tracker listens. Any number of listeners of each kind.
    ///
    /// If the file, the environment or the flags name one listener, they name them all: kinds that
    /// they do not name are off. SCION and admin listeners do not count: they are in addition to the
    /// others.
    ///
    /// A listener is an address with a port (`[::]:6969` also serves IPv4; port 0 takes a free one),
    /// or a table for more settings:
    ///
    /// ```toml
    /// [[listen.http]]
    /// address = "10.0.0.1:80"
    /// # http, https, http3: proxies that are trusted to name the client of a request: networks, or
    /// # single addresses.
    /// proxies = ["10.0.0.0/24", "192.0.2.7"]
    /// # The header in which they name it: "x-forwarded-for", "forwarded" (RFC 7239), or any other with
    /// # an address in it, such as "x-real-ip" or "cf-connecting-ip". Other headers are ignored.
    /// # Announces through a trusted proxy without such an address are refused.
    /// header = "x-forwarded-for"
    /// # http, https: whether these proxies begin each connection with a PROXY protocol header,
    /// # version 1 or 2.
    /// proxy_protocol = false
    ///
    /// [[listen.scion]]
    /// address = "1-ff00:0:110,[10.0.0.1]:31969"
    /// # What is served there. UDP alone needs no certificate.
    /// transports = ["udp", "quic"]
    ///
    /// [[listen.admin]]
    /// address = "127.0.0.1:1212"
    /// # If the address is taken: "fail", or "warn" and run without it.
    /// if_taken = "warn"
    /// ```
    ///
    /// In the environment, a list is separated by commas or spaces.
    #[config(nested)]
    pub listen: Listen,

    /// Who may use the tracker: everyone, or those with a passkey; for all torrents or for listed ones. What
    /// each rule is worth: docs/access.md.
    #[config(nested)]
    pub access: Access,

    /// The admin API, served where `listen.admin` says and on a Unix socket in the data directory. See
    /// docs/api.md.
    ///
    /// Without a token, only the Unix socket serves everything, and TCP on loopback serves statistics.
    #[config(nested)]
    pub admin: Admin,
    /// Records: passkeys, lists, rules and bans that are changed at run time, and counts of completed
    /// downloads. See docs/records.md.
    #[config(nested)]
    pub records: Records,

    /// The page of statistics. Admin listeners serve it at / and /stats.
    #[config(nested)]
    pub page: Page,

    /// Intervals and numbers of peers for clients.
    #[config(nested)]
    pub announce: Announce,

    /// Which peers a client gets, by their place (ISD-AS): its own AS, its own ISD, other ISDs, no place.
    #[config(nested)]
    pub selection: Selection,

    /// The ISD-AS of clients over plain IP. Requests over SCION prove their own.
    #[config(nested)]
    pub places: Places,

    /// Limits of what the tracker holds in memory, and how long. At a limit new peers are refused; known
    /// peers are still served.
    #[config(nested)]
    pub registry: Registry,

    /// The swarms in the data directory, so that they survive a restart. See docs/snapshot.md.
    #[config(nested)]
    pub snapshot: Snapshot,

    /// Limits of connections, bytes and time for clients over TCP and QUIC.
    #[config(nested)]
    pub connections: Connections,

    /// UDP trackers.
    #[config(nested)]
    pub udp: Udp,

    /// SCION.
    #[config(nested)]
    pub scion: Scion,

    /// Certificate for HTTPS and HTTP/3.
    #[config(nested)]
    pub tls: Tls,

    /// The log, and the access log.
    #[config(nested)]
    pub log: Log,
}

#[cfg(test)]
impl Config {
    /// For a tracker that leaves nothing behind: one HTTP listener on a free port of 127.0.0.1, records in
    /// memory, no snapshots, no admin API.
    pub(crate) fn of_a_test() -> Self {
        let mut listen = Listen::none();
        listen.http = vec![Listener::from(std::net::SocketAddr::from((
            [127, 0, 0, 1],
            0,
        )))];
        let mut config = Self {
            listen,
            ..Self::default()
        };
        config.admin.socket = false;
        config.snapshot.enabled = false;
        config.records.database = Some(Database::Memory);
        config
    }
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
            )
            .with_local(self.places.local.iter().copied()),
        }
    }

    /// How the memory is divided. `memory` is the whole, and its default that of an embedding program.
    pub(crate) fn budget(&self) -> Budget {
        let (registry, connections) = (self.registry.memory, self.connections.memory);
        let default = || budget::DEFAULT.max(Budget::total_for(registry, connections));
        let total = self.memory.unwrap_or_else(default);
        Budget::divide(total, registry, connections)
    }

    /// What clients over TCP and QUIC may use.
    pub(crate) fn limits(&self) -> Limits {
        self.connections.limits(self.budget().connections)
    }

    /// How long a peer is kept. See [`Registry::peer_lifetime`].
    pub(crate) fn peer_lifetime(&self) -> Duration {
        let usual = || self.announce.interval.saturating_mul(3) / 2;
        self.registry.peer_lifetime.unwrap_or_else(usual)
    }

    /// What the registry may hold.
    pub(crate) fn ceilings(&self) -> Ceilings {
        Ceilings {
            torrents: self.registry.torrents,
            peers_per_torrent: self.registry.peers_per_torrent,
            peers_per_source: self.registry.peers_per_source,
            peers_per_source_in_torrent: self.registry.peers_per_source_in_torrent,
            memory: self.budget().registry,
            peer_lifetime: seconds(self.peer_lifetime()),
            evict_after: self.evict_after(),
        }
    }

    /// Seconds without an announce after which a swarm may be evicted: three quarters of the peer
    /// lifetime, but never so few that a peer which announces on time could be evicted.
    fn evict_after(&self) -> u32 {
        let longest = Ceilings::longest_silence(seconds(self.announce.interval));
        longest.max(seconds(self.peer_lifetime()) / 4 * 3)
    }

    /// Whether a tracker that cannot listen over SCION fails.
    pub(crate) fn asks_for_scion(&self) -> bool {
        let Scion {
            topology, daemon, ..
        } = &self.scion;
        let named = daemon.as_ref().is_some_and(|it| !it.is_of_host());
        named || topology.is_some() || !self.listen.scion.is_empty()
    }

    /// Finds settings that contradict each other.
    pub(crate) fn check(&self) -> Result<(), String> {
        check::check(self, &Sources::default())
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

    fn from_layers(layers: impl IntoIterator<Item = Layer>) -> Result<Config, ConfigError> {
        let layers = layers.into_iter();
        let layers = layers.map(|layer| (check::Source::Flags, layer));
        Config::join(Sources::new(layers.collect())).map(|(config, _)| config)
    }

    fn from_toml(text: &str) -> Result<Config, ConfigError> {
        load::from_toml("test.toml".as_ref(), text).and_then(|layer| from_layers([layer]))
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

    /// Whatever is accepted, a peer that announces on time is neither evicted nor forgotten.
    #[test]
    fn the_shortest_lifetime_keeps_peers_that_are_on_time() {
        for interval in [1, 7, 60, 299, 1800, 7200, 43_200] {
            let longest = Ceilings::longest_silence(interval);
            let with_lifetime = |lifetime| {
                let text = format!(
                    "announce.interval = {interval}\nannounce.min_interval = 1\nregistry.peer_lifetime = {lifetime}"
                );
                from_toml(&text)
            };
            assert!(with_lifetime(longest - 1).is_err(), "{interval}");
            for lifetime in [longest, longest + 1, longest * 5 / 4, longest * 4 / 3 + 4] {
                let ceilings = with_lifetime(lifetime).unwrap().ceilings();
                assert!(ceilings.evict_after >= longest, "{interval} {lifetime}");
                assert!(ceilings.evict_after <= ceilings.peer_lifetime);
            }
        }
    }

    #[test]
    fn a_source_that_names_a_listener_names_them_all() {
        let layer = |text| load::from_toml("test.toml".as_ref(), text).unwrap();
        let file = layer("listen.udp = ['[::]:1', { address = '[::]:2' }]");
        let config = from_layers([Layer::empty(), file.clone()]).unwrap();
        assert_eq!(config.listen.udp.len(), 2);
        assert!(config.listen.http.is_empty());
        let scion = layer("listen.scion = ['1-ff00:0:110,[10.0.0.1]:31969']");
        let config = from_layers([scion, Layer::empty()]).unwrap();
        assert_eq!((config.listen.scion.len(), config.listen.udp.len()), (1, 1));
        let flags = layer("listen.http = ['[::]:3']");
        let config = from_layers([flags, file]).unwrap();
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
            (
                "[[listen.udp]]\naddress = '1'\nproxies = []",
                ":3:1: unknown field `proxies`",
            ),
            (
                "[[listen.http3]]\naddress = '1'\nproxy_protocol = true",
                ":3:1: unknown field `proxy_protocol`",
            ),
            (
                "listen.http = [{ address = '1', proxy_protocol = true }]",
                "listen.http: the listener [::]:1 has proxy_protocol = true and no proxies",
            ),
            (
                "listen.http = [{ address = '1', header = 'x-real-ip' }]",
                "listen.http: the listener [::]:1 has header = \"x-real-ip\" and no proxies",
            ),
            (
                "listen.http3 = [{ address = '1', header = 'forwarded' }]",
                "listen.http3: the listener [::]:1 has header = \"forwarded\" and no proxies",
            ),
            ("listen.htp = ['1']", "did you mean `http`?"),
            ("[selection]\ncap_percent = 101", ":2:15: "),
            (
                "[registry]\nmemory = 'much'",
                ":2:10: invalid value: string \"much\"",
            ),
            (
                "announce.interval = '1h'\nregistry.peer_lifetime = '1h'",
                "registry.peer_lifetime = 1h (set by a flag) is shorter than 1h 6m 8s",
            ),
            (
                "announce.interval = '30m'\nregistry.peer_lifetime = '33m'",
                "registry.peer_lifetime = 33m (set by a flag) is shorter than 33m 8s",
            ),
            (
                "announce.numwant = 201",
                "is more than announce.numwant_max",
            ),
            ("tls.cert = 'cert.pem'", "needs tls.key, which is not set"),
            ("registry.torrents = 0", ":1:21: "),
            ("registry.memory = 1", ":1:19: "),
            ("udp.receive_buffer = 0", ":1:22: "),
            ("udp.receive_buffer = '2GiB'", ":1:22: "),
            ("announce.numwant_max = 0", ":1:24: "),
            ("connections.tcp = 0", ":1:19: "),
            ("[listen]\nudp = []", "no listener"),
            ("a = ", ":1:5: "),
        ] {
            check_wrong(text, expected);
        }
    }
}
