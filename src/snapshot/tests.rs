use std::net::{IpAddr, Ipv4Addr};

use scion_tracker_core::Tracker;
use scion_tracker_core::address::CompactAddr;
use scion_tracker_core::registry::memory::Ceilings;
use scion_tracker_core::registry::memory::transfer::StoredPeer;
use scion_tracker_core::tracker::Rules;
use scion_tracker_core::types::{InfoHash, PeerId};

use super::*;
use crate::Config;
use crate::watch::Watch;

const INTERVAL: Option<Duration> = Some(Duration::from_secs(300));

fn empty() -> Result<Memory, ()> {
    Ok(Memory::new(Ceilings::default(), [1, 2, 3, 4]))
}

fn start(directory: Option<&Path>) -> (Snapshots, Memory) {
    Snapshots::start(directory, INTERVAL, empty).unwrap()
}

fn hash(torrent: u32) -> InfoHash {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&torrent.to_be_bytes());
    InfoHash(bytes)
}

/// A registry with some torrents of 100 peers.
fn fill(memory: &Memory, torrents: u32) {
    for torrent in 0..torrents {
        let peers: Vec<_> = (0..100)
            .map(|number| {
                let ip = IpAddr::from(Ipv4Addr::from(0x0b00_0000 + torrent * 100 + number));
                let addr = CompactAddr::new(ip, 6881);
                let seeder = u8::from(number % 2 == 0);
                StoredPeer::new("1-1".parse().unwrap(), addr, PeerId([1; 20]), seeder, 80).unwrap()
            })
            .collect();
        memory.restore(hash(torrent), 7, &peers, Time::from_secs(0));
    }
}

fn service(memory: Memory) -> Service {
    let config = Config::default();
    let tracker = Tracker::observed(memory, Watch::default());
    Service::new(tracker, Rules::public(config.terms()), config.limits())
}

fn peers(memory: &Memory) -> u64 {
    let totals = memory.totals();
    totals.seeders + totals.leechers
}

#[test]
fn swarms_are_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/by/us");
    let (snapshots, memory) = start(Some(&path));
    assert_eq!(snapshots.state().loaded, None);
    fill(&memory, 50);
    let report = snapshots.write(&service(memory)).unwrap();
    assert_eq!((report.torrents, report.peers), (50, 5000));
    let file = path.join(FILE);
    assert_eq!(
        (report.file, report.bytes),
        (file.clone(), file.metadata().unwrap().len())
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(!path.join(NEW).exists());
    assert!(snapshots.state().last.unwrap().age() < Duration::from_secs(60));
    // Another tracker cannot take the directory meanwhile.
    let (other, nobody) = start(Some(&path));
    assert!(
        other
            .state()
            .off_because
            .unwrap()
            .contains("another tracker")
    );
    assert_eq!(peers(&nobody), 0);
    assert!(matches!(
        other.write(&service(nobody)),
        Err(SnapshotError::Off(_))
    ));
    drop(snapshots);
    let (snapshots, memory) = start(Some(&path));
    let loaded = snapshots.state().loaded.unwrap();
    assert_eq!(
        (loaded.torrents, loaded.peers, loaded.expired),
        (50, 5000, 0)
    );
    assert_eq!(peers(&memory), 5000);
}

#[test]
fn what_cannot_be_read_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (snapshots, memory) = start(Some(path));
    fill(&memory, 5);
    snapshots.write(&service(memory)).unwrap();
    drop(snapshots);
    let file = path.join(FILE);
    let good = fs::read(&file).unwrap();
    let mut newer = good.clone();
    newer[11] = 9;
    let mut damaged = good.clone();
    damaged[200] ^= 1;
    for (bytes, aside) in [
        (&newer[..], "swarms.snapshot.version-9"),
        (&damaged, "swarms.snapshot.damaged"),
        (&good[..good.len() - 1], "swarms.snapshot.damaged"),
        (b"", "swarms.snapshot.damaged"),
    ] {
        fs::write(&file, bytes).unwrap();
        // A run that was killed while it wrote.
        fs::write(path.join(NEW), "half").unwrap();
        let (snapshots, memory) = start(Some(path));
        assert_eq!(snapshots.state().loaded, None);
        assert_eq!(peers(&memory), 0);
        assert_eq!(fs::read(path.join(aside)).unwrap(), bytes);
        assert!(!file.exists() && !path.join(NEW).exists());
        // The next one goes its way.
        fill(&memory, 1);
        snapshots.write(&service(memory)).unwrap();
        drop(snapshots);
        assert_eq!(peers(&start(Some(path)).1), 100);
    }
}

#[test]
fn a_directory_that_cannot_be_used_stops_nobody() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for directory in [None, Some(Path::new("/proc/nowhere")), Some(file.path())] {
        let (snapshots, memory) = start(directory);
        assert!(snapshots.state().off_because.is_some());
        let error = snapshots.write(&service(memory)).unwrap_err();
        assert!(matches!(error, SnapshotError::Off(_)), "{error}");
    }
    let (snapshots, _) = Snapshots::start(Some(file.path()), None, empty).unwrap();
    assert!(snapshots.state().off_because.is_none());
}

