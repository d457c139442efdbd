//! Parses the TOML file that describes a network: ASes and links. `scion/topologies/two-isds.toml`
//! is the reference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fs, io};

use scion_tracker_core::address::{AddressError, IsdAs};
use serde::Deserialize;
use serde::de::{self, Deserializer};
use toml::Spanned;

/// Why a network cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is invalid.
    #[error("{}:{line}:{column}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1, in characters.
        column: usize,
        /// What is wrong there.
        message: String,
    },
}

/// A consistent network: every link joins two existing ASes that may be joined in this way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Address of the control endpoint.
    pub control: Option<SocketAddr>,
    /// The ASes, in the order of the file.
    pub ases: Vec<As>,
    /// The links, in the order of the file.
    pub links: Vec<Link>,
    /// Time from a path lookup until the paths expire, in seconds.
    pub path_lifetime: u32,
}

/// Default of [`Config::path_lifetime`], and the longest: a day, as hop fields allow.
const LONGEST_LIFETIME: u32 = 86_400;
/// Default MTU in bytes of ASes and links.
const MTU: u16 = 1500;
/// Smallest MTU: a host may send packets of this length without knowing the path, as over IPv6.
const SMALLEST_MTU: u16 = 1280;

/// An AS with one border router and one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct As {
    /// Its ISD-AS.
    pub ia: IsdAs,
    /// Whether it is a core AS.
    pub core: bool,
    /// Address at which the border router receives packets from hosts (UDP).
    pub router: SocketAddr,
    /// Address of the daemon (TCP).
    pub daemon: SocketAddr,
    /// Address of the endhost API, which Anapaya's SDK asks instead of a daemon (TCP).
    pub endhost_api: Option<SocketAddr>,
    /// The UDP ports of hosts that the border router delivers to.
    pub ports: Ports,
    /// MTU inside the AS, in bytes with SCION headers.
    pub mtu: u16,
}

/// A range of UDP ports, written `31000-32767`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// First port of the range, not 0.
    pub first: u16,
    /// Last port of the range.
    pub last: u16,
}

impl Default for Ports {
    /// All ports.
    fn default() -> Self {
        Self {
            first: 1,
            last: u16::MAX,
        }
    }
}

/// A link between two border routers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name for the control endpoint.
    pub name: String,
    /// What the AS at `from` is to the other one.
    pub kind: LinkKind,
    /// One end. The parent's end, if there is a parent.
    pub from: Interface,
    /// The other end.
    pub to: Interface,
    /// MTU of the link, in bytes with SCION headers. It counts in the MTU of paths. As in
    /// scionproto's routers, longer packets are not dropped: the underlay fragments them.
    pub mtu: u16,
}

/// The relation of two linked ASes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// Both are core ASes.
    Core,
    /// `from` is the parent of `to`.
    Child,
    /// Neither is above the other. The link carries packets between hosts in these ASes and in ASes
    /// below them.
    Peer,
}

/// One end of a link, written `1-ff00:0:110#2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    /// The AS.
    pub ia: IsdAs,
    /// The interface of its border router.
    pub number: NonZeroU16,
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Core => "core",
            Self::Child => "child",
            Self::Peer => "peer",
        })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for Ports {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ends = text.split_once('-');
        let ends = ends.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        match ends {
            Some((first, last)) if 1 <= first && first <= last => Ok(Self { first, last }),
            _ => Err("ports are written FIRST-LAST, as in 31000-32767"),
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.ia, self.number)
    }
}

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ia, number) = text
            .split_once('#')
            .ok_or("an end of a link is written ISD-AS#INTERFACE, as in 1-ff00:0:110#2")?;
        Ok(Self {
            ia: IsdAs::parse_place(ia).map_err(|error| error.to_string())?,
            number: number
                .parse()
                .map_err(|_| "an interface is a number from 1 to 65535")?,
        })
    }
}

impl Config {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.into(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Parses the text of a file. `path` is for errors.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let at = |(offset, message)| {
            let before = text.get(..offset).unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            ConfigError::File {
                path: path.into(),
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
                message,
            }
        };
        let document: Document = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            at((offset, error.message().to_owned()))
        })?;
        document.check().map_err(at)
    }

    /// Moves every listener to this IP address and keeps its port. With the address of a container,
    /// hosts in other containers can reach the routers and be reached by them.
    pub fn listen_on(&mut self, ip: IpAddr) {
        self.listeners().for_each(|address| address.set_ip(ip));
    }

    /// Gives every listener a free port.
    pub fn take_free_ports(&mut self) {
        self.listeners().for_each(|address| address.set_port(0));
    }

    fn listeners(&mut self) -> impl Iterator<Item = &mut SocketAddr> {
        let ases = self.ases.iter_mut();
        ases.flat_map(|it| {
            [&mut it.router, &mut it.daemon]
                .into_iter()
                .chain(&mut it.endhost_api)
        })
        .chain(&mut self.control)
    }

    /// The interfaces of an AS, each with its link and the other end.
    pub fn interfaces(&self, ia: IsdAs) -> impl Iterator<Item = (Interface, &Link, Interface)> {
        self.links
            .iter()
            .flat_map(|link| [(link.from, link, link.to), (link.to, link, link.from)])
            .filter(move |(own, _, _)| own.ia == ia)
    }
}

