//! Swarms survive a restart of the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use scion_tracker::client::{Client, Options, TrackerUrl};
use scion_tracker::core::request::Event;
use scion_tracker::core::types::InfoHash;
use tempfile::TempDir;

use crate::cli::{Tracker, home, program};
use crate::client::announce;
use crate::common::block_on;

/// A tracker on a free port, with a home.
struct Run {
    tracker: Tracker,
    url: TrackerUrl,
}

fn run(home: &TempDir, more: &[&str]) -> Run {
    run_with(home, more, "5m")
}

fn run_with(home: &TempDir, more: &[&str], interval: &str) -> Run {
    let flags = [&["--http", "127.0.0.1:0"], more].concat();
    let mut command = program(home.path(), &flags);
    command
        .env("SCION_TRACKER_SNAPSHOT_INTERVAL", interval)
        .env("SCION_TRACKER_ADMIN_SOCKET", "false");
    let mut tracker = Tracker::start(&mut command);
    let url = tracker.line().parse().unwrap();
    Run { tracker, url }
}

impl Run {
    /// Announces a peer on a port, at a place. Returns the ports of the others.
    fn announce(&self, hash: u8, port: u16, event: Event, place: Option<&str>) -> Vec<u16> {
        let mut query = announce(hash, port, event);
        query.announce.left = u64::from(!port.is_multiple_of(2));
        query.announce.claim.ia = place.map(|ia| ia.parse().unwrap());
        let answer = block_on(async {
            let client = Client::new(&Options::default()).unwrap();
            client.announce(&self.url, &query).await.unwrap()
        });
        let ports = answer.peers.iter().map(|peer| peer.endpoint.addr.port());
        let mut ports: Vec<_> = ports.collect();
        ports.sort_unstable();
        ports
    }

    /// Seeders, leechers and downloads of a torrent.
    fn counts(&self, hash: u8) -> (u32, u32, u32) {
        let answer = block_on(async {
            let client = Client::new(&Options::default()).unwrap();
            let hashes = [InfoHash([hash; 20])];
            client.scrape(&self.url, &hashes).await.unwrap()
        });
        let counts = answer.files[0].1;
        (counts.seeders, counts.leechers, counts.completed)
    }

    /// Announces 20 peers of a torrent, half of them seeds, one of which has downloaded all of it now.
    fn fill(&self, hash: u8) {
        for port in 7001..=7020 {
            self.announce(hash, port, Event::Started, None);
        }
        self.announce(hash, 7001, Event::None, None);
    }

    fn stop(self) -> String {
        self.tracker.stop(Signal::TERM).1
    }

    /// Ends it as a crash does.
    fn kill(mut self) {
        self.tracker.child.kill().unwrap();
        self.tracker.child.wait().unwrap();
    }
}

fn file(home: &TempDir) -> PathBuf {
    home.path()
        .join(".local/state/scion-tracker/swarms.snapshot")
}

#[test]
fn swarms_are_there_after_a_stop() {
    let home = home();
    let first = run(&home, &[]);
    first.fill(1);
    // A download, in a swarm that has nobody any more.
    first.announce(2, 7001, Event::Started, None);
    let mut completed = announce(2, 7001, Event::Completed);
    completed.announce.left = 0;
    block_on(async {
        let client = Client::new(&Options::default()).unwrap();
        client.announce(&first.url, &completed).await.unwrap();
    });
    first.announce(2, 7001, Event::Stopped, None);
    let before = [1, 2].map(|hash| first.counts(hash));
    assert_eq!(before, [(10, 10, 0), (0, 0, 1)]);
    let log = first.stop();
    assert!(log.contains("snapshot of the swarms written"), "{log}");
    for _ in 0..3 {
        let next = run(&home, &[]);
        assert_eq!([1, 2].map(|hash| next.counts(hash)), before);
        let others = next.announce(1, 7001, Event::None, None);
        assert_eq!(others, (7002..=7020).collect::<Vec<_>>());
        assert_eq!(next.counts(1), (10, 10, 0));
        let log = next.stop();
        assert!(log.contains("swarms read from the snapshot"), "{log}");
        assert!(log.contains("peers=20"), "{log}");
    }
}

#[test]
fn swarms_of_the_last_snapshot_are_there_after_a_kill() {
    let home = home();
    let first = run_with(&home, &[], "1s");
    first.fill(1);
    let is_in_it = |hash: u8| {
        let bytes = fs::read(file(&home)).unwrap_or_default();
        bytes.windows(20).take(100_000).any(|it| it == [hash; 20])
    };
    let begun = Instant::now();
    while !is_in_it(1) {
        assert!(begun.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(20));
    }
    first.kill();
    let next = run(&home, &[]);
    // The first snapshot may have been written while the peers announced.
    let (seeders, leechers, _) = next.counts(1);
    assert!((1..=20).contains(&(seeders + leechers)));
    next.fill(1);
    next.fill(3);
    next.kill();
    // Nothing was written by the second run.
    let last = run(&home, &["--log", "debug"]);
    assert_eq!(last.counts(1).0, seeders);
    assert_eq!(last.counts(3), (0, 0, 0));
    last.stop();
}

