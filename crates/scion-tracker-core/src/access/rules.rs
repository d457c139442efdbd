//! Rules about networks, clients and ISD-ASes, for the whole tracker or for one torrent, and isolation.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

use crate::access::Query;
use crate::address::{Asn, Isd, IsdAs};
use crate::prefix::PrefixMap;
use crate::response::Refusal;
use crate::types::PeerId;

/// What a rule says about those that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// They are served.
    Allow,
    /// They are refused.
    Deny,
}

impl Verdict {
    const fn allows(self) -> bool {
        matches!(self, Self::Allow)
    }
}

/// Rules that all have to allow a request. The default allows everything.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    /// About the IP address of requests over plain IP.
    pub networks: NetworkRules,
    /// About the peer id of announces.
    pub clients: ClientRules,
    /// About the ISD-AS of requests.
    pub places: PlaceRules,
}

impl RuleSet {
    /// Whether it allows everything.
    pub const fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.clients.is_empty() && self.places.is_empty()
    }

    /// Decides about a request.
    #[inline]
    pub(super) fn check(&self, query: &Query<'_>) -> Result<(), Refusal> {
        // An IP address of a SCION host is valid only inside its AS.
        if !query.origin.is_scion() && !self.networks.allow(query) {
            return Err(Refusal::NetworkDenied);
        }
        if let Some(peer_id) = query.peer_id
            && !self.clients.allow(peer_id)
        {
            return Err(Refusal::ClientDenied);
        }
        if !self.places.allow(query.ia, query.is_proven) {
            return Err(Refusal::PlaceDenied);
        }
        Ok(())
    }
}

/// Rules about networks. The longest prefix with the address decides.
///
/// An address that no prefix has is allowed, except if there is a prefix that allows: then only what is
/// named is served.
#[derive(Debug, Clone, Default)]
pub struct NetworkRules {
    prefixes: PrefixMap<Verdict>,
    names_all: bool,
}

impl NetworkRules {
    /// Rules that allow and deny these networks. One that is in both is denied.
    pub fn new(
        allow: impl IntoIterator<Item = IpNet>,
        deny: impl IntoIterator<Item = IpNet>,
    ) -> Self {
        let mut names_all = false;
        let allowed = allow.into_iter().map(|net| (net, Verdict::Allow));
        let allowed = allowed.inspect(|_| names_all = true);
        let denied = deny.into_iter().map(|net| (net, Verdict::Deny));
        let prefixes = allowed.chain(denied).collect();
        Self {
            prefixes,
            names_all,
        }
    }

    const fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    #[inline]
    fn allow(&self, query: &Query<'_>) -> bool {
        match self.prefixes.longest_match(query.origin.host.ip()) {
            Some(verdict) => verdict.allows(),
            None => !self.names_all,
        }
    }
}

/// Rules about the beginning of peer ids, which names the client (BEP 20). The longest beginning decides.
///
/// A peer id that none of them begins is allowed, except if there is one that allows. A client can send any
/// peer id, so these rules keep out honest clients only. Scrapes have no peer id.
#[derive(Debug, Clone, Default)]
pub struct ClientRules {
    /// Longest first.
    beginnings: Vec<(ClientPrefix, Verdict)>,
    names_all: bool,
}

/// The beginning of a peer id, such as `-qB` or `-TR40`: 1 to 20 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientPrefix(Box<str>);

/// The text is not the beginning of a peer id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the beginning of a peer id is 1 to 20 printable ASCII characters, as in -qB or -TR40")]
pub struct ClientPrefixError;

impl FromStr for ClientPrefix {
    type Err = ClientPrefixError;

    fn from_str(text: &str) -> Result<Self, ClientPrefixError> {
        let is_prefix =
            (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        is_prefix
            .then(|| Self(text.into()))
            .ok_or(ClientPrefixError)
    }
}

impl fmt::Display for ClientPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ClientRules {
    /// Rules that allow and deny these clients. One that is in both is denied.
    pub fn new(
        allow: impl IntoIterator<Item = ClientPrefix>,
        deny: impl IntoIterator<Item = ClientPrefix>,
    ) -> Self {
        let denied = deny.into_iter().map(|it| (it, Verdict::Deny));
        let allowed = allow.into_iter().map(|it| (it, Verdict::Allow));
        let mut beginnings: Vec<_> = denied.chain(allowed).collect();
        // The sort is stable: of equal ones the one that denies stays first.
        beginnings.sort_by_key(|(it, _)| std::cmp::Reverse(it.0.len()));
        let names_all = beginnings.iter().any(|(_, verdict)| verdict.allows());
        Self {
            beginnings,
            names_all,
        }
    }

    const fn is_empty(&self) -> bool {
        self.beginnings.is_empty()
    }

