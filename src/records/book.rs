//! The records in memory, and what files and the configuration say besides them. What is in force is the sum
//! of both; a record of a passkey or of rules replaces what the file or the configuration says of the same.

use std::collections::{BTreeMap, BTreeSet};

use scion_tracker_core::access::{
    Access, Ban, BanTarget, Isolation, PasskeyTable, RuleSet, TorrentRules, TorrentSet,
};
use scion_tracker_core::request::Passkey;
use scion_tracker_core::types::InfoHash;

use super::{Page, PasskeyRecord, RecordsError, RulesRecord};
use crate::config::TorrentAccess;

/// Where an entry that is no record comes from, for messages.
const PASSKEYS: &str = "the file of access.passkeys";
const ALLOW: &str = "the file of access.allow";
const DENY: &str = "the file of access.deny";
const TORRENTS: &str = "access.torrents";

/// All records except download counts, sorted.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// By their characters.
    pub(crate) passkeys: BTreeMap<Box<[u8]>, PasskeyRecord>,
    pub(crate) allowed: BTreeSet<InfoHash>,
    pub(crate) denied: BTreeSet<InfoHash>,
    pub(crate) bans: BTreeMap<BanTarget, Ban>,
    pub(crate) isolations: BTreeMap<InfoHash, Isolation>,
    pub(crate) rules: Option<RulesRecord>,
    pub(crate) torrent_rules: BTreeMap<InfoHash, RulesRecord>,
}

/// Records, and the entries that come from elsewhere.
#[derive(Debug)]
pub(crate) struct Book {
    records: Entries,
    /// What the files say.
    passkeys: PasskeyTable,
    allow: TorrentSet,
    deny: TorrentSet,
    /// What the configuration says.
    rules: RuleSet,
    torrents: BTreeMap<InfoHash, TorrentAccess>,
}

impl Book {
    /// Nothing. The tables have the hash functions of `access`.
    pub(crate) fn new(access: &Access) -> Self {
        Self {
            records: Entries::default(),
            passkeys: access.passkeys().emptied(0),
            allow: access.allowed().emptied(0),
            deny: access.denied().emptied(0),
            rules: RuleSet::default(),
            torrents: BTreeMap::new(),
        }
    }

    /// The records.
    pub(crate) const fn records(&self) -> &Entries {
        &self.records
    }

    /// Puts records in force that were read from the store, before anything else is in force.
    pub(crate) fn load(&mut self, records: Entries, access: &mut Access) {
        self.records = records;
        let Entries {
            passkeys,
            allowed,
            denied,
            bans,
            rules,
            ..
        } = &self.records;
        let mut table = self.passkeys.emptied(passkeys.len());
        table.extend(passkeys.values().map(|it| (it.passkey, it.expiry)));
        access.apply_passkeys(&self.passkeys, &table);
        let set_of = |hashes: &BTreeSet<InfoHash>| {
            let mut set = self.allow.emptied(hashes.len());
            set.extend(hashes.iter().map(|hash| (*hash, ())));
            set
        };
        access.apply_allowed(&self.allow, &set_of(allowed));
        access.apply_denied(&self.deny, &set_of(denied));
        access.extend_bans(bans.iter().map(|(target, ban)| (*target, ban.clone())));
        if let Some(rules) = rules {
            access.set_rules(rules.rule_set());
        }
        let ruled = self.records.torrent_rules.keys();
        let torrents: BTreeSet<_> = ruled.chain(self.records.isolations.keys()).collect();
        for info_hash in torrents {
            access.set_torrent(*info_hash, self.torrent(info_hash));
        }
    }

    /// The rules of a torrent that are to be in force.
    fn torrent(&self, info_hash: &InfoHash) -> TorrentRules {
        let configured = self.torrents.get(info_hash);
        let mut rules = configured.map_or_else(TorrentRules::default, TorrentAccess::rules);
        if let Some(record) = self.records.torrent_rules.get(info_hash) {
            rules.rules = record.rule_set();
        }
        if let Some(isolation) = self.records.isolations.get(info_hash) {
            rules.isolation = Some(isolation.clone());
        }
        rules
    }

    /// Puts the passkeys of a file in force, instead of those that it had.
    pub(crate) fn set_passkeys(&mut self, file: &PasskeyTable, access: &mut Access) {
        access.apply_passkeys(&self.passkeys, file);
        self.passkeys = file.clone();
        for record in self.records.passkeys.values() {
            if access.passkeys().get(&record.passkey) != Some(&record.expiry) {
                access.add_passkey(record.passkey, record.expiry);
            }
        }
    }

    /// Puts the allowed torrents of a file in force, instead of those that it had.
    pub(crate) fn set_allowed(&mut self, file: &TorrentSet, access: &mut Access) {
        access.apply_allowed(&self.allow, file);
        for (info_hash, ()) in self.allow.iter() {
            if self.records.allowed.contains(info_hash) {
                access.allow(*info_hash);
            }
        }
        self.allow = file.clone();
    }

