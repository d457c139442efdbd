//! Compares two configurations: which settings differ, and which of these take effect without a restart.

use super::Config;
use crate::server::listener::listeners;

/// When a setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// On reload.
    Reload,
    /// When the program starts again.
    Restart,
}

/// The settings that differ between two configurations, as keys of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Changes {
    /// Those that a reload puts in force.
    pub reloaded: Vec<&'static str>,
    /// Those that need a restart.
    pub need_restart: Vec<&'static str>,
}

/// The table of settings except listeners, which have a table of their own and need a restart. It is handed to
/// the macro that generates something from it: when each takes effect, its key, and its field.
macro_rules! settings {
    ($generate:ident) => {
        $generate! {
            Reload {
                "memory": memory,
                "public_urls": public_urls,
                "announce.interval": announce.interval,
                "announce.min_interval": announce.min_interval,
                "announce.numwant": announce.numwant,
                "announce.numwant_max": announce.numwant_max,
                "access.private": access.private,
                "access.listed": access.listed,
                "access.passkeys": access.passkeys,
                "access.allow": access.allow,
                "access.deny": access.deny,
                "access.allow_networks": access.allow_networks,
                "access.deny_networks": access.deny_networks,
                "access.allow_clients": access.allow_clients,
                "access.deny_clients": access.deny_clients,
                "access.isd_as": access.isd_as,
                "access.proven": access.proven,
                "access.announces_per_second": access.announces_per_second,
                "access.announces_at_once": access.announces_at_once,
                "access.unlimited": access.unlimited,
                "access.torrents": access.torrents,
                "selection.mode": selection.mode,
                "selection.reserve_isd": selection.reserve_isd,
                "selection.reserve_world": selection.reserve_world,
                "selection.reserve_unplaced": selection.reserve_unplaced,
                "selection.cap_percent": selection.cap_percent,
                "selection.cap_floor": selection.cap_floor,
                "places.policy": places.policy,
                "places.trusted": places.trusted,
                "places.local": places.local,
                "places.prefixes": places.prefixes,
                "registry.torrents": registry.torrents,
                "registry.peers_per_torrent": registry.peers_per_torrent,
                "registry.peers_per_source": registry.peers_per_source,
                "registry.peers_per_source_in_torrent": registry.peers_per_source_in_torrent,
                "registry.memory": registry.memory,
                "registry.peer_lifetime": registry.peer_lifetime,
                "connections.tcp": connections.tcp,
                "connections.quic": connections.quic,
                "connections.per_source": connections.per_source,
                "connections.memory": connections.memory,
                "connections.handshakes_before_retry": connections.handshakes_before_retry,
                "connections.handshakes": connections.handshakes,
                "connections.head_size": connections.head_size,
                "connections.handshake_timeout": connections.handshake_timeout,
                "connections.head_timeout": connections.head_timeout,
                "connections.reply_timeout": connections.reply_timeout,
                "connections.idle_timeout": connections.idle_timeout,
                "log.level": log.level,
                "page.public": page.public,
                "page.torrents": page.torrents,
                "admin.token": admin.token,
                "admin.token_file": admin.token_file,
                "admin.read_token": admin.read_token,
                "admin.read_token_file": admin.read_token_file,
            }
            Restart {
                "data_dir": data_dir,
                "workers": workers,
                "admin.socket": admin.socket,
                "admin.tls": admin.tls,
                "admin.allow_plain": admin.allow_plain,
                "connections.streams": connections.streams,
                "records.database": records.database,
                "records.flush_interval": records.flush_interval,
                "udp.receive_buffer": udp.receive_buffer,
                "udp.connection_validity": udp.connection_validity,
                "scion.topology": scion.topology,
                "scion.routers": scion.routers,
                "scion.endhost_port": scion.endhost_port,
                "scion.daemon": scion.daemon,
                "snapshot.enabled": snapshot.enabled,
                "snapshot.interval": snapshot.interval,
                "tls.cert": tls.cert,
                "tls.key": tls.key,
                "tls.names": tls.names,
                "log.format": log.format,
                "log.to": log.to,
                "log.facility": log.facility,
                "log.summary": log.summary,
                "log.access": log.access,
                "log.access_addresses": log.access_addresses,
            }
        }
    };
}
pub(super) use settings;

macro_rules! generate {
    ($($when:ident { $($key:literal: $($field:ident).+,)* })*) => {
        #[cfg(test)]
        const KEYS: &[&str] = &[$($($key,)*)*];

        impl Changes {
            /// Compares two configurations.
            pub(crate) fn between(old: &Config, new: &Config) -> Self {
                let mut changes = Self::default();
                changes.compare_listeners(old, new);
                $($(
                    if old.$($field).+ != new.$($field).+ {
                        match When::$when {
                            When::Reload => changes.reloaded.push($key),
                            When::Restart => changes.need_restart.push($key),
                        }
                    }
                )*)*
                changes
            }
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
        #[cfg(test)]
        const LISTENERS: &[&str] = &[$( concat!("listen.", stringify!($name)), )+];

        impl Changes {
            fn compare_listeners(&mut self, old: &Config, new: &Config) {
                $(
                    if old.listen.$name != new.listen.$name {
                        self.need_restart.push(concat!("listen.", stringify!($name)));
                    }
                )+
            }
        }
    };
}
listeners!(generate_listeners);

#[cfg(test)]
mod tests {
    use confique::Config as _;
    use confique::meta::{FieldKind, Meta};

    use super::*;

    fn keys(meta: &Meta, prefix: &str, into: &mut Vec<String>) {
        for field in meta.fields {
            let key = format!("{prefix}{}", field.name);
            match field.kind {
                FieldKind::Leaf { .. } => into.push(key),
                FieldKind::Nested { meta } => keys(meta, &format!("{key}."), into),
            }
        }
    }

    #[test]
    fn every_setting_is_compared() {
        let mut all = Vec::new();
        keys(&Config::META, "", &mut all);
        all.sort();
        let mut compared = [KEYS, LISTENERS].concat();
        compared.sort_unstable();
        assert_eq!(all, compared);
    }

    #[test]
    fn changes_are_told_apart_by_when_they_take_effect() {
        let old = Config::default();
        assert_eq!(Changes::between(&old, &old), Changes::default());
        let mut new = old.clone();
        new.announce.numwant = 7;
        new.log.level = "debug".into();
        new.workers = std::num::NonZeroUsize::new(3);
        new.listen.http3.clear();
        let expected = Changes {
            reloaded: vec!["announce.numwant", "log.level"],
            need_restart: vec!["listen.http3", "workers"],
        };
        assert_eq!(Changes::between(&old, &new), expected);
    }
}
