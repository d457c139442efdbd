//! One connection to a database of one of three kinds, with as much of SQL as records need. Statements are
//! written with `?` for values; what differs between the databases is in [`Dialect`].

use std::borrow::Cow;
use std::future::poll_fn;
use std::time::Duration;

#[cfg(feature = "mysql")]
use sqlx::migrate::Migrate as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{ConnectOptions as _, Connection as _, Error, Row as _};
#[cfg(feature = "mysql")]
use sqlx::{MySqlConnection, mysql::MySqlConnectOptions, mysql::MySqlRow};
#[cfg(feature = "postgres")]
use sqlx::{PgConnection, postgres::PgConnectOptions, postgres::PgRow};
#[cfg(feature = "sqlite")]
use sqlx::{SqliteConnection, sqlite::SqliteConnectOptions, sqlite::SqliteRow};

use super::RecordsError;
use crate::config::Database;

/// How long a statement waits while another program holds the file.
#[cfg(feature = "sqlite")]
const BUSY: Duration = Duration::from_secs(2);
/// How long a server has to accept a connection.
#[cfg(any(feature = "mysql", feature = "postgres"))]
const CONNECT: Duration = Duration::from_secs(3);
/// How long a server has to answer a statement. A file has no such limit: locks end by themselves, and a disk
/// cannot be given up.
#[cfg(any(feature = "mysql", feature = "postgres"))]
const ANSWER: Duration = Duration::from_secs(4);
/// Rows that the thread of SQLite reads ahead.
#[cfg(feature = "sqlite")]
const ROWS_AHEAD: usize = 2048;

/// A value of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Vec<u8>),
}

/// The columns of a row, from 0.
pub(super) trait Columns {
    fn int(&self, column: usize) -> Result<Option<i64>, Error>;
    fn text(&self, column: usize) -> Result<Option<String>, Error>;
    fn bytes(&self, column: usize) -> Result<Vec<u8>, Error>;
}

macro_rules! columns {
    ($($feature:literal: $row:ty,)+) => {
        $(
            #[cfg(feature = $feature)]
            impl Columns for $row {
                fn int(&self, column: usize) -> Result<Option<i64>, Error> {
                    self.try_get(column)
                }

                fn text(&self, column: usize) -> Result<Option<String>, Error> {
                    self.try_get(column)
                }

                fn bytes(&self, column: usize) -> Result<Vec<u8>, Error> {
                    self.try_get(column)
                }
            }
        )+
    };
}
columns! {
    "sqlite": SqliteRow,
    "mysql": MySqlRow,
    "postgres": PgRow,
}

/// What differs between the databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    #[cfg(feature = "sqlite")]
    Sqlite,
    #[cfg(feature = "mysql")]
    MySql,
    #[cfg(feature = "postgres")]
    Postgres,
}

impl Dialect {
    /// Begins a transaction that will write.
    pub(super) const fn begin(self) -> &'static str {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "BEGIN IMMEDIATE",
            #[cfg(feature = "mysql")]
            Self::MySql => "BEGIN",
            #[cfg(feature = "postgres")]
            Self::Postgres => "BEGIN",
        }
    }

    /// Asks for the names of the tables of the database.
    const fn all_tables(self) -> &'static str {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => {
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
            }
            #[cfg(feature = "mysql")]
            Self::MySql => {
                "SELECT CAST(table_name AS CHAR) FROM information_schema.tables WHERE table_schema = DATABASE()"
            }
            #[cfg(feature = "postgres")]
            Self::Postgres => {
                "SELECT table_name::text FROM information_schema.tables WHERE table_schema = current_schema()"
            }
        }
    }

    /// What follows the values of an INSERT, for rows whose key is there.
    pub(super) fn on_conflict(self, table: &str, key: &str, columns: &[&str], add: bool) -> String {
        let sets = |new: &dyn Fn(&str) -> String| {
            let sets = columns.iter().map(|column| match add {
                false => format!("{column} = {}", new(column)),
                true => format!("{column} = {table}.{column} + {}", new(column)),
            });
            sets.collect::<Vec<_>>().join(", ")
        };
        match self {
            #[cfg(feature = "mysql")]
            Self::MySql if columns.is_empty() => {
                format!(" ON DUPLICATE KEY UPDATE {key} = {table}.{key}")
            }
            #[cfg(feature = "mysql")]
            Self::MySql => {
                let new = |column: &str| format!("VALUES({column})");
                format!(" ON DUPLICATE KEY UPDATE {}", sets(&new))
            }
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            _ if columns.is_empty() => format!(" ON CONFLICT ({key}) DO NOTHING"),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            _ => {
                let new = |column: &str| format!("excluded.{column}");
                format!(" ON CONFLICT ({key}) DO UPDATE SET {}", sets(&new))
            }
        }
    }

    /// A statement as the database reads it.
    fn written(self, sql: &str) -> Cow<'_, str> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => {
                let mut written = String::with_capacity(sql.len() + sql.len() / 4);
                let mut parts = sql.split('?');
                written += parts.next().unwrap_or_default();
                for (number, part) in parts.enumerate() {
                    written += &format!("${}", number + 1);
                    written += part;
                }
                written.into()
            }
            #[cfg(any(feature = "sqlite", feature = "mysql"))]
            _ => sql.into(),
        }
    }

    fn migrator(self) -> Migrator {
        let records = match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => include_str!("migrations/sqlite/0001_records.sql"),
            #[cfg(feature = "mysql")]
            Self::MySql => include_str!("migrations/mysql/0001_records.sql"),
            #[cfg(feature = "postgres")]
            Self::Postgres => include_str!("migrations/postgres/0001_records.sql"),
        };
        let migrations = [(1, "records", records)].map(|(version, name, sql)| {
            Migration::new(
                version,
                name.into(),
                MigrationType::Simple,
                sql.into(),
                false,
            )
        });
        Migrator {
            migrations: migrations.to_vec().into(),
            ..Migrator::DEFAULT
        }
    }
}

