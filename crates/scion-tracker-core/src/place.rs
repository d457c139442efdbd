//! Decides the place of a requester, its ISD-AS, and the address that other peers are given.
//!
//! Rules, in this order:
//! 1. The place of a request over SCION is the source ISD-AS of its packet. It is proven, unless the
//!    transport says that the packet may have come from any host ([`OriginIsdAs`]).
//! 2. The operator's prefix table gives places to requests over IP. It overrides a claim that
//!    contradicts it. Such a place counts as proven, because the operator vouches for it.
//! 3. With [`PlacePolicy::Accept`], the place that a client claims is used. It is not proven: in each
//!    tier of the selection, peers with proven places come first.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::address::{CompactAddr, Host, IsdAs};
use crate::prefix::{PrefixMap, PrefixSet};
use crate::registry::{Accepts, Classes};
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

/// The operator's rules that give requesters their places.
#[derive(Debug, Clone, Default)]
pub struct Places {
    policy: PlacePolicy,
    prefixes: PrefixMap<IsdAs>,
    trusted: PrefixSet,
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
        }
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
                verified: origin.isd_as == OriginIsdAs::Proven,
                accepts: over_scion(carries),
                warning: None,
            };
        }
        let trusted = self.is_trusted(origin.host.ip());
        let ip = announce
            .named_ip
            .filter(|_| trusted)
            .unwrap_or_else(|| origin.host.ip());
        let mut resolved = Resolved {
            ia: IsdAs::NONE,
            addr: CompactAddr::new(ip, port),
            reach: Reach::Ip,
            verified: false,
            accepts: over_ip(ip, carries, announce.claim.is_scion()),
            warning: None,
        };
        if self.policy != PlacePolicy::Ignore
            && let Some(ia) = self.prefixes.longest_match(ip)
        {
            resolved.ia = *ia;
            resolved.verified = true;
        }
        self.take_claim(announce, ip.to_canonical(), trusted, &mut resolved);
        resolved
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

/// A requester over SCION reaches SCION hosts of both families. BEP 15 carries one family.
fn over_scion(carries: Carries) -> Accepts {
    let of =
        |classes: Classes, family| classes.with(family, Reach::Scion).with(family, Reach::Both);
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
/// reply that carries both.
fn over_ip(ip: IpAddr, carries: Carries, speaks_scion: bool) -> Accepts {
    let of = |classes: Classes, family| classes.with(family, Reach::Ip).with(family, Reach::Both);
    if let Carries::One(family) = carries {
        return Accepts {
            first: of(Classes::NONE, family),
            then: Classes::NONE,
        };
    }
    let (own, other) = match Family::of(ip.to_canonical()) {
        Family::V4 => (Family::V4, Family::V6),
        Family::V6 => (Family::V6, Family::V4),
    };
    if !speaks_scion {
        return Accepts {
            first: of(Classes::NONE, own),
            then: of(Classes::NONE, other),
        };
    }
    let scion = over_scion(Carries::All).first;
    Accepts {
        first: scion.with(own, Reach::Ip),
        then: Classes::NONE.with(other, Reach::Ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{InfoHash, PeerId};

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
