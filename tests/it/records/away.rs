//! A database that is paused, stopped, locked or full: announces go on at the same latency, changes fail with
//! a reason, and all is caught up with afterwards. `tests/records/run` runs these tests and says how to treat
//! the database, in commands for the shell.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use scion_tracker::Config;
use scion_tracker::config::Database;
use scion_tracker::core::codec::bep15::{
    Reply, TransactionId, parse_reply, write_announce_request, write_connect_request,
};
use scion_tracker::core::codec::compact::Layout;
use scion_tracker::core::codec::connection::ConnectionId;
use scion_tracker::core::request::{AnnounceRequest, Event};
use scion_tracker::core::types::{InfoHash, PeerId};
use scion_tracker::records::RecordsError;
use scion_tracker::server::Kind;

use super::{Peers, start, until};
use crate::common::{self, Running, block_on};

const TRANSACTION: TransactionId = TransactionId(7);
/// Torrents whose downloads are completed.
const TORRENTS: u8 = 40;
/// How long latencies are measured in one state of the database.
const WINDOW: Duration = Duration::from_secs(7);
/// Windows of each state.
const WINDOWS: usize = 3;

/// A client that completes one download after the other and measures each answer.
struct Loader {
    socket: UdpSocket,
    connection: ConnectionId,
    since: Instant,
    port: u16,
    completed: u64,
}

impl Loader {
    fn of(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(address).unwrap();
        let patience = Some(Duration::from_secs(10));
        socket.set_read_timeout(patience).unwrap();
        let mut this = Self {
            socket,
            connection: ConnectionId(0),
            since: Instant::now(),
            port: 0,
            completed: 0,
        };
        this.connect();
        this
    }

    fn connect(&mut self) {
        let mut request = Vec::new();
        write_connect_request(TRANSACTION, &mut request);
        self.socket.send(&request).unwrap();
        let mut buffer = [0; 2048];
        let length = self.socket.recv(&mut buffer).unwrap();
        match parse_reply(&buffer[..length], Layout::Ip4).unwrap() {
            Reply::Connect { connection, .. } => self.connection = connection,
            other => panic!("{other:?}"),
        }
        self.since = Instant::now();
    }

    /// A peer joins, completes its download and leaves. Returns how long each answer took.
    fn complete(&mut self) -> [Duration; 3] {
        if self.since.elapsed() > Duration::from_secs(60) {
            self.connect();
        }
        self.port = self.port % 60_000 + 1;
        let hash = InfoHash([100 + (self.port % u16::from(TORRENTS)) as u8; 20]);
        let [high, low] = self.port.to_be_bytes();
        let id = PeerId(std::array::from_fn(|at| [high, low][at % 2]));
        let took = [
            (Event::Started, 1),
            (Event::Completed, 0),
            (Event::Stopped, 0),
        ]
        .map(|(event, left)| {
            let mut announce = AnnounceRequest::new(hash, id, self.port, left);
            announce.event = event;
            let mut request = Vec::new();
            let path = "/announce";
            write_announce_request(self.connection, TRANSACTION, &announce, path, &mut request);
            let start = Instant::now();
            self.socket.send(&request).unwrap();
            let mut buffer = [0; 2048];
            let length = self.socket.recv(&mut buffer).unwrap();
            let took = start.elapsed();
            let reply = parse_reply(&buffer[..length], Layout::Ip4).unwrap();
            assert!(matches!(reply, Reply::Announce { .. }), "{reply:?}");
            took
        });
        self.completed += 1;
        took
    }

    /// The 50th and 99th percentile of a window.
    fn measure(&mut self) -> (Duration, Duration) {
        let start = Instant::now();
        let mut took = Vec::new();
        while start.elapsed() < WINDOW {
            took.extend(self.complete());
            // Far from the limit: this is about waiting, not about load.
            thread::sleep(Duration::from_millis(1));
        }
        took.sort_unstable();
        (took[took.len() / 2], took[took.len() * 99 / 100])
    }
}

fn shell(command: &str) {
    let status = Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(status.success(), "{command}");
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use tests/records/run"))
}

fn config(database: &Database) -> Config {
    let mut config = common::config();
    config.access.announces_per_second = 0;
    config.records.database = Some(database.clone());
    config.records.flush_interval = Duration::from_millis(200);
    config
}

fn hash(number: u32) -> InfoHash {
    let mut hash = [0xdd; 20];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    InfoHash(hash)
}

/// Changes records until `stop`, twenty times a second, beginning with this number. Returns those that were
/// acknowledged, and the errors of the others.
fn change(running: &Running, first: u32, stop: &AtomicBool) -> (Vec<u32>, Vec<RecordsError>) {
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    let mut number = first;
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        match block_on(running.handle.allow_torrent(hash(number))) {
            Ok(_) => done.push(number),
            Err(error) => errors.push(error),
        }
        assert!(start.elapsed() < Duration::from_millis(5500));
        number += 1;
        thread::sleep(Duration::from_millis(50));
    }
    (done, errors)
}

