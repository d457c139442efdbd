//! What is acknowledged survives kill -9 under load.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Peers;
use super::process::{Changing, sqlite};
use crate::common::block_on;

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
