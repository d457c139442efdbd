//! Changes who may use a running tracker, one entry at a time. For the admin API and programs that embed the
//! tracker.
//!
//! Each change is a record. It is written to the store first, then put in force, then the method returns: the
//! next request of every transport sees it, and it survives a restart. If the store cannot be written, nothing
//! changes. Lists are read from memory and never wait for the store.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use scion_tracker_core::access::{Access, Ban, BanTarget, BusyHost, Isolation};
use scion_tracker_core::request::Passkey;
use scion_tracker_core::types::InfoHash;

use super::Handle;
use crate::access::Purge;
use crate::records::{
    Book, Change, Page, PasskeyRecord, RecordsError, RecordsState, RulesRecord, page_of_map,
    page_of_set,
};

/// What a change that takes a torrent from some did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restricted<T> {
    /// What was recorded before.
    pub before: T,
    /// Peers that were removed.
    pub removed: u64,
}

/// Passkeys count if the tracker is private, the allow list if it is listed.
impl Handle {
    /// Adds a passkey, or changes its expiry, note and owner. Returns the old record, whose time of creation
    /// stays.
    pub async fn add_passkey(
        &self,
        record: PasskeyRecord,
    ) -> Result<Option<PasskeyRecord>, RecordsError> {
        let mut record = record;
        let old = self.passkey(&record.passkey);
        record.created = old.map_or_else(unix_now, |old| old.created);
        let change = Change::AddPasskey(record.clone());
        self.change(change, |book, access| book.add_passkey(record, access))
            .await
    }

    /// Removes a passkey. Returns its record, `None` if there was none.
    pub async fn remove_passkey(
        &self,
        passkey: Passkey,
    ) -> Result<Option<PasskeyRecord>, RecordsError> {
        self.change(Change::RemovePasskey(passkey), move |book, access| {
            book.remove_passkey(&passkey, access)
        })
        .await
    }

    /// The record of a passkey. Those of files have none.
    pub fn passkey(&self, passkey: &Passkey) -> Option<PasskeyRecord> {
        let book = self.lists.book();
        book.records().passkeys.get(passkey.as_bytes()).cloned()
    }

    /// Passkeys that are records, sorted by their characters.
    pub fn passkeys(&self, offset: usize, limit: usize) -> Page<PasskeyRecord> {
        self.lists.book().records().page_of_passkeys(offset, limit)
    }

    /// Adds a torrent to the allow list. Returns whether it had no record there.
    pub async fn allow_torrent(&self, info_hash: InfoHash) -> Result<bool, RecordsError> {
        self.change(Change::Allow(info_hash), move |book, access| {
            book.allow(info_hash, access)
        })
        .await
    }

    /// Removes a torrent from the allow list. Returns whether it had a record there. Its peers expire.
    pub async fn disallow_torrent(&self, info_hash: InfoHash) -> Result<bool, RecordsError> {
        self.change(Change::Disallow(info_hash), move |book, access| {
            book.disallow(&info_hash, access)
        })
        .await
    }

    /// Torrents of the allow list that are records, sorted.
    pub fn allowed(&self, offset: usize, limit: usize) -> Page<InfoHash> {
        page_of_set(&self.lists.book().records().allowed, offset, limit)
    }

    /// Adds a torrent to the deny list, and removes its peers. `before` says whether it had a record there.
    pub async fn deny_torrent(
        &self,
        info_hash: InfoHash,
    ) -> Result<Restricted<bool>, RecordsError> {
        let is_new = self.change(Change::Deny(info_hash), move |book, access| {
            book.deny(info_hash, access)
        });
        let before = !is_new.await?;
        Ok(self.restricted(before, info_hash))
    }

    /// Removes a torrent from the deny list. Returns whether it had a record there.
    pub async fn undeny_torrent(&self, info_hash: InfoHash) -> Result<bool, RecordsError> {
        self.change(Change::Undeny(info_hash), move |book, access| {
            book.undeny(&info_hash, access)
        })
        .await
    }

    /// Torrents of the deny list that are records, sorted.
    pub fn denied(&self, offset: usize, limit: usize) -> Page<InfoHash> {
        page_of_set(&self.lists.book().records().denied, offset, limit)
    }

    /// Isolates a torrent, and removes its peers outside. Its other rules stay.
    pub async fn isolate_torrent(
        &self,
        info_hash: InfoHash,
        isolation: Isolation,
    ) -> Result<Restricted<Option<Isolation>>, RecordsError> {
        let change = Change::Isolate(info_hash, isolation.clone());
        let before = self.change(change, move |book, access| {
            book.isolate(info_hash, Some(isolation), access)
        });
        Ok(self.restricted(before.await?, info_hash))
    }

