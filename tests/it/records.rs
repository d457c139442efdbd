//! Records survive everything: restarts, kill -9, a database that is locked, full or gone. Announces do not
//! notice.

mod away;
mod kills;
mod load;
mod process;
mod unusable;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use scion_tracker::Config;
use scion_tracker::client::{Client, Options, TrackerUrl};
use scion_tracker::config::Database;
use scion_tracker::core::access::{Ban, BanTarget, Expiry, Isolation};
use scion_tracker::core::address::{Host, IsdAs};
use scion_tracker::core::request::Event;
use scion_tracker::core::types::{InfoHash, PeerId};
use scion_tracker::records::{PasskeyRecord, RecordsError, RulesRecord, StoreKind};
use scion_tracker::server::Kind;
use sqlx::{Connection as _, Row as _, SqliteConnection};
use tempfile::TempDir;

use crate::client::announce;
use crate::common::{self, Running, block_on};
use process::{Changing, sqlite};

const HASH: InfoHash = InfoHash([1; 20]);

/// Waits for what happens soon.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "waited for: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn with_database(path: &Path) -> Config {
    let mut config = common::config();
    config.records.database = Some(Database::Sqlite(path.into()));
    config.records.flush_interval = Duration::from_millis(100);
    config
}

fn start(path: &Path) -> Running {
    common::start(with_database(path))
}

/// A client over UDP, which completes downloads.
struct Peers {
    client: Client,
    url: TrackerUrl,
    port: u16,
}

impl Peers {
    fn of(url: &str) -> Self {
        Self {
            client: Client::new(&Options::default()).unwrap(),
            url: url.parse().unwrap(),
            port: 0,
        }
    }

    /// A new peer joins, completes its download and leaves.
    async fn complete(&mut self, hash: u8) {
        self.port += 1;
        for (event, left) in [
            (Event::Started, 1),
            (Event::Completed, 0),
            (Event::Stopped, 0),
        ] {
            let mut query = announce(hash, self.port, event);
            query.announce.left = left;
            query.announce.peer_id = PeerId(std::array::from_fn(|at| {
                let [high, low] = self.port.to_be_bytes();
                [high, low][at % 2]
            }));
            self.client.announce(&self.url, &query).await.unwrap();
        }
    }

    async fn completed(&self, hash: u8) -> u64 {
        let hash = InfoHash([hash; 20]);
        let scraped = self.client.scrape(&self.url, &[hash]).await.unwrap();
        scraped.files[0].1.completed.into()
    }
}