fn median<T: Ord + Copy>(values: &mut [T]) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Compares the latency of announces while the database works and while it is away.
fn delays_no_announce(name: &str, database: &Database, away: &dyn Fn(), back: &dyn Fn()) {
    let running = common::start(config(database));
    let mut loader = Loader::of(running.address(Kind::Udp));
    loader.measure();
    let (mut before, mut during): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    let mut acknowledged = Vec::new();
    let mut first = 0;
    for _ in 0..WINDOWS {
        for is_away in [false, true] {
            if is_away {
                away();
            }
            let stop = AtomicBool::new(false);
            let (latency, (done, errors)) = thread::scope(|scope| {
                let changing = scope.spawn(|| change(&running, first, &stop));
                let latency = loader.measure();
                let state = running.handle.records_state();
                assert_eq!(state.outage.is_some(), is_away, "{state:?}");
                stop.store(true, Ordering::Relaxed);
                (latency, changing.join().unwrap())
            });
            first += (done.len() + errors.len()) as u32;
            acknowledged.extend(done);
            if is_away {
                // The first one may be on its way when the database goes, the others fail.
                assert!(!errors.is_empty());
                assert!(errors.iter().all(RecordsError::is_of_store), "{errors:?}");
                during.push(latency);
                back();
                until("all is caught up with", || {
                    let state = running.handle.records_state();
                    state.outage.is_none() && state.counts_waiting == 0
                });
            } else {
                assert_eq!(errors, []);
                before.push(latency);
            }
        }
    }
    let column = |of: &[(Duration, Duration)], which: fn(&(Duration, Duration)) -> Duration| {
        let mut values: Vec<_> = of.iter().map(which).collect();
        let median = median(&mut values);
        (median, values)
    };
    let (p50_before, _) = column(&before, |it| it.0);
    let (p50_during, _) = column(&during, |it| it.0);
    let (p99_before, all_before) = column(&before, |it| it.1);
    let (p99_during, all_during) = column(&during, |it| it.1);
    eprintln!(
        "{name}: 50th percentile {p50_before:?} before, {p50_during:?} during; 99th {p99_before:?} before, {p99_during:?} during, ratio {:.2} (windows {all_before:?}, {all_during:?})",
        p99_during.as_secs_f64() / p99_before.as_secs_f64()
    );
    // A write, and so an answer that waits for it, takes far longer. The figures above are for people.
    assert!(p99_during < p99_before * 2 + Duration::from_millis(1));
    let completed = loader.completed;
    running.stop();

    let again = common::start(config(database));
    let allowed = again.handle.allowed(0, usize::MAX).entries;
    for number in &acknowledged {
        assert!(allowed.binary_search(&hash(*number)).is_ok(), "{number}");
    }
    let peers = Peers::of(&again.url(Kind::Udp));
    let counted: u64 = block_on(async {
        let mut sum = 0;
        for torrent in 0..TORRENTS {
            sum += peers.completed(100 + torrent).await;
        }
        sum
    });
    assert_eq!(counted, completed, "downloads");
    eprintln!(
        "{name}: {} acknowledged changes and {completed} downloads are there",
        acknowledged.len()
    );
}

#[test]
#[ignore = "needs a database that tests/records/run starts"]
fn a_server_that_is_away_delays_no_announce() {
    let database = variable("RECORDS_TEST_DATABASE").parse().unwrap();
    let away = variable("RECORDS_TEST_AWAY");
    let back = variable("RECORDS_TEST_BACK");
    let name = variable("RECORDS_TEST_NAME");
    delays_no_announce(&name, &database, &|| shell(&away), &|| shell(&back));
}

#[test]
#[ignore = "takes minutes and measures: tests/records/run"]
fn a_locked_file_delays_no_announce() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("records.db");
    let database = Database::Sqlite(path.clone());
    let held = std::cell::RefCell::new(None);
    let away = || *held.borrow_mut() = Some(super::lock(&path));
    let back = || drop(held.borrow_mut().take());
    delays_no_announce("SQLite, locked", &database, &away, &back);
}

/// Fills the file system of this directory. Returns the file that does it.
fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("filler");
    let mut filler = fs::File::create(&path).unwrap();
    for size in [64 << 10, 512, 1] {
        while filler.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

#[test]
#[ignore = "needs a small file system that tests/records/run mounts"]
fn a_full_disk_refuses_changes_and_is_caught_up_with() {
    let directory = PathBuf::from(variable("RECORDS_TEST_SMALL"));
    let path = directory.join("records.db");
    let running = start(&path);
    let mut loader = Loader::of(running.address(Kind::Udp));
    let allow = |number| block_on(running.handle.allow_torrent(hash(number)));
    let mut acknowledged: Vec<_> = (0..50).filter(|it| allow(*it).is_ok()).collect();
    assert_eq!(acknowledged.len(), 50);
    let filler = fill(&directory);
    let mut refused = None;
    for number in 100..5000 {
        match allow(number) {
            Ok(_) => acknowledged.push(number),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert!(
        matches!(refused, Some(RecordsError::Full(_))),
        "{refused:?}"
    );
    for _ in 0..100 {
        loader.complete();
    }
    let state = running.handle.records_state();
    assert!(
        state.outage.is_some() && state.counts_waiting > 0,
        "{state:?}"
    );
    fs::remove_file(filler).unwrap();
    until("all is caught up with", || {
        let state = running.handle.records_state();
        state.outage.is_none() && state.counts_waiting == 0
    });
    acknowledged.extend((5000..5050).filter(|it| allow(*it).is_ok()));
    running.stop();
    let again = start(&path);
    let allowed = again.handle.allowed(0, usize::MAX).entries;
    for number in &acknowledged {
        assert!(allowed.binary_search(&hash(*number)).is_ok(), "{number}");
    }
    eprintln!(
        "full disk: {} acknowledged changes are there",
        acknowledged.len()
    );
}
