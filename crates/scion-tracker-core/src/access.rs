//! Access rules: who may announce and scrape. Decided once for every transport, before anything is stored.
//!
//! Pure: no lookup leaves the process, and the rules are swapped as a whole (see
//! [`Rules`](crate::tracker::Rules)). By default everything is allowed.

use ahash::RandomState;
use hashbrown::HashSet;

use crate::request::{Origin, Passkey};
use crate::response::Refusal;
use crate::types::InfoHash;

/// What is asked of a swarm, as far as access rules look at it.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The requester, as the transport saw it.
    pub origin: &'a Origin,
    /// The swarm.
    pub info_hash: &'a InfoHash,
    /// The passkey in the requester's tracker URL, if there is one.
    pub passkey: Option<&'a Passkey>,
}

/// The access rules of a tracker. The default allows everything.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The passkeys of a private tracker. `None`: the tracker is public, and passkeys are ignored.
    passkeys: Option<HashSet<Passkey, RandomState>>,
}

impl Access {
    /// A private tracker: only requesters with one of these passkeys are served.
    pub fn private(passkeys: impl IntoIterator<Item = Passkey>) -> Self {
        // Only the operator adds passkeys, so the seeds need not be secret.
        let mut known = HashSet::with_hasher(RandomState::with_seeds(1, 2, 3, 4));
        known.extend(passkeys);
        Self {
            passkeys: Some(known),
        }
    }

    /// Decides about an announce or a scrape.
    #[inline]
    pub fn check(&self, query: &Query<'_>) -> Result<(), Refusal> {
        match &self.passkeys {
            None => Ok(()),
            Some(passkeys) => check_passkey(passkeys, query.passkey),
        }
    }
}

fn check_passkey(
    passkeys: &HashSet<Passkey, RandomState>,
    passkey: Option<&Passkey>,
) -> Result<(), Refusal> {
    match passkey {
        None => Err(Refusal::PasskeyMissing),
        Some(passkey) if passkeys.contains(passkey) => Ok(()),
        Some(_) => Err(Refusal::PasskeyUnknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(access: &Access, passkey: Option<&str>) -> Result<(), Refusal> {
        let passkey = passkey.map(|text| text.parse().unwrap());
        access.check(&Query {
            origin: &Origin::ip([192, 0, 2, 1].into()),
            info_hash: &InfoHash([1; 20]),
            passkey: passkey.as_ref(),
        })
    }

    #[test]
    fn a_public_tracker_serves_with_and_without_passkeys() {
        let public = Access::default();
        assert_eq!(check(&public, None), Ok(()));
        assert_eq!(check(&public, Some("anything")), Ok(()));
    }

    #[test]
    fn a_private_tracker_serves_known_passkeys_only() {
        let private = Access::private(["alpha".parse().unwrap(), "beta".parse().unwrap()]);
        assert_eq!(check(&private, Some("alpha")), Ok(()));
        assert_eq!(check(&private, Some("beta")), Ok(()));
        assert_eq!(check(&private, None), Err(Refusal::PasskeyMissing));
        for unknown in ["alph", "alphaa", "Alpha", "gamma"] {
            assert_eq!(check(&private, Some(unknown)), Err(Refusal::PasskeyUnknown));
        }
    }
}