#[test]
fn a_snapshot_that_fails_leaves_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (snapshots, memory) = start(Some(path));
    fill(&memory, 5);
    let service = service(memory);
    let report = snapshots.write(&service).unwrap();
    let good = fs::read(&report.file).unwrap();
    // Something is in the way.
    fs::create_dir(path.join(NEW)).unwrap();
    let error = snapshots.write(&service).unwrap_err();
    assert!(matches!(error, SnapshotError::Io { .. }), "{error}");
    let state = snapshots.state();
    assert_eq!((state.failures, state.last), (1, Some(report.clone())));
    assert!(state.last_error.unwrap().contains(NEW));
    assert_eq!(fs::read(&report.file).unwrap(), good);
    fs::remove_dir(path.join(NEW)).unwrap();
    // The tracker stops.
    snapshots.stopping.store(true, Ordering::Relaxed);
    let error = snapshots.write(&service).unwrap_err();
    assert!(matches!(error, SnapshotError::Stopped), "{error}");
    assert_eq!(snapshots.state().failures, 1);
    assert_eq!(fs::read(&report.file).unwrap(), good);
    assert!(!path.join(NEW).exists());
    let _writing = snapshots.writing.lock();
    assert!(matches!(
        snapshots.write(&service),
        Err(SnapshotError::Busy)
    ));
}

#[test]
fn a_start_knows_whether_a_snapshot_can_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (snapshots, memory) = start(Some(path));
    assert_eq!(snapshots.state().last_error, None);
    assert!(!path.join(NEW).exists());
    fill(&memory, 5);
    snapshots.write(&service(memory)).unwrap();
    drop(snapshots);
    // A directory has the name of the file. Unlike permissions, this also stops root.
    fs::create_dir(path.join(NEW)).unwrap();
    let (snapshots, memory) = start(Some(path));
    let state = snapshots.state();
    assert!(state.last_error.unwrap().contains(NEW));
    assert_eq!(state.failures, 0);
    // What is there is read all the same, and written when that is possible again.
    assert_eq!(peers(&memory), 500);
    fs::remove_dir(path.join(NEW)).unwrap();
    snapshots.write(&service(memory)).unwrap();
    assert_eq!(snapshots.state().last_error, None);
}

/// Whoever can put a link into the directory does not choose what is overwritten.
#[test]
fn a_snapshot_is_not_written_through_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (snapshots, memory) = start(Some(path));
    fill(&memory, 5);
    let service = service(memory);
    let other = path.join("other");
    fs::write(&other, "of somebody").unwrap();
    for hard in [false, true] {
        match hard {
            false => std::os::unix::fs::symlink(&other, path.join(NEW)).unwrap(),
            true => fs::hard_link(&other, path.join(NEW)).unwrap(),
        }
        let report = snapshots.write(&service).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"of somebody");
        let metadata = report.file.symlink_metadata().unwrap();
        assert!(metadata.is_file());
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    drop(snapshots);
    assert_eq!(peers(&start(Some(path)).1), 500);
}

/// Nothing in the place of the file has the start wait.
#[test]
fn what_is_not_a_file_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let aside = path.join("swarms.snapshot.damaged");
    let pipe = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path.join(FILE), pipe, mode, 0).unwrap();
    let (started, is_started) = std::sync::mpsc::channel();
    let opened = path.to_owned();
    thread::spawn(move || {
        let loaded = start(Some(&opened)).0.state().loaded;
        started.send(loaded)
    });
    let loaded = is_started.recv_timeout(Duration::from_secs(20));
    assert_eq!(loaded.expect("the start waits for nobody"), None);
    assert!(!aside.symlink_metadata().unwrap().is_file());
    fs::remove_file(&aside).unwrap();
    fs::create_dir(path.join(FILE)).unwrap();
    let (snapshots, memory) = start(Some(path));
    assert!(aside.is_dir());
    fill(&memory, 1);
    snapshots.write(&service(memory)).unwrap();
}

/// Ages grow with the clock on the wall while the tracker is down. A clock that was set back changes nothing.
#[test]
fn time_passes_while_the_tracker_is_down() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (snapshots, memory) = start(Some(path));
    fill(&memory, 5);
    snapshots.write(&service(memory)).unwrap();
    let file = path.join(FILE);
    let good = fs::read(&file).unwrap();
    let lifetime = u64::from(Ceilings::default().peer_lifetime);
    let now = unix_now();
    for (written, live) in [
        (now, 500),
        (now - 600, 500),
        (now - lifetime - 600, 0),
        (0, 0),
        (now + 100_000, 500),
        (u64::MAX, 500),
    ] {
        let mut bytes = good.clone();
        bytes[12..20].copy_from_slice(&written.to_be_bytes());
        let checksum = crc32fast::hash(&bytes[..20]);
        bytes[20..24].copy_from_slice(&checksum.to_be_bytes());
        fs::write(&file, bytes).unwrap();
        let (memory, report) = load::load(&file, empty).unwrap().unwrap();
        assert_eq!(
            (report.peers, report.expired),
            (live, 500 - live),
            "{written}"
        );
        assert_eq!(peers(&memory), live);
        // Downloads are never forgotten.
        let scraped = scion_tracker_core::registry::Registry::scrape(&memory, &hash(3));
        assert_eq!(scraped.completed, 7);
    }
}