    /// Puts the denied torrents of a file in force, instead of those that it had.
    pub(crate) fn set_denied(&mut self, file: &TorrentSet, access: &mut Access) {
        access.apply_denied(&self.deny, file);
        for (info_hash, ()) in self.deny.iter() {
            if self.records.denied.contains(info_hash) {
                access.deny(*info_hash);
            }
        }
        self.deny = file.clone();
    }

    /// Puts the rules of the configuration for all torrents in force, unless there is a record.
    pub(crate) fn set_rules(&mut self, rules: RuleSet, access: &mut Access) {
        self.rules = rules;
        if self.records.rules.is_none() {
            access.set_rules(self.rules.clone());
        }
    }

    /// Puts the rules of the configuration for single torrents in force, where they have changed and there
    /// is no record. Returns the torrents that have rules which they did not have.
    pub(crate) fn set_torrents(
        &mut self,
        torrents: &BTreeMap<InfoHash, TorrentAccess>,
        access: &mut Access,
    ) -> Vec<InfoHash> {
        let old = std::mem::replace(&mut self.torrents, torrents.clone());
        for info_hash in old.keys().filter(|hash| !torrents.contains_key(hash)) {
            access.set_torrent(*info_hash, self.torrent(info_hash));
        }
        let changed = torrents
            .iter()
            .filter(|(hash, rules)| old.get(hash) != Some(rules));
        let changed: Vec<_> = changed.map(|(hash, _)| *hash).collect();
        for info_hash in &changed {
            access.set_torrent(*info_hash, self.torrent(info_hash));
        }
        changed
    }

    /// Whether a record for all torrents replaces rules of the configuration.
    pub(crate) const fn replaces_rules(&self) -> bool {
        self.records.rules.is_some() && !self.rules.is_empty()
    }

    /// Refuses a change to an entry that is not a record.
    pub(crate) fn check(&self, change: &Change) -> Result<(), RecordsError> {
        let Entries {
            isolations,
            torrent_rules,
            ..
        } = &self.records;
        let configured = |hash: &InfoHash| self.torrents.get(hash);
        let place = match change {
            Change::RemovePasskey(passkey) if self.passkeys.contains(passkey) => PASSKEYS,
            Change::Disallow(hash) if self.allow.contains(hash) => ALLOW,
            Change::Undeny(hash) if self.deny.contains(hash) => DENY,
            Change::EndIsolation(hash)
                if !isolations.contains_key(hash)
                    && configured(hash).is_some_and(|it| it.isds.is_some()) =>
            {
                TORRENTS
            }
            Change::RemoveRules(Some(hash))
                if !torrent_rules.contains_key(hash)
                    && configured(hash).is_some_and(|it| !it.rules().rules.is_empty()) =>
            {
                TORRENTS
            }
            _ => return Ok(()),
        };
        Err(RecordsError::InFile(place))
    }

    pub(crate) fn add_passkey(
        &mut self,
        record: PasskeyRecord,
        access: &mut Access,
    ) -> Option<PasskeyRecord> {
        access.add_passkey(record.passkey, record.expiry);
        let key = record.passkey.as_bytes().into();
        self.records.passkeys.insert(key, record)
    }

    pub(crate) fn remove_passkey(
        &mut self,
        passkey: &Passkey,
        access: &mut Access,
    ) -> Option<PasskeyRecord> {
        let record = self.records.passkeys.remove(passkey.as_bytes());
        match self.passkeys.get(passkey) {
            Some(expiry) => access.add_passkey(*passkey, *expiry),
            None => access.remove_passkey(passkey),
        };
        record
    }

    pub(crate) fn allow(&mut self, info_hash: InfoHash, access: &mut Access) -> bool {
        access.allow(info_hash);
        self.records.allowed.insert(info_hash)
    }

    pub(crate) fn disallow(&mut self, info_hash: &InfoHash, access: &mut Access) -> bool {
        if !self.allow.contains(info_hash) {
            access.disallow(info_hash);
        }
        self.records.allowed.remove(info_hash)
    }

    pub(crate) fn deny(&mut self, info_hash: InfoHash, access: &mut Access) -> bool {
        access.deny(info_hash);
        self.records.denied.insert(info_hash)
    }

    pub(crate) fn undeny(&mut self, info_hash: &InfoHash, access: &mut Access) -> bool {
        if !self.deny.contains(info_hash) {
            access.undeny(info_hash);
        }
        self.records.denied.remove(info_hash)
    }

    pub(crate) fn ban(&mut self, target: BanTarget, ban: Ban, access: &mut Access) -> Option<Ban> {
        access.ban(target, ban.clone());
        self.records.bans.insert(target, ban)
    }

