//! Shows the configuration that is in force: each setting with its value and where it comes from.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use humantime::format_duration;
use ipnet::IpNet;
use scion_tracker_core::access::{ClientPrefix, PlaceAcl};
use scion_tracker_core::address::IsdAs;
use scion_tracker_core::place::PlacePolicy;
use scion_tracker_core::select::Mode;
use scion_tracker_core::types::InfoHash;

use super::changes::settings;
use super::check::Sources;
use super::value::ClientHeader;
use super::{
    AccessAddresses, AdminListener, Config, Database, Facility, Http3Listener, Layer, Listener,
    LogFormat, LogTarget, PublicUrl, ScionListener, ScionTransports, Token, TorrentAccess,
    UdpListener,
};
use crate::scion::daemon::DaemonAddr;
use crate::server::listener::listeners;

/// How a value is written in the configuration file.
trait Shown {
    /// `None` if it is not set.
    fn toml(&self) -> Option<String>;
}

/// Every setting in force, in the format of the configuration file: a file with this text has the same
/// effect.
pub(super) fn effective(config: &Config, sources: &Sources) -> String {
    let mut text =
        String::from("# The configuration in force, and where each setting comes from.\n");
    let mut section = "";
    // Keys without a section come first, and the keys of a section stand together.
    let mut lines = lines(config, sources);
    lines.sort_by_key(|line| (!line.section.is_empty(), line.order));
    for Line {
        section: of,
        name,
        value,
        source,
        ..
    } in &lines
    {
        if *of != section {
            section = of;
            // Writing to a String cannot fail.
            let _ = write!(text, "\n[{section}]\n");
        }
        let _ = match value {
            Some(value) => writeln!(text, "{name} = {value}  # {source}"),
            None => writeln!(text, "#{name} =  # {source}"),
        };
    }
    text
}

/// Instead of a setting that is set and secret.
const SECRET: &str = "set, not shown";

struct Line {
    section: &'static str,
    name: &'static str,
    value: Option<String>,
    source: String,
    /// Position of the section in the table of settings.
    order: usize,
}

/// What a setting that is not set amounts to.
fn instead(key: &str, config: &Config) -> String {
    match key {
        "scion.endhost_port" => "not set: true if the port is free".into(),
        "log.to" => "not set: journald if standard error leads there, else stderr".into(),
        "workers" => format!("not set: {}, one per core", config.workers()),
        "records.database" => "not set: records.db in the data directory".into(),
        "registry.peer_lifetime" => format!(
            "not set: {}, one and a half of announce.interval",
            format_duration(config.peer_lifetime())
        ),
        "admin.token" if config.admin.token.is_some() => SECRET.into(),
        "admin.read_token" if config.admin.read_token.is_some() => SECRET.into(),
        _ => "not set".into(),
    }
}

macro_rules! generate {
    ($($when:ident { $($key:literal: $($field:ident).+,)* })*) => {
        fn lines(config: &Config, sources: &Sources) -> Vec<Line> {
            let mut lines = listeners(config, sources);
            $($({
                let value = config.$($field).+.toml();
                let source = match value {
                    Some(_) => sources.of($key, |layer: &Layer| layer.$($field).+.is_some()),
                    None => instead($key, config),
                };
                let (section, name) = $key.split_once('.').unwrap_or(("", $key));
                let order = lines.iter().position(|line| line.section == section);
                let order = order.unwrap_or(lines.len());
                lines.push(Line { section, name, value, source, order });
            })*)*
            lines
        }
    };
}
settings!(generate);

macro_rules! generate_listeners {
    ($({
        $(#[doc = $doc:tt])+
        $name:ident: $kind:ident = $listener:ty,
        settings: $settings:ident,
        env: $env:tt,
        default: $default:tt,
        flag: $flag:tt, $value:tt,
        besides: $besides:tt,
    })+) => {
        fn listeners(config: &Config, sources: &Sources) -> Vec<Line> {
            vec![$( Line {
                section: "listen",
                name: stringify!($name),
                value: config.listen.$name.toml(),
                source: sources.of(
                    concat!("listen.", stringify!($name)),
                    |layer: &Layer| layer.listen.$name.is_some(),
                ),
                order: 0,
            }, )+]
        }
    };
}
listeners!(generate_listeners);

/// A secret. [`instead`] says that it is set.
impl Shown for Token {
    fn toml(&self) -> Option<String> {
        None
    }
}

fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<_> = items.into_iter().collect();
    format!("[{}]", items.join(", "))
}

impl<T: Shown> Shown for Option<T> {
    fn toml(&self) -> Option<String> {
        self.as_ref().and_then(T::toml)
    }
}

