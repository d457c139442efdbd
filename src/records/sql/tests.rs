//! Pins the migrations that were committed. A database refuses a tracker whose migrations are not those that made
//! its tables, so a committed migration never changes.

use std::fs;
use std::path::Path;

use sqlx::migrate::{Migration, MigrationType};

use super::Dialect;

/// Each migration and its SHA-384, which sqlx also keeps in the database. A new one gets a new row. A row never
/// changes.
const COMMITTED: &[(&str, &str)] = &[
    (
        "mysql/0001_records.sql",
        "066957088bb8979c5416a764c1f31ece998552632ae0339c6bd44c09d7110944ef41c25157ba3f9a3de6dfe3998be0bb",
    ),
    (
        "postgres/0001_records.sql",
        "b69facfeace0ddc85d9cefb4c4d5913b90375b9919f70ad2a8cbacca83c7d0333d8ab683e632683435970d6ec70b2ff4",
    ),
    (
        "sqlite/0001_records.sql",
        "f02ec52764be32580929c2e751fba830c89760117a8ccd8742d63681a3290a4c398325caa2c92ffb222ab8fdc75413dd",
    ),
];

/// The checksum that sqlx computes for a migration.
fn checksum(sql: String) -> String {
    let migration = Migration::new(1, "".into(), MigrationType::Simple, sql.into(), false);
    let bytes = migration.checksum.iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// The migrations in the folder of each database: their names, as in [`COMMITTED`], and their text.
fn files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/records/migrations");
    let mut files = Vec::new();
    for database in ["mysql", "postgres", "sqlite"] {
        for entry in fs::read_dir(folder.join(database)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&folder).unwrap().to_str().unwrap();
            files.push((name.to_owned(), fs::read_to_string(&path).unwrap()));
        }
    }
    files.sort();
    files
}

/// What is wrong with a migration of this name and text, if anything is.
fn complaint(name: &str, sql: String) -> Option<String> {
    let found = checksum(sql);
    match COMMITTED.iter().find(|(known, _)| *known == name) {
        None => Some(format!(
            "the migration {name} is not in COMMITTED: add it, with the checksum {found}"
        )),
        Some((_, expected)) if *expected != found => Some(format!(
            "the migration {name} was changed, and every database that has it would refuse this tracker: restore it, and add a new migration instead"
        )),
        Some(_) => None,
    }
}

#[test]
fn committed_migrations_never_change() {
    let files = files();
    let complaints = files
        .iter()
        .filter_map(|(name, sql)| complaint(name, sql.clone()))
        .collect::<Vec<_>>();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    for (name, _) in COMMITTED {
        assert!(
            files.iter().any(|(file, _)| file == name),
            "the migration {name} is gone: restore it, and add a new migration instead"
        );
    }
}

#[test]
fn a_changed_or_new_migration_is_noticed() {
    let (name, sql) = files().remove(0);
    assert_eq!(complaint(&name, sql.clone()), None);
    let changed = complaint(&name, sql.clone() + "\n").unwrap();
    assert!(changed.contains("add a new migration instead"), "{changed}");
    let new = complaint("sqlite/9999_new.sql", sql).unwrap();
    assert!(new.contains("is not in COMMITTED"), "{new}");
}

/// The program runs each file of a folder, in order, and nothing else.
fn check_that_all_run(dialect: Dialect, folder: &str) {
    let run = dialect.migrator();
    let run = run.iter().map(|migration| {
        let name = format!(
            "{folder}/{:04}_{}.sql",
            migration.version, migration.description
        );
        (name, migration.sql.to_string())
    });
    let mut files = files();
    files.retain(|(name, _)| name.starts_with(folder));
    assert_eq!(run.collect::<Vec<_>>(), files);
}

#[test]
fn every_migration_runs() {
    #[cfg(feature = "sqlite")]
    check_that_all_run(Dialect::Sqlite, "sqlite");
    #[cfg(feature = "mysql")]
    check_that_all_run(Dialect::MySql, "mysql");
    #[cfg(feature = "postgres")]
    check_that_all_run(Dialect::Postgres, "postgres");
}
