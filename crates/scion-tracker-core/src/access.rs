//! Access rules: who may announce and scrape. Decided once for every transport, before anything is stored.
//!
//! Pure: no lookup leaves the process, and the rules are swapped as a whole (see
//! [`Rules`](crate::tracker::Rules)). By default everything is allowed.
//!
//! Order of the checks, of which the first that fails gives the refusal: bans, networks, clients and
//! ISD-ASes; passkey; deny list and allow list of torrents; the rules of the torrent, isolation first.

mod bans;
mod rates;
mod rules;
mod table;

use std::sync::Arc;

use crate::address::IsdAs;
use crate::request::{Origin, Passkey};
use crate::response::Refusal;
use crate::types::{InfoHash, PeerId, Time};

use bans::Bans;
pub use bans::{Ban, BanTarget};
pub use rates::{BusyHost, Rate, Rates};
pub use rules::{
    ClientPrefix, ClientPrefixError, ClientRules, Isolation, NetworkRules, PlaceAcl, PlaceAclError,
    PlaceRules, RuleSet, TorrentRules, Verdict,
};
pub use table::Table;

/// A set of torrents.
pub type TorrentSet = Table<InfoHash, ()>;
/// Passkeys, and when each expires.
pub type PasskeyTable = Table<Passkey, Expiry>;

/// When a passkey expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    Never,
    /// At this time, in seconds since 1970.
    At(u64),
}

impl Expiry {
    /// Whether the time has come.
    pub const fn is_over(self, unix: u64) -> bool {
        match self {
            Self::Never => false,
            Self::At(at) => at <= unix,
        }
    }
}

/// What is asked of a swarm, as far as access rules look at it.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The requester, as the transport saw it.
    pub origin: &'a Origin,
    /// The swarm.
    pub info_hash: &'a InfoHash,
    /// The passkey in the requester's tracker URL, if there is one.
    pub passkey: Option<&'a Passkey>,
    /// The peer id of an announce.
    pub peer_id: Option<&'a PeerId>,
    /// The place of the requester. [`IsdAs::NONE`] if it has none.
    pub ia: IsdAs,
    /// Whether the place is proven and not only claimed.
    pub is_proven: bool,
    /// The time.
    pub now: Time,
}

/// The access rules of a tracker. The default allows everything.
///
/// A clone shares all tables. A change to a clone copies only the part that it touches, so an operator can
/// change one entry of a million while workers read the old rules.
#[derive(Debug, Clone)]
pub struct Access {
    /// Whether anything below can refuse a request. See [`Access::note`].
    restricts: bool,
    is_private: bool,
    is_listed: bool,
    passkeys: PasskeyTable,
    allowed: TorrentSet,
    denied: TorrentSet,
    rules: Arc<RuleSet>,
    torrents: Table<InfoHash, Arc<TorrentRules>>,
    bans: Arc<Bans>,
    /// [`Time`] zero in seconds since 1970.
    epoch: u64,
}

impl Default for Access {
    /// Allows everything. Its hash functions are known to everyone: see [`Access::new`].
    fn default() -> Self {
        Self::new([1, 2, 3, 4])
    }
}

impl Access {
    /// Allows everything. `seeds` key the hash functions of the tables. They must be unpredictable, so that
    /// the time of a look-up tells nothing about passkeys.
    pub fn new(seeds: [u64; 4]) -> Self {
        Self {
            restricts: false,
            is_private: false,
            is_listed: false,
            passkeys: Table::new(seeds),
            allowed: Table::new(seeds),
            denied: Table::new(seeds),
            rules: Arc::default(),
            torrents: Table::new(seeds),
            bans: Arc::default(),
            epoch: 0,
        }
    }

    /// A private tracker: only requesters with one of these passkeys are served. They do not expire.
    pub fn private(passkeys: impl IntoIterator<Item = Passkey>) -> Self {
        let mut access = Self::default();
        access.set_private(true);
        for passkey in passkeys {
            access.add_passkey(passkey, Expiry::Never);
        }
        access
    }

    /// Decides about an announce or a scrape. Costs a branch if nothing is restricted.
    #[inline]
    pub fn check(&self, query: &Query<'_>) -> Result<(), Refusal> {
        match self.restricts {
            false => Ok(()),
            true => self.decide(query),
        }
    }

