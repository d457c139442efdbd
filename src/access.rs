//! Puts the access settings of the configuration and the lists in files in force, and changes single entries
//! at run time. The core decides about requests: `scion_tracker_core::access`.
//!
//! An entry can come from a file or from the records, which [`Handle`](crate::server::Handle) changes. When a
//! file changes, its new lines are added and those that are gone are removed; records stay.

mod lists;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, MutexGuard};
use scion_tracker_core::access::{Access as AccessRules, PasskeyTable, Rates, Table, TorrentSet};
use scion_tracker_core::registry::Registry as _;
use scion_tracker_core::tracker::Rules;
use scion_tracker_core::types::InfoHash;

use crate::config::Access as Settings;
use crate::records::{Book, Entries, Records};
use crate::service::Service;
use lists::Difference;
pub use lists::{LineError, ListError};

/// How often the files are looked at, and expired entries are removed.
pub(crate) const WATCH: Duration = Duration::from_secs(2);
/// A system clock that jumps by more than this moves the expiry of passkeys and bans.
const CLOCK_TOLERANCE: u64 = 2;

/// What tells a file from an earlier state of it: time of change, size, inode.
type Stamp = (i64, i64, u64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let it = path.metadata().ok()?;
    Some((it.mtime(), it.mtime_nsec(), it.size(), it.ino()))
}

/// A list in a file.
#[derive(Debug)]
struct ListFile<V> {
    path: Option<PathBuf>,
    /// The state that was read, or could not be used.
    read: Option<Stamp>,
    /// The state that the last look found.
    seen: Option<Stamp>,
    /// What the file said when it was last without an error.
    entries: V,
}

impl<V> ListFile<V> {
    const fn new(entries: V) -> Self {
        Self {
            path: None,
            read: None,
            seen: None,
            entries,
        }
    }

    /// Whether the file has changed and has stopped changing, so that it is not read half written.
    fn is_due(&mut self) -> bool {
        let Some(path) = &self.path else { return false };
        let now = stamp(path);
        let settled = self.seen == now;
        self.seen = now;
        settled && self.read != now
    }
}

/// Lists that have been read and not yet put in force.
#[derive(Debug)]
struct ReadList<V> {
    path: Option<PathBuf>,
    stamp: Option<Stamp>,
    entries: V,
}

impl<V: Clone> ReadList<V> {
    fn read(
        path: Option<&Path>,
        empty: &V,
        parse: fn(&Path, &V) -> Result<V, ListError>,
    ) -> Result<Self, ListError> {
        // Before the file is read: a change meanwhile is noticed later.
        let stamp = path.and_then(stamp);
        let entries = path.map_or_else(|| Ok(empty.clone()), |path| parse(path, empty))?;
        Ok(Self {
            path: path.map(Path::to_path_buf),
            stamp,
            entries,
        })
    }

    /// Makes this the state of `file`. Returns the entries before.
    fn replace(self, file: &mut ListFile<V>) -> V {
        file.path = self.path;
        (file.read, file.seen) = (self.stamp, self.stamp);
        std::mem::replace(&mut file.entries, self.entries)
    }
}

/// All lists of a configuration, read and without an error.
#[derive(Debug)]
pub(crate) struct ReadLists {
    passkeys: ReadList<PasskeyTable>,
    allow: ReadList<TorrentSet>,
    deny: ReadList<TorrentSet>,
}

impl ReadLists {
    /// Reads the files that the settings name, into tables with the hash functions of `access`.
    pub(crate) fn read(settings: &Settings, access: &AccessRules) -> Result<Self, ListError> {
        let passkeys = access.passkeys().emptied(0);
        let torrents = access.allowed().emptied(0);
        Ok(Self {
            passkeys: ReadList::read(settings.passkeys.as_deref(), &passkeys, lists::passkeys)?,
            allow: ReadList::read(settings.allow.as_deref(), &torrents, lists::torrents)?,
            deny: ReadList::read(settings.deny.as_deref(), &torrents, lists::torrents)?,
        })
    }
}

/// What the lists in files and the settings have put in force.
#[derive(Debug)]
pub(crate) struct Lists {
    state: Mutex<State>,
    /// Records, and what the files and the settings say besides. Locked after `state` and before the rules.
    book: Mutex<Book>,
    /// Torrents that were denied or isolated and may have peers from requests that were being answered.
    purges: Mutex<Vec<InfoHash>>,
    seeds: [u64; 4],
}

#[derive(Debug)]
struct State {
    passkeys: ListFile<PasskeyTable>,
    allow: ListFile<TorrentSet>,
    deny: ListFile<TorrentSet>,
    /// The settings in force. `None` before the first ones.
    settings: Option<Settings>,
}

