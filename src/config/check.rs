//! Finds settings that are valid one by one and contradict each other. An error names the keys, their
//! values and where each was set.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use confique::meta::{FieldKind, Meta};
use confique::{Config as _, Layer as _};
use humantime::format_duration;
use scion_tracker_core::registry::memory::Ceilings;

use super::listener::Taken;
use super::{Config, Layer, Listen, load};
use crate::budget::Budget;
use crate::records;

/// The longest lifetime that the registry can measure.
const LONGEST_LIFETIME: Duration = Duration::from_secs(72 * 3600);

/// The least part of the memory for torrents and peers, and for connections.
const LEAST_PART: usize = 1 << 20;

/// Where a setting can come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Flags,
    Environment,
    File {
        path: PathBuf,
        /// The line of each key.
        lines: BTreeMap<String, usize>,
    },
    /// What the host says: variables that it has for all its programs, and the size of its memory.
    Host,
}

impl Source {
    /// A file with this text.
    pub(super) fn file(path: &Path, text: &str) -> Self {
        Self::File {
            path: path.into(),
            lines: load::lines(text),
        }
    }

    /// What set this key, in this source.
    fn name(&self, key: &str) -> String {
        match self {
            Self::Flags => "a flag".into(),
            Self::Environment => match variable(&Config::META, key) {
                Some(variable) => variable.into(),
                None => "the environment".into(),
            },
            Self::File { path, lines } => match lines.get(key) {
                Some(line) => format!("{}:{line}", path.display()),
                None => path.display().to_string(),
            },
            Self::Host if key == "memory" => "what fits this host".into(),
            Self::Host => "SCION_DAEMON or SCION_DAEMON_ADDRESS".into(),
        }
    }
}

/// All layers of a configuration, the strongest first. Empty if a program made the configuration.
#[derive(Debug, Default)]
pub(super) struct Sources(Vec<(Source, Layer)>);

impl Sources {
    pub(super) const fn new(layers: Vec<(Source, Layer)>) -> Self {
        Self(layers)
    }

    /// Completes each layer by itself.
    pub(super) fn complete(&mut self, complete: fn(Layer) -> Layer) {
        for (_, layer) in &mut self.0 {
            *layer = complete(layer.clone());
        }
    }

    /// The layers joined, over the defaults.
    pub(super) fn join(&self) -> Layer {
        let layers = self.0.iter().map(|(_, layer)| layer.clone());
        layers
            .chain([Layer::default_values()])
            .fold(Layer::empty(), Layer::with_fallback)
    }

    /// "KEY = VALUE", and where it was set.
    fn setting(
        &self,
        key: &str,
        value: impl fmt::Display,
        is_set: impl Fn(&Layer) -> bool,
    ) -> String {
        let Self(layers) = self;
        if layers.is_empty() {
            return format!("{key} = {value}");
        }
        let source = match layers.iter().find(|(_, layer)| is_set(layer)) {
            None => "the default".into(),
            Some((source @ Source::Host, _)) if key == "memory" => source.name(key),
            Some((source @ Source::File { .. }, _)) => format!("set in {}", source.name(key)),
            Some((source, _)) => format!("set by {}", source.name(key)),
        };
        format!("{key} = {value} ({source})")
    }

    /// Where a setting comes from: the name of what set it, or "default".
    pub(super) fn of(&self, key: &str, is_set: impl Fn(&Layer) -> bool) -> String {
        let Self(layers) = self;
        match layers.iter().find(|(_, layer)| is_set(layer)) {
            None => "default".into(),
            Some((source, _)) => source.name(key),
        }
    }
}

/// The environment variable of a key, as in "announce.interval".
fn variable(meta: &Meta, key: &str) -> Option<&'static str> {
    let (name, rest) = match key.split_once('.') {
        Some((section, rest)) => (section, Some(rest)),
        None => (key, None),
    };
    let field = meta.fields.iter().find(|field| field.name == name)?;
    match (field.kind, rest) {
        (FieldKind::Nested { meta }, Some(rest)) => variable(meta, rest),
        (FieldKind::Leaf { env, .. }, None) => env,
        _ => None,
    }
}

