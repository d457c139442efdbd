//! The section `access` of the configuration: who may use the tracker.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;
use scion_tracker_core::access::{
    ClientPrefix, ClientRules, Isolation, NetworkRules, PlaceAcl, PlaceRules, Rate, RuleSet,
    TorrentRules,
};
use scion_tracker_core::address::Isd;
use scion_tracker_core::types::InfoHash;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::value::{self, ListError, ListItem};

/// See [`Config::access`](super::Config::access).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Access {
    /// Whether only requests with a passkey are served: one of the file `passkeys`, or one that was added at
    /// run time.
    #[config(env = "SCION_TRACKER_PRIVATE", default = false)]
    pub private: bool,

    /// Whether only listed torrents are served: those of the file `allow`, and those that were added at run
    /// time.
    #[config(env = "SCION_TRACKER_LISTED", default = false)]
    pub listed: bool,

    /// File of passkeys, one per line: the passkey, when it expires (a date, seconds since 1970, or - for
    /// never) and a note. Only the passkey is needed. This file and the next two are read again when they
    /// change, and on SIGHUP. A file with an error leaves the old list in force.
    #[config(env = "SCION_TRACKER_PASSKEYS", parse_env = value::path)]
    pub passkeys: Option<PathBuf>,

    /// File of torrents that are served if `listed` is true, one per line: the info hash, as 40 hexadecimal
    /// digits, or 64 for version 2. What follows it after a space is a comment, as is a line with #.
    #[config(env = "SCION_TRACKER_ACCESS_ALLOW", parse_env = value::path)]
    pub allow: Option<PathBuf>,

    /// File of torrents that are not served, in the same format. Their peers are removed at once.
    #[config(env = "SCION_TRACKER_ACCESS_DENY", parse_env = value::path)]
    pub deny: Option<PathBuf>,

    /// Networks that are served. If there is one, clients at other addresses are refused. The longest prefix
    /// of `allow_networks` and `deny_networks` decides. Clients over SCION are not concerned: see `isd_as`.
    #[config(
        env = "SCION_TRACKER_ACCESS_ALLOW_NETWORKS",
        parse_env = value::networks_from_env,
        deserialize_with = value::networks,
        default = []
    )]
    pub allow_networks: Vec<IpNet>,

    /// Networks that are refused.
    #[config(
        env = "SCION_TRACKER_ACCESS_DENY_NETWORKS",
        parse_env = value::networks_from_env,
        deserialize_with = value::networks,
        default = []
    )]
    pub deny_networks: Vec<IpNet>,

    /// Clients that are served, by the beginning of their peer id, as in "-qB". If there is one, other
    /// clients are refused. The longest beginning of `allow_clients` and `deny_clients` decides.
    #[config(
        env = "SCION_TRACKER_ACCESS_ALLOW_CLIENTS",
        parse_env = clients_from_env,
        deserialize_with = clients,
        default = []
    )]
    pub allow_clients: Vec<ClientPrefix>,

    /// Clients that are refused. A client can lie about its peer id.
    #[config(
        env = "SCION_TRACKER_ACCESS_DENY_CLIENTS",
        parse_env = clients_from_env,
        deserialize_with = clients,
        default = []
    )]
    pub deny_clients: Vec<ClientPrefix>,

    /// Which ISDs and ASes are served, as in SCION's access control lists. The first entry that matches
    /// decides, 0 stands for any, and the last entry is "+" or "-" alone. ["- 1-ff00:0:110", "+"] refuses
    /// one AS, ["+ 64-0", "-"] serves ISD 64 only. Only the last entry matches clients without an ISD-AS.
    #[config(
        env = "SCION_TRACKER_ACCESS_ISD_AS",
        parse_env = acl_from_env,
        deserialize_with = acl,
        default = []
    )]
    pub isd_as: PlaceAcl,

    /// Whether only a proven ISD-AS counts for `isd_as`: one from a SCION packet or from places.prefixes. A
    /// client over plain IP can claim any.
    #[config(env = "SCION_TRACKER_ACCESS_PROVEN", default = false)]
    pub proven: bool,

    /// Announces per second that a host (IPv6: a /64) may send in the long run. 0 is no limit.
    #[config(
        env = "SCION_TRACKER_ANNOUNCES_PER_SECOND",
        default = 500,
        validate(
            *announces_per_second <= Rate::MOST,
            "announces_per_second is at most 1000000"
        )
    )]
    pub announces_per_second: u32,

    /// Announces that a host may send at once. Seedboxes with 100,000 torrents are known.
    #[config(
        env = "SCION_TRACKER_ANNOUNCES_AT_ONCE",
        default = 250_000,
        validate(
            (1..=Rate::MOST).contains(announces_at_once),
            "announces_at_once is from 1 to 1000000"
        )
    )]
    pub announces_at_once: u32,

    /// Networks whose hosts may announce as often as they like.
    #[config(
        env = "SCION_TRACKER_ACCESS_UNLIMITED",
        parse_env = value::networks_or_none_from_env,
        deserialize_with = value::networks,
        default = ["127.0.0.0/8", "::1/128"]
    )]
    pub unlimited: Vec<IpNet>,

    /// Rules of single torrents, which hold besides those for all. A torrent with `isds` is isolated: it is
    /// handed out only to clients in these ISDs, and with `proven` only if that is proven. The other keys
    /// mean the same as above: allow_networks, deny_networks, allow_clients, deny_clients, isd_as. For
    /// example:
    ///
    /// ```toml
    /// [access.torrents.0123456789abcdef0123456789abcdef01234567]
    /// isds = [64, 65]
    /// proven = true
    /// ```
    #[config(deserialize_with = torrents, default = {})]
    pub torrents: BTreeMap<InfoHash, TorrentAccess>,
}