    pub(crate) fn unban(&mut self, target: &BanTarget, access: &mut Access) -> Option<Ban> {
        access.unban(target);
        self.records.bans.remove(target)
    }

    /// Sets or ends the isolation of a torrent. Returns the old record.
    pub(crate) fn isolate(
        &mut self,
        info_hash: InfoHash,
        isolation: Option<Isolation>,
        access: &mut Access,
    ) -> Option<Isolation> {
        let records = &mut self.records.isolations;
        let old = match isolation {
            Some(isolation) => records.insert(info_hash, isolation),
            None => records.remove(&info_hash),
        };
        access.set_torrent(info_hash, self.torrent(&info_hash));
        old
    }

    /// Sets or removes the rules of a torrent. Returns the old record.
    pub(crate) fn rule_torrent(
        &mut self,
        info_hash: InfoHash,
        rules: Option<RulesRecord>,
        access: &mut Access,
    ) -> Option<RulesRecord> {
        let records = &mut self.records.torrent_rules;
        let old = match rules {
            Some(rules) => records.insert(info_hash, rules),
            None => records.remove(&info_hash),
        };
        access.set_torrent(info_hash, self.torrent(&info_hash));
        old
    }

    /// Sets or removes the rules for all torrents. Returns the old record.
    pub(crate) fn rule_all(
        &mut self,
        rules: Option<RulesRecord>,
        access: &mut Access,
    ) -> Option<RulesRecord> {
        let old = std::mem::replace(&mut self.records.rules, rules);
        let record = self.records.rules.as_ref();
        access.set_rules(record.map_or_else(|| self.rules.clone(), RulesRecord::rule_set));
        old
    }

    /// Removes records that have expired at this time, in seconds since 1970. Returns whether there are some.
    pub(crate) fn remove_expired(&mut self, unix: u64) -> bool {
        let Entries { passkeys, bans, .. } = &mut self.records;
        let before = passkeys.len() + bans.len();
        passkeys.retain(|_, it| !it.expiry.is_over(unix));
        bans.retain(|_, it| it.until.is_none_or(|until| until > unix));
        passkeys.len() + bans.len() < before
    }
}

/// A change of the records. To make it twice does the same as to make it once.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    AddPasskey(PasskeyRecord),
    RemovePasskey(Passkey),
    Allow(InfoHash),
    Disallow(InfoHash),
    Deny(InfoHash),
    Undeny(InfoHash),
    Ban(BanTarget, Ban),
    Unban(BanTarget),
    Isolate(InfoHash, Isolation),
    EndIsolation(InfoHash),
    /// For one torrent, or for all.
    SetRules(Option<InfoHash>, RulesRecord),
    RemoveRules(Option<InfoHash>),
    /// Of passkeys and bans, at this time in seconds since 1970.
    RemoveExpired(u64),
}

/// Most bytes of a note, an owner or a reason.
const MOST_TEXT: usize = 4096;
/// Most networks and clients of one set of rules.
const MOST_RULES: usize = 100_000;

impl Change {
    /// Refuses texts that not every database takes.
    pub(crate) fn check(&self) -> Result<(), RecordsError> {
        let invalid = |reason: &str| Err(RecordsError::Invalid(reason.to_owned()));
        let texts: [Option<&str>; 2] = match self {
            Self::AddPasskey(record) => [record.note.as_deref(), record.owner.as_deref()],
            Self::Ban(_, ban) => [Some(&ban.reason), None],
            Self::SetRules(_, rules) if rules.len() > MOST_RULES => {
                return invalid("rules have at most 100000 networks and clients");
            }
            _ => return Ok(()),
        };
        let mut texts = texts.into_iter().flatten();
        match texts.any(|text| text.len() > MOST_TEXT || text.contains('\0')) {
            true => invalid("a note, owner or reason has at most 4096 bytes, and no zero byte"),
            false => Ok(()),
        }
    }
}

impl Entries {
    /// A part of the passkeys, sorted by their characters.
    pub(crate) fn page_of_passkeys(&self, offset: usize, limit: usize) -> Page<PasskeyRecord> {
        let entries = self.passkeys.values().skip(offset).take(limit);
        Page {
            entries: entries.cloned().collect(),
            total: self.passkeys.len(),
        }
    }
}

/// A part of a set of torrents.
pub(crate) fn page_of_set(set: &BTreeSet<InfoHash>, offset: usize, limit: usize) -> Page<InfoHash> {
    Page {
        entries: set.iter().skip(offset).take(limit).copied().collect(),
        total: set.len(),
    }
}

/// A part of a map.
pub(crate) fn page_of_map<K: Ord + Clone, V: Clone>(
    map: &BTreeMap<K, V>,
    offset: usize,
    limit: usize,
) -> Page<(K, V)> {
    let entries = map.iter().skip(offset).take(limit);
    Page {
        entries: entries
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        total: map.len(),
    }
}
