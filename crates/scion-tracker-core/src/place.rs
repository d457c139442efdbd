//! Where a requester is: what the transport saw, what the operator knows, what the client claims.
//!
//! Rules, in this order:
//! 1. A request over SCION is where its packet came from. Proven.
//! 2. The operator's prefix table gives an IP origin an ISD-AS, and overrides a claim that
//!    contradicts it. Proven, in the sense that the operator answers for it.
//! 3. With [`PlacePolicy::Accept`], a claim places the requester. Kept apart from proven places:
//!    inside a tier the proven ones come first.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::address::{CompactAddr, Host, IsdAs};
use crate::registry::{Accepts, Classes};
use crate::request::{AnnounceRequest, Carries, Family, Origin, ScionClaim};
use crate::response::{Reach, Warning};

/// What becomes of a place that an announce over plain IP claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlacePolicy {
    /// `ia` is taken for the observed host; a `scion` address whose host is another one only from
    /// trusted prefixes.
    #[default]
    Accept,
    /// Only the operator's prefix table gives places.
    PrefixOnly,
    /// No announce over plain IP has a place.
    Ignore,
}

/// Not the name of a place policy.
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

/// How places are given to requesters.
#[derive(Debug, Clone, Default)]
pub struct Places {
    policy: PlacePolicy,
    /// Longest prefix first.
    prefixes: Vec<(IpNet, IsdAs)>,
    trusted: Vec<IpNet>,
}

/// A requester with its place decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// The place, [`IsdAs::NONE`] if it has none.
    pub ia: IsdAs,
    /// The address at which others reach it.
    pub addr: CompactAddr,
    /// Over what they reach it.
    pub reach: Reach,
    /// Whether the place is proven.
    pub verified: bool,
    /// Whom it can reach.
    pub accepts: Accepts,
    /// What of its claim was not taken over.
    pub warning: Option<Warning>,
}

impl Places {
    /// `prefixes` places IP origins; `trusted` are the prefixes whose word on addresses (`ip=`,
    /// `scion=`) is taken.
    pub fn new(
        policy: PlacePolicy,
        mut prefixes: Vec<(IpNet, IsdAs)>,
        trusted: Vec<IpNet>,
    ) -> Self {
        prefixes.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        Self {
            policy,
            prefixes,
            trusted,
        }
    }

    /// Decides where the requester is and whom it can reach.
    pub fn resolve(
        &self,
        origin: &Origin,
        announce: &AnnounceRequest,
        carries: Carries,
    ) -> Resolved {
        let port = announce.port.get();
        if origin.is_scion() {
            let Host { ia, .. } = origin.host;
            return Resolved {
                ia,
                addr: CompactAddr::new(origin.host.ip(), port),
                reach: Reach::Scion,
                verified: true,
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
            && let Some(ia) = self.by_prefix(ip)
        {
            resolved.ia = ia;
            resolved.verified = true;
        }
        self.take_claim(announce, ip.to_canonical(), trusted, &mut resolved);
        resolved
    }

    /// Whether the operator takes this host's word on addresses.
    pub fn is_trusted(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&ip))
    }

    fn by_prefix(&self, ip: IpAddr) -> Option<IsdAs> {
        let ip = ip.to_canonical();
        self.prefixes
            .iter()
            .find(|(net, _)| net.contains(&ip))
            .map(|(_, ia)| *ia)
    }

    fn take_claim(&self, announce: &AnnounceRequest, ip: IpAddr, trusted: bool, to: &mut Resolved) {
        let claim = &announce.claim;
        let claimed = match claim.scion {
            ScionClaim::At(at) => Some((at.host.ia, Some(at))),
            _ => claim.ia.map(|ia| (ia, None)),
        };
        let Some((ia, at)) = claimed else { return };
        let contradicted = to.verified && to.ia != ia;
        // `ia` beside a `scion` address of another ISD-AS says two things at once.
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
                // The SCION address is another one than the IP address: it alone is handed out.
                to.addr = named;
                to.reach = Reach::Scion;
            }
        }
    }
}

/// A SCION requester reaches SCION hosts of either family; BEP 15 carries one family.
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

/// An IP requester surely reaches peers of its own family; those of the other one fill what is left
/// of a reply that carries both.
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