/// Rules of one torrent. See [`Access::torrents`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TorrentAccess {
    /// The ISDs in which it is handed out. `None`: it is not isolated.
    #[serde(deserialize_with = "isds")]
    pub isds: Option<Vec<u16>>,
    /// Whether only a proven ISD-AS counts, for `isds` and `isd_as`.
    pub proven: bool,
    /// Networks that get it.
    #[serde(deserialize_with = "value::networks")]
    pub allow_networks: Vec<IpNet>,
    /// Networks that do not get it.
    #[serde(deserialize_with = "value::networks")]
    pub deny_networks: Vec<IpNet>,
    /// Clients that get it.
    #[serde(deserialize_with = "clients")]
    pub allow_clients: Vec<ClientPrefix>,
    /// Clients that do not get it.
    #[serde(deserialize_with = "clients")]
    pub deny_clients: Vec<ClientPrefix>,
    /// ISDs and ASes that get it.
    #[serde(deserialize_with = "acl")]
    pub isd_as: PlaceAcl,
}

impl Access {
    /// The rules for all torrents.
    pub(crate) fn rules(&self) -> RuleSet {
        rules(
            (&self.allow_networks, &self.deny_networks),
            (&self.allow_clients, &self.deny_clients),
            (&self.isd_as, self.proven),
        )
    }

    /// The limit of announces per host. `None`: there is none.
    pub(crate) fn rate(&self) -> Option<Rate> {
        (self.announces_per_second > 0).then_some(Rate {
            per_second: self.announces_per_second,
            burst: self.announces_at_once,
        })
    }
}

impl TorrentAccess {
    /// The rules of the torrent.
    pub(crate) fn rules(&self) -> TorrentRules {
        let isolation = |isds: &Vec<u16>| Isolation {
            isds: isds.iter().copied().map(Isd).collect(),
            proven_only: self.proven,
        };
        TorrentRules {
            rules: rules(
                (&self.allow_networks, &self.deny_networks),
                (&self.allow_clients, &self.deny_clients),
                (&self.isd_as, self.proven),
            ),
            isolation: self.isds.as_ref().map(isolation),
        }
    }
}

