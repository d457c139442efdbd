//! Writes topology files as the hosts of an AS have them in `/etc/scion/topology.json`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::{As, Config, LinkKind};

/// The files cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct FileError {
    path: PathBuf,
    source: io::Error,
}

/// Writes `DIR/ISD-AS/topology.json` for each AS, with `_` for `:` in its number. Returns the paths.
pub fn write_topologies(config: &Config, dir: &Path) -> Result<Vec<PathBuf>, FileError> {
    let write = |it: &As| {
        let dir = dir.join(it.ia.to_string().replace(':', "_"));
        let path = dir.join("topology.json");
        let text = format!("{:#}\n", topology(config, it));
        let written = fs::create_dir_all(&dir).and_then(|()| fs::write(&path, text));
        match written {
            Ok(()) => Ok(path),
            Err(source) => Err(FileError { path, source }),
        }
    };
    config.ases.iter().map(write).collect()
}

/// The topology file of one AS, with the keys that hosts read
/// ([topology.json](https://docs.scion.org/en/latest/manuals/common.html#topology-json)).
pub fn topology(config: &Config, it: &As) -> Value {
    let interfaces = config.interfaces(it.ia).map(|(own, link, other)| {
        let link_to = match link.kind {
            LinkKind::Core => "core",
            LinkKind::Peer => "peer",
            LinkKind::Child if own == link.from => "child",
            LinkKind::Child => "parent",
        };
        let interface =
            json!({"isd_as": other.ia.to_string(), "link_to": link_to, "mtu": link.mtu});
        (own.number.to_string(), interface)
    });
    let interfaces: serde_json::Map<String, Value> = interfaces.collect();
    let attributes: &[&str] = if it.core { &["core"] } else { &[] };
    json!({
        "isd_as": it.ia.to_string(),
        "attributes": attributes,
        "mtu": it.mtu,
        "dispatched_ports": it.ports.to_string(),
        "border_routers": {
            "br-1": {"internal_addr": it.router.to_string(), "interfaces": interfaces},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_hosts_of_the_as_need() {
        let text = include_str!("../../topologies/two-isds.toml");
        let mut config = Config::parse("two-isds.toml".as_ref(), text).unwrap();
        config.ases[4].ports.first = 31000;
        config.ases[4].mtu = 1472;
        config.links[6].mtu = 1280;
        let dir = tempfile::tempdir().unwrap();
        let paths = write_topologies(&config, dir.path()).unwrap();
        assert_eq!(paths.len(), 6);
        assert_eq!(paths[4], dir.path().join("2-ff00_0_211/topology.json"));
        let file: Value = serde_json::from_str(&fs::read_to_string(&paths[4]).unwrap()).unwrap();
        let expected = json!({
            "isd_as": "2-ff00:0:211",
            "attributes": [],
            "mtu": 1472,
            "dispatched_ports": "31000-65535",
            "border_routers": {"br-1": {"internal_addr": "127.0.0.1:30211", "interfaces": {
                "1": {"isd_as": "2-ff00:0:210", "link_to": "parent", "mtu": 1500},
                "12": {"isd_as": "2-ff00:0:212", "link_to": "child", "mtu": 1500},
                "3": {"isd_as": "1-ff00:0:112", "link_to": "peer", "mtu": 1280},
            }}},
        });
        assert_eq!(file, expected);
    }
}
