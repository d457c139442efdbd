//! How long a start with a million records takes.

use std::time::{Duration, Instant};

use scion_tracker::Server;
use scion_tracker::client::{Client, Options, TrackerUrl};
use scion_tracker::core::types::InfoHash;
use scion_tracker::server::Kind;
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;

use super::process::sqlite;
use crate::common::{self, Running, block_on};

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