/// Locks a file of SQLite until the connection is dropped.
fn lock(path: &Path) -> SqliteConnection {
    block_on(async {
        let mut other = SqliteConnection::connect(&sqlite(path)).await.unwrap();
        let lock = sqlx::raw_sql("BEGIN EXCLUSIVE");
        lock.execute(&mut other).await.unwrap();
        other
    })
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

fn ban(until: Option<u64>) -> Ban {
    Ban {
        until,
        reason: "a reason, ä".into(),
    }
}

#[test]
fn a_restart_keeps_all_records() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("made/by/us/records.db");
    let v6 = BanTarget::host(Host::ip_only("2001:db8::1".parse().unwrap()));
    let net = BanTarget::network("10.0.0.0/8".parse().unwrap());
    let ia: IsdAs = "1-ff00:0:110".parse().unwrap();
    let scion = BanTarget::host(Host::new(ia, "10.0.0.1".parse().unwrap()));
    let scion_v6 = BanTarget::host(Host::new(ia, "fd00::1".parse().unwrap()));
    let isolation = Isolation {
        isds: vec!["64".parse().unwrap(), "65535".parse().unwrap()],
        proven_only: true,
    };
    let nowhere = Isolation {
        isds: Vec::new(),
        proven_only: false,
    };
    let mut rules = RulesRecord::default();
    rules.allow_networks = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    rules.deny_networks = vec!["10.0.0.0/8".parse().unwrap()];
    rules.allow_clients = vec!["-SC".parse().unwrap()];
    rules.deny_clients = vec!["-SC\"\\".parse().unwrap()];
    rules.isd_as = "- 1-ff00:0:110, + 1, +".parse().unwrap();
    rules.proven = true;
    let mut record = PasskeyRecord::new("a_-Z".parse().unwrap(), Expiry::At(unix_now() + 9999));
    record.note = Some("a note".into());
    let first = start(&path);
    let created = block_on(async {
        let handle = &first.handle;
        handle.add_passkey(record.clone()).await.unwrap();
        for key in ["other", "A_-Z", "gone"] {
            let record = PasskeyRecord::new(key.parse().unwrap(), Expiry::Never);
            handle.add_passkey(record).await.unwrap();
        }
        handle
            .remove_passkey("gone".parse().unwrap())
            .await
            .unwrap();
        for byte in [3, 1, 2] {
            handle.allow_torrent(InfoHash([byte; 20])).await.unwrap();
            handle
                .deny_torrent(InfoHash([byte + 10; 20]))
                .await
                .unwrap();
        }
        handle.disallow_torrent(InfoHash([2; 20])).await.unwrap();
        handle.undeny_torrent(InfoHash([12; 20])).await.unwrap();
        handle.ban(v6, ban(None)).await.unwrap();
        handle.ban(net, ban(Some(unix_now() + 9999))).await.unwrap();
        handle.ban(scion, ban(None)).await.unwrap();
        handle.ban(scion_v6, ban(None)).await.unwrap();
        handle.ban(scion, ban(Some(u64::MAX))).await.unwrap();
        handle.unban(net).await.unwrap();
        for it in [&isolation, &nowhere] {
            let hash = InfoHash([20 + it.isds.len() as u8; 20]);
            handle.isolate_torrent(hash, it.clone()).await.unwrap();
        }
        handle.isolate_torrent(HASH, nowhere.clone()).await.unwrap();
        handle.end_isolation(HASH).await.unwrap();
        handle.set_global_rules(rules.clone()).await.unwrap();
        handle.set_torrent_rules(HASH, rules.clone()).await.unwrap();
        let url = first.url(Kind::Udp);
        let mut peers = Peers::of(&url);
        // Their client is allowed.
        let mut rules = handle.rules();
        rules.access = Default::default();
        handle.set_rules(rules);
        for _ in 0..3 {
            peers.complete(30).await;
        }
        peers.complete(31).await;
        assert_eq!(peers.completed(30).await, 3);
        handle.passkey(&record.passkey).unwrap().created
    });
    first.stop();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    record.created = created;

    let second = start(&path);
    let handle = &second.handle;
    assert_eq!(handle.records_state().store, StoreKind::Sqlite);
    let passkeys = handle.passkeys(0, 9);
    let keys: Vec<_> = passkeys.entries.iter().map(|it| it.passkey).collect();
    let expected = ["A_-Z", "a_-Z", "other"].map(|key| key.parse().unwrap());
    assert_eq!(keys, expected);
    assert_eq!(passkeys.entries[1], record);
    assert_eq!(handle.passkeys(1, 1).entries, [record.clone()]);
    assert_eq!((passkeys.total, handle.passkeys(9, 9).total), (3, 3));
    assert_eq!(
        handle.allowed(0, 9).entries,
        [1, 3].map(|it| InfoHash([it; 20]))
    );
    assert_eq!(
        handle.denied(0, 9).entries,
        [11, 13].map(|it| InfoHash([it; 20]))
    );
    let mut bans = handle.bans(0, 9).entries;
    bans.sort_by_key(|(target, _)| *target);
    let mut expected = [
        (v6, ban(None)),
        (scion, ban(Some(i64::MAX as u64))),
        (scion_v6, ban(None)),
    ];
    expected.sort_by_key(|(target, _)| *target);
    assert_eq!(bans, expected);
    let isolated = [
        (InfoHash([20; 20]), nowhere),
        (InfoHash([22; 20]), isolation),
    ];
    assert_eq!(handle.isolations(0, 9).entries, isolated);
    assert_eq!(handle.global_rules().as_ref(), Some(&rules));
    assert_eq!(handle.torrent_rules(&HASH), Some(rules.clone()));
    assert_eq!(handle.all_torrent_rules(0, 9).entries, [(HASH, rules)]);
    // In force, too.
    let access = handle.rules().access;
    assert_eq!(access.passkeys().get(&record.passkey), Some(&record.expiry));
    assert_eq!((access.passkeys().len(), access.allowed().len()), (3, 2));
    assert_eq!((access.denied().len(), access.torrents().len()), (2, 3));
    assert_eq!(access.bans().count(), 3);
    block_on(async {
        let url = second.url(Kind::Udp);
        let mut peers = Peers::of(&url);
        let mut rules = handle.rules();
        rules.access = Default::default();
        handle.set_rules(rules);
        assert_eq!(
            (peers.completed(30).await, peers.completed(31).await),
            (3, 1)
        );
        peers.complete(30).await;
        assert_eq!(peers.completed(30).await, 4);
    });
    second.stop();
    let third = start(&path);
    block_on(async {
        third.handle.remove_global_rules().await.unwrap();
        let peers = Peers::of(&third.url(Kind::Udp));
        assert_eq!(peers.completed(30).await, 4);
    });
}

