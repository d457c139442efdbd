//! Records: what must survive a restart of the tracker. Passkeys, the allow and deny lists, bans, isolation,
//! rules, and how often each torrent was downloaded.
//!
//! A change is committed to the store first, then put in force, then acknowledged. Requests of peers are
//! answered from memory and never wait for the store.

#[cfg_attr(
    not(any(feature = "sqlite", feature = "mysql", feature = "postgres")),
    expect(dead_code, reason = "only a database reads the changes")
)]
mod book;
mod completed;
#[cfg(any(feature = "sqlite", feature = "mysql", feature = "postgres"))]
mod file;
mod queue;
#[cfg(any(feature = "sqlite", feature = "mysql", feature = "postgres"))]
mod sql;
#[cfg(any(feature = "sqlite", feature = "mysql", feature = "postgres"))]
mod store;
#[cfg(not(any(feature = "sqlite", feature = "mysql", feature = "postgres")))]
#[path = "records/no_store.rs"]
#[expect(dead_code, reason = "what is not there does not fail")]
mod store;
#[cfg(any(feature = "sqlite", feature = "mysql", feature = "postgres"))]
mod tables;
mod writer;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use scion_tracker_core::access::{ClientPrefix, Expiry, PlaceAcl, RuleSet};
use scion_tracker_core::request::Passkey;
use scion_tracker_core::types::InfoHash;
use serde::{Deserialize, Serialize};

use crate::config::{self, Database};
pub(crate) use book::{Book, Change, Entries, page_of_map, page_of_set};
pub(crate) use completed::Completed;
pub(crate) use queue::Records;

/// A passkey that was added at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PasskeyRecord {
    /// The secret.
    pub passkey: Passkey,
    /// When it expires.
    pub expiry: Expiry,
    /// A note for operators.
    pub note: Option<String>,
    /// Whose it is, in the operator's words.
    pub owner: Option<String>,
    /// When it was added, in seconds since 1970.
    pub created: u64,
}

impl PasskeyRecord {
    /// A passkey without note and owner. [`Handle::add_passkey`](crate::server::Handle::add_passkey) fills in
    /// when it was created.
    pub const fn new(passkey: Passkey, expiry: Expiry) -> Self {
        Self {
            passkey,
            expiry,
            note: None,
            owner: None,
            created: 0,
        }
    }
}

/// Rules that were set at run time, for all torrents or for one. They replace those of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RulesRecord {
    /// Networks that are served. If there is one, clients at other addresses are refused.
    pub allow_networks: Vec<IpNet>,
    /// Networks that are refused.
    pub deny_networks: Vec<IpNet>,
    /// Clients that are served. If there is one, others are refused.
    #[serde(with = "texts")]
    pub allow_clients: Vec<ClientPrefix>,
    /// Clients that are refused.
    #[serde(with = "texts")]
    pub deny_clients: Vec<ClientPrefix>,
    /// Which ISDs and ASes are served.
    #[serde(with = "acl")]
    pub isd_as: PlaceAcl,
    /// Whether only a proven ISD-AS counts for `isd_as`.
    pub proven: bool,
}

impl RulesRecord {
    /// How many networks, clients and places they name.
    pub(crate) fn len(&self) -> usize {
        self.allow_networks.len()
            + self.deny_networks.len()
            + self.allow_clients.len()
            + self.deny_clients.len()
            + self.isd_as.entries().count()
    }

    /// The rules as the tracker applies them.
    pub fn rule_set(&self) -> RuleSet {
        config::rules(
            (&self.allow_networks, &self.deny_networks),
            (&self.allow_clients, &self.deny_clients),
            (&self.isd_as, self.proven),
        )
    }
}

/// A list of values as texts.
mod texts {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(
        items: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(items.iter().map(T::to_string))
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let items = Vec::<String>::deserialize(deserializer)?;
        let items = items.iter().map(|item| item.parse());
        items.collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}

/// An access control list as a list of its entries.
mod acl {
    use scion_tracker_core::access::PlaceAcl;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        acl: &PlaceAcl,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(acl.entries())
    }

    pub(super) fn deserialize<'de, D>(deserializer: D) -> Result<PlaceAcl, D::Error>
    where
        D: Deserializer<'de>,
    {
        let entries = Vec::<String>::deserialize(deserializer)?;
        PlaceAcl::from_entries(entries.iter().map(String::as_str)).map_err(D::Error::custom)
    }
}

