//! Decides the place of a requester, its ISD-AS, and the address that other peers are given.
//!
//! Rules, in this order:
//! 1. The place of a request over SCION is the source ISD-AS of its packet. It is proven, unless the
//!    transport says that the packet may have come from any host ([`OriginIsdAs`]).
//! 2. The operator's prefix table gives places to requests over IP. It overrides a claim that
//!    contradicts it. Such a place counts as proven, because the operator vouches for it.
//! 3. With [`PlacePolicy::Accept`], the place that a client claims is used. It is not proven: in each
//!    tier of the selection, peers with proven places come first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::address::{CompactAddr, Host, IsdAs};
use crate::prefix::{PrefixMap, PrefixSet};
use crate::registry::{Accepts, Classes, Scope};
use crate::request::{AnnounceRequest, Carries, Family, Origin, OriginIsdAs, ScionClaim};
use crate::response::{Reach, Warning};

/// Whether to believe the place that an announce over plain IP claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlacePolicy {
    /// Believe `ia` for the observed host. Believe a `scion` address with another host only if the
    /// request comes from a trusted prefix.
    #[default]
    Accept,
    /// Ignore claims: only the operator's prefix table gives places.
    PrefixOnly,
    /// Ignore claims and the prefix table: announces over plain IP have no place.
    Ignore,
}

/// The text is not the name of a place policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a place policy is accept, prefix-only or ignore")]
pub struct PlacePolicyError;

impl FromStr for PlacePolicy {
    type Err = PlacePolicyError;

    fn from_str(s: &str) -> Result<Self, PlacePolicyError> {
        match s {
            "accept" => Ok(Self::Accept),
            "prefix-only" => Ok(Self::PrefixOnly),
            "ignore" => Ok(Self::Ignore),
            _ => Err(PlacePolicyError),
        }
    }
}

/// Networks whose addresses are valid only inside them: private (RFC 1918, RFC 4193), behind a
/// carrier's NAT (RFC 6598), loopback (RFC 1122 section 3.2.1.3, RFC 4291) and link-local (RFC 3927,
/// RFC 4291). See [`Places::with_local`].
pub const LOCAL: [IpNet; 9] = [
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
];

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(a, b, c, d, e, f, g, h),
        length,
    ))
}

/// The operator's rules that give requesters their places.
#[derive(Debug, Clone)]
pub struct Places {
    policy: PlacePolicy,
    prefixes: PrefixMap<IsdAs>,
    trusted: PrefixSet,
    local: PrefixSet,
}

impl Default for Places {
    fn default() -> Self {
        Self::new(PlacePolicy::default(), Vec::new(), Vec::new())
    }
}

/// A requester, after its place is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// Its place. [`IsdAs::NONE`] if it has none.
    pub ia: IsdAs,
    /// Address that other peers are given.
    pub addr: CompactAddr,
    /// Whether they reach that address over IP, SCION or both.
    pub reach: Reach,
    /// Where that address is valid.
    pub scope: Scope,
    /// Whether the place is proven.
    pub verified: bool,
    /// Which peers the requester can reach.
    pub accepts: Accepts,
    /// What part of its claim was ignored.
    pub warning: Option<Warning>,
}

impl Places {
    /// Builds the tables. `prefixes` gives places to requests over IP: the longest prefix wins.
    /// `trusted` lists the prefixes whose hosts may name another address than their own (`ip=`,
    /// `scion=`).
    pub fn new(policy: PlacePolicy, prefixes: Vec<(IpNet, IsdAs)>, trusted: Vec<IpNet>) -> Self {
        Self {
            policy,
            prefixes: prefixes.into_iter().collect(),
            trusted: trusted.into_iter().collect(),
            local: LOCAL.into_iter().collect(),
        }
    }