    /// Whether [`Access::check`] can refuse anyone.
    #[inline]
    pub const fn restricts(&self) -> bool {
        self.restricts
    }

    fn decide(&self, query: &Query<'_>) -> Result<(), Refusal> {
        if !self.bans.is_empty() && self.bans.contains(query.origin.host, self.unix(query.now)) {
            return Err(Refusal::HostBanned);
        }
        self.rules.check(query)?;
        if self.is_private {
            self.check_passkey(query)?;
        }
        if self.denied.contains(query.info_hash) {
            return Err(Refusal::TorrentDenied);
        }
        if self.is_listed && !self.allowed.contains(query.info_hash) {
            return Err(Refusal::TorrentUnlisted);
        }
        match self.torrents.get(query.info_hash) {
            None => Ok(()),
            Some(rules) => rules.check(query),
        }
    }

    fn check_passkey(&self, query: &Query<'_>) -> Result<(), Refusal> {
        let passkey = query.passkey.ok_or(Refusal::PasskeyMissing)?;
        match self.passkeys.get(passkey) {
            Some(expiry) if !expiry.is_over(self.unix(query.now)) => Ok(()),
            _ => Err(Refusal::PasskeyUnknown),
        }
    }

    /// A time of the tracker's clock in seconds since 1970.
    fn unix(&self, now: Time) -> u64 {
        self.epoch.saturating_add(now.as_secs().into())
    }

    /// Sets [`Time`] zero, in seconds since 1970, by which passkeys and bans expire.
    pub const fn set_epoch(&mut self, unix: u64) {
        self.epoch = unix;
    }

    /// [`Time`] zero, in seconds since 1970.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a passkey is needed.
    pub fn set_private(&mut self, is_private: bool) {
        self.is_private = is_private;
        self.note();
    }

    /// Whether a passkey is needed.
    pub const fn is_private(&self) -> bool {
        self.is_private
    }

    /// Whether only torrents of the allow list are served.
    pub fn set_listed(&mut self, is_listed: bool) {
        self.is_listed = is_listed;
        self.note();
    }

    /// Whether only torrents of the allow list are served.
    pub const fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// The passkeys, which count only if the tracker is private.
    pub const fn passkeys(&self) -> &PasskeyTable {
        &self.passkeys
    }

    /// Adds a passkey, or gives it another expiry. Returns the old one.
    pub fn add_passkey(&mut self, passkey: Passkey, expiry: Expiry) -> Option<Expiry> {
        self.passkeys.insert(passkey, expiry)
    }

    /// Removes a passkey. Returns its expiry.
    pub fn remove_passkey(&mut self, passkey: &Passkey) -> Option<Expiry> {
        self.passkeys.remove(passkey)
    }

    /// Applies the changes between two states of a file of passkeys. See [`Table::apply`].
    pub fn apply_passkeys(&mut self, old: &PasskeyTable, new: &PasskeyTable) {
        self.passkeys.apply(old, new);
    }

    /// The allow list, which counts only if the tracker is listed.
    pub const fn allowed(&self) -> &TorrentSet {
        &self.allowed
    }

    /// Adds a torrent to the allow list. Returns whether it is new there.
    pub fn allow(&mut self, info_hash: InfoHash) -> bool {
        self.allowed.insert(info_hash, ()).is_none()
    }

    /// Removes a torrent from the allow list. Returns whether it was there.
    pub fn disallow(&mut self, info_hash: &InfoHash) -> bool {
        self.allowed.remove(info_hash).is_some()
    }

    /// Applies the changes between two states of a file of allowed torrents. See [`Table::apply`].
    pub fn apply_allowed(&mut self, old: &TorrentSet, new: &TorrentSet) {
        self.allowed.apply(old, new);
    }

    /// The deny list.
    pub const fn denied(&self) -> &TorrentSet {
        &self.denied
    }

    /// Adds a torrent to the deny list. Returns whether it is new there. Its peers stay in the registry
    /// until [`Registry::remove`](crate::registry::Registry::remove).
    pub fn deny(&mut self, info_hash: InfoHash) -> bool {
        let is_new = self.denied.insert(info_hash, ()).is_none();
        self.note();
        is_new
    }