    fn allow(&self, peer_id: &PeerId) -> bool {
        let mut rules = self.beginnings.iter();
        match rules.find(|(it, _)| peer_id.0.starts_with(it.0.as_bytes())) {
            Some((_, verdict)) => verdict.allows(),
            None => !self.names_all,
        }
    }
}

/// Rules about the ISD-AS of requesters. The first rule that matches decides. Without rules all are allowed.
///
/// A requester without an ISD-AS is matched only by the last rule, which has no ISD-AS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlaceRules {
    /// The rules, in order.
    pub acl: PlaceAcl,
    /// Whether a place that the client only claims counts as none. A client can claim any place.
    pub proven_only: bool,
}

impl PlaceRules {
    const fn is_empty(&self) -> bool {
        self.acl.0.is_empty()
    }

    fn allow(&self, ia: IsdAs, is_proven: bool) -> bool {
        let ia = match self.proven_only && !is_proven {
            true => IsdAs::NONE,
            false => ia,
        };
        self.acl.allows(ia)
    }
}

/// An access control list of ISD-ASes, written as in SCION's path policies
/// ([specification](https://docs.scion.org/en/latest/dev/design/PathPolicy.html)) without interfaces.
///
/// Entries are separated by commas: `+` (allow) or `-` (deny), and an `ISD` or `ISD-AS` in which 0 stands
/// for any. The last one is `+` or `-` alone. `- 1-ff00:0:110, + 1, -` allows ISD 1 without one AS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlaceAcl(Vec<PlaceEntry>);

/// One entry of a [`PlaceAcl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PlaceEntry {
    verdict: Verdict,
    /// Zero stands for any.
    ia: IsdAs,
}

/// Why a text is not a [`PlaceAcl`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceAclError {
    /// An entry cannot be read.
    #[error(
        "{0:?} is not + or - and an ISD or ISD-AS, as in \"- 1-ff00:0:110\", \"+ 64\" or \"-\""
    )]
    Entry(String),
    /// An entry that matches everything is not the last one.
    #[error("{0:?} matches everything, so what follows has no effect")]
    Unreachable(String),
    /// The last entry does not match everything.
    #[error("the last rule must match everything: + or - alone")]
    Default,
}

impl PlaceAcl {
    /// Whether this ISD-AS may be served.
    pub fn allows(&self, ia: IsdAs) -> bool {
        let mut entries = self.0.iter();
        entries
            .find(|entry| entry.matches(ia))
            .is_none_or(|entry| entry.verdict.allows())
    }

    /// Reads the entries.
    pub fn from_entries<'a>(
        entries: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, PlaceAclError> {
        let mut acl: Vec<PlaceEntry> = Vec::new();
        for text in entries {
            let text = text.trim();
            if let Some(last) = acl.last().filter(|last| last.ia.is_none()) {
                return Err(PlaceAclError::Unreachable(last.to_string()));
            }
            let entry = PlaceEntry::parse(text);
            acl.push(entry.ok_or_else(|| PlaceAclError::Entry(text.into()))?);
        }
        if acl.last().is_some_and(|last| !last.ia.is_none()) {
            return Err(PlaceAclError::Default);
        }
        Ok(Self(acl))
    }

    /// The entries as texts.
    pub fn entries(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(PlaceEntry::to_string)
    }
}

impl FromStr for PlaceAcl {
    type Err = PlaceAclError;

    fn from_str(text: &str) -> Result<Self, PlaceAclError> {
        match text.trim() {
            "" => Ok(Self::default()),
            text => Self::from_entries(text.split(',')),
        }
    }
}

impl PlaceEntry {
    fn parse(text: &str) -> Option<Self> {
        let (verdict, place) = match text.split_at_checked(1)? {
            ("+", place) => (Verdict::Allow, place),
            ("-", place) => (Verdict::Deny, place),
            _ => return None,
        };
        let place = place.trim_start();
        let ia = match place.split_once('-') {
            _ if place.is_empty() => IsdAs::NONE,
            Some((isd, asn)) => IsdAs::new(isd.parse().ok()?, asn.parse().ok()?),
            None => IsdAs::new(place.parse().ok()?, Asn::default()),
        };
        Some(Self { verdict, ia })
    }

    fn matches(self, ia: IsdAs) -> bool {
        let (isd, asn) = (self.ia.isd(), self.ia.asn());
        (isd == Isd::default() || isd == ia.isd())
            && (asn == Asn::default() || asn == ia.asn())
            // A requester without a place is no AS of "any ISD".
            && (!ia.is_none() || self.ia.is_none())
    }
}

impl fmt::Display for PlaceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.verdict {
            Verdict::Allow => "+",
            Verdict::Deny => "-",
        })?;
        match self.ia.is_none() {
            true => Ok(()),
            false => write!(f, " {}", self.ia),
        }
    }
}