/// Rules from lists of what is allowed and denied.
pub(crate) fn rules(
    (allow_networks, deny_networks): (&[IpNet], &[IpNet]),
    (allow_clients, deny_clients): (&[ClientPrefix], &[ClientPrefix]),
    (acl, proven_only): (&PlaceAcl, bool),
) -> RuleSet {
    RuleSet {
        networks: NetworkRules::new(
            allow_networks.iter().copied(),
            deny_networks.iter().copied(),
        ),
        clients: ClientRules::new(allow_clients.iter().cloned(), deny_clients.iter().cloned()),
        places: PlaceRules {
            acl: acl.clone(),
            proven_only,
        },
    }
}

impl ListItem for ClientPrefix {}

fn clients_from_env(text: &str) -> Result<Vec<ClientPrefix>, ListError> {
    value::list(text)
}

fn clients<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ClientPrefix>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let clients = texts.iter().map(|text| text.parse());
    clients.collect::<Result<_, _>>().map_err(D::Error::custom)
}

/// Entries separated by commas, as SCION writes them. An empty variable counts as not set.
fn acl_from_env(text: &str) -> Result<PlaceAcl, ListError> {
    match text.trim() {
        "" => Err(ListError::Empty),
        text => text.parse().map_err(|error| ListError::Item {
            item: text.into(),
            message: format!("{error}"),
        }),
    }
}

fn acl<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PlaceAcl, D::Error> {
    let entries = Vec::<String>::deserialize(deserializer)?;
    PlaceAcl::from_entries(entries.iter().map(String::as_str)).map_err(D::Error::custom)
}

fn isds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u16>>, D::Error> {
    let isds = Vec::<u16>::deserialize(deserializer)?;
    match isds.contains(&0) {
        true => Err(D::Error::custom("0 is no ISD: name each ISD")),
        false => Ok(Some(isds)),
    }
}

fn torrents<'de, D>(deserializer: D) -> Result<BTreeMap<InfoHash, TorrentAccess>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
    #[serde(try_from = "String")]
    struct Key(InfoHash);

    impl TryFrom<String> for Key {
        type Error = scion_tracker_core::types::InfoHashError;

        fn try_from(text: String) -> Result<Self, Self::Error> {
            text.parse().map(Self)
        }
    }

    let table = BTreeMap::<Key, TorrentAccess>::deserialize(deserializer)?;
    Ok(table
        .into_iter()
        .map(|(Key(hash), rules)| (hash, rules))
        .collect())
}

/// As an inline table of TOML, without what is not set.
impl fmt::Display for TorrentAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn texts<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
            let items = items.into_iter();
            let items: Vec<_> = items
                .map(|item| toml::Value::String(item.to_string()).to_string())
                .collect();
            format!("[{}]", items.join(", "))
        }

        let mut parts = Vec::new();
        if let Some(isds) = &self.isds {
            parts.push(format!("isds = {isds:?}"));
        }
        if self.proven {
            parts.push("proven = true".into());
        }
        for (name, nets) in [
            ("allow_networks", &self.allow_networks),
            ("deny_networks", &self.deny_networks),
        ] {
            if !nets.is_empty() {
                parts.push(format!("{name} = {}", texts(nets)));
            }
        }
        for (name, clients) in [
            ("allow_clients", &self.allow_clients),
            ("deny_clients", &self.deny_clients),
        ] {
            if !clients.is_empty() {
                parts.push(format!("{name} = {}", texts(clients)));
            }
        }
        if self.isd_as != PlaceAcl::default() {
            parts.push(format!("isd_as = {}", texts(self.isd_as.entries())));
        }
        write!(f, "{{ {} }}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isds_of_a_torrent_are_named_one_by_one() {
        let isds = |text: &str| toml::from_str::<TorrentAccess>(text).map(|it| it.isds);
        assert_eq!(isds("isds = [64, 65]").unwrap(), Some(vec![64, 65]));
        assert_eq!(isds("isds = []").unwrap(), Some(vec![]));
        assert_eq!(isds("").unwrap(), None);
        let error = isds("isds = [64, 0]").unwrap_err().to_string();
        assert!(error.contains("0 is no ISD"), "{error}");
    }
}