impl<T: Shown> Shown for Vec<T> {
    fn toml(&self) -> Option<String> {
        Some(list(self.iter().filter_map(T::toml)))
    }
}

macro_rules! shown {
    ($($type:ty: $value:ident => $toml:expr,)+) => {
        $(
            impl Shown for $type {
                fn toml(&self) -> Option<String> {
                    let $value = self;
                    Some($toml)
                }
            }
        )+
    };
}
shown! {
    bool: it => it.to_string(),
    u16: it => it.to_string(),
    u32: it => it.to_string(),
    usize: it => it.to_string(),
    NonZeroUsize: it => it.to_string(),
    Duration: it => quoted(format_duration(*it)),
    String: it => quoted(it),
    PathBuf: it => quoted(it.display()),
    IpNet: it => quoted(it),
    ClientPrefix: it => quoted(it),
    PlaceAcl: it => list(it.entries().map(quoted)),
    BTreeMap<InfoHash, TorrentAccess>: it => {
        let pairs = it.iter().map(|(hash, rules)| format!("{hash} = {rules}"));
        format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
    },
    DaemonAddr: it => quoted(it),
    // Without the password, which has to be filled in before the text is used as a file.
    Database: it => quoted(it),
    Mode: it => quoted(match it {
        Mode::Prefer => "prefer",
        Mode::Cap => "cap",
        Mode::Random => "random",
    }),
    PlacePolicy: it => quoted(match it {
        PlacePolicy::Accept => "accept",
        PlacePolicy::PrefixOnly => "prefix-only",
        PlacePolicy::Ignore => "ignore",
    }),
    LogFormat: it => quoted(it.name()),
    LogTarget: it => quoted(it.name().display()),
    Facility: it => quoted(it.name()),
    AccessAddresses: it => quoted(it.name()),
    PublicUrl: it => quoted(it),
    BTreeMap<IpNet, IsdAs>: it => {
        let pairs = it.iter().map(|(net, ia)| format!("{} = {}", quoted(net), quoted(ia)));
        format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
    },
    UdpListener: it => quoted(it.address),
    AdminListener: it => match it.optional {
        false => quoted(it.address),
        true => format!("{{ address = {}, if_taken = \"warn\" }}", quoted(it.address)),
    },
    Listener: it => on_ip(it.address, &it.proxies, &it.header, it.proxy_protocol),
    Http3Listener: it => on_ip(it.address, &it.proxies, &it.header, false),
    ScionListener: it => {
        let ScionListener { host, port, transports } = it;
        let address = quoted(format_args!("{},[{}]:{port}", host.ia, host.ip()));
        match transports {
            ScionTransports::UdpAndQuic => address,
            ScionTransports::Udp => format!("{{ address = {address}, transports = [\"udp\"] }}"),
        }
    },
}

/// A listener as a text, or as a table if it has more settings.
fn on_ip(
    address: SocketAddr,
    proxies: &[IpNet],
    header: &ClientHeader,
    proxy_protocol: bool,
) -> String {
    let address = quoted(address);
    if proxies.is_empty() {
        return address;
    }
    let proxies = list(proxies.iter().map(quoted));
    let header = quoted(header.as_str());
    let proxy_protocol = match proxy_protocol {
        true => ", proxy_protocol = true",
        false => "",
    };
    format!("{{ address = {address}, proxies = {proxies}, header = {header}{proxy_protocol} }}")
}

#[cfg(test)]
mod tests {
    use confique::Layer as _;

    use super::super::check::Source;
    use super::super::load::{self, from_toml};
    use super::*;

    fn sources(file: &str, environment: &str, flags: &str) -> Sources {
        let layer = |text| from_toml("test.toml".as_ref(), text).unwrap();
        Sources::new(vec![
            (Source::Flags, layer(flags)),
            (Source::Environment, layer(environment)),
            (Source::file("test.toml".as_ref(), file), layer(file)),
        ])
    }

    fn shown(sources: Sources) -> (String, Config) {
        let (config, sources) = Config::join(sources).unwrap();
        (effective(&config, &sources), config)
    }