impl Lists {
    /// No lists, and rules that allow everything. `seeds` must be unpredictable to peers.
    pub(crate) fn new(seeds: [u64; 4]) -> Self {
        Self {
            state: Mutex::new(State {
                passkeys: ListFile::new(Table::new(seeds)),
                allow: ListFile::new(Table::new(seeds)),
                deny: ListFile::new(Table::new(seeds)),
                settings: None,
            }),
            book: Mutex::new(Book::new(&AccessRules::new(seeds))),
            purges: Mutex::default(),
            seeds,
        }
    }

    /// Puts settings and lists in force in one step with what `also` changes. What was changed otherwise
    /// stays, as far as the settings say the same as before.
    pub(crate) fn apply(
        &self,
        settings: &Settings,
        read: ReadLists,
        service: &Service,
        also: impl FnOnce(&mut Rules),
    ) {
        let mut state = self.state.lock();
        let mut book = self.book.lock();
        let purge = service.change_rules(|rules| {
            also(rules);
            state.apply(settings, read, &mut book, rules, self.seeds)
        });
        drop((book, state));
        self.purge(purge, service);
    }

    /// Reads lists again that have changed, keeps the clock of expiries right, and removes what has expired.
    /// Blocks while it reads.
    pub(crate) fn poll(&self, service: &Service, records: &Records) {
        self.finish_purges(service);
        self.read_changed(service);
        let epoch = epoch(service);
        let rules = service.rules();
        let moved = rules.access.epoch().abs_diff(epoch) > CLOCK_TOLERANCE;
        if moved || rules.access.has_expired(service.now()) {
            self.change(service, |book, access| {
                if moved {
                    access.set_epoch(epoch);
                }
                let now = service.now();
                access.remove_expired(now);
                let unix = access.epoch().saturating_add(now.as_secs().into());
                if book.remove_expired(unix) {
                    records.remove_expired(unix);
                }
            });
        }
    }

    fn read_changed(&self, service: &Service) {
        let mut state = self.state.lock();
        let State {
            passkeys,
            allow,
            deny,
            ..
        } = &mut *state;
        if reread(passkeys, lists::passkeys).is_some() {
            let file = &passkeys.entries;
            self.change(service, |book, access| book.set_passkeys(file, access));
        }
        if reread(allow, lists::torrents).is_some() {
            let file = &allow.entries;
            self.change(service, |book, access| book.set_allowed(file, access));
        }
        if let Some(before) = reread(deny, lists::torrents) {
            let mut purge = Purge::default();
            purge.deny(&before, &deny.entries);
            let file = &deny.entries;
            self.change(service, |book, access| book.set_denied(file, access));
            self.purge(purge, service);
        }
    }

    /// Puts records in force that were read from the store. To be called before anything else.
    pub(crate) fn load(&self, records: Entries, service: &Service) {
        self.change(service, |book, access| book.load(records, access));
    }

    /// Changes records and what is in force in one step.
    pub(crate) fn change<T>(
        &self,
        service: &Service,
        change: impl FnOnce(&mut Book, &mut AccessRules) -> T,
    ) -> T {
        let mut book = self.book.lock();
        service.change_rules(|rules| change(&mut book, &mut rules.access))
    }

    /// The records. Do not hold it for long: changes wait for it.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock()
    }

    /// Removes peers that the rules in force no longer allow. Returns how many. Has to be called after the
    /// rules are in force. A request that is being answered meanwhile may store another peer, so
    /// [`Lists::poll`] looks again.
    pub(crate) fn purge(&self, purge: Purge, service: &Service) -> u64 {
        let rules = service.rules();
        let removed = purge.torrents.iter().map(|it| enforce(it, &rules, service));
        let removed = removed.sum();
        self.purges.lock().extend(purge.torrents);
        removed
    }

    /// Removes all peers that the rules in force no longer allow: those of denied torrents, and those outside of
    /// isolated ones. For a registry whose peers came under other rules.
    pub(crate) fn purge_all(&self, service: &Service) -> u64 {
        let rules = service.rules();
        let access = &rules.access;
        let denied = access.denied().iter().map(|(hash, ())| *hash);
        let torrents = access.torrents().iter().map(|(hash, _)| *hash);
        denied
            .chain(torrents)
            .map(|info_hash| enforce(&info_hash, &rules, service))
            .sum()
    }

    fn finish_purges(&self, service: &Service) {
        let torrents = std::mem::take(&mut *self.purges.lock());
        let rules = service.rules();
        for info_hash in torrents {
            enforce(&info_hash, &rules, service);
        }
    }
}