    /// Ends the isolation of a torrent. Returns it. An isolation in the configuration is in force again.
    pub async fn end_isolation(
        &self,
        info_hash: InfoHash,
    ) -> Result<Option<Isolation>, RecordsError> {
        self.change(Change::EndIsolation(info_hash), move |book, access| {
            book.isolate(info_hash, None, access)
        })
        .await
    }

    /// Isolated torrents that are records, sorted.
    pub fn isolations(&self, offset: usize, limit: usize) -> Page<(InfoHash, Isolation)> {
        page_of_map(&self.lists.book().records().isolations, offset, limit)
    }

    /// Sets the rules for all torrents, which replace those of the configuration. Returns the old record.
    pub async fn set_global_rules(
        &self,
        rules: RulesRecord,
    ) -> Result<Option<RulesRecord>, RecordsError> {
        let change = Change::SetRules(None, rules.clone());
        self.change(change, |book, access| book.rule_all(Some(rules), access))
            .await
    }

    /// Removes the record of rules for all torrents. Those of the configuration are in force again.
    pub async fn remove_global_rules(&self) -> Result<Option<RulesRecord>, RecordsError> {
        self.change(Change::RemoveRules(None), |book, access| {
            book.rule_all(None, access)
        })
        .await
    }

    /// The record of rules for all torrents.
    pub fn global_rules(&self) -> Option<RulesRecord> {
        self.lists.book().records().rules.clone()
    }

    /// Sets the rules of a torrent, which replace those of the configuration. Its isolation stays. Returns the
    /// old record.
    pub async fn set_torrent_rules(
        &self,
        info_hash: InfoHash,
        rules: RulesRecord,
    ) -> Result<Option<RulesRecord>, RecordsError> {
        let change = Change::SetRules(Some(info_hash), rules.clone());
        self.change(change, move |book, access| {
            book.rule_torrent(info_hash, Some(rules), access)
        })
        .await
    }

    /// Removes the rules of a torrent. Those of the configuration are in force again.
    pub async fn remove_torrent_rules(
        &self,
        info_hash: InfoHash,
    ) -> Result<Option<RulesRecord>, RecordsError> {
        self.change(Change::RemoveRules(Some(info_hash)), move |book, access| {
            book.rule_torrent(info_hash, None, access)
        })
        .await
    }

    /// The record of a torrent's rules.
    pub fn torrent_rules(&self, info_hash: &InfoHash) -> Option<RulesRecord> {
        let book = self.lists.book();
        book.records().torrent_rules.get(info_hash).cloned()
    }

    /// Rules of torrents that are records, sorted by torrent.
    pub fn all_torrent_rules(&self, offset: usize, limit: usize) -> Page<(InfoHash, RulesRecord)> {
        page_of_map(&self.lists.book().records().torrent_rules, offset, limit)
    }

    /// Bans a host or a network, or changes a ban. Returns the old one. Its peers expire.
    pub async fn ban(&self, target: BanTarget, ban: Ban) -> Result<Option<Ban>, RecordsError> {
        let change = Change::Ban(target, ban.clone());
        self.change(change, move |book, access| book.ban(target, ban, access))
            .await
    }

    /// Ends a ban. Returns it.
    pub async fn unban(&self, target: BanTarget) -> Result<Option<Ban>, RecordsError> {
        self.change(Change::Unban(target), move |book, access| {
            book.unban(&target, access)
        })
        .await
    }

    /// The bans, sorted.
    pub fn bans(&self, offset: usize, limit: usize) -> Page<(BanTarget, Ban)> {
        page_of_map(&self.lists.book().records().bans, offset, limit)
    }

    /// The hosts that announce most, busiest first: estimates of the last minute or two. Empty if announces
    /// are not limited.
    pub fn busiest_hosts(&self, most: usize) -> Vec<BusyHost> {
        let rates = self.rules().rates;
        rates.map_or_else(Vec::new, |rates| rates.busiest(most, self.service.now()))
    }

    /// How the store of the records is.
    pub fn records_state(&self) -> RecordsState {
        self.records.state()
    }

    /// Writes a change to the store, then puts it in force.
    async fn change<T: Send + 'static>(
        &self,
        change: Change,
        apply: impl FnOnce(&mut Book, &mut Access) -> T + Send + 'static,
    ) -> Result<T, RecordsError> {
        change.check()?;
        self.lists.book().check(&change)?;
        let (lists, service) = (Arc::clone(&self.lists), Arc::clone(&self.service));
        let apply = move || lists.change(&service, apply);
        self.records.change(change, apply).await
    }

    /// Removes the peers that the rules in force no longer allow.
    fn restricted<T>(&self, before: T, info_hash: InfoHash) -> Restricted<T> {
        Restricted {
            before,
            removed: self.lists.purge(Purge::of(info_hash), &self.service),
        }
    }
}

/// Seconds since 1970.
fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