/// The contents of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    control: Option<Spanned<SocketAddr>>,
    path_lifetime: Option<Spanned<u32>>,
    #[serde(default, rename = "as")]
    ases: Vec<AsTable>,
    #[serde(default, rename = "link")]
    links: Vec<LinkTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AsTable {
    isd_as: Spanned<Written<IsdAs>>,
    #[serde(default)]
    core: bool,
    router: Spanned<SocketAddr>,
    daemon: Spanned<SocketAddr>,
    endhost_api: Option<Spanned<SocketAddr>>,
    ports: Option<Written<Ports>>,
    mtu: Option<Spanned<u16>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkTable {
    name: Spanned<String>,
    r#type: Spanned<LinkKind>,
    from: Spanned<Written<Interface>>,
    to: Spanned<Written<Interface>>,
    mtu: Option<Spanned<u16>>,
}

/// A value that is written as a string in the file.
struct Written<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

/// An error and its byte offset in the file.
type ErrorAt = (usize, String);

fn error_at<T>(at: &Spanned<T>, message: impl Into<String>) -> ErrorAt {
    (at.span().start, message.into())
}

impl Document {
    fn check(self) -> Result<Config, ErrorAt> {
        let mut ases = BTreeMap::new();
        for table in &self.ases {
            table.check()?;
            let ia = table.isd_as.get_ref().0;
            if ases.insert(ia, table.core).is_some() {
                return Err(error_at(&table.isd_as, format!("{ia} is listed twice")));
            }
        }
        let (mut names, mut interfaces) = (BTreeSet::new(), BTreeSet::new());
        for link in &self.links {
            link.check(&ases)?;
            let name = link.name.get_ref();
            if !names.insert(name) {
                return Err(error_at(&link.name, format!("link {name} is listed twice")));
            }
            for end in [&link.from, &link.to] {
                let interface = end.get_ref().0;
                if !interfaces.insert(interface) {
                    return Err(error_at(end, format!("{interface} already has a link")));
                }
            }
        }
        if let Some(control) = &self.control {
            check_address(control)?;
        }
        if let Some(lifetime) = &self.path_lifetime
            && !(1..=LONGEST_LIFETIME).contains(lifetime.get_ref())
        {
            let message = format!("paths live for 1 to {LONGEST_LIFETIME} seconds");
            return Err(error_at(lifetime, message));
        }
        if self.ases.is_empty() {
            return Err((0, "the file has no [[as]]".into()));
        }
        Ok(Config {
            control: self.control.map(Spanned::into_inner),
            path_lifetime: self
                .path_lifetime
                .map_or(LONGEST_LIFETIME, Spanned::into_inner),
            ases: self.ases.into_iter().map(AsTable::into).collect(),
            links: self.links.into_iter().map(LinkTable::into).collect(),
        })
    }
}

impl AsTable {
    fn check(&self) -> Result<(), ErrorAt> {
        if self.isd_as.get_ref().0.is_wildcard() {
            return Err(error_at(&self.isd_as, AddressError::Wildcard.to_string()));
        }
        check_address(&self.router)?;
        check_address(&self.daemon)?;
        check_mtu(self.mtu.as_ref())?;
        self.endhost_api.as_ref().map_or(Ok(()), check_address)
    }

    fn into(self) -> As {
        As {
            ia: self.isd_as.into_inner().0,
            core: self.core,
            router: self.router.into_inner(),
            daemon: self.daemon.into_inner(),
            endhost_api: self.endhost_api.map(Spanned::into_inner),
            ports: self.ports.map_or_else(Ports::default, |it| it.0),
            mtu: self.mtu.map_or(MTU, Spanned::into_inner),
        }
    }
}

impl LinkTable {
    /// Checks the link. `ases` are the existing ASes, and whether they are core.
    fn check(&self, ases: &BTreeMap<IsdAs, bool>) -> Result<(), ErrorAt> {
        let name = self.name.get_ref();
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(error_at(&self.name, "a name must be one word"));
        }
        check_mtu(self.mtu.as_ref())?;
        let is_core = |end: &Spanned<Written<Interface>>| {
            let ia = end.get_ref().0.ia;
            let core = ases.get(&ia).copied();
            core.ok_or_else(|| error_at(end, format!("no [[as]] has isd_as {ia}")))
        };
        let (from_core, to_core) = (is_core(&self.from)?, is_core(&self.to)?);
        let (from, to) = (self.from.get_ref().0.ia, self.to.get_ref().0.ia);
        let wrong = match self.r#type.get_ref() {
            _ if from == to => "a link must join two different ASes",
            LinkKind::Core if !(from_core && to_core) => "a core link must join two core ASes",
            LinkKind::Child if to_core => "a core AS cannot have a parent",
            LinkKind::Child if from.isd() != to.isd() => "parent and child must be in the same ISD",
            _ => return Ok(()),
        };
        Err(error_at(&self.r#type, wrong))
    }

    fn into(self) -> Link {
        Link {
            name: self.name.into_inner(),
            kind: self.r#type.into_inner(),
            from: self.from.into_inner().0,
            to: self.to.into_inner().0,
            mtu: self.mtu.map_or(MTU, Spanned::into_inner),
        }
    }
}

fn check_mtu(mtu: Option<&Spanned<u16>>) -> Result<(), ErrorAt> {
    match mtu {
        Some(mtu) if *mtu.get_ref() < SMALLEST_MTU => {
            let message = format!("an MTU is a number from {SMALLEST_MTU} to 65535");
            Err(error_at(mtu, message))
        }
        _ => Ok(()),
    }
}

fn check_address(address: &Spanned<SocketAddr>) -> Result<(), ErrorAt> {
    if address.get_ref().ip().is_unspecified() {
        let message = "hosts cannot send to 0.0.0.0 or [::]: write an address of this host";
        return Err(error_at(address, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"
[[as]]
isd_as = "1-1"
core = true
router = "127.0.0.1:1"
daemon = "127.0.0.1:2"
[[as]]
isd_as = "1-2"
router = "127.0.0.1:3"
daemon = "127.0.0.1:4"
"#;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse("test.toml".as_ref(), text)
    }

    fn link(kind: &str, from: &str, to: &str) -> String {
        format!("{TWO}[[link]]\nname = 'a'\ntype = '{kind}'\nfrom = '{from}'\nto = '{to}'\n")
    }

    #[test]
    fn the_example_is_a_network() {
        let text = include_str!("../../topologies/two-isds.toml");
        let mut config = parse(text).unwrap();
        assert_eq!((config.ases.len(), config.links.len()), (6, 7));
        let ia = "2-ff00:0:211".parse().unwrap();
        let interfaces: Vec<_> = config
            .interfaces(ia)
            .map(|(own, link, other)| format!("{own} {} {other}", link.kind))
            .collect();
        assert_eq!(
            interfaces,
            [
                "2-ff00:0:211#1 child 2-ff00:0:210#11",
                "2-ff00:0:211#12 child 2-ff00:0:212#1",
                "2-ff00:0:211#3 peer 1-ff00:0:112#3"
            ]
        );
        config.listen_on([10, 77, 0, 2].into());
        assert_eq!(config.ases[0].router.to_string(), "10.77.0.2:30110");
        assert_eq!(config.ases[5].daemon.to_string(), "10.77.0.2:20212");
        assert_eq!(config.control.unwrap().to_string(), "10.77.0.2:20100");
    }

    #[test]
    fn errors_name_line_and_column() {
        let child = link("child", "1-1#1", "1-2#1");
        parse(&child).unwrap();
        for (text, says) in [
            (String::new(), ":1:1: the file has no [[as]]"),
            ("nonsense = 1".into(), ":1:1: unknown field `nonsense`"),
            (TWO.replace("core", "cores"), ":4:1: unknown field `cores`"),
            (TWO.replace("1-2", "1-1"), ":8:10: 1-1 is listed twice"),
            (TWO.replace("1-2", "1-0"), ":8:10: an ISD-AS with a zero"),
            (TWO.replace("1-2", "12"), ":8:10: an ISD-AS is written"),
            (
                TWO.replace("127.0.0.1:3", "[::]:3"),
                ":9:10: hosts cannot send to",
            ),
            (TWO.replace("127.0.0.1:3", "x"), ":9:10: "),
            (format!("{TWO}ports = '0-9'"), ":11:9: ports are written"),
            (format!("{TWO}ports = '9-8'"), ":11:9: ports are written"),
            (format!("{TWO}mtu = 1279"), ":11:7: an MTU is a number"),
            (format!("path_lifetime = 0{TWO}"), ":1:17: paths live for"),
            (
                format!("path_lifetime = 86401{TWO}"),
                ":1:17: paths live for",
            ),
            (
                link("core", "1-1#1", "1-2#1"),
                ":13:8: a core link must join",
            ),
            (
                link("child", "1-2#1", "1-1#1"),
                ":13:8: a core AS cannot have",
            ),
            (
                link("peer", "1-1#1", "1-1#2"),
                ":13:8: a link must join two",
            ),
            (link("tree", "1-1#1", "1-2#1"), ":13:8: unknown variant"),
            (link("peer", "1-1#0", "1-2#1"), ":14:8: an interface is"),
            (link("peer", "1-1", "1-2#1"), ":14:8: an end of a link"),
            (
                link("peer", "1-1#1", "1-3#1"),
                ":15:6: no [[as]] has isd_as 1-3",
            ),
            (
                child.replace("'a'", "'a b'"),
                ":12:8: a name must be one word",
            ),
            (
                format!("{child}{}", child[TWO.len()..].replace("'a'", "'b'")),
                ":19:8: 1-1#1 already has a link",
            ),
            (
                format!("{child}{}", child[TWO.len()..].replace("#1", "#2")),
                ":17:8: link a is listed twice",
            ),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(
                error.contains(&format!("test.toml{says}")),
                "{says}: {error}"
            );
        }
    }
}
