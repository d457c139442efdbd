//! The database of the records: opening, reading all of it, writing batches.
//!
//! Each write is one transaction. It first takes the row of the table `writer`, which names the connection
//! that may write and the last batch. So a connection that was given up cannot commit after the next one has
//! begun, and the next one learns whether the last batch was committed. A count of downloads is therefore
//! never added twice.

use std::collections::HashMap;
use std::time::Duration;

use scion_tracker_core::access::{Ban, BanTarget, Expiry, Isolation};
use scion_tracker_core::address::Host;
use scion_tracker_core::request::Passkey;
use scion_tracker_core::types::InfoHash;
use sqlx::Error;
use sqlx::migrate::MigrateError;

use super::book::{Change, Entries};
use super::file::TheFile;
use super::sql::{Columns, Connection, Value, classify, in_time, timed_out};
use super::tables::{COMPLETED, ROWS, Row, bytes, insert, seconds, write_rows};
use super::{Counts, Loaded, OpenError, PasskeyRecord, RecordsError, RulesRecord, StoreKind};
use crate::config::Database;
use crate::log::Shown;

/// How long a server may take to hand out all records.
const LOAD: Duration = Duration::from_secs(120);

/// Why a batch was not written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// It was not committed.
    Failed(RecordsError),
    /// It was not committed, and the connection is gone.
    Lost(RecordsError),
    /// The connection broke while it was committed. [`Store::reopen`] finds out.
    Unknown(RecordsError),
}

/// A database that is connected.
#[derive(Debug)]
pub(super) struct Store {
    database: Database,
    /// `None` after an error that the connection does not survive.
    connection: Option<Connection>,
    /// Names this connection in the table `writer`.
    owner: i64,
    /// Whether another program has written since.
    was_taken: bool,
    /// The file, if it is one.
    file: Option<TheFile>,
}