/// Checks a whole configuration.
pub(super) fn check(config: &Config, sources: &Sources) -> Result<(), String> {
    let Config {
        announce,
        registry,
        connections,
        tls,
        ..
    } = config;
    let duration = |key: &str, value: Duration, is_set: fn(&Layer) -> bool| {
        sources.setting(key, format_duration(value), is_set)
    };
    let interval = || {
        duration("announce.interval", announce.interval, |layer| {
            layer.announce.interval.is_some()
        })
    };
    if announce.min_interval > announce.interval {
        let min_interval = duration("announce.min_interval", announce.min_interval, |layer| {
            layer.announce.min_interval.is_some()
        });
        return Err(format!("{min_interval} is longer than {}", interval()));
    }
    if announce.numwant > announce.numwant_max {
        let numwant = sources.setting("announce.numwant", announce.numwant, |layer| {
            layer.announce.numwant.is_some()
        });
        let numwant_max = sources.setting("announce.numwant_max", announce.numwant_max, |layer| {
            layer.announce.numwant_max.is_some()
        });
        return Err(format!("{numwant} is more than {numwant_max}"));
    }
    let lifetime = config.peer_lifetime();
    let shown_lifetime = || match registry.peer_lifetime {
        Some(lifetime) => duration("registry.peer_lifetime", lifetime, |layer| {
            layer.registry.peer_lifetime.is_some()
        }),
        None => format!(
            "registry.peer_lifetime = {} (one and a half of announce.interval)",
            format_duration(lifetime)
        ),
    };
    let least = Ceilings::longest_silence(super::seconds(announce.interval));
    let least = Duration::from_secs(least.into());
    if lifetime < least {
        return Err(format!(
            "{} is shorter than {}, the longest time between two announces with {}: peers would expire before they announce again",
            shown_lifetime(),
            format_duration(least),
            interval()
        ));
    }
    if lifetime > LONGEST_LIFETIME {
        return Err(format!(
            "{} is longer than {}: shorten it, or {}",
            shown_lifetime(),
            format_duration(LONGEST_LIFETIME),
            interval()
        ));
    }
    let size = |key: &str, bytes: usize, is_set: fn(&Layer) -> bool| {
        sources.setting(key, ByteSize(bytes as u64), is_set)
    };
    let Budget {
        registry: for_registry,
        connections: for_connections,
    } = config.budget();
    if let Some(memory) = config.memory
        && (for_registry.saturating_add(for_connections) > memory
            || for_registry.min(for_connections) < LEAST_PART)
    {
        let parts = [
            registry.memory.map(|bytes| {
                size("registry.memory", bytes, |layer| {
                    layer.registry.memory.is_some()
                })
            }),
            connections.memory.map(|bytes| {
                size("connections.memory", bytes, |layer| {
                    layer.connections.memory.is_some()
                })
            }),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        return Err(format!(
            "{} {} too little of {} for the rest of the tracker",
            parts.join(" and "),
            if parts.len() == 1 { "leaves" } else { "leave" },
            size("memory", memory, |layer| layer.memory.is_some())
        ));
    }
    if let Some(database) = &config.records.database
        && let Err(error) = records::check(database)
    {
        let database = sources.setting("records.database", database, |layer| {
            layer.records.database.is_some()
        });
        return Err(format!("{database} cannot be used: {error}"));
    }
    let file = |key: &str, path: &PathBuf, is_set: fn(&Layer) -> bool| {
        sources.setting(key, path.display(), is_set)
    };
    let (set, missing) = match (&tls.cert, &tls.key) {
        (Some(cert), None) => (
            file("tls.cert", cert, |layer| layer.tls.cert.is_some()),
            "tls.key",
        ),
        (None, Some(key)) => (
            file("tls.key", key, |layer| layer.tls.key.is_some()),
            "tls.cert",
        ),
        _ => (String::new(), ""),
    };
    if !set.is_empty() {
        return Err(format!("{set} needs {missing}, which is not set"));
    }
    if config.listen.is_none() && !config.asks_for_scion() {
        return Err("no listener is named in listen, and nothing asks for SCION".into());
    }
    config.listen.check()?;
    check_admin(config, sources)?;
    check_addresses(&config.listen, sources)
}

/// Finds an admin listener that strangers could use, or eavesdrop on.
fn check_admin(config: &Config, sources: &Sources) -> Result<(), String> {
    let admin = &config.admin;
    for listener in &config.listen.admin {
        let setting = || {
            sources.setting("listen.admin", listener.address, |layer| {
                layer.listen.admin.is_some()
            })
        };
        if cfg!(not(feature = "admin")) && !listener.optional {
            return Err(format!(
                "{} needs the cargo feature admin, which this program was built without",
                setting()
            ));
        }
        if listener.address.ip().to_canonical().is_loopback() {
            continue;
        }
        if !admin.has_token() {
            return Err(format!(
                "{} is not on loopback and no token is set: set admin.token_file or --admin-token",
                setting()
            ));
        }
        if !admin.tls && !admin.allow_plain {
            return Err(format!(
                "{} is not on loopback and would send tokens in the clear: set admin.tls = true, or admin.allow_plain = true if something else protects it",
                setting()
            ));
        }
    }
    Ok(())
}

/// Finds an address that two listeners cannot share.
fn check_addresses(listen: &Listen, sources: &Sources) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for taken in listen.addresses() {
        let Taken {
            key,
            is_set,
            protocol,
            address,
        } = taken;
        // The system picks a port for each.
        if address.port() == 0 {
            continue;
        }
        let setting = sources.setting(key, address, is_set);
        if let Some(other) = seen.insert((protocol, address), setting.clone()) {
            return Err(format!("{other} and {setting} are the same address"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::load::from_toml;
    use super::*;

    #[test]
    fn a_contradiction_names_keys_values_and_sources() {
        let layer = |text| from_toml("test.toml".as_ref(), text).unwrap();
        let file = |text| Source::file("test.toml".as_ref(), text);
        for (flags, environment, in_file, expected) in [
            (
                "",
                "announce.interval = '5m'",
                "announce.min_interval = '10m'",
                "announce.min_interval = 10m (set in test.toml:1) is longer than announce.interval = 5m (set by SCION_TRACKER_INTERVAL)",
            ),
            (
                "announce.min_interval = '40m'",
                "",
                "",
                "announce.min_interval = 40m (set by a flag) is longer than announce.interval = 30m (the default)",
            ),
            (
                "",
                "",
                "announce.numwant = 201",
                "announce.numwant = 201 (set in test.toml:1) is more than announce.numwant_max = 200 (the default)",
            ),
            (
                "announce.interval = '2h'",
                "registry.peer_lifetime = '1h'",
                "",
                "registry.peer_lifetime = 1h (set by SCION_TRACKER_PEER_LIFETIME) is shorter than 2h 12m 8s, the longest time between two announces with announce.interval = 2h (set by a flag)",
            ),
            (
                "announce.interval = '50h'",
                "",
                "",
                "registry.peer_lifetime = 3days 3h (one and a half of announce.interval) is longer than 3days",
            ),
            (
                "",
                "listen.http3 = ['[::1]:1']",
                "listen.udp = ['[::1]:1', '[::1]:0', '[::1]:0']\nlisten.http = ['[::1]:1']",
                "no contradiction",
            ),
            (
                "listen.udp = ['[::1]:1']\nlisten.http3 = ['[::1]:2', '[::1]:1']",
                "",
                "",
                "listen.udp = [::1]:1 (set by a flag) and listen.http3 = [::1]:1 (set by a flag) are the same address",
            ),
            (
                "listen.scion = ['1-ff00:0:110,[10.0.0.1]:1']",
                "",
                "listen.udp = ['10.0.0.1:1']\nlisten.http = ['10.0.0.1:1']",
                "listen.udp = 10.0.0.1:1 (set in test.toml:1) and listen.scion = 10.0.0.1:1 (set by a flag) are the same address",
            ),
            (
                "",
                "listen.http = ['[::1]:1', '[::1]:1']",
                "",
                "listen.http = [::1]:1 (set by SCION_TRACKER_HTTP) and listen.http = [::1]:1 (set by SCION_TRACKER_HTTP) are the same address",
            ),
            (
                "",
                "registry.memory = '1GiB'",
                "memory = '1GiB'",
                "registry.memory = 1.0 GiB (set by SCION_TRACKER_REGISTRY_MEMORY) leaves too little of memory = 1.0 GiB (set in test.toml:1) for the rest",
            ),
            (
                "memory = '1GiB'",
                "registry.memory = '600MiB'",
                "connections.memory = '500MiB'",
                "registry.memory = 600.0 MiB (set by SCION_TRACKER_REGISTRY_MEMORY) and connections.memory = 500.0 MiB (set in test.toml:1) leave too little of memory = 1.0 GiB (set by a flag)",
            ),
            (
                "listen.admin = ['0.0.0.0:1']",
                "admin.tls = true",
                "",
                "listen.admin = 0.0.0.0:1 (set by a flag) is not on loopback and no token is set",
            ),
            (
                "listen.admin = ['[::1]:1', '[::ffff:127.0.0.2]:1', '[::]:2']",
                "",
                "admin.read_token = 'MyReadToken'",
                "listen.admin = [::]:2 (set by a flag) is not on loopback and would send tokens in the clear",
            ),
            (
                "listen.admin = ['0.0.0.0:1']",
                "admin.allow_plain = true",
                "admin.token_file = '/tokens'",
                "no contradiction",
            ),
            (
                "",
                "tls.key = 'key.pem'",
                "",
                "tls.key = key.pem (set by SCION_TRACKER_TLS_KEY) needs tls.cert, which is not set",
            ),
        ] {
            let layers = [
                (Source::Flags, layer(flags)),
                (Source::Environment, layer(environment)),
                (file(in_file), layer(in_file)),
            ];
            let error = Config::join(Sources::new(layers.into()));
            let error = match error {
                Ok(_) => "no contradiction".into(),
                Err(error) => error.to_string(),
            };
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