#[test]
fn expired_records_are_removed_from_the_database() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("records.db");
    let running = start(&path);
    let handle = &running.handle;
    let soon = unix_now() + 1;
    block_on(async {
        for (key, expiry) in [("old", Expiry::At(soon)), ("new", Expiry::Never)] {
            let record = PasskeyRecord::new(key.parse().unwrap(), expiry);
            handle.add_passkey(record).await.unwrap();
        }
        for (net, until) in [("10.0.0.0/8", soon), ("11.0.0.0/8", soon + 9999)] {
            let target = BanTarget::network(net.parse().unwrap());
            handle.ban(target, ban(Some(until))).await.unwrap();
        }
    });
    let rows = || {
        block_on(async {
            let url = format!("sqlite:{}", path.display());
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            let count = "SELECT (SELECT count(*) FROM passkeys) + (SELECT count(*) FROM bans)";
            let row = sqlx::query(count).fetch_one(&mut connection).await;
            row.unwrap().get::<i64, _>(0)
        })
    };
    assert_eq!(rows(), 4);
    until("the expired ones are removed", || rows() == 2);
    assert_eq!(
        (handle.passkeys(0, 9).total, handle.bans(0, 9).total),
        (1, 1)
    );
}

#[test]
fn entries_of_files_are_no_records_and_records_stay_when_files_change() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("records.db");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        Some(path)
    };
    let mut config = with_database(&path);
    config.access.passkeys = file("passkeys", "both 2100-01-01\nfile\n");
    config.access.allow = file("allow", &format!("{}\n", "01".repeat(20)));
    config.access.deny = file("deny", &format!("{}\n", "02".repeat(20)));
    config.access.deny_networks = vec!["10.0.0.0/8".parse().unwrap()];
    let torrent = |isd: u16| {
        let mut torrent = scion_tracker::config::TorrentAccess::default();
        torrent.isds = Some(vec![isd]);
        torrent
    };
    config.access.torrents = [(InfoHash([3; 20]), torrent(7))].into();
    let in_file = |place: &'static str| RecordsError::InFile(place);
    let both = "both".parse().unwrap();
    let isolation = Isolation {
        isds: vec!["8".parse().unwrap()],
        proven_only: false,
    };
    let isd = |running: &Running| {
        let access = running.handle.rules().access;
        let rules = access.torrents().get(&InfoHash([3; 20])).cloned();
        rules
            .and_then(|it| it.isolation.clone())
            .map(|it| it.isds[0].0)
    };
    for round in 0..2 {
        let running = common::start(config.clone());
        let handle = &running.handle;
        block_on(async {
            if round == 0 {
                handle.allow_torrent(InfoHash([1; 20])).await.unwrap();
                handle.deny_torrent(InfoHash([2; 20])).await.unwrap();
                let record = PasskeyRecord::new(both, Expiry::Never);
                handle.add_passkey(record).await.unwrap();
            }
            assert_eq!(
                handle.remove_passkey("file".parse().unwrap()).await,
                Err(in_file("the file of access.passkeys"))
            );
            assert_eq!(
                handle.disallow_torrent(InfoHash([1; 20])).await,
                Err(in_file("the file of access.allow"))
            );
            assert_eq!(
                handle.undeny_torrent(InfoHash([2; 20])).await,
                Err(in_file("the file of access.deny"))
            );
            let hash = InfoHash([3; 20]);
            assert_eq!(
                handle.end_isolation(hash).await,
                Err(in_file("access.torrents"))
            );
            assert_eq!(isd(&running), Some(7));
            handle
                .isolate_torrent(hash, isolation.clone())
                .await
                .unwrap();
            assert_eq!(isd(&running), Some(8));
            config.access.torrents = [(hash, torrent(9))].into();
            handle.reload(config.clone()).unwrap();
            assert_eq!(isd(&running), Some(8), "the record replaces the setting");
            assert_eq!(
                handle.end_isolation(hash).await,
                Ok(Some(isolation.clone()))
            );
            assert_eq!(isd(&running), Some(9));
            config.access.torrents = [(hash, torrent(7))].into();
            handle.reload(config.clone()).unwrap();
            assert_eq!(isd(&running), Some(7));
        });
        let access = handle.rules().access;
        assert_eq!(access.passkeys().get(&both), Some(&Expiry::Never));
        assert_eq!(
            (access.passkeys().len(), handle.passkeys(0, 9).total),
            (2, 1)
        );
    }
    // Files without these lines, then no files at all: the records are still in force.
    for is_named in [true, false] {
        if is_named {
            for name in ["passkeys", "allow", "deny"] {
                file(name, "");
            }
        } else {
            config.access.passkeys = None;
            config.access.allow = None;
            config.access.deny = None;
        }
        let running = common::start(config.clone());
        running.handle.reload(config.clone()).unwrap();
        let access = running.handle.rules().access;
        assert_eq!(access.passkeys().get(&both), Some(&Expiry::Never));
        assert_eq!(access.passkeys().len(), 1);
        assert!(access.allowed().contains(&InfoHash([1; 20])));
        assert!(access.denied().contains(&InfoHash([2; 20])));
    }
    let running = common::start(config);
    block_on(async {
        let handle = &running.handle;
        assert_eq!(handle.disallow_torrent(InfoHash([1; 20])).await, Ok(true));
        assert_eq!(handle.undeny_torrent(InfoHash([2; 20])).await, Ok(true));
        assert!(handle.remove_passkey(both).await.unwrap().is_some());
    });
}

