//! What an end host must know of its AS, from a SCION topology file (`/etc/scion/topology.json`) or
//! from the daemon.
//!
//! Other keys of the file are for routers and control services, and are ignored.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use scion_tracker_core::address::{AddressError, IsdAs};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Why a topology file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TopologyError {
    /// Not JSON, or a key with a value of the wrong type.
    #[error("not a SCION topology file")]
    Json(#[from] serde_json::Error),
    /// `isd_as` is not an ISD-AS.
    #[error("isd_as {0:?} of the topology file is not an ISD-AS such as 1-ff00:0:110")]
    IsdAs(String, #[source] AddressError),
    /// `internal_addr` is not an IP address with a port.
    #[error("internal_addr {address:?} of border router {router} is neither ip:port nor [ip]:port")]
    InternalAddr {
        /// The key of the border router.
        router: String,
        /// Its value.
        address: String,
    },
    /// A key of `interfaces` is not an interface number.
    #[error("interface {interface:?} of border router {router} is not a number from 1 to 65535")]
    Interface {
        /// The key of the border router.
        router: String,
        /// The key.
        interface: String,
    },
    /// `dispatched_ports` is not a range.
    #[error("dispatched_ports {0:?} is neither \"min-max\" nor \"all\" nor \"-\"")]
    Ports(String),
}

/// A port that the border routers of the AS do not deliver to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "port {port} is outside the ports that the border routers of {ia} deliver to ({ports}): packets \
     for it go to UDP port 30041 instead and are lost. Choose a port of that range, or widen \
     dispatched_ports in the topology file of the AS"
)]
pub(crate) struct PortError {
    port: u16,
    ia: IsdAs,
    ports: DispatchedPorts,
}

/// What an end host knows of its AS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topology {
    ia: IsdAs,
    /// The border router of each interface.
    next_hops: HashMap<u16, SocketAddr>,
    ports: DispatchedPorts,
    mtu: Option<u16>,
}

/// The UDP ports that the border routers of an AS deliver to on the host itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DispatchedPorts {
    /// No ports. Only old routers, which need the dispatcher, deliver packets to end hosts then.
    None,
    /// First and last port.
    Range(u16, u16),
    /// The daemon does not report a range.
    Unknown,
}

#[derive(Deserialize)]
struct Document {
    isd_as: String,
    mtu: Option<u32>,
    dispatched_ports: Option<String>,
    #[serde(default)]
    border_routers: BTreeMap<String, BorderRouter>,
}

#[derive(Deserialize)]
struct BorderRouter {
    internal_addr: String,
    #[serde(default)]
    interfaces: BTreeMap<String, IgnoredAny>,
}

impl FromStr for Topology {
    type Err = TopologyError;

    fn from_str(json: &str) -> Result<Self, TopologyError> {
        let document: Document = serde_json::from_str(json)?;
        let ia = IsdAs::parse_place(&document.isd_as)
            .map_err(|source| TopologyError::IsdAs(document.isd_as, source))?;
        let mut next_hops = HashMap::new();
        for (
            router,
            BorderRouter {
                internal_addr,
                interfaces,
            },
        ) in document.border_routers
        {
            let Ok(address) = internal_addr.parse::<SocketAddr>() else {
                return Err(TopologyError::InternalAddr {
                    router,
                    address: internal_addr,
                });
            };
            for interface in interfaces.into_keys() {
                match interface.parse() {
                    Ok(number) if number > 0 => next_hops.insert(number, address),
                    _ => return Err(TopologyError::Interface { router, interface }),
                };
            }
        }
        let ports = document.dispatched_ports.as_deref().unwrap_or_default();
        Ok(Self {
            ia,
            next_hops,
            ports: ports.parse()?,
            // 0 is a file without an MTU, and longer packets do not exist.
            mtu: document
                .mtu
                .filter(|mtu| *mtu > 0)
                .map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX)),
        })
    }
}

impl FromStr for DispatchedPorts {
    type Err = TopologyError;

    fn from_str(text: &str) -> Result<Self, TopologyError> {
        match text {
            "" | "-" => return Ok(Self::None),
            // scionproto reads it in any case.
            _ if text.eq_ignore_ascii_case("all") => return Ok(Self::Range(1, u16::MAX)),
            _ => {}
        }
        let range = text.split_once('-').and_then(|(min, max)| {
            Some(Self::Range(
                min.trim().parse().ok()?,
                max.trim().parse().ok()?,
            ))
        });
        match range {
            Some(Self::Range(min, max)) if 0 < min && min <= max => Ok(Self::Range(min, max)),
            _ => Err(TopologyError::Ports(text.into())),
        }
    }
}