impl Store {
    /// Connects, brings the tables up to date and reads all records.
    pub(super) async fn open(database: Database) -> Result<(Self, Loaded), OpenError> {
        let file = match &database {
            Database::Sqlite(path) => {
                let created = TheFile::create(path);
                Some(created.map_err(|source| OpenError::File {
                    path: path.clone(),
                    source,
                })?)
            }
            _ => None,
        };
        let mut store = Self {
            database,
            connection: None,
            owner: 0,
            was_taken: false,
            file,
        };
        let failed = |error: Error| store_error(&store.database, &error);
        let mut connection = Connection::open(&store.database).await.map_err(failed)?;
        let limit = match &store.database {
            Database::Sqlite(_) => None,
            _ => Some(LOAD),
        };
        let tables = in_time(limit, connection.tables()).await.map_err(failed)?;
        if let Some(reason) = foreign(&tables) {
            return Err(OpenError::Refused {
                database: store.database.clone(),
                reason,
            });
        }
        let migrated = match limit {
            None => connection.migrate().await,
            Some(limit) => tokio::time::timeout(limit, connection.migrate())
                .await
                .unwrap_or_else(|_| Err(MigrateError::Execute(timed_out(limit)))),
        };
        migrated.map_err(|error| match error {
            MigrateError::VersionMissing(version) => OpenError::Newer {
                database: store.database.clone(),
                version,
            },
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                failed(error)
            }
            error => OpenError::Refused {
                database: store.database.clone(),
                reason: error.to_string(),
            },
        })?;
        let (owner, _) = take(&mut connection).await.map_err(failed)?;
        let loaded = in_time(limit, load(&mut connection)).await;
        let loaded = loaded.map_err(failed)?;
        if let Some(file) = &store.file {
            file.warn_if_public();
        }
        store.owner = owner;
        store.connection = Some(connection);
        Ok((store, loaded))
    }

    pub(super) const fn kind(&self) -> StoreKind {
        match self.database {
            Database::Memory => StoreKind::Memory,
            Database::Sqlite(_) => StoreKind::Sqlite,
            Database::MySql(_) => StoreKind::MySql,
            Database::Postgres(_) => StoreKind::Postgres,
        }
    }

    pub(super) const fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Whether another program has taken over the writing since the last call.
    pub(super) const fn was_taken(&mut self) -> bool {
        std::mem::replace(&mut self.was_taken, false)
    }

    /// Connects again. Returns the number of the last batch that was committed.
    pub(super) async fn reopen(&mut self) -> Result<i64, RecordsError> {
        self.connection = None;
        self.check_file()?;
        let opened = async {
            let mut connection = Connection::open(&self.database).await?;
            let taken = take(&mut connection).await?;
            Ok::<_, Error>((connection, taken))
        };
        let (connection, (owner, batch)) = opened.await.map_err(|error| classify(&error))?;
        self.connection = Some(connection);
        self.owner = owner;
        Ok(batch)
    }

    /// Writes changes and download counts in one transaction. If it returns without an error, they survive
    /// everything.
    pub(super) async fn write(
        &mut self,
        batch: i64,
        changes: &[&Change],
        counts: &[(InfoHash, u32)],
    ) -> Result<(), WriteError> {
        let Some(connection) = &mut self.connection else {
            let reason = "there is no connection".to_owned();
            return Err(WriteError::Lost(RecordsError::Unreachable(reason)));
        };
        let is_file = matches!(self.database, Database::Sqlite(_));
        match prepare(connection, self.owner, batch, changes, counts).await {
            Ok(true) => {}
            Ok(false) => {
                self.was_taken = true;
                self.connection = None;
                let reason = "another program has taken over the records".to_owned();
                return Err(WriteError::Lost(RecordsError::Locked(reason)));
            }
            Err(error) => {
                let reason = classify(&error);
                // SQLite ends some transactions by itself.
                let is_answer = matches!(error, Error::Database(_));
                let is_alive = is_answer && (connection.run("ROLLBACK").await.is_ok() || is_file);
                return Err(match is_alive {
                    true => WriteError::Failed(reason),
                    false => {
                        self.connection = None;
                        WriteError::Lost(reason)
                    }
                });
            }
        }
        if let Err(reason) = self.check_file() {
            // Dropping it ends the transaction.
            self.connection = None;
            return Err(WriteError::Lost(reason));
        }
        let Some(connection) = &mut self.connection else {
            let reason = "there is no connection".to_owned();
            return Err(WriteError::Lost(RecordsError::Unreachable(reason)));
        };
        let Err(error) = connection.run("COMMIT").await else {
            return Ok(());
        };
        let reason = classify(&error);
        if is_file && matches!(error, Error::Database(_)) {
            // A full disk is noticed here. What SQLite says is certain, unlike the silence of a server.
            let _ = connection.run("ROLLBACK").await;
            return Err(WriteError::Failed(reason));
        }
        self.connection = None;
        Err(WriteError::Unknown(reason))
    }

    /// Whether the file is where it was at the start.
    fn check_file(&self) -> Result<(), RecordsError> {
        self.file.as_ref().map_or(Ok(()), TheFile::check)
    }

    /// Asks whether the database is there.
    pub(super) async fn ping(&mut self) -> Result<(), RecordsError> {
        if let Err(error) = self.check_file() {
            self.connection = None;
            return Err(error);
        }
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        connection.ping().await.map_err(|error| {
            self.connection = None;
            classify(&error)
        })
    }

    /// Closes the connection in order.
    pub(super) async fn close(self) -> Result<(), RecordsError> {
        match self.connection {
            None => Ok(()),
            Some(connection) => connection.close().await.map_err(|error| classify(&error)),
        }
    }
}

/// Checks what can be checked about a database without connecting.
pub(super) fn check(database: &Database) -> Result<(), String> {
    match database {
        #[cfg(feature = "mysql")]
        Database::MySql(url) => {
            let parsed = url.parse::<sqlx::mysql::MySqlConnectOptions>();
            parsed.map(drop).map_err(|error| error.to_string())
        }
        #[cfg(feature = "postgres")]
        Database::Postgres(url) => {
            let parsed = url.parse::<sqlx::postgres::PgConnectOptions>();
            parsed.map(drop).map_err(|error| error.to_string())
        }
        #[cfg(feature = "sqlite")]
        Database::Sqlite(_) => Ok(()),
        Database::Memory => Ok(()),
        #[allow(unreachable_patterns, reason = "reachable if a driver is left out")]
        _ => Err(super::NotBuilt::of(database).to_string()),
    }
}

