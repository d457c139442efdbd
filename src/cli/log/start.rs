//! What the log says at the start: version, configuration files, limits. The URLs follow when the
//! listeners are bound.

use std::path::Path;

use bytesize::ByteSize;
use rustix::process::{Resource, getrlimit};

use crate::budget::Budget;
use crate::config::Config;

/// Logs what runs, by which files, and within which limits.
pub(in crate::cli) fn log(file: Option<&Path>, config: &Config) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        process = std::process::id(),
        "starting scion-tracker"
    );
    match file {
        Some(file) => tracing::info!(file = %file.display(), "configuration"),
        None => {
            tracing::info!("no configuration file: the defaults, the environment and flags hold")
        }
    }
    for (setting, file) in files(config) {
        tracing::info!(setting, file = %file.display(), "file of the configuration");
    }
    let Budget {
        registry,
        connections,
    } = config.budget();
    let size = |bytes: usize| ByteSize(bytes as u64);
    let limits = &config.connections;
    tracing::info!(
        memory = config.memory.map(|bytes| tracing::field::display(size(bytes))),
        registry_memory = %size(registry),
        connections_memory = %size(connections),
        torrents = config.registry.torrents,
        peers_per_torrent = config.registry.peers_per_torrent,
        tcp_connections = limits.tcp,
        quic_connections = limits.quic,
        open_files = getrlimit(Resource::Nofile).current,
        workers = config.workers(),
        "limits"
    );
}

/// The files that the configuration names.
fn files(config: &Config) -> impl Iterator<Item = (&'static str, &Path)> {
    [
        ("access.passkeys", &config.access.passkeys),
        ("access.allow", &config.access.allow),
        ("access.deny", &config.access.deny),
        ("scion.topology", &config.scion.topology),
        ("tls.cert", &config.tls.cert),
        ("tls.key", &config.tls.key),
        ("log.access", &config.log.access),
    ]
    .into_iter()
    .filter_map(|(setting, file)| Some((setting, file.as_deref()?)))
}