    /// Removes a torrent from the deny list. Returns whether it was there.
    pub fn undeny(&mut self, info_hash: &InfoHash) -> bool {
        let was_there = self.denied.remove(info_hash).is_some();
        self.note();
        was_there
    }

    /// Applies the changes between two states of a file of denied torrents. See [`Table::apply`].
    pub fn apply_denied(&mut self, old: &TorrentSet, new: &TorrentSet) {
        self.denied.apply(old, new);
        self.note();
    }

    /// Sets the rules for all torrents.
    pub fn set_rules(&mut self, rules: RuleSet) {
        self.rules = Arc::new(rules);
        self.note();
    }

    /// The rules of torrents that have some.
    pub const fn torrents(&self) -> &Table<InfoHash, Arc<TorrentRules>> {
        &self.torrents
    }

    /// Sets the rules of a torrent, empty ones to remove them. Returns the old ones. If the torrent becomes
    /// isolated, its peers outside stay in the registry until
    /// [`Registry::retain`](crate::registry::Registry::retain).
    pub fn set_torrent(
        &mut self,
        info_hash: InfoHash,
        rules: TorrentRules,
    ) -> Option<Arc<TorrentRules>> {
        let old = match rules.is_empty() {
            true => self.torrents.remove(&info_hash),
            false => self.torrents.insert(info_hash, Arc::new(rules)),
        };
        self.note();
        old
    }

    /// Isolates a torrent, or ends its isolation. Its other rules stay. Returns the old isolation.
    pub fn isolate(
        &mut self,
        info_hash: InfoHash,
        isolation: Option<Isolation>,
    ) -> Option<Isolation> {
        let old = self.torrents.get(&info_hash);
        let mut rules = old.map_or_else(TorrentRules::default, |old| TorrentRules::clone(old));
        let old = std::mem::replace(&mut rules.isolation, isolation);
        self.set_torrent(info_hash, rules);
        old
    }

    /// All bans.
    pub fn bans(&self) -> impl Iterator<Item = (&BanTarget, &Ban)> {
        self.bans.iter()
    }

    /// Bans a host or a network, or changes a ban. Returns the old one. Takes some milliseconds among 10,000.
    pub fn ban(&mut self, target: BanTarget, ban: Ban) -> Option<Ban> {
        let old = Arc::make_mut(&mut self.bans).insert(target, ban);
        self.note();
        old
    }

    /// Adds many bans at once.
    pub fn extend_bans(&mut self, bans: impl IntoIterator<Item = (BanTarget, Ban)>) {
        Arc::make_mut(&mut self.bans).extend(bans);
        self.note();
    }

    /// Ends a ban. Returns it.
    pub fn unban(&mut self, target: &BanTarget) -> Option<Ban> {
        let ban = Arc::make_mut(&mut self.bans).remove(target);
        self.note();
        ban
    }

    /// Whether a ban or a passkey has expired and can be removed.
    pub fn has_expired(&self, now: Time) -> bool {
        let unix = self.unix(now);
        self.bans.has_over(unix) || self.passkeys.iter().any(|(_, it)| it.is_over(unix))
    }

    /// Removes bans and passkeys that have expired.
    pub fn remove_expired(&mut self, now: Time) {
        let unix = self.unix(now);
        if self.bans.has_over(unix) {
            Arc::make_mut(&mut self.bans).remove_over(unix);
        }
        let over = self.passkeys.iter().filter(|(_, it)| it.is_over(unix));
        let over: Vec<Passkey> = over.map(|(passkey, _)| *passkey).collect();
        for passkey in over {
            self.passkeys.remove(&passkey);
        }
        self.note();
    }

    /// Notes whether anything can refuse a request. Has to be called after each change of what can.
    fn note(&mut self) {
        self.restricts = self.is_private
            || self.is_listed
            || !self.denied.is_empty()
            || !self.rules.is_empty()
            || !self.torrents.is_empty()
            || !self.bans.is_empty();
    }
}

#[cfg(test)]
mod tests;