/// Why a database with these tables is not for records. `None`: it is empty or has records.
fn foreign(tables: &[String]) -> Option<String> {
    // A server can be left with the list of migrations alone.
    let other = tables.iter().filter(|it| *it != "_sqlx_migrations");
    let other: Vec<_> = other.take(4).map(String::as_str).collect();
    if other.is_empty() || tables.iter().any(|it| it == "writer") {
        return None;
    }
    Some(format!(
        "it has tables of another program ({}), and none of scion-tracker: name an empty database",
        Shown(other.join(", ").as_bytes())
    ))
}

/// Why the database cannot be used from the start.
fn store_error(database: &Database, error: &Error) -> OpenError {
    let database = database.clone();
    match classify(error) {
        RecordsError::Refused(reason) => OpenError::Refused { database, reason },
        error => OpenError::Unreachable { database, error },
    }
}

/// Makes this connection the one that writes. Waits for the end of what an earlier one has begun. Returns the
/// number of this connection, and that of the last batch.
async fn take(connection: &mut Connection) -> Result<(i64, i64), Error> {
    let owner = super::writer::random();
    connection.run(connection.dialect().begin()).await?;
    let set = "UPDATE writer SET owner = ? WHERE id = 1";
    connection
        .execute(set, &[Value::Int(Some(owner))], false)
        .await?;
    let mut batch = None;
    let last = "SELECT batch FROM writer WHERE id = 1";
    connection
        .fetch(last, |row| {
            batch = row.int(0)?;
            Ok(())
        })
        .await?;
    connection.run("COMMIT").await?;
    Ok((owner, batch.ok_or(Error::RowNotFound)?))
}

/// Does all of a transaction but its end. Returns whether this connection may write.
async fn prepare(
    connection: &mut Connection,
    owner: i64,
    batch: i64,
    changes: &[&Change],
    counts: &[(InfoHash, u32)],
) -> Result<bool, Error> {
    connection.run(connection.dialect().begin()).await?;
    let hold = "UPDATE writer SET batch = ? WHERE id = 1 AND owner = ?";
    let values = [batch, owner].map(|it| Value::Int(Some(it)));
    if connection.execute(hold, &values, true).await? != 1 {
        return Ok(false);
    }
    let expired = changes.iter().filter_map(|change| match change {
        Change::RemoveExpired(unix) => Some(*unix),
        _ => None,
    });
    if let Some(unix) = expired.max() {
        for table in ["passkeys", "bans"] {
            let remove = format!("DELETE FROM {table} WHERE expires <= ?");
            connection.execute(&remove, &[seconds(unix)], false).await?;
        }
    }
    // The last change of a row is the one that counts.
    let mut rows = HashMap::new();
    for row in changes.iter().filter_map(|change| Row::of(change)) {
        rows.insert((row.table.name, row.key.clone()), row);
    }
    let mut by_table: HashMap<(&str, bool), Vec<Row>> = HashMap::new();
    for ((table, _), row) in rows {
        let group = by_table.entry((table, row.rest.is_some())).or_default();
        group.push(row);
    }
    for rows in by_table.values() {
        for rows in rows.chunks(ROWS) {
            write_rows(connection, rows).await?;
        }
    }
    for counts in counts.chunks(ROWS) {
        let values: Vec<_> = counts
            .iter()
            .flat_map(|(hash, count)| [bytes(hash), Value::Int(Some((*count).into()))])
            .collect();
        let sql = insert(connection, &COMPLETED, counts.len(), true);
        connection
            .execute(&sql, &values, counts.len() == ROWS)
            .await?;
    }
    Ok(true)
}

