//! Records survive everything: restarts, kill -9, a database that is locked, full or gone. Announces do not
//! notice.

mod away;
mod process;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use scion_tracker::client::{Client, Options, TrackerUrl};
use scion_tracker::config::Database;
use scion_tracker::core::access::{Ban, BanTarget, Expiry, Isolation};
use scion_tracker::core::address::{Host, IsdAs};
use scion_tracker::core::request::Event;
use scion_tracker::core::types::{InfoHash, PeerId};
use scion_tracker::records::{OpenError, PasskeyRecord, RecordsError, RulesRecord, StoreKind};
use scion_tracker::server::{BindError, Kind};
use scion_tracker::{Config, Server};
use sqlx::{Connection as _, Row as _, SqliteConnection};
use tempfile::TempDir;

use crate::cli;
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

/// Kills the process again and again, while it changes records and peers complete downloads.
fn survives_kills(url: &str, kills: usize) {
    let mut acknowledged = BTreeSet::new();
    let mut next = 0;
    let (mut least, mut most) = (0, 0);
    for kill in 0..=kills {
        let changing = Changing::start(url, next, None);
        changing.check(&acknowledged);
        block_on(async {
            let mut peers = Peers::of(&changing.url());
            let completed = peers.completed(90).await;
            assert!(
                (least..=most).contains(&completed),
                "{completed} downloads, not from {least} to {most}"
            );
            if kill == kills {
                return;
            }
            (least, most) = (completed, completed);
            let start = Instant::now();
            let life = Duration::from_millis(300 + 97 * (kill as u64 % 13));
            // Answered downloads, and when.
            let mut answered = Vec::new();
            while start.elapsed() < life || changing.done() < 20 {
                most += 1;
                peers.complete(90).await;
                answered.push(start.elapsed());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // They are written every 200 ms; the rest is for a machine that does much else.
            let killed = start.elapsed();
            let written = answered
                .iter()
                .filter(|at| killed - **at > Duration::from_secs(3));
            least += written.count() as u64;
        });
        next = changing.next();
        assert!(changing.errors().is_empty(), "{:?}", changing.errors());
        acknowledged.extend(changing.kill());
    }
    eprintln!(
        "{kills} kills, {} acknowledged changes and {most} downloads: nothing lost",
        acknowledged.len()
    );
}

#[test]
fn what_is_acknowledged_survives_kills() {
    let directory = TempDir::new().unwrap();
    survives_kills(&sqlite(&directory.path().join("records.db")), 10);
}

/// For `tests/records/run`: RECORDS_TEST_DATABASE names the database, RECORDS_TEST_KILLS how often.
#[test]
#[ignore = "needs a database that tests/records/run starts"]
fn what_is_acknowledged_survives_kills_on_a_server() {
    let kills = std::env::var("RECORDS_TEST_KILLS").unwrap();
    survives_kills(
        &std::env::var("RECORDS_TEST_DATABASE").unwrap(),
        kills.parse().unwrap(),
    );
}

#[test]
fn a_file_that_cannot_grow_refuses_changes_and_keeps_the_others() {
    let directory = TempDir::new().unwrap();
    let url = sqlite(&directory.path().join("records.db"));
    let changing = Changing::start(&url, 0, Some(256));
    until("it cannot write any more", || changing.errors().len() >= 2);
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

/// CPU seconds of this process.
fn cpu_seconds() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// A million torrents of the allow list and a million counts. RECORDS_TEST_DATABASE names a database, else it
/// is a new file.
#[test]
#[ignore = "measures: tests/records/run, with --release"]
fn a_million_torrents_are_there_within_five_seconds() {
    let directory = TempDir::new().unwrap();
    let database = std::env::var("RECORDS_TEST_DATABASE")
        .unwrap_or_else(|_| sqlite(&directory.path().join("records.db")));
    let mut config = common::config();
    config.records.database = database.parse().ok();
    let running = common::start(config.clone());
    let hash = |number: u32| {
        let mut hash = [0xee; 20];
        hash[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
        InfoHash(hash)
    };
    const MANY: u32 = 1_000_000;
    let start = Instant::now();
    block_on(async {
        for first in (0..MANY).step_by(1000) {
            let changes = (first..first + 1000).map(|number| {
                let handle = running.handle.clone();
                tokio::spawn(async move { handle.allow_torrent(hash(number)).await })
            });
            for change in changes.collect::<Vec<_>>() {
                change.await.unwrap().unwrap();
            }
        }
    });
    eprintln!("{MANY} changes in {:.1} s", start.elapsed().as_secs_f64());
    running.stop();
    // The tracker would need a million peers for this.
    if let Some(path) = database.strip_prefix("sqlite:") {
        block_on(async {
            let mut other = SqliteConnection::connect(&sqlite(path.as_ref()))
                .await
                .unwrap();
            let counts = "INSERT INTO completed SELECT info_hash, 7 FROM allowed";
            sqlx::raw_sql(counts).execute(&mut other).await.unwrap();
        });
    } else if let Ok(command) = std::env::var("RECORDS_TEST_COUNTS") {
        let status = std::process::Command::new("sh")
            .args(["-c", &command])
            .status();
        assert!(status.unwrap().success());
    }
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let server = Server::bind(config).unwrap();
    eprintln!(
        "a start with {MANY} torrents and as many counts takes {:.2} s, {:.2} CPU seconds",
        start.elapsed().as_secs_f64(),
        cpu_seconds() - cpu
    );
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(server.handle().allowed(0, 0).total, MANY as usize);
    assert_eq!(
        server.handle().rules().access.allowed().len(),
        MANY as usize
    );
    drop(server);
    let running = start_again(&database);
    block_on(async {
        let client = Client::new(&Options::default()).unwrap();
        let url: TrackerUrl = running.url(Kind::Udp).parse().unwrap();
        for number in (0..MANY).step_by(9973) {
            let scraped = client.scrape(&url, &[hash(number)]).await.unwrap();
            assert_eq!(scraped.files[0].1.completed, 7, "{number}");
        }
    });
}

fn start_again(database: &str) -> Running {
    let mut config = common::config();
    config.records.database = database.parse().ok();
    common::start(config)
}

fn bind_error(path: &Path) -> OpenError {
    match Server::bind(with_database(path)) {
        Err(BindError::Records(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn records_that_cannot_be_read_are_an_error_and_stay_as_they_are() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("records.db");
    let text = "no database".repeat(500);
    fs::write(&path, &text).unwrap();
    let error = bind_error(&path);
    assert!(error.to_string().contains("the file is damaged"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    fs::remove_file(&path).unwrap();

    let running = start(&path);
    block_on(async {
        for number in 0..2000_u32 {
            let mut hash = [9; 20];
            hash[..4].copy_from_slice(&number.to_be_bytes());
            let handle = running.handle.clone();
            if number % 500 == 0 {
                handle.allow_torrent(InfoHash(hash)).await.unwrap();
            } else {
                tokio::spawn(async move { handle.allow_torrent(InfoHash(hash)).await });
            }
        }
        running.handle.allow_torrent(HASH).await.unwrap();
    });
    running.stop();
    let good = fs::read(&path).unwrap();
    // Pages of the tables, not the first one.
    let mut damaged = good.clone();
    damaged[8192..].fill(0x55);
    fs::write(&path, &damaged).unwrap();
    let error = bind_error(&path);
    assert!(error.to_string().contains("the file is damaged"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), damaged);
    fs::write(&path, &good).unwrap();

    block_on(async {
        let mut other = SqliteConnection::connect(&sqlite(&path)).await.unwrap();
        let newer = "INSERT INTO _sqlx_migrations VALUES (999, 'newer', 0, TRUE, x'00', 0)";
        sqlx::raw_sql(newer).execute(&mut other).await.unwrap();
    });
    let error = bind_error(&path);
    assert!(
        matches!(error, OpenError::Newer { version: 999, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("newer scion-tracker"), "{error}");
    fs::write(&path, &good).unwrap();
    block_on(async {
        let mut other = SqliteConnection::connect(&sqlite(&path)).await.unwrap();
        let strange = "INSERT INTO denied VALUES (x'0102')";
        sqlx::raw_sql(strange).execute(&mut other).await.unwrap();
    });
    let error = bind_error(&path);
    assert!(
        error.to_string().contains("a row of the table denied"),
        "{error}"
    );
}

#[test]
fn the_program_says_where_its_records_are_or_why_they_are_not_kept() {
    let home = cli::home();
    let flags = ["--udp", "127.0.0.1:0"];
    let log = cli::check_serves(&mut cli::program(home.path(), &flags), "udp://");
    assert!(!log.contains("restart"), "{log}");
    let file = home.path().join(".local/state/scion-tracker/records.db");
    assert!(file.exists());
    // Not even root can make a directory there.
    let nowhere = Path::new("/proc/nowhere");
    let log = cli::check_serves(&mut cli::program(nowhere, &flags), "udp://");
    let warning = "will not survive a restart: cannot write the records in /proc/nowhere";
    assert!(log.contains(warning), "{log}");
    let memory = [&flags[..], &["--database", "memory"]].concat();
    let log = cli::check_serves(&mut cli::program(nowhere, &memory), "udp://");
    assert!(!log.contains("passkeys, lists"), "{log}");
    let named = [
        &flags[..],
        &["--database", "sqlite:/proc/nowhere/records.db"],
    ]
    .concat();
    cli::check_fails(
        &named,
        &[],
        1,
        "cannot write the records in /proc/nowhere/records.db",
    );
    for (url, expected) in [
        ("oracle://host/db", "a database is sqlite:/path/to/file"),
        #[cfg(not(feature = "mysql"))]
        ("mysql://me:secret@host/db", "mysql://me:***@host/db"),
    ] {
        let named = [&flags[..], &["--database", url]].concat();
        let code = if url.starts_with("oracle") { 2 } else { 78 };
        cli::check_fails(&named, &[], code, expected);
    }
}