/// The ISDs that an isolated torrent must not leave. It is handed out, counted and stored only for
/// requesters whose place is inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    /// The ISDs. Without any, nobody gets the torrent.
    pub isds: Vec<Isd>,
    /// Whether a place counts only if it is proven, by a SCION packet or by the operator's table. Otherwise
    /// a client over plain IP gets in by claiming a place.
    pub proven_only: bool,
}

impl Isolation {
    /// Whether somebody at this place is inside.
    pub fn admits(&self, ia: IsdAs, is_proven: bool) -> bool {
        self.check(ia, is_proven).is_ok()
    }

    pub(super) fn check(&self, ia: IsdAs, is_proven: bool) -> Result<(), Refusal> {
        if ia.is_none() || !self.isds.contains(&ia.isd()) {
            return Err(Refusal::TorrentIsolated);
        }
        if self.proven_only && !is_proven {
            return Err(Refusal::PlaceUnproven);
        }
        Ok(())
    }
}

/// What holds for one torrent, besides what holds for all.
#[derive(Debug, Clone, Default)]
pub struct TorrentRules {
    /// Who may have it.
    pub rules: RuleSet,
    /// Where it stays, if it is isolated.
    pub isolation: Option<Isolation>,
}

impl TorrentRules {
    /// Whether nothing holds for it.
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.isolation.is_none()
    }

    pub(super) fn check(&self, query: &Query<'_>) -> Result<(), Refusal> {
        if let Some(isolation) = &self.isolation {
            isolation.check(query.ia, query.is_proven)?;
        }
        self.rules.check(query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ia(text: &str) -> IsdAs {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_entry_that_matches_decides() {
        for (acl, allowed, denied) in [
            ("", &["1-ff00:0:110", "64-1", "0-0"][..], &[][..]),
            ("+", &["1-1", "0-0"], &[]),
            ("-", &[], &["1-1", "0-0"]),
            (
                "- 1-ff00:0:110, +",
                &["1-ff00:0:111", "2-ff00:0:110", "0-0"],
                &["1-ff00:0:110"],
            ),
            (
                "+ 64-0, -",
                &["64-1", "64-ff00:0:110"],
                &["65-1", "6-4", "0-0"],
            ),
            ("+64,-", &["64-1"], &["65-1", "0-0"]),
            ("- 0-5, + 3, -", &["3-4"], &["3-5", "1-5", "1-4", "0-0"]),
            ("+ 1-2, - 1, +", &["1-2", "2-1", "0-0"], &["1-3"]),
            ("- 0-0", &[], &["1-1", "0-0"]),
        ] {
            let parsed: PlaceAcl = acl.parse().unwrap();
            assert!(allowed.iter().all(|it| parsed.allows(ia(it))), "{acl}");
            assert!(denied.iter().all(|it| !parsed.allows(ia(it))), "{acl}");
            let entries: Vec<_> = parsed.entries().collect();
            assert_eq!(entries.join(",").parse(), Ok(parsed), "{acl}");
        }
    }

    #[test]
    fn what_is_no_list_of_places_is_refused() {
        let entry = |text: &str| PlaceAclError::Entry(text.into());
        for (text, error) in [
            ("1-1, +", entry("1-1")),
            ("+ 1-1#1, -", entry("+ 1-1#1")),
            ("+ 65536, -", entry("+ 65536")),
            ("+ 1-x, -", entry("+ 1-x")),
            ("é", entry("é")),
            ("+ 1,, -", entry("")),
            ("+ 1-1", PlaceAclError::Default),
            ("-, + 1-1", PlaceAclError::Unreachable("-".into())),
            ("+ 0, -", PlaceAclError::Unreachable("+".into())),
        ] {
            assert_eq!(text.parse::<PlaceAcl>(), Err(error), "{text}");
        }
    }

    #[test]
    fn the_longest_beginning_of_a_peer_id_decides() {
        let list = |texts: &[&str]| -> Vec<ClientPrefix> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        for (allow, deny, id, expected) in [
            (&[][..], &[][..], b"-XX0001-000000000001", true),
            (&[], &["-XL"], b"-XL0012-000000000001", false),
            (&[], &["-XL"], b"-qB4600-000000000001", true),
            (&["-qB"], &[], b"-XL0012-000000000001", false),
            (&["-qB"], &["-qB3"], b"-qB3300-000000000001", false),
            (&["-qB"], &["-qB3"], b"-qB4600-000000000001", true),
            (&["-qB46"], &["-qB"], b"-qB4600-000000000001", true),
            (&["-qB"], &["-qB"], b"-qB4600-000000000001", false),
        ] {
            let rules = ClientRules::new(list(allow), list(deny));
            assert_eq!(rules.allow(&PeerId(*id)), expected, "{allow:?} {deny:?}");
        }
        for wrong in ["", "-q B", "é", "123456789012345678901"] {
            assert_eq!(wrong.parse::<ClientPrefix>(), Err(ClientPrefixError));
        }
    }
}
