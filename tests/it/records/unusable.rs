//! A database that cannot be used at the start: the error says why, and the file stays as it is.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use scion_tracker::Server;
use scion_tracker::core::types::InfoHash;
use scion_tracker::records::OpenError;
use scion_tracker::server::BindError;
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;

use super::process::sqlite;
use super::{HASH, start, with_database};
use crate::cli;
use crate::common::block_on;

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
    let named = [&flags[..], &["--database", "oracle://host/db"]].concat();
    cli::check_fails(&named, &[], 2, "a database is sqlite:/path/to/file");
    #[cfg(not(feature = "mysql"))]
    {
        let named = [&flags[..], &["--database", "mysql://me:secret@host/db"]].concat();
        let expected =
            "mysql://me:***@host/db (set by a flag) cannot be used: this program was built without";
        cli::check_fails(&named, &[], 78, expected);
    }
}

#[test]
fn records_that_every_user_can_read_are_a_warning_at_the_start() {
    let home = cli::home();
    let directory = home.path().join("records");
    let file = directory.join("records.db");
    let database = format!("sqlite:{}", file.display());
    let flags = ["--udp", "127.0.0.1:0", "--database", &database];
    let log = || cli::check_serves(&mut cli::program(home.path(), &flags), "udp://");
    let warning = format!(
        "every user of this host can read the records in {}",
        file.display()
    );
    assert!(!log().contains("every user"), "a new file is private");
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let said = log();
    assert_eq!(said.matches(&warning).count(), 1, "{said}");
    // The directory keeps them out.
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    let said = log();
    assert!(!said.contains("every user"), "{said}");
}