impl fmt::Display for DispatchedPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Range(min, max) => write!(f, "{min}-{max}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Topology {
    /// A topology from the daemon.
    pub(crate) const fn new(
        ia: IsdAs,
        next_hops: HashMap<u16, SocketAddr>,
        ports: DispatchedPorts,
    ) -> Self {
        Self {
            ia,
            next_hops,
            ports,
            mtu: None,
        }
    }

    /// Longest packet inside the AS in bytes, with its SCION header and without those of the underlay.
    /// `None` if the topology does not say.
    pub(crate) const fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    /// The ISD-AS.
    pub(crate) const fn isd_as(&self) -> IsdAs {
        self.ia
    }

    /// The ports that border routers deliver to.
    #[cfg_attr(
        not(any(test, fuzzing, feature = "cli")),
        expect(dead_code, reason = "only the program asks")
    )]
    pub(crate) const fn ports(&self) -> DispatchedPorts {
        self.ports
    }

    /// The border router that owns an interface of the AS.
    pub(crate) fn next_hop(&self, interface: u16) -> Option<SocketAddr> {
        self.next_hops.get(&interface).copied()
    }

    /// Internal addresses of the border routers. The SCION host address is the local address that
    /// reaches them.
    pub(crate) fn border_routers(&self) -> impl Iterator<Item = IpAddr> {
        self.next_hops.values().map(SocketAddr::ip)
    }

    /// Whether border routers deliver to this port, as far as it is known.
    pub(crate) const fn check_port(&self, port: u16) -> Result<(), PortError> {
        match self.ports {
            DispatchedPorts::Unknown => Ok(()),
            DispatchedPorts::Range(min, max) if min <= port && port <= max => Ok(()),
            ports => Err(PortError {
                port,
                ia: self.ia,
                ports,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as scionproto's generator writes it, with keys that are ignored.
    const FILE: &str = r#"{
      "attributes": ["core"], "isd_as": "1-ff00:0:110", "mtu": 1472, "dispatched_ports": "31000-32767",
      "control_service": {"cs": {"addr": "127.0.0.20:30254"}},
      "border_routers": {
        "br-1": {"internal_addr": "127.0.0.17:31002", "interfaces": {
          "1": {"underlay": {"local": "127.0.0.4:50000", "remote": "127.0.0.5:50000"},
                "isd_as": "1-ff00:0:111", "link_to": "child", "mtu": 1280},
          "41": {}}},
        "br-2": {"internal_addr": "[fd00::2]:31004", "interfaces": {"7": {}}}
      }
    }"#;

    #[test]
    fn a_topology_file_gives_the_isd_as_routers_and_ports() {
        let topology: Topology = FILE.parse().unwrap();
        assert_eq!(topology.isd_as(), "1-ff00:0:110".parse().unwrap());
        for (interface, router) in [
            (1, Some("127.0.0.17:31002")),
            (41, Some("127.0.0.17:31002")),
            (7, Some("[fd00::2]:31004")),
            (2, None),
        ] {
            let router = router.map(|it| it.parse().unwrap());
            assert_eq!(topology.next_hop(interface), router, "{interface}");
        }
        assert_eq!(topology.border_routers().count(), 3);
        assert!(topology.check_port(31000).is_ok());
        assert!(topology.check_port(32767).is_ok());
        let error = topology.check_port(8443).unwrap_err().to_string();
        assert!(
            error.contains("31000-32767") && error.contains("30041"),
            "{error}"
        );
    }

    #[test]
    fn dispatched_ports_have_four_forms() {
        for (ports, open, closed) in [
            (r#","dispatched_ports": "all""#, Some(1), None),
            (r#","dispatched_ports": "ALL""#, Some(1), None),
            (r#","dispatched_ports": "All""#, Some(1), None),
            (r#","dispatched_ports": "5-5""#, Some(5), Some(6)),
            (r#","dispatched_ports": "-""#, None, Some(31969)),
            (r#","dispatched_ports": """#, None, Some(31969)),
            ("", None, Some(31969)),
        ] {
            let topology: Topology = format!(r#"{{"isd_as": "1-1"{ports}}}"#).parse().unwrap();
            assert!(
                open.is_none_or(|port| topology.check_port(port).is_ok()),
                "{ports}"
            );
            assert!(
                closed.is_none_or(|port| topology.check_port(port).is_err()),
                "{ports}"
            );
        }
    }

    #[test]
    fn a_bad_file_says_what_is_wrong() {
        for (json, says) in [
            ("", "not a SCION topology file"),
            ("{}", "not a SCION topology file"),
            (r#"{"isd_as": "0-1"}"#, "isd_as"),
            (
                r#"{"isd_as": "1-1", "dispatched_ports": "9-8"}"#,
                "dispatched_ports",
            ),
            (
                r#"{"isd_as": "1-1", "dispatched_ports": "some"}"#,
                "dispatched_ports",
            ),
            (
                r#"{"isd_as": "1-1", "border_routers": {"a": {"internal_addr": "x"}}}"#,
                "router a",
            ),
            (
                r#"{"isd_as": "1-1", "border_routers":
                    {"a": {"internal_addr": "1.2.3.4:5", "interfaces": {"0": {}}}}}"#,
                "interface \"0\"",
            ),
        ] {
            let error = json.parse::<Topology>().unwrap_err().to_string();
            assert!(error.contains(says), "{json}: {error}");
        }
    }
}
