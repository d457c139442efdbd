//! The section `records` of the configuration: the database of what must survive a restart.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::value;

/// See [`Config::records`](super::Config::records).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Records {
    /// The database: "sqlite:/path/to/file", "mysql://user:password@host/name" (also MariaDB),
    /// "postgres://user:password@host/name", or "memory", which keeps nothing over a restart. A password
    /// on the command line can be read by other users of the host; the environment and this file cannot.
    ///
    /// Without it, the file records.db in the data directory. If that directory cannot be written, records
    /// are kept in memory, and a warning says so. A database that is named here has to be reachable at the
    /// start.
    #[config(env = "SCION_TRACKER_DATABASE", deserialize_with = value::text)]
    pub database: Option<Database>,

    /// How often completed downloads are written, from 100ms to 1m. At most those of this time are lost when
    /// the tracker is killed. Other records are written at once.
    #[config(
        env = "SCION_TRACKER_RECORDS_FLUSH_INTERVAL",
        default = "2s",
        deserialize_with = value::duration,
        validate(
            (100..=60_000).contains(&flush_interval.as_millis()),
            "flush_interval is from 100ms to 1m"
        )
    )]
    pub flush_interval: Duration,
}

/// A database for records. `Display` and `Debug` mask the password.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Database {
    /// None: records end with the tracker.
    Memory,
    /// A file of SQLite.
    Sqlite(PathBuf),
    /// A MySQL or MariaDB server, by URL.
    MySql(String),
    /// A PostgreSQL server, by URL.
    Postgres(String),
}

/// The text does not name a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a database is sqlite:/path/to/file, mysql://user:password@host/name, postgres://user:password@host/name or memory"
)]
pub struct DatabaseError;

impl FromStr for Database {
    type Err = DatabaseError;

    fn from_str(text: &str) -> Result<Self, DatabaseError> {
        if text == "memory" {
            return Ok(Self::Memory);
        }
        let (scheme, rest) = text.split_once(':').ok_or(DatabaseError)?;
        let server = rest.strip_prefix("//").filter(|rest| !rest.is_empty());
        match scheme {
            // `sqlite:///path` and `sqlite://path` are usual too.
            "sqlite" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                let is_path = !path.is_empty() && !path.starts_with(':') && !path.contains('?');
                is_path.then(|| Self::Sqlite(path.into()))
            }
            "mysql" | "mariadb" => server.map(|rest| Self::MySql(format!("mysql://{rest}"))),
            "postgres" | "postgresql" => {
                server.map(|rest| Self::Postgres(format!("postgres://{rest}")))
            }
            _ => None,
        }
        .ok_or(DatabaseError)
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::MySql(url) | Self::Postgres(url) => f.write_str(&masked(url)),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A URL of a database without its passwords: the one before the host, and those among the parameters. Masks
/// too much rather than too little: a password may hold characters that should have been escaped.
fn masked(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (login, rest) = match rest.rsplit_once('@') {
        None => (String::new(), rest),
        Some((login, rest)) => match login.split_once(':') {
            None => (format!("{login}@"), rest),
            Some((user, _)) => (format!("{user}:***@"), rest),
        },
    };
    let (place, query) = match rest.split_once('?') {
        None => (rest, String::new()),
        Some((place, query)) => {
            let parameters = query.split('&').map(|parameter| {
                let name = parameter.split('=').next().unwrap_or_default();
                match name.to_ascii_lowercase().contains("password") {
                    true => format!("{name}=***"),
                    false => parameter.to_owned(),
                }
            });
            let parameters: Vec<_> = parameters.collect();
            (place, format!("?{}", parameters.join("&")))
        }
    };
    format!("{scheme}://{login}{place}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_named_by_url_and_shown_without_password() {
        for (text, shown) in [
            ("memory", "memory"),
            ("sqlite:/var/lib/a b.db", "sqlite:/var/lib/a b.db"),
            ("sqlite:records.db", "sqlite:records.db"),
            ("sqlite:///var/lib/r.db", "sqlite:/var/lib/r.db"),
            ("mysql://host/db", "mysql://host/db"),
            ("mysql://me@host/db", "mysql://me@host/db"),
            (
                "mariadb://me:secret@host:3307/db",
                "mysql://me:***@host:3307/db",
            ),
            (
                "postgresql://me:secret@[::1]:5433/db?sslmode=require",
                "postgres://me:***@[::1]:5433/db?sslmode=require",
            ),
            (
                "postgres://me:sec@re/t:@host/db",
                "postgres://me:***@host/db",
            ),
            (
                "postgres:///db?host=/run&user=me&Password=secret",
                "postgres:///db?host=/run&user=me&Password=***",
            ),
        ] {
            let database: Database = text.parse().unwrap();
            assert_eq!(database.to_string(), shown, "{text}");
            assert_eq!(format!("{database:?}"), shown, "{text}");
        }
        for text in [
            "",
            "sqlite",
            "sqlite:",
            "sqlite::memory:",
            "sqlite:a?mode=ro",
            "mysql:host",
            "postgres://",
            "oracle://host/db",
            "/var/lib/records.db",
        ] {
            assert_eq!(text.parse::<Database>(), Err(DatabaseError), "{text}");
        }
    }
}
