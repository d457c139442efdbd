//! The API while the database of the records is locked by another program: changes fail with the reason, clients
//! are served, and all is caught up with when the database is back.

use std::path::Path;
use std::time::{Duration, Instant};

use scion_tracker::config::Database;
use serde_json::json;
use sqlx::{Connection as _, SqliteConnection};

use super::{Tracker, announce_query, hex};
use crate::common::block_on;

/// Locks a file of SQLite until the connection is dropped.
fn lock(path: &Path) -> SqliteConnection {
    block_on(async {
        let url = format!("sqlite://{}", path.display());
        let mut other = SqliteConnection::connect(&url).await.unwrap();
        let lock = sqlx::raw_sql("BEGIN EXCLUSIVE");
        lock.execute(&mut other).await.unwrap();
        other
    })
}

fn start(path: &Path) -> Tracker {
    Tracker::start_with(|config| {
        config.records.database = Some(Database::Sqlite(path.into()));
        config.records.flush_interval = Duration::from_millis(100);
    })
}

/// Waits for what happens soon after the database is back.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_locked_database_is_said_and_caught_up_with() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("records.db");
    let tracker = start(&path);
    let allow = |hash| tracker.ask("PUT", &format!("/api/v2/allow/{}", hex(hash)));
    let ready = || tracker.ask("GET", "/health/ready");
    assert_eq!(allow(1).status, 200);
    assert_eq!(ready().status, 200);
    tracker.announce(&announce_query(1, 6881, 1));

    let held = lock(&path);
    // Each kind of change says why it was not made. They wait for the same database at the same time.
    let ban = json!({ "target": "192.0.2.1" });
    let rules = json!({ "deny_networks": ["192.0.2.0/24"] });
    let denied = format!("/api/v2/deny/{}", hex(9));
    let isolated = format!("/api/v2/isolation/{}", hex(9));
    std::thread::scope(|scope| {
        let replies = [
            scope.spawn(|| allow(2)),
            scope.spawn(|| tracker.ask("PUT", &denied)),
            scope.spawn(|| tracker.send("POST", "/api/v2/bans", &ban)),
            scope.spawn(|| tracker.send("PUT", "/api/v2/rules", &rules)),
            scope.spawn(|| tracker.send("PUT", &isolated, &json!({ "isds": [1] }))),
            scope.spawn(|| tracker.send("POST", "/api/v2/keys", &json!({ "key": "abc" }))),
        ];
        // Clients are served meanwhile.
        let start = Instant::now();
        for port in 7000..7100 {
            let answer = tracker.announce(&announce_query(3, port, 1));
            assert!(answer.contains("8:interval"), "{answer}");
        }
        let took = start.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        for reply in replies {
            let reply = reply.join().unwrap();
            assert_eq!(reply.status, 503, "{reply:?}");
            let error = reply.json()["error"].as_str().unwrap().to_owned();
            let reasons = ["locked by another program: ", "within 5 s"];
            assert!(reasons.iter().any(|it| error.contains(it)), "{error}");
        }
    });
    let torrust = tracker.ask("POST", &format!("/api/v1/whitelist/{}", hex(2)));
    assert_eq!(torrust.status, 503, "{torrust:?}");
    // A download is completed during the outage.
    let completed = announce_query(1, 6881, 0).replace("started", "completed");
    tracker.announce(&completed);
    // Reading answers, and says how the store is.
    let stats = tracker.ask("GET", "/api/v2/stats").json();
    assert!(stats["store_outage"].is_u64(), "{stats}");
    assert_eq!((&stats["allowed"], &stats["keys"]), (&1.into(), &0.into()));
    let not_ready = ready();
    assert_eq!(not_ready.status, 503);
    assert!(
        not_ready.body.contains("locked by another program"),
        "{not_ready:?}"
    );

    block_on(held.close()).unwrap();
    until("the store is used again", || ready().status == 200);
    assert_eq!(allow(4).status, 200);
    until("the download is written", || {
        tracker.running.handle.records_state().counts_waiting == 0
    });
    let Tracker { running, .. } = tracker;
    running.stop();

    let again = start(&path);
    let entries = again.ask("GET", "/api/v2/allow").json()["entries"].clone();
    assert_eq!(entries, json!([hex(1), hex(4)]));
    let torrent = again.ask("GET", &format!("/api/v2/torrents/{}", hex(1)));
    assert_eq!(torrent.json()["completed"], 1, "{torrent:?}");
    for path in ["bans", "keys", "deny", "isolation"] {
        let listed = again.ask("GET", &format!("/api/v2/{path}")).json();
        assert_eq!(listed["total"], 0, "{path}: {listed}");
    }
}