/// A connection. Dropping it ends a transaction that is open.
#[derive(Debug)]
pub(super) enum Connection {
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteConnection),
    #[cfg(feature = "mysql")]
    MySql(MySqlConnection),
    #[cfg(feature = "postgres")]
    Postgres(PgConnection),
}

/// Evaluates the same expression for each kind of connection.
macro_rules! each {
    ($on:expr, $connection:ident => $do:expr) => {
        match $on {
            #[cfg(feature = "sqlite")]
            Connection::Sqlite($connection) => $do,
            #[cfg(feature = "mysql")]
            Connection::MySql($connection) => $do,
            #[cfg(feature = "postgres")]
            Connection::Postgres($connection) => $do,
        }
    };
}

/// A query with its values bound.
macro_rules! bound {
    ($sql:expr, $values:expr) => {
        $values
            .iter()
            .fold(sqlx::query($sql), |query, value| match value {
                Value::Int(value) => query.bind(*value),
                Value::Text(value) => query.bind(value.as_deref()),
                Value::Bytes(value) => query.bind(value.as_slice()),
            })
    };
}

impl Connection {
    /// Connects. A file of SQLite has to be there, so that its mode is ours: see `store`.
    pub(super) async fn open(database: &Database) -> Result<Self, Error> {
        match database {
            #[cfg(feature = "sqlite")]
            Database::Sqlite(path) => {
                use sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .journal_mode(SqliteJournalMode::Wal)
                    // What is acknowledged survives a loss of power.
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(BUSY)
                    .row_buffer_size(ROWS_AHEAD)
                    .disable_statement_logging();
                Ok(Self::Sqlite(options.connect().await?))
            }
            #[cfg(feature = "mysql")]
            Database::MySql(url) => {
                let options: MySqlConnectOptions = url.parse()?;
                let options = options.disable_statement_logging();
                let mut connection = in_time(Some(CONNECT), options.connect()).await?;
                // The server ends a session that was lost, and with it the transaction and its locks.
                let limits = "SET SESSION wait_timeout = 60, innodb_lock_wait_timeout = 3";
                in_time(
                    Some(CONNECT),
                    sqlx::raw_sql(limits).execute(&mut connection),
                )
                .await?;
                Ok(Self::MySql(connection))
            }
            #[cfg(feature = "postgres")]
            Database::Postgres(url) => {
                let options: PgConnectOptions = url.parse()?;
                let options = options.disable_statement_logging();
                let mut connection = in_time(Some(CONNECT), options.connect()).await?;
                let limits =
                    "SET idle_in_transaction_session_timeout = '10s'; SET lock_timeout = '3s'";
                in_time(
                    Some(CONNECT),
                    sqlx::raw_sql(limits).execute(&mut connection),
                )
                .await?;
                Ok(Self::Postgres(connection))
            }
            _ => Err(Error::Configuration(super::NotBuilt::of(database).into())),
        }
    }