    /// Replaces the local networks, by default [`LOCAL`]. Over plain IP, a peer at an address in one of
    /// them is handed out only to requesters that are in one of them, too. Without any, all peers are
    /// handed out to everybody.
    ///
    /// What counts is the address that others are given, also if the requester names it (`ip=`). Peers
    /// that only SCION reaches are not concerned: what is dialled is their ISD-AS and host. A peer that
    /// both reach is handed to all requesters that use SCION.
    #[must_use]
    pub fn with_local(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.local = networks.into_iter().collect();
        self
    }

    /// Decides the place and the address of the requester, and which peers it can reach.
    pub fn resolve(
        &self,
        origin: &Origin,
        announce: &AnnounceRequest,
        carries: Carries,
    ) -> Resolved {
        let port = announce.port;
        if origin.is_scion() {
            let Host { ia, .. } = origin.host;
            return Resolved {
                ia,
                addr: CompactAddr::new(origin.host.ip(), port),
                reach: Reach::Scion,
                scope: Scope::Global,
                verified: origin.isd_as == OriginIsdAs::Proven,
                accepts: over_scion(carries),
                warning: None,
            };
        }
        let own_ip = origin.host.ip();
        let trusted = self.is_trusted(own_ip);
        let ip = match announce.named_ip {
            Some(named) if trusted => named.to_canonical(),
            _ => own_ip,
        };
        let scope = match self.local.contains(ip) {
            true => Scope::Local,
            false => Scope::Global,
        };
        let speaks_scion = announce.claim.is_scion();
        let mut resolved = Resolved {
            ia: IsdAs::NONE,
            addr: CompactAddr::new(ip, port),
            reach: Reach::Ip,
            scope,
            verified: false,
            accepts: over_ip(Family::of(ip), scope, carries, speaks_scion),
            warning: None,
        };
        if self.policy != PlacePolicy::Ignore
            && let Some(ia) = self.prefixes.longest_match(ip)
        {
            resolved.ia = *ia;
            resolved.verified = true;
        }
        if speaks_scion {
            self.take_claim(announce, ip, trusted, &mut resolved);
        }
        resolved
    }

    /// The place of a requester that claims none, and whether it is proven. For scrapes, which carry no
    /// claim.
    pub fn of_origin(&self, origin: &Origin) -> (IsdAs, bool) {
        if origin.is_scion() {
            return (origin.host.ia, origin.isd_as == OriginIsdAs::Proven);
        }
        let listed = match self.policy {
            PlacePolicy::Ignore => None,
            PlacePolicy::Accept | PlacePolicy::PrefixOnly => {
                self.prefixes.longest_match(origin.host.ip())
            }
        };
        listed.map_or((IsdAs::NONE, false), |ia| (*ia, true))
    }

    /// Whether the operator lets this host name another address than its own.
    pub fn is_trusted(&self, ip: IpAddr) -> bool {
        self.trusted.contains(ip)
    }

    /// Applies the claim of an announce over IP as far as the rules allow.
    fn take_claim(&self, announce: &AnnounceRequest, ip: IpAddr, trusted: bool, to: &mut Resolved) {
        let claim = &announce.claim;
        let claimed = match claim.scion {
            ScionClaim::At(at) => Some((at.host.ia, Some(at))),
            _ => claim.ia.map(|ia| (ia, None)),
        };
        let Some((ia, at)) = claimed else { return };
        let contradicted = to.verified && to.ia != ia;
        // `ia` and the ISD-AS of the `scion` address contradict each other.
        let inconsistent = claim.ia.is_some_and(|named| named != ia);
        if self.policy != PlacePolicy::Accept || contradicted || inconsistent {
            to.warning = (to.ia != ia).then_some(Warning::ClaimIgnored);
            return;
        }
        if let Some(at) = at
            && at.host.ip() != ip
            && !trusted
        {
            to.warning = Some(Warning::ScionHostUntrusted);
            return;
        }
        to.ia = ia;
        to.reach = Reach::Both;
        if let Some(at) = at {
            let named = CompactAddr::new(at.host.ip(), at.port);
            if named != to.addr {
                // Peers are given the SCION address alone, because it differs from the IP address.
                to.addr = named;
                to.reach = Reach::Scion;
            }
        }
    }
}