#[test]
fn changes_at_the_same_time_share_commits() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("records.db");
    let running = start(&path);
    let handle = &running.handle;
    block_on(async {
        let changes = (0..1000_u32).map(|number| {
            let mut hash = [0; 20];
            hash[..4].copy_from_slice(&number.to_be_bytes());
            let handle = handle.clone();
            tokio::spawn(async move { handle.allow_torrent(InfoHash(hash)).await })
        });
        for change in changes.collect::<Vec<_>>() {
            assert_eq!(change.await.unwrap(), Ok(true));
        }
    });
    let state = handle.records_state();
    assert!(state.writes <= 20, "{state:?}");
    assert_eq!((state.changes_waiting, state.failures), (0, 0));
    assert!(state.last_write.is_some() && state.outage.is_none());
    running.stop();
    assert_eq!(start(&path).handle.allowed(0, 0).total, 1000);
}

#[test]
fn texts_that_are_no_notes_are_refused() {
    let running = common::start(common::config());
    block_on(async {
        let handle = &running.handle;
        for note in ["a\0b".to_owned(), "x".repeat(5000)] {
            let mut record = PasskeyRecord::new("key".parse().unwrap(), Expiry::Never);
            record.note = Some(note);
            let refused = handle.add_passkey(record).await.unwrap_err();
            assert!(matches!(refused, RecordsError::Invalid(_)), "{refused}");
            assert!(!refused.is_of_store());
        }
    });
    assert_eq!(running.handle.records_state().store, StoreKind::Memory);
}