    pub(super) const fn dialect(&self) -> Dialect {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => Dialect::Sqlite,
            #[cfg(feature = "mysql")]
            Self::MySql(_) => Dialect::MySql,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// How long one statement may take. `None`: as long as it takes.
    const fn limit(&self) -> Option<Duration> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => None,
            #[cfg(feature = "mysql")]
            Self::MySql(_) => Some(ANSWER),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Some(ANSWER),
        }
    }

    /// Runs a statement without values, as it stands.
    pub(super) async fn run(&mut self, sql: &str) -> Result<(), Error> {
        let limit = self.limit();
        each!(self, connection => {
            in_time(limit, sqlx::raw_sql(sql).execute(connection)).await.map(drop)
        })
    }

    /// Runs a statement. Returns how many rows it changed. `keep`: whether it will be run again.
    pub(super) async fn execute(
        &mut self,
        sql: &str,
        values: &[Value],
        keep: bool,
    ) -> Result<u64, Error> {
        let sql = &*self.dialect().written(sql);
        let limit = self.limit();
        each!(self, connection => {
            let query = bound!(sql, values).persistent(keep);
            Ok(in_time(limit, query.execute(connection)).await?.rows_affected())
        })
    }

    /// Hands each row of a query to `row`.
    pub(super) async fn fetch(
        &mut self,
        sql: &str,
        mut row: impl FnMut(&dyn Columns) -> Result<(), Error>,
    ) -> Result<(), Error> {
        each!(self, connection => {
            let mut rows = sqlx::query(sql).persistent(false).fetch(connection);
            while let Some(it) = poll_fn(|context| rows.as_mut().poll_next(context)).await {
                row(&it?)?;
            }
            Ok(())
        })
    }

    /// The names of all tables.
    pub(super) async fn tables(&mut self) -> Result<Vec<String>, Error> {
        let all = self.dialect().all_tables();
        let mut names = Vec::new();
        self.fetch(all, |row| {
            names.extend(row.text(0)?);
            Ok(())
        })
        .await?;
        Ok(names)
    }

    /// Creates the tables, or brings those of an earlier version up to date.
    pub(super) async fn migrate(&mut self) -> Result<(), MigrateError> {
        let migrator = self.dialect().migrator();
        match self {
            #[cfg(feature = "mysql")]
            Self::MySql(connection) => {
                // A crash leaves a migration half done. Each of ours can be run again.
                connection.ensure_migrations_table().await?;
                let clear = "DELETE FROM _sqlx_migrations WHERE success = FALSE";
                sqlx::raw_sql(clear).execute(&mut *connection).await?;
                migrator.run_direct(connection).await
            }
            #[cfg(feature = "sqlite")]
            Self::Sqlite(connection) => migrator.run_direct(connection).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => migrator.run_direct(connection).await,
        }
    }

    /// Asks whether the database is there.
    pub(super) async fn ping(&mut self) -> Result<(), Error> {
        let limit = self.limit();
        each!(self, connection => in_time(limit, connection.ping()).await)
    }

    /// Closes it in order: SQLite then moves what is in its log into the file.
    pub(super) async fn close(self) -> Result<(), Error> {
        let limit = self.limit();
        each!(self, connection => in_time(limit, connection.close()).await)
    }
}

/// Ends a wait for a database that does not answer.
pub(super) async fn in_time<T>(
    limit: Option<Duration>,
    wait: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(limit) = limit else {
        return wait.await;
    };
    let result = tokio::time::timeout(limit, wait).await;
    result.unwrap_or_else(|_| Err(timed_out(limit)))
}

/// The error of a database that did not answer.
pub(super) fn timed_out(limit: Duration) -> Error {
    let text = format!("no answer within {} s", limit.as_secs());
    Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}

/// What an error of the database means for a change.
pub(super) fn classify(error: &Error) -> RecordsError {
    match error {
        Error::Database(error) => {
            let text = error.message().to_owned();
            match kind_of(&**error) {
                Kind::Locked => RecordsError::Locked(text),
                Kind::Full => RecordsError::Full(text),
                Kind::Away => RecordsError::Unreachable(text),
                Kind::Damaged => RecordsError::Refused(format!(
                    "the file is damaged ({text}): restore a backup, or move the file away to start without its records"
                )),
                Kind::Other => RecordsError::Refused(text),
            }
        }
        Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed => {
            RecordsError::Unreachable(error.to_string())
        }
        error => RecordsError::Refused(error.to_string()),
    }
}

enum Kind {
    Locked,
    Full,
    Away,
    Damaged,
    Other,
}

/// What a database says by its own codes.
fn kind_of(error: &(dyn sqlx::error::DatabaseError + 'static)) -> Kind {
    #[cfg(feature = "mysql")]
    if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return match error.number() {
            // Lock wait timeout, deadlock.
            1205 | 1213 => Kind::Locked,
            // The disk or the table is full; an error of a write to the disk; no room in a file.
            1021 | 1114 | 1026 | 3 | 28 => Kind::Full,
            // Too many connections, shutdown, the connection was ended.
            1040 | 1053 | 1152 | 1184 | 1927 | 3169 => Kind::Away,
            _ => Kind::Other,
        };
    }
    let code = error.code().unwrap_or_default();
    #[cfg(feature = "sqlite")]
    if let Some(code) = error
        .try_downcast_ref::<sqlx::sqlite::SqliteError>()
        .and_then(|_| code.parse::<u32>().ok())
    {
        // The low byte of https://sqlite.org/rescode.html.
        return match code & 0xff {
            // SQLITE_BUSY, SQLITE_LOCKED
            5 | 6 => Kind::Locked,
            // SQLITE_FULL
            13 => Kind::Full,
            // SQLITE_READONLY, SQLITE_IOERR, SQLITE_CANTOPEN
            8 | 10 | 14 => Kind::Away,
            // SQLITE_CORRUPT, SQLITE_NOTADB
            11 | 26 => Kind::Damaged,
            _ => Kind::Other,
        };
    }
    // SQLSTATE of PostgreSQL: https://www.postgresql.org/docs/current/errcodes-appendix.html.
    match code.as_bytes() {
        b"55P03" | b"40P01" | b"40001" => Kind::Locked,
        b"53100" | b"53200" => Kind::Full,
        [b'0', b'8', ..] | [b'5', b'7', b'P', ..] | b"53300" | b"25P03" | b"57014" => Kind::Away,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests;