/// A part of a sorted list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The entries, sorted.
    pub entries: Vec<T>,
    /// Entries of the whole list.
    pub total: usize,
}

/// Where records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreKind {
    /// Nowhere: they end with the tracker.
    Memory,
    /// A file.
    Sqlite,
    /// MySQL or MariaDB.
    MySql,
    /// PostgreSQL.
    Postgres,
}

impl StoreKind {
    /// As in labels of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::MySql => "mysql",
            Self::Postgres => "postgres",
        }
    }
}

/// How the store of the records is. Counters are since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordsState {
    /// Where records are kept.
    pub store: StoreKind,
    /// For how long the store could not be used. `None`: it can be used.
    pub outage: Option<Duration>,
    /// What the store said last when it could not be used, also if it can be used again.
    pub last_error: Option<String>,
    /// Time since the last successful write. `None`: nothing was written yet.
    pub last_write: Option<Duration>,
    /// Changes that wait to be written.
    pub changes_waiting: usize,
    /// Torrents with download counts that wait to be written.
    pub counts_waiting: usize,
    /// Successful writes. One can hold many changes.
    pub writes: u64,
    /// Writes that failed.
    pub failures: u64,
    /// Completed downloads that are lost to the records, because too many torrents had some during an outage.
    pub counts_dropped: u64,
}

/// Download counts of torrents.
pub(crate) type Counts = Vec<(InfoHash, u32)>;

/// What a store held at the start.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) records: Entries,
    pub(crate) counts: Counts,
}

/// Why records cannot be used from the start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be created or written.
    #[error("cannot write the records in {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A newer version of the program has written the records.
    #[error(
        "the records in {database} were written by a newer scion-tracker (schema {version}): use that version, or another database"
    )]
    Newer {
        /// Which database.
        database: Database,
        /// The first change of its tables that is not known.
        version: i64,
    },
    /// The database answers and cannot be used.
    #[error("cannot use the records in {database}: {reason}")]
    Refused {
        /// Which database.
        database: Database,
        /// What it says.
        reason: String,
    },
    /// The database does not answer, is full or locked.
    #[error("cannot read the records in {database}: {error}")]
    Unreachable {
        /// Which database.
        database: Database,
        /// What happened.
        error: RecordsError,
    },
    /// The writer of the records cannot be started.
    #[error("cannot start the writer of the records")]
    Start(#[source] io::Error),
}

/// The program was built without the driver of a database.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("this program was built without {0}")]
pub(crate) struct NotBuilt(&'static str);

impl NotBuilt {
    /// The feature that a database needs.
    pub(crate) const fn of(database: &Database) -> Self {
        Self(match database {
            Database::Memory => "records",
            Database::Sqlite(_) => "SQLite (feature sqlite)",
            Database::MySql(_) => "MySQL and MariaDB (feature mysql)",
            Database::Postgres(_) => "PostgreSQL (feature postgres)",
        })
    }
}

/// Checks what can be checked about a database without connecting.
pub(crate) fn check(database: &Database) -> Result<(), String> {
    store::check(database)
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordsError {
    /// The database does not answer, or its connection broke.
    #[error("the database of the records cannot be reached: {0}")]
    Unreachable(String),
    /// There is no room for the change.
    #[error("the database of the records is full: {0}")]
    Full(String),
    /// Another program holds the database.
    #[error("the database of the records is locked by another program: {0}")]
    Locked(String),
    /// The database did not confirm the change in time. The change may still be made.
    #[error("the database of the records did not confirm the change within 5 s")]
    Timeout,
    /// Too many changes wait for the database.
    #[error("too many changes wait for the database of the records")]
    Busy,
    /// The database refused the change.
    #[error("the database of the records refused the change: {0}")]
    Refused(String),
    /// The tracker has stopped.
    #[error("the tracker is stopping and takes no changes")]
    Stopped,
    /// The entry is not a record: it comes from a file.
    #[error("the entry comes from {0} in the configuration: remove it there")]
    InFile(&'static str),
    /// The change itself is wrong.
    #[error("{0}")]
    Invalid(String),
}

impl RecordsError {
    /// Whether the store is at fault, so that the same change can succeed later (HTTP status 503).
    pub const fn is_of_store(&self) -> bool {
        !matches!(self, Self::InFile(_) | Self::Invalid(_))
    }
}