    #[test]
    fn each_setting_has_its_value_and_source() {
        let (text, _) = shown(sources(
            "workers = 3\n[announce]\n\ninterval = '20m'\nmin_interval = 60\n[places.prefixes]\n'10.0.0.0/8' = '1-1'\n",
            "announce.numwant = 7",
            "announce.min_interval = 90",
        ));
        for line in [
            "workers = 3  # test.toml:1",
            "#data_dir =  # not set",
            "interval = \"20m\"  # test.toml:4",
            "min_interval = \"1m 30s\"  # a flag",
            "numwant = 7  # SCION_TRACKER_NUMWANT",
            "numwant_max = 200  # default",
            "prefixes = { \"10.0.0.0/8\" = \"1-1\" }  # test.toml:6",
            "#peer_lifetime =  # not set: 30m, one and a half of announce.interval",
            "receive_buffer = 4194304  # default",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
    }

    #[test]
    fn what_the_host_says_is_named() {
        let layer = |text| from_toml("host".as_ref(), text).unwrap();
        let host = "memory = '1GiB'\nscion.daemon = '127.0.0.1:30255'";
        let (text, _) = shown(Sources::new(vec![(Source::Host, layer(host))]));
        for line in [
            "memory = 1073741824  # what fits this host",
            "daemon = \"127.0.0.1:30255\"  # SCION_DAEMON or SCION_DAEMON_ADDRESS",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let (text, _) = shown(sources(
            "admin.token = 'MyAccessToken'",
            "admin.read_token = 'MyReadToken'",
            "",
        ));
        assert!(text.contains("#token =  # set, not shown\n"), "{text}");
        assert!(text.contains("#read_token =  # set, not shown\n"), "{text}");
        assert!(
            !text.contains("MyAccess") && !text.contains("MyRead"),
            "{text}"
        );
    }

    #[test]
    fn a_file_with_this_text_has_the_same_effect() {
        let everything = "
            data_dir = '/a b/\"c'
            workers = 2
            listen.udp = ['[::1]:1', '127.0.0.1:2']
            listen.http = [{ address = '[::]:3', proxies = ['10.0.0.0/8'], proxy_protocol = true }]
            listen.http3 = [{ address = '[::]:4', proxies = ['::1'], header = 'x-real-ip' }]
            listen.scion = ['1-ff00:0:110,[10.0.0.1]:5', { address = '1-ff00:0:110,[::1]:6', transports = ['udp'] }]
            listen.admin = ['[::1]:7', { address = '127.0.0.1:8', if_taken = 'warn' }]
            admin = { socket = false, token_file = '/tokens', tls = true, allow_plain = true }
            access.private = true
            access.passkeys = '/keys'
            access.deny_networks = ['192.0.2.0/24']
            access.allow_clients = ['-qB', '-T\\']
            access.isd_as = ['- 1-ff00:0:110', '+ 1-0', '-']
            access.announces_per_second = 0
            access.unlimited = []
            records.database = 'sqlite:/var/lib/records.db'
            records.flush_interval = '500ms'
            announce.interval = '31m'
            selection.mode = 'cap'
            places.policy = 'prefix-only'
            places.trusted = ['192.0.2.0/24', '2001:db8::1']
            registry.peer_lifetime = '2h'
            scion.daemon = '127.0.0.1:30255'
            tls = { cert = 'a', key = 'b', names = ['x', 'y'] }
            log = { level = 'info,h2=warn', format = 'json' }
            [places.prefixes]
            '10.0.0.0/8' = '1-ff00:0:110'
            [access.torrents]
            0101010101010101010101010101010101010101 = { isds = [64, 65], proven = true }
            [access.torrents.0202020202020202020202020202020202020202]
            isds = []
            allow_networks = ['10.0.0.0/8', '::1']
            deny_networks = ['10.1.0.0/16']
            allow_clients = ['-TR']
            deny_clients = ['-TR2']
            isd_as = ['-']
        ";
        for file in ["", everything] {
            let (text, config) = shown(sources(file, "", ""));
            let again = from_toml("again.toml".as_ref(), &text)
                .unwrap_or_else(|error| panic!("{error}: {text}"));
            let layers = vec![
                (Source::Flags, again),
                (Source::Environment, Layer::empty()),
            ];
            let (again, _) = Config::join(Sources::new(layers)).unwrap();
            assert_eq!(again, config, "{text}");
        }
    }

    #[test]
    fn keys_are_found_in_every_way_to_write_them() {
        let lines = load::lines(
            "workers = 1\nannounce.interval = 5\nlog = { level = 'info',\n format = 'json' }\n[[listen.http]]\naddress = '1'\n[[listen.http]]\naddress = '2'\n",
        );
        let line = |key: &str| lines.get(key).copied();
        assert_eq!(line("workers"), Some(1));
        assert_eq!(line("announce.interval"), Some(2));
        assert_eq!(line("log.format"), Some(4));
        assert_eq!(line("listen.http"), Some(5));
        assert_eq!(line("listen.udp"), None);
    }
}