/// A requester over SCION reaches SCION hosts of both families. BEP 15 carries one family,
/// unless the client reads both.
fn over_scion(carries: Carries) -> Accepts {
    let of = |classes: Classes, family| {
        let both = classes.with(family, Reach::Both, Scope::Global);
        both.with_local().with(family, Reach::Scion, Scope::Global)
    };
    let first = match carries {
        Carries::All => of(of(Classes::NONE, Family::V4), Family::V6),
        Carries::One(family) => of(Classes::NONE, family),
    };
    Accepts {
        first,
        then: Classes::NONE,
    }
}

/// A requester over IP reaches peers of its own family. Peers of the other family fill the rest of a
/// reply that carries both. Only a local requester reaches local peers.
fn over_ip(own: Family, scope: Scope, carries: Carries, speaks_scion: bool) -> Accepts {
    let accepts = over_ip_globally(own, carries, speaks_scion);
    match scope {
        Scope::Global => accepts,
        Scope::Local => Accepts {
            first: accepts.first.with_local(),
            then: accepts.then.with_local(),
        },
    }
}

fn over_ip_globally(own: Family, carries: Carries, speaks_scion: bool) -> Accepts {
    const GLOBAL: Scope = Scope::Global;
    let of = |classes: Classes, family| {
        classes
            .with(family, Reach::Ip, GLOBAL)
            .with(family, Reach::Both, GLOBAL)
    };
    if let Carries::One(family) = carries {
        return Accepts {
            first: of(Classes::NONE, family),
            then: Classes::NONE,
        };
    }
    let other = match own {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    };
    if !speaks_scion {
        return Accepts {
            first: of(Classes::NONE, own),
            then: of(Classes::NONE, other),
        };
    }
    let scion = over_scion(Carries::All).first;
    Accepts {
        first: scion.with(own, Reach::Ip, GLOBAL),
        then: Classes::NONE.with(other, Reach::Ip, GLOBAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{InfoHash, PeerId};

    /// Whether a requester at one address is given a peer at another one.
    fn gives(places: &Places, [requester, peer]: [&str; 2], claim: ScionClaim) -> bool {
        let resolve = |ip: &str, claim| {
            let mut announce = AnnounceRequest::new(InfoHash([1; 20]), PeerId([2; 20]), 6881, 1);
            announce.claim.scion = claim;
            places.resolve(&Origin::ip(ip.parse().unwrap()), &announce, Carries::All)
        };
        let requester = resolve(requester, claim);
        let peer = resolve(peer, ScionClaim::Absent);
        let family = Family::of(peer.addr.socket_addr().ip());
        let Accepts { first, then } = requester.accepts;
        let given = [first, then].map(|it| it.contains(family, peer.reach, peer.scope));
        assert_ne!(given, [true, true]);
        given.contains(&true)
    }

    #[test]
    fn local_peers_are_given_only_to_local_requesters() {
        const LOCALS: [&str; 17] = [
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.9.9",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.0",
            "192.168.255.255",
            "::ffff:192.168.1.1",
            "::1",
            "fc00::1",
            "fdff:ffff::",
            "fe80::1",
            "febf::1",
            "fd12:3456:789a:1::1",
        ];
        const GLOBALS: [&str; 12] = [
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "192.0.2.1",
            "::2",
            "2001:db8::1",
            "fec0::1",
        ];
        let places = Places::default();
        let everywhere = Places::default().with_local([]);
        for claim in [ScionClaim::Absent, ScionClaim::Capable] {
            for a in LOCALS {
                for b in LOCALS {
                    assert!(gives(&places, [a, b], claim), "{a} {b}");
                }
                for b in GLOBALS {
                    assert!(gives(&places, [a, b], claim), "{a} {b}");
                    assert!(!gives(&places, [b, a], claim), "{b} {a}");
                    assert!(gives(&everywhere, [b, a], claim), "{b} {a}");
                }
            }
            for a in GLOBALS {
                for b in GLOBALS {
                    assert!(gives(&places, [a, b], claim), "{a} {b}");
                }
            }
        }
        let ours = Places::default().with_local(["192.0.2.0/24".parse().unwrap()]);
        assert!(!gives(&ours, ["10.0.0.1", "192.0.2.1"], ScionClaim::Absent));
        assert!(gives(&ours, ["192.0.2.1", "10.0.0.1"], ScionClaim::Absent));
    }

    #[test]
    fn scion_reaches_local_addresses() {
        let places = Places::default();
        let of = |origin: Origin, claim: &str| {
            let mut announce = AnnounceRequest::new(InfoHash([1; 20]), PeerId([2; 20]), 6881, 1);
            if !claim.is_empty() {
                announce.claim.scion = ScionClaim::At(claim.parse().unwrap());
            }
            places.resolve(&origin, &announce, Carries::All)
        };
        let ip = |ip: &str| Origin::ip(ip.parse().unwrap());
        let host = Host::new("1-1".parse().unwrap(), [10, 0, 0, 9].into());
        // Reached over both, at a local address.
        let both = of(ip("10.0.0.1"), "1-1,[10.0.0.1]:6881");
        assert_eq!((both.reach, both.scope), (Reach::Both, Scope::Local));
        // Reached over SCION only.
        let scion = of(Origin::scion(host), "");
        for (requester, gets_both, gets_scion) in [
            (of(Origin::scion(host), ""), true, true),
            (of(ip("192.0.2.1"), "1-1,[192.0.2.1]:6881"), true, true),
            (of(ip("192.0.2.1"), ""), false, false),
            (of(ip("10.0.0.2"), ""), true, false),
        ] {
            let Accepts { first, then } = requester.accepts;
            for (peer, gets) in [(both, gets_both), (scion, gets_scion)] {
                let given = [first, then].map(|it| it.contains(Family::V4, peer.reach, peer.scope));
                assert_eq!(given.contains(&true), gets, "{requester:?} {peer:?}");
            }
        }
    }

    #[test]
    fn the_address_that_others_are_given_decides_whether_it_is_local() {
        let trusted = vec!["10.0.0.0/8".parse().unwrap()];
        let places = Places::new(PlacePolicy::Accept, Vec::new(), trusted);
        for (ip, named, scope) in [
            ("10.0.0.1", None, Scope::Local),
            ("10.0.0.1", Some("192.0.2.1"), Scope::Global),
            ("10.0.0.1", Some("::ffff:10.0.0.2"), Scope::Local),
            // Not trusted.
            ("192.0.2.1", Some("10.0.0.1"), Scope::Global),
        ] {
            let mut announce = AnnounceRequest::new(InfoHash([1; 20]), PeerId([2; 20]), 6881, 1);
            announce.named_ip = named.map(|ip| ip.parse().unwrap());
            let origin = Origin::ip(ip.parse().unwrap());
            for carries in [Carries::All, Carries::One(Family::V4)] {
                let resolved = places.resolve(&origin, &announce, carries);
                assert_eq!(resolved.scope, scope);
                let first = resolved.accepts.first;
                let local = first.contains(Family::V4, Reach::Ip, Scope::Local);
                assert_eq!(local, scope == Scope::Local);
                assert!(first.contains(Family::V4, Reach::Ip, Scope::Global));
            }
        }
    }

    #[test]
    fn a_request_over_scion_is_as_sure_as_its_origin() {
        let host = Host::new("1-ff00:0:110".parse().unwrap(), [10, 0, 0, 1].into());
        let port = 6881;
        let announce = AnnounceRequest::new(InfoHash([1; 20]), PeerId([2; 20]), port, 1);
        for (isd_as, verified) in [(OriginIsdAs::Proven, true), (OriginIsdAs::Claimed, false)] {
            let origin = Origin { host, isd_as };
            let resolved = Places::default().resolve(&origin, &announce, Carries::All);
            assert_eq!((resolved.ia, resolved.verified), (host.ia, verified));
            assert_eq!(resolved.reach, Reach::Scion);
        }
    }
}