/// Runs a tracker whose snapshot was changed. It starts without swarms and sets the file aside.
fn check_set_aside(change: fn(&mut Vec<u8>), aside: &str, reason: &str) {
    let home = home();
    let first = run(&home, &[]);
    first.fill(1);
    first.stop();
    let mut bytes = fs::read(file(&home)).unwrap();
    change(&mut bytes);
    fs::write(file(&home), &bytes).unwrap();
    let next = run(&home, &[]);
    assert_eq!(next.counts(1), (0, 0, 0));
    next.fill(4);
    let log = next.stop();
    assert!(log.contains(reason), "{log}");
    assert!(log.contains(aside), "{log}");
    assert_eq!(fs::read(file(&home).with_file_name(aside)).unwrap(), bytes);
    let last = run(&home, &[]);
    assert_eq!(last.counts(4), (10, 10, 0));
    last.stop();
}

#[test]
fn a_damaged_snapshot_is_set_aside() {
    let flip = |bytes: &mut Vec<u8>| bytes[100] ^= 1;
    let reason = "the checksum of block 0 is wrong";
    check_set_aside(flip, "swarms.snapshot.damaged", reason);
}

#[test]
fn a_truncated_snapshot_is_set_aside() {
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    check_set_aside(cut, "swarms.snapshot.damaged", "it ends too early");
}

#[test]
fn a_newer_snapshot_is_set_aside() {
    let newer = |bytes: &mut Vec<u8>| bytes[11] = 2;
    check_set_aside(newer, "swarms.snapshot.version-2", "it has version 2");
}

#[test]
fn a_directory_that_cannot_be_written_is_a_warning() {
    let home = home();
    for (directory, warning) in [
        ("/proc/nowhere", "swarms will not survive a restart"),
        // It can be opened, and nothing can be written there.
        ("/proc", "no snapshot of the swarms was written"),
    ] {
        let run = run(&home, &["--data-dir", directory]);
        run.fill(1);
        assert_eq!(run.counts(1), (10, 10, 0));
        let log = run.stop();
        assert!(log.contains(warning), "{log}");
    }
}

#[test]
fn two_trackers_do_not_share_a_directory() {
    let home = home();
    let first = run(&home, &[]);
    let second = run(&home, &[]);
    second.fill(2);
    let log = second.stop();
    assert!(log.contains("another tracker keeps its swarms"), "{log}");
    first.fill(1);
    first.stop();
    let next = run(&home, &[]);
    assert_eq!([1, 2].map(|hash| next.counts(hash).0), [10, 0]);
    next.stop();
}

#[test]
fn snapshots_can_be_off() {
    let home = home();
    let config = home.path().join("config.toml");
    fs::write(&config, "[snapshot]\nenabled = false\n").unwrap();
    let run = run(&home, &["--config", path(&config)]);
    run.fill(1);
    let log = run.stop();
    assert!(!log.contains("snapshot"), "{log}");
    assert!(!file(&home).exists());
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Rules that became stricter while the tracker was down hold for the peers of the snapshot.
#[test]
fn stricter_rules_hold_after_a_restart() {
    let home = home();
    let first = run(&home, &[]);
    for hash in 1..=3 {
        first.announce(hash, 7000, Event::Started, Some("1-ff00:0:110"));
        first.announce(hash, 7001, Event::Started, Some("2-ff00:0:210"));
        first.announce(hash, 7003, Event::Started, None);
    }
    first.stop();
    let (config, deny) = (home.path().join("config.toml"), home.path().join("deny"));
    fs::write(&deny, format!("{}\n", "01".repeat(20))).unwrap();
    let torrent = "02".repeat(20);
    let text = format!("[access]\ndeny = {deny:?}\n[access.torrents.{torrent}]\nisds = [2]\n");
    fs::write(&config, text).unwrap();
    run(&home, &["--config", path(&config)]).stop();
    // Without the rules again: those that were removed did not come back.
    let last = run(&home, &[]);
    assert_eq!(
        [1, 2, 3].map(|hash| last.counts(hash)),
        [(0, 0, 0), (0, 1, 0), (1, 2, 0)]
    );
    last.stop();
}

#[test]
fn a_data_directory_that_cannot_be_written_is_a_warning_of_the_start() {
    let home = home();
    let data = tempfile::tempdir().unwrap();
    let said = |block: bool| {
        let new = data.path().join("swarms.snapshot.new");
        if block {
            // No permission stops root, but this does.
            fs::create_dir(&new).unwrap();
        }
        let flags = ["--data-dir", data.path().to_str().unwrap()];
        let Run { tracker, .. } = run(&home, &flags);
        let (_, log) = tracker.stop(Signal::TERM);
        let (start, _) = log.split_once("listening on").unwrap();
        start.contains("swarms will not survive a restart: cannot write")
    };
    assert!(!said(false));
    assert!(said(true));
}