impl State {
    fn apply(
        &mut self,
        settings: &Settings,
        read: ReadLists,
        book: &mut Book,
        rules: &mut Rules,
        seeds: [u64; 4],
    ) -> Purge {
        let access = &mut rules.access;
        let old = self.settings.take();
        let is_new = |same: fn(&Settings, &Settings) -> bool| {
            old.as_ref().is_none_or(|old| !same(old, settings))
        };
        if is_new(|a, b| a.private == b.private) {
            access.set_private(settings.private);
        }
        if is_new(|a, b| a.listed == b.listed) {
            access.set_listed(settings.listed);
        }
        if is_new(|a, b| {
            (&a.allow_networks, &a.deny_networks) == (&b.allow_networks, &b.deny_networks)
                && (&a.allow_clients, &a.deny_clients) == (&b.allow_clients, &b.deny_clients)
                && (&a.isd_as, a.proven) == (&b.isd_as, b.proven)
        }) {
            book.set_rules(settings.rules(), access);
        }
        if is_new(|a, b| (a.rate(), &a.unlimited) == (b.rate(), &b.unlimited)) {
            let unlimited = || settings.unlimited.iter().copied().collect();
            let rates = settings.rate();
            let rates = rates.map(|rate| Rates::new(rate, unlimited(), seeds));
            rules.rates = rates.map(Arc::new);
        }
        let mut purge = Purge {
            torrents: book.set_torrents(&settings.torrents, access),
        };
        read.passkeys.replace(&mut self.passkeys);
        book.set_passkeys(&self.passkeys.entries, access);
        read.allow.replace(&mut self.allow);
        book.set_allowed(&self.allow.entries, access);
        let before = read.deny.replace(&mut self.deny);
        purge.deny(&before, &self.deny.entries);
        book.set_denied(&self.deny.entries, access);
        self.settings = Some(settings.clone());
        purge
    }
}

/// Reads a list if its file has changed. Returns the entries before. An error is logged once per state of
/// the file and leaves the old entries.
fn reread<K, V>(
    file: &mut ListFile<Table<K, V>>,
    parse: impl FnOnce(&Path, &Table<K, V>) -> Result<Table<K, V>, ListError>,
) -> Option<Table<K, V>>
where
    K: std::hash::Hash + Eq + Clone,
    V: Clone,
{
    if !file.is_due() {
        return None;
    }
    file.read = file.seen;
    let path = file.path.as_deref()?;
    match parse(path, &file.entries.emptied(0)) {
        Ok(entries) => {
            let difference = Difference {
                entries: entries.len(),
                before: file.entries.len(),
            };
            tracing::info!(file = %path.display(), "list read again: {difference}");
            Some(std::mem::replace(&mut file.entries, entries))
        }
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot use the changed list; the old one stays in force"
            );
            None
        }
    }
}

/// Torrents whose peers may no longer be allowed.
#[derive(Debug, Default)]
pub(crate) struct Purge {
    torrents: Vec<InfoHash>,
}

impl Purge {
    /// One torrent.
    pub(crate) fn of(info_hash: InfoHash) -> Self {
        Self {
            torrents: vec![info_hash],
        }
    }

    /// Those that `new` denies and `old` does not.
    fn deny(&mut self, old: &TorrentSet, new: &TorrentSet) {
        let added = new.iter().map(|(hash, ())| hash);
        self.torrents
            .extend(added.filter(|hash| !old.contains(hash)));
    }
}

/// Removes the peers of a torrent that is denied, or those outside if it is isolated. Returns how many.
fn enforce(info_hash: &InfoHash, rules: &Rules, service: &Service) -> u64 {
    let registry = service.tracker.registry();
    if rules.access.denied().contains(info_hash) {
        return registry.remove(info_hash);
    }
    let torrent = rules.access.torrents().get(info_hash);
    match torrent.and_then(|torrent| torrent.isolation.as_ref()) {
        Some(isolation) => registry.retain(info_hash, |ia, proven| isolation.admits(ia, proven)),
        None => 0,
    }
}

/// The start of the tracker's clock, in seconds since 1970.
pub(crate) fn epoch(service: &Service) -> u64 {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let unix = unix.map_or(0, |since| since.as_secs());
    unix.saturating_sub(service.now().as_secs().into())
}

/// Says what makes the tracker refuse everybody, and which settings have no effect.
pub(crate) fn warn(rules: &Rules, lists: &Lists) {
    let access = &rules.access;
    if lists.book().replaces_rules() {
        tracing::warn!(
            "rules for all torrents were set at run time and are in force instead of access.allow_networks, deny_networks, allow_clients, deny_clients, isd_as and proven"
        );
    }
    if access.is_private() && access.passkeys().is_empty() {
        tracing::warn!("the tracker is private and knows no passkeys, so it refuses everybody");
    }
    if access.is_listed() && access.allowed().is_empty() {
        tracing::warn!(
            "the tracker is listed and its allow list is empty, so it refuses all torrents"
        );
    }
}