#[test]
fn a_file_that_cannot_grow_refuses_changes_and_keeps_the_others() {
    let directory = TempDir::new().unwrap();
    let url = sqlite(&directory.path().join("records.db"));
    let changing = Changing::start(&url, 0, Some(256));
    let refused = || changing.errors().values().sum::<usize>();
    until("it cannot write any more", || refused() >= 2);
    let of_disk = |text: &String| text.contains("disk") || text.contains("database");
    assert!(
        changing.errors().keys().all(of_disk),
        "{:?}",
        changing.errors()
    );
    let done = changing.done();
    assert!(done > 20);
    block_on(async {
        let mut peers = Peers::of(&changing.url());
        for _ in 0..20 {
            peers.complete(91).await;
        }
    });
    let next = changing.next();
    let acknowledged = changing.kill();
    let again = Changing::start(&url, next, None);
    again.check(&acknowledged);
    until("it changes records again", || again.done() > 20);
    assert!(again.errors().is_empty(), "{:?}", again.errors());
}

#[test]
fn a_locked_database_refuses_changes_and_delays_no_announce() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("records.db");
    let running = start(&path);
    let handle = &running.handle;
    block_on(async {
        let url = sqlite(&path);
        let mut other = SqliteConnection::connect(&url).await.unwrap();
        let mut peers = Peers::of(&running.url(Kind::Udp));
        handle.allow_torrent(InfoHash([1; 20])).await.unwrap();
        sqlx::raw_sql("BEGIN EXCLUSIVE")
            .execute(&mut other)
            .await
            .unwrap();
        let changing = tokio::spawn({
            let handle = handle.clone();
            async move {
                let start = Instant::now();
                let refused = handle.allow_torrent(InfoHash([2; 20])).await.unwrap_err();
                (refused, start.elapsed())
            }
        });
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let start = Instant::now();
            peers.complete(92).await;
            slowest = slowest.max(start.elapsed());
        }
        let (refused, after) = changing.await.unwrap();
        assert!(matches!(refused, RecordsError::Locked(_)), "{refused}");
        assert!(refused.is_of_store());
        assert!(after < Duration::from_secs(6), "{after:?}");
        // The database is locked for two seconds or more before a write gives up.
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
        assert!(!handle.rules().access.allowed().contains(&InfoHash([2; 20])));
        let state = handle.records_state();
        assert!(state.outage.is_some() && state.failures > 0, "{state:?}");
        assert_eq!(state.counts_waiting, 1);
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
        until("it is caught up with", || {
            let state = handle.records_state();
            state.outage.is_none() && state.counts_waiting == 0
        });
        handle.allow_torrent(InfoHash([3; 20])).await.unwrap();
    });
    running.stop();
    let again = start(&path);
    let allowed = again.handle.allowed(0, 9).entries;
    assert_eq!(allowed, [1, 3].map(|it| InfoHash([it; 20])));
    let completed = block_on(Peers::of(&again.url(Kind::Udp)).completed(92));
    assert_eq!(completed, 50);
}

#[test]
fn two_trackers_on_one_database_lose_nothing() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("records.db");
    let trackers = [start(&path), start(&path)];
    block_on(async {
        for round in 0..10 {
            for (number, tracker) in trackers.iter().enumerate() {
                let hash = InfoHash([2 * round + number as u8; 20]);
                assert_eq!(tracker.handle.allow_torrent(hash).await, Ok(true));
            }
        }
        for tracker in &trackers {
            let mut peers = Peers::of(&tracker.url(Kind::Udp));
            peers.complete(93).await;
        }
    });
    for tracker in trackers {
        tracker.stop();
    }
    let again = start(&path);
    assert_eq!(again.handle.allowed(0, 99).total, 20);
    assert_eq!(block_on(Peers::of(&again.url(Kind::Udp)).completed(93)), 2);
}