/// Reads all records.
async fn load(connection: &mut Connection) -> Result<Loaded, Error> {
    let mut records = Entries::default();
    let all = "SELECT passkey, expires, note, owner, created FROM passkeys";
    let mut passkeys = Vec::new();
    connection
        .fetch(all, |row| {
            let key = row.bytes(0)?;
            let record = PasskeyRecord {
                passkey: Passkey::from_bytes(&key).ok_or_else(|| wrong("passkeys"))?,
                expiry: row.int(1)?.map_or(Expiry::Never, |at| Expiry::At(unix(at))),
                note: row.text(2)?,
                owner: row.text(3)?,
                created: row.int(4)?.map_or(0, unix),
            };
            passkeys.push((key.into_boxed_slice(), record));
            Ok(())
        })
        .await?;
    records.passkeys = passkeys.into_iter().collect();
    for (table, set) in [
        ("allowed", &mut records.allowed),
        ("denied", &mut records.denied),
    ] {
        let all = format!("SELECT info_hash FROM {table}");
        let mut hashes = Vec::new();
        connection
            .fetch(&all, |row| {
                hashes.push(info_hash(row, table)?);
                Ok(())
            })
            .await?;
        *set = hashes.into_iter().collect();
    }
    connection
        .fetch("SELECT target, expires, reason FROM bans", |row| {
            let target = row.text(0)?.as_deref().and_then(ban_target);
            let ban = Ban {
                until: row.int(1)?.map(unix),
                reason: row.text(2)?.unwrap_or_default(),
            };
            records
                .bans
                .insert(target.ok_or_else(|| wrong("bans"))?, ban);
            Ok(())
        })
        .await?;
    connection
        .fetch("SELECT info_hash, isds, proven FROM isolations", |row| {
            let isds = row.text(1)?.unwrap_or_default();
            let isds = isds.split(',').filter(|isd| !isd.is_empty());
            let isds = isds.map(|isd| isd.parse().map_err(|_| wrong("isolations")));
            let isolation = Isolation {
                isds: isds.collect::<Result<_, _>>()?,
                proven_only: row.int(2)? != Some(0),
            };
            let hash = info_hash(row, "isolations")?;
            records.isolations.insert(hash, isolation);
            Ok(())
        })
        .await?;
    connection
        .fetch("SELECT info_hash, rules FROM rules", |row| {
            let text = row.text(1)?.unwrap_or_default();
            let rules: RulesRecord = serde_json::from_str(&text).map_err(|_| wrong("rules"))?;
            match row.bytes(0)?.is_empty() {
                true => records.rules = Some(rules),
                false => {
                    let hash = info_hash(row, "rules")?;
                    records.torrent_rules.insert(hash, rules);
                }
            }
            Ok(())
        })
        .await?;
    let mut counts: Counts = Vec::new();
    connection
        .fetch("SELECT info_hash, downloads FROM completed", |row| {
            let downloads = row.int(1)?.unwrap_or_default();
            let downloads = u32::try_from(downloads.max(0)).unwrap_or(u32::MAX);
            counts.push((info_hash(row, "completed")?, downloads));
            Ok(())
        })
        .await?;
    Ok(Loaded { records, counts })
}

fn unix(seconds: i64) -> u64 {
    seconds.try_into().unwrap_or_default()
}

fn info_hash(row: &dyn Columns, table: &str) -> Result<InfoHash, Error> {
    let bytes = row.bytes(0)?;
    let hash = bytes.try_into().map(InfoHash);
    hash.map_err(|_| wrong(table))
}

/// A row that no tracker has written. Skipping it could serve somebody who must not be served.
fn wrong(table: &str) -> Error {
    Error::Decode(format!("a row of the table {table} is not a record of scion-tracker").into())
}

/// Reads what a [`BanTarget`] shows.
fn ban_target(text: &str) -> Option<BanTarget> {
    match text.split_once(',') {
        None => text.parse().ok().map(BanTarget::network),
        Some((ia, net)) => {
            let net: ipnet::IpNet = net.parse().ok()?;
            Some(BanTarget::host(Host::new(ia.parse().ok()?, net.addr())))
        }
    }
}
