//! Changes who may use a running tracker, one entry at a time. For records, the admin API and programs that
//! embed the tracker.
//!
//! Each change is in force when its method returns: the next request of every transport sees it. Nothing is
//! kept over a restart.

use scion_tracker_core::access::{Access, Ban, BanTarget, BusyHost, Expiry, Isolation};
use scion_tracker_core::request::Passkey;
use scion_tracker_core::types::InfoHash;

use super::Handle;
use crate::access::Purge;

/// What a change that takes a torrent from some did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restricted<T> {
    /// What was in force before.
    pub before: T,
    /// Peers that were removed.
    pub removed: u64,
}

impl Handle {
    /// Adds a passkey, or gives it another expiry. Returns the old one. Passkeys count if the tracker is
    /// private.
    pub fn add_passkey(&self, passkey: Passkey, expiry: Expiry) -> Option<Expiry> {
        self.change(|access| access.add_passkey(passkey, expiry))
    }

    /// Removes a passkey. Returns its expiry, `None` if it was not known.
    pub fn remove_passkey(&self, passkey: &Passkey) -> Option<Expiry> {
        self.change(|access| access.remove_passkey(passkey))
    }

    /// Adds a torrent to the allow list, which counts if the tracker is listed. Returns whether it is new
    /// there.
    pub fn allow_torrent(&self, info_hash: InfoHash) -> bool {
        self.change(|access| access.allow(info_hash))
    }

    /// Removes a torrent from the allow list. Returns whether it was there. Its peers expire.
    pub fn disallow_torrent(&self, info_hash: &InfoHash) -> bool {
        self.change(|access| access.disallow(info_hash))
    }

    /// Adds a torrent to the deny list, and removes its peers. `before` says whether it was denied.
    pub fn deny_torrent(&self, info_hash: InfoHash) -> Restricted<bool> {
        let is_new = self.change(|access| access.deny(info_hash));
        Restricted {
            before: !is_new,
            removed: self.purge(info_hash),
        }
    }

    /// Removes a torrent from the deny list. Returns whether it was there.
    pub fn undeny_torrent(&self, info_hash: &InfoHash) -> bool {
        self.change(|access| access.undeny(info_hash))
    }

    /// Isolates a torrent, and removes its peers outside. Its other rules stay.
    pub fn isolate_torrent(
        &self,
        info_hash: InfoHash,
        isolation: Isolation,
    ) -> Restricted<Option<Isolation>> {
        let before = self.change(|access| access.isolate(info_hash, Some(isolation)));
        Restricted {
            before,
            removed: self.purge(info_hash),
        }
    }

    /// Ends the isolation of a torrent. Returns it.
    pub fn end_isolation(&self, info_hash: InfoHash) -> Option<Isolation> {
        self.change(|access| access.isolate(info_hash, None))
    }

    /// Bans a host or a network, or changes a ban. Returns the old one. Its peers expire.
    pub fn ban(&self, target: BanTarget, ban: Ban) -> Option<Ban> {
        self.change(|access| access.ban(target, ban))
    }

    /// Ends a ban. Returns it.
    pub fn unban(&self, target: &BanTarget) -> Option<Ban> {
        self.change(|access| access.unban(target))
    }

    /// The bans in force.
    pub fn bans(&self) -> Vec<(BanTarget, Ban)> {
        let access = self.rules().access;
        access
            .bans()
            .map(|(target, ban)| (*target, ban.clone()))
            .collect()
    }

    /// The hosts that announce most, busiest first: estimates of the last minute or two. Empty if announces
    /// are not limited.
    pub fn busiest_hosts(&self, most: usize) -> Vec<BusyHost> {
        let rates = self.rules().rates;
        rates.map_or_else(Vec::new, |rates| rates.busiest(most, self.service.now()))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Access) -> T) -> T {
        self.service.change_rules(|rules| change(&mut rules.access))
    }

    /// Removes the peers that the rules in force no longer allow. Returns how many.
    fn purge(&self, info_hash: InfoHash) -> u64 {
        self.lists.purge(Purge::of(info_hash), &self.service)
    }
}
